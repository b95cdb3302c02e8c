//! Which implementations the server is made of. The only file that names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::apk::signature::SigningKey;
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::backend::registry::BackendRegistry;
use melange_remote_sdk::backend::{Backend, BackendAddress, BackendProbe};
use melange_remote_sdk::backend_selector::BackendSelector;
use melange_remote_sdk::backend_selector::best_fit::BestFit;
use melange_remote_sdk::backend_selector::least_loaded::LeastLoaded;
use melange_remote_sdk::backend_selector::round_robin::RoundRobin;
use melange_remote_sdk::buildkit::{BuildkitOptions, TlsIdentity, TlsOptions};
use melange_remote_sdk::builds::{BuildFiles, BuildIndexes, BuildInputs, BuildPlanner, PlannerRules};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::clock::SystemClock;
use melange_remote_sdk::engine::runners::AddressedRunners;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, RunnerProvider, preflight};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::fetched::{DownloadOptions, StoredSourceCache};
use melange_remote_sdk::git::{GitFetcher, GitPolicy};
use melange_remote_sdk::job_store::JobStore;
use melange_remote_sdk::job_store::database::DatabaseBounds;
use melange_remote_sdk::job_store::memory::MemoryJobStore;
use melange_remote_sdk::job_store::postgres::PostgresJobStore;
use melange_remote_sdk::job_store::sqlite::SqliteJobStore;
use melange_remote_sdk::publishing::{PublishedRepository, Publisher};
use melange_remote_sdk::retention::{Collector, CollectorOptions};
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::{FetchOptions, HttpFetcher};
use melange_remote_sdk::rootfs::line::RepositoryLine;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sandbox::SandboxOptions;
use melange_remote_sdk::scheduler::{Scheduler, SchedulerOptions, SchedulerParts};
use melange_remote_sdk::sources::SourceFolders;

use crate::app::App;
use crate::args::BackendSelection;
use crate::config::{BuildConfig, Config, DatabaseConfig, StorageConfig, TlsFiles};
use crate::submission::{SubmissionRules, Unmatched};

/// A server that is put together and does not run yet.
#[derive(Debug)]
pub struct Assembly {
    /// What requests reach.
    pub app: App,
    /// What runs the jobs.
    pub scheduler: Scheduler,
    /// What publishes their packages; `None` where nothing is published.
    pub publisher: Option<Publisher>,
}

/// Puts a server together. A storage that does not answer is told in the log: it may answer once it is needed.
///
/// # Errors
/// When the storage or the builder cannot be opened, the storage refuses to be used, or the backends are not valid.
pub async fn assemble(config: &Config) -> Result<Assembly> {
    let Engine { mut builder, probe, assembler, planner, signing_key, cache } =
        engine(&config.build, &config.backends)?;
    let artifact_storage = storage(&config.storage).await?;
    if config.build.source_cache {
        let sources = sources(&config.build, cache, Arc::clone(&artifact_storage))?;
        builder = builder.with_source_cache(Arc::new(sources));
    }
    let builder = Arc::new(builder);
    let files = BuildFiles::new(Arc::clone(&artifact_storage));
    let pool = BackendPool::new(config.backends.iter().cloned())?;
    let Database { job_store, registry } = database(&config.database).await?;
    let inputs = BuildInputs::new(files.clone(), Arc::clone(&job_store));
    let published = PublishedRepository::new(files.clone(), signing_key.clone(), &config.build.namespace);
    let indexes = BuildIndexes::new(files.clone(), Arc::clone(&job_store), signing_key);
    let planner = BuildPlanner::new(assembler, Arc::clone(&job_store), files, planner);
    let parts = SchedulerParts::new(job_store, artifact_storage, builder, pool)
        .with_registry(registry)
        .with_inputs(Arc::new(inputs))
        .on_machine(machine(config)?)
        .with_probe(probe)
        .with_sources(SourceFolders::below(&config.build.state_dir))
        .with_backend_selector(selector(config.scheduling.backend_selection));
    let mut rules = rules(&config.build);
    rules.submit_rate = config.scheduling.submit_rate;
    if matches!(config.database, DatabaseConfig::Postgres(_)) {
        rules.unmatched = Unmatched::Taken;
    }
    let mut assembly = Assembly::new(parts, rules, scheduler_options(config));
    if config.build.publish {
        assembly = assembly.publishing_to(published);
    }
    assembly.app.planner = Some(planner);
    assembly.app.indexes = Some(indexes);
    assembly.app.git = Some(git(&config.build));
    // The first request already sees what was removed or drained before the start.
    if let Err(error) = assembly.app.fleet.follow().await {
        tracing::warn!(error = error.chain(), "the fleet is not known yet; it is asked for again");
    }
    Ok(assembly)
}

