//! Long work in units that a kill cannot undo.
//!
//! Records are cut into units by their place in the input alone, so what a unit holds does not
//! depend on when it ran. A finished unit is one line of `<out>.journal`; when the same command
//! runs again, units in the journal are not computed again. The output itself appears whole at
//! the end, and the journal goes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use gainsay_core::files::{self, Reader, Writer};
use gainsay_core::record::PromptRecord;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::progress::{Figures, Progress};
use crate::run::directory::file_digest;

#[derive(Serialize, Deserialize)]
struct Header {
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Unit {
    unit: usize,
    records: Vec<PromptRecord>,
}

/// A stage whose work is cut into units.
pub struct Units<'a> {
    /// Name for the progress bar.
    pub stage: &'a str,
    /// Records to read.
    pub input: &'a Path,
    /// File to write.
    pub out: &'a Path,
    /// Records a unit.
    pub size: usize,
    /// Everything that the result depends on besides the input: options and model digests.
    pub fingerprint: String,
}

impl Units<'_> {
    /// Runs `work` on every unit that is not in the journal; `work` returns the finished records
    /// and the tokens that went through models.
    ///
    /// # Errors
    /// What reading, writing or `work` reports, or Ctrl-C between two units.
    pub fn run(&self, mut work: impl FnMut(Vec<PromptRecord>) -> Result<(Vec<PromptRecord>, u64)>) -> Result<Figures> {
        let total = count_records(self.input)?;
        let fingerprint = format!("{}, input {}", self.fingerprint, digest(self.input)?);
        let path = journal_path(self.out);
        let (finished, end) = finished_units(&path, &fingerprint);
        let mut journal = open_journal(&path, &fingerprint, finished, end)?;
        let mut progress = Progress::new(self.stage, total as u64, "prompts");
        for (index, unit) in chunks(self.input, self.size)?.enumerate() {
            let unit = unit?;
            let count = unit.len() as u64;
            if index < finished {
                progress.skip(count);
                continue;
            }
            interrupt::check()?;
            let (records, tokens) = work(unit)?;
            append(&mut journal, &path, &Unit { unit: index, records })?;
            progress.advance(count, tokens);
        }
        self.publish(&path)?;
        Ok(progress.finish())
    }

    /// Turns the journal into the output file and removes it.
    fn publish(&self, path: &Path) -> Result<()> {
        let fault = |e: std::io::Error| Error::Run(format!("{}: cannot be read: {e}", path.display()));
        let mut writer = Writer::<PromptRecord>::create(self.out)?;
        for line in BufReader::new(File::open(path).map_err(fault)?).lines().skip(1) {
            let unit: Unit = serde_json::from_str(&line.map_err(fault)?)
                .map_err(|e| Error::Run(format!("{}: is damaged ({e}); remove it and run again", path.display())))?;
            for record in &unit.records {
                writer.write(record)?;
            }
        }
        writer.finish()?;
        fs::remove_file(path).map_err(fault)
    }
}

/// The leading units that the journal holds whole, and where they end in it; a journal of other
/// options or another input counts as none.
fn finished_units(path: &Path, fingerprint: &str) -> (usize, u64) {
    let Ok(file) = File::open(path) else { return (0, 0) };
    let mut lines = WholeLines { input: BufReader::new(file) };
    let Some(header) = lines.next() else { return (0, 0) };
    match serde_json::from_slice::<Header>(&header) {
        Ok(found) if found.fingerprint == fingerprint => {}
        _ => return (0, 0),
    }
    let units = lines.map_while(|line| serde_json::from_slice::<Unit>(&line).ok().map(|_| line.len() as u64));
    units.fold((0, header.len() as u64), |(count, end), length| (count + 1, end + length))
}

/// The journal, cut behind its last whole unit, ready to append.
fn open_journal(path: &Path, fingerprint: &str, finished: usize, end: u64) -> Result<File> {
    let fault = |e: std::io::Error| Error::Input(format!("{}: cannot be written: {e}", path.display()));
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(fault)?;
    }
    if finished == 0 {
        let mut file = File::create(path).map_err(fault)?;
        append(&mut file, path, &Header { fingerprint: fingerprint.into() })?;
        return Ok(file);
    }
    let file = fs::OpenOptions::new().append(true).open(path).map_err(fault)?;
    file.set_len(end).map_err(fault)?;
    Ok(file)
}

/// Lines that end in a newline, newline included; a last line without one was cut off by a kill.
struct WholeLines {
    input: BufReader<File>,
}

impl Iterator for WholeLines {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line).ok()?;
        (line.last() == Some(&b'\n')).then_some(line)
    }
}

fn journal_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".journal");
    PathBuf::from(name)
}

fn append<T: Serialize>(file: &mut File, path: &Path, value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|e| Error::Run(e.to_string()))?;
    line.push(b'\n');
    file.write_all(&line)
        .and_then(|()| file.sync_data())
        .map_err(|e| Error::Run(format!("{}: cannot be written: {e}; free some space and run again", path.display())))
}

/// Of the contents of the file, or of each file of a pattern.
fn digest(input: &Path) -> Result<String> {
    let all: Vec<String> = files::expand(input)?.iter().map(|file| file_digest(file)).collect::<Result<_>>()?;
    Ok(all.join("+"))
}

/// Reads the whole file once: bad records are found before any model runs.
fn count_records(input: &Path) -> Result<usize> {
    let mut count = 0;
    for record in Reader::<PromptRecord>::open(input)?.unique_ids() {
        record?;
        count += 1;
    }
    Ok(count)
}

type Chunk = Result<Vec<PromptRecord>>;

/// Consecutive records, `size` at a time.
fn chunks(input: &Path, size: usize) -> Result<impl Iterator<Item = Chunk>> {
    let mut reader = Reader::<PromptRecord>::open(input)?;
    Ok(std::iter::from_fn(move || {
        let chunk: std::result::Result<Vec<_>, _> = reader.by_ref().take(size).collect();
        match chunk {
            Ok(records) if records.is_empty() => None,
            other => Some(other.map_err(Error::from)),
        }
    }))
}
