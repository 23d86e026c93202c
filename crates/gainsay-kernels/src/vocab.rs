//! The vocabulary product fused with the log-softmax and the picked token: logits exist only in
//! chunks of columns that fit the second-level cache.

use std::marker::PhantomData;

use crate::gemm::element::{Element, Pair, Staged, multiplies_pairs};
use crate::gemm::micro::Tile;
use crate::gemm::pack::{PANEL, PackedRows, Panels, heights, panel};
use crate::gemm::{Left, PackedWeight, Precision, Shared, WIDE};
use crate::pool;
use crate::softmax::{CHUNK, combine, log_sum_exp, softmax_gradient};
use crate::vector::axpy;

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

/// A product with the panels of U in hand, by means of elements `T`.
#[derive(Clone, Copy)]
struct Pass<'a, E, T> {
    vocab: Vocab<'a>,
    panels: &'a [E],
    by: PhantomData<T>,
}

/// What a thread writes to: the logits of a chunk, and the panel in hand as `T`.
#[derive(Default)]
struct Scratch<T> {
    logits: Vec<f32>,
    room: Vec<T>,
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

    /// Rows of a block: every thread has some.
    fn block_rows(&self) -> usize {
        self.rows().div_ceil(2 * pool::threads()).clamp(14, BLOCK)
    }

    /// Whether pairs are widened to f32: where the blocks have rows enough and no pair is filled up.
    fn widens(&self) -> bool {
        let even = self.width().is_multiple_of(2) && self.output.columns().is_multiple_of(2);
        even && self.block_rows() >= WIDE && !multiplies_pairs()
    }
}

impl<'a, E: Staged<T>, T: Element> Pass<'a, E, T> {
    fn new(vocab: Vocab<'a>, panels: &'a [E]) -> Self {
        Self { vocab, panels, by: PhantomData }
    }

    fn blocks(&self) -> Vec<PackedRows<T>> {
        let size = self.vocab.block_rows();
        let starts: Vec<usize> = (0..self.vocab.rows()).step_by(size).collect();
        let end = |start: usize| (start + size).min(self.vocab.rows());
        let pack = |i: usize| {
            let (s, rows, width) = (starts[i], self.vocab.rows(), self.vocab.width());
            let mut packed = PackedRows::default();
            packed.set(self.vocab.hidden, Left::Rows, rows, width, s..end(s));
            E::round(packed.values_mut());
            packed
        };
        pool::map(starts.len(), pack)
    }

    /// Logits / temperature of one chunk, `[block rows, CHUNK]`; the number of columns in use.
    fn logits(&self, block: &PackedRows<T>, chunk: usize, scratch: &mut Scratch<T>) -> usize {
        let Scratch { logits: out, room } = scratch;
        let columns = CHUNK.min(self.vocab.output.columns() - chunk * CHUNK);
        out.resize(block.rows() * CHUNK, 0.0);
        for p in 0..columns.div_ceil(PANEL) {
            let (b, width) =
                (panel(self.panels, self.vocab.width(), chunk * CHUNK / PANEL + p), PANEL.min(columns - p * PANEL));
            let b = E::stage(b, room);
            for (row, height) in heights(block.rows()) {
                let tile = Tile { a: block.tile(row, height), height, b, width, accumulate: false, ahead: &[] };
                tile.run_in(&mut out[row * CHUNK + p * PANEL..], CHUNK);
            }
        }
        if self.vocab.inverse_temperature != 1.0 {
            out.iter_mut().for_each(|z| *z *= self.vocab.inverse_temperature);
        }
        columns
    }

