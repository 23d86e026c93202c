//! selection -> preferences: people answer, in the annotation app.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gainsay_core::files;
use gainsay_core::record::{Answer, PreferenceRecord, PreferenceSide, SelectionRecord};
use gainsay_server::annotate::live::Live;
use gainsay_server::annotate::store::{Settings, Store};
use gainsay_server::annotate::task::{Given, Response, Task, comparisons, judgements, rankings};
use gainsay_server::annotate::web::{Access, App, Listening, check_secret, serve as serve_app, token};
use gainsay_server::annotate::{AnnotateError, aggregate};

use super::annotate_live::{HeadRefit, Shared};
use crate::cli::{AnnotateServeArgs, TaskArg};
use crate::error::{Error, Result};
use crate::interrupt;

/// Environment variable of the admin secret.
const SECRET: &str = "GAINSAY_ADMIN_SECRET";

impl From<AnnotateError> for Error {
    fn from(error: AnnotateError) -> Self {
        if error.is_user_error() { Self::Input(error.to_string()) } else { Self::Run(error.to_string()) }
    }
}

/// Runs what waits for the database or for people.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::Run(format!("no threads for the server: {e}")))?;
    runtime.block_on(work)
}

/// Serves the app until Ctrl-C; `say` gets the first line, `listening on http://HOST:PORT`.
///
/// # Errors
/// Input, a database or an address that is refused.
pub fn serve(args: &AnnotateServeArgs, say: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let tasks = args.input.as_deref().map(|path| read_tasks(path, args.task)).transpose()?;
    let checks = args.gold_checks.as_deref().map(read_checks).transpose()?;
    let secret = secret(args.admin_secret_file.as_deref())?;
    let live = live(args)?;
    block_on(async {
        let store = Arc::new(Store::open(&args.db).await?);
        let settings = settings(args, store.settings().await?)?;
        store.set(&settings, "admin").await?;
        if let Some(tasks) = &tasks {
            let added = store.add_items(tasks).await?;
            eprintln!("{added} new items of {}", tasks.len());
        }
        if let Some(checks) = &checks {
            store.add_gold_checks(checks).await?;
        }
        if store.items().await?.is_empty() {
            return Err(Error::Input(format!("--db {} holds no items; name a selection with --in", args.db)));
        }
        let listening = Listening::bind(&args.host, args.port).await?;
        let made = secret.is_none();
        if made && !listening.address.ip().is_loopback() {
            return Err(Error::Input(format!(
                "--host {}: others reach this address, so set an admin secret of at least 16 characters in {SECRET} \
                 or --admin-secret-file",
                args.host
            )));
        }
        let secret = secret.unwrap_or_else(token::random);
        let access = Access { admin_secret: secret.clone(), public_url: args.public_url.clone() };
        let app = App::new(store.clone(), &access, live)?;
        let address = listening.address;
        say(&format!("listening on http://{address}"))?;
        let base = if args.public_url.is_empty() { format!("http://{address}") } else { args.public_url.clone() };
        if made {
            eprintln!("admin: {base}/admin with the secret {secret}");
        }
        for name in &args.annotators {
            eprintln!("invite for {name}: {}/invite/{}", base.trim_end_matches('/'), store.invite(name).await?);
        }
        Ok(serve_app(listening, app, interrupted()).await?)
    })
}

