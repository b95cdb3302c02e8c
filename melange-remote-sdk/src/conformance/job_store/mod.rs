//! The promises of a [`JobStore`].
//!
//! The suite runs on several handles of one store and opens it anew in between: see [`StoreUnderTest`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::arch::Arch;
use crate::backend_selector::Requirements;
use crate::clock::later;
use crate::error::{ErrorKind, Result};
use crate::failure::{Failure, FailureInput, FailureLine, diagnose};
use crate::job::spec::JobPackage;
use crate::job::{
    AttemptOutcome, BuildId, BuildState, ClaimToken, FailureClass, Job, JobArtifact, JobAttempt, JobBackend,
    JobError, JobId, JobPhase, JobSpec, JobState, JobStepFailure, Outcome, Priority, Progress, ProgressRow,
    Project, ServerId, SourceDigest, UncheckedSpec,
};
use crate::job_store::memory::MemoryJobStore;
use crate::job_store::{
    Claim, ClaimRequest, Demand, EndedJob, EndedPlace, EndedQuery, ExpireRequest, Fence, GiveUp, Group,
    GroupWaiting, Holding, JobStore, ListQuery, NewJob, Offer, Patience, Release, Renewal, Selection,
    Subject, Submission, Submitted, Usage,
};
use crate::labels::LabelSelector;
use crate::limits;

mod atomicity;
mod bounds;
mod builds;
mod durability;
mod events;
pub mod filled;
mod fleet;
mod graph;
mod intake;
mod progress;
mod queue;
mod races;
mod resources;
mod retention;

pub use bounds::waiting_jobs_are_bounded;
pub use fleet::jobs_and_fleet_are_of_one_store;

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

/// It lives in its handles.
#[async_trait]
impl StoreUnderTest for MemoryJobStore {
    async fn handle(&self) -> Arc<dyn JobStore> {
        Arc::new(self.clone())
    }

    async fn reopen(&self) -> Arc<dyn JobStore> {
        Arc::new(self.clone())
    }
}

/// The time at which the suite begins.
pub const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Seconds behind [`START`].
pub fn at(seconds: u64) -> Timestamp {
    later(START, Duration::from_secs(seconds))
}

/// A job for x86_64.
pub fn new_job(config_yaml: &str) -> NewJob {
    new_job_for(config_yaml, Arch::X86_64)
}

/// A job of a package.
pub(crate) fn new_job_of(package: impl Into<String>) -> NewJob {
    let mut job = new_job("package: {}\n");
    job.spec = Arc::new(JobSpec::clone(&job.spec).with_package(JobPackage::new(package, "1-r0")));
    job
}

/// An artifact of so many bytes, of which nobody looks at the digest.
pub(crate) fn artifact(name: impl Into<String>, size_bytes: u64) -> JobArtifact {
    JobArtifact { name: name.into(), size_bytes, sha256: "0".repeat(64) }
}

/// A job for an architecture.
pub fn new_job_for(config_yaml: &str, arch: Arch) -> NewJob {
    let parts = UncheckedSpec {
        config_yaml: config_yaml.to_owned(),
        arch: arch.to_string(),
        ..UncheckedSpec::default()
    };
    let spec = JobSpec::validate(parts).expect("the spec is legal");
    NewJob::new(JobId::new(START), Arc::new(spec))
}

/// A job with these files beside its definition.
pub fn new_job_with(source: SourceDigest) -> NewJob {
    let parts = UncheckedSpec {
        config_yaml: "package: {}\n".to_owned(),
        arch: Arch::X86_64.to_string(),
        source: Some(source.to_string()),
        ..UncheckedSpec::default()
    };
    let spec = JobSpec::validate(parts).expect("the spec is legal");
    NewJob::new(JobId::new(START), Arc::new(spec))
}

/// Submits a job to the default project.
pub async fn insert(store: &dyn JobStore) -> JobId {
    submit(store, new_job("package: {}\n")).await
}

/// Submits a job to the default project.
pub async fn submit(store: &dyn JobStore, job: NewJob) -> JobId {
    let id = job.id;
    store.submit(&Submission::new([job], START)).await.expect("it is handed in");
    id
}

/// Every promise. The store may hold other jobs, also from an earlier run, as long as nobody else uses it now and none
/// of them waits or runs.
///
/// [`waiting_jobs_are_bounded`] stands apart: it needs a store that holds nothing and whose bound is known.
pub async fn all(store: &dyn StoreUnderTest) {
    let handle = store.handle().await;
    let one = &*handle;
    intake::all(one).await;
    queue::all(one).await;
    resources::all(one).await;
    graph::all(one).await;
    builds::all(one).await;
    progress::all(one).await;
    events::all(one).await;
    retention::all(one).await;
    races::all(store).await;
    atomicity::all(one).await;
    bounds::all(one).await;
    drop(handle);
    durability::all(store).await;
}

