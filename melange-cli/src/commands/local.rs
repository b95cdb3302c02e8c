//! Running steps on this machine: the engine from arguments, its input, and what people see of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::analysis::lint::LinterSets;
use melange_remote_sdk::apk::signature::SigningKey;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, LogStream, StepFailure, TestReport,
    TestStatus,
};
use melange_remote_sdk::buildkit::BuildkitOptions;
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::engine::runners::AddressedRunners;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions, preflight};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::addresses::AddressPolicy;
use melange_remote_sdk::rootfs::credentials::Credentials;
use melange_remote_sdk::rootfs::fetch::{FetchOptions, HttpFetcher};
use melange_remote_sdk::rootfs::line::RepositoryLine;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sandbox::{self, SandboxOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{collect_pipelines, definition};
use crate::args::{Output, RunArgs, Runner};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::{input, note, shown};

/// This project's folder in one of the user's folders, which a variable names or lies below the home folder.
pub(super) fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let folder = |name: &str| {
        // The base directory specification: relative paths count as unset.
        std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let base = folder(variable).or_else(|| folder("HOME").map(|home| home.join(below_home)));
    base.map(|base| base.join("melange-remote"))
}

/// Where state is kept when the caller does not say: the user's cache folder, since all of it can be made anew.
pub(super) fn state_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    // Root without a home folder is a service or a container.
    let system = || preflight::is_root().then(|| PathBuf::from("/var/cache/melange-remote"));
    user_folder("XDG_CACHE_HOME", ".cache").or_else(system).ok_or_else(|| {
        Error::invalid("neither HOME nor XDG_CACHE_HOME names a folder").hint("give `--state-dir`")
    })
}

/// A repository line or key with its local path made absolute.
pub(super) fn absolute(line: &str) -> Result<String> {
    let read = RepositoryLine::parse(line)?;
    let Some(place) = read.path().filter(|path| !path.is_empty()) else { return Ok(line.to_owned()) };
    let path = std::path::absolute(place).map_err(|e| Error::io("find", Path::new(place), e))?;
    Ok(read.with_place(&path.display().to_string()))
}

/// An assembler whose downloads go to the user's cache.
pub(super) fn assembler(allow_untrusted: bool) -> Result<Assembler> {
    let cache = StateCache::new(&state_dir(None)?, limits::CACHE_BYTES_DEFAULT);
    let assembler = Assembler::new(cache, fetcher()?, LocalAccess::Any);
    Ok(if allow_untrusted { assembler.with_unsigned_repositories() } else { assembler })
}

/// An environment with these repositories and keys, and no packages yet.
pub(super) fn environment(repositories: &[String], keyring: &[String]) -> Result<PlanEnvironment> {
    let all = |lines: &[String]| lines.iter().map(|line| absolute(line)).collect::<Result<Vec<_>>>();
    let (repositories, keyring) = (all(repositories)?, all(keyring)?);
    Ok(PlanEnvironment { repositories, keyring, ..PlanEnvironment::default() })
}

/// What fetches for this machine's user, who may name any address; logins come from `HTTP_AUTH` and the netrc file.
pub(super) fn fetcher() -> Result<Arc<HttpFetcher>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut credentials = Credentials::default();
    credentials.add_http_auth(&variable("HTTP_AUTH").unwrap_or_default())?;
    let home = || Some(PathBuf::from(variable("HOME")?).join(".netrc"));
    if let Some(path) = variable("NETRC").map(PathBuf::from).or_else(home)
        && let Ok(text) = std::fs::read_to_string(&path)
    {
        credentials.add_netrc(&text).map_err(|error| error.with("file", path.display()))?;
    }
    let mut options = FetchOptions::default();
    (options.addresses, options.credentials) = (AddressPolicy::allow_any(), credentials);
    Ok(Arc::new(HttpFetcher::new(options)?))
}

/// What only builds have.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) signing_key: Option<SigningKey>,
    pub(super) epoch_seconds: i64,
    pub(super) packages: Vec<String>,
    pub(super) strip_origin: bool,
    pub(super) linters: LinterSets,
}

