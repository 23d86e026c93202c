//! One reward model behind many protocols: what OpenRLHF, verl, TRL scripts and evaluation tools
//! expect of a reward server, and `/v1/reward`, which also knows ensembles and PACS.
//!
//! Clients send single samples; [`queue`] puts what waits into one batch. A reward's bits do not
//! depend on the batch it rode in, as far as the reward function keeps that promise.

mod access;
mod answers;
mod item;
mod metrics;
mod queue;
mod routes;
mod state;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;

pub use item::Item;
pub use routes::app;
pub use state::{Count, Engine, Limits, Loader, Member, Reload, RewardState, SharedPolicy, SharedReward};

/// The longest that requests under way may take after the server was asked to stop: what trainers' clients wait.
const DRAIN: Duration = Duration::from_secs(180);

/// Serves until `stop` resolves, then finishes what is under way.
///
/// # Errors
/// What the socket reports; requests that are still under way at the limit.
pub async fn serve(
    listener: TcpListener,
    state: RewardState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopped, mut stopping) = tokio::sync::watch::channel(false);
    let signal = async move {
        stop.await;
        let _ = stopped.send(true);
    };
    let server = axum::serve(listener, app(state)).with_graceful_shutdown(signal);
    tokio::select! {
        outcome = server.into_future() => outcome,
        () = async {
            let _ = stopping.changed().await;
            tokio::time::sleep(DRAIN).await;
        } => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("requests were still under way {} s after it was asked to stop", DRAIN.as_secs()),
        )),
    }
}
