//! The page's first paragraph and its key figures: what was found, what it cost, whether it
//! helped. A difference whose interval holds 0 is "not distinguishable", whatever its sign.

use gainsay_core::stats::Interval;

use super::data::ReportData;
use super::measures::{Measure, ends, estimate, quiet};
use super::pool::Pool;
use super::tables::totals;
use super::text::{count, duration, list, name, number, percent, plural};
use super::validation;
use crate::evaluation::types::{Difference, Verdict};

/// The name of the base policy in a difference.
const BASE: &str = "base";

/// A difference seen from one of its two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    difference: Interval,
    verdict: Verdict,
}

/// The difference `a - b` of a measure, turned around where the file holds `b - a`.
fn seen(differences: &[Difference], metric: &str, a: &str, b: &str) -> Option<Seen> {
    let of = |d: &&Difference| d.metric == metric;
    let straight = differences.iter().filter(of).find(|d| d.a == a && d.b == b);
    if let Some(d) = straight {
        return Some(Seen { difference: d.difference, verdict: d.verdict });
    }
    let turned = differences.iter().filter(of).find(|d| d.a == b && d.b == a)?;
    let it = turned.difference;
    Some(Seen {
        difference: Interval { estimate: -it.estimate, low: -it.high, high: -it.low, ..it },
        verdict: match turned.verdict {
            Verdict::Higher => Verdict::Lower,
            Verdict::Lower => Verdict::Higher,
            Verdict::NotDistinguishable => Verdict::NotDistinguishable,
        },
    })
}

/// `+0.23 [0.12, 0.34]` in the measure's unit, as HTML.
fn figure(measure: &Measure, interval: &Interval) -> String {
    format!("{} {}", measure.difference(interval.estimate), quiet(&measure.ends(interval)))
}

/// The verdict as one paragraph of HTML sentences.
pub fn paragraph(data: &ReportData) -> String {
    let mut sentences: Vec<String> = Vec::new();
    match data.pool() {
        Some(pool) => sentences.extend(found(pool, data.settings.tau_k)),
        None => sentences.push("No conflicts have been measured yet.".into()),
    }
    sentences.extend(data.validation.as_ref().and_then(validation::sentence));
    sentences.extend(cost(data));
    sentences.extend(helped(data));
    sentences.extend(data.main_arm().into_iter().flat_map(|main| rivals(data, main)));
    sentences.join(" ")
}

/// What was found: how far the two rankings disagree and how often the reward model is wrong.
fn found(pool: &Pool, tau_k: f64) -> Vec<String> {
    let mut out = Vec::new();
    let over = pool.k.iter().filter(|k| **k >= tau_k).count();
    if let Some(mean_k) = &pool.mean_k {
        out.push(format!(
            "On <strong>{} of {}</strong> the reward model and the policy rank the same answers \
             in conflict (K of {} or more; on average K is {}, where 0.5 is chance).",
            count(over),
            plural(pool.prompts, "prompt", "prompts"),
            number(tau_k, 2),
            estimate(mean_k, 2)
        ));
    }
    if let Some(share) = pool.pairs.share() {
        out.push(format!(
            "Measured against gold, the reward model orders <strong>{}</strong> of {} wrongly.",
            percent(share),
            plural(pool.pairs.pairs as usize, "pair of answers", "pairs of answers")
        ));
    }
    out
}

/// Labels given: for each arm where all have as many, else altogether.
fn labels(data: &ReportData) -> Option<(usize, bool)> {
    let names = data.arm_names();
    let given = |name: &&str| -> Option<usize> {
        let rounds = data.arms.iter().filter(|a| a.name == **name);
        rounds.map(|a| a.answers.map(|answers| answers.given())).sum()
    };
    let each: Vec<usize> = names.iter().map(given).collect::<Option<_>>()?;
    let first = *each.first()?;
    let same = each.iter().all(|n| *n == first);
    Some(if same { (first, each.len() > 1) } else { (each.iter().sum(), false) })
}

