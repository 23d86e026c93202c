//! The binary as a user meets it.

mod bad_input;
mod common;
mod whole_loop;
