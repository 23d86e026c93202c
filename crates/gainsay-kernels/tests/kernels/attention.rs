//! Attention against an f64 reference, forward, backward and one query at a time.

use crate::common::{close, noise, slopes, wide};
use gainsay_kernels::attention::{DecodeScratch, Heads, KvPart, Span, attention, attention_backward, decode_attention};

const SHAPES: [Heads; 5] = [
    Heads { heads: 1, kv_heads: 1, dim: 1 },
    Heads { heads: 4, kv_heads: 2, dim: 8 },
    Heads { heads: 3, kv_heads: 1, dim: 12 },
    Heads { heads: 9, kv_heads: 3, dim: 64 },
    Heads { heads: 5, kv_heads: 1, dim: 33 },
];

/// Rows of one sequence with `prefix` keys before its own.
fn reference(shape: Heads, prefix: usize, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let Heads { heads, kv_heads, dim } = shape;
    let mut out = vec![0.0; q.len()];
    for i in 0..q.len() / (heads * dim) {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            let query = &q[(i * heads + h) * dim..][..dim];
            let at = |j: usize| (j * kv_heads + kv) * dim;
            let score = |j: usize| query.iter().zip(&k[at(j)..]).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt();
            let scores: Vec<f64> = (0..=prefix + i).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
            for (j, s) in scores.iter().enumerate() {
                for d in 0..dim {
                    out[(i * heads + h) * dim + d] += (s - most).exp() / total * v[at(j) + d];
                }
            }
        }
    }
    out
}

fn inputs(shape: Heads, rows: usize, size: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let big = |x: Vec<f32>| x.into_iter().map(|x| x * size).collect();
    let (q, kv) = (rows * shape.heads * shape.dim, rows * shape.kv_heads * shape.dim);
    (big(noise(q, 1)), big(noise(kv, 2)), noise(kv, 3))
}

