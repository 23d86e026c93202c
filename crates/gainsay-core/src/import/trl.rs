//! TRL's preference rows, read and written, and hh-rlhf's dialogues.

use serde_json::{Map, Value, json};

use super::{dialogue, row_id, typed};
use crate::record::{Answer, Extra, Message, PreferenceRecord, PreferenceSide, Prompt, SCHEMA, Source};

/// Reads row `number` (1-based) with `chosen` and `rejected`; `None` where it lacks them.
///
/// `chosen` becomes the first side, with `p_first` 1 and source `labels`. Understood are: an
/// explicit `prompt`, as text or turns; none, where both sides are whole conversations, hh-rlhf
/// dialogues, or texts with a common beginning; an optional `margin`. Further fields are kept. The
/// id is the row's own (`id`: text or integer), else `row-<number>`.
pub fn row(row: &Map<String, Value>, number: u64) -> Option<Result<PreferenceRecord, String>> {
    if !row.contains_key("chosen") || !row.contains_key("rejected") {
        return None;
    }
    Some(convert(row, number))
}

fn convert(row: &Map<String, Value>, number: u64) -> Result<PreferenceRecord, String> {
    let mut extra = row.clone();
    let mut field = |name: &str| extra.remove(name);
    let chosen = Side::read("chosen", field("chosen").unwrap_or_default())?;
    let rejected = Side::read("rejected", field("rejected").unwrap_or_default())?;
    let prompt = match field("prompt") {
        None | Some(Value::Null) => None,
        Some(value) => Some(typed::<Prompt>(value).map_err(|what| format!("prompt: {what}"))?),
    };
    let margin = match field("margin") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_f64().ok_or_else(|| format!("margin is {value}, expected a number"))?),
    };
    let meta = match field("meta") {
        Some(Value::Object(meta)) => meta,
        _ => Extra::new(),
    };
    field("id");
    field("schema");
    let (prompt, first, second) = match prompt {
        Some(prompt) => explicit(prompt, chosen, rejected)?,
        None => implicit(chosen, rejected)?,
    };
    let side = |text| PreferenceSide { text, ..PreferenceSide::default() };
    Ok(PreferenceRecord {
        schema: SCHEMA,
        id: row_id(row, number),
        prompt,
        first: side(first),
        second: side(second),
        p_first: Some(1.0),
        answer: Answer::First,
        margin,
        votes: Vec::new(),
        source: Some(Source::Labels),
        safe_first: None,
        safe_second: None,
        meta,
        extra,
    })
}

/// `chosen` or `rejected` as it stands in the row.
enum Side {
    Text(String),
    Turns(Vec<Message>),
}

impl Side {
    fn read(name: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(_) => typed(value).map(Self::Turns).map_err(|what| format!("{name}: {what}")),
            other => Err(format!("{name} is {other}, expected text or a list of turns")),
        }
    }

    /// The answer's text after `prompt`, which the side may repeat.
    fn after(self, name: &str, prompt: &[Message]) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Turns(turns) => {
                let own = turns.strip_prefix(prompt).unwrap_or(&turns);
                dialogue::answer(own)
                    .ok_or_else(|| format!("{name} does not go on after the prompt with a turn of the assistant"))
            }
        }
    }
}

type Parts = (Prompt, String, String);

fn explicit(prompt: Prompt, chosen: Side, rejected: Side) -> Result<Parts, String> {
    if let Prompt::Text(text) = &prompt
        && let (Side::Text(first), Side::Text(second)) = (&chosen, &rejected)
        && let Some(mut turns) = dialogue::turns(text)
    {
        // A dialogue up to the marker of the answer: the marker belongs to neither.
        turns.pop_if(|last| last.role == "assistant" && last.content.is_empty());
        let own = |text: &str| text.strip_prefix(' ').unwrap_or(text).to_string();
        return Ok((Prompt::Chat(turns), own(first), own(second)));
    }
    let turns = prompt.messages();
    let first = chosen.after("chosen", &turns)?;
    let second = rejected.after("rejected", &turns)?;
    Ok((prompt, first, second))
}

fn implicit(chosen: Side, rejected: Side) -> Result<Parts, String> {
    let (first, second) = match (chosen, rejected) {
        (Side::Turns(first), Side::Turns(second)) => (first, second),
        (Side::Text(first), Side::Text(second)) => match (dialogue::turns(&first), dialogue::turns(&second)) {
            (Some(first), Some(second)) => (first, second),
            (None, None) => return common_text(&first, &second),
            _ => {
                return Err("only one of chosen and rejected is a Human/Assistant dialogue; \
                                 write both in one format"
                    .into());
            }
        },
        _ => {
            return Err("one of chosen and rejected is text, the other a list of turns; write \
                         both in one format"
                .into());
        }
    };
    let (prompt, first, second) = dialogue::part(&first, &second).ok_or(
        "chosen and rejected share no prompt: their dialogues must begin with the same turns and \
         go on with the assistant's",
    )?;
    Ok((Prompt::Chat(prompt), first, second))
}

/// Texts without a prompt: their common beginning is the prompt, and a space before the first
/// difference belongs to the answers, as in TRL's own `extract_prompt`.
fn common_text(chosen: &str, rejected: &str) -> Result<Parts, String> {
    let pairs = chosen.char_indices().zip(rejected.chars());
    let same = pairs.take_while(|((_, a), b)| a == b).last();
    let mut cut = same.map_or(0, |((at, c), _)| at + c.len_utf8());
    if chosen[..cut].ends_with(' ') {
        cut -= 1;
    }
    if cut == 0 {
        return Err("there is no prompt: give the row a `prompt`, or let chosen and rejected begin \
                    with it"
            .into());
    }
    Ok((Prompt::Text(chosen[..cut].to_string()), chosen[cut..].to_string(), rejected[cut..].to_string()))
}

/// What becomes of ties, which TRL's rows cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// Two rows, one in each order: together their loss is that of a tie.
    Keep,
    /// No row.
    Drop,
}

/// How rows store texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Lists of turns: the trainer applies the chat template.
    Conversational,
    /// Plain strings; a prompt of several turns becomes `role: content` lines.
    Plain,
}

/// The record as TRL preference rows, with its id and margin: the side with `p_first` above 1/2
/// (the other below) is chosen. None for `both_bad` and `skip`; ties as `ties` says.
pub fn export_trl(record: &PreferenceRecord, ties: Ties, layout: Layout) -> Vec<Value> {
    let (first, second) = (record.first.text.as_str(), record.second.text.as_str());
    match (record.p_first, ties) {
        (None, _) => Vec::new(),
        (Some(p), _) if p > 0.5 => vec![trl_row(record, first, second, layout)],
        (Some(p), _) if p < 0.5 => vec![trl_row(record, second, first, layout)],
        (Some(_), Ties::Drop) => Vec::new(),
        (Some(_), Ties::Keep) => {
            vec![trl_row(record, first, second, layout), trl_row(record, second, first, layout)]
        }
    }
}

fn trl_row(record: &PreferenceRecord, chosen: &str, rejected: &str, layout: Layout) -> Value {
    let mut row = match layout {
        Layout::Plain => {
            json!({"prompt": record.prompt.display(), "chosen": chosen, "rejected": rejected})
        }
        Layout::Conversational => json!({
            "prompt": record.prompt.messages(),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }),
    };
    row["id"] = record.id.as_str().into();
    if let Some(margin) = record.margin {
        row["margin"] = margin.into();
    }
    row
}
