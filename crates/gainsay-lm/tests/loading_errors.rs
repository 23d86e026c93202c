//! Loading what cannot be loaded: each case is one clear line that names the culprit, and the
//! user's to mend.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gainsay_core::record::{Message, Prompt};
use gainsay_lm::{LmError, load, tiny};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with the tiny model, to be damaged.
struct Folder {
    root: TempDir,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        tiny::write(&root.path().join("m"), 1).unwrap();
        Self { root }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("m")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Changes fields of config.json; null removes.
    fn config(self, changes: Value) -> Self {
        let path = self.file("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        fs::write(path, json.to_string()).unwrap();
        self
    }

    fn weights(self, change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> Self {
        rewrite(&self.file("model.safetensors"), change);
        self
    }

    /// The error of loading it, checked for what every error must be.
    fn error(&self) -> String {
        error_of(self.path().to_str().unwrap())
    }
}

fn error_of(spec: &str) -> String {
    let error = load(spec).map(|m| m.identity).unwrap_err();
    assert!(error.is_user_error(), "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn rewrite(path: &Path, change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) {
    let mut tensors = BTreeMap::new();
    if let Ok(bytes) = fs::read(path) {
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let data = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            tensors.insert(name, (view.shape().to_vec(), data.collect::<Vec<f32>>()));
        }
    }
    change(&mut tensors);
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, data))| {
            (name, shape.clone(), data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        })
        .collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn specs_that_name_nothing() {
    assert_says(&error_of(""), &["give a folder"]);
    assert_says(&error_of("no/such/folder"), &["no/such/folder", "no such folder or file"]);
    assert_says(&error_of("http://localhost:8000"), &["not a server", "give a folder"]);
    assert_says(&error_of("tiny-random:x"), &["seed `x`"]);
    let dir = tempfile::tempdir().unwrap();
    assert_says(&error_of(dir.path().to_str().unwrap()), &["config.json"]);
    let file = dir.path().join("notes.txt");
    fs::write(&file, "hello").unwrap();
    assert_says(&error_of(file.to_str().unwrap()), &["notes.txt", ".gguf"]);
}

#[test]
fn configurations_that_cannot_be_computed() {
    let cases = [
        (json!({"architectures": ["BertModel"]}), vec!["`BertModel`", "LlamaForCausalLM", "GPTNeoXForCausalLM"]),
        (json!({"architectures": null, "model_type": null}), vec!["`architectures` is missing"]),
        (json!({"hidden_size": null}), vec!["`hidden_size` is missing"]),
        (json!({"hidden_size": -3}), vec!["`hidden_size` is -3"]),
        (json!({"num_key_value_heads": 3}), vec!["4 query heads", "3 key/value"]),
        (json!({"head_dim": null, "hidden_size": 30}), vec!["30", "4 heads"]),
        (json!({"head_dim": 7}), vec!["7", "rotated"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}), vec!["`yarn`"]),
        (json!({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}), vec!["low_freq_factor"]),
        (json!({"attention_bias": true}), vec!["attention_bias"]),
        (json!({"hidden_act": "relu"}), vec!["relu"]),
        (json!({"quantization_config": {"quant_method": "gptq"}}), vec!["gptq", ".gguf"]),
        (json!({"architectures": ["MistralForCausalLM"], "sliding_window": 64}), vec!["sliding-window"]),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), vec!["sliding-window"]),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), vec!["one label"]),
    ];
    for (change, parts) in cases {
        let text = Folder::new().config(change).error();
        assert_says(&text, &parts);
        assert_says(&text, &["config.json"]);
    }
    let folder = Folder::new();
    fs::write(folder.file("config.json"), "{\"architectures\": [\n  oops").unwrap();
    assert_says(&folder.error(), &["config.json", "line 2"]);
    fs::write(folder.file("config.json"), [0xff, 0xfe, 0x00]).unwrap();
    assert_says(&folder.error(), &["config.json", "not valid JSON"]);
}

#[test]
fn an_unwindowed_mistral_is_a_llama() {
    let folder = Folder::new();
    let folder = folder.config(json!({"architectures": ["MistralForCausalLM"], "sliding_window": null}));
    assert!(load(folder.path().to_str().unwrap()).is_ok());
}

