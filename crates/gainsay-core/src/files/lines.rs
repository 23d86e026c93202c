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
    /// Comma- or tab-separated values with a header line, plain or compressed; read only.
    Csv,
    /// Arrow IPC, as a file (Feather) or a stream; read only.
    Arrow,
}

impl Format {
    /// The format that a path's ending names; `.gz`, `.zst`, `.parquet`, `.csv`, `.tsv`, `.arrow`,
    /// `.feather`, else plain JSON lines. Endings of table and archive formats that are not read
    /// are refused with the remedy.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let extension = extension(path);
        let remedy = match extension.as_str() {
            "gz" | "zst" if matches!(Self::inner_extension(path).as_str(), "csv" | "tsv") => return Ok(Self::Csv),
            "gz" | "zst" => return Ok(Self::packing(path)),
            "parquet" => return Ok(Self::Parquet),
            "csv" | "tsv" => return Ok(Self::Csv),
            "arrow" | "feather" => return Ok(Self::Arrow),
            "xlsx" | "pkl" => {
                "convert it to JSON lines (pandas: df.to_json(path, orient=\"records\", \
                 lines=True)) or to Parquet"
            }
            "bz2" | "xz" | "zip" | "tar" | "tgz" => "unpack it, or pack the file itself with gzip or zstd",
            _ => return Ok(Self::Plain),
        };
        let fault = Fault::Format { extension, remedy };
        Err(FileError::new(path, At::File, fault))
    }

    /// [`Format::of`] for a file that is to be written.
    pub(crate) fn to_write(path: &Path) -> Result<Self, FileError> {
        let remedy = "records are written as .jsonl, .jsonl.gz, .jsonl.zst or .parquet";
        match Self::of(path)? {
            Self::Csv | Self::Arrow => {
                let fault = Fault::Format { extension: extension(path), remedy };
                Err(FileError::new(path, At::File, fault))
            }
            format => Ok(format),
        }
    }

    /// How a file's bytes are packed, by its last ending: gzip, Zstandard or not at all.
    pub(crate) fn packing(path: &Path) -> Self {
        match extension(path).as_str() {
            "gz" => Self::Gzip,
            "zst" => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// A file's ending without that of its packing, in small letters.
    pub(crate) fn inner_extension(path: &Path) -> String {
        match Self::packing(path) {
            Self::Plain => extension(path),
            _ => extension(&path.with_extension("")),
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase()
}

/// Bytes that say what a file is, whatever its name.
const MAGIC: [(&[u8], &str, &str); 4] = [
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", ".zst"),
    (b"PAR1", "a Parquet table", ".parquet"),
    (b"ARROW1", "an Arrow file", ".arrow"),
];
/// Byte-order marks of UTF-16.
const UTF16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Lines of a file, one at a time through one reused buffer.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    compressed: bool,
    buffer: Vec<u8>,
    number: u64,
    ended: bool,
    held: bool,
}

/// The bytes of a file, unpacked.
pub(crate) fn input(path: &Path, packing: Format) -> Result<Box<dyn BufRead + Send>, FileError> {
    let opening = |error| FileError::new(path, At::File, Fault::Open { error });
    let file = File::open(path).map_err(opening)?;
    if file.metadata().map_err(opening)?.is_dir() {
        return Err(opening(io::ErrorKind::IsADirectory.into()));
    }
    let mut raw = BufReader::with_capacity(1 << 18, file);
    Ok(match packing {
        Format::Gzip => Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(raw))),
        Format::Zstd => {
            let decoder = zstd::Decoder::with_buffer(raw).map_err(opening)?;
            Box::new(BufReader::with_capacity(1 << 18, decoder))
        }
        _ => {
            let start = raw.fill_buf().map_err(opening)?;
            if UTF16.iter().any(|mark| start.starts_with(mark)) {
                return Err(FileError::new(path, At::File, Fault::Encoding { from: "UTF-16" }));
            }
            if let Some(&(_, found, ending)) = MAGIC.iter().find(|m| start.starts_with(m.0)) {
                let fault = Fault::Disguised { found, ending };
                return Err(FileError::new(path, At::File, fault));
            }
            Box::new(raw)
        }
    })
}

impl Lines {
    /// Opens a plain or compressed file and skips a byte-order mark.
    pub(crate) fn open(path: &Path, format: Format) -> Result<Self, FileError> {
        Ok(Self {
            input: input(path, format)?,
            compressed: matches!(format, Format::Gzip | Format::Zstd),
            buffer: Vec::new(),
            number: 0,
            ended: false,
            held: false,
        })
    }

    /// Whether no line has been read yet.
    pub(crate) fn is_at_start(&self) -> bool {
        self.number == 0
    }

    /// Keeps the current line: the next [`Lines::advance`] stays on it.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// Reads the next line that is not blank; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, Fault> {
        if std::mem::take(&mut self.held) {
            return Ok(true);
        }
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
