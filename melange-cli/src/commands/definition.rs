//! What all verbs on definitions share: the files they name, read with a bound, and options for the compiler.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, lsp};
use melange_remote_sdk::text::diagnostics::{Diagnostic, Diagnostics, Source};

use super::collect_pipelines;
use crate::args::{DefinitionArgs, Output};
use crate::input;

/// How many files are worked on before their results are printed.
const CHUNK: usize = 128;

/// Bytes of a definition or what goes with one that are read; one more is refused by the compiler.
pub(super) const TEXT_BYTES_MAX: u64 = limits::DEFINITION_BYTES_MAX as u64;

/// Reads a text file as a source named as the caller wrote it; `-` is standard input.
pub(super) fn source(path: &Path) -> Result<Arc<Source>> {
    Ok(Source::new(input::name(path), input::read_text(path, TEXT_BYTES_MAX)?))
}

/// The files that `paths` stand for: folders give the `.yaml` files right in them, sorted.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    input::check_stdin(paths.iter().map(PathBuf::as_path))?;
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let list = |error| input::failed("list", path, error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(list)? {
            let file = entry.map_err(list)?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".yaml") && !name.starts_with('.') && file.is_file() {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::invalid(format!("{} holds no .yaml file", path.display())));
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// The pipelines and the options that the arguments describe.
pub(super) fn compiler(args: &DefinitionArgs) -> Result<(PipelineSet, CompileOptions)> {
    let pipelines = PipelineSet::new(&collect_pipelines(&args.pipeline_dirs)?)?;
    let sources = |paths: &[PathBuf]| paths.iter().map(|path| source(path)).collect::<Result<Vec<_>>>();
    let mut options = CompileOptions::default();
    options.build_options = args.build_options.iter().cloned().collect();
    options.vars_files = sources(&args.vars_files)?;
    options.env_files = sources(&args.env_files)?;
    options.libc_flavor.clone_from(&args.libc_flavor);
    Ok((pipelines, options))
}

/// Diagnostics for people, or as one JSON object a line in the form of the Language Server Protocol.
pub(super) fn messages(format: Output, file: &str, found: &[Diagnostic]) -> String {
    match format {
        Output::Text => Diagnostics(found.to_vec()).to_string(),
        Output::Json => {
            let object = |file: &lsp::FileDiagnostics| serde_json::to_string(file).unwrap_or_default() + "\n";
            lsp::by_file(file, found).iter().map(object).collect()
        }
    }
}

/// Works on every file on all cores and hands the results over in the order of the files.
pub(super) fn for_each<T: Send>(
    files: &[PathBuf],
    work: impl Fn(&Path) -> T + Sync,
    mut done: impl FnMut(&Path, T) -> Result<()>,
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for chunk in files.chunks(CHUNK) {
        let next = AtomicUsize::new(0);
        let mut results: Vec<(usize, T)> = std::thread::scope(|scope| {
            let worker = || {
                let mut own = Vec::new();
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(file) = chunk.get(index)
                {
                    own.push((index, work(file)));
                }
                own
            };
            let workers: Vec<_> = (1..threads.min(chunk.len())).map(|_| scope.spawn(worker)).collect();
            let mut all = worker();
            for worker in workers {
                match worker.join() {
                    Ok(own) => all.extend(own),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        results.sort_by_key(|(index, _)| *index);
        for (index, result) in results {
            done(&chunk[index], result)?;
        }
    }
    Ok(())
}
