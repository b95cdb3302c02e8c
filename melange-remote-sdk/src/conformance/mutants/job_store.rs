//! Job stores with one mistake each: wrappers of the store in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::Verdict;
use crate::conformance::job_store::{START, StoreUnderTest, all, waiting_jobs_are_bounded};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobAttempt, JobEvent, JobId, JobState};
use crate::job_store::memory::{MemoryBounds, MemoryJobStore};
use crate::job_store::{
    Claim, ClaimRequest, Fence, Inserted, JobPage, JobStore, Lease, ListQuery, LogChunk, NewJob, QueueQuery,
    QueuedJob, Record, Renewal, Subject,
};
use crate::limits;

mod bugs;

use bugs::{BUGS, Bug};

/// Takes something away from a job.
type Loss = fn(&mut Job);

/// Waiting jobs of the store whose bound is tried.
const PENDING: usize = 4;

/// Tries the suite on the sound store, then on every mutant.
pub async fn run() -> Verdict {
    all(&Mutants::new(Bug::None)).await;
    let mut verdict = Verdict::new("JobStore");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(&Mutants::new(bug))).await;
    }
    let bounded = |pending| MemoryJobStore::new(MemoryBounds { pending, ..MemoryBounds::default() });
    waiting_jobs_are_bounded(&bounded(PENDING), PENDING).await;
    for (name, pending) in [("any number may wait", usize::MAX), ("one too many may wait", PENDING + 1)] {
        verdict.try_on(name, waiting_jobs_are_bounded(&bounded(pending), PENDING)).await;
    }
    verdict
}

/// A store with a mistake, as the suite needs it.
struct Mutants {
    bug: Bug,
    inner: Mutex<MemoryJobStore>,
    notes: Arc<Mutex<Notes>>,
    reopened: AtomicBool,
}

impl Mutants {
    fn new(bug: Bug) -> Self {
        let inner = Mutex::new(MemoryJobStore::default());
        Self { bug, inner, notes: Arc::default(), reopened: AtomicBool::new(false) }
    }

    fn mutant(&self) -> Arc<dyn JobStore> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (bug, notes) = (self.bug, Arc::clone(&self.notes));
        let reopened = self.reopened.load(Ordering::Relaxed);
        Arc::new(Mutant { bug, inner, notes, reopened, claimed: Mutex::default() })
    }
}

#[async_trait]
impl StoreUnderTest for Mutants {
    async fn handle(&self) -> Arc<dyn JobStore> {
        self.mutant()
    }

    async fn reopen(&self) -> Arc<dyn JobStore> {
        self.reopened.store(true, Ordering::Relaxed);
        if matches!(self.bug, Bug::RestartLosesAll) {
            *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = MemoryJobStore::default();
        }
        if matches!(self.bug, Bug::RestartLosesLeases) {
            let store = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let ended = QueueQuery { now: Timestamp::MAX, arches: None, after: None, limit: 1 };
            store.queue(&ended).await.expect("the store in memory answers");
        }
        self.mutant()
    }
}

/// What the mistakes of a store share between its handles.
#[derive(Debug, Default)]
struct Notes {
    /// The fence of the latest claim of each job, as it was shown and as it is.
    fences: HashMap<JobId, (Fence, Fence)>,
    keys: HashMap<String, JobId>,
    reserved: HashSet<String>,
    /// Jobs in the middle of a call that does its work in two parts.
    halfway: HashSet<JobId>,
    removed: HashSet<JobId>,
    logs: HashMap<JobId, LogChunk>,
    /// How many attempts were erased.
    erased: HashMap<JobId, usize>,
}

/// A handle of a store with a mistake.
#[derive(Debug)]
struct Mutant {
    bug: Bug,
    inner: MemoryJobStore,
    notes: Arc<Mutex<Notes>>,
    reopened: bool,
    claimed: Mutex<HashSet<JobId>>,
}

fn lost(job: &Arc<Job>, loss: Loss) -> Arc<Job> {
    let mut job = Job::clone(job);
    loss(&mut job);
    Arc::new(job)
}

