//! The recipe of a run: what `recipe.toml` may say, with its defaults. Unknown keys are refused.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::Dtype;
use crate::error::{Error, Result};

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Version of this format.
    pub schema: u32,
    /// Part of the key of every random number.
    pub seed: u64,
    /// Rounds of the loop.
    pub rounds: u32,
    /// Number format of products with the weights: `f32` or `bf16`.
    pub dtype: Dtype,
    /// The base policy: a model as on the command line.
    pub policy: String,
    /// The gold reward, as on the command line (a model, a URL, `program:arithmetic`, …), or `builtin`.
    pub gold: String,
    /// Where prompts come from.
    pub prompts: Prompts,
    /// Where the proxy reward model comes from.
    pub proxy: Proxy,
    /// How candidates are sampled.
    pub sample: Sample,
    /// What is sent for feedback.
    pub select: Select,
    /// Who answers: a table, or `feedback = "web"` for its `oracle` alone.
    #[serde(deserialize_with = "name_or_table")]
    pub feedback: Feedback,
    /// How reward models are trained.
    pub reward: RewardTraining,
    /// How policies are tuned.
    pub tune: PolicyTraining,
    /// How policies are measured.
    pub evaluate: Evaluate,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            schema: 1,
            seed: 0,
            rounds: 1,
            dtype: Dtype::F32,
            policy: "smollm2-135m".into(),
            gold: "builtin".into(),
            prompts: Prompts::default(),
            proxy: Proxy::default(),
            sample: Sample::default(),
            select: Select::default(),
            feedback: Feedback::default(),
            reward: RewardTraining::default(),
            tune: PolicyTraining::default(),
            evaluate: Evaluate::default(),
        }
    }
}

/// Where prompts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompts {
    /// A file of prompts, or `builtin` for those that ship with the project.
    pub file: String,
    /// A file of held-out prompts; without one, prompts whose `meta.split` is `heldout` are held
    /// out.
    pub heldout: Option<String>,
    /// Take only the first so many training prompts; 0 takes all.
    pub limit: usize,
    /// Take only the first so many held-out prompts; 0 takes all.
    pub heldout_limit: usize,
}

impl Default for Prompts {
    fn default() -> Self {
        Self { file: "builtin".into(), heldout: None, limit: 0, heldout_limit: 0 }
    }
}

/// Where the proxy reward model comes from: a model, a file of preferences, or a biased and noisy
/// slice of gold-labeled pairs of the first round's own completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// A ready reward model; then nothing is trained.
    pub model: Option<String>,
    /// A file of preferences to train it from.
    pub preferences: Option<String>,
    /// Pairs of the slice.
    pub pairs: usize,
    /// Topics (`meta.topic` of the prompts) of the slice; empty for all.
    pub topics: Vec<String>,
    /// Kinds (`meta.kind` of the prompts) of the slice; empty for all.
    pub kinds: Vec<String>,
    /// Probability that a label of the slice is flipped.
    pub flip: f64,
}

impl Default for Proxy {
    fn default() -> Self {
        Self { model: None, preferences: None, pairs: 300, topics: vec![], kinds: vec![], flip: 0.2 }
    }
}

/// How candidates are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Completions a prompt.
    pub n: usize,
    /// Softmax temperature.
    pub temperature: f64,
    /// Longest completion, turn end included.
    pub max_new_tokens: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Self { n: 8, temperature: 0.7, max_new_tokens: 128 }
    }
}

/// What is sent for feedback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Select {
    /// One arm of the run each.
    pub strategies: Vec<String>,
    /// Comparisons a round and arm.
    pub budget: usize,
    /// Least Kendall tau distance of a prompt.
    pub tau_k: f64,
    /// Least |PACS| of a completion.
    pub delta: f64,
    /// Which pairs of a prompt.
    pub pairs: String,
}

