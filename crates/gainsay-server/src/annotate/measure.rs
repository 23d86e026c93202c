//! What the answers tell about the annotators and about the reward model.

use std::collections::{BTreeMap, HashMap};

use gainsay_core::record::Answer;
use gainsay_core::rng::Key;
use gainsay_core::stats::{
    Interval, Metric, cohen_kappa, fleiss_kappa, krippendorff_alpha, krippendorff_interval, quantile, wilson,
};
use serde::Serialize;

use super::aggregate::between;
use super::store::{ItemRow, Resolution, VoteRow};
use super::task::{Response, Task};

/// One judgement of one unit: what agreement is computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Rating {
    /// What was judged: an item, or a pair of a ranking.
    pub unit: String,
    /// Who judged.
    pub annotator: String,
    /// Category in words.
    pub category: String,
    /// Place on an ordered scale, where the answer has one: a comparison's strength from -2
    /// (second clearly) to 2 (first clearly), or a rating from 1 to 5.
    pub ordinal: Option<i64>,
}

/// Agreement of all annotators.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Units with at least two ratings.
    pub units: usize,
    /// Ratings of all units.
    pub ratings: usize,
    /// Krippendorff's alpha of the categories.
    pub alpha_nominal: Option<Interval>,
    /// Krippendorff's alpha of the ordered scale; `both_bad` has no place on it.
    pub alpha_ordinal: Option<Interval>,
    /// Fleiss' kappa over the units that have the most common number of ratings.
    pub fleiss: Option<Kappa>,
    /// Cohen's kappa of every two annotators with units in common, most units first.
    pub cohen: Vec<PairKappa>,
}

/// A kappa and what it stands on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kappa {
    /// `None` where chance alone would agree always.
    pub kappa: Option<f64>,
    /// Units.
    pub units: usize,
    /// Ratings a unit.
    pub raters: u64,
}

/// Cohen's kappa of two annotators.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairKappa {
    /// One.
    pub a: String,
    /// The other.
    pub b: String,
    /// `None` where chance alone would agree always.
    pub kappa: Option<f64>,
    /// Share of equal answers.
    pub equal: f64,
    /// Units that both judged.
    pub units: usize,
}

/// What is known of one annotator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PersonMeasures {
    /// Who.
    pub name: String,
    /// Answers, skips left out.
    pub answers: usize,
    /// Skips.
    pub skips: usize,
    /// Median time an answer, seconds.
    pub median_seconds: Option<f64>,
    /// Share of gold checks answered as expected.
    pub gold: Option<Interval>,
    /// Share of left among left and right; 1/2 is unbiased, as sides are random.
    pub left: Option<Interval>,
    /// Share of the longer among decided comparisons of unequal length.
    pub longer: Option<Interval>,
}

/// How often people sided with the reward model where it contradicts the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sides {
    /// Items decided for the completion that the reward model values more than the policy does.
    pub for_reward: usize,
    /// Items decided for the other.
    pub against_reward: usize,
    /// Ties, both bad and even votes.
    pub undecided: usize,
}

/// The ratings behind votes; skips and gold checks are missing.
pub fn ratings(items: &[ItemRow], votes: &[VoteRow]) -> Vec<Rating> {
    let by_number: HashMap<i64, &ItemRow> = items.iter().map(|item| (item.number, item)).collect();
    let mut out = Vec::new();
    for vote in votes {
        let Some(item) = by_number.get(&vote.item).filter(|item| item.expected.is_none()) else { continue };
        let rating = |unit: String, response: &Response| {
            scale(response).map(|(category, ordinal)| Rating {
                unit,
                annotator: vote.annotator.clone(),
                category,
                ordinal,
            })
        };
        match &vote.given.response {
            Response::Rank { ranks } => {
                for (i, j) in (0..ranks.len()).flat_map(|i| (i + 1..ranks.len()).map(move |j| (i, j))) {
                    out.extend(rating(format!("{}/{i}-{j}", item.task.id()), &between(&vote.given.response, i, j)));
                }
            }
            response => out.extend(rating(item.task.id().to_owned(), response)),
        }
    }
    out
}

/// Category and place on the scale; `None` for skips.
fn scale(response: &Response) -> Option<(String, Option<i64>)> {
    match response {
        Response::Compare { answer, strength, .. } => compared(*answer, *strength),
        Response::Judge { label, rating } => Some((label.clone(), rating.map(i64::from))),
        Response::Rank { .. } | Response::Skip { .. } => None,
    }
}

