//! The command line as typed. What it means is decided in [`crate::recipes`], once.

mod annotate;
mod data;
mod export;
mod judge;
mod place;
mod serve;
mod train;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gainsay_core::conflict::Compat;
use gainsay_core::import::ColumnMap;

pub use annotate::{
    AgreementArgs, AnnotateCommand, AnnotateExportArgs, AnnotateServeArgs, ExchangeFormat, ImportArgs, TaskArg, TiesArg,
};
pub use data::{CompletionsArgs, ConvertArgs, ConvertTo, DataCommand, InspectArgs, ManArgs};
pub use export::{ExportArgs, Trainer};
pub use judge::JudgeArgs;
pub use place::{Device, Dtype, ModelArgs};
pub use serve::{DoctorArgs, ServeArgs};
pub use train::{RewardMethod, TrainCommand, TrainPolicyArgs, TrainRewardArgs, TrainSftArgs};

/// Find where a reward model and a policy contradict each other, ask people exactly there,
/// repair both.
#[derive(Parser, Debug)]
#[command(name = "gainsay", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// The whole loop on the default model and the prompts that ship with the project
    Demo(DemoArgs),
    /// The whole loop of a recipe; on an existing directory it resumes
    Run(RunArgs),
    /// Variants of a recipe over seeds: tables, curves, a report; it resumes
    Experiment(ExperimentArgs),
    /// Sample completions from a policy, with each token's log-prob
    Sample(SampleArgs),
    /// Add log-probs, proxy rewards and gold rewards to the completions of a file
    Score(ScoreArgs),
    /// Measure where reward and log-prob contradict each other
    Conflicts(ConflictsArgs),
    /// Choose the comparisons that are worth asking
    Select(SelectArgs),
    /// Have a selection answered by an oracle
    Feedback(FeedbackArgs),
    /// Does conflict predict the reward model's mistakes? (needs gold labels)
    Validate(ValidateArgs),
    /// Train a reward model or a policy
    #[command(subcommand)]
    Train(TrainCommand),
    /// Measure a policy on held-out prompts
    Evaluate(EvaluateArgs),
    /// Write the report of a run directory as one HTML page
    Report(ReportArgs),
    /// Serve a reward model to trainers
    Serve(ServeArgs),
    /// Do a server's log-probs agree with the same model's here?
    Doctor(DoctorArgs),
    /// Have comparisons answered by people in the browser, or by an LLM judge
    #[command(subcommand)]
    Annotate(AnnotateCommand),
    /// Look at data files
    #[command(subcommand)]
    Data(DataCommand),
    /// Hand a run over to TRL, OpenRLHF or verl
    Export(ExportArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands
    Man(ManArgs),
}

/// How completions are decoded.
#[derive(Args, Clone, Debug)]
pub struct DecodingArgs {
    /// Completions a prompt
    #[arg(short = 'n', long = "completions", default_value_t = 8, value_name = "N")]
    pub n: usize,
    /// Softmax temperature; 0 is greedy
    #[arg(long, default_value_t = 0.7)]
    pub temperature: f64,
    /// Sample from the k likeliest tokens only; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Sample from the smallest set of tokens with this probability only
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f64,
    /// Longest completion, turn end included
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub max_new_tokens: usize,
}

/// `gainsay demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Run directory
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    pub out: PathBuf,
    /// Everything smaller: a smoke run of a minute or two
    #[arg(long)]
    pub quick: bool,
    /// Say what it will cost, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Threads; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = place::thread_count())]
    pub threads: usize,
    /// Where models run; GPUs need a build with `--features cuda`
    #[arg(long, default_value_t = Device::Cpu, value_name = "cpu|cuda[:I]")]
    pub device: Device,
}

/// `gainsay run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// Run directory; by default runs/<the recipe's name>
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Say what it will cost, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Threads; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = place::thread_count())]
    pub threads: usize,
    /// Where models run; GPUs need a build with `--features cuda`
    #[arg(long, default_value_t = Device::Cpu, value_name = "cpu|cuda[:I]")]
    pub device: Device,
}

