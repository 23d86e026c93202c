//! Reads what a run directory holds. A file that is not there yet, or that cannot be read, is
//! noted and left out: an unfinished run still has a page.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gainsay_core::files::Reader;
use gainsay_core::record::{Answer, PreferenceRecord, PromptRecord, SelectionRecord};
use serde::de::DeserializeOwned;

use super::ReportError;
use super::data::{Answers, Arm, COMPARISON, Missing, ReportData, Settings, main_arm};
use super::pool::{Asked, Gather, Pool, Selected};
use super::training::looks_of;

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
    let mut rounds: Vec<u32> =
        folders(dir).iter().filter_map(|name| name.strip_prefix("round-")?.parse().ok()).collect();
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
pub(super) fn name_of(dir: &Path) -> String {
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
        strategies: names.map(|n| n.iter().filter_map(|s| s.as_str().map(String::from)).collect()).unwrap_or_default(),
        rounds: table
            .get("rounds")
            .and_then(toml::Value::as_integer)
            .and_then(|r| u32::try_from(r).ok())
            .unwrap_or(default.rounds),
    }
}

/// The values of a file of JSON lines up to the first that is none, and what is wrong with that.
pub(super) fn parsed<T: DeserializeOwned>(text: &str) -> (Vec<T>, Option<String>) {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(value) => out.push(value),
            Err(error) => return (out, Some(format!("line {}: {error}", i + 1))),
        }
    }
    (out, None)
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
        let (out, fault) = parsed(&text);
        fault.into_iter().for_each(|fault| self.faulty(file, fault));
        out
    }

    /// Every record up to the first fault, which is noted; `None` where the file is not there.
    fn records<T: gainsay_core::files::Record>(&mut self, file: &str, mut each: impl FnMut(T)) -> Option<()> {
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
        let mut names: Vec<String> = folders(&self.path(&folder)).into_iter().filter(|n| n != "pool").collect();
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
                data.summary = self.json(&format!("{folder}/pool/conflicts.json"));
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
        arm.looks = looks_of(&self.path(&file("policy")));
        arm.evaluation = self.json(&file("evaluation.json"));
        arm
    }
}