/// Category and place of a comparison's answer; `None` for skips.
pub fn compared(answer: Answer, strength: Option<u8>) -> Option<(String, Option<i64>)> {
    let strength = i64::from(strength.unwrap_or(1));
    let ordinal = match answer {
        Answer::First => Some(strength),
        Answer::Second => Some(-strength),
        Answer::Tie => Some(0),
        Answer::BothBad => None,
        Answer::Skip => return None,
    };
    Some((super::task::answer_name(answer).into(), ordinal))
}

/// All agreement measures of a set of ratings.
pub fn agreement(ratings: &[Rating]) -> Agreement {
    let nominal = table(ratings, |r| Some(r.category.clone()));
    let ordinal = table(ratings, |r| r.ordinal);
    let interval = |counts: &[Vec<u64>], metric| krippendorff_interval(counts, metric, Key::new(0, "alpha"));
    Agreement {
        units: nominal.iter().filter(|row| row.iter().sum::<u64>() > 1).count(),
        ratings: ratings.len(),
        alpha_nominal: interval(&nominal, Metric::Nominal),
        alpha_ordinal: interval(&ordinal, Metric::Ordinal),
        fleiss: fleiss(&nominal),
        cohen: cohen(ratings),
    }
}

/// Krippendorff's alpha of the categories without its interval.
pub fn alpha(ratings: &[Rating]) -> Option<f64> {
    krippendorff_alpha(&table(ratings, |r| Some(r.category.clone())), Metric::Nominal)
}

/// Counts of units x values, values in order.
fn table<V: Ord>(ratings: &[Rating], value: impl Fn(&Rating) -> Option<V>) -> Vec<Vec<u64>> {
    let values: BTreeMap<V, usize> = {
        let found: std::collections::BTreeSet<V> = ratings.iter().filter_map(&value).collect();
        found.into_iter().enumerate().map(|(i, v)| (v, i)).collect()
    };
    let mut rows: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for rating in ratings {
        if let Some(column) = value(rating).and_then(|v| values.get(&v)) {
            rows.entry(&rating.unit).or_insert_with(|| vec![0; values.len()])[*column] += 1;
        }
    }
    rows.into_values().collect()
}

fn fleiss(counts: &[Vec<u64>]) -> Option<Kappa> {
    let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
    for row in counts {
        *sizes.entry(row.iter().sum()).or_default() += 1;
    }
    let (raters, units) = sizes.into_iter().filter(|(raters, _)| *raters > 1).max_by_key(|(_, units)| *units)?;
    let rows: Vec<Vec<u64>> = counts.iter().filter(|row| row.iter().sum::<u64>() == raters).cloned().collect();
    Some(Kappa { kappa: fleiss_kappa(&rows), units, raters })
}

/// At most this many pairs of annotators are listed.
const PAIRS: usize = 50;

fn cohen(ratings: &[Rating]) -> Vec<PairKappa> {
    let categories: std::collections::BTreeSet<&str> = ratings.iter().map(|r| r.category.as_str()).collect();
    let place: HashMap<&str, usize> = categories.iter().enumerate().map(|(i, c)| (*c, i)).collect();
    let mut units: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for r in ratings {
        units.entry(&r.unit).or_default().push((&r.annotator, place[r.category.as_str()]));
    }
    let mut tables: BTreeMap<(&str, &str), Vec<Vec<u64>>> = BTreeMap::new();
    for said in units.values_mut() {
        said.sort_unstable();
        for (i, (a, of_a)) in said.iter().enumerate() {
            for (b, of_b) in &said[i + 1..] {
                let table = tables.entry((a, b)).or_insert_with(|| vec![vec![0; place.len()]; place.len()]);
                table[*of_a][*of_b] += 1;
            }
        }
    }
    let mut pairs: Vec<PairKappa> = tables
        .into_iter()
        .map(|((a, b), table)| {
            let units: u64 = table.iter().flatten().sum();
            let equal: u64 = table.iter().enumerate().map(|(i, row)| row[i]).sum();
            let equal = equal as f64 / units as f64;
            PairKappa { a: a.into(), b: b.into(), kappa: cohen_kappa(&table), equal, units: units as usize }
        })
        .collect();
    pairs.sort_by_key(|p| std::cmp::Reverse(p.units));
    pairs.truncate(PAIRS);
    pairs
}

