//! Matrix products with the right operand packed in panels.

mod micro;
mod pack;

use rayon::prelude::*;

pub use pack::PackedWeight;
use pack::{PANEL, Side, pack_rows};

/// Rows of the left operand that are packed and multiplied together are about this many values,
/// so that they stay in the second-level cache.
const BLOCK_VALUES: usize = 96 * 1024;

/// How the left operand is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// `[m, k]`, row-major.
    Rows,
    /// `[k, m]`, row-major: the product uses its transpose.
    Columns,
}

/// c = a·B, or c += a·B with `accumulate`; `a` is `[m, k]` (or its transpose, see [`Left`]),
/// B the packed `[k, n]` operand and `c` `[m, n]`. Each element of the product is a single chain
/// of fused multiply-adds over k in ascending order.
pub fn matmul(m: usize, a: &[f32], layout: Left, b: &PackedWeight, c: &mut [f32], accumulate: bool) {
    let (n, k) = (b.columns(), b.depth());
    assert_eq!(a.len(), m * k, "left operand is not [{m}, {k}]");
    assert_eq!(c.len(), m * n, "result is not [{m}, {n}]");
    if m == 0 || n == 0 {
        return;
    }
    let block = (BLOCK_VALUES / k.max(1)).clamp(micro::ROWS, 16 * micro::ROWS).next_multiple_of(micro::ROWS);
    let side = match layout {
        Left::Rows => Side { row_stride: k, depth_stride: 1 },
        Left::Columns => Side { row_stride: 1, depth_stride: m },
    };
    c.par_chunks_mut(block * n).enumerate().for_each(|(i, c)| {
        let rows = c.len() / n;
        let packed = pack_rows(&a[i * block * side.row_stride..], side, rows, k);
        for panel in 0..n.div_ceil(PANEL) {
            let mut row = 0;
            for height in pack::heights(rows) {
                micro::tile(
                    &packed[row * k..(row + height) * k],
                    height,
                    b.panel(panel),
                    &mut c[row * n + panel * PANEL..],
                    n,
                    PANEL.min(n - panel * PANEL),
                    accumulate,
                );
                row += height;
            }
        }
    });
}
