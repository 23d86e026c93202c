//! Kernels on the default model's shapes: `cargo bench -p gainsay-kernels [-- FILTER]`.
//!
//! Products count multiply-adds twice, so that an element a second is one FLOP; the others count
//! rows. `GAINSAY_ISA=avx2` measures another instruction set.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gainsay_kernels::activation::{Activation, gated, gated_backward};
use gainsay_kernels::attention::{Heads, Span, attention, attention_backward};
use gainsay_kernels::gemm::{Left, PackedWeight, Precision, matmul};
use gainsay_kernels::norm::rms_norm;
use gainsay_kernels::rope::{RopeTable, rope};
use gainsay_kernels::vocab::{Vocab, token_logps};

const HIDDEN: usize = 576;
const MLP: usize = 1536;
const VOCAB: usize = 49_152;
const HEADS: Heads = Heads { heads: 9, kv_heads: 3, dim: 64 };
const ROWS: usize = 1024;

/// Values in (-1, 1) without a pattern that a kernel could profit from.
fn values(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    for precision in [Precision::Bf16, Precision::F32] {
        for (what, m, k, n) in [
            ("forward", ROWS, HIDDEN, MLP),
            ("forward-down", ROWS, MLP, HIDDEN),
            ("one-tile", 14, HIDDEN, MLP),
            ("decode", 64, HIDDEN, MLP),
        ] {
            let (a, w) = (values(m * k), values(n * k));
            let packed = PackedWeight::transposed(&w, n, k, precision);
            let mut out = vec![0.0; m * n];
            group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
            group.bench_function(format!("{precision:?}/{what}"), |b| {
                b.iter(|| matmul(m, &a, Left::Rows, &packed, &mut out, false));
            });
        }
        let (x, dy) = (values(ROWS * HIDDEN), values(ROWS * MLP));
        let mut dw = vec![0.0; HIDDEN * MLP];
        group.throughput(Throughput::Elements(2 * (ROWS * HIDDEN * MLP) as u64));
        group.bench_function(format!("{precision:?}/weight-gradient"), |b| {
            b.iter(|| {
                let right = PackedWeight::plain(&x, ROWS, HIDDEN, precision);
                matmul(MLP, &dy, Left::Columns, &right, &mut dw, true);
            });
        });
    }
    group.finish();
}

fn packing(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack");
    let w = values(MLP * HIDDEN);
    group.throughput(Throughput::Bytes(4 * w.len() as u64));
    group.bench_function("transposed", |b| b.iter(|| PackedWeight::transposed(&w, MLP, HIDDEN, Precision::Bf16)));
    group.bench_function("plain", |b| b.iter(|| PackedWeight::plain(&w, MLP, HIDDEN, Precision::Bf16)));
    group.finish();
}

fn attention_both_ways(c: &mut Criterion) {
    let spans = Span::whole(&[0, 256, 512, 768, 1024]);
    let (q, k, v) = (values(ROWS * 576), values(ROWS * 192), values(ROWS * 192));
    let d = values(ROWS * 576);
    let mut group = c.benchmark_group("attention, 4 x 256 rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut out = vec![0.0; ROWS * 576];
    group.bench_function("forward", |b| b.iter(|| attention(HEADS, &spans, &q, &k, &v, &mut out)));
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    group.bench_function("backward", |b| {
        b.iter(|| attention_backward(HEADS, &spans, &q, &k, &v, &d, &mut dq, &mut dk, &mut dv));
    });
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    let (x, weight) = (values(ROWS * HIDDEN), values(HIDDEN));
    let mut y = x.clone();
    group.bench_function("rms_norm", |b| b.iter(|| rms_norm(&x, &weight, 1e-5, &mut y)));
    let (gate, up) = (values(ROWS * MLP), values(ROWS * MLP));
    let mut act = gate.clone();
    group.bench_function("swiglu", |b| b.iter(|| gated(Activation::Silu, &gate, &up, &mut act)));
    let (mut d_gate, mut d_up) = (gate.clone(), up.clone());
    group.bench_function("swiglu-backward", |b| {
        b.iter(|| gated_backward(Activation::Silu, &mut d_gate, &mut d_up, &act));
    });
    let frequencies: Vec<f64> = (0..32).map(|i| 1e5f64.powf(-f64::from(i) / 32.0)).collect();
    let (table, positions) = (RopeTable::new(&frequencies, 256), (0..ROWS as u32).map(|p| p % 256).collect::<Vec<_>>());
    group.bench_function("rope", |b| b.iter(|| rope(&mut y, HIDDEN, 64, &table, &positions, false)));
    group.finish();
}

fn vocabulary(c: &mut Criterion) {
    let (hidden, table) = (values(256 * HIDDEN), values(VOCAB * HIDDEN));
    let output = PackedWeight::transposed(&table, VOCAB, HIDDEN, Precision::Bf16);
    let targets: Vec<u32> = (0..256).map(|i| i * 190).collect();
    let mut group = c.benchmark_group("vocabulary");
    group.throughput(Throughput::Elements(256));
    group.bench_function("token_logps", |b| {
        b.iter(|| token_logps(Vocab { hidden: &hidden, output: &output, targets: &targets, inverse_temperature: 1.0 }));
    });
    group.finish();
}

criterion_group!(kernels, products, packing, attention_both_ways, rows, vocabulary);
criterion_main!(kernels);
