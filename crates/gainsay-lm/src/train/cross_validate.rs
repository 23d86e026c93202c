//! How well pairs can be learned from: every pair is judged by a model that has not seen it.

use std::ops::ControlFlow;

use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{PreferenceRecord, Prompt};
use gainsay_core::rng::Key;
use gainsay_core::stats::Interval;
use serde::Serialize;

use super::checkpoint::Checkpoints;
use super::evaluate::{by_item, comparisons, order_accuracy, rewards};
use super::head_fit::HeadFitOptions;
use super::items::{Feedback, TrainItem, prepare_items};
use super::label::Label;
use super::reward_model::{RewardCompany, RewardMethod, RewardTrainOptions, fitted, settle_labels, tell, train_reward};
use super::{PairCounts, TrainEvent};
use crate::error::LmError;
use crate::features::{FeatureCache, Read, read_features};
use crate::model::packed::batches;
use crate::model::{Mat, Model, Packed};
use crate::policy::{by_sequence, sum};
use crate::reward::head_product;
use crate::sequence::{Encoder, Sequence};
use crate::source::Loaded;

/// Pooled accuracy of models trained on the other folds, beside rules that need no training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrossValidation {
    /// Number of folds.
    pub folds: usize,
    /// What became of the records; none is held out besides its fold.
    pub pairs: PairCounts,
    /// Share of the pairs in the right order, each judged by the model of its fold
    /// ([`order_accuracy`]).
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
/// its log-probs. With checkpoints, folds that were judged are not judged again and a fold's
/// training goes on.
///
/// # Errors
/// Fewer than 2 folds, a fold without pairs, and what [`train_reward`] reports.
pub fn cross_validate<'r>(
    base: &Loaded,
    feedback: impl Into<Feedback<'r>>,
    options: &RewardTrainOptions,
    folds: usize,
    company: &mut RewardCompany<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<CrossValidation, LmError> {
    options.check()?;
    options.check_reads(base.backbone.layers.len())?;
    if folds < 2 {
        return Err(LmError::Input(format!("{folds} folds: cross-validation needs at least 2")));
    }
    let config = &base.backbone.config;
    let encoder = Encoder::new(&base.tokenizer, config.vocab_size, config.max_positions, &options.settings);
    let feedback: Feedback<'_> = feedback.into();
    let (items, counts) = prepare_items(feedback, &encoder, 0.0)?;
    let fold_of = |prompt: &Prompt| fold_of(&prompt.display(), folds, options.seed);
    let kept = feedback.pairs.iter().filter(|r| r.answer.is_comparison()).map(|r| &r.prompt);
    let of_item: Vec<usize> = kept.chain(feedback.rankings.iter().map(|r| &r.prompt)).map(fold_of).collect();
    if let Some(empty) = (0..folds).find(|fold| !of_item.contains(fold)) {
        return Err(LmError::Input(format!(
            "fold {} of {folds} has none of the {} pairs; take fewer folds or add pairs",
            empty + 1,
            items.len()
        )));
    }
    if let Some(checkpoints) = company.checkpoints {
        checkpoints.claim(folds)?;
    }
    let survey = survey(base, &items, options, company, progress)?;
    let mut judged = vec![Vec::new(); items.len()];
    for fold in 0..folds {
        let members: Vec<usize> = (0..items.len()).filter(|i| of_item[*i] == fold).collect();
        let values = match options.method {
            RewardMethod::Head => head_rewards(&survey, &items, &members, options)?,
            RewardMethod::Lora | RewardMethod::Full => {
                let others = Others::of(feedback, |prompt| fold_of(prompt) != fold);
                let test: Vec<&TrainItem> = members.iter().map(|i| &items[*i]).collect();
                let kept = company.checkpoints.map(|checkpoints| checkpoints.of_fold(fold, folds));
                trained_rewards(base, &others, &test, options, kept.as_ref(), progress)?
            }
        };
        members.iter().zip(values).for_each(|(i, value)| judged[*i] = value);
    }
    let all: Vec<&TrainItem> = items.iter().collect();
    let in_fold = |fold: usize| {
        let members: Vec<usize> = (0..items.len()).filter(|i| of_item[*i] == fold).collect();
        let (items, values): (Vec<&TrainItem>, Vec<Vec<f64>>) =
            members.into_iter().map(|i| (&items[i], judged[i].clone())).unzip();
        order_accuracy(&comparisons(&items, &values))
    };
    let accuracy = |values: &[Vec<f64>]| order_accuracy(&comparisons(&all, values));
    Ok(CrossValidation {
        folds,
        pairs: counts,
        accuracy: accuracy(&judged),
        by_fold: (0..folds).map(in_fold).collect(),
        baselines: baselines(&all, &accuracy, &survey),
    })
}

