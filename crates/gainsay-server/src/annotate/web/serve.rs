//! Connections: HTTP/1.1 with limits on how long headers may take, and writes may wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::guard::Peer;
use super::stall::Stalling;
use super::{App, app, live};
use crate::annotate::error::{AnnotateError, Result};

/// A client has this long for a request's headers; a connection may be idle as long.
const HEADER_LIMIT: Duration = Duration::from_secs(15);

/// A write may wait this long for a client that takes nothing.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Open connections; further ones wait.
const CONNECTIONS: usize = 1024;

/// How long requests that are running may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// A socket that listens.
pub struct Listening {
    listener: TcpListener,
    /// Where: the port is known even where 0 was asked for.
    pub address: SocketAddr,
}

impl Listening {
    /// Listens on a host and port; port 0 picks one.
    ///
    /// # Errors
    /// A host that is not of this machine, a port in use.
    pub async fn bind(host: &str, port: u16) -> Result<Self> {
        let wrong = |e: std::io::Error| {
            AnnotateError::Input(format!(
                "--host {host} --port {port}: cannot listen there: {e}; --port 0 picks a free port"
            ))
        };
        let listener = TcpListener::bind((host, port)).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok(Self { listener, address })
    }
}

/// Serves until `stop` ends; then requests that are running are finished.
///
/// # Errors
/// A socket that broke.
pub async fn serve(listening: Listening, state: Arc<App>, stop: impl Future<Output = ()>) -> Result<()> {
    serve_at_most(CONNECTIONS, listening, state, stop).await
}

async fn serve_at_most(
    connections: usize,
    listening: Listening,
    state: Arc<App>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let router = app(state.clone());
    let places = Arc::new(Semaphore::new(connections));
    let refitting = tokio::spawn(live::follow(state));
    tokio::pin!(stop);
    loop {
        // Whoever fills all places must not keep the server from ending.
        let place = tokio::select! {
            () = &mut stop => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listening.listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a client that is gone: the next may do better.
                    eprintln!("annotate: a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        stream.set_nodelay(true).ok();
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, peer, router).await;
            drop(place);
        });
    }
    refitting.abort();
    // Those that run hold places: whoever gets all of them knows that nobody is left.
    tokio::time::timeout(GRACE, places.acquire_many(connections as u32)).await.ok();
    Ok(())
}

async fn connection(stream: tokio::net::TcpStream, peer: SocketAddr, router: Router) {
    let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    // A client that breaks off is its own affair.
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(Stalling::new(stream, WRITE_LIMIT)), TowerToHyperService::new(service))
        .await
        .ok();
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::annotate::store::Store;
    use crate::annotate::web::Access;

    #[tokio::test]
    async fn a_server_without_free_places_ends_when_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("app.db").display().to_string()).await.unwrap();
        let access = Access { admin_secret: "a secret of the tests".into(), public_url: String::new() };
        let app = App::new(Arc::new(store), &access, None).unwrap();
        let listening = Listening::bind("127.0.0.1", 0).await.unwrap();
        let address = listening.address;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve_at_most(2, listening, app, async { stopped.await.unwrap() }));
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(TcpStream::connect(address).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.send(()).unwrap();
        // Its grace for those who are connected is less than their time for headers.
        tokio::time::timeout(GRACE + Duration::from_secs(3), server).await.expect("it ends").unwrap().unwrap();
    }
}
