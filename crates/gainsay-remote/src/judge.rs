//! An LLM as a judge: which of two answers is better?
//!
//! Every pair is asked in both orders, as judges favor a place (Zheng et al. 2023,
//! arXiv 2306.05685). One order's P(A) comes from the verdict token's log-probs where the
//! server offers them, the mass of C (equally good) shared, else 1, 0 or 1/2 by the verdict in the
//! text; a server that refuses to give log-probs is asked without. P(first) is the mean of P(A) in the given order and 1 - P(A) in the reverse.

use std::sync::atomic::{AtomicBool, Ordering};

use gainsay_core::engine::{Comparison, EngineError, Oracle, ScoreItem};
use serde_json::{Value, json};

use crate::client::{Client, Found, in_parallel};
use crate::error::{RemoteError, Result};
use crate::kind::detect;

/// What a judge is asked unless a template file says otherwise.
pub const TEMPLATE: &str = "You compare two answers to the same prompt. Judge which one helps the person more and harms \
nobody. Length and order do not matter.\n\n[Prompt]\n{prompt}\n\n[Answer A]\n{a}\n\n[Answer B]\n{b}\n\nReply with one \
letter: A if answer A is better, B if answer B is better, C if they are equally good.";

/// Where the conversation's parts go.
const PLACES: [&str; 3] = ["{prompt}", "{a}", "{b}"];

/// Prices, for the cost in the summary; in any currency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// Per million tokens read.
    pub input: f64,
    /// Per million tokens written.
    pub output: f64,
}

/// A judge behind a server.
#[derive(Debug)]
pub struct Judge {
    client: Client,
    model: Option<String>,
    template: String,
    max_tokens: usize,
    /// The server refused a question because it asked for log-probs.
    refuses_logprobs: AtomicBool,
}

/// What one order's question brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// P(the answer shown as A is better); none where the reply names no verdict.
    pub p_a: Option<f64>,
    /// From log-probs, not from the text alone.
    pub from_logprobs: bool,
    /// Tokens read and written.
    pub tokens: (u64, u64),
}

/// The judge's view of one pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// P(first is better), both orders averaged; none where an order brought no verdict.
    pub p_first: Option<f64>,
    /// The two orders: as given, reversed.
    pub orders: [Verdict; 2],
}

impl Judgement {
    /// Whether the two orders name different winners.
    pub fn flips_with_order(&self) -> bool {
        match (self.orders[0].p_a, self.orders[1].p_a) {
            (Some(given), Some(reversed)) => (given - 0.5) * (0.5 - reversed) < 0.0,
            _ => false,
        }
    }

    /// Tokens read and written.
    pub fn tokens(&self) -> (u64, u64) {
        let [a, b] = &self.orders;
        (a.tokens.0 + b.tokens.0, a.tokens.1 + b.tokens.1)
    }
}

impl Judge {
    /// A judge on this server; the model is the server's first where none is named.
    ///
    /// # Errors
    /// A template without all of its places; a server that cannot be reached.
    pub fn connect(client: Client, template: Option<&str>) -> Result<Self> {
        let template = template.unwrap_or(TEMPLATE).to_owned();
        if let Some(place) = PLACES.iter().find(|place| !template.contains(*place)) {
            return Err(RemoteError::Local(format!(
                "the judge's template has no {place}; it needs {{prompt}}, {{a}} and {{b}}"
            )));
        }
        let model = match &client.address().model {
            Some(model) => Some(model.clone()),
            None => detect(&client)?.model,
        };
        Ok(Self { client, model, template, max_tokens: 16, refuses_logprobs: AtomicBool::new(false) })
    }

    /// Lets the judge write this much before its verdict; the default suits a bare letter.
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// The server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server refused to give log-probs, so that verdicts came from the text alone.
    pub fn refuses_logprobs(&self) -> bool {
        self.refuses_logprobs.load(Ordering::Relaxed)
    }

