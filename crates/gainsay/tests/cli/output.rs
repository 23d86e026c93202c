//! What the commands print for people, as snapshots: `INSTA_UPDATE=always cargo test` writes them
//! anew; look at the difference before you commit it.

use std::fs;

use tempfile::TempDir;

use crate::common::{gainsay, stderr};

/// Twelve prompts with four completions each; values from a small congruential sequence.
fn scored() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut state = 12345u64;
    let mut next = |scale: f64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f64 / (1u64 << 24) as f64 * scale * 1000.0).round() / 1000.0
    };
    let mut text = String::new();
    for p in 0..12 {
        let completions: Vec<String> = (0..4)
            .map(|c| {
                let (logp, reward, gold) = (-next(40.0) - 1.0, next(4.0) - 2.0, next(1.0));
                format!(
                    "{{\"text\":\"answer {c} of {p}\",\"logp\":{logp:.3},\"n_tokens\":{},\"reward\":{reward:.3},\
                     \"gold\":{gold:.3}}}",
                    5 + c
                )
            })
            .collect();
        let completions = completions.join(",");
        text +=
            &format!("{{\"schema\":1,\"id\":\"p{p}\",\"prompt\":\"question {p}\",\"completions\":[{completions}]}}\n");
    }
    fs::write(dir.path().join("scored.jsonl"), text).expect("the input is written");
    dir
}

fn shown(dir: &TempDir, args: &[&str]) -> String {
    let output = gainsay(dir.path(), args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn conflicts_select_and_validate() {
    let dir = scored();
    insta::assert_snapshot!(
        "conflicts",
        shown(&dir, &["conflicts", "--in", "scored.jsonl", "--out", "conflicts.jsonl", "--top", "2"])
    );
    insta::assert_snapshot!(
        "conflicts_paper",
        shown(&dir, &["conflicts", "--in", "scored.jsonl", "--compat", "paper", "--top", "0"])
    );
    insta::assert_snapshot!("validate", shown(&dir, &["validate", "--in", "conflicts.jsonl"]));
    for strategy in ["shf-cas", "random", "margin", "rso"] {
        let select =
            ["select", "--strategy", strategy, "--budget", "6", "--in", "conflicts.jsonl", "--out", "selection.jsonl"];
        insta::assert_snapshot!(format!("select_{strategy}"), shown(&dir, &select));
    }
}

#[test]
fn the_paper_selects_prompts_by_mean_pacs() {
    let dir = scored();
    shown(&dir, &["conflicts", "--in", "scored.jsonl", "--out", "conflicts.jsonl"]);
    let selected = |compat: &[&str], delta: &str| {
        let mut args = vec!["select", "--strategy", "shf-cas", "--budget", "500", "--pairs", "all", "--tau-k", "0"];
        args.extend(["--delta", delta, "--in", "conflicts.jsonl", "--out", "selection.jsonl"]);
        args.extend(compat);
        shown(&dir, &args);
        let text = fs::read_to_string(dir.path().join("selection.jsonl")).expect("a selection");
        let mut prompts: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a record"))
            .filter(|record| record["flags"].as_array().is_none_or(Vec::is_empty))
            .map(|record| record["prompt_id"].as_str().expect("an id").to_owned())
            .collect();
        prompts.sort();
        prompts.dedup();
        prompts
    };
    let text = fs::read_to_string(dir.path().join("conflicts.jsonl")).expect("conflicts");
    let mut expected: Vec<String> = Vec::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        let pacs: Vec<f64> = record["completions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| c["pacs"].as_f64().expect("pacs"))
            .collect();
        if pacs.iter().map(|p| p.abs()).sum::<f64>() / pacs.len() as f64 > 1.0 {
            expected.push(record["id"].as_str().expect("an id").to_owned());
        }
    }
    expected.sort();
    assert!(!expected.is_empty() && expected.len() < 12, "{expected:?}");
    assert_eq!(selected(&["--compat", "paper"], "1.0"), expected);
    assert_ne!(selected(&[], "1.0"), expected);
}

#[test]
fn help() {
    let dir = scored();
    insta::assert_snapshot!("help", shown(&dir, &["--help"]));
    insta::assert_snapshot!("help_select", shown(&dir, &["select", "--help"]));
}
