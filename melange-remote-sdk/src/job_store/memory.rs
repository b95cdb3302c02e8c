//! The store in memory: for tests, examples and servers that may forget. Bounded; what finished first leaves first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Claim, ClaimRequest, Demand, ExpireRequest, Fence, Finished, GiveUp, Group, GroupWaiting, JobIntake,
    JobPage, JobProgress, JobQueue, JobReading, ListQuery, LogChunk, NewJob, Offer, Release, Renewal,
    Selection, Subject, Submission, Submitted,
};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    Build, BuildId, ClaimToken, FailureClass, Job, JobAttempt, JobError, JobEvent, JobId, JobSpec, JobState,
    Outcome, Priority, ProgressRow, Project, ServerId, StateCounts, Waiting,
};
use crate::limits;

mod calls;
mod graph;
mod logs;

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

/// A [`super::JobStore`] in memory. Clones share one store.
#[derive(Debug, Clone)]
pub struct MemoryJobStore {
    state: Arc<Mutex<State>>,
}

/// The place of a job in the queue of its group.
type Place = (Reverse<Priority>, Reverse<i64>, JobId);

#[derive(Debug)]
struct State {
    bounds: MemoryBounds,
    jobs: BTreeMap<JobId, Entry>,
    by_state: [BTreeSet<JobId>; JobState::ALL.len()],
    /// Pending jobs, those that pause included.
    queue: BTreeMap<Group, BTreeSet<Place>>,
    reasons: HashMap<Group, Reason>,
    /// Ends of leases.
    leases: BTreeSet<(Timestamp, JobId)>,
    /// Running jobs by the claim that began their attempts, in the order of its answer.
    claims: HashMap<ClaimToken, Vec<JobId>>,
    /// How many jobs run on a backend.
    running: HashMap<String, u32>,
    submissions: HashMap<u64, Known>,
    submitted: u64,
    keys: HashMap<(Project, String), u64>,
    builds: BTreeMap<BuildId, (Build, BTreeSet<JobId>)>,
    /// Jobs in the order in which they finished.
    finished: VecDeque<JobId>,
    bytes: usize,
    queue_hint: watch::Sender<u64>,
    cancel_hint: watch::Sender<u64>,
}

/// A submission of which jobs are left.
#[derive(Debug)]
struct Known {
    key: Option<(Project, String)>,
    content: [u8; 32],
    jobs: Vec<JobId>,
    build: Option<BuildId>,
    left: usize,
}

/// Why a group waits.
#[derive(Debug)]
struct Reason {
    text: String,
    needs_other_backends: bool,
    /// Since when `needs_other_backends` has its value.
    kind_since: Timestamp,
    /// Since when the text is the same.
    since: Timestamp,
    noted_at: Timestamp,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    spec: Arc<JobSpec>,
    submission: u64,
    waits_for: Vec<JobId>,
    dependents: Vec<JobId>,
    /// The claim of the present or last attempt.
    token: Option<ClaimToken>,
    lease_until: Timestamp,
    /// How the last attempt gave the job back, so that the same call may be repeated.
    released: Option<Release>,
    /// The present one is the last of them.
    attempts: Vec<JobAttempt>,
    progress: u64,
    log: Vec<u8>,
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
            by_state: Default::default(),
            queue: BTreeMap::new(),
            reasons: HashMap::new(),
            leases: BTreeSet::new(),
            claims: HashMap::new(),
            running: HashMap::new(),
            submissions: HashMap::new(),
            submitted: 0,
            keys: HashMap::new(),
            builds: BTreeMap::new(),
            finished: VecDeque::new(),
            bytes: 0,
            queue_hint: watch::Sender::new(0),
            cancel_hint: watch::Sender::new(0),
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

fn no_build(id: BuildId) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such build").with("build", id)
}

fn conflict(id: JobId, message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with("job", id)
}

fn place(job: &Job) -> Place {
    (Reverse(job.priority), Reverse(job.rank), job.id)
}

impl State {
    fn entry(&self, id: JobId) -> Result<&Entry> {
        self.jobs.get(&id).ok_or_else(|| not_found(id))
    }

