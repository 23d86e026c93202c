//! What all pages share.

use maud::{DOCTYPE, Markup, html};

use super::App;

/// Who sees the page.
pub(super) enum Viewer<'a> {
    /// Nobody is signed in.
    Nobody,
    /// An annotator's name, and the page's session.
    Annotator(&'a str, &'a str),
    /// The admin's session.
    Admin(&'a str),
}

/// The admin's pages.
const ADMIN_PAGES: [(&str, &str); 5] = [
    ("/admin", "Dashboard"),
    ("/admin/disagreements", "Disagreements"),
    ("/admin/people", "People"),
    ("/admin/settings", "Settings"),
    ("/admin/audit", "Audit"),
];

/// A whole page. `tools` stand in the header.
pub(super) fn layout(app: &App, title: &str, viewer: &Viewer<'_>, tools: Markup, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(app.path("/icon.svg"));
                link rel="stylesheet" href=(app.path("/app.css"));
                script src=(app.path("/app.js")) defer {}
            }
            body {
                a.skip-link href="#main" { "To the content" }
                header.bar {
                    strong.brand { (title) }
                    (tools)
                    (account(app, viewer))
                }
                @if let Viewer::Admin(_) = viewer {
                    nav.tabs aria-label="Admin" {
                        @for (path, name) in &ADMIN_PAGES { a href=(app.path(path)) aria-current=[(*name == title).then_some("page")] { (name) } }
                    }
                }
                main #main { (body) }
            }
        }
    }
}

fn account(app: &App, viewer: &Viewer<'_>) -> Markup {
    let (name, csrf) = match viewer {
        Viewer::Nobody => return html! {},
        Viewer::Annotator(name, csrf) => (*name, *csrf),
        Viewer::Admin(csrf) => ("admin", *csrf),
    };
    html! {
        form.account method="post" action=(app.path("/sign-out")) {
            (csrf_field(csrf))
            span.name { (name) }
            button.quiet type="submit" { "Sign out" }
        }
    }
}

/// The field that ties a form to its session.
pub(super) fn csrf_field(csrf: &str) -> Markup {
    html! { input type="hidden" name="csrf" value=(csrf); }
}

/// A key as it is printed on buttons.
pub(super) fn key(name: &str) -> Markup {
    html! { kbd aria-hidden="true" { (name) } }
}