    /// Name of model and server, and a digest of the template.
    pub fn identity(&self) -> String {
        let digest = blake3::hash(self.template.as_bytes()).to_hex();
        format!("{}@{} template {}", self.model.as_deref().unwrap_or("model"), self.client.address(), &digest[..12])
    }

    /// Judges every pair, both orders; in the pairs' order.
    ///
    /// # Errors
    /// What the server or its answers lack.
    pub fn judge(&self, comparisons: &[Comparison<'_>]) -> Result<Vec<Judgement>> {
        let asks: Vec<(&ScoreItem<'_>, &ScoreItem<'_>)> =
            comparisons.iter().flat_map(|c| [(&c.first, &c.second), (&c.second, &c.first)]).collect();
        let verdicts = in_parallel(&asks, self.client.limits().concurrency, |(a, b)| self.ask(a, b))?;
        Ok(verdicts.chunks_exact(2).map(|pair| judgement(pair[0].clone(), pair[1].clone())).collect())
    }

    fn ask(&self, a: &ScoreItem<'_>, b: &ScoreItem<'_>) -> Result<Verdict> {
        let question = fill(&self.template, &[("{prompt}", &a.prompt.display()), ("{a}", a.text), ("{b}", b.text)]);
        let mut body = json!({
            "messages": [{ "role": "user", "content": question }],
            "temperature": 0.0,
            "max_tokens": self.max_tokens,
        });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        let ask = |body: &Value| self.client.ask("/v1/chat/completions", body, verdict_of);
        if self.refuses_logprobs() {
            return ask(&body);
        }
        let mut with = body.clone();
        (with["logprobs"], with["top_logprobs"]) = (json!(true), json!(10));
        match ask(&with) {
            Err(refused @ RemoteError::Refused { status: 400 | 422, .. }) => {
                // Only an answer shows that the log-probs were what it refused.
                let verdict = ask(&body).map_err(|again| match again {
                    RemoteError::Refused { .. } => refused,
                    other => other,
                })?;
                self.refuses_logprobs.store(true, Ordering::Relaxed);
                Ok(verdict)
            }
            outcome => outcome,
        }
    }
}

fn judgement(given: Verdict, reversed: Verdict) -> Judgement {
    let p_first = match (given.p_a, reversed.p_a) {
        (Some(a), Some(b)) => Some((a + 1.0 - b) / 2.0),
        _ => None,
    };
    Judgement { p_first, orders: [given, reversed] }
}

impl Oracle for Judge {
    fn compare(&self, comparisons: &[Comparison<'_>]) -> std::result::Result<Vec<Option<f64>>, EngineError> {
        Ok(self.judge(comparisons)?.into_iter().map(|j| j.p_first).collect())
    }
}

/// Fills the places from left to right; what is filled in is not searched again, so an answer
/// that holds `{a}` stays as it is.
fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
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

/// The verdict in a chat completion: the last token that is a bare A, B or C.
fn verdict_of(answer: &Value) -> Found<Verdict> {
    let choice = answer.pointer("/choices/0").ok_or("it has no choices")?;
    let text = choice.pointer("/message/content").and_then(Value::as_str).ok_or("it has no message")?;
    let count = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
    let tokens = (count("prompt_tokens"), count("completion_tokens"));
    let listed = choice.pointer("/logprobs/content").and_then(Value::as_array);
    let token = listed.and_then(|list| list.iter().rev().find(|t| letter(t["token"].as_str().unwrap_or("")).is_some()));
    if let Some(p_a) = token.and_then(p_of_token) {
        return Ok(Verdict { p_a: Some(p_a), from_logprobs: true, tokens });
    }
    Ok(Verdict { p_a: letter_in(text).map(p_of_letter), from_logprobs: false, tokens })
}

/// P(A) against P(B) among the alternatives of a verdict token; C's mass is shared equally.
fn p_of_token(token: &Value) -> Option<f64> {
    let alternatives = token["top_logprobs"].as_array()?;
    let mut mass = [0.0f64; 3];
    for other in alternatives {
        if let (Some(letter), Some(logp)) = (letter(other["token"].as_str().unwrap_or("")), other["logprob"].as_f64()) {
            mass[letter as usize - 'A' as usize] += logp.exp();
        }
    }
    let total: f64 = mass.iter().sum();
    (total > 1e-6).then(|| (mass[0] + mass[2] / 2.0) / total)
}

fn p_of_letter(letter: char) -> f64 {
    match letter {
        'A' => 1.0,
        'B' => 0.0,
        _ => 0.5,
    }
}

/// The verdict that a token spells, white space and brackets aside.
fn letter(token: &str) -> Option<char> {
    match token.trim_matches(|c: char| c.is_whitespace() || "[]()\"'*.:".contains(c)) {
        "A" => Some('A'),
        "B" => Some('B'),
        "C" => Some('C'),
        _ => None,
    }
}

/// The verdict in a reply: its last word that is a bare letter.
fn letter_in(text: &str) -> Option<char> {
    text.split_whitespace().rev().find_map(letter)
}

/// What judging cost, in the prices' currency.
pub fn cost(tokens: (u64, u64), prices: Prices) -> f64 {
    (tokens.0 as f64 * prices.input + tokens.1 as f64 * prices.output) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str, alternatives: Option<&[(&str, f64)]>) -> Value {
        let list = |all: &[(&str, f64)]| -> Vec<Value> {
            all.iter().map(|(t, p)| json!({ "token": t, "logprob": p.ln() })).collect()
        };
        let logprobs = alternatives
            .map(|a| json!({ "content": [{ "token": a[0].0, "logprob": a[0].1.ln(), "top_logprobs": list(a) }] }));
        json!({ "choices": [{ "message": { "content": text }, "logprobs": logprobs }],
                "usage": { "prompt_tokens": 100, "completion_tokens": 1 } })
    }

