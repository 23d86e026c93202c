//! A reward model (or several) -> a server.

use std::sync::Arc;

use gainsay_core::engine::{EngineError, RewardFn, ScoreItem};
use gainsay_core::record::Prompt;
use gainsay_lm::model::packed::batches;
use gainsay_lm::reward::RewardModel;
use gainsay_lm::sequence::Sequence;
use gainsay_lm::{LmError, Tokenizer};
use gainsay_server::reward_api::{Count, Engine, Item, Member, SharedPolicy};

use crate::error::{Error, Result};
use crate::models::{self, ModelOptions};

/// Tokens that go through the model together.
const BATCH_TOKENS: usize = 4096;

/// What is loaded, and again at a hot swap.
#[derive(Clone, Debug)]
pub struct Models {
    /// The ensemble.
    pub rewards: Vec<String>,
    /// The policy of PACS.
    pub policy: Option<String>,
    /// Longest sample, tokens.
    pub max_tokens: usize,
    /// Number format.
    pub options: ModelOptions,
}

/// Loads the models.
///
/// # Errors
/// What loading reports.
pub fn load(models: &Models) -> Result<Engine> {
    let mut members = Vec::new();
    let mut names = Vec::new();
    let mut first: Option<RewardModel> = None;
    for spec in &models.rewards {
        let parts = models::reward(spec, &models.options)?;
        let model = parts.model().clone();
        names.push(model.identity.clone());
        first.get_or_insert_with(|| model.clone());
        members.push(Member { parts: Arc::new(parts), rendered: Arc::new(Rendered::new(model)) });
    }
    let policy = models.policy.as_deref().map(|spec| models::policy(spec, &models.options)).transpose()?;
    if let Some(policy) = &policy {
        names.push(format!("policy {}", policy.identity()));
    }
    let limit = first.as_ref().map_or(usize::MAX, |m| m.model.backbone.config.max_positions);
    let count = first.map(|model| -> Count {
        let model = Rendered::new(model);
        Arc::new(move |item: &Item| count(&model, item))
    });
    Ok(Engine {
        members,
        policy: policy.map(|p| -> SharedPolicy { Arc::new(p) }),
        count,
        max_tokens: models.max_tokens.min(limit),
        identity: names.join(" + "),
    })
}

/// Tokens of a sample.
fn count(model: &Rendered, item: &Item) -> std::result::Result<usize, String> {
    let score_item = item.as_score_item();
    if !item.is_parts() {
        return model.ids(&score_item).map(|ids| ids.len()).map_err(|e| e.to_string());
    }
    let tokenizer = &model.model.tokenizer;
    let prompt = tokenizer.prompt_ids(score_item.prompt, false).map_err(|e| e.to_string())?;
    Ok(prompt.len() + tokenizer.completion_ids(&score_item).len())
}

/// A reward model that reads samples which the client rendered.
struct Rendered {
    model: RewardModel,
    /// The turn end's text.
    turn_end: Option<String>,
    /// The text of the beginning-of-sequence token, where the chat template begins with it.
    opening: Option<String>,
}

impl Rendered {
    fn new(model: RewardModel) -> Self {
        let tokenizer = &model.tokenizer;
        let turn_end = tokenizer.turn_end().map(|id| tokenizer.spell(&[id])).filter(|t| !t.is_empty());
        let opening = opening(tokenizer);
        Self { model, turn_end, opening }
    }

    fn ids(&self, item: &ScoreItem<'_>) -> std::result::Result<Vec<u32>, LmError> {
        let vocabulary = self.model.model.backbone.config.vocab_size;
        if let Some(ids) = item.token_ids {
            return match ids.iter().find(|&&id| id as usize >= vocabulary) {
                _ if ids.is_empty() => Err(LmError::Input("it has no tokens".into())),
                Some(id) => Err(LmError::Input(format!("token id {id} is outside the vocabulary of {vocabulary}"))),
                None => Ok(ids.to_vec()),
            };
        }
        let text = as_trained(item.text, self.turn_end.as_deref(), self.opening.as_deref());
        self.model.tokenizer.prompt_ids(&Prompt::Text(text), true)
    }
}

/// The beginning-of-sequence token's text, where rendered conversations begin with it.
fn opening(tokenizer: &Tokenizer) -> Option<String> {
    let bos = tokenizer.bos().filter(|_| tokenizer.has_chat_template())?;
    let rendered = tokenizer.prompt_ids(&Prompt::Text("x".into()), false).ok()?;
    (rendered.first() == Some(&bos)).then(|| tokenizer.spell(&[bos]))
}