/// What one pass of the base model over all sides of each item gives.
struct Survey {
    width: usize,
    /// Features, `[sides, width]`.
    features: Vec<f32>,
    /// Log-prob of each side's completion in nats; empty where the model has no output matrix.
    logps: Vec<f64>,
}

fn survey(
    base: &Loaded,
    items: &[TrainItem],
    options: &RewardTrainOptions,
    company: &mut RewardCompany<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<Survey, LmError> {
    let model = Model::new(base.backbone.clone(), base.adapter.clone());
    let config = &base.backbone.config;
    let predicts = base.backbone.lm_head.is_some() || config.tie_embeddings;
    let (batch_tokens, reads) = (options.settings.batch_tokens, options.reads.as_slice());
    let sides: Vec<Sequence> = items.iter().flat_map(|item| item.sides.clone()).collect();
    let width = reads.len() * config.hidden_size;
    let mut out = Survey { width, features: Vec::new(), logps: Vec::new() };
    let features = &mut company.features;
    if predicts {
        // Where the head reads the last row, one pass gives both.
        let read = if reads == [Read::LAST] { width } else { 0 };
        features.open(&format!("{} with log-probs", base.identity), &reads[..usize::from(read > 0)], read + 1)?;
        let compute = |new: &[Sequence]| read_with_logps(&model, new, read, batch_tokens);
        let table = computed(features, &sides, read + 1, compute, progress)?;
        out.logps = (0..table.rows).map(|row| f64::from(table.row(row)[read])).collect();
        if read > 0 {
            // The training proper finds them there.
            features.open(&base.identity, reads, width)?;
            features.put(&sides, |row| Some(table.row(row)[..read].to_vec()))?;
        }
    }
    features.open(&base.identity, reads, width)?;
    let compute = |new: &[Sequence]| read_features(&model, new, reads, batch_tokens);
    out.features = computed(features, &sides, width, compute, progress)?.data;
    Ok(out)
}

/// The rows of `sides` in the table that is open; what is missing is computed and told.
fn computed(
    table: &mut FeatureCache,
    sides: &[Sequence],
    width: usize,
    compute: impl Fn(&[Sequence]) -> Result<Mat, LmError>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<Mat, LmError> {
    let mut done = sides.len() - table.missing(sides);
    let step = |new: &[Sequence]| {
        let rows = compute(new)?;
        done += new.len();
        tell(progress, &TrainEvent::Features { done, total: sides.len() })?;
        Ok(rows)
    };
    Ok(table.rows(sides, width, step)?.0)
}

/// One row a sequence: the first `read` values (all or none) of its last token's row, then its completion's
/// log-prob in nats; `[sequences, read + 1]`.
fn read_with_logps(model: &Model, sequences: &[Sequence], read: usize, batch_tokens: usize) -> Result<Mat, LmError> {
    let mut out = Mat { rows: sequences.len(), cols: read + 1, data: Vec::new() };
    for range in batches(sequences, batch_tokens) {
        let sequences = &sequences[range];
        let packed = Packed::sharing(sequences);
        let hidden = model.rows(&packed, None)?;
        let (rows, targets) = packed.predictions();
        let logps = by_sequence(&model.logps(&hidden, &rows, &targets, 1.0)?, sequences);
        for (row, logps) in packed.last_rows().into_iter().zip(logps) {
            out.data.extend_from_slice(&hidden.row(row)[..read]);
            out.data.push(sum(&logps) as f32);
        }
    }
    Ok(out)
}

/// The records of the other folds.
struct Others {
    pairs: Vec<PreferenceRecord>,
    rankings: Vec<RankingRecord>,
}

impl Others {
    fn of(feedback: Feedback<'_>, is_other: impl Fn(&Prompt) -> bool) -> Self {
        Self {
            pairs: feedback.pairs.iter().filter(|r| is_other(&r.prompt)).cloned().collect(),
            rankings: feedback.rankings.iter().filter(|r| is_other(&r.prompt)).cloned().collect(),
        }
    }
}

/// Rewards of the items `test` by a model that was trained on `others`; kept where there are checkpoints.
fn trained_rewards(
    base: &Loaded,
    others: &Others,
    test: &[&TrainItem],
    options: &RewardTrainOptions,
    checkpoints: Option<&Checkpoints>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<Vec<Vec<f64>>, LmError> {
    if let Some(known) = checkpoints.map(Checkpoints::judged).transpose()?.flatten() {
        return Ok(known);
    }
    let all = RewardTrainOptions { heldout: 0.0, ..options.clone() };
    let mut company = RewardCompany { checkpoints, ..RewardCompany::default() };
    let others = Feedback { pairs: &others.pairs, rankings: &others.rankings };
    let (model, _) = train_reward(base.clone(), others, &all, &mut company, progress)?;
    let values = rewards(&model.model, &model.head, test, options.settings.batch_tokens)?;
    checkpoints.map(|checkpoints| checkpoints.keep_judged(&values)).transpose()?;
    Ok(values)
}

/// Rewards of the items `members` by a head that was fitted to the others, their labels settled as
/// [`train_reward`] settles them.
fn head_rewards(
    survey: &Survey,
    items: &[TrainItem],
    members: &[usize],
    options: &RewardTrainOptions,
) -> Result<Vec<Vec<f64>>, LmError> {
    let width = survey.width;
    let mut rest = survey.features.as_slice();
    let (mut features, mut train, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for (i, item) in items.iter().enumerate() {
        let (own, more) = rest.split_at(item.sides.len() * width);
        rest = more;
        if members.binary_search(&i).is_ok() {
            test.push(own);
        } else {
            features.extend_from_slice(own);
            train.push(item.clone());
        }
    }
    let fit_options = HeadFitOptions { l2: options.l2, center: options.center, ..Default::default() };
    settle_labels(&mut train, options.safety);
    let labels: Vec<Label> = train.iter().map(|item| item.label.clone()).collect();
    let train: Vec<&TrainItem> = train.iter().collect();
    let head = fitted(&features, width, &train, &labels, &fit_options, "a fold's head")?.head;
    let rewards = |own: &[f32]| own.chunks_exact(width).map(|row| head_product(row, &head)).collect();
    Ok(test.into_iter().map(rewards).collect())
}

fn baselines(
    items: &[&TrainItem],
    accuracy: &impl Fn(&[Vec<f64>]) -> Option<Interval>,
    survey: &Survey,
) -> Vec<Baseline> {
    let lengths: Vec<f64> = items.iter().flat_map(|item| &item.sides).map(|s| s.completion().len() as f64).collect();
    let judge = |prefers: &'static str, values: Vec<f64>| Baseline {
        prefers,
        accuracy: accuracy(&by_item(items, values.into_iter())),
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
    use crate::config::Family;
    use crate::train::PairLabel;

    #[test]
    fn a_folds_labels_are_settled_as_in_training() {
        let sequence = || Sequence { tokens: vec![1, 2], prompt_len: 1, truncated: false };
        let rewards = |weight: f64, safe: [Option<bool>; 2], safety: bool| {
            let item = |i: usize| TrainItem {
                id: i.to_string(),
                sides: vec![sequence(), sequence()],
                label: PairLabel { weight, safe, ..PairLabel::new(1.0, 0.0) }.into(),
                topic: None,
                source: None,
                heldout: false,
            };
            let items: Vec<TrainItem> = (0..4).map(item).collect();
            let survey = Survey { width: 1, features: [3.0, 1.0].repeat(4), logps: Vec::new() };
            let options = RewardTrainOptions { safety, ..RewardTrainOptions::new(RewardMethod::Head, Family::Llama) };
            head_rewards(&survey, &items, &[1], &options).unwrap()[0].clone()
        };
        let plain = rewards(1.0, [None; 2], false);
        assert!(plain[0] > plain[1]);
        // Weights that are all the same weigh nothing, and safety is not learned unasked.
        for other in [rewards(7.0, [None; 2], false), rewards(1.0, [Some(false); 2], false)] {
            assert!((plain[0] - other[0]).abs() < 1e-6, "{plain:?} {other:?}");
        }
        assert!(rewards(1.0, [Some(false); 2], true)[0] < 0.0);
    }

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
