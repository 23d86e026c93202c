//! A server that is killed, busy, half dead or wrong: clear errors, nothing lost, no request twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gainsay_core::record::Prompt;
use gainsay_remote::{Client, Memory, RemoteError, RemoteReward};
use serde_json::json;

use crate::server::{Asked, Fake, Reply};
use crate::{address, client, items};

fn ours(asked: &Asked) -> Reply {
    let rewards: Vec<f64> = asked.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["completion"].as_str().unwrap().len() as f64)
        .collect();
    Reply::Json(200, json!({ "rewards": rewards }))
}

fn score(client: Client, texts: &[&str]) -> Result<Vec<f64>, RemoteError> {
    let prompt = Prompt::Text("p".into());
    RemoteReward::connect(client, None, None).unwrap().score(&items(&prompt, texts))
}

#[test]
fn passing_failures_are_tried_again() {
    let fake = Fake::start(|asked, before| match before {
        0 => Reply::Json(500, json!({ "error": "cuda" })),
        1 => Reply::HangUp,
        2 => Reply::Half,
        3 => Reply::With(429, "Retry-After: 0.05", json!({ "error": { "message": "slow down" } })),
        _ => ours(asked),
    });
    let started = Instant::now();
    assert_eq!(score(client(&fake.base, "api=gainsay"), &["a", "bcd"]).unwrap(), [1.0, 3.0]);
    assert_eq!(fake.asked().len(), 5);
    assert!(started.elapsed() >= Duration::from_millis(50), "Retry-After is honored");
}

#[test]
fn a_server_that_stays_away_is_named_with_its_last_words() {
    let fake = Fake::start(|_, _| Reply::Json(503, json!({ "error": { "message": "loading the model" } })));
    let error = score(client(&fake.base, "api=gainsay,retries=2"), &["a"]).unwrap_err();
    assert!(matches!(error, RemoteError::Unavailable { tries: 3, .. }) && !error.is_user_error());
    let said = error.to_string();
    assert!(said.contains("503: loading the model") && said.contains(&fake.base), "{said}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = score(client(&format!("http://{nobody}"), "api=gainsay,retries=1"), &["a"]).unwrap_err();
    assert!(error.to_string().contains("gave up after 2 tries") && error.to_string().contains("does the server run"));
}

#[test]
fn other_refusals_are_final_and_keys_stay_secret() {
    let fake = Fake::start(|asked, _| {
        Reply::Json(401, json!({ "error": { "message": format!("wrong key {}", asked.key.clone().unwrap()) } }))
    });
    let client = Client::with_key(address(&fake.base, "api=gainsay"), None, Some("sesame".into()));
    assert!(!format!("{client:?}").contains("sesame"));
    let error = score(client, &["a"]).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("401") && said.contains("wrong key") && said.contains("GAINSAY_API_KEY"), "{said}");
    assert!(!said.contains("sesame") && error.is_user_error(), "{said}");
    assert_eq!((fake.asked().len(), fake.asked()[0].key.as_deref()), (1, Some("Bearer sesame")));
}

#[test]
fn answers_that_cannot_be_right_are_refused() {
    for (reply, part) in [
        (json!({ "rewards": [1.0] }).to_string(), "1 rewards where 2"),
        (json!({ "rewards": [1.0, 2.0, 3.0] }).to_string(), "3 rewards where 2"),
        ("{\"rewards\":[1.0, NaN]}".to_owned(), "NaN"),
        (json!({ "rewards": [1.0, null] }).to_string(), "reward 1"),
        (json!({ "rewards": [1.0, "x"] }).to_string(), "the text"),
        ("{\"rewards\":[1e999, 1]}".to_owned(), "no JSON"),
        ("<html>hello</html>".to_owned(), "<html>hello"),
        (json!({ "scores": [] }).to_string(), "no list `rewards`"),
    ] {
        let text = reply.clone();
        let fake = Fake::start(move |_, _| Reply::Text(text.clone()));
        let error = score(client(&fake.base, "api=gainsay"), &["a", "b"]).unwrap_err();
        assert!(matches!(error, RemoteError::Answer { .. }) && error.to_string().contains(part), "{error}");
        assert_eq!(fake.asked().len(), 1, "a wrong answer is not asked for again: {reply}");
    }
}

#[test]
fn a_server_that_never_answers_runs_into_the_time_limit() {
    let fake = Fake::start(|asked, before| {
        if before == 0 {
            std::thread::sleep(Duration::from_millis(1500));
        }
        ours(asked)
    });
    let started = Instant::now();
    assert_eq!(score(client(&fake.base, "api=gainsay,timeout=1"), &["abc"]).unwrap(), [3.0]);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn what_is_on_disk_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.answers");
    // The server dies after three answers.
    let fake = Fake::start(|asked, before| if before < 3 { ours(asked) } else { Reply::HangUp });
    let texts: Vec<String> = (1..=8).map(|n| "x".repeat(n)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let run = |base: &str| {
        let memory = Arc::new(Memory::open(&path).unwrap());
        let address = address(base, "api=gainsay,batch=1,concurrency=1,retries=1");
        score(Client::with_key(address, Some(memory), None), &texts)
    };
    let error = run(&fake.base).unwrap_err();
    assert!(matches!(error, RemoteError::Unavailable { .. }) && error.to_string().contains("is on disk"), "{error}");
    // It comes back at the same address: here, the fake begins to answer.
    let dead = fake.asked().len();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    let base = fake.base.clone();
    let proxy = Fake::start(|asked, _| ours(asked));
    let kept = std::fs::read_to_string(&path).unwrap();
    // The keys hold the address: answers of another server do not count.
    assert_eq!(run(&proxy.base).unwrap().len(), 8);
    assert_eq!(proxy.asked().len(), 8);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(&kept));
    assert_eq!(run(&proxy.base).unwrap(), (1..=8).map(f64::from).collect::<Vec<_>>());
    assert_eq!(proxy.asked().len(), 8, "the second run asked again");
    let _ = run(&base);
    // Two tries for the fourth, which alone was asked.
    assert_eq!(fake.asked().len(), dead + 2);
}

#[test]
fn a_key_in_the_path_stays_secret() {
    let fake = Fake::start(|asked, before| match before {
        0 => ours(asked),
        _ => Reply::Json(404, json!({ "error": { "message": format!("nothing at {}", asked.path) } })),
    });
    let prompt = Prompt::Text("p".into());
    let base = format!("{}/k/sesame", fake.base);
    let reward = RemoteReward::connect(client(&base, "api=gainsay"), None, None).unwrap();
    assert_eq!(reward.score(&items(&prompt, &["abc"])).unwrap(), [3.0]);
    assert_eq!(fake.count("/k/sesame/v1/reward"), 1);
    let identity = gainsay_core::engine::RewardFn::identity(&reward);
    assert!(identity.contains("/k/***") && !identity.contains("sesame"), "{identity}");
    let error = reward.score(&items(&prompt, &["abc"])).unwrap_err().to_string();
    assert!(error.contains("nothing at /k/***/v1/reward") && !error.contains("sesame"), "{error}");
}
