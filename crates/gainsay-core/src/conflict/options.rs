//! The conventions under which conflict is measured.

use super::{
    Degenerate, GroupOutcome, GroupValues, PAPER_EPSILON, Standard, check_standards, measure, prompt_standards,
};
use crate::names::names;
use crate::record::PromptRecord;
use crate::stats::Moments;
use serde::{Deserialize, Serialize};

/// Which treatment of constant groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// Groups that cannot be ranked are degenerate: no values.
    #[default]
    Standard,
    /// The published scripts: z = (v - mean) / (std + 1e-8), and a constant ranking counts
    /// K = 0 and tau-b = 0.
    Paper,
}

/// Which log-prob of a completion is standardized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogpKind {
    /// Sum over the completion's tokens, nats (the paper's).
    #[default]
    #[serde(rename = "sum")]
    Sum,
    /// Sum divided by the number of tokens, nats per token.
    #[serde(rename = "mean")]
    MeanPerToken,
}

/// What mean and std are taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scope {
    /// The completions of each prompt.
    #[default]
    Prompt,
    /// All completions of the file, from a first pass: for pools with two answers a prompt, where
    /// prompt-scope PACS is only 0 or 2. K and tau-b stay per prompt.
    Dataset(DatasetMoments),
}

/// Mean and std of reward and log-prob over a whole file, gathered in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DatasetMoments {
    /// Of the rewards.
    pub reward: Moments,
    /// Of the log-probs, sum or mean per token.
    pub logp: Moments,
}

impl DatasetMoments {
    /// Takes in the completions of one prompt; records with a missing or non-finite value are
    /// left out whole, as they are in the second pass.
    pub fn see(&mut self, record: &PromptRecord, kind: LogpKind) {
        let mut values = GroupValues::default();
        if values.fill(record, kind).is_ok() {
            self.see_values(&values.rewards, &values.logps);
        }
    }

    /// [`DatasetMoments::see`] on flat slices.
    pub fn see_values(&mut self, rewards: &[f64], logps: &[f64]) {
        if rewards.iter().chain(logps).all(|v| v.is_finite()) {
            rewards.iter().for_each(|v| self.reward.push(*v));
            logps.iter().for_each(|v| self.logp.push(*v));
        }
    }
}

/// The conventions of a summary's numbers, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryConvention {
    /// `standard` or `paper`.
    pub compat: Compat,
    /// `sum` or `mean` (per token).
    pub logp: LogpKind,
    /// `prompt` or `dataset`.
    pub scope: &'static str,
}

/// How conflict is measured: part of every summary and recorded in annotated files.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConflictOptions {
    /// Treatment of constant groups.
    pub compat: Compat,
    /// Sum or mean per token.
    pub logp: LogpKind,
    /// Prompt or dataset.
    pub scope: Scope,
}

impl ConflictOptions {
    /// The names of the conventions.
    pub fn convention(&self) -> SummaryConvention {
        SummaryConvention { compat: self.compat, logp: self.logp, scope: self.scope.name() }
    }

    /// The conflict of one prompt's completions on flat slices; PACS into `out` (also where a
    /// prompt without a K has one: dataset scope).
    ///
    /// # Panics
    /// When `rewards` and `logps` differ in length or `out` is shorter.
    pub fn evaluate(&self, rewards: &[f64], logps: &[f64], out: &mut [f64]) -> GroupOutcome {
        let (reward, logp) = self.standards(rewards, logps)?;
        let conflict = measure(rewards, logps, reward, logp, out);
        if self.compat == Compat::Standard && self.scope != Scope::Prompt {
            prompt_standards(rewards, logps)?;
        }
        Ok(conflict)
    }

    /// What rewards and log-probs are standardized with, or why they cannot be.
    pub(super) fn standards(&self, rewards: &[f64], logps: &[f64]) -> Result<(Standard, Standard), Degenerate> {
        if !rewards.iter().chain(logps).all(|v| v.is_finite()) {
            return Err(Degenerate::NonFinite);
        }
        if rewards.is_empty() {
            return Err(Degenerate::TooFew);
        }
        match (self.scope, self.compat) {
            (Scope::Prompt, Compat::Standard) => prompt_standards(rewards, logps),
            (Scope::Prompt, Compat::Paper) => Ok((Standard::of(rewards).padded(), Standard::of(logps).padded())),
            (Scope::Dataset(moments), compat) => {
                let reward = Standard::streamed(&moments.reward).ok_or(Degenerate::TooFew)?;
                let logp = Standard::streamed(&moments.logp).ok_or(Degenerate::TooFew)?;
                match compat {
                    Compat::Standard => check_standards(reward, logp),
                    Compat::Paper => Ok((reward.padded(), logp.padded())),
                }
            }
        }
    }
}

impl Standard {
    fn padded(self) -> Self {
        Self { scale: self.scale + PAPER_EPSILON, ..self }
    }

    fn streamed(moments: &Moments) -> Option<Self> {
        Some(Self { mean: moments.mean()?, scale: moments.population_std()? })
    }
}

names!(Compat, "convention", Compat::Standard => "standard", Compat::Paper => "paper");
names!(LogpKind, "log-prob", LogpKind::Sum => "sum", LogpKind::MeanPerToken => "mean");

impl Scope {
    /// `prompt` or `dataset`, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Dataset(_) => "dataset",
        }
    }
}
