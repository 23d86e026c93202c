//! Heads fitted to items, or the reason why not.

use gainsay_core::rng::Key;

use crate::error::LmError;
use crate::model::Mat;
use crate::reward::head_product;
use crate::sequence::Sequence;
use crate::train::head_fit::{HeadFit, HeadFitOptions, fit_head};
use crate::train::items::TrainItem;
use crate::train::label::Label;

/// [`fit_head`] on the rows of `items`, whose labels are `labels`. `what` names the head in
/// messages; one that did not reach its optimum is told on stderr.
///
/// # Errors
/// A feature, objective or head that is not finite, naming the item.
pub(in crate::train) fn fitted(
    features: &[f32],
    width: usize,
    items: &[&TrainItem],
    labels: &[Label],
    options: &HeadFitOptions,
    what: &str,
) -> Result<HeadFit, LmError> {
    let rows = |at: usize, n: usize| &features[at * width..(at + n) * width];
    let mut at = 0;
    for item in items {
        let own = rows(at, item.sides.len());
        if let Some(bad) = own.iter().position(|x| !x.is_finite()) {
            return Err(LmError::Run(format!(
                "{what}: a feature of item {}, answer {}, is {}; look at its text, or compute in f32",
                item.id,
                bad / width + 1,
                own[bad]
            )));
        }
        at += item.sides.len();
    }
    let fit = fit_head(features, width, labels, options);
    if !(fit.objective.is_finite() && fit.head.iter().all(|w| w.is_finite())) {
        // The head is 0, or what it was before the loss went beyond all numbers.
        let (mut at, mut worst) = (0, (f64::NEG_INFINITY, ""));
        for (item, label) in items.iter().zip(labels) {
            let own = rows(at, item.sides.len()).chunks_exact(width.max(1));
            let rewards: Vec<f64> = own.map(|row| head_product(row, &fit.head)).collect();
            let loss = label.loss(&rewards, options.center).loss;
            let loss = if loss.is_finite() { loss } else { f64::INFINITY };
            if loss > worst.0 {
                worst = (loss, &item.id);
            }
            at += item.sides.len();
        }
        return Err(LmError::Run(format!(
            "{what}: the fit's loss is not finite; item {} has the largest, {:.1e}: look at its margin and weight, \
             or raise l2 (now {:.1e})",
            worst.1, worst.0, options.l2
        )));
    }
    if !fit.converged {
        eprintln!(
            "warning: {what} is short of its optimum after {} iterations (objective {:.6}); raise l2 (now {:.1e})",
            fit.iterations, fit.objective, options.l2
        );
    }
    Ok(fit)
}

/// Heads fitted to as many bootstrap samples: prompts drawn with replacement, a prompt's items
/// together. `features` holds the rows of all sides.
///
/// An item of a prompt that was drawn c times has its weight times c m / sum c, with m items drawn
/// at least once and the sum over these: [`fit_head`] divides by m, so that the mean is over what
/// was drawn, and the penalty weighs as much as it does for a head on all items.
///
/// # Errors
/// As the fit of a head on all items.
pub fn bootstrap_heads(
    features: &Mat,
    items: &[&TrainItem],
    heads: usize,
    options: &HeadFitOptions,
    seed: u64,
) -> Result<Vec<Vec<f32>>, LmError> {
    let prompt = |item: &'_ TrainItem| item.sides.first().map(Sequence::prompt).unwrap_or_default().to_vec();
    let mut prompts: Vec<Vec<u32>> = items.iter().map(|item| prompt(item)).collect();
    prompts.sort_unstable();
    prompts.dedup();
    let fit_one = |head: usize| {
        let mut stream = Key::new(seed, "ensemble").completion(head).stream();
        let mut drawn = vec![0usize; prompts.len()];
        (0..prompts.len()).for_each(|_| drawn[stream.index(prompts.len())] += 1);
        let (mut rows, mut sample) = (Vec::new(), Vec::new());
        let mut rest = features.data.as_slice();
        for item in items {
            let (own, more) = rest.split_at(item.sides.len() * features.cols);
            rest = more;
            let times = prompts.binary_search(&prompt(item)).map_or(0, |p| drawn[p]);
            if times > 0 {
                rows.extend_from_slice(own);
                sample.push((*item, times as f64));
            }
        }
        let mean = sample.iter().map(|(_, times)| times).sum::<f64>() / sample.len() as f64;
        let (items, labels): (Vec<&TrainItem>, Vec<Label>) =
            sample.iter().map(|(item, times)| (*item, item.label.weighed(times / mean))).unzip();
        let what = format!("head {} of the ensemble", head + 1);
        Ok(fitted(&rows, features.cols, &items, &labels, options, &what)?.head)
    };
    (0..heads).map(fit_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::label::PairLabel;

    fn item(i: usize, margin: f64) -> TrainItem {
        let side = || Sequence { tokens: vec![i as u32, 1], prompt_len: 1, truncated: false };
        TrainItem {
            id: format!("pair-{i}"),
            sides: vec![side(), side()],
            label: PairLabel { weight: 8.0, ..PairLabel::new(1.0, margin) }.into(),
            topic: None,
            source: None,
            heldout: false,
        }
    }

    fn labels(items: &[TrainItem]) -> Vec<Label> {
        items.iter().map(|i| i.label.clone()).collect()
    }

    #[test]
    fn heads_of_a_bootstrap_are_penalized_as_much_as_the_head_on_all() {
        // Every prompt tells the same: so does any sample of them.
        let items: Vec<TrainItem> = (0..40).map(|i| item(i, 0.0)).collect();
        let all: Vec<&TrainItem> = items.iter().collect();
        let features = Mat { rows: 80, cols: 2, data: [1.0, 3.0, 0.5, -1.0].repeat(40) };
        let options = HeadFitOptions::default();
        let whole = fit_head(&features.data, 2, &labels(&items), &options).head;
        for head in bootstrap_heads(&features, &all, 4, &options, 7).unwrap() {
            for (a, b) in head.iter().zip(&whole) {
                assert!((a - b).abs() < 1e-5, "{head:?} {whole:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_named() {
        let items: Vec<TrainItem> = (0..4).map(|i| item(i, if i == 2 { f64::MAX } else { 0.0 })).collect();
        let all: Vec<&TrainItem> = items.iter().collect();
        let mut features = [1.0, 0.0].repeat(4);
        let options = HeadFitOptions::default();
        let fit = |features: &[f32]| fitted(features, 1, &all, &labels(&items), &options, "the head").unwrap_err();
        let text = fit(&features).to_string();
        assert!(text.contains("item pair-2") && text.contains("margin"), "{text}");
        features[3] = f32::INFINITY;
        let text = fit(&features).to_string();
        assert!(text.contains("the head: a feature of item pair-1, answer 2, is inf"), "{text}");
    }
}
