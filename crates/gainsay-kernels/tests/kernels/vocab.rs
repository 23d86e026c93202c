//! The fused vocabulary product against f64 log-softmax.

use crate::common::{close, noise, slopes, wide};
use gainsay_kernels::gemm::{PackedWeight, Precision};
use gainsay_kernels::pool::with_threads;
use gainsay_kernels::softmax::{exp_scaled, log_normalizer};
use gainsay_kernels::vocab::{Vocab, VocabGrads, token_logps, token_logps_backward};

fn reference(hidden: &[f64], output: &[f64], targets: &[u32], temperature: f64) -> Vec<f64> {
    let width = hidden.len() / targets.len();
    let row = |(h, target): (&[f64], &u32)| {
        let logit = |u: &[f64]| h.iter().zip(u).map(|(h, u)| h * u).sum::<f64>() / temperature;
        let logits: Vec<f64> = output.chunks(width).map(logit).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        logits[*target as usize] - most - logits.iter().map(|z| (z - most).exp()).sum::<f64>().ln()
    };
    hidden.chunks(width).zip(targets).map(row).collect()
}

fn targets(rows: usize, vocab: usize) -> Vec<u32> {
    (0..rows).map(|r| ((r * 7919 + vocab - 1) % vocab) as u32).collect()
}

