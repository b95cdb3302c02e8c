//! Logs over the API: every choice of lines, every form, from the store and from the artifacts.

use super::*;

fn begins(index: usize, name: &str) -> Act {
    Act::Emit(BuildEvent::StepStarted { index, total: 2, name: name.to_owned() })
}

fn ends(index: usize, seconds: u64) -> Act {
    Act::Emit(BuildEvent::StepFinished { index, took: Duration::from_secs(seconds), cached: false })
}

fn printed(step: usize, stream: LogStream, line: &str) -> Act {
    Act::Emit(BuildEvent::Log { stream, step: Some(step), line: line.to_owned() })
}

/// A service whose job prints, is tested and ends; and the path of its logs.
async fn ended() -> (Service, String) {
    let report = TestReport::new("hello", TestStatus::Passed, Duration::from_secs(1));
    let service = Service::start([
        begins(0, "hello: fetch"),
        printed(0, LogStream::Stdout, "fetched"),
        ends(0, 2),
        begins(1, "hello: make"),
        printed(1, LogStream::Stdout, "cc hello.c"),
        Act::Sleep(Duration::from_secs(60)),
        printed(1, LogStream::Stderr, "warning: \u{1b}[1mold\u{1b}[0m"),
        ends(1, 60),
        Act::Emit(BuildEvent::TestStarted { index: 0, total: 1, subject: "hello".to_owned() }),
        Act::line("of the test"),
        Act::Emit(BuildEvent::TestFinished { index: 0, report }),
        Act::line("of what follows"),
    ]);
    let id = service.submit(&hello()).await;
    service.wait(&id, "success").await;
    (service, format!("/api/v1/jobs/{id}/logs"))
}

/// Waits until the logs of a service lie among its artifacts.
async fn archived(service: &Service, logs: &str) {
    let attempts = logs.replace("/logs", "/attempts");
    while service.get(&attempts).await.json()[0]["log_lines"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn text(service: &Service, path: &str) -> String {
    let answer = service.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    answer.text()
}

#[tokio::test(start_paused = true)]
async fn lines_are_chosen_by_every_property_wherever_they_are() {
    let (service, logs) = ended().await;
    let whole = text(&service, &logs).await;
    insta::assert_snapshot!("log", whole);
    let choices = [
        "attempt=1",
        "step=0",
        "step=hello%3A%20make",
        "stream=stderr",
        "stream=engine",
        "step=1&stream=stdout",
        "tail=2",
        "tail=1&stream=stderr",
        "since=1:3",
        "since=10",
        "since=30s",
        "test=hello",
        "test=hello&since=1:8",
    ];
    let chosen = async || {
        let mut told = String::new();
        for choice in choices {
            told.push_str(&format!("{choice}\n{}", text(&service, &format!("{logs}?{choice}")).await));
        }
        told
    };
    let before = chosen().await;
    insta::assert_snapshot!("log_choices", before);
    archived(&service, &logs).await;
    assert_eq!(text(&service, &logs).await, whole);
    assert_eq!(chosen().await, before, "the same from the artifacts");
}

#[tokio::test(start_paused = true)]
async fn lines_have_numbers_times_steps_and_streams() {
    let (service, logs) = ended().await;
    let lines = text(&service, &format!("{logs}?format=jsonl")).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = lines.iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=u64::try_from(lines.len()).unwrap()).collect::<Vec<_>>());
    let warning = lines.iter().find(|line| line["stream"] == "stderr").unwrap();
    assert_eq!((&warning["step"], &warning["attempt"]), (&json!(1), &json!(1)));
    assert_eq!(warning["text"], "warning: \u{1b}[1mold\u{1b}[0m");
    let engine = lines.iter().find(|line| line["stream"] == "engine").unwrap();
    assert!(engine.get("step").is_none(), "{engine}");
    let time = |line: &Value| line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let begun = lines.iter().find(|line| line["text"] == "cc hello.c").unwrap();
    assert!(time(warning).duration_since(time(begun)).as_secs() >= 60);
}

