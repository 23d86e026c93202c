//! SentencePiece BPE in GGUF files (Llama 2, TinyLlama, Mistral): pieces with scores, and bytes for
//! what has no piece.

use std::cmp::Reverse;
use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};

use super::gguf::{NORMAL, Pipeline, types};
use crate::error::LmError;
use crate::weights::gguf::GgufFile;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

pub(super) fn read(file: &GgufFile, tokens: &[&str]) -> Result<Pipeline, LmError> {
    let fail = |problem: String| LmError::tokenizer(&file.path, problem);
    let score = |value: &GgufValue| match value {
        GgufValue::F32(score) => Some(*score),
        _ => None,
    };
    let scores = file.array("tokenizer.ggml.scores", score).unwrap_or_default();
    let types = types(file);
    if scores.len() != tokens.len() || types.len() != tokens.len() {
        return Err(fail(format!("{} tokens have {} scores and {} types", tokens.len(), scores.len(), types.len())));
    }
    let unknown = file.integer("tokenizer.ggml.unknown_token_id").unwrap_or(0) as usize;
    let unknown = tokens.get(unknown).copied().unwrap_or_default().to_owned();
    let vocab: Vocab = tokens.iter().zip(0..).map(|(&token, id)| (token.to_owned(), id)).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges(tokens, &scores, &types))
        .unk_token(unknown)
        .fuse_unk(true)
        .byte_fallback(true);
    let prefix = file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    Ok(Pipeline {
        model: model.build().map_err(|e| fail(e.to_string()))?,
        normalizer: Some(normalizer(prefix)),
        pre_tokenizer: None,
        decoder: decoder(prefix),
        add_bos: true,
    })
}

fn normalizer(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    match prefix {
        true => json!({
            "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace],
        }),
        false => replace,
    }
}

fn decoder(prefix: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// SentencePiece joins, of all neighbors whose join is a piece, those with the best score. BPE
/// wants ranked pairs instead: every way to join two pieces into a third, ranked by the third's
/// score; of one piece's ways, the longest left part first.
fn merges(tokens: &[&str], scores: &[f32], types: &[u64]) -> Vec<(String, String)> {
    let normal = |id: &usize| types[*id] == NORMAL;
    let ids: Vec<usize> = (0..tokens.len()).filter(normal).collect();
    let pieces: HashMap<&str, usize> = ids.iter().map(|&id| (tokens[id], id)).collect();
    let mut ranked = Vec::new();
    for &id in &ids {
        let token = tokens[id];
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if pieces.contains_key(left) && pieces.contains_key(right) {
                ranked.push((scores[id], id, left, right));
            }
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, Reverse(a.2.len())).cmp(&(b.1, Reverse(b.2.len())))));
    ranked.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_ranked_by_score_then_by_the_longest_left_part() {
        let tokens = ["<unk>", "a", "b", "ab", "ba", "aba", "<0x61>"];
        let scores = [0.0, -3.0, -4.0, -1.0, -0.5, -2.0, 0.0];
        let pairs = merges(&tokens, &scores, &[2, 1, 1, 1, 1, 1, 6]);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        assert_eq!(pairs, [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")]);
    }
}
