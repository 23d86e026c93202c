//! selection -> preferences: an LLM answers.

use std::collections::BTreeMap;
use std::path::Path;

use gainsay_core::engine::{Comparison, ScoreItem};
use gainsay_core::files;
use gainsay_core::oracle::answered;
use gainsay_core::record::{Answer, Candidate, PreferenceRecord, Prompt, SelectionRecord, Source};
use gainsay_remote::Address;
use gainsay_remote::judge::{Judge, Judgement, Prices, cost};
use serde::Serialize;
use serde_json::json;

use crate::error::Result;
use crate::interrupt;
use crate::models;
use crate::progress::{Figures, Progress};
use crate::remote;

/// Pairs that are put to the judge together.
const PAIRS_PER_BATCH: usize = 32;

/// What judging brought and cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Pairs asked.
    pub pairs: usize,
    /// Pairs without a verdict in one order or both: skipped.
    pub unanswered: usize,
    /// Pairs whose winner changes with the order.
    pub order_dependent: usize,
    /// Pairs whose probability comes from log-probs in both orders.
    pub from_logprobs: usize,
    /// The server refused to give log-probs: verdicts were read from its text.
    pub logprobs_refused: bool,
    /// Tokens read.
    pub tokens_in: u64,
    /// Tokens written.
    pub tokens_out: u64,
    /// At the prices given.
    pub cost: f64,
    /// Agreement with people, where asked for.
    pub agreement: Option<Agreement>,
}

/// How often the judge answers as people do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs that both compared.
    pub pairs: usize,
    /// Share of equal answers (first, second, tie).
    pub share: f64,
    /// Cohen's kappa (1960): (share - chance) / (1 - chance); none where chance is 1.
    pub kappa: Option<f64>,
}

/// Has the model behind an address answer every pair, as [`judge`]; what it said before a kill is not asked again.
///
/// # Errors
/// An address that cannot be reached; what [`judge`] reports.
pub fn ask(url: &str, pairs: &[SelectionRecord], out: &Path) -> Result<(Summary, Figures)> {
    let mut address = Address::parse(url)?;
    address.limits.stop = interrupt::requested;
    let client = remote::client(address, Some(&models::answers_beside(out)))?;
    judge(&Judge::connect(client, None)?, pairs, Prices::default(), out)
}

/// Has the judge answer every pair; writes the preferences.
///
/// # Errors
/// What the judge or writing reports, or Ctrl-C.
pub fn judge(judge: &Judge, pairs: &[SelectionRecord], prices: Prices, out: &Path) -> Result<(Summary, Figures)> {
    let mut progress = Progress::new("judge", pairs.len() as u64, "pairs");
    let mut answers = Vec::with_capacity(pairs.len());
    let mut summary = Summary { pairs: pairs.len(), ..Summary::default() };
    let name = judge.identity();
    for batch in pairs.chunks(PAIRS_PER_BATCH) {
        interrupt::check()?;
        let comparisons: Vec<Comparison<'_>> = batch.iter().map(comparison).collect();
        let judged = judge.judge(&comparisons)?;
        let tokens: u64 = judged.iter().map(|j| j.tokens().0 + j.tokens().1).sum();
        for (pair, judgement) in batch.iter().zip(&judged) {
            summary.see(judgement);
            answers.push(record(pair, judgement, &name));
        }
        progress.advance(batch.len() as u64, tokens);
    }
    summary.logprobs_refused = judge.refuses_logprobs();
    summary.cost = cost((summary.tokens_in, summary.tokens_out), prices);
    files::write_all(out, &answers)?;
    judge.client().forget();
    Ok((summary, progress.finish()))
}

impl Summary {
    fn see(&mut self, judgement: &Judgement) {
        let tokens = judgement.tokens();
        self.tokens_in += tokens.0;
        self.tokens_out += tokens.1;
        self.unanswered += usize::from(judgement.p_first.is_none());
        self.order_dependent += usize::from(judgement.flips_with_order());
        self.from_logprobs += usize::from(judgement.orders.iter().all(|v| v.from_logprobs));
    }

