//! The default model against transformers, in both precisions.

use std::path::PathBuf;

use gainsay_core::rng::Key;
use gainsay_lm::load;
use gainsay_lm::model::{GenOptions, Model, Packed, Precision, generate};
use serde_json::Value;

fn golden() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/smollm2.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Largest difference of a completion's log-prob, in units of its tolerance; the same for rewards.
fn worst(model: &Model, golden: &Value, logp_bound: impl Fn(f64, f64) -> f64, reward_bound: f64) -> (f64, f64) {
    let rows = golden["rows"].as_array().unwrap();
    let sequences: Vec<(Vec<u32>, Vec<u32>)> =
        rows.iter().map(|row| (ids(&row["prompt_ids"]), ids(&row["completion_ids"]))).collect();
    let whole: Vec<Vec<u32>> = sequences.iter().map(|(p, c)| [p.as_slice(), c].concat()).collect();
    let batch = Packed::new(&whole.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let hidden = model.hidden(&batch);
    let (mut logps, mut rewards) = (0f64, 0f64);
    for (i, (row, (prompt, completion))) in rows.iter().zip(&sequences).enumerate() {
        let at: Vec<usize> = batch.range(i).skip(prompt.len()).map(|r| r - 1).collect();
        let ours = model.token_logps(&hidden, &at, completion, 1.0);
        let sum: f64 = ours.iter().map(|l| f64::from(*l)).sum();
        let expected: f64 = floats(&row["token_logps"]).iter().sum();
        let bound = logp_bound(expected, completion.len() as f64);
        logps = logps.max((sum - expected).abs() / bound);
        let head = (0..hidden.cols).map(|j| ((j + 1) as f64).sin() * 0.05);
        let last = hidden.row(batch.last_rows()[i]);
        let reward: f64 = last.iter().zip(head).map(|(x, w)| f64::from(*x) * w).sum();
        rewards = rewards.max((reward - row["reward"].as_f64().unwrap()).abs() / reward_bound);
    }
    (logps, rewards)
}

#[test]
fn log_probs_and_rewards_match_transformers() {
    let mut model = Model::new(load("smollm2-135m").unwrap().backbone, None);
    let golden = golden();
    let exact = worst(&model, &golden, |_, _| 1e-3, 1e-3);
    assert!(exact.0 < 1.0 && exact.1 < 1.0, "f32: {exact:?} times 1e-3");
    model.backbone_mut().set_precision(Precision::Bf16);
    let rounded = worst(&model, &golden, |logp, n| (0.005 * logp.abs()).max(0.02 * n.sqrt()), 0.05);
    println!("of the tolerance: f32 {exact:?}, bf16 {rounded:?}");
    assert!(rounded.0 < 1.0 && rounded.1 < 1.0, "bf16: {rounded:?} of the tolerance");
}

#[test]
fn sampled_log_probs_are_those_of_the_full_forward_pass() {
    let mut model = Model::new(load("smollm2-135m").unwrap().backbone, None);
    let golden = golden();
    let prompts: Vec<Vec<u32>> =
        golden["rows"].as_array().unwrap()[..3].iter().map(|r| ids(&r["prompt_ids"])).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let opts = GenOptions {
        temperature: 0.7,
        top_k: 0,
        top_p: 1.0,
        max_new_tokens: 24,
        end_tokens: vec![2],
        ignore_eos: false,
        max_rows: 4,
    };
    let draw = |r: usize, c: usize, t: usize| Key::new(r as u64, "test").completion(c).uniform_at(t as u64);
    // The same products in both; bf16 rounds what differs in the last bits of attention.
    for (precision, bound) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.05)] {
        model.backbone_mut().set_precision(precision);
        let out = generate(&model, &prompts, &[2, 1, 2], &opts, &draw, &mut |_| ());
        for (prompt, generated) in prompts.iter().zip(&out) {
            for g in generated {
                let ids = [prompt, g.token_ids.as_slice()].concat();
                let hidden = model.hidden(&Packed::new(&[&ids]));
                let at: Vec<usize> = (prompt.len() - 1..ids.len() - 1).collect();
                let full = model.token_logps(&hidden, &at, &g.token_ids, 1.0);
                for (a, b) in g.token_logps.iter().zip(full) {
                    assert!((a - b).abs() < bound, "{precision:?}: {a} and {b}");
                }
            }
        }
    }
}