/// The engine that the arguments describe.
pub(super) fn builder(args: &RunArgs, extras: Extras) -> Result<EngineBuilder> {
    for (flag, why) in args.guest.without_effect() {
        note::line(&format!("note: {flag} changes nothing: {why}"));
    }
    let state = state_dir(args.state_dir.as_deref())?;
    let mut options = EngineOptions::new(&state);
    let cache_dir = cache_dir(&args.cache_dir)?;
    options.source_cache.clone_from(&cache_dir);
    options.strip_origin = extras.strip_origin;
    options.timeout = Some(args.guest.timeout).filter(|timeout| !timeout.is_zero());
    options.default_resources = args.guest.resources()?;
    options.signing_key = extras.signing_key.map(Arc::new);
    options.namespace.clone_from(&args.namespace);
    options.epoch_seconds = extras.epoch_seconds;
    options.extra_packages = extras.packages;
    options.linters = extras.linters;
    let lines = |list: &[String]| list.iter().map(|line| absolute(line)).collect::<Result<Vec<_>>>();
    options.extra_repositories = lines(&args.repositories.repositories)?;
    options.extra_keyring = lines(&args.repositories.keyring)?;
    if !options.extra_repositories.is_empty() {
        // Whoever names repositories does not want the default ones: a definition that names none gets theirs alone.
        options.repository_defaults = RepositoryDefaults::new(options.extra_repositories.clone(), Vec::new());
    }
    if address(args)? == sandbox::ADDRESS {
        preflight::check_sandbox_user()?;
    }
    let kept = args.guest.apk_cache_dir.as_deref().map(std::path::absolute).transpose();
    let kept = kept.map_err(|e| Error::unexpected("no current folder").source(e))?;
    let cache = StateCache::new(kept.as_deref().unwrap_or(&state), args.cache_size);
    let mut sandbox = SandboxOptions::with_cache(Arc::clone(&cache));
    sandbox.extra_capabilities = true;
    sandbox.host_ports.clone_from(&args.sandbox_allow_host_port);
    sandbox.shared_cache = cache_dir;
    let runners = AddressedRunners::new(sandbox, BuildkitOptions::default());
    let mut assembler = Assembler::new(cache, fetcher()?, LocalAccess::Any);
    if args.repositories.allow_untrusted {
        assembler = assembler.with_unsigned_repositories();
    }
    Ok(EngineBuilder::new(options, assembler, Arc::new(runners)))
}

/// The folder of the cache, when it is there.
fn cache_dir(given: &Path) -> Result<Option<PathBuf>> {
    if let Some((scheme @ ("gs" | "s3"), _)) = given.to_str().and_then(|text| text.split_once("://")) {
        let error = Error::new(
            ErrorKind::Unsupported,
            format!("`--cache-dir` takes folders, no {scheme}:// addresses"),
        );
        return Err(error.hint("a server keeps sources in its storage, which may be a bucket"));
    }
    if !given.is_dir() {
        return Ok(None);
    }
    given.canonicalize().map(Some).map_err(|e| Error::io("find", given, e))
}

/// What runs the steps.
pub(super) fn address(args: &RunArgs) -> Result<String> {
    match (&args.buildkit_addr, args.guest.runner) {
        (Some(addr), _) => Ok(addr.clone()),
        (None, None | Some(Runner::Bubblewrap)) => Ok(sandbox::ADDRESS.to_owned()),
        (None, Some(Runner::Docker)) => Ok("docker://".to_owned()),
        (None, Some(Runner::Qemu)) => {
            let error = Error::new(ErrorKind::Unsupported, "there is no runner with virtual machines");
            Err(error.hint("take `--runner bubblewrap` or `--runner docker`"))
        }
    }
}

/// The folder of files beside a definition, when there is one: `hello/` for `hello.yaml`.
pub(super) fn beside(file: &Path) -> Option<PathBuf> {
    let folder = file.with_extension("");
    (!input::is_stdin(file) && folder.is_dir()).then_some(folder)
}

