//! Whole updates of every policy method against plain PyTorch (tests/goldens/README.md), and
//! training that is broken off and resumed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_core::engine::{EngineError, RewardFn, ScoreItem};
use gainsay_core::known::KnownReward;
use gainsay_core::record::Prompt;
use gainsay_lm::config::Family;
use gainsay_lm::model::{Adapter, ParamId};
use gainsay_lm::sequence::Sequence;
use gainsay_lm::train::*;
use gainsay_lm::weights::{hf, peft};
use gainsay_lm::{Loaded, load, names};
use safetensors::SafeTensors;
use serde_json::Value;

/// A listener that lets training go on.
fn quiet() -> impl FnMut(&TrainEvent) -> ControlFlow<()> {
    |_| ControlFlow::Continue(())
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn golden_base() -> Loaded {
    let backbone = hf::read(&goldens().join("models/llama")).unwrap().backbone;
    let dir = goldens().join("adapters/llama-policy");
    let adapter = peft::read(&dir, &peft::PeftConfig::read(&dir).unwrap(), &backbone).unwrap().adapter;
    let tiny = load("tiny-random:1").unwrap();
    Loaded { backbone: Arc::new(backbone), adapter: Some(adapter), head: None, ..tiny }
}

fn sequences(rows: &Value) -> Vec<Sequence> {
    let ids = |r: &Value| r["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
    let prompt_len = |r: &Value| r["prompt_len"].as_u64().unwrap() as usize;
    let rows = rows.as_array().unwrap().iter();
    rows.map(|r| Sequence { tokens: ids(r), prompt_len: prompt_len(r), truncated: false }).collect()
}

/// The weights after the update agree within 1e-4, all of a parameter's together.
fn compare(what: &str, before: &[f32], got: &[f32], want: &[f32]) {
    let norm = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let (difference, size) = (norm(got, want), norm(want, before));
    assert!(size > 1e-3 && difference < 1e-4, "{what}: {difference} of {size}");
}

fn prompts(n: usize) -> Vec<TrainPrompt> {
    (0..n).map(|i| TrainPrompt { id: format!("t{i}"), prompt: Prompt::Text(format!("tell me {i}")) }).collect()
}

#[test]
fn whole_updates_equal_pytorchs() {
    let golden: Value = serde_json::from_slice(&std::fs::read(goldens().join("policy-updates.json")).unwrap()).unwrap();
    let bytes = std::fs::read(goldens().join("policy-updates.safetensors")).unwrap();
    let after = SafeTensors::deserialize(&bytes).unwrap();
    let constants = &golden["constants"];
    let constant = |name: &str| constants[name].as_f64().unwrap();
    let rewards: Vec<f64> = golden["rewards"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
    let base = golden_base();
    let start: Adapter = base.adapter.clone().unwrap();
    for row in golden["updates"].as_array().unwrap() {
        let method: PolicyMethod = serde_json::from_value(row["method"].clone()).unwrap();
        let options = PolicyOptions {
            steps: 1,
            prompts_per_step: constant("prompts") as usize,
            k: constant("k") as usize,
            epochs: row["epochs"].as_u64().unwrap() as usize,
            lr: constant("lr"),
            warmup: 0.0,
            clip: constant("clip"),
            beta: row["beta"].as_f64().unwrap(),
            temperature: constant("temperature"),
            clip_ratio: constant("eps"),
            clip_value: constant("eps_value"),
            value_weight: constant("value_weight"),
            gamma: constant("gamma"),
            lambda: constant("lambda"),
            ..PolicyOptions::new(method, Family::Llama)
        };
        let prompts = prompts(1);
        let mut run = PolicyRun::new(&base, &prompts, &options).unwrap();
        let head = (method == PolicyMethod::Ppo).then(|| floats(&after, "ppo.head_before"));
        if let Some(head) = head.clone() {
            run.set_value_head(head);
        }
        let learned = run.learn(&sequences(&golden["sequences"]), &rewards).unwrap();
        let last = |field: &str| row[field].as_array().unwrap().last().unwrap().as_f64().unwrap();
        assert!((learned.loss - last("losses")).abs() < 1e-4 * last("losses").abs().max(1.0), "{method:?} {learned:?}");
        assert!((learned.grad_norm / last("norms") - 1.0).abs() < 1e-3, "{method:?} {learned:?}");
        for ((id, got), (_, before)) in run.model().adapter.as_ref().unwrap().params().into_iter().zip(start.params()) {
            let name = format!("{}.{}", method_name(method), names::peft_name(Family::Llama, id));
            compare(&format!("{method:?} {id:?}"), &before.data, &got.data, &floats(&after, &name));
        }
        if let Some(before) = head {
            compare("value head", &before, run.value_head().unwrap(), &floats(&after, "ppo.head"));
        }
    }
}

fn method_name(method: PolicyMethod) -> String {
    serde_json::to_value(method).unwrap().as_str().unwrap().to_owned()
}

/// Rewards the share of even token ids.
struct Even;

impl RewardFn for Even {
    fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
        let share = |ids: &[u32]| ids.iter().filter(|id| *id % 2 == 0).count() as f64 / ids.len() as f64;
        Ok(items.iter().map(|i| share(i.token_ids.unwrap())).collect())
    }

    fn identity(&self) -> String {
        "even".into()
    }
}

const METHODS: [PolicyMethod; 6] = [
    PolicyMethod::Rloo,
    PolicyMethod::Ppo,
    PolicyMethod::Grpo,
    PolicyMethod::Dpo,
    PolicyMethod::Rso,
    PolicyMethod::Bon,
];

fn options(method: PolicyMethod) -> PolicyOptions {
    PolicyOptions {
        steps: 30,
        prompts_per_step: 4,
        k: 8,
        lr: 0.02,
        beta: if matches!(method, PolicyMethod::Dpo | PolicyMethod::Rso) { 0.1 } else { 0.0 },
        temperature: 0.7,
        max_new_tokens: 6,
        ..PolicyOptions::new(method, Family::Llama)
    }
}

fn base() -> Loaded {
    load("tiny-random:1").unwrap()
}

#[test]
fn every_method_raises_the_reward() {
    let base = base();
    for method in METHODS {
        let (_, report) =
            train_policy(&base, &Even, &prompts(6), &options(method), &Company::default(), &mut quiet()).unwrap();
        let mean = |steps: &[PolicyStep]| steps.iter().map(|s| s.reward).sum::<f64>() / steps.len() as f64;
        let (early, late) = (mean(&report.steps[..4]), mean(&report.steps[26..]));
        assert!(late > early + 0.05, "{method:?}: {early} -> {late}");
        assert_eq!((report.steps.len(), report.ended), (30, Ended::Steps));
    }
}

#[test]
fn a_run_that_is_broken_off_and_resumed_ends_in_the_same_bytes() {
    let base = base();
    let folder = tempfile::tempdir().unwrap();
    for method in METHODS {
        let target_kl = (method == PolicyMethod::Ppo).then_some(0.5);
        let minibatches = if method == PolicyMethod::Rloo { 1 } else { 2 };
        let options = PolicyOptions { steps: 5, minibatches, target_kl, ..options(method) };
        let prompts = prompts(6);
        let heldout = prompts[..3].to_vec();
        let checkpoints = Checkpoints {
            dir: folder.path().join(method_name(method)),
            every: 2,
            latest_only: false,
            run: "a run".into(),
            base: "tiny-random:1".into(),
        };
        let watch = || Some(Watch { prompts: &heldout, gold: Some(&Even), every: 2, patience: 9 });
        let run = |checkpoints, stop: u32| {
            let company = Company { watch: watch(), checkpoints };
            train_policy(&base, &Even, &prompts, &options, &company, &mut |event| match event {
                TrainEvent::PolicyStep(s) if s.step == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        };
        let (whole, report) = run(None, 99).unwrap();
        assert_eq!(report.heldout.iter().map(|w| w.step).collect::<Vec<_>>(), [0, 2, 4, 5]);
        // Whoever stops it after step 3 finds that step.
        assert!(run(Some(&checkpoints), 3).is_err());
        assert_eq!(checkpoints.steps().unwrap(), [2, 3]);
        // A kill in step 4 leaves none of it.
        assert!(run(Some(&checkpoints), 4).is_err());
        std::fs::remove_dir_all(checkpoints.dir.join("step-000004")).unwrap();
        let (resumed, again) = run(Some(&checkpoints), 99).unwrap();
        assert_eq!(whole.adapter, resumed.adapter, "{method:?}");
        assert_eq!((report.steps, report.heldout), (again.steps, again.heldout));
        // A checkpoint is a policy of its own; the finished run's last one is the result.
        assert_eq!(checkpoints.steps().unwrap(), [2, 3, 4, 5]);
        let last = load(checkpoints.dir.join("step-000005").to_str().unwrap()).unwrap();
        let same = |a: &Adapter, b: &Adapter| a.pairs == b.pairs;
        assert!(same(last.adapter.as_ref().unwrap(), whole.adapter.as_ref().unwrap()));
        // Another run is refused, with the place.
        let other = Checkpoints { run: "another".into(), ..checkpoints.clone() };
        let error = run(Some(&other), 99).unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("another run"), "{error}");
    }
}

#[test]
fn training_stops_where_the_divergence_or_the_heldout_reward_says_so() {
    let base = base();
    let prompts = prompts(4);
    let fast = PolicyOptions { stop_kl: Some(0.05), ..options(PolicyMethod::Rloo) };
    let (_, report) = train_policy(&base, &Even, &prompts, &fast, &Company::default(), &mut quiet()).unwrap();
    assert_eq!(report.ended, Ended::Kl);
    assert!(report.steps.len() < 30 && report.steps.last().unwrap().kl_k3 > 0.05);
    /// Gold that the training makes worse: odd ids.
    struct Odd;
    impl RewardFn for Odd {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            Ok(Even.rewards(items)?.into_iter().map(|r| 1.0 - r).collect())
        }
        fn identity(&self) -> String {
            "odd".into()
        }
    }
    let watch = Watch { prompts: &prompts, gold: Some(&Odd), every: 5, patience: 2 };
    let company = Company { watch: Some(watch), checkpoints: None };
    let (model, report) =
        train_policy(&base, &Even, &prompts, &options(PolicyMethod::Rloo), &company, &mut quiet()).unwrap();
    assert_eq!(report.ended, Ended::Heldout);
    let best = report.heldout.iter().max_by(|a, b| a.decisive().total_cmp(&b.decisive())).unwrap();
    assert_eq!(report.returned_step, best.step);
    if best.step == 0 {
        assert!(
            model
                .adapter
                .unwrap()
                .params()
                .iter()
                .all(|(id, t)| { !matches!(id, ParamId::LoraB(..)) || t.data.iter().all(|w| *w == 0.0) })
        );
    }
}

fn examples(n: usize) -> Vec<Example> {
    let draw = |i: usize, odd: usize| -> Sequence {
        let tokens: Vec<u32> = (0..9).map(|t| (40 + (i * 7 + t * 3) % 60 * 2 + odd) as u32).collect();
        let mut tokens = tokens;
        tokens[..4].copy_from_slice(&[50, 60, 70, 80 + i as u32]);
        Sequence { tokens, prompt_len: 4, truncated: false }
    };
    let example =
        |i| Example { id: format!("e{i}"), sequences: vec![draw(i, 0), draw(i, 1)], p: 1.0, heldout: i % 4 == 0 };
    (0..n).map(example).collect()
}

fn preference(reference: Reference) -> Objective {
    Objective::Preference { loss: gainsay_lm::loss::PreferenceLoss::Sigmoid, beta: 0.1, reference }
}

#[test]
fn a_reference_is_the_base_or_the_start() {
    let pairs = examples(12);
    let options = |reference| OfflineOptions {
        epochs: 4,
        batch: 4,
        lr: 1e-2,
        ..OfflineOptions::new(preference(reference), Family::Llama)
    };
    let tuned = train_offline(base(), &pairs, &options(Reference::Base), None, &mut quiet()).unwrap().0;
    let first_loss = |reference| {
        let start = Loaded { adapter: tuned.adapter.clone(), ..base() };
        train_offline(start, &pairs, &options(reference), None, &mut quiet()).unwrap().1.steps[0].loss
    };
    // Policy and reference are one: every log-ratio is 0, and the loss ln 2.
    assert!((first_loss(Reference::Start) - 2f64.ln()).abs() < 1e-6);
    assert!((first_loss(Reference::Base) - 2f64.ln()).abs() > 1e-3);

    // The same of a policy that learns from its own completions: its first KL is 0.
    let prompts = prompts(4);
    let first_kl = |reference| {
        let start = Loaded { adapter: tuned.adapter.clone(), ..base() };
        let options = PolicyOptions {
            reference,
            prompts_per_step: 2,
            max_new_tokens: 8,
            ..PolicyOptions::new(PolicyMethod::Rloo, Family::Llama)
        };
        let mut run = PolicyRun::new(&start, &prompts, &options).unwrap();
        run.step(&KnownReward::Length(3)).unwrap().kl_k3
    };
    assert!(first_kl(Reference::Start) < 1e-9 && first_kl(Reference::Base) > 1e-4);
}

#[test]
fn offline_training_learns_resumes_and_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = examples(16);
    let singles: Vec<Example> =
        pairs.iter().map(|e| Example { sequences: e.sequences[..1].to_vec(), ..e.clone() }).collect();
    let dpo = preference(Reference::Base);
    for (objective, examples, full) in
        [(Objective::Sft, &singles, false), (Objective::Sft, &singles, true), (dpo, &pairs, false)]
    {
        let options = OfflineOptions {
            epochs: 6,
            batch: 4,
            lr: if full { 1e-3 } else { 1e-2 },
            full,
            ..OfflineOptions::new(objective, Family::Llama)
        };
        let checkpoints = Checkpoints {
            dir: folder.path().join(format!("{objective:?}{full}")),
            every: 4,
            latest_only: true,
            run: "r".into(),
            base: "tiny-random:1".into(),
        };
        let run = |checkpoints, stop: u32| {
            train_offline(base(), examples, &options, checkpoints, &mut |event| match event {
                TrainEvent::OfflineStep(s) if s.step == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        };
        let (whole, report) = run(None, 99).unwrap();
        let [before, after] = report.heldout_loss.unwrap();
        assert!(after < before, "{objective:?}: {before} -> {after}");
        assert_eq!((report.examples, report.heldout, report.steps.len()), (12, 4, 18));
        assert!(run(Some(&checkpoints), 11).is_err());
        // Who stops it finds the step that was under way.
        assert_eq!(checkpoints.steps().unwrap(), [11]);
        let (resumed, again) = run(Some(&checkpoints), 99).unwrap();
        assert_eq!((whole.adapter, report.steps), (resumed.adapter, again.steps));
        assert_eq!(whole.backbone.params(), resumed.backbone.params());
        let huge = OfflineOptions { lr: 1e38, clip: 0.0, ..options.clone() };
        let error = train_offline(base(), examples, &huge, None, &mut quiet()).unwrap_err().to_string();
        assert!(error.contains("step ") && error.contains("examples e") && error.contains("learning rate"), "{error}");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_with_its_prompts_and_the_last_checkpoint_stays() {
    /// Sane for two steps, then beyond what a loss can hold.
    struct Breaks(std::sync::atomic::AtomicU32);
    impl RewardFn for Breaks {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            let call = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let huge = |i: usize| if i.is_multiple_of(2) { 1e308 } else { -1e308 };
            if call < 2 { Even.rewards(items) } else { Ok((0..items.len()).map(huge).collect()) }
        }
        fn identity(&self) -> String {
            "breaks".into()
        }
    }
    let base = base();
    let folder = tempfile::tempdir().unwrap();
    for method in [PolicyMethod::Rloo, PolicyMethod::Ppo] {
        let checkpoints = Checkpoints {
            dir: folder.path().join(method_name(method)),
            every: 1,
            latest_only: false,
            run: "a run".into(),
            base: "tiny-random:1".into(),
        };
        let company = Company { watch: None, checkpoints: Some(&checkpoints) };
        let breaks = Breaks(Default::default());
        let error = train_policy(&base, &breaks, &prompts(6), &options(method), &company, &mut quiet()).unwrap_err();
        let text = error.to_string();
        assert!(!error.is_user_error() && text.contains("step 3"), "{method:?}: {text}");
        assert!(text.contains("prompts t") && text.contains("lower the learning rate"), "{method:?}: {text}");
        assert_eq!(checkpoints.steps().unwrap(), [1, 2]);
        assert!(load(checkpoints.dir.join("step-000002").to_str().unwrap()).is_ok());
    }
}
