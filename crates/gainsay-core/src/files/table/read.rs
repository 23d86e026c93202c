//! Rows of a Parquet table as the JSON objects that lines would hold.

use std::fs::File;
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field as Cell, Row};
use serde_json::{Map, Number, Value};

use super::columns::{self, Field, Node};
use super::{EXTRA, MESSAGES, SCHEMA_KEY};
use crate::files::error::{At, Fault, FileError};
use crate::files::{Kind, reader};

/// A Parquet table, read page by page.
pub(crate) struct Table {
    rows: RowIter<'static>,
    fields: Vec<Field>,
    number: u64,
}

impl Table {
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self, FileError> {
        let whole = |fault| FileError::new(path, At::File, fault);
        let file = File::open(path).map_err(|error| whole(Fault::Open { error }))?;
        if file.metadata().is_ok_and(|there| there.is_dir()) {
            let error = std::io::ErrorKind::IsADirectory.into();
            return Err(whole(Fault::Open { error }));
        }
        let table = SerializedFileReader::new(file).map_err(|error| whole(damaged(&error)))?;
        version(&table).map_err(whole)?;
        readable(&table).map_err(whole)?;
        let rows = RowIter::from_file_into(Box::new(table));
        Ok(Self { rows, fields: columns::of(kind), number: 0 })
    }

    /// 1-based number of the row that was returned last.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next row; `None` at the end.
    pub(crate) fn advance(&mut self) -> Result<Option<Map<String, Value>>, Fault> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.number += 1;
        let row = row.map_err(|error| damaged(&error))?;
        let object = object(&row).map_err(|odd| {
            let field = odd.path.trim_start_matches('.').to_string();
            Fault::NotFinite { field, literal: odd.literal }
        })?;
        Ok(Some(merge(&self.fields, object)))
    }
}

fn damaged(error: &ParquetError) -> Fault {
    Fault::Table { what: error.to_string() }
}

fn version(table: &SerializedFileReader<File>) -> Result<(), Fault> {
    let pairs = table.metadata().file_metadata().key_value_metadata();
    let pair = pairs.into_iter().flatten().find(|pair| pair.key == SCHEMA_KEY);
    let Some(found) = pair.and_then(|pair| pair.value.as_deref()) else { return Ok(()) };
    match found.parse() {
        Ok(found) => reader::newer(found),
        Err(_) => Err(Fault::Table { what: format!("`{SCHEMA_KEY}` is {found:?}, not a number") }),
    }
}

/// Refuses columns that the row reader cannot give as text or numbers.
fn readable(table: &SerializedFileReader<File>) -> Result<(), Fault> {
    let schema = table.metadata().file_metadata().schema_descr();
    let odd = schema.columns().iter().find(|column| {
        let decimal = column.converted_type() == ConvertedType::DECIMAL;
        let half = column.logical_type_ref() == Some(&LogicalType::Float16);
        column.physical_type() == Physical::FIXED_LEN_BYTE_ARRAY && !decimal && !half
    });
    match odd {
        None => Ok(()),
        Some(column) => {
            Err(Fault::Table { what: format!("column {} holds binary data; drop it", column.path().string()) })
        }
    }
}

/// A NaN or an infinity, and where.
struct Odd {
    path: String,
    literal: String,
}

fn object(row: &Row) -> Result<Map<String, Value>, Odd> {
    row.get_column_iter()
        .map(|(name, cell)| match value(cell) {
            Ok(value) => Ok((name.clone(), value)),
            Err(odd) => Err(Odd { path: format!(".{name}{}", odd.path), ..odd }),
        })
        .collect()
}

fn value(cell: &Cell) -> Result<Value, Odd> {
    Ok(match cell {
        Cell::Null => Value::Null,
        Cell::Bool(value) => (*value).into(),
        Cell::Byte(value) => (*value).into(),
        Cell::Short(value) => (*value).into(),
        Cell::Int(value) => (*value).into(),
        Cell::Long(value) => (*value).into(),
        Cell::UByte(value) => (*value).into(),
        Cell::UShort(value) => (*value).into(),
        Cell::UInt(value) => (*value).into(),
        Cell::ULong(value) => (*value).into(),
        Cell::Float(value) => number(f64::from(*value))?,
        Cell::Double(value) => number(*value)?,
        Cell::Str(value) => value.as_str().into(),
        Cell::Bytes(value) => String::from_utf8_lossy(value.data()).into(),
        Cell::Group(row) => Value::Object(object(row)?),
        Cell::ListInternal(list) => {
            let items =
                list.elements().iter().enumerate().map(|(index, cell)| {
                    value(cell).map_err(|odd| Odd { path: format!("[{index}]{}", odd.path), ..odd })
                });
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        // Dates, times, decimals, maps: fields that no record knows, kept as text.
        other => other.to_string().into(),
    })
}

fn number(value: f64) -> Result<Value, Odd> {
    let odd = || Odd { path: String::new(), literal: value.to_string() };
    Number::from_f64(value).map(Value::Number).ok_or_else(odd)
}

/// Undoes what the writer did to fit an object into columns: null is absent, JSON text is parsed,
/// `messages` is the prompt where there is no text prompt, `extra` holds the unknown fields.
fn merge(fields: &[Field], mut row: Map<String, Value>) -> Map<String, Value> {
    row.retain(|_, value| !value.is_null());
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            let inner = std::mem::take(value);
            *value = merge_value(&field.node, inner);
        }
    }
    let has_turns = fields.iter().any(|field| field.name == MESSAGES);
    if has_turns
        && !row.contains_key("prompt")
        && let Some(turns) = row.remove(MESSAGES)
    {
        row.insert("prompt".into(), turns);
    }
    let has_extra = fields.iter().any(|field| field.name == EXTRA);
    if has_extra
        && row.get(EXTRA).is_some_and(Value::is_object)
        && let Some(Value::Object(extra)) = row.remove(EXTRA)
    {
        row.extend(extra);
    }
    row
}

fn merge_value(node: &Node, value: Value) -> Value {
    match (node, value) {
        (Node::Struct(fields), Value::Object(object)) => Value::Object(merge(fields, object)),
        (Node::List(item), Value::Array(items)) => items.into_iter().map(|value| merge_value(item, value)).collect(),
        (Node::Json, Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => Value::Object(object),
            _ => Value::String(text),
        },
        // Notebooks turn integers into floats where some are missing.
        (Node::U32 | Node::I64, value) => match value.as_f64() {
            Some(float) if value.is_f64() && float.fract() == 0.0 && float.abs() < 2f64.powi(53) => {
                (float as i64).into()
            }
            _ => value,
        },
        (_, value) => value,
    }
}
