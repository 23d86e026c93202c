//! `gainsay serve`, `gainsay doctor` and `gainsay annotate judge`.

use std::sync::Arc;
use std::time::Duration;

use gainsay_core::files;
use gainsay_core::record::{PreferenceRecord, PromptRecord, SelectionRecord};
use gainsay_remote::judge::{Judge, Prices};
use gainsay_remote::{Address, RemotePolicy};
use gainsay_server::reward_api::{self, Limits, Loader, Reload, RewardState};
use serde_json::json;

use super::{print, print_figures, print_json, to_json};
use crate::cli;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::models::{self, ModelOptions};
use crate::recipes::doctor::{Verdict, diagnose};
use crate::recipes::serve::{Models, check_key, load};
use crate::recipes::{feedback as noise, judge as judging};
use crate::remote;

pub(super) fn serve(args: &cli::ServeArgs) -> Result<()> {
    models::prepare(&args.model)?;
    let key = std::env::var(&args.key_env).ok().filter(|key| !key.is_empty());
    check_key(key.as_deref(), &args.host, &args.key_env)?;
    let models = Models {
        rewards: args.reward.clone(),
        policy: args.policy.clone(),
        max_tokens: args.max_tokens,
        options: ModelOptions { dtype: args.model.dtype, ..ModelOptions::default() },
    };
    // Taken before the models are loaded: a wrong port is said at once.
    let bind =
        std::net::TcpListener::bind((args.host.as_str(), args.port)).and_then(|l| l.set_nonblocking(true).map(|()| l));
    let listener = bind.map_err(|e| {
        Error::Input(format!("{}:{} cannot be listened on: {e}; name another --port, or 0", args.host, args.port))
    })?;
    let engine = load(&models)?;
    let limits = Limits { batch: args.batch, queue: args.queue, body: args.max_body, ..Limits::default() };
    // `spec` is one model; the server's own list stands for all it was started with.
    let own = args.reward.join("\n");
    let loader: Loader = {
        let own = own.clone();
        Arc::new(move |spec: &str| {
            let rewards = if spec == own { models.rewards.clone() } else { vec![spec.to_owned()] };
            load(&Models { rewards, ..models.clone() }).map_err(|e| e.to_string())
        })
    };
    let run = |e: std::io::Error| Error::Run(format!("the server: {e}"));
    let state = RewardState::new(engine, limits, key, Some(Reload { loader, spec: own })).map_err(run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(run)?;
    runtime.block_on(listen(listener, state))
}

async fn listen(listener: std::net::TcpListener, state: RewardState) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| Error::Run(format!("the server: {e}")))?;
    let address = listener.local_addr().map_err(|e| Error::Run(e.to_string()))?;
    print(&format!("listening on http://{address}\n"))?;
    eprintln!("serving {}", state.engine().identity);
    #[cfg(unix)]
    tokio::spawn(reload_on_signal(state.clone()));
    let stop = async {
        while !interrupt::requested() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reward_api::serve(listener, state, stop).await.map_err(|e| Error::Run(format!("the server: {e}")))
}

/// SIGUSR1: what the server was started with is read again and swapped in.
#[cfg(unix)]
async fn reload_on_signal(state: RewardState) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut asked) = signal(SignalKind::user_defined1()) else { return };
    while asked.recv().await.is_some() {
        let state = state.clone();
        match tokio::task::spawn_blocking(move || state.load(None)).await {
            Ok(Ok(identity)) => eprintln!("swapped in {identity}"),
            Ok(Err(error)) => eprintln!("the old model stays: {error}"),
            Err(error) => eprintln!("the old model stays: {error}"),
        }
    }
}

pub(super) fn doctor(args: &cli::DoctorArgs) -> Result<()> {
    models::prepare(&args.model)?;
    let mut address = Address::parse(&args.policy)?;
    address.limits.stop = interrupt::requested;
    let local = models::policy(&args.local, &ModelOptions { dtype: args.model.dtype, ..ModelOptions::default() })?;
    let renderer = remote::renderer(address.tokenizer.as_deref().unwrap_or(&args.local), false)?;
    let given: Option<Vec<PromptRecord>> = args.input.as_ref().map(files::read_all).transpose()?;
    if let (Some(path), Some(records)) = (&args.input, &given)
        && records.iter().all(|record| record.completions.is_empty())
    {
        return Err(Error::Input(format!("{}: holds no completions; sample some, or leave --in out", path.display())));
    }
    let server = RemotePolicy::connect(remote::client(address, None)?, Some(renderer.clone()))?;
    let found = diagnose(&server, &local, renderer.as_ref(), given, args.items, args.tolerance)?;
    if args.json {
        print_json(&to_json(&found)?)?
    } else {
        print(&found.render())?
    }
    match found.verdict {
        Verdict::Equal | Verdict::Numeric => Ok(()),
        Verdict::Mismatch => Err(Error::Run("the log-probs of the server and of the model here do not agree".into())),
    }
}

pub(super) fn judge(args: &cli::JudgeArgs) -> Result<()> {
    let mut address = Address::parse(&args.url)?;
    address.limits.stop = interrupt::requested;
    address.model = args.model.clone().or(address.model);
    let template = args.template.as_ref().map(|path| {
        std::fs::read_to_string(path).map_err(|e| Error::Input(format!("{}: cannot be read: {e}", path.display())))
    });
    let template = template.transpose()?;
    let pairs: Vec<SelectionRecord> = files::read_all(&args.input)?;
    let people: Option<Vec<PreferenceRecord>> = args.against.as_ref().map(files::read_all).transpose()?;
    let client = remote::client(address, Some(&models::answers_beside(&args.out)))?;
    let judge = Judge::connect(client, template.as_deref())?.with_max_tokens(args.max_tokens);
    let prices = Prices { input: args.price_in, output: args.price_out };
    let (mut summary, figures) = judging::judge(&judge, &pairs, prices, &args.out)?;
    if let Some(people) = people {
        let answers: Vec<PreferenceRecord> = files::read_all(&args.out)?;
        summary.agreement = judging::agreement(&answers, &people);
    }
    if args.json {
        return print_figures(true, &figures, to_json(&summary)?);
    }
    print(&summary.render())
}

/// `gainsay feedback --oracle judge:URL`.
pub(super) fn feedback(args: &cli::FeedbackArgs, url: &str, pairs: &[SelectionRecord]) -> Result<()> {
    if noise::noise(args.noise.as_deref())? != gainsay_core::oracle::Noise::None {
        return Err(Error::Input("--noise is for simulated annotators; a judge errs by itself".into()));
    }
    let (summary, figures) = judging::ask(url, pairs, &args.out)?;
    if !args.json {
        eprint!("{}", summary.render());
    }
    print_figures(args.json, &figures, json!({ "out": args.out, "answers": pairs.len(), "judge": summary }))
}
