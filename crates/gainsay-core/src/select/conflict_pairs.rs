//! The pairs of one prompt under a [`PairRule`], shared by the conflict strategies.

use super::pool::Group;
use super::{PairRule, Proposal, SelectOptions};

/// What a conflict strategy says of a prompt.
pub(super) struct Ranking<F> {
    /// Larger is earlier.
    pub(super) score: f64,
    /// Whether the prompt reaches its threshold.
    pub(super) qualified: bool,
    /// Whether the completion with this index reaches its threshold.
    pub(super) selected: F,
}

/// Proposes every pair of the prompt once: first those that the rule wants, then, a tier lower
/// and flagged, the rest; among the rest, pairs with a selected completion come first.
pub(super) fn propose(
    group: &Group<'_>,
    ranking: &Ranking<impl Fn(usize) -> bool>,
    options: &SelectOptions,
    out: &mut Vec<Proposal>,
) {
    let selected = &ranking.selected;
    let mut pairs = group.pairs(|_| true);
    match options.pairs {
        PairRule::Spread => group.stream(options).shuffle(&mut pairs),
        PairRule::Extreme | PairRule::Selected | PairRule::All => {
            let gap = |pair: &(usize, usize)| group.pacs_gap(pair.0, pair.1);
            pairs.sort_by(|a, b| gap(b).total_cmp(&gap(a)));
        }
    }
    let wanted = |&(i, j): &(usize, usize)| {
        ranking.qualified
            && match options.pairs {
                PairRule::Spread | PairRule::Extreme => selected(i) || selected(j),
                PairRule::Selected => selected(i) && selected(j),
                PairRule::All => true,
            }
    };
    let (first, mut rest): (Vec<_>, Vec<_>) = pairs.into_iter().partition(wanted);
    rest.sort_by_key(|&(i, j)| !(selected(i) || selected(j)));
    for (tier, pairs) in [first, rest].into_iter().enumerate() {
        for (place, (i, j)) in pairs.into_iter().enumerate() {
            let pass = match options.pairs {
                PairRule::Spread | PairRule::Extreme => place as u32,
                PairRule::Selected | PairRule::All => 0,
            };
            let (tier, below) = (tier as u32, tier > 0);
            out.push(Proposal { i, j, tier, pass, score: ranking.score, below });
        }
    }
}
