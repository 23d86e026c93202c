//! Training: reward models from preferences, policies from rewards.

pub mod checkpoint;
mod cross_validate;
mod evaluate;
pub mod head_fit;
mod items;
mod label;
mod linalg;
mod offline;
mod policy;
mod reference;
mod reward_model;
mod weights;

use serde::Serialize;

pub use checkpoint::Checkpoints;
pub use cross_validate::{Baseline, CrossValidation, cross_validate, fold_of};
pub use evaluate::{Comparison, Heldout, Slice, order_accuracy};
pub use head_fit::{HeadFit, HeadFitOptions, fit_head};
pub use items::{Feedback, PairCounts, TrainItem, WEIGHT, is_heldout, prepare_items};
pub use label::{Label, PairLabel, RankLabel};
pub use offline::{Example, Objective, OfflineOptions, OfflineReport, OfflineStep, train_offline};
pub use policy::{
    Company, Ended, Learned, PolicyMethod, PolicyOptions, PolicyReport, PolicyRun, PolicyStep, Shaping, TrainPrompt,
    Watch, Watched, sequence_backward, shaped, train_policy,
};
pub use reference::Reference;
pub use reward_model::{
    EpochReport, HeadInit, RewardCompany, RewardMethod, RewardStep, RewardTrainOptions, RewardTrainReport,
    batch_gradient, bootstrap_heads, train_reward,
};
pub use weights::Weights;

use crate::config::Family;
use crate::model::{AdapterConfig, Proj};

/// What training tells while it runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent {
    /// Completions of pairs have gone through the base model.
    Features {
        /// So many.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// A reward model took an optimizer step.
    RewardStep(RewardStep),
    /// A reward model has seen all its pairs once more.
    Epoch(EpochReport),
    /// A policy took an optimizer step.
    PolicyStep(PolicyStep),
    /// Training goes on behind a checkpoint.
    Resumed {
        /// Steps that are done.
        step: u32,
    },
    /// A policy took an optimizer step on a file's examples.
    OfflineStep(OfflineStep),
    /// A policy was looked at on held-out prompts.
    Heldout(Watched),
}

/// What work cost. Wall-clock values: they differ from run to run, unlike everything else here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Tokens through the model, forward.
    pub tokens: u64,
    /// Seconds of work, without loading.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// The process's peak resident set, bytes; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

impl Cost {
    /// The cost of work on `tokens` tokens since `started`.
    pub fn since(started: std::time::Instant, tokens: u64) -> Self {
        let seconds = started.elapsed().as_secs_f64();
        let tokens_per_second = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        Self { tokens, seconds, tokens_per_second, peak_rss_bytes: peak_rss_bytes() }
    }
}

/// The process's peak resident set (`VmHWM`), bytes; `None` where /proc does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// LoRA on the query and value projections of all layers, rank 8, alpha 16 (the fused
/// projection of GPT-NeoX).
pub fn default_adapter(family: Family) -> AdapterConfig {
    let targets = match family {
        Family::GptNeoX => vec![Proj::Qkv],
        Family::Llama | Family::Qwen2 | Family::Qwen3 => vec![Proj::Q, Proj::V],
    };
    AdapterConfig { rank: 8, alpha: 16.0, dropout: 0.0, targets, layers: None }
}
