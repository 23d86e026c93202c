//! What the strategies on features share: they choose pairs one after the other, each by those
//! before it, over the whole pool.

use std::collections::HashSet;

use super::pool::Group;
use super::{FEATURES, Proposal, SelectError, SelectOptions, Strategy, d_opt, k_center};
use crate::record::PromptRecord;

/// A pair as a point in the space of features.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// The prompt's place in the pool.
    pub record: usize,
    pub i: usize,
    pub j: usize,
    /// Features of i minus those of j.
    pub difference: Vec<f64>,
    /// s(D)(1 - s(D)) for the reward difference D; 1/4 without rewards.
    pub weight: f64,
}

/// Open pairs that are considered: the work grows with their number times the budget.
const MOST_PAIRS: usize = 20_000;

/// What was chosen, pair by pair.
pub(super) struct Chosen {
    /// By record, in the order in which the strategy takes them.
    pub proposals: Vec<(usize, Proposal)>,
    /// Pairs that were not considered, because there are more than [`MOST_PAIRS`].
    pub thinned: u64,
}

/// Whether a record has two different completions with features.
pub(super) fn usable(record: &PromptRecord) -> bool {
    let group = Group::new(record);
    !group.pairs(|i| group.features(i).is_some()).is_empty()
}

/// Refuses features of different lengths: differences of them mean nothing.
pub(super) fn check_widths(records: &[PromptRecord]) -> Result<(), SelectError> {
    let mut expected = None;
    for record in records {
        for (completion, c) in record.completions.iter().enumerate() {
            let found = c.extra.get(FEATURES).and_then(|f| f.as_array()).map_or(0, Vec::len);
            if found > 0 && *expected.get_or_insert(found) != found {
                let (prompt, expected) = (record.id.clone(), expected.unwrap_or(found));
                return Err(SelectError::RaggedFeatures { prompt, completion, found, expected });
            }
        }
    }
    Ok(())
}

/// The pool's proposals; records without two completions with features have none. Only the pairs
/// in `among` (record, i, j), where given, are candidates. Pairs that were `asked` before count as
/// taken before the first.
pub(super) fn propose(
    records: &[PromptRecord],
    options: &SelectOptions,
    among: Option<&HashSet<(usize, usize, usize)>>,
    asked: impl Fn(usize, usize, usize) -> bool,
) -> Chosen {
    let (mut pairs, mut known) = (Vec::new(), Vec::new());
    for (r, record) in records.iter().enumerate() {
        let group = Group::new(record);
        for (i, j) in group.pairs(|i| group.features(i).is_some()) {
            let wanted = among.is_none_or(|among| among.contains(&(r, i, j)));
            if let (true, Some(a), Some(b)) = (wanted, group.features(i), group.features(j)) {
                let difference: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
                let gap = group.reward(i).zip(group.reward(j)).map_or(0.0, |(a, b)| a - b);
                let p = 1.0 / (1.0 + (-gap).exp());
                let pair = Pair { record: r, i, j, difference, weight: p * (1.0 - p) };
                (if asked(r, i, j) { &mut known } else { &mut pairs }).push(pair);
            }
        }
    }
    let thinned = thin(&mut pairs, records, options);
    pairs.append(&mut known);
    // Equal gains are decided by the place in this order, which the file's order does not change.
    pairs.sort_by(|a, b| (&records[a.record].id, a.i, a.j).cmp(&(&records[b.record].id, b.i, b.j)));
    let (before, open): (Vec<usize>, Vec<usize>) =
        (0..pairs.len()).partition(|p| asked(pairs[*p].record, pairs[*p].i, pairs[*p].j));
    let mut order = match options.strategy {
        Strategy::DOpt => d_opt::order(&pairs, &before, options.budget),
        _ => k_center::order(&pairs, &before, options.budget),
    };
    // What the budget does not reach is listed all the same, to be counted.
    let reached: HashSet<usize> = order.iter().copied().collect();
    order.extend(open.into_iter().chain(before).filter(|p| !reached.contains(p)));
    let proposal = |(place, index): (usize, usize)| {
        let Pair { record, i, j, .. } = pairs[index];
        (record, Proposal { i, j, tier: 0, pass: 0, score: -(place as f64), below: false })
    };
    Chosen { proposals: order.into_iter().enumerate().map(proposal).collect(), thinned }
}

/// Keeps a random part of too many pairs, chosen by keyed numbers of their own; returns how many
/// it dropped.
fn thin(pairs: &mut Vec<Pair>, records: &[PromptRecord], options: &SelectOptions) -> u64 {
    let dropped = pairs.len().saturating_sub(MOST_PAIRS) as u64;
    if dropped == 0 {
        return 0;
    }
    let mut keyed: Vec<(u64, Pair)> = std::mem::take(pairs)
        .into_iter()
        .map(|p| {
            let purpose = format!("select/{}", options.strategy);
            let key = crate::rng::Key::new(options.seed, &purpose).round(options.round);
            let number = key.prompt(&records[p.record].id).completion(p.i).at(p.j as u64);
            (number, p)
        })
        .collect();
    keyed.sort_by_key(|(number, _)| *number);
    keyed.truncate(MOST_PAIRS);
    pairs.extend(keyed.into_iter().map(|(_, p)| p));
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_is_never_thinned_and_the_rest_is_counted() {
        // 210 completions make 21 945 pairs, 209 of them with the first.
        let completions: Vec<_> =
            (0..210).map(|i| serde_json::json!({"text": format!("t{i}"), "features": [i, i * i]})).collect();
        let record = serde_json::json!({"id": "x", "prompt": "?", "completions": completions});
        let pool = [serde_json::from_value(record).unwrap()];
        let chosen = propose(&pool, &SelectOptions::new(Strategy::KCenter, 1), None, |_, i, _| i == 0);
        assert_eq!(chosen.thinned, 21_945 - 209 - MOST_PAIRS as u64);
        assert_eq!(chosen.proposals.len(), MOST_PAIRS + 209);
        assert_eq!(chosen.proposals.iter().filter(|(_, p)| p.i == 0).count(), 209);
    }
}
