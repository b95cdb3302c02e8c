//! Station 6: the contract of a builder. One input, one event sink, one cancellation token, one outcome.
//!
//! A builder touches neither the job store nor the artifact storage; the scheduler's attempt is the only
//! place where the four contracts meet. Implementations: `engine` (the real one, over any
//! [`crate::guest::GuestRunner`]) and `scripted` (plays a given script, for tests and examples).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::analysis::lint::PackageLint;
use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::job::{DefinitionOrigin, JobId, ResultDigest};
use crate::pointers::hand_on;

mod inputs;
pub mod lines;
#[cfg(feature = "apk")]
mod repositories;
pub mod scripted;

pub use inputs::{EnvironmentLock, JobInputs, KnownResults, LockedPackage, LockedRepository, NoInputs};
#[cfg(feature = "apk")]
pub use repositories::BuildRepositories;

/// Everything that a builder may read of a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildInput {
    /// The name that identifies this attempt in logs and in the builder's own scratch folders.
    pub attempt: String,
    /// The definition, as it was handed in.
    pub config_yaml: String,
    /// What the definition is called in diagnostics, such as `hello.yaml`.
    pub config_name: String,
    /// Inline pipelines by their path, such as `test/docs.yaml`.
    pub pipelines: BTreeMap<String, String>,
    /// The architecture to build for.
    pub arch: Arch,
    /// Whether steps trace each command (`set -x`).
    pub debug: bool,
    /// The address of the backend that the selector chose; builders without backends ignore it.
    pub backend_addr: String,
    /// Memory in bytes that the guest may have at least, whatever the definition asks for: it ran out of that before.
    pub memory_bytes: Option<u64>,
    /// Files beside the definition, copied into the workspace; `None` means there are none.
    pub source_dir: Option<PathBuf>,
    /// What below it is left out: files of the builder itself, such as its state and its keys.
    pub source_rules: SourceRules,
    /// Whether the packages are tested once they are made; a test that fails fails the build.
    pub with_test: bool,
    /// Packages added to the environment of every test.
    pub test_packages: Vec<String>,
    /// What changes how the definition is read.
    pub options: DefinitionOptions,
    /// Names the files beside the definition, whatever folder they lie in; `None` without any.
    pub source_digest: Option<String>,
    /// Where the definition comes from; what is not known of it is what the builder says of all definitions.
    pub origin: DefinitionOrigin,
    /// Repositories behind those of every environment.
    pub extra_repositories: Vec<String>,
    /// Keys besides those of every environment.
    pub extra_keyring: Vec<String>,
    /// What the job sees instead of the repositories as they are now; `None` outside of a build of many packages.
    #[cfg(feature = "apk")]
    pub repositories: Option<Arc<dyn BuildRepositories>>,
    /// Whom to ask whether something was made already; `None` to make it in any case.
    pub known: Option<Arc<dyn KnownResults>>,
}

impl BuildInput {
    /// A definition to be built for `arch`, with nothing else said.
    pub fn new(config_yaml: impl Into<String>, arch: Arch) -> Self {
        Self {
            attempt: "build".to_owned(),
            config_yaml: config_yaml.into(),
            config_name: crate::job::spec::CONFIG_NAME.to_owned(),
            pipelines: BTreeMap::new(),
            arch,
            debug: false,
            backend_addr: String::new(),
            memory_bytes: None,
            source_dir: None,
            source_rules: SourceRules::default(),
            with_test: false,
            test_packages: Vec::new(),
            options: DefinitionOptions::default(),
            source_digest: None,
            origin: DefinitionOrigin::default(),
            extra_repositories: Vec::new(),
            extra_keyring: Vec::new(),
            #[cfg(feature = "apk")]
            repositories: None,
            known: None,
        }
    }
}

/// What of the files beside a definition is left out besides what their folder itself says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceRules {
    /// These files and folders, wherever they are named from; they count as ignored.
    pub except: Vec<PathBuf>,
    /// Whether pipes, sockets, devices and folders that may not be read are left out as well, as links are: for folders
    /// that nobody named.
    pub skip_special: bool,
}

/// What changes how a definition is read; files by name and text, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinitionOptions {
    /// Build options that are switched on.
    pub build_options: Vec<String>,
    /// YAML maps laid over `vars`.
    pub vars_files: Vec<(String, String)>,
    /// Environment variables in dotenv syntax.
    pub env_files: Vec<(String, String)>,
    /// The flavor of `host.triplet.*`: `gnu` or `musl`.
    pub libc_flavor: String,
}

