//! Reward models trained on the tiny random model, end to end.

mod training_common;

use std::ops::ControlFlow;

use gainsay_core::engine::{RewardFn, ScoreItem};
use gainsay_core::record::Answer;
use gainsay_core::rng::Key;
use gainsay_lm::config::Family;
use gainsay_lm::features::FeatureCache;
use gainsay_lm::loss::bradley_terry;
use gainsay_lm::model::{Adapter, Model, Proj, Trainable};
use gainsay_lm::reward::{FeatureKind, LocalReward, RewardModel, head_product};
use gainsay_lm::sequence::{Sequence, Settings, Truncate};
use gainsay_lm::train::{
    HeadInit, PairLabel, RewardCompany, RewardMethod, RewardTrainOptions, RewardTrainReport, TrainEvent, TrainItem,
    Weights, batch_gradient, cross_validate, default_adapter, train_reward,
};
use gainsay_lm::{Loaded, load};
use training_common::{pair, quiet, vowel_pairs};

fn base() -> Loaded {
    Loaded { head: None, ..load("tiny-random:1").unwrap() }
}

fn options(method: RewardMethod) -> RewardTrainOptions {
    let mut options = RewardTrainOptions::new(method, Family::Llama);
    options.head_init = HeadInit::Zero;
    options.heldout = 0.3;
    options.epochs = 4;
    options.lr = if method == RewardMethod::Full { 3e-3 } else { 2e-2 };
    options
}

fn train(method: RewardMethod) -> (RewardModel, RewardTrainReport) {
    train_reward(base(), &vowel_pairs(120, 5), &options(method), &mut RewardCompany::default(), &mut quiet()).unwrap()
}

#[test]
fn every_method_learns_an_easy_rule() {
    for method in [RewardMethod::Head, RewardMethod::Lora, RewardMethod::Full] {
        let (_, report) = train(method);
        let before = report.heldout_before.unwrap();
        let after = report.epochs.last().unwrap().heldout.unwrap();
        assert!(after.loss < before.loss, "{method:?}: {before:?} {after:?}");
        // An untrained head orders nothing: 1/2.
        assert_eq!(before.accuracy.unwrap().estimate, 0.5);
        assert!(after.accuracy.unwrap().low > 0.5, "{method:?}: {after:?}");
        assert!(report.losses.iter().all(|l| l.is_finite()));
        assert_eq!(report.pairs.train + report.pairs.heldout, 120);
        assert!(report.cost.tokens > 0);
    }
}

