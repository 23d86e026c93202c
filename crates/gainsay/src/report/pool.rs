//! What the page needs of a conflicts file, gathered in one pass: dots, tallies, the strongest
//! conflicts. Memory holds one K per prompt, a bounded number of dots and a few texts.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use gainsay_core::record::{Answer, Completion, PromptRecord};
use gainsay_core::rng::Key;
use gainsay_core::stats::{Interval, RESAMPLES, bootstrap_mean};

use super::text::{clip, number, signed};

/// Dots on the map at most; of larger pools a keyed random sample is drawn.
const MAX_DOTS: usize = 2_000;
/// Conflicts that are told with their texts.
const STRONGEST: usize = 6;
/// Characters of the prompt and of the completion in a dot's tooltip.
const HINT: usize = 140;

/// How often the reward model orders a completion's pairs against gold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Pairs with another completion of the prompt whose gold reward differs.
    pub pairs: u32,
    /// Those that the proxy reward orders the other way; its ties count one half.
    pub wrong: f64,
}

impl Tally {
    /// `wrong / pairs`; `None` without a pair.
    pub fn share(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.wrong / f64::from(self.pairs))
    }

    fn add(&mut self, wrong: f64) {
        self.pairs += 1;
        self.wrong += wrong;
    }
}

/// One completion on the map.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot {
    /// Standardized log-prob.
    pub z_logp: f64,
    /// Standardized proxy reward.
    pub z_reward: f64,
    /// What gold says of the reward model's order here.
    pub tally: Tally,
    /// Whether the ringed arm sent it for feedback.
    pub selected: bool,
    /// Tooltip, not escaped.
    pub hint: String,
}

/// A part of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// PACS >= delta: the reward model over-values what the policy finds unlikely.
    Over,
    /// |PACS| < delta.
    Agreement,
    /// PACS <= -delta: the reward model under-values what the policy finds likely.
    Under,
}

impl Region {
    /// The region of a conflict score.
    pub fn of(pacs: f64, delta: f64) -> Self {
        if pacs >= delta {
            Self::Over
        } else if pacs <= -delta {
            Self::Under
        } else {
            Self::Agreement
        }
    }
}

/// What lies in a region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionTally {
    /// Completions.
    pub completions: usize,
    /// Mean over prompts of the share of pairs that the reward model misorders, of the pairs of
    /// the prompt's completions in this region.
    pub wrong: Option<Interval>,
    /// Completions sent for feedback, by arm.
    pub selected: BTreeMap<String, usize>,
    per_prompt: Vec<f64>,
}

/// A pair that was sent for feedback.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The arm.
    pub arm: String,
    /// Indices of the completions, as selected.
    pub pair: (usize, usize),
    /// The answer, once there is one.
    pub answer: Option<Answer>,
}

/// One completion of a conflict that is told with its texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Index within the prompt's completions.
    pub index: usize,
    /// The completion.
    pub text: String,
    /// Standardized proxy reward.
    pub z_reward: f64,
    /// Standardized log-prob.
    pub z_logp: f64,
    /// PACS.
    pub pacs: f64,
    /// Gold reward, where known.
    pub gold: Option<f64>,
}

/// The strongest contradiction within a prompt: the reward model prefers `over`, the policy
/// finds `under` likelier.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The prompt's id.
    pub id: String,
    /// What was asked.
    pub prompt: String,
    /// Kendall tau distance of the prompt.
    pub k: Option<f64>,
    /// What the reward model over-values.
    pub over: Side,
    /// What it under-values.
    pub under: Side,
    /// What was asked of this very pair.
    pub asked: Vec<Asked>,
}

impl Conflict {
    /// PACS difference of the two sides.
    pub fn strength(&self) -> f64 {
        self.over.pacs - self.under.pacs
    }

    /// Whether gold sides with the reward model; `None` where it is silent or tied.
    pub fn reward_right(&self) -> Option<bool> {
        let (over, under) = (self.over.gold?, self.under.gold?);
        (over != under).then_some(over > under)
    }
}

/// A conflicts file, digested.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// Round that it belongs to.
    pub round: u32,
    /// The arm that it belongs to; `None` where all arms share it.
    pub arm: Option<String>,
    /// Prompts in the file.
    pub prompts: usize,
    /// Completions in the file.
    pub completions: usize,
    /// Prompts without a K: fewer than two completions, a missing or constant ranking.
    pub degenerate: usize,
    /// K of every other prompt.
    pub k: Vec<f64>,
    /// Mean K with its interval.
    pub mean_k: Option<Interval>,
    /// Mean over prompts of |PACS| with its interval.
    pub mean_abs_pacs: Option<Interval>,
    /// The number of completions that most prompts have.
    pub per_prompt: Option<usize>,
    /// Pairs that gold tells apart, and the reward model's mistakes among them.
    pub pairs: Tally,
    /// Over-valued, agreement, under-valued.
    pub regions: [RegionTally; 3],
    /// Completions with both z values.
    pub placed: usize,
    /// The map's dots.
    pub dots: Vec<Dot>,
    /// The strongest conflicts, strongest first, one a prompt.
    pub strongest: Vec<Conflict>,
}

