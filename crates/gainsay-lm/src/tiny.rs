//! A built-in random model with a byte vocabulary: whole pipelines run on it in seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_core::rng::Key;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::config::json::to_json;
use crate::config::{Activation, Family, HfConfig, ModelConfig, Task};
use crate::error::LmError;
use crate::model::{Backbone, ParamId, Part, Tensor};
use crate::names;
use crate::source::Loaded;
use crate::tokenizer::{Parts, Tokenizer};
use crate::weights::{TensorSource, assemble, digest};

const NAME: &str = "tiny-random";
const BYTES: u32 = 256;
const TURN_START: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";
/// ChatML.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
                        message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
                        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The seed in `tiny-random[:seed]` (0 where absent); `None` for any other text.
pub(crate) fn parse_spec(spec: &str) -> Option<Result<u64, LmError>> {
    let rest = spec.strip_prefix(NAME)?;
    if rest.is_empty() {
        return Some(Ok(0));
    }
    let seed = rest.strip_prefix(':')?;
    Some(seed.parse().map_err(|_| LmError::NoModel {
        spec: spec.to_owned(),
        problem: format!("the seed `{seed}` is not a whole number"),
    }))
}

/// Two layers of width 32, four heads on two key/value heads, tied embedding.
pub fn config() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        vocab_size: BYTES as usize + 2,
        hidden_size: 32,
        intermediate_size: 64,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        rotary_dim: 8,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_eps: 1e-5,
        tie_embeddings: true,
        parallel_residual: false,
        activation: Activation::Silu,
        max_positions: 2048,
    }
}

/// The random model of `seed`, with a random reward head, so that it can stand for a policy, a
/// reward model or a gold reward.
pub fn loaded(seed: u64, spec: &str) -> Result<Loaded, LmError> {
    let mut weights = Random { seed };
    let digest = digest::combine([format!("{NAME}:{seed}").as_str()]);
    let identity = format!("{NAME}:{seed}@sha256:{}", digest::short(&digest));
    let config = config();
    let head = weights.read(ParamId::Head, &[1, config.hidden_size])?.data;
    let backbone = assemble(config, digest, true, &mut weights)?;
    Ok(Loaded {
        backbone: Arc::new(backbone),
        tokenizer: tokenizer()?,
        adapter: None,
        head: Some(head),
        identity,
        spec: spec.to_owned(),
    })
}

struct Random {
    seed: u64,
}

impl TensorSource for Random {
    /// Matrices are normal with variance 1 / inputs, so that activations keep their size; norms
    /// are 1; embedding rows are normal with standard deviation 0.3, so that the output
    /// distribution is neither uniform nor one-hot.
    fn read(&mut self, id: ParamId, shape: &[usize]) -> Result<Tensor, LmError> {
        let n = shape.iter().product();
        let data = match id {
            ParamId::AttnNorm(_, Part::Weight)
            | ParamId::MlpNorm(_, Part::Weight)
            | ParamId::FinalNorm(Part::Weight) => {
                vec![1.0; n]
            }
            _ => {
                let inputs = shape.last().map_or(1, |&n| n) as f64;
                let scale = if id == ParamId::Embed { 0.3 } else { inputs.sqrt().recip() };
                let name = names::hf_name(Family::Llama, id);
                let mut stream = Key::new(self.seed, NAME).prompt(&name).stream();
                (0..n).map(|_| (scale * stream.normal()) as f32).collect()
            }
        };
        Ok(Tensor { shape: shape.to_vec(), data })
    }
}

/// The printable character that byte-level vocabularies write for a byte: itself where it is
/// printable, else the next unused character from U+0100 on (GPT-2's table).
fn byte_characters() -> Vec<char> {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    (0..BYTES)
        .filter_map(|b| {
            let code = if printable(b) { b } else { next };
            next += u32::from(!printable(b));
            char::from_u32(code)
        })
        .collect()
}

fn tokenizer_json() -> Value {
    let mut vocab: Map<String, Value> =
        byte_characters().into_iter().enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let added: Vec<Value> = [TURN_START, TURN_END]
        .into_iter()
        .zip(BYTES..)
        .map(|(content, id)| {
            vocab.insert(content.to_owned(), json!(id));
            json!({
                "id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

fn tokenizer() -> Result<Tokenizer, LmError> {
    let origin = PathBuf::from(NAME);
    let inner = tokenizers::Tokenizer::from_bytes(tokenizer_json().to_string());
    Tokenizer::from_parts(Parts {
        inner: inner.map_err(|e| LmError::tokenizer(&origin, e))?,
        origin,
        template: Some(TEMPLATE.to_owned()),
        special: BTreeMap::from([
            ("bos_token".to_owned(), TURN_START.to_owned()),
            ("eos_token".to_owned(), TURN_END.to_owned()),
        ]),
        eos: Vec::new(),
    })
}

/// Writes the random model of `seed` as a Hugging Face folder of a causal language model.
pub fn write(dir: &Path, seed: u64) -> Result<(), LmError> {
    let model = loaded(seed, NAME)?;
    std::fs::create_dir_all(dir).map_err(LmError::write(dir))?;
    let tokenizer = &model.tokenizer;
    let config = HfConfig {
        model: model.backbone.config.clone(),
        task: Task::Causal,
        eos: tokenizer.end_tokens().to_vec(),
        pad: tokenizer.pad(),
    };
    let path = dir.join("config.json");
    std::fs::write(&path, format!("{:#}\n", to_json(&config))).map_err(LmError::write(&path))?;
    tokenizer.save(dir)?;
    write_weights(&dir.join("model.safetensors"), &model.backbone)
}

fn write_weights(path: &Path, backbone: &Backbone) -> Result<(), LmError> {
    let tensors: Vec<(String, &Tensor, Vec<u8>)> = backbone
        .params()
        .into_iter()
        .map(|(id, tensor)| {
            let bytes = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            (names::hf_name(backbone.config.family, id), tensor, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, tensor, bytes)| Ok((name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    let bytes = views.and_then(|views| safetensors::serialize(views, metadata));
    let bytes = bytes.map_err(|e| LmError::Run(format!("cannot lay out {}: {e}", path.display())))?;
    std::fs::write(path, bytes).map_err(LmError::write(path))
}
