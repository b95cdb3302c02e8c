//! A whole farm inside one program: submit a definition, let the scheduler build it in the embedded sandbox, read its
//! log and check the package.
//!
//! Needs bubblewrap, slirp4netns and, for a user who is not root, the package uidmap; and `MELANGE_TEST_DISTRO` (a
//! repository made by `cargo run -p test-distro -- make --out DIR`). `make test` provides all of them. With
//! `RepositoryDefaults::default()` and an `HttpFetcher` packages come from Wolfi's repository instead.
//!
//! `cargo run --example 01_in_process`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::layout::artifact_key;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builder::Builder;
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::clock::{Clock, SystemClock};
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, SingleRunner, preflight};
use melange_remote_sdk::job::{JobId, JobSpec, JobState, UncheckedSpec};
use melange_remote_sdk::job_log::LogQuery;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::{JobStore, NewJob, Subject, Submission};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits::CACHE_BYTES_DEFAULT;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::NoNetwork;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sandbox::{ADDRESS, SandboxOptions, SandboxRunner, run_if_asked};
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEFINITION: &str = r#"
package:
  name: greeting
  version: "1.0"
  epoch: 0
environment:
  contents:
    packages: [busybox]
pipeline:
  - runs: |
      mkdir -p ${{targets.destdir}}/usr/share
      echo "built for ${{build.arch}}" | tee ${{targets.destdir}}/usr/share/greeting
"#;

/// The real builder, in the sandbox, with a repository on this disk.
fn engine(state: &Path, distro: &Path, key: SigningKey) -> Result<Arc<dyn Builder>> {
    preflight::check_sandbox_user()?;
    let cache = StateCache::new(state, CACHE_BYTES_DEFAULT);
    let runner = SandboxRunner::new(&SandboxOptions::with_cache(Arc::clone(&cache)))?;
    let assembler = Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any);
    let mut options = EngineOptions::new(state);
    options.signing_key = Some(Arc::new(key));
    let trusted = distro.join("keys/test-distro.rsa.pub").display().to_string();
    options.repository_defaults = RepositoryDefaults::new(vec![distro.display().to_string()], vec![trusted]);
    Ok(Arc::new(EngineBuilder::new(options, assembler, Arc::new(SingleRunner(Arc::new(runner))))))
}

/// Waits for the job's end.
async fn ended(job_store: &dyn JobStore, id: JobId) -> Result<JobState> {
    let mut changed = job_store.changed(Subject::Job(id));
    let mut shown = None;
    loop {
        // The hint is marked before the job is read, so that no change is missed.
        changed.mark_unchanged();
        let state = job_store.get(id).await?.state;
        if shown.replace(state) != Some(state) {
            println!("the job is {state}");
        }
        if state.is_terminal() {
            return Ok(state);
        }
        changed.changed().await?;
    }
}

async fn farm() -> Result<()> {
    let distro = std::env::var_os("MELANGE_TEST_DISTRO").map(PathBuf::from);
    let distro = distro.ok_or("MELANGE_TEST_DISTRO is not set: it names the repository to build with")?;
    let state = tempfile::tempdir()?;
    let key = SigningKey::from_pem("example.rsa", generate_key(2048)?.as_bytes())?;
    let mut keyring = Keyring::default();
    keyring.add(&key.public_name(), key.public_pem()?.as_bytes())?;

    let arch = Arch::host().ok_or("packages cannot be built on this architecture")?;
    let job_store: Arc<dyn JobStore> = Arc::new(MemoryJobStore::default());
    let artifact_storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
    let pool = BackendPool::new([Backend::new(ADDRESS, arch, Labels::default())?])?;
    let builder = engine(state.path(), &distro, key)?;
    let parts = SchedulerParts::new(Arc::clone(&job_store), Arc::clone(&artifact_storage), builder, pool);
    let scheduler = Scheduler::new(parts, SchedulerOptions::default());
    let logs = scheduler.logs().clone();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { scheduler.run(shutdown).await }
    });

    let spec = JobSpec::validate(UncheckedSpec::new(DEFINITION, arch.apk_name()));
    let spec = spec.map_err(|mistakes| format!("{mistakes:?}"))?;
    let now = SystemClock.now();
    let id = JobId::new(now);
    job_store.submit(&Submission::new([NewJob::new(id, Arc::new(spec))], now)).await?;
    let state_of_job = ended(&*job_store, id).await?;
    let mut log = logs.read(id, LogQuery::default()).await?;
    while let Some(part) = log.next().await? {
        print!("{}", String::from_utf8_lossy(&part.text()));
    }
    let job = job_store.get(id).await?;
    if state_of_job != JobState::Success {
        return Err(format!("the job has failed: {:?}", job.error).into());
    }

    for artifact in job.artifacts.iter().filter(|artifact| artifact.name.ends_with(".apk")) {
        let body = artifact_storage.get(&artifact_key(id, job.attempt, &artifact.name)?, None).await?;
        let path = state.path().join("greeting.apk");
        std::fs::write(&path, body.bytes.try_collect::<Vec<_>>().await?.concat())?;
        let apk = ApkFile::open(&path)?;
        println!("{} is signed by {}", artifact.name, apk.verify_signature(&keyring)?);
        for entry in apk.entries()? {
            println!("  {}", entry.path);
        }
    }
    shutdown.cancel();
    running.await?;
    Ok(())
}

fn main() -> Result<()> {
    // The sandbox starts this program anew for each guest: before threads, before arguments.
    run_if_asked();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(farm())
}
