//! Reads what a run directory holds. A file that is not there yet, or that cannot be read, is
//! noted and left out: an unfinished run still has a page.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gainsay_core::files::Reader;
use gainsay_core::record::{Answer, PreferenceRecord, PromptRecord, SelectionRecord};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ReportError;
use super::pool::{Asked, Gather, Pool, Selected};
use crate::evaluation::types::{Difference, Evaluation};

/// Strategies that look at the conflict of reward model and policy.
const CONFLICT_AWARE: [&str; 3] = ["shf-cas", "pacs", "kendall"];

/// The file that a run writes last.
const COMPARISON: &str = "comparison.json";

/// What the page needs of the recipe; the defaults are the recipe's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Least Kendall tau distance of a prompt that is worth asking about.
    pub tau_k: f64,
    /// Least |PACS| of a completion that is worth asking about.
    pub delta: f64,
    /// The arms in the recipe's order.
    pub strategies: Vec<String>,
    /// Rounds that the recipe asks for.
    pub rounds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tau_k: 0.5, delta: 1.0, strategies: Vec::new(), rounds: 1 }
    }
}

/// One line of `timings.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Timing {
    /// The stage.
    pub stage: String,
    /// Seconds of work.
    pub seconds: f64,
    /// Tokens through the model.
    #[serde(default)]
    pub tokens: u64,
    /// Peak resident set, bytes; 0 where unknown.
    #[serde(default)]
    pub peak_rss_bytes: u64,
}

/// One line of `policy-train.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Step {
    /// Number of the step.
    pub step: f64,
    /// Mean reward of the step's completions.
    #[serde(default)]
    pub reward: Option<f64>,
    /// KL to the base policy, nats a sequence.
    #[serde(default)]
    pub kl: Option<f64>,
}

/// How an arm's questions were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// First or second.
    pub decided: usize,
    /// Ties.
    pub ties: usize,
    /// Neither acceptable.
    pub both_bad: usize,
    /// Not answered.
    pub skipped: usize,
}

impl Answers {
    /// Every answer that was given: the labels that were paid for.
    pub fn given(&self) -> usize {
        self.decided + self.ties + self.both_bad
    }

    fn add(&mut self, answer: Answer) {
        match answer {
            Answer::First | Answer::Second => self.decided += 1,
            Answer::Tie => self.ties += 1,
            Answer::BothBad => self.both_bad += 1,
            Answer::Skip => self.skipped += 1,
        }
    }
}

/// One arm in one round.
#[derive(Clone, Debug, Default)]
pub struct Arm {
    /// Its name: the selection strategy.
    pub name: String,
    /// The round, from 1.
    pub round: u32,
    /// Pairs that it sent for feedback.
    pub asked: usize,
    /// Of these, pairs flagged as below the thresholds.
    pub below_threshold: usize,
    /// The answers; `None` before there are any.
    pub answers: Option<Answers>,
    /// The policy's training.
    pub steps: Vec<Step>,
    /// The tuned policy's figures.
    pub evaluation: Option<Evaluation>,
}

/// A file that the page would have liked to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its path within the run directory.
    pub file: String,
    /// What is wrong with it; `None` where it is not there yet.
    pub fault: Option<String>,
}

/// What a run directory holds, as the page shows it.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// The directory's name.
    pub name: String,
    /// `recipe.toml` as it stands.
    pub recipe: Option<String>,
    /// `manifest.json` as it stands.
    pub manifest: Option<String>,
    /// What the page needs of the recipe.
    pub settings: Settings,
    /// The stages' times, in order.
    pub timings: Vec<Timing>,
    /// The base policy's figures.
    pub base: Option<Evaluation>,
    /// The conflicts files, by round and arm.
    pub pools: Vec<Pool>,
    /// `validate.json` of the first round.
    pub validation: Option<Value>,
    /// The arms, by round, in the recipe's order.
    pub arms: Vec<Arm>,
    /// Paired differences.
    pub differences: Vec<Difference>,
    /// What was missing or unreadable.
    pub missing: Vec<Missing>,
}

impl ReportData {
    /// Whether the run has come to its end: its arms are compared.
    pub fn finished(&self) -> bool {
        !self.missing.iter().any(|m| m.file == COMPARISON)
    }

