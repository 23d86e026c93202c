//! Reward-model losses beyond the plain pair: rankings of several answers, safety labels.

use super::{log_sigmoid, sigmoid};

/// Loss of several rewards and its derivatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankingLoss {
    /// The loss, >= 0.
    pub loss: f64,
    /// Derivative by each reward, in the rewards' order.
    pub d_rewards: Vec<f64>,
}

/// Plackett-Luce loss (Luce 1959; Plackett 1975) of a ranking, best answer first:
///
/// L = -sum_k log(exp(r_k) / sum_{j >= k} exp(r_j)), k = 1 .. K - 1
///
/// `groups` holds places in `rewards`, those of equally good answers together; the loss is then the
/// mean over the orders of these. As each set T that can be left of a group g at its size is equally
/// likely, with S the rewards of the worse groups that mean is
///
/// L = sum_g (sum_{T in g, T not empty} log(sum_{i in T or S} exp(r_i)) / C(|g|, |T|) - sum_{i in g} r_i)
///
/// at the cost of 2^|g| terms a group. For two answers it is the Bradley-Terry loss: of p = 1, and of
/// p = 1/2 where they are tied. Adding a constant to all rewards changes nothing, so the derivatives
/// sum to 0. Answers that no group names have derivative 0; fewer than two answers: 0.
pub fn plackett_luce(groups: &[Vec<usize>], rewards: &[f64]) -> RankingLoss {
    let mut out = RankingLoss { loss: 0.0, d_rewards: vec![0.0; rewards.len()] };
    // log sum exp of the worse groups, and their places.
    let (mut below, mut worse) = (f64::NEG_INFINITY, Vec::new());
    for group in groups.iter().rev() {
        below = group_loss(group, &worse, below, rewards, &mut out);
        worse.extend_from_slice(group);
    }
    out
}

/// Adds a group's share; returns the log-sum-exp of the group and of what is below it.
fn group_loss(group: &[usize], worse: &[usize], below: f64, rewards: &[f64], out: &mut RankingLoss) -> f64 {
    let n = group.len();
    let mut sums = vec![below; 1 << n];
    for set in 1..sums.len() {
        let lowest = set.trailing_zeros() as usize;
        sums[set] = log_add(sums[set & (set - 1)], rewards[group[lowest]]);
        let share = 1.0 / subsets(n, set.count_ones() as usize);
        out.loss += share * sums[set];
        let left = group.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, place)| place);
        for place in left.chain(worse) {
            out.d_rewards[*place] += share * (rewards[*place] - sums[set]).exp();
        }
    }
    for place in group {
        out.loss -= rewards[*place];
        out.d_rewards[*place] -= 1.0;
    }
    sums[(1 << n) - 1]
}

/// log(e^a + e^b) without overflow; `a` may be minus infinity.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

/// The subsets of `k` out of `n`.
fn subsets(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |all, i| all * (n - i) as f64 / (i + 1) as f64)
}

