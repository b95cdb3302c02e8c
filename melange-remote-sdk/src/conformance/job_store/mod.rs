//! The promises of [`JobStore`].
//!
//! The suite runs on several handles of one store and opens it anew in between: see [`StoreUnderTest`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::arch::Arch;
use crate::clock::later;
use crate::error::{ErrorKind, Result};
use crate::job::{
    AttemptOutcome, FailureClass, Job, JobArtifact, JobAttempt, JobError, JobEvent, JobId, JobSpec, JobState,
    UncheckedSpec,
};
use crate::job_store::{
    Claim, ClaimRequest, Fence, JobStore, Lease, ListQuery, NewJob, QueueQuery, Record, Renewal, Subject,
};
use crate::limits;

mod atomicity;
mod bounds;
mod durability;
mod races;

pub use atomicity::a_dropped_call_is_done_or_not_done;
pub use bounds::{pages_claims_keys_and_reads_are_bounded, waiting_jobs_are_bounded};
pub use durability::a_job_is_what_was_recorded_also_after_a_restart;
pub use races::{one_of_many_insertions_with_a_key_wins, two_handles_are_one_store};

/// One store, as the suite needs it.
///
/// A store that lives in its handles, such as the one in memory, gives clones and keeps its content when it is
/// opened anew.
#[async_trait]
pub trait StoreUnderTest: Send + Sync {
    /// One more handle of the store, as another server would hold it: with a connection and caches of its own.
    async fn handle(&self) -> Arc<dyn JobStore>;

    /// Closes the store and opens it anew, as a server does that was stopped and started again; gives a handle of
    /// it. The suite uses no handle from before afterwards.
    async fn reopen(&self) -> Arc<dyn JobStore>;
}

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

