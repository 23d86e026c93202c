//! `shf-cas`: selective human feedback by conflict-aware sampling (arXiv 2512.09212).
//!
//! Prompts with K(x) >= tau_K, by descending K; in them completions with |PACS_i| >= delta; pairs
//! by the [`PairRule`](super::PairRule). When these do not fill the budget, the next-ranked pairs
//! follow, flagged.
//!
//! With [`Compat::Paper`] prompts are taken and ranked by mean_i |PACS_i| > delta instead, and
//! every completion of such a prompt counts as selected: the published scripts.
//!
//! A degenerate prompt (no K or no PACS) is never selected.

use super::conflict_pairs::{self, Ranking};
use super::pool::Group;
use super::{Proposal, SelectOptions};
use crate::conflict::Compat;

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    let k = group.k().filter(|_| group.has_pacs())?;
    match options.compat {
        Compat::Standard => {
            let selected = |i| group.pacs(i).abs() >= options.delta;
            let ranking = Ranking { score: k, qualified: k >= options.tau_k, selected };
            conflict_pairs::propose(group, &ranking, options, out);
        }
        Compat::Paper => {
            let score = group.mean_abs_pacs();
            let ranking = Ranking { score, qualified: score > options.delta, selected: |_| true };
            conflict_pairs::propose(group, &ranking, options, out);
        }
    }
    Some(())
}
