//! Answers of people between the app's database, preferences, and other tools' files.

use std::collections::BTreeSet;
use std::path::Path;

use gainsay_core::exchange::{argilla, csv, label_studio};
use gainsay_core::files::{self, write_atomic};
use gainsay_core::import::trl::{Layout, Ties, export_trl};
use gainsay_core::record::{Answer, PreferenceRecord, PromptRecord, Vote};
use gainsay_server::annotate::aggregate::{self, Rule};
use gainsay_server::annotate::measure::{Agreement, Rating, agreement, compared, ratings};
use gainsay_server::annotate::store::{GivenElsewhere, Settings, Store};
use gainsay_server::annotate::task::{Given, Response, Task, judgements};
use serde_json::Value;

use super::annotate::{block_on, collected, pair_of};
use crate::cli::{AgreementArgs, AnnotateExportArgs, ExchangeFormat, ImportArgs, TiesArg};
use crate::error::{Error, Result};

/// Reads answers of another tool into a file of preferences or into a database.
///
/// # Errors
/// A file that is not of the format; what writing reports.
pub fn import(args: &ImportArgs) -> Result<()> {
    if args.format == ExchangeFormat::Judgements {
        return import_judgements(args);
    }
    let (records, drafts) = read(&args.input, args.format)?;
    match (&args.out, &args.db) {
        (Some(out), _) => files::write_all(out, &records)?,
        (None, Some(db)) => {
            let tasks: Vec<Task> =
                records.iter().enumerate().map(|(rank, record)| Task::Compare(pair_of(record, rank))).collect();
            let votes: Vec<GivenElsewhere> = records.iter().flat_map(votes).collect();
            block_on(async { put(db, &tasks, &votes, None).await })?;
        }
        (None, None) => return Err(Error::Input("name --out or --db".into())),
    }
    let votes: usize = records.iter().map(|r| r.votes.len()).sum();
    let begun = if drafts > 0 { format!("; {drafts} drafts are no votes and left out") } else { String::new() };
    eprintln!("{} comparisons with {votes} votes{begun}", records.len());
    Ok(())
}

fn votes(record: &PreferenceRecord) -> Vec<GivenElsewhere> {
    let of = |vote: &Vote| GivenElsewhere {
        item: record.id.clone(),
        annotator: vote.annotator.clone(),
        given: given(vote),
        swapped: said(vote, "left") == "second",
        seconds: vote.seconds.unwrap_or(0.0),
    };
    record.votes.iter().map(of).collect()
}

/// A vote as the app keeps it, with all that the app writes into files beside the answer.
pub(super) fn given(vote: &Vote) -> Given {
    let safe = |name: &str| vote.extra.get(name).and_then(Value::as_bool);
    let rating = |name: &str| vote.extra.get(name).and_then(Value::as_u64).filter(|r| (1..=5).contains(r));
    let response = match (vote.answer, said(vote, "reason")) {
        (Answer::Skip, "") => Response::Skip { reason: "imported".into() },
        (Answer::Skip, reason) => Response::Skip { reason: reason.into() },
        (answer, _) => Response::Compare {
            answer,
            strength: vote.strength,
            safe_first: safe("safe_first"),
            safe_second: safe("safe_second"),
            rating_first: rating("rating_first").map(|r| r as u8),
            rating_second: rating("rating_second").map(|r| r as u8),
        },
    };
    Given { response, comment: said(vote, "comment").into() }
}

fn said<'a>(vote: &'a Vote, name: &str) -> &'a str {
    vote.extra.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Completions whose fields hold several annotators' labels: each becomes a judgement with votes.
fn import_judgements(args: &ImportArgs) -> Result<()> {
    let wrong = |what: String| Error::Input(format!("{}: {what}", args.input.display()));
    let (Some(db), false) = (&args.db, args.label_fields.is_empty()) else {
        return Err(Error::Input("--format judgements needs --db and --label-fields".into()));
    };
    let records: Vec<PromptRecord> = files::read_all(&args.input)?;
    let tasks = judgements(records).map_err(wrong)?;
    let (mut votes, mut labels) = (Vec::new(), std::collections::BTreeSet::new());
    for task in &tasks {
        let Task::Judge(record) = task else { continue };
        for field in &args.label_fields {
            let label = record.completions.first().and_then(|c| c.extra.get(field)?.as_str());
            if let Some(label) = label {
                labels.insert(label.to_owned());
                let response = Response::Judge { label: label.into(), rating: None };
                votes.push(GivenElsewhere {
                    item: record.id.clone(),
                    annotator: field.clone(),
                    given: Given { response, comment: String::new() },
                    swapped: false,
                    seconds: 0.0,
                });
            }
        }
    }
    if votes.is_empty() {
        return Err(wrong(format!("no completion has a label in {}", args.label_fields.join(", "))));
    }
    block_on(async { put(db, &tasks, &votes, Some(labels.into_iter().collect())).await })?;
    eprintln!("{} completions with {} votes", tasks.len(), votes.len());
    Ok(())
}

