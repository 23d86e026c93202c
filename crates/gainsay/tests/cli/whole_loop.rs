//! Every stage for real, on a random model of a few thousand weights; killed and resumed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{command, gainsay, ok, stderr, stdout};

/// A folder with the recipe and a gold reward model for it.
pub fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("tiny.toml"), include_str!("tiny.toml")).expect("the recipe");
    let pairs: String = (0..12)
        .map(|i| {
            let (good, bad) = (format!("yes {i} please"), format!("no {i}"));
            format!("{{\"prompt\":\"question {i}\",\"chosen\":\"{good}\",\"rejected\":\"{bad}\"}}\n")
        })
        .collect();
    fs::write(dir.path().join("gold.jsonl"), pairs).expect("the gold pairs");
    let args = ["train", "reward", "--model", "tiny-random", "--method", "head", "--in", "gold.jsonl", "--out", "gold"];
    ok(gainsay(dir.path(), &args));
    dir
}

/// Every file below a folder by its relative path, without the two that hold wall-clock values.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below the root").to_path_buf();
            if name != Path::new("timings.jsonl") && name != Path::new("report.html") {
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn run(dir: &Path, out: &str) -> std::process::Output {
    gainsay(dir, &["run", "tiny.toml", "--out", out, "--threads", "2"])
}

/// The same files with the same bytes.
pub fn assert_same(a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in a {
        assert!(bytes == &b[name], "{} differs", name.display());
    }
}

#[test]
fn two_rounds_run_through_and_a_killed_run_ends_in_the_same_bytes() {
    let dir = prepared();
    // With an ensemble whose spread lowers rewards, and looks at the held-out prompts.
    let recipe = include_str!("tiny.toml")
        .replace("[reward]", "[reward]\nheads = 4")
        .replace("[tune]", "[tune]\nuncertainty = 0.5\nstop_kl = 50.0\nlook_every = 2");
    fs::write(dir.path().join("tiny.toml"), recipe).expect("the recipe");
    let output = ok(run(dir.path(), "whole"));
    assert!(stdout(&output).trim_end().ends_with("report.html"));
    let whole = files(&dir.path().join("whole"));
    for name in [
        "manifest.json",
        "comparison.json",
        "round-2/shf-cas/evaluation.json",
        "round-2/random-spread/policy/adapter_model.safetensors",
        "round-1/shf-cas/policy/metrics.jsonl",
    ] {
        assert!(whole.contains_key(Path::new(name)), "{name} is missing: {:?}", whole.keys());
    }
    let looks = String::from_utf8_lossy(&whole[Path::new("round-1/shf-cas/policy/metrics.jsonl")]);
    // Before the first of three steps, after the second, and at the end.
    let steps: Vec<_> = looks.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON")).collect();
    assert_eq!(steps.iter().map(|l| l["step"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(2), Some(3)]);
    assert!(steps.iter().all(|l| l["event"] == "heldout" && l["gold"].is_number()), "{looks}");
    let leftover =
        whole.keys().find(|name| name.to_string_lossy().contains("journal") || name.to_string_lossy().contains("tmp"));
    assert_eq!(leftover, None, "scratch files stay behind");

    // A second run in the same folder computes nothing again.
    ok(run(dir.path(), "whole"));
    assert_same(&whole, &files(&dir.path().join("whole")));

    // Killed at five moments spread over the run, then resumed.
    for wait in [30, 150, 310, 520, 790] {
        let args = ["run", "tiny.toml", "--out", "killed", "--threads", "2"];
        let mut child = command(dir.path(), &args).stderr(std::process::Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    ok(run(dir.path(), "killed"));
    assert_same(&whole, &files(&dir.path().join("killed")));
}

#[test]
fn a_reward_model_goes_on_from_the_round_before_and_old_pairs_weigh_less() {
    let dir = prepared();
    let recipe = include_str!("tiny.toml").replace("[reward]", "[reward]\nstart = \"current\"\nold_weight = 0.25");
    fs::write(dir.path().join("tiny.toml"), recipe).expect("the recipe");
    ok(run(dir.path(), "on"));
    let described = |folder: &str| -> serde_json::Value {
        let text = fs::read_to_string(dir.path().join("on").join(folder).join("gainsay.json")).expect("a description");
        serde_json::from_str(&text).expect("JSON")
    };
    let (first, second) = (described("round-1/shf-cas/reward"), described("round-2/shf-cas/reward"));
    assert_eq!(first["options"]["old_weight"], 0.25);
    assert_eq!(first["data"].as_array().map(Vec::len), Some(2), "the proxy's pairs, the answers: {first}");
    assert_eq!(second["data"].as_array().map(Vec::len), Some(3), "and the answers of both rounds: {second}");
    assert_ne!(first["base"], second["base"]);
    assert_ne!(first["base"], described("proxy/model")["base"], "it starts from the proxy, not from the base");

    let alone = include_str!("tiny.toml").replace("[reward]", "[reward]\nold_weight = 0.0");
    fs::write(dir.path().join("tiny.toml"), alone).expect("the recipe");
    ok(run(dir.path(), "alone"));
    let text = fs::read_to_string(dir.path().join("alone/round-2/shf-cas/reward/gainsay.json")).expect("a description");
    let second: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(second["data"].as_array().map(Vec::len), Some(1), "{second}");
}

#[test]
fn what_a_recipe_names_is_looked_for_before_anything_is_written() {
    let dir = prepared();
    let recipe = include_str!("tiny.toml");
    for (from, to, said) in [
        ("policy = \"tiny-random\"", "policy = \"none/there\"", "none/there"),
        ("gold = \"gold\"", "gold = \"length:x\"", "length:x"),
        ("pairs = 20", "pairs = 20\ntopics = [\"nowhere\"]", "nowhere"),
        ("pairs = 20", "pairs = 20000", "20000"),
        ("pairs = 20", "model = \"no-proxy\"", "no-proxy"),
        ("kl_n = 1", "kl_n = 1\neveryday = \"none.jsonl\"", "none.jsonl"),
    ] {
        let changed = recipe.replace(from, to);
        assert_ne!(changed, recipe);
        fs::write(dir.path().join("tiny.toml"), changed).expect("the recipe");
        for more in [&["--dry-run"][..], &[]] {
            let args = [&["run", "tiny.toml", "--out", "run"][..], more].concat();
            let output = gainsay(dir.path(), &args);
            assert_eq!(output.status.code(), Some(2), "{to}: {}", stderr(&output));
            assert!(stderr(&output).contains(said), "{to}: {}", stderr(&output));
        }
        assert!(!dir.path().join("run").exists(), "{to}: a folder that the mended recipe would not run into");
    }
}

#[test]
fn another_recipe_does_not_run_into_the_same_folder() {
    let dir = prepared();
    let recipe = fs::read_to_string(dir.path().join("tiny.toml")).expect("the recipe");
    fs::create_dir(dir.path().join("run")).expect("a folder");
    fs::write(dir.path().join("run/notes.txt"), "mine").expect("a file");
    let output = run(dir.path(), "run");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    fs::remove_file(dir.path().join("run/notes.txt")).expect("removed");
    let another = recipe.replace("seed = 5", "seed = 6");
    assert_ne!(another, recipe);
    fs::write(dir.path().join("run/recipe.toml"), another).expect("another recipe's resolved file");
    let output = run(dir.path(), "run");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("another recipe"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_prints_the_cost_and_writes_nothing() {
    let dir = prepared();
    let output = ok(gainsay(dir.path(), &["run", "tiny.toml", "--out", "run", "--dry-run"]));
    assert!(stdout(&output).contains("labels          24"), "{}", stdout(&output));
    assert!(!dir.path().join("run").exists());
}

#[test]
fn the_stages_chain_by_hand_and_agree_with_each_other() {
    let dir = prepared();
    let prompts = "{\"id\":\"a\",\"prompt\":\"hello\",\"meta\":{\"topic\":\"x\"},\"mine\":7}\n{\"id\":\"b\",\"prompt\":\"there\"}\n";
    fs::write(dir.path().join("prompts.jsonl"), prompts).expect("the prompts");
    let sample = [
        "sample",
        "--policy",
        "tiny-random",
        "--prompts",
        "prompts.jsonl",
        "--out",
        "r.jsonl.zst",
        "-n",
        "6",
        "--temperature",
        "1",
        "--max-new-tokens",
        "10",
        "--json",
    ];
    let figures: serde_json::Value =
        serde_json::from_slice(&ok(gainsay(dir.path(), &sample)).stdout).expect("one JSON object");
    for field in ["tokens", "seconds", "tokens_per_second", "peak_rss_bytes"] {
        assert!(figures[field].as_f64().expect("a number") > 0.0, "{field}: {figures}");
    }
    ok(gainsay(
        dir.path(),
        &[
            "score",
            "--policy",
            "tiny-random",
            "--reward",
            "gold",
            "--gold",
            "gold",
            "--in",
            "r.jsonl.zst",
            "--out",
            "s.jsonl",
        ],
    ));
    let text = fs::read_to_string(dir.path().join("s.jsonl")).expect("scored");
    let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("a record");
    assert_eq!(first["mine"], 7, "unknown fields are kept");
    for completion in first["completions"].as_array().expect("completions") {
        let own: f64 = completion["token_logps"]
            .as_array()
            .expect("token log-probs")
            .iter()
            .filter_map(serde_json::Value::as_f64)
            .sum();
        let scored = completion["logp"].as_f64().expect("a log-prob");
        assert!((own - scored).abs() < 1e-3, "sampled {own}, scored {scored}");
        assert_eq!(completion["reward"], completion["gold"], "one model, one reward");
    }
    ok(gainsay(dir.path(), &["conflicts", "--in", "s.jsonl", "--out", "c.parquet", "--json"]));
    ok(gainsay(
        dir.path(),
        &["select", "--strategy", "shf-cas", "--budget", "5", "--in", "c.parquet", "--out", "sel.jsonl"],
    ));
    let selection = fs::read_to_string(dir.path().join("sel.jsonl")).expect("a selection");
    assert_eq!(selection.lines().count(), 5);
    ok(gainsay(
        dir.path(),
        &["feedback", "--oracle", "gold:gold", "--noise", "flip:0.1", "--in", "sel.jsonl", "--out", "pref.jsonl"],
    ));
    ok(gainsay(dir.path(), &["feedback", "--oracle", "labels", "--in", "sel.jsonl", "--out", "pref2.jsonl"]));
    ok(gainsay(
        dir.path(),
        &[
            "train",
            "reward",
            "--model",
            "tiny-random",
            "--in",
            "pref.jsonl",
            "pref2.jsonl",
            "--out",
            "rm",
            "--heldout",
            "0",
        ],
    ));
    ok(gainsay(
        dir.path(),
        &[
            "train",
            "policy",
            "--method",
            "rloo",
            "--policy",
            "tiny-random",
            "--reward",
            "rm",
            "--prompts",
            "prompts.jsonl",
            "--out",
            "pol",
            "--steps",
            "2",
            "--max-new-tokens",
            "8",
        ],
    ));
    let evaluate = [
        "evaluate",
        "--policy",
        "pol",
        "--prompts",
        "prompts.jsonl",
        "--gold",
        "gold",
        "--reward",
        "rm",
        "--against",
        "tiny-random",
        "--max-new-tokens",
        "8",
        "--json",
    ];
    let evaluation: serde_json::Value =
        serde_json::from_slice(&ok(gainsay(dir.path(), &evaluate)).stdout).expect("one JSON object");
    assert!(evaluation["metrics"]["kl"]["estimate"].as_f64().expect("a KL") >= 0.0);
}