/// What it cost.
fn cost(data: &ReportData) -> Option<String> {
    let (labels, each) = labels(data)?;
    let names: Vec<String> = data.arm_names().iter().map(|n| name(n)).collect();
    let who = if each { format!(" for each arm ({})", list(&names)) } else { String::new() };
    let time = match totals(&data.timings).0 {
        seconds if seconds > 0.0 => format!(" and {} of computing", duration(seconds)),
        _ => String::new(),
    };
    Some(format!("It cost <strong>{}</strong>{who}{time}.", plural(labels, "label", "labels")))
}

/// Whether the repaired policy is better than the base policy.
fn helped(data: &ReportData) -> Option<String> {
    let main = data.main_arm()?;
    let gold = Measure::of("gold_reward")?;
    let seen = seen(&data.differences, gold.field, main, BASE)?;
    let numbers = figure(gold, &seen.difference);
    let name = name(main);
    Some(match seen.verdict {
        Verdict::Higher => format!(
            "The policy repaired with {name} earns <strong>more gold reward</strong> than the base policy on held-out prompts ({numbers})."
        ),
        Verdict::Lower => format!(
            "The policy repaired with {name} earns <strong>less gold reward</strong> than the base policy on held-out prompts ({numbers})."
        ),
        Verdict::NotDistinguishable => format!(
            "On held-out prompts the gold reward of the policy repaired with {name} is <strong>not distinguishable</strong> from the base policy’s ({numbers})."
        ),
    })
}

/// Whether the main arm did better than the others, in policy and in reward model.
fn rivals(data: &ReportData, main: &str) -> Vec<String> {
    let others = data.arm_names().into_iter().filter(|n| *n != main);
    others.filter_map(|other| rival(data, main, other)).collect()
}

fn rival(data: &ReportData, main: &str, other: &str) -> Option<String> {
    let gold = Measure::of("gold_reward")?;
    let policy = seen(&data.differences, gold.field, main, other)?;
    let (main_name, other_name) = (name(main), name(other));
    let numbers = figure(gold, &policy.difference);
    let mut out = match policy.verdict {
        Verdict::Higher => format!(
            "At the same budget, asking by {main_name} gave a <strong>better policy</strong> than asking by {other_name} ({numbers} gold reward)"
        ),
        Verdict::Lower => format!(
            "At the same budget, asking by {main_name} gave a <strong>worse policy</strong> than asking by {other_name} ({numbers} gold reward)"
        ),
        Verdict::NotDistinguishable => format!(
            "At the same budget, the policies of {main_name} and {other_name} are <strong>not distinguishable</strong> in gold reward ({numbers})"
        ),
    };
    let accuracy = Measure::of("reward_accuracy")?;
    if let Some(model) = seen(&data.differences, accuracy.field, main, other) {
        let numbers = figure(accuracy, &model.difference);
        out.push_str(&match model.verdict {
            Verdict::Higher => format!("; its reward model is more accurate ({numbers})"),
            Verdict::Lower => format!("; its reward model is less accurate ({numbers})"),
            Verdict::NotDistinguishable if policy.verdict == Verdict::NotDistinguishable => {
                format!("; nor is the accuracy of their reward models ({numbers})")
            }
            Verdict::NotDistinguishable => {
                format!("; the accuracy of their reward models is not distinguishable ({numbers})")
            }
        });
    }
    out.push('.');
    Some(out)
}

