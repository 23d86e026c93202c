//! `gainsay train policy` and `gainsay train sft`.

use clap::Parser as _;
use gainsay_core::files;
use gainsay_core::record::PromptRecord;
use gainsay_lm::train::{Objective, PolicyMethod, Shaping};
use serde_json::json;

use super::{print, print_figures};
use crate::cli;
use crate::error::{Error, Result};
use crate::evaluation::curve::{Curve, Point};
use crate::models::{self, ModelOptions};
use crate::recipes::{train_offline, train_policy};

pub(super) fn policy(args: &cli::TrainPolicyArgs) -> Result<()> {
    models::prepare(&args.model_args)?;
    let method = train_policy::method(&args.method)?;
    if !args.input.is_empty() {
        return from_preferences(args, method);
    }
    let (Some(reward), Some(prompts)) = (&args.reward, &args.prompts) else {
        return Err(Error::Input("--reward and --prompts say what to learn; or --in with --method dpo".into()));
    };
    let (mut unread, usual) = (unread_by(args, method)?, usual()?);
    let of_pairs = [
        ("--heldout-share", args.heldout_share != usual.heldout_share),
        ("--max-tokens", args.max_tokens != usual.max_tokens),
    ];
    unread.extend(of_pairs.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag)));
    if !unread.is_empty() {
        return Err(Error::Input(format!(
            "--method {} without --in does not read {}: leave it out",
            args.method,
            unread.join(", ")
        )));
    }
    let options = train_policy::Options {
        method,
        reference: args.reference.map(Into::into),
        steps: args.steps,
        prompts: args.batch,
        k: args.k,
        epochs: args.epochs,
        minibatches: args.minibatches,
        lr: args.lr,
        beta: args.beta,
        target_kl: args.target_kl,
        kl_horizon: args.kl_horizon,
        gae: [args.gamma, args.gae_lambda],
        clip_ratio: args.clip_ratio,
        loss: args.loss.into(),
        rso_beta: args.rso_beta,
        whiten: args.whiten,
        shaping: Shaping {
            uncertainty: args.uncertainty,
            center: args.center_rewards,
            scale: args.scale_rewards,
            clip: args.clip_rewards,
        },
        stop_kl: args.stop_kl,
        temperature: args.temperature,
        max_new_tokens: args.max_new_tokens,
        lora: (&args.lora).into(),
        save_every: args.save_every,
        seed: args.seed,
        round: 0,
        dtype: args.model_args.dtype,
    };
    let model_options = ModelOptions { dtype: args.model_args.dtype, ..ModelOptions::default() };
    let reward = models::reward_fn(reward, &model_options)?;
    let gold = args.gold.as_deref().map(|spec| models::reward_fn(spec, &model_options)).transpose()?;
    let prompts: Vec<PromptRecord> = files::read_all(prompts)?;
    let heldout = args
        .heldout
        .as_ref()
        .map(|path| -> Result<_> {
            let prompts = files::read_all(path)?;
            let (every, patience) = (args.look_every, args.patience);
            Ok(train_policy::Heldout { prompts, gold: gold.as_deref(), every, patience })
        })
        .transpose()?;
    let (figures, done) = train_policy::train_policy(
        &args.policy,
        reward.as_ref(),
        &prompts,
        heldout.as_ref(),
        &args.out,
        None,
        &options,
    )?;
    let points: Option<Vec<Point>> =
        done.heldout.iter().map(|w| Some(Point { step: w.step, kl: w.kl, proxy: w.proxy, gold: w.gold? })).collect();
    let golds: Vec<&[f64]> = done.heldout.iter().map(|w| w.gold_by_prompt.as_slice()).collect();
    let curve = points.filter(|p| p.len() > 2).map(|points| Curve::of(points, &golds));
    if let (false, Some(curve)) = (args.json, &curve) {
        print(&curve.render())?;
    }
    let (first, last) = (done.steps.first(), done.steps.last());
    let more = json!({
        "out": args.out, "method": args.method, "steps": done.steps.len(), "ended": done.ended,
        "returned_step": done.returned_step, "heldout": done.heldout, "curve": curve,
        "first_step": first, "last_step": last,
    });
    print_figures(args.json, &figures, more)
}

