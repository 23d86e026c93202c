//! Data model, record files, conflict maths and selection strategies: the part of Gainsay
//! without tensors and without async.
//!
//! - [`record`]: prompts, completions, selections and preferences as they stand in files.
//! - [`engine`]: the traits that samplers, scorers, reward functions and oracles implement.
//! - [`exchange`]: answers of people, to and from other annotation tools.
//! - [`fake`]: deterministic stand-ins for models and annotators.
//! - [`files`]: record files, read and written as streams.
//! - [`import`]: other tools' files as records.
//! - [`conflict`]: where a reward model and a policy contradict each other.
//! - [`rewardbench`]: the scores of RewardBench and RewardBench 2.
//! - [`rng`]: random numbers keyed on what they are for.
//! - [`select`]: which comparisons to ask for.
//! - [`oracle`]: sources of comparisons other than people.
//! - [`stats`]: moments, intervals, bootstrap and AUROC on plain slices.
//! - [`validate`]: does conflict find the reward model's mistakes?

pub mod conflict;
pub mod engine;
pub mod exchange;
pub mod fake;
mod fields;
pub mod files;
pub mod import;
pub mod known;
mod names;
pub mod oracle;
pub mod ranking;
pub mod record;
pub mod rewardbench;
pub mod rng;
pub mod select;
pub mod stats;
pub mod validate;
