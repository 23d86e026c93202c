//! Policies behind servers: completions with their log-probs, and log-probs of given completions.
//!
//! Gainsay's convention is the sampler's raw log-prob at temperature 1. What a server reports is
//! found out by asking, stands in [`RemotePolicy::identity`] and so in every record; where a
//! sampled completion's log-probs are of another kind, it is scored again.

mod aligned;
mod chat;
mod completions;
mod probe;
mod sglang;
mod trl;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gainsay_core::engine::{Decoding, EngineError, LogProb, SampleRequest, Sampler, ScoreItem, SequenceLogp};
use gainsay_core::record::{Completion, Finish, Prompt};
use gainsay_core::rng::Key;

use crate::client::{Client, in_parallel};
use crate::error::{RemoteError, Result};
use crate::kind::{Kind, detect, detect_named};
use crate::render::Renderer;
pub use probe::{Echo, Reported};

/// A protocol for text and log-probs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyApi {
    /// OpenAI's `/v1/completions`.
    Completions,
    /// OpenAI's `/v1/chat/completions`: the server renders the prompt.
    Chat,
    /// SGLang's `/generate`.
    Sglang,
    /// `trl vllm-serve`.
    Trl,
}

impl FromStr for PolicyApi {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "completions" => Ok(Self::Completions),
            "chat" => Ok(Self::Chat),
            "sglang" => Ok(Self::Sglang),
            "trl" => Ok(Self::Trl),
            _ => Err(format!("#api={text}: policies speak completions, chat, sglang or trl")),
        }
    }
}

impl fmt::Display for PolicyApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
            Self::Sglang => "sglang",
            Self::Trl => "trl",
        })
    }
}

/// A policy behind a server.
pub struct RemotePolicy {
    client: Client,
    api: PolicyApi,
    kind: Kind,
    model: Option<String>,
    renderer: Option<Arc<dyn Renderer>>,
    reported: Reported,
    echo: Echo,
    tokens: AtomicU64,
}

/// A completion as a server gave it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Drawn {
    text: String,
    ids: Option<Vec<u32>>,
    logps: Option<Vec<f32>>,
    /// It ended by itself, not at the limit.
    stopped: bool,
    /// `logps` counts the turn end too, where it stopped.
    whole: bool,
}

/// What a server says of one given completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// One log-prob a token of the completion.
    pub logps: Vec<f32>,
    /// The server's texts of these tokens, where it tells.
    pub pieces: Option<Vec<String>>,
    /// Tokens of the prompt as the server counted them, where it tells.
    pub prompt_tokens: Option<usize>,
}

/// A completion to be scored, rendered.
struct Rendered {
    prompt_ids: Option<Vec<u32>>,
    completion_ids: Option<Vec<u32>>,
    prompt_text: String,
    completion_text: String,
}

/// One request for completions of one prompt.
struct Job<'a> {
    prompt: &'a Prompt,
    n: usize,
    seed: u32,
}

impl RemotePolicy {
    /// Finds out what the server is, which model it serves and which log-probs it reports.
    ///
    /// # Errors
    /// A server that cannot be reached, or that generates no text.
    pub fn connect(client: Client, renderer: Option<Arc<dyn Renderer>>) -> Result<Self> {
        let address = client.address().clone();
        let fault = |problem: String| RemoteError::Address { address: address.to_string(), problem };
        let wanted = address.api.as_deref().map(str::parse::<PolicyApi>).transpose().map_err(fault)?;
        let about = match wanted {
            Some(PolicyApi::Trl) => None,
            Some(_) => detect_named(&client)?,
            None => Some(detect(&client)?),
        };
        let kind =
            about.as_ref().map_or(if wanted == Some(PolicyApi::Trl) { Kind::Trl } else { Kind::OpenAi }, |a| a.kind);
        let rendered = renderer.is_some() || address.raw;
        let api = match (wanted, kind) {
            (Some(api), _) => api,
            (None, Kind::Sglang) if renderer.is_some() => PolicyApi::Sglang,
            (None, Kind::Trl) => PolicyApi::Trl,
            (None, Kind::Vllm | Kind::Sglang | Kind::LlamaCpp | Kind::OpenAi) if rendered => PolicyApi::Completions,
            (None, Kind::Vllm | Kind::Sglang | Kind::LlamaCpp | Kind::OpenAi) => PolicyApi::Chat,
            (None, Kind::Gainsay | Kind::Tei | Kind::OpenRlhf) => {
                return Err(fault(format!("this is a {kind} server, which gives rewards and generates no text")));
            }
        };
        if matches!(api, PolicyApi::Sglang | PolicyApi::Trl) && renderer.is_none() {
            return Err(fault(format!("{api} takes token ids: name the policy's tokenizer with #tokenizer=M")));
        }
        let model = address.model.clone().or_else(|| about.and_then(|a| a.model));
        let mut policy = Self {
            client,
            api,
            kind,
            model,
            renderer,
            reported: Reported::None,
            echo: Echo::No(String::new()),
            tokens: AtomicU64::new(0),
        };
        (policy.reported, policy.echo) = policy.probe()?;
        Ok(policy)
    }

