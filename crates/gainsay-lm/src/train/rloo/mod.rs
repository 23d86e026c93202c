//! RLOO: REINFORCE with a leave-one-out baseline (Kool et al. 2019; arXiv 2402.14740), on policy,
//! with a KL penalty to the base policy: the recipe, top to bottom.

mod options;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use gainsay_core::engine::{Decoding, RewardFn, ScoreItem};
use gainsay_core::record::{Completion, Finish};
use gainsay_core::rng::Key;
use gainsay_core::stats::{mean, population_std};

pub use options::{RlooOptions, RlooReport, RlooStep, TrainPrompt};

use super::reward_model::tell;
use super::weights::{Weights, fresh_adapter};
use super::{Cost, TrainEvent};
use crate::error::LmError;
use crate::loss::{kl_k1, kl_k3, reinforce, rloo_advantages};
use crate::model::packed::added_rows;
use crate::model::{Grads, Mat, Model, Packed, Tape, Trainable};
use crate::optim::{AdamW, Schedule, clip_global_norm};
use crate::policy::{
    by_sequence, completion_logps, completion_of, draw_completions, gen_options, require_output_matrix, sum,
};
use crate::sequence::{Encoder, Sequence, Settings, micro_batches};
use crate::source::Loaded;
use crate::tokenizer::Tokenizer;

/// Trains a LoRA adapter on `base` by RLOO and returns backbone and adapter.
///
/// A step draws `prompts_per_step` x `k` completions from the current policy at the temperature
/// T, with R_i = reward_i - beta sum_t (log pi_T - log base_T)(y_t), A_i = R_i - mean of the
/// prompt's other R_j, and takes one gradient step on the mean over completions of
/// -A_i sum_t log pi_T(y_t). The KL's base is the backbone without an adapter. Prompts come in
/// keyed shuffles, one after the other.
///
/// # Errors
/// Options and prompts that make no sense; what the reward function reports; rewards, losses and
/// gradients that are not finite, naming the step; [`LmError::Run`] where `progress` breaks off.
pub fn train_rloo(
    base: &Loaded,
    reward: &dyn RewardFn,
    prompts: &[TrainPrompt],
    options: &RlooOptions,
    progress: &mut dyn FnMut(&TrainEvent) -> ControlFlow<()>,
) -> Result<(Model, RlooReport), LmError> {
    let started = Instant::now();
    let mut run = Rloo::new(base, prompts, options)?;
    let mut steps = Vec::with_capacity(options.steps as usize);
    for _ in 0..options.steps {
        let step = run.step(reward)?;
        tell(progress, &TrainEvent::PolicyStep(step.clone()))?;
        steps.push(step);
    }
    let tokens = steps.iter().map(|s| s.tokens).sum();
    let parameters = run.grads.by_id.values().map(Vec::len).sum();
    let report = RlooReport { steps, parameters, truncated: run.truncated, cost: Cost::since(started, tokens) };
    Ok((run.weights.model, report))
}

/// A run between steps. What step t does depends on the weights, the optimizer's moments and t
/// alone.
pub struct Rloo<'a> {
    options: &'a RlooOptions,
    prompts: &'a [TrainPrompt],
    tokenizer: Arc<Tokenizer>,
    base: Model,
    weights: Weights,
    optimizer: AdamW,
    schedule: Schedule,
    grads: Grads,
    truncated: u64,
}

/// A drawn completion.
struct Draw<'a> {
    prompt: &'a TrainPrompt,
    completion: Completion,
    sequence: Sequence,
}

/// Log-probs of one drawn completion's tokens.
struct Logps {
    /// Under the policy, logits / temperature.
    policy: Vec<f32>,
    /// Under the base, logits / temperature.
    base: Vec<f32>,
    /// Under the base at temperature 1.
    base_at_one: Vec<f32>,
}

/// Tapes are kept between the forward and the backward pass up to this size, in bytes; larger
/// steps run the forward pass again.
const KEPT_TAPES: usize = 2 << 30;

