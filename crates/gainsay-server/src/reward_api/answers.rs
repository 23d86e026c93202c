//! Bodies: from the protocols to samples, and from rewards to the protocols. Pure functions.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gainsay_core::record::{Finish, Prompt};
use serde_json::{Value, json};

use super::item::Item;

/// An error as clients show it.
pub(super) fn fail(status: StatusCode, message: &str) -> Response {
    let kind = if status.is_client_error() { "invalid_request" } else { "server_error" };
    (status, Json(json!({ "error": { "message": message, "type": kind, "code": status.as_u16() } }))).into_response()
}

/// Rewards of a request, with what was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scores {
    /// Mean over the ensemble.
    pub rewards: Vec<f64>,
    /// Population variance over the ensemble; none for one member.
    pub variances: Option<Vec<f64>>,
    /// Tokens of the samples, where counted.
    pub tokens: u64,
    /// Name of the model.
    pub model: String,
}

impl Scores {
    /// From one list of members' rewards a sample.
    pub fn of(members: &[Vec<f64>], tokens: u64, model: String) -> Self {
        let mean = |r: &Vec<f64>| r.iter().sum::<f64>() / r.len().max(1) as f64;
        let variance = |r: &Vec<f64>| r.iter().map(|x| (x - mean(r)).powi(2)).sum::<f64>() / r.len().max(1) as f64;
        let ensemble = members.first().is_some_and(|r| r.len() > 1);
        Self {
            // One member's reward keeps its bits: x / 1 is x.
            rewards: members.iter().map(mean).collect(),
            variances: ensemble.then(|| members.iter().map(variance).collect()),
            tokens,
            model,
        }
    }
}

type Parsed<T> = Result<T, String>;

