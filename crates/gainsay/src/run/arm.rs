//! One arm of a round: a selection strategy, its labels, the models that come out of them.

use std::path::PathBuf;

use gainsay_core::engine::RewardFn;
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_core::select::SelectOptions;
use gainsay_lm::train::checkpoint::training_dir;

use super::Run;
use super::directory::remove_folder;
use super::recipe::RewardStart;
use crate::error::{Error, Result};
use crate::models;
use crate::recipes::evaluate::{Setting, Subject, evaluate};
use crate::recipes::feedback;
use crate::recipes::train_policy::Heldout;
use crate::recipes::{judge, sample, select, train_policy, train_reward};

impl Run<'_> {
    /// Selects, asks, refines the reward model, tunes the policy and evaluates it.
    pub(super) fn arm(&self, round: u32, strategy: &str) -> Result<()> {
        if round > 1 {
            self.later_pool(round, strategy)?;
        }
        self.select(round, strategy)?;
        self.ask(round, strategy)?;
        self.refine(round, strategy)?;
        self.tune(round, strategy)?;
        self.evaluate_arm(round, strategy)
    }

    fn arm_file(&self, round: u32, arm: &str, name: &str) -> PathBuf {
        self.dir.path(format!("round-{round}/{arm}/{name}"))
    }

    /// The policy that an arm's round ends with, as a model name.
    fn tuned_spec(&self, round: u32, arm: &str) -> String {
        if self.recipe.tune.method == "none" {
            return self.recipe.policy.clone();
        }
        self.arm_file(round, arm, "policy").display().to_string()
    }

    /// From the second round on an arm's own policy samples, and its own reward model scores.
    fn later_pool(&self, round: u32, arm: &str) -> Result<()> {
        let out = self.pool_dir(round, Some(arm)).join("rollouts.jsonl");
        self.dir.stage(&format!("round {round}, {arm}: sample"), &out, || {
            let policy = models::policy(&self.tuned_spec(round - 1, arm), &self.model_options())?;
            let decoding = self.decoding("rollout", round);
            sample::sample(&policy, &self.dir.path("prompts.jsonl"), &out, self.recipe.sample.n, &decoding)
        })?;
        let reward = self.arm_file(round - 1, arm, "reward");
        self.pool(round, Some(arm), &reward.display().to_string())
    }

    fn select(&self, round: u32, arm: &str) -> Result<()> {
        let out = self.arm_file(round, arm, "selection.jsonl");
        self.dir.stage(&format!("round {round}, {arm}: select"), &out, || {
            let wanted = &self.recipe.select;
            let options = SelectOptions {
                tau_k: wanted.tau_k,
                delta: wanted.delta,
                pairs: wanted.pairs.parse().map_err(Error::Input)?,
                seed: self.recipe.seed,
                round,
                ..SelectOptions::new(arm.parse().map_err(Error::Input)?, wanted.budget)
            };
            let input = self.pool_dir(round, Some(arm)).join("conflicts.jsonl");
            // Completions are new in later rounds, so only the first can meet the proxy's pairs.
            let known = if round == 1 { self.proxy_preferences().into_iter().collect() } else { vec![] };
            select::select(&input, &out, &options, &known).map(|(_, figures)| figures)
        })
    }

    fn ask(&self, round: u32, arm: &str) -> Result<()> {
        let out = self.arm_file(round, arm, "preferences.jsonl");
        self.dir.stage(&format!("round {round}, {arm}: feedback"), &out, || {
            let selection = files::read_all(self.arm_file(round, arm, "selection.jsonl"))?;
            let noise = feedback::noise(self.recipe.feedback.noise.as_deref())?;
            let oracle = self.recipe.feedback.oracle.as_str();
            if let Some(url) = oracle.strip_prefix("judge:") {
                let (summary, figures) = judge::ask(url, &selection, &out)?;
                eprint!("{}", summary.render());
                return Ok(figures);
            }
            match oracle {
                "web" => {
                    let db = self.arm_file(round, arm, "annotations.db");
                    let started = std::time::Instant::now();
                    let title = format!("Round {round}, {arm}");
                    crate::recipes::annotate::ask_people(selection, &db, &out, &title)?;
                    Ok(crate::progress::Figures::of("feedback", 0, started.elapsed().as_secs_f64()))
                }
                "labels" => feedback::read_labels(&selection, noise, self.recipe.seed, &out),
                _ => feedback::ask_gold(self.gold()?, &selection, noise, self.recipe.seed, &out),
            }
        })
    }

    /// Trains the reward model on the round's answers and, at their own weight, the pairs from before.
    fn refine(&self, round: u32, arm: &str) -> Result<()> {
        let report = self.arm_file(round, arm, "reward-train.json");
        self.dir.stage(&format!("round {round}, {arm}: refine the reward model"), &report, || {
            let answers = |r| self.arm_file(r, arm, "preferences.jsonl");
            let mut options = train_reward::Options::of_recipe(self.recipe);
            if options.old_weight > 0.0 {
                options.old = self.proxy_preferences().into_iter().chain((1..round).map(answers)).collect();
            }
            let out = self.arm_file(round, arm, "reward");
            train_reward::train_reward(&self.refined_from(round, arm), &[answers(round)], &out, Some(&report), &options)
                .map(|done| done.figures)
        })
    }

    /// Where a round's reward model starts. A proxy whose pairs are not known cannot be trained again
    /// from the base.
    fn refined_from(&self, round: u32, arm: &str) -> String {
        match self.recipe.reward.start {
            RewardStart::Base if self.proxy_preferences().is_some() => self.recipe.policy.clone(),
            RewardStart::Current if round > 1 => self.arm_file(round - 1, arm, "reward").display().to_string(),
            RewardStart::Base | RewardStart::Current => self.proxy_spec(),
        }
    }

    fn tune(&self, round: u32, arm: &str) -> Result<()> {
        if self.recipe.tune.method == "none" {
            return Ok(());
        }
        let log = self.arm_file(round, arm, "policy-train.jsonl");
        let out = self.arm_file(round, arm, "policy");
        self.dir.stage(&format!("round {round}, {arm}: tune the policy"), &log, || {
            let start = if round == 1 { self.recipe.policy.clone() } else { self.tuned_spec(round - 1, arm) };
            let reward_spec = self.arm_file(round, arm, "reward").display().to_string();
            let reward = models::reward(&reward_spec, &self.model_options())?;
            let prompts: Vec<PromptRecord> = files::read_all(self.dir.path("prompts.jsonl"))?;
            let options = train_policy::Options::of_recipe(self.recipe, round)?;
            let heldout = self.looks()?;
            train_policy::train_policy(&start, &reward, &prompts, heldout.as_ref(), &out, Some(&log), &options)
                .map(|(figures, _)| figures)
        })?;
        // Also where a kill came between the stage's last file and this.
        clear_checkpoints(&out)
    }

    /// The held-out prompts that a training looks at. It is not stopped by them: they measure its result.
    fn looks(&self) -> Result<Option<Heldout<'_>>> {
        if self.recipe.tune.look_every == 0 {
            return Ok(None);
        }
        let prompts = files::read_all(self.dir.path("heldout.jsonl"))?;
        Ok(Some(Heldout { prompts, gold: Some(self.gold()?), every: self.recipe.tune.look_every, patience: 0 }))
    }

    fn evaluate_arm(&self, round: u32, arm: &str) -> Result<()> {
        let out = self.arm_file(round, arm, "evaluation.json");
        self.dir.stage(&format!("round {round}, {arm}: evaluate"), &out, || {
            let reward_spec = self.arm_file(round, arm, "reward").display().to_string();
            let reward = models::reward(&reward_spec, &self.model_options())?;
            let policy = models::policy(&self.tuned_spec(round, arm), &self.model_options())?;
            let is_base = policy.identity() == self.base()?.identity();
            let subject = Subject { arm: arm.into(), round, policy: &policy, is_base };
            let base: Vec<PromptRecord> = files::read_all(self.dir.path("base/rollouts.jsonl"))?;
            let folder = self.dir.path(format!("round-{round}/{arm}"));
            evaluate(&self.evaluation_setting(&reward)?, &subject, Some(&base), &folder)
        })
    }

    /// What all evaluations of this run share.
    pub(super) fn evaluation_setting<'s>(&'s self, reward: &'s dyn RewardFn) -> Result<Setting<'s>> {
        Ok(Setting {
            prompts: self.dir.path("heldout.jsonl"),
            base: self.base()?,
            reward: Some(reward),
            gold: self.gold()?,
            n: self.recipe.evaluate.n,
            kl_n: self.recipe.evaluate.kl_n,
            everyday: super::prompts::everyday(&self.recipe.evaluate.everyday)?,
            decoding: self.decoding("evaluate", 0),
        })
    }
}

/// Removes what a finished training kept to go on from after a kill.
fn clear_checkpoints(out: &std::path::Path) -> Result<()> {
    remove_folder(&training_dir(out))
}
