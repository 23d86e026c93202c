//! What a transformer looks like, whatever file it came from.

pub mod gguf;
pub mod json;

use std::fmt;
use std::path::Path;

pub use json::{HfConfig, Task};

use crate::error::LmError;

/// Families whose layers this crate computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama and what shares its layers (SmolLM2, Mistral without a window).
    Llama,
    /// Llama's layers with biases on q, k and v.
    Qwen2,
    /// Llama's layers with RMS norms on each head of q and k.
    Qwen3,
    /// GPT-NeoX and Pythia: fused q/k/v, LayerNorm, partial rotary, GELU.
    GptNeoX,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::GptNeoX => "gpt_neox",
        })
    }
}

/// The MLP's non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x), inside SwiGLU.
    Silu,
    /// The exact GELU, x * Phi(x).
    Gelu,
    /// GELU's tanh approximation.
    GeluTanh,
}

/// Llama 3's stretching of low rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// Division of the low frequencies.
    pub factor: f64,
    /// Wavelengths above `original_positions / low_freq_factor` are divided.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_positions / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context length of the pre-training.
    pub original_positions: f64,
}

/// Shape and constants of one transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which layers.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Leading dimensions of each head that are rotated (half-split); even.
    pub rotary_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Llama 3's frequency scaling.
    pub rope_scaling: Option<RopeScaling>,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// The output matrix is the embedding.
    pub tie_embeddings: bool,
    /// GPT-NeoX: attention and MLP read the same residual.
    pub parallel_residual: bool,
    /// The MLP's non-linearity.
    pub activation: Activation,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
}

/// Checks that the numbers fit together; `file` is where they came from.
pub(crate) fn validate(config: &ModelConfig, file: &Path) -> Result<(), LmError> {
    let c = config;
    let fail = |problem: String| Err(LmError::config(file, problem));
    if !c.num_heads.is_multiple_of(c.num_kv_heads) {
        return fail(format!("{} query heads cannot share {} key/value heads evenly", c.num_heads, c.num_kv_heads));
    }
    if c.rotary_dim == 0 || c.rotary_dim > c.head_dim || !c.rotary_dim.is_multiple_of(2) {
        return fail(format!(
            "{} of each head's {} dimensions would be rotated; an even number from 2 to {} can be",
            c.rotary_dim, c.head_dim, c.head_dim
        ));
    }
    if let Some(scaling) = c.rope_scaling
        && scaling.high_freq_factor <= scaling.low_freq_factor
    {
        return fail("rope scaling: `high_freq_factor` must be larger than `low_freq_factor`".to_owned());
    }
    Ok(())
}