/// What scratch folders are named after.
pub(super) fn attempt(file: &Path) -> String {
    if input::is_stdin(file) {
        return "stdin".to_owned();
    }
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The definition in `file` for one architecture, with everything that the arguments say of it.
pub(super) fn input(file: &Path, arch: Arch, args: &RunArgs) -> Result<BuildInput> {
    let text = definition::source(file)?.text.clone();
    let files = |paths: &[PathBuf]| {
        let named =
            |path: &PathBuf| definition::source(path).map(|read| (read.name.clone(), read.text.clone()));
        paths.iter().map(named).collect::<Result<Vec<_>>>()
    };
    let mut input = BuildInput::new(text, arch);
    input.attempt = attempt(file);
    input.config_name = input::name(file);
    input.pipelines = collect_pipelines(&args.definition.pipeline_dirs)?;
    input.debug = args.debug;
    input.backend_addr = address(args)?;
    let given = args.source_dir.clone().or_else(|| beside(file));
    let is_whole = given.is_none();
    let whole = (!input::is_stdin(file)).then(|| input::folder(file));
    input.source_dir = given.or_else(|| whole.map(Path::to_owned));
    let state = state_dir(args.state_dir.as_deref())?;
    input.source_rules.except = vec![state, args.cache_dir.clone()];
    input.source_rules.skip_special = is_whole;
    input.source_rules.except.extend(args.guest.apk_cache_dir.clone());
    if is_whole {
        // The history of the definitions is none of their files.
        input.source_rules.except.extend(whole.map(|folder| folder.join(".git")));
    }
    input.test_packages.clone_from(&args.test_package_append);
    let options = &mut input.options;
    options.build_options.clone_from(&args.definition.build_options);
    options.vars_files = files(&args.definition.vars_files)?;
    options.env_files = files(&args.definition.env_files)?;
    options.libc_flavor.clone_from(&args.definition.libc_flavor);
    Ok(input)
}

/// A token that interrupt and terminate signals use, from now on.
pub(super) fn cancelled_by_signals() -> CancellationToken {
    let cancel = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        // Where signals cannot be had, they end the command as they always do.
        let Ok(mut signal) = signal(kind) else { continue };
        let on_signal = cancel.clone();
        tokio::spawn(async move {
            signal.recv().await;
            on_signal.cancel();
        });
    }
    cancel
}

/// How a build ended as an exit code, and what went wrong in words.
pub(super) fn exit_of(outcome: &BuildOutcome, output: Output) -> Result<Exit> {
    match &outcome.status {
        BuildStatus::Succeeded => Ok(Exit::Ok),
        BuildStatus::Failed { reason, failure } => {
            failed(reason, failure.as_ref(), output);
            Ok(Exit::Failed)
        }
        BuildStatus::LimitExceeded { reason, .. } => {
            failed(reason, None, output);
            Ok(Exit::Failed)
        }
        BuildStatus::Cancelled => {
            if output == Output::Json {
                note::error(&Error::new(ErrorKind::Cancelled, "cancelled"), output);
            } else {
                note::line("cancelled");
            }
            Ok(Exit::Cancelled)
        }
        BuildStatus::Skipped { reason } => {
            if output == Output::Text {
                note::line(&format!("skipped: {reason}"));
            }
            Ok(Exit::Ok)
        }
        _ => Err(Error::unexpected("the build ended in an unknown way")),
    }
}

/// Tells why a build failed.
fn failed(reason: &str, failure: Option<&StepFailure>, output: Output) {
    if output == Output::Json {
        let error =
            serde_json::json!({ "code": "build_failed", "message": reason, "hint": null, "details": [] });
        note::say(&format!("{}\n", shown::json(&serde_json::json!({ "error": error }).to_string())));
        return;
    }
    note::say(&format!("failed: {reason}\n"));
    if let Some(failure) = failure {
        note::say("its last lines:\n");
        failure.tail.iter().for_each(|line| note::say(&format!("  {line}\n")));
    }
}