/// Jobs that nobody else in the suite claims: a project of their own on a backend of their own.
struct Lane {
    project: Project,
    server: ServerId,
    backend: JobBackend,
}

impl Lane {
    fn new() -> Self {
        let name = format!("lane-{}", JobId::new(START));
        let addr = format!("tcp://{name}:1");
        Self {
            project: name.parse().expect("the name is plain"),
            server: ServerId::unique(),
            backend: JobBackend::new(addr, Arch::X86_64, Default::default()),
        }
    }

    fn submission(&self, jobs: impl IntoIterator<Item = NewJob>) -> Submission {
        Submission::new(jobs, START).in_project(self.project.clone())
    }

    async fn submit(&self, store: &dyn JobStore, job: NewJob) -> JobId {
        let id = job.id;
        store.submit(&self.submission([job])).await.expect("it is handed in");
        id
    }

    async fn insert(&self, store: &dyn JobStore) -> JobId {
        self.submit(store, new_job("package: {}\n")).await
    }

    fn group(&self) -> Group {
        let needs = Requirements::new(Arch::X86_64, LabelSelector::default());
        Group::new(self.project.clone(), needs)
    }

    fn offer(&self, slots: usize) -> Offer {
        Offer::new(self.group(), self.backend.clone(), slots, 10_000)
    }

    fn request(&self, offers: Vec<Offer>, seconds: u64) -> ClaimRequest {
        let (token, server) = (ClaimToken::new(), self.server.clone());
        ClaimRequest { token, server, offers, now: at(seconds), until: at(seconds + 10) }
    }

    /// Claims at most so many jobs, for ten seconds.
    async fn claim(&self, store: &dyn JobStore, slots: usize, seconds: u64) -> Vec<Claim> {
        store.claim(&self.request(vec![self.offer(slots)], seconds)).await.expect("claiming works")
    }

    /// Claims the one job that waits.
    async fn claim_one(&self, store: &dyn JobStore, seconds: u64) -> Claim {
        self.claim(store, 1, seconds).await.pop().expect("a job waits")
    }

    /// A job that runs.
    async fn running(&self, store: &dyn JobStore) -> (JobId, Fence) {
        let id = self.insert(store).await;
        let claim = self.claim_one(store, 0).await;
        assert_eq!(claim.job.id, id, "nobody else uses this lane");
        (id, claim.fence)
    }

    /// A job that runs, while another one waits.
    async fn running_beside(&self, store: &dyn JobStore, waiting: JobId) -> (JobId, Fence) {
        store.cancel(Selection::Job(waiting), at(3)).await.expect("it waits");
        self.running(store).await
    }

    /// What could be claimed of the lane.
    async fn demand(&self, store: &dyn JobStore, seconds: u64) -> Vec<Demand> {
        let demand = store.demand(at(seconds)).await.expect("it tells");
        demand.into_iter().filter(|demand| demand.group.project == self.project).collect()
    }

    async fn ready(&self, store: &dyn JobStore, seconds: u64) -> usize {
        self.demand(store, seconds).await.iter().map(|demand| demand.ready).sum()
    }

    /// A job that runs again; its attempts have said `one` and `two`.
    async fn running_again(&self, store: &dyn JobStore) -> (JobId, Fence) {
        let (job, first) = self.running(store).await;
        append(store, first, "one\n").await.expect("the owner writes");
        store.release(first, &given_back(None, true), at(1)).await.expect("the owner gives it back");
        let second = self.claim_one(store, 2).await.fence;
        append(store, second, "two\n").await.expect("the owner writes");
        (job, second)
    }

    async fn renew(&self, store: &dyn JobStore, fence: Fence, seconds: u64) -> Renewal {
        store.renew(&self.server, &[fence], at(seconds)).await.expect("it answers")[0]
    }
}

/// Settles every lease that ended.
async fn expire(store: &dyn JobStore, seconds: u64) -> Vec<Arc<Job>> {
    expire_with(store, seconds, Patience { attempts: 3, time: Duration::ZERO }).await
}

async fn expire_with(store: &dyn JobStore, seconds: u64, patience: Patience) -> Vec<Arc<Job>> {
    let request = ExpireRequest::new(at(seconds), patience);
    store.expire(&request).await.expect("it settles")
}

