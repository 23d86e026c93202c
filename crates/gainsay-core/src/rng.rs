//! Keyed random numbers. The key of every draw is (run seed, purpose, round, step, prompt id,
//! completion index, position): never batch order, thread or time. Two runs with the same keys
//! draw the same numbers, whatever else they do, so work can be cut, killed, resumed and
//! reordered.
//!
//! A [`Key`] is hashed with BLAKE3 over an unambiguous encoding (every field tagged, every
//! string length-prefixed); the 32-byte hash seeds ChaCha8 (Bernstein 2008), whose counter gives
//! both a sequential [`Stream`] and random access by token ([`Key::at`]).
//!
//! ```
//! use gainsay_core::rng::Key;
//! let key = Key::new(7, "rollout").round(2).prompt("p-1").completion(3);
//! let mut stream = key.stream();
//! assert_eq!(stream.next_u64(), key.at(0));
//! assert_eq!(stream.next_u64(), key.at(1));
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Part of every hash: changing the encoding or the generator changes this name.
const ENCODING: &[u8] = b"gainsay-rng-1";

/// What a random number is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    seed: u64,
    purpose: &'a str,
    round: u32,
    step: u32,
    prompt: Option<&'a str>,
    completion: Option<u64>,
}

impl<'a> Key<'a> {
    /// The key of a run's draws for one purpose, round 0, step 0.
    pub fn new(run_seed: u64, purpose: &'a str) -> Self {
        Self { seed: run_seed, purpose, round: 0, step: 0, prompt: None, completion: None }
    }

    /// The same key in round `round` of the loop.
    #[must_use]
    pub fn round(self, round: u32) -> Self {
        Self { round, ..self }
    }

    /// The same key at training step `step`.
    #[must_use]
    pub fn step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// The same key for the prompt (or pair) with this id.
    #[must_use]
    pub fn prompt(self, id: &'a str) -> Self {
        Self { prompt: Some(id), ..self }
    }

    /// The same key for the completion with this index.
    #[must_use]
    pub fn completion(self, index: usize) -> Self {
        Self { completion: Some(index as u64), ..self }
    }

    /// BLAKE3 of the key's encoding. Fields come in a fixed order; strings carry their length
    /// and optional fields a tag, so that no two keys share an encoding.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(ENCODING);
        hasher.update(&self.seed.to_le_bytes());
        hash_text(&mut hasher, self.purpose);
        hasher.update(&self.round.to_le_bytes());
        hasher.update(&self.step.to_le_bytes());
        match self.prompt {
            None => hasher.update(&[0]),
            Some(id) => hash_text(hasher.update(&[1]), id),
        };
        match self.completion {
            None => hasher.update(&[0]),
            Some(index) => hasher.update(&[1]).update(&index.to_le_bytes()),
        };
        *hasher.finalize().as_bytes()
    }

    /// The key's numbers in sequence.
    pub fn stream(&self) -> Stream {
        Stream { rng: ChaCha8Rng::from_seed(self.digest()) }
    }

    /// The `position`-th 64-bit number of [`Key::stream`], without drawing those before it.
    pub fn at(&self, position: u64) -> u64 {
        self.stream().at(position)
    }

    /// [`Key::at`] as a uniform number in [0, 1).
    pub fn uniform_at(&self, position: u64) -> f64 {
        unit(self.at(position))
    }
}

fn hash_text<'h>(hasher: &'h mut blake3::Hasher, text: &str) -> &'h mut blake3::Hasher {
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes())
}

