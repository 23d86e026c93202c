//! The prompts of a run: those that ship with the project, or the user's files.

use std::path::Path;

use gainsay_core::files;
use gainsay_core::record::PromptRecord;

use super::recipe::Recipe;
use crate::error::{Error, Result};

/// The prompts that ship with the project (see `data/README.md`).
const BUILTIN: &str = include_str!("../../../../data/demo-prompts.jsonl");

/// Training and held-out prompts of a recipe, in the files' order.
///
/// # Errors
/// Files that cannot be read, no held-out prompts, an id in both parts.
pub fn split(recipe: &Recipe) -> Result<(Vec<PromptRecord>, Vec<PromptRecord>)> {
    let (mut train, mut heldout): (Vec<_>, Vec<_>) = read(&recipe.prompts.file)?
        .into_iter()
        .partition(|record| record.meta.get("split").and_then(|s| s.as_str()) != Some("heldout"));
    if let Some(file) = &recipe.prompts.heldout {
        heldout = read(file)?;
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

fn read(file: &str) -> Result<Vec<PromptRecord>> {
    if file != "builtin" {
        return Ok(files::read_all(Path::new(file))?);
    }
    BUILTIN
        .lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|e| Error::Run(format!("the built-in prompts are damaged: {e}")))
        })
        .collect()
}
