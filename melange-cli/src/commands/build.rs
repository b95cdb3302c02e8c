//! `melange build`: definitions, on this machine.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builder::{BuildOutcome, BuildSink, BuildStatus, Builder, BuiltFile};
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::engine::EngineBuilder;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::{self, Compiled};
use tokio_util::sync::CancellationToken;

use super::local::{self, Extras, Printer};
use super::trace::Trace;
use super::{definition, lint, origin, signing_key};
use crate::args::{BuildArgs, Output, chosen, host};
use crate::exit::{self, Exit};
use crate::{input, note, out};

pub(super) async fn run(args: BuildArgs, output: Output) -> Result<Exit> {
    input::check_stdin(args.files.iter().map(PathBuf::as_path))?;
    let jobs = jobs(&args).await?;
    for arch in jobs.iter().map(|job| job.arch).collect::<BTreeSet<_>>() {
        check_folder(&args, arch)?;
    }
    let extras = Extras {
        signing_key: args.signing_key.as_deref().map(signing_key).transpose()?,
        epoch_seconds: epoch_seconds(&args),
        packages: args.package_append.clone(),
        strip_origin: args.emit.strip_origin_name,
        linters: args.linters.sets(),
    };
    let builder = local::builder(&args.run, extras)?;
    let trace = args.emit.trace.as_ref().map(|_| Trace::start());
    let cancel = local::cancelled_by_signals();
    let mut exit = Exit::Ok;
    let mut bad = Vec::new();
    for job in &jobs {
        if cancel.is_cancelled() {
            break;
        }
        let one = match build(&args, job, (&builder, trace.as_ref()), &cancel, output).await {
            Ok(one) => one,
            // With a single build, its error is the command's.
            Err(error) if jobs.len() == 1 || out::reader_is_gone(&error) => return Err(error),
            Err(error) => {
                note::error(&error, output);
                exit::code_of(&error)
            }
        };
        if one != Exit::Ok {
            bad.push(job.name(&args));
        }
        exit = exit.and(one);
    }
    if let (Some(trace), Some(path)) = (trace, &args.emit.trace) {
        trace.write(path).map_err(|e| input::failed("write", path, e))?;
    }
    if jobs.len() > 1 && !bad.is_empty() && output == Output::Text {
        let (count, all) = (bad.len(), jobs.len());
        let ended = if all == args.files.len() { "definitions did not build" } else { "builds failed" };
        note::line(&format!("{count} of {all} {ended}: {}", bad.join(", ")));
    }
    Ok(exit)
}

/// One definition for one architecture.
struct Job<'a> {
    file: &'a Path,
    arch: Arch,
}

impl Job<'_> {
    /// What it is called where several are told of.
    fn name(&self, args: &BuildArgs) -> String {
        let file = input::name(self.file);
        if args.archs.is_empty() { file } else { format!("{file} ({})", self.arch) }
    }
}

/// What is built, in its order.
async fn jobs(args: &BuildArgs) -> Result<Vec<Job<'_>>> {
    let asked = chosen(&args.archs);
    // What runs steps for more than this machine's architecture says so itself.
    let daemon = match &args.run.buildkit_addr {
        Some(addr) if asked.is_empty() => {
            // A daemon that does not answer is told of by the build.
            BuildkitRunner::new(addr.parse()?, BuildkitOptions::default()).ping().await.ok()
        }
        _ => None,
    };
    let mut jobs = Vec::new();
    for file in &args.files {
        let archs = match &daemon {
            _ if !asked.is_empty() => asked.clone(),
            Some(daemon) => own_architectures(file, args, |arch| daemon.runs(arch)),
            None => vec![host()],
        };
        jobs.extend(archs.into_iter().map(|arch| Job { file, arch }));
    }
    Ok(jobs)
}

/// The architectures that a definition lists and that can be built. One that lists none, and so is for all, is built for
/// this machine: most repositories have packages for one or two architectures only, and a build for another would fail.
fn own_architectures(file: &Path, args: &BuildArgs, runs: impl Fn(Arch) -> bool) -> Vec<Arch> {
    let wanted = || -> Result<Vec<Arch>> {
        let (pipelines, options) = definition::compiler(&args.run.definition)?;
        let source = definition::source(file)?;
        let is_wanted = |arch: &Arch| {
            let inspected = melange::inspect(&source, *arch, &pipelines, &options);
            matches!(inspected, Ok(Compiled::Plan(_)))
        };
        Ok(Arch::all().filter(is_wanted).collect())
    };
    // What is wrong with the definition is told by its build.
    let wanted = wanted().unwrap_or_default();
    let lists = wanted.len() < Arch::all().count();
    let found: Vec<Arch> = wanted.into_iter().filter(|arch| lists && runs(*arch)).collect();
    if found.is_empty() { vec![host()] } else { found }
}

