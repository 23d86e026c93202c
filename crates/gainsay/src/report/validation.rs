//! Does conflict find the reward model's mistakes? What `validate` measured, as a chart and a
//! table of who is right.

use gainsay_core::stats::Interval;
use serde::Deserialize;

use super::charts::{Whisker, whisker_cell};
use super::data::ReportData;
use super::measures::{ends, estimate};
use super::page::waiting;
use super::tables::{Column, Table, absent};
use super::text::{count, escape, number, percent, plural};

/// What the page needs of `validate.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Validation {
    /// Prompts that gave a pair.
    pub prompts_used: u64,
    /// Pairs with different gold.
    pub pairs: u64,
    /// Pairs left out because their gold is equal.
    pub gold_ties: u64,
    /// Share of pairs that the reward model orders as the gold does.
    pub reward_accuracy: Option<Interval>,
    /// Share of pairs that the policy's log-prob orders as the gold does.
    pub policy_accuracy: Option<Interval>,
    /// Every score against the reward model's mistakes.
    pub scores: Vec<Score>,
    /// Who is right where the two agree, and where they do not.
    pub knowledge: Knowledge,
    /// What follows.
    pub recommendation: Recommendation,
}

/// How well one score finds mistakes.
#[derive(Clone, Debug, Deserialize)]
pub struct Score {
    /// The score's name in files.
    pub name: String,
    /// P(a mistake scores higher than a pair that is right); chance is 1/2.
    pub auroc: Option<Interval>,
    /// Share of mistakes in the top 10 % over their share among all pairs; chance is 1.
    pub lift_10: Option<Interval>,
}

/// Pairs by agreement, and by who orders them as gold does.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Knowledge {
    /// Concordant, both right.
    pub both_right: u64,
    /// Concordant, both wrong.
    pub both_wrong: u64,
    /// Discordant, the reward model right.
    pub only_proxy_right: u64,
    /// Discordant, the policy right.
    pub only_policy_right: u64,
    /// Reward or log-prob is the same on both sides.
    pub tied: u64,
}

/// What `validate` advises.
#[derive(Clone, Debug, Deserialize)]
pub struct Recommendation {
    /// In plain words.
    pub text: String,
}

impl Validation {
    /// How well K finds mistakes.
    pub fn k(&self) -> Option<&Interval> {
        self.scores.iter().find(|s| s.name == "kendall_tau_distance")?.auroc.as_ref()
    }
}

/// A score's name for people, and whether it is a conflict score (or a rival of it).
fn named(score: &str) -> (String, bool) {
    match score {
        "kendall_tau_distance" => ("K of the prompt".into(), true),
        "pacs_gap" => ("Difference in PACS".into(), true),
        "discordance" => ("Ordered oppositely by reward and log-prob".into(), true),
        "small_margin" => ("Small difference in reward".into(), false),
        "length_difference" => ("Difference in length".into(), false),
        "ensemble_variance" => ("Variance over an ensemble".into(), false),
        other => (escape(other), false),
    }
}

/// The verdict's sentence on whether conflict finds mistakes.
pub fn sentence(validation: &Validation) -> Option<String> {
    let k = validation.k()?;
    let numbers = format!("AUROC of K {}, chance 0.5", estimate(k, 2));
    Some(if k.low > 0.5 {
        format!("Conflict <strong>finds these mistakes</strong> ({numbers}).")
    } else if k.high < 0.5 {
        format!("Conflict <strong>points away from these mistakes</strong> ({numbers}): here the policy misleads.")
    } else {
        format!(
            "Whether conflict finds these mistakes is <strong>not distinguishable</strong> from chance ({numbers})."
        )
    })
}

