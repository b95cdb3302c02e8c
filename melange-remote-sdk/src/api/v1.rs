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
use crate::job::{FailureClass, Job, JobAttempt, JobBackend, JobId, JobPhase, UncheckedSpec};
use crate::text::diagnostics::Diagnostics;

mod read;

pub use read::{read_backend, read_backend_name, read_submit};

/// `GET`: whether the server lives.
pub const HEALTH: &str = "/healthz";
/// `POST`: submit a job; `GET`: list jobs.
pub const JOBS: &str = "/api/v1/jobs";
/// `GET`, `POST`, `DELETE`: backends.
pub const BACKENDS: &str = "/api/v1/backends";
/// `POST`: a backend gets no further jobs.
pub const BACKENDS_DRAIN: &str = "/api/v1/backends/drain";
/// `POST`: a drained backend gets jobs again.
pub const BACKENDS_ENABLE: &str = "/api/v1/backends/enable";
/// The request header that names a submission, so that a repeated one does not make a second job.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The response header with the cursor of a listing's next page.
pub const NEXT_CURSOR: &str = "x-next-cursor";

/// `GET`: one job.
pub fn job(id: JobId) -> String {
    format!("{JOBS}/{id}")
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
}

impl SubmitRequest {
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
        }
    }
}

/// The answer to `POST /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubmitResponse {
    /// The job's name.
    pub id: String,
}

/// What was asked, in a job object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpecView {
    /// The definition.
    pub config_yaml: String,
    /// The name of its file.
    #[serde(default)]
    pub config_name: String,
    /// Packages added to the environment of every test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_packages: Vec<String>,
    /// Inline pipelines by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, String>,
    /// The architecture.
    pub arch: String,
    /// Labels that the backend must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend_selector: BTreeMap<String, String>,
    /// Whether the definition's tests run too.
    #[serde(default)]
    pub with_test: bool,
    /// Whether steps trace each command.
    #[serde(default)]
    pub debug: bool,
}

impl From<UncheckedSpec> for SpecView {
    fn from(parts: UncheckedSpec) -> Self {
        Self {
            config_yaml: parts.config_yaml,
            config_name: parts.config_name,
            test_packages: parts.test_packages,
            pipelines: parts.pipelines,
            arch: parts.arch,
            backend_selector: parts.backend_selector,
            with_test: parts.with_test,
            debug: parts.debug,
        }
    }
}

/// A job object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// `pending`, `running`, `success`, `failed` or `cancelled`.
    pub status: String,
    /// The package that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The version of the package, with the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What was asked.
    pub spec: SpecView,
    /// When it was handed in, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When the present or last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub finished_at: Option<Timestamp>,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is at fault: `build`, `infrastructure`, `unschedulable` or `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The step at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// What is worth knowing about a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where the finished job's log lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<String>,
    /// Where the finished job's artifacts lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
    /// Where it runs or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendView>,
    /// The number of the present or last attempt; 0 before the first one.
    #[serde(default)]
    pub attempt: u32,
    /// Whether somebody asked for it to stop.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_reason: Option<String>,
    /// The steps of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// Time spent in the phases of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseView>,
    /// The tests of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestView>,
    /// What it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactView>,
}

/// A step that ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureView {
    /// Its name.
    pub step: String,
    /// Its exit code.
    pub exit_code: i32,
    /// The last lines that it wrote.
    #[serde(default)]
    pub tail: Vec<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    /// Its position, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Whether its result was there already.
    #[serde(default)]
    pub cached: bool,
}

/// The test of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestView {
    /// The package under test.
    pub package: String,
    /// `running`, `passed` or `failed`.
    pub status: String,
    /// How long it took, its environment included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The step at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

/// A phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PhaseView {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactView {
    /// Its name, such as `x86_64/hello-2.10-r0.apk`.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

/// An attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptView {
    /// Its number, from 1.
    pub number: u32,
    /// `running`, `success`, `failed`, `cancelled`, `given_back` or `lost`.
    pub outcome: String,
    /// Whether it counts towards the bound on attempts.
    pub counts: bool,
    /// When it began, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub ended_at: Option<Timestamp>,
    /// Why it failed, was given back or was lost, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is at fault: `build`, `infrastructure`, `unschedulable` or `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The step at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendView>,
    /// Its steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// Time spent in its phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseView>,
    /// Its tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestView>,
    /// Where its part of the job's log begins, in bytes.
    pub log_begin: u64,
    /// Where that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_end: Option<u64>,
}