/// Adds to the end of a job's log.
async fn append(store: &dyn JobStore, job: JobId, fence: Fence, bytes: Bytes) -> Result<u64> {
    let length = store.read_log(job, 0, 0).await?.len;
    store.append_log(job, fence, length, bytes).await
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

/// The jobs behind `after` that could be claimed.
async fn queued_after(
    store: &dyn JobStore,
    seconds: u64,
    arch: Option<Arch>,
    mut after: Option<JobId>,
) -> Vec<JobId> {
    let mut found = Vec::new();
    loop {
        let arches = arch.map(|arch| vec![arch]);
        let query = QueueQuery { now: at(seconds), arches, after, limit: 3 };
        let page = store.queue(&query).await.expect("the queue reads");
        assert!(page.len() <= 3, "a page of three holds {}", page.len());
        assert!(page.iter().all(|job| after.is_none_or(|after| job.id > after)), "pages overlap");
        let Some(last) = page.last() else { return found };
        after = Some(last.id);
        found.extend(page.into_iter().map(|job| job.id));
    }
}

/// Every promise. The store may hold other jobs, also from an earlier run, as long as nobody else uses it now.
///
/// [`waiting_jobs_are_bounded`] stands apart: it needs a store that holds nothing and whose bound is known.
pub async fn all(store: &dyn StoreUnderTest) {
    let handle = store.handle().await;
    let one = &*handle;
    insertion_is_idempotent_by_key(one).await;
    listings_are_newest_first_and_paged(one).await;
    the_queue_is_oldest_first_and_paged(one).await;
    a_claim_is_exclusive_until_its_lease_ends(one).await;
    one_of_many_claimers_wins(store).await;
    one_of_many_insertions_with_a_key_wins(store).await;
    two_handles_are_one_store(store).await;
    a_batch_claims_what_it_can(one).await;
    renewal_keeps_a_lease_and_tells_of_a_cancellation(one).await;
    a_settled_lease_is_not_renewed(one).await;
    a_stale_owner_changes_nothing(one).await;
    a_fence_is_never_given_twice(one).await;
    a_late_owner_may_finish_while_nobody_claimed_again(one).await;
    lost_leases_are_bounded_by_attempts(one).await;
    a_job_given_back_waits_its_pause(one).await;
    waiting_jobs_change_by_version(one).await;
    a_version_counts_beside_a_fence(one).await;
    cancelling_works_in_every_state(one).await;
    illegal_events_are_refused(one).await;
    logs_grow_and_read_by_offset(one).await;
    attempts_are_kept(one).await;
    hints_move(one).await;
    a_finished_job_can_be_removed_and_no_other(one).await;
    missing_jobs_are_not_found(one).await;
    a_dropped_call_is_done_or_not_done(one).await;
    pages_claims_keys_and_reads_are_bounded(one).await;
    drop(handle);
    a_job_is_what_was_recorded_also_after_a_restart(store).await;
}

/// A key that no submission has used.
fn fresh_key() -> String {
    format!("conformance-{}", JobId::new(START))
}

fn keyed(key: &str, config_yaml: &str) -> NewJob {
    NewJob { idempotency_key: Some(key.to_owned()), ..new_job(config_yaml) }
}

/// The job as it is.
async fn get(store: &dyn JobStore, id: JobId) -> Arc<Job> {
    store.get(id).await.expect("the job is there")
}

/// A call that must be refused as a conflict, and must have changed nothing.
async fn conflicts(store: &dyn JobStore, record: Record, why: &str) {
    let (id, before) = (record.job, get(store, record.job).await);
    assert_eq!(store.record(record).await.expect_err(why).kind(), ErrorKind::Conflict, "{why}");
    assert_eq!(get(store, id).await, before, "a refused call changes nothing");
}

/// The same key and spec give one job; the same key with another spec is refused.
pub async fn insertion_is_idempotent_by_key(store: &dyn JobStore) {
    let key = fresh_key();
    let with_key = |text: &str| keyed(&key, text);
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
    assert_eq!(get(store, first.job.id).await, first.job, "none of this changed it");
    let empty = store.insert(keyed("", "a")).await.expect_err("an empty key names nothing");
    assert_eq!(empty.kind(), ErrorKind::InvalidRequest);
}

/// Takes a pending job into `state`.
async fn bring_to(store: &dyn JobStore, id: JobId, state: JobState) {
    if state == JobState::Pending {
        return;
    }
    let fence = claim(store, id, 0).await.expect("a new job can be claimed").fence;
    let event = match state {
        JobState::Success => succeeded(),
        JobState::Failed => JobEvent::Failed { error: infrastructure("given up") },
        JobState::Cancelled => JobEvent::Cancelled,
        JobState::Pending | JobState::Running => return,
    };
    store.record(fenced(id, fence, event, 1)).await.expect("the owner ends it");
}

/// Pages neither overlap nor leave gaps, without a state and with each of them.
pub async fn listings_are_newest_first_and_paged(store: &dyn JobStore) {
    let oldest = insert(store).await.id;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        for state in JobState::ALL {
            let id = insert(store).await.id;
            bring_to(store, id, state).await;
            jobs.push((id, state));
        }
    }
    jobs.reverse();
    for state in JobState::ALL.map(Some).into_iter().chain([None]) {
        let expected = jobs.iter().filter(|(_, its)| state.is_none_or(|state| state == *its));
        let expected: Vec<JobId> = expected.map(|(id, _)| *id).collect();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let query = ListQuery { state, before, limit: 2 };
            let page = store.list(&query).await.expect("it lists");
            assert!(page.jobs.len() <= 2, "a page of two holds {}", page.jobs.len());
            assert!(!page.more || page.jobs.len() == 2, "a page that is not full is the last");
            for job in &page.jobs {
                assert!(before.is_none_or(|before| job.id < before), "pages overlap");
                assert!(state.is_none_or(|state| state == job.state), "{state:?} gave a {} job", job.state);
            }
            found.extend(page.jobs.iter().map(|job| job.id).filter(|id| *id > oldest));
            before = page.jobs.last().map(|job| job.id);
            if !page.more || before.is_some_and(|before| before <= oldest) {
                break;
            }
        }
        assert_eq!(found, expected, "{state:?}");
    }
}