fn text(value: &Value, name: &str) -> Parsed<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` must be text"))
}

fn ids(values: &[Value]) -> Option<Vec<u32>> {
    values.iter().map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

/// A text, a list of texts, a list of token ids, or a list of such lists.
pub(super) fn inputs(value: &Value, name: &str) -> Parsed<Vec<Item>> {
    let wrong = || format!("`{name}` must be text, a list of texts, token ids or lists of token ids");
    match value {
        Value::String(text) => Ok(vec![Item::Text(text.clone())]),
        Value::Array(values) if values.first().is_some_and(Value::is_number) => {
            Ok(vec![Item::Ids(ids(values).ok_or_else(wrong)?)])
        }
        Value::Array(values) => values
            .iter()
            .map(|value| match value {
                Value::String(text) => Ok(Item::Text(text.clone())),
                Value::Array(list) => Ok(Item::Ids(ids(list).ok_or_else(wrong)?)),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// OpenRLHF: `query`; absent, null or empty is no sample.
pub(super) fn openrlhf(body: &Value) -> Parsed<Vec<Item>> {
    if body["query"].is_null() { Ok(Vec::new()) } else { inputs(&body["query"], "query") }
}

/// `/classify` and `/pooling`: vLLM's `input` or `messages`, SGLang's `text`.
pub(super) fn classify(body: &Value) -> Parsed<Vec<Item>> {
    if let Some(task) = body["task"].as_str().filter(|t| !matches!(*t, "classify" | "score")) {
        return Err(format!("task `{task}`: this server gives one reward a sequence (task `classify`)"));
    }
    match (&body["input"], &body["text"], &body["messages"]) {
        (Value::Null, Value::Null, Value::Array(_)) => Ok(vec![conversation(&body["messages"])?]),
        (Value::Null, Value::Null, _) => Err("give `input`, `text` or `messages`".into()),
        (Value::Null, text, _) => inputs(text, "text"),
        (input, _, _) => inputs(input, "input"),
    }
}

/// A whole conversation: its last turn, the assistant's, is the completion.
fn conversation(messages: &Value) -> Parsed<Item> {
    let mut turns = messages.as_array().cloned().unwrap_or_default();
    let last = turns.pop().filter(|turn| turn["role"] == "assistant");
    let last = last.ok_or("the last of `messages` must be the assistant's: it is what is scored")?;
    Ok(Item::Parts {
        prompt: prompt(&Value::Array(turns))?,
        completion: text(&last["content"], "content")?,
        finish: None,
    })
}

/// Text or turns.
fn prompt(value: &Value) -> Parsed<Prompt> {
    let wrong = |e: String| format!("`prompt` must be text or a list of {{\"role\",\"content\"}} turns: {e}");
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(turns) if !turns.is_empty() => {
            let turn = |t: &Value| match (t["role"].as_str(), t["content"].as_str()) {
                (Some(role @ ("system" | "user" | "assistant")), Some(content)) => {
                    Ok(gainsay_core::record::Message { role: role.into(), content: content.into() })
                }
                _ => Err(wrong("a turn has a role (system, user, assistant) and a content that is text".into())),
            };
            turns.iter().map(turn).collect::<Parsed<Vec<_>>>().map(Prompt::Chat)
        }
        _ => Err(wrong("it is neither".into())),
    }
}

/// vLLM's `/score`: prompt and completion as a cross-encoder's two texts.
pub(super) fn score(body: &Value) -> Parsed<Vec<Item>> {
    let list = |name: &str| match &body[name] {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|v| text(v, name)).collect(),
        _ => Err(format!("`{name}` must be text or a list of texts")),
    };
    let (first, second) = (list("text_1")?, list("text_2")?);
    if first.len() != second.len() && first.len() != 1 {
        return Err(format!("`text_1` holds {} texts and `text_2` {}", first.len(), second.len()));
    }
    let prompts = first.iter().cycle().zip(&second);
    Ok(prompts
        .map(|(p, c)| Item::Parts { prompt: Prompt::Text(p.clone()), completion: c.clone(), finish: None })
        .collect())
}

/// TEI: `inputs` is text, or a list of one-element lists. A flat list of two texts is a pair
/// there, which a reward model does not take.
pub(super) fn tei(body: &Value) -> Parsed<Vec<Item>> {
    let pair = || {
        "`inputs` must be text or a list of one-element lists, [[\"a\"], [\"b\"]]; two texts in one list are a pair"
            .to_owned()
    };
    match &body["inputs"] {
        Value::String(text) => Ok(vec![Item::Text(text.clone())]),
        Value::Array(values) if values.iter().all(Value::is_array) => values
            .iter()
            .map(|v| match v.as_array().map(Vec::as_slice) {
                Some([Value::String(text)]) => Ok(Item::Text(text.clone())),
                _ => Err(pair()),
            })
            .collect(),
        Value::Array(values) => match values.as_slice() {
            [Value::String(text)] => Ok(vec![Item::Text(text.clone())]),
            _ => Err(pair()),
        },
        _ => Err(pair()),
    }
}

/// `/v1/reward`: `items`, or one `prompt` with its `completions`.
pub(super) fn own(body: &Value) -> Parsed<Vec<Item>> {
    let finish = |value: &Value| match value.as_str() {
        None if value.is_null() => Ok(None),
        Some("stop") => Ok(Some(Finish::Stop)),
        Some("length") => Ok(Some(Finish::Length)),
        _ => Err("`finish` is stop or length".to_owned()),
    };
    if let Some(completions) = body["completions"].as_array() {
        let prompt = prompt(&body["prompt"])?;
        let item = |c: &Value| {
            let (completion, finish) = match c {
                Value::String(text) => (text.clone(), None),
                other => (text(&other["text"], "completions[].text")?, finish(&other["finish"])?),
            };
            Ok(Item::Parts { prompt: prompt.clone(), completion, finish })
        };
        return completions.iter().map(item).collect();
    }
    let items = body["items"].as_array().ok_or("give `items`, or `prompt` and `completions`")?;
    let one = |item: &Value| match (&item["text"], &item["token_ids"]) {
        (Value::String(text), _) => Ok(Item::Text(text.clone())),
        (_, Value::Array(list)) => ids(list).map(Item::Ids).ok_or_else(|| "`token_ids` must be token ids".to_owned()),
        _ => Ok(Item::Parts {
            prompt: prompt(&item["prompt"])?,
            completion: text(&item["completion"], "completion")?,
            finish: finish(&item["finish"])?,
        }),
    };
    items.iter().enumerate().map(|(i, item)| one(item).map_err(|e| format!("item {i}: {e}"))).collect()
}

fn usage(scores: &Scores) -> Value {
    json!({ "prompt_tokens": scores.tokens, "completion_tokens": 0, "total_tokens": scores.tokens })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// OpenRLHF's answer; `scores` are the rewards.
pub(super) fn to_openrlhf(scores: &Scores) -> Value {
    let logs = scores.variances.as_ref().map_or_else(|| json!({}), |v| json!({ "reward_variance": v }));
    json!({ "rewards": scores.rewards, "scores": scores.rewards, "extra_logs": logs })
}

/// The reward; its sigmoid where the request says `use_activation` (before vLLM 0.11.2 `activation`).
fn activated(body: &Value, reward: f64) -> f64 {
    if body["use_activation"] == true || body["activation"] == true { sigmoid(reward) } else { reward }
}

/// vLLM's `/classify`; raw unless an activation is asked for.
pub(super) fn to_vllm_classify(body: &Value, scores: &Scores, id: &str, created: u64) -> Value {
    let row = |(i, r): (usize, &f64)| json!({ "index": i, "label": "LABEL_0", "probs": [activated(body, *r)], "num_classes": 1 });
    let data: Vec<Value> = scores.rewards.iter().enumerate().map(row).collect();
    json!({ "id": format!("classify-{id}"), "object": "list", "created": created, "model": scores.model,
            "data": data, "usage": usage(scores) })
}

/// vLLM's `/pooling`; activation as in `/classify`.
pub(super) fn to_vllm_pooling(body: &Value, scores: &Scores, id: &str, created: u64) -> Value {
    let row = |(i, r): (usize, &f64)| json!({ "index": i, "object": "pooling", "data": [activated(body, *r)] });
    let data: Vec<Value> = scores.rewards.iter().enumerate().map(row).collect();
    json!({ "id": format!("pool-{id}"), "object": "list", "created": created, "model": scores.model,
            "data": data, "usage": usage(scores) })
}

/// vLLM's `/score`; activation as in `/classify`.
pub(super) fn to_vllm_score(body: &Value, scores: &Scores, id: &str, created: u64) -> Value {
    let row = |(i, r): (usize, &f64)| json!({ "index": i, "object": "score", "score": activated(body, *r) });
    let data: Vec<Value> = scores.rewards.iter().enumerate().map(row).collect();
    json!({ "id": format!("score-{id}"), "object": "list", "created": created, "model": scores.model,
            "data": data, "usage": usage(scores) })
}

/// SGLang's `/classify`: a list, of one for one text.
pub(super) fn to_sglang_classify(body: &Value, scores: &Scores) -> Value {
    let rows: Vec<Value> = scores.rewards.iter().map(|r| json!({ "embedding": [r], "meta_info": {} })).collect();
    match (&body["text"], rows.as_slice()) {
        (Value::String(_), [one]) => one.clone(),
        _ => Value::Array(rows),
    }
}

/// `/v1/embeddings`, whose one number is the reward.
pub(super) fn to_embeddings(scores: &Scores) -> Value {
    let row = |(i, r): (usize, &f64)| json!({ "object": "embedding", "index": i, "embedding": [r] });
    let data: Vec<Value> = scores.rewards.iter().enumerate().map(row).collect();
    json!({ "object": "list", "data": data, "model": scores.model, "usage": usage(scores) })
}

/// TEI's `/predict`: raw scores on request, else a sigmoid, as TEI does for one label.
pub(super) fn to_tei(body: &Value, scores: &Scores) -> Value {
    let raw = body["raw_scores"] == true;
    let row = |r: &f64| json!([{ "score": if raw { *r } else { sigmoid(*r) }, "label": "LABEL_0" }]);
    let rows: Vec<Value> = scores.rewards.iter().map(row).collect();
    match (&body["inputs"], rows.as_slice()) {
        (Value::String(_), [one]) => one.clone(),
        (Value::Array(values), [one]) if values.first().is_some_and(Value::is_string) => one.clone(),
        _ => Value::Array(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(rewards: &[f64]) -> Scores {
        Scores { rewards: rewards.into(), variances: None, tokens: 7, model: "m".into() }
    }

    #[test]
    fn means_and_variances_by_hand() {
        let s = Scores::of(&[vec![1.0, 3.0], vec![2.0, 2.0]], 0, "m".into());
        assert_eq!((s.rewards, s.variances), (vec![2.0, 2.0], Some(vec![1.0, 0.0])));
        let one = Scores::of(&[vec![0.1 + 0.2]], 0, "m".into());
        assert_eq!((one.rewards[0].to_bits(), one.variances), ((0.1f64 + 0.2).to_bits(), None));
    }

    #[test]
    fn every_form_of_input() {
        let text = |t: &str| Item::Text(t.into());
        assert_eq!(inputs(&json!("a"), "x"), Ok(vec![text("a")]));
        assert_eq!(inputs(&json!(["a", "b"]), "x"), Ok(vec![text("a"), text("b")]));
        assert_eq!(inputs(&json!([1, 2]), "x"), Ok(vec![Item::Ids(vec![1, 2])]));
        assert_eq!(inputs(&json!([[1], [2]]), "x"), Ok(vec![Item::Ids(vec![1]), Item::Ids(vec![2])]));
        assert_eq!(inputs(&json!([]), "x"), Ok(vec![]));
        for bad in [json!(null), json!(3), json!([{"a": 1}]), json!([1, -2])] {
            assert!(inputs(&bad, "x").is_err(), "{bad}");
        }
        assert_eq!(openrlhf(&json!({ "query": [], "prompts": [], "labels": [] })), Ok(vec![]));
        assert_eq!(openrlhf(&json!({})), Ok(vec![]));
        assert_eq!(tei(&json!({ "inputs": [["a"], ["b"]] })), Ok(vec![text("a"), text("b")]));
        assert!(tei(&json!({ "inputs": ["a", "b"] })).is_err());
        assert!(classify(&json!({ "input": "a", "task": "token_classify" })).is_err());
    }

    #[test]
    fn conversations_end_with_what_is_scored() {
        let messages = json!([{ "role": "user", "content": "q" }, { "role": "assistant", "content": "a" }]);
        let items = classify(&json!({ "messages": messages })).unwrap();
        assert!(matches!(&items[..], [Item::Parts { completion, .. }] if completion == "a"));
        assert!(classify(&json!({ "messages": [{ "role": "user", "content": "q" }] })).is_err());
        let group = own(&json!({ "prompt": "q", "completions": ["a", { "text": "b", "finish": "length" }] })).unwrap();
        assert!(matches!(&group[1], Item::Parts { finish: Some(Finish::Length), .. }));
        let error = own(&json!({ "items": [{ "prompt": "q", "completion": "a" }, { "prompt": 3 }] })).unwrap_err();
        assert!(error.contains("item 1"), "{error}");
    }

    #[test]
    fn answers_have_the_protocols_shape() {
        let s = scores(&[1.5, -0.5]);
        assert_eq!(to_openrlhf(&s)["rewards"], json!([1.5, -0.5]));
        let classify = to_vllm_classify(&json!({ "use_activation": false }), &s, "x", 1);
        assert_eq!(classify["data"][1]["probs"][0], -0.5);
        let activated = to_vllm_classify(&json!({ "use_activation": true }), &scores(&[0.0]), "x", 1);
        assert_eq!(activated["data"][0]["probs"][0], 0.5);
        assert_eq!(to_embeddings(&s)["data"][1]["embedding"], json!([-0.5]));
        assert_eq!(to_tei(&json!({ "inputs": [["a"], ["b"]], "raw_scores": true }), &s)[0][0]["score"], 1.5);
        assert_eq!(to_tei(&json!({ "inputs": "a" }), &scores(&[0.0]))[0]["score"], 0.5);
        assert_eq!(to_sglang_classify(&json!({ "text": ["a", "b"] }), &s)[1]["embedding"], json!([-0.5]));
        assert_eq!(to_vllm_pooling(&json!({}), &s, "x", 1)["data"][0]["data"], json!([1.5]));
        let (asks, zero) = (json!({ "use_activation": true }), scores(&[0.0]));
        assert_eq!(to_vllm_pooling(&asks, &zero, "x", 1)["data"][0]["data"], json!([0.5]));
        assert_eq!(to_vllm_score(&asks, &zero, "x", 1)["data"][0]["score"], 0.5);
        assert_eq!(to_vllm_score(&json!({}), &s, "x", 1)["data"][1]["score"], -0.5);
    }
}
