//! rollouts -> scored: log-prob under a policy, proxy reward and gold reward of each completion.

use std::path::Path;

use gainsay_core::engine::{LogProb, RewardFn, ScoreItem};
use gainsay_core::record::PromptRecord;
use serde_json::json;

use super::units::Units;
use crate::error::{Error, Result};
use crate::progress::Figures;

/// Prompts a unit of work.
const PROMPTS_PER_UNIT: usize = 8;

/// What is added to the completions; what is `None` stays as the file has it.
#[derive(Clone, Copy, Default)]
pub struct Scorers<'a> {
    /// Fills `logp` and `n_tokens`, and names itself in `meta.logp_policy`.
    pub policy: Option<&'a dyn LogProb>,
    /// Fills `reward`, and names itself in `meta.reward_model`.
    pub reward: Option<&'a dyn RewardFn>,
    /// Fills `gold`, and names itself in `meta.gold_model`.
    pub gold: Option<&'a dyn RewardFn>,
}

impl Scorers<'_> {
    /// Tokens that have gone through the models so far.
    fn tokens(&self) -> u64 {
        let reward = |model: Option<&dyn RewardFn>| model.map_or(0, RewardFn::tokens);
        self.policy.map_or(0, LogProb::tokens) + reward(self.reward) + reward(self.gold)
    }
}

/// Scores every completion of a file. `token_logps`, the sampler's own, are left alone.
///
/// # Errors
/// No scorer, bad records, a prompt without completions, what a model reports, Ctrl-C.
pub fn score(scorers: Scorers<'_>, input: &Path, out: &Path) -> Result<Figures> {
    if scorers.policy.is_none() && scorers.reward.is_none() && scorers.gold.is_none() {
        return Err(Error::Input("nothing to add: name --policy, --reward or --gold".into()));
    }
    let units = Units { stage: "score", input, out, size: PROMPTS_PER_UNIT, fingerprint: fingerprint(&scorers) };
    units.run(|mut records| {
        let tokens = score_records(&scorers, &mut records)?;
        Ok((records, tokens))
    })
}

/// Scores records in memory; returns the tokens that went through models.
pub fn score_records(scorers: &Scorers<'_>, records: &mut [PromptRecord]) -> Result<u64> {
    if let Some(record) = records.iter().find(|r| r.completions.is_empty()) {
        return Err(Error::Input(format!(
            "prompt `{}` has no completions to score; run `gainsay sample` first",
            record.id
        )));
    }
    let before = scorers.tokens();
    if let Some(policy) = scorers.policy {
        let logps = policy.logps(&items(records))?;
        for (completion, logp) in completions(records).zip(logps) {
            completion.logp = Some(logp.sum);
            completion.n_tokens = Some(logp.token_logps.len() as u32);
        }
        name(records, "logp_policy", &policy.identity());
    }
    if let Some(model) = scorers.reward {
        let rewards = model.rewards(&items(records))?;
        completions(records).zip(rewards).for_each(|(completion, reward)| completion.reward = Some(reward));
        name(records, "reward_model", &model.identity());
    }
    if let Some(model) = scorers.gold {
        let rewards = model.rewards(&items(records))?;
        completions(records).zip(rewards).for_each(|(completion, gold)| completion.gold = Some(gold));
        name(records, "gold_model", &model.identity());
    }
    Ok(scorers.tokens() - before)
}

/// Every completion of the records as an item, in order.
pub fn items(records: &[PromptRecord]) -> Vec<ScoreItem<'_>> {
    records.iter().flat_map(|r| r.completions.iter().map(|c| ScoreItem::of(&r.prompt, c))).collect()
}

fn completions(records: &mut [PromptRecord]) -> impl Iterator<Item = &mut gainsay_core::record::Completion> {
    records.iter_mut().flat_map(|record| record.completions.iter_mut())
}

fn name(records: &mut [PromptRecord], key: &str, identity: &str) {
    for record in records {
        record.meta.insert(key.into(), json!(identity));
    }
}

fn fingerprint(scorers: &Scorers<'_>) -> String {
    let of = |identity: Option<String>| identity.unwrap_or_default();
    format!(
        "score policy={} reward={} gold={}",
        of(scorers.policy.map(LogProb::identity)),
        of(scorers.reward.map(RewardFn::identity)),
        of(scorers.gold.map(RewardFn::identity)),
    )
}
