//! selection -> preferences: people answer, in the annotation app.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gainsay_core::files;
use gainsay_core::record::{Answer, Extra, PreferenceRecord, PreferenceSide, SelectionRecord, Vote};
use gainsay_server::annotate::live::Live;
use gainsay_server::annotate::store::{Settings, Store};
use gainsay_server::annotate::task::{Given, Task, comparisons, judgements, rankings};
use gainsay_server::annotate::web::{Access, App, Listening, check_secret, serve as serve_app, token};
use gainsay_server::annotate::{AnnotateError, aggregate};

use super::annotate_files::given;
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
        // Refused before there is a database.
        let listening = Listening::bind(&args.host, args.port).await?;
        let made = secret.is_none();
        if made && !listening.address.ip().is_loopback() {
            return Err(Error::Input(format!(
                "--host {}: others reach this address, so set an admin secret of at least 16 characters in {SECRET} \
                 or --admin-secret-file",
                args.host
            )));
        }
        let guidelines = args.guidelines.as_deref().map(read_text).transpose()?;
        let store = match &tasks {
            Some(_) => Store::open(&args.db).await?,
            None => Store::open_existing(&args.db)
                .await
                .map_err(|e| Error::Input(format!("{e}; or name a selection for it with --in")))?,
        };
        let store = Arc::new(store);
        store.take_options(&options(args, guidelines, &store.settings().await?)).await?;
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

/// Serves a selection until nobody has anything left and the admin has decided the disagreements,
/// then writes the preferences: an item that everybody skipped stays without an answer. What is answered stays in `db`, so that a run that
/// was stopped goes on.
///
/// # Errors
/// Ctrl-C; a database or an address that is refused.
pub fn ask_people(selection: Vec<SelectionRecord>, db: &Path, out: &Path, title: &str) -> Result<()> {
    block_on(async {
        let store = Arc::new(Store::open(&db.display().to_string()).await?);
        store.take_options(&[("title", title.to_owned())]).await?;
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
        serve_app(listening, app, complete(store.clone(), base)).await?;
        interrupt::check()?;
        files::write_all(out, &collected(&store, aggregate::Rule::Majority).await?)?;
        Ok(())
    })
}

/// Ends when everybody is done, annotators and admin, or with Ctrl-C.
async fn complete(store: Arc<Store>, base: String) {
    let mut told = 0;
    while !interrupt::requested() {
        // A database that does not answer just now may do so soon.
        let undecided = match store.is_finished().await {
            Ok(true) => store.undecided().await.ok(),
            _ => None,
        };
        match undecided {
            Some(0) => return,
            Some(open) if open != told => {
                told = open;
                eprintln!("all have answered; {open} disagreements wait for the admin: {base}/admin/disagreements");
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
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

/// What the options say of the settings; options that were not given say nothing.
fn options(args: &AnnotateServeArgs, guidelines: Option<String>, there: &Settings) -> Vec<(&'static str, String)> {
    // Gold checks that nobody spaced come every ten answers.
    let spaced = || (args.gold_checks.is_some() && there.gold_every == 0).then_some(10);
    let given = [
        ("title", args.title.clone()),
        ("guidelines", guidelines),
        ("overlap", args.overlap.map(|n| n.to_string())),
        ("gold_every", args.gold_every.or_else(spaced).map(|n| n.to_string())),
        ("cost_per_hour", args.cost_per_hour.map(|pay| pay.to_string())),
        ("labels", args.labels.as_ref().map(|labels| labels.join("\n"))),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::Input(format!("{}: cannot be read: {e}", path.display())))
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
        (Task::Compare(pair), answered(record.answer))
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

/// An answer to a comparison without anything beside it.
fn answered(answer: Answer) -> Given {
    given(&Vote { annotator: String::new(), answer, strength: None, seconds: None, extra: Extra::new() })
}
