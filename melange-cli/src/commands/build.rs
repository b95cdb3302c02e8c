//! `melange build`: definitions, on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::builder::{BuildInput, BuildOutcome, BuildStatus, Builder, BuiltFile};
use melange_remote_sdk::engine::EngineBuilder;
use melange_remote_sdk::error::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::local::{self, Extras, Printer};
use super::signing_key;
use crate::args::{BuildArgs, Output};
use crate::exit::{self, Exit};
use crate::{input, note, out};

pub(super) async fn run(args: BuildArgs, output: Output) -> Result<Exit> {
    input::check_stdin(args.files.iter().map(PathBuf::as_path))?;
    check_folder(&args)?;
    let extras = Extras {
        signing_key: args.signing_key.as_deref().map(signing_key).transpose()?,
        epoch_seconds: args.source_date_epoch,
        packages: args.package_append.clone(),
    };
    let builder = local::builder(&args.run, extras)?;
    let cancel = local::cancelled_by_signals();
    let mut exit = Exit::Ok;
    let mut bad = Vec::new();
    for file in &args.files {
        if cancel.is_cancelled() {
            break;
        }
        let one = match build(&args, file, &builder, &cancel, output).await {
            Ok(one) => one,
            // With a single definition, its error is the command's.
            Err(error) if args.files.len() == 1 || out::reader_is_gone(&error) => return Err(error),
            Err(error) => {
                note::error(&error, output);
                exit::code_of(&error)
            }
        };
        if one != Exit::Ok {
            bad.push(input::name(file));
        }
        exit = exit.and(one);
    }
    if args.files.len() > 1 && !bad.is_empty() && output == Output::Text {
        let (count, all) = (bad.len(), args.files.len());
        note::line(&format!("{count} of {all} definitions did not build: {}", bad.join(", ")));
    }
    Ok(exit)
}

/// Builds one definition and puts away what it made.
async fn build(
    args: &BuildArgs,
    file: &Path,
    builder: &EngineBuilder,
    cancel: &CancellationToken,
    output: Output,
) -> Result<Exit> {
    let input = BuildInput { with_test: args.test, ..local::input(file, &args.run)? };
    let printer = Printer::new(output);
    let outcome = builder.build(&input, Arc::clone(&printer) as _, cancel.clone()).await?;
    // The status line goes before the results come.
    drop(printer);
    let exit = local::exit_of(&outcome, output)?;
    let mut placed = Vec::new();
    if outcome.status == BuildStatus::Succeeded {
        placed = put_away(args, file, &outcome)?;
    }
    if output == Output::Json {
        out::json_line(&local::as_json(file, &outcome, &placed))?;
    } else if outcome.status == BuildStatus::Succeeded {
        out::text(&placed.iter().map(|path| format!("{path}\n")).collect::<String>())?;
        local::print_times(&outcome);
    }
    Ok(exit)
}

/// Finds out before the work whether its results can be put away. Makes nothing: a build that fails leaves no folder.
fn check_folder(args: &BuildArgs) -> Result<()> {
    let folder = args.out_dir.join(args.run.arch.apk_name());
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
