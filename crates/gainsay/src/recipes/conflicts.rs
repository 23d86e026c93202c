//! scored -> conflicts: where reward and log-prob contradict each other. Memory does not grow
//! with the file.

mod lines;

use std::path::Path;

use gainsay_core::conflict::{
    Annotator, ConflictOptions, ConventionCheck, DatasetMoments, LogpKind, Scope, Summary, SummaryBuilder, Top,
    TopEntry,
};
use gainsay_core::files::{Reader, Writer};
use gainsay_core::import::ColumnMap;
use gainsay_core::record::PromptRecord;
use gainsay_core::rng::Key;

use super::text;
use crate::error::{Error, Result};
use crate::interrupt;

/// What the random numbers of a summary's intervals are for.
const PURPOSE: &str = "conflicts";

/// What a scored file shows.
pub struct Found {
    /// Means, intervals, histogram, correlations.
    pub summary: Summary,
    /// The strongest conflicts, worst first.
    pub top: Vec<TopEntry>,
}

/// Measures every prompt of a file; with `out` also writes the records with their measures.
/// Keeps the `top` strongest conflicts. `map` names the columns of a plain table.
///
/// # Errors
/// Bad records, a file without rewards or log-probs, mixed conventions (file and line are named),
/// no prompt that can be ranked, Ctrl-C.
pub fn conflicts(
    input: &Path,
    out: Option<&Path>,
    options: &ConflictOptions,
    top: usize,
    map: Option<&ColumnMap>,
) -> Result<Found> {
    let quick = if out.is_none() && map.is_none() { lines::measure(input, options, top)? } else { None };
    match quick.filter(|found| !found.summary.all_degenerate()) {
        Some(found) => Ok(found),
        None => by_record(input, out, options, top, map),
    }
}

/// [`conflicts`], one record after the other.
fn by_record(
    input: &Path,
    out: Option<&Path>,
    options: &ConflictOptions,
    top: usize,
    map: Option<&ColumnMap>,
) -> Result<Found> {
    let mut annotator = Annotator::new(*options);
    let mut conventions = ConventionCheck::scores();
    let mut summary = SummaryBuilder::new(*options);
    let mut strongest = Top::new(top);
    let mut writer = out.map(Writer::<PromptRecord>::create).transpose()?;
    let mut reader = Reader::<PromptRecord>::open_mapped(input, map)?.unique_ids();
    while let Some(record) = reader.next() {
        interrupt::check()?;
        let mut record = record?;
        let at = |what: String| Error::Input(format!("{}{}: {what}", reader.path().display(), reader.at()));
        conventions.see(&record).map_err(|e| at(e.to_string()))?;
        let outcome = annotator.annotate(&mut record);
        summary.see(&record, &outcome);
        if let Ok(conflict) = &outcome {
            strongest.see(&record, conflict);
        }
        if let Some(writer) = &mut writer {
            writer.write(&record)?;
        }
    }
    annotator.check().map_err(|e| Error::Input(format!("{}: {e}", input.display())))?;
    let summary = summary.finish(Key::new(0, PURPOSE));
    if summary.all_degenerate() {
        return Err(Error::Input(format!("{}: {}", input.display(), nothing_to_rank(&summary))));
    }
    writer.map(Writer::finish).transpose()?;
    Ok(Found { summary, top: strongest.into_sorted() })
}

/// Mean and std of the whole file, for `--scope dataset`: a first pass over it.
pub fn dataset_scope(input: &Path, kind: LogpKind, map: Option<&ColumnMap>) -> Result<Scope> {
    let mut moments = DatasetMoments::default();
    for record in Reader::<PromptRecord>::open_mapped(input, map)? {
        moments.see(&record?, kind);
    }
    Ok(Scope::Dataset(moments))
}

/// Why no prompt has a conflict measure.
fn nothing_to_rank(summary: &Summary) -> String {
    let d = &summary.degenerate;
    let reasons = [
        (d.too_few, "sample at least 2 completions a prompt (-n)"),
        (d.missing_value, "score the completions (gainsay score --policy --reward)"),
        (d.non_finite, "find out what made the values that are not finite"),
        (d.constant_reward, "look at the reward: it does not tell a prompt's completions apart"),
        (
            d.constant_logp,
            "look at the log-probs, or sample with a higher temperature: a prompt's completions are alike",
        ),
    ];
    let remedies: Vec<&str> = reasons.iter().filter(|(count, _)| *count > 0).map(|(_, remedy)| *remedy).collect();
    format!(
        "no prompt can be ranked: of {} prompts, {} have fewer than 2 completions, {} lack a reward or log-prob, \
         {} have one that is not finite, {} have equal rewards, {} have equal log-probs; {}",
        summary.prompts,
        d.too_few,
        d.missing_value,
        d.non_finite,
        d.constant_reward,
        d.constant_logp,
        remedies.join("; ")
    )
}

