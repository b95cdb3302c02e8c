//! Which implementations the server is made of. The only file that names them.

use std::sync::Arc;

use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::pool::Pool;
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::builder::Builder;
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::clock::SystemClock;
use melange_remote_sdk::error::{ErrorKind, Result};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::{BuildConfig, Config, StorageConfig};
use crate::submission::SubmissionRules;

/// A server that is put together and does not run yet.
#[derive(Debug)]
pub struct Assembly {
    /// What requests reach.
    pub app: App,
    /// What runs the jobs.
    pub scheduler: Scheduler,
}

/// Puts a server together.
///
/// # Errors
/// When the storage or the builder cannot be opened, or the backends are not valid.
pub fn assemble(config: &Config) -> Result<Assembly> {
    let builder = builder(&config.build)?;
    let artifact_storage = storage(&config.storage)?;
    let pool = Pool::new(config.backends.iter().cloned())?;
    Ok(connect(&config.build, builder, artifact_storage, pool))
}

/// Connects the parts that differ between servers with those that do not.
pub fn connect(
    config: &BuildConfig,
    builder: Arc<dyn Builder>,
    artifact_storage: Arc<dyn ArtifactStorage>,
    pool: Pool,
) -> Assembly {
    let parts = SchedulerParts {
        job_store: Arc::new(MemoryJobStore::default()),
        artifact_storage,
        backend_selector: Arc::new(RoundRobin),
        builder,
        pool,
        clock: Arc::new(SystemClock),
    };
    let rules = SubmissionRules {
        default_arch: config.default_arch,
        repositories: config.repositories.clone(),
        allow_local_repositories: config.allow_local_repositories.clone(),
    };
    let app = App {
        job_store: Arc::clone(&parts.job_store),
        artifact_storage: Arc::clone(&parts.artifact_storage),
        backend_selector: Arc::clone(&parts.backend_selector),
        pool: parts.pool.clone(),
        clock: Arc::clone(&parts.clock),
        rules: Arc::new(rules),
        stopping: CancellationToken::new(),
    };
    Assembly { app, scheduler: Scheduler::new(parts, SchedulerOptions::default()) }
}

fn storage(config: &StorageConfig) -> Result<Arc<dyn ArtifactStorage>> {
    Ok(match config {
        StorageConfig::Local(directory) => Arc::new(ObjectArtifactStorage::local(directory)?),
        StorageConfig::Gcs { bucket, options } => Arc::new(ObjectArtifactStorage::gcs(bucket, options)?),
    })
}

/// SEAM: the builder of the server. Until the engine is wired in here, every job fails and says why.
///
/// # Errors
/// When the builder cannot be opened.
pub fn builder(_config: &BuildConfig) -> Result<Arc<dyn Builder>> {
    let message = "this server was assembled without a build engine".to_owned();
    Ok(Arc::new(ScriptedBuilder::new([Act::Fail(ErrorKind::Unsupported, message)])))
}
