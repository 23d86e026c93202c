//! What an RLOO run is told, and what it tells.

use gainsay_core::record::Prompt;
use serde::Serialize;

use crate::config::Family;
use crate::error::LmError;
use crate::model::AdapterConfig;
use crate::optim::AdamWConfig;
use crate::sequence::{Settings, Truncate};
use crate::train::reward_model::positive;
use crate::train::{Cost, default_adapter};

/// A prompt to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPrompt {
    /// Part of the key of its random numbers; unique.
    pub id: String,
    /// What is asked.
    pub prompt: Prompt,
}

/// Options of [`train_rloo`].
#[derive(Clone, Debug, PartialEq)]
pub struct RlooOptions {
    /// Optimizer steps.
    pub steps: u32,
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions a prompt, at least 2.
    pub k: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// The optimizer's constants.
    pub optimizer: AdamWConfig,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f64,
    /// Weight of the KL penalty in the rewards.
    pub beta: f64,
    /// The trained policy is softmax(logits / temperature): it is sampled, penalized and
    /// differentiated so.
    pub temperature: f64,
    /// Longest completion, turn end included.
    pub max_new_tokens: usize,
    /// Divide the advantages by their standard deviation over the batch.
    pub whiten: bool,
    /// Hand the reward function texts without token ids: needed where its tokenizer is another.
    pub reward_reads_text: bool,
    /// Shape of a new adapter; a base with an adapter goes on with that one.
    pub adapter: AdapterConfig,
    /// Run seed.
    pub seed: u64,
    /// Round of the loop.
    pub round: u32,
    /// What the draws are for.
    pub purpose: String,
    /// Sequence limits, tokens that go through the model together, rows that decode together.
    pub settings: Settings,
}

impl RlooOptions {
    /// The defaults for a family of models.
    pub fn new(family: Family) -> Self {
        Self {
            steps: 50,
            prompts_per_step: 8,
            k: 4,
            lr: 3e-4,
            warmup: 0.1,
            optimizer: AdamWConfig::default(),
            clip: 1.0,
            beta: 0.05,
            temperature: 1.0,
            max_new_tokens: 128,
            whiten: false,
            reward_reads_text: false,
            adapter: default_adapter(family),
            seed: 0,
            round: 0,
            purpose: "rloo".into(),
            settings: Settings { truncate: Truncate::Left, batch_tokens: 2048, ..Settings::default() },
        }
    }

    pub(super) fn check(&self, prompts: &[TrainPrompt]) -> Result<(), LmError> {
        let wrong = |what: String| Err(LmError::Input(what));
        positive("learning rate", self.lr)?;
        positive("temperature", self.temperature)?;
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return wrong(format!("beta {}: the KL weight must be 0 or more", self.beta));
        }
        if self.k < 2 {
            return wrong(format!("{} completion(s) a prompt: leave-one-out needs at least 2", self.k));
        }
        if self.steps == 0 || self.prompts_per_step == 0 || self.max_new_tokens == 0 {
            return wrong("steps, prompts per step and max-new-tokens must be at least 1".into());
        }
        if prompts.is_empty() {
            return wrong("no prompts to train on".into());
        }
        Ok(())
    }
}

/// One optimizer step: means over its completions, drawn before the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RlooStep {
    /// From 1.
    pub step: u32,
    /// All steps of the run.
    pub steps: u32,
    /// Reward, without the penalty.
    pub reward: f64,
    /// Sum over tokens of k1 against the base, of the logits / temperature: what beta multiplies.
    pub kl_penalty: f64,
    /// Sum over tokens of k1 at temperature 1, nats a sequence. An unbiased KL(policy || base)
    /// where the sampling temperature is 1; an indication otherwise.
    pub kl_k1: f64,
    /// The same of k3.
    pub kl_k3: f64,
    /// Estimate of the sampled distribution's entropy, nats a token: minus its mean log-prob.
    pub entropy: f64,
    /// Tokens a completion.
    pub length: f64,
    /// Share of completions that ended by themselves.
    pub stopped: f64,
    /// The surrogate loss.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens drawn.
    pub tokens: u64,
}

/// What [`train_rloo`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RlooReport {
    /// Every step's figures.
    pub steps: Vec<RlooStep>,
    /// Numbers that were trained.
    pub parameters: usize,
    /// Prompts that were cut on the left, counted each time they were drawn.
    pub truncated: u64,
    /// Wall-clock values; the tokens are those drawn.
    pub cost: Cost,
}
