//! Lists of jobs and builds, and what packages took.

use std::sync::Arc;
use std::time::Duration;

use super::JobReading;
use crate::arch::Arch;
use crate::error::Result;
use crate::job::{Build, BuildId, BuildState, Job, JobId, JobState, Project};
use crate::limits;

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListQuery {
    /// Only jobs of this project.
    pub project: Option<Project>,
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// Only jobs of this build.
    pub build: Option<BuildId>,
    /// Only jobs with this [`Job::title`].
    pub package: Option<String>,
    /// Only jobs for this architecture.
    pub arch: Option<Arch>,
    /// Only jobs older than this one: the last job of the page before.
    pub before: Option<JobId>,
    /// Only jobs younger than this one.
    pub after: Option<JobId>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// At most so many, and at most [`limits::PAGE_ITEMS_MAX`](crate::limits::PAGE_ITEMS_MAX).
    pub limit: usize,
}

impl ListQuery {
    /// The newest jobs.
    pub fn newest(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Only those of a project.
    #[must_use]
    pub fn of_project(mut self, project: impl Into<Option<Project>>) -> Self {
        self.project = project.into();
        self
    }

    /// Only those in a state.
    #[must_use]
    pub fn in_state(mut self, state: impl Into<Option<JobState>>) -> Self {
        self.state = state.into();
        self
    }

    /// Only those of a build.
    #[must_use]
    pub fn of_build(mut self, build: impl Into<Option<BuildId>>) -> Self {
        self.build = build.into();
        self
    }

    /// Only those with a title, such as the name of their package.
    #[must_use]
    pub fn titled(mut self, title: impl Into<Option<String>>) -> Self {
        self.package = title.into();
        self
    }

    /// Only those for an architecture.
    #[must_use]
    pub fn for_arch(mut self, arch: impl Into<Option<Arch>>) -> Self {
        self.arch = arch.into();
        self
    }

    /// The oldest first, from behind the last one of a page.
    #[must_use]
    pub fn oldest_after(mut self, last: impl Into<Option<JobId>>) -> Self {
        (self.after, self.oldest_first) = (last.into(), true);
        self
    }

    /// Only those behind the last one of a page.
    #[must_use]
    pub fn before(mut self, last: impl Into<Option<JobId>>) -> Self {
        self.before = last.into();
        self
    }
}

/// A page of a listing, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// Whether older ones match too.
    pub more: bool,
}

impl JobPage {
    /// The last page.
    pub fn new(jobs: Vec<Arc<Job>>) -> Self {
        Self { jobs, more: false }
    }
}

/// All jobs of a query, page by page, the oldest first; at most [`limits::SUBMISSION_JOBS_MAX`] and a page more, as
/// many as a build may have.
///
/// # Errors
/// The job store's.
pub async fn all_jobs(job_store: &dyn JobReading, query: &ListQuery) -> Result<Vec<Arc<Job>>> {
    let (mut jobs, mut last) = (Vec::new(), query.after);
    while jobs.len() < limits::SUBMISSION_JOBS_MAX {
        let query = ListQuery { limit: limits::PAGE_ITEMS_MAX, ..query.clone() };
        let page = job_store.list(&query.oldest_after(last)).await?;
        last = page.jobs.last().map(|job| job.id);
        jobs.extend(page.jobs);
        if !page.more || last.is_none() {
            break;
        }
    }
    Ok(jobs)
}

/// Which builds to list.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BuildQuery {
    /// Only builds of this project.
    pub project: Option<Project>,
    /// Only builds in this state.
    pub state: Option<BuildState>,
    /// Only builds older than this one: the last build of the page before.
    pub before: Option<BuildId>,
    /// At most so many, and at most [`limits::PAGE_ITEMS_MAX`](crate::limits::PAGE_ITEMS_MAX).
    pub limit: usize,
}

impl BuildQuery {
    /// The newest builds.
    pub fn newest(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Only those of a project.
    #[must_use]
    pub fn of_project(mut self, project: impl Into<Option<Project>>) -> Self {
        self.project = project.into();
        self
    }

    /// Only those in a state.
    #[must_use]
    pub fn in_state(mut self, state: impl Into<Option<BuildState>>) -> Self {
        self.state = state.into();
        self
    }

    /// Only those behind the last one of a page.
    #[must_use]
    pub fn before(mut self, last: impl Into<Option<BuildId>>) -> Self {
        self.before = last.into();
        self
    }

    /// Whether a build is one of those, wherever its page begins.
    pub fn fits(&self, build: &Build) -> bool {
        self.project.as_ref().is_none_or(|project| *project == build.project)
            && self.state.is_none_or(|state| state == build.state())
    }
}

/// A page of builds, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildPage {
    /// The builds.
    pub builds: Vec<Build>,
    /// Whether older ones match too.
    pub more: bool,
}

impl BuildPage {
    /// So many builds, and perhaps more.
    pub fn new(builds: Vec<Build>, more: bool) -> Self {
        Self { builds, more }
    }
}

/// How long a package took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageDuration {
    /// The name of the main package.
    pub package: String,
    /// The median of its last jobs, from the beginning of the attempt that made it to its end.
    pub took: Duration,
}

impl PackageDuration {
    /// What a package took.
    pub fn new(package: impl Into<String>, took: Duration) -> Self {
        Self { package: package.into(), took }
    }
}

/// The median of some times, the lower one of two; `None` of none.
pub(super) fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) / 2).copied()
}
