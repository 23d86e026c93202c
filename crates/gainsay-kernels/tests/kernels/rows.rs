//! Norms, activations, rotation and sums against f64 references.

use crate::common::{close, noise, slopes, wide};
use gainsay_kernels::activation::{Activation, activate, activate_backward, gated, gated_backward};
use gainsay_kernels::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use gainsay_kernels::rope::{RopeTable, rope};
use gainsay_kernels::vector;
use gainsay_kernels::vocab::add_rows_by_id;

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 7), (2, 16), (70, 33), (5, 576), (130, 48)];
const EPS: f32 = 1e-5;

fn rms_reference(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| {
        let rms = (x.iter().map(|x| x * x).sum::<f64>() / w.len() as f64 + eps).sqrt();
        x.iter().zip(w).map(|(x, w)| x / rms * w).collect::<Vec<_>>()
    };
    x.chunks(w.len()).flat_map(row).collect()
}

fn layer_reference(x: &[f64], w: &[f64], b: &[f64], eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| {
        let n = w.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let sd = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
        x.iter().zip(w).zip(b).map(|((x, w), b)| (x - mean) / sd * w + b).collect::<Vec<_>>()
    };
    x.chunks(w.len()).flat_map(row).collect()
}

#[test]
fn rms_norm_and_its_gradients() {
    for (rows, width) in SHAPES {
        let (x, w, dy) = (noise(rows * width, 1), noise(width, 2), noise(rows * width, 3));
        let eps = f64::from(EPS);
        let mut y = vec![0.0; x.len()];
        rms_norm(&x, &w, EPS, &mut y);
        close("y", &y, &rms_reference(&wide(&x), &wide(&w), eps), 1e-6);
        if rows * width > 4000 {
            continue;
        }
        let (mut dx, mut dw) = (vec![0.5; x.len()], vec![0.25; width]);
        rms_norm_backward(&x, &w, EPS, &dy, Some(&mut dx), Some(&mut dw));
        let expected = slopes(&x, &dy, |x| rms_reference(x, &wide(&w), eps));
        close("dx", &dx, &expected.iter().map(|d| d + 0.5).collect::<Vec<_>>(), 2e-5);
        let expected = slopes(&w, &dy, |w| rms_reference(&wide(&x), w, eps));
        close("dw", &dw, &expected.iter().map(|d| d + 0.25).collect::<Vec<_>>(), 2e-5);
    }
}

#[test]
fn layer_norm_and_its_gradients() {
    for (rows, width) in SHAPES {
        let (x, w, b, dy) = (noise(rows * width, 1), noise(width, 2), noise(width, 4), noise(rows * width, 3));
        let eps = f64::from(EPS);
        let mut y = vec![0.0; x.len()];
        layer_norm(&x, &w, &b, EPS, &mut y);
        close("y", &y, &layer_reference(&wide(&x), &wide(&w), &wide(&b), eps), 2e-6);
        // One value has no variance: its slope is that of a constant, 1 / eps aside.
        if rows * width > 4000 || width == 1 {
            continue;
        }
        let (mut dx, mut dw, mut db) = (vec![0.5; x.len()], vec![0.25; width], vec![0.125; width]);
        layer_norm_backward(&x, &w, EPS, &dy, Some(&mut dx), Some(&mut dw));
        vector::add_column_sums(&dy, &mut db);
        let expected = slopes(&x, &dy, |x| layer_reference(x, &wide(&w), &wide(&b), eps));
        close("dx", &dx, &expected.iter().map(|d| d + 0.5).collect::<Vec<_>>(), 3e-5);
        let expected = slopes(&w, &dy, |w| layer_reference(&wide(&x), w, &wide(&b), eps));
        close("dw", &dw, &expected.iter().map(|d| d + 0.25).collect::<Vec<_>>(), 2e-5);
        let expected = slopes(&b, &dy, |b| layer_reference(&wide(&x), &wide(&w), b, eps));
        close("db", &db, &expected.iter().map(|d| d + 0.125).collect::<Vec<_>>(), 2e-5);
    }
}

#[test]
fn norms_of_zeros_and_of_large_values() {
    let mut y = vec![9.0; 8];
    rms_norm(&[0.0; 8], &[1.0; 8], EPS, &mut y);
    assert_eq!(y, [0.0; 8]);
    layer_norm(&[7.0; 8], &[1.0; 8], &[3.0; 8], EPS, &mut y);
    assert_eq!(y, [3.0; 8]);
    rms_norm(&[1e18; 8], &[2.0; 8], EPS, &mut y);
    close("large", &y, &[2.0; 8], 1e-6);
}

/// Complementary error function by its continued fraction or series, to 1e-14.
fn erfc(x: f64) -> f64 {
    if x.abs() < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let z = x.abs();
    let fraction = (1..200).rev().fold(z, |f, k| z + f64::from(k) / 2.0 / f);
    let tail = (-z * z).exp() / (fraction * std::f64::consts::PI.sqrt());
    if x < 0.0 { 2.0 - tail } else { tail }
}

