//! Rewards from servers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gainsay_core::engine::{EngineError, RewardFn, ScoreItem};

use crate::client::{Client, in_parallel};
use crate::error::{RemoteError, Result};
use crate::kind::{Kind, detect, detect_named};
use crate::protocols::{Given, Mapping, request_of, rewards_in};
use crate::render::{Renderer, whole_text};

/// A reward protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewardApi {
    /// `gainsay serve`: `/v1/reward`.
    Gainsay,
    /// vLLM `/classify`, without activation.
    VllmClassify,
    /// vLLM `/pooling`, task classify.
    VllmPooling,
    /// vLLM `/score`, a cross-encoder of prompt and completion.
    VllmScore,
    /// SGLang `/classify`.
    SglangClassify,
    /// SGLang `/v1/embeddings`, whose last number is the reward.
    SglangEmbeddings,
    /// text-embeddings-inference `/predict`, raw scores.
    Tei,
    /// OpenRLHF's `/get_reward`.
    OpenRlhf,
    /// Any other JSON, by a mapping.
    Json,
}

const NAMES: [(RewardApi, &str); 9] = [
    (RewardApi::Gainsay, "gainsay"),
    (RewardApi::VllmClassify, "vllm-classify"),
    (RewardApi::VllmPooling, "vllm-pooling"),
    (RewardApi::VllmScore, "vllm-score"),
    (RewardApi::SglangClassify, "sglang-classify"),
    (RewardApi::SglangEmbeddings, "sglang-embeddings"),
    (RewardApi::Tei, "tei"),
    (RewardApi::OpenRlhf, "openrlhf"),
    (RewardApi::Json, "json"),
];

impl FromStr for RewardApi {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names = || NAMES.map(|(_, name)| name).join(", ");
        let found = NAMES.iter().find(|(_, name)| *name == text).map(|(api, _)| *api);
        found.ok_or_else(|| format!("#api={text}: rewards come through {}", names()))
    }
}

impl fmt::Display for RewardApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(api, _)| api == self).map_or("", |(_, name)| name))
    }
}

/// A reward model behind a server.
pub struct RemoteReward {
    client: Client,
    api: RewardApi,
    model: Option<String>,
    renderer: Option<Arc<dyn Renderer>>,
    mapping: Option<Mapping>,
    batch: usize,
    tokens: AtomicU64,
}

impl RemoteReward {
    /// Finds out what the server speaks, unless the address says it.
    ///
    /// # Errors
    /// A server that cannot be reached or gives no rewards; a protocol that needs a tokenizer or
    /// a mapping where none is given.
    pub fn connect(client: Client, renderer: Option<Arc<dyn Renderer>>, mapping: Option<Mapping>) -> Result<Self> {
        let address = client.address().clone();
        let fault = |problem: String| RemoteError::Address { address: address.to_string(), problem };
        let (api, about) = match (&address.api, &mapping) {
            (Some(name), _) => (name.parse::<RewardApi>().map_err(fault)?, None),
            (None, Some(_)) => (RewardApi::Json, None),
            (None, None) => {
                let about = detect(&client)?;
                (api_of(about.kind).map_err(fault)?, Some(about))
            }
        };
        if api == RewardApi::Json && mapping.is_none() {
            return Err(fault("#api=json needs a mapping: #map=FILE.json".into()));
        }
        let named = address.model.clone().or_else(|| about.as_ref().and_then(|a| a.model.clone()));
        let model = match named {
            None if needs_model(api) => detect_named(&client)?.and_then(|a| a.model),
            named => named,
        };
        let largest = about.and_then(|a| a.largest_batch).unwrap_or(usize::MAX);
        let batch = if api == RewardApi::Json { 1 } else { address.limits.batch.min(largest) };
        Ok(Self { client, api, model, renderer, mapping, batch, tokens: AtomicU64::new(0) })
    }

    /// The protocol that is spoken.
    pub fn api(&self) -> RewardApi {
        self.api
    }

