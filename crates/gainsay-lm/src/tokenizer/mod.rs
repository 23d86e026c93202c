//! Text to token ids and back, with the model's own chat template.
//!
//! Conventions: a prompt and its completion are encoded separately and their ids concatenated, so
//! that a completion's tokens never depend on where its prompt ends. The turn-end token belongs to
//! the completion.

mod byte_bpe;
mod chat;
mod gguf;
mod hf;
mod python_json;
mod spm;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_core::engine::ScoreItem;
use gainsay_core::record::{Finish, Message, Prompt};
use serde_json::{Value, json};

use crate::error::LmError;
use chat::ChatTemplate;

/// A model's tokenizer; cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// Where it came from, for messages.
    origin: PathBuf,
    template: Option<ChatTemplate>,
    /// `bos_token`, `eos_token`, ... to their texts.
    special: BTreeMap<String, String>,
    /// What the post-processor puts before plain text.
    leading: Vec<u32>,
    end_tokens: Vec<u32>,
    turn_end: Option<u32>,
    pad: Option<u32>,
    vocab_size: usize,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("origin", &self.origin)
            .field("vocab_size", &self.vocab_size)
            .field("end_tokens", &self.end_tokens)
            .field("turn_end", &self.turn_end)
            .finish_non_exhaustive()
    }
}

