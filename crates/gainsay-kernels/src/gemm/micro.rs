//! The innermost product: a tile of rows against one panel.

use super::element::Element;
use super::pack::PANEL;

/// Most rows of a tile: with two 16-lane vectors a row, 28 of 32 registers hold sums.
pub const ROWS: usize = 14;

/// c[r, 0..width] (+)= sum over k of a[k, r] * b[k, 0..width], k ascending; `a` is
/// `[k, height]`, `b` `[k, PANEL]` in elements, and row r of the result starts at
/// `c[r * stride]`.
#[derive(Clone, Copy)]
pub struct Tile<'a, E> {
    pub a: &'a [E],
    pub height: usize,
    pub b: &'a [E],
    pub width: usize,
    pub accumulate: bool,
    /// What is brought into the second-level cache meanwhile; may be empty.
    pub ahead: &'a [E],
}

impl<E: Element> Tile<'_, E> {
    /// Computes the tile.
    ///
    /// # Safety
    /// For each row r < height, `c.add(r * stride)` is valid for `width` reads and writes, which
    /// no one else makes meanwhile.
    pub unsafe fn run(self, c: *mut f32, stride: usize) {
        assert!(self.width <= PANEL && (1..=ROWS).contains(&self.height));
        assert_eq!(self.a.len() * PANEL, self.b.len() * self.height);
        // SAFETY: the operands agree in depth (above), and the caller answers for `c`.
        unsafe { E::run(self, c, stride) }
    }

    /// [`Tile::run`] into a slice that holds the rows.
    pub fn run_in(self, c: &mut [f32], stride: usize) {
        assert!(c.len() >= (self.height - 1) * stride + self.width);
        // SAFETY: the slice covers every row.
        unsafe { self.run(c.as_mut_ptr(), stride) }
    }
}

/// Rows and columns of the portable kernel's registers.
const SMALL: (usize, usize) = (4, 8);

/// # Safety
/// As [`Tile::run`].
#[inline(always)]
pub unsafe fn portable<E: Element>(t: Tile<E>, c: *mut f32, stride: usize) {
    for row in (0..t.height).step_by(SMALL.0) {
        for column in (0..t.width).step_by(SMALL.1) {
            let (rows, width) = (SMALL.0.min(t.height - row), SMALL.1.min(t.width - column));
            let mut sums = [[0f32; SMALL.1]; SMALL.0];
            for (r, sums) in sums.iter_mut().enumerate().take(rows * usize::from(t.accumulate)) {
                // SAFETY: row + r < height and column + width <= t.width.
                let c = unsafe { std::slice::from_raw_parts(c.add((row + r) * stride + column), width) };
                sums[..width].copy_from_slice(c);
            }
            for (a, b) in t.a.chunks_exact(t.height).zip(t.b.chunks_exact(PANEL)) {
                let b = &b[column..column + SMALL.1];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = a[(row + r).min(t.height - 1)];
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = a.madd(*b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows) {
                // SAFETY: as above.
                let c = unsafe { std::slice::from_raw_parts_mut(c.add((row + r) * stride + column), width) };
                c.copy_from_slice(&sums[..width]);
            }
        }
    }
}
