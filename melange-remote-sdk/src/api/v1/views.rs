//! Jobs and their attempts on the wire.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackendView, LintView, WaitingView};
use crate::failure::{ExtractLine, Failure};
use crate::job::{
    AttemptOutcome, Job, JobAttempt, JobBackend, JobError, JobFacts, JobId, JobPhase, JobSpec, JobState,
    UncheckedSpec,
};

/// What was asked, in a job object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpecView {
    /// The definition; listings leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
    /// The digest of the files beside the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The commit of the definition's repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// The address of the definition's repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub git_repo_url: String,
    /// The licence of the definition itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
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
            source: parts.source,
            git_commit: parts.origin.commit,
            git_repo_url: parts.origin.repository,
            license: parts.origin.license,
        }
    }
}

/// A job object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// `blocked`, `pending`, `running`, `success`, `failed`, `cancelled` or `skipped`.
    pub status: String,
    /// The package that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The version of the package, with the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whose it is.
    #[serde(default)]
    pub project: String,
    /// The build that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// How urgent it is, from 0 to 1,000.
    #[serde(default)]
    pub priority: u16,
    /// The thousandths of a core that it asks for.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub cpu_millis: u64,
    /// The memory in bytes that it asks for: what its definition says, or twice as much since it ran out of that.
    #[serde(default, skip_serializing_if = "crate::api::is_default")]
    pub memory_bytes: u64,
    /// The jobs that it waits for and that have not succeeded; only the answer for a single job tells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<String>,
    /// The job whose end is why this one was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_for: Option<String>,
    /// The job whose files it has, because they come from the same; nothing was built then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<String>,
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
    /// Who is at fault: `build`, `resources`, `infrastructure`, `unschedulable`, `policy` or `dependency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The step at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// What the last attempt of a failed job failed of; only the answer for a single job tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<DiagnosisView>,
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
    /// The server that runs or ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The number of the present or last attempt; 0 before the first one.
    #[serde(default)]
    pub attempt: u32,
    /// Whether somebody asked for it to stop.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_reason: Option<String>,
    /// Why it waits, and for how long; only the answer for a single job tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingView>,
    /// The steps of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// Time spent in the phases of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseView>,
    /// What linters found in the packages of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lint: Vec<LintView>,
    /// The tests of the present or last attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestView>,
    /// What it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactView>,
    /// Whether its packages are published; only the answer for a single job tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublicationView>,
    /// When its artifacts were removed, as the server's rules say, RFC 3339; `artifacts` goes on telling what they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub artifacts_removed_at: Option<Timestamp>,
    /// When its logs were removed, as the server's rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub log_removed_at: Option<Timestamp>,
}

/// What became of the packages of a job that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PublicationView {
    /// `yes`, `soon`, or `no`.
    pub status: String,
    /// Why they are not, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl PublicationView {
    /// What is told of packages: a word, and the reason of a `no`.
    pub fn new(status: impl Into<String>, reason: Option<String>) -> Self {
        Self { status: status.into(), reason }
    }
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

/// What an attempt failed of, as it was found out when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiagnosisView {
    /// The version of the rules; signatures of different versions are not comparable.
    pub version: u32,
    /// 16 hexadecimal digits, equal for attempts that failed of the same.
    pub signature: String,
    /// What it is of, such as `compile`, `test`, `missing`, `network`, `timeout` or `lost_backend`.
    pub kind: String,
    /// The number of the line that says it, in the log of the attempt; left out when no line does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What says it: that line, or a message of the farm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The line with some of those around it that the same step wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extract: Vec<ExtractLineView>,
}

/// A line of a log that is shown with a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExtractLineView {
    /// Its number in the log of the attempt.
    pub n: u64,
    /// Its text, without escape sequences.
    pub text: String,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    /// Its position, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// When it began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Its exit code, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether its result was there already.
    #[serde(default)]
    pub cached: bool,
    /// The number of its first line in the log of the attempt; told once that lies among the artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line: Option<u64>,
    /// The number of its last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_line: Option<u64>,
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
    /// Who is at fault: `build`, `resources`, `infrastructure`, `unschedulable`, `policy` or `dependency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The step at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// What it failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<DiagnosisView>,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendView>,
    /// The server that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Its steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// Time spent in its phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseView>,
    /// What linters found in its packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lint: Vec<LintView>,
    /// Its tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestView>,
    /// The most memory that one of its guests used at a time, in bytes, files that it read included; missing where nobody
    /// counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// How many lines its log has; told once it lies among the artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lines: Option<u64>,
    /// How many bytes of text they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// When its log was removed, as the server's rules say, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub log_removed_at: Option<Timestamp>,
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
            error_class: error.map(class_of),
            failure: failure_of(error),
            diagnosis: attempt.failure.as_ref().map(DiagnosisView::from),
            backend: attempt.backend.as_ref().map(BackendView::from),
            server: attempt.server.as_ref().map(ToString::to_string),
            steps: steps_of(attempt),
            phases: attempt.phases.iter().map(PhaseView::from).collect(),
            lint: attempt.lint.iter().map(LintView::from).collect(),
            tests: attempt.tests.iter().map(TestView::from).collect(),
            peak_memory_bytes: attempt.peak_memory_bytes,
            log_lines: attempt.log.as_ref().map(|log| log.lines),
            log_bytes: attempt.log.as_ref().map(|log| log.text_bytes),
            log_removed_at: attempt.log_removed_at,
        }
    }
}

