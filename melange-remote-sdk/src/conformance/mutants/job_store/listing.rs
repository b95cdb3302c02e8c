//! Mistakes in lists of jobs and builds, and in what is told of results and durations.

use super::*;

impl Mutant {
    /// What the mistake makes of an end before it is told.
    pub(super) fn outcome_with_bug(&self, outcome: &Outcome) -> Outcome {
        let mut outcome = outcome.clone();
        if let Outcome::Succeeded { result, reused, .. } = &mut outcome {
            match self.bug {
                Bug::FinishForgetsReuse => *reused = None,
                Bug::FinishForgetsResult => *result = None,
                _ => {}
            }
        }
        outcome
    }

    pub(super) async fn list_with_bug(&self, query: &ListQuery) -> Result<JobPage> {
        let mut query = query.clone();
        match self.bug {
            Bug::ListIgnoresState(state) if query.state == Some(state) => query.state = None,
            Bug::ListForgetsCursor => query.before = None,
            Bug::ListIgnoresBuild => query.build = None,
            Bug::ListIgnoresProject => query.project = None,
            Bug::ListIgnoresPackage => query.package = None,
            Bug::ListIgnoresArch => query.arch = None,
            Bug::ListForgetsAfter => query.after = None,
            Bug::ListIsAlwaysNewestFirst => query.oldest_first = false,
            _ => {}
        }
        let of = query.project.clone().filter(|_| matches!(self.bug, Bug::ListFiltersProjectLate));
        query.project = query.project.filter(|_| of.is_none());
        let mut page = self.inner.list(&query).await?;
        page.jobs.retain(|job| of.as_ref().is_none_or(|project| job.project == *project));
        match self.bug {
            Bug::ListSaysNoMore => page.more = false,
            Bug::ListIsBackwards => page.jobs.reverse(),
            Bug::ListLeavesOut(state) if query.state.is_none() => page.jobs.retain(|job| job.state != state),
            Bug::ListLoses(loss) => page.jobs = page.jobs.iter().map(|job| lost(job, loss)).collect(),
            Bug::ListIgnoresBound => {
                while page.more && page.jobs.len() < query.limit {
                    let before = page.jobs.last().map(|job| job.id);
                    let rest = self.inner.list(&query.clone().before(before)).await?;
                    page.jobs.extend(rest.jobs);
                    page.more = rest.more;
                }
                page.jobs.truncate(query.limit);
            }
            _ => {}
        }
        page.jobs = page.jobs.iter().map(|job| self.read(job)).collect();
        Ok(page)
    }

    pub(super) async fn builds_with_bug(&self, query: &BuildQuery) -> Result<BuildPage> {
        let mut query = query.clone();
        match self.bug {
            Bug::BuildsIgnoreProject => query.project = None,
            Bug::BuildsIgnoreState => query.state = None,
            Bug::BuildsForgetCursor => query.before = None,
            _ => {}
        }
        let mut page = self.inner.builds(&query).await?;
        match self.bug {
            Bug::BuildsSayNoMore => page.more = false,
            Bug::BuildsAreBackwards => page.builds.reverse(),
            _ => {}
        }
        Ok(page)
    }

    pub(super) async fn with_result_with_bug(
        &self,
        project: &Project,
        result: ResultDigest,
    ) -> Result<Option<Arc<Job>>> {
        let found = self.inner.with_result(project, result).await?;
        if matches!(self.bug, Bug::ResultsAreUnknown) {
            return Ok(None);
        }
        let fits = |job: &&Arc<Job>| match self.bug {
            Bug::ResultsAreShared => job.result == Some(result),
            Bug::ResultsForgetRemovals => job.result == Some(result) && job.project == *project,
            _ => false,
        };
        let all = self.inner.list(&ListQuery::newest(limits::PAGE_ITEMS_MAX)).await?;
        Ok(all.jobs.iter().find(fits).cloned().or(found))
    }

    pub(super) async fn durations_with_bug(
        &self,
        project: &Project,
        arch: Arch,
    ) -> Result<Vec<PackageDuration>> {
        let arch = if matches!(self.bug, Bug::DurationsIgnoreArch) { Arch::X86_64 } else { arch };
        let mut told = self.inner.durations(project, arch).await?;
        match self.bug {
            Bug::DurationsLoseOne => drop(told.pop()),
            Bug::DurationsAreLast => {
                let all = self.inner.list(&ListQuery::newest(limits::PAGE_ITEMS_MAX)).await?;
                for told in &mut told {
                    let last = all.jobs.iter().find(|job| {
                        job.project == *project
                            && job.title() == told.package
                            && job.state == JobState::Success
                    });
                    let times = last.and_then(|job| job.started_at.zip(job.finished_at));
                    told.took =
                        times.map_or(told.took, |(began, ended)| ended.duration_since(began).unsigned_abs());
                }
            }
            _ => {}
        }
        Ok(told)
    }
}
