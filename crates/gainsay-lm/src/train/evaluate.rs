//! How well a reward model orders pairs that it has not seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use gainsay_core::rng::Key;
use gainsay_core::stats::{Calibration, Case, Interval, RESAMPLES, Ranked, calibration, wilson};
use serde::{Deserialize, Serialize};

use super::items::TrainItem;
use super::label::PairLabel;
use crate::error::LmError;
use crate::loss::sigmoid;
use crate::model::{Model, Packed};
use crate::reward::head_product;
use crate::sequence::{Sequence, micro_batches};

/// Held-out figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heldout {
    /// Share of comparisons in the right order ([`order_accuracy`]); `None` where every one is a tie.
    pub accuracy: Option<Interval>,
    /// Mean loss of a pair or ranking.
    pub loss: f64,
    /// Comparisons of two, ties included.
    pub pairs: usize,
}

/// Two answers that were compared, and what a reward model says of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Who should win.
    pub label: PairLabel,
    /// Rewards of the first and the second.
    pub rewards: (f64, f64),
    /// Number of the prompt.
    pub prompt: usize,
}

/// Share of the comparisons whose rewards are in the order of their labels: right counts 1, equal
/// rewards 1/2. Those with p = 1/2 have no order and are left out; `None` without others.
///
/// 95 % interval: Wilson's where every prompt has one comparison, else from resampling prompts,
/// whose comparisons are not independent. The interval's n counts comparisons.
pub fn order_accuracy(comparisons: &[Comparison]) -> Option<Interval> {
    let ordered: Vec<Case> = comparisons.iter().filter(|c| c.label.p != 0.5).map(case).collect();
    let n = ordered.len() as u64;
    let prompts: HashSet<usize> = ordered.iter().map(|case| case.cluster).collect();
    if prompts.len() == ordered.len() {
        return wilson(ordered.iter().map(|case| case.positive).sum(), n);
    }
    let [share] = Ranked::new(ordered)?.bootstrap(RESAMPLES, Key::new(0, "order-accuracy"), |tally| [tally.rate()]);
    share.map(|share| Interval { n, ..share })
}

/// Whether a comparison came out right, with its prompt as the unit that is resampled.
fn case(comparison: &Comparison) -> Case {
    let (first, second) = comparison.rewards;
    let agreement = (first - second) * (comparison.label.p - 0.5);
    let positive = if agreement > 0.0 { 1.0 } else { 0.5 * f64::from(u8::from(agreement == 0.0)) };
    Case { score: 0.0, positive, cluster: comparison.prompt }
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
pub(crate) fn comparisons(items: &[&TrainItem], rewards: &[Vec<f64>]) -> Vec<Comparison> {
    let prompts = prompt_numbers(items);
    let of = |((item, rewards), prompt): ((&&TrainItem, &Vec<f64>), usize)| {
        let compared = item.label.comparisons(rewards).into_iter();
        compared.map(move |(label, rewards)| Comparison { label, rewards, prompt })
    };
    items.iter().zip(rewards).zip(prompts).flat_map(of).collect()
}

/// The number of each item's prompt.
fn prompt_numbers(items: &[&TrainItem]) -> Vec<usize> {
    let mut known: HashMap<&[u32], usize> = HashMap::new();
    let prompts = items.iter().map(|item| item.sides.first().map(Sequence::prompt).unwrap_or_default());
    prompts
        .map(|prompt| {
            let next = known.len();
            *known.entry(prompt).or_insert(next)
        })
        .collect()
}

/// Figures of rewards against labels; `None` without any. The loss, a mean over pairs and rankings,
/// has the centering term; accuracy and number are of all comparisons of two.
pub(crate) fn figures(items: &[&TrainItem], rewards: &[Vec<f64>], center: f64) -> Option<Heldout> {
    if items.is_empty() {
        return None;
    }
    let losses = items.iter().zip(rewards).map(|(item, r)| item.label.loss(r, center).loss);
    let weights: f64 = items.iter().map(|item| item.label.weight()).sum();
    let loss = losses.sum::<f64>() / weights;
    let compared = comparisons(items, rewards);
    Some(Heldout { accuracy: order_accuracy(&compared), loss, pairs: compared.len() })
}

/// Accuracy on a part of the pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// What the parts are by: `topic`, `source` or `length`.
    pub by: String,
    /// Which part.
    pub part: String,
    /// Share in the right order ([`order_accuracy`]).
    pub accuracy: Interval,
}

