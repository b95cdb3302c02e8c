//! The queue as a whole, on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The answer to `GET /api/v1/queue`: the jobs that have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct QueueView {
    /// When it was so, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// How many jobs wait for others.
    pub blocked: u64,
    /// How many wait for a backend.
    pub pending: u64,
    /// How many run.
    pub running: u64,
    /// Since when the job waits that waits longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub oldest_at: Option<Timestamp>,
    /// Why jobs wait: the reasons of the most jobs first, at most 100.
    pub reasons: Vec<QueueReasonView>,
    /// The projects that have jobs.
    pub projects: Vec<QueueProjectView>,
}

impl QueueView {
    /// An empty queue.
    pub fn new(at: Timestamp) -> Self {
        let (reasons, projects) = (Vec::new(), Vec::new());
        Self { at, blocked: 0, pending: 0, running: 0, oldest_at: None, reasons, projects }
    }
}

/// Why some jobs wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct QueueReasonView {
    /// The word that `waiting` of such a job has.
    pub reason: String,
    /// The same in a sentence.
    pub sentence: String,
    /// How many jobs.
    pub jobs: u64,
    /// Since when the one waits that waits longest.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl QueueReasonView {
    /// So many jobs that wait for a reason.
    pub fn new(reason: impl Into<String>, sentence: impl Into<String>, jobs: u64, since: Timestamp) -> Self {
        Self { reason: reason.into(), sentence: sentence.into(), jobs, since, hint: None }
    }
}

/// The jobs of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct QueueProjectView {
    /// Its name.
    pub project: String,
    /// How many wait for others.
    pub blocked: u64,
    /// How many wait for a backend.
    pub pending: u64,
    /// How many run.
    pub running: u64,
}

impl QueueProjectView {
    /// A project with so many jobs.
    pub fn new(project: impl Into<String>, blocked: u64, pending: u64, running: u64) -> Self {
        Self { project: project.into(), blocked, pending, running }
    }
}
