//! Tensors in one or several safetensors files, read one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{check_finite, check_shape, digest};
use crate::error::{LmError, read_json};
use crate::model::Tensor;

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

/// The tensors of a checkpoint, by name.
pub(crate) struct Store {
    files: Vec<(PathBuf, File)>,
    entries: BTreeMap<String, Entry>,
}

impl Store {
    /// Opens `dir/<stem>.safetensors`, or the shards that `dir/<stem>.safetensors.index.json`
    /// lists.
    pub fn open(dir: &Path, stem: &str) -> Result<Self, LmError> {
        let single = dir.join(format!("{stem}.safetensors"));
        let index = dir.join(format!("{stem}.safetensors.index.json"));
        let mut store = Self { files: Vec::new(), entries: BTreeMap::new() };
        if single.is_file() {
            store.add(single)?;
        } else if index.is_file() {
            store.add_shards(dir, &index)?;
        } else {
            return Err(LmError::NoModel { spec: dir.display().to_string(), problem: missing_weights(dir, stem) });
        }
        Ok(store)
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), LmError> {
        let json = read_json(index)?;
        let map = json.get("weight_map").and_then(|m| m.as_object());
        let map = map.ok_or_else(|| LmError::format(index, "`weight_map` is missing"))?;
        let mut shards = Vec::new();
        for (tensor, shard) in map {
            // A shard is a plain name beside the index; anything else could point outside.
            let name = shard.as_str().filter(|s| Path::new(s).file_name().is_some_and(|f| f == *s));
            let name = name.ok_or_else(|| LmError::format(index, format!("`{tensor}` has no shard's file name")))?;
            if !shards.contains(&name) {
                shards.push(name);
            }
        }
        shards.sort_unstable();
        for shard in shards {
            let path = dir.join(shard);
            if !path.is_file() {
                return Err(LmError::format(
                    index,
                    format!("shard `{shard}` is missing; download it beside the others"),
                ));
            }
            self.add(path)?;
        }
        match map.keys().find(|tensor| !self.entries.contains_key(*tensor)) {
            None => Ok(()),
            Some(t) => Err(LmError::format(index, format!("`{t}` is in none of the shards"))),
        }
    }

    fn add(&mut self, path: PathBuf) -> Result<(), LmError> {
        let mut file = File::open(&path).map_err(LmError::read(&path))?;
        let length = file.metadata().map_err(LmError::read(&path))?.len();
        let (header, metadata) = read_header(&path, &mut file, length)?;
        let expected = header + metadata.data_len() as u64;
        if length != expected {
            let problem = format!("is {length} bytes long, its header promises {expected}: cut off? Copy it again");
            return Err(LmError::format(&path, problem));
        }
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: header + start as u64,
                bytes: end - start,
            };
            self.entries.insert(name, entry);
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The file that holds `name`, or the first one.
    pub fn path_of(&self, name: &str) -> &Path {
        let file = self.entries.get(name).map_or(0, |e| e.file);
        self.files.get(file).map_or(Path::new(""), |(path, _)| path)
    }

    /// One tensor in f32, checked against `shape` and for finite values.
    pub fn read(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LmError> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| LmError::tensor(self.path_of(name), name, "is missing"))?;
        let (path, file) = &mut self.files[entry.file];
        check_shape(path, name, &entry.shape, shape)?;
        let mut bytes = vec![0; entry.bytes];
        file.seek(SeekFrom::Start(entry.start)).map_err(LmError::read(path))?;
        file.read_exact(&mut bytes).map_err(LmError::read(path))?;
        let data = to_f32(&bytes, entry.dtype).ok_or_else(|| {
            let problem = format!("has type {:?}; F32, F16 and BF16 are supported", entry.dtype);
            LmError::tensor(path, name, problem)
        })?;
        check_finite(path, name, &data)?;
        Ok(Tensor { shape: shape.to_vec(), data })
    }

    /// SHA-256 of every file, in name order.
    pub fn digests(&self) -> Result<Vec<String>, LmError> {
        self.files.iter().map(|(path, _)| digest::file(path)).collect()
    }
}

fn missing_weights(dir: &Path, stem: &str) -> String {
    let pickled = dir.join("pytorch_model.bin").is_file() || dir.join("pytorch_model.bin.index.json").is_file();
    match pickled {
        true => "its weights are a PyTorch pickle, which can run code when it is read; save the model with \
                 `save_pretrained(..., safe_serialization=True)` and give that folder"
            .to_owned(),
        false => format!("neither {stem}.safetensors nor {stem}.safetensors.index.json is in the folder"),
    }
}

/// (offset of the data, description of the tensors).
fn read_header(path: &Path, file: &mut File, length: u64) -> Result<(u64, Metadata), LmError> {
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| LmError::format(path, "is too short for a safetensors file"))?;
    let start = u64::from_le_bytes(size).checked_add(8).filter(|&start| start <= length);
    let start = start.ok_or_else(|| LmError::format(path, "not a safetensors file, or cut off within its header"))?;
    let mut header = vec![0; (start - 8) as usize];
    file.read_exact(&mut header).map_err(LmError::read(path))?;
    let metadata = serde_json::from_slice(&header);
    metadata.map(|m| (start, m)).map_err(|e| LmError::format(path, format!("damaged safetensors header: {e}")))
}

fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::F16 => Some(pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_widened_exactly() {
        // 0x3f80 is 1.0 in bf16 (the upper half of f32's 0x3f800000); 0x3c00 is 1.0 in f16.
        assert_eq!(to_f32(&[0x80, 0x3f, 0x20, 0xc0], Dtype::BF16), Some(vec![1.0, -2.5]));
        assert_eq!(to_f32(&[0x00, 0x3c, 0x00, 0xc1], Dtype::F16), Some(vec![1.0, -2.5]));
        assert_eq!(to_f32(&(-2.5f32).to_le_bytes(), Dtype::F32), Some(vec![-2.5]));
        assert_eq!(to_f32(&[0; 8], Dtype::I64), None);
    }
}