/// What a tokenizer is made from.
pub(crate) struct Parts {
    pub inner: tokenizers::Tokenizer,
    pub origin: PathBuf,
    /// Source of the chat template.
    pub template: Option<String>,
    /// `bos_token`, `eos_token`, ... to their texts.
    pub special: BTreeMap<String, String>,
    /// End-of-sequence ids of the model's configuration.
    pub eos: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and its companions (`tokenizer_config.json`,
    /// `chat_template.jinja`, `generation_config.json`, `config.json`) in `dir`.
    pub fn from_folder(dir: &Path) -> Result<Self, LmError> {
        Self::from_parts(hf::read(dir)?)
    }

    /// Builds the tokenizer that a GGUF file's metadata describes.
    pub fn from_gguf(file: &crate::weights::gguf::GgufFile) -> Result<Self, LmError> {
        Self::from_parts(gguf::read(file)?)
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Self, LmError> {
        let Parts { mut inner, origin, template, special, eos } = parts;
        let fail = |e: tokenizers::Error| LmError::tokenizer(&origin, e);
        // Limits of someone's training run, which files carry along.
        inner.with_truncation(None).map_err(fail)?.with_padding(None);
        let leading = leading_tokens(&inner).map_err(fail)?;
        let template = template.map(|source| ChatTemplate::new(&source, &special));
        let mut end_tokens = eos;
        end_tokens.extend(special.get("eos_token").and_then(|token| inner.token_to_id(token)));
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let inner = Arc::new(inner);
        let mut out =
            Self { inner, origin, template, special, leading, end_tokens, turn_end: None, pad: None, vocab_size };
        out.turn_end = out.find_turn_end();
        out.end_tokens.extend(out.turn_end);
        out.end_tokens.sort_unstable();
        out.end_tokens.dedup();
        out.pad = out.find_pad();
        Ok(out)
    }

    /// The special token that the template puts after an assistant's answer; without a template,
    /// or with one that puts none, the first end-of-sequence token.
    fn find_turn_end(&self) -> Option<u32> {
        const ANSWER: &str = "gainsayanswer";
        let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let from_template = self.template.as_ref().and_then(|template| {
            let text = template.render(&[turn("user", "question"), turn("assistant", ANSWER)], false).ok()?;
            let (_, after) = text.rsplit_once(ANSWER)?;
            let id = *self.encode(after.trim_start()).first()?;
            self.is_special(id).then_some(id)
        });
        from_template.or_else(|| self.end_tokens.first().copied())
    }

    fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The declared padding token, or else the lowest special one, that no completion ends in.
    fn find_pad(&self) -> Option<u32> {
        let free = |id: &u32| !self.end_tokens.contains(id);
        let declared = self.special.get("pad_token").and_then(|token| self.inner.token_to_id(token));
        declared.filter(free).or_else(|| {
            let added = self.inner.get_added_tokens_decoder();
            added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).filter(free).min()
        })
    }

    /// Ids of a text. No special token is added; those that stand in the text are parsed.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // The pre-tokenizer's regular expression gives up on pathological texts (megabytes of
            // white space): halves are within its reach.
            Err(_) => match text.char_indices().nth(text.chars().count() / 2) {
                Some((middle, _)) if middle > 0 => {
                    let mut ids = self.encode(&text[..middle]);
                    ids.extend(self.encode(&text[middle..]));
                    ids
                }
                _ => Vec::new(),
            },
        }
    }

    /// Text of ids; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let plain = || ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect();
        self.inner.decode(ids, true).unwrap_or_else(|_| plain())
    }

    /// Text of ids with special tokens spelled out, as servers take it.
    pub fn spell(&self, ids: &[u32]) -> String {
        let plain = || ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect();
        self.inner.decode(ids, false).unwrap_or_else(|_| plain())
    }

    /// Ids of a prompt. Where the model has a chat template, the prompt (a string is one user
    /// turn) is rendered with it, and the assistant's turn opened. A string is taken as it stands
    /// with `raw`, or without a template; then the tokenizer's beginning-of-sequence token comes
    /// first, if it adds one to plain text.
    pub fn prompt_ids(&self, prompt: &Prompt, raw: bool) -> Result<Vec<u32>, LmError> {
        let ids = match (prompt, &self.template) {
            (Prompt::Chat(_), _) if raw => {
                return Err(LmError::Prompt(
                    "a conversation cannot be taken verbatim; give a string prompt, or leave out --raw".to_owned(),
                ));
            }
            (Prompt::Chat(_), None) => {
                return Err(LmError::Prompt(format!(
                    "the model has no chat template ({}); give string prompts, or put a chat_template.jinja into its \
                     folder",
                    self.origin.display()
                )));
            }
            (Prompt::Text(text), None) => self.plain(text),
            (Prompt::Text(text), Some(_)) if raw => self.plain(text),
            (_, Some(template)) => self.encode(&template.render(&prompt.messages(), true)?),
        };
        if ids.is_empty() {
            return Err(LmError::Prompt("the prompt is empty: there is nothing to complete".to_owned()));
        }
        Ok(ids)
    }

    fn plain(&self, text: &str) -> Vec<u32> {
        let ids = self.encode(text);
        if ids.starts_with(&self.leading) { ids } else { [self.leading.as_slice(), &ids].concat() }
    }

    /// Ids of a completion: its `token_ids` where present; else its text, encoded on its own, and
    /// the turn end, unless it was cut at the length limit.
    pub fn completion_ids(&self, item: &ScoreItem<'_>) -> Vec<u32> {
        if let Some(ids) = item.token_ids {
            return ids.to_vec();
        }
        let mut ids = self.encode(item.text);
        if item.finish != Some(Finish::Length) {
            ids.extend(self.turn_end);
        }
        ids
    }

    /// An item without its ids where another tokenizer made them: a reward model's is often not the policy's.
    pub fn own<'i>(&self, item: &ScoreItem<'i>) -> ScoreItem<'i> {
        ScoreItem { token_ids: item.token_ids.filter(|ids| self.spells(ids, item.text)), ..item.clone() }
    }

    /// Whether ids read as a text here. White space at the ends and what follows the text (a stop string that
    /// a server cut off) do not count; an empty text says nothing.
    fn spells(&self, ids: &[u32], text: &str) -> bool {
        let text = text.trim();
        text.is_empty() || self.decode(ids).trim_start().starts_with(text)
    }

    /// Ids after which generation stops: the model's end-of-sequence tokens and the turn end,
    /// sorted.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The token that ends an assistant's turn.
    pub fn turn_end(&self) -> Option<u32> {
        self.turn_end
    }

    /// The beginning-of-sequence token, whether or not it is added to plain text.
    pub fn bos(&self) -> Option<u32> {
        self.special.get("bos_token").and_then(|token| self.inner.token_to_id(token))
    }

    /// A special token that no completion ends in, for padding in other tools: transformers reads
    /// a reward at the last id that is not the padding.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// True where prompts are rendered with a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`, as transformers reads them.
    pub fn save(&self, dir: &Path) -> Result<(), LmError> {
        let tokenizer = self.inner.to_string(false).map_err(|e| LmError::tokenizer(&self.origin, e))?;
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        for (name, token) in &self.special {
            config[name] = json!(token);
        }
        if let Some(pad) = self.pad.and_then(|id| self.inner.id_to_token(id)) {
            config["pad_token"] = json!(pad);
        }
        if let Some(template) = &self.template {
            config["chat_template"] = Value::from(template.source());
        }
        let config = format!("{config:#}\n");
        for (name, text) in [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(LmError::write(&path))?;
        }
        Ok(())
    }
}

/// What the post-processor puts before a plain text. The probe also holds a character that no
/// vocabulary has, so that a tokenizer without a fallback for unknown characters fails here.
fn leading_tokens(inner: &tokenizers::Tokenizer) -> tokenizers::Result<Vec<u32>> {
    const PROBE: &str = "a\u{10fffd}";
    let bare = inner.encode_fast(PROBE, false)?;
    let full = inner.encode_fast(PROBE, true)?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let start = full.windows(bare.len().max(1)).position(|window| window == bare).unwrap_or(0);
    Ok(full[..start].to_vec())
}