/// An outcome for programs; the files are where the caller put them.
pub(super) fn as_json(
    file: &Path,
    arch: Arch,
    outcome: &BuildOutcome,
    files: &[String],
) -> serde_json::Value {
    let (status, reason) = match &outcome.status {
        BuildStatus::Succeeded => ("success", None),
        BuildStatus::Failed { reason, .. } | BuildStatus::LimitExceeded { reason, .. } => {
            ("failed", Some(reason))
        }
        BuildStatus::Cancelled => ("cancelled", None),
        BuildStatus::Skipped { reason } => ("skipped", Some(reason)),
        _ => ("unknown", None),
    };
    let failure = match &outcome.status {
        BuildStatus::Failed { failure: Some(failure), .. } => Some(failure),
        _ => None,
    };
    let failure = failure.map(|failure| {
        serde_json::json!({ "step": failure.step, "exit_code": failure.exit_code, "tail": failure.tail })
    });
    let tests: Vec<_> = outcome.tests.iter().map(test_json).collect();
    let phases: Vec<_> = outcome
        .timings
        .iter()
        .map(|(phase, took)| serde_json::json!({ "name": phase.name(), "duration_ms": milliseconds(*took) }))
        .collect();
    serde_json::json!({
        "file": input::name(file),
        "arch": arch.apk_name(),
        "status": status,
        "reason": reason,
        "failure": failure,
        "files": files,
        "lint": outcome.lint,
        "tests": tests,
        "phases": phases,
    })
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn test_json(report: &TestReport) -> serde_json::Value {
    let (status, error) = match &report.status {
        TestStatus::Passed => ("passed", None),
        TestStatus::Failed { reason, .. } => ("failed", Some(reason)),
    };
    let took = milliseconds(report.took);
    serde_json::json!({ "package": report.subject, "status": status, "duration_ms": took, "error": error })
}

/// The times of the phases on standard error.
pub(super) fn print_times(outcome: &BuildOutcome) {
    let times: Vec<String> = outcome
        .timings
        .iter()
        .map(|(phase, took)| format!("{} {:.2} s", phase.name(), took.as_secs_f64()))
        .collect();
    note::line(&format!("time: {}", times.join(", ")));
}

/// Shows what happens on standard error: lines as they come, and what goes on meanwhile.
pub(super) struct Printer {
    progress: Progress,
    output: Output,
}

impl Printer {
    pub(super) fn new(output: Output) -> Arc<Self> {
        Arc::new(Self { progress: Progress::start(), output })
    }

    /// The event for programs, one object a line.
    fn json(&self, event: &BuildEvent) {
        use serde_json::json;
        let value = match event {
            BuildEvent::PhaseStarted { phase } => json!({ "event": "phase_started", "phase": phase.name() }),
            BuildEvent::PhaseFinished { phase, took } => json!({
                "event": "phase_finished", "phase": phase.name(), "duration_ms": milliseconds(*took)
            }),
            BuildEvent::StepStarted { index, total, name } => {
                json!({ "event": "step_started", "index": index, "total": total, "name": name })
            }
            BuildEvent::StepFinished { index, took, cached } => json!({
                "event": "step_finished", "index": index, "duration_ms": milliseconds(*took), "cached": cached
            }),
            BuildEvent::TestStarted { index, total, subject } => {
                json!({ "event": "test_started", "index": index, "total": total, "package": subject })
            }
            BuildEvent::TestFinished { index, report } => {
                json!({ "event": "test_finished", "index": index, "test": test_json(report) })
            }
            BuildEvent::Linted { report } => json!({ "event": "linted", "report": report }),
            BuildEvent::Log { stream, step, line } => {
                let stream = match stream {
                    LogStream::Stdout => "stdout",
                    LogStream::Stderr => "stderr",
                    LogStream::Engine => "engine",
                };
                json!({ "event": "log", "stream": stream, "step": step, "line": line })
            }
            _ => return,
        };
        self.progress.line(&shown::json(&value.to_string()));
    }
}

#[async_trait::async_trait]
impl BuildSink for Printer {
    fn emit(&self, event: BuildEvent) {
        if self.output == Output::Json {
            return self.json(&event);
        }
        match event {
            BuildEvent::PhaseStarted { phase } => self.progress.begin(phase.name()),
            BuildEvent::PhaseFinished { .. } => self.progress.begin(""),
            BuildEvent::StepStarted { index, total, name } => {
                let line = format!("[{}/{total}] {name}", index + 1);
                self.progress.line(&line);
                self.progress.begin(&line);
            }
            BuildEvent::Log { stream: LogStream::Engine, line, .. } => self.progress.line(&line),
            BuildEvent::Log { line, .. } => self.progress.line(&format!("  {line}")),
            BuildEvent::StepFinished { index, took, cached } => {
                let how = if cached { "cached".to_owned() } else { format!("{:.1} s", took.as_secs_f64()) };
                self.progress.line(&format!("[{}] done ({how})", index + 1));
            }
            BuildEvent::TestStarted { index, total, subject } => {
                let line = format!("test {} of {total}: {subject}", index + 1);
                self.progress.line(&line);
                self.progress.begin(&line);
            }
            BuildEvent::TestFinished { report, .. } => {
                let how = if report.status == TestStatus::Passed { "passed" } else { "failed" };
                let took = report.took.as_secs_f64();
                self.progress.line(&format!("test of {} {how} ({took:.1} s)", report.subject));
            }
            _ => {}
        }
    }

    async fn ready(&self) {}
}
