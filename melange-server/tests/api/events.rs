//! Events over the API: pages, streams, and what is told of those that are gone.

use super::*;

async fn page(service: &Service, query: &str) -> Value {
    let answer = service.get(&format!("/api/v1/events?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text());
    answer.json()
}

fn types(page: &Value) -> Vec<&str> {
    page["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_go_on_and_tell_how_far_they_looked() {
    let service = Service::start([Act::line("hello")]).settled().await;
    let before = page(&service, "").await;
    assert_eq!(types(&before), ["backend.state", "backend.state"], "it came, and answers");
    let id = service.submit(&hello()).await;
    service.wait(&id, "success").await;
    let all = page(&service, "after=2").await;
    assert_eq!(types(&all), ["job.state", "job.state", "job.phase", "job.phase", "job.attempt", "job.state"]);
    assert_eq!((&all["oldest"], &all["last"]), (&json!(1), &json!(8)));
    let first = page(&service, "after=2&limit=2").await;
    assert_eq!((types(&first).len(), &first["last"]), (2, &json!(4)));
    assert_eq!(
        page(&service, "after=4").await["events"],
        Value::from(all["events"].as_array().unwrap()[2..].to_vec())
    );
    assert_eq!(page(&service, &format!("job={id}")).await["events"], all["events"]);
    assert_eq!(page(&service, "project=other").await["events"], json!([]));
    let of_job = service.get(&format!("/api/v1/jobs/{id}/events?after=7")).await.json();
    assert_eq!(of_job["events"].as_array().unwrap().len(), 1);
    for bad in ["limit=0", "limit=1001", "after=x", "job=x", "project=a%20b", "nosuch=1"] {
        let answer = service.get(&format!("/api/v1/events?{bad}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}: {}", answer.text());
    }
    let missing = "0197a3c2-1111-7aaa-8000-000000000001";
    for path in [format!("/api/v1/jobs/{missing}/events"), format!("/api/v1/events?job={missing}")] {
        assert_eq!(service.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

/// The lines of a followed stream as they come.
async fn follow(service: &Service, path: &str) -> impl StreamExt<Item = Value> + Unpin + use<> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let chunks = response.into_body().into_data_stream();
    let events = chunks.flat_map(|chunk| {
        let chunk = chunk.unwrap();
        let lines = String::from_utf8(chunk.to_vec()).unwrap();
        let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        futures_util::stream::iter(events)
    });
    Box::pin(events)
}

#[tokio::test(start_paused = true)]
async fn streams_begin_now_and_those_of_a_job_end_with_it() {
    let gate = Arc::new(Notify::new());
    let service = Service::start([Act::Wait(Arc::clone(&gate))]).settled().await;
    let first = service.submit(&hello()).await;
    service.wait(&first, "running").await;
    let mut farm = follow(&service, "/api/v1/events?follow=true").await;
    let mut of_job = follow(&service, &format!("/api/v1/jobs/{first}/events?follow=true")).await;
    let begun: Vec<Value> = vec![of_job.next().await.unwrap(), of_job.next().await.unwrap()];
    assert_eq!(
        (&begun[0]["data"]["state"], &begun[1]["data"]["state"]),
        (&json!("pending"), &json!("running"))
    );
    let second = service.submit(&hello()).await;
    let news = farm.next().await.unwrap();
    assert_eq!((&news["job"], &news["seq"]), (&json!(second), &json!(5)));
    gate.notify_waiters();
    let rest: Vec<Value> = of_job.collect().await;
    assert_eq!(rest.last().unwrap()["data"]["state"], "success");
    assert!(rest.iter().all(|event| event["job"] == first.as_str()));
    service.app.stopping.cancel();
    let rest: Vec<Value> = farm.collect().await;
    assert!(rest.iter().any(|event| event["job"] == first.as_str()));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_told_as_a_gap() {
    let service = Service::start([]).settled().await;
    let id = service.submit(&hello()).await;
    service.wait(&id, "success").await;
    // A store that begins anew knows fewer numbers than its clients.
    let mut stream = follow(&service, "/api/v1/events?follow=true&after=99").await;
    let gap = stream.next().await.unwrap();
    assert_eq!((&gap["type"], &gap["data"]["from"]), (&json!("stream.gap"), &json!(100)));
    let other = service.submit(&hello()).await;
    assert_eq!(stream.next().await.unwrap()["job"], other);
}
