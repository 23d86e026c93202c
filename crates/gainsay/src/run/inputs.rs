//! What a recipe names, looked at before anything is computed or written.

use std::path::Path;

use gainsay_core::files;
use gainsay_core::known::KnownReward;
use gainsay_lm::source::DEFAULT_MODEL;

use super::recipe::Recipe;
use super::{prompts, slice};
use crate::error::{Error, Result};

/// Whether the files and models that a recipe names are there, and its prompts have what the proxy's
/// slice asks for.
///
/// # Errors
/// What is missing or cannot be read.
pub fn check(recipe: &Recipe) -> Result<()> {
    let (train, _) = prompts::split(recipe)?;
    prompts::everyday(&recipe.evaluate.everyday)?;
    model(&recipe.policy)?;
    if recipe.gold != "builtin" {
        model(&recipe.gold)?;
    }
    match (&recipe.proxy.model, &recipe.proxy.preferences) {
        (Some(spec), _) => model(spec),
        (None, Some(file)) => files::first_row(Path::new(file)).map(|_| ()).map_err(Error::from),
        (None, None) => {
            let pairs = slice::prompts_of(&train, &recipe.proxy)?.len() * recipe.sample.n * (recipe.sample.n - 1) / 2;
            slice::enough(pairs, recipe.proxy.pairs)
        }
    }
}

/// Whether a model that lies in a folder or file is there; one behind a name or a URL is looked for
/// when it is needed.
fn model(spec: &str) -> Result<()> {
    let named = spec == DEFAULT_MODEL || spec.starts_with("hf:") || spec.starts_with("tiny-random");
    if named || gainsay_remote::is_address(spec) || Path::new(spec).exists() {
        return Ok(());
    }
    match KnownReward::parse(spec) {
        Some(known) => known.map(|_| ()).map_err(|e| Error::Input(e.to_string())),
        // There is nothing to load: this says so.
        None => gainsay_lm::load(spec).map(|_| ()).map_err(Error::from),
    }
}
