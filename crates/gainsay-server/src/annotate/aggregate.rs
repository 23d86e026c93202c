//! One preference from several votes.

mod whole;

use std::collections::HashMap;

use gainsay_core::record::{
    Answer, Candidate, Extra, PreferenceRecord, PreferenceSide, PromptRecord, SCHEMA, SelectionRecord, Source, Vote,
};
use gainsay_core::stats::{DawidSkeneOptions, Label, dawid_skene};
use serde_json::{Value, json};

use super::store::{ItemRow, Resolution, VoteRow};
use super::task::{Response, Task};

pub use whole::{judgements, rankings};

/// How votes become one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The shares of the votes; `both_bad` where more than half say so.
    #[default]
    Majority,
    /// Dawid and Skene's annotator model over all comparisons.
    DawidSkene,
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "majority" => Ok(Self::Majority),
            "dawid-skene" => Ok(Self::DawidSkene),
            other => Err(format!("aggregation `{other}`: write majority or dawid-skene")),
        }
    }
}

/// The categories of a comparison, in the order of the annotator model.
pub const CATEGORIES: [Answer; 4] = [Answer::First, Answer::Second, Answer::Tie, Answer::BothBad];

/// One comparison with all that was said to it.
struct Pair<'a> {
    id: String,
    first: Candidate,
    second: Candidate,
    record: Base<'a>,
    votes: Vec<Vote>,
    decided: Option<Answer>,
}

enum Base<'a> {
    Pair(&'a SelectionRecord),
    Prompt(&'a PromptRecord),
}

/// The preferences behind the answers to comparisons and rankings, in the items' order; items
/// without a vote and gold checks are left out. A ranking becomes all its pairs. A decision of the
/// admin counts alone, and the votes stay beside it.
pub fn preferences(
    items: &[ItemRow],
    votes: &[VoteRow],
    decisions: &[Resolution],
    rule: Rule,
) -> Vec<PreferenceRecord> {
    let mut of_item: HashMap<i64, Vec<&VoteRow>> = HashMap::new();
    votes.iter().for_each(|vote| of_item.entry(vote.item).or_default().push(vote));
    let decided: HashMap<i64, &Resolution> = decisions.iter().map(|d| (d.item, d)).collect();
    let mut pairs = Vec::new();
    for item in items.iter().filter(|item| item.expected.is_none()) {
        let Some(votes) = of_item.get(&item.number) else { continue };
        let decided = decided.get(&item.number).map(|d| &d.given.response);
        match &item.task {
            Task::Compare(pair) => pairs.push(compared(pair, votes, decided)),
            Task::Rank(record) => pairs.extend(ranked(record, votes, decided)),
            Task::Judge(_) => {}
        }
    }
    let soft = match rule {
        Rule::Majority => pairs.iter().map(|pair| majority(&pair.votes)).collect(),
        Rule::DawidSkene => model(&pairs.iter().map(|pair| pair.votes.as_slice()).collect::<Vec<_>>()),
    };
    pairs.into_iter().zip(soft).map(|(pair, soft)| finish(pair, soft)).collect()
}

/// Makes the answers of a file's preferences anew from their votes. A decision of the admin
/// (`adjudicated`) stays.
///
/// # Errors
/// A preference without votes.
pub fn anew(records: &mut [PreferenceRecord], rule: Rule) -> Result<(), String> {
    if let Some(record) = records.iter().find(|record| record.votes.is_empty()) {
        return Err(format!("preference `{}` has no votes to aggregate; leave out --aggregate", record.id));
    }
    let votes: Vec<&[Vote]> = records.iter().map(|record| record.votes.as_slice()).collect();
    let soft = match rule {
        Rule::Majority => votes.iter().map(|votes| majority(votes)).collect(),
        Rule::DawidSkene => model(&votes),
    };
    for (record, soft) in records.iter_mut().zip(soft) {
        if record.extra.get("adjudicated") != Some(&Value::Bool(true)) {
            (record.answer, record.p_first) = outcome(soft);
        }
    }
    Ok(())
}

fn compared<'a>(pair: &'a SelectionRecord, votes: &[&VoteRow], decided: Option<&Response>) -> Pair<'a> {
    let votes = votes.iter().map(|row| vote(row, &row.given.response)).collect();
    let decided = match decided {
        Some(Response::Compare { answer, .. }) => Some(*answer),
        _ => None,
    };
    Pair {
        id: pair.id.clone(),
        first: pair.first.clone(),
        second: pair.second.clone(),
        record: Base::Pair(pair),
        votes,
        decided,
    }
}

