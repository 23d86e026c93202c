//! policy -> evaluation: its figures on held-out prompts.

use std::path::{Path, PathBuf};

use gainsay_core::engine::{Decoding, LogProb, RewardFn, SampleRequest, Sampler};
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_core::stats::mean;

use super::sample::sample;
use super::score::{Scorers, items, score};
use crate::error::{Error, Result};
use crate::evaluation::measure;
use crate::evaluation::{Evaluation, Everyday, PromptMetrics};
use crate::interrupt;
use crate::progress::{Figures, Progress};

/// A policy that samples and scores.
pub trait Policy: Sampler + LogProb {}

impl<T: Sampler + LogProb> Policy for T {}

/// What evaluations that are compared share.
pub struct Setting<'a> {
    /// Held-out prompts.
    pub prompts: PathBuf,
    /// The base policy: PACS's log-probs and the KL are against it.
    pub base: &'a dyn LogProb,
    /// The reward model that is under test.
    pub reward: Option<&'a dyn RewardFn>,
    /// The trusted reward.
    pub gold: &'a dyn RewardFn,
    /// Completions a prompt.
    pub n: usize,
    /// Completions a prompt at temperature 1, for the KL.
    pub kl_n: usize,
    /// Prompts with answers whose log-probs training should leave as they are.
    pub everyday: Option<Vec<PromptRecord>>,
    /// How completions are sampled.
    pub decoding: Decoding,
}

/// The policy that is evaluated.
pub struct Subject<'a> {
    /// `base`, or the arm's name.
    pub arm: String,
    /// Round after which it stood.
    pub round: u32,
    /// The policy.
    pub policy: &'a dyn Policy,
    /// It is the base policy itself: its KL is 0 by definition.
    pub is_base: bool,
}

/// Evaluates a policy; writes `rollouts.jsonl` and `evaluation.json` into `dir`.
///
/// `base_rollouts`: the base policy's completions of the same prompts with gold rewards: the win
/// rate is against them, and the reward model's accuracy is measured on them. Without them the
/// accuracy is measured on the policy's own completions and there is no win rate.
///
/// # Errors
/// What sampling, scoring or writing reports, or Ctrl-C.
pub fn evaluate(
    setting: &Setting<'_>,
    subject: &Subject<'_>,
    base_rollouts: Option<&[PromptRecord]>,
    dir: &Path,
) -> Result<Figures> {
    let [sampled, rollouts] = ["sampled.jsonl", "rollouts.jsonl"].map(|name| dir.join(name));
    let mut figures = Figures::default();
    if !rollouts.exists() {
        let sampling = sample(subject.policy, &setting.prompts, &sampled, setting.n, &setting.decoding)?;
        let policy = (!subject.is_base).then_some(setting.base);
        let scorers = Scorers { policy, reward: setting.reward, gold: Some(setting.gold), features: None };
        let scoring = score(scorers, &sampled, &rollouts)?;
        figures = Figures::of("evaluate", sampling.tokens + scoring.tokens, sampling.seconds + scoring.seconds);
    }
    if sampled.exists() {
        std::fs::remove_file(&sampled).map_err(|e| Error::Run(format!("{}: {e}", sampled.display())))?;
    }
    let records: Vec<PromptRecord> = files::read_all(&rollouts)?;
    let mut per_prompt: Vec<PromptMetrics> = records
        .iter()
        .map(|record| measure::prompt_metrics(record, base_rollouts.and_then(|all| same_prompt(all, record))))
        .collect();
    add_kl(setting, subject, &records, &mut per_prompt)?;
    add_accuracy(setting, base_rollouts.unwrap_or(&records), &mut per_prompt)?;
    let everyday =
        setting.everyday.as_deref().map(|answers| everyday(setting, subject, answers)).transpose()?.flatten();
    let evaluation = summarize(setting, subject, base_rollouts.is_some(), everyday, per_prompt);
    crate::run::directory::write_json(&dir.join("evaluation.json"), &evaluation)?;
    Ok(figures)
}

fn same_prompt<'a>(all: &'a [PromptRecord], record: &PromptRecord) -> Option<&'a PromptRecord> {
    all.iter().find(|other| other.id == record.id)
}

