//! Which adapter the training recipes train.

use gainsay_lm::config::ModelConfig;
use gainsay_lm::model::{AdapterConfig, Proj};
use gainsay_lm::names::{module_name, projections};
use gainsay_lm::source::Loaded;
use gainsay_lm::train::default_adapter;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The shape of a new adapter, as the user asks for it.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Rank.
    pub rank: usize,
    /// Scale numerator.
    pub alpha: f64,
    /// Dropout of the adapter's input while training. `None`: what an adapter that goes on was
    /// trained with, and none for a new one.
    pub dropout: Option<f64>,
    /// Adapt the last so many layers only; 0 adapts all.
    pub last_layers: usize,
    /// Projections that are adapted, by their names in the model; empty for the default.
    pub targets: Vec<String>,
}

impl Lora {
    /// The default projections without dropout.
    pub fn plain(rank: usize, alpha: f64, last_layers: usize) -> Self {
        Self { rank, alpha, dropout: None, last_layers, targets: Vec::new() }
    }

    /// The configuration of the adapter that is trained on top of `base`. Of an adapter that goes
    /// on, the dropout alone can be chosen anew; it is written into `base`.
    ///
    /// # Errors
    /// Projections that the model does not have.
    pub fn settle(&self, base: &mut Loaded) -> Result<AdapterConfig> {
        let config = &base.backbone.config;
        let mut wanted = default_adapter(config.family);
        let layers = config.num_layers;
        (wanted.rank, wanted.alpha) = (self.rank, self.alpha);
        wanted.layers = (self.last_layers > 0).then(|| (layers.saturating_sub(self.last_layers)..layers).collect());
        if !self.targets.is_empty() {
            wanted.targets = targets(&self.targets, config)?;
        }
        wanted.dropout = self.dropout.unwrap_or(0.0);
        if let Some(adapter) = &mut base.adapter {
            adapter.config.dropout = self.dropout.unwrap_or(adapter.config.dropout);
            wanted.dropout = adapter.config.dropout;
        }
        Ok(wanted)
    }

    /// What provenance adds for choices that are not the default.
    pub fn note(&self, settled: &AdapterConfig, shown: &mut Value) {
        if settled.dropout > 0.0 {
            shown["dropout"] = json!(settled.dropout);
        }
        if !self.targets.is_empty() {
            shown["targets"] = json!(self.targets);
        }
        if self.last_layers > 0 {
            shown["layers"] = json!(settled.layers);
        }
    }
}

/// Projections by their names in a model.
fn targets(names: &[String], config: &ModelConfig) -> Result<Vec<Proj>> {
    let known = projections(config.family);
    let of = |name: &String| {
        known.iter().copied().find(|p| module_name(config.family, *p) == name).ok_or_else(|| {
            let all: Vec<&str> = known.iter().map(|p| module_name(config.family, *p)).collect();
            Error::Input(format!("--targets {name}: a {} layer has {}", config.family, all.join(", ")))
        })
    };
    names.iter().map(of).collect()
}
