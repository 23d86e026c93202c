//! Held-out prompts, watched while a policy is trained: the over-optimization curve, and when to
//! stop.

use gainsay_core::engine::{RewardFn, ScoreItem};
use gainsay_core::stats::mean;
use serde::{Deserialize, Serialize};

use super::draw::{check, decoding_at, draw};
use super::options::{PolicyOptions, TrainPrompt};
use crate::error::LmError;
use crate::loss::kl_k3;
use crate::model::Model;
use crate::policy::completion_logps;
use crate::sequence::{Sequence, micro_batches};
use crate::tokenizer::Tokenizer;

/// What is watched, and how often.
pub struct Watch<'a> {
    /// Held-out prompts; one completion each.
    pub prompts: &'a [TrainPrompt],
    /// The trusted reward, where there is one.
    pub gold: Option<&'a dyn RewardFn>,
    /// Steps between two looks.
    pub every: u32,
    /// Stop after so many looks without a higher reward (gold, else proxy) than the best; 0 never
    /// stops.
    pub patience: u32,
}

/// One look at the held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Steps that the policy had taken.
    pub step: u32,
    /// Mean reward of the reward function that is optimized.
    pub proxy: f64,
    /// Mean gold reward, where there is one.
    pub gold: Option<f64>,
    /// KL(policy || base) of softmax(logits / temperature), nats a sequence: k3 summed over the
    /// tokens of completions that this distribution drew, hence unbiased.
    pub kl: f64,
    /// Tokens a completion.
    pub length: f64,
}

impl Watched {
    /// What decides on stopping.
    pub fn decisive(&self) -> f64 {
        self.gold.unwrap_or(self.proxy)
    }
}

/// Looks at the policy after `step` steps. The draws' random numbers are the same at every look.
pub(super) fn look(
    watch: &Watch<'_>,
    models: (&Model, &Model),
    tokenizer: &Tokenizer,
    reward: &dyn RewardFn,
    options: &PolicyOptions,
    step: u32,
) -> Result<Watched, LmError> {
    let (model, base) = models;
    let mut decoding = decoding_at(options, 0);
    decoding.purpose = format!("{}-heldout", options.purpose);
    let (draws, _) = draw(model, tokenizer, watch.prompts.iter().collect(), 1, options, &decoding)?;
    let mut items: Vec<ScoreItem<'_>> = draws.iter().map(|d| ScoreItem::of(&d.prompt.prompt, &d.completion)).collect();
    if options.reward_reads_text {
        items.iter_mut().for_each(|item| item.token_ids = None);
    }
    let average = |reward: &dyn RewardFn| -> Result<f64, LmError> {
        let rewards = reward.rewards(&items).map_err(|e| LmError::Run(format!("held-out rewards: {e}")))?;
        check(&rewards, &draws, reward).map_err(|e| LmError::Run(format!("held-out rewards: {e}")))?;
        Ok(mean(&rewards).unwrap_or(0.0))
    };
    let sequences: Vec<Sequence> = draws.iter().map(|d| d.sequence.clone()).collect();
    let kls: Vec<f64> = divergence(model, base, &sequences, options)?;
    let lengths: Vec<f64> = sequences.iter().map(|s| s.completion().len() as f64).collect();
    Ok(Watched {
        step,
        proxy: average(reward)?,
        gold: watch.gold.map(average).transpose()?,
        kl: mean(&kls).unwrap_or(0.0),
        length: mean(&lengths).unwrap_or(0.0),
    })
}

/// k3 summed over each completion's tokens.
fn divergence(
    model: &Model,
    base: &Model,
    sequences: &[Sequence],
    options: &PolicyOptions,
) -> Result<Vec<f64>, LmError> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.tokens.len()).collect();
    let mut out = Vec::with_capacity(sequences.len());
    for range in micro_batches(&lengths, options.settings.batch_tokens) {
        let of = |model: &Model| -> Result<_, LmError> {
            Ok(completion_logps(model, &sequences[range.clone()], &[options.temperature])?.remove(0))
        };
        for (own, base) in of(model)?.iter().zip(of(base)?) {
            out.push(own.iter().zip(&base).map(|(p, q)| kl_k3((*p).into(), (*q).into())).sum());
        }
    }
    Ok(out)
}
