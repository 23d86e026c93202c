//! What the user asks of a selection.

use crate::conflict::{Compat, MixedConventions};
use crate::names::names;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How comparisons are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Conflict twice over: prompts by K, completions by |PACS| (arXiv 2512.09212).
    ShfCas,
    /// Completions by |PACS| alone.
    Pacs,
    /// Prompts by K alone.
    Kendall,
    /// Uniform over all pairs of all prompts.
    Random,
    /// One random pair from each of as many random prompts.
    RandomSpread,
    /// Smallest reward difference.
    Margin,
    /// Best against worst by proxy reward.
    MaxMin,
    /// Statistical rejection sampling by proxy reward (arXiv 2309.06657).
    Rso,
    /// Largest variance of the reward difference over the reward model's heads.
    Ensemble,
    /// What an answer tells about the heads (BALD, arXiv 1112.5745).
    InfoGain,
    /// One random head's favorite against another's (arXiv 2402.00396).
    DoubleTs,
    /// Uncertain prompts, large implicit reward differences (arXiv 2402.08114).
    Apl,
    /// Pairs that cover the space of features (arXiv 1708.00489).
    KCenter,
    /// Pairs that tell most about a linear head (arXiv 2502.04354).
    DOpt,
    /// Conflict, then diversity: of the pairs above `shf-cas`'s thresholds, a cover by `k-center`.
    ConflictDiverse,
}

names!(
    Strategy, "strategy",
    Strategy::ShfCas => "shf-cas",
    Strategy::Pacs => "pacs",
    Strategy::Kendall => "kendall",
    Strategy::Random => "random",
    Strategy::RandomSpread => "random-spread",
    Strategy::Margin => "margin",
    Strategy::MaxMin => "max-min",
    Strategy::Rso => "rso",
    Strategy::Ensemble => "ensemble",
    Strategy::InfoGain => "info-gain",
    Strategy::DoubleTs => "double-ts",
    Strategy::Apl => "apl",
    Strategy::KCenter => "k-center",
    Strategy::DOpt => "d-opt",
    Strategy::ConflictDiverse => "conflict-diverse"
);

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 15] = [
        Self::ShfCas,
        Self::Pacs,
        Self::Kendall,
        Self::Random,
        Self::RandomSpread,
        Self::Margin,
        Self::MaxMin,
        Self::Rso,
        Self::Ensemble,
        Self::InfoGain,
        Self::DoubleTs,
        Self::Apl,
        Self::KCenter,
        Self::DOpt,
        Self::ConflictDiverse,
    ];

    /// Whether it ranks by conflict measures: the pool must come from `conflicts`.
    pub fn uses_conflict(self) -> bool {
        matches!(self, Self::ShfCas | Self::Pacs | Self::Kendall | Self::ConflictDiverse)
    }

    /// What `score` must have added beside rewards and log-probs for it, with the option that adds
    /// it.
    pub fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            _ if self.reads_heads() => {
                Some(("rewards of several heads", "score --reward MODEL, with a model of `train reward --heads 8`"))
            }
            _ if self.reads_features() => Some(("features", "score --features 32 --policy MODEL")),
            Self::Apl => Some(("token_logps and logp", "sample, then score --policy BASE")),
            _ => None,
        }
    }

    /// Whether it compares the heads of an ensemble.
    pub fn reads_heads(self) -> bool {
        matches!(self, Self::Ensemble | Self::InfoGain | Self::DoubleTs)
    }

    /// Whether it reads the completions' features.
    pub fn reads_features(self) -> bool {
        matches!(self, Self::KCenter | Self::DOpt | Self::ConflictDiverse)
    }

    /// Whether it chooses pairs by those chosen before, over the whole pool.
    pub(super) fn is_greedy(self) -> bool {
        self.reads_features()
    }

    /// Whether it ranks by the proxy reward alone: the pool must come from `score`.
    pub fn uses_reward(self) -> bool {
        matches!(self, Self::Margin | Self::MaxMin | Self::Rso)
    }
}

/// Which pairs of a selected prompt are asked, for the conflict strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairRule {
    /// One random pair with a selected completion from every prompt, then a second, and so on.
    #[default]
    Spread,
    /// The most over-valued against the most under-valued completion of every prompt, then the
    /// pair with the next largest |PACS_i - PACS_j|, and so on.
    Extreme,
    /// Prompt after prompt, all pairs of selected completions.
    Selected,
    /// Prompt after prompt, all pairs.
    All,
}

names!(
    PairRule, "pair rule",
    PairRule::Spread => "spread",
    PairRule::Extreme => "extreme",
    PairRule::Selected => "selected",
    PairRule::All => "all"
);

