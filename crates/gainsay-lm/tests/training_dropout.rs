//! LoRA dropout: gradients at fixed masks, masks that depend on what they are for alone, and
//! training with it.

#[path = "training_common/families.rs"]
mod families;
mod training_common;

use std::ops::ControlFlow;

use gainsay_core::engine::{RewardFn as _, ScoreItem};
use gainsay_core::rng::Key;
use gainsay_kernels::pool::with_threads;
use gainsay_lm::config::Family;
use gainsay_lm::model::{Keep, Mat, Model, Packed, Trainable};
use gainsay_lm::names::projections;
use gainsay_lm::reward::{LocalReward, RewardModel};
use gainsay_lm::save::save_reward_model;
use gainsay_lm::sequence::{Sequence, Settings};
use gainsay_lm::train::{
    Checkpoints, PairLabel, RewardCompany, RewardMethod, RewardTrainOptions, TrainEvent, TrainItem, Weights,
    batch_gradient, train_reward,
};
use gainsay_lm::{Loaded, load};
use training_common::{quiet, vowel_pairs};

const SEED: u64 = 7;

/// A model of a family whose every projection has an adapter with random factors and dropout.
fn weights(name: &str, dropout: f64) -> Weights {
    let backbone = families::backbone(name);
    let mut adapter = families::random_adapter(&backbone);
    adapter.config.targets = projections(backbone.config.family).to_vec();
    (adapter.config.layers, adapter.config.dropout) = (None, dropout);
    let mut adapter = gainsay_lm::model::Adapter::new(&adapter.config, &backbone, 3);
    let mut stream = Key::new(3, "random-factors").stream();
    for pair in adapter.pairs.values_mut() {
        pair.b.data.iter_mut().for_each(|b| *b = 0.2 * stream.normal() as f32);
    }
    let head = families::random_head(&backbone);
    Weights { model: families::model(backbone, Some(adapter)), head: Some(head) }
}

fn items(weights: &Weights) -> Vec<TrainItem> {
    let own = families::sequences(&weights.model.backbone);
    let side = |tokens: &[u32], more: &[u32]| Sequence {
        tokens: [tokens, more].concat(),
        prompt_len: tokens.len(),
        truncated: false,
    };
    (0..3)
        .map(|i| TrainItem {
            id: format!("i{i}"),
            sides: vec![side(&own[i], &[5, 9, 1 + i as u32]), side(&own[i], &[8])],
            label: PairLabel::new(0.9, 0.0).into(),
            topic: None,
            source: None,
            heldout: false,
        })
        .collect()
}

#[test]
fn gradients_at_fixed_masks_equal_finite_differences() {
    for name in families::NAMES {
        let weights = weights(name, 0.4);
        let items = items(&weights);
        let batch: Vec<&TrainItem> = items.iter().collect();
        let key = Key::new(SEED, "test");
        let loss_at = |weights: &Weights, step: u32| {
            let mut grads = weights.zero_grads(&Trainable::Lora);
            let loss = batch_gradient(weights, &batch, 0.01, 1000, Some(key.step(step)), &mut grads).unwrap();
            (loss, grads)
        };
        let (_, grads) = loss_at(&weights, 0);
        assert_eq!(grads.reached.len(), grads.by_id.len(), "{name}: every factor and the head");
        let norm = grads.by_id.values().flatten().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
        // Along the gradient the loss rises by its norm.
        let h = 2e-3;
        let moved = |sign: f64| {
            let mut weights = weights.clone();
            let adapter = weights.model.adapter.as_mut().unwrap();
            for (id, gradient) in &grads.by_id {
                let own = match adapter.param_mut(*id) {
                    Some(tensor) => &mut tensor.data,
                    None => weights.head.as_mut().unwrap(),
                };
                own.iter_mut().zip(gradient).for_each(|(w, g)| *w += (sign * h * f64::from(*g) / norm) as f32);
            }
            loss_at(&weights, 0).0
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * h);
        assert!((numeric / norm - 1.0).abs() < 5e-3, "{name}: {numeric} against {norm}");
        // Another step has other masks, and no step those of no dropout.
        assert_ne!(loss_at(&weights, 0).0, loss_at(&weights, 1).0);
    }
}

