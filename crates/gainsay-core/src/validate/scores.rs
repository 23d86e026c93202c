//! What is known of a pair without labels, and what is wanted of it.

use crate::conflict::LengthUnit;
use crate::names::names;
use serde::Serialize;
use std::cmp::Ordering;

/// A pair of one prompt's completions with different gold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    /// Index of the prompt.
    pub(super) prompt: usize,
    pub(super) k: f64,
    pub(super) pacs_gap: f64,
    /// Gold of the first minus gold of the second; never 0.
    pub(super) gold: f64,
    /// Reward of the first minus reward of the second.
    pub(super) reward: f64,
    /// Log-prob of the first minus log-prob of the second.
    pub(super) logp: f64,
    /// Difference of the token counts, where both are known.
    pub(super) tokens: Option<f64>,
    /// Difference of the texts' lengths.
    pub(super) bytes: f64,
    /// Sum of the ensemble's variances, where both are known.
    pub(super) variance: Option<f64>,
}

impl Pair {
    /// 1 when the reward model orders the pair against the gold, 0 when with it, 1/2 when it
    /// does not order it.
    pub(super) fn mistake(&self) -> f64 {
        against(self.reward, self.gold)
    }

    /// The same of the policy's log-prob.
    pub(super) fn policy_mistake(&self) -> f64 {
        against(self.logp, self.gold)
    }
}

/// 1 when two differences have opposite signs, 0 when the same, 1/2 when one is 0.
fn against(a: f64, b: f64) -> f64 {
    let sign = |d: f64| d.partial_cmp(&0.0).unwrap_or(Ordering::Equal) as i8;
    f64::from(1 - sign(a) * sign(b)) / 2.0
}

/// What could tell a mistake without a label; larger should mean more likely a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// K of the prompt.
    KendallTauDistance,
    /// |PACS_i - PACS_j|.
    PacsGap,
    /// 1 when reward and log-prob order the pair oppositely, 0 when alike, 1/2 when one is tied.
    Discordance,
    /// Rival: -|r_i - r_j|.
    SmallMargin,
    /// Rival: |length_i - length_j|.
    LengthDifference,
    /// Rival: sum of both rewards' variances over an ensemble (`reward_var` of the completions).
    EnsembleVariance,
}

names!(
    Score, "score",
    Score::KendallTauDistance => "kendall_tau_distance",
    Score::PacsGap => "pacs_gap",
    Score::Discordance => "discordance",
    Score::SmallMargin => "small_margin",
    Score::LengthDifference => "length_difference",
    Score::EnsembleVariance => "ensemble_variance"
);

impl Score {
    /// All scores, K first.
    pub const ALL: [Self; 6] = [
        Self::KendallTauDistance,
        Self::PacsGap,
        Self::Discordance,
        Self::SmallMargin,
        Self::LengthDifference,
        Self::EnsembleVariance,
    ];

    /// The score in a table for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::KendallTauDistance => "K of the prompt",
            Self::PacsGap => "|PACS_i - PACS_j|",
            Self::Discordance => "discordant pair",
            Self::SmallMargin => "small reward margin",
            Self::LengthDifference => "length difference",
            Self::EnsembleVariance => "ensemble variance",
        }
    }

    /// The score of a pair, where it is known.
    pub(super) fn of(self, pair: &Pair, unit: LengthUnit) -> Option<f64> {
        match self {
            Self::KendallTauDistance => Some(pair.k),
            Self::PacsGap => Some(pair.pacs_gap),
            Self::Discordance => Some(against(pair.reward, pair.logp)),
            Self::SmallMargin => Some(-pair.reward.abs()),
            Self::LengthDifference => match unit {
                LengthUnit::Tokens => pair.tokens,
                LengthUnit::Bytes => Some(pair.bytes),
            },
            Self::EnsembleVariance => pair.variance,
        }
    }
}
