//! The build service: REST in front of the SDK.
//!
//! ```text
//! args ─▶ config ─▶ assembly ─▶ App + Scheduler ─▶ run: listen, serve, stop on a signal
//! ```
//!
//! [`router`] and [`serve`] embed the service into another program; [`run`] is the whole program.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod app;
pub mod args;
pub mod assembly;
pub mod config;
pub mod problem;
mod routes;
pub mod submission;
pub mod telemetry;

pub use app::App;
use config::Config;

/// How long open connections may take to end once the jobs have ended.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(3);

/// The routes of the service.
pub fn router(app: App) -> Router {
    routes::router(app)
}

/// Answers requests until `shutdown` is cancelled and the requests under way are answered.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Runs the service until SIGTERM or SIGINT: then running jobs get their grace while requests are still answered.
///
/// # Errors
/// When the service cannot start, or its listener fails for good.
pub async fn run(config: &Config) -> Result<()> {
    let assembly = assembly::assemble(config)?;
    let (listener, addr) = listen(&config.listen).await?;
    let stopping = assembly.app.stopping.clone();
    watch_signals(stopping.clone())?;
    if let Some(path) = &config.port_file {
        std::fs::write(path, format!("{}\n", addr.port()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(backends = config.backends.len(), "listening on http://{addr}");

    let close = CancellationToken::new();
    let scheduler = assembly.scheduler;
    let schedule = {
        let stopping = stopping.clone();
        tokio::spawn(async move { scheduler.run(stopping).await })
    };
    let mut server = tokio::spawn(serve(listener, assembly.app, close.clone()));
    let ended_early = tokio::select! {
        ended = &mut server => Some(ended),
        () = stopping.cancelled() => None,
    };
    stopping.cancel();
    schedule.await.context("the scheduler panicked")?;
    close.cancel();
    let ended = match ended_early {
        Some(ended) => Some(ended),
        None => tokio::time::timeout(CONNECTIONS_GRACE, server).await.ok(),
    };
    match ended {
        Some(ended) => ended.context("the server panicked")?.context("the listener failed")?,
        None => tracing::warn!("open connections are closed"),
    }
    tracing::info!("stopped");
    Ok(())
}

async fn listen(addresses: &[String]) -> Result<(TcpListener, SocketAddr)> {
    let mut result = Err(anyhow::anyhow!("no address to listen on"));
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let addr = listener.local_addr().context("the listener has no address")?;
                return Ok((listener, addr));
            }
            Err(error) => result = Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    result
}

/// Cancels the token on SIGTERM and SIGINT.
fn watch_signals(stopping: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        stopping.cancel();
    });
    Ok(())
}
