//! The device's model against the engine's, on tiny models of every family: on candle's CPU, and
//! on the first GPU where the build has the feature `cuda` and the machine has one.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use gainsay_core::rng::Key;
use gainsay_lm::model::{
    Adapter, AdapterConfig, GenOptions, Generated, Grads, Keep, Mat, Model, Packed, ParamId, Part, Place, Precision,
    Proj, Trainable,
};
use gainsay_lm::sequence::Sequence;
use gainsay_lm::source::Loaded;
use gainsay_lm::train::{
    Example, Objective, OfflineOptions, OfflineReport, RewardMethod, RewardTrainOptions, train_offline, train_reward,
};
use gainsay_lm::weights::hf;

#[path = "training_common/mod.rs"]
mod common;

const MODELS: [&str; 6] = ["llama", "llama-sharded", "qwen2", "qwen3", "gpt-neox", "gpt-neox-serial"];

/// Where the device's model is tested.
fn places() -> Vec<Place> {
    let mut places = vec![Place::on(Device::Cpu)];
    if cfg!(feature = "cuda") {
        match Place::cuda(0) {
            Ok(gpu) => places.push(gpu),
            // A handle of its own goes past the test harness, which keeps what passing tests print.
            Err(e) => {
                let mut loud = std::io::stderr();
                writeln!(loud, "SKIPPED on a GPU: {e}").unwrap();
            }
        }
    }
    places
}

fn tiny(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models").join(name);
    Model::new(Arc::new(hf::read(&path).unwrap().backbone), None)
}

/// The model with random factors on every projection of all layers, or of the last.
fn adapted(model: &Model, last_only: bool) -> Model {
    let backbone = &model.backbone;
    let targets = backbone.layers[0].projections().map(|(proj, _)| proj).collect();
    let layers = last_only.then(|| vec![backbone.layers.len() - 1]);
    let config = AdapterConfig { rank: 3, alpha: 4.5, dropout: 0.0, targets, layers };
    let mut adapter = Adapter::new(&config, backbone, 3);
    let mut stream = Key::new(3, "random-adapter").stream();
    for pair in adapter.pairs.values_mut() {
        pair.b.data.iter_mut().for_each(|b| *b = 0.3 * stream.normal() as f32);
    }
    Model::new(backbone.clone(), Some(adapter))
}

/// The same model elsewhere.
fn at(place: &Place, model: &Model) -> Model {
    let mut model = model.clone();
    model.backbone_mut().place = place.clone();
    model
}

/// Families with a prompt of their own, single sequences, an empty completion, a single token.
fn sequences(model: &Model) -> Vec<Sequence> {
    let mut stream = Key::new(5, "sequences").stream();
    let vocab = model.backbone.config.vocab_size;
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| stream.index(vocab) as u32).collect() };
    let (long, short) = (ids(17), ids(2));
    let mut sequence = |prompt: &[u32], n: usize| Sequence {
        tokens: [prompt, &ids(n)].concat(),
        prompt_len: prompt.len(),
        truncated: false,
    };
    let all = [(&long, 5), (&long, 12), (&long, 0), (&short, 3), (&short, 30), (&vec![7], 1), (&vec![9; 3], 6)];
    all.into_iter().map(|(prompt, n)| sequence(prompt, n)).collect()
}

fn normals(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Key::new(seed, "normals").stream();
    (0..n).map(|_| stream.normal() as f32).collect()
}

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}, value {i}: {a} instead of {b}");
    }
}

/// Every model, plain and adapted, with the place where it is to be compared.
fn each_model(check: impl Fn(&str, &Model, &Model)) {
    for place in places() {
        for name in MODELS {
            let plain = tiny(name);
            for (which, model) in [("plain", plain.clone()), ("adapted", adapted(&plain, false))] {
                check(&format!("{name}, {which}, {place}"), &model, &at(&place, &model));
            }
        }
    }
}

