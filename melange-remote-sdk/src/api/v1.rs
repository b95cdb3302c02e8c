//! Version 1: paths, requests and responses, and how they are made from jobs.
//!
//! Reading a request ([`read_submit`] and its kin) tells every mistake at once; the `Deserialize`
//! implementations of the response types are lenient, for clients.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::backend::Backend;
use crate::backend::pool::BackendState;
use crate::error::{Error, ErrorKind};
use crate::job::{DefinitionOrigin, JobId, Priority, Project, SourceDigest, UncheckedSpec};
use crate::text::diagnostics::Diagnostics;

mod events;
mod lint;
mod logs;
mod queue;
pub(in crate::api) mod read;
mod views;
mod waiting;

pub use events::EventsResponse;
pub use lint::{FindingView, LintView};
pub use logs::{
    LogHitView, LogHitsView, LogLineView, LogLinesView, LogMessage, LogOutlineView, LogStateView,
    StepHitsView, StepLinesView,
};
pub use queue::{QueueProjectView, QueueReasonView, QueueView};
pub use read::{read_backend, read_backend_name, read_submit};
pub use views::{
    ArtifactView, AttemptView, DiagnosisView, ExtractLineView, FailureView, JobView, PhaseView,
    PublicationView, SpecView, StepView, TestView,
};
pub use waiting::{BlockingJobView, MatchingBackendView, WaitingView};

/// `GET`: whether the server lives.
pub const HEALTH: &str = "/healthz";
/// `POST`: submit a job; `GET`: list jobs.
pub const JOBS: &str = "/api/v1/jobs";
/// `GET`: the queue as a whole.
pub const QUEUE: &str = "/api/v1/queue";
/// `GET`, `POST`, `DELETE`: backends.
pub const BACKENDS: &str = "/api/v1/backends";
/// `POST`: a backend gets no further jobs.
pub const BACKENDS_DRAIN: &str = "/api/v1/backends/drain";
/// `POST`: a drained backend gets jobs again.
pub const BACKENDS_ENABLE: &str = "/api/v1/backends/enable";
/// `PUT`, `GET`, `HEAD`: archives of source files by their digest.
pub const SOURCES: &str = "/api/v1/sources";
/// The content type of an archive of source files.
pub const SOURCE_TYPE: &str = "application/x-tar";
/// The request header that names a submission, so that a repeated one does not make a second job.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The response header with the cursor of a listing's next page.
pub const NEXT_CURSOR: &str = "x-next-cursor";

/// `GET`: one job.
pub fn job(id: JobId) -> String {
    format!("{JOBS}/{id}")
}

/// `PUT`, `GET`, `HEAD`: an archive of source files.
pub fn source(digest: &SourceDigest) -> String {
    format!("{SOURCES}/{digest}")
}

/// `GET`: the events of the farm.
pub const EVENTS: &str = "/api/v1/events";

/// `GET`: the events of a job.
pub fn job_events(id: JobId) -> String {
    format!("{JOBS}/{id}/events")
}

/// `POST`: ask for a job to stop.
pub fn job_cancel(id: JobId) -> String {
    format!("{JOBS}/{id}/cancel")
}

/// `POST`: try a failed or cancelled job again.
pub fn job_retry(id: JobId) -> String {
    format!("{JOBS}/{id}/retry")
}

/// `GET`: the attempts of a job.
pub fn job_attempts(id: JobId) -> String {
    format!("{JOBS}/{id}/attempts")
}

/// `GET`: a job's log, with `?offset=` and `?follow=true`.
pub fn job_logs(id: JobId) -> String {
    format!("{JOBS}/{id}/logs")
}

/// `GET`: the list of a job's artifacts.
pub fn job_artifacts(id: JobId) -> String {
    format!("{JOBS}/{id}/artifacts")
}

/// `GET`: one artifact of a job; `name` is an [`ArtifactView::name`].
pub fn job_artifact(id: JobId, name: &str) -> String {
    format!("{JOBS}/{id}/artifacts/{name}")
}

/// The body of `POST /api/v1/jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct SubmitRequest {
    /// The definition; needed.
    pub config_yaml: String,
    /// The name of its file, such as `hello.yaml`, for messages and SBOMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_name: Option<String>,
    /// Packages added to the environment of every test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_packages: Vec<String>,
    /// Inline pipelines by path, such as `test/docs.yaml`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, String>,
    /// The architecture; the server's default when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Labels that the backend must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether the definition's tests run too.
    #[serde(default)]
    pub with_test: bool,
    /// Whether steps trace each command.
    #[serde(default)]
    pub debug: bool,
    /// Whose the job is; `default` when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// How urgent it is, from 0 to 1,000; 500 when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Jobs of the same project that must succeed before it begins. When one of them does not, the job is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// The digest of the files beside the definition, `sha256:` and 64 digits, which were sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The commit of the definition's repository, for packages and SBOMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_commit: Option<String>,
    /// The address of the definition's repository, such as `https://host/owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_repo_url: Option<String>,
    /// The licence of the definition itself, an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Instead of a new job, the one of an equal submission of the last so many seconds, unless it failed, was skipped or
    /// cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_seconds: Option<u32>,
}

