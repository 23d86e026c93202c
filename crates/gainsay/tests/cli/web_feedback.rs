//! `feedback = "web"`: a run waits for people, is stopped, goes on, and trains from what they said.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::command;
use crate::whole_loop::prepared;

/// A run that serves its page, and the lines of its stderr.
struct Run {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Run {
    fn start(dir: &Path) -> Self {
        let args = ["run", "web.toml", "--out", "run", "--threads", "2"];
        let mut command = command(dir, &args);
        command.env_remove("GAINSAY_ADMIN_SECRET").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        Self { child, stderr, said: String::new() }
    }

    /// Reads on until a line holds `text`; what stands behind it there.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).expect("text") > 0, "no `{text}` in {}", self.said);
            self.said.push_str(&line);
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.said).expect("text");
        (self.child.wait().expect("it ends").code(), self.said)
    }
}

/// Somebody's browser.
struct Browser {
    host: String,
    cookie: String,
}

impl Browser {
    /// Opens an invite link and reads the guidelines.
    fn invited(link: &str) -> Self {
        let (host, path) = link.strip_prefix("http://").expect("a link").split_once('/').expect("a path");
        let mut browser = Self { host: host.into(), cookie: String::new() };
        let accepted = browser.ask("POST", &format!("/{path}"), "");
        let cookie = accepted.lines().find_map(|l| l.strip_prefix("set-cookie: ")).expect("a session");
        browser.cookie = cookie.split(';').next().expect("a value").into();
        let page = browser.ask("GET", "/guidelines", "");
        browser.ask("POST", "/guidelines", &format!("csrf={}", value(&page, "csrf")));
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).expect("the server listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            self.cookie,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn answer(&self, answer: &str) {
        let page = self.ask("GET", "/work", "");
        let [csrf, item, ticket] = ["csrf", "item", "ticket"].map(|name| value(&page, name));
        let said = self.ask("POST", "/work", &format!("csrf={csrf}&item={item}&ticket={ticket}&{answer}"));
        assert!(said.starts_with("HTTP/1.1 303"), "{said}");
    }
}

fn value(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let at = page.find(&start).unwrap_or_else(|| panic!("no {name} in {page}")) + start.len();
    page[at..].split('"').next().expect("a value").to_owned()
}

#[test]
#[cfg(unix)]
fn a_run_waits_for_people_is_stopped_and_goes_on_with_what_they_said() {
    let dir = prepared();
    let recipe = include_str!("tiny.toml")
        .replace("rounds = 2", "rounds = 1\nfeedback = \"web\"")
        .replace("[\"shf-cas\", \"random-spread\"]", "[\"shf-cas\"]");
    fs::write(dir.path().join("web.toml"), recipe).expect("the recipe");
    let folder = dir.path().join("run/round-1/shf-cas");

    let mut run = Run::start(dir.path());
    let person = Browser::invited(&run.wait_for("a first invite: "));
    person.answer("answer=left2");
    person.answer("answer=right1&comment=better");
    let sent = Command::new("kill").args(["-INT", &run.child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let (code, said) = run.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("The same command goes on where it stopped"), "{said}");
    assert!(!folder.join("preferences.jsonl").exists(), "half of the answers are no file");

    let mut run = Run::start(dir.path());
    let person = Browser::invited(&run.wait_for("a first invite: "));
    for answer in ["answer=tie", "answer=both_bad", "answer=left1"] {
        person.answer(answer);
    }
    // The last one is skipped by everybody who is there, so nothing is left.
    person.answer("answer=skip&reason=no+idea");
    let (code, said) = run.end();
    assert_eq!(code, Some(0), "{said}");

    let text = fs::read_to_string(folder.join("preferences.jsonl")).expect("the preferences");
    let records: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("a record")).collect();
    assert_eq!(records.len(), 6, "{text}");
    assert!(records.iter().all(|r| r["source"] == "web" && r["votes"][0]["annotator"] == "annotator"));
    let count = |answer: &str| records.iter().filter(|r| r["answer"] == answer).count();
    assert_eq!((count("tie"), count("both_bad"), count("skip")), (1, 1, 1), "{text}");
    assert!(text.contains("\"comment\":\"better\""), "what was said before the stop is there");
    assert!(folder.join("reward").is_dir() && folder.join("evaluation.json").exists(), "the run went on to its end");
}
