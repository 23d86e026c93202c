//! Checkpoints: everything that the next step depends on, as folders that appear whole. Random
//! numbers are keyed by step, so that no state of theirs has to be kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::Weights;
use crate::config::Family;
use crate::error::{LmError, read_json};
use crate::model::{Adapter, ParamId};
use crate::names;
use crate::optim::AdamW;
use crate::save::{AdapterParts, Provenance, write_adapter_files, write_folder, write_json, write_tensors};

const TENSORS: &str = "training.safetensors";
const STATE: &str = "training.json";
/// What a fold's model said.
const JUDGED: &str = "judged.json";
/// Marks the folder of a run that reached its end: another run may take its place.
const FINISHED: &str = "finished";

/// Where a run keeps its checkpoints: `step-000010` and so on, each of them a loadable adapter
/// folder where an adapter is trained.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// The folder.
    pub dir: PathBuf,
    /// Steps between two checkpoints, and one at the end; 0 keeps none.
    pub every: u32,
    /// Keep the latest alone.
    pub latest_only: bool,
    /// What the run is: model, data and options. A checkpoint of another run is refused.
    pub run: String,
    /// The spec that the backbone was loaded from.
    pub base: String,
}

/// What a checkpoint holds besides weights and moments.
pub(super) struct Saved {
    /// What the run remembers.
    pub history: Value,
    /// An adapter that is kept for later.
    pub best: Option<Adapter>,
}

impl Checkpoints {
    /// Whether step `step` is to be saved; `last` where the run ends there.
    pub(super) fn is_due(&self, step: u32, last: bool) -> bool {
        self.every > 0 && (last || step.is_multiple_of(self.every))
    }

    fn folder(&self, step: u32) -> PathBuf {
        self.dir.join(format!("step-{step:06}"))
    }

    /// The steps that have a checkpoint, ascending.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn steps(&self) -> Result<Vec<u32>, LmError> {
        if !self.dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(LmError::read(&self.dir))? {
            let name = entry.map_err(LmError::read(&self.dir))?.file_name();
            let step: Option<u32> = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Where a fold of a cross-validation that comes before the run keeps its own.
    pub(super) fn of_fold(&self, fold: usize, folds: usize) -> Self {
        let name = format!("fold-{}-of-{folds}", fold + 1);
        Self { dir: self.dir.join(&name), latest_only: true, run: format!("{} {name}", self.run), ..self.clone() }
    }

    /// Makes sure, before hours of work, that what lies in the folder is this run's. What a finished run left
    /// is removed: another may take its place.
    ///
    /// # Errors
    /// Checkpoints of another run; a folder that cannot be read or written.
    pub(super) fn claim(&self, folds: usize) -> Result<(), LmError> {
        if self.every == 0 {
            return Ok(());
        }
        let folds: Vec<Self> = (0..folds).map(|fold| self.of_fold(fold, folds)).collect();
        let mut foreign = false;
        for own in folds.iter().chain([self]) {
            let latest = own.steps()?.pop().map(|step| own.folder(step).join(STATE));
            for file in latest.into_iter().chain([own.dir.join(JUDGED)]).filter(|file| file.is_file()) {
                foreign |= read_json(&file)?["run"] != json!(own.run);
            }
        }
        if foreign && !self.dir.join(FINISHED).is_file() {
            return Err(self.foreign());
        }
        for own in folds.iter().filter(|own| foreign && own.dir.is_dir()) {
            fs::remove_dir_all(&own.dir).map_err(LmError::write(&own.dir))?;
        }
        Ok(())
    }

    fn foreign(&self) -> LmError {
        LmError::Input(format!(
            "{}: checkpoints of another run (its model, data or options differ); remove the folder to begin anew, or \
             choose another --out",
            self.dir.display()
        ))
    }

    /// The rewards that a fold's model gave, item by item; `None` where it is not there yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn judged(&self) -> Result<Option<Vec<Vec<f64>>>, LmError> {
        let path = self.dir.join(JUDGED);
        if !path.is_file() {
            return Ok(None);
        }
        // A kill may have come before they were removed.
        self.remove_steps()?;
        let mut state = read_json(&path)?;
        serde_json::from_value(state["rewards"].take()).map(Some).map_err(|e| LmError::format(&path, e))
    }

    /// Keeps the rewards that a fold's model gave, in place of its checkpoints.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn keep_judged(&self, rewards: &[Vec<f64>]) -> Result<(), LmError> {
        if self.every == 0 {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(LmError::write(&self.dir))?;
        let path = self.dir.join(JUDGED);
        let partial = path.with_extension("partial");
        write_json(&partial, &json!({ "schema": 1, "run": self.run, "rewards": rewards }))?;
        fs::rename(&partial, &path).map_err(LmError::write(&path))?;
        self.remove_steps()
    }

    fn remove_steps(&self) -> Result<(), LmError> {
        for step in self.steps()? {
            let dir = self.folder(step);
            fs::remove_dir_all(&dir).map_err(LmError::write(&dir))?;
        }
        Ok(())
    }

