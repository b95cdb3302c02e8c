//! The client of the REST service: submit, follow the log, fetch what was made.
//!
//! With `MELANGE_SERVER` set it talks to that server; otherwise it starts one in this program whose builder plays
//! a script.
//!
//! `cargo run --example 07_remote_client`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;
use std::time::Duration;

use melange_remote_sdk::api::v1::SubmitRequest;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend::{AlwaysReachable, Backend};
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::client::{Client, WaitEvent};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::labels::Labels;
use melange_server::assembly::{Assembly, connect};
use melange_server::config::Config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEFINITION: &str = "package:\n  name: greeting\n  version: \"1.0\"\n  epoch: 0\n";

/// A server in this program; it lives as long as the runtime.
async fn own_server() -> Result<String, Box<dyn std::error::Error>> {
    // No flags and no environment: the defaults.
    let config = Config::read(["melange-server".into()], &|_| None).map_err(|refused| refused.to_string())?;
    let script = [
        Act::line("compiling"),
        Act::line("linking"),
        Act::Write("{arch}/greeting-1.0-r0.apk".to_owned(), b"bytes of a package".to_vec()),
    ];
    let Assembly { app, scheduler } = connect(
        &config.build,
        Arc::new(ScriptedBuilder::new(script)),
        Arc::new(MemoryJobStore::default()),
        Arc::new(ObjectArtifactStorage::memory()),
        BackendPool::new([Backend::new("tcp://example:1234", Arch::X86_64, Labels::default())?])?,
        Arc::new(AlwaysReachable),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(melange_server::serve(listener, app, CancellationToken::new()));
    tokio::spawn(async move { scheduler.run(CancellationToken::new()).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = match std::env::var("MELANGE_SERVER") {
        Ok(server) => server,
        Err(_) => own_server().await?,
    };
    let client = Client::new(&server)?;

    // A mistake comes back with its place, before anything is queued.
    let broken =
        SubmitRequest { config_yaml: format!("{DEFINITION}pipelnie: []\n"), ..SubmitRequest::default() };
    match client.submit(&broken).await {
        Ok(id) => println!("unexpectedly accepted as {id}"),
        Err(error) => println!("refused: {error}"),
    }

    let request = SubmitRequest { config_yaml: DEFINITION.to_owned(), ..SubmitRequest::default() };
    let id = client.submit(&request).await?;
    println!("submitted {}", client.job_url(id));
    let mut observer = |event: WaitEvent<'_>| {
        if let WaitEvent::Log(text) = event {
            print!("{text}");
        }
    };
    let job = client.wait(id, Duration::from_millis(200), &mut observer).await?;
    println!("{} {}", job.id, job.status);

    let folder = tempfile::tempdir()?;
    for artifact in client.artifacts(id).await? {
        client.download(id, &artifact, &folder.path().join(&artifact.name)).await?;
        println!("downloaded {} ({} bytes)", artifact.name, artifact.size);
    }
    Ok(())
}
