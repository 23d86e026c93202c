//! Attention of single queries over cached keys.

use super::Heads;
use crate::exp::exp;
use crate::gemm::micro::{ROWS, Tile};
use crate::gemm::pack::PANEL;
use crate::isa::vectorized;
use crate::vector::fold;

/// Cached keys and values of one layer of one sequence part, stored as the right operands of the
/// two products of a query.
#[derive(Clone, Debug)]
pub struct KvPart {
    shape: Heads,
    /// Room for keys, a multiple of the panel's width.
    capacity: usize,
    /// `[kv_heads, capacity / PANEL, dim, PANEL]`.
    keys: Vec<f32>,
    /// `[kv_heads, dim / PANEL rounded up, capacity, PANEL]`.
    values: Vec<f32>,
}

impl KvPart {
    /// Room for at least `capacity` tokens.
    pub fn new(shape: Heads, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(PANEL);
        let zeros = |dim| vec![0.0; shape.kv_heads * capacity * dim];
        Self { shape, capacity, keys: zeros(shape.dim), values: zeros(shape.dim.next_multiple_of(PANEL)) }
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Room for at least `capacity` tokens, those written so far kept.
    pub fn grow(&mut self, capacity: usize) {
        let mut wider = Self::new(self.shape, capacity.max(self.capacity));
        let dim = self.shape.dim;
        for (old, new, parts) in [
            (&self.keys, &mut wider.keys, self.shape.kv_heads),
            (&self.values, &mut wider.values, self.shape.kv_heads * dim.div_ceil(PANEL)),
        ] {
            let (from, to) = (old.len() / parts, new.len() / parts);
            (0..parts).for_each(|p| new[p * to..p * to + from].copy_from_slice(&old[p * from..(p + 1) * from]));
        }
        *self = wider;
    }

    /// Writes the key and the value, `[kv_heads * dim]` each, of the token at `position`.
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        assert!(position < self.capacity, "token {position} of {}", self.capacity);
        let dim = self.shape.dim;
        for (h, (key, value)) in key.chunks_exact(dim).zip(value.chunks_exact(dim)).enumerate() {
            let block = (h * self.capacity + position / PANEL * PANEL) * dim + position % PANEL;
            let slots = self.keys[block..].iter_mut().step_by(PANEL);
            slots.zip(key).for_each(|(slot, k)| *slot = *k);
            for (p, value) in value.chunks(PANEL).enumerate() {
                let at = ((h * dim.div_ceil(PANEL) + p) * self.capacity + position) * PANEL;
                self.values[at..at + value.len()].copy_from_slice(value);
            }
        }
    }

    /// 32 keys of a head, `[dim, PANEL]`.
    fn key_panel(&self, kv_head: usize, block: usize) -> &[f32] {
        let size = self.shape.dim * PANEL;
        let at = (kv_head * self.capacity / PANEL + block) * size;
        &self.keys[at..at + size]
    }

    /// 32 dimensions of the first `len` values of a head, `[len, PANEL]`.
    fn value_panel(&self, kv_head: usize, panel: usize, len: usize) -> &[f32] {
        let at = (kv_head * self.shape.dim.div_ceil(PANEL) + panel) * self.capacity * PANEL;
        &self.values[at..at + len * PANEL]
    }
}

/// Memory that is used again from query to query.
#[derive(Clone, Debug, Default)]
pub struct DecodeScratch {
    /// `[dim, queries]`.
    queries: Vec<f32>,
    /// `[queries, keys]`.
    scores: Vec<f32>,
    /// `[keys, queries]`.
    weights: Vec<f32>,
    inverse: Vec<f32>,
}

/// out = softmax(q·kᵀ / sqrt(dim))·v for one query over the first `len` tokens of each part, in
/// order; `q` and `out` are `[heads * dim]`. A query's bits depend on no other query.
pub fn decode_attention(
    shape: Heads,
    q: &[f32],
    parts: &[(&KvPart, usize)],
    scratch: &mut DecodeScratch,
    out: &mut [f32],
) {
    let group = shape.group();
    for kv_head in 0..shape.kv_heads {
        for first in (0..group).step_by(ROWS) {
            let count = ROWS.min(group - first);
            let from = (kv_head * group + first) * shape.dim;
            let span = from..from + count * shape.dim;
            scratch.heads(shape, kv_head, &q[span.clone()], parts, &mut out[span]);
        }
    }
}

