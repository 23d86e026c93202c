//! Agreement of two rankings of the same items: Kendall's tau distance with ties and tau-b.

/// How the N (N - 1) / 2 pairs of items stand in two rankings a and b.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Ordered the same way by both.
    pub concordant: u64,
    /// Ordered one way by a and the other way by b.
    pub discordant: u64,
    /// Tied in a only.
    pub tied_a: u64,
    /// Tied in b only.
    pub tied_b: u64,
    /// Tied in both.
    pub tied_both: u64,
}

impl PairCounts {
    /// Number of pairs, N (N - 1) / 2.
    pub fn pairs(&self) -> u64 {
        self.concordant + self.discordant + self.tied_a + self.tied_b + self.tied_both
    }

    /// K = (discordant + 1/2 tied in exactly one ranking) / pairs, in [0, 1] (Fagin et al. 2004,
    /// K^(p) with p = 1/2; a pair tied in both counts 0). 0: same order, 1: reversed order,
    /// 1/2: chance. `None` without pairs.
    pub fn distance(&self) -> Option<f64> {
        let ties = 0.5 * (self.tied_a + self.tied_b) as f64;
        let pairs = self.pairs();
        (pairs > 0).then(|| (self.discordant as f64 + ties) / pairs as f64)
    }

    /// tau-b = (C - D) / sqrt((pairs untied in a) (pairs untied in b)), in [-1, 1] (Kendall
    /// 1945). `None` when a ranking is constant.
    pub fn tau_b(&self) -> Option<f64> {
        let ordered = self.concordant + self.discordant;
        let (untied_a, untied_b) = (ordered + self.tied_b, ordered + self.tied_a);
        let difference = self.concordant as f64 - self.discordant as f64;
        (untied_a > 0 && untied_b > 0).then(|| difference / (untied_a as f64 * untied_b as f64).sqrt())
    }
}

/// Kendall tau distance of two rankings given as values, [`PairCounts::distance`], in
/// O(N log N). Symmetric; only the order of the values matters.
///
/// `None` when the lengths differ, N < 2 or a value is not finite.
pub fn kendall_tau_distance(a: &[f64], b: &[f64]) -> Option<f64> {
    checked_counts(a, b)?.distance()
}

/// Kendall's tau-b, [`PairCounts::tau_b`], in O(N log N).
///
/// `None` when the lengths differ, N < 2, a value is not finite or a ranking is constant.
pub fn tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    checked_counts(a, b)?.tau_b()
}

fn checked_counts(a: &[f64], b: &[f64]) -> Option<PairCounts> {
    let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
    (a.len() == b.len() && finite(a) && finite(b)).then(|| pair_counts(a, b))
}

/// Up to this many items all pairs are compared, without branches or memory: faster than
/// sorting.
const BRUTE_FORCE: usize = 48;

/// Counts the pairs of two rankings of finite values and equal length.
///
/// # Panics
/// When the lengths differ.
pub fn pair_counts(a: &[f64], b: &[f64]) -> PairCounts {
    assert_eq!(a.len(), b.len(), "two rankings of the same items");
    // The usual group size gets a loop of known length, which the compiler unrolls.
    if let (Ok(a), Ok(b)) = (<&[f64; 8]>::try_from(a), <&[f64; 8]>::try_from(b)) {
        return counts_of_eight(a, b);
    }
    if a.len() <= BRUTE_FORCE { counts_by_pairs(a, b) } else { counts_by_sorting(a, b) }
}

/// All 64 ordered pairs: every pair that a does not tie shows up once with a[i] < a[j].
fn counts_of_eight(a: &[f64; 8], b: &[f64; 8]) -> PairCounts {
    let mut sums = [[0u64; 8]; 4];
    for i in 0..8 {
        for j in 0..8 {
            let (below_a, below_b) = (a[i] < a[j], b[i] < b[j]);
            sums[0][j] += u64::from(below_a);
            sums[1][j] += u64::from(below_b);
            sums[2][j] += u64::from(below_a & below_b);
            sums[3][j] += u64::from(below_a & (b[i] > b[j]));
        }
    }
    let [untied_a, untied_b, concordant, discordant] = sums.map(|lane| lane.iter().sum::<u64>());
    from_untied(28, untied_a, untied_b, concordant, discordant)
}

