//! A reward model from preferences: the recipe, top to bottom.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gainsay_core::rng::Key;
use serde::{Deserialize, Serialize};

mod fitted;
mod options;

pub use fitted::bootstrap_heads;
pub(super) use fitted::fitted;
pub(super) use options::positive;
pub use options::{EpochReport, HeadInit, RewardMethod, RewardStep, RewardTrainOptions, RewardTrainReport};

use super::checkpoint::Checkpoints;
use super::evaluate::{Heldout, by_item, calibrated, figures, pack, rewards, slices};
use super::head_fit::HeadFitOptions;
use super::items::{Feedback, TrainItem, prepare_items};
use super::label::Label;
use super::weights::{Weights, dropped, fresh_adapter};
use super::{Cost, TrainEvent};
use crate::error::LmError;
use crate::features::{FeatureCache, Read, read_features};
use crate::merge::merged;
use crate::model::{Grads, Mat, Model, ParamId, Trainable};
use crate::optim::{AdamW, Schedule, clip_global_norm};
use crate::reward::{RewardModel, head_product};
use crate::save::Heads;
use crate::sequence::{Encoder, Sequence, micro_batches};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;

/// What goes along with a reward model's training.
#[derive(Default)]
pub struct RewardCompany<'a> {
    /// Features that are known already; what is computed is added.
    pub features: FeatureCache,
    /// Where checkpoints are kept ([`RewardMethod::Lora`] and [`RewardMethod::Full`]).
    pub checkpoints: Option<&'a Checkpoints>,
}

/// Trains a reward model on preferences and rankings: from a base model, or on from a reward model.
///
/// Records without an order (`both_bad`, `skip`) are left out and counted. The loss is
/// [`Label::loss`], averaged over a batch, the weights scaled so that their mean over what is
/// trained on is 1; sequences lie back to back without padding and the head reads each one's
/// last token. `base` is taken over, so that training all weights needs no copy where nobody else
/// holds them. With checkpoints the run goes on behind the last one, to the same bytes.
///
/// # Errors
/// Options and records that make no sense; a feature, loss or gradient that is not finite, naming
/// the step and its pairs; [`LmError::Run`] where `progress` breaks off.
pub fn train_reward<'r>(
    base: Loaded,
    feedback: impl Into<Feedback<'r>>,
    options: &RewardTrainOptions,
    company: &mut RewardCompany<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<(RewardModel, RewardTrainReport), LmError> {
    let started = Instant::now();
    options.check()?;
    options.check_reads(base.backbone.layers.len())?;
    let (mut items, counts) = {
        let config = &base.backbone.config;
        let encoder = Encoder::new(&base.tokenizer, config.vocab_size, config.max_positions, &options.settings);
        prepare_items(feedback.into(), &encoder, options.heldout)?
    };
    settle_labels(&mut items, options.safety);
    let (heldout, train): (Vec<&TrainItem>, Vec<&TrainItem>) = items.iter().partition(|p| p.heldout);
    if train.is_empty() {
        return Err(LmError::Input(format!(
            "no pair to train on: {} held out, {} both bad, {} skipped; add answered pairs or hold out less",
            counts.heldout, counts.both_bad, counts.skipped
        )));
    }
    let mut run = Run::start(base, options)?;
    let history = run.begin(&train, &heldout, company, progress)?;
    let History { losses, epochs, heldout_before, .. } = match options.method {
        RewardMethod::Head => History { epochs: vec![run.fit(&train, &heldout, company, progress)?], ..history },
        RewardMethod::Lora | RewardMethod::Full => run.descend(history, &train, &heldout, company, progress)?,
    };
    if options.heads > 0 {
        run.fit_ensemble(&train, company, progress)?;
    }
    let values = run.rewards(&heldout, company, progress)?;
    let report = RewardTrainReport {
        method: options.method,
        pairs: counts,
        parameters: run.parameters(),
        heldout_before,
        losses,
        calibration: calibrated(&heldout, &values),
        slices: slices(&heldout, &values),
        epochs,
        cost: Cost::since(started, run.tokens),
    };
    Ok((run.finish()?, report))
}