async fn put(db: &str, tasks: &[Task], votes: &[GivenElsewhere], labels: Option<Vec<String>>) -> Result<()> {
    let store = Store::open(db).await?;
    if let Some(labels) = labels {
        store.set(&Settings { labels, ..store.settings().await? }, "admin").await?;
    }
    store.add_items(tasks).await?;
    store.import_votes(votes).await?;
    Ok(())
}

/// The preferences of a file, and how many drafts of answers it holds besides.
fn read(path: &Path, format: ExchangeFormat) -> Result<(Vec<PreferenceRecord>, usize)> {
    let wrong = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let text = || std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")));
    let json = || serde_json::from_str::<Value>(&text()?).map_err(|e| wrong(format!("not JSON: {e}")));
    let records = match format {
        ExchangeFormat::Preferences | ExchangeFormat::Trl | ExchangeFormat::TrlChat => files::read_preferences(path)?,
        ExchangeFormat::Csv => csv::read(&text()?).map_err(wrong)?,
        ExchangeFormat::LabelStudio => label_studio::read(&json()?).map_err(wrong)?,
        ExchangeFormat::Argilla => {
            let found = argilla::read(&json()?).map_err(wrong)?;
            return Ok((found.records, found.drafts));
        }
        ExchangeFormat::Judgements => return Err(wrong("judgements go into a database".into())),
        ExchangeFormat::Rankings => return Err(wrong("rankings are written, not imported".into())),
    };
    Ok((records, 0))
}

/// Writes answers as preferences or for another tool.
///
/// # Errors
/// A database or file that cannot be read; a rule where none is used; what writing reports.
pub fn export(args: &AnnotateExportArgs) -> Result<()> {
    let rule: Option<Rule> = args.aggregate.as_deref().map(str::parse).transpose().map_err(Error::Input)?;
    let by_vote = match args.format {
        ExchangeFormat::Judgements => Some("judgements have the label of most votes"),
        ExchangeFormat::Rankings => Some("rankings are written vote by vote"),
        ExchangeFormat::LabelStudio | ExchangeFormat::Argilla | ExchangeFormat::Csv => {
            Some("this format holds the votes themselves")
        }
        ExchangeFormat::Preferences | ExchangeFormat::Trl | ExchangeFormat::TrlChat => None,
    };
    if let (Some(why), Some(_)) = (by_vote, rule) {
        return Err(Error::Input(format!("--aggregate is for preferences and trl: {why}; leave it out")));
    }
    match args.format {
        ExchangeFormat::Judgements => export_judgements(args),
        ExchangeFormat::Rankings => export_rankings(args),
        _ => write(&preferences(args, rule)?, args),
    }
}

/// The preferences of a database; or of a file, with its answers where no rule was named.
fn preferences(args: &AnnotateExportArgs, rule: Option<Rule>) -> Result<Vec<PreferenceRecord>> {
    let path = match (&args.db, &args.input) {
        (Some(db), _) => {
            return block_on(async { collected(&Store::open_existing(db).await?, rule.unwrap_or_default()).await });
        }
        (None, Some(path)) => path,
        (None, None) => return Err(Error::Input("name --db or --in".into())),
    };
    let mut records = files::read_preferences(path)?;
    if let Some(rule) = rule {
        let wrong = |what| Error::Input(format!("{}: {what}", path.display()));
        aggregate::anew(&mut records, rule).map_err(wrong)?;
    }
    Ok(records)
}

fn export_judgements(args: &AnnotateExportArgs) -> Result<()> {
    let Some(db) = &args.db else { return Err(Error::Input("--format judgements needs --db".into())) };
    let records = block_on(async {
        let store = Store::open_existing(db).await?;
        let (items, votes) = (store.items().await?, store.votes().await?);
        Ok(aggregate::judgements(&items, &votes, &store.resolutions().await?))
    })?;
    files::write_all(&args.out, &records)?;
    eprintln!("{} judged completions", records.len());
    Ok(())
}

fn export_rankings(args: &AnnotateExportArgs) -> Result<()> {
    let Some(db) = &args.db else { return Err(Error::Input("--format rankings needs --db".into())) };
    let records = block_on(async {
        let store = Store::open_existing(db).await?;
        let (items, votes) = (store.items().await?, store.votes().await?);
        Ok(aggregate::rankings(&items, &votes, &store.resolutions().await?))
    })?;
    files::write_all(&args.out, &records)?;
    eprintln!("{} rankings", records.len());
    Ok(())
}

