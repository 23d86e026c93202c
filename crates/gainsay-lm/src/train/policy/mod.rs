//! A policy from rewards: the recipe, top to bottom. Every step draws completions from the policy
//! as it is, rewards them, and learns from them in the way of its [`PolicyMethod`].

mod draw;
mod lesson;
mod options;
pub(super) mod pass;
mod shaping;
mod watch;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use gainsay_core::engine::RewardFn;
use gainsay_core::record::Finish;
use gainsay_core::rng::Key;
use gainsay_core::stats::{mean, population_std};
use serde::{Deserialize, Serialize};

pub use options::{Ended, PolicyMethod, PolicyOptions, PolicyReport, PolicyStep, TrainPrompt};
pub use pass::sequence_backward;
pub use shaping::{Shaping, shaped};
pub use watch::{Watch, Watched};

use super::checkpoint::{Checkpoints, Saved};
use super::reward_model::tell;
use super::weights::{Weights, fresh_adapter};
use super::{Cost, TrainEvent};
use crate::error::LmError;
use crate::loss::{adapted_beta, kl_k1, kl_k3};
use crate::model::packed::batches;
use crate::model::{Adapter, Grads, Model, Trainable};
use crate::optim::{AdamW, Schedule, clip_global_norm};
use crate::policy::{completion_logps, require_output_matrix, sum};
use crate::sequence::{Sequence, Settings};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;
use draw::{Draw, Rewards, decoding_at, draw, prompts_at, rewards};
use lesson::{Experience, Tally, Unit, Whole, unit_loss, units};
use pass::{Tapes, Tokens};

/// What goes along with a policy's training.
#[derive(Default)]
pub struct Company<'a> {
    /// Held-out prompts to look at.
    pub watch: Option<Watch<'a>>,
    /// Where checkpoints are kept.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// Trains a LoRA adapter on `base` against `reward` and returns backbone and adapter.
///
/// A step draws `prompts_per_step` x `k` completions from the current policy at the temperature T,
/// shapes their rewards, and takes `epochs` x `minibatches` optimizer steps. The KL is taken to the
/// options' [`Reference`](super::Reference). Prompts come in keyed shuffles, one after the other. With
/// checkpoints the run goes on behind the last one, to the same bytes.
///
/// # Errors
/// Options and prompts that make no sense; what the reward function reports; rewards, losses and
/// gradients that are not finite, naming the step; [`LmError::Run`] where `progress` breaks off.
pub fn train_policy(
    base: &Loaded,
    reward: &dyn RewardFn,
    prompts: &[TrainPrompt],
    options: &PolicyOptions,
    company: &Company<'_>,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<(Model, PolicyReport), LmError> {
    let started = Instant::now();
    let mut run = PolicyRun::new(base, prompts, options)?;
    run.resume(company.checkpoints)?;
    let resumed = run.taken();
    tell(progress, &TrainEvent::Resumed { step: resumed })?;
    run.look(company, reward, progress)?;
    while run.unfinished() {
        let step = run.step(reward)?;
        let told = tell(progress, &TrainEvent::PolicyStep(step.clone()));
        run.settle(step);
        if told.is_ok() {
            run.look(company, reward, progress)?;
        }
        run.save(company.checkpoints, told.is_err())?;
        told?;
    }
    let parameters = run.grads.by_id.values().map(Vec::len).sum();
    let (model, returned_step) = run.best();
    let History { steps, heldout, truncated, ended, .. } = run.history;
    let cost = Cost::since(started, steps[resumed as usize..].iter().map(|s| s.tokens).sum());
    let ended = ended.unwrap_or_default();
    Ok((model, PolicyReport { steps, heldout, ended, returned_step, parameters, truncated, cost }))
}

/// What a run remembers besides weights and moments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct History {
    steps: Vec<PolicyStep>,
    heldout: Vec<Watched>,
    truncated: u64,
    /// Weight of the KL penalty in the next step.
    beta: f64,
    ended: Option<Ended>,
    /// The step whose held-out reward is the highest so far.
    best: u32,
}

