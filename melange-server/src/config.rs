//! Flags and environment variables become typed settings, once; all mistakes are told at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use melange_remote_sdk::analysis::lint::LinterSets;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::{Backend, check_max_jobs, file};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::engine::preflight;
use melange_remote_sdk::error::Error;
use melange_remote_sdk::git::GitCredential;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::defaults::{NAMESPACE, RepositoryDefaults};
use melange_remote_sdk::retention::Mode;
use melange_remote_sdk::rootfs::addresses::AddressPolicy;
use melange_remote_sdk::rootfs::credentials::Credentials;
use melange_remote_sdk::text::diagnostics::Source;

use crate::args::{Args, Choice, GcArgs, LogFormat, Output};

mod linters;
mod logins;
mod retention;
mod scheduling;

pub use retention::RetentionConfig;
pub use scheduling::SchedulingConfig;

/// The backend of a server without BuildKit.
const SANDBOX_ADDR: &str = "sandbox://local";
/// Where artifacts go by default.
pub const OUTPUT_DIR: &str = "/var/lib/melange/output";

/// Where the server keeps its state unless it is told another folder.
pub const STATE_DIR: &str = "/var/lib/melange/state";

/// Variables of object stores that are read when their store is used; a later one outdoes an earlier one that stands for
/// the same option. Each is an option of the store in capitals, but for those of [`STORAGE_TOOL_VARIABLES`].
const STORAGE_VARIABLES: [(&str, &[&str]); 3] = [
    ("gs://", &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"]),
    (
        "s3://",
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_DEFAULT_REGION",
            "AWS_REGION",
            "AWS_ENDPOINT",
            "AWS_ENDPOINT_URL",
            "AWS_ALLOW_HTTP",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ],
    ),
    (
        "az://",
        &[
            "AZURE_STORAGE_ACCOUNT",
            "AZURE_STORAGE_KEY",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
            "AZURE_AUTHORITY_HOST",
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_ENDPOINT",
            "AZURE_STORAGE_CLIENT_ID",
            "AZURE_STORAGE_CLIENT_SECRET",
            "AZURE_STORAGE_TENANT_ID",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_ALLOW_HTTP",
        ],
    ),
];

/// Variables of the stores' own tools whose options have other names.
const STORAGE_TOOL_VARIABLES: [(&str, &str); 2] = [
    ("AZURE_STORAGE_ACCOUNT", "azure_storage_account_name"),
    ("AZURE_STORAGE_KEY", "azure_storage_account_key"),
];

/// Everything that a server is told when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on; the first that works is taken.
    pub listen: Vec<String>,
    /// Where to write the port.
    pub port_file: Option<PathBuf>,
    /// The backends at the start; never empty.
    pub backends: Vec<Backend>,
    /// Where artifacts go.
    pub storage: StorageConfig,
    /// Where jobs live.
    pub database: DatabaseConfig,
    /// How packages are built.
    pub build: BuildConfig,
    /// How many jobs are taken, and who gets which free slot.
    pub scheduling: SchedulingConfig,
    /// What is kept of ended jobs.
    pub retention: RetentionConfig,
    /// The form of the log.
    pub log_format: LogFormat,
    /// The file that [`Self::backends`] were read from; SIGHUP reads it again.
    pub backends_file: Option<PathBuf>,
}

/// Where jobs live.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseConfig {
    /// In memory: they are forgotten at the end of the server.
    Memory,
    /// In a SQLite database.
    Sqlite(PathBuf),
    /// In a PostgreSQL database with this address, which may hold a password.
    Postgres(String),
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("Memory"),
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// Where artifacts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageConfig {
    /// A local directory.
    Local(PathBuf),
    /// An object store.
    Url {
        /// Its address, such as `s3://bucket/prefix`.
        url: String,
        /// Endpoint and credentials, as keys of the object store.
        options: Vec<(String, String)>,
    },
}

