//! What an evaluation says, as it stands in `evaluation.json`.

use gainsay_core::stats::Interval;
use serde::{Deserialize, Serialize};

/// Figures of one policy on the held-out prompts; intervals are 95 % bootstrap over prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// Schema version.
    pub schema: u32,
    /// `base`, or the arm's name (its selection strategy).
    pub arm: String,
    /// Round after which the policy stood; 0 for the base policy.
    pub round: u32,
    /// Identity of the policy.
    pub policy: String,
    /// Identity of the reward model that `proxy_reward`, PACS and K use.
    pub reward_model: Option<String>,
    /// Identity of the gold reward.
    pub gold: String,
    /// Identity of the policy that `win_rate` is against.
    pub against: Option<String>,
    /// Number of held-out prompts.
    pub prompts: usize,
    /// Completions a prompt.
    pub completions_per_prompt: usize,
    /// Sampling temperature of the completions (KL is at temperature 1 all the same).
    pub temperature: f64,
    /// What the policy still knows; only where everyday answers were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everyday: Option<Everyday>,
    /// Means over prompts with their intervals.
    pub metrics: Metrics,
    /// The same per prompt, for paired differences.
    pub per_prompt: Vec<PromptMetrics>,
}

/// A capability check: log-probs of given answers that training should leave as they are. A fall
/// shows a model that breaks while its reward rises.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Everyday {
    /// Number of answers.
    pub answers: usize,
    /// Mean log-prob a token under the base policy, nats.
    pub base: Interval,
    /// The same under the evaluated policy.
    pub policy: Interval,
    /// Policy less base, paired by prompt.
    pub change: Interval,
}

/// Means over prompts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Gold reward.
    pub gold_reward: Option<Interval>,
    /// Reward of the arm's reward model.
    pub proxy_reward: Option<Interval>,
    /// P(gold of this policy's completion > gold of the other's), ties 1/2, over all pairs.
    pub win_rate: Option<Interval>,
    /// Mean |PACS| with log-probs under the base policy.
    pub mean_abs_pacs: Option<Interval>,
    /// Kendall tau distance with log-probs under the base policy.
    pub kendall_tau_distance: Option<Interval>,
    /// Mean |PACS| with log-probs under the evaluated policy itself.
    pub mean_abs_pacs_own: Option<Interval>,
    /// Kendall tau distance with log-probs under the evaluated policy itself.
    pub kendall_tau_distance_own: Option<Interval>,
    /// KL(policy || base), nats a sequence, k3 at temperature 1.
    pub kl: Option<Interval>,
    /// Tokens a completion, turn end included.
    pub length: Option<Interval>,
    /// Mean -logp a token of the completions, at temperature 1, nats.
    pub nll_per_token: Option<Interval>,
    /// Share of pairs of the common held-out pool (the base policy's completions) that the reward
    /// model orders as gold does, proxy ties 1/2.
    pub reward_accuracy: Option<Interval>,
    /// Entropy of the next token at temperature 1, nats: mean -logp a token of completions that were
    /// drawn at temperature 1 without cuts, hence unbiased but for the weighing by length.
    #[serde(default)]
    pub entropy: Option<Interval>,
    /// Different words over all words of a prompt's completions together.
    #[serde(default)]
    pub distinct_1: Option<Interval>,
    /// The same of word pairs.
    #[serde(default)]
    pub distinct_2: Option<Interval>,
    /// The same of three words in a row.
    #[serde(default)]
    pub distinct_3: Option<Interval>,
    /// Correlation of reward and length over a prompt's completions.
    #[serde(default)]
    pub length_correlation: Option<Interval>,
}

/// One prompt's means; absent where degenerate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PromptMetrics {
    /// The prompt's id.
    pub id: String,
    /// See [`Metrics::gold_reward`].
    pub gold_reward: Option<f64>,
    /// See [`Metrics::proxy_reward`].
    pub proxy_reward: Option<f64>,
    /// See [`Metrics::win_rate`].
    pub win_rate: Option<f64>,
    /// See [`Metrics::mean_abs_pacs`].
    pub mean_abs_pacs: Option<f64>,
    /// See [`Metrics::kendall_tau_distance`].
    pub kendall_tau_distance: Option<f64>,
    /// See [`Metrics::mean_abs_pacs_own`].
    pub mean_abs_pacs_own: Option<f64>,
    /// See [`Metrics::kendall_tau_distance_own`].
    pub kendall_tau_distance_own: Option<f64>,
    /// See [`Metrics::kl`].
    pub kl: Option<f64>,
    /// See [`Metrics::length`].
    pub length: Option<f64>,
    /// See [`Metrics::nll_per_token`].
    pub nll_per_token: Option<f64>,
    /// See [`Metrics::reward_accuracy`].
    pub reward_accuracy: Option<f64>,
    /// See [`Metrics::entropy`].
    #[serde(default)]
    pub entropy: Option<f64>,
    /// See [`Metrics::distinct_1`].
    #[serde(default)]
    pub distinct_1: Option<f64>,
    /// See [`Metrics::distinct_2`].
    #[serde(default)]
    pub distinct_2: Option<f64>,
    /// See [`Metrics::distinct_3`].
    #[serde(default)]
    pub distinct_3: Option<f64>,
    /// See [`Metrics::length_correlation`].
    #[serde(default)]
    pub length_correlation: Option<f64>,
}

/// A paired difference between two evaluated policies on the same prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// Name of the metric, as in [`Metrics`].
    pub metric: String,
    /// The arm that is subtracted from.
    pub a: String,
    /// The arm that is subtracted.
    pub b: String,
    /// Mean over prompts of a - b.
    pub difference: Interval,
    /// Whether the interval leaves 0 out.
    pub verdict: Verdict,
}

/// What a paired interval allows to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies above 0.
    Higher,
    /// The interval lies below 0.
    Lower,
    /// The interval holds 0.
    NotDistinguishable,
}
