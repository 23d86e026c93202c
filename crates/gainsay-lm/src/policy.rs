//! A language model as a policy: it samples completions and gives log-probs of given ones.

use std::sync::Arc;

use gainsay_core::engine::{Decoding, EngineError, LogProb, SampleRequest, Sampler, ScoreItem, SequenceLogp};
use gainsay_core::record::{Completion, Finish};
use gainsay_core::rng::Key;

use crate::error::LmError;
use crate::model::packed::batches;
use crate::model::{Backbone, GenOptions, Generated, Model, Packed};
use crate::sequence::{Counters, Encoder, Sequence, Settings};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;

/// Hears how many tokens were added, while work goes on.
pub type OnTokens = Box<dyn Fn(usize) + Send + Sync>;

/// A local model that samples and scores.
pub struct LocalPolicy {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    identity: String,
    settings: Settings,
    counters: Counters,
    on_tokens: Option<OnTokens>,
}

impl LocalPolicy {
    /// The policy in a loaded folder; a reward head, where there is one, is not read.
    ///
    /// # Errors
    /// A model without an output matrix.
    pub fn new(loaded: &Loaded, settings: Settings) -> Result<Self, LmError> {
        require_output_matrix(&loaded.backbone, &loaded.spec)?;
        let model = Model::new(loaded.backbone.clone(), loaded.adapter.clone());
        Ok(Self::from_parts(model, Arc::new(loaded.tokenizer.clone()), loaded.identity.clone(), settings))
    }

    /// A policy from a model in memory.
    pub fn from_parts(model: Model, tokenizer: Arc<Tokenizer>, identity: String, settings: Settings) -> Self {
        Self { model, tokenizer, identity, settings, counters: Counters::default(), on_tokens: None }
    }

    /// Calls `on_tokens` while work goes on.
    #[must_use]
    pub fn with_progress(mut self, on_tokens: OnTokens) -> Self {
        self.on_tokens = Some(on_tokens);
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Name and digest of the model.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What has gone through the model.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn encoder(&self) -> Encoder<'_> {
        let config = &self.model.backbone.config;
        Encoder::new(&self.tokenizer, config.vocab_size, config.max_positions, &self.settings)
    }

