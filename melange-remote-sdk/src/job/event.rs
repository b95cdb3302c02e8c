//! What happens on a farm, as it is told: one stream, the same objects in the store, over the API and on the command line.
//!
//! ```
//! use melange_remote_sdk::job::{Event, EventKind};
//! let text = r#"{"version":1,"seq":7,"time":"2026-11-26T10:00:00Z","project":"default",
//!     "build":"build-0197a3c2-1111-7aaa-8000-000000000001","type":"build.state","data":{"state":"running"}}"#;
//! let event: Event = serde_json::from_str(text).unwrap();
//! assert_eq!(event.kind.name(), "build.state");
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AttemptOutcome, Build, BuildId, BuildState, FailureClass, Job, JobAttempt, JobError, JobId, JobState,
    Progress, ProgressRow, Project,
};

/// The version of the form of events. Fields may be added without a new one.
pub const EVENT_VERSION: u32 = 1;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Event {
    /// The version of this form: [`EVENT_VERSION`].
    pub version: u32,
    /// Its place in the stream of the farm: it grows without gaps, and is never used again.
    pub seq: u64,
    /// When it happened, RFC 3339.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// The project that it belongs to.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub project: Project,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub job: Option<JobId>,
    /// The build that it is about, or that the job belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub build: Option<BuildId>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", content = "data")]
#[non_exhaustive]
pub enum EventKind {
    /// A job is in another state.
    #[serde(rename = "job.state")]
    JobState(JobStateEvent),
    /// An attempt of a job has ended.
    #[serde(rename = "job.attempt")]
    JobAttempt(JobAttemptEvent),
    /// A step of the running attempt began or ended.
    #[serde(rename = "job.step")]
    JobStep(JobStepEvent),
    /// A phase of the running attempt ended.
    #[serde(rename = "job.phase")]
    JobPhase(JobPhaseEvent),
    /// The test of a package began or ended.
    #[serde(rename = "job.test")]
    JobTest(JobTestEvent),
    /// Somebody asked for a running job to stop.
    #[serde(rename = "job.cancel_requested")]
    JobCancelRequested {},
    /// Events were forgotten before this stream could tell them: the state of all that it is about is to be read anew.
    #[serde(rename = "stream.gap")]
    StreamGap {
        /// The number of the first of them.
        from: u64,
        /// The number of the last of them.
        to: u64,
    },
    /// A build is in another state.
    #[serde(rename = "build.state")]
    BuildState {
        /// The state.
        state: BuildState,
    },
    /// A backend is in another state, or is another one than before.
    #[serde(rename = "backend.state")]
    BackendState(BackendStateEvent),
}

impl EventKind {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JobState(_) => "job.state",
            Self::JobAttempt(_) => "job.attempt",
            Self::JobStep(_) => "job.step",
            Self::JobPhase(_) => "job.phase",
            Self::JobTest(_) => "job.test",
            Self::JobCancelRequested {} => "job.cancel_requested",
            Self::StreamGap { .. } => "stream.gap",
            Self::BuildState { .. } => "build.state",
            Self::BackendState(_) => "backend.state",
        }
    }
}

/// A backend in another state. Its event belongs to the project `default`, for it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct BackendStateEvent {
    /// Its address.
    pub addr: String,
    /// The machine, when the address means another backend on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// `unknown`, `healthy`, `trial`, `failing`, `draining`, or `removed` when it is gone.
    pub state: String,
    /// The architecture that it builds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// How many jobs it runs at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_jobs: Option<u32>,
    /// Why it fails, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A job in another state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobStateEvent {
    /// The state.
    pub state: JobState,
    /// The package that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Its architecture.
    pub arch: String,
    /// The number of the present or last attempt; 0 before the first one.
    pub attempt: u32,
    /// The backend of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How many jobs it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<u32>,
    /// Why it failed, was skipped or is tried again, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<FailureClass>,
    /// The job whose end is why this one was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub skipped_for: Option<JobId>,
    /// When it may be tried again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub not_before: Option<Timestamp>,
}

