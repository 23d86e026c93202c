//! Other projects' data, logs and trainers, from the command line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{gainsay, names, ok, stderr, stdout};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn core_golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gainsay-core/tests/goldens").join(name)
}

fn put(dir: &TempDir, name: &str, rows: &[Value]) {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.path().join(name), text).expect("a file is written");
}

fn json_of(dir: &TempDir, args: &[&str]) -> Value {
    let output = ok(gainsay(dir.path(), args));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn refused(dir: &TempDir, args: &[&str]) -> String {
    let output = gainsay(dir.path(), args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn inspect_says_what_a_file_is_and_shows_two_records() {
    let dir = folder();
    let row = |better: i64| {
        json!({"prompt":"q?","response_0":"a","response_1":"b","is_response_0_safe":true,"is_response_1_safe":false,
            "better_response_id":better,"safer_response_id":0})
    };
    put(&dir, "pku.jsonl", &[row(0), row(1), row(0)]);
    let found = json_of(&dir, &["data", "inspect", "pku.jsonl", "--json"]);
    assert_eq!((&found["format"], &found["kind"]), (&json!("pku-safe-rlhf"), &json!("preference")));
    assert_eq!((&found["records"], &found["first"].as_array().map(Vec::len)), (&json!(3), &Some(2)));
    assert_eq!(found["holds"], json!({"comparisons":3,"safety signs":6}));
    insta::assert_snapshot!(stdout(&ok(gainsay(dir.path(), &["data", "inspect", "pku.jsonl"]))));

    let trl = core_golden("trl-completions.parquet");
    insta::assert_snapshot!(stdout(&ok(gainsay(dir.path(), &["data", "inspect", &trl.display().to_string()]))));

    put(&dir, "odd.jsonl", &[json!({"question":"q","reply":"a"})]);
    let said = refused(&dir, &["data", "inspect", "odd.jsonl"]);
    assert!(said.contains("question, reply") && said.contains("--map"), "{said}");
    let mapped = ["data", "inspect", "odd.jsonl", "--map", "prompt=question,completion=reply", "--json"];
    assert_eq!(json_of(&dir, &mapped)["records"], 1);
    put(&dir, "bad.jsonl", &[row(0), row(2)]);
    assert!(refused(&dir, &["data", "inspect", "bad.jsonl"]).contains("bad.jsonl:2: "));
}

#[test]
fn convert_writes_records_of_either_kind() {
    let dir = folder();
    put(&dir, "pairs.jsonl", &[json!({"prompt":"q","chosen":"a","rejected":"b"})]);
    ok(gainsay(dir.path(), &["data", "convert", "pairs.jsonl", "--out", "own.jsonl"]));
    let own = fs::read_to_string(dir.path().join("own.jsonl")).expect("the records");
    assert!(own.contains("\"p_first\":1.0"), "{own}");
    ok(gainsay(dir.path(), &["data", "convert", "pairs.jsonl", "--to", "prompts", "--out", "prompts.jsonl"]));
    let prompts = fs::read_to_string(dir.path().join("prompts.jsonl")).expect("the records");
    assert!(prompts.contains("\"gold\":1.0"), "{prompts}");
    fs::write(dir.path().join("t.csv"), "q,a,r\nx,y,1\nx,z,2\n").expect("a table");
    let map = "prompt=q,completion=a,reward=r";
    ok(gainsay(dir.path(), &["data", "convert", "t.csv", "--map", map, "--out", "t.jsonl"]));
    let table = fs::read_to_string(dir.path().join("t.jsonl")).expect("the records");
    assert_eq!(table.lines().count(), 1);
}

#[test]
fn conflicts_of_other_peoples_logs() {
    let dir = folder();
    let row = |prompt: &str, output: &str, score: f64, logp: f64| json!({"input":prompt,"output":output,"gts":null,"score":score,"step":1,"logp":logp});
    // q: reward and log-prob order the answers alike; r: the other way round.
    let rows = [row("q", "a", 1.0, -1.0), row("r", "c", 1.0, -9.0), row("q", "b", 0.0, -2.0), row("r", "d", 0.0, -3.0)];
    put(&dir, "1.jsonl", &rows);
    let found = json_of(&dir, &["conflicts", "--in", "*.jsonl", "--json"]);
    assert_eq!((&found["prompts"], &found["kendall_tau_distance"]["estimate"]), (&json!(2), &json!(0.5)));

    // OpenRLHF logs no log-probs either; a column that its reward function added is read.
    let row = |prompt: &str, output: &str, reward: f64, logp: f64| json!({"input":prompt,"output":output,"reward":reward,"logp":logp});
    let rows = json!([row("q", "a", 1.0, -9.0), row("q", "b", 0.0, -3.0), row("q", "c", 2.0, -12.0)]);
    fs::write(dir.path().join("openrlhf.json"), rows.to_string()).expect("a log");
    let found = json_of(&dir, &["conflicts", "--in", "openrlhf.json", "--json"]);
    assert_eq!((&found["prompts"], &found["kendall_tau_distance"]["estimate"]), (&json!(1), &json!(1.0)));

    let csv = "question,answer,rm,lp\nq,a,1,-1\nq,b,0,-2\n";
    fs::write(dir.path().join("table.csv"), csv).expect("a table");
    let map = "prompt=question,completion=answer,reward=rm,logp=lp";
    let found = json_of(&dir, &["conflicts", "--in", "table.csv", "--map", map, "--json"]);
    assert_eq!(found["kendall_tau_distance"]["estimate"], 0.0);

    // TRL logs no log-probs: a policy adds them.
    let trl = core_golden("trl-completions.parquet").display().to_string();
    let said = refused(&dir, &["conflicts", "--in", &trl]);
    assert!(said.contains("logp") && said.contains("gainsay score"), "{said}");
    ok(gainsay(dir.path(), &["score", "--policy", "tiny-random", "--in", &trl, "--out", "scored.jsonl"]));
    assert_eq!(json_of(&dir, &["conflicts", "--in", "scored.jsonl", "--json"])["prompts"], 2);

    let said = refused(&dir, &["conflicts", "--in", "table.csv", "--map", "prompt=question,completion=reply"]);
    assert!(said.contains("table.csv:2: ") && said.contains("no column `reply`"), "{said}");
}

/// A reward model of a few thousand weights, trained on twelve pairs.
pub fn reward_model(dir: &TempDir) {
    let rows: Vec<Value> = (0..12)
        .map(|i| json!({"prompt":format!("question {i}"),"chosen":format!("yes {i} please"),"rejected":format!("no {i}")}))
        .collect();
    put(dir, "pairs.jsonl", &rows);
    let args = ["train", "reward", "--model", "tiny-random", "--method", "head", "--in", "pairs.jsonl", "--out", "rm"];
    ok(gainsay(dir.path(), &args));
}

#[test]
fn rewardbench_scores_of_a_reward_model() {
    let dir = folder();
    reward_model(&dir);
    let row = |subset: &str, id: i64, chosen: &str, rejected: &str| {
        json!({"prompt":"question 1","chosen":chosen,"chosen_model":"m","rejected":rejected,"rejected_model":"n",
            "subset":subset,"id":id})
    };
    // The same pair both ways: one of the two is right. Equal answers are wrong.
    let (good, bad) = ("yes 1 please", "no 1");
    let rows = [
        row("hep-go", 1, good, bad),
        row("hep-go", 2, bad, good),
        row("math-prm", 1, good, good),
        row("alpacaeval-easy", 1, good, good),
    ];
    put(&dir, "rb.jsonl", &rows);
    let found = json_of(&dir, &["evaluate", "--rewardbench", "rb.jsonl", "--reward", "rm", "--json"]);
    let part = |list: &str, name: &str| {
        let parts = found[list].as_array().expect("a list");
        parts.iter().find(|part| part["name"] == name).expect("the part")["score"].clone()
    };
    assert_eq!((part("subsets", "hep-go"), part("subsets", "math-prm")), (json!(0.5), json!(0.0)));
    let reasoning = part("sections", "Reasoning").as_f64().expect("a score");
    assert!((reasoning - 0.5 * 164.0 / 1148.0).abs() < 1e-12);
    assert_eq!((part("sections", "Chat"), part("sections", "Safety")), (json!(0.0), Value::Null));
    assert!((found["score"].as_f64().expect("a score") - reasoning / 2.0).abs() < 1e-12);

    // The same reward model behind a server gives the same score.
    let mut server = crate::common::command(dir.path(), &["serve", "--reward", "rm", "--port", "0"]);
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a server");
    let mut first = String::new();
    BufReader::new(server.stdout.take().expect("its output")).read_line(&mut first).expect("its first line");
    let url = first.trim().rsplit(' ').next().expect("its address").to_owned();
    let remote = gainsay(dir.path(), &["evaluate", "--rewardbench", "rb.jsonl", "--reward", &url, "--json"]);
    server.kill().expect("it ends");
    server.wait().expect("it ended");
    let remote: Value = serde_json::from_slice(&ok(remote).stdout).expect("one JSON object");
    assert_eq!((&remote["score"], &remote["subsets"]), (&found["score"], &found["subsets"]));

    let item = |id: &str, subset: &str, chosen: Value, rejected: Value| {
        let correct = chosen.as_array().map(Vec::len);
        json!({"id":id,"prompt":"question 1","chosen":chosen,"rejected":rejected,"num_correct":correct,"subset":subset})
    };
    let rows = [
        item("1", "Focus", json!([good]), json!([good, good, good])),
        item("ref:1", "Ties", json!([good]), json!([bad])),
        item("tied:1", "Ties", json!([good, good]), json!([bad])),
    ];
    put(&dir, "rb2.jsonl", &rows);
    let found = json_of(&dir, &["evaluate", "--rewardbench", "rb2.jsonl", "--reward", "rm", "--json"]);
    assert_eq!(found["subsets"][0], json!({"name":"Focus","prompts":1,"score":0.25}));
    // Both correct answers are the same text: no spread, so no margin.
    let ties = if found["ties"]["tied"] == 1.0 { 1.0 } else { 0.0 };
    assert!((found["ties"]["score"].as_f64().expect("a score") - ties).abs() < 1e-12, "{found}");

    put(&dir, "odd.jsonl", &[item("1", "Ties", json!([good]), json!([bad]))]);
    assert!(refused(&dir, &["evaluate", "--rewardbench", "odd.jsonl", "--reward", "rm"]).contains("id `1`"));
    let said = refused(&dir, &["evaluate", "--rewardbench", "pairs.jsonl", "--reward", "rm"]);
    assert!(said.contains("preference rows of TRL"), "{said}");
    assert_eq!(gainsay(dir.path(), &["evaluate", "--rewardbench", "rb.jsonl"]).status.code(), Some(2));
    assert_eq!(gainsay(dir.path(), &["evaluate", "--policy", "tiny-random"]).status.code(), Some(2));
}

#[test]
fn pairs_of_other_projects_are_scored_validated_and_answered_anew() {
    let dir = folder();
    reward_model(&dir);
    const STRENGTHS: [i64; 3] = [-1, 2, 0];
    let rows: Vec<Value> = (0..30)
        .map(|i| {
            json!({"prompt":format!("question {i}"),"response_1":format!("yes {i}"),"response_2":format!("no, {i}"),
                "preference_strength":STRENGTHS[i % 3]})
        })
        .collect();
    put(&dir, "hs2.jsonl", &rows);
    let score = ["score", "--policy", "tiny-random", "--reward", "rm", "--in", "hs2.jsonl", "--out", "scored.jsonl"];
    ok(gainsay(dir.path(), &score));
    let found = json_of(&dir, &["validate", "--in", "scored.jsonl", "--scope", "dataset", "--json"]);
    assert_eq!((&found["prompts"], &found["gold_ties"]), (&json!(30), &json!(10)));
    ok(gainsay(dir.path(), &["feedback", "--oracle", "gold:rm", "--in", "hs2.jsonl", "--out", "answers.jsonl"]));
    let answers = fs::read_to_string(dir.path().join("answers.jsonl")).expect("the answers");
    assert_eq!(answers.lines().count(), 30);
}

/// A finished run of one round on a random model.
pub fn finished_run(dir: &Path) {
    let recipe = include_str!("tiny.toml")
        .replace("rounds = 2", "rounds = 1")
        .replace("gold = \"gold\"", "gold = \"rm\"")
        .replace("[tune]\n", "[tune]\nmethod = \"none\"\n");
    fs::write(dir.join("tiny.toml"), recipe).expect("the recipe");
    ok(gainsay(dir, &["run", "tiny.toml", "--out", "run", "--threads", "2"]));
}

#[test]
fn export_writes_what_a_trainer_needs() {
    let dir = folder();
    reward_model(&dir);
    finished_run(dir.path());
    let expected: [(&str, &[&str]); 3] = [
        ("trl", &["reward.py", "train_policy.py", "train_reward.py"]),
        ("openrlhf", &["train_policy.sh", "train_reward.sh"]),
        ("verl", &["reward.py", "reward_function.py", "train_policy.sh"]),
    ];
    for (trainer, scripts) in expected {
        let url = "http://10.0.0.5:9000/";
        ok(gainsay(dir.path(), &["export", trainer, "--run", "run", "--out", trainer, "--reward-url", url]));
        let out = dir.path().join(trainer);
        let shared = [
            "README.md",
            "export.json",
            "heldout.jsonl",
            "policy",
            "preferences.jsonl",
            "prompts.jsonl",
            "reward_model",
        ];
        let mut files: Vec<&str> = shared.iter().chain(scripts).copied().collect();
        files.sort_unstable();
        assert_eq!(names(&out), files);
        for name in names(&out).into_iter().filter(|name| name.contains('.')) {
            let text = fs::read_to_string(out.join(&name)).expect("a file");
            assert!(!text.contains("{{"), "{name}");
        }
        let script = if trainer == "openrlhf" { "train_policy.sh" } else { "reward.py" };
        let text = fs::read_to_string(out.join(script)).expect("a script");
        assert!(text.contains("http://10.0.0.5:9000") && !text.contains(":9000/\""), "{text}");
        // The merged model gives the rewards of the adapter, and the data comes back.
        let score = |model: &str, out: &str| {
            let args = ["score", "--reward", model, "--in", "run/base/rollouts.jsonl", "--out", out];
            ok(gainsay(dir.path(), &args));
            let text = fs::read_to_string(dir.path().join(out)).expect("scores");
            text.lines()
                .flat_map(|line| {
                    let record: Value = serde_json::from_str(line).expect("a record");
                    let completions = record["completions"].as_array().expect("completions").clone();
                    completions.into_iter().map(|c| c["reward"].as_f64().expect("a reward"))
                })
                .collect::<Vec<f64>>()
        };
        if trainer == "trl" {
            let (ours, theirs) = (score("run/round-1/shf-cas/reward", "a.jsonl"), score("trl/reward_model", "b.jsonl"));
            assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-3), "{ours:?} {theirs:?}");
            let found = json_of(&dir, &["data", "inspect", "trl/preferences.jsonl", "--json"]);
            assert_eq!(found["format"], "preference");
        }
        for (model, class) in [("policy", "ForCausalLM"), ("reward_model", "ForSequenceClassification")] {
            let config = fs::read_to_string(out.join(model).join("config.json")).expect("a config");
            assert!(config.contains(class), "{config}");
        }
        let prompts = format!("{trainer}/prompts.jsonl");
        assert_eq!(json_of(&dir, &["data", "inspect", &prompts, "--json"])["records"], 12);
        // Exporting again replaces it; --adapter keeps the reward model as it was trained.
        ok(gainsay(dir.path(), &["export", trainer, "--run", "run", "--out", trainer, "--adapter"]));
        assert!(out.join("reward_model/adapter_model.safetensors").is_file());
    }
}

#[test]
fn the_exported_client_comes_back_after_a_server_that_hangs_up() {
    let dir = folder();
    let client = include_str!("../../src/recipes/export/reward.py");
    fs::write(dir.path().join("reward.py"), client).expect("the client");
    let mut python = std::process::Command::new("python3");
    if python.arg("--version").output().is_err() {
        eprintln!("no python3 here: not tried");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // Without a word, in the middle of the answer, a cut answer of the right length, then whole.
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"rewards\": [1.5";
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"rewards\": [1.";
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"rewards\": [1.5]}";
    let server = std::thread::spawn(move || {
        for answer in ["", half, cut, whole] {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0u8; 4096];
            // Head and body come apart.
            while !String::from_utf8_lossy(&request).contains("\"query\"") {
                let from = request.iter().position(|b| *b == 0).expect("room");
                std::io::Read::read(&mut stream, &mut request[from..]).expect("a request");
            }
            std::io::Write::write_all(&mut stream, answer.as_bytes()).expect("an answer");
        }
    });
    let mut python = std::process::Command::new("python3");
    let python = python.args(["-c", "import reward; print(reward.rewards(['a text']))"]).current_dir(dir.path());
    let output = ok(python.env("GAINSAY_REWARD_URL", url).env_remove("GAINSAY_API_KEY").output().expect("python"));
    assert_eq!(stdout(&output).trim(), "[1.5]");
    server.join().expect("four requests");
}

#[test]
fn export_refuses_what_is_not_a_run_or_not_its_own() {
    let dir = folder();
    assert!(refused(&dir, &["export", "trl", "--run", ".", "--out", "x"]).contains("no recipe.toml"));
    fs::create_dir(dir.path().join("mine")).expect("a folder");
    fs::write(dir.path().join("mine/notes.txt"), "mine").expect("a file");
    assert!(refused(&dir, &["export", "trl", "--run", ".", "--out", "mine"]).contains("is not empty"));
    let odd = ["export", "trl", "--run", ".", "--out", "x", "--reward-url", "http://h\"; rm -rf ~"];
    assert!(refused(&dir, &odd).contains("--reward-url"));
    fs::write(dir.path().join("recipe.toml"), include_str!("tiny.toml")).expect("a recipe");
    assert!(refused(&dir, &["export", "trl", "--run", ".", "--out", "x"]).contains("no refined reward model"));
    assert!(refused(&dir, &["export", "trl", "--run", ".", "--out", "x", "--arm", "best"]).contains("random-spread"));
    assert_eq!(names(dir.path()), ["mine", "recipe.toml"]);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&ok(gainsay(dir.path(), &["completions", shell])));
        assert!(script.contains("rewardbench") && script.contains("inspect"), "{shell}");
    }
    assert_eq!(gainsay(dir.path(), &["completions", "tcsh"]).status.code(), Some(2));
    let page = stdout(&ok(gainsay(dir.path(), &["man"])));
    assert!(page.starts_with(".ie") || page.contains(".TH gainsay 1"), "{page}");
    ok(gainsay(dir.path(), &["man", "--out", "man"]));
    let pages = names(&dir.path().join("man"));
    for name in ["gainsay.1", "gainsay-conflicts.1", "gainsay-train-reward.1", "gainsay-data-inspect.1"] {
        assert!(pages.iter().any(|page| page == name), "{name} of {pages:?}");
    }
    let page = fs::read_to_string(dir.path().join("man/gainsay-data-inspect.1")).expect("a page");
    assert!(page.contains("\\-\\-map"), "{page}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_one_message() {
    let dir = folder();
    let mut command = crate::common::command(dir.path(), &["data", "inspect", "hf:datasets/acme/pairs"]);
    let output = command.env("HF_HOME", dir.path()).env("HF_HUB_OFFLINE", "1").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("hf:datasets/acme/pairs is not in the cache"), "{}", stderr(&output));
}
