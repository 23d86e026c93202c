//! A step's completions: drawn from the policy, rewarded, with everybody's log-probs.

use std::collections::HashMap;

use gainsay_core::engine::{Decoding, RewardFn, ScoreItem};
use gainsay_core::record::Completion;
use gainsay_core::rng::Key;
use gainsay_core::stats::population_std;

use super::options::{PolicyOptions, TrainPrompt};
use super::shaping::shaped;
use crate::error::LmError;
use crate::model::Model;
use crate::policy::{completion_of, draw_completions, gen_options};
use crate::sequence::{Encoder, Sequence};
use crate::tokenizer::Tokenizer;

/// A drawn completion.
pub(super) struct Draw<'a> {
    pub prompt: &'a TrainPrompt,
    pub completion: Completion,
    pub sequence: Sequence,
}

/// Rewards of a step's completions.
pub(super) struct Rewards {
    /// As the reward function gave them.
    pub raw: Vec<f64>,
    /// As they teach.
    pub shaped: Vec<f64>,
}

/// The prompts of step `t`: the next in an endless row of keyed shuffles.
pub(super) fn prompts_at<'a>(prompts: &'a [TrainPrompt], options: &PolicyOptions, t: u32) -> Vec<&'a TrainPrompt> {
    let n = prompts.len();
    let first = t as usize * options.prompts_per_step;
    let purpose = format!("{}-order", options.method.name());
    let mut pass = None;
    let mut order: Vec<usize> = Vec::new();
    (first..first + options.prompts_per_step)
        .map(|i| {
            if pass != Some(i / n) {
                pass = Some(i / n);
                order = (0..n).collect();
                let key = Key::new(options.seed, &purpose).round(options.round);
                key.step((i / n) as u32).stream().shuffle(&mut order);
            }
            &prompts[order[i % n]]
        })
        .collect()
}

/// `k` completions of each prompt, prompt after prompt, and how many prompts were cut.
pub(super) fn draw<'a>(
    model: &Model,
    tokenizer: &Tokenizer,
    prompts: Vec<&'a TrainPrompt>,
    k: usize,
    options: &PolicyOptions,
    decoding: &Decoding,
) -> Result<(Vec<Draw<'a>>, u64), LmError> {
    let config = &model.backbone.config;
    let encoder = Encoder::new(tokenizer, config.vocab_size, config.max_positions, &options.settings);
    let mut truncated = 0;
    let mut tokens = Vec::with_capacity(prompts.len());
    for prompt in &prompts {
        let (ids, cut) = encoder.prompt(&prompt.prompt, options.max_new_tokens, &prompt.id)?;
        truncated += u64::from(cut);
        tokens.push(ids);
    }
    // A prompt that comes twice in a step draws twice as many, not the same again.
    let first = |i: usize| prompts.iter().position(|p| p.id == prompts[i].id).unwrap_or(i);
    let once: Vec<usize> = (0..prompts.len()).filter(|i| first(*i) == *i).collect();
    let names: Vec<&str> = once.iter().map(|i| prompts[*i].id.as_str()).collect();
    let own: Vec<Vec<u32>> = once.iter().map(|i| tokens[*i].clone()).collect();
    let n: Vec<usize> = once.iter().map(|i| k * (0..prompts.len()).filter(|j| first(*j) == *i).count()).collect();
    let engine = gen_options(tokenizer, decoding, options.settings.max_rows);
    let generated = draw_completions(model, &own, &names, &n, &engine, decoding, |_| ())?;
    let mut left: HashMap<&str, _> = names.into_iter().zip(generated.into_iter().map(Vec::into_iter)).collect();
    let mut draws = Vec::with_capacity(k * prompts.len());
    for (prompt, ids) in prompts.iter().copied().zip(tokens) {
        for generated in left.get_mut(prompt.id.as_str()).into_iter().flat_map(|group| group.by_ref().take(k)) {
            let mut all = ids.clone();
            all.extend_from_slice(&generated.token_ids);
            let sequence = Sequence { tokens: all, prompt_len: ids.len(), truncated: false };
            draws.push(Draw { prompt, completion: completion_of(tokenizer, generated), sequence });
        }
    }
    Ok((draws, truncated))
}

/// How the completions of step `t` are decoded.
pub(super) fn decoding_at(options: &PolicyOptions, t: u32) -> Decoding {
    Decoding {
        temperature: options.temperature,
        max_new_tokens: options.max_new_tokens,
        seed: options.seed,
        purpose: options.purpose.clone(),
        round: options.round,
        step: t,
        ..Decoding::default()
    }
}

/// Rewards of the draws, with the spread where shaping asks for it.
pub(super) fn rewards(
    draws: &[Draw<'_>],
    reward: &dyn RewardFn,
    options: &PolicyOptions,
    t: u32,
) -> Result<Rewards, LmError> {
    let mut items: Vec<ScoreItem<'_>> = draws.iter().map(|d| ScoreItem::of(&d.prompt.prompt, &d.completion)).collect();
    if options.reward_reads_text {
        items.iter_mut().for_each(|item| item.token_ids = None);
    }
    let failed = |e| LmError::Run(format!("step {}: rewards: {e}", t + 1));
    let (raw, spreads) = match options.shaping.uncertainty > 0.0 {
        false => (reward.rewards(&items).map_err(failed)?, None),
        true => match reward.rewards_by_head(&items).map_err(failed)? {
            Some(found) => {
                let spreads = found.heads.iter().map(|heads| population_std(heads).unwrap_or(0.0)).collect();
                (found.rewards, Some::<Vec<f64>>(spreads))
            }
            None => {
                return Err(LmError::Input(format!(
                    "the uncertainty penalty needs a reward model with several heads, and {} has one; train it with \
                     `gainsay train reward --heads 8`",
                    reward.identity()
                )));
            }
        },
    };
    check(&raw, draws, reward).map_err(|trouble| LmError::Run(format!("step {}: {trouble}", t + 1)))?;
    let shaped = shaped(&raw, spreads.as_deref(), &options.shaping);
    Ok(Rewards { raw, shaped })
}

/// One finite reward a draw, or what is wrong.
pub(super) fn check(rewards: &[f64], draws: &[Draw<'_>], reward: &dyn RewardFn) -> Result<(), String> {
    let trouble = match rewards.iter().position(|r| !r.is_finite()) {
        _ if rewards.len() != draws.len() => format!("{} rewards for {} completions", rewards.len(), draws.len()),
        Some(i) => format!("{} as the reward of a completion of prompt {}", rewards[i], draws[i].prompt.id),
        None => return Ok(()),
    };
    Err(format!("{} gave {trouble}", reward.identity()))
}
