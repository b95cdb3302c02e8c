//! The REST service inside an axum application of one's own, under a prefix and beside other routes.
//!
//! Store, storage, builder, selector and clock are whatever implements their contracts. Here the builder plays a script
//! and everything stays in memory; `01_in_process` shows the real engine.
//!
//! `cargo run --example 06_embed_server`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use melange_remote_sdk::api::v1::SubmitRequest;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::client::{Client, WaitEvent};
use melange_remote_sdk::clock::SystemClock;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;
use melange_remote_sdk::scheduler::{SchedulerOptions, SchedulerParts};
use melange_server::assembly::Assembly;
use melange_server::submission::SubmissionRules;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A build farm of any parts.
fn farm() -> Result<Assembly> {
    let backend = Backend::new("tcp://example:1234", Arch::X86_64, Labels::default())?;
    let parts = SchedulerParts::new(
        Arc::new(MemoryJobStore::default()),
        Arc::new(ObjectArtifactStorage::memory()),
        Arc::new(ScriptedBuilder::new([Act::line("built by a script")])),
        BackendPool::new([backend])?,
    )
    .with_backend_selector(Arc::new(RoundRobin))
    .with_clock(Arc::new(SystemClock));
    Ok(Assembly::new(parts, SubmissionRules::new(Arch::X86_64), SchedulerOptions::default()))
}

/// What a plain client sees.
async fn ask(host: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<()> {
    let Assembly { app, scheduler, .. } = farm()?;
    let application = Router::new()
        .route("/", get(|| async { "an application of my own; its builds are at /builds\n" }))
        .nest("/builds", melange_server::router(app.clone()));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let host = listener.local_addr()?.to_string();
    let close = CancellationToken::new();
    let closed = close.clone();
    let server = tokio::spawn(async move {
        axum::serve(listener, application).with_graceful_shutdown(closed.cancelled_owned()).await
    });
    let stopping = app.stopping.clone();
    let jobs = tokio::spawn(async move { scheduler.run(stopping).await });

    print!("{}", ask(&host, "/").await?.split("\r\n\r\n").nth(1).unwrap_or_default());
    // The service's own client works below the prefix, and so do the links in answers.
    let client = Client::new(&format!("http://{host}/builds"))?;
    let request = SubmitRequest::new("package:\n  name: greeting\n  version: \"1.0\"\n  epoch: 0\n");
    for _ in 0..2 {
        let id = client.submit(&request).await?;
        let job = client.wait(id, limits::SCHEDULER_POLL, &mut |_: WaitEvent<'_>| {}).await?;
        println!("{} is {}", client.job_url(id), job.status);
    }
    let page = ask(&host, "/builds/api/v1/jobs?limit=1").await?;
    let link = page.lines().find(|line| line.starts_with("link:")).ok_or("the page has a next one")?;
    println!("{link}");
    let next = link.split(['<', '>']).nth(1).unwrap_or_default();
    println!("{}", ask(&host, next).await?.lines().next().unwrap_or_default());

    app.stopping.cancel();
    jobs.await?;
    close.cancel();
    server.await??;
    Ok(())
}
