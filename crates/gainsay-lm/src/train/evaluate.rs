//! How well a reward model orders pairs that it has not seen.

use std::collections::BTreeMap;

use gainsay_core::stats::{Calibration, Interval, calibration, wilson};
use serde::{Deserialize, Serialize};

use super::head_fit::PairLabel;
use super::pairs::TrainPair;
use crate::error::LmError;
use crate::loss::sigmoid;
use crate::model::{Model, Packed};
use crate::reward::head_product;
use crate::sequence::micro_batches;

/// Held-out figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heldout {
    /// Share of pairs in the right order, with Wilson's 95 % interval; `None` where every pair is
    /// a tie.
    pub accuracy: Option<Interval>,
    /// Mean pair loss.
    pub loss: f64,
    /// Pairs, ties included.
    pub pairs: usize,
}

/// Share of the pairs whose rewards are in the order of their labels: right counts 1, equal
/// rewards 1/2. Pairs with p = 1/2 have no order and are left out; `None` without others.
pub fn pair_accuracy(labels: &[PairLabel], rewards: &[(f64, f64)]) -> Option<Interval> {
    let mut right = 0.0;
    let mut n = 0;
    for (label, (first, second)) in labels.iter().zip(rewards) {
        if label.p == 0.5 {
            continue;
        }
        n += 1;
        let agreement = (first - second) * (label.p - 0.5);
        right += if agreement > 0.0 { 1.0 } else { 0.5 * f64::from(u8::from(agreement == 0.0)) };
    }
    wilson(right, n)
}

/// Rewards of both sides of each pair.
///
/// # Errors
/// What a device reports.
pub(crate) fn rewards(
    model: &Model,
    head: &[f32],
    pairs: &[&TrainPair],
    batch_tokens: usize,
) -> Result<Vec<(f64, f64)>, LmError> {
    let lengths: Vec<usize> = pairs.iter().map(|p| p.rows()).collect();
    let mut out = Vec::with_capacity(pairs.len());
    for range in micro_batches(&lengths, batch_tokens) {
        let packed = pack(&pairs[range]);
        let hidden = model.rows(&packed, None)?;
        let values: Vec<f64> = packed.last_rows().iter().map(|&row| head_product(hidden.row(row), head)).collect();
        out.extend(values.chunks_exact(2).map(|pair| (pair[0], pair[1])));
    }
    Ok(out)
}

/// Both sides of each pair, one after the other, their prompt once.
pub(crate) fn pack(pairs: &[&TrainPair]) -> Packed {
    Packed::sharing(pairs.iter().flat_map(|p| [&p.first, &p.second]))
}

/// Figures of rewards against labels; `None` without pairs. The loss has the centering term.
pub(crate) fn figures(labels: &[PairLabel], rewards: &[(f64, f64)], center: f64) -> Option<Heldout> {
    if labels.is_empty() {
        return None;
    }
    let losses = labels.iter().zip(rewards).map(|(l, r)| l.loss(r.0, r.1, center).loss);
    Some(Heldout {
        accuracy: pair_accuracy(labels, rewards),
        loss: losses.sum::<f64>() / labels.len() as f64,
        pairs: labels.len(),
    })
}

/// Accuracy on a part of the pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// What the parts are by: `topic`, `source` or `length`.
    pub by: String,
    /// Which part.
    pub part: String,
    /// Share in the right order, with Wilson's 95 % interval.
    pub accuracy: Interval,
}

/// Calibration of s(r1 - r2) as the probability that the first is better; ties are left out.
pub(crate) fn calibrated(labels: &[PairLabel], rewards: &[(f64, f64)]) -> Option<Calibration> {
    let ordered = labels.iter().zip(rewards).filter(|(l, _)| l.p != 0.5);
    let cases: Vec<(f64, f64)> = ordered.map(|(l, r)| (sigmoid(r.0 - r.1), l.p)).collect();
    calibration(&cases, BINS)
}

/// Bins of a reliability diagram.
const BINS: usize = 10;

/// Accuracy by every slice that has at least one pair with an order.
pub(crate) fn slices(pairs: &[&TrainPair], rewards: &[(f64, f64)]) -> Vec<Slice> {
    let mut parts: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
    for (i, pair) in pairs.iter().enumerate() {
        for (by, part) in pair.slices() {
            parts.entry((by, part)).or_default().push(i);
        }
    }
    let slice = |((by, part), members): ((&str, String), Vec<usize>)| {
        let (labels, rewards): (Vec<_>, Vec<_>) = members.into_iter().map(|i| (pairs[i].label, rewards[i])).unzip();
        Some(Slice { by: by.into(), part, accuracy: pair_accuracy(&labels, &rewards)? })
    };
    parts.into_iter().filter_map(slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_by_hand() {
        let label = |p| PairLabel::new(p, 0.0);
        let labels = [label(1.0), label(0.0), label(0.8), label(0.5), label(0.3)];
        // Right, wrong, equal rewards (1/2), a tie (left out), right: 2.5 of 4.
        let rewards = [(2.0, 1.0), (2.0, 1.0), (1.0, 1.0), (5.0, 0.0), (0.0, 3.0)];
        let accuracy = pair_accuracy(&labels, &rewards).unwrap();
        assert_eq!((accuracy.estimate, accuracy.n), (0.625, 4));
        assert_eq!(pair_accuracy(&labels[3..4], &rewards[3..4]), None);
        let figures = figures(&labels[3..4], &[(1.0, 1.0)], 0.0).unwrap();
        assert!((figures.loss - 2f64.ln()).abs() < 1e-12 && figures.accuracy.is_none());
    }
}
