//! What the training of a reward model is told, and what it tells.

use gainsay_core::stats::Calibration;
use serde::{Deserialize, Serialize};

use crate::config::Family;
use crate::error::LmError;
use crate::features::Read;
use crate::model::AdapterConfig;
use crate::optim::AdamWConfig;
use crate::sequence::{Settings, Truncate};
use crate::train::{Cost, HeadFitOptions, Heldout, PairCounts, Slice, default_adapter};

/// What of a reward model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardMethod {
    /// The head alone, fitted to its optimum on features that are computed once.
    Head,
    /// LoRA factors and the head. A base with an adapter goes on with that one.
    Lora,
    /// All weights and the head. A base's adapter is merged in first.
    Full,
}

/// Where a head starts when the base has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadInit {
    /// At zero: all rewards start equal.
    Zero,
    /// At the optimum for the untrained backbone (arXiv 2202.10054), for one more forward pass
    /// over the training pairs.
    Fitted,
}

/// Options of [`train_reward`].
#[derive(Clone, Debug, PartialEq)]
pub struct RewardTrainOptions {
    /// What is trained.
    pub method: RewardMethod,
    /// Shape of a new adapter.
    pub adapter: AdapterConfig,
    /// Where a new head starts.
    pub head_init: HeadInit,
    /// Penalty of a fitted head; see [`HeadFitOptions::l2`].
    pub l2: f64,
    /// Passes over the pairs.
    pub epochs: u32,
    /// Pairs an optimizer step: the gradient is their mean.
    pub batch_pairs: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// The optimizer's constants.
    pub optimizer: AdamWConfig,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f64,
    /// Weight of the centering term.
    pub center: f64,
    /// What the head reads; anything but the last token with [`RewardMethod::Head`] alone.
    pub reads: Vec<Read>,
    /// Heads of an ensemble, each fitted to a bootstrap sample of the prompts on the trained
    /// model's features; 0 for none.
    pub heads: usize,
    /// Learn the sides' safety labels too (Safe RLHF's cost model, reward = -cost).
    pub safety: bool,
    /// Share of the prompts whose pairs are held out; see [`super::is_heldout`].
    pub heldout: f64,
    /// Run seed: the adapter's start and the pairs' order.
    pub seed: u64,
    /// Round of the loop.
    pub round: u32,
    /// Sequence limits and tokens that go through the model together.
    pub settings: Settings,
}

impl RewardTrainOptions {
    /// The defaults of a method for a family of models.
    pub fn new(method: RewardMethod, family: Family) -> Self {
        Self {
            method,
            adapter: default_adapter(family),
            head_init: HeadInit::Fitted,
            l2: HeadFitOptions::default().l2,
            epochs: 1,
            batch_pairs: 8,
            lr: if method == RewardMethod::Full { 2e-5 } else { 1e-3 },
            warmup: 0.1,
            optimizer: AdamWConfig::default(),
            clip: 1.0,
            center: 0.01,
            reads: vec![Read::LAST],
            heads: 0,
            safety: false,
            heldout: 0.1,
            seed: 0,
            round: 0,
            settings: Settings {
                max_tokens: 1024,
                truncate: Truncate::Left,
                batch_tokens: 1024,
                ..Settings::default()
            },
        }
    }

    pub(in crate::train) fn check(&self) -> Result<(), LmError> {
        let wrong = |what: String| Err(LmError::Input(what));
        if !(0.0..1.0).contains(&self.heldout) {
            return wrong(format!("held-out share {}: it must lie in [0, 1)", self.heldout));
        }
        if self.method == RewardMethod::Head || self.head_init == HeadInit::Fitted {
            positive("l2", self.l2)?;
        }
        if !(self.center.is_finite() && self.center >= 0.0) {
            return wrong(format!("center {}: the centering term's weight must be 0 or more", self.center));
        }
        if self.reads.is_empty() || (self.reads != [Read::LAST] && self.method != RewardMethod::Head) {
            return wrong("a head on other features than the last token is trained with method head alone".into());
        }
        if self.heads == 1 {
            return wrong("an ensemble of 1 head: its variance needs at least 2".into());
        }
        if self.method != RewardMethod::Head {
            positive("learning rate", self.lr)?;
            if self.batch_pairs == 0 || self.epochs == 0 {
                return wrong("batch of 0 pairs or 0 epochs: both must be at least 1".into());
            }
        }
        Ok(())
    }
}

impl RewardTrainOptions {
    /// Refuses to read behind the last of `layers`.
    pub(in crate::train) fn check_reads(&self, layers: usize) -> Result<(), LmError> {
        match self.reads.iter().filter_map(|read| read.layer).find(|layer| *layer > layers) {
            None => Ok(()),
            Some(layer) => {
                Err(LmError::Input(format!("read @{layer}: the model has {layers} layers; read @0 to @{layers}")))
            }
        }
    }
}

pub(in crate::train) fn positive(name: &str, value: f64) -> Result<(), LmError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(LmError::Input(format!("{name} {value}: it must be positive")))
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardStep {
    /// From 1.
    pub step: u32,
    /// All steps of the run.
    pub steps: u32,
    /// Mean pair loss of the batch, before the step.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens of the batch.
    pub tokens: u64,
}

/// One pass over the pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: u32,
    /// Mean pair loss of the epoch's batches, each before its step.
    pub train_loss: f64,
    /// Figures on the held-out pairs after the epoch; `None` without held-out pairs.
    pub heldout: Option<Heldout>,
}

/// What [`train_reward`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardTrainReport {
    /// What was trained.
    pub method: RewardMethod,
    /// What became of the records.
    pub pairs: PairCounts,
    /// Numbers that were trained.
    pub parameters: usize,
    /// Figures on the held-out pairs before the first step (for a new head: of its start).
    pub heldout_before: Option<Heldout>,
    /// Mean pair loss of every step's batch, before the step.
    pub losses: Vec<f64>,
    /// How sure and how right the trained model is on the held-out pairs; `None` without them.
    pub calibration: Option<Calibration>,
    /// Its accuracy on parts of the held-out pairs: by topic, source and length.
    pub slices: Vec<Slice>,
    /// One entry a pass; one in all for [`RewardMethod::Head`].
    pub epochs: Vec<EpochReport>,
    /// Wall-clock values.
    pub cost: Cost,
}