/// A store with this bound of a log, a multiple of 10,000 and no less than 20,000 bytes, takes no more, whole or not at all,
/// but for a last word.
pub async fn logs_are_bounded(store: &dyn JobStore, bound: u64) {
    let (job, fence) = Lane::new().running(store).await;
    let part = Bytes::from(vec![b'x'; 10_000]);
    for place in 0..bound / 10_000 {
        store.append_log(fence, place * 10_000, part.clone()).await.expect("there is room");
    }
    let refused = store.append_log(fence, bound, part.clone()).await.expect_err("it is full");
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert_eq!(store.read_log(job, 0, 0).await.expect("it reads").len, bound, "nothing of it is there");
    let word = Bytes::from_static(b"no more\n");
    let mut length = store.append_log(fence, bound, word.clone()).await.expect("there is room for a word");
    assert_eq!(store.append_log(fence, bound, word).await.expect("it may be repeated"), length);
    loop {
        let line = Bytes::from(vec![b'y'; 1_000]);
        match store.append_log(fence, length, line).await {
            Ok(grown) => length = grown,
            Err(error) => break assert_eq!(error.kind(), ErrorKind::LimitExceeded),
        }
        assert!(length < bound + 10_000, "last words are bounded too");
    }
}

/// Adds to the end of a job's log.
async fn append(store: &dyn JobStore, fence: Fence, bytes: &'static str) -> Result<u64> {
    let length = store.read_log(fence.job, 0, 0).await?.len;
    store.append_log(fence, length, Bytes::from_static(bytes.as_bytes())).await
}

fn row(progress: Progress) -> ProgressRow {
    ProgressRow { at: at(1), progress }
}

fn step(name: &str) -> ProgressRow {
    row(Progress::StepStarted { index: 0, name: name.to_owned() })
}

fn infrastructure(message: &str) -> JobError {
    JobError::new(FailureClass::Infrastructure, message)
}

fn succeeded() -> Outcome {
    Outcome::made(vec![artifact("x86_64/a.apk", 1)])
}

/// What an attempt failed of, with every field.
fn failure() -> Failure {
    let lines =
        [(7, "cc -c a.c"), (8, "a.c:1:2: error: \"\u{fc}\" is no type"), (9, "make: *** [a.o] Error 1")]
            .map(|(number, text)| FailureLine { number, text });
    let mut input = FailureInput::new(FailureClass::Build, "make failed");
    (input.step, input.lines) = (Some("make"), &lines);
    diagnose(&input)
}

fn failed() -> Outcome {
    Outcome::Failed { error: JobError::new(FailureClass::Build, "make failed").with_failure(failure()) }
}

fn given_back(not_before: Option<u64>, counts: bool) -> Release {
    let gone = "the daemon is gone";
    let failure = diagnose(&FailureInput::new(FailureClass::Infrastructure, gone));
    let error = infrastructure(gone).with_failure(failure);
    Release { not_before: not_before.map(at), counts, ..Release::new(error) }
}

/// A key that no submission has used.
fn fresh_key() -> String {
    format!("conformance-{}", JobId::new(START))
}

/// The job as it is.
async fn get(store: &dyn JobStore, id: JobId) -> Arc<Job> {
    store.get(id).await.expect("the job is there")
}

async fn state(store: &dyn JobStore, id: JobId) -> JobState {
    get(store, id).await.state
}

/// A call that must be refused as a conflict.
fn conflicts<T: std::fmt::Debug>(told: Result<T>, why: &str) {
    assert_eq!(told.expect_err(why).kind(), ErrorKind::Conflict, "{why}");
}

/// Whoever shows this fence is refused by every call and changes nothing.
async fn is_stale(store: &dyn JobStore, lane: &Lane, fence: Fence, why: &str) {
    let before = (get(store, fence.job).await, store.attempts(fence.job).await.expect("they are there"));
    let log = store.read_log(fence.job, 0, 0).await.expect("it reads").len;
    conflicts(store.finish(fence, &succeeded(), at(900)).await, why);
    conflicts(store.finish(fence, &failed(), at(900)).await, why);
    conflicts(store.release(fence, &given_back(None, false), at(900)).await, why);
    conflicts(append(store, fence, "stale\n").await, why);
    conflicts(store.append(fence, 0, &[step("stale")]).await, why);
    assert_eq!(lane.renew(store, fence, 900).await, Renewal::Lost, "{why}");
    let after = (get(store, fence.job).await, store.attempts(fence.job).await.expect("they are there"));
    assert_eq!(after, before, "a refused call changes nothing");
    assert_eq!(store.read_log(fence.job, 0, 0).await.expect("it reads").len, log);
}
