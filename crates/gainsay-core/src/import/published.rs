//! The columns of the scripts published with arXiv 2512.09212.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::files::ColumnFault;
use crate::record::{Completion, Extra, Prompt, PromptRecord, SCHEMA};

/// The columns: what was asked, prompt and answer as one text, the answer's log-prob (a sum over
/// its tokens, nats), the proxy reward.
pub const COLUMNS: [&str; 4] = ["prompt", "response_with_prompt", "response_prob", "response_reward"];

/// Rounding that a sum of log-probs may rise above 0 by, nats.
const LOGP_TOLERANCE: f64 = 1e-3;

/// Whether the first line of a file starts an object of these columns.
pub fn starts(line: &[u8]) -> bool {
    let start: Vec<u8> = line.iter().take(64).copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let opens = |name: &str, next: &str| {
        let head = format!("{{\"{name}\":[");
        start
            .strip_prefix(head.as_bytes())
            .is_some_and(|rest| rest.is_empty() || next.is_empty() || rest.starts_with(next.as_bytes()))
    };
    start == b"{"
        || opens("prompt", "\"")
        || COLUMNS[1..].iter().any(|name| opens(name, ""))
        || line.windows(KEY.len()).any(|window| window == KEY)
}

/// A key that no other format has; within a JSON string its quotes would be escaped.
const KEY: &[u8] = b"\"response_with_prompt\":";

/// The columns as prompt records, or `None` where the object has none of them but `prompt`.
///
/// Rows with the same prompt form one record, in order of first appearance, with id `p<index>`.
/// The columns may be nested too: one list of answers a prompt. The completion is
/// `response_with_prompt` without the prompt; where it does not start with the prompt it is kept
/// whole, and its index is listed in `meta.without_prompt_prefix`. Further columns of the same
/// length are kept.
pub fn columns(object: &Map<String, Value>) -> Option<Result<Vec<PromptRecord>, ColumnFault>> {
    if COLUMNS[1..].iter().all(|name| !object.contains_key(*name)) {
        return None;
    }
    Some(convert(object))
}

fn convert(object: &Map<String, Value>) -> Result<Vec<PromptRecord>, ColumnFault> {
    let mut lists = Vec::new();
    for name in COLUMNS {
        match object.get(name) {
            Some(Value::Array(list)) => lists.push(list),
            Some(_) => return Err(whole(format!("column {name} is not a list"))),
            None => return Err(whole(format!("column {name} is missing; {}", expected()))),
        }
    }
    if lists.iter().any(|list| list.len() != lists[0].len()) {
        let lengths: Vec<_> = COLUMNS.iter().zip(&lists).map(|(name, list)| format!("{name} {}", list.len())).collect();
        return Err(whole(format!(
            "the columns have unequal lengths: {}; they must have one entry a row",
            lengths.join(", ")
        )));
    }
    if lists[0].is_empty() {
        return Err(whole("the columns are empty: there is no row".into()));
    }
    let further: Vec<(&String, &Vec<Value>)> = object
        .iter()
        .filter(|(name, _)| !COLUMNS.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name, value.as_array()?)))
        .filter(|(_, list)| list.len() == lists[0].len())
        .collect();
    let mut groups = Groups::default();
    for row in 0..lists[0].len() {
        let cells = [&lists[0][row], &lists[1][row], &lists[2][row], &lists[3][row]];
        let extra = further.iter().map(|(name, list)| ((*name).clone(), list[row].clone()));
        groups.add_row(cells, extra.collect()).map_err(|what| ColumnFault { row: Some(row as u64 + 1), what })?;
    }
    Ok(groups.records)
}

fn whole(what: String) -> ColumnFault {
    ColumnFault { row: None, what }
}

fn expected() -> String {
    format!("the columns {} are needed", COLUMNS.join(", "))
}

/// Records in order of first appearance of their prompts.
#[derive(Default)]
struct Groups {
    records: Vec<PromptRecord>,
    index: HashMap<String, usize>,
}

impl Groups {
    /// Adds a row: one answer, or (nested) the answers of one prompt.
    fn add_row(&mut self, cells: [&Value; 4], extra: Extra) -> Result<(), String> {
        let prompt = text("prompt", cells[0])?;
        if prompt.is_empty() {
            return Err("prompt is empty: give it text, or delete the row".into());
        }
        let nested = cells[1..].iter().map(|cell| cell.as_array()).collect::<Option<Vec<_>>>();
        let Some(lists) = nested else {
            let completion = completion(prompt, cells[1], cells[2], cells[3], extra)?;
            self.add(prompt, completion);
            return Ok(());
        };
        if lists.iter().any(|list| list.len() != lists[0].len()) {
            return Err(format!(
                "{} answers, {} log-probs and {} rewards: their numbers must be equal",
                lists[0].len(),
                lists[1].len(),
                lists[2].len()
            ));
        }
        for ((response, prob), reward) in lists[0].iter().zip(lists[1]).zip(lists[2]) {
            let completion = completion(prompt, response, prob, reward, Extra::new())?;
            self.add(prompt, completion);
        }
        if let Some(&at) = self.index.get(prompt) {
            self.records[at].extra.extend(extra);
        }
        Ok(())
    }

    fn add(&mut self, prompt: &str, (completion, prefixed): (Completion, bool)) {
        let next = self.records.len();
        let at = *self.index.entry(prompt.to_string()).or_insert(next);
        if at == next {
            self.records.push(record(next, prompt));
        }
        let record = &mut self.records[at];
        if !prefixed {
            let listed = record.meta.entry("without_prompt_prefix").or_insert(Value::Array(vec![]));
            if let Value::Array(listed) = listed {
                listed.push(record.completions.len().into());
            }
        }
        record.completions.push(completion);
    }
}

fn record(index: usize, prompt: &str) -> PromptRecord {
    PromptRecord {
        schema: SCHEMA,
        id: format!("p{index}"),
        prompt: Prompt::Text(prompt.to_string()),
        completions: Vec::new(),
        kendall_tau_distance: None,
        tau_b: None,
        meta: Extra::from_iter([("source".into(), "published columns".into())]),
        extra: Extra::new(),
    }
}

/// The completion, and whether its text started with the prompt.
fn completion(
    prompt: &str,
    response: &Value,
    prob: &Value,
    reward: &Value,
    extra: Extra,
) -> Result<(Completion, bool), String> {
    let response = text("response_with_prompt", response)?;
    let logp = number("response_prob", prob)?;
    if logp > LOGP_TOLERANCE {
        return Err(format!(
            "response_prob is {logp}, above 0: the column must hold log-probs (the natural log of \
             the answer's probability, summed over its tokens), not probabilities"
        ));
    }
    let stripped = response.strip_prefix(prompt);
    let completion = Completion {
        text: stripped.unwrap_or(response).to_string(),
        logp: Some(logp),
        reward: Some(number("response_reward", reward)?),
        extra,
        ..Completion::default()
    };
    Ok((completion, stripped.is_some()))
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("{name} is {}, expected text", short(value)))
}

fn number(name: &str, value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .ok_or_else(|| format!("{name} is {}, expected a number; drop the row from all columns", short(value)))
}

/// A value for a message: lists and long texts by their kind.
fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string().chars().take(40).collect(),
    }
}
