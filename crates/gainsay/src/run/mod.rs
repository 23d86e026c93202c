//! The whole loop, round after round, in one run directory.
//!
//! prompts -> rollouts -> proxy -> scored -> conflicts -> per arm: selection -> preferences ->
//! refined reward model -> tuned policy -> evaluation; then the comparison and the report. Each
//! stage reads files and writes files; a stage whose last file is there is not run again.

mod arm;
mod check;
pub mod cost;
pub mod demo;
pub mod directory;
pub mod inputs;
pub mod prompts;
pub mod recipe;
pub mod slice;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use gainsay_core::conflict::ConflictOptions;
use gainsay_core::engine::{Decoding, RewardFn};
use gainsay_core::files;
use gainsay_core::oracle::Noise;
use gainsay_core::record::PromptRecord;
use gainsay_lm::policy::LocalPolicy;

use crate::cli::Device;
use crate::error::{Error, Result};
use crate::evaluation::{Difference, Evaluation, measure};
use crate::models::{self, AnyReward, ModelOptions};
use crate::progress::Figures;
use crate::recipes::evaluate::{Subject, evaluate};
use crate::recipes::feedback;
use crate::recipes::score::{Features, Scorers, score};
use crate::recipes::{conflicts, sample, train_reward, validate};
use directory::{RunDirectory, file_digest, write_json, write_report};
use recipe::Recipe;

/// Numbers a completion, for strategies that read features.
const FEATURES: usize = 32;

/// The gold reward model that ships with the project.
const BUILTIN_GOLD: [(&str, &[u8]); 3] = [
    ("adapter_config.json", include_bytes!("../../../../data/gold/adapter_config.json")),
    ("adapter_model.safetensors", include_bytes!("../../../../data/gold/adapter_model.safetensors")),
    ("gainsay.json", include_bytes!("../../../../data/gold/gainsay.json")),
];

/// Runs a recipe in a directory, or goes on with the run that is there. Returns the report's path.
///
/// # Errors
/// A directory of another recipe, what a stage reports, Ctrl-C.
pub fn run(recipe: &Recipe, root: &Path, threads: usize, device: Device) -> Result<PathBuf> {
    inputs::check(recipe)?;
    let run = Run { recipe, dir: RunDirectory::open(root, recipe)?, base: OnceCell::new(), gold: OnceCell::new() };
    run.inputs(threads, device)?;
    run.first_rollouts()?;
    run.proxy()?;
    run.pool(1, None, &run.proxy_spec())?;
    run.base_evaluation()?;
    for round in 1..=recipe.rounds {
        for strategy in &recipe.select.strategies {
            run.arm(round, strategy)?;
        }
    }
    run.comparison()?;
    if let Some(gold) = run.gold.get() {
        gold.forget();
    }
    crate::report::write(root).map_err(|e| Error::Run(e.to_string()))
}

/// One run: the recipe, its directory, and the models that every stage shares.
struct Run<'a> {
    recipe: &'a Recipe,
    dir: RunDirectory,
    base: OnceCell<LocalPolicy>,
    gold: OnceCell<AnyReward>,
}