/// The queue has what could be claimed, by architecture when asked, and nothing else.
pub async fn the_queue_is_oldest_first_and_paged(store: &dyn JobStore) {
    let oldest = Some(insert(store).await.id);
    let (mut x86, mut arm) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        x86.push(insert(store).await.id);
        let job = store.insert(new_job_for("package: {}\n", Arch::Aarch64)).await.expect("it is inserted");
        arm.push(job.job.id);
    }
    for state in [JobState::Success, JobState::Failed, JobState::Cancelled] {
        let ended = insert(store).await.id;
        bring_to(store, ended, state).await;
    }
    claim(store, x86[0], 0).await.expect("it is claimed");
    let queued = async |seconds, arch| queued_after(store, seconds, arch, oldest).await;
    assert_eq!(queued(0, Some(Arch::X86_64)).await, x86[1..]);
    assert_eq!(queued(0, Some(Arch::Aarch64)).await, arm);
    assert_eq!(queued(0, Some(Arch::S390x)).await, []);
    let mut both = [&x86[1..], &arm[..]].concat();
    both.sort();
    assert_eq!(queued(9, None).await, both, "oldest first");
    let query = QueueQuery { now: at(0), arches: None, after: oldest, limit: 1 };
    let row = store.queue(&query).await.expect("the queue reads").pop().expect("a job waits");
    let job = get(store, row.id).await;
    assert_eq!((row.version, row.arch, &row.waiting), (job.version, job.spec.arch(), &job.waiting));
    assert_eq!(&row.backend_selector, job.spec.backend_selector());
    // The lease ended: the job waits again, at its old place.
    assert_eq!(queued(10, Some(Arch::X86_64)).await, x86);
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

