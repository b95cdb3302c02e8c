//! The command line of `melange remote`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use melange_remote_sdk::arch::Arch;

use super::*;

/// The server to talk to.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The server's URL
    #[arg(long, env = "MELANGE_SERVER", default_value = "http://localhost:8080", value_name = "URL")]
    pub(crate) server: String,
    /// How results and errors are printed
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<RemoteOutput>,
}

/// How results and errors of a server's jobs are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RemoteOutput {
    /// For people.
    #[value(alias = "yaml")]
    Text,
    /// For programs.
    Json,
    /// For programs, and what waits for a job prints its events, one in each line.
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Submit a build job
    Submit(SubmitArgs),
    /// Build many packages, in the order in which they need each other
    Build(Box<RemoteBuildArgs>),
    /// List builds of many packages, newest first
    Builds {
        /// Only builds in this state: pending, running, success, failed, partial or cancelled
        #[arg(long)]
        status: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        server: ServerArgs,
    },
    #[command(flatten)]
    Report(ReportCommand),
    /// Show a job
    Status {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell why a job waits, who goes before it and when it may begin
    Why {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell how many jobs wait, why, and for how long
    Queue {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List jobs, newest first
    List {
        /// Only jobs in this state: pending, running, success, failed or cancelled
        #[arg(long)]
        status: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Wait for a job to finish, showing its log
    Wait {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        #[command(flatten)]
        server: ServerArgs,
        /// How often to look when the log is quiet, such as 2s or 500ms
        #[arg(long, default_value = "2s", value_parser = parse_interval)]
        poll_interval: std::time::Duration,
    },
    /// Print a job's log
    Logs(LogsArgs),
    /// Print what happens on the server, until the job or the build that is asked for has ended
    Events(EventsArgs),
    /// Download what a job made
    Get {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        /// Only artifacts whose name ends so, such as hello-2.10-r0.apk (repeatable)
        names: Vec<String>,
        /// Where to
        #[arg(long, default_value = ".", value_name = "DIR")]
        out_dir: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Ask for a job to stop
    Cancel {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Try a failed or cancelled job again
    Retry {
        /// The job: its id, the beginning of it, or BUILD/PACKAGE; or a build; @last for what was handed in last from here
        job: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a finished job with its log and its artifacts
    Remove {
        /// The job: its id, the beginning of it, BUILD/PACKAGE, or @last for the one handed in last from here; of a build @last/PACKAGE
        job: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Work with the server's backends
    Backends {
        #[command(subcommand)]
        command: BackendsCommand,
    },
}

/// What is told about a build and about a package.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Tell the failures of a build, grouped by what they failed of
    Failures {
        /// The build: its id, the beginning of it, or @last for what was handed in last from here
        build: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Compare a build with the one before: newly failing, well again, still failing, new, gone
    Changes {
        /// The build: its id, the beginning of it, or @last for what was handed in last from here
        build: String,
        /// The build to compare it with [default: the newest older one of the same project and source]
        #[arg(long, value_name = "BUILD")]
        since: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell what holds other packages of a build back, and how many
    Blockers {
        /// The build: its id, the beginning of it, or @last for what was handed in last from here
        build: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell the last jobs of a package: what they came to, took and used
    History {
        /// The name of the main package
        package: String,
        /// Only jobs for this architecture
        #[arg(long)]
        arch: Option<Arch>,
        /// How many, at most 100
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        server: ServerArgs,
    },
}

impl RemoteCommand {
    pub(super) fn output(&self) -> OutputArgs {
        let output = match self.server().output {
            Some(RemoteOutput::Text) => Some(Output::Text),
            Some(RemoteOutput::Json | RemoteOutput::Jsonl) => Some(Output::Json),
            None => None,
        };
        OutputArgs { output }
    }

    /// Whether waiting for a job prints its events.
    pub(crate) fn tells_events(&self) -> bool {
        self.server().output == Some(RemoteOutput::Jsonl)
    }

    fn server(&self) -> &ServerArgs {
        match self {
            Self::Submit(args) => &args.server,
            Self::Build(args) => &args.server,
            Self::Builds { server, .. } => server,
            Self::Logs(args) => &args.server,
            Self::Events(args) => &args.server,
            Self::Status { server, .. }
            | Self::Why { server, .. }
            | Self::Queue { server }
            | Self::List { server, .. }
            | Self::Wait { server, .. }
            | Self::Get { server, .. }
            | Self::Cancel { server, .. }
            | Self::Retry { server, .. }
            | Self::Remove { server, .. } => server,
            Self::Report(
                ReportCommand::Failures { server, .. }
                | ReportCommand::Changes { server, .. }
                | ReportCommand::Blockers { server, .. }
                | ReportCommand::History { server, .. },
            ) => server,
            Self::Backends { command } => match command {
                BackendsCommand::List { server, .. }
                | BackendsCommand::Drain { server, .. }
                | BackendsCommand::Enable { server, .. }
                | BackendsCommand::Add { server, .. }
                | BackendsCommand::Remove { server, .. } => server,
            },
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    /// The job: its id, the beginning of it, BUILD/PACKAGE, or @last for the one handed in last from here; of a build @last/PACKAGE
    pub(crate) job: String,
    /// Go on until the job has finished
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines behind a place (ATTEMPT:LINE, or LINE), or since a time (RFC 3339) or a duration (10m)
    #[arg(long, value_name = "PLACE")]
    pub(crate) since: Option<String>,
    /// Only what a step wrote: its number, from 1, or its name
    #[arg(long, value_name = "STEP", conflicts_with_all = ["test", "failed"])]
    pub(crate) step: Option<String>,
    /// Only one stream
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr", "engine"])]
    pub(crate) stream: Option<String>,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u64>,
    /// Only the attempt with this number; all of them otherwise
    #[arg(long, value_name = "NUMBER", conflicts_with = "test")]
    pub(crate) attempt: Option<u32>,
    /// Only what the step that failed wrote
    #[arg(long, conflicts_with = "test")]
    pub(crate) failed: bool,
    /// Only what the test of this package wrote
    #[arg(long, value_name = "PACKAGE")]
    pub(crate) test: Option<String>,
    /// The time before each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EventsArgs {
    /// Only what happens to this job: its id, the beginning of it, or @last
    #[arg(long, value_name = "JOB", conflicts_with = "build")]
    pub(crate) job: Option<String>,
    /// Only what happens to this build and its jobs: its id, the beginning of it, or @last
    #[arg(long, value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// Only what happens in this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Only what happened behind the event with this number; otherwise from now on, and of a job or a build everything
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<u64>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SubmitArgs {
    /// Definitions, one job each; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) configs: Vec<PathBuf>,
    /// Architectures, a job each: names, `host` or `all` (repeatable, or separated by commas); the server's default
    /// when missing
    #[arg(long = "arch", value_name = "ARCH", value_delimiter = ',')]
    pub(crate) archs: Vec<ArchChoice>,
    /// A package added to the environment of every test (repeatable)
    #[arg(long = "test-package-append", value_name = "PACKAGE")]
    pub(crate) test_packages: Vec<String>,
    /// A folder of pipelines that go along (repeatable)
    #[arg(long = "pipeline-dir", value_name = "DIR")]
    pub(crate) pipeline_dirs: Vec<PathBuf>,
    /// Files that go along; the folder named after the definition if it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) origin: OriginArgs,
    /// A label that the backend must have (repeatable)
    #[arg(long = "backend-selector", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) backend_selector: Vec<(String, String)>,
    /// Trace every command of the steps
    #[arg(long)]
    pub(crate) debug: bool,
    /// Run the definition's tests too
    #[arg(long)]
    pub(crate) test: bool,
    /// Whose the jobs are [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// How urgent the jobs are, 0 to 1000; the greater ones first [default: 500]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) priority: Option<u32>,
    /// A job that must succeed before these begin: its id, the beginning of it, or @last (repeatable)
    #[arg(long = "wait-for", value_name = "JOB")]
    pub(crate) wait_for: Vec<String>,
    /// Join an equal job of the last hour, or of the time given, such as 10m, unless it failed: what is printed is its id
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1h",
          value_parser = parse_interval)]
    pub(crate) dedupe: Option<std::time::Duration>,
    /// Wait for the job to finish, showing its log
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What is built, and how.
#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteBuildArgs {
    /// Folders of definitions, with their `pipelines`, or definitions
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// A git repository that the server reads the definitions from
    #[arg(long, value_name = "URL", conflicts_with = "paths")]
    pub(crate) git: Option<String>,
    /// A branch, a tag, a commit or a reference of that repository [default: its default branch]
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    pub(crate) reference: Option<String>,
    /// The name of a credential of the server for that repository
    #[arg(long, value_name = "NAME", requires = "git")]
    pub(crate) git_credential: Option<String>,
    /// A package or subpackage to build (repeatable); without this and `--glob`, all
    #[arg(long = "package", value_name = "NAME")]
    pub(crate) packages: Vec<String>,
    /// A pattern of paths of definitions to build, within the folder or the repository (repeatable)
    #[arg(long = "glob", value_name = "PATTERN")]
    pub(crate) globs: Vec<String>,
    /// Architectures: names, `host` or `all` (repeatable, or separated by commas); the server's default when missing
    #[arg(long = "arch", value_name = "ARCH", value_delimiter = ',')]
    pub(crate) archs: Vec<ArchChoice>,
    /// Which definitions are built that chosen ones need
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) with_dependencies: DependenciesArg,
    /// What becomes of definitions whose version is published
    #[arg(long, value_enum, default_value = "missing")]
    pub(crate) rebuild: RebuildArg,
    /// How needs are chosen that are cut where definitions need each other
    #[arg(long, value_enum, default_value = "fewest")]
    pub(crate) cut: CutArg,
    /// A folder of pipelines that go along (repeatable)
    #[arg(long = "pipeline-dir", value_name = "DIR")]
    pub(crate) pipeline_dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) origin: OriginArgs,
    /// The name of the key that signs; the server must have it
    #[arg(long, value_name = "NAME")]
    pub(crate) signing_key: Option<String>,
    /// A repository behind those of every environment (repeatable)
    #[arg(long = "extra-repo", value_name = "URL")]
    pub(crate) extra_repos: Vec<String>,
    /// A key besides those of every environment (repeatable)
    #[arg(long = "extra-key", value_name = "URL")]
    pub(crate) extra_keys: Vec<String>,
    /// A label that the backends must have (repeatable)
    #[arg(long = "backend-selector", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) backend_selector: Vec<(String, String)>,
    /// Whose the build is [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Who or what asks for it, in a few words [default: the user's name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) trigger: Option<String>,
    /// How urgent the jobs are, 0 to 1000; the greater ones first [default: 500]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) priority: Option<u32>,
    /// Leave out what has not begun once a package has failed
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Build again what was made already
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the definitions' tests too
    #[arg(long)]
    pub(crate) test: bool,
    /// Trace every command of the steps
    #[arg(long)]
    pub(crate) debug: bool,
    /// Print the plan, and build nothing
    #[arg(long, conflicts_with = "wait")]
    pub(crate) plan: bool,
    /// What is told of the plan besides the summary (repeatable)
    #[arg(long, value_enum, value_name = "PART", requires = "plan")]
    pub(crate) show: Vec<PlanPart>,
    /// Wait for the build to finish, telling what becomes of its packages
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Names a backend.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendNameArgs {
    /// Its address
    pub(crate) addr: String,
    /// Its machine, when several have a backend with this address
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendsCommand {
    /// List backends
    List {
        /// Only those of this architecture
        #[arg(long)]
        arch: Option<Arch>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give a backend no further jobs; those that run on it go on
    Drain {
        #[command(flatten)]
        name: BackendNameArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give a drained backend jobs again
    Enable {
        #[command(flatten)]
        name: BackendNameArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Add a backend
    Add {
        /// Its address: tcp://host:port, unix:///path, docker:///path
        #[arg(long)]
        addr: String,
        /// Its architecture
        #[arg(long)]
        arch: Arch,
        /// A label (repeatable)
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        /// How many jobs it runs at once; 4 when missing
        #[arg(long)]
        max_jobs: Option<u32>,
        /// The cores that its jobs share, such as 16; nothing is counted when missing
        #[arg(long, value_name = "N")]
        cpus: Option<String>,
        /// The memory that its jobs share, such as 64Gi; nothing is counted when missing
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a backend
    Remove {
        /// Its address
        #[arg(long)]
        addr: String,
        /// Its machine, when several have a backend with this address
        #[arg(long, value_name = "NAME")]
        machine: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}
