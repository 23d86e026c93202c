//! What every training recipe shares: the live line, `metrics.jsonl`, checkpoints' place, Ctrl-C.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gainsay_core::files;
use gainsay_lm::LmError;
use gainsay_lm::train::checkpoint::training_dir;
use gainsay_lm::train::{Checkpoints, TrainEvent};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::progress::Progress;

/// A file of one JSON object a step, complete up to the last step that is on disk.
pub struct Metrics {
    path: PathBuf,
    /// The last step that was noted: an epoch ends behind it.
    step: Cell<u32>,
}

impl Metrics {
    /// Metrics in a folder.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("metrics.jsonl"), step: Cell::new(0) }
    }

    fn note(&self, event: &TrainEvent) -> std::io::Result<()> {
        let mut value = match event {
            TrainEvent::Resumed { step } => {
                self.step.set(*step);
                return self.cut(u64::from(*step));
            }
            TrainEvent::Features { .. } => return Ok(()),
            event => serde_json::to_value(event)?,
        };
        match event {
            TrainEvent::RewardStep(s) => self.step.set(s.step),
            TrainEvent::Epoch(_) => value["step"] = json!(self.step.get()),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{value}\n").as_bytes())
    }

    /// Drops what a broken-off run had noted behind its last checkpoint.
    fn cut(&self, step: u64) -> std::io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let kept = |line: &&str| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            value["step"].as_u64().is_some_and(|s| s <= step && (step > 0 || s > 0))
        };
        let kept: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        files::write_atomic(&self.path, kept.as_bytes()).map_err(std::io::Error::other)
    }
}

/// The checkpoints of a run that writes `out`, every `every` steps, in `<out>.training`. `run`
/// says what the run is: model, data, options.
pub fn checkpoints(out: &Path, every: u32, latest_only: bool, base: &str, run: &Value) -> Checkpoints {
    let digest = Sha256::digest(run.to_string().as_bytes());
    let run = digest.iter().map(|b| format!("{b:02x}")).collect();
    Checkpoints { dir: training_dir(out), every, latest_only, run, base: base.into() }
}

/// Ctrl-C asks to stop.
fn flow() -> ControlFlow<()> {
    if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Runs training behind a bar of optimizer steps, noting every step; Ctrl-C breaks it off after
/// the current one, from whose checkpoint it goes on.
pub fn with_progress<T>(
    stage: &str,
    metrics: Option<&Metrics>,
    work: impl FnOnce(&mut dyn FnMut(&TrainEvent) -> ControlFlow<()>) -> std::result::Result<T, LmError>,
) -> Result<T> {
    let started = Instant::now();
    let mut live = Live { stage: stage.into(), bar: None, features: None, started, tokens: 0, resumed: 0 };
    let mut unwritten = None;
    let mut tell = |event: &TrainEvent| {
        if let Some(Err(e)) = metrics.map(|m| m.note(event)) {
            unwritten = metrics.map(|m| format!("{} cannot be written: {e}", m.path.display()));
            return ControlFlow::Break(());
        }
        live.show(event);
        flow()
    };
    let result = work(&mut tell);
    if let Some(bar) = live.bar {
        bar.finish();
    }
    interrupt::check()?;
    match unwritten {
        Some(problem) => Err(Error::Run(problem)),
        None => Ok(result?),
    }
}

/// The line on the terminal.
struct Live {
    stage: String,
    bar: Option<Progress>,
    features: Option<Progress>,
    started: Instant,
    tokens: u64,
    /// Steps that an earlier run had taken.
    resumed: u32,
}

impl Live {
    /// Tokens a second since the start, with those of a step.
    fn speed(&mut self, tokens: u64) -> f64 {
        self.tokens += tokens;
        self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn show(&mut self, event: &TrainEvent) {
        let (step, steps, message) = match event {
            TrainEvent::Features { done, total } => {
                let bar = self.features.get_or_insert_with(|| Progress::new("features", *total as u64, "completions"));
                bar.reach(*done as u64);
                if done == total {
                    self.features.take().map(Progress::finish);
                }
                return;
            }
            TrainEvent::RewardStep(s) => {
                (s.step, s.steps, format!("loss {:.3}, {:.0} tokens/s", s.loss, self.speed(s.tokens)))
            }
            TrainEvent::OfflineStep(s) => {
                (s.step, s.steps, format!("loss {:.3}, {:.0} tokens/s", s.loss, self.speed(s.tokens)))
            }
            TrainEvent::PolicyStep(s) => {
                let speed = self.speed(s.tokens);
                let message = format!(
                    "loss {:+.3}, reward {:+.3}, KL {:.2} nats, {:.0} tokens long, {speed:.0} tokens/s",
                    s.loss, s.reward, s.kl_k3, s.length
                );
                (s.step, s.steps, message)
            }
            TrainEvent::Heldout(w) => {
                let gold = w.gold.map(|g| format!(", gold {g:+.3}")).unwrap_or_default();
                let line = format!("step {}: held out: proxy {:+.3}{gold}, KL {:.2} nats", w.step, w.proxy, w.kl);
                match &self.bar {
                    Some(bar) => bar.print(&line),
                    None => eprintln!("{line}"),
                }
                return;
            }
            TrainEvent::Resumed { step } => {
                self.resumed = *step;
                if *step > 0 {
                    eprintln!("goes on behind step {step}");
                }
                return;
            }
            TrainEvent::Epoch(_) => return,
        };
        let bar = self.bar.get_or_insert_with(|| {
            let mut bar = Progress::new(&self.stage, u64::from(steps), "steps");
            bar.skip(u64::from(self.resumed));
            bar
        });
        bar.reach(u64::from(step));
        bar.say(message);
    }
}

/// A value as JSON, for identities of runs.
pub fn value_of<T: std::fmt::Debug>(value: &T) -> Value {
    json!(format!("{value:?}"))
}
