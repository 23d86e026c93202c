//! From a step's completions to what is learned from them, method by method: advantages, pairs,
//! the best. Pure: no model runs here.

use gainsay_core::rng::Key;
use gainsay_core::select::acceptance_rounds;
use gainsay_core::stats::population_std;

use super::options::{PolicyMethod, PolicyOptions};
use super::pass::{TokenGrads, Tokens};
use crate::loss::{
    clipped_policy, clipped_value, gae, group_advantages, grpo_token, kl_k1, negative_log_likelihood, preference_pair,
    reinforce, rloo_advantages, whiten,
};
use crate::policy::sum;

/// What is known of a step's completions before the first update.
pub(super) struct Experience {
    /// Rewards as they teach; groups of `k` belong to one prompt.
    pub rewards: Vec<f64>,
    /// The policy that drew them, at its temperature.
    pub old: Vec<Tokens>,
    /// Log-probs under the base, at the same temperature.
    pub reference: Vec<Vec<f32>>,
}

/// Sequences that one unit of the loss reads, with what it needs of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    /// One completion, or a pair: the better one first.
    pub sequences: Vec<usize>,
    /// One value a token (PPO), or one for the whole completion; empty for pairs and the best.
    pub advantages: Vec<f64>,
    /// PPO: one a token.
    pub returns: Vec<f64>,
}

/// What of a minibatch a unit's share is taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub units: usize,
    pub tokens: usize,
}

/// Figures of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub value_loss: f64,
    pub clipped: usize,
    pub tokens: usize,
}

/// The units of step `t`, prompt by prompt; a prompt that teaches nothing has none. `beta` weighs
/// the KL penalty within the rewards of PPO and RLOO.
pub(super) fn units(e: &Experience, options: &PolicyOptions, beta: f64, t: u32) -> Vec<Vec<Unit>> {
    let k = options.k;
    let of_sequence = |advantages: Vec<f64>| -> Vec<Vec<Unit>> {
        let unit = |(i, a): (usize, &f64)| Unit { sequences: vec![i], advantages: vec![*a], returns: Vec::new() };
        let all: Vec<Unit> = advantages.iter().enumerate().map(unit).collect();
        all.chunks(k).map(<[Unit]>::to_vec).collect()
    };
    match options.method {
        PolicyMethod::Rloo => of_sequence(leave_one_out(e, options, beta)),
        PolicyMethod::Grpo => {
            let group = |rewards: &[f64]| group_advantages(rewards, options.scale_groups);
            of_sequence(e.rewards.chunks(k).filter_map(group).flatten().collect())
        }
        PolicyMethod::Ppo => ppo_units(e, options, beta),
        PolicyMethod::Dpo | PolicyMethod::Bon => best_and_worst(e, options),
        PolicyMethod::Rso => rejection_sampled(e, options, t),
    }
}

/// R_i = reward - beta sum of k1, then leave-one-out; divided by their standard deviation over the
/// batch with `whiten`, unless that is 0.
fn leave_one_out(e: &Experience, options: &PolicyOptions, beta: f64) -> Vec<f64> {
    let totals: Vec<f64> = e
        .rewards
        .iter()
        .zip(e.old.iter().zip(&e.reference))
        .map(|(r, (policy, base))| r - beta * kl_k1(sum(&policy.logps), sum(base)))
        .collect();
    let mut all: Vec<f64> = totals.chunks(options.k).filter_map(rloo_advantages).flatten().collect();
    let spread = population_std(&all).unwrap_or(0.0);
    if options.whiten && spread > 0.0 {
        all.iter_mut().for_each(|a| *a /= spread);
    }
    all
}

/// Per-token rewards -beta k1, the completion's reward on its last token; GAE; whitened over all
/// tokens.
fn ppo_units(e: &Experience, options: &PolicyOptions, beta: f64) -> Vec<Vec<Unit>> {
    let mut units: Vec<Unit> = (0..e.rewards.len())
        .map(|i| {
            let pairs = e.old[i].logps.iter().zip(&e.reference[i]);
            let mut rewards: Vec<f64> = pairs.map(|(p, q)| -beta * kl_k1(f64::from(*p), f64::from(*q))).collect();
            if let Some(last) = rewards.last_mut() {
                *last += e.rewards[i];
            }
            let gae = gae(&rewards, &e.old[i].values, options.gamma, options.lambda);
            Unit { sequences: vec![i], advantages: gae.advantages, returns: gae.returns }
        })
        .collect();
    let all: Vec<f64> = units.iter().flat_map(|u| u.advantages.iter().copied()).collect();
    let mut white = whiten(&all, false).into_iter();
    for unit in &mut units {
        unit.advantages.iter_mut().zip(white.by_ref()).for_each(|(a, w)| *a = w);
    }
    units.chunks(options.k).map(<[Unit]>::to_vec).collect()
}