impl DecodeScratch {
    /// At most [`ROWS`] query heads of one key head.
    fn heads(&mut self, shape: Heads, kv_head: usize, q: &[f32], parts: &[(&KvPart, usize)], out: &mut [f32]) {
        let (dim, height, scale) = (shape.dim, q.len() / shape.dim, shape.scale());
        self.queries.clear();
        self.queries.resize(dim * height, 0.0);
        for (lane, q) in q.chunks_exact(dim).enumerate() {
            let slots = self.queries.iter_mut().skip(lane).step_by(height);
            slots.zip(q).for_each(|(slot, q)| *slot = q * scale);
        }
        let width: usize = parts.iter().map(|(_, len)| len.next_multiple_of(PANEL)).sum();
        self.scores.resize(height * width, 0.0);
        let mut at = 0;
        for (part, len) in parts {
            for block in 0..len.div_ceil(PANEL) {
                let b = part.key_panel(kv_head, block);
                let tile = Tile { a: &self.queries, height, b, width: PANEL, accumulate: false, ahead: &[] };
                tile.run_in(&mut self.scores[at..], width);
                let used = PANEL.min(len - block * PANEL);
                for row in self.scores.chunks_exact_mut(width) {
                    row[at + used..at + PANEL].fill(f32::NEG_INFINITY);
                }
                at += PANEL;
            }
        }
        self.inverse.resize(height, 0.0);
        for (row, inverse) in self.scores.chunks_exact_mut(width).zip(&mut self.inverse) {
            *inverse = softmax(row);
        }
        self.mix(shape, kv_head, parts, width, out);
    }

    /// out = weights · values / their sum.
    fn mix(&mut self, shape: Heads, kv_head: usize, parts: &[(&KvPart, usize)], width: usize, out: &mut [f32]) {
        let (dim, height) = (shape.dim, self.inverse.len());
        let mut at = 0;
        for (i, (part, len)) in parts.iter().enumerate() {
            self.weights.resize(len * height, 0.0);
            for (row, lane) in self.scores.chunks_exact(width).zip(0..) {
                let slots = self.weights.iter_mut().skip(lane).step_by(height);
                slots.zip(&row[at..at + len]).for_each(|(slot, weight)| *slot = *weight);
            }
            for p in 0..dim.div_ceil(PANEL) {
                let (b, width) = (part.value_panel(kv_head, p, *len), PANEL.min(dim - p * PANEL));
                let tile = Tile { a: &self.weights, height, b, width, accumulate: i > 0, ahead: &[] };
                tile.run_in(&mut out[p * PANEL..], dim);
            }
            at += len.next_multiple_of(PANEL);
        }
        for (out, inverse) in out.chunks_exact_mut(dim).zip(&self.inverse) {
            out.iter_mut().for_each(|value| *value *= inverse);
        }
    }
}

#[inline(always)]
fn softmax_body<const FMA: bool>(scores: &mut [f32]) -> f32 {
    const LANES: usize = 16;
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks_exact(LANES) {
        for l in 0..LANES {
            most[l] = if most[l] > chunk[l] { most[l] } else { chunk[l] };
        }
    }
    let mut largest = most[0];
    for m in most {
        largest = if largest > m { largest } else { m };
    }
    let mut sums = [0f32; LANES];
    for chunk in scores.chunks_exact_mut(LANES) {
        for l in 0..LANES {
            chunk[l] = exp::<FMA>(chunk[l] - largest);
            sums[l] += chunk[l];
        }
    }
    1.0 / fold(sums)
}
vectorized! {
    /// Exponentials of the scores less the largest, in place; 1 / their sum. A multiple of 16
    /// scores.
    fn softmax(scores: &mut [f32]) -> f32 = softmax_body
}
