//! The four roles.

use std::collections::BTreeSet;

use super::*;
use crate::arch::Arch;
use crate::job::{LogArchive, Project, ResultDigest, SourceDigest};
use crate::job_store::{
    BuildPage, BuildQuery, EndedJob, EndedQuery, Holding, PackageDuration, QueueSummary, Usage,
};

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

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.change(|state| {
            state.set.note_removed(id, what, at)?;
            if what == Holding::Logs {
                state.logs.remove(&id);
            }
            Ok(())
        })
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
        self.lock().set.renew_all(server, fences, until)
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        Ok(self.lock().set.cancel_requests(server))
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

    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        self.change(|state| state.archive_log(id, attempt, archive))
    }
}

#[async_trait]
impl JobReading for MemoryJobStore {
    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.lock().set.get(id)
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        self.lock().set.spec(id)
    }

    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        self.lock().set.blocked_by(id, limit)
    }

    async fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        self.lock().set.ahead(id)
    }

    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        Ok(self.lock().set.queue(now))
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.lock().set.attempts(id)
    }

    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        self.lock().set.attempt(id, number)
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        Ok(self.lock().set.list(query))
    }

    async fn build(&self, id: BuildId) -> Result<Build> {
        self.lock().set.build(id)
    }

    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        Ok(self.lock().set.list_builds(query))
    }

    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>> {
        Ok(self.lock().set.with_result(project, result))
    }

    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>> {
        Ok(self.lock().set.durations(project, arch))
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        self.lock().read_log(id, offset, limit)
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        Ok(self.lock().events.read(query))
    }

    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        Ok(self.lock().set.unarchived(ended_by, limit))
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        Ok(self.lock().set.ended(query))
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.lock().set.is_needed(id)
    }

    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        self.lock().set.needed_sources(sources)
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(self.lock().set.usage())
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.shared.hints.subscribe(subject)
    }
}
