//! `pacs`: the local half of `shf-cas` alone (arXiv 2512.09212).
//!
//! Prompts by descending max_i |PACS_i|, whatever K is; completions with |PACS_i| >= delta are
//! selected; pairs by the [`PairRule`](super::PairRule).
//!
//! A prompt without PACS (degenerate) is never selected. Under `--scope dataset` a prompt without
//! a K can still have PACS, and takes part.

use super::conflict_pairs::{self, Ranking};
use super::pool::Group;
use super::{Proposal, SelectOptions};

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    if !group.has_pacs() {
        return None;
    }
    let largest = group.distinct().iter().fold(0.0, |max: f64, i| max.max(group.pacs(*i).abs()));
    let selected = |i| group.pacs(i).abs() >= options.delta;
    let ranking = Ranking { score: largest, qualified: largest >= options.delta, selected };
    conflict_pairs::propose(group, &ranking, options, out);
    Some(())
}
