//! The innermost product: a tile of rows against one panel, for each instruction set.

use super::pack::PANEL;
use crate::isa::{Isa, isa, madd};

/// Most rows of a tile: with two 16-lane vectors a row, 28 of 32 registers hold sums.
pub const ROWS: usize = 14;

/// c[r, 0..width] (+)= sum over k of a[k, r] * b[k, 0..width], k ascending; `a` is
/// `[k, height]`, `b` `[k, PANEL]`, and row r of the result starts at `c[r * stride]`.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    pub a: &'a [f32],
    pub height: usize,
    pub b: &'a [f32],
    pub width: usize,
    pub accumulate: bool,
}

impl Tile<'_> {
    /// Computes the tile.
    ///
    /// # Safety
    /// For each row r < height, `c.add(r * stride)` is valid for `width` reads and writes, which
    /// no one else makes meanwhile.
    pub unsafe fn run(self, c: *mut f32, stride: usize) {
        assert!(self.width <= PANEL && (1..=ROWS).contains(&self.height));
        assert_eq!(self.a.len() * PANEL, self.b.len() * self.height);
        // SAFETY: the operands agree in depth (above), the caller answers for `c`, and isa() is
        // never better than what the machine reports.
        unsafe {
            match isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => x86::avx512(self, c, stride),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86::avx2(self, c, stride),
                _ => portable(self, c, stride),
            }
        }
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
unsafe fn portable(t: Tile, c: *mut f32, stride: usize) {
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
                        *sum = madd::<false>(a, *b, *sum);
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{PANEL, Tile};

    macro_rules! by_height {
        ($height:expr, $kernel:ident::<$width:literal>$args:tt, $($h:literal)*) => {
            match $height {
                $($h => $kernel::<$h, $width>$args,)*
                _ => unreachable!("tile height"),
            }
        };
    }

    /// # Safety
    /// As [`Tile::run`], on a machine with AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512(t: Tile, c: *mut f32, stride: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            if t.width <= 16 {
                by_height!(t.height, avx512_rows::<1>(t, c, stride), 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            } else {
                by_height!(t.height, avx512_rows::<2>(t, c, stride), 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
            }
        }
    }

    /// `R` rows of `V` vectors.
    ///
    /// # Safety
    /// As [`avx512`]; `t.height == R` and `t.width <= 16 * V`.
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512_rows<const R: usize, const V: usize>(t: Tile, c: *mut f32, stride: usize) {
        let mask = |v: usize| -> __mmask16 {
            let lanes = t.width.saturating_sub(16 * v).min(16);
            ((1u32 << lanes) - 1) as u16
        };
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        if t.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: masked to the row's `width` values.
                    *sum = unsafe { _mm512_maskz_loadu_ps(mask(v), c.add(r * stride + 16 * v)) };
                }
            }
        }
        let (mut a, mut b) = (t.a.as_ptr(), t.b.as_ptr());
        for _ in 0..t.b.len() / PANEL {
            // SAFETY: `a` holds R and `b` PANEL values for each of these steps.
            unsafe {
                let mut columns = [_mm512_setzero_ps(); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = _mm512_loadu_ps(b.add(16 * v));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = _mm512_set1_ps(*a.add(r));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_fmadd_ps(left, column, *sum);
                    }
                }
                a = a.add(R);
                b = b.add(PANEL);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: masked to the row's `width` values.
                unsafe { _mm512_mask_storeu_ps(c.add(r * stride + 16 * v), mask(v), *sum) };
            }
        }
    }

    /// Halves of the panel by at most five rows: ten sums, two columns and a left value.
    ///
    /// # Safety
    /// As [`Tile::run`], on a machine with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(t: Tile, c: *mut f32, stride: usize) {
        for column in (0..t.width).step_by(16) {
            let parts = t.height.div_ceil(5);
            for part in 0..parts {
                let (from, to) = (part * t.height / parts, (part + 1) * t.height / parts);
                // SAFETY: the caller's promises, for a part of the tile.
                unsafe { by_height!(to - from, avx2_rows::<2>(t, from, column, c, stride), 1 2 3 4 5) }
            }
        }
    }

    /// `R` rows from row `from`, `V` vectors from `column`.
    ///
    /// # Safety
    /// As [`avx2`]; `from + R <= t.height`, `column < t.width`, `column + 8 * V <= PANEL`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_rows<const R: usize, const V: usize>(
        t: Tile,
        from: usize,
        column: usize,
        c: *mut f32,
        stride: usize,
    ) {
        let width = (t.width - column).min(8 * V);
        let mut edge = [[0f32; 16]; R];
        let mut sums = [[_mm256_setzero_ps(); V]; R];
        if t.accumulate {
            for (r, edge) in edge.iter_mut().enumerate() {
                // SAFETY: `width` values of the row.
                let c = unsafe { std::slice::from_raw_parts(c.add((from + r) * stride + column), width) };
                edge[..width].copy_from_slice(c);
                for (v, sum) in sums[r].iter_mut().enumerate() {
                    // SAFETY: 16 values.
                    *sum = unsafe { _mm256_loadu_ps(edge.as_ptr().add(8 * v)) };
                }
            }
        }
        // SAFETY: from < height.
        let (mut a, mut b) = unsafe { (t.a.as_ptr().add(from), t.b.as_ptr().add(column)) };
        for _ in 0..t.b.len() / PANEL {
            // SAFETY: `a` holds `height` and `b` PANEL values for each of these steps; the last
            // step moves the pointers past the end without reading there.
            unsafe {
                let mut columns = [_mm256_setzero_ps(); V];
                for (v, value) in columns.iter_mut().enumerate() {
                    *value = _mm256_loadu_ps(b.add(8 * v));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*a.add(r));
                    for (sum, value) in sums.iter_mut().zip(columns) {
                        *sum = _mm256_fmadd_ps(left, value, *sum);
                    }
                }
                a = a.wrapping_add(t.height);
                b = b.wrapping_add(PANEL);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: 16 values.
                unsafe { _mm256_storeu_ps(edge[r].as_mut_ptr().add(8 * v), *sum) };
            }
            // SAFETY: `width` values of the row.
            let c = unsafe { std::slice::from_raw_parts_mut(c.add((from + r) * stride + column), width) };
            c.copy_from_slice(&edge[r][..width]);
        }
    }
}
