//! The promise that nothing is lost: neither at once, nor by a restart.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    StoreUnderTest, append, at, claim, fenced, fresh_key, infrastructure, insert, keyed, new_job,
    queued_after, succeeded,
};
use crate::arch::Arch;
use crate::error::ErrorKind;
use crate::job::{
    FailureClass, Job, JobBackend, JobError, JobEvent, JobPhase, JobState, JobStepFailure, UncheckedSpec,
};
use crate::job_store::{Fence, JobStore, Lease, ListQuery, NewJob, Record, Renewal};
use crate::labels::Labels;

/// The event that the calls for it make; it comes with the claim.
const CLAIMED: JobEvent = JobEvent::Claimed;

/// A job as the table of [`crate::job::state`] has it, beside the same job in the store.
struct Twin {
    model: Job,
    fence: Option<Fence>,
}

impl Twin {
    async fn insert(store: &dyn JobStore, new: NewJob) -> Self {
        let model = Job::new(new.id, Arc::clone(&new.spec), new.at);
        let told = store.insert(new).await.expect("it is inserted");
        assert_eq!(*told.job, model);
        Self { model, fence: None }
    }

    fn apply(&mut self, event: JobEvent, time: Timestamp) {
        self.model.apply(event, time).expect("the table has it");
    }

    async fn claim(&mut self, store: &dyn JobStore, seconds: u64) {
        let claim = claim(store, self.model.id, seconds).await.expect("it can be claimed");
        self.apply(CLAIMED, at(seconds));
        assert_eq!(*claim.job, self.model);
        self.fence = Some(claim.fence);
    }

    async fn record(&mut self, store: &dyn JobStore, event: JobEvent, seconds: u64) {
        let fence = self.fence.filter(|_| self.model.state == JobState::Running);
        let expected_version = fence.is_none().then_some(self.model.version);
        let record =
            Record { job: self.model.id, event: event.clone(), at: at(seconds), fence, expected_version };
        let name = event.name();
        self.apply(event, at(seconds));
        assert_eq!(*store.record(record).await.expect("the event is legal"), self.model, "after {name}");
        self.check(store, name).await;
    }

    async fn check(&self, store: &dyn JobStore, when: &str) {
        let got = store.get(self.model.id).await.expect("the job is there");
        assert_eq!(*got, self.model, "get, {when}");
        for state in [None, Some(self.model.state)] {
            let page = store.list(&ListQuery { state, before: None, limit: 100 }).await.expect("it lists");
            let listed = page.jobs.iter().find(|job| job.id == self.model.id).expect("it is listed");
            assert_eq!(**listed, self.model, "list by {state:?}, {when}");
        }
    }
}

fn step_failure() -> JobStepFailure {
    JobStepFailure {
        step: "make".to_owned(), exit_code: 2, tail: vec!["a".to_owned(), "ü\u{1b}".to_owned()]
    }
}

/// Events of an attempt that leave traces in every field.
fn progress() -> Vec<JobEvent> {
    let labels = Labels::from_pairs([("tier", "high")]).expect("the labels are legal");
    let backend = JobBackend { addr: "tcp://a:1".to_owned(), arch: Arch::X86_64, labels };
    let phase = |name: &str, took_ms| JobPhase { name: name.to_owned(), took_ms };
    let ended = |index, error: Option<&str>| JobEvent::TestFinished {
        index,
        took_ms: 3,
        error: error.map(str::to_owned),
        step: error.map(|_| step_failure()),
        log_offset: 7,
    };
    let test =
        |index, package: &str| JobEvent::TestStarted { index, package: package.to_owned(), log_offset: 5 };
    vec![
        JobEvent::Assigned { backend },
        JobEvent::PhaseFinished { phase: phase("compile", 1) },
        JobEvent::PhaseFinished { phase: phase("steps", 2) },
        JobEvent::StepStarted { index: 0, name: "fetch".to_owned() },
        JobEvent::StepFinished { index: 0, took_ms: 12, cached: true },
        JobEvent::StepStarted { index: 1, name: "make".to_owned() },
        test(0, "a"),
        ended(0, None),
        test(1, "a-doc"),
        ended(1, Some("no such file")),
    ]
}

fn whole_spec() -> NewJob {
    let parts = UncheckedSpec {
        config_yaml: "package: {}\n# ü \u{1b}\n".to_owned(),
        arch: Arch::X86_64.to_string(),
        pipelines: [("a/b.yaml".to_owned(), "pipeline: []\n".to_owned())].into(),
        backend_selector: [("tier".to_owned(), "high".to_owned())].into(),
        debug: true,
        ..UncheckedSpec::default()
    };
    let spec = crate::job::JobSpec::validate(parts).expect("the spec is legal");
    NewJob { spec: Arc::new(spec), ..new_job("package: {}\n") }
}

/// Jobs in all states, one of them with a history, a log, a key and a lease.
struct Before {
    twins: Vec<Twin>,
    log: Vec<u8>,
    key: String,
    keyed: Job,
    leased: (Lease, Fence),
}