/// How packages are built.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The architecture of jobs that name none.
    pub default_arch: Arch,
    /// The key that signs packages and indexes.
    pub signing_key: Option<PathBuf>,
    /// What definitions get that name no repository.
    pub repositories: RepositoryDefaults,
    /// Folders whose repositories definitions may name by path.
    pub allow_local_repositories: Vec<PathBuf>,
    /// Certificates of authorities that git servers are trusted by instead of the system's.
    pub git_ca: Option<PathBuf>,
    /// Who the server is at git servers, by the names that builds may use.
    pub git_credentials: BTreeMap<String, GitCredential>,
    /// Keys of ssh servers that git repositories are read from.
    pub git_known_hosts: Option<PathBuf>,
    /// Where downloads for submitted definitions may go.
    pub addresses: AddressPolicy,
    /// Logins of repositories, by host.
    pub credentials: Credentials,
    /// The operator's folder of sources.
    pub cache_dir: Option<PathBuf>,
    /// Whether the server fetches and keeps what definitions fetch by a checksum.
    pub source_cache: bool,
    /// Whether what jobs have made is published.
    pub publish: bool,
    /// The folder of the server's own state.
    pub state_dir: PathBuf,
    /// What the state folder may keep for later, in bytes.
    pub cache_bytes: u64,
    /// The namespace of package URLs.
    pub namespace: String,
    /// The linters of packages.
    pub linters: LinterSets,
    /// Names by which browsers reach the server.
    pub public_hosts: Vec<String>,
    /// The bytes of a job's log.
    pub job_log_bytes: u64,
    /// The time that a build may take whose definition says nothing.
    pub job_timeout: Option<Duration>,
    /// The time that a step may be silent.
    pub job_silence: Option<Duration>,
    /// How long a running job is a server's without a word from it.
    pub job_lease: Duration,
    /// Ports of this machine's loopback that steps in the sandbox find on their own.
    pub sandbox_host_ports: Vec<u16>,
    /// Capabilities that definitions may ask for in the sandbox besides those of containers.
    pub sandbox_capabilities: Vec<String>,
    /// The program that starts the sandbox's guests, for programs that embed the server; `None` for this one.
    pub sandbox_launcher: Option<PathBuf>,
    /// TLS for tcp:// daemons.
    pub buildkit_tls: Option<TlsFiles>,
}

/// PEM files for tcp:// daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authority.
    pub ca: PathBuf,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What the program is to do.
#[derive(Debug, Clone)]
pub enum Task {
    /// To serve.
    Serve(Config),
    /// To remove once what is not kept.
    Collect(Config, GcOptions),
}

/// How that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// Whether it is done, or only told.
    pub mode: Mode,
    /// In which form it is told.
    pub output: Output,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// The caller asked for a text instead of a server.
    Answered(String),
    /// Flags that cannot be read, or a request for help; the caller prints it.
    Usage(clap::Error),
    /// Everything that is wrong with their values.
    Mistakes(Vec<String>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(text) => f.write_str(text),
            Self::Usage(error) => error.fmt(f),
            Self::Mistakes(mistakes) => {
                write!(f, "the configuration is not valid")?;
                mistakes.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Looks up environment variables.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads flags and, for those that are missing, environment variables.
    ///
    /// # Errors
    /// [`Refused`] with every mistake, or with the text that was asked for instead.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
    ) -> Result<Self, Refused> {
        Self::read_as(args, environment, preflight::is_root())
    }

    /// Reads what the program is to do: `gc` behind its name, or nothing, and then as [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_task(
        args: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
    ) -> Result<Task, Refused> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        if args.get(1).is_none_or(|word| word != "gc") {
            return Self::read(args, environment).map(Task::Serve);
        }
        args.remove(1);
        let GcArgs { dry_run, output, server } = GcArgs::try_parse_from(args).map_err(Refused::Usage)?;
        let mode = if dry_run { Mode::DryRun } else { Mode::Remove };
        let config = Self::of(server, environment, preflight::is_root())?;
        Ok(Task::Collect(config, GcOptions { mode, output: output.unwrap_or_default() }))
    }

    /// As [`Self::read`], for root or for another user, whose default folders are its own.
    fn read_as(
        args: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
        is_root: bool,
    ) -> Result<Self, Refused> {
        Self::of(Args::try_parse_from(args).map_err(Refused::Usage)?, environment, is_root)
    }

    fn of(args: Args, environment: Environment<'_>, is_root: bool) -> Result<Self, Refused> {
        if let Some(format) = args.print_api {
            return Err(Refused::Answered(crate::api_reference(format)));
        }
        let mut reader = Reader { environment, is_root, mistakes: Vec::new() };
        let config = reader.config(args);
        match config {
            Some(config) if reader.mistakes.is_empty() => Ok(config),
            _ => Err(Refused::Mistakes(reader.mistakes)),
        }
    }
}

