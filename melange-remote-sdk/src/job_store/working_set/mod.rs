//! The rules of the contract, applied to jobs that are in memory: what a store of one's own may be made of.
//!
//! A [`WorkingSet`] reads no clock and draws no numbers: the same calls in the same order give the same answers. So a
//! store that keeps the calls, or what they changed, keeps the contract (`examples/05_custom_job_store.rs`). Those of
//! this crate put the jobs into it that a call is about, and write down what it changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Claim, ClaimRequest, Demand, ExpireRequest, Fence, Finished, GiveUp, Group, GroupWaiting, JobPage,
    ListQuery, NewJob, Offer, Release, Renewal, Selection, Submission, Submitted,
};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    BackendLoad, Build, BuildId, BuildState, ClaimToken, Event, FailureClass, Job, JobAttempt, JobError,
    JobEvent, JobId, JobSpec, JobState, Outcome, Priority, ProgressRow, Project, ServerId, StateCounts,
    Waiting,
};
use crate::limits;

mod answers;
mod entry;
mod graph;
mod log;
mod queue;
mod retention;

pub(super) use log::{check_room, forgotten, joined, no_room};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use log::{is_unarchived, note_archive};
pub(super) use retention::Ended;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use retention::{artifact_bytes, check_sources, note_log_removed, took};

/// The bounds of a working set.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Bounds {
    /// Jobs kept.
    pub jobs: usize,
    /// Jobs that may wait.
    pub pending: usize,
    /// Bytes of texts and logs kept.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let (jobs, pending) = (limits::MEMORY_JOBS_MAX, limits::PENDING_JOBS_MAX);
        Self { jobs, pending, bytes: limits::MEMORY_STORE_BYTES_MAX }
    }
}

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// These jobs, or what their attempts tell.
    pub jobs: BTreeSet<JobId>,
    /// The logs of these jobs: they grew, or will not grow any more.
    pub logs: BTreeSet<JobId>,
    /// These jobs are gone.
    pub forgotten: Vec<JobId>,
    /// A job may be claimable that was not before.
    pub queue: bool,
    /// A running job was asked to stop.
    pub cancellations: bool,
    /// The fleet.
    pub backends: bool,
    /// What happened, in order; the store gives the numbers.
    pub events: Vec<Event>,
}

/// The place of a job in the queue of its group.
pub(super) type Place = (Reverse<Priority>, Reverse<i64>, JobId);

/// Jobs with all that is needed to change them by the rules of the contract: all jobs of a store that lives in memory, or
/// those that a call to another store is about.
#[derive(Debug)]
pub struct WorkingSet {
    pub(super) bounds: Bounds,
    pub(super) jobs: BTreeMap<JobId, Entry>,
    pub(super) by_state: [BTreeSet<JobId>; JobState::ALL.len()],
    /// Pending jobs, those that pause included.
    pub(super) queue: BTreeMap<Group, BTreeSet<Place>>,
    pub(super) reasons: HashMap<Group, Reason>,
    /// Ends of leases.
    pub(super) leases: BTreeSet<(Timestamp, JobId)>,
    /// Running jobs by the claim that began their attempts, in the order of its answer.
    pub(super) claims: HashMap<ClaimToken, Vec<JobId>>,
    /// How many jobs run on a backend.
    pub(super) running: HashMap<String, BackendLoad>,
    pub(super) submissions: HashMap<u64, Known>,
    pub(super) submitted: u64,
    /// The submissions by what was asked.
    pub(super) contents: BTreeSet<([u8; 32], u64)>,
    pub(super) keys: HashMap<(Project, String), u64>,
    pub(super) builds: BTreeMap<BuildId, (Build, BTreeSet<JobId>)>,
    /// Jobs in the order in which they finished.
    pub(super) finished: BTreeSet<(u64, JobId)>,
    /// The same by their times.
    pub(super) ended: Ended,
    /// How often a job finished so far.
    pub(super) finishes: u64,
    /// Bytes of the jobs that finished.
    pub(super) finished_bytes: usize,
    /// Tokens of claims, until the leases end that they asked for.
    pub(super) tokens: HashMap<ClaimToken, Timestamp>,
    /// At so many tokens those that are over are dropped.
    pub(super) tokens_swept_at: usize,
    /// How many jobs of a project run.
    pub(super) running_of: HashMap<Project, usize>,
    pub(super) bytes: usize,
    /// What changed since it was last asked.
    pub(super) changes: Changes,
}

