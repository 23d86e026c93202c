//! What a training run changes.

use std::sync::Arc;

use gainsay_core::rng::Key;

use crate::error::LmError;
use crate::model::{Adapter, AdapterConfig, Backbone, Grads, Model, Packed, ParamId, Trainable};
use crate::names;
use crate::optim::AdamW;

/// A model and, for rewards, its head, while they are trained.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Backbone and adapter.
    pub model: Model,
    /// `[hidden]`; reward models only.
    pub head: Option<Vec<f32>>,
}

impl Weights {
    /// Zero gradients of what is trained.
    pub fn zero_grads(&self, what: &Trainable) -> Grads {
        Grads::zeros(&self.model, what, self.head.is_some())
    }

    /// The key of the adapter's dropout, to which each step adds its number; `None` without dropout.
    ///
    /// # Errors
    /// A rate outside [0, 1).
    pub(super) fn dropout(&self, seed: u64, purpose: &'static str) -> Result<Option<Key<'static>>, LmError> {
        let rate = self.model.adapter.as_ref().map_or(0.0, |adapter| adapter.config.dropout);
        if !(0.0..1.0).contains(&rate) {
            return Err(LmError::Input(format!("LoRA dropout {rate}: it must be at least 0 and below 1")));
        }
        Ok((rate > 0.0).then(|| Key::new(seed, purpose)))
    }

    /// One optimizer step on every parameter that has a gradient, in parameter order. A backbone
    /// that others share is copied at the first step that changes it.
    pub fn apply(&mut self, optimizer: &mut AdamW, grads: &Grads, lr: f64) {
        optimizer.begin_step();
        for (&id, gradient) in &grads.by_id {
            if let Some(weights) = self.slice_mut(id) {
                optimizer.update(id, weights, gradient, lr);
            }
        }
    }

    /// A parameter's numbers; `None` where there is no such parameter.
    pub(super) fn slice(&self, id: ParamId) -> Option<&[f32]> {
        match id {
            ParamId::Head => self.head.as_deref(),
            ParamId::LoraA(..) | ParamId::LoraB(..) => {
                let params = self.model.adapter.as_ref()?.params();
                params.into_iter().find(|(other, _)| *other == id).map(|(_, t)| t.data.as_slice())
            }
            _ => {
                self.model.backbone.params().into_iter().find(|(other, _)| *other == id).map(|(_, t)| t.data.as_slice())
            }
        }
    }

    /// A parameter's numbers, to change.
    pub(super) fn slice_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        match id {
            ParamId::Head => self.head.as_deref_mut(),
            ParamId::LoraA(..) | ParamId::LoraB(..) => {
                self.model.adapter.as_mut()?.param_mut(id).map(|t| t.data.as_mut_slice())
            }
            _ => Arc::make_mut(&mut self.model.backbone).param_mut(id).map(|t| t.data.as_mut_slice()),
        }
    }
}

/// A batch with the adapter's dropout where there is a key.
pub(crate) fn dropped(packed: Packed, key: Option<Key<'_>>) -> Packed {
    match key {
        Some(key) => packed.with_dropout(key),
        None => packed,
    }
}

/// A fresh adapter on `backbone`.
///
/// # Errors
/// Rank 0, layers or projections that the backbone does not have.
pub(crate) fn fresh_adapter(config: &AdapterConfig, backbone: &Backbone, seed: u64) -> Result<Adapter, LmError> {
    let refuse = |what: String| Err(LmError::Input(what));
    if config.rank == 0 {
        return refuse("LoRA rank 0: it must be at least 1".into());
    }
    let (family, layers) = (backbone.config.family, backbone.layers.len());
    if let Some(layer) = config.layers.iter().flatten().find(|&&l| l >= layers) {
        return refuse(format!("LoRA layer {layer}: the model's layers are 0 to {}", layers - 1));
    }
    let known = names::projections(family);
    if let Some(target) = config.targets.iter().find(|t| !known.contains(t)) {
        let names: Vec<&str> = known.iter().map(|&p| names::module_name(family, p)).collect();
        return refuse(format!("LoRA target {target:?}: a {family} layer has {}", names.join(", ")));
    }
    let adapter = Adapter::new(config, backbone, seed);
    if adapter.pairs.is_empty() {
        return refuse("the LoRA configuration adapts nothing: name at least one target and one layer".into());
    }
    Ok(adapter)
}
