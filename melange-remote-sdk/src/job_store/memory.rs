//! The store in memory: for tests, examples and servers that may forget. Bounded; what finished first leaves first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Claim, ClaimRequest, Fence, Inserted, JobPage, JobStore, Lease, ListQuery, LogChunk, NewJob, QueueQuery,
    QueuedJob, Record, Renewal, Subject,
};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{FailureClass, Job, JobAttempt, JobError, JobEvent, JobId, JobState};
use crate::limits;

/// The last line of a log that ran into its bound.
const CUT_NOTICE: &[u8] = b"[the log is cut here: it reached its bound]\n";

/// The bounds of a [`MemoryJobStore`].
#[derive(Debug, Clone, Copy)]
pub struct MemoryBounds {
    /// Jobs kept.
    pub jobs: usize,
    /// Jobs that may wait.
    pub pending: usize,
    /// Bytes of texts and logs kept.
    pub bytes: usize,
    /// Bytes of one log, all attempts together.
    pub log_bytes: usize,
}

impl Default for MemoryBounds {
    fn default() -> Self {
        Self {
            jobs: limits::MEMORY_JOBS_MAX,
            pending: limits::PENDING_JOBS_MAX,
            bytes: limits::MEMORY_STORE_BYTES_MAX,
            log_bytes: usize::try_from(limits::JOB_LOG_BYTES_MAX).unwrap_or(usize::MAX),
        }
    }
}

/// A [`JobStore`] in memory. Clones share one store.
#[derive(Debug, Clone)]
pub struct MemoryJobStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    bounds: MemoryBounds,
    jobs: BTreeMap<JobId, Entry>,
    by_state: HashMap<JobState, BTreeSet<JobId>>,
    /// Pending jobs by architecture, so that a full architecture does not hide another one.
    pending: BTreeMap<Arch, BTreeSet<JobId>>,
    /// Ends of leases.
    leases: BTreeSet<(Timestamp, JobId)>,
    keys: HashMap<String, JobId>,
    /// Jobs in the order in which they finished.
    finished: VecDeque<JobId>,
    bytes: usize,
    queue_hint: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    fence: u64,
    lease_until: Timestamp,
    idempotency_key: Option<String>,
    /// Those that came to their end.
    attempts: Vec<JobAttempt>,
    log: Vec<u8>,
    /// Where the part of the present or last attempt begins.
    log_begin: u64,
    log_cut: bool,
    job_hint: watch::Sender<u64>,
    log_hint: watch::Sender<u64>,
}

fn notify(hint: &watch::Sender<u64>) {
    hint.send_modify(|count| *count = count.wrapping_add(1));
}

impl Default for MemoryJobStore {
    fn default() -> Self {
        Self::new(MemoryBounds::default())
    }
}