#[test]
fn sequences_match_the_reference() {
    for shape in SHAPES {
        for size in [1.0, 30.0] {
            let offsets = [0, 1, 34, 34, 131, 140];
            let (q, k, v) = inputs(shape, 140, size);
            let mut out = vec![0.0; q.len()];
            attention(shape, &Span::whole(&offsets), &q, &k, &v, &mut out);
            for w in offsets.windows(2) {
                let (qw, kw) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
                let part = |x: &[f32], width: usize| wide(&x[w[0] * width..w[1] * width]);
                let expected = reference(shape, 0, &part(&q, qw), &part(&k, kw), &part(&v, kw));
                // Scores of up to size^2 sqrt(dim) carry a relative 1e-7 into the exponent.
                let bound = 2e-6 * f64::from(size * size) * (shape.dim as f64).sqrt();
                close(&format!("{shape:?} {w:?}"), &out[w[0] * qw..w[1] * qw], &expected, bound);
            }
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_bits_of_the_whole_sequence() {
    let shape = SHAPES[1];
    let (q, k, v) = inputs(shape, 90, 1.0);
    // Rows 0..40 are the prompt, 40..70 and 70..90 two continuations.
    let spans = [
        Span { prefix: 0..0, rows: 0..40 },
        Span { prefix: 0..40, rows: 40..70 },
        Span { prefix: 0..40, rows: 70..90 },
    ];
    let mut out = vec![0.0; q.len()];
    attention(shape, &spans, &q, &k, &v, &mut out);
    let rows = |x: &[f32], width: usize| [&x[..40 * width], &x[70 * width..]].concat();
    let (qw, kw) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
    let mut whole = vec![0.0; 60 * qw];
    attention(shape, &Span::whole(&[0, 60]), &rows(&q, qw), &rows(&k, kw), &rows(&v, kw), &mut whole);
    assert_eq!(rows(&out, qw), whole);
}

#[test]
fn gradients_through_a_shared_prefix_are_the_sums_over_its_copies() {
    let shape = SHAPES[1];
    let (qw, kw) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
    let (q, k, v) = inputs(shape, 90, 1.0);
    let d_out = noise(q.len(), 4);
    let prompt = 0..40;
    let spans = [
        Span { prefix: 0..0, rows: prompt.clone() },
        Span { prefix: prompt.clone(), rows: 40..70 },
        Span { prefix: prompt, rows: 70..90 },
    ];
    let backward = |spans: &[Span], q: &[f32], k: &[f32], v: &[f32], d_out: &[f32]| {
        let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
        attention_backward(shape, spans, q, k, v, d_out, &mut dq, &mut dk, &mut dv);
        (dq, dk, dv)
    };
    let (dq, dk, dv) = backward(&spans, &q, &k, &v, &d_out);
    // Two whole sequences; what comes back through the prompt's own rows counts in the first.
    let copies = |x: &[f32], w: usize| [&x[..70 * w], &x[..40 * w], &x[70 * w..]].concat();
    let mut d_copies = copies(&d_out, qw);
    d_copies[70 * qw..110 * qw].fill(0.0);
    let whole = Span::whole(&[0, 70, 130]);
    let (eq, ek, ev) = backward(&whole, &copies(&q, qw), &copies(&k, kw), &copies(&v, kw), &d_copies);
    let folded = |x: &[f32], w: usize| -> Vec<f64> {
        let second = |i: usize| if i < 40 * w { x[70 * w + i] } else { 0.0 };
        let first = (0..70 * w).map(|i| f64::from(x[i]) + f64::from(second(i)));
        first.chain(x[110 * w..].iter().map(|x| f64::from(*x))).collect()
    };
    close("dq", &dq, &folded(&eq, qw), 1e-6);
    close("dk", &dk, &folded(&ek, kw), 1e-6);
    close("dv", &dv, &folded(&ev, kw), 1e-6);
}

#[test]
fn gradients_match_central_differences() {
    for shape in SHAPES {
        // The differences take time quadratic in the size of the heads.
        let offsets = if shape.dim > 12 { [0, 2, 5] } else { [0, 2, 37] };
        let rows = offsets[2];
        let (q, k, v) = inputs(shape, rows, 1.0);
        let d_out = noise(q.len(), 4);
        let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
        attention_backward(shape, &Span::whole(&offsets), &q, &k, &v, &d_out, &mut dq, &mut dk, &mut dv);
        let (qw, kw) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
        let all = |q: &[f64], k: &[f64], v: &[f64]| {
            let parts = offsets.windows(2).map(|w| {
                let kv = w[0] * kw..w[1] * kw;
                reference(shape, 0, &q[w[0] * qw..w[1] * qw], &k[kv.clone()], &v[kv])
            });
            parts.collect::<Vec<_>>().concat()
        };
        close("dq", &dq, &slopes(&q, &d_out, |q| all(q, &wide(&k), &wide(&v))), 1e-5);
        close("dk", &dk, &slopes(&k, &d_out, |k| all(&wide(&q), k, &wide(&v))), 1e-5);
        close("dv", &dv, &slopes(&v, &d_out, |v| all(&wide(&q), &wide(&k), v)), 1e-5);
    }
}

#[test]
fn single_queries_match_the_reference() {
    let mut scratch = DecodeScratch::default();
    let many = Heads { heads: 30, kv_heads: 2, dim: 5 };
    for shape in SHAPES.into_iter().chain([many]) {
        for lens in [vec![1], vec![5, 1], vec![16, 17], vec![33, 2, 70]] {
            let keys: usize = lens.iter().sum();
            let (q, k, v) = inputs(shape, keys, 1.0);
            let query = &q[..shape.heads * shape.dim];
            let width = shape.kv_heads * shape.dim;
            let mut parts = Vec::new();
            let mut at = 0;
            for len in &lens {
                let mut part = KvPart::new(shape, 3);
                for j in 0..*len {
                    if j == part.capacity() {
                        part.grow(j + 1);
                    }
                    let row = (at + j) * width..(at + j + 1) * width;
                    part.write(j, &k[row.clone()], &v[row]);
                }
                at += len;
                parts.push((part, *len));
            }
            let parts: Vec<(&KvPart, usize)> = parts.iter().map(|(part, len)| (part, *len)).collect();
            let mut out = vec![7.0; query.len()];
            decode_attention(shape, query, &parts, &mut scratch, &mut out);
            let expected = reference(shape, keys - 1, &wide(query), &wide(&k), &wide(&v));
            close(&format!("{shape:?} {lens:?}"), &out, &expected, 3e-6);
        }
    }
}
