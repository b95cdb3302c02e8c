//! Stations 3, 4 and 13: where jobs live. The contract; implementations: [`memory`], and what one's own may be made of:
//! [`working_set`].
//!
//! The contract is four roles, and each user takes the one that it needs: [`JobIntake`] hands jobs in and changes its
//! mind, [`JobQueue`] gives them to servers and takes them back, [`JobProgress`] takes what attempts tell,
//! [`JobReading`] tells it on. [`JobStore`] is all of them.
//!
//! # Calls whose answer is lost
//! No remote store can promise that a call that failed changed nothing: the commit whose answer was lost has happened.
//! So every call that changes something is *idempotent* by names that the caller chose, and `Unavailable` means that
//! the change is done or not done, never half done. The same call again tells.
//!
//! | Call | Repeated after a lost answer |
//! |---|---|
//! | `submit` | the same ids, or the same key, with the same content: the jobs that are there, `created` false. One that joined an equal submission joins it again, unless that has failed since |
//! | `cancel`, `set_priority` | changes nothing more; they carry no name and act on the job as it is then |
//! | `retry` | a job that waits or runs is left as it is; it carries no name either |
//! | `claim` | the same token: those of its claims that have not ended, their leases extended, and never others |
//! | `renew` | renews again; never shortens |
//! | `release`, `finish` | the same end of the same attempt is `Ok` until the job is claimed or retried |
//! | `expire`, `give_up` | settles what is left |
//! | `append`, `append_log` | rows and bytes that are there are skipped; a gap is refused |
//! | `archive_log` | changes nothing more |
//! | `note_removed` | changes nothing more |
//! | `remove` | `NotFound` |
//!
//! # Clocks
//! Times come from the callers, and leases are compared with the clock of whoever calls [`JobQueue::expire`]: the clocks
//! of servers that share a store must agree within a small part of a lease, as those of machines that run NTP do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::arch::Arch;
use crate::backend_selector::Requirements;
use crate::error::Result;
use crate::job::{
    BackendCapacity, Build, BuildId, ClaimToken, Job, JobAttempt, JobBackend, JobError, JobId, JobSpec,
    LogArchive, Outcome, Priority, ProgressRow, Project, ResultDigest, ServerId, SourceDigest,
};
use crate::limits;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod database;
mod events;
pub mod forward;
mod hints;
mod listing;
pub mod memory;
mod patience;
#[cfg(feature = "postgres")]
pub mod postgres;
mod queue;
mod retention;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod submission;
pub mod working_set;

pub use events::{EventLog, EventPage, EventQuery};
pub use hints::{Hints, hinted};
pub use listing::{BuildPage, BuildQuery, JobPage, ListQuery, PackageDuration, all_jobs};
pub use patience::Patience;
pub use queue::{QueueGroup, QueueProject, QueueSummary};
pub use retention::{EndedJob, EndedPlace, EndedQuery, Holding, Usage};
pub use submission::{NewJob, Submission, Submitted};

/// Jobs that a call acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// One job.
    Job(JobId),
    /// The jobs of a build.
    Build(BuildId),
}

/// Jobs that can take one another's place in the queue: of one project, with the same needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Group {
    /// Whose they are.
    pub project: Project,
    /// What they need of a backend.
    pub needs: Requirements,
    /// Backends that shall be asked last, sorted.
    pub avoid: Vec<String>,
}

impl Group {
    /// Jobs of a project with these needs, which avoid no backend.
    pub fn new(project: Project, needs: Requirements) -> Self {
        Self { project, needs, avoid: Vec::new() }
    }

    /// The group of a job.
    pub fn of(job: &Job) -> Self {
        let needs = Requirements::of_job(job);
        // In one order, so that one set of backends is one group.
        let mut avoid = job.avoid.clone();
        avoid.sort();
        Self { project: job.project.clone(), needs, avoid }
    }
}

