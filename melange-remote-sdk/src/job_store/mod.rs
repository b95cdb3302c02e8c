//! Stations 3, 4 and 13: where jobs live. The contract; implementations: [`memory`].
//!
//! The store offers transitions, never "save this whole job": what may happen to a job is said once, by the
//! table of [`crate::job::state`], and applied by the store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::arch::Arch;
use crate::error::Result;
use crate::job::{Job, JobAttempt, JobEvent, JobId, JobSpec, JobState, Waiting};
use crate::labels::LabelSelector;

pub mod memory;

/// A job to insert.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// What is asked.
    pub spec: Arc<JobSpec>,
    /// Names the submission, so that a repeated one does not make a second job; at most
    /// [`crate::limits::IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub idempotency_key: Option<String>,
    /// When it was handed in.
    pub at: Timestamp,
}

/// What an insertion came to.
#[derive(Debug, Clone)]
pub struct Inserted {
    /// The job, new or known.
    pub job: Arc<Job>,
    /// Whether it is new.
    pub created: bool,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// Only jobs older than this one: the last job of the page before.
    pub before: Option<JobId>,
    /// At most so many, and at most [`crate::limits::PAGE_ITEMS_MAX`].
    pub limit: usize,
}

/// A page of a listing, newest first.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// Whether older ones match too.
    pub more: bool,
}

/// Which jobs could be claimed.
#[derive(Debug, Clone)]
pub struct QueueQuery {
    /// The time by which leases count as ended and pauses as over.
    pub now: Timestamp,
    /// Only jobs of these architectures; `None` for all.
    pub arches: Option<Vec<Arch>>,
    /// Only jobs younger than this one: the last job of the page before.
    pub after: Option<JobId>,
    /// At most so many, and at most [`crate::limits::CLAIMS_PER_ROUND_MAX`].
    pub limit: usize,
}

/// What a scheduler must know of a job in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedJob {
    /// Its name.
    pub id: JobId,
    /// Its version, for events that expect one.
    pub version: u64,
    /// The architecture that it needs.
    pub arch: Arch,
    /// The labels that it needs.
    pub backend_selector: LabelSelector,
    /// Why it waits, as recorded.
    pub waiting: Option<Waiting>,
}

/// A claim of some jobs.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The jobs, in order of preference; at most [`crate::limits::CLAIMS_PER_ROUND_MAX`].
    pub jobs: Vec<JobId>,
    /// Now.
    pub now: Timestamp,
    /// When the leases end unless they are renewed.
    pub until: Timestamp,
}

/// The token of one claim. It grows with every claim of a job, so that an older owner can be told from a newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job, running.
    pub job: Arc<Job>,
    /// The owner's token.
    pub fence: Fence,
    /// How long the job's log is: where the attempt's part of it begins.
    pub log_bytes: u64,
}

/// A lease to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The owner's token.
    pub fence: Fence,
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is the caller's until the new time.
    Kept {
        /// Whether somebody asked for the job to stop.
        cancel_requested: bool,
    },
    /// The job is somebody else's or finished: stop and touch nothing.
    Lost,
}

/// An event to record.
#[derive(Debug, Clone)]
pub struct Record {
    /// The job.
    pub job: JobId,
    /// What happened.
    pub event: JobEvent,
    /// When.
    pub at: Timestamp,
    /// The owner's token; needed for every event of a running job.
    pub fence: Option<Fence>,
    /// The version that the job must have; needed for every event of a pending job.
    pub expected_version: Option<u64>,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The bytes from the asked offset; empty at the end of what there is so far.
    pub bytes: Bytes,
    /// The length of the log so far.
    pub len: u64,
}

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A job may be claimable that was not before.
    Queue,
    /// The job changed.
    Job(JobId),
    /// The job's log grew, or the job changed.
    Log(JobId),
}