fn counts_by_pairs(a: &[f64], b: &[f64]) -> PairCounts {
    let (mut untied_a, mut untied_b, mut concordant, mut discordant) = (0, 0, 0, 0);
    for i in 1..a.len() {
        for j in 0..i {
            let (up_a, down_a) = (a[i] > a[j], a[i] < a[j]);
            let (up_b, down_b) = (b[i] > b[j], b[i] < b[j]);
            untied_a += u64::from(up_a | down_a);
            untied_b += u64::from(up_b | down_b);
            concordant += u64::from((up_a & up_b) | (down_a & down_b));
            discordant += u64::from((up_a & down_b) | (down_a & up_b));
        }
    }
    from_untied(pairs_of(a.len()), untied_a, untied_b, concordant, discordant)
}

/// Knight 1966: sort by a (ties by b); what is then out of order in b is discordant, and a
/// merge sort counts it.
fn counts_by_sorting(a: &[f64], b: &[f64]) -> PairCounts {
    // Adding 0 turns -0 into 0: one value, but two places in the total order.
    let mut order: Vec<(f64, f64)> = a.iter().zip(b).map(|(x, y)| (x + 0.0, y + 0.0)).collect();
    order.sort_unstable_by(|x, y| x.0.total_cmp(&y.0).then(x.1.total_cmp(&y.1)));
    let ties_a = tied_pairs(&order, |x, y| x.0 == y.0);
    let ties_both = tied_pairs(&order, |x, y| x == y);
    let mut values: Vec<f64> = order.iter().map(|(_, b)| *b).collect();
    let discordant = inversions(&mut values);
    let ties_b = tied_pairs(&values, |x, y| x == y);
    let pairs = pairs_of(a.len());
    PairCounts {
        concordant: pairs + ties_both - ties_a - ties_b - discordant,
        discordant,
        tied_a: ties_a - ties_both,
        tied_b: ties_b - ties_both,
        tied_both: ties_both,
    }
}

fn from_untied(pairs: u64, untied_a: u64, untied_b: u64, concordant: u64, discordant: u64) -> PairCounts {
    let ordered = concordant + discordant;
    PairCounts {
        concordant,
        discordant,
        tied_a: untied_b - ordered,
        tied_b: untied_a - ordered,
        tied_both: pairs + ordered - untied_a - untied_b,
    }
}

fn pairs_of(n: usize) -> u64 {
    (n as u64) * (n as u64).saturating_sub(1) / 2
}

/// Pairs inside runs of equal neighbors.
fn tied_pairs<T>(sorted: &[T], same: impl Fn(&T, &T) -> bool) -> u64 {
    sorted.chunk_by(same).map(|run| pairs_of(run.len())).sum()
}

