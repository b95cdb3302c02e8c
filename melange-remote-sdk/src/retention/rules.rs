//! The rules.

use std::time::Duration;

use crate::limits;

/// How much of one kind is kept. What breaks one of the bounds goes, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// How long, counted from the end of the job; `None` for ever.
    pub age: Option<Duration>,
    /// How much of all ended jobs together: bytes of logs and of artifacts, a number of jobs; `None` without a bound.
    pub most: Option<u64>,
}

impl Keep {
    /// Everything.
    pub const ALL: Self = Self { age: None, most: None };

    /// What is not older than this.
    pub fn within(age: Duration) -> Self {
        Self { age: Some(age), ..Self::ALL }
    }

    /// What of the newest is not more than this.
    pub fn at_most(most: u64) -> Self {
        Self { most: Some(most), ..Self::ALL }
    }

    /// What passes both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self { age: least(self.age, other.age), most: least(self.most, other.most) }
    }
}

/// Whether the newest success of each project, package and architecture is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepLatest {
    /// For ever, with its log and its artifacts.
    #[default]
    Yes,
    /// As any other job.
    No,
}

/// What is kept of ended jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepRules {
    /// The jobs, by their number.
    pub jobs: Keep,
    /// The logs of their attempts, by the bytes that they take among the artifacts.
    pub logs: Keep,
    /// Their artifacts, by their bytes.
    pub artifacts: Keep,
    /// The newest successes.
    pub latest: KeepLatest,
}

impl KeepRules {
    /// Everything is kept.
    pub const ALL: Self =
        Self { jobs: Keep::ALL, logs: Keep::ALL, artifacts: Keep::ALL, latest: KeepLatest::Yes };
}

impl Default for KeepRules {
    /// Artifacts for [`limits::KEEP_ARTIFACTS`], logs for [`limits::KEEP_LOGS`], jobs for [`limits::KEEP_JOBS`], however
    /// much that is.
    fn default() -> Self {
        Self {
            jobs: Keep::within(limits::KEEP_JOBS),
            logs: Keep::within(limits::KEEP_LOGS),
            artifacts: Keep::within(limits::KEEP_ARTIFACTS),
            latest: KeepLatest::Yes,
        }
    }
}
