//! What makes a record valid beyond its JSON shape: checked when read and before written.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::import;
use crate::ranking::RankingRecord;
use crate::record::{Answer, Completion, PreferenceRecord, Prompt, PromptRecord, SCHEMA, SelectionRecord};

/// Rounding that a sum of log-probs may rise above 0 by, nats.
pub(super) const LOGP_TOLERANCE: f64 = 1e-3;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A prompt and its candidates.
    Prompt,
    /// A comparison to be answered.
    Selection,
    /// An answered comparison.
    Preference,
    /// A prompt's completions in order.
    Ranking,
}

impl Kind {
    /// The kind's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Selection => "selection",
            Self::Preference => "preference",
            Self::Ranking => "ranking",
        }
    }
}

/// A record that stands in files.
pub trait Record: Serialize + DeserializeOwned {
    /// Which record it is.
    const KIND: Kind;

    /// The record's id, unique within a file.
    fn id(&self) -> &str;

    /// The record's schema version.
    fn schema(&self) -> u32;

    /// What is wrong with the values, if anything: one clause with the field's path.
    fn check(&self) -> Result<(), String>;

    /// True when the JSON fitted, but only because it is another format that shares field names.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Reads row `number` (1-based) of another tool's format; `None`: no format that is known.
    fn adopt(_row: &Map<String, Value>, _number: u64) -> Option<Result<Self, String>> {
        None
    }

    /// The records that a row of another kind makes; `None`: it makes none, or is itself one.
    fn spread(_row: &Map<String, Value>, _number: u64) -> Option<Result<Vec<Self>, String>> {
        None
    }

    /// Whether tables with one completion a row can be gathered into such records.
    const GATHERS: bool = false;

    /// The records that a prompt's gathered completions make.
    fn gathered(_record: PromptRecord) -> Vec<Self> {
        Vec::new()
    }

    /// Whether a file whose first line starts like this is one object of columns.
    fn starts_columns(_line: &[u8]) -> bool {
        false
    }

    /// Reads a whole file that is one object of columns; `None`: not such a file.
    fn from_columns(_columns: &Map<String, Value>) -> Option<Result<Vec<Self>, ColumnFault>> {
        None
    }
}

/// What is wrong with a file of columns.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnFault {
    /// 1-based row, where one row is at fault.
    pub row: Option<u64>,
    /// What is wrong, and the remedy.
    pub what: String,
}

impl Record for PromptRecord {
    const KIND: Kind = Kind::Prompt;

    fn id(&self) -> &str {
        &self.id
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    fn check(&self) -> Result<(), String> {
        candidates(&self.id, self.schema, &self.prompt, &self.completions)?;
        within("kendall_tau_distance", self.kendall_tau_distance, 0.0, 1.0)?;
        within("tau_b", self.tau_b, -1.0, 1.0)
    }

    fn is_foreign(&self) -> bool {
        let other = ["first", "second", "responses", "chosen", "response_0", "response_1", "helpfulness", "completion"];
        self.completions.is_empty() && other.iter().any(|name| self.extra.contains_key(*name))
    }

    fn adopt(row: &Map<String, Value>, number: u64) -> Option<Result<Self, String>> {
        import::prompt_row(row, number)
    }

    const GATHERS: bool = true;

    fn gathered(record: PromptRecord) -> Vec<Self> {
        vec![record]
    }

    fn starts_columns(line: &[u8]) -> bool {
        import::published::starts(line)
    }

    fn from_columns(columns: &Map<String, Value>) -> Option<Result<Vec<Self>, ColumnFault>> {
        import::published::columns(columns)
    }
}

impl Record for SelectionRecord {
    const KIND: Kind = Kind::Selection;

    fn id(&self) -> &str {
        &self.id
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    fn check(&self) -> Result<(), String> {
        header(&self.id, self.schema)?;
        prompt(&self.prompt)?;
        if self.first.index == self.second.index {
            return Err(format!("first and second are both completion {}: a comparison needs two", self.first.index));
        }
        finite("first.gold", self.first.gold)?;
        finite("second.gold", self.second.gold)?;
        within("why.k", self.why.k, 0.0, 1.0)?;
        finite("why.pacs_first", self.why.pacs_first)?;
        finite("why.pacs_second", self.why.pacs_second)
    }

    fn adopt(row: &Map<String, Value>, number: u64) -> Option<Result<Self, String>> {
        import::selection_row(row, number)
    }
}

impl Record for PreferenceRecord {
    const KIND: Kind = Kind::Preference;

    fn id(&self) -> &str {
        &self.id
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    fn check(&self) -> Result<(), String> {
        header(&self.id, self.schema)?;
        prompt(&self.prompt)?;
        within("p_first", self.p_first, 0.0, 1.0)?;
        answer(self.answer, self.p_first)?;
        if let Some(margin) = self.margin
            && !(margin >= 0.0 && margin.is_finite())
        {
            return Err(format!(
                "margin is {margin}: it must be finite and at least 0; swap first and second \
                 where it is negative"
            ));
        }
        for (index, vote) in self.votes.iter().enumerate() {
            within(&format!("votes[{index}].seconds"), vote.seconds, 0.0, f64::MAX)?;
        }
        Ok(())
    }

    fn adopt(row: &Map<String, Value>, number: u64) -> Option<Result<Self, String>> {
        import::pairs::row(row, number)
    }

    fn spread(row: &Map<String, Value>, number: u64) -> Option<Result<Vec<Self>, String>> {
        let labeled = import::labeled_row(row, number)?;
        let checked = labeled.and_then(|record| record.check().map(|()| record));
        Some(checked.map(|record| import::convert::compared(&record)))
    }

    const GATHERS: bool = true;

    fn gathered(record: PromptRecord) -> Vec<Self> {
        import::convert::compared(&record)
    }
}

impl Record for RankingRecord {
    const KIND: Kind = Kind::Ranking;

