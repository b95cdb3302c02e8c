//! What is told of ended jobs whose artifacts or logs were removed.

use melange_remote_sdk::job_store::Holding;
use melange_remote_sdk::limits;
use melange_remote_sdk::retention::{Collector, CollectorOptions, Keep, KeepLatest, KeepRules, Mode};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_gone_and_says_when() {
    let service = Service::start([Act::Write("x86_64/a.apk".to_owned(), vec![7; 30])]);
    let id = service.submit(&hello()).await;
    service.wait(&id, "success").await;
    let (log, artifacts) = (format!("/api/v1/jobs/{id}/logs"), format!("/api/v1/jobs/{id}/artifacts"));
    // Until the log lies among the artifacts.
    tokio::time::sleep(limits::LOG_ARCHIVE_WAIT + limits::RETENTION_RECENT).await;
    assert_eq!(service.get(&log).await.status, 200);
    let mut rules = KeepRules::ALL;
    (rules.logs, rules.artifacts, rules.latest) = (Keep::at_most(0), Keep::at_most(0), KeepLatest::No);
    let app = &service.app;
    let (store, storage) = (Arc::clone(&app.job_store), Arc::clone(&app.artifact_storage));
    let collector = Collector::new(store, storage, Arc::clone(&app.clock), CollectorOptions::new(rules));
    let done = collector.pass(Mode::Remove).await.unwrap();
    assert_eq!(done.removals.len(), 2);
    for path in [&log, &format!("{log}?attempt=1"), &format!("{log}?tail=1"), &format!("{log}?follow=true")] {
        let answer = service.get(path).await;
        assert_eq!(answer.status, 410, "{path}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "gone");
        assert!(error["message"].as_str().unwrap().starts_with("the log was removed at 20"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("--keep-logs"), "{error}");
    }
    for path in [&artifacts, &format!("{artifacts}/x86_64/a.apk")] {
        let answer = service.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (410, &json!("gone")),
            "{path}"
        );
    }
    let job = service.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert!(job["artifacts_removed_at"].is_string() && job["log_removed_at"].is_string(), "{job}");
    assert_eq!(job["artifacts"][0]["name"], "x86_64/a.apk", "it goes on telling what it made");
    assert!(job.get("log_path").is_none() && job.get("output_path").is_none(), "{job}");
    let attempts = service.get(&format!("/api/v1/jobs/{id}/attempts")).await.json();
    assert!(attempts[0]["log_removed_at"].is_string(), "{attempts}");
    assert_eq!(service.ask(Method::DELETE, &format!("/api/v1/jobs/{id}"), "").await.status, 204);
}

/// What a job shows once it is tried again is there, and what is gone is left out.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_tried_again_shows_what_it_has() {
    let service = Service::start([Act::line("said"), Act::Sleep(Duration::from_secs(3_600))]);
    let id = service.submit(&hello()).await;
    service.wait(&id, "running").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    service.ask(Method::POST, &format!("/api/v1/jobs/{id}/cancel"), "").await;
    service.wait(&id, "cancelled").await;
    let (job, now) = (id.parse().unwrap(), service.app.clock.now());
    service.app.job_store.note_removed(job, Holding::Logs, now).await.unwrap();
    let log = format!("/api/v1/jobs/{id}/logs");
    assert_eq!(service.get(&log).await.status, 410);
    service.ask(Method::POST, &format!("/api/v1/jobs/{id}/retry"), "").await;
    service.wait(&id, "running").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = service.get(&log).await;
    assert_eq!(told.status, 200);
    assert!(told.text().contains("attempt 2") && !told.text().contains("attempt 1"), "{}", told.text());
    assert_eq!(service.get(&format!("{log}?attempt=1")).await.status, 410);
}