#[test]
fn weights_that_do_not_fit() {
    const Q: &str = "model.layers.1.self_attn.q_proj.weight";
    let text = Folder::new().weights(|t| drop(t.insert(Q.into(), (vec![16, 32], vec![0.0; 512])))).error();
    assert_says(&text, &[Q, "[16, 32]", "[32, 32]", "model.safetensors"]);
    let text = Folder::new().weights(|t| drop(t.remove(Q))).error();
    assert_says(&text, &[Q, "is missing", "model.safetensors"]);
    let text = Folder::new().weights(|t| t.get_mut(Q).unwrap().1[5] = f32::NAN).error();
    assert_says(&text, &[Q, "NaN", "element 5"]);
    let text = Folder::new().weights(|t| t.get_mut(Q).unwrap().1[6] = f32::NEG_INFINITY).error();
    assert_says(&text, &[Q, "-inf"]);
    let extra = |t: &mut BTreeMap<_, _>| {
        drop(t.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![32], vec![0.0; 32])))
    };
    assert_says(&Folder::new().weights(extra).error(), &["q_proj.bias", "no place"]);
    let text = Folder::new().config(json!({"tie_word_embeddings": false})).error();
    assert_says(&text, &["lm_head.weight", "tie_word_embeddings"]);
    let text = Folder::new().config(json!({"num_hidden_layers": 3})).error();
    assert_says(&text, &["model.layers.2", "is missing"]);
    let text = Folder::new().config(json!({"num_hidden_layers": 1})).error();
    assert_says(&text, &["model.layers.1", "no place"]);
}