/// Builds one definition for one architecture and puts away what it made.
async fn build(
    args: &BuildArgs,
    job: &Job<'_>,
    (builder, trace): (&EngineBuilder, Option<&Trace>),
    cancel: &CancellationToken,
    output: Output,
) -> Result<Exit> {
    let (file, arch) = (job.file, job.arch);
    let mut input = local::input(file, arch, &args.run)?;
    input.with_test = args.test;
    input.source_rules.except.push(args.out_dir.clone());
    input.source_rules.except.extend(args.signing_key.clone());
    if args.emit.empty_workspace {
        input.source_dir = None;
    }
    input.origin = Box::pin(origin::of(file, &args.origin)).await;
    let printer = Printer::new(output);
    let mut sink: Arc<dyn BuildSink> = Arc::clone(&printer) as _;
    if let Some(trace) = trace {
        sink = trace.of(format!("{} ({arch})", input::name(file)), sink);
    }
    let outcome = builder.build(&input, sink, cancel.clone()).await?;
    // The status line goes before the results come.
    drop(printer);
    let exit = local::exit_of(&outcome, output)?;
    let mut placed = Vec::new();
    if args.linters.persist_lint_results {
        // Also of packages that are not made for it.
        outcome.lint.iter().try_for_each(|lint| lint::persist(&args.out_dir, arch.apk_name(), lint))?;
    }
    if outcome.status == BuildStatus::Succeeded {
        placed = put_away(args, file, &outcome)?;
        if args.emit.create_build_log {
            log_packages(&outcome)?;
        }
        if let Some(path) = &args.emit.dependency_log {
            log_dependencies(&outcome, path, arch)?;
        }
    }
    if output == Output::Json {
        out::json_line(&local::as_json(file, arch, &outcome, &placed))?;
    } else if outcome.status == BuildStatus::Succeeded {
        out::text(&placed.iter().map(|path| format!("{path}\n")).collect::<String>())?;
        local::print_times(&outcome);
    }
    Ok(exit)
}

/// The time that is stamped on everything.
fn epoch_seconds(args: &BuildArgs) -> i64 {
    args.source_date_epoch.and_then(|epoch| epoch.0).or(args.emit.build_date).unwrap_or(0)
}

/// Adds what was built to `packages.log` in this folder.
fn log_packages(outcome: &BuildOutcome) -> Result<()> {
    let mut text = String::new();
    for built in outcome.files.iter().filter(|file| file.name.ends_with("/APKINDEX.tar.gz")) {
        for package in Index::read(&input::read(&built.path, input::INDEX_BYTES_MAX)?, None)?.packages {
            let IndexPackage { arch, origin, name, version, .. } = package;
            text.push_str(&format!("{arch}|{origin}|{name}|{version}\n"));
        }
    }
    let path = Path::new("packages.log");
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // In one piece, so that builds at once do not mix their lines.
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| input::failed("write", path, e))
}

/// Writes what packages need and provide, in place of what the last build wrote.
fn log_dependencies(outcome: &BuildOutcome, path: &Path, arch: Arch) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{arch}"));
    let mut text = String::new();
    for built in outcome.files.iter().filter(|file| file.name.ends_with(".apk")) {
        let info = ApkFile::open_control(&built.path)?.info;
        let line = serde_json::json!({
            "package": info.pkgname, "runtime": info.depend, "provides": info.provides, "vendored": info.vendored,
        });
        text.push_str(&format!("{line}\n"));
    }
    super::index::write_whole(Path::new(&name), text.as_bytes())
}

/// Finds out before the work whether its results can be put away. Makes nothing: a build that fails leaves no folder.
fn check_folder(args: &BuildArgs, arch: Arch) -> Result<()> {
    let folder = args.out_dir.join(arch.apk_name());
    let absolute =
        std::path::absolute(&folder).map_err(|e| Error::unexpected("no current folder").source(e))?;
    let there = absolute.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let tried = if there.is_dir() {
        tempfile::Builder::new().prefix(".melange-").tempfile_in(there).map(drop)
    } else {
        Err(std::io::ErrorKind::NotADirectory.into())
    };
    tried.map_err(|e| input::failed("write to", &folder, e).hint("give another folder with `--out-dir`"))?;
    let index = folder.join("APKINDEX.tar.gz");
    if index.exists() {
        read_index(&index)?;
    }
    Ok(())
}

