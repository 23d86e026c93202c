//! prompts and a reward -> tuned policy.

use std::path::Path;

use gainsay_core::engine::RewardFn;
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_lm::loss::PreferenceLoss;
use gainsay_lm::save::{Provenance, save_policy};
use gainsay_lm::source::Loaded;
use gainsay_lm::train::{
    self, Company, Ended, PolicyMethod, PolicyOptions, PolicyReport, Reference, Shaping, TrainEvent, TrainPrompt, Watch,
};
use serde_json::json;

use super::lora::Lora;
use super::training::{Metrics, checkpoints, value_of, with_progress};
use crate::cli::Dtype;
use crate::error::{Error, Result};
use crate::models;
use crate::progress::Figures;
use crate::run::recipe::Recipe;

/// How a policy is tuned; what is `None` keeps the method's default.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the policy learns.
    pub method: PolicyMethod,
    /// What the KL is taken to; by default the base, which is told where that is not the policy that
    /// training starts from.
    pub reference: Option<Reference>,
    /// Steps: each draws and learns.
    pub steps: usize,
    /// Prompts a step.
    pub prompts: usize,
    /// Completions a prompt.
    pub k: usize,
    /// Passes over a step's completions.
    pub epochs: Option<usize>,
    /// Optimizer steps a pass.
    pub minibatches: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight of the KL penalty, or DPO's beta.
    pub beta: Option<f64>,
    /// The KL that PPO's beta is steered to.
    pub target_kl: Option<f64>,
    /// Sequences over which beta is steered; by default those of ten steps.
    pub kl_horizon: Option<f64>,
    /// PPO's discount, and the lambda of its advantages.
    pub gae: [f64; 2],
    /// Ratios are clipped to within this of 1.
    pub clip_ratio: f64,
    /// DPO's and RSO's loss.
    pub loss: PreferenceLoss,
    /// RSO's acceptance.
    pub rso_beta: f64,
    /// RLOO: divide advantages by their standard deviation.
    pub whiten: bool,
    /// What is done to rewards before they teach.
    pub shaping: Shaping,
    /// Stop where the KL passes this.
    pub stop_kl: Option<f64>,
    /// Sampling temperature; the gradient is that of logits / temperature.
    pub temperature: f64,
    /// Longest completion, turn end included.
    pub max_new_tokens: usize,
    /// The adapter.
    pub lora: Lora,
    /// Steps between two checkpoints; 0 keeps none, nor metrics.
    pub save_every: usize,
    /// Run seed.
    pub seed: u64,
    /// Number format of products with the weights.
    pub dtype: Dtype,
    /// Round of the loop.
    pub round: u32,
}

impl Options {
    /// The options of a recipe's round.
    ///
    /// # Errors
    /// A method that is not known.
    pub fn of_recipe(recipe: &Recipe, round: u32) -> Result<Self> {
        let wanted = &recipe.tune;
        Ok(Self {
            method: method(&wanted.method)?,
            reference: Some(Reference::Base),
            steps: wanted.steps,
            prompts: wanted.prompts,
            k: wanted.k,
            epochs: None,
            minibatches: 1,
            lr: wanted.lr,
            beta: wanted.beta,
            target_kl: wanted.target_kl,
            kl_horizon: None,
            gae: GAE,
            clip_ratio: 0.2,
            loss: PreferenceLoss::Sigmoid,
            rso_beta: 0.5,
            whiten: false,
            shaping: Shaping { uncertainty: wanted.uncertainty, ..Shaping::default() },
            stop_kl: wanted.stop_kl,
            temperature: wanted.temperature,
            max_new_tokens: wanted.max_new_tokens.unwrap_or(recipe.sample.max_new_tokens),
            lora: Lora::plain(wanted.rank, wanted.alpha, 0),
            // A run that is killed in a stage goes on from there; the stage clears them away.
            save_every: 10,
            seed: recipe.seed,
            dtype: recipe.dtype,
            round,
        })
    }

