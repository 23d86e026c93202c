//! Weights from files, whatever the format, into a [`Backbone`].

pub mod digest;
pub mod gguf;
pub mod hf;
pub mod peft;
mod store;

use std::path::Path;
use std::sync::Arc;

use crate::config::{Family, ModelConfig};
use crate::error::LmError;
use crate::model::cache::WeightCache;
use crate::model::trunk::Trunk;
use crate::model::{Backbone, Layer, Linear, Norm, ParamId, Part, Place, Proj, Tensor};
use crate::names;

/// Where a backbone's tensors come from.
pub(crate) trait TensorSource {
    /// The tensor of a parameter, checked against `shape`; an error that names it where it is
    /// absent.
    fn read(&mut self, id: ParamId, shape: &[usize]) -> Result<Tensor, LmError>;
}

/// `[out, in]` of a projection.
pub fn linear_shape(config: &ModelConfig, proj: Proj) -> [usize; 2] {
    let (h, m) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
    match proj {
        Proj::Q => [q, h],
        Proj::K | Proj::V => [kv, h],
        Proj::Qkv => [q + 2 * kv, h],
        Proj::O => [h, q],
        Proj::Gate | Proj::Up => [m, h],
        Proj::Down => [h, m],
    }
}

fn has_bias(family: Family, proj: Proj) -> bool {
    match family {
        Family::GptNeoX => true,
        Family::Qwen2 => matches!(proj, Proj::Q | Proj::K | Proj::V),
        Family::Llama | Family::Qwen3 => false,
    }
}

/// Transformers that are in memory already, by their digests.
pub type Known<'a> = &'a dyn Fn(&str) -> Option<Arc<Backbone>>;

/// Reads every parameter that `config` asks for.
pub(crate) fn assemble(
    config: ModelConfig,
    digest: String,
    with_output: bool,
    source: &mut dyn TensorSource,
) -> Result<Backbone, LmError> {
    let matrix = [config.vocab_size, config.hidden_size];
    let embed = source.read(ParamId::Embed, &matrix)?;
    let layers = (0..config.num_layers).map(|l| layer(&config, l, source)).collect::<Result<_, _>>()?;
    let final_norm = norm(&config, config.hidden_size, ParamId::FinalNorm, source)?;
    let lm_head = match with_output && !config.tie_embeddings {
        true => Some(source.read(ParamId::LmHead, &matrix)?),
        false => None,
    };
    Ok(Backbone {
        config,
        embed,
        layers,
        final_norm,
        lm_head,
        digest,
        cache: WeightCache::default(),
        trunk: Trunk::default(),
        place: Place::default(),
    })
}

fn norm(
    config: &ModelConfig,
    width: usize,
    id: impl Fn(Part) -> ParamId,
    source: &mut dyn TensorSource,
) -> Result<Norm, LmError> {
    let weight = source.read(id(Part::Weight), &[width])?;
    let bias = match config.family {
        Family::GptNeoX => Some(source.read(id(Part::Bias), &[width])?),
        Family::Llama | Family::Qwen2 | Family::Qwen3 => None,
    };
    Ok(Norm { weight, bias })
}

fn layer(config: &ModelConfig, l: usize, source: &mut dyn TensorSource) -> Result<Layer, LmError> {
    let mut linears = [const { None }; Proj::ALL.len()];
    for &proj in names::projections(config.family) {
        let shape = linear_shape(config, proj);
        let weight = source.read(ParamId::Linear(l, proj, Part::Weight), &shape)?;
        let bias = match has_bias(config.family, proj) {
            true => Some(source.read(ParamId::Linear(l, proj, Part::Bias), &shape[..1])?),
            false => None,
        };
        linears[proj.index()] = Some(Linear { weight, bias });
    }
    let attn_norm = norm(config, config.hidden_size, |p| ParamId::AttnNorm(l, p), source)?;
    let mlp_norm = norm(config, config.hidden_size, |p| ParamId::MlpNorm(l, p), source)?;
    let mut head_norm = |id| match config.family {
        Family::Qwen3 => norm(config, config.head_dim, |_| id, source).map(Some),
        Family::Llama | Family::Qwen2 | Family::GptNeoX => Ok(None),
    };
    let q_norm = head_norm(ParamId::QNorm(l))?;
    let k_norm = head_norm(ParamId::KNorm(l))?;
    Ok(Layer { attn_norm, mlp_norm, q_norm, k_norm, linears })
}

/// Refuses a shape other than the configuration's.
pub(crate) fn check_shape(file: &Path, tensor: &str, found: &[usize], expected: &[usize]) -> Result<(), LmError> {
    if found == expected {
        return Ok(());
    }
    Err(LmError::tensor(file, tensor, format!("has shape {found:?}; the configuration asks for {expected:?}")))
}

/// Refuses NaN and infinities: a damaged file, or a training run that diverged.
pub(crate) fn check_finite(file: &Path, tensor: &str, data: &[f32]) -> Result<(), LmError> {
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => Err(LmError::tensor(
            file,
            tensor,
            format!("holds {} at element {i}: the file is damaged or its training diverged", data[i]),
        )),
    }
}
