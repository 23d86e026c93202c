//! The records that stages pass to each other, one JSON object a line (design of the files:
//! `docs/files.md`). Unknown fields are kept in `extra` and written back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::record_fields;

/// Version of the record schema that this build writes.
pub const SCHEMA: u32 = 1;

/// Fields that this build does not know; kept as they were read.
pub type Extra = Map<String, Value>;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The turn's text.
    pub content: String,
}

/// What the policy is asked: one string (one user turn, where the model has a chat template)
/// or a whole conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A string prompt.
    Text(String),
    /// A conversation, oldest turn first.
    Chat(Vec<Message>),
}

impl Prompt {
    /// The prompt as a conversation: a string is one user turn.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message { role: "user".into(), content: text.clone() }],
            Self::Chat(messages) => messages.clone(),
        }
    }

    /// Text for people: the string, or `role: content` lines.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(messages) => {
                messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// At the model's turn end, which is then the completion's last token.
    Stop,
    /// At the length limit: there is no turn-end token.
    Length,
}

/// One answer of the policy, with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Completion {
    /// The answer's text, without the turn-end token.
    pub text: String,
    /// The tokens as sampled, turn end included. Where present they override `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Sum of the completion's token log-probs under the model in `meta.logp_policy`, nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logp: Option<f64>,
    /// Number of tokens that `logp` sums over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_tokens: Option<u32>,
    /// The sampler's own log-probs at temperature 1, nats, one a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_logps: Option<Vec<f32>>,
    /// Why the completion ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// The proxy reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// The gold reward, where one is known: evaluation and simulated annotators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// z(reward) - z(logp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pacs: Option<f64>,
    /// The standardized proxy reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z_reward: Option<f64>,
    /// The standardized log-prob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z_logp: Option<f64>,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(Completion {
    text: required,
    token_ids: optional,
    logp: optional,
    n_tokens: optional,
    token_logps: optional,
    finish: optional,
    reward: optional,
    gold: optional,
    pacs: optional,
    z_reward: optional,
    z_logp: optional,
});

/// One prompt and its candidates: the record of prompts, rollouts, scored and conflicts files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptRecord {
    /// Schema version, [`SCHEMA`].
    pub schema: u32,
    /// Unique within the file.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The candidates; empty in a file of bare prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub completions: Vec<Completion>,
    /// Kendall tau distance of reward and log-prob in [0, 1]; absent when degenerate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kendall_tau_distance: Option<f64>,
    /// Kendall's tau-b of reward and log-prob in [-1, 1]; absent when degenerate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tau_b: Option<f64>,
    /// Conventions, provenance and the user's own fields.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Extra,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(PromptRecord {
    schema: default(SCHEMA),
    prompt: required,
    id: required,
    completions: default(Vec::new()),
    kendall_tau_distance: optional,
    tau_b: optional,
    meta: default(Extra::new()),
});

/// One side of a selected pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Index of the completion within its prompt record.
    pub index: usize,
    /// The completion's text.
    pub text: String,
    /// The completion's tokens, where known: they override the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// The gold reward of the completion, where the data carries one (`--oracle labels`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
}

/// Why a pair was selected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Kendall tau distance of the prompt.
    pub k: Option<f64>,
    /// PACS of the first completion.
    pub pacs_first: Option<f64>,
    /// PACS of the second completion.
    pub pacs_second: Option<f64>,
}

/// One comparison to be answered: one unit of budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelectionRecord {
    /// Schema version, [`SCHEMA`].
    pub schema: u32,
    /// `<prompt id>/<i>-<j>`.
    pub id: String,
    /// Id of the prompt record.
    pub prompt_id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The first completion.
    pub first: Candidate,
    /// The second completion.
    pub second: Candidate,
    /// The strategy's name, as on the command line.
    pub strategy: String,
    /// 0 is the most urgent.
    pub rank: usize,
    /// The conflict that made it worth asking.
    pub why: Why,
    /// For example `below-threshold`.
    pub flags: Vec<String>,
    /// The prompt's `meta`, carried along (topic, kind).
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Extra,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(SelectionRecord {
    schema: default(SCHEMA),
    id: required,
    prompt_id: required,
    prompt: required,
    first: required,
    second: required,
    strategy: required,
    rank: required,
    why: default(Why::default()),
    flags: default(Vec::new()),
    meta: default(Extra::new()),
});

/// An annotator's answer to one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The first completion is better.
    First,
    /// The second completion is better.
    Second,
    /// Equally good.
    Tie,
    /// Neither is acceptable: never a tie.
    BothBad,
    /// Not answered.
    Skip,
}

impl Answer {
    /// Whether it says how the two compare; a tie does.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::First | Self::Second | Self::Tie)
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A gold reward model.
    Gold,
    /// Labels in the data.
    Labels,
    /// People, through the annotation app.
    Web,
    /// An LLM judge.
    Judge,
}

/// One annotator's vote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vote {
    /// Who answered.
    pub annotator: String,
    /// The answer.
    pub answer: Answer,
    /// 1 slightly, 2 clearly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<u8>,
    /// Time taken, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(Vote { annotator: required, answer: required, strength: optional, seconds: optional });

/// A completion inside a preference record.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PreferenceSide {
    /// The completion's text, without the turn-end token.
    pub text: String,
    /// The tokens as sampled, turn end included. Where present they override `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Why it ended; without token ids, `length` means that no turn end is appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Fields that this build does not know (index, gold).
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(PreferenceSide { text: required, token_ids: optional, finish: optional });

/// One answered comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreferenceRecord {
    /// Schema version, [`SCHEMA`].
    pub schema: u32,
    /// Unique within the file; of a selected pair, the selection's id.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The first completion.
    pub first: PreferenceSide,
    /// The second completion.
    pub second: PreferenceSide,
    /// Probability in [0, 1] that the first is better; absent for `both_bad` and `skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_first: Option<f64>,
    /// The (aggregated) answer.
    pub answer: Answer,
    /// Margin of the pairwise loss, >= 0 (0 where absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Every vote behind the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
    /// Where the answer came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Whether the first completion is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_first: Option<bool>,
    /// Whether the second completion is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_second: Option<bool>,
    /// The prompt's `meta`, carried along (topic, kind).
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Extra,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(PreferenceRecord {
    schema: default(SCHEMA),
    prompt: required,
    id: required,
    first: required,
    second: required,
    p_first: optional,
    answer: required,
    margin: optional,
    votes: default(Vec::new()),
    source: optional,
    safe_first: optional,
    safe_second: optional,
    meta: default(Extra::new()),
});
