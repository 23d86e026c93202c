//! Sampling, log-probs and RLOO on the tiny random model, end to end.

use std::ops::ControlFlow;

use gainsay_core::engine::{Decoding, EngineError, LogProb, RewardFn, SampleRequest, Sampler, ScoreItem};
use gainsay_core::record::{Finish, Prompt};
use gainsay_lm::config::Family;
use gainsay_lm::policy::LocalPolicy;
use gainsay_lm::sequence::{Settings, Truncate};
use gainsay_lm::train::{
    Company, PolicyMethod, PolicyOptions, PolicyReport, PolicyRun, PolicyStep, TrainEvent, TrainPrompt, train_policy,
};
use gainsay_lm::{Loaded, load};

/// A listener that lets training go on.
fn quiet() -> impl FnMut(&TrainEvent) -> ControlFlow<()> {
    |_| ControlFlow::Continue(())
}

fn base() -> Loaded {
    load("tiny-random:1").unwrap()
}

fn policy() -> LocalPolicy {
    LocalPolicy::new(&base(), Settings::default()).unwrap()
}

fn requests(n: usize) -> Vec<SampleRequest> {
    let prompt = |i: usize| Prompt::Text(format!("prompt number {i}"));
    (0..3).map(|i| SampleRequest { id: format!("p{i}"), prompt: prompt(i), n }).collect()
}

fn decoding() -> Decoding {
    Decoding { max_new_tokens: 12, temperature: 0.8, ..Decoding::default() }
}

#[test]
fn sampled_log_probs_are_those_that_scoring_gives() {
    let policy = policy();
    let requests = requests(4);
    for decoding in [
        decoding(),
        Decoding { top_k: 5, ..decoding() },
        Decoding { top_p: 0.5, ..decoding() },
        Decoding { temperature: 0.0, ..decoding() },
    ] {
        for (request, group) in requests.iter().zip(policy.sample(&requests, &decoding).unwrap()) {
            assert_eq!(group.len(), 4);
            let items: Vec<_> = group.iter().map(|c| ScoreItem::of(&request.prompt, c)).collect();
            for (completion, scored) in group.iter().zip(policy.logps(&items).unwrap()) {
                let own = completion.token_logps.as_ref().unwrap();
                assert_eq!(own.len(), completion.n_tokens.unwrap() as usize);
                assert!((completion.logp.unwrap() - scored.sum).abs() < 1e-3);
                for (a, b) in own.iter().zip(&scored.token_logps) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
                let ends = completion.finish == Some(Finish::Stop);
                assert!(ends || completion.n_tokens == Some(12));
            }
        }
    }
    assert!(policy.counters().tokens() > 0);
}

#[test]
fn draws_depend_on_their_key_alone() {
    let policy = policy();
    let all = policy.sample(&requests(4), &decoding()).unwrap();
    // One prompt on its own, fewer completions, other batch sizes: the same draws.
    let alone = policy.sample(&requests(2)[1..2], &decoding()).unwrap();
    assert_eq!(alone[0][..], all[1][..2]);
    let narrow = LocalPolicy::new(&base(), Settings { max_rows: 1, ..Settings::default() }).unwrap();
    assert_eq!(narrow.sample(&requests(4), &decoding()).unwrap(), all);
    for other in [
        Decoding { seed: 1, ..decoding() },
        Decoding { round: 1, ..decoding() },
        Decoding { step: 1, ..decoding() },
        Decoding { purpose: "evaluation".into(), ..decoding() },
    ] {
        assert_ne!(policy.sample(&requests(4), &other).unwrap(), all);
    }
}

