//! Requests to the app without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use gainsay_server::annotate::store::Store;
use gainsay_server::annotate::web::{Access, App, app, token};
use tower::ServiceExt;

/// The admin's secret in tests.
pub const SECRET: &str = "a secret of the tests";

/// The app on a store.
pub fn router(store: &Arc<Store>, public_url: &str) -> Router {
    router_with(store, public_url, SECRET)
}

/// The app on a store, with another secret.
pub fn router_with(store: &Arc<Store>, public_url: &str, secret: &str) -> Router {
    let access = Access { admin_secret: secret.into(), public_url: public_url.into() };
    app(App::new(store.clone(), &access, None).unwrap())
}

/// A status, what it said, and where it leads.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub location: String,
    pub cookie: String,
    pub policy: String,
    pub kind: String,
    pub disposition: String,
}

async fn read(response: Response<Body>) -> Answer {
    let head = |name| {
        let value = response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    let (location, cookie) = (head(header::LOCATION), head(header::SET_COOKIE));
    let (policy, status) = (head(header::CONTENT_SECURITY_POLICY), response.status());
    let (kind, disposition) = (head(header::CONTENT_TYPE), head(header::CONTENT_DISPOSITION));
    let text = String::from_utf8(to_bytes(response.into_body(), 1 << 22).await.unwrap().to_vec()).unwrap();
    Answer { status, text, location, cookie, policy, kind, disposition }
}

/// A browser with a session.
#[derive(Clone)]
pub struct Browser {
    pub app: Router,
    pub session: String,
}

impl Browser {
    pub async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header(header::COOKIE, format!("gainsay_session={}", self.session));
        read(self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
    }

    /// Posts fields as they are, with further headers.
    pub async fn post_with(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let body: Vec<String> = fields.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
        let mut request = Request::post(path)
            .header(header::COOKIE, format!("gainsay_session={}", self.session))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.app.clone().oneshot(request.body(Body::from(body.join("&"))).unwrap()).await.unwrap()).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, fields, &[]).await
    }

    /// Answers the question on the page.
    pub async fn answer(&self, fields: &[(&str, &str)]) -> Answer {
        let page = self.get("/work").await.text;
        let hidden = ["csrf", "item", "ticket"].map(|name| (name, value(&page, name)));
        let mut all: Vec<(&str, &str)> = hidden.iter().map(|(k, v)| (*k, v.as_str())).collect();
        all.extend(fields);
        self.post("/work", &all).await
    }
}

/// An annotator's browser, past the guidelines.
pub async fn annotator(app: &Router, store: &Store, name: &str) -> Browser {
    let (id, session) = crate::support::person(store, name).await;
    store.briefed(id).await.unwrap();
    Browser { app: app.clone(), session }
}

/// The admin's browser.
pub async fn admin(app: &Router, store: &Store) -> Browser {
    Browser { app: app.clone(), session: store.open_admin_session(&token::hash(SECRET)).await.unwrap() }
}

/// The value of a hidden field.
pub fn value(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let at = page.find(&start).unwrap_or_else(|| panic!("no {name} in {page}")) + start.len();
    page[at..].split('"').next().unwrap().to_owned()
}

/// Percent-encoding of everything but letters and digits.
pub fn encode(text: &str) -> String {
    let escape = |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(escape).collect()
}