    fn resolve(&self, base: &mut Loaded) -> Result<PolicyOptions> {
        let mut options = PolicyOptions::new(self.method, base.backbone.config.family);
        options.steps = self.steps as u32;
        options.prompts_per_step = self.prompts;
        options.k = self.k;
        options.epochs = self.epochs.unwrap_or(options.epochs);
        options.minibatches = self.minibatches;
        options.lr = self.lr;
        options.beta = self.beta.unwrap_or(options.beta);
        options.reference = self.reference.unwrap_or_default();
        options.target_kl = self.target_kl;
        options.horizon = self.kl_horizon.unwrap_or((STEERED_STEPS * self.prompts * self.k) as f64);
        [options.gamma, options.lambda] = self.gae;
        options.clip_ratio = self.clip_ratio;
        options.loss = self.loss;
        options.rso_beta = self.rso_beta;
        options.whiten = self.whiten;
        options.shaping = self.shaping;
        options.stop_kl = self.stop_kl;
        options.temperature = self.temperature;
        options.max_new_tokens = self.max_new_tokens;
        options.adapter = self.lora.settle(base)?;
        options.seed = self.seed;
        options.round = self.round;
        Ok(options)
    }
}

/// PPO's discount and lambda, by default.
pub const GAE: [f64; 2] = [1.0, 0.95];

/// Steps over which beta is steered, by default: it changes by at most 2 % a step.
const STEERED_STEPS: usize = 10;

/// Says what the KL is taken to where a user who has just fine-tuned may expect another policy.
pub(super) fn tell_reference(from: &str, base: &Loaded, reference: Option<Reference>) {
    if base.adapter.is_some() && reference.is_none() {
        eprintln!(
            "the reference is the model under the adapter of {from}; --reference start takes {from} itself, --reference \
             base says that this is meant"
        );
    }
}

/// A method by its name.
///
/// # Errors
/// Another name.
pub fn method(name: &str) -> Result<PolicyMethod> {
    serde_json::from_value(json!(name)).map_err(|_| {
        Error::Input(format!("method {name}: policies are tuned with rloo, ppo, grpo, dpo, rso or bon (best of n)"))
    })
}

/// Held-out prompts that are watched while a policy is trained.
pub struct Heldout<'a> {
    /// The prompts.
    pub prompts: Vec<PromptRecord>,
    /// The trusted reward.
    pub gold: Option<&'a dyn RewardFn>,
    /// Steps between two looks.
    pub every: usize,
    /// Looks without a gain after which the training stops; 0 never stops.
    pub patience: usize,
}

/// Prompts as the trainer takes them.
fn for_training(prompts: &[PromptRecord]) -> Vec<TrainPrompt> {
    prompts.iter().map(|r| TrainPrompt { id: r.id.clone(), prompt: r.prompt.clone() }).collect()
}

/// Tunes a policy against `reward` and saves its adapter in `out`; with `log` also writes one
/// line a step there, and what was seen of held-out prompts to `out/metrics.jsonl`.
///
/// # Errors
/// A policy that cannot be loaded, options out of range, a loss that is not finite, Ctrl-C.
pub fn train_policy(
    from: &str,
    reward: &dyn RewardFn,
    prompts: &[PromptRecord],
    heldout: Option<&Heldout<'_>>,
    out: &Path,
    log: Option<&Path>,
    options: &Options,
) -> Result<(Figures, PolicyReport)> {
    let mut base = models::load(from, options.dtype)?;
    tell_reference(from, &base, options.reference);
    let mut resolved = options.resolve(&mut base)?;
    // A reward that reads text has no tokenizer that the ids could belong to.
    resolved.reward_reads_text = reward.reads_text();
    let prompts = for_training(prompts);
    let watched = heldout.map(|h| for_training(&h.prompts)).unwrap_or_default();
    let run = json!({
        "base": base.identity, "reward": reward.identity(), "options": value_of(&resolved), "prompts": value_of(&prompts),
        "heldout": heldout.map(|h| (value_of(&watched), h.gold.map(RewardFn::identity), h.every, h.patience)),
    });
    let kept = checkpoints(out, options.save_every as u32, false, &base.spec, &run);
    let metrics = (options.save_every > 0).then(|| Metrics::new(&kept.dir));
    let watch =
        heldout.map(|h| Watch { prompts: &watched, gold: h.gold, every: h.every as u32, patience: h.patience as u32 });
    let company = Company { watch, checkpoints: (options.save_every > 0).then_some(&kept) };
    let (model, done) = with_progress("train policy", metrics.as_ref(), |progress| {
        train::train_policy(&base, reward, &prompts, &resolved, &company, progress)
    })?;
    save_policy(out, &model, &base.spec, &provenance(&base.identity, reward, options, &resolved, &done))?;
    if let Some(path) = log {
        if !done.heldout.is_empty() {
            let looks: Vec<TrainEvent> = done.heldout.iter().map(|look| TrainEvent::Heldout(look.clone())).collect();
            files::write_atomic(out.join("metrics.jsonl"), &lines(&looks)?)?;
        }
        files::write_atomic(path, &lines(&done.steps)?)?;
    }
    kept.finish()?;
    if done.ended != Ended::Steps {
        eprintln!("{}", why_ended(&done));
    }
    Ok((Figures::of("train policy", done.cost.tokens, done.cost.seconds), done))
}

