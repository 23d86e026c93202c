//! The over-optimization curve: gold and proxy reward against the distance from the base policy
//! (Gao, Schulman and Hilton, *Scaling laws for reward model overoptimization*, arXiv 2210.10760).

use gainsay_core::rng::Key;
use gainsay_core::stats::{Interval, RESAMPLES, bootstrap_paired_difference};
use serde::Serialize;

/// One policy on the way of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Steps taken.
    pub step: u32,
    /// KL(policy || base), nats a sequence, >= 0.
    pub kl: f64,
    /// Mean reward that was optimized.
    pub proxy: f64,
    /// Mean gold reward.
    pub gold: f64,
}

/// The fitted form R(d) = R(0) + d (alpha - beta log d), d = sqrt(KL): Gao et al.'s for
/// reinforcement learning (section 3.1). With beta > 0 it rises and then falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Slope at d = 1, plus beta.
    pub alpha: f64,
    /// How fast the gain shrinks.
    pub beta: f64,
    /// The distance of the highest gold, exp(alpha / beta - 1); `None` where beta <= 0.
    pub peak: Option<f64>,
    /// Root mean square of what the form leaves unexplained.
    pub residual: f64,
}

/// Least squares for alpha and beta, R(0) being the reward of the first point, whose KL is 0 (the
/// base). Points at KL 0 have no say. `None` with fewer than two others, or where these have one
/// distance.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let (_, start) = *points.first()?;
    let rows: Vec<[f64; 3]> = points
        .iter()
        .filter(|(kl, _)| *kl > 0.0)
        .map(|(kl, reward)| {
            let d = kl.sqrt();
            [d, -d * d.ln(), reward - start]
        })
        .collect();
    let sum = |f: fn(&[f64; 3]) -> f64| rows.iter().map(f).sum::<f64>();
    let (aa, ab, bb) = (sum(|r| r[0] * r[0]), sum(|r| r[0] * r[1]), sum(|r| r[1] * r[1]));
    let (ay, by) = (sum(|r| r[0] * r[2]), sum(|r| r[1] * r[2]));
    let determinant = aa * bb - ab * ab;
    if rows.len() < 2 || determinant.abs() <= 1e-12 * (aa * bb).max(f64::MIN_POSITIVE) {
        return None;
    }
    let alpha = (ay * bb - by * ab) / determinant;
    let beta = (by * aa - ay * ab) / determinant;
    let squares: f64 = rows.iter().map(|r| (alpha * r[0] + beta * r[1] - r[2]).powi(2)).sum();
    let peak = (beta > 0.0).then(|| (alpha / beta - 1.0).exp());
    Some(Fit { alpha, beta, peak, residual: (squares / rows.len() as f64).sqrt() })
}

/// The place of the first look at which gold is lower than at the look before while proxy is higher,
/// and gold does not again reach what it was in the looks that follow, of which there is one at least:
/// where over-optimization sets in. `None` where it does not.
pub fn turn(points: &[Point]) -> Option<usize> {
    (1..points.len().saturating_sub(1)).find(|&at| {
        let (before, now) = (&points[at - 1], &points[at]);
        let turned = now.gold < before.gold && now.proxy > before.proxy;
        turned && points[at..].iter().all(|later| later.gold < before.gold)
    })
}

/// Gold at the last look less gold at the look before the turn `at`, prompt by prompt, with its
/// bootstrap interval over prompts. `None` where a look lacks the prompts' values.
pub fn fall(at: usize, gold_by_prompt: &[&[f64]]) -> Option<Interval> {
    let (before, last) = (gold_by_prompt.get(at.checked_sub(1)?)?, gold_by_prompt.last()?);
    let pairs: Vec<(f64, f64)> = last.iter().copied().zip(before.iter().copied()).collect();
    let whole = !pairs.is_empty() && last.len() == before.len();
    whole.then(|| bootstrap_paired_difference(&pairs, RESAMPLES, Key::new(0, "gold-falls")))?
}

/// The curve of a training as it stands in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Looks at the held-out prompts, by step.
    pub points: Vec<Point>,
    /// The form fitted to gold.
    pub gold: Option<Fit>,
    /// The form fitted to proxy.
    pub proxy: Option<Fit>,
    /// The step of the look at which gold turned; see [`turn`].
    pub turning_step: Option<u32>,
    /// How far gold fell since; see [`fall`].
    pub fall: Option<Interval>,
}