/// What was sent for feedback, by prompt id.
pub type Selected = HashMap<String, Vec<Asked>>;

/// A dot with the key that decides whether it stays in a sample.
struct Drawn(u64, Dot);

impl PartialEq for Drawn {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Drawn {}
impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Drawn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Gathers a [`Pool`] from records that come one at a time.
pub struct Gather<'a> {
    pool: Pool,
    delta: f64,
    selected: &'a Selected,
    ringed: Option<&'a str>,
    sizes: BTreeMap<usize, usize>,
    mean_pacs: Vec<f64>,
    sample: BinaryHeap<Drawn>,
}

impl<'a> Gather<'a> {
    /// Starts a pool. `ringed` names the arm whose selection is ringed on the map.
    pub fn new(delta: f64, selected: &'a Selected, ringed: Option<&'a str>) -> Self {
        Self {
            pool: Pool::default(),
            delta,
            selected,
            ringed,
            sizes: BTreeMap::new(),
            mean_pacs: Vec::new(),
            sample: BinaryHeap::new(),
        }
    }

    /// Adds one prompt.
    pub fn add(&mut self, record: &PromptRecord) {
        let completions = &record.completions;
        self.pool.prompts += 1;
        self.pool.completions += completions.len();
        *self.sizes.entry(completions.len()).or_default() += 1;
        match record.kendall_tau_distance {
            Some(k) => self.pool.k.push(k),
            None => self.pool.degenerate += 1,
        }
        let pacs: Vec<f64> = completions.iter().filter_map(|c| c.pacs).collect();
        if !pacs.is_empty() {
            self.mean_pacs.push(pacs.iter().map(|p| p.abs()).sum::<f64>() / pacs.len() as f64);
        }
        let tallies = self.judge(completions);
        let asked = self.selected.get(&record.id).map_or(&[][..], Vec::as_slice);
        self.place(record, &tallies, asked);
        self.keep_conflict(record, asked);
    }

    /// Counts the reward model's mistakes over the prompt's pairs, for each completion.
    fn judge(&mut self, completions: &[Completion]) -> Vec<Tally> {
        let mut tallies = vec![Tally::default(); completions.len()];
        let known: Vec<(usize, f64, f64)> =
            completions.iter().enumerate().filter_map(|(i, c)| Some((i, c.reward?, c.gold?))).collect();
        for (at, &(i, reward_i, gold_i)) in known.iter().enumerate() {
            for &(j, reward_j, gold_j) in &known[at + 1..] {
                if gold_i == gold_j {
                    continue;
                }
                let wrong = if reward_i == reward_j {
                    0.5
                } else {
                    f64::from(u8::from((reward_i > reward_j) != (gold_i > gold_j)))
                };
                tallies[i].add(wrong);
                tallies[j].add(wrong);
                self.pool.pairs.add(wrong);
            }
        }
        tallies
    }

    /// Puts the prompt's completions on the map and into the regions.
    fn place(&mut self, record: &PromptRecord, tallies: &[Tally], asked: &[Asked]) {
        let mut shares = [Tally::default(); 3];
        for (i, (completion, tally)) in record.completions.iter().zip(tallies).enumerate() {
            let (Some(x), Some(y), Some(pacs)) = (completion.z_logp, completion.z_reward, completion.pacs) else {
                continue;
            };
            self.pool.placed += 1;
            let region = Region::of(pacs, self.delta) as usize;
            let region_tally = &mut self.pool.regions[region];
            region_tally.completions += 1;
            shares[region].pairs += tally.pairs;
            shares[region].wrong += tally.wrong;
            let mut selected = false;
            let mut arms: Vec<&str> = Vec::new();
            for question in asked.iter().filter(|a| a.pair.0 == i || a.pair.1 == i) {
                selected |= self.ringed == Some(question.arm.as_str());
                if !arms.contains(&question.arm.as_str()) {
                    arms.push(&question.arm);
                    *region_tally.selected.entry(question.arm.clone()).or_default() += 1;
                }
            }
            let draw = Key::new(0, "report-map").prompt(&record.id).completion(i).at(0);
            if self.sample.len() >= MAX_DOTS {
                if self.sample.peek().is_some_and(|largest| largest.0 <= draw) {
                    continue;
                }
                self.sample.pop();
            }
            let hint = hint(record, i, *tally, &arms);
            let dot = Dot { z_logp: x, z_reward: y, tally: *tally, selected, hint };
            self.sample.push(Drawn(draw, dot));
        }
        for (region, share) in self.pool.regions.iter_mut().zip(shares) {
            region.per_prompt.extend(share.share());
        }
    }