/// Per annotator: pace, gold checks, and biases.
pub fn people(items: &[ItemRow], votes: &[VoteRow]) -> Vec<PersonMeasures> {
    let by_number: HashMap<i64, &ItemRow> = items.iter().map(|item| (item.number, item)).collect();
    let mut of_person: BTreeMap<&str, Vec<&VoteRow>> = BTreeMap::new();
    votes.iter().for_each(|vote| of_person.entry(&vote.annotator).or_default().push(vote));
    let measure = |(name, votes): (&str, Vec<&VoteRow>)| {
        let (mut gold, mut left, mut longer) = ((0u64, 0u64), (0u64, 0u64), (0u64, 0u64));
        let (mut answers, mut seconds) = (0, Vec::new());
        for vote in votes.iter().filter(|vote| !vote.given.response.is_skip()) {
            answers += 1;
            // Answers from elsewhere may come without their time.
            seconds.extend((vote.seconds > 0.0).then_some(vote.seconds));
            let Some(item) = by_number.get(&vote.item) else { continue };
            if let Some(expected) = &item.expected {
                gold = (gold.0 + u64::from(vote.given.response.words() == *expected), gold.1 + 1);
            }
            let Response::Compare { answer: answer @ (Answer::First | Answer::Second), .. } = vote.given.response
            else {
                continue;
            };
            let first = answer == Answer::First;
            left = (left.0 + u64::from(first != vote.swapped), left.1 + 1);
            if let [a, b] = item.task.texts()[..] {
                let (a, b) = (a.chars().count(), b.chars().count());
                if a != b {
                    longer = (longer.0 + u64::from(first == (a > b)), longer.1 + 1);
                }
            }
        }
        seconds.sort_by(f64::total_cmp);
        let share = |(yes, n): (u64, u64)| wilson(yes as f64, n);
        PersonMeasures {
            name: name.to_owned(),
            answers,
            skips: votes.len() - answers,
            median_seconds: quantile(&seconds, 0.5),
            gold: share(gold),
            left: share(left),
            longer: share(longer),
        }
    };
    of_person.into_iter().map(measure).collect()
}

/// Items on which annotators contradict each other and nobody has decided.
pub fn disagreements<'a>(
    items: &'a [ItemRow],
    votes: &'a [VoteRow],
    decided: &[Resolution],
) -> Vec<(&'a ItemRow, Vec<&'a VoteRow>)> {
    let mut of_item: HashMap<i64, Vec<&VoteRow>> = HashMap::new();
    for vote in votes.iter().filter(|vote| !vote.given.response.is_skip()) {
        of_item.entry(vote.item).or_default().push(vote);
    }
    let done: std::collections::HashSet<i64> = decided.iter().map(|d| d.item).collect();
    let open = |item: &&ItemRow| item.expected.is_none() && !done.contains(&item.number);
    items
        .iter()
        .filter(open)
        .filter_map(|item| {
            let said = of_item.remove(&item.number)?;
            let first = said.first()?.given.response.words();
            said.iter().any(|vote| vote.given.response.words() != first).then_some((item, said))
        })
        .collect()
}

/// Whom people side with where reward model and policy contradict each other: by the majority of
/// each item, or the admin's decision. The completion with the higher PACS is the one that the
/// reward model values more than the policy does.
pub fn sides(items: &[ItemRow], votes: &[VoteRow], decided: &[Resolution]) -> Sides {
    let mut lean: HashMap<i64, i64> = HashMap::new();
    let toward = |response: &Response| match response {
        Response::Compare { answer: Answer::First, .. } => 1,
        Response::Compare { answer: Answer::Second, .. } => -1,
        _ => 0,
    };
    for vote in votes.iter().filter(|vote| !vote.given.response.is_skip()) {
        *lean.entry(vote.item).or_default() += toward(&vote.given.response);
    }
    for decision in decided {
        lean.insert(decision.item, toward(&decision.given.response));
    }
    let mut sides = Sides::default();
    for item in items.iter().filter(|item| item.expected.is_none()) {
        let (Task::Compare(pair), Some(lean)) = (&item.task, lean.get(&item.number)) else { continue };
        let (Some(first), Some(second)) = (pair.why.pacs_first, pair.why.pacs_second) else { continue };
        if first == second {
            continue;
        }
        match lean.signum() * if first > second { 1 } else { -1 } {
            1 => sides.for_reward += 1,
            -1 => sides.against_reward += 1,
            _ => sides.undecided += 1,
        }
    }
    sides
}
