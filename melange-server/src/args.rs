//! The flags, as they are written. [`crate::config`] says what they mean.

use clap::{Parser, ValueEnum};

/// Builds APK packages from melange definitions that are handed in over HTTP.
///
/// Every flag with one value can also be given as an environment variable: --listen-addr is MELANGE_LISTEN_ADDR,
/// and so on; MELANGE_PROJECT_WEIGHT has all weights, separated by commas. Flags go before variables.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "melange-server",
    version,
    args_override_self = true,
    after_help = "melange-server gc removes once what the --keep flags do not keep, and unused sources; see melange-server gc \
                  --help"
)]
pub struct Args {
    /// HTTP listen address; :8080 means port 8080 on all interfaces, port 0 takes a free one [default: :8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_addr: Option<String>,
    /// Write the port that the server listens on to this file once it is ready
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<String>,
    /// BuildKit daemon address (single-backend mode)
    #[arg(long, value_name = "ADDR")]
    pub buildkit_addr: Option<String>,
    /// Path to the backends file (multi-backend mode)
    #[arg(long, value_name = "FILE")]
    pub backends_config: Option<String>,
    /// Architecture of jobs that name none, and of the backend in single-backend mode [default: x86_64]
    #[arg(long, value_name = "ARCH")]
    pub default_arch: Option<String>,
    /// Jobs that the backend runs at once in single-backend mode [default: 4, in the sandbox at most the cores]
    #[arg(long, value_name = "N")]
    pub max_jobs: Option<String>,
    /// Which of the backends with a free slot gets a job: round-robin takes turns, least-loaded takes the one with the
    /// smallest share of its slots in use [default: round-robin]
    #[arg(long, value_name = "NAME")]
    pub backend_selection: Option<BackendSelection>,
    /// Weight of a project, 1 to 1000: while several projects wait, one with 3 gets three slots for one of a project with
    /// 1, the weight of those that are not named; may be repeated
    #[arg(long, value_name = "NAME=N")]
    pub project_weight: Vec<String>,
    /// Jobs that may be handed in each second, with a burst of ten times as many; 0 for no limit [default: 1000]
    #[arg(long, value_name = "N")]
    pub submit_rate: Option<String>,
    /// Local storage directory [default: /var/lib/melange/output, for users who are not root
    /// ~/.local/state/melange-remote/output]
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<String>,
    /// Google Cloud Storage bucket for artifacts and logs, instead of the local directory
    #[arg(long, value_name = "BUCKET")]
    pub gcs_bucket: Option<String>,
    /// Storage of artifacts and logs: file:///folder, gs://bucket, s3://bucket or az://container, perhaps with /prefix
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// An option of that storage, such as aws_endpoint=http://host:9000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub storage_option: Vec<String>,
    /// Name by which browsers reach this server, besides its addresses; may be repeated
    #[arg(long, value_name = "HOST")]
    pub public_host: Vec<String>,
    /// Bytes of a job's log, such as 64MiB; of what is beyond, the beginning and the end are kept [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub job_log_bytes: Option<String>,
    /// Time that a build may take whose definition says nothing, such as 2h; 0 for no limit [default: 2h]
    #[arg(long, value_name = "TIME")]
    pub job_timeout: Option<String>,
    /// Time that a step may be silent, such as 30m; 0 for no limit [default: 30m]
    #[arg(long, visible_alias = "stall-timeout", value_name = "TIME")]
    pub job_silence: Option<String>,
    /// How long a running job is this server's without a word from it, 3s to 1h; then others may try it [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub job_lease: Option<String>,
    /// Private key that signs packages and indexes
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<String>,
    /// Repository for definitions that name none; replaces the default; may be repeated
    #[arg(long, value_name = "URL")]
    pub repository: Vec<String>,
    /// Key of those repositories; replaces the default; may be repeated
    #[arg(long, value_name = "URL")]
    pub keyring: Vec<String>,
    /// Folder whose repositories and keys submitted definitions may name by path; may be repeated
    #[arg(long, value_name = "DIR")]
    pub allow_local_repository: Vec<String>,
    /// Host, address or network (10.1.0.0/16) that is not public and that repositories and keys of submitted
    /// definitions may lie on; may be repeated
    #[arg(long, value_name = "HOST|CIDR")]
    pub allow_private_address: Vec<String>,
    /// Certificates of authorities that git servers are trusted by instead of the system's, a file in PEM form
    #[arg(long, value_name = "FILE")]
    pub git_ca: Option<String>,
    /// Who the server is at git servers, by the names that builds may use: a file of `NAME: {host, …}` in YAML
    #[arg(long, value_name = "FILE")]
    pub git_credentials: Option<String>,
    /// Keys of ssh servers that git repositories are read from, a file as ssh keeps them
    #[arg(long, value_name = "FILE")]
    pub git_known_hosts: Option<String>,
    /// Folder of sources that steps find instead of downloading them: files called sha256:HEX and sha512:HEX
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// Whether the server downloads what definitions fetch by a checksum, before their steps run, and keeps it for all
    /// servers in the storage of artifacts [default: yes]
    #[arg(long, value_name = "YES|NO")]
    pub source_cache: Option<Choice>,
    /// Whether what jobs have made is published below /apk for all who reach the server, and kept there [default: yes]
    #[arg(long, value_name = "YES|NO")]
    pub publish: Option<Choice>,
    /// Folder of the server's own state: indexes, packages, scratch files [default: /var/lib/melange/state, for users
    /// who are not root ~/.cache/melange-remote/server]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Where jobs live: sqlite:PATH, postgres://USER@HOST/NAME, or memory: to forget them at the end of the server
    /// [default: melange.db in the folder of --state-dir, for users who are not root in ~/.local/state/melange-remote]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// What this machine is called among those whose servers share a PostgreSQL database: the sandbox and sockets of each
    /// are backends of its own [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub machine_name: Option<String>,
    /// Ended jobs that are kept: a time counted from their end, a number, both such as 365d,10000, or all
    /// [default: all]
    #[arg(long, value_name = "BOUNDS")]
    pub keep_jobs: Option<String>,
    /// Logs of ended jobs that are kept: a time, a size, both such as 30d,200GiB, or all [default: 90d]
    #[arg(long, value_name = "BOUNDS")]
    pub keep_logs: Option<String>,
    /// Artifacts of ended jobs that are kept: a time, a size, both such as 30d,200GiB, or all [default: all]
    #[arg(long, value_name = "BOUNDS")]
    pub keep_artifacts: Option<String>,
    /// Whether the newest success of each project, package and architecture is kept for ever [default: yes]
    #[arg(long, value_name = "YES|NO")]
    pub keep_latest: Option<Choice>,
    /// Whether what lies in the storage of jobs that the database does not know is kept: when others use the storage too
    /// [default: yes]
    #[arg(long, value_name = "YES|NO")]
    pub keep_orphans: Option<Choice>,
    /// What the state folder may keep of packages, indexes and root filesystems, such as 20G; what was not used for
    /// longest leaves first [default: 20G]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Namespace of package URLs [default: wolfi]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Linters whose findings fail the build of a package, separated by commas; `none` for none [default: those of melange]
    #[arg(long, value_name = "LINTERS")]
    pub lint_require: Option<String>,
    /// Linters whose findings are told, in the same form [default: those of melange]
    #[arg(long, value_name = "LINTERS")]
    pub lint_warn: Option<String>,
    /// Port of this machine's loopback that steps in the sandbox may reach, as their own 127.0.0.1:PORT; may be
    /// repeated; otherwise they reach none
    #[arg(long, value_name = "PORT")]
    pub sandbox_allow_host_port: Vec<String>,
    /// Capability that definitions may ask for in the sandbox besides those of containers, such as CAP_SYS_ADMIN, which is
    /// then the machine's own where the server runs as root; may be repeated; otherwise none
    #[arg(long, value_name = "CAPABILITY")]
    pub sandbox_allow_capability: Vec<String>,
    /// Certificate authority of tcp:// BuildKit daemons (PEM)
    #[arg(long, value_name = "FILE")]
    pub buildkit_tls_ca: Option<String>,
    /// Client certificate for tcp:// BuildKit daemons (PEM)
    #[arg(long, value_name = "FILE")]
    pub buildkit_tls_cert: Option<String>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub buildkit_tls_key: Option<String>,
    /// Print the description of the API instead of serving it
    #[arg(long, value_name = "FORMAT", hide = true)]
    pub print_api: Option<ApiFormat>,
    /// Form of the log on standard error [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Removes ended jobs, their logs and their artifacts that the --keep flags do not keep, once, and ends.
///
/// So are sources that no job used in this month and the last one, and archives of source files that no job needs, whatever
/// is kept. It takes the flags and variables of the server; those of --database, --storage and --keep-… matter. A server does
/// the same by itself every ten minutes, and for sources every hour; of a SQLite database it is the only one that can while
/// it runs.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "melange-server gc", version, args_override_self = true)]
pub struct GcArgs {
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Form of what is told on standard output [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// The flags of the server.
    #[command(flatten)]
    pub server: Args,
}

/// The form of what a command tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// The form of the API's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApiFormat {
    /// The OpenAPI document.
    Json,
    /// For people.
    Markdown,
}

/// How a backend is chosen for a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendSelection {
    /// Backends take turns.
    #[default]
    RoundRobin,
    /// The backend with the smallest share of its slots in use.
    LeastLoaded,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