/// The jobs of a group that could be claimed now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demand {
    /// The group.
    pub group: Group,
    /// How many there are, at most [`limits::DEMAND_COUNT_MAX`].
    pub ready: usize,
    /// The first of them: the most urgent one, of these the one with the greatest rank, of these the oldest.
    pub first: JobId,
    /// Its priority.
    pub priority: Priority,
    /// Its rank.
    pub rank: i64,
    /// How many jobs of its project run, in all groups.
    pub running: usize,
}

impl Demand {
    /// So many jobs of a group, with the first of them and its priority, while `running` of their project run. The first
    /// of them has the rank 0.
    pub fn new(group: Group, ready: usize, first: JobId, priority: Priority, running: usize) -> Self {
        Self { group, ready, first, priority, rank: 0, running }
    }
}

/// Free slots of a backend, for jobs of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offer {
    /// The group.
    pub group: Group,
    /// The backend.
    pub backend: JobBackend,
    /// How many jobs it takes from this call.
    pub slots: usize,
    /// How many jobs it runs at once, those of other servers included.
    pub max_jobs: u32,
    /// What the backend has for all jobs that run on it.
    pub capacity: BackendCapacity,
}

impl Offer {
    /// Slots of a backend that runs `max_jobs` at once.
    pub fn new(group: Group, backend: JobBackend, slots: usize, max_jobs: u32) -> Self {
        Self { group, backend, slots, max_jobs, capacity: BackendCapacity::default() }
    }
}

/// A claim of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClaimRequest {
    /// Names this call.
    pub token: ClaimToken,
    /// Who runs the jobs.
    pub server: ServerId,
    /// What is offered, in order; at most [`limits::CLAIMS_PER_ROUND_MAX`] slots are used.
    pub offers: Vec<Offer>,
    /// Now.
    pub now: Timestamp,
    /// When the leases end unless they are renewed.
    pub until: Timestamp,
}

impl ClaimRequest {
    /// A claim of jobs for a server, with leases from `now` to `until`.
    pub fn new(
        token: ClaimToken,
        server: ServerId,
        offers: Vec<Offer>,
        now: Timestamp,
        until: Timestamp,
    ) -> Self {
        Self { token, server, offers, now, until }
    }
}

/// Names the owner of a running job: the attempt, and the claim that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// The number of the attempt.
    pub attempt: u32,
    /// The claim.
    pub token: ClaimToken,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.job, self.attempt)
    }
}

/// A claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The job, running.
    pub job: Arc<Job>,
    /// The owner's name.
    pub fence: Fence,
    /// How long the job's log is: where the attempt's part of it begins.
    pub log_bytes: u64,
    /// What the job asks for.
    pub spec: Arc<JobSpec>,
}

impl Claim {
    /// A claimed job whose log is that long.
    pub fn new(job: Arc<Job>, fence: Fence, log_bytes: u64, spec: Arc<JobSpec>) -> Self {
        Self { job, fence, log_bytes, spec }
    }
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

/// A job that its owner gives back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Release {
    /// Why.
    pub error: JobError,
    /// It is not claimed before this time.
    pub not_before: Option<Timestamp>,
    /// Whether the attempt counts.
    pub counts: bool,
    /// Whether other backends shall be asked first.
    pub avoid: bool,
    /// Memory in bytes that the job asks for at least from now on.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

impl Release {
    /// Gives a job back for a reason: its attempt does not count, and any backend may have it at once.
    pub fn new(error: JobError) -> Self {
        Self { error, not_before: None, counts: false, avoid: false, memory_bytes: None }
    }
}

/// What an end of a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// The job as it is then.
    pub job: Arc<Job>,
    /// How many jobs wait for no other job any more.
    pub unlocked: usize,
    /// How many jobs are skipped because of it.
    pub skipped: usize,
}

impl Finished {
    /// The job as it is then, with so many unlocked and skipped ones.
    pub fn new(job: Arc<Job>, unlocked: usize, skipped: usize) -> Self {
        Self { job, unlocked, skipped }
    }
}

/// Which leases to settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExpireRequest {
    /// Leases that ended by this time.
    pub now: Timestamp,
    /// Jobs for which it is over are given up, the others are tried again.
    pub patience: Patience,
    /// At most so many, and at most [`limits::SETTLED_PER_CALL_MAX`].
    pub limit: usize,
}

