//! The client of the REST service: submit, follow the log, fetch what was made, end as the job does.
//!
//! With `MELANGE_SERVER` set it talks to that server; otherwise it starts one in this program whose builder plays
//! a script.
//!
//! `cargo run --example 07_remote_client`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use melange_remote_sdk::api::v1::SubmitRequest;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::client::{Client, WaitEvent};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::scheduler::{SchedulerOptions, SchedulerParts};
use melange_server::assembly::Assembly;
use melange_server::submission::SubmissionRules;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEFINITION: &str = "package:\n  name: greeting\n  version: \"1.0\"\n  epoch: 0\n";

/// A server in this program; it lives as long as the runtime.
async fn own_server() -> Result<String, Box<dyn std::error::Error>> {
    let script = [
        Act::line("compiling"),
        Act::line("linking"),
        Act::Write("{arch}/greeting-1.0-r0.apk".to_owned(), b"bytes of a package".to_vec()),
    ];
    let parts = SchedulerParts::new(
        Arc::new(MemoryJobStore::default()),
        Arc::new(ObjectArtifactStorage::memory()),
        Arc::new(ScriptedBuilder::new(script)),
        BackendPool::new([Backend::new("tcp://example:1234", Arch::X86_64, Labels::default())?])?,
    );
    let rules = SubmissionRules::new(Arch::X86_64);
    let Assembly { app, scheduler, .. } = Assembly::new(parts, rules, SchedulerOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(melange_server::serve(listener, app, CancellationToken::new()));
    tokio::spawn(async move { scheduler.run(CancellationToken::new()).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let server = match std::env::var("MELANGE_SERVER") {
        Ok(server) => server,
        Err(_) => own_server().await?,
    };
    let client = Client::new(&server)?;

    // A mistake comes back with its place, before anything is queued.
    let broken = SubmitRequest::new(format!("{DEFINITION}pipelnie: []\n"));
    match client.submit(&broken).await {
        Ok(id) => return Err(format!("a mistake was accepted as {id}").into()),
        Err(error) => println!("refused: {error}"),
    }

    let id = client.submit(&SubmitRequest::new(DEFINITION)).await?;
    println!("submitted {}", client.job_url(id));
    let mut observer = |event: WaitEvent<'_>| {
        if let WaitEvent::Log(text) = event {
            print!("{text}");
        }
    };
    let job = client.wait(id, Duration::from_millis(200), &mut observer).await?;
    println!("{} {}", job.id, job.status);
    // The program ends as its job does, with the codes of `melange remote wait`.
    match (job.status.as_str(), job.error_class.as_deref()) {
        ("success", _) => {}
        ("cancelled", _) => return Ok(ExitCode::from(3)),
        (_, Some("policy")) => return Ok(ExitCode::from(4)),
        (_, Some("infrastructure" | "unschedulable")) => return Ok(ExitCode::from(6)),
        _ => return Ok(ExitCode::from(1)),
    }

    let folder = tempfile::tempdir()?;
    for artifact in client.artifacts(id).await? {
        client.download(id, &artifact, &folder.path().join(&artifact.name)).await?;
        println!("downloaded {} ({} bytes)", artifact.name, artifact.size);
    }
    Ok(ExitCode::SUCCESS)
}
