//! Argilla 2 records: fields, and responses to a label question `preference`.
//!
//! Argilla's ranking question loses ties on its way through the SDK, so answers travel as labels:
//! `first`, `second`, `tie`, `both_bad`. Rankings of `first` and `second` are read too.

use serde_json::{Map, Value, json};

use super::{answer_name, answer_of, preference};
use crate::record::{Answer, Extra, PreferenceRecord, Prompt, Vote};

/// Records as a list, in the nested form of the SDK's `to_dict`. `user_id` holds the annotator's
/// name; a skip is a discarded response.
pub fn write(records: &[PreferenceRecord]) -> Value {
    let one = |record: &PreferenceRecord| {
        let responses: Vec<Value> = record
            .votes
            .iter()
            .map(|vote| match vote.answer {
                Answer::Skip => json!({ "value": null, "user_id": vote.annotator, "status": "discarded" }),
                answer => json!({ "value": answer_name(answer), "user_id": vote.annotator, "status": "submitted" }),
            })
            .collect();
        json!({
            "id": record.id,
            "fields": { "prompt": record.prompt.display(), "first": record.first.text, "second": record.second.text },
            "metadata": { "gainsay_prompt": serde_json::to_string(&record.prompt).unwrap_or_default() },
            "suggestions": {},
            "responses": { "preference": responses },
        })
    };
    Value::Array(records.iter().map(one).collect())
}

/// What a list of records holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Records with at least one answer.
    pub records: Vec<PreferenceRecord>,
    /// Responses that were begun and not submitted; they are no votes and left out.
    pub drafts: usize,
}

/// Reads a list of records, nested (`responses.preference`) or flat (`preference.responses`).
/// Records without responses are left out, and so are drafts.
///
/// # Errors
/// The record, counted from 1, and what is wrong with it.
pub fn read(value: &Value) -> Result<Found, String> {
    let records = value.as_array().ok_or("expected a list of records")?;
    let mut found = Found::default();
    for (index, record) in records.iter().enumerate() {
        let read = record
            .as_object()
            .ok_or_else(|| "it is no object".to_owned())
            .and_then(|r| read_record(r, index, &mut found.drafts));
        found.records.extend(read.map_err(|what| format!("record {}: {what}", index + 1))?);
    }
    Ok(found)
}

fn read_record(
    record: &Map<String, Value>,
    index: usize,
    drafts: &mut usize,
) -> Result<Option<PreferenceRecord>, String> {
    let fields = record.get("fields").and_then(Value::as_object).unwrap_or(record);
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| fields.get(*name)?.as_str());
        found.map(str::to_owned).ok_or_else(|| format!("its fields have none of {}", names.join(", ")))
    };
    let (first, second) = (text(&["first", "response1", "response_1"])?, text(&["second", "response2", "response_2"])?);
    let kept = record.get("metadata").and_then(|m| m.get("gainsay_prompt")?.as_str());
    let prompt = match kept.and_then(|text| serde_json::from_str(text).ok()) {
        Some(prompt) => prompt,
        None => Prompt::Text(text(&["prompt", "instruction"])?),
    };
    let id = match record.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(other) if !other.is_null() => other.to_string(),
        _ => format!("record-{}", index + 1),
    };
    let votes = votes(record, drafts)?;
    Ok((!votes.is_empty()).then(|| preference(id, prompt, first, second, votes)))
}

fn votes(record: &Map<String, Value>, drafts: &mut usize) -> Result<Vec<Vote>, String> {
    let responses = responses(record);
    let is_draft = |(.., status): &(Value, Value, Value)| status.as_str() == Some("draft");
    *drafts += responses.iter().filter(|response| is_draft(response)).count();
    let given = responses.iter().filter(|response| !is_draft(response));
    given.map(|(value, user, status)| vote(value, user, status)).collect()
}

