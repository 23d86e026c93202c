//! From the command line as typed to a stage. stdout is data, stderr is talk.

mod annotate;
mod ecosystem;
mod evaluate;
mod remote;
mod training;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use gainsay_core::conflict::{Compat, ConflictOptions, LogpKind, Scope};
use gainsay_core::engine::Decoding;
use gainsay_core::files;
use gainsay_core::import::ColumnMap;
use serde_json::{Value, json};

use crate::cli::{self, Command, DecodingArgs, LogpArg, ScopeArg, TrainCommand};
use crate::error::{Error, Result};
use crate::experiment::experiment;
use crate::experiment::plan::Plan;
use crate::inputs;
use crate::models::{self, ModelOptions};
use crate::progress::{Figures, human_seconds};
use crate::recipes::feedback::{self, Oracle};
use crate::recipes::{conflicts, sample, score, select, train_reward, validate};
use crate::run;
use crate::run::cost;
use crate::run::recipe::Recipe;

/// Runs a subcommand.
pub fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Demo(args) => demo(&args),
        Command::Run(args) => run_recipe(&args),
        Command::Experiment(args) => experiment_command(&args),
        Command::Sample(args) => sample_command(&args),
        Command::Score(args) => score_command(&args),
        Command::Conflicts(args) => conflicts_command(&args),
        Command::Select(args) => select_command(&args),
        Command::Feedback(args) => feedback_command(&args),
        Command::Annotate(command) => annotate::annotate(&command),
        Command::Validate(args) => validate_command(&args),
        Command::Train(TrainCommand::Reward(args)) => train_reward_command(&args),
        Command::Train(TrainCommand::Policy(args)) => training::policy(&args),
        Command::Train(TrainCommand::Sft(args)) => training::sft(&args),
        Command::Evaluate(args) => evaluate::evaluate_command(&args),
        Command::Report(args) => report_command(&args),
        Command::Serve(args) => remote::serve(&args),
        Command::Doctor(args) => remote::doctor(&args),
        Command::Data(command) => ecosystem::data(&command),
        Command::Export(args) => ecosystem::export(&args),
        Command::Completions(args) => ecosystem::completions(&args),
        Command::Man(args) => ecosystem::man(&args),
    }
}

fn demo(args: &cli::DemoArgs) -> Result<()> {
    whole_loop(&run::demo::recipe(args.quick), &args.out, (args.threads, args.device), args.dry_run)
}

fn run_recipe(args: &cli::RunArgs) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let out = args.out.clone().unwrap_or_else(|| run_named_after(&args.recipe));
    whole_loop(&recipe, &out, (args.threads, args.device), args.dry_run)
}

fn run_named_after(file: &Path) -> PathBuf {
    Path::new("runs").join(file.file_stem().unwrap_or_default())
}

fn experiment_command(args: &cli::ExperimentArgs) -> Result<()> {
    let plan = Plan::read(&args.file)?;
    let out = args.out.clone().unwrap_or_else(|| run_named_after(&args.file));
    let threads = models::threads(args.threads);
    if args.dry_run {
        let mut costs = Vec::new();
        for (_, recipe) in plan.runs() {
            run::inputs::check(&recipe)?;
            costs.push((cost::count(&recipe)?, recipe.dtype));
        }
        return print_cost(&costs, args.json);
    }
    models::place_on(args.device)?;
    let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
    let found = experiment(&name, &plan, &out, threads, args.device).map_err(|error| resumable(error, &out))?;
    eprintln!("the report: {}", out.join("report.html").display());
    if args.json { print_json(&to_json(&found)?) } else { print(&found.render()) }
}

fn whole_loop(recipe: &Recipe, out: &Path, (threads, device): (usize, cli::Device), dry_run: bool) -> Result<()> {
    let threads = models::threads(threads);
    if dry_run {
        run::inputs::check(recipe)?;
        return print_cost(&[(cost::count(recipe)?, recipe.dtype)], false);
    }
    models::place_on(device)?;
    let report = run::run(recipe, out, threads, device).map_err(|error| resumable(error, out))?;
    eprintln!("the report: {}", report.display());
    print(&format!("{}\n", report.display()))
}

/// The error, which says how to go on where it was Ctrl-C.
fn resumable(error: Error, out: &Path) -> Error {
    match error {
        Error::Interrupted(_) => Error::Interrupted(format!(
            "stopped by Ctrl-C. The same command goes on where it stopped: {}",
            out.display()
        )),
        other => other,
    }
}