/// A run between steps. What step t does depends on the weights, the optimizer's moments, the
/// penalty's weight and t alone.
pub struct PolicyRun<'a> {
    options: &'a PolicyOptions,
    prompts: &'a [TrainPrompt],
    tokenizer: Arc<Tokenizer>,
    reference: Model,
    weights: Weights,
    optimizer: AdamW,
    schedule: Schedule,
    grads: Grads,
    dropout: Option<Key<'static>>,
    history: History,
    /// The adapter of [`History::best`], where somebody waits for it.
    best: Option<Adapter>,
}

/// What a step learned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// Mean loss of the last pass.
    pub loss: f64,
    /// PPO's value loss of the last pass.
    pub value_loss: f64,
    /// Share of the last pass's tokens that clipping silenced.
    pub clipped: f64,
    /// Gradient norm of the last optimizer step, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last optimizer step.
    pub lr: f64,
}

impl<'a> PolicyRun<'a> {
    /// A run before its first step. PPO's value head starts at 0.
    ///
    /// # Errors
    /// Options that make no sense.
    pub fn new(base: &Loaded, prompts: &'a [TrainPrompt], options: &'a PolicyOptions) -> Result<Self, LmError> {
        options.check(prompts)?;
        require_output_matrix(&base.backbone, &base.spec)?;
        let adapter = match base.adapter.clone() {
            Some(adapter) => adapter,
            None => fresh_adapter(&options.adapter, &base.backbone, options.seed)?,
        };
        let width = base.backbone.config.hidden_size;
        let head = (options.method == PolicyMethod::Ppo).then(|| vec![0.0; width]);
        let weights = Weights { model: Model::new(base.backbone.clone(), Some(adapter)), head };
        // The old policy, the reference and every pass read the same rows below the adapter.
        base.backbone.trunk.meet_at(weights.model.first_adapted());
        let grads = weights.zero_grads(&Trainable::Lora);
        let dropout = weights.dropout(options.seed, "policy-dropout")?;
        Ok(Self {
            options,
            prompts,
            tokenizer: Arc::new(base.tokenizer.clone()),
            reference: options.reference.of(base),
            weights,
            optimizer: AdamW::new(options.optimizer),
            schedule: Schedule::cosine(options.lr, options.warmup, options.updates()),
            grads,
            dropout,
            history: History { beta: options.beta, ..History::default() },
            best: None,
        })
    }

    /// The policy as it is.
    pub fn model(&self) -> &Model {
        &self.weights.model
    }

    /// PPO's value head as it is.
    pub fn value_head(&self) -> Option<&[f32]> {
        self.weights.head.as_deref()
    }

    /// Starts PPO's value head at `head`.
    pub fn set_value_head(&mut self, head: Vec<f32>) {
        self.weights.head = Some(head);
    }

    fn taken(&self) -> u32 {
        self.history.steps.len() as u32
    }

    fn unfinished(&self) -> bool {
        self.taken() < self.options.steps && self.history.ended.is_none()
    }

    /// Draws, rewards, and learns.
    ///
    /// # Errors
    /// As [`train_policy`].
    pub fn step(&mut self, reward: &dyn RewardFn) -> Result<PolicyStep, LmError> {
        let t = self.taken();
        let prompts = prompts_at(self.prompts, self.options, t);
        let decoding = decoding_at(self.options, t);
        let (draws, cut) =
            draw(&self.weights.model, &self.tokenizer, prompts, self.options.k, self.options, &decoding)?;
        self.history.truncated += cut;
        let rewards = rewards(&draws, reward, self.options, t)?;
        let sequences: Vec<Sequence> = draws.iter().map(|d| d.sequence.clone()).collect();
        let (experience, at_one, tapes) = self.experience(&sequences, &rewards.shaped)?;
        let before = self.report(&draws, &rewards, &experience, &at_one);
        if self.past_limit(&before) {
            return Ok(before);
        }
        let learned = self
            .lesson(&sequences, &experience, tapes, t)
            .map_err(|e| LmError::Run(format!("{e}; prompts {}", ids(&draws, self.options.k))))?;
        Ok(PolicyStep {
            loss: learned.loss,
            value_loss: learned.value_loss,
            clipped: learned.clipped,
            grad_norm: learned.grad_norm,
            lr: learned.lr,
            ..before
        })
    }

