//! The admin's overview.

use axum::extract::State;
use gainsay_core::stats::Interval;
use maud::{Markup, html};

use super::App;
use super::layout::{Viewer, layout};
use super::live::curve;
use super::page::{Admin, Answered, Refusal, Shared, page};
use crate::annotate::measure::{self, Agreement, PersonMeasures, Sides};
use crate::annotate::store::{ItemRow, Resolution, Settings, VoteRow};

/// Everything that the overview shows.
struct Overview {
    items: usize,
    checks: usize,
    complete: usize,
    answers: usize,
    skips: usize,
    seconds: f64,
    last_hour: usize,
    open: usize,
    decided: usize,
    agreement: Agreement,
    people: Vec<PersonMeasures>,
    sides: Sides,
}

/// The overview.
pub(super) async fn show(State(app): Shared, admin: Admin) -> Answered {
    let settings = app.store.settings().await?;
    let (items, votes, decided) = (app.store.items().await?, app.store.votes().await?, app.store.resolutions().await?);
    let now = crate::annotate::store::now();
    let overlap = settings.overlap;
    let overview =
        tokio::task::spawn_blocking(move || overview(&items, &votes, &decided, now, overlap)).await.map_err(|_| {
            Refusal::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "The measures could not be computed.")
        })?;
    let body = html! {
        h1 { (settings.title) }
        (tiles(&overview, &settings))
        @if app.live.is_some() { (curve(&app)) }
        (agreement(&overview.agreement))
        (people(&overview.people))
        (sides(&overview.sides))
        (exports(&app))
    };
    page(layout(&app, "Dashboard", &Viewer::Admin(&admin.csrf), html! {}, body))
}

fn overview(items: &[ItemRow], votes: &[VoteRow], decided: &[Resolution], now: i64, overlap: i64) -> Overview {
    let checks: std::collections::HashSet<i64> =
        items.iter().filter(|i| i.expected.is_some()).map(|i| i.number).collect();
    let mut given: std::collections::HashMap<i64, i64> = std::collections::HashMap::new();
    let answered = votes.iter().filter(|v| !v.given.response.is_skip());
    answered.clone().for_each(|v| *given.entry(v.item).or_default() += 1);
    Overview {
        items: items.len() - checks.len(),
        checks: checks.len(),
        complete: given.iter().filter(|(item, n)| **n >= overlap && !checks.contains(item)).count(),
        answers: answered.clone().count(),
        skips: votes.len() - answered.count(),
        seconds: votes.iter().map(|v| v.seconds).sum(),
        last_hour: votes.iter().filter(|v| v.at > now - 3_600_000).count(),
        open: measure::disagreements(items, votes, decided).len(),
        decided: decided.len(),
        agreement: measure::agreement(&measure::ratings(items, votes)),
        people: measure::people(items, votes),
        sides: measure::sides(items, votes, decided),
    }
}

fn tile(name: &str, value: impl std::fmt::Display, note: &str) -> Markup {
    html! { div.tile { span.value { (value.to_string()) } span.name { (name) } span.note { (note) } } }
}

fn tiles(o: &Overview, settings: &Settings) -> Markup {
    let hours = o.seconds / 3600.0;
    let cost = hours * settings.cost_per_hour;
    let each = if o.answers > 0 { cost / o.answers as f64 } else { 0.0 };
    html! {
        div.tiles {
            (tile("items complete", format!("{} of {}", o.complete, o.items), &format!("overlap {}, {} gold checks", settings.overlap, o.checks)))
            (tile("answers", o.answers, &format!("{} skips", o.skips)))
            (tile("in the last hour", o.last_hour, "answers and skips"))
            (tile("time at work", duration(o.seconds), "as measured in the browser"))
            @if settings.cost_per_hour > 0.0 { (tile("cost so far", format!("{cost:.2}"), &format!("{each:.3} an answer"))) }
            (tile("open disagreements", o.open, &format!("{} decided", o.decided)))
        }
    }
}

/// `20 s`, `3 min 20 s`, from an hour on `2.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 3600.0 => format!("{:.1} h", s / 3600.0),
        s if s < 60.0 => format!("{:.0} s", s.floor()),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

