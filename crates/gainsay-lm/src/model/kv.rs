//! Cached keys and values.

use gainsay_kernels::attention::{Heads, KvSegment};

/// Keys and values of one sequence part, for every layer.
#[derive(Clone, Debug)]
pub(super) struct KvCache {
    shape: Heads,
    capacity: usize,
    len: usize,
    /// By layer, `[kv_heads, dim, capacity]`.
    keys: Vec<Vec<f32>>,
    /// By layer, `[capacity, kv_heads * dim]`.
    values: Vec<Vec<f32>>,
}

impl KvCache {
    /// Room for `capacity` tokens, none in use.
    pub fn new(shape: Heads, layers: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(KvSegment::LANES);
        let zeros = || vec![vec![0.0; capacity * shape.kv_heads * shape.dim]; layers];
        Self { shape, capacity, len: 0, keys: zeros(), values: zeros() }
    }

    /// Makes room for one more token.
    pub fn reserve(&mut self) {
        if self.len < self.capacity {
            return;
        }
        let (old, new) = (self.capacity, (2 * self.capacity).max(KvSegment::LANES));
        for keys in &mut self.keys {
            let mut wider = vec![0.0; keys.len() / old.max(1) * new];
            for (to, from) in wider.chunks_exact_mut(new).zip(keys.chunks_exact(old.max(1))) {
                to[..old].copy_from_slice(from);
            }
            *keys = wider;
        }
        let width = self.shape.kv_heads * self.shape.dim;
        self.values.iter_mut().for_each(|values| values.resize(new * width, 0.0));
        self.capacity = new;
    }

    /// Writes layer `layer` of token `position`.
    pub fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let slots = self.keys[layer].iter_mut().skip(position).step_by(self.capacity);
        slots.zip(key).for_each(|(slot, k)| *slot = *k);
        self.values[layer][position * value.len()..(position + 1) * value.len()].copy_from_slice(value);
    }

    /// Tokens in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says that all layers of the first `len` tokens are written.
    pub fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// The first `len` tokens of a layer.
    pub fn segment(&self, layer: usize, len: usize) -> KvSegment<'_> {
        KvSegment { keys: &self.keys[layer], values: &self.values[layer], capacity: self.capacity, len }
    }
}
