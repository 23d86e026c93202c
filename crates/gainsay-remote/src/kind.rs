//! Whose server it is, found out by asking.

use std::fmt;

use serde_json::Value;

use crate::client::Client;
use crate::error::{RemoteError, Result};

/// A server's make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `gainsay serve`.
    Gainsay,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// text-embeddings-inference.
    Tei,
    /// `trl vllm-serve`.
    Trl,
    /// llama-cpp-python's server, or llama.cpp's own.
    LlamaCpp,
    /// Anything with OpenAI's paths, `transformers serve` among them.
    OpenAi,
    /// OpenRLHF's reward protocol, known by its path alone.
    OpenRlhf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gainsay => "gainsay",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tei => "tei",
            Self::Trl => "trl",
            Self::LlamaCpp => "llama.cpp",
            Self::OpenAi => "openai",
            Self::OpenRlhf => "openrlhf",
        })
    }
}

/// What a server said of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Its make.
    pub kind: Kind,
    /// Its model, where it names one.
    pub model: Option<String>,
    /// Most inputs that it takes in one request, where it says so.
    pub largest_batch: Option<usize>,
}

/// Asks the server what it is: `/v1/models`, then the paths that only one make has.
///
/// # Errors
/// A server that cannot be reached, refuses the key, or that nothing is known about.
pub fn detect(client: &Client) -> Result<About> {
    let base = &client.address().base;
    if base.ends_with("/get_reward") {
        return Ok(About { kind: Kind::OpenRlhf, model: None, largest_batch: None });
    }
    let models = client.look("/v1/models");
    // A server that fails to list its models has the path all the same (`transformers serve` without a cache).
    let listless = matches!(models, Err(RemoteError::Failed { .. }));
    let known = optional(models)?.as_ref().and_then(of_models);
    let unnamed = || About { kind: Kind::OpenAi, model: None, largest_batch: None };
    if let Some(about) = known.or_else(|| listless.then(unnamed)) {
        return refine(client, about);
    }
    if let Some(info) = optional(client.look("/info"))?.filter(|i| i.get("model_type").is_some()) {
        let largest_batch = info["max_client_batch_size"].as_u64().map(|n| n as usize);
        return Ok(About { kind: Kind::Tei, model: text(&info["model_id"]), largest_batch });
    }
    if let Some(info) = sglang_info(client)? {
        return Ok(About { kind: Kind::Sglang, model: text(&info["model_path"]), largest_batch: None });
    }
    if optional(client.look("/get_world_size/"))?.is_some_and(|i| i.get("world_size").is_some()) {
        return Ok(About { kind: Kind::Trl, model: None, largest_batch: None });
    }
    Err(RemoteError::Unsupported {
        url: client.address().to_string(),
        problem: "this server does not say what it is; name its protocol with #api= (gainsay, vllm-classify, \
                  vllm-pooling, vllm-score, sglang-classify, sglang-embeddings, tei, openrlhf, json; for policies \
                  completions, chat, sglang, trl)"
            .into(),
    })
}

/// [`detect`] for a server whose protocol the user named: it may keep to itself what it is, but it
/// must be there.
pub(crate) fn detect_named(client: &Client) -> Result<Option<About>> {
    match detect(client) {
        Ok(about) => Ok(Some(about)),
        Err(error @ (RemoteError::Unavailable { .. } | RemoteError::Stopped)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The answer, or none where the server lacks the path; other failures are failures.
fn optional(answer: Result<Value>) -> Result<Option<Value>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(RemoteError::Refused { status: 404 | 405 | 422, .. } | RemoteError::Answer { .. }) => Ok(None),
        Err(RemoteError::Failed { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// What SGLang says of its model; `/get_model_info` is its older name for `/model_info`.
fn sglang_info(client: &Client) -> Result<Option<Value>> {
    for path in ["/model_info", "/get_model_info"] {
        let found = optional(client.look(path))?.filter(|info| info.get("model_path").is_some());
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// What the list of models tells.
fn of_models(models: &Value) -> Option<About> {
    let first = models.get("data")?.as_array()?.first();
    let owner = first.and_then(|m| m["owned_by"].as_str()).unwrap_or_default();
    let kind = match owner {
        "gainsay" => Kind::Gainsay,
        "vllm" => Kind::Vllm,
        "sglang" => Kind::Sglang,
        "llamacpp" | "me" => Kind::LlamaCpp,
        _ => Kind::OpenAi,
    };
    Some(About { kind, model: first.and_then(|m| text(&m["id"])), largest_batch: None })
}

/// A server with OpenAI's paths may be one of those that do not name themselves in the list.
fn refine(client: &Client, about: About) -> Result<About> {
    if about.kind != Kind::OpenAi {
        return Ok(about);
    }
    let own = |path: &str, field: &str| -> Result<bool> {
        Ok(optional(client.look(path))?.is_some_and(|i| i.get(field).is_some()))
    };
    if own("/version", "version")? {
        return Ok(About { kind: Kind::Vllm, ..about });
    }
    if sglang_info(client)?.is_some() {
        return Ok(About { kind: Kind::Sglang, ..about });
    }
    Ok(about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_known() {
        let of = |owner: &str| of_models(&json!({"data": [{"id": "m", "owned_by": owner}]})).map(|a| a.kind);
        assert_eq!(of("vllm"), Some(Kind::Vllm));
        assert_eq!(of("sglang"), Some(Kind::Sglang));
        assert_eq!(of("me"), Some(Kind::LlamaCpp));
        assert_eq!(of("somebody"), Some(Kind::OpenAi));
        assert_eq!(of_models(&json!({"detail": "no"})), None);
    }
}
