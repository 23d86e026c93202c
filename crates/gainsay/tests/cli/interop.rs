//! The hand-over to TRL, with TRL itself: run by scripts/check_trl.py under the Python in
//! GAINSAY_PYTHON (scripts/goldens/requirements.txt says what it needs). Without that variable, or
//! without trl there, the check cannot be made, and says so.

use std::path::Path;
use std::process::Command;

use crate::common::{gainsay, ok};
use crate::ecosystem::{finished_run, reward_model};

fn python() -> Option<String> {
    let python = std::env::var("GAINSAY_PYTHON").ok();
    let found = python.filter(|python| {
        let import = Command::new(python).args(["-c", "import trl, transformers, datasets"]).output();
        import.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: set GAINSAY_PYTHON to a Python with trl to train what `gainsay export trl` writes");
    }
    found
}

#[test]
fn what_is_exported_trains_in_trl_and_comes_back() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    reward_model(&dir);
    finished_run(dir.path());
    ok(gainsay(dir.path(), &["export", "trl", "--run", "run", "--out", "trl"]));
    ok(gainsay(dir.path(), &["export", "trl", "--run", "run", "--out", "peft", "--adapter"]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check_trl.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--gainsay", env!("CARGO_BIN_EXE_gainsay"), "--export", "trl", "--adapter", "peft", "--work", "work"])
        .current_dir(dir.path())
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(found["exported"].as_f64().is_some_and(|worst| worst < 1e-3), "{found}");
    assert!(found["adapter"].as_f64().is_some_and(|worst| worst < 1e-3), "{found}");
    assert!(found["trained"].as_f64().is_some_and(|worst| worst < 1e-3), "{found}");
}
