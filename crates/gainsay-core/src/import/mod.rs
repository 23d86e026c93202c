//! Other tools' files as Gainsay's records.
//!
//! [`Reader`](crate::files::Reader) recognizes all of these by itself, row by row; the functions
//! here are for callers that hold the rows already.
//!
//! - [`DataFormat`]: which format a row is in, by its fields.
//! - [`published`]: the columns of the scripts published with arXiv 2512.09212.
//! - [`pools`]: prompts with several models' answers and their labels.
//! - [`trl`]: TRL's preference rows, read and written, and hh-rlhf's dialogues.
//! - [`pairs`]: PKU-SafeRLHF, HelpSteer2's preferences, UltraFeedback-binarized, RewardBench.
//! - [`Gather`]: tables with one completion a row: logs of TRL, OpenRLHF and verl, HelpSteer2's
//!   ratings, any table by a [`ColumnMap`]; RewardBench 2.
//! - [`convert`]: pairs as candidates and candidates as pairs.

mod cells;
pub mod convert;
mod dialogue;
mod format;
mod gather;
mod map;
pub mod pairs;
pub mod pools;
pub mod published;
pub mod trl;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ranking::RankingRecord;
use crate::record::{PreferenceRecord, PromptRecord, SelectionRecord};

pub use format::DataFormat;
pub use gather::{Gather, RowFault};
pub use map::ColumnMap;

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

/// Reads row `number` (1-based) as a prompt with what candidates it has: a pool, a pair of
/// whatever format, OpenRLHF's prompts, or a row that is a prompt record but for its id:
/// `{"prompt": "…"}`. `None`: none of these.
pub fn prompt_row(row: &Map<String, Value>, number: u64) -> Option<Result<PromptRecord, String>> {
    match DataFormat::of(row)?.0 {
        DataFormat::Pool => Some(pools::row(row, number)),
        DataFormat::OpenRlhfPrompts => Some(openrlhf_prompt(row, number)),
        DataFormat::Preferences => Some(typed::<PreferenceRecord>(Value::Object(row.clone())).map(convert::candidates)),
        DataFormat::Prompts | DataFormat::Rankings if !matches!(row.get("id"), Some(Value::String(_))) => {
            let mut row = row.clone();
            row.insert("id".into(), row_id(&row, number).into());
            Some(typed(Value::Object(row)))
        }
        _ => pairs::row(row, number).map(|pair| pair.map(convert::candidates)),
    }
}

/// Reads row `number` (1-based) as a prompt with completions that gold may compare: a pool, or one of
/// our own records. `None`: another format, or no completions.
pub fn labeled_row(row: &Map<String, Value>, number: u64) -> Option<Result<PromptRecord, String>> {
    let record = match DataFormat::of(row)?.0 {
        DataFormat::Pool => pools::row(row, number),
        DataFormat::Prompts => {
            let mut row = row.clone();
            row.insert("id".into(), row_id(&row, number).into());
            typed::<PromptRecord>(Value::Object(row))
        }
        _ => return None,
    };
    match record {
        Ok(record) if record.completions.is_empty() => None,
        record => Some(record),
    }
}

/// Reads row `number` (1-based) as a ranking that lacks an id of its own.
pub fn ranking_row(row: &Map<String, Value>, number: u64) -> Option<Result<RankingRecord, String>> {
    if DataFormat::of(row)?.0 != DataFormat::Rankings {
        return None;
    }
    let mut row = row.clone();
    row.insert("id".into(), row_id(&row, number).into());
    Some(typed(Value::Object(row)))
}

/// Reads row `number` (1-based) of compared pairs as a comparison that is to be answered anew.
pub fn selection_row(row: &Map<String, Value>, number: u64) -> Option<Result<SelectionRecord, String>> {
    let pair = pairs::row(row, number)?;
    Some(pair.map(|pair| convert::comparison(pair, number as usize - 1)))
}

/// A prompt under one of OpenRLHF's names; further fields are kept.
fn openrlhf_prompt(row: &Map<String, Value>, number: u64) -> Result<PromptRecord, String> {
    let mut row = row.clone();
    let prompt = row.remove("input").or_else(|| row.remove("context_messages")).unwrap_or_default();
    row.insert("prompt".into(), prompt);
    row.insert("id".into(), row_id(&row, number).into());
    typed(Value::Object(row))
}
