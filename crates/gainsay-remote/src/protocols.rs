//! What each reward protocol puts into a request and where it puts the rewards: pure functions.
//! Sources: the servers' own documentation and client code; see `docs/remote.md`.

use gainsay_core::engine::ScoreItem;
use gainsay_core::record::{Finish, Message, Prompt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::reward::RewardApi;

/// A completion as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    prompt: Prompt,
    completion: String,
    length: bool,
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// Prompt and completion apart: the server renders them.
    Parts,
    /// One rendered text.
    Text(String),
    /// A conversation that the server renders.
    Chat,
}

impl Given {
    /// Rendered on this side.
    pub fn text(item: &ScoreItem<'_>, text: String) -> Self {
        Self { form: Form::Text(text), ..Self::parts(item) }
    }

    /// Prompt and completion apart.
    pub fn parts(item: &ScoreItem<'_>) -> Self {
        Self {
            prompt: item.prompt.clone(),
            completion: item.text.to_owned(),
            length: item.finish == Some(Finish::Length),
            form: Form::Parts,
        }
    }

    /// As turns, which vLLM renders with the reward model's own template.
    pub fn chat(item: &ScoreItem<'_>) -> Self {
        Self { form: Form::Chat, ..Self::parts(item) }
    }

    /// Whether it must travel alone.
    pub fn is_chat(&self) -> bool {
        self.form == Form::Chat
    }

    fn messages(&self) -> Vec<Message> {
        let mut messages = self.prompt.messages();
        messages.push(Message { role: "assistant".into(), content: self.completion.clone() });
        messages
    }

    /// The rendered text; prompt and completion one after the other where nothing rendered them.
    fn whole(&self) -> String {
        match &self.form {
            Form::Text(text) => text.clone(),
            Form::Parts | Form::Chat => format!("{}{}", self.prompt.display(), self.completion),
        }
    }
}

/// How to speak any JSON protocol: one completion a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Path below the address; none where absent.
    #[serde(default)]
    pub path: String,
    /// The request; `{text}`, `{prompt}` and `{completion}` in its strings are filled in, and a
    /// string that is just `"{messages}"` becomes the list of turns.
    pub request: Value,
    /// JSON pointer of the reward in the answer, for example `/data/0/score`.
    pub reward: String,
}

impl Mapping {
    /// What is wrong with it, in words.
    ///
    /// # Errors
    /// A path or a JSON pointer that does not begin with `/`.
    pub fn check(&self) -> Result<(), String> {
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return Err(format!("path `{}` must begin with /", self.path));
        }
        if !self.reward.is_empty() && !self.reward.starts_with('/') {
            return Err(format!("reward `{}` must be a JSON pointer, which begins with /", self.reward));
        }
        Ok(())
    }
}

/// Path and body of the request for a batch.
pub fn request_of(api: RewardApi, model: Option<&str>, mapping: Option<&Mapping>, batch: &[Given]) -> (String, Value) {
    let texts: Vec<String> = batch.iter().map(Given::whole).collect();
    match api {
        RewardApi::Gainsay => ("/v1/reward".into(), json!({ "items": batch.iter().map(own_item).collect::<Vec<_>>() })),
        RewardApi::VllmClassify => ("/classify".into(), vllm(model, &texts, batch, json!({ "use_activation": false }))),
        RewardApi::VllmPooling => {
            let extra = json!({ "use_activation": false, "task": "classify" });
            ("/pooling".into(), vllm(model, &texts, batch, extra))
        }
        RewardApi::VllmScore => {
            let prompts: Vec<String> = batch.iter().map(|g| g.prompt.display()).collect();
            let completions: Vec<&str> = batch.iter().map(|g| g.completion.as_str()).collect();
            let body = json!({ "text_1": prompts, "text_2": completions, "use_activation": false });
            ("/score".into(), with_model(body, model))
        }
        RewardApi::SglangClassify => ("/classify".into(), with_model(json!({ "text": texts }), model)),
        RewardApi::SglangEmbeddings => ("/v1/embeddings".into(), with_model(json!({ "input": texts }), model)),
        RewardApi::Tei => {
            // Every input is a list of one: a flat list of two would be read as one pair.
            let inputs: Vec<[&String; 1]> = texts.iter().map(|t| [t]).collect();
            ("/predict".into(), json!({ "inputs": inputs, "raw_scores": true, "truncate": false }))
        }
        RewardApi::OpenRlhf => {
            let prompts: Vec<String> = batch.iter().map(|g| g.prompt.display()).collect();
            let labels = vec![""; batch.len()];
            ("/get_reward".into(), json!({ "query": texts, "prompts": prompts, "labels": labels }))
        }
        RewardApi::Json => match (mapping, batch.first()) {
            (Some(mapping), Some(given)) => (mapping.path.clone(), filled(&mapping.request, given)),
            _ => (String::new(), Value::Null),
        },
    }
}

