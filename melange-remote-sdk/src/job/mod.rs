//! A job: what was asked ([`JobSpec`]), where it is in its life ([`JobState`]), what its attempts showed
//! ([`JobAttempt`]).
//!
//! ```text
//!   blocked ── Unlocked ─▶ pending ── Claimed ─▶ running ── Succeeded ─▶ success
//!      │                    ▲   │                  │
//!      ├─ Skipped ▶ skipped │   ├─ Skipped ▶ skipped
//!      │                    │   ├─ Failed ─────────┼─ Failed ──────────▶ failed
//!      └─ Cancelled         │   └─ Cancelled ──────┼─ Cancelled ───────▶ cancelled
//!                           └──── Released, Lost ──┘
//! ```
//!
//! A job that failed, was cancelled or skipped and is asked for again (Retried) is pending or blocked once more; what
//! its attempts showed stays.
//!
//! The table of [`state`] is the only place that says which event is legal where.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::labels::Labels;

mod attempt;
mod build;
mod event;
mod id;
mod log;
mod origin;
mod resources;
mod result;
mod source;
pub mod spec;
pub mod state;

pub use crate::failure::FailureClass;
pub use attempt::{
    AttemptOutcome, JobAttempt, JobPhase, JobStep, JobTest, JobTestState, Progress, ProgressRow,
};
pub use build::{Build, BuildFacts, BuildSource, BuildState, StateCounts};
#[cfg(feature = "schema")]
pub use event::event_schema;
pub use event::{
    BackendStateEvent, EVENT_VERSION, Event, EventKind, JobAttemptEvent, JobPhaseEvent, JobStateEvent,
    JobStepEvent, JobTestEvent, StepState,
};
pub use id::{BuildId, ClaimToken, JobId, Project, ServerId};
pub use log::{LogArchive, LogPosition, StepLines};
pub use origin::{DefinitionOrigin, repository_of};
pub use resources::{BackendCapacity, BackendLoad, JobResources};
pub use result::ResultDigest;
pub use source::SourceDigest;
pub use spec::{JobFacts, JobSpec, UncheckedSpec};
pub use state::{JobEvent, JobState, Outcome};

/// How urgent a job is: 0 to 1,000; the greater ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Priority(u16);

impl Priority {
    /// The most urgent one.
    pub const MAX: Self = Self(1_000);

