//! `gainsay data …`, `gainsay completions` and `gainsay man` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gainsay_core::import::ColumnMap;

/// What is done with data.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Say what a file is, how many records it holds, and show two of them
    Inspect(InspectArgs),
    /// Write a file of any format as Gainsay's records
    Convert(ConvertArgs),
}

/// What records are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvertTo {
    /// Prompts with their completions; the sides of a pair become two.
    Prompts,
    /// Preferences; completions with gold become pairs.
    Preferences,
    /// Rankings, as they are.
    Rankings,
}

/// `gainsay data convert`.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// A file, a quoted pattern such as 'logs/*.parquet', or hf:datasets/org/name
    pub file: PathBuf,
    /// File to write
    #[arg(long, value_name = "F")]
    pub out: PathBuf,
    /// What records are made; by default what the format holds
    #[arg(long, value_enum)]
    pub to: Option<ConvertTo>,
    /// Columns of a plain table: prompt=…,completion=…,reward=…,logp=…,gold=…,group=…
    #[arg(long, value_name = "NAME=COLUMN,…")]
    pub map: Option<ColumnMap>,
}

/// `gainsay data inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A file, a quoted pattern such as 'logs/*.parquet', or hf:datasets/org/name
    pub file: PathBuf,
    /// Columns of a plain table: prompt=…,completion=…,reward=…,logp=…,gold=…,group=…
    #[arg(long, value_name = "NAME=COLUMN,…")]
    pub map: Option<ColumnMap>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `gainsay completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `gainsay man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write a page for every subcommand into this folder instead of the first page to stdout
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
