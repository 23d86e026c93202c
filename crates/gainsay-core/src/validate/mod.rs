//! Does conflict find the reward model's mistakes? To be asked on a few dozen labels, before a
//! budget is spent.
//!
//! Over all pairs of a prompt's completions with different gold, every [`Score`] that is known
//! without labels is measured against one target: the reward model orders the pair against the
//! gold. Pairs with equal gold are left out and counted; pairs with equal proxy reward count 1/2.
//! Intervals are bootstrapped over prompts, since the pairs of a prompt depend on each other.
//!
//! In a discordant pair exactly one of policy and reward model is right, so conflict pays where
//! the policy knows what the reward model does not (complementary knowledge); in a concordant
//! pair both can be wrong (shared ignorance), and conflict is blind to that. [`Knowledge`] tells
//! them apart.

mod knowledge;
mod recommend;
mod render;
mod scores;

pub use knowledge::Knowledge;
pub use recommend::{Recommendation, Verdict};
pub use scores::Score;

use crate::conflict::{
    ConflictError, ConflictOptions, Degenerate, DegenerateCounts, GroupValues, LengthUnit, Scored, SummaryConvention,
    token_count,
};
use crate::record::{Completion, PromptRecord};
use crate::rng::Key;
use crate::select::REWARD_HEADS;
use crate::stats::{Case, Interval, RESAMPLES, Ranked, population_std};
use scores::Pair;
use serde::Serialize;
use thiserror::Error;

/// Why there is nothing to validate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValidateError {
    /// The file was not scored.
    #[error(transparent)]
    Conflict(#[from] ConflictError),
    /// No completion has a gold label.
    #[error(
        "no completion has a gold label: run \"gainsay score --gold MODEL\" first, \
         or put a gold value into the completions"
    )]
    NoGold,
    /// There are gold labels, but no pair to compare.
    #[error(
        "no pair of completions can be compared: {degenerate} of {prompts} prompts are degenerate \
         and {gold_ties} pairs have equal gold; at least one prompt needs two completions with \
         different gold and rewards and log-probs that are not constant"
    )]
    NoPairs {
        /// Prompts in the file.
        prompts: u64,
        /// Degenerate among them.
        degenerate: u64,
        /// Pairs with equal gold.
        gold_ties: u64,
    },
}

/// How well a score finds the reward model's mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreReport {
    /// The score.
    pub name: Score,
    /// P(a mistake scores higher than a pair that is right); chance is 1/2.
    pub auroc: Option<Interval>,
    /// Share of mistakes in the top 10 % over their share among all pairs; chance is 1.
    pub lift_10: Option<Interval>,
    /// The same for the top 20 %.
    pub lift_20: Option<Interval>,
}

/// Whether conflict finds the reward model's mistakes. Intervals are 95 %, over prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Validation {
    /// How conflict was measured.
    pub convention: SummaryConvention,
    /// Prompts in the file.
    pub prompts: u64,
    /// Prompts that gave a pair.
    pub prompts_used: u64,
    /// Prompts without conflict measures.
    pub degenerate: DegenerateCounts,
    /// Completions without a (finite) gold label.
    pub without_gold: u64,
    /// Pairs with different gold: what everything below is about.
    pub pairs: u64,
    /// Pairs left out because their gold is equal.
    pub gold_ties: u64,
    /// Pairs with equal proxy reward; each counts as half a mistake.
    pub proxy_ties: u64,
    /// Share of pairs that the reward model orders as the gold does.
    pub reward_accuracy: Option<Interval>,
    /// Share of pairs that the policy's log-prob orders as the gold does.
    pub policy_accuracy: Option<Interval>,
    /// Every score against the reward model's mistakes, K first.
    pub scores: Vec<ScoreReport>,
    /// Concordant and discordant pairs by who is right.
    pub knowledge: Knowledge,
    /// Unit of the length difference.
    pub length_unit: LengthUnit,
    /// What follows from K's AUROC.
    pub recommendation: Recommendation,
}

/// Gathers a [`Validation`] record by record.
#[derive(Clone, Debug)]
pub struct Validator {
    options: ConflictOptions,
    prompts: u64,
    degenerate: DegenerateCounts,
    without_gold: u64,
    gold_seen: bool,
    scored: Scored,
    gold_ties: u64,
    pairs: Vec<Pair>,
    values: GroupValues,
}

impl Validator {
    /// A validation under the given conventions.
    pub fn new(options: ConflictOptions) -> Self {
        Self {
            options,
            prompts: 0,
            degenerate: DegenerateCounts::default(),
            without_gold: 0,
            gold_seen: false,
            scored: Scored::default(),
            gold_ties: 0,
            pairs: Vec::new(),
            values: GroupValues::default(),
        }
    }

    /// Takes in a scored record.
    pub fn see(&mut self, record: &PromptRecord) {
        self.scored.see(record, self.options.logp);
        let prompt = self.prompts as usize;
        self.prompts += 1;
        let golds = record.completions.iter().filter(|c| gold(c).is_some()).count();
        self.gold_seen |= golds > 0;
        self.without_gold += (record.completions.len() - golds) as u64;
        if let Err(reason) = self.see_pairs(record, prompt) {
            self.degenerate.add(reason);
        }
    }