#[test]
fn files_that_are_cut_off_or_strange() {
    let folder = Folder::new();
    let path = folder.file("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    assert_says(&folder.error(), &["model.safetensors", "cut off"]);
    fs::write(&path, &bytes[..100]).unwrap();
    assert_says(&folder.error(), &["model.safetensors", "cut off within its header"]);
    fs::write(&path, "no").unwrap();
    assert_says(&folder.error(), &["model.safetensors", "too short"]);
    let mut broken = bytes;
    broken[20] = b'"';
    fs::write(&path, broken).unwrap();
    assert_says(&folder.error(), &["model.safetensors", "header"]);
    fs::remove_file(&path).unwrap();
    assert_says(&folder.error(), &["model.safetensors.index.json"]);
    fs::write(folder.file("pytorch_model.bin"), "").unwrap();
    assert_says(&folder.error(), &["safe_serialization"]);
}

#[test]
fn half_precision_files_are_read_and_integers_refused() {
    let folder = Folder::new();
    let path = folder.file("model.safetensors");
    let before = load(folder.path().to_str().unwrap()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut converted: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in tensors.tensors() {
        // The upper halves of the f32s: bf16 by truncation.
        let upper = view.data().chunks(4).flat_map(|b| [b[2], b[3]]).collect();
        converted.push((name, view.shape().to_vec(), upper));
    }
    for (dtype, fits) in [(Dtype::BF16, true), (Dtype::I16, false)] {
        let views =
            converted.iter().map(|(name, shape, data)| (name, TensorView::new(dtype, shape.clone(), data).unwrap()));
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        if !fits {
            assert_says(&folder.error(), &["I16", "BF16"]);
            continue;
        }
        let after = load(folder.path().to_str().unwrap()).unwrap();
        for (a, b) in after.backbone.embed.data.iter().zip(&before.backbone.embed.data) {
            assert_eq!(a.to_bits(), b.to_bits() & 0xffff_0000);
        }
        assert_ne!(after.identity, before.identity);
    }
}

#[test]
fn shards_that_are_missing() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models/llama-sharded");
    let folder = Folder::new();
    fs::remove_file(folder.file("model.safetensors")).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.file(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let text = folder.error();
    assert_says(&text, &["embedding only 61 rows", "257"]);
    fs::remove_file(folder.file("model-00002-of-00002.safetensors")).unwrap();
    assert_says(&folder.error(), &["model.safetensors.index.json", "model-00002-of-00002.safetensors"]);
    fs::write(folder.file("model.safetensors.index.json"), r#"{"weight_map": {"x": "../../etc/x"}}"#).unwrap();
    assert_says(&folder.error(), &["model.safetensors.index.json", "`x`"]);
}

#[test]
fn tokenizers_that_are_missing_or_broken() {
    let folder = Folder::new();
    fs::write(folder.file("tokenizer.json"), "{\"version\": ").unwrap();
    assert_says(&folder.error(), &["tokenizer.json"]);
    fs::write(folder.file("tokenizer.json"), [0xff, 0xff]).unwrap();
    assert_says(&folder.error(), &["tokenizer.json"]);
    fs::remove_file(folder.file("tokenizer.json")).unwrap();
    assert_says(&folder.error(), &["tokenizer.json", "save_pretrained"]);
    let folder = Folder::new();
    fs::write(folder.file("tokenizer_config.json"), "[").unwrap();
    assert_says(&folder.error(), &["tokenizer_config.json"]);
}

#[test]
fn prompts_that_cannot_be_rendered() {
    let folder = Folder::new();
    let chat = Prompt::Chat(vec![Message { role: "user".into(), content: "x".into() }]);
    let tokenizer = load(folder.path().to_str().unwrap()).unwrap().tokenizer;
    let error = tokenizer.prompt_ids(&chat, true).unwrap_err();
    assert_says(&error.to_string(), &["--raw"]);
    assert!(tokenizer.prompt_ids(&Prompt::Text(String::new()), true).is_err());
    fs::write(folder.file("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let plain = load(folder.path().to_str().unwrap()).unwrap().tokenizer;
    assert!(!plain.has_chat_template());
    assert_says(&plain.prompt_ids(&chat, false).unwrap_err().to_string(), &["no chat template"]);
    assert_eq!(plain.prompt_ids(&Prompt::Text("ab".into()), false).unwrap(), [97, 98]);
    fs::write(folder.file("chat_template.jinja"), "{% for %}").unwrap();
    let broken = load(folder.path().to_str().unwrap()).unwrap().tokenizer;
    let error = broken.prompt_ids(&chat, false).unwrap_err();
    assert!(matches!(error, LmError::Prompt(_)), "{error}");
    assert_says(&error.to_string(), &["chat template"]);
}

/// An adapter of rank 2 on q of the tiny model's first layer.
fn adapter(root: &Path, config: Value, tensors: &[(&str, [usize; 2])]) -> PathBuf {
    let dir = root.join("adapter");
    fs::create_dir_all(&dir).unwrap();
    let mut full = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny-random"});
    for (key, value) in config.as_object().unwrap() {
        full[key] = value.clone();
    }
    fs::write(dir.join("adapter_config.json"), full.to_string()).unwrap();
    let _ = fs::remove_file(dir.join("adapter_model.safetensors"));
    rewrite(&dir.join("adapter_model.safetensors"), |all| {
        for (name, shape) in tensors {
            all.insert((*name).to_owned(), (shape.to_vec(), vec![0.5; shape[0] * shape[1]]));
        }
    });
    dir
}

const A: (&str, [usize; 2]) = ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [2, 32]);
const B: (&str, [usize; 2]) = ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", [32, 2]);

#[test]
fn adapters_resolve_their_base() {
    let root = tempfile::tempdir().unwrap();
    let dir = adapter(root.path(), json!({}), &[A, B]);
    let loaded = load(dir.to_str().unwrap()).unwrap();
    let base = load("tiny-random").unwrap();
    assert_eq!(loaded.backbone.params(), base.backbone.params());
    let config = &loaded.adapter.as_ref().unwrap().config;
    assert_eq!((config.rank, config.alpha, config.layers.as_deref()), (2, 4.0, Some([0].as_slice())));
    assert!(loaded.identity.starts_with("adapter@sha256:"));
    tiny::write(&root.path().join("base"), 3).unwrap();
    let dir = adapter(root.path(), json!({"base_model_name_or_path": "../base"}), &[A, B]);
    let moved = load(dir.to_str().unwrap()).unwrap();
    assert_eq!(moved.backbone.embed, load("tiny-random:3").unwrap().backbone.embed);
    assert_ne!(moved.identity, loaded.identity);
}

#[test]
fn adapters_that_cannot_be_applied() {
    let root = tempfile::tempdir().unwrap();
    let error = |config: Value, tensors: &[(&str, [usize; 2])]| {
        error_of(adapter(root.path(), config, tensors).to_str().unwrap())
    };
    let missing = error(json!({"base_model_name_or_path": "../gone"}), &[A, B]);
    assert_says(&missing, &["adapter_config.json", "`../gone`"]);
    assert_says(&error(json!({"base_model_name_or_path": null}), &[A, B]), &["base_model_name_or_path"]);
    assert_says(&error(json!({"base_model_name_or_path": "."}), &[A, B]), &["adapter again"]);
    assert_says(&error(json!({"peft_type": "IA3"}), &[A, B]), &["IA3"]);
    for key in ["use_dora", "use_rslora", "fan_in_fan_out"] {
        assert_says(&error(json!({key: true}), &[A, B]), &[key, "merge"]);
    }
    assert_says(&error(json!({"rank_pattern": {"q_proj": 4}}), &[A, B]), &["rank_pattern"]);
    assert_says(&error(json!({"bias": "all"}), &[A, B]), &["`bias: all`"]);
    assert_says(&error(json!({"r": 4}), &[A, B]), &[A.0, "[2, 32]", "[4, 32]"]);
    assert_says(&error(json!({}), &[A]), &[B.0, "is missing"]);
    assert_says(&error(json!({}), &[]), &["neither"]);
    let deep = ("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", [2, 32]);
    assert_says(&error(json!({}), &[A, B, deep]), &[deep.0, "2 layers"]);
    let head = ("base_model.model.score.weight", [2, 32]);
    assert_says(&error(json!({}), &[A, B, head]), &["score.weight", "[2, 32]", "[1, 32]"]);
    let dir = adapter(root.path(), json!({}), &[A, B]);
    fs::remove_file(dir.join("adapter_model.safetensors")).unwrap();
    assert_says(&error_of(dir.to_str().unwrap()), &["adapter_model.safetensors"]);
}
