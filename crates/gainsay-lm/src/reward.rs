//! Reward models: a backbone and a scalar head on the last real token.

use std::path::Path;
use std::sync::Arc;

use gainsay_core::engine::{EngineError, RewardFn, RewardsByHead, ScoreItem};
use serde::{Deserialize, Serialize};

use crate::error::LmError;
use crate::features::{FeatureCache, Read, read_features};
use crate::model::packed::batches;
use crate::model::{Mat, Model, Packed};
use crate::save::Heads;
use crate::sequence::{Counters, Encoder, Sequence, Settings};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;
use crate::weights::digest;

/// A transformer with a scalar head: r = head . hidden(last token), after the final norm, or
/// another feature vector in its place.
#[derive(Clone, Debug)]
pub struct RewardModel {
    /// Backbone and adapter.
    pub model: Model,
    /// `[hidden]`, no bias; with other reads, as long as what is read.
    pub head: Vec<f32>,
    /// Heads of an ensemble, each as long as `head`; empty without one.
    pub ensemble: Vec<Vec<f32>>,
    /// What the heads read.
    pub reads: Vec<Read>,
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
        let heads = Heads::beside(Path::new(&loaded.spec))?;
        let (ensemble, reads, identity) = match &heads {
            None => (Vec::new(), vec![Read::LAST], loaded.identity.clone()),
            Some(h) => {
                let identity = format!("{} heads:{}", loaded.identity, digest::short(&h.digest));
                (h.ensemble.clone(), h.reads.clone(), identity)
            }
        };
        let Some(head) = heads.and_then(|h| h.head).or_else(|| loaded.head.clone()) else {
            return Err(LmError::NoModel {
                spec: loaded.spec.clone(),
                problem: "it has no reward head; train one with `gainsay train reward`".into(),
            });
        };
        Ok(Self {
            model: Model::new(loaded.backbone.clone(), loaded.adapter.clone()),
            head,
            ensemble,
            reads,
            tokenizer: Arc::new(loaded.tokenizer.clone()),
            identity,
            spec: loaded.spec.clone(),
        })
    }

    /// Rewards of sequences that go through the model together; none may be empty.
    ///
    /// # Errors
    /// What a device reports.
    pub fn rewards_of(&self, sequences: &[Sequence]) -> Result<Vec<f64>, LmError> {
        Ok(self.by_head(sequences)?.0)
    }

    /// Rewards, and each sequence's rewards by every head of the ensemble.
    ///
    /// # Errors
    /// What a device reports.
    pub fn by_head(&self, sequences: &[Sequence]) -> Result<(Vec<f64>, Vec<Vec<f64>>), LmError> {
        if self.reads == [Read::LAST] {
            let packed = Packed::sharing(sequences);
            let hidden = self.model.rows(&packed, None)?;
            let rows = packed.last_rows();
            return Ok(self.products(rows.into_iter().map(|row| hidden.row(row))));
        }
        let features = read_features(&self.model, sequences, &self.reads, usize::MAX)?;
        Ok(self.products((0..features.rows).map(|row| features.row(row))))
    }

    fn products<'r>(&self, rows: impl Iterator<Item = &'r [f32]>) -> (Vec<f64>, Vec<Vec<f64>>) {
        let of = |row| {
            let heads = self.ensemble.iter().map(|head| head_product(row, head)).collect();
            (head_product(row, &self.head), heads)
        };
        rows.map(of).unzip()
    }
}

/// head . hidden, in f64 from left to right.
pub fn head_product(hidden: &[f32], head: &[f32]) -> f64 {
    hidden.iter().zip(head).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum()
}

