//! The tile kernels for x86-64.

use std::arch::x86_64::*;

use super::element::{Columns, Pair};
use super::micro::{ROWS, Tile};
use super::pack::PANEL;

macro_rules! by_height {
    ($height:expr, $kernel:ident::<$width:literal>$args:tt, $($h:literal)*) => {
        match $height {
            $($h => $kernel::<$h, $width>$args,)*
            _ => unreachable!("tile height"),
        }
    };
}

/// Defines a tile kernel of up to 14 rows by two 16-lane vectors; `$left` broadcasts the element
/// behind a pointer, `$right` loads 16 of them, `$madd` adds a product to the sums.
macro_rules! avx512_tile {
    ($features:literal, $element:ty, $name:ident, $rows:ident, $left:expr, $right:expr, $madd:expr) => {
        /// # Safety
        /// As [`Tile::run`], on a machine with these features.
        #[target_feature(enable = $features)]
        pub unsafe fn $name(t: Tile<$element>, c: *mut f32, stride: usize) {
            // SAFETY: the caller's promises.
            unsafe {
                if t.width <= 16 {
                    by_height!(t.height, $rows::<1>(t, c, stride), 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
                } else {
                    by_height!(t.height, $rows::<2>(t, c, stride), 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
                }
            }
        }

        /// `R` rows of `V` vectors.
        ///
        /// # Safety
        /// As above; `t.height == R` and `t.width <= 16 * V`.
        #[target_feature(enable = $features)]
        unsafe fn $rows<const R: usize, const V: usize>(t: Tile<$element>, c: *mut f32, stride: usize) {
            let mask = |v: usize| -> __mmask16 {
                let lanes = t.width.saturating_sub(16 * v).min(16);
                ((1u32 << lanes) - 1) as u16
            };
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            if t.accumulate {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: masked to the row's `width` values.
                        *sum = unsafe { _mm512_maskz_loadu_ps(mask(v), c.wrapping_add(r * stride + 16 * v)) };
                    }
                }
            }
            let (mut a, mut b) = (t.a.as_ptr(), t.b.as_ptr());
            let steps = t.b.len() / PANEL;
            // With nothing to fetch, what is there already.
            let mut ahead = if t.ahead.is_empty() { b } else { t.ahead.as_ptr() };
            let stride_ahead = t.ahead.len() / steps.max(1);
            for _ in 0..steps {
                // SAFETY: `a` holds R and `b` PANEL elements for each of these steps; fetching
                // ahead reads nothing.
                unsafe {
                    let mut columns = [$right(b); V];
                    if V == 2 {
                        columns[V - 1] = $right(b.add(16));
                    }
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(16).cast());
                    ahead = ahead.wrapping_add(stride_ahead);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = $left(a.add(r));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = $madd(*sum, left, column);
                        }
                    }
                    a = a.add(R);
                    b = b.add(PANEL);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let to = c.wrapping_add(r * stride + 16 * v);
                    // Masked stores are slow on some processors.
                    if t.width == 16 * V {
                        // SAFETY: the whole vector is within the row's `width` values.
                        unsafe { _mm512_storeu_ps(to, *sum) };
                    } else {
                        // SAFETY: masked to the row's `width` values.
                        unsafe { _mm512_mask_storeu_ps(to, mask(v), *sum) };
                    }
                }
            }
        }
    };
}

avx512_tile!(
    "avx512f",
    f32,
    avx512_f32,
    avx512_f32_rows,
    |a: *const f32| _mm512_set1_ps(*a),
    |b: *const f32| _mm512_loadu_ps(b),
    |sum: __m512, a: __m512, b: __m512| _mm512_fmadd_ps(a, b, sum)
);

avx512_tile!(
    "avx512f,avx512bf16",
    Pair,
    avx512_bf16,
    avx512_bf16_rows,
    |a: *const Pair| _mm512_set1_epi32(*a.cast::<i32>()),
    |b: *const Pair| _mm512_loadu_si512(b.cast()),
    |sum: __m512, a: __m512i, b: __m512i| {
        // SAFETY: both types are 512 bits without invalid values.
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
    }
);

