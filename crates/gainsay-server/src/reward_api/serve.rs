//! Connections: HTTP/1.1 with a limit on how long headers may take.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::routes::app;
use super::state::RewardState;

/// The longest that requests under way may take after the server was asked to stop: what trainers' clients wait.
const DRAIN: Duration = Duration::from_secs(180);

/// Serves until `stop` resolves, then finishes what is under way.
///
/// # Errors
/// Requests that are still under way at the limit.
pub async fn serve(
    listener: TcpListener,
    state: RewardState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let head_time = state.limits.head_time;
    let router = app(state);
    let (stopped, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or a client that is gone: the next may do better.
                    eprintln!("serve: a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        stream.set_nodelay(true).ok();
        connections.spawn(connection(stream, router.clone(), head_time, stopping.clone()));
    }
    drop(listener);
    stopped.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(DRAIN, drained).await.map_err(|_| {
        let seconds = DRAIN.as_secs();
        let problem = format!("requests were still under way {seconds} s after it was asked to stop");
        std::io::Error::new(std::io::ErrorKind::TimedOut, problem)
    })
}

/// Answers the requests of one connection; once the server stops, only the one under way.
async fn connection(stream: TcpStream, router: Router, head_time: Duration, mut stopping: watch::Receiver<bool>) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    // A client that breaks off is its own affair.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stopping.changed() => serving.as_mut().graceful_shutdown(),
    }
    serving.await.ok();
}