/// Which rows of the model a head may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// The last real token.
    #[serde(rename = "last")]
    LastToken,
    /// The mean over the completion's tokens; over the last prompt token where there are none.
    #[serde(rename = "mean")]
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
        // The policy that wrote them may have another tokenizer.
        let own: Vec<ScoreItem<'_>> = items.iter().map(|item| encoder.own(item)).collect();
        let sequences = encoder.items(&own)?;
        self.counters.add_truncated(sequences.iter().filter(|s| s.truncated).count());
        Ok(sequences)
    }

    /// One reward an item, in order.
    ///
    /// # Errors
    /// Items that the tokenizer or the limit refuses, and rewards that are not finite.
    pub fn score(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, LmError> {
        Ok(self.score_by_head(items)?.0)
    }

    /// As [`LocalReward::score`], with each item's rewards by every head of the ensemble.
    ///
    /// # Errors
    /// As [`LocalReward::score`].
    pub fn score_by_head(&self, items: &[ScoreItem<'_>]) -> Result<(Vec<f64>, Vec<Vec<f64>>), LmError> {
        let sequences = self.encode(items)?;
        let (mut rewards, mut heads) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for range in batches(&sequences, self.settings.batch_tokens) {
            let batch = &sequences[range];
            let (new, by_head) = self.model.by_head(batch)?;
            rewards.extend(new);
            heads.extend(by_head);
            self.counters.add_tokens(batch.iter().map(|s| s.tokens.len()).sum());
        }
        match rewards.iter().position(|r| !r.is_finite()) {
            None => Ok((rewards, heads)),
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
        let features = features_of(&self.model.model, &sequences, kind, layer, self.settings.batch_tokens)?;
        self.counters.add_tokens(sequences.iter().map(|s| s.tokens.len()).sum());
        Ok(features)
    }

    /// The last token's features of the items, `[items, hidden]`, of which only those that `cache`
    /// does not know are computed; `told` hears of each lot, how many items it had and how many
    /// are still to do.
    ///
    /// # Errors
    /// As [`LocalReward::features`], and a cache that cannot be read or written.
    pub fn cached_features(
        &self,
        items: &[ScoreItem<'_>],
        cache: &mut FeatureCache,
        mut told: impl FnMut(usize, usize),
    ) -> Result<Mat, LmError> {
        let (model, width) = (&self.model.model, self.model.model.backbone.config.hidden_size);
        cache.open(&self.model.identity, &[Read::LAST], width)?;
        let sequences = self.encode(items)?;
        let mut left = cache.missing(&sequences);
        let compute = |new: &[Sequence]| {
            let features = read_features(model, new, &[Read::LAST], self.settings.batch_tokens)?;
            self.counters.add_tokens(new.iter().map(|s| s.tokens.len()).sum());
            left -= new.len();
            told(new.len(), left);
            Ok(features)
        };
        Ok(cache.rows(&sequences, width, compute)?.0)
    }
}

/// Features of sequences, `[sequences, hidden]`; see [`LocalReward::features`].
///
/// # Errors
/// What a device reports.
pub fn features_of(
    model: &Model,
    sequences: &[Sequence],
    kind: FeatureKind,
    layer: Option<usize>,
    batch_tokens: usize,
) -> Result<Mat, LmError> {
    let width = model.backbone.config.hidden_size;
    let mut features = Mat { rows: 0, cols: width, data: Vec::with_capacity(sequences.len() * width) };
    for range in batches(sequences, batch_tokens) {
        let packed = Packed::sharing(&sequences[range]);
        let hidden = model.rows(&packed, layer)?;
        for i in 0..packed.len() {
            let rows = packed.completion_or_last(i);
            let first = match kind {
                FeatureKind::LastToken => rows.end - 1,
                FeatureKind::MeanCompletion => rows.start,
            };
            push_mean(&mut features, &hidden, first..rows.end);
        }
    }
    Ok(features)
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

    fn rewards_by_head(&self, items: &[ScoreItem<'_>]) -> Result<Option<RewardsByHead>, EngineError> {
        if self.model.ensemble.len() < 2 {
            return Ok(None);
        }
        let (rewards, heads) = self.score_by_head(items)?;
        Ok(Some(RewardsByHead { rewards, heads }))
    }

    fn identity(&self) -> String {
        self.model.identity.clone()
    }

    fn tokens(&self) -> u64 {
        self.counters.tokens()
    }
}