#[test]
fn log_probs_match_the_reference() {
    for (rows, vocab, width) in [(1, 1, 1), (3, 256, 9), (20, 257, 40), (150, 1000, 33), (5, 700, 8)] {
        for (temperature, size) in [(1.0, 1.0), (0.7, 1.0), (1.3, 60.0)] {
            let hidden: Vec<f32> = noise(rows * width, 1).iter().map(|x| x * size).collect();
            let output = noise(vocab * width, 2);
            let targets = targets(rows, vocab);
            let packed = PackedWeight::transposed(&output, vocab, width, Precision::F32);
            let vocab_of =
                Vocab { hidden: &hidden, output: &packed, targets: &targets, inverse_temperature: 1.0 / temperature };
            let expected = reference(&wide(&hidden), &wide(&output), &targets, f64::from(temperature));
            close("logp", &token_logps(vocab_of), &expected, 2e-6 * f64::from(size));
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    for (rows, vocab, width) in [(1, 1, 2), (3, 17, 9), (20, 300, 5), (33, 40, 33)] {
        let (hidden, output, d_logp) = (noise(rows * width, 1), noise(vocab * width, 2), noise(rows, 3));
        let targets = targets(rows, vocab);
        let (packed, plain) = (
            PackedWeight::transposed(&output, vocab, width, Precision::F32),
            PackedWeight::plain(&output, vocab, width, Precision::F32),
        );
        let (mut dh, mut du) = (vec![0.5; hidden.len()], vec![0.25; output.len()]);
        let vocab_of = Vocab { hidden: &hidden, output: &packed, targets: &targets, inverse_temperature: 1.0 / 0.7 };
        let grads = VocabGrads { output: &plain, d_hidden: &mut dh, d_output: Some(&mut du) };
        token_logps_backward(vocab_of, &d_logp, grads);
        let temperature = 1.0 / f64::from(1.0f32 / 0.7);
        let expected = slopes(&hidden, &d_logp, |h| reference(h, &wide(&output), &targets, temperature));
        close("d hidden", &dh, &expected.iter().map(|d| d + 0.5).collect::<Vec<_>>(), 2e-6);
        let expected = slopes(&output, &d_logp, |u| reference(&wide(&hidden), u, &targets, temperature));
        close("d output", &du, &expected.iter().map(|d| d + 0.25).collect::<Vec<_>>(), 5e-6);
        let mut frozen = vec![0.5; hidden.len()];
        let grads = VocabGrads { output: &plain, d_hidden: &mut frozen, d_output: None };
        token_logps_backward(vocab_of, &d_logp, grads);
        assert_eq!(frozen, dh);
    }
}

#[test]
fn bf16_log_probs_and_gradients_are_near_those_of_f32() {
    let (rows, vocab, width) = (33, 700, 64);
    let (hidden, output, d_logp) = (noise(rows * width, 1), noise(vocab * width, 2), noise(rows, 3));
    let targets = targets(rows, vocab);
    let run = |precision| {
        let (packed, plain) = (
            PackedWeight::transposed(&output, vocab, width, precision),
            PackedWeight::plain(&output, vocab, width, precision),
        );
        let vocab = Vocab { hidden: &hidden, output: &packed, targets: &targets, inverse_temperature: 1.0 };
        let (mut dh, mut du) = (vec![0.0; hidden.len()], vec![0.0; output.len()]);
        let grads = VocabGrads { output: &plain, d_hidden: &mut dh, d_output: Some(&mut du) };
        token_logps_backward(vocab, &d_logp, grads);
        (token_logps(vocab), dh, du)
    };
    let (exact, rounded) = (run(Precision::F32), run(Precision::Bf16));
    // A relative 2^-9 in each operand of logits of about size 5.
    close("log-probs", &rounded.0, &wide(&exact.0), 0.02);
    close("d hidden", &rounded.1, &wide(&exact.1), 0.02);
    close("d output", &rounded.2, &wide(&exact.2), 0.02);
}

#[test]
fn a_rows_log_prob_and_gradient_have_the_same_bits_in_every_batch() {
    let (rows, width) = (300, 64);
    for vocab in [699, 700] {
        let (hidden, output, d_logp) = (noise(rows * width, 1), noise(vocab * width, 2), noise(rows, 3));
        let targets = targets(rows, vocab);
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedWeight::transposed(&output, vocab, width, precision);
            let plain = PackedWeight::plain(&output, vocab, width, precision);
            let run = |from: usize, rows: usize, threads: usize| {
                let hidden = &hidden[from * width..(from + rows) * width];
                let vocab =
                    Vocab { hidden, output: &packed, targets: &targets[from..from + rows], inverse_temperature: 0.8 };
                let (mut dh, mut du) = (vec![0.0; hidden.len()], vec![0.0; output.len()]);
                let grads = VocabGrads { output: &plain, d_hidden: &mut dh, d_output: Some(&mut du) };
                let logps = with_threads(threads, || {
                    token_logps_backward(vocab, &d_logp[from..from + rows], grads);
                    token_logps(vocab)
                });
                (logps, dh, du)
            };
            // One thread has blocks of many rows, a hundred have blocks of 14.
            let whole = run(0, rows, 1);
            assert_eq!(run(0, rows, 100), whole, "{vocab} {precision:?}");
            for (from, rows) in [(0, 1), (7, 3), (100, 15), (41, 200)] {
                let part = run(from, rows, 2);
                assert_eq!(part.0, whole.0[from..from + rows], "{vocab} {precision:?}");
                assert_eq!(part.1, whole.1[from * width..(from + rows) * width], "{vocab} {precision:?}");
            }
        }
    }
}

#[test]
fn normalizers_of_extreme_logits() {
    let mut logits = vec![f32::NEG_INFINITY; 600];
    logits[599] = -1e30;
    assert_eq!(log_normalizer(&logits), (-1e30, 0.0));
    logits[3] = 3e38;
    assert_eq!(log_normalizer(&logits), (3e38, 0.0));
    let (most, log_sum) = log_normalizer(&vec![88.0; 1000]);
    assert!(most == 88.0 && (log_sum - 1000f64.ln()).abs() < 1e-6);
    let mut out = vec![0.0; 3];
    exp_scaled(&[1.0, f32::NEG_INFINITY, 0.0], 1.0, 2.0, &mut out);
    close("weights", &out, &[1.0, 0.0, (-2f64).exp()], 1e-7);
}

#[test]
fn no_rows_are_no_work() {
    let output = PackedWeight::transposed(&[1.0, 2.0], 2, 1, Precision::F32);
    let vocab = Vocab { hidden: &[], output: &output, targets: &[], inverse_temperature: 1.0 };
    assert!(token_logps(vocab).is_empty());
    let plain = PackedWeight::plain(&[1.0, 2.0], 2, 1, Precision::F32);
    token_logps_backward(vocab, &[], VocabGrads { output: &plain, d_hidden: &mut [], d_output: Some(&mut [0.0; 2]) });
}