impl From<&JobAttempt> for AttemptView {
    fn from(attempt: &JobAttempt) -> Self {
        let error = attempt.error.as_ref();
        Self {
            number: attempt.number,
            outcome: attempt.outcome.name().to_owned(),
            counts: attempt.counts,
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            error: error.map(|error| error.message.clone()),
            error_class: error.map(|error| class_name(error.class).to_owned()),
            failure: error.and_then(|error| error.step.as_ref()).map(FailureView::from),
            backend: attempt.backend.as_ref().map(BackendView::from),
            steps: attempt.steps.iter().map(StepView::from).collect(),
            phases: attempt.phases.iter().map(PhaseView::from).collect(),
            tests: attempt.tests.iter().map(TestView::from).collect(),
            log_begin: attempt.log_begin,
            log_end: attempt.log_end,
        }
    }
}

impl From<&JobPhase> for PhaseView {
    fn from(phase: &JobPhase) -> Self {
        Self { name: phase.name.clone(), duration_ms: phase.took_ms }
    }
}

impl From<&JobBackend> for BackendView {
    fn from(backend: &JobBackend) -> Self {
        Self {
            addr: backend.addr.clone(),
            arch: backend.arch.to_string(),
            labels: backend.labels.as_map().clone(),
            max_jobs: None,
            state: None,
        }
    }
}

impl JobView {
    /// A job on the wire. The paths are told once the job has finished, and are the caller's to know.
    pub fn new(job: &Job, log_path: Option<String>, output_path: Option<String>) -> Self {
        let error = job.error.as_ref();
        Self {
            id: job.id.to_string(),
            status: job.state.to_string(),
            package: job.spec.package().map(|package| package.name.clone()),
            version: job.spec.package().map(|package| package.version.clone()),
            spec: UncheckedSpec::from((*job.spec).clone()).into(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            error: error.map(|error| error.message.clone()),
            error_class: error.map(|error| class_name(error.class).to_owned()),
            failure: error.and_then(|error| error.step.as_ref()).map(FailureView::from),
            note: job.note.clone(),
            log_path: log_path.filter(|_| job.state.is_terminal()),
            output_path: output_path.filter(|_| !job.artifacts.is_empty()),
            backend: job.backend.as_ref().map(BackendView::from),
            attempt: job.attempt,
            cancel_requested: job.cancel_requested,
            waiting_reason: job.waiting.as_ref().map(|waiting| waiting.reason.clone()),
            steps: job.steps.iter().map(StepView::from).collect(),
            phases: job.phases.iter().map(PhaseView::from).collect(),
            tests: job.tests.iter().map(TestView::from).collect(),
            artifacts: job.artifacts.iter().map(ArtifactView::from).collect(),
        }
    }
}

impl From<&crate::job::JobStepFailure> for FailureView {
    fn from(step: &crate::job::JobStepFailure) -> Self {
        Self { step: step.step.clone(), exit_code: step.exit_code, tail: step.tail.clone() }
    }
}

impl From<&crate::job::JobTest> for TestView {
    fn from(test: &crate::job::JobTest) -> Self {
        Self {
            package: test.package.clone(),
            status: test.state.name().to_owned(),
            duration_ms: test.took_ms,
            error: test.error.clone(),
            failure: test.step.as_ref().map(FailureView::from),
        }
    }
}

impl From<&crate::job::JobStep> for StepView {
    fn from(step: &crate::job::JobStep) -> Self {
        Self { index: step.index, name: step.name.clone(), duration_ms: step.took_ms, cached: step.cached }
    }
}

impl From<&crate::job::JobArtifact> for ArtifactView {
    fn from(artifact: &crate::job::JobArtifact) -> Self {
        Self { name: artifact.name.clone(), size: artifact.size_bytes, sha256: artifact.sha256.clone() }
    }
}

fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Build => "build",
        FailureClass::Infrastructure => "infrastructure",
        FailureClass::Unschedulable => "unschedulable",
        FailureClass::Policy => "policy",
    }
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
    /// The jobs that run on it.
    pub running: u32,
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
            latency_ms: state.latency.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            last_error: failure.map(|failure| failure.message.clone()),
            last_error_hint: failure.and_then(|failure| failure.hint.clone()),
            last_error_at: failure.map(|failure| failure.at),
            failing_since: state.failing_since,
        };
        Self { state: Some(view), ..Self::from(&*state.backend) }
    }
}

impl From<&Backend> for BackendView {
    fn from(backend: &Backend) -> Self {
        Self {
            addr: backend.addr().to_owned(),
            arch: backend.arch().to_string(),
            labels: backend.labels().as_map().clone(),
            max_jobs: Some(backend.max_jobs()),
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
}

/// The answer to `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthResponse {
    /// `ok`.
    pub status: String,
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
