//! preferences and rankings -> reward model.

use std::fs;
use std::path::{Path, PathBuf};

use gainsay_core::files;
use gainsay_core::import::DataFormat;
use gainsay_core::import::pairs::prefer_safer;
use gainsay_core::ranking::RankingRecord;
use gainsay_core::record::{Extra, PreferenceRecord};
use gainsay_core::stats::Interval;
use gainsay_lm::features::{FeatureCache, Read};
use gainsay_lm::model::Trainable;
use gainsay_lm::reward::FeatureKind;
use gainsay_lm::save::{Provenance, save_reward_model};
use gainsay_lm::source::Loaded;
use gainsay_lm::train::{
    self, CrossValidation, Feedback, HeadInit, RewardCompany, RewardMethod, RewardTrainOptions, RewardTrainReport,
    WEIGHT,
};
use serde_json::json;

use super::lora::Lora;
use super::training::{Metrics, checkpoints, value_of, with_progress};
use crate::cli::Dtype;
use crate::error::{Error, Result};
use crate::models;
use crate::progress::Figures;
use crate::run::directory::{file_digest, write_report};
use crate::run::recipe::Recipe;

/// How a reward model is trained; what is `None` keeps the method's default.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is trained.
    pub method: RewardMethod,
    /// Where a new head starts.
    pub head_init: HeadInit,
    /// Passes over the pairs.
    pub epochs: usize,
    /// Pairs an optimizer step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: Option<f64>,
    /// The adapter of [`RewardMethod::Lora`].
    pub lora: Lora,
    /// Weight of (r1 + r2)^2.
    pub center: f64,
    /// Penalty of a fitted head.
    pub l2: Option<f64>,
    /// What the head reads.
    pub reads: Vec<Read>,
    /// Folder that keeps features.
    pub cache: Option<PathBuf>,
    /// Heads of the ensemble; 0 for none.
    pub heads: usize,
    /// Learn safety labels too.
    pub safety: bool,
    /// Earlier preferences, and the factor on the weights of their pairs.
    pub old: Vec<PathBuf>,
    /// See `old`.
    pub old_weight: f64,
    /// Longest sequence; the prompt's left is cut.
    pub max_tokens: usize,
    /// Share of the prompts whose pairs are held out.
    pub heldout: f64,
    /// Folds of a cross-validation before the training; `None` for none.
    pub folds: Option<usize>,
    /// Steps between two checkpoints; 0 keeps none, nor metrics.
    pub save_every: usize,
    /// Run seed.
    pub seed: u64,
    /// Number format of products with the weights.
    pub dtype: Dtype,
}

impl Options {
    /// The options of a recipe; nothing is held out, as the recipe's gold reward judges.
    pub fn of_recipe(recipe: &Recipe) -> Self {
        let wanted = &recipe.reward;
        let method = match wanted.method.as_str() {
            "head" => RewardMethod::Head,
            "full" => RewardMethod::Full,
            _ => RewardMethod::Lora,
        };
        Self {
            method,
            head_init: HeadInit::Fitted,
            epochs: wanted.epochs,
            batch: wanted.batch,
            lr: Some(wanted.lr),
            lora: Lora::plain(wanted.rank, wanted.alpha, wanted.last_layers),
            center: wanted.center,
            l2: None,
            reads: vec![Read::LAST],
            cache: None,
            heads: wanted.heads,
            safety: false,
            old: Vec::new(),
            old_weight: wanted.old_weight,
            max_tokens: wanted.max_tokens,
            heldout: 0.0,
            folds: None,
            // A run that is killed in the stage goes on from there.
            save_every: 10,
            seed: recipe.seed,
            dtype: recipe.dtype,
        }
    }

    fn resolve(&self, base: &mut Loaded) -> Result<RewardTrainOptions> {
        let mut options = RewardTrainOptions::new(self.method, base.backbone.config.family);
        options.adapter = self.lora.settle(base)?;
        options.head_init = self.head_init;
        options.reads = self.reads.clone();
        options.heads = self.heads;
        options.safety = self.safety;
        options.epochs = self.epochs as u32;
        options.batch_pairs = self.batch;
        options.lr = self.lr.unwrap_or(options.lr);
        options.center = self.center;
        options.l2 = self.l2.unwrap_or(options.l2);
        options.settings.max_tokens = self.max_tokens;
        options.heldout = self.heldout;
        options.seed = self.seed;
        Ok(options)
    }
}

/// What a head reads: `last` or `mean`, each with `@L`; the last token without any.
///
/// # Errors
/// Anything else.
pub fn reads(names: &[String]) -> Result<Vec<Read>> {
    if names.is_empty() {
        return Ok(vec![Read::LAST]);
    }
    let of = |name: &String| {
        let wrong = || Error::Input(format!("--read {name}: write last, mean, last@L or mean@L, L being layers"));
        let (kind, layer) = match name.split_once('@') {
            None => (name.as_str(), None),
            Some((kind, layer)) => (kind, Some(layer.parse::<usize>().map_err(|_| wrong())?)),
        };
        match kind {
            "last" => Ok(Read { kind: FeatureKind::LastToken, layer }),
            "mean" => Ok(Read { kind: FeatureKind::MeanCompletion, layer }),
            _ => Err(wrong()),
        }
    };
    names.iter().map(of).collect()
}

