//! `gainsay train …` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ModelArgs;

/// What is trained.
#[derive(Subcommand, Debug)]
pub enum TrainCommand {
    /// A reward model from preferences
    Reward(TrainRewardArgs),
    /// A policy against a reward model
    Policy(TrainPolicyArgs),
}

/// What of a reward model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RewardMethod {
    /// The head alone, on cached features.
    Head,
    /// LoRA factors and the head.
    Lora,
    /// All weights and the head.
    Full,
}

impl From<RewardMethod> for gainsay_lm::train::RewardMethod {
    fn from(method: RewardMethod) -> Self {
        match method {
            RewardMethod::Head => Self::Head,
            RewardMethod::Lora => Self::Lora,
            RewardMethod::Full => Self::Full,
        }
    }
}

/// Where a new head starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HeadInit {
    /// At the optimum for the untrained model.
    Fitted,
    /// At zero.
    Zero,
}

impl From<HeadInit> for gainsay_lm::train::HeadInit {
    fn from(init: HeadInit) -> Self {
        match init {
            HeadInit::Fitted => Self::Fitted,
            HeadInit::Zero => Self::Zero,
        }
    }
}

/// `gainsay train reward`.
#[derive(Args, Debug)]
pub struct TrainRewardArgs {
    /// Base model, or a reward model to go on from
    #[arg(long, value_name = "M")]
    pub model: String,
    /// Preferences; several files are trained on together
    #[arg(long = "in", value_name = "PREFERENCES", required = true, num_args = 1..)]
    pub input: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What is trained
    #[arg(long, value_enum, default_value = "lora")]
    pub method: RewardMethod,
    /// Where a new head starts: at its optimum for the untrained model, or at zero
    #[arg(long, value_enum, default_value = "fitted")]
    pub head_init: HeadInit,
    /// Passes over the pairs
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub epochs: usize,
    /// Pairs an optimizer step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Peak learning rate; by default 1e-3 for lora, 2e-5 for full
    #[arg(long)]
    pub lr: Option<f64>,
    /// LoRA rank
    #[arg(long, default_value_t = 8, value_name = "R")]
    pub rank: usize,
    /// LoRA scale numerator
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    /// Adapt the last N layers only; 0 adapts all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub last_layers: usize,
    /// Weight of (r1 + r2)^2
    #[arg(long, default_value_t = 0.01)]
    pub center: f64,
    /// Longest sequence; the prompt's left is cut
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub max_tokens: usize,
    /// Share of the pairs that is held out
    #[arg(long, default_value_t = 0.1)]
    pub heldout: f64,
    /// Also judge every pair by a model trained on the other folds, before the training proper
    #[arg(long, value_name = "K")]
    pub folds: Option<usize>,
    /// Run seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object with the figures
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model_args: ModelArgs,
}

/// `gainsay train policy`.
#[derive(Args, Debug)]
pub struct TrainPolicyArgs {
    /// Training method: rloo
    #[arg(long, default_value = "rloo", value_name = "M")]
    pub method: String,
    /// Policy to start from
    #[arg(long, value_name = "M")]
    pub policy: String,
    /// Reward model to optimize
    #[arg(long, value_name = "M")]
    pub reward: String,
    /// Prompts
    #[arg(long, value_name = "F")]
    pub prompts: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Optimizer steps
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub steps: usize,
    /// Prompts a step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Completions a prompt
    #[arg(short = 'k', long = "samples", default_value_t = 4, value_name = "K")]
    pub k: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 3e-4)]
    pub lr: f64,
    /// Weight of the KL penalty
    #[arg(long, default_value_t = 0.05)]
    pub beta: f64,
    /// Sampling temperature; the gradient is that of logits / temperature
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Longest completion, turn end included
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub max_new_tokens: usize,
    /// LoRA rank
    #[arg(long, default_value_t = 8, value_name = "R")]
    pub rank: usize,
    /// LoRA scale numerator
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    /// Run seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object with the figures
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model_args: ModelArgs,
}