/// The first best and the first worst of each prompt; prompts whose rewards are all equal teach
/// nothing.
fn best_and_worst(e: &Experience, options: &PolicyOptions) -> Vec<Vec<Unit>> {
    let of_group = |(group, rewards): (usize, &[f64])| {
        let best = (0..rewards.len()).reduce(|a, b| if rewards[b] > rewards[a] { b } else { a })?;
        let worst = (0..rewards.len()).reduce(|a, b| if rewards[b] < rewards[a] { b } else { a })?;
        let at = |i: usize| group * options.k + i;
        let sequences = match options.method {
            PolicyMethod::Bon => vec![at(best)],
            _ => vec![at(best), at(worst)],
        };
        (rewards[best] > rewards[worst]).then(|| Unit { sequences, advantages: Vec::new(), returns: Vec::new() })
    };
    e.rewards.chunks(options.k).enumerate().filter_map(of_group).map(|unit| vec![unit]).collect()
}

/// RSO (arXiv 2309.06657, algorithm 1): completion i of a prompt is accepted where u_i <
/// exp((r_i - r_max) / beta), round after round among those left, until half of the `k` are (2 at
/// least); accepted ones are paired at random, without replacement, and the larger reward wins.
/// Pairs of equal reward are left out.
fn rejection_sampled(e: &Experience, options: &PolicyOptions, t: u32) -> Vec<Vec<Unit>> {
    let mut out = Vec::new();
    for (group, rewards) in e.rewards.chunks(options.k).enumerate() {
        let key = Key::new(options.seed, "rso-accept").round(options.round).step(t).completion(group);
        let mut stream = key.stream();
        let candidates: Vec<(usize, f64)> = rewards.iter().copied().enumerate().collect();
        let rounds = acceptance_rounds(&candidates, options.rso_beta, &mut stream);
        let mut accepted: Vec<usize> = rounds.iter().take((options.k / 2).max(2)).map(|(i, _)| *i).collect();
        stream.shuffle(&mut accepted);
        let units: Vec<Unit> = accepted
            .chunks_exact(2)
            .filter(|pair| rewards[pair[0]] != rewards[pair[1]])
            .map(|pair| {
                let first_wins = rewards[pair[0]] > rewards[pair[1]];
                let (winner, loser) = if first_wins { (pair[0], pair[1]) } else { (pair[1], pair[0]) };
                let at = |i: usize| group * options.k + i;
                Unit { sequences: vec![at(winner), at(loser)], advantages: Vec::new(), returns: Vec::new() }
            })
            .collect();
        if !units.is_empty() {
            out.push(units);
        }
    }
    out
}

/// A unit's part of the minibatch's mean loss, with the derivatives by its sequences' tokens.
pub(super) fn unit_loss(
    unit: &Unit,
    e: &Experience,
    now: &[Tokens],
    whole: Whole,
    beta: f64,
    options: &PolicyOptions,
    tally: &mut Tally,
) -> (f64, Vec<TokenGrads>) {
    let n = whole.units as f64;
    let i = unit.sequences[0];
    let same = |tokens: &Tokens, d: f64| TokenGrads { logps: vec![d; tokens.logps.len()], values: Vec::new() };
    tally.tokens += now.iter().map(|t| t.logps.len()).sum::<usize>();
    match options.method {
        PolicyMethod::Rloo => {
            let l = reinforce(unit.advantages[0], sum(&now[0].logps));
            (l.loss / n, vec![same(&now[0], l.d_logp / n)])
        }
        PolicyMethod::Bon => {
            let l = negative_log_likelihood(&now[0].logps);
            let tokens = whole.tokens.max(1) as f64;
            (l.loss / tokens, vec![same(&now[0], l.d_logp / tokens)])
        }
        PolicyMethod::Dpo | PolicyMethod::Rso => {
            let side = |s: usize| (sum(&now[s].logps), sum(&e.reference[unit.sequences[s]]));
            let l = preference_pair(options.loss, beta, 1.0, side(0), side(1));
            (l.loss / n, vec![same(&now[0], l.d_first / n), same(&now[1], l.d_second / n)])
        }
        PolicyMethod::Grpo => {
            let share = n * now[0].logps.len().max(1) as f64;
            let mut total = 0.0;
            let token = |((new, old), base): ((&f32, &f32), &f32)| {
                let a = unit.advantages[0];
                let l = grpo_token((*new).into(), (*old).into(), (*base).into(), a, options.clip_ratio, beta);
                total += l.loss / share;
                tally.clipped += usize::from(l.clipped);
                l.derivative / share
            };
            let logps = now[0].logps.iter().zip(&e.old[i].logps).zip(&e.reference[i]).map(token).collect();
            (total, vec![TokenGrads { logps, values: Vec::new() }])
        }
        PolicyMethod::Ppo => ppo_loss(unit, &e.old[i], &now[0], whole.tokens.max(1) as f64, options, tally),
    }
}

