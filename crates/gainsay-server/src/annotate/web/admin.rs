//! People, settings, the audit trail.

use axum::extract::State;
use maud::{Markup, html};

use super::App;
use super::form::Fields;
use super::layout::{Viewer, csrf_field, layout};
use super::page::{Admin, Answered, Refusal, Shared, go, page};
use crate::annotate::store::{Person, Settings};

/// The annotators, and a form that invites one.
pub(super) async fn people(State(app): Shared, admin: Admin) -> Answered {
    let people = app.store.people().await?;
    page(people_page(&app, &admin.csrf, &people, None))
}

/// Makes an invite; its link is shown this once.
pub(super) async fn invite(State(app): Shared, admin: Admin, fields: Fields) -> Answered {
    fields.check_csrf(&admin.csrf)?;
    let name = fields.text("name")?;
    let token = app.store.invite(&name).await?;
    let link = match &app.origin {
        Some(origin) => format!("{origin}{}", app.path(&format!("/invite/{token}"))),
        None => app.path(&format!("/invite/{token}")),
    };
    let people = app.store.people().await?;
    page(people_page(&app, &admin.csrf, &people, Some((&name, &link))))
}

/// Lets somebody answer, or no longer.
pub(super) async fn access(State(app): Shared, admin: Admin, fields: Fields) -> Answered {
    fields.check_csrf(&admin.csrf)?;
    app.store.set_active(fields.number("annotator")?, fields.get("active") == "yes").await?;
    go(&app, "/admin/people")
}

fn people_page(app: &App, csrf: &str, people: &[Person], invited: Option<(&str, &str)>) -> Markup {
    let body = html! {
        h1 { "People" }
        @if let Some((name, link)) = invited {
            section.card.notice role="status" {
                p { "The link for " strong { (name) } ". It works once, within a week, and is shown only now:" }
                p { a #invite-link href=(link) data-absolute { (link) } }
            }
        }
        section.card {
            h2 { "Invite" }
            form.row method="post" action=(app.path("/admin/people")) {
                (csrf_field(csrf))
                label for="name" { "Name" }
                input #name name="name" required maxlength="60" autocomplete="off";
                button.primary type="submit" { "Make a link" }
            }
            p.hint { "The same name again gives the same person another link, for another device." }
        }
        section.card {
            h2 { "Annotators" }
            div.scroll tabindex="0" role="region" aria-label="Annotators" {
            table {
                thead { tr { th { "Name" } th { "Answers and skips" } th { "Access" } } }
                tbody {
                    @for person in people {
                        tr {
                            td { (person.name) }
                            td.number { (person.answered) }
                            td {
                                form.row method="post" action=(app.path("/admin/access")) {
                                    (csrf_field(csrf))
                                    input type="hidden" name="annotator" value=(person.id);
                                    input type="hidden" name="active" value=(if person.active { "no" } else { "yes" });
                                    button type="submit" { (if person.active { "Shut out" } else { "Let in again" }) }
                                }
                            }
                        }
                    }
                    @if people.is_empty() { tr { td colspan="3" { "Nobody yet." } } }
                }
            }
            }
        }
    };
    layout(app, "People", &Viewer::Admin(csrf), html! {}, body)
}

/// The settings.
pub(super) async fn settings(State(app): Shared, admin: Admin) -> Answered {
    let s = app.store.settings().await?;
    let body = html! {
        h1 { "Settings" }
        form.card.stack method="post" action=(app.path("/admin/settings")) {
            (csrf_field(&admin.csrf))
            label for="title" { "Title" }
            input #title name="title" value=(s.title) required maxlength="200";
            label for="overlap" { "Answers an item (overlap); a change holds at once" }
            input #overlap name="overlap" type="number" min="1" max="1000" value=(s.overlap) required;
            label for="gold_every" { "A gold check every so many answers; 0 for none" }
            input #gold_every name="gold_every" type="number" min="0" max="1000" value=(s.gold_every) required;
            label for="lease_seconds" { "An item is kept for one person, seconds" }
            input #lease_seconds name="lease_seconds" type="number" min="5" max="86400" value=(s.lease_seconds) required;
            label for="cost_per_hour" { "Pay an hour, for the cost so far; 0 to leave it out" }
            input #cost_per_hour name="cost_per_hour" inputmode="decimal" value=(s.cost_per_hour) required;
            label for="guidelines" { "Guidelines (Markdown)" }
            textarea #guidelines name="guidelines" rows="16" { (s.guidelines) }
            button.primary type="submit" { "Save" }
        }
    };
    page(layout(&app, "Settings", &Viewer::Admin(&admin.csrf), html! {}, body))
}

/// Saves the settings.
pub(super) async fn set(State(app): Shared, admin: Admin, fields: Fields) -> Answered {
    fields.check_csrf(&admin.csrf)?;
    let labels = app.store.settings().await?.labels;
    let cost = fields.get("cost_per_hour").trim().parse().map_err(|_| Refusal::bad("the pay is a number"))?;
    let settings = Settings {
        title: fields.get("title").trim().into(),
        guidelines: fields.get("guidelines").replace("\r\n", "\n"),
        overlap: fields.number("overlap")?,
        gold_every: fields.number("gold_every")?,
        lease_seconds: fields.number("lease_seconds")?,
        cost_per_hour: cost,
        labels,
    };
    app.store.set(&settings, "admin").await?;
    go(&app, "/admin/settings")
}

/// Lines of the audit trail on its page.
const AUDIT_LINES: i64 = 500;

/// The audit trail.
pub(super) async fn audit(State(app): Shared, admin: Admin) -> Answered {
    let events = app.store.events(AUDIT_LINES).await?;
    let body = html! {
        h1 { "Audit trail" }
        p.hint { "Every answer and every change, newest first; the latest " (AUDIT_LINES) ". The database keeps all." }
        div.scroll tabindex="0" role="region" aria-label="Audit trail" {
        table {
            thead { tr { th { "Time (UTC)" } th { "Who" } th { "What" } th { "Item" } th { "Detail" } } }
            tbody {
                @for event in &events {
                    tr {
                        td.number { (time(event.at)) }
                        td { (event.actor) }
                        td { span.nowrap { (event.action) } }
                        td { (event.item.as_deref().unwrap_or("")) }
                        td { code.detail { (event.detail) } }
                    }
                }
            }
        }
        }
    };
    page(layout(&app, "Audit", &Viewer::Admin(&admin.csrf), html! {}, body))
}

/// `YYYY-MM-DD hh:mm:ss` of milliseconds since 1970 (Howard Hinnant's `civil_from_days`).
fn time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_by_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(time(1_795_577_521_500), "2026-11-25 03:32:01");
    }
}