impl From<&Failure> for DiagnosisView {
    fn from(failure: &Failure) -> Self {
        let line = |line: &ExtractLine| ExtractLineView { n: line.number, text: line.text.clone() };
        Self {
            version: failure.version,
            signature: failure.signature.clone(),
            kind: failure.kind.name().to_owned(),
            line: failure.line,
            text: failure.text.clone(),
            extract: failure.extract.iter().map(line).collect(),
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
            cpus: None,
            memory: None,
            state: None,
        }
    }
}

impl JobView {
    /// A job on the wire, as listings tell it: without the texts of its definition and without what its attempts
    /// showed. The paths are told once the job has finished, and are the caller's to know.
    pub fn new(job: &Job, log_path: Option<String>, output_path: Option<String>) -> Self {
        let error = job.error.as_ref();
        Self {
            project: job.project.to_string(),
            build_id: job.build.map(|build| build.to_string()),
            priority: job.priority.get(),
            cpu_millis: job.resources().cpu_millis,
            memory_bytes: job.resources().memory_bytes,
            id: job.id.to_string(),
            status: job.state.to_string(),
            package: job.facts.package.as_ref().map(|package| package.name.clone()),
            version: job.facts.package.as_ref().map(|package| package.version.clone()),
            spec: SpecView::from(&*job.facts),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            error: error.map(|error| error.message.clone()),
            error_class: error.map(class_of),
            failure: failure_of(error),
            diagnosis: None,
            note: job.note.clone(),
            log_path: log_path.filter(|_| job.state.is_terminal() && job.log_removed_at.is_none()),
            output_path: output_path
                .filter(|_| !job.artifacts.is_empty() && job.artifacts_removed_at.is_none()),
            backend: job.backend.as_ref().map(BackendView::from),
            attempt: job.attempt,
            cancel_requested: job.cancel_requested,
            waiting_reason: job.waiting.as_ref().map(|waiting| waiting.reason.clone()),
            waiting: None,
            blocked_by: Vec::new(),
            skipped_for: job.skipped_for.map(|id| id.to_string()),
            reused: job.reused.map(|id| id.to_string()),
            server: job.server.as_ref().map(ToString::to_string),
            steps: Vec::new(),
            phases: Vec::new(),
            lint: Vec::new(),
            tests: Vec::new(),
            artifacts: job.artifacts.iter().map(ArtifactView::from).collect(),
            published: None,
            artifacts_removed_at: job.artifacts_removed_at,
            log_removed_at: job.log_removed_at,
        }
    }

    /// The same with the texts of the definition.
    #[must_use]
    pub fn with_spec(mut self, spec: &JobSpec) -> Self {
        self.spec = UncheckedSpec::from(spec.clone()).into();
        self
    }

    /// The same with what the present or last attempt showed.
    #[must_use]
    pub fn with_attempt(mut self, attempt: &JobAttempt) -> Self {
        self.steps = steps_of(attempt);
        self.phases = attempt.phases.iter().map(PhaseView::from).collect();
        self.lint = attempt.lint.iter().map(LintView::from).collect();
        self.tests = attempt.tests.iter().map(TestView::from).collect();
        // A job that is given up while it waits, or tried again, did not fail of what its last attempt failed of.
        let failed = self.status == JobState::Failed.name() && attempt.outcome == AttemptOutcome::Failed;
        self.diagnosis = attempt.failure.as_ref().filter(|_| failed).map(DiagnosisView::from);
        self
    }

    /// The same with the jobs that it waits for.
    #[must_use]
    pub fn with_blocked_by(mut self, jobs: &[JobId]) -> Self {
        self.blocked_by = jobs.iter().map(ToString::to_string).collect();
        self
    }
}

impl From<&JobFacts> for SpecView {
    fn from(facts: &JobFacts) -> Self {
        Self {
            config_yaml: String::new(),
            config_name: facts.config_name.clone(),
            test_packages: Vec::new(),
            pipelines: BTreeMap::new(),
            arch: facts.arch.to_string(),
            backend_selector: facts.backend_selector.labels().as_map().clone(),
            with_test: facts.with_test,
            debug: facts.debug,
            source: facts.source.map(String::from),
            git_commit: String::new(),
            git_repo_url: String::new(),
            license: String::new(),
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
        Self {
            index: step.index,
            name: step.name.clone(),
            started_at: step.started_at,
            duration_ms: step.took_ms,
            exit_code: step.exit_code,
            cached: step.cached,
            first_line: None,
            last_line: None,
        }
    }
}

/// The steps of an attempt, with their lines once they are known.
fn steps_of(attempt: &JobAttempt) -> Vec<StepView> {
    let lines = attempt.log.as_ref().map(|log| log.steps.as_slice()).unwrap_or_default();
    let view = |step: &crate::job::JobStep| {
        let known = lines.iter().find(|lines| usize::try_from(lines.step) == Ok(step.index));
        StepView {
            first_line: known.map(|lines| lines.first),
            last_line: known.map(|lines| lines.last),
            ..StepView::from(step)
        }
    };
    attempt.steps.iter().map(view).collect()
}

impl From<&crate::job::JobArtifact> for ArtifactView {
    fn from(artifact: &crate::job::JobArtifact) -> Self {
        Self { name: artifact.name.clone(), size: artifact.size_bytes, sha256: artifact.sha256.clone() }
    }
}

fn failure_of(error: Option<&JobError>) -> Option<FailureView> {
    error?.step.as_ref().map(FailureView::from)
}

fn class_of(error: &JobError) -> String {
    error.class.name().to_owned()
}