    /// For people.
    pub fn render(&self) -> String {
        let mut out = format!(
            "{} pairs, both orders: {} without a verdict (skipped), {} whose winner changes with the order, {} from log-probs\n\
             {} tokens read, {} written, cost {:.4}\n",
            self.pairs,
            self.unanswered,
            self.order_dependent,
            self.from_logprobs,
            self.tokens_in,
            self.tokens_out,
            self.cost
        );
        if self.logprobs_refused {
            out.push_str("the server refuses to give log-probs: verdicts were read from its text\n");
        }
        if let Some(agreement) = &self.agreement {
            out.push_str(&format!(
                "agreement with people: {:.1} % of {} pairs, Cohen's kappa {}\n",
                100.0 * agreement.share,
                agreement.pairs,
                super::text::number(agreement.kappa)
            ));
        }
        out
    }
}

/// The judge's answer as a preference, with both orders kept in its vote.
fn record(pair: &SelectionRecord, judgement: &Judgement, judge: &str) -> PreferenceRecord {
    let mut record = answered(pair, judgement.p_first, Source::Judge, judge);
    if let Some(vote) = record.votes.first_mut() {
        let p_a: Vec<_> = judgement.orders.iter().map(|v| v.p_a).collect();
        vote.extra.insert("p_a_by_order".into(), json!(p_a));
    }
    record
}

fn comparison(pair: &SelectionRecord) -> Comparison<'_> {
    Comparison { id: &pair.id, first: item(&pair.prompt, &pair.first), second: item(&pair.prompt, &pair.second) }
}

fn item<'a>(prompt: &'a Prompt, candidate: &'a Candidate) -> ScoreItem<'a> {
    ScoreItem { prompt, text: &candidate.text, token_ids: None, finish: None }
}

/// Agreement of two sets of answers by pair; pairs that one did not compare are left out.
pub fn agreement(judge: &[PreferenceRecord], people: &[PreferenceRecord]) -> Option<Agreement> {
    let by_id: BTreeMap<&str, Answer> = people.iter().map(|r| (r.id.as_str(), r.answer)).collect();
    let both = judge.iter().filter_map(|r| Some((r.answer, *by_id.get(r.id.as_str())?)));
    let both: Vec<(Answer, Answer)> = both.filter(|(a, b)| a.is_comparison() && b.is_comparison()).collect();
    if both.is_empty() {
        return None;
    }
    let n = both.len() as f64;
    let share = both.iter().filter(|(a, b)| a == b).count() as f64 / n;
    let chance: f64 = [Answer::First, Answer::Second, Answer::Tie]
        .iter()
        .map(|answer| {
            let of =
                |pick: fn(&(Answer, Answer)) -> Answer| both.iter().filter(|p| pick(p) == *answer).count() as f64 / n;
            of(|p| p.0) * of(|p| p.1)
        })
        .sum();
    let kappa = (chance < 1.0).then(|| (share - chance) / (1.0 - chance));
    Some(Agreement { pairs: both.len(), share, kappa })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(given: &[(&str, &str)]) -> Vec<PreferenceRecord> {
        let record = |(id, answer): &(&str, &str)| {
            let text = format!(
                r#"{{"schema":1,"id":"{id}","prompt":"p","first":{{"text":"a"}},"second":{{"text":"b"}},"answer":"{answer}"}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        given.iter().map(record).collect()
    }

    #[test]
    fn kappa_by_hand() {
        let judge = answers(&[("1", "first"), ("2", "first"), ("3", "second"), ("4", "skip"), ("5", "tie")]);
        let people = answers(&[("1", "first"), ("2", "second"), ("3", "second"), ("4", "first"), ("9", "tie")]);
        let found = agreement(&judge, &people).unwrap();
        // 2 of 3 equal; chance = 2/3 * 1/3 + 1/3 * 2/3 = 4/9; kappa = (6/9 - 4/9) / (5/9) = 2/5.
        assert!((found.share - 2.0 / 3.0).abs() < 1e-12 && (found.kappa.unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(found.pairs, 3);
        assert_eq!(agreement(&judge, &answers(&[("7", "first")])), None);
    }
}
