//! The promises of [`JobStore`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::arch::Arch;
use crate::clock::later;
use crate::error::ErrorKind;
use crate::job::{
    FailureClass, Job, JobArtifact, JobError, JobEvent, JobId, JobSpec, JobState, UncheckedSpec,
};
use crate::job_store::{
    Claim, ClaimRequest, Fence, JobStore, Lease, ListQuery, NewJob, QueueQuery, Record, Renewal, Subject,
};
use crate::limits;

/// The time at which the suite begins.
pub const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Seconds behind [`START`].
pub fn at(seconds: u64) -> Timestamp {
    later(START, Duration::from_secs(seconds))
}

/// A job for x86_64, handed in at [`START`].
pub fn new_job(config_yaml: &str) -> NewJob {
    new_job_for(config_yaml, Arch::X86_64)
}

/// A job, handed in at [`START`].
pub fn new_job_for(config_yaml: &str, arch: Arch) -> NewJob {
    let parts = UncheckedSpec {
        config_yaml: config_yaml.to_owned(),
        arch: arch.to_string(),
        ..UncheckedSpec::default()
    };
    let spec = JobSpec::validate(parts).expect("the spec is legal");
    NewJob { id: JobId::new(START), spec: Arc::new(spec), idempotency_key: None, at: START }
}

/// Inserts a job.
pub async fn insert(store: &dyn JobStore) -> Arc<Job> {
    store.insert(new_job("package: {}\n")).await.expect("it is inserted").job
}

/// Claims one job from `seconds` on, for ten seconds.
pub async fn claim(store: &dyn JobStore, id: JobId, seconds: u64) -> Option<Claim> {
    let request = ClaimRequest { jobs: vec![id], now: at(seconds), until: at(seconds + 10) };
    store.claim(&request).await.expect("claiming works").pop()
}

async fn claimed(store: &dyn JobStore) -> (JobId, Fence) {
    let job = insert(store).await;
    let claim = claim(store, job.id, 0).await.expect("a new job can be claimed");
    (job.id, claim.fence)
}

fn fenced(job: JobId, fence: Fence, event: JobEvent, seconds: u64) -> Record {
    Record { job, event, at: at(seconds), fence: Some(fence), expected_version: None }
}

fn versioned(job: &Job, event: JobEvent) -> Record {
    let expected_version = Some(job.version);
    Record { job: job.id, event, at: at(1), fence: None, expected_version }
}

fn infrastructure(message: &str) -> JobError {
    JobError::new(FailureClass::Infrastructure, message)
}

fn succeeded() -> JobEvent {
    let artifacts =
        vec![JobArtifact { name: "x86_64/a.apk".to_owned(), size_bytes: 1, sha256: "0".repeat(64) }];
    JobEvent::Succeeded { artifacts, note: None }
}

async fn queued(store: &dyn JobStore, seconds: u64, arch: Option<Arch>) -> Vec<JobId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let arches = arch.map(|arch| vec![arch]);
        let query = QueueQuery { now: at(seconds), arches, after, limit: 3 };
        let page = store.queue(&query).await.expect("the queue reads");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { return found };
        after = Some(last.id);
        found.extend(page.into_iter().map(|job| job.id));
    }
}

/// Every promise. The store may hold other jobs.
pub async fn all(make: impl Fn() -> Arc<dyn JobStore>) {
    insertion_is_idempotent_by_key(&*make()).await;
    listings_are_newest_first_and_paged(&*make()).await;
    the_queue_is_oldest_first_and_paged(&*make()).await;
    a_claim_is_exclusive_until_its_lease_ends(&*make()).await;
    one_of_many_claimers_wins(make()).await;
    a_batch_claims_what_it_can(&*make()).await;
    renewal_keeps_a_lease_and_tells_of_a_cancellation(&*make()).await;
    a_stale_owner_changes_nothing(&*make()).await;
    a_late_owner_may_finish_while_nobody_claimed_again(&*make()).await;
    lost_leases_are_bounded_by_attempts(&*make()).await;
    a_job_given_back_waits_its_pause(&*make()).await;
    waiting_jobs_change_by_version(&*make()).await;
    cancelling_works_in_every_state(&*make()).await;
    illegal_events_are_refused(&*make()).await;
    logs_grow_and_read_by_offset(&*make()).await;
    hints_move(&*make()).await;
    a_finished_job_can_be_removed_and_no_other(&*make()).await;
    missing_jobs_are_not_found(&*make()).await;
}