impl ExpireRequest {
    /// As many leases as a call may settle.
    pub fn new(now: Timestamp, patience: Patience) -> Self {
        Self { now, patience, limit: limits::SETTLED_PER_CALL_MAX }
    }
}

/// Jobs of a group that nobody could run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GiveUp {
    /// The group.
    pub group: Group,
    /// Only those that have been ready since this time or longer.
    pub ready_before: Timestamp,
    /// What to tell.
    pub error: JobError,
    /// When.
    pub at: Timestamp,
}

impl GiveUp {
    /// Those of a group that have been ready since a time.
    pub fn new(group: Group, ready_before: Timestamp, error: JobError, at: Timestamp) -> Self {
        Self { group, ready_before, error, at }
    }
}

/// Why the jobs of a group wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupWaiting {
    /// The group.
    pub group: Group,
    /// One line, such as `all 3 matching backends are busy`.
    pub reason: String,
    /// Whether only another set of backends can help, not time.
    pub needs_other_backends: bool,
}

impl GroupWaiting {
    /// A group that time alone may help.
    pub fn new(group: Group, reason: impl Into<String>) -> Self {
        Self { group, reason: reason.into(), needs_other_backends: false }
    }
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogChunk {
    /// The bytes from the asked offset; empty at the end of what there is so far.
    pub bytes: Bytes,
    /// The length of the log so far.
    pub len: u64,
}

impl LogChunk {
    /// A part of a log that is `len` bytes long.
    pub fn new(bytes: Bytes, len: u64) -> Self {
        Self { bytes, len }
    }
}

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A job may be claimable that was not before.
    Queue,
    /// A running job was asked to stop.
    Cancellations,
    /// There may be events that were not there before.
    Events,
    /// The fleet changed.
    Backends,
    /// The job changed.
    Job(JobId),
    /// The job's log grew, or the job changed.
    Log(JobId),
}

/// Hands jobs in, and changes its mind about them.
///
/// # Contract
/// * Every call is atomic and idempotent: see [the table](self). Dropping a call's future leaves the change either done
///   or not done, never half done.
/// * Time comes from the caller. A store compares times, it reads no clock.
/// * `Conflict` means that the state of the job does not allow it; `Unavailable` that the same call may succeed later,
///   and perhaps has; `NotFound` that there is no such job, perhaps no longer.
#[async_trait]
pub trait JobIntake: Send + Sync + fmt::Debug {
    /// Hands in jobs. A job that waits for others is blocked until all of them succeeded; one that waits for a job that
    /// came to another end is skipped at once.
    ///
    /// # Errors
    /// `Conflict` when the key or the ids were used for other content; `InvalidRequest` for what
    /// [`Submission::check`] refuses and for waits for unknown jobs; `LimitExceeded` when
    /// [`limits::PENDING_JOBS_MAX`] jobs wait or there is no room.
    async fn submit(&self, submission: &Submission) -> Result<Submitted>;

    /// Asks for jobs to stop; how many changed. Those that wait are cancelled at once, and what waits for them is
    /// skipped; the owners of running ones are told. Jobs of a build that have come to their end stay as they are.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a single job that succeeded, failed or was skipped already.
    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize>;

    /// Tries jobs again that failed or were cancelled, and with them those that were skipped because of them; how many
    /// changed. One that waits for a job that came to another end than success, or did and was removed, is left out. Their attempts so far are kept and count no longer. Jobs that wait or run stay as they are.
    ///
    /// # Errors
    /// `NotFound`; for a single job `Conflict` when it succeeded, or when a job that it waits for has come to another
    /// end than success; `LimitExceeded` as for [`Self::submit`].
    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize>;

    /// Makes jobs more or less urgent; how many changed. It holds for their next claim.
    ///
    /// # Errors
    /// `NotFound`.
    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize>;

