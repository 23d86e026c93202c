//! Cached keys and values.

use gainsay_kernels::attention::{Heads, KvPart};

/// Keys and values of one sequence part, for every layer.
#[derive(Clone, Debug)]
pub(super) struct KvCache {
    layers: Vec<KvPart>,
    len: usize,
}

impl KvCache {
    /// Room for `capacity` tokens, none in use.
    pub fn new(shape: Heads, layers: usize, capacity: usize) -> Self {
        Self { layers: vec![KvPart::new(shape, capacity); layers], len: 0 }
    }

    /// Makes room for one more token.
    pub fn reserve(&mut self) {
        for part in &mut self.layers {
            if part.capacity() == self.len {
                part.grow((2 * self.len).max(1));
            }
        }
    }

    /// Writes layer `layer` of token `position`.
    pub fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        self.layers[layer].write(position, key, value);
    }

    /// Tokens in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says that all layers of the first `len` tokens are written.
    pub fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// A layer.
    pub fn layer(&self, layer: usize) -> &KvPart {
        &self.layers[layer]
    }
}
