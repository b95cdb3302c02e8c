//! Whether the server can do its work right now: what it needs is asked, each part by a small call of its own.

use std::sync::Arc;
use std::time::Duration;

use melange_remote_sdk::api::v1::{ReadyCheck, ReadyResponse};
use melange_remote_sdk::artifact_storage::ArtifactKey;
use melange_remote_sdk::clock::later;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{ClaimToken, ServerId};
use melange_remote_sdk::job_store::{ClaimRequest, ListQuery};
use melange_remote_sdk::limits;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::App;

/// The status of a server that takes work.
pub(crate) const READY: &str = "ready";

/// Where the storage is asked for artifacts; nobody puts any there.
const NOWHERE: &str = "readiness";

/// What was found last; many who ask at once share one look.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Arc<ReadyResponse>)>>);

/// What is known of the server's parts, at most [`limits::READINESS_KEPT`] old. A server that stops says so at once.
pub(crate) async fn look(app: &App) -> Arc<ReadyResponse> {
    let gone = |status: &str| Arc::new(ReadyResponse { status: status.to_owned(), checks: Vec::new() });
    if let Some(failure) = app.failure.get() {
        return gone(failure);
    }
    if app.stopping.is_cancelled() {
        return gone("stopping");
    }
    let mut last = app.readiness.0.lock().await;
    if let Some((at, known)) = &*last
        && at.elapsed() < limits::READINESS_KEPT
    {
        return Arc::clone(known);
    }
    let found = Arc::new(ask(app).await);
    let before = last.as_ref().map(|(_, known)| known.status.as_str());
    if before != Some(&found.status) {
        tell(&found);
    }
    *last = Some((Instant::now(), Arc::clone(&found)));
    found
}

/// Says once in the log that the server became ready, or what it lacks.
fn tell(found: &ReadyResponse) {
    if found.status == READY {
        tracing::info!("the server is ready");
    }
    for check in &found.checks {
        if let Some(reason) = &check.reason {
            tracing::warn!(check = check.name, reason, "the server is not ready");
        }
    }
}

/// Asks all parts at once.
async fn ask(app: &App) -> ReadyResponse {
    let (read, write, storage, scheduler) = tokio::join!(
        check("job_store_read", async { app.job_store.list(&ListQuery::newest(1)).await.map(drop) }),
        check("job_store_write", write(app)),
        check("artifact_storage", async {
            app.artifact_storage.list(&NOWHERE.parse::<ArtifactKey>()?).await.map(drop)
        }),
        check("scheduler", async { scheduler(app.last_round.age()) }),
    );
    let checks = vec![read, write, storage, scheduler];
    let ready = checks.iter().all(|check| check.reason.is_none());
    ReadyResponse { status: if ready { READY } else { "not ready" }.to_owned(), checks }
}

/// A claim without offers: its token is written and synced as that of any other one, through the one connection and the
/// locks that all changes go through, and is forgotten when its time is over. So a full disk is found too.
async fn write(app: &App) -> Result<()> {
    let now = app.clock.now();
    let until = later(now, limits::READINESS_CHECK);
    let request = ClaimRequest::new(ClaimToken::new(), ServerId::unique(), Vec::new(), now, until);
    app.job_store.claim(&request).await.map(drop)
}

fn scheduler(age: Option<Duration>) -> Result<()> {
    let message = match age {
        Some(age) if age <= limits::SCHEDULER_ROUND_MAX => return Ok(()),
        Some(age) => format!("it looked at the queue last {} s ago", age.as_secs()),
        None => "it has not looked at the queue yet".to_owned(),
    };
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// One part, with its time and why it failed.
async fn check(name: &str, asked: impl Future<Output = Result<()>>) -> ReadyCheck {
    let begun = Instant::now();
    let result = tokio::time::timeout(limits::READINESS_CHECK, asked).await.unwrap_or_else(|_| {
        let seconds = limits::READINESS_CHECK.as_secs();
        Err(Error::new(ErrorKind::Unavailable, format!("there was no answer within {seconds} s")))
    });
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = if result.is_ok() { "ok" } else { "failed" };
    let reason = result.err().map(|error| error.chain());
    ReadyCheck { name: name.to_owned(), status: status.to_owned(), duration_ms, reason }
}