    /// Names of the arms, in order, each once.
    pub fn arm_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for arm in &self.arms {
            if !names.contains(&arm.name.as_str()) {
                names.push(&arm.name);
            }
        }
        names
    }

    /// The arm that the page is about: the first conflict-aware one, else the first.
    pub fn main_arm(&self) -> Option<&str> {
        main_arm(&self.arm_names())
    }

    /// The arm's state after the last round that has figures.
    pub fn last_of(&self, name: &str) -> Option<&Arm> {
        let of_name = || self.arms.iter().rev().filter(|a| a.name == name);
        of_name().find(|a| a.evaluation.is_some()).or_else(|| of_name().next())
    }

    /// The pool of the conflict map: the first round's.
    pub fn pool(&self) -> Option<&Pool> {
        self.pools.first()
    }
}

/// See [`ReportData::main_arm`].
fn main_arm<'n>(names: &[&'n str]) -> Option<&'n str> {
    names.iter().find(|n| CONFLICT_AWARE.contains(n)).or(names.first()).copied()
}

/// Reads a run directory, finished or not.
///
/// # Errors
/// The directory holds nothing that a run writes.
pub fn load(dir: &Path) -> Result<ReportData, ReportError> {
    let mut loader = Loader { dir, missing: Vec::new() };
    let rounds = rounds_in(dir);
    let known = ["recipe.toml", "base", "proxy", "timings.jsonl"];
    if rounds.is_empty() && !known.iter().any(|name| dir.join(name).exists()) {
        return Err(ReportError::NotARun { dir: dir.to_path_buf() });
    }
    let recipe = loader.text("recipe.toml");
    let settings = recipe.as_deref().map(settings).unwrap_or_default();
    let mut data = ReportData {
        name: name_of(dir),
        recipe,
        manifest: loader.text("manifest.json"),
        timings: loader.lines("timings.jsonl"),
        base: loader.json("base/evaluation.json"),
        settings,
        ..ReportData::default()
    };
    for round in rounds {
        loader.round(&mut data, round);
    }
    if data.pools.is_empty() {
        loader.absent("round-1/pool/conflicts.jsonl");
    }
    data.differences = loader.json(COMPARISON).unwrap_or_default();
    data.missing = loader.missing;
    Ok(data)
}

/// Numbers of the `round-N` folders, ascending.
fn rounds_in(dir: &Path) -> Vec<u32> {
    let mut rounds: Vec<u32> = folders(dir)
        .iter()
        .filter_map(|name| name.strip_prefix("round-")?.parse().ok())
        .collect();
    rounds.sort_unstable();
    rounds
}

/// Names of the folders within a folder, sorted.
fn folders(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// The last part of the directory's path.
fn name_of(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    full.file_name().map_or_else(|| "run".to_string(), |n| n.to_string_lossy().into_owned())
}

/// The page's share of a recipe; what it does not say is as by default.
fn settings(recipe: &str) -> Settings {
    let default = Settings::default();
    let Ok(table) = recipe.parse::<toml::Table>() else { return default };
    let select = table.get("select").and_then(toml::Value::as_table);
    let number = |key: &str| {
        let value = select?.get(key)?;
        value.as_float().or_else(|| value.as_integer().map(|i| i as f64))
    };
    let names = select.and_then(|s| s.get("strategies")).and_then(toml::Value::as_array);
    Settings {
        tau_k: number("tau_k").unwrap_or(default.tau_k),
        delta: number("delta").unwrap_or(default.delta),
        strategies: names
            .map(|n| n.iter().filter_map(|s| s.as_str().map(String::from)).collect())
            .unwrap_or_default(),
        rounds: table
            .get("rounds")
            .and_then(toml::Value::as_integer)
            .and_then(|r| u32::try_from(r).ok())
            .unwrap_or(default.rounds),
    }
}

struct Loader<'a> {
    dir: &'a Path,
    missing: Vec<Missing>,
}

