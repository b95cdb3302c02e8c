//! Running steps on this machine: the engine from arguments, its input, and what people see of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::apk::signature::SigningKey;
use melange_remote_sdk::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, DefinitionOptions, LogStream, TestStatus,
};
use melange_remote_sdk::buildkit::BuildkitOptions;
use melange_remote_sdk::engine::runners::AddressedRunners;
use melange_remote_sdk::engine::{EngineBuilder, EngineOptions};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::addresses::AddressPolicy;
use melange_remote_sdk::rootfs::credentials::Credentials;
use melange_remote_sdk::rootfs::fetch::{FetchOptions, HttpFetcher};
use melange_remote_sdk::rootfs::line::RepositoryLine;
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::sandbox::{self, SandboxOptions};
use tokio_util::sync::CancellationToken;

use super::{collect_pipelines, definition};
use crate::args::RunArgs;
use crate::exit::Exit;

/// Where state is kept when the caller does not say: the user's cache folder.
pub(super) fn state_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("melange-remote"))
        .ok_or_else(|| Error::invalid("neither HOME nor XDG_CACHE_HOME is set").hint("give `--state-dir`"))
}

/// A repository line or key with its local path made absolute.
pub(super) fn absolute(line: &str) -> Result<String> {
    let read = RepositoryLine::parse(line)?;
    let Some(place) = read.path().filter(|path| !path.is_empty()) else { return Ok(line.to_owned()) };
    let path = std::path::absolute(place).map_err(|e| Error::io("find", Path::new(place), e))?;
    Ok(read.with_place(&path.display().to_string()))
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
    Ok(Arc::new(HttpFetcher::new(FetchOptions { addresses: AddressPolicy::allow_any(), credentials })?))
}

/// What only builds have.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) signing_key: Option<SigningKey>,
    pub(super) epoch_seconds: i64,
    pub(super) packages: Vec<String>,
}

/// The engine that the arguments describe.
pub(super) fn builder(args: &RunArgs, extras: Extras) -> Result<EngineBuilder> {
    let state = state_dir(args.state_dir.as_deref())?;
    let mut options = EngineOptions::new(&state);
    options.source_cache = args
        .cache_dir
        .clone()
        .map(std::path::absolute)
        .transpose()
        .map_err(|e| Error::unexpected("no current folder").source(e))?;
    options.signing_key = extras.signing_key.map(Arc::new);
    options.namespace.clone_from(&args.namespace);
    options.epoch_seconds = extras.epoch_seconds;
    options.extra_packages = extras.packages;
    let lines = |list: &[String]| list.iter().map(|line| absolute(line)).collect::<Result<Vec<_>>>();
    if !args.repositories.repositories.is_empty() {
        options.repository_defaults =
            RepositoryDefaults { repositories: lines(&args.repositories.repositories)?, keyring: Vec::new() };
    }
    if !args.repositories.keyring.is_empty() || !args.repositories.repositories.is_empty() {
        options.repository_defaults.keyring = lines(&args.repositories.keyring)?;
    }
    let verify = !args.repositories.allow_untrusted;
    let runners = AddressedRunners::new(
        SandboxOptions {
            extra_capabilities: true,
            host_ports: args.sandbox_allow_host_port.clone(),
            ..SandboxOptions::new(&state)
        },
        BuildkitOptions::default(),
    );
    let assembler = Assembler::new(&state, fetcher()?, LocalAccess::Any, verify);
    Ok(EngineBuilder::new(options, assembler, Arc::new(runners)))
}

/// The definition in `file` with everything that the arguments say of it.
pub(super) fn input(file: &Path, args: &RunArgs) -> Result<BuildInput> {
    let text = definition::source(file)?.text.clone();
    let beside = file.with_extension("");
    let files = |paths: &[PathBuf]| {
        let named =
            |path: &PathBuf| definition::source(path).map(|read| (read.name.clone(), read.text.clone()));
        paths.iter().map(named).collect::<Result<Vec<_>>>()
    };
    Ok(BuildInput {
        attempt: file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        config_name: file.display().to_string(),
        pipelines: collect_pipelines(&args.definition.pipeline_dirs)?,
        debug: args.debug,
        backend_addr: args.buildkit_addr.clone().unwrap_or_else(|| sandbox::ADDRESS.to_owned()),
        source_dir: args.source_dir.clone().or_else(|| beside.is_dir().then_some(beside)),
        options: DefinitionOptions {
            build_options: args.definition.build_options.clone(),
            vars_files: files(&args.definition.vars_files)?,
            env_files: files(&args.definition.env_files)?,
            libc_flavor: args.definition.libc_flavor.clone(),
        },
        ..BuildInput::new(text, args.arch)
    })
}

/// A token that interrupt and terminate signals use.
pub(super) fn cancelled_by_signals() -> CancellationToken {
    let cancel = CancellationToken::new();
    let on_signal = cancel.clone();
    tokio::spawn(async move {
        let terminate = async {
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(mut signal) => signal.recv().await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate => {}
        }
        on_signal.cancel();
    });
    cancel
}

/// Tells what went wrong, if something did.
pub(super) fn exit_of(outcome: &BuildOutcome) -> Result<Exit> {
    match &outcome.status {
        BuildStatus::Succeeded => Ok(Exit::Ok),
        BuildStatus::Failed { reason, failure } => {
            eprintln!("failed: {reason}");
            if let Some(failure) = failure {
                eprintln!("its last lines:");
                failure.tail.iter().for_each(|line| eprintln!("  {line}"));
            }
            Ok(Exit::Failed)
        }
        BuildStatus::Cancelled => {
            eprintln!("cancelled");
            Ok(Exit::Cancelled)
        }
        BuildStatus::Skipped { reason } => {
            eprintln!("skipped: {reason}");
            Ok(Exit::Ok)
        }
        _ => Err(Error::unexpected("the build ended in an unknown way")),
    }
}

/// The times of the phases on standard error.
pub(super) fn print_times(outcome: &BuildOutcome) {
    let times: Vec<String> = outcome
        .timings
        .iter()
        .map(|(phase, took)| format!("{} {:.2} s", phase.name(), took.as_secs_f64()))
        .collect();
    eprintln!("time: {}", times.join(", "));
}

/// Shows what happens on standard error.
pub(super) struct Printer;

#[async_trait::async_trait]
impl BuildSink for Printer {
    fn emit(&self, event: BuildEvent) {
        match event {
            BuildEvent::StepStarted { index, total, name } => eprintln!("[{}/{total}] {name}", index + 1),
            BuildEvent::Log { stream: LogStream::Engine, line, .. } => eprintln!("{line}"),
            BuildEvent::Log { line, .. } => eprintln!("  {line}"),
            BuildEvent::StepFinished { index, took, cached } => {
                let how = if cached { "cached".to_owned() } else { format!("{:.1} s", took.as_secs_f64()) };
                eprintln!("[{}] done ({how})", index + 1);
            }
            BuildEvent::TestStarted { index, total, subject } => {
                eprintln!("test {} of {total}: {subject}", index + 1);
            }
            BuildEvent::TestFinished { report, .. } => {
                let how = if report.status == TestStatus::Passed { "passed" } else { "failed" };
                eprintln!("test of {} {how} ({:.1} s)", report.subject, report.took.as_secs_f64());
            }
            _ => {}
        }
    }

    async fn ready(&self) {}
}
