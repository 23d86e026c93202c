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
    /// Each prompt's gold reward, in the prompts' order; empty without gold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gold_by_prompt: Vec<f64>,
    /// KL(policy || reference) of softmax(logits / temperature), the distribution that is trained, nats a
    /// sequence: k3 summed over the tokens of completions that it drew, hence unbiased.
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
    let (model, reference) = models;
    let mut decoding = decoding_at(options, 0);
    decoding.purpose = format!("{}-heldout", options.purpose);
    let (draws, _) = draw(model, tokenizer, watch.prompts.iter().collect(), 1, options, &decoding)?;
    let mut items: Vec<ScoreItem<'_>> = draws.iter().map(|d| ScoreItem::of(&d.prompt.prompt, &d.completion)).collect();
    if options.reward_reads_text {
        items.iter_mut().for_each(|item| item.token_ids = None);
    }
    let rewarded = |reward: &dyn RewardFn| -> Result<Vec<f64>, LmError> {
        let rewards = reward.rewards(&items).map_err(|e| LmError::Run(format!("held-out rewards: {e}")))?;
        check(&rewards, &draws, reward).map_err(|e| LmError::Run(format!("held-out rewards: {e}")))?;
        Ok(rewards)
    };
    let sequences: Vec<Sequence> = draws.iter().map(|d| d.sequence.clone()).collect();
    let kls: Vec<f64> = divergence(model, reference, &sequences, options)?;
    let lengths: Vec<f64> = sequences.iter().map(|s| s.completion().len() as f64).collect();
    let gold_by_prompt = watch.gold.map(rewarded).transpose()?.unwrap_or_default();
    Ok(Watched {
        step,
        proxy: mean(&rewarded(reward)?).unwrap_or(0.0),
        gold: mean(&gold_by_prompt),
        gold_by_prompt,
        kl: mean(&kls).unwrap_or(0.0),
        length: mean(&lengths).unwrap_or(0.0),
    })
}

/// k3 summed over each completion's tokens.
fn divergence(
    model: &Model,
    reference: &Model,
    sequences: &[Sequence],
    options: &PolicyOptions,
) -> Result<Vec<f64>, LmError> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.tokens.len()).collect();
    let mut out = Vec::with_capacity(sequences.len());
    for range in micro_batches(&lengths, options.settings.batch_tokens) {
        let of = |model: &Model| -> Result<_, LmError> {
            Ok(completion_logps(model, &sequences[range.clone()], &[options.temperature])?.remove(0))
        };
        for (own, other) in of(model)?.iter().zip(of(reference)?) {
            out.push(own.iter().zip(&other).map(|(p, q)| kl_k3((*p).into(), (*q).into())).sum());
        }
    }
    Ok(out)
}