/// A submission of which jobs are left.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) key: Option<(Project, String)>,
    pub(super) content: [u8; 32],
    pub(super) jobs: Vec<JobId>,
    pub(super) build: Option<BuildId>,
    pub(super) left: usize,
}

/// Why a group waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reason {
    pub(super) text: String,
    pub(super) needs_other_backends: bool,
    /// Since when `needs_other_backends` has its value.
    pub(super) kind_since: Timestamp,
    /// Since when the text is the same.
    pub(super) since: Timestamp,
    pub(super) noted_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Arc<Job>,
    /// What was asked; stores that keep it elsewhere leave it out.
    pub(super) spec: Option<Arc<JobSpec>>,
    pub(super) submission: u64,
    pub(super) waits_for: Vec<JobId>,
    /// The jobs that wait for it; none any more once it succeeded.
    pub(super) dependents: Vec<JobId>,
    /// How many of the jobs that it waits for were removed without having succeeded.
    pub(super) lost_needs: u32,
    /// Its place among those that finished.
    pub(super) finished: u64,
    /// The claim of the present or last attempt.
    pub(super) token: Option<ClaimToken>,
    /// Its place among the jobs of that claim.
    pub(super) place: usize,
    pub(super) lease_until: Timestamp,
    /// How the last attempt gave the job back, so that the same call may be repeated.
    pub(super) released: Option<Release>,
    /// The present one is the last of them.
    pub(super) attempts: Vec<JobAttempt>,
    pub(super) progress: u64,
    /// How long its log is.
    pub(super) log_bytes: u64,
    /// How many bytes of it were forgotten.
    pub(super) forgotten_bytes: u64,
}

impl WorkingSet {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
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
            contents: BTreeSet::new(),
            keys: HashMap::new(),
            builds: BTreeMap::new(),
            finished: BTreeSet::new(),
            ended: Ended::default(),
            finishes: 0,
            finished_bytes: 0,
            tokens: HashMap::new(),
            tokens_swept_at: 0,
            running_of: HashMap::new(),
            bytes: 0,
            changes: Changes::default(),
        }
    }
}

pub(super) fn not_found(id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such job").with("job", id)
}

pub(super) fn no_build(id: BuildId) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such build").with("build", id)
}

pub(super) fn no_attempt(id: JobId, number: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("the job has no attempt {number}")).with("job", id)
}

/// That a renewal asks for no more than it may.
pub(super) fn check_leases(fences: &[Fence]) -> Result<()> {
    let most = limits::LEASES_PER_CALL_MAX;
    if fences.len() > most {
        return Err(Error::invalid(format!("more than {most} leases in a call")));
    }
    Ok(())
}

pub(super) fn conflict(id: JobId, message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with("job", id)
}

/// Whether a job succeeded with the files of another one.
fn is_reused(job: &Job) -> bool {
    job.state == JobState::Success && job.reused.is_some()
}

pub(super) fn place(job: &Job) -> Place {
    (Reverse(job.priority), Reverse(job.rank), job.id)
}

impl WorkingSet {
    pub(super) fn entry(&self, id: JobId) -> Result<&Entry> {
        self.jobs.get(&id).ok_or_else(|| not_found(id))
    }

    pub(super) fn entry_mut(&mut self, id: JobId) -> Result<&mut Entry> {
        self.jobs.get_mut(&id).ok_or_else(|| not_found(id))
    }

