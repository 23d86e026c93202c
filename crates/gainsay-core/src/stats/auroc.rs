//! Area under the ROC curve, lift, and their cluster bootstrap.

use super::Interval;
use super::bootstrap::percentile_interval;
use crate::rng::Key;

/// P(score of a random positive > score of a random negative) + P(equal) / 2 in O(n log n)
/// (Hanley and McNeil 1982); chance is 1/2.
///
/// `None` when the lengths differ, a class is empty or a score is not finite.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    if scores.len() != positive.len() {
        return None;
    }
    let weights: Vec<f64> = positive.iter().map(|p| f64::from(u8::from(*p))).collect();
    auroc_weighted(scores, &weights)
}

/// [`auroc`] where case i counts `positive[i]` in [0, 1] as a positive and the rest as a
/// negative (1/2: a tie of the target). A case's own two parts compare as equal.
pub fn auroc_weighted(scores: &[f64], positive: &[f64]) -> Option<f64> {
    if scores.len() != positive.len() {
        return None;
    }
    let cases = scores.iter().zip(positive).map(|(&score, &positive)| Case { score, positive, cluster: 0 });
    Ranked::new(cases.collect())?.whole().auroc()
}

/// One scored case with its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Larger: more likely positive. Finite.
    pub score: f64,
    /// 1 positive, 0 negative, 1/2 a tie.
    pub positive: f64,
    /// Index of the unit (prompt) that the bootstrap resamples as a whole.
    pub cluster: usize,
}

/// Cases in descending order of score, sorted once so that every statistic over a resample of
/// clusters takes one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    cases: Vec<Case>,
    /// One past the end of every run of equal scores.
    ends: Vec<usize>,
    clusters: usize,
}

impl Ranked {
    /// Sorts the cases; `None` when there are none or a score or target is not finite.
    pub fn new(mut cases: Vec<Case>) -> Option<Self> {
        let finite = |c: &Case| c.score.is_finite() && c.positive.is_finite();
        if cases.is_empty() || !cases.iter().all(finite) {
            return None;
        }
        cases.sort_by(|a, b| b.score.total_cmp(&a.score));
        let clusters = cases.iter().map(|c| c.cluster + 1).max()?;
        let ends = cases
            .chunk_by(|a, b| a.score == b.score)
            .scan(0, |end, run| {
                *end += run.len();
                Some(*end)
            })
            .collect();
        Some(Self { cases, ends, clusters })
    }

    /// Number of cases.
    pub fn n(&self) -> usize {
        self.cases.len()
    }

    /// The weights of the cases where each cluster counts `weights[cluster]` times.
    ///
    /// # Panics
    /// When a cluster has no weight.
    pub fn tally(&self, weights: &[f64]) -> Tally {
        let mut tally = Tally::default();
        self.tally_into(weights, &mut tally);
        tally
    }

    fn tally_into(&self, weights: &[f64], tally: &mut Tally) {
        tally.runs.clear();
        (tally.total, tally.positives) = (0.0, 0.0);
        let mut start = 0;
        for end in &self.ends {
            let (mut total, mut positive) = (0.0, 0.0);
            for case in &self.cases[start..*end] {
                let weight = weights[case.cluster];
                total += weight;
                positive += weight * case.positive;
            }
            start = *end;
            tally.runs.push((total, positive));
            tally.total += total;
            tally.positives += positive;
        }
    }

    /// The statistics of all cases.
    pub fn whole(&self) -> Tally {
        self.tally(&vec![1.0; self.clusters])
    }

    /// `M` statistics of the cases, each with its 95 % interval from resampling whole clusters
    /// with replacement. Resamples on which a statistic is undefined are left out of its
    /// interval, which is unbounded when more than half are.
    pub fn bootstrap<const M: usize>(
        &self,
        resamples: usize,
        key: Key<'_>,
        statistics: impl Fn(&Tally) -> [Option<f64>; M],
    ) -> [Option<Interval>; M] {
        let present = self.present();
        let estimates = statistics(&self.whole());
        let mut replicates: [Vec<f64>; M] = std::array::from_fn(|_| Vec::new());
        let mut stream = key.stream();
        let (mut weights, mut tally) = (vec![0.0; self.clusters], Tally::default());
        for _ in 0..resamples {
            weights.fill(0.0);
            for _ in 0..present.len() {
                weights[present[stream.index(present.len())]] += 1.0;
            }
            self.tally_into(&weights, &mut tally);
            for (column, value) in replicates.iter_mut().zip(statistics(&tally)) {
                column.extend(value);
            }
        }
        std::array::from_fn(|m| {
            let n = present.len() as u64;
            Some(percentile_interval(estimates[m]?, &mut replicates[m], n, resamples))
        })
    }

    /// Indices of the clusters that have a case.
    fn present(&self) -> Vec<usize> {
        let mut seen = vec![false; self.clusters];
        self.cases.iter().for_each(|c| seen[c.cluster] = true);
        (0..self.clusters).filter(|c| seen[*c]).collect()
    }
}

/// Weighted counts of cases and positives, run by run of equal scores from the top.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// (weight of the cases, weight of the positives among them).
    runs: Vec<(f64, f64)>,
    total: f64,
    positives: f64,
}

impl Tally {
    /// AUROC; `None` when a class is empty.
    pub fn auroc(&self) -> Option<f64> {
        let (mut above, mut wins) = (0.0, 0.0);
        for (total, positive) in &self.runs {
            // The positives above, and half of those level, beat these negatives.
            wins += (total - positive) * (above + 0.5 * positive);
            above += positive;
        }
        let pairs = self.positives * (self.total - self.positives);
        (pairs > 0.0).then(|| wins / pairs)
    }

