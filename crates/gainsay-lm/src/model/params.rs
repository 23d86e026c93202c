//! Parameters and their names. A frozen [`Backbone`] is shared (`Arc`) by the base policy, the
//! tuned policy and the reward models; what LoRA trains lives in an [`Adapter`] beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cache::WeightCache;
use super::device::Place;
use super::trunk::Trunk;
use crate::config::ModelConfig;

/// A dense f32 array, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Projections of a layer. Llama and Qwen have Q, K, V, O, Gate, Up, Down; GPT-NeoX has Qkv
/// (per head: q, k, v rows), O (`dense`), Up (`dense_h_to_4h`), Down (`dense_4h_to_h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proj {
    /// Query.
    Q,
    /// Key.
    K,
    /// Value.
    V,
    /// Fused query, key, value.
    Qkv,
    /// Attention output.
    O,
    /// SwiGLU gate.
    Gate,
    /// Into the MLP.
    Up,
    /// Out of the MLP.
    Down,
}

impl Proj {
    /// Every projection, in the order of [`Layer::linears`].
    pub const ALL: [Self; 8] = [Self::Q, Self::K, Self::V, Self::Qkv, Self::O, Self::Gate, Self::Up, Self::Down];
}

/// y = x W^T + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
}

/// RMSNorm (no bias) or LayerNorm (with bias).
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// `[width]`.
    pub weight: Tensor,
    /// `[width]`; present for LayerNorm only.
    pub bias: Option<Tensor>,
}

/// One transformer layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Before attention.
    pub attn_norm: Norm,
    /// Before the MLP.
    pub mlp_norm: Norm,
    /// Qwen3: on each query head, `[head_dim]`.
    pub q_norm: Option<Norm>,
    /// Qwen3: on each key head, `[head_dim]`.
    pub k_norm: Option<Norm>,
    /// Indexed as [`Proj::ALL`]; `None` where the family has no such projection.
    pub linears: [Option<Linear>; 8],
}

/// All weights of a transformer without task heads other than the output matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Backbone {
    /// Shape and constants.
    pub config: ModelConfig,
    /// `[vocab, hidden]`.
    pub embed: Tensor,
    /// Input side first.
    pub layers: Vec<Layer>,
    /// Before the output matrix and before a reward head.
    pub final_norm: Norm,
    /// `[vocab, hidden]`; `None` when tied to `embed`.
    pub lm_head: Option<Tensor>,
    /// SHA-256 of the files it was loaded from, for `meta.logp_policy`.
    pub digest: String,
    /// The engine's own copies; `WeightCache::default()` to begin with.
    pub cache: WeightCache,
    /// Rows that models on this backbone have in common; `Trunk::default()` to begin with.
    pub trunk: Trunk,
    /// Where it computes; `Place::Engine` to begin with.
    pub place: Place,
}

/// What a LoRA adapter adds where (arXiv 2106.09685): W + (alpha / rank) B A.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of the update.
    pub rank: usize,
    /// Scale numerator.
    pub alpha: f64,
    /// Dropout on the adapter's input while training.
    pub dropout: f64,
    /// Projections that are adapted.
    pub targets: Vec<Proj>,
    /// Layers that are adapted; `None` for all.
    pub layers: Option<Vec<usize>>,
}

/// The two factors of one adapted projection.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPair {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
}

/// LoRA factors of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What is adapted.
    pub config: AdapterConfig,
    /// By (layer, projection).
    pub pairs: BTreeMap<(usize, Proj), LoraPair>,
}

/// A backbone with or without an adapter: what forward and backward compute.
#[derive(Clone, Debug)]
pub struct Model {
    /// The weights, shared.
    pub backbone: Arc<Backbone>,
    /// The update on top of them.
    pub adapter: Option<Adapter>,
}

/// Weight or bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The matrix or scale.
    Weight,
    /// The offset.
    Bias,
}

/// Names a parameter; the order is the optimizer's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParamId {
    /// Token embedding (and the output matrix, when tied).
    Embed,
    /// Norm before attention.
    AttnNorm(usize, Part),
    /// Norm before the MLP.
    MlpNorm(usize, Part),
    /// Norm on query heads.
    QNorm(usize),
    /// Norm on key heads.
    KNorm(usize),
    /// A projection.
    Linear(usize, Proj, Part),
    /// LoRA's A.
    LoraA(usize, Proj),
    /// LoRA's B.
    LoraB(usize, Proj),
    /// Norm before the heads.
    FinalNorm(Part),
    /// The untied output matrix.
    LmHead,
    /// The scalar reward (or value) head, `[hidden]`.
    Head,
}

/// Which parameters get gradients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// Only a head outside the backbone.
    Head,
    /// The adapter's factors.
    Lora,
    /// All weights of the backbone.
    Full,
}

/// Gradients of the trainable parameters; no entry exists for a frozen one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grads {
    /// Zero-initialized, in parameter order, each as long as its parameter.
    pub by_id: BTreeMap<ParamId, Vec<f32>>,
    /// Parameters that the backward pass has reached.
    pub reached: BTreeSet<ParamId>,
}
