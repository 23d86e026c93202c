//! Operand layouts.

use std::ops::Range;

use rayon::prelude::*;

use super::Left;
use super::micro::ROWS;

/// Columns of a panel of the right operand.
pub const PANEL: usize = 32;

/// A right operand `[k, n]` in panels of [`PANEL`] columns, each panel `[k, PANEL]` with zeros
/// beyond the last column.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    n: usize,
    k: usize,
    data: Vec<f32>,
}

impl PackedWeight {
    /// Packs Wᵀ for W `[n, k]` row-major: for y = x·Wᵀ.
    pub fn transposed(w: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(w.len(), n * k, "weight is not [{n}, {k}]");
        let mut data = vec![0.0; n.div_ceil(PANEL) * PANEL * k];
        let size = (PANEL * k).max(1);
        data.par_chunks_mut(size).zip(w.par_chunks(size)).for_each(|(panel, rows)| transpose(rows, k, panel));
        Self { n, k, data }
    }

    /// Packs W `[k, n]` row-major as it is: for dx = dy·W.
    pub fn plain(w: &[f32], k: usize, n: usize) -> Self {
        assert_eq!(w.len(), n * k, "weight is not [{k}, {n}]");
        let mut data = vec![0.0; n.div_ceil(PANEL) * PANEL * k];
        data.par_chunks_mut((PANEL * k).max(1)).enumerate().for_each(|(p, panel)| {
            let width = PANEL.min(n - p * PANEL);
            for (slots, row) in panel.chunks_exact_mut(PANEL).zip(w.chunks_exact(n)) {
                slots[..width].copy_from_slice(&row[p * PANEL..p * PANEL + width]);
            }
        });
        Self { n, k, data }
    }

    /// n.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// k.
    pub fn depth(&self) -> usize {
        self.k
    }

    pub(crate) fn panel(&self, p: usize) -> &[f32] {
        &self.data[p * PANEL * self.k..(p + 1) * PANEL * self.k]
    }
}

/// panel[d, j] = rows[j, d] for at most PANEL rows of `k` values; other columns stay.
fn transpose(rows: &[f32], k: usize, panel: &mut [f32]) {
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

/// First row and height of the tiles that `rows` rows are cut into, as even as possible.
pub fn heights(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(ROWS);
    let edge = move |t: usize| t * rows / tiles;
    (0..tiles).map(move |t| (edge(t), edge(t + 1) - edge(t)))
}

/// Rows of a left operand in tiles of [`heights`], each tile `[k, height]`.
pub struct PackedRows {
    rows: usize,
    k: usize,
    data: Vec<f32>,
}

impl PackedRows {
    /// Packs rows `range` of the `[m, k]` operand `a`.
    pub fn new(a: &[f32], layout: Left, m: usize, k: usize, range: Range<usize>) -> Self {
        match layout {
            Left::Rows => Self::strided(&a[range.start * k..], k, 1, range.len(), k),
            Left::Columns => Self::strided(&a[range.start.min(a.len())..], 1, m, range.len(), k),
        }
    }

    /// Packs `rows` rows of `k` values; value d of row r is `a[r * row_stride + d * step]`.
    pub fn strided(a: &[f32], row_stride: usize, step: usize, rows: usize, k: usize) -> Self {
        let mut packed = Self { rows, k, data: Vec::new() };
        packed.fill(a, row_stride, step, rows, k);
        packed
    }

    /// As [`PackedRows::strided`], into the memory of this one.
    pub fn fill(&mut self, a: &[f32], row_stride: usize, step: usize, rows: usize, k: usize) {
        (self.rows, self.k) = (rows, k);
        self.data.resize(rows * k, 0.0);
        for (first, height) in heights(rows) {
            let tile = &mut self.data[first * k..(first + height) * k];
            if row_stride == 1 {
                for (d, slots) in tile.chunks_exact_mut(height).enumerate() {
                    slots.copy_from_slice(&a[first + d * step..first + d * step + height]);
                }
            } else {
                for r in 0..height {
                    let row = a[(first + r) * row_stride..].iter().step_by(step);
                    tile.iter_mut().skip(r).step_by(height).zip(row).for_each(|(slot, value)| *slot = *value);
                }
            }
        }
    }

    /// Packs the rows of `k` values that start at `offsets`.
    pub fn gathered(a: &[f32], offsets: &[usize], k: usize) -> Self {
        let mut data = vec![0.0; offsets.len() * k];
        for (first, height) in heights(offsets.len()) {
            let tile = &mut data[first * k..(first + height) * k];
            for (r, from) in offsets[first..first + height].iter().enumerate() {
                let row = &a[*from..from + k];
                tile.iter_mut().skip(r).step_by(height).zip(row).for_each(|(slot, value)| *slot = *value);
            }
        }
        Self { rows: offsets.len(), k, data }
    }

    /// Packs the transpose of the rows of `width` values that start at `offsets`: `width` rows of
    /// `offsets.len()` values.
    pub fn transposed(a: &[f32], offsets: &[usize], width: usize) -> Self {
        let k = offsets.len();
        let mut data = vec![0.0; width * k];
        for (first, height) in heights(width) {
            let tile = &mut data[first * k..(first + height) * k];
            for (slots, from) in tile.chunks_exact_mut(height).zip(offsets) {
                slots.copy_from_slice(&a[from + first..from + first + height]);
            }
        }
        Self { rows: width, k, data }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The tile of `height` rows from `row`, one of [`heights`].
    pub fn tile(&self, row: usize, height: usize) -> &[f32] {
        &self.data[row * self.k..(row + height) * self.k]
    }
}
