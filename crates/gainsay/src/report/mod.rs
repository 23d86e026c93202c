//! The report of a run, an experiment or a policy's training: one self-contained HTML page for people.
//!
//! [`load`] reads what a run directory holds, finished or not; [`render`] turns it into the page
//! and touches nothing else; [`write`] does both and puts `report.html` into the directory.
//! The page fetches nothing, runs no script, and treats every text from a file as untrusted.

mod cards;
mod charts;
mod curve;
mod data;
mod experiment;
mod load;
mod looks;
mod map;
mod measures;
mod page;
mod pool;
mod style;
mod tables;
mod text;
mod training;
mod validation;
mod verdict;

use std::path::{Path, PathBuf};

use gainsay_core::files::{self, FileError};

pub use data::{Answers, Arm, Correlation, Missing, ReportData, Settings, Step, Summary, Timing};
pub use experiment::write_experiment;
pub use load::load;
pub use looks::{Finding, Look, finding};
pub use measures::{MEASURES, Measure};
pub use page::render;
pub use pool::{Asked, Conflict, Dot, Pool, RegionTally, Side, Tally};
pub use training::{Training, load_training, render_training};
pub use validation::{Knowledge, Recommendation, Score, Validation};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory holds nothing that a run writes.
    #[error(
        "{}: is not a run directory: neither recipe.toml nor a stage's file is in it; \
         name the directory that `gainsay run` or `gainsay demo` wrote to, or the folder that \
         `gainsay train policy` wrote to",
        dir.display()
    )]
    NotARun {
        /// The directory.
        dir: PathBuf,
    },
    /// A policy's folder without the metrics of its training.
    #[error(
        "{}: a policy's training kept no metrics.jsonl, neither here nor in {}.training; train with \
         --save-every above 0 (10 by default), and with --heldout and --gold for the over-optimization curve",
        dir.display(), dir.display()
    )]
    NoMetrics {
        /// The folder.
        dir: PathBuf,
    },
    /// The page cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes the page of a run directory, or of the folder of a policy's training, to its
/// `report.html` and returns that path.
///
/// # Errors
/// The directory is neither, or the page cannot be written.
pub fn write(dir: &Path) -> Result<PathBuf, ReportError> {
    let page = match load(dir) {
        Ok(data) => render(&data),
        Err(not_a_run) => match load_training(dir)? {
            Some(training) => render_training(&training),
            None => return Err(not_a_run),
        },
    };
    let path = dir.join("report.html");
    files::write_atomic(&path, page.as_bytes())?;
    Ok(path)
}