/// A cost model's safety term (Safe RLHF, arXiv 2310.12773), for one completion:
/// -log s(sign c), sign +1 for an unsafe completion and -1 for a safe one, so that c > 0 comes to
/// mean unsafe. Returns (loss, derivative by c). It is added to the pair loss, whose winner is the
/// more harmful answer where rewards are costs.
pub fn safety(cost: f64, safe: bool) -> (f64, f64) {
    let sign = if safe { -1.0 } else { 1.0 };
    (-log_sigmoid(sign * cost), -sign * sigmoid(-sign * cost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::bradley_terry;
    use gainsay_core::rng::Key;

    /// A strict order, as the rewards are listed.
    fn listed(rewards: &[f64]) -> RankingLoss {
        plackett_luce(&(0..rewards.len()).map(|i| vec![i]).collect::<Vec<_>>(), rewards)
    }

    #[test]
    fn plackett_luce_by_hand() {
        // r = (ln 2, ln 3, 0), exp = (2, 3, 1): -log(2/6) - log(3/4).
        let r = [2f64.ln(), 3f64.ln(), 0.0];
        let l = listed(&r);
        assert!((l.loss - (3f64.ln() + (4f64 / 3.0).ln())).abs() < 1e-12);
        // d = (2/6 - 1, 3/6 + 3/4 - 1, 1/6 + 1/4).
        for (d, want) in l.d_rewards.iter().zip([-2.0 / 3.0, 0.25, 5.0 / 12.0]) {
            assert!((d - want).abs() < 1e-12);
        }
        assert_eq!(listed(&[1.0]).loss, 0.0);
        assert!(listed(&[]).d_rewards.is_empty());
        // Far out, no overflow.
        assert!((listed(&[-800.0, 800.0]).loss - 1600.0).abs() < 1e-9);
    }

    #[test]
    fn ties_by_hand() {
        // The first two tied above the third: the mean of -log(2/6) - log(3/4) and -log(3/6) -
        // log(2/3), that is (log 4 + log 3) / 2.
        let r = [2f64.ln(), 3f64.ln(), 0.0];
        let l = plackett_luce(&[vec![0, 1], vec![2]], &r);
        assert!((l.loss - (4f64.ln() + 3f64.ln()) / 2.0).abs() < 1e-12, "{}", l.loss);
        // d_3 is the mean of 1/6 + 1/4 and 1/6 + 1/3.
        assert!((l.d_rewards[2] - (5.0 / 12.0 + 0.5) / 2.0).abs() < 1e-12);
        // All tied, equal rewards: each order of three has probability 1/6.
        let all = plackett_luce(&[vec![0, 1, 2]], &[0.3; 3]);
        assert!((all.loss - 6f64.ln()).abs() < 1e-12 && all.d_rewards.iter().all(|d| d.abs() < 1e-12));
        // What is not named is not compared.
        assert_eq!(plackett_luce(&[vec![2], vec![0]], &r).d_rewards[1], 0.0);
        assert!((plackett_luce(&[vec![0, 1]], &[-800.0, 800.0]).loss - 800.0).abs() < 1e-9);
    }

    #[test]
    fn two_answers_are_bradley_terry_and_gradients_check() {
        let mut stream = Key::new(6, "ranking-tests").stream();
        for k in 2..7 {
            let r: Vec<f64> = (0..k).map(|_| 2.0 * stream.normal()).collect();
            let strict: Vec<Vec<usize>> = (0..k).map(|i| vec![i]).collect();
            let tied: Vec<Vec<usize>> = vec![(0..k / 2).collect(), (k / 2..k).collect()];
            for groups in [strict, tied, vec![(0..k).collect()]] {
                let l = plackett_luce(&groups, &r);
                if k == 2 {
                    let p = if groups.len() == 1 { 0.5 } else { 1.0 };
                    assert!((l.loss - bradley_terry(p, 0.0, r[0], r[1], 0.0).loss).abs() < 1e-12);
                }
                assert!(l.loss >= 0.0 && l.d_rewards.iter().sum::<f64>().abs() < 1e-12);
                for i in 0..k {
                    let at = |h: f64| {
                        let mut r = r.clone();
                        r[i] += h;
                        plackett_luce(&groups, &r).loss
                    };
                    assert!(((at(1e-5) - at(-1e-5)) / 2e-5 - l.d_rewards[i]).abs() < 1e-8);
                }
            }
            // The order that sorts the rewards is the likeliest.
            let mut sorted = r.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            assert!(listed(&sorted).loss <= listed(&r).loss + 1e-12);
        }
    }

    #[test]
    fn safety_by_hand() {
        // c = ln 3, unsafe: -log(3/4), derivative -1/4; safe: -log(1/4), derivative 3/4.
        let c = 3f64.ln();
        let (loss, d) = safety(c, false);
        assert!((loss + 0.75f64.ln()).abs() < 1e-12 && (d + 0.25).abs() < 1e-12);
        let (loss, d) = safety(c, true);
        assert!((loss - 4f64.ln()).abs() < 1e-12 && (d - 0.75).abs() < 1e-12);
        assert_eq!(safety(2.0, true).0, safety(-2.0, false).0);
    }
}