/// `gainsay experiment`.
#[derive(Args, Debug)]
pub struct ExperimentArgs {
    /// Seeds, a recipe and its variants, a TOML file
    pub file: PathBuf,
    /// Directory of all runs; by default runs/<the file's name>
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Say what it will cost, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Threads; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = place::thread_count())]
    pub threads: usize,
    /// Where models run; GPUs need a build with `--features cuda`
    #[arg(long, default_value_t = Device::Cpu, value_name = "cpu|cuda[:I]")]
    pub device: Device,
}

/// `gainsay sample`.
#[derive(Args, Debug)]
pub struct SampleArgs {
    /// The policy: a folder, a .gguf file, hf:org/name[@rev] or smollm2-135m
    #[arg(long, value_name = "M")]
    pub policy: String,
    /// Prompts, one record a line
    #[arg(long, value_name = "F")]
    pub prompts: PathBuf,
    /// Rollouts to write
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// Decoding.
    #[command(flatten)]
    pub decoding: DecodingArgs,
    /// Run seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Go on after the turn end (benchmarks)
    #[arg(long)]
    pub ignore_eos: bool,
    /// Prompts verbatim, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Print one JSON object with the figures
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `gainsay score`.
#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// Policy whose log-probs are added
    #[arg(long, value_name = "M")]
    pub policy: Option<String>,
    /// Reward model whose rewards are added
    #[arg(long, value_name = "M")]
    pub reward: Option<String>,
    /// Gold reward model whose rewards are added
    #[arg(long, value_name = "M")]
    pub gold: Option<String>,
    /// Completions to score
    #[arg(long = "in", value_name = "F")]
    pub input: PathBuf,
    /// File to write
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// Prompts verbatim, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Add N features of each completion, read from the model of --policy, else of --reward; 0
    /// adds none
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub features: usize,
    /// Cut sequences that are too long for the model from the prompt's left, and count them
    #[arg(long)]
    pub truncate: bool,
    /// Print one JSON object with the figures
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Reproduces somebody's conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompatArg {
    /// The published scripts: std + 1e-8, degenerate groups count 0.
    Paper,
}

impl CompatArg {
    /// The conventions asked for; Gainsay's own without the flag.
    pub fn or_standard(arg: Option<Self>) -> Compat {
        match arg {
            Some(Self::Paper) => Compat::Paper,
            None => Compat::Standard,
        }
    }
}

/// Which log-prob is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogpArg {
    /// Sum over the completion's tokens.
    Sum,
    /// Mean per token.
    Mean,
}

/// Over what values are standardized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Each prompt's completions.
    Prompt,
    /// The whole file.
    Dataset,
}

/// `gainsay conflicts`.
#[derive(Args, Debug)]
pub struct ConflictsArgs {
    /// Scored completions
    #[arg(long = "in", value_name = "F")]
    pub input: PathBuf,
    /// File to write, with pacs and kendall_tau_distance
    #[arg(long, value_name = "F")]
    pub out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Reproduce the published scripts' conventions
    #[arg(long, value_enum)]
    pub compat: Option<CompatArg>,
    /// Which log-prob is ranked
    #[arg(long, value_enum, default_value = "sum")]
    pub logp: LogpArg,
    /// Over what values are standardized
    #[arg(long, value_enum, default_value = "prompt")]
    pub scope: ScopeArg,
    /// Show the N worst conflicts; by default 10, with --json none
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Columns of a plain table: prompt=…,completion=…,reward=…,logp=…,group=…
    #[arg(long, value_name = "NAME=COLUMN,…")]
    pub map: Option<ColumnMap>,
}

