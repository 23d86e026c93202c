//! The judge asks both orders.

use gainsay_core::engine::{Comparison, Oracle as _};
use gainsay_core::record::Prompt;
use gainsay_remote::judge::Judge;
use serde_json::json;

use crate::server::{Fake, Reply};
use crate::{client, items};

#[test]
fn both_orders_are_asked_and_a_favored_place_cancels() {
    // Always 0.8 for A; and 0.95 for the answer that says "good", wherever it stands.
    let fake = Fake::start(|asked, _| {
        let question = asked.body["messages"][0]["content"].as_str().unwrap();
        let a = question.split("[Answer A]").nth(1).unwrap().split("[Answer B]").next().unwrap();
        let good_in_a = a.contains("good");
        let p: f64 = match (question.contains("good"), good_in_a) {
            (false, _) => 0.8,
            (true, true) => 0.95,
            (true, false) => 0.05,
        };
        let top = json!([{ "token": "A", "logprob": p.ln() }, { "token": "B", "logprob": (1.0 - p).ln() }]);
        Reply::Json(
            200,
            json!({
            "choices": [{ "message": { "content": "A" }, "logprobs": { "content": [{ "token": "A", "logprob": p.ln(), "top_logprobs": top }] } }],
            "usage": { "prompt_tokens": 50, "completion_tokens": 1 } }),
        )
    });
    let judge = Judge::connect(client(&fake.base, "model=j"), None).unwrap();
    let prompt = Prompt::Text("q".into());
    let sides = items(&prompt, &["fine", "okay", "bad", "good"]);
    let pair = |id, i: usize, j: usize| Comparison { id, first: sides[i].clone(), second: sides[j].clone() };
    let pairs = [pair("1", 0, 1), pair("2", 2, 3)];
    let judged = judge.judge(&pairs).unwrap();
    assert!((judged[0].p_first.unwrap() - 0.5).abs() < 1e-9 && judged[0].flips_with_order());
    assert!((judged[1].p_first.unwrap() - 0.05).abs() < 1e-9 && !judged[1].flips_with_order());
    assert_eq!((fake.count("/v1/chat/completions"), judged[0].tokens()), (4, (100, 2)));
    assert_eq!(judge.compare(&pairs).unwrap()[1].map(|p| p < 0.5), Some(true));
    assert!(Judge::connect(client(&fake.base, "model=j"), Some("no places")).is_err());
}

#[test]
fn a_judge_without_log_probs_is_asked_without_them() {
    let fake = Fake::start(|asked, _| match asked.body["logprobs"].is_null() {
        true => Reply::Json(200, json!({ "choices": [{ "message": { "content": "A" } }] })),
        false => Reply::Json(400, json!({ "error": { "message": "logprobs are not supported" } })),
    });
    let judge = Judge::connect(client(&fake.base, "model=j,concurrency=1"), None).unwrap();
    let prompt = Prompt::Text("q".into());
    let sides = items(&prompt, &["fine", "okay"]);
    let pair = Comparison { id: "1", first: sides[0].clone(), second: sides[1].clone() };
    assert!(!judge.refuses_logprobs());
    let judged = judge.judge(std::slice::from_ref(&pair)).unwrap();
    assert_eq!((judged[0].p_first, judged[0].orders[0].from_logprobs), (Some(0.5), false));
    assert_eq!((fake.asked().len(), judge.refuses_logprobs()), (3, true), "it is refused once");
    // A refusal for another reason stays what it is, in the server's words.
    let broke = Fake::start(|_, _| Reply::Json(400, json!({ "error": { "message": "out of credit" } })));
    let judge = Judge::connect(client(&broke.base, "model=j,concurrency=1"), None).unwrap();
    let error = judge.judge(&[pair]).unwrap_err().to_string();
    assert!(error.contains("out of credit") && !judge.refuses_logprobs(), "{error}");
}
