//! The promise that a dropped call is done or not done, never half done.

use bytes::Bytes;

use super::{append, at, claimed, fenced, fresh_key, get, insert, keyed, succeeded};
use crate::error::ErrorKind;
use crate::job::{JobEvent, JobState};
use crate::job_store::{ClaimRequest, JobStore};

/// How often a call is polled at most before it is dropped: stores wait a few times in a call, for a lock or for an
/// answer.
const POLLS_MAX: usize = 12;

/// Polls a call so many times and drops it; whether it came to its end.
async fn poll<T>(call: impl Future<Output = T>, times: usize) -> bool {
    let mut call = Box::pin(call);
    for _ in 0..times {
        if futures_util::poll!(&mut call).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Every call that changes something, dropped after each of its first waits.
pub async fn a_dropped_call_is_done_or_not_done(store: &dyn JobStore) {
    for times in 0..POLLS_MAX {
        insertion(store, times).await;
        claims(store, times).await;
        finish(store, times).await;
        giving_back(store, times).await;
        cancellation(store, times).await;
        log(store, times).await;
        removal(store, times).await;
    }
}

async fn insertion(store: &dyn JobStore, times: usize) {
    let key = fresh_key();
    let new = keyed(&key, "a");
    let id = new.id;
    let ended = poll(store.insert(new), times).await;
    let there = store.get(id).await.is_ok();
    assert!(there || !ended, "an insertion that ended is done");
    let again = store.insert(keyed(&key, "a")).await.expect("the key is free or this job's");
    assert_eq!(again.created, !there, "job and key come together");
    assert_eq!(again.job.id == id, there);
    assert_eq!(get(store, again.job.id).await, again.job);
}

async fn claims(store: &dyn JobStore, times: usize) {
    let jobs = vec![insert(store).await.id, insert(store).await.id, insert(store).await.id];
    let request = ClaimRequest { jobs: jobs.clone(), now: at(0), until: at(10) };
    let ended = poll(store.claim(&request), times).await;
    let mut states = Vec::new();
    for job in &jobs {
        let job = get(store, *job).await;
        states.push((job.state, job.attempt));
    }
    assert!(states.iter().all(|state| *state == states[0]), "a batch is claimed whole: {states:?}");
    assert!(states[0] == (JobState::Running, 1) || states[0] == (JobState::Pending, 0) && !ended);
    // What was claimed without a word to anybody has a lease that ends.
    let request = ClaimRequest { now: at(10), until: at(20), ..request };
    let claims = store.claim(&request).await.expect("claiming works");
    assert_eq!(claims.len(), jobs.len(), "no job is without both an owner and a place in the queue");
}

async fn finish(store: &dyn JobStore, times: usize) {
    let (job, fence) = claimed(store).await;
    let before = get(store, job).await;
    let ended = poll(store.record(fenced(job, fence, succeeded(), 1)), times).await;
    let now = get(store, job).await;
    if now == before && !ended {
        store.record(fenced(job, fence, succeeded(), 1)).await.expect("it was not done");
    }
    let now = get(store, job).await;
    assert_eq!((now.state, now.artifacts.len(), now.finished_at), (JobState::Success, 1, Some(at(1))));
    assert_eq!(now.version, before.version + 1, "state and artifacts come together");
}

async fn giving_back(store: &dyn JobStore, times: usize) {
    let (job, fence) = claimed(store).await;
    let before = get(store, job).await;
    let back = || {
        let error = super::infrastructure("gone");
        let event = JobEvent::Requeued { error, not_before: None, refund: true };
        fenced(job, fence, event, 1)
    };
    let ended = poll(store.record(back()), times).await;
    let now = get(store, job).await;
    if now == before && !ended {
        store.record(back()).await.expect("it was not done");
    }
    let now = get(store, job).await;
    assert_eq!((now.state, now.counted_attempts, now.version), (JobState::Pending, 0, before.version + 1));
    assert!(super::claim(store, job, 1).await.is_some(), "a job given back is in the queue");
}

async fn cancellation(store: &dyn JobStore, times: usize) {
    let pending = insert(store).await.id;
    poll(store.request_cancel(pending, at(1)), times).await;
    let job = get(store, pending).await;
    let claimed = super::claim(store, pending, 1).await.is_some();
    assert_eq!(job.state == JobState::Pending, claimed, "a cancelled job has left the queue");
    assert_eq!(job.state == JobState::Cancelled, job.finished_at.is_some());
}

async fn log(store: &dyn JobStore, times: usize) {
    let (job, fence) = claimed(store).await;
    append(store, job, fence, Bytes::from_static(b"one\n")).await.expect("the owner writes");
    let ended = poll(store.append_log(job, fence, 4, Bytes::from_static(b"two\nthree\n")), times).await;
    let log = store.read_log(job, 0, 100).await.expect("it reads");
    let whole = &log.bytes[..] == b"one\ntwo\nthree\n";
    assert!(whole || &log.bytes[..] == b"one\n" && !ended, "bytes come together: {:?}", log.bytes);
    assert_eq!(u64::try_from(log.bytes.len()), Ok(log.len));
}

async fn removal(store: &dyn JobStore, times: usize) {
    let key = fresh_key();
    let job = store.insert(keyed(&key, "a")).await.expect("it is inserted").job.id;
    let fence = super::claim(store, job, 0).await.expect("it is claimed").fence;
    append(store, job, fence, Bytes::from_static(b"one\n")).await.expect("the owner writes");
    store.record(fenced(job, fence, succeeded(), 1)).await.expect("it finishes");
    let ended = poll(store.remove(job), times).await;
    let there = store.get(job).await.is_ok();
    assert!(!there || !ended, "a removal that ended is done");
    match store.read_log(job, 0, 100).await {
        Ok(log) => assert!(there && &log.bytes[..] == b"one\n", "a job and its log go together"),
        Err(error) => assert_eq!((there, error.kind()), (false, ErrorKind::NotFound)),
    }
    let again = store.insert(keyed(&key, "a")).await.expect("the key is free or this job's");
    assert_eq!(again.created, !there, "a job and its key go together");
}
