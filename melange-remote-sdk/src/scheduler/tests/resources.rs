//! Jobs that say what they need, and backends that say what they have.

use super::*;
use crate::backend_selector::best_fit::BestFit;
use crate::job::spec::JobPackage;
use crate::job::{BackendCapacity, JobResources, JobSpec};

const GIB: u64 = 1 << 30;

/// A job that asks for so much memory.
fn asking(gibibytes: u64) -> NewJob {
    let mut job = new_job_for("package: {}\n", Arch::X86_64);
    let mut package = JobPackage::new("large", "1-r0");
    package.resources = JobResources::new(0, gibibytes * GIB);
    job.spec = Arc::new(JobSpec::clone(&job.spec).with_package(package));
    job
}

/// A farm of backends with eight slots each and so many gibibytes; 0 where nobody said so.
fn farm(builder: ScriptedBuilder, gibibytes: &[u64]) -> Farm {
    let backends = gibibytes.iter().enumerate().map(|(number, gibibytes)| {
        let memory = (*gibibytes > 0).then_some(gibibytes * GIB);
        backend(&format!("tcp://b{number}:1"), 8).with_capacity(BackendCapacity::new(None, memory))
    });
    let pool = BackendPool::new(backends).unwrap();
    let backend_selector = Arc::new(BestFit::new(Arc::new(RoundRobin)));
    let parts = SchedulerParts { pool, backend_selector, ..parts(&builder, 8) };
    Farm::start_with(builder, parts)
}

/// A build whose step ran out of memory, after it had used so many bytes.
fn starved(bytes: u64) -> Vec<Act> {
    let failure = StepFailure { out_of_memory: true, ..StepFailure::new("a: make", 137) };
    vec![
        Act::Emit(BuildEvent::StepStarted { index: 0, total: 1, name: "a: make".to_owned() }),
        Act::Emit(BuildEvent::MemoryPeak { bytes: bytes / 2 }),
        Act::Emit(BuildEvent::MemoryPeak { bytes }),
        Act::Finish(BuildStatus::Failed { reason: "the step was killed".to_owned(), failure: Some(failure) }),
    ]
}

#[tokio::test(start_paused = true)]
async fn who_runs_out_of_memory_is_tried_once_with_twice_as_much_where_that_is() {
    let farm = farm(ScriptedBuilder::sequence(vec![starved(GIB)], []), &[1, 4]);
    let id = farm.hand_in(asking(1)).await;
    let job = farm.end(id).await;
    assert_eq!((job.state, job.attempt, job.counted_attempts), (JobState::Success, 2, 2));
    let attempts = farm.parts.job_store.attempts(id).await.unwrap();
    let error = attempts[0].error.as_ref().unwrap();
    assert_eq!(error.class, FailureClass::Resources);
    assert_eq!(
        error.message,
        "the step was killed: 1.0 GiB of memory are not enough, it is tried with 2.0 GiB of memory"
    );
    assert_eq!((attempts[0].peak_memory_bytes, attempts[1].peak_memory_bytes), (Some(GIB), None));
    let addr = |attempt: &JobAttempt| attempt.backend.as_ref().unwrap().addr.clone();
    assert_eq!(addr(&attempts[1]), "tcp://b1:1", "the other one has no more");
    let told: Vec<Option<u64>> = farm.builder.builds().iter().map(|input| input.memory_bytes).collect();
    assert_eq!(told, [None, Some(2 * GIB)]);
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_runs_out_of_memory_again_or_everywhere_fails_for_that() {
    for (backends, asked, attempts, why) in [
        (&[1, 3][..], 2, 1, "2.0 GiB of memory are not enough, and no backend has twice as much"),
        (&[0], 1, 2, "2.0 GiB of memory are not enough, twice as much as it asked for"),
        (&[8], 0, 1, "the definition may say in `package.resources.memory` how much it needs"),
    ] {
        let farm = farm(ScriptedBuilder::new(starved(GIB)), backends);
        let id = farm.hand_in(asking(asked)).await;
        let job = farm.end(id).await;
        let error = job.error.as_ref().unwrap();
        assert_eq!((error.class, job.attempt), (FailureClass::Resources, attempts));
        assert_eq!(error.message, format!("the step was killed: {why}"));
        assert_eq!(farm.attempt(id).await.failure.unwrap().normalised, "out of memory");
        farm.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_runs_what_its_memory_holds_and_what_none_holds_says_so() {
    let hold = Arc::new(tokio::sync::Notify::new());
    let farm = farm(ScriptedBuilder::new([Act::Wait(Arc::clone(&hold))]), &[4]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(farm.hand_in(asking(2)).await);
    }
    let huge = farm.hand_in(asking(5)).await;
    for id in &ids[..2] {
        farm.wait(*id, |job| job.state == JobState::Running).await;
    }
    let waits = farm.wait(ids[2], |job| job.waiting.is_some()).await;
    assert_eq!(waits.waiting.as_ref().unwrap().reason, "the only matching backend is busy");
    let waits = farm.wait(huge, |job| job.waiting.is_some()).await;
    assert_eq!(waits.waiting.as_ref().unwrap().reason, "no x86_64 backend has 5.0 GiB of memory");
    assert_eq!(farm.parts.pool.states()[0].used, JobResources::new(0, 4 * GIB));
    farm.parts.job_store.cancel(Selection::Job(huge), farm.parts.clock.now()).await.unwrap();
    while !farm.parts.job_store.get(ids[2]).await.unwrap().state.is_terminal() {
        hold.notify_waiters();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    farm.stop().await;
}
