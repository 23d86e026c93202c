//! Language models on the CPU: loading, tokenizing, sampling, log-probs, reward models and
//! training.

pub mod config;
pub mod model;
pub mod loss;
pub mod optim;
pub mod train;
