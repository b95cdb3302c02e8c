//! The routes, in process, over a scripted builder: every endpoint and every way to ask wrongly.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::layout::job_folder;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::health::BackendStatus;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::backend_selector::{BackendSelector, Candidate, Refusal, Requirements};
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::builder::{BuildEvent, BuildStatus, LogStream, StepFailure, TestReport, TestStatus};
use melange_remote_sdk::clock::SteadyClock;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{Job, JobAttempt, JobId};
use melange_remote_sdk::job_log::JobLogs;
use melange_remote_sdk::job_store::JobStore;
use melange_remote_sdk::job_store::forward::{Forward, ForwardJobStore};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use melange_server::assembly::Assembly;
use melange_server::run_assembly;
use melange_server::submission::SubmissionRules;
use melange_server::{App, router};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

mod builds;
mod connections;
mod events;
mod logs;
mod melange2;
mod published;
mod readiness;
mod reports;
mod retention;
mod sources;
mod submissions;
mod why;

const HELLO: &str =
    "package:\n  name: hello\n  version: 1.0.0\n  epoch: 0\npipeline:\n  - runs: echo hello\n";

/// A service with its scheduler.
struct Service {
    router: Router,
    app: App,
    shutdown: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A scripted builder on one backend, with everything in memory.
fn parts(script: impl IntoIterator<Item = Act>, backend: Backend) -> SchedulerParts {
    parts_of(script, [backend])
}

fn parts_of(
    script: impl IntoIterator<Item = Act>,
    backends: impl IntoIterator<Item = Backend>,
) -> SchedulerParts {
    let store = MemoryJobStore::default();
    SchedulerParts::new(
        Arc::new(store.clone()),
        Arc::new(ObjectArtifactStorage::memory()),
        Arc::new(ScriptedBuilder::new(script)),
        BackendPool::new(backends).unwrap(),
    )
    .with_registry(Arc::new(store))
    .with_clock(Arc::new(SteadyClock::starting_at(jiff::Timestamp::now())))
}

impl Service {
    fn start(script: impl IntoIterator<Item = Act>) -> Self {
        Self::with_rules(SubmissionRules::new(Arch::X86_64), script)
    }

    fn with_rules(rules: SubmissionRules, script: impl IntoIterator<Item = Act>) -> Self {
        let labels = Labels::from_pairs([("tier", "standard")]).unwrap();
        let backend = Backend::new("tcp://amd64-standard:1234", Arch::X86_64, labels).unwrap();
        let parts = parts(script, backend);
        let Assembly { app, scheduler, .. } = Assembly::new(parts, rules, SchedulerOptions::default());
        let service = Self::of(app);
        let stop = service.shutdown.clone();
        tokio::spawn(async move { scheduler.run(stop).await });
        service
    }

    /// A service whose jobs nobody runs, or somebody else.
    fn of(app: App) -> Self {
        Self { router: router(app.clone()), app, shutdown: CancellationToken::new() }
    }

    /// The service once it knows that its backends answer, which is the last news of them.
    async fn settled(self) -> Self {
        let mut hint = self.app.pool.changed();
        while self.app.pool.has_observations()
            || self.app.pool.states().iter().any(|state| state.status != BackendStatus::Healthy)
        {
            hint.changed().await.unwrap();
        }
        self
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path);
        self.send(request.header("content-type", "application/json").body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, body.to_string()).await
    }

