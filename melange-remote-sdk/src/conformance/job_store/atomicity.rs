//! The promise that a dropped call is done or not done, never half done.

use super::*;

/// How often a call is polled at most before it is dropped: stores wait a few times in a call, for a lock or for an
/// answer.
const POLLS_MAX: usize = 12;

/// Polls a call so many times and drops it; whether it came to its end. A store may go on with a call that was dropped:
/// a change made afterwards comes behind it.
async fn poll<T>(store: &dyn JobStore, call: impl Future<Output = T>, times: usize) -> bool {
    let ended = poll_and_drop(call, times).await;
    let behind = Lane::new().insert(store).await;
    store.cancel(Selection::Job(behind), at(1)).await.expect("it waits");
    ended
}

async fn poll_and_drop<T>(call: impl Future<Output = T>, times: usize) -> bool {
    let mut call = Box::pin(call);
    for _ in 0..times {
        if futures_util::poll!(&mut call).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Every call that changes something, dropped after each of its first waits, and made again.
pub(super) async fn all(store: &dyn JobStore) {
    for times in 0..POLLS_MAX {
        submission(store, times).await;
        claims(store, times).await;
        finish(store, times).await;
        giving_back(store, times).await;
        cancellation(store, times).await;
        log(store, times).await;
        removal(store, times).await;
    }
}

async fn submission(store: &dyn JobStore, times: usize) {
    let (lane, key, build) = (Lane::new(), fresh_key(), BuildId::new(START));
    let first = new_job("a");
    let second = new_job("a").waiting_for([first.id]);
    let submission = lane.submission([first, second]).with_key(&key).as_build(build);
    let ended = poll(store, store.submit(&submission), times).await;
    let again = store.submit(&submission).await.expect("the same call tells");
    assert!(!ended || !again.created, "a submission that ended is done");
    let ids: Vec<JobId> = submission.jobs.iter().map(|job| job.id).collect();
    assert_eq!(again.jobs, ids);
    let build = store.build(build).await.expect("build, jobs and key come together");
    assert_eq!((build.counts.get(JobState::Pending), build.counts.get(JobState::Blocked)), (1, 1));
    assert_eq!(lane.ready(store, 0).await, 1);
    store.cancel(Selection::Build(build.id), at(1)).await.expect("it waits");
}

async fn claims(store: &dyn JobStore, times: usize) {
    let lane = Lane::new();
    let jobs = [lane.insert(store).await, lane.insert(store).await, lane.insert(store).await];
    let request = lane.request(vec![lane.offer(3)], 0);
    let ended = poll(store, store.claim(&request), times).await;
    let mut states = Vec::new();
    for job in jobs {
        let job = get(store, job).await;
        states.push((job.state, job.attempt, job.server.is_some(), job.backend.is_some()));
    }
    assert!(states.iter().all(|state| *state == states[0]), "a batch is claimed whole: {states:?}");
    let (claimed, waits) = ((JobState::Running, 1, true, true), (JobState::Pending, 0, false, false));
    assert!(states[0] == claimed || states[0] == waits && !ended);
    let claims = store.claim(&request).await.expect("claiming works");
    assert_eq!(claims.len(), 3, "the same token gives them all");
    for claim in claims {
        assert_eq!(claim.job.attempt, 1, "nobody claimed twice");
        store.finish(claim.fence, &succeeded(), at(1)).await.expect("the owner ends it");
    }
}

async fn finish(store: &dyn JobStore, times: usize) {
    for (outcome, follows) in [(succeeded(), JobState::Pending), (failed(), JobState::Skipped)] {
        let lane = Lane::new();
        let (job, fence) = lane.running(store).await;
        let next = lane.submit(store, new_job("a").waiting_for([job])).await;
        let before = get(store, job).await;
        let ended = poll(store, store.finish(fence, &outcome, at(1)), times).await;
        let now = get(store, job).await;
        let expected = if now.state == JobState::Running { JobState::Blocked } else { follows };
        assert!(!ended || now.state == outcome.state(), "a call that ended is done");
        assert_eq!(
            now.artifacts.is_empty(),
            now.state != JobState::Success,
            "state and artifacts come together"
        );
        assert_eq!(state(store, next).await, expected, "an end and what follows from it come together");
        store.finish(fence, &outcome, at(1)).await.expect("the same call tells");
        let now = get(store, job).await;
        assert_eq!((now.state, now.finished_at), (outcome.state(), Some(at(1))));
        assert_eq!(
            now.artifacts.is_empty(),
            now.state != JobState::Success,
            "state and artifacts come together"
        );
        assert_eq!((now.version, state(store, next).await), (before.version + 1, follows));
        assert_eq!(store.attempt(job, 1).await.expect("it is there").ended_at, Some(at(1)));
        if follows == JobState::Pending {
            store.cancel(Selection::Job(next), at(2)).await.expect("it waits");
        }
    }
}

async fn giving_back(store: &dyn JobStore, times: usize) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    let version = get(store, job).await.version;
    poll(store, store.release(fence, &given_back(None, false), at(1)), times).await;
    store.release(fence, &given_back(None, false), at(1)).await.expect("the same call tells");
    let now = get(store, job).await;
    assert_eq!((now.state, now.counted_attempts, now.version), (JobState::Pending, 0, version + 1));
    let claim = lane.claim_one(store, 1).await;
    assert_eq!(claim.job.id, job, "a job given back is in the queue");
    store.finish(claim.fence, &succeeded(), at(2)).await.expect("the owner ends it");
}

async fn cancellation(store: &dyn JobStore, times: usize) {
    let lane = Lane::new();
    let pending = lane.insert(store).await;
    poll(store, store.cancel(Selection::Job(pending), at(1)), times).await;
    let job = get(store, pending).await;
    let claims = lane.claim(store, 1, 1).await;
    assert_eq!(job.state == JobState::Pending, claims.len() == 1, "a cancelled job has left the queue");
    assert_eq!(job.state == JobState::Cancelled, job.finished_at.is_some());
    for claim in claims {
        store.finish(claim.fence, &succeeded(), at(2)).await.expect("the owner ends it");
    }
}

async fn log(store: &dyn JobStore, times: usize) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    append(store, fence, "one\n").await.expect("the owner writes");
    let ended = poll(store, store.append_log(fence, 4, Bytes::from_static(b"two\nthree\n")), times).await;
    let log = store.read_log(job, 0, 100).await.expect("it reads");
    let whole = &log.bytes[..] == b"one\ntwo\nthree\n";
    assert!(whole || &log.bytes[..] == b"one\n" && !ended, "bytes come together: {:?}", log.bytes);
    assert_eq!(u64::try_from(log.bytes.len()), Ok(log.len));
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
}

async fn removal(store: &dyn JobStore, times: usize) {
    let (lane, key) = (Lane::new(), fresh_key());
    let keyed = || lane.submission([new_job("a")]).with_key(&key);
    let job = store.submit(&keyed()).await.expect("it is handed in").jobs[0];
    let fence = lane.claim_one(store, 0).await.fence;
    append(store, fence, "one\n").await.expect("the owner writes");
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    let ended = poll(store, store.remove(job), times).await;
    let there = store.get(job).await.is_ok();
    assert!(!there || !ended, "a removal that ended is done");
    match store.read_log(job, 0, 100).await {
        Ok(log) => assert!(there && &log.bytes[..] == b"one\n", "a job and its log go together"),
        Err(error) => assert_eq!((there, error.kind()), (false, ErrorKind::NotFound)),
    }
    let again = store.submit(&keyed()).await.expect("the key is free or this job's");
    assert_eq!(again.created, !there, "a job and its key go together");
    for claim in lane.claim(store, 1, 2).await {
        store.finish(claim.fence, &succeeded(), at(3)).await.expect("the owner ends it");
    }
}
