//! One preference from several votes.

use std::collections::HashMap;

use gainsay_core::ranking::{Ranking, RankingRecord};
use gainsay_core::record::{
    Answer, Candidate, Extra, PreferenceRecord, PreferenceSide, PromptRecord, SCHEMA, SelectionRecord, Source, Vote,
};
use gainsay_core::stats::{DawidSkeneOptions, Label, dawid_skene};
use serde_json::{Value, json};

use super::store::{ItemRow, Resolution, VoteRow};
use super::task::{Response, Task};

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
        Rule::DawidSkene => model(&pairs),
    };
    pairs.into_iter().zip(soft).map(|(pair, soft)| finish(pair, soft)).collect()
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
fn model(pairs: &[Pair<'_>]) -> Vec<Option<[f64; 4]>> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut labels = Vec::new();
    for (unit, pair) in pairs.iter().enumerate() {
        for vote in &pair.votes {
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

/// Rankings as records, one a vote: `<item>/<annotator>` of weight 1 / the item's votes, so that an
/// item counts once however many people ranked it. A decision of the admin stands alone, under the
/// item's id. Skips and gold checks are left out.
pub fn rankings(items: &[ItemRow], votes: &[VoteRow], decisions: &[Resolution]) -> Vec<RankingRecord> {
    let mut records = Vec::new();
    for item in items.iter().filter(|item| item.expected.is_none()) {
        let Task::Rank(record) = &item.task else { continue };
        let ranks = |response: &Response| match response {
            Response::Rank { ranks } => Some(ranks.iter().map(|rank| *rank as usize).collect::<Vec<_>>()),
            _ => None,
        };
        let decided = decisions.iter().find(|d| d.item == item.number).and_then(|d| ranks(&d.given.response));
        let given: Vec<(String, Vec<usize>)> = match decided {
            Some(ranks) => vec![(record.id.clone(), ranks)],
            None => votes
                .iter()
                .filter(|vote| vote.item == item.number)
                .filter_map(|vote| Some((format!("{}/{}", record.id, vote.annotator), ranks(&vote.given.response)?)))
                .collect(),
        };
        let weight = 1.0 / given.len() as f64;
        records.extend(given.into_iter().map(|(id, ranks)| {
            let mut extra = Extra::new();
            if weight != 1.0 {
                extra.insert("weight".into(), json!(weight));
            }
            RankingRecord {
                schema: SCHEMA,
                id,
                prompt: record.prompt.clone(),
                completions: record.completions.clone(),
                ranking: Ranking::of_ranks(&ranks),
                source: Some(Source::Web),
                meta: record.meta.clone(),
                extra,
            }
        }));
    }
    records
}

/// Judged completions as prompt records, one an item: the completion carries `label` (of most
/// votes; none where they are even), `rating` (the mean) and every vote.
pub fn judgements(items: &[ItemRow], votes: &[VoteRow], decisions: &[Resolution]) -> Vec<PromptRecord> {
    let mut of_item: HashMap<i64, Vec<&VoteRow>> = HashMap::new();
    votes.iter().for_each(|vote| of_item.entry(vote.item).or_default().push(vote));
    let decided: HashMap<i64, &Resolution> = decisions.iter().map(|d| (d.item, d)).collect();
    let mut records = Vec::new();
    for item in items.iter().filter(|item| item.expected.is_none()) {
        let (Task::Judge(record), Some(votes)) = (&item.task, of_item.get(&item.number)) else { continue };
        let mut record = record.clone();
        let Some(completion) = record.completions.first_mut() else { continue };
        let (label, rating) = judged(votes, decided.get(&item.number).copied());
        completion.extra.insert("label".into(), json!(label));
        completion.extra.insert("rating".into(), json!(rating));
        let votes: Vec<Value> = votes
            .iter()
            .map(|v| json!({ "annotator": v.annotator, "answer": v.given, "seconds": v.seconds }))
            .collect();
        completion.extra.insert("votes".into(), Value::Array(votes));
        records.push(record);
    }
    records
}

fn judged(votes: &[&VoteRow], decision: Option<&Resolution>) -> (Option<String>, Option<f64>) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut ratings = Vec::new();
    for vote in votes {
        if let Response::Judge { label, rating } = &vote.given.response {
            *counts.entry(label).or_default() += 1;
            ratings.extend(rating.map(f64::from));
        }
    }
    let most = counts.values().copied().max().unwrap_or(0);
    let mut winners = counts.iter().filter(|(_, n)| **n == most).map(|(label, _)| (*label).to_owned());
    let label = match (decision.map(|d| &d.given.response), winners.next(), winners.next()) {
        (Some(Response::Judge { label, .. }), _, _) => Some(label.clone()),
        (_, Some(label), None) => Some(label),
        _ => None,
    };
    (label, gainsay_core::stats::mean(&ratings))
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
    fn every_vote_on_a_ranking_becomes_a_record_and_an_item_counts_once() {
        let record: PromptRecord = serde_json::from_str(
            r#"{"id":"sky","prompt":"q","completions":[{"text":"a"},{"text":"b"},{"text":"c"}],"meta":{"topic":"t"}}"#,
        )
        .unwrap();
        let item = |number, expected: Option<&str>| ItemRow {
            number,
            task: Task::Rank(PromptRecord { id: format!("sky-{number}"), ..record.clone() }),
            expected: expected.map(str::to_owned),
        };
        let given = |ranks: &[u8]| super::super::task::Given {
            response: Response::Rank { ranks: ranks.to_vec() },
            comment: String::new(),
        };
        let vote = |item, annotator: &str, given| VoteRow {
            item,
            annotator: annotator.into(),
            given,
            swapped: false,
            seconds: 1.0,
            at: 0,
        };
        let skip =
            super::super::task::Given { response: Response::Skip { reason: String::new() }, comment: String::new() };
        let votes = [
            vote(1, "ann", given(&[2, 1, 2])),
            vote(1, "bo", given(&[1, 2, 3])),
            vote(1, "cy", skip),
            vote(2, "ann", given(&[1, 2, 3])),
            vote(3, "ann", given(&[1, 2, 3])),
        ];
        let decided = Resolution { item: 2, given: given(&[3, 2, 1]), reason: "so".into() };
        let found = rankings(&[item(1, None), item(2, None), item(3, Some("x"))], &votes, &[decided]);
        let ids: Vec<&str> = found.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["sky-1/ann", "sky-1/bo", "sky-2"]);
        assert_eq!(found[0].ranking, Ranking(vec![vec![1], vec![0, 2]]));
        assert_eq!((found[0].extra["weight"].as_f64(), found[2].extra.get("weight")), (Some(0.5), None));
        assert_eq!(found[2].ranking, Ranking(vec![vec![2], vec![1], vec![0]]));
        assert!(found.iter().all(|r| r.source == Some(Source::Web) && r.meta["topic"] == "t"));
    }
}