impl Curve {
    /// The curve through these points, whose gold is the mean of `gold_by_prompt`, one list a point.
    pub fn of(points: Vec<Point>, gold_by_prompt: &[&[f64]]) -> Self {
        let by = |reward: fn(&Point) -> f64| points.iter().map(|p| (p.kl, reward(p))).collect::<Vec<_>>();
        let (gold, proxy) = (fit(&by(|p| p.gold)), fit(&by(|p| p.proxy)));
        let turn = turn(&points);
        let fall = turn.and_then(|at| fall(at, gold_by_prompt));
        Self { gold, proxy, turning_step: turn.map(|at| points[at].step), fall, points }
    }

    /// Lines of text for people.
    pub fn render(&self) -> String {
        let mut out = String::from("step  sqrt(KL)   proxy    gold\n");
        for p in &self.points {
            out.push_str(&format!("{:>4}  {:>8.2}  {:>+6.3}  {:>+6.3}\n", p.step, p.kl.sqrt(), p.proxy, p.gold));
        }
        if let Some(Fit { alpha, beta, .. }) = self.gold {
            out.push_str(&format!("gold fits R0 + d ({alpha:.3} - {beta:.3} log d), d = sqrt(KL)\n"));
        }
        out.push_str(&match (self.turning_step, &self.fall) {
            (Some(step), Some(fall)) if fall.holds(0.0) => format!(
                "gold turns at step {step} while proxy rises, by {fall:.2} up to the last look: not distinguishable from \
                 chance\n"
            ),
            (Some(step), fall) => format!(
                "over-optimization: from step {step} on gold falls while proxy rises{}\n",
                fall.map(|fall| format!(", by {fall:.2} up to the last look")).unwrap_or_default()
            ),
            (None, _) => "no over-optimization: gold does not turn while proxy rises\n".into(),
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_finds_its_own_form() {
        let form = |d: f64| 0.3 + d * (1.5 - 0.8 * d.ln());
        let mut points: Vec<(f64, f64)> = (1..9).map(|i| 0.5 * f64::from(i)).map(|d| (d * d, form(d))).collect();
        points.insert(0, (0.0, 0.3));
        let f = fit(&points).unwrap();
        assert!((f.alpha - 1.5).abs() < 1e-9 && (f.beta - 0.8).abs() < 1e-9 && f.residual < 1e-9);
        // dR/dd = alpha - beta - beta log d = 0 at d = exp(alpha / beta - 1).
        let peak = f.peak.unwrap();
        assert!(form(peak) > form(0.99 * peak) && form(peak) > form(1.01 * peak));
        assert!(fit(&points[..2]).is_none() && fit(&[]).is_none());
        assert!(fit(&[(0.0, 0.0), (4.0, 1.0), (4.0, 2.0)]).is_none());
    }

    #[test]
    fn the_turn_by_hand() {
        let point = |step: u32, gold: f64, proxy: f64| Point { step, kl: f64::from(step), proxy, gold };
        let up = [point(0, 0.0, 0.0), point(1, 0.4, 0.5), point(2, 0.3, 0.7), point(3, 0.5, 0.8)];
        // The dip at step 2 does not last.
        assert_eq!(turn(&up), None);
        let turned = [point(0, 0.0, 0.0), point(1, 0.4, 0.5), point(2, 0.3, 0.7), point(3, 0.1, 0.9)];
        assert_eq!(turn(&turned), Some(2));
        // A dip at the last look is not yet a turn.
        assert_eq!((turn(&turned[..3]), turn(&turned[..1]), turn(&[])), (None, None, None));
        // Both fall: that is not over-optimization.
        assert_eq!(turn(&[point(0, 1.0, 1.0), point(1, 0.5, 0.5), point(2, 0.4, 0.4)]), None);
        let text = Curve::of(turned.to_vec(), &[]).render();
        assert!(text.contains("from step 2 on") && !text.contains("by "), "{text}");

        // From 0.4 to 0.1 on every prompt alike; by a few prompts alone.
        let (before, after) = ([0.4; 20], [0.1; 20]);
        let golds = [&before[..], &before, &before, &after];
        let curve = Curve::of(turned.to_vec(), &golds);
        assert!((curve.fall.unwrap().estimate + 0.3).abs() < 1e-12);
        assert!(curve.render().contains("gold falls while proxy rises, by -0.30 [-0.30, -0.30]"), "{}", curve.render());
        let uneven: Vec<f64> = (0..20).map(|i| if i < 9 { 1.4 } else { -0.96 }).collect();
        let golds = [&before[..], &before, &before, &uneven];
        let text = Curve::of(turned.to_vec(), &golds).render();
        assert!(text.contains("not distinguishable"), "{text}");
        assert_eq!(fall(2, &[&before[..], &before, &[]]), None);
    }
}
