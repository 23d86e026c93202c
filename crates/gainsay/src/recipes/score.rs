//! rollouts -> scored: log-prob under a policy, proxy reward and gold reward of each completion.

use std::path::Path;

use gainsay_core::conflict::forget;
use gainsay_core::engine::{LogProb, RewardFn, ScoreItem};
use gainsay_core::record::PromptRecord;
use gainsay_core::rng::Key;
use gainsay_core::select::{FEATURES, REWARD_HEADS};
use gainsay_lm::reward::{FeatureKind, LocalReward};
use serde_json::json;

use super::units::Units;
use crate::error::{Error, Result};
use crate::models;
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
    /// Adds `features` to every completion.
    pub features: Option<&'a Features>,
}

/// Features of completions for the strategies that cover or explore the space of features: the
/// last token's hidden row, projected by a fixed random matrix (Johnson and Lindenstrauss 1984),
/// which keeps distances up to a factor near 1.
pub struct Features {
    /// Gives the rows.
    pub model: LocalReward,
    /// Numbers a completion.
    pub size: usize,
}

impl Features {
    /// One vector an item.
    fn of(&self, items: &[ScoreItem<'_>]) -> Result<Vec<Vec<f64>>> {
        let rows = self.model.features(items, FeatureKind::LastToken, None)?;
        let scale = (self.size as f64).sqrt().recip();
        let projection: Vec<Vec<f64>> = (0..self.size)
            .map(|k| {
                let mut stream = Key::new(0, "feature-projection").completion(k).stream();
                (0..rows.cols).map(|_| scale * stream.normal()).collect()
            })
            .collect();
        let project = |row: &[f32], p: &[f64]| -> f64 {
            let value: f64 = row.iter().zip(p).map(|(h, p)| f64::from(*h) * p).sum();
            // Six digits are plenty for a distance, and a file of 32 numbers a completion is short.
            (value * 1e4).round() / 1e4
        };
        Ok((0..rows.rows).map(|i| projection.iter().map(|p| project(rows.row(i), p)).collect()).collect())
    }
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
    if scorers.policy.is_none() && scorers.reward.is_none() && scorers.gold.is_none() && scorers.features.is_none() {
        return Err(Error::Input("nothing to add: name --policy, --reward or --gold".into()));
    }
    let units = Units {
        stage: "score",
        input,
        out,
        size: models::at_a_time() * PROMPTS_PER_UNIT,
        fingerprint: fingerprint(&scorers),
    };
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
    if scorers.policy.is_some() || scorers.reward.is_some() {
        records.iter_mut().for_each(forget);
    }
    if let Some(policy) = scorers.policy {
        let logps = policy.logps(&items(records))?;
        for (completion, logp) in completions(records).zip(logps) {
            completion.logp = Some(logp.sum);
            completion.n_tokens = Some(logp.token_logps.len() as u32);
        }
        name(records, "logp_policy", &policy.identity());
    }
    if let Some(model) = scorers.reward {
        let found = model.rewards_by_head(&items(records))?;
        let (rewards, heads) = match found {
            Some(found) => (found.rewards, Some(found.heads)),
            None => (model.rewards(&items(records))?, None),
        };
        completions(records).zip(rewards).for_each(|(completion, reward)| completion.reward = Some(reward));
        for (completion, heads) in completions(records).zip(heads.into_iter().flatten()) {
            completion.extra.insert(REWARD_HEADS.into(), json!(heads));
        }
        name(records, "reward_model", &model.identity());
    }
    if let Some(model) = scorers.gold {
        let rewards = model.rewards(&items(records))?;
        completions(records).zip(rewards).for_each(|(completion, gold)| completion.gold = Some(gold));
        name(records, "gold_model", &model.identity());
    }
    if let Some(features) = scorers.features {
        let rows = features.of(&items(records))?;
        for (completion, row) in completions(records).zip(rows) {
            completion.extra.insert(FEATURES.into(), json!(row));
        }
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
    let features = scorers.features.map(|f| format!(" features={}/{}", f.model.identity(), f.size));
    format!(
        "score policy={} reward={} gold={}{}",
        of(scorers.policy.map(LogProb::identity)),
        of(scorers.reward.map(RewardFn::identity)),
        of(scorers.gold.map(RewardFn::identity)),
        of(features),
    )
}