    /// Notes that the run reached its end.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn finish(&self) -> Result<(), LmError> {
        let path = self.dir.join(FINISHED);
        if self.every == 0 || !self.dir.is_dir() {
            return Ok(());
        }
        fs::write(&path, b"").map_err(LmError::write(&path))
    }

    /// Removes the checkpoints and the mark of a finished run.
    fn clear(&self) -> Result<(), LmError> {
        self.remove_steps()?;
        let path = self.dir.join(FINISHED);
        fs::remove_file(&path).map_err(LmError::write(&path))
    }

    /// Saves what the step after `step` depends on.
    pub(super) fn save(
        &self,
        step: u32,
        weights: &Weights,
        optimizer: &AdamW,
        best: Option<&Adapter>,
        history: Value,
    ) -> Result<(), LmError> {
        let backbone = &weights.model.backbone;
        let family = backbone.config.family;
        let provenance = Provenance {
            method: "checkpoint".into(),
            base: self.base.clone(),
            options: json!({ "step": step }),
            data: Vec::new(),
            seed: 0,
            results: Value::Null,
        };
        let state =
            json!({ "schema": 1, "run": self.run, "step": step, "updates": optimizer.steps(), "history": history });
        let dir = self.folder(step);
        let earlier = if self.latest_only { self.steps()? } else { Vec::new() };
        write_folder(&dir, &provenance, |dir| {
            if let Some(adapter) = &weights.model.adapter {
                let parts = AdapterParts { adapter, head: None, family, base: &self.base };
                write_adapter_files(dir, &parts)?;
            }
            write_json(&dir.join(STATE), &state)?;
            write_tensors(&dir.join(TENSORS), tensors(weights, optimizer, best, family))
        })?;
        for old in earlier.into_iter().filter(|old| *old != step) {
            let old = self.folder(old);
            fs::remove_dir_all(&old).map_err(LmError::write(&old))?;
        }
        Ok(())
    }

    /// Puts the latest checkpoint into weights and optimizer; `None` where there is none.
    ///
    /// # Errors
    /// A checkpoint of another run, or one that cannot be read.
    pub(super) fn restore(&self, weights: &mut Weights, optimizer: &mut AdamW) -> Result<Option<Saved>, LmError> {
        let Some(step) = self.steps()?.pop().filter(|_| self.every > 0) else { return Ok(None) };
        let dir = self.folder(step);
        let state = read_json(&dir.join(STATE))?;
        if state["run"] != json!(self.run) {
            if self.dir.join(FINISHED).is_file() {
                self.clear()?;
                return Ok(None);
            }
            return Err(self.foreign());
        }
        let path = dir.join(TENSORS);
        let bytes = fs::read(&path).map_err(LmError::read(&path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| LmError::format(&path, e))?;
        let broken =
            |what: &str| LmError::format(&path, format!("{what}; remove {} to begin anew", self.dir.display()));
        let family = weights.model.backbone.config.family;
        let mut moments: BTreeMap<ParamId, [Vec<f32>; 2]> = BTreeMap::new();
        let mut best = weights.model.adapter.clone().filter(|_| file.names().iter().any(|n| n.starts_with("best.")));
        for (name, view) in file.iter() {
            let (role, name) = name.split_once('.').ok_or_else(|| broken("a tensor without a role"))?;
            let id = names::parse(family, name).ok_or_else(|| broken("a tensor that the model does not have"))?;
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            match role {
                "weight" => {
                    let own = weights.slice_mut(id).filter(|own| own.len() == values.len());
                    own.ok_or_else(|| broken("a weight of another size"))?.copy_from_slice(&values);
                }
                "best" => {
                    let own = best.as_mut().and_then(|b| b.param_mut(id)).filter(|t| t.data.len() == values.len());
                    own.ok_or_else(|| broken("a weight of another size"))?.data = values;
                }
                "first" => moments.entry(id).or_default()[0] = values,
                _ => moments.entry(id).or_default()[1] = values,
            }
        }
        optimizer.restore(state["updates"].as_u64().unwrap_or(0) as u32, moments);
        Ok(Some(Saved { history: state["history"].clone(), best }))
    }
}

type Named<'a> = Vec<(String, Vec<usize>, Cow<'a, [f32]>)>;

/// Weights that the optimizer has touched, its moments, and the best adapter.
fn tensors<'a>(weights: &'a Weights, optimizer: &'a AdamW, best: Option<&'a Adapter>, family: Family) -> Named<'a> {
    let mut out = Named::new();
    let mut add = |role: &str, id: ParamId, values: &'a [f32]| {
        out.push((format!("{role}.{}", name_of(family, id)), vec![values.len()], Cow::Borrowed(values)));
    };
    for (id, first, second) in optimizer.moments() {
        add("first", id, first);
        add("second", id, second);
        if let Some(values) = weights.slice(id) {
            add("weight", id, values);
        }
    }
    for (id, tensor) in best.map(Adapter::params).unwrap_or_default() {
        add("best", id, &tensor.data);
    }
    out
}

fn name_of(family: Family, id: ParamId) -> String {
    match id {
        ParamId::LoraA(..) | ParamId::LoraB(..) | ParamId::Head => names::peft_name(family, id),
        _ => names::hf_name(family, id),
    }
}

/// The folder beside `out` where a run writes while it goes: `<out>.training`.
pub fn training_dir(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".training");
    out.with_file_name(name)
}
