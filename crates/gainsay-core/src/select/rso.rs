//! `rso`: statistical rejection sampling (Liu et al., arXiv 2309.06657, algorithm 1): completions
//! as if drawn from the optimal policy pi(y) exp(r(y) / beta) / Z.
//!
//! Completion i of a prompt is accepted when u_i < exp((r_i - r_max) / beta), u_i uniform in
//! [0, 1), so the best always is. Pairs are random pairs of accepted completions, one from each
//! of as many random prompts, then a second pass, and so on. When that does not fill the budget,
//! those left over go through another round of acceptance, with the largest reward among them.
//!
//! Completions without a finite reward take no part. Equal rewards are all accepted.

use super::pool::Group;
use super::{Proposal, RsoStats, SelectOptions};
use crate::rng::Stream;

pub(super) fn propose(
    group: &Group<'_>,
    options: &SelectOptions,
    stats: &mut RsoStats,
    out: &mut Vec<Proposal>,
) -> Option<()> {
    let candidates: Vec<(usize, f64)> = group.distinct().iter().filter_map(|i| Some((*i, group.reward(*i)?))).collect();
    let mut stream = group.stream(options);
    let rounds = acceptance_rounds(&candidates, options.rso_beta, &mut stream);
    stats.candidates += rounds.len() as u64;
    stats.accepted += rounds.iter().filter(|(_, round)| *round == 0).count() as u64;
    let round_of = |i: usize| rounds.iter().find(|(k, _)| *k == i).map(|(_, round)| *round);
    let mut pairs: Vec<(usize, usize, u32)> = group
        .pairs(|i| round_of(i).is_some())
        .into_iter()
        .filter_map(|(i, j)| Some((i, j, round_of(i)?.max(round_of(j)?))))
        .collect();
    stream.shuffle(&mut pairs);
    pairs.sort_by_key(|(_, _, round)| *round);
    let first_of = |round| pairs.partition_point(|(_, _, r)| *r < round);
    for (place, &(i, j, round)) in pairs.iter().enumerate() {
        let pass = (place - first_of(round)) as u32;
        out.push(Proposal { i, j, tier: round, pass, score: stream.uniform(), below: false });
    }
    (!pairs.is_empty()).then_some(())
}

/// In which round each completion (index, reward) is accepted, 0 the first. Every round accepts
/// at least the best of those left, so it ends.
pub fn acceptance_rounds(candidates: &[(usize, f64)], beta: f64, stream: &mut Stream) -> Vec<(usize, u32)> {
    let mut rounds = Vec::with_capacity(candidates.len());
    let mut left = candidates.to_vec();
    let mut round = 0;
    while !left.is_empty() {
        let best = left.iter().map(|(_, reward)| *reward).fold(f64::NEG_INFINITY, f64::max);
        left.retain(|&(i, reward)| {
            let accepted = stream.uniform() < ((reward - best) / beta).exp();
            if accepted {
                rounds.push((i, round));
            }
            !accepted
        });
        round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    #[test]
    fn acceptance_follows_the_exponential_of_the_reward() {
        // r_max - r = beta ln 2: accepted half of the time.
        let candidates = [(0, 1.0), (1, 1.0 - 0.5 * std::f64::consts::LN_2)];
        let accepted = (0..4000)
            .filter(|i| {
                let mut stream = Key::new(0, "rso-test").completion(*i).stream();
                let rounds = acceptance_rounds(&candidates, 0.5, &mut stream);
                assert!(rounds.contains(&(0, 0)), "the best is always accepted");
                rounds.contains(&(1, 0))
            })
            .count();
        // 2000 expected, sd 32.
        assert!((1840..2160).contains(&accepted), "{accepted}");
    }

    #[test]
    fn everything_is_accepted_in_some_round() {
        let candidates = [(0, 0.0), (2, -1e6), (3, 1e6), (5, 5.0)];
        let mut stream = Key::new(0, "rso-test").stream();
        let mut rounds = acceptance_rounds(&candidates, 0.5, &mut stream);
        rounds.sort_unstable();
        assert_eq!(rounds.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 2, 3, 5]);
        assert_eq!((rounds[2].1, rounds[3].1), (0, 1));
    }
}
