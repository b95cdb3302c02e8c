//! Definitions: from the YAML that people write to the plan that builders run.
//!
//! ```text
//! text ─ yaml ─▶ nodes ─ document ─▶ Document ─ prepare ─▶ Document ─ compile ─▶ Plan
//!                                    as written            tokens, ranges        concrete values
//! ```
//!
//! Everything here is pure: no clock, no network, no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::arch::Arch;

mod compile;
mod convert;
pub mod defaults;
pub mod diagnostics;
pub mod document;
pub mod emit;
pub mod expression;
pub mod pipelines;
pub mod plan;
mod prepare;
pub mod script;
pub mod substitute;
mod validate;
pub mod yaml;

use defaults::RepositoryDefaults;
use diagnostics::{Diagnostics, Source};
use document::Document;
use pipelines::PipelineSet;
use plan::Plan;

/// What a caller decides about a compilation.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// Build options that are switched on.
    pub build_options: BTreeSet<String>,
    /// The flavor of `host.triplet.*`: `gnu` or `musl`.
    pub libc_flavor: String,
    /// The commit recorded when the definition names none.
    pub commit: String,
    /// Repositories for definitions that name none; `None` injects nothing.
    pub defaults: Option<RepositoryDefaults>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            build_options: BTreeSet::new(),
            libc_flavor: "gnu".to_owned(),
            commit: "unknown".to_owned(),
            defaults: Some(RepositoryDefaults::default()),
        }
    }
}

/// What a definition comes to.
#[derive(Debug, Clone)]
pub enum Compiled {
    /// Something to run.
    Plan(Box<Plan>),
    /// Nothing to do on this architecture, and why.
    Skipped(String),
}

/// Parses and compiles a definition for one architecture.
///
/// # Errors
/// Every independent mistake of the stage that found one, each with file, line, column, cause and hint.
///
/// ```
/// use melange_remote_sdk::arch::Arch;
/// use melange_remote_sdk::melange::{self, Compiled, diagnostics::Source, pipelines::PipelineSet};
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
    let mut document = Document::parse(source)?;
    apply_build_options(&mut document, &options.build_options);
    if let Some(defaults) = &options.defaults {
        defaults.inject(&mut document.environment);
    }
    let prepared = prepare::prepare(document)?;
    compile::compile(&prepared, arch, pipelines, options)
}

fn apply_build_options(document: &mut Document, selected: &BTreeSet<String>) {
    let options: BTreeMap<_, _> =
        document.options.iter().filter(|(name, _)| selected.contains(*name)).collect();
    for option in options.values() {
        document.vars.extend(option.vars.clone());
        let packages = &mut document.environment.contents.packages;
        packages.extend(option.add.iter().cloned());
        packages.retain(|package| !option.remove.iter().any(|remove| **remove == **package));
    }
}

#[cfg(test)]
mod tests;