fn selector(selection: BackendSelection) -> Arc<dyn BackendSelector> {
    let otherwise: Arc<dyn BackendSelector> = match selection {
        BackendSelection::RoundRobin => Arc::new(RoundRobin),
        BackendSelection::LeastLoaded => Arc::new(LeastLoaded),
    };
    Arc::new(BestFit::new(otherwise))
}

/// One database, as the two contracts that it keeps.
struct Database {
    job_store: Arc<dyn JobStore>,
    registry: Arc<dyn BackendRegistry>,
}

impl Database {
    fn of<T: JobStore + BackendRegistry + Clone + 'static>(store: T) -> Self {
        Self { job_store: Arc::new(store.clone()), registry: Arc::new(store) }
    }
}

/// What this machine is called among those whose servers share a database; nothing where none does.
fn machine(config: &Config) -> Result<Option<String>> {
    if !matches!(config.database, DatabaseConfig::Postgres(_)) {
        return Ok(None);
    }
    if let Some(name) = &config.scheduling.machine_name {
        return Ok(Some(name.clone()));
    }
    let name = String::from_utf8_lossy(&read(Path::new(HOST_NAME))?).trim().to_owned();
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// Where the system tells what the machine is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

async fn database(config: &DatabaseConfig) -> Result<Database> {
    Ok(match config {
        DatabaseConfig::Memory => Database::of(MemoryJobStore::default()),
        DatabaseConfig::Sqlite(path) => {
            if let Some(folder) = path.parent() {
                tokio::fs::create_dir_all(folder)
                    .await
                    .map_err(|source| Error::io("create", folder, source))?;
            }
            let store = SqliteJobStore::open(path, DatabaseBounds::default()).await?;
            // Nobody else has this database: what runs in it ran in a server that is gone.
            store.end_leases().await?;
            Database::of(store)
        }
        DatabaseConfig::Postgres(url) => {
            Database::of(PostgresJobStore::open(url, DatabaseBounds::default()).await?)
        }
    })
}

/// What removes the ended jobs of a server that the rules do not keep.
pub fn collector(config: &Config, app: &App) -> Collector {
    let (job_store, storage) = (Arc::clone(&app.job_store), Arc::clone(&app.artifact_storage));
    Collector::new(job_store, storage, Arc::clone(&app.clock), collector_options(config))
}

fn collector_options(config: &Config) -> CollectorOptions {
    let mut options = CollectorOptions::new(config.retention.rules);
    // What a store in memory has forgotten is no orphan.
    if config.database != DatabaseConfig::Memory {
        options.orphans = config.retention.orphans;
    }
    options
}

/// What removes the ended jobs once, without a server.
///
/// # Errors
/// As [`assemble`]; `Unavailable` when a running server has the database; `InvalidRequest` for jobs in memory.
pub async fn lone_collector(config: &Config) -> Result<Collector> {
    let job_store: Arc<dyn JobStore> = match &config.database {
        DatabaseConfig::Memory => {
            let error = Error::invalid("jobs in memory are those of a running server");
            return Err(error.hint("its own passes remove them, as its --keep flags say"));
        }
        // Nothing is made where nothing is.
        DatabaseConfig::Sqlite(path) if !path.exists() => {
            let error = Error::new(ErrorKind::NotFound, format!("there is no database {}", path.display()));
            return Err(error.hint("give --database or --state-dir as the server has it"));
        }
        DatabaseConfig::Sqlite(path) => {
            let opened = SqliteJobStore::open(path, DatabaseBounds::default()).await;
            let hint = "when a server runs on it, the passes of that one remove what is not kept";
            Arc::new(opened.map_err(|error| error.hint(hint))?)
        }
        DatabaseConfig::Postgres(_) => database(&config.database).await?.job_store,
    };
    let storage = storage(&config.storage).await?;
    let options = collector_options(config);
    Ok(Collector::new(job_store, storage, Arc::new(SystemClock), options))
}

impl Assembly {
    /// A server of any parts: what requests reach and what runs the jobs share them. It publishes nothing.
    pub fn new(parts: SchedulerParts, rules: SubmissionRules, options: SchedulerOptions) -> Self {
        let scheduler = Scheduler::new(parts, options);
        Self { app: App::new(&scheduler, rules), scheduler, publisher: None }
    }

    /// The same, which publishes to a repository what its jobs make.
    #[must_use]
    pub fn publishing_to(mut self, repository: PublishedRepository) -> Self {
        self.publisher = Some(Publisher::new(repository.clone(), Arc::clone(&self.app.job_store)));
        self.app.published = Some(repository);
        self
    }
}

fn rules(config: &BuildConfig) -> SubmissionRules {
    let mut rules = SubmissionRules::new(config.default_arch);
    rules.repositories = config.repositories.clone();
    rules.allow_local_repositories.clone_from(&config.allow_local_repositories);
    rules.public_hosts.clone_from(&config.public_hosts);
    let key = config.signing_key.as_ref().and_then(|path| path.file_name());
    rules.signing_key = key.map(|name| name.to_string_lossy().into_owned());
    rules
}

fn scheduler_options(config: &Config) -> SchedulerOptions {
    let mut options = SchedulerOptions::default();
    (options.log_bytes, options.lease) = (config.build.job_log_bytes, config.build.job_lease);
    options.project_weights = config.scheduling.project_weights.clone();
    options
}

async fn storage(config: &StorageConfig) -> Result<Arc<dyn ArtifactStorage>> {
    let storage = match config {
        StorageConfig::Local(directory) => ObjectArtifactStorage::local(directory)?,
        StorageConfig::Url { url, options } => ObjectArtifactStorage::open(url, options)?,
    };
    match storage.check().await {
        Ok(()) => {}
        Err(error) if error.kind().is_retryable() => tracing::warn!(
            error = error.chain(),
            hint = error.hint_text(),
            "the storage does not answer yet; jobs that want to store packages wait for it"
        ),
        Err(error) => return Err(error),
    }
    Ok(Arc::new(storage))
}

/// What builds, and what asks its backends whether they are there.
#[derive(Debug)]
pub struct Engine {
    /// The builder.
    pub builder: EngineBuilder,
    /// The probe.
    pub probe: Arc<dyn BackendProbe>,
    /// What assembles environments, and reads the indexes of repositories.
    pub assembler: Arc<Assembler>,
    /// What a planner of builds has to know of the builder.
    pub planner: PlannerRules,
    /// What signs packages and indexes.
    pub signing_key: Option<Arc<SigningKey>>,
    /// The caches of the state folder.
    pub cache: Arc<StateCache>,
}

/// What reads git repositories: https and ssh to public addresses and those that the operator allowed, and folders whose
/// repositories may be named.
fn git(config: &BuildConfig) -> GitFetcher {
    let mut policy = GitPolicy::default();
    policy.addresses = config.addresses.clone();
    policy.files = LocalAccess::Below(config.allow_local_repositories.clone());
    policy.authorities.clone_from(&config.git_ca);
    policy.credentials.clone_from(&config.git_credentials);
    policy.known_hosts.clone_from(&config.git_known_hosts);
    GitFetcher::new(&config.state_dir, policy)
}

/// The real builder: the engine over BuildKit daemons and the embedded sandbox.
///
/// # Errors
/// When a key or a TLS file cannot be read, or the machine lacks what a configured sandbox needs.
pub fn engine(config: &BuildConfig, backends: &[Backend]) -> Result<Engine> {
    let mut options = EngineOptions::new(&config.state_dir);
    options.source_cache.clone_from(&config.cache_dir);
    options.signing_key = config.signing_key.as_deref().map(signing_key).transpose()?.map(Arc::new);
    options.namespace.clone_from(&config.namespace);
    options.linters = config.linters.clone();
    options.timeout = config.job_timeout;
    options.silence = config.job_silence;
    options.repository_defaults = config.repositories.clone();
    let defaults = &config.repositories;
    let own = defaults.repositories.iter().chain(&defaults.keyring).filter_map(|line| local_path(line));
    let allowed = own.chain(config.allow_local_repositories.iter().cloned()).collect();
    let fetcher = Arc::new(HttpFetcher::new(fetch_options(config)?)?);
    let cache = StateCache::new(&config.state_dir, config.cache_bytes);
    let assembler = Assembler::new(Arc::clone(&cache), fetcher, LocalAccess::Below(allowed));
    let tls = config.buildkit_tls.as_ref().map(tls_options).transpose()?;
    let mut sandbox = SandboxOptions::with_cache(Arc::clone(&cache));
    sandbox.host_ports.clone_from(&config.sandbox_host_ports);
    sandbox.allowed_capabilities.clone_from(&config.sandbox_capabilities);
    sandbox.launcher.clone_from(&config.sandbox_launcher);
    sandbox.ready_launcher = true;
    let mut buildkit = BuildkitOptions::default();
    buildkit.tls = tls;
    let runners = AddressedRunners::new(sandbox, buildkit);
    // What a sandbox lacks is said now, not when the first job fails.
    for backend in backends.iter().filter(|backend| *backend.address() == BackendAddress::Sandbox) {
        preflight::check_sandbox_user()?;
        runners.runner(backend.addr())?;
    }
    let runners = Arc::new(runners);
    let mut planner = PlannerRules::default();
    planner.repository_defaults = options.repository_defaults.clone();
    planner.extra_packages.clone_from(&options.extra_packages);
    planner.extra_repositories.clone_from(&options.extra_repositories);
    planner.extra_keyring.clone_from(&options.extra_keyring);
    let assembler = Arc::new(assembler);
    let signing_key = options.signing_key.clone();
    let builder = EngineBuilder::new(options, Arc::clone(&assembler), Arc::clone(&runners) as _);
    Ok(Engine { builder, probe: runners, assembler, planner, signing_key, cache })
}

/// The cache of sources that definitions name by a checksum. It asks where repositories may lie too.
fn sources(
    config: &BuildConfig,
    cache: Arc<StateCache>,
    artifact_storage: Arc<dyn ArtifactStorage>,
) -> Result<StoredSourceCache> {
    let mut options = DownloadOptions::default();
    options.addresses = fetch_options(config)?.addresses;
    StoredSourceCache::new(cache, artifact_storage, Arc::new(SystemClock), options)
}

/// Where downloads may go: the public internet, what the operator allowed, and the hosts that the operator named.
fn fetch_options(config: &BuildConfig) -> Result<FetchOptions> {
    let mut options = FetchOptions::default();
    options.credentials = config.credentials.clone();
    options.addresses = config.addresses.clone();
    let defaults = &config.repositories;
    for line in defaults.repositories.iter().chain(&defaults.keyring) {
        if let Some(host) = RepositoryLine::parse(line)?.host() {
            options.addresses.allow(host)?;
        }
    }
    Ok(options)
}

/// The path of a repository line or key that is no URL.
fn local_path(line: &str) -> Option<PathBuf> {
    RepositoryLine::parse(line).ok()?.path().map(PathBuf::from)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", path, e))
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    SigningKey::from_pem(name, &read(path)?)
}

fn tls_options(files: &TlsFiles) -> Result<TlsOptions> {
    let identity = match &files.identity {
        Some((cert, key)) => Some(TlsIdentity { cert: read(cert)?, key: read(key)? }),
        None => None,
    };
    let mut options = TlsOptions::new(read(&files.ca)?);
    options.identity = identity;
    options.check()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[tokio::test]
    async fn what_was_said_of_scheduling_reaches_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (state, output) = (at("state"), at("output"));
        let read = |more: &[&str]| {
            let fixed = ["melange-server", "--database", "memory:", "--buildkit-addr", "tcp://127.0.0.1:1"];
            let folders = ["--state-dir", &state, "--output-dir", &output];
            let args = fixed.into_iter().chain(folders).chain(more.iter().copied());
            Config::read(args.map(OsString::from), &|_| None).unwrap()
        };
        let plain = assemble(&read(&[])).await.unwrap();
        assert_eq!(format!("{:?}", plain.app.backend_selector), "BestFit { otherwise: RoundRobin }");
        let flags =
            ["--backend-selection", "least-loaded", "--submit-rate", "1", "--project-weight", "release=77"];
        let assembly = assemble(&read(&flags)).await.unwrap();
        assert_eq!(format!("{:?}", assembly.app.backend_selector), "BestFit { otherwise: LeastLoaded }");
        let scheduler = format!("{:?}", assembly.scheduler);
        assert!(scheduler.contains("LeastLoaded") && scheduler.contains("77"), "{scheduler}");
        let taken = (0..100).take_while(|_| assembly.app.submit_rate.take().is_ok()).count();
        assert_eq!(taken, 10, "ten seconds of one each second");
    }
}
