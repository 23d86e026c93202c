//! `margin`: smallest |r_i - r_j| first, over all pairs of all prompts. These are the pairs whose
//! Bradley-Terry probability is nearest 1/2 (uncertainty sampling, Lewis and Gale 1994).
//!
//! Completions without a finite reward take no part; equal rewards come first of all.

use super::Proposal;
use super::pool::Group;

pub(super) fn propose(group: &Group<'_>, out: &mut Vec<Proposal>) -> Option<()> {
    let gaps = group.reward_gaps()?;
    let proposal = |(i, j, gap): (usize, usize, f64)| Proposal { i, j, tier: 0, pass: 0, score: -gap, below: false };
    out.extend(gaps.into_iter().map(proposal));
    Some(())
}
