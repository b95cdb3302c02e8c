//! The build service: REST in front of the SDK.
//!
//! ```text
//! args ─▶ config ─▶ assembly ─▶ App + Scheduler ─▶ run: listen, serve, stop on a signal
//! ```
//!
//! [`router`] and [`serve`] embed the service into another program; [`run`] is the whole program.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod app;
pub mod args;
pub mod assembly;
mod builds;
pub mod config;
pub mod ends;
pub mod gc;
mod listener;
pub mod problem;
pub mod rate;
pub mod readiness;
mod routes;
pub mod submission;
pub mod telemetry;
pub mod waiting;

pub use app::App;
use assembly::Assembly;
use config::Config;
pub use listener::{ConnectionLimits, Peer};
use melange_remote_sdk::scheduler::Fleet;

/// How long open connections may take to end once the jobs have ended.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(3);
/// How long a server that cannot go on says so by its health check before it ends.
const FAILURE_GRACE: Duration = Duration::from_secs(3);

/// Threads that answer, for each processor. Jobs that end keep as many threads busy as there are (packages are compressed,
/// artifacts written): with one to a processor, a look at a build waits behind those for its turn.
const WORKERS_PER_CPU: usize = 2;

/// A runtime as the service wants it.
///
/// # Errors
/// What the system answers when it gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = cpus.saturating_mul(WORKERS_PER_CPU);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// The routes of the service. Another program may nest them under a prefix: the links in answers tell it.
pub fn router(app: App) -> Router {
    routes::router(app)
}

/// The description of the API, as the service gives it at `/api/openapi.json`, or for people.
pub fn api_reference(format: args::ApiFormat) -> String {
    let document = serde_json::to_value(routes::document()).unwrap_or_default();
    match format {
        args::ApiFormat::Json => format!("{document:#}\n"),
        args::ApiFormat::Markdown => routes::openapi::markdown(&document),
    }
}

/// Answers requests until `shutdown` is cancelled and the requests under way are answered. A connection that fails ends
/// alone, and a listener that fails is asked again.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) {
    listener::serve(&listener, router(app), ConnectionLimits::default(), shutdown).await;
}

/// Runs the service until SIGTERM or SIGINT: then running jobs get their grace while requests are still answered.
/// SIGHUP reads the file of backends again.
///
/// # Errors
/// When the service cannot start, or one of its parts ends although nobody asked for it.
pub async fn run(config: &Config) -> Result<()> {
    let assembly = assembly::assemble(config).await?;
    let collector = assembly::collector(config, &assembly.app);
    let (listener, addr) = listen(&config.listen).await?;
    watch_signals(assembly.app.stopping.clone())?;
    watch_reloads(config.backends_file.clone(), assembly.app.fleet.clone())?;
    if let Some(path) = &config.port_file {
        std::fs::write(path, format!("{}\n", addr.port()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(backends = config.backends.len(), "listening on http://{addr}");
    if !addr.ip().is_loopback() {
        tracing::warn!(
            "everybody who reaches {addr} may submit builds and change backends: this server knows no identities; \
             listen on 127.0.0.1, or let only trusted machines reach it"
        );
    }
    let collecting = tokio::spawn(collector.run(assembly.app.stopping.clone()));
    let ended = run_assembly(assembly, listener).await;
    collecting.abort();
    ended
}

/// Runs a server that is put together until its app is told to stop. A scheduler that ends by itself ends the server:
/// the health check fails first, then this returns the error.
///
/// # Errors
/// When a part of the server ends although nobody asked for it.
pub async fn run_assembly(assembly: Assembly, listener: TcpListener) -> Result<()> {
    let Assembly { app, scheduler, publisher } = assembly;
    let (stopping, failure) = (app.stopping.clone(), Arc::clone(&app.failure));
    let close = CancellationToken::new();
    let mut schedule = {
        let stopping = stopping.clone();
        tokio::spawn(async move { scheduler.run(stopping).await })
    };
    if let Some(publisher) = publisher {
        tokio::spawn(publisher.run(stopping.clone()));
    }
    let mut server = tokio::spawn(serve(listener, app, close.clone()));
    let ended_early = tokio::select! {
        // A scheduler that ends because it was asked to is no failure.
        biased;
        () = stopping.cancelled() => None,
        ended = &mut server => Some(ended),
        ended = &mut schedule => {
            let cause = ended.err().map(|error| format!(": {error}")).unwrap_or_default();
            let message = format!("the scheduler has ended{cause}");
            tracing::error!("{message}; the server stops");
            failure.get_or_init(|| message.clone());
            // Who watches over the server sees why before it is gone.
            tokio::time::sleep(FAILURE_GRACE).await;
            stopping.cancel();
            close.cancel();
            let _ = tokio::time::timeout(CONNECTIONS_GRACE, server).await;
            anyhow::bail!(message);
        }
    };
    stopping.cancel();
    schedule.await.context("the scheduler panicked")?;
    close.cancel();
    let ended = match ended_early {
        Some(ended) => Some(ended),
        None => tokio::time::timeout(CONNECTIONS_GRACE, server).await.ok(),
    };
    match ended {
        Some(ended) => ended.context("the server panicked")?,
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

/// Reads the file of backends again on SIGHUP. A file with mistakes changes nothing; without a file the signal does
/// nothing at all.
fn watch_reloads(file: Option<PathBuf>, fleet: Fleet) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let Some(path) = file.clone() else {
                tracing::info!("SIGHUP: there is no file of backends to read again");
                continue;
            };
            let read = tokio::task::spawn_blocking(move || config::read_backends(&path)).await;
            match read.unwrap_or_else(|error| Err(vec![error.to_string()])) {
                Ok(backends) => match fleet.configure(backends).await {
                    Ok((added, removed)) => {
                        tracing::info!(added, removed, "the file of backends was read again");
                    }
                    Err(error) => tracing::error!(
                        error = error.chain(),
                        "the file of backends was read again; it holds once the database answers"
                    ),
                },
                Err(mistakes) => {
                    let mistakes = mistakes.join("; ");
                    tracing::error!(mistakes, "the file of backends has mistakes; nothing changes");
                }
            }
        }
    });
    Ok(())
}
