//! Forward and backward of a whole model over packed sequences.

use std::sync::Arc;

use super::ops::Mat;
use super::params::{Adapter, Backbone, Grads, Model, Packed};

/// What a backward pass needs: the input of every layer, and the final hidden rows.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The sequences.
    pub batch: Packed,
    /// The residual stream before each layer and after the last one.
    pub inputs: Vec<Mat>,
    /// After the final norm, `[tokens, hidden]`.
    pub hidden: Mat,
}

impl Model {
    /// A model that computes with `backbone`, and with `adapter` on top where there is one.
    pub fn new(backbone: Arc<Backbone>, adapter: Option<Adapter>) -> Self {
        Self { backbone, adapter }
    }

    /// Hidden rows after the final norm, `[tokens, hidden]`.
    pub fn hidden(&self, batch: &Packed) -> Mat {
        let _ = batch;
        unimplemented!()
    }

    /// The residual stream after `layer` layers (0: the embeddings), before any final norm.
    pub fn hidden_at(&self, batch: &Packed, layer: usize) -> Mat {
        let _ = (batch, layer);
        unimplemented!()
    }

    /// As [`Model::hidden`], keeping what [`Model::backward`] needs.
    pub fn forward_tape(&self, batch: &Packed) -> Tape {
        let _ = batch;
        unimplemented!()
    }

    /// Adds to `grads` the gradients that `d_hidden`, the gradient of the final hidden rows,
    /// sends to the parameters in `grads`; others cost no work.
    pub fn backward(&self, tape: &Tape, d_hidden: Mat, grads: &mut Grads) {
        let _ = (tape, d_hidden, grads);
        unimplemented!()
    }

    /// log softmax(hidden\[row\]·Uᵀ / temperature)\[target\] in nats for each (row, target).
    pub fn token_logps(&self, hidden: &Mat, rows: &[usize], targets: &[u32], temperature: f32) -> Vec<f32> {
        let _ = (hidden, rows, targets, temperature);
        unimplemented!()
    }

    /// Adds the gradients of sum(d_logp · [`Model::token_logps`]) to `d_hidden` and, where the
    /// output matrix is trained, to `grads`.
    #[allow(clippy::too_many_arguments)]
    pub fn token_logps_backward(
        &self,
        hidden: &Mat,
        rows: &[usize],
        targets: &[u32],
        temperature: f32,
        d_logp: &[f32],
        d_hidden: &mut Mat,
        grads: &mut Grads,
    ) {
        let _ = (hidden, rows, targets, temperature, d_logp, d_hidden, grads);
        unimplemented!()
    }
}
