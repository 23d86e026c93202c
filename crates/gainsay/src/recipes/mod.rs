//! One file a stage; each reads top to bottom as what it does.

pub mod annotate;
pub mod annotate_files;
pub mod annotate_live;
pub mod conflicts;
pub mod data_inspect;
pub mod doctor;
pub mod evaluate;
pub mod export;
pub mod feedback;
pub mod judge;
pub mod lora;
pub mod rewardbench;
pub mod sample;
pub mod score;
pub mod select;
pub mod serve;
pub mod text;
pub mod train_offline;
pub mod train_policy;
pub mod train_reward;
pub mod training;
mod units;
pub mod validate;