fn activation_reference(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * 0.5 * erfc(-x / std::f64::consts::SQRT_2),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
    }
}

const KINDS: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

#[test]
fn activations_and_their_slopes() {
    let x: Vec<f32> = (-1500..1500).map(|i| i as f32 * 0.01).collect();
    let ones = vec![1.0; x.len()];
    for kind in KINDS {
        let mut y = vec![0.0; x.len()];
        activate(kind, &x, &mut y);
        let reference = |x: &[f64]| x.iter().map(|x| activation_reference(kind, *x)).collect::<Vec<_>>();
        close("value", &y, &reference(&wide(&x)), 5e-7);
        let mut d = ones.clone();
        activate_backward(kind, &x, &mut d);
        let slope = |x: f32| {
            let (x, h) = (f64::from(x), 1e-5);
            (activation_reference(kind, x + h) - activation_reference(kind, x - h)) / (2.0 * h)
        };
        close("slope", &d, &x.iter().map(|x| slope(*x)).collect::<Vec<_>>(), 2e-6);
    }
}

#[test]
fn activations_far_out() {
    for kind in KINDS {
        let mut y = vec![0.0; 4];
        activate(kind, &[-1e30, -200.0, 200.0, 1e18], &mut y);
        assert_eq!(y, [0.0, 0.0, 200.0, 1e18], "{kind:?}");
        let mut d = vec![1.0; 4];
        activate_backward(kind, &[-1e30, -200.0, 200.0, 1e18], &mut d);
        assert_eq!(d, [0.0, 0.0, 1.0, 1.0], "{kind:?}");
        let mut y = vec![0.0];
        activate(kind, &[f32::NAN], &mut y);
        assert!(y[0].is_nan());
    }
}

#[test]
fn gates_and_their_gradients() {
    let n = 41;
    let (g, u, dy) = (noise(n, 1), noise(n, 2), noise(n, 3));
    for kind in KINDS {
        let mut y = vec![0.0; n];
        gated(kind, &g, &u, &mut y);
        let reference = |g: &[f64], u: &[f64]| -> Vec<f64> {
            g.iter().zip(u).map(|(g, u)| activation_reference(kind, *g) * u).collect()
        };
        close("y", &y, &reference(&wide(&g), &wide(&u)), 5e-7);
        let (mut dg, mut du) = (g.clone(), u.clone());
        gated_backward(kind, &mut dg, &mut du, &dy);
        close("dg", &dg, &slopes(&g, &dy, |g| reference(g, &wide(&u))), 2e-6);
        close("du", &du, &slopes(&u, &dy, |u| reference(&wide(&g), u)), 2e-6);
    }
}

#[test]
fn rotation_is_half_split_partial_and_undone_by_its_inverse() {
    let (rows, heads, dim) = (70, 3, 10);
    let frequencies = [1.0, 0.1, 0.01];
    let table = RopeTable::new(&frequencies, 2000);
    let positions: Vec<u32> = (0..rows as u32).map(|r| r * 28).collect();
    let x = noise(rows * heads * dim, 5);
    let mut y = x.clone();
    rope(&mut y, heads * dim, dim, &table, &positions, false);
    let mut expected = wide(&x);
    for (i, head) in expected.chunks_mut(dim).enumerate() {
        for (j, f) in frequencies.iter().enumerate() {
            let (s, c) = (f64::from(positions[i / heads]) * f).sin_cos();
            let (a, b) = (head[j], head[j + 3]);
            (head[j], head[j + 3]) = (a * c - b * s, b * c + a * s);
        }
    }
    close("rotated", &y, &expected, 3e-7);
    rope(&mut y, heads * dim, dim, &table, &positions, true);
    close("back", &y, &wide(&x), 3e-7);
}

#[test]
fn sums_and_scatter() {
    for n in [0, 1, 15, 16, 17, 1000] {
        let (a, b) = (noise(n, 1), noise(n, 2));
        let expected: f64 = wide(&a).iter().zip(wide(&b)).map(|(a, b)| a * b).sum();
        close("dot", &[vector::dot(&a, &b)], &[expected], 2e-6);
    }
    let rows = noise(5 * 3, 3);
    let ids = [2, 0, 2, 1, 2];
    let mut table = vec![1.0; 9];
    add_rows_by_id(&rows, &ids, 3, &mut table);
    let mut expected = vec![1.0; 9];
    for (r, id) in ids.iter().enumerate() {
        (0..3).for_each(|j| expected[*id as usize * 3 + j] += f64::from(rows[r * 3 + j]));
    }
    close("table", &table, &expected, 1e-6);
    let mut y = noise(300 * 7, 6);
    let before = wide(&y);
    vector::add_bias(&mut y, &noise(7, 7));
    let bias = wide(&noise(7, 7));
    close("bias", &y, &before.iter().enumerate().map(|(i, y)| y + bias[i % 7]).collect::<Vec<_>>(), 1e-6);
}