/// Prints what runs cost together; an experiment's share work, so that these are upper bounds.
fn print_cost(runs: &[(cost::Cost, cli::Dtype)], as_json: bool) -> Result<()> {
    let cost: cost::Cost = runs.iter().map(|(cost, _)| cost.clone()).sum();
    let seconds: f64 = runs.iter().map(|(cost, dtype)| cost.seconds(&cost::Speeds::reference(*dtype))).sum();
    let dtype = runs.first().map(|(_, dtype)| *dtype).unwrap_or_default();
    if as_json {
        let mut value = to_json(&cost)?;
        value["seconds"] = seconds.into();
        value["seconds_with"] = cost::REFERENCE_MODEL.into();
        return print_json(&value);
    }
    print(&format!(
        "completions     {}\nlabels          {}\nsampled tokens  {}\nscored tokens   {}\ntrained tokens  {}\n\
         time            about {} with {} in {} on 2 cores with AVX-512\nmemory          about {:.1} GiB with that model\n",
        cost.completions,
        cost.labels,
        cost.sampled_tokens,
        cost.scored_tokens,
        cost.trained_tokens,
        human_seconds(seconds),
        cost::REFERENCE_MODEL,
        dtype,
        cost::REFERENCE_GIB,
    ))
}

fn decoding(args: &DecodingArgs, seed: u64, ignore_eos: bool, purpose: &str) -> Decoding {
    Decoding {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
        ignore_eos,
        seed,
        purpose: purpose.into(),
        ..Decoding::default()
    }
}

fn sample_command(args: &cli::SampleArgs) -> Result<()> {
    models::prepare(&args.model)?;
    let options = ModelOptions {
        raw: args.raw,
        dtype: args.model.dtype,
        answers: Some(models::answers_beside(&args.out)),
        ..ModelOptions::default()
    };
    let policy = models::any_policy(&args.policy, &options)?;
    let decoding = decoding(&args.decoding, args.seed, args.ignore_eos, "rollout");
    let figures = sample::sample(&policy, &inputs::local(&args.prompts)?, &args.out, args.decoding.n, &decoding)?;
    policy.forget();
    print_figures(args.json, &figures, json!({ "out": args.out }))
}

fn score_command(args: &cli::ScoreArgs) -> Result<()> {
    models::prepare(&args.model)?;
    let answers = Some(models::answers_beside(&args.out));
    let options = ModelOptions { raw: args.raw, truncate: args.truncate, dtype: args.model.dtype, answers };
    let policy = args.policy.as_deref().map(|spec| models::any_policy(spec, &options)).transpose()?;
    let reward = args.reward.as_deref().map(|spec| models::any_reward(spec, &options)).transpose()?;
    let gold = args.gold.as_deref().map(|spec| models::any_reward(spec, &options)).transpose()?;
    let features = match (args.features, args.policy.as_deref().or(args.reward.as_deref())) {
        (0, _) => None,
        (size, Some(spec)) => Some(score::Features { model: models::features(spec, &options)?, size }),
        (_, None) => {
            return Err(Error::Input("--features reads the model of --policy, else of --reward: name one".into()));
        }
    };
    let scorers = score::Scorers {
        policy: policy.as_ref().map(|p| p as _),
        reward: reward.as_ref().map(|r| r as _),
        gold: gold.as_ref().map(|g| g as _),
        features: features.as_ref(),
    };
    let figures = score::score(scorers, &inputs::local(&args.input)?, &args.out)?;
    policy.iter().for_each(models::AnyPolicy::forget);
    reward.iter().chain(&gold).for_each(models::AnyReward::forget);
    let truncated = policy.as_ref().map_or(0, models::AnyPolicy::truncated)
        + reward.iter().chain(&gold).map(models::AnyReward::truncated).sum::<u64>();
    if truncated > 0 {
        eprintln!("{truncated} sequences were cut from the prompt's left");
    }
    print_figures(args.json, &figures, json!({ "out": args.out, "truncated": truncated }))
}

fn logp_kind(arg: LogpArg) -> LogpKind {
    match arg {
        LogpArg::Sum => LogpKind::Sum,
        LogpArg::Mean => LogpKind::MeanPerToken,
    }
}

fn conflict_options(
    input: &Path,
    logp: LogpArg,
    scope: ScopeArg,
    compat: Compat,
    map: Option<&ColumnMap>,
) -> Result<ConflictOptions> {
    let logp = logp_kind(logp);
    let scope = match scope {
        ScopeArg::Prompt => Scope::Prompt,
        ScopeArg::Dataset => conflicts::dataset_scope(input, logp, map)?,
    };
    Ok(ConflictOptions { compat, logp, scope })
}