    fn entry_mut(&mut self, id: JobId) -> Result<&mut Entry> {
        self.jobs.get_mut(&id).ok_or_else(|| not_found(id))
    }

    /// The jobs of a selection, oldest first.
    fn selected(&self, selection: Selection) -> Result<Vec<JobId>> {
        match selection {
            Selection::Job(id) => self.entry(id).map(|entry| vec![entry.job.id]),
            Selection::Build(id) => {
                let (_, jobs) = self.builds.get(&id).ok_or_else(|| no_build(id))?;
                Ok(jobs.iter().copied().collect())
            }
        }
    }

    /// Applies an event and keeps attempts, indexes, hints and bounds in step; jobs that wait for this one are not
    /// touched.
    fn apply(&mut self, id: JobId, event: JobEvent, at: Timestamp) -> Result<Arc<Job>> {
        let entry = self.entry_mut(id)?;
        let before = Arc::clone(&entry.job);
        let end = event.end_of_attempt().map(|(outcome, counts, error)| (outcome, counts, error.cloned()));
        Arc::make_mut(&mut entry.job).apply(event, at)?;
        if before.state == JobState::Running
            && let Some((outcome, counts, error)) = end
        {
            let length = entry.log_len();
            if let Some(attempt) = entry.attempts.last_mut() {
                (attempt.outcome, attempt.counts, attempt.error) = (outcome, counts, error);
                (attempt.ended_at, attempt.log_end) = (Some(at), Some(length));
            }
        }
        let job = Arc::clone(&entry.job);
        notify(&entry.job_hint);
        if before.state != job.state {
            notify(&entry.log_hint);
            self.leave(&before);
            self.enter(&job, at);
        }
        Ok(job)
    }

