//! A reward model from preferences: the recipe, top to bottom.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use gainsay_core::record::PreferenceRecord;
use gainsay_core::rng::Key;

mod options;

pub(super) use options::positive;
pub use options::{EpochReport, HeadInit, RewardMethod, RewardStep, RewardTrainOptions, RewardTrainReport};

use super::evaluate::{Heldout, figures, pack, rewards};
use super::head_fit::{HeadFitOptions, PairLabel, fit_head};
use super::pairs::{TrainPair, prepare_pairs};
use super::weights::{Weights, fresh_adapter};
use super::{Cost, TrainEvent};
use crate::error::LmError;
use crate::loss::bradley_terry;
use crate::merge::merged;
use crate::model::{Grads, Mat, Model, ParamId, Trainable};
use crate::optim::{AdamW, Schedule, clip_global_norm};
use crate::reward::{FeatureKind, RewardModel, features_of, head_product};
use crate::sequence::{Encoder, Sequence, micro_batches};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;

/// Trains a reward model on preferences: from a base model, or on from a reward model.
///
/// Records without an order (`both_bad`, `skip`) are left out and counted. The loss is
/// [`bradley_terry`], averaged over a batch; sequences lie back to back without padding and the
/// head reads each one's last token. `base` is taken over, so that training all weights needs no
/// copy where nobody else holds them.
///
/// # Errors
/// Options and records that make no sense; a loss or gradient that is not finite, naming the step
/// and its pairs; [`LmError::Run`] where `progress` breaks off.
pub fn train_reward(
    base: Loaded,
    records: &[PreferenceRecord],
    options: &RewardTrainOptions,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<(RewardModel, RewardTrainReport), LmError> {
    let started = Instant::now();
    options.check()?;
    let (pairs, counts) = {
        let config = &base.backbone.config;
        let encoder = Encoder::new(&base.tokenizer, config.vocab_size, config.max_positions, &options.settings);
        prepare_pairs(records, &encoder, options.heldout)?
    };
    let (heldout, train): (Vec<&TrainPair>, Vec<&TrainPair>) = pairs.iter().partition(|p| p.heldout);
    if train.is_empty() {
        return Err(LmError::Input(format!(
            "no pair to train on: {} held out, {} both bad, {} skipped; add answered pairs or hold out less",
            counts.heldout, counts.both_bad, counts.skipped
        )));
    }
    let mut run = Run::start(base, &train, options)?;
    let heldout_before = run.evaluate(&heldout);
    let (losses, epochs) = match options.method {
        RewardMethod::Head => (Vec::new(), vec![run.fit(&train, &heldout)]),
        RewardMethod::Lora | RewardMethod::Full => run.descend(&train, &heldout, progress)?,
    };
    let parameters = run.parameters();
    let tokens = run.tokens;
    let report = RewardTrainReport {
        method: options.method,
        pairs: counts,
        parameters,
        heldout_before,
        losses,
        epochs,
        cost: Cost::since(started, tokens),
    };
    Ok((run.finish()?, report))
}

/// A run's state between steps.
struct Run<'a> {
    options: &'a RewardTrainOptions,
    weights: Weights,
    optimizer: AdamW,
    trainable: Trainable,
    tokenizer: Arc<Tokenizer>,
    identity: String,
    spec: String,
    tokens: u64,
}

