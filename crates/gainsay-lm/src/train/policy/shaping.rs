//! What is done to rewards before they teach: against over-optimization.

use gainsay_core::stats::{mean, population_std};
use serde::{Deserialize, Serialize};

use crate::error::LmError;

/// Shaping of rewards, in this order: uncertainty penalty, centering, scaling, clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shaping {
    /// Weight k of the uncertainty penalty r - k sd, sd over the reward model's ensemble of heads
    /// (arXiv 2310.02743, section 3.3: uncertainty-weighted optimization).
    pub uncertainty: f64,
    /// Take off the mean over the step's completions.
    pub center: bool,
    /// Divide by the population standard deviation over the step's completions, unless that is 0.
    pub scale: bool,
    /// Rewards are cut to [-clip, clip]; 0 turns it off.
    pub clip: f64,
}

impl Shaping {
    pub(super) fn check(&self) -> Result<(), LmError> {
        for (name, value) in [("uncertainty", self.uncertainty), ("reward-clip", self.clip)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(LmError::Input(format!("{name} {value}: it must be 0 or more")));
            }
        }
        Ok(())
    }
}

/// The shaped rewards of a step. `spreads` are the ensemble's standard deviations; without them
/// there is no penalty. Rewards keep their order unless the penalty or the clip says otherwise.
pub fn shaped(rewards: &[f64], spreads: Option<&[f64]>, shaping: &Shaping) -> Vec<f64> {
    let mut out: Vec<f64> = match spreads {
        Some(spreads) => rewards.iter().zip(spreads).map(|(r, sd)| r - shaping.uncertainty * sd).collect(),
        None => rewards.to_vec(),
    };
    if shaping.center
        && let Some(mean) = mean(&out)
    {
        out.iter_mut().for_each(|r| *r -= mean);
    }
    if shaping.scale
        && let Some(spread) = population_std(&shifted(&out)).filter(|spread| *spread > 0.0)
    {
        out.iter_mut().for_each(|r| *r /= spread);
    }
    if shaping.clip > 0.0 {
        out.iter_mut().for_each(|r| *r = r.clamp(-shaping.clip, shaping.clip));
    }
    out
}

/// The values less the first: equal values become zeros, which no rounding of a mean gives a spread.
fn shifted(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v - values[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaping_by_hand() {
        let rewards = [1.0, 2.0, 6.0];
        assert_eq!(shaped(&rewards, None, &Shaping::default()), rewards);
        let penalized = Shaping { uncertainty: 2.0, ..Shaping::default() };
        assert_eq!(shaped(&rewards, Some(&[0.5, 0.0, 3.0]), &penalized), [0.0, 2.0, 0.0]);
        // Mean 3; cut at 2.
        let all = Shaping { center: true, clip: 2.0, ..Shaping::default() };
        assert_eq!(shaped(&rewards, None, &all), [-2.0, -1.0, 2.0]);
        // Deviations (-2, -1, 3): population variance 14 / 3.
        let scaled = shaped(&rewards, None, &Shaping { center: true, scale: true, ..Shaping::default() });
        assert!((scaled[2] - 3.0 / (14f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(shaped(&[2.0; 3], None, &Shaping { scale: true, ..Shaping::default() }), [2.0; 3]);
        // Their mean is not -0.1 in floating point.
        assert_eq!(shaped(&[-0.1; 32], None, &Shaping { scale: true, ..Shaping::default() }), [-0.1; 32]);
        assert!(Shaping { clip: -1.0, ..Shaping::default() }.check().is_err());
        assert!(shaped(&[], None, &all).is_empty());
    }
}
