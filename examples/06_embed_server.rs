//! The REST service inside a program of one's own, with parts of one's own choice.
//!
//! Here the builder plays a script and artifacts stay in memory; `assembly::builder` makes the real engine. A
//! plain TCP client shows what goes over the wire.
//!
//! `cargo run --example 06_embed_server`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend::{AlwaysReachable, Backend};
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::labels::Labels;
use melange_server::assembly::{Assembly, connect};
use melange_server::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No flags and no environment: the defaults.
    let config = Config::read(["melange-server".into()], &|_| None).map_err(|refused| refused.to_string())?;
    let Assembly { app, scheduler } = connect(
        &config.build,
        Arc::new(ScriptedBuilder::new([Act::line("built by a script")])),
        Arc::new(MemoryJobStore::default()),
        Arc::new(ObjectArtifactStorage::memory()),
        BackendPool::new([Backend::new("tcp://example:1234", Arch::X86_64, Labels::default())?])?,
        Arc::new(AlwaysReachable),
    );

    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = tokio::spawn(melange_server::serve(listener, app, shutdown.clone()));
    let jobs = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { scheduler.run(shutdown).await }
    });

    for request in [
        "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /api/v1/backends HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /api/v1/jobs/nonsense HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        println!(
            "{}\n  {}\n  {body}",
            request.lines().next().unwrap_or_default(),
            answer.lines().next().unwrap_or_default()
        );
    }
    shutdown.cancel();
    jobs.await?;
    server.await?;
    Ok(())
}