    /// The jobs of a selection, oldest first.
    pub(super) fn selected(&self, selection: Selection) -> Result<Vec<JobId>> {
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
    pub(super) fn apply(&mut self, id: JobId, mut event: JobEvent, at: Timestamp) -> Result<Arc<Job>> {
        let build_before = self.build_state_of(id);
        let entry = self.entry_mut(id)?;
        let before = Arc::clone(&entry.job);
        let failure = event.take_failure();
        let end = event.end_of_attempt().map(|(outcome, counts, error)| (outcome, counts, error.cloned()));
        Arc::make_mut(&mut entry.job).apply(event, at)?;
        let mut happened = Vec::new();
        if before.state == JobState::Running
            && let Some(end) = end
        {
            let attempt = entry.end_attempt(end, failure, at);
            happened.extend(attempt.map(|attempt| Event::job_attempt(&before, attempt, at)));
        }
        let job = Arc::clone(&entry.job);
        if before.state != job.state {
            happened.push(Event::job_state(&job, at));
        } else if job.cancel_requested && !before.cancel_requested {
            happened.push(Event::job_cancel_requested(&job, at));
        }
        self.changes.events.append(&mut happened);
        self.changes.jobs.insert(id);
        if before.state != job.state {
            self.changes.logs.insert(id);
            self.leave(&before);
            self.enter(&job, at);
            self.note_build(id, build_before, at);
        }
        Ok(job)
    }

    /// The state of the build of a job.
    fn build_state_of(&self, id: JobId) -> Option<BuildState> {
        let build = self.jobs.get(&id)?.job.build?;
        self.builds.get(&build).map(|(build, _)| build.state())
    }

    /// Tells of the build of a job when its state is no longer this one.
    pub(super) fn note_build(&mut self, id: JobId, before: Option<BuildState>, at: Timestamp) {
        let build = self.jobs.get(&id).and_then(|entry| entry.job.build);
        if let Some((build, _)) = build.and_then(|build| self.builds.get(&build))
            && Some(build.state()) != before
        {
            self.changes.events.push(Event::build_state(build, at));
        }
    }

    /// Takes a job out of the indexes of its state.
    pub(super) fn leave(&mut self, job: &Job) {
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
                if let Some(count) = self.running_of.get_mut(&job.project) {
                    *count -= 1;
                    if *count == 0 {
                        self.running_of.remove(&job.project);
                    }
                }
                if let Some(backend) = &job.backend
                    && let Some(load) = self.running.get_mut(&backend.key())
                {
                    load.take(job.resources());
                    if load.jobs == 0 {
                        self.running.remove(&backend.key());
                    }
                }
            }
            state if state.is_terminal() => {
                let Some(entry) = self.jobs.get(&job.id) else { return };
                self.finished.remove(&(entry.finished, job.id));
                self.ended.take(job);
                self.finished_bytes = self.finished_bytes.saturating_sub(entry.size());
            }
            _ => {}
        }
        if let Some((build, _)) = job.build.and_then(|id| self.builds.get_mut(&id)) {
            build.counts.take(job.state);
            build.reused -= u32::from(is_reused(job) && build.reused > 0);
        }
    }

    /// Takes a job in that another store keeps.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn adopt(&mut self, entry: Entry) {
        let (job, queue) = (Arc::clone(&entry.job), self.changes.queue);
        self.jobs.insert(job.id, entry);
        self.index(&job);
        // That it is loaded is no change.
        self.changes.queue = queue;
    }

    /// Puts a job into the indexes of its state, and counts it.
    pub(super) fn enter(&mut self, job: &Job, at: Timestamp) {
        self.index(job);
        if let Some((build, _)) = job.build.and_then(|id| self.builds.get_mut(&id)) {
            build.counts.add(job.state);
            build.reused = build.reused.saturating_add(u32::from(is_reused(job)));
            build.finished_at = build.is_finished().then_some(at);
        }
    }

    fn index(&mut self, job: &Job) {
        self.by_state[job.state.index()].insert(job.id);
        match job.state {
            JobState::Pending => {
                self.queue.entry(Group::of(job)).or_default().insert(place(job));
                self.changes.queue = true;
            }
            JobState::Running => {
                let Some(entry) = self.jobs.get(&job.id) else { return };
                self.leases.insert((entry.lease_until, job.id));
                if let Some(token) = entry.token {
                    self.claims.entry(token).or_default().push(job.id);
                }
                *self.running_of.entry(job.project.clone()).or_default() += 1;
                if let Some(backend) = &job.backend {
                    self.running.entry(backend.key()).or_default().add(job.resources());
                }
            }
            state if state.is_terminal() => {
                let Some(entry) = self.jobs.get_mut(&job.id) else { return };
                self.finishes += 1;
                entry.finished = self.finishes;
                self.finished.insert((entry.finished, job.id));
                self.ended.add(job);
                self.finished_bytes = self.finished_bytes.saturating_add(entry.size());
            }
            _ => {}
        }
    }

    pub(super) fn unqueue(&mut self, job: &Job) {
        let group = Group::of(job);
        if let Some(places) = self.queue.get_mut(&group) {
            places.remove(&place(job));
            if places.is_empty() {
                self.queue.remove(&group);
                self.reasons.remove(&group);
            }
        }
    }

    /// Forgets what finished first, but for the jobs to keep, until `more` bytes and so many more jobs fit. Forgets
    /// nothing when that is not enough; returns whether they fit.
    pub(super) fn make_room(&mut self, more: usize, jobs: usize, keep: &HashSet<JobId>) -> bool {
        let bytes = self.bytes.saturating_sub(self.finished_bytes).saturating_add(more);
        let count = self.jobs.len().saturating_sub(self.finished.len()).saturating_add(jobs);
        if bytes > self.bounds.bytes || count > self.bounds.jobs {
            return false;
        }
        let fits = |set: &Self| {
            set.bytes.saturating_add(more) <= set.bounds.bytes
                && set.jobs.len().saturating_add(jobs) <= set.bounds.jobs
        };
        let mut from = 0;
        while !fits(self) {
            let mut left = self.finished.iter().skip_while(|place| place.0 < from);
            let Some(&(finished, id)) = left.find(|(_, id)| !keep.contains(id)) else { return false };
            self.forget(id);
            from = finished;
        }
        true
    }

    /// Drops a finished job from every index.
    pub(super) fn forget(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).map(|entry| Arc::clone(&entry.job)) else { return };
        self.leave(&job);
        let Some(entry) = self.jobs.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(entry.size());
        for need in &entry.waits_for {
            if let Some(need) = self.jobs.get_mut(need) {
                need.dependents.retain(|dependent| *dependent != id);
            }
        }
        // Of a job that came to a bad end what waits for it has lost a need.
        let lost = if job.state == JobState::Success { &[][..] } else { &entry.dependents };
        for dependent in lost {
            if let Some(dependent) = self.jobs.get_mut(dependent) {
                dependent.lost_needs += 1;
                self.changes.jobs.insert(dependent.job.id);
            }
        }
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
            {
                self.contents.remove(&(known.content, entry.submission));
                if let Some(key) = known.key {
                    self.keys.remove(&key);
                }
            }
        }
        self.changes.forgotten.push(id);
    }

    /// Whether so many more jobs may wait.
    pub(super) fn check_waiting(&self, more: usize) -> Result<()> {
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
    pub(super) fn told(&self, entry: &Entry) -> Arc<Job> {
        let job = &entry.job;
        let reason = (job.state == JobState::Pending).then(|| self.reasons.get(&Group::of(job))).flatten();
        reason.map_or_else(|| Arc::clone(job), |reason| reason.told(job))
    }

    /// As [`JobQueue::demand`](super::JobQueue::demand).
    pub fn demand(&self, now: Timestamp) -> Vec<Demand> {
        let due = |place: &&Place| self.jobs.get(&place.2).is_some_and(|entry| entry.is_due(now));
        let mut demand: Vec<Demand> = Vec::new();
        for (group, places) in &self.queue {
            let mut ready = places.iter().filter(due).take(limits::DEMAND_COUNT_MAX);
            let Some((Reverse(priority), Reverse(rank), first)) = ready.next().copied() else { continue };
            let ready = ready.count() + 1;
            let running = self.running_of.get(&group.project).copied().unwrap_or(0);
            demand.push(Demand { group: group.clone(), ready, first, priority, rank, running });
        }
        demand.sort_by_key(|demand| (Reverse(demand.priority), demand.first));
        demand.truncate(limits::DEMAND_GROUPS_MAX);
        demand
    }

    /// As [`JobQueue::claim`](super::JobQueue::claim).
    pub fn claim(&mut self, request: &ClaimRequest) -> Vec<Claim> {
        if self.tokens.len() >= self.tokens_swept_at {
            self.tokens.retain(|_, until| *until > request.now);
            self.tokens_swept_at = self.tokens.len().saturating_mul(2).max(1_024);
        }
        if request.until <= request.now {
            return Vec::new();
        }
        let used = self.tokens.insert(request.token, request.until).is_some();
        if used || self.claims.contains_key(&request.token) {
            let jobs = self.claims.get(&request.token).cloned().unwrap_or_default();
            jobs.iter().for_each(|id| self.extend_lease(*id, request.until));
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
    pub(super) fn fitting(&self, offer: &Offer, now: Timestamp, most: usize) -> Vec<JobId> {
        let running = self.running.get(&offer.backend.key()).copied().unwrap_or_default();
        let slots = offer.max_jobs.saturating_sub(running.jobs);
        let room = slots.min(offer.capacity.room(running.used, offer.group.needs.resources));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let Some(places) = self.queue.get(&offer.group) else { return Vec::new() };
        let due = |id: &JobId| self.jobs.get(id).is_some_and(|entry| entry.is_due(now));
        places.iter().map(|place| place.2).filter(due).take(offer.slots.min(room).min(most)).collect()
    }

    pub(super) fn begin(&mut self, id: JobId, offer: &Offer, request: &ClaimRequest) -> Option<Claim> {
        let place = self.claims.get(&request.token).map_or(0, Vec::len);
        let entry = self.jobs.get_mut(&id)?;
        // Nobody could build it.
        entry.spec.as_ref()?;
        entry.token = Some(request.token);
        entry.place = place;
        entry.lease_until = request.until;
        entry.released = None;
        entry.progress = 0;
        let (server, backend) = (request.server.clone(), offer.backend.clone());
        let event = JobEvent::Claimed { server: server.clone(), backend: backend.clone() };
        // Whoever claims looked at his clock before the job became ready, perhaps; nothing begins before what it waits for
        // has ended.
        let at = entry.job.ready_at.map_or(request.now, |ready_at| ready_at.max(request.now));
        // Only pending jobs are in the queue, and the table lets them be claimed.
        let job = self.apply(id, event, at).ok()?;
        let entry = self.jobs.get_mut(&id)?;
        let log_begin = entry.log_bytes;
        let attempt = JobAttempt::begin(job.attempt, Some(server), Some(backend), at);
        entry.attempts.push(JobAttempt { log_begin, ..attempt });
        let surplus = entry.attempts.len().saturating_sub(limits::ATTEMPTS_KEPT_MAX);
        entry.attempts.drain(..surplus);
        self.claimed(id, request.token)
    }

    pub(super) fn claimed(&self, id: JobId, token: ClaimToken) -> Option<Claim> {
        let entry = self.jobs.get(&id)?;
        let job = Arc::clone(&entry.job);
        let fence = Fence { job: id, attempt: job.attempt, token };
        let log_bytes = entry.attempts.last()?.log_begin;
        Some(Claim { job, fence, log_bytes, spec: entry.spec.clone()? })
    }

    /// Moves the end of a lease, never back.
    fn extend_lease(&mut self, id: JobId, until: Timestamp) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        if until > entry.lease_until {
            self.leases.remove(&(entry.lease_until, id));
            entry.lease_until = until;
            self.leases.insert((until, id));
        }
    }

    /// Moves the end of one lease; see [`Self::renew_all`].
    pub fn renew(&mut self, server: &ServerId, fence: Fence, until: Timestamp) -> Renewal {
        let Some(entry) = self.jobs.get(&fence.job) else { return Renewal::Lost };
        if entry.check_fence(fence).is_err() || entry.job.server.as_ref() != Some(server) {
            return Renewal::Lost;
        }
        let cancel_requested = entry.job.cancel_requested;
        self.extend_lease(fence.job, until);
        Renewal::Kept { cancel_requested }
    }

    /// As [`JobQueue::release`](super::JobQueue::release).
    ///
    /// # Errors
    /// As there.
    pub fn release(&mut self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let entry = self.entry(fence.job)?;
        if entry.is_last(fence) && entry.released.as_ref() == Some(release) {
            return Ok(self.told(entry));
        }
        entry.check_fence(fence)?;
        let cancelled = entry.job.cancel_requested;
        let job = if cancelled {
            self.end(fence.job, Outcome::Cancelled, at)?.job
        } else {
            let Release { error, not_before, counts, avoid, memory_bytes } = release.clone();
            self.apply(fence.job, JobEvent::Released { error, not_before, counts, avoid, memory_bytes }, at)?
        };
        self.entry_mut(fence.job)?.released = Some(release.clone());
        Ok(job)
    }

    /// As [`JobQueue::finish`](super::JobQueue::finish).
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let entry = self.entry(fence.job)?;
        if entry.is_last(fence) && entry.came_to(outcome) {
            return Ok(Finished { job: Arc::clone(&entry.job), unlocked: 0, skipped: 0 });
        }
        entry.check_fence(fence)?;
        self.end(fence.job, outcome.clone(), at)
    }

    /// As [`JobQueue::expire`](super::JobQueue::expire).
    pub fn expire(&mut self, request: &ExpireRequest) -> Vec<Arc<Job>> {
        let limit = request.limit.min(limits::SETTLED_PER_CALL_MAX);
        let ended = self.leases.iter().take_while(|(until, _)| *until <= request.now).take(limit);
        let ended: Vec<JobId> = ended.map(|(_, id)| *id).collect();
        let mut settled = Vec::new();
        for id in ended {
            let Some(entry) = self.jobs.get(&id) else { continue };
            let error = entry::lost_lease(entry.job.attempt);
            let told = if entry.job.cancel_requested {
                self.end(id, Outcome::Cancelled, request.now).map(|finished| finished.job)
            } else if request.patience.is_over(&entry.job, request.now) {
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

    /// Notes why a group waits; since when it has needed other backends, or has waited for time alone.
    pub fn note_waiting(&mut self, waiting: &GroupWaiting, at: Timestamp) -> Timestamp {
        if !self.queue.contains_key(&waiting.group) {
            return at;
        }
        let new = !self.reasons.contains_key(&waiting.group);
        let reason = self.reasons.entry(waiting.group.clone()).or_insert_with(|| Reason::new(waiting, at));
        let changed = reason.note(waiting, at) || new;
        let kind_since = reason.kind_since;
        if changed {
            let places = self.queue.get(&waiting.group).into_iter().flatten();
            self.changes.jobs.extend(places.map(|place| place.2));
        }
        kind_since
    }

    /// As [`JobQueue::give_up`](super::JobQueue::give_up).
    pub fn give_up(&mut self, request: &GiveUp) -> usize {
        let places = self.queue.get(&request.group).into_iter().flatten().map(|place| place.2);
        let long = |id: &JobId| {
            let ready_at = self.jobs.get(id).and_then(|entry| entry.job.ready_at);
            ready_at.is_some_and(|ready_at| ready_at <= request.ready_before)
        };
        let jobs: Vec<JobId> = places.filter(long).take(limits::SETTLED_PER_CALL_MAX).collect();
        let outcome = Outcome::Failed { error: request.error.clone() };
        jobs.into_iter().filter(|id| self.end(*id, outcome.clone(), request.at).is_ok()).count()
    }
}
