//! Where a reward model and a policy contradict each other (Liu, Khajavi, Jiang and Liu,
//! arXiv 2512.09212).
//!
//! For one prompt and its N completions, with v a list of N values:
//!
//! - z(v)_i = (v_i - mean(v)) / std(v), population std ([`z_scores`]);
//! - PACS_i = z(reward)_i - z(logp)_i ([`pacs`]): positive where the reward model over-values
//!   what the policy finds unlikely, negative where it under-values what the policy finds
//!   likely. PACS sums to 0 and its mean square is 2 (1 - Pearson correlation);
//! - K, the Kendall tau distance of the two rankings ([`kendall_tau_distance`]), and tau-b
//!   ([`tau_b`]).
//!
//! A group is [`Degenerate`] when its values cannot be ranked; it then has no PACS and no K.

mod annotate;
mod convention;
mod kendall;
mod options;
mod summary;
mod top;

pub use annotate::{Annotator, ConflictError, GroupValues, annotate, forget};
pub(crate) use annotate::{Scored, token_count};
pub use convention::{ConventionCheck, MixedConventions};
pub use kendall::{PairCounts, kendall_tau_distance, pair_counts, tau_b};
pub use options::{Compat, ConflictOptions, DatasetMoments, LogpKind, Scope, SummaryConvention};
pub use summary::{Correlation, DegenerateCounts, KEEP, LengthUnit, Summary, SummaryBuilder};
pub use top::{Top, TopEntry};

use serde::{Deserialize, Serialize};

/// Below this population std a list of rewards or log-probs counts as constant.
pub const DEGENERATE_STD: f64 = 1e-6;

/// What the published scripts add to the std instead of refusing constant lists.
pub const PAPER_EPSILON: f64 = 1e-8;

/// Why a group of completions has no conflict measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degenerate {
    /// Fewer than two completions.
    TooFew,
    /// A completion lacks a reward, a log-prob or (mean log-prob per token) its token count.
    MissingValue,
    /// A value is infinite or not a number.
    NonFinite,
    /// The rewards' std is below [`DEGENERATE_STD`].
    ConstantReward,
    /// The log-probs' std is below [`DEGENERATE_STD`].
    ConstantLogp,
}

/// The conflict of one prompt's completions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Kendall tau distance of reward and log-prob in [0, 1]; 1/2 is chance.
    pub k: f64,
    /// Kendall's tau-b of reward and log-prob in [-1, 1].
    pub tau_b: f64,
    /// mean_i |PACS_i|.
    pub mean_abs_pacs: f64,
    /// max_i |PACS_i|.
    pub max_abs_pacs: f64,
}

/// A group's conflict, or why it has none.
pub type GroupOutcome = Result<Conflict, Degenerate>;

/// Mean and population std that a list of values is standardized with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standard {
    mean: f64,
    /// What is divided by.
    scale: f64,
}

impl Standard {
    /// Mean and population std of the values.
    #[inline]
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        // Around the first value: equal values have a std of exactly 0, whatever their size.
        let origin = values.first().copied().unwrap_or(0.0);
        let offset = lane_sum(values, |v| v - origin) / n;
        let scale = (lane_sum(values, |v| (v - origin - offset) * (v - origin - offset)) / n).sqrt();
        Self { mean: origin + offset, scale }
    }

    #[inline]
    fn z(&self, value: f64) -> f64 {
        (value - self.mean) / self.scale
    }
}