/// The top 53 bits as a multiple of 2^-53 in [0, 1).
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// The numbers of one [`Key`], in sequence.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Jumps to `position` and draws its number: the same as drawing `position + 1` numbers
    /// from the start and keeping the last.
    pub fn at(&mut self, position: u64) -> u64 {
        self.rng.set_word_pos(2 * u128::from(position));
        self.rng.next_u64()
    }

    /// [`Stream::at`] as a uniform number in [0, 1): one inverse-CDF draw per token.
    pub fn uniform_at(&mut self, position: u64) -> f64 {
        unit(self.at(position))
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// Standard normal (Box and Muller 1958, the cosine branch; two draws a number).
    pub fn normal(&mut self) -> f64 {
        // 1 - u lies in (0, 1]: the logarithm stays finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Uniform in 0..n without bias (Lemire, "Fast random integer generation in an interval",
    /// 2019); 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// [`Stream::below`] for indices.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A uniformly random order (Fisher and Yates, from the back).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// `min(k, n)` different numbers of 0..n, uniform over the subsets, in ascending order
    /// (Floyd's algorithm: k draws, however large n is).
    pub fn choose(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut chosen = std::collections::BTreeSet::new();
        for top in n - k.min(n)..n {
            let pick = self.index(top + 1);
            if !chosen.insert(pick) {
                chosen.insert(top);
            }
        }
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_never_change() {
        // Frozen: a change here changes every seeded result that users have.
        assert_eq!(hex(&Key::new(0, "").digest()), "e1eb3c9379dcac37bf97c3b6a60d525e889feb06f07215213d3a3e68d3504bf0");
        let key = Key::new(7, "rollout").round(2).step(5).prompt("p-1").completion(3);
        assert_eq!(hex(&key.digest()), "67340f94f837a69f8a0f3c2203ce40b7cdb6f8ca29425ee7c1b0e37c863f9b2c");
        // ChaCha8 with that seed, checked against an independent implementation.
        assert_eq!(
            [key.at(0), key.at(1), key.at(1000)],
            [7684674644378596445, 10618977965699710657, 15287674448682770991]
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn random_access_equals_the_sequence() {
        let key = Key::new(1, "t").prompt("x");
        let mut stream = key.stream();
        for position in 0..300 {
            assert_eq!(stream.next_u64(), key.at(position));
        }
        // Jumping back in a used stream gives the same numbers again.
        assert_eq!(stream.at(17), key.at(17));
        assert_eq!(stream.next_u64(), key.at(18));
    }

    #[test]
    fn keys_that_look_alike_differ() {
        let base = Key::new(1, "ab");
        let keys = [
            base,
            Key::new(2, "ab"),
            Key::new(1, "a"),
            base.prompt(""),
            base.prompt("b"),
            Key::new(1, "a").prompt("b"),
            Key::new(1, "a").prompt("bb"),
            base.round(1),
            base.step(1),
            base.completion(0),
            base.completion(1),
            base.prompt("\u{1}").completion(0),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[..i] {
                assert_ne!(a.digest(), b.digest(), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn uniform_has_mean_half_and_variance_a_twelfth() {
        let mut stream = Key::new(3, "uniform").stream();
        let draws: Vec<f64> = (0..100_000).map(|_| stream.uniform()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / 1e5;
        // Five standard errors: 5 * sqrt(1/12/1e5) = 0.0046.
        assert!((mean - 0.5).abs() < 0.0046, "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.0012, "{variance}");
    }

    #[test]
    fn neighboring_keys_are_uncorrelated() {
        let draw = |i: usize| Key::new(3, "c").completion(i).uniform_at(0) - 0.5;
        let products: f64 = (0..20_000).map(|i| draw(i) * draw(i + 1)).sum();
        // Each product has sd 1/12; five standard errors of the mean: 5 / 12 / sqrt(2e4).
        assert!((products / 2e4).abs() < 5.0 / 12.0 / 2e4f64.sqrt());
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut stream = Key::new(3, "normal").stream();
        let draws: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
    }

    #[test]
    fn below_is_uniform() {
        let mut stream = Key::new(3, "below").stream();
        let mut counts = [0f64; 7];
        for _ in 0..70_000 {
            counts[stream.index(7)] += 1.0;
        }
        let chi2: f64 = counts.iter().map(|c| (c - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 30.0, "{chi2}"); // P(chi2 with 6 degrees > 30) < 1e-4
        assert_eq!((stream.below(0), stream.below(1)), (0, 0));
        // Bounds that do not fit a power of two near 2^64 exercise the rejection.
        assert!((0..100).all(|_| stream.below(u64::MAX / 2 + 2) < u64::MAX / 2 + 2));
    }

    #[test]
    fn shuffle_gives_every_order_equally_often() {
        let mut stream = Key::new(3, "shuffle").stream();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            stream.shuffle(&mut items);
            *counts.entry(items).or_insert(0f64) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi2: f64 = counts.values().map(|c| (c - 1e3).powi(2) / 1e3).sum();
        assert!(chi2 < 60.0, "{chi2}"); // 23 degrees: P < 1e-4
    }

    #[test]
    fn choose_gives_every_subset_equally_often() {
        let mut stream = Key::new(3, "choose").stream();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            *counts.entry(stream.choose(6, 3)).or_insert(0f64) += 1.0;
        }
        assert_eq!(counts.len(), 20);
        let chi2: f64 = counts.values().map(|c| (c - 1e3).powi(2) / 1e3).sum();
        assert!(chi2 < 55.0, "{chi2}"); // 19 degrees: P < 1e-4
        assert_eq!(stream.choose(3, 9), [0, 1, 2]);
        assert!(stream.choose(0, 2).is_empty() && stream.choose(5, 0).is_empty());
    }
}
