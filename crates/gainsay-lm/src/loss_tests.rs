use super::*;
use gainsay_core::rng::Key;

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} against {b}");
}

#[test]
fn log_sigmoid_at_known_points() {
    // s(0) = 1/2. s(ln 3) = 3/4, s(-ln 3) = 1/4.
    close(log_sigmoid(0.0), 0.5f64.ln());
    close(log_sigmoid(3f64.ln()), 0.75f64.ln());
    close(log_sigmoid(-(3f64.ln())), 0.25f64.ln());
    // Far out: log s(-800) = -800 (1 + e^800 overflows), log s(800) = -e^-800 = -0.
    assert_eq!(log_sigmoid(-800.0), -800.0);
    assert_eq!(log_sigmoid(800.0), 0.0);
    // log s(40) = -log1p(e^-40) = -e^-40 to first order; 1 - s(40) would round to 0.
    close(log_sigmoid(40.0) / (-40f64).exp(), -1.0);
    close(sigmoid(-800.0), 0.0);
    close(sigmoid(2.0) + sigmoid(-2.0), 1.0);
}

#[test]
fn bradley_terry_by_hand() {
    // p = 1, m = 0, D = ln 3: L = -log s(ln 3) = -log(3/4); dL/dD = -s(-ln 3) = -1/4.
    let l = bradley_terry(1.0, 0.0, 3f64.ln(), 0.0, 0.0);
    close(l.loss, -(0.75f64.ln()));
    close(l.d_r1, -0.25);
    close(l.d_r2, 0.25);
    // A tie at equal rewards: L = log 2, no gradient.
    let l = bradley_terry(0.5, 0.0, 2.0, 2.0, 0.0);
    close(l.loss, 2f64.ln());
    close(l.d_r1, 0.0);
    // p = 3/4, D = ln 3, m = 0: s(D) = p, the stationary point; L is the label's entropy,
    // -(3/4) log(3/4) - (1/4) log(1/4).
    let l = bradley_terry(0.75, 0.0, 1.0 + 3f64.ln(), 1.0, 0.0);
    close(l.loss, -0.75 * 0.75f64.ln() - 0.25 * 0.25f64.ln());
    close(l.d_r1, 0.0);
    // m = ln 3 and D = 2 ln 3: D - m = ln 3, as in the first case.
    close(bradley_terry(1.0, 3f64.ln(), 9f64.ln(), 0.0, 0.0).loss, -(0.75f64.ln()));
    // The margin works for whichever side wins: p = 0, D = 0, m = ln 3: -log s(-ln 3) = log 4.
    let l = bradley_terry(0.0, 3f64.ln(), 0.0, 0.0, 0.0);
    close(l.loss, 4f64.ln());
    close(l.d_r1, 0.75);
    // Centering with c = 0.01, r = (2, 1): 0.01 * 9 = 0.09, derivative 2 * 0.01 * 3 = 0.06 each.
    let (with, without) = (bradley_terry(1.0, 0.0, 2.0, 1.0, 0.01), bradley_terry(1.0, 0.0, 2.0, 1.0, 0.0));
    close(with.loss - without.loss, 0.09);
    close(with.d_r1 - without.d_r1, 0.06);
    close(with.d_r2 - without.d_r2, 0.06);
}

#[test]
fn bradley_terry_stays_finite() {
    let l = bradley_terry(1.0, 0.0, -1e4, 1e4, 0.0);
    assert_eq!((l.loss, l.d_r1, l.d_r2), (2e4, -1.0, 1.0));
    let l = bradley_terry(1.0, 0.0, 1e4, -1e4, 0.0);
    assert_eq!((l.loss, l.d_r1), (0.0, 0.0));
    assert!(bradley_terry(1.0, 0.0, f64::NAN, 0.0, 0.0).loss.is_nan());
}

/// Random (p, margin, r1, r2, center).
fn draws() -> impl Iterator<Item = [f64; 5]> {
    let mut stream = Key::new(1, "loss-tests").stream();
    (0..500).map(move |_| {
        let mut u = || stream.uniform();
        [u(), u() * (u() > 0.5) as u8 as f64, 8.0 * u() - 4.0, 8.0 * u() - 4.0, 0.1 * u()]
    })
}

#[test]
fn bradley_terry_gradient_check() {
    let h = 1e-5;
    for [p, m, r1, r2, c] in draws() {
        let l = bradley_terry(p, m, r1, r2, c);
        let at = |x, y| bradley_terry(p, m, x, y, c).loss;
        // Central differences: error O(h^2) + eps / h, about 1e-10.
        let d1 = (at(r1 + h, r2) - at(r1 - h, r2)) / (2.0 * h);
        let d2 = (at(r1, r2 + h) - at(r1, r2 - h)) / (2.0 * h);
        assert!((l.d_r1 - d1).abs() < 1e-8 && (l.d_r2 - d2).abs() < 1e-8, "{l:?} {d1} {d2}");
        let slope = |x| bradley_terry(p, m, x, 0.0, 0.0).d_r1;
        let d = r1 - r2;
        let curvature = (slope(d + h) - slope(d - h)) / (2.0 * h);
        assert!((bradley_terry_curvature(p, m, d) - curvature).abs() < 1e-8);
    }
}