/// The strongest conflicts as text for people.
pub fn render_top(top: &[TopEntry]) -> String {
    let mut out = String::new();
    for (rank, entry) in top.iter().enumerate() {
        let record = &entry.record;
        out.push_str(&format!(
            "\n{}. {}  K {:.3}, tau-b {:+.3}, mean |PACS| {:.2}\n   prompt: {}\n",
            rank + 1,
            text::one_line(&record.id, 80),
            entry.conflict.k,
            entry.conflict.tau_b,
            entry.conflict.mean_abs_pacs,
            text::one_line(&record.prompt.display(), 300),
        ));
        let mut ranked: Vec<_> = record.completions.iter().filter_map(|c| Some((c.pacs?, c))).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let ends = [("over-valued", ranked.first()), ("under-valued", ranked.last())];
        for (what, end) in ends {
            if let Some((pacs, completion)) = end {
                out.push_str(&format!(
                    "   {what} (PACS {pacs:+.2}, reward {}, log-prob {}): {}\n",
                    text::number(completion.reward),
                    text::number(completion.logp),
                    text::one_line(&completion.text, 300),
                ));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// 3,000 prompts of 0 to 9 completions, with ties, missing values, blank lines and two kinds
    /// of spacing; the first one is whole.
    fn file(tokens: bool) -> (tempfile::TempDir, std::path::PathBuf) {
        let mut draw = Key::new(5, "lines").stream();
        let mut completion = |whole: bool| {
            let reward = draw.index(7) as f64 / 2.0 - 1.0;
            let missing = draw.uniform() < 0.03 && !whole;
            let logp = if missing { "null".into() } else { format!("-{}.5", draw.index(30)) };
            let counted = tokens && (whole || draw.uniform() < 0.97);
            let count = if counted { format!(",\"n_tokens\":{}", 1 + draw.index(9)) } else { String::new() };
            format!("{{\"text\":\"{}\",\"reward\":{reward:?},\"logp\":{logp}{count}}}", "é".repeat(draw.index(9)))
        };
        let mut text = String::new();
        for p in 0..3000 {
            let n = if p == 0 { 4 } else { p * 7 % 10 };
            let completions: Vec<String> = (0..n).map(|_| completion(p == 0)).collect();
            let completions = completions.join(if p % 2 == 0 { "," } else { ", " });
            writeln!(text, "{{\"id\": \"p{p}\", \"prompt\": \"?\", \"completions\": [{completions}]}}").unwrap();
            if p % 50 == 0 {
                text.push('\n');
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scored.jsonl");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn lines_give_the_figures_of_records() {
        for tokens in [true, false] {
            let (_dir, path) = file(tokens);
            for logp in [LogpKind::Sum, LogpKind::MeanPerToken] {
                if logp == LogpKind::MeanPerToken && !tokens {
                    continue;
                }
                let options = ConflictOptions { logp, ..ConflictOptions::default() };
                let fast = lines::measure(&path, &options, 7).unwrap().expect("the plain form");
                let slow = by_record(&path, None, &options, 7, None).unwrap();
                assert_eq!(fast.summary, slow.summary);
                assert_eq!(fast.top, slow.top);
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_read_record_by_record() {
        let (_dir, path) = file(true);
        let text = std::fs::read_to_string(&path).unwrap();
        let options = ConflictOptions::default();
        for (from, to) in [
            ("\"p2999\"", "\"p17\""),
            ("\"p2999\", \"prompt\": \"?\"", "\"p2999\", \"prompt\": [{\"role\":\"user\",\"content\":\"?\"}]"),
            ("\"p2999\",", "\"p2999\", \"meta\": {\"reward_model\": \"other\"},"),
            ("{\"id\": \"p0\"", "\u{feff}{\"id\": \"p0\""),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(lines::measure(&path, &options, 3).unwrap().is_none(), "{to}");
        }
    }
}
