//! Whole losses against PyTorch's gradients (tests/goldens/README.md): every trainable parameter
//! gets its gradient, no frozen one gets any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_lm::config::Family;
use gainsay_lm::model::{Grads, Keep, Model, Packed, ParamId, Trainable};
use gainsay_lm::names;
use gainsay_lm::sequence::Sequence;
use gainsay_lm::train::{PairLabel, TrainItem, Weights, batch_gradient, sequence_backward};
use gainsay_lm::weights::{hf, peft};
use safetensors::SafeTensors;
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn gradients(name: &str, family: Family) -> BTreeMap<ParamId, Vec<f32>> {
    let bytes = std::fs::read(goldens().join(format!("{name}-grads.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    file.iter().map(|(name, view)| (names::parse(family, name).expect(name), values(view.data()))).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn model(name: &str, adapter: Option<&str>) -> Weights {
    let backbone = hf::read(&goldens().join("models").join(name)).unwrap().backbone;
    let mut weights = Weights { model: Model::new(Arc::new(backbone), None), head: None };
    if let Some(adapter) = adapter {
        let dir = goldens().join("adapters").join(adapter);
        let config = peft::PeftConfig::read(&dir).unwrap();
        let read = peft::read(&dir, &config, &weights.model.backbone).unwrap();
        weights.model.adapter = Some(read.adapter);
        weights.head = read.head;
    }
    weights
}

fn pairs(golden: &Value) -> Vec<TrainItem> {
    let sequence = |v: &Value| Sequence { tokens: ids(v), prompt_len: 1, truncated: false };
    let pair = |(i, row): (usize, &Value)| TrainItem {
        id: i.to_string(),
        sides: vec![sequence(&row["first"]), sequence(&row["second"])],
        label: PairLabel::new(row["p"].as_f64().unwrap(), row["margin"].as_f64().unwrap()).into(),
        topic: None,
        source: None,
        heldout: false,
    };
    golden["pairs"].as_array().unwrap().iter().enumerate().map(pair).collect()
}

/// Relative difference under 1e-4, parameter by parameter; exactly the expected ones reached.
fn compare(name: &str, grads: &Grads, expected: &BTreeMap<ParamId, Vec<f32>>) {
    let trained: Vec<_> = grads.by_id.keys().collect();
    assert_eq!(trained, expected.keys().collect::<Vec<_>>(), "{name}");
    assert_eq!(grads.reached.iter().collect::<Vec<_>>(), trained, "{name}: reached");
    for (id, want) in expected {
        let got = &grads.by_id[id];
        assert_eq!(got.len(), want.len(), "{name} {id:?}");
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(a - b)));
        let size = norm(&mut want.iter().map(|b| f64::from(*b)));
        assert!(difference < 1e-4 * size.max(1e-6), "{name} {id:?}: {difference} of {size}");
    }
}

fn bradley_terry(name: &str, golden: &str, adapter: Option<&str>, what: Trainable) {
    let expected = json(golden);
    let mut weights = model(name, adapter);
    if adapter.is_none() {
        weights.head = Some(floats(&expected["score_weight"]));
    }
    let pairs = pairs(&expected);
    let batch: Vec<&TrainItem> = pairs.iter().collect();
    let gradients = gradients(golden, weights.model.backbone.config.family);
    // One micro-batch, and one a pair: the same sums.
    for budget in [1000, 1] {
        let mut grads = weights.zero_grads(&what);
        let loss = batch_gradient(&weights, &batch, 0.01, budget, None, &mut grads).unwrap();
        assert!((loss - expected["loss"].as_f64().unwrap()).abs() < 1e-5, "{golden}: {loss}");
        compare(golden, &grads, &gradients);
    }
}

#[test]
fn bradley_terry_gradients_of_all_weights_equal_pytorchs() {
    for name in ["llama", "qwen2", "qwen3", "gpt-neox"] {
        bradley_terry(name, &format!("{name}-bt"), None, Trainable::Full);
    }
}

#[test]
fn bradley_terry_gradients_of_an_adapter_equal_pytorchs() {
    for name in ["llama", "qwen2", "qwen3", "gpt-neox"] {
        bradley_terry(name, &format!("{name}-lora"), Some(name), Trainable::Lora);
    }
}

#[test]
fn policy_gradients_equal_pytorchs() {
    for name in ["llama", "qwen2"] {
        let golden = json(&format!("{name}-pg"));
        let rows = golden["sequences"].as_array().unwrap();
        let prompt_len = |r: &Value| r["prompt_len"].as_u64().unwrap() as usize;
        let sequence = |r: &Value| Sequence { tokens: ids(&r["ids"]), prompt_len: prompt_len(r), truncated: false };
        let sequences: Vec<Sequence> = rows.iter().map(sequence).collect();
        let d_logps: Vec<f32> = rows.iter().flat_map(|r| floats(&r["weights"])).map(|w| -w).collect();
        let adapter = format!("{name}-policy");
        for (file, adapter, temperature, what) in [
            ("pg-t07", None, 0.7, Trainable::Full),
            ("pg-lora", Some(adapter.as_str()), 1.0, Trainable::Lora),
            ("pg-lora-t07", Some(adapter.as_str()), 0.7, Trainable::Lora),
        ] {
            let file = format!("{name}-{file}");
            let weights = model(name, adapter);
            for keep in [Keep::Inputs, Keep::Activations] {
                let mut grads = weights.zero_grads(&what);
                let tape = weights.model.record(&Packed::sharing(&sequences), keep, &grads).unwrap();
                sequence_backward(&weights.model, tape, temperature, &d_logps, &mut grads).unwrap();
                compare(&file, &grads, &gradients(&file, weights.model.backbone.config.family));
            }
        }
    }
}