#[test]
fn text_and_ids_of_a_completion_score_alike() {
    let policy = policy();
    let prompt = Prompt::Text("hello".into());
    let stop = ScoreItem { prompt: &prompt, text: "abc", token_ids: None, finish: None };
    let cut = ScoreItem { finish: Some(Finish::Length), ..stop.clone() };
    let logps = policy.logps(&[stop, cut.clone()]).unwrap();
    assert_eq!((logps[0].token_logps.len(), logps[1].token_logps.len()), (4, 3));
    assert_eq!(logps[0].token_logps[..3], logps[1].token_logps[..]);
    // Ids override the text; an empty completion has log-prob 0.
    let ids = ScoreItem { text: "ignored", token_ids: Some(&[97, 98, 99]), ..cut.clone() };
    assert_eq!(policy.logps(&[ids]).unwrap()[0], logps[1]);
    let empty = ScoreItem { text: "", ..cut };
    assert_eq!(policy.logps(&[empty]).unwrap()[0].sum, 0.0);
}

#[test]
fn bad_input_is_refused_with_its_name() {
    let policy = policy();
    let refused = |decoding: Decoding| policy.complete(&requests(1), &decoding).unwrap_err();
    for decoding in [
        Decoding { temperature: -1.0, ..decoding() },
        Decoding { temperature: f64::NAN, ..decoding() },
        Decoding { top_p: 0.0, ..decoding() },
        Decoding { max_new_tokens: 0, ..decoding() },
    ] {
        assert!(refused(decoding).is_user_error());
    }
    let error = refused(Decoding { max_new_tokens: 5000, ..decoding() });
    assert!(error.is_user_error() && error.to_string().contains("p0"), "{error}");
    let prompt = Prompt::Text("hello".into());
    let foreign = ScoreItem { prompt: &prompt, text: "", token_ids: Some(&[9_999_999]), finish: None };
    let error = policy.sequence_logps(&[foreign]).unwrap_err();
    assert!(error.to_string().contains("item 0") && error.to_string().contains("vocabulary"), "{error}");
    let cut = Settings { max_tokens: 30, truncate: Truncate::Left, ..Settings::default() };
    let cutting = LocalPolicy::new(&base(), cut).unwrap();
    cutting.complete(&requests(1), &decoding()).unwrap();
    assert_eq!(cutting.counters().truncated(), 3);
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

fn prompts(n: usize) -> Vec<TrainPrompt> {
    (0..n).map(|i| TrainPrompt { id: format!("t{i}"), prompt: Prompt::Text(format!("tell me {i}")) }).collect()
}

fn options() -> PolicyOptions {
    PolicyOptions {
        steps: 30,
        prompts_per_step: 4,
        k: 8,
        lr: 0.02,
        beta: 0.0,
        temperature: 0.7,
        max_new_tokens: 6,
        ..PolicyOptions::new(PolicyMethod::Rloo, Family::Llama)
    }
}

fn run(options: &PolicyOptions) -> (gainsay_lm::model::Model, PolicyReport) {
    train_policy(&base(), &Even, &prompts(6), options, &Company::default(), &mut quiet()).unwrap()
}

fn late_and_early(report: &PolicyReport, of: fn(&PolicyStep) -> f64) -> (f64, f64) {
    let mean = |steps: &[PolicyStep]| steps.iter().map(of).sum::<f64>() / steps.len() as f64;
    (mean(&report.steps[report.steps.len() - 5..]), mean(&report.steps[..5]))
}

#[test]
fn the_reward_goes_up_and_the_base_stays() {
    let base = base();
    let (model, report) = run(&options());
    let (late, early) = late_and_early(&report, |s| s.reward);
    assert!(late > early + 0.05, "{early} -> {late}");
    assert_eq!(*model.backbone, *base.backbone);
    assert_eq!(report.steps.len(), 30);
    // At the start the policy is the base: no divergence, up to rounding.
    let first = &report.steps[0];
    assert!(first.kl_k1.abs() < 1e-3 && first.kl_k3.abs() < 1e-3 && first.kl_penalty.abs() < 1e-3, "{first:?}");
    assert!(report.steps[29].kl_k3 > 0.01);
    for step in &report.steps {
        assert!(step.grad_norm.is_finite() && step.entropy > 0.0 && step.kl_k3 >= 0.0);
        assert!(step.length <= 6.0 && (0.0..=1.0).contains(&step.stopped));
    }
}

#[test]
fn the_penalty_keeps_the_policy_near_the_base() {
    let free = late_and_early(&run(&options()).1, |s| s.kl_k3).0;
    let held = late_and_early(&run(&PolicyOptions { beta: 1.0, ..options() }).1, |s| s.kl_k3).0;
    assert!(held < 0.5 * free, "{held} against {free}");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let short = PolicyOptions { steps: 4, ..options() };
    let (a, ra) = run(&short);
    let (b, rb) = run(&short);
    assert_eq!((a.adapter, ra.steps), (b.adapter, rb.steps));
    let (c, rc) = run(&PolicyOptions { seed: 1, ..short });
    assert_ne!(rc.steps[0].reward, run(&PolicyOptions { steps: 1, ..options() }).1.steps[0].reward);
    assert!(c.adapter.is_some());
}

#[test]
fn micro_batches_and_kept_tapes_change_nothing_but_rounding() {
    let one = PolicyOptions { steps: 1, ..options() };
    let mut small = one.clone();
    small.settings.batch_tokens = 1;
    let (a, b) = (run(&one).1, run(&small).1);
    assert_eq!(a.steps[0].reward, b.steps[0].reward);
    assert!((a.steps[0].loss - b.steps[0].loss).abs() < 1e-6);
    assert!((a.steps[0].grad_norm / b.steps[0].grad_norm - 1.0).abs() < 1e-4);
}

#[test]
fn completions_of_one_token_work() {
    let short = PolicyOptions { max_new_tokens: 1, steps: 2, ..options() };
    let (_, report) = run(&short);
    assert!(report.steps.iter().all(|s| s.length == 1.0 && s.loss.is_finite()));
}

#[test]
fn equal_rewards_teach_nothing() {
    struct Constant;
    impl RewardFn for Constant {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            Ok(vec![3.0; items.len()])
        }
        fn identity(&self) -> String {
            "constant".into()
        }
    }
    let short = PolicyOptions { steps: 2, ..options() };
    let mut options = short.clone();
    options.whiten = true;
    for options in [short, options] {
        let (model, report) =
            train_policy(&base(), &Constant, &prompts(6), &options, &Company::default(), &mut quiet()).unwrap();
        assert!(report.steps.iter().all(|s| s.grad_norm == 0.0 && s.loss == 0.0));
        assert!(model.adapter.unwrap().pairs.values().all(|p| p.b.data.iter().all(|w| *w == 0.0)));
    }
}

