//! What a reward head reads: rows of the model, one feature vector a sequence, kept so that they
//! are computed once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::LmError;
use crate::model::{Mat, Model};
use crate::reward::{FeatureKind, features_of};
use crate::sequence::Sequence;

/// One part of a feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Which rows.
    pub kind: FeatureKind,
    /// Layers that have run; `None` is after the final norm.
    pub layer: Option<usize>,
}

impl Read {
    /// The last real token after the final norm: what transformers' reward models read.
    pub const LAST: Self = Self { kind: FeatureKind::LastToken, layer: None };
}

/// Feature vectors of sequences, `[sequences, reads x hidden]`: the parts of `reads` one after the
/// other.
///
/// # Errors
/// What a device reports.
pub fn read_features(
    model: &Model,
    sequences: &[Sequence],
    reads: &[Read],
    batch_tokens: usize,
) -> Result<Mat, LmError> {
    let of = |read: &Read| features_of(model, sequences, read.kind, read.layer, batch_tokens);
    let parts = reads.iter().map(of).collect::<Result<Vec<Mat>, _>>()?;
    if parts.len() == 1 {
        return Ok(parts.into_iter().next().unwrap_or_else(|| Mat::zeros(0, 0)));
    }
    let width = parts.iter().map(|p| p.cols).sum();
    let mut data = Vec::with_capacity(sequences.len() * width);
    for row in 0..sequences.len() {
        parts.iter().for_each(|part| data.extend_from_slice(part.row(row)));
    }
    Ok(Mat { rows: sequences.len(), cols: width, data })
}

type Key = [u8; 32];

/// Features by what they were computed from: model, reads, tokens. In memory, and in a folder
/// where one is given, which grows as sequences are added and serves later processes.
#[derive(Debug, Default)]
pub struct FeatureCache {
    dir: Option<PathBuf>,
    /// Of the model and reads at hand; empty before the first.
    name: String,
    known: HashMap<Key, Vec<f32>>,
}

impl FeatureCache {
    /// A cache that lasts as long as the process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// A cache in a folder, which is made where it is missing.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn in_folder(dir: &Path) -> Result<Self, LmError> {
        fs::create_dir_all(dir).map_err(LmError::write(dir))?;
        Ok(Self { dir: Some(dir.to_path_buf()), ..Self::default() })
    }

    /// Turns to a model, by its identity (name, digest, number format), and to what is read.
    ///
    /// # Errors
    /// A file that cannot be read. One whose end is missing is read up to there.
    pub fn open(&mut self, identity: &str, reads: &[Read], width: usize) -> Result<(), LmError> {
        let digest = Sha256::digest(format!("{identity} {reads:?}").as_bytes());
        let name: String = digest.iter().take(12).map(|b| format!("{b:02x}")).collect();
        if name == self.name {
            return Ok(());
        }
        self.name = name;
        self.known.clear();
        let Some(path) = self.file().filter(|path| path.is_file()) else { return Ok(()) };
        let bytes = fs::read(&path).map_err(LmError::read(&path))?;
        let entry = 32 + 4 * width;
        for chunk in bytes.chunks_exact(entry) {
            let (key, row) = chunk.split_at(32);
            let row = row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            self.known.insert(key.try_into().unwrap_or_default(), row);
        }
        if bytes.len() % entry != 0 {
            // A kill cut the last entry off; the next one begins where it began.
            let whole = (bytes.len() - bytes.len() % entry) as u64;
            let file = OpenOptions::new().write(true).open(&path).map_err(LmError::write(&path))?;
            file.set_len(whole).map_err(LmError::write(&path))?;
        }
        Ok(())
    }

    fn file(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{}.features", self.name)))
    }

    /// How many different ones of the sequences are not known yet.
    pub fn missing(&self, sequences: &[Sequence]) -> usize {
        sequences.iter().map(key).filter(|key| !self.known.contains_key(key)).collect::<HashSet<_>>().len()
    }

    /// Features of the sequences, of which those not known yet are computed by `compute`, in
    /// order, in lots; returns them and how many were computed.
    ///
    /// # Errors
    /// What `compute` reports, and a file that cannot be written.
    pub fn rows(
        &mut self,
        sequences: &[Sequence],
        width: usize,
        mut compute: impl FnMut(&[Sequence]) -> Result<Mat, LmError>,
    ) -> Result<(Mat, usize), LmError> {
        let keys: Vec<Key> = sequences.iter().map(key).collect();
        // The same completion may be a side of several pairs.
        let mut seen = HashSet::new();
        let missing: Vec<usize> =
            (0..keys.len()).filter(|i| !self.known.contains_key(&keys[*i]) && seen.insert(&keys[*i])).collect();
        for lot in missing.chunks(64) {
            let new: Vec<Sequence> = lot.iter().map(|i| sequences[*i].clone()).collect();
            let features = compute(&new)?;
            for (row, i) in lot.iter().enumerate() {
                self.known.insert(keys[*i], features.row(row).to_vec());
            }
            self.append(lot.iter().map(|i| &keys[*i]))?;
        }
        let mut data = Vec::with_capacity(keys.len() * width);
        keys.iter().filter_map(|key| self.known.get(key)).for_each(|row| data.extend_from_slice(row));
        Ok((Mat { rows: keys.len(), cols: width, data }, missing.len()))
    }

    /// Adds features that were computed elsewhere, by the sequences' order.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn put(
        &mut self,
        sequences: &[Sequence],
        mut row: impl FnMut(usize) -> Option<Vec<f32>>,
    ) -> Result<(), LmError> {
        let mut new = Vec::new();
        for (i, sequence) in sequences.iter().enumerate() {
            let (key, row) = (key(sequence), row(i));
            if let (false, Some(row)) = (self.known.contains_key(&key), row) {
                self.known.insert(key, row);
                new.push(key);
            }
        }
        self.append(new.iter())
    }

    fn append<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Result<(), LmError> {
        let Some(path) = &self.file() else { return Ok(()) };
        let open = |path: &Path| -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(path) };
        let write = |file: File| -> std::io::Result<()> {
            let mut out = BufWriter::new(file);
            for key in keys {
                out.write_all(key)?;
                for value in self.known.get(key).into_iter().flatten() {
                    out.write_all(&value.to_le_bytes())?;
                }
            }
            out.flush()
        };
        open(path).and_then(write).map_err(LmError::write(path))
    }
}