/// Serves a selection until nobody has anything left, then writes the preferences: an item that
/// everybody skipped stays without an answer. What is answered stays in `db`, so that a run that
/// was stopped goes on.
///
/// # Errors
/// Ctrl-C; a database or an address that is refused.
pub fn ask_people(selection: Vec<SelectionRecord>, db: &Path, out: &Path, title: &str) -> Result<()> {
    block_on(async {
        let store = Arc::new(Store::open(&db.display().to_string()).await?);
        store.set(&Settings { title: title.into(), ..store.settings().await? }, "admin").await?;
        store.add_items(&comparisons(selection)).await?;
        let secret = match secret(None)? {
            Some(secret) => secret,
            None => token::random(),
        };
        let app = App::new(store.clone(), &Access { admin_secret: secret.clone(), public_url: String::new() }, None)?;
        let listening = Listening::bind("127.0.0.1", 0).await?;
        let base = format!("http://{}", listening.address);
        eprintln!("people answer at {base}; admin: {base}/admin with the secret {secret}");
        eprintln!("a first invite: {base}/invite/{}", store.invite("annotator").await?);
        let waiting = store.clone();
        let complete = async move {
            while !interrupt::requested() {
                if matches!(waiting.is_finished().await, Ok(true)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        serve_app(listening, app, complete).await?;
        interrupt::check()?;
        files::write_all(out, &collected(&store, aggregate::Rule::Majority).await?)?;
        Ok(())
    })
}

/// All preferences of a database.
pub async fn collected(store: &Store, rule: aggregate::Rule) -> Result<Vec<PreferenceRecord>> {
    let (items, votes) = (store.items().await?, store.votes().await?);
    Ok(aggregate::preferences(&items, &votes, &store.resolutions().await?, rule))
}

fn live(args: &AnnotateServeArgs) -> Result<Option<Live>> {
    let (Some(spec), Some(pool), Some(input)) = (&args.live, &args.live_pool, &args.input) else { return Ok(None) };
    if args.task != TaskArg::Compare {
        return Err(Error::Input("--live ranks comparisons; leave out --task".into()));
    }
    let refit = HeadRefit::new(spec, pool, &files::read_all::<SelectionRecord>(input)?)?;
    Ok(Some(Live { refit: Box::new(Shared(refit)), every: args.live_every }))
}

async fn interrupted() {
    while !interrupt::requested() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn secret(file: Option<&Path>) -> Result<Option<String>> {
    let found = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|e| Error::Input(format!("{}: the secret cannot be read: {e}", path.display())))?)
        }
        None => std::env::var(SECRET).ok(),
    };
    let found = found.map(|text| text.trim().to_owned());
    found.as_deref().map(check_secret).transpose()?;
    Ok(found)
}

fn settings(args: &AnnotateServeArgs, there: Settings) -> Result<Settings> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).map_err(|e| Error::Input(format!("{}: cannot be read: {e}", path.display())))
    };
    Ok(Settings {
        title: args.title.clone().unwrap_or(there.title),
        guidelines: args.guidelines.as_ref().map(read).transpose()?.unwrap_or(there.guidelines),
        overlap: args.overlap.unwrap_or(there.overlap),
        gold_every: match args.gold_every {
            Some(every) => every,
            None if args.gold_checks.is_some() && there.gold_every == 0 => 10,
            None => there.gold_every,
        },
        lease_seconds: there.lease_seconds,
        cost_per_hour: args.cost_per_hour.unwrap_or(there.cost_per_hour),
        labels: args.labels.clone().unwrap_or(there.labels),
    })
}

fn read_tasks(path: &Path, task: TaskArg) -> Result<Vec<Task>> {
    let named = |what: String| Error::Input(format!("{}: {what}", path.display()));
    match task {
        TaskArg::Compare => Ok(comparisons(files::read_all(path)?)),
        TaskArg::Rank => rankings(files::read_all(path)?).map_err(named),
        TaskArg::Judge => judgements(files::read_all(path)?).map_err(named),
    }
}

fn read_checks(path: &Path) -> Result<Vec<(Task, Given)>> {
    let known = files::read_preferences(path)?;
    let comparable = known.iter().enumerate().filter(|(_, record)| record.answer != Answer::Skip);
    let checks = comparable.map(|(rank, record)| {
        let mut pair = pair_of(record, rank);
        pair.id = format!("gold/{}", record.id);
        (Task::Compare(pair), given(record.answer, None, ""))
    });
    Ok(checks.collect())
}

/// The question that a preference answers.
pub fn pair_of(record: &PreferenceRecord, rank: usize) -> SelectionRecord {
    let side = |side: &PreferenceSide, index| gainsay_core::record::Candidate {
        index,
        text: side.text.clone(),
        token_ids: side.token_ids.clone(),
        gold: None,
    };
    SelectionRecord {
        schema: record.schema,
        id: record.id.clone(),
        prompt_id: record.id.clone(),
        prompt: record.prompt.clone(),
        first: side(&record.first, 0),
        second: side(&record.second, 1),
        strategy: "imported".into(),
        rank,
        why: Default::default(),
        flags: vec![],
        meta: record.meta.clone(),
        extra: Default::default(),
    }
}

/// An answer to a comparison as the app keeps it.
pub fn given(answer: Answer, strength: Option<u8>, comment: &str) -> Given {
    let response = match answer {
        Answer::Skip => Response::Skip { reason: "imported".into() },
        answer => Response::Compare {
            answer,
            strength,
            safe_first: None,
            safe_second: None,
            rating_first: None,
            rating_second: None,
        },
    };
    Given { response, comment: comment.into() }
}
