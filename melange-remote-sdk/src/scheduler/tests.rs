//! Whole jobs on a paused clock: nothing here sleeps for real, and every wait ends.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::arch::Arch;
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::artifact_storage::{ArtifactBody, ArtifactKey, ByteStream, StoredArtifact};
use crate::backend::{AlwaysReachable, Backend};
use crate::backend_selector::round_robin::RoundRobin;
use crate::builder::scripted::{Act, ScriptedBuilder};
use crate::builder::{BuildEvent, BuildLimit, BuildStatus, NoInputs, Phase, StepFailure};
use crate::clock::SteadyClock;
use crate::conformance::artifact_storage::{key, read};
use crate::conformance::job_store::{START, new_job_for, new_job_of};
use crate::error::{Error, ErrorKind};
use crate::job::{Job, JobAttempt, JobId, JobState, LogArchive, Outcome, ProgressRow, Project};
use crate::job_log::LogQuery;
use crate::job_store::forward::{Forward, ForwardJobStore};
use crate::job_store::memory::MemoryJobStore;
use crate::job_store::{
    Claim, Demand, Fence, Finished, JobProgress, JobQueue, ListQuery, NewJob, Release, Renewal, Selection,
    Submission,
};
use crate::labels::Labels;

mod failures;
mod fleet;
mod resources;
mod sources;

/// A scheduler at work, with everything around it.
struct Farm {
    parts: SchedulerParts,
    fleet: Fleet,
    builder: ScriptedBuilder,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn backend(addr: &str, max_jobs: u32) -> Backend {
    Backend::new(addr, Arch::X86_64, Labels::default()).unwrap().with_max_jobs(max_jobs).unwrap()
}

fn parts(builder: &ScriptedBuilder, max_jobs: u32) -> SchedulerParts {
    SchedulerParts {
        job_store: Arc::new(MemoryJobStore::default()),
        artifact_storage: Arc::new(ObjectArtifactStorage::memory()),
        backend_selector: Arc::new(RoundRobin),
        builder: Arc::new(builder.clone()),
        inputs: Arc::new(NoInputs),
        pool: BackendPool::new([backend("tcp://a:1", max_jobs)]).unwrap(),
        registry: Arc::new(MemoryRegistry::default()),
        machine: None,
        probe: Arc::new(AlwaysReachable),
        clock: Arc::new(SteadyClock::starting_at(START)),
        server: ServerId::unique(),
        last_round: LastRound::default(),
        sources: SourceFolders::default(),
    }
}

impl Farm {
    fn start(builder: ScriptedBuilder) -> Self {
        let parts = parts(&builder, 4);
        Self::start_with(builder, parts)
    }

    fn start_with(builder: ScriptedBuilder, parts: SchedulerParts) -> Self {
        Self::start_as(builder, parts, SchedulerOptions::default())
    }

    fn start_as(builder: ScriptedBuilder, parts: SchedulerParts, options: SchedulerOptions) -> Self {
        let shutdown = CancellationToken::new();
        let scheduler = Scheduler::new(parts.clone(), options);
        let (fleet, stop) = (scheduler.fleet().clone(), shutdown.clone());
        let task = tokio::spawn(async move { scheduler.run(stop).await });
        Self { parts, fleet, builder, shutdown, task }
    }

    async fn submit(&self) -> JobId {
        self.submit_for(Arch::X86_64).await
    }

    async fn submit_for(&self, arch: Arch) -> JobId {
        self.hand_in(new_job_for("package: {}\n", arch)).await
    }

    async fn hand_in(&self, job: NewJob) -> JobId {
        let submission = Submission::new([job], self.parts.clock.now());
        self.parts.job_store.submit(&submission).await.unwrap().jobs[0]
    }

    /// The job once it is as asked.
    async fn wait(&self, id: JobId, what: impl Fn(&Job) -> bool) -> Arc<Job> {
        let mut hint = self.parts.job_store.changed(Subject::Job(id));
        let wait = async {
            loop {
                let job = self.parts.job_store.get(id).await.unwrap();
                if what(&job) {
                    return job;
                }
                hint.changed().await.unwrap();
            }
        };
        let patience = limits::UNMATCHED_WAIT * 2;
        match tokio::time::timeout(patience, wait).await {
            Ok(job) => job,
            Err(_) => panic!("the job stays {:?}", self.parts.job_store.get(id).await),
        }
    }

    async fn end(&self, id: JobId) -> Arc<Job> {
        self.wait(id, |job| job.state.is_terminal()).await
    }

