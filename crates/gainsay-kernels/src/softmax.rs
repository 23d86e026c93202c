//! Softmax of one row of logits, in chunks of fixed size.

use crate::exp::exp;
use crate::isa::vectorized;
use crate::vector::fold;

/// Logits whose exponentials are summed in f32, against the largest of them.
pub(crate) const CHUNK: usize = 256;

#[inline(always)]
fn log_sum_exp_body<const FMA: bool>(z: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = z.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks.clone() {
        for l in 0..LANES {
            lanes[l] = if lanes[l] > chunk[l] { lanes[l] } else { chunk[l] };
        }
    }
    let most = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if a > *b { a } else { *b });
    if most == f32::NEG_INFINITY {
        return (most, 0.0);
    }
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for l in 0..LANES {
            sums[l] += exp::<FMA>(chunk[l] - most);
        }
    }
    let mut sum = fold(sums);
    for z in rest {
        sum += exp::<FMA>(z - most);
    }
    (most, sum)
}
vectorized! {
    /// Largest value and sum of the exponentials less it.
    pub fn log_sum_exp(z: &[f32]) -> (f32, f32) = log_sum_exp_body
}

#[inline(always)]
fn softmax_gradient_body<const FMA: bool>(z: &mut [f32], lse: f32, d: f32) {
    for z in z {
        *z = -d * exp::<FMA>(*z - lse);
    }
}
vectorized! {
    /// z = -d exp(z - lse).
    pub(crate) fn softmax_gradient(z: &mut [f32], lse: f32, d: f32) = softmax_gradient_body
}

#[inline(always)]
fn exp_scaled_body<const FMA: bool>(z: &[f32], most: f32, scale: f32, out: &mut [f32]) {
    for (out, z) in out.iter_mut().zip(z) {
        *out = exp::<FMA>((z - most) * scale);
    }
}
vectorized! {
    /// out = exp((z - most) scale): unnormalized probabilities for sampling.
    pub fn exp_scaled(z: &[f32], most: f32, scale: f32, out: &mut [f32]) = exp_scaled_body
}

/// Largest logit and log of the sum of the exponentials less it, from [`log_sum_exp`] of the
/// chunks in order.
pub(crate) fn combine(parts: impl Iterator<Item = (f32, f32)> + Clone) -> (f32, f64) {
    let mut most = f32::NEG_INFINITY;
    for (m, _) in parts.clone() {
        most = most.max(m);
    }
    let sum: f64 = parts.map(|(m, sum)| f64::from(sum) * f64::from(m - most).exp()).sum();
    (most, sum.ln())
}

/// Largest logit, and the log of the sum of the exponentials less it.
pub fn log_normalizer(logits: &[f32]) -> (f32, f64) {
    let parts: Vec<(f32, f32)> = logits.chunks(CHUNK).map(log_sum_exp).collect();
    combine(parts.into_iter())
}
