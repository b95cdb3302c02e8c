//! Mistakes about ended jobs, and about what is removed of them.

use super::*;

impl Mutant {
    pub(super) async fn note_removed_with_bug(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        let job = self.inner.get(id).await?;
        let log = self.inner.read_log(id, 0, usize::MAX).await;
        match self.bug {
            Bug::NoteRemovedDoesNothing if job.state.is_terminal() => return Ok(()),
            Bug::NoteRemovedTakesRunning if !job.state.is_terminal() => return Ok(()),
            Bug::NoteRemovedTakesBoth => {
                for what in [Holding::Artifacts, Holding::Logs] {
                    self.inner.note_removed(id, what, at).await?;
                }
            }
            Bug::UnarchivedTellsRemoved => {
                let left = self.inner.unarchived(Timestamp::MAX, limits::PAGE_ITEMS_MAX).await?;
                self.notes().unarchived.extend(left.into_iter().filter(|(job, _)| *job == id));
            }
            _ => {}
        }
        self.inner.note_removed(id, what, at).await?;
        let mut notes = self.notes();
        notes.noted.insert(id, at);
        if what == Holding::Artifacts && job.artifacts_removed_at.is_none() {
            notes.removed_bytes += job.artifacts.iter().map(|artifact| artifact.size_bytes).sum::<u64>();
        }
        if let (Bug::NoteRemovedKeepsLog, Holding::Logs, Ok(log)) = (self.bug, what, log) {
            notes.logs.insert(id, log);
        }
        Ok(())
    }

    pub(super) async fn ended_with_bug(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        let mut query = *query;
        match self.bug {
            Bug::EndedForgetsPlace => query.behind = None,
            Bug::EndedIgnoresHolding => query.holding = None,
            Bug::EndedIgnoresBound => query.limit = query.limit.saturating_add(1),
            _ => {}
        }
        let mut told = self.inner.ended(&query).await?;
        match self.bug {
            Bug::EndedIsBackwards => told.reverse(),
            Bug::EndedLosesFailed => told.retain(|job| job.state != JobState::Failed),
            Bug::EndedLoses(loss) => told.iter_mut().for_each(loss),
            _ => {}
        }
        Ok(told)
    }

    pub(super) async fn is_needed_with_bug(&self, id: JobId) -> Result<bool> {
        let told = self.inner.is_needed(id).await?;
        Ok(match self.bug {
            Bug::NeededIsNever => false,
            Bug::NeededByEnded => told || !self.dependents(id).is_empty(),
            Bug::NeededByNextOnly | Bug::NeededByPendingOnly => {
                let mut needed = false;
                for dependent in self.dependents(id) {
                    let state = self.inner.get(dependent).await?.state;
                    needed |= match self.bug {
                        Bug::NeededByPendingOnly => state == JobState::Pending || state.is_terminal() && told,
                        _ => !state.is_terminal(),
                    };
                }
                needed
            }
            _ => told,
        })
    }

    pub(super) async fn needed_sources_with_bug(
        &self,
        sources: &[SourceDigest],
    ) -> Result<BTreeSet<SourceDigest>> {
        let mut told = self.inner.needed_sources(sources).await?;
        match self.bug {
            Bug::NeededSourcesAreNone => told.clear(),
            Bug::NeededSourcesAreAll => told.extend(sources),
            Bug::NeededSourcesOfEnded => {
                let jobs = self.inner.list(&ListQuery::newest(limits::PAGE_ITEMS_MAX)).await?.jobs;
                let live = jobs.iter().filter(|job| !job.state.is_terminal());
                let live: BTreeSet<_> = live.filter_map(|job| job.facts.source).collect();
                told.retain(|source| live.contains(source));
            }
            _ => {}
        }
        Ok(told)
    }

    pub(super) async fn usage_with_bug(&self) -> Result<Usage> {
        let mut usage = self.inner.usage().await?;
        match self.bug {
            Bug::UsageIsEmpty => usage = Usage::default(),
            Bug::UsageCountsRemoved => usage.artifact_bytes += self.notes().removed_bytes,
            _ => {}
        }
        Ok(usage)
    }

    pub(super) async fn queue_with_bug(&self, now: Timestamp) -> Result<QueueSummary> {
        let mut queue = self.inner.queue(now).await?;
        match self.bug {
            Bug::QueueForgetsPauses => queue.groups.iter_mut().for_each(|group| group.pausing = 0),
            Bug::QueueIsYoung => queue.groups.iter_mut().for_each(|group| group.since = now),
            Bug::QueueIsBackwards => queue.groups.reverse(),
            Bug::QueueCountsGroupsOnce => queue.groups.iter_mut().for_each(|group| group.jobs = 1),
            Bug::QueueForgetsBlocked => queue.projects.iter_mut().for_each(|project| project.blocked = 0),
            Bug::QueueForgetsRunning => queue.projects.iter_mut().for_each(|project| project.running = 0),
            Bug::QueueTellsNoBlocked => queue.oldest_blocked = None,
            _ => {}
        }
        Ok(queue)
    }
}