    /// The last attempt of a job.
    async fn attempt(&self, id: JobId) -> JobAttempt {
        self.parts.job_store.attempts(id).await.unwrap().pop().unwrap()
    }

    /// The log of a job, wherever it is.
    async fn log(&self, id: JobId) -> String {
        let (store, storage) = (&self.parts.job_store, &self.parts.artifact_storage);
        let logs = JobLogs::new(Arc::clone(store), Arc::clone(storage));
        let mut reader = logs.read(id, LogQuery::default()).await.unwrap();
        let mut text = Vec::new();
        while let Some(part) = reader.next().await.unwrap() {
            text.extend_from_slice(&part.text());
        }
        String::from_utf8(text).unwrap()
    }

    /// The log of the last attempt, once it lies among the artifacts.
    async fn archived(&self, id: JobId) -> LogArchive {
        let archived = async {
            loop {
                match self.attempt(id).await.log {
                    Some(archive) => return archive,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), archived).await.unwrap()
    }

    /// Stops the scheduler; nothing may be left over.
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
        assert_eq!(self.parts.pool.leased(), 0, "every slot came back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_becomes_artifacts_a_log_and_a_history() {
    let farm = Farm::start(ScriptedBuilder::new([
        Act::Emit(BuildEvent::StepStarted { index: 0, total: 1, name: "hello: make".to_owned() }),
        Act::line("cc hello.c"),
        Act::Sleep(Duration::from_millis(1_500)),
        Act::Emit(BuildEvent::StepFinished { index: 0, took: Duration::from_millis(1_500), cached: false }),
        Act::Emit(BuildEvent::PhaseFinished { phase: Phase::Steps, took: Duration::from_millis(1_500) }),
        Act::Write("{arch}/hello-2.10-r0.apk".to_owned(), b"apk".to_vec()),
    ]));
    let id = farm.submit().await;
    let job = farm.end(id).await;
    assert_eq!((job.state, job.attempt, &job.error), (JobState::Success, 1, &None));
    assert_eq!(job.backend.as_ref().unwrap().addr, "tcp://a:1");
    let attempt = farm.attempt(id).await;
    assert_eq!((attempt.steps[0].name.as_str(), attempt.steps[0].took_ms), ("hello: make", Some(1_500)));
    let phases: Vec<&str> = attempt.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, ["steps", "store"]);
    assert_eq!(job.artifacts[0].name, "x86_64/hello-2.10-r0.apk");
    let storage = &*farm.parts.artifact_storage;
    assert_eq!(read(storage, &key(&format!("{id}/1/x86_64/hello-2.10-r0.apk"))).await, b"apk");
    let log = farm.log(id).await;
    insta::assert_snapshot!(log, @r"
    --- attempt 1 on tcp://a:1
    --- step 1 of 1: hello: make
    cc hello.c
    --- the build succeeded
    ");
    let archive = farm.archived(id).await;
    assert_eq!((archive.lines, archive.steps.len()), (4, 0));
    assert_eq!(farm.log(id).await, log, "the same from the storage");
    let input = &farm.builder.builds()[0];
    assert_eq!((input.backend_addr.as_str(), input.config_yaml.as_str()), ("tcp://a:1", "package: {}\n"));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_build_is_not_tried_again_and_says_which_step() {
    let failure = StepFailure { tail: vec!["no rule".to_owned()], ..StepFailure::new("a: make", 2) };
    let status = BuildStatus::Failed { reason: "step a: make failed".to_owned(), failure: Some(failure) };
    let farm = Farm::start(ScriptedBuilder::new([Act::line("no rule"), Act::Finish(status)]));
    let id = farm.submit().await;
    let job = farm.end(id).await;
    let error = job.error.as_ref().unwrap();
    assert_eq!((job.state, error.class, job.attempt), (JobState::Failed, FailureClass::Build, 1));
    assert_eq!(error.step.as_ref().unwrap().exit_code, 2);
    farm.archived(id).await;
    let log = farm.log(id).await;
    assert!(log.ends_with("no rule\n--- the build failed: step a: make failed\n"), "{log}");
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_to_build_is_a_success_with_a_note() {
    let status = BuildStatus::Skipped { reason: "for aarch64 only".to_owned() };
    let farm = Farm::start(ScriptedBuilder::new([Act::Finish(status)]));
    let id = farm.submit().await;
    let job = farm.end(id).await;
    assert_eq!((job.state, job.note.as_deref()), (JobState::Success, Some("for aarch64 only")));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_stops_a_running_job_within_a_second() {
    let farm = Farm::start(ScriptedBuilder::new([Act::line("on"), Act::Wait(Arc::new(Notify::new()))]));
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    let asked_at = Instant::now();
    farm.parts.job_store.cancel(Selection::Job(id), farm.parts.clock.now()).await.unwrap();
    let job = farm.end(id).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert!(asked_at.elapsed() < Duration::from_secs(1), "{:?}", asked_at.elapsed());
    assert!(farm.log(id).await.ends_with("--- the build was stopped\n"));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_does_not_stop_is_dropped() {
    let farm = Farm::start(ScriptedBuilder::new([Act::Hang(Arc::new(Notify::new()))]));
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    farm.parts.job_store.cancel(Selection::Job(id), farm.parts.clock.now()).await.unwrap();
    assert_eq!(farm.end(id).await.state, JobState::Cancelled);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_after_a_growing_pause() {
    let fail = || vec![Act::Fail(ErrorKind::Unavailable, "connection refused".to_owned())];
    let write = Act::Write("a.apk".to_owned(), vec![1]);
    let farm = Farm::start(ScriptedBuilder::sequence(vec![fail(), fail()], [write]));
    let (id, started_at) = (farm.submit().await, Instant::now());
    let job = farm.end(id).await;
    assert_eq!((job.state, job.attempt, &job.error), (JobState::Success, 3, &None));
    assert!(started_at.elapsed() >= limits::RETRY_PAUSE * 3, "{:?}", started_at.elapsed());
    assert!(farm.log(id).await.contains("--- attempt 3 on tcp://a:1"));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_a_panic_is_a_failure() {
    let fail = vec![Act::Fail(ErrorKind::Unavailable, "connection refused".to_owned())];
    let farm = Farm::start(ScriptedBuilder::new(fail));
    let (refused, begun) = (farm.submit().await, Instant::now());
    let job = farm.end(refused).await;
    let error = job.error.as_ref().unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(begun.elapsed() >= limits::RETRIED_FOR_MIN, "{:?}", begun.elapsed());
    assert!((limits::ATTEMPTS_MIN..40).contains(&job.attempt), "{} attempts", job.attempt);
    assert_eq!((error.class, error.message.as_str()), (FailureClass::Infrastructure, "connection refused"));
    farm.stop().await;
    let panics = vec![vec![Act::Panic("a defect".to_owned())]; usize::try_from(job.attempt).unwrap() + 10];
    let farm = Farm::start(ScriptedBuilder::sequence(panics, []));
    let panicked = farm.submit().await;
    let job = farm.end(panicked).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.as_ref().unwrap().message.starts_with("the builder panicked"));
    let fine = farm.submit().await;
    assert_eq!(farm.end(fine).await.state, JobState::Success);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_runs_as_many_jobs_as_it_may_and_the_others_say_why_they_wait() {
    let gate = Arc::new(Notify::new());
    let builder = ScriptedBuilder::new([Act::Wait(Arc::clone(&gate))]);
    let parts = parts(&builder, 2);
    let farm = Farm::start_with(builder, parts);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(farm.submit().await);
    }
    for id in &ids[2..] {
        let job = farm.wait(*id, |job| job.waiting.is_some()).await;
        assert_eq!(job.waiting.as_ref().unwrap().reason, "the only matching backend is busy");
    }
    assert_eq!((farm.builder.builds().len(), farm.parts.pool.leased()), (2, 2));
    for _ in 0..5 {
        gate.notify_one();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(farm.parts.pool.leased() <= 2);
    }
    for id in ids {
        assert_eq!(farm.end(id).await.state, JobState::Success);
    }
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_can_run_waits_visibly_starts_when_somebody_can_or_is_given_up() {
    let farm = Farm::start(ScriptedBuilder::new([]));
    let id = farm.submit_for(Arch::Aarch64).await;
    let job = farm.wait(id, |job| job.waiting.is_some()).await;
    assert_eq!(job.waiting.as_ref().unwrap().reason, "no aarch64 backend (there are x86_64)");
    let arm = Backend::new("tcp://arm:1", Arch::Aarch64, Labels::default()).unwrap();
    farm.fleet.add(arm).await.unwrap();
    assert_eq!(farm.end(id).await.state, JobState::Success);
    let id = farm.submit_for(Arch::S390x).await;
    let job = farm.end(id).await;
    assert_eq!(job.error.as_ref().unwrap().class, FailureClass::Unschedulable);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_scheduler_waits_then_gives_jobs_back() {
    let gate = Arc::new(Notify::new());
    let short = vec![Act::Sleep(limits::SHUTDOWN_GRACE / 2)];
    let farm = Farm::start(ScriptedBuilder::sequence(vec![short], [Act::Wait(gate)]));
    let (short, long) = (farm.submit().await, farm.submit().await);
    for id in [short, long] {
        farm.wait(id, |job| job.backend.is_some()).await;
    }
    let (job_store, clock) = (Arc::clone(&farm.parts.job_store), Arc::clone(&farm.parts.clock));
    farm.shutdown.cancel();
    tokio::task::yield_now().await;
    let late = farm.submit().await;
    farm.stop().await;
    assert_eq!(job_store.get(short).await.unwrap().state, JobState::Success);
    let given_back = job_store.get(long).await.unwrap();
    assert_eq!((given_back.state, given_back.attempt), (JobState::Pending, 1));
    assert_eq!(given_back.counted_attempts, 0);
    assert_eq!(job_store.get(late).await.unwrap().attempt, 0);
    assert_eq!(job_store.demand(clock.now()).await.unwrap()[0].ready, 2);
}

/// A job store with faults that a test switches on.
#[derive(Debug, Default)]
struct Faulty {
    inner: MemoryJobStore,
    renewals_fail: AtomicBool,
    calls_to_fail: AtomicU32,
}

impl Faulty {
    fn fault(&self) -> Result<()> {
        let failed =
            self.calls_to_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match failed {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, "the database is away")),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl ForwardJobStore for Arc<Faulty> {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        self.fault()?;
        self.inner.demand(now).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let claims = self.inner.claim(request).await;
        // The answer of the call that fails is lost, not the call.
        self.fault()?;
        claims
    }
    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        if self.renewals_fail.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the database is away"));
        }
        self.inner.renew(server, fences, until).await
    }
    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let job = self.inner.release(fence, release, at).await;
        self.fault()?;
        job
    }
    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let finished = self.inner.finish(fence, outcome, at).await;
        self.fault()?;
        finished
    }
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        self.fault()?;
        self.inner.append(fence, first, rows).await
    }
    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let length = self.inner.append_log(fence, offset, bytes).await;
        self.fault()?;
        length
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_lease_is_lost_stops_and_never_finishes_the_job() {
    let gate = Arc::new(Notify::new());
    let stale =
        vec![Act::line("stale"), Act::Hang(Arc::clone(&gate)), Act::Write("a.apk".to_owned(), vec![1])];
    let second = vec![Act::line("second"), Act::Write("a.apk".to_owned(), vec![2])];
    let builder = ScriptedBuilder::sequence(vec![stale], second);
    let faulty = Arc::new(Faulty::default());
    let parts = SchedulerParts { job_store: Arc::new(Forward(Arc::clone(&faulty))), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    faulty.renewals_fail.store(true, Ordering::SeqCst);
    // The lease ends, and the same scheduler claims the job again while the first builder still hangs.
    let job = farm.end(id).await;
    gate.notify_one();
    tokio::time::sleep(limits::LEASE * 2).await;
    assert_eq!((job.state, job.attempt), (JobState::Success, 2));
    let now = farm.parts.job_store.get(id).await.unwrap();
    assert_eq!(now, job, "the stale attempt changed nothing");
    assert_eq!(read(&*farm.parts.artifact_storage, &key(&format!("{id}/2/a.apk"))).await, [2]);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_costs_neither_lines_nor_the_end() {
    let faulty = Arc::new(Faulty::default());
    let gate = Arc::new(Notify::new());
    let builder = ScriptedBuilder::new([Act::Wait(Arc::clone(&gate)), Act::line("kept")]);
    let parts = SchedulerParts { job_store: Arc::new(Forward(Arc::clone(&faulty))), ..parts(&builder, 4) };
    faulty.calls_to_fail.store(3, Ordering::SeqCst);
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    faulty.calls_to_fail.store(3, Ordering::SeqCst);
    gate.notify_one();
    assert_eq!(farm.end(id).await.state, JobState::Success);
    assert!(farm.log(id).await.contains("kept\n"));
    farm.stop().await;
}

mockall::mock! {
    #[derive(Debug)]
    Storage {}

    #[async_trait]
    impl ArtifactStorage for Storage {
        async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact>;
        async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact>;
        async fn get(&self, key: &ArtifactKey, range: Option<std::ops::Range<u64>>) -> Result<ArtifactBody>;
        async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact>;
        async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp>;
        async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>>;
        async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>>;
        async fn delete(&self, key: &ArtifactKey) -> Result<()>;
        fn url(&self, key: &ArtifactKey) -> String;
    }
}

fn failing_storage(kind: ErrorKind) -> MockStorage {
    let mut storage = MockStorage::new();
    storage.expect_put().returning(move |_, _| Err(Error::new(kind, "the bucket is away")));
    storage.expect_delete().returning(|_| Ok(()));
    storage
}

/// Another build would not help, so there is none.
#[tokio::test(start_paused = true)]
async fn artifacts_that_cannot_be_stored_fail_the_job_after_one_build() {
    let (refused, away) = (limits::STORE_REFUSED, limits::STORE_TROUBLE);
    let cases = [
        (ErrorKind::Unavailable, "a.apk", away - limits::RETRY_PAUSE_MAX * 5 / 4..away, "the bucket is away"),
        (ErrorKind::Unexpected, "a.apk", Duration::from_secs(1)..refused, "the bucket is away (tries: "),
        (ErrorKind::Unavailable, "a/../b.apk", Duration::ZERO..limits::RETRY_PAUSE, "the artifact key"),
    ];
    for (kind, name, took, message) in cases {
        let builder = ScriptedBuilder::new([Act::Write(name.to_owned(), vec![1])]);
        let storage = Arc::new(failing_storage(kind));
        let parts = SchedulerParts { artifact_storage: storage, ..parts(&builder, 4) };
        let farm = Farm::start_with(builder, parts);
        let begun = Instant::now();
        let id = farm.submit().await;
        let job = farm.end(id).await;
        assert!(took.contains(&begun.elapsed()), "{kind:?}: {:?}", begun.elapsed());
        assert_eq!((job.state, job.attempt, farm.builder.builds().len()), (JobState::Failed, 1, 1));
        let error = job.error.as_ref().unwrap();
        let storage_failed = name == "a.apk";
        assert_eq!(error.class == FailureClass::Infrastructure, storage_failed);
        assert!(error.message.contains(message), "{}", error.message);
        assert!(error.message.starts_with("the packages were built and could not be stored: "));
        assert_eq!(job.artifacts, []);
        let lines = farm.log(id).await.matches("could not be stored").count();
        assert!(lines <= 7, "{lines} lines for one trouble");
        farm.stop().await;
    }
}

/// A file that is not what the builder said may be right after another build.
#[tokio::test(start_paused = true)]
async fn a_file_that_changed_is_built_again() {
    let builder = ScriptedBuilder::new([Act::Write("a.apk".to_owned(), vec![1])]);
    let mut storage = MockStorage::new();
    storage.expect_put().returning(|key, _| {
        Ok(StoredArtifact { key: key.clone(), size_bytes: 1, sha256: "another".to_owned() })
    });
    storage.expect_delete().returning(|_| Ok(()));
    let parts = SchedulerParts { artifact_storage: Arc::new(storage), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    let job = farm.end(id).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.attempt >= limits::ATTEMPTS_MIN);
    assert!(job.error.as_ref().unwrap().message.starts_with("a file changed between"));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_schedulers_on_one_store_build_every_job_once() {
    let builder = ScriptedBuilder::new([Act::Sleep(Duration::from_millis(10))]);
    let parts = parts(&builder, 3);
    let first = Farm::start_with(builder.clone(), parts.clone());
    let second = SchedulerParts { pool: BackendPool::new([backend("tcp://b:1", 3)]).unwrap(), ..parts };
    let second = Farm::start_with(builder.clone(), second);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(first.submit().await);
    }
    for id in ids {
        let job = first.end(id).await;
        assert_eq!((job.state, job.attempt), (JobState::Success, 1));
    }
    let builds = builder.builds();
    assert_eq!(builds.len(), 60);
    assert!(builds.iter().any(|build| build.backend_addr == "tcp://b:1"));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_become_free_go_to_projects_by_their_weights() {
    let builder = ScriptedBuilder::new([Act::Sleep(Duration::from_secs(10))]);
    let parts = parts(&builder, 8);
    let projects: [Project; 2] = ["release", "nightly"].map(|name| name.parse().unwrap());
    for project in &projects {
        let jobs = (0..40).map(|_| new_job_for("package: {}\n", Arch::X86_64));
        let submission = Submission::new(jobs, parts.clock.now()).in_project(project.clone());
        parts.job_store.submit(&submission).await.unwrap();
    }
    let three = std::num::NonZeroU32::new(3).unwrap();
    let project_weights = ProjectWeights::from_iter([(projects[0].clone(), three)]);
    let options = SchedulerOptions { project_weights, ..SchedulerOptions::default() };
    let farm = Farm::start_as(builder, parts.clone(), options);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let query = ListQuery::newest(100).in_state(Some(JobState::Running));
        let jobs = parts.job_store.list(&query).await.unwrap().jobs;
        let shares = projects.each_ref().map(|own| jobs.iter().filter(|job| job.project == *own).count());
        assert_eq!(shares, [6, 2]);
    }
    farm.shutdown.cancel();
    farm.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_name_no_key_may_have_fails_the_job() {
    let farm = Farm::start(ScriptedBuilder::new([Act::Write("../a.apk".to_owned(), vec![1])]));
    let id = farm.submit().await;
    let job = farm.end(id).await;
    assert_eq!(job.state, JobState::Failed);
    farm.stop().await;
}

/// A storage whose first puts fail, the last of these kinds first.
#[derive(Debug)]
struct Flaky {
    failures: std::sync::Mutex<Vec<ErrorKind>>,
    inner: ObjectArtifactStorage,
}

#[async_trait]
impl ArtifactStorage for Flaky {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        let failure = self.failures.lock().unwrap().pop();
        match failure {
            Some(kind) => Err(Error::new(kind, "the bucket is away")),
            None => self.inner.put(key, bytes).await,
        }
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        self.inner.copy_if_absent(from, to).await
    }

    async fn get(&self, key: &ArtifactKey, range: Option<std::ops::Range<u64>>) -> Result<ArtifactBody> {
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        self.inner.head(key).await
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        self.inner.stored_at(key).await
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        self.inner.list(prefix).await
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        self.inner.folders(behind, limit).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        self.inner.delete(key).await
    }

    fn url(&self, key: &ArtifactKey) -> String {
        self.inner.url(key)
    }
}

/// The packages are kept meanwhile, and the log says what happens.
#[tokio::test(start_paused = true)]
async fn storing_is_repeated_while_the_packages_are_kept() {
    let builder = ScriptedBuilder::sequence(vec![vec![Act::Write("a.apk".to_owned(), vec![7])]], []);
    let storage = ObjectArtifactStorage::memory();
    // It is away for minutes, and refuses for some seconds as it comes back.
    let failures = [[ErrorKind::Unexpected; 3].as_slice(), &[ErrorKind::Unavailable; 10]].concat().into();
    let flaky = Flaky { failures, inner: storage.clone() };
    let parts = SchedulerParts { artifact_storage: Arc::new(flaky), ..parts(&builder, 4) };
    let farm = Farm::start_with(builder, parts);
    let id = farm.submit().await;
    let job = farm.end(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Success, 1));
    let log = farm.log(id).await;
    insta::assert_snapshot!(log, @r"
    --- attempt 1 on tcp://a:1
    --- a.apk could not be stored: the bucket is away; trying again
    --- a.apk could not be stored in 2 tries: the bucket is away; trying again
    --- a.apk could not be stored in 4 tries: the bucket is away; trying again
    --- a.apk could not be stored in 8 tries: the bucket is away; trying again
    --- a.apk is stored, in try 14
    --- the build succeeded
    ");
    assert!(log.ends_with("--- the build succeeded\n"), "{log}");
    assert_eq!(read(&storage, &key(&format!("{id}/1/a.apk"))).await, [7]);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_the_operator_is_told_as_one_and_not_tried_again() {
    let message = "this sandbox does not give the capability CAP_SYS_ADMIN".to_owned();
    let fail = Act::FailBy(crate::error::Blame::Policy, ErrorKind::Unsupported, message);
    let limit = Act::Finish(BuildStatus::LimitExceeded {
        reason: "it took longer than 2 s".to_owned(),
        limit: BuildLimit::Time,
    });
    for act in [fail, limit] {
        let farm = Farm::start(ScriptedBuilder::new([act]));
        let id = farm.submit().await;
        let job = farm.end(id).await;
        assert_eq!((job.state, job.attempt), (JobState::Failed, 1));
        assert_eq!(job.error.as_ref().unwrap().class, FailureClass::Policy);
        farm.stop().await;
    }
}
