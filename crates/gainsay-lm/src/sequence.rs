//! From records to the token sequences that a model reads, and from sequences to batches.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use gainsay_core::engine::ScoreItem;
use gainsay_core::record::Prompt;

use crate::error::LmError;
use crate::tokenizer::Tokenizer;

/// What happens to a sequence that is longer than the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncate {
    /// An error names it.
    #[default]
    Refuse,
    /// Its prompt loses tokens on the left; how many sequences did is counted. At least one
    /// token of the prompt must remain.
    Left,
}

/// How text becomes sequences and sequences become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Take string prompts verbatim, without the chat template.
    pub raw: bool,
    /// Longest sequence, prompt and completion together; the model's own limit where smaller.
    pub max_tokens: usize,
    /// What happens to longer ones.
    pub truncate: Truncate,
    /// Tokens that go through the model together; a single longer sequence goes alone.
    pub batch_tokens: usize,
    /// Completions that are decoded together.
    pub max_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { raw: false, max_tokens: usize::MAX, truncate: Truncate::Refuse, batch_tokens: 4096, max_rows: 64 }
    }
}

/// What went through a model, and what was cut on the way.
#[derive(Debug, Default)]
pub struct Counters {
    tokens: AtomicU64,
    truncated: AtomicU64,
}

impl Counters {
    /// Tokens through the model.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Sequences whose prompt lost tokens on the left.
    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    pub(crate) fn add_tokens(&self, n: usize) {
        self.tokens.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_truncated(&self, n: usize) {
        self.truncated.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// A prompt and its completion as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Prompt, then completion.
    pub tokens: Vec<u32>,
    /// Leading tokens that are the prompt's.
    pub prompt_len: usize,
    /// Whether the prompt lost tokens on the left.
    pub truncated: bool,
}

impl Sequence {
    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// The completion's tokens.
    pub fn completion(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }
}

/// Makes sequences for one model.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    vocab_size: usize,
    limit: usize,
    raw: bool,
    truncate: Truncate,
}

impl<'a> Encoder<'a> {
    /// For a model with this tokenizer, vocabulary and longest sequence.
    pub fn new(tokenizer: &'a Tokenizer, vocab_size: usize, max_positions: usize, settings: &Settings) -> Self {
        let limit = settings.max_tokens.min(max_positions);
        Self { tokenizer, vocab_size, limit, raw: settings.raw, truncate: settings.truncate }
    }

    /// The prompt's tokens with `room` tokens left for a completion, and whether it was cut.
    ///
    /// # Errors
    /// An empty prompt, one that is too long, and one that the chat template cannot express.
    pub fn prompt(&self, prompt: &Prompt, room: usize, name: &str) -> Result<(Vec<u32>, bool), LmError> {
        self.cut(self.prompt_ids(prompt, name)?, room, name)
    }

    /// The prompt's tokens, however many.
    ///
    /// # Errors
    /// An empty prompt, and one that the chat template cannot express.
    pub fn prompt_ids(&self, prompt: &Prompt, name: &str) -> Result<Vec<u32>, LmError> {
        let ids = self.tokenizer.prompt_ids(prompt, self.raw)?;
        if ids.is_empty() {
            return Err(LmError::Input(format!("{name}: the prompt has no tokens; leave it out or give it a text")));
        }
        Ok(ids)
    }

    fn cut(&self, mut ids: Vec<u32>, room: usize, name: &str) -> Result<(Vec<u32>, bool), LmError> {
        let excess = (ids.len() + room).saturating_sub(self.limit);
        if excess == 0 {
            return Ok((ids, false));
        }
        if self.truncate == Truncate::Refuse || excess >= ids.len() {
            return Err(self.too_long(ids.len(), room, name));
        }
        ids.drain(..excess);
        Ok((ids, true))
    }

    /// One item's sequence; `name` says in errors which item it is.
    ///
    /// # Errors
    /// As [`Encoder::prompt`], and token ids outside the vocabulary.
    pub fn item(&self, item: &ScoreItem<'_>, name: &str) -> Result<Sequence, LmError> {
        self.after(self.prompt_ids(item.prompt, name)?, item, name)
    }

    /// [`Encoder::item`] where its prompt's tokens are known.
    ///
    /// # Errors
    /// A sequence that is too long, and token ids outside the vocabulary.
    pub fn after(&self, prompt: Vec<u32>, item: &ScoreItem<'_>, name: &str) -> Result<Sequence, LmError> {
        let completion = self.tokenizer.completion_ids(item);
        if let Some(id) = completion.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(LmError::Input(format!(
                "{name}: token id {id} is outside the model's vocabulary of {}; the ids are another tokenizer's: \
                 remove `token_ids` so that the text is read instead",
                self.vocab_size
            )));
        }
        let (mut tokens, truncated) = self.cut(prompt, completion.len(), name)?;
        let prompt_len = tokens.len();
        tokens.extend(completion);
        Ok(Sequence { tokens, prompt_len, truncated })
    }

    /// [`Tokenizer::own`].
    pub fn own<'i>(&self, item: &ScoreItem<'i>) -> ScoreItem<'i> {
        self.tokenizer.own(item)
    }

    /// [`Encoder::item`] for many; errors call the items `item 0`, `item 1` and so on.
    ///
    /// # Errors
    /// That of the first item that has one.
    pub fn items(&self, items: &[ScoreItem<'_>]) -> Result<Vec<Sequence>, LmError> {
        items.iter().enumerate().map(|(i, item)| self.item(item, &format!("item {i}"))).collect()
    }

    fn too_long(&self, prompt: usize, room: usize, name: &str) -> LmError {
        let remedy = match self.truncate {
            Truncate::Refuse => "leave it out, or ask for prompts to be cut on the left",
            Truncate::Left => "cutting the prompt cannot help: leave it out or raise the limit",
        };
        LmError::Input(format!(
            "{name}: {prompt} prompt tokens and {room} for the completion exceed the limit of {} tokens; {remedy}",
            self.limit
        ))
    }
}

/// Cuts consecutive items into batches of at most `budget` tokens; an item that is longer makes
/// a batch of its own. In order, without gaps, none empty.
pub fn micro_batches(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, &length) in lengths.iter().enumerate() {
        if i > start && tokens + length > budget {
            batches.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        batches.push(start..lengths.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_by_hand() {
        assert_eq!(micro_batches(&[3, 3, 3, 9, 1], 6), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(micro_batches(&[6, 6], 6), [0..1, 1..2]);
        assert_eq!(micro_batches(&[100, 1], 6), [0..1, 1..2]);
        assert_eq!(micro_batches(&[0, 0, 7], 6), [0..2, 2..3]);
        assert!(micro_batches(&[], 6).is_empty());
    }

    #[test]
    fn batches_cover_everything_within_the_budget() {
        let lengths: Vec<usize> = (0..200).map(|i| 1 + (i * 37) % 23).collect();
        for budget in [1, 10, 23, 60, 10_000] {
            let batches = micro_batches(&lengths, budget);
            assert_eq!(batches.first().map(|b| b.start), Some(0));
            assert_eq!(batches.last().map(|b| b.end), Some(200));
            assert!(batches.windows(2).all(|w| w[0].end == w[1].start));
            for batch in batches {
                assert!(batch.len() == 1 || lengths[batch].iter().sum::<usize>() <= budget);
            }
        }
    }
}
