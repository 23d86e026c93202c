//! Byte-level BPE in GGUF files: how text is cut before merging follows from the name in
//! `tokenizer.ggml.pre`.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};

use super::gguf::{Pipeline, texts};
use crate::error::LmError;
use crate::weights::gguf::GgufFile;

/// How text is cut.
struct Cut {
    normalizer: Option<Value>,
    pre_tokenizer: Value,
    /// A word that is in the vocabulary is taken whole, whatever the merges say.
    ignore_merges: bool,
    add_bos: bool,
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    })
}

/// Cuts into contractions, words with one leading sign, digits, signs, line ends and white space,
/// as the published tokenizers of Llama 3 and Qwen 2 do; `digits` says how many make a word.
fn words(digits: &str) -> Value {
    let regex = format!(
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}",
            r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        digits
    );
    let split = json!({
        "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
    });
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
}

fn cut(file: &GgufFile) -> Result<Cut, LmError> {
    let plain = |pre_tokenizer| Cut { normalizer: None, pre_tokenizer, ignore_merges: false, add_bos: false };
    match file.text("tokenizer.ggml.pre").unwrap_or("gpt-2") {
        "gpt-2" => Ok(plain(byte_level(true))),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            Ok(plain(json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]})))
        }
        "llama-bpe" | "llama3" | "llama-v3" => Ok(Cut { ignore_merges: true, add_bos: true, ..plain(words("{1,3}")) }),
        "qwen2" => Ok(Cut { normalizer: Some(json!({"type": "NFC"})), ..plain(words("")) }),
        other => Err(LmError::tokenizer(
            &file.path,
            format!(
                "pre-tokenizer `{other}` is not supported in GGUF files (gpt-2, smollm, llama-bpe \
                 and qwen2 are); use the model's Hugging Face folder"
            ),
        )),
    }
}

pub(super) fn read(file: &GgufFile, tokens: &[&str]) -> Result<Pipeline, LmError> {
    let fail = |problem: String| LmError::tokenizer(&file.path, problem);
    let cut = cut(file)?;
    let merges = texts(file, "tokenizer.ggml.merges")?.into_iter().map(|merge| {
        let pair = merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
        pair.ok_or_else(|| fail(format!("merge `{merge}` is not two tokens")))
    });
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    let vocab: Vocab = tokens.iter().zip(0..).map(|(&token, id)| (token.to_owned(), id)).collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(cut.ignore_merges);
    Ok(Pipeline {
        model: model.build().map_err(|e| fail(e.to_string()))?,
        normalizer: cut.normalizer,
        pre_tokenizer: Some(cut.pre_tokenizer),
        decoder: byte_level(true),
        add_bos: cut.add_bos,
    })
}
