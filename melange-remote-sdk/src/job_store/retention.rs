//! What is asked and told when ended jobs, their logs and their artifacts are to be removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::job::{BuildId, JobId, JobState, Project};

/// What a job may lose before it is removed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// The files that it made.
    Artifacts,
    /// The logs of its attempts.
    Logs,
}

/// The place of an ended job among those that are told oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndedPlace {
    /// When it ended, as [`EndedJob::finished_at`] says it.
    pub finished_at: Timestamp,
    /// The job.
    pub job: JobId,
}

/// Which ended jobs to tell.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct EndedQuery {
    /// Only jobs that still have this: artifacts of more than 0 bytes, logs among the artifacts.
    pub holding: Option<Holding>,
    /// Only jobs behind this place: that of the last job of the page before.
    pub behind: Option<EndedPlace>,
    /// At most so many, and at most [`crate::limits::PAGE_ITEMS_MAX`].
    pub limit: usize,
}

impl EndedQuery {
    /// The jobs that ended first.
    pub fn oldest(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Only those that still have this.
    #[must_use]
    pub fn holding(mut self, holding: impl Into<Option<Holding>>) -> Self {
        self.holding = holding.into();
        self
    }

    /// Only those behind a place.
    #[must_use]
    pub fn behind(mut self, place: impl Into<Option<EndedPlace>>) -> Self {
        self.behind = place.into();
        self
    }
}

/// An ended job, as far as one must know it to say what of it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedJob {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub project: Project,
    /// The package that it builds, or the name of its definition's file.
    pub package: String,
    /// Its architecture.
    pub arch: Arch,
    /// The end that it came to.
    pub state: JobState,
    /// The build that it belongs to.
    pub build: Option<BuildId>,
    /// Whether some job of that build has not ended.
    pub build_is_open: bool,
    /// Whether it is the success of its project, package and architecture that ended last.
    pub is_newest: bool,
    /// The number of its last attempt; 0 when it had none.
    pub attempt: u32,
    /// When it ended. A store may tell it rounded down to a second where a job is older than its present schema.
    pub finished_at: Timestamp,
    /// The bytes of the artifacts that it has; 0 once they were removed.
    pub artifact_bytes: u64,
    /// The bytes that its logs among the artifacts take; 0 once they were removed.
    pub log_bytes: u64,
    /// When its artifacts were removed.
    pub artifacts_removed_at: Option<Timestamp>,
    /// When its logs were removed.
    pub log_removed_at: Option<Timestamp>,
}

impl EndedJob {
    /// A job that ended so, with nothing else known of it.
    pub fn new(id: JobId, state: JobState, finished_at: Timestamp) -> Self {
        Self {
            id,
            project: Project::default(),
            package: String::new(),
            arch: Arch::X86_64,
            state,
            build: None,
            build_is_open: false,
            is_newest: false,
            attempt: 0,
            finished_at,
            artifact_bytes: 0,
            log_bytes: 0,
            artifacts_removed_at: None,
            log_removed_at: None,
        }
    }

    /// Its place among those that are told.
    pub fn place(&self) -> EndedPlace {
        EndedPlace { finished_at: self.finished_at, job: self.id }
    }
}

/// What all ended jobs take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// How many there are.
    pub jobs: u64,
    /// The bytes of their artifacts.
    pub artifact_bytes: u64,
    /// The bytes of their logs among the artifacts.
    pub log_bytes: u64,
}

impl Usage {
    /// So many jobs with so many bytes of artifacts and of logs.
    pub fn new(jobs: u64, artifact_bytes: u64, log_bytes: u64) -> Self {
        Self { jobs, artifact_bytes, log_bytes }
    }
}
