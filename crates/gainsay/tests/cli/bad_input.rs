//! Wrong input gets exit 2, one clear line that says where and what to do, and leaves nothing.

use std::fs;
use std::path::Path;

use crate::common::{gainsay, names, stderr};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn line(id: &str, completions: &str) -> String {
    format!("{{\"schema\":1,\"id\":\"{id}\",\"prompt\":\"hello\",\"completions\":[{completions}]}}\n")
}

fn scored(reward: f64, logp: f64) -> String {
    format!("{{\"text\":\"a\",\"logp\":{logp:?},\"n_tokens\":3,\"reward\":{reward:?}}}")
}

fn good(id: &str) -> String {
    line(id, &format!("{},{}", scored(1.0, -3.0), scored(2.0, -4.0).replace("\"a\"", "\"b\"")))
}

/// Runs `conflicts` on a file with this text and returns stderr's only line.
fn refused(text: &str) -> String {
    let dir = folder();
    fs::write(dir.path().join("in.jsonl"), text).expect("the input is written");
    refused_by(dir.path(), &["conflicts", "--in", "in.jsonl", "--out", "out.jsonl"], &["in.jsonl"])
}

fn refused_by(dir: &Path, args: &[&str], left: &[&str]) -> String {
    let output = gainsay(dir, args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty(), "data on stdout although the input is wrong");
    assert_eq!(names(dir), left, "something was left behind");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "one line, please: {said}");
    assert!(lines[0].starts_with("gainsay: "), "{said}");
    said
}

#[test]
fn a_truncated_line_is_named() {
    let whole = good("p1") + &good("p2");
    let said = refused(&whole[..whole.len() - 20]);
    assert!(said.contains("in.jsonl:2") && said.contains("cut off"), "{said}");
}

#[test]
fn a_newer_schema_is_named() {
    let said = refused(&good("p1").replace("\"schema\":1", "\"schema\":99"));
    assert!(said.contains("in.jsonl:1") && said.contains("schema"), "{said}");
}

#[test]
fn nan_is_named() {
    let said = refused(&(good("p1") + &good("p2").replace("-4.0", "NaN")));
    assert!(said.contains("in.jsonl:2") && said.contains("NaN"), "{said}");
}

#[test]
fn null_log_probs_everywhere_ask_for_a_score() {
    let said = refused(&good("p1").replace("\"logp\":-3.0", "\"logp\":null").replace("\"logp\":-4.0", "\"logp\":null"));
    assert!(said.contains("logp") && said.contains("gainsay score"), "{said}");
}