/// Calibration of s(r1 - r2) as the probability that the first is better; ties are left out.
pub(crate) fn calibrated(items: &[&TrainItem], rewards: &[Vec<f64>]) -> Option<Calibration> {
    let compared = comparisons(items, rewards);
    let ordered = compared.iter().filter(|c| c.label.p != 0.5);
    let cases: Vec<(f64, f64)> = ordered.map(|c| (sigmoid(c.rewards.0 - c.rewards.1), c.label.p)).collect();
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
        let (items, rewards): (Vec<&TrainItem>, Vec<Vec<f64>>) =
            members.into_iter().map(|i| (items[i], rewards[i].clone())).unzip();
        Some(Slice { by: by.into(), part, accuracy: order_accuracy(&comparisons(&items, &rewards))? })
    };
    parts.into_iter().filter_map(slice).collect()
}

#[cfg(test)]
mod tests {
    use gainsay_core::stats::IntervalMethod;

    use super::*;

    fn compared(p: f64, rewards: (f64, f64), prompt: usize) -> Comparison {
        Comparison { label: PairLabel::new(p, 0.0), rewards, prompt }
    }

    #[test]
    fn accuracy_by_hand() {
        // Right, wrong, equal rewards (1/2), a tie (left out), right: 2.5 of 4.
        let cases = [(1.0, (2.0, 1.0)), (0.0, (2.0, 1.0)), (0.8, (1.0, 1.0)), (0.5, (5.0, 0.0)), (0.3, (0.0, 3.0))];
        let cases: Vec<Comparison> = cases.iter().enumerate().map(|(i, (p, r))| compared(*p, *r, i)).collect();
        let accuracy = order_accuracy(&cases).unwrap();
        assert_eq!((accuracy.estimate, accuracy.n, accuracy.method), (0.625, 4, IntervalMethod::Wilson));
        assert_eq!(order_accuracy(&cases[3..4]), None);
    }

    #[test]
    fn comparisons_of_one_prompt_are_one_unit() {
        // Ten prompts, of which every second one is all right, with one or with eight comparisons each.
        let of = |each: usize| -> Vec<Comparison> {
            let one = |i: usize| compared(1.0, (if i.is_multiple_of(2) { 1.0 } else { -1.0 }, 0.0), i);
            (0..10).flat_map(|i| std::iter::repeat_n(one(i), each)).collect()
        };
        let (single, many) = (order_accuracy(&of(1)).unwrap(), order_accuracy(&of(8)).unwrap());
        assert_eq!((many.estimate, many.n, many.method), (0.5, 80, IntervalMethod::Bootstrap));
        // Eighty comparisons that tell no more than ten: the binomial's interval on 80 would be 0.22 wide.
        let width = |i: &Interval| i.high - i.low;
        assert!(width(&many) > 0.9 * width(&single), "{many} {single}");
    }

    #[test]
    fn the_loss_is_a_weighted_mean() {
        let side = |token: u32| Sequence { tokens: vec![7, token], prompt_len: 1, truncated: false };
        let item = |weight: f64| TrainItem {
            id: "a".into(),
            sides: vec![side(1), side(2)],
            label: PairLabel { weight, ..PairLabel::new(0.5, 0.0) }.into(),
            topic: None,
            source: None,
            heldout: true,
        };
        let items = [item(0.5), item(3.0)];
        let figures = figures(&items.iter().collect::<Vec<_>>(), &vec![vec![1.0, 1.0]; 2], 0.0).unwrap();
        assert!((figures.loss - 2f64.ln()).abs() < 1e-12 && figures.accuracy.is_none() && figures.pairs == 2);
    }
}
