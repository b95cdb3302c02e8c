//! What is handed in: jobs that wait, are known or equal, or have mistakes.

use melange_remote_sdk::job_store::{Submission, Submitted};
use melange_server::submission::Unmatched;

use super::*;

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_jobs_and_are_skipped_when_those_fail() {
    let fail = Act::Finish(melange_remote_sdk::builder::BuildStatus::Failed {
        reason: "step hello failed".to_owned(),
        failure: None,
    });
    let gate = Arc::new(Notify::new());
    let service = Service::start([Act::Wait(Arc::clone(&gate)), fail]);
    let first = service.submit(&hello()).await;
    let waiting = |jobs: &[&str]| {
        let mut body = hello();
        (body["waits_for"], body["priority"]) = (json!(jobs), json!(700));
        body
    };
    let second = service.submit(&waiting(&[&first])).await;
    let third = service.submit(&waiting(&[&second, &first])).await;
    let job = service.get(&format!("/api/v1/jobs/{third}")).await.json();
    assert_eq!(
        (&job["status"], &job["blocked_by"], &job["priority"]),
        (&json!("blocked"), &json!([first, second]), &json!(700))
    );
    let listed = service.get("/api/v1/jobs?status=blocked").await.json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(ids, [json!(third), json!(second)]);
    assert!(listed[0]["spec"].get("config_yaml").is_none(), "listings leave the texts out");
    gate.notify_one();
    let job = service.wait(&third, "skipped").await;
    assert_eq!((&job["skipped_for"], &job["error_class"]), (&json!(first), &json!("dependency")));
    assert_eq!(job["error"], "hello failed, and this job waits for it");
    let answer = service.post(&format!("/api/v1/jobs/{third}/retry"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    service.post(&format!("/api/v1/jobs/{first}/retry"), &json!({})).await;
    assert_eq!(service.get(&format!("/api/v1/jobs/{third}")).await.json()["status"], "blocked");
    for (field, value) in [("priority", json!(1001)), ("project", json!("a b")), ("waits_for", json!(["x"]))]
    {
        let mut body = hello();
        body[field] = value;
        let answer = service.post("/api/v1/jobs", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{field}");
    }
    let unknown = service.post("/api/v1/jobs", &waiting(&["0197a3c2-5b7e-7cc3-98c4-dc0c0c07398f"])).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn the_same_idempotency_key_gives_the_same_job() {
    let service = Service::start([]);
    let send = async |key: &str, config: &str| {
        let body = json!({ "config_yaml": config }).to_string();
        let request = Request::post("/api/v1/jobs")
            .header("content-type", "application/json")
            .header("Idempotency-Key", key)
            .body(body.into())
            .unwrap();
        service.send(request).await
    };
    let (first, second) = (send("k1", HELLO).await.json(), send("k1", HELLO).await.json());
    assert_eq!(first["id"], second["id"]);
    assert_eq!((&first["created"], &second["created"]), (&json!(true), &json!(false)));
    assert_ne!(send("k2", HELLO).await.json()["id"], first["id"]);
    let other = send("k1", &HELLO.replace("1.0.0", "2.0.0")).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(send(&"k".repeat(200), HELLO).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_a_backend_that_is_out_of_service() {
    let service = Service::start([]);
    let name = json!({ "addr": "tcp://amd64-standard:1234" });
    assert_eq!(service.post("/api/v1/backends/drain", &name).await.status, StatusCode::OK);
    let id = service.submit(&hello()).await;
    let job = format!("/api/v1/jobs/{id}");
    let reason = async || service.get(&job).await.json()["waiting_reason"].clone();
    while reason().await != "the only matching backend is drained" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(service.post("/api/v1/backends/enable", &name).await.status, StatusCode::OK);
    service.wait(&id, "success").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_takes_jobs_for_the_backends_of_others_with_the_same_database() {
    let mut rules = SubmissionRules::new(Arch::X86_64);
    rules.unmatched = Unmatched::Taken;
    let service = Service::with_rules(rules, []);
    let id = service.submit(&json!({ "config_yaml": HELLO, "arch": "aarch64" })).await;
    assert_eq!(service.get(&format!("/api/v1/jobs/{id}")).await.json()["status"], "pending");
}

#[tokio::test(start_paused = true)]
async fn an_equal_job_is_joined_by_who_asks_for_it() {
    let service = Service::start([]);
    let send = async |more: Value| {
        let mut body = json!({ "config_yaml": HELLO });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.post("/api/v1/jobs", &body).await
    };
    let first = send(json!({ "dedupe_seconds": 60 })).await.json();
    assert_eq!(first["created"], true);
    let joined = send(json!({ "dedupe_seconds": 60 })).await.json();
    assert_eq!(joined, json!({ "id": first["id"], "created": false }));
    assert_ne!(send(json!({})).await.json()["id"], first["id"], "nobody joins unasked");
    assert_ne!(send(json!({ "dedupe_seconds": 60, "debug": true })).await.json()["id"], first["id"]);
    let wrong = send(json!({ "dedupe_seconds": "1h" })).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.json()["error"]["details"][0]["field"], "dedupe_seconds");
}

#[tokio::test(start_paused = true)]
async fn more_submissions_than_the_rate_are_refused_before_their_bodies() {
    let mut rules = SubmissionRules::new(Arch::X86_64);
    rules.submit_rate = std::num::NonZeroU32::new(1);
    let service = Service::with_rules(rules, []);
    for _ in 0..10 {
        service.submit(&hello()).await;
    }
    let unread = Body::from_stream(futures_util::stream::poll_fn(
        |_| -> std::task::Poll<Option<std::io::Result<Vec<u8>>>> { panic!("nobody reads this") },
    ));
    let refused = service.ask(Method::POST, "/api/v1/jobs", unread).await;
    insta::assert_snapshot!("refused_rate", refusal(&refused));
    assert_eq!(refused.header(header::RETRY_AFTER), "1");
    assert_eq!(service.get("/api/v1/jobs").await.status, StatusCode::OK, "other requests go on");
    tokio::time::advance(Duration::from_secs(1)).await;
    service.submit(&hello()).await;
    assert_eq!(service.post("/api/v1/jobs", &hello()).await.status, StatusCode::TOO_MANY_REQUESTS);
}

/// A job store with a full queue.
#[derive(Debug)]
struct Full(Arc<dyn JobStore>);

#[async_trait]
impl ForwardJobStore for Full {
    fn inner(&self) -> &dyn JobStore {
        &*self.0
    }

    async fn submit(&self, _: &Submission) -> Result<Submitted> {
        Err(Error::new(ErrorKind::LimitExceeded, "too many jobs wait"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_to_come_again() {
    let mut service = Service::start([]);
    let mut app = service.app.clone();
    app.job_store = Arc::new(Forward(Full(app.job_store)));
    service.router = router(app);
    let refused = service.post("/api/v1/jobs", &hello()).await;
    assert_eq!((refused.status, refused.header(header::RETRY_AFTER)), (StatusCode::TOO_MANY_REQUESTS, "5"));
    service.app.stopping.cancel();
    let health = service.get("/healthz").await;
    assert_eq!((health.status, health.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
}

#[tokio::test(start_paused = true)]
async fn submissions_with_mistakes_are_refused_with_every_one_of_them() {
    let service = Service::start([]);
    let broken = "package:\n  nam: hello\n  version: 1\n  epoch: x\npipelin:\n  - runs: a\n";
    let unknown = HELLO.replace("runs: echo hello", "uses: no/such");
    let local = format!("environment:\n  contents:\n    repositories: [/etc]\n    packages: [a]\n{HELLO}");
    let cases = [
        ("definition", json!({ "config_yaml": broken })),
        ("not_yaml", json!({ "config_yaml": "a: [" })),
        ("unknown_pipeline", json!({ "config_yaml": unknown })),
        ("pipeline_path", json!({ "config_yaml": HELLO, "pipelines": { "../../etc/x.yaml": "a" } })),
        ("arch", json!({ "config_yaml": HELLO, "arch": "z80" })),
        ("missing_config", json!({ "arch": "x86_64" })),
        ("unknown_field", json!({ "config_yaml": HELLO, "selector": {} })),
        ("local_repository", json!({ "config_yaml": local })),
        ("no_arch_backend", json!({ "config_yaml": HELLO, "arch": "aarch64" })),
        ("no_label_backend", json!({ "config_yaml": HELLO, "backend_selector": { "tier": "high-memory" } })),
    ];
    for (name, body) in cases {
        let answer = service.post("/api/v1/jobs", &body).await;
        insta::assert_snapshot!(format!("refused_{name}"), refusal(&answer));
    }
    let answer = service.ask(Method::POST, "/api/v1/jobs", "{\"config_yaml\": ").await;
    insta::assert_snapshot!("refused_not_json", refusal(&answer));
    let dotted = HELLO.replace("name: hello", "name: ../hello");
    let answer = service.post("/api/v1/jobs", &json!({ "config_yaml": dotted })).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
    assert_eq!(service.get("/api/v1/jobs").await.json(), json!([]));
}