#[test]
fn log_probs_hidden_rows_and_rewards_are_the_engines() {
    each_model(|what, engine, device| {
        let all = sequences(engine);
        let singles: Vec<&[u32]> = all.iter().map(|s| s.tokens.as_slice()).collect();
        for batch in [Packed::sharing(&all), Packed::new(&singles)] {
            let (rows, targets) = batch.predictions();
            let hidden = engine.rows(&batch, None).unwrap();
            let found = device.rows(&batch, None).unwrap();
            close(what, &found.data, &hidden.data, 1e-4);
            for temperature in [1.0, 0.7] {
                let logps = device.logps(&found, &rows, &targets, temperature).unwrap();
                close(what, &logps, &engine.logps(&hidden, &rows, &targets, temperature).unwrap(), 1e-4);
            }
            let head = normals(hidden.cols, 1);
            let reward = |hidden: &Mat| -> Vec<f32> {
                let of = |row: usize| -> f32 { hidden.row(row).iter().zip(&head).map(|(h, w)| h * w).sum() };
                batch.last_rows().into_iter().map(of).collect()
            };
            close(what, &reward(&found), &reward(&hidden), 1e-4);
            for layer in 0..=engine.backbone.layers.len() {
                let inside = device.rows(&batch, Some(layer)).unwrap();
                close(what, &inside.data, &engine.rows(&batch, Some(layer)).unwrap().data, 1e-4);
            }
        }
        assert_eq!(device.rows(&Packed::new(&[]), None).unwrap().rows, 0);
    });
}

#[test]
fn bf16_stays_near_the_engines_bf16() {
    each_model(|what, engine, device| {
        let (mut engine, mut device) = (engine.clone(), device.clone());
        let all = sequences(&engine);
        let batch = Packed::sharing(&all);
        let (rows, targets) = batch.predictions();
        let logps = |model: &Model| model.logps(&model.rows(&batch, None).unwrap(), &rows, &targets, 1.0).unwrap();
        let exact = logps(&engine);
        engine.backbone_mut().set_precision(Precision::Bf16);
        device.backbone_mut().set_precision(Precision::Bf16);
        let (engines, found) = (logps(&engine), logps(&device));
        // It is another format, and on average not much worse than the engine's: it rounds what
        // products give too, where the engine rounds what they read alone.
        let error = |of: &[f32]| of.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum::<f32>() / exact.len() as f32;
        assert!(found != exact && error(&found) < 3.0 * error(&engines) + 1e-3, "{what}: {}", error(&found));
    });
}

/// Gradients of sum(d_logp log-probs) + sum(d_value head . hidden) for what is trained.
fn gradients(model: &Model, what: &Trainable, head: Option<&[f32]>) -> Grads {
    let dropout = model.adapter.as_ref().is_some_and(|a| a.config.dropout > 0.0);
    let plain = Packed::sharing(&sequences(model));
    let batch = if dropout { plain.with_dropout(Key::new(1, "dropout")) } else { plain };
    let mut grads = Grads::zeros(model, what, head.is_some());
    let recording = model.record(&batch, Keep::Inputs, &grads).unwrap();
    let (rows, targets) = batch.predictions();
    let (rows_n, cols) = (recording.hidden().rows, recording.hidden().cols);
    let mut d_hidden = Mat::zeros(rows_n, cols);
    let mut d_logps = normals(rows.len(), 7);
    d_logps[1] = 0.0;
    model.logps_backward(&recording, &rows, &targets, 0.7, &d_logps, &mut d_hidden, &mut grads).unwrap();
    if let Some(head) = head {
        for (row, d) in rows.iter().zip(normals(rows.len(), 8)) {
            gainsay_kernels::vector::axpy(d, head, d_hidden.row_mut(*row));
            if let Some(sum) = grads.get_mut(ParamId::Head) {
                gainsay_kernels::vector::axpy(d, recording.hidden().row(*row), sum);
            }
        }
    }
    model.pull_back(recording, d_hidden, &mut grads).unwrap();
    grads
}