    /// log sum exp of every row, and the target's logit, both in nats after the temperature.
    fn normalizers(&self) -> Vec<(f32, f32)> {
        let blocks = self.blocks();
        let size = blocks.first().map_or(1, PackedRows::rows);
        let chunks = self.vocab.chunks();
        let groups = (8 * pool::threads()).div_ceil(blocks.len().max(1)).min(chunks);
        let parts: Vec<Vec<Part>> = pool::map(blocks.len() * groups, |task| {
            let (b, g) = (task / groups, task % groups);
            let targets = &self.vocab.targets[b * size..b * size + blocks[b].rows()];
            self.parts(&blocks[b], targets, g * chunks / groups..(g + 1) * chunks / groups)
        });
        (0..self.vocab.rows())
            .map(|row| {
                let (b, local, rows) = (row / size, row % size, blocks[row / size].rows());
                let of_row =
                    parts[b * groups..(b + 1) * groups].iter().flat_map(|p| p.iter().skip(local).step_by(rows));
                normalizer(of_row)
            })
            .collect()
    }

    /// For each chunk, one part a row of the block.
    fn parts(&self, block: &PackedRows<T>, targets: &[u32], chunks: std::ops::Range<usize>) -> Vec<Part> {
        let mut scratch = Scratch::default();
        let mut parts = Vec::with_capacity(chunks.len() * block.rows());
        for chunk in chunks {
            let columns = self.logits(block, chunk, &mut scratch);
            for (z, target) in scratch.logits.chunks_exact(CHUNK).zip(targets) {
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
            let d = d_logp[row] * self.vocab.inverse_temperature;
            softmax_gradient(z, lse[row].0, d);
            if let Some(t) = (self.vocab.targets[row] as usize).checked_sub(chunk * CHUNK).filter(|t| *t < CHUNK) {
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
fn normalizer<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> (f32, f32) {
    let (most, log_sum) = combine(parts.clone().map(|p| (p.most, p.sum)));
    let picked = parts.clone().find_map(|p| p.picked).unwrap_or(f32::NAN);
    ((f64::from(most) + log_sum) as f32, picked)
}

/// log softmax(hidden·Uᵀ / temperature)\[target\] in nats for each row.
pub fn token_logps(vocab: Vocab) -> Vec<f32> {
    vocab.check();
    let normalizers = match vocab.output.panels() {
        Panels::F32(panels) => Pass::<f32, f32>::new(vocab, panels).normalizers(),
        Panels::Bf16(panels) if vocab.widens() => Pass::<Pair, f32>::new(vocab, panels).normalizers(),
        Panels::Bf16(panels) => Pass::<Pair, Pair>::new(vocab, panels).normalizers(),
    };
    normalizers.into_iter().map(|(lse, picked)| picked - lse).collect()
}

/// Adds the gradients of sum(d_logp · [`token_logps`]). Logits are computed again, twice (three
/// times with `d_output`): d_hidden += G·U and dU += Gᵀ·hidden with
/// G = (onehot - softmax) d_logp / temperature. Both packed forms of U have one precision; dU is
/// always an f32 product.
pub fn token_logps_backward(vocab: Vocab, d_logp: &[f32], grads: VocabGrads) {
    vocab.check();
    assert_eq!(d_logp.len(), vocab.rows());
    assert_eq!(grads.d_hidden.len(), vocab.hidden.len());
    if let Some(d_output) = &grads.d_output {
        assert_eq!(d_output.len(), vocab.output.columns() * vocab.width());
    }
    if vocab.rows() == 0 {
        return;
    }
    let VocabGrads { output, d_hidden, d_output } = grads;
    match (vocab.output.panels(), output.panels()) {
        (Panels::F32(panels), Panels::F32(plain)) => {
            backward(Pass::<f32, f32>::new(vocab, panels), d_logp, plain, d_hidden, d_output)
        }
        (Panels::Bf16(panels), Panels::Bf16(plain)) if vocab.widens() => {
            backward(Pass::<Pair, f32>::new(vocab, panels), d_logp, plain, d_hidden, d_output)
        }
        (Panels::Bf16(panels), Panels::Bf16(plain)) => {
            backward(Pass::<Pair, Pair>::new(vocab, panels), d_logp, plain, d_hidden, d_output)
        }
        _ => panic!("the two packed forms of the output matrix differ in precision"),
    }
}

fn backward<E: Staged<T>, T: Element>(
    pass: Pass<E, T>,
    d_logp: &[f32],
    plain: &[E],
    d_hidden: &mut [f32],
    d_output: Option<&mut [f32]>,
) {
    let (vocab, width) = (pass.vocab, pass.vocab.width());
    let lse = pass.normalizers();
    let blocks = pass.blocks();
    let size = blocks[0].rows();
    pool::chunks_mut(d_hidden, size * width, |b, out| {
        let block = &blocks[b];
        let (mut scratch, mut left) = (Scratch::default(), PackedRows::<T>::default());
        for chunk in 0..vocab.chunks() {
            let columns = pass.logits(block, chunk, &mut scratch);
            pass.coefficients(b * size, chunk, d_logp, &lse, &mut scratch.logits);
            left.fill(&scratch.logits, CHUNK, block.rows(), columns);
            E::round(left.values_mut());
            let first = chunk * E::count(CHUNK) * PANEL;
            let depth = first..first + E::count(columns) * PANEL;
            for p in 0..width.div_ceil(PANEL) {
                let b = E::stage(&panel(plain, vocab.output.columns(), p)[depth.clone()], &mut scratch.room);
                add_product(&left, b, &mut out[p * PANEL..], width, PANEL.min(width - p * PANEL));
            }
        }
    });
    if let Some(d_output) = d_output {
        output_gradient(pass, d_logp, &lse, &blocks, d_output);
    }
}

/// out += left · b for one panel of `columns` columns; `out` has `stride` values a row.
fn add_product<E: Element>(left: &PackedRows<E>, b: &[E], out: &mut [f32], stride: usize, columns: usize) {
    for (row, height) in heights(left.rows()) {
        let tile = Tile { a: left.tile(row, height), height, b, width: columns, accumulate: true, ahead: &[] };
        tile.run_in(&mut out[row * stride..], stride);
    }
}

/// dU += Gᵀ·hidden, a chunk of the vocabulary at a time, rows in order.
fn output_gradient<E: Staged<T>, T: Element>(
    pass: Pass<E, T>,
    d_logp: &[f32],
    lse: &[(f32, f32)],
    blocks: &[PackedRows<T>],
    d_output: &mut [f32],
) {
    let (rows, width, size) = (pass.vocab.rows(), pass.vocab.width(), blocks[0].rows());
    let hidden = PackedWeight::plain(pass.vocab.hidden, rows, width, Precision::F32);
    let Panels::F32(hidden) = hidden.panels() else { unreachable!("packed as f32") };
    pool::chunks_mut(d_output, CHUNK * width, |chunk, out| {
        let (mut scratch, mut left) = (Scratch::default(), PackedRows::<f32>::default());
        for (b, block) in blocks.iter().enumerate() {
            let columns = pass.logits(block, chunk, &mut scratch);
            pass.coefficients(b * size, chunk, d_logp, lse, &mut scratch.logits);
            left.fill_columns(&scratch.logits, CHUNK, columns, block.rows());
            let depth = b * size * PANEL..(b * size + block.rows()) * PANEL;
            for p in 0..width.div_ceil(PANEL) {
                let b = &panel(hidden, rows, p)[depth.clone()];
                add_product(&left, b, &mut out[p * PANEL..], width, PANEL.min(width - p * PANEL));
            }
        }
    });
}

/// table[ids[r]] += rows[r] in row order: the gradient of an embedding. Columns are cut between
/// threads.
pub fn add_rows_by_id(rows: &[f32], ids: &[u32], width: usize, table: &mut [f32]) {
    assert_eq!(rows.len(), ids.len() * width);
    assert!(ids.iter().all(|id| (*id as usize + 1) * width <= table.len()), "id outside the table");
    let parts = pool::threads().min(width);
    let table = Shared::new(table);
    pool::each(parts, |part| {
        let (from, to) = (part * width / parts, (part + 1) * width / parts);
        for (row, id) in rows.chunks_exact(width).zip(ids) {
            // SAFETY: the ids are in range, and this task alone has these columns.
            let slots = unsafe { std::slice::from_raw_parts_mut(table.at(*id as usize * width + from), to - from) };
            axpy(1.0, &row[from..to], slots);
        }
    });
}
