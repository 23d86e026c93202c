//! What a run directory holds, as the page shows it.

use std::collections::BTreeMap;

use gainsay_core::record::Answer;
use serde::Deserialize;

use super::looks::Look;
use super::pool::Pool;
use super::validation::Validation;
use crate::evaluation::types::{Difference, Evaluation};

/// The file that a run writes last.
pub(super) const COMPARISON: &str = "comparison.json";

/// Strategies that look at the conflict of reward model and policy.
const CONFLICT_AWARE: [&str; 3] = ["shf-cas", "pacs", "kendall"];

/// What the page needs of the recipe; the defaults are the recipe's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Least Kendall tau distance of a prompt that is worth asking about.
    pub tau_k: f64,
    /// Least |PACS| of a completion that is worth asking about.
    pub delta: f64,
    /// The arms in the recipe's order.
    pub strategies: Vec<String>,
    /// Rounds that the recipe asks for.
    pub rounds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tau_k: 0.5, delta: 1.0, strategies: Vec::new(), rounds: 1 }
    }
}

/// One line of `timings.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Timing {
    /// The stage.
    pub stage: String,
    /// Seconds of work.
    pub seconds: f64,
    /// Tokens through the model.
    #[serde(default)]
    pub tokens: u64,
    /// Peak resident set, bytes; 0 where unknown.
    #[serde(default)]
    pub peak_rss_bytes: u64,
}

/// One line of `policy-train.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Step {
    /// Number of the step.
    pub step: f64,
    /// Mean reward of the step's completions.
    #[serde(default)]
    pub reward: Option<f64>,
    /// KL to the base policy, nats a sequence; a training's files call its estimate k3.
    #[serde(default, alias = "kl_k3")]
    pub kl: Option<f64>,
}

/// Pearson correlation of two quantities of the completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Correlation {
    /// Of the deviations from each prompt's mean.
    pub within_prompt: Option<f64>,
}

/// What the page needs of `conflicts.json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Summary {
    /// Degenerate prompts by reason, and their `total`.
    #[serde(default)]
    pub degenerate: BTreeMap<String, u64>,
    /// Reward and log-prob.
    #[serde(default)]
    pub reward_logp: Correlation,
    /// Log-prob and length.
    #[serde(default)]
    pub logp_length: Correlation,
    /// Reward and length.
    #[serde(default)]
    pub reward_length: Correlation,
}

/// How an arm's questions were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// First or second.
    pub decided: usize,
    /// Ties.
    pub ties: usize,
    /// Neither acceptable.
    pub both_bad: usize,
    /// Not answered.
    pub skipped: usize,
}

impl Answers {
    /// Every answer that was given: the labels that were paid for.
    pub fn given(&self) -> usize {
        self.decided + self.ties + self.both_bad
    }

    /// Counts one more.
    pub(super) fn add(&mut self, answer: Answer) {
        match answer {
            Answer::First | Answer::Second => self.decided += 1,
            Answer::Tie => self.ties += 1,
            Answer::BothBad => self.both_bad += 1,
            Answer::Skip => self.skipped += 1,
        }
    }
}

/// One arm in one round.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// Its name: the selection strategy.
    pub name: String,
    /// The round, from 1.
    pub round: u32,
    /// Pairs that it sent for feedback.
    pub asked: usize,
    /// Of these, pairs flagged as below the thresholds.
    pub below_threshold: usize,
    /// The answers; `None` before there are any.
    pub answers: Option<Answers>,
    /// The policy's training.
    pub steps: Vec<Step>,
    /// Looks at held-out prompts during the training, by step.
    pub looks: Vec<Look>,
    /// The tuned policy's figures.
    pub evaluation: Option<Evaluation>,
}

/// A file that the page would have liked to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its path within the run directory.
    pub file: String,
    /// What is wrong with it; `None` where it is not there yet.
    pub fault: Option<String>,
}

/// What a run directory holds, as the page shows it.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// The directory's name.
    pub name: String,
    /// `recipe.toml` as it stands.
    pub recipe: Option<String>,
    /// `manifest.json` as it stands.
    pub manifest: Option<String>,
    /// What the page needs of the recipe.
    pub settings: Settings,
    /// The stages' times, in order.
    pub timings: Vec<Timing>,
    /// The base policy's figures.
    pub base: Option<Evaluation>,
    /// The conflicts files, by round and arm.
    pub pools: Vec<Pool>,
    /// `validate.json` of the first round.
    pub validation: Option<Validation>,
    /// `conflicts.json` of the first round.
    pub summary: Option<Summary>,
    /// The arms, by round, in the recipe's order.
    pub arms: Vec<Arm>,
    /// Paired differences.
    pub differences: Vec<Difference>,
    /// What was missing or unreadable.
    pub missing: Vec<Missing>,
}

impl ReportData {
    /// Whether the run has come to its end: its arms are compared.
    pub fn finished(&self) -> bool {
        !self.missing.iter().any(|m| m.file == COMPARISON)
    }

    /// Names of the arms, in order, each once.
    pub fn arm_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for arm in &self.arms {
            if !names.contains(&arm.name.as_str()) {
                names.push(&arm.name);
            }
        }
        names
    }

    /// The arm that the page is about: the first conflict-aware one, else the first.
    pub fn main_arm(&self) -> Option<&str> {
        main_arm(&self.arm_names())
    }

    /// The arm's state after the last round that has figures.
    pub fn last_of(&self, name: &str) -> Option<&Arm> {
        let of_name = || self.arms.iter().rev().filter(|a| a.name == name);
        of_name().find(|a| a.evaluation.is_some()).or_else(|| of_name().next())
    }

    /// The pool of the conflict map: the first round's.
    pub fn pool(&self) -> Option<&Pool> {
        self.pools.first()
    }
}

/// See [`ReportData::main_arm`].
pub(super) fn main_arm<'n>(names: &[&'n str]) -> Option<&'n str> {
    names.iter().find(|n| CONFLICT_AWARE.contains(n)).or(names.first()).copied()
}