fn from_preferences(args: &cli::TrainPolicyArgs, method: PolicyMethod) -> Result<()> {
    if method != PolicyMethod::Dpo {
        return Err(Error::Input(format!(
            "--in with --method {}: preferences are learned from with --method dpo",
            method.name()
        )));
    }
    let unread = unread_with_preferences(args)?;
    if !unread.is_empty() {
        return Err(Error::Input(format!(
            "--in learns from given pairs, without drawing completions, and does not read {}: leave it out, or give \
             --reward and --prompts instead of --in",
            unread.join(", ")
        )));
    }
    let reference = args.reference.map(Into::into).unwrap_or_default();
    let objective = Objective::Preference { loss: args.loss.into(), beta: args.beta.unwrap_or(0.1), reference };
    let options = train_offline::Options {
        objective,
        reference_is_open: args.reference.is_none(),
        full: false,
        epochs: args.epochs.unwrap_or(1),
        batch: args.batch,
        lr: Some(args.lr),
        lora: (&args.lora).into(),
        max_tokens: args.max_tokens,
        heldout: args.heldout_share,
        save_every: args.save_every,
        seed: args.seed,
        dtype: args.model_args.dtype,
    };
    let (figures, done) = train_offline::train_offline(&args.policy, &args.input, &args.out, &options)?;
    let more = json!({
        "out": args.out, "steps": done.steps.len(), "examples": done.examples, "heldout": done.heldout,
        "heldout_loss": done.heldout_loss, "last_step": done.steps.last(),
    });
    print_figures(args.json, &figures, more)
}

/// The options that were given another value than the default and that learning from preferences
/// does not read: ignored in silence they would let a user believe in them.
fn unread_with_preferences(args: &cli::TrainPolicyArgs) -> Result<Vec<&'static str>> {
    let usual = usual()?;
    let more = [
        ("--heldout", args.heldout.is_some()),
        ("--gold", args.gold.is_some()),
        ("--look-every", args.look_every != usual.look_every),
        ("--patience", args.patience != usual.patience),
        ("--stop-kl", args.stop_kl.is_some()),
        ("--temperature", args.temperature != usual.temperature),
        ("--max-new-tokens", args.max_new_tokens != usual.max_new_tokens),
        ("--minibatches", args.minibatches != usual.minibatches),
        ("--steps", args.steps != usual.steps),
        ("--samples", args.k != usual.k),
        ("--center-rewards", args.center_rewards),
        ("--scale-rewards", args.scale_rewards),
        ("--clip-rewards", args.clip_rewards != usual.clip_rewards),
        ("--uncertainty", args.uncertainty != usual.uncertainty),
    ];
    let given = more.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag));
    Ok(given.chain(unread_by(args, PolicyMethod::Dpo)?).collect())
}

/// The options of other methods that were given another value than the default.
fn unread_by(args: &cli::TrainPolicyArgs, method: PolicyMethod) -> Result<Vec<&'static str>> {
    use PolicyMethod::{Dpo, Grpo, Ppo, Rloo, Rso};
    let usual = usual()?;
    let read_by: [(&str, bool, &[PolicyMethod]); 10] = [
        ("--reference", args.reference.is_some(), &[Rloo, Ppo, Grpo, Dpo, Rso]),
        ("--beta", args.beta.is_some(), &[Rloo, Ppo, Grpo, Dpo, Rso]),
        ("--target-kl", args.target_kl.is_some(), &[Ppo]),
        ("--kl-horizon", args.kl_horizon.is_some(), &[Ppo]),
        ("--gamma", args.gamma != usual.gamma, &[Ppo]),
        ("--gae-lambda", args.gae_lambda != usual.gae_lambda, &[Ppo]),
        ("--clip-ratio", args.clip_ratio != usual.clip_ratio, &[Ppo, Grpo]),
        ("--loss", args.loss != usual.loss, &[Dpo, Rso]),
        ("--rso-beta", args.rso_beta != usual.rso_beta, &[Rso]),
        ("--whiten", args.whiten, &[Rloo]),
    ];
    let unread = read_by.into_iter().filter(|(_, is_given, methods)| *is_given && !methods.contains(&method));
    Ok(unread.map(|(flag, _, _)| flag).collect())
}

/// `train policy` as typed without any option.
fn usual() -> Result<cli::TrainPolicyArgs> {
    let bare = ["gainsay", "train", "policy", "--policy", "p", "--in", "f", "--out", "d"];
    match cli::Cli::try_parse_from(bare) {
        Ok(cli::Cli { command: cli::Command::Train(cli::TrainCommand::Policy(usual)) }) => Ok(*usual),
        _ => Err(Error::Run("the defaults of `train policy` are not known".into())),
    }
}

pub(super) fn sft(args: &cli::TrainSftArgs) -> Result<()> {
    models::prepare(&args.model_args)?;
    let options = train_offline::Options {
        objective: Objective::Sft,
        reference_is_open: false,
        full: args.full,
        epochs: args.epochs,
        batch: args.batch,
        lr: args.lr,
        lora: (&args.lora).into(),
        max_tokens: args.max_tokens,
        heldout: args.heldout,
        save_every: args.save_every,
        seed: args.seed,
        dtype: args.model_args.dtype,
    };
    let (figures, done) = train_offline::train_offline(&args.policy, &args.input, &args.out, &options)?;
    let more = json!({
        "out": args.out, "steps": done.steps.len(), "examples": done.examples, "heldout": done.heldout,
        "heldout_loss": done.heldout_loss, "last_step": done.steps.last(),
    });
    print_figures(args.json, &figures, more)
}