#[test]
fn a_good_completion_becomes_likelier() {
    // One prompt; of its draws one gets reward 1, the others 0. One step must raise its log-prob
    // and, since the advantages sum to 0, lower another's.
    struct First;
    impl RewardFn for First {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            Ok((0..items.len()).map(|i| f64::from(u8::from(i == 0))).collect())
        }
        fn identity(&self) -> String {
            "first".into()
        }
    }
    let base = base();
    let prompts = prompts(1);
    let options = PolicyOptions { steps: 2, prompts_per_step: 1, k: 4, lr: 1e-3, warmup: 0.0, ..options() };
    let decoding = Decoding {
        temperature: options.temperature,
        max_new_tokens: options.max_new_tokens,
        purpose: options.purpose.clone(),
        ..Decoding::default()
    };
    let request = SampleRequest { id: "t0".into(), prompt: prompts[0].prompt.clone(), n: 4 };
    let drawn = policy().sample(&[request], &decoding).unwrap().remove(0);
    let mut run = PolicyRun::new(&base, &prompts, &options).unwrap();
    run.step(&First).unwrap();
    let after = LocalPolicy::from_parts(
        run.model().clone(),
        base.tokenizer.clone().into(),
        "after".into(),
        Settings::default(),
    );
    let items: Vec<_> = drawn.iter().map(|c| ScoreItem::of(&prompts[0].prompt, c)).collect();
    let logps = after.logps(&items).unwrap();
    let change: Vec<f64> = logps.iter().zip(&drawn).map(|(a, c)| a.sum - c.logp.unwrap()).collect();
    assert!(change[0] > 1e-4 && change[1..].iter().any(|c| *c < 0.0), "{change:?}");
}

