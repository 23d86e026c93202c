//! Streaming reader of record files.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::vec;

use serde_json::error::Category;
use serde_json::{Map, Value};

use super::check::{Kind, Record};
use super::error::{At, Earlier, Fault, FileError};
use super::lines::{Format, Lines};
use super::nonfinite;
use super::table::Table;
use crate::import;
use crate::record::SCHEMA;

/// Iterates over the records of a file; stops after the first error.
///
/// One line is held at a time, so memory does not grow with the file, with two exceptions:
/// [`Reader::unique_ids`] keeps 16 bytes a record, and files of columns are read whole.
/// A file without any record is an error, as it is most often a step that failed.
pub struct Reader<T> {
    path: PathBuf,
    rows: Rows<T>,
    count: u64,
    seen: Option<HashMap<u64, u64, BuildHasherDefault<DefaultHasher>>>,
    done: bool,
}

enum Rows<T> {
    Lines(Lines),
    Table(Table),
    Columns(vec::IntoIter<T>),
}

impl<T: Record> Reader<T> {
    /// Opens a file in the format that its ending names.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let rows = match Format::of(path)? {
            Format::Parquet => Rows::Table(Table::open(path, T::KIND)?),
            format => Rows::Lines(Lines::open(path, format)?),
        };
        Ok(Self { path: path.to_path_buf(), rows, count: 0, seen: None, done: false })
    }

    /// Refuses a second record with the same id, naming both lines. Keeps a 64-bit hash and a
    /// line number per record: 20 to 40 MB for a million records.
    pub fn unique_ids(mut self) -> Self {
        self.seen = Some(HashMap::default());
        self
    }

    /// Where the record that was returned last stands: a line, or a row of a table.
    pub fn at(&self) -> At {
        match &self.rows {
            Rows::Lines(lines) => At::Line(lines.number()),
            Rows::Table(table) => At::Row(table.number()),
            Rows::Columns(_) => At::Row(self.count),
        }
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<Option<T>, Fault> {
        let record = match &mut self.rows {
            Rows::Columns(rows) => rows.next(),
            Rows::Table(table) => match table.advance()? {
                None => None,
                Some(row) => Some(own(row, self.count + 1)?),
            },
            Rows::Lines(lines) => match lines.advance()? {
                false => None,
                true if self.count == 0 && T::starts_columns(lines.text()) => {
                    return self.columns();
                }
                true => Some(line(lines, self.count + 1)?),
            },
        };
        match record {
            Some(record) => self.accept(record).map(Some),
            None if self.count == 0 => Err(Fault::Empty),
            None => Ok(None),
        }
    }

    fn accept(&mut self, record: T) -> Result<T, Fault> {
        self.count += 1;
        let at = self.at();
        newer(u64::from(record.schema()))?;
        record.check().map_err(|what| Fault::Invalid { what })?;
        let (At::Line(number) | At::Row(number)) = at else { return Ok(record) };
        if let Some(seen) = &mut self.seen {
            let mut hasher = DefaultHasher::new();
            record.id().hash(&mut hasher);
            if let Some(earlier) = seen.insert(hasher.finish(), number) {
                let earlier = match at {
                    At::Row(_) => At::Row(earlier),
                    _ => At::Line(earlier),
                };
                return Err(Fault::Duplicate { id: record.id().to_string(), earlier: Earlier(earlier) });
            }
        }
        Ok(record)
    }
}

impl<T: Record> Reader<T> {
    /// Turns to a file that is one object of columns, or one record over several lines.
    fn columns(&mut self) -> Result<Option<T>, Fault> {
        let Rows::Lines(lines) = &mut self.rows else { return Ok(None) };
        let whole = lines.rest()?;
        let Ok(value) = serde_json::from_slice::<Value>(&whole) else {
            let fault = broken(&whole, true);
            if let Fault::NotFinite { field, .. } = &fault {
                self.count = cell(field).map_or(0, |index| index + 1);
                self.rows = Rows::Columns(Vec::new().into_iter());
            }
            return Err(fault);
        };
        let columns = value.as_object().and_then(T::from_columns);
        match columns {
            Some(Ok(records)) => {
                self.rows = Rows::Columns(records.into_iter());
                self.read()
            }
            Some(Err(fault)) => {
                self.rows = Rows::Columns(Vec::new().into_iter());
                self.count = fault.row.unwrap_or(0);
                Err(Fault::Invalid { what: fault.what })
            }
            None => Err(Fault::Unfinished),
        }
    }
}

