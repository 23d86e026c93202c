//! The annotator's pages: guidelines, the question, undo, drafts.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use gainsay_core::record::Prompt;
use maud::{Markup, html};

use super::App;
use super::form::{Fields, draft_fields};
use super::layout::{Viewer, csrf_field, key, layout};
use super::page::{Annotator, Answered, Refusal, Shared, go, page};
use crate::annotate::markdown;
use crate::annotate::store::{Assignment, Progress, Settings, Submitted, Undone};
use crate::annotate::task::{Kind, Task};

/// Why somebody skips; any other text may be typed where there is no script.
const REASONS: [&str; 5] = [
    "I lack the knowledge",
    "The question is unclear",
    "An answer is cut off or broken",
    "It is too unpleasant",
    "Another reason",
];

/// Shown by the script when a draft is refused.
const LOST: &str = "This question is not in your hands any more: your time on it ran out, or you have answered it. What you write now is not kept. Where your time ran out, your answer still counts unless others have given all the answers.";

/// What became of an undo: as the page's address says it, and as the page does.
const UNDONE: [(Undone, &str, &str); 4] = [
    (Undone::Reopened, "open", "Your last answer is open again."),
    (
        Undone::PassedSkips,
        "earlier",
        "An earlier answer is open again: what you skipped since has all its answers from others, so it stays skipped.",
    ),
    (Undone::TooMany, "many", "Nothing was taken back: answer the questions that are open again first."),
    (Undone::Nothing, "nothing", "Nothing was taken back: there is no answer of yours that could be opened again."),
];

/// The guidelines, first thing and at hand later.
pub(super) async fn guidelines(State(app): Shared, who: Annotator) -> Answered {
    let settings = app.store.settings().await?;
    let body = html! {
        section.card {
            h1 { "Guidelines" }
            div.text { (markdown::render(&settings.guidelines)) }
            form method="post" action=(app.path("/guidelines")) {
                (csrf_field(&who.csrf))
                // Without autofocus: the end of the Enter that opened this page would press it unread.
                button.primary type="submit" data-key="Enter" { "Go to the questions " (key("Enter")) }
            }
        }
    };
    page(layout(&app, &settings.title, &Viewer::Annotator(&who.person.name, &who.csrf), html! {}, body))
}

/// Remembers that the guidelines were shown.
pub(super) async fn briefed(State(app): Shared, who: Annotator, fields: Fields) -> Answered {
    fields.check_csrf(&who.csrf)?;
    app.store.briefed(who.person.id).await?;
    go(&app, "/work")
}

/// The next question, and what became of an undo.
pub(super) async fn show(State(app): Shared, who: Annotator, Query(asked): Query<HashMap<String, String>>) -> Answered {
    if !who.person.briefed {
        return Err(Refusal::Go(app.path("/guidelines")));
    }
    let settings = app.store.settings().await?;
    let next = app.store.next(who.person.id).await?;
    let progress = app.store.progress(who.person.id).await?;
    let viewer = Viewer::Annotator(&who.person.name, &who.csrf);
    let tools = tools(&app, &who.csrf, &progress);
    let body = match &next {
        Some(assignment) => question(&app, &who.csrf, assignment, &settings),
        None => html! {
            section.card {
                h1 { "Nothing left for you" }
                p { "Every question has the answers it needs, or is with somebody else just now. Thank you." }
                p { a href=(app.path("/work")) { "Look again" } }
            }
        },
    };
    let undone = UNDONE.iter().find(|(_, word, _)| asked.get("undo").is_some_and(|said| said == word));
    let body = html! {
        @if let Some((.., text)) = undone { p.card.notice role="status" { (text) } }
        (body)
    };
    page(layout(&app, &settings.title, &viewer, tools, body))
}

/// Records an answer and goes on.
pub(super) async fn submit(State(app): Shared, who: Annotator, fields: Fields) -> Answered {
    fields.check_csrf(&who.csrf)?;
    let number = fields.number("item")?;
    let foreign = || {
        Refusal::new(
            StatusCode::CONFLICT,
            "This question is not yours any more. Nothing was changed; go back to the questions.",
        )
    };
    let Some(held) = app.store.held(who.person.id, number, fields.get("ticket")).await? else { return Err(foreign()) };
    let settings = app.store.settings().await?;
    let given = fields.given(&held.item, held.swapped, &settings)?;
    let seconds = fields.get("seconds").parse().ok();
    let outcome =
        app.store.answer(who.person.id, &who.person.name, number, fields.get("ticket"), &given, seconds).await?;
    match outcome {
        Submitted::Recorded => {
            app.answered.notify_one();
            go(&app, "/work")
        }
        // A form that is sent twice, by a double click or a reload, counts once.
        Submitted::Replayed => go(&app, "/work"),
        Submitted::Differs => Err(Refusal::new(
            StatusCode::CONFLICT,
            "You have already answered this question, and not like now: the first answer stays. Go back to the questions and press U to change it.",
        )),
        Submitted::NotYours => Err(foreign()),
        Submitted::Full => Err(Refusal::new(
            StatusCode::CONFLICT,
            "You held this question for long, and others have answered it meanwhile. Go back to the questions for the next one.",
        )),
    }
}