impl<'a> Run<'a> {
    fn start(base: Loaded, train: &[&TrainPair], options: &'a RewardTrainOptions) -> Result<Self, LmError> {
        let Loaded { backbone, tokenizer, adapter, head, identity, spec, .. } = base;
        let (model, trainable) = match (options.method, adapter) {
            (RewardMethod::Head, adapter) => (Model::new(backbone, adapter), Trainable::Head),
            (RewardMethod::Lora, Some(adapter)) => (Model::new(backbone, Some(adapter)), Trainable::Lora),
            (RewardMethod::Lora, None) => {
                let adapter = fresh_adapter(&options.adapter, &backbone, options.seed)?;
                (Model::new(backbone, Some(adapter)), Trainable::Lora)
            }
            (RewardMethod::Full, Some(adapter)) => {
                (Model::new(Arc::new(merged(backbone, &adapter)), None), Trainable::Full)
            }
            (RewardMethod::Full, None) => (Model::new(backbone, None), Trainable::Full),
        };
        if trainable == Trainable::Lora {
            // The start of the head, then every epoch, read the same rows below the adapter.
            model.backbone.trunk.meet_at(model.first_adapted());
        }
        let width = model.backbone.config.hidden_size;
        let fit_first = head.is_none() && options.method != RewardMethod::Head && options.head_init == HeadInit::Fitted;
        let head = Some(head.unwrap_or_else(|| vec![0.0; width]));
        let mut run = Self {
            options,
            weights: Weights { model, head },
            optimizer: AdamW::new(options.optimizer),
            trainable,
            tokenizer: Arc::new(tokenizer),
            identity,
            spec,
            tokens: 0,
        };
        if fit_first {
            run.refit_head(train);
        }
        Ok(run)
    }

    fn head(&self) -> &[f32] {
        self.weights.head.as_deref().unwrap_or_default()
    }

    fn parameters(&self) -> usize {
        self.weights.zero_grads(&self.trainable).by_id.values().map(Vec::len).sum()
    }

    fn evaluate(&mut self, pairs: &[&TrainPair]) -> Option<Heldout> {
        let labels: Vec<PairLabel> = pairs.iter().map(|p| p.label).collect();
        let values = rewards(&self.weights.model, self.head(), pairs, self.options.settings.batch_tokens);
        self.count(pairs);
        figures(&labels, &values, self.options.center)
    }

    fn count(&mut self, pairs: &[&TrainPair]) {
        self.tokens += pairs.iter().map(|p| p.tokens() as u64).sum::<u64>();
    }

    /// Sets the head to its optimum for the model as it is; returns the objective there.
    fn refit_head(&mut self, train: &[&TrainPair]) -> f64 {
        let sides: Vec<Sequence> = train.iter().flat_map(|p| [p.first.clone(), p.second.clone()]).collect();
        let labels: Vec<PairLabel> = train.iter().map(|p| p.label).collect();
        let batch_tokens = self.options.settings.batch_tokens;
        let features = features_of(&self.weights.model, &sides, FeatureKind::LastToken, None, batch_tokens);
        self.count(train);
        let options = HeadFitOptions { l2: self.options.l2, center: self.options.center, ..Default::default() };
        let fit = fit_head(&features.data, features.cols, &labels, &options);
        self.weights.head = Some(fit.head);
        fit.objective
    }

    /// [`RewardMethod::Head`].
    fn fit(&mut self, train: &[&TrainPair], heldout: &[&TrainPair]) -> EpochReport {
        let train_loss = self.refit_head(train);
        EpochReport { epoch: 1, train_loss, heldout: self.evaluate(heldout) }
    }

    /// [`RewardMethod::Lora`] and [`RewardMethod::Full`]: AdamW over keyed shuffles of the pairs.
    fn descend(
        &mut self,
        train: &[&TrainPair],
        heldout: &[&TrainPair],
        progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
    ) -> Result<(Vec<f64>, Vec<EpochReport>), LmError> {
        let options = self.options;
        let steps = options.epochs * train.len().div_ceil(options.batch_pairs) as u32;
        let schedule = Schedule::cosine(options.lr, options.warmup, steps);
        let mut grads = self.weights.zero_grads(&self.trainable);
        let (mut losses, mut epochs) = (Vec::new(), Vec::new());
        for epoch in 0..options.epochs {
            let mut order: Vec<&TrainPair> = train.to_vec();
            let key = Key::new(options.seed, "reward-order").round(options.round).step(epoch);
            key.stream().shuffle(&mut order);
            let mut sum = 0.0;
            for batch in order.chunks(options.batch_pairs) {
                let step = losses.len() as u32;
                let (loss, grad_norm) = self.step(batch, &mut grads, schedule.at(step))?;
                sum += loss * batch.len() as f64;
                losses.push(loss);
                let event = RewardStep { step: step + 1, steps, loss, grad_norm, lr: schedule.at(step) };
                tell(progress, &TrainEvent::RewardStep(event))?;
            }
            let train_loss = sum / train.len() as f64;
            let report = EpochReport { epoch: epoch + 1, train_loss, heldout: self.evaluate(heldout) };
            tell(progress, &TrainEvent::Epoch(report.clone()))?;
            epochs.push(report);
        }
        Ok((losses, epochs))
    }