/// The worst difference of a parameter's gradient against the largest of its values.
fn compare(what: &str, found: &Grads, expected: &Grads) {
    assert_eq!(found.reached, expected.reached, "{what}");
    // Everything that is trained is reached, and nothing else is there.
    assert_eq!(found.reached, expected.by_id.keys().copied().collect::<BTreeSet<_>>(), "{what}");
    for (id, expected) in &expected.by_id {
        let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let found = &found.by_id[id];
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst <= 1e-3 * size + 1e-6, "{what}, {id:?}: {worst} of {size}");
    }
}

#[test]
fn gradients_are_the_engines_and_reach_what_is_trained_alone() {
    for place in places() {
        for name in MODELS {
            let plain = tiny(name);
            let head = normals(plain.backbone.config.hidden_size, 4);
            let check = |model: &Model, what: &Trainable, head: Option<&[f32]>| {
                let engine = gradients(model, what, head);
                let label = format!("{name}, {what:?}, head {}, {place}", head.is_some());
                compare(&label, &gradients(&at(&place, model), what, head), &engine);
                assert!(engine.by_id.len() == engine.reached.len() && !engine.by_id.is_empty());
            };
            check(&plain, &Trainable::Full, None);
            check(&plain, &Trainable::Full, Some(&head));
            check(&plain, &Trainable::Head, Some(&head));
            check(&adapted(&plain, false), &Trainable::Lora, None);
            check(&adapted(&plain, true), &Trainable::Lora, Some(&head));
            let mut dropping = adapted(&plain, false);
            dropping.adapter.as_mut().unwrap().config.dropout = 0.3;
            check(&dropping, &Trainable::Lora, None);
        }
    }
}

const PROMPTS: [&[u32]; 5] =
    [&[5, 9, 2, 7, 7], &[1], &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], &[30, 31, 2], &[8]];

fn draw(request: usize, completion: usize, token: usize) -> f64 {
    Key::new(request as u64, "test").completion(completion).uniform_at(token as u64)
}

fn sampled(model: &Model, opts: &GenOptions) -> Vec<Vec<Generated>> {
    let mut heard = 0;
    let out = model.sample(&PROMPTS, &[2, 5, 0, 3, 1], opts, &draw, &mut |tokens| heard += tokens).unwrap();
    assert_eq!(heard, out.iter().flatten().map(|g| g.token_ids.len()).sum::<usize>());
    out
}

/// Where two greedy completions part. Two tokens whose log-probs are equal but for rounding may both
/// be the likeliest; what follows has nothing in common then.
fn tie(a: &Generated, b: &Generated) -> Option<usize> {
    a.token_ids.iter().zip(&b.token_ids).position(|(a, b)| a != b)
}

#[test]
fn the_same_tokens_are_drawn() {
    each_model(|what, engine, device| {
        let plain = GenOptions {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            // The caches grow on the way.
            max_new_tokens: 70,
            end_tokens: Vec::new(),
            ignore_eos: false,
            max_rows: 64,
        };
        // A sixth of the vocabulary ends a completion: the waves shrink.
        let end_tokens = (0..engine.backbone.config.vocab_size as u32).step_by(6).collect();
        let some_end = GenOptions { end_tokens, ..plain.clone() };
        for opts in [
            GenOptions { temperature: 0.0, ..plain.clone() },
            GenOptions { max_rows: 2, max_new_tokens: 9, ..plain.clone() },
            GenOptions { ignore_eos: true, max_new_tokens: 9, ..some_end.clone() },
            GenOptions { top_k: 5, top_p: 0.9, max_rows: 4, ..some_end.clone() },
            GenOptions { max_new_tokens: 0, ..plain.clone() },
            some_end,
            plain,
        ] {
            let (expected, found) = (sampled(engine, &opts), sampled(device, &opts));
            for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
                let until = if opts.temperature == 0.0 { tie(a, b) } else { None };
                match until {
                    Some(tie) => close(what, &a.token_logps[..=tie], &b.token_logps[..=tie], 1e-4),
                    None => {
                        assert_eq!((&a.token_ids, a.stopped), (&b.token_ids, b.stopped), "{what}, {opts:?}");
                        close(what, &a.token_logps, &b.token_logps, 1e-4);
                    }
                }
            }
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 5, 0, 3, 1]);
        }
    });
}