    /// Whether the policy that drew a step has left the KL's limit: it learns no more.
    fn past_limit(&self, step: &PolicyStep) -> bool {
        self.options.stop_kl.is_some_and(|limit| step.kl_k3 > limit)
    }

    /// Notes a step; ends the run where its KL passed the limit.
    fn settle(&mut self, step: PolicyStep) {
        let n = self.options.prompts_per_step * self.options.k;
        if let Some(target) = self.options.target_kl {
            self.history.beta = adapted_beta(self.history.beta, step.kl_penalty, target, n, self.options.horizon);
        }
        if self.past_limit(&step) {
            self.history.ended = Some(Ended::Kl);
        }
        self.history.steps.push(step);
    }

    /// Learns from given completions, `k` a prompt one prompt after the other, and their rewards:
    /// the update of a step without its drawing.
    ///
    /// # Errors
    /// Losses and gradients that are not finite.
    pub fn learn(&mut self, sequences: &[Sequence], rewards: &[f64]) -> Result<Learned, LmError> {
        let (experience, _, tapes) = self.experience(sequences, rewards)?;
        self.lesson(sequences, &experience, tapes, self.taken())
    }

    /// What everybody says of the completions; the reference's log-probs at temperature 1; the tapes.
    fn experience(
        &self,
        sequences: &[Sequence],
        rewards: &[f64],
    ) -> Result<(Experience, Vec<Vec<f32>>, Tapes), LmError> {
        let options = self.options;
        let (t, tokens) = (options.temperature, options.settings.batch_tokens);
        let (old, tapes) = pass::forward(&self.weights, sequences, t, tokens, self.reuses_tapes(), &self.grads)?;
        let [reference, at_one] = self.reference_logps(sequences)?;
        Ok((Experience { rewards: rewards.to_vec(), old, reference }, at_one, tapes))
    }

    /// Whether the first update goes back over the very sequences of the forward pass, each a unit of
    /// its own, in their order.
    fn reuses_tapes(&self) -> bool {
        let whole = self.options.minibatches == 1 && self.dropout.is_none();
        whole && matches!(self.options.method, PolicyMethod::Rloo | PolicyMethod::Grpo | PolicyMethod::Ppo)
    }

    /// The reference's token log-probs at the policy's temperature and at 1, in the batches in which a
    /// local reward model has read the same sequences, whose lower layers may be the reference's.
    fn reference_logps(&self, sequences: &[Sequence]) -> Result<[Vec<Vec<f32>>; 2], LmError> {
        let mut out = [Vec::with_capacity(sequences.len()), Vec::with_capacity(sequences.len())];
        for range in batches(sequences, Settings::default().batch_tokens) {
            let logps = completion_logps(&self.reference, &sequences[range], &[self.options.temperature, 1.0])?;
            out.iter_mut().zip(logps).for_each(|(out, logps)| out.extend(logps));
        }
        Ok(out)
    }

