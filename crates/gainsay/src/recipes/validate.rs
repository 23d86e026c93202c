//! conflicts -> validation: does conflict find the reward model's mistakes?

use std::path::Path;

use gainsay_core::conflict::{ConflictOptions, ConventionCheck};
use gainsay_core::files::Reader;
use gainsay_core::record::PromptRecord;
use gainsay_core::rng::Key;
use gainsay_core::validate::{Validation, Validator};

use crate::error::{Error, Result};
use crate::interrupt;

/// Validates conflict on a file whose completions have logp, reward and gold.
///
/// # Errors
/// Bad records, a file without one of the three, mixed conventions, no pair with different gold.
pub fn validate(input: &Path, options: &ConflictOptions, seed: u64) -> Result<Validation> {
    let mut validator = Validator::new(*options);
    let mut conventions = ConventionCheck::scores();
    let mut reader = Reader::<PromptRecord>::open(input)?.unique_ids();
    while let Some(record) = reader.next() {
        interrupt::check()?;
        let record = record?;
        let at = |what: String| Error::Input(format!("{}{}: {what}", reader.path().display(), reader.at()));
        conventions.see(&record).map_err(|e| at(e.to_string()))?;
        validator.see(&record);
    }
    validator.finish(Key::new(seed, "validate")).map_err(|e| Error::Input(format!("{}: {e}", input.display())))
}
