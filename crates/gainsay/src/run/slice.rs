//! The biased, noisy slice of gold-labeled pairs that a demo's proxy learns from.

use std::collections::BTreeSet;

use gainsay_core::record::{Candidate, PromptRecord, SelectionRecord, Why};
use gainsay_core::rng::Key;

use super::recipe::Proxy;
use crate::error::{Error, Result};

/// Draws `proxy.pairs` pairs, uniformly among all pairs of different texts of the prompts of the
/// named topics and kinds. The order of the result is that of the draw.
///
/// # Errors
/// A topic or kind that no prompt has; fewer pairs than asked for.
pub fn draw(records: &[PromptRecord], proxy: &Proxy, seed: u64) -> Result<Vec<SelectionRecord>> {
    let mut pairs = Vec::new();
    for record in prompts_of(records, proxy)? {
        for i in 0..record.completions.len() {
            for j in i + 1..record.completions.len() {
                if record.completions[i].text != record.completions[j].text {
                    pairs.push((record, i, j));
                }
            }
        }
    }
    enough(pairs.len(), proxy.pairs)?;
    let chosen = Key::new(seed, "proxy-slice").stream().choose(pairs.len(), proxy.pairs);
    Ok(chosen.into_iter().enumerate().map(|(rank, index)| pair(pairs[index], rank)).collect())
}

/// The prompts of the named topics and kinds.
///
/// # Errors
/// A topic or kind that no prompt has.
pub fn prompts_of<'r>(records: &'r [PromptRecord], proxy: &Proxy) -> Result<Vec<&'r PromptRecord>> {
    known(records, "topic", &proxy.topics)?;
    known(records, "kind", &proxy.kinds)?;
    let within = |r: &&PromptRecord| belongs(r, "topic", &proxy.topics) && belongs(r, "kind", &proxy.kinds);
    Ok(records.iter().filter(within).collect())
}

/// Refuses a slice of fewer pairs than `wanted`.
pub fn enough(pairs: usize, wanted: usize) -> Result<()> {
    if pairs >= wanted {
        return Ok(());
    }
    Err(Error::Input(format!(
        "proxy.pairs is {wanted}, but the slice has only {pairs} pairs; ask for fewer, or name more topics"
    )))
}

fn pair((record, i, j): (&PromptRecord, usize, usize), rank: usize) -> SelectionRecord {
    let candidate = |index: usize| Candidate {
        index,
        text: record.completions[index].text.clone(),
        token_ids: record.completions[index].token_ids.clone(),
        gold: record.completions[index].gold,
    };
    SelectionRecord {
        schema: gainsay_core::record::SCHEMA,
        id: format!("{}/{i}-{j}", record.id),
        prompt_id: record.id.clone(),
        prompt: record.prompt.clone(),
        first: candidate(i),
        second: candidate(j),
        strategy: "proxy-slice".into(),
        rank,
        why: Why::default(),
        flags: vec![],
        meta: record.meta.clone(),
        extra: Default::default(),
    }
}

fn belongs(record: &PromptRecord, field: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || record.meta.get(field).and_then(|v| v.as_str()).is_some_and(|v| wanted.iter().any(|w| w == v))
}

fn known(records: &[PromptRecord], field: &str, wanted: &[String]) -> Result<()> {
    let present: BTreeSet<&str> = records.iter().filter_map(|r| r.meta.get(field)?.as_str()).collect();
    match wanted.iter().find(|w| !present.contains(w.as_str())) {
        None => Ok(()),
        Some(missing) => Err(Error::Input(format!(
            "no prompt has meta.{field} `{missing}`; there are: {}",
            present.into_iter().collect::<Vec<_>>().join(", ")
        ))),
    }
}
