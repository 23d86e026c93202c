//! A policy from a file: supervised fine-tuning on completions, or DPO on preference pairs.

use std::ops::ControlFlow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use gainsay_core::rng::Key;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoints, Saved};
use super::policy::pass::{self, TokenGrads, Tokens};
use super::reward_model::{positive, tell};
use super::weights::{Weights, fresh_adapter};
use super::{Cost, Reference, TrainEvent, default_adapter};
use crate::config::Family;
use crate::error::LmError;
use crate::loss::{PreferenceLoss, negative_log_likelihood, preference_pair};
use crate::merge::merged;
use crate::model::packed::batches;
use crate::model::{AdapterConfig, Grads, Model, Trainable};
use crate::optim::{AdamW, AdamWConfig, Schedule, clip_global_norm};
use crate::policy::{completion_logps, require_output_matrix, sum};
use crate::sequence::{Sequence, Settings, Truncate};
use crate::source::Loaded;

/// What is learned from an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The mean over the batch's completion tokens of -log p; the prompt teaches nothing.
    Sft,
    /// The mean over the batch's pairs of [`preference_pair`].
    Preference {
        /// Which loss.
        loss: PreferenceLoss,
        /// Its beta.
        beta: f64,
        /// What the log-ratios are taken to.
        reference: Reference,
    },
}

/// One example: a completion, or the two of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// For messages.
    pub id: String,
    /// One sequence, or a pair's first and second.
    pub sequences: Vec<Sequence>,
    /// A pair's preference for the first; 1 for a completion.
    pub p: f64,
    /// Held out from training.
    pub heldout: bool,
}

/// Options of [`train_offline`].
#[derive(Clone, Debug, PartialEq)]
pub struct OfflineOptions {
    /// What is learned.
    pub objective: Objective,
    /// Train all weights instead of an adapter.
    pub full: bool,
    /// Passes over the examples.
    pub epochs: u32,
    /// Examples an optimizer step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// The optimizer's constants.
    pub optimizer: AdamWConfig,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f64,
    /// Shape of a new adapter; a base with an adapter goes on with that one.
    pub adapter: AdapterConfig,
    /// Run seed.
    pub seed: u64,
    /// Sequence limits and tokens that go through the model together.
    pub settings: Settings,
}

impl OfflineOptions {
    /// The defaults of an objective for a family of models.
    pub fn new(objective: Objective, family: Family) -> Self {
        Self {
            objective,
            full: false,
            epochs: 1,
            batch: 8,
            lr: if objective == Objective::Sft { 1e-3 } else { 3e-4 },
            warmup: 0.1,
            optimizer: AdamWConfig::default(),
            clip: 1.0,
            adapter: default_adapter(family),
            seed: 0,
            settings: Settings {
                max_tokens: 1024,
                truncate: Truncate::Left,
                batch_tokens: 2048,
                ..Settings::default()
            },
        }
    }
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfflineStep {
    /// From 1.
    pub step: u32,
    /// All steps of the run.
    pub steps: u32,
    /// Loss of the batch, before the step.
    pub loss: f64,
    /// Pairs: share whose log-ratios are in the order of the label, ties left out.
    pub accuracy: Option<f64>,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens of the batch.
    #[serde(default)]
    pub tokens: u64,
}

/// What [`train_offline`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfflineReport {
    /// Every step's figures.
    pub steps: Vec<OfflineStep>,
    /// Examples trained on.
    pub examples: usize,
    /// Examples held out.
    pub heldout: usize,
    /// Mean loss of the held-out examples before and after; `None` without them.
    pub heldout_loss: Option<[f64; 2]>,
    /// Numbers that were trained.
    pub parameters: usize,
    /// Wall-clock values.
    pub cost: Cost,
}

