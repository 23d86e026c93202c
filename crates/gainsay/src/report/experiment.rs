//! The page of an experiment: what its variants and arms come to, over seeds.

use std::path::{Path, PathBuf};

use gainsay_core::files;
use gainsay_core::stats::Interval;

use super::ReportError;
use super::charts::{Series, Whisker, curve_key, curves, whisker_cell};
use super::measures::{MEASURES, Measure};
use super::page::document;
use super::tables::{Column, Table, absent};
use super::text::{escape, plural};
use crate::evaluation::Verdict;
use crate::experiment::summary::{Row, Subject, Summary};

/// Measures with a curve over labels.
const CURVES: [&str; 4] = ["gold_reward", "reward_accuracy", "kl", "kendall_tau_distance"];

/// Writes an experiment's page to `report.html` in its directory and returns that path.
///
/// # Errors
/// The page cannot be written.
pub fn write_experiment(summary: &Summary, dir: &Path) -> Result<PathBuf, ReportError> {
    let path = dir.join("report.html");
    files::write_atomic(&path, render(summary).as_bytes())?;
    Ok(path)
}

/// The page as one HTML document. Pure.
fn render(summary: &Summary) -> String {
    let section = |anchor: &str, heading: &str, body: String| {
        format!(r#"<section aria-labelledby="{anchor}"><h2 id="{anchor}">{heading}</h2>{body}</section>"#)
    };
    let body = [
        section("curves", "What a label buys", curve_figures(summary)),
        section("figures", "Figures over seeds", figures(summary)),
        section("differences", "Differences, paired by seed", differences(summary)),
    ]
    .concat();
    let header = format!(
        r#"<p class="kicker"><b>Gainsay</b> · experiment · <b>{}</b></p><h1>{}</h1><p class="lede">{}</p>"#,
        escape(&summary.name),
        "Which method, over seeds",
        lede(summary)
    );
    let footer = "Each seed counts with its mean over held-out prompts; intervals are 95 %, by Student’s t over seeds. \
                  Every run has a directory and a report of its own beside this page.";
    document(&summary.name, &header, &body, footer)
}

fn lede(summary: &Summary) -> String {
    let found: Vec<String> = summary
        .differences
        .iter()
        .filter(|d| d.metric == "gold_reward" && d.b.arm != "base" && d.verdict != Verdict::NotDistinguishable)
        .map(|d| {
            let word = if d.verdict == Verdict::Higher { "higher" } else { "lower" };
            format!("<strong>{}</strong> ends {word} in gold reward than {}", subject(&d.a), subject(&d.b))
        })
        .collect();
    let seeds = plural(summary.seeds.len(), "seed", "seeds");
    match (summary.seeds.len(), found.is_empty()) {
        (1, _) => format!("{seeds}: nothing can be told from chance."),
        (_, true) => format!("{seeds}: no two arms can be told apart in gold reward."),
        (_, false) => format!("{seeds}: {}.", found.join("; ")),
    }
}

fn subject(subject: &Subject) -> String {
    escape(&subject.to_string())
}

/// Means by labels, a line an arm, each from its variant's base policy on.
fn curve_figures(summary: &Summary) -> String {
    let mut arms: Vec<&Subject> = Vec::new();
    for row in summary.rows.iter().filter(|row| row.round > 0) {
        if !arms.contains(&&row.subject) {
            arms.push(&row.subject);
        }
    }
    let mut out = String::new();
    for measure in CURVES.iter().filter_map(|field| Measure::of(field)) {
        let of_arm = |arm: &&Subject| {
            let mine = |row: &&Row| row.subject == **arm || (row.round == 0 && row.subject.variant == arm.variant);
            let point = |row: &Row| Some((row.labels as f64, row.metrics.get(measure.field)?.estimate));
            Series { name: arm.to_string(), points: summary.rows.iter().filter(mine).filter_map(point).collect() }
        };
        let series: Vec<Series> = arms.iter().map(of_arm).collect();
        if let Some(chart) = curves(&series, "Labels", measure.name, false) {
            out.push_str(&format!("<h3>{}</h3>{chart}", measure.name));
        }
    }
    let names: Vec<String> = arms.iter().map(|arm| arm.to_string()).collect();
    curve_key(&names.iter().map(String::as_str).collect::<Vec<_>>()) + &out
}

/// Every measure of the last round, an arm a column.
fn figures(summary: &Summary) -> String {
    let rows = summary.last_rows();
    let head =
        |row: &&Row| Column::number(&format!("{}<b>{}</b>", escape(&row.subject.variant), escape(&row.subject.arm)));
    let note = "Means over seeds after the last round; below each its interval.";
    let mut table = Table::new("Held-out prompts", note, "spread", "", rows.iter().map(head).collect());
    for measure in MEASURES.iter().filter(|m| rows.iter().any(|row| row.metrics.contains_key(m.field))) {
        let cell = |row: &&Row| row.metrics.get(measure.field).map_or_else(absent, |i| measured(measure, i));
        let cells: Vec<String> = rows.iter().map(cell).collect();
        table.row(&format!(r#"{}<span class="why">{}</span>"#, measure.name, measure.note), &cells);
    }
    table.finish()
}

fn measured(measure: &Measure, interval: &Interval) -> String {
    let estimate = measure.value(interval.estimate);
    if interval.n < 2 {
        return estimate;
    }
    format!(r#"{estimate}<span class="ci">{}</span>"#, measure.ends(interval))
}

/// A table of differences a measure.
fn differences(summary: &Summary) -> String {
    let mut out = String::new();
    for measure in &MEASURES {
        let found: Vec<_> = summary.differences.iter().filter(|d| d.metric == measure.field).collect();
        if found.is_empty() {
            continue;
        }
        let ends = found.iter().flat_map(|d| [d.difference.low, d.difference.high, d.difference.estimate]);
        let most = ends.filter(|v| v.is_finite()).fold(0.0f64, |most, v| most.max(v.abs())).max(1e-9);
        let columns = vec![Column::number("difference"), Column::wide(""), Column::text("")];
        let mut table =
            Table::new(measure.name, &format!(": over {}", plural(count_of(&found), "seed", "seeds")), "", "", columns);
        for d in found {
            let interval = &d.difference;
            let verdict = match d.verdict {
                Verdict::NotDistinguishable => "not distinguishable",
                Verdict::Higher => "higher",
                Verdict::Lower => "lower",
            };
            let whisker =
                Whisker { low: interval.low.max(-most), mid: interval.estimate, high: interval.high.min(most) };
            let name = format!("{} − {}", subject(&d.a), subject(&d.b));
            let label = format!("{} minus {}: {}", d.a, d.b, measure.difference(interval.estimate));
            let drawn = whisker_cell(whisker, (-most, most), 0.0, &label);
            let mut number = measure.difference(interval.estimate);
            if interval.n > 1 {
                number.push_str(&format!(r#"<span class="ci">{}</span>"#, measure.ends(interval)));
            }
            table.row(&name, &[number, drawn, verdict.into()]);
        }
        out.push_str(&table.finish());
    }
    out
}

fn count_of(found: &[&crate::experiment::summary::SeedDifference]) -> usize {
    found.iter().map(|d| d.difference.n as usize).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gainsay_core::stats::student_interval;

    use super::*;
    use crate::evaluation::measure::verdict;
    use crate::experiment::summary::SeedDifference;

    fn row(arm: &str, round: u32, values: &[f64]) -> Row {
        let subject = Subject { variant: "<b>".into(), arm: arm.into() };
        let metrics = BTreeMap::from([("gold_reward".to_string(), student_interval(values).unwrap())]);
        Row { subject, round, labels: 10 * round as usize, metrics }
    }

    fn summary(values: &[f64]) -> Summary {
        let rows = vec![row("base", 0, &vec![0.0; values.len()]), row("random", 1, values)];
        let difference = student_interval(values).unwrap();
        let (a, b) = (rows[1].subject.clone(), Subject { arm: "other".into(), ..rows[1].subject.clone() });
        let metric = "gold_reward".into();
        let differences = vec![SeedDifference { metric, a, b, verdict: verdict(&difference), difference }];
        Summary { schema: 1, name: "n".into(), seeds: (0..values.len() as u64).collect(), rows, differences }
    }

    #[test]
    fn the_page_says_what_was_found_and_escapes_names() {
        let page = render(&summary(&[1.0, 1.1, 0.9]));
        assert!(page.contains("<strong>&lt;b&gt;/random</strong> ends higher in gold reward"), "{page}");
        assert!(!page.contains("<b>/random") && page.contains("<polyline"));
    }

    #[test]
    fn one_seed_claims_nothing() {
        let page = render(&summary(&[1.0]));
        assert!(page.contains("nothing can be told from chance") && !page.contains("inf") && !page.contains("NaN"));
    }
}
