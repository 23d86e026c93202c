//! Running the binary.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `gainsay ARGS` in `dir`.
pub fn gainsay(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the binary runs")
}

/// The command, not started.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gainsay"));
    // The width of help texts.
    command.env_remove("COLUMNS");
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// The output's stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The output's stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts success.
pub fn ok(output: Output) -> Output {
    assert!(output.status.success(), "exit {:?}\n{}", output.status.code(), stderr(&output));
    output
}

/// Names of the files in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
