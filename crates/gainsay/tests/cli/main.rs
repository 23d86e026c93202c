//! The binary as a user meets it.

mod annotate;
mod bad_input;
mod common;
mod device;
mod ecosystem;
mod evaluate;
mod experiment;
mod interop;
mod judge;
mod output;
mod training;
mod web_feedback;
mod whole_loop;
