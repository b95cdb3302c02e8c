//! The events of a server: the same by server-sent events, on the command line and in the store.

use std::sync::Arc;
use std::time::Duration;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::builder::{BuildEvent, BuildStatus, Phase, StepFailure};
use melange_remote_sdk::dependencies::{serde_json, tokio, tokio_util};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{EventQuery, JobStore};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::scheduler::{SchedulerOptions, SchedulerParts};
use melange_server::assembly::Assembly;
use melange_server::submission::SubmissionRules;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::support::{GOOD, command, text};

/// A server in this process whose jobs do what a script says.
struct Farm {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn JobStore>,
    url: String,
    stop: CancellationToken,
}

impl Farm {
    fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store: Arc<dyn JobStore> = Arc::new(MemoryJobStore::default());
        let arch = Arch::host().unwrap();
        let backend = Backend::new("tcp://a:1", arch, Labels::default()).unwrap();
        let parts = SchedulerParts::new(
            Arc::clone(&store),
            Arc::new(ObjectArtifactStorage::memory()),
            Arc::new(ScriptedBuilder::new(script)),
            BackendPool::new([backend]).unwrap(),
        );
        let stop = CancellationToken::new();
        let url = runtime.block_on(async {
            let assembly = Assembly::new(parts, SubmissionRules::new(arch), SchedulerOptions::default());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let (app, scheduler) = (assembly.app, assembly.scheduler);
            let (serving, running) = (stop.clone(), stop.clone());
            tokio::spawn(async move { melange_server::serve(listener, app, serving).await });
            tokio::spawn(async move { scheduler.run(running).await });
            url
        });
        Self { runtime, store, url, stop }
    }

    /// What a browser sees of a stream until it ends.
    fn messages(&self, path: &str) -> Vec<Value> {
        let address = self.url.strip_prefix("http://").unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        );
        let answer = self.runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            tokio::time::timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
            answer
        });
        assert!(answer.contains("event: end\n"), "{answer}");
        let data = answer.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "{}").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[test]
fn events_are_the_same_by_every_way() {
    let failure = StepFailure::new("good: make", 2);
    let status = BuildStatus::Failed { reason: "make failed".to_owned(), failure: Some(failure) };
    let farm = Farm::start([
        Act::Emit(BuildEvent::PhaseFinished { phase: Phase::Compile, took: Duration::from_millis(3) }),
        Act::Emit(BuildEvent::StepStarted { index: 0, total: 1, name: "good: make".to_owned() }),
        Act::line("no rule"),
        Act::Finish(status),
    ]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let call = |args: &[&str]| {
        let output = command(folder.path(), args).env("MELANGE_SERVER", &farm.url).output().unwrap();
        let lines: Vec<Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines, text(&output.stderr))
    };
    let (code, submitted, said) = call(&["remote", "submit", "good.yaml", "--wait", "--output", "jsonl"]);
    assert_eq!(code, Some(1), "{said}");
    let page = farm.runtime.block_on(farm.store.events(&EventQuery::after(0))).unwrap();
    let stored: Vec<Value> = page.events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(submitted, stored);
    let kinds: Vec<&str> = stored.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected =
        ["job.state", "job.state", "job.phase", "job.step", "job.step", "job.attempt", "job.state"];
    assert_eq!(kinds, expected);
    let job = stored[0]["job"].as_str().unwrap();
    assert_eq!(farm.messages(&format!("/api/v1/jobs/{job}/events")), stored);
    assert_eq!(farm.messages(&format!("/api/v1/events?job={job}&after=3")), stored[3..]);
    for args in [
        &["remote", "wait", "@last", "--output", "jsonl"][..],
        &["remote", "events", "--job", "@last", "--output", "jsonl"],
    ] {
        let (_, told, said) = call(args);
        assert_eq!(told, stored, "{args:?}: {said}");
    }
    let (_, rest, _) = call(&["remote", "events", "--job", job, "--after", "5", "--output", "json"]);
    assert_eq!(rest, stored[5..]);
    let shown = command(folder.path(), &["remote", "events", "--job", "@last", "--server", &farm.url])
        .output()
        .unwrap();
    let shown = text(&shown.stdout);
    let words: Vec<&str> = shown.lines().map(|line| line.splitn(4, ' ').last().unwrap()).collect();
    let arch = Arch::host().unwrap();
    let expected = [
        format!("pending good {arch}"),
        format!("running good {arch} on tcp://a:1"),
        "compile took 3 ms".to_owned(),
        "step 1 (good: make) begins".to_owned(),
        "step fails with exit code 2".to_owned(),
        "attempt 1 failed: make failed".to_owned(),
        format!("failed good {arch}: make failed"),
    ];
    assert_eq!(words, expected);
}