/// Number of pairs i < j with values[i] > values[j]; sorts the values (bottom-up merge sort).
fn inversions(values: &mut Vec<f64>) -> u64 {
    let n = values.len();
    let mut buffer = Vec::with_capacity(n);
    let mut count = 0;
    let mut width = 1;
    while width < n {
        buffer.clear();
        for start in (0..n).step_by(2 * width) {
            let middle = (start + width).min(n);
            let end = (start + 2 * width).min(n);
            let (mut left, mut right) = (start, middle);
            while left < middle || right < end {
                if right < end && (left == middle || values[right] < values[left]) {
                    count += (middle - left) as u64;
                    buffer.push(values[right]);
                    right += 1;
                } else {
                    buffer.push(values[left]);
                    left += 1;
                }
            }
        }
        std::mem::swap(values, &mut buffer);
        width *= 2;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        // a = 1 2 3 4, b = 1 3 2 2. Pairs: (1,2) (1,3) (1,4) concordant; (2,3) (2,4) discordant;
        // (3,4) tied in b only. K = (2 + 1/2) / 6; tau-b = (3 - 2) / sqrt(6 * 5).
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 2.0]);
        let counts = pair_counts(&a, &b);
        assert_eq!((counts.concordant, counts.discordant, counts.tied_b), (3, 2, 1));
        assert_eq!(kendall_tau_distance(&a, &b), Some(2.5 / 6.0));
        assert!((tau_b(&a, &b).unwrap() - 1.0 / 30f64.sqrt()).abs() < 1e-15);
        // Everything tied in one ranking: K is 1/2, tau-b undefined; in both: K is 0.
        assert_eq!(kendall_tau_distance(&a, &[0.0; 4]), Some(0.5));
        assert_eq!(tau_b(&a, &[0.0; 4]), None);
        assert_eq!(kendall_tau_distance(&[0.0; 4], &[-0.0; 4]), Some(0.0));
    }

    #[test]
    fn degenerate_inputs() {
        assert_eq!(kendall_tau_distance(&[1.0], &[2.0]), None);
        assert_eq!(kendall_tau_distance(&[], &[]), None);
        assert_eq!(kendall_tau_distance(&[1.0, f64::NAN], &[2.0, 1.0]), None);
        assert_eq!(kendall_tau_distance(&[1.0, 2.0], &[2.0]), None);
        assert_eq!(tau_b(&[1.0, f64::INFINITY], &[2.0, 1.0]), None);
    }

    /// Two rankings of 0 to 40 items with many ties.
    fn rankings() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let value = || (-4i8..4).prop_map(|v| f64::from(v) * -0.5);
        prop::collection::vec((value(), value()), 0..80).prop_map(|v| v.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn the_three_ways_agree((a, b) in rankings()) {
            let expected = counts_by_pairs(&a, &b);
            prop_assert_eq!(counts_by_sorting(&a, &b), expected);
            if let (Ok(a), Ok(b)) = (a[..].try_into(), b[..].try_into()) {
                prop_assert_eq!(counts_of_eight(a, b), expected);
            }
            prop_assert_eq!(expected.pairs(), pairs_of(a.len()));
        }

        #[test]
        fn eight_items_agree(items in prop::array::uniform8((0i8..5, 0i8..5))) {
            let (a, b) = (items.map(|i| f64::from(i.0)), items.map(|i| f64::from(i.1)));
            prop_assert_eq!(counts_of_eight(&a, &b), counts_by_pairs(&a, &b));
            prop_assert_eq!(counts_of_eight(&a, &b), counts_by_sorting(&a, &b));
        }

        #[test]
        fn distance_is_a_symmetric_fraction((a, b) in rankings()) {
            if let Some(k) = kendall_tau_distance(&a, &b) {
                prop_assert!((0.0..=1.0).contains(&k));
                prop_assert_eq!(kendall_tau_distance(&b, &a), Some(k));
                prop_assert_eq!(kendall_tau_distance(&a, &a), Some(0.0));
                if let Some(tau) = tau_b(&a, &b) {
                    prop_assert!((-1.0..=1.0).contains(&tau));
                }
            }
        }

        #[test]
        fn reversing_without_ties_complements(
            order in Just((0..30i32).collect::<Vec<_>>()).prop_shuffle(),
            n in 2usize..30,
        ) {
            let a: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let b: Vec<f64> = order[..n].iter().map(|v| f64::from(*v)).collect();
            let reversed: Vec<f64> = b.iter().map(|v| -v).collect();
            let k = kendall_tau_distance(&a, &b).unwrap();
            prop_assert!((kendall_tau_distance(&a, &reversed).unwrap() - (1.0 - k)).abs() < 1e-12);
            // Without ties tau-b = 1 - 2 K.
            prop_assert!((tau_b(&a, &b).unwrap() - (1.0 - 2.0 * k)).abs() < 1e-12);
        }
    }
}
