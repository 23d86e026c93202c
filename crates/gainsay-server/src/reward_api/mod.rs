//! One reward model behind many protocols: what OpenRLHF, verl, TRL scripts and evaluation tools
//! expect of a reward server, and `/v1/reward`, which also knows ensembles and PACS.
//!
//! Clients send single samples; [`queue`] puts what waits into one batch. A reward's bits do not
//! depend on the batch it rode in, as far as the reward function keeps that promise.

mod access;
mod answers;
mod item;
mod metrics;
mod queue;
mod routes;
mod serve;
mod state;

pub use item::Item;
pub use routes::app;
pub use serve::serve;
pub use state::{Count, Engine, Limits, LoadError, Loader, Member, Reload, RewardState, SharedPolicy, SharedReward};
