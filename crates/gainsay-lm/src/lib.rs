//! Language models on the CPU, and on GPUs with the feature `cuda`: loading, tokenizing, sampling,
//! log-probs, reward models and training.

pub mod config;
pub mod error;
pub mod features;
pub mod loss;
pub mod merge;
pub mod model;
pub mod names;
pub mod optim;
pub mod policy;
pub mod reward;
pub mod save;
pub mod sequence;
pub mod source;
pub mod tiny;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use error::LmError;
pub use source::{Loaded, load};
pub use tokenizer::Tokenizer;