struct Reader<'a> {
    environment: Environment<'a>,
    is_root: bool,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }

    fn error(&mut self, flag: &str, error: &Error) {
        let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
        self.wrong(format!("{flag}: {error}{hint}"));
    }

    /// A flag's value, or its variable's; an empty variable counts as missing.
    fn value(&self, flag: &str, given: Option<String>) -> Option<String> {
        let name = format!("MELANGE_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase());
        given.or_else(|| (self.environment)(&name).filter(|value| !value.is_empty()))
    }

    /// A folder of a user who is not root and may not write to the system's: `name` in the folder that `variable`
    /// names, or in the place below the home folder that stands for it.
    fn user_folder(&self, variable: &str, below_home: &str, name: &str) -> Option<PathBuf> {
        let folder = |name: &str| {
            // Relative paths count as unset, as the base directory specification has it.
            (self.environment)(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let base = folder(variable).or_else(|| folder("HOME").map(|home| home.join(below_home)));
        base.filter(|_| !self.is_root).map(|base| base.join(name))
    }

    fn path(&self, flag: &str, given: Option<String>) -> Option<PathBuf> {
        self.value(flag, given).map(PathBuf::from)
    }

    fn file(&mut self, flag: &str, given: Option<String>) -> Option<PathBuf> {
        let path = self.path(flag, given)?;
        if !path.is_file() {
            self.wrong(format!("{flag}: there is no file {}", path.display()));
        }
        Some(path)
    }

    fn config(&mut self, args: Args) -> Option<Config> {
        let listen = self.listen(args.listen_addr.clone());
        let port_file = self.path("--port-file", args.port_file.clone());
        let log_format = self.choice("--log-format", args.log_format);
        let scheduling = self.scheduling(&args);
        let retention = self.retention(&args);
        let storage = self.storage(&args);
        let database = self.database(&args);
        let backends_file = self.path("--backends-config", args.backends_config.clone());
        let given_arch = self.value("--default-arch", args.default_arch.clone());
        let given_arch = given_arch
            .and_then(|text| text.parse::<Arch>().map_err(|error| self.error("--default-arch", &error)).ok());
        let (backends, default_arch) = self.backends(&args, backends_file.as_deref(), given_arch);
        let build = self.build(args, default_arch);
        let backends = backends?;
        Some(Config {
            listen,
            port_file,
            backends,
            storage,
            database,
            build,
            scheduling,
            retention,
            log_format,
            backends_file,
        })
    }

    fn database(&mut self, args: &Args) -> DatabaseConfig {
        match self.value("--database", args.database.clone()).as_deref() {
            None => DatabaseConfig::Sqlite(self.database_file(args.state_dir.clone())),
            Some("memory:") => DatabaseConfig::Memory,
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                DatabaseConfig::Postgres(url.to_owned())
            }
            Some(text) => match text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
                Some(path) => DatabaseConfig::Sqlite(PathBuf::from(path)),
                None => {
                    // It is not shown: it may be an address with a password and a slip.
                    self.wrong("--database: this is neither sqlite:PATH, postgres://HOST/NAME nor memory:");
                    DatabaseConfig::Memory
                }
            },
        }
    }

    /// The database of a server that is told none: in the state folder, but not where users keep what may be deleted at
    /// any time.
    fn database_file(&mut self, state_dir: Option<String>) -> PathBuf {
        let folder = self
            .path("--state-dir", state_dir)
            .or_else(|| self.user_folder("XDG_STATE_HOME", ".local/state", "melange-remote"));
        folder.unwrap_or_else(|| PathBuf::from(STATE_DIR)).join("melange.db")
    }

    fn listen(&mut self, given: Option<String>) -> Vec<String> {
        let addr = self.value("--listen-addr", given).unwrap_or_else(|| ":8080".to_owned());
        let port = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match port {
            // All interfaces: both families where there are two, else the older one.
            Some(("", port)) => vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")],
            Some(_) => vec![addr],
            None => {
                self.wrong(format!("--listen-addr: {addr:?} does not end in a port, such as :8080"));
                Vec::new()
            }
        }
    }

    fn storage(&mut self, args: &Args) -> StorageConfig {
        let output_dir = self.path("--output-dir", args.output_dir.clone());
        let bucket =
            self.value("--gcs-bucket", args.gcs_bucket.clone()).map(|bucket| format!("gs://{bucket}"));
        let url = self.value("--storage", args.storage.clone());
        if bucket.is_some() && url.is_some() {
            self.wrong("--gcs-bucket and --storage exclude each other");
        }
        let Some(url) = url.or(bucket) else {
            if !args.storage_option.is_empty() {
                self.wrong("--storage-option needs --storage");
            }
            let own = || self.user_folder("XDG_STATE_HOME", ".local/state", "melange-remote/output");
            return StorageConfig::Local(output_dir.or_else(own).unwrap_or_else(|| OUTPUT_DIR.into()));
        };
        if output_dir.is_some() && args.output_dir.is_some() {
            self.wrong("--output-dir and --storage exclude each other");
        }
        let names = STORAGE_VARIABLES.iter().filter(|(scheme, _)| url.starts_with(scheme));
        let names = names.flat_map(|(_, names)| names.iter());
        let option = |name: &&str| {
            let value = (self.environment)(name).filter(|value| !value.is_empty())?;
            let other = STORAGE_TOOL_VARIABLES.iter().find(|(variable, _)| variable == name);
            Some((other.map_or_else(|| name.to_lowercase(), |(_, option)| (*option).to_owned()), value))
        };
        let mut options: Vec<(String, String)> = names.filter_map(option).collect();
        for text in &args.storage_option {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => options.push((key.to_owned(), value.to_owned())),
                _ => self.wrong(format!("--storage-option: {text:?} is not of the form KEY=VALUE")),
            }
        }
        StorageConfig::Url { url, options }
    }

    /// A number of bytes, such as `64MiB`, within the bounds of a job's log.
    fn log_bytes(&mut self, given: Option<String>) -> u64 {
        let Some(text) = self.value("--job-log-bytes", given) else { return limits::JOB_LOG_BYTES };
        let bytes = StateCache::parse_size(&text);
        let (least, most) = (limits::JOB_LOG_BYTES_MIN, limits::JOB_LOG_BYTES_MAX);
        match bytes {
            Some(bytes) if (least..=most).contains(&bytes) => bytes,
            Some(_) => {
                self.wrong(format!("--job-log-bytes: {text} is not between {least} and {most} bytes"));
                limits::JOB_LOG_BYTES
            }
            None => {
                self.wrong(format!("--job-log-bytes: {text:?} is not a size such as 64MiB"));
                limits::JOB_LOG_BYTES
            }
        }
    }

    /// A time such as `2h`; 0 is no limit.
    fn time(&mut self, flag: &str, given: Option<String>, default: Duration) -> Option<Duration> {
        let Some(text) = self.value(flag, given) else { return Some(default) };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match &text[digits.len()..] {
            "s" | "" => Some(1),
            "m" => Some(60),
            "h" => Some(3_600),
            "d" => Some(86_400),
            _ => None,
        };
        match digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit)) {
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                self.wrong(format!("{flag}: {text:?} is not a time such as 30m or 2h"));
                Some(default)
            }
        }
    }

    fn lease(&mut self, given: Option<String>) -> Duration {
        let lease = self.time("--job-lease", given, limits::LEASE);
        let legal = lease.filter(|lease| (limits::LEASE_MIN..=limits::LEASE_MAX).contains(lease));
        legal.unwrap_or_else(|| {
            let (min, max) = (limits::LEASE_MIN.as_secs(), limits::LEASE_MAX.as_secs());
            self.wrong(format!("--job-lease: a lease lasts from {min} s to {max} s"));
            limits::LEASE
        })
    }

    /// The backends, and the architecture of jobs that name none.
    fn backends(
        &mut self,
        args: &Args,
        file: Option<&Path>,
        given_arch: Option<Arch>,
    ) -> (Option<Vec<Backend>>, Arch) {
        let default_arch = given_arch.unwrap_or(Arch::X86_64);
        let addr = self.value("--buildkit-addr", args.buildkit_addr.clone());
        let max_jobs = self.max_jobs(args.max_jobs.clone());
        match (addr, file) {
            (Some(_), Some(_)) => {
                self.wrong("--buildkit-addr and --backends-config exclude each other");
                (None, default_arch)
            }
            (None, Some(path)) => {
                if max_jobs.is_some() {
                    self.wrong("--max-jobs: write maxJobs into the backends file instead");
                }
                (self.backends_file(path), default_arch)
            }
            (Some(addr), None) => {
                let max_jobs = max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT);
                (self.single(&addr, default_arch, max_jobs), default_arch)
            }
            (None, None) => {
                let host = Arch::host().unwrap_or(Arch::X86_64);
                let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
                let cores = u32::try_from(cores).unwrap_or(u32::MAX);
                let max_jobs = max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT.min(cores));
                (self.single(SANDBOX_ADDR, host, max_jobs), given_arch.unwrap_or(host))
            }
        }
    }

    fn cache_size(&mut self, given: Option<String>) -> u64 {
        let Some(text) = self.value("--cache-size", given) else { return limits::CACHE_BYTES_DEFAULT };
        StateCache::parse_size(&text).unwrap_or_else(|| {
            self.wrong(format!("--cache-size: {text:?} is no size, such as 500M or 20G"));
            limits::CACHE_BYTES_DEFAULT
        })
    }

    fn max_jobs(&mut self, given: Option<String>) -> Option<u32> {
        let text = self.value("--max-jobs", given)?;
        match text.parse::<u32>().ok().map(check_max_jobs) {
            Some(Ok(number)) => return Some(number),
            Some(Err(error)) => self.error("--max-jobs", &error),
            None => self.wrong(format!("--max-jobs: {text:?} is not a whole number")),
        }
        None
    }

    fn single(&mut self, addr: &str, arch: Arch, max_jobs: u32) -> Option<Vec<Backend>> {
        let backend =
            Backend::new(addr, arch, Labels::default()).and_then(|backend| backend.with_max_jobs(max_jobs));
        backend.map(|backend| vec![backend]).map_err(|error| self.error("--buildkit-addr", &error)).ok()
    }

    fn backends_file(&mut self, path: &Path) -> Option<Vec<Backend>> {
        match read_backends(path) {
            Ok(backends) => Some(backends),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| self.wrong(format!("--backends-config: {mistake}")));
                None
            }
        }
    }

    fn build(&mut self, args: Args, default_arch: Arch) -> BuildConfig {
        let mut repositories = RepositoryDefaults::default();
        if !args.repository.is_empty() {
            repositories.repositories = args.repository;
            // The default key is not the key of other repositories.
            repositories.keyring = Vec::new();
        }
        if !args.keyring.is_empty() {
            repositories.keyring = args.keyring;
        }
        let mut allowed = Vec::new();
        let mut addresses = AddressPolicy::default();
        for place in args.allow_private_address {
            addresses.allow(&place).unwrap_or_else(|error| self.error("--allow-private-address", &error));
        }
        for folder in args.allow_local_repository {
            match std::fs::canonicalize(&folder) {
                Ok(path) if path.is_dir() => allowed.push(path),
                _ => self.wrong(format!("--allow-local-repository: there is no folder {folder}")),
            }
        }
        let mut sandbox_host_ports = Vec::new();
        for port in args.sandbox_allow_host_port {
            match port.parse() {
                Ok(0) | Err(_) => {
                    self.wrong(format!("--sandbox-allow-host-port: {port} is no port: 1 to 65535"))
                }
                Ok(port) => sandbox_host_ports.push(port),
            }
        }
        for name in &args.sandbox_allow_capability {
            if !is_capability(name) {
                self.wrong(format!(
                    "--sandbox-allow-capability: {name} is no capability, such as CAP_SYS_ADMIN"
                ));
            }
        }
        BuildConfig {
            sandbox_host_ports,
            sandbox_capabilities: args.sandbox_allow_capability,
            sandbox_launcher: None,
            default_arch,
            signing_key: self.file("--signing-key", args.signing_key),
            repositories,
            allow_local_repositories: allowed,
            addresses,
            credentials: self.credentials(),
            cache_bytes: self.cache_size(args.cache_size),
            git_ca: self.file("--git-ca", args.git_ca),
            git_credentials: self.git_credentials(args.git_credentials),
            git_known_hosts: self.file("--git-known-hosts", args.git_known_hosts),
            cache_dir: self.path("--cache-dir", args.cache_dir),
            source_cache: self.yes_or_no("--source-cache", args.source_cache) != Some(Choice::No),
            publish: self.yes_or_no("--publish", args.publish) != Some(Choice::No),
            state_dir: self
                .path("--state-dir", args.state_dir)
                .or_else(|| self.user_folder("XDG_CACHE_HOME", ".cache", "melange-remote/server"))
                .unwrap_or_else(|| PathBuf::from(STATE_DIR)),
            namespace: self.value("--namespace", args.namespace).unwrap_or_else(|| NAMESPACE.to_owned()),
            linters: self.linters(args.lint_require, args.lint_warn),
            public_hosts: args.public_host,
            job_log_bytes: self.log_bytes(args.job_log_bytes),
            job_timeout: self.time("--job-timeout", args.job_timeout, limits::JOB_TIMEOUT),
            job_silence: self.time("--job-silence", args.job_silence, limits::JOB_SILENCE),
            job_lease: self.lease(args.job_lease),
            buildkit_tls: self.tls(args.buildkit_tls_ca, args.buildkit_tls_cert, args.buildkit_tls_key),
        }
    }

    fn tls(&mut self, ca: Option<String>, cert: Option<String>, key: Option<String>) -> Option<TlsFiles> {
        let ca = self.file("--buildkit-tls-ca", ca);
        let cert = self.file("--buildkit-tls-cert", cert);
        let key = self.file("--buildkit-tls-key", key);
        if cert.is_some() != key.is_some() {
            self.wrong("--buildkit-tls-cert and --buildkit-tls-key need each other");
        }
        let identity = cert.zip(key);
        if identity.is_some() && ca.is_none() {
            self.wrong("--buildkit-tls-cert needs --buildkit-tls-ca, which says whom to trust");
        }
        Some(TlsFiles { ca: ca?, identity })
    }
}

/// Reads a file of backends.
///
/// # Errors
/// Every mistake in a line of its own.
pub fn read_backends(path: &Path) -> Result<Vec<Backend>, Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
    file::read(&Source::new(path.display().to_string(), text))
        .map_err(|diagnostics| diagnostics.0.iter().map(|mistake| mistake.summary()).collect())
}

/// Whether a text has the form of a capability's name.
fn is_capability(name: &str) -> bool {
    name.strip_prefix("CAP_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

#[cfg(test)]
mod tests;
