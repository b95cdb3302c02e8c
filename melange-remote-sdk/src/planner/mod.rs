//! The planner: which definitions are built, in which order, and why. Pure.
//!
//! ```text
//! definitions ─▶ providers ─▶ needs ─▶ selection ─▶ refusals ─▶ cuts ─▶ levels, ranks, critical path
//!   compiled     who stands    who       which of    what has    which needs the   ArchPlan
//!                for a name    needs     them        no begin    published serves
//! ```
//!
//! A definition needs another one when an entry of its environment is served by a package of that one, as a solver would
//! choose. Needs order a build. Where definitions need each other in a circle, a need is cut and a published package
//! stands in; nothing is cut silently, and where nothing can stand in, the plan says what has no beginning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apk::dependency::Dependency;
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::solver::RepositoryPackages;

mod cut;
mod definition;
mod draft;
mod durations;
mod explain;
mod graph;
mod needs;
mod providers;
mod selection;

pub use cut::CutAim;
pub use definition::{Definition, Produced, Skip};
pub use durations::Durations;
pub use explain::{Chain, Component, Step};
pub use selection::Selection;

/// Which definitions are planned besides those that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithDependencies {
    /// None.
    #[default]
    None,
    /// Those that are needed and published nowhere.
    Missing,
    /// All that are needed.
    All,
}

/// What becomes of definitions whose version is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rebuild {
    /// They are skipped.
    #[default]
    Missing,
    /// They are planned.
    All,
}

/// What is to be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanRequest {
    /// Which definitions.
    pub selection: Selection,
    /// Which besides.
    pub with_dependencies: WithDependencies,
    /// What becomes of those that are published.
    pub rebuild: Rebuild,
    /// How needs are chosen that are cut.
    pub cut: CutAim,
}

/// What a plan is made of, for one architecture.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// The architecture.
    pub arch: Arch,
    /// The definitions that build for it.
    pub definitions: Vec<Definition>,
    /// Those that do not, with the reason.
    pub skipped: Vec<Skip>,
    /// What is published, in the order in which environments ask.
    pub published: &'a [RepositoryPackages<'a>],
    /// How long jobs took.
    pub durations: Durations,
}

/// The plan for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArchPlan {
    /// The architecture.
    pub arch: Arch,
    /// The jobs, by level and by name.
    pub jobs: Vec<PlannedJob>,
    /// Which job waits for which, and why.
    pub edges: Vec<Edge>,
    /// The needs that published packages serve, so that there is no circle.
    pub cuts: Vec<Cut>,
    /// Definitions that are not built, with the reason, by name.
    pub skipped: Vec<Skip>,
    /// Entries that no definition at hand and no published package serves. A repository that a definition names itself
    /// may.
    pub missing: Vec<Missing>,
    /// What has no beginning: definitions that need each other, and nothing published stands in.
    pub refused: Vec<Refusal>,
    /// The jobs of the chain that takes longest, in the order in which they run.
    pub critical_path: Vec<usize>,
    /// The time that it is expected to take.
    pub critical_time: Duration,
    /// What the fewest cuts would come to, where more were made for shorter chains.
    pub fewest: Option<CutTrade>,
}

/// What a choice of cuts comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CutTrade {
    /// How many needs are cut.
    pub cuts: usize,
    /// How many jobs the longest chain has.
    pub levels: usize,
    /// The time that the chain is expected to take that takes longest.
    pub critical_time: Duration,
}

/// A job of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedJob {
    /// The name of its main package.
    pub name: String,
    /// The path of its definition.
    pub file: String,
    /// Its version with the epoch.
    pub version: String,
    /// The packages that it makes, the main one first.
    pub packages: Vec<String>,
    /// How many jobs the longest chain has that it waits for.
    pub level: usize,
    /// The jobs that it waits for.
    pub waits_for: Vec<usize>,
    /// What it is expected to take.
    pub expected: Duration,
    /// What it and the longest chain that waits for it are expected to take: the greater, the earlier it is to begin.
    pub remaining: Duration,
    /// How many jobs wait for it, directly and over others.
    pub dependents: usize,
}

/// A job that waits for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Edge {
    /// The one that waits.
    pub from: usize,
    /// The one that it waits for.
    pub to: usize,
    /// The entries of its environment that the other one serves; not empty.
    pub entries: Vec<String>,
}

/// A need that a published package serves instead of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cut {
    /// The job that needs.
    pub from: usize,
    /// The job that it would have to wait for.
    pub to: usize,
    /// The entries; not empty.
    pub entries: Vec<String>,
    /// A circle that it was in: each job needs the next one, and the last one the first, which is `from`.
    pub cycle: Vec<usize>,
    /// The published packages that serve the entries, each by name and version.
    pub stand_ins: Vec<String>,
}

/// An entry that nobody serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Missing {
    /// The entry.
    pub entry: String,
    /// The definitions whose environments have it.
    pub needed_by: Vec<String>,
    /// The path of a definition at hand that makes a package of this name and is not planned.
    pub made_by: Option<String>,
}

/// Definitions that need each other, where nothing published stands in for any of the needs of a circle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// A shortest circle: each definition needs the next one by the entry, and the last one the first.
    pub cycle: Vec<(String, String)>,
    /// How many definitions need each other so, those of the circle among them.
    pub members: usize,
}

