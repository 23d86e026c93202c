//! Percentile bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979).

use super::{Interval, IntervalMethod, quantile};
use crate::rng::Key;

/// Resamples that give two stable digits of a 95 % interval.
pub const RESAMPLES: usize = 1000;

/// The 95 % percentile interval of a statistic from its values over resamples, which are
/// sorted in place. Unbounded where fewer than two units were resampled or the statistic was
/// undefined on more than half of the resamples.
pub(super) fn percentile_interval(estimate: f64, replicates: &mut [f64], n: u64, resamples: usize) -> Interval {
    replicates.sort_unstable_by(f64::total_cmp);
    let bounded = n > 1 && 2 * replicates.len() > resamples;
    let end = |q, open| if bounded { quantile(replicates, q).unwrap_or(open) } else { open };
    Interval {
        estimate,
        low: end(0.025, f64::NEG_INFINITY),
        high: end(0.975, f64::INFINITY),
        n,
        method: IntervalMethod::Bootstrap,
    }
}

/// The mean of independent values (one a prompt) with its 95 % bootstrap interval.
///
/// `None` of nothing; unbounded for one value, whose spread is unknown.
pub fn bootstrap_mean(values: &[f64], resamples: usize, key: Key<'_>) -> Option<Interval> {
    let rows: Vec<[f64; 1]> = values.iter().map(|v| [*v]).collect();
    bootstrap_means(&rows, resamples, key).map(|[interval]| interval)
}

/// [`bootstrap_mean`] of `M` columns at once over the same resamples of rows, for several
/// statistics of the same prompts.
pub fn bootstrap_means<const M: usize>(rows: &[[f64; M]], resamples: usize, key: Key<'_>) -> Option<[Interval; M]> {
    if rows.is_empty() {
        return None;
    }
    let n = rows.len() as f64;
    let mut stream = key.stream();
    let mut replicates: [Vec<f64>; M] = std::array::from_fn(|_| Vec::with_capacity(resamples));
    for _ in 0..resamples {
        let mut sums = [0.0; M];
        for _ in 0..rows.len() {
            let row = &rows[stream.index(rows.len())];
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for (column, sum) in replicates.iter_mut().zip(sums) {
            column.push(sum / n);
        }
    }
    Some(std::array::from_fn(|m| {
        let estimate = rows.iter().map(|row| row[m]).sum::<f64>() / n;
        percentile_interval(estimate, &mut replicates[m], rows.len() as u64, resamples)
    }))
}

/// mean(a - b) over pairs (a, b) of the same unit, with its 95 % bootstrap interval: pairing
/// removes what the unit itself contributes to both.
pub fn bootstrap_paired_difference(pairs: &[(f64, f64)], resamples: usize, key: Key<'_>) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    bootstrap_mean(&differences, resamples, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: usize) -> Key<'static> {
        Key::new(5, "bootstrap-test").completion(i)
    }

    #[test]
    fn degenerate_inputs() {
        assert_eq!(bootstrap_mean(&[], 100, key(0)), None);
        let one = bootstrap_mean(&[2.0], 100, key(0)).unwrap();
        assert_eq!((one.estimate, one.low, one.high), (2.0, f64::NEG_INFINITY, f64::INFINITY));
        let constant = bootstrap_mean(&[3.0; 5], 100, key(0)).unwrap();
        assert_eq!((constant.low, constant.estimate, constant.high), (3.0, 3.0, 3.0));
    }

    #[test]
    fn two_values_give_the_binomial_distribution() {
        // Means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
        let interval = bootstrap_mean(&[0.0, 1.0], 1000, key(0)).unwrap();
        assert_eq!((interval.low, interval.estimate, interval.high), (0.0, 0.5, 1.0));
    }

    #[test]
    fn covers_the_truth_about_as_often_as_it_says() {
        let covered = (0..300)
            .filter(|i| {
                let mut stream = Key::new(6, "data").completion(*i).stream();
                let values: Vec<f64> = (0..50).map(|_| stream.normal()).collect();
                bootstrap_mean(&values, 400, key(*i)).unwrap().holds(0.0)
            })
            .count();
        // 0.94 expected at n = 50; binomial sd 0.013: five of them either way.
        assert!((262..=300).contains(&covered), "{covered}");
    }

    #[test]
    fn pairing_removes_the_units_own_spread() {
        let mut stream = Key::new(6, "paired").stream();
        let pairs: Vec<(f64, f64)> = (0..40)
            .map(|_| {
                let unit = 100.0 * stream.normal();
                (unit + 1.0 + 0.1 * stream.normal(), unit)
            })
            .collect();
        let interval = bootstrap_paired_difference(&pairs, 500, key(1)).unwrap();
        assert!(interval.holds(1.0) && !interval.holds(0.0), "{interval}");
        assert!(interval.high - interval.low < 0.1);
    }

    #[test]
    fn columns_share_resamples() {
        let rows: Vec<[f64; 2]> = (0..20).map(|i| [f64::from(i), 2.0 * f64::from(i)]).collect();
        let [a, b] = bootstrap_means(&rows, 200, key(2)).unwrap();
        assert!((2.0 * a.low - b.low).abs() < 1e-9 && (2.0 * a.high - b.high).abs() < 1e-9);
    }
}
