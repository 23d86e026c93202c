//! Tiny models of every family with random adapters and heads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_core::rng::Key;
use gainsay_lm::config::Family;
use gainsay_lm::model::{Adapter, Backbone, Model};
use gainsay_lm::save::Provenance;
use gainsay_lm::train::default_adapter;
use gainsay_lm::weights::hf;

/// The golden models, one a family.
pub const NAMES: [&str; 4] = ["llama", "qwen2", "qwen3", "gpt-neox"];

/// The folder of a golden model.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name)
}

/// The golden model's weights.
pub fn backbone(name: &str) -> Backbone {
    hf::read(&folder(name)).unwrap().backbone
}

/// An adapter whose two factors are both random, so that it changes what the model computes.
pub fn random_adapter(backbone: &Backbone) -> Adapter {
    let mut config = default_adapter(backbone.config.family);
    (config.rank, config.alpha, config.layers) = (3, 4.5, Some(vec![backbone.layers.len() - 1]));
    if backbone.config.family == Family::Qwen3 {
        config.layers = None;
    }
    let mut adapter = Adapter::new(&config, backbone, 3);
    let mut stream = Key::new(3, "random-adapter").stream();
    for pair in adapter.pairs.values_mut() {
        pair.b.data.iter_mut().for_each(|b| *b = 0.3 * stream.normal() as f32);
    }
    adapter
}

/// A random head.
pub fn random_head(backbone: &Backbone) -> Vec<f32> {
    let mut stream = Key::new(4, "random-head").stream();
    (0..backbone.config.hidden_size).map(|_| stream.normal() as f32).collect()
}

/// Random sequences of unequal lengths.
pub fn sequences(backbone: &Backbone) -> Vec<Vec<u32>> {
    let mut stream = Key::new(5, "sequences").stream();
    let vocab = backbone.config.vocab_size.min(60);
    [7, 1, 12, 3].map(|n| (0..n).map(|_| stream.index(vocab) as u32).collect()).to_vec()
}

/// Backbone and adapter together.
pub fn model(backbone: Backbone, adapter: Option<Adapter>) -> Model {
    Model::new(Arc::new(backbone), adapter)
}

/// Some provenance.
pub fn provenance() -> Provenance {
    Provenance {
        method: "test".into(),
        base: "base@sha256:0".into(),
        options: serde_json::json!({ "lr": 0.001 }),
        data: vec!["pairs.jsonl@sha256:0".into()],
        seed: 3,
        results: serde_json::Value::Null,
    }
}
