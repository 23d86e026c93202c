//! `random`: uniform over all pairs of all prompts, without replacement.
//!
//! Every pair draws a number and the smallest win, so prompts with more completions weigh more.
//! Scores play no part: degenerate and unscored prompts take part.

use super::pool::Group;
use super::{Proposal, SelectOptions};

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    let pairs = group.pairs(|_| true);
    let mut stream = group.stream(options);
    out.extend(pairs.iter().map(|&(i, j)| Proposal { i, j, tier: 0, pass: 0, score: stream.uniform(), below: false }));
    (!pairs.is_empty()).then_some(())
}
