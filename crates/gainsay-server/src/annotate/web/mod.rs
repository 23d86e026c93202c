//! The pages: server-rendered, one script, one style sheet, nothing from other hosts.

mod adjudicate;
mod admin;
mod dashboard;
mod export;
mod form;
mod guard;
mod layout;
mod limit;
mod live;
mod page;
mod serve;
mod sign_in;
mod stall;
pub mod token;
mod work;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::error::{AnnotateError, Result};
use super::live::{Live, Point};
use super::store::Store;
use limit::Limiter;

pub use serve::{Listening, serve};
pub use token::check_secret;

/// Largest body of a request, bytes.
const MAX_BODY: usize = 64 * 1024;

/// How the app is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The admin's secret.
    pub admin_secret: String,
    /// Where people reach the app, for example `https://example.org/labels`; empty: as they typed.
    pub public_url: String,
}

/// Everything that the pages need.
pub struct App {
    pub(crate) store: Arc<Store>,
    admin_hash: String,
    /// Scheme and host of `public_url`.
    origin: Option<String>,
    /// Path of `public_url`, without a slash at its end.
    prefix: String,
    limiter: Limiter,
    pub(crate) live: Option<Live>,
    pub(crate) curve: Mutex<Vec<Point>>,
    /// What went wrong in the last fit of live mode.
    pub(crate) live_problem: Mutex<Option<String>>,
    /// Wakes live mode after an answer.
    pub(crate) answered: tokio::sync::Notify,
}

impl App {
    /// An app on an open database.
    ///
    /// # Errors
    /// A secret that is too short; a public URL that is none, or whose path is one of the app's.
    pub fn new(store: Arc<Store>, access: &Access, live: Option<Live>) -> Result<Arc<Self>> {
        check_secret(&access.admin_secret)?;
        let (origin, prefix) = split_url(&access.public_url)?;
        Ok(Arc::new(Self {
            store,
            admin_hash: token::hash(access.admin_secret.trim()),
            origin,
            prefix,
            limiter: Limiter::default(),
            live,
            curve: Mutex::default(),
            live_problem: Mutex::default(),
            answered: tokio::sync::Notify::new(),
        }))
    }

    /// The database behind the pages.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A path of the app as browsers see it.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// Origin and path of a URL; nothing of nothing.
fn split_url(url: &str) -> Result<(Option<String>, String)> {
    if url.is_empty() {
        return Ok((None, String::new()));
    }
    let wrong = || AnnotateError::Input(format!("--public-url {url}: write https://HOST or https://HOST/PATH"));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !["http", "https"].contains(&scheme) || host.is_empty() || !path.chars().all(fine) {
        return Err(wrong());
    }
    let start = path.split('/').next().unwrap_or_default();
    if OWN_PATHS.contains(&start) {
        return Err(AnnotateError::Input(format!(
            "--public-url {url}: the app has pages of its own under /{start}; choose another path, such as /labels"
        )));
    }
    let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok((Some(format!("{scheme}://{host}")), prefix))
}

/// How the app's own paths begin: under one of them, a prefix would stand in their way.
const OWN_PATHS: [&str; 11] =
    ["health", "app.css", "app.js", "icon.svg", "invite", "sign-out", "guidelines", "work", "undo", "draft", "admin"];

/// The app's routes. They are there with and without the path of the public URL, since some
/// proxies take it off and some do not.
pub fn app(state: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/", get(sign_in::home))
        .route("/health", get(sign_in::health))
        .route("/app.css", get(style))
        .route("/app.js", get(script))
        .route("/icon.svg", get(icon))
        .route("/invite/{token}", get(sign_in::invite).post(sign_in::accept))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/guidelines", get(work::guidelines).post(work::briefed))
        .route("/work", get(work::show).post(work::submit))
        .route("/undo", post(work::undo))
        .route("/draft", post(work::draft))
        .route("/admin", get(dashboard::show))
        .route("/admin/sign-in", get(sign_in::admin_page).post(sign_in::admin))
        .route("/admin/people", get(admin::people).post(admin::invite))
        .route("/admin/access", post(admin::access))
        .route("/admin/settings", get(admin::settings).post(admin::set))
        .route("/admin/audit", get(admin::audit))
        .route("/admin/disagreements", get(adjudicate::show).post(adjudicate::decide))
        .route("/admin/export/{name}", get(export::download))
        .fallback(sign_in::missing);
    let prefix = state.prefix.clone();
    let both = if prefix.is_empty() {
        routes
    } else {
        // A nested `/` is the prefix without a slash at its end.
        let first = format!("{prefix}/");
        Router::new().nest(&prefix, routes.clone()).route(&first, get(sign_in::home)).merge(routes)
    };
    both.layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// Browsers ask for the style and the script again after five minutes.
const KEPT: &str = "max-age=300";

async fn style() -> Response {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, KEPT)],
        include_str!("../assets/app.css"),
    )
        .into_response()
}

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, KEPT)], include_str!("../assets/icon.svg"))
        .into_response()
}

async fn script() -> Response {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8"), (header::CACHE_CONTROL, KEPT)],
        include_str!("../assets/app.js"),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_urls_split() {
        assert_eq!(split_url("").unwrap(), (None, String::new()));
        assert_eq!(split_url("https://h/").unwrap(), (Some("https://h".into()), String::new()));
        let (origin, prefix) = split_url("https://h:8/a/b/").unwrap();
        assert_eq!((origin.as_deref(), prefix.as_str()), (Some("https://h:8"), "/a/b"));
        for bad in ["h", "ftp://h", "https://", "https://h/{x}", "https://h/a b"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
        for own in OWN_PATHS.iter().flat_map(|own| [own.to_string(), format!("{own}/x")]) {
            let error = split_url(&format!("https://h/{own}/")).unwrap_err().to_string();
            assert!(error.contains("choose another path"), "{error}");
        }
        assert!(split_url("https://h/administration").is_ok());
    }
}
