//! The first page, invites, the admin's secret.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::form::Fields;
use super::guard::{Peer, address};
use super::layout::{Viewer, key, layout};
use super::limit::GUESSES;
use super::page::{Answered, COOKIE, Refusal, Shared, page, session, session_token};
use super::{App, token};
use crate::annotate::store::{Session, SessionOwner};

/// The first page: to the work, to the dashboard, or how to get in.
pub(super) async fn home(State(app): Shared, headers: HeaderMap) -> Answered {
    match session(&app, &headers).await? {
        Some(Session { owner: SessionOwner::Annotator(person), .. }) => {
            let to = if person.briefed { "/work" } else { "/guidelines" };
            Err(Refusal::Go(app.path(to)))
        }
        Some(_) => Err(Refusal::Go(app.path("/admin"))),
        None => {
            let title = app.store.settings().await?.title;
            let body = html! {
                section.card {
                    h1 { (title) }
                    p { "To answer, open the invite link that you were given. It works once; ask for another when you change devices." }
                    p { a href=(app.path("/admin/sign-in")) { "Sign in as the admin" } }
                }
            };
            page(layout(&app, &title, &Viewer::Nobody, html! {}, body))
        }
    }
}

/// Whether the app and its database answer.
pub(super) async fn health(State(app): Shared) -> Response {
    match app.store.is_alive().await {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response(),
    }
}

/// Any other path.
pub(super) async fn missing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "There is no such page.")
}

fn guesses(app: &App, headers: &HeaderMap, peer: Option<&Peer>) -> Result<String, Refusal> {
    let client = format!("guess {}", address(app, headers, peer));
    if app.limiter.has(&client, GUESSES) {
        return Ok(client);
    }
    Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong links or secrets. Wait some minutes."))
}

fn unknown_invite() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "This invite is unknown, used or too old. Ask for a new one.")
}

/// An invite's page. Opening it uses nothing up: programs that preview links open them too.
pub(super) async fn invite(
    State(app): Shared,
    Path(invite): Path<String>,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
) -> Answered {
    let client = guesses(&app, &headers, peer.as_ref().map(|p| &p.0))?;
    let Some(name) = app.store.invited(&invite).await? else {
        app.limiter.take(&client, GUESSES);
        return Err(unknown_invite());
    };
    let title = app.store.settings().await?.title;
    let body = html! {
        section.card {
            h1 { "Welcome, " (name) }
            p { "You have been invited to answer questions about texts that language models wrote. Some may be unpleasant." }
            form method="post" action=(app.path(&format!("/invite/{invite}"))) {
                button.primary type="submit" data-key="Enter" { "Start " (key("Enter")) }
            }
        }
    };
    page(layout(&app, &title, &Viewer::Nobody, html! {}, body))
}

/// Uses an invite up and opens a session.
pub(super) async fn accept(
    State(app): Shared,
    Path(invite): Path<String>,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
) -> Answered {
    let client = guesses(&app, &headers, peer.as_ref().map(|p| &p.0))?;
    match app.store.accept_invite(&invite).await? {
        Some(session) => Ok(with_session(&app, &session, "/")),
        None => {
            app.limiter.take(&client, GUESSES);
            Err(unknown_invite())
        }
    }
}

/// The admin's way in.
pub(super) async fn admin_page(State(app): Shared) -> Answered {
    let body = html! {
        section.card {
            h1 { "Admin" }
            form.stack method="post" action=(app.path("/admin/sign-in")) {
                label for="secret" { "Admin secret" }
                input #secret type="password" name="secret" autocomplete="current-password" required autofocus;
                button.primary type="submit" { "Sign in" }
            }
        }
    };
    page(layout(&app, "Sign in", &Viewer::Nobody, html! {}, body))
}

/// Checks the admin's secret and opens a session.
pub(super) async fn admin(
    State(app): Shared,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
    fields: Fields,
) -> Answered {
    let client = guesses(&app, &headers, peer.as_ref().map(|p| &p.0))?;
    if !token::same(&token::hash(fields.get("secret").trim()), &app.admin_hash) {
        app.limiter.take(&client, GUESSES);
        return Err(Refusal::new(StatusCode::FORBIDDEN, "That is not the admin secret."));
    }
    let session = app.store.open_admin_session(&app.admin_hash).await?;
    Ok(with_session(&app, &session, "/admin"))
}

/// Ends the session.
pub(super) async fn sign_out(State(app): Shared, headers: HeaderMap, fields: Fields) -> Answered {
    let Some(open) = session(&app, &headers).await? else { return Err(Refusal::Go(app.path("/"))) };
    fields.check_csrf(&open.csrf)?;
    if let Some(token) = session_token(&headers) {
        app.store.close_session(token, &app.admin_hash).await?;
    }
    Ok(with_cookie(&app, "", 0, "/"))
}

fn with_session(app: &App, session: &str, to: &str) -> Response {
    with_cookie(app, session, crate::annotate::store::SESSION_SECONDS, to)
}

fn with_cookie(app: &App, value: &str, seconds: i64, to: &str) -> Response {
    let path = if app.prefix.is_empty() { "/" } else { &app.prefix };
    let secure = if app.origin.as_deref().is_some_and(|o| o.starts_with("https")) { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut response = Redirect::to(&app.path(to)).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