#[test]
fn recomputed_layers_have_the_same_masks() {
    for name in families::NAMES {
        let weights = weights(name, 0.5);
        let sides: Vec<Sequence> = items(&weights).into_iter().flat_map(|item| item.sides).collect();
        let packed = Packed::sharing(&sides).with_dropout(Key::new(SEED, "test"));
        let gradients = |keep| {
            let mut grads = weights.zero_grads(&Trainable::Lora);
            let tape = weights.model.forward_tape(&packed, keep, &grads);
            let mut stream = Key::new(1, "direction").stream();
            let mut d = Mat::zeros(tape.hidden.rows, tape.hidden.cols);
            d.data.iter_mut().for_each(|d| *d = stream.normal() as f32);
            weights.model.backward(tape, d, &mut grads);
            grads
        };
        assert_eq!(gradients(Keep::Inputs), gradients(Keep::Activations), "{name}");
    }
}

#[test]
fn rows_depend_on_neither_neighbors_nor_threads() {
    let weights = weights("llama", 0.3);
    let sides: Vec<Sequence> = items(&weights).into_iter().flat_map(|item| item.sides).collect();
    let key = Key::new(SEED, "test").step(4);
    let hidden = |sides: &[Sequence]| {
        let packed = Packed::sharing(sides).with_dropout(key);
        let rows: Vec<Vec<f32>> = (0..sides.len())
            .map(|i| (0..sides[i].tokens.len()).map(|j| packed.row(i, j)).collect::<Vec<_>>())
            .map(|rows| weights.model.hidden(&packed).gather(&rows).data)
            .collect();
        rows
    };
    let together = hidden(&sides);
    for (i, side) in sides.iter().enumerate() {
        assert_eq!(hidden(std::slice::from_ref(side))[0], together[i], "sequence {i} alone");
    }
    let backwards: Vec<Sequence> = sides.iter().rev().cloned().collect();
    assert!(hidden(&backwards).iter().rev().eq(together.iter()));
    for threads in [1, 2] {
        assert_eq!(with_threads(threads, || hidden(&sides)), together, "{threads} threads");
    }
}

#[test]
fn a_rate_of_zero_changes_no_bit() {
    let weights = weights("qwen3", 0.0);
    let items = items(&weights);
    let batch: Vec<&TrainItem> = items.iter().collect();
    let run = |key| {
        let mut grads = weights.zero_grads(&Trainable::Lora);
        let loss = batch_gradient(&weights, &batch, 0.01, 1000, key, &mut grads).unwrap();
        (loss, grads)
    };
    assert_eq!(run(None), run(Some(Key::new(SEED, "test"))));
}

#[test]
fn the_mean_over_masks_is_the_adapter_without_dropout() {
    // One adapted projection: what it adds is linear in its input, so the mean is exact.
    let mut weights = weights("llama", 0.3);
    let last = weights.model.backbone.layers.len() - 1;
    let adapter = weights.model.adapter.as_mut().unwrap();
    adapter.pairs.retain(|(layer, proj), _| *layer == last && *proj == gainsay_lm::model::Proj::Down);
    let sides = vec![items(&weights)[0].sides[0].clone()];
    let at = |key: Option<Key<'_>>| {
        let packed = Packed::sharing(&sides);
        let packed = key.map_or(packed.clone(), |key| packed.with_dropout(key));
        weights.model.hidden_at(&packed, last + 1).data
    };
    let plain = at(None);
    let frozen = Model::new(weights.model.backbone.clone(), None).hidden_at(&Packed::sharing(&sides), last + 1).data;
    let n = 4000;
    let mut mean = vec![0.0; plain.len()];
    let mut square = vec![0.0; plain.len()];
    for step in 0..n {
        for ((m, s), x) in mean.iter_mut().zip(&mut square).zip(at(Some(Key::new(SEED, "test").step(step)))) {
            *m += f64::from(x) / f64::from(n);
            *s += f64::from(x).powi(2) / f64::from(n);
        }
    }
    for (((m, s), x), without) in mean.iter().zip(&square).zip(&plain).zip(&frozen) {
        // Six standard errors of the mean.
        let error = ((s - m * m).max(0.0) / f64::from(n)).sqrt();
        assert!((m - f64::from(*x)).abs() < 6.0 * error + 1e-5, "{m} {x} {error}");
        assert!((x - without).abs() < 1e-6 || error > 0.0, "the adapter is dropped at times");
    }
}

