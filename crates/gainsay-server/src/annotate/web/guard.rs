//! What every request goes through: limits, the origin of forms, and headers that keep untrusted
//! text from doing anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::limit::{OF_ADDRESS, OF_SESSION};
use super::page::{Refusal, dressed, session_token};

/// A request that takes longer, its body included, is ended.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Scripts and styles from this server alone, no frames, no forms to elsewhere.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Who asks, for limits: the address, as a proxy on this machine says where there is one.
pub(super) fn address(app: &App, headers: &HeaderMap, peer: Option<&Peer>) -> String {
    let Some(Peer(peer)) = peer else { return "local".into() };
    let forwarded = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
    match forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse::<IpAddr>().ok()) {
        // The last entry is the proxy's own; earlier ones anybody may write.
        Some(client) if app.origin.is_some() && peer.ip().is_loopback() => client.to_string(),
        _ => peer.ip().to_string(),
    }
}

pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match refused(&app, &request) {
        Some(refusal) => refusal.into_response(),
        None => match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request took too long. Nothing was changed.")
                .into_response(),
        },
    };
    response = dressed(&app, response);
    let headers = response.headers_mut();
    let mut put = |name, value| headers.insert(name, HeaderValue::from_static(value));
    put(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::X_FRAME_OPTIONS, "DENY");
    // `no-referrer` would make browsers send forms with the origin `null`.
    put(header::REFERRER_POLICY, "same-origin");
    put(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    put(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refused(app: &App, request: &Request) -> Option<Refusal> {
    let headers = request.headers();
    let address = address(app, headers, request.extensions().get::<Peer>());
    let session = session_token(headers).map(|token| &token[..32]);
    let too_many = !app.limiter.take(&address, OF_ADDRESS)
        || session.is_some_and(|session| !app.limiter.take(session, OF_SESSION));
    if too_many {
        return Some(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests. Wait a little, then go on."));
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && is_foreign(app, headers) {
        return Some(Refusal::new(StatusCode::FORBIDDEN, "This form came from another site. Nothing was changed."));
    }
    None
}

/// Whether a browser says that a form came from another site.
fn is_foreign(app: &App, headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    if text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| site != "same-origin" && site != "none")
    {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    if app.origin.as_deref() == Some(origin) {
        return false;
    }
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").map(|(_, from)| from) != Some(host)
}
