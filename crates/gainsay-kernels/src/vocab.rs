//! The vocabulary product fused with the log-softmax and the picked token: logits exist only in
//! chunks of [`CHUNK`] columns.

use rayon::prelude::*;

use crate::exp::exp;
use crate::gemm::micro::Tile;
use crate::gemm::pack::{PANEL, PackedRows, heights};
use crate::gemm::{Left, PackedWeight, Shared};
use crate::isa::vectorized;
use crate::vector::{axpy, fold};

/// Columns of the output matrix that are handled together: with 576 values a row they fit the
/// second-level cache. Fixed, so that sums over the vocabulary have one order.
const CHUNK: usize = 256;

/// Most rows that share a pass over the output matrix.
const BLOCK: usize = 112;

/// The operands of log softmax(hidden·Uᵀ / temperature)\[target\].
#[derive(Clone, Copy, Debug)]
pub struct Vocab<'a> {
    /// `[rows, width]`.
    pub hidden: &'a [f32],
    /// U `[vocab, width]`, packed by [`PackedWeight::transposed`].
    pub output: &'a PackedWeight,
    /// One target a row.
    pub targets: &'a [u32],
    /// 1 / temperature.
    pub inverse_temperature: f32,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct VocabGrads<'a> {
    /// U again, packed by [`PackedWeight::plain`].
    pub output: &'a PackedWeight,
    /// `[rows, width]`; added to.
    pub d_hidden: &'a mut [f32],
    /// `[vocab, width]`; added to. `None` where U is frozen.
    pub d_output: Option<&'a mut [f32]>,
}

impl Vocab<'_> {
    fn rows(&self) -> usize {
        self.targets.len()
    }

    fn width(&self) -> usize {
        self.output.depth()
    }

    fn check(&self) {
        assert_eq!(self.hidden.len(), self.rows() * self.width());
        assert!(self.targets.iter().all(|t| (*t as usize) < self.output.columns()), "target outside the vocabulary");
    }

    fn chunks(&self) -> usize {
        self.output.columns().div_ceil(CHUNK)
    }

    /// Rows are cut so that every thread has some.
    fn blocks(&self) -> Vec<PackedRows> {
        let size = self.rows().div_ceil(2 * rayon::current_num_threads()).clamp(14, BLOCK);
        let starts: Vec<usize> = (0..self.rows()).step_by(size).collect();
        let end = |start: usize| (start + size).min(self.rows());
        let pack = |s: &usize| PackedRows::new(self.hidden, Left::Rows, self.rows(), self.width(), *s..end(*s));
        starts.par_iter().map(pack).collect()
    }

    /// Logits / temperature of one chunk, `[block rows, CHUNK]`; the number of columns in use.
    fn logits(&self, block: &PackedRows, chunk: usize, out: &mut Vec<f32>) -> usize {
        let columns = CHUNK.min(self.output.columns() - chunk * CHUNK);
        out.resize(block.rows() * CHUNK, 0.0);
        for panel in 0..columns.div_ceil(PANEL) {
            let (b, width) = (self.output.panel(chunk * CHUNK / PANEL + panel), PANEL.min(columns - panel * PANEL));
            for (row, height) in heights(block.rows()) {
                let tile = Tile { a: block.tile(row, height), height, b, width, accumulate: false };
                tile.run_in(&mut out[row * CHUNK + panel * PANEL..], CHUNK);
            }
        }
        if self.inverse_temperature != 1.0 {
            out.iter_mut().for_each(|z| *z *= self.inverse_temperature);
        }
        columns
    }

    /// log sum exp of every row, and the target's logit, both in nats after the temperature.
    fn normalizers(&self) -> Vec<(f32, f32)> {
        let blocks = self.blocks();
        let size = blocks.first().map_or(1, PackedRows::rows);
        let chunks = self.chunks();
        let groups = (8 * rayon::current_num_threads()).div_ceil(blocks.len().max(1)).min(chunks);
        let parts: Vec<Vec<Part>> = (0..blocks.len() * groups)
            .into_par_iter()
            .map(|task| {
                let (b, g) = (task / groups, task % groups);
                let targets = &self.targets[b * size..b * size + blocks[b].rows()];
                self.parts(&blocks[b], targets, g * chunks / groups..(g + 1) * chunks / groups)
            })
            .collect();
        (0..self.rows())
            .map(|row| {
                let (b, local, rows) = (row / size, row % size, blocks[row / size].rows());
                let of_row =
                    parts[b * groups..(b + 1) * groups].iter().flat_map(|p| p.iter().skip(local).step_by(rows));
                combine(of_row)
            })
            .collect()
    }

    /// For each chunk, one part a row of the block.
    fn parts(&self, block: &PackedRows, targets: &[u32], chunks: std::ops::Range<usize>) -> Vec<Part> {
        let mut logits = Vec::new();
        let mut parts = Vec::with_capacity(chunks.len() * block.rows());
        for chunk in chunks {
            let columns = self.logits(block, chunk, &mut logits);
            for (z, target) in logits.chunks_exact(CHUNK).zip(targets) {
                let (most, sum) = log_sum_exp(&z[..columns]);
                let picked = (*target as usize).checked_sub(chunk * CHUNK).filter(|t| *t < columns).map(|t| z[t]);
                parts.push(Part { most, sum, picked });
            }
        }
        parts
    }

    /// Turns the logits of a chunk into d / d logit: (onehot - softmax) d_logp / temperature.
    fn coefficients(&self, first_row: usize, chunk: usize, d_logp: &[f32], lse: &[(f32, f32)], logits: &mut [f32]) {
        for (r, z) in logits.chunks_exact_mut(CHUNK).enumerate() {
            let row = first_row + r;
            let d = d_logp[row] * self.inverse_temperature;
            softmax_gradient(z, lse[row].0, d);
            if let Some(t) = (self.targets[row] as usize).checked_sub(chunk * CHUNK).filter(|t| *t < CHUNK) {
                z[t] += d;
            }
        }
    }
}

