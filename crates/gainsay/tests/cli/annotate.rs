//! `gainsay annotate` as a user meets it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::common::{command, gainsay, ok, stderr, stdout};

const PREFERENCES: &str = r#"{"id":"a","prompt":"q","first":{"text":"=x"},"second":{"text":"y"},"answer":"first","p_first":0.75,"votes":[{"annotator":"ann","answer":"first","strength":2},{"annotator":"bo","answer":"tie"}]}
{"id":"b","prompt":"q","first":{"text":"x"},"second":{"text":"y"},"answer":"tie","p_first":0.5,"votes":[{"annotator":"ann","answer":"tie"},{"annotator":"bo","answer":"tie"}]}
{"id":"c","prompt":"q","first":{"text":"x"},"second":{"text":"y"},"answer":"both_bad","votes":[{"annotator":"ann","answer":"both_bad"},{"annotator":"bo","answer":"both_bad"}]}
"#;

#[test]
fn answers_go_out_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.jsonl"), PREFERENCES).unwrap();
    for format in ["label-studio", "argilla", "csv", "preferences"] {
        ok(gainsay(dir.path(), &["annotate", "export", "--in", "p.jsonl", "--format", format, "--out", "there"]));
        let read = ["annotate", "import", "--in", "there", "--format", format, "--out", "back.jsonl"];
        // A name without an ending is JSON lines; other tools' files are read by the format alone.
        ok(gainsay(dir.path(), &read));
        let back = std::fs::read_to_string(dir.path().join("back.jsonl")).unwrap();
        assert_eq!(back.lines().count(), 3, "{format}: {back}");
        assert!(back.contains("\"p_first\":0.75") && back.contains("both_bad"), "{format}: {back}");
    }
    for (ties, rows) in [("keep", 3), ("drop", 1)] {
        let args = ["annotate", "export", "--in", "p.jsonl", "--format", "trl", "--ties", ties, "--out", "trl.jsonl"];
        let said = stderr(&ok(gainsay(dir.path(), &args)));
        assert!(said.contains("1 ties") && said.contains("1 both bad"), "{said}");
        let trl = std::fs::read_to_string(dir.path().join("trl.jsonl")).unwrap();
        assert_eq!(trl.lines().count(), rows);
    }
}

#[test]
fn agreement_of_a_file_and_of_a_database() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.jsonl"), PREFERENCES).unwrap();
    ok(gainsay(dir.path(), &["annotate", "import", "--in", "p.jsonl", "--format", "preferences", "--db", "a.db"]));
    let of_file = stdout(&ok(gainsay(dir.path(), &["annotate", "agreement", "--in", "p.jsonl"])));
    let of_db = stdout(&ok(gainsay(dir.path(), &["annotate", "agreement", "--db", "a.db"])));
    assert_eq!(of_file, of_db);
    // Two of three equal; p_e = (1 * 0 + 1 * 2 + 1 * 1) / 9; kappa = (2/3 - 1/3) / (2/3) = 1/2.
    assert!(of_file.contains("0.500 (ann and bo: 66.7 % equal of 3)"), "{of_file}");
    let json = stdout(&ok(gainsay(dir.path(), &["annotate", "agreement", "--in", "p.jsonl", "--json"])));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["units"], 3);
    ok(gainsay(dir.path(), &["annotate", "export", "--db", "a.db", "--out", "out.jsonl"]));
    let out = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    assert!(out.contains("\"source\":\"web\"") && out.lines().count() == 3, "{out}");
}

#[test]
fn the_same_answers_again_are_no_trouble_and_keep_all_that_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let import = |file: &str, format: &str| {
        let args = ["annotate", "import", "--in", file, "--format", format, "--db", "a.db"];
        stderr(&ok(gainsay(dir.path(), &args)))
    };
    let task = |id: usize, by: usize| {
        format!(
            r#"{{"id":{id},"data":{{"prompt":"q{id}","answer1":"x","answer2":"y"}},"annotations":[{{"completed_by":{by},
            "result":[{{"type":"pairwise","value":{{"selected":"left"}}}}]}}]}}"#
        )
    };
    write("one.json", &format!("[{}]", task(7, 1)));
    write("two.json", &format!("[{},{}]", task(8, 1), task(7, 2)));
    import("one.json", "label-studio");
    import("two.json", "label-studio");
    write(
        "p.jsonl",
        r#"{"id":"own","prompt":"q","first":{"text":"x"},"second":{"text":"y"},"answer":"first","p_first":1.0,"votes":[{"annotator":"ann","answer":"first","strength":2,"safe_first":true,"safe_second":false,"rating_first":5,"left":"second","comment":"so"},{"annotator":"bo","answer":"skip","reason":"too long","left":"first"}]}"#,
    );
    import("p.jsonl", "preferences");
    let export = |name: &str| {
        ok(gainsay(dir.path(), &["annotate", "export", "--db", "a.db", "--out", name]));
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    };
    let out = export("out.jsonl");
    for kept in
        ["\"safe_second\":false", "\"rating_first\":5", "\"left\":\"second\"", "\"reason\":\"too long\"", "\"so\""]
    {
        assert!(out.contains(kept), "{kept}: {out}");
    }
    assert!(out.contains("user-1") && out.contains("user-2") && out.lines().count() == 3, "{out}");
    import("out.jsonl", "preferences");
    assert_eq!(export("again.jsonl"), out);
}