    /// Takes a job out of the indexes of its state.
    fn leave(&mut self, job: &Job) {
        self.by_state[job.state.index()].remove(&job.id);
        match job.state {
            JobState::Pending => self.unqueue(job),
            JobState::Running => {
                let Some(entry) = self.jobs.get(&job.id) else { return };
                self.leases.remove(&(entry.lease_until, job.id));
                if let Some(token) = entry.token
                    && let Some(jobs) = self.claims.get_mut(&token)
                {
                    jobs.retain(|claimed| *claimed != job.id);
                    if jobs.is_empty() {
                        self.claims.remove(&token);
                    }
                }
                if let Some(backend) = &job.backend
                    && let Some(count) = self.running.get_mut(&backend.addr)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.running.remove(&backend.addr);
                    }
                }
            }
            _ => {}
        }
        if let Some((build, _)) = job.build.and_then(|id| self.builds.get_mut(&id)) {
            build.counts.take(job.state);
        }
    }

    /// Puts a job into the indexes of its state.
    fn enter(&mut self, job: &Job, at: Timestamp) {
        self.by_state[job.state.index()].insert(job.id);
        match job.state {
            JobState::Pending => {
                self.queue.entry(Group::of(job)).or_default().insert(place(job));
                notify(&self.queue_hint);
            }
            JobState::Running => {
                let Some(entry) = self.jobs.get(&job.id) else { return };
                self.leases.insert((entry.lease_until, job.id));
                if let Some(token) = entry.token {
                    self.claims.entry(token).or_default().push(job.id);
                }
                if let Some(backend) = &job.backend {
                    *self.running.entry(backend.addr.clone()).or_default() += 1;
                }
            }
            state if state.is_terminal() => self.finished.push_back(job.id),
            _ => {}
        }
        if let Some((build, _)) = job.build.and_then(|id| self.builds.get_mut(&id)) {
            build.counts.add(job.state);
            build.finished_at = build.is_finished().then_some(at);
        }
    }

    fn unqueue(&mut self, job: &Job) {
        let group = Group::of(job);
        if let Some(places) = self.queue.get_mut(&group) {
            places.remove(&place(job));
            if places.is_empty() {
                self.queue.remove(&group);
                self.reasons.remove(&group);
            }
        }
    }

    /// Forgets what finished first until `more` bytes and so many more jobs fit; returns whether the bytes fit.
    fn evict(&mut self, more: usize, jobs: usize) -> bool {
        while self.bytes.saturating_add(more) > self.bounds.bytes
            || self.jobs.len().saturating_add(jobs) > self.bounds.jobs
        {
            let Some(id) = self.finished.pop_front() else { break };
            self.forget(id);
        }
        self.bytes.saturating_add(more) <= self.bounds.bytes
    }

    /// Drops a finished job from every index.
    fn forget(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).map(|entry| Arc::clone(&entry.job)) else { return };
        self.leave(&job);
        let Some(entry) = self.jobs.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(entry.size());
        if let Some(build) = job.build
            && let Some((_, jobs)) = self.builds.get_mut(&build)
        {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.builds.remove(&build);
            }
        }
        if let Some(known) = self.submissions.get_mut(&entry.submission) {
            known.left -= 1;
            if known.left == 0
                && let Some(known) = self.submissions.remove(&entry.submission)
                && let Some(key) = known.key
            {
                self.keys.remove(&key);
            }
        }
        // Whoever follows it learns that it is gone.
        notify(&entry.job_hint);
        notify(&entry.log_hint);
    }

    fn remove(&mut self, id: JobId) -> Result<()> {
        let entry = self.entry(id)?;
        if !entry.job.state.is_terminal() {
            return Err(conflict(id, "the job has not finished").hint("cancel it first"));
        }
        self.finished.retain(|finished| *finished != id);
        self.forget(id);
        Ok(())
    }

    /// Whether so many more jobs may wait.
    fn check_waiting(&self, more: usize) -> Result<()> {
        let waiting =
            self.by_state[JobState::Blocked.index()].len() + self.by_state[JobState::Pending.index()].len();
        if waiting.saturating_add(more) <= self.bounds.pending {
            return Ok(());
        }
        let message = format!("{waiting} jobs wait already, and {} may", self.bounds.pending);
        Err(Error::new(ErrorKind::LimitExceeded, message)
            .hint("submit again when some of them have finished"))
    }

    /// The job as it is told: one that waits for a backend says why.
    fn told(&self, entry: &Entry) -> Arc<Job> {
        let job = &entry.job;
        let reason = (job.state == JobState::Pending).then(|| self.reasons.get(&Group::of(job))).flatten();
        let Some(reason) = reason else { return Arc::clone(job) };
        let ready_at = job.ready_at.unwrap_or(job.created_at);
        let pause_ends = job.not_before.unwrap_or(ready_at).max(ready_at);
        if reason.noted_at < pause_ends {
            return Arc::clone(job);
        }
        let since = reason.since.max(ready_at);
        let waiting = Some(Waiting { reason: reason.text.clone(), since });
        Arc::new(Job { waiting, ..Job::clone(job) })
    }

    fn demand(&self, now: Timestamp) -> Vec<Demand> {
        let due = |place: &&Place| self.jobs.get(&place.2).is_some_and(|entry| entry.is_due(now));
        let mut demand: Vec<Demand> = Vec::new();
        for (group, places) in &self.queue {
            let mut ready = places.iter().filter(due).take(limits::DEMAND_COUNT_MAX);
            let Some((Reverse(priority), _, first)) = ready.next().copied() else { continue };
            let ready = ready.count() + 1;
            demand.push(Demand { group: group.clone(), ready, first, priority });
        }
        demand.sort_by_key(|demand| (Reverse(demand.priority), demand.first));
        demand
    }

    fn claim(&mut self, request: &ClaimRequest) -> Vec<Claim> {
        if let Some(jobs) = self.claims.get(&request.token) {
            return jobs.iter().filter_map(|id| self.claimed(*id, request.token)).collect();
        }
        let mut claims = Vec::new();
        for offer in &request.offers {
            let most = limits::CLAIMS_PER_ROUND_MAX - claims.len();
            for id in self.fitting(offer, request.now, most) {
                claims.extend(self.begin(id, offer, request));
            }
        }
        claims
    }

    /// The jobs that an offer gets.
    fn fitting(&self, offer: &Offer, now: Timestamp, most: usize) -> Vec<JobId> {
        let running = self.running.get(&offer.backend.addr).copied().unwrap_or(0);
        let room = usize::try_from(offer.max_jobs.saturating_sub(running)).unwrap_or(usize::MAX);
        let Some(places) = self.queue.get(&offer.group) else { return Vec::new() };
        let due = |id: &JobId| self.jobs.get(id).is_some_and(|entry| entry.is_due(now));
        places.iter().map(|place| place.2).filter(due).take(offer.slots.min(room).min(most)).collect()
    }

    fn begin(&mut self, id: JobId, offer: &Offer, request: &ClaimRequest) -> Option<Claim> {
        let entry = self.jobs.get_mut(&id)?;
        entry.token = Some(request.token);
        entry.lease_until = request.until;
        entry.released = None;
        entry.progress = 0;
        let (server, backend) = (request.server.clone(), offer.backend.clone());
        let event = JobEvent::Claimed { server: server.clone(), backend: backend.clone() };
        // Only pending jobs are in the queue, and the table lets them be claimed.
        let job = self.apply(id, event, request.now).ok()?;
        let entry = self.jobs.get_mut(&id)?;
        let log_begin = entry.log_len();
        let attempt = JobAttempt::begin(job.attempt, Some(server), Some(backend), request.now);
        entry.attempts.push(JobAttempt { log_begin, ..attempt });
        let surplus = entry.attempts.len().saturating_sub(limits::ATTEMPTS_KEPT_MAX);
        entry.attempts.drain(..surplus);
        self.claimed(id, request.token)
    }

    fn claimed(&self, id: JobId, token: ClaimToken) -> Option<Claim> {
        let entry = self.jobs.get(&id)?;
        let job = Arc::clone(&entry.job);
        let fence = Fence { job: id, attempt: job.attempt, token };
        let log_bytes = entry.attempts.last()?.log_begin;
        Some(Claim { job, fence, log_bytes })
    }

    fn renew(&mut self, server: &ServerId, fence: Fence, until: Timestamp) -> Renewal {
        let Some(entry) = self.jobs.get_mut(&fence.job) else { return Renewal::Lost };
        if entry.check_fence(fence).is_err() || entry.job.server.as_ref() != Some(server) {
            return Renewal::Lost;
        }
        if until > entry.lease_until {
            self.leases.remove(&(entry.lease_until, fence.job));
            entry.lease_until = until;
            self.leases.insert((until, fence.job));
        }
        Renewal::Kept { cancel_requested: entry.job.cancel_requested }
    }

    fn release(&mut self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let entry = self.entry(fence.job)?;
        if entry.is_last(fence) && entry.released.as_ref() == Some(release) {
            return Ok(self.told(entry));
        }
        entry.check_fence(fence)?;
        let cancelled = entry.job.cancel_requested;
        let job = if cancelled {
            self.end(fence.job, Outcome::Cancelled, at)?.job
        } else {
            let Release { error, not_before, counts, avoid } = release.clone();
            self.apply(fence.job, JobEvent::Released { error, not_before, counts, avoid }, at)?
        };
        self.entry_mut(fence.job)?.released = Some(release.clone());
        Ok(job)
    }

    fn finish(&mut self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let entry = self.entry(fence.job)?;
        if entry.is_last(fence) && entry.came_to(outcome) {
            return Ok(Finished { job: Arc::clone(&entry.job), unlocked: 0, skipped: 0 });
        }
        entry.check_fence(fence)?;
        self.end(fence.job, outcome.clone(), at)
    }

    fn expire(&mut self, request: &ExpireRequest) -> Vec<Arc<Job>> {
        let limit = request.limit.min(limits::SETTLED_PER_CALL_MAX);
        let ended = self.leases.iter().take_while(|(until, _)| *until <= request.now).take(limit);
        let ended: Vec<JobId> = ended.map(|(_, id)| *id).collect();
        let mut settled = Vec::new();
        for id in ended {
            let Some(entry) = self.jobs.get(&id) else { continue };
            let message = format!("attempt {} was lost: its lease ended without a word", entry.job.attempt);
            let error = JobError::new(FailureClass::Infrastructure, message);
            let told = if entry.job.cancel_requested {
                self.end(id, Outcome::Cancelled, request.now).map(|finished| finished.job)
            } else if entry.job.counted_attempts >= request.attempts_max {
                self.end(id, Outcome::Failed { error }, request.now).map(|finished| finished.job)
            } else {
                self.apply(id, JobEvent::LeaseLost { error }, request.now)
            };
            // Only running jobs have leases, and the table lets these events happen to them.
            debug_assert!(told.is_ok(), "{told:?}");
            settled.extend(told);
        }
        settled
    }

    fn note_waiting(&mut self, waiting: &GroupWaiting, at: Timestamp) -> Timestamp {
        if !self.queue.contains_key(&waiting.group) {
            return at;
        }
        let (needs_other_backends, text) = (waiting.needs_other_backends, waiting.reason.clone());
        let reason = self.reasons.entry(waiting.group.clone()).or_insert_with(|| Reason {
            text: text.clone(),
            needs_other_backends,
            kind_since: at,
            since: at,
            noted_at: at,
        });
        if reason.needs_other_backends != needs_other_backends {
            (reason.needs_other_backends, reason.kind_since) = (needs_other_backends, at);
        }
        let changed = reason.text != text;
        if changed {
            (reason.text, reason.since) = (text, at);
        }
        reason.noted_at = reason.noted_at.max(at);
        let kind_since = reason.kind_since;
        if changed || kind_since == at {
            let places = self.queue.get(&waiting.group).into_iter().flatten();
            places.filter_map(|place| self.jobs.get(&place.2)).for_each(|entry| notify(&entry.job_hint));
        }
        kind_since
    }

    fn give_up(&mut self, request: &GiveUp) -> usize {
        let places = self.queue.get(&request.group).into_iter().flatten().map(|place| place.2);
        let long = |id: &JobId| {
            let ready_at = self.jobs.get(id).and_then(|entry| entry.job.ready_at);
            ready_at.is_some_and(|ready_at| ready_at <= request.ready_before)
        };
        let jobs: Vec<JobId> = places.filter(long).take(limits::SETTLED_PER_CALL_MAX).collect();
        let outcome = Outcome::Failed { error: request.error.clone() };
        jobs.into_iter().filter(|id| self.end(*id, outcome.clone(), request.at).is_ok()).count()
    }

    fn append(&mut self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        let entry = self.entry_mut(fence.job)?;
        entry.check_fence(fence)?;
        if rows.len() > limits::PROGRESS_ROWS_MAX {
            return Err(Error::invalid(format!("more than {} rows in a call", limits::PROGRESS_ROWS_MAX)));
        }
        let Some(known) = entry.progress.checked_sub(first) else {
            let message = format!("there is no row {first} yet: there are {}", entry.progress);
            return Err(Error::invalid(message).with("job", fence.job));
        };
        let new = rows.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        if let Some(attempt) = entry.attempts.last_mut() {
            new.iter().for_each(|row| attempt.apply(row.progress.clone()));
        }
        entry.progress += u64::try_from(new.len()).unwrap_or(u64::MAX);
        if !new.is_empty() {
            notify(&entry.job_hint);
        }
        Ok(entry.progress)
    }

    fn list(&self, query: &ListQuery) -> JobPage {
        let limit = query.limit.clamp(1, limits::PAGE_ITEMS_MAX);
        let upper = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Unbounded, upper);
        let of_state = query.state.map(|state| &self.by_state[state.index()]);
        let nothing = BTreeSet::new();
        let of_build = query.build.map(|id| self.builds.get(&id).map_or(&nothing, |(_, jobs)| jobs));
        let ids: Box<dyn Iterator<Item = &JobId>> = match (of_build, of_state) {
            (Some(ids), None) | (None, Some(ids)) => Box::new(ids.range(range).rev()),
            (Some(ids), Some(wanted)) => Box::new(ids.range(range).rev().filter(|id| wanted.contains(id))),
            (None, None) => Box::new(self.jobs.range(range).rev().map(|(id, _)| id)),
        };
        let told = ids.take(limit + 1).filter_map(|id| self.jobs.get(id)).map(|entry| self.told(entry));
        let mut jobs: Vec<Arc<Job>> = told.collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        JobPage { jobs, more }
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.spec.size_bytes() + self.log.len()
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.job.not_before.is_none_or(|not_before| not_before <= now)
    }

    fn log_len(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap_or(u64::MAX)
    }

    /// Whether the fence is that of the present or last attempt.
    fn is_last(&self, fence: Fence) -> bool {
        self.job.attempt == fence.attempt && self.token == Some(fence.token)
    }

    fn check_fence(&self, fence: Fence) -> Result<()> {
        if self.job.state == JobState::Running && self.is_last(fence) {
            return Ok(());
        }
        Err(conflict(self.job.id, "the lease on the job is lost"))
    }

    /// Whether the job came to this end.
    fn came_to(&self, outcome: &Outcome) -> bool {
        self.job.state == outcome.state()
            && match outcome {
                Outcome::Succeeded { artifacts, note } => {
                    (&self.job.artifacts, &self.job.note) == (artifacts, note)
                }
                Outcome::Failed { error } => self.job.error.as_ref() == Some(error),
                Outcome::Cancelled => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::job_store as suite;
    use crate::job::JobBackend;
    use crate::job_store::JobStore;

    #[async_trait]
    impl suite::StoreUnderTest for MemoryJobStore {
        async fn handle(&self) -> Arc<dyn JobStore> {
            Arc::new(self.clone())
        }

        async fn reopen(&self) -> Arc<dyn JobStore> {
            Arc::new(self.clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        suite::all(&MemoryJobStore::default()).await;
        let bounds = MemoryBounds { pending: 5, ..MemoryBounds::default() };
        suite::waiting_jobs_are_bounded(&MemoryJobStore::new(bounds), 5).await;
    }

    async fn insert(store: &MemoryJobStore) -> Result<JobId> {
        let submission = Submission::new([suite::new_job("package: {}\n")], suite::START);
        store.submit(&submission).await.map(|told| told.jobs[0])
    }

    async fn finish(store: &MemoryJobStore, id: JobId) {
        store.cancel(Selection::Job(id), Timestamp::UNIX_EPOCH).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_finished_jobs_leave_and_waiting_ones_never() {
        let bounds = MemoryBounds { jobs: 3, pending: 2, ..MemoryBounds::default() };
        let store = MemoryJobStore::new(bounds);
        let first = insert(&store).await.unwrap();
        finish(&store, first).await;
        let second = insert(&store).await.unwrap();
        let third = insert(&store).await.unwrap();
        assert_eq!(insert(&store).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
        finish(&store, third).await;
        let fourth = insert(&store).await.unwrap();
        assert_eq!(store.get(first).await.unwrap_err().kind(), ErrorKind::NotFound);
        for id in [second, fourth] {
            store.get(id).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_log_beyond_its_bound_is_cut_at_a_line_and_says_so_once() {
        let store = MemoryJobStore::new(MemoryBounds { log_bytes: 80, ..MemoryBounds::default() });
        let id = insert(&store).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let group = store.demand(now).await.unwrap().swap_remove(0).group;
        let (addr, arch, labels) = ("tcp://a:1".to_owned(), group.needs.arch, Default::default());
        let offer = Offer { group, backend: JobBackend { addr, arch, labels }, slots: 1, max_jobs: 1 };
        let (token, server, until) = (ClaimToken::new(), ServerId::unique(), Timestamp::MAX);
        let request = ClaimRequest { token, server, offers: vec![offer], now, until };
        let fence = store.claim(&request).await.unwrap()[0].fence;
        for _ in 0..20 {
            let length = store.read_log(id, 0, 0).await.unwrap().len;
            store.append_log(fence, length, Bytes::from_static(b"0123456789\n")).await.unwrap();
        }
        let log = store.read_log(id, 0, usize::MAX).await.unwrap();
        let text = String::from_utf8(log.bytes.to_vec()).unwrap();
        let notice = "[the log is cut here: it reached its bound]\n";
        assert_eq!(text, format!("{}{notice}", "0123456789\n".repeat(3)));
    }
}
