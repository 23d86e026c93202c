//! What a policy's training is told, and what it tells.

use std::collections::HashSet;

use gainsay_core::record::Prompt;
use serde::{Deserialize, Serialize};

use super::shaping::Shaping;
use crate::config::Family;
use crate::error::LmError;
use crate::loss::PreferenceLoss;
use crate::model::AdapterConfig;
use crate::optim::AdamWConfig;
use crate::sequence::{Settings, Truncate};
use crate::train::reward_model::positive;
use crate::train::{Cost, Reference, default_adapter};

/// How a policy learns from the rewards of its own completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMethod {
    /// REINFORCE with a leave-one-out baseline (arXiv 2402.14740).
    Rloo,
    /// Proximal policy optimization with a value head (arXiv 1707.06347, 1909.08593).
    Ppo,
    /// Group relative policy optimization (arXiv 2402.03300).
    Grpo,
    /// Direct preference optimization (arXiv 2305.18290) on the best against the worst of each
    /// prompt's completions.
    Dpo,
    /// Statistical rejection sampling optimization (arXiv 2309.06657).
    Rso,
    /// Best-of-n distillation: fine-tuning on the best of each prompt's completions.
    Bon,
}

impl PolicyMethod {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rloo => "rloo",
            Self::Ppo => "ppo",
            Self::Grpo => "grpo",
            Self::Dpo => "dpo",
            Self::Rso => "rso",
            Self::Bon => "bon",
        }
    }
}

/// A prompt to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPrompt {
    /// Part of the key of its random numbers; unique.
    pub id: String,
    /// What is asked.
    pub prompt: Prompt,
}

/// Options of [`super::train_policy`].
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOptions {
    /// How the policy learns.
    pub method: PolicyMethod,
    /// What the KL is taken to, and the log-ratios of DPO and RSO.
    pub reference: Reference,
    /// Steps: each draws completions and learns from them.
    pub steps: u32,
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions a prompt.
    pub k: usize,
    /// Passes over a step's completions; RLOO, which has no ratio to correct for an older policy, makes one.
    pub epochs: usize,
    /// Optimizer steps a pass; one for RLOO.
    pub minibatches: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the optimizer steps that warm up.
    pub warmup: f64,
    /// The optimizer's constants.
    pub optimizer: AdamWConfig,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f64,
    /// Weight of the KL penalty (RLOO, PPO, GRPO); temperature of the implied reward (DPO, RSO).
    pub beta: f64,
    /// PPO: the KL, nats a sequence, that beta is steered to (arXiv 1909.08593); `None` keeps it.
    pub target_kl: Option<f64>,
    /// Sequences over which the steering of beta takes effect.
    pub horizon: f64,
    /// The trained policy is softmax(logits / temperature): it is sampled, penalized and
    /// differentiated so.
    pub temperature: f64,
    /// Longest completion, turn end included.
    pub max_new_tokens: usize,
    /// RLOO: divide the advantages by their standard deviation over the batch. PPO whitens its
    /// advantages always.
    pub whiten: bool,
    /// PPO and GRPO: the ratio is clipped to [1 - eps, 1 + eps].
    pub clip_ratio: f64,
    /// PPO: values are clipped to within this of the old ones.
    pub clip_value: f64,
    /// PPO: weight of the value loss.
    pub value_weight: f64,
    /// PPO: discount.
    pub gamma: f64,
    /// PPO: lambda of the advantage estimate.
    pub lambda: f64,
    /// GRPO: divide a group's advantages by their standard deviation.
    pub scale_groups: bool,
    /// DPO and RSO: the loss of a pair.
    pub loss: PreferenceLoss,
    /// RSO: acceptance is exp((r - r_max) / beta).
    pub rso_beta: f64,
    /// What is done to rewards before they teach.
    pub shaping: Shaping,
    /// Stop after a step whose KL (k3 at temperature 1, nats a sequence) exceeds this.
    pub stop_kl: Option<f64>,
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

impl PolicyOptions {
    /// The defaults of a method for a family of models.
    pub fn new(method: PolicyMethod, family: Family) -> Self {
        let passes = match method {
            PolicyMethod::Ppo => 4,
            PolicyMethod::Grpo => 2,
            _ => 1,
        };
        Self {
            method,
            reference: Reference::Base,
            steps: 50,
            prompts_per_step: 8,
            k: 4,
            epochs: passes,
            minibatches: 1,
            lr: 3e-4,
            warmup: 0.1,
            optimizer: AdamWConfig::default(),
            clip: 1.0,
            beta: match method {
                PolicyMethod::Dpo | PolicyMethod::Rso => 0.1,
                PolicyMethod::Grpo => 0.04,
                _ => 0.05,
            },
            target_kl: None,
            horizon: 10_000.0,
            temperature: 1.0,
            max_new_tokens: 128,
            whiten: false,
            clip_ratio: 0.2,
            clip_value: 0.2,
            value_weight: 0.1,
            gamma: 1.0,
            lambda: 0.95,
            scale_groups: true,
            loss: PreferenceLoss::Sigmoid,
            rso_beta: 0.5,
            shaping: Shaping::default(),
            stop_kl: None,
            reward_reads_text: false,
            adapter: default_adapter(family),
            seed: 0,
            round: 0,
            purpose: method.name().into(),
            settings: Settings { truncate: Truncate::Left, batch_tokens: 2048, ..Settings::default() },
        }
    }

    /// Optimizer steps of the whole run.
    pub fn updates(&self) -> u32 {
        self.steps * (self.epochs * self.minibatches) as u32
    }

    pub(super) fn check(&self, prompts: &[TrainPrompt]) -> Result<(), LmError> {
        let wrong = |what: String| Err(LmError::Input(what));
        positive("learning rate", self.lr)?;
        positive("temperature", self.temperature)?;
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return wrong(format!("beta {}: it must be 0 or more", self.beta));
        }
        if matches!(self.method, PolicyMethod::Dpo | PolicyMethod::Rso) {
            positive("beta", self.beta)?;
            positive("rso-beta", self.rso_beta)?;
        }
        if self.k < 2 && self.method != PolicyMethod::Ppo {
            let method = self.method.name();
            return wrong(format!("{} completion(s) a prompt: {method} compares them and needs at least 2", self.k));
        }
        for (name, value) in [("clip-ratio", self.clip_ratio), ("clip-value", self.clip_value)] {
            positive(name, value)?;
        }
        for (name, value) in [("gamma", self.gamma), ("lambda", self.lambda)] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(format!("{name} {value}: it must lie in [0, 1]"));
            }
        }
        if let Some(target) = self.target_kl {
            if self.method != PolicyMethod::Ppo {
                return wrong(format!("target KL: PPO steers by it, {} does not; leave it out", self.method.name()));
            }
            positive("target KL", target)?;
            positive("horizon", self.horizon)?;
        }
        let counts = [self.steps as usize, self.prompts_per_step, self.k, self.max_new_tokens, self.epochs];
        if counts.contains(&0) || self.minibatches == 0 {
            return wrong(
                "steps, prompts per step, samples, epochs, minibatches and max-new-tokens must be at least 1".into(),
            );
        }
        if self.minibatches > self.prompts_per_step {
            return wrong(format!(
                "{} minibatches of {} prompts: a prompt's completions stay together; ask for fewer minibatches",
                self.minibatches, self.prompts_per_step
            ));
        }
        if self.method == PolicyMethod::Rloo && self.epochs * self.minibatches > 1 {
            return wrong(format!(
                "{} epochs of {} minibatches: rloo learns once from what it drew, as nothing corrects for the policy \
                 having moved since; leave them at 1, or take ppo or grpo",
                self.epochs, self.minibatches
            ));
        }
        if let Some(limit) = self.stop_kl {
            positive("stop-kl", limit)?;
        }
        self.shaping.check()?;
        if prompts.is_empty() {
            return wrong("no prompts to train on".into());
        }
        let mut ids = HashSet::new();
        if let Some(twice) = prompts.iter().find(|p| !ids.insert(p.id.as_str())) {
            return wrong(format!(
                "prompt `{}` is there twice; what is drawn for a prompt follows from its id",
                twice.id
            ));
        }
        Ok(())
    }
}

