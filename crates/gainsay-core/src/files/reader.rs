//! Streaming reader of record files.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::vec;

use serde_json::error::Category;
use serde_json::{Map, Value};

use super::check::{Kind, Record};
use super::error::{At, Earlier, Fault, FileError};
use super::expand::expand;
use super::nonfinite;
use super::rows::{Row, Rows};
use crate::import::{self, ColumnMap, Gather};
use crate::record::SCHEMA;

/// Iterates over the records of a file, or of all files that match a pattern (`run/*.parquet`),
/// one after the other; stops after the first error.
///
/// One line is held at a time, so memory does not grow with the file, with three exceptions:
/// [`Reader::unique_ids`] keeps 16 bytes a record, and files of columns, of one JSON array and of
/// rows that are gathered by prompt are read whole. A file without any record is an error, as it
/// is most often a step that failed.
pub struct Reader<T> {
    path: PathBuf,
    /// Files that follow.
    further: VecDeque<PathBuf>,
    /// Files that are done.
    read: Vec<PathBuf>,
    map: Option<ColumnMap>,
    rows: Source<T>,
    /// Further records of the row that was read last.
    pending: VecDeque<T>,
    /// Records of this file, and of all files.
    count: u64,
    total: u64,
    /// Rows of all files: what a row without an id is named by.
    row: u64,
    seen: Option<HashMap<u64, (u32, u64), BuildHasherDefault<DefaultHasher>>>,
    done: bool,
}

/// Why answers make no preferences.
const NO_GOLD: &str = "the completions have no gold labels to compare them by";

enum Source<T> {
    /// Not opened yet.
    Closed,
    Rows(Rows),
    Columns(vec::IntoIter<T>),
    Gathered {
        records: vec::IntoIter<(At, T)>,
        at: At,
    },
}

