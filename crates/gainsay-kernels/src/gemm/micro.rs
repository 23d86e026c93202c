//! The innermost product: a tile of rows against one panel.

use super::pack::PANEL;

/// Most rows of a tile.
pub const ROWS: usize = 14;

/// c[r, 0..width] (+)= sum over k of a[k, r] * b[k, 0..width]; `c` has `stride` values a row.
pub fn tile(a: &[f32], height: usize, b: &[f32], c: &mut [f32], stride: usize, width: usize, accumulate: bool) {
    for r in 0..height {
        let mut sums = [0f32; PANEL];
        if accumulate {
            sums[..width].copy_from_slice(&c[r * stride..r * stride + width]);
        }
        for (a, b) in a.chunks_exact(height).zip(b.chunks_exact(PANEL)) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a[r] * b;
            }
        }
        c[r * stride..r * stride + width].copy_from_slice(&sums[..width]);
    }
}
