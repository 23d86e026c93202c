//! `--device`: refused with one line and exit 2 where it cannot be had, else as on the processor.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{gainsay, names, ok, stderr};

const PROMPTS: &str =
    "{\"schema\":1,\"id\":\"a\",\"prompt\":\"say hello\"}\n{\"schema\":1,\"id\":\"b\",\"prompt\":\"and\"}\n";

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("prompts.jsonl"), PROMPTS).expect("the prompts are written");
    dir
}

fn sample<'a>(device: &'a str, out: &'a str) -> Vec<&'a str> {
    let fixed = ["sample", "--policy", "tiny-random", "--prompts", "prompts.jsonl", "-n", "2", "--max-new-tokens", "6"];
    [&fixed[..], &["--device", device, "--out", out]].concat()
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let before = names(dir);
    let output = gainsay(dir, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty() && names(dir) == before, "{said}");
    said
}

#[test]
fn a_device_that_is_none_is_refused_with_what_would_do() {
    let dir = folder();
    for wrong in ["tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda1", "CUDA", "gpu:0", ""] {
        let said = refused(dir.path(), &sample(wrong, "out.jsonl"));
        assert!(said.contains("--device") && said.contains("cuda:1"), "{wrong}: {said}");
    }
}

/// What is said of a GPU that cannot be had; `None` where it can.
fn trouble(dir: &Path, args: &[&str], gpu: &str) -> Option<String> {
    if cfg!(feature = "cuda") && gainsay(dir, args).status.success() {
        return None;
    }
    let said = refused(dir, args);
    assert_eq!(said.lines().count(), 1, "{said}");
    let why = if cfg!(feature = "cuda") { "nvidia-smi" } else { "--features cuda" };
    assert!(said.contains(&format!("--device {gpu}: ")) && said.contains(why), "{said}");
    Some(said)
}

#[test]
fn a_gpu_that_is_not_there_is_refused_by_its_number() {
    let dir = folder();
    // The thousandth is nowhere; the first may be here, and the second too.
    for (device, gpu) in [("cuda:999", "cuda:999"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")] {
        let args = sample(device, "out.jsonl");
        assert!(trouble(dir.path(), &args, gpu).is_some() || gpu != "cuda:999");
        let _ = fs::remove_file(dir.path().join("out.jsonl"));
    }
}

#[test]
fn every_command_that_runs_a_model_asks_for_the_device() {
    let dir = folder();
    fs::write(dir.path().join("recipe.toml"), "policy = \"tiny-random\"\n").expect("the recipe is written");
    fs::write(dir.path().join("plan.toml"), "seeds = [0]\n").expect("the plan is written");
    let commands: [&[&str]; 10] = [
        &["score", "--policy", "tiny-random", "--in", "prompts.jsonl", "--out", "out.jsonl"],
        &["feedback", "--oracle", "gold:x", "--in", "prompts.jsonl", "--out", "out.jsonl"],
        &["evaluate", "--policy", "tiny-random", "--prompts", "prompts.jsonl", "--gold", "x"],
        &["train", "reward", "--model", "tiny-random", "--in", "prompts.jsonl", "--out", "out"],
        &["train", "policy", "--method", "dpo", "--policy", "tiny-random", "--in", "prompts.jsonl", "--out", "out"],
        &["train", "sft", "--policy", "tiny-random", "--in", "prompts.jsonl", "--out", "out"],
        &["serve", "--reward", "x", "--port", "0"],
        &["run", "recipe.toml", "--out", "run"],
        &["experiment", "plan.toml", "--out", "run"],
        &["demo", "--quick", "--out", "run"],
    ];
    for command in commands {
        let said = refused(dir.path(), &[command, &["--device", "cuda:999"]].concat());
        assert!(said.contains("--device cuda:999: "), "{command:?}: {said}");
    }
}

#[test]
fn a_gpu_draws_what_the_processor_draws() {
    let dir = folder();
    if let Some(why) = trouble(dir.path(), &sample("cuda", "gpu.jsonl"), "cuda:0") {
        // Past the test harness, which keeps what passing tests print.
        writeln!(std::io::stderr(), "SKIPPED on a GPU: {}", why.trim()).expect("stderr is there");
        return;
    }
    ok(gainsay(dir.path(), &sample("cpu", "cpu.jsonl")));
    let read = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(dir.path().join(name)).expect("the rollouts are there");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    for (gpu, cpu) in read("gpu.jsonl").iter().zip(read("cpu.jsonl")) {
        for i in 0..2 {
            assert_eq!(gpu["completions"][i]["token_ids"], cpu["completions"][i]["token_ids"]);
        }
        let model = |record: &Value| record["meta"]["logp_policy"].as_str().unwrap_or_default().to_owned();
        assert_eq!(model(gpu), format!("{} cuda", model(&cpu)));
    }
}