/// Sum of `f` over the values in four lanes: four times less latency than one after the other,
/// in an order that depends on the length alone.
#[inline]
fn lane_sum(values: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; 4];
    let (blocks, rest) = values.as_chunks::<4>();
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += f(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// z_i = (v_i - mean) / std with the population std (ddof 0).
///
/// `None` for fewer than two values, a value that is not finite, or a std below
/// [`DEGENERATE_STD`].
pub fn z_scores(values: &[f64]) -> Option<Vec<f64>> {
    let standard = Standard::of(values);
    // A value that is not finite makes the scale not a number.
    (values.len() >= 2 && standard.scale.is_finite() && standard.scale >= DEGENERATE_STD)
        .then(|| values.iter().map(|v| standard.z(*v)).collect())
}

/// PACS_i = z(reward)_i - z(logp)_i over one prompt's completions.
///
/// `None` when the lengths differ or either list is degenerate as in [`z_scores`].
pub fn pacs(rewards: &[f64], logps: &[f64]) -> Option<Vec<f64>> {
    if rewards.len() != logps.len() {
        return None;
    }
    let (rewards, logps) = (z_scores(rewards)?, z_scores(logps)?);
    Some(rewards.iter().zip(&logps).map(|(r, l)| r - l).collect())
}

/// The conflict of one prompt on flat slices, without allocation for small groups: rewards and
/// log-probs of its N completions in, PACS into the first N places of `out`.
///
/// Standard conventions, prompt scope; [`ConflictOptions::evaluate`] knows the others. `out` is
/// unspecified for a degenerate group.
///
/// # Panics
/// When `rewards` and `logps` differ in length or `out` is shorter.
pub fn evaluate(rewards: &[f64], logps: &[f64], out: &mut [f64]) -> GroupOutcome {
    let (reward, logp) = prompt_standards(rewards, logps)?;
    Ok(measure(rewards, logps, reward, logp, out))
}

/// The standards of a prompt's own completions, or why it is degenerate.
#[inline]
fn prompt_standards(rewards: &[f64], logps: &[f64]) -> Result<(Standard, Standard), Degenerate> {
    if rewards.len() < 2 {
        return Err(Degenerate::TooFew);
    }
    check_standards(Standard::of(rewards), Standard::of(logps))
}

#[inline]
fn check_standards(reward: Standard, logp: Standard) -> Result<(Standard, Standard), Degenerate> {
    if !(reward.scale.is_finite() && logp.scale.is_finite()) {
        Err(Degenerate::NonFinite)
    } else if reward.scale < DEGENERATE_STD {
        Err(Degenerate::ConstantReward)
    } else if logp.scale < DEGENERATE_STD {
        Err(Degenerate::ConstantLogp)
    } else {
        Ok((reward, logp))
    }
}

/// PACS into `out`, and the measures. A constant ranking counts K = 0 and tau-b = 0, which only
/// the paper's conventions let through.
#[inline]
fn measure(rewards: &[f64], logps: &[f64], reward: Standard, logp: Standard, out: &mut [f64]) -> Conflict {
    let counts = pair_counts(rewards, logps);
    let out = &mut out[..rewards.len()];
    for ((pacs, r), l) in out.iter_mut().zip(rewards).zip(logps) {
        *pacs = reward.z(*r) - logp.z(*l);
    }
    let ranked = counts.tau_b();
    Conflict {
        k: ranked.and(counts.distance()).unwrap_or(0.0),
        tau_b: ranked.unwrap_or(0.0),
        mean_abs_pacs: lane_sum(out, f64::abs) / out.len() as f64,
        max_abs_pacs: out.iter().fold(0.0, |max, p| p.abs().max(max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        // rewards 1 2 3: mean 2, std sqrt(2/3), z = (-1, 0, 1) / 0.8165 = (-1.2247, 0, 1.2247).
        // logps -3 -1 -2: mean -2, the same std, z = (-1.2247, 1.2247, 0).
        // PACS = (0, -1.2247, 1.2247). Pairs: (1,2) and (1,3) concordant, (2,3) discordant:
        // K = 1/3, tau-b = 1/3. mean |PACS| = 2/3 * 1.2247.
        let (rewards, logps) = ([1.0, 2.0, 3.0], [-3.0, -1.0, -2.0]);
        let z = 1.5f64.sqrt();
        let expected = [0.0, -z, z];
        let mut out = [f64::NAN; 3];
        let conflict = evaluate(&rewards, &logps, &mut out).unwrap();
        for (got, want) in out.iter().zip(expected) {
            assert!((got - want).abs() < 1e-12);
        }
        assert!((conflict.k - 1.0 / 3.0).abs() < 1e-15);
        assert!((conflict.tau_b - 1.0 / 3.0).abs() < 1e-15);
        assert!((conflict.mean_abs_pacs - 2.0 / 3.0 * z).abs() < 1e-12);
        assert!((conflict.max_abs_pacs - z).abs() < 1e-12);
    }

    #[test]
    fn two_completions_are_0_or_2() {
        let mut out = [0.0; 2];
        evaluate(&[1.0, 5.0], &[-9.0, -2.0], &mut out).unwrap();
        assert_eq!(out, [0.0, 0.0]);
        evaluate(&[1.0, 5.0], &[-2.0, -9.0], &mut out).unwrap();
        assert_eq!(out, [-2.0, 2.0]);
    }

    #[test]
    fn degenerate_groups() {
        let mut out = [0.0; 3];
        let mut case = |r: &[f64], l: &[f64]| evaluate(r, l, &mut out).unwrap_err();
        assert_eq!(case(&[1.0], &[2.0]), Degenerate::TooFew);
        assert_eq!(case(&[], &[]), Degenerate::TooFew);
        assert_eq!(case(&[1.0, f64::NAN, 2.0], &[1.0, 2.0, 3.0]), Degenerate::NonFinite);
        assert_eq!(case(&[1.0, 2.0], &[f64::NEG_INFINITY, 2.0]), Degenerate::NonFinite);
        assert_eq!(case(&[0.5, 0.5], &[1.0, 2.0]), Degenerate::ConstantReward);
        assert_eq!(case(&[0.0, 1.0], &[1.0, 1.0 + 1e-7]), Degenerate::ConstantLogp);
        assert_eq!((z_scores(&[1.0]), z_scores(&[2.0, 2.0])), (None, None));
        assert_eq!(pacs(&[1.0, 2.0], &[1.0]), None);
    }

    /// A group of 2 to 20 completions with ties: multiples of 1/4, so that shifting and scaling
    /// by powers of two is exact.
    fn group() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let value = || (-40i32..40).prop_map(|v| f64::from(v) / 4.0);
        prop::collection::vec((value(), value()), 2..20).prop_map(|v| v.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn pacs_sums_to_zero_and_its_square_is_the_correlation((r, l) in group()) {
            let mut out = vec![0.0; r.len()];
            if evaluate(&r, &l, &mut out).is_ok() {
                let n = r.len() as f64;
                prop_assert!(out.iter().sum::<f64>().abs() < 1e-9 * n);
                let square = out.iter().map(|p| p * p).sum::<f64>() / n;
                let correlation = stats::pearson(&r, &l).unwrap();
                prop_assert!((square - 2.0 * (1.0 - correlation)).abs() < 1e-9);
                for (a, b) in out.iter().zip(pacs(&r, &l).unwrap()) {
                    prop_assert!((a - b).abs() < 1e-12);
                }
            } else {
                prop_assert_eq!(pacs(&r, &l), None);
            }
        }

        #[test]
        fn shifting_and_scaling_change_nothing(
            (r, l) in group(), shift in -8i32..8, power in -3i32..4,
        ) {
            let moved: Vec<f64> =
                r.iter().map(|v| v * 2f64.powi(power) + f64::from(shift)).collect();
            let (mut out, mut moved_out) = (vec![0.0; r.len()], vec![0.0; r.len()]);
            if let Ok(conflict) = evaluate(&r, &l, &mut out) {
                let other = evaluate(&moved, &l, &mut moved_out).unwrap();
                prop_assert_eq!((other.k, other.tau_b), (conflict.k, conflict.tau_b));
                for (a, b) in out.iter().zip(&moved_out) {
                    prop_assert!((a - b).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn swapping_the_two_sides_flips_pacs_and_keeps_k((r, l) in group()) {
            let (mut out, mut swapped) = (vec![0.0; r.len()], vec![0.0; r.len()]);
            if let Ok(conflict) = evaluate(&r, &l, &mut out) {
                let other = evaluate(&l, &r, &mut swapped).unwrap();
                prop_assert_eq!(other.k, conflict.k);
                for (a, b) in out.iter().zip(&swapped) {
                    prop_assert!((a + b).abs() < 1e-9);
                }
            }
        }
    }
}