/// Of many claims at once, through several handles, exactly one succeeds.
pub async fn one_of_many_claimers_wins(store: &dyn StoreUnderTest) {
    races::one_of_many_claimers_wins(store).await;
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

/// A lease that ended and was settled is nobody's, whoever asks first; one that was not settled still is its owner's.
pub async fn a_settled_lease_is_not_renewed(store: &dyn JobStore) {
    let (late, late_fence) = claimed(store).await;
    let kept = store.renew(&[Lease { job: late, fence: late_fence }], at(60)).await.expect("it renews");
    assert_eq!(kept, [Renewal::Kept { cancel_requested: false }], "nobody settled it");
    let (job, fence) = claimed(store).await;
    let (stopped, stopped_fence) = claimed(store).await;
    store.request_cancel(stopped, at(1)).await.expect("a running job can be cancelled");
    assert!(queued_after(store, 10, None, Some(late)).await.contains(&job), "the queue settles");
    assert_eq!(get(store, job).await.state, JobState::Pending);
    assert_eq!(get(store, stopped).await.state, JobState::Cancelled, "nobody wants it any more");
    let leases = [Lease { job, fence }, Lease { job: stopped, fence: stopped_fence }];
    let answers = store.renew(&leases, at(60)).await.expect("it answers");
    assert_eq!(answers, [Renewal::Lost, Renewal::Lost]);
    conflicts(store, fenced(job, fence, succeeded(), 11), "the lease is settled").await;
    let log = append(store, job, fence, Bytes::from_static(b"late\n")).await;
    assert_eq!(log.expect_err("the lease is settled").kind(), ErrorKind::Conflict);
    assert!(claim(store, job, 10).await.is_some(), "a lease that is not renewed holds nothing");
}

/// Whoever lost the lease can neither finish the job, nor write its log, nor renew.
pub async fn a_stale_owner_changes_nothing(store: &dyn JobStore) {
    let (job, stale) = claimed(store).await;
    let owner = claim(store, job, 10).await.expect("the lease ended").fence;
    let before = store.get(job).await.expect("it is there");
    let finish = store.record(fenced(job, stale, succeeded(), 11)).await;
    assert_eq!(finish.expect_err("the lease is lost").kind(), ErrorKind::Conflict);
    let log = append(store, job, stale, Bytes::from_static(b"stale\n")).await;
    assert_eq!(log.expect_err("the lease is lost").kind(), ErrorKind::Conflict);
    let renewal = store.renew(&[Lease { job, fence: stale }], at(60)).await.expect("it answers");
    assert_eq!(renewal, [Renewal::Lost]);
    assert_eq!(store.get(job).await.expect("it is there"), before);
    let done = store.record(fenced(job, owner, succeeded(), 12)).await.expect("the owner finishes");
    assert_eq!((done.state, done.finished_at, done.artifacts.len()), (JobState::Success, Some(at(12)), 1));
    let again = store.record(fenced(job, owner, succeeded(), 13)).await;
    assert_eq!(again.expect_err("it is finished").kind(), ErrorKind::Conflict);
}

/// A later claim has a greater fence, also when the attempt before did not count; the fence of an earlier one is
/// worth nothing.
pub async fn a_fence_is_never_given_twice(store: &dyn JobStore) {
    let (job, first) = claimed(store).await;
    let refund =
        |at| JobEvent::Requeued { error: infrastructure("the server stops"), not_before: at, refund: true };
    store.record(fenced(job, first, refund(None), 1)).await.expect("the owner gives it back");
    let second = claim(store, job, 1).await.expect("it waits again");
    let numbers = (second.job.attempt, second.job.counted_attempts);
    assert_eq!(numbers, (2, 1), "the attempt before did not count, and keeps its number");
    assert!(second.fence > first, "fences grow");
    conflicts(store, fenced(job, first, succeeded(), 2), "the fence is old").await;
    let log = append(store, job, first, Bytes::from_static(b"stale\n")).await;
    assert_eq!(log.expect_err("the fence is old").kind(), ErrorKind::Conflict);
    let renewal = store.renew(&[Lease { job, fence: first }], at(60)).await.expect("it answers");
    assert_eq!(renewal, [Renewal::Lost]);
    let ahead = Fence(second.fence.0 + 1);
    conflicts(store, fenced(job, ahead, succeeded(), 2), "nobody was given this fence").await;
    store.record(fenced(job, second.fence, succeeded(), 2)).await.expect("the owner finishes");
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
    assert!(!queued_after(store, 4, None, None).await.contains(&job));
    assert!(claim(store, job, 4).await.is_none(), "the pause is not over");
    assert!(queued_after(store, 5, None, None).await.contains(&job));
    let second = claim(store, job, 5).await.expect("the pause is over");
    assert_eq!(second.job.attempt, 2);
    let given = store.record(fenced(job, second.fence, requeued(None, true), 6)).await;
    assert_eq!(given.expect("the owner gives it back").counted_attempts, 1);
    let waiting = store.get(job).await.expect("it is there").waiting.clone().expect("it says why it waits");
    assert_eq!(waiting.reason, "the daemon is gone");
    assert_eq!(claim(store, job, 6).await.expect("there is no pause").job.attempt, 3);
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

/// Whoever gives a version beside a fence means both.
pub async fn a_version_counts_beside_a_fence(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let version = get(store, job).await.version;
    let step = || JobEvent::StepStarted { index: 0, name: "a".to_owned() };
    let both = |fence, version| Record { expected_version: Some(version), ..fenced(job, fence, step(), 1) };
    conflicts(store, both(fence, version + 1), "the version is not there yet").await;
    conflicts(store, both(fence, version - 1), "the version is old").await;
    conflicts(store, both(Fence(fence.0 + 1), version), "the fence is wrong").await;
    let told = store.record(both(fence, version)).await.expect("both are right");
    assert_eq!(told.version, version + 1);
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
        assert_eq!((job.state, job.cancel_requested, job.version), (JobState::Running, true, 3));
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
    let lost = JobEvent::LeaseLost { error: infrastructure("its lease ended") };
    for event in [JobEvent::Claimed, JobEvent::CancelRequested, lost] {
        let refused = store.record(versioned(&job, event)).await.expect_err("it has a call of its own");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(*store.get(job.id).await.expect("it is there"), *job);
    let (running, fence) = claimed(store).await;
    let lost = || JobEvent::LeaseLost { error: infrastructure("its lease ended") };
    for event in [JobEvent::Claimed, JobEvent::CancelRequested, lost()] {
        let refused = store.record(fenced(running, fence, event, 1)).await;
        assert_eq!(refused.expect_err("it has a call of its own").kind(), ErrorKind::InvalidRequest);
    }
    let running = store.get(running).await.expect("it is there");
    assert_eq!(running.version, job.version + 1, "refused events change nothing");
    let stranger = store.record(versioned(&running, succeeded())).await;
    assert_eq!(stranger.expect_err("a stranger has no fence").kind(), ErrorKind::Conflict);
}

/// A log reads from any offset, in bounded chunks, and lives on after the job.
pub async fn logs_grow_and_read_by_offset(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 0);
    for (part, len) in [("one\n", 4), ("", 4), ("two\n", 8)] {
        let told = append(store, job, fence, Bytes::from_static(part.as_bytes())).await;
        assert_eq!(told.expect("the owner writes"), len);
    }
    for (offset, limit, expected) in
        [(0, 100, "one\ntwo\n"), (4, 2, "tw"), (8, 100, ""), (99, 100, ""), (u64::MAX, 1, "")]
    {
        let chunk = store.read_log(job, offset, limit).await.expect("it reads");
        assert_eq!((&chunk.bytes[..], chunk.len), (expected.as_bytes(), 8));
    }
    for (offset, part) in [(4, "two\n"), (0, "one\ntwo\n"), (8, "")] {
        let told = store.append_log(job, fence, offset, Bytes::from_static(part.as_bytes())).await;
        assert_eq!(told.expect("the owner may repeat himself"), 8);
    }
    let told = store.append_log(job, fence, 6, Bytes::from_static(b"o\nthree\n")).await;
    assert_eq!(told.expect("the owner writes"), 14);
    assert_eq!(&store.read_log(job, 4, 100).await.expect("it reads").bytes[..], b"two\nthree\n");
    let gap = store.append_log(job, fence, 15, Bytes::from_static(b"x")).await;
    assert_eq!(gap.expect_err("bytes are missing").kind(), ErrorKind::InvalidRequest);
    store.record(fenced(job, fence, succeeded(), 1)).await.expect("the owner finishes");
    let late = append(store, job, fence, Bytes::from_static(b"late\n")).await;
    assert_eq!(late.expect_err("the job is finished").kind(), ErrorKind::Conflict);
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 14);
}

/// An attempt is kept with all that it showed, whatever follows.
pub async fn attempts_are_kept(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let step = |name: &str| JobEvent::StepStarted { index: 0, name: name.to_owned() };
    store.record(fenced(job, fence, step("first"), 1)).await.expect("the owner tells");
    append(store, job, fence, Bytes::from_static(b"one\n")).await.expect("the owner writes");
    let back = JobEvent::Requeued { error: infrastructure("gone"), not_before: None, refund: true };
    store.record(fenced(job, fence, back, 2)).await.expect("the owner gives it back");
    let second = claim(store, job, 3).await.expect("it waits again");
    assert_eq!(second.log_bytes, 4, "the claim tells where the attempt's log begins");
    store.record(fenced(job, second.fence, step("second"), 4)).await.expect("the owner tells");
    let running = store.attempts(job).await.expect("they are there");
    let outcomes: Vec<_> = running.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(outcomes, [(1, AttemptOutcome::GivenBack), (2, AttemptOutcome::Running)]);
    append(store, job, second.fence, Bytes::from_static(b"two\n")).await.expect("the owner writes");
    let error = JobError::new(FailureClass::Build, "make failed");
    let failed = JobEvent::Failed { error: error.clone() };
    store.record(fenced(job, second.fence, failed, 5)).await.expect("it fails");
    let pending = store.retry(job, at(6)).await.expect("a failed job can be tried again");
    assert_eq!((pending.state, pending.finished_at, &pending.error), (JobState::Pending, None, &None));
    assert_eq!(store.retry(job, at(7)).await.expect("it waits already"), pending);
    let third = claim(store, job, 8).await.expect("it is in the queue");
    assert_eq!((third.job.attempt, third.job.counted_attempts), (3, 1));
    store.record(fenced(job, third.fence, succeeded(), 9)).await.expect("it succeeds");
    let attempts = store.attempts(job).await.expect("they are there");
    let of = |attempt: &JobAttempt| {
        let steps: Vec<String> = attempt.steps.iter().map(|step| step.name.clone()).collect();
        let times = (attempt.started_at, attempt.ended_at);
        (attempt.number, attempt.outcome, attempt.counts, steps, times, (attempt.log_begin, attempt.log_end))
    };
    let steps = |name: &str| vec![name.to_owned()];
    assert_eq!(
        attempts.iter().map(of).collect::<Vec<_>>(),
        [
            (1, AttemptOutcome::GivenBack, false, steps("first"), (at(0), Some(at(2))), (0, Some(4))),
            (2, AttemptOutcome::Failed, true, steps("second"), (at(3), Some(at(5))), (4, Some(8))),
            (3, AttemptOutcome::Success, true, vec![], (at(8), Some(at(9))), (8, Some(8))),
        ]
    );
    assert_eq!((&attempts[0].error, &attempts[1].error), (&Some(infrastructure("gone")), &Some(error)));
    let refused = store.retry(job, at(10)).await.expect_err("it succeeded");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}

/// Whoever watches before a change in this process is told of it.
pub async fn hints_move(store: &dyn JobStore) {
    let mut queue = store.changed(Subject::Queue);
    let (job, fence) = claimed(store).await;
    assert!(queue.has_changed().expect("the store lives"), "an insertion is told");
    let (mut state, mut log) = (store.changed(Subject::Job(job)), store.changed(Subject::Log(job)));
    append(store, job, fence, Bytes::from_static(b"x\n")).await.expect("the owner writes");
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
    let key = fresh_key();
    let job = store.insert(keyed(&key, "a")).await.expect("it is inserted").job.id;
    assert_eq!(store.remove(job).await.expect_err("it waits").kind(), ErrorKind::Conflict);
    let fence = claim(store, job, 0).await.expect("it is claimed").fence;
    append(store, job, fence, Bytes::from_static(b"x\n")).await.expect("the owner writes");
    assert_eq!(store.remove(job).await.expect_err("it runs").kind(), ErrorKind::Conflict);
    store.request_cancel(job, at(1)).await.expect("a running job can be cancelled");
    let stopping = store.remove(job).await.expect_err("it runs although it shall stop");
    assert_eq!(stopping.kind(), ErrorKind::Conflict);
    assert_eq!(get(store, job).await.state, JobState::Running, "a refused call changes nothing");
    assert_eq!(store.read_log(job, 0, 10).await.expect("its log stays").len, 2);
    store.record(fenced(job, fence, succeeded(), 1)).await.expect("it finishes");
    let other = insert(store).await.id;
    store.remove(job).await.expect("it has finished");
    assert_eq!(store.get(job).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    assert_eq!(store.read_log(job, 0, 1).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
    let page = store.list(&ListQuery { limit: 1_000, ..ListQuery::default() }).await.expect("it lists");
    assert!(page.jobs.iter().all(|listed| listed.id != job));
    assert_eq!(store.get(other).await.expect("the other stays").state, JobState::Pending);
    let again = store.remove(job).await.expect_err("it is gone");
    assert_eq!(again.kind(), ErrorKind::NotFound);
    assert!(store.insert(keyed(&key, "a")).await.expect("the key is free").created);
}

/// Calls about a job that is not there say so.
pub async fn missing_jobs_are_not_found(store: &dyn JobStore) {
    let (id, fence) = (JobId::new(START), Fence(1));
    assert_eq!(store.get(id).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.request_cancel(id, at(0)).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(id).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.retry(id, at(0)).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.attempts(id).await.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(store.read_log(id, 0, 1).await.expect_err("missing").kind(), ErrorKind::NotFound);
    let record = store.record(fenced(id, fence, succeeded(), 0)).await;
    assert_eq!(record.expect_err("missing").kind(), ErrorKind::NotFound);
    let append = append(store, id, fence, Bytes::from_static(b"x")).await;
    assert_eq!(append.expect_err("missing").kind(), ErrorKind::NotFound);
    assert!(claim(store, id, 0).await.is_none());
}
