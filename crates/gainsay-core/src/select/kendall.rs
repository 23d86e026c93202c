//! `kendall`: the global half of `shf-cas` alone (arXiv 2512.09212).
//!
//! Prompts with K(x) >= tau_K, by descending K; every completion counts as selected, whatever
//! PACS is; pairs by the [`PairRule`](super::PairRule).
//!
//! A prompt without a K (degenerate) is never selected.

use super::conflict_pairs::{self, Ranking};
use super::pool::Group;
use super::{Proposal, SelectOptions};

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    let k = group.k()?;
    let ranking = Ranking { score: k, qualified: k >= options.tau_k, selected: |_| true };
    conflict_pairs::propose(group, &ranking, options, out);
    Some(())
}
