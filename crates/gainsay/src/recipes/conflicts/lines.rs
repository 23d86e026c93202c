//! The conflicts of a plain file of scores, several lines at a time, without building records.
//!
//! The same figures as record by record: lines are measured in parallel and taken into the
//! summary in their order. Whatever is not in the plain form ends this pass, and the file is read
//! record by record instead, which also words the errors.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Read;
use std::path::Path;

use gainsay_core::conflict::{
    Annotator, ConflictOptions, Degenerate, GroupOutcome, LengthUnit, LogpKind, SummaryBuilder, Top,
};
use gainsay_core::files::{Format, Record, ScoreLine};
use gainsay_core::record::PromptRecord;
use gainsay_core::rng::Key;
use rayon::prelude::*;

use super::Found;
use crate::error::Result;
use crate::interrupt;

/// Bytes that are read at once. Memory holds three such blocks and their numbers.
const BLOCK: usize = 4 << 20;

/// Least bytes of a parallel piece.
const PIECE: usize = 1 << 19;

/// Measures a file; `None` where it is not plain lines of scores throughout.
///
/// # Errors
/// Ctrl-C.
pub fn measure(input: &Path, options: &ConflictOptions, top: usize) -> Result<Option<Found>> {
    let Some(mut blocks) = Blocks::open(input) else { return Ok(None) };
    let Some(first) = blocks.next() else { return Ok(None) };
    let Some(mut pass) = Pass::start(&first, options, top) else { return Ok(None) };
    let form = pass.form.clone();
    // Three blocks are at work: one is taken in, the next is measured, the one after it is read.
    let (mut measured, mut read) = rayon::join(|| form.measure(first), || blocks.next());
    loop {
        interrupt::check()?;
        let Some(current) = measured else { return Ok(None) };
        let Some(next) = read else {
            let whole = blocks.ended_well && pass.take(current);
            return Ok(whole.then(|| pass.finish()));
        };
        let (ahead, (fits, after)) =
            rayon::join(|| form.measure(next), || rayon::join(|| pass.take(current), || blocks.next()));
        if !fits {
            return Ok(None);
        }
        (measured, read) = (ahead, after);
    }
}

/// A file in blocks that end with a line.
struct Blocks {
    file: File,
    rest: Vec<u8>,
    ended: bool,
    /// False after a reading error.
    ended_well: bool,
}

impl Blocks {
    fn open(input: &Path) -> Option<Self> {
        let plain = matches!(Format::of(input), Ok(Format::Plain));
        let file = plain.then(|| File::open(input).ok()).flatten()?;
        Some(Self { file, rest: Vec::new(), ended: false, ended_well: true })
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut block = std::mem::take(&mut self.rest);
        block.reserve(BLOCK);
        while !self.ended {
            let read = self.file.by_ref().take(BLOCK as u64).read_to_end(&mut block);
            self.ended_well &= read.is_ok();
            self.ended = !matches!(read, Ok(n) if n == BLOCK);
            if let Some(end) = memchr::memrchr(b'\n', &block).filter(|_| !self.ended) {
                self.rest = block.split_off(end + 1);
                break;
            }
        }
        (!block.is_empty()).then_some(block)
    }
}

/// What every line must fit, decided by the first.
#[derive(Clone)]
struct Form {
    options: ConflictOptions,
    unit: LengthUnit,
    /// The bytes of `meta`, which name the models: the same in every line.
    meta: Vec<u8>,
}

/// A block and the numbers of its lines.
struct Measured {
    block: Vec<u8>,
    pieces: Vec<Piece>,
}

/// The numbers of some lines, completion after completion.
#[derive(Default)]
struct Piece {
    rows: Vec<Row>,
    rewards: Vec<f64>,
    logps: Vec<f64>,
    lengths: Vec<f64>,
}

struct Row {
    id: u64,
    line: std::ops::Range<usize>,
    /// Completions with both numbers.
    known: usize,
    /// Completions without.
    unknown: usize,
    outcome: GroupOutcome,
}

impl Form {
    /// Measures a block's lines, in parallel pieces; `None` where one does not fit.
    fn measure(&self, block: Vec<u8>) -> Option<Measured> {
        let count = (block.len() / PIECE).clamp(1, 4 * rayon::current_num_threads());
        let mut ends: Vec<usize> = (1..count).map(|i| line_end(&block, i * block.len() / count)).collect();
        ends.push(block.len());
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let ranges: Vec<_> = starts.zip(&ends).map(|(start, end)| start..*end).collect();
        let pieces = ranges.into_par_iter().map(|range| self.piece(&block, range)).collect::<Option<Vec<_>>>()?;
        Some(Measured { block, pieces })
    }

