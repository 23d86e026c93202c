//! Statistics on plain slices: moments, correlation, quantiles, intervals, bootstrap, AUROC,
//! agreement of annotators.
//!
//! Everything here is a pure function of its inputs; what is random takes a
//! [`Key`](crate::rng::Key).

mod agreement;
mod auroc;
mod bootstrap;
mod calibration;
mod dawid_skene;
mod interval;
mod moments;
mod student;

pub use agreement::{Metric, cohen_kappa, fleiss_kappa, krippendorff_alpha, krippendorff_interval};
pub use auroc::{Case, Ranked, Tally, auroc, auroc_weighted};
pub use bootstrap::{RESAMPLES, bootstrap_mean, bootstrap_means, bootstrap_paired_difference};
pub use calibration::{Calibration, ReliabilityBin, calibration};
pub use dawid_skene::{DawidSkene, DawidSkeneOptions, Label, dawid_skene};
pub use interval::{Interval, IntervalMethod, wilson};
pub use moments::{CoMoments, Moments};
pub use student::student_interval;

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Population standard deviation, sqrt(mean((v - mean(v))^2)) (ddof 0), in two passes; `None`
/// of nothing, 0 of one value.
pub fn population_std(values: &[f64]) -> Option<f64> {
    let center = mean(values)?;
    let squares: f64 = values.iter().map(|v| (v - center) * (v - center)).sum();
    Some((squares / values.len() as f64).sqrt())
}

/// Pearson correlation, cov(x, y) / (std(x) std(y)), in [-1, 1].
///
/// `None` when the lengths differ, fewer than two values are given, one is not finite, or one
/// side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() {
        return None;
    }
    let (mx, my) = (mean(x)?, mean(y)?);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        let (da, db) = (a - mx, b - my);
        xx += da * da;
        yy += db * db;
        xy += da * db;
    }
    let r = xy / (xx.sqrt() * yy.sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// The `q`-quantile (0 <= q <= 1) of ascending values, linear between order statistics (type 7
/// of Hyndman and Fan 1996, numpy's default); `None` of nothing.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    let fraction = position.fract();
    // The weighted form, not below + fraction * (above - below): exact where both are equal.
    Some(below * (1.0 - fraction) + above * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_by_hand() {
        // mean(1, 2, 6) = 3; squares 4 + 1 + 9 = 14; std = sqrt(14 / 3).
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert!((population_std(&[1.0, 2.0, 6.0]).unwrap() - (14f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!((mean(&[]), population_std(&[])), (None, None));
        assert_eq!(population_std(&[5.0]), Some(0.0));
    }

    #[test]
    fn pearson_by_hand() {
        // x = (0, 1, 2), y = (0, 2, 1): deviations (-1, 0, 1) and (-1, 1, 0): 1 / (sqrt 2 sqrt 2).
        assert!((pearson(&[0.0, 1.0, 2.0], &[0.0, 2.0, 1.0]).unwrap() - 0.5).abs() < 1e-15);
        assert_eq!(pearson(&[1.0, 1.0], &[0.0, 2.0]), None);
        assert_eq!(pearson(&[1.0, f64::NAN], &[0.0, 2.0]), None);
        assert_eq!(pearson(&[1.0], &[2.0]), None);
        assert_eq!(pearson(&[1.0, 2.0], &[2.0]), None);
    }

    #[test]
    fn quantiles_by_hand() {
        let values = [0.0, 10.0, 20.0, 30.0, 40.0];
        assert_eq!(quantile(&values, 0.5), Some(20.0));
        assert_eq!(quantile(&values, 0.1), Some(4.0));
        assert_eq!((quantile(&values, 0.0), quantile(&values, 1.0)), (Some(0.0), Some(40.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
