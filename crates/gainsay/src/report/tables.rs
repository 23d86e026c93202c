//! Tables: before and after, paired differences, what it cost.

use super::charts::{Whisker, bar_cell, whisker_cell};
use super::data::{Answers, Arm, ReportData, Timing};
use super::measures::{MEASURES, Measure};
use super::text::{count, duration, escape, number};
use crate::evaluation::types::{Difference, Evaluation, Everyday, Verdict};

/// A column of a table after its first.
pub struct Column {
    head: String,
    class: &'static str,
}

impl Column {
    /// Numbers, right-aligned; `head` is HTML.
    pub fn number(head: &str) -> Self {
        Self { head: head.to_string(), class: "n" }
    }

    /// Words, left-aligned; `head` is HTML.
    pub fn text(head: &str) -> Self {
        Self { head: head.to_string(), class: "text" }
    }

    /// A drawing that takes the width that is left; `head` is HTML.
    pub fn wide(head: &str) -> Self {
        Self { head: head.to_string(), class: "wide" }
    }
}

/// A table that is being written; every string given to it is HTML. Roles are spelled out because
/// on a phone its rows become grids, which browsers no longer take for a table's.
pub struct Table {
    html: String,
    columns: Vec<Column>,
}

impl Table {
    /// Starts a table with a caption: a title and a note.
    pub fn new(title: &str, note: &str, class: &str, first: &str, columns: Vec<Column>) -> Self {
        let shown = columns.iter().filter(|c| c.class != "wide").count().max(1);
        let mut html = format!(
            r#"<div class="scroll"><table role="table" class="{class}" style="--n:{shown}"><caption><b>{title}</b>{note}</caption><thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">{first}</th>"#
        );
        for column in &columns {
            html.push_str(&format!(
                r#"<th role="columnheader" scope="col" class="{}">{}</th>"#,
                column.class, column.head
            ));
        }
        html.push_str(r#"</tr></thead><tbody role="rowgroup">"#);
        Self { html, columns }
    }

    /// A row that names the rows below it.
    pub fn group(&mut self, name: &str) {
        let span = self.columns.len() + 1;
        self.html.push_str(&format!(
            r#"<tr role="row" class="group"><th role="rowheader" scope="rowgroup" colspan="{span}">{name}</th></tr>"#
        ));
    }

    /// A row of one cell a column.
    pub fn row(&mut self, name: &str, cells: &[String]) {
        self.row_of("", name, cells);
    }

    /// A row with a class: `sub` below a group, `total` at the end.
    pub fn row_of(&mut self, class: &str, name: &str, cells: &[String]) {
        self.html.push_str(&format!(r#"<tr role="row" class="{class}"><th role="rowheader" scope="row">{name}</th>"#));
        for (cell, column) in cells.iter().zip(&self.columns) {
            self.html.push_str(&format!(r#"<td role="cell" class="{}">{cell}</td>"#, column.class));
        }
        self.html.push_str("</tr>");
    }

    /// The finished table.
    pub fn finish(self) -> String {
        self.html + "</tbody></table></div>"
    }
}

/// A cell without a value.
pub fn absent() -> String {
    r#"<span class="absent">–</span>"#.to_string()
}

/// An estimate over its interval.
fn measured(measure: &Measure, evaluation: Option<&Evaluation>) -> String {
    match evaluation.and_then(|e| (measure.get)(&e.metrics)) {
        None => absent(),
        Some(interval) => {
            format!(r#"{}<span class="ci">{}</span>"#, measure.value(interval.estimate), measure.ends(interval))
        }
    }
}

/// The base policy beside each arm's last policy.
pub fn before_after(data: &ReportData) -> String {
    let last: Vec<&Arm> = data.arm_names().iter().filter_map(|n| data.last_of(n)).collect();
    let mut columns = vec![Column::number("before<b>base</b>")];
    columns.extend(last.iter().map(|arm| {
        let after = if data.settings.rounds > 1 { format!("after round {}", arm.round) } else { "after".to_string() };
        Column::number(&format!("{after}<b>{}</b>", escape(&arm.name)))
    }));
    let any = data.base.as_ref().or_else(|| last.iter().find_map(|a| a.evaluation.as_ref()));
    let note = any.map_or_else(String::new, |e| {
        format!(
            "Means over {} held-out prompts with {} completions each, at temperature {}; below \
             each its 95 % interval over prompts.",
            count(e.prompts),
            e.completions_per_prompt,
            e.temperature
        )
    });
    let mut table = Table::new("Held-out prompts, before and after", &note, "spread", "", columns);
    for measure in &MEASURES {
        let evaluations = || std::iter::once(data.base.as_ref()).chain(last.iter().map(|a| a.evaluation.as_ref()));
        if evaluations().flatten().all(|e| (measure.get)(&e.metrics).is_none()) {
            continue;
        }
        let cells: Vec<String> = evaluations().map(|e| measured(measure, e)).collect();
        table.row(&format!(r#"{}<span class="why">{}</span>"#, measure.name, measure.note), &cells);
    }
    let all: Vec<Option<Everyday>> = std::iter::once(data.base.as_ref())
        .chain(last.iter().map(|a| a.evaluation.as_ref()))
        .map(|e| e?.everyday)
        .collect();
    if let Some(answers) = all.iter().flatten().next().map(|e| e.answers) {
        let note = format!("mean log p a token of {answers} given answers, nats; below it the change");
        let cells: Vec<String> = all.iter().map(|e| everyday_cell(e.as_ref())).collect();
        table.row(&format!(r#"Everyday answers<span class="why">{note}</span>"#), &cells);
    }
    table.finish()
}

/// How likely everyday answers are, over the change from the base.
fn everyday_cell(everyday: Option<&Everyday>) -> String {
    let (Some(everyday), Some(style)) = (everyday, Measure::of("nll_per_token")) else { return absent() };
    let (value, change) = (style.value(everyday.policy.estimate), style.difference(everyday.change.estimate));
    format!(r#"{value}<span class="ci">{change} {}</span>"#, style.ends(&everyday.change))
}

/// What a verdict says, in words.
pub fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Higher => "higher",
        Verdict::Lower => "lower",
        Verdict::NotDistinguishable => "not distinguishable",
    }
}

/// Measures that answer whether the repair helped; the differences of the others are folded.
const FIRST: [&str; 6] = ["gold_reward", "win_rate", "reward_accuracy", "kendall_tau_distance", "kl", "length"];

/// Paired differences by measure: those that matter most, and the others folded below.
pub fn difference_tables(differences: &[Difference]) -> String {
    // Rewards of different reward models have no common scale, so their difference says nothing.
    let comparable = || differences.iter().filter(|d| d.metric != "proxy_reward");
    let (first, rest): (Vec<_>, Vec<_>) = comparable().partition(|d| FIRST.contains(&d.metric.as_str()));
    let mut out = difference_table("Paired differences", &first);
    if !rest.is_empty() {
        out.push_str(&format!(
            r#"<details class="more"><summary>The other measures</summary>{}</details>"#,
            difference_table("Paired differences of the other measures", &rest)
        ));
    }
    out
}

/// One table of differences, with a forest plot that shares its scale within a measure.
fn difference_table(title: &str, differences: &[&Difference]) -> String {
    let columns =
        vec![Column::number("Difference"), Column::number("95 % interval"), Column::wide(""), Column::text("Verdict")];
    let mut table = Table::new(
        title,
        "Both policies of a row answer the same prompts; mean difference with its 95 % interval. \
         The dashed line is no difference; each measure has a scale of its own. Where the \
         interval holds 0, the two cannot be told apart.",
        "stack",
        "",
        columns,
    );
    for measure in &MEASURES {
        let rows: Vec<&Difference> = differences.iter().filter(|d| d.metric == measure.field).copied().collect();
        if rows.is_empty() {
            continue;
        }
        table.group(measure.name);
        let reach = reach(&rows);
        for row in rows {
            let name = format!(r#"<span class="name">{} − {}</span>"#, escape(&row.a), escape(&row.b));
            table.row_of("sub", &name, &difference_cells(measure, row, reach));
        }
    }
    table.finish()
}

/// The largest finite end among intervals.
fn reach(rows: &[&Difference]) -> f64 {
    rows.iter()
        .flat_map(|d| [d.difference.low, d.difference.high, d.difference.estimate])
        .filter(|end| end.is_finite())
        .map(f64::abs)
        .fold(0.0, f64::max)
        .max(1e-9)
}

fn difference_cells(measure: &Measure, row: &Difference, reach: f64) -> [String; 4] {
    let interval = &row.difference;
    let words = verdict_words(row.verdict);
    let label = format!(
        "{} minus {}: {} {}, {words}",
        row.a,
        row.b,
        measure.difference(interval.estimate),
        measure.ends(interval)
    );
    let verdict = match row.verdict {
        Verdict::NotDistinguishable => words.to_string(),
        Verdict::Higher | Verdict::Lower => format!("<b>{words}</b>"),
    };
    [
        measure.difference(interval.estimate),
        format!(r#"<span class="ci">{}</span>"#, measure.ends(interval)),
        whisker_cell(Whisker::from(interval), (-1.1 * reach, 1.1 * reach), 0.0, &label),
        format!(r#"<span class="verdict">{verdict}</span>"#),
    ]
}

/// Labels by arm and round.
pub fn label_table(arms: &[Arm]) -> String {
    let columns = ["Asked", "Answered", "Ties", "Both bad", "Skipped", "Below the thresholds"];
    let columns = columns.iter().map(|head| Column::number(head)).collect();
    let mut table = Table::new(
        "Labels",
        "One label is one answered comparison. Pairs below the thresholds were taken because too \
         few lay above them.",
        "spread",
        "Arm",
        columns,
    );
    let rounds = arms.iter().map(|a| a.round).max().unwrap_or(1);
    for arm in arms {
        let name = if rounds > 1 { format!("{}, round {}", escape(&arm.name), arm.round) } else { escape(&arm.name) };
        let given = |get: fn(&Answers) -> usize| arm.answers.as_ref().map_or_else(absent, |a| count(get(a)));
        table.row(
            &name,
            &[
                count(arm.asked),
                given(Answers::given),
                given(|a| a.ties),
                given(|a| a.both_bad),
                given(|a| a.skipped),
                count(arm.below_threshold),
            ],
        );
    }
    table.finish()
}

/// Seconds and tokens by stage, in the order of the run.
pub fn timing_table(timings: &[Timing]) -> String {
    let columns = vec![
        Column::number("Time"),
        Column::wide(""),
        Column::number("Tokens"),
        Column::number("Tokens a second"),
        Column::number("Peak memory"),
    ];
    let mut table = Table::new(
        "Stage by stage",
        "Time of the work itself, on this machine. Tokens are those that went through the model; \
         memory is the process’s peak up to the end of the stage.",
        "spread",
        "Stage",
        columns,
    );
    let longest = timings.iter().map(|t| t.seconds).fold(0.0, f64::max).max(1e-9);
    for timing in timings {
        let speed = timing.tokens as f64 / timing.seconds;
        let with_tokens = |text: String| if timing.tokens > 0 { text } else { absent() };
        table.row(
            &escape(&timing.stage),
            &[
                if timing.seconds > 0.0 { duration(timing.seconds) } else { absent() },
                bar_cell(timing.seconds / longest),
                with_tokens(count(timing.tokens as usize)),
                with_tokens(if speed.is_finite() { count(speed as usize) } else { "–".into() }),
                memory(timing.peak_rss_bytes),
            ],
        );
    }
    let (seconds, tokens) = totals(timings);
    let peak = timings.iter().map(|t| t.peak_rss_bytes).max().unwrap_or(0);
    table.row_of(
        "total",
        "Together",
        &[duration(seconds), String::new(), count(tokens as usize), String::new(), memory(peak)],
    );
    table.finish()
}

/// Seconds and tokens of all stages.
pub fn totals(timings: &[Timing]) -> (f64, u64) {
    (timings.iter().map(|t| t.seconds).sum(), timings.iter().map(|t| t.tokens).sum())
}

fn memory(bytes: u64) -> String {
    if bytes == 0 {
        return absent();
    }
    format!("{} GiB", number(bytes as f64 / (1u64 << 30) as f64, 2))
}