    /// A priority.
    ///
    /// # Errors
    /// `InvalidRequest` above 1,000.
    pub fn new(priority: u16) -> Result<Self> {
        if priority > Self::MAX.0 {
            return Err(Error::invalid(format!("{priority} is no priority: they go from 0 to 1000")));
        }
        Ok(Self(priority))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Priority {
    /// 500, the middle.
    fn default() -> Self {
        Self(500)
    }
}

impl TryFrom<u16> for Priority {
    type Error = Error;

    fn try_from(priority: u16) -> Result<Self> {
        Self::new(priority)
    }
}

impl From<Priority> for u16 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// A job with its state. Texts of the definition are in its [`JobSpec`], what its attempts showed in its
/// [`JobAttempt`]s; both are read apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub project: Project,
    /// The build that it belongs to.
    pub build: Option<BuildId>,
    /// What was asked, without the texts.
    pub facts: Arc<JobFacts>,
    /// How urgent it is.
    pub priority: Priority,
    /// Among equally urgent jobs the greater ones first, such as the length of the path that waits for it.
    pub rank: i64,
    /// Where it is in its life.
    pub state: JobState,
    /// Grows by one with every event.
    pub version: u64,
    /// How many of the jobs that it waits for have not succeeded.
    pub blocked_by: u32,
    /// The number of the present or last attempt; 0 before the first one. No two attempts of a job have one number.
    pub attempt: u32,
    /// The attempts that count towards the bound on them: all but those that were given back unused.
    pub counted_attempts: u32,
    /// When it was handed in.
    pub created_at: Timestamp,
    /// Since when it could have been claimed, pauses apart: handed in, unlocked, given back or asked for again.
    pub ready_at: Option<Timestamp>,
    /// When the present or last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or was skipped, or why it is tried again.
    pub error: Option<JobError>,
    /// What is worth knowing about a success, such as that there was nothing to do.
    pub note: Option<String>,
    /// Why it waits.
    pub waiting: Option<Waiting>,
    /// It is not claimed before this time: the pause after an attempt that failed.
    pub not_before: Option<Timestamp>,
    /// Backends on which it failed for reasons of theirs, in order; others are asked first.
    pub avoid: Vec<String>,
    /// Memory in bytes that it asks for at least, whatever its definition says, since an attempt ran out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Where it runs or ran.
    pub backend: Option<JobBackend>,
    /// The server that runs or ran it.
    pub server: Option<ServerId>,
    /// Whether somebody asked for it to stop.
    pub cancel_requested: bool,
    /// The job whose end is why this one was skipped.
    pub skipped_for: Option<JobId>,
    /// What it made.
    pub artifacts: Vec<JobArtifact>,
    /// Names all that its success came from, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultDigest>,
    /// The job whose files it has, because they come from the same; nothing was built then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<JobId>,
    /// Since when its attempts break off before their first step; such attempts do not count.
    pub trouble_since: Option<Timestamp>,
    /// When the first of the attempts that count broke off for reasons of the farm.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// When the ended job's artifacts were removed by the rules of [`crate::retention`]; the job goes on telling what they
    /// were.
    #[serde(default)]
    pub artifacts_removed_at: Option<Timestamp>,
    /// When the logs of the ended job's attempts were removed.
    #[serde(default)]
    pub log_removed_at: Option<Timestamp>,
}

impl Job {
    /// A job that was just handed in and waits for no other one.
    pub fn new(id: JobId, spec: &JobSpec, created_at: Timestamp) -> Self {
        Self {
            id,
            project: Project::default(),
            build: None,
            facts: Arc::new(spec.facts().clone()),
            priority: Priority::default(),
            rank: 0,
            state: JobState::Pending,
            version: 1,
            blocked_by: 0,
            attempt: 0,
            counted_attempts: 0,
            created_at,
            ready_at: Some(created_at),
            started_at: None,
            finished_at: None,
            error: None,
            note: None,
            waiting: None,
            not_before: None,
            avoid: Vec::new(),
            memory_bytes: None,
            backend: None,
            server: None,
            cancel_requested: false,
            skipped_for: None,
            artifacts: Vec::new(),
            result: None,
            reused: None,
            trouble_since: None,
            failing_since: None,
            artifacts_removed_at: None,
            log_removed_at: None,
        }
    }

    /// What it asks of a backend now: what its definition says, or more since an attempt ran out of memory.
    pub fn resources(&self) -> JobResources {
        self.facts.resources().at_least(JobResources::new(0, self.memory_bytes.unwrap_or(0)))
    }

    /// What the job is called: the package that it builds, or the name of its definition's file.
    pub fn title(&self) -> &str {
        self.facts.package.as_ref().map_or(&self.facts.config_name, |package| &package.name)
    }
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
    /// What the attempt failed of, on the way to a job store: the store keeps it with the attempt, and its own errors tell
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<Failure>>,
}

impl JobError {
    /// A failure without a step.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), step: None, failure: None }
    }

    /// The same with what the attempt failed of.
    #[must_use]
    pub fn with_failure(self, failure: Failure) -> Self {
        Self { failure: Some(Box::new(failure)), ..self }
    }

    /// Whether two errors tell the same, whatever the attempts failed of.
    pub(crate) fn tells_as(&self, other: &Self) -> bool {
        (self.class, &self.message, &self.step) == (other.class, &other.message, &other.step)
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
    /// The machine, when the address means another backend on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

impl JobBackend {
    /// A backend whose address means the same one everywhere.
    pub fn new(addr: impl Into<String>, arch: Arch, labels: Labels) -> Self {
        Self { addr: addr.into(), arch, labels, machine: None }
    }

    /// The name by which its jobs are counted.
    pub fn key(&self) -> String {
        key_of(&self.addr, self.machine.as_deref())
    }
}

/// Where a backend is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendPlace {
    /// Its address, in its one form.
    pub addr: String,
    /// The machine, when the address means another backend on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

impl BackendPlace {
    /// The name by which its jobs are counted; no other backend has it, for addresses hold no spaces.
    pub fn key(&self) -> String {
        key_of(&self.addr, self.machine.as_deref())
    }
}

fn key_of(addr: &str, machine: Option<&str>) -> String {
    machine.map_or_else(|| addr.to_owned(), |machine| format!("{addr} on {machine}"))
}

/// A file that a job made; its key is `<job>/<attempt>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobArtifact {
    /// Its name, such as `x86_64/hello-2.10-r0.apk`.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}
