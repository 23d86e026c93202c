//! How good is a policy, and how does it differ from another one?

pub mod measure;
pub mod types;

pub use types::{Difference, Evaluation, Metrics, PromptMetrics, Verdict};
