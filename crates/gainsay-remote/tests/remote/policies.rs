//! Sampling and log-probs through each protocol, on answers in the servers' documented form.

use std::sync::Arc;

use gainsay_core::engine::{Decoding, LogProb as _, SampleRequest, Sampler as _};
use gainsay_core::record::{Finish, Prompt};
use gainsay_remote::policy::{Echo, PolicyApi, Reported};
use gainsay_remote::{RemoteError, RemotePolicy};
use serde_json::{Value, json};

use crate::server::{Asked, Fake, Reply};
use crate::{Bytes, client, items};

fn models(owner: &str) -> Reply {
    Reply::Json(200, json!({ "data": [{ "id": "m", "owned_by": owner }] }))
}

fn requests(n: usize) -> Vec<SampleRequest> {
    ["q", "r"].map(|p| SampleRequest { id: p.into(), prompt: Prompt::Text(p.into()), n }).into()
}

fn at(temperature: f64) -> Decoding {
    Decoding { temperature, max_new_tokens: 4, ..Decoding::default() }
}

/// vLLM: two tokens and the turn end; raw log-probs; prompt log-probs of -id/1000.
fn vllm(asked: &Asked) -> Reply {
    if asked.path == "/v1/models" {
        return models("vllm");
    }
    if !asked.body["prompt_logprobs"].is_null() {
        let ids = asked.body["prompt"].as_array().unwrap();
        let row = |id: &Value| json!({ id.to_string(): { "logprob": -id.as_f64().unwrap() / 1000.0, "rank": 1 } });
        let rows: Vec<Value> = std::iter::once(Value::Null).chain(ids[1..].iter().map(row)).collect();
        return Reply::Json(200, json!({ "choices": [{ "text": "", "prompt_logprobs": rows }] }));
    }
    let n = asked.body["n"].as_u64().unwrap_or(1);
    let choice = |i: u64| {
        json!({ "index": i, "text": "ab", "finish_reason": "stop", "token_ids": [97, 98, 257],
                "logprobs": { "tokens": ["a", "b", ""], "token_logprobs": [-0.5, -1.0, -0.25],
                              "top_logprobs": [{ "a": -0.01, "c": -5.0 }, { "b": -1.0 }, { "": -0.25 }] } })
    };
    Reply::Json(200, json!({ "choices": (0..n).map(choice).collect::<Vec<_>>() }))
}

