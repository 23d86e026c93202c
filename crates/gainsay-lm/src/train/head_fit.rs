//! A reward head fitted to fixed features: a convex problem, solved to its optimum in f64.

use super::label::{Label, RankLabel};
use super::linalg::{Cholesky, dot, gram};

/// How [`fit_head`] regularizes and when it stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadFitOptions {
    /// Strength of the L2 penalty on the standardized weights, > 0.
    pub l2: f64,
    /// Strength of the centering term.
    pub center: f64,
    /// The fit ends where the next step promises a smaller decrease of the objective than this.
    pub tolerance: f64,
    /// Upper bound on the iterations.
    pub max_iterations: usize,
}

impl Default for HeadFitOptions {
    fn default() -> Self {
        Self { l2: 0.1, center: 0.0, tolerance: 1e-13, max_iterations: 200 }
    }
}

/// A fitted head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFit {
    /// `[width]`; the reward is its product with a feature row.
    pub head: Vec<f32>,
    /// Mean pair loss with the penalty, at the end; NaN where a gradient is not finite.
    pub objective: f64,
    /// Iterations used.
    pub iterations: usize,
    /// Whether the tolerance was reached, or as much of it as rounding allows.
    pub converged: bool,
}

/// Minimizes over w, for n comparisons of feature rows a_i, b_i, ...:
///
/// 1/n sum_i L_i(w a_i, w b_i, ...) + l2 / 2 sum_j (s_j w_j)^2
///
/// with L_i of [`Label::loss`] and s_j the root mean square of column j of a - b (of a ranking, the
/// mean square over its pairs), so that the penalty does not depend on the features' units. The objective is strictly convex: the result
/// does not depend on a starting point, which is 0. `features` is `[rows, width]`, row-major, each
/// comparison's rows after those of the one before. Columns that never differ get weight 0.
/// No comparisons: the head is 0.
pub fn fit_head(features: &[f32], width: usize, labels: &[Label], options: &HeadFitOptions) -> HeadFit {
    let problem = Problem::new(features, width, labels, options);
    let (scaled, objective, iterations, converged) =
        minimize(width, options, &problem.bound(), |x, gradient| problem.evaluate(x, gradient));
    let head = scaled.iter().zip(&problem.inverse_scale).map(|(x, s)| (x * s) as f32).collect();
    HeadFit { head, objective, iterations, converged }
}

/// The objective in standardized coordinates x_j = s_j w_j.
struct Problem<'a> {
    width: usize,
    labels: &'a [Label],
    /// Standardized rows, as given: `[rows, width]`.
    rows: Vec<f64>,
    /// 1 / s_j, or 0.
    inverse_scale: Vec<f64>,
    l2: f64,
    center: f64,
}

impl<'a> Problem<'a> {
    fn new(features: &[f32], width: usize, labels: &'a [Label], options: &HeadFitOptions) -> Self {
        let mut squares = vec![0.0f64; width];
        for (label, own) in by_label(labels, features, width) {
            match label {
                Label::Pair(_) => {
                    let (first, second) = own.split_at(width);
                    for ((s, a), b) in squares.iter_mut().zip(first).zip(second) {
                        *s += (f64::from(*a) - f64::from(*b)).powi(2);
                    }
                }
                Label::Ranking(ranking) => add_spread(own, width, ranking, &mut squares),
            }
        }
        let n = labels.len().max(1) as f64;
        let inverse_scale: Vec<f64> =
            squares.iter().map(|s| if *s > 0.0 { (s / n).sqrt().recip() } else { 0.0 }).collect();
        let rows = features
            .chunks_exact(width.max(1))
            .flat_map(|row| row.iter().zip(&inverse_scale).map(|(f, s)| f64::from(*f) * s))
            .collect();
        Self { width, labels, rows, inverse_scale, l2: options.l2, center: options.center }
    }