#[test]
fn a_null_log_prob_makes_its_prompt_degenerate_and_is_counted() {
    let dir = folder();
    let part = good("p1").replace("\"logp\":-4.0", "\"logp\":null");
    fs::write(dir.path().join("in.jsonl"), part + &good("p2")).expect("the input is written");
    let output = gainsay(dir.path(), &["conflicts", "--in", "in.jsonl", "--out", "out.jsonl", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(summary["degenerate"]["missing_value"], 1);
    assert_eq!(summary["kendall_tau_distance"]["n"], 1);
    // It is never selected.
    let select =
        ["select", "--strategy", "kendall", "--budget", "5", "--tau-k", "0", "--in", "out.jsonl", "--out", "s.jsonl"];
    assert!(gainsay(dir.path(), &select).status.success());
    let selection = fs::read_to_string(dir.path().join("s.jsonl")).expect("a selection");
    assert!(selection.contains("\"p2\"") && !selection.contains("\"p1\""), "{selection}");
}

#[test]
fn unequal_lengths_are_named() {
    let completion = "{\"text\":\"a\",\"token_ids\":[1,2,3],\"token_logps\":[-1.0,-2.0],\"reward\":1.0,\"logp\":-3.0}";
    let said = refused(&line("p1", &format!("{completion},{}", scored(2.0, -4.0))));
    assert!(said.contains("in.jsonl:1") && said.contains('3') && said.contains('2'), "{said}");
}

#[test]
fn an_empty_file_is_refused() {
    assert!(refused("").contains("in.jsonl"));
}

#[test]
fn one_completion_cannot_be_ranked() {
    let said = refused(&line("p1", &scored(1.0, -3.0)));
    assert!(said.contains("at least 2 completions"), "{said}");
}

#[test]
fn mixed_log_prob_models_are_refused() {
    let with = |id: &str, model: &str| {
        good(id).replace("\"prompt\"", &format!("\"meta\":{{\"logp_policy\":\"{model}\"}},\"prompt\""))
    };
    let said = refused(&(with("p1", "a") + &with("p2", "b")));
    assert!(said.contains("p1") && said.contains("p2"), "{said}");
}

#[test]
fn a_duplicate_id_is_named() {
    let said = refused(&(good("p1") + &good("p1")));
    assert!(said.contains("in.jsonl:2") && said.contains("p1"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let dir = folder();
    let said = refused_by(dir.path(), &["conflicts", "--in", "no.jsonl"], &[]);
    assert!(said.contains("no.jsonl"), "{said}");
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let dir = folder();
    fs::write(dir.path().join("in.jsonl"), good("p1")).expect("the input is written");
    let args = ["conflicts", "--in", "in.jsonl", "--out", "in.jsonl/out.jsonl"];
    let said = refused_by(dir.path(), &args, &["in.jsonl"]);
    assert!(said.contains("out.jsonl"), "{said}");
}

/// `sample` with a policy that is no model.
fn refused_policy(dir: &Path, policy: &str) -> String {
    let prompts = "{\"id\":\"p\",\"prompt\":\"hello\"}\n";
    fs::write(dir.join("prompts.jsonl"), prompts).expect("the prompts are written");
    let before = names(dir);
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    refused_by(dir, &["sample", "--policy", policy, "--prompts", "prompts.jsonl", "--out", "out.jsonl"], &before)
}

#[test]
fn a_folder_without_a_model_is_named() {
    let dir = folder();
    fs::create_dir(dir.path().join("empty")).expect("a folder");
    assert!(refused_policy(dir.path(), "empty").contains("empty"));
    assert!(refused_policy(dir.path(), "nowhere").contains("nowhere"));
}

/// A tiny model's folder whose config.json is changed by `edit`.
fn broken_model(dir: &Path, edit: impl Fn(String) -> String) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gainsay-lm/tests/goldens/models/llama");
    let target = dir.join("model");
    fs::create_dir(&target).expect("a folder");
    for name in names(&source) {
        fs::copy(source.join(&name), target.join(&name)).expect("a file is copied");
    }
    let config = target.join("config.json");
    let text = fs::read_to_string(&config).expect("a config");
    let edited = edit(text.clone());
    assert_ne!(text, edited, "the edit must change something");
    fs::write(&config, edited).expect("the config is written");
}

#[test]
fn an_unknown_architecture_is_named() {
    let dir = folder();
    broken_model(dir.path(), |text| {
        text.replace("LlamaForCausalLM", "MambaForCausalLM").replace("\"llama\"", "\"mamba\"")
    });
    let said = refused_policy(dir.path(), "model");
    assert!(said.to_lowercase().contains("mamba") && said.to_lowercase().contains("llama"), "{said}");
}

#[test]
fn wrong_tensor_shapes_are_named() {
    let dir = folder();
    broken_model(dir.path(), |text| text.replace("\"intermediate_size\": 24", "\"intermediate_size\": 40"));
    let said = refused_policy(dir.path(), "model");
    assert!(said.contains("gate_proj") || said.contains("mlp"), "{said}");
}

#[test]
fn a_cache_that_cannot_be_used_is_named() {
    let dir = folder();
    fs::write(dir.path().join("cache"), "a file where a folder should be").expect("a file");
    fs::write(dir.path().join("prompts.jsonl"), "{\"id\":\"p\",\"prompt\":\"hello\"}\n").expect("the prompts");
    let args = ["sample", "--policy", "smollm2-135m", "--prompts", "prompts.jsonl", "--out", "out.jsonl"];
    let output =
        crate::common::command(dir.path(), &args).env("GAINSAY_CACHE", "cache").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("cache"), "{}", stderr(&output));
    assert_eq!(names(dir.path()), ["cache", "prompts.jsonl"]);
}

#[test]
fn options_out_of_range_are_named() {
    let dir = folder();
    fs::write(dir.path().join("prompts.jsonl"), "{\"id\":\"p\",\"prompt\":\"hello\"}\n").expect("the prompts");
    let base = ["sample", "--policy", "tiny-random", "--prompts", "prompts.jsonl", "--out", "out.jsonl"];
    for (option, value, word) in
        [("-n", "0", "-n"), ("--max-new-tokens", "0", "max-new-tokens"), ("--top-p", "0", "top-p")]
    {
        let args: Vec<&str> = base.iter().copied().chain([option, value]).collect();
        let said = refused_by(dir.path(), &args, &["prompts.jsonl"]);
        assert!(said.contains(word), "{said}");
    }
    let policy =
        |spec: &'static str| base.iter().map(|a| if *a == "tiny-random" { spec } else { a }).collect::<Vec<_>>();
    for (url, word) in [("http://127.0.0.1:1#apis=x", "not known"), ("http://me:k@h", "GAINSAY_API_KEY")] {
        assert!(refused_by(dir.path(), &policy(url), &["prompts.jsonl"]).contains(word));
    }
    let away = gainsay(dir.path(), &policy("http://127.0.0.1:1#retries=0"));
    assert_eq!((away.status.code(), names(dir.path())), (Some(1), vec!["prompts.jsonl".to_string()]));
    assert!(stderr(&away).contains("gave up after 1 tries"), "{}", stderr(&away));
}

/// Exit 2 and a message; clap's own take several lines.
fn said_no(dir: &Path, args: &[&str]) -> String {
    let output = gainsay(dir, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{args:?}: data on stdout although the input is wrong");
    stderr(&output)
}

#[test]
fn servers_that_would_refuse_everything_are_not_started() {
    let dir = folder();
    let serve = |option: &str, value: &str| said_no(dir.path(), &["serve", "--reward", "tiny-random", option, value]);
    for option in ["--batch", "--queue", "--max-tokens", "--max-body"] {
        assert!(serve(option, "0").contains("above 0"), "{option}");
    }
    assert!(serve("--host", "0.0.0.0").contains("GAINSAY_SERVE_KEY"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let said = serve("--port", &port);
    assert!(said.contains(&port) && said.contains("another --port"), "{said}");
    let said = said_no(dir.path(), &["serve", "--reward", "http://127.0.0.1:1", "--port", "0"]);
    assert!(said.contains("not a server"), "{said}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn the_doctor_says_what_is_wrong_here_before_it_asks_a_server() {
    let dir = folder();
    fs::write(dir.path().join("p.jsonl"), "{\"id\":\"p\",\"prompt\":\"hello\"}\n").expect("a file");
    let base = ["doctor", "--policy", "http://127.0.0.1:1", "--local", "tiny-random"];
    for (more, part) in [
        (["--in", "no.jsonl"], "no.jsonl"),
        (["--in", "p.jsonl"], "no completions"),
        (["--items", "0"], "above 0"),
        (["--tolerance", "-1"], "0 or more"),
        (["--tolerance", "nan"], "0 or more"),
    ] {
        let said = said_no(dir.path(), &base.into_iter().chain(more).collect::<Vec<_>>());
        assert!(said.contains(part), "{more:?}: {said}");
    }
    let local = ["doctor", "--policy", "http://127.0.0.1:1", "--local", "http://127.0.0.1:1"];
    assert!(said_no(dir.path(), &local).contains("not a server"));
}

#[test]
fn mappings_and_conversions_that_make_no_sense_are_named() {
    let dir = folder();
    let pair = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}\n";
    fs::write(dir.path().join("in.jsonl"), pair).expect("a file");
    for (mapping, part) in [
        ("{\"path\":\"x\",\"request\":{},\"reward\":\"/r\"}", "path `x` must begin with /"),
        ("{\"request\":{},\"reward\":\"score\"}", "JSON pointer"),
        ("{\"request\":{}}", "reward"),
    ] {
        fs::write(dir.path().join("m.json"), mapping).expect("a file");
        let args = ["score", "--reward", "http://127.0.0.1:1#map=m.json", "--in", "in.jsonl", "--out", "out.jsonl"];
        let said = said_no(dir.path(), &args);
        assert!(said.contains("m.json") && said.contains(part), "{said}");
    }
    let said = said_no(dir.path(), &["data", "convert", "in.jsonl", "--out", "./in.jsonl"]);
    assert!(said.contains("is the file that is read"), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("in.jsonl")).expect("the file"), pair);
    assert_eq!(names(dir.path()), ["in.jsonl", "m.json"]);
}

#[test]
fn a_recipe_with_an_unknown_key_is_named() {
    let dir = folder();
    fs::write(dir.path().join("r.toml"), "schema = 1\n[select]\nbudgit = 3\n").expect("a recipe");
    let output = gainsay(dir.path(), &["run", "r.toml", "--out", "run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("r.toml") && stderr(&output).contains("budgit"), "{}", stderr(&output));
    assert_eq!(names(dir.path()), ["r.toml"]);
}
