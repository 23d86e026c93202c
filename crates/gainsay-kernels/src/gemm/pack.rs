//! Operand layouts.

use rayon::prelude::*;

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
        data.par_chunks_mut((PANEL * k).max(1)).zip(w.par_chunks((PANEL * k).max(1))).for_each(|(panel, rows)| {
            for (j, row) in rows.chunks_exact(k).enumerate() {
                for (slot, value) in panel.iter_mut().skip(j).step_by(PANEL).zip(row) {
                    *slot = *value;
                }
            }
        });
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

/// Where element (row, depth) of a left operand lies.
#[derive(Clone, Copy)]
pub struct Side {
    pub row_stride: usize,
    pub depth_stride: usize,
}

/// Heights of the tiles that `rows` rows are cut into, as even as possible.
pub fn heights(rows: usize) -> impl Iterator<Item = usize> {
    let tiles = rows.div_ceil(ROWS);
    (0..tiles).map(move |t| (t + 1) * rows / tiles - t * rows / tiles)
}

/// Packs `rows` rows in tiles of [`heights`], each tile `[k, height]`.
pub fn pack_rows(a: &[f32], side: Side, rows: usize, k: usize) -> Vec<f32> {
    let mut packed = vec![0.0; rows * k];
    let mut first = 0;
    for height in heights(rows) {
        let tile = &mut packed[first * k..(first + height) * k];
        for (d, slots) in tile.chunks_exact_mut(height).enumerate() {
            for (r, slot) in slots.iter_mut().enumerate() {
                *slot = a[(first + r) * side.row_stride + d * side.depth_stride];
            }
        }
        first += height;
    }
    packed
}
