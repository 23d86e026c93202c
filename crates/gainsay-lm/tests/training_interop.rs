//! What Gainsay saves computes the same in transformers and PEFT, within 1e-3: run by
//! scripts/check_peft.py under the Python in GAINSAY_PYTHON (scripts/goldens/requirements.txt
//! says what it needs). Without that variable the comparison cannot be made, and says so.

#[path = "training_common/families.rs"]
mod families;

use std::path::Path;
use std::process::Command;

use families::{NAMES, backbone, folder, model, provenance, random_adapter, random_head, sequences};
use gainsay_lm::load;
use gainsay_lm::merge::merged;
use gainsay_lm::model::{Model, Packed};
use gainsay_lm::reward::head_product;
use gainsay_lm::save::{AdapterParts, head_only_adapter, save_adapter, save_full};

/// What the script says about a folder.
fn ask(python: &str, dir: &Path, arguments: &[&str], ids: &str) -> Vec<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check_peft.py");
    let file = dir.join("../ids.json");
    std::fs::write(&file, ids).unwrap();
    let output = Command::new(python).arg(script).args(arguments).arg("--ids").arg(&file).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python() -> Option<String> {
    let python = std::env::var("GAINSAY_PYTHON").ok();
    if python.is_none() {
        eprintln!(
            "SKIPPED: set GAINSAY_PYTHON to a Python with transformers and peft to compare saved models with them"
        );
    }
    python
}

fn close(name: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() < 1e-3, "{name}: {a} here, {b} there");
    }
}

fn rewards(model: &Model, head: &[f32], ids: &[Vec<u32>]) -> Vec<f64> {
    let batch = Packed::new(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let hidden = model.hidden(&batch);
    batch.last_rows().iter().map(|&row| head_product(hidden.row(row), head)).collect()
}

/// Log-prob of everything behind the first token.
fn logps(model: &Model, ids: &[Vec<u32>]) -> Vec<f64> {
    ids.iter()
        .map(|ids| {
            let hidden = model.hidden(&Packed::new(&[ids]));
            let rows: Vec<usize> = (0..ids.len() - 1).collect();
            model.token_logps(&hidden, &rows, &ids[1..], 1.0).iter().map(|&l| f64::from(l)).sum()
        })
        .collect()
}

#[test]
fn saved_models_compute_the_same_in_transformers_and_peft() {
    let Some(python) = python() else { return };
    let root = tempfile::tempdir().unwrap();
    let tokenizer = load("tiny-random").unwrap().tokenizer;
    for name in NAMES {
        let plain = backbone(name);
        let family = plain.config.family;
        let (adapter, head, ids) = (random_adapter(&plain), random_head(&plain), sequences(&plain));
        let zero = head_only_adapter(&plain);
        let base = folder(name).to_string_lossy().into_owned();
        let ids_json = serde_json::to_string(&ids).unwrap();
        let rows: Vec<_> = ids.iter().map(|ids| serde_json::json!({ "ids": ids, "prompt_len": 1 })).collect();
        let rows_json = serde_json::to_string(&rows).unwrap();
        let path = |what: &str| root.path().join(format!("{name}-{what}"));

        let zero = (name == "llama").then_some(("head-only", &zero));
        for (what, adapter) in [("reward", &adapter)].into_iter().chain(zero) {
            let dir = path(what);
            let parts = AdapterParts { adapter, head: Some(&head), family, base: &base };
            save_adapter(&dir, &parts, &provenance()).unwrap();
            let theirs = ask(&python, &dir, &["--adapter", dir.to_str().unwrap()], &ids_json);
            let ours = rewards(&model(plain.clone(), Some(adapter.clone())), &head, &ids);
            close(&format!("{name} {what}"), &ours, &theirs);
        }

        let tuned = model(plain.clone(), Some(adapter.clone()));
        let folded = merged(plain.clone().into(), &adapter);
        let dir = path("full-policy");
        save_full(&dir, &folded, None, &tokenizer, &provenance()).unwrap();
        let theirs = ask(&python, &dir, &["--policy", "--full", dir.to_str().unwrap()], &rows_json);
        close(&format!("{name} full policy"), &logps(&tuned, &ids), &theirs);

        // Each call of Python takes seconds: the rest on two families.
        if matches!(name, "qwen2" | "qwen3") {
            continue;
        }
        let dir = path("policy");
        let parts = AdapterParts { adapter: &adapter, head: None, family, base: &base };
        save_adapter(&dir, &parts, &provenance()).unwrap();
        let theirs = ask(&python, &dir, &["--policy", "--adapter", dir.to_str().unwrap()], &rows_json);
        close(&format!("{name} policy"), &logps(&tuned, &ids), &theirs);

        let dir = path("full-reward");
        save_full(&dir, &folded, Some(&head), &tokenizer, &provenance()).unwrap();
        let theirs = ask(&python, &dir, &["--full", dir.to_str().unwrap()], &ids_json);
        close(&format!("{name} full reward"), &rewards(&tuned, &head, &ids), &theirs);
    }
}