/// One step: means over its completions, drawn before it learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyStep {
    /// From 1.
    pub step: u32,
    /// All steps of the run.
    pub steps: u32,
    /// Reward as the reward function gave it: not shaped, without the penalty.
    pub reward: f64,
    /// Standard deviation of the reward over the step's completions.
    pub reward_sd: f64,
    /// Sum over tokens of k1 against the reference, of the logits / temperature: what beta multiplies.
    pub kl_penalty: f64,
    /// Sum over tokens of k1 at temperature 1, nats a sequence. An unbiased KL(policy || reference)
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
    /// The loss of the last pass.
    pub loss: f64,
    /// PPO's value loss of the last pass; 0 otherwise.
    #[serde(default)]
    pub value_loss: f64,
    /// Share of the last pass's tokens that clipping silenced.
    #[serde(default)]
    pub clipped: f64,
    /// Global gradient norm before clipping, of the last optimizer step; 0 where nothing was
    /// learned from (no two completions of a prompt had different rewards).
    pub grad_norm: f64,
    /// Weight of the KL penalty in this step.
    #[serde(default)]
    pub beta: f64,
    /// Learning rate of the last optimizer step.
    pub lr: f64,
    /// Tokens drawn.
    pub tokens: u64,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All steps are done.
    #[default]
    Steps,
    /// The KL passed its limit.
    Kl,
    /// The held-out reward no longer rose; the policy is that of its best.
    Heldout,
}

/// What [`super::train_policy`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyReport {
    /// Every step's figures.
    pub steps: Vec<PolicyStep>,
    /// Figures on the held-out prompts.
    pub heldout: Vec<super::watch::Watched>,
    /// Why it ended.
    pub ended: Ended,
    /// Steps that the returned policy has learned from.
    pub returned_step: u32,
    /// Numbers that were trained.
    pub parameters: usize,
    /// Prompts that were cut on the left, counted each time they were drawn.
    pub truncated: u64,
    /// Wall-clock values; the tokens are those drawn.
    pub cost: Cost,
}
