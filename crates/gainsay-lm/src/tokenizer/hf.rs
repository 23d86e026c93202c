//! `tokenizer.json` and its companions in a Hugging Face folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Parts;
use crate::config::json::token_ids;
use crate::error::{LmError, read_json};

pub(super) fn read(dir: &Path) -> Result<Parts, LmError> {
    let origin = dir.join("tokenizer.json");
    if !origin.is_file() {
        let problem = "is missing; load the tokenizer with transformers' AutoTokenizer and save it there with \
                       `save_pretrained`, which writes it";
        return Err(LmError::tokenizer(&origin, problem));
    }
    let bytes = fs::read(&origin).map_err(LmError::read(&origin))?;
    let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| LmError::tokenizer(&origin, e))?;
    let optional = |name: &str| {
        let path = dir.join(name);
        if path.is_file() { read_json(&path) } else { Ok(Value::Null) }
    };
    let config = optional("tokenizer_config.json")?;
    let mut special = special_tokens(&optional("special_tokens_map.json")?);
    special.extend(special_tokens(&config));
    let mut eos = token_ids(optional("generation_config.json")?.get("eos_token_id"));
    eos.extend(token_ids(optional("config.json")?.get("eos_token_id")));
    Ok(Parts { inner, template: template(dir, &config)?, special, eos, origin })
}

/// The fields `..._token` whose value is a text or an added token's description.
fn special_tokens(json: &Value) -> BTreeMap<String, String> {
    let fields = json.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    let texts = fields.filter_map(|(name, value)| {
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some((name.clone(), text.to_owned()))
    });
    texts.collect()
}

/// `chat_template.jinja`, or the template in `tokenizer_config.json` (of several, `default`).
fn template(dir: &Path, config: &Value) -> Result<Option<String>, LmError> {
    let file = dir.join("chat_template.jinja");
    if file.is_file() {
        return fs::read_to_string(&file).map(Some).map_err(LmError::read(&file));
    }
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
        default.and_then(|t| t.get("template")?.as_str()).map(str::to_owned)
    };
    Ok(match config.get("chat_template") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(list)) => named(list),
        _ => None,
    })
}