/// Keeps jobs, their leases and their logs.
///
/// # Contract
/// * Every call is atomic; a call that fails changed nothing. Dropping a call's future leaves the change either
///   done or not done, never half done.
/// * Time comes from the caller. A store compares times, it reads no clock.
/// * **Claims are exclusive**: between a claim and the end of its lease no other claim of the job succeeds. After
///   the end the job is claimable again. Hence execution is *at least once*, and builders must be idempotent.
/// * **The fence decides, not the clock**: a call with the fence of the latest claim of a running job is legal,
///   also after the end of the lease as long as nobody claimed the job again. Any other fence is `Conflict`.
/// * **A lease that ended** is settled by [`Self::queue`] and [`Self::claim`] before they look: the job becomes
///   cancelled when that was asked, failed after [`crate::limits::ATTEMPTS_MAX`] attempts, else pending.
/// * `Conflict` means that somebody else moved the job first: read it again, do not retry blindly.
/// * `Unavailable` means that the same call may succeed later; `NotFound` that there is no such job, perhaps no
///   longer.
/// * Logs only grow. Whoever appends keeps to the bound of a log; a store may have one of its own, drops what is
///   beyond, and says so in the log's last line.
#[async_trait]
pub trait JobStore: Send + Sync + fmt::Debug {
    /// Inserts a pending job. The same idempotency key with the same spec gives the job that is there.
    ///
    /// # Errors
    /// `Conflict` when the key was used with another spec; `AlreadyExists` when the id is taken;
    /// `LimitExceeded` when [`crate::limits::PENDING_JOBS_MAX`] jobs wait or there is no room;
    /// `InvalidRequest` for an empty or too long key.
    async fn insert(&self, job: NewJob) -> Result<Inserted>;

    /// A job.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, id: JobId) -> Result<Arc<Job>>;

    /// Jobs, newest first. Pages of an unchanged store neither overlap nor leave gaps.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, query: &ListQuery) -> Result<JobPage>;

    /// The jobs that could be claimed now, oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn queue(&self, query: &QueueQuery) -> Result<Vec<QueuedJob>>;

    /// Claims those of the named jobs that can be claimed now, each with a new fence and one more attempt; the
    /// others are left out of the answer. The answer has the order of the request.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>>;

    /// Moves the ends of leases to `until`; one answer for each lease, in order. Never shortens a lease.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Vec<Renewal>>;

    /// Records what happened, by the table of [`crate::job::state`]; returns the job as it is then.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence, a wrong version or a transition that the table lacks;
    /// `InvalidRequest` when neither a fence nor a version is given, and for [`JobEvent::Claimed`],
    /// [`JobEvent::CancelRequested`] and [`JobEvent::LeaseLost`], which have calls of their own.
    async fn record(&self, record: Record) -> Result<Arc<Job>>;

    /// Asks for a job to stop: a pending one is cancelled at once, the owner of a running one is told. Asking
    /// again changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the job succeeded or failed already.
    async fn request_cancel(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>>;

    /// Puts a failed or cancelled job back into the queue. One that waits or runs already stays as it is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the job succeeded; `LimitExceeded` as for [`Self::insert`].
    async fn retry(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>>;

    /// The attempts of a job, oldest first. A later one takes nothing away from an earlier one.
    ///
    /// # Errors
    /// `NotFound`.
    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>>;

    /// Forgets a job that has finished, its log and its idempotency key with it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it waits or runs.
    async fn remove(&self, id: JobId) -> Result<()>;

    /// Adds to a job's log at `offset`, which all attempts share; returns its length. What is there already is not
    /// added again, so that a call whose answer was lost may be repeated.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence; `InvalidRequest` for an offset behind the end.
    async fn append_log(&self, id: JobId, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64>;

    /// Reads from a job's log, at most `limit` bytes and at most [`crate::limits::LOG_READ_BYTES_MAX`]. An offset
    /// behind the end gives nothing.
    ///
    /// # Errors
    /// `NotFound` when there is no such job, or its log is kept no longer.
    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk>;

    /// A counter that moves when its subject changes. It is a hint: changes by other processes may be missed, and
    /// the sender may be gone, so that polling stays the truth. Take it before reading, not after.
    fn changed(&self, subject: Subject) -> watch::Receiver<u64>;
}