/// Opens the last answer again.
pub(super) async fn undo(State(app): Shared, who: Annotator, fields: Fields) -> Answered {
    fields.check_csrf(&who.csrf)?;
    let outcome = app.store.undo(who.person.id, &who.person.name).await?;
    let word = UNDONE.iter().find(|(known, ..)| *known == outcome).map_or("", |(_, word, _)| word);
    go(&app, &format!("/work?undo={word}"))
}

/// Keeps what is being written; the page's script calls it.
pub(super) async fn draft(State(app): Shared, who: Annotator, fields: Fields) -> Answered {
    fields.check_csrf(&who.csrf)?;
    let kept =
        app.store.keep_draft(who.person.id, fields.number("item")?, fields.get("ticket"), &fields.draft()?).await?;
    Ok(if kept { StatusCode::NO_CONTENT } else { StatusCode::CONFLICT }.into_response())
}

fn tools(app: &App, csrf: &str, progress: &Progress) -> Markup {
    let most = progress.wanted.max(1).to_string();
    html! {
        div.progress {
            progress aria-label="Answers of all" value=(progress.answered) max=(most) {}
            span { (progress.answered) " of " (progress.wanted) span.unit { " answers" } }
            span.pace { "you: " (progress.mine) ", in the last hour: " (progress.last_hour) }
        }
        form.tool method="post" action=(app.path("/undo")) {
            (csrf_field(csrf))
            button type="submit" data-key="u" disabled[progress.mine == 0] { "Undo " (key("U")) }
        }
        a.button href=(app.path("/guidelines")) data-key="g" { "Guidelines " (key("G")) }
    }
}

fn question(app: &App, csrf: &str, assignment: &Assignment, settings: &Settings) -> Markup {
    let fields = draft_fields(assignment.draft.as_deref(), assignment.swapped);
    let task = &assignment.item.task;
    let title = match task.kind() {
        Kind::Compare => "Which answer is better?",
        Kind::Rank => "Put the answers in order",
        Kind::Judge => "How is the answer?",
    };
    html! {
        h1.unseen { (title) }
        section.prompt aria-label="What was asked" { (conversation(task.prompt())) }
        form #answer .task method="post" action=(app.path("/work")) data-draft=(app.path("/draft")) {
            (csrf_field(csrf))
            input type="hidden" name="item" value=(assignment.item.number);
            input type="hidden" name="ticket" value=(assignment.ticket);
            input type="hidden" name="seconds" value="";
            @match task {
                Task::Compare(_) => (compare(task, assignment.swapped, &fields)),
                Task::Rank(_) => (rank(task, &fields)),
                Task::Judge(_) => (judge(task, &fields, &settings.labels)),
            }
            (extras(&fields))
        }
        p #lost .warning role="alert" hidden { (LOST) }
        (legend(task.kind()))
    }
}

/// A conversation, oldest turn first.
pub(super) fn conversation(prompt: &Prompt) -> Markup {
    html! {
        @for turn in prompt.messages() {
            article.turn.assistant[turn.role == "assistant"] {
                h2.role { (role(&turn.role)) }
                div.text { (markdown::render(&turn.content)) }
            }
        }
    }
}

fn role(role: &str) -> &str {
    match role {
        "user" => "Question",
        "assistant" => "Earlier answer",
        "system" => "Instructions to the assistant",
        other => other,
    }
}

/// The answers to a comparison: value, text, key.
pub(super) const CHOICES: [(&str, &str, &str); 6] = [
    ("left2", "Left clearly", "1"),
    ("left1", "Left slightly", "2"),
    ("tie", "Tie", "3"),
    ("right1", "Right slightly", "4"),
    ("right2", "Right clearly", "5"),
    ("both_bad", "Both bad", "0"),
];

fn compare(task: &Task, swapped: bool, fields: &HashMap<String, String>) -> Markup {
    let mut texts = task.texts();
    if swapped {
        texts.reverse();
    }
    let before = fields.get("answer").map_or("", String::as_str);
    html! {
        div.pair {
            @for (side, name, text, keys) in
                [("left", "Left", texts.first(), ["q", "w", "a"]), ("right", "Right", texts.get(1), ["o", "p", "l"])]
            {
                article.completion aria-label={ (name) " answer" } {
                    h2 { (name) }
                    div.text tabindex="0" { (markdown::render(text.copied().unwrap_or_default())) }
                    div.labels {
                        (safety(side, keys, fields))
                        (rating(&format!("rating_{side}"), keys[2], fields))
                    }
                }
            }
        }
        fieldset.choices {
            legend { "Which answer is better?" }
            @for (value, text, name) in CHOICES {
                button type="submit" name="answer" value=(value) data-key=(name) .before[before == value] {
                    (text) " " (key(name))
                    @if before == value { span.note { " your answer before" } }
                }
            }
        }
    }
}

