//! Jobs per second through the whole service side: memory store, no-op builder, artifacts in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builder::{BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder};
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::conformance::job_store::new_job;
use melange_remote_sdk::error::Result;
use melange_remote_sdk::job::JobState;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{
    JobIntake, JobReading, JobStore, ListQuery, NewJob, Subject, Submission,
};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

/// Jobs of one measurement.
const JOBS: usize = 2_000;

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Builder for Nothing {
    async fn build(
        &self,
        _: &BuildInput,
        _: Arc<dyn BuildSink>,
        _: CancellationToken,
    ) -> Result<BuildOutcome> {
        Ok(BuildOutcome::without_files(BuildStatus::Succeeded))
    }
}

async fn left(job_store: &dyn JobStore) -> bool {
    for state in [JobState::Pending, JobState::Running] {
        let query = ListQuery::newest(1).in_state(state);
        if !job_store.list(&query).await.expect("it lists").jobs.is_empty() {
            return true;
        }
    }
    false
}

/// The time from the start of the scheduler to the end of the last job.
async fn drain(slots: u32) -> Duration {
    let job_store = Arc::new(MemoryJobStore::default());
    let jobs: Vec<NewJob> = (0..JOBS).map(|_| new_job("package: {}\n")).collect();
    let last = jobs.last().map(|job| job.id);
    job_store.submit(&Submission::new(jobs, SystemClock.now())).await.expect("they are handed in");
    let backend = Backend::new("tcp://bench:1", Arch::X86_64, Labels::default());
    let backend = backend.and_then(|backend| backend.with_max_jobs(slots)).expect("the backend is legal");
    let parts = SchedulerParts::new(
        Arc::clone(&job_store) as _,
        Arc::new(ObjectArtifactStorage::memory()),
        Arc::new(Nothing),
        BackendPool::new([backend]).expect("one backend"),
    );
    let shutdown = CancellationToken::new();
    let scheduler = Scheduler::new(parts, SchedulerOptions::default());
    let stop = shutdown.clone();
    let started_at = Instant::now();
    let run = tokio::spawn(async move { scheduler.run(stop).await });
    let mut hint = job_store.changed(Subject::Job(last.expect("there are jobs")));
    while left(&*job_store).await {
        // The last job is nearly the last to end; afterwards a few looks are enough.
        tokio::select! {
            _ = hint.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    let took = started_at.elapsed();
    shutdown.cancel();
    run.await.expect("the scheduler stops");
    took
}

fn throughput(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("scheduler");
    group.sample_size(10).throughput(Throughput::Elements(u64::try_from(JOBS).expect("it fits")));
    for slots in [1, 16, 256] {
        group.bench_with_input(BenchmarkId::new("slots", slots), &slots, |b, slots| {
            b.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(drain(*slots))).sum::<Duration>());
        });
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