#[test]
fn a_device_sees_changed_weights() {
    for place in places() {
        let (mut engine, mut device) = (tiny("qwen2"), at(&place, &tiny("qwen2")));
        let batch = Packed::new(&[&[1, 2, 3]]);
        let before = device.rows(&batch, None).unwrap();
        for model in [&mut engine, &mut device] {
            let id = ParamId::Linear(0, Proj::Up, Part::Weight);
            model.backbone_mut().param_mut(id).unwrap().data.iter_mut().for_each(|w| *w *= 3.0);
        }
        let after = device.rows(&batch, None).unwrap();
        assert_ne!(after, before);
        close("changed", &after.data, &engine.rows(&batch, None).unwrap().data, 1e-4);
    }
}

fn loaded(place: &Place) -> Loaded {
    let mut loaded = gainsay_lm::load("tiny-random:3").unwrap();
    Arc::make_mut(&mut loaded.backbone).place = place.clone();
    loaded
}

#[test]
fn training_takes_the_engines_steps() {
    for place in places() {
        let family = loaded(&place).backbone.config.family;
        let fine_tuned = |place: &Place, full: bool| -> OfflineReport {
            let objective = Objective::Sft;
            let options = OfflineOptions { full, batch: 3, epochs: 2, ..OfflineOptions::new(objective, family) };
            let model = Model::new(loaded(place).backbone, None);
            let examples = sequences(&model).into_iter().filter(|s| !s.completion().is_empty());
            let example = |(i, s)| Example { id: format!("{i}"), sequences: vec![s], p: 1.0, heldout: i == 1 };
            let examples: Vec<Example> = examples.enumerate().map(example).collect();
            train_offline(loaded(place), &examples, &options, None, &mut common::quiet()).unwrap().1
        };
        for full in [false, true] {
            let (engine, device) = (fine_tuned(&Place::Engine, full), fine_tuned(&place, full));
            let losses = |r: &OfflineReport| r.steps.iter().map(|s| s.loss as f32).collect::<Vec<_>>();
            close("losses", &losses(&device), &losses(&engine), 1e-3);
            let (after, expected) = (device.heldout_loss.unwrap()[1], engine.heldout_loss.unwrap()[1]);
            assert!((after - expected).abs() < 1e-3, "{after} instead of {expected}");
        }
        let rewards = |place: &Place| -> Vec<f64> {
            let options = RewardTrainOptions { heldout: 0.2, ..RewardTrainOptions::new(RewardMethod::Lora, family) };
            let pairs = common::vowel_pairs(20, 1);
            let done =
                train_reward(loaded(place), &pairs, &options, &mut Default::default(), &mut common::quiet()).unwrap();
            let model = Model::new(loaded(&Place::Engine).backbone, None);
            assert_eq!(done.0.model.backbone.place, *place);
            done.0.rewards_of(&sequences(&model)).unwrap()
        };
        for (found, expected) in rewards(&place).iter().zip(rewards(&Place::Engine)) {
            assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found} instead of {expected}");
        }
    }
}

#[test]
fn a_build_without_the_feature_says_how_to_get_it() {
    if cfg!(feature = "cuda") {
        return;
    }
    let error = Place::cuda(1).unwrap_err();
    assert!(error.is_user_error());
    let said = error.to_string();
    assert!(said.contains("cuda:1") && said.contains("--features cuda"), "{said}");
}
