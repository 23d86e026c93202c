//! Preferences and rankings as what a reward model is trained on.

use gainsay_core::engine::ScoreItem;
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{Answer, Extra, PreferenceRecord, Prompt, Source};
use gainsay_core::rng::Key;
use gainsay_kernels::pool;
use serde::Serialize;

use super::label::{Label, PairLabel, RankLabel};
use crate::error::LmError;
use crate::model::packed::shared_rows;
use crate::sequence::{Encoder, Sequence};

/// The field of a record that weighs its loss.
pub const WEIGHT: &str = "weight";

/// What a reward model learns from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feedback<'a> {
    /// Answered comparisons of two.
    pub pairs: &'a [PreferenceRecord],
    /// Rankings of two or more.
    pub rankings: &'a [RankingRecord],
}

impl<'a> From<&'a [PreferenceRecord]> for Feedback<'a> {
    fn from(pairs: &'a [PreferenceRecord]) -> Self {
        Self { pairs, rankings: &[] }
    }
}

impl<'a> From<&'a Vec<PreferenceRecord>> for Feedback<'a> {
    fn from(pairs: &'a Vec<PreferenceRecord>) -> Self {
        pairs.as_slice().into()
    }
}

/// A labelled pair or ranking, ready for the model.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainItem {
    /// The record's id.
    pub id: String,
    /// Prompt and completion of each side, in the label's order of places.
    pub sides: Vec<Sequence>,
    /// What is known of the sides.
    pub label: Label,
    /// The prompt's topic, where the record says it.
    pub topic: Option<String>,
    /// Where the answer came from.
    pub source: Option<String>,
    /// Held out from training.
    pub heldout: bool,
}

impl TrainItem {
    /// Tokens of all sides.
    pub fn tokens(&self) -> usize {
        self.sides.iter().map(|side| side.tokens.len()).sum()
    }

    /// The parts that it belongs to, as (what they are by, which).
    pub(crate) fn slices(&self) -> Vec<(&'static str, String)> {
        let longest = self.sides.iter().map(|side| side.completion().len()).max().unwrap_or(0);
        let bucket = match longest {
            0..=32 => "1-32 tokens",
            33..=128 => "33-128 tokens",
            129..=512 => "129-512 tokens",
            _ => "more than 512 tokens",
        };
        let named = [("topic", &self.topic), ("source", &self.source)];
        let named = named.into_iter().filter_map(|(by, part)| Some((by, part.clone()?)));
        named.chain([("length", bucket.to_owned())]).collect()
    }