impl Mutant {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn halfway(&self, id: JobId) -> bool {
        self.notes().halfway.contains(&id)
    }

    /// The fence that the inner store knows for one that a caller shows.
    fn real(&self, job: JobId, shown: Fence) -> Fence {
        match self.notes().fences.get(&job) {
            Some((known, real)) if *known == shown => *real,
            Some(_) if matches!(self.bug, Bug::FenceIsAttempt) => Fence(u64::MAX),
            _ => shown,
        }
    }

    fn latest(&self, job: JobId) -> Option<Fence> {
        self.notes().fences.get(&job).map(|(_, real)| *real)
    }

    /// What the mistake makes of a job that is read.
    fn read(&self, job: &Arc<Job>) -> Arc<Job> {
        match self.bug {
            Bug::RestartLoses(loss) if self.reopened => lost(job, loss),
            Bug::FinishWritesArtifactsLater if self.halfway(job.id) => lost(job, |job| job.artifacts.clear()),
            _ => Arc::clone(job),
        }
    }

    async fn insert_in_two_looks(&self, job: NewJob, key: String) -> Result<Inserted> {
        let known = self.notes().keys.get(&key).copied();
        yield_now().await;
        if let Some(id) = known
            && let Ok(known) = self.inner.get(id).await
        {
            if known.spec != job.spec {
                return Err(Error::new(ErrorKind::Conflict, "the key was used"));
            }
            return Ok(Inserted { job: known, created: false });
        }
        let inserted = self.inner.insert(NewJob { idempotency_key: None, ..job }).await?;
        self.notes().keys.insert(key, inserted.job.id);
        Ok(inserted)
    }

    async fn insert_with_reservation(&self, job: NewJob, key: String) -> Result<Inserted> {
        if !self.notes().reserved.insert(key.clone()) {
            return Err(Error::new(ErrorKind::Conflict, "the key is taken"));
        }
        yield_now().await;
        let inserted = self.inner.insert(job).await;
        self.notes().reserved.remove(&key);
        inserted
    }

    /// The claims as a mistake shows them, kept for later calls.
    fn show(&self, claims: Vec<Claim>) -> Vec<Claim> {
        let mut notes = self.notes();
        let show = |claim: Claim| {
            let shown = match self.bug {
                Bug::FenceIsAttempt => Fence(u64::from(claim.job.counted_attempts)),
                Bug::RestartLosesFences if self.reopened => Fence(1),
                _ => claim.fence,
            };
            notes.fences.insert(claim.job.id, (shown, claim.fence));
            let forgotten = matches!(self.bug, Bug::ClaimForgetsLog);
            let log_bytes = if forgotten { 0 } else { claim.log_bytes };
            Claim { job: claim.job, fence: shown, log_bytes }
        };
        claims.into_iter().map(show).collect()
    }

    /// Claims of jobs that are somebody else's already.
    async fn forged(&self, jobs: &[JobId], claims: &[Claim]) -> Vec<Claim> {
        let mut forged = Vec::new();
        for id in jobs.iter().filter(|id| claims.iter().all(|claim| claim.job.id != **id)) {
            if let (Ok(job), Some(fence)) = (self.inner.get(*id).await, self.latest(*id))
                && job.state == JobState::Running
            {
                forged.push(Claim { job, fence, log_bytes: 0 });
            }
        }
        forged
    }

