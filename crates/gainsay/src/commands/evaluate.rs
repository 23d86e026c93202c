//! `gainsay evaluate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gainsay_core::engine::{LogProb, RewardFn, Sampler};
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_lm::model::Model;
use gainsay_lm::policy::LocalPolicy;
use gainsay_lm::sequence::Settings;
use tempfile::TempDir;

use super::{decoding, ecosystem, print, print_json, to_json};
use crate::cli;
use crate::error::{Error, Result};
use crate::evaluation::{Difference, Evaluation, measure, render_differences};
use crate::inputs;
use crate::models::{self, AnyPolicy, ModelOptions};
use crate::recipes::evaluate::{Setting, Subject, evaluate};
use crate::run::{self, directory::remove_folder};

/// Names of the two policies in paired differences.
const POLICY: &str = "policy";
const BASE: &str = "base";

pub(super) fn evaluate_command(args: &cli::EvaluateArgs) -> Result<()> {
    models::prepare(&args.model)?;
    if let Some(file) = &args.rewardbench {
        return ecosystem::rewardbench(args, file);
    }
    let (Some(spec), Some(prompts), Some(gold)) = (&args.policy, &args.prompts, &args.gold) else {
        return Err(Error::Input(
            "evaluate needs --policy, --prompts and --gold, or --rewardbench and --reward".into(),
        ));
    };
    let options = ModelOptions { dtype: args.model.dtype, ..ModelOptions::default() };
    let policy = models::any_policy(spec, &options)?;
    let known_base = match &args.against {
        Some(against) => Some(models::any_policy(against, &options)?),
        None => base_of_adapter(&policy, spec)?,
    };
    if known_base.is_none() && args.everyday != "none" {
        return Err(Error::Input(format!(
            "--everyday compares {spec} with the policy it was tuned from: name that one with --against"
        )));
    }
    let reward = args.reward.as_deref().map(|spec| models::reward_fn(spec, &options)).transpose()?;
    let gold = models::reward_fn(gold, &options)?;
    let setting = Setting {
        prompts: inputs::local(prompts)?,
        base: known_base.as_ref().unwrap_or(&policy),
        reward: reward.as_deref(),
        gold: gold.as_ref(),
        n: args.decoding.n,
        kl_n: args.kl_n,
        everyday: run::prompts::everyday(&args.everyday)?,
        decoding: decoding(&args.decoding, args.seed, false, "evaluate"),
    };
    let against = known_base.as_ref().filter(|_| args.against.is_some());
    let work = Workplace::open(args.out.as_deref(), &identity_of(&setting, &policy, against, args)?)?;
    let (mut evaluation, differences) = measured(&setting, &policy, against, work.dir())?;
    if known_base.is_none() {
        eprintln!("the base policy is not known: KL and conflict with it are left out; name it with --against");
        evaluation.forget_base();
    }
    tell(args, &evaluation, &differences)?;
    work.close()
}

/// Where completions are kept while an evaluation is under way.
enum Workplace {
    /// Beside the file to write: after a kill the same command goes on from there.
    Kept(PathBuf),
    /// Nowhere in particular.
    Passing(TempDir),
}

impl Workplace {
    /// `<out>.evaluation`, emptied where another evaluation had begun there.
    fn open(out: Option<&Path>, identity: &str) -> Result<Self> {
        let Some(out) = out else {
            let passing = tempfile::tempdir().map_err(|e| Error::Run(format!("no temporary folder: {e}")))?;
            return Ok(Self::Passing(passing));
        };
        let dir = models::beside(out, ".evaluation");
        let mark = dir.join("identity.txt");
        if std::fs::read_to_string(&mark).ok().as_deref() != Some(identity) {
            remove_folder(&dir)?;
            files::write_atomic(&mark, identity.as_bytes())?;
        }
        Ok(Self::Kept(dir))
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Passing(dir) => dir.path(),
        }
    }

    fn close(self) -> Result<()> {
        match self {
            Self::Kept(dir) => remove_folder(&dir),
            Self::Passing(_) => Ok(()),
        }
    }
}

/// All that an evaluation's completions and rewards depend on.
fn identity_of(
    setting: &Setting<'_>,
    policy: &AnyPolicy,
    against: Option<&AnyPolicy>,
    args: &cli::EvaluateArgs,
) -> Result<String> {
    let models = [
        Sampler::identity(policy),
        against.map(Sampler::identity).unwrap_or_default(),
        LogProb::identity(setting.base),
        setting.reward.map(RewardFn::identity).unwrap_or_default(),
        setting.gold.identity(),
    ];
    let prompts = run::directory::file_digest(&setting.prompts)?;
    Ok(format!("{}\n{prompts}\n{} {:?} {}\n", models.join("\n"), setting.n, setting.decoding, args.model.dtype))
}

/// The model under a policy's adapter; `None` for a policy without one, and for a server.
fn base_of_adapter(policy: &AnyPolicy, spec: &str) -> Result<Option<AnyPolicy>> {
    let AnyPolicy::Local(tuned) = policy else { return Ok(None) };
    if tuned.model().adapter.is_none() {
        return Ok(None);
    }
    let model = Model::new(tuned.model().backbone.clone(), None);
    let tokenizer = Arc::new(gainsay_lm::source::tokenizer(spec)?);
    let identity = format!("base of {}", tuned.identity());
    Ok(Some(AnyPolicy::Local(Box::new(LocalPolicy::from_parts(model, tokenizer, identity, Settings::default())))))
}

/// The policy's figures, and where a policy to compare with is named, their paired differences.
fn measured(
    setting: &Setting<'_>,
    policy: &AnyPolicy,
    against: Option<&AnyPolicy>,
    work: &Path,
) -> Result<(Evaluation, Vec<Difference>)> {
    let dir = |name: &str| work.join(name);
    let figures = |name: &str| run::read_json::<Evaluation>(&dir(name).join("evaluation.json"));
    let base_rollouts: Option<Vec<PromptRecord>> = match against {
        None => None,
        Some(base) => {
            let subject = Subject { arm: BASE.into(), round: 0, policy: base, is_base: true };
            evaluate(setting, &subject, None, &dir(BASE))?;
            Some(files::read_all(dir(BASE).join("rollouts.jsonl"))?)
        }
    };
    let is_base = LogProb::identity(setting.base) == Sampler::identity(policy);
    let subject = Subject { arm: POLICY.into(), round: 0, policy, is_base };
    evaluate(setting, &subject, base_rollouts.as_deref(), &dir(POLICY))?;
    let evaluation = figures(POLICY)?;
    let differences = match against {
        None => Vec::new(),
        Some(_) => differences(&evaluation, &figures(BASE)?, setting.decoding.seed),
    };
    Ok((evaluation, differences))
}

/// Policy less base by prompt. The KL is a difference itself, and the reward's accuracy is measured
/// on the base policy's completions for both.
fn differences(policy: &Evaluation, base: &Evaluation, seed: u64) -> Vec<Difference> {
    let mut found = measure::differences((POLICY, &policy.per_prompt), (BASE, &base.per_prompt), seed);
    found.retain(|d| d.metric != "kl" && d.metric != "reward_accuracy");
    found
}

fn tell(args: &cli::EvaluateArgs, evaluation: &Evaluation, differences: &[Difference]) -> Result<()> {
    let mut value = to_json(evaluation)?;
    if !differences.is_empty() {
        value["differences"] = to_json(&differences)?;
    }
    if let Some(out) = &args.out {
        run::directory::write_json(out, &value)?;
    }
    match args.json {
        true => print_json(&value),
        false => print(&(evaluation.render() + &render_differences(differences))),
    }
}