/// The section's contents.
pub fn section(data: &ReportData) -> String {
    let Some(validation) = &data.validation else {
        return waiting("No gold labels have been compared with the conflict yet.");
    };
    let accuracy = |name: &str, interval: &Option<Interval>| {
        interval.as_ref().map_or_else(String::new, |i| {
            let (share, ends) = (percent(i.estimate), ends(i, 0, 100.0));
            format!(r#" {name} orders {share} <span class="iv">{ends}</span> of them as gold does."#)
        })
    };
    format!(
        "<p>If asking where the two disagree is to pay, disagreement must mark mistakes. Measured on \
         {pairs} with different gold, from {prompts}{ties}.{proxy}{policy}</p>\
         <p>{advice}</p>{scores}<hr>{knowledge}",
        pairs = plural(validation.pairs as usize, "pair", "pairs"),
        prompts = plural(validation.prompts_used as usize, "prompt", "prompts"),
        ties = match validation.gold_ties {
            0 => String::new(),
            n => format!(" ({} with equal gold left out)", plural(n as usize, "pair", "pairs")),
        },
        proxy = accuracy("The reward model", &validation.reward_accuracy),
        policy = accuracy("The policy’s log-prob", &validation.policy_accuracy),
        advice = escape(&validation.recommendation.text),
        scores = score_table(&validation.scores),
        knowledge = knowledge_table(&validation.knowledge),
    )
}

/// AUROC of every score as dot and whisker, conflict first, then its rivals.
fn score_table(scores: &[Score]) -> String {
    let columns = vec![
        Column::number("AUROC"),
        Column::number("95 % interval"),
        Column::wide(""),
        Column::text("Lift in the top tenth"),
    ];
    let mut table = Table::new(
        "What finds the reward model’s mistakes?",
        "AUROC: how often a pair that the reward model misorders scores above one that it orders \
         rightly. The dashed line is chance, 0.5; below it a score points away from mistakes. Lift: \
         mistakes among the tenth of pairs that score highest, relative to all pairs.",
        "stack",
        "",
        columns,
    );
    let reach = scores
        .iter()
        .filter_map(|s| s.auroc.as_ref())
        .flat_map(|i| [i.low, i.high])
        .filter(|end| end.is_finite())
        .map(|end| (end - 0.5).abs())
        .fold(0.1, f64::max)
        * 1.1;
    for (conflict, group) in [(true, "Conflict"), (false, "Rivals")] {
        let of_group: Vec<&Score> = scores.iter().filter(|s| named(&s.name).1 == conflict).collect();
        if of_group.is_empty() {
            continue;
        }
        table.group(group);
        for score in of_group {
            table.row_of("sub", &named(&score.name).0, &score_cells(score, reach));
        }
    }
    table.finish()
}

fn score_cells(score: &Score, reach: f64) -> [String; 4] {
    let lift = score.lift_10.as_ref().map_or_else(absent, |l| {
        format!(
            r#"<span class="narrow">lift </span>{} <span class="ci">{}</span>"#,
            number(l.estimate, 2),
            ends(l, 2, 1.0)
        )
    });
    let Some(auroc) = &score.auroc else {
        return [absent(), String::new(), String::new(), lift];
    };
    let label = format!("{}, chance 0.5", auroc_words(auroc));
    [
        number(auroc.estimate, 2),
        format!(r#"<span class="ci">{}</span>"#, ends(auroc, 2, 1.0)),
        whisker_cell(Whisker::from(auroc), (0.5 - reach, 0.5 + reach), 0.5, &label),
        lift,
    ]
}

fn auroc_words(auroc: &Interval) -> String {
    format!("AUROC {} {}", number(auroc.estimate, 2), ends(auroc, 2, 1.0))
}

/// Concordant and discordant pairs by who is right.
fn knowledge_table(knowledge: &Knowledge) -> String {
    let tied = match knowledge.tied {
        0 => String::new(),
        n => format!(" {} with equal reward or log-prob stand apart.", plural(n as usize, "pair", "pairs")),
    };
    let note = format!(
        "Where the two disagree, exactly one of them is right, and a label decides which. Where they \
         agree and are both wrong, conflict is blind.{tied}"
    );
    let columns = vec![Column::number("Reward model right"), Column::number("Reward model wrong")];
    let mut table = Table::new("Who is right?", &note, "spread", "Reward model and policy", columns);
    let all = [knowledge.both_right, knowledge.both_wrong, knowledge.only_proxy_right, knowledge.only_policy_right];
    let total = (all.iter().sum::<u64>() as f64).max(1.0);
    let cell = |n: u64, words: &str| {
        format!(r#"{}<span class="why">{}, {words}</span>"#, count(n as usize), percent(n as f64 / total))
    };
    table.row(
        "agree",
        &[cell(knowledge.both_right, "the policy too"), cell(knowledge.both_wrong, "the policy too: shared ignorance")],
    );
    table.row(
        "disagree",
        &[
            cell(knowledge.only_proxy_right, "the policy wrong"),
            cell(knowledge.only_policy_right, "the policy right: complementary knowledge"),
        ],
    );
    table.finish()
}

#[cfg(test)]
mod tests {
    use gainsay_core::stats::IntervalMethod;

    use super::*;

    fn with_k(low: f64, estimate: f64, high: f64) -> Validation {
        let interval = Interval { estimate, low, high, n: 40, method: IntervalMethod::Bootstrap };
        let score = |name: &str, auroc| Score { name: name.into(), auroc, lift_10: None };
        Validation {
            prompts_used: 40,
            pairs: 1_120,
            gold_ties: 3,
            reward_accuracy: Some(interval),
            policy_accuracy: None,
            scores: vec![score("kendall_tau_distance", Some(interval)), score("small_margin", None)],
            knowledge: Knowledge {
                both_right: 50,
                both_wrong: 10,
                only_proxy_right: 25,
                only_policy_right: 15,
                tied: 2,
            },
            recommendation: Recommendation { text: "Use <random>.".into() },
        }
    }

    #[test]
    fn the_sentence_follows_the_interval() {
        let said = |low, estimate, high| sentence(&with_k(low, estimate, high)).unwrap();
        assert!(said(0.55, 0.7, 0.8).contains("finds these mistakes"));
        assert!(said(0.45, 0.7, 0.8).contains("not distinguishable"));
        assert!(said(0.2, 0.3, 0.4).contains("points away"));
    }

    #[test]
    fn the_section_holds_the_files_numbers() {
        let validation = Some(with_k(0.55, 0.71, 0.8));
        let html = section(&ReportData { validation, ..ReportData::default() });
        assert!(html.contains("1,120\u{a0}pairs with different gold, from 40\u{a0}prompts (3\u{a0}pairs with"));
        assert!(html.contains(">0.71<") && html.contains("[0.55,\u{a0}0.80]"));
        assert!(html.contains("15\u{a0}%, the policy right"));
        assert!(html.contains("2\u{a0}pairs with equal reward or log-prob"));
        assert!(html.contains("Use &lt;random&gt;.") && !html.contains("<random>"));
    }
}