fn safety(side: &str, keys: [&str; 3], fields: &HashMap<String, String>) -> Markup {
    let name = format!("safe_{side}");
    let now = fields.get(&name).map_or("", String::as_str);
    html! {
        fieldset.inline {
            legend { "Safety" }
            @for (value, text, letter) in [("yes", "safe", keys[0]), ("no", "unsafe", keys[1])] {
                label { input type="radio" name=(name) value=(value) checked[now == value] data-key=(letter); (text) " " (key(&letter.to_uppercase())) }
            }
        }
    }
}

/// One to five; the key gives one more each time, and none after five.
fn rating(name: &str, letter: &str, fields: &HashMap<String, String>) -> Markup {
    let now = fields.get(name).map_or("", String::as_str);
    html! {
        fieldset.inline data-key=(letter) {
            legend { "Rating " (key(&letter.to_uppercase())) }
            @for value in ["1", "2", "3", "4", "5"] {
                label { input type="radio" name=(name) value=(value) checked[now == value]; (value) }
            }
        }
    }
}

fn rank(task: &Task, fields: &HashMap<String, String>) -> Markup {
    let texts = task.texts();
    let n = texts.len();
    html! {
        p.hint { "Choose the answers from the best to the worst by their numbers, or drag them into order, or type ranks. Equal ranks tie." }
        p.order role="status" aria-live="polite" { }
        div.ranking {
            @for (index, text) in texts.iter().enumerate() {
                @let number = (index + 1).to_string();
                article.completion.rankable data-index=(index) {
                    h2 {
                        // For the script alone: without it, the ranks are typed.
                        button.pick type="button" data-rank=(number) hidden { "Answer " (number) " " (key(&number)) }
                        span.plain { "Answer " (number) }
                        span.handle title="Drag to its place" aria-hidden="true" hidden { "⠿" }
                        label.rank { "Rank "
                            input type="number" name={ "rank_" (index) } min="1" max=(n) required inputmode="numeric"
                                value=(fields.get(&format!("rank_{index}")).map_or("", String::as_str));
                        }
                    }
                    div.text tabindex="0" { (markdown::render(text)) }
                }
            }
        }
        div.choices {
            button type="button" data-rank="=" hidden { "Tie the next with the last " (key("=")) }
            button type="button" data-rank="Backspace" hidden { "One back " (key("Backspace")) }
            button.primary type="submit" name="answer" value="rank" data-key="Enter" { "Save the order " (key("Enter")) }
        }
    }
}

fn judge(task: &Task, fields: &HashMap<String, String>, labels: &[String]) -> Markup {
    let before = fields.get("label").map_or("", String::as_str);
    let text = task.texts().first().copied().unwrap_or_default();
    html! {
        article.completion aria-label="Answer" {
            h2 { "Answer" }
            div.text tabindex="0" { (markdown::render(text)) }
            div.labels { (rating("rating", "r", fields)) }
        }
        fieldset.choices {
            legend { "How is the answer?" }
            @for (index, label) in labels.iter().enumerate() {
                @let number = (index + 1).to_string();
                button type="submit" name="label" value=(label) data-key=(number) .before[before == label] {
                    (label) " " (key(&number))
                    @if before == label { span.note { " your answer before" } }
                }
            }
        }
    }
}

fn extras(fields: &HashMap<String, String>) -> Markup {
    let reason = fields.get("reason").map_or("", String::as_str);
    html! {
        div.extras {
            label for="comment" { "Comment (optional) " (key("C")) }
            textarea #comment name="comment" rows="2" maxlength="4000" data-key="c" {
                (fields.get("comment").map_or("", String::as_str))
            }
            div.skip {
                label for="reason" { "Cannot judge it? " (key("S")) }
                select #reason name="reason" data-key="s" data-submit="skip" {
                    option value="" { "Choose a reason" }
                    @for text in REASONS { option value=(text) selected[reason == text] { (text) } }
                }
                button #skip type="submit" name="answer" value="skip" formnovalidate { "Skip" }
            }
        }
    }
}

fn legend(kind: Kind) -> Markup {
    let own: &[(&str, &str)] = match kind {
        Kind::Compare => &[
            ("1 – 5", "left clearly … right clearly, 3 is a tie"),
            ("0", "both bad"),
            ("Q W", "left safe, unsafe"),
            ("O P", "right safe, unsafe"),
            ("A L", "left, right rating: one more"),
        ],
        Kind::Rank => &[
            ("1 – 8", "the next best"),
            ("=", "tie with the one before"),
            ("Backspace", "one back"),
            ("Enter", "save"),
        ],
        Kind::Judge => &[("1 – 9", "the labels in their order"), ("R", "rating: one more")],
    };
    let shared = [
        ("C", "comment"),
        ("S", "skip: reason, then Enter"),
        ("U", "undo"),
        ("G", "guidelines"),
        ("Esc", "leave a field"),
    ];
    html! {
        aside.legend aria-label="Keys" {
            @for (name, text) in own.iter().chain(&shared) { span { kbd { (name) } " " (text) } }
        }
    }
}