#[test]
fn vllm_samples_with_ids_and_scores_prompts() {
    let fake = Fake::start(|asked, _| vllm(asked));
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!(
        (policy.api(), policy.reported(), policy.echo()),
        (PolicyApi::Completions, &Reported::Raw, &Echo::PromptLogprobs)
    );
    let sampled = policy.sample(&requests(3), &at(0.7)).unwrap();
    assert_eq!(sampled.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    let c = &sampled[0][0];
    assert_eq!((c.text.as_str(), c.finish, c.n_tokens), ("ab", Some(Finish::Stop), Some(3)));
    assert_eq!((c.token_ids.as_deref(), c.logp), (Some([97, 98, 257].as_slice()), Some(-1.75)));
    let asked = fake.asked();
    let draws: Vec<&Asked> = asked.iter().filter(|a| a.body["n"] == 3).collect();
    assert_eq!(draws.len(), 2, "one request a prompt");
    assert_eq!(draws[0].body["return_token_ids"], true);
    assert_ne!(draws[0].body["seed"], draws[1].body["seed"]);
    let prompt = Prompt::Text("q".into());
    let scored = policy.logps(&items(&prompt, &["a"])).unwrap();
    assert_eq!(scored[0].token_logps, [-0.097, -0.257], "the answer and its turn end");
}

#[test]
fn processed_log_probs_are_scored_again() {
    let fake = Fake::start(|asked, _| {
        let temperature = asked.body["temperature"].as_f64().unwrap_or(1.0);
        match vllm(asked) {
            Reply::Json(status, mut body) if body.pointer("/choices/0/logprobs").is_some() => {
                body["choices"][0]["logprobs"]["top_logprobs"][0] = json!({ "a": -0.01, "c": -5.0 / temperature });
                Reply::Json(status, body)
            }
            other => other,
        }
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!(policy.reported(), &Reported::Processed);
    let sampled = policy.sample(&requests(1), &at(0.7)).unwrap();
    // -(97 + 98 + 257) / 1000.
    assert!((sampled[0][0].logp.unwrap() + 0.452).abs() < 1e-6);
    assert!(gainsay_core::engine::Sampler::identity(&policy).contains("scored again at temperature 1"));
    // At temperature 1 without cuts they are the same thing.
    let sampled = policy.sample(&requests(1), &at(1.0)).unwrap();
    assert_eq!(sampled[0][0].logp, Some(-1.75));
}

/// A server that echoes and knows no ids: bytes as tokens, -0.5 each; leaves out the first.
fn echoing(asked: &Asked) -> Reply {
    if asked.path == "/v1/models" {
        return models("me");
    }
    let prompt = asked.body["prompt"].as_str().unwrap();
    let echo = asked.body["echo"] == true;
    // `<s>` is left out and `</s>` is one token, as llama.cpp does.
    let given: Vec<String> = if echo {
        prompt.replace("<s>", "").replace("</s>", "\u{1}").chars().map(String::from).collect()
    } else {
        vec![]
    };
    let added: Vec<String> = ["h", "i"].map(String::from).into();
    let mut tokens: Vec<String> = given.iter().chain(if echo { &added[..1] } else { &added }).cloned().collect();
    tokens.iter_mut().filter(|t| *t == "\u{1}").for_each(String::clear);
    let logps: Vec<Value> = (0..tokens.len()).map(|i| if echo && i == 0 { Value::Null } else { json!(-0.5) }).collect();
    let offsets: Vec<usize> = (0..tokens.len()).collect();
    let top: Vec<Value> = tokens.iter().map(|t| json!({ t.as_str(): -0.5 })).collect();
    let completion_tokens = if echo { 1 } else { 2 };
    Reply::Json(
        200,
        json!({ "choices": [{ "index": 0, "text": "hi", "finish_reason": "stop",
                "logprobs": { "tokens": tokens, "token_logprobs": logps, "top_logprobs": top, "text_offset": offsets } }],
                "usage": { "prompt_tokens": given.len() + 1, "completion_tokens": completion_tokens } }),
    )
}

#[test]
fn a_server_without_ids_is_counted_from_the_end() {
    let fake = Fake::start(|asked, _| echoing(asked));
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!(policy.echo(), &Echo::Echo);
    let sampled = policy.sample(&requests(2), &at(0.7)).unwrap();
    let c = &sampled[0][1];
    // h, i and the turn end, which the server did not report: scored again.
    assert_eq!((c.text.as_str(), c.logp, c.n_tokens, c.token_ids.as_ref()), ("hi", Some(-1.5), Some(3), None));
    let asked = fake.asked();
    let seeds: Vec<&Value> = asked.iter().filter(|a| a.body["max_tokens"] == 4).map(|a| &a.body["seed"]).collect();
    assert_eq!(seeds.len(), 4, "one request a completion");
    assert!(seeds.iter().enumerate().all(|(i, s)| !seeds[..i].contains(s)), "{seeds:?}");
    let verbatim = RemotePolicy::connect(client(&fake.base, "raw"), None).unwrap();
    let prompt = Prompt::Text("ab".into());
    assert_eq!(verbatim.logps(&items(&prompt, &["cde"])).unwrap()[0].token_logps, [-0.5; 3]);
}

#[test]
fn other_tokens_than_the_completions_are_refused() {
    // This server knows "ab" as one token, so its last four are not "ab" and its turn end.
    let merging = |asked: &Asked| match echoing(asked) {
        Reply::Json(status, mut body) if asked.body["echo"] == true => {
            let logprobs = body["choices"][0]["logprobs"].clone();
            let mut tokens: Vec<Value> = logprobs["tokens"].as_array().unwrap().clone();
            let Some(a) = tokens.windows(2).position(|w| w[0] == "a" && w[1] == "b") else {
                return Reply::Json(status, body);
            };
            tokens[a] = json!("ab");
            tokens.remove(a + 1);
            let offsets: Vec<usize> = (0..tokens.len()).collect();
            body["choices"][0]["logprobs"] =
                json!({ "tokens": tokens, "token_logprobs": vec![-0.5; tokens.len()], "text_offset": offsets });
            Reply::Json(status, body)
        }
        other => other,
    };
    let fake = Fake::start(move |asked, _| merging(asked));
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    let prompt = Prompt::Text("question".into());
    assert_eq!(policy.logps(&items(&prompt, &["ba"])).unwrap()[0].token_logps, [-0.5; 3]);
    let error = policy.scored(&items(&prompt, &["ab"])).unwrap_err();
    assert!(matches!(&error, RemoteError::Answer { .. }), "{error}");
    assert!(error.to_string().contains("\"nab\"") && error.to_string().contains("#tokenizer="), "{error}");
}

#[test]
fn a_gateway_that_fails_at_first_hides_no_server() {
    for status in [502, 503, 504, 429] {
        let fake = Fake::start(move |asked, before| match before {
            0 | 2 | 4 => Reply::Json(status, json!({ "detail": "no upstream" })),
            _ => vllm(asked),
        });
        let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
        let (kind, reported) = (policy.kind().to_string(), policy.reported());
        assert_eq!((kind.as_str(), reported, policy.echo()), ("vllm", &Reported::Raw, &Echo::PromptLogprobs));
        // A protocol that is named spares no question of who it is.
        let fake = Fake::start(move |asked, _| match asked.path.as_str() {
            "/v1/models" => Reply::Json(status, json!({ "detail": "no upstream" })),
            _ => vllm(asked),
        });
        let named = client(&fake.base, "api=completions,retries=1");
        let error = RemotePolicy::connect(named, Some(Arc::new(Bytes))).err().unwrap();
        assert!(matches!(error, RemoteError::Unavailable { tries: 2, .. }), "{error}");
    }
}

#[test]
fn a_server_that_lists_no_alternatives_is_scored_again() {
    let fake = Fake::start(|asked, _| match asked.body["logprobs"] == 2 {
        true => Reply::Json(400, json!({ "error": { "message": "logprobs: at most 1" } })),
        false => vllm(asked),
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!(policy.reported(), &Reported::Processed);
}

#[test]
fn chat_says_that_the_rendering_is_the_servers() {
    let fake = Fake::start(|asked, _| match asked.path.as_str() {
        "/v1/models" => models("somebody"),
        "/v1/chat/completions" => Reply::Json(
            200,
            json!({ "choices": [{ "index": 0, "finish_reason": "length", "message": { "role": "assistant", "content": "hi" },
                    "logprobs": { "content": [{ "token": "hi", "logprob": -0.5, "top_logprobs": [
                        { "token": "hi", "logprob": -0.5 }, { "token": "ho", "logprob": -1.5 }] }] } }] }),
        ),
        _ => Reply::Json(404, json!({ "detail": "Not Found" })),
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), None).unwrap();
    assert_eq!(policy.api(), PolicyApi::Chat);
    let sampled = policy.sample(&requests(1), &at(0.7)).unwrap();
    assert_eq!((sampled[0][0].logp, sampled[0][0].finish), (Some(-0.5), Some(Finish::Length)));
    assert!(gainsay_core::engine::Sampler::identity(&policy).contains("rendered by server"));
    let prompt = Prompt::Text("q".into());
    let error = policy.scored(&items(&prompt, &["a"])).unwrap_err();
    assert!(matches!(&error, RemoteError::Unsupported { .. }) && error.to_string().contains("#tokenizer="), "{error}");
}

#[test]
fn a_server_that_cannot_list_its_models_is_asked_all_the_same() {
    let fake = Fake::start(|asked, _| match asked.path.as_str() {
        "/v1/models" => Reply::Json(500, json!({ "detail": "Cache directory not found" })),
        "/v1/completions" => Reply::Json(
            200,
            json!({ "choices": [{ "index": 0, "finish_reason": "length", "text": "hi" }], "usage": { "prompt_tokens": 2 } }),
        ),
        _ => Reply::Json(404, json!({ "detail": "Not Found" })),
    });
    let policy = RemotePolicy::connect(client(&fake.base, "model=m"), Some(Arc::new(Bytes))).unwrap();
    assert_eq!((policy.api(), policy.model(), policy.reported()), (PolicyApi::Completions, Some("m"), &Reported::None));
    let sampled = policy.sample(&requests(1), &at(0.7)).unwrap();
    assert_eq!((sampled[0][0].text.as_str(), sampled[0][0].logp), ("hi", None));
    let prompt = Prompt::Text("q".into());
    let error = policy.scored(&items(&prompt, &["a"])).unwrap_err();
    assert!(error.to_string().contains("does not give the log-probs of given completions"), "{error}");
}

#[test]
fn sglang_scores_at_temperature_one() {
    let fake = Fake::start(|asked, _| match asked.path.as_str() {
        "/get_model_info" => Reply::Json(200, json!({ "model_path": "m" })),
        "/generate" if asked.body["sampling_params"]["max_new_tokens"] == 0 => {
            let row = |(i, id): (usize, &Value)| {
                if i == 0 { json!([null, id, null]) } else { json!([-id.as_f64().unwrap() / 1000.0, id, null]) }
            };
            let rows: Vec<Value> = asked.body["input_ids"].as_array().unwrap().iter().enumerate().map(row).collect();
            Reply::Json(200, json!({ "text": "", "meta_info": { "input_token_logprobs": rows } }))
        }
        "/generate" => Reply::Json(
            200,
            json!({ "text": "a", "meta_info": { "finish_reason": { "type": "stop", "matched": 257 },
                    "output_token_logprobs": [[-9.0, 97, null], [-9.0, 257, null]] } }),
        ),
        _ => Reply::Json(404, json!({})),
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!((policy.api(), policy.reported()), (PolicyApi::Sglang, &Reported::Processed));
    let sampled = policy.sample(&requests(1), &at(0.7)).unwrap();
    assert!((sampled[0][0].logp.unwrap() + 0.354).abs() < 1e-6, "{:?}", sampled[0][0]);
    let error = RemotePolicy::connect(client(&fake.base, "api=sglang"), None).err().unwrap();
    assert!(error.to_string().contains("#tokenizer="), "{error}");
}

#[test]
fn trl_serves_ids() {
    let fake = Fake::start(|asked, _| match asked.path.as_str() {
        "/get_world_size/" => Reply::Json(200, json!({ "world_size": 1 })),
        "/generate/" => Reply::Json(
            200,
            json!({ "prompt_ids": [[256, 113]], "completion_ids": [[97, 257], [98, 99]],
                    "logprobs": [[[-0.5], [-0.25]], [[-1.0], [-2.0]]], "logprob_token_ids": [[[97], [257]], [[98], [99]]] }),
        ),
        "/get_sequence_logprobs/" => {
            let ids = asked.body["sequences"][0].as_array().unwrap();
            let start = asked.body["prompt_lengths"][0].as_u64().unwrap() as usize;
            // The likeliest token first, then the one that stands there.
            let ids: Vec<Value> = ids[start..].iter().map(|id| json!([1, id])).collect();
            let logps: Vec<Value> = ids.iter().map(|i| json!([-0.1, -i[1].as_f64().unwrap() / 1000.0])).collect();
            Reply::Json(200, json!({ "logprobs": [logps], "logprob_token_ids": [ids] }))
        }
        _ => Reply::Json(404, json!({})),
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    assert_eq!(policy.api(), PolicyApi::Trl);
    let sampled = policy.sample(&requests(2)[..1], &at(1.0)).unwrap();
    assert_eq!(
        (sampled[0][0].logp, sampled[0][0].finish, sampled[0][0].text.as_str()),
        (Some(-0.75), Some(Finish::Stop), "a")
    );
    assert_eq!((sampled[0][1].logp, sampled[0][1].finish), (Some(-3.0), Some(Finish::Length)));
    let prompt = Prompt::Text("q".into());
    assert_eq!(policy.logps(&items(&prompt, &["a"])).unwrap()[0].token_logps, [-0.097, -0.257]);
}

#[test]
fn answers_of_other_lengths_are_refused() {
    for (change, part) in [
        (json!({ "choices": [] }), "0 completions where 1"),
        (
            json!({ "choices": [{ "text": "a", "finish_reason": "stop", "token_ids": [1], "logprobs": { "token_logprobs": [-1.0, -2.0] } }] }),
            "1 token ids and 2",
        ),
        (
            json!({ "choices": [{ "text": "a", "finish_reason": "stop", "logprobs": { "token_logprobs": [0.5] } }] }),
            "log-prob is 0.5",
        ),
        (json!({ "choices": [{ "text": "a", "finish_reason": "abort" }] }), "finish_reason"),
    ] {
        let fake = Fake::start(move |asked, _| match asked.body["max_tokens"] == 4 {
            true => Reply::Json(200, change.clone()),
            false => vllm(asked),
        });
        let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
        let error = policy.complete(&requests(1), &at(1.0)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}