/// All pairs of a ranking.
fn ranked<'a>(record: &'a PromptRecord, votes: &[&VoteRow], decided: Option<&Response>) -> Vec<Pair<'a>> {
    let candidate = |index: usize| {
        let completion = &record.completions[index];
        Candidate {
            index,
            text: completion.text.clone(),
            token_ids: completion.token_ids.clone(),
            gold: completion.gold,
        }
    };
    let n = record.completions.len();
    let mut pairs = Vec::new();
    for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
        pairs.push(Pair {
            id: format!("{}/{i}-{j}", record.id),
            first: candidate(i),
            second: candidate(j),
            record: Base::Prompt(record),
            votes: votes.iter().map(|row| vote(row, &between(&row.given.response, i, j))).collect(),
            decided: decided.and_then(|response| match between(response, i, j) {
                Response::Compare { answer, .. } => Some(answer),
                _ => None,
            }),
        });
    }
    pairs
}

/// What a ranking says of two completions.
pub(super) fn between(response: &Response, i: usize, j: usize) -> Response {
    let Response::Rank { ranks } = response else { return response.clone() };
    let answer = match ranks.get(i).cmp(&ranks.get(j)) {
        std::cmp::Ordering::Less => Answer::First,
        std::cmp::Ordering::Greater => Answer::Second,
        std::cmp::Ordering::Equal => Answer::Tie,
    };
    Response::Compare {
        answer,
        strength: None,
        safe_first: None,
        safe_second: None,
        rating_first: None,
        rating_second: None,
    }
}

/// A vote as it stands in files, with everything that was said.
fn vote(row: &VoteRow, response: &Response) -> Vote {
    let mut extra = Extra::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            extra.insert(key.into(), value);
        }
    };
    let (answer, strength) = match response {
        Response::Compare { answer, strength, safe_first, safe_second, rating_first, rating_second } => {
            put("safe_first", json!(safe_first));
            put("safe_second", json!(safe_second));
            put("rating_first", json!(rating_first));
            put("rating_second", json!(rating_second));
            (*answer, *strength)
        }
        Response::Skip { reason } => {
            put("reason", json!(reason));
            (Answer::Skip, None)
        }
        Response::Rank { .. } | Response::Judge { .. } => (Answer::Skip, None),
    };
    put("left", json!(if row.swapped { "second" } else { "first" }));
    if !row.given.comment.is_empty() {
        put("comment", json!(row.given.comment));
    }
    Vote { annotator: row.annotator.clone(), answer, strength, seconds: Some(row.seconds), extra }
}

/// Probabilities of [`CATEGORIES`] from the shares of the votes; `None` where all skipped.
fn majority(votes: &[Vote]) -> Option<[f64; 4]> {
    let mut shares = [0.0; 4];
    for vote in votes {
        if let Some(category) = category(vote.answer) {
            shares[category] += 1.0;
        }
    }
    let n: f64 = shares.iter().sum();
    (n > 0.0).then(|| shares.map(|s| s / n))
}

fn category(answer: Answer) -> Option<usize> {
    CATEGORIES.iter().position(|c| *c == answer)
}

/// Probabilities by the annotator model, fitted to all pairs together.
fn model(pairs: &[&[Vote]]) -> Vec<Option<[f64; 4]>> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut labels = Vec::new();
    for (unit, pair) in pairs.iter().enumerate() {
        for vote in *pair {
            let Some(category) = category(vote.answer) else { continue };
            let next = names.len();
            let annotator = *names.entry(&vote.annotator).or_insert(next);
            labels.push(Label { unit, annotator, category });
        }
    }
    let fit = dawid_skene(&labels, pairs.len(), names.len(), CATEGORIES.len(), &DawidSkeneOptions::default());
    let mut soft: Vec<Option<[f64; 4]>> = vec![None; pairs.len()];
    for label in &labels {
        let row = &fit.posterior[label.unit];
        soft[label.unit] = Some([row[0], row[1], row[2], row[3]]);
    }
    soft
}

/// The answer and the probability that the first is better: `both_bad` where that is likelier
/// than all else together, else P(first) + P(tie) / 2 among the comparisons.
fn outcome(soft: Option<[f64; 4]>) -> (Answer, Option<f64>) {
    let Some([first, second, tie, bad]) = soft else { return (Answer::Skip, None) };
    if bad > 0.5 || first + second + tie <= 0.0 {
        return (Answer::BothBad, None);
    }
    let p = (first + tie / 2.0) / (first + second + tie);
    let p = if (p - 0.5).abs() < 1e-9 { 0.5 } else { p.clamp(0.0, 1.0) };
    (by_probability(p), Some(p))
}