/// Largest logit of a chunk, the sum of exponentials less it, and the target's logit if it is
/// in the chunk.
struct Part {
    most: f32,
    sum: f32,
    picked: Option<f32>,
}

/// (log sum exp, picked logit) from the parts of one row in chunk order.
fn combine<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> (f32, f32) {
    let most = parts.clone().map(|p| p.most).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = parts.clone().map(|p| f64::from(p.sum) * f64::from(p.most - most).exp()).sum();
    let picked = parts.clone().find_map(|p| p.picked).unwrap_or(f32::NAN);
    ((f64::from(most) + sum.ln()) as f32, picked)
}

#[inline(always)]
fn log_sum_exp_body<const FMA: bool>(z: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = z.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks.clone() {
        for l in 0..LANES {
            lanes[l] = if lanes[l] > chunk[l] { lanes[l] } else { chunk[l] };
        }
    }
    let most = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if a > *b { a } else { *b });
    if most == f32::NEG_INFINITY {
        return (most, 0.0);
    }
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            sums[l] += exp::<FMA>(chunk[l] - most);
        }
    }
    (most, fold(sums) + rest.iter().map(|z| exp::<FMA>(z - most)).sum::<f32>())
}
vectorized! {
    /// Largest value and sum of the exponentials less it.
    pub fn log_sum_exp(z: &[f32]) -> (f32, f32) = log_sum_exp_body
}

#[inline(always)]
fn softmax_gradient_body<const FMA: bool>(z: &mut [f32], lse: f32, d: f32) {
    for z in z {
        *z = -d * exp::<FMA>(*z - lse);
    }
}
vectorized! { fn softmax_gradient(z: &mut [f32], lse: f32, d: f32) = softmax_gradient_body }

#[inline(always)]
fn exp_scaled_body<const FMA: bool>(z: &[f32], most: f32, scale: f32, out: &mut [f32]) {
    for (out, z) in out.iter_mut().zip(z) {
        *out = exp::<FMA>((z - most) * scale);
    }
}
vectorized! {
    /// out = exp((z - most) scale): unnormalized probabilities for sampling.
    pub fn exp_scaled(z: &[f32], most: f32, scale: f32, out: &mut [f32]) = exp_scaled_body
}

/// log softmax(hidden·Uᵀ / temperature)\[target\] in nats for each row.
pub fn token_logps(vocab: Vocab) -> Vec<f32> {
    vocab.check();
    vocab.normalizers().into_iter().map(|(lse, picked)| picked - lse).collect()
}

