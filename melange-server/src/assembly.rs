//! Which implementations the server is made of. The only file that names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::apk::signature::SigningKey;
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::Backend;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::builder::Builder;
use melange_remote_sdk::buildkit::{BuildkitOptions, TlsOptions};
use melange_remote_sdk::clock::SystemClock;
use melange_remote_sdk::engine::runners::AddressedRunners;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, RunnerProvider};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::HttpFetcher;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sandbox::{self, SandboxOptions};
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::{BuildConfig, Config, StorageConfig, TlsFiles};
use crate::submission::SubmissionRules;

/// Where the server keeps its state unless it is told another folder.
const STATE_DIR: &str = "/var/lib/melange/state";

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
    let builder = builder(&config.build, &config.backends)?;
    let artifact_storage = storage(&config.storage)?;
    let pool = BackendPool::new(config.backends.iter().cloned())?;
    Ok(connect(&config.build, builder, artifact_storage, pool))
}

/// Connects the parts that differ between servers with those that do not.
pub fn connect(
    config: &BuildConfig,
    builder: Arc<dyn Builder>,
    artifact_storage: Arc<dyn ArtifactStorage>,
    pool: BackendPool,
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

/// The real builder: the engine over BuildKit daemons and the embedded sandbox.
///
/// # Errors
/// When a key or a TLS file cannot be read, or the machine lacks what a configured sandbox needs.
pub fn builder(config: &BuildConfig, backends: &[Backend]) -> Result<Arc<dyn Builder>> {
    let state_dir = config.state_dir.clone().unwrap_or_else(|| PathBuf::from(STATE_DIR));
    let mut options = EngineOptions::new(&state_dir);
    options.source_cache.clone_from(&config.cache_dir);
    options.signing_key = config.signing_key.as_deref().map(signing_key).transpose()?.map(Arc::new);
    options.namespace.clone_from(&config.namespace);
    options.repository_defaults = config.repositories.clone();
    let defaults = &config.repositories;
    let own = defaults.repositories.iter().chain(&defaults.keyring).filter_map(|line| local_path(line));
    let allowed = own.chain(config.allow_local_repositories.iter().cloned()).collect();
    let fetcher = Arc::new(HttpFetcher::new()?);
    let assembler = Assembler::new(&state_dir, fetcher, LocalAccess::Below(allowed), true);
    let tls = config.buildkit_tls.as_ref().map(tls_options).transpose()?;
    let runners = AddressedRunners::new(
        SandboxOptions {
            host_ports: config.sandbox_host_ports.clone(),
            launcher: config.sandbox_launcher.clone(),
            ..SandboxOptions::new(&state_dir)
        },
        BuildkitOptions { tls, ..BuildkitOptions::default() },
    );
    // What a sandbox lacks is said now, not when the first job fails.
    for backend in backends.iter().filter(|backend| backend.addr() == sandbox::ADDRESS) {
        runners.runner(backend.addr())?;
    }
    Ok(Arc::new(EngineBuilder::new(options, assembler, Arc::new(runners))))
}

/// The path of a repository line or key that is no URL.
fn local_path(line: &str) -> Option<PathBuf> {
    let place =
        line.strip_prefix('@').and_then(|rest| rest.split_once(' ')).map_or(line, |(_, place)| place.trim());
    let path = place.strip_prefix("file://").unwrap_or(place);
    (!path.contains("://")).then(|| PathBuf::from(path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", path, e))
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    SigningKey::from_pem(name, &read(path)?)
}

fn tls_options(files: &TlsFiles) -> Result<TlsOptions> {
    let (Some(ca), Some((cert, key))) = (&files.ca, &files.identity) else {
        return Err(Error::invalid(
            "TLS for BuildKit needs a certificate authority, a certificate and a key",
        )
        .hint("give --buildkit-tls-ca, --buildkit-tls-cert and --buildkit-tls-key"));
    };
    Ok(TlsOptions { ca: read(ca)?, cert: read(cert)?, key: read(key)?, server_name: None })
}
