//! The gradient of causal attention.

use std::ops::Range;

use super::{Block, Heads, Span, gather_panel, left_product, score_tiles};
use crate::gemm::Shared;
use crate::gemm::micro::Tile;
use crate::gemm::pack::{PANEL, PackedRows, heights};
use crate::isa::{madd, vectorized};
use crate::pool;
use crate::vector::axpy;

/// Gradients of attention: `dq`, `dk` and `dv` are overwritten on the rows of `spans`. A span
/// with a prefix comes after the one whose rows that prefix is, with no span without a prefix
/// between them. Scores are computed again, 32 queries at a time: with P the softmax,
/// dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - sum_j P dP) / sqrt(dim), dQ = dS K and dK = dSᵀ Q; query
/// heads of a group, then spans that share rows, are added in order.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    shape: Heads,
    spans: &[Span],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d_out: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    assert!(q.len() == d_out.len() && q.len() == dq.len());
    assert!(k.len() == v.len() && k.len() == dk.len() && k.len() == dv.len());
    super::check(shape, spans);
    let families: Vec<&[Span]> = spans.chunk_by(|_, next| !next.prefix.is_empty()).collect();
    for family in &families {
        let known = |s: &Span| s.prefix.is_empty() || s.prefix == family[0].rows;
        assert!(family.iter().all(known), "a prefix that is not the rows of the family's first span");
    }
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    pool::each(families.len() * shape.kv_heads, |task| {
        let (family, kv_head) = (families[task / shape.kv_heads], task % shape.kv_heads);
        for span in family {
            let mut work = Work::new(shape, span, kv_head, k, v);
            for head in (0..shape.group()).map(|h| kv_head * shape.group() + h) {
                for first in (0..span.rows.len()).step_by(PANEL) {
                    let queries = first..(first + PANEL).min(span.rows.len());
                    work.block(shape, span, head, queries.clone(), q, d_out);
                    for (lane, i) in queries.enumerate() {
                        let row = span.rows.start + i;
                        // SAFETY: this task alone has this row's values of this head.
                        let out = unsafe { slice(dq, row * shape.q_width() + head * shape.dim, shape.dim) };
                        for (out, dims) in out.iter_mut().zip(work.d_queries.chunks_exact(PANEL)) {
                            *out = dims[lane];
                        }
                    }
                }
            }
            for (i, row) in span.key_rows().enumerate() {
                let (from, to) = (i * shape.dim, (i + 1) * shape.dim);
                let at = row * shape.kv_width() + kv_head * shape.dim;
                // SAFETY: this task alone has the values of this key head in its family's rows.
                let (dk, dv) = unsafe { (slice(dk, at, shape.dim), slice(dv, at, shape.dim)) };
                if i < span.prefix.len() {
                    axpy(1.0, &work.d_keys[from..to], dk);
                    axpy(1.0, &work.d_values[from..to], dv);
                } else {
                    dk.copy_from_slice(&work.d_keys[from..to]);
                    dv.copy_from_slice(&work.d_values[from..to]);
                }
            }
        }
    });
}

/// # Safety
/// The range lies in the array behind `shared`, and no one else uses it meanwhile.
unsafe fn slice<'a>(shared: Shared, at: usize, len: usize) -> &'a mut [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(shared.at(at), len) }
}

/// One key head of one sequence.
struct Work {
    keys: PackedRows<f32>,
    values: PackedRows<f32>,
    keys_transposed: PackedRows<f32>,
    block: Block,
    /// dP, then dS, `[keys, PANEL]`.
    d_scores: Vec<f32>,
    /// dQ of the block, `[dim, PANEL]`.
    d_queries: Vec<f32>,
    /// `[keys, dim]`.
    d_keys: Vec<f32>,
    /// `[keys, dim]`.
    d_values: Vec<f32>,
    /// d_out of the block, `[dim, PANEL]`.
    d_out: Vec<f32>,
    /// Left operand of the sums over queries.
    left: PackedRows<f32>,
    /// Right operand of the sums over queries, one panel.
    right: Vec<f32>,
}