/// The same key and spec give one job; the same key with another spec is refused.
pub async fn insertion_is_idempotent_by_key(store: &dyn JobStore) {
    let with_key = |text: &str| NewJob { idempotency_key: Some("key-1".to_owned()), ..new_job(text) };
    let first = store.insert(with_key("a")).await.expect("it is inserted");
    assert!(first.created);
    assert_eq!((first.job.state, first.job.version, first.job.attempt), (JobState::Pending, 1, 0));
    let again = store.insert(with_key("a")).await.expect("it is known");
    assert!(!again.created);
    assert_eq!(again.job.id, first.job.id);
    let other = store.insert(with_key("b")).await.expect_err("the key is taken");
    assert_eq!(other.kind(), ErrorKind::Conflict);
    assert!(store.insert(new_job("a")).await.expect("it is inserted").created);
    let same_id = NewJob { id: first.job.id, ..new_job("c") };
    assert_eq!(store.insert(same_id).await.expect_err("it is there").kind(), ErrorKind::AlreadyExists);
    for key in [String::new(), "k".repeat(limits::IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        let job = NewJob { idempotency_key: Some(key), ..new_job("a") };
        assert_eq!(store.insert(job).await.expect_err("a bad key").kind(), ErrorKind::InvalidRequest);
    }
}

/// Pages neither overlap nor leave gaps, with and without a state.
pub async fn listings_are_newest_first_and_paged(store: &dyn JobStore) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(insert(store).await.id);
    }
    ids.reverse();
    for id in &ids[..3] {
        store.request_cancel(*id, at(1)).await.expect("a pending job is cancelled");
    }
    let cases =
        [(None, &ids[..]), (Some(JobState::Cancelled), &ids[..3]), (Some(JobState::Pending), &ids[3..])];
    for (state, expected) in cases {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let query = ListQuery { state, before, limit: 2 };
            let page = store.list(&query).await.expect("it lists");
            assert!(page.jobs.len() <= 2);
            found.extend(page.jobs.iter().map(|job| job.id));
            before = found.last().copied();
            if !page.more {
                break;
            }
        }
        assert_eq!(&found[..expected.len()], expected, "{state:?}");
    }
}

/// The queue has what could be claimed, by architecture when asked.
pub async fn the_queue_is_oldest_first_and_paged(store: &dyn JobStore) {
    let (mut x86, mut arm) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        x86.push(insert(store).await.id);
        let job = store.insert(new_job_for("package: {}\n", Arch::Aarch64)).await.expect("it is inserted");
        arm.push(job.job.id);
    }
    claim(store, x86[0], 0).await.expect("it is claimed");
    let waiting = queued(store, 0, Some(Arch::X86_64)).await;
    assert_eq!(waiting, x86[1..]);
    assert_eq!(queued(store, 0, Some(Arch::Aarch64)).await, arm);
    let all = queued(store, 0, None).await;
    assert!(all.is_sorted(), "oldest first");
    assert_eq!(all.len(), 7);
    // The lease ended: the job waits again, at its old place.
    assert_eq!(queued(store, 10, Some(Arch::X86_64)).await, x86);
}

/// Nobody else gets the job before the end, anybody after.
pub async fn a_claim_is_exclusive_until_its_lease_ends(store: &dyn JobStore) {
    let job = insert(store).await;
    let first = claim(store, job.id, 0).await.expect("a new job can be claimed");
    assert_eq!((first.job.state, first.job.attempt), (JobState::Running, 1));
    assert_eq!(first.job.started_at, Some(at(0)));
    assert!(claim(store, job.id, 9).await.is_none(), "the lease holds");
    let second = claim(store, job.id, 10).await.expect("the lease ended");
    assert_eq!(second.job.attempt, 2);
    assert!(second.fence > first.fence, "fences grow");
}

/// Of many claims at once exactly one succeeds.
pub async fn one_of_many_claimers_wins(store: Arc<dyn JobStore>) {
    for _ in 0..20 {
        let id = insert(&*store).await.id;
        let mut claims = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let store = Arc::clone(&store);
            claims.spawn(async move { claim(&*store, id, 0).await.is_some() });
        }
        let won = claims.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
    }
}