    fn id(&self) -> &str {
        &self.id
    }

    fn schema(&self) -> u32 {
        self.schema
    }

    fn check(&self) -> Result<(), String> {
        candidates(&self.id, self.schema, &self.prompt, &self.completions)?;
        self.ranking.check(self.completions.len())
    }

    fn adopt(row: &Map<String, Value>, number: u64) -> Option<Result<Self, String>> {
        import::ranking_row(row, number)
    }
}

/// A prompt with its completions.
fn candidates(id: &str, schema: u32, asked: &Prompt, completions: &[Completion]) -> Result<(), String> {
    header(id, schema)?;
    prompt(asked)?;
    for (index, one) in completions.iter().enumerate() {
        completion(one).map_err(|what| format!("completions[{index}]: {what}"))?;
    }
    Ok(())
}

fn header(id: &str, schema: u32) -> Result<(), String> {
    if id.is_empty() {
        return Err("id is empty: give every record an id of its own".into());
    }
    if schema == 0 {
        return Err(format!("schema is 0: versions start at 1; write \"schema\":{SCHEMA}"));
    }
    Ok(())
}

fn prompt(prompt: &Prompt) -> Result<(), String> {
    match prompt {
        Prompt::Text(text) if text.is_empty() => Err("prompt is empty: give it text, or delete the record".into()),
        Prompt::Text(_) => Ok(()),
        Prompt::Chat(messages) if messages.is_empty() => {
            Err("prompt has no turns: give it one, or delete the record".into())
        }
        Prompt::Chat(messages) => {
            messages.iter().enumerate().try_for_each(|(index, message)| match message.role.as_str() {
                "system" | "user" | "assistant" => Ok(()),
                role => Err(format!("prompt[{index}].role is `{role}`: it must be system, user or assistant")),
            })
        }
    }
}

fn completion(completion: &Completion) -> Result<(), String> {
    let ids = completion.token_ids.as_ref().map(Vec::len);
    let logps = completion.token_logps.as_ref().map(Vec::len);
    let count = completion.n_tokens.map(|n| n as usize);
    equal(("token_logps", logps), ("token_ids", ids))?;
    equal(("n_tokens", count), ("token_ids", ids))?;
    equal(("n_tokens", count), ("token_logps", logps))?;
    finite("logp", completion.logp)?;
    if let Some(logp) = completion.logp
        && logp > LOGP_TOLERANCE
    {
        return Err(format!("logp is {logp}: a log-prob is at most 0; store the natural log of the probability"));
    }
    for (index, &logp) in completion.token_logps.iter().flatten().enumerate() {
        if !(f64::from(logp) <= LOGP_TOLERANCE && logp.is_finite()) {
            return Err(format!("token_logps[{index}] is {logp}: a log-prob is finite and at most 0"));
        }
    }
    finite("reward", completion.reward)?;
    finite("gold", completion.gold)?;
    finite("pacs", completion.pacs)?;
    finite("z_reward", completion.z_reward)?;
    finite("z_logp", completion.z_logp)
}

fn answer(answer: Answer, p_first: Option<f64>) -> Result<(), String> {
    let (word, fits) = match (answer, p_first) {
        (Answer::First, p) => ("first", p.is_some_and(|p| p >= 0.5)),
        (Answer::Second, p) => ("second", p.is_some_and(|p| p <= 0.5)),
        (Answer::Tie, p) => ("tie", p.is_some()),
        (Answer::BothBad, p) => ("both_bad", p.is_none()),
        (Answer::Skip, p) => ("skip", p.is_none()),
    };
    if fits {
        return Ok(());
    }
    let found = p_first.map_or("missing".into(), |p| p.to_string());
    Err(format!(
        "answer is {word}, but p_first is {found}: first needs p_first >= 0.5, second <= 0.5, a \
         tie any; both_bad and skip have none"
    ))
}

fn equal(left: (&str, Option<usize>), right: (&str, Option<usize>)) -> Result<(), String> {
    let (Some(a), Some(b)) = (left.1, right.1) else { return Ok(()) };
    if a == b {
        return Ok(());
    }
    let length = |name: &str, n: usize| match name {
        "n_tokens" => format!("n_tokens is {n}"),
        _ => format!("{name} has {n} entries"),
    };
    Err(format!(
        "{} but {}: they must agree; sample or score the completion anew",
        length(left.0, a),
        length(right.0, b)
    ))
}

fn finite(name: &str, value: Option<f64>) -> Result<(), String> {
    match value {
        Some(value) if !value.is_finite() => {
            Err(format!("{name} is {value}: it must be a finite number; drop the record or leave the field out"))
        }
        _ => Ok(()),
    }
}

fn within(name: &str, value: Option<f64>, low: f64, high: f64) -> Result<(), String> {
    finite(name, value)?;
    match value {
        Some(value) if !(low..=high).contains(&value) => {
            Err(format!("{name} is {value}: it must lie between {low} and {high}"))
        }
        _ => Ok(()),
    }
}
