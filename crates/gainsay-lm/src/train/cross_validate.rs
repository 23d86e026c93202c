//! How well pairs can be learned from: every pair is judged by a model that has not seen it.

use std::ops::ControlFlow;

use gainsay_core::record::PreferenceRecord;
use gainsay_core::rng::Key;
use gainsay_core::stats::Interval;
use serde::Serialize;

use super::evaluate::{pair_accuracy, rewards};
use super::head_fit::{HeadFitOptions, PairLabel, fit_head};
use super::pairs::{TrainPair, prepare_pairs};
use super::reward_model::{RewardCompany, RewardMethod, RewardTrainOptions, tell, train_reward};
use super::{PairCounts, TrainEvent};
use crate::error::LmError;
use crate::features::{Read, read_features};
use crate::model::packed::added_rows;
use crate::model::{Model, Packed};
use crate::policy::{by_sequence, sum};
use crate::reward::head_product;
use crate::sequence::{Encoder, Sequence, micro_batches};
use crate::source::Loaded;

/// Pooled accuracy of models trained on the other folds, beside rules that need no training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrossValidation {
    /// Number of folds.
    pub folds: usize,
    /// What became of the records; none is held out besides its fold.
    pub pairs: PairCounts,
    /// Share of the pairs in the right order, each judged by the model of its fold, with
    /// Wilson's 95 % interval.
    pub accuracy: Option<Interval>,
    /// The same for each fold by itself.
    pub by_fold: Vec<Option<Interval>>,
    /// Rules that need no training.
    pub baselines: Vec<Baseline>,
}

/// A rule that needs no training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// Which completion it takes for the better one.
    pub prefers: &'static str,
    /// Share of the pairs where it is right; equal values count 1/2.
    pub accuracy: Option<Interval>,
}

/// The fold of a prompt, below `folds`: decided by the prompt and the seed, so that all pairs of
/// a prompt are in one fold and adding records moves none.
pub fn fold_of(prompt: &str, folds: usize, seed: u64) -> usize {
    Key::new(seed, "fold").prompt(prompt).stream().index(folds)
}