/// Where a submission stands among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitPlace {
    /// Whose the job is.
    pub project: Project,
    /// How urgent it is.
    pub priority: Priority,
    /// The jobs that it waits for.
    pub waits_for: Vec<JobId>,
}

impl SubmitRequest {
    /// A definition, with nothing else said.
    pub fn new(config_yaml: impl Into<String>) -> Self {
        Self { config_yaml: config_yaml.into(), ..Self::default() }
    }

    /// Where the submission stands among others.
    ///
    /// # Errors
    /// Every mistake of the fields `project`, `priority` and `waits_for`.
    pub fn place(&self) -> Result<SubmitPlace, Vec<ErrorDetail>> {
        let mut mistakes = Vec::new();
        let mut wrong = |field: &str, error: &Error| mistakes.push(ErrorDetail::field(field, error));
        let project = self.project.as_deref().map_or_else(|| Ok(Project::default()), str::parse);
        let priority = self.priority.map_or_else(
            || Ok(Priority::default()),
            |priority| Priority::new(u16::try_from(priority).unwrap_or(u16::MAX)),
        );
        let mut waits_for = Vec::new();
        for (index, id) in self.waits_for.iter().enumerate() {
            match id.parse() {
                Ok(id) => waits_for.push(id),
                Err(error) => wrong(&format!("waits_for.{index}"), &error),
            }
        }
        if let Err(error) = &project {
            wrong("project", error);
        }
        if let Err(error) = &priority {
            wrong("priority", error);
        }
        match (project, priority) {
            (Ok(project), Ok(priority)) if mistakes.is_empty() => {
                Ok(SubmitPlace { project, priority, waits_for })
            }
            _ => Err(mistakes),
        }
    }

    /// The parts of a spec, with `default_arch` where no architecture is named.
    pub fn into_parts(self, default_arch: Arch) -> UncheckedSpec {
        UncheckedSpec {
            config_yaml: self.config_yaml,
            config_name: self.config_name.unwrap_or_default(),
            test_packages: self.test_packages,
            package: None,
            pipelines: self.pipelines,
            arch: self.arch.filter(|arch| !arch.is_empty()).unwrap_or_else(|| default_arch.to_string()),
            backend_selector: self.backend_selector,
            with_test: self.with_test,
            debug: self.debug,
            source: self.source,
            origin: DefinitionOrigin {
                commit: self.git_commit.unwrap_or_default(),
                repository: self.git_repo_url.unwrap_or_default(),
                license: self.license.unwrap_or_default(),
            },
        }
    }
}

/// The answer to `POST /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubmitResponse {
    /// The job's name.
    pub id: String,
    /// Whether the job is new; not so when it was handed in before with the same key, or is an equal one.
    #[serde(default = "is_new")]
    pub created: bool,
}

/// What servers mean that do not tell.
fn is_new() -> bool {
    true
}

/// Source files that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceView {
    /// The digest of their archive.
    pub digest: String,
    /// The size of the archive in bytes.
    pub size: u64,
    /// How many files it holds.
    pub files: usize,
}

/// A backend, in requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendView {
    /// Its address.
    pub addr: String,
    /// Its architecture.
    pub arch: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many jobs it runs at once.
    #[serde(default, rename = "maxJobs", skip_serializing_if = "Option::is_none")]
    pub max_jobs: Option<u32>,
    /// The cores that they share, such as `16` or `0.5`; nothing is counted when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// The memory that they share, such as `64Gi`; nothing is counted when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// What is known of it now; never part of a request.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub state: Option<BackendStateView>,
}

/// What is known of a backend now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendStateView {
    /// `unknown`, `healthy`, `trial`, `failing` or `draining`.
    pub status: String,
    /// The jobs that run on it, whichever servers run them.
    pub running: u32,
    /// The thousandths of a core that these ask for together.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub used_cpu_millis: u64,
    /// The memory in bytes that these ask for together.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub used_memory_bytes: u64,
    /// Where it is known from: `configuration`, of this server; `added`, at run time, for all servers; `elsewhere`, of the
    /// configuration of other servers, which alone run jobs on it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The machine, when the address means another backend on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The time that its last answered probe took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Its last failure, also when it works again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_hint: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_error_at: Option<Timestamp>,
    /// Since when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub failing_since: Option<Timestamp>,
}

