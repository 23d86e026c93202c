//! Sources of comparisons other than people: a gold reward, labels in the data; with noise models.

use std::fmt;
use std::str::FromStr;

use crate::engine::{Comparison, EngineError, Oracle, RewardFn};
use crate::record::{Answer, Candidate, PreferenceRecord, PreferenceSide, SCHEMA, SelectionRecord, Source, Vote};
use crate::rng::Key;

/// How a simulated annotator errs. Draws are keyed on the pair's id.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Noise {
    /// Never: the larger gold wins, equal gold is a tie.
    #[default]
    None,
    /// Bradley-Terry (Bradley & Terry 1952): the first wins with probability s(g_1 - g_2).
    BradleyTerry,
    /// The noiseless answer is reversed with this probability, in [0, 1/2]; ties stay.
    Flip(f64),
}

/// A noise model that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("noise `{0}`: write bt (Bradley-Terry), or flip:P with a probability P from 0 to 0.5")]
pub struct UnknownNoise(String);

impl FromStr for Noise {
    type Err = UnknownNoise;

    fn from_str(text: &str) -> Result<Self, UnknownNoise> {
        let unknown = || UnknownNoise(text.to_owned());
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "bt" => Ok(Self::BradleyTerry),
            Some(("flip", p)) => match p.parse::<f64>() {
                Ok(p) if (0.0..=0.5).contains(&p) => Ok(Self::Flip(p)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::BradleyTerry => f.write_str("bt"),
            Self::Flip(p) => write!(f, "flip:{p}"),
        }
    }
}

impl Noise {
    /// The answer of one annotator to a pair with gold rewards `first` and `second`, as the
    /// preference for the first: 1, 0, or 1/2 for a tie. `key` belongs to the pair.
    pub fn answer(self, first: f64, second: f64, key: Key<'_>) -> f64 {
        let truth = preference(first, second);
        let draw = key.uniform_at(0);
        match self {
            Self::None => truth,
            Self::BradleyTerry => f64::from(u8::from(draw < 1.0 / (1.0 + (second - first).exp()))),
            Self::Flip(p) if draw < p => 1.0 - truth,
            Self::Flip(_) => truth,
        }
    }
}

/// 1 when the first is larger, 0 when the second is, 1/2 when they are equal.
pub fn preference(first: f64, second: f64) -> f64 {
    match first.partial_cmp(&second) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

/// A gold reward as an annotator.
pub struct GoldOracle<'a> {
    /// The trusted reward.
    pub gold: &'a dyn RewardFn,
    /// How it errs.
    pub noise: Noise,
    /// Run seed of the noise.
    pub seed: u64,
}

impl Oracle for GoldOracle<'_> {
    fn compare(&self, comparisons: &[Comparison<'_>]) -> Result<Vec<Option<f64>>, EngineError> {
        let items: Vec<_> = comparisons.iter().flat_map(|c| [c.first.clone(), c.second.clone()]).collect();
        let gold = self.gold.rewards(&items)?;
        let answer =
            |(c, g): (&Comparison<'_>, &[f64])| Some(self.noise.answer(g[0], g[1], noise_key(self.seed, c.id)));
        Ok(comparisons.iter().zip(gold.chunks_exact(2)).map(answer).collect())
    }
}

/// The answer that the data's own labels give to a selected pair: `None` where a side has none.
pub fn label_answer(selection: &SelectionRecord, noise: Noise, seed: u64) -> Option<f64> {
    let (first, second) = (selection.first.gold?, selection.second.gold?);
    Some(noise.answer(first, second, noise_key(seed, &selection.id)))
}

fn noise_key(seed: u64, pair: &str) -> Key<'_> {
    Key::new(seed, "annotator-noise").prompt(pair)
}

/// A selected pair with its answer: p = 1 first, 0 second, 1/2 tie, other probabilities soft;
/// `None` is a skip.
pub fn answered(
    selection: &SelectionRecord,
    p_first: Option<f64>,
    source: Source,
    annotator: &str,
) -> PreferenceRecord {
    let answer = match p_first {
        None => Answer::Skip,
        Some(p) if p > 0.5 => Answer::First,
        Some(p) if p < 0.5 => Answer::Second,
        Some(_) => Answer::Tie,
    };
    let vote = Vote { annotator: annotator.into(), answer, strength: None, seconds: None, extra: Default::default() };
    PreferenceRecord {
        schema: SCHEMA,
        id: selection.id.clone(),
        prompt: selection.prompt.clone(),
        first: side(&selection.first),
        second: side(&selection.second),
        p_first,
        answer,
        margin: None,
        votes: vec![vote],
        source: Some(source),
        safe_first: None,
        safe_second: None,
        meta: selection.meta.clone(),
        extra: Default::default(),
    }
}

fn side(candidate: &Candidate) -> PreferenceSide {
    PreferenceSide { text: candidate.text.clone(), token_ids: candidate.token_ids.clone(), ..PreferenceSide::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: usize) -> Key<'static> {
        Key::new(1, "test").completion(i)
    }

    #[test]
    fn noise_parses_and_prints() {
        for text in ["none", "bt", "flip:0.25"] {
            assert_eq!(text.parse::<Noise>().map(|n| n.to_string()), Ok(text.to_owned()));
        }
        for text in ["flip", "flip:0.6", "flip:x", "BT", ""] {
            assert!(text.parse::<Noise>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_noise_is_the_order_of_gold() {
        assert_eq!(Noise::None.answer(2.0, 1.0, key(0)), 1.0);
        assert_eq!(Noise::None.answer(1.0, 2.0, key(0)), 0.0);
        assert_eq!(Noise::None.answer(1.0, 1.0, key(0)), 0.5);
    }

    #[test]
    fn flips_come_as_often_as_said_and_spare_ties() {
        let flipped = (0..4000).filter(|i| Noise::Flip(0.2).answer(1.0, 0.0, key(*i)) == 0.0).count();
        // sd of the share: sqrt(0.2 * 0.8 / 4000) = 0.0063; 5 sd.
        assert!((flipped as f64 / 4000.0 - 0.2).abs() < 0.032, "{flipped}");
        assert!((0..100).all(|i| Noise::Flip(0.5).answer(1.0, 1.0, key(i)) == 0.5));
    }

    #[test]
    fn bradley_terry_wins_with_the_sigmoid_of_the_difference() {
        // s(ln 3) = 3/4.
        let won = (0..4000).filter(|i| Noise::BradleyTerry.answer(3f64.ln(), 0.0, key(*i)) == 1.0).count();
        assert!((won as f64 / 4000.0 - 0.75).abs() < 0.035, "{won}");
        assert_eq!(Noise::BradleyTerry.answer(1000.0, -1000.0, key(0)), 1.0);
    }
}
