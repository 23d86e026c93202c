//! `max-min`: the best against the worst completion by proxy reward, of random prompts; when
//! every prompt has given that pair, the one with the next largest |r_i - r_j|, and so on.
//!
//! Completions without a finite reward take no part. Equal rewards have no best and worst: such
//! pairs come after all others.

use super::pool::Group;
use super::{Proposal, SelectOptions};

pub(super) fn propose(group: &Group<'_>, options: &SelectOptions, out: &mut Vec<Proposal>) -> Option<()> {
    let mut gaps = group.reward_gaps()?;
    gaps.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut stream = group.stream(options);
    out.extend(gaps.into_iter().zip(0..).map(|((i, j, gap), pass)| Proposal {
        i,
        j,
        tier: u32::from(gap == 0.0),
        pass,
        score: stream.uniform(),
        below: false,
    }));
    Some(())
}
