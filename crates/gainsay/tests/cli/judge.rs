//! `gainsay annotate judge` against an OpenAI-compatible server that breaks half-way.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::common::{command, gainsay, ok, stderr};

const PAIRS: usize = 40;

/// What a server has given, and how much it will give before it refuses.
#[derive(Default)]
pub struct Verdicts {
    pub given: AtomicUsize,
    pub most: AtomicUsize,
}

/// The address of a server that answers bodies with a status line and JSON.
pub fn http(answer: impl Fn(&Value) -> (&'static str, Value) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(&stream, answer.as_ref()));
        }
    });
    url
}

/// Answers requests of one connection until it is closed.
fn serve(stream: &TcpStream, answer: &dyn Fn(&Value) -> (&'static str, Value)) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).is_ok_and(|n| n > 0) && line != "\r\n" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        if length == 0 {
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let (status, answer) = answer(&serde_json::from_slice(&body).expect("JSON"));
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        let mut stream = stream;
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// A server that has given as much as it will.
pub fn refusal() -> (&'static str, Value) {
    ("400 Bad Request", json!({ "error": { "message": "out of credit" } }))
}

impl Verdicts {
    /// Whether one more may be given.
    pub fn take(&self) -> bool {
        let more = |n: usize| (n < self.most.load(Ordering::SeqCst)).then_some(n + 1);
        self.given.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

/// P(A): 0.95 where the good answer stands first, 0.15 where it stands second.
fn verdict(question: &str) -> Value {
    assert!(question.starts_with("Own words."), "the template of the file");
    let p: f64 = if question.contains("A: good") { 0.95 } else { 0.15 };
    let list = json!([{ "token": "A", "logprob": p.ln() }, { "token": "B", "logprob": (1.0 - p).ln() }]);
    json!({
        "choices": [{ "message": { "content": "A" },
            "logprobs": { "content": [{ "token": "A", "logprob": p.ln(), "top_logprobs": list }] } }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 1 },
    })
}

fn rows(row: impl Fn(usize) -> Value) -> String {
    (0..PAIRS).map(|i| format!("{}\n", row(i))).collect()
}

/// Forty comparisons of a good answer with a bad one.
fn selection() -> String {
    rows(|i| {
        json!({ "schema": 1, "id": format!("p{i}/0-1"), "prompt_id": format!("p{i}"), "prompt": format!("q {i}"),
            "first": { "index": 0, "text": format!("good {i}") }, "second": { "index": 1, "text": format!("bad {i}") },
            "strategy": "random", "rank": i, "why": {}, "flags": [] })
    })
}

#[test]
fn both_orders_the_cost_and_no_question_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: String| fs::write(dir.path().join(name), text).expect("a file");
    put("selection.jsonl", selection());
    // People side with the judge on three of four.
    put(
        "people.jsonl",
        rows(|i| {
            let answer = if i % 4 == 0 { "second" } else { "first" };
            json!({ "schema": 1, "id": format!("p{i}/0-1"), "prompt": format!("q {i}"), "first": { "text": "a" },
                "second": { "text": "b" }, "answer": answer, "p_first": f64::from(u8::from(answer == "first")) })
        }),
    );
    put("template.txt", "Own words.\n{prompt}\nA: {a}\nB: {b}\n".into());
    let verdicts = Arc::new(Verdicts::default());
    let url = {
        let verdicts = verdicts.clone();
        http(move |body| match verdicts.take() {
            true => ("200 OK", verdict(body["messages"][0]["content"].as_str().expect("a question"))),
            false => refusal(),
        })
    };
    let judge = |most: usize| {
        verdicts.most.store(most, Ordering::SeqCst);
        let args = [
            "annotate",
            "judge",
            "--url",
            &url,
            "--model",
            "m",
            "--in",
            "selection.jsonl",
            "--out",
            "judged.jsonl",
            "--template",
            "template.txt",
            "--price-in",
            "1",
            "--price-out",
            "2",
            "--against",
            "people.jsonl",
            "--json",
        ];
        command(dir.path(), &args).output().expect("it runs")
    };
    let output = judge(33);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("out of credit"), "{}", stderr(&output));
    assert!(!dir.path().join("judged.jsonl").exists());
    let output = ok(judge(usize::MAX));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(verdicts.given.load(Ordering::SeqCst), 2 * PAIRS, "both orders of every pair, none asked twice");
    assert_eq!((&summary["tokens_in"], &summary["tokens_out"]), (&json!(8000), &json!(80)));
    assert!((summary["cost"].as_f64().expect("a cost") - (8000.0 + 2.0 * 80.0) / 1e6).abs() < 1e-12);
    assert_eq!((&summary["from_logprobs"], &summary["order_dependent"]), (&json!(PAIRS), &json!(0)));
    // The judge always says first: chance alone would agree as often.
    assert_eq!((&summary["agreement"]["share"], &summary["agreement"]["kappa"]), (&json!(0.75), &json!(0.0)));
    let judged = fs::read_to_string(dir.path().join("judged.jsonl")).expect("the preferences");
    let record: Value = serde_json::from_str(judged.lines().next().expect("a line")).expect("a record");
    // (0.95 + 1 - 0.15) / 2.
    assert!((record["p_first"].as_f64().expect("a probability") - 0.9).abs() < 1e-9, "{record}");
    assert_eq!(judged.lines().count(), PAIRS);
}

#[test]
fn a_server_that_refuses_log_probs_still_judges() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("selection.jsonl"), selection()).expect("a file");
    let url = http(|body| match body["logprobs"].is_null() {
        true => ("200 OK", json!({ "choices": [{ "message": { "content": "A" } }] })),
        false => ("422 Unprocessable Entity", json!({ "detail": "logprobs: extra fields not permitted" })),
    });
    let args = ["annotate", "judge", "--url", &url, "--model", "m", "--in", "selection.jsonl", "--out", "out.jsonl"];
    let output = ok(command(dir.path(), &args).output().expect("it runs"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("0 from log-probs") && said.contains("refuses to give log-probs"), "{said}");
}

#[test]
fn a_gold_server_that_breaks_off_is_not_asked_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("selection.jsonl"), selection()).expect("a file");
    let rewards = Arc::new(Verdicts::default());
    let url = {
        let rewards = rewards.clone();
        http(move |body| match rewards.take() {
            true => ("200 OK", json!({ "rewards": [body["items"][0]["completion"].as_str().expect("text").len()] })),
            false => refusal(),
        })
    };
    let oracle = format!("gold:{url}/k/sesame#api=gainsay,batch=1,concurrency=1");
    let feedback = |most: usize| {
        rewards.most.store(most, Ordering::SeqCst);
        let args = ["feedback", "--oracle", &oracle, "--in", "selection.jsonl", "--out", "out.jsonl"];
        command(dir.path(), &args).output().expect("it runs")
    };
    let kept = dir.path().join("out.jsonl.answers");
    let output = feedback(33);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("out of credit") && !stderr(&output).contains("sesame"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&kept).expect("the answers").lines().count(), 33);
    ok(feedback(usize::MAX));
    assert_eq!(rewards.given.load(Ordering::SeqCst), 2 * PAIRS, "none asked twice");
    assert!(!kept.exists());
    let out = fs::read_to_string(dir.path().join("out.jsonl")).expect("the preferences");
    assert!(out.lines().count() == PAIRS && !out.contains("sesame"), "{out}");
}

