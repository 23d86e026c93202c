//! Causal attention over packed sequences, forward and backward, without the score matrix of a
//! whole sequence: blocks of 32 queries against all the keys that they see.
//!
//! Scores are held transposed, `[keys, 32]`: a query is a lane, so the softmax needs no sum
//! across lanes, and the block is at once the right operand of the next product. A query's
//! result is a chain over its keys in ascending order; keys that it does not see add zeros, which
//! are exact where all values of the sequence are finite, so its bits depend on no other query.

mod backward;
mod decode;

use std::ops::Range;

pub use backward::attention_backward;
pub use decode::{DecodeScratch, KvPart, decode_attention};

use crate::exp::exp;
use crate::gemm::Shared;
use crate::gemm::micro::Tile;
use crate::gemm::pack::{PANEL, PackedRows, heights};
use crate::isa::vectorized;
use crate::pool;

/// Shape of the heads: `heads` query heads share `kv_heads` key and value heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    /// 1 / sqrt(dim).
    pub fn scale(&self) -> f32 {
        (1.0 / (self.dim as f64).sqrt()) as f32
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn q_width(&self) -> usize {
        self.heads * self.dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.dim
    }
}

/// One sequence: its rows see the rows of `prefix`, then their own up to themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows of keys and values that come before; empty for a whole sequence.
    pub prefix: Range<usize>,
    /// The sequence's own rows.
    pub rows: Range<usize>,
}

impl Span {
    /// The sequences `offsets[i]..offsets[i + 1]`, each by itself.
    pub fn whole(offsets: &[usize]) -> Vec<Self> {
        offsets.windows(2).map(|w| Self { prefix: 0..0, rows: w[0]..w[1] }).collect()
    }

    fn keys(&self) -> usize {
        self.prefix.len() + self.rows.len()
    }

    fn key_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.prefix.clone().chain(self.rows.clone())
    }
}

/// out = softmax(q·kᵀ / sqrt(dim))·v per head, causal. `q` and `out` are
/// `[rows, heads * dim]`, `k` and `v` `[rows, kv_heads * dim]`; spans do not share rows, and
/// rows in no span are left as they are.
pub fn attention(shape: Heads, spans: &[Span], q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    assert_eq!(q.len(), out.len());
    assert_eq!(q.len() / shape.q_width() * shape.kv_width(), k.len());
    assert_eq!(k.len(), v.len());
    check(shape, spans);
    // One task a key head, or a query head where there are few.
    let few = spans.len() * shape.kv_heads < 4 * pool::threads();
    let parts = if few { shape.group() } else { 1 };
    let size = shape.group() / parts;
    let result = Shared::new(out);
    let task = |index: usize| {
        let (span, rest) = (&spans[index / (shape.kv_heads * parts)], index % (shape.kv_heads * parts));
        let (kv_head, part) = (rest / parts, rest % parts);
        let keys = Keys::new(shape, span, kv_head, k, v);
        let mut block = Block::default();
        for head in (0..size).map(|h| kv_head * shape.group() + part * size + h) {
            for first in (0..span.rows.len()).step_by(PANEL) {
                let queries = first..(first + PANEL).min(span.rows.len());
                block.forward(shape, span, head, queries.clone(), q, &keys);
                for (lane, i) in queries.enumerate() {
                    let row = span.rows.start + i;
                    // SAFETY: this task alone has this row's values of this head, as no two spans share rows.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(result.at(row * shape.q_width() + head * shape.dim), shape.dim)
                    };
                    let inverse = 1.0 / block.sums[lane];
                    for (out, dims) in out.iter_mut().zip(block.mixed.chunks_exact(PANEL)) {
                        *out = dims[lane] * inverse;
                    }
                }
            }
        }
    };
    pool::each(spans.len() * shape.kv_heads * parts, task);
}

/// Tasks write the rows of their own span, so no two spans may share any.
///
/// # Panics
/// Where two do, or where query heads do not share key heads evenly.
fn check(shape: Heads, spans: &[Span]) {
    assert_eq!(shape.heads % shape.kv_heads, 0, "{} query heads on {} key heads", shape.heads, shape.kv_heads);
    let mut own: Vec<&Range<usize>> = spans.iter().map(|span| &span.rows).filter(|rows| !rows.is_empty()).collect();
    own.sort_unstable_by_key(|rows| rows.start);
    assert!(own.windows(2).all(|pair| pair[0].end <= pair[1].start), "two spans share rows");
}

/// Keys and values of one key head, packed as left operands.
struct Keys {
    /// `[keys]` rows of `dim`.
    keys: PackedRows<f32>,
    /// `[dim]` rows of `keys`: the values transposed.
    values: PackedRows<f32>,
}

