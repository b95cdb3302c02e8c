//! The queue as a whole: how many jobs have not ended, and for how long they wait.

use jiff::Timestamp;

use super::Group;
use crate::job::{JobId, Project};

/// The jobs that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSummary {
    /// Those that wait for a backend, by group, those with the oldest first; at most
    /// [`limits::DEMAND_GROUPS_MAX`](crate::limits::DEMAND_GROUPS_MAX) groups.
    pub groups: Vec<QueueGroup>,
    /// All of them by project.
    pub projects: Vec<QueueProject>,
    /// The oldest job that waits for others.
    pub oldest_blocked: Option<JobId>,
}

impl QueueSummary {
    /// Groups, projects, and the oldest job that waits for others.
    pub fn new(groups: Vec<QueueGroup>, projects: Vec<QueueProject>, oldest_blocked: Option<JobId>) -> Self {
        Self { groups, projects, oldest_blocked }
    }
}

/// The jobs of a group that wait for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueGroup {
    /// The group.
    pub group: Group,
    /// How many there are.
    pub jobs: u64,
    /// How many of them pause, for they are tried again later.
    pub pausing: u64,
    /// Since when the one has been ready that waits longest.
    pub since: Timestamp,
}

impl QueueGroup {
    /// So many jobs of a group, of which `pausing` are tried again later.
    pub fn new(group: Group, jobs: u64, pausing: u64, since: Timestamp) -> Self {
        Self { group, jobs, pausing, since }
    }
}

/// The jobs of a project that have not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueProject {
    /// The project.
    pub project: Project,
    /// How many wait for other jobs.
    pub blocked: u64,
    /// How many wait for a backend.
    pub pending: u64,
    /// How many run.
    pub running: u64,
}

impl QueueProject {
    /// No job of a project.
    pub fn new(project: Project) -> Self {
        Self { project, blocked: 0, pending: 0, running: 0 }
    }
}