fn why_ended(done: &PolicyReport) -> String {
    match done.ended {
        Ended::Steps => "all steps are done".into(),
        Ended::Kl => format!("stopped: the completions of step {} passed the KL's limit", done.steps.len()),
        Ended::Heldout => format!(
            "stopped after step {}: the held-out reward no longer rose; the policy is that of step {}",
            done.steps.len(),
            done.returned_step
        ),
    }
}

fn provenance(
    identity: &str,
    reward: &dyn RewardFn,
    wanted: &Options,
    options: &PolicyOptions,
    done: &PolicyReport,
) -> Provenance {
    let mut shown = json!({
        "steps": options.steps, "prompts_per_step": options.prompts_per_step, "k": options.k,
        "lr": options.lr, "warmup": options.warmup, "clip": options.clip, "beta": options.beta,
        "temperature": options.temperature, "max_new_tokens": options.max_new_tokens,
        "rank": options.adapter.rank, "alpha": options.adapter.alpha,
    });
    wanted.lora.note(&options.adapter, &mut shown);
    let mut add = |name: &str, value: serde_json::Value| shown[name] = value;
    if options.method != PolicyMethod::Rloo {
        add("epochs", json!(options.epochs));
        add("minibatches", json!(options.minibatches));
    }
    if options.reference != Reference::Base {
        add("reference", json!(options.reference));
    }
    if options.whiten {
        add("whiten", json!(true));
    }
    if let Some(limit) = options.stop_kl {
        add("stop_kl", json!(limit));
    }
    match options.method {
        PolicyMethod::Ppo => {
            add("target_kl", json!(options.target_kl));
            if options.target_kl.is_some() {
                add("kl_horizon", json!(options.horizon));
            }
            add("clip_ratio", json!(options.clip_ratio));
            add("clip_value", json!(options.clip_value));
            add("value_weight", json!(options.value_weight));
            add("gamma", json!(options.gamma));
            add("lambda", json!(options.lambda));
        }
        PolicyMethod::Grpo => add("clip_ratio", json!(options.clip_ratio)),
        PolicyMethod::Dpo => add("loss", json!(options.loss)),
        PolicyMethod::Rso => {
            add("loss", json!(options.loss));
            add("rso_beta", json!(options.rso_beta));
        }
        PolicyMethod::Rloo | PolicyMethod::Bon => {}
    }
    if options.shaping != Shaping::default() {
        add("shaping", json!(options.shaping));
    }
    Provenance {
        method: options.method.name().into(),
        base: identity.into(),
        options: shown,
        data: vec![reward.identity()],
        seed: options.seed,
        results: match done.ended {
            Ended::Steps => json!({}),
            ended => json!({ "ended": ended, "returned_step": done.returned_step }),
        },
    }
}

/// One line of JSON a value.
fn lines<T: serde::Serialize>(values: &[T]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, value).map_err(|e| Error::Run(e.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
