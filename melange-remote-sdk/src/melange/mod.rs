//! Definitions: from the YAML that people write to the plan that builders run.
//!
//! ```text
//! text ─ yaml ─▶ nodes ─ document ─▶ Document ─ prepare ─▶ Document ─ compile ─▶ Plan
//!                                    as written            tokens, ranges        concrete values
//! ```
//!
//! Everything here is pure: no clock, no network, no disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::arch::Arch;

pub mod bump;
mod compile;
mod convert;
pub mod defaults;
pub mod document;
mod dotenv;
pub mod emit;
pub mod expression;
pub mod fetches;
pub mod lint;
pub mod lsp;
pub mod pipelines;
pub mod plan;
mod prepare;
mod regexes;
mod scripts;
mod strict;
pub mod substitute;
mod transforms;
mod validate;

use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};
use defaults::RepositoryDefaults;
use document::{Document, Reading};
use pipelines::PipelineSet;
use plan::{Plan, PlanPackage};

/// What a caller decides about a compilation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompileOptions {
    /// Build options that are switched on.
    pub build_options: BTreeSet<String>,
    /// Files of variables, YAML maps laid over the definition's `vars` in order.
    pub vars_files: Vec<Arc<Source>>,
    /// Files of environment variables in dotenv syntax; the definition wins over all, an earlier file over a later.
    pub env_files: Vec<Arc<Source>>,
    /// The flavor of `host.triplet.*`: `gnu` or `musl`.
    pub libc_flavor: String,
    /// The commit recorded when the definition names none.
    pub commit: String,
    /// Repositories for definitions that name none; `None` injects nothing.
    pub defaults: Option<RepositoryDefaults>,
    /// Whether a version may be one that apk cannot compare, as melange takes it: for those who read definitions and build
    /// nothing.
    pub any_version: bool,
    /// Whether scripts may be such that no shell reads them, and pipelines such that run nothing, as melange compiles them:
    /// for those who read definitions and build nothing.
    pub any_script: bool,
    /// Once it is true, the compilation comes to an end with a mistake that says so.
    pub cancel: Arc<AtomicBool>,
}

impl CompileOptions {
    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            build_options: BTreeSet::new(),
            vars_files: Vec::new(),
            env_files: Vec::new(),
            libc_flavor: "gnu".to_owned(),
            commit: "unknown".to_owned(),
            defaults: Some(RepositoryDefaults::default()),
            any_version: false,
            any_script: false,
            cancel: Arc::default(),
        }
    }
}

/// What a definition comes to.
#[derive(Debug, Clone)]
pub enum Compiled {
    /// Something to run.
    Plan(Box<Plan>),
    /// Nothing to do on this architecture.
    Skipped {
        /// The name of the main package.
        package: String,
        /// Why, in a sentence without a full stop.
        reason: String,
    },
}

