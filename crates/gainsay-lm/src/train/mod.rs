//! Training: reward models from preferences, policies from rewards.

pub mod head_fit;