fn read_index(path: &Path) -> Result<Index> {
    let read = Index::read(&input::read(path, input::INDEX_BYTES_MAX)?, None);
    read.map_err(|error| {
        let hint = "the new packages would be added to it: remove it or give another `--out-dir`";
        error.with("file", path.display()).hint(hint)
    })
}

/// Moves what was built to its place, packages before the index. What cannot be moved is kept and told.
fn put_away(args: &BuildArgs, file: &Path, outcome: &BuildOutcome) -> Result<Vec<String>> {
    let (indexes, packages): (Vec<_>, Vec<_>) =
        outcome.files.iter().partition(|file| file.name.ends_with("/APKINDEX.tar.gz"));
    let mut placed = Vec::new();
    let indexes = indexes.into_iter().filter(|_| args.emit.generate_index);
    for built in packages.into_iter().chain(indexes) {
        match put(args, built) {
            Ok(path) => placed.push(path.display().to_string()),
            Err(error) => return Err(keep(args, file, outcome, error)),
        }
    }
    Ok(placed)
}

fn put(args: &BuildArgs, built: &BuiltFile) -> Result<PathBuf> {
    let path = args.out_dir.join(&built.name);
    let folder = path.parent().unwrap_or(&args.out_dir);
    let failed = |e| input::failed("create", folder, e);
    std::fs::create_dir_all(folder).map_err(failed)?;
    if built.name.ends_with("/APKINDEX.tar.gz") && path.exists() {
        merge_index(args, &built.path, &path)?;
    } else {
        let mut source = input::open(&built.path)?;
        super::index::place(&path, |file| std::io::copy(&mut source, file).map(drop))?;
    }
    Ok(path)
}

/// Keeps the files of a build that cannot be put in their place, where the next build does not clean up.
fn keep(args: &BuildArgs, file: &Path, outcome: &BuildOutcome, error: Error) -> Error {
    let kept = || -> std::io::Result<PathBuf> {
        let state =
            local::state_dir(args.run.state_dir.as_deref()).map_err(std::io::Error::other)?.join("kept");
        std::fs::create_dir_all(&state)?;
        let prefix = format!("{}-", local::attempt(file));
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(&state)?;
        for built in &outcome.files {
            let path = folder.path().join(&built.name);
            std::fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            // Both lie in the state folder: this needs no room on its disk.
            std::fs::rename(&built.path, path)?;
        }
        Ok(folder.keep())
    };
    match kept() {
        Ok(folder) => error.hint(format!("the packages are kept in {}", folder.display())),
        Err(lost) => error.hint(format!("the packages could not be kept either: {lost}")),
    }
}

/// Adds the new packages to the index that is there.
fn merge_index(args: &BuildArgs, new: &Path, path: &Path) -> Result<()> {
    let mut index = read_index(path)?;
    for package in Index::read(&input::read(new, input::INDEX_BYTES_MAX)?, None)?.packages {
        index.put(package);
    }
    let key = args.signing_key.as_deref().map(signing_key).transpose()?;
    super::index::write_whole(path, &index.write(key.as_ref())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn a_definition_is_built_for_what_it_lists_and_what_can_be_built() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let Command::Build(args) = Args::parse_from(["melange", "build", "a.yaml"]).command else { panic!() };
        let found = |package: &str, runs: &[Arch]| {
            let text = format!(
                "package:\n  name: a\n  version: \"1\"\n  epoch: 0\n{package}pipeline:\n  - runs: \"true\"\n"
            );
            std::fs::write(&file, text).unwrap();
            own_architectures(&file, &args, |arch| runs.contains(&arch))
        };
        let both = [Arch::X86_64, Arch::Aarch64];
        assert_eq!(found("  target-architecture: [aarch64, x86_64, riscv64]\n", &both), both);
        assert_eq!(found("  target-architecture: [aarch64]\n", &both), [Arch::Aarch64]);
        // What cannot be built here is told of, as what is skipped or as what is wrong.
        assert_eq!(found("  target-architecture: [riscv64]\n", &both), [host()]);
        assert_eq!(found("  nonsense: 1\n", &both), [host()]);
        for all in ["", "  target-architecture: [all]\n"] {
            assert_eq!(found(all, &both), [host()]);
        }
    }
}
