//! Forward and backward of tiny models against transformers, PEFT and PyTorch (see
//! `goldens/README.md`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gainsay_lm::config::Family;
use gainsay_lm::model::{Adapter, Backbone, Grads, Keep, Mat, Model, Packed, ParamId, Trainable};
use gainsay_lm::names;
use gainsay_lm::weights::peft::PeftConfig;
use gainsay_lm::weights::{hf, peft};
use safetensors::SafeTensors;
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// A tiny model, or an adapter on one.
struct Loaded {
    backbone: Arc<Backbone>,
    adapter: Option<Adapter>,
    head: Option<Vec<f32>>,
}

fn loaded(name: &str) -> Loaded {
    if let Some(name) = name.strip_prefix("models/") {
        let model = hf::read(&path("models").join(name)).unwrap();
        return Loaded { backbone: Arc::new(model.backbone), adapter: None, head: model.head };
    }
    let config = PeftConfig::read(&path(name)).unwrap();
    let base = hf::read(&path(name).join(&config.base)).unwrap();
    let model = peft::read(&path(name), &config, &base.backbone).unwrap();
    Loaded { backbone: Arc::new(base.backbone), adapter: Some(model.adapter), head: model.head }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn pack(sequences: &[Vec<u32>]) -> Packed {
    Packed::new(&sequences.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Rows and targets of every next-token prediction.
fn predictions(batch: &Packed) -> (Vec<usize>, Vec<u32>) {
    (0..batch.len()).flat_map(|i| batch.range(i).skip(1)).map(|row| (row - 1, batch.tokens[row])).unzip()
}

fn head_values(hidden: &Mat, rows: &[usize], head: &[f64]) -> Vec<f64> {
    let value = |row: &usize| hidden.row(*row).iter().zip(head).map(|(x, w)| f64::from(*x) * w).sum();
    rows.iter().map(value).collect()
}

const MODELS: [&str; 6] = ["llama", "llama-sharded", "qwen2", "qwen3", "gpt-neox", "gpt-neox-serial"];

#[test]
fn log_probs_and_rewards_match_transformers() {
    for name in MODELS {
        let golden = json(&format!("{name}.json"));
        let model = Model::new(loaded(&format!("models/{name}")).backbone, None);
        let rows = golden["sequences"].as_array().unwrap();
        let batch = pack(&rows.iter().map(|row| ids(&row["ids"])).collect::<Vec<_>>());
        let hidden = model.hidden(&batch);
        for (x, e) in hidden.row(batch.last_rows()[0]).iter().zip(floats(&golden["first_hidden"])) {
            assert!((f64::from(*x) - e).abs() < 1e-5 * (1.0 + e.abs()), "{name}: {x} instead of {e}");
        }
        let (at, targets) = predictions(&batch);
        let logps = model.token_logps(&hidden, &at, &targets, 1.0);
        let expected: Vec<f64> = rows.iter().flat_map(|row| floats(&row["token_logps"])).collect();
        for (x, e) in logps.iter().zip(&expected) {
            assert!((f64::from(*x) - e).abs() < 2e-5, "{name}: log-prob {x} instead of {e}");
        }
        assert_eq!(logps.len(), expected.len());
        let mut from = 0;
        for row in rows {
            let len = row["token_logps"].as_array().unwrap().len();
            let start = row["prompt_len"].as_u64().unwrap() as usize - 1;
            let sum: f64 = logps[from + start..from + len].iter().map(|l| f64::from(*l)).sum();
            assert!((sum - number(&row["completion_logp"])).abs() < 1e-4, "{name}: {sum}");
            from += len;
        }
        let rewards = head_values(&hidden, &batch.last_rows(), &floats(&golden["reward"]["score_weight"]));
        for (x, e) in rewards.iter().zip(floats(&golden["reward"]["rewards"])) {
            assert!((x - e).abs() < 1e-4, "{name}: reward {x} instead of {e}");
        }
    }
}

fn expected_gradients(name: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path(name)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    tensors.iter().map(|(name, view)| (name.to_owned(), values(view.data()))).collect()
}

/// Each parameter's gradient agrees within a relative 1e-4 (norm of the difference over the
/// norm); both sides have exactly the same parameters, and backward reached them all.
fn compare(what: &str, family: Family, grads: &Grads, expected: &BTreeMap<String, Vec<f32>>) {
    let name = |id: ParamId| match id {
        ParamId::LoraA(..) | ParamId::LoraB(..) => names::peft_name(family, id),
        ParamId::Head if expected.contains_key("base_model.model.score.weight") => names::peft_name(family, id),
        _ => names::hf_name(family, id),
    };
    let ours: BTreeMap<String, &Vec<f32>> = grads.by_id.iter().map(|(id, g)| (name(*id), g)).collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    assert_eq!(grads.reached.iter().collect::<Vec<_>>(), grads.by_id.keys().collect::<Vec<_>>(), "{what}");
    for (name, ours) in ours {
        let theirs = &expected[&name];
        assert_eq!(ours.len(), theirs.len(), "{what} {name}");
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let size = norm(&mut theirs.iter().map(|x| f64::from(*x)));
        let error = norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        assert!(error <= 1e-4 * size + 1e-9, "{what} {name}: relative error {}", error / size);
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Bradley-Terry gradients through the engine for the pairs of a golden file.
fn bradley_terry(golden: &Value, model: &Model, head: &[f64], what: &Trainable) -> Grads {
    let pairs = golden["pairs"].as_array().unwrap();
    let sequences: Vec<Vec<u32>> = pairs.iter().flat_map(|p| [ids(&p["first"]), ids(&p["second"])]).collect();
    let batch = pack(&sequences);
    let mut grads = Grads::zeros(model, what, true);
    let tape = model.forward_tape(&batch, Keep::Activations, &grads);
    let last = batch.last_rows();
    let rewards = head_values(&tape.hidden, &last, head);
    let mut d_hidden = Mat::zeros(tape.hidden.rows, tape.hidden.cols);
    let mut d_head = vec![0f64; head.len()];
    for (i, pair) in pairs.iter().enumerate() {
        let (r1, r2) = (rewards[2 * i], rewards[2 * i + 1]);
        for (r, e) in [(r1, &pair["reward_first"]), (r2, &pair["reward_second"])] {
            assert!((r - number(e)).abs() < 1e-4, "reward {r} instead of {e}");
        }
        let (p, m, d) = (number(&pair["p"]), number(&pair["margin"]), r1 - r2);
        let slope = -p * sigmoid(m - d) + (1.0 - p) * sigmoid(d + m);
        let center = 2.0 * number(&golden["center"]) * (r1 + r2);
        for (sign, row) in [(1.0, last[2 * i]), (-1.0, last[2 * i + 1])] {
            let dr = (sign * slope + center) / pairs.len() as f64;
            for (j, w) in head.iter().enumerate() {
                d_head[j] += dr * f64::from(tape.hidden.row(row)[j]);
                d_hidden.row_mut(row)[j] += (dr * w) as f32;
            }
        }
    }
    for (sum, d) in grads.get_mut(ParamId::Head).unwrap().iter_mut().zip(d_head) {
        *sum += d as f32;
    }
    model.backward(tape, d_hidden, &mut grads);
    grads
}

#[test]
fn bradley_terry_gradients_match_torch() {
    for name in ["llama", "qwen2", "qwen3", "gpt-neox"] {
        let golden = json(&format!("{name}-bt.json"));
        let model = Model::new(loaded(&format!("models/{name}")).backbone, None);
        let grads = bradley_terry(&golden, &model, &floats(&golden["score_weight"]), &Trainable::Full);
        let expected = expected_gradients(&format!("{name}-bt-grads.safetensors"));
        compare(&format!("{name} full"), model.backbone.config.family, &grads, &expected);
    }
}

#[test]
fn bradley_terry_adapter_gradients_match_peft() {
    for name in ["llama", "qwen2", "qwen3", "gpt-neox"] {
        let golden = json(&format!("{name}-lora.json"));
        let base = loaded(&format!("adapters/{name}"));
        let head: Vec<f64> = base.head.as_ref().unwrap().iter().map(|w| f64::from(*w)).collect();
        let model = Model::new(base.backbone, base.adapter);
        let grads = bradley_terry(&golden, &model, &head, &Trainable::Lora);
        let expected = expected_gradients(&format!("{name}-lora-grads.safetensors"));
        compare(&format!("{name} LoRA"), model.backbone.config.family, &grads, &expected);
    }
}

/// Gradients of -sum w log p over the completions of a golden file.
fn policy_gradient(golden: &Value, case: &str, model: &Model, what: &Trainable) -> Grads {
    let rows = golden["sequences"].as_array().unwrap();
    let temperature = number(&golden[case]["temperature"]) as f32;
    let batch = pack(&rows.iter().map(|row| ids(&row["ids"])).collect::<Vec<_>>());
    let mut grads = Grads::zeros(model, what, false);
    let tape = model.forward_tape(&batch, Keep::Inputs, &grads);
    let (mut at, mut targets, mut d_logp, mut expected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, row) in rows.iter().enumerate() {
        let completion = batch.range(i).skip(row["prompt_len"].as_u64().unwrap() as usize);
        let weights = floats(&row["weights"]);
        assert_eq!(completion.len(), weights.len());
        at.extend(completion.clone().map(|row| row - 1));
        targets.extend(completion.map(|row| batch.tokens[row]));
        d_logp.extend(weights.iter().map(|w| -w as f32));
        expected.extend(floats(&golden[case]["completion_token_logps"][i]));
    }
    let logps = model.token_logps(&tape.hidden, &at, &targets, temperature);
    for (x, e) in logps.iter().zip(&expected) {
        assert!((f64::from(*x) - e).abs() < 3e-5, "{case}: {x} instead of {e}");
    }
    let loss: f64 = logps.iter().zip(&d_logp).map(|(l, d)| f64::from(*l) * f64::from(*d)).sum();
    assert!((loss - number(&golden[case]["loss"])).abs() < 1e-4, "{case}: loss {loss}");
    let mut d_hidden = Mat::zeros(tape.hidden.rows, tape.hidden.cols);
    model.token_logps_backward(&tape.hidden, &at, &targets, temperature, &d_logp, &mut d_hidden, &mut grads);
    model.backward(tape, d_hidden, &mut grads);
    grads
}

#[test]
fn policy_gradients_match_torch() {
    for name in ["llama", "qwen2"] {
        let golden = json(&format!("{name}-pg.json"));
        let model = Model::new(loaded(&format!("models/{name}")).backbone, None);
        let family = model.backbone.config.family;
        let grads = policy_gradient(&golden, "full_t07", &model, &Trainable::Full);
        compare(name, family, &grads, &expected_gradients(&format!("{name}-pg-t07-grads.safetensors")));

        let base = loaded(&format!("adapters/{name}-policy"));
        let adapted = Model::new(base.backbone, base.adapter);
        for (case, file) in [("lora_t1", "lora"), ("lora_t07", "lora-t07")] {
            let grads = policy_gradient(&golden, case, &adapted, &Trainable::Lora);
            let expected = expected_gradients(&format!("{name}-pg-{file}-grads.safetensors"));
            compare(&format!("{name} {case}"), family, &grads, &expected);
        }
    }
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for name in ["llama", "gpt-neox"] {
        let base = loaded(&format!("adapters/{name}"));
        let config = base.adapter.unwrap().config;
        let adapter = Adapter::new(&config, &base.backbone, 3);
        assert!(adapter.pairs.values().all(|p| p.a.data.iter().any(|w| *w != 0.0)));
        let batch = pack(&[vec![1, 2, 3, 4, 5], vec![7, 8]]);
        let plain = Model::new(base.backbone.clone(), None).hidden(&batch);
        assert_eq!(Model::new(base.backbone, Some(adapter)).hidden(&batch), plain);
    }
}

#[test]
fn frozen_parameters_get_no_entry_and_a_head_alone_costs_nothing() {
    let base = loaded("adapters/llama");
    let model = Model::new(base.backbone, base.adapter);
    let grads = Grads::zeros(&model, &Trainable::Head, true);
    assert_eq!(grads.by_id.keys().collect::<Vec<_>>(), [&ParamId::Head]);
    let mut nothing = Grads::zeros(&model, &Trainable::Head, false);
    let tape = model.forward_tape(&pack(&[vec![1, 2, 3]]), Keep::Activations, &nothing);
    model.backward(tape, Mat::zeros(3, 32), &mut nothing);
    assert!(nothing.by_id.is_empty() && nothing.reached.is_empty());
}

#[test]
fn an_upper_layer_alone_gets_the_same_gradients() {
    let base = loaded("adapters/llama");
    let full = Model::new(base.backbone.clone(), base.adapter.clone());
    let mut upper = base.adapter.unwrap();
    let lower = upper.pairs.clone();
    // The same function, with the lower layer's factors merged into a frozen copy of its weights.
    let mut backbone = (*base.backbone).clone();
    for ((layer, proj), pair) in lower.iter().filter(|((layer, _), _)| *layer == 0) {
        let id = ParamId::Linear(*layer, *proj, gainsay_lm::model::Part::Weight);
        let weight = backbone.param_mut(id).unwrap();
        let (rank, input) = (pair.a.shape[0], pair.a.shape[1]);
        for (i, w) in weight.data.iter_mut().enumerate() {
            let product: f32 =
                (0..rank).map(|r| pair.b.data[i / input * rank + r] * pair.a.data[r * input + i % input]).sum();
            *w += upper.config.alpha as f32 / upper.config.rank as f32 * product;
        }
    }
    upper.pairs.retain(|(layer, _), _| *layer == 1);
    let part = Model::new(Arc::new(backbone), Some(upper));
    let golden = json("llama-lora.json");
    let head = vec![0.1; 32];
    let gradients = |model: &Model| {
        let mut grads = Grads::zeros(model, &Trainable::Lora, false);
        let tape = model.forward_tape(&pack(&[ids(&golden["pairs"][0]["first"])]), Keep::Inputs, &grads);
        let mut d = Mat::zeros(tape.hidden.rows, 32);
        d.row_mut(tape.hidden.rows - 1).copy_from_slice(&head);
        model.backward(tape, d, &mut grads);
        grads
    };
    let (all, some) = (gradients(&full), gradients(&part));
    assert!(some.by_id.len() == all.by_id.len() / 2 && some.reached.len() == some.by_id.len());
    for (id, g) in &some.by_id {
        for (a, b) in g.iter().zip(&all.by_id[id]) {
            assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{id:?}: {a} and {b}");
        }
    }
}