/// A completion as `gainsay serve` takes it.
fn own_item(given: &Given) -> Value {
    match &given.form {
        Form::Text(text) => json!({ "text": text }),
        Form::Parts | Form::Chat => {
            let finish = if given.length { "length" } else { "stop" };
            json!({ "prompt": given.prompt, "completion": given.completion, "finish": finish })
        }
    }
}

fn vllm(model: Option<&str>, texts: &[String], batch: &[Given], mut body: Value) -> Value {
    match batch {
        [given] if given.is_chat() => {
            body["messages"] = json!(given.messages());
            body["add_generation_prompt"] = json!(false);
        }
        // The text holds its special tokens already.
        _ => {
            body["input"] = json!(texts);
            body["add_special_tokens"] = json!(false);
        }
    }
    with_model(body, model)
}

fn with_model(mut body: Value, model: Option<&str>) -> Value {
    if let Some(model) = model {
        body["model"] = json!(model);
    }
    body
}

fn filled(request: &Value, given: &Given) -> Value {
    match request {
        Value::String(text) if text == "{messages}" => json!(given.messages()),
        Value::String(text) => Value::String(fill(text, given)),
        Value::Array(values) => values.iter().map(|v| filled(v, given)).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), filled(v, given))).collect(),
        other => other.clone(),
    }
}

/// Fills the places of one string from left to right; what is filled in is not searched again.
fn fill(template: &str, given: &Given) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let places = [
            ("{text}", given.whole()),
            ("{prompt}", given.prompt.display()),
            ("{completion}", given.completion.clone()),
        ];
        match places.iter().find(|(place, _)| rest.starts_with(place)) {
            Some((place, value)) => {
                out.push_str(value);
                rest = &rest[place.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// The rewards in an answer, in the request's order.
///
/// # Errors
/// What is missing, in words.
pub fn rewards_in(api: RewardApi, mapping: Option<&Mapping>, answer: &Value) -> Result<Vec<f64>, String> {
    match api {
        RewardApi::Gainsay => each(list(answer, "/rewards")?, |v| v),
        RewardApi::VllmClassify => indexed(answer, |row| last(&row["probs"])),
        RewardApi::VllmPooling => indexed(answer, |row| last(&row["data"])),
        RewardApi::VllmScore => indexed(answer, |row| &row["score"]),
        RewardApi::SglangEmbeddings => indexed(answer, |row| last(&row["embedding"])),
        RewardApi::SglangClassify => match answer {
            Value::Array(rows) => each(rows, |row| last(&row["embedding"])),
            one => each(std::slice::from_ref(one), |row| last(&row["embedding"])),
        },
        RewardApi::Tei => match answer.as_array() {
            // One input may be answered by a flat list of its labels.
            Some(rows) if rows.first().is_some_and(Value::is_object) => single_label(rows).map(|r| vec![r]),
            Some(rows) => rows.iter().map(|row| single_label(row.as_array().map_or(&[], Vec::as_slice))).collect(),
            None => Err("it is no list".into()),
        },
        RewardApi::OpenRlhf => each(list(answer, "/rewards")?, |v| v),
        RewardApi::Json => {
            let place = mapping.map_or("", |m| m.reward.as_str());
            let found = answer.pointer(place).ok_or_else(|| format!("it has nothing at `{place}`"))?;
            Ok(vec![number(found).map_err(|e| format!("at `{place}` {e}"))?])
        }
    }
}

fn list<'a>(answer: &'a Value, place: &str) -> Result<&'a Vec<Value>, String> {
    answer.pointer(place).and_then(Value::as_array).ok_or_else(|| format!("it has no list `{}`", &place[1..]))
}

fn last(value: &Value) -> &Value {
    match value {
        Value::Array(values) => values.last().map_or(&Value::Null, last),
        other => other,
    }
}

fn each<'a>(rows: &'a [Value], pick: impl Fn(&'a Value) -> &'a Value) -> Result<Vec<f64>, String> {
    rows.iter().enumerate().map(|(i, row)| number(pick(row)).map_err(|e| format!("reward {i} {e}"))).collect()
}

/// The rows of `data`, put into the order of their `index` where they carry one.
fn indexed<'a>(answer: &'a Value, pick: impl Fn(&'a Value) -> &'a Value) -> Result<Vec<f64>, String> {
    let rows = list(answer, "/data")?;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i]["index"].as_u64().unwrap_or(i as u64));
    order.into_iter().map(|i| number(pick(&rows[i])).map_err(|e| format!("reward {i} {e}"))).collect()
}

/// The score of a model with one label.
fn single_label(labels: &[Value]) -> Result<f64, String> {
    match labels {
        [one] => number(&one["score"]).map_err(|e| format!("a reward {e}")),
        _ => Err(format!("it holds {} labels an input; a reward model has one", labels.len())),
    }
}

/// A number; servers without NaN in their JSON write null or a word for it.
fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Null => Err("is missing or null (a NaN, perhaps)".into()),
        Value::String(text) => Err(format!("is the text \"{text}\"")),
        other => other.as_f64().ok_or_else(|| format!("is {other}, no number")),
    }
}