/// Defines a tile kernel of halves of the panel by at most five rows: ten sums, two columns and a
/// left value. Each `$left`, `$right` broadcasts and loads one depth of the elements behind a
/// pointer, in ascending order.
macro_rules! avx2_tile {
    ($element:ty, $name:ident, $rows:ident, $(($left:expr, $right:expr)),+) => {
        /// # Safety
        /// As [`Tile::run`], on a machine with AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        pub unsafe fn $name(t: Tile<$element>, c: *mut f32, stride: usize) {
            for column in (0..t.width).step_by(16) {
                let parts = t.height.div_ceil(5);
                for part in 0..parts {
                    let (from, to) = (part * t.height / parts, (part + 1) * t.height / parts);
                    // SAFETY: the caller's promises, for a part of the tile.
                    unsafe { by_height!(to - from, $rows::<2>(t, from, column, c, stride), 1 2 3 4 5) }
                }
            }
        }

        /// `R` rows from row `from`, `V` vectors from `column`.
        ///
        /// # Safety
        /// As above; `from + R <= t.height`, `column < t.width`, `column + 8 * V <= PANEL`.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $rows<const R: usize, const V: usize>(
            t: Tile<$element>,
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
            // With k = 0 both are empty, and nothing is read.
            let (mut a, mut b) = (t.a.as_ptr().wrapping_add(from), t.b.as_ptr().wrapping_add(column));
            for _ in 0..t.b.len() / PANEL {
                // SAFETY: `a` holds `height` and `b` PANEL elements for each of these steps; the
                // last step moves the pointers past the end without reading there.
                unsafe {
                    $(
                        let mut columns = [_mm256_setzero_ps(); V];
                        for (v, value) in columns.iter_mut().enumerate() {
                            *value = $right(b.add(8 * v));
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let left = $left(a.add(r));
                            for (sum, value) in sums.iter_mut().zip(columns) {
                                *sum = _mm256_fmadd_ps(left, value, *sum);
                            }
                        }
                    )+
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
    };
}

avx2_tile!(f32, avx2_f32, avx2_f32_rows, (|a: *const f32| _mm256_set1_ps(*a), |b: *const f32| _mm256_loadu_ps(b)));

/// The lower bf16 of each pair as f32.
#[target_feature(enable = "avx2")]
fn low(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
}

/// The higher bf16 of each pair as f32.
#[target_feature(enable = "avx2")]
fn high(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32 as i32)))
}

avx2_tile!(
    Pair,
    avx2_bf16,
    avx2_bf16_rows,
    (|a: *const Pair| low(_mm256_set1_epi32(*a.cast::<i32>())), |b: *const Pair| low(_mm256_loadu_si256(b.cast()))),
    (|a: *const Pair| high(_mm256_set1_epi32(*a.cast::<i32>())), |b: *const Pair| high(_mm256_loadu_si256(b.cast())))
);

/// Transposes 16 rows of 16 32-bit values.
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows, then fours: u[4 g + c] holds, in its part b of 128 bits, column 4 b + c of
    // rows 4 g to 4 g + 3.
    let mut u = [_mm512_setzero_si512(); 16];
    for g in 0..4 {
        let (lo, hi) = (_mm512_unpacklo_epi32(r[4 * g], r[4 * g + 1]), _mm512_unpackhi_epi32(r[4 * g], r[4 * g + 1]));
        let (lo2, hi2) =
            (_mm512_unpacklo_epi32(r[4 * g + 2], r[4 * g + 3]), _mm512_unpackhi_epi32(r[4 * g + 2], r[4 * g + 3]));
        u[4 * g] = _mm512_unpacklo_epi64(lo, lo2);
        u[4 * g + 1] = _mm512_unpackhi_epi64(lo, lo2);
        u[4 * g + 2] = _mm512_unpacklo_epi64(hi, hi2);
        u[4 * g + 3] = _mm512_unpackhi_epi64(hi, hi2);
    }
    let mut out = [_mm512_setzero_si512(); 16];
    for c in 0..4 {
        // Parts 0 and 2, then 1 and 3, of the first and of the last eight rows.
        let (even, even2) =
            (_mm512_shuffle_i32x4::<0x88>(u[c], u[4 + c]), _mm512_shuffle_i32x4::<0x88>(u[8 + c], u[12 + c]));
        let (odd, odd2) =
            (_mm512_shuffle_i32x4::<0xDD>(u[c], u[4 + c]), _mm512_shuffle_i32x4::<0xDD>(u[8 + c], u[12 + c]));
        out[c] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        out[8 + c] = _mm512_shuffle_i32x4::<0xDD>(even, even2);
        out[12 + c] = _mm512_shuffle_i32x4::<0xDD>(odd, odd2);
    }
    out
}

