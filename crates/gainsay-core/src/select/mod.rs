//! Which comparisons to ask for. One unit of budget is one answered comparison, the same for
//! every [`Strategy`].
//!
//! Each strategy proposes pairs prompt by prompt; the proposals of all prompts are put into one
//! order and the first `budget` of them are selected, so that a selection of `B` pairs is the
//! beginning of a selection of `B + 1`. Random draws are keyed on (seed, strategy, round, prompt
//! id): the order of the records does not matter. Ties in rank go by |PACS_i - PACS_j|, then by
//! prompt id, then by completion index.
//!
//! Completions of a prompt with the same text count as one (the first of them): a pair of
//! identical texts asks nothing, and a repeated pair asks the same twice.

mod apl;
mod best;
mod conflict_pairs;
mod d_opt;
mod double_ts;
mod ensemble;
mod features;
mod info_gain;
mod k_center;
mod kendall;
mod margin;
mod max_min;
mod options;
mod pacs;
mod pool;
mod random;
mod random_spread;
mod rso;
mod shf_cas;

pub use options::{PairRule, SelectError, SelectOptions, Strategy};
pub use rso::acceptance_rounds;

use crate::conflict::ConventionCheck;
use crate::record::{Candidate, PromptRecord, SCHEMA, SelectionRecord, Why};
use best::Best;
use features::Chosen;
use pool::Group;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// The flag of a pair that was taken only because too few lie above the thresholds.
pub const BELOW_THRESHOLD: &str = "below-threshold";

/// The field of a completion that holds its reward by each head of the reward model's ensemble.
pub const REWARD_HEADS: &str = "reward_heads";

/// The field of a completion that holds its features.
pub const FEATURES: &str = "features";

/// A pair that a strategy would ask for, with its place in the order: by tier, then by pass, then
/// by descending score.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Proposal {
    i: usize,
    j: usize,
    /// 0: as the strategy wants; higher: only when the budget is not used up.
    tier: u32,
    /// 0: the prompt's first pair; 1: its second, taken after every prompt's first.
    pass: u32,
    /// Larger is earlier.
    score: f64,
    /// Whether it misses a threshold.
    below: bool,
}

/// What a selection was made from and what it left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelectionStats {
    /// The strategy.
    pub strategy: Strategy,
    /// Comparisons asked for.
    pub budget: usize,
    /// Comparisons selected: the budget, or all that there are.
    pub selected: usize,
    /// Pairs that the strategy could choose from.
    pub available: u64,
    /// Prompts in the pool.
    pub prompts: usize,
    /// Prompts with a pair above the thresholds (all with a pair, for strategies without).
    pub qualified_prompts: usize,
    /// Prompts that the selection touches.
    pub selected_prompts: usize,
    /// Prompts passed over: degenerate, or without the scores that the strategy needs.
    pub unusable_prompts: usize,
    /// Selected pairs that miss a threshold.
    pub below_threshold: usize,
    /// Pairs left out because both texts are the same.
    pub identical_pairs: u64,
    /// Pairs left out because another pair of the prompt has the same two texts.
    pub repeated_pairs: u64,
    /// Pairs left out because they were asked before.
    pub asked_before: u64,
    /// Pairs that a strategy on features did not look at, because there are too many to compare
    /// each with each.
    #[serde(skip_serializing_if = "is_zero")]
    pub thinned: u64,
    /// Of `rso` alone.
    pub rso: Option<RsoStats>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How statistical rejection sampling went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RsoStats {
    /// Acceptance is exp((r - r_max) / beta).
    pub beta: f64,
    /// Completions considered.
    pub candidates: u64,
    /// Completions accepted in the first round.
    pub accepted: u64,
}

/// The selected comparisons, most urgent first.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Ranks 0, 1, ...
    pub records: Vec<SelectionRecord>,
    /// How it came about.
    pub stats: SelectionStats,
}

/// Selects `options.budget` comparisons from the pool, or all that there are.
pub fn select(records: &[PromptRecord], options: &SelectOptions) -> Result<Selection, SelectError> {
    select_unasked(records, options, &HashSet::new())
}