    /// `n` completions a request; see [`Sampler::sample`].
    ///
    /// # Errors
    /// Prompts that the tokenizer or the limit refuses, and decoding options out of range.
    pub fn complete(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Completion>>, LmError> {
        check_decoding(decoding)?;
        let encoder = self.encoder();
        let mut prompts = Vec::with_capacity(requests.len());
        for request in requests {
            let (ids, cut) = encoder.prompt(&request.prompt, decoding.max_new_tokens, &request.id)?;
            self.counters.add_truncated(usize::from(cut));
            prompts.push(ids);
        }
        let ids: Vec<&str> = requests.iter().map(|r| r.id.as_str()).collect();
        let n: Vec<usize> = requests.iter().map(|r| r.n).collect();
        let heard = |count: usize| {
            self.counters.add_tokens(count);
            if let Some(on_tokens) = &self.on_tokens {
                on_tokens(count);
            }
        };
        let options = gen_options(&self.tokenizer, decoding, self.settings.max_rows);
        let generated = draw_completions(&self.model, &prompts, &ids, &n, &options, decoding, heard)?;
        Ok(generated
            .into_iter()
            .map(|row| row.into_iter().map(|g| completion_of(&self.tokenizer, g)).collect())
            .collect())
    }

    /// Log-probs of the items' completions; see [`LogProb::logps`].
    ///
    /// # Errors
    /// Items that the tokenizer or the limit refuses, and log-probs that are not finite.
    pub fn sequence_logps(&self, items: &[ScoreItem<'_>]) -> Result<Vec<SequenceLogp>, LmError> {
        let sequences = self.encoder().items(items)?;
        self.counters.add_truncated(sequences.iter().filter(|s| s.truncated).count());
        let mut out = Vec::with_capacity(items.len());
        for range in batches(&sequences, self.settings.batch_tokens) {
            let tokens = sequences[range.clone()].iter().map(|s| s.tokens.len()).sum();
            let logps = completion_logps(&self.model, &sequences[range], &[1.0])?.remove(0);
            out.extend(logps.into_iter().map(|token_logps| SequenceLogp { sum: sum(&token_logps), token_logps }));
            self.counters.add_tokens(tokens);
            if let Some(on_tokens) = &self.on_tokens {
                on_tokens(tokens);
            }
        }
        match out.iter().position(|l| !l.sum.is_finite()) {
            None => Ok(out),
            Some(i) => Err(LmError::Run(format!(
                "item {i}: its log-prob under {} is {}; the weights or this input overflow",
                self.identity, out[i].sum
            ))),
        }
    }
}

/// Refuses a backbone that cannot predict tokens: a reward model's, where nothing is tied.
pub(crate) fn require_output_matrix(backbone: &Backbone, spec: &str) -> Result<(), LmError> {
    if backbone.lm_head.is_some() || backbone.config.tie_embeddings {
        return Ok(());
    }
    Err(LmError::NoModel {
        spec: spec.to_owned(),
        problem: "it is a reward model without an output matrix and cannot predict tokens; give a causal model".into(),
    })
}

/// Sum in f64, in order.
pub fn sum(token_logps: &[f32]) -> f64 {
    token_logps.iter().map(|&l| f64::from(l)).sum()
}

/// Splits values that lie back to back into one list a sequence.
pub(crate) fn by_sequence(values: &[f32], sequences: &[Sequence]) -> Vec<Vec<f32>> {
    let mut rest = values;
    sequences
        .iter()
        .map(|s| {
            let (own, others) = rest.split_at(s.completion().len());
            rest = others;
            own.to_vec()
        })
        .collect()
}

/// Token log-probs of the completions of sequences that go through the model together: for each
/// temperature, one list a sequence. A prompt that neighbors share is computed once.
///
/// # Errors
/// What a device reports.
pub(crate) fn completion_logps(
    model: &Model,
    sequences: &[Sequence],
    temperatures: &[f64],
) -> Result<Vec<Vec<Vec<f32>>>, LmError> {
    let batch = Packed::sharing(sequences);
    let hidden = model.rows(&batch, None)?;
    let (rows, targets) = batch.predictions();
    let at = |&t: &f64| Ok(by_sequence(&model.logps(&hidden, &rows, &targets, t)?, sequences));
    temperatures.iter().map(at).collect()
}

fn check_decoding(decoding: &Decoding) -> Result<(), LmError> {
    let wrong = |what: String| Err(LmError::Input(what));
    if !decoding.temperature.is_finite() || decoding.temperature < 0.0 {
        return wrong(format!("temperature {}: it must be 0 (greedy) or more", decoding.temperature));
    }
    if !(decoding.top_p > 0.0 && decoding.top_p <= 1.0) {
        return wrong(format!("top-p {}: it must lie in (0, 1]", decoding.top_p));
    }
    if decoding.max_new_tokens == 0 {
        return wrong("max-new-tokens 0: there would be no completion; ask for at least 1".into());
    }
    Ok(())
}

/// The engine's options for a way of decoding.
pub(crate) fn gen_options(tokenizer: &Tokenizer, decoding: &Decoding, max_rows: usize) -> GenOptions {
    GenOptions {
        temperature: decoding.temperature,
        top_k: decoding.top_k,
        top_p: decoding.top_p,
        max_new_tokens: decoding.max_new_tokens,
        end_tokens: tokenizer.end_tokens().to_vec(),
        ignore_eos: decoding.ignore_eos,
        max_rows,
    }
}

/// Samples with random numbers keyed by (seed, purpose, round, step, prompt id, completion,
/// token).
///
/// # Errors
/// What a device reports.
pub(crate) fn draw_completions(
    model: &Model,
    prompts: &[Vec<u32>],
    ids: &[&str],
    n: &[usize],
    options: &GenOptions,
    decoding: &Decoding,
    mut heard: impl FnMut(usize),
) -> Result<Vec<Vec<Generated>>, LmError> {
    let key = Key::new(decoding.seed, &decoding.purpose).round(decoding.round).step(decoding.step);
    let draw = |request: usize, completion: usize, token: usize| {
        key.prompt(ids[request]).completion(completion).uniform_at(token as u64)
    };
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    model.sample(&prompts, n, options, &draw, &mut heard)
}

/// The record of a sampled completion.
pub(crate) fn completion_of(tokenizer: &Tokenizer, generated: Generated) -> Completion {
    let ids = &generated.token_ids;
    let shown = if generated.stopped { &ids[..ids.len() - 1] } else { ids };
    Completion {
        text: tokenizer.decode(shown),
        logp: Some(sum(&generated.token_logps)),
        n_tokens: Some(ids.len() as u32),
        finish: Some(if generated.stopped { Finish::Stop } else { Finish::Length }),
        token_logps: Some(generated.token_logps),
        token_ids: Some(generated.token_ids),
        ..Completion::default()
    }
}

impl Sampler for LocalPolicy {
    fn sample(&self, requests: &[SampleRequest], decoding: &Decoding) -> Result<Vec<Vec<Completion>>, EngineError> {
        Ok(self.complete(requests, decoding)?)
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}

impl LogProb for LocalPolicy {
    fn logps(&self, items: &[ScoreItem<'_>]) -> Result<Vec<SequenceLogp>, EngineError> {
        Ok(self.sequence_logps(items)?)
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn tokens(&self) -> u64 {
        self.counters.tokens()
    }
}