/// `gainsay select`.
#[derive(Args, Debug)]
pub struct SelectArgs {
    /// shf-cas, pacs, kendall, random, random-spread, margin, max-min, rso, ensemble, info-gain,
    /// double-ts, apl, k-center, d-opt or conflict-diverse
    #[arg(long, value_name = "S")]
    pub strategy: String,
    /// Comparisons to ask
    #[arg(long, value_name = "B")]
    pub budget: usize,
    /// Completions with conflicts
    #[arg(long = "in", value_name = "F")]
    pub input: PathBuf,
    /// Selection to write
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// Least Kendall tau distance of a prompt
    #[arg(long, default_value_t = 0.5, value_name = "K")]
    pub tau_k: f64,
    /// Least |PACS| of a completion
    #[arg(long, default_value_t = 1.0)]
    pub delta: f64,
    /// Take prompts by mean |PACS| > delta, as the published scripts do
    #[arg(long, value_enum)]
    pub compat: Option<CompatArg>,
    /// Which pairs of a prompt: spread, extreme, selected or all
    #[arg(long, default_value = "spread", value_name = "RULE")]
    pub pairs: String,
    /// rso: acceptance weight exp(r / beta)
    #[arg(long, default_value_t = 0.5)]
    pub beta: f64,
    /// Preferences whose pairs are not asked again
    #[arg(long, value_name = "F")]
    pub exclude: Vec<PathBuf>,
    /// Run seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `gainsay feedback`.
#[derive(Args, Debug)]
pub struct FeedbackArgs {
    /// gold:M, labels or judge:URL
    #[arg(long, value_name = "O")]
    pub oracle: String,
    /// Noise of the answers: bt (Bradley-Terry) or flip:P
    #[arg(long, value_name = "NOISE")]
    pub noise: Option<String>,
    /// Selection
    #[arg(long = "in", value_name = "SELECTION")]
    pub input: PathBuf,
    /// Preferences to write
    #[arg(long, value_name = "PREFERENCES")]
    pub out: PathBuf,
    /// Run seed (of the noise)
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `gainsay validate`.
#[derive(Args, Debug)]
pub struct ValidateArgs {
    /// Completions with logp, reward and gold
    #[arg(long = "in", value_name = "F")]
    pub input: PathBuf,
    /// Which log-prob is ranked
    #[arg(long, value_enum, default_value = "sum")]
    pub logp: LogpArg,
    /// Over what values are standardized
    #[arg(long, value_enum, default_value = "prompt")]
    pub scope: ScopeArg,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `gainsay evaluate`.
#[derive(Args, Debug)]
pub struct EvaluateArgs {
    /// Policy to measure
    #[arg(long, value_name = "M", required_unless_present = "rewardbench")]
    pub policy: Option<String>,
    /// Held-out prompts
    #[arg(long, value_name = "F", required_unless_present = "rewardbench")]
    pub prompts: Option<PathBuf>,
    /// Gold reward model
    #[arg(long, value_name = "M", required_unless_present = "rewardbench")]
    pub gold: Option<String>,
    /// Measure --reward on a file of RewardBench or RewardBench 2 instead
    #[arg(long, value_name = "F", requires = "reward", conflicts_with_all = ["policy", "prompts", "gold", "against"])]
    pub rewardbench: Option<PathBuf>,
    /// Proxy reward model
    #[arg(long, value_name = "M")]
    pub reward: Option<String>,
    /// Policy of the win rate, the KL and PACS's log-probs: the base policy
    #[arg(long, value_name = "M")]
    pub against: Option<String>,
    /// Decoding.
    #[command(flatten)]
    pub decoding: DecodingArgs,
    /// Completions a prompt at temperature 1 for the KL and the entropy
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub kl_n: usize,
    /// Prompts with everyday answers: does the policy still find them likely? A file, builtin or none
    #[arg(long, value_name = "F", default_value = "none")]
    pub everyday: String,
    /// Run seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// File to write the evaluation to
    #[arg(long, value_name = "F")]
    pub out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `gainsay report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Run directory
    pub dir: PathBuf,
}
