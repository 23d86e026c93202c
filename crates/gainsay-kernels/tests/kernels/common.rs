//! Deterministic inputs, and gradients by central differences of an f64 reference.

/// Values in [-1, 1).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// |a - b| <= bound (1 + |b|) for every element.
#[track_caller]
pub fn close(what: &str, a: &[f32], b: &[f64], bound: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(error <= bound * (1.0 + b.abs()), "{what} [{i}]: {a} instead of {b}");
    }
}

/// d sum(weights · f(x)) / dx by central differences.
pub fn slopes(x: &[f32], weights: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let loss = |x: &[f64]| f(x).iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum::<f64>();
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let (value, step) = (x[i], 1e-5);
            x[i] = value + step;
            let above = loss(&x);
            x[i] = value - step;
            let below = loss(&x);
            x[i] = value;
            (above - below) / (2.0 * step)
        })
        .collect()
}
