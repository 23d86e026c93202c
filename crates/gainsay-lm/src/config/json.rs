//! `config.json` of Hugging Face folders, read and written.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Activation, Family, ModelConfig, RopeScaling};
use crate::error::{LmError, read_json};

/// What a folder's checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Next-token prediction: there is an output matrix.
    Causal,
    /// A scalar reward: there is `score.weight`, `[1, hidden]`, and no output matrix.
    Reward,
}

/// A parsed `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// Shape and constants.
    pub model: ModelConfig,
    /// What the checkpoint holds beside the backbone.
    pub task: Task,
    /// End-of-sequence ids, in the file's order.
    pub eos: Vec<u32>,
    /// The padding id. transformers reads a reward at the last id that differs from it, so a
    /// reward model's must not be one that completions end in.
    pub pad: Option<u32>,
}

const SUPPORTED: [(&str, Family, Task); 9] = [
    ("LlamaForCausalLM", Family::Llama, Task::Causal),
    ("LlamaForSequenceClassification", Family::Llama, Task::Reward),
    ("MistralForCausalLM", Family::Llama, Task::Causal),
    ("Qwen2ForCausalLM", Family::Qwen2, Task::Causal),
    ("Qwen2ForSequenceClassification", Family::Qwen2, Task::Reward),
    ("Qwen3ForCausalLM", Family::Qwen3, Task::Causal),
    ("Qwen3ForSequenceClassification", Family::Qwen3, Task::Reward),
    ("GPTNeoXForCausalLM", Family::GptNeoX, Task::Causal),
    ("GPTNeoXForSequenceClassification", Family::GptNeoX, Task::Reward),
];

impl HfConfig {
    /// Reads `path`, a `config.json`.
    pub fn read(path: &Path) -> Result<Self, LmError> {
        Self::parse(path, &read_json(path)?)
    }

    /// Parses the contents of `path`.
    pub fn parse(path: &Path, json: &Value) -> Result<Self, LmError> {
        let fields = Fields { path, json };
        let (family, task, architecture) = fields.architecture()?;
        fields.refuse_unsupported(family, architecture)?;
        let model = fields.model(family)?;
        super::validate(&model, path)?;
        if task == Task::Reward {
            fields.check_single_label()?;
        }
        let pad = token_ids(json.get("pad_token_id")).first().copied();
        Ok(Self { model, task, eos: token_ids(json.get("eos_token_id")), pad })
    }
}

/// A token-id field: one id, a list, or null.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(v) => id(v).into_iter().collect(),
        None => Vec::new(),
    }
}

struct Fields<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl<'a> Fields<'a> {
    fn error(&self, problem: impl Into<String>) -> LmError {
        LmError::config(self.path, problem)
    }

