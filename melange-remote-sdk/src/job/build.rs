//! A build: jobs that were handed in together.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BuildId, JobState, Project};

/// How many jobs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts([u32; JobState::ALL.len()]);

impl StateCounts {
    /// The jobs in a state.
    pub fn get(&self, state: JobState) -> u32 {
        self.0[state.index()]
    }

    /// All jobs.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// One job more in a state.
    pub fn add(&mut self, state: JobState) {
        let count = &mut self.0[state.index()];
        *count = count.saturating_add(1);
    }

    /// One job less in a state.
    pub fn take(&mut self, state: JobState) {
        let count = &mut self.0[state.index()];
        *count = count.saturating_sub(1);
    }
}

/// Jobs that were handed in together, under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// Whose it is.
    pub project: Project,
    /// When it was handed in.
    pub created_at: Timestamp,
    /// When the last of its jobs came to its end; `None` while one waits or runs.
    pub finished_at: Option<Timestamp>,
    /// Its jobs by state.
    pub counts: StateCounts,
}

/// Where a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// None of its jobs began.
    Pending,
    /// Some of its jobs have not come to their end.
    Running,
    /// All of them succeeded.
    Success,
    /// None of them succeeded.
    Failed,
    /// Some of them succeeded.
    Partial,
    /// Jobs of it were cancelled, and none failed.
    Cancelled,
}

impl BuildState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for BuildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Build {
    /// Whether none of its jobs waits or runs.
    pub fn is_finished(&self) -> bool {
        JobState::ALL
            .into_iter()
            .filter(|state| !state.is_terminal())
            .all(|state| self.counts.get(state) == 0)
    }

    /// Where it is, from the states of its jobs.
    pub fn state(&self) -> BuildState {
        let count = |state| self.counts.get(state);
        let (total, succeeded) = (self.counts.total(), count(JobState::Success));
        if !self.is_finished() {
            let waiting = count(JobState::Blocked).saturating_add(count(JobState::Pending));
            return if waiting == total { BuildState::Pending } else { BuildState::Running };
        }
        if succeeded == total {
            return BuildState::Success;
        }
        if count(JobState::Cancelled) > 0 && count(JobState::Failed) == 0 {
            return BuildState::Cancelled;
        }
        if succeeded == 0 { BuildState::Failed } else { BuildState::Partial }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(jobs: &[JobState]) -> Build {
        let at = Timestamp::UNIX_EPOCH;
        let mut counts = StateCounts::default();
        jobs.iter().for_each(|state| counts.add(*state));
        Build { id: BuildId::new(at), project: Project::default(), created_at: at, finished_at: None, counts }
    }

    #[test]
    fn the_state_follows_from_the_jobs() {
        use JobState::*;
        for (jobs, state) in [
            (vec![Blocked, Pending], BuildState::Pending),
            (vec![Blocked, Success], BuildState::Running),
            (vec![Running], BuildState::Running),
            (vec![Success, Success], BuildState::Success),
            (vec![Success, Failed, Skipped], BuildState::Partial),
            (vec![Failed, Skipped], BuildState::Failed),
            (vec![Failed, Cancelled], BuildState::Failed),
            (vec![Success, Cancelled, Skipped], BuildState::Cancelled),
        ] {
            assert_eq!(build(&jobs).state(), state, "{jobs:?}");
        }
    }
}