fn interval(value: Option<Interval>) -> Markup {
    match value {
        None => html! { "–" },
        Some(i) if i.low.is_finite() && i.high.is_finite() => {
            html! { (format!("{:.3}", i.estimate)) span.note { (format!(" [{:.3}, {:.3}]", i.low, i.high)) } }
        }
        Some(i) => html! { (format!("{:.3}", i.estimate)) span.note { " too few for an interval" } },
    }
}

fn share(value: Option<Interval>) -> Markup {
    match value {
        None => html! { "–" },
        Some(i) => html! {
            (format!("{:.0} %", 100.0 * i.estimate))
            span.note { (format!(" [{:.0}, {:.0}] of {}", 100.0 * i.low, 100.0 * i.high, i.n)) }
        },
    }
}

fn kappa(value: Option<f64>) -> String {
    value.map_or("–".into(), |k| format!("{k:.3}"))
}

fn agreement(a: &Agreement) -> Markup {
    html! {
        section.card {
            h2 { "Agreement" }
            p.hint { "Corrected for chance: 1 is perfect, 0 is that of chance. " (a.units) " items have two answers or more. Brackets are 95 % intervals over items." }
            div.scroll tabindex="0" role="region" aria-label="Agreement" {
            table {
                tbody {
                    tr { th scope="row" { "Krippendorff's alpha, which answer" } td.number { (interval(a.alpha_nominal)) } }
                    tr { th scope="row" { "Krippendorff's alpha, how strongly (ordered)" } td.number { (interval(a.alpha_ordinal)) } }
                    @if let Some(f) = &a.fleiss {
                        tr { th scope="row" { "Fleiss' kappa, " (f.units) " items with " (f.raters) " answers" } td.number { (kappa(f.kappa)) } }
                    }
                    @for pair in &a.cohen {
                        tr {
                            th scope="row" { "Cohen's kappa, " (pair.a) " and " (pair.b) }
                            td.number { (kappa(pair.kappa)) span.note { (format!(" {:.0} % equal of {}", 100.0 * pair.equal, pair.units)) } }
                        }
                    }
                }
            }
            }
        }
    }
}

fn people(people: &[PersonMeasures]) -> Markup {
    html! {
        section.card {
            h2 { "Annotators" }
            p.hint { "Sides are random, so an unbiased annotator takes the left one half of the time. How often the longer answer should win is not known; compare annotators." }
            div.scroll tabindex="0" role="region" aria-label="Annotators" {
            table {
                thead { tr { th { "Name" } th { "Answers" } th { "Skips" } th { "Median time" } th { "Gold checks right" } th { "Takes the left" } th { "Takes the longer" } } }
                tbody {
                    @for p in people {
                        tr {
                            td { (p.name) }
                            td.number { (p.answers) }
                            td.number { (p.skips) }
                            td.number { (p.median_seconds.map_or("–".into(), |s| format!("{s:.1} s"))) }
                            td.number { (share(p.gold)) }
                            td.number { (share(p.left)) }
                            td.number { (share(p.longer)) }
                        }
                    }
                    @if people.is_empty() { tr { td colspan="7" { "No answers yet." } } }
                }
            }
            }
        }
    }
}

fn sides(s: &Sides) -> Markup {
    let n = s.for_reward + s.against_reward;
    html! {
        section.card {
            h2 { "Reward model against policy" }
            @if n + s.undecided == 0 {
                p { "No answered item says where the two contradict each other." }
            } @else {
                p { "People sided with the reward model on " strong { (s.for_reward) } " items and against it on "
                    strong { (s.against_reward) } "; " (s.undecided) " are undecided." }
                p.hint { "With the reward model: for the completion of higher PACS, which it values more than the policy finds likely." }
            }
        }
    }
}

fn exports(app: &App) -> Markup {
    html! {
        section.card {
            h2 { "Export" }
            p.links {
                @for (name, text) in super::export::NAMES {
                    a.button href=(app.path(&format!("/admin/export/{name}"))) download { (text) }
                }
            }
        }
    }
}