impl MemoryJobStore {
    /// An empty store.
    pub fn new(bounds: MemoryBounds) -> Self {
        let state = State {
            bounds,
            jobs: BTreeMap::new(),
            by_state: HashMap::new(),
            pending: BTreeMap::new(),
            leases: BTreeSet::new(),
            keys: HashMap::new(),
            finished: VecDeque::new(),
            bytes: 0,
            queue_hint: watch::Sender::new(0),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found(id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such job").with("job", id)
}

fn conflict(id: JobId, message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with("job", id)
}

impl State {
    fn entry(&self, id: JobId) -> Result<&Entry> {
        self.jobs.get(&id).ok_or_else(|| not_found(id))
    }

    fn entry_mut(&mut self, id: JobId) -> Result<&mut Entry> {
        self.jobs.get_mut(&id).ok_or_else(|| not_found(id))
    }

    /// Applies an event and keeps the indexes, hints and bounds in step.
    fn apply(&mut self, id: JobId, event: JobEvent, at: Timestamp) -> Result<Arc<Job>> {
        let entry = self.entry_mut(id)?;
        let from = entry.job.state;
        let ended = (from == JobState::Running).then(|| entry.ended_attempt(&event, at)).flatten();
        Arc::make_mut(&mut entry.job).apply(event, at)?;
        entry.attempts.extend(ended);
        let job = Arc::clone(&entry.job);
        notify(&entry.job_hint);
        let until = entry.lease_until;
        if from != job.state {
            notify(&entry.log_hint);
            if from == JobState::Running {
                self.leases.remove(&(until, id));
            }
            self.index(&job, from);
        }
        Ok(job)
    }

    fn index(&mut self, job: &Job, from: JobState) {
        if let Some(set) = self.by_state.get_mut(&from) {
            set.remove(&job.id);
        }
        self.by_state.entry(job.state).or_default().insert(job.id);
        let waiting = self.pending.entry(job.spec.arch()).or_default();
        if job.state == JobState::Pending {
            waiting.insert(job.id);
            notify(&self.queue_hint);
        } else {
            waiting.remove(&job.id);
        }
        if job.state.is_terminal() {
            self.finished.push_back(job.id);
        }
    }

    /// Forgets what finished first until `more` bytes and one more job fit; returns whether the bytes fit.
    fn evict(&mut self, more: usize) -> bool {
        while self.bytes.saturating_add(more) > self.bounds.bytes || self.jobs.len() >= self.bounds.jobs {
            let Some(id) = self.finished.pop_front() else { break };
            self.forget(id);
        }
        self.bytes.saturating_add(more) <= self.bounds.bytes
    }

    /// Drops a finished job from every index.
    fn forget(&mut self, id: JobId) {
        let Some(entry) = self.jobs.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(entry.size());
        if let Some(set) = self.by_state.get_mut(&entry.job.state) {
            set.remove(&id);
        }
        if let Some(key) = &entry.idempotency_key {
            self.keys.remove(key);
        }
        // Whoever follows it learns that it is gone.
        notify(&entry.job_hint);
        notify(&entry.log_hint);
    }

    fn remove(&mut self, id: JobId) -> Result<()> {
        let entry = self.entry(id)?;
        if !entry.job.state.is_terminal() {
            let error = conflict(id, "the job has not finished");
            return Err(error.hint("cancel it first"));
        }
        self.finished.retain(|finished| *finished != id);
        self.forget(id);
        Ok(())
    }

    fn pending_len(&self) -> usize {
        self.pending.values().map(BTreeSet::len).sum()
    }

    fn insert(&mut self, new: NewJob) -> Result<Inserted> {
        if let Some(known) = self.known(&new)? {
            return Ok(Inserted { job: known, created: false });
        }
        if self.jobs.contains_key(&new.id) {
            let error = Error::new(ErrorKind::AlreadyExists, "there is such a job already");
            return Err(error.with("job", new.id));
        }
        self.check_pending()?;
        let size = new.spec.size_bytes();
        if !self.evict(size) || self.jobs.len() >= self.bounds.jobs {
            let error = Error::new(ErrorKind::LimitExceeded, "the store has no room for one more job");
            return Err(error.hint("submit again when some jobs have finished"));
        }
        let job = Arc::new(Job::new(new.id, new.spec, new.at));
        let entry = Entry {
            job: Arc::clone(&job),
            fence: 0,
            lease_until: Timestamp::MIN,
            idempotency_key: new.idempotency_key.clone(),
            attempts: Vec::new(),
            log: Vec::new(),
            log_begin: 0,
            log_cut: false,
            job_hint: watch::Sender::new(0),
            log_hint: watch::Sender::new(0),
        };
        if let Some(key) = new.idempotency_key {
            self.keys.insert(key, new.id);
        }
        self.bytes += size;
        self.jobs.insert(new.id, entry);
        self.by_state.entry(JobState::Pending).or_default().insert(new.id);
        self.pending.entry(job.spec.arch()).or_default().insert(new.id);
        notify(&self.queue_hint);
        Ok(Inserted { job, created: true })
    }

    /// The job that an earlier submission with the same key made.
    fn known(&self, new: &NewJob) -> Result<Option<Arc<Job>>> {
        let Some(key) = &new.idempotency_key else { return Ok(None) };
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
            let bound = limits::IDEMPOTENCY_KEY_BYTES_MAX;
            return Err(Error::invalid(format!("an idempotency key has 1 to {bound} bytes")));
        }
        let Some(known) = self.keys.get(key).and_then(|id| self.jobs.get(id)) else { return Ok(None) };
        if known.job.spec != new.spec {
            let error = conflict(known.job.id, "the idempotency key was used for another submission");
            return Err(error.hint("use a new key for every new submission"));
        }
        Ok(Some(Arc::clone(&known.job)))
    }

    /// Settles the leases that ended by `now`.
    fn settle(&mut self, now: Timestamp) {
        while let Some(&(until, id)) = self.leases.first() {
            if until > now {
                break;
            }
            self.leases.remove(&(until, id));
            let Some(entry) = self.jobs.get(&id) else { continue };
            let (attempt, counted) = (entry.job.attempt, entry.job.counted_attempts);
            let message = format!("attempt {attempt} was lost: its lease ended without a word");
            let error = JobError::new(FailureClass::Infrastructure, message);
            let event = if entry.job.cancel_requested {
                JobEvent::Cancelled
            } else if counted >= limits::ATTEMPTS_MAX {
                JobEvent::Failed { error }
            } else {
                JobEvent::LeaseLost { error }
            };
            // Only running jobs have leases, and the table lets these events happen to them.
            let settled = self.apply(id, event, now);
            debug_assert!(settled.is_ok(), "{settled:?}");
        }
    }

    fn queue(&mut self, query: &QueueQuery) -> Vec<QueuedJob> {
        self.settle(query.now);
        let limit = query.limit.min(limits::CLAIMS_PER_ROUND_MAX);
        let wanted = |arch: &Arch| query.arches.as_ref().is_none_or(|arches| arches.contains(arch));
        let lower = match query.after {
            Some(id) => std::ops::Bound::Excluded(id),
            None => std::ops::Bound::Unbounded,
        };
        let mut found: Vec<&Entry> = Vec::new();
        for (_, ids) in self.pending.iter().filter(|(arch, _)| wanted(arch)) {
            let entries = ids.range((lower, std::ops::Bound::Unbounded)).filter_map(|id| self.jobs.get(id));
            found.extend(entries.filter(|entry| entry.is_due(query.now)).take(limit));
        }
        found.sort_by_key(|entry| entry.job.id);
        found.truncate(limit);
        found.into_iter().map(Entry::queued).collect()
    }

    fn claim(&mut self, request: &ClaimRequest) -> Vec<Claim> {
        self.settle(request.now);
        let mut claims = Vec::new();
        for &id in request.jobs.iter().take(limits::CLAIMS_PER_ROUND_MAX) {
            let Some(entry) = self.jobs.get_mut(&id) else { continue };
            if entry.job.state != JobState::Pending || !entry.is_due(request.now) {
                continue;
            }
            entry.fence += 1;
            entry.lease_until = request.until;
            let fence = Fence(entry.fence);
            entry.log_begin = entry.log_len();
            let log_bytes = entry.log_begin;
            if let Ok(job) = self.apply(id, JobEvent::Claimed, request.now) {
                self.leases.insert((request.until, id));
                claims.push(Claim { job, fence, log_bytes });
            }
        }
        claims
    }

    fn renew(&mut self, lease: Lease, until: Timestamp) -> Renewal {
        let Some(entry) = self.jobs.get_mut(&lease.job) else { return Renewal::Lost };
        if entry.job.state != JobState::Running || entry.fence != lease.fence.0 {
            return Renewal::Lost;
        }
        if until > entry.lease_until {
            self.leases.remove(&(entry.lease_until, lease.job));
            entry.lease_until = until;
            self.leases.insert((until, lease.job));
        }
        Renewal::Kept { cancel_requested: entry.job.cancel_requested }
    }

    fn record(&mut self, record: Record) -> Result<Arc<Job>> {
        let entry = self.entry(record.job)?;
        if matches!(record.event, JobEvent::Claimed | JobEvent::CancelRequested | JobEvent::LeaseLost { .. })
        {
            let message = format!("the event {} has a call of its own", record.event.name());
            return Err(Error::invalid(message));
        }
        match record.fence {
            Some(fence) => entry.check_fence(fence)?,
            None if entry.job.state == JobState::Running => {
                return Err(conflict(record.job, "the job runs, and only its owner may change it"));
            }
            None if record.expected_version.is_none() => {
                return Err(Error::invalid("an event needs a fence or an expected version"));
            }
            None => {}
        }
        if record.expected_version.is_some_and(|version| version != entry.job.version) {
            return Err(conflict(record.job, "the job has changed meanwhile"));
        }
        self.apply(record.job, record.event, record.at)
    }

    fn request_cancel(&mut self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        let entry = self.entry(id)?;
        match entry.job.state {
            JobState::Pending => self.apply(id, JobEvent::Cancelled, at),
            JobState::Running if !entry.job.cancel_requested => self.apply(id, JobEvent::CancelRequested, at),
            JobState::Running | JobState::Cancelled => Ok(Arc::clone(&entry.job)),
            JobState::Success => Err(conflict(id, "the job has succeeded already")),
            JobState::Failed => Err(conflict(id, "the job has failed already")),
        }
    }

    fn append_log(&mut self, id: JobId, fence: Fence, offset: u64, bytes: &[u8]) -> Result<u64> {
        let bound = self.bounds.log_bytes;
        let entry = self.entry(id)?;
        entry.check_fence(fence)?;
        let (len, cut) = (entry.log.len(), entry.log_cut);
        if cut {
            return Ok(entry.log_len());
        }
        let Some(known) = entry.log_len().checked_sub(offset) else {
            let message = format!("there is no byte {offset} of the log yet: it has {len}");
            return Err(Error::invalid(message).with("job", id));
        };
        let bytes = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(entry.log_len());
        }
        let fits = len.saturating_add(bytes.len()).saturating_add(CUT_NOTICE.len()) <= bound
            && self.evict(bytes.len());
        let (kept, notice) = if fits {
            (bytes, &b""[..])
        } else {
            let room = bound.saturating_sub(len.saturating_add(CUT_NOTICE.len()));
            let room = if self.evict(room.min(bytes.len())) { room } else { 0 };
            let part = &bytes[..room.min(bytes.len())];
            // Whole lines only, so that the notice stands on its own line.
            (&part[..part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)], CUT_NOTICE)
        };
        self.bytes += kept.len() + notice.len();
        let entry = self.entry_mut(id)?;
        entry.log.extend_from_slice(kept);
        entry.log.extend_from_slice(notice);
        entry.log_cut = !notice.is_empty();
        notify(&entry.log_hint);
        Ok(entry.log_len())
    }

