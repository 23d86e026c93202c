//! Loading models, tokenizers and adapters: against the goldens of transformers and PEFT, and on
//! input that is wrong.

use std::path::{Path, PathBuf};

use gainsay_core::engine::ScoreItem;
use gainsay_core::record::{Finish, Message, Prompt};
use gainsay_lm::config::{Family, HfConfig, Task};
use gainsay_lm::model::{Backbone, ParamId, Proj};
use gainsay_lm::weights::peft::PeftConfig;
use gainsay_lm::weights::{hf, peft};
use gainsay_lm::{names, tiny};
use safetensors::SafeTensors;
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join(name)).unwrap()).unwrap()
}

fn model(name: &str) -> hf::HfModel {
    hf::read(&goldens().join("models").join(name)).unwrap()
}

/// Every tensor of the files in `dir` whose name starts with `stem`.
fn stored(dir: &Path, stem: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with(stem) || !name.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let data = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            out.push((name, view.shape().to_vec(), data.collect()));
        }
    }
    out
}

fn find(backbone: &Backbone, id: ParamId) -> Option<(&[usize], &[f32])> {
    let params = backbone.params();
    let (_, tensor) = params.into_iter().find(|&(other, _)| other == id)?;
    Some((&tensor.shape, &tensor.data))
}

#[test]
fn every_family_loads_every_tensor_under_its_name() {
    for name in ["llama", "llama-sharded", "qwen2", "qwen3", "gpt-neox", "gpt-neox-serial"] {
        let model = model(name);
        let config = &model.backbone.config;
        let files = stored(&goldens().join("models").join(name), "model");
        assert_eq!(files.len(), model.backbone.params().len(), "{name}");
        for (tensor, shape, data) in files {
            let id = names::parse(config.family, &tensor).unwrap();
            assert_eq!(names::hf_name(config.family, id), tensor);
            let (found_shape, found) = find(&model.backbone, id).unwrap();
            assert_eq!((found_shape, found), (shape.as_slice(), data.as_slice()), "{name} {tensor}");
        }
        assert!(model.head.is_none());
        assert_eq!(model.backbone.lm_head.is_none(), config.tie_embeddings, "{name}");
    }
}

#[test]
fn configurations_of_transformers_4_and_5_mean_the_same() {
    let neox = model("gpt-neox").backbone.config;
    assert_eq!((neox.family, neox.head_dim, neox.rotary_dim), (Family::GptNeoX, 16, 4));
    assert!(neox.parallel_residual);
    let serial = model("gpt-neox-serial").backbone.config;
    assert_eq!((serial.rotary_dim, serial.rope_theta), (4, 10_000.0));
    assert!(!serial.parallel_residual);
    let scaling = model("llama-sharded").backbone.config.rope_scaling.unwrap();
    assert_eq!((scaling.factor, scaling.original_positions), (8.0, 64.0));
    let qwen3 = model("qwen3").backbone.config;
    assert_eq!((qwen3.head_dim, qwen3.rope_theta, qwen3.rope_scaling), (12, 1e6, None));
    let qwen2 = model("qwen2").backbone.config;
    assert_eq!((qwen2.head_dim, qwen2.rope_theta, qwen2.num_kv_heads), (8, 1e6, 2));
}

#[test]
fn a_sequence_classification_folder_has_its_head_and_no_output_matrix() {
    let model = model("llama-reward");
    assert_eq!(model.config.task, Task::Reward);
    let files = stored(&goldens().join("models/llama-reward"), "model");
    let (_, shape, data) = files.iter().find(|(name, ..)| name == "score.weight").unwrap();
    assert_eq!(shape, &[1, model.backbone.config.hidden_size]);
    assert_eq!(model.head.as_ref(), Some(data));
    assert!(model.backbone.lm_head.is_none());
}

#[test]
fn a_written_configuration_is_read_back() {
    for name in ["llama", "llama-sharded", "qwen2", "qwen3", "gpt-neox", "gpt-neox-serial", "llama-reward"] {
        let config = model(name).config;
        let json = gainsay_lm::config::json::to_json(&config);
        assert_eq!(HfConfig::parse(Path::new("config.json"), &json).unwrap(), config, "{name}");
    }
}

#[test]
fn peft_adapters_load_factors_and_head() {
    for name in ["llama", "qwen2", "qwen3", "gpt-neox", "llama-policy", "qwen2-policy"] {
        let dir = goldens().join("adapters").join(name);
        let base = model(name.trim_end_matches("-policy")).backbone;
        let config = PeftConfig::read(&dir).unwrap();
        assert_eq!((config.rank, config.alpha), (4, 8.0));
        let loaded = peft::read(&dir, &config, &base).unwrap();
        let files = stored(&dir, "adapter_model");
        let factors = loaded.adapter.params();
        assert_eq!(factors.len() + usize::from(loaded.head.is_some()), files.len(), "{name}");
        assert_eq!(loaded.head.is_some(), !name.ends_with("-policy"), "{name}");
        for (tensor, shape, data) in files {
            match names::parse(base.config.family, &tensor).unwrap() {
                ParamId::Head => assert_eq!(loaded.head.as_ref(), Some(&data)),
                id => {
                    assert_eq!(names::peft_name(base.config.family, id), tensor);
                    let (_, factor) = factors.iter().find(|(other, _)| *other == id).unwrap();
                    assert_eq!((&factor.shape, &factor.data), (&shape, &data), "{name} {tensor}");
                }
            }
        }
        let targets = match base.config.family {
            Family::GptNeoX => vec![Proj::Qkv],
            _ => vec![Proj::Q, Proj::V],
        };
        assert_eq!((&loaded.adapter.config.targets, &loaded.adapter.config.layers), (&targets, &None));
    }
}