impl Default for Select {
    fn default() -> Self {
        Self {
            strategies: vec!["shf-cas".into(), "random".into()],
            budget: 100,
            tau_k: 0.5,
            delta: 1.0,
            pairs: "spread".into(),
        }
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Feedback {
    /// `gold` (the recipe's gold reward model), `labels`, `web`: people, in the annotation app, or
    /// `judge:URL`: an LLM behind a server.
    pub oracle: String,
    /// `bt` or `flip:P`.
    pub noise: Option<String>,
}

/// A table of [`Feedback`], or the oracle's name.
fn name_or_table<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Feedback, D::Error> {
    struct Either;
    impl<'de> serde::de::Visitor<'de> for Either {
        type Value = Feedback;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a table, or gold, labels, web or judge:URL")
        }

        fn visit_str<E: serde::de::Error>(self, oracle: &str) -> std::result::Result<Feedback, E> {
            Ok(Feedback { oracle: oracle.into(), noise: None })
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, table: A) -> std::result::Result<Feedback, A::Error> {
            Feedback::deserialize(serde::de::value::MapAccessDeserializer::new(table))
        }
    }
    deserializer.deserialize_any(Either)
}

impl Default for Feedback {
    fn default() -> Self {
        Self { oracle: "gold".into(), noise: None }
    }
}

/// How reward models, proxy and refined, are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardTraining {
    /// `head`, `lora` or `full`.
    pub method: String,
    /// Where each round's training starts.
    pub start: RewardStart,
    /// Weight of a pair from before the round, those of the round have 1; 0 leaves them out.
    pub old_weight: f64,
    /// Passes over the pairs.
    pub epochs: usize,
    /// Pairs an optimizer step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA scale numerator.
    pub alpha: f64,
    /// Adapt the last so many layers only; 0 adapts all.
    pub last_layers: usize,
    /// Weight of (r1 + r2)^2.
    pub center: f64,
    /// Bootstrap heads, whose spread is the reward's uncertainty; 0 trains one head alone.
    pub heads: usize,
    /// Longest sequence, tokens.
    pub max_tokens: usize,
}

impl Default for RewardTraining {
    fn default() -> Self {
        Self {
            method: "lora".into(),
            start: RewardStart::Base,
            old_weight: 1.0,
            epochs: 2,
            batch: 8,
            lr: 1e-3,
            rank: 8,
            alpha: 16.0,
            last_layers: 0,
            center: 0.01,
            heads: 0,
            max_tokens: 1024,
        }
    }
}

/// Where the training of a round's reward model starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardStart {
    /// The base model, as in the paper; a proxy whose pairs are not known.
    Base,
    /// The reward model that the round began with.
    Current,
}

/// How policies are tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyTraining {
    /// `rloo`, `ppo`, `grpo`, `dpo`, `rso`, `bon`, or `none` to leave the policy as it is.
    pub method: String,
    /// Optimizer steps a round.
    pub steps: usize,
    /// Prompts a step.
    pub prompts: usize,
    /// Completions a prompt.
    pub k: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight of the KL penalty (DPO and RSO: of the implied reward); by default the method's.
    pub beta: Option<f64>,
    /// PPO: the KL, nats a sequence, that beta is steered to.
    pub target_kl: Option<f64>,
    /// What is taken off a reward, in standard deviations of the reward model's heads.
    pub uncertainty: f64,
    /// Stop where the KL passes this, nats a sequence.
    pub stop_kl: Option<f64>,
    /// Steps between two looks at the held-out prompts, for the over-optimization curve; 0 for none.
    /// Nothing is decided by them.
    pub look_every: usize,
    /// Sampling temperature; the gradient is that of logits / temperature.
    pub temperature: f64,
    /// Longest completion; by default that of `sample`.
    pub max_new_tokens: Option<usize>,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA scale numerator.
    pub alpha: f64,
}

impl Default for PolicyTraining {
    fn default() -> Self {
        Self {
            method: "rloo".into(),
            steps: 50,
            prompts: 8,
            k: 4,
            lr: 3e-4,
            beta: None,
            target_kl: None,
            uncertainty: 0.0,
            stop_kl: None,
            look_every: 0,
            temperature: 0.7,
            max_new_tokens: None,
            rank: 8,
            alpha: 16.0,
        }
    }
}

/// How policies are measured on the held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Completions a prompt, sampled as candidates are.
    pub n: usize,
    /// Completions a prompt at temperature 1, for the KL and the entropy.
    pub kl_n: usize,
    /// Prompts with everyday answers, for the capability check: a file, `builtin` or `none`.
    pub everyday: String,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { n: 8, kl_n: 2, everyday: "builtin".into() }
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, has unknown keys or values out of range.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Input(format!("{}: the recipe cannot be read: {e}", path.display())))?;
        let recipe: Self = toml::from_str(&text)
            .map_err(|e| Error::Input(format!("{}: not a recipe: {}", path.display(), e.to_string().trim_end())))?;
        recipe.check().map_err(|what| Error::Input(format!("{}: {what}", path.display())))?;
        Ok(recipe)
    }

    /// A checked recipe of a TOML table.
    ///
    /// # Errors
    /// In words: unknown keys or values out of range.
    pub fn of_table(table: toml::Table) -> std::result::Result<Self, String> {
        let recipe: Self = table.try_into().map_err(|e: toml::de::Error| e.to_string().trim_end().to_owned())?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML, every default filled in.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::Run(format!("the recipe cannot be written: {e}")))
    }

    /// Whether an arm covers the space of features.
    pub fn reads_features(&self) -> bool {
        let reads = |name: &String| name.parse().is_ok_and(gainsay_core::select::Strategy::reads_features);
        self.select.strategies.iter().any(reads)
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
