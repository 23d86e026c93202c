//! Gainsay finds where a reward model and a policy contradict each other, asks people exactly
//! there, and repairs both: selective human feedback via conflict-aware sampling (SHF-CAS,
//! arXiv 2512.09212).
//!
//! - [`recipes`]: one file a stage; each reads files, writes files.
//! - [`run`]: the whole loop in one directory.
//! - [`experiment`]: variants of a recipe over seeds.
//! - [`evaluation`]: how good a policy is, with intervals.
//! - [`report`]: one HTML page for people.

pub mod cli;
pub mod commands;
pub mod error;
pub mod evaluation;
pub mod experiment;
pub mod inputs;
pub mod interrupt;
pub mod models;
pub mod progress;
pub mod recipes;
pub mod remote;
pub mod report;
pub mod run;
