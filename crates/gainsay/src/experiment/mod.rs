//! Variants of a recipe x seeds: every run in a directory of its own, then what they say together.

pub mod plan;
mod shared;
pub mod summary;

use std::path::{Path, PathBuf};

use gainsay_core::files;

use crate::cli::Device;
use crate::error::{Error, Result};
use crate::run;
use crate::run::directory::write_json;
use crate::run::recipe::Recipe;
use plan::Plan;
use summary::{Summary, summarize};

/// Where a run of the experiment lies.
fn run_directory(root: &Path, variant: &str, seed: u64) -> PathBuf {
    root.join(variant).join(format!("seed-{seed}"))
}

/// Makes every run of a plan, or goes on with those that are there; then writes `experiment.json`,
/// `tables.md` and `report.html`.
///
/// # Errors
/// What a run reports, Ctrl-C.
pub fn experiment(name: &str, plan: &Plan, root: &Path, threads: usize, device: Device) -> Result<Summary> {
    let all: Vec<(&str, Recipe)> = plan.runs().collect();
    let mut done: Vec<(Recipe, PathBuf)> = Vec::new();
    for (number, (variant, recipe)) in all.iter().enumerate() {
        let dir = run_directory(root, variant, recipe.seed);
        eprintln!("run {} of {}: {variant}, seed {}", number + 1, all.len(), recipe.seed);
        if !dir.join("recipe.toml").exists() {
            shared::begin(recipe, &dir, &done)?;
        }
        run::run(recipe, &dir, threads, device)?;
        done.push((recipe.clone(), dir));
    }
    let summary = summarize(name, plan, root)?;
    write_json(&root.join("experiment.json"), &summary)?;
    files::write_atomic(root.join("tables.md"), summary.render().as_bytes())?;
    crate::report::write_experiment(&summary, root).map_err(|e| Error::Run(e.to_string()))?;
    Ok(summary)
}