    /// An upper bound of the Hessian, the same everywhere: l2 I + 1/n sum_i (1/4 d_i d_i^T +
    /// 2 center s_i s_i^T), times the weights, with d and s the pairs' differences and sums: the
    /// logistic loss has curvature 1/4 at most. A safety label adds 1/4 a_i a_i^T of its side. Of a
    /// ranking's K - 1 choices each has curvature 1/2 sum_i e_i e_i^T at most (Boehning 1992), e being
    /// the rows less their mean, and s is 2/K times their sum: for K = 2 the same.
    fn bound(&self) -> Cholesky {
        let n = self.labels.len().max(1) as f64;
        let mut rows = Vec::with_capacity(self.rows.len());
        for (label, own) in by_label(self.labels, &self.rows, self.width) {
            let of_s = (2.0 * self.center * label.weight() / n).sqrt();
            match label {
                Label::Pair(label) => {
                    let of_d = (0.25 * label.weight / n).sqrt();
                    let (first, second) = own.split_at(self.width);
                    rows.extend(first.iter().zip(second).map(|(a, b)| of_d * (a - b)));
                    if self.center > 0.0 {
                        rows.extend(first.iter().zip(second).map(|(a, b)| of_s * (a + b)));
                    }
                    for (side, _) in [first, second].into_iter().zip(label.safe).filter(|(_, safe)| safe.is_some()) {
                        rows.extend(side.iter().map(|a| of_d * a));
                    }
                }
                Label::Ranking(label) => {
                    let k = label.sides() as f64;
                    let of_e = (0.5 * (k - 1.0) * label.weight / n).sqrt();
                    let mean = mean_row(own, self.width);
                    for row in own.chunks_exact(self.width.max(1)) {
                        rows.extend(row.iter().zip(&mean).map(|(a, m)| of_e * (a - m)));
                    }
                    rows.extend(mean.iter().map(|m| of_s * 2.0 * m));
                }
            }
        }
        let mut matrix = gram(&rows, self.width);
        matrix.iter_mut().step_by(self.width + 1).for_each(|diagonal| *diagonal += self.l2);
        Cholesky::new(matrix, self.width)
    }

    /// Value at `x`; `gradient` is overwritten.
    fn evaluate(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
        let n = self.labels.len().max(1) as f64;
        let mut value = 0.5 * self.l2 * dot(x, x);
        for (g, x) in gradient.iter_mut().zip(x) {
            *g = self.l2 * x;
        }
        for (label, own) in by_label(self.labels, &self.rows, self.width) {
            let rewards: Vec<f64> = own.chunks_exact(self.width.max(1)).map(|row| dot(row, x)).collect();
            let loss = label.loss(&rewards, self.center);
            value += loss.loss / n;
            // Two rows at a time: gradients are summed in the order of the pairs' own formula.
            for (rows, d) in own.chunks(2 * self.width.max(1)).zip(loss.d_rewards.chunks(2)) {
                match d {
                    [d1, d2] => {
                        let (d1, d2) = (d1 / n, d2 / n);
                        let (first, second) = rows.split_at(self.width);
                        for ((g, a), b) in gradient.iter_mut().zip(first).zip(second) {
                            *g += d1 * a + d2 * b;
                        }
                    }
                    _ => gradient.iter_mut().zip(rows).for_each(|(g, a)| *g += d[0] / n * a),
                }
            }
        }
        value
    }
}

/// Each label with its rows.
fn by_label<'a, T>(labels: &'a [Label], rows: &'a [T], width: usize) -> impl Iterator<Item = (&'a Label, &'a [T])> {
    let mut rest = rows;
    labels.iter().map(move |label| {
        let (own, more) = rest.split_at(label.sides() * width);
        rest = more;
        (label, own)
    })
}

/// The mean of some rows.
fn mean_row(rows: &[f64], width: usize) -> Vec<f64> {
    let n = (rows.len() / width.max(1)) as f64;
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width.max(1)) {
        mean.iter_mut().zip(row).for_each(|(m, a)| *m += a / n);
    }
    mean
}

/// Adds to `squares` the mean over a ranking's pairs of their squared differences, column by
/// column: 2 / (K - 1) times the squared deviations from the mean.
fn add_spread(rows: &[f32], width: usize, ranking: &RankLabel, squares: &mut [f64]) {
    let rows: Vec<f64> = rows.iter().map(|a| f64::from(*a)).collect();
    let mean = mean_row(&rows, width);
    let scale = 2.0 / (ranking.sides() as f64 - 1.0);
    for row in rows.chunks_exact(width.max(1)) {
        for ((s, a), m) in squares.iter_mut().zip(row).zip(&mean) {
            *s += scale * (a - m).powi(2);
        }
    }
}