fn base() -> Loaded {
    Loaded { head: None, ..load("tiny-random:1").unwrap() }
}

fn options(dropout: f64) -> RewardTrainOptions {
    let mut options = RewardTrainOptions::new(RewardMethod::Lora, Family::Llama);
    (options.heldout, options.epochs, options.lr) = (0.3, 3, 2e-2);
    options.adapter.dropout = dropout;
    options
}

fn train(options: &RewardTrainOptions, checkpoints: Option<&Checkpoints>, stop: u32) -> Option<RewardModel> {
    let mut company = RewardCompany { checkpoints, ..RewardCompany::default() };
    let listen = &mut |event: &TrainEvent| match event {
        TrainEvent::RewardStep(step) if step.step == stop => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    train_reward(base(), &vowel_pairs(60, 5), options, &mut company, listen).ok().map(|(model, _)| model)
}

#[test]
fn training_with_dropout_resumes_to_the_same_bytes_and_is_off_in_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints {
        dir: folder.path().join("run"),
        every: 2,
        latest_only: false,
        run: "r".into(),
        base: "tiny-random:1".into(),
    };
    let whole = train(&options(0.2), None, 999).unwrap();
    assert!(train(&options(0.2), Some(&checkpoints), 9).is_none());
    let resumed = train(&options(0.2), Some(&checkpoints), 999).unwrap();
    assert_eq!((&whole.head, &whole.model.adapter), (&resumed.head, &resumed.model.adapter));
    let alone = with_threads(1, || train(&options(0.2), None, 999)).unwrap();
    assert_eq!((&whole.head, &whole.model.adapter), (&alone.head, &alone.model.adapter));
    assert_ne!(whole.head, train(&options(0.0), None, 999).unwrap().head);
    // The folder says what it was trained with, PEFT's way, and rewards know no masks.
    let dir = folder.path().join("model");
    save_reward_model(&dir, &whole, &Trainable::Lora, &families::provenance()).unwrap();
    let config = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap();
    assert!(config.contains("\"lora_dropout\": 0.2"), "{config}");
    let loaded = load(dir.to_str().unwrap()).unwrap();
    assert_eq!(loaded.adapter.as_ref().unwrap().config.dropout, 0.2);
    let records = vowel_pairs(8, 2);
    let items: Vec<ScoreItem<'_>> = records.iter().map(|r| ScoreItem::side(&r.prompt, &r.first)).collect();
    let mut plain = whole.clone();
    plain.model.adapter.as_mut().unwrap().config.dropout = 0.0;
    let rewards = |model| LocalReward::new(model, Settings::default()).rewards(&items).unwrap();
    assert_eq!(rewards(whole), rewards(plain));
    // An adapter that goes on keeps its rate.
    let goes_on = |dropout: f64| {
        let mut base = loaded.clone();
        base.adapter.as_mut().unwrap().config.dropout = dropout;
        train_reward(base, &vowel_pairs(20, 5), &options(0.0), &mut RewardCompany::default(), &mut quiet()).unwrap().0
    };
    assert_ne!(goes_on(0.2).head, goes_on(0.0).head);
}

#[test]
fn a_rate_that_drops_all_is_refused() {
    for rate in [1.0, -0.1, f64::NAN] {
        let error =
            train_reward(base(), &vowel_pairs(8, 5), &options(rate), &mut RewardCompany::default(), &mut quiet())
                .unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("LoRA dropout"), "{error}");
    }
}