    fn retry(&mut self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        let job = Arc::clone(&self.entry(id)?.job);
        match job.state {
            JobState::Pending | JobState::Running => return Ok(job),
            JobState::Success => {
                let error = conflict(id, "the job has succeeded already");
                return Err(error.hint("submit its definition again to build it again"));
            }
            JobState::Failed | JobState::Cancelled => {}
        }
        self.check_pending()?;
        self.finished.retain(|finished| *finished != id);
        self.apply(id, JobEvent::Retried, at)
    }

    fn check_pending(&self) -> Result<()> {
        let pending = self.pending_len();
        if pending < self.bounds.pending {
            return Ok(());
        }
        let error = Error::new(ErrorKind::LimitExceeded, format!("{pending} jobs wait already"));
        Err(error.hint("submit again when some of them have finished"))
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.job.spec.size_bytes() + self.log.len()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.job.not_before.is_none_or(|not_before| not_before <= now)
    }

    fn log_len(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap_or(u64::MAX)
    }

    /// The attempt under way, as it comes to its end by `event`; `None` when it goes on.
    fn ended_attempt(&self, event: &JobEvent, at: Timestamp) -> Option<JobAttempt> {
        let (outcome, counts, error) = event.end_of_attempt()?;
        Some(JobAttempt {
            ended_at: Some(at),
            outcome,
            counts,
            error: error.cloned(),
            log_end: Some(self.log_len()),
            ..self.present_attempt()?
        })
    }

