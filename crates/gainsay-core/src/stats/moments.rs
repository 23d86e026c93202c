//! Moments in one pass and constant memory.

use super::{Interval, IntervalMethod, interval::Z95};

/// Count, mean and sum of squared deviations of a stream (Welford 1962; merging: Chan, Golub
/// and LeVeque 1983).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes one value in.
    pub fn push(&mut self, value: f64) {
        self.n += 1;
        let delta = value - self.mean;
        self.mean += delta / self.n as f64;
        self.squares += delta * (value - self.mean);
    }

    /// Takes another stream's values in.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let n = self.n + other.n;
        let delta = other.mean - self.mean;
        let share = other.n as f64 / n as f64;
        self.mean += delta * share;
        self.squares += other.squares + delta * delta * self.n as f64 * share;
        self.n = n;
    }

    /// Number of values.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean; `None` of nothing.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then_some(self.mean)
    }

    /// Population standard deviation (ddof 0); `None` of nothing.
    pub fn population_std(&self) -> Option<f64> {
        (self.n > 0).then(|| (self.squares / self.n as f64).sqrt())
    }

    /// 95 % interval of the mean by the central limit theorem, mean +- 1.96 s / sqrt(n) with the
    /// sample standard deviation s (ddof 1); unbounded for one value, `None` of nothing.
    pub fn normal_interval(&self) -> Option<Interval> {
        let estimate = self.mean()?;
        let error =
            if self.n == 1 { f64::INFINITY } else { (self.squares / (self.n - 1) as f64 / self.n as f64).sqrt() };
        Some(Interval {
            estimate,
            low: estimate - Z95 * error,
            high: estimate + Z95 * error,
            n: self.n,
            method: IntervalMethod::Normal,
        })
    }
}

/// Means, squared deviations and cross products of a stream of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoMoments {
    x: Moments,
    y: Moments,
    cross: f64,
}

impl CoMoments {
    /// The moments of a whole list of pairs, in two passes: cheaper and more exact than pushing
    /// them one by one.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn of(x: &[f64], y: &[f64]) -> Self {
        assert_eq!(x.len(), y.len(), "pairs of values");
        let n = x.len() as f64;
        let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
        let (mut xx, mut yy, mut cross) = (0.0, 0.0, 0.0);
        for (a, b) in x.iter().zip(y) {
            let (dx, dy) = (a - mx, b - my);
            xx += dx * dx;
            yy += dy * dy;
            cross += dx * dy;
        }
        let n = x.len() as u64;
        Self { x: Moments { n, mean: mx, squares: xx }, y: Moments { n, mean: my, squares: yy }, cross }
    }

    /// Takes one pair in.
    pub fn push(&mut self, x: f64, y: f64) {
        let dx = x - self.x.mean;
        self.x.push(x);
        self.y.push(y);
        self.cross += dx * (y - self.y.mean);
    }

    /// Takes in the deviations of another stream from its own means, so that the correlation is
    /// one *within* the streams: differences between their means do not count.
    pub fn add_within(&mut self, other: &Self) {
        if other.x.n == 0 {
            return;
        }
        self.x.n += other.x.n;
        self.x.squares += other.x.squares;
        self.y.n += other.y.n;
        self.y.squares += other.y.squares;
        self.cross += other.cross;
    }

    /// Takes another stream's pairs in.
    pub fn merge(&mut self, other: &Self) {
        if other.x.n == 0 {
            return;
        }
        if self.x.n == 0 {
            *self = *other;
            return;
        }
        let n = self.x.n + other.x.n;
        let weight = self.x.n as f64 * (other.x.n as f64 / n as f64);
        self.cross += other.cross + weight * (other.x.mean - self.x.mean) * (other.y.mean - self.y.mean);
        self.x.merge(&other.x);
        self.y.merge(&other.y);
    }

    /// Number of pairs.
    pub fn n(&self) -> u64 {
        self.x.n
    }

    /// Pearson correlation in [-1, 1]; `None` of fewer than two pairs or a constant side.
    pub fn pearson(&self) -> Option<f64> {
        let r = self.cross / (self.x.squares.sqrt() * self.y.squares.sqrt());
        (self.x.n > 1 && r.is_finite()).then(|| r.clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|v| moments.push(*v));
        moments
    }

    fn of_pairs(pairs: &[(f64, f64)]) -> CoMoments {
        let mut moments = CoMoments::default();
        pairs.iter().for_each(|(x, y)| moments.push(*x, *y));
        moments
    }

    #[test]
    fn normal_interval_by_hand() {
        // 0, 2, 4: mean 2, s = 2, error = 2 / sqrt 3.
        let interval = of(&[0.0, 2.0, 4.0]).normal_interval().unwrap();
        assert!((interval.high - 2.0 - 1.959963984540054 * 2.0 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(of(&[1.0]).normal_interval().unwrap().high, f64::INFINITY);
        assert_eq!(of(&[]).normal_interval(), None);
    }

    #[test]
    fn within_correlation_ignores_the_groups_means() {
        // Inside each group y falls as x rises; across the groups both rise.
        let groups = [[(0.0, 1.0), (1.0, 0.0)], [(10.0, 11.0), (11.0, 10.0)]];
        let mut within = CoMoments::default();
        groups.iter().for_each(|g| within.add_within(&of_pairs(g)));
        assert_eq!(within.pearson(), Some(-1.0));
        assert!(of_pairs(&groups.concat()).pearson().unwrap() > 0.9);
    }

    proptest! {
        #[test]
        fn one_pass_equals_two_and_merging_equals_concatenating(
            pairs in prop::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 2..40),
            cut in 0usize..40,
        ) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            let cut = cut.min(x.len());
            let mut moments = of(&x[..cut]);
            moments.merge(&of(&x[cut..]));
            prop_assert!((moments.mean().unwrap() - stats::mean(&x).unwrap()).abs() < 1e-9);
            let std = stats::population_std(&x).unwrap();
            prop_assert!((moments.population_std().unwrap() - std).abs() < 1e-9);
            let mut both = of_pairs(&pairs[..cut]);
            both.merge(&CoMoments::of(&x[cut..], &y[cut..]));
            if let Some(r) = stats::pearson(&x, &y) {
                prop_assert!((both.pearson().unwrap() - r).abs() < 1e-9);
            }
        }
    }
}
