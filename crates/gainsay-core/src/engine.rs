//! The traits that local models, remote servers and deterministic fakes implement.
//!
//! All of them work on batches. The result for an item never depends on the batch it rode in.

use crate::record::{Completion, Finish, PreferenceSide, Prompt};

/// What went wrong inside a model or a server; the implementer's own error, boxed.
pub type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// How completions are decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// Softmax temperature, > 0; 0 means greedy.
    pub temperature: f64,
    /// Only the k likeliest tokens are sampled from; 0 keeps all.
    pub top_k: usize,
    /// Only the smallest set of tokens whose probability reaches this is sampled from; 1 keeps all.
    pub top_p: f64,
    /// Upper bound on the completion's tokens, turn end included.
    pub max_new_tokens: usize,
    /// Go on after end tokens (benchmarks).
    pub ignore_eos: bool,
    /// Run seed; the key of every draw is (seed, purpose, round, step, prompt id, completion, token).
    pub seed: u64,
    /// What the draws are for, for example `rollout`.
    pub purpose: String,
    /// Round of the loop.
    pub round: u32,
    /// Training step; 0 outside training.
    pub step: u32,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            max_new_tokens: 128,
            ignore_eos: false,
            seed: 0,
            purpose: "rollout".into(),
            round: 0,
            step: 0,
        }
    }
}

/// One prompt to be completed `n` times.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRequest {
    /// The prompt's id: part of the key of its random numbers.
    pub id: String,
    /// What is asked.
    pub prompt: Prompt,
    /// Number of completions.
    pub n: usize,
}

/// A completion to be scored under a prompt. `token_ids`, where present, override the text; a reward model reads the
/// text where they are another tokenizer's.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreItem<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The completion's text, without the turn-end token.
    pub text: &'a str,
    /// The completion's tokens, turn end included.
    pub token_ids: Option<&'a [u32]>,
    /// Why it ended; without token ids, `Length` means that no turn end is appended.
    pub finish: Option<Finish>,
}

impl<'a> ScoreItem<'a> {
    /// The item of a completion under its prompt.
    pub fn of(prompt: &'a Prompt, completion: &'a Completion) -> Self {
        Self { prompt, text: &completion.text, token_ids: completion.token_ids.as_deref(), finish: completion.finish }
    }

    /// The item of one side of a preference under its prompt.
    pub fn side(prompt: &'a Prompt, side: &'a PreferenceSide) -> Self {
        Self { prompt, text: &side.text, token_ids: side.token_ids.as_deref(), finish: side.finish }
    }
}

/// Log-prob of one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceLogp {
    /// Sum over the completion's tokens at temperature 1, nats.
    pub sum: f64,
    /// The summands, one a token.
    pub token_logps: Vec<f32>,
}

/// Draws completions from a policy.
pub trait Sampler {
    /// `n` completions for each request, in the requests' order, with `token_ids`, `token_logps`
    /// (temperature 1, before any cut), `logp`, `n_tokens` and `finish` filled.
    fn sample(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Completion>>, EngineError>;

    /// Name and digest of the policy, for `meta.logp_policy`.
    fn identity(&self) -> String;
}

/// Scores given completions under a policy.
pub trait LogProb {
    /// One result per item, in the items' order.
    fn logps(&self, items: &[ScoreItem<'_>]) -> Result<Vec<SequenceLogp>, EngineError>;

    /// Name and digest of the policy, for `meta.logp_policy`.
    fn identity(&self) -> String;

    /// Tokens, prompt and completion, that have gone through the model so far; 0 where unknown.
    fn tokens(&self) -> u64 {
        0
    }
}

/// Rewards, and what each head of an ensemble says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardsByHead {
    /// One an item.
    pub rewards: Vec<f64>,
    /// For each item, one reward a head.
    pub heads: Vec<Vec<f64>>,
}

/// Gives a scalar reward to completions: larger is better.
pub trait RewardFn {
    /// One reward per item, in the items' order.
    fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError>;

    /// Whether it reads the items' texts alone, and no token ids.
    fn reads_text(&self) -> bool {
        false
    }

    /// The rewards of each of the model's heads beside them; `None` where it has fewer than two.
    fn rewards_by_head(&self, _items: &[ScoreItem<'_>]) -> Result<Option<RewardsByHead>, EngineError> {
        Ok(None)
    }

    /// Name and digest of the reward model.
    fn identity(&self) -> String;

    /// Tokens, prompt and completion, that have gone through the model so far; 0 where unknown.
    fn tokens(&self) -> u64 {
        0
    }
}

/// A comparison put to an oracle.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison<'a> {
    /// The pair's id: part of the key of the oracle's noise.
    pub id: &'a str,
    /// The first completion.
    pub first: ScoreItem<'a>,
    /// The second completion.
    pub second: ScoreItem<'a>,
}

/// Any source of comparisons: people, a gold reward model, a judge, labels.
pub trait Oracle {
    /// P(first is better) per comparison, in order; `None` where the oracle has no answer.
    fn compare(&self, comparisons: &[Comparison<'_>]) -> Result<Vec<Option<f64>>, EngineError>;
}