    /// The server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The protocol that is spoken.
    pub fn api(&self) -> PolicyApi {
        self.api
    }

    /// The server's make.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The model's name on the server.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Which log-probs the server reports of what it samples.
    pub fn reported(&self) -> &Reported {
        &self.reported
    }

    /// Whether and how it scores given text.
    pub fn echo(&self) -> &Echo {
        &self.echo
    }

    fn unsupported(&self, problem: String) -> RemoteError {
        RemoteError::Unsupported { url: self.client.address().to_string(), problem }
    }

    /// What the server says of given completions, in order.
    ///
    /// # Errors
    /// A server that does not score given text; what its answers lack.
    pub fn scored(&self, items: &[ScoreItem<'_>]) -> Result<Vec<Scored>> {
        if let Echo::No(why) = &self.echo {
            return Err(self.unsupported(format!(
                "it does not give the log-probs of given completions ({why}); use vLLM, SGLang or a server that can echo"
            )));
        }
        let rendered = items.iter().map(|item| self.render(item)).collect::<Result<Vec<Rendered>>>()?;
        in_parallel(&rendered, self.client.limits().concurrency, |item| {
            let scored = match (self.api, &self.echo) {
                (PolicyApi::Sglang, _) => self.score_sglang(item),
                (PolicyApi::Trl, _) => self.score_trl(item),
                (_, Echo::PromptLogprobs) => self.score_prompt_logprobs(item),
                _ => self.score_echo(item),
            }?;
            self.tokens.fetch_add(scored.logps.len() as u64, Ordering::Relaxed);
            Ok(scored)
        })
    }

    fn render(&self, item: &ScoreItem<'_>) -> Result<Rendered> {
        let Some(renderer) = &self.renderer else {
            return self.render_raw(item);
        };
        let prompt_ids = renderer.prompt_ids(item.prompt).map_err(|e| RemoteError::Local(e.to_string()))?;
        let completion_ids = renderer.completion_ids(item);
        let (prompt_text, completion_text) = (renderer.spell(&prompt_ids), renderer.spell(&completion_ids));
        Ok(Rendered {
            prompt_ids: Some(prompt_ids),
            completion_ids: Some(completion_ids),
            prompt_text,
            completion_text,
        })
    }

    fn render_raw(&self, item: &ScoreItem<'_>) -> Result<Rendered> {
        match item.prompt {
            Prompt::Text(text) if self.client.address().raw => Ok(Rendered {
                prompt_ids: None,
                completion_ids: None,
                prompt_text: text.clone(),
                completion_text: item.text.to_owned(),
            }),
            _ => Err(RemoteError::Address {
                address: self.client.address().to_string(),
                problem: "scoring given completions needs the policy's tokenizer and chat template: name a local copy \
                          with #tokenizer=M, or take text prompts verbatim with #raw"
                    .into(),
            }),
        }
    }

    /// Completions of the requests' prompts.
    fn draw(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Drawn>>> {
        self.check(decoding)?;
        let together = self.takes_n();
        let mut jobs = Vec::new();
        for request in requests {
            let key = Key::new(decoding.seed, &decoding.purpose).round(decoding.round).step(decoding.step);
            let seed = |i: usize| (key.prompt(&request.id).completion(i).at(0) >> 33) as u32;
            match together {
                true => jobs.push(Job { prompt: &request.prompt, n: request.n, seed: seed(0) }),
                false => jobs.extend((0..request.n).map(|i| Job { prompt: &request.prompt, n: 1, seed: seed(i) })),
            }
        }
        let drawn = in_parallel(&jobs, self.client.limits().concurrency, |job| match self.api {
            PolicyApi::Completions => self.draw_completions(job, decoding),
            PolicyApi::Chat => self.draw_chat(job, decoding),
            PolicyApi::Sglang => self.draw_sglang(job, decoding),
            PolicyApi::Trl => self.draw_trl(job, decoding),
        })?;
        let mut all = drawn.into_iter().flatten();
        Ok(requests.iter().map(|request| all.by_ref().take(request.n).collect()).collect())
    }

    /// Whether one request brings several completions of a seed that differ.
    fn takes_n(&self) -> bool {
        matches!(self.kind, Kind::Vllm | Kind::Trl) && self.api != PolicyApi::Sglang
    }

    fn check(&self, decoding: &Decoding) -> Result<()> {
        let knows = matches!(self.kind, Kind::Vllm | Kind::Sglang | Kind::Trl);
        if decoding.ignore_eos && !knows {
            return Err(self.unsupported(format!(
                "a {} server cannot go on after the turn end; leave --ignore-eos out",
                self.kind
            )));
        }
        Ok(())
    }

    /// The server's log-probs of these draws are Gainsay's own: raw, turn end counted.
    fn is_ours(&self, drawn: &Drawn, decoding: &Decoding) -> bool {
        let plain = decoding.temperature == 1.0 && decoding.top_k == 0 && decoding.top_p == 1.0;
        let raw = self.reported == Reported::Raw || (self.reported == Reported::Processed && plain);
        raw && drawn.logps.is_some() && (drawn.whole || !drawn.stopped)
    }

    /// Draws, and scores again those whose log-probs are of another kind, where the server can.
    ///
    /// # Errors
    /// What the server or its answers lack.
    pub fn complete(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Completion>>> {
        let drawn = self.draw(requests, decoding)?;
        let mut all: Vec<Vec<Completion>> =
            drawn.iter().map(|row| row.iter().map(|d| completion_of(d, self.is_ours(d, decoding))).collect()).collect();
        let mut again = Vec::new();
        for (row, request) in all.iter_mut().zip(requests) {
            again.extend(row.iter_mut().filter(|c| c.logp.is_none()).map(|c| (&request.prompt, c)));
        }
        let can = !matches!(self.echo, Echo::No(_)) && (self.renderer.is_some() || self.client.address().raw);
        if can && !again.is_empty() {
            let items: Vec<ScoreItem<'_>> = again.iter().map(|(prompt, c)| ScoreItem::of(prompt, c)).collect();
            let scored = self.scored(&items)?;
            for ((_, completion), scored) in again.iter_mut().zip(scored) {
                fill(completion, scored.logps);
            }
        }
        Ok(all)
    }
}

fn fill(completion: &mut Completion, logps: Vec<f32>) {
    completion.logp = Some(logps.iter().map(|&l| f64::from(l)).sum());
    completion.n_tokens = Some(logps.len() as u32);
    completion.token_logps = Some(logps);
}

/// The record of a draw; log-probs that are not of our kind are left out.
fn completion_of(drawn: &Drawn, ours: bool) -> Completion {
    let finish = if drawn.stopped { Finish::Stop } else { Finish::Length };
    let mut completion = Completion {
        text: drawn.text.clone(),
        token_ids: drawn.ids.clone(),
        finish: Some(finish),
        ..Completion::default()
    };
    match (&drawn.logps, ours) {
        (Some(logps), true) => fill(&mut completion, logps.clone()),
        _ => completion.n_tokens = drawn.ids.as_ref().map(|ids| ids.len() as u32),
    }
    completion
}

/// A log-prob of an answer: finite and not above 0 but for rounding.
fn logp(value: &serde_json::Value) -> std::result::Result<f32, String> {
    match value.as_f64() {
        Some(l) if l.is_finite() && l <= 1e-3 => Ok(l.min(0.0) as f32),
        _ => Err(format!("a log-prob is {value}, no finite number up to 0")),
    }
}

impl Sampler for RemotePolicy {
    fn sample(
        &self,
        requests: &[SampleRequest],
        decoding: &Decoding,
    ) -> std::result::Result<Vec<Vec<Completion>>, EngineError> {
        Ok(self.complete(requests, decoding)?)
    }

    fn identity(&self) -> String {
        let model = self.model.as_deref().unwrap_or("model");
        let by = self.renderer.as_ref().map_or_else(|| "server".to_owned(), |r| r.identity());
        let again = match (&self.echo, &self.reported) {
            (_, Reported::Raw) => "raw log-probs",
            (Echo::No(_), Reported::None) => "no log-probs",
            (Echo::No(_), Reported::Processed) => "log-probs after temperature",
            _ => "log-probs scored again at temperature 1",
        };
        format!("{model}@{} {} {}, rendered by {by}, {again}", self.client.address(), self.kind, self.api)
    }
}

impl LogProb for RemotePolicy {
    fn logps(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Vec<SequenceLogp>, EngineError> {
        let sum = |logps: &[f32]| logps.iter().map(|&l| f64::from(l)).sum();
        let scored = self.scored(items)?;
        Ok(scored.into_iter().map(|s| SequenceLogp { sum: sum(&s.logps), token_logps: s.logps }).collect())
    }

    fn identity(&self) -> String {
        Sampler::identity(self)
    }

    fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}
