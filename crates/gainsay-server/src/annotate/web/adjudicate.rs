//! Items on which annotators contradict each other, and the admin's decision.

use axum::extract::State;
use maud::{Markup, html};

use super::App;
use super::form::Fields;
use super::layout::{Viewer, csrf_field, layout};
use super::page::{Admin, Answered, Refusal, Shared, go, page};
use super::work::conversation;
use crate::annotate::markdown;
use crate::annotate::measure::disagreements;
use crate::annotate::store::{ItemRow, Settings, VoteRow};
use crate::annotate::task::{Given, Response, Task};

/// The first open disagreement, and how many there are.
pub(super) async fn show(State(app): Shared, admin: Admin) -> Answered {
    let (items, votes, decided) = (app.store.items().await?, app.store.votes().await?, app.store.resolutions().await?);
    let settings = app.store.settings().await?;
    let open = disagreements(&items, &votes, &decided);
    let body = html! {
        h1 { "Disagreements" }
        p { (open.len()) " open, " (decided.len()) " decided." }
        @match open.first() {
            Some((item, votes)) => (one(&app, &admin.csrf, item, votes, &settings)),
            None => section.card { p { "No open disagreement." } },
        }
    };
    page(layout(&app, "Disagreements", &Viewer::Admin(&admin.csrf), html! {}, body))
}

/// Records a decision.
pub(super) async fn decide(State(app): Shared, admin: Admin, fields: Fields) -> Answered {
    fields.check_csrf(&admin.csrf)?;
    let number = fields.number("item")?;
    let reason = fields.text("why")?;
    let Some(item) = app.store.item(number).await? else { return Err(Refusal::bad("there is no such item")) };
    let settings = app.store.settings().await?;
    let votes = app.store.votes().await?;
    let said: Vec<&VoteRow> = votes.iter().filter(|vote| vote.item == number).collect();
    let chosen = options(&item, &said, &settings).into_iter().find(|(value, ..)| *value == fields.get("decision"));
    let Some((_, _, response)) = chosen else { return Err(Refusal::bad("choose one of the answers")) };
    app.store.resolve(number, &Given { response, comment: String::new() }, &reason).await?;
    app.answered.notify_one();
    go(&app, "/admin/disagreements")
}

/// What the admin may decide: value, text, response.
fn options(item: &ItemRow, votes: &[&VoteRow], settings: &Settings) -> Vec<(String, String, Response)> {
    use gainsay_core::record::Answer;
    let option = |response: Response, text: String| (response.words(), text, response);
    match &item.task {
        Task::Compare(_) => [
            (Answer::First, "First is better"),
            (Answer::Second, "Second is better"),
            (Answer::Tie, "Tie"),
            (Answer::BothBad, "Both bad"),
        ]
        .map(|(answer, text)| {
            let response = Response::Compare {
                answer,
                strength: None,
                safe_first: None,
                safe_second: None,
                rating_first: None,
                rating_second: None,
            };
            option(response, text.into())
        })
        .into(),
        Task::Judge(_) => settings
            .labels
            .iter()
            .map(|label| option(Response::Judge { label: label.clone(), rating: None }, label.clone()))
            .collect(),
        Task::Rank(_) => {
            let mut seen: Vec<(String, String, Response)> = Vec::new();
            for vote in votes.iter().filter(|vote| !vote.given.response.is_skip()) {
                let words = vote.given.response.words();
                if !seen.iter().any(|(known, ..)| *known == words) {
                    seen.push(option(vote.given.response.clone(), words));
                }
            }
            seen
        }
    }
}

fn one(app: &App, csrf: &str, item: &ItemRow, votes: &[&VoteRow], settings: &Settings) -> Markup {
    let names: Vec<String> = match &item.task {
        Task::Compare(_) => vec!["First".into(), "Second".into()],
        Task::Rank(record) => (1..=record.completions.len()).map(|n| format!("Answer {n}")).collect(),
        Task::Judge(_) => vec!["Answer".into()],
    };
    html! {
        p.hint { "Item " code { (item.task.id()) } }
        section.prompt aria-label="What was asked" { (conversation(item.task.prompt())) }
        div.pair {
            @for (name, text) in names.iter().zip(item.task.texts()) {
                article.completion { h2 { (name) } div.text tabindex="0" { (markdown::render(text)) } }
            }
        }
        section.card {
            h2 { "What annotators said" }
            div.scroll tabindex="0" role="region" aria-label="Answers" {
            table {
                thead { tr { th { "Who" } th { "Answer" } th { "Comment" } th { "Time" } } }
                tbody {
                    @for vote in votes {
                        tr { td { (vote.annotator) } td { (said(&vote.given.response)) } td { (vote.given.comment) } td.number { (format!("{:.0} s", vote.seconds)) } }
                    }
                }
            }
            }
        }
        form.card.stack method="post" action=(app.path("/admin/disagreements")) {
            h2 { "Decide" }
            (csrf_field(csrf))
            input type="hidden" name="item" value=(item.number);
            label for="why" { "Why (optional)" }
            textarea #why name="why" rows="2" maxlength="4000" data-key="c" {}
            div.choices {
                @for (index, (value, text, _)) in options(item, votes, settings).iter().enumerate() {
                    @let number = (index + 1).to_string();
                    button type="submit" name="decision" value=(value) data-key=(number) { (text) " " (super::layout::key(&number)) }
                }
            }
        }
    }
}

/// An answer with its strength and labels.
fn said(response: &Response) -> String {
    match response {
        Response::Compare { strength, safe_first, safe_second, .. } => {
            let mut text = response.words().replace('_', " ");
            match strength {
                Some(2) => text.push_str(", clearly"),
                Some(_) => text.push_str(", slightly"),
                None => {}
            }
            for (name, safe) in [("first", safe_first), ("second", safe_second)] {
                if let Some(safe) = safe {
                    text.push_str(&format!("; {name} {}", if *safe { "safe" } else { "unsafe" }));
                }
            }
            text
        }
        Response::Judge { rating: Some(rating), .. } => format!("{}, rating {rating}", response.words()),
        other => other.words(),
    }
}
