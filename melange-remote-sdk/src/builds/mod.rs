//! Builds of many packages: from definitions to jobs that wait for each other, and what each of these sees.
//!
//! ```text
//!            compile          indexes as they are now
//! request ───────────▶ definitions ─────┬─────▶ plan ─▶ document, indexes ─▶ artifact storage
//!                                       │        └────▶ jobs that wait for each other ─▶ job store
//!   durations of earlier jobs ──────────┘
//!
//! attempt of a job ─▶ its ancestors in the document ─▶ what they made, before the indexes of the document
//! ```
//!
//! [`BuildPlanner`] does the first part, [`BuildInputs`] the second. What a job sees follows from the request alone: the
//! same request gives the same environments, whatever was finished first. [`BuildIndexes`] makes a repository of what the
//! jobs have made so far.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::job::{BuildSource, DefinitionOrigin, Priority, SourceDigest};
use crate::labels::LabelSelector;
use crate::planner::PlanRequest;

#[cfg(feature = "git")]
mod checkout;
mod compile;
mod document;
mod failures;
mod inputs;
mod planner;
mod published;
mod repository;
mod standing;
mod storage;
mod views;

pub use document::{BuildDocument, KeptIndex, LoadedBuild, PlannedArch};
pub use failures::FailureGroup;
pub use inputs::BuildInputs;
pub use planner::{BuildPlanner, NewBuild, PlannedBuild, PlannerRules};
pub use repository::{BuildIndex, BuildIndexes};
pub use standing::{BuildChanges, BuildStanding, PackageStanding};
pub use storage::BuildFiles;

/// What is to be built.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuildRequest {
    /// The definitions by their paths, such as `zlib.yaml`.
    pub definitions: BTreeMap<String, String>,
    /// The pipelines that come with them, by their paths, such as `test/docs.yaml`.
    pub pipelines: BTreeMap<String, String>,
    /// The archives of the files beside definitions, by the names of packages or by the paths of definitions without
    /// `.yaml`.
    pub sources: BTreeMap<String, SourceDigest>,
    /// Where all of this comes from.
    pub source: BuildSource,
    /// Which of the definitions, and what becomes of circles.
    pub plan: PlanRequest,
    /// How they are built.
    pub options: BuildOptions,
    /// Who or what asks for it, in a few words.
    pub trigger: String,
}

impl BuildRequest {
    /// The archive of the files beside a definition.
    pub fn source_of(&self, package: &str, file: &str) -> Option<SourceDigest> {
        let path = file.strip_suffix(".yaml").unwrap_or(file);
        self.sources.get(path).or_else(|| self.sources.get(package)).copied()
    }
}

/// How the packages of a build are built; kept with its document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BuildOptions {
    /// The architectures, each once.
    pub architectures: Vec<Arch>,
    /// Repositories behind those of every environment.
    pub extra_repositories: Vec<String>,
    /// Keys besides those of every environment.
    pub extra_keyring: Vec<String>,
    /// Whether the definitions' tests run too.
    pub with_test: bool,
    /// Whether steps trace each command.
    pub debug: bool,
    /// Whether what was made already is made again.
    pub no_cache: bool,
    /// Whether what has not begun is left out once a job has failed.
    pub fail_fast: bool,
    /// How urgent the jobs are.
    pub priority: Priority,
    /// The labels that their backends must have.
    pub backend_selector: LabelSelector,
    /// Where the definitions come from, as the request states; what a git source tells counts before it.
    pub origin: DefinitionOrigin,
}