/// The text as reward models are trained on it: nothing behind the last turn end (templates put a
/// newline there, and the reward is read at the last token), and the beginning-of-sequence token
/// in front of a rendered conversation that lost it (verl takes it off).
fn as_trained(text: &str, turn_end: Option<&str>, opening: Option<&str>) -> String {
    let trimmed = text.trim_end();
    let ends = turn_end.is_some_and(|end| trimmed.ends_with(end));
    let body = if ends { trimmed } else { text };
    match (opening, turn_end) {
        (Some(opening), Some(end)) if !body.starts_with(opening) && body.contains(end) => format!("{opening}{body}"),
        _ => body.to_owned(),
    }
}

impl RewardFn for Rendered {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Vec<f64>, EngineError> {
        let mut sequences = Vec::with_capacity(items.len());
        for item in items {
            let tokens = self.ids(item)?;
            let prompt_len = tokens.len();
            sequences.push(Sequence { tokens, prompt_len, truncated: false });
        }
        let rewards =
            batches(&sequences, BATCH_TOKENS).into_iter().map(|range| self.model.rewards_of(&sequences[range]));
        Ok(rewards.collect::<std::result::Result<Vec<_>, _>>()?.concat())
    }

    fn identity(&self) -> String {
        self.model.identity.clone()
    }
}

/// Whether an address is reached from this machine alone.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The shortest key where others reach the server: `gainsay annotate` asks as much of its secret.
const SHORTEST_KEY: usize = 16;

/// Refuses a key that would protect nothing, or that no client could show: in a path, `/k/KEY/`,
/// a key stands as it is.
///
/// # Errors
/// A server that others reach without a key of 16 characters; a key that a path cannot hold.
pub fn check_key(key: Option<&str>, host: &str, variable: &str) -> Result<()> {
    let fault = |problem: &str| {
        let remedy = format!("put one into {variable}, say of `openssl rand -hex 16`");
        Err(Error::Input(format!("{problem}; {remedy}")))
    };
    let others =
        format!("--host {host}: others can reach it, so clients must show a key of at least {SHORTEST_KEY} characters");
    let Some(key) = key else {
        return if is_loopback(host) { Ok(()) } else { fault(&others) };
    };
    if !key.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c)) {
        return fault(&format!(
            "{variable}: clients that send no headers show the key in the path, /k/KEY/, where it cannot hold `/`, `?`, \
             `#`, `%`, spaces or letters beyond ASCII"
        ));
    }
    if key.len() < SHORTEST_KEY && !is_loopback(host) {
        return fault(&format!("{others}; this one has {}", key.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_was_trained() {
        let read = |text| as_trained(text, Some("<|im_end|>"), Some("<|im_start|>"));
        assert_eq!(read("<|im_start|>user\nq<|im_end|>\n"), "<|im_start|>user\nq<|im_end|>");
        assert_eq!(
            read("user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"
        );
        assert_eq!(read("plain text\n"), "plain text\n");
        assert_eq!(as_trained("a\n", None, None), "a\n");
    }

    #[test]
    fn keys_must_protect_and_fit_into_a_path() {
        let check = |key, host| check_key(key, host, "GAINSAY_SERVE_KEY").map_err(|e| e.to_string());
        assert_eq!(check(None, "127.0.0.1"), Ok(()));
        assert_eq!(check(Some("short"), "127.0.0.1"), Ok(()));
        assert_eq!(check(Some("0123456789abcdef"), "0.0.0.0"), Ok(()));
        assert_eq!(check(Some("c2VzYW1lc2VzYW1l+A=="), "0.0.0.0"), Ok(()));
        for (key, host, part) in [
            (None, "0.0.0.0", "at least 16"),
            (Some("0123456789abcde"), "0.0.0.0", "this one has 15"),
            (Some("01234567/89abcdef"), "127.0.0.1", "`/`"),
            (Some("0123456789abcde?x"), "0.0.0.0", "`?`"),
            (Some("0123456789abcdeü"), "0.0.0.0", "ASCII"),
        ] {
            let error = check(key, host).unwrap_err();
            assert!(error.contains(part) && error.contains("put one into GAINSAY_SERVE_KEY"), "{error}");
        }
    }

    #[test]
    fn loopback_is_known() {
        assert!(is_loopback("127.0.0.1") && is_loopback("::1") && is_loopback("localhost"));
        assert!(!is_loopback("0.0.0.0") && !is_loopback("192.168.0.1") && !is_loopback("example.org"));
    }
}