impl Loader<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn absent(&mut self, file: &str) {
        self.missing.push(Missing { file: file.into(), fault: None });
    }

    fn faulty(&mut self, file: &str, fault: impl ToString) {
        self.missing.push(Missing { file: file.into(), fault: Some(fault.to_string()) });
    }

    fn text(&mut self, file: &str) -> Option<String> {
        match fs::read_to_string(self.path(file)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.absent(file);
                None
            }
            Err(error) => {
                self.faulty(file, error);
                None
            }
        }
    }

    fn json<T: DeserializeOwned>(&mut self, file: &str) -> Option<T> {
        let text = self.text(file)?;
        match serde_json::from_str(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.faulty(file, error);
                None
            }
        }
    }

    /// Every readable line; the first that is not is noted. A line that is being written while
    /// the page is made counts as unreadable, which the note says.
    fn lines<T: DeserializeOwned>(&mut self, file: &str) -> Vec<T> {
        let Some(text) = self.text(file) else { return Vec::new() };
        let mut out = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(value) => out.push(value),
                Err(error) => {
                    self.faulty(file, format!("line {}: {error}", i + 1));
                    break;
                }
            }
        }
        out
    }

    /// Every record up to the first fault, which is noted; `None` where the file is not there.
    fn records<T: gainsay_core::files::Record>(
        &mut self,
        file: &str,
        mut each: impl FnMut(T),
    ) -> Option<()> {
        let path = self.path(file);
        if !path.exists() {
            self.absent(file);
            return None;
        }
        match Reader::<T>::open(&path) {
            Err(error) => self.faulty(file, error),
            Ok(reader) => {
                for record in reader {
                    match record {
                        Ok(record) => each(record),
                        Err(error) => self.faulty(file, error),
                    }
                }
            }
        }
        Some(())
    }

    fn round(&mut self, data: &mut ReportData, round: u32) {
        let folder = format!("round-{round}");
        let mut names: Vec<String> =
            folders(&self.path(&folder)).into_iter().filter(|n| n != "pool").collect();
        let order = |name: &String| {
            let strategies = &data.settings.strategies;
            strategies.iter().position(|s| s == name).unwrap_or(strategies.len())
        };
        names.sort_by_key(order);
        let mut by_arm: Vec<Selected> = Vec::new();
        let mut shared = Selected::new();
        for name in &names {
            let mut selected = Selected::new();
            data.arms.push(self.arm(&folder, name, round, &mut selected));
            for (id, asked) in &selected {
                shared.entry(id.clone()).or_default().extend(asked.iter().cloned());
            }
            by_arm.push(selected);
        }
        let delta = data.settings.delta;
        if self.path(&format!("{folder}/pool")).is_dir() {
            let ringed = main_arm(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let pool = self.pool(&folder, Gather::new(delta, &shared, ringed));
            data.pools.extend(pool.map(|pool| Pool { round, ..pool }));
            if data.validation.is_none() {
                data.validation = self.json(&format!("{folder}/pool/validate.json"));
            }
        }
        for (name, selected) in names.into_iter().zip(&by_arm) {
            let within = format!("{folder}/{name}");
            if self.path(&format!("{within}/pool")).is_dir() {
                let pool = self.pool(&within, Gather::new(delta, selected, Some(&name)));
                let arm = Some(name);
                data.pools.extend(pool.map(|pool| Pool { round, arm, ..pool }));
            }
        }
    }

    fn pool(&mut self, folder: &str, mut gather: Gather<'_>) -> Option<Pool> {
        let file = format!("{folder}/pool/conflicts.jsonl");
        self.records(&file, |record: PromptRecord| gather.add(&record))?;
        Some(gather.finish())
    }

    fn arm(&mut self, folder: &str, name: &str, round: u32, selected: &mut Selected) -> Arm {
        let file = |what: &str| format!("{folder}/{name}/{what}");
        let mut arm = Arm { name: name.to_string(), round, ..Arm::default() };
        let mut given: HashMap<String, Answer> = HashMap::new();
        let mut answers = Answers::default();
        let answered = self.records(&file("preferences.jsonl"), |record: PreferenceRecord| {
            answers.add(record.answer);
            given.insert(record.id, record.answer);
        });
        arm.answers = answered.map(|()| answers);
        self.records(&file("selection.jsonl"), |record: SelectionRecord| {
            arm.asked += 1;
            arm.below_threshold += usize::from(!record.flags.is_empty());
            let pair = (record.first.index, record.second.index);
            let answer = given.get(&record.id).copied();
            let asked = Asked { arm: name.to_string(), pair, answer };
            selected.entry(record.prompt_id).or_default().push(asked);
        });
        arm.steps = self.lines(&file("policy-train.jsonl"));
        arm.evaluation = self.json(&file("evaluation.json"));
        arm
    }
}