    fn piece(&self, block: &[u8], range: std::ops::Range<usize>) -> Option<Piece> {
        let (mut piece, mut scores, mut pacs) = (Piece::default(), ScoreLine::default(), Vec::new());
        let mut start = range.start;
        while start < range.end {
            let end = line_end(block, start).min(range.end);
            let line = block[start..end].trim_ascii();
            if !line.is_empty() {
                scores.scan(line)?;
                if line[scores.meta.clone()] != self.meta {
                    return None;
                }
                piece.add(&scores, start..end, self, &mut pacs);
            }
            start = end;
        }
        Some(piece)
    }
}

impl Piece {
    fn add(&mut self, scores: &ScoreLine, line: std::ops::Range<usize>, form: &Form, pacs: &mut Vec<f64>) {
        let first = self.rewards.len();
        for i in 0..scores.rewards.len() {
            let tokens = scores.tokens[i].map(f64::from);
            let logp = match form.options.logp {
                LogpKind::Sum => scores.logps[i],
                LogpKind::MeanPerToken => scores.logps[i].zip(tokens).map(|(logp, n)| logp / n),
            };
            let (Some(reward), Some(logp)) = (scores.rewards[i], logp) else { continue };
            self.rewards.push(reward);
            self.logps.push(logp);
            self.lengths.push(match form.unit {
                LengthUnit::Tokens => tokens.unwrap_or(f64::NAN),
                LengthUnit::Bytes => scores.bytes[i] as f64,
            });
        }
        let known = self.rewards.len() - first;
        let unknown = scores.rewards.len() - known;
        pacs.resize(known.max(pacs.len()), 0.0);
        let outcome = if unknown > 0 {
            Err(Degenerate::MissingValue)
        } else {
            form.options.evaluate(&self.rewards[first..], &self.logps[first..], pacs)
        };
        self.rows.push(Row { id: scores.id, line, known, unknown, outcome });
    }
}

/// Where the line that holds byte `at` ends, its newline included.
fn line_end(block: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &block[at..]).map_or(block.len(), |n| at + n + 1)
}

/// What the lines so far have shown.
struct Pass {
    form: Form,
    summary: SummaryBuilder,
    strongest: Top,
    ids: HashSet<u64, BuildHasherDefault<Identity>>,
}

impl Pass {
    /// Looks at the first line, which the reader of whole records must accept too.
    fn start(block: &[u8], options: &ConflictOptions, top: usize) -> Option<Self> {
        let line = block[..line_end(block, 0)].trim_ascii();
        let mut scores = ScoreLine::default();
        scores.scan(line)?;
        let mut record: PromptRecord = serde_json::from_slice(line).ok()?;
        record.check().ok()?;
        let mut annotator = Annotator::new(*options);
        let _ = annotator.annotate(&mut record);
        annotator.check().ok()?;
        let unit = if scores.tokens.first()?.is_some() { LengthUnit::Tokens } else { LengthUnit::Bytes };
        Some(Self {
            form: Form { options: *options, unit, meta: line[scores.meta].to_vec() },
            summary: SummaryBuilder::new(*options),
            strongest: Top::new(top),
            ids: HashSet::default(),
        })
    }

    /// Takes the lines in, in their order; false where this pass cannot go on.
    fn take(&mut self, measured: Measured) -> bool {
        let Measured { block, pieces } = measured;
        pieces.iter().all(|piece| {
            let mut at = 0;
            piece.rows.iter().all(|row| {
                let values = at..at + row.known;
                at = values.end;
                self.row(&block, piece, row, values)
            })
        })
    }

    fn row(&mut self, block: &[u8], piece: &Piece, row: &Row, values: std::ops::Range<usize>) -> bool {
        if !self.ids.insert(row.id) {
            return false;
        }
        let (rewards, logps) = (&piece.rewards[values.clone()], &piece.logps[values.clone()]);
        self.summary.see_values(rewards, logps, &piece.lengths[values], self.form.unit, &row.outcome);
        self.summary.see_unknown(row.unknown);
        match &row.outcome {
            Ok(conflict) if self.strongest.may_take(conflict) => {
                let Ok(mut record) = serde_json::from_slice::<PromptRecord>(&block[row.line.clone()]) else {
                    return false;
                };
                let Ok(conflict) = Annotator::new(self.form.options).annotate(&mut record) else { return false };
                self.strongest.see(&record, &conflict);
                true
            }
            _ => true,
        }
    }

    fn finish(self) -> Found {
        Found { summary: self.summary.finish(Key::new(0, super::PURPOSE)), top: self.strongest.into_sorted() }
    }
}

/// The ids are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
