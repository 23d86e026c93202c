//! OpenAI's `/v1/completions`, with what vLLM and llama.cpp add.

use gainsay_core::engine::Decoding;
use gainsay_core::record::Prompt;
use serde_json::{Value, json};

use super::aligned::{Own, check};
use super::{Drawn, Job, RemotePolicy, Rendered, Scored, logp};
use crate::client::Found;
use crate::error::{RemoteError, Result};
use crate::kind::Kind;

impl RemotePolicy {
    pub(super) fn draw_completions(&self, job: &Job<'_>, decoding: &Decoding) -> Result<Vec<Drawn>> {
        let mut body = json!({
            "prompt": self.prompt_field(job.prompt)?,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": job.seed,
        });
        if self.reported != super::Reported::None {
            // 0 means the sampled token's alone; llama.cpp takes 0 for none.
            body["logprobs"] = json!(u8::from(self.kind != Kind::Vllm));
        }
        if job.n > 1 {
            body["n"] = json!(job.n);
        }
        self.add_own_fields(&mut body, decoding);
        self.client.ask("/v1/completions", &self.with_model(body), |answer| {
            let choices = choices_of(answer, job.n)?;
            choices.into_iter().map(|choice| self.drawn_completion(choice)).collect()
        })
    }

    /// Fields beyond OpenAI's, for the makes that have them; defaults that cut are switched off.
    pub(super) fn add_own_fields(&self, body: &mut Value, decoding: &Decoding) {
        match self.kind {
            Kind::Vllm => {
                body["return_token_ids"] = json!(true);
                body["add_special_tokens"] = json!(false);
                body["ignore_eos"] = json!(decoding.ignore_eos);
            }
            Kind::LlamaCpp => {
                body["top_k"] = json!(decoding.top_k);
                body["min_p"] = json!(0.0);
                body["repeat_penalty"] = json!(1.0);
            }
            _ => {}
        }
        if decoding.top_k > 0 {
            body["top_k"] = json!(decoding.top_k);
        }
    }

    fn prompt_field(&self, prompt: &Prompt) -> Result<Value> {
        let local = |e: gainsay_core::engine::EngineError| RemoteError::Local(e.to_string());
        match (&self.renderer, prompt) {
            (Some(renderer), _) => {
                let ids = renderer.prompt_ids(prompt).map_err(local)?;
                Ok(if self.kind == Kind::Vllm { json!(ids) } else { json!(renderer.spell(&ids)) })
            }
            (None, Prompt::Text(text)) => Ok(json!(text)),
            (None, Prompt::Chat(_)) => Err(self.unsupported(
                "a conversation cannot be taken verbatim: name the tokenizer with #tokenizer=M, or use #api=chat"
                    .into(),
            )),
        }
    }

    fn drawn_completion(&self, choice: &Value) -> Found<Drawn> {
        let logps = match choice.pointer("/logprobs/token_logprobs") {
            Some(Value::Array(values)) => Some(values.iter().map(logp).collect::<Found<Vec<f32>>>()?),
            _ => None,
        };
        self.drawn(choice, text_of(&choice["text"])?, logps)
    }

    /// The common part of a choice of `/v1/completions` and `/v1/chat/completions`.
    pub(super) fn drawn(&self, choice: &Value, text: String, logps: Option<Vec<f32>>) -> Found<Drawn> {
        let ids = match &choice["token_ids"] {
            Value::Array(ids) => Some(ids.iter().map(id_of).collect::<Found<Vec<u32>>>()?),
            _ => None,
        };
        if let (Some(ids), Some(logps)) = (&ids, &logps)
            && ids.len() != logps.len()
        {
            return Err(format!("it holds {} token ids and {} log-probs", ids.len(), logps.len()));
        }
        let stopped = match choice["finish_reason"].as_str() {
            Some("stop") => true,
            Some("length") => false,
            other => return Err(format!("its finish_reason is {other:?}: neither stop nor length")),
        };
        let whole = match (&ids, &self.renderer) {
            (Some(ids), Some(renderer)) => ids.last().is_some_and(|&id| renderer.is_end(id)),
            _ => false,
        };
        Ok(Drawn { text, ids, logps, stopped, whole })
    }

    /// vLLM: the log-probs of a prompt that is prompt and completion.
    pub(super) fn score_prompt_logprobs(&self, item: &Rendered) -> Result<Scored> {
        let (Some(prompt), Some(completion)) = (&item.prompt_ids, &item.completion_ids) else {
            return Err(
                self.unsupported("prompt_logprobs needs token ids: name the tokenizer with #tokenizer=M".into())
            );
        };
        let ids = [prompt.as_slice(), completion].concat();
        let body = json!({ "prompt": ids, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0 });
        self.client.ask("/v1/completions", &self.with_model(body), |answer| {
            let places = ["/choices/0/prompt_logprobs", "/prompt_logprobs"];
            let rows = places.iter().find_map(|p| answer.pointer(p)).and_then(Value::as_array);
            let rows = rows.ok_or("it has no prompt_logprobs")?;
            if rows.len() != ids.len() {
                return Err(format!("it holds {} prompt log-probs for {} tokens", rows.len(), ids.len()));
            }
            let own = |(row, id): (&Value, &u32)| match row.get(id.to_string()) {
                Some(found) => logp(&found["logprob"]),
                None => Err(format!("token {id} has no log-prob in {row}")),
            };
            let logps = rows[prompt.len()..].iter().zip(completion).map(own).collect::<Found<Vec<f32>>>()?;
            Ok(Scored { logps, pieces: None, prompt_tokens: None })
        })
    }