impl Work {
    fn new(shape: Heads, span: &Span, kv_head: usize, k: &[f32], v: &[f32]) -> Self {
        let offsets: Vec<usize> = span.key_rows().map(|row| row * shape.kv_width() + kv_head * shape.dim).collect();
        let zeros = || vec![0.0; offsets.len() * shape.dim];
        Self {
            keys: PackedRows::gathered(k, &offsets, shape.dim),
            values: PackedRows::gathered(v, &offsets, shape.dim),
            keys_transposed: PackedRows::transposed(k, &offsets, shape.dim),
            block: Block::default(),
            d_scores: vec![0.0; offsets.len() * PANEL],
            d_queries: vec![0.0; shape.dim * PANEL],
            d_keys: zeros(),
            d_values: zeros(),
            d_out: Vec::new(),
            left: PackedRows::default(),
            right: Vec::new(),
        }
    }

    fn block(&mut self, shape: Heads, span: &Span, head: usize, queries: Range<usize>, q: &[f32], d_out: &[f32]) {
        let limit = self.block.weights(shape, span, head, queries.clone(), q, &self.keys);
        let rows = span.rows.start + queries.start..span.rows.start + queries.end;
        let columns = head * shape.dim..(head + 1) * shape.dim;
        gather_panel(d_out, rows.clone(), shape.q_width(), columns.clone(), 1.0, &mut self.d_out);
        score_tiles(&self.values, limit, &self.d_out, &mut self.d_scores);
        let weights = &mut self.block.scores[..limit * PANEL];
        d_softmax(weights, &mut self.d_scores[..limit * PANEL], &self.block.sums, shape.scale());
        left_product(&self.keys_transposed, limit, &self.d_scores, &mut self.d_queries);
        let source = |x| Source { x, rows: rows.clone(), stride: shape.q_width(), columns: columns.clone() };
        add_query_sums(&self.d_scores, limit, source(q), &mut self.left, &mut self.right, &mut self.d_keys);
        add_query_sums(&self.block.scores, limit, source(d_out), &mut self.left, &mut self.right, &mut self.d_values);
    }
}

/// Part of a matrix: the block's rows and one head's columns.
struct Source<'a> {
    x: &'a [f32],
    rows: Range<usize>,
    stride: usize,
    columns: Range<usize>,
}

/// out[j, d] += sum over queries i of lanes[j, i] * x[i, d] for the first `limit` keys.
fn add_query_sums(
    lanes: &[f32],
    limit: usize,
    source: Source,
    left: &mut PackedRows<f32>,
    right: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (queries, dim) = (source.rows.len(), source.columns.len());
    left.fill(lanes, PANEL, limit, queries);
    for from in (0..dim).step_by(PANEL) {
        let width = PANEL.min(dim - from);
        right.clear();
        right.resize(queries * PANEL, 0.0);
        for (slots, row) in right.chunks_exact_mut(PANEL).zip(source.rows.clone()) {
            let at = row * source.stride + source.columns.start + from;
            slots[..width].copy_from_slice(&source.x[at..at + width]);
        }
        for (row, height) in heights(limit) {
            let tile = Tile { a: left.tile(row, height), height, b: right, width, accumulate: true, ahead: &[] };
            tile.run_in(&mut out[row * dim + from..], dim);
        }
    }
}

#[inline(always)]
fn d_softmax_body<const FMA: bool>(weights: &mut [f32], d: &mut [f32], sums: &[f32; PANEL], scale: f32) {
    let mut inverse = [0f32; PANEL];
    for l in 0..PANEL {
        inverse[l] = 1.0 / sums[l];
    }
    let mut along = [0f32; PANEL];
    for (p, d) in weights.chunks_exact_mut(PANEL).zip(d.chunks_exact(PANEL)) {
        for l in 0..PANEL {
            p[l] *= inverse[l];
            along[l] = madd::<FMA>(p[l], d[l], along[l]);
        }
    }
    for (p, d) in weights.chunks_exact(PANEL).zip(d.chunks_exact_mut(PANEL)) {
        for l in 0..PANEL {
            d[l] = p[l] * (d[l] - along[l]) * scale;
        }
    }
}
vectorized! {
    /// Turns exponentials into the softmax P, and dP into dS = P (dP - sum P dP) scale.
    fn d_softmax(weights: &mut [f32], d: &mut [f32], sums: &[f32; PANEL], scale: f32) = d_softmax_body
}