impl<'a> Rloo<'a> {
    /// A run before its first step.
    ///
    /// # Errors
    /// Options that make no sense.
    pub fn new(base: &Loaded, prompts: &'a [TrainPrompt], options: &'a RlooOptions) -> Result<Self, LmError> {
        options.check(prompts)?;
        require_output_matrix(&base.backbone, &base.spec)?;
        let adapter = match base.adapter.clone() {
            Some(adapter) => adapter,
            None => fresh_adapter(&options.adapter, &base.backbone, options.seed)?,
        };
        let weights = Weights { model: Model::new(base.backbone.clone(), Some(adapter)), head: None };
        let grads = weights.zero_grads(&Trainable::Lora);
        Ok(Self {
            options,
            prompts,
            tokenizer: Arc::new(base.tokenizer.clone()),
            base: Model::new(base.backbone.clone(), None),
            weights,
            optimizer: AdamW::new(options.optimizer),
            schedule: Schedule::cosine(options.lr, options.warmup, options.steps),
            grads,
            truncated: 0,
        })
    }

    /// The policy as it is.
    pub fn model(&self) -> &Model {
        &self.weights.model
    }

    /// Draws, scores, and takes one optimizer step.
    ///
    /// # Errors
    /// As [`train_rloo`].
    pub fn step(&mut self, reward: &dyn RewardFn) -> Result<RlooStep, LmError> {
        let t = self.optimizer.steps();
        let draws = self.draw(t)?;
        let rewards = self.rewards(&draws, reward, t)?;
        let sequences: Vec<Sequence> = draws.iter().map(|d| d.sequence.clone()).collect();
        let (logps, tapes) = self.logps(&sequences);
        let penalties: Vec<f64> = logps.iter().map(|l| kl_k1(sum(&l.policy), sum(&l.base))).collect();
        let totals: Vec<f64> = rewards.iter().zip(&penalties).map(|(r, k)| r - self.options.beta * k).collect();
        let advantages = advantages(&totals, self.options.k, self.options.whiten);
        self.grads.zero();
        let loss = self.backward(&sequences, &logps, &advantages, tapes);
        let lr = self.schedule.at(t);
        let grad_norm = clip_global_norm(&mut self.grads, self.options.clip);
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(LmError::Run(format!(
                "step {}: the loss is {loss} and the gradient norm {grad_norm} on prompts {}; lower the learning \
                 rate (now {lr:.1e}) or clip gradients",
                t + 1,
                ids(&draws, self.options.k)
            )));
        }
        self.weights.apply(&mut self.optimizer, &self.grads, lr);
        let steps = self.options.steps;
        let optimizer = Optimizer { step: t + 1, steps, loss, grad_norm, lr };
        Ok(report(&draws, &rewards, &penalties, &logps, optimizer))
    }

    /// The prompts of step `t`: the next in an endless row of keyed shuffles.
    fn prompts_at(&self, t: u32) -> Vec<&'a TrainPrompt> {
        let n = self.prompts.len();
        let first = t as usize * self.options.prompts_per_step;
        let mut pass = None;
        let mut order: Vec<usize> = Vec::new();
        (first..first + self.options.prompts_per_step)
            .map(|i| {
                if pass != Some(i / n) {
                    pass = Some(i / n);
                    order = (0..n).collect();
                    let key = Key::new(self.options.seed, "rloo-order").round(self.options.round);
                    key.step((i / n) as u32).stream().shuffle(&mut order);
                }
                &self.prompts[order[i % n]]
            })
            .collect()
    }

    fn draw(&mut self, t: u32) -> Result<Vec<Draw<'a>>, LmError> {
        let options = self.options;
        let decoding = Decoding {
            temperature: options.temperature,
            max_new_tokens: options.max_new_tokens,
            seed: options.seed,
            purpose: options.purpose.clone(),
            round: options.round,
            step: t,
            ..Decoding::default()
        };
        let prompts = self.prompts_at(t);
        let config = &self.weights.model.backbone.config;
        let encoder = Encoder::new(&self.tokenizer, config.vocab_size, config.max_positions, &options.settings);
        let mut tokens = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            let (ids, cut) = encoder.prompt(&prompt.prompt, options.max_new_tokens, &prompt.id)?;
            self.truncated += u64::from(cut);
            tokens.push(ids);
        }
        let names: Vec<&str> = prompts.iter().map(|p| p.id.as_str()).collect();
        let n = vec![options.k; prompts.len()];
        let engine = gen_options(&self.tokenizer, &decoding, options.settings.max_rows);
        let generated = draw_completions(&self.weights.model, &tokens, &names, &n, &engine, &decoding, |_| ());
        let rows = prompts.into_iter().zip(tokens).zip(generated);
        Ok(rows
            .flat_map(|((prompt, ids), group)| {
                group.into_iter().map(move |g| (prompt, ids.clone(), g)).collect::<Vec<_>>()
            })
            .map(|(prompt, mut tokens, generated)| {
                let prompt_len = tokens.len();
                tokens.extend_from_slice(&generated.token_ids);
                let sequence = Sequence { tokens, prompt_len, truncated: false };
                Draw { prompt, completion: completion_of(&self.tokenizer, generated), sequence }
            })
            .collect())
    }

    fn rewards(&self, draws: &[Draw<'_>], reward: &dyn RewardFn, t: u32) -> Result<Vec<f64>, LmError> {
        let mut items: Vec<ScoreItem<'_>> =
            draws.iter().map(|d| ScoreItem::of(&d.prompt.prompt, &d.completion)).collect();
        if self.options.reward_reads_text {
            items.iter_mut().for_each(|item| item.token_ids = None);
        }
        let rewards = reward.rewards(&items).map_err(|e| LmError::Run(format!("step {}: rewards: {e}", t + 1)))?;
        let trouble = match rewards.iter().position(|r| !r.is_finite()) {
            _ if rewards.len() != items.len() => format!("{} rewards for {} completions", rewards.len(), items.len()),
            Some(i) => format!("{} as the reward of a completion of prompt {}", rewards[i], draws[i].prompt.id),
            None => return Ok(rewards),
        };
        Err(LmError::Run(format!("step {}: {} gave {trouble}", t + 1, reward.identity())))
    }

    fn batches(&self, sequences: &[Sequence]) -> Vec<std::ops::Range<usize>> {
        micro_batches(&added_rows(sequences), self.options.settings.batch_tokens)
    }

    /// Log-probs of all completions, and the policy's tape of each micro-batch where they fit.
    fn logps(&self, sequences: &[Sequence]) -> (Vec<Logps>, Vec<Option<Tape>>) {
        let temperature = self.options.temperature;
        let model = &self.weights.model;
        let rows = added_rows(sequences).iter().sum();
        let keep = model.keep_within(KEPT_TAPES, rows, &self.grads);
        let fits = model.tape_bytes(rows, keep, &self.grads) <= KEPT_TAPES;
        let (mut policy, mut tapes) = (Vec::with_capacity(sequences.len()), Vec::new());
        for range in self.batches(sequences) {
            let sequences = &sequences[range];
            let tape = model.forward_tape(&Packed::sharing(sequences), keep, &self.grads);
            let (rows, targets) = tape.batch.predictions();
            let logps = model.token_logps(&tape.hidden, &rows, &targets, temperature as f32);
            policy.extend(by_sequence(&logps, sequences));
            tapes.push(fits.then_some(tape));
        }
        let logps = policy.into_iter().zip(self.base_logps(sequences)).map(|(policy, (base, base_at_one))| Logps {
            policy,
            base,
            base_at_one,
        });
        (logps.collect(), tapes)
    }

    /// The base's token log-probs at the policy's temperature and at 1, in the batches in which a
    /// local reward model has read the same sequences, whose lower layers may be the base's.
    fn base_logps(&self, sequences: &[Sequence]) -> Vec<(Vec<f32>, Vec<f32>)> {
        micro_batches(&added_rows(sequences), Settings::default().batch_tokens)
            .into_iter()
            .flat_map(|range| {
                let mut logps = completion_logps(&self.base, &sequences[range], &[self.options.temperature, 1.0]);
                let at_one = logps.pop().unwrap_or_default();
                logps.pop().unwrap_or_default().into_iter().zip(at_one)
            })
            .collect()
    }

    /// Adds the gradient of the mean surrogate loss to the gradients and returns that loss.
    fn backward(
        &mut self,
        sequences: &[Sequence],
        logps: &[Logps],
        advantages: &[f64],
        tapes: Vec<Option<Tape>>,
    ) -> f64 {
        let n = sequences.len() as f64;
        let mut total = 0.0;
        for (range, tape) in self.batches(sequences).into_iter().zip(tapes) {
            let model = &self.weights.model;
            let tape = tape.unwrap_or_else(|| {
                let batch = Packed::sharing(&sequences[range.clone()]);
                let keep = model.keep_within(KEPT_TAPES, batch.tokens.len(), &self.grads);
                model.forward_tape(&batch, keep, &self.grads)
            });
            let mut d_logps = Vec::new();
            for i in range {
                let loss = reinforce(advantages[i], sum(&logps[i].policy));
                total += loss.loss / n;
                d_logps.extend(std::iter::repeat_n((loss.d_logp / n) as f32, logps[i].policy.len()));
            }
            sequence_backward(model, tape, self.options.temperature, &d_logps, &mut self.grads);
        }
        total
    }
}

