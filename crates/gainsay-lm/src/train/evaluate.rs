//! How well a reward model orders pairs that it has not seen.

use std::collections::BTreeMap;

use gainsay_core::stats::{Calibration, Interval, calibration, wilson};
use serde::{Deserialize, Serialize};

use super::items::TrainItem;
use super::label::{Label, PairLabel};
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
    /// Mean loss of a pair or ranking.
    pub loss: f64,
    /// Comparisons of two, ties included.
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

/// Rewards of all sides of each item.
///
/// # Errors
/// What a device reports.
pub(crate) fn rewards(
    model: &Model,
    head: &[f32],
    items: &[&TrainItem],
    batch_tokens: usize,
) -> Result<Vec<Vec<f64>>, LmError> {
    let lengths: Vec<usize> = items.iter().map(|p| p.rows()).collect();
    let mut out = Vec::with_capacity(items.len());
    for range in micro_batches(&lengths, batch_tokens) {
        let items = &items[range];
        let packed = pack(items);
        let hidden = model.rows(&packed, None)?;
        let values = packed.last_rows().into_iter().map(|row| head_product(hidden.row(row), head));
        out.extend(by_item(items, values));
    }
    Ok(out)
}

/// Values of all sides, item by item.
pub(crate) fn by_item(items: &[&TrainItem], mut values: impl Iterator<Item = f64>) -> Vec<Vec<f64>> {
    items.iter().map(|item| values.by_ref().take(item.sides.len()).collect()).collect()
}

/// All sides of each item, one after the other, their prompt once.
pub(crate) fn pack(items: &[&TrainItem]) -> Packed {
    Packed::sharing(items.iter().flat_map(|item| &item.sides))
}

/// Every two sides that are compared, with their rewards.
pub(crate) fn comparisons(labels: &[Label], rewards: &[Vec<f64>]) -> (Vec<PairLabel>, Vec<(f64, f64)>) {
    labels.iter().zip(rewards).flat_map(|(label, rewards)| label.comparisons(rewards)).unzip()
}

/// Figures of rewards against labels; `None` without any. The loss, a mean over pairs and rankings,
/// has the centering term; accuracy and number are of all comparisons of two.
pub(crate) fn figures(labels: &[Label], rewards: &[Vec<f64>], center: f64) -> Option<Heldout> {
    if labels.is_empty() {
        return None;
    }
    let losses = labels.iter().zip(rewards).map(|(label, r)| label.loss(r, center).loss);
    let loss = losses.sum::<f64>() / labels.len() as f64;
    let (pairs, values) = comparisons(labels, rewards);
    Some(Heldout { accuracy: pair_accuracy(&pairs, &values), loss, pairs: pairs.len() })
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
pub(crate) fn calibrated(labels: &[Label], rewards: &[Vec<f64>]) -> Option<Calibration> {
    let (labels, rewards) = comparisons(labels, rewards);
    let ordered = labels.iter().zip(&rewards).filter(|(l, _)| l.p != 0.5);
    let cases: Vec<(f64, f64)> = ordered.map(|(l, r)| (sigmoid(r.0 - r.1), l.p)).collect();
    calibration(&cases, BINS)
}

/// Bins of a reliability diagram.
const BINS: usize = 10;

/// Accuracy by every slice that has at least one pair with an order.
pub(crate) fn slices(items: &[&TrainItem], rewards: &[Vec<f64>]) -> Vec<Slice> {
    let mut parts: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        for (by, part) in item.slices() {
            parts.entry((by, part)).or_default().push(i);
        }
    }
    let slice = |((by, part), members): ((&str, String), Vec<usize>)| {
        let of = |i: usize| items[i].label.comparisons(&rewards[i]);
        let (labels, rewards): (Vec<_>, Vec<_>) = members.into_iter().flat_map(of).unzip();
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
        let figures = figures(&[labels[3].into()], &[vec![1.0, 1.0]], 0.0).unwrap();
        assert!((figures.loss - 2f64.ln()).abs() < 1e-12 && figures.accuracy.is_none());
    }
}
