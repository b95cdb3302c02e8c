//! A build: jobs that were handed in together.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BuildId, JobState, Project};
use crate::arch::Arch;
use crate::error::{Error, Result};

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

/// Where the definitions of a build come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BuildSource {
    /// Nobody said so.
    #[default]
    Unknown,
    /// They came with the request.
    Inline {
        /// How many there were.
        definitions: u32,
    },
    /// They were read from a git repository.
    Git {
        /// Its address, without credentials.
        url: String,
        /// What was asked for.
        reference: String,
        /// The commit that it was then.
        commit: String,
    },
}

/// What is known of a build from the beginning; it never changes. It is read with every list of builds: what is large
/// is kept elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BuildFacts {
    /// Where its definitions come from.
    pub source: BuildSource,
    /// What was asked for in a few words, such as `zlib, zstd and 3 more`.
    pub title: String,
    /// The architectures, in the order of the request.
    pub architectures: Vec<Arch>,
    /// Whether it was planned: its jobs see what those made that they waited for.
    pub is_planned: bool,
    /// Definitions that are not built, whatever the reason.
    pub skipped: u32,
    /// Needs that published packages serve, so that there is no circle.
    pub cuts: u32,
    /// How many jobs the longest chain has.
    pub levels: u32,
    /// What the chain is expected to take that takes longest, in milliseconds.
    pub critical_path_ms: u64,
    /// Whether what has not begun is left out once a job has failed.
    pub fail_fast: bool,
    /// Who or what asked for it, as the client says.
    pub trigger: String,
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
    /// Those of its jobs that succeeded with the files of another one.
    #[serde(default)]
    pub reused: u32,
    /// What is known of it from the beginning.
    #[serde(default)]
    pub facts: Arc<BuildFacts>,
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
    /// All states, in the order of a build's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Success, Self::Failed, Self::Partial, Self::Cancelled];

    /// Its place in [`Self::ALL`].
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Pending => 0,
            Self::Running => 1,
            Self::Success => 2,
            Self::Failed => 3,
            Self::Partial => 4,
            Self::Cancelled => 5,
        }
    }

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

impl FromStr for BuildState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("{text:?} is no status of a build")).hint(format!("known: {known}"))
        })
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
        let (id, facts) = (BuildId::new(at), Arc::default());
        let project = Project::default();
        Build { id, project, created_at: at, finished_at: None, counts, reused: 0, facts }
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