impl Default for DefinitionOptions {
    fn default() -> Self {
        let libc_flavor = "gnu".to_owned();
        Self { build_options: Vec::new(), vars_files: Vec::new(), env_files: Vec::new(), libc_flavor }
    }
}

/// Where a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// A step's standard output.
    Stdout,
    /// A step's standard error.
    Stderr,
    /// The engine itself.
    Engine,
}

impl LogStream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Engine];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Engine => "engine",
        }
    }
}

impl FromStr for LogStream {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|stream| stream.name() == text);
        known.ok_or_else(|| Error::invalid(format!("{text:?} is no stream: stdout, stderr or engine")))
    }
}

/// What happens during a build, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildEvent {
    /// A phase of the engine began.
    PhaseStarted {
        /// Which one.
        phase: Phase,
    },
    /// A phase of the engine ended.
    PhaseFinished {
        /// Which one.
        phase: Phase,
        /// How long it took.
        took: Duration,
    },
    /// A step of the guest began.
    StepStarted {
        /// Its position, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// Its name, such as `hello: autoconf/make`.
        name: String,
    },
    /// A step of the guest ended well.
    StepFinished {
        /// Its position, from 0.
        index: usize,
        /// How long it took.
        took: Duration,
        /// Whether the daemon had its result already and did not run it.
        cached: bool,
    },
    /// The test of a package began; its steps follow, numbered on from those before.
    TestStarted {
        /// Its position among the tests, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// The package under test.
        subject: String,
    },
    /// The test of a package ended.
    TestFinished {
        /// Its position among the tests, from 0.
        index: usize,
        /// How it ended.
        report: TestReport,
    },
    /// Linters found something in a package.
    Linted {
        /// What.
        report: PackageLint,
    },
    /// The most memory that the guest used at a time so far, in bytes, the files that it read included; of builders that
    /// know.
    MemoryPeak {
        /// How much.
        bytes: u64,
    },
    /// One line of output, without its newline.
    Log {
        /// Where it came from.
        stream: LogStream,
        /// The step that wrote it, when one did.
        step: Option<usize>,
        /// The text; invalid UTF-8 is replaced.
        line: String,
    },
}

/// The phases of a build; their times add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Parsing and compiling the definition.
    Compile,
    /// Choosing the packages of the environment.
    Resolve,
    /// Assembling the root filesystem.
    Environment,
    /// Sending the environment to a daemon that does not have it yet.
    Upload,
    /// Running the steps.
    Steps,
    /// Analysing and packing the outputs.
    Package,
    /// Testing the packages.
    Test,
    /// Storing the artifacts.
    Store,
}

impl Phase {
    /// The name shown to people, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Resolve => "resolve",
            Self::Environment => "environment",
            Self::Upload => "upload",
            Self::Steps => "steps",
            Self::Package => "package",
            Self::Test => "test",
            Self::Store => "store",
        }
    }
}

/// Takes the events of one build. Nothing that was emitted is lost.
///
/// # Contract
/// * `emit` never blocks and never drops. What keeps its memory bounded is that whoever emits lines awaits
///   [`Self::ready`] between chunks of output, so that a slow reader slows the step down.
/// * Dropping the future of `ready` is harmless.
#[async_trait]
pub trait BuildSink: Send + Sync {
    /// Takes one event; order is the order of calls.
    fn emit(&self, event: BuildEvent);

    /// Waits until there is room for another chunk of lines, a few hundred KiB.
    async fn ready(&self);
}

hand_on!(BuildSink; {
    async fn ready(&self);
    fn emit(&self, event: BuildEvent);
});

/// A sink that forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

#[async_trait]
impl BuildSink for NullSink {
    fn emit(&self, _event: BuildEvent) {}

    async fn ready(&self) {}
}

/// A step that ended badly: what a person needs first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepFailure {
    /// The step's name.
    pub step: String,
    /// Its exit code; a step killed by a signal has 128 plus the signal's number.
    pub exit_code: i32,
    /// The last lines that it wrote, at most [`crate::limits::LOG_TAIL_LINES`].
    pub tail: Vec<String>,
    /// Whether it was ended because it met its bound of memory.
    pub out_of_memory: bool,
}

impl StepFailure {
    /// A step that ended with a code, without its last lines.
    pub fn new(step: impl Into<String>, exit_code: i32) -> Self {
        Self { step: step.into(), exit_code, tail: Vec::new(), out_of_memory: false }
    }
}

/// How the test of one package ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestReport {
    /// The package under test.
    pub subject: String,
    /// How it ended.
    pub status: TestStatus,
    /// How long it took, its environment included.
    pub took: Duration,
}

