//! What a server's log-probs are: asked, not assumed.

use serde_json::{Value, json};

use super::{PolicyApi, RemotePolicy};
use crate::error::{RemoteError, Result};
use crate::kind::Kind;

/// Which log-probs a server reports of the tokens that it samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The model's own, whatever the temperature.
    Raw,
    /// After temperature and cuts.
    Processed,
    /// None.
    None,
}

/// Whether and how a server scores given text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Echo {
    /// By a request of its own protocol (SGLang, TRL).
    Own,
    /// vLLM's `prompt_logprobs`.
    PromptLogprobs,
    /// OpenAI's `echo`.
    Echo,
    /// Not at all, and why.
    No(String),
}

/// A text that every tokenizer reads.
const PROBE: &str = "The sky is blue and the grass is";

impl RemotePolicy {
    /// Asks for one token at two temperatures: log-probs taken after the temperature move with it.
    /// Then asks for a short text's own log-probs.
    pub(super) fn probe(&self) -> Result<(Reported, Echo)> {
        match self.api {
            PolicyApi::Sglang | PolicyApi::Trl => Ok((Reported::Processed, Echo::Own)),
            PolicyApi::Completions => Ok((self.probe_temperature()?, self.probe_echo()?)),
            PolicyApi::Chat => {
                let why = "a chat endpoint renders the prompt itself; name the tokenizer with #tokenizer=M";
                Ok((self.probe_temperature()?, Echo::No(why.into())))
            }
        }
    }

    fn probe_temperature(&self) -> Result<Reported> {
        let Some(warm) = self.likeliest(1.0, 2)? else {
            // A server may offer the sampled token's log-prob and no alternatives to it.
            let some = self.likeliest(1.0, 1)?.is_some_and(|values| !values.is_empty());
            return Ok(if some { Reported::Processed } else { Reported::None });
        };
        if warm.is_empty() {
            return Ok(Reported::None);
        }
        Ok(reported(&warm, &self.likeliest(0.5, 2)?.unwrap_or_default()))
    }

    /// The largest log-probs of the next token, falling; none where the server refuses to tell.
    fn likeliest(&self, temperature: f64, alternatives: usize) -> Result<Option<Vec<f64>>> {
        let (path, body, place) = match self.api {
            PolicyApi::Chat => (
                "/v1/chat/completions",
                json!({ "messages": [{ "role": "user", "content": PROBE }], "max_tokens": 1, "seed": 1,
                        "temperature": temperature, "logprobs": true, "top_logprobs": alternatives }),
                "/choices/0/logprobs/content/0/top_logprobs",
            ),
            _ => (
                "/v1/completions",
                json!({ "prompt": PROBE, "max_tokens": 1, "seed": 1, "temperature": temperature,
                        "logprobs": alternatives }),
                "/choices/0/logprobs/top_logprobs/0",
            ),
        };
        let answer = match self.client.probe(path, &self.with_model(body)) {
            Ok(answer) => answer,
            // The server refuses log-probs; where it refuses everything, sampling says so.
            Err(RemoteError::Failed { .. } | RemoteError::Refused { status: 400 | 422, .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut values: Vec<f64> = match answer.pointer(place) {
            Some(Value::Object(tokens)) => tokens.values().filter_map(Value::as_f64).collect(),
            Some(Value::Array(tokens)) => tokens.iter().filter_map(|t| t["logprob"].as_f64()).collect(),
            _ => Vec::new(),
        };
        values.sort_by(|a, b| b.total_cmp(a));
        Ok(Some(values))
    }

    fn probe_echo(&self) -> Result<Echo> {
        if self.kind == Kind::Vllm && self.renderer.is_some() {
            return Ok(Echo::PromptLogprobs);
        }
        let body = json!({ "prompt": PROBE, "max_tokens": 1, "temperature": 1.0, "echo": true, "logprobs": 1 });
        let answer = match self.client.probe("/v1/completions", &self.with_model(body)) {
            Ok(answer) => answer,
            Err(RemoteError::Failed { status, said, .. }) => return Ok(Echo::No(format!("{status}: {said}"))),
            Err(RemoteError::Refused { status: 400 | 422, said, .. }) => return Ok(Echo::No(said)),
            Err(other) => return Err(other),
        };
        let logps = answer.pointer("/choices/0/logprobs/token_logprobs").and_then(Value::as_array);
        Ok(match logps.map(|l| l.iter().filter(|v| v.is_number()).count()) {
            Some(n) if n >= 4 => Echo::Echo,
            _ => Echo::No("it answers echo and logprobs without the prompt's log-probs".into()),
        })
    }

    /// The body with the model's name.
    pub(super) fn with_model(&self, mut body: Value) -> Value {
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        body
    }
}

/// Below this difference of two log-probs, nats, number formats may hide that it doubled.
const SMALLEST_GAP: f64 = 0.05;
/// Tokens that a cut left out have log-probs down here, by some servers' convention.
const CUT: f64 = -100.0;

/// What log-probs of the next token at temperatures 1 and 0.5 say. The difference of the first two,
/// log p1 - log p2, doubles at temperature 0.5 where they are taken after the temperature, whatever
/// the token's own probability; that of the first alone hardly moves where p1 is near 1. Where it
/// cannot be told, they are taken as processed: those are scored again.
fn reported(warm: &[f64], cold: &[f64]) -> Reported {
    let gap = |values: &[f64]| match values {
        [first, second, ..] if *second > CUT => Some(first - second),
        _ => None,
    };
    match (gap(warm), gap(cold)) {
        (Some(warm), Some(cold)) if warm >= SMALLEST_GAP && (cold - warm).abs() < 0.25 * warm => Reported::Raw,
        _ => Reported::Processed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two log-probs at two temperatures of logits 0 and -gap.
    fn after(gap: f64, temperature: f64) -> Vec<f64> {
        let total = (1.0 + (-gap / temperature).exp()).ln();
        vec![-total, -gap / temperature - total]
    }

    #[test]
    fn the_gap_doubles_after_the_temperature() {
        // From p1 = 0.52 to 0.999999.
        for gap in [0.08, 1.0, 4.0, 14.0] {
            assert_eq!(reported(&after(gap, 1.0), &after(gap, 1.0)), Reported::Raw, "{gap}");
            assert_eq!(reported(&after(gap, 1.0), &after(gap, 0.5)), Reported::Processed, "{gap}");
        }
        // A bf16 server: the gap of 4 is off by 1 %.
        assert_eq!(reported(&[-0.018, -4.018], &[-0.018, -4.058]), Reported::Raw);
    }

    #[test]
    fn what_cannot_be_told_is_processed() {
        let undecided: [(&[f64], &[f64]); 5] = [
            (&[-0.5], &[-0.5]),
            (&[-0.7, -0.71], &[-0.7, -0.71]),
            (&[-0.01, -9999.0], &[-0.01, -9999.0]),
            (&[-0.01, -5.0], &[]),
            (&[0.0, f64::NEG_INFINITY], &[0.0, f64::NEG_INFINITY]),
        ];
        for (warm, cold) in undecided {
            assert_eq!(reported(warm, cold), Reported::Processed, "{warm:?} {cold:?}");
        }
    }
}