/// Claims have the order of the request and leave out what cannot be claimed.
pub async fn a_batch_claims_what_it_can(store: &dyn JobStore) {
    let (first, second, third) = (insert(store).await.id, insert(store).await.id, insert(store).await.id);
    claim(store, second, 0).await.expect("it is claimed");
    let jobs = vec![third, second, JobId::new(START), first, third];
    let request = ClaimRequest { jobs, now: at(0), until: at(10) };
    let claims = store.claim(&request).await.expect("claiming works");
    let ids: Vec<JobId> = claims.iter().map(|claim| claim.job.id).collect();
    assert_eq!(ids, [third, first]);
}

/// A renewed lease holds longer, is never shortened, and tells when the job shall stop.
pub async fn renewal_keeps_a_lease_and_tells_of_a_cancellation(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let lease = [Lease { job, fence }];
    let kept = |cancel_requested| vec![Renewal::Kept { cancel_requested }];
    assert_eq!(store.renew(&lease, at(30)).await.expect("it renews"), kept(false));
    assert_eq!(store.renew(&lease, at(20)).await.expect("it renews"), kept(false));
    assert!(claim(store, job, 29).await.is_none(), "the lease holds");
    store.request_cancel(job, at(5)).await.expect("a running job can be cancelled");
    assert_eq!(store.renew(&lease, at(40)).await.expect("it renews"), kept(true));
    store.record(fenced(job, fence, JobEvent::Cancelled, 6)).await.expect("the owner stops it");
    let strange = Lease { job: JobId::new(START), fence };
    let answers = store.renew(&[lease[0], strange], at(50)).await.expect("it answers");
    assert_eq!(answers, [Renewal::Lost, Renewal::Lost]);
}

/// Whoever lost the lease can neither finish the job, nor write its log, nor renew.
pub async fn a_stale_owner_changes_nothing(store: &dyn JobStore) {
    let (job, stale) = claimed(store).await;
    let owner = claim(store, job, 10).await.expect("the lease ended").fence;
    let before = store.get(job).await.expect("it is there");
    let finish = store.record(fenced(job, stale, succeeded(), 11)).await;
    assert_eq!(finish.expect_err("the lease is lost").kind(), ErrorKind::Conflict);
    let log = store.append_log(job, stale, Bytes::from_static(b"stale\n")).await;
    assert_eq!(log.expect_err("the lease is lost").kind(), ErrorKind::Conflict);
    let renewal = store.renew(&[Lease { job, fence: stale }], at(60)).await.expect("it answers");
    assert_eq!(renewal, [Renewal::Lost]);
    assert_eq!(store.get(job).await.expect("it is there"), before);
    let done = store.record(fenced(job, owner, succeeded(), 12)).await.expect("the owner finishes");
    assert_eq!((done.state, done.finished_at, done.artifacts.len()), (JobState::Success, Some(at(12)), 1));
    let again = store.record(fenced(job, owner, succeeded(), 13)).await;
    assert_eq!(again.expect_err("it is finished").kind(), ErrorKind::Conflict);
}

/// The fence decides, not the clock.
pub async fn a_late_owner_may_finish_while_nobody_claimed_again(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let done = store.record(fenced(job, fence, succeeded(), 1_000)).await.expect("nobody else has it");
    assert_eq!(done.state, JobState::Success);
}

/// A job whose leases end again and again is given up, visibly.
pub async fn lost_leases_are_bounded_by_attempts(store: &dyn JobStore) {
    let id = insert(store).await.id;
    let mut seconds = 0;
    for attempt in 1..=limits::ATTEMPTS_MAX {
        let claim = claim(store, id, seconds).await.expect("attempts remain");
        assert_eq!(claim.job.attempt, attempt);
        seconds += 10;
    }
    assert!(claim(store, id, seconds).await.is_none(), "no attempt remains");
    let job = store.get(id).await.expect("it is there");
    assert_eq!((job.state, job.attempt), (JobState::Failed, limits::ATTEMPTS_MAX));
    assert_eq!(job.error.as_ref().expect("it says why").class, FailureClass::Infrastructure);
}

