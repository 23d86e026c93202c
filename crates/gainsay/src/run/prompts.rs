//! The prompts of a run: those that ship with the project, or the user's files.

use std::path::Path;

use gainsay_core::files;
use gainsay_core::record::PromptRecord;

use super::recipe::Recipe;
use crate::error::{Error, Result};

/// The prompts that ship with the project (see `data/README.md`).
const BUILTIN: &str = include_str!("../../../../data/demo-prompts.jsonl");
/// The answers of its capability check.
const EVERYDAY: &str = include_str!("../../../../data/everyday-answers.jsonl");

/// Training and held-out prompts of a recipe, in the files' order.
///
/// # Errors
/// Files that cannot be read, no held-out prompts, an id in both parts.
pub fn split(recipe: &Recipe) -> Result<(Vec<PromptRecord>, Vec<PromptRecord>)> {
    let (mut train, mut heldout): (Vec<_>, Vec<_>) = read(&recipe.prompts.file, BUILTIN)?
        .into_iter()
        .partition(|record| record.meta.get("split").and_then(|s| s.as_str()) != Some("heldout"));
    if let Some(file) = &recipe.prompts.heldout {
        heldout = read(file, BUILTIN)?;
    }
    if heldout.is_empty() {
        return Err(Error::Input(format!(
            "{}: no held-out prompts: name a file as prompts.heldout, or mark some with \
             \"meta\": {{\"split\": \"heldout\"}}",
            recipe.prompts.file
        )));
    }
    limit(&mut train, recipe.prompts.limit);
    limit(&mut heldout, recipe.prompts.heldout_limit);
    let known: std::collections::BTreeSet<&str> = train.iter().map(|r| r.id.as_str()).collect();
    if let Some(shared) = heldout.iter().find(|r| known.contains(r.id.as_str())) {
        return Err(Error::Input(format!("prompt `{}` is both a training and a held-out prompt", shared.id)));
    }
    Ok((train, heldout))
}

fn limit(records: &mut Vec<PromptRecord>, limit: usize) {
    if limit > 0 {
        records.truncate(limit);
    }
}

/// Everyday answers for the capability check: a file's, `builtin`, or `none`.
///
/// # Errors
/// A file that cannot be read, or without answers.
pub fn everyday(file: &str) -> Result<Option<Vec<PromptRecord>>> {
    if file == "none" {
        return Ok(None);
    }
    let records = read(file, EVERYDAY)?;
    if records.iter().all(|record| record.completions.is_empty()) {
        let what = "no prompt has a completion; everyday answers are prompts with them";
        return Err(Error::Input(format!("{file}: {what}")));
    }
    Ok(Some(records))
}

fn read(file: &str, builtin: &str) -> Result<Vec<PromptRecord>> {
    if file != "builtin" {
        return Ok(files::read_all(Path::new(file))?);
    }
    builtin
        .lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|e| Error::Run(format!("the built-in records are damaged: {e}")))
        })
        .collect()
}