#[test]
fn bad_options_and_rewards_are_refused() {
    let refused = |options: PolicyOptions, prompts: &[TrainPrompt]| {
        train_policy(&base(), &Even, prompts, &options, &Company::default(), &mut quiet()).unwrap_err()
    };
    let all = prompts(2);
    for bad in [
        PolicyOptions { k: 1, ..options() },
        PolicyOptions { steps: 0, ..options() },
        PolicyOptions { temperature: 0.0, ..options() },
        PolicyOptions { beta: -1.0, ..options() },
        PolicyOptions { lr: f64::NAN, ..options() },
    ] {
        assert!(refused(bad, &all).is_user_error());
    }
    assert!(refused(options(), &[]).to_string().contains("no prompts"));
    struct Broken;
    impl RewardFn for Broken {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            Ok(vec![f64::NAN; items.len()])
        }
        fn identity(&self) -> String {
            "broken".into()
        }
    }
    let error = train_policy(&base(), &Broken, &all, &options(), &Company::default(), &mut quiet()).unwrap_err();
    assert!(error.to_string().contains("step 1") && error.to_string().contains("broken"), "{error}");
    let mut steps = 0;
    let stopped = train_policy(&base(), &Even, &all, &options(), &Company::default(), &mut |_| {
        steps += 1;
        ControlFlow::Break(())
    });
    assert!(stopped.is_err() && steps == 1);
}

#[test]
fn ppo_steers_its_penalty_and_the_penalty_counts() {
    let ppo = PolicyOptions { beta: 0.5, steps: 8, ..PolicyOptions { method: PolicyMethod::Ppo, ..options() } };
    let steered = |target| run(&PolicyOptions { target_kl: Some(target), horizon: 32.0, ..ppo.clone() });
    let ((low, tight), (high, loose)) = (steered(1e-3), steered(1e3));
    assert!(tight.steps[7].beta > ppo.beta && loose.steps[7].beta < ppo.beta);
    assert_ne!(low.adapter, high.adapter);
    let options = PolicyOptions { target_kl: Some(1.0), method: PolicyMethod::Dpo, ..ppo };
    let refused = train_policy(&base(), &Even, &prompts(2), &options, &Company::default(), &mut quiet()).unwrap_err();
    assert!(refused.is_user_error() && refused.to_string().contains("PPO steers by it, dpo does not"), "{refused}");
}

#[test]
fn a_prompt_that_comes_twice_in_a_step_draws_anew() {
    struct Texts(std::sync::Mutex<Vec<Vec<u32>>>);
    impl RewardFn for Texts {
        fn rewards(&self, items: &[ScoreItem<'_>]) -> Result<Vec<f64>, EngineError> {
            self.0.lock().unwrap().extend(items.iter().map(|i| i.token_ids.unwrap().to_vec()));
            Ok(vec![0.0; items.len()])
        }
        fn identity(&self) -> String {
            "texts".into()
        }
    }
    let drawn = |prompts_per_step, k| {
        let texts = Texts(Default::default());
        let options = PolicyOptions { steps: 1, prompts_per_step, k, ..options() };
        train_policy(&base(), &texts, &prompts(1), &options, &Company::default(), &mut quiet()).unwrap();
        texts.0.into_inner().unwrap()
    };
    // One prompt three times, two completions each: the six that one place of six draws.
    assert_eq!(drawn(3, 2), drawn(1, 6));
    let twice = [prompts(1), prompts(1)].concat();
    let error = train_policy(&base(), &Even, &twice, &options(), &Company::default(), &mut quiet()).unwrap_err();
    assert!(error.to_string().contains("prompt `t0` is there twice"), "{error}");
}

#[test]
fn past_its_limit_a_policy_learns_no_more() {
    let limited = PolicyOptions { stop_kl: Some(0.02), ..options() };
    let (_, report) = run(&limited);
    let last = report.steps.last().unwrap();
    assert!(report.steps.len() < 30 && last.kl_k3 > 0.02 && (last.loss, last.lr) == (0.0, 0.0));
    assert!(report.steps[..report.steps.len() - 1].iter().all(|s| s.kl_k3 <= 0.02 && s.lr > 0.0));
}
