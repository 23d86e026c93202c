//! `gainsay annotate …` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::JudgeArgs;

/// What is done with answers of people.
#[derive(Subcommand, Debug)]
pub enum AnnotateCommand {
    /// Serve the pages on which people answer
    Serve(AnnotateServeArgs),
    /// Read answers that were given in other tools
    Import(ImportArgs),
    /// Write answers as preferences or for other tools
    Export(AnnotateExportArgs),
    /// How much annotators agree, corrected for chance
    Agreement(AgreementArgs),
    /// Have a selection answered by an LLM behind a server
    Judge(JudgeArgs),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskArg {
    /// Which of two completions is better (a selection).
    Compare,
    /// Up to 8 completions of a prompt in order.
    Rank,
    /// One completion: a label and a rating.
    Judge,
}

/// `gainsay annotate serve`.
#[derive(Args, Debug)]
pub struct AnnotateServeArgs {
    /// What is asked: a selection, or for rank and judge prompts with completions; without it, what
    /// the database holds
    #[arg(long = "in", value_name = "F")]
    pub input: Option<PathBuf>,
    /// Database: a file (SQLite), or postgres://USER:PASSWORD@HOST/NAME
    #[arg(long, default_value = "annotations.db", value_name = "DB")]
    pub db: String,
    /// What is asked
    #[arg(long, value_enum, default_value = "compare")]
    pub task: TaskArg,
    /// Address to listen on; other than loopback needs an admin secret
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 picks one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Where people reach the app through a proxy, for example https://example.org/labels
    #[arg(long, default_value = "", hide_default_value = true, value_name = "URL")]
    pub public_url: String,
    /// File with the admin secret; else the variable GAINSAY_ADMIN_SECRET, else on loopback one is
    /// made and printed
    #[arg(long, value_name = "F")]
    pub admin_secret_file: Option<PathBuf>,
    /// Print an invite link for this annotator (repeat for more)
    #[arg(long = "annotator", value_name = "NAME")]
    pub annotators: Vec<String>,
    /// Answers an item
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub overlap: Option<i64>,
    /// Preferences whose answers are known, to measure annotators with
    #[arg(long, value_name = "F")]
    pub gold_checks: Option<PathBuf>,
    /// Every so many answers, 2 or more, is a gold check; 0 for none
    #[arg(long, value_name = "N")]
    pub gold_every: Option<i64>,
    /// Guidelines, Markdown
    #[arg(long, value_name = "F")]
    pub guidelines: Option<PathBuf>,
    /// Name of the project on the pages
    #[arg(long)]
    pub title: Option<String>,
    /// Labels of judgements, separated by commas (safe,unsafe)
    #[arg(long, value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// Live mode: refit a reward head on this model's features as answers come in, and rank the
    /// queue anew; needs --live-pool
    #[arg(long, value_name = "M", requires = "live_pool", requires = "input")]
    pub live: Option<String>,
    /// The conflicts file that the selection was made from
    #[arg(long, value_name = "F", requires = "live")]
    pub live_pool: Option<PathBuf>,
    /// Answers between two fits
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub live_every: i64,
    /// Pay an hour, for the cost so far
    #[arg(long, value_name = "PAY")]
    pub cost_per_hour: Option<f64>,
}

/// Formats of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExchangeFormat {
    /// Gainsay's preferences with every vote.
    Preferences,
    /// TRL preference rows, plain text.
    Trl,
    /// TRL preference rows, conversational.
    TrlChat,
    /// Label Studio JSON.
    LabelStudio,
    /// Argilla 2 JSON.
    Argilla,
    /// One row a vote.
    Csv,
    /// Judged completions, one record each.
    Judgements,
    /// Rankings, one record a vote.
    Rankings,
}

/// What becomes of ties in TRL rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TiesArg {
    /// Two rows, one in each order.
    Keep,
    /// No row.
    Drop,
}

/// `gainsay annotate import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Answers to read
    #[arg(long = "in", value_name = "F")]
    pub input: PathBuf,
    /// What they are: preferences, label-studio, argilla, csv or judgements
    #[arg(long, value_enum)]
    pub format: ExchangeFormat,
    /// Preferences to write
    #[arg(long, value_name = "PREFERENCES", required_unless_present = "db", conflicts_with = "db")]
    pub out: Option<PathBuf>,
    /// Database of the app to put them into
    #[arg(long, value_name = "DB")]
    pub db: Option<String>,
    /// judgements: fields of the completions that hold one annotator's labels each
    #[arg(long, value_delimiter = ',', value_name = "FIELD,FIELD")]
    pub label_fields: Vec<String>,
}

/// `gainsay annotate export`.
#[derive(Args, Debug)]
pub struct AnnotateExportArgs {
    /// Database of the app
    #[arg(long, value_name = "DB", required_unless_present = "input", conflicts_with = "input")]
    pub db: Option<String>,
    /// Preferences, instead of a database
    #[arg(long = "in", value_name = "PREFERENCES")]
    pub input: Option<PathBuf>,
    /// File to write
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// How
    #[arg(long, value_enum, default_value = "preferences")]
    pub format: ExchangeFormat,
    /// How votes become one answer: majority (of a database, where nothing is said) or dawid-skene;
    /// without it, the answers of a file stay
    #[arg(long, value_name = "RULE")]
    pub aggregate: Option<String>,
    /// Ties in TRL rows
    #[arg(long, value_enum, default_value = "keep")]
    pub ties: TiesArg,
}

/// `gainsay annotate agreement`.
#[derive(Args, Debug)]
pub struct AgreementArgs {
    /// Preferences with votes
    #[arg(long = "in", value_name = "PREFERENCES", required_unless_present = "db", conflicts_with = "db")]
    pub input: Option<PathBuf>,
    /// Database of the app
    #[arg(long, value_name = "DB")]
    pub db: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
