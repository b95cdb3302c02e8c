//! A store around another one: what a wrapper does not change is handed on. What an `Arc` or a `Box` points to is a
//! store as it is.
//!
//! ```
//! use std::sync::Arc;
//! use melange_remote_sdk::error::{Error, ErrorKind, Result};
//! use melange_remote_sdk::job_store::forward::{Forward, ForwardJobStore};
//! use melange_remote_sdk::job_store::memory::MemoryJobStore;
//! use melange_remote_sdk::job_store::{JobStore, Submission, Submitted};
//!
//! /// Takes no jobs.
//! #[derive(Debug)]
//! struct Closed(MemoryJobStore);
//!
//! #[async_trait::async_trait]
//! impl ForwardJobStore for Closed {
//!     fn inner(&self) -> &dyn JobStore {
//!         &self.0
//!     }
//!
//!     async fn submit(&self, _submission: &Submission) -> Result<Submitted> {
//!         Err(Error::new(ErrorKind::Unavailable, "this farm is closed"))
//!     }
//! }
//!
//! let store: Arc<dyn JobStore> = Arc::new(Forward(Closed(MemoryJobStore::default())));
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    BuildPage, BuildQuery, Claim, ClaimRequest, Demand, EndedJob, EndedQuery, EventPage, EventQuery,
    ExpireRequest, Fence, Finished, GiveUp, GroupWaiting, Holding, JobIntake, JobPage, JobProgress, JobQueue,
    JobReading, JobStore, ListQuery, LogChunk, PackageDuration, QueueSummary, Release, Renewal, Selection,
    Subject, Submission, Submitted, Usage,
};
use crate::arch::Arch;
use crate::error::Result;
use crate::job::{
    Build, BuildId, Job, JobAttempt, JobId, JobSpec, LogArchive, Outcome, Priority, ProgressRow, Project,
    ResultDigest, ServerId, SourceDigest,
};
use crate::pointers::hand_on;

/// The calls of a store that hands on what it does not change; [`Forward`] makes a [`JobStore`] of it.
#[async_trait]
pub trait ForwardJobStore: Send + Sync + fmt::Debug {
    /// The store that calls are handed on to.
    fn inner(&self) -> &dyn JobStore;

