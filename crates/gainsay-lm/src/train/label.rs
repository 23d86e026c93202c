//! What is known of a comparison, and the loss that rewards get for it.

use crate::loss::{PairLoss, RankingLoss, bradley_terry, plackett_luce, safety};

/// Label of one pair of feature rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLabel {
    /// Probability in [0, 1] that the first is better.
    pub p: f64,
    /// Margin, >= 0.
    pub margin: f64,
    /// Weight of the pair's loss, > 0.
    pub weight: f64,
    /// Whether the first and the second are safe, where that is known and is to be learned.
    pub safe: [Option<bool>; 2],
}

impl PairLabel {
    /// A pair of weight 1 without safety labels.
    pub fn new(p: f64, margin: f64) -> Self {
        Self { p, margin, weight: 1.0, safe: [None; 2] }
    }

    /// The pair's loss by its rewards: weight ([`bradley_terry`] + the [`safety`] terms of the
    /// costs -r of those sides whose label is known).
    pub fn loss(&self, r1: f64, r2: f64, center: f64) -> PairLoss {
        let mut loss = bradley_terry(self.p, self.margin, r1, r2, center);
        for (side, reward) in [r1, r2].into_iter().enumerate() {
            if let Some(safe) = self.safe[side] {
                let (value, d_cost) = safety(-reward, safe);
                loss.loss += value;
                *(if side == 0 { &mut loss.d_r1 } else { &mut loss.d_r2 }) -= d_cost;
            }
        }
        PairLoss { loss: self.weight * loss.loss, d_r1: self.weight * loss.d_r1, d_r2: self.weight * loss.d_r2 }
    }
}

/// Label of a ranking of several feature rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RankLabel {
    /// Places of the rows, best first, those of equally good answers together; every row stands in
    /// one group.
    pub groups: Vec<Vec<usize>>,
    /// Weight of the ranking's loss, > 0.
    pub weight: f64,
}

impl RankLabel {
    /// The number of rows.
    pub fn sides(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// weight ([`plackett_luce`] + center (2/K sum of the rewards)^2): for two answers the loss of
    /// their pair.
    fn loss(&self, rewards: &[f64], center: f64) -> RankingLoss {
        let mut out = plackett_luce(&self.groups, rewards);
        let scale = 2.0 / rewards.len() as f64;
        let sum = scale * rewards.iter().sum::<f64>();
        out.loss = self.weight * (out.loss + center * sum * sum);
        out.d_rewards.iter_mut().for_each(|d| *d = self.weight * (*d + 2.0 * center * sum * scale));
        out
    }

    /// Every two answers in the ranking's order, equally good ones as ties, as places.
    fn pairs(&self) -> Vec<(usize, usize, f64)> {
        let ranked: Vec<(usize, usize)> =
            self.groups.iter().enumerate().flat_map(|(rank, group)| group.iter().map(move |i| (rank, *i))).collect();
        let p = |a: usize, b: usize| if a == b { 0.5 } else { 1.0 };
        (0..ranked.len())
            .flat_map(|a| (a + 1..ranked.len()).map(move |b| (a, b)))
            .map(|(a, b)| (ranked[a].1, ranked[b].1, p(ranked[a].0, ranked[b].0)))
            .collect()
    }
}

/// Label of what is compared: two answers, or a ranking.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// Two answers.
    Pair(PairLabel),
    /// Two or more, in order.
    Ranking(RankLabel),
}

impl From<PairLabel> for Label {
    fn from(label: PairLabel) -> Self {
        Self::Pair(label)
    }
}

impl Label {
    /// How many rewards it compares.
    pub fn sides(&self) -> usize {
        match self {
            Self::Pair(_) => 2,
            Self::Ranking(label) => label.sides(),
        }
    }

    /// The weight of its loss.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Pair(label) => label.weight,
            Self::Ranking(label) => label.weight,
        }
    }

    /// The same with its weight times `factor`.
    #[must_use]
    pub fn weighed(&self, factor: f64) -> Self {
        let mut label = self.clone();
        match &mut label {
            Self::Pair(label) => label.weight *= factor,
            Self::Ranking(label) => label.weight *= factor,
        }
        label
    }

    /// The loss and its derivatives by the rewards, one a side.
    pub fn loss(&self, rewards: &[f64], center: f64) -> RankingLoss {
        match self {
            Self::Pair(label) => {
                let PairLoss { loss, d_r1, d_r2 } = label.loss(rewards[0], rewards[1], center);
                RankingLoss { loss, d_rewards: vec![d_r1, d_r2] }
            }
            Self::Ranking(label) => label.loss(rewards, center),
        }
    }

    /// The comparisons of two that it makes, with their rewards: of a ranking, all its pairs.
    pub fn comparisons(&self, rewards: &[f64]) -> Vec<(PairLabel, (f64, f64))> {
        match self {
            Self::Pair(label) => vec![(*label, (rewards[0], rewards[1]))],
            Self::Ranking(label) => {
                label.pairs().into_iter().map(|(i, j, p)| (PairLabel::new(p, 0.0), (rewards[i], rewards[j]))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_of_two_is_its_pair() {
        for (groups, p) in [(vec![vec![1], vec![0]], 0.0), (vec![vec![0], vec![1]], 1.0), (vec![vec![1, 0]], 0.5)] {
            let ranking = Label::Ranking(RankLabel { groups, weight: 1.5 });
            let pair = Label::Pair(PairLabel { weight: 1.5, ..PairLabel::new(p, 0.0) });
            let (a, b) = (ranking.loss(&[0.7, -1.2], 0.2), pair.loss(&[0.7, -1.2], 0.2));
            assert!((a.loss - b.loss).abs() < 1e-12, "{p}: {} {}", a.loss, b.loss);
            for (x, y) in a.d_rewards.iter().zip(&b.d_rewards) {
                assert!((x - y).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_ranking_makes_all_its_pairs() {
        let ranking = Label::Ranking(RankLabel { groups: vec![vec![2], vec![0, 1]], weight: 1.0 });
        let found: Vec<(f64, (f64, f64))> =
            ranking.comparisons(&[0.0, 1.0, 2.0]).into_iter().map(|(label, values)| (label.p, values)).collect();
        assert_eq!(found, [(1.0, (2.0, 0.0)), (1.0, (2.0, 1.0)), (0.5, (0.0, 1.0))]);
        assert_eq!((ranking.sides(), ranking.weighed(3.0).weight()), (3, 3.0));
    }
}
