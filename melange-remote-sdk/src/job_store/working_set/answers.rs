//! What a store tells of the jobs in its set.

use std::ops::Bound;

use bytes::Bytes;

use super::*;
use crate::job_store::{BuildPage, BuildQuery, LogChunk};

impl WorkingSet {
    /// What changed since it was last asked: for [`Hints`](crate::job_store::Hints), and for what the store keeps beside
    /// the set.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// As [`JobQueue::renew`](crate::job_store::JobQueue::renew).
    ///
    /// # Errors
    /// As there.
    pub fn renew_all(
        &mut self,
        server: &ServerId,
        fences: &[Fence],
        until: Timestamp,
    ) -> Result<Vec<Renewal>> {
        check_leases(fences)?;
        Ok(fences.iter().map(|fence| self.renew(server, *fence, until)).collect())
    }

    /// As [`JobQueue::cancel_requests`](crate::job_store::JobQueue::cancel_requests).
    pub fn cancel_requests(&self, server: &ServerId) -> Vec<Fence> {
        let running = &self.by_state[JobState::Running.index()];
        let entries = running.iter().filter_map(|id| self.jobs.get(id));
        let asked =
            entries.filter(|entry| entry.job.cancel_requested && entry.job.server.as_ref() == Some(server));
        asked.filter_map(Entry::fence).collect()
    }

    /// What jobs of other servers than this one run on backends, by [`JobBackend::key`](crate::job::JobBackend::key).
    pub fn running_elsewhere(&self, server: &ServerId) -> BTreeMap<String, BackendLoad> {
        let running = &self.by_state[JobState::Running.index()];
        let jobs = running.iter().filter_map(|id| self.jobs.get(id)).map(|entry| &entry.job);
        let mut counts: BTreeMap<String, BackendLoad> = BTreeMap::new();
        for job in jobs.filter(|job| job.server.as_ref() != Some(server)) {
            if let Some(backend) = &job.backend {
                counts.entry(backend.key()).or_default().add(job.resources());
            }
        }
        counts
    }

