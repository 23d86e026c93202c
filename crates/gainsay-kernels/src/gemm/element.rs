//! What packed operands are made of.

use crate::isa::{Isa, isa, vectorized};

use super::micro::{Tile, portable};
use super::pack::{PANEL, PackedWeight, Panels};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// A packed value: one f32, or two neighboring depths as bf16.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Depths in one element.
    const DEPTHS: usize;

    /// The panels of a right operand of this precision.
    fn panels(right: &PackedWeight) -> &[Self];

    /// Elements for `k` depths.
    fn count(k: usize) -> usize {
        k.div_ceil(Self::DEPTHS)
    }

    /// The elements of a row of values, the last one filled up with zero.
    fn fill(row: &[f32], out: &mut [Self]);

    /// out\[d, r\] = element d of the `k` values that start at `a[starts[r]]`; at most
    /// [`super::micro::ROWS`] rows.
    fn pack_tile(a: &[f32], starts: &[usize], k: usize, out: &mut [Self]);

    /// out\[d, i\] = element d of column `first + i` of the `k` rows of `a`, for `width` columns;
    /// `out` has `out_stride` elements a depth.
    fn pack_columns(a: Columns<'_>, out: &mut [Self], out_stride: usize);

    /// sum + a * b in every depth.
    fn madd(self, other: Self, sum: f32) -> f32;

    /// The tile's kernel.
    ///
    /// # Safety
    /// As [`Tile::run`].
    unsafe fn run(tile: Tile<Self>, c: *mut f32, stride: usize);
}

/// Elements of a right operand that are multiplied as elements `T`.
pub trait Staged<T: Element>: Element {
    /// A panel as `T`, in `room` where it differs.
    fn stage<'a>(panel: &'a [Self], room: &'a mut Vec<T>) -> &'a [T];

    /// What of a panel is worth fetching before it is staged.
    fn ahead(panel: &[Self]) -> &[T];

    /// Rounds the elements of a left operand to what `Self` can hold.
    fn round(left: &mut [T]);
}

impl<E: Element> Staged<E> for E {
    fn stage<'a>(panel: &'a [E], _: &'a mut Vec<E>) -> &'a [E] {
        panel
    }

    fn ahead(panel: &[E]) -> &[E] {
        panel
    }

    fn round(_: &mut [E]) {}
}

impl Staged<f32> for Pair {
    fn stage<'a>(panel: &'a [Self], room: &'a mut Vec<f32>) -> &'a [f32] {
        room.resize(2 * panel.len(), 0.0);
        widen(panel, room);
        room
    }

    fn ahead(_: &[Self]) -> &[f32] {
        &[]
    }

    fn round(left: &mut [f32]) {
        rounded(left);
    }
}

/// Whether the machine multiplies pairs by themselves; else widened ones are the faster.
pub fn multiplies_pairs() -> bool {
    isa() == Isa::Avx512Bf16
}

/// Columns `first..first + width` of a matrix of `k` rows that are `stride` apart.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    pub a: &'a [f32],
    pub stride: usize,
    pub first: usize,
    pub width: usize,
    pub k: usize,
}

impl<'a> Columns<'a> {
    /// The part of row `i`.
    fn row(&self, i: usize) -> &'a [f32] {
        &self.a[i * self.stride + self.first..][..self.width]
    }
}

/// [`Element::pack_tile`] row by row.
fn pack_rows<E: Element>(a: &[f32], starts: &[usize], k: usize, out: &mut [E]) {
    let mut values = vec![E::default(); E::count(k)];
    for (r, start) in starts.iter().enumerate() {
        E::fill(&a[*start..start + k], &mut values);
        out.iter_mut().skip(r).step_by(starts.len()).zip(&values).for_each(|(slot, value)| *slot = *value);
    }
}

impl Element for f32 {
    const DEPTHS: usize = 1;

    fn panels(right: &PackedWeight) -> &[Self] {
        match right.panels() {
            Panels::F32(panels) => panels,
            Panels::Bf16(_) => panic!("right operands of different precisions"),
        }
    }

    fn fill(row: &[f32], out: &mut [Self]) {
        out.copy_from_slice(row);
    }

    fn pack_tile(a: &[f32], starts: &[usize], k: usize, out: &mut [Self]) {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: isa() is never better than what the machine reports.
            Isa::Avx512 | Isa::Avx512Bf16 => unsafe { x86::pack_f32(a, starts, k, out) },
            _ => pack_rows(a, starts, k, out),
        }
    }

    fn pack_columns(a: Columns<'_>, out: &mut [Self], out_stride: usize) {
        for (d, slots) in out.chunks_mut(out_stride).enumerate().take(a.k) {
            slots[..a.width].copy_from_slice(a.row(d));
        }
    }

    #[inline(always)]
    fn madd(self, other: Self, sum: f32) -> f32 {
        crate::isa::madd::<false>(self, other, sum)
    }

    unsafe fn run(tile: Tile<Self>, c: *mut f32, stride: usize) {
        // SAFETY: the caller's promises; isa() is never better than what the machine reports.
        unsafe {
            match isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => x86::avx512_f32(tile, c, stride),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86::avx2_f32(tile, c, stride),
                _ => portable::<f32>(tile, c, stride),
            }
        }
    }
}