fn conflicts_command(args: &cli::ConflictsArgs) -> Result<()> {
    let compat = cli::CompatArg::or_standard(args.compat);
    let (input, map) = (inputs::local(&args.input)?, args.map.as_ref());
    let options = conflict_options(&input, args.logp, args.scope, compat, map)?;
    let top = args.top.unwrap_or(if args.json { 0 } else { 10 });
    let found = conflicts::conflicts(&input, args.out.as_deref(), &options, top, map)?;
    if args.json {
        let mut value = to_json(&found.summary)?;
        if args.top.is_some() {
            value["top"] = found.top.iter().map(|entry| to_json(&entry.record)).collect::<Result<Value>>()?;
        }
        return print_json(&value);
    }
    print(&format!("{}{}", found.summary.render(), conflicts::render_top(&found.top)))
}

fn select_command(args: &cli::SelectArgs) -> Result<()> {
    let options = select::options(args)?;
    let (stats, _) = select::select(&args.input, &args.out, &options, &args.exclude)?;
    if args.json { print_json(&to_json(&stats)?) } else { print(&select::render(&stats)) }
}

fn feedback_command(args: &cli::FeedbackArgs) -> Result<()> {
    models::prepare(&args.model)?;
    let oracle = Oracle::parse(&args.oracle)?;
    let noise = feedback::noise(args.noise.as_deref())?;
    let selection = files::read_all(inputs::local(&args.input)?)?;
    let figures = match oracle {
        Oracle::Labels => feedback::read_labels(&selection, noise, args.seed, &args.out)?,
        Oracle::Judge(url) => return remote::feedback(args, &url, &selection),
        Oracle::Gold(spec) => {
            let answers = Some(models::answers_beside(&args.out));
            let options = ModelOptions { dtype: args.model.dtype, answers, ..ModelOptions::default() };
            let gold = models::any_reward(&spec, &options)?;
            let figures = feedback::ask_gold(&gold, &selection, noise, args.seed, &args.out)?;
            gold.forget();
            figures
        }
    };
    print_figures(args.json, &figures, json!({ "out": args.out, "answers": selection.len() }))
}

fn validate_command(args: &cli::ValidateArgs) -> Result<()> {
    let input = inputs::local(&args.input)?;
    let options = conflict_options(&input, args.logp, args.scope, Compat::Standard, None)?;
    let validation = validate::validate(&input, &options, args.seed)?;
    if args.json { print_json(&to_json(&validation)?) } else { print(&validation.render()) }
}

fn train_reward_command(args: &cli::TrainRewardArgs) -> Result<()> {
    models::prepare(&args.model_args)?;
    let options = train_reward::Options {
        method: args.method.into(),
        head_init: args.head_init.into(),
        epochs: args.epochs,
        batch: args.batch,
        lr: args.lr,
        lora: (&args.lora).into(),
        center: args.center,
        l2: args.l2,
        reads: train_reward::reads(&args.reads)?,
        cache: args.cache.clone(),
        heads: args.heads,
        safety: args.safety,
        old: args.old.clone(),
        old_weight: args.old_weight,
        max_tokens: args.max_tokens,
        heldout: args.heldout,
        folds: args.folds,
        save_every: args.save_every,
        seed: args.seed,
        dtype: args.model_args.dtype,
    };
    let pairs = args.input.iter().map(|path| inputs::local(path)).collect::<Result<Vec<_>>>()?;
    let done = train_reward::train_reward(&args.model, &pairs, &args.out, None, &options)?;
    if let (false, Some(folds)) = (args.json, &done.folds) {
        print(&train_reward::render_folds(folds))?;
    }
    let last = done.report.epochs.last();
    let more = json!({
        "out": args.out, "cross_validation": done.folds, "pairs": done.report.pairs,
        "heldout": last.and_then(|e| e.heldout), "heldout_before": done.report.heldout_before,
        "calibration": done.report.calibration, "slices": done.report.slices,
    });
    print_figures(args.json, &done.figures, more)
}

fn report_command(args: &cli::ReportArgs) -> Result<()> {
    let path = crate::report::write(&args.dir).map_err(|e| Error::Input(e.to_string()))?;
    print(&format!("{}\n", path.display()))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::Run(format!("cannot be put into JSON: {e}")))
}

/// The figures as one JSON object, with the command's own fields; as text they are on stderr.
fn print_figures(as_json: bool, figures: &Figures, extra: Value) -> Result<()> {
    if !as_json {
        return Ok(());
    }
    let mut value = to_json(figures)?;
    if let (Some(fields), Value::Object(extra)) = (value.as_object_mut(), extra) {
        fields.extend(extra);
    }
    print_json(&value)
}

fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// Data to stdout; a reader that has gone away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Run(format!("stdout: {e}"))),
        _ => Ok(()),
    }
}