    /// Any server that can echo. The completion's tokens are the last ones before what the server
    /// added: counted from the end, as servers differ in what they leave out at the beginning. What
    /// was counted must then be the completion's text.
    pub(super) fn score_echo(&self, item: &Rendered) -> Result<Scored> {
        let text = format!("{}{}", item.prompt_text, item.completion_text);
        let mut body = json!({
            "prompt": text, "max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "seed": 1, "echo": true, "logprobs": 1,
        });
        self.add_own_fields(&mut body, &Decoding { temperature: 1.0, ..Decoding::default() });
        let (own, prompt_chars) = (self.own(item), item.prompt_text.chars().count());
        self.client.ask("/v1/completions", &self.with_model(body), |answer| {
            let logprobs = answer.pointer("/choices/0/logprobs").ok_or("it has no logprobs")?;
            let rows = logprobs["token_logprobs"].as_array().ok_or("it has no token_logprobs")?;
            let added = answer.pointer("/usage/completion_tokens").and_then(Value::as_u64).unwrap_or(1) as usize;
            let end = rows.len().checked_sub(added).ok_or("it holds fewer log-probs than tokens")?;
            let start = match &own {
                Some(own) => end.checked_sub(own.tokens.len()).ok_or_else(|| short(end, own.tokens.len()))?,
                None => boundary(logprobs, prompt_chars, end)?,
            };
            let named = logprobs["tokens"].as_array().and_then(|tokens| tokens.get(start..end));
            let pieces: Option<Vec<&str>> = named.map(|t| t.iter().map(|s| s.as_str().unwrap_or("")).collect());
            if let Some(own) = &own {
                check(own, pieces.as_deref(), logprobs["text_offset"][start].as_u64(), prompt_chars)?;
            }
            let logps = rows[start..end].iter().map(logp).collect::<Found<Vec<f32>>>()?;
            let pieces = pieces.map(|p| p.into_iter().map(str::to_owned).collect());
            let counted = answer.pointer("/usage/prompt_tokens").and_then(Value::as_u64);
            let prompt_tokens = counted.and_then(|n| (n as usize).checked_sub(end - start));
            Ok(Scored { logps, pieces, prompt_tokens })
        })
    }

    /// The completion token by token, where a tokenizer here reads it.
    fn own(&self, item: &Rendered) -> Option<Own> {
        let (renderer, ids) = (self.renderer.as_ref()?, item.completion_ids.as_ref()?);
        let tokens: Vec<String> = ids.iter().map(|id| renderer.read(&[*id])).collect();
        let special = ids.iter().zip(&tokens).filter(|(_, text)| text.is_empty());
        let special = special.map(|(id, _)| renderer.spell(&[*id])).filter(|name| !name.is_empty()).collect();
        Some(Own { text: renderer.read(ids), tokens, special })
    }
}

fn short(tokens: usize, wanted: usize) -> String {
    format!(
        "the server made {tokens} tokens of prompt and completion, and the completion alone has {wanted} here: it tokenizes otherwise"
    )
}

/// The first token that begins at or behind the prompt's end.
fn boundary(logprobs: &Value, prompt_chars: usize, end: usize) -> Found<usize> {
    let offsets = logprobs["text_offset"].as_array().ok_or("it has no text_offset")?;
    let offset = |v: &Value| v.as_u64().unwrap_or(0) as usize;
    match offsets[..end.min(offsets.len())].iter().position(|v| offset(v) >= prompt_chars) {
        Some(start) if offset(&offsets[start]) == prompt_chars => Ok(start),
        _ => Err(
            "no token begins where the prompt ends: a token holds the prompt's end and the completion's beginning; \
                  name the tokenizer with #tokenizer=M"
                .into(),
        ),
    }
}

/// The choices in the order of their index, exactly `n`.
pub(super) fn choices_of(answer: &Value, n: usize) -> Found<Vec<&Value>> {
    let list = answer["choices"].as_array().ok_or("it has no choices")?;
    if list.len() != n {
        return Err(format!("it holds {} completions where {n} were asked for", list.len()));
    }
    let mut choices: Vec<&Value> = list.iter().collect();
    choices.sort_by_key(|c| c["index"].as_u64().unwrap_or(0));
    Ok(choices)
}

pub(super) fn text_of(value: &Value) -> Found<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("a completion's text is {value}"))
}

pub(super) fn id_of(value: &Value) -> Found<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("a token id is {value}"))
}
