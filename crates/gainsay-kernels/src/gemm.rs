//! Matrix products with the right operand packed in panels.
//!
//! Each element of a product is one chain of (fused) multiply-adds over the contraction in
//! ascending order, whatever the tile, block or thread that computes it: a row's bits depend on
//! that row and the right operand alone.

pub(crate) mod element;
pub(crate) mod micro;
pub(crate) mod pack;
#[cfg(target_arch = "x86_64")]
mod x86;

use rayon::prelude::*;

use element::Element;
use micro::{ROWS, Tile};
pub use pack::PackedWeight;
use pack::{PANEL, PackedRows, Panels, heights, panel};

/// Rows of the left operand that are packed and multiplied together hold about this many values,
/// so that they stay in the second-level cache.
const BLOCK_VALUES: usize = 96 * 1024;

/// Multiply-adds below which a product stays on the calling thread.
const SMALL: usize = 1 << 16;

/// What a product's operands are rounded to; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not rounded.
    #[default]
    F32,
    /// To the nearest bf16, ties to even.
    Bf16,
}

/// How the left operand is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// `[m, k]`, row-major.
    Rows,
    /// `[k, m]`, row-major: the product uses its transpose.
    Columns,
}

/// A result that several threads fill, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: only a pointer; each use says why its elements are its own.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(slice: &mut [f32]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// # Safety
    /// As [`pointer::add`]; what is done with the result is the caller's.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// c = a·B, or c += a·B with `accumulate`; `a` is `[m, k]` (or its transpose, see [`Left`]),
/// B the packed `[k, n]` operand and `c` `[m, n]`. With k = 0 the product is zero. The left
/// operand is rounded to B's precision.
pub fn matmul(m: usize, a: &[f32], layout: Left, b: &PackedWeight, c: &mut [f32], accumulate: bool) {
    let (n, k) = (b.columns(), b.depth());
    assert_eq!(a.len(), m * k, "left operand is not [{m}, {k}]");
    assert_eq!(c.len(), m * n, "result is not [{m}, {n}]");
    if m == 0 || n == 0 {
        return;
    }
    let shape = Shape { m, n, k };
    match b.panels() {
        Panels::F32(panels) => product::<f32>(shape, a, layout, panels, c, accumulate),
        Panels::Bf16(panels) => product::<element::Pair>(shape, a, layout, panels, c, accumulate),
    }
}

#[derive(Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

fn product<E: Element>(shape: Shape, a: &[f32], layout: Left, b: &[E], c: &mut [f32], accumulate: bool) {
    let Shape { m, n, k } = shape;
    let threads = if m * n * k < SMALL { 1 } else { rayon::current_num_threads() };
    // Even blocks of rows, at most `most` each; columns are cut too where rows are few.
    let most = (BLOCK_VALUES / k.max(1)).clamp(2 * ROWS, 16 * ROWS);
    let blocks = m.div_ceil(most);
    let panels = n.div_ceil(PANEL);
    let groups = if threads == 1 { 1 } else { (4 * threads).div_ceil(blocks).min(panels) };
    let block = m.div_ceil(blocks);
    let result = Shared::new(c);
    let run = |packed: &PackedRows<E>, first_row: usize, panels: std::ops::Range<usize>| {
        for p in panels {
            let (b, width) = (panel(b, k, p), PANEL.min(n - p * PANEL));
            for (row, height) in heights(packed.rows()) {
                let tile = Tile { a: packed.tile(row, height), height, b, width, accumulate };
                // SAFETY: rows below m and columns below n of `c`, and no two (block, group)
                // pairs share an element.
                unsafe { tile.run(result.at((first_row + row) * n + p * PANEL), n) };
            }
        }
    };
    let rows_of = |i: usize| (i * block)..((i + 1) * block).min(m);
    let pack = |i: usize| PackedRows::new(a, layout, m, k, rows_of(i));
    if threads == 1 {
        (0..blocks).for_each(|i| run(&pack(i), i * block, 0..panels));
    } else if groups == 1 {
        (0..blocks).into_par_iter().for_each(|i| run(&pack(i), i * block, 0..panels));
    } else {
        let packed: Vec<PackedRows<E>> = (0..blocks).into_par_iter().map(pack).collect();
        (0..blocks * groups).into_par_iter().for_each(|task| {
            let (i, g) = (task / groups, task % groups);
            run(&packed[i], i * block, g * panels / groups..(g + 1) * panels / groups);
        });
    }
}