#[test]
fn bradley_terry_properties() {
    for [p, m, r1, r2, c] in draws() {
        let l = bradley_terry(p, m, r1, r2, c);
        assert!(l.loss >= 0.0);
        // Swapping the pair and the label changes nothing.
        let swapped = bradley_terry(1.0 - p, m, r2, r1, c);
        close(swapped.loss, l.loss);
        close(swapped.d_r1, l.d_r2);
        close(swapped.d_r2, l.d_r1);
        // Without centering only the difference counts.
        let plain = bradley_terry(p, m, r1, r2, 0.0);
        let shifted = bradley_terry(p, m, r1 + 3.0, r2 + 3.0, 0.0);
        assert!((plain.loss - shifted.loss).abs() < 1e-12);
        close(plain.d_r1 + plain.d_r2, 0.0);
        // A larger margin never lowers the loss.
        assert!(bradley_terry(p, m + 0.5, r1, r2, c).loss >= l.loss);
    }
}

#[test]
fn rloo_by_hand() {
    // (1, 2, 6): others' means 4, 3.5, 1.5.
    assert_eq!(rloo_advantages(&[1.0, 2.0, 6.0]).unwrap(), [-3.0, -1.5, 4.5]);
    assert_eq!(rloo_advantages(&[1.0, 3.0]).unwrap(), [-2.0, 2.0]);
    // Equal rewards teach nothing, exactly.
    assert_eq!(rloo_advantages(&[0.1; 7]).unwrap(), [0.0; 7]);
    assert_eq!((rloo_advantages(&[1.0]), rloo_advantages(&[])), (None, None));
}

#[test]
fn rloo_properties() {
    let mut stream = Key::new(2, "loss-tests").stream();
    for k in 2..12 {
        let rewards: Vec<f64> = (0..k).map(|_| stream.normal()).collect();
        let advantages = rloo_advantages(&rewards).unwrap();
        assert!(advantages.iter().sum::<f64>().abs() < 1e-12);
        let shifted: Vec<f64> = rewards.iter().map(|r| r + 5.0).collect();
        for (a, b) in advantages.iter().zip(rloo_advantages(&shifted).unwrap()) {
            assert!((a - b).abs() < 1e-12);
        }
        // k/(k-1) times the distance to the mean.
        let mean = rewards.iter().sum::<f64>() / k as f64;
        for (a, r) in advantages.iter().zip(&rewards) {
            assert!((a - (r - mean) * k as f64 / (k - 1) as f64).abs() < 1e-12);
        }
    }
}

#[test]
fn kl_estimators_are_unbiased_and_have_their_signs() {
    // pi = (1/2, 1/4, 1/4), ref = (1/4, 1/4, 1/2): KL(pi || ref) = 1/2 ln 2 + 0 - 1/4 ln 2.
    let (pi, reference) = ([0.5f64, 0.25, 0.25], [0.25f64, 0.25, 0.5]);
    let expect =
        |k: fn(f64, f64) -> f64| -> f64 { pi.iter().zip(&reference).map(|(p, q)| p * k(p.ln(), q.ln())).sum() };
    close(expect(kl_k1), 0.25 * 2f64.ln());
    close(expect(kl_k3), 0.25 * 2f64.ln());
    // The policy likes the token more than the base does: k1 > 0.
    close(kl_k1(-1.0, -3.0), 2.0);
    // q = e^-2: e^-2 - 1 + 2.
    close(kl_k3(-1.0, -3.0), (-2f64).exp() + 1.0);
    assert_eq!((kl_k3(-1.5, -1.5), kl_k1(-1.5, -1.5)), (0.0, 0.0));
    assert!(pi.iter().zip(&reference).all(|(p, q)| kl_k3(p.ln(), q.ln()) >= 0.0));
    // Nearby policies: k3 ~ (difference)^2 / 2, without cancellation.
    assert!((kl_k3(-1.0, -1.0 - 1e-6) / 5e-13 - 1.0).abs() < 1e-3);
}

#[test]
fn reinforce_raises_the_probability_of_good_sequences() {
    // A = 2, log pi = -3: L = 6, dL/dlogp = -2: descent raises the log-prob.
    let l = reinforce(2.0, -3.0);
    assert_eq!((l.loss, l.d_logp), (6.0, -2.0));
    assert_eq!(reinforce(-1.0, -3.0).d_logp, 1.0);
    assert_eq!(reinforce(5.0, 0.0).loss, 0.0);
}

#[test]
fn reinforce_estimates_the_gradient_of_the_expected_reward() {
    // A softmax over two answers with logits (x, 0) and rewards (3, 1): J = 1 + 2 s(x), so
    // dJ/dx = 2 s(x) s(-x). REINFORCE: -E[A dlog pi/dx] with A = R (the mean of k1-type
    // baselines is 0), dlog pi(0)/dx = s(-x), dlog pi(1)/dx = -s(x).
    let x = 0.7;
    let estimate =
        sigmoid(x) * reinforce(3.0, 0.0).d_logp * sigmoid(-x) + sigmoid(-x) * reinforce(1.0, 0.0).d_logp * -sigmoid(x);
    close(-estimate, 2.0 * sigmoid(x) * sigmoid(-x));
}
