//! a file -> what it is: format, number of records, the first two of them; or its records.

use std::collections::BTreeMap;
use std::path::Path;

use gainsay_core::files::{self, Kind, Reader, Record, Writer};
use gainsay_core::import::{ColumnMap, DataFormat};
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{PreferenceRecord, PromptRecord, SelectionRecord};
use serde::Serialize;
use serde_json::Value;

use super::text;
use crate::error::{Error, Result};
use crate::interrupt;

/// Records that are shown.
const SHOWN: usize = 2;

/// Writes the records of a file of any format; returns how many.
///
/// # Errors
/// Malformed rows, a file that cannot be written, Ctrl-C.
pub fn convert<T: Record>(path: &Path, map: Option<&ColumnMap>, out: &Path) -> Result<u64> {
    let mut writer = Writer::<T>::create(out)?;
    let mut count = 0;
    for record in Reader::<T>::open_mapped(path, map)?.unique_ids() {
        interrupt::check()?;
        writer.write(&record?)?;
        count += 1;
    }
    writer.finish()?;
    Ok(count)
}

/// What a file is.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The format; none where the columns were given.
    pub format: Option<DataFormat>,
    /// The format in words.
    pub description: String,
    /// Why: the fields that it is known by.
    pub because: String,
    /// Files that the name stands for.
    pub files: usize,
    /// What the rows are read as: prompt, selection, preference or ranking.
    pub kind: &'static str,
    /// Fields of the first row.
    pub columns: Vec<String>,
    /// Records; rows with one prompt may form one.
    pub records: u64,
    /// What the records hold, with how many do.
    pub holds: BTreeMap<&'static str, u64>,
    /// The first records as Gainsay reads them.
    pub first: Vec<Value>,
}

/// Reads a file to its end.
///
/// # Errors
/// A format that is not known, malformed rows, Ctrl-C.
pub fn inspect(path: &Path, map: Option<&ColumnMap>) -> Result<Inspection> {
    let row = files::first_row(path)?;
    let columns: Vec<String> = row.iter().flat_map(|row| row.keys().cloned()).collect();
    let known = match (&row, map) {
        (_, Some(_)) => None,
        (Some(row), None) => Some(DataFormat::of(row).ok_or_else(|| {
            Error::Input(format!(
                "{}: no format that is known has the fields {}; name the columns: --map \
                 prompt=…,completion=…,reward=…,logp=… (docs/data.md)",
                path.display(),
                columns.join(", ")
            ))
        })?),
        // An object of columns is no row; the reader knows the published scripts' and words errors.
        (None, None) => Some((DataFormat::Published, ["response_with_prompt"].as_slice())),
    };
    let inspection = Inspection {
        format: known.map(|(format, _)| format),
        description: known.map_or("a plain table", |(format, _)| format.describe()).into(),
        because: match known {
            Some((_, fields)) => format!("the rows have {}", fields.join(", ")),
            None => "--map names its columns".into(),
        },
        files: files::expand(path)?.len(),
        kind: "",
        columns,
        records: 0,
        holds: BTreeMap::new(),
        first: Vec::new(),
    };
    match known.map_or(Kind::Prompt, |(format, _)| format.kind()) {
        Kind::Prompt => read::<PromptRecord>(path, map, inspection),
        Kind::Selection => read::<SelectionRecord>(path, map, inspection),
        Kind::Preference => read::<PreferenceRecord>(path, map, inspection),
        Kind::Ranking => read::<RankingRecord>(path, map, inspection),
    }
}

/// What an inspection counts of a record.
trait Counted: Record {
    fn count(&self, holds: &mut BTreeMap<&'static str, u64>);
}

fn add(holds: &mut BTreeMap<&'static str, u64>, what: &'static str, count: usize) {
    if count > 0 {
        *holds.entry(what).or_default() += count as u64;
    }
}

impl Counted for PromptRecord {
    fn count(&self, holds: &mut BTreeMap<&'static str, u64>) {
        let all = &self.completions;
        add(holds, "completions", all.len());
        add(holds, "rewards", all.iter().filter(|c| c.reward.is_some()).count());
        add(holds, "log-probs", all.iter().filter(|c| c.logp.is_some()).count());
        add(holds, "gold labels", all.iter().filter(|c| c.gold.is_some()).count());
    }
}

impl Counted for SelectionRecord {
    fn count(&self, holds: &mut BTreeMap<&'static str, u64>) {
        add(holds, "gold labels", [&self.first, &self.second].iter().filter(|c| c.gold.is_some()).count());
    }
}

impl Counted for PreferenceRecord {
    fn count(&self, holds: &mut BTreeMap<&'static str, u64>) {
        add(holds, "comparisons", usize::from(self.answer.is_comparison() && self.p_first != Some(0.5)));
        add(holds, "ties", usize::from(self.p_first == Some(0.5)));
        add(holds, "both bad or skipped", usize::from(self.p_first.is_none()));
        add(holds, "margins", usize::from(self.margin.is_some()));
        add(holds, "safety signs", usize::from(self.safe_first.is_some()) + usize::from(self.safe_second.is_some()));
    }
}

impl Counted for RankingRecord {
    fn count(&self, holds: &mut BTreeMap<&'static str, u64>) {
        let groups = &self.ranking.0;
        add(holds, "ranked completions", groups.iter().map(Vec::len).sum());
        add(holds, "tied completions", groups.iter().map(Vec::len).filter(|n| *n > 1).sum());
    }
}

fn read<T: Counted>(path: &Path, map: Option<&ColumnMap>, mut inspection: Inspection) -> Result<Inspection> {
    inspection.kind = T::KIND.name();
    for record in Reader::<T>::open_mapped(path, map)?.unique_ids() {
        interrupt::check()?;
        let record = record?;
        inspection.records += 1;
        record.count(&mut inspection.holds);
        if inspection.first.len() < SHOWN {
            let value = serde_json::to_value(&record).map_err(|e| Error::Run(e.to_string()))?;
            inspection.first.push(value);
        }
    }
    Ok(inspection)
}

impl Inspection {
    /// As lines of text.
    pub fn render(&self) -> String {
        let holds: Vec<String> = self.holds.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let files = if self.files > 1 { format!(" in {} files", self.files) } else { String::new() };
        let mut out = format!(
            "format   {}\nbecause  {}\nrecords  {} {}{files}\n",
            self.description,
            self.because,
            self.records,
            if self.records == 1 { self.kind.to_string() } else { format!("{}s", self.kind) },
        );
        if !holds.is_empty() {
            out.push_str(&format!("holds    {}\n", holds.join(", ")));
        }
        if !self.columns.is_empty() {
            out.push_str(&format!("columns  {}\n", text::one_line(&self.columns.join(", "), 300)));
        }
        for record in &self.first {
            out.push('\n');
            shown(record, "", &mut out);
        }
        out
    }
}

/// An object's fields, one a line, with nested ones behind their path.
fn shown(value: &Value, path: &str, out: &mut String) {
    let line = |out: &mut String, words: &str| {
        out.push_str(&format!("  {:<28}{}\n", text::one_line(path, 60), text::one_line(words, 120)));
    };
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                shown(inner, &path, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, inner) in items.iter().enumerate() {
                shown(inner, &format!("{path}[{index}]"), out);
            }
        }
        Value::String(words) => line(out, words),
        other => line(out, &other.to_string()),
    }
}