async fn play(store: &dyn JobStore) -> Before {
    // First, because the time of the second claim ends other leases.
    let job = insert(store).await.id;
    let old = claim(store, job, 0).await.expect("it is claimed").fence;
    let fence = claim(store, job, 10).await.expect("the lease ended").fence;
    let leased = (Lease { job, fence }, old);
    let mut done = Twin::insert(store, whole_spec()).await;
    done.record(store, JobEvent::Waiting { reason: "all busy".to_owned() }, 1).await;
    done.claim(store, 2).await;
    for event in progress() {
        done.record(store, event, 3).await;
    }
    let fence = done.fence.expect("it is claimed");
    let log: Vec<u8> = (0..=255).collect();
    append(store, done.model.id, fence, log.clone().into()).await.expect("the owner writes");
    let error = JobError { step: Some(step_failure()), ..infrastructure("the daemon is gone") };
    let (not_before, refund) = (Some(at(5)), true);
    done.record(store, JobEvent::Requeued { error, not_before, refund }, 4).await;
    done.claim(store, 5).await;
    for event in progress() {
        done.record(store, event, 6).await;
    }
    let JobEvent::Succeeded { artifacts, .. } = succeeded() else { unreachable!("it is a success") };
    done.record(store, JobEvent::Succeeded { artifacts, note: Some("nothing to do".to_owned()) }, 7).await;
    let mut failed = Twin::insert(store, new_job("b")).await;
    failed.claim(store, 0).await;
    let error = JobError { step: Some(step_failure()), ..JobError::new(FailureClass::Build, "make failed") };
    failed.record(store, JobEvent::Failed { error }, 1).await;
    let mut cancelled = Twin::insert(store, new_job("c")).await;
    cancelled.record(store, JobEvent::Cancelled, 1).await;
    let mut waiting = Twin::insert(store, new_job("d")).await;
    waiting.record(store, JobEvent::Waiting { reason: "no s390x backend".to_owned() }, 1).await;
    let mut paused = Twin::insert(store, new_job("e")).await;
    paused.claim(store, 0).await;
    let error = infrastructure("the disk is full");
    let again = JobEvent::Requeued { error, not_before: Some(at(100)), refund: false };
    paused.record(store, again, 1).await;
    let mut running = Twin::insert(store, new_job("f")).await;
    running.claim(store, 0).await;
    running.record(store, JobEvent::StepStarted { index: 0, name: "a".to_owned() }, 1).await;
    store.request_cancel(running.model.id, at(2)).await.expect("a running job can be cancelled");
    running.apply(JobEvent::CancelRequested, at(2));
    running.check(store, "after the request").await;
    let key = fresh_key();
    let keyed = store.insert(keyed(&key, "g")).await.expect("it is inserted").job;
    Before {
        twins: vec![done, failed, cancelled, waiting, paused, running],
        log,
        key,
        keyed: (*keyed).clone(),
        leased,
    }
}

/// Everything that is recorded of a job is told by every call that gives it, and after a restart all of it is there
/// still: jobs, logs, keys, leases and fences.
pub async fn a_job_is_what_was_recorded_also_after_a_restart(store: &dyn StoreUnderTest) {
    let handle = store.handle().await;
    let before = play(&*handle).await;
    drop(handle);
    let reopened = store.reopen().await;
    for handle in [reopened, store.handle().await] {
        for twin in &before.twins {
            twin.check(&*handle, "after a restart").await;
        }
        let log = handle.read_log(before.twins[0].model.id, 0, 1_000).await.expect("its log is there");
        assert_eq!(log.bytes, before.log);
        let known = handle.insert(keyed(&before.key, "g")).await.expect("the key is known");
        assert_eq!((known.created, &*known.job), (false, &before.keyed));
    }
    let handle = store.handle().await;
    let handle = &*handle;
    let other = handle.insert(keyed(&before.key, "h")).await.expect_err("the key has another spec");
    assert_eq!(other.kind(), ErrorKind::Conflict);
    let (lease, old) = before.leased;
    assert!(claim(handle, lease.job, 19).await.is_none(), "the lease holds over the restart");
    conflict(handle, fenced(lease.job, old, succeeded(), 11)).await;
    let renewed = handle.renew(&[lease], at(30)).await.expect("it renews");
    assert_eq!(renewed, [Renewal::Kept { cancel_requested: false }]);
    let paused = &before.twins[4].model;
    assert!(!queued_after(handle, 15, None, Some(before.twins[3].model.id)).await.contains(&paused.id));
    assert!(claim(handle, paused.id, 99).await.is_none(), "the pause holds over the restart");
    assert!(claim(handle, paused.id, 100).await.is_some(), "it ends");
    let next = claim(handle, lease.job, 100).await.expect("the lease ended");
    assert!(next.fence > lease.fence, "fences grow over a restart");
    conflict(handle, fenced(lease.job, lease.fence, succeeded(), 101)).await;
}

async fn conflict(store: &dyn JobStore, record: Record) {
    let refused = store.record(record).await.expect_err("the fence is old");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
}
