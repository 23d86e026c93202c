//! Parquet tables of records: real columns for notebooks, the rest as JSON text.

mod columns;
mod read;
mod write;

pub(crate) use read::Table;
pub(crate) use write::TableWriter;

/// Key of the schema version in a table's metadata.
const SCHEMA_KEY: &str = "gainsay.schema";

/// The unknown fields of a record, as JSON text.
const EXTRA: &str = "extra";

/// A prompt's turns; the `prompt` column holds text prompts.
const MESSAGES: &str = "messages";