    /// The passes over a step's completions.
    fn lesson(
        &mut self,
        sequences: &[Sequence],
        experience: &Experience,
        tapes: Tapes,
        t: u32,
    ) -> Result<Learned, LmError> {
        let options = self.options;
        let groups = units(experience, options, self.history.beta, t);
        let mut known = self.reuses_tapes().then_some(tapes);
        let mut learned = Learned::default();
        for epoch in 0..options.epochs {
            let mut order: Vec<&Vec<Unit>> = groups.iter().collect();
            if options.minibatches > 1 {
                let purpose = format!("{}-minibatches", options.method.name());
                let key = Key::new(options.seed, &purpose).round(options.round).step(t).completion(epoch);
                key.stream().shuffle(&mut order);
            }
            let mut pass = Tally::default();
            let mut loss = 0.0;
            let parts = options.minibatches.min(order.len());
            for part in 0..parts {
                let groups = &order[part * order.len() / parts..(part + 1) * order.len() / parts];
                let batch: Vec<&Unit> = groups.iter().flat_map(|group| group.iter()).collect();
                // Where prompts teach nothing, updates are left out, not put off.
                let planned = (t as usize * options.epochs + epoch) * options.minibatches + part;
                learned.lr = self.schedule.at(planned as u32);
                let mean = self.update(sequences, experience, &batch, known.take(), &mut pass, &mut learned, t)?;
                loss += mean / parts as f64;
            }
            learned.loss = loss;
            learned.value_loss = pass.value_loss / parts.max(1) as f64;
            learned.clipped = pass.clipped as f64 / pass.tokens.max(1) as f64;
        }
        Ok(learned)
    }

    /// One optimizer step on a minibatch; its mean loss.
    #[allow(clippy::too_many_arguments)]
    fn update(
        &mut self,
        sequences: &[Sequence],
        experience: &Experience,
        batch: &[&Unit],
        tapes: Option<Tapes>,
        pass: &mut Tally,
        learned: &mut Learned,
        t: u32,
    ) -> Result<f64, LmError> {
        let (options, beta) = (self.options, self.history.beta);
        let own: Vec<Sequence> = batch.iter().flat_map(|u| &u.sequences).map(|i| sequences[*i].clone()).collect();
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(batch.len());
        for unit in batch {
            let start = spans.last().map_or(0, |s| s.end);
            spans.push(start..start + unit.sequences.len());
        }
        let whole = Whole { units: batch.len(), tokens: own.iter().map(|s| s.completion().len()).sum() };
        self.grads.zero();
        let mut loss_of =
            |unit: usize, now: &[Tokens]| unit_loss(batch[unit], experience, now, whole, beta, options, pass);
        let known = tapes.map(|tapes| (experience.old.as_slice(), tapes));
        let tokens = options.settings.batch_tokens;
        let dropout = self.dropout.map(|key| key.round(options.round).step(self.optimizer.steps()));
        let loss = pass::backward(
            &self.weights,
            &own,
            &spans,
            options.temperature,
            tokens,
            known,
            dropout,
            &mut self.grads,
            &mut loss_of,
        )?;
        learned.grad_norm = clip_global_norm(&mut self.grads, options.clip);
        if !(loss.is_finite() && learned.grad_norm.is_finite()) {
            return Err(LmError::Run(format!(
                "step {}: the loss is {loss} and the gradient norm {}; lower the learning rate (now {:.1e})",
                t + 1,
                learned.grad_norm,
                learned.lr
            )));
        }
        self.weights.apply(&mut self.optimizer, &self.grads, learned.lr);
        Ok(loss)
    }

    /// Looks at the held-out prompts where it is time, and ends the run where they say so.
    fn look(
        &mut self,
        company: &Company<'_>,
        reward: &dyn RewardFn,
        progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
    ) -> Result<(), LmError> {
        let Some(watch) = &company.watch else { return Ok(()) };
        let step = self.taken();
        let seen = self.history.heldout.last().is_some_and(|last| last.step == step);
        if seen || !(step.is_multiple_of(watch.every.max(1)) || step == self.options.steps) {
            return Ok(());
        }
        let models = (&self.weights.model, &self.reference);
        let watched = watch::look(watch, models, &self.tokenizer, reward, self.options, step)?;
        tell(progress, &TrainEvent::Heldout(watched.clone()))?;
        let best = self.history.heldout.iter().map(Watched::decisive).fold(f64::NEG_INFINITY, f64::max);
        if watched.decisive() > best {
            self.history.best = step;
            self.best = self.weights.model.adapter.clone().filter(|_| watch.patience > 0);
        }
        self.history.heldout.push(watched);
        let since = self.history.heldout.iter().filter(|w| w.step > self.history.best).count();
        if watch.patience > 0 && since >= watch.patience as usize {
            self.history.ended = Some(Ended::Heldout);
        }
        Ok(())
    }