impl<T: Record> Reader<T> {
    /// Opens a file in the format that its ending names, or the files that match a pattern.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        Self::open_mapped(path, None)
    }

    /// [`Reader::open`] for plain tables whose columns have names of their own.
    pub fn open_mapped(path: impl AsRef<Path>, map: Option<&ColumnMap>) -> Result<Self, FileError> {
        let mut further = VecDeque::from(expand(path.as_ref())?);
        let path = further.pop_front().unwrap_or_default();
        let rows = Source::Rows(Rows::open(&path, T::KIND)?);
        let map = map.cloned();
        let (read, pending) = (Vec::new(), VecDeque::new());
        Ok(Self { path, further, read, map, rows, pending, count: 0, total: 0, row: 0, seen: None, done: false })
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
            Source::Closed => At::File,
            Source::Rows(rows) => rows.at(),
            Source::Columns(_) => At::Row(self.count),
            Source::Gathered { at, .. } => *at,
        }
    }

    /// The file that the record that was returned last stands in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<Option<T>, Fault> {
        loop {
            match self.next_of_file()? {
                Some(record) => return self.accept(record).map(Some),
                None if self.count == 0 => return Err(Fault::Empty),
                None => {}
            }
            let Some(next) = self.further.pop_front() else { return Ok(None) };
            self.read.push(std::mem::replace(&mut self.path, next));
            (self.rows, self.count, self.row) = (Source::Closed, 0, self.row.max(self.total));
            self.rows = Source::Rows(Rows::open(&self.path, T::KIND).map_err(|error| error.fault)?);
        }
    }

    fn next_of_file(&mut self) -> Result<Option<T>, Fault> {
        match &mut self.rows {
            Source::Closed => Ok(None),
            Source::Columns(records) => Ok(records.next()),
            Source::Gathered { .. } => self.next_of_gathered(),
            Source::Rows(_) if self.count == 0 => self.first_of_file(),
            Source::Rows(_) => self.next_of_rows(),
        }
    }

    fn next_of_rows(&mut self) -> Result<Option<T>, Fault> {
        let first = self.count == 0;
        while self.pending.is_empty() {
            let Source::Rows(rows) = &mut self.rows else { return Ok(None) };
            let Some(row) = rows.advance()? else {
                // Rows there were, as the first is read elsewhere.
                let nothing = || Fault::Shape { kind: T::KIND, what: NO_GOLD.into() };
                return if first { Err(nothing()) } else { Ok(None) };
            };
            self.row += 1;
            self.pending.extend(records(row, self.row)?);
        }
        Ok(self.pending.pop_front())
    }

    /// The first record decides whether the rest are records of their own.
    fn first_of_file(&mut self) -> Result<Option<T>, Fault> {
        let Source::Rows(rows) = &mut self.rows else { return Ok(None) };
        let Some(row) = rows.advance()? else { return Ok(None) };
        if let Row::Text(text, _) = &row
            && T::starts_columns(text)
        {
            return self.columns();
        }
        let object = match &row {
            Row::Object(object) => Some(object.clone()),
            Row::Text(text, _) => serde_json::from_slice(text).ok(),
        };
        match object.filter(|_| T::GATHERS).and_then(|first| Some((Gather::of(&first, self.map.as_ref())?, first))) {
            Some((gather, first)) => self.gather(gather, first),
            None => {
                self.row += 1;
                self.pending.extend(records(row, self.row)?);
                self.next_of_rows()
            }
        }
    }

    /// Reads a table with one completion a row, from its first row on.
    fn gather(&mut self, mut gather: Gather, first: Map<String, Value>) -> Result<Option<T>, Fault> {
        let Source::Rows(rows) = &mut self.rows else { return Ok(None) };
        let place = |at: At| match at {
            At::Line(number) | At::Row(number) => number,
            At::File => 0,
        };
        gather.add(place(rows.at()), first);
        while let Some(row) = rows.advance()? {
            let row = match row {
                Row::Object(object) => object,
                Row::Text(text, last) => serde_json::from_slice(text).map_err(|_| broken(text, last))?,
            };
            gather.add(place(rows.at()), row);
        }
        let is_line = matches!(rows.at(), At::Line(_));
        let at = |number: u64| if is_line { At::Line(number) } else { At::Row(number) };
        let (records, fault) = match gather.finish(self.total) {
            Ok(records) => (records, None),
            Err((number, what)) => (Vec::new(), Some((at(number), what))),
        };
        let first = records.first().map_or(At::File, |(number, _)| at(*number));
        let records: Vec<(At, T)> = records
            .into_iter()
            .flat_map(|(number, record)| T::gathered(record).into_iter().map(move |made| (at(number), made)))
            .collect();
        if let Some((at, what)) = fault {
            self.rows = Source::Gathered { records: Vec::new().into_iter(), at };
            return Err(Fault::Shape { kind: T::KIND, what });
        }
        if records.is_empty() {
            self.rows = Source::Gathered { records: records.into_iter(), at: first };
            return Err(Fault::Shape { kind: T::KIND, what: NO_GOLD.into() });
        }
        self.rows = Source::Gathered { records: records.into_iter(), at: first };
        self.next_of_gathered()
    }

    fn next_of_gathered(&mut self) -> Result<Option<T>, Fault> {
        let Source::Gathered { records, at } = &mut self.rows else { return Ok(None) };
        Ok(records.next().map(|(place, record)| {
            *at = place;
            record
        }))
    }

    fn accept(&mut self, record: T) -> Result<T, Fault> {
        self.count += 1;
        self.total += 1;
        let at = self.at();
        newer(u64::from(record.schema()))?;
        record.check().map_err(|what| Fault::Invalid { what })?;
        let (At::Line(number) | At::Row(number)) = at else { return Ok(record) };
        let file = self.read.len() as u32;
        if let Some(seen) = &mut self.seen {
            let mut hasher = DefaultHasher::new();
            record.id().hash(&mut hasher);
            if let Some((earlier, number)) = seen.insert(hasher.finish(), (file, number)) {
                let at = match at {
                    At::Row(_) => At::Row(number),
                    _ => At::Line(number),
                };
                let path = self.read.get(earlier as usize).cloned();
                return Err(Fault::Duplicate { id: record.id().to_string(), earlier: Earlier { path, at } });
            }
        }
        Ok(record)
    }

    /// Turns to a file that is one object of columns, or one record over several lines.
    fn columns(&mut self) -> Result<Option<T>, Fault> {
        let Source::Rows(Rows::Lines(lines)) = &mut self.rows else { return Ok(None) };
        let whole = lines.rest()?;
        let Ok(value) = serde_json::from_slice::<Value>(&whole) else {
            let fault = broken(&whole, true);
            if let Fault::NotFinite { field, .. } = &fault {
                self.count = cell(field).map_or(0, |index| index + 1);
                self.rows = Source::Columns(Vec::new().into_iter());
            }
            return Err(fault);
        };
        let columns = value.as_object().and_then(T::from_columns);
        match columns {
            Some(Ok(records)) => {
                let mut records = records.into_iter();
                let first = records.next();
                self.rows = Source::Columns(records);
                Ok(first)
            }
            Some(Err(fault)) => {
                self.rows = Source::Columns(Vec::new().into_iter());
                self.count = fault.row.unwrap_or(0);
                Err(Fault::Invalid { what: fault.what })
            }
            None => Err(Fault::Unfinished),
        }
    }
}

