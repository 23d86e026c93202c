//! Failures as pages, and who asks.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::html;

use super::App;
use super::layout::{Viewer, key, layout};
use crate::annotate::error::AnnotateError;
use crate::annotate::store::{Person, Session, SessionOwner};

/// Name of the session's cookie.
pub(super) const COOKIE: &str = "gainsay_session";

/// A refusal or a failure, as a page.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Status and what to do.
    Say(StatusCode, String),
    /// Another page is meant.
    Go(String),
}

pub(super) type Answered = Result<Response, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self::Say(status, text.into())
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

impl From<AnnotateError> for Refusal {
    fn from(error: AnnotateError) -> Self {
        match error {
            AnnotateError::Input(text) => Self::bad(text),
            other => {
                // The page says less than the log: messages of databases name tables and hosts.
                eprintln!("annotate: {other}");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The database does not answer. Nothing was changed; try again.",
                )
            }
        }
    }
}

/// What a refused request is told, until [`dressed`] makes a page of it.
#[derive(Clone)]
struct Said(String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Go(to) => Redirect::to(&to).into_response(),
            Self::Say(status, text) => {
                let mut response = (status, text.clone()).into_response();
                response.extensions_mut().insert(Said(text));
                response
            }
        }
    }
}

/// A refusal as a page with a way back; other responses as they are. Handlers refuse without
/// knowing where the app lives.
pub(super) fn dressed(app: &App, response: Response) -> Response {
    let Some(Said(text)) = response.extensions().get::<Said>().cloned() else { return response };
    let status = response.status();
    let title = status.canonical_reason().unwrap_or("Refused");
    let body = html! {
        section.card {
            h1 { (title) }
            p { (text) }
            p { a.button href=(app.path("/")) data-key="Enter" { "Go back " (key("Enter")) } }
        }
    };
    let page = layout(app, title, &Viewer::Nobody, html! {}, body);
    (status, Html(page.into_string())).into_response()
}

/// A page with status 200.
pub(super) fn page(markup: maud::Markup) -> Answered {
    Ok(Html(markup.into_string()).into_response())
}

/// A redirect after a form (303: the browser asks with GET).
pub(super) fn go(app: &App, path: &str) -> Answered {
    Ok(Redirect::to(&app.path(path)).into_response())
}

/// The session token in the cookies.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == COOKIE && value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())).then_some(value)
        })
}

/// The open session of a request, if any.
pub(super) async fn session(app: &App, headers: &HeaderMap) -> Result<Option<Session>, Refusal> {
    match session_token(headers) {
        None => Ok(None),
        Some(token) => Ok(app.store.session(token, &app.admin_hash).await?),
    }
}

/// An annotator who is signed in; others are sent to the first page.
pub(super) struct Annotator {
    pub person: Person,
    pub csrf: String,
}

impl FromRequestParts<Arc<App>> for Annotator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match session(app, &parts.headers).await? {
            Some(Session { owner: SessionOwner::Annotator(person), csrf }) => Ok(Self { person, csrf }),
            _ if parts.method == axum::http::Method::GET => Err(Refusal::Go(app.path("/"))),
            _ => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "You are signed out. Open your invite link, or ask for a new one.",
            )),
        }
    }
}

/// The admin, signed in; others are sent to sign in.
pub(super) struct Admin {
    pub csrf: String,
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match session(app, &parts.headers).await? {
            Some(Session { owner: SessionOwner::Admin, csrf }) => Ok(Self { csrf }),
            Some(_) => Err(Refusal::new(StatusCode::FORBIDDEN, "This page is the admin's.")),
            None if parts.method == axum::http::Method::GET => Err(Refusal::Go(app.path("/admin/sign-in"))),
            None => Err(Refusal::new(StatusCode::UNAUTHORIZED, "Sign in as the admin first.")),
        }
    }
}

/// Shorthand of handlers.
pub(super) type Shared = State<Arc<App>>;