impl Keys {
    fn new(shape: Heads, span: &Span, kv_head: usize, k: &[f32], v: &[f32]) -> Self {
        let width = shape.kv_width();
        let offsets: Vec<usize> = span.key_rows().map(|row| row * width + kv_head * shape.dim).collect();
        Self {
            keys: PackedRows::gathered(k, &offsets, shape.dim),
            values: PackedRows::transposed(v, &offsets, shape.dim),
        }
    }
}

/// Scratch memory of one block of queries.
#[derive(Default)]
struct Block {
    /// The queries, `[dim, PANEL]`, divided by sqrt(dim).
    queries: Vec<f32>,
    /// Scores, then their exponentials, `[keys, PANEL]`.
    scores: Vec<f32>,
    /// Sums of the exponentials.
    sums: [f32; PANEL],
    /// exponentials · values, `[dim, PANEL]`.
    mixed: Vec<f32>,
}

impl Block {
    fn forward(&mut self, shape: Heads, span: &Span, head: usize, queries: Range<usize>, q: &[f32], keys: &Keys) {
        let limit = self.weights(shape, span, head, queries, q, &keys.keys);
        self.mixed.resize(shape.dim * PANEL, 0.0);
        left_product(&keys.values, limit, &self.scores, &mut self.mixed);
    }

    /// Exponentials of the scores less each query's largest, and their sums; the number of keys
    /// that the last query sees.
    fn weights(
        &mut self,
        shape: Heads,
        span: &Span,
        head: usize,
        queries: Range<usize>,
        q: &[f32],
        keys: &PackedRows<f32>,
    ) -> usize {
        let visible = span.prefix.len() + queries.start;
        let limit = span.prefix.len() + queries.end;
        let rows = span.rows.start + queries.start..span.rows.start + queries.end;
        gather_panel(
            q,
            rows,
            shape.q_width(),
            head * shape.dim..(head + 1) * shape.dim,
            shape.scale(),
            &mut self.queries,
        );
        self.scores.resize(span.keys() * PANEL, 0.0);
        score_tiles(keys, limit, &self.queries, &mut self.scores);
        softmax_columns(&mut self.scores[..limit * PANEL], visible, &mut self.sums);
        limit
    }
}

/// panel[d, i] = scale * x[rows.start + i, columns.start + d], zero beyond the last row.
fn gather_panel(x: &[f32], rows: Range<usize>, stride: usize, columns: Range<usize>, scale: f32, panel: &mut Vec<f32>) {
    panel.clear();
    panel.resize(columns.len() * PANEL, 0.0);
    for (lane, row) in rows.enumerate() {
        let row = &x[row * stride + columns.start..row * stride + columns.end];
        for (slots, value) in panel.chunks_exact_mut(PANEL).zip(row) {
            slots[lane] = value * scale;
        }
    }
}

/// scores[j] = row j of `keys` · panel, for the tiles that hold the first `limit` rows.
fn score_tiles(keys: &PackedRows<f32>, limit: usize, panel: &[f32], scores: &mut [f32]) {
    for (row, height) in heights(keys.rows()).take_while(|(row, _)| *row < limit) {
        let tile = Tile { a: keys.tile(row, height), height, b: panel, width: PANEL, accumulate: false, ahead: &[] };
        tile.run_in(&mut scores[row * PANEL..], PANEL);
    }
}

/// out[r] = sum over the first `limit` depths d of left[r, d] * right[d], `right` `[depth, PANEL]`.
fn left_product(left: &PackedRows<f32>, limit: usize, right: &[f32], out: &mut [f32]) {
    for (row, height) in heights(left.rows()) {
        let a = &left.tile(row, height)[..limit * height];
        let tile = Tile { a, height, b: &right[..limit * PANEL], width: PANEL, accumulate: false, ahead: &[] };
        tile.run_in(&mut out[row * PANEL..], PANEL);
    }
}

#[inline(always)]
fn softmax_columns_body<const FMA: bool>(scores: &mut [f32], visible: usize, sums: &mut [f32; PANEL]) {
    for (j, row) in scores.chunks_exact_mut(PANEL).enumerate().skip(visible + 1) {
        row[..(j - visible).min(PANEL)].fill(f32::NEG_INFINITY);
    }
    let mut most = [f32::NEG_INFINITY; PANEL];
    for row in scores.chunks_exact(PANEL) {
        for l in 0..PANEL {
            most[l] = if most[l] > row[l] { most[l] } else { row[l] };
        }
    }
    *sums = [0.0; PANEL];
    for row in scores.chunks_exact_mut(PANEL) {
        for l in 0..PANEL {
            row[l] = exp::<FMA>(row[l] - most[l]);
            sums[l] += row[l];
        }
    }
}
vectorized! {
    /// Column softmax without the division: lane l sees the keys up to `visible + l`; the others
    /// get weight 0.
    fn softmax_columns(scores: &mut [f32], visible: usize, sums: &mut [f32; PANEL]) = softmax_columns_body
}