impl Run<'_> {
    fn model_options(&self) -> ModelOptions {
        ModelOptions { dtype: self.recipe.dtype, ..ModelOptions::default() }
    }

    /// The base policy, loaded when first needed.
    fn base(&self) -> Result<&LocalPolicy> {
        if self.base.get().is_none() {
            let loaded = models::policy(&self.recipe.policy, &self.model_options())?;
            let _ = self.base.set(loaded);
        }
        self.base.get().ok_or_else(|| Error::Run("the base policy is not loaded".into()))
    }

    /// The gold reward, loaded when first needed.
    fn gold(&self) -> Result<&dyn RewardFn> {
        if self.gold.get().is_none() {
            // What a server answered before a kill is not asked again.
            let options = ModelOptions { answers: Some(self.dir.path("gold.answers")), ..self.model_options() };
            let _ = self.gold.set(models::any_reward(&self.gold_spec()?, &options)?);
        }
        let known = self.gold.get().ok_or_else(|| Error::Run("the gold reward is not loaded".into()))?;
        Ok(known)
    }

    /// The gold reward's name; the built-in model is laid into the run directory.
    fn gold_spec(&self) -> Result<String> {
        if self.recipe.gold != "builtin" {
            return Ok(self.recipe.gold.clone());
        }
        let folder = self.dir.path("gold");
        for (name, bytes) in BUILTIN_GOLD {
            let path = folder.join(name);
            if !path.exists() {
                files::write_atomic(&path, bytes)?;
            }
        }
        Ok(folder.display().to_string())
    }

    /// Prompts and the manifest.
    fn inputs(&self, threads: usize, device: Device) -> Result<()> {
        let (train, heldout) = (self.dir.path("prompts.jsonl"), self.dir.path("heldout.jsonl"));
        self.dir.stage("prompts", &heldout, || {
            let (train_records, heldout_records) = prompts::split(self.recipe)?;
            files::write_all(&train, &train_records)?;
            files::write_all(&heldout, &heldout_records)?;
            Ok(Figures::default())
        })?;
        let manifest = self.dir.path("manifest.json");
        self.dir.stage("models", &manifest, || {
            let models = [
                ("policy".to_string(), LocalPolicy::identity(self.base()?).to_string()),
                ("gold".to_string(), self.gold()?.identity()),
            ];
            let inputs = [
                ("prompts.jsonl".to_string(), file_digest(&train)?),
                ("heldout.jsonl".to_string(), file_digest(&heldout)?),
            ];
            self.dir.write_manifest(self.recipe, (threads, device), &models, &inputs)?;
            Ok(Figures::default())
        })
    }

    /// The pool of a round: shared by all arms in the first, an arm's own afterwards.
    fn pool_dir(&self, round: u32, arm: Option<&str>) -> PathBuf {
        match arm {
            Some(arm) if round > 1 => self.dir.path(format!("round-{round}/{arm}/pool")),
            _ => self.dir.path(format!("round-{round}/pool")),
        }
    }

    fn decoding(&self, purpose: &str, round: u32) -> Decoding {
        Decoding {
            temperature: self.recipe.sample.temperature,
            max_new_tokens: self.recipe.sample.max_new_tokens,
            seed: self.recipe.seed,
            purpose: purpose.into(),
            round,
            ..Decoding::default()
        }
    }

    /// The base policy's completions of the training prompts.
    fn first_rollouts(&self) -> Result<()> {
        let out = self.pool_dir(1, None).join("rollouts.jsonl");
        self.dir.stage("round 1: sample", &out, || {
            let decoding = self.decoding("rollout", 1);
            sample::sample(self.base()?, &self.dir.path("prompts.jsonl"), &out, self.recipe.sample.n, &decoding)
        })
    }

    /// The proxy reward model as a model name.
    fn proxy_spec(&self) -> String {
        let trained = || self.dir.path("proxy/model").display().to_string();
        self.recipe.proxy.model.clone().unwrap_or_else(trained)
    }

    /// The preferences that the proxy learned from, where they are known.
    fn proxy_preferences(&self) -> Option<PathBuf> {
        let path = self.dir.path("proxy/preferences.jsonl");
        path.exists().then_some(path)
    }

    /// Trains the proxy from the user's preferences or from the biased, noisy slice of the pool.
    fn proxy(&self) -> Result<()> {
        if self.recipe.proxy.model.is_some() {
            return Ok(());
        }
        let preferences = self.dir.path("proxy/preferences.jsonl");
        self.dir.stage("proxy: labels", &preferences, || {
            if let Some(file) = &self.recipe.proxy.preferences {
                files::write_all(&preferences, &files::read_preferences(Path::new(file))?)?;
                return Ok(Figures::default());
            }
            let records: Vec<PromptRecord> = files::read_all(self.pool_dir(1, None).join("rollouts.jsonl"))?;
            let pairs = slice::draw(&records, &self.recipe.proxy, self.recipe.seed)?;
            let noise = Noise::Flip(self.recipe.proxy.flip);
            feedback::ask_gold(self.gold()?, &pairs, noise, self.recipe.seed, &preferences)
        })?;
        let model = self.dir.path("proxy/model");
        self.dir.stage("proxy: train", &self.dir.path("proxy/train.json"), || {
            let options = train_reward::Options::of_recipe(self.recipe);
            let report = self.dir.path("proxy/train.json");
            train_reward::train_reward(
                &self.recipe.policy,
                std::slice::from_ref(&preferences),
                &model,
                Some(&report),
                &options,
            )
            .map(|done| done.figures)
        })
    }

    /// Scores a round's rollouts, measures the conflict, and checks whether it finds mistakes.
    fn pool(&self, round: u32, arm: Option<&str>, reward_spec: &str) -> Result<()> {
        let dir = self.pool_dir(round, arm);
        let [rollouts, scored, conflicted] =
            ["rollouts.jsonl", "scored.jsonl", "conflicts.jsonl"].map(|name| dir.join(name));
        self.dir.stage(&format!("round {round}: score"), &scored, || {
            let reward = models::reward(reward_spec, &self.model_options())?;
            let base = (round > 1).then(|| self.base()).transpose()?;
            let features = |()| -> Result<Features> {
                let model = models::features(&self.recipe.policy, &self.model_options())?;
                Ok(Features { model, size: FEATURES })
            };
            let features = self.recipe.reads_features().then_some(()).map(features).transpose()?;
            let scorers = Scorers {
                policy: base.map(|base| base as &dyn gainsay_core::engine::LogProb),
                reward: Some(&reward),
                gold: Some(self.gold()?),
                features: features.as_ref(),
            };
            score(scorers, &rollouts, &scored)
        })?;
        let summary = dir.join("conflicts.json");
        self.dir.stage(&format!("round {round}: conflicts"), &summary, || {
            let found = conflicts::conflicts(&scored, Some(&conflicted), &ConflictOptions::default(), 0, None)?;
            write_report(&summary, &found.summary)?;
            Ok(Figures::default())
        })?;
        let validation = dir.join("validate.json");
        self.dir.stage(&format!("round {round}: validate"), &validation, || {
            write_report(
                &validation,
                &validate::validate(&conflicted, &ConflictOptions::default(), self.recipe.seed)?,
            )?;
            Ok(Figures::default())
        })
    }

    /// The base policy on the held-out prompts: what every arm is compared with.
    fn base_evaluation(&self) -> Result<()> {
        let out = self.dir.path("base/evaluation.json");
        self.dir.stage("evaluate the base policy", &out, || {
            let reward = models::reward(&self.proxy_spec(), &self.model_options())?;
            let subject = Subject { arm: "base".into(), round: 0, policy: self.base()?, is_base: true };
            evaluate(&self.evaluation_setting(&reward)?, &subject, None, &self.dir.path("base"))
        })
    }

    /// Paired differences of each arm's last policy against the base policy, and between arms.
    fn comparison(&self) -> Result<()> {
        let out = self.dir.path("comparison.json");
        self.dir.stage("compare", &out, || {
            let last = self.recipe.rounds;
            let mut evaluations: Vec<Evaluation> = vec![read_json(&self.dir.path("base/evaluation.json"))?];
            for arm in &self.recipe.select.strategies {
                evaluations.push(read_json(&self.dir.path(format!("round-{last}/{arm}/evaluation.json")))?);
            }
            let mut found: Vec<Difference> = Vec::new();
            for (index, b) in evaluations.iter().enumerate() {
                for a in &evaluations[index + 1..] {
                    let (a, b) = if index == 0 { (a, b) } else { (b, a) };
                    let (a, b) = ((a.arm.as_str(), &a.per_prompt[..]), (b.arm.as_str(), &b.per_prompt[..]));
                    found.extend(measure::differences(a, b, self.recipe.seed));
                }
            }
            write_json(&out, &found)?;
            Ok(Figures::default())
        })
    }
}

/// Reads a JSON file that an earlier stage wrote.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let fault = |what: String| Error::Run(format!("{}: {what}; remove it and run again", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fault(format!("cannot be read: {e}")))?;
    serde_json::from_str(&text).map_err(|e| fault(format!("is damaged: {e}")))
}