/// Corrections that L-BFGS remembers.
const MEMORY: usize = 12;

/// One remembered correction.
struct Correction {
    step: Vec<f64>,
    change: Vec<f64>,
    /// 1 / (step . change).
    rho: f64,
}

/// L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) on top of the fixed matrix
/// `bound`, with backtracking by the Armijo rule; for strictly convex functions, whose curvature
/// along a step is positive. Features have means many times their differences, so that without
/// the matrix the centering term would take thousands of steps.
/// Returns (x, value, iterations, converged).
fn minimize(
    width: usize,
    options: &HeadFitOptions,
    bound: &Cholesky,
    evaluate: impl Fn(&[f64], &mut [f64]) -> f64,
) -> (Vec<f64>, f64, usize, bool) {
    let mut x = vec![0.0; width];
    let mut gradient = vec![0.0; width];
    let mut value = evaluate(&x, &mut gradient);
    let mut memory: Vec<Correction> = Vec::new();
    for iteration in 0..options.max_iterations {
        let direction = two_loop(&gradient, &memory, bound);
        let slope = dot(&direction, &gradient);
        if !slope.is_finite() {
            return (x, f64::NAN, iteration, false);
        }
        // A decrease below the value's rounding cannot be seen.
        if -slope <= options.tolerance.max(4.0 * f64::EPSILON * value.abs()) {
            return (x, value, iteration, true);
        }
        let mut length = 1.0;
        let mut next_gradient = vec![0.0; width];
        let (next, next_value) = loop {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let next_value = evaluate(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * length * slope {
                break (next, next_value);
            }
            length *= 0.5;
            if length < 1e-12 {
                // Rounding hides any further descent, which is no failure where little was left,
                // or a value is not finite.
                let little = -slope <= 1e-9 * value.abs().max(1.0);
                return (x, value, iteration, little);
            }
        };
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push(Correction { step, change, rho: 1.0 / curvature });
        }
        (x, value, gradient) = (next, next_value, next_gradient);
    }
    (x, value, options.max_iterations, false)
}

