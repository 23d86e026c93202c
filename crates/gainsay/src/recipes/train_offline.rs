//! completions -> fine-tuned policy; preferences -> policy by DPO, without a reward model.

use std::path::{Path, PathBuf};

use gainsay_core::engine::ScoreItem;
use gainsay_core::files::{self, Kind};
use gainsay_core::import::DataFormat;
use gainsay_core::record::{Answer, PromptRecord};
use gainsay_lm::save::{Provenance, save_full, save_policy};
use gainsay_lm::sequence::{Encoder, Sequence};
use gainsay_lm::source::Loaded;
use gainsay_lm::train::{self, Example, Objective, OfflineOptions, OfflineReport, is_heldout};
use serde_json::json;

use super::lora::Lora;
use super::train_policy::tell_reference;
use super::training::{Metrics, checkpoints, value_of, with_progress};
use crate::cli::Dtype;
use crate::error::{Error, Result};
use crate::models;
use crate::progress::Figures;
use crate::run::directory::file_digest;

/// How a policy learns from a file; what is `None` keeps the objective's default.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is learned.
    pub objective: Objective,
    /// Whether the objective's reference was left to the default.
    pub reference_is_open: bool,
    /// Train all weights instead of an adapter.
    pub full: bool,
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples an optimizer step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: Option<f64>,
    /// The adapter, unless all weights are trained.
    pub lora: Lora,
    /// Longest sequence; the prompt's left is cut.
    pub max_tokens: usize,
    /// Share of the prompts that is held out.
    pub heldout: f64,
    /// Steps between two checkpoints; 0 keeps none, nor metrics.
    pub save_every: usize,
    /// Run seed.
    pub seed: u64,
    /// Number format of products with the weights.
    pub dtype: Dtype,
}

/// Trains `from` on the examples of several files and saves it in `out`: an adapter folder, or a
/// whole model with `full`.
///
/// # Errors
/// Files or models that cannot be read, no example, a loss that is not finite, Ctrl-C.
pub fn train_offline(
    from: &str,
    inputs: &[PathBuf],
    out: &Path,
    options: &Options,
) -> Result<(Figures, OfflineReport)> {
    let mut base = models::load(from, options.dtype)?;
    if options.reference_is_open {
        tell_reference(from, &base, None);
    }
    let mut resolved = OfflineOptions::new(options.objective, base.backbone.config.family);
    resolved.adapter = options.lora.settle(&mut base)?;
    resolved.full = options.full;
    resolved.epochs = options.epochs as u32;
    resolved.batch = options.batch;
    resolved.lr = options.lr.unwrap_or(if options.full { 2e-5 } else { resolved.lr });
    resolved.settings.max_tokens = options.max_tokens;
    resolved.seed = options.seed;
    let examples = examples(&base, inputs, options, &resolved)?;
    let data = digests(inputs)?;
    let run =
        json!({ "base": base.identity, "data": data, "options": value_of(&resolved), "heldout": options.heldout });
    let kept = checkpoints(out, options.save_every as u32, options.full, &base.spec, &run);
    let metrics = (options.save_every > 0).then(|| Metrics::new(&kept.dir));
    let (identity, spec, tokenizer) = (base.identity.clone(), base.spec.clone(), base.tokenizer.clone());
    let (model, done) = with_progress("train", metrics.as_ref(), |progress| {
        train::train_offline(base, &examples, &resolved, Some(&kept).filter(|c| c.every > 0), progress)
    })?;
    let provenance = provenance(&identity, data, options, &resolved, &done);
    if options.full {
        save_full(out, &model.backbone, None, &tokenizer, &provenance)?;
    } else {
        save_policy(out, &model, &spec, &provenance)?;
    }
    kept.finish()?;
    if let Some([before, after]) = done.heldout_loss {
        eprintln!("held-out loss {before:.3} -> {after:.3} on {} examples", done.heldout);
    }
    Ok((Figures::of("train", done.cost.tokens, done.cost.seconds), done))
}

/// Names and digests of the files, each file of a pattern by itself.
fn digests(inputs: &[PathBuf]) -> Result<Vec<String>> {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut found = Vec::new();
    for input in inputs {
        for file in files::expand(input)? {
            found.push(format!("{}@sha256:{}", name(&file), file_digest(&file)?));
        }
    }
    Ok(found)
}

