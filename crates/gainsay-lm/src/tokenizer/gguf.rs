//! Tokenizers from GGUF metadata.

use std::collections::BTreeMap;

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::{Parts, byte_bpe, spm};
use crate::error::LmError;
use crate::weights::gguf::{GgufFile, integer};

/// Token type of ordinary pieces.
pub(super) const NORMAL: u64 = 1;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// A tokenizer's parts; what is not the model is in `tokenizer.json`'s notation.
pub(super) struct Pipeline {
    pub model: BPE,
    pub normalizer: Option<Value>,
    pub pre_tokenizer: Option<Value>,
    pub decoder: Value,
    /// Whether plain text begins with the beginning-of-sequence token, where the file is silent.
    pub add_bos: bool,
}

pub(super) fn read(file: &GgufFile) -> Result<Parts, LmError> {
    let fail = |problem: String| LmError::tokenizer(&file.path, problem);
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let pipeline = match file.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_bpe::read(file, &tokens)?,
        Some("llama") => spm::read(file, &tokens)?,
        other => {
            return Err(fail(format!(
                "tokenizer model `{}` is not supported in GGUF files (`gpt2` and `llama` are); \
                 use the model's Hugging Face folder",
                other.unwrap_or("unnamed")
            )));
        }
    };
    let mut inner = tokenizers::Tokenizer::new(pipeline.model);
    if let Some(normalizer) = pipeline.normalizer {
        let normalizer: NormalizerWrapper = component(file, normalizer)?;
        inner.with_normalizer(Some(normalizer)).map_err(|e| fail(e.to_string()))?;
    }
    if let Some(pre_tokenizer) = pipeline.pre_tokenizer {
        inner.with_pre_tokenizer(Some(component::<PreTokenizerWrapper>(file, pre_tokenizer)?));
    }
    inner.with_decoder(Some(component::<DecoderWrapper>(file, pipeline.decoder)?));
    add_special_tokens(file, &tokens, &mut inner)?;
    let special = special_tokens(file, &tokens);
    let add_bos = file.flag("tokenizer.ggml.add_bos_token").unwrap_or(pipeline.add_bos);
    if let (true, Some(bos)) = (add_bos, special.get("bos_token")) {
        let processor = begin_with(file, bos, &inner)?;
        inner.with_post_processor(Some(processor));
    }
    let eos = ["eos", "eot", "eom"].iter().filter_map(|name| special_id(file, name));
    Ok(Parts {
        inner,
        origin: file.path.clone(),
        template: file.text("tokenizer.chat_template").map(str::to_owned),
        special,
        eos: eos.map(|id| id as u32).collect(),
    })
}

/// An array of strings of the metadata.
pub(super) fn texts<'a>(file: &'a GgufFile, key: &str) -> Result<Vec<&'a str>, LmError> {
    let text = |value: &'a GgufValue| match value {
        GgufValue::String(text) => Some(text.as_str()),
        _ => None,
    };
    file.array(key, text).ok_or_else(|| LmError::tokenizer(&file.path, format!("`{key}` is missing or not text")))
}

fn component<T: DeserializeOwned>(file: &GgufFile, json: Value) -> Result<T, LmError> {
    serde_json::from_value(json).map_err(|e| LmError::tokenizer(&file.path, e))
}

fn special_id(file: &GgufFile, name: &str) -> Option<usize> {
    file.integer(&format!("tokenizer.ggml.{name}_token_id")).map(|id| id as usize)
}

fn special_tokens(file: &GgufFile, tokens: &[&str]) -> BTreeMap<String, String> {
    let names = [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")];
    let known = names.into_iter().filter_map(|(gguf, hf)| {
        let token = tokens.get(special_id(file, gguf)?)?;
        Some((format!("{hf}_token"), (*token).to_owned()))
    });
    known.collect()
}

/// The type of each token.
pub(super) fn types(file: &GgufFile) -> Vec<u64> {
    file.array("tokenizer.ggml.token_type", integer).unwrap_or_default()
}

/// Token types 3 (control) are special; 4 (user-defined) are parsed in texts, and decoded.
fn add_special_tokens(file: &GgufFile, tokens: &[&str], inner: &mut tokenizers::Tokenizer) -> Result<(), LmError> {
    let types = types(file);
    let of_type = |kind: u64| types.iter().zip(tokens).filter(move |&(&t, _)| t == kind).map(|(_, token)| *token);
    let control: Vec<AddedToken> =
        of_type(CONTROL).map(|token| AddedToken::from(token, true).normalized(false)).collect();
    let user: Vec<AddedToken> =
        of_type(USER_DEFINED).map(|token| AddedToken::from(token, false).normalized(false)).collect();
    let fail = |e: tokenizers::Error| LmError::tokenizer(&file.path, e);
    inner.add_special_tokens(control).map_err(fail)?;
    inner.add_tokens(user).map_err(fail)?;
    Ok(())
}

/// A post-processor that puts `bos` first.
fn begin_with(file: &GgufFile, bos: &str, inner: &tokenizers::Tokenizer) -> Result<PostProcessorWrapper, LmError> {
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
