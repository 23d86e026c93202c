//! What the runs of an experiment say together: means over seeds, and differences paired by seed.

use std::collections::BTreeMap;
use std::path::Path;

use gainsay_core::stats::{Interval, student_interval};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::run_directory;
use crate::error::Result;
use crate::evaluation::measure::verdict;
use crate::evaluation::{Evaluation, Verdict};
use crate::report::{MEASURES, Measure};
use crate::run::read_json;

/// Measures of the printed table.
const CHIEF: [&str; 6] = ["gold_reward", "win_rate", "reward_accuracy", "kl", "kendall_tau_distance", "mean_abs_pacs"];

/// The experiment's figures, as they stand in `experiment.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Schema version.
    pub schema: u32,
    /// The plan's name.
    pub name: String,
    /// Seeds of every variant.
    pub seeds: Vec<u64>,
    /// Figures by variant, arm and round; each variant's base policy first.
    pub rows: Vec<Row>,
    /// Differences after the last round.
    pub differences: Vec<SeedDifference>,
}

/// One variant's arm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// The variant's name in the plan.
    pub variant: String,
    /// `base`, or the selection strategy.
    pub arm: String,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.variant, self.arm)
    }
}

/// Means of one arm after one round, with 95 % intervals over seeds (Student's t).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    #[serde(flatten)]
    pub subject: Subject,
    /// Round after which the policy stood; 0 for the base policy.
    pub round: u32,
    /// Comparisons answered until then.
    pub labels: usize,
    /// By the names of [`crate::evaluation::Metrics`]; each seed counts with its mean over prompts.
    pub metrics: BTreeMap<String, Interval>,
}

/// A difference a - b, paired by seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedDifference {
    /// Name of the metric.
    pub metric: String,
    /// The arm that is subtracted from.
    pub a: Subject,
    /// The arm that is subtracted.
    pub b: Subject,
    /// Mean over seeds with its 95 % interval (Student's t).
    pub difference: Interval,
    /// Whether the interval leaves 0 out.
    pub verdict: Verdict,
}

/// One row's evaluations, a seed each.
struct Found {
    row: Row,
    by_seed: Vec<Evaluation>,
}

/// Reads the evaluations of every run.
///
/// # Errors
/// A run that has not ended.
pub fn summarize(name: &str, plan: &Plan, root: &Path) -> Result<Summary> {
    let mut all = Vec::new();
    for (variant, recipe) in &plan.variants {
        let arms = &recipe.select.strategies;
        let last = (1..=recipe.rounds).flat_map(|round| arms.iter().map(move |arm| (round, arm.as_str())));
        for (round, arm) in std::iter::once((0, "base")).chain(last) {
            let file = if round == 0 { "base".into() } else { format!("round-{round}/{arm}") };
            let read = |seed: &u64| -> Result<Evaluation> {
                read_json(&run_directory(root, variant, *seed).join(&file).join("evaluation.json"))
            };
            let by_seed: Vec<Evaluation> = plan.seeds.iter().map(read).collect::<Result<_>>()?;
            let subject = Subject { variant: variant.clone(), arm: arm.into() };
            let labels = round as usize * recipe.select.budget;
            all.push(Found { row: Row { subject, round, labels, metrics: means(&by_seed) }, by_seed });
        }
    }
    let differences = differences(plan, &all);
    let rows = all.into_iter().map(|found| found.row).collect();
    Ok(Summary { schema: 1, name: name.into(), seeds: plan.seeds.clone(), rows, differences })
}

fn means(by_seed: &[Evaluation]) -> BTreeMap<String, Interval> {
    let of = |measure: &Measure| {
        let values: Vec<f64> = by_seed.iter().filter_map(|e| Some((measure.get)(&e.metrics)?.estimate)).collect();
        Some((measure.field.to_owned(), student_interval(&values)?))
    };
    MEASURES.iter().filter_map(of).collect()
}