    /// One optimizer step on the mean loss of `batch`; (that loss, the gradient's norm).
    fn step(&mut self, batch: &[&TrainPair], grads: &mut Grads, lr: f64) -> Result<(f64, f64), LmError> {
        grads.zero();
        let loss = batch_gradient(&self.weights, batch, self.options.center, self.options.settings.batch_tokens, grads);
        self.count(batch);
        let norm = clip_global_norm(grads, self.options.clip);
        if !(loss.is_finite() && norm.is_finite()) {
            let ids: Vec<&str> = batch.iter().map(|p| p.id.as_str()).collect();
            return Err(LmError::Run(format!(
                "step {}: the loss is {loss} and the gradient norm {norm} on pairs {}; lower the learning rate \
                 (now {lr:.1e}), clip gradients, or look at these pairs",
                self.optimizer.steps() + 1,
                ids.join(", ")
            )));
        }
        self.weights.apply(&mut self.optimizer, grads, lr);
        Ok((loss, norm))
    }

    fn finish(self) -> Result<RewardModel, LmError> {
        let Weights { model, head } = self.weights;
        let head = head.unwrap_or_default();
        let identity = crate::save::trained_identity(&self.identity, &model, Some(&head), &self.trainable);
        Ok(RewardModel { model, head, tokenizer: self.tokenizer, identity, spec: self.spec })
    }
}

pub(super) fn tell(
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
    event: &TrainEvent,
) -> Result<(), LmError> {
    match progress(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(LmError::Run("training was stopped before its end; nothing was written".into())),
    }
}

/// A micro-batch keeps its activations up to this size, in bytes.
const TAPE_BYTES: usize = 1 << 30;

/// Adds the gradient of the batch's mean pair loss to `grads` and returns that loss. Pairs go
/// through the model in micro-batches of at most `batch_tokens` tokens, both sides together.
pub fn batch_gradient(
    weights: &Weights,
    batch: &[&TrainPair],
    center: f64,
    batch_tokens: usize,
    grads: &mut Grads,
) -> f64 {
    let lengths: Vec<usize> = batch.iter().map(|p| p.rows()).collect();
    let head = weights.head.as_deref().unwrap_or_default();
    let mut total = 0.0;
    for range in micro_batches(&lengths, batch_tokens) {
        let pairs = &batch[range];
        let packed = pack(pairs);
        let keep = weights.model.keep_within(TAPE_BYTES, packed.tokens.len(), grads);
        let tape = weights.model.forward_tape(&packed, keep, grads);
        let rows = packed.last_rows();
        let values: Vec<f64> = rows.iter().map(|&row| head_product(tape.hidden.row(row), head)).collect();
        let mut d_hidden = Mat::zeros(tape.hidden.rows, tape.hidden.cols);
        for ((pair, value), rows) in pairs.iter().zip(values.chunks_exact(2)).zip(rows.chunks_exact(2)) {
            let loss = bradley_terry(pair.label.p, pair.label.margin, value[0], value[1], center);
            total += loss.loss;
            for (&row, d_reward) in rows.iter().zip([loss.d_r1, loss.d_r2]) {
                let d_reward = (d_reward / batch.len() as f64) as f32;
                head_backward(d_reward, head, tape.hidden.row(row), d_hidden.row_mut(row), grads);
            }
        }
        weights.model.backward(tape, d_hidden, grads);
    }
    total / batch.len() as f64
}

/// r = head . hidden: adds d_r head to the row's gradient and d_r hidden to the head's.
fn head_backward(d_reward: f32, head: &[f32], hidden: &[f32], d_row: &mut [f32], grads: &mut Grads) {
    d_row.iter_mut().zip(head).for_each(|(d, w)| *d += d_reward * w);
    if let Some(d_head) = grads.get_mut(ParamId::Head) {
        d_head.iter_mut().zip(hidden).for_each(|(d, h)| *d += d_reward * h);
    }
}