/// [`select`] without the pairs whose ids (`<prompt id>/<i>-<j>`) are in `asked`: those of
/// earlier rounds.
pub fn select_unasked(
    records: &[PromptRecord],
    options: &SelectOptions,
    asked: &HashSet<String>,
) -> Result<Selection, SelectError> {
    options.check()?;
    check_pool(records, options)?;
    let mut stats = empty_stats(records, options);
    let mut best = Best::new(options.budget);
    let mut proposals = Vec::new();
    let mut greedy: Vec<Vec<Proposal>> = vec![Vec::new(); if options.strategy.is_greedy() { records.len() } else { 0 }];
    if options.strategy.is_greedy() {
        let chosen = chosen_in_turn(records, options, asked)?;
        stats.thinned = chosen.thinned;
        chosen.proposals.into_iter().for_each(|(r, p)| greedy[r].push(p));
    }
    for (index, record) in records.iter().enumerate() {
        let group = Group::new(record);
        stats.identical_pairs += group.identical_pairs;
        stats.repeated_pairs += group.repeated_pairs;
        proposals.clear();
        let usable = if options.strategy.is_greedy() {
            proposals.append(&mut greedy[index]);
            (!proposals.is_empty()).then_some(())
        } else {
            propose(&group, options, &mut stats, &mut proposals)
        };
        if usable.is_none() {
            stats.unusable_prompts += 1;
        }
        if !asked.is_empty() {
            let before = proposals.len();
            proposals.retain(|p| !asked.contains(&pair_id(record, p.i, p.j)));
            stats.asked_before += (before - proposals.len()) as u64;
        }
        stats.available += proposals.len() as u64;
        stats.qualified_prompts += usize::from(proposals.iter().any(|p| p.tier == 0));
        proposals.iter().for_each(|p| best.see(record, *p, group.pacs_gap(p.i, p.j)));
    }
    if stats.available == 0 {
        let prompts = records.len();
        if let (Some((what, remedy)), true) = (options.strategy.needs(), stats.unusable_prompts == prompts) {
            return Err(SelectError::Missing { strategy: options.strategy, what, remedy });
        }
        return Err(match stats.unusable_prompts == prompts && options.strategy.uses_conflict() {
            true => SelectError::AllDegenerate { prompts },
            false if stats.asked_before > 0 => SelectError::AllAsked { pairs: stats.asked_before },
            false => SelectError::NoPairs { prompts },
        });
    }
    let records: Vec<SelectionRecord> = best
        .into_sorted()
        .into_iter()
        .enumerate()
        .map(|(rank, (record, proposal))| selection_record(record, proposal, rank, options))
        .collect();
    stats.selected = records.len();
    stats.below_threshold = records.iter().filter(|r| !r.flags.is_empty()).count();
    stats.selected_prompts = records.iter().map(|r| &r.prompt_id).collect::<HashSet<_>>().len();
    Ok(Selection { records, stats })
}

/// The proposals of a strategy that chooses pairs one after the other, by record. `conflict-diverse`
/// takes the pairs above the thresholds in the order of their features, then those above them
/// whose features nobody knows or had the time to compare, then those below.
fn chosen_in_turn(
    records: &[PromptRecord],
    options: &SelectOptions,
    asked: &HashSet<String>,
) -> Result<Chosen, SelectError> {
    let known = |r: usize, i: usize, j: usize| asked.contains(&pair_id(&records[r], i, j));
    if options.strategy != Strategy::ConflictDiverse {
        return Ok(features::propose(records, options, None, known));
    }
    let all = SelectOptions { strategy: Strategy::ShfCas, budget: usize::MAX, ..*options };
    let ranked = select(records, &all)?.records;
    let places: HashMap<&str, usize> = records.iter().enumerate().map(|(r, record)| (record.id.as_str(), r)).collect();
    let at = |s: &SelectionRecord| Some((*places.get(s.prompt_id.as_str())?, s.first.index, s.second.index));
    let conflicting: HashSet<_> = ranked.iter().filter(|s| s.flags.is_empty()).filter_map(at).collect();
    if let (false, Some((what, remedy))) = (records.iter().any(features::usable), options.strategy.needs()) {
        return Err(SelectError::Missing { strategy: options.strategy, what, remedy });
    }
    let mut out = features::propose(records, options, Some(&conflicting), known);
    let placed: HashSet<_> = out.proposals.iter().map(|(r, p)| (*r, p.i, p.j)).collect();
    for (rank, selected) in ranked.iter().enumerate() {
        let Some((r, i, j)) = at(selected).filter(|place| !placed.contains(place)) else { continue };
        let below = !selected.flags.is_empty();
        let (tier, pass) = if below { (1, 0) } else { (0, 1) };
        out.proposals.push((r, Proposal { i, j, tier, pass, score: -(rank as f64), below }));
    }
    Ok(out)
}

