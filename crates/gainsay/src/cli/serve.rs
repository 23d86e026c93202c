//! `gainsay serve` and `gainsay doctor`.

use std::path::PathBuf;

use clap::Args;

use super::ModelArgs;

/// A whole number above 0.
fn above_zero(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "give a whole number above 0".into())
}

/// A finite number, 0 or more.
fn tolerance(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|t: &f64| t.is_finite() && *t >= 0.0).ok_or_else(|| "give nats, 0 or more".into())
}

/// `gainsay serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Reward model; several are an ensemble, whose mean is the reward
    #[arg(long, value_name = "M", required = true)]
    pub reward: Vec<String>,
    /// Policy: /v1/reward then gives PACS too
    #[arg(long, value_name = "M")]
    pub policy: Option<String>,
    /// Address to listen on; other than loopback only with a key
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port; 0 picks one
    #[arg(long, default_value_t = 5000)]
    pub port: u16,
    /// Environment variable that holds the key that clients must show
    #[arg(long, default_value = "GAINSAY_SERVE_KEY", value_name = "NAME")]
    pub key_env: String,
    /// Samples that go through the model together
    #[arg(long, default_value = "32", value_name = "N", value_parser = above_zero)]
    pub batch: usize,
    /// Samples that may wait; beyond, clients are sent away for a second (429)
    #[arg(long, default_value = "4096", value_name = "N", value_parser = above_zero)]
    pub queue: usize,
    /// Longest sample, tokens; the model's own limit where smaller
    #[arg(long, default_value = "8192", value_name = "N", value_parser = above_zero)]
    pub max_tokens: usize,
    /// Largest request, bytes
    #[arg(long, default_value = "8388608", value_name = "N", value_parser = above_zero)]
    pub max_body: usize,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `gainsay doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// The server that samples
    #[arg(long, value_name = "URL")]
    pub policy: String,
    /// The same model here
    #[arg(long, value_name = "M")]
    pub local: String,
    /// Completions to score on both; without, the local model samples some
    #[arg(long = "in", value_name = "F")]
    pub input: Option<PathBuf>,
    /// Completions to score, at most
    #[arg(long, default_value = "16", value_name = "N", value_parser = above_zero)]
    pub items: usize,
    /// Largest difference of a token's log-prob that counts as equal, nats
    #[arg(long, default_value = "0.01", value_name = "NATS", allow_negative_numbers = true, value_parser = tolerance)]
    pub tolerance: f64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
}