/// The first row of a file, or of the first file that matches a pattern, as a JSON object: to see
/// what the file is. `None` where it is no row by itself: objects of columns, broken JSON.
pub fn first_row(path: impl AsRef<Path>) -> Result<Option<Map<String, Value>>, FileError> {
    let path = expand(path.as_ref())?.swap_remove(0);
    let mut rows = Rows::open(&path, Kind::Prompt)?;
    match rows.advance() {
        Ok(Some(Row::Object(row))) => Ok(Some(row)),
        Ok(Some(Row::Text(text, _))) => Ok(serde_json::from_slice(text).ok()),
        Ok(None) => Err(FileError::new(&path, At::File, Fault::Empty)),
        Err(fault) => Err(FileError::new(&path, rows.at(), fault)),
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

/// Parses a row: our own format first, then the foreign ones.
fn records<T: Record>(row: Row<'_>, number: u64) -> Result<Vec<T>, Fault> {
    let (text, last) = match row {
        Row::Object(object) => {
            return match T::deserialize(&object) {
                Ok(record) if !record.is_foreign() => Ok(vec![record]),
                _ => foreign(object, number),
            };
        }
        Row::Text(text, last) => (text, last),
    };
    match serde_json::from_slice::<T>(text) {
        Ok(record) if !record.is_foreign() => return Ok(vec![record]),
        _ => {}
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(row)) => foreign(row, number),
        Ok(other) => {
            let found: String = other.to_string().chars().take(60).collect();
            Err(Fault::Shape { kind: T::KIND, what: format!("found {found}, expected an object") })
        }
        Err(_) => Err(broken(text, last)),
    }
}

fn foreign<T: Record>(row: Map<String, Value>, number: u64) -> Result<Vec<T>, Fault> {
    schema(&row)?;
    let adopted = T::adopt(&row, number).map(|adopted| adopted.map(|record| vec![record]));
    match adopted.or_else(|| T::spread(&row, number)) {
        Some(adopted) => adopted.map_err(|what| Fault::Shape { kind: T::KIND, what }),
        None => Err(Fault::Shape { kind: T::KIND, what: shape::<T>(row) }),
    }
}

/// Why text that is not JSON is not JSON.
fn broken(text: &[u8], last: bool) -> Fault {
    // A character that the end cuts off is no other encoding.
    if std::str::from_utf8(text).is_err_and(|e| e.error_len().is_some()) {
        return Fault::NotUtf8;
    }
    if let Some((field, literal)) = nonfinite::find(text) {
        return Fault::NotFinite { field, literal: literal.into() };
    }
    let error = match serde_json::from_slice::<Value>(text) {
        Err(error) => error,
        Ok(_) => return Fault::Unfinished,
    };
    match error.classify() {
        Category::Eof if last => Fault::Cut { bytes: text.len() },
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
    } else if has("answer") && has("first")
        || import::DataFormat::of(&row).is_some_and(|(f, _)| f.kind() == Kind::Preference)
    {
        Some(Kind::Preference)
    } else if has("completions") && has("ranking") {
        Some(Kind::Ranking)
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
