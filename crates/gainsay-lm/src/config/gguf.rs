//! The configuration in a GGUF file's metadata.

use std::f64::consts::TAU;

use super::{Activation, Family, ModelConfig, RopeScaling, validate};
use crate::error::LmError;
use crate::weights::gguf::GgufFile;

const SUPPORTED: [(&str, Family); 3] = [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3)];

/// Reads the shape and constants of the transformer in `file`.
pub fn read(file: &mut GgufFile) -> Result<ModelConfig, LmError> {
    let arch = file.text("general.architecture").unwrap_or("unnamed").to_owned();
    let family = SUPPORTED.iter().find(|(name, _)| *name == arch).map(|&(_, family)| family);
    let family = family.ok_or_else(|| LmError::UnknownArchitecture {
        file: file.path.clone(),
        found: arch.clone(),
        supported: format!("{} in GGUF files", SUPPORTED.map(|(name, _)| name).join(", ")),
    })?;
    let fields = Fields { file, arch: &arch };
    if fields.optional("expert_count").is_some_and(|n| n > 0) {
        return Err(fields.error("mixtures of experts are not supported"));
    }
    fields.check_rope()?;
    let hidden_size = fields.required("embedding_length")?;
    let num_heads = fields.required("attention.head_count")?;
    let head_dim = fields.optional("attention.key_length").unwrap_or(hidden_size / num_heads);
    let embed = file.tensor_shape("token_embd.weight").and_then(|s| s.first().copied());
    let mut config = ModelConfig {
        family,
        vocab_size: embed.ok_or_else(|| LmError::tensor(&file.path, "token_embd.weight", "is missing"))?,
        hidden_size,
        intermediate_size: fields.required("feed_forward_length")?,
        num_layers: fields.required("block_count")?,
        num_heads,
        num_kv_heads: fields.optional("attention.head_count_kv").unwrap_or(num_heads),
        head_dim,
        rotary_dim: fields.optional("rope.dimension_count").unwrap_or(head_dim),
        rope_theta: fields.float("rope.freq_base").unwrap_or(10_000.0),
        rope_scaling: None,
        norm_eps: fields.float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
        tie_embeddings: file.tensor_shape("output.weight").is_none(),
        parallel_residual: false,
        activation: Activation::Silu,
        max_positions: fields.required("context_length")?,
    };
    if config.rotary_dim != config.head_dim {
        return Err(fields.error("partly rotated heads are not supported in GGUF files"));
    }
    config.rope_scaling = rope_scaling(file, &config)?;
    validate(&config, &file.path)?;
    Ok(config)
}

struct Fields<'a> {
    file: &'a GgufFile,
    arch: &'a str,
}

impl Fields<'_> {
    fn error(&self, problem: impl Into<String>) -> LmError {
        LmError::config(&self.file.path, problem)
    }

    fn optional(&self, key: &str) -> Option<usize> {
        self.file.integer(&format!("{}.{key}", self.arch)).map(|n| n as usize)
    }

    fn required(&self, key: &str) -> Result<usize, LmError> {
        let value = self.optional(key).filter(|&n| n > 0);
        value.ok_or_else(|| self.error(format!("metadata `{}.{key}` is missing or not a positive integer", self.arch)))
    }

    fn float(&self, key: &str) -> Option<f64> {
        self.file.float(&format!("{}.{key}", self.arch)).filter(|x| *x > 0.0)
    }

    fn check_rope(&self) -> Result<(), LmError> {
        let kind = self.file.text(&format!("{}.rope.scaling.type", self.arch));
        match kind {
            None | Some("none") => Ok(()),
            Some(other) => Err(self.error(format!("rope scaling `{other}` is not supported"))),
        }
    }
}

/// Llama 3's scaling as the published models use it. GGUF stores only the resulting divisor of
/// each frequency, so it is recognized by its values.
fn rope_scaling(file: &mut GgufFile, config: &ModelConfig) -> Result<Option<RopeScaling>, LmError> {
    const TENSOR: &str = "rope_freqs.weight";
    if file.tensor_shape(TENSOR).is_none() {
        return Ok(None);
    }
    let stored = file.tensor(TENSOR, &[config.rotary_dim / 2])?.data;
    let known = [8.0, 16.0, 32.0].map(|factor| RopeScaling {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_positions: 8192.0,
    });
    let agrees = |scaling: &RopeScaling| {
        let expected = divisors(config.rope_theta, config.rotary_dim, scaling);
        stored.iter().zip(expected).all(|(&s, e)| (f64::from(s) - e).abs() <= 1e-4 * e)
    };
    match known.into_iter().find(agrees) {
        Some(scaling) => Ok(Some(scaling)),
        None => Err(LmError::tensor(&file.path, TENSOR, "is not Llama 3's rope scaling; others are not supported")),
    }
}

/// What Llama 3's scaling divides each rotary frequency by: 1 for short wavelengths, `factor` for
/// long ones, and between them 1 / ((1 - s) / factor + s) with s linear in the inverse wavelength.
fn divisors(theta: f64, rotary_dim: usize, scaling: &RopeScaling) -> Vec<f64> {
    let RopeScaling { factor, low_freq_factor: low, high_freq_factor: high, original_positions } = *scaling;
    let divisor = |i: usize| {
        let wavelength = TAU * theta.powf(2.0 * i as f64 / rotary_dim as f64);
        if wavelength < original_positions / high {
            1.0
        } else if wavelength > original_positions / low {
            factor
        } else {
            let smooth = (original_positions / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..rotary_dim / 2).map(divisor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_divisors_keep_short_waves_and_stretch_long_ones() {
        let scaling =
            RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192.0 };
        let d = divisors(500_000.0, 128, &scaling);
        assert_eq!((d.len(), d[0], d[63]), (64, 1.0, 8.0));
        assert!(d.windows(2).all(|w| w[0] <= w[1]));
        // Wavelength 8192 / 2 = 4096: s = (2 - 1) / (4 - 1) = 1/3, divisor 1 / (2/24 + 1/3) = 2.4.
        let theta = 4096.0 / TAU;
        let one = divisors(theta * theta, 4, &scaling);
        assert!((one[1] - 2.4).abs() < 1e-12, "{one:?}");
    }
}