#[test]
fn only_what_the_method_names_is_trained() {
    let base = base();
    let hidden = base.backbone.config.hidden_size;
    let (head, report) = train(RewardMethod::Head);
    assert_eq!((report.parameters, head.model.adapter.is_none()), (hidden, true));
    assert_eq!(head.model.backbone, base.backbone);
    let (lora, report) = train(RewardMethod::Lora);
    let factors: usize = lora.model.adapter.as_ref().unwrap().params().iter().map(|(_, t)| t.data.len()).sum();
    assert_eq!(report.parameters, factors + hidden);
    assert_eq!(lora.model.backbone, base.backbone);
    assert!(lora.model.adapter.as_ref().unwrap().params().iter().all(|(_, t)| t.data.iter().any(|x| *x != 0.0)));
    let (full, report) = train(RewardMethod::Full);
    let weights: usize = base.backbone.params().iter().map(|(_, t)| t.data.len()).sum();
    assert_eq!(report.parameters, weights + hidden);
    for ((id, old), (_, new)) in base.backbone.params().iter().zip(full.model.backbone.params()) {
        assert_ne!(old.data, new.data, "{id:?} did not move");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    for method in [RewardMethod::Head, RewardMethod::Lora, RewardMethod::Full] {
        let (a, ra) = train(method);
        let (b, rb) = train(method);
        assert_eq!((&a.head, &a.model.adapter, &a.identity), (&b.head, &b.model.adapter, &b.identity));
        assert_eq!(a.model.backbone, b.model.backbone);
        assert_eq!((ra.losses, ra.epochs), (rb.losses, rb.epochs));
    }
    let other = RewardTrainOptions { seed: 1, ..options(RewardMethod::Lora) };
    let (c, _) =
        train_reward(base(), &vowel_pairs(120, 5), &other, &mut RewardCompany::default(), &mut quiet()).unwrap();
    assert_ne!(c.identity, train(RewardMethod::Lora).0.identity);
}

#[test]
fn a_fitted_start_is_the_head_methods_optimum() {
    let (head, _) = train(RewardMethod::Head);
    let mut fitted = RewardTrainOptions { head_init: HeadInit::Fitted, epochs: 1, ..options(RewardMethod::Lora) };
    fitted.lr = 1e-12;
    let (lora, report) =
        train_reward(base(), &vowel_pairs(120, 5), &fitted, &mut RewardCompany::default(), &mut quiet()).unwrap();
    for (a, b) in head.head.iter().zip(&lora.head) {
        assert!((a - b).abs() < 1e-6);
    }
    assert!(report.heldout_before.unwrap().accuracy.unwrap().low > 0.5);
}

#[test]
fn unordered_answers_are_left_out_and_ties_are_not() {
    let mut records = vowel_pairs(40, 5);
    records[0].answer = Answer::BothBad;
    records[0].p_first = None;
    records[1].answer = Answer::Skip;
    records[1].p_first = None;
    records[2].answer = Answer::Tie;
    records[2].p_first = None;
    let options = RewardTrainOptions { heldout: 0.0, ..options(RewardMethod::Head) };
    let (_, report) = train_reward(base(), &records, &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
    assert_eq!((report.pairs.both_bad, report.pairs.skipped), (1, 1));
    assert_eq!((report.pairs.train, report.pairs.heldout, report.pairs.ties), (38, 0, 1));
    assert!(report.heldout_before.is_none() && report.epochs[0].heldout.is_none());
}

#[test]
fn held_out_prompts_do_not_depend_on_order_or_company() {
    let records = vowel_pairs(60, 5);
    let heldout = |r: &gainsay_core::record::PreferenceRecord| gainsay_lm::train::is_heldout(&r.prompt, 0.3);
    let share = records.iter().filter(|r| heldout(r)).count();
    assert!((8..30).contains(&share), "{share}");
    // Two pairs of one prompt are on the same side.
    let twin = pair("another id", &records[0].prompt.display(), "x", "y", true);
    assert_eq!(heldout(&twin), heldout(&records[0]));
}

#[test]
fn bad_input_is_refused_with_its_name() {
    let train = |records: &[_], options: &RewardTrainOptions| {
        train_reward(base(), records, options, &mut RewardCompany::default(), &mut quiet()).unwrap_err()
    };
    let lora = options(RewardMethod::Lora);
    let mut records = vowel_pairs(4, 5);
    records[1].p_first = Some(1.5);
    let error = train(&records, &lora);
    assert!(error.is_user_error() && error.to_string().contains("pair-1"), "{error}");
    let mut records = vowel_pairs(4, 5);
    records[2].margin = Some(-1.0);
    assert!(train(&records, &lora).to_string().contains("margin"));
    assert!(train(&[], &lora).to_string().contains("no pair"));
    let mut dropout = lora.clone();
    dropout.adapter.dropout = 1.0;
    assert!(train(&vowel_pairs(4, 5), &dropout).to_string().contains("dropout"));
    let mut target = lora.clone();
    target.adapter.targets = vec![Proj::Qkv];
    assert!(train(&vowel_pairs(4, 5), &target).to_string().contains("q_proj"));
    let centered = RewardTrainOptions { center: -0.1, ..lora.clone() };
    assert!(train(&vowel_pairs(4, 5), &centered).to_string().contains("center -0.1"));
    let long = RewardTrainOptions {
        settings: Settings { max_tokens: 20, truncate: Truncate::Refuse, ..Settings::default() },
        ..lora.clone()
    };
    let error = train(&vowel_pairs(4, 5), &long);
    assert!(error.is_user_error() && error.to_string().contains("pair-0, first answer"), "{error}");
}

#[test]
fn a_diverging_run_stops_and_names_its_pairs() {
    let mut records = vowel_pairs(8, 5);
    // A margin of 1e308 twice over: the batch's loss is infinite.
    records.iter_mut().for_each(|r| r.margin = Some(1e308));
    let options = RewardTrainOptions { heldout: 0.0, ..options(RewardMethod::Lora) };
    let error = train_reward(base(), &records, &options, &mut RewardCompany::default(), &mut quiet()).unwrap_err();
    let text = error.to_string();
    assert!(!error.is_user_error(), "{text}");
    assert!(text.contains("step 1") && text.contains("pair-3") && text.contains("learning rate"), "{text}");
}

#[test]
fn a_listener_can_stop_the_run() {
    let mut heard = 0;
    let error = train_reward(
        base(),
        &vowel_pairs(40, 5),
        &options(RewardMethod::Lora),
        &mut RewardCompany::default(),
        &mut |event| {
            heard += 1;
            assert!(matches!(event, TrainEvent::RewardStep(_)));
            ControlFlow::Break(())
        },
    )
    .unwrap_err();
    assert!(heard == 1 && error.to_string().contains("stopped"));
}

#[test]
fn truncation_cuts_the_prompts_left_and_is_counted() {
    let mut options = options(RewardMethod::Head);
    options.settings.max_tokens = 20;
    let (_, report) =
        train_reward(base(), &vowel_pairs(40, 5), &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
    assert_eq!(report.pairs.truncated, 80);
}

#[test]
fn training_goes_on_from_a_reward_model() {
    let (model, report) = train(RewardMethod::Lora);
    let loaded = Loaded { adapter: model.model.adapter.clone(), head: Some(model.head.clone()), ..base() };
    let mut options = options(RewardMethod::Lora);
    options.epochs = 1;
    let (_, again) =
        train_reward(loaded.clone(), &vowel_pairs(120, 5), &options, &mut RewardCompany::default(), &mut quiet())
            .unwrap();
    assert_eq!(again.heldout_before, report.epochs.last().unwrap().heldout);
    // All weights: the adapter is merged first, the rewards stay.
    options.method = RewardMethod::Full;
    let (full, merged) =
        train_reward(loaded, &vowel_pairs(120, 5), &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
    let (before, last) = (merged.heldout_before.unwrap(), report.epochs.last().unwrap().heldout.unwrap());
    assert!((before.loss - last.loss).abs() < 1e-4, "{before:?} {last:?}");
    assert!(full.model.adapter.is_none());
}

#[test]
fn rewards_are_the_heads_product_with_the_last_token_in_any_company() {
    let (model, report) = train(RewardMethod::Lora);
    let records = vowel_pairs(30, 9);
    let items: Vec<ScoreItem<'_>> = records.iter().map(|r| ScoreItem::side(&r.prompt, &r.first)).collect();
    let head = model.head.clone();
    let local = LocalReward::new(model.clone(), Settings::default());
    let together = local.rewards(&items).unwrap();
    let small = LocalReward::new(model, Settings { batch_tokens: 1, ..Settings::default() });
    assert_eq!(together, small.rewards(&items).unwrap());
    let features = local.features(&items, FeatureKind::LastToken, None).unwrap();
    for (i, reward) in together.iter().enumerate() {
        assert!((head_product(features.row(i), &head) - reward).abs() < 1e-6);
        let alone = local.rewards(&items[i..=i]).unwrap();
        assert_eq!(alone[0], *reward);
    }
    assert_eq!(local.features(&items, FeatureKind::MeanCompletion, Some(1)).unwrap().rows, 30);
    assert!(local.features(&items, FeatureKind::LastToken, Some(9)).is_err());
    assert!(local.counters().tokens() > 0 && local.counters().truncated() == 0);
    // The report's loss is that of these rewards: recomputed over the held-out pairs.
    let pairs = vowel_pairs(120, 5);
    let held: Vec<_> = pairs.iter().filter(|r| gainsay_lm::train::is_heldout(&r.prompt, 0.3)).collect();
    let losses = held.iter().map(|r| {
        let sides = [ScoreItem::side(&r.prompt, &r.first), ScoreItem::side(&r.prompt, &r.second)];
        let values = local.rewards(&sides).unwrap();
        bradley_terry(r.p_first.unwrap(), 0.0, values[0], values[1], 0.01).loss
    });
    let loss = losses.sum::<f64>() / held.len() as f64;
    assert!((loss - report.epochs.last().unwrap().heldout.unwrap().loss).abs() < 1e-9);
}

#[test]
fn a_prompt_that_both_sides_share_is_computed_once_with_the_same_gradients() {
    let base = base();
    for what in [Trainable::Lora, Trainable::Full] {
        let adapter = Adapter::new(&default_adapter(Family::Llama), &base.backbone, 2);
        let model = Model::new(base.backbone.clone(), (what == Trainable::Lora).then_some(adapter));
        let head = (0..base.backbone.config.hidden_size).map(|i| (i % 7) as f32 * 0.1 - 0.3).collect();
        let weights = Weights { model, head: Some(head) };
        let side = |prompt: std::ops::Range<u32>, completion: std::ops::Range<u32>, shared| Sequence {
            prompt_len: if shared { prompt.len() } else { 0 },
            tokens: prompt.chain(completion).collect(),
            truncated: false,
        };
        let gradients = |shared: bool, budget: usize| {
            let pair = |p: std::ops::Range<u32>, a, b| TrainItem {
                id: "p".into(),
                sides: vec![side(p.clone(), a, shared), side(p, b, shared)],
                label: PairLabel::new(0.8, 0.0).into(),
                topic: None,
                source: None,
                heldout: false,
            };
            let pairs = [pair(40..80, 65..70, 90..97), pair(60..61, 97..110, 30..32), pair(35..70, 80..110, 81..90)];
            let mut grads = weights.zero_grads(&what);
            let loss =
                batch_gradient(&weights, &pairs.iter().collect::<Vec<_>>(), 0.01, budget, None, &mut grads).unwrap();
            (loss, grads)
        };
        let (loss, apart) = gradients(false, 1000);
        for budget in [1000, 1] {
            let (shared_loss, shared) = gradients(true, budget);
            assert!((loss - shared_loss).abs() < 1e-9, "{loss} {shared_loss}");
            assert_eq!(apart.reached, shared.reached);
            for (id, a) in &apart.by_id {
                let b = &shared.by_id[id];
                let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
                let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
                assert!(difference <= 1e-5 * norm(&mut a.iter().copied()), "{what:?} {id:?}: {difference}");
            }
        }
    }
}

#[test]
fn ids_of_another_tokenizer_are_not_read_as_ones_own() {
    let loaded = base();
    let prompt = gainsay_core::record::Prompt::Text("hello".into());
    let text = ScoreItem { prompt: &prompt, text: "abc", token_ids: None, finish: None };
    let of = |token_ids: Option<&[u32]>| {
        let item = ScoreItem { token_ids, ..text.clone() };
        loaded.tokenizer.own(&item).token_ids.map(<[u32]>::to_vec)
    };
    // One's own, without the turn end, with it, and with a stop string that a server took off the text.
    for own in [&[97, 98, 99][..], &loaded.tokenizer.completion_ids(&text), &[97, 98, 99, 10, 100]] {
        assert_eq!(of(Some(own)).as_deref(), Some(own));
    }
    assert_eq!([of(None), of(Some(&[120, 121])), of(Some(&[97])), of(Some(&[9_999_999]))], [None, None, None, None]);
    let head = vec![0.5; loaded.backbone.config.hidden_size];
    let model = RewardModel::from_loaded(&Loaded { head: Some(head), ..loaded.clone() }).unwrap();
    let rewards = LocalReward::new(model, Settings::default());
    let foreign = ScoreItem { token_ids: Some(&[120, 121]), ..text.clone() };
    assert_eq!(rewards.score(&[foreign]).unwrap(), rewards.score(&[text]).unwrap());
}

#[test]
fn cross_validation_judges_every_pair_by_a_model_that_has_not_seen_it() {
    let pairs = vowel_pairs(120, 5);
    for method in [RewardMethod::Head, RewardMethod::Lora] {
        let result =
            cross_validate(&base(), &pairs, &options(method), 3, &mut RewardCompany::default(), &mut quiet()).unwrap();
        let accuracy = result.accuracy.unwrap();
        assert_eq!(accuracy.n, 120);
        assert!(accuracy.low > 0.5, "{method:?}: {accuracy:?}");
        assert_eq!(result.by_fold.iter().map(|f| f.unwrap().n).sum::<u64>(), 120);
        // All words have one length: the shorter is never known.
        assert_eq!((result.baselines[0].prefers, result.baselines[0].accuracy.unwrap().estimate), ("the shorter", 0.5));
        assert_eq!(result.baselines.len(), 3);
    }
    // Labels without a rule cannot be learned: what a fold's model knows, it knows from the others.
    let mut noise = vowel_pairs(300, 6);
    let mut coin = Key::new(3, "coin").stream();
    for pair in &mut noise {
        let first = coin.uniform() < 0.5;
        pair.answer = if first { Answer::First } else { Answer::Second };
        pair.p_first = Some(f64::from(u8::from(first)));
    }
    let result =
        cross_validate(&base(), &noise, &options(RewardMethod::Head), 5, &mut RewardCompany::default(), &mut quiet())
            .unwrap();
    let accuracy = result.accuracy.unwrap();
    assert!(accuracy.low < 0.5 && accuracy.high > 0.5, "{accuracy:?}");
}

#[test]
fn cross_validation_refuses_folds_that_it_cannot_fill() {
    let run = |n, folds| {
        cross_validate(
            &base(),
            &vowel_pairs(n, 5),
            &options(RewardMethod::Head),
            folds,
            &mut RewardCompany::default(),
            &mut quiet(),
        )
        .unwrap_err()
    };
    assert!(run(20, 1).to_string().contains("at least 2"));
    assert!(run(3, 50).to_string().contains("fewer folds"), "{}", run(3, 50));
}

#[test]
fn an_ensemble_gives_every_reward_a_variance_and_survives_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let records = vowel_pairs(80, 5);
    let mean = gainsay_lm::features::Read { kind: FeatureKind::MeanCompletion, layer: Some(1) };
    let last = gainsay_lm::features::Read::LAST;
    for reads in [vec![last], vec![last, mean]] {
        let options = RewardTrainOptions { heads: 4, reads: reads.clone(), ..options(RewardMethod::Head) };
        let (model, report) =
            train_reward(base(), &records, &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
        assert_eq!((model.ensemble.len(), model.head.len()), (4, 32 * reads.len()));
        let calibration = report.calibration.unwrap();
        assert!((0.0..=0.5).contains(&calibration.ece));
        assert_eq!(calibration.bins.iter().map(|b| b.n).sum::<usize>(), report.pairs.heldout);
        assert!(report.slices.iter().any(|s| s.by == "length"));
        let dir = folder.path().join(reads.len().to_string());
        let provenance = gainsay_lm::save::Provenance {
            method: "test".into(),
            base: "tiny".into(),
            options: serde_json::json!({}),
            data: vec![],
            seed: 0,
            results: serde_json::json!({}),
        };
        gainsay_lm::save::save_reward_model(&dir, &model, &Trainable::Head, &provenance).unwrap();
        let read = RewardModel::from_loaded(&load(dir.to_str().unwrap()).unwrap()).unwrap();
        assert_eq!((&read.ensemble, &read.reads, &read.head), (&model.ensemble, &model.reads, &model.head));
        let items: Vec<_> = records.iter().map(|r| ScoreItem::side(&r.prompt, &r.first)).collect();
        let scored = LocalReward::new(read, Settings::default()).rewards_by_head(&items).unwrap().unwrap();
        assert_eq!(scored.rewards, LocalReward::new(model, Settings::default()).rewards(&items).unwrap());
        // The heads agree on most and exactly on nothing.
        assert!(scored.heads.iter().all(|h| h.len() == 4 && h.iter().any(|r| *r != h[0])));
    }
    let one = RewardTrainOptions { heads: 1, ..options(RewardMethod::Head) };
    assert!(train_reward(base(), &records, &one, &mut RewardCompany::default(), &mut quiet()).is_err());
}

#[test]
fn features_are_computed_once_for_folds_and_fit() {
    let records = vowel_pairs(40, 5);
    let options = options(RewardMethod::Head);
    let mut company = RewardCompany::default();
    cross_validate(&base(), &records, &options, 4, &mut company, &mut quiet()).unwrap();
    let mut heard = 0;
    let listen = &mut |event: &TrainEvent| {
        heard += usize::from(matches!(event, TrainEvent::Features { .. }));
        ControlFlow::Continue(())
    };
    let (kept, report) = train_reward(base(), &records, &options, &mut company, listen).unwrap();
    assert_eq!((heard, report.cost.tokens), (0, 0));
    let (fresh, _) = train_reward(base(), &records, &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
    assert_eq!(kept.head, fresh.head);
}

#[test]
fn a_cross_validation_that_is_broken_off_goes_on_in_its_fold() {
    let folder = tempfile::tempdir().unwrap();
    let records = vowel_pairs(40, 5);
    let options = options(RewardMethod::Lora);
    let of_run = |name: &str, run: &str| gainsay_lm::train::Checkpoints {
        dir: folder.path().join(name),
        every: 2,
        latest_only: false,
        run: run.into(),
        base: "tiny".into(),
    };
    let kept = |name: &str| of_run(name, "run");
    // Breaks off behind the `limit`-th step; returns the result, each fold's steps, and how often texts were read.
    let run = |name: &str, limit: usize| {
        let checkpoints = kept(name);
        let features = FeatureCache::in_folder(&folder.path().join(format!("{name}-features"))).unwrap();
        let mut company = RewardCompany { features, checkpoints: Some(&checkpoints) };
        let (mut steps, mut reads) = (Vec::new(), 0);
        let mut listen = |event: &TrainEvent| {
            match event {
                TrainEvent::Resumed { .. } => steps.push(0),
                TrainEvent::RewardStep(_) => *steps.last_mut().unwrap() += 1,
                TrainEvent::Features { .. } => reads += 1,
                _ => {}
            }
            if steps.iter().sum::<usize>() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let result = cross_validate(&base(), &records, &options, 2, &mut company, &mut listen);
        (result, steps, reads)
    };
    let (whole, steps, reads) = run("whole", usize::MAX);
    let whole = whole.unwrap();
    assert!(reads > 0);
    assert!(run("cut", steps[0] + 3).0.is_err());
    // What another run left is refused before anything is done, and is there afterwards.
    let other = of_run("cut", "other");
    let mut company = RewardCompany { checkpoints: Some(&other), ..RewardCompany::default() };
    let refused = cross_validate(&base(), &records, &options, 2, &mut company, &mut |_: &TrainEvent| panic!("work"));
    assert!(refused.unwrap_err().to_string().contains("checkpoints of another run"));
    // Neither the first fold nor the steps of the second up to its checkpoint are made again, nor the features.
    let (resumed, more, reads) = run("cut", usize::MAX);
    assert_eq!((resumed.unwrap(), more, reads), (whole.clone(), vec![steps[1] - 2], 0));
    let (again, more, _) = run("cut", usize::MAX);
    assert_eq!((again.unwrap(), more), (whole, vec![]));
    // Once the run is over, another takes its place.
    kept("cut").finish().unwrap();
    let mut company = RewardCompany { checkpoints: Some(&other), ..RewardCompany::default() };
    assert!(cross_validate(&base(), &records, &options, 2, &mut company, &mut quiet()).is_ok());
}

#[test]
fn a_reward_training_that_is_broken_off_and_resumed_ends_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for method in [RewardMethod::Lora, RewardMethod::Full] {
        let options = RewardTrainOptions { head_init: HeadInit::Fitted, ..options(method) };
        let checkpoints = gainsay_lm::train::Checkpoints {
            dir: folder.path().join(format!("{method:?}")),
            every: 3,
            latest_only: method == RewardMethod::Full,
            run: "r".into(),
            base: "tiny-random:1".into(),
        };
        let run = |checkpoints, stop: u32| {
            let mut company = RewardCompany { checkpoints, ..RewardCompany::default() };
            train_reward(base(), &vowel_pairs(60, 5), &options, &mut company, &mut |event| match event {
                TrainEvent::RewardStep(s) if s.step == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        };
        let (whole, report) = run(None, 999).unwrap();
        assert!(run(Some(&checkpoints), 11).is_err());
        let (resumed, again) = run(Some(&checkpoints), 999).unwrap();
        assert_eq!((&whole.head, &whole.model.adapter), (&resumed.head, &resumed.model.adapter), "{method:?}");
        assert_eq!(whole.model.backbone.params(), resumed.model.backbone.params());
        assert_eq!((&report.losses, &report.epochs), (&again.losses, &again.epochs));
        assert_eq!(report.heldout_before, again.heldout_before);
        // Another run in the place of a finished one begins as if nothing were there.
        checkpoints.finish().unwrap();
        let other = gainsay_lm::train::Checkpoints { run: "another".into(), ..checkpoints.clone() };
        let (anew, first) = run(Some(&other), 999).unwrap();
        assert_eq!((&whole.head, &report.losses), (&anew.head, &first.losses), "{method:?}");
        assert_eq!(report.heldout_before, first.heldout_before);
    }
}

#[test]
fn old_pairs_count_as_much_as_they_are_said_to() {
    // Old pairs say the opposite of new ones; the heavier side wins.
    let reversed = |weight: f64| -> Vec<_> {
        let mut records = vowel_pairs(60, 5);
        for record in &mut records[..30] {
            record.p_first = record.p_first.map(|p| 1.0 - p);
            record.answer = if record.p_first == Some(1.0) { Answer::First } else { Answer::Second };
            record.extra.insert("weight".into(), serde_json::json!(weight));
        }
        records
    };
    let accuracy = |weight: f64| {
        let options = RewardTrainOptions { heldout: 0.0, ..options(RewardMethod::Head) };
        let (model, _) =
            train_reward(base(), &reversed(weight), &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
        let test = vowel_pairs(40, 9);
        let sides = test.iter().flat_map(|r| [&r.first, &r.second].map(|s| ScoreItem::side(&r.prompt, s)));
        let rewards = LocalReward::new(model, Settings::default()).rewards(&sides.collect::<Vec<_>>()).unwrap();
        let right = |(r, pair): (&gainsay_core::record::PreferenceRecord, &[f64])| {
            (pair[0] > pair[1]) == (r.answer == Answer::First)
        };
        test.iter().zip(rewards.chunks(2)).filter(|case| right(*case)).count() as f64 / 40.0
    };
    assert!(accuracy(0.05) > 0.7 && accuracy(20.0) < 0.3, "{} {}", accuracy(0.05), accuracy(20.0));
}

#[test]
fn layers_that_the_model_does_not_have_are_refused() {
    let layers = base().backbone.layers.len();
    let at = |layer| {
        let reads = vec![gainsay_lm::features::Read { kind: FeatureKind::MeanCompletion, layer: Some(layer) }];
        RewardTrainOptions { reads, ..options(RewardMethod::Head) }
    };
    let records = vowel_pairs(40, 5);
    let train = |options| train_reward(base(), &records, &options, &mut RewardCompany::default(), &mut quiet());
    assert!(train(at(layers)).is_ok());
    let folds = cross_validate(&base(), &records, &at(layers + 1), 2, &mut RewardCompany::default(), &mut quiet());
    for error in [train(at(layers + 1)).unwrap_err(), folds.unwrap_err()] {
        assert!(error.is_user_error() && error.to_string().contains(&format!("has {layers} layers")), "{error}");
    }
}
