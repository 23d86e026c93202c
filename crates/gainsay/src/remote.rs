//! Servers as models: a local tokenizer renders, `gainsay-remote` speaks.

use std::path::Path;
use std::sync::Arc;

use gainsay_core::engine::{EngineError, ScoreItem};
use gainsay_core::record::Prompt;
use gainsay_lm::Tokenizer;
use gainsay_remote::protocols::Mapping;
use gainsay_remote::{Address, Client, Memory, RemotePolicy, RemoteReward, Renderer};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::models::ModelOptions;

/// A local model's tokenizer as a renderer.
struct LocalRenderer {
    tokenizer: Tokenizer,
    raw: bool,
    name: String,
}

impl Renderer for LocalRenderer {
    fn prompt_ids(&self, prompt: &Prompt) -> std::result::Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer.prompt_ids(prompt, self.raw)?)
    }

    fn completion_ids(&self, item: &ScoreItem<'_>) -> Vec<u32> {
        self.tokenizer.completion_ids(item)
    }

    fn spell(&self, ids: &[u32]) -> String {
        self.tokenizer.spell(ids)
    }

    fn read(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids)
    }

    fn is_end(&self, id: u32) -> bool {
        self.tokenizer.end_tokens().contains(&id)
    }

    fn bos(&self) -> Option<u32> {
        self.tokenizer.bos()
    }

    fn identity(&self) -> String {
        if self.raw { format!("{} raw", self.name) } else { self.name.clone() }
    }
}

/// The renderer of a local model.
///
/// # Errors
/// A model whose tokenizer cannot be read.
pub fn renderer(spec: &str, raw: bool) -> Result<Arc<dyn Renderer>> {
    let tokenizer = gainsay_lm::source::tokenizer(spec)?;
    let name = Path::new(spec).file_name().map_or_else(|| spec.to_owned(), |n| n.to_string_lossy().into_owned());
    Ok(Arc::new(LocalRenderer { tokenizer, raw, name }))
}

/// The address of a server, and its renderer where it names one.
fn address(spec: &str, options: &ModelOptions) -> Result<(Address, Option<Arc<dyn Renderer>>)> {
    let mut address = Address::parse(spec)?;
    address.raw |= options.raw;
    address.limits.stop = interrupt::requested;
    if options.truncate {
        return Err(Error::Input(format!("{address}: --truncate is for models here; a server has its own limit")));
    }
    let renderer = address.tokenizer.as_deref().map(|spec| renderer(spec, address.raw)).transpose()?;
    Ok((address, renderer))
}

/// A client that keeps answers where the options say.
pub fn client(address: Address, answers: Option<&Path>) -> Result<Client> {
    let memory = answers.map(Memory::open).transpose()?;
    Ok(Client::new(address, memory.map(Arc::new)))
}

/// A policy behind a URL.
///
/// # Errors
/// What the address, the tokenizer or the server lacks.
pub fn policy(spec: &str, options: &ModelOptions) -> Result<RemotePolicy> {
    let (address, renderer) = address(spec, options)?;
    Ok(RemotePolicy::connect(client(address, options.answers.as_deref())?, renderer)?)
}

/// A reward model behind a URL.
///
/// # Errors
/// What the address, the tokenizer, the mapping or the server lacks.
pub fn reward(spec: &str, options: &ModelOptions) -> Result<RemoteReward> {
    let (address, renderer) = address(spec, options)?;
    let mapping = address.map.as_deref().map(mapping).transpose()?;
    Ok(RemoteReward::connect(client(address, options.answers.as_deref())?, renderer, mapping)?)
}

fn mapping(path: &str) -> Result<Mapping> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::Input(format!("{path}: cannot be read: {e}")))?;
    let parsed = serde_json::from_str::<Mapping>(&text).map_err(|e| e.to_string());
    parsed.and_then(|mapping| mapping.check().map(|()| mapping)).map_err(|e| {
        Error::Input(format!(
            "{path}: {e}; a mapping is {{\"path\":\"/score\",\"request\":{{…}},\"reward\":\"/place/in/the/answer\"}}"
        ))
    })
}
