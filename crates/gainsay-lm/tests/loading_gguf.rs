//! GGUF files: the tiny model written as llama.cpp's converter would, and read back.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gainsay_core::record::Prompt;
use gainsay_lm::model::{Backbone, ParamId, Part, Proj};
use gainsay_lm::weights::gguf::GgufFile;
use gainsay_lm::{LmError, Loaded, Tokenizer, load};
use tempfile::TempDir;

/// llama.cpp's name of a parameter of a Llama-like model.
fn gguf_name(id: ParamId) -> String {
    let module = |proj| match proj {
        Proj::Q => "attn_q",
        Proj::K => "attn_k",
        Proj::V => "attn_v",
        Proj::O => "attn_output",
        Proj::Gate => "ffn_gate",
        Proj::Up => "ffn_up",
        Proj::Down => "ffn_down",
        Proj::Qkv => panic!("no such tensor"),
    };
    match id {
        ParamId::Embed => "token_embd.weight".into(),
        ParamId::FinalNorm(Part::Weight) => "output_norm.weight".into(),
        ParamId::AttnNorm(l, Part::Weight) => format!("blk.{l}.attn_norm.weight"),
        ParamId::MlpNorm(l, Part::Weight) => format!("blk.{l}.ffn_norm.weight"),
        ParamId::Linear(l, proj, Part::Weight) => format!("blk.{l}.{}.weight", module(proj)),
        other => panic!("{other:?} is not in a tied Llama"),
    }
}

/// The converter's row order of q and k: of each head of d rows, row j d/2 + i goes to 2 i + j.
fn permute(data: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (cols, d) = (data.len() / rows, rows / heads);
    let mut out = vec![0.0; data.len()];
    for row in 0..rows {
        let (head, j, i) = (row / d, row % d / (d / 2), row % d % (d / 2));
        let to = head * d + 2 * i + j;
        out[to * cols..][..cols].copy_from_slice(&data[row * cols..][..cols]);
    }
    out
}

fn strings(texts: impl IntoIterator<Item = String>) -> Value {
    Value::Array(texts.into_iter().map(Value::String).collect())
}

