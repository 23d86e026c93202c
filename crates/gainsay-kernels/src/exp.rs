//! An exponential that vectorizes.

use crate::isa::madd;

/// e^x with a relative error below 2e-7. Below -87.33 (where the result is no longer a normal
/// number) it is 0, above 88.37 infinity; NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, n by adding and subtracting 1.5 * 2^23, ln 2 in two parts
/// (Cody and Waite 1980); e^r by its Taylor polynomial of degree 7, whose remainder there is
/// below 6e-9.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -87.33;
    const HIGH: f32 = 88.37;
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < LOW { LOW } else { x };
    let clamped = if clamped > HIGH { HIGH } else { clamped };
    let shifted = madd::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -LN2_LOW, madd::<FMA>(n, -LN2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = madd::<FMA>(p, r, c);
    }
    // The low bits of `shifted` are n; a NaN's are masked away by p, which is NaN too.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    let value = p * power;
    let value = if x < LOW { 0.0 } else { value };
    if x > HIGH { f32::INFINITY } else { value }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// tanh x = sign(x) (1 - e) / (1 + e), e = e^(-2|x|); near 0 by its odd series, since the
/// difference cancels there.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-2.0 * x.abs());
    let far = (1.0 - e) / (1.0 + e);
    let s = x * x;
    // x - x^3/3 + 2x^5/15 - 17x^7/315: relative error below 1e-8 for |x| < 0.1.
    let near = madd::<FMA>(madd::<FMA>(madd::<FMA>(-17.0 / 315.0, s, 2.0 / 15.0), s, -1.0 / 3.0), s, 1.0) * x;
    if x.abs() < 0.1 { near } else { far.copysign(x) }
}

/// erfc(|t|) e^(t^2) e^(-t^2): the complementary error function of |t|, by the rational form of
/// Abramowitz and Stegun 7.1.26 refined in 1/(1 + t/2) (Numerical Recipes, "erfcc", relative
/// error below 1.2e-7).
#[inline(always)]
pub(crate) fn erfc_abs<const FMA: bool>(t: f32) -> f32 {
    let z = t.abs();
    let u = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77;
    for c in [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = madd::<FMA>(p, u, c);
    }
    u * exp::<FMA>(madd::<FMA>(-z, z, p))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of a function over a grid, with the f64 value.
    fn check(grid: impl Iterator<Item = f32>, f: [fn(f32) -> f32; 2], expected: fn(f64) -> f64, bound: f64) {
        for x in grid {
            let e = expected(f64::from(x));
            for f in f {
                let error = (f64::from(f(x)) - e).abs() / e.abs().max(1e-30);
                assert!(error < bound, "{x}: {} instead of {e}, relative error {error}", f(x));
            }
        }
    }

    #[test]
    fn exp_is_accurate() {
        let grid = (-873_000..883_000).map(|i| i as f32 * 1e-4);
        check(grid, [exp::<false>, exp::<true>], f64::exp, 2e-7);
    }

    #[test]
    fn exp_at_the_edges() {
        for f in [exp::<false>, exp::<true>] {
            assert_eq!(f(0.0), 1.0);
            assert_eq!(f(-0.0), 1.0);
            assert_eq!(f(f32::NEG_INFINITY), 0.0);
            assert_eq!(f(-1e30), 0.0);
            assert_eq!(f(-88.0), 0.0);
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            assert_eq!(f(89.0), f32::INFINITY);
            assert!(f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn sigmoid_and_tanh_are_accurate() {
        let grid = || (-800_000..800_000).map(|i| i as f32 * 1e-4);
        check(grid(), [sigmoid::<false>, sigmoid::<true>], |x| 1.0 / (1.0 + (-x).exp()), 4e-7);
        check(grid(), [tanh::<false>, tanh::<true>], f64::tanh, 4e-7);
        assert_eq!(sigmoid::<true>(-1e9), 0.0);
        assert_eq!(sigmoid::<true>(1e9), 1.0);
        assert_eq!(tanh::<true>(-1e9), -1.0);
        assert!(tanh::<true>(f32::NAN).is_nan() && sigmoid::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn erfc_matches_known_values() {
        // Abramowitz and Stegun, table 7.1: erf(0.5), erf(1), erf(2); erfc(0) = 1.
        for (x, erf) in [(0.0, 0.0), (0.5, 0.520_499_878), (1.0, 0.842_700_793), (2.0, 0.995_322_265)] {
            assert!((f64::from(1.0 - erfc_abs::<true>(x)) - erf).abs() < 2e-7, "{x}");
        }
    }
}
