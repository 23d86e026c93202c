//! Rankings of a prompt's completions, as they stand in files.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Map;

use crate::fields::record_fields;
use crate::record::{Completion, Extra, Prompt, SCHEMA, Source};

/// Most answers that may be equally good: the loss averages over their orders.
pub const MAX_TIED: usize = 12;

/// Places of completions, best first; those that are equally good stand together. Written as
/// `[[2],[0,3],[1]]`; a single place may be read without its own brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranking(pub Vec<Vec<usize>>);

impl<'de> Deserialize<'de> for Ranking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a ranking is a list of places, those of equally good answers in a list")]
        enum Places {
            One(usize),
            Tied(Vec<usize>),
        }
        let groups = Vec::<Places>::deserialize(deserializer)?;
        let group = |places| match places {
            Places::One(place) => vec![place],
            Places::Tied(places) => places,
        };
        Ok(Self(groups.into_iter().map(group).collect()))
    }
}

impl Ranking {
    /// From a rank for each completion, the lower the better: `[2, 1, 2]` becomes `[[1],[0,2]]`.
    pub fn of_ranks(ranks: &[usize]) -> Self {
        let mut different: Vec<usize> = ranks.to_vec();
        different.sort_unstable();
        different.dedup();
        let of = |rank: usize| (0..ranks.len()).filter(|place| ranks[*place] == rank).collect();
        Self(different.into_iter().map(of).collect())
    }

    /// What is wrong with it as a ranking of `n` completions.
    pub(crate) fn check(&self, n: usize) -> Result<(), String> {
        let mut seen = vec![false; n];
        for (index, group) in self.0.iter().enumerate() {
            if group.is_empty() {
                return Err(format!("ranking[{index}] is empty: delete it, or put a completion's place there"));
            }
            if group.len() > MAX_TIED {
                return Err(format!(
                    "ranking[{index}] has {} equally good answers: at most {MAX_TIED} can stand together; leave some out",
                    group.len()
                ));
            }
            for &place in group {
                match seen.get_mut(place) {
                    None => {
                        return Err(format!("ranking names completion {place}, and there are {n}: places begin at 0"));
                    }
                    Some(true) => return Err(format!("ranking names completion {place} twice")),
                    Some(seen) => *seen = true,
                }
            }
        }
        match seen.iter().filter(|seen| **seen).count() {
            0 | 1 => Err("ranking has fewer than 2 completions: nothing is compared".into()),
            _ => Ok(()),
        }
    }
}

/// One prompt's completions in the order of how good they are. Completions that the ranking does
/// not name are not compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankingRecord {
    /// Schema version, [`SCHEMA`].
    pub schema: u32,
    /// Unique within the file.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The answers.
    pub completions: Vec<Completion>,
    /// Their order.
    pub ranking: Ranking,
    /// Where the order came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The prompt's `meta`, carried along (topic, kind).
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: Extra,
    /// Fields that this build does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

record_fields!(RankingRecord {
    schema: default(SCHEMA),
    prompt: required,
    id: required,
    completions: required,
    ranking: required,
    source: optional,
    meta: default(Extra::new()),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rankings_are_read_in_both_spellings_and_written_in_one() {
        let ranking: Ranking = serde_json::from_str("[2,[0,3],[1]]").unwrap();
        assert_eq!(ranking, Ranking(vec![vec![2], vec![0, 3], vec![1]]));
        assert_eq!(serde_json::to_string(&ranking).unwrap(), "[[2],[0,3],[1]]");
        let error = serde_json::from_str::<Ranking>("[\"a\"]").unwrap_err().to_string();
        assert!(error.contains("a list of places"), "{error}");
        assert_eq!(Ranking::of_ranks(&[2, 1, 2, 5]), Ranking(vec![vec![1], vec![0, 2], vec![3]]));
    }

    #[test]
    fn what_is_no_ranking_is_refused_with_the_reason() {
        let check = |groups: &[&[usize]], n| Ranking(groups.iter().map(|g| g.to_vec()).collect()).check(n);
        assert_eq!(check(&[&[2], &[0]], 3), Ok(()));
        let wrong = |groups: &[&[usize]], n| check(groups, n).unwrap_err();
        assert!(wrong(&[&[0], &[3]], 3).contains("completion 3, and there are 3"));
        assert!(wrong(&[&[0, 1], &[1]], 3).contains("completion 1 twice"));
        assert!(wrong(&[&[0], &[]], 3).contains("ranking[1] is empty"));
        assert!(wrong(&[&[1]], 3).contains("fewer than 2") && wrong(&[], 3).contains("fewer than 2"));
        let many: Vec<usize> = (0..13).collect();
        assert!(wrong(&[&many], 13).contains("at most 12"));
    }
}
