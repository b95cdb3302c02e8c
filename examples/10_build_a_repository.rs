//! A farm inside one program: a git repository of definitions goes in, a signed repository of packages comes out. Needs
//! what `01_in_process` needs, and git. `cargo run --example 10_build_a_repository`
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::{path::Path, process::Command, sync::Arc};

use futures_util::TryStreamExt;
use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::artifact_storage::{ArtifactStorage, object::ObjectArtifactStorage};
use melange_remote_sdk::backend::{Backend, pool::BackendPool};
use melange_remote_sdk::builds::{
    BuildFiles, BuildIndexes, BuildInputs, BuildPlanner, BuildRequest, NewBuild,
};
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, SingleRunner};
use melange_remote_sdk::git::{GitFetcher, GitPolicy, GitSource};
use melange_remote_sdk::job_store::{JobStore, Subject, memory::MemoryJobStore};
use melange_remote_sdk::rootfs::{Assembler, fetch::NoNetwork, repository::LocalAccess};
use melange_remote_sdk::sandbox::{ADDRESS, SandboxOptions, SandboxRunner, run_if_asked};
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use melange_remote_sdk::{
    arch::Arch, builds::PlannerRules, cache::StateCache, job::BuildState, job::Project,
};
use melange_remote_sdk::{labels::Labels, limits, melange::defaults::RepositoryDefaults};
use tokio_util::sync::CancellationToken;

/// A definition with a file beside it, one that needs its package, and the commit of both.
const COMMIT: &str = r#"mkdir -p definitions/words && cd definitions && echo hello > words/list && define() { cat > $1.yaml <<END
package: {name: $1, version: "1.0", epoch: 0}
environment: {contents: {packages: [busybox$2]}}
pipeline: [{runs: 'd=\${{targets.destdir}}/usr/share; mkdir -p \$d; tr a-z $3 < $4 > \$d/$1'}]
END
}
define words "" a-z list && define loud ", words" A-Z /usr/share/words && git init -q && git add . &&
git -c user.name=Example -c user.email=example@example.com commit -q -m "Two definitions""#;

async fn farm(place: &Path, distro: &str, key: Arc<SigningKey>) -> Result<(), Box<dyn std::error::Error>> {
    let (state, arch) = (place.join("state"), Arch::host().ok_or("nothing is built on this architecture")?);
    let cache = StateCache::new(&state, limits::CACHE_BYTES_DEFAULT);
    let sandbox = Arc::new(SandboxRunner::new(&SandboxOptions::with_cache(Arc::clone(&cache)))?);
    let assembler = Arc::new(Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any));
    let (mut options, mut rules) = (EngineOptions::new(&state), PlannerRules::default());
    let trusted = vec![format!("{distro}/keys/test-distro.rsa.pub")];
    options.repository_defaults = RepositoryDefaults::new(vec![distro.to_owned()], trusted);
    rules.repository_defaults = options.repository_defaults.clone();
    options.signing_key = Some(Arc::clone(&key));
    let builder = EngineBuilder::new(options, Arc::clone(&assembler), Arc::new(SingleRunner(sandbox)));
    let job_store: Arc<dyn JobStore> = Arc::new(MemoryJobStore::default());
    let storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
    let files = BuildFiles::new(Arc::clone(&storage));
    let inputs = Arc::new(BuildInputs::new(files.clone(), Arc::clone(&job_store)));
    let planner = BuildPlanner::new(assembler, Arc::clone(&job_store), files.clone(), rules);
    let pool = BackendPool::new([Backend::new(ADDRESS, arch, Labels::default())?])?;
    let parts = SchedulerParts::new(Arc::clone(&job_store), Arc::clone(&storage), Arc::new(builder), pool);
    let scheduler = Scheduler::new(parts.with_inputs(inputs), SchedulerOptions::default());
    let (stop, new) = (CancellationToken::new(), NewBuild::new(jiff::Timestamp::now()));
    let shutdown = stop.clone();
    let running = tokio::spawn(async move { scheduler.run(shutdown).await });
    // From the commit to jobs that wait for each other, and to their end.
    let (mut request, mut policy) = (BuildRequest::default(), GitPolicy::default());
    (request.options.architectures, policy.files) = (vec![arch], LocalAccess::Any);
    let source = GitSource::new(format!("file://{}", place.join("definitions").display()));
    let checkout = GitFetcher::new(&state, policy).fetch(&source, &stop).await?;
    request.take_checkout(&source, &checkout);
    let planned = planner.plan(&Project::default(), &Arc::new(request.clone()), Arc::default()).await?;
    planner.files().store_checkout(&mut request, &checkout, &planned.plans, new.at).await?;
    let submitted = planner.submit(&request, planned, &new).await?;
    let build = submitted.and_then(|submitted| submitted.build).ok_or("there is nothing to build")?;
    let mut changed = job_store.changed(Subject::Events);
    while !job_store.build(build).await?.is_finished() {
        changed.changed().await?;
    }
    let ended = job_store.build(build).await?.state();
    println!("the build of {} is {ended}", checkout.commit);
    // From what they made to a folder as apk reads it.
    let indexes = BuildIndexes::new(files, job_store, Some(Arc::clone(&key)));
    let (index, folder) = (indexes.index(build, arch).await?, place.join("out").join(arch.apk_name()));
    let mut keyring = Keyring::default();
    std::fs::create_dir_all(&folder)?;
    keyring.add(&key.public_name(), key.public_pem()?.as_bytes())?;
    for package in Index::read(&index.bytes, Some(&keyring))?.packages {
        let name = package.file_name();
        let body = storage.get(&indexes.package(build, arch, &name).await?, None).await?;
        std::fs::write(folder.join(&name), body.bytes.try_collect::<Vec<_>>().await?.concat())?;
        println!("{name}, {} bytes", package.size_bytes);
    }
    std::fs::write(folder.join("APKINDEX.tar.gz"), &index.bytes)?;
    stop.cancel();
    running.await?;
    if ended == BuildState::Success { Ok(()) } else { Err("not all packages were built".into()) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run_if_asked(); // The sandbox starts this program anew for each guest: before threads, before arguments.
    let distro = std::env::var("MELANGE_TEST_DISTRO").map_err(|_| "MELANGE_TEST_DISTRO is not set")?;
    let place = tempfile::tempdir()?;
    Command::new("sh").current_dir(place.path()).args(["-euc", COMMIT]).status()?;
    let key = Arc::new(SigningKey::from_pem("example.rsa", generate_key(2048)?.as_bytes())?);
    tokio::runtime::Runtime::new()?.block_on(farm(place.path(), &distro, key))
}