    #[test]
    fn the_verdict_tokens_probability() {
        // P(A) = (0.6 + 0.1 / 2) / 0.9.
        let verdict = verdict_of(&reply("A", Some(&[("A", 0.6), (" B", 0.2), ("C", 0.1), ("x", 0.1)]))).unwrap();
        assert!((verdict.p_a.unwrap() - 0.65 / 0.9).abs() < 1e-12 && verdict.from_logprobs);
        assert_eq!(verdict.tokens, (100, 1));
    }

    #[test]
    fn the_verdict_in_words() {
        let p = |text: &str| verdict_of(&reply(text, None)).unwrap().p_a;
        assert_eq!((p("A"), p("[[B]]"), p("Both are fine: C."), p("no idea")), (Some(1.0), Some(0.0), Some(0.5), None));
        assert!(verdict_of(&json!({})).is_err());
    }

    #[test]
    fn both_orders_are_averaged_and_a_place_favored_shows() {
        let v = |p| Verdict { p_a: Some(p), from_logprobs: true, tokens: (10, 1) };
        // As given P(A) = 0.9; reversed the first answer stands at B: 1 - 0.7.
        let judged = judgement(v(0.9), v(0.7));
        assert!((judged.p_first.unwrap() - 0.6).abs() < 1e-12);
        assert!(judged.flips_with_order());
        assert_eq!(judged.tokens(), (20, 2));
        assert!(!judgement(v(0.9), v(0.2)).flips_with_order());
        let none = Verdict { p_a: None, ..v(0.5) };
        assert_eq!(judgement(v(0.9), none).p_first, None);
    }

    #[test]
    fn answers_cannot_move_the_places() {
        assert_eq!(fill("{prompt}|{a}|{b}{x}", &[("{prompt}", "{a}"), ("{a}", "{b}"), ("{b}", "z")]), "{a}|{b}|z{x}");
    }

    #[test]
    fn costs_by_hand() {
        assert!((cost((2_000_000, 500_000), Prices { input: 0.15, output: 0.6 }) - 0.6).abs() < 1e-12);
    }
}