    /// The bytes that a job's log has not yet, of those that its owner writes at `offset`. The store keeps them; the
    /// set counts them. It knows no bound of a log.
    ///
    /// # Errors
    /// As [`JobProgress::append_log`](crate::job_store::JobProgress::append_log).
    pub fn append_log<'b>(&mut self, fence: Fence, offset: u64, bytes: &'b [u8]) -> Result<&'b [u8]> {
        let entry = self.entry(fence.job)?;
        entry.check_fence(fence)?;
        let bytes = entry.new_bytes(offset, bytes)?;
        if !bytes.is_empty() {
            self.grow_log(fence.job, bytes.len())?;
        }
        Ok(bytes)
    }

    /// As [`JobReading::read_log`](crate::job_store::JobReading::read_log), of the log that the store keeps: all its bytes
    /// in their places, whatever stands where the archived parts were.
    ///
    /// # Errors
    /// As there.
    pub fn read_log(&self, id: JobId, log: &[u8], offset: u64, limit: usize) -> Result<LogChunk> {
        let attempts = &self.entry(id)?.attempts;
        let gone = |attempt: &&JobAttempt| attempt.log.is_some() || attempt.log_removed_at.is_some();
        let archived = attempts.iter().filter(gone);
        let mut limit = limit;
        for range in archived.filter_map(|attempt| Some(attempt.log_begin..attempt.log_end?)) {
            if range.contains(&offset) && limit > 0 {
                return Err(forgotten(id, offset));
            }
            if let Some(before) = range.start.checked_sub(offset).filter(|_| !range.is_empty()) {
                limit = limit.min(usize::try_from(before).unwrap_or(usize::MAX));
            }
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        let end = start.saturating_add(limit.min(limits::LOG_READ_BYTES_MAX)).min(log.len());
        let len = u64::try_from(log.len()).unwrap_or(u64::MAX);
        Ok(LogChunk { bytes: Bytes::copy_from_slice(&log[start..end]), len })
    }

    /// As [`JobReading::get`](crate::job_store::JobReading::get).
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.entry(id).map(|entry| self.told(entry))
    }

    /// As [`JobReading::spec`](crate::job_store::JobReading::spec).
    ///
    /// # Errors
    /// As there.
    pub fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        let spec = self.entry(id)?.spec.clone();
        spec.ok_or_else(|| Error::unexpected("the set keeps what was asked elsewhere"))
    }

    /// As [`JobReading::blocked_by`](crate::job_store::JobReading::blocked_by).
    ///
    /// # Errors
    /// As there.
    pub fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        let mut jobs: Vec<JobId> = self.entry(id)?.waits_for.clone();
        jobs.retain(|id| self.jobs.get(id).is_some_and(|entry| entry.job.state != JobState::Success));
        jobs.sort();
        jobs.truncate(limit.min(limits::PAGE_ITEMS_MAX));
        Ok(jobs)
    }

    /// As [`JobReading::ahead`](crate::job_store::JobReading::ahead).
    ///
    /// # Errors
    /// As there.
    pub fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        let job = &self.entry(id)?.job;
        if job.state != JobState::Pending {
            return Ok(None);
        }
        let places =
            self.queue.get(&Group::of(job)).into_iter().flat_map(|places| places.range(..place(job)));
        Ok(Some(places.take(limits::DEMAND_COUNT_MAX).count()))
    }

    /// As [`JobReading::attempts`](crate::job_store::JobReading::attempts).
    ///
    /// # Errors
    /// As there.
    pub fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.entry(id).map(|entry| entry.attempts.clone())
    }

    /// As [`JobReading::attempt`](crate::job_store::JobReading::attempt).
    ///
    /// # Errors
    /// As there.
    pub fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        let attempts = &self.entry(id)?.attempts;
        attempts
            .iter()
            .find(|attempt| attempt.number == number)
            .cloned()
            .ok_or_else(|| no_attempt(id, number).hint(format!("it had {} so far", attempts.len())))
    }

    /// As [`JobReading::build`](crate::job_store::JobReading::build).
    ///
    /// # Errors
    /// As there.
    pub fn build(&self, id: BuildId) -> Result<Build> {
        self.builds.get(&id).map(|(build, _)| build.clone()).ok_or_else(|| no_build(id))
    }

    /// As [`JobReading::builds`](crate::job_store::JobReading::builds).
    pub fn list_builds(&self, query: &BuildQuery) -> BuildPage {
        let limit = query.limit.min(limits::PAGE_ITEMS_MAX);
        let upper = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let builds = self.builds.range((Bound::Unbounded, upper)).rev().map(|(_, (build, _))| build);
        let mut builds: Vec<Build> =
            builds.filter(|build| query.fits(build)).take(limit.saturating_add(1)).cloned().collect();
        let more = builds.len() > limit;
        builds.truncate(limit);
        BuildPage::new(builds, more)
    }

    /// As [`JobReading::list`](crate::job_store::JobReading::list).
    pub fn list(&self, query: &ListQuery) -> JobPage {
        let limit = query.limit.min(limits::PAGE_ITEMS_MAX);
        let lower = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let upper = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let is_empty = matches!((query.after, query.before), (Some(after), Some(before)) if after >= before);
        let range = (lower, upper);
        let of_state = query.state.map(|state| &self.by_state[state.index()]);
        let nothing = BTreeSet::new();
        let of_build = query.build.map(|id| self.builds.get(&id).map_or(&nothing, |(_, jobs)| jobs));
        if is_empty {
            return JobPage::new(Vec::new());
        }
        let ids: Box<dyn DoubleEndedIterator<Item = &JobId>> = match (of_build, of_state) {
            (Some(ids), None) | (None, Some(ids)) => Box::new(ids.range(range)),
            (Some(ids), Some(wanted)) => Box::new(ids.range(range).filter(|id| wanted.contains(id))),
            (None, None) => Box::new(self.jobs.range(range).map(|(id, _)| id)),
        };
        let ids: Box<dyn Iterator<Item = &JobId>> =
            if query.oldest_first { Box::new(ids) } else { Box::new(ids.rev()) };
        let fits = |entry: &&Entry| {
            query.project.as_ref().is_none_or(|project| entry.job.project == *project)
                && query.package.as_ref().is_none_or(|package| entry.job.title() == package)
                && query.arch.is_none_or(|arch| entry.job.facts.arch == arch)
        };
        let told = ids.filter_map(|id| self.jobs.get(id)).filter(fits).take(limit.saturating_add(1));
        let mut jobs: Vec<Arc<Job>> = told.map(|entry| self.told(entry)).collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        JobPage { jobs, more }
    }
}