    /// As [`JobIntake::submit`].
    ///
    /// # Errors
    /// As there.
    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        self.inner().submit(submission).await
    }

    /// As [`JobIntake::cancel`].
    ///
    /// # Errors
    /// As there.
    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.inner().cancel(selection, at).await
    }

    /// As [`JobIntake::retry`].
    ///
    /// # Errors
    /// As there.
    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        self.inner().retry(selection, at).await
    }

    /// As [`JobIntake::set_priority`].
    ///
    /// # Errors
    /// As there.
    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        self.inner().set_priority(selection, priority).await
    }

    /// As [`JobIntake::remove`].
    ///
    /// # Errors
    /// As there.
    async fn remove(&self, id: JobId) -> Result<()> {
        self.inner().remove(id).await
    }

    /// As [`JobIntake::note_removed`].
    ///
    /// # Errors
    /// As there.
    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.inner().note_removed(id, what, at).await
    }

    /// As [`JobQueue::demand`].
    ///
    /// # Errors
    /// As there.
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        self.inner().demand(now).await
    }

    /// As [`JobQueue::claim`].
    ///
    /// # Errors
    /// As there.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.inner().claim(request).await
    }

    /// As [`JobQueue::renew`].
    ///
    /// # Errors
    /// As there.
    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        self.inner().renew(server, fences, until).await
    }

    /// As [`JobQueue::cancel_requests`].
    ///
    /// # Errors
    /// As there.
    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        self.inner().cancel_requests(server).await
    }

    /// As [`JobQueue::release`].
    ///
    /// # Errors
    /// As there.
    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        self.inner().release(fence, release, at).await
    }

    /// As [`JobQueue::finish`].
    ///
    /// # Errors
    /// As there.
    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        self.inner().finish(fence, outcome, at).await
    }

    /// As [`JobQueue::expire`].
    ///
    /// # Errors
    /// As there.
    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        self.inner().expire(request).await
    }

    /// As [`JobQueue::note_waiting`].
    ///
    /// # Errors
    /// As there.
    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        self.inner().note_waiting(groups, at).await
    }

    /// As [`JobQueue::give_up`].
    ///
    /// # Errors
    /// As there.
    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        self.inner().give_up(request).await
    }

    /// As [`JobProgress::append`].
    ///
    /// # Errors
    /// As there.
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        self.inner().append(fence, first, rows).await
    }

    /// As [`JobProgress::append_log`].
    ///
    /// # Errors
    /// As there.
    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.inner().append_log(fence, offset, bytes).await
    }

    /// As [`JobProgress::archive_log`].
    ///
    /// # Errors
    /// As there.
    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        self.inner().archive_log(id, attempt, archive).await
    }

    /// As [`JobReading::get`].
    ///
    /// # Errors
    /// As there.
    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.inner().get(id).await
    }

    /// As [`JobReading::spec`].
    ///
    /// # Errors
    /// As there.
    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        self.inner().spec(id).await
    }

    /// As [`JobReading::blocked_by`].
    ///
    /// # Errors
    /// As there.
    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        self.inner().blocked_by(id, limit).await
    }

    /// As [`JobReading::ahead`].
    ///
    /// # Errors
    /// As there.
    async fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        self.inner().ahead(id).await
    }

    /// As [`JobReading::queue`].
    ///
    /// # Errors
    /// As there.
    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        self.inner().queue(now).await
    }

    /// As [`JobReading::attempts`].
    ///
    /// # Errors
    /// As there.
    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        self.inner().attempts(id).await
    }

    /// As [`JobReading::attempt`].
    ///
    /// # Errors
    /// As there.
    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt> {
        self.inner().attempt(id, number).await
    }

    /// As [`JobReading::list`].
    ///
    /// # Errors
    /// As there.
    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        self.inner().list(query).await
    }

    /// As [`JobReading::build`].
    ///
    /// # Errors
    /// As there.
    async fn build(&self, id: BuildId) -> Result<Build> {
        self.inner().build(id).await
    }

    /// As [`JobReading::builds`].
    ///
    /// # Errors
    /// As there.
    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        self.inner().builds(query).await
    }

    /// As [`JobReading::with_result`].
    ///
    /// # Errors
    /// As there.
    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>> {
        self.inner().with_result(project, result).await
    }

    /// As [`JobReading::durations`].
    ///
    /// # Errors
    /// As there.
    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>> {
        self.inner().durations(project, arch).await
    }

    /// As [`JobReading::read_log`].
    ///
    /// # Errors
    /// As there.
    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        self.inner().read_log(id, offset, limit).await
    }

    /// As [`JobReading::events`].
    ///
    /// # Errors
    /// As there.
    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        self.inner().events(query).await
    }

    /// As [`JobReading::unarchived`].
    ///
    /// # Errors
    /// As there.
    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        self.inner().unarchived(ended_by, limit).await
    }

    /// As [`JobReading::ended`].
    ///
    /// # Errors
    /// As there.
    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        self.inner().ended(query).await
    }

    /// As [`JobReading::is_needed`].
    ///
    /// # Errors
    /// As there.
    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.inner().is_needed(id).await
    }

    /// As [`JobReading::needed_sources`].
    ///
    /// # Errors
    /// As there.
    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        self.inner().needed_sources(sources).await
    }

    /// As [`JobReading::usage`].
    ///
    /// # Errors
    /// As there.
    async fn usage(&self) -> Result<Usage> {
        self.inner().usage().await
    }

    /// As [`JobReading::changed`].
    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        self.inner().changed(subject)
    }
}

/// A [`JobStore`] made of a [`ForwardJobStore`].
#[derive(Debug, Clone)]
pub struct Forward<T>(pub T);

impl<T> AsRef<T> for Forward<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

hand_on!(JobIntake, Forward<T> where ForwardJobStore; {
    async fn submit(&self, submission: &Submission) -> Result<Submitted>;
    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize>;
    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize>;
    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize>;
    async fn remove(&self, id: JobId) -> Result<()>;
    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()>;
});

hand_on!(JobQueue, Forward<T> where ForwardJobStore; {
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>>;
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>>;
    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>>;
    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>>;
    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>>;
    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished>;
    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>>;
    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>>;
    async fn give_up(&self, request: &GiveUp) -> Result<usize>;
});

hand_on!(JobProgress, Forward<T> where ForwardJobStore; {
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64>;
    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64>;
    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()>;
});

hand_on!(JobReading, Forward<T> where ForwardJobStore; {
    async fn get(&self, id: JobId) -> Result<Arc<Job>>;
    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>>;
    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>>;
    async fn ahead(&self, id: JobId) -> Result<Option<usize>>;
    async fn queue(&self, now: Timestamp) -> Result<QueueSummary>;
    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>>;
    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt>;
    async fn list(&self, query: &ListQuery) -> Result<JobPage>;
    async fn build(&self, id: BuildId) -> Result<Build>;
    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage>;
    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>>;
    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>>;
    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk>;
    async fn events(&self, query: &EventQuery) -> Result<EventPage>;
    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>>;
    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>>;
    async fn is_needed(&self, id: JobId) -> Result<bool>;
    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>>;
    async fn usage(&self) -> Result<Usage>;
    fn changed(&self, subject: Subject) -> watch::Receiver<u64>;
});
