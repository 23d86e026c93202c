//! Engines against a server that answers as documented, and against one that misbehaves.

mod faults;
mod judging;
mod policies;
mod recorded;
mod rewards;
mod server;

use std::time::Duration;

use gainsay_core::engine::{EngineError, ScoreItem};
use gainsay_core::record::{Finish, Prompt};
use gainsay_remote::{Address, Client, Renderer};

/// A client without a key whose waits are short.
pub fn client(base: &str, options: &str) -> Client {
    Client::with_key(address(base, options), None, None)
}

/// An address with these options and short waits.
pub fn address(base: &str, options: &str) -> Address {
    let mut address = Address::parse(&format!("{base}#{options}")).unwrap();
    address.limits.backoff = Duration::from_millis(2);
    address
}

/// Bytes as tokens, 256 begins and 257 ends a turn: `<s>` and `</s>` when spelled.
pub struct Bytes;

impl Renderer for Bytes {
    fn prompt_ids(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        Ok(std::iter::once(256).chain(prompt.display().bytes().map(u32::from)).collect())
    }

    fn completion_ids(&self, item: &ScoreItem<'_>) -> Vec<u32> {
        let end = (item.finish != Some(Finish::Length)).then_some(257);
        item.token_ids.map_or_else(|| item.text.bytes().map(u32::from).chain(end).collect(), <[u32]>::to_vec)
    }

    fn spell(&self, ids: &[u32]) -> String {
        ids.iter()
            .map(|id| match id {
                256 => "<s>".to_owned(),
                257 => "</s>".to_owned(),
                byte => char::from(*byte as u8).to_string(),
            })
            .collect()
    }

    fn read(&self, ids: &[u32]) -> String {
        self.spell(&ids.iter().copied().filter(|id| *id < 256).collect::<Vec<_>>())
    }

    fn is_end(&self, id: u32) -> bool {
        id == 257
    }

    fn bos(&self) -> Option<u32> {
        Some(256)
    }

    fn identity(&self) -> String {
        "bytes".into()
    }
}

/// Completions of one prompt.
pub fn items<'a>(prompt: &'a Prompt, texts: &[&'a str]) -> Vec<ScoreItem<'a>> {
    texts.iter().map(|text| ScoreItem { prompt, text, token_ids: None, finish: None }).collect()
}