/// -H gradient, with H the inverse Hessian that the corrections describe, starting from the bound.
fn two_loop(gradient: &[f64], memory: &[Correction], bound: &Cholesky) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(memory.len());
    for c in memory.iter().rev() {
        let weight = c.rho * dot(&c.step, &q);
        q.iter_mut().zip(&c.change).for_each(|(q, y)| *q -= weight * y);
        weights.push(weight);
    }
    bound.solve(&mut q);
    for (c, weight) in memory.iter().zip(weights.iter().rev()) {
        let correction = weight - c.rho * dot(&c.change, &q);
        q.iter_mut().zip(&c.step).for_each(|(q, s)| *q += correction * s);
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::sigmoid;
    use crate::train::label::PairLabel;
    use gainsay_core::rng::Key;

    const ONE: PairLabel = PairLabel { p: 1.0, margin: 0.0, weight: 1.0, safe: [None; 2] };

    #[test]
    fn one_feature_by_hand() {
        // One pair, features 2 and 0: s = 2, x = 2 w, D = 2 w = x. The optimum of
        // -log s(x) + l2/2 x^2 solves s(-x) = l2 x; l2 = s(-1) gives x = 1, w = 1/2.
        let options = HeadFitOptions { l2: sigmoid(-1.0), ..HeadFitOptions::default() };
        let fit = fit_head(&[2.0, 0.0], 1, &[ONE.into()], &options);
        assert!(fit.converged && (fit.head[0] - 0.5).abs() < 1e-6, "{fit:?}");
        // The label reversed: the opposite weight.
        let zero = PairLabel::new(0.0, 0.0);
        assert!((fit_head(&[2.0, 0.0], 1, &[zero.into()], &options).head[0] + 0.5).abs() < 1e-6);
        // A tie asks for no difference.
        let tie = PairLabel::new(0.5, 0.0);
        assert_eq!(fit_head(&[2.0, 0.0], 1, &[tie.into()], &options).head, [0.0]);
    }

    #[test]
    fn a_fit_that_fails_says_so() {
        let options = HeadFitOptions::default();
        let fit = fit_head(&[f32::NAN, 0.0], 1, &[ONE.into()], &options);
        assert!(!fit.converged && fit.objective.is_nan(), "{fit:?}");
        let (features, labels, _) = pool(100, 6);
        let one = HeadFitOptions { max_iterations: 1, ..options };
        let fit = fit_head(&features, 6, &labels, &one);
        assert!(!fit.converged && fit.objective.is_finite(), "{fit:?}");
        // A margin so large that rounding hides the last digits of the loss: no failure.
        let far: Vec<Label> = labels.iter().map(|_| PairLabel { margin: 1e7, ..ONE }.into()).collect();
        let fit = fit_head(&features, 6, &far, &options);
        assert!(fit.converged && fit.objective.is_finite(), "{fit:?}");
    }

    #[test]
    fn degenerate_inputs_give_zero() {
        let options = HeadFitOptions::default();
        assert_eq!(fit_head(&[], 3, &[], &options).head, [0.0; 3]);
        // A column that never differs has weight 0, whatever its size.
        let fit = fit_head(&[5.0, 1.0, 5.0, 0.0], 2, &[ONE.into()], &options);
        assert!(fit.head[0] == 0.0 && fit.head[1] > 0.0);
    }

    /// `n` pairs of `width` features, labelled by Bradley-Terry of a hidden head.
    fn pool(n: usize, width: usize) -> (Vec<f32>, Vec<Label>, Vec<f64>) {
        let mut stream = Key::new(1, "head-fit").stream();
        let truth: Vec<f64> = (0..width).map(|_| stream.normal()).collect();
        let features: Vec<f32> =
            (0..2 * n * width).map(|i| (stream.normal() * (1 + i % width) as f64) as f32).collect();
        let labels = features
            .chunks(2 * width)
            .map(|pair| {
                let difference: f64 = (0..width).map(|j| truth[j] * f64::from(pair[j] - pair[width + j])).sum();
                Label::Pair(PairLabel { p: f64::from(u8::from(stream.uniform() < sigmoid(difference))), ..ONE })
            })
            .collect();
        (features, labels, truth)
    }

    /// The gradient is the derivative of the value (central differences), and any other point than
    /// the fit is worse: convexity, checked along random directions.
    fn fits(features: &[f32], width: usize, labels: &[Label], options: &HeadFitOptions) -> HeadFit {
        let problem = Problem::new(features, width, labels, options);
        let mut gradient = vec![0.0; width];
        let mut stream = Key::new(2, "head-fit").stream();
        let x: Vec<f64> = (0..width).map(|_| stream.normal()).collect();
        problem.evaluate(&x, &mut gradient);
        for j in 0..width {
            let at = |h: f64| {
                let mut moved = x.clone();
                moved[j] += h;
                problem.evaluate(&moved, &mut vec![0.0; width])
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient[j] - numeric).abs() < 1e-7, "{j}: {} {numeric}", gradient[j]);
        }
        let fit = fit_head(features, width, labels, options);
        assert!(fit.converged, "{fit:?}");
        for _ in 0..50 {
            let scaled = fit.head.iter().zip(&problem.inverse_scale).map(|(w, s)| f64::from(*w) / s);
            let moved: Vec<f64> = scaled.map(|x| x + 0.05 * stream.normal()).collect();
            assert!(problem.evaluate(&moved, &mut gradient) > fit.objective);
        }
        fit
    }

    #[test]
    fn the_gradient_vanishes_at_the_optimum_only() {
        let (features, labels, _) = pool(300, 10);
        fits(&features, 10, &labels, &HeadFitOptions { l2: 0.01, center: 0.01, ..HeadFitOptions::default() });
    }

    #[test]
    fn weights_repeat_pairs_and_safety_moves_the_zero() {
        let (features, labels, _) = pool(60, 5);
        let options = HeadFitOptions { l2: 0.05, ..HeadFitOptions::default() };
        // A pair of weight 2 counts as two: three copies of everything, or weights (2, 1) thrice.
        let doubled: Vec<f32> = features.iter().chain(&features[..2 * 5 * 30]).copied().collect();
        let more: Vec<Label> = labels.iter().chain(&labels[..30]).cloned().collect();
        let weighted: Vec<Label> =
            labels.iter().enumerate().map(|(i, l)| l.weighed(if i < 30 { 2.0 } else { 1.0 } * 60.0 / 90.0)).collect();
        let (a, b) = (fit_head(&doubled, 5, &more, &options), fit_head(&features, 5, &weighted, &options));
        // The penalty's units differ a little: the root mean squares of the columns do.
        for (x, y) in a.head.iter().zip(&b.head) {
            assert!((x - y).abs() < 0.05 * y.abs().max(0.2), "{:?} {:?}", a.head, b.head);
        }
        // One feature, 3 and 1, the first better; both unsafe: rewards must fall below 0.
        let both = PairLabel { safe: [Some(false); 2], ..ONE };
        assert!(fit_head(&[3.0, 1.0], 1, &[ONE.into()], &options).head[0] > 0.0);
        let unsafe_fit = fit_head(&[3.0, 1.0], 1, &[both.into()], &options);
        assert!(unsafe_fit.converged && unsafe_fit.head[0] < 0.0, "{unsafe_fit:?}");
        let problem = Problem::new(&features, 5, &weighted, &options);
        let mut gradient = vec![0.0; 5];
        problem.evaluate(&[0.3, -0.2, 0.1, 0.0, 0.5], &mut gradient);
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn it_finds_the_hidden_head_in_any_units() {
        let (features, labels, truth) = pool(4000, 8);
        let options = HeadFitOptions { l2: 1e-4, ..HeadFitOptions::default() };
        let fit = fit_head(&features, 8, &labels, &options);
        for (w, t) in fit.head.iter().zip(&truth) {
            assert!((f64::from(*w) - t).abs() < 0.35 * t.abs().max(0.5), "{:?} {truth:?}", fit.head);
        }
        // Features in thousandths: the head grows a thousandfold, the rewards stay.
        let small: Vec<f32> = features.iter().map(|f| f / 1000.0).collect();
        for (a, b) in fit_head(&small, 8, &labels, &options).head.iter().zip(&fit.head) {
            assert!((a / 1000.0 - b).abs() < 1e-3 * b.abs().max(0.1));
        }
    }

    #[test]
    fn rankings_are_fitted_to_their_optimum_too() {
        let (features, _, _) = pool(60, 6);
        // Each four rows are a ranking, with and without ties.
        let groups =
            [vec![vec![0], vec![1], vec![2], vec![3]], vec![vec![2, 0], vec![1, 3]], vec![vec![3], vec![0, 1, 2]]];
        let labels: Vec<Label> = (0..30)
            .map(|i| Label::Ranking(RankLabel { groups: groups[i % 3].clone(), weight: 1.0 + (i % 2) as f64 }))
            .collect();
        let options = HeadFitOptions { l2: 0.01, center: 0.05, ..HeadFitOptions::default() };
        assert!(fits(&features, 6, &labels, &options).iterations < 60);
    }

    #[test]
    fn rankings_of_two_fit_the_head_of_their_pairs() {
        let (features, labels, _) = pool(80, 5);
        let options = HeadFitOptions { l2: 0.05, center: 0.02, ..HeadFitOptions::default() };
        let rankings: Vec<Label> = labels
            .iter()
            .map(|label| match label {
                Label::Pair(pair) if pair.p == 1.0 => vec![vec![0], vec![1]],
                _ => vec![vec![1], vec![0]],
            })
            .map(|groups| Label::Ranking(RankLabel { groups, weight: 1.0 }))
            .collect();
        let (a, b) = (fit_head(&features, 5, &labels, &options), fit_head(&features, 5, &rankings, &options));
        for (x, y) in a.head.iter().zip(&b.head) {
            assert!((x - y).abs() < 1e-5 * y.abs().max(0.1), "{:?} {:?}", a.head, b.head);
        }
        assert!((a.objective - b.objective).abs() < 1e-10);
    }
}