#[test]
fn a_file_is_aggregated_anew_where_a_rule_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let votes =
        r#"{"annotator":"ann","answer":"first"},{"annotator":"bo","answer":"first"},{"annotator":"cy","answer":"tie"}"#;
    let record = format!(
        r#"{{"id":"a","prompt":"q","first":{{"text":"x"}},"second":{{"text":"y"}},"answer":"second","p_first":0.125,"votes":[{votes}]}}"#
    );
    std::fs::write(dir.path().join("p.jsonl"), record).unwrap();
    let export = |rule: &[&str]| {
        let args = [&["annotate", "export", "--in", "p.jsonl", "--out", "out.jsonl"], rule].concat();
        ok(gainsay(dir.path(), &args));
        std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap()
    };
    assert!(export(&[]).contains("\"p_first\":0.125"), "its own answers");
    for rule in ["majority", "dawid-skene"] {
        let out = export(&["--aggregate", rule]);
        assert!(out.contains("\"answer\":\"first\",\"votes\"") && !out.contains("0.125"), "{rule}: {out}");
    }
}

#[test]
fn drafts_of_argilla_are_counted_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"[{"fields":{"prompt":"q","first":"a","second":"b"},"responses":{"preference":[
        {"value":"first","user_id":"ann","status":"submitted"},{"value":"second","user_id":"bo","status":"draft"}]}}]"#;
    std::fs::write(dir.path().join("a.json"), text).unwrap();
    let args = ["annotate", "import", "--in", "a.json", "--format", "argilla", "--out", "out.jsonl"];
    let said = stderr(&ok(gainsay(dir.path(), &args)));
    assert!(said.contains("1 comparisons with 1 votes; 1 drafts are no votes"), "{said}");
}

#[test]
fn serving_says_where_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.jsonl"), PREFERENCES).unwrap();
    ok(gainsay(dir.path(), &["annotate", "import", "--in", "p.jsonl", "--format", "preferences", "--db", "a.db"]));
    let mut server = command(dir.path(), &["annotate", "serve", "--db", "a.db", "--port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn wrong_input_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.jsonl"), PREFERENCES).unwrap();
    std::fs::write(dir.path().join("bad.csv"), "id,prompt,first,second,answer\na,b,c,d,best\n").unwrap();
    let vote = r#"{"annotator":"ann","answer":"first"}"#;
    let twice = format!(
        r#"{{"schema":1,"id":"a","prompt":"q","first":{{"text":"x"}},"second":{{"text":"y"}},"answer":"first","p_first":1.0,"votes":[{vote},{vote}]}}"#
    );
    std::fs::write(dir.path().join("twice.jsonl"), twice + "\n").unwrap();
    let asked = r#"{"schema":1,"id":"p/0-1","prompt_id":"p","prompt":"q","first":{"index":0,"text":"a"},"second":{"index":1,"text":"b"},"strategy":"random","rank":0,"why":{},"flags":[]}"#;
    std::fs::write(dir.path().join("asked.jsonl"), format!("{asked}\n")).unwrap();
    ok(gainsay(dir.path(), &["annotate", "import", "--in", "p.jsonl", "--format", "preferences", "--db", "a.db"]));
    std::fs::write(dir.path().join("bare.jsonl"), PREFERENCES.split(",\"votes\"").next().unwrap().to_owned() + "}")
        .unwrap();
    let cases: [(&[&str], &str); 18] = [
        (&["serve", "--db", "a.db", "--host", "0.0.0.0", "--port", "0"], "GAINSAY_ADMIN_SECRET"),
        (&["serve", "--db", "empty.db", "--port", "0"], "--in"),
        (&["serve", "--in", "p.jsonl", "--db", "b.db", "--port", "0"], "p.jsonl"),
        (&["serve", "--db", "a.db", "--overlap", "0"], "overlap"),
        (&["serve", "--db", "a.db", "--gold-every", "1"], "every 2 to 1000"),
        (&["serve", "--db", "a.db", "--port", "0", "--public-url", "https://h/admin"], "choose another path"),
        (
            &["export", "--db", "a.db", "--format", "rankings", "--aggregate", "majority", "--out", "x.jsonl"],
            "leave it out",
        ),
        (
            &["export", "--in", "p.jsonl", "--format", "csv", "--aggregate", "majority", "--out", "x.jsonl"],
            "leave it out",
        ),
        (&["export", "--in", "bare.jsonl", "--aggregate", "dawid-skene", "--out", "x.jsonl"], "`a` has no votes"),
        (&["import", "--in", "bad.csv", "--format", "csv", "--out", "x.jsonl"], "row 2: the answer `best`"),
        (&["import", "--in", "p.jsonl", "--format", "label-studio", "--out", "x.jsonl"], "p.jsonl"),
        (&["agreement", "--in", "missing.jsonl"], "missing.jsonl"),
        (&["agreement", "--in", "twice.jsonl"], "record `a` has two votes of `ann`"),
        (
            &["serve", "--in", "asked.jsonl", "--db", "new.db", "--host", "0.0.0.0", "--port", "0"],
            "GAINSAY_ADMIN_SECRET",
        ),
        (&["serve", "--in", "asked.jsonl", "--db", "new.db", "--overlap", "0"], "--overlap"),
        (&["serve", "--in", "asked.jsonl", "--db", "new.db", "--port", "0", "--guidelines", "none.md"], "none.md"),
        (&["agreement", "--db", "mistyped.db"], "mistyped.db: there is no such database"),
        (&["export", "--db", "mistyped.db", "--out", "x.jsonl"], "mistyped.db: there is no such database"),
    ];
    for (args, said) in cases {
        let args: Vec<&str> = ["annotate"].iter().chain(args).copied().collect();
        let output = command(dir.path(), &args).env_remove("GAINSAY_ADMIN_SECRET").output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
        assert!(text.contains(said) && text.lines().count() <= 3, "{args:?}: {text}");
    }
    for made in ["x.jsonl", "mistyped.db", "new.db", "empty.db"] {
        assert!(!dir.path().join(made).exists(), "{made}");
    }
}