/// Scales the weights to a mean of 1 over what is trained on, and drops safety labels unless they
/// are learned.
pub(super) fn settle_labels(items: &mut [TrainItem], safety: bool) {
    let (mut total, mut n) = (0.0, 0.0f64);
    for item in items.iter().filter(|p| !p.heldout) {
        total += item.label.weight();
        n += 1.0;
    }
    let equal = items.iter().all(|p| p.label.weight() == 1.0);
    for item in items {
        if !equal && total > 0.0 {
            item.label = item.label.weighed(n / total);
        }
        if let (false, Label::Pair(label)) = (safety, &mut item.label) {
            label.safe = [None; 2];
        }
    }
}

/// What a run with gradients remembers between steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct History {
    /// Figures before the first step, with the head as it starts.
    heldout_before: Option<Heldout>,
    losses: Vec<f64>,
    epochs: Vec<EpochReport>,
    /// Sum of the losses of the epoch that is under way, each times its items.
    sum: f64,
}

/// A run's state between steps.
struct Run<'a> {
    options: &'a RewardTrainOptions,
    /// Whether the head is to be fitted before the first step.
    fit_first: bool,
    weights: Weights,
    ensemble: Vec<Vec<f32>>,
    optimizer: AdamW,
    trainable: Trainable,
    dropout: Option<Key<'static>>,
    tokenizer: Arc<Tokenizer>,
    identity: String,
    spec: String,
    tokens: u64,
}

type Listener<'p> = dyn FnMut(&TrainEvent) -> ControlFlow<()> + 'p;

impl<'a> Run<'a> {
    fn start(base: Loaded, options: &'a RewardTrainOptions) -> Result<Self, LmError> {
        let known = Heads::beside(Path::new(&base.spec))?;
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
        // A head of a model whose heads read something else starts anew.
        let reads_last = known.is_none_or(|k| k.reads == [Read::LAST]);
        let head = head.filter(|_| reads_last && options.reads == [Read::LAST]);
        let width = options.reads.len() * model.backbone.config.hidden_size;
        let fit_first = head.is_none() && options.method != RewardMethod::Head && options.head_init == HeadInit::Fitted;
        let head = Some(head.unwrap_or_else(|| vec![0.0; width]));
        let weights = Weights { model, head };
        let dropout = match trainable {
            Trainable::Lora => weights.dropout(options.seed, "reward-dropout")?,
            _ => None,
        };
        Ok(Self {
            options,
            fit_first,
            weights,
            ensemble: Vec::new(),
            optimizer: AdamW::new(options.optimizer),
            trainable,
            dropout,
            tokenizer: Arc::new(tokenizer),
            identity,
            spec,
            tokens: 0,
        })
    }

