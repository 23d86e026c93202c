//! Formats by file ending, and lines out of plain and compressed files.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::error::{At, Fault, FileError};

/// How a file stores its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Plain,
    /// JSON lines, gzip (any number of members).
    Gzip,
    /// JSON lines, Zstandard.
    Zstd,
    /// A Parquet table.
    Parquet,
}

impl Format {
    /// The format that a path's ending names; `.gz`, `.zst`, `.parquet`, else plain JSON lines.
    /// Endings of table and archive formats that are not read are refused with the remedy.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        let remedy = match extension.as_str() {
            "gz" => return Ok(Self::Gzip),
            "zst" => return Ok(Self::Zstd),
            "parquet" => return Ok(Self::Parquet),
            "csv" | "tsv" | "xlsx" | "arrow" | "feather" | "pkl" => {
                "convert it to JSON lines (pandas: df.to_json(path, orient=\"records\", \
                 lines=True)) or to Parquet"
            }
            "bz2" | "xz" | "zip" | "tar" | "tgz" => "unpack it, or pack the file itself with gzip or zstd",
            _ => return Ok(Self::Plain),
        };
        let fault = Fault::Format { extension, remedy };
        Err(FileError::new(path, At::File, fault))
    }
}

/// Bytes that say what a file is, whatever its name.
const MAGIC: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", ".zst"),
    (b"PAR1", "a Parquet table", ".parquet"),
    (b"\xff\xfe", "UTF-16 text: convert it to UTF-8", ".jsonl"),
    (b"\xfe\xff", "UTF-16 text: convert it to UTF-8", ".jsonl"),
];

/// Lines of a file, one at a time through one reused buffer.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    compressed: bool,
    buffer: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Lines {
    /// Opens a plain or compressed file and skips a byte-order mark.
    pub(crate) fn open(path: &Path, format: Format) -> Result<Self, FileError> {
        let opening = |error| FileError::new(path, At::File, Fault::Open { error });
        let file = File::open(path).map_err(opening)?;
        if file.metadata().map_err(opening)?.is_dir() {
            return Err(opening(io::ErrorKind::IsADirectory.into()));
        }
        let mut raw = BufReader::with_capacity(1 << 18, file);
        let input: Box<dyn BufRead + Send> = match format {
            Format::Gzip => Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(raw))),
            Format::Zstd => {
                let decoder = zstd::Decoder::with_buffer(raw).map_err(opening)?;
                Box::new(BufReader::with_capacity(1 << 18, decoder))
            }
            Format::Plain | Format::Parquet => {
                let start = raw.fill_buf().map_err(opening)?;
                if let Some(&(_, found, ending)) = MAGIC.iter().find(|m| start.starts_with(m.0)) {
                    let fault = Fault::Disguised { found, ending };
                    return Err(FileError::new(path, At::File, fault));
                }
                Box::new(raw)
            }
        };
        Ok(Self {
            input,
            compressed: matches!(format, Format::Gzip | Format::Zstd),
            buffer: Vec::new(),
            number: 0,
            ended: false,
        })
    }

    /// Reads the next line that is not blank; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            self.buffer.clear();
            if self.ended {
                return Ok(false);
            }
            self.number += 1;
            let compressed = self.compressed;
            let read = self.input.read_until(b'\n', &mut self.buffer);
            if read.map_err(|error| reading(error, compressed))? == 0 {
                self.ended = true;
                return Ok(false);
            }
            if self.buffer.last() != Some(&b'\n') {
                self.ended = true;
            }
            if !self.text().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The current line without byte-order mark and surrounding white space.
    pub(crate) fn text(&self) -> &[u8] {
        let line = self.buffer.as_slice();
        let line = match self.number {
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        line.trim_ascii()
    }

    /// True when the current line ended without a newline.
    pub(crate) fn is_last_without_newline(&self) -> bool {
        self.ended && !self.buffer.is_empty()
    }

    /// 1-based number of the current line.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The current line and everything after it: for files that are one JSON value.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Fault> {
        let mut whole = self.text().to_vec();
        if !self.ended {
            whole.push(b'\n');
            let compressed = self.compressed;
            self.input.read_to_end(&mut whole).map_err(|error| reading(error, compressed))?;
            self.ended = true;
        }
        Ok(whole)
    }
}

fn reading(error: io::Error, compressed: bool) -> Fault {
    match (compressed, error.kind()) {
        (true, io::ErrorKind::UnexpectedEof) => Fault::CutCompressed,
        (true, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other) => {
            Fault::Damaged { error }
        }
        _ => Fault::Read { error },
    }
}