/// A selection's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectOptions {
    /// How comparisons are chosen.
    pub strategy: Strategy,
    /// Number of comparisons, > 0.
    pub budget: usize,
    /// tau_K in [0, 1]: prompts with K >= tau_K conflict.
    pub tau_k: f64,
    /// delta >= 0: completions with |PACS| >= delta conflict.
    pub delta: f64,
    /// Which pairs of a conflicting prompt.
    pub pairs: PairRule,
    /// `Paper`: `shf-cas` takes prompts with mean |PACS| > delta, as the published scripts do.
    pub compat: Compat,
    /// Run seed.
    pub seed: u64,
    /// Round of the loop.
    pub round: u32,
    /// beta > 0 of `rso`: acceptance is exp((r - r_max) / beta).
    pub rso_beta: f64,
}

impl SelectOptions {
    /// The defaults: tau_K = 0.5 (chance), delta = 1, pairs `spread`, beta = 0.5.
    pub fn new(strategy: Strategy, budget: usize) -> Self {
        Self {
            strategy,
            budget,
            tau_k: 0.5,
            delta: 1.0,
            pairs: PairRule::Spread,
            compat: Compat::Standard,
            seed: 0,
            round: 0,
            rso_beta: 0.5,
        }
    }

    /// Refuses parameters out of range.
    pub(super) fn check(&self) -> Result<(), SelectError> {
        let out_of_range =
            |name, value: f64, range| Err(SelectError::OutOfRange { name, value: value.to_string(), range });
        if self.budget == 0 {
            out_of_range("budget", 0.0, "at least 1")
        } else if !(0.0..=1.0).contains(&self.tau_k) {
            out_of_range("tau-k", self.tau_k, "from 0 to 1")
        } else if !(self.delta >= 0.0 && self.delta.is_finite()) {
            out_of_range("delta", self.delta, "0 or more")
        } else if !(self.rso_beta > 0.0 && self.rso_beta.is_finite()) {
            out_of_range("rso-beta", self.rso_beta, "more than 0")
        } else {
            Ok(())
        }
    }
}

/// Why nothing can be selected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectError {
    /// A parameter makes no sense.
    #[error("{name} is {value}, but must be {range}")]
    OutOfRange {
        /// The option's name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        range: &'static str,
    },
    /// Two records share an id, so that pair ids would be ambiguous.
    #[error("two records have the id \"{id}\": ids must be unique within the file")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// The pool has no conflict measures.
    #[error(
        "no record has pacs or kendall_tau_distance, which strategy {strategy} ranks by: \
         run \"gainsay conflicts --in POOL --out FILE\" first"
    )]
    NotMeasured {
        /// The strategy.
        strategy: Strategy,
    },
    /// The pool was measured, but nothing in it can be ranked.
    #[error(
        "all {prompts} prompts are degenerate (fewer than two completions, missing values or \
         constant scores): there is no conflict to rank by; \"gainsay conflicts\" says why"
    )]
    AllDegenerate {
        /// Number of prompts.
        prompts: usize,
    },
    /// The pool has no rewards.
    #[error(
        "no completion has a reward, which strategy {strategy} ranks by: \
         run \"gainsay score --reward MODEL\" first"
    )]
    NoRewards {
        /// The strategy.
        strategy: Strategy,
    },
    /// The pool has not what the strategy ranks by.
    #[error(
        "no prompt has two completions with {what}, which strategy {strategy} ranks by: run \"gainsay {remedy}\" first"
    )]
    Missing {
        /// The strategy.
        strategy: Strategy,
        /// What is missing.
        what: &'static str,
        /// What adds it.
        remedy: &'static str,
    },
    /// Features of two models, or of two projections, in one file.
    #[error(
        "prompt \"{prompt}\", completion {completion}: {found} features, but {expected} before: \
         run \"gainsay score --features 32 --policy MODEL\" on the whole file"
    )]
    RaggedFeatures {
        /// The prompt's id.
        prompt: String,
        /// The completion's place.
        completion: usize,
        /// Its number of features.
        found: usize,
        /// That of the completions before it.
        expected: usize,
    },
    /// No prompt has two different completions that the strategy can use.
    #[error("none of the {prompts} prompts has two different completions to compare")]
    NoPairs {
        /// Number of prompts.
        prompts: usize,
    },
    /// Every pair was asked before.
    #[error("all {pairs} pairs of the pool were asked before: sample more completions or prompts")]
    AllAsked {
        /// Number of pairs.
        pairs: u64,
    },
    /// Values of different models in one file.
    #[error(transparent)]
    Mixed(#[from] MixedConventions),
}
