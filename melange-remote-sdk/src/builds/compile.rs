//! The definitions of a request, compiled for an architecture on all cores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::Arch;
use crate::error::Result;
use crate::job::spec::JobPackage;
use crate::melange::pipelines::PipelineSet;
use crate::melange::plan::{Plan, PlanEnvironment};
use crate::melange::{self, CompileOptions, Compiled};
use crate::planner::{Definition, Skip};
use crate::text::diagnostics::{Diagnostics, Source};

/// What the definitions come to for an architecture.
#[derive(Debug, Default)]
pub(super) struct CompiledAll {
    /// Those that build for it, by path.
    pub(super) found: BTreeMap<String, CompiledOne>,
    /// Those that do not, and those with mistakes.
    pub(super) skipped: Vec<Skip>,
    /// The mistakes by the paths of the definitions.
    pub(super) mistakes: BTreeMap<String, Diagnostics>,
}

/// What is kept of a compiled definition.
#[derive(Debug)]
pub(super) struct CompiledOne {
    pub(super) definition: Definition,
    pub(super) package: JobPackage,
    /// The pipelines of the request that it uses, as `uses` names them.
    pub(super) pipelines: BTreeSet<String>,
    /// The repositories and keys of its environments.
    pub(super) places: BTreeSet<Places>,
}

/// Repositories and keys, as an environment names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Places {
    pub(super) repositories: Vec<String>,
    pub(super) keyring: Vec<String>,
}

impl Places {
    fn of(environment: &PlanEnvironment) -> Self {
        Self { repositories: environment.repositories.clone(), keyring: environment.keyring.clone() }
    }
}

/// What one definition comes to.
enum One {
    Found(Box<CompiledOne>),
    Skipped(Skip),
    Wrong(Diagnostics),
}

/// Compiles all definitions.
///
/// # Errors
/// When the pipelines cannot be used at all.
pub(super) fn all(
    definitions: &BTreeMap<String, String>,
    pipelines: &PipelineSet,
    arch: Arch,
    (options, with_test): (&CompileOptions, bool),
    complete: impl Fn(&mut Plan) + Sync,
) -> Result<CompiledAll> {
    let files: Vec<(&String, &String)> = definitions.iter().collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut own = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some((file, text)) = files.get(index)
        {
            own.push((index, one(file, text, pipelines, arch, (options, with_test), &complete)));
        }
        own
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, One)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.min(files.len())).map(|_| scope.spawn(worker)).collect();
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
    let mut all = CompiledAll::default();
    for (index, result) in results {
        let file = files[index].0.clone();
        match result {
            One::Found(found) => _ = all.found.insert(file, *found),
            One::Skipped(skip) => all.skipped.push(skip),
            One::Wrong(diagnostics) => {
                let name = stem(&file).to_owned();
                let reason = "the definition has mistakes".to_owned();
                all.skipped.push(Skip { name, file: file.clone(), reason });
                all.mistakes.insert(file, diagnostics);
            }
        }
    }
    Ok(all)
}

/// The name of a file without its folders and its ending.
fn stem(file: &str) -> &str {
    let name = file_name(file);
    name.strip_suffix(".yaml").unwrap_or(name)
}

/// The name of a file without its folders.
pub(super) fn file_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn one(
    file: &str,
    text: &str,
    pipelines: &PipelineSet,
    arch: Arch,
    (options, with_test): (&CompileOptions, bool),
    complete: &(impl Fn(&mut Plan) + Sync),
) -> One {
    let source: Arc<Source> = Source::new(file, text);
    match melange::compile(&source, arch, pipelines, options) {
        Ok(Compiled::Plan(mut plan)) => {
            complete(&mut plan);
            let tests = plan.tests.iter().filter(|_| with_test).map(|test| &test.environment);
            let places = std::iter::once(&plan.environment).chain(tests).map(Places::of).collect();
            let package = JobPackage::of(&plan, with_test);
            let definition = Definition::new(file, &plan);
            let pipelines = std::mem::take(&mut plan.inline_pipelines);
            One::Found(Box::new(CompiledOne { definition, package, pipelines, places }))
        }
        Ok(Compiled::Skipped { package, reason }) => {
            One::Skipped(Skip { name: package, file: file.to_owned(), reason })
        }
        Err(diagnostics) => One::Wrong(diagnostics),
    }
}
