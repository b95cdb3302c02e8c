//! What is told about a build and about a package: failures, changes, what holds others back, history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::{BuildId, Job};

/// `GET`: the failures of a build, grouped.
pub fn build_failures(id: BuildId) -> String {
    format!("{}/failures", super::build(id))
}

/// `GET`: what differs from the build before, or from the one that `?since=` names.
pub fn build_changes(id: BuildId) -> String {
    format!("{}/changes", super::build(id))
}

/// `GET`: what holds other jobs of a build back.
pub fn build_blockers(id: BuildId) -> String {
    format!("{}/blockers", super::build(id))
}

/// `GET`: the last jobs of a package.
pub fn package_history(name: &str) -> String {
    format!("/api/v2/packages/{name}/history")
}

/// A package of a build in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct StandingView {
    /// The name of the main package.
    pub name: String,
    /// The architecture.
    pub arch: String,
    /// Its job; missing when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Where the job is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How many jobs of the build wait for it, directly and over others, or were skipped because of it.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub holds_back: usize,
    /// Why it failed or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Packages that failed of the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct FailureGroupView {
    /// Equal for failures of one cause.
    pub signature: String,
    /// Who is at fault: `build`, `resources`, `infrastructure`, `unschedulable` or `policy`.
    pub error_class: String,
    /// What it is of, such as `compile`; missing when that was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The line that says it, of the first package, or its message.
    pub text: String,
    /// The packages, in the order of the plan; at most 1,000.
    pub packages: Vec<StandingView>,
    /// How many there are.
    pub total: usize,
    /// How many jobs were skipped because of them; one that waited for several counts for each.
    pub holds_back: usize,
}

/// The answer to `GET /api/v2/builds/{id}/failures`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildFailuresResponse {
    /// The groups, the largest first; at most 1,000.
    pub groups: Vec<FailureGroupView>,
    /// How many there are.
    pub total: usize,
}

/// The answer to `GET /api/v2/builds/{id}/changes`. Each list has at most 1,000 packages; `counts` tells all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildChangesResponse {
    /// The build.
    pub build_id: String,
    /// The build before; missing when there is none of the same source and project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// They failed or were skipped, and were not before.
    pub newly_failing: Vec<StandingView>,
    /// They succeeded, and failed or were skipped before.
    pub newly_well: Vec<StandingView>,
    /// They failed or were skipped, as before.
    pub still_failing: Vec<StandingView>,
    /// They are in this build alone.
    pub new: Vec<StandingView>,
    /// They were in the other build alone.
    pub gone: Vec<StandingView>,
    /// How many there are of each, in this order: newly failing, newly well, still failing, new, gone.
    pub counts: Vec<usize>,
    /// How many neither failed nor succeeded yet.
    pub undecided: usize,
}

/// The answer to `GET /api/v2/builds/{id}/blockers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BuildBlockersResponse {
    /// Jobs that others wait for and that wait for no job themselves, those that hold most back first; at most 1,000.
    pub blockers: Vec<StandingView>,
    /// How many there are.
    pub total: usize,
}

/// A job of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct HistoryEntryView {
    /// The job.
    pub job_id: String,
    /// The build that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The architecture.
    pub arch: String,
    /// The version with the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the job is.
    pub status: String,
    /// Whether it was made already, and nothing ran.
    pub cached: bool,
    /// When it was handed in, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// What its last attempt took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// What its packages take together, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The most memory that its last attempt used at a time, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The signature of what it failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HistoryEntryView {
    /// What a job tells; what its attempt showed is added by the caller.
    pub fn of_job(job: &Job) -> Self {
        let view = super::BuildPackageView::of_job(job);
        let packages = job.artifacts.iter().filter(|artifact| artifact.name.ends_with(".apk"));
        let size = packages.fold(0u64, |sum, artifact| sum.saturating_add(artifact.size_bytes));
        Self {
            job_id: job.id.to_string(),
            build_id: job.build.map(|id| id.to_string()),
            arch: view.arch,
            version: view.version,
            status: view.status,
            cached: view.cached,
            created_at: job.created_at,
            took_ms: view.took_ms,
            size: Some(size).filter(|size| *size > 0),
            peak_memory_bytes: None,
            signature: None,
            reason: view.reason,
        }
    }
}

/// The answer to `GET /api/v2/packages/{name}/history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PackageHistoryResponse {
    /// The jobs, newest first.
    pub jobs: Vec<HistoryEntryView>,
    /// The cursor of the next page; missing on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl PackageHistoryResponse {
    /// A page.
    pub fn new(jobs: Vec<HistoryEntryView>, next: Option<String>) -> Self {
        Self { jobs, next }
    }
}
