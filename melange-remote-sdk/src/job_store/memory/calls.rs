//! The four roles.

use super::*;

#[async_trait]
impl JobIntake for MemoryJobStore {
    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        submission.check()?;
        let content = submission.content();
        self.change(|state| state.set.submit(submission, content))
    }

    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.change(|state| state.set.cancel(selection, at))
    }

    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.change(|state| state.set.retry(selection, at))
    }

    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        self.change(|state| state.set.set_priority(selection, priority))
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        self.change(|state| state.set.remove(id))
    }
}

#[async_trait]
impl JobQueue for MemoryJobStore {
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        Ok(self.lock().set.demand(now))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        Ok(self.change(|state| state.set.claim(request)))
    }

    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        if fences.len() > limits::LEASES_PER_CALL_MAX {
            return Err(Error::invalid(format!(
                "more than {} leases in a call",
                limits::LEASES_PER_CALL_MAX
            )));
        }
        let mut state = self.lock();
        Ok(fences.iter().map(|fence| state.set.renew(server, *fence, until)).collect())
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        let state = self.lock();
        let running = &state.set.by_state[JobState::Running.index()];
        let entries = running.iter().filter_map(|id| state.set.jobs.get(id));
        let asked =
            entries.filter(|entry| entry.job.cancel_requested && entry.job.server.as_ref() == Some(server));
        Ok(asked.filter_map(|entry| entry.fence()).collect())
    }

    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        self.change(|state| state.set.release(fence, release, at))
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        self.change(|state| state.set.finish(fence, outcome, at))
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        Ok(self.change(|state| state.set.expire(request)))
    }

    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        Ok(self.change(|state| groups.iter().map(|waiting| state.set.note_waiting(waiting, at)).collect()))
    }

    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        Ok(self.change(|state| state.set.give_up(request)))
    }
}

#[async_trait]
impl JobProgress for MemoryJobStore {
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        self.change(|state| state.set.append(fence, first, rows))
    }

    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let bound = self.shared.log_bytes_max;
        self.change(|state| state.append_log(fence, offset, &bytes, bound))
    }
}

#[async_trait]
impl JobReading for MemoryJobStore {
    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        let state = self.lock();
        state.set.entry(id).map(|entry| state.set.told(entry))
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        let spec = self.lock().set.entry(id)?.spec.clone();
        spec.ok_or_else(|| Error::unexpected("the store in memory keeps what was asked"))
    }

    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        let state = self.lock();
        let mut jobs: Vec<JobId> = state.set.entry(id)?.waits_for.clone();
        jobs.retain(|id| state.set.jobs.get(id).is_some_and(|entry| entry.job.state != JobState::Success));
        jobs.sort();
        jobs.truncate(limit.min(limits::PAGE_ITEMS_MAX));
        Ok(jobs)
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.lock().set.entry(id).map(|entry| entry.attempts.clone())
    }

    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        let state = self.lock();
        let attempts = &state.set.entry(id)?.attempts;
        attempts.iter().find(|attempt| attempt.number == number).cloned().ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, format!("the job has no attempt {number}"));
            error.with("job", id).hint(format!("it had {} so far", attempts.len()))
        })
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        Ok(self.lock().set.list(query))
    }

    async fn build(&self, id: BuildId) -> Result<Build> {
        self.lock().set.builds.get(&id).map(|(build, _)| build.clone()).ok_or_else(|| no_build(id))
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let state = self.lock();
        state.set.entry(id)?;
        let log = state.logs.get(&id).map(|log| log.bytes.as_slice()).unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        let end = start.saturating_add(limit.min(limits::LOG_READ_BYTES_MAX)).min(log.len());
        let len = u64::try_from(log.len()).unwrap_or(u64::MAX);
        Ok(LogChunk { bytes: Bytes::copy_from_slice(&log[start..end]), len })
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.shared.hints.subscribe(subject)
    }
}