    fn present_attempt(&self) -> Option<JobAttempt> {
        Some(JobAttempt { log_begin: self.log_begin, ..self.job.present_attempt()? })
    }

    fn check_fence(&self, fence: Fence) -> Result<()> {
        if self.job.state == JobState::Running && self.fence == fence.0 {
            return Ok(());
        }
        Err(conflict(self.job.id, "the lease on the job is lost"))
    }

    fn queued(&self) -> QueuedJob {
        QueuedJob {
            id: self.job.id,
            version: self.job.version,
            arch: self.job.spec.arch(),
            backend_selector: self.job.spec.backend_selector().clone(),
            waiting: self.job.waiting.clone(),
        }
    }
}

#[async_trait]
impl JobStore for MemoryJobStore {
    async fn insert(&self, job: NewJob) -> Result<Inserted> {
        self.lock().insert(job)
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        self.lock().entry(id).map(|entry| Arc::clone(&entry.job))
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        let state = self.lock();
        let limit = query.limit.clamp(1, limits::PAGE_ITEMS_MAX);
        let upper = match query.before {
            Some(id) => std::ops::Bound::Excluded(id),
            None => std::ops::Bound::Unbounded,
        };
        let range = (std::ops::Bound::Unbounded, upper);
        let job = |id: &JobId| state.jobs.get(id).map(|entry| Arc::clone(&entry.job));
        let mut jobs: Vec<Arc<Job>> = match query.state {
            None => state.jobs.range(range).rev().take(limit + 1).map(|(_, e)| Arc::clone(&e.job)).collect(),
            Some(wanted) => {
                let ids = state.by_state.get(&wanted).into_iter().flat_map(|ids| ids.range(range).rev());
                ids.take(limit + 1).filter_map(job).collect()
            }
        };
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok(JobPage { jobs, more })
    }

