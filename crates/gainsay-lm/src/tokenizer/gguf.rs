//! Tokenizers from GGUF metadata: byte-level BPE with the pre-tokenizer that
//! `tokenizer.ggml.pre` names.

use std::collections::BTreeMap;

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use super::Parts;
use crate::error::LmError;
use crate::weights::gguf::{GgufFile, integer};

/// How text is cut before merging.
struct Pipeline {
    normalizer: Option<Value>,
    pre_tokenizer: Value,
    /// A word that is in the vocabulary is taken whole, whatever the merges say.
    ignore_merges: bool,
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

/// Cuts with `regex`, then maps bytes.
fn split(regex: &str) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
}

/// Of the published tokenizers that llama.cpp calls by these names: contractions, words with one
/// leading sign, up to `digits` digits, signs, line ends, white space.
fn word_regex(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

fn pipeline(file: &GgufFile, name: &str) -> Result<Pipeline, LmError> {
    let plain = |pre_tokenizer| Pipeline {
        normalizer: None,
        pre_tokenizer,
        ignore_merges: false,
    };
    match name {
        "gpt-2" => Ok(plain(byte_level(true))),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            Ok(plain(
                json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]}),
            ))
        }
        "llama-bpe" | "llama3" | "llama-v3" => Ok(Pipeline {
            ignore_merges: true,
            ..plain(split(&word_regex("{1,3}")))
        }),
        "qwen2" => Ok(Pipeline {
            normalizer: Some(json!({"type": "NFC"})),
            ..plain(split(&word_regex("")))
        }),
        other => Err(LmError::tokenizer(
            &file.path,
            format!(
                "pre-tokenizer `{other}` is not supported in GGUF files (gpt-2, smollm, llama-bpe and qwen2 are); \
                 use the model's Hugging Face folder"
            ),
        )),
    }
}

pub(super) fn read(file: &GgufFile) -> Result<Parts, LmError> {
    let fail = |problem: String| LmError::tokenizer(&file.path, problem);
    match file.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        Some(other) => {
            let problem = "is not supported in GGUF files (byte-level BPE, `gpt2`, is)";
            return Err(fail(format!(
                "tokenizer model `{other}` {problem}; use the model's Hugging Face folder"
            )));
        }
        None => {
            return Err(fail(
                "the file has no tokenizer (`tokenizer.ggml.model`)".to_owned(),
            ));
        }
    }
    let pipeline = pipeline(file, file.text("tokenizer.ggml.pre").unwrap_or("gpt-2"))?;
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let merges = texts(file, "tokenizer.ggml.merges")?
        .into_iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(fail(format!("merge `{merge}` is not two tokens"))),
        });
    let vocab: Vocab = tokens
        .iter()
        .zip(0..)
        .map(|(&token, id)| (token.to_owned(), id))
        .collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges.collect::<Result<Vec<_>, _>>()?)
        .ignore_merges(pipeline.ignore_merges)
        .build()
        .map_err(|e| fail(e.to_string()))?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    if let Some(normalizer) = pipeline.normalizer {
        let normalizer: NormalizerWrapper = component(file, normalizer)?;
        inner
            .with_normalizer(Some(normalizer))
            .map_err(|e| fail(e.to_string()))?;
    }
    inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(
        file,
        pipeline.pre_tokenizer,
    )?));
    inner.with_decoder(Some(component::<DecoderWrapper>(file, byte_level(true))?));
    add_special_tokens(file, &tokens, &mut inner)?;
    let special = special_tokens(file, &tokens);
    if file.flag("tokenizer.ggml.add_bos_token") == Some(true)
        && let Some(bos) = special.get("bos_token")
    {
        let processor = begin_with(file, bos, &inner)?;
        inner.with_post_processor(Some(processor));
    }
    Ok(Parts {
        inner,
        origin: file.path.clone(),
        template: file.text("tokenizer.chat_template").map(str::to_owned),
        special,
        eos: ["eos", "eot", "eom"]
            .iter()
            .filter_map(|name| special_id(file, name))
            .map(|id| id as u32)
            .collect(),
    })
}

fn texts<'a>(file: &'a GgufFile, key: &str) -> Result<Vec<&'a str>, LmError> {
    let text = |value: &'a GgufValue| match value {
        GgufValue::String(text) => Some(text.as_str()),
        _ => None,
    };
    file.array(key, text)
        .ok_or_else(|| LmError::tokenizer(&file.path, format!("`{key}` is missing or not text")))
}

fn component<T: DeserializeOwned>(file: &GgufFile, json: Value) -> Result<T, LmError> {
    serde_json::from_value(json).map_err(|e| LmError::tokenizer(&file.path, e))
}

fn special_id(file: &GgufFile, name: &str) -> Option<usize> {
    file.integer(&format!("tokenizer.ggml.{name}_token_id"))
        .map(|id| id as usize)
}

fn special_tokens(file: &GgufFile, tokens: &[&str]) -> BTreeMap<String, String> {
    let names = [
        ("bos", "bos"),
        ("eos", "eos"),
        ("unknown", "unk"),
        ("padding", "pad"),
    ];
    let known = names.into_iter().filter_map(|(gguf, hf)| {
        let token = tokens.get(special_id(file, gguf)?)?;
        Some((format!("{hf}_token"), (*token).to_owned()))
    });
    known.collect()
}

/// Token types 3 (control) are special; 4 (user-defined) are parsed in texts, and decoded.
fn add_special_tokens(
    file: &GgufFile,
    tokens: &[&str],
    inner: &mut tokenizers::Tokenizer,
) -> Result<(), LmError> {
    let types = file
        .array("tokenizer.ggml.token_type", integer)
        .unwrap_or_default();
    let of_type = |kind: u64| {
        types
            .iter()
            .zip(tokens)
            .filter(move |&(&t, _)| t == kind)
            .map(|(_, token)| *token)
    };
    let control: Vec<AddedToken> = of_type(3)
        .map(|token| AddedToken::from(token, true).normalized(false))
        .collect();
    let user: Vec<AddedToken> = of_type(4)
        .map(|token| AddedToken::from(token, false).normalized(false))
        .collect();
    let fail = |e: tokenizers::Error| LmError::tokenizer(&file.path, e);
    inner.add_special_tokens(control).map_err(fail)?;
    inner.add_tokens(user).map_err(fail)?;
    Ok(())
}

/// A post-processor that puts `bos` first.
fn begin_with(
    file: &GgufFile,
    bos: &str,
    inner: &tokenizers::Tokenizer,
) -> Result<PostProcessorWrapper, LmError> {
    let id = inner.token_to_id(bos);
    component(
        file,
        json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        }),
    )
}