#[test]
fn a_run_asks_a_judge_and_measures_by_a_known_reward() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = http(|body| {
        // The first answer is the better one where it is the longer.
        let question = body["messages"][0]["content"].as_str().unwrap_or_default();
        let answers: Vec<usize> = question.split("\n[").map(str::len).collect();
        let first = answers.get(2) > answers.get(3);
        let reply = json!({ "choices": [{ "message": { "content": if first { "A" } else { "B" } } }] });
        ("200 OK", reply)
    });
    let recipe = include_str!("tiny.toml")
        .replace("rounds = 2", "rounds = 1")
        .replace("gold = \"gold\"", &format!("gold = \"length:6\"\nfeedback = \"judge:{url}#model=judge\""));
    fs::write(dir.path().join("tiny.toml"), recipe).expect("the recipe");
    ok(gainsay(dir.path(), &["run", "tiny.toml", "--out", "out", "--threads", "2"]));
    let text = |name: &str| fs::read_to_string(dir.path().join("out").join(name)).expect(name);
    let answers = text("round-1/shf-cas/preferences.jsonl");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|answer| answer["source"] == "judge"), "{answers:?}");
    let manifest: Value = serde_json::from_str(&text("manifest.json")).expect("JSON");
    assert_eq!(manifest["models"]["gold"], "length:6");
    let evaluation: Value = serde_json::from_str(&text("round-1/shf-cas/evaluation.json")).expect("JSON");
    let gold = evaluation["metrics"]["gold_reward"]["estimate"].as_f64().expect("a gold reward");
    assert!(gold <= 0.0, "{evaluation}");
    // No noise on top of a judge.
    let noisy = text("recipe.toml").replace("[feedback]", "[feedback]\nnoise = \"bt\"");
    fs::write(dir.path().join("noisy.toml"), noisy).expect("the recipe");
    let refused = gainsay(dir.path(), &["run", "noisy.toml", "--out", "noisy"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("people and judges err by themselves"), "{}", stderr(&refused));
}