    async fn claim_with_bug(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let one = |id: JobId| ClaimRequest { jobs: vec![id], ..request.clone() };
        let mut claims = Vec::new();
        match self.bug {
            Bug::ClaimIgnoresBound => {
                for jobs in request.jobs.chunks(limits::CLAIMS_PER_ROUND_MAX) {
                    let part = ClaimRequest { jobs: jobs.to_vec(), ..request.clone() };
                    claims.extend(self.inner.claim(&part).await?);
                }
            }
            Bug::ClaimIgnoresPause => {
                for id in &request.jobs {
                    let paused = self.inner.get(*id).await.ok().and_then(|job| job.not_before);
                    let now = paused.map_or(request.now, |paused| paused.max(request.now));
                    claims.extend(self.inner.claim(&ClaimRequest { now, ..one(*id) }).await?);
                }
            }
            Bug::ClaimsOneByOne => {
                for id in &request.jobs {
                    claims.extend(self.inner.claim(&one(*id)).await?);
                    yield_now().await;
                }
            }
            Bug::RequeueQueuesLater => {
                let jobs = request.jobs.iter().copied().filter(|id| !self.halfway(*id)).collect();
                claims = self.inner.claim(&ClaimRequest { jobs, ..request.clone() }).await?;
            }
            Bug::ClaimSortsJobs => {
                claims = self.inner.claim(request).await?;
                claims.sort_by_key(|claim| claim.job.id);
            }
            Bug::ClaimRaces => {
                let mut pending = Vec::new();
                for id in &request.jobs {
                    let job = self.inner.get(*id).await;
                    pending.extend(job.ok().filter(|job| job.state == JobState::Pending).map(|job| job.id));
                }
                yield_now().await;
                claims = self.inner.claim(request).await?;
                claims.extend(self.forged(&pending, &claims).await);
            }
            Bug::ClaimTrustsItsHandle => {
                claims = self.inner.claim(request).await?;
                let strange =
                    |id: &JobId| !self.claimed.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
                let strange: Vec<JobId> = request.jobs.iter().copied().filter(strange).collect();
                claims.extend(self.forged(&strange, &claims).await);
                let own = claims.iter().map(|claim| claim.job.id);
                self.claimed.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            }
            _ => claims = self.inner.claim(request).await?,
        }
        Ok(claims)
    }
}

