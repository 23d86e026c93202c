//! What goes wrong with a file, where, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::check::Kind;

/// A position within a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The file as a whole.
    File,
    /// A 1-based line.
    Line(u64),
    /// A 1-based row of a table (Parquet, files of columns).
    Row(u64),
}

/// A fault of one file: displays as `path:line: what is wrong; what to do`.
#[derive(Debug, thiserror::Error)]
#[error("{}{at}: {fault}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Where in the file.
    pub at: At,
    /// What is wrong.
    pub fault: Fault,
}

impl FileError {
    /// Whether the disk is full, or no more of it may be used: no fault of the input.
    pub fn is_full(&self) -> bool {
        matches!(self.fault, Fault::Full { .. })
    }

    pub(crate) fn new(path: &Path, at: At, fault: Fault) -> Self {
        Self { path: path.to_path_buf(), at, fault }
    }

    /// A fault of writing: a full disk is told apart, as its remedy is another one.
    pub(crate) fn writing(path: &Path, error: io::Error) -> Self {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let fault = if full { Fault::Full { error } } else { Fault::Write { error } };
        Self::new(path, At::File, fault)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(f, ":{line}"),
            Self::Row(row) => write!(f, ", row {row}"),
        }
    }
}

/// The kinds of faults.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be opened.
    #[error("cannot be opened: {error}; {}", opening_remedy(error))]
    Open {
        /// The system's error.
        error: io::Error,
    },
    /// The ending says that the file is in a format that is not read or written.
    #[error("files ending in .{extension} are not supported; {remedy}")]
    Format {
        /// The file name's extension.
        extension: String,
        /// How to convert.
        remedy: &'static str,
    },
    /// The bytes contradict the file's ending.
    #[error("this is {found}, which its name does not say; rename it to end in {ending}")]
    Disguised {
        /// What the first bytes are.
        found: &'static str,
        /// The ending that it should have.
        ending: &'static str,
    },
    /// Reading stopped with an error of the system.
    #[error("cannot be read on: {error}; check the disk or copy the file anew")]
    Read {
        /// The system's error.
        error: io::Error,
    },
    /// Compressed data ends too early.
    #[error("the compressed data ends too early: the file looks cut off; copy or make it anew")]
    CutCompressed,
    /// Compressed data is damaged.
    #[error("the compressed data is damaged ({error}); copy or make the file anew")]
    Damaged {
        /// The decoder's words.
        error: io::Error,
    },
    /// A Parquet table is damaged, cut off or of a sort that is not read.
    #[error("the Parquet table cannot be read ({what}); make it anew, with zstd or snappy compression")]
    Table {
        /// The decoder's words.
        what: String,
    },
    /// An Arrow file is damaged, cut off or packed in a way that is not read.
    #[error("the Arrow file cannot be read ({what}); make it anew, uncompressed or with lz4 or zstd")]
    Arrow {
        /// The decoder's words.
        what: String,
    },
    /// There is no record.
    #[error(
        "the file holds no record; check that the step that made it ran to its end, or that this \
         is the right file"
    )]
    Empty,
    /// The last line is incomplete.
    #[error(
        "the file looks cut off here: the last line is incomplete ({bytes} bytes, no newline); \
         copy or make the file anew, or delete this line"
    )]
    Cut {
        /// Length of the incomplete line.
        bytes: usize,
    },
    /// A record goes on over the end of its line.
    #[error(
        "the JSON does not end on this line; records stand one a line: convert with \
         `jq -c . FILE > FILE.jsonl`"
    )]
    Unfinished,
    /// The whole file is one JSON array that is incomplete, or something follows it.
    #[error(
        "the file is one JSON array that does not end where the file ends: it looks cut off, or \
         something follows the closing bracket; copy or make the file anew"
    )]
    CutArray,
    /// The text is in another encoding than UTF-8.
    #[error("the text is {from}, not UTF-8; convert it: `iconv -f {from} -t UTF-8 FILE > NEW`")]
    Encoding {
        /// The encoding, as iconv calls it.
        from: &'static str,
    },
    /// The line is not UTF-8.
    #[error(
        "the line is not UTF-8 text; convert the file with `iconv -f ENCODING -t UTF-8`, ENCODING being what it was \
         written in, often LATIN1 or WINDOWS-1252"
    )]
    NotUtf8,
    /// The line is not JSON.
    #[error("not valid JSON: {what} (column {column}); correct or delete the line")]
    Json {
        /// The parser's words.
        what: String,
        /// 1-based byte column.
        column: usize,
    },
    /// JSON has no NaN and no infinity; other writers put them there nevertheless.
    #[error(
        "{field} is {literal}, which is not a number; find out what made it, then drop the record \
         or leave the field out"
    )]
    NotFinite {
        /// Path of the field, for example `completions[1].logp`.
        field: String,
        /// As written: `NaN`, `-Infinity`.
        literal: String,
    },
    /// The record was written under a later schema.
    #[error("made by a newer Gainsay (schema {found}, this one reads up to {known}); update Gainsay")]
    Newer {
        /// The file's schema.
        found: u64,
        /// The newest schema that this build reads.
        known: u32,
    },
    /// `schema` is no version number.
    #[error("`schema` is {found}, not a version number; write \"schema\":{known}")]
    Schema {
        /// As written.
        found: String,
        /// The schema to write.
        known: u32,
    },
    /// The JSON is no record of the wanted kind.
    #[error("not a {} record: {what}", kind.name())]
    Shape {
        /// The kind that was wanted.
        kind: Kind,
        /// What is missing or wrong, and where.
        what: String,
    },
    /// The record contradicts itself.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and the remedy.
        what: String,
    },
    /// An id appears twice.
    #[error(
        "id `{id}` was already used in {earlier}; ids must be unique in a file: rename or delete \
         one"
    )]
    Duplicate {
        /// The id.
        id: String,
        /// Where it was first.
        earlier: Earlier,
    },
    /// The file cannot be written.
    #[error("cannot be written: {error}; {}", writing_remedy(error))]
    Write {
        /// The system's error.
        error: io::Error,
    },
    /// No room is left.
    #[error("no room to write: {error}; nothing was left behind: free some space and run again")]
    Full {
        /// The system's error.
        error: io::Error,
    },
    /// Someone else is writing the same file.
    #[error("another run is writing this file; wait for it or choose another name")]
    Busy,
}

/// Where an id was seen first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The file, where several are read and it is not the one at fault.
    pub path: Option<PathBuf>,
    /// The place in it.
    pub at: At,
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::File => f.write_str("the file")?,
            At::Line(line) => write!(f, "line {line}")?,
            At::Row(row) => write!(f, "row {row}")?,
        }
        match &self.path {
            Some(path) => write!(f, " of {}", path.display()),
            None => Ok(()),
        }
    }
}

fn opening_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "ask for the right to read it",
        io::ErrorKind::IsADirectory => "name a file inside this folder",
        _ => "check the path and the disk",
    }
}

fn writing_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "choose a folder that you may write to",
        io::ErrorKind::IsADirectory => "this is a folder: name a file",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is a file, not a folder: choose another path"
        }
        io::ErrorKind::BrokenPipe => "its reader is gone",
        _ => "check the path and the disk",
    }
}
