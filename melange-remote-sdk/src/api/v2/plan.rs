//! A plan, for all architectures in one document.

use serde::{Deserialize, Serialize};

#[cfg(feature = "apk")]
use crate::planner::{ArchPlan, Refusal, Skip};

/// A plan. Definitions are told by the names of their main packages; edges and cuts say that `from` needs `to`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanView {
    /// An account of each architecture.
    pub summary: Vec<PlanSummaryView>,
    /// The jobs, those that wait for nothing first.
    pub jobs: Vec<PlanJobView>,
    /// Which waits for which.
    pub edges: Vec<PlanEdgeView>,
    /// Needs that published packages serve, so that there is no circle.
    pub cuts: Vec<PlanCutView>,
    /// Definitions that are not built.
    pub skipped: Vec<PlanSkipView>,
    /// Entries that neither a definition at hand nor a published package serves.
    pub missing: Vec<PlanMissingView>,
    /// What has no beginning.
    pub refused: Vec<PlanRefusalView>,
    /// Jobs that no backend of the farm could run now: they wait for one. Plans that were made without a farm tell none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_backend: Vec<NoBackendView>,
}

/// Jobs that no backend could run, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct NoBackendView {
    /// The architecture.
    pub arch: String,
    /// Why, such as `no x86_64 backend has 66 cores`.
    pub reason: String,
    /// The first of their packages, at most 20.
    pub packages: Vec<String>,
    /// How many there are.
    pub total: usize,
}

impl NoBackendView {
    /// Jobs for an architecture without a backend, none so far.
    pub fn new(arch: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { arch: arch.into(), reason: reason.into(), packages: Vec::new(), total: 0 }
    }

    /// One job more.
    pub fn add(&mut self, package: &str) {
        if self.packages.len() < NO_BACKEND_PACKAGES {
            self.packages.push(package.to_owned());
        }
        self.total = self.total.saturating_add(1);
    }
}

/// Packages that a reason names.
const NO_BACKEND_PACKAGES: usize = 20;

/// The plan of an architecture in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanSummaryView {
    /// The architecture.
    pub arch: String,
    /// How many jobs there are.
    pub jobs: usize,
    /// How many jobs the longest chain has.
    pub levels: usize,
    /// How many needs are cut.
    pub cuts: usize,
    /// How many jobs wait for nothing.
    pub ready: usize,
    /// The jobs of the chain that takes longest, the first one first.
    pub critical_path: Vec<String>,
    /// The seconds that it is expected to take.
    pub critical_time_s: u64,
    /// The seconds that all jobs are expected to take together.
    pub work_s: u64,
    /// What the fewest cuts would come to, where more were made for shorter chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewest: Option<PlanTradeView>,
}

/// What a choice of cuts comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanTradeView {
    /// How many needs are cut.
    pub cuts: usize,
    /// How many jobs the longest chain has.
    pub levels: usize,
    /// The seconds that the chain is expected to take that takes longest.
    pub critical_time_s: u64,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanJobView {
    /// The name of the main package.
    pub name: String,
    /// The architecture.
    pub arch: String,
    /// The path of the definition.
    pub file: String,
    /// The version with the epoch.
    pub version: String,
    /// How many jobs the longest chain has that it waits for.
    pub level: usize,
    /// The jobs that it waits for.
    pub waits_for: Vec<String>,
    /// How many jobs wait for it, directly and over others.
    pub dependents: usize,
    /// The seconds that it is expected to take.
    pub expected_s: u64,
    /// The seconds that it and the longest chain that waits for it are expected to take.
    pub remaining_s: u64,
}

/// A job that waits for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanEdgeView {
    /// The one that waits.
    pub from: String,
    /// The one that it waits for.
    pub to: String,
    /// The entry of its environment that the other one serves.
    pub entry: String,
    /// Further entries that it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_entries: Vec<String>,
    /// The architecture.
    pub arch: String,
}

/// A need that a published package serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanCutView {
    /// The one that needs.
    pub from: String,
    /// The one that it would have to wait for.
    pub to: String,
    /// The entry of its environment.
    pub entry: String,
    /// Further entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_entries: Vec<String>,
    /// A circle that it was in: each needs the next one, and the last one the first.
    pub cycle: Vec<String>,
    /// The published packages that serve the entries, by name and version.
    pub stand_in: String,
    /// The architecture.
    pub arch: String,
}

