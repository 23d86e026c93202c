//! Does conflict find the reward model's mistakes? What `validate` measured.

use super::load::ReportData;
use super::page::waiting;

/// The section's contents.
pub fn section(_data: &ReportData) -> String {
    waiting("No gold labels have been compared with the conflict yet.")
}
