//! Records into a Parquet table, one row group at a time.

use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use serde_json::{Map, Value};

use super::columns::{self, Field, Node};
use super::{EXTRA, MESSAGES, SCHEMA_KEY};
use crate::files::Kind;
use crate::record::SCHEMA;

/// Bytes of values that are gathered before they are written as one row group.
const GROUP_BYTES: usize = 16 << 20;

/// A Parquet table that is being written; holds one row group in memory.
pub(crate) struct TableWriter {
    writer: SerializedFileWriter<BufWriter<File>>,
    fields: Vec<Field>,
    leaves: Vec<Leaf>,
    bytes: usize,
}

impl TableWriter {
    pub(crate) fn new(kind: Kind, file: BufWriter<File>) -> io::Result<Self> {
        let fields = columns::of(kind);
        let schema = columns::message(kind, &fields).map_err(system)?;
        let level = ZstdLevel::try_new(3).map_err(system)?;
        let version = KeyValue::new(SCHEMA_KEY.to_string(), SCHEMA.to_string());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_key_value_metadata(Some(vec![version]))
            .build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(system)?;
        let mut leaves = Vec::new();
        for field in &fields {
            collect(&field.node, &mut leaves);
        }
        Ok(Self { writer, fields, leaves, bytes: 0 })
    }

    /// Adds a record, given as the JSON object that a line would hold.
    pub(crate) fn write(&mut self, record: Value) -> io::Result<()> {
        let Value::Object(mut row) = record else {
            return Err(io::Error::other("a record is an object"));
        };
        row.remove("schema");
        let row = Value::Object(known(&self.fields, row));
        let mut leaves = self.leaves.iter_mut();
        for field in &self.fields {
            let value = row.get(field.name).filter(|value| !value.is_null());
            let at = Level { def: 0, rep: 0, depth: 0 };
            self.bytes += put(&field.node, field.required, value, at, &mut leaves)?;
        }
        if self.bytes >= GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut group = self.writer.next_row_group().map_err(system)?;
        for leaf in &mut self.leaves {
            let Some(mut column) = group.next_column().map_err(system)? else { break };
            leaf.drain(&mut column).map_err(system)?;
            column.close().map_err(system)?;
        }
        group.close().map_err(system)?;
        self.bytes = 0;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<BufWriter<File>> {
        if self.bytes > 0 {
            self.flush()?;
        }
        self.writer.into_inner().map_err(system)
    }
}

/// The system's own error, where there is one below: a full disk must stay recognizable.
fn system(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

/// The known fields of an object; the unknown ones become its `extra`, and a prompt of turns goes
/// to a column of its own.
fn known(fields: &[Field], object: Map<String, Value>) -> Map<String, Value> {
    let mut row = Map::new();
    let mut unknown = Map::new();
    for (name, value) in object {
        let field = fields.iter().find(|field| field.name == name);
        match (name.as_str(), field.map(|field| &field.node)) {
            ("prompt", Some(_)) if value.is_array() => {
                row.insert(MESSAGES.into(), value);
            }
            (EXTRA | MESSAGES, _) | (_, None) => {
                unknown.insert(name, value);
            }
            (_, Some(node)) => {
                row.insert(name, known_value(node, value));
            }
        }
    }
    if !unknown.is_empty() {
        row.insert(EXTRA.into(), Value::Object(unknown));
    }
    row
}

fn known_value(node: &Node, value: Value) -> Value {
    match (node, value) {
        (Node::Struct(fields), Value::Object(object)) => Value::Object(known(fields, object)),
        (Node::List(item), Value::Array(items)) => items.into_iter().map(|value| known_value(item, value)).collect(),
        (_, value) => value,
    }
}

/// Values of one leaf column with their Dremel levels (Melnik et al. 2010, section 4.1).
struct Leaf {
    values: Values,
    defs: Vec<i16>,
    reps: Vec<i16>,
}

enum Values {
    Text(Vec<ByteArray>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
}

/// Where a value stands: definition level, repetition level, lists around it.
#[derive(Clone, Copy)]
struct Level {
    def: i16,
    rep: i16,
    depth: i16,
}

/// Empty leaves of a node, in the order of the schema's columns.
fn collect(node: &Node, leaves: &mut Vec<Leaf>) {
    let values = match node {
        Node::Text | Node::Json => Values::Text(Vec::new()),
        Node::U32 => Values::I32(Vec::new()),
        Node::I64 => Values::I64(Vec::new()),
        Node::F32 => Values::F32(Vec::new()),
        Node::F64 => Values::F64(Vec::new()),
        Node::Bool => Values::Bool(Vec::new()),
        Node::List(item) => return collect(item, leaves),
        Node::Struct(fields) => {
            return fields.iter().for_each(|field| collect(&field.node, leaves));
        }
    };
    leaves.push(Leaf { values, defs: Vec::new(), reps: Vec::new() });
}

/// Stores a value, or its absence, in the leaves below `node`; returns the bytes it takes.
fn put<'a>(
    node: &Node,
    required: bool,
    value: Option<&Value>,
    mut at: Level,
    leaves: &mut impl Iterator<Item = &'a mut Leaf>,
) -> io::Result<usize> {
    if !required {
        match value {
            None => return Ok(absent(node, at, leaves)),
            Some(_) => at.def += 1,
        }
    }
    match node {
        Node::Struct(fields) => {
            let mut bytes = 0;
            for field in fields {
                let value = value.and_then(|v| v.get(field.name)).filter(|v| !v.is_null());
                bytes += put(&field.node, field.required, value, at, leaves)?;
            }
            Ok(bytes)
        }
        Node::List(item) => {
            let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if items.is_empty() {
                return Ok(absent(item, at, leaves));
            }
            put_items(item, items, at, leaves)
        }
        _ => match (leaves.next(), value) {
            (Some(leaf), Some(value)) => leaf.push(node, value, at),
            _ => Err(io::Error::other("a required value is missing")),
        },
    }
}

/// Stores the items of a list: each starts again at the list's first leaf.
fn put_items<'a>(
    item: &Node,
    items: &[Value],
    at: Level,
    leaves: &mut impl Iterator<Item = &'a mut Leaf>,
) -> io::Result<usize> {
    let mut own: Vec<&mut Leaf> = leaves.take(width(item)).collect();
    let mut bytes = 0;
    for (index, value) in items.iter().enumerate() {
        let depth = at.depth + 1;
        let rep = if index == 0 { at.rep } else { depth };
        let level = Level { def: at.def + 1, rep, depth };
        let mut again: Box<dyn Iterator<Item = &mut Leaf>> = Box::new(own.iter_mut().map(|leaf| &mut **leaf));
        bytes += put(item, true, Some(value), level, &mut again)?;
    }
    Ok(bytes)
}

/// Number of leaves below a node.
fn width(node: &Node) -> usize {
    match node {
        Node::List(item) => width(item),
        Node::Struct(fields) => fields.iter().map(|field| width(&field.node)).sum(),
        _ => 1,
    }
}

/// Marks every leaf below `node` as absent here.
fn absent<'a>(node: &Node, at: Level, leaves: &mut impl Iterator<Item = &'a mut Leaf>) -> usize {
    let width = width(node);
    for leaf in leaves.take(width) {
        leaf.defs.push(at.def);
        leaf.reps.push(at.rep);
    }
    4 * width
}

