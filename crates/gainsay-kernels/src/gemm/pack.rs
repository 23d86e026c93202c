//! Operand layouts.

use crate::pool;

use std::ops::Range;

use super::element::{Columns, Element, Pair};
use super::micro::ROWS;
use super::{Left, Precision};

/// Columns of a panel of the right operand.
pub const PANEL: usize = 32;

/// A right operand `[k, n]` in panels of [`PANEL`] columns, each panel `[k, PANEL]` with zeros
/// beyond the last column.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    n: usize,
    k: usize,
    panels: Panels,
}

/// The values, by precision.
#[derive(Clone, Debug)]
pub(crate) enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<Pair>),
}

impl PackedWeight {
    /// Packs Wᵀ for W `[n, k]` row-major: for y = x·Wᵀ.
    pub fn transposed(w: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(w.len(), n * k, "weight is not [{n}, {k}]");
        let panels = match precision {
            Precision::F32 => Panels::F32(transposed(w, n, k)),
            Precision::Bf16 => Panels::Bf16(transposed(w, n, k)),
        };
        Self { n, k, panels }
    }

    /// Packs W `[k, n]` row-major as it is: for dx = dy·W.
    pub fn plain(w: &[f32], k: usize, n: usize, precision: Precision) -> Self {
        assert_eq!(w.len(), n * k, "weight is not [{k}, {n}]");
        let panels = match precision {
            Precision::F32 => Panels::F32(plain(w, k, n)),
            Precision::Bf16 => Panels::Bf16(plain(w, k, n)),
        };
        Self { n, k, panels }
    }

    /// n.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// k.
    pub fn depth(&self) -> usize {
        self.k
    }

    pub(crate) fn panels(&self) -> &Panels {
        &self.panels
    }
}

/// Panel `p` of panels of `k` depths.
pub fn panel<E: Element>(panels: &[E], k: usize, p: usize) -> &[E] {
    let size = PANEL * E::count(k);
    &panels[p * size..(p + 1) * size]
}

fn transposed<E: Element>(w: &[f32], n: usize, k: usize) -> Vec<E> {
    let depth = E::count(k);
    let mut data = vec![E::default(); n.div_ceil(PANEL) * PANEL * depth];
    if k == 0 {
        return data;
    }
    let mut panels: Vec<&mut [E]> = data.chunks_mut(PANEL * depth).collect();
    pool::each_mut(&mut panels, |i, panel| {
        let w = pool::chunk(w, PANEL * k, i);
        let mut rows = vec![E::default(); w.len() / k * depth];
        for (row, w) in rows.chunks_exact_mut(depth).zip(w.chunks_exact(k)) {
            E::fill(w, row);
        }
        transpose(&rows, depth, panel);
    });
    data
}

/// panel[d, j] = rows[j, d] for at most PANEL rows of `k` elements; other columns stay.
fn transpose<E: Element>(rows: &[E], k: usize, panel: &mut [E]) {
    // Eight values of every row at a time: the written lines stay in the first-level cache.
    for from in (0..k).step_by(8) {
        let to = (from + 8).min(k);
        for (j, row) in rows.chunks_exact(k).enumerate() {
            for (d, value) in (from..to).zip(&row[from..to]) {
                panel[d * PANEL + j] = *value;
            }
        }
    }
}

fn plain<E: Element>(w: &[f32], k: usize, n: usize) -> Vec<E> {
    let depth = E::count(k);
    let mut data = vec![E::default(); n.div_ceil(PANEL) * PANEL * depth];
    pool::chunks_mut(&mut data, PANEL * depth, |p, panel| {
        let first = p * PANEL;
        E::pack_columns(Columns { a: w, stride: n, first, width: PANEL.min(n - first), k }, panel, PANEL);
    });
    data
}

/// First row and height of the tiles that `rows` rows are cut into, as even as possible.
pub fn heights(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(ROWS);
    let edge = move |t: usize| t * rows / tiles;
    (0..tiles).map(move |t| (edge(t), edge(t + 1) - edge(t)))
}

/// Rows of a left operand in tiles of [`heights`], each tile `[k, height]`.
#[derive(Default)]
pub struct PackedRows<E> {
    rows: usize,
    depth: usize,
    data: Vec<E>,
}

impl<E: Element> PackedRows<E> {
    /// Packs rows `range` of the `[m, k]` operand `a`, into the memory of this one.
    pub fn set(&mut self, a: &[f32], layout: Left, m: usize, k: usize, range: Range<usize>) {
        match layout {
            Left::Rows => self.fill(&a[range.start * k..], k, range.len(), k),
            Left::Columns => self.fill_columns(&a[range.start.min(a.len())..], m, range.len(), k),
        }
    }

    fn reset(&mut self, rows: usize, k: usize) {
        (self.rows, self.depth) = (rows, E::count(k));
        self.data.resize(rows * self.depth, E::default());
    }

    /// Packs `rows` rows of `k` values, row r from `a[r * stride]`.
    pub fn fill(&mut self, a: &[f32], stride: usize, rows: usize, k: usize) {
        self.fill_from(a, |row| row * stride, rows, k);
    }

    /// Packs the rows of `k` values that start at `offsets`.
    pub fn gathered(a: &[f32], offsets: &[usize], k: usize) -> Self {
        let mut packed = Self::default();
        packed.fill_from(a, |row| offsets[row], offsets.len(), k);
        packed
    }

    fn fill_from(&mut self, a: &[f32], start: impl Fn(usize) -> usize, rows: usize, k: usize) {
        self.reset(rows, k);
        for (first, height) in heights(rows) {
            let mut starts = [0; ROWS];
            (0..height).for_each(|r| starts[r] = start(first + r));
            let tile = &mut self.data[first * self.depth..(first + height) * self.depth];
            E::pack_tile(a, &starts[..height], k, tile);
        }
    }

    /// Packs `rows` columns of `k` rows that are `stride` apart: the transpose.
    pub fn fill_columns(&mut self, a: &[f32], stride: usize, rows: usize, k: usize) {
        self.reset(rows, k);
        for (first, height) in heights(rows) {
            let tile = &mut self.data[first * self.depth..(first + height) * self.depth];
            E::pack_columns(Columns { a, stride, first, width: height, k }, tile, height);
        }
    }

    /// All elements.
    pub fn values_mut(&mut self) -> &mut [E] {
        &mut self.data
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The tile of `height` rows from `row`, one of [`heights`].
    pub fn tile(&self, row: usize, height: usize) -> &[E] {
        &self.data[row * self.depth..(row + height) * self.depth]
    }
}

impl PackedRows<f32> {
    /// Packs the transpose of the rows of `width` values that start at `offsets`: `width` rows of
    /// `offsets.len()` values.
    pub fn transposed(a: &[f32], offsets: &[usize], width: usize) -> Self {
        let mut packed = Self::default();
        packed.reset(width, offsets.len());
        for (first, height) in heights(width) {
            let tile = &mut packed.data[first * offsets.len()..(first + height) * offsets.len()];
            for (slots, from) in tile.chunks_exact_mut(height).zip(offsets) {
                slots.copy_from_slice(&a[from + first..from + first + height]);
            }
        }
        packed
    }
}