#[async_trait]
impl JobStore for Mutant {
    async fn insert(&self, mut job: NewJob) -> Result<Inserted> {
        let Some(key) = job.idempotency_key.clone() else { return self.inner.insert(job).await };
        let legal = !key.is_empty() && key.len() <= limits::IDEMPOTENCY_KEY_BYTES_MAX;
        match self.bug {
            Bug::InsertCutsKeys => {
                job.idempotency_key =
                    key.get(..limits::IDEMPOTENCY_KEY_BYTES_MAX).map(str::to_owned).or(Some(key));
            }
            Bug::InsertRacesForKey if legal => return self.insert_in_two_looks(job, key).await,
            Bug::InsertReservesKeyFirst if legal => return self.insert_with_reservation(job, key).await,
            Bug::InsertIgnoresSpecOfKey => {
                let known = self.notes().keys.get(&key).copied();
                if let Some(id) = known
                    && let Ok(job) = self.inner.get(id).await
                {
                    return Ok(Inserted { job, created: false });
                }
                let inserted = self.inner.insert(job).await?;
                self.notes().keys.insert(key, inserted.job.id);
                return Ok(inserted);
            }
            Bug::RemoveKeepsKey if self.notes().reserved.contains(&key) => {
                return Err(Error::new(ErrorKind::Conflict, "the key was used"));
            }
            Bug::RemoveKeepsKey => {
                let inserted = self.inner.insert(job).await?;
                self.notes().keys.insert(key, inserted.job.id);
                return Ok(inserted);
            }
            Bug::RestartLosesKeys if self.reopened => job.idempotency_key = None,
            _ => {}
        }
        self.inner.insert(job).await
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        if self.notes().removed.contains(&id) {
            return Err(Error::new(ErrorKind::NotFound, "the job was removed"));
        }
        let job = self.inner.get(id).await?;
        Ok(if let Bug::GetLoses(loss) = self.bug { lost(&job, loss) } else { self.read(&job) })
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        let mut query = query.clone();
        match self.bug {
            Bug::ListIgnoresState(state) if query.state == Some(state) => query.state = None,
            Bug::ListForgetsCursor => query.before = None,
            _ => {}
        }
        let mut page = self.inner.list(&query).await?;
        match self.bug {
            Bug::ListSaysNoMore => page.more = false,
            Bug::ListOldestFirst => page.jobs.reverse(),
            Bug::ListLeavesOut(state) if query.state.is_none() => page.jobs.retain(|job| job.state != state),
            Bug::ListLoses(loss) => page.jobs = page.jobs.iter().map(|job| lost(job, loss)).collect(),
            Bug::ListIgnoresBound => {
                while page.more && page.jobs.len() < query.limit {
                    let before = page.jobs.last().map(|job| job.id);
                    let rest = self.inner.list(&ListQuery { before, ..query.clone() }).await?;
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

    async fn queue(&self, query: &QueueQuery) -> Result<Vec<QueuedJob>> {
        let mut query = query.clone();
        match self.bug {
            Bug::QueueIgnoresArch => query.arches = None,
            Bug::QueueForgetsCursor => query.after = None,
            Bug::QueueSettlesNothing => query.now = START,
            _ => {}
        }
        let mut rows = self.inner.queue(&query).await?;
        match self.bug {
            Bug::QueueNewestFirst => rows.reverse(),
            Bug::RequeueQueuesLater => rows.retain(|row| !self.halfway(row.id)),
            Bug::QueueIgnoresBound => loop {
                let after = rows.last().map(|row| row.id).or(query.after);
                let rest = self.inner.queue(&QueueQuery { after, ..query.clone() }).await?;
                if rest.is_empty() || rows.len() >= query.limit {
                    rows.truncate(query.limit);
                    break;
                }
                rows.extend(rest);
            },
            _ => {}
        }
        Ok(rows)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let claims = self.claim_with_bug(request).await?;
        Ok(self.show(claims))
    }

    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Vec<Renewal>> {
        let real = leases.iter().map(|lease| Lease { fence: self.real(lease.job, lease.fence), ..*lease });
        let real: Vec<Lease> = real.collect();
        let mut answers = self.inner.renew(&real, until).await?;
        for (lease, answer) in real.iter().zip(&mut answers) {
            let state = self.inner.get(lease.job).await.map(|job| job.state);
            match self.bug {
                Bug::RenewKeepsCancelToItself if *answer != Renewal::Lost => {
                    *answer = Renewal::Kept { cancel_requested: false };
                }
                Bug::RenewRevives if matches!(state, Ok(JobState::Pending)) => {
                    *answer = Renewal::Kept { cancel_requested: false };
                }
                Bug::RenewIgnoresFence if matches!(state, Ok(JobState::Running)) => {
                    *answer = Renewal::Kept { cancel_requested: false };
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn record(&self, mut record: Record) -> Result<Arc<Job>> {
        let id = record.job;
        record.fence = record.fence.map(|fence| self.real(id, fence));
        match (self.bug, &mut record.event) {
            (Bug::RecordTakesLeaseLost, JobEvent::LeaseLost { error }) => {
                record.event = JobEvent::Requeued { error: error.clone(), not_before: None, refund: false };
            }
            (Bug::RecordForgetsRefund, JobEvent::Requeued { refund, .. }) => *refund = false,
            (Bug::RecordIgnoresVersionBesideFence, _) if record.fence.is_some() => {
                record.expected_version = None;
            }
            (Bug::RecordIgnoresFenceBesideVersion, _) if record.expected_version.is_some() => {
                record.fence = record.fence.and(self.latest(id));
            }
            (Bug::RecordIgnoresFence, _) => record.fence = record.fence.and(self.latest(id)),
            (Bug::RecordNeedsNoGuard, _) if record.fence.is_none() && record.expected_version.is_none() => {
                record.expected_version = self.inner.get(id).await.ok().map(|job| job.version);
            }
            _ => {}
        }
        let later = match self.bug {
            Bug::FinishWritesArtifactsLater => matches!(record.event, JobEvent::Succeeded { .. }),
            Bug::RequeueQueuesLater => matches!(record.event, JobEvent::Requeued { .. }),
            _ => false,
        };
        let job = self.inner.record(record).await?;
        if later {
            self.notes().halfway.insert(id);
            yield_now().await;
            self.notes().halfway.remove(&id);
        }
        Ok(if let Bug::RecordTellsLess(loss) = self.bug { lost(&job, loss) } else { job })
    }

    async fn request_cancel(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        match self.inner.request_cancel(id, at).await {
            Err(error)
                if matches!(self.bug, Bug::CancelTakesFinished) && error.kind() == ErrorKind::Conflict =>
            {
                self.inner.get(id).await
            }
            told => told,
        }
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        let job = self.get(id).await?;
        match self.bug {
            Bug::RemoveTakes(state) if job.state == state => {
                self.notes().removed.insert(id);
                return Ok(());
            }
            Bug::RemoveKeepsLog => {
                let log = self.inner.read_log(id, 0, usize::MAX).await?;
                self.inner.remove(id).await?;
                self.notes().logs.insert(id, log);
                return Ok(());
            }
            Bug::RemoveKeepsKey => {
                self.inner.remove(id).await?;
                let mut notes = self.notes();
                let keys: Vec<String> =
                    notes.keys.iter().filter(|(_, job)| **job == id).map(|(key, _)| key.clone()).collect();
                notes.reserved.extend(keys);
                return Ok(());
            }
            Bug::RemoveDropsLogFirst if job.state.is_terminal() => {
                self.notes().halfway.insert(id);
                yield_now().await;
            }
            _ => {}
        }
        self.inner.remove(id).await
    }

    async fn append_log(&self, id: JobId, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        let fence = self.real(id, fence);
        match self.bug {
            Bug::AppendIgnoresFence => {
                self.inner.append_log(id, self.latest(id).unwrap_or(fence), offset, bytes).await
            }
            Bug::AppendTwice => {
                let end = self.inner.append_log(id, fence, offset, bytes.clone()).await?;
                self.inner.append_log(id, fence, end, bytes).await
            }
            Bug::AppendIgnoresOffset => {
                let end = self.inner.read_log(id, 0, 0).await?.len;
                self.inner.append_log(id, fence, end, bytes).await
            }
            Bug::AppendByHalves => {
                let middle = bytes.len() / 2;
                let end = self.inner.append_log(id, fence, offset, bytes.slice(..middle)).await?;
                yield_now().await;
                self.inner.append_log(id, fence, end, bytes.slice(middle..)).await
            }
            _ => self.inner.append_log(id, fence, offset, bytes).await,
        }
    }

    async fn retry(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        match self.bug {
            Bug::RetryTakesSuccess => match self.inner.retry(id, at).await {
                Err(error) if error.kind() == ErrorKind::Conflict => self.inner.get(id).await,
                told => told,
            },
            Bug::RetryErases => {
                let erased = self.inner.attempts(id).await?.len();
                self.notes().erased.insert(id, erased);
                self.inner.retry(id, at).await
            }
            _ => self.inner.retry(id, at).await,
        }
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        let mut attempts = self.inner.attempts(id).await?;
        match self.bug {
            Bug::AttemptsLose(loss) => attempts.iter_mut().for_each(loss),
            Bug::AttemptsForget => {
                attempts.drain(..attempts.len().saturating_sub(1));
            }
            Bug::RetryErases => {
                let erased = self.notes().erased.get(&id).copied().unwrap_or_default();
                attempts.drain(..erased);
            }
            _ => {}
        }
        Ok(attempts)
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let kept = self.notes().logs.get(&id).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        if matches!(self.bug, Bug::RemoveDropsLogFirst) && self.halfway(id) {
            return Err(Error::new(ErrorKind::NotFound, "the log was removed"));
        }
        match self.bug {
            Bug::RestartLosesLogs if self.reopened => Ok(LogChunk { bytes: Bytes::new(), len: 0 }),
            Bug::ReadIgnoresOffset => self.inner.read_log(id, 0, limit).await,
            Bug::ReadIgnoresBound => {
                let mut read = Vec::new();
                loop {
                    let at = offset.saturating_add(u64::try_from(read.len()).unwrap_or(u64::MAX));
                    let chunk = self.inner.read_log(id, at, limit - read.len()).await?;
                    if chunk.bytes.is_empty() {
                        return Ok(LogChunk { bytes: read.into(), len: chunk.len });
                    }
                    read.extend_from_slice(&chunk.bytes);
                }
            }
            _ => self.inner.read_log(id, offset, limit).await,
        }
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        match self.bug {
            Bug::HintsNeverMove => watch::channel(0).1,
            _ => self.inner.changed(subject),
        }
    }
}