/// A job that is given back waits until its time, and a refunded attempt does not count.
pub async fn a_job_given_back_waits_its_pause(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let requeued = |not_before, refund| {
        let error = infrastructure("the daemon is gone");
        JobEvent::Requeued { error, not_before, refund }
    };
    store.record(fenced(job, fence, requeued(Some(at(5)), false), 1)).await.expect("the owner gives it back");
    assert!(!queued(store, 4, None).await.contains(&job));
    assert!(claim(store, job, 4).await.is_none(), "the pause is not over");
    assert!(queued(store, 5, None).await.contains(&job));
    let second = claim(store, job, 5).await.expect("the pause is over");
    assert_eq!(second.job.attempt, 2);
    let given = store.record(fenced(job, second.fence, requeued(None, true), 6)).await;
    assert_eq!(given.expect("the owner gives it back").attempt, 1);
    let waiting = store.get(job).await.expect("it is there").waiting.clone().expect("it says why it waits");
    assert_eq!(waiting.reason, "the daemon is gone");
    assert_eq!(claim(store, job, 6).await.expect("there is no pause").job.attempt, 2);
}

/// Events of a pending job expect its version.
pub async fn waiting_jobs_change_by_version(store: &dyn JobStore) {
    let job = insert(store).await;
    let busy = |reason: &str| JobEvent::Waiting { reason: reason.to_owned() };
    let told = store.record(versioned(&job, busy("all busy"))).await.expect("the version is right");
    assert_eq!(told.waiting.as_ref().expect("it says why it waits").reason, "all busy");
    let stale = store.record(versioned(&job, busy("none"))).await;
    assert_eq!(stale.expect_err("the version is old").kind(), ErrorKind::Conflict);
    let neither = Record { job: job.id, event: busy("x"), at: at(1), fence: None, expected_version: None };
    let refused = store.record(neither).await.expect_err("nothing guards it");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    let error = JobError::new(FailureClass::Unschedulable, "no backend");
    let failed = store.record(versioned(&told, JobEvent::Failed { error })).await.expect("it is given up");
    assert_eq!((failed.state, failed.finished_at), (JobState::Failed, Some(at(1))));
    assert_eq!(failed.waiting, None);
}

/// Pending jobs stop at once, running ones are told, finished ones refuse.
pub async fn cancelling_works_in_every_state(store: &dyn JobStore) {
    let pending = insert(store).await.id;
    for _ in 0..2 {
        let job = store.request_cancel(pending, at(1)).await.expect("asking twice is no mistake");
        assert_eq!((job.state, job.finished_at), (JobState::Cancelled, Some(at(1))));
    }
    assert!(claim(store, pending, 2).await.is_none(), "a cancelled job is not claimed");
    let (running, fence) = claimed(store).await;
    for _ in 0..2 {
        let job = store.request_cancel(running, at(1)).await.expect("asking twice is no mistake");
        assert_eq!((job.state, job.cancel_requested), (JobState::Running, true));
    }
    let done = store.record(fenced(running, fence, succeeded(), 2)).await.expect("it finished first");
    assert_eq!(done.state, JobState::Success);
    let late = store.request_cancel(running, at(3)).await.expect_err("it is finished");
    assert_eq!(late.kind(), ErrorKind::Conflict);
    // A cancelled job whose owner died does not run again.
    let (orphan, _) = claimed(store).await;
    store.request_cancel(orphan, at(1)).await.expect("a running job can be cancelled");
    assert!(claim(store, orphan, 10).await.is_none(), "nobody wants it any more");
    assert_eq!(store.get(orphan).await.expect("it is there").state, JobState::Cancelled);
}