/// Each arm against its variant's base policy and its `random` (else first) arm, and against the
/// same arm of the first variant.
fn differences(plan: &Plan, all: &[Found]) -> Vec<SeedDifference> {
    let last = |variant: &str, arm: &str| {
        all.iter().rev().find(|f| f.row.subject.variant == variant && f.row.subject.arm == arm)
    };
    let mut out = Vec::new();
    for (variant, recipe) in &plan.variants {
        let arms = &recipe.select.strategies;
        let plain = arms.iter().find(|a| *a == "random").or(arms.first());
        for arm in arms {
            let mut against = vec![last(variant, "base")];
            against.extend(plain.filter(|p| *p != arm).map(|p| last(variant, p)));
            against.extend(plan.variants.keys().next().filter(|v| *v != variant).map(|v| last(v, arm)));
            let Some(a) = last(variant, arm) else { continue };
            against.into_iter().flatten().for_each(|b| out.extend(between(a, b)));
        }
    }
    out
}

fn between(a: &Found, b: &Found) -> Vec<SeedDifference> {
    let of = |measure: &Measure| {
        let value = |e: &Evaluation| Some((measure.get)(&e.metrics)?.estimate);
        let pairs = a.by_seed.iter().zip(&b.by_seed);
        let values: Vec<f64> = pairs.filter_map(|(a, b)| Some(value(a)? - value(b)?)).collect();
        let difference = student_interval(&values)?;
        let (a, b) = (a.row.subject.clone(), b.row.subject.clone());
        Some(SeedDifference { metric: measure.field.into(), a, b, verdict: verdict(&difference), difference })
    };
    MEASURES.iter().filter_map(of).collect()
}

impl Summary {
    /// Rows after each arm's last round, base policies included.
    pub fn last_rows(&self) -> Vec<&Row> {
        let is_last = |row: &&Row| !self.rows.iter().any(|r| r.subject == row.subject && r.round > row.round);
        self.rows.iter().filter(is_last).collect()
    }

    /// The chief figures as Markdown tables.
    pub fn render(&self) -> String {
        let chief: Vec<&Measure> = CHIEF.iter().filter_map(|field| Measure::of(field)).collect();
        let names = |measures: &[&Measure]| measures.iter().map(|m| m.name).collect::<Vec<_>>().join(" | ");
        let cells = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = format!(
            "{} seed{}; means over seeds with 95 % intervals (Student's t)\n\n| variant | arm | labels | {} |\n|---|---|---|{}\n",
            self.seeds.len(),
            if self.seeds.len() == 1 { "" } else { "s" },
            names(&chief),
            "---|".repeat(chief.len())
        );
        for row in self.last_rows() {
            let mut line = vec![row.subject.variant.clone(), row.subject.arm.clone(), row.labels.to_string()];
            line.extend(chief.iter().map(|m| row.metrics.get(m.field).map_or("-".into(), |i| in_words(m, i))));
            out.push_str(&cells(line));
        }
        out.push_str(&format!(
            "\n| difference, paired by seed | {} |\n|---|{}\n",
            names(&chief),
            "---|".repeat(chief.len())
        ));
        for (a, b) in self.compared() {
            let mut line = vec![format!("{a} - {b}")];
            line.extend(chief.iter().map(|m| self.difference(a, b, m.field).map_or("-".into(), |d| said(m, d))));
            out.push_str(&cells(line));
        }
        out
    }

    /// Who is compared with whom, each pair once.
    pub fn compared(&self) -> Vec<(&Subject, &Subject)> {
        let mut out: Vec<(&Subject, &Subject)> = Vec::new();
        for d in &self.differences {
            if !out.contains(&(&d.a, &d.b)) {
                out.push((&d.a, &d.b));
            }
        }
        out
    }

    /// A difference by its metric.
    pub fn difference(&self, a: &Subject, b: &Subject, metric: &str) -> Option<&SeedDifference> {
        self.differences.iter().find(|d| d.metric == metric && d.a == *a && d.b == *b)
    }
}

fn in_words(measure: &Measure, interval: &Interval) -> String {
    let estimate = measure.value(interval.estimate);
    if interval.n < 2 { estimate } else { format!("{estimate} {}", measure.ends(interval)) }
}

fn said(measure: &Measure, found: &SeedDifference) -> String {
    let interval = &found.difference;
    let ends = if interval.n < 2 { String::new() } else { format!(" {}", measure.ends(interval)) };
    let verdict = match found.verdict {
        Verdict::NotDistinguishable => "",
        Verdict::Higher => " higher",
        Verdict::Lower => " lower",
    };
    format!("{}{ends}{verdict}", measure.difference(interval.estimate))
}