impl From<&BackendState> for BackendView {
    fn from(state: &BackendState) -> Self {
        let failure = state.last_failure.as_ref();
        let view = BackendStateView {
            status: state.status.name().to_owned(),
            running: state.running,
            used_cpu_millis: state.used.cpu_millis,
            used_memory_bytes: state.used.memory_bytes,
            source: source_of(state).to_owned(),
            machine: state.backend.machine().map(str::to_owned),
            latency_ms: state.latency.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            last_error: failure.map(|failure| failure.message.clone()),
            last_error_hint: failure.and_then(|failure| failure.hint.clone()),
            last_error_at: failure.map(|failure| failure.at),
            failing_since: state.failing_since,
        };
        Self { state: Some(view), ..Self::from(&*state.backend) }
    }
}

/// Thousandths of a core as they are written.
fn cores(millis: u64) -> String {
    if millis.is_multiple_of(1_000) { (millis / 1_000).to_string() } else { format!("{millis}m") }
}

/// Bytes as they are written, in the largest unit that says them exactly.
fn bytes(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let exact = units.iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    exact.map_or_else(|| bytes.to_string(), |(bits, unit)| format!("{}{unit}", bytes >> bits))
}

fn source_of(state: &BackendState) -> &'static str {
    match state {
        BackendState { is_ours: false, .. } => "elsewhere",
        BackendState { is_added: true, .. } => "added",
        _ => "configuration",
    }
}

impl From<&Backend> for BackendView {
    fn from(backend: &Backend) -> Self {
        Self {
            addr: backend.addr().to_owned(),
            arch: backend.arch().to_string(),
            labels: backend.labels().as_map().clone(),
            max_jobs: Some(backend.max_jobs()),
            cpus: backend.capacity().cpu_millis.map(cores),
            memory: backend.capacity().memory_bytes.map(bytes),
            state: None,
        }
    }
}

/// The answer to `GET /api/v1/backends`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendsResponse {
    /// The backends.
    pub backends: Vec<BackendView>,
    /// The architectures that there are backends for.
    pub architectures: Vec<String>,
}

/// The body of `DELETE /api/v1/backends`, `POST /api/v1/backends/drain` and `POST /api/v1/backends/enable`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendName {
    /// The address of the backend.
    pub addr: String,
    /// The machine, which names one of several backends with the same local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// The answer to `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthResponse {
    /// `ok`.
    pub status: String,
}

/// The answer to `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadyResponse {
    /// `ready`, `not ready`, `stopping`, or why the server cannot go on.
    pub status: String,
    /// The parts that were asked; none once the server stops.
    pub checks: Vec<ReadyCheck>,
}

/// A part of the server that was asked whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadyCheck {
    /// `job_store_read`, `job_store_write`, `artifact_storage` or `scheduler`.
    pub name: String,
    /// `ok` or `failed`.
    pub status: String,
    /// How long the answer took.
    pub duration_ms: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorResponse {
    /// The error.
    pub error: ErrorBody,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// A stable name, such as `invalid_request`; see [`ErrorKind::code`].
    pub code: String,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Every single mistake, when there may be several.
    #[serde(default)]
    pub details: Vec<ErrorDetail>,
}

/// One of several mistakes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorDetail {
    /// What is wrong.
    pub message: String,
    /// The field of the request that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The text that holds it: the definition or a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorDetail {
    /// A mistake in a field of the request.
    pub fn field(field: impl Into<String>, error: &Error) -> Self {
        Self {
            message: error.to_string(),
            field: Some(field.into()),
            hint: error.hint_text().map(str::to_owned),
            ..Self::default()
        }
    }
}

impl ErrorBody {
    /// An error on the wire; causes stay on the server, since they may tell its paths.
    pub fn new(error: &Error, details: Vec<ErrorDetail>) -> Self {
        let unexpected = error.kind() == ErrorKind::Unexpected;
        Self {
            code: error.kind().code().to_owned(),
            message: if unexpected { error.message().to_owned() } else { error.to_string() },
            hint: error.hint_text().map(str::to_owned),
            details,
        }
    }
}

/// The mistakes of a definition on the wire.
pub fn diagnostic_details(diagnostics: &Diagnostics) -> Vec<ErrorDetail> {
    let detail = |diagnostic: &crate::text::diagnostics::Diagnostic| ErrorDetail {
        message: diagnostic.message.clone(),
        field: None,
        file: Some(diagnostic.source.name.clone()),
        line: diagnostic.at.map(|at| at.line),
        column: diagnostic.at.map(|at| at.column),
        hint: diagnostic.hint.clone(),
    };
    diagnostics.0.iter().map(detail).collect()
}
