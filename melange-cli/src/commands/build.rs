//! `melange build`: one definition, on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::builder::engine::{EngineBuilder, EngineOptions};
use melange_remote_sdk::builder::runners::AddressedRunners;
use melange_remote_sdk::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, LogStream,
};
use melange_remote_sdk::buildkit::BuildkitOptions;
use melange_remote_sdk::environment::Assembler;
use melange_remote_sdk::environment::fetch::HttpFetcher;
use melange_remote_sdk::environment::repository::LocalAccess;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::sandbox::{self, SandboxOptions};
use tokio_util::sync::CancellationToken;

use super::{collect_pipelines, print_line, signing_key};
use crate::args::BuildArgs;
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
    let (tag, place) = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((tag, place)) => (format!("@{tag} "), place),
        None => (String::new(), line),
    };
    if place.contains("://") {
        return Ok(line.to_owned());
    }
    let path = std::path::absolute(place).map_err(|e| Error::io("find", Path::new(place), e))?;
    Ok(format!("{tag}{}", path.display()))
}

pub(super) async fn run(args: BuildArgs) -> Result<Exit> {
    let text = std::fs::read_to_string(&args.file).map_err(|e| Error::io("read", &args.file, e))?;
    let state = state_dir(args.state_dir.as_deref())?;
    let builder = builder(&args, &state)?;
    let beside = args.file.with_extension("");
    let input = BuildInput {
        attempt: args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        config_yaml: text,
        config_name: args.file.display().to_string(),
        pipelines: collect_pipelines(&args.pipeline_dirs)?,
        arch: args.arch,
        debug: args.debug,
        backend_addr: args.buildkit_addr.clone().unwrap_or_else(|| sandbox::ADDRESS.to_owned()),
        source_dir: args.source_dir.clone().or_else(|| beside.is_dir().then_some(beside)),
    };
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
    let outcome = builder.build(&input, Arc::new(Printer), cancel).await?;
    finish(&args, &outcome)
}

fn builder(args: &BuildArgs, state: &Path) -> Result<EngineBuilder> {
    let mut options = EngineOptions::new(state);
    options.source_cache = args
        .cache_dir
        .clone()
        .map(std::path::absolute)
        .transpose()
        .map_err(|e| Error::unexpected("no current folder").source(e))?;
    options.signing_key = args.signing_key.as_deref().map(signing_key).transpose()?.map(Arc::new);
    options.namespace.clone_from(&args.namespace);
    options.epoch_seconds = args.source_date_epoch;
    options.extra_packages.clone_from(&args.package_append);
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
        SandboxOptions { state_dir: state.to_owned(), extra_capabilities: true },
        BuildkitOptions::default(),
    );
    let assembler = Assembler::new(state, Arc::new(HttpFetcher::new()?), LocalAccess::Any, verify);
    Ok(EngineBuilder::new(options, assembler, Arc::new(runners)))
}

fn finish(args: &BuildArgs, outcome: &BuildOutcome) -> Result<Exit> {
    match &outcome.status {
        BuildStatus::Succeeded => {}
        BuildStatus::Failed { reason, failure } => {
            eprintln!("failed: {reason}");
            if let Some(failure) = failure {
                eprintln!("its last lines:");
                failure.tail.iter().for_each(|line| eprintln!("  {line}"));
            }
            return Ok(Exit::Failed);
        }
        BuildStatus::Cancelled => {
            eprintln!("cancelled");
            return Ok(Exit::Cancelled);
        }
        BuildStatus::Skipped { reason } => {
            eprintln!("skipped: {reason}");
            return Ok(Exit::Ok);
        }
        _ => return Err(Error::unexpected("the build ended in an unknown way")),
    }
    for file in &outcome.files {
        let path = args.out_dir.join(&file.name);
        let folder = path.parent().unwrap_or(&args.out_dir);
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        if file.name.ends_with("/APKINDEX.tar.gz") && path.exists() {
            merge_index(args, &file.path, &path)?;
        } else {
            super::index::write_whole(&path, &super::read(&file.path)?)?;
        }
        print_line(&path.display().to_string());
    }
    let times: Vec<String> = outcome
        .timings
        .iter()
        .map(|(phase, took)| format!("{} {:.2} s", phase.name(), took.as_secs_f64()))
        .collect();
    eprintln!("time: {}", times.join(", "));
    Ok(Exit::Ok)
}

/// Adds the new packages to the index that is there.
fn merge_index(args: &BuildArgs, new: &Path, path: &Path) -> Result<()> {
    use melange_remote_sdk::apk::index::Index;
    let mut index = Index::read(&super::read(path)?, None)?;
    for package in Index::read(&super::read(new)?, None)?.packages {
        index.put(package);
    }
    let key = args.signing_key.as_deref().map(signing_key).transpose()?;
    super::index::write_whole(path, &index.write(key.as_ref())?)
}

/// Shows what happens on standard error.
struct Printer;

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
            _ => {}
        }
    }
}
