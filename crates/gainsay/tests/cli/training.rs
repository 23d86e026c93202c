//! Training from the command line: every method, killed and resumed, refused with a reason.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{command, gainsay, ok, stderr, stdout};

fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prompts: String = (0..6).map(|i| format!("{{\"id\":\"p{i}\",\"prompt\":\"question {i}\"}}\n")).collect();
    fs::write(dir.path().join("prompts.jsonl"), prompts).expect("the prompts");
    let pairs: String = (0..12)
        .map(|i| format!("{{\"prompt\":\"question {i}\",\"chosen\":\"yes {i} please\",\"rejected\":\"no {i}\"}}\n"))
        .collect();
    fs::write(dir.path().join("pairs.jsonl"), pairs).expect("the pairs");
    dir
}

fn policy(method: &str, out: &str) -> Vec<String> {
    let args = format!(
        "train policy --method {method} --policy tiny-random --reward length:3 --prompts prompts.jsonl --out {out} \
         --steps 6 --batch 2 --max-new-tokens 12 --save-every 2 --threads 1 --json"
    );
    args.split(' ').map(str::to_owned).collect()
}

fn run(dir: &Path, args: &[String]) -> std::process::Output {
    gainsay(dir, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn every_policy_method_runs_and_names_itself() {
    let dir = prepared();
    for method in ["rloo", "ppo", "grpo", "dpo", "rso", "bon"] {
        let output = ok(run(dir.path(), &policy(method, method)));
        let done: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        assert_eq!((done["method"].as_str(), done["steps"].as_u64()), (Some(method), Some(6)));
        let provenance = fs::read_to_string(dir.path().join(method).join("gainsay.json")).expect("provenance");
        assert!(provenance.contains("length:3"), "{provenance}");
        let metrics = fs::read_to_string(dir.path().join(format!("{method}.training/metrics.jsonl"))).expect("metrics");
        assert_eq!(metrics.lines().count(), 6, "{metrics}");
    }
}

#[test]
fn a_killed_training_ends_in_the_same_bytes() {
    let dir = prepared();
    ok(run(dir.path(), &policy("ppo", "whole")));
    let args = policy("ppo", "killed");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for wait in [15, 25, 40, 60] {
        let mut child =
            command(dir.path(), &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    ok(gainsay(dir.path(), &args));
    for file in ["adapter_model.safetensors", "../killed.training/metrics.jsonl"] {
        let at = |name: &str| fs::read(dir.path().join(name).join(file.replace("killed", name))).expect("a file");
        assert!(at("whole") == at("killed"), "{file} differs");
    }
}

#[test]
fn fine_tuning_and_preferences_need_no_reward() {
    let dir = prepared();
    let records = "{\"id\":\"a\",\"prompt\":\"hi\",\"completions\":[{\"text\":\"hello there\"},{\"text\":\"hey\"}]}\n";
    fs::write(dir.path().join("answers.jsonl"), records).expect("the answers");
    let sft = ["train", "sft", "--policy", "tiny-random", "--in", "answers.jsonl", "--out", "sft", "--heldout", "0"];
    ok(gainsay(dir.path(), &sft));
    assert!(dir.path().join("sft/adapter_model.safetensors").is_file());
    let dpo = ["train", "policy", "--method", "dpo", "--policy", "tiny-random", "--in", "pairs.jsonl", "--out", "dpo"];
    ok(gainsay(dir.path(), &dpo));
    let mut ppo = dpo;
    ppo[3] = "ppo";
    let output = gainsay(dir.path(), &ppo);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = gainsay(dir.path(), &["train", "policy", "--policy", "tiny-random", "--out", "x"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn another_reward_model_than_the_checkpoints_is_refused_and_bad_names_are_told() {
    let dir = prepared();
    let bad = |what: &str, with: &str| {
        let mut args = policy("rloo", "bad");
        let place = args.iter().position(|a| a == what).expect("an argument");
        args[place + 1] = with.into();
        let output = run(dir.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(bad("--reward", "length:none").contains("length:N"));
    assert!(bad("--method", "magic").contains("rloo, ppo"));
    assert!(!dir.path().join("bad").exists());
}

#[test]
fn heads_features_and_their_strategies_chain() {
    let dir = prepared();
    let go = |args: &str| ok(gainsay(dir.path(), &args.split(' ').collect::<Vec<_>>()));
    go("train reward --model tiny-random --method head --in pairs.jsonl --heads 4 --cache kept --out rm");
    go("sample --policy tiny-random --prompts prompts.jsonl -n 4 --temperature 1 --max-new-tokens 8 --out r.jsonl");
    go("score --policy tiny-random --reward rm --gold length:2 --features 6 --in r.jsonl --out s.jsonl");
    go("conflicts --in s.jsonl --out c.jsonl");
    for strategy in ["ensemble", "info-gain", "double-ts", "apl", "k-center", "d-opt", "conflict-diverse"] {
        let out = go(&format!("select --strategy {strategy} --budget 5 --in c.jsonl --out sel.jsonl"));
        assert!(stdout(&out).contains("selected             5 of a budget of 5"), "{strategy}: {}", stdout(&out));
    }
    let output =
        gainsay(dir.path(), &["select", "--strategy", "ensemble", "--budget", "1", "--in", "r.jsonl", "--out", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--heads 8"), "{}", stderr(&output));
}

fn rankings(dir: &Path) {
    let rows: String = (0..12)
        .map(|i| {
            let texts = format!("{{\"text\":\"no {i}\"}},{{\"text\":\"yes {i} please\"}},{{\"text\":\"perhaps\"}}");
            format!("{{\"prompt\":\"question {i}\",\"completions\":[{texts}],\"ranking\":[1,[0,2]]}}\n")
        })
        .collect();
    fs::write(dir.join("rankings.jsonl"), rows).expect("the rankings");
}

#[test]
fn rankings_are_trained_on_beside_pairs_and_recognized() {
    let dir = prepared();
    rankings(dir.path());
    let go = |args: &str| ok(gainsay(dir.path(), &args.split(' ').collect::<Vec<_>>()));
    for method in ["head", "lora", "full"] {
        let output = go(&format!(
            "train reward --model tiny-random --method {method} --in pairs.jsonl rankings.jsonl --old rankings.jsonl \
             --old-weight 0.5 --out {method} --json"
        ));
        let done: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        assert_eq!(done["pairs"]["rankings"], 24, "{done}");
    }
    let said = stdout(&go("data inspect rankings.jsonl"));
    assert!(said.contains("Gainsay rankings") && said.contains("12 rankings"), "{said}");
    assert!(said.contains("36 ranked completions") && said.contains("24 tied completions"), "{said}");
    go("data convert rankings.jsonl --out r.parquet");
    go("train reward --model tiny-random --method head --in r.parquet --out again");
    let mut rows = fs::read_to_string(dir.path().join("rankings.jsonl")).expect("the rankings");
    rows.push_str("{\"prompt\":\"q\",\"completions\":[{\"text\":\"a\"}],\"ranking\":[0,1]}\n");
    fs::write(dir.path().join("bad.jsonl"), rows).expect("the rankings");
    let output =
        gainsay(dir.path(), &["train", "reward", "--model", "tiny-random", "--in", "bad.jsonl", "--out", "no"]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("bad.jsonl") && said.contains("13") && said.contains("completion 1"), "{said}");
    assert!(!dir.path().join("no").exists());
}

#[test]
fn every_training_takes_the_adapters_shape_and_dropout() {
    let dir = prepared();
    let lora = "--rank 2 --alpha 4 --last-layers 1 --targets q_proj,down_proj --lora-dropout 0.25";
    let config = |out: &str| -> serde_json::Value {
        let text = fs::read_to_string(dir.path().join(out).join("adapter_config.json")).expect("a configuration");
        serde_json::from_str(&text).expect("JSON")
    };
    let go = |args: String| ok(gainsay(dir.path(), &args.split(' ').collect::<Vec<_>>()));
    let policy = "--policy tiny-random --save-every 0 --batch 2";
    go(format!("train reward --model tiny-random --in pairs.jsonl --out reward {lora}"));
    go(format!("train policy --method dpo --in pairs.jsonl {policy} --out offline {lora}"));
    go(format!(
        "train policy --reward length:3 --prompts prompts.jsonl {policy} --steps 2 --max-new-tokens 6 --scale-rewards \
         --out online {lora}"
    ));
    fs::write(dir.path().join("sft.jsonl"), "{\"prompt\":\"q\",\"completions\":[{\"text\":\"a\"}]}\n").expect("a file");
    go(format!("train sft --in sft.jsonl --heldout 0 {policy} --out tuned {lora}"));
    for out in ["reward", "offline", "online", "tuned"] {
        let config = config(out);
        assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_u64()), (Some(2), Some(4)), "{out}");
        assert_eq!(config["lora_dropout"], 0.25, "{out}");
        assert_eq!(config["target_modules"], serde_json::json!(["down_proj", "q_proj"]), "{out}");
        assert_eq!(config["layers_to_transform"].as_array().map(Vec::len), Some(1), "{out}");
        let provenance = fs::read_to_string(dir.path().join(out).join("gainsay.json")).expect("provenance");
        assert!(provenance.contains("\"dropout\": 0.25"), "{provenance}");
    }
    // An adapter that goes on keeps its rate, unless another is asked for.
    go("train sft --in sft.jsonl --heldout 0 --policy tuned --save-every 0 --out kept".into());
    assert_eq!(config("kept")["lora_dropout"], 0.25);
    go("train sft --in sft.jsonl --heldout 0 --policy tuned --save-every 0 --lora-dropout 0 --out none".into());
    assert_eq!(config("none")["lora_dropout"], 0.0);
    let output = gainsay(
        dir.path(),
        &[
            "train",
            "sft",
            "--policy",
            "tiny-random",
            "--in",
            "sft.jsonl",
            "--heldout",
            "0",
            "--lora-dropout",
            "1",
            "--out",
            "x",
        ],
    );
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("LoRA dropout 1"), "{}", stderr(&output));
}

#[test]
fn an_evaluation_asks_whether_everyday_answers_are_still_likely() {
    let dir = prepared();
    ok(run(dir.path(), &policy("rloo", "tuned")));
    let answers: String = (0..4)
        .map(|i| {
            format!(
                "{{\"prompt\":\"good day {i}\",\"completions\":[{{\"text\":\"hello\"}},{{\"text\":\"hi {i}\"}}]}}\n"
            )
        })
        .collect();
    fs::write(dir.path().join("everyday.jsonl"), answers).expect("the answers");
    let args = "evaluate --policy tuned --against tiny-random --prompts prompts.jsonl --gold length:3 -n 2 --kl-n 1 \
                --max-new-tokens 8 --everyday everyday.jsonl";
    let args: Vec<&str> = args.split_whitespace().collect();
    let text = stdout(&ok(gainsay(dir.path(), &args)));
    assert!(text.contains("everyday answers") && text.contains("entropy") && text.contains("distinct-1"), "{text}");
    let json = stdout(&ok(gainsay(dir.path(), &[&args[..], &["--json"]].concat())));
    let done: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    let of = |name: &str| done["everyday"][name]["estimate"].as_f64().expect("a number");
    assert_eq!(done["everyday"]["answers"], 8);
    assert!((of("policy") - of("base") - of("change")).abs() < 1e-9 && of("change") != 0.0, "{done}");
    assert!(done["metrics"]["entropy"]["estimate"].as_f64().expect("an entropy") > 0.0);
    // The base against itself: nothing has changed.
    let alone = "evaluate --policy tiny-random --against tiny-random --prompts prompts.jsonl --gold length:3 -n 2 \
                 --max-new-tokens 8 --json --everyday everyday.jsonl";
    let json = stdout(&ok(gainsay(dir.path(), &alone.split_whitespace().collect::<Vec<_>>())));
    let done: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(done["everyday"]["change"]["estimate"], 0.0);
    fs::write(dir.path().join("bare.jsonl"), "{\"prompt\":\"q\"}\n").expect("a file");
    let output = gainsay(dir.path(), &[&args[..args.len() - 1], &["bare.jsonl"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no prompt has a completion"), "{}", stderr(&output));
}

/// Starts a command and kills it as soon as a path below `dir` is there.
fn killed_at(dir: &Path, args: &[&str], path: &Path) {
    let mut child = command(dir, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let started = std::time::Instant::now();
    while !dir.join(path).exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("it ends");
    assert!(dir.join(path).exists(), "{} never came", path.display());
}

#[test]
fn a_resumed_reward_training_keeps_its_epochs_and_says_the_same() {
    let dir = prepared();
    let args = |out: &'static str| -> Vec<&str> {
        let args = "train reward --model tiny-random --in pairs.jsonl --heldout 0.3 --batch 1 --epochs 60 --save-every 7 \
                    --threads 1 --json --out";
        args.split_whitespace().chain([out]).collect()
    };
    let said = |args: &[&str]| {
        let output = ok(gainsay(dir.path(), args));
        let mut done: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
        let wall_clock = ["out", "tokens", "seconds", "tokens_per_second", "peak_rss_bytes"];
        wall_clock.iter().for_each(|name| drop(done.as_object_mut().expect("an object").remove(*name)));
        (done, stderr(&output))
    };
    let (whole, _) = said(&args("whole"));
    killed_at(dir.path(), &args("killed"), Path::new("killed.training/step-000035"));
    let (killed, told) = said(&args("killed"));
    assert!(told.contains("goes on behind step"), "{told}");
    assert_eq!(whole, killed);
    assert!(!whole["heldout_before"].is_null(), "{whole}");
    let metrics =
        |out: &str| fs::read_to_string(dir.path().join(format!("{out}.training/metrics.jsonl"))).expect("the metrics");
    assert!(metrics("whole") == metrics("killed"), "the metrics differ");
    assert_eq!(metrics("killed").lines().filter(|line| line.contains("\"epoch\":")).count(), 60);
}

#[test]
fn a_run_that_is_killed_while_it_trains_a_reward_model_goes_on_from_there() {
    let dir = crate::whole_loop::prepared();
    let recipe = fs::read_to_string(dir.path().join("tiny.toml")).expect("the recipe");
    let longer = recipe.replace("epochs = 1", "epochs = 40").replace("rounds = 2", "rounds = 1");
    fs::write(dir.path().join("tiny.toml"), longer).expect("a longer recipe");
    let run = |out: &'static str| ["run", "tiny.toml", "--out", out, "--threads", "1"];
    ok(gainsay(dir.path(), &run("whole")));
    killed_at(dir.path(), &run("killed"), Path::new("killed/proxy/model.training/step-000020"));
    let output = ok(gainsay(dir.path(), &run("killed")));
    assert!(stderr(&output).contains("goes on behind step"), "{}", stderr(&output));
    let files = |out: &str| crate::whole_loop::files(&dir.path().join(out));
    crate::whole_loop::assert_same(&files("whole"), &files("killed"));
    assert!(!files("whole").keys().any(|name| name.to_string_lossy().contains(".training")));
}

#[test]
fn reward_options_out_of_range_are_refused_with_the_range() {
    let dir = prepared();
    for (more, told) in [("--center=-1", "center -1"), ("--method head --read mean@31", "read @31: the model has")] {
        let args = format!("train reward --model tiny-random --in pairs.jsonl --out no {more}");
        let output = gainsay(dir.path(), &args.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
        assert!(!dir.path().join("no").exists());
    }
}

#[test]
fn fine_tuning_on_comparisons_learns_what_was_preferred() {
    let dir = prepared();
    let row = |i: usize, answer: &str, p: &str| {
        format!(
            "{{\"schema\":1,\"id\":\"c{i}\",\"prompt_id\":\"q{i}\",\"prompt\":\"q{i}\",\"first\":{{\"index\":0,\"text\":\"good\"}},\
             \"second\":{{\"index\":1,\"text\":\"bad\"}},\"p_first\":{p},\"answer\":\"{answer}\",\"source\":\"web\",\"votes\":[]}}\n"
        )
    };
    let rows = [row(0, "first", "1.0"), row(1, "both_bad", "null"), row(2, "skip", "null"), row(3, "tie", "0.5")];
    fs::write(dir.path().join("compared.jsonl"), rows.concat()).expect("the comparisons");
    let sft = |file: &'static str, out: &'static str| {
        let args = ["train", "sft", "--policy", "tiny-random", "--in", file, "--out", out, "--heldout", "0", "--json"];
        let said = stdout(&ok(gainsay(dir.path(), &args)));
        serde_json::from_str::<serde_json::Value>(&said).expect("one JSON object")["examples"].clone()
    };
    assert_eq!(sft("compared.jsonl", "one"), 1);
    // TRL's rows: one chosen answer each.
    let rows = fs::read_to_string(dir.path().join("pairs.jsonl")).expect("the pairs").lines().count();
    assert_eq!(sft("pairs.jsonl", "all"), rows);
}
