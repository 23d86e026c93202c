//! Exchanges as the servers' projects published them, for the servers that do not run on the machines
//! that check this one. The answers are theirs, word for word; none was recorded here.
//!
//! | exchange | published in |
//! |---|---|
//! | vLLM `/classify` | vLLM's format in SGLang's documentation, "Classification API" |
//! | SGLang `/model_info`, `/generate` | SGLang's documentation, "SGLang Native APIs", run by its CI 2026-03-03 |
//! | TEI `/predict` | text-embeddings-inference, `router/src/http/types.rs`: examples of its API schema |

use std::sync::Arc;

use gainsay_core::engine::{Decoding, SampleRequest};
use gainsay_core::record::Prompt;
use gainsay_remote::reward::RewardApi;
use gainsay_remote::{RemotePolicy, RemoteReward};
use serde_json::{Value, json};

use crate::server::{Fake, Reply};
use crate::{Bytes, client, items};

/// A server that knows these paths, with these answers.
fn server(answers: &'static [(&'static str, &'static str)]) -> Fake {
    Fake::start(|asked, _| match answers.iter().find(|(path, _)| *path == asked.path) {
        Some((_, answer)) => Reply::Text((*answer).to_owned()),
        None => Reply::Json(404, json!({ "detail": "Not Found" })),
    })
}

/// The reward of one completion.
fn reward(fake: &Fake, options: &str) -> Result<f64, String> {
    let prompt = Prompt::Text("q".into());
    let remote = RemoteReward::connect(client(&fake.base, options), Some(Arc::new(Bytes)), None);
    let rewards = remote.and_then(|remote| remote.score(&items(&prompt, &["a"])));
    rewards.map(|r| r[0]).map_err(|error| error.to_string())
}

#[test]
fn vllm_classify() {
    let fake = server(&[(
        "/classify",
        r#"{"id": "classify-9bf17f2847b046c7b2d5495f4b4f9682", "object": "list", "created": 1745383213,
            "model": "jason9693/Qwen2.5-1.5B-apeach",
            "data": [{"index": 0, "label": "Default", "probs": [0.565970778465271, 0.4340292513370514], "num_classes": 2}],
            "usage": {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": null}}"#,
    )]);
    // The last of the classes, as verl's client reads it.
    assert_eq!(reward(&fake, "api=vllm-classify,model=m"), Ok(0.434_029_251_337_051_4));
}

const SGLANG_INFO: &str = r#"{"model_path": "qwen/qwen2.5-0.5b-instruct", "tokenizer_path": "qwen/qwen2.5-0.5b-instruct",
    "is_generation": true, "preferred_sampling_params": null, "weight_version": "default", "has_image_understanding": false,
    "has_audio_understanding": false, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}"#;

/// Asked without `return_logprob`; the text is cut here.
const SGLANG_GENERATE: &str = r#"{"text": "  Berne", "output_ids": [220, 8907, 811],
    "meta_info": {"id": "93fff4f1dfd3496eb1f725361d64333b", "finish_reason": {"type": "length", "length": 128},
    "prompt_tokens": 7, "weight_version": "default", "total_retractions": 0, "completion_tokens": 128, "cached_tokens": 0,
    "cached_tokens_details": null, "dp_rank": null, "e2e_latency": 0.27121597435325384,
    "response_sent_to_client_ts": 1772580196.322954}}"#;

#[test]
fn sglang_is_recognized_by_either_name_of_its_model_info() {
    for fake in [server(&[("/model_info", SGLANG_INFO)]), server(&[("/get_model_info", SGLANG_INFO)])] {
        let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
        assert_eq!(
            (policy.kind().to_string().as_str(), policy.model()),
            ("sglang", Some("qwen/qwen2.5-0.5b-instruct"))
        );
        let remote = RemoteReward::connect(client(&fake.base, ""), Some(Arc::new(Bytes)), None).unwrap();
        assert_eq!(remote.api(), RewardApi::SglangClassify);
    }
}

#[test]
fn sglang_without_log_probs_is_refused_in_words() {
    let fake = server(&[("/model_info", SGLANG_INFO), ("/generate", SGLANG_GENERATE)]);
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    let request = [SampleRequest { id: "p".into(), prompt: Prompt::Text("q".into()), n: 1 }];
    let error = policy.complete(&request, &Decoding { max_new_tokens: 4, ..Decoding::default() }).unwrap_err();
    assert!(error.to_string().contains("it has no meta_info.output_token_logprobs"), "{error}");
    // The same exchange with the two fields that `return_logprob` adds, in the documented form.
    let mut whole: Value = serde_json::from_str(SGLANG_GENERATE).unwrap();
    whole["meta_info"]["output_token_logprobs"] = json!([[-0.5, 220, null], [-1.0, 8907, null], [-0.25, 811, null]]);
    let answer: &'static str = Box::leak(whole.to_string().into_boxed_str());
    let fake = Fake::start(move |asked, _| match asked.path.as_str() {
        "/model_info" => Reply::Text(SGLANG_INFO.to_owned()),
        "/generate" => Reply::Text(answer.to_owned()),
        _ => Reply::Json(404, json!({ "detail": "Not Found" })),
    });
    let policy = RemotePolicy::connect(client(&fake.base, ""), Some(Arc::new(Bytes))).unwrap();
    let decoding = Decoding { max_new_tokens: 4, temperature: 1.0, ..Decoding::default() };
    let drawn = policy.complete(&request, &decoding).unwrap();
    assert_eq!((drawn[0][0].text.as_str(), drawn[0][0].logp), ("  Berne", Some(-1.75)));
}

#[test]
fn tei_predict() {
    let fake = server(&[("/predict", r#"[[{"score": 0.5, "label": "admiration"}]]"#)]);
    assert_eq!(reward(&fake, "api=tei"), Ok(0.5));
    let flat = server(&[("/predict", r#"[{"score": 0.5, "label": "admiration"}]"#)]);
    assert_eq!(reward(&flat, "api=tei"), Ok(0.5));
    let many = server(&[("/predict", r#"[[{"score": 0.5, "label": "admiration"}, {"score": 0.25, "label": "joy"}]]"#)]);
    assert!(reward(&many, "api=tei").unwrap_err().contains("2 labels"));
}
