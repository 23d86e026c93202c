//! `gainsay train …` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ModelArgs;
use crate::recipes::lora::Lora;

/// What is trained.
#[derive(Subcommand, Debug)]
pub enum TrainCommand {
    /// A reward model from preferences
    Reward(TrainRewardArgs),
    /// A policy against a reward, or by DPO from preferences
    Policy(Box<TrainPolicyArgs>),
    /// A policy on given completions (supervised fine-tuning)
    Sft(TrainSftArgs),
}

/// The adapter that is trained.
#[derive(Args, Clone, Debug)]
pub struct LoraArgs {
    /// LoRA rank
    #[arg(long, default_value_t = 8, value_name = "R")]
    pub rank: usize,
    /// LoRA scale numerator
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    /// Adapt the last N layers only; 0 adapts all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub last_layers: usize,
    /// Projections that LoRA adapts, by their names in the model (q_proj, v_proj, ...); by default
    /// query and value
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub targets: Vec<String>,
    /// LoRA dropout: share of the adapter's inputs that a training step does without; by default 0,
    /// or what an adapter that goes on was trained with
    #[arg(long, value_name = "P")]
    pub lora_dropout: Option<f64>,
}

impl From<&LoraArgs> for Lora {
    fn from(args: &LoraArgs) -> Self {
        Self {
            rank: args.rank,
            alpha: args.alpha,
            dropout: args.lora_dropout,
            last_layers: args.last_layers,
            targets: args.targets.clone(),
        }
    }
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
    /// Preferences or rankings; several files are trained on together
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
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Weight of (r1 + r2)^2
    #[arg(long, default_value_t = 0.01)]
    pub center: f64,
    /// head: what is read: last (token), mean (over the completion), each with @L for the first L
    /// layers; several are joined
    #[arg(long = "read", value_name = "WHAT")]
    pub reads: Vec<String>,
    /// head: folder that keeps features, so that they are computed once
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Penalty of a fitted head, on its weights for features of unit spread; by default 0.1
    #[arg(long, value_name = "L2")]
    pub l2: Option<f64>,
    /// Fit an ensemble of N heads to bootstrap samples, which gives every reward a variance
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub heads: usize,
    /// Learn the records' safety labels too, unsafe below 0 and safe above; of PKU-SafeRLHF's pairs the
    /// safer answer wins
    #[arg(long)]
    pub safety: bool,
    /// Earlier preferences, trained on together with --in
    #[arg(long, value_name = "PREFERENCES", num_args = 1..)]
    pub old: Vec<PathBuf>,
    /// Weight of a pair of --old; those of --in have 1
    #[arg(long, default_value_t = 1.0, value_name = "W", requires = "old")]
    pub old_weight: f64,
    /// lora, full: steps between two checkpoints in <DIR>.training; 0 keeps none
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub save_every: usize,
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

/// The loss of a preference pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PairLoss {
    /// DPO's.
    Sigmoid,
    /// IPO's.
    Ipo,
    /// RSO's hinge.
    Hinge,
}

impl From<PairLoss> for gainsay_lm::loss::PreferenceLoss {
    fn from(loss: PairLoss) -> Self {
        match loss {
            PairLoss::Sigmoid => Self::Sigmoid,
            PairLoss::Ipo => Self::Ipo,
            PairLoss::Hinge => Self::Hinge,
        }
    }
}

/// What a policy is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// The model under the policy's adapter.
    Base,
    /// The policy as training starts.
    Start,
}

impl From<Reference> for gainsay_lm::train::Reference {
    fn from(reference: Reference) -> Self {
        match reference {
            Reference::Base => Self::Base,
            Reference::Start => Self::Start,
        }
    }
}