/// A definition that is not built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanSkipView {
    /// The name of the main package.
    pub name: String,
    /// Why.
    pub reason: String,
    /// The path of the definition.
    pub file: String,
    /// The architecture.
    pub arch: String,
}

/// An entry that nobody serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanMissingView {
    /// The entry.
    pub entry: String,
    /// Who needs it.
    pub needed_by: Vec<String>,
    /// The path of a definition that makes a package of this name and is not planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// The architecture.
    pub arch: String,
}

/// Definitions that need each other, where nothing published stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanRefusalView {
    /// A shortest circle: each needs the next one by the entry, and the last one the first.
    pub cycle: Vec<PlanCycleStepView>,
    /// How many definitions need each other so.
    pub members: usize,
    /// The architecture.
    pub arch: String,
}

/// A definition of a circle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PlanCycleStepView {
    /// The name of its main package.
    pub name: String,
    /// The entry of its environment that the next one serves.
    pub entry: String,
}

/// The first entry, and those behind it.
#[cfg(feature = "apk")]
fn split(entries: &[String]) -> (String, Vec<String>) {
    entries.split_first().map_or_else(Default::default, |(first, more)| (first.clone(), more.to_vec()))
}

#[cfg(feature = "apk")]
impl PlanView {
    /// The view of plans, an architecture behind the other.
    pub fn new(plans: &[ArchPlan]) -> Self {
        let mut view = Self::default();
        plans.iter().for_each(|plan| view.add(plan));
        view
    }

    fn add(&mut self, plan: &ArchPlan) {
        let arch = || plan.arch.apk_name().to_owned();
        let name = |job: &usize| plan.jobs[*job].name.clone();
        self.summary.push(PlanSummaryView {
            arch: arch(),
            jobs: plan.jobs.len(),
            levels: plan.levels(),
            cuts: plan.cuts.len(),
            ready: plan.jobs.iter().filter(|job| job.level == 0).count(),
            critical_path: plan.critical_path.iter().map(name).collect(),
            critical_time_s: plan.critical_time.as_secs(),
            work_s: plan.jobs.iter().map(|job| job.expected.as_secs()).sum(),
            fewest: plan.fewest.as_ref().map(|fewest| PlanTradeView {
                cuts: fewest.cuts,
                levels: fewest.levels,
                critical_time_s: fewest.critical_time.as_secs(),
            }),
        });
        self.jobs.extend(plan.jobs.iter().map(|job| PlanJobView {
            name: job.name.clone(),
            arch: arch(),
            file: job.file.clone(),
            version: job.version.clone(),
            level: job.level,
            waits_for: job.waits_for.iter().map(name).collect(),
            dependents: job.dependents,
            expected_s: job.expected.as_secs(),
            remaining_s: job.remaining.as_secs(),
        }));
        self.edges.extend(plan.edges.iter().map(|edge| {
            let (entry, more_entries) = split(&edge.entries);
            PlanEdgeView { from: name(&edge.from), to: name(&edge.to), entry, more_entries, arch: arch() }
        }));
        self.cuts.extend(plan.cuts.iter().map(|cut| {
            let (entry, more_entries) = split(&cut.entries);
            let (from, to, cycle) = (name(&cut.from), name(&cut.to), cut.cycle.iter().map(name).collect());
            let mut stand_ins = cut.stand_ins.clone();
            stand_ins.dedup();
            PlanCutView { from, to, entry, more_entries, cycle, stand_in: stand_ins.join(", "), arch: arch() }
        }));
        self.skipped.extend(plan.skipped.iter().map(|Skip { name, file, reason }| PlanSkipView {
            name: name.clone(),
            reason: reason.clone(),
            file: file.clone(),
            arch: arch(),
        }));
        self.missing.extend(plan.missing.iter().map(|missing| PlanMissingView {
            entry: missing.entry.clone(),
            needed_by: missing.needed_by.clone(),
            made_by: missing.made_by.clone(),
            arch: arch(),
        }));
        self.refused.extend(plan.refused.iter().map(|Refusal { cycle, members, .. }| {
            let step = |(name, entry): &(String, String)| PlanCycleStepView {
                name: name.clone(),
                entry: entry.clone(),
            };
            PlanRefusalView { cycle: cycle.iter().map(step).collect(), members: *members, arch: arch() }
        }));
    }
}