fn examples(base: &Loaded, inputs: &[PathBuf], options: &Options, resolved: &OfflineOptions) -> Result<Vec<Example>> {
    let config = &base.backbone.config;
    let encoder = Encoder::new(&base.tokenizer, config.vocab_size, config.max_positions, &resolved.settings);
    let mut out = Vec::new();
    for path in inputs {
        match options.objective {
            Objective::Sft if compares(path)? => chosen(path, &encoder, options.heldout, &mut out)?,
            Objective::Sft => completions(path, &encoder, options.heldout, &mut out)?,
            Objective::Preference { .. } => pairs(path, &encoder, options.heldout, &mut out)?,
        }
    }
    Ok(out)
}

/// Whether a file holds answered comparisons.
fn compares(path: &Path) -> Result<bool> {
    let format = files::first_row(path)?.and_then(|row| DataFormat::of(&row));
    Ok(format.is_some_and(|(format, _)| format.kind() == Kind::Preference))
}

/// The answer that people preferred is an example; ties, both bad and skips have none.
fn chosen(path: &Path, encoder: &Encoder<'_>, heldout: f64, out: &mut Vec<Example>) -> Result<()> {
    for record in files::read_preferences(path)? {
        let side = match (record.answer, record.p_first) {
            (Answer::BothBad | Answer::Skip | Answer::Tie, _) => continue,
            (_, Some(0.5)) => continue,
            (_, Some(p)) if p > 0.5 => &record.first,
            (Answer::First, None) => &record.first,
            _ => &record.second,
        };
        let sequences = vec![sequence(encoder, &ScoreItem::side(&record.prompt, side), &record.id)?];
        let heldout = is_heldout(&record.prompt, heldout);
        out.push(Example { id: record.id, sequences, p: 1.0, heldout });
    }
    Ok(())
}

/// Every completion of every record is an example.
fn completions(path: &Path, encoder: &Encoder<'_>, heldout: f64, out: &mut Vec<Example>) -> Result<()> {
    let records: Vec<PromptRecord> = files::read_all(path)?;
    for record in &records {
        if record.completions.is_empty() {
            return Err(Error::Input(format!(
                "{}: prompt `{}` has no completions to learn from",
                path.display(),
                record.id
            )));
        }
        for (i, completion) in record.completions.iter().enumerate() {
            let id = format!("{}/{i}", record.id);
            let sequences = vec![sequence(encoder, &ScoreItem::of(&record.prompt, completion), &id)?];
            out.push(Example { id, sequences, p: 1.0, heldout: is_heldout(&record.prompt, heldout) });
        }
    }
    Ok(())
}

fn pairs(path: &Path, encoder: &Encoder<'_>, heldout: f64, out: &mut Vec<Example>) -> Result<()> {
    for record in files::read_preferences(path)? {
        let p = match (record.p_first, record.answer) {
            (_, Answer::BothBad | Answer::Skip) => continue,
            (Some(p), _) => p,
            (None, Answer::First) => 1.0,
            (None, Answer::Second) => 0.0,
            (None, Answer::Tie) => 0.5,
        };
        let side = |side| sequence(encoder, &ScoreItem::side(&record.prompt, side), &record.id);
        let sequences = vec![side(&record.first)?, side(&record.second)?];
        out.push(Example { id: record.id.clone(), sequences, p, heldout: is_heldout(&record.prompt, heldout) });
    }
    Ok(())
}

fn sequence(encoder: &Encoder<'_>, item: &ScoreItem<'_>, id: &str) -> Result<Sequence> {
    Ok(encoder.item(&encoder.own(item), &format!("example {id}"))?)
}

fn provenance(
    identity: &str,
    data: Vec<String>,
    options: &Options,
    resolved: &OfflineOptions,
    done: &OfflineReport,
) -> Provenance {
    let (method, more) = match options.objective {
        Objective::Sft => ("sft", json!({})),
        Objective::Preference { loss, beta, reference } => {
            ("dpo-offline", json!({ "loss": loss, "beta": beta, "reference": reference }))
        }
    };
    let mut shown = json!({
        "full": options.full, "epochs": resolved.epochs, "batch": resolved.batch, "lr": resolved.lr,
        "warmup": resolved.warmup, "clip": resolved.clip, "max_tokens": resolved.settings.max_tokens,
        "heldout": options.heldout, "rank": resolved.adapter.rank, "alpha": resolved.adapter.alpha,
    });
    options.lora.note(&resolved.adapter, &mut shown);
    if let (Some(shown), Some(more)) = (shown.as_object_mut(), more.as_object()) {
        shown.extend(more.clone());
    }
    Provenance {
        method: method.into(),
        base: identity.into(),
        options: shown,
        data,
        seed: options.seed,
        results: json!({ "examples": done.examples, "heldout": done.heldout, "heldout_loss": done.heldout_loss }),
    }
}
