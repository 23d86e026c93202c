//! GGUF files of the Llama family: quantized or not, dequantized to f32 on reading.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};

use super::{TensorSource, assemble, check_finite, check_shape, digest};
use crate::config::{self, ModelConfig};
use crate::error::LmError;
use crate::model::{Backbone, ParamId, Part, Proj, Tensor};

/// An open GGUF file.
pub struct GgufFile {
    /// Where it is.
    pub path: PathBuf,
    content: Content,
    reader: BufReader<File>,
}

impl GgufFile {
    /// Reads the header.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        let mut reader = BufReader::new(File::open(path).map_err(LmError::read(path))?);
        let content = Content::read(&mut reader)
            .map_err(|e| LmError::format(path, format!("not a readable GGUF file, or cut off: {}", first_line(&e))))?;
        Ok(Self { path: path.to_path_buf(), content, reader })
    }

    /// A metadata value.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A string of the metadata.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer of the metadata, of any width.
    pub(crate) fn integer(&self, key: &str) -> Option<u64> {
        self.value(key).and_then(integer)
    }

    /// A float of the metadata, of any width.
    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            // The shortest decimal of the f32: 1e-5 rather than 9.99999974e-6.
            Value::F32(x) => x.to_string().parse().ok(),
            Value::F64(x) => Some(*x),
            _ => None,
        }
    }

    /// A boolean of the metadata.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// An array of the metadata, converted element by element; `None` where the key is absent or
    /// an element is of another type.
    pub(crate) fn array<'a, T>(&'a self, key: &str, element: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
        match self.value(key) {
            Some(Value::Array(values)) => values.iter().map(element).collect(),
            _ => None,
        }
    }

    /// Extents of a tensor, outermost first.
    pub(crate) fn tensor_shape(&self, name: &str) -> Option<&[usize]> {
        self.content.tensor_infos.get(name).map(|info| info.shape.dims())
    }

    /// One tensor in f32.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LmError> {
        let path = &self.path;
        let found = self.content.tensor_infos.get(name).map(|info| info.shape.dims());
        let found = found.ok_or_else(|| LmError::tensor(path, name, "is missing"))?;
        check_shape(path, name, found, shape)?;
        let read = self.content.tensor(&mut self.reader, name, &Device::Cpu);
        let data = read.and_then(|t| t.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
        let data = data.map_err(|e| LmError::tensor(path, name, format!("cannot be read: {}", first_line(&e))))?;
        check_finite(path, name, &data)?;
        Ok(Tensor { shape: shape.to_vec(), data })
    }

    /// SHA-256 of the file: the digest of its [`GgufFile::backbone`].
    pub fn digest(&self) -> Result<String, LmError> {
        digest::file(&self.path)
    }

    /// The whole transformer, whose digest is known.
    pub fn backbone(&mut self, digest: String) -> Result<Backbone, LmError> {
        let config = config::gguf::read(self)?;
        let permuted = self.text("general.architecture") == Some("llama");
        let mut source = GgufSource { file: self, config: config.clone(), permuted };
        assemble(config, digest, true, &mut source)
    }
}

/// candle appends a backtrace to its errors where `RUST_BACKTRACE` is set.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A non-negative integer of any width.
pub(crate) fn integer(value: &Value) -> Option<u64> {
    match *value {
        Value::U8(x) => Some(x.into()),
        Value::U16(x) => Some(x.into()),
        Value::U32(x) => Some(x.into()),
        Value::U64(x) => Some(x),
        Value::I8(x) => x.try_into().ok(),
        Value::I16(x) => x.try_into().ok(),
        Value::I32(x) => x.try_into().ok(),
        Value::I64(x) => x.try_into().ok(),
        _ => None,
    }
}

struct GgufSource<'a> {
    file: &'a mut GgufFile,
    config: ModelConfig,
    /// Rows of q and k stand in llama.cpp's rotary order.
    permuted: bool,
}

impl TensorSource for GgufSource<'_> {
    fn read(&mut self, id: ParamId, shape: &[usize]) -> Result<Tensor, LmError> {
        let Some(name) = gguf_name(id) else {
            return Err(LmError::format(&self.file.path, format!("GGUF has no tensor for {id:?}")));
        };
        let tensor = self.file.tensor(&name, shape)?;
        let heads = match id {
            ParamId::Linear(_, Proj::Q, Part::Weight) => self.config.num_heads,
            ParamId::Linear(_, Proj::K, Part::Weight) => self.config.num_kv_heads,
            _ => return Ok(tensor),
        };
        Ok(if self.permuted { undo_permutation(&tensor, heads) } else { tensor })
    }
}

/// llama.cpp's name of a parameter; `None` for what its Llama-like models lack.
fn gguf_name(id: ParamId) -> Option<String> {
    let suffix = |part| {
        if part == Part::Weight { "weight" } else { "bias" }
    };
    let name = match id {
        ParamId::Embed => "token_embd.weight".to_owned(),
        ParamId::LmHead => "output.weight".to_owned(),
        ParamId::FinalNorm(p) => format!("output_norm.{}", suffix(p)),
        ParamId::AttnNorm(l, p) => format!("blk.{l}.attn_norm.{}", suffix(p)),
        ParamId::MlpNorm(l, p) => format!("blk.{l}.ffn_norm.{}", suffix(p)),
        ParamId::QNorm(l) => format!("blk.{l}.attn_q_norm.weight"),
        ParamId::KNorm(l) => format!("blk.{l}.attn_k_norm.weight"),
        ParamId::Linear(l, proj, p) => {
            let module = match proj {
                Proj::Q => "attn_q",
                Proj::K => "attn_k",
                Proj::V => "attn_v",
                Proj::O => "attn_output",
                Proj::Gate => "ffn_gate",
                Proj::Up => "ffn_up",
                Proj::Down => "ffn_down",
                Proj::Qkv => return None,
            };
            format!("blk.{l}.{module}.{}", suffix(p))
        }
        ParamId::LoraA(..) | ParamId::LoraB(..) | ParamId::Head => return None,
    };
    Some(name)
}

/// Puts the rows of q or k back into the half-split rotary order. llama.cpp's converter stores,
/// within each head of d rows, row i of half j (i < d/2, j < 2) at 2 i + j; here it belongs at
/// j d/2 + i.
fn undo_permutation(tensor: &Tensor, heads: usize) -> Tensor {
    let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
    let d = rows / heads;
    let mut data = Vec::with_capacity(tensor.data.len());
    for head in 0..heads {
        for row in 0..d {
            let (half, i) = (row / (d / 2), row % (d / 2));
            let stored = head * d + 2 * i + half;
            data.extend_from_slice(&tensor.data[stored * cols..(stored + 1) * cols]);
        }
    }
    Tensor { shape: tensor.shape.clone(), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_undone_within_each_head() {
        // Two heads of four rows, one column. llama.cpp interleaves the halves (0, 1 | 2, 3) of a
        // head as 0, 2, 1, 3.
        let stored = Tensor { shape: vec![8, 1], data: vec![0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0] };
        let hf = undo_permutation(&stored, 2);
        assert_eq!(hf.data, [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }
}