/// Value, user and status of each response, null where absent.
fn responses(record: &Map<String, Value>) -> Vec<(Value, Value, Value)> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(nested) = record.get("responses").and_then(|r| r.get("preference")) {
        let of = |r: &Value, name: &str| r.get(name).cloned().unwrap_or_default();
        return list(Some(nested)).iter().map(|r| (of(r, "value"), of(r, "user_id"), of(r, "status"))).collect();
    }
    let (users, states) =
        (list(record.get("preference.responses.users")), list(record.get("preference.responses.status")));
    let at = |values: &[Value], i: usize| values.get(i).cloned().unwrap_or_default();
    let values = list(record.get("preference.responses"));
    values.into_iter().enumerate().map(|(i, value)| (value, at(&users, i), at(&states, i))).collect()
}

fn vote(value: &Value, user: &Value, status: &Value) -> Result<Vote, String> {
    let answer = match value {
        _ if status.as_str() == Some("discarded") => Answer::Skip,
        Value::String(name) => answer_of(name).ok_or_else(|| format!("the response `{name}` is no known answer"))?,
        Value::Array(ranking) => ranked(ranking)?,
        other => return Err(format!("the response {other} is no known answer")),
    };
    let annotator = user.as_str().unwrap_or("unknown").to_owned();
    Ok(Vote { annotator, answer, strength: None, seconds: None, extra: Extra::new() })
}

/// `[{"value":"first","rank":1},...]`, or names from the best on.
fn ranked(ranking: &[Value]) -> Result<Answer, String> {
    let place = |name: Answer| {
        ranking.iter().enumerate().find_map(|(index, entry)| {
            let (value, rank) = match entry {
                Value::String(value) => (value.as_str(), index as i64 + 1),
                entry => (entry.get("value")?.as_str()?, entry.get("rank").and_then(Value::as_i64)?),
            };
            (answer_of(value) == Some(name)).then_some(rank)
        })
    };
    let (Some(first), Some(second)) = (place(Answer::First), place(Answer::Second)) else {
        return Err("the ranking does not rank first and second".into());
    };
    Ok(match first.cmp(&second) {
        std::cmp::Ordering::Less => Answer::First,
        std::cmp::Ordering::Greater => Answer::Second,
        std::cmp::Ordering::Equal => Answer::Tie,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{records, same};
    use super::*;

    #[test]
    fn everything_but_strength_and_time_comes_back() {
        same(&read(&write(&records())).unwrap().records, false);
    }

    #[test]
    fn flat_records_and_rankings_are_read() {
        let flat = json!([{"prompt": "q", "response1": "a", "response2": "b",
            "preference.responses": ["tie", [{"value": "second", "rank": 1}, {"value": "first", "rank": 2}]],
            "preference.responses.users": ["u1", "u2"], "preference.responses.status": ["submitted", "submitted"]}]);
        let read = read(&flat).unwrap().records;
        let answers: Vec<Answer> = read[0].votes.iter().map(|v| v.answer).collect();
        assert_eq!((answers, read[0].p_first), (vec![Answer::Tie, Answer::Second], Some(0.25)));
    }

    #[test]
    fn drafts_are_no_votes() {
        let fields = json!({"prompt": "q", "first": "a", "second": "b"});
        let begun = json!({"value": "second", "user_id": "bo", "status": "draft"});
        let nested = json!([
            {"id": "1", "fields": fields, "responses": {"preference": [
                {"value": "first", "user_id": "ann", "status": "submitted"}, begun]}},
            {"id": "2", "fields": fields, "responses": {"preference": [{"value": null, "status": "draft"}]}}]);
        let found = read(&nested).unwrap();
        assert_eq!((found.records.len(), found.records[0].p_first, found.drafts), (1, Some(1.0), 2));
        let flat = json!([{"prompt": "q", "response1": "a", "response2": "b", "preference.responses": ["first", "tie"],
            "preference.responses.users": ["u1", "u2"], "preference.responses.status": ["draft", "submitted"]}]);
        let found = read(&flat).unwrap();
        assert_eq!((found.records[0].votes[0].annotator.as_str(), found.drafts), ("u2", 1));
    }

    #[test]
    fn faults_name_their_record() {
        assert!(read(&json!([1])).unwrap_err().contains("record 1: it is no object"));
        let bad = json!([{"fields": {"prompt": "q", "first": "a", "second": "b"}, "responses": {"preference": [{"value": "best"}]}}]);
        assert!(read(&bad).unwrap_err().contains("record 1: the response `best`"));
    }
}