#[test]
fn the_tiny_model_survives_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tiny");
    tiny::write(&folder, 7).unwrap();
    let written = gainsay_lm::load(folder.to_str().unwrap()).unwrap();
    let built_in = gainsay_lm::load("tiny-random:7").unwrap();
    let (a, b) = (&written.backbone, &built_in.backbone);
    assert_eq!((&a.config, a.params()), (&b.config, b.params()));
    assert_ne!(gainsay_lm::load("tiny-random").unwrap().backbone.embed, a.embed);
    assert!(written.identity.starts_with("tiny@sha256:"), "{}", written.identity);
    assert!(built_in.identity.starts_with("tiny-random:7@sha256:") && built_in.head.is_some());
    let prompt = Prompt::Text("Hi é".into());
    let ids = built_in.tokenizer.prompt_ids(&prompt, false).unwrap();
    assert_eq!(ids, written.tokenizer.prompt_ids(&prompt, false).unwrap());
    // <|im_start|> "user\n" "Hi é" <|im_end|> "\n" <|im_start|> "assistant\n", a byte a token.
    assert_eq!(ids.len(), 1 + 5 + 5 + 1 + 1 + 1 + 10);
    assert_eq!((ids[0], ids[11], ids[2]), (256, 257, u32::from(b's')));
    assert_eq!((built_in.tokenizer.turn_end(), built_in.tokenizer.pad()), (Some(257), Some(256)));
    assert_eq!(written.tokenizer.end_tokens(), [257]);
    let raw = built_in.tokenizer.prompt_ids(&prompt, true).unwrap();
    assert_eq!(raw, "Hi é".bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(built_in.tokenizer.decode(&raw), "Hi é");
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The default model: from the cache, or downloaded into it.
#[test]
fn the_default_models_tokenizer_agrees_with_transformers_and_llama_cpp() {
    let loaded = gainsay_lm::load("smollm2-135m").unwrap();
    assert_eq!(loaded.identity, "smollm2-135m@sha256:b179c9523d0e");
    let tokenizer = &loaded.tokenizer;
    for row in golden("smollm2-token-ids.json")["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text), ids(&row["ids"]), "{text:?}");
        if !text.contains("<|") {
            assert_eq!(tokenizer.decode(&ids(&row["ids"])), text);
        }
    }
    let expected = golden("smollm2.json");
    for row in expected["rows"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(row["messages"].clone()).unwrap();
        let prompt = Prompt::Chat(messages);
        assert_eq!(tokenizer.prompt_ids(&prompt, false).unwrap(), ids(&row["prompt_ids"]));
        let text = row["completion"].as_str().unwrap();
        let finish = if row["finish"] == "stop" { Finish::Stop } else { Finish::Length };
        let item = ScoreItem { prompt: &prompt, text, token_ids: None, finish: Some(finish) };
        assert_eq!(tokenizer.completion_ids(&item), ids(&row["completion_ids"]), "{text:?}");
        assert_eq!(tokenizer.decode(&ids(&row["completion_ids"])), text);
    }
    assert_eq!((tokenizer.turn_end(), tokenizer.end_tokens()), (Some(2), [2].as_slice()));
    assert_eq!(tokenizer.bos(), Some(1));
    assert_ne!(tokenizer.pad(), Some(2), "completions end in 2");
    let text = Prompt::Text("What is the capital of France?".into());
    assert_eq!(tokenizer.prompt_ids(&text, false).unwrap(), ids(&expected["rows"][0]["prompt_ids"]));
    assert_eq!(tokenizer.prompt_ids(&text, true).unwrap(), tokenizer.encode("What is the capital of France?"));
    let config = &loaded.backbone.config;
    assert_eq!((config.num_layers, config.num_heads, config.num_kv_heads), (30, 9, 3));
    assert_eq!((config.norm_eps, config.rope_theta, config.tie_embeddings), (1e-5, 100_000.0, true));
    saved_tokenizer_agrees(tokenizer);
}

/// A tokenizer from GGUF, written as `tokenizer.json` and read back, gives the same ids.
fn saved_tokenizer_agrees(tokenizer: &gainsay_lm::Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let again = gainsay_lm::Tokenizer::from_folder(dir.path()).unwrap();
    for row in golden("smollm2-token-ids.json")["rows"].as_array().unwrap() {
        assert_eq!(again.encode(row["text"].as_str().unwrap()), ids(&row["ids"]));
    }
    let prompt = Prompt::Text("Hi".into());
    assert_eq!(again.prompt_ids(&prompt, false).unwrap(), tokenizer.prompt_ids(&prompt, false).unwrap());
    assert_eq!((again.turn_end(), again.end_tokens()), (tokenizer.turn_end(), tokenizer.end_tokens()));
    assert_eq!(again.pad(), tokenizer.pad());
}
