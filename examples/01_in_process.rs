//! A whole farm inside one program: submit a job, let the scheduler run it, read its log and its artifact.
//!
//! The builder here plays a script, so the example needs nothing installed; put
//! `engine::EngineBuilder` in its place and real packages come out (`08_real_buildkit`).
//!
//! `cargo run --example 01_in_process`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend::{AlwaysReachable, Backend};
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::job::{JobId, JobSpec, ServerId, UncheckedSpec};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{JobStore, NewJob, Subject, Submission};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::scheduler::artifacts::artifact_key;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job_store: Arc<dyn JobStore> = Arc::new(MemoryJobStore::default());
    let artifact_storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let script =
        [Act::line("compiling"), Act::Write("{arch}/greeting-1.0-r0.apk".to_owned(), b"bytes".to_vec())];
    let scheduler = Scheduler::new(
        SchedulerParts {
            job_store: Arc::clone(&job_store),
            artifact_storage: Arc::clone(&artifact_storage),
            backend_selector: Arc::new(RoundRobin),
            builder: Arc::new(ScriptedBuilder::new(script)),
            pool: BackendPool::new([Backend::new("sandbox://local", Arch::X86_64, Labels::default())?])?,
            probe: Arc::new(AlwaysReachable),
            clock: Arc::clone(&clock),
            server: ServerId::unique(),
        },
        SchedulerOptions::default(),
    );

    let parts = UncheckedSpec {
        config_yaml: "package:\n  name: greeting\n  version: \"1.0\"\n".to_owned(),
        arch: "x86_64".to_owned(),
        ..UncheckedSpec::default()
    };
    let spec = JobSpec::validate(parts).map_err(|mistakes| format!("{mistakes:?}"))?;
    let id = JobId::new(clock.now());
    job_store.submit(&Submission::new([NewJob::new(id, Arc::new(spec))], clock.now())).await?;

    // The hint is taken before the job is read, so that no change is missed.
    let mut changed = job_store.changed(Subject::Job(id));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (scheduler, shutdown) = (scheduler.clone(), shutdown.clone());
        async move { scheduler.run(shutdown).await }
    });
    let job = loop {
        changed.mark_unchanged();
        let job = job_store.get(id).await?;
        println!("the job is {}", job.state);
        if job.state.is_terminal() {
            break job;
        }
        changed.changed().await?;
    };

    let log = job_store.read_log(id, 0, 1 << 20).await?;
    print!("{}", String::from_utf8_lossy(&log.bytes));
    for artifact in &job.artifacts {
        let key = artifact_key(id, job.attempt, &artifact.name)?;
        let stored = artifact_storage.head(&key).await?;
        println!("{} has {} bytes, sha256 {}", artifact.name, stored.size_bytes, stored.sha256);
    }
    shutdown.cancel();
    running.await?;
    Ok(())
}