/// Parses and compiles a definition for one architecture.
///
/// # Errors
/// Every independent mistake of all stages, each with file, line, column, cause and hint.
///
/// ```
/// use melange_remote_sdk::arch::Arch;
/// use melange_remote_sdk::melange::{self, Compiled, pipelines::PipelineSet};
/// use melange_remote_sdk::text::diagnostics::Source;
///
/// let source = Source::new("a.yaml", "package:\n  name: a\n  version: 1.10\n  epoch: 0\npipeline:\n  - runs: echo ${{package.version}}\n");
/// let compiled = melange::compile(&source, Arch::X86_64, &PipelineSet::default(), &Default::default()).unwrap();
/// let Compiled::Plan(plan) = compiled else { panic!("skipped") };
/// assert_eq!(plan.package.pipeline[0].runs, "echo 1.10");
/// ```
pub fn compile(
    source: &Arc<Source>,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<Compiled, Diagnostics> {
    stages(source, arch, pipelines, options, true)
}

fn stages(
    source: &Arc<Source>,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
    steps_count: bool,
) -> Result<Compiled, Diagnostics> {
    let mut mistakes = Mistakes::default();
    let Reading { mut document, mistakes: found, usable } = Document::read(source)?;
    mistakes.add(found);
    if !usable {
        return Err(mistakes.into_diagnostics(source));
    }
    if let Some(defaults) = &options.defaults {
        // A test without repositories takes those of the build.
        defaults.inject(&mut document.environment);
    }
    let mut found = Vec::new();
    let prepared = prepare::prepare(document, options, &mut found).map(|mut prepared| {
        prepare::switch_on(&mut prepared, options, &mut found);
        prepared
    });
    mistakes.add(found);
    // What is left undone by then is not at fault.
    if options.is_cancelled() {
        return Err(Diagnostics(vec![Diagnostic::new(
            source,
            Position::default(),
            "the check was cancelled",
        )]));
    }
    let Some(prepared) = prepared else { return Err(mistakes.into_diagnostics(source)) };
    if mistakes.is_empty()
        && let Some(skipped) = compile::skipped(&prepared.document, arch)
    {
        return Ok(skipped);
    }
    let mut found = Vec::new();
    let plan = compile::compile(prepared, arch, pipelines, options, &mut found);
    if steps_count {
        mistakes.add(found);
    }
    if options.is_cancelled() {
        return Err(Diagnostics(vec![Diagnostic::new(
            source,
            Position::default(),
            "the check was cancelled",
        )]));
    }
    if mistakes.is_empty() {
        return Ok(Compiled::Plan(Box::new(plan)));
    }
    Err(mistakes.into_diagnostics(source))
}

/// As [`compile`], for looking at a definition: mistakes in steps, such as pipelines that are not at hand, leave those
/// steps empty instead of being reported.
///
/// # Errors
/// Mistakes of reading and preparing.
pub fn inspect(
    source: &Arc<Source>,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<Compiled, Diagnostics> {
    stages(source, arch, pipelines, options, false)
}

/// The name of the package that a definition says it makes, as it is written; `None` when it says none, or cannot be
/// read. Nothing else of it is checked.
///
/// ```
/// use melange_remote_sdk::melange::package_name;
/// use melange_remote_sdk::text::diagnostics::Source;
///
/// assert_eq!(package_name(&Source::new("a.yaml", "package:\n  name: zlib\n")).as_deref(), Some("zlib"));
/// assert_eq!(package_name(&Source::new("a.yaml", "packages: [")), None);
/// ```
pub fn package_name(source: &Arc<Source>) -> Option<String> {
    let name = Document::read(source).ok()?.document.package.name.value;
    Some(name).filter(|name| !name.is_empty())
}

/// What a compiled definition, such as packages carry, declares of one of its packages; without its steps. What another
/// version of the format has besides is passed over. `None` when it has no such package.
///
/// ```
/// use melange_remote_sdk::melange::declared_package;
/// use melange_remote_sdk::text::diagnostics::Source;
///
/// let text = "package:\n  name: a\n  version: 1.2\n  epoch: 3\nsubpackages:\n  - name: a-dev\n    dependencies:\n      runtime: [a]\n";
/// let package = declared_package(&Source::new(".melange.yaml", text), "a-dev").unwrap();
/// assert_eq!((package.full_version().as_str(), &package.runtime[0][..]), ("1.2-r3", "a"));
/// ```
pub fn declared_package(source: &Arc<Source>, name: &str) -> Option<PlanPackage> {
    let document = Document::read(source).ok()?.document;
    let main = convert::main_package(&document, &CompileOptions::default());
    if main.name == name {
        return Some(main);
    }
    let sub = document.subpackages.iter().find(|sub| sub.name.value == name)?;
    Some(convert::subpackage(sub, &main))
}

/// The mistakes of all stages. What a later stage says about a place that an earlier one named already is left out.
#[derive(Default)]
struct Mistakes(Vec<Diagnostic>);

impl Mistakes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, stage: Vec<Diagnostic>) {
        let known: BTreeSet<(String, Option<Position>)> =
            self.0.iter().map(|mistake| (mistake.source.name.clone(), mistake.at)).collect();
        let is_new = |mistake: &Diagnostic| !known.contains(&(mistake.source.name.clone(), mistake.at));
        self.0.extend(stage.into_iter().filter(is_new));
    }

    /// In order of place, those of the definition itself first, each once, at most
    /// [`limits::DIAGNOSTICS_MAX`](crate::limits::DIAGNOSTICS_MAX) of them.
    fn into_diagnostics(self, main: &Arc<Source>) -> Diagnostics {
        let mut list = self.0;
        list.sort_by(|a, b| {
            let key = |mistake: &Diagnostic| (mistake.source.name != main.name, mistake.at);
            key(a).0.cmp(&key(b).0).then_with(|| (&a.source.name, a.at).cmp(&(&b.source.name, b.at)))
        });
        list.dedup();
        drop_echoes(&mut list);
        list.truncate(crate::limits::DIAGNOSTICS_MAX);
        Diagnostics(list)
    }
}

/// A variable's value may refer to another that is not defined: what uses the first is not at fault, when the place
/// that names the second is reported too.
fn drop_echoes(list: &mut Vec<Diagnostic>) {
    let is_written = |mistake: &Diagnostic| match mistake.undefined_variable() {
        Some(name) => mistake.source_line().is_none_or(|line| line.contains(name)),
        None => true,
    };
    let written: BTreeSet<String> =
        list.iter().filter(|mistake| is_written(mistake)).map(|mistake| mistake.message.clone()).collect();
    list.retain(|mistake| is_written(mistake) || !written.contains(&mistake.message));
}

#[cfg(test)]
mod tests;