fn write(records: &[PreferenceRecord], args: &AnnotateExportArgs) -> Result<()> {
    let pretty = |value: Value| format!("{value:#}\n");
    let text = match args.format {
        ExchangeFormat::Preferences | ExchangeFormat::Judgements | ExchangeFormat::Rankings => {
            files::write_all(&args.out, records)?;
            eprintln!("{} preferences", records.len());
            return Ok(());
        }
        ExchangeFormat::Csv => csv::write(records),
        ExchangeFormat::LabelStudio => pretty(label_studio::write(records)),
        ExchangeFormat::Argilla => pretty(argilla::write(records)),
        ExchangeFormat::Trl => trl(records, args.ties, Layout::Plain),
        ExchangeFormat::TrlChat => trl(records, args.ties, Layout::Conversational),
    };
    write_atomic(&args.out, text.as_bytes())?;
    Ok(())
}

/// TRL rows; what they cannot express is counted aloud.
fn trl(records: &[PreferenceRecord], ties: TiesArg, layout: Layout) -> String {
    let rule = match ties {
        TiesArg::Keep => Ties::Keep,
        TiesArg::Drop => Ties::Drop,
    };
    let rows: Vec<Value> = records.iter().flat_map(|record| export_trl(record, rule, layout)).collect();
    let without = records.iter().filter(|r| r.p_first.is_none()).count();
    let tied = records.iter().filter(|r| r.p_first == Some(0.5)).count();
    let fate = if ties == TiesArg::Keep { "as two rows each" } else { "dropped" };
    eprintln!("{} rows; {tied} ties {fate}; {without} both bad or skipped have none", rows.len());
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// The agreement measures of a file or a database.
///
/// # Errors
/// What cannot be read; a file without votes.
pub fn measure(args: &AgreementArgs) -> Result<Agreement> {
    let found: Vec<Rating> = match (&args.db, &args.input) {
        (Some(db), _) => block_on(async {
            let store = Store::open_existing(db).await?;
            Ok(ratings(&store.items().await?, &store.votes().await?))
        })?,
        (None, Some(path)) => rated_once(path)?,
        (None, None) => return Err(Error::Input("name --in or --db".into())),
    };
    if found.is_empty() {
        let place = args.input.as_ref().map(|path| path.display().to_string()).or_else(|| args.db.clone());
        return Err(Error::Input(format!(
            "{}: there are no votes to compare; agreement needs records with `votes`",
            place.unwrap_or_default()
        )));
    }
    Ok(agreement(&found))
}

/// The ratings of a file, in which nobody may answer an item twice: such votes agree with themselves.
fn rated_once(path: &Path) -> Result<Vec<Rating>> {
    let records = files::read_preferences(path)?;
    for record in &records {
        let mut seen = BTreeSet::new();
        if let Some(twice) = record.votes.iter().find(|vote| !seen.insert(vote.annotator.as_str())) {
            return Err(Error::Input(format!(
                "{}: record `{}` has two votes of `{}`; keep the one that counts",
                path.display(),
                record.id,
                twice.annotator
            )));
        }
    }
    Ok(records.iter().flat_map(rated).collect())
}

fn rated(record: &PreferenceRecord) -> Vec<Rating> {
    let rating = |vote: &Vote| {
        let (category, ordinal) = compared(vote.answer, vote.strength)?;
        Some(Rating { unit: record.id.clone(), annotator: vote.annotator.clone(), category, ordinal })
    };
    record.votes.iter().filter_map(rating).collect()
}

/// The measures as lines of text.
pub fn render(a: &Agreement) -> String {
    let interval = |value: Option<gainsay_core::stats::Interval>| value.map_or("undefined".into(), |i| i.to_string());
    let kappa = |value: Option<f64>| value.map_or("undefined".to_owned(), |k| format!("{k:.3}"));
    let mut out = format!("{} ratings; {} items with two or more\n", a.ratings, a.units);
    out.push_str(&format!("Krippendorff's alpha, nominal  {}\n", interval(a.alpha_nominal)));
    out.push_str(&format!("Krippendorff's alpha, ordinal  {}\n", interval(a.alpha_ordinal)));
    if let Some(f) = &a.fleiss {
        out.push_str(&format!(
            "Fleiss' kappa                  {} ({} items, {} ratings each)\n",
            kappa(f.kappa),
            f.units,
            f.raters
        ));
    }
    for pair in &a.cohen {
        let equal = 100.0 * pair.equal;
        let line = format!(
            "Cohen's kappa                  {} ({} and {}: {equal:.1} % equal of {})\n",
            kappa(pair.kappa),
            pair.a,
            pair.b,
            pair.units
        );
        out.push_str(&line);
    }
    out
}
