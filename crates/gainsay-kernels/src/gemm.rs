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

use crate::pool;

use element::{Element, Pair, Staged};
use micro::{ROWS, Tile};
pub use pack::PackedWeight;
use pack::{PANEL, PackedRows, Panels, heights, panel};

/// Rows of the left operand that are packed and multiplied together hold about this many values,
/// so that they stay in the second-level cache.
const BLOCK_VALUES: usize = 96 * 1024;

/// Rows from which it pays to widen bf16 panels to f32 where the machine has no products of pairs.
pub(crate) const WIDE: usize = 2 * ROWS;

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
    let n = b.columns();
    assert_eq!(c.len(), m * n, "result is not [{m}, {n}]");
    compute(m, a, layout, &[b], &[Shared::new(c)], accumulate);
}

/// a·B for each of `rights`, which have one depth and one precision: the left operand is packed
/// once for all.
pub fn products<const N: usize>(m: usize, a: &[f32], layout: Left, rights: [&PackedWeight; N]) -> [Vec<f32>; N] {
    let mut results = rights.map(|b| Vec::with_capacity(m * b.columns()));
    let shared: Vec<Shared> = results.iter_mut().map(|c| Shared(c.as_mut_ptr())).collect();
    compute(m, a, layout, &rights, &shared, false);
    for (result, b) in results.iter_mut().zip(rights) {
        // SAFETY: the room was reserved above, and the product writes each of its elements.
        unsafe { result.set_len(m * b.columns()) };
    }
    results
}

/// Each element of `results` is written (read first only with `accumulate`).
fn compute(m: usize, a: &[f32], layout: Left, rights: &[&PackedWeight], results: &[Shared], accumulate: bool) {
    let k = rights[0].depth();
    assert!(rights.iter().all(|b| b.depth() == k), "right operands of different depths");
    assert_eq!(a.len(), m * k, "left operand is not [{m}, {k}]");
    let left = LeftOperand { a, layout, m, k };
    match rights[0].panels() {
        Panels::F32(_) => left.times::<f32, f32>(rights, results, accumulate),
        // The same multiply-adds, if no pair has to be filled up.
        Panels::Bf16(_) if m >= WIDE && k.is_multiple_of(2) && !element::multiplies_pairs() => {
            left.times::<Pair, f32>(rights, results, accumulate);
        }
        Panels::Bf16(_) => left.times::<Pair, Pair>(rights, results, accumulate),
    }
}

/// Panel `panel` of a right operand of `n` columns, and where its product goes.
struct Strip<'a, E> {
    b: &'a [E],
    n: usize,
    panel: usize,
    result: Shared,
}

#[derive(Clone, Copy)]
struct LeftOperand<'a> {
    a: &'a [f32],
    layout: Left,
    m: usize,
    k: usize,
}

impl LeftOperand<'_> {
    /// The product of right operands of elements `E` by means of elements `T`.
    fn times<E: Staged<T>, T: Element>(self, rights: &[&PackedWeight], results: &[Shared], accumulate: bool) {
        let Self { a, layout, m, k } = self;
        let strips: Vec<Strip<E>> = rights
            .iter()
            .zip(results)
            .flat_map(|(right, result)| {
                let (n, panels) = (right.columns(), E::panels(right));
                let strip = move |p| Strip { b: panel(panels, k, p), n, panel: p, result: *result };
                (0..n.div_ceil(PANEL)).map(strip)
            })
            .collect();
        if m == 0 || strips.is_empty() {
            return;
        }
        let threads = if m * k * strips.len() * PANEL < SMALL { 1 } else { pool::threads() };
        // Even blocks of rows, at most `most` each; columns are cut too where rows are few.
        let most = (BLOCK_VALUES / k.max(1)).clamp(2 * ROWS, 16 * ROWS);
        let blocks = m.div_ceil(most);
        let groups = if threads == 1 { 1 } else { (4 * threads).div_ceil(blocks).min(strips.len()) };
        let block = m.div_ceil(blocks);
        let rows_of = |i: usize| (i * block)..((i + 1) * block).min(m);
        let pack = |packed: &mut PackedRows<T>, i: usize| {
            packed.set(a, layout, m, k, rows_of(i));
            E::round(packed.values_mut());
        };
        let whole = |(packed, room): &mut (PackedRows<T>, Vec<T>), i: usize| {
            pack(packed, i);
            multiply(packed, i * block, &strips, room, accumulate);
        };
        if threads == 1 {
            let mut scratch = Default::default();
            (0..blocks).for_each(|i| whole(&mut scratch, i));
        } else if groups == 1 {
            pool::each_with(blocks, Default::default, whole);
        } else {
            let mut packed: Vec<PackedRows<T>> = (0..blocks).map(|_| PackedRows::default()).collect();
            pool::each_mut(&mut packed, |i, packed| pack(packed, i));
            pool::each_with(blocks * groups, Vec::new, |room, task| {
                let (i, g) = (task / groups, task % groups);
                let mine = &strips[g * strips.len() / groups..(g + 1) * strips.len() / groups];
                multiply(&packed[i], i * block, mine, room, accumulate);
            });
        }
    }
}

/// The products of a block of rows, the first of which is row `first_row` of the results. `room` is where panels
/// are widened.
fn multiply<E: Staged<T>, T: Element>(
    rows: &PackedRows<T>,
    first_row: usize,
    strips: &[Strip<E>],
    room: &mut Vec<T>,
    accumulate: bool,
) {
    let tiles = rows.rows().div_ceil(ROWS);
    for (i, strip) in strips.iter().enumerate() {
        let (n, column) = (strip.n, strip.panel * PANEL);
        let next = strips.get(i + 1).map_or(&[][..], |strip| E::ahead(strip.b));
        let b = E::stage(strip.b, room);
        for (t, (row, height)) in heights(rows.rows()).enumerate() {
            let width = PANEL.min(n - column);
            // Each tile fetches its share of the next panel.
            let ahead = &next[t * next.len() / tiles..(t + 1) * next.len() / tiles];
            let tile = Tile { a: rows.tile(row, height), height, b, width, accumulate, ahead };
            // SAFETY: rows below m and columns below n of the result, and no two calls share a
            // row of a strip.
            unsafe { tile.run(strip.result.at((first_row + row) * n + column), n) };
        }
    }
}
