//! Mistakes about what attempts tell.

use super::*;

impl Mutant {
    pub(super) async fn events_with_bug(&self, query: &EventQuery) -> Result<EventPage> {
        let mut asked = query.clone();
        match self.bug {
            Bug::EventsOfAllJobs => asked.job = None,
            Bug::EventsOfAllBuilds => asked.build = None,
            Bug::EventsOfAllProjects => asked.project = None,
            Bug::EventsIgnoreBound => asked.limit = usize::MAX,
            _ => {}
        }
        let mut page = self.inner.events(&asked).await?;
        match self.bug {
            Bug::EventsAreLost => page.events.retain(|event| event.kind.name() != "job.attempt"),
            Bug::EventsLoseSteps => page.events.retain(|event| event.kind.name() != "job.step"),
            Bug::EventsLoseBuilds => page.events.retain(|event| event.kind.name() != "build.state"),
            Bug::EventsAreBackwards => page.events.reverse(),
            Bug::EventsComeTwice => {
                page.events = page.events.iter().flat_map(|e| [e.clone(), e.clone()]).collect()
            }
            Bug::EventsNumberPages => {
                for (seq, event) in (1..).zip(&mut page.events) {
                    event.seq = seq;
                }
            }
            Bug::RestartLosesEvents if self.reopened => page.events.clear(),
            _ => {}
        }
        Ok(page)
    }

    pub(super) async fn append_with_bug(
        &self,
        fence: Fence,
        first: u64,
        rows: &[ProgressRow],
    ) -> Result<u64> {
        let fence = if matches!(self.bug, Bug::AppendIgnoresFence) { self.latest(fence) } else { fence };
        let end = self.notes().rows.get(&fence).copied().unwrap_or(0);
        let first = match self.bug {
            Bug::AppendIgnoresFirst if first <= end => end,
            Bug::AppendTakesGaps if first > end => end,
            _ => first,
        };
        let told = match self.bug {
            Bug::AppendIgnoresBound if !rows.is_empty() => {
                let mut told = first;
                for part in rows.chunks(limits::PROGRESS_ROWS_MAX) {
                    told = self.inner.append(fence, told, part).await?;
                }
                told
            }
            _ => self.inner.append(fence, first, rows).await?,
        };
        self.notes().rows.insert(fence, told);
        Ok(told)
    }

    pub(super) async fn append_log_with_bug(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let fence = if matches!(self.bug, Bug::LogIgnoresFence) { self.latest(fence) } else { fence };
        let end = self.inner.read_log(fence.job, 0, 0).await?.len;
        match self.bug {
            Bug::LogTwice => {
                let end = self.inner.append_log(fence, offset, bytes.clone()).await?;
                self.inner.append_log(fence, end, bytes).await
            }
            Bug::LogIgnoresOffset if offset <= end => self.inner.append_log(fence, end, bytes).await,
            Bug::LogTakesGaps if offset > end => self.inner.append_log(fence, end, bytes).await,
            Bug::LogByHalves => {
                let middle = bytes.len() / 2;
                let end = self.inner.append_log(fence, offset, bytes.slice(..middle)).await?;
                yield_now().await;
                self.inner.append_log(fence, end, bytes.slice(middle..)).await
            }
            _ => self.inner.append_log(fence, offset, bytes).await,
        }
    }

    pub(super) async fn archive_with_bug(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        match self.bug {
            Bug::ArchiveIsNotNoted => self.inner.attempt(id, attempt).await.map(drop),
            Bug::ArchiveKeepsBytes => {
                let known = self.inner.attempt(id, attempt).await?;
                let log = self.inner.read_log(id, 0, usize::MAX).await;
                self.inner.archive_log(id, attempt, archive).await?;
                if let (None, Ok(log)) = (known.log, log) {
                    self.notes().logs.insert(id, log);
                }
                Ok(())
            }
            Bug::ArchiveForgetsAll => {
                for known in self.inner.attempts(id).await? {
                    if known.number != attempt && known.log_end.is_some() {
                        self.inner.archive_log(id, known.number, archive).await?;
                    }
                }
                self.inner.archive_log(id, attempt, archive).await
            }
            Bug::ArchiveTakesRemoved => {
                let known = self.inner.attempt(id, attempt).await?;
                let told = self.inner.archive_log(id, attempt, archive).await;
                if known.log_removed_at.is_some() { Ok(()) } else { told }
            }
            _ => self.inner.archive_log(id, attempt, archive).await,
        }
    }

    pub(super) async fn unarchived_with_bug(
        &self,
        ended_by: Timestamp,
        limit: usize,
    ) -> Result<Vec<(JobId, u32)>> {
        match self.bug {
            Bug::UnarchivedIsEmpty => Ok(Vec::new()),
            Bug::UnarchivedIgnoresTime => self.inner.unarchived(Timestamp::MAX, limit).await,
            Bug::UnarchivedTellsRemoved => {
                let mut told = self.inner.unarchived(ended_by, limit).await?;
                told.extend(self.notes().unarchived.iter().copied());
                Ok(told)
            }
            _ => self.inner.unarchived(ended_by, limit).await,
        }
    }
}