    /// Keeps the prompt's strongest contradiction if it is among the strongest of the pool.
    fn keep_conflict(&mut self, record: &PromptRecord, asked: &[Asked]) {
        let Some((i, j)) = strongest_pair(&record.completions) else { return };
        let (Some(over), Some(under)) = (side(record, i), side(record, j)) else { return };
        let strength = over.pacs - under.pacs;
        let list = &mut self.pool.strongest;
        let place = list.partition_point(|c| c.strength() >= strength);
        if place >= STRONGEST {
            return;
        }
        let this_pair = |a: &&Asked| a.pair == (i, j) || a.pair == (j, i);
        let conflict = Conflict {
            id: record.id.clone(),
            prompt: record.prompt.display(),
            k: record.kendall_tau_distance,
            over,
            under,
            asked: asked.iter().filter(this_pair).cloned().collect(),
        };
        list.insert(place, conflict);
        list.truncate(STRONGEST);
    }

    /// The pool, with its means and intervals.
    pub fn finish(mut self) -> Pool {
        let interval = |values: &[f64], what| bootstrap_mean(values, RESAMPLES, Key::new(0, "report").prompt(what));
        self.pool.mean_k = interval(&self.pool.k, "k");
        self.pool.mean_abs_pacs = interval(&self.mean_pacs, "pacs");
        for region in &mut self.pool.regions {
            region.wrong = interval(&region.per_prompt, "region");
        }
        self.pool.per_prompt = self.sizes.iter().max_by_key(|(_, prompts)| **prompts).map(|(size, _)| *size);
        self.pool.dots = self.sample.into_sorted_vec().into_iter().map(|drawn| drawn.1).collect();
        self.pool
    }
}

/// The pair with the largest PACS difference that the reward model and the policy order in
/// opposite ways: (over-valued, under-valued).
fn strongest_pair(completions: &[Completion]) -> Option<(usize, usize)> {
    let placed: Vec<(usize, f64, f64, f64)> =
        completions.iter().enumerate().filter_map(|(i, c)| Some((i, c.pacs?, c.z_reward?, c.z_logp?))).collect();
    let mut best: Option<(f64, usize, usize)> = None;
    for a in &placed {
        for b in &placed {
            let opposite = a.2 > b.2 && a.3 < b.3;
            if opposite && best.is_none_or(|(strength, ..)| a.1 - b.1 > strength) {
                best = Some((a.1 - b.1, a.0, b.0));
            }
        }
    }
    best.map(|(_, i, j)| (i, j))
}

fn side(record: &PromptRecord, index: usize) -> Option<Side> {
    let completion = record.completions.get(index)?;
    Some(Side {
        index,
        text: completion.text.clone(),
        z_reward: completion.z_reward?,
        z_logp: completion.z_logp?,
        pacs: completion.pacs?,
        gold: completion.gold,
    })
}

/// The tooltip of a dot, as plain text.
fn hint(record: &PromptRecord, index: usize, tally: Tally, arms: &[&str]) -> String {
    let completion = &record.completions[index];
    let z = |value: Option<f64>| value.map_or("–".into(), |v| signed(v, 2));
    let mut out = format!(
        "{}, completion {}: conflict {} (z reward {}, z log-prob {})",
        record.id,
        index,
        z(completion.pacs),
        z(completion.z_reward),
        z(completion.z_logp)
    );
    if let Some(gold) = completion.gold {
        out.push_str(&format!("\nGold {}", number(gold, 2)));
        if tally.pairs > 0 {
            let digits = usize::from(tally.wrong.fract() != 0.0);
            let wrong = number(tally.wrong, digits);
            out.push_str(&format!("; misordered in {wrong} of {} pairs", tally.pairs));
        }
    }
    if !arms.is_empty() {
        out.push_str(&format!("\nSent for feedback by {}", arms.join(", ")));
    }
    let asked = record.prompt.display();
    out.push_str(&format!("\n\n{}\n— {}", clip(asked.trim(), HINT), clip(completion.text.trim(), HINT)));
    out
}
