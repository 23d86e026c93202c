//! Reward models: a backbone and a scalar head on the last real token.

use std::sync::Arc;

use gainsay_core::engine::{EngineError, RewardFn, ScoreItem};

use crate::error::LmError;
use crate::model::packed::added_rows;
use crate::model::{Mat, Model, Packed};
use crate::sequence::{Counters, Encoder, Sequence, Settings, micro_batches};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;

/// A transformer with a scalar head: r = head . hidden(last token), after the final norm.
#[derive(Clone, Debug)]
pub struct RewardModel {
    /// Backbone and adapter.
    pub model: Model,
    /// `[hidden]`, no bias.
    pub head: Vec<f32>,
    /// The backbone's.
    pub tokenizer: Arc<Tokenizer>,
    /// Name and digest, for `meta` fields.
    pub identity: String,
    /// What the backbone was loaded from: an adapter's base.
    pub spec: String,
}

impl RewardModel {
    /// The reward model in a loaded folder.
    ///
    /// # Errors
    /// A model without a reward head.
    pub fn from_loaded(loaded: &Loaded) -> Result<Self, LmError> {
        let Some(head) = loaded.head.clone() else {
            return Err(LmError::NoModel {
                spec: loaded.spec.clone(),
                problem: "it has no reward head; train one with `gainsay train reward`".into(),
            });
        };
        Ok(Self {
            model: Model::new(loaded.backbone.clone(), loaded.adapter.clone()),
            head,
            tokenizer: Arc::new(loaded.tokenizer.clone()),
            identity: loaded.identity.clone(),
            spec: loaded.spec.clone(),
        })
    }

    /// Rewards of sequences that go through the model together; none may be empty.
    pub fn rewards_of(&self, sequences: &[Sequence]) -> Vec<f64> {
        let packed = Packed::sharing(sequences);
        let hidden = self.model.hidden(&packed);
        packed.last_rows().into_iter().map(|row| head_product(hidden.row(row), &self.head)).collect()
    }
}

/// head . hidden, in f64 from left to right.
pub fn head_product(hidden: &[f32], head: &[f32]) -> f64 {
    hidden.iter().zip(head).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum()
}

/// Which rows of the model a head may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// The last real token.
    LastToken,
    /// The mean over the completion's tokens; over the last prompt token where there are none.
    MeanCompletion,
}

/// A reward model that scores records.
#[derive(Debug)]
pub struct LocalReward {
    model: RewardModel,
    settings: Settings,
    counters: Counters,
}

impl LocalReward {
    /// Scores with `model`.
    pub fn new(model: RewardModel, settings: Settings) -> Self {
        Self { model, settings, counters: Counters::default() }
    }

    /// The model.
    pub fn model(&self) -> &RewardModel {
        &self.model
    }

    /// Name and digest of the model.
    pub fn identity(&self) -> &str {
        &self.model.identity
    }

    /// What has gone through the model.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn encode(&self, items: &[ScoreItem<'_>]) -> Result<Vec<Sequence>, LmError> {
        let config = &self.model.model.backbone.config;
        let encoder = Encoder::new(&self.model.tokenizer, config.vocab_size, config.max_positions, &self.settings);
        let sequences = encoder.items(items)?;
        self.counters.add_truncated(sequences.iter().filter(|s| s.truncated).count());
        Ok(sequences)
    }

    /// One reward an item, in order.
    ///
    /// # Errors
    /// Items that the tokenizer or the limit refuses, and rewards that are not finite.
    pub fn score(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, LmError> {
        let sequences = self.encode(items)?;
        let mut rewards = Vec::with_capacity(items.len());
        for range in micro_batches(&added_rows(&sequences), self.settings.batch_tokens) {
            let batch = &sequences[range];
            rewards.extend(self.model.rewards_of(batch));
            self.counters.add_tokens(batch.iter().map(|s| s.tokens.len()).sum());
        }
        match rewards.iter().position(|r| !r.is_finite()) {
            None => Ok(rewards),
            Some(i) => Err(LmError::Run(format!(
                "item {i}: the reward of {} is {}; its weights or this input overflow",
                self.model.identity, rewards[i]
            ))),
        }
    }

    /// Features of the items, `[items, hidden]`, for heads: `layer` counts the layers that have
    /// run (0: embeddings, no norm applied); `None` is after the final norm.
    ///
    /// # Errors
    /// As [`LocalReward::score`], and a layer that the model does not have.
    pub fn features(&self, items: &[ScoreItem<'_>], kind: FeatureKind, layer: Option<usize>) -> Result<Mat, LmError> {
        let config = &self.model.model.backbone.config;
        if let Some(layer) = layer.filter(|&l| l > config.num_layers) {
            return Err(LmError::Input(format!("layer {layer}: the model has {} layers", config.num_layers)));
        }
        let sequences = self.encode(items)?;
        let features = features_of(&self.model.model, &sequences, kind, layer, self.settings.batch_tokens);
        self.counters.add_tokens(sequences.iter().map(|s| s.tokens.len()).sum());
        Ok(features)
    }
}

/// Features of sequences, `[sequences, hidden]`; see [`LocalReward::features`].
pub fn features_of(
    model: &Model,
    sequences: &[Sequence],
    kind: FeatureKind,
    layer: Option<usize>,
    batch_tokens: usize,
) -> Mat {
    let width = model.backbone.config.hidden_size;
    let mut features = Mat { rows: 0, cols: width, data: Vec::with_capacity(sequences.len() * width) };
    for range in micro_batches(&added_rows(sequences), batch_tokens) {
        let packed = Packed::sharing(&sequences[range]);
        let hidden = match layer {
            None => model.hidden(&packed),
            Some(layer) => model.hidden_at(&packed, layer),
        };
        for i in 0..packed.len() {
            let rows = packed.completion_or_last(i);
            let first = match kind {
                FeatureKind::LastToken => rows.end - 1,
                FeatureKind::MeanCompletion => rows.start,
            };
            push_mean(&mut features, &hidden, first..rows.end);
        }
    }
    features
}

/// Appends the mean of some rows, summed in f64 from the first.
fn push_mean(features: &mut Mat, hidden: &Mat, rows: std::ops::Range<usize>) {
    let n = rows.len() as f64;
    let mut sums = vec![0.0f64; hidden.cols];
    for row in rows {
        sums.iter_mut().zip(hidden.row(row)).for_each(|(s, h)| *s += f64::from(*h));
    }
    features.data.extend(sums.into_iter().map(|s| (s / n) as f32));
    features.rows += 1;
}

impl RewardFn for LocalReward {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
        Ok(self.score(items)?)
    }

    fn identity(&self) -> String {
        self.model.identity.clone()
    }

    fn tokens(&self) -> u64 {
        self.counters.tokens()
    }
}
