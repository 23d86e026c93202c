//! Other tools' files as Gainsay's records.
//!
//! [`Reader`](crate::files::Reader) recognizes all of these by itself, row by row; the functions
//! here are for callers that hold the rows already.
//!
//! - [`published`]: the columns of the scripts published with arXiv 2512.09212.
//! - [`pools`]: prompts with several models' answers and their labels.
//! - [`trl`]: TRL's preference rows, read and written, and hh-rlhf's dialogues.

mod dialogue;
pub mod pools;
pub mod published;
pub mod trl;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::record::PromptRecord;

/// The row's own id, where it is a string or an integer, else `row-<number>`.
fn row_id(row: &Map<String, Value>, number: u64) -> String {
    match row.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => id.to_string(),
        _ => format!("row-{number}"),
    }
}

/// Deserializes, naming the path of the field that does not fit.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.inner().to_string(),
            _ => format!("{path}: {}", error.inner()),
        }
    })
}

/// Reads row `number` (1-based) of a pool, or a row that is a prompt record but for its id:
/// `{"prompt": "…"}`. `None`: neither.
pub fn prompt_row(row: &Map<String, Value>, number: u64) -> Option<Result<PromptRecord, String>> {
    if row.contains_key("prompt") && row.contains_key("responses") {
        return Some(pools::row(row, number));
    }
    let other = ["first", "second", "chosen", "rejected"];
    let has_id = matches!(row.get("id"), Some(Value::String(_)));
    if !row.contains_key("prompt") || has_id || other.iter().any(|name| row.contains_key(*name)) {
        return None;
    }
    let mut row = row.clone();
    row.insert("id".into(), row_id(&row, number).into());
    Some(typed(Value::Object(row)))
}