/// What a reward model's training did.
pub struct Done {
    /// Tokens and time.
    pub figures: Figures,
    /// The report.
    pub report: RewardTrainReport,
    /// The cross-validation, where one was asked for.
    pub folds: Option<CrossValidation>,
}

/// Multiplies a record's own weight, 1 where it has none. One that is no number stays, to be
/// refused by its record's name.
fn weigh(extra: &mut Extra, factor: f64) {
    let own = extra.get(WEIGHT).map_or(Some(1.0), |weight| weight.as_f64());
    if let (true, Some(own)) = (factor != 1.0, own) {
        extra.insert(WEIGHT.into(), json!(own * factor));
    }
}

/// The pairs and rankings of the options' old files, their weights times the options' factor, then
/// those of `inputs`.
fn feedback(inputs: &[PathBuf], options: &Options) -> Result<(Vec<PreferenceRecord>, Vec<RankingRecord>)> {
    let (mut pairs, mut rankings) = (Vec::new(), Vec::new());
    let old = options.old.iter().map(|path| (path, options.old_weight));
    for (path, weight) in old.chain(inputs.iter().map(|path| (path, 1.0))) {
        let format = files::first_row(path)?.and_then(|row| DataFormat::of(&row));
        if format.is_some_and(|(format, _)| format == DataFormat::Rankings) {
            let mut read: Vec<RankingRecord> = files::read_all(path)?;
            read.iter_mut().for_each(|record| weigh(&mut record.extra, weight));
            rankings.extend(read);
        } else {
            let mut read = files::read_preferences(path)?;
            if options.safety {
                read.iter_mut().for_each(prefer_safer);
            }
            read.iter_mut().for_each(|record| weigh(&mut record.extra, weight));
            pairs.extend(read);
        }
    }
    Ok((pairs, rankings))
}

/// Trains a reward model on the preferences and rankings of several files and saves it in `out`, after a
/// cross-validation where the options ask for one; with `report` also writes the training report
/// without its wall-clock values, and takes that for a stage of a run: then no checkpoint stays.
///
/// # Errors
/// Files or models that cannot be read, no usable pair, a loss that is not finite, Ctrl-C.
pub fn train_reward(
    from: &str,
    inputs: &[PathBuf],
    out: &Path,
    report: Option<&Path>,
    options: &Options,
) -> Result<Done> {
    let (pairs, rankings) = feedback(inputs, options)?;
    let learned = Feedback { pairs: &pairs, rankings: &rankings };
    let mut base = models::load(from, options.dtype)?;
    let identity = base.identity.clone();
    let resolved = options.resolve(&mut base)?;
    let features = match &options.cache {
        Some(dir) => FeatureCache::in_folder(dir)?,
        None => FeatureCache::in_memory(),
    };
    let mut company = RewardCompany { features, checkpoints: None };
    let all: Vec<PathBuf> = options.old.iter().chain(inputs).cloned().collect();
    let data = data(&all)?;
    let run =
        json!({ "base": identity, "data": data, "options": value_of(&resolved), "old_weight": options.old_weight });
    let every = if options.method == RewardMethod::Head { 0 } else { options.save_every as u32 };
    let latest_only = report.is_some() || options.method == RewardMethod::Full;
    let kept = checkpoints(out, every, latest_only, &base.spec, &run);
    company.checkpoints = Some(&kept);
    let folds = options
        .folds
        .map(|folds| {
            with_progress("cross-validate", None, |tell| {
                train::cross_validate(&base, learned, &resolved, folds, &mut company, tell)
            })
        })
        .transpose()?;
    let metrics = (every > 0).then(|| Metrics::new(&kept.dir));
    let (model, done) = with_progress("train reward", metrics.as_ref(), |progress| {
        train::train_reward(base, learned, &resolved, &mut company, progress)
    })?;
    let provenance = provenance(&identity, data, &resolved, options, &done, folds.as_ref());
    save_reward_model(out, &model, &trainable(options.method), &provenance)?;
    kept.finish()?;
    if let Some(path) = report {
        // First, as the report says that the stage is over: nothing would clear up after it.
        discard(&kept.dir)?;
        let mut value = serde_json::to_value(&done).map_err(|e| Error::Run(e.to_string()))?;
        value.as_object_mut().map(|fields| fields.remove("cost"));
        write_report(path, &value)?;
    }
    eprint!("{}", accuracy_line(&done));
    let figures = Figures::of("train reward", done.cost.tokens, done.cost.seconds);
    Ok(Done { figures, report: done, folds })
}