/// Trains `base` on examples and returns the model. With checkpoints the run goes on behind the
/// last one, to the same bytes.
///
/// # Errors
/// Options and examples that make no sense; a loss or gradient that is not finite, naming the step
/// and its examples; [`LmError::Run`] where `progress` breaks off.
pub fn train_offline(
    base: Loaded,
    examples: &[Example],
    options: &OfflineOptions,
    checkpoints: Option<&Checkpoints>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<(Model, OfflineReport), LmError> {
    let started = Instant::now();
    let (heldout, train): (Vec<&Example>, Vec<&Example>) = examples.iter().partition(|e| e.heldout);
    check(options, &train)?;
    let mut run = Run::new(base, options)?;
    let mut references = run.references(&train)?;
    let heldout_references = run.references(&heldout)?;
    let before = run.mean_loss(&heldout, &heldout_references)?;
    let mut steps: Vec<OfflineStep> = run.resume(checkpoints)?;
    tell(progress, &TrainEvent::Resumed { step: steps.len() as u32 })?;
    let per_epoch = train.len().div_ceil(options.batch) as u32;
    let total = options.epochs * per_epoch;
    let schedule = Schedule::cosine(options.lr, options.warmup, total);
    let mut order: Vec<usize> = Vec::new();
    for t in steps.len() as u32..total {
        if order.is_empty() || t.is_multiple_of(per_epoch) {
            order = (0..train.len()).collect();
            Key::new(options.seed, "offline-order").step(t / per_epoch).stream().shuffle(&mut order);
        }
        let start = (t % per_epoch) as usize * options.batch;
        let chosen = &order[start..(start + options.batch).min(order.len())];
        let batch: Vec<&Example> = chosen.iter().map(|i| train[*i]).collect();
        let known: Vec<[f64; 2]> = chosen.iter().map(|i| references[*i]).collect();
        let mut step = run.step(&batch, &known, schedule.at(t), t)?;
        step.steps = total;
        let told = tell(progress, &TrainEvent::OfflineStep(step.clone()));
        steps.push(step);
        if let Some(checkpoints) = checkpoints.filter(|c| c.is_due(t + 1, told.is_err() || t + 1 == total)) {
            let history = serde_json::to_value(&steps).map_err(|e| LmError::Run(e.to_string()))?;
            checkpoints.save(t + 1, &run.weights, &run.optimizer, None, history)?;
        }
        told?;
    }
    references.clear();
    let after = run.mean_loss(&heldout, &heldout_references)?;
    let report = OfflineReport {
        steps,
        examples: train.len(),
        heldout: heldout.len(),
        heldout_loss: before.zip(after).map(|(a, b)| [a, b]),
        parameters: run.grads.by_id.values().map(Vec::len).sum(),
        cost: Cost::since(started, run.tokens),
    };
    Ok((run.weights.model, report))
}

fn check(options: &OfflineOptions, train: &[&Example]) -> Result<(), LmError> {
    positive("learning rate", options.lr)?;
    if let Objective::Preference { beta, .. } = options.objective {
        positive("beta", beta)?;
    }
    if options.batch == 0 || options.epochs == 0 {
        return Err(LmError::Input("batch of 0 examples or 0 epochs: both must be at least 1".into()));
    }
    if train.is_empty() {
        return Err(LmError::Input("no example to train on; add some or hold out less".into()));
    }
    let empty = |e: &&&Example| e.sequences.iter().all(|s| s.completion().is_empty());
    match train.iter().find(empty) {
        Some(example) => Err(LmError::Input(format!("example {}: the completion has no tokens", example.id))),
        None => Ok(()),
    }
}

struct Run<'a> {
    options: &'a OfflineOptions,
    /// Of pairs; fine-tuning needs none, and holds no second model.
    reference: Option<Model>,
    weights: Weights,
    optimizer: AdamW,
    grads: Grads,
    dropout: Option<Key<'static>>,
    tokens: u64,
}

impl<'a> Run<'a> {
    fn new(base: Loaded, options: &'a OfflineOptions) -> Result<Self, LmError> {
        require_output_matrix(&base.backbone, &base.spec)?;
        let reference = match options.objective {
            Objective::Sft => None,
            Objective::Preference { reference, .. } => Some(reference.of(&base)),
        };
        let model = match (options.full, base.adapter) {
            (true, Some(adapter)) => Model::new(Arc::new(merged(base.backbone, &adapter)), None),
            (true, None) => Model::new(base.backbone, None),
            (false, Some(adapter)) => Model::new(base.backbone, Some(adapter)),
            (false, None) => {
                let adapter = fresh_adapter(&options.adapter, &base.backbone, options.seed)?;
                Model::new(base.backbone, Some(adapter))
            }
        };
        let weights = Weights { model, head: None };
        let grads = weights.zero_grads(if options.full { &Trainable::Full } else { &Trainable::Lora });
        let dropout = weights.dropout(options.seed, "offline-dropout")?;
        let optimizer = AdamW::new(options.optimizer);
        Ok(Self { options, reference, weights, optimizer, grads, dropout, tokens: 0 })
    }