/// `gainsay train policy`.
#[derive(Args, Debug)]
pub struct TrainPolicyArgs {
    /// Training method: rloo, ppo, grpo, dpo, rso or bon (best of n)
    #[arg(long, default_value = "rloo", value_name = "M")]
    pub method: String,
    /// Policy to start from
    #[arg(long, value_name = "M")]
    pub policy: String,
    /// Reward to optimize: a reward model, word:W, length:N, program:arithmetic or program:json
    #[arg(long, value_name = "M", required_unless_present = "input")]
    pub reward: Option<String>,
    /// Prompts
    #[arg(long, value_name = "F", required_unless_present = "input")]
    pub prompts: Option<PathBuf>,
    /// dpo: preferences to learn from instead of prompts and a reward
    #[arg(long = "in", value_name = "PREFERENCES", num_args = 1.., conflicts_with_all = ["reward", "prompts"])]
    pub input: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Steps; each draws completions and learns from them
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub steps: usize,
    /// Prompts a step; with --in, pairs an optimizer step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Completions a prompt
    #[arg(short = 'k', long = "samples", default_value_t = 4, value_name = "K")]
    pub k: usize,
    /// Passes over a step's completions, or over the pairs of --in; by default 4 for ppo, 2 for
    /// grpo, else 1
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Optimizer steps a pass; 1 for rloo
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub minibatches: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 3e-4)]
    pub lr: f64,
    /// Weight of the KL penalty, by default 0.05, grpo 0.04; dpo and rso: of the implied reward, 0.1
    #[arg(long)]
    pub beta: Option<f64>,
    /// ppo: steer beta so that the KL stays here, nats a sequence
    #[arg(long, value_name = "NATS")]
    pub target_kl: Option<f64>,
    /// ppo: completions over which beta is steered; fewer steer faster; by default those of ten steps
    #[arg(long, value_name = "N", requires = "target_kl")]
    pub kl_horizon: Option<f64>,
    /// What the KL and the log-ratios are taken to: the base under the policy's adapter, or the policy
    /// as training starts; by default the base
    #[arg(long, value_enum, value_name = "WHAT")]
    pub reference: Option<Reference>,
    /// ppo: discount
    #[arg(long, default_value_t = 1.0, value_name = "G")]
    pub gamma: f64,
    /// ppo: lambda of the advantage estimate
    #[arg(long, default_value_t = 0.95, value_name = "L")]
    pub gae_lambda: f64,
    /// ppo, grpo: ratios are clipped to within this of 1
    #[arg(long, default_value_t = 0.2, value_name = "EPS")]
    pub clip_ratio: f64,
    /// dpo, rso: loss of a pair
    #[arg(long, value_enum, default_value = "sigmoid")]
    pub loss: PairLoss,
    /// rso: acceptance weight exp(r / beta)
    #[arg(long, default_value_t = 0.5, value_name = "BETA")]
    pub rso_beta: f64,
    /// rloo: divide advantages by their standard deviation
    #[arg(long)]
    pub whiten: bool,
    /// Take the mean off the rewards of a step
    #[arg(long)]
    pub center_rewards: bool,
    /// Divide the rewards of a step by their standard deviation
    #[arg(long)]
    pub scale_rewards: bool,
    /// Cut rewards to [-C, C]; 0 does not
    #[arg(long, default_value_t = 0.0, value_name = "C")]
    pub clip_rewards: f64,
    /// Take K standard deviations of the reward model's heads off every reward
    #[arg(long, default_value_t = 0.0, value_name = "K")]
    pub uncertainty: f64,
    /// Stop at a step whose completions' KL (k3 at temperature 1) exceeds this, nats a sequence
    #[arg(long, value_name = "NATS")]
    pub stop_kl: Option<f64>,
    /// With --in: share of the prompts that is held out
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub heldout_share: f64,
    /// With --in: longest sequence; the prompt's left is cut
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub max_tokens: usize,
    /// Held-out prompts to look at while training
    #[arg(long, value_name = "F")]
    pub heldout: Option<PathBuf>,
    /// Trusted reward of the held-out completions; named as --reward
    #[arg(long, value_name = "M", requires = "heldout")]
    pub gold: Option<String>,
    /// Steps between two looks at the held-out prompts
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub look_every: usize,
    /// Stop after N looks without a higher held-out reward and return the best; 0 never stops
    #[arg(long, default_value_t = 0, value_name = "N", requires = "heldout")]
    pub patience: usize,
    /// Sampling temperature; the gradient is that of logits / temperature
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Longest completion, turn end included
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub max_new_tokens: usize,
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Steps between two checkpoints in <DIR>.training; 0 keeps none
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub save_every: usize,
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

/// `gainsay train sft`.
#[derive(Args, Debug)]
pub struct TrainSftArgs {
    /// Policy to start from
    #[arg(long, value_name = "M")]
    pub policy: String,
    /// Prompts with completions; each completion is learned, its prompt is not
    #[arg(long = "in", value_name = "F", required = true, num_args = 1..)]
    pub input: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Train all weights instead of a LoRA adapter
    #[arg(long)]
    pub full: bool,
    /// Passes over the completions
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub epochs: usize,
    /// Completions an optimizer step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Peak learning rate; by default 1e-3, with --full 2e-5
    #[arg(long)]
    pub lr: Option<f64>,
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Longest sequence; the prompt's left is cut
    #[arg(long, default_value_t = 1024, value_name = "N")]
    pub max_tokens: usize,
    /// Share of the prompts that is held out
    #[arg(long, default_value_t = 0.1)]
    pub heldout: f64,
    /// Steps between two checkpoints in <DIR>.training; 0 keeps none
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub save_every: usize,
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