impl JobStateEvent {
    fn of(job: &Job) -> Self {
        let waits = job.state == JobState::Pending;
        let error = job.error.as_ref();
        Self {
            state: job.state,
            package: job.facts.package.as_ref().map(|package| package.name.clone()),
            arch: job.facts.arch.to_string(),
            attempt: job.attempt,
            backend: job.backend.as_ref().map(|backend| backend.addr.clone()),
            blocked_by: (job.state == JobState::Blocked).then_some(job.blocked_by),
            error: error.map(|error| error.message.clone()),
            error_class: error.map(|error| error.class),
            skipped_for: job.skipped_for,
            not_before: job.not_before.filter(|_| waits),
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobAttemptEvent {
    /// Its number.
    pub number: u32,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// Whether it counts towards the bound on attempts.
    pub counts: bool,
    /// The backend that it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Why it failed, was given back or was lost, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<FailureClass>,
}

/// A step that began or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobStepEvent {
    /// The number of the attempt.
    pub attempt: u32,
    /// Its position, from 0; of a step that failed, the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Its name, when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `running`, `success` or `failed`.
    pub state: StepState,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Its exit code, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It runs.
    Running,
    /// It ended well.
    Success,
    /// It ended badly.
    Failed,
}

/// A phase that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobPhaseEvent {
    /// The number of the attempt.
    pub attempt: u32,
    /// The phase.
    pub phase: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// A test that began or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct JobTestEvent {
    /// The number of the attempt.
    pub attempt: u32,
    /// Its position among the tests, from 0.
    pub index: usize,
    /// The package under test, when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// `running`, `success` or `failed`.
    pub state: StepState,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Event {
    /// An event of a job; [`Self::seq`] is the store's to give.
    fn of_job(job: &Job, time: Timestamp, kind: EventKind) -> Self {
        let (project, job, build) = (job.project.clone(), Some(job.id), job.build);
        Self { version: EVENT_VERSION, seq: 0, time, project, job, build, kind }
    }

    /// A job is in the state that it is in.
    pub(crate) fn job_state(job: &Job, time: Timestamp) -> Self {
        Self::of_job(job, time, EventKind::JobState(JobStateEvent::of(job)))
    }

    /// An attempt of a job has ended.
    pub(crate) fn job_attempt(job: &Job, attempt: &JobAttempt, time: Timestamp) -> Self {
        let error: Option<&JobError> = attempt.error.as_ref();
        let ended = JobAttemptEvent {
            number: attempt.number,
            outcome: attempt.outcome,
            counts: attempt.counts,
            backend: attempt.backend.as_ref().map(|backend| backend.addr.clone()),
            error: error.map(|error| error.message.clone()),
            error_class: error.map(|error| error.class),
        };
        Self::of_job(job, time, EventKind::JobAttempt(ended))
    }

    /// The attempt of a job has told something; `None` for what is told with the attempt alone.
    pub(crate) fn job_progress(job: &Job, row: &ProgressRow) -> Option<Self> {
        let attempt = job.attempt;
        let step = |index, name: Option<&String>, state, duration_ms, exit_code| {
            EventKind::JobStep(JobStepEvent {
                attempt,
                index,
                name: name.cloned(),
                state,
                duration_ms,
                exit_code,
            })
        };
        let kind = match &row.progress {
            Progress::PhaseFinished { phase } => EventKind::JobPhase(JobPhaseEvent {
                attempt,
                phase: phase.name.clone(),
                duration_ms: phase.took_ms,
            }),
            Progress::StepStarted { index, name } => {
                step(Some(*index), Some(name), StepState::Running, None, None)
            }
            Progress::StepFinished { index, took_ms, .. } => {
                step(Some(*index), None, StepState::Success, Some(*took_ms), Some(0))
            }
            Progress::StepFailed { exit_code } => step(None, None, StepState::Failed, None, Some(*exit_code)),
            Progress::TestStarted { index, package, .. } => EventKind::JobTest(JobTestEvent {
                attempt,
                index: *index,
                package: Some(package.clone()),
                state: StepState::Running,
                duration_ms: None,
                error: None,
            }),
            Progress::TestFinished { index, took_ms, error, .. } => EventKind::JobTest(JobTestEvent {
                attempt,
                index: *index,
                package: None,
                state: if error.is_some() { StepState::Failed } else { StepState::Success },
                duration_ms: Some(*took_ms),
                error: error.clone(),
            }),
            Progress::MemoryPeak { .. } | Progress::Linted { .. } => return None,
        };
        Some(Self::of_job(job, row.at, kind))
    }

    /// Somebody asked for a job to stop.
    pub(crate) fn job_cancel_requested(job: &Job, time: Timestamp) -> Self {
        Self::of_job(job, time, EventKind::JobCancelRequested {})
    }

    /// A build is in the state that it is in.
    pub(crate) fn build_state(build: &Build, time: Timestamp) -> Self {
        let kind = EventKind::BuildState { state: build.state() };
        let (project, build) = (build.project.clone(), Some(build.id));
        Self { version: EVENT_VERSION, seq: 0, time, project, job: None, build, kind }
    }

    /// A backend is in a state.
    pub(crate) fn backend_state(backend: BackendStateEvent, time: Timestamp) -> Self {
        let (version, project) = (EVENT_VERSION, Project::default());
        Self {
            version,
            seq: 0,
            time,
            project,
            job: None,
            build: None,
            kind: EventKind::BackendState(backend),
        }
    }

    /// That events from one to another were forgotten. Nobody keeps it: it is told to who has missed them.
    pub fn gap(from: u64, to: u64, time: Timestamp) -> Self {
        let (version, seq, project) = (EVENT_VERSION, to, Project::default());
        Self { version, seq, time, project, job: None, build: None, kind: EventKind::StreamGap { from, to } }
    }

    /// Whether it tells the end of a job or of a build.
    pub fn is_end(&self) -> bool {
        match &self.kind {
            EventKind::JobState(state) => state.state.is_terminal(),
            EventKind::BuildState { state } => !matches!(state, BuildState::Pending | BuildState::Running),
            _ => false,
        }
    }
}

/// The JSON Schema of [`Event`], draft 2020-12.
#[cfg(feature = "schema")]
pub fn event_schema() -> serde_json::Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Event>().to_value()
}
