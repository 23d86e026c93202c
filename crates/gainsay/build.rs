//! Notes the commit that this build is of, for a run's manifest; a build without a repository has none.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/refs/heads");
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit =
        commit.filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    if let Some(commit) = commit.map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()) {
        println!("cargo::rustc-env=GAINSAY_GIT={commit}");
    }
}