    /// Rows of all sides when they go through the model together.
    pub(crate) fn rows(&self) -> usize {
        shared_rows(&self.sides)
    }
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PairCounts {
    /// Pairs and rankings trained on.
    pub train: usize,
    /// Pairs and rankings held out.
    pub heldout: usize,
    /// Rankings among them.
    #[serde(skip_serializing_if = "is_zero")]
    pub rankings: usize,
    /// Ties among them (p = 1/2).
    pub ties: usize,
    /// Left out: neither answer is acceptable.
    pub both_bad: usize,
    /// Left out: not answered.
    pub skipped: usize,
    /// Sequences whose prompt was cut on the left.
    pub truncated: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Whether a prompt's pairs are held out, for a held-out share in [0, 1]: decided by a hash of
/// the prompt, so that the answer depends neither on the other records nor on their order or the
/// seed, and no prompt is on both sides.
pub fn is_heldout(prompt: &Prompt, share: f64) -> bool {
    Key::new(0, "heldout").prompt(&prompt.display()).uniform_at(0) < share
}

/// Turns records into items, in their order, the pairs first.
///
/// # Errors
/// Records with a preference outside [0, 1], a negative margin or a weight of 0, and what
/// [`Encoder::item`] refuses; the message names the record.
pub fn prepare_items(
    feedback: Feedback<'_>,
    encoder: &Encoder<'_>,
    heldout: f64,
) -> Result<(Vec<TrainItem>, PairCounts), LmError> {
    let mut items = Vec::with_capacity(feedback.pairs.len() + feedback.rankings.len());
    let mut counts = PairCounts { rankings: feedback.rankings.len(), ..PairCounts::default() };
    let mut compared = Vec::with_capacity(feedback.pairs.len());
    for record in feedback.pairs {
        match record.answer {
            Answer::BothBad => counts.both_bad += 1,
            Answer::Skip => counts.skipped += 1,
            Answer::First | Answer::Second | Answer::Tie => compared.push(record),
        }
    }
    for item in pool::map(compared.len(), |i| pair(compared[i], encoder, heldout)) {
        items.push(item?);
    }
    for record in feedback.rankings {
        items.push(ranking(record, encoder, heldout)?);
    }
    for item in &items {
        *(if item.heldout { &mut counts.heldout } else { &mut counts.train }) += 1;
        counts.ties += usize::from(matches!(&item.label, Label::Pair(label) if label.p == 0.5));
        counts.truncated += item.sides.iter().filter(|side| side.truncated).count();
    }
    Ok((items, counts))
}

fn topic(meta: &Extra) -> Option<String> {
    meta.get("topic").and_then(|t| t.as_str()).map(str::to_owned)
}

fn source(source: Option<Source>) -> Option<String> {
    source.map(|s| format!("{s:?}").to_lowercase())
}

fn pair(record: &PreferenceRecord, encoder: &Encoder<'_>, heldout: f64) -> Result<TrainItem, LmError> {
    let prompt = encoder.prompt_ids(&record.prompt, &format!("pair {}", record.id))?;
    let side = |side, which: &str| {
        let item = encoder.own(&ScoreItem::side(&record.prompt, side));
        encoder.after(prompt.clone(), &item, &format!("pair {}, {which} answer", record.id))
    };
    Ok(TrainItem {
        id: record.id.clone(),
        sides: vec![side(&record.first, "first")?, side(&record.second, "second")?],
        label: label(record)?.into(),
        topic: topic(&record.meta),
        source: source(record.source),
        heldout: is_heldout(&record.prompt, heldout),
    })
}

/// The ranked completions, best first; those that the ranking does not name are left out.
fn ranking(record: &RankingRecord, encoder: &Encoder<'_>, heldout: f64) -> Result<TrainItem, LmError> {
    let (mut sides, mut groups) = (Vec::new(), Vec::new());
    for group in &record.ranking.0 {
        groups.push((sides.len()..sides.len() + group.len()).collect());
        for place in group {
            let what = format!("ranking {}, completion {place}", record.id);
            let completion = record.completions.get(*place);
            let completion =
                completion.ok_or_else(|| LmError::Input(format!("{what}: there is no such completion")))?;
            sides.push(encoder.item(&encoder.own(&ScoreItem::of(&record.prompt, completion)), &what)?);
        }
    }
    let weight = weight(&record.extra, &format!("ranking {}", record.id))?;
    Ok(TrainItem {
        id: record.id.clone(),
        sides,
        label: Label::Ranking(RankLabel { groups, weight }),
        topic: topic(&record.meta),
        source: source(record.source),
        heldout: is_heldout(&record.prompt, heldout),
    })
}

fn weight(extra: &Extra, what: &str) -> Result<f64, LmError> {
    match extra.get(WEIGHT) {
        None => Ok(1.0),
        Some(value) => value
            .as_f64()
            .filter(|w| w.is_finite() && *w > 0.0)
            .ok_or_else(|| LmError::Input(format!("{what}: {WEIGHT} is {value}, expected a number above 0"))),
    }
}

fn label(record: &PreferenceRecord) -> Result<PairLabel, LmError> {
    let answered = match record.answer {
        Answer::First => 1.0,
        Answer::Second => 0.0,
        Answer::Tie | Answer::BothBad | Answer::Skip => 0.5,
    };
    let p = record.p_first.unwrap_or(answered);
    let margin = record.margin.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&p) {
        return Err(LmError::Input(format!("pair {}: p_first is {p}, expected a number in [0, 1]", record.id)));
    }
    if !(margin.is_finite() && margin >= 0.0) {
        return Err(LmError::Input(format!("pair {}: margin is {margin}, expected 0 or more", record.id)));
    }
    let weight = weight(&record.extra, &format!("pair {}", record.id))?;
    Ok(PairLabel { p, margin, weight, safe: [record.safe_first, record.safe_second] })
}
