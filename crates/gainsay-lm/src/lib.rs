//! Language models on the CPU: loading, tokenizing, sampling, log-probs, reward models and
//! training.

pub mod config;
pub mod model;
pub mod weights;
pub mod tokenizer;
pub mod tiny;
pub mod source;
pub mod names;
pub mod error;
pub mod loss;
pub mod merge;
pub mod optim;
pub mod policy;
pub mod reward;
pub mod save;
pub mod sequence;
pub mod train;

pub use error::LmError;
pub use source::{Loaded, load};
pub use tokenizer::Tokenizer;
