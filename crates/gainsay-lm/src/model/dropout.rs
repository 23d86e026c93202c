//! LoRA dropout: which inputs of an adapter's first factor a training step does without.

use std::borrow::Cow;

use gainsay_core::rng::Key;

use super::ops::Mat;
use super::packed::Packed;
use super::params::Proj;

/// Inverted dropout as PEFT applies it, on what the first factor reads and nowhere else:
///
/// y = W x + (alpha / rank) B A (m * x) / (1 - p), m_j = 0 with probability p, else 1
///
/// so that the mean over masks is the adapter without dropout. A row's mask depends on its key, the
/// layer and the projection alone; `None` of it changes anything where the batch has no keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropout<'a> {
    /// One key a row; empty outside of training.
    pub keys: &'a [u64],
    /// p, in [0, 1).
    pub rate: f64,
    /// The layer and the projection whose adapter reads the rows.
    pub place: (usize, Proj),
}

impl Dropout<'_> {
    /// m * x / (1 - p); `x` itself without keys.
    pub fn of<'x>(&self, x: &'x Mat) -> Cow<'x, Mat> {
        if self.is_off() {
            return Cow::Borrowed(x);
        }
        let mut dropped = x.clone();
        self.apply(&mut dropped);
        Cow::Owned(dropped)
    }

    /// True where rows stay as they are.
    pub fn is_off(&self) -> bool {
        self.keys.is_empty() || self.rate == 0.0
    }

    /// Multiplies rows by m / (1 - p): the forward pass of the input, the backward pass of its
    /// gradient.
    pub fn apply(&self, rows: &mut Mat) {
        if self.is_off() {
            return;
        }
        let threshold = (self.rate * 2f64.powi(32)) as u32;
        let scale = (1.0 / (1.0 - self.rate)) as f32;
        let place = (self.place.0 * Proj::ALL.len() + self.place.1.index()) as u64;
        for (row, key) in rows.data.chunks_exact_mut(rows.cols.max(1)).zip(self.keys) {
            let mut state = mixed(key ^ mixed(place + 1));
            for pair in row.chunks_mut(2) {
                state = state.wrapping_add(STEP);
                let bits = mixed(state);
                for (value, bits) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                    *value = if bits < threshold { 0.0 } else { *value * scale };
                }
            }
        }
    }
}

/// SplitMix64's increment (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
/// generators").
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function.
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Packed {
    /// Turns on the adapter's dropout. `key` holds run seed, purpose, round and step; a prompt's
    /// rows add its tokens and their positions, a completion's those of the whole sequence. So a
    /// row's mask depends neither on its neighbors nor on whether they share its prompt; equal
    /// sequences of one step have equal masks.
    #[must_use]
    pub fn with_dropout(mut self, key: Key<'_>) -> Self {
        let name = |tokens: &[u32]| tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let mut keys = vec![0; self.tokens.len()];
        for (shared, own) in self.parts() {
            let prompt = name(&self.tokens[shared.clone()]);
            let whole = format!("{prompt}|{}", name(&self.tokens[own.clone()]));
            for (text, rows) in [(prompt, shared), (whole, own)] {
                let mut stream = key.prompt(&text).stream();
                keys[rows].iter_mut().for_each(|row| *row = stream.next_u64());
            }
        }
        self.dropout = keys;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Sequence;

    fn ones(rows: usize, cols: usize) -> Mat {
        Mat { rows, cols, data: vec![1.0; rows * cols] }
    }

    #[test]
    fn a_mask_drops_the_share_that_it_should_and_keeps_the_mean() {
        let keys: Vec<u64> = (0..400).map(|i| Key::new(i, "rows").at(0)).collect();
        for rate in [0.1, 0.5] {
            let dropout = Dropout { keys: &keys, rate, place: (3, Proj::V) };
            let dropped = dropout.of(&ones(400, 99)).into_owned();
            let kept = (1.0 / (1.0 - rate)) as f32;
            assert!(dropped.data.iter().all(|x| *x == 0.0 || *x == kept));
            let n = dropped.data.len() as f64;
            let zeros = dropped.data.iter().filter(|x| **x == 0.0).count() as f64;
            // Five standard errors.
            assert!((zeros / n - rate).abs() < 5.0 * (rate * (1.0 - rate) / n).sqrt(), "{rate}: {}", zeros / n);
        }
    }

    #[test]
    fn masks_differ_between_rows_columns_layers_and_projections() {
        let keys = [1u64, 2];
        let of = |place| Dropout { keys: &keys, rate: 0.5, place }.of(&ones(2, 64)).into_owned();
        let all = [of((0, Proj::Q)), of((0, Proj::V)), of((1, Proj::Q))];
        for (i, a) in all.iter().enumerate() {
            assert_ne!(a.row(0), a.row(1));
            assert!(all[..i].iter().all(|b| a != b));
            // Neighboring columns agree about half of the time.
            let same = a.data.windows(2).filter(|w| w[0] == w[1]).count();
            assert!((40..88).contains(&same), "{same} of 127");
        }
        assert_eq!(all[0], of((0, Proj::Q)));
    }

    #[test]
    fn keys_depend_on_the_sequence_and_the_step_alone() {
        let sequence = |prompt: &[u32], completion: &[u32]| Sequence {
            tokens: [prompt, completion].concat(),
            prompt_len: prompt.len(),
            truncated: false,
        };
        let (a, b, c) = (sequence(&[1, 2], &[3, 4]), sequence(&[1, 2], &[5]), sequence(&[9], &[3, 4]));
        let key = Key::new(0, "dropout");
        let alone = Packed::sharing([&b]).with_dropout(key).dropout;
        let shared = Packed::sharing([&c, &a, &b]).with_dropout(key).dropout;
        // Rows: c's 9 3 4, then 1 2, then 3 4, then 5.
        assert_eq!((shared[3..5].to_vec(), shared[7]), (alone[..2].to_vec(), alone[2]));
        assert_ne!(shared[1..3], shared[5..7], "the same words of another sequence");
        assert_ne!(alone, Packed::sharing([&b]).with_dropout(key.step(1)).dropout);
    }
}