impl TestReport {
    /// How the test of a package ended, and how long it took.
    pub fn new(subject: impl Into<String>, status: TestStatus, took: Duration) -> Self {
        Self { subject: subject.into(), status, took }
    }
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestStatus {
    /// Every step ended well.
    Passed,
    /// A step ended badly, or the test's environment cannot be made.
    Failed {
        /// One line.
        reason: String,
        /// The step at fault, when a step is.
        failure: Option<StepFailure>,
    },
}

/// A limit of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildLimit {
    /// How long it may take.
    Time,
    /// How long it may be silent.
    Silence,
}

/// What a machine of the farm had too little of: the source of an error, for whoever asks about the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Memory.
    #[error("this machine ran out of memory")]
    Memory,
    /// Room on a disk.
    #[error("the disk of this machine was full")]
    Disk,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildStatus {
    /// Packages were made.
    Succeeded,
    /// The definition or a step is at fault; the same input fails again.
    Failed {
        /// One line.
        reason: String,
        /// The step at fault, when a step is.
        failure: Option<StepFailure>,
    },
    /// It met a limit that the definition or the operator set, such as one of time; nothing runs any more.
    LimitExceeded {
        /// One line.
        reason: String,
        /// Which one.
        limit: BuildLimit,
    },
    /// The cancellation token was used; nothing runs any more.
    Cancelled,
    /// A job has made the same already, of the same: its files are the result, and nothing ran.
    Known {
        /// That job.
        job: JobId,
    },
    /// There is nothing to do, such as a definition for other architectures.
    Skipped {
        /// One line.
        reason: String,
    },
}

/// A file that a build made, on the builder's disk until the outcome is dropped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuiltFile {
    /// Its name relative to the job, such as `x86_64/hello-2.10-r0.apk`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes, when the builder has them in memory; nothing lies at `path` then.
    pub in_memory: Option<Bytes>,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

impl BuiltFile {
    /// A file with its size and its SHA-256 in lower-case hex.
    pub fn new(
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        size_bytes: u64,
        sha256: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), path: path.into(), in_memory: None, size_bytes, sha256: sha256.into() }
    }
}

/// What a build gave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildOutcome {
    /// How it ended.
    pub status: BuildStatus,
    /// The files it made; empty unless it succeeded.
    pub files: Vec<BuiltFile>,
    /// The packages of the environment, exactly; `None` when it did not come to that.
    pub lock: Option<Arc<EnvironmentLock>>,
    /// Names all that the result comes from; `None` when the builder does not know.
    pub result: Option<ResultDigest>,
    /// What linters found in the packages, those in which they found nothing left out; of a build that fails for it too.
    pub lint: Vec<PackageLint>,
    /// The tests that were run to their end, in order.
    pub tests: Vec<TestReport>,
    /// Time spent in each phase that was reached.
    pub timings: BTreeMap<Phase, Duration>,
    /// Keeps the scratch folder of [`Self::files`] alive; the last clone dropped removes it.
    pub scratch: Option<Arc<tempfile::TempDir>>,
}

impl BuildOutcome {
    /// A success whose files lie in a scratch folder.
    pub fn succeeded(files: Vec<BuiltFile>, scratch: Arc<tempfile::TempDir>) -> Self {
        Self { files, scratch: Some(scratch), ..Self::without_files(BuildStatus::Succeeded) }
    }

    /// An outcome without files.
    pub fn without_files(status: BuildStatus) -> Self {
        Self {
            status,
            files: Vec::new(),
            lock: None,
            result: None,
            lint: Vec::new(),
            tests: Vec::new(),
            timings: BTreeMap::new(),
            scratch: None,
        }
    }
}

/// Builds one definition.
///
/// # Contract
/// * At least once: the same input may be built again after a lost lease, also at the same time elsewhere, so
///   nothing outside the outcome may be changed by a build.
/// * `Err` means that the build could not be tried to its end (daemon unreachable, disk full): the caller may
///   retry by [`crate::error::ErrorKind::is_retryable`]. A definition or script at fault is
///   [`BuildStatus::Failed`].
/// * After the token is cancelled the call returns [`BuildStatus::Cancelled`] within seconds and no process of
///   the build runs any more. Dropping the future has the same effect, without an outcome.
/// * Every event is emitted before the call returns; none after.
#[async_trait]
pub trait Builder: Send + Sync + std::fmt::Debug {
    /// Builds `input`, telling `sink` what happens, until done or cancelled.
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome>;
}

hand_on!(Builder; {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome>;
});