/// Removes the checkpoints of a stage that is over. Under another name first: a kill in between
/// must not leave half a checkpoint to go on from.
fn discard(dir: &Path) -> Result<()> {
    let gone = dir.with_extension("gone");
    let done = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Run(format!("{}: cannot be removed: {e}", dir.display())))
        }
        _ => Ok(()),
    };
    done(fs::remove_dir_all(&gone))?;
    done(fs::rename(dir, &gone))?;
    done(fs::remove_dir_all(&gone))
}

/// Names and digests of files.
fn data(inputs: &[PathBuf]) -> Result<Vec<String>> {
    let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut named = Vec::new();
    for input in inputs {
        named.extend(files::expand(input)?);
    }
    named.iter().map(|path| Ok(format!("{}@sha256:{}", name(path), file_digest(path)?))).collect()
}

/// A cross-validation as lines of text.
pub fn render_folds(result: &CrossValidation) -> String {
    let row = |what: &str, accuracy: Option<Interval>| match accuracy {
        Some(a) => format!("{what:<26} {:5.1} % [{:.1}, {:.1}]\n", 100.0 * a.estimate, 100.0 * a.low, 100.0 * a.high),
        None => format!("{what:<26}  no pair has an order\n"),
    };
    let pairs = result.accuracy.map_or(0, |a| a.n);
    let mut out = format!("accuracy on unseen pairs, {}-fold, {pairs} pairs, 95 % intervals\n", result.folds);
    out.push_str(&row("reward model", result.accuracy));
    for baseline in &result.baselines {
        out.push_str(&row(&format!("rule: {}", baseline.prefers), baseline.accuracy));
    }
    out
}

fn trainable(method: RewardMethod) -> Trainable {
    match method {
        RewardMethod::Head => Trainable::Head,
        RewardMethod::Lora => Trainable::Lora,
        RewardMethod::Full => Trainable::Full,
    }
}

fn accuracy_line(report: &RewardTrainReport) -> String {
    let heldout = report.epochs.last().and_then(|epoch| epoch.heldout.as_ref());
    let Some((accuracy, pairs)) = heldout.and_then(|h| Some((h.accuracy?, h.pairs))) else { return String::new() };
    let ece = report.calibration.as_ref().map(|c| format!(", calibration error {:.3}", c.ece)).unwrap_or_default();
    let mut out = format!("held-out accuracy {accuracy:.3} on {pairs} pairs{ece}\n");
    for slice in &report.slices {
        out.push_str(&format!("  {:<8}{:<24}{:.3}\n", slice.by, slice.part, slice.accuracy));
    }
    out
}

fn provenance(
    identity: &str,
    data: Vec<String>,
    options: &RewardTrainOptions,
    wanted: &Options,
    report: &RewardTrainReport,
    folds: Option<&CrossValidation>,
) -> Provenance {
    let mut shown = json!({
        "epochs": options.epochs, "batch_pairs": options.batch_pairs, "lr": options.lr,
        "head_init": options.head_init, "warmup": options.warmup, "clip": options.clip, "center": options.center,
        "heldout": options.heldout, "max_tokens": options.settings.max_tokens,
        "rank": options.adapter.rank, "alpha": options.adapter.alpha, "layers": options.adapter.layers,
    });
    if options.heads > 0 {
        shown["heads"] = json!(options.heads);
    }
    if options.reads != [Read::LAST] {
        shown["reads"] = json!(options.reads);
    }
    wanted.lora.note(&options.adapter, &mut shown);
    if wanted.l2.is_some() {
        shown["l2"] = json!(options.l2);
    }
    if options.safety {
        shown["safety"] = json!(true);
    }
    if !wanted.old.is_empty() {
        shown["old_weight"] = json!(wanted.old_weight);
    }
    let mut results = json!({
        "pairs": report.pairs, "epochs": report.epochs, "calibration": report.calibration, "slices": report.slices,
    });
    if let Some(folds) = folds {
        results["cross_validation"] = json!(folds);
    }
    Provenance {
        method: format!("reward-{:?}", options.method).to_lowercase(),
        base: identity.into(),
        options: shown,
        data,
        seed: options.seed,
        results,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_records_own_weight_counts() {
        let mut extra = Extra::default();
        weigh(&mut extra, 1.0);
        assert!(extra.is_empty());
        weigh(&mut extra, 0.5);
        weigh(&mut extra, 0.5);
        assert_eq!(extra[WEIGHT], 0.25);
        extra.insert(WEIGHT.into(), json!("much"));
        weigh(&mut extra, 0.5);
        assert_eq!(extra[WEIGHT], "much");
    }

    #[test]
    fn what_a_kill_left_of_discarded_checkpoints_goes_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = dir.path().join("model.training");
        for folder in [&kept, &dir.path().join("model.gone")] {
            fs::create_dir_all(folder.join("step-000010")).expect("a checkpoint");
        }
        discard(&kept).expect("discarded");
        discard(&kept).expect("nothing left to discard");
        assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0);
    }
}