    /// Forgets a job that has come to its end, its attempts and its log, also in the counts of its build; with the last
    /// job of a submission its key and its build. Until then the key names the removed ones too.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it waits or runs.
    async fn remove(&self, id: JobId) -> Result<()>;

    /// Notes that the artifacts or the logs of a job that has come to its end were removed: the job tells so from then on.
    /// With the logs the store forgets the bytes that it has of them itself. A job that is tried again has neither lost;
    /// its attempts go on telling it of their logs.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it waits or runs.
    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()>;
}

/// Gives jobs to servers and takes them back.
///
/// # Contract
/// The one of [`JobIntake`], and:
/// * **Claims are exclusive**: of a job with a lease no other claim succeeds. A lease that ended is settled by
///   [`Self::expire`] alone; then the job is claimable again. Hence execution is *at least once*, and builders must be
///   idempotent.
/// * **The fence decides, not the clock**: a call with the fence of the running attempt is legal, also after the end of
///   the lease as long as nobody settled it. Any other fence is `Conflict`.
/// * Numbers of attempts grow, and no two attempts of a job have one.
/// * Of one backend, named by its [key](crate::job::JobBackend::key), there are never more leases than the offer says, whichever servers ask.
/// * Order within a group: the most urgent first, of these the one with the greatest rank, of these the oldest, which is
///   the one with the least id.
/// * Two calls at once with one token are as two calls in a row.
/// * A job and all that follows from its end, such as unlocked and skipped jobs, change in one step.
#[async_trait]
pub trait JobQueue: Send + Sync + fmt::Debug {
    /// What could be claimed now, the groups with the most urgent jobs first, of these by the id of their first job; at
    /// most [`limits::DEMAND_GROUPS_MAX`]. Changes nothing.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>>;

    /// Claims jobs for the offered slots; the claims have the order of the offers. A token that was used before gives
    /// those of its claims that have not ended, with leases that end no earlier than now asked, and no others, until the
    /// end of the leases that it asked for at first at least. A lease that would have ended already is not given.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>>;

    /// Moves the ends of leases to `until`; one answer for each fence, in order: lost for those of another server.
    /// Never shortens a lease.
    ///
    /// # Errors
    /// `Unavailable`; `InvalidRequest` for more than [`limits::LEASES_PER_CALL_MAX`].
    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>>;

    /// The running attempts of a server that somebody asked to stop.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>>;

    /// Gives a job back to the queue; one that somebody asked to stop is cancelled instead. Returns it as it is then. What
    /// the attempt failed of is kept with it, in the same step, and not with the job.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence.
    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>>;

    /// Brings a job to its end. What the attempt failed of is kept with it, in the same step, and not with the job.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence, and for another end than the one that it came to.
    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished>;

    /// Settles leases that ended: the job becomes cancelled when that was asked, failed when it has no attempt left, else
    /// pending. Returns the jobs as they are then; their attempts tell what they failed of.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>>;

    /// Notes why groups wait; for each the time since when it has needed other backends, or has waited for time alone.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>>;

    /// Fails jobs of a group that nobody could run; how many, at most [`limits::SETTLED_PER_CALL_MAX`].
    ///
    /// # Errors
    /// `Unavailable`.
    async fn give_up(&self, request: &GiveUp) -> Result<usize>;
}

/// Takes what attempts tell. Only the owner of a job may.
#[async_trait]
pub trait JobProgress: Send + Sync + fmt::Debug {
    /// Adds rows to an attempt's progress, the first of them with the number `first`, from 0; returns how many there are.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence; `InvalidRequest` for a gap, and for more than
    /// [`limits::PROGRESS_ROWS_MAX`] rows.
    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64>;

    /// Adds bytes to a job's log, the first of them at `offset`; returns its length. The bytes of a call are taken whole or
    /// not at all; what they mean is the business of [`crate::job_log`].
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a wrong fence; `InvalidRequest` for a gap; `LimitExceeded` when the store has no room for
    /// them: a call with at most [`limits::LOG_LAST_WORD_BYTES`] may tell what is missing then.
    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64>;