    /// What the last checkpoint remembers, with its weights put in; without one, a new history, and
    /// the head at its start.
    fn begin(
        &mut self,
        train: &[&TrainItem],
        heldout: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<History, LmError> {
        if let Some(history) = self.resume(company)? {
            return Ok(history);
        }
        if self.fit_first {
            self.refit_head(train, company, progress)?;
        }
        Ok(History { heldout_before: self.evaluate(heldout, company, progress)?, ..History::default() })
    }

    fn head(&self) -> &[f32] {
        self.weights.head.as_deref().unwrap_or_default()
    }

    fn parameters(&self) -> usize {
        match self.trainable {
            Trainable::Head => self.head().len(),
            _ => self.weights.zero_grads(&self.trainable).by_id.values().map(Vec::len).sum(),
        }
    }

    /// Features of all sides of each item, computed once for a model that does not change.
    fn features(
        &mut self,
        items: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<Mat, LmError> {
        let sides: Vec<Sequence> = items.iter().flat_map(|item| item.sides.clone()).collect();
        let (model, options) = (&self.weights.model, self.options);
        let width = options.reads.len() * model.backbone.config.hidden_size;
        let mut own = FeatureCache::in_memory();
        let cache = match self.trainable {
            Trainable::Head => &mut company.features,
            // The model changes: what it says now is of no use later.
            _ => &mut own,
        };
        cache.open(&self.identity, &options.reads, width)?;
        let (mut tokens, mut done) = (0, sides.len() - cache.missing(&sides));
        let compute = |new: &[Sequence]| {
            tokens += new.iter().map(|s| s.tokens.len() as u64).sum::<u64>();
            done += new.len();
            let features = read_features(model, new, &options.reads, options.settings.batch_tokens)?;
            tell(progress, &TrainEvent::Features { done, total: sides.len() })?;
            Ok(features)
        };
        let features = cache.rows(&sides, width, compute)?.0;
        self.tokens += tokens;
        Ok(features)
    }

    /// Rewards of all sides of each item.
    fn rewards(
        &mut self,
        items: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        if self.trainable == Trainable::Head {
            let features = self.features(items, company, progress)?;
            let values = (0..features.rows).map(|row| head_product(features.row(row), self.head()));
            return Ok(by_item(items, values));
        }
        self.count(items);
        rewards(&self.weights.model, self.head(), items, self.options.settings.batch_tokens)
    }

    fn evaluate(
        &mut self,
        items: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<Option<Heldout>, LmError> {
        let values = self.rewards(items, company, progress)?;
        Ok(figures(items, &values, self.options.center))
    }

    fn count(&mut self, items: &[&TrainItem]) {
        self.tokens += items.iter().map(|p| p.tokens() as u64).sum::<u64>();
    }

    fn fit_options(&self) -> HeadFitOptions {
        HeadFitOptions { l2: self.options.l2, center: self.options.center, ..Default::default() }
    }

    /// Sets the head to its optimum for the model as it is; returns the objective there.
    fn refit_head(
        &mut self,
        train: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<f64, LmError> {
        let labels: Vec<Label> = train.iter().map(|p| p.label.clone()).collect();
        let features = self.features(train, company, progress)?;
        let fit = fitted(&features.data, features.cols, train, &labels, &self.fit_options(), "the head")?;
        self.weights.head = Some(fit.head);
        Ok(fit.objective)
    }

    /// [`RewardMethod::Head`].
    fn fit(
        &mut self,
        train: &[&TrainItem],
        heldout: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<EpochReport, LmError> {
        let train_loss = self.refit_head(train, company, progress)?;
        Ok(EpochReport { epoch: 1, train_loss, heldout: self.evaluate(heldout, company, progress)? })
    }

    /// Heads fitted to bootstrap samples of the prompts (arXiv 2310.02743 trains such ensembles;
    /// here of heads alone), on the features of the trained model.
    fn fit_ensemble(
        &mut self,
        train: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<(), LmError> {
        let features = self.features(train, company, progress)?;
        let (heads, seed) = (self.options.heads, self.options.seed);
        self.ensemble = bootstrap_heads(&features, train, heads, &self.fit_options(), seed)?;
        Ok(())
    }

    /// [`RewardMethod::Lora`] and [`RewardMethod::Full`]: AdamW over keyed shuffles of the items.
    fn descend(
        &mut self,
        mut history: History,
        train: &[&TrainItem],
        heldout: &[&TrainItem],
        company: &mut RewardCompany<'_>,
        progress: &mut Listener<'_>,
    ) -> Result<History, LmError> {
        let options = self.options;
        let per_epoch = train.len().div_ceil(options.batch_pairs) as u32;
        let steps = options.epochs * per_epoch;
        let schedule = Schedule::cosine(options.lr, options.warmup, steps);
        let mut grads = self.weights.zero_grads(&self.trainable);
        if company.checkpoints.is_some() {
            tell(progress, &TrainEvent::Resumed { step: history.losses.len() as u32 })?;
        }
        let mut order: Vec<&TrainItem> = Vec::new();
        for t in history.losses.len() as u32..steps {
            let (epoch, place) = (t / per_epoch, (t % per_epoch) as usize);
            if order.is_empty() || place == 0 {
                order = train.to_vec();
                let key = Key::new(options.seed, "reward-order").round(options.round).step(epoch);
                key.stream().shuffle(&mut order);
            }
            let start = place * options.batch_pairs;
            let batch = &order[start..(start + options.batch_pairs).min(order.len())];
            let (loss, grad_norm) = self.step(batch, &mut grads, schedule.at(t))?;
            history.sum += loss * batch.len() as f64;
            history.losses.push(loss);
            let tokens = batch.iter().map(|item| item.tokens() as u64).sum();
            let event = RewardStep { step: t + 1, steps, loss, grad_norm, lr: schedule.at(t), tokens };
            let mut told = tell(progress, &TrainEvent::RewardStep(event));
            if place + 1 == per_epoch as usize {
                // Without the epoch's figures there is nothing to go on from.
                std::mem::replace(&mut told, Ok(()))?;
                let train_loss = std::mem::take(&mut history.sum) / train.len() as f64;
                let heldout = self.evaluate(heldout, company, progress)?;
                let report = EpochReport { epoch: epoch + 1, train_loss, heldout };
                tell(progress, &TrainEvent::Epoch(report.clone()))?;
                history.epochs.push(report);
            }
            if let Some(checkpoints) = company.checkpoints.filter(|c| c.is_due(t + 1, told.is_err() || t + 1 == steps))
            {
                let value = serde_json::to_value(&history).map_err(|e| LmError::Run(e.to_string()))?;
                checkpoints.save(t + 1, &self.weights, &self.optimizer, None, value)?;
            }
            told?;
        }
        Ok(history)
    }

    fn resume(&mut self, company: &RewardCompany<'_>) -> Result<Option<History>, LmError> {
        let Some(checkpoints) = company.checkpoints.filter(|_| self.trainable != Trainable::Head) else {
            return Ok(None);
        };
        let Some(saved) = checkpoints.restore(&mut self.weights, &mut self.optimizer)? else { return Ok(None) };
        serde_json::from_value(saved.history).map(Some).map_err(|e| {
            let dir = checkpoints.dir.display();
            LmError::Run(format!(
                "{dir}: the checkpoint's history cannot be read: {e}; remove the folder to begin anew"
            ))
        })
    }

    /// One optimizer step on the mean loss of `batch`; (that loss, the gradient's norm).
    fn step(&mut self, batch: &[&TrainItem], grads: &mut Grads, lr: f64) -> Result<(f64, f64), LmError> {
        grads.zero();
        let dropout = self.dropout.map(|key| key.round(self.options.round).step(self.optimizer.steps()));
        let (center, batch_tokens) = (self.options.center, self.options.settings.batch_tokens);
        let loss = batch_gradient(&self.weights, batch, center, batch_tokens, dropout, grads)?;
        self.count(batch);
        let norm = clip_global_norm(grads, self.options.clip);
        if !(loss.is_finite() && norm.is_finite()) {
            let ids: Vec<&str> = batch.iter().map(|p| p.id.as_str()).collect();
            return Err(LmError::Run(format!(
                "step {}: the loss is {loss} and the gradient norm {norm} on pairs {}; lower the learning rate \
                 (now {lr:.1e}) or look at these pairs",
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
        let (ensemble, reads) = (self.ensemble, self.options.reads.clone());
        Ok(RewardModel { model, head, ensemble, reads, tokenizer: self.tokenizer, identity, spec: self.spec })
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

/// Adds the gradient of the batch's mean loss to `grads` and returns that loss. Items go through
/// the model in micro-batches of at most `batch_tokens` tokens, all sides together, with the
/// adapter's dropout where `dropout` is the step's key.
///
/// # Errors
/// What a device reports.
pub fn batch_gradient(
    weights: &Weights,
    batch: &[&TrainItem],
    center: f64,
    batch_tokens: usize,
    dropout: Option<Key<'_>>,
    grads: &mut Grads,
) -> Result<f64, LmError> {
    let lengths: Vec<usize> = batch.iter().map(|p| p.rows()).collect();
    let head = weights.head.as_deref().unwrap_or_default();
    let mut total = 0.0;
    for range in micro_batches(&lengths, batch_tokens) {
        let items = &batch[range];
        let packed = dropped(pack(items), dropout);
        let keep = weights.model.keep_within(TAPE_BYTES, packed.tokens.len(), grads);
        let tape = weights.model.record(&packed, keep, grads)?;
        let rows = packed.last_rows();
        let values = by_item(items, rows.iter().map(|&row| head_product(tape.hidden().row(row), head)));
        let mut rows = rows.into_iter();
        let mut d_hidden = Mat::zeros(tape.hidden().rows, tape.hidden().cols);
        for (item, values) in items.iter().zip(values) {
            let loss = item.label.loss(&values, center);
            total += loss.loss;
            for (d_reward, row) in loss.d_rewards.into_iter().zip(rows.by_ref()) {
                let d_reward = (d_reward / batch.len() as f64) as f32;
                head_backward(d_reward, head, tape.hidden().row(row), d_hidden.row_mut(row), grads);
            }
        }
        weights.model.pull_back(tape, d_hidden, grads)?;
    }
    Ok(total / batch.len() as f64)
}

/// r = head . hidden: adds d_r head to the row's gradient and d_r hidden to the head's.
fn head_backward(d_reward: f32, head: &[f32], hidden: &[f32], d_row: &mut [f32], grads: &mut Grads) {
    d_row.iter_mut().zip(head).for_each(|(d, w)| *d += d_reward * w);
    if let Some(d_head) = grads.get_mut(ParamId::Head) {
        d_head.iter_mut().zip(hidden).for_each(|(d, h)| *d += d_reward * h);
    }
}
