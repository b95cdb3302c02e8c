//! A job: what was asked ([`JobSpec`]), where it is in its life ([`JobState`]), what happened so far.
//!
//! ```text
//!            ┌────────── Requeued, LeaseLost ──────────┐
//!            ▼                                         │
//! insert ─▶ pending ── Claimed ─▶ running ─────────────┤
//!            │                       ├─ Succeeded ─▶ success
//!            ├─ Failed ──────────────┼─ Failed ────▶ failed
//!            └─ Cancelled ───────────┴─ Cancelled ─▶ cancelled
//! ```
//!
//! A failed or cancelled job that is asked for again (Retried) is pending once more; what its attempts showed stays.
//!
//! The table of [`state`] is the only place that says which event is legal where.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::labels::Labels;

mod id;
pub mod spec;
pub mod state;

pub use id::JobId;
pub use spec::{JobSpec, UncheckedSpec};
pub use state::{JobEvent, JobState};

/// A job with its state and history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What was asked.
    pub spec: Arc<JobSpec>,
    /// Where it is in its life.
    pub state: JobState,
    /// Grows by one with every event.
    pub version: u64,
    /// The number of the present or last attempt; 0 before the first one. No two attempts of a job have one number.
    pub attempt: u32,
    /// The attempts that count towards the bound on them: all but those that were given back unused.
    pub counted_attempts: u32,
    /// When it was handed in.
    pub created_at: Timestamp,
    /// When the present or last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
    /// Why it failed, or why it is tried again.
    pub error: Option<JobError>,
    /// What is worth knowing about a success, such as that there was nothing to do.
    pub note: Option<String>,
    /// Why it waits.
    pub waiting: Option<Waiting>,
    /// It is not claimed before this time: the pause after an attempt that failed.
    pub not_before: Option<Timestamp>,
    /// Where it runs or ran.
    pub backend: Option<JobBackend>,
    /// Whether somebody asked for it to stop.
    pub cancel_requested: bool,
    /// What it made.
    pub artifacts: Vec<JobArtifact>,
    /// The steps of the present or last attempt, at most [`crate::limits::STEPS_RECORDED_MAX`].
    pub steps: Vec<JobStep>,
    /// Time spent in the phases of the present or last attempt, in order.
    pub phases: Vec<JobPhase>,
    /// The tests of the present or last attempt, in order.
    #[serde(default)]
    pub tests: Vec<JobTest>,
    /// Since when its attempts break off before their first step; such attempts do not count.
    #[serde(default)]
    pub trouble_since: Option<Timestamp>,
}

impl Job {
    /// A job that was just handed in.
    pub fn new(id: JobId, spec: Arc<JobSpec>, created_at: Timestamp) -> Self {
        Self {
            id,
            spec,
            state: JobState::Pending,
            version: 1,
            attempt: 0,
            counted_attempts: 0,
            created_at,
            started_at: None,
            finished_at: None,
            error: None,
            note: None,
            waiting: None,
            not_before: None,
            backend: None,
            cancel_requested: false,
            artifacts: Vec::new(),
            steps: Vec::new(),
            phases: Vec::new(),
            tests: Vec::new(),
            trouble_since: None,
        }
    }
}

/// One attempt of a job. What it showed stays, whatever later attempts come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAttempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// Whether it counts towards the bound on attempts.
    pub counts: bool,
    /// Why it failed, was given back or was lost.
    pub error: Option<JobError>,
    /// Where it ran.
    pub backend: Option<JobBackend>,
    /// Its steps, at most [`crate::limits::STEPS_RECORDED_MAX`].
    pub steps: Vec<JobStep>,
    /// Time spent in its phases, in order.
    pub phases: Vec<JobPhase>,
    /// Its tests, in order.
    pub tests: Vec<JobTest>,
    /// Where its part of the job's log begins, in bytes.
    pub log_begin: u64,
    /// Where that ends; `None` while it runs.
    pub log_end: Option<u64>,
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It runs.
    Running,
    /// The job made its packages.
    Success,
    /// The job failed with it.
    Failed,
    /// It was stopped as asked.
    Cancelled,
    /// It gave the job back to the queue.
    GivenBack,
    /// Its lease ended without a word.
    Lost,
}

impl AttemptOutcome {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::GivenBack => "given_back",
            Self::Lost => "lost",
        }
    }
}

/// Who is at fault when a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The definition or one of its steps; the same input fails again.
    Build,
    /// The farm: a daemon, a disk, the network. Another attempt may succeed.
    Infrastructure,
    /// No backend could ever run it.
    Unschedulable,
    /// A rule of the operator does not allow it.
    Policy,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Who is at fault.
    pub class: FailureClass,
    /// One line.
    pub message: String,
    /// The step at fault, when a step is.
    pub step: Option<JobStepFailure>,
}

impl JobError {
    /// A failure without a step.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), step: None }
    }
}

/// A step that ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStepFailure {
    /// Its name.
    pub step: String,
    /// Its exit code.
    pub exit_code: i32,
    /// The last lines that it wrote.
    pub tail: Vec<String>,
}

/// Why a job waits, and since when for this reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// One line, such as `all 3 matching backends are busy`.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// The backend of a job, as it was when the job began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBackend {
    /// Its address.
    pub addr: String,
    /// Its architecture.
    pub arch: Arch,
    /// Its labels.
    pub labels: Labels,
}

/// A file that a job made; its key is `<job>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobArtifact {
    /// Its name, such as `x86_64/hello-2.10-r0.apk`.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

/// A step of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStep {
    /// Its position, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// How long it took in milliseconds; `None` while it runs or when it did not end well.
    pub took_ms: Option<u64>,
    /// Whether its result was there already.
    pub cached: bool,
}

/// The test of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTest {
    /// Its position among the tests, from 0.
    pub index: usize,
    /// The package under test.
    pub package: String,
    /// Where it is.
    pub state: JobTestState,
    /// Why it failed, in one line.
    pub error: Option<String>,
    /// The step at fault, when a step is.
    pub step: Option<JobStepFailure>,
    /// How long it took in milliseconds, its environment included.
    pub took_ms: Option<u64>,
    /// Where its part of the job's log begins, in bytes.
    pub log_begin: u64,
    /// Where it ends; `None` while the test runs.
    pub log_end: Option<u64>,
}

/// Where a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobTestState {
    /// It runs, or its attempt ended before it did.
    Running,
    /// Every step ended well.
    Passed,
    /// A step ended badly, or the environment could not be made.
    Failed,
}

impl JobTestState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// Time spent in a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPhase {
    /// The phase's name, as [`crate::builder::Phase::name`].
    pub name: String,
    /// How long it took in milliseconds.
    pub took_ms: u64,
}
