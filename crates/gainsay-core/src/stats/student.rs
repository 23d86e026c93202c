//! Intervals from a handful of values, such as one a seed.

use super::Moments;
use super::interval::{Interval, IntervalMethod, Z95};

/// 97.5 % quantiles of Student's t distribution with 1 to 30 degrees of freedom.
const T95: [f64; 30] = [
    12.706204736,
    4.302652730,
    3.182446305,
    2.776445105,
    2.570581836,
    2.446911851,
    2.364624252,
    2.306004135,
    2.262157163,
    2.228138852,
    2.200985160,
    2.178812830,
    2.160368656,
    2.144786688,
    2.131449546,
    2.119905299,
    2.109815578,
    2.100922040,
    2.093024054,
    2.085963447,
    2.079613845,
    2.073873068,
    2.068657610,
    2.063898562,
    2.059538553,
    2.055529439,
    2.051830516,
    2.048407142,
    2.045229642,
    2.042272456,
];

/// 95 % interval of the mean of independent values, mean +- t s / sqrt(n), with the sample standard
/// deviation s (ddof 1) and Student's t for n - 1 degrees of freedom (Student 1908). Above 30 of
/// these, t is Cornish and Fisher's expansion around the normal quantile (1e-4 off at most).
///
/// Unbounded for one value, `None` of nothing.
pub fn student_interval(values: &[f64]) -> Option<Interval> {
    let mut moments = Moments::default();
    values.iter().for_each(|v| moments.push(*v));
    let (estimate, n) = (moments.mean()?, values.len());
    let half = match n {
        1 => f64::INFINITY,
        _ => t95(n - 1) * moments.population_std()? / ((n - 1) as f64).sqrt(),
    };
    Some(Interval {
        estimate,
        low: estimate - half,
        high: estimate + half,
        n: n as u64,
        method: IntervalMethod::Student,
    })
}

fn t95(freedom: usize) -> f64 {
    let (z, v) = (Z95, freedom as f64);
    let expansion = z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v);
    T95.get(freedom.wrapping_sub(1)).copied().unwrap_or(expansion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values_by_hand() {
        // mean 2, s = 1, half = 4.302653 / sqrt(3).
        let found = student_interval(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((found.estimate, found.n), (2.0, 3));
        assert!((found.high - 4.484138).abs() < 1e-6 && (found.low + 0.484138).abs() < 1e-6, "{found}");
    }

    #[test]
    fn one_value_bounds_nothing_and_none_is_nothing() {
        let one = student_interval(&[5.0]).unwrap();
        assert_eq!((one.estimate, one.low, one.high), (5.0, f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!(student_interval(&[]), None);
        let equal = student_interval(&[5.0; 4]).unwrap();
        assert_eq!((equal.low, equal.high), (5.0, 5.0));
    }

    #[test]
    fn the_expansion_meets_the_table() {
        // t(0.975; 31) and t(0.975; 100), from scipy.stats.t.ppf.
        assert!((t95(31) - 2.0395134464).abs() < 1e-4);
        assert!((t95(100) - 1.9839715184).abs() < 1e-5);
    }
}