#[tokio::test(start_paused = true)]
async fn ranges_of_the_text_are_those_of_http() {
    let (service, logs) = ended().await;
    let whole = text(&service, &logs).await;
    for _ in 0..2 {
        for (range, expected) in
            [("bytes=3-9", 3..10), ("bytes=40-", 40..whole.len()), ("bytes=-5", whole.len() - 5..whole.len())]
        {
            let request = Request::get(&logs).header(header::RANGE, range).body(Body::empty()).unwrap();
            let answer = service.send(request).await;
            assert_eq!(
                (answer.status, answer.text()),
                (StatusCode::PARTIAL_CONTENT, whole[expected.clone()].to_owned())
            );
            let told = format!("bytes {}-{}/{}", expected.start, expected.end - 1, whole.len());
            assert_eq!(answer.header(header::CONTENT_RANGE), told);
        }
        let behind = Request::get(&logs).header(header::RANGE, "bytes=9999-").body(Body::empty()).unwrap();
        assert_eq!(service.send(behind).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
        archived(&service, &logs).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_outline_and_searches_find_lines() {
    let (service, logs) = ended().await;
    for _ in 0..2 {
        let outline = service.get(&format!("{logs}/index")).await.json();
        insta::assert_snapshot!("log_index", serde_json::to_string_pretty(&outline).unwrap());
        let found = service.get(&format!("{logs}/search?q=OLD")).await.json();
        insta::assert_snapshot!("log_search", serde_json::to_string_pretty(&found).unwrap());
        let none = service.get(&format!("{logs}/search?q=OLD&case=true")).await.json();
        assert_eq!((&none["total"], &none["hits"]), (&json!(0), &json!([])));
        let some = service.get(&format!("{logs}/search?q=^...e&regex=true&step=1")).await.json();
        assert_eq!(some["total"], json!(0));
        for bad in ["q=", "q=(&regex=true", "q=x&limit=0", "q=x&step=nosuch", "q=x&attempt=2", "q=x&nosuch=1"]
        {
            let answer = service.get(&format!("{logs}/search?{bad}")).await;
            assert!(answer.status.is_client_error(), "{bad}: {}", answer.text());
        }
        archived(&service, &logs).await;
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_on_behind_the_last_one_and_end_with_the_job() {
    let (service, logs) = ended().await;
    let ask = async |last: Option<&str>| {
        let mut request = Request::get(&logs).header(header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        service.send(request.body(Body::empty()).unwrap()).await
    };
    let all = ask(None).await;
    assert_eq!(all.header(header::CONTENT_TYPE), "text/event-stream");
    assert_eq!(all.header("x-accel-buffering"), "no");
    let all = all.text();
    assert!(all.contains("event: lines\nid: 1:11\ndata: {\"attempt\":1,\"lines\":[{"), "{all}");
    assert!(all.ends_with("event: end\ndata: {\"status\":\"success\"}\n\n"), "{all}");
    let rest = ask(Some("1:10")).await.text();
    assert!(rest.contains("\"n\":11,") && !rest.contains("\"n\":10,"), "{rest}");
    let nothing = ask(Some("1:11")).await.text();
    assert_eq!(nothing, "event: end\ndata: {\"status\":\"success\"}\n\n");
    assert_eq!(ask(Some("x")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn the_step_that_failed_is_found() {
    let failure = StepFailure::new("hello: make", 2);
    let status = BuildStatus::Failed { reason: "make failed".to_owned(), failure: Some(failure) };
    let service = Service::start([
        begins(0, "hello: fetch"),
        printed(0, LogStream::Stdout, "fine"),
        ends(0, 1),
        begins(1, "hello: make"),
        printed(1, LogStream::Stdout, "no rule"),
        Act::Finish(status),
    ]);
    let id = service.submit(&hello()).await;
    let job = service.wait(&id, "failed").await;
    assert_eq!((&job["steps"][0]["exit_code"], &job["steps"][1]["exit_code"]), (&json!(0), &json!(2)));
    let logs = format!("/api/v1/jobs/{id}/logs");
    assert_eq!(text(&service, &format!("{logs}?failed=true")).await, "no rule\n");
    assert_eq!(text(&service, &format!("{logs}?failed=true&attempt=1")).await, "no rule\n");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_with_a_reason() {
    let (service, logs) = ended().await;
    for (choice, status) in [
        ("since=yesterday", StatusCode::BAD_REQUEST),
        ("stream=both", StatusCode::BAD_REQUEST),
        ("attempt=x", StatusCode::BAD_REQUEST),
        ("attempt=2", StatusCode::NOT_FOUND),
        ("attempt=0", StatusCode::NOT_FOUND),
        ("step=nosuch", StatusCode::NOT_FOUND),
        ("test=nobody", StatusCode::NOT_FOUND),
        ("failed=true", StatusCode::NOT_FOUND),
        ("step=0&test=hello", StatusCode::BAD_REQUEST),
        ("attempt=1&test=hello", StatusCode::BAD_REQUEST),
        ("format=xml", StatusCode::BAD_REQUEST),
        ("offset=3", StatusCode::BAD_REQUEST),
    ] {
        let answer = service.get(&format!("{logs}?{choice}")).await;
        assert_eq!(answer.status, status, "{choice}: {}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn followers_beyond_the_bound_are_asked_to_come_again() {
    let service = Service::start([Act::Wait(Arc::new(Notify::new()))]);
    let id = service.submit(&hello()).await;
    let held = Arc::clone(&service.app.followers)
        .acquire_many_owned(u32::try_from(limits::LOG_FOLLOWERS_MAX).unwrap())
        .await;
    let logs = format!("/api/v1/jobs/{id}/logs");
    let answer = service.get(&format!("{logs}?follow=true")).await;
    assert_eq!((answer.status, answer.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert_eq!(service.get(&logs).await.status, StatusCode::OK);
    drop(held);
}

/// A job store that has forgotten its jobs.
#[derive(Debug)]
struct Forgetful(Arc<dyn JobStore>);

#[async_trait]
impl ForwardJobStore for Forgetful {
    fn inner(&self) -> &dyn JobStore {
        &*self.0
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        Err(Error::new(ErrorKind::NotFound, "there is no such job").with("job", id))
    }

    async fn attempt(&self, id: JobId, _: u32) -> Result<JobAttempt> {
        self.get(id).await.map(|_| unreachable!("it has no jobs"))
    }
}

#[tokio::test(start_paused = true)]
async fn the_artifacts_have_logs_that_the_store_has_forgotten() {
    let (service, logs) = ended().await;
    let whole = text(&service, &logs).await;
    archived(&service, &logs).await;
    let mut app = service.app.clone();
    app.job_store = Arc::new(Forward(Forgetful(app.job_store)));
    app.logs = JobLogs::new(Arc::clone(&app.job_store), Arc::clone(&app.artifact_storage));
    let forgetful = Service::of(app);
    assert_eq!(text(&forgetful, &logs).await, whole);
    assert_eq!(text(&forgetful, &format!("{logs}?attempt=1&tail=1")).await, "--- the build succeeded\n");
}