/// Means over the minibatch's tokens of the clipped surrogate and, weighted, the value loss.
fn ppo_loss(
    unit: &Unit,
    old: &Tokens,
    now: &Tokens,
    tokens: f64,
    options: &PolicyOptions,
    tally: &mut Tally,
) -> (f64, Vec<TokenGrads>) {
    let mut grads = TokenGrads::default();
    let mut total = 0.0;
    for t in 0..now.logps.len() {
        let (new, was) = (f64::from(now.logps[t]), f64::from(old.logps[t]));
        let policy = clipped_policy(new, was, unit.advantages[t], options.clip_ratio);
        let value = clipped_value(now.values[t], old.values[t], unit.returns[t], options.clip_value);
        total += (policy.loss + options.value_weight * value.loss) / tokens;
        tally.value_loss += value.loss / tokens;
        tally.clipped += usize::from(policy.clipped);
        grads.logps.push(policy.derivative / tokens);
        grads.values.push(options.value_weight * value.derivative / tokens);
    }
    (total, vec![grads])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Family;

    fn experience(rewards: &[f64]) -> Experience {
        let tokens = Tokens { logps: vec![-1.0, -2.0], values: vec![0.0, 0.0] };
        Experience {
            rewards: rewards.to_vec(),
            old: vec![tokens; rewards.len()],
            reference: vec![vec![-1.0, -2.0]; rewards.len()],
        }
    }

    fn options(method: PolicyMethod) -> PolicyOptions {
        PolicyOptions { k: 3, ..PolicyOptions::new(method, Family::Llama) }
    }

    #[test]
    fn pairs_are_the_best_against_the_worst() {
        let e = experience(&[1.0, 5.0, 5.0, 2.0, 2.0, 2.0, 3.0, 0.0, 0.0]);
        let of = |method| -> Vec<Vec<usize>> {
            units(&e, &options(method), 0.1, 0).into_iter().flatten().map(|u| u.sequences).collect()
        };
        // The second prompt's rewards are equal: nothing to learn.
        assert_eq!(of(PolicyMethod::Dpo), [vec![1, 0], vec![6, 7]]);
        assert_eq!(of(PolicyMethod::Bon), [[1], [6]]);
    }

    #[test]
    fn rejection_sampling_accepts_the_best_and_pairs_winners_first() {
        let mut rewards = vec![0.0; 300];
        rewards.iter_mut().enumerate().for_each(|(i, r)| *r = (i % 3) as f64);
        let e = experience(&rewards);
        // A large beta accepts all: the first two of each three, the larger reward first.
        let flat = PolicyOptions { rso_beta: 1e9, ..options(PolicyMethod::Rso) };
        let pairs: Vec<Unit> = units(&e, &flat, 0.1, 0).concat();
        assert!(pairs.iter().enumerate().all(|(g, u)| u.sequences == [3 * g + 1, 3 * g]) && pairs.len() == 100);
        // A tiny beta accepts the best, and the best of the others in the next round.
        let sharp: Vec<Unit> = units(&e, &PolicyOptions { rso_beta: 1e-9, ..flat }, 0.1, 0).concat();
        assert!(sharp.iter().enumerate().all(|(g, u)| u.sequences == [3 * g + 2, 3 * g + 1]) && sharp.len() == 100);
    }

    #[test]
    fn ppo_puts_the_reward_on_the_last_token() {
        // beta 0, values 0, gamma = lambda = 1: before whitening every token has the reward.
        let o = PolicyOptions { lambda: 1.0, ..options(PolicyMethod::Ppo) };
        let units = units(&experience(&[1.0, 3.0, 1.0]), &o, 0.0, 0).concat();
        assert_eq!(units[1].returns, [3.0, 3.0]);
        // Tokens' advantages (1, 1, 3, 3, 1, 1): mean 5/3, whitened to mean 0.
        let all: f64 = units.iter().flat_map(|u| &u.advantages).sum();
        assert!(all.abs() < 1e-9 && units[1].advantages[0] > 1.0);
    }

    #[test]
    fn the_penalty_weighs_as_the_step_says() {
        // k1 of the two tokens: 1 and 2; gamma = lambda = 1, values 0: returns sum what is ahead.
        let mut e = experience(&[1.0, 3.0, 1.0]);
        e.reference = vec![vec![-2.0, -4.0]; 3];
        let o = PolicyOptions { lambda: 1.0, ..options(PolicyMethod::Ppo) };
        assert_eq!(units(&e, &o, 0.5, 0).concat()[1].returns, [1.5, 2.0]);
        // RLOO: 3 - beta 3 against 1 - 3 beta for two others, so beta cancels where all drift alike.
        e.reference[1] = vec![-1.0, -2.0];
        let of = |beta| units(&e, &options(PolicyMethod::Rloo), beta, 0).concat()[1].advantages[0];
        assert_eq!((of(0.0), of(1.0)), (2.0, 5.0));
    }
}
