//! prompts and a reward model -> tuned policy.

use std::path::Path;

use gainsay_core::engine::RewardFn;
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_lm::config::ModelConfig;
use gainsay_lm::save::{Provenance, save_policy};
use gainsay_lm::train::{self, RlooOptions, RlooReport, TrainPrompt};
use serde_json::json;

use super::train_reward::{adapter, with_progress};
use crate::cli::Dtype;
use crate::error::{Error, Result};
use crate::models;
use crate::progress::Figures;
use crate::run::recipe::Recipe;

/// How a policy is tuned, by RLOO.
#[derive(Clone, Debug)]
pub struct Options {
    /// Optimizer steps.
    pub steps: usize,
    /// Prompts a step.
    pub prompts: usize,
    /// Completions a prompt.
    pub k: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight of the KL penalty.
    pub beta: f64,
    /// Sampling temperature; the gradient is that of logits / temperature.
    pub temperature: f64,
    /// Longest completion, turn end included.
    pub max_new_tokens: usize,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA scale numerator.
    pub alpha: f64,
    /// Run seed.
    pub seed: u64,
    /// Number format of products with the weights.
    pub dtype: Dtype,
    /// Round of the loop.
    pub round: u32,
}

impl Options {
    /// The options of a recipe's round.
    pub fn of_recipe(recipe: &Recipe, round: u32) -> Self {
        let wanted = &recipe.tune;
        Self {
            steps: wanted.steps,
            prompts: wanted.prompts,
            k: wanted.k,
            lr: wanted.lr,
            beta: wanted.beta,
            temperature: wanted.temperature,
            max_new_tokens: wanted.max_new_tokens.unwrap_or(recipe.sample.max_new_tokens),
            rank: wanted.rank,
            alpha: wanted.alpha,
            seed: recipe.seed,
            dtype: recipe.dtype,
            round,
        }
    }

    fn resolve(&self, config: &ModelConfig) -> RlooOptions {
        let mut options = RlooOptions::new(config.family);
        options.steps = self.steps as u32;
        options.prompts_per_step = self.prompts;
        options.k = self.k;
        options.lr = self.lr;
        options.beta = self.beta;
        options.temperature = self.temperature;
        options.max_new_tokens = self.max_new_tokens;
        options.adapter = adapter(options.adapter, self.rank, self.alpha, 0, config.num_layers);
        options.seed = self.seed;
        options.round = self.round;
        options
    }
}

/// Tunes a policy against `reward` and saves its adapter in `out`; with `log` also writes one
/// line a step.
///
/// # Errors
/// A policy that cannot be loaded, options out of range, a loss that is not finite, Ctrl-C.
pub fn train_policy(
    from: &str,
    reward: &dyn RewardFn,
    prompts: &[PromptRecord],
    out: &Path,
    log: Option<&Path>,
    options: &Options,
) -> Result<Figures> {
    let base = models::load(from, options.dtype)?;
    let resolved = options.resolve(&base.backbone.config);
    let prompts: Vec<TrainPrompt> =
        prompts.iter().map(|r| TrainPrompt { id: r.id.clone(), prompt: r.prompt.clone() }).collect();
    let (model, done) =
        with_progress("train policy", |progress| train::train_rloo(&base, reward, &prompts, &resolved, progress))?;
    save_policy(out, &model, &base.spec, &provenance(&base.identity, reward, &resolved))?;
    if let Some(path) = log {
        files::write_atomic(path, &step_lines(&done)?)?;
    }
    Ok(Figures::of("train policy", done.cost.tokens, done.cost.seconds))
}

fn provenance(identity: &str, reward: &dyn RewardFn, options: &RlooOptions) -> Provenance {
    Provenance {
        method: "rloo".into(),
        base: identity.into(),
        options: json!({
            "steps": options.steps, "prompts_per_step": options.prompts_per_step, "k": options.k,
            "lr": options.lr, "warmup": options.warmup, "clip": options.clip, "beta": options.beta,
            "temperature": options.temperature, "max_new_tokens": options.max_new_tokens,
            "rank": options.adapter.rank, "alpha": options.adapter.alpha,
        }),
        data: vec![reward.identity()],
        seed: options.seed,
        results: json!({}),
    }
}

fn step_lines(report: &RlooReport) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for step in &report.steps {
        serde_json::to_writer(&mut lines, step).map_err(|e| Error::Run(e.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