fn by_probability(p: f64) -> Answer {
    match p.partial_cmp(&0.5) {
        Some(std::cmp::Ordering::Greater) => Answer::First,
        Some(std::cmp::Ordering::Less) => Answer::Second,
        _ => Answer::Tie,
    }
}

fn finish(pair: Pair<'_>, soft: Option<[f64; 4]>) -> PreferenceRecord {
    let (answer, p_first) = match pair.decided {
        None => outcome(soft),
        Some(Answer::First) => (Answer::First, Some(1.0)),
        Some(Answer::Second) => (Answer::Second, Some(0.0)),
        Some(Answer::Tie) => (Answer::Tie, Some(0.5)),
        Some(other) => (other, None),
    };
    let (prompt, meta) = match pair.record {
        Base::Pair(record) => (record.prompt.clone(), record.meta.clone()),
        Base::Prompt(record) => (record.prompt.clone(), record.meta.clone()),
    };
    let mut extra = Extra::new();
    if pair.decided.is_some() {
        extra.insert("adjudicated".into(), Value::Bool(true));
    }
    PreferenceRecord {
        schema: SCHEMA,
        id: pair.id,
        prompt,
        safe_first: flag(&pair.votes, "safe_first"),
        safe_second: flag(&pair.votes, "safe_second"),
        first: side(pair.first),
        second: side(pair.second),
        p_first,
        answer,
        margin: None,
        votes: pair.votes,
        source: Some(Source::Web),
        meta,
        extra,
    }
}

/// What more than half of those who said anything said; as many each way: nothing.
fn flag(votes: &[Vote], name: &str) -> Option<bool> {
    let said: Vec<bool> = votes.iter().filter_map(|vote| vote.extra.get(name)?.as_bool()).collect();
    let yes = said.iter().filter(|s| **s).count();
    match (2 * yes).cmp(&said.len()) {
        std::cmp::Ordering::Greater => Some(true),
        std::cmp::Ordering::Less => Some(false),
        std::cmp::Ordering::Equal => None,
    }
}

fn side(candidate: Candidate) -> PreferenceSide {
    let mut extra = Extra::new();
    extra.insert("index".into(), json!(candidate.index));
    if let Some(gold) = candidate.gold {
        extra.insert("gold".into(), json!(gold));
    }
    PreferenceSide { text: candidate.text, token_ids: candidate.token_ids, finish: None, extra }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_by_hand() {
        assert_eq!(outcome(None), (Answer::Skip, None));
        assert_eq!(outcome(Some([0.0, 0.0, 0.0, 1.0])), (Answer::BothBad, None));
        // Two first, one tie: (2/3 + 1/6) = 5/6.
        let (answer, p) = outcome(Some([2.0 / 3.0, 0.0, 1.0 / 3.0, 0.0]));
        assert!(answer == Answer::First && (p.unwrap() - 5.0 / 6.0).abs() < 1e-12);
        // Half say both bad: the other half decides, and the answer is no tie in silence.
        assert_eq!(outcome(Some([0.5, 0.0, 0.0, 0.5])), (Answer::First, Some(1.0)));
        assert_eq!(outcome(Some([0.5, 0.5, 0.0, 0.0])), (Answer::Tie, Some(0.5)));
    }

    #[test]
    fn answers_of_a_file_are_made_anew_from_its_votes() {
        let record = |id: &str, answer: &str, votes: &str| -> PreferenceRecord {
            let votes: Vec<Value> = votes
                .split_whitespace()
                .enumerate()
                .map(|(who, answer)| json!({ "annotator": format!("a{who}"), "answer": answer }))
                .collect();
            serde_json::from_value(
                json!({ "id": id, "prompt": "q", "first": { "text": "x" }, "second": { "text": "y" },
                "answer": answer, "votes": votes }),
            )
            .unwrap()
        };
        let mut records = vec![
            record("a", "second", "first first second"),
            record("b", "tie", "second second second"),
            record("c", "first", "second second first"),
        ];
        records[2].extra.insert("adjudicated".into(), Value::Bool(true));
        let mut modeled = records.clone();
        anew(&mut records, Rule::Majority).unwrap();
        let said = |records: &[PreferenceRecord]| records.iter().map(|r| r.answer).collect::<Vec<_>>();
        assert_eq!(said(&records), [Answer::First, Answer::Second, Answer::First]);
        assert!((records[0].p_first.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        anew(&mut modeled, Rule::DawidSkene).unwrap();
        assert_eq!(said(&modeled), said(&records));
        assert!(modeled[0].p_first != records[0].p_first, "the model weighs annotators");
        records.push(record("d", "first", ""));
        assert!(anew(&mut records, Rule::Majority).unwrap_err().contains("`d` has no votes"));
    }
}