/// The strip of key figures below the paragraph; empty where nothing is known yet.
pub fn key_figures(data: &ReportData) -> String {
    let mut items: Vec<String> = Vec::new();
    let item = |value: String, class: &str, what: String| {
        format!(r#"<div><dt>{what}</dt><dd class="{class}">{value}</dd></div>"#)
    };
    if let Some(share) = data.pool().and_then(|p| p.pairs.share()) {
        items.push(item(percent(share), "", "of pairs misordered by the reward model at first".into()));
    }
    if let Some((labels, each)) = labels(data) {
        let what = if each { "labels for each arm" } else { "labels" };
        items.push(item(count(labels), "", what.into()));
    }
    if !data.timings.is_empty() {
        items.push(item(duration(totals(&data.timings).0), "", "of computing".into()));
    }
    if let Some(main) = data.main_arm() {
        let others = data.arm_names().into_iter().filter(|n| *n != main);
        for other in std::iter::once(BASE).chain(others.take(1)) {
            items.extend(gold_item(data, main, other).map(|(v, class, what)| item(v, class, what)));
        }
    }
    if items.is_empty() {
        return String::new();
    }
    format!(r#"<dl class="figures">{}</dl>"#, items.concat())
}

/// The key figure of a gold reward difference: a number only where it differs from 0.
fn gold_item(data: &ReportData, a: &str, b: &str) -> Option<(String, &'static str, String)> {
    let gold = Measure::of("gold_reward")?;
    let seen = seen(&data.differences, gold.field, a, b)?;
    let (a, b) = (name(a), name(b));
    let interval = ends(&seen.difference, 2, 1.0);
    let value = gold.difference(seen.difference.estimate);
    Some(match seen.verdict {
        Verdict::NotDistinguishable => {
            ("not distinguishable".into(), "words", format!("gold reward, {a} against {b}: {value} {interval}"))
        }
        Verdict::Higher | Verdict::Lower => (value, "", format!("gold reward, {a} against {b} {interval}")),
    })
}

#[cfg(test)]
mod tests {
    use gainsay_core::stats::IntervalMethod;

    use super::*;
    use crate::report::data::{Answers, Arm};

    fn difference(metric: &str, a: &str, b: &str, ends: (f64, f64, f64)) -> Difference {
        let (low, estimate, high) = ends;
        let verdict = if low > 0.0 {
            Verdict::Higher
        } else if high < 0.0 {
            Verdict::Lower
        } else {
            Verdict::NotDistinguishable
        };
        let method = IntervalMethod::Bootstrap;
        let difference = Interval { estimate, low, high, n: 32, method };
        Difference { metric: metric.into(), a: a.into(), b: b.into(), difference, verdict }
    }

    fn arm(name: &str, given: usize) -> Arm {
        let answers = Some(Answers { decided: given, ..Answers::default() });
        Arm { name: name.into(), round: 1, answers, ..Arm::default() }
    }

    fn data(differences: Vec<Difference>) -> ReportData {
        let arms = vec![arm("random", 40), arm("shf-cas", 40)];
        ReportData { arms, differences, ..ReportData::default() }
    }

    #[test]
    fn an_interval_that_holds_zero_is_never_a_gain() {
        let text = paragraph(&data(vec![
            difference("gold_reward", "shf-cas", "base", (-0.01, 0.4, 0.8)),
            difference("gold_reward", "shf-cas", "random", (-0.1, 0.1, 0.3)),
        ]));
        assert_eq!(text.matches("not distinguishable").count(), 2, "{text}");
        assert!(!text.contains("better") && !text.contains("more gold"));
        assert!(text.contains("+0.40 <span class=\"iv\">[−0.01,\u{a0}0.80]</span>"));
    }

    #[test]
    fn a_difference_is_turned_where_it_stands_the_other_way_around() {
        let all = [difference("gold_reward", "random", "shf-cas", (0.1, 0.2, 0.4))];
        let turned = seen(&all, "gold_reward", "shf-cas", "random").unwrap();
        assert_eq!(turned.verdict, Verdict::Lower);
        let d = turned.difference;
        assert_eq!((d.low, d.estimate, d.high), (-0.4, -0.2, -0.1));
        assert_eq!(seen(&all, "kl", "shf-cas", "random"), None);
    }

    #[test]
    fn losing_is_said_plainly() {
        let text = paragraph(&data(vec![
            difference("gold_reward", "shf-cas", "base", (-0.5, -0.3, -0.1)),
            difference("gold_reward", "shf-cas", "random", (-0.5, -0.3, -0.1)),
            difference("reward_accuracy", "shf-cas", "random", (-0.04, 0.01, 0.05)),
        ]));
        assert!(text.contains("less gold reward") && text.contains("worse policy"), "{text}");
        assert!(
            text.contains("; the accuracy of their reward models is not distinguishable (+1.0\u{a0}points"),
            "{text}"
        );
    }

    #[test]
    fn labels_are_given_for_each_arm_where_they_are_equal() {
        assert_eq!(labels(&data(vec![])), Some((40, true)));
        let mut uneven = data(vec![]);
        uneven.arms[0] = arm("random", 30);
        assert_eq!(labels(&uneven), Some((70, false)));
        uneven.arms[0].answers = None;
        assert_eq!(labels(&uneven), None);
    }
}