/// Adds to `grads` the gradient of sum(d_logp . log p(completion tokens)) for the sequences on
/// `tape`, packed by [`Packed::sharing`], p being the softmax of logits / temperature. `d_logps`
/// holds one value a completion token, sequence after sequence.
pub fn sequence_backward(model: &Model, tape: Tape, temperature: f64, d_logps: &[f32], grads: &mut Grads) {
    let (rows, targets) = tape.batch.predictions();
    let mut d_hidden = Mat::zeros(tape.hidden.rows, tape.hidden.cols);
    let t = temperature as f32;
    model.token_logps_backward(&tape.hidden, &rows, &targets, t, d_logps, &mut d_hidden, grads);
    model.backward(tape, d_hidden, grads);
}

/// Leave-one-out advantages of groups of `k` completions that lie one after the other; divided by
/// their standard deviation over the batch with `whiten`, unless that is 0.
fn advantages(totals: &[f64], k: usize, whiten: bool) -> Vec<f64> {
    let mut all: Vec<f64> = totals.chunks(k).filter_map(rloo_advantages).flatten().collect();
    let spread = population_std(&all).unwrap_or(0.0);
    if whiten && spread > 0.0 {
        all.iter_mut().for_each(|a| *a /= spread);
    }
    all
}

fn ids(draws: &[Draw<'_>], k: usize) -> String {
    draws.iter().step_by(k).map(|d| d.prompt.id.as_str()).collect::<Vec<_>>().join(", ")
}

struct Optimizer {
    step: u32,
    steps: u32,
    loss: f64,
    grad_norm: f64,
    lr: f64,
}

fn report(draws: &[Draw<'_>], rewards: &[f64], penalties: &[f64], logps: &[Logps], optimizer: Optimizer) -> RlooStep {
    let average = |values: Vec<f64>| mean(&values).unwrap_or(0.0);
    let tokens: usize = logps.iter().map(|l| l.policy.len()).sum();
    let over_tokens = |estimate: fn(f64, f64) -> f64| {
        let pairs = draws.iter().zip(logps).map(|(draw, l)| {
            let policy = draw.completion.token_logps.iter().flatten();
            policy.zip(&l.base_at_one).map(|(p, q)| estimate(f64::from(*p), f64::from(*q))).sum()
        });
        average(pairs.collect())
    };
    let stopped = |d: &Draw<'_>| f64::from(u8::from(d.completion.finish == Some(Finish::Stop)));
    RlooStep {
        step: optimizer.step,
        steps: optimizer.steps,
        reward: average(rewards.to_vec()),
        kl_penalty: average(penalties.to_vec()),
        kl_k1: over_tokens(kl_k1),
        kl_k3: over_tokens(kl_k3),
        entropy: -logps.iter().map(|l| sum(&l.policy)).sum::<f64>() / tokens.max(1) as f64,
        length: tokens as f64 / draws.len().max(1) as f64,
        stopped: average(draws.iter().map(stopped).collect()),
        loss: optimizer.loss,
        grad_norm: optimizer.grad_norm,
        lr: optimizer.lr,
        tokens: tokens as u64,
    }
}
