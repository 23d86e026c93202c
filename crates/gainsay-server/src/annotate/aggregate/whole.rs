//! Rankings and judgements as they were given, vote by vote.

use std::collections::HashMap;

use gainsay_core::ranking::{Ranking, RankingRecord};
use gainsay_core::record::{Extra, PromptRecord, SCHEMA, Source};
use serde_json::{Value, json};

use crate::annotate::store::{ItemRow, Resolution, VoteRow};
use crate::annotate::task::{Response, Task};

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
    use crate::annotate::task::Given;

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
        let given = |ranks: &[u8]| Given { response: Response::Rank { ranks: ranks.to_vec() }, comment: String::new() };
        let vote = |item, annotator: &str, given| VoteRow {
            item,
            annotator: annotator.into(),
            given,
            swapped: false,
            seconds: 1.0,
            at: 0,
        };
        let skip = Given { response: Response::Skip { reason: String::new() }, comment: String::new() };
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