impl Leaf {
    fn push(&mut self, node: &Node, value: &Value, at: Level) -> io::Result<usize> {
        let odd = || io::Error::other(format!("{value} does not fit its column"));
        let size = match &mut self.values {
            Values::Text(values) => {
                let text = match (node, value) {
                    (Node::Json, value) => value.to_string(),
                    (_, value) => value.as_str().ok_or_else(odd)?.to_string(),
                };
                values.push(text.as_str().into());
                text.len()
            }
            Values::I32(values) => {
                let value = value.as_u64().and_then(|v| u32::try_from(v).ok()).ok_or_else(odd)?;
                // Unsigned columns store the same 32 bits.
                values.push(value.cast_signed());
                4
            }
            Values::I64(values) => {
                values.push(value.as_i64().ok_or_else(odd)?);
                8
            }
            Values::F32(values) => {
                values.push(value.as_f64().ok_or_else(odd)? as f32);
                4
            }
            Values::F64(values) => {
                values.push(value.as_f64().ok_or_else(odd)?);
                8
            }
            Values::Bool(values) => {
                values.push(value.as_bool().ok_or_else(odd)?);
                1
            }
        };
        self.defs.push(at.def);
        self.reps.push(at.rep);
        Ok(size + 4)
    }

    /// Writes the gathered values to a column and empties the leaf.
    fn drain(&mut self, column: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = (Some(self.defs.as_slice()), Some(self.reps.as_slice()));
        match &mut self.values {
            Values::Text(values) => {
                column.typed::<ByteArrayType>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::I32(values) => {
                column.typed::<Int32Type>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::I64(values) => {
                column.typed::<Int64Type>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::F32(values) => {
                column.typed::<FloatType>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::F64(values) => {
                column.typed::<DoubleType>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
            Values::Bool(values) => {
                column.typed::<BoolType>().write_batch(values, levels.0, levels.1)?;
                values.clear();
            }
        }
        self.defs.clear();
        self.reps.clear();
        Ok(())
    }
}