/// Plans for one architecture. The same input gives the same plan.
///
/// # Errors
/// `NotFound` for a package or a pattern that no definition fits; `InvalidRequest` for a pattern that cannot be read;
/// `LimitExceeded` for too many definitions, or needs.
///
/// ```
/// use melange_remote_sdk::arch::Arch;
/// use melange_remote_sdk::melange::{self, Compiled};
/// use melange_remote_sdk::planner::{Definition, PlanInput, PlanRequest, plan};
/// use melange_remote_sdk::text::diagnostics::Source;
///
/// let compiled = |name: &str, needs: &str| {
///     let text = format!(
///         "package:\n  name: {name}\n  version: 1\n  epoch: 0\nenvironment:\n  contents:\n    packages: [{needs}]\n"
///     );
///     let source = Source::new(format!("{name}.yaml"), text);
///     match melange::compile(&source, Arch::X86_64, &Default::default(), &Default::default()) {
///         Ok(Compiled::Plan(plan)) => Definition::new(format!("{name}.yaml"), &plan),
///         other => panic!("{other:?}"),
///     }
/// };
/// let input = PlanInput {
///     arch: Arch::X86_64,
///     definitions: vec![compiled("tool", "lib"), compiled("lib", "")],
///     skipped: Vec::new(),
///     published: &[],
///     durations: Default::default(),
/// };
/// let plan = plan(&input, &PlanRequest::default()).unwrap();
/// let order: Vec<(&str, usize)> = plan.jobs.iter().map(|job| (job.name.as_str(), job.level)).collect();
/// assert_eq!(order, [("lib", 0), ("tool", 1)]);
/// ```
pub fn plan(input: &PlanInput<'_>, request: &PlanRequest) -> Result<ArchPlan> {
    if input.definitions.len() > limits::PLAN_DEFINITIONS_MAX {
        let message = format!(
            "there are {} definitions, at most {}",
            input.definitions.len(),
            limits::PLAN_DEFINITIONS_MAX
        );
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let (definitions, mut skipped) = unique(input);
    let mut chosen = request.selection.choose(&definitions, &mut skipped)?;
    let all = input.published.iter().flat_map(|repository| repository.packages);
    let published = all.map(|package| (package.name.as_str(), package.version.as_str())).collect();
    let mut already = selection::published(&mut chosen, request.rebuild, &definitions, &published);
    if request.with_dependencies != WithDependencies::None {
        let packages = providers::Packages::new(&definitions, input.published);
        let providers = providers::Providers::new(&packages);
        let needs = needs::Needs::new(&definitions, &providers);
        selection::with_dependencies(&mut chosen, request.with_dependencies, &needs);
        already.extend(selection::published(&mut chosen, request.rebuild, &definitions, &published));
    }
    skipped.extend(already.into_iter().map(|(number, reason)| skip(&definitions[number], reason)));
    let (planned, others): (Vec<_>, Vec<_>) =
        definitions.into_iter().enumerate().partition(|(number, _)| chosen.contains(number));
    let planned: Vec<Definition> = planned.into_iter().map(|(_, definition)| definition).collect();
    let mut plan = ordered(&planned, skipped, input, request.cut)?;
    for missing in &mut plan.missing {
        let name = Dependency::parse(&missing.entry).name;
        let makes =
            |other: &&(usize, Definition)| other.1.packages.iter().any(|package| package.name == name);
        missing.made_by = others.iter().find(makes).map(|(_, definition)| definition.file.clone());
    }
    Ok(plan)
}

/// The plan of these definitions. What others would make nobody makes: who serves an entry is one of these, or published.
fn ordered(
    definitions: &[Definition],
    skipped: Vec<Skip>,
    input: &PlanInput<'_>,
    aim: CutAim,
) -> Result<ArchPlan> {
    let packages = providers::Packages::new(definitions, input.published);
    let providers = providers::Providers::new(&packages);
    let needs = needs::Needs::new(definitions, &providers);
    let mut draft = draft::Draft::new(definitions, &needs, (0..definitions.len()).collect())?;
    draft.refuse();
    let mut fewest = None;
    if aim == CutAim::Short {
        let mut draft = draft.clone();
        draft.cut(CutAim::Fewest, &input.durations)?;
        fewest = Some(draft.finish(input.arch, Vec::new(), &input.durations)?);
    }
    draft.cut(aim, &input.durations)?;
    let mut plan = draft.finish(input.arch, skipped, &input.durations)?;
    plan.fewest = fewest.map(|fewest| CutTrade {
        cuts: fewest.cuts.len(),
        levels: fewest.levels(),
        critical_time: fewest.critical_time,
    });
    Ok(plan)
}

fn skip(definition: &Definition, reason: String) -> Skip {
    Skip { name: definition.name.clone(), file: definition.file.clone(), reason }
}

/// The definitions by their paths, and those that are skipped: of two with one name the first counts.
fn unique(input: &PlanInput<'_>) -> (Vec<Definition>, Vec<Skip>) {
    let mut definitions = input.definitions.clone();
    definitions.sort_by(|a, b| a.file.cmp(&b.file));
    let mut skipped = input.skipped.clone();
    let mut known: std::collections::HashMap<String, String> = std::collections::HashMap::new();
    definitions.retain(|definition| match known.get(&definition.name) {
        Some(first) => {
            skipped.push(skip(definition, format!("{first} makes the package {} too", definition.name)));
            false
        }
        None => known.insert(definition.name.clone(), definition.file.clone()).is_none(),
    });
    (definitions, skipped)
}

#[cfg(test)]
mod tests;