/// What the table of transitions lacks, and what has a call of its own.
pub async fn illegal_events_are_refused(store: &dyn JobStore) {
    let job = insert(store).await;
    let early = store.record(versioned(&job, succeeded())).await.expect_err("it does not run");
    assert_eq!(early.kind(), ErrorKind::Conflict);
    for event in [JobEvent::Claimed, JobEvent::CancelRequested] {
        let refused = store.record(versioned(&job, event)).await.expect_err("it has a call of its own");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(*store.get(job.id).await.expect("it is there"), *job);
    let (running, _) = claimed(store).await;
    let running = store.get(running).await.expect("it is there");
    let stranger = store.record(versioned(&running, succeeded())).await;
    assert_eq!(stranger.expect_err("a stranger has no fence").kind(), ErrorKind::Conflict);
}

/// A log reads from any offset, in bounded chunks, and lives on after the job.
pub async fn logs_grow_and_read_by_offset(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 0);
    for (part, len) in [("one\n", 4), ("", 4), ("two\n", 8)] {
        let told = store.append_log(job, fence, Bytes::from_static(part.as_bytes())).await;
        assert_eq!(told.expect("the owner writes"), len);
    }
    for (offset, limit, expected) in
        [(0, 100, "one\ntwo\n"), (4, 2, "tw"), (8, 100, ""), (99, 100, ""), (u64::MAX, 1, "")]
    {
        let chunk = store.read_log(job, offset, limit).await.expect("it reads");
        assert_eq!((&chunk.bytes[..], chunk.len), (expected.as_bytes(), 8));
    }
    store.record(fenced(job, fence, succeeded(), 1)).await.expect("the owner finishes");
    let late = store.append_log(job, fence, Bytes::from_static(b"late\n")).await;
    assert_eq!(late.expect_err("the job is finished").kind(), ErrorKind::Conflict);
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 8);
}

/// Whoever watches before a change in this process is told of it.
pub async fn hints_move(store: &dyn JobStore) {
    let mut queue = store.changed(Subject::Queue);
    let (job, fence) = claimed(store).await;
    assert!(queue.has_changed().expect("the store lives"), "an insertion is told");
    let (mut state, mut log) = (store.changed(Subject::Job(job)), store.changed(Subject::Log(job)));
    store.append_log(job, fence, Bytes::from_static(b"x\n")).await.expect("the owner writes");
    assert!(log.has_changed().expect("the job is there"), "a line is told");
    assert!(!state.has_changed().expect("the job is there"), "a line is no change of the job");
    log.mark_unchanged();
    store.request_cancel(job, at(1)).await.expect("a running job can be cancelled");
    assert!(state.has_changed().expect("the job is there"), "a request to stop is told");
    state.mark_unchanged();
    queue.mark_unchanged();
    let error = infrastructure("gone");
    let back = JobEvent::Requeued { error, not_before: None, refund: false };
    store.record(fenced(job, fence, back, 2)).await.expect("the owner gives it back");
    assert!(queue.has_changed().expect("the store lives"), "a job given back is told");
    assert!(log.has_changed().expect("the job is there"), "readers of the log learn of a new state");
}

/// A removed job is gone with its log and its key; one that waits or runs stays.
pub async fn a_finished_job_can_be_removed_and_no_other(store: &dyn JobStore) {
    let keyed = || NewJob { idempotency_key: Some("removed".to_owned()), ..new_job("a") };
    let job = store.insert(keyed()).await.expect("it is inserted").job.id;
    assert_eq!(store.remove(job).await.expect_err("it waits").kind(), ErrorKind::Conflict);
    let fence = claim(store, job, 0).await.expect("it is claimed").fence;
    store.append_log(job, fence, Bytes::from_static(b"x\n")).await.expect("the owner writes");
    assert_eq!(store.remove(job).await.expect_err("it runs").kind(), ErrorKind::Conflict);
    store.record(fenced(job, fence, succeeded(), 1)).await.expect("it finishes");
    let other = insert(store).await.id;
    store.remove(job).await.expect("it has finished");
    assert_eq!(store.get(job).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    assert_eq!(store.read_log(job, 0, 1).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    let page = store.list(&ListQuery { limit: 1_000, ..ListQuery::default() }).await.expect("it lists");
    assert!(page.jobs.iter().all(|listed| listed.id != job));
    assert_eq!(store.get(other).await.expect("the other stays").state, JobState::Pending);
    assert!(store.insert(keyed()).await.expect("the key is free").created);
}

/// Calls about a job that is not there say so.
pub async fn missing_jobs_are_not_found(store: &dyn JobStore) {
    let (id, fence) = (JobId::new(START), Fence(1));
    assert_eq!(store.get(id).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.request_cancel(id, at(0)).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(id).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.read_log(id, 0, 1).await.expect_err("missing").kind(), ErrorKind::NotFound);
    let record = store.record(fenced(id, fence, succeeded(), 0)).await;
    assert_eq!(record.expect_err("missing").kind(), ErrorKind::NotFound);
    let append = store.append_log(id, fence, Bytes::from_static(b"x")).await;
    assert_eq!(append.expect_err("missing").kind(), ErrorKind::NotFound);
    assert!(claim(store, id, 0).await.is_none());
}