    async fn queue(&self, query: &QueueQuery) -> Result<Vec<QueuedJob>> {
        Ok(self.lock().queue(query))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        Ok(self.lock().claim(request))
    }

    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Vec<Renewal>> {
        let mut state = self.lock();
        Ok(leases.iter().map(|lease| state.renew(*lease, until)).collect())
    }

    async fn record(&self, record: Record) -> Result<Arc<Job>> {
        self.lock().record(record)
    }

    async fn request_cancel(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        self.lock().request_cancel(id, at)
    }

    async fn retry(&self, id: JobId, at: Timestamp) -> Result<Arc<Job>> {
        self.lock().retry(id, at)
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        let state = self.lock();
        let entry = state.entry(id)?;
        let mut attempts = entry.attempts.clone();
        attempts.extend(entry.present_attempt().filter(|_| entry.job.state == JobState::Running));
        Ok(attempts)
    }

    async fn remove(&self, id: JobId) -> Result<()> {
        self.lock().remove(id)
    }

    async fn append_log(&self, id: JobId, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.lock().append_log(id, fence, offset, &bytes)
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let state = self.lock();
        let log = &state.entry(id)?.log;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        let end = start.saturating_add(limit.min(limits::LOG_READ_BYTES_MAX)).min(log.len());
        let len = u64::try_from(log.len()).unwrap_or(u64::MAX);
        Ok(LogChunk { bytes: Bytes::copy_from_slice(&log[start..end]), len })
    }

    fn changed(&self, subject: Subject) -> watch::Receiver<u64> {
        let state = self.lock();
        match subject {
            Subject::Queue => state.queue_hint.subscribe(),
            Subject::Job(id) => hint(state.jobs.get(&id).map(|entry| &entry.job_hint)),
            Subject::Log(id) => hint(state.jobs.get(&id).map(|entry| &entry.log_hint)),
        }
    }
}

/// A receiver; that of a missing job has lost its sender.
fn hint(sender: Option<&watch::Sender<u64>>) -> watch::Receiver<u64> {
    sender.map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[async_trait]
    impl conformance::job_store::StoreUnderTest for MemoryJobStore {
        async fn handle(&self) -> Arc<dyn JobStore> {
            Arc::new(self.clone())
        }

        async fn reopen(&self) -> Arc<dyn JobStore> {
            Arc::new(self.clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        conformance::job_store::all(&MemoryJobStore::default()).await;
        let bounds = MemoryBounds { pending: 5, ..MemoryBounds::default() };
        conformance::job_store::waiting_jobs_are_bounded(&MemoryJobStore::new(bounds), 5).await;
    }

    fn new_job() -> NewJob {
        conformance::job_store::new_job("package: {}\n")
    }

    async fn finish(store: &MemoryJobStore, id: JobId) {
        store.request_cancel(id, Timestamp::UNIX_EPOCH).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_finished_jobs_leave_and_waiting_ones_never() {
        let bounds = MemoryBounds { jobs: 3, pending: 2, ..MemoryBounds::default() };
        let store = MemoryJobStore::new(bounds);
        let first = store.insert(new_job()).await.unwrap().job.id;
        finish(&store, first).await;
        let second = store.insert(new_job()).await.unwrap().job.id;
        let third = store.insert(new_job()).await.unwrap().job.id;
        let refused = store.insert(new_job()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        finish(&store, third).await;
        let fourth = store.insert(new_job()).await.unwrap().job.id;
        assert_eq!(store.get(first).await.unwrap_err().kind(), ErrorKind::NotFound);
        for id in [second, fourth] {
            store.get(id).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_log_beyond_its_bound_is_cut_at_a_line_and_says_so_once() {
        let store = MemoryJobStore::new(MemoryBounds { log_bytes: 80, ..MemoryBounds::default() });
        let id = store.insert(new_job()).await.unwrap().job.id;
        let now = Timestamp::UNIX_EPOCH;
        let request = ClaimRequest { jobs: vec![id], now, until: Timestamp::MAX };
        let fence = store.claim(&request).await.unwrap()[0].fence;
        for _ in 0..20 {
            let length = store.read_log(id, 0, 0).await.unwrap().len;
            store.append_log(id, fence, length, Bytes::from_static(b"0123456789\n")).await.unwrap();
        }
        let log = store.read_log(id, 0, usize::MAX).await.unwrap();
        let text = String::from_utf8(log.bytes.to_vec()).unwrap();
        assert_eq!(text, format!("{}{}", "0123456789\n".repeat(3), String::from_utf8_lossy(CUT_NOTICE)));
    }
}
