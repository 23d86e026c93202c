//! The page of a policy's training: its over-optimization curve, its reward and KL by step.

use std::fs;
use std::path::{Path, PathBuf};

use gainsay_lm::train::checkpoint::training_dir;
use serde::Deserialize;

use super::ReportError;
use super::charts::{Series, curve_key, curves};
use super::curve::figure;
use super::data::Step;
use super::load::{name_of, parsed};
use super::looks::{Look, finding, table};
use super::page::{document, waiting};
use super::text::{escape, plural};

/// A policy's training as its `metrics.jsonl` tells it.
#[derive(Clone, Debug, Default)]
pub struct Training {
    /// The folder's name.
    pub name: String,
    /// Looks at held-out prompts, by step.
    pub looks: Vec<Look>,
    /// Steps.
    pub steps: Vec<Step>,
    /// `gainsay.json` of the policy: how it was trained.
    pub provenance: Option<String>,
    /// What could not be read of the metrics.
    pub fault: Option<String>,
}

/// A line of `metrics.jsonl`.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    PolicyStep(Step),
    Heldout(Look),
    #[serde(other)]
    Other,
}

/// `metrics.jsonl` of a policy folder: in it, or in the folder of its checkpoints beside it.
fn metrics_of(dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    [dir.clone(), training_dir(&dir)].map(|d| d.join("metrics.jsonl")).into_iter().find(|file| file.is_file())
}

/// Looks at held-out prompts in a policy folder's metrics, by step, the last of each; none where
/// there are no metrics.
pub(super) fn looks_of(dir: &Path) -> Vec<Look> {
    metrics_of(dir).and_then(|file| read(&file)).map(|training| training.looks).unwrap_or_default()
}

/// Steps and looks of a metrics file; `None` where it holds neither.
fn read(file: &Path) -> Option<Training> {
    let text = fs::read_to_string(file).ok()?;
    let (lines, fault) = parsed::<Line>(&text);
    let mut training = Training { fault, ..Training::default() };
    for line in lines {
        match line {
            Line::PolicyStep(step) => training.steps.push(step),
            Line::Heldout(look) => {
                training.looks.retain(|l| l.step != look.step);
                training.looks.push(look);
            }
            Line::Other => {}
        }
    }
    training.looks.sort_by_key(|l| l.step);
    (!training.steps.is_empty() || !training.looks.is_empty()).then_some(training)
}

/// Reads a policy folder; `None` where it holds no policy's training.
///
/// # Errors
/// A policy folder whose training kept no metrics.
pub fn load_training(dir: &Path) -> Result<Option<Training>, ReportError> {
    let found = metrics_of(dir).and_then(|file| read(&file));
    if found.is_none() && dir.join("adapter_config.json").is_file() {
        return Err(ReportError::NoMetrics { dir: dir.to_path_buf() });
    }
    let provenance = fs::read_to_string(dir.join("gainsay.json")).ok();
    Ok(found.map(|training| Training { name: name_of(dir), provenance, ..training }))
}

/// The page as one HTML document. Pure.
pub fn render_training(training: &Training) -> String {
    let section = |anchor: &str, heading: &str, body: String| match body.is_empty() {
        true => String::new(),
        false => format!(r#"<section aria-labelledby="{anchor}"><h2 id="{anchor}">{heading}</h2>{body}</section>"#),
    };
    let body = [
        section("curve", "The over-optimization curve", curve(&training.looks)),
        section("steps", "Reward and KL by step", by_step(training)),
        section("looks", "The looks", looks_table(&training.looks)),
        section("provenance", "How it was trained", provenance(training)),
    ]
    .concat();
    let header = format!(
        concat!(
            r#"<p class="kicker"><b>Gainsay</b> · policy training · <b>{}</b></p>"#,
            "<h1>Does gold still rise with the reward that is optimized?</h1>{}<p class=\"lede\">{}</p>"
        ),
        escape(&training.name),
        notice(training),
        finding(&training.looks).sentence()
    );
    let footer = "Gold stands in for people’s judgment and is itself a model or a label with errors of its own.";
    document(&training.name, &header, &body, footer)
}

fn notice(training: &Training) -> String {
    let Some(fault) = &training.fault else { return String::new() };
    format!(
        r#"<aside class="notice"><p><b>Could not be read to its end:</b> <code>metrics.jsonl</code>: {}. The page shows what stands before.</p></aside>"#,
        escape(fault)
    )
}

fn curve(looks: &[Look]) -> String {
    let figure = figure(looks);
    if figure.is_empty() {
        return waiting("A curve needs two looks or more that have a reward and a KL.");
    }
    "<p>The farther a policy moves from its base, the more of the reward it gains may be the reward model’s error. Where \
     gold falls while the proxy still rises, it learns the proxy’s mistakes.</p>"
        .to_string()
        + &figure
}

fn looks_table(looks: &[Look]) -> String {
    if looks.is_empty() { String::new() } else { table(looks) }
}

/// Rewards on the left, the KL on the right: drawn completions of training, and the looks.
fn by_step(training: &Training) -> String {
    let of_steps = |name: &str, get: fn(&Step) -> Option<f64>| Series {
        name: name.into(),
        points: training.steps.iter().filter_map(|s| Some((s.step, get(s)?))).collect(),
    };
    let of_looks = |name: &str, get: fn(&Look) -> Option<f64>| Series {
        name: name.into(),
        points: training.looks.iter().filter_map(|l| Some((f64::from(l.step), get(l)?))).collect(),
    };
    let rewards = [
        of_looks("gold, held out", |l| l.gold),
        of_looks("proxy, held out", |l| l.proxy),
        of_steps("proxy, training prompts", |s| s.reward),
    ];
    // Two empty places, so that the colors are those of the rewards' lines.
    let none = || Series { name: String::new(), points: Vec::new() };
    let kls = [none(), of_looks("held out", |l| l.kl), of_steps("training prompts", |s| s.kl)];
    let chart = |title: &str, series: &[Series], from_zero: bool| match curves(series, "Step", title, from_zero) {
        Some(svg) => format!("<figure><h3>{title}</h3>{svg}</figure>"),
        None => String::new(),
    };
    let charts = chart("Reward", &rewards, false) + &chart("KL to the base policy, nats a sequence", &kls, true);
    if charts.is_empty() {
        return String::new();
    }
    format!(
        "<p>{} of training, {} at held-out prompts. The KL of training prompts is that at temperature 1, the looks’ that \
         of the distribution that is sampled.</p>{}<div class=\"pair\">{charts}</div>",
        plural(training.steps.len(), "step", "steps"),
        plural(training.looks.len(), "look", "looks"),
        curve_key(&["gold, held out", "proxy and KL, held out", "proxy and KL, training prompts"])
    )
}

fn provenance(training: &Training) -> String {
    let Some(text) = &training.provenance else { return String::new() };
    format!(
        "<details><summary>The policy’s record: method, base, options, digests</summary><pre>{}</pre></details>",
        escape(text.trim_end())
    )
}
