//! `random-spread`: one random pair from each of as many random prompts; when every prompt has
//! given one, a second pass, and so on.
//!
//! It has the diversity of `shf-cas` with spread pairs, without the conflict: the baseline that
//! tells the two effects apart. Scores play no part: degenerate and unscored prompts take part.

use super::pool::Group;
use super::{Proposal, SelectOptions};

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    let mut pairs = group.pairs(|_| true);
    let mut stream = group.stream(options);
    stream.shuffle(&mut pairs);
    out.extend(pairs.iter().zip(0..).map(|(&(i, j), pass)| Proposal {
        i,
        j,
        tier: 0,
        pass,
        score: stream.uniform(),
        below: false,
    }));
    (!pairs.is_empty()).then_some(())
}