/// K-fold cross-validation of `options` on the pairs: for each fold a model is trained from
/// `base` on the others and judges this one. With [`RewardMethod::Head`] the features are
/// computed once for all folds. The baselines read lengths and, where `base` can predict tokens,
/// its log-probs.
///
/// # Errors
/// Fewer than 2 folds, a fold without pairs, and what [`train_reward`] reports.
pub fn cross_validate(
    base: &Loaded,
    records: &[PreferenceRecord],
    options: &RewardTrainOptions,
    folds: usize,
    company: &mut RewardCompany<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<CrossValidation, LmError> {
    options.check()?;
    if folds < 2 {
        return Err(LmError::Input(format!("{folds} folds: cross-validation needs at least 2")));
    }
    let config = &base.backbone.config;
    let encoder = Encoder::new(&base.tokenizer, config.vocab_size, config.max_positions, &options.settings);
    let (pairs, counts) = prepare_pairs(records, &encoder, 0.0)?;
    let kept = records.iter().filter(|r| r.answer.is_comparison());
    let of_pair: Vec<usize> = kept.map(|r| fold_of(&r.prompt.display(), folds, options.seed)).collect();
    if let Some(empty) = (0..folds).find(|fold| !of_pair.contains(fold)) {
        return Err(LmError::Input(format!(
            "fold {} of {folds} has none of the {} pairs; take fewer folds or add pairs",
            empty + 1,
            pairs.len()
        )));
    }
    let survey = survey(base, &pairs, options, company, progress)?;
    let labels: Vec<PairLabel> = pairs.iter().map(|p| p.label).collect();
    let mut judged = vec![(0.0, 0.0); pairs.len()];
    for fold in 0..folds {
        let members: Vec<usize> = (0..pairs.len()).filter(|i| of_pair[*i] == fold).collect();
        let values = match options.method {
            RewardMethod::Head => head_rewards(&survey, &labels, &members, options),
            RewardMethod::Lora | RewardMethod::Full => {
                let others = records.iter().filter(|r| fold_of(&r.prompt.display(), folds, options.seed) != fold);
                let others: Vec<PreferenceRecord> = others.cloned().collect();
                let all = RewardTrainOptions { heldout: 0.0, ..options.clone() };
                let (model, _) = train_reward(base.clone(), &others, &all, &mut RewardCompany::default(), progress)?;
                let test: Vec<&TrainPair> = members.iter().map(|i| &pairs[*i]).collect();
                rewards(&model.model, &model.head, &test, options.settings.batch_tokens)?
            }
        };
        members.iter().zip(values).for_each(|(i, value)| judged[*i] = value);
    }
    let in_fold = |fold: usize| {
        let (labels, values): (Vec<_>, Vec<_>) =
            (0..pairs.len()).filter(|i| of_pair[*i] == fold).map(|i| (labels[i], judged[i])).unzip();
        pair_accuracy(&labels, &values)
    };
    Ok(CrossValidation {
        folds,
        pairs: counts,
        accuracy: pair_accuracy(&labels, &judged),
        by_fold: (0..folds).map(in_fold).collect(),
        baselines: baselines(&pairs, &labels, &survey),
    })
}

/// What one pass of the base model over both sides of each pair gives.
struct Survey {
    width: usize,
    /// Last-token features, `[2 pairs, width]`.
    features: Vec<f32>,
    /// Log-prob of each side's completion in nats; empty where the model has no output matrix.
    logps: Vec<f64>,
}

fn survey(
    base: &Loaded,
    pairs: &[TrainPair],
    options: &RewardTrainOptions,
    company: &mut RewardCompany<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<Survey, LmError> {
    let model = Model::new(base.backbone.clone(), base.adapter.clone());
    let config = &base.backbone.config;
    let predicts = base.backbone.lm_head.is_some() || config.tie_embeddings;
    let sides: Vec<Sequence> = pairs.iter().flat_map(|p| [p.first.clone(), p.second.clone()]).collect();
    let width = options.reads.len() * config.hidden_size;
    let mut out = Survey { width, features: Vec::new(), logps: Vec::new() };
    let one_pass = options.reads == [Read::LAST];
    if predicts || one_pass {
        let mut rows = Vec::new();
        for range in micro_batches(&added_rows(&sides), options.settings.batch_tokens) {
            let end = range.end;
            let packed = Packed::sharing(&sides[range.clone()]);
            let hidden = model.rows(&packed, None)?;
            packed.last_rows().into_iter().for_each(|row| rows.extend_from_slice(hidden.row(row)));
            if predicts {
                let (rows, targets) = packed.predictions();
                let logps = by_sequence(&model.logps(&hidden, &rows, &targets, 1.0)?, &sides[range]);
                out.logps.extend(logps.iter().map(|l| sum(l)));
            }
            tell(progress, &TrainEvent::Features { done: end, total: sides.len() })?;
        }
        if one_pass {
            // The training proper finds them there.
            let mut next = rows.chunks_exact(width);
            company.features.open(&base.identity, &options.reads, width)?;
            company.features.put(&sides, |_| next.next().map(<[f32]>::to_vec))?;
            out.features = rows;
            return Ok(out);
        }
    }
    company.features.open(&base.identity, &options.reads, width)?;
    let compute = |new: &[Sequence]| read_features(&model, new, &options.reads, options.settings.batch_tokens);
    out.features = company.features.rows(&sides, width, compute)?.0.data;
    Ok(out)
}

/// Rewards of the pairs `members` by a head that was fitted to the other pairs.
fn head_rewards(
    survey: &Survey,
    labels: &[PairLabel],
    members: &[usize],
    options: &RewardTrainOptions,
) -> Vec<(f64, f64)> {
    let width = survey.width;
    let of = |i: usize| &survey.features[2 * i * width..2 * (i + 1) * width];
    let others: Vec<usize> = (0..labels.len()).filter(|i| members.binary_search(i).is_err()).collect();
    let features: Vec<f32> = others.iter().flat_map(|i| of(*i)).copied().collect();
    let labels: Vec<PairLabel> = others.iter().map(|i| labels[*i]).collect();
    let fit_options = HeadFitOptions { l2: options.l2, center: options.center, ..Default::default() };
    let head = fit_head(&features, width, &labels, &fit_options).head;
    members
        .iter()
        .map(|i| {
            let (first, second) = of(*i).split_at(width);
            (head_product(first, &head), head_product(second, &head))
        })
        .collect()
}

fn baselines(pairs: &[TrainPair], labels: &[PairLabel], survey: &Survey) -> Vec<Baseline> {
    let lengths: Vec<f64> =
        pairs.iter().flat_map(|p| [&p.first, &p.second]).map(|s| s.completion().len() as f64).collect();
    let judge = |prefers: &'static str, values: Vec<f64>| {
        let values: Vec<(f64, f64)> = values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Baseline { prefers, accuracy: pair_accuracy(labels, &values) }
    };
    let mut out = vec![judge("the shorter", lengths.iter().map(|l| -l).collect())];
    if !survey.logps.is_empty() {
        let per_token = survey.logps.iter().zip(&lengths).map(|(logp, n)| logp / n.max(1.0)).collect();
        out.push(judge("the likelier", survey.logps.clone()));
        out.push(judge("the likelier per token", per_token));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_even_and_depend_on_the_prompt_alone() {
        let mut counts = [0; 5];
        (0..5000).for_each(|i| counts[fold_of(&format!("prompt {i}"), 5, 0)] += 1);
        // Binomial: mean 1000, sd 28; six of them.
        assert!(counts.iter().all(|c| (830..1170).contains(c)), "{counts:?}");
        assert_eq!(fold_of("a", 7, 3), fold_of("a", 7, 3));
        assert!((0..50).any(|seed| fold_of("a", 7, seed) != fold_of("a", 7, 0)));
    }
}