impl<T: Record> Iterator for Reader<T> {
    type Item = Result<T, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.read().map_err(|fault| {
            let at = match (&fault, self.at()) {
                (Fault::Empty, _) | (_, At::Row(0)) => At::File,
                (_, at) => at,
            };
            FileError::new(&self.path, at, fault)
        });
        self.done = !matches!(result, Ok(Some(_)));
        result.transpose()
    }
}

/// Parses the current line: our own format first, then the foreign ones.
fn line<T: Record>(lines: &Lines, number: u64) -> Result<T, Fault> {
    let text = lines.text();
    match serde_json::from_slice::<T>(text) {
        Ok(record) if !record.is_foreign() => return Ok(record),
        _ => {}
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(row)) => foreign(row, number),
        Ok(Value::Array(_)) => Err(Fault::Array),
        Ok(other) => Err(Fault::Shape { kind: T::KIND, what: format!("found {other}, expected an object") }),
        Err(_) => Err(broken(text, lines.is_last_without_newline())),
    }
}

/// A row of a table: our own format first, then the foreign ones.
fn own<T: Record>(row: Map<String, Value>, number: u64) -> Result<T, Fault> {
    match T::deserialize(&row) {
        Ok(record) if !record.is_foreign() => Ok(record),
        _ => foreign(row, number),
    }
}

fn foreign<T: Record>(row: Map<String, Value>, number: u64) -> Result<T, Fault> {
    schema(&row)?;
    match T::adopt(&row, number) {
        Some(adopted) => adopted.map_err(|what| Fault::Shape { kind: T::KIND, what }),
        None => Err(Fault::Shape { kind: T::KIND, what: shape::<T>(row) }),
    }
}

/// Why text that is not JSON is not JSON.
fn broken(text: &[u8], last: bool) -> Fault {
    if let Some((field, literal)) = nonfinite::find(text) {
        return Fault::NotFinite { field, literal: literal.into() };
    }
    let error = match serde_json::from_slice::<Value>(text) {
        Err(error) => error,
        Ok(_) => return Fault::Unfinished,
    };
    match error.classify() {
        Category::Eof if last => Fault::Cut { bytes: text.len() },
        Category::Eof if text.starts_with(b"[") => Fault::Array,
        Category::Eof => Fault::Unfinished,
        _ => Fault::Json { what: words(&error), column: error.column() },
    }
}

/// Index of `column[index]`.
fn cell(field: &str) -> Option<u64> {
    field.split(['[', ']']).nth(1)?.parse().ok()
}

/// The parser's words without its position.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

pub(super) fn newer(found: u64) -> Result<(), Fault> {
    if found > u64::from(SCHEMA) {
        return Err(Fault::Newer { found, known: SCHEMA });
    }
    Ok(())
}

/// A schema that no record type accepts is reported before any other fault of shape.
fn schema(row: &Map<String, Value>) -> Result<(), Fault> {
    match row.get("schema") {
        None => Ok(()),
        Some(value) => match value.as_u64() {
            Some(found) => newer(found),
            None => Err(Fault::Schema { found: value.to_string(), known: SCHEMA }),
        },
    }
}

/// Why a JSON object is no `T`, with the field's path, or what it is instead.
fn shape<T: Record>(row: Map<String, Value>) -> String {
    let has = |name: &str| row.contains_key(name);
    let like = if has("strategy") && has("first") {
        Some(Kind::Selection)
    } else if (has("answer") && has("first")) || (has("chosen") && has("rejected")) {
        Some(Kind::Preference)
    } else if has("completions") {
        Some(Kind::Prompt)
    } else {
        None
    };
    match like {
        Some(like) if like != T::KIND => {
            format!("it looks like a {} record; name a file of {} records", like.name(), T::KIND.name())
        }
        _ => match import::typed::<T>(Value::Object(row)) {
            Err(what) => what,
            Ok(_) => "the fields do not fit".into(),
        },
    }
}
