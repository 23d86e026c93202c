//! One layer, forward; backward is candle's, one layer at a time.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use gainsay_kernels::attention::Heads;

use super::ops::{Angles, activate, norm, product, rotate};
use super::weights::Weights;
use crate::config::ModelConfig;
use crate::model::dropout::Dropout;
use crate::model::ops::{Mat, rope_frequencies};
use crate::model::params::{Model, ParamId, Part, Proj};

/// What computes: the shape, the weights, and what stands beside or in place of them.
pub(super) struct Computer<'a> {
    pub config: &'a ModelConfig,
    pub weights: &'a Weights,
    /// The adapter's factors; in a backward pass the variables that gradients are asked for.
    pub own: BTreeMap<ParamId, Tensor>,
    /// alpha / rank of the adapter.
    pub scale: f64,
    /// The rate of the adapter's dropout.
    pub rate: f64,
    /// One key of it a row; empty outside of training.
    pub dropout: &'a [u64],
}

impl<'a> Computer<'a> {
    /// Without an adapter.
    pub fn of_backbone(model: &'a Model, weights: &'a Weights) -> Self {
        Self { config: &model.backbone.config, weights, own: BTreeMap::new(), scale: 1.0, rate: 0.0, dropout: &[] }
    }
}

impl Computer<'_> {
    pub fn device(&self) -> &Device {
        &self.weights.device
    }

    /// A parameter; `None` where this model has no such parameter.
    pub fn get(&self, id: ParamId) -> Option<&Tensor> {
        self.own.get(&id).or_else(|| self.weights.by_id.get(&id))
    }

    /// A parameter that every model of the family has.
    fn weight(&self, id: ParamId) -> Result<&Tensor> {
        match self.get(id) {
            Some(tensor) => Ok(tensor),
            None => candle_core::bail!("the model has no {id:?}"),
        }
    }

    fn has(&self, l: usize, proj: Proj) -> bool {
        self.weights.by_id.contains_key(&ParamId::Linear(l, proj, Part::Weight))
    }

    /// The embeddings of tokens, `[tokens, hidden]`.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.weight(ParamId::Embed)?.index_select(&Tensor::new(tokens, self.device())?, 0)
    }

    /// Rotary angles of rows at these positions, computed in f64.
    pub fn angles(&self, positions: &[u32]) -> Result<Angles> {
        let frequencies = rope_frequencies(self.config);
        let angles = positions.iter().flat_map(|p| frequencies.iter().map(|f| f64::from(*p) * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let shape = (positions.len(), 1, frequencies.len());
        let upload = |values| Tensor::from_vec(values, shape, self.device());
        Ok(Angles { cos: upload(cos)?, sin: upload(sin)? })
    }

    /// The norm that `id` names.
    pub fn norm(&self, id: impl Fn(Part) -> ParamId, x: &Tensor) -> Result<Tensor> {
        norm(x, self.weight(id(Part::Weight))?, self.get(id(Part::Bias)), self.config.norm_eps)
    }

    /// The adapter's input x after its dropout: the engine's masks, drawn on the host.
    fn dropped(&self, place: (usize, Proj), x: &Tensor) -> Result<Tensor> {
        let dropout = Dropout { keys: self.dropout, rate: self.rate, place };
        if dropout.is_off() {
            return Ok(x.clone());
        }
        let (rows, cols) = x.dims2()?;
        let mut mask = Mat { rows, cols, data: vec![1.0; rows * cols] };
        dropout.apply(&mut mask);
        x * Tensor::from_vec(mask.data, (rows, cols), self.device())?
    }

    /// x Wᵀ + b + (alpha / rank) (x̃ Aᵀ) Bᵀ; x̃ is x after dropout.
    fn linear(&self, l: usize, proj: Proj, x: &Tensor) -> Result<Tensor> {
        let mut y = product(x, self.weight(ParamId::Linear(l, proj, Part::Weight))?)?;
        if let Some(bias) = self.get(ParamId::Linear(l, proj, Part::Bias)) {
            y = y.broadcast_add(bias)?;
        }
        let (a, b) = (self.own.get(&ParamId::LoraA(l, proj)), self.own.get(&ParamId::LoraB(l, proj)));
        if let Some((a, b)) = a.zip(b) {
            let low = product(&self.dropped((l, proj), x)?, a)?;
            y = (y + product(&(low * self.scale)?, b)?)?;
        }
        Ok(y)
    }

    /// Queries `[rows, heads, dim]`, keys and values `[rows, kv_heads, dim]` of normed rows, after
    /// the head norms and the rotation.
    fn qkv(&self, l: usize, x: &Tensor, angles: &Angles) -> Result<[Tensor; 3]> {
        let Heads { heads, kv_heads, dim } = self.heads();
        let rows = x.dim(0)?;
        let [q, k, v] = if self.has(l, Proj::Qkv) {
            let all = self.linear(l, Proj::Qkv, x)?.reshape((rows, heads, 3, dim))?;
            let part = |i: usize| all.narrow(2, i, 1)?.squeeze(2)?.contiguous();
            [part(0)?, part(1)?, part(2)?]
        } else {
            let part = |proj, heads: usize| self.linear(l, proj, x)?.reshape((rows, heads, dim));
            [part(Proj::Q, heads)?, part(Proj::K, kv_heads)?, part(Proj::V, kv_heads)?]
        };
        let normed = |id: ParamId, x: Tensor| match self.get(id) {
            Some(weight) => norm(&x, weight, None, self.config.norm_eps),
            None => Ok(x),
        };
        let (q, k) = (normed(ParamId::QNorm(l), q)?, normed(ParamId::KNorm(l), k)?);
        Ok([rotate(&q, angles)?, rotate(&k, angles)?, v])
    }

    pub fn heads(&self) -> Heads {
        let config = self.config;
        Heads { heads: config.num_heads, kv_heads: config.num_kv_heads, dim: config.head_dim }
    }

    fn mlp(&self, l: usize, x: &Tensor) -> Result<Tensor> {
        let up = self.linear(l, Proj::Up, x)?;
        let act = if self.has(l, Proj::Gate) {
            (activate(self.config.activation, &self.linear(l, Proj::Gate, x)?)? * up)?
        } else {
            activate(self.config.activation, &up)?
        };
        self.linear(l, Proj::Down, &act)
    }

    /// The residual stream after the layer, from that before it, `[rows, hidden]`. `attend` mixes
    /// queries, keys and values.
    pub fn layer(
        &self,
        l: usize,
        x: &Tensor,
        angles: &Angles,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [q, k, v] = self.qkv(l, &self.norm(|p| ParamId::AttnNorm(l, p), x)?, angles)?;
        let middle = (x + self.linear(l, Proj::O, &attend(&q, &k, &v)?)?)?;
        let read = if self.config.parallel_residual { x } else { &middle };
        let mlp = self.mlp(l, &self.norm(|p| ParamId::MlpNorm(l, p), read)?)?;
        middle + mlp
    }

    /// The output matrix's logits of rows after the final norm, `[rows, vocab]`: operands in the
    /// weights' format, sums in f32 also where the device's products of that format would round
    /// them (a logit of 20 would be off by up to 0.06).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let output = &self.weights.output;
        let rounded = hidden.to_dtype(output.dtype())?.to_dtype(DType::F32)?;
        rounded.matmul(&output.to_dtype(DType::F32)?.t()?)
    }
}