    fn see_pairs(&mut self, record: &PromptRecord, prompt: usize) -> Result<(), Degenerate> {
        self.values.fill(record, self.options.logp)?;
        let mut pacs = vec![0.0; self.values.rewards.len()];
        let conflict = self.options.evaluate(&self.values.rewards, &self.values.logps, &mut pacs)?;
        let completions = &record.completions;
        for i in 0..completions.len() {
            for j in i + 1..completions.len() {
                let (Some(first), Some(second)) = (gold(&completions[i]), gold(&completions[j])) else { continue };
                if first == second {
                    self.gold_ties += 1;
                    continue;
                }
                let both = |f: &dyn Fn(&Completion) -> Option<f64>| Some((f(&completions[i])?, f(&completions[j])?));
                self.pairs.push(Pair {
                    prompt,
                    k: conflict.k,
                    pacs_gap: (pacs[i] - pacs[j]).abs(),
                    gold: first - second,
                    reward: self.values.rewards[i] - self.values.rewards[j],
                    logp: self.values.logps[i] - self.values.logps[j],
                    tokens: both(&|c| token_count(c).map(f64::from)).map(|(a, b)| (a - b).abs()),
                    bytes: (completions[i].text.len() as f64 - completions[j].text.len() as f64).abs(),
                    variance: both(&reward_variance).map(|(a, b)| a + b),
                });
            }
        }
        Ok(())
    }

    /// The validation; `key` draws the bootstrap resamples.
    pub fn finish(&self, key: Key<'_>) -> Result<Validation, ValidateError> {
        self.scored.check()?;
        if !self.gold_seen {
            return Err(ValidateError::NoGold);
        }
        if self.pairs.is_empty() {
            return Err(ValidateError::NoPairs {
                prompts: self.prompts,
                degenerate: self.degenerate.total,
                gold_ties: self.gold_ties,
            });
        }
        let length_unit = match self.pairs.iter().all(|p| p.tokens.is_some()) {
            true => LengthUnit::Tokens,
            false => LengthUnit::Bytes,
        };
        let report = |score: Score| self.report(score, length_unit, key);
        let scores: Vec<ScoreReport> = Score::ALL.into_iter().filter_map(report).collect();
        let knowledge = Knowledge::of(&self.pairs);
        let mut prompts: Vec<usize> = self.pairs.iter().map(|p| p.prompt).collect();
        prompts.dedup();
        Ok(Validation {
            convention: self.options.convention(),
            prompts: self.prompts,
            prompts_used: prompts.len() as u64,
            degenerate: self.degenerate,
            without_gold: self.without_gold,
            pairs: self.pairs.len() as u64,
            gold_ties: self.gold_ties,
            proxy_ties: self.pairs.iter().filter(|p| p.reward == 0.0).count() as u64,
            reward_accuracy: self.accuracy(key, Pair::mistake),
            policy_accuracy: self.accuracy(key, Pair::policy_mistake),
            recommendation: Recommendation::of(scores.first().and_then(|s| s.auroc), &knowledge),
            scores,
            knowledge,
            length_unit,
        })
    }

    /// A score against the reward model's mistakes; `None` where a pair lacks the score.
    fn report(&self, name: Score, unit: LengthUnit, key: Key<'_>) -> Option<ScoreReport> {
        let case = |p: &Pair| Some(Case { score: name.of(p, unit)?, positive: p.mistake(), cluster: p.prompt });
        let ranked = Ranked::new(self.pairs.iter().map(case).collect::<Option<_>>()?)?;
        let [auroc, lift_10, lift_20] =
            ranked.bootstrap(RESAMPLES, key, |tally| [tally.auroc(), tally.lift(0.1), tally.lift(0.2)]);
        Some(ScoreReport { name, auroc, lift_10, lift_20 })
    }

    /// One minus the rate of mistakes.
    fn accuracy(&self, key: Key<'_>, mistake: fn(&Pair) -> f64) -> Option<Interval> {
        let case = |p: &Pair| Case { score: 0.0, positive: 1.0 - mistake(p), cluster: p.prompt };
        let ranked = Ranked::new(self.pairs.iter().map(case).collect())?;
        let [accuracy] = ranked.bootstrap(RESAMPLES, key, |tally| [tally.rate()]);
        accuracy
    }
}

fn gold(completion: &Completion) -> Option<f64> {
    completion.gold.filter(|g| g.is_finite())
}

/// Variance of an ensemble's rewards, where the file carries one as `reward_var` or the heads' own.
fn reward_variance(completion: &Completion) -> Option<f64> {
    let given = completion.extra.get("reward_var").and_then(serde_json::Value::as_f64);
    let of_heads = || {
        let heads = completion.extra.get(REWARD_HEADS)?.as_array()?;
        let heads: Vec<f64> = heads.iter().map(serde_json::Value::as_f64).collect::<Option<_>>()?;
        population_std(&heads).map(|sd| sd * sd)
    };
    given.or_else(of_heads).filter(|v| v.is_finite())
}

#[cfg(test)]
mod tests;