    /// A field that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str) -> Result<Option<usize>, LmError> {
        self.get(key)
            .map(|v| {
                let n = v.as_u64().filter(|&n| n > 0 && n <= u64::from(u32::MAX));
                n.map(|n| n as usize).ok_or_else(|| self.error(format!("`{key}` is {v}, expected a positive integer")))
            })
            .transpose()
    }

    fn required(&self, key: &str) -> Result<usize, LmError> {
        self.size(key)?.ok_or_else(|| self.error(format!("`{key}` is missing")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, LmError> {
        self.get(key).map(|v| self.positive(key, v)).transpose()
    }

    fn positive(&self, key: &str, value: &Value) -> Result<f64, LmError> {
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| self.error(format!("`{key}` is {value}, expected a positive number")))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, LmError> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(format!("`{key}` is {v}, expected true or false"))),
        }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn architecture(&self) -> Result<(Family, Task, &'a str), LmError> {
        let named = self.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let Some(found) = named.or_else(|| self.text("model_type")) else {
            return Err(self.error("`architectures` is missing: this is not the configuration of a language model"));
        };
        let hit = SUPPORTED.iter().find(|(name, ..)| *name == found);
        hit.map(|&(_, family, task)| (family, task, found)).ok_or_else(|| LmError::UnknownArchitecture {
            file: self.path.to_path_buf(),
            found: found.to_owned(),
            supported: SUPPORTED.map(|(name, ..)| name).join(", "),
        })
    }

    /// Variants of the supported families whose layers compute something else.
    fn refuse_unsupported(&self, family: Family, architecture: &str) -> Result<(), LmError> {
        let window = match self.json.get("sliding_window") {
            // Mistral's own default when the field is absent.
            None if architecture.starts_with("Mistral") => true,
            None | Some(Value::Null) => false,
            Some(_) => architecture.starts_with("Mistral") || self.flag("use_sliding_window", false)?,
        };
        let types = self.get("layer_types").and_then(Value::as_array);
        let other = types.and_then(|t| t.iter().find(|v| v.as_str() != Some("full_attention")));
        if window || other.is_some() {
            return Err(self.error("sliding-window attention is not supported; only full attention is"));
        }
        for key in ["attention_bias", "mlp_bias"] {
            let expected = family == Family::GptNeoX && key == "attention_bias";
            if family != Family::Qwen2 && self.flag(key, expected)? != expected {
                return Err(self.error(format!("`{key}: {}` is not supported for {family}", !expected)));
            }
        }
        if let Some(quantization) = self.get("quantization_config") {
            let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            return Err(
                self.error(format!("the weights are quantized ({method}); use the float checkpoint or a .gguf file"))
            );
        }
        Ok(())
    }

    fn model(&self, family: Family) -> Result<ModelConfig, LmError> {
        let neox = family == Family::GptNeoX;
        let hidden_size = self.required("hidden_size")?;
        let num_heads = self.required("num_attention_heads")?;
        let num_kv_heads = if neox { num_heads } else { self.size("num_key_value_heads")?.unwrap_or(num_heads) };
        if self.get("head_dim").is_none() && family != Family::Qwen3 && !hidden_size.is_multiple_of(num_heads) {
            return Err(self.error(format!("hidden size {hidden_size} does not divide into {num_heads} heads")));
        }
        let default_head_dim = if family == Family::Qwen3 { 128 } else { hidden_size / num_heads };
        let head_dim = if neox { None } else { self.size("head_dim")? }.unwrap_or(default_head_dim);
        let (rope_theta, partial, rope_scaling) = self.rope(neox)?;
        Ok(ModelConfig {
            family,
            vocab_size: self.required("vocab_size")?,
            hidden_size,
            intermediate_size: self.required("intermediate_size")?,
            num_layers: self.required("num_hidden_layers")?,
            num_heads,
            num_kv_heads,
            head_dim,
            // As transformers: the product is cut off, not rounded.
            rotary_dim: (head_dim as f64 * partial) as usize,
            rope_theta,
            rope_scaling,
            norm_eps: self.norm_eps(neox)?,
            tie_embeddings: self.flag("tie_word_embeddings", false)?,
            parallel_residual: neox && self.flag("use_parallel_residual", true)?,
            activation: self.activation(neox)?,
            max_positions: self.size("max_position_embeddings")?.unwrap_or(2048),
        })
    }

    fn norm_eps(&self, neox: bool) -> Result<f32, LmError> {
        let (key, default) = if neox { ("layer_norm_eps", 1e-5) } else { ("rms_norm_eps", 1e-6) };
        Ok(self.number(key)?.unwrap_or(default) as f32)
    }

    fn activation(&self, neox: bool) -> Result<Activation, LmError> {
        match (neox, self.text("hidden_act").unwrap_or(if neox { "gelu" } else { "silu" })) {
            (false, "silu" | "swish") => Ok(Activation::Silu),
            (true, "gelu") => Ok(Activation::Gelu),
            (true, "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            (_, other) => Err(self.error(format!("`hidden_act: {other}` is not supported for this architecture"))),
        }
    }

    /// (theta, rotated fraction of a head, scaling): from transformers 5's `rope_parameters`, or
    /// from the separate fields before it.
    fn rope(&self, neox: bool) -> Result<(f64, f64, Option<RopeScaling>), LmError> {
        let nested = self.get("rope_parameters");
        let inner = |key: &str| nested.and_then(|r| r.get(key)).filter(|v| !v.is_null());
        let pick = |key: &str, old: &str| -> Result<Option<f64>, LmError> {
            match inner(key) {
                Some(v) => self.positive(&format!("rope_parameters.{key}"), v).map(Some),
                None => self.number(old),
            }
        };
        let theta = pick("rope_theta", if neox { "rotary_emb_base" } else { "rope_theta" })?;
        let partial = pick("partial_rotary_factor", if neox { "rotary_pct" } else { "partial_rotary_factor" })?;
        let scaling = match nested.or_else(|| self.get("rope_scaling")) {
            None => None,
            Some(scaling) => self.rope_scaling(scaling)?,
        };
        Ok((theta.unwrap_or(10_000.0), partial.unwrap_or(if neox { 0.25 } else { 1.0 }), scaling))
    }

    fn rope_scaling(&self, scaling: &Value) -> Result<Option<RopeScaling>, LmError> {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        match kind.unwrap_or("default") {
            "default" => Ok(None),
            "llama3" => {
                let field = |key: &str| {
                    let value = scaling.get(key).ok_or_else(|| self.error(format!("rope scaling has no `{key}`")))?;
                    self.positive(key, value)
                };
                Ok(Some(RopeScaling {
                    factor: field("factor")?,
                    low_freq_factor: field("low_freq_factor")?,
                    high_freq_factor: field("high_freq_factor")?,
                    original_positions: field("original_max_position_embeddings")?,
                }))
            }
            other => Err(self.error(format!("rope scaling `{other}` is not supported; `default` and `llama3` are"))),
        }
    }

    fn check_single_label(&self) -> Result<(), LmError> {
        let labels = match self.get("num_labels") {
            Some(n) => n.as_u64(),
            // transformers writes the labels' names; without any there are two.
            None => Some(self.get("id2label").and_then(Value::as_object).map_or(2, |m| m.len() as u64)),
        };
        match labels {
            Some(1) => Ok(()),
            _ => Err(self.error(
                "a reward model has exactly one label (`id2label` with one entry, or `num_labels: 1`); \
                 this is a classifier of several",
            )),
        }
    }
}

/// `config.json` of a model, as transformers reads it back: the inverse of [`HfConfig::parse`].
pub fn to_json(config: &HfConfig) -> Value {
    let model = &config.model;
    let (kind, class) = match model.family {
        Family::Llama => ("llama", "Llama"),
        Family::Qwen2 => ("qwen2", "Qwen2"),
        Family::Qwen3 => ("qwen3", "Qwen3"),
        Family::GptNeoX => ("gpt_neox", "GPTNeoX"),
    };
    let suffix = match config.task {
        Task::Causal => "ForCausalLM",
        Task::Reward => "ForSequenceClassification",
    };
    let mut out = json!({
        "architectures": [format!("{class}{suffix}")],
        "model_type": kind,
        "torch_dtype": "float32",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.tie_embeddings,
        "attention_dropout": 0.0,
        "use_cache": true,
    });
    let Value::Object(fields) = &mut out else {
        return out;
    };
    family_fields(model, fields);
    match config.eos.as_slice() {
        [] => {}
        [one] => drop(fields.insert("eos_token_id".into(), json!(one))),
        many => drop(fields.insert("eos_token_id".into(), json!(many))),
    }
    if let Some(pad) = config.pad {
        fields.insert("pad_token_id".into(), json!(pad));
    }
    if config.task == Task::Reward {
        fields.insert("id2label".into(), json!({"0": "LABEL_0"}));
        fields.insert("label2id".into(), json!({"LABEL_0": 0}));
    }
    out
}

fn family_fields(model: &ModelConfig, fields: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| drop(fields.insert(key.into(), value));
    // The shortest decimal of the f32, not its f64 expansion.
    let eps: f64 = model.norm_eps.to_string().parse().unwrap_or(f64::from(model.norm_eps));
    if model.family == Family::GptNeoX {
        put("layer_norm_eps", json!(eps));
        put("use_parallel_residual", json!(model.parallel_residual));
        put("attention_bias", json!(true));
        put("rotary_pct", json!(model.rotary_dim as f64 / model.head_dim as f64));
        put("rotary_emb_base", json!(model.rope_theta));
        put("hidden_act", json!(if model.activation == Activation::GeluTanh { "gelu_new" } else { "gelu" }));
        return;
    }
    put("rms_norm_eps", json!(eps));
    put("hidden_act", json!("silu"));
    put("num_key_value_heads", json!(model.num_kv_heads));
    put("head_dim", json!(model.head_dim));
    put("rope_theta", json!(model.rope_theta));
    match model.family {
        Family::Llama => {
            put("attention_bias", json!(false));
            put("mlp_bias", json!(false));
        }
        Family::Qwen3 => put("attention_bias", json!(false)),
        Family::Qwen2 | Family::GptNeoX => {}
    }
    if matches!(model.family, Family::Qwen2 | Family::Qwen3) {
        put("use_sliding_window", json!(false));
        put("sliding_window", Value::Null);
    }
    if model.rotary_dim != model.head_dim {
        put("partial_rotary_factor", json!(model.rotary_dim as f64 / model.head_dim as f64));
    }
    let scaling = model.rope_scaling.map(|s| {
        json!({
            "rope_type": "llama3",
            "factor": s.factor,
            "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_positions as u64,
        })
    });
    put("rope_scaling", scaling.unwrap_or(Value::Null));
}
