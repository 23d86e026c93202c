//! The binary as a user meets it.

mod annotate;
mod bad_input;
mod common;
mod device;
mod ecosystem;
mod interop;
mod output;
mod training;
mod whole_loop;