fn key(sequence: &Sequence) -> Key {
    let mut hasher = Sha256::new();
    hasher.update((sequence.prompt_len as u64).to_le_bytes());
    sequence.tokens.iter().for_each(|t| hasher.update(t.to_le_bytes()));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(tokens: &[u32]) -> Sequence {
        Sequence { tokens: tokens.to_vec(), prompt_len: 1, truncated: false }
    }

    fn compute(new: &[Sequence]) -> Result<Mat, LmError> {
        let data = new.iter().flat_map(|s| [s.tokens.len() as f32, s.tokens[0] as f32]).collect();
        Ok(Mat { rows: new.len(), cols: 2, data })
    }

    #[test]
    fn what_is_known_is_not_computed_again_also_in_another_process_and_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Sequence> = (0..100).map(|i| sequence(&[i, i + 1])).collect();
        let open = || {
            let mut cache = FeatureCache::in_folder(dir.path()).unwrap();
            cache.open("model", &[Read::LAST], 2).unwrap();
            cache
        };
        let (first, computed) = open().rows(&all[..70], 2, compute).unwrap();
        assert_eq!((computed, first.row(3)), (70, [2.0, 3.0].as_slice()));
        let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
        // The cut entry and the new ones are computed; the others are as they were.
        let (again, computed) = open().rows(&all, 2, compute).unwrap();
        assert_eq!(computed, 31);
        assert_eq!(again.data[..140], first.data[..]);
        assert_eq!(open().rows(&all, 2, compute).unwrap().1, 0);
        let twice = [sequence(&[500, 1]), sequence(&[500, 1])];
        let (rows, computed) = open().rows(&twice, 2, compute).unwrap();
        assert_eq!((rows.data, computed), (vec![2.0, 500.0, 2.0, 500.0], 1));
        // Another model, or other rows of it, has its own file.
        let mut other = FeatureCache::in_folder(dir.path()).unwrap();
        other.open("another", &[Read::LAST], 2).unwrap();
        assert_eq!(other.rows(&all, 2, compute).unwrap().1, 100);
    }

    #[test]
    fn a_cache_in_memory_keeps_models_apart_too() {
        let mut cache = FeatureCache::in_memory();
        for (model, missing) in [("a", 1), ("b", 1), ("b", 0)] {
            cache.open(model, &[Read::LAST], 2).unwrap();
            assert_eq!(cache.rows(&[sequence(&[1])], 2, compute).unwrap().1, missing, "{model}");
        }
    }
}
