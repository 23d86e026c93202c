//! Models by their names on the command line.

use gainsay_lm::policy::LocalPolicy;
use gainsay_lm::reward::{LocalReward, RewardModel};
use gainsay_lm::sequence::{Settings, Truncate};
use gainsay_lm::source::Loaded;

use crate::cli::{Dtype, ModelArgs};
use crate::error::{Error, Result};

/// What applies to every model of a command.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Prompts verbatim, without the chat template.
    pub raw: bool,
    /// Cut too long sequences from the prompt's left instead of refusing them.
    pub truncate: bool,
}

impl ModelOptions {
    fn settings(&self) -> Settings {
        let truncate = if self.truncate { Truncate::Left } else { Truncate::Refuse };
        Settings { raw: self.raw, truncate, ..Settings::default() }
    }
}

/// Applies `--threads` and checks `--device` and `--dtype`; returns the number of threads.
///
/// # Errors
/// A device or a number format that this build does not compute with.
pub fn prepare(args: &ModelArgs) -> Result<usize> {
    if args.device != "cpu" {
        return Err(Error::Input(format!("--device {}: this build computes on the cpu only", args.device)));
    }
    if args.dtype != Dtype::F32 {
        return Err(Error::Input("--dtype bf16: this build computes in f32 only".into()));
    }
    Ok(threads(args.threads))
}

/// Sets the number of threads; 0 takes every core. Returns the number in force.
pub fn threads(wanted: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if wanted == 0 { cores } else { wanted };
    gainsay_kernels::set_threads(threads);
    threads
}

/// Loads a model; a server's URL is refused with the reason.
pub fn load(spec: &str) -> Result<Loaded> {
    Ok(gainsay_lm::load(spec)?)
}

/// Loads a policy.
pub fn policy(spec: &str, options: &ModelOptions) -> Result<LocalPolicy> {
    Ok(LocalPolicy::new(&load(spec)?, options.settings())?)
}

/// Loads a reward model.
///
/// # Errors
/// What loading reports, or a model without a reward head.
pub fn reward(spec: &str, options: &ModelOptions) -> Result<LocalReward> {
    Ok(LocalReward::new(RewardModel::from_loaded(&load(spec)?)?, options.settings()))
}