    /// Notes that the log of an attempt that has ended lies among the artifacts, and forgets its bytes. Anybody may.
    ///
    /// # Errors
    /// `NotFound`, also when the log was removed; `Conflict` while the attempt runs.
    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()>;
}

/// Tells what is known of jobs.
#[async_trait]
pub trait JobReading: Send + Sync + fmt::Debug {
    /// A job. One that waits for a backend says why.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, id: JobId) -> Result<Arc<Job>>;

    /// What was asked, with all texts.
    ///
    /// # Errors
    /// `NotFound`.
    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>>;

    /// The jobs that a job waits for and that have not succeeded, oldest first; at most `limit`, and at most
    /// [`limits::PAGE_ITEMS_MAX`].
    ///
    /// # Errors
    /// `NotFound`.
    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>>;

    /// How many jobs of its group go before a job that waits for a backend, at most [`limits::DEMAND_COUNT_MAX`]; `None` for
    /// one that does not.
    ///
    /// # Errors
    /// `NotFound`.
    async fn ahead(&self, id: JobId) -> Result<Option<usize>>;

    /// The queue as a whole.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn queue(&self, now: Timestamp) -> Result<QueueSummary>;

    /// The attempts of a job, oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>>;

    /// The attempt with a number.
    ///
    /// # Errors
    /// `NotFound`.
    async fn attempt(&self, id: JobId, number: u32) -> Result<JobAttempt>;

    /// Jobs, newest first. Pages of an unchanged store neither overlap nor leave gaps.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, query: &ListQuery) -> Result<JobPage>;

    /// A build.
    ///
    /// # Errors
    /// `NotFound`.
    async fn build(&self, id: BuildId) -> Result<Build>;

    /// Builds, newest first. Pages of an unchanged store neither overlap nor leave gaps.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage>;

    /// The job of the project that last had this result and still has its artifacts.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>>;

    /// How long packages of the project took for an architecture, by their names: the median of the last
    /// [`limits::DURATIONS_OF_PACKAGE`] jobs that made them; at most [`limits::DURATIONS_MAX`] packages.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>>;

    /// Reads from a job's log, at most `limit` bytes and at most [`limits::LOG_READ_BYTES_MAX`]. An offset behind the end
    /// gives nothing.
    ///
    /// # Errors
    /// `NotFound` when there is no such job, or the bytes at the offset were forgotten.
    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk>;

    /// Events of the farm, oldest first. All that changes a job's or a build's state, and all that attempts tell, is an
    /// event in the same step, and no event is told before those with smaller numbers are. The oldest ones are forgotten.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn events(&self, query: &EventQuery) -> Result<EventPage>;

    /// Attempts that ended at this time or before and whose logs are not among the artifacts yet; at most `limit`, and at
    /// most [`limits::PAGE_ITEMS_MAX`]. Attempts that wrote nothing are not told.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>>;

    /// Jobs that have come to their end, oldest end first. Pages of an unchanged store neither overlap nor leave gaps. It
    /// looks at no more jobs than it tells.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>>;

    /// Whether a job that has not ended waits for this one, also by way of others, whatever became of those.
    ///
    /// # Errors
    /// `NotFound`.
    async fn is_needed(&self, id: JobId) -> Result<bool>;

    /// Which of these source files some job names that has not succeeded: it may still need them. At most
    /// [`limits::PAGE_ITEMS_MAX`] may be asked about at once.
    ///
    /// # Errors
    /// `InvalidRequest` for more; `Unavailable`.
    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>>;

    /// What all jobs take that have come to their end.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn usage(&self) -> Result<Usage>;

    /// A counter that moves when its subject changes. It is a hint: changes by other processes may be missed, and the
    /// sender may be gone, so that polling stays the truth. Take it before reading, not after.
    fn changed(&self, subject: Subject) -> watch::Receiver<u64>;
}

/// Keeps jobs, their leases, attempts and logs: all four roles.
pub trait JobStore: JobIntake + JobQueue + JobProgress + JobReading {}

impl<T: JobIntake + JobQueue + JobProgress + JobReading + ?Sized> JobStore for T {}
