//! One token from one row of logits.

use gainsay_kernels::softmax::{exp_scaled, log_normalizer};

use super::generate::GenOptions;

/// Probabilities whose sums are made together.
const BLOCK: usize = 256;

/// Draws a token and gives its log-prob at temperature 1 without cuts, in nats. With temperature
/// T > 0: probabilities proportional to exp(logit / T), cut to the `top_k` largest, then to the
/// smallest set that reaches `top_p` of what is left; the token is where the cumulative sum, in
/// order of ids, passes `u` times the total. With temperature 0, or one so small that 1 / T is no f32:
/// the largest logit, the lowest id among equals.
pub(super) fn pick(logits: &[f32], opts: &GenOptions, u: f64, scratch: &mut Vec<f32>) -> (u32, f32) {
    let (most, log_sum) = log_normalizer(logits);
    let inverse = (1.0 / opts.temperature) as f32;
    let token = if inverse.is_finite() {
        scratch.resize(logits.len(), 0.0);
        exp_scaled(logits, most, inverse, scratch);
        cut(scratch, opts.top_k, opts.top_p);
        inverse_cdf(scratch, u)
    } else {
        logits.iter().position(|z| *z == most).unwrap_or(0)
    };
    (token as u32, (f64::from(logits[token]) - f64::from(most) - log_sum) as f32)
}

/// The index at which the cumulative sum of `weights` passes `u` times their total.
fn inverse_cdf(weights: &[f32], u: f64) -> usize {
    let sum = |block: &[f32]| block.iter().map(|w| f64::from(*w)).sum::<f64>();
    let sums: Vec<f64> = weights.chunks(BLOCK).map(sum).collect();
    let target = u * sums.iter().sum::<f64>();
    let (mut passed, mut last) = (0.0, 0);
    for (b, block) in weights.chunks(BLOCK).enumerate() {
        if passed + sums[b] <= target {
            passed += sums[b];
            continue;
        }
        for (i, w) in block.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            passed += f64::from(*w);
            last = b * BLOCK + i;
            if passed > target {
                return last;
            }
        }
    }
    // Rounding left the target at the very end: the last token that can be drawn.
    weights.iter().rposition(|w| *w > 0.0).unwrap_or(last)
}

/// Zeroes what top-k and then top-p leave out; equal weights rank by id.
fn cut(weights: &mut [f32], top_k: usize, top_p: f64) {
    let keep_k = if top_k == 0 { weights.len() } else { top_k.min(weights.len()) };
    if keep_k == weights.len() && top_p >= 1.0 {
        return;
    }
    let total = |ids: &[usize], weights: &[f32]| ids.iter().map(|i| f64::from(weights[*i])).sum::<f64>();
    let mut ids: Vec<usize> = (0..weights.len()).collect();
    let order = |weights: &[f32], a: &usize, b: &usize| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b));
    if keep_k < ids.len() {
        ids.select_nth_unstable_by(keep_k - 1, |a, b| order(weights, a, b));
        ids.truncate(keep_k);
    }
    if top_p < 1.0 {
        let all = total(&ids, weights);
        // All tokens below this share together weigh less than what top-p leaves out.
        let least = (1.0 - top_p) * all / ids.len() as f64;
        ids.retain(|i| f64::from(weights[*i]) >= least);
        ids.sort_unstable_by(|a, b| order(weights, a, b));
        let mut sum = 0.0;
        let reached = ids.iter().position(|i| {
            sum += f64::from(weights[*i]);
            sum >= top_p * all
        });
        ids.truncate(reached.map_or(ids.len(), |i| i + 1));
    }
    let kept: Vec<(usize, f32)> = ids.iter().map(|i| (*i, weights[*i])).collect();
    weights.fill(0.0);
    kept.into_iter().for_each(|(i, w)| weights[i] = w);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f64, top_k: usize, top_p: f64) -> GenOptions {
        GenOptions {
            temperature,
            top_k,
            top_p,
            max_new_tokens: 1,
            end_tokens: Vec::new(),
            ignore_eos: false,
            max_rows: 1,
        }
    }

    /// How often each token comes out of evenly spread draws.
    fn shares(logits: &[f32], opts: &GenOptions) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for i in 0..10_000 {
            let (token, logp) = pick(logits, opts, (f64::from(i) + 0.5) / 1e4, &mut Vec::new());
            let total: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
            assert!((f64::from(logp) - (f64::from(logits[token as usize]) - total.ln())).abs() < 1e-5);
            counts[token as usize] += 1e-4;
        }
        counts
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-4), "{a:?} instead of {b:?}");
    }

    // Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
    const LOGITS: [f32; 4] =
        [3.0 * std::f32::consts::LN_2, 2.0 * std::f32::consts::LN_2, std::f32::consts::LN_2, std::f32::consts::LN_2];

    #[test]
    fn frequencies_follow_the_softmax() {
        close(&shares(&LOGITS, &options(1.0, 0, 1.0)), &[0.5, 0.25, 0.125, 0.125]);
        // Temperature 1/2 squares: 16, 4, 1, 1 of 22.
        close(&shares(&LOGITS, &options(0.5, 0, 1.0)), &[16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0]);
    }

    #[test]
    fn cuts_keep_the_most_probable() {
        close(&shares(&LOGITS, &options(1.0, 1, 1.0)), &[1.0, 0.0, 0.0, 0.0]);
        close(&shares(&LOGITS, &options(1.0, 2, 1.0)), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // Of equal weights the lower id stays.
        close(&shares(&LOGITS, &options(1.0, 3, 1.0)), &[4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
        close(&shares(&LOGITS, &options(1.0, 0, 0.5)), &[1.0, 0.0, 0.0, 0.0]);
        close(&shares(&LOGITS, &options(1.0, 0, 0.6)), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // 0.7 of the two that top-k left: the first has 2/3 of them, so both stay.
        close(&shares(&LOGITS, &options(1.0, 2, 0.7)), &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        close(&shares(&LOGITS, &options(1.0, 2, 0.6)), &[1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn greedy_takes_the_largest_and_the_lowest_id_of_equals() {
        let opts = options(0.0, 0, 1.0);
        assert_eq!(pick(&[0.0, 2.0, 2.0], &opts, 0.9, &mut Vec::new()).0, 1);
    }

    #[test]
    fn the_edges_of_the_unit_interval() {
        let opts = options(1.0, 0, 1.0);
        let mut logits = vec![f32::NEG_INFINITY; 700];
        (logits[300], logits[650]) = (1.0, 1.0);
        assert_eq!(pick(&logits, &opts, 0.0, &mut Vec::new()).0, 300);
        assert_eq!(pick(&logits, &opts, 1.0 - f64::EPSILON / 2.0, &mut Vec::new()).0, 650);
    }
}