    /// Share of positives among all cases; `None` without weight.
    pub fn rate(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.positives / self.total)
    }

    /// Share of positives among the top `fraction` of the cases over their share among all: 1 is
    /// chance. A run of equal scores at the cut counts in proportion, which is its expectation
    /// under random order. `None` when nothing is positive.
    pub fn lift(&self, fraction: f64) -> Option<f64> {
        let cut = fraction * self.total;
        if self.positives <= 0.0 || cut <= 0.0 {
            return None;
        }
        let (mut taken, mut found) = (0.0, 0.0);
        for (weight, positive) in self.runs.iter().filter(|(weight, _)| *weight > 0.0) {
            let part = ((cut - taken) / weight).min(1.0);
            if part <= 0.0 {
                break;
            }
            taken += part * weight;
            found += part * positive;
        }
        Some((found / cut) / (self.positives / self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cases(rows: &[(f64, f64, usize)]) -> Ranked {
        let case = |&(score, positive, cluster): &_| Case { score, positive, cluster };
        Ranked::new(rows.iter().map(case).collect()).unwrap()
    }

    #[test]
    fn auroc_by_hand() {
        // Positives 3 and 1, negatives 2 and 1: 3 beats both, 1 loses to 2 and ties with 1:
        // (2 + 0 + 1/2) / 4.
        let scores = [3.0, 1.0, 2.0, 1.0];
        assert_eq!(auroc(&scores, &[true, true, false, false]), Some(0.625));
        assert_eq!(auroc(&scores, &[true; 4]), None);
        assert_eq!(auroc(&[], &[]), None);
        assert_eq!(auroc(&[f64::NAN, 1.0], &[true, false]), None);
        assert_eq!(auroc(&scores, &[true]), None);
    }

    #[test]
    fn a_half_positive_counts_half_on_either_side() {
        // Positive weight: A 1 (score 2), B 1/2 (score 1). Negative: B 1/2, C 1 (score 0).
        // A over B 1/2, A over C 1, B over C 1/2, B level with itself 1/2 * 1/2 * 1/2:
        // 2.125 of 1.5 * 1.5.
        let value = auroc_weighted(&[2.0, 1.0, 0.0], &[1.0, 0.5, 0.0]).unwrap();
        assert!((value - 2.125 / 2.25).abs() < 1e-15);
    }

    #[test]
    fn lift_by_hand() {
        // 10 cases, mistakes at ranks 0 and 5: the top 20 % holds one of two: (1/2) / (2/10).
        let ranked =
            cases(&(0..10).map(|i| (10.0 - i as f64, f64::from(u8::from(i == 0 || i == 5)), i)).collect::<Vec<_>>());
        assert!((ranked.whole().lift(0.2).unwrap() - 2.5).abs() < 1e-12);
        assert!((ranked.whole().lift(0.1).unwrap() - 5.0).abs() < 1e-12);
        // Equal scores everywhere: the cut says nothing, lift is 1.
        let flat = cases(&(0..10).map(|i| (0.0, f64::from(i % 2), 0)).collect::<Vec<_>>());
        assert!((flat.whole().lift(0.1).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(cases(&[(1.0, 0.0, 0)]).whole().lift(0.1), None);
    }

    #[test]
    fn bootstrap_over_clusters_is_wider_than_over_cases() {
        // 20 prompts of 10 identical cases each: only 20 independent observations.
        let mut stream = Key::new(9, "auroc").stream();
        let mut clustered = Vec::new();
        for cluster in 0..20 {
            let (score, positive) = (stream.normal(), f64::from((stream.below(2)) as u8));
            clustered.extend([(score, positive, cluster); 10]);
        }
        let single: Vec<_> = clustered.iter().enumerate().map(|(i, (s, p, _))| (*s, *p, i)).collect();
        let width = |rows: &[(f64, f64, usize)]| {
            let [interval] = cases(rows).bootstrap(500, Key::new(9, "b"), |tally| [tally.auroc()]);
            let interval = interval.unwrap();
            interval.high - interval.low
        };
        assert!(width(&clustered) > 2.0 * width(&single));
    }

    proptest! {
        #[test]
        fn equals_brute_force(rows in prop::collection::vec((0u8..6, 0u8..3), 1..30)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
            let targets: Vec<f64> = rows.iter().map(|r| f64::from(r.1) / 2.0).collect();
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (s, p) in scores.iter().zip(&targets) {
                for (t, q) in scores.iter().zip(&targets) {
                    let weight = p * (1.0 - q);
                    pairs += weight;
                    wins += weight * if s > t { 1.0 } else if s == t { 0.5 } else { 0.0 };
                }
            }
            match auroc_weighted(&scores, &targets) {
                Some(value) => prop_assert!((value - wins / pairs).abs() < 1e-12),
                None => prop_assert_eq!(pairs, 0.0),
            }
        }

        #[test]
        fn integer_weights_equal_repeated_cases(
            rows in prop::collection::vec((0u8..6, any::<bool>(), 0u32..3), 1..20),
        ) {
            let row = |i: usize| (f64::from(rows[i].0), f64::from(u8::from(rows[i].1)), i);
            let weights: Vec<f64> = rows.iter().map(|r| f64::from(r.2)).collect();
            let all: Vec<_> = (0..rows.len()).map(row).collect();
            let repeated: Vec<_> = (0..rows.len())
                .flat_map(|i| std::iter::repeat_n(row(i), rows[i].2 as usize))
                .collect();
            let expected = if repeated.is_empty() {
                None
            } else {
                cases(&repeated).whole().auroc()
            };
            prop_assert_eq!(cases(&all).tally(&weights).auroc(), expected);
        }
    }
}