/// KL(policy || base) and entropy a prompt: completions of the policy at temperature 1 without cuts;
/// k3 summed over tokens, averaged over completions; -logp averaged over tokens.
fn add_kl(
    setting: &Setting<'_>,
    subject: &Subject<'_>,
    records: &[PromptRecord],
    per_prompt: &mut [PromptMetrics],
) -> Result<()> {
    let decoding =
        Decoding { temperature: 1.0, top_k: 0, top_p: 1.0, purpose: "kl".into(), ..setting.decoding.clone() };
    let mut progress = Progress::new("KL", records.len() as u64, "prompts");
    for (chunk, metrics) in records.chunks(32).zip(per_prompt.chunks_mut(32)) {
        interrupt::check()?;
        let requests: Vec<SampleRequest> = chunk
            .iter()
            .map(|r| SampleRequest { id: r.id.clone(), prompt: r.prompt.clone(), n: setting.kl_n })
            .collect();
        let sampled = subject.policy.sample(&requests, &decoding)?;
        let sampled: Vec<PromptRecord> = chunk
            .iter()
            .zip(sampled)
            .map(|(record, completions)| PromptRecord { completions, ..record.clone() })
            .collect();
        for (record, metrics) in sampled.iter().zip(metrics.iter_mut()) {
            let tokens = record.completions.iter().flat_map(|c| c.token_logps.iter().flatten());
            metrics.entropy = mean(&tokens.map(|logp| -f64::from(*logp)).collect::<Vec<_>>());
        }
        if subject.is_base {
            metrics.iter_mut().for_each(|metrics| metrics.kl = Some(0.0));
            progress.advance(chunk.len() as u64, 0);
            continue;
        }
        let mut base = setting.base.logps(&items(&sampled))?.into_iter();
        for (record, metrics) in sampled.iter().zip(metrics) {
            let kls: Vec<f64> = record
                .completions
                .iter()
                .zip(base.by_ref())
                .filter_map(|(c, base)| Some(measure::sequence_kl(c.token_logps.as_deref()?, &base.token_logps)))
                .collect();
            metrics.kl = mean(&kls);
        }
        progress.advance(chunk.len() as u64, 0);
    }
    progress.finish();
    Ok(())
}

/// How likely the policy and the base find given answers.
fn everyday(setting: &Setting<'_>, subject: &Subject<'_>, records: &[PromptRecord]) -> Result<Option<Everyday>> {
    let (mut answers, mut by_prompt) = (0, Vec::new());
    for chunk in records.chunks(32) {
        interrupt::check()?;
        let items = items(chunk);
        let policy = subject.policy.logps(&items)?;
        let base = if subject.is_base { policy.clone() } else { setting.base.logps(&items)? };
        let per_token = |logps: &[f32]| mean(&logps.iter().map(|l| f64::from(*l)).collect::<Vec<_>>());
        let mut pairs =
            policy.iter().zip(&base).map(|(p, b)| Some((per_token(&p.token_logps)?, per_token(&b.token_logps)?)));
        for record in chunk {
            let own: Vec<(f64, f64)> = pairs.by_ref().take(record.completions.len()).flatten().collect();
            answers += own.len();
            let (policy, base): (Vec<f64>, Vec<f64>) = own.into_iter().unzip();
            by_prompt.extend(mean(&policy).zip(mean(&base)));
        }
    }
    Ok(measure::everyday(answers, &by_prompt, setting.decoding.seed))
}

/// The reward model's accuracy a prompt, over the pairs of a common pool with different gold.
fn add_accuracy(setting: &Setting<'_>, pool: &[PromptRecord], per_prompt: &mut [PromptMetrics]) -> Result<()> {
    let Some(reward) = setting.reward else { return Ok(()) };
    let mut rewards = reward.rewards(&items(pool))?.into_iter();
    for record in pool {
        let ours: Vec<f64> = rewards.by_ref().take(record.completions.len()).collect();
        let gold: Option<Vec<f64>> = record.completions.iter().map(|c| c.gold).collect();
        if let Some(metrics) = per_prompt.iter_mut().find(|m| m.id == record.id) {
            metrics.reward_accuracy = gold.and_then(|gold| measure::pair_accuracy(&ours, &gold));
        }
    }
    Ok(())
}

fn summarize(
    setting: &Setting<'_>,
    subject: &Subject<'_>,
    has_base: bool,
    everyday: Option<Everyday>,
    per_prompt: Vec<PromptMetrics>,
) -> Evaluation {
    Evaluation {
        schema: 1,
        arm: subject.arm.clone(),
        round: subject.round,
        policy: Sampler::identity(subject.policy),
        reward_model: setting.reward.map(RewardFn::identity),
        gold: setting.gold.identity(),
        against: has_base.then(|| setting.base.identity()),
        prompts: per_prompt.len(),
        completions_per_prompt: setting.n,
        temperature: setting.decoding.temperature,
        everyday,
        metrics: measure::metrics(&per_prompt, setting.decoding.seed),
        per_prompt,
    }
}