    /// Sequence log-probs of each pair under the reference; zeros where none is needed.
    fn references(&mut self, examples: &[&Example]) -> Result<Vec<[f64; 2]>, LmError> {
        let Some(reference) = &self.reference else { return Ok(vec![[0.0; 2]; examples.len()]) };
        let sequences: Vec<Sequence> = examples.iter().flat_map(|e| e.sequences.clone()).collect();
        self.tokens += sequences.iter().map(|s| s.tokens.len() as u64).sum::<u64>();
        let mut sums = Vec::with_capacity(sequences.len());
        for range in batches(&sequences, self.options.settings.batch_tokens) {
            sums.extend(completion_logps(reference, &sequences[range], &[1.0])?.remove(0).iter().map(|l| sum(l)));
        }
        Ok(sums.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    fn mean_loss(&mut self, examples: &[&Example], references: &[[f64; 2]]) -> Result<Option<f64>, LmError> {
        if examples.is_empty() {
            return Ok(None);
        }
        let sequences: Vec<Sequence> = examples.iter().flat_map(|e| e.sequences.clone()).collect();
        self.tokens += sequences.iter().map(|s| s.tokens.len() as u64).sum::<u64>();
        let mut logps = Vec::with_capacity(sequences.len());
        for range in batches(&sequences, self.options.settings.batch_tokens) {
            logps.extend(completion_logps(&self.weights.model, &sequences[range], &[1.0])?.remove(0));
        }
        let tokens: Vec<Tokens> = logps.into_iter().map(|logps| Tokens { logps, values: Vec::new() }).collect();
        let share = share(self.options.objective, examples);
        let per_example = examples[0].sequences.len();
        let losses = examples.iter().zip(references).zip(tokens.chunks(per_example));
        Ok(Some(losses.map(|((e, r), now)| example_loss(self.options.objective, e, *r, now, share).0).sum()))
    }

    fn step(&mut self, batch: &[&Example], references: &[[f64; 2]], lr: f64, t: u32) -> Result<OfflineStep, LmError> {
        let objective = self.options.objective;
        let sequences: Vec<Sequence> = batch.iter().flat_map(|e| e.sequences.clone()).collect();
        let tokens = sequences.iter().map(|s| s.tokens.len() as u64).sum::<u64>();
        self.tokens += tokens;
        let mut units: Vec<Range<usize>> = Vec::with_capacity(batch.len());
        for example in batch {
            let start = units.last().map_or(0, |u| u.end);
            units.push(start..start + example.sequences.len());
        }
        let share = share(objective, batch);
        let (mut right, mut ordered) = (0.0, 0.0);
        let mut loss_of = |unit: usize, now: &[Tokens]| {
            let (loss, grads, margin) = example_loss(objective, batch[unit], references[unit], now, share);
            if batch[unit].p != 0.5 && now.len() == 2 {
                ordered += 1.0;
                right += f64::from(u8::from(margin * (batch[unit].p - 0.5) > 0.0));
            }
            (loss, grads)
        };
        self.grads.zero();
        let batch_tokens = self.options.settings.batch_tokens;
        let dropout = self.dropout.map(|key| key.step(t));
        let (weights, grads) = (&self.weights, &mut self.grads);
        let loss = pass::backward(weights, &sequences, &units, 1.0, batch_tokens, None, dropout, grads, &mut loss_of)?;
        let grad_norm = clip_global_norm(&mut self.grads, self.options.clip);
        if !(loss.is_finite() && grad_norm.is_finite()) {
            let ids: Vec<&str> = batch.iter().map(|e| e.id.as_str()).collect();
            return Err(LmError::Run(format!(
                "step {}: the loss is {loss} and the gradient norm {grad_norm} on examples {}; lower the learning rate \
                 (now {lr:.1e}) or look at these examples",
                t + 1,
                ids.join(", ")
            )));
        }
        self.weights.apply(&mut self.optimizer, &self.grads, lr);
        let accuracy = (ordered > 0.0).then(|| right / ordered);
        Ok(OfflineStep { step: t + 1, steps: 0, loss, accuracy, grad_norm, lr, tokens })
    }

    fn resume(&mut self, checkpoints: Option<&Checkpoints>) -> Result<Vec<OfflineStep>, LmError> {
        let saved = checkpoints.map(|c| c.restore(&mut self.weights, &mut self.optimizer)).transpose()?.flatten();
        let Some(Saved { history, .. }) = saved else { return Ok(Vec::new()) };
        serde_json::from_value(history)
            .map_err(|e| LmError::Run(format!("the checkpoint's history cannot be read: {e}")))
    }
}

/// What each example's loss is divided by: the completion tokens, or the pairs.
fn share(objective: Objective, examples: &[&Example]) -> f64 {
    let tokens: usize = examples.iter().flat_map(|e| &e.sequences).map(|s| s.completion().len()).sum();
    match objective {
        Objective::Sft => tokens.max(1) as f64,
        Objective::Preference { .. } => examples.len().max(1) as f64,
    }
}

/// An example's part of the mean loss, its derivatives, and a pair's margin.
fn example_loss(
    objective: Objective,
    example: &Example,
    reference: [f64; 2],
    now: &[Tokens],
    share: f64,
) -> (f64, Vec<TokenGrads>, f64) {
    let same = |tokens: &Tokens, d: f64| TokenGrads { logps: vec![d; tokens.logps.len()], values: Vec::new() };
    match objective {
        Objective::Sft => {
            let l = negative_log_likelihood(&now[0].logps);
            (l.loss / share, vec![same(&now[0], l.d_logp / share)], 0.0)
        }
        Objective::Preference { loss, beta, .. } => {
            let side = |s: usize| (sum(&now[s].logps), reference[s]);
            let l = preference_pair(loss, beta, example.p, side(0), side(1));
            (l.loss / share, vec![same(&now[0], l.d_first / share), same(&now[1], l.d_second / share)], l.margin)
        }
    }
}
