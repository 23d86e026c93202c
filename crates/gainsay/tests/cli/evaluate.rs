//! `gainsay evaluate`: against what, and what it says then; what learning from a file refuses.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{command, gainsay, ok, stderr, stdout};

/// Prompts, pairs in two files, and a policy tuned on both by their pattern.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, rows: String| fs::write(dir.path().join(name), rows).expect("a file");
    write("prompts.jsonl", (0..6).map(|i| format!("{{\"id\":\"p{i}\",\"prompt\":\"question {i}\"}}\n")).collect());
    for part in ["pairs-1.jsonl", "pairs-2.jsonl"] {
        let row = |i| format!("{{\"prompt\":\"{part} {i}\",\"chosen\":\"yes {i} please\",\"rejected\":\"no {i}\"}}\n");
        write(part, (0..8).map(row).collect());
    }
    write("sft-1.jsonl", "{\"prompt\":\"q\",\"completions\":[{\"text\":\"hello there\"}]}\n".into());
    write("everyday.jsonl", "{\"prompt\":\"good day\",\"completions\":[{\"text\":\"hello\"}]}\n".into());
    ok(run(dir.path(), "train policy --method dpo --in pairs-*.jsonl --policy tiny-random --lr 0.01 --out tuned"));
    dir
}

fn run(dir: &Path, args: &str) -> std::process::Output {
    gainsay(dir, &args.split_whitespace().collect::<Vec<_>>())
}

fn evaluate(dir: &Path, args: &str) -> std::process::Output {
    run(dir, &format!("evaluate --prompts prompts.jsonl --gold length:3 -n 2 --kl-n 1 --max-new-tokens 8 {args}"))
}

fn json(output: std::process::Output) -> Value {
    serde_json::from_str(&stdout(&ok(output))).expect("one JSON object")
}

#[test]
fn a_tuned_adapter_is_measured_against_its_own_base() {
    let dir = prepared();
    let alone = json(evaluate(dir.path(), "--policy tuned --everyday everyday.jsonl --json"));
    let kl = |found: &Value| found["metrics"]["kl"]["estimate"].as_f64();
    assert!(kl(&alone).expect("a KL") > 0.0, "{alone}");
    assert_ne!(alone["everyday"]["change"]["estimate"], 0.0);
    // Nothing was sampled to win against.
    assert!(alone["metrics"]["win_rate"].is_null() && alone["differences"].is_null());
    let named = json(evaluate(dir.path(), "--policy tuned --against tiny-random --everyday everyday.jsonl --json"));
    assert_eq!(kl(&alone), kl(&named));
    assert_eq!(alone["everyday"], named["everyday"]);
}

#[test]
fn without_a_known_base_nothing_is_said_about_it() {
    let dir = prepared();
    let output = ok(evaluate(dir.path(), "--policy tiny-random --reward length:2"));
    let text = stdout(&output);
    assert!(!text.contains("\nKL ") && !text.contains("base policy") && text.contains("gold reward"), "{text}");
    assert!(text.contains("Kendall distance, own"), "{text}");
    assert!(stderr(&output).contains("name it with --against"), "{}", stderr(&output));
    let output = evaluate(dir.path(), "--policy tiny-random --everyday everyday.jsonl");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--against"), "{}", stderr(&output));
}

#[test]
fn paired_differences_are_told_and_written() {
    let dir = prepared();
    let text = stdout(&ok(evaluate(dir.path(), "--policy tuned --against tiny-random --out e.json")));
    assert!(text.contains("policy less base, paired by prompt"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("length  ") && l.contains('[')), "{text}");
    let written: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("e.json")).expect("a file")).expect("JSON");
    let found = written["differences"].as_array().expect("differences");
    let of = |metric: &str| found.iter().find(|d| d["metric"] == metric);
    let gold = of("gold_reward").expect("gold's difference");
    assert_eq!((gold["a"].as_str(), gold["b"].as_str()), (Some("policy"), Some("base")));
    assert!(of("kl").is_none() && of("win_rate").is_none(), "{written}");
    // The same policy twice: nothing differs, and nothing is claimed.
    let same = json(evaluate(dir.path(), "--policy tiny-random --against tiny-random --json"));
    let all = same["differences"].as_array().expect("differences");
    assert!(all.iter().all(|d| d["verdict"] == "not-distinguishable"), "{same}");
}