    /// The server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One reward an item, in order.
    ///
    /// # Errors
    /// What the server or its answers lack; see [`RemoteError`].
    pub fn score(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>> {
        let given = items.iter().map(|item| self.render(item)).collect::<Result<Vec<Given>>>()?;
        let size = if given.iter().any(Given::is_chat) { 1 } else { self.batch };
        let batches: Vec<&[Given]> = given.chunks(size.max(1)).collect();
        let rewards = in_parallel(&batches, self.client.limits().concurrency, |batch| self.ask(batch))?;
        Ok(rewards.concat())
    }

    fn ask(&self, batch: &[Given]) -> Result<Vec<f64>> {
        let (path, body) = request_of(self.api, self.model.as_deref(), self.mapping.as_ref(), batch);
        let (rewards, tokens) = self.client.ask(&path, &body, |answer| {
            let rewards = rewards_in(self.api, self.mapping.as_ref(), answer)?;
            check(&rewards, batch.len())?;
            Ok((rewards, answer.pointer("/usage/total_tokens").and_then(serde_json::Value::as_u64)))
        })?;
        self.tokens.fetch_add(tokens.unwrap_or(0), Ordering::Relaxed);
        Ok(rewards)
    }

    fn render(&self, item: &ScoreItem<'_>) -> Result<Given> {
        if let Some(renderer) = &self.renderer {
            // By its text: the ids are the policy's, whose tokenizer need not be the reward model's.
            let item = &ScoreItem { token_ids: None, ..item.clone() };
            let text = whole_text(renderer.as_ref(), item).map_err(|e| RemoteError::Local(e.to_string()))?;
            return Ok(Given::text(item, text));
        }
        match self.api {
            RewardApi::Gainsay | RewardApi::Json | RewardApi::VllmScore => Ok(Given::parts(item)),
            _ if self.client.address().raw => Ok(Given::text(item, format!("{}{}", item.prompt.display(), item.text))),
            RewardApi::VllmClassify | RewardApi::VllmPooling => Ok(Given::chat(item)),
            api => Err(RemoteError::Address {
                address: self.client.address().to_string(),
                problem: format!(
                    "{api} takes text that is rendered already: name the model whose chat template renders it with \
                     #tokenizer=M, or send prompt and completion as they stand with #raw"
                ),
            }),
        }
    }
}

impl RewardFn for RemoteReward {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> std::result::Result<Vec<f64>, EngineError> {
        Ok(self.score(items)?)
    }

    fn identity(&self) -> String {
        let model = self.model.as_deref().unwrap_or("model");
        let rendered = self.renderer.as_ref().map_or_else(String::new, |r| format!(" rendered by {}", r.identity()));
        format!("{model}@{} {}{rendered}", self.client.address(), self.api)
    }

    fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

/// Protocols that name the model in every request.
fn needs_model(api: RewardApi) -> bool {
    matches!(
        api,
        RewardApi::VllmClassify
            | RewardApi::VllmPooling
            | RewardApi::VllmScore
            | RewardApi::SglangClassify
            | RewardApi::SglangEmbeddings
    )
}

fn api_of(kind: Kind) -> std::result::Result<RewardApi, String> {
    match kind {
        Kind::Gainsay => Ok(RewardApi::Gainsay),
        Kind::Vllm => Ok(RewardApi::VllmClassify),
        Kind::Sglang => Ok(RewardApi::SglangClassify),
        Kind::Tei => Ok(RewardApi::Tei),
        Kind::OpenRlhf => Ok(RewardApi::OpenRlhf),
        Kind::Trl | Kind::LlamaCpp | Kind::OpenAi => Err(format!(
            "this is a {kind} server, which generates text and gives no rewards; if it does, name the protocol with #api="
        )),
    }
}

/// As many finite rewards as were asked for.
fn check(rewards: &[f64], asked: usize) -> std::result::Result<(), String> {
    if rewards.len() != asked {
        return Err(format!("it holds {} rewards where {asked} were asked for", rewards.len()));
    }
    match rewards.iter().position(|r| !r.is_finite()) {
        Some(place) => Err(format!("reward {place} is {}, which is no finite number", rewards[place])),
        None => Ok(()),
    }
}