/// Defines the packing of a tile: `$load` reads 16 elements of a row from a pointer to its values
/// and the number of values that are left there.
macro_rules! pack_tile {
    ($features:literal, $element:ty, $name:ident, $depths:literal, $load:expr) => {
        /// out[d, r] = element d of the `k` values that start at `a[starts[r]]`.
        #[target_feature(enable = $features)]
        pub fn $name(a: &[f32], starts: &[usize], k: usize, out: &mut [$element]) {
            let height = starts.len();
            assert!(height <= ROWS && out.len() == k.div_ceil($depths) * height);
            assert!(starts.iter().all(|s| s + k <= a.len()));
            let mask = ((1u32 << height) - 1) as __mmask16;
            for d in (0..k).step_by(16 * $depths) {
                let mut rows = [_mm512_setzero_si512(); 16];
                for (row, start) in rows.iter_mut().zip(starts) {
                    // SAFETY: start + k values are in the slice, and `$load` reads at most k - d.
                    *row = unsafe { $load(a.as_ptr().add(start + d), k - d) };
                }
                let slots = out[d / $depths * height..].chunks_exact_mut(height);
                for (slots, column) in slots.zip(transpose(rows)) {
                    // SAFETY: masked to the `height` values of the chunk; both element types
                    // are 32 bits.
                    unsafe { _mm512_mask_storeu_epi32(slots.as_mut_ptr().cast(), mask, column) };
                }
            }
        }
    };
}

/// Lanes of a vector that starts `skip` values into the `left` remaining ones.
fn lanes(left: usize, skip: usize) -> __mmask16 {
    ((1u32 << left.saturating_sub(skip).min(16)) - 1) as __mmask16
}

pack_tile!("avx512f", f32, pack_f32, 1, |from: *const f32, left: usize| {
    _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes(left, 0), from))
});

pack_tile!("avx512f,avx512bf16", Pair, pack_bf16, 2, |from: *const f32, left: usize| {
    let low = _mm512_maskz_loadu_ps(lanes(left, 0), from);
    let high = _mm512_maskz_loadu_ps(lanes(left, 16), from.wrapping_add(16));
    // SAFETY: both types are 512 bits without invalid values.
    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
});

/// [`super::element::Element::pack_columns`] for pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub fn columns_bf16(c: Columns<'_>, out: &mut [Pair], out_stride: usize) {
    let Columns { a, stride, first, width, k } = c;
    if k == 0 || width == 0 {
        return;
    }
    assert!(width <= out_stride && (k - 1) * stride + first + width <= a.len());
    assert!((k.div_ceil(2) - 1) * out_stride + width <= out.len());
    // Sixteen values of a row as bf16, each in the low half of 32 bits.
    let halves = |row: usize, skip: usize| {
        if row >= k {
            return _mm512_setzero_si512();
        }
        // SAFETY: masked to the `width` values of a row below k, which are in the slice.
        let values = unsafe { _mm512_maskz_loadu_ps(lanes(width, skip), a.as_ptr().add(row * stride + first + skip)) };
        // SAFETY: both types are 256 bits without invalid values.
        _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) })
    };
    for d in 0..k.div_ceil(2) {
        for skip in (0..width).step_by(16) {
            let pairs = _mm512_or_si512(halves(2 * d, skip), _mm512_slli_epi32::<16>(halves(2 * d + 1, skip)));
            // SAFETY: masked to the `width` elements of depth d, which are in the slice.
            unsafe {
                let to = out.as_mut_ptr().add(d * out_stride + skip);
                _mm512_mask_storeu_epi32(to.cast(), lanes(width, skip), pairs);
            }
        }
    }
}