/// Two bf16 values, the lower depth in the low half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pair(u32);

/// The upper half of `x` rounded to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

impl Pair {
    /// `low` and `high`, rounded.
    #[inline(always)]
    pub fn new(low: f32, high: f32) -> Self {
        Self((round(low) >> 16) | (round(high) & 0xFFFF_0000))
    }

    /// The two values.
    #[inline(always)]
    pub fn values(self) -> (f32, f32) {
        (f32::from_bits(self.0 << 16), f32::from_bits(self.0 & 0xFFFF_0000))
    }
}

#[inline(always)]
fn pairs_body<const FMA: bool>(row: &[f32], out: &mut [Pair]) {
    let (chunks, rest) = row.as_chunks::<2>();
    for (out, [low, high]) in out.iter_mut().zip(chunks) {
        *out = Pair::new(*low, *high);
    }
    if let ([low], Some(last)) = (rest, out.last_mut()) {
        *last = Pair::new(*low, 0.0);
    }
}
vectorized! { fn pairs(row: &[f32], out: &mut [Pair]) = pairs_body }

#[inline(always)]
fn widen_body<const FMA: bool>(panel: &[Pair], out: &mut [f32]) {
    for (pairs, out) in panel.chunks_exact(PANEL).zip(out.chunks_exact_mut(2 * PANEL)) {
        let (low, high) = out.split_at_mut(PANEL);
        for ((pair, low), high) in pairs.iter().zip(low).zip(high) {
            (*low, *high) = pair.values();
        }
    }
}
vectorized! {
    /// The depths of a panel one by one.
    fn widen(panel: &[Pair], out: &mut [f32]) = widen_body
}

#[inline(always)]
fn rounded_body<const FMA: bool>(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = f32::from_bits(round(*x) & 0xFFFF_0000));
}
vectorized! {
    /// Every value rounded to the nearest bf16.
    fn rounded(values: &mut [f32]) = rounded_body
}

#[inline(always)]
fn zipped_body<const FMA: bool>(low: &[f32], high: &[f32], out: &mut [Pair]) {
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = Pair::new(*low, *high);
    }
}
vectorized! { fn zipped(low: &[f32], high: &[f32], out: &mut [Pair]) = zipped_body }

impl Element for Pair {
    const DEPTHS: usize = 2;

    fn panels(right: &PackedWeight) -> &[Self] {
        match right.panels() {
            Panels::Bf16(panels) => panels,
            Panels::F32(_) => panic!("right operands of different precisions"),
        }
    }

    fn fill(row: &[f32], out: &mut [Self]) {
        pairs(row, out);
    }

    fn pack_tile(a: &[f32], starts: &[usize], k: usize, out: &mut [Self]) {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: isa() is never better than what the machine reports.
            Isa::Avx512Bf16 => unsafe { x86::pack_bf16(a, starts, k, out) },
            _ => pack_rows(a, starts, k, out),
        }
    }

    fn pack_columns(a: Columns<'_>, out: &mut [Self], out_stride: usize) {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: isa() is never better than what the machine reports.
            Isa::Avx512Bf16 => unsafe { x86::columns_bf16(a, out, out_stride) },
            _ => {
                for (d, slots) in out.chunks_mut(out_stride).enumerate().take(a.k.div_ceil(2)) {
                    if 2 * d + 1 < a.k {
                        zipped(a.row(2 * d), a.row(2 * d + 1), &mut slots[..a.width]);
                    } else {
                        slots.iter_mut().zip(a.row(2 * d)).for_each(|(slot, low)| *slot = Self::new(*low, 0.0));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn madd(self, other: Self, sum: f32) -> f32 {
        let ((a, b), (c, d)) = (self.values(), other.values());
        crate::isa::madd::<false>(b, d, crate::isa::madd::<false>(a, c, sum))
    }

    unsafe fn run(tile: Tile<Self>, c: *mut f32, stride: usize) {
        // SAFETY: the caller's promises; isa() is never better than what the machine reports.
        unsafe {
            match isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => x86::avx512_bf16(tile, c, stride),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx2 => x86::avx2_bf16(tile, c, stride),
                _ => portable::<Pair>(tile, c, stride),
            }
        }
    }
}