    async fn submit(&self, body: &Value) -> String {
        let answer = self.post("/api/v1/jobs", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Reads the job until it has the status.
    async fn wait(&self, id: &str, status: &str) -> Value {
        let id = id.parse().unwrap();
        loop {
            let mut hint = self.app.job_store.changed(melange_remote_sdk::job_store::Subject::Job(id));
            let job = self.get(&format!("/api/v1/jobs/{id}")).await.json();
            if job["status"] == status {
                return job;
            }
            hint.changed().await.unwrap();
        }
    }
}

/// Ids and times differ from run to run.
fn redacted(mut value: Value) -> String {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match key.as_str() {
                        "id" => *value = json!("[id]"),
                        "server" => *value = json!("[server]"),
                        "duration_ms" | "latency_ms" => *value = json!("[ms]"),
                        "at" | "since" => *value = json!("[time]"),
                        key if key.ends_with("_at") => *value = json!("[time]"),
                        "log_path" | "output_path" => {
                            let text = value.as_str().unwrap_or_default();
                            let rest = text.strip_prefix("memory://").and_then(|text| text.get(36..));
                            *value = json!(format!("memory://[id]{}", rest.unwrap_or("?")));
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

/// Status and error of an answer that refuses.
fn refusal(answer: &Answer) -> String {
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/json", "{}", answer.text());
    format!("{}\n{}", answer.status.as_u16(), serde_json::to_string_pretty(&answer.json()).unwrap())
}

fn hello() -> Value {
    json!({ "config_yaml": HELLO })
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_tells_what_became_of_it() {
    let service = Service::start([
        Act::line("echo hello"),
        Act::Write("{arch}/hello-1.0.0-r0.apk".into(), b"0123456789".into()),
    ]);
    let id = service.submit(&hello()).await;
    let job = service.wait(&id, "success").await;
    insta::assert_snapshot!("job_success", redacted(job));
    let list = service.get("/api/v1/jobs").await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["id"], id.as_str());

    let base = format!("/api/v1/jobs/{id}");
    let log = service.get(&format!("{base}/logs")).await;
    assert_eq!(log.header(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    assert!(log.text().contains("\necho hello\n"), "{}", log.text());

    let artifacts = service.get(&format!("{base}/artifacts")).await.json();
    insta::assert_snapshot!("artifacts", redacted(artifacts));
    let path = format!("{base}/artifacts/x86_64/hello-1.0.0-r0.apk");
    let whole = service.get(&path).await;
    assert_eq!((whole.status, whole.bytes.as_slice()), (StatusCode::OK, &b"0123456789"[..]));
    assert_eq!(whole.header(header::CONTENT_TYPE), "application/vnd.apk");
    assert_eq!(whole.header(header::CONTENT_LENGTH), "10");
    let part = Request::get(&path).header(header::RANGE, "bytes=2-4").body(Body::empty()).unwrap();
    let part = service.send(part).await;
    assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, &b"234"[..]));
    assert_eq!(part.header(header::CONTENT_RANGE), "bytes 2-4/10");
    let behind = Request::get(&path).header(header::RANGE, "bytes=10-").body(Body::empty()).unwrap();
    let behind = service.send(behind).await;
    assert_eq!(behind.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(behind.header(header::CONTENT_RANGE), "bytes */10");
    let tag = whole.header(header::ETAG);
    let known = Request::get(&path).header(header::IF_NONE_MATCH, tag).body(Body::empty()).unwrap();
    assert_eq!(service.send(known).await.status, StatusCode::NOT_MODIFIED);
    let missing = service.get(&format!("{base}/artifacts/no.apk")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    for name in ["a/../../b", "a%2f..%2fb", ".sha256/x"] {
        let answer = service.get(&format!("{base}/artifacts/{name}")).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_job_streams_its_log_and_can_be_cancelled() {
    let gate = Arc::new(Notify::new());
    let service = Service::start([
        Act::line("one"),
        Act::Wait(Arc::clone(&gate)),
        Act::line("two"),
        Act::Wait(gate.clone()),
    ]);
    let id = service.submit(&hello()).await;
    let request = Request::get(format!("/api/v1/jobs/{id}/logs?follow=true")).body(Body::empty()).unwrap();
    let mut stream = service.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut text = String::new();
    while !text.ends_with("one\n") {
        text.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
    }
    gate.notify_one();
    while !text.ends_with("two\n") {
        text.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
    }
    let running = service.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert_eq!(running["status"], "running");
    assert_eq!(service.get(&format!("/api/v1/jobs/{id}/artifacts")).await.json(), json!([]));
    let cancel = service.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!((cancel.status, &cancel.json()["cancel_requested"]), (StatusCode::OK, &json!(true)));
    while let Some(chunk) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    assert!(text.ends_with("--- the build was stopped\n"), "{text}");
    let job = service.wait(&id, "cancelled").await;
    assert!(job.get("error").is_none());
    let again = service.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(again.status, StatusCode::OK, "asking twice is no mistake");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_cannot_be_cancelled_and_a_failed_one_says_why() {
    let service = Service::start([Act::Finish(melange_remote_sdk::builder::BuildStatus::Failed {
        reason: "step hello failed".to_owned(),
        failure: None,
    })]);
    let id = service.submit(&hello()).await;
    let job = service.wait(&id, "failed").await;
    assert_eq!((&job["error"], &job["error_class"]), (&json!("step hello failed"), &json!("build")));
    let answer = service.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.json()["error"]["code"], "conflict");
}

/// Told with the job, and with the attempt whatever comes after it.
#[tokio::test(start_paused = true)]
async fn what_a_job_failed_of_is_told_with_the_lines_around_it() {
    let name = "hello: autoconf/make".to_owned();
    let log = |line: &str| {
        Act::Emit(BuildEvent::Log { stream: LogStream::Stderr, step: Some(0), line: line.to_owned() })
    };
    let service = Service::start([
        Act::Emit(BuildEvent::StepStarted { index: 0, total: 1, name: name.clone() }),
        log("cc -c src/hello.c"),
        log("\u{1b}[1msrc/hello.c:3:7: error:\u{1b}[m unknown type name 'u8'"),
        log("make: *** [hello.o] Error 1"),
        Act::Finish(BuildStatus::Failed {
            reason: "the step failed".to_owned(),
            failure: Some(StepFailure::new(name, 2)),
        }),
    ]);
    let id = service.submit(&hello()).await;
    let job = service.wait(&id, "failed").await;
    insta::assert_json_snapshot!("diagnosis", job["diagnosis"]);
    let listed = service.get("/api/v1/jobs").await.json();
    assert_eq!(listed[0].get("diagnosis"), None, "listings leave it out");
    let attempts = async || service.get(&format!("/api/v1/jobs/{id}/attempts")).await.json();
    assert_eq!(attempts().await[0]["diagnosis"], job["diagnosis"]);
    let retried = service.post(&format!("/api/v1/jobs/{id}/retry"), &json!({})).await.json();
    assert_eq!(retried.get("diagnosis"), None, "it is tried again");
    assert_eq!(attempts().await[0]["diagnosis"], job["diagnosis"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_job_is_tried_again_and_what_it_showed_stays() {
    let service = Service::start([
        Act::line("work"),
        Act::Finish(melange_remote_sdk::builder::BuildStatus::Failed {
            reason: "step hello failed".to_owned(),
            failure: None,
        }),
    ]);
    let id = service.submit(&hello()).await;
    service.wait(&id, "failed").await;
    let answer = service.post(&format!("/api/v1/jobs/{id}/retry"), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("pending")));
    let again = service.post(&format!("/api/v1/jobs/{id}/retry"), &json!({})).await;
    assert_eq!(again.status, StatusCode::OK, "asking twice is no mistake");
    let job = service.wait(&id, "failed").await;
    assert_eq!(job["attempt"], 2);
    let attempts = service.get(&format!("/api/v1/jobs/{id}/attempts")).await.json();
    let told: Vec<_> = attempts.as_array().unwrap().iter().map(|a| (&a["number"], &a["outcome"])).collect();
    assert_eq!(told, [(&json!(1), &json!("failed")), (&json!(2), &json!("failed"))]);
    let part = |number| format!("/api/v1/jobs/{id}/logs?attempt={number}");
    for number in [1, 2] {
        let log = service.get(&part(number)).await.text();
        let told = "on tcp://amd64-standard:1234\nwork\n--- the build failed: step hello failed\n";
        assert_eq!(log, format!("--- attempt {number} {told}"));
    }
    assert_eq!(service.get(&part(3)).await.status, StatusCode::NOT_FOUND);
    let both = service.get(&format!("/api/v1/jobs/{id}/logs")).await.text();
    assert!(both.contains("attempt 1") && both.contains("attempt 2"), "{both}");
}

#[tokio::test(start_paused = true)]
async fn listings_have_pages_and_filters() {
    let service = Service::start([]);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(service.submit(&hello()).await);
    }
    for id in &ids {
        service.wait(id, "success").await;
    }
    ids.reverse();
    let (mut found, mut path) = (Vec::new(), "/api/v1/jobs?limit=2&status=success".to_owned());
    loop {
        let page = service.get(&path).await;
        found
            .extend(page.json().as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let cursor = page.header("x-next-cursor");
        if cursor.is_empty() {
            assert_eq!(page.header(header::LINK), "");
            break;
        }
        let link = page.header(header::LINK);
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert!(path.contains(cursor) && path.contains("status=success"), "{link}");
    }
    assert_eq!(found, ids);
    assert_eq!(service.get("/api/v1/jobs?status=running").await.json(), json!([]));
    for bad in ["limit=0", "limit=x", "limit=1001", "status=done", "cursor=x", "page=2", "limit=1&limit=2"] {
        let answer = service.get(&format!("/api/v1/jobs?{bad}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
        assert_eq!(answer.json()["error"]["code"], "invalid_request");
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_requests_get_json_too() {
    let service = Service::start([]);
    let unknown = service.get("/api/v3/builds").await;
    insta::assert_snapshot!("unknown_path", refusal(&unknown));
    let method = service.ask(Method::PUT, "/api/v1/jobs", Body::empty()).await;
    insta::assert_snapshot!("wrong_method", refusal(&method));
    let mut allowed: Vec<&str> = method.header(header::ALLOW).split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let large =
        service.ask(Method::POST, "/api/v1/jobs", vec![b' '; limits::REQUEST_BODY_BYTES_MAX + 1]).await;
    insta::assert_snapshot!("too_large", refusal(&large));
    for path in ["nothing", "0197a3c2-0000-7000-8000-000000000000"] {
        for suffix in ["", "/logs", "/artifacts", "/artifacts/x"] {
            let answer = service.get(&format!("/api/v1/jobs/{path}{suffix}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}{suffix}");
            assert_eq!(answer.json()["error"]["code"], "not_found");
        }
    }
    assert_eq!(service.get("/healthz").await.json(), json!({ "status": "ok" }));
}

#[tokio::test(start_paused = true)]
async fn backends_come_and_go() {
    let service = Service::start([]);
    let path = "/api/v1/backends";
    let backend =
        json!({ "addr": "tcp://arm:1", "arch": "arm64", "labels": { "tier": "high" }, "maxJobs": 9 });
    let added = service.post(path, &backend).await;
    assert_eq!(added.status, StatusCode::CREATED);
    assert_eq!(service.post(path, &backend).await.status, StatusCode::CONFLICT);
    let service = service.settled().await;
    insta::assert_snapshot!("backends", redacted(service.get(path).await.json()));
    let arm = service.get("/api/v1/backends?arch=aarch64").await.json();
    assert_eq!(arm["backends"].as_array().unwrap().len(), 1);
    assert_eq!(service.get("/api/v1/backends?arch=z80").await.status, StatusCode::BAD_REQUEST);
    let bad = service
        .post(path, &json!({ "addr": "arm", "arch": "z80", "labels": { "a b": "" }, "maxJobs": 0 }))
        .await;
    insta::assert_snapshot!("refused_backend", refusal(&bad));
    let remove = async |addr: &str| {
        service.ask(Method::DELETE, path, json!({ "addr": addr }).to_string()).await.status
    };
    let drain = async |verb: &str, addr: &str| {
        service.post(&format!("{path}/{verb}"), &json!({ "addr": addr })).await
    };
    assert_eq!(drain("drain", "tcp://arm:1").await.json()["status"], "draining");
    assert_eq!(drain("enable", "tcp://arm:1").await.json()["status"], "healthy");
    assert_eq!(drain("drain", "tcp://nowhere:1").await.status, StatusCode::NOT_FOUND);
    let elsewhere = json!({ "addr": "tcp://arm:1", "machine": "other" });
    let there = service.post("/api/v1/backends/drain", &elsewhere).await;
    assert_eq!(there.status, StatusCode::NOT_FOUND, "no other machine has one");
    assert_eq!(remove("tcp://nowhere:1").await, StatusCode::NOT_FOUND);
    assert_eq!(remove("tcp://arm:1").await, StatusCode::NO_CONTENT);
    assert_eq!(remove("tcp://amd64-standard:1234").await, StatusCode::BAD_REQUEST);
    assert_eq!(service.ask(Method::DELETE, path, Body::empty()).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_takes_no_jobs() {
    let service = Service::start([]);
    service.app.stopping.cancel();
    let answer = service.post("/api/v1/jobs", &hello()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header(header::RETRY_AFTER), "5");
    assert_eq!(service.get("/healthz").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn pages_of_other_sites_change_nothing_and_bodies_are_json() {
    let service = Service::start([]);
    let backend = json!({ "addr": "tcp://evil:1", "arch": "x86_64" }).to_string();
    let post = |headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::POST).uri("/api/v1/backends");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.send(request.body(Body::from(backend.clone())).unwrap())
    };
    let json_type = ("content-type", "application/json");
    let refused = post(&[json_type, ("origin", "http://evil.example"), ("host", "127.0.0.1:8080")]).await;
    insta::assert_snapshot!("refused_origin", refusal(&refused));
    let renamed = [json_type, ("origin", "http://evil.example"), ("host", "evil.example")];
    assert_eq!(post(&renamed).await.status, StatusCode::FORBIDDEN);
    let plain = post(&[("content-type", "text/plain"), ("host", "127.0.0.1:8080")]).await;
    insta::assert_snapshot!("refused_media_type", refusal(&plain));
    assert_eq!(service.app.pool.backends().len(), 1, "nothing was added");
    let own = [json_type, ("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:8080")];
    assert_eq!(post(&own).await.status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn bodies_have_a_room_together_and_a_time_each() {
    let service = Service::start([]);
    let post = |body: Body| {
        let request = Request::builder().method(Method::POST).uri("/api/v1/jobs");
        service.send(request.header("content-type", "application/json").body(body).unwrap())
    };
    let stalled = || Body::from_stream(futures_util::stream::pending::<std::io::Result<Vec<u8>>>());
    assert_eq!(post(stalled()).await.status, StatusCode::REQUEST_TIMEOUT);
    let drip = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(limits::REQUEST_BODY_IDLE / 2).await;
        Some((Ok::<_, std::io::Error>(b" ".to_vec()), ()))
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(post(Body::from_stream(drip)).await.status, StatusCode::REQUEST_TIMEOUT);
    assert!(begun.elapsed() <= limits::REQUEST_BODY_TIME);
    // Others hold all of the room.
    let room = u32::try_from(limits::REQUEST_BODIES_BYTES_MAX >> 10).unwrap();
    let held = service.app.bodies.try_acquire_many(room).unwrap();
    let refused = post(Body::from(hello().to_string())).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header(header::RETRY_AFTER), "5");
    drop(held);
    assert_eq!(post(Body::from(hello().to_string())).await.status, StatusCode::CREATED);
    assert_eq!(service.app.bodies.available_permits(), room as usize, "the room comes back");
}

/// Panics instead of choosing.
#[derive(Debug)]
struct PanickingSelector;

impl BackendSelector for PanickingSelector {
    fn select(&self, _needs: &Requirements, _candidates: &[Candidate]) -> Result<usize, Refusal> {
        panic!("a defect")
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_dies_fails_the_health_check_and_ends_the_server() {
    let backend = Backend::new("tcp://a:1", Arch::X86_64, Labels::default()).unwrap();
    let parts = parts([], backend);
    let scheduler = |parts| Scheduler::new(parts, SchedulerOptions::default());
    // Requests must not panic too.
    let app = App::new(&scheduler(parts.clone()), SubmissionRules::new(Arch::X86_64));
    let parts = parts.with_backend_selector(Arc::new(PanickingSelector));
    let assembly = Assembly { app: app.clone(), scheduler: scheduler(parts), publisher: None };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = tokio::spawn(run_assembly(assembly, listener));
    let service = Service::of(app);
    service.submit(&hello()).await;
    while service.app.failure.get().is_none() {
        // The scheduler waits a few milliseconds between two looks, and the clock stands while this test is busy.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let health = service.get("/healthz").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(health.text().contains("the scheduler has ended"), "{}", health.text());
    let error = running.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the scheduler has ended"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn finished_jobs_and_their_artifacts_can_be_removed() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let service =
        Service::start([Act::Wait(Arc::clone(&gate)), Act::Write("{arch}/a.apk".into(), b"x".into())]);
    let request = json!({ "config_yaml": HELLO, "config_name": "hello.yaml", "test_packages": ["busybox"] });
    let id = service.submit(&request).await;
    let path = format!("/api/v1/jobs/{id}");
    let delete = async |path: &str| service.ask(Method::DELETE, path, Body::empty()).await.status;
    assert_eq!(delete(&path).await, StatusCode::CONFLICT, "it runs");
    gate.notify_one();
    let job = service.wait(&id, "success").await;
    assert_eq!((&job["package"], &job["version"]), (&json!("hello"), &json!("1.0.0-r0")));
    assert_eq!(job["spec"]["config_name"], "hello.yaml");
    assert_eq!(job["spec"]["test_packages"], json!(["busybox"]));
    let artifact = format!("{path}/artifacts/x86_64/a.apk");
    assert_eq!(delete(&artifact).await, StatusCode::NO_CONTENT);
    assert_eq!(delete(&artifact).await, StatusCode::NOT_FOUND);
    assert_eq!(service.get(&format!("{path}/artifacts")).await.json(), json!([]));
    assert_eq!(delete(&path).await, StatusCode::NO_CONTENT);
    assert_eq!(delete(&path).await, StatusCode::NOT_FOUND);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = service.app.artifact_storage.list(&job_folder(id.parse().unwrap()).unwrap()).await.unwrap();
    assert_eq!(left, [], "also of its log");
}

#[tokio::test(start_paused = true)]
async fn the_api_is_described_as_it_is() {
    let service = Service::start([]);
    let document = service.get("/api/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut count = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            count += 1;
            let method: Method = method.to_uppercase().parse().unwrap();
            let told = operation["responses"].as_object().unwrap();
            let real = path
                .replace("{id}", "0")
                .replace("{name}", "x")
                .replace("{digest}", "x")
                .replace("{arch}", "x86_64");
            let answer = service.ask(method.clone(), &real, Body::empty()).await;
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert!(!answer.text().contains("there is nothing at"), "{method} {path}");
            let family = format!("{}XX", answer.status.as_u16() / 100);
            assert!(
                told.contains_key(answer.status.as_str()) || told.contains_key(&family),
                "{method} {path} answers {}, which its description lacks",
                answer.status
            );
        }
    }
    assert_eq!(count, 51, "every operation is in the document");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    let written = std::fs::read_to_string(page).unwrap_or_default();
    let now = melange_server::api_reference(melange_server::args::ApiFormat::Markdown);
    assert!(written == now, "docs/api.md is old: `make reference` writes it anew");
}

#[tokio::test(start_paused = true)]
async fn links_tell_the_prefix_that_the_service_lies_under() {
    let mut service = Service::start([]);
    service.router = Router::new().nest("/builds", service.router.clone());
    let made = service.post("/builds/api/v1/jobs", &hello()).await;
    assert_eq!(service.get(made.header(header::LOCATION)).await.status, StatusCode::OK);
    service.post("/builds/api/v1/jobs", &hello()).await;
    let page = service.get("/builds/api/v1/jobs?limit=1").await;
    let next = page.header(header::LINK).split(['<', '>']).nth(1).unwrap();
    assert_eq!(service.get(next).await.status, StatusCode::OK);
    assert!(service.get("/builds/nothing").await.text().contains("jobs are at /builds/api/v1/jobs"));
    assert_eq!(service.get("/builds/api/openapi.json").await.json()["servers"][0]["url"], "/builds");
}
