//! Attention of single queries over cached keys.

use super::Heads;
use crate::exp::exp;
use crate::isa::{madd, vectorized};

/// Cached keys and values of one sequence part.
#[derive(Clone, Copy, Debug)]
pub struct KvSegment<'a> {
    /// `[kv_heads, dim, capacity]`: transposed, so that neighboring keys are neighboring lanes.
    pub keys: &'a [f32],
    /// `[capacity, kv_heads * dim]`.
    pub values: &'a [f32],
    /// Room for keys; a multiple of [`KvSegment::LANES`].
    pub capacity: usize,
    /// Keys in use.
    pub len: usize,
}

impl KvSegment<'_> {
    /// Capacities are multiples of this.
    pub const LANES: usize = 16;
}

/// Most query heads that share a pass over the keys.
const GROUP: usize = 4;

/// out = softmax(q·kᵀ / sqrt(dim))·v for one query over all keys of `segments` in order; `q` and
/// `out` are `[heads * dim]`. A query's bits depend on no other query.
pub fn decode_attention(shape: Heads, q: &[f32], segments: &[KvSegment], scratch: &mut Vec<f32>, out: &mut [f32]) {
    let group = shape.group();
    for kv_head in 0..shape.kv_heads {
        for first in (0..group).step_by(GROUP) {
            let count = GROUP.min(group - first);
            let from = (kv_head * group + first) * shape.dim;
            let span = from..from + count * shape.dim;
            heads(shape, kv_head, &q[span.clone()], segments, scratch, &mut out[span]);
        }
    }
}

#[inline(always)]
fn heads_body<const FMA: bool>(
    shape: Heads,
    kv_head: usize,
    q: &[f32],
    segments: &[KvSegment],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    match q.len() / shape.dim {
        1 => heads_of::<1, FMA>(shape, kv_head, q, segments, scratch, out),
        2 => heads_of::<2, FMA>(shape, kv_head, q, segments, scratch, out),
        3 => heads_of::<3, FMA>(shape, kv_head, q, segments, scratch, out),
        _ => heads_of::<4, FMA>(shape, kv_head, q, segments, scratch, out),
    }
}
vectorized! {
    /// At most [`GROUP`] query heads of one key head.
    fn heads(
        shape: Heads,
        kv_head: usize,
        q: &[f32],
        segments: &[KvSegment],
        scratch: &mut Vec<f32>,
        out: &mut [f32],
    ) = heads_body
}

#[inline(always)]
fn heads_of<const G: usize, const FMA: bool>(
    shape: Heads,
    kv_head: usize,
    q: &[f32],
    segments: &[KvSegment],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    const LANES: usize = KvSegment::LANES;
    let dim = shape.dim;
    let width: usize = segments.iter().map(|s| s.len.next_multiple_of(LANES)).sum();
    scratch.clear();
    scratch.resize(G * width, f32::NEG_INFINITY);
    let mut at = 0;
    for segment in segments {
        let keys = &segment.keys[kv_head * dim * segment.capacity..(kv_head + 1) * dim * segment.capacity];
        for from in (0..segment.len).step_by(LANES) {
            let mut sums = [[0f32; LANES]; G];
            for (d, row) in keys.chunks_exact(segment.capacity).enumerate() {
                let row = &row[from..from + LANES];
                for (g, sums) in sums.iter_mut().enumerate() {
                    let q = q[g * dim + d];
                    for l in 0..LANES {
                        sums[l] = madd::<FMA>(q, row[l], sums[l]);
                    }
                }
            }
            let used = LANES.min(segment.len - from);
            for (g, sums) in sums.iter().enumerate() {
                let slots = &mut scratch[g * width + at + from..][..used];
                slots.iter_mut().zip(sums).for_each(|(slot, sum)| *slot = sum * shape.scale());
            }
        }
        at += segment.len.next_multiple_of(LANES);
    }
    let mut inverse = [0f32; G];
    for (g, inverse) in inverse.iter_mut().enumerate() {
        *inverse = softmax::<FMA>(&mut scratch[g * width..(g + 1) * width]);
    }
    out.fill(0.0);
    at = 0;
    for segment in segments {
        for j in 0..segment.len {
            let value = &segment.values[(j * shape.kv_heads + kv_head) * dim..][..dim];
            for (g, out) in out.chunks_exact_mut(dim).enumerate() {
                let weight = scratch[g * width + at + j];
                for (out, value) in out.iter_mut().zip(value) {
                    *out = madd::<FMA>(weight, *value, *out);
                }
            }
        }
        at += segment.len.next_multiple_of(LANES);
    }
    for (out, inverse) in out.chunks_exact_mut(dim).zip(inverse) {
        out.iter_mut().for_each(|value| *value *= inverse);
    }
}

/// Exponentials of the scores less the largest, in place; 1 / their sum.
#[inline(always)]
fn softmax<const FMA: bool>(scores: &mut [f32]) -> f32 {
    const LANES: usize = KvSegment::LANES;
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
    1.0 / crate::vector::fold(sums)
}
