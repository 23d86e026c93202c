//! Products against f64 sums.

use crate::common::noise;
use gainsay_kernels::gemm::{Left, PackedWeight, Precision, matmul, products};
use gainsay_kernels::pool::with_threads;

const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 33, 7),
    (3, 16, 1),
    (5, 17, 31),
    (13, 32, 64),
    (14, 31, 65),
    (15, 64, 9),
    (29, 100, 40),
    (64, 96, 576),
    (200, 40, 700),
    (7, 8, 3000),
    (333, 65, 130),
];

#[test]
fn products_match_f64_sums() {
    for (m, n, k) in SHAPES {
        let (a, w) = (noise(m * k, 1), noise(n * k, 2));
        let a_columns: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        let w_plain: Vec<f32> = (0..k * n).map(|i| w[(i % n) * k + i / n]).collect();
        let before = noise(m * n, 3);
        for (b, name) in [
            (PackedWeight::transposed(&w, n, k, Precision::F32), "transposed"),
            (PackedWeight::plain(&w_plain, k, n, Precision::F32), "plain"),
        ] {
            for (left, layout) in [(&a, Left::Rows), (&a_columns, Left::Columns)] {
                for accumulate in [false, true] {
                    let mut c = before.clone();
                    matmul(m, left, layout, &b, &mut c, accumulate);
                    for i in 0..m * n {
                        let (r, j) = (i / n, i % n);
                        let start = if accumulate { f64::from(before[i]) } else { 0.0 };
                        let terms = (0..k).map(|d| f64::from(a[r * k + d]) * f64::from(w[j * k + d]));
                        let expected = start + terms.clone().sum::<f64>();
                        let size = 1.0 + terms.map(f64::abs).sum::<f64>();
                        let bound = size * (k as f64).sqrt() * 6e-8 + 1e-7;
                        let error = (f64::from(c[i]) - expected).abs();
                        assert!(error < bound, "{m}x{n}x{k} {name} {layout:?} {accumulate} at {r},{j}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    let (n, k) = (70, 190);
    let (a, w) = (noise(300 * k, 4), noise(n * k, 5));
    let b = PackedWeight::transposed(&w, n, k, Precision::F32);
    let mut whole = vec![0.0; 300 * n];
    matmul(300, &a, Left::Rows, &b, &mut whole, false);
    for (from, rows) in [(0, 1), (7, 1), (3, 13), (100, 15), (41, 64), (299, 1)] {
        let mut part = vec![0.0; rows * n];
        matmul(rows, &a[from * k..(from + rows) * k], Left::Rows, &b, &mut part, false);
        assert_eq!(part, whole[from * n..(from + rows) * n], "rows {from}..{}", from + rows);
    }
}

#[test]
fn empty_extents() {
    let b = PackedWeight::transposed(&[], 3, 0, Precision::F32);
    let mut c = vec![5.0; 6];
    matmul(2, &[], Left::Rows, &b, &mut c, true);
    assert_eq!(c, [5.0; 6]);
    matmul(2, &[], Left::Rows, &b, &mut c, false);
    assert_eq!(c, [0.0; 6]);
    matmul(0, &[], Left::Rows, &PackedWeight::transposed(&[1.0], 1, 1, Precision::F32), &mut [], false);
}

#[test]
fn extreme_values_stay_in_their_row() {
    let k = 8;
    let mut a = vec![1.0; 3 * k];
    a[k] = f32::INFINITY;
    a[2 * k] = f32::NAN;
    let b = PackedWeight::transposed(&vec![1.0; 5 * k], 5, k, Precision::F32);
    let mut c = vec![0.0; 15];
    matmul(3, &a, Left::Rows, &b, &mut c, false);
    assert_eq!(c[..5], [8.0; 5]);
    assert_eq!(c[5..10], [f32::INFINITY; 5]);
    assert!(c[10..].iter().all(|v| v.is_nan()));
}

/// The nearest bf16, ties to even, by way of f64 and the exponent: not the kernel's bit trick.
fn bf16(x: f32) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let step = 2f64.powi(f64::from(x.abs()).log2().floor() as i32 - 7);
    ((f64::from(x) / step).round_ties_even() * step) as f32
}

#[test]
fn bf16_products_match_f64_sums_of_rounded_operands() {
    for (m, n, k) in SHAPES {
        let (a, w) = (noise(m * k, 1), noise(n * k, 2));
        let rounded = |x: &[f32]| x.iter().map(|x| bf16(*x)).collect::<Vec<f32>>();
        let (rounded_a, rounded_w) = (rounded(&a), rounded(&w));
        let a_columns: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        let w_plain: Vec<f32> = (0..k * n).map(|i| w[(i % n) * k + i / n]).collect();
        let before = noise(m * n, 3);
        for b in
            [PackedWeight::transposed(&w, n, k, Precision::Bf16), PackedWeight::plain(&w_plain, k, n, Precision::Bf16)]
        {
            for (left, layout) in [(&a, Left::Rows), (&a_columns, Left::Columns)] {
                let mut c = before.clone();
                matmul(m, left, layout, &b, &mut c, true);
                for i in 0..m * n {
                    let (r, j) = (i / n, i % n);
                    let term = |d: usize| f64::from(rounded_a[r * k + d]) * f64::from(rounded_w[j * k + d]);
                    let expected = f64::from(before[i]) + (0..k).map(term).sum::<f64>();
                    let size = 1.0 + (0..k).map(|d| term(d).abs()).sum::<f64>();
                    let error = (f64::from(c[i]) - expected).abs();
                    assert!(error < size * (k as f64).sqrt() * 6e-8 + 1e-7, "{m}x{n}x{k} {layout:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_bf16_row_has_the_same_bits_in_every_batch_and_with_every_number_of_threads() {
    for k in [191, 192] {
        let n = 70;
        let (a, w) = (noise(300 * k, 4), noise(n * k, 5));
        let b = PackedWeight::transposed(&w, n, k, Precision::Bf16);
        let mut whole = vec![0.0; 300 * n];
        matmul(300, &a, Left::Rows, &b, &mut whole, false);
        for threads in [1, 2, 5] {
            for (from, rows) in [(0, 1), (7, 1), (3, 13), (100, 15), (41, 64), (0, 300)] {
                let mut part = vec![0.0; rows * n];
                let left = &a[from * k..(from + rows) * k];
                with_threads(threads, || matmul(rows, left, Left::Rows, &b, &mut part, false));
                assert_eq!(part, whole[from * n..(from + rows) * n], "rows {from}..{}, {threads} threads", from + rows);
            }
        }
    }
}

#[test]
fn bf16_keeps_infinities_and_nans() {
    let b = PackedWeight::transposed(&[1.0, 1.0], 1, 2, Precision::Bf16);
    for m in [3, 60] {
        let a = [f32::INFINITY, 0.5, f32::NAN, 0.5, 3e38, 0.5].repeat(m / 3);
        let mut c = vec![0.0; m];
        matmul(m, &a, Left::Rows, &b, &mut c, false);
        for c in c.chunks_exact(3) {
            assert!(c[0] == f32::INFINITY && c[1].is_nan() && (c[2] / 3e38 - 1.0).abs() < 0.004, "{c:?}");
        }
    }
}

#[test]
fn a_bf16_row_has_the_same_bits_alone_also_transposed_and_added_to_what_is_there() {
    let (m, n, k) = (60, 70, 192);
    let (a, w, start) = (noise(m * k, 1), noise(n * k, 2), noise(m * n, 3));
    let columns: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
    let b = PackedWeight::plain(&w, k, n, Precision::Bf16);
    let mut whole = start.clone();
    matmul(m, &columns, Left::Columns, &b, &mut whole, true);
    for row in 0..m {
        let mut alone = start[row * n..(row + 1) * n].to_vec();
        matmul(1, &a[row * k..(row + 1) * k], Left::Rows, &b, &mut alone, true);
        assert_eq!(alone, whole[row * n..(row + 1) * n], "row {row}");
    }
}

#[test]
fn several_right_operands_give_the_bits_of_one_at_a_time() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (m, k) in [(0, 5), (1, 1), (17, 33), (200, 130)] {
            let a = noise(m * k, 1);
            let rights = [40, 7, 96].map(|n| PackedWeight::transposed(&noise(n * k, n as u64), n, k, precision));
            let together = products(m, &a, Left::Rows, [&rights[0], &rights[1], &rights[2]]);
            for (right, together) in rights.iter().zip(together) {
                let mut alone = vec![0.0; m * right.columns()];
                matmul(m, &a, Left::Rows, right, &mut alone, false);
                assert_eq!(together, alone);
            }
        }
    }
}