/// Metadata of the tiny model with pre-tokenizer `pre` and two merges.
fn metadata(model: &Backbone, arch: &str, pre: &str) -> Vec<(String, Value)> {
    let c = &model.config;
    let size = |n: usize| Value::U32(n as u32);
    // GPT-2's characters for the bytes; those that the merges need are their own.
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
    let mut next = 256;
    let mut tokens: Vec<String> = (0..254u32)
        .map(|b| {
            let code = if printable(b) { b } else { next };
            next += u32::from(!printable(b));
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(["12".to_owned(), "ab".to_owned(), "<|im_start|>".into(), "<|im_end|>".into()]);
    let types = (0..258).map(|id| Value::I32(if id < 256 { 1 } else { 3 })).collect();
    let template = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}";
    let arch_fields = [
        ("block_count", size(c.num_layers)),
        ("context_length", size(c.max_positions)),
        ("embedding_length", size(c.hidden_size)),
        ("feed_forward_length", size(c.intermediate_size)),
        ("attention.head_count", size(c.num_heads)),
        ("attention.head_count_kv", size(c.num_kv_heads)),
        ("rope.freq_base", Value::F32(10_000.0)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    let mut out: Vec<(String, Value)> =
        arch_fields.into_iter().map(|(key, value)| (format!("{arch}.{key}"), value)).collect();
    out.extend(
        [
            ("general.architecture", Value::String(arch.into())),
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String(pre.into())),
            ("tokenizer.ggml.tokens", strings(tokens)),
            ("tokenizer.ggml.token_type", Value::Array(types)),
            ("tokenizer.ggml.merges", strings(["1 2".to_owned(), "a b".to_owned()])),
            ("tokenizer.ggml.bos_token_id", Value::U32(256)),
            ("tokenizer.ggml.eos_token_id", Value::U32(257)),
            ("tokenizer.chat_template", Value::String(template.into())),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    out
}

struct Gguf {
    dir: TempDir,
    metadata: Vec<(String, Value)>,
    arch: &'static str,
    dtype: GgmlDType,
}

impl Gguf {
    fn new(arch: &'static str, pre: &str) -> Self {
        let metadata = metadata(&tiny().backbone, arch, pre);
        Self { dir: tempfile::tempdir().unwrap(), metadata, arch, dtype: GgmlDType::F32 }
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tiny.gguf")
    }

    fn write(&self) -> PathBuf {
        let model = tiny().backbone;
        let tensors: Vec<(String, QTensor)> = model
            .params()
            .into_iter()
            .map(|(id, tensor)| {
                let data = match id {
                    ParamId::Linear(_, Proj::Q, _) if self.arch == "llama" => permute(&tensor.data, 32, 4),
                    ParamId::Linear(_, Proj::K, _) if self.arch == "llama" => permute(&tensor.data, 16, 2),
                    _ => tensor.data.clone(),
                };
                let dense = Tensor::from_vec(data, tensor.shape.clone(), &Device::Cpu).unwrap();
                let dtype = if tensor.shape.len() == 2 { self.dtype } else { GgmlDType::F32 };
                (gguf_name(id), QTensor::quantize(&dense, dtype).unwrap())
            })
            .collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let metadata: Vec<(&str, &Value)> = self.metadata.iter().map(|(key, v)| (key.as_str(), v)).collect();
        write(&mut fs::File::create(self.path()).unwrap(), &metadata, &tensors).unwrap();
        self.path()
    }

    fn load(&self) -> Loaded {
        load(self.write().to_str().unwrap()).unwrap()
    }

    fn error(&self) -> String {
        self.write();
        error_of(&self.path())
    }
}

fn tiny() -> Loaded {
    load("tiny-random").unwrap()
}

fn error_of(path: &Path) -> String {
    let error = load(path.to_str().unwrap()).map(|m| m.identity).unwrap_err();
    assert!(error.is_user_error() && !error.to_string().contains('\n'), "{error}");
    error.to_string()
}

#[test]
fn a_llama_comes_back_with_its_rows_in_order() {
    let loaded = Gguf::new("llama", "smollm").load();
    let expected = tiny();
    assert_eq!(loaded.backbone.config, expected.backbone.config);
    assert_eq!(loaded.backbone.params(), expected.backbone.params());
    assert!(loaded.identity.starts_with("tiny.gguf@sha256:"), "{}", loaded.identity);
    assert_eq!(loaded.tokenizer.end_tokens(), [257]);
    let prompt = loaded.tokenizer.prompt_ids(&Prompt::Text("ab".into()), false).unwrap();
    assert_eq!(prompt, [256, 255, 257]);
}

/// Largest error of each type on weights of at most 2: half a step of its grid.
#[test]
fn quantized_types_come_back_within_their_step() {
    for (dtype, tolerance) in [(GgmlDType::F16, 1e-3), (GgmlDType::Q8_0, 0.01), (GgmlDType::Q4_1, 0.15)] {
        let loaded = Gguf { dtype, ..Gguf::new("llama", "smollm") }.load();
        for ((id, a), (_, b)) in loaded.backbone.params().into_iter().zip(tiny().backbone.params()) {
            let worst = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance, "{dtype:?} {id:?}: {worst}");
        }
    }
}

#[test]
fn pre_tokenizers_cut_as_their_models_do() {
    // (pre, does "12" merge?, does "ab" merge in "x ab"?)
    for (pre, digits_merge) in [("smollm", false), ("gpt-2", true), ("llama-bpe", true), ("qwen2", false)] {
        let tokenizer = Gguf::new("llama", pre).load().tokenizer;
        assert_eq!(tokenizer.encode("12").len(), if digits_merge { 1 } else { 2 }, "{pre}");
        assert_eq!(tokenizer.encode("ab"), [255], "{pre}");
        for text in ["Ünïcode 🙂 x", "tabs\t\n\n  and 1234 'll", "<|im_end|>x"] {
            let ids = tokenizer.encode(text);
            assert_eq!(tokenizer.decode(&ids), text.replace("<|im_end|>", ""), "{pre}");
        }
        assert_eq!(tokenizer.encode("<|im_end|>"), [257], "{pre}");
    }
    let decomposed = Gguf::new("llama", "qwen2").load().tokenizer.encode("e\u{301}");
    assert_eq!(decomposed, Gguf::new("llama", "smollm").load().tokenizer.encode("\u{e9}"), "NFC");
}

#[test]
fn a_beginning_of_sequence_is_added_once_and_to_plain_text_only() {
    let gguf = Gguf::new("llama", "smollm").set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    let tokenizer = gguf.load().tokenizer;
    let ids = |text: &str, raw| tokenizer.prompt_ids(&Prompt::Text(text.into()), raw).unwrap();
    assert_eq!(ids("ab", true), [256, 255]);
    assert_eq!(ids("<|im_start|>ab", true), [256, 255]);
    assert_eq!(ids("ab", false), [256, 255, 257]);
    assert_eq!(tokenizer.encode("ab"), [255]);
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let saved = gainsay_lm::Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(saved.prompt_ids(&Prompt::Text("ab".into()), true).unwrap(), [256, 255]);
}

/// A file with nothing but sentencepiece's small model as its tokenizer.
fn spm_tokenizer(golden: &serde_json::Value, scores: usize) -> Result<Tokenizer, LmError> {
    let list = |key: &str| golden[key].as_array().unwrap().iter();
    let tokens = strings(list("tokens").map(|t| t.as_str().unwrap().to_owned()));
    let floats = list("scores").take(scores).map(|s| Value::F32(s.as_f64().unwrap() as f32));
    let types = list("types").map(|t| Value::I32(t.as_i64().unwrap() as i32));
    let metadata = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", tokens),
        ("tokenizer.ggml.scores", Value::Array(floats.collect())),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spm.gguf");
    write(&mut fs::File::create(&path).unwrap(), &metadata, &[]).unwrap();
    Tokenizer::from_gguf(&GgufFile::open(&path)?)
}

#[test]
fn sentencepiece_ids_are_sentencepieces_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/spm.json");
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tokenizer = spm_tokenizer(&golden, 700).unwrap();
    for row in golden["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), row["decoded"].as_str().unwrap(), "{text:?}");
    }
    let plain = tokenizer.prompt_ids(&Prompt::Text("a".into()), false).unwrap();
    assert_eq!((plain, tokenizer.turn_end()), (vec![1, 259], Some(2)));
    let error = spm_tokenizer(&golden, 699).unwrap_err();
    assert!(error.to_string().contains("700 tokens have 699 scores"), "{error}");
}

#[test]
fn files_that_cannot_be_used() {
    let says = |text: String, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in: {text}"));
    };
    says(Gguf::new("mamba", "smollm").error(), &["tiny.gguf", "`mamba`", "llama, qwen2, qwen3"]);
    says(Gguf::new("llama", "tekken").error(), &["tokenizer", "`tekken`", "smollm"]);
    let spm = Gguf::new("llama", "smollm").set("tokenizer.ggml.model", Value::String("t5".into()));
    says(spm.error(), &["`t5`", "Hugging Face folder"]);
    let narrow = Gguf::new("llama", "smollm").set("llama.feed_forward_length", Value::U32(48));
    says(narrow.error(), &["blk.0.ffn_gate.weight", "[64, 32]", "[48, 32]"]);
    let deep = Gguf::new("llama", "smollm").set("llama.block_count", Value::U32(3));
    says(deep.error(), &["blk.2.attn_q.weight", "is missing"]);
    // Qwen2 has biases, which this file lacks.
    says(Gguf::new("qwen2", "qwen2").error(), &["blk.0.attn_q.bias", "is missing"]);
    let yarn = Gguf::new("llama", "smollm").set("llama.rope.scaling.type", Value::String("yarn".into()));
    says(yarn.error(), &["`yarn`"]);
    let good = Gguf::new("llama", "smollm");
    let bytes = fs::read(good.write()).unwrap();
    for (length, part) in [(bytes.len() - 2000, "cannot be read"), (200, "cut off"), (2, "GGUF")] {
        fs::write(good.path(), &bytes[..length]).unwrap();
        says(error_of(&good.path()), &["tiny.gguf", part]);
    }
}