/// Adds the gradients of sum(d_logp · [`token_logps`]). Logits are computed again, twice (three
/// times with `d_output`): d_hidden += G·U and dU += Gᵀ·hidden with
/// G = (onehot - softmax) d_logp / temperature.
pub fn token_logps_backward(vocab: Vocab, d_logp: &[f32], grads: VocabGrads) {
    vocab.check();
    assert_eq!(d_logp.len(), vocab.rows());
    assert_eq!(grads.d_hidden.len(), vocab.hidden.len());
    if vocab.rows() == 0 {
        return;
    }
    let lse = vocab.normalizers();
    let blocks = vocab.blocks();
    let size = blocks[0].rows();
    let out = grads.d_hidden.par_chunks_mut(size * vocab.width());
    blocks.par_iter().zip(out).enumerate().for_each(|(b, (block, out))| {
        let (mut logits, mut left) = (Vec::new(), PackedRows::strided(&[], 0, 1, 0, 0));
        for chunk in 0..vocab.chunks() {
            let columns = vocab.logits(block, chunk, &mut logits);
            vocab.coefficients(b * size, chunk, d_logp, &lse, &mut logits);
            left.fill(&logits, CHUNK, 1, block.rows(), columns);
            let depth = chunk * CHUNK * PANEL..(chunk * CHUNK + columns) * PANEL;
            for panel in 0..vocab.width().div_ceil(PANEL) {
                let (b, width) = (&grads.output.panel(panel)[depth.clone()], PANEL.min(vocab.width() - panel * PANEL));
                for (row, height) in heights(block.rows()) {
                    let tile = Tile { a: left.tile(row, height), height, b, width, accumulate: true };
                    tile.run_in(&mut out[row * vocab.width() + panel * PANEL..], vocab.width());
                }
            }
        }
    });
    if let Some(d_output) = grads.d_output {
        output_gradient(vocab, d_logp, &lse, &blocks, d_output);
    }
}

/// dU += Gᵀ·hidden, a chunk of the vocabulary at a time, rows in order.
fn output_gradient(vocab: Vocab, d_logp: &[f32], lse: &[(f32, f32)], blocks: &[PackedRows], d_output: &mut [f32]) {
    let (rows, width, size) = (vocab.rows(), vocab.width(), blocks[0].rows());
    let hidden = PackedWeight::plain(vocab.hidden, rows, width);
    d_output.par_chunks_mut(CHUNK * width).enumerate().for_each(|(chunk, out)| {
        let (mut logits, mut left) = (Vec::new(), PackedRows::strided(&[], 0, 1, 0, 0));
        for (b, block) in blocks.iter().enumerate() {
            let columns = vocab.logits(block, chunk, &mut logits);
            vocab.coefficients(b * size, chunk, d_logp, lse, &mut logits);
            left.fill(&logits, 1, CHUNK, columns, block.rows());
            let depth = b * size * PANEL..(b * size + block.rows()) * PANEL;
            for panel in 0..width.div_ceil(PANEL) {
                let (b, used) = (&hidden.panel(panel)[depth.clone()], PANEL.min(width - panel * PANEL));
                for (row, height) in heights(columns) {
                    let tile = Tile { a: left.tile(row, height), height, b, width: used, accumulate: true };
                    tile.run_in(&mut out[row * width + panel * PANEL..], width);
                }
            }
        }
    });
}

/// table[ids[r]] += rows[r] in row order: the gradient of an embedding. Columns are cut between
/// threads.
pub fn add_rows_by_id(rows: &[f32], ids: &[u32], width: usize, table: &mut [f32]) {
    assert_eq!(rows.len(), ids.len() * width);
    assert!(ids.iter().all(|id| (*id as usize + 1) * width <= table.len()), "id outside the table");
    let parts = rayon::current_num_threads().min(width);
    let table = Shared::new(table);
    (0..parts).into_par_iter().for_each(|part| {
        let (from, to) = (part * width / parts, (part + 1) * width / parts);
        for (row, id) in rows.chunks_exact(width).zip(ids) {
            // SAFETY: the ids are in range, and this task alone has these columns.
            let slots = unsafe { std::slice::from_raw_parts_mut(table.at(*id as usize * width + from), to - from) };
            axpy(1.0, &row[from..to], slots);
        }
    });
}

/// Largest logit, and the log of the sum of the exponentials less it.
pub fn log_normalizer(logits: &[f32]) -> (f32, f64) {
    let parts: Vec<Part> = logits
        .chunks(CHUNK)
        .map(|z| {
            let (most, sum) = log_sum_exp(z);
            Part { most, sum, picked: None }
        })
        .collect();
    let most = parts.iter().map(|p| p.most).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = parts.iter().map(|p| f64::from(p.sum) * f64::from(p.most - most).exp()).sum();
    (most, sum.ln())
}
