//! Which of the ended jobs go, and what of them: decided from what is known of them, without a look anywhere.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use super::{Keep, KeepLatest, KeepRules};
use crate::clock::earlier;
use crate::job::JobId;
use crate::job_store::{EndedJob, Holding, Usage};
use crate::limits;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A job with all that it has.
    Jobs,
    /// The artifacts of a job.
    Artifacts,
    /// The logs of a job.
    Logs,
    /// What lies in the storage of a job that the job store does not know.
    Orphans,
}

impl Class {
    /// Those that rules are made for, in the order in which they are gone through: a job takes all that it has along.
    pub const RULED: [Self; 3] = [Self::Jobs, Self::Artifacts, Self::Logs];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Artifacts => "artifacts",
            Self::Logs => "logs",
            Self::Orphans => "orphans",
        }
    }

    /// What a job must have to be of this class; `None` when every one is.
    pub fn holding(self) -> Option<Holding> {
        match self {
            Self::Artifacts => Some(Holding::Artifacts),
            Self::Logs => Some(Holding::Logs),
            Self::Jobs | Self::Orphans => None,
        }
    }
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is older than the rule allows.
    Age,
    /// There is more than the rule allows, and of what may go it is the oldest.
    Bound,
    /// The job store does not know the job.
    Unknown,
}

/// Why something stays that a rule would remove. That a job is needed is not known here: the job store tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It ended a moment ago.
    Recent,
    /// A job of its build has not ended.
    OpenBuild,
    /// It is the newest success of its project, package and architecture.
    Newest,
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Removal {
    /// What.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// The job.
    pub job: JobId,
    /// The number of its last attempt.
    pub attempt: u32,
    /// What it builds; nothing when that is not known.
    pub package: String,
    /// When it ended; of an unknown job when it was handed in.
    pub ended_at: Timestamp,
    /// The bytes of artifacts that go.
    pub artifact_bytes: u64,
    /// The bytes of logs that go.
    pub log_bytes: u64,
}

/// How much goes of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Total {
    /// How many jobs that are.
    pub count: u64,
    /// Bytes of artifacts.
    pub artifact_bytes: u64,
    /// Bytes of logs.
    pub log_bytes: u64,
    /// The oldest end among them.
    pub oldest: Option<Timestamp>,
    /// The newest one.
    pub newest: Option<Timestamp>,
}

/// What a pass removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Everything, in the order in which it went.
    pub removals: Vec<Removal>,
    /// How much that is of each class.
    pub totals: BTreeMap<Class, Total>,
    /// What could not be removed; the next pass tries it again.
    pub failed: u64,
    /// Whether there is more than a pass may remove.
    pub more: bool,
}

impl Report {
    pub(super) fn add(&mut self, removal: Removal) {
        let total = self.totals.entry(removal.class).or_default();
        total.count = total.count.saturating_add(1);
        total.artifact_bytes = total.artifact_bytes.saturating_add(removal.artifact_bytes);
        total.log_bytes = total.log_bytes.saturating_add(removal.log_bytes);
        let at = removal.ended_at;
        total.oldest = Some(total.oldest.map_or(at, |oldest| oldest.min(at)));
        total.newest = Some(total.newest.map_or(at, |newest| newest.max(at)));
        self.removals.push(removal);
    }
}

/// The rules at a time, and how much is above their bounds.
#[derive(Debug)]
pub struct Plan {
    rules: KeepRules,
    now: Timestamp,
    /// Jobs above the bound.
    jobs: u64,
    /// Bytes of artifacts above the bound.
    artifact_bytes: u64,
    /// Bytes of logs above the bound.
    log_bytes: u64,
    /// Jobs that go whole.
    gone: HashSet<JobId>,
}

fn above(used: u64, keep: Keep) -> u64 {
    keep.most.map_or(0, |most| used.saturating_sub(most))
}

impl Plan {
    /// A plan for jobs that take so much now.
    pub fn new(rules: KeepRules, usage: Usage, now: Timestamp) -> Self {
        Self {
            rules,
            now,
            jobs: above(usage.jobs, rules.jobs),
            artifact_bytes: above(usage.artifact_bytes, rules.artifacts),
            log_bytes: above(usage.log_bytes, rules.logs),
            gone: HashSet::new(),
        }
    }

    fn keep(&self, class: Class) -> Keep {
        match class {
            Class::Jobs => self.rules.jobs,
            Class::Artifacts => self.rules.artifacts,
            Class::Logs => self.rules.logs,
            Class::Orphans => Keep::ALL,
        }
    }

    fn is_above(&self, class: Class) -> bool {
        match class {
            Class::Jobs => self.jobs > 0,
            Class::Artifacts => self.artifact_bytes > 0,
            Class::Logs => self.log_bytes > 0,
            Class::Orphans => false,
        }
    }

    fn is_old(&self, class: Class, ended_at: Timestamp) -> bool {
        self.keep(class).age.is_some_and(|age| ended_at < earlier(self.now, age))
    }

    /// Whether nothing of a class goes that ended at this time or later.
    pub fn is_over(&self, class: Class, ended_at: Timestamp) -> bool {
        let is_recent = ended_at > earlier(self.now, limits::RETENTION_RECENT);
        is_recent || !self.is_above(class) && !self.is_old(class, ended_at)
    }

    /// Why a job stays whatever the rules say.
    pub fn protection(&self, job: &EndedJob) -> Option<Protection> {
        if job.finished_at > earlier(self.now, limits::RETENTION_RECENT) {
            return Some(Protection::Recent);
        }
        if job.build_is_open {
            return Some(Protection::OpenBuild);
        }
        (job.is_newest && self.rules.latest == KeepLatest::Yes).then_some(Protection::Newest)
    }

    /// Why something of a job goes, unless somebody needs the job; `None` when it stays.
    pub fn reason(&self, class: Class, job: &EndedJob) -> Option<Reason> {
        if self.gone.contains(&job.id) || self.protection(job).is_some() {
            return None;
        }
        let has_it = match class {
            Class::Jobs => true,
            Class::Artifacts => job.artifact_bytes > 0,
            Class::Logs => job.log_bytes > 0,
            Class::Orphans => false,
        };
        match () {
            () if !has_it => None,
            () if self.is_old(class, job.finished_at) => Some(Reason::Age),
            () if self.is_above(class) => Some(Reason::Bound),
            () => None,
        }
    }

    /// Something of a job goes: it counts no longer.
    pub fn take(&mut self, class: Class, job: &EndedJob, reason: Reason) -> Removal {
        let (artifact_bytes, log_bytes) = match class {
            Class::Jobs | Class::Orphans => (job.artifact_bytes, job.log_bytes),
            Class::Artifacts => (job.artifact_bytes, 0),
            Class::Logs => (0, job.log_bytes),
        };
        if class == Class::Jobs {
            self.jobs = self.jobs.saturating_sub(1);
            self.gone.insert(job.id);
        }
        self.artifact_bytes = self.artifact_bytes.saturating_sub(artifact_bytes);
        self.log_bytes = self.log_bytes.saturating_sub(log_bytes);
        Removal {
            class,
            reason,
            job: job.id,
            attempt: job.attempt,
            package: job.package.clone(),
            ended_at: job.finished_at,
            artifact_bytes,
            log_bytes,
        }
    }
}