/// The strategy's proposals for one prompt; `None` when it cannot use the prompt.
fn propose(
    group: &Group<'_>,
    options: &SelectOptions,
    stats: &mut SelectionStats,
    out: &mut Vec<Proposal>,
) -> Option<()> {
    match options.strategy {
        Strategy::ShfCas => shf_cas::propose(group, options, out),
        Strategy::Pacs => pacs::propose(group, options, out),
        Strategy::Kendall => kendall::propose(group, options, out),
        Strategy::Random => random::propose(group, options, out),
        Strategy::RandomSpread => random_spread::propose(group, options, out),
        Strategy::Margin => margin::propose(group, out),
        Strategy::MaxMin => max_min::propose(group, options, out),
        Strategy::Ensemble => ensemble::propose(group, out),
        Strategy::InfoGain => info_gain::propose(group, out),
        Strategy::DoubleTs => double_ts::propose(group, options, out),
        Strategy::Apl => apl::propose(group, options, out),
        // These propose over the whole pool.
        Strategy::KCenter | Strategy::DOpt | Strategy::ConflictDiverse => None,
        Strategy::Rso => {
            let rso = stats.rso.get_or_insert_default();
            rso::propose(group, options, rso, out)
        }
    }
}

fn empty_stats(records: &[PromptRecord], options: &SelectOptions) -> SelectionStats {
    SelectionStats {
        strategy: options.strategy,
        budget: options.budget,
        selected: 0,
        available: 0,
        prompts: records.len(),
        qualified_prompts: 0,
        selected_prompts: 0,
        unusable_prompts: 0,
        below_threshold: 0,
        identical_pairs: 0,
        repeated_pairs: 0,
        asked_before: 0,
        thinned: 0,
        rso: (options.strategy == Strategy::Rso).then(|| RsoStats { beta: options.rso_beta, ..RsoStats::default() }),
    }
}

/// Refuses a pool without what the strategy needs, with two records of one id, with features of
/// different lengths where they count, or with values of mixed origin.
fn check_pool(records: &[PromptRecord], options: &SelectOptions) -> Result<(), SelectError> {
    let mut ids = HashSet::with_capacity(records.len());
    if let Some(twice) = records.iter().find(|r| !ids.insert(&r.id)) {
        return Err(SelectError::DuplicateId { id: twice.id.clone() });
    }
    let strategy = options.strategy;
    if strategy.is_greedy() {
        features::check_widths(records)?;
    }
    let mut check = if strategy.uses_conflict() {
        let measured = |r: &PromptRecord| r.completions.iter().any(|c| c.pacs.is_some());
        if !records.iter().any(measured) {
            let annotated = records.iter().any(|r| r.meta.contains_key("conflicts"));
            let prompts = records.len();
            return Err(match annotated {
                true => SelectError::AllDegenerate { prompts },
                false => SelectError::NotMeasured { strategy },
            });
        }
        ConventionCheck::conflicts()
    } else if strategy.uses_reward() {
        if !records.iter().any(|r| r.completions.iter().any(|c| c.reward.is_some())) {
            return Err(SelectError::NoRewards { strategy });
        }
        ConventionCheck::rewards()
    } else {
        return Ok(());
    };
    records.iter().try_for_each(|record| check.see(record))?;
    Ok(())
}

fn pair_id(record: &PromptRecord, i: usize, j: usize) -> String {
    format!("{}/{i}-{j}", record.id)
}

fn selection_record(
    record: &PromptRecord,
    proposal: Proposal,
    rank: usize,
    options: &SelectOptions,
) -> SelectionRecord {
    let (i, j) = (proposal.i, proposal.j);
    let candidate = |index: usize| Candidate {
        index,
        text: record.completions[index].text.clone(),
        token_ids: record.completions[index].token_ids.clone(),
        gold: record.completions[index].gold,
    };
    SelectionRecord {
        schema: SCHEMA,
        id: pair_id(record, i, j),
        prompt_id: record.id.clone(),
        prompt: record.prompt.clone(),
        first: candidate(i),
        second: candidate(j),
        strategy: options.strategy.to_string(),
        rank,
        why: Why {
            k: record.kendall_tau_distance,
            pacs_first: record.completions[i].pacs,
            pacs_second: record.completions[j].pacs,
        },
        flags: if proposal.below { vec![BELOW_THRESHOLD.into()] } else { Vec::new() },
        meta: record.meta.clone(),
        extra: Default::default(),
    }
}

#[cfg(test)]
mod tests;