    /// The policy to return, and its step: the last, or the best where that ended the run.
    fn best(&mut self) -> (Model, u32) {
        let mut model = self.weights.model.clone();
        match (self.history.ended, self.best.take()) {
            (Some(Ended::Heldout), Some(best)) => {
                model.adapter = Some(best);
                (model, self.history.best)
            }
            // The step that passed the limit was drawn, not learned from.
            (Some(Ended::Kl), _) => (model, self.taken() - 1),
            _ => (model, self.taken()),
        }
    }

    fn resume(&mut self, checkpoints: Option<&Checkpoints>) -> Result<(), LmError> {
        let Some(Saved { history, best, .. }) =
            checkpoints.map(|c| c.restore(&mut self.weights, &mut self.optimizer)).transpose()?.flatten()
        else {
            return Ok(());
        };
        self.history = serde_json::from_value(history)
            .map_err(|e| LmError::Run(format!("the checkpoint's history cannot be read: {e}")))?;
        self.best = best;
        Ok(())
    }

    /// Saves a checkpoint where one is due, and before the run is `stopped`.
    fn save(&self, checkpoints: Option<&Checkpoints>, stopped: bool) -> Result<(), LmError> {
        let Some(checkpoints) = checkpoints else { return Ok(()) };
        let step = self.taken();
        if !checkpoints.is_due(step, stopped || !self.unfinished()) {
            return Ok(());
        }
        let history = serde_json::to_value(&self.history).map_err(|e| LmError::Run(e.to_string()))?;
        checkpoints.save(step, &self.weights, &self.optimizer, self.best.as_ref(), history)
    }

    /// What there is to say of a step before it learns.
    fn report(&self, draws: &[Draw<'_>], rewards: &Rewards, e: &Experience, at_one: &[Vec<f32>]) -> PolicyStep {
        let average = |values: Vec<f64>| mean(&values).unwrap_or(0.0);
        let tokens: usize = e.old.iter().map(|l| l.logps.len()).sum();
        let over_tokens = |estimate: fn(f64, f64) -> f64| {
            let pairs = draws.iter().zip(at_one).map(|(draw, base)| {
                let policy = draw.completion.token_logps.iter().flatten();
                policy.zip(base).map(|(p, q)| estimate(f64::from(*p), f64::from(*q))).sum()
            });
            average(pairs.collect())
        };
        let penalties = e.old.iter().zip(&e.reference).map(|(p, q)| kl_k1(sum(&p.logps), sum(q)));
        let stopped = |d: &Draw<'_>| f64::from(u8::from(d.completion.finish == Some(Finish::Stop)));
        PolicyStep {
            step: self.taken() + 1,
            steps: self.options.steps,
            reward: average(rewards.raw.clone()),
            reward_sd: population_std(&rewards.raw).unwrap_or(0.0),
            kl_penalty: average(penalties.collect()),
            kl_k1: over_tokens(kl_k1),
            kl_k3: over_tokens(kl_k3),
            entropy: -e.old.iter().map(|l| sum(&l.logps)).sum::<f64>() / tokens.max(1) as f64,
            length: tokens as f64 / draws.len().max(1) as f64,
            stopped: average(draws.iter().map(stopped).collect()),
            loss: 0.0,
            value_loss: 0.0,
            clipped: 0.0,
            grad_norm: 0.0,
            beta: self.history.beta,
            lr: 0.0,
            tokens: tokens as u64,
        }
    }
}

fn ids(draws: &[Draw<'_>], k: usize) -> String {
    draws.iter().step_by(k).map(|d| d.prompt.id.as_str()).collect::<Vec<_>>().join(", ")
}