#[test]
fn an_evaluation_that_is_killed_goes_on() {
    let dir = prepared();
    let figures = |out: &str| fs::read_to_string(dir.path().join(out)).expect("the figures");
    let with = |out: &str| format!("--policy tuned --against tiny-random --out {out}");
    ok(evaluate(dir.path(), &with("whole.json")));
    assert!(!dir.path().join("whole.json.evaluation").exists(), "its completions stay behind");

    // What another evaluation had left is not taken for this one's.
    let left = dir.path().join("other.json.evaluation");
    fs::create_dir_all(left.join("policy")).expect("a folder");
    fs::write(left.join("identity.txt"), "another").expect("a file");
    fs::write(left.join("policy/rollouts.jsonl"), "nonsense").expect("a file");
    ok(evaluate(dir.path(), &with("other.json")));
    assert_eq!(figures("whole.json"), figures("other.json"));

    let fixed = "evaluate --prompts prompts.jsonl --gold length:3 -n 2 --kl-n 1 --max-new-tokens 8";
    let typed = format!("{fixed} {}", with("killed.json"));
    let args: Vec<&str> = typed.split(' ').collect();
    for wait in [10, 25, 45, 70] {
        let mut child = command(dir.path(), &args).stderr(std::process::Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    ok(gainsay(dir.path(), &args));
    assert_eq!(figures("whole.json"), figures("killed.json"));
}

#[test]
fn options_of_other_methods_are_refused() {
    let dir = prepared();
    let train = "train policy --policy tiny-random --reward length:3 --prompts prompts.jsonl --out no --steps 1";
    for (given, flag) in [
        ("--method rloo --clip-ratio 0.1", "--clip-ratio"),
        ("--method ppo --loss ipo", "--loss"),
        ("--method dpo --rso-beta 1", "--rso-beta"),
        ("--method grpo --whiten", "--whiten"),
        ("--method bon --beta 0.1", "--beta"),
        ("--method rso --gamma 0.9", "--gamma"),
        ("--method rloo --epochs 2", "epochs"),
        ("--method rloo --heldout-share 0.2", "--heldout-share"),
        ("--method rloo --max-tokens 64", "--max-tokens"),
        ("--method rloo --stop-kl 0", "stop-kl"),
        ("--method rloo --threads 5000", "1024"),
    ] {
        let output = run(dir.path(), &format!("{train} {given}"));
        assert_eq!(output.status.code(), Some(2), "{given}: {}", stderr(&output));
        assert!(stderr(&output).contains(flag), "{given}: {}", stderr(&output));
    }
    assert!(!dir.path().join("no").exists());
    // A policy with an adapter may be its own reference.
    let output = ok(run(
        dir.path(),
        &format!("{} --policy tuned --reference start", train.replace("--policy tiny-random ", "")),
    ));
    assert!(!stderr(&output).contains("--reference"), "{}", stderr(&output));
    let provenance = fs::read_to_string(dir.path().join("no/gainsay.json")).expect("provenance");
    assert!(provenance.contains("\"reference\": \"start\""), "{provenance}");
}

#[test]
fn patterns_name_every_file_of_a_training() {
    let dir = prepared();
    let provenance = fs::read_to_string(dir.path().join("tuned/gainsay.json")).expect("provenance");
    assert!(provenance.contains("pairs-1.jsonl@sha256:") && provenance.contains("pairs-2.jsonl@sha256:"));
    ok(run(dir.path(), "train sft --policy tiny-random --in sft-*.jsonl --heldout 0 --out sft"));
    let output = run(dir.path(), "train sft --policy tiny-random --in none-*.jsonl --out no");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no file matches this pattern"), "{}", stderr(&output));
}

#[test]
fn learning_from_pairs_refuses_what_it_does_not_read() {
    let dir = prepared();
    let train = "train policy --method dpo --in pairs-1.jsonl --policy tiny-random --out no";
    let flags = [
        "--heldout prompts.jsonl",
        "--stop-kl 3",
        "--target-kl 3",
        "--kl-horizon 5",
        "--temperature 0.5",
        "--minibatches 2",
        "--heldout prompts.jsonl --gold length:3",
        "--heldout prompts.jsonl --patience 2",
        "--steps 7",
        "--samples 8",
    ];
    for given in flags {
        let output = run(dir.path(), &format!("{train} {given}"));
        assert_eq!(output.status.code(), Some(2), "{given}: {}", stderr(&output));
        let flag = given.split(' ').rfind(|word| word.starts_with('-')).expect("a flag");
        assert!(stderr(&output).contains(flag), "{given}: {}", stderr(&output));
    }
    assert!(!dir.path().join("no").exists());
}
