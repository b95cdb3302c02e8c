//! Job stores with one mistake each: wrappers of the store in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::Verdict;
use crate::arch::Arch;
use crate::conformance::job_store::{StoreUnderTest, all, waiting_jobs_are_bounded};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    AttemptOutcome, Build, BuildId, ClaimToken, Job, JobAttempt, JobId, JobSpec, JobState, LogArchive,
    Outcome, Priority, ProgressRow, Project, ResultDigest, ServerId, SourceDigest, StateCounts,
    UncheckedSpec,
};
use crate::job_store::forward::{Forward, ForwardJobStore};
use crate::job_store::memory::{MemoryBounds, MemoryJobStore};
use crate::job_store::{
    BuildPage, BuildQuery, Claim, ClaimRequest, Demand, EndedJob, EndedQuery, EventPage, EventQuery,
    ExpireRequest, Fence, Finished, GiveUp, Group, GroupWaiting, Holding, JobIntake, JobPage, JobProgress,
    JobQueue, JobReading, JobStore, ListQuery, LogChunk, NewJob, Offer, PackageDuration, Patience,
    QueueSummary, Release, Renewal, Selection, Subject, Submission, Submitted, Usage,
};
use crate::limits;

mod bugs;
mod calls;
mod listing;
mod progress;
mod retention;

use bugs::{BUGS, Bug};

/// Takes something away from a job.
type Loss = fn(&mut Job);

/// Takes something away from an attempt.
type AttemptLoss = fn(&mut JobAttempt);

/// Takes something away from what is told of an ended job.
type EndedLoss = fn(&mut EndedJob);

/// Waiting jobs of the store whose bound is tried.
const PENDING: usize = 4;

/// Tries the suite on the sound store, then on every mutant.
pub async fn run() -> Verdict {
    all(&Mutants::new(Bug::None)).await;
    let mut verdict = Verdict::new("JobStore");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(&Mutants::new(*bug))).await;
    }
    let bounded = |pending| MemoryJobStore::new(MemoryBounds { pending, ..MemoryBounds::default() });
    waiting_jobs_are_bounded(&bounded(PENDING), PENDING).await;
    for (name, pending) in [("any number may wait", usize::MAX), ("one too many may wait", PENDING + 1)] {
        verdict.try_on(name, waiting_jobs_are_bounded(&bounded(pending), PENDING)).await;
    }
    verdict
}

/// What each mistake is called.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUGS.iter().map(|(name, _)| *name)
}

/// A store with the mistake of this name.
pub fn named(name: &str) -> Option<Arc<dyn StoreUnderTest>> {
    let (_, bug) = BUGS.iter().find(|(known, _)| *known == name)?;
    Some(Arc::new(Mutants::new(*bug)))
}

/// What the suite says of the store with the mistake of this name; `None` when it lets it pass.
pub async fn caught(name: &str) -> Option<String> {
    let (name, bug) = BUGS.iter().find(|(known, _)| *known == name)?;
    let mut verdict = Verdict::new("JobStore");
    verdict.try_on(name, all(&Mutants::new(*bug))).await;
    verdict.caught.pop().map(|(_, told)| told)
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

    fn inner(&self) -> MutexGuard<'_, MemoryJobStore> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mutant(&self) -> Arc<dyn JobStore> {
        let (bug, inner, notes) = (self.bug, self.inner().clone(), Arc::clone(&self.notes));
        let reopened = self.reopened.load(Ordering::Relaxed);
        Arc::new(Forward(Mutant { bug, inner, notes, reopened }))
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
            *self.inner() = MemoryJobStore::default();
        }
        if matches!(self.bug, Bug::RestartLosesLeases) {
            let (store, limit) = (self.inner().clone(), limits::SETTLED_PER_CALL_MAX);
            let every = ExpireRequest { now: Timestamp::MAX, patience: Patience::ENDLESS, limit };
            store.expire(&every).await.expect("the store in memory answers");
        }
        self.mutant()
    }
}

/// What the mistakes of a store share between its handles.
#[derive(Debug, Default)]
struct Notes {
    /// The latest claim of each job.
    claims: BTreeMap<JobId, Claim>,
    /// What each submission with a key came to, and its content.
    keys: HashMap<(Option<Project>, String), Submitted>,
    reserved: HashSet<String>,
    waits_for: HashMap<JobId, Vec<JobId>>,
    /// Jobs in the middle of a call that does its work in two parts.
    halfway: HashSet<JobId>,
    /// Jobs that are shown in another state than theirs.
    shown: HashMap<JobId, JobState>,
    removed: HashSet<JobId>,
    logs: HashMap<JobId, LogChunk>,
    builds: HashMap<BuildId, Build>,
    /// How many attempts were erased.
    erased: HashMap<JobId, usize>,
    /// When it was last said that something of a job was removed.
    noted: HashMap<JobId, Timestamp>,
    /// Bytes of artifacts that were removed.
    removed_bytes: u64,
    /// Attempts whose logs were removed before they were archived.
    unarchived: Vec<(JobId, u32)>,
    /// How many rows each attempt has.
    rows: HashMap<Fence, u64>,
}

/// A handle of a store with a mistake.
#[derive(Debug)]
struct Mutant {
    bug: Bug,
    inner: MemoryJobStore,
    notes: Arc<Mutex<Notes>>,
    reopened: bool,
}

fn lost(job: &Arc<Job>, loss: Loss) -> Arc<Job> {
    let mut job = Job::clone(job);
    loss(&mut job);
    Arc::new(job)
}

fn shown(job: &Arc<Job>, state: JobState) -> Arc<Job> {
    Arc::new(Job { state, ..Job::clone(job) })
}

fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, what)
}

impl Mutant {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self, fence: Fence) -> Fence {
        self.notes().claims.get(&fence.job).map_or(fence, |claim| claim.fence)
    }

    /// Does something while others see only a part of it.
    async fn halfway(&self, jobs: impl IntoIterator<Item = JobId>) {
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        self.notes().halfway.extend(&jobs);
        yield_now().await;
        let mut notes = self.notes();
        jobs.iter().for_each(|id| _ = notes.halfway.remove(id));
    }

    fn dependents(&self, id: JobId) -> Vec<JobId> {
        let notes = self.notes();
        let waiting = notes.waits_for.iter().filter(|(_, needs)| needs.contains(&id));
        waiting.map(|(waiting, _)| *waiting).collect()
    }

    /// What the mistake makes of a job that is read.
    fn read(&self, job: &Arc<Job>) -> Arc<Job> {
        let notes = self.notes();
        if let Some(state) = notes.shown.get(&job.id) {
            return shown(job, *state);
        }
        let needs = notes.waits_for.get(&job.id).cloned().unwrap_or_default();
        let halfway = notes.halfway.contains(&job.id);
        let noted = notes.noted.get(&job.id).copied();
        match self.bug {
            Bug::NoteRemovedAgain if job.artifacts_removed_at.is_some() => {
                Arc::new(Job { artifacts_removed_at: noted, ..Job::clone(job) })
            }
            Bug::RetryKeepsRemoved => Arc::new(Job { log_removed_at: noted, ..Job::clone(job) }),
            Bug::RestartLoses(loss) if self.reopened => lost(job, loss),
            Bug::FinishWritesArtifactsLater if halfway => lost(job, |job| job.artifacts.clear()),
            Bug::FinishUnlocksLater if halfway => shown(job, JobState::Blocked),
            Bug::SubmitBlocksForEver
                if job.state == JobState::Skipped && job.finished_at == Some(job.created_at) =>
            {
                shown(job, JobState::Blocked)
            }
            Bug::SkipsNextOnly if job.skipped_for.is_some_and(|cause| !needs.contains(&cause)) => {
                shown(job, JobState::Blocked)
            }
            Bug::SkipTellsLastLink if job.skipped_for.is_some() => {
                let last = needs.last().copied();
                Arc::new(Job { skipped_for: last, ..Job::clone(job) })
            }
            _ => Arc::clone(job),
        }
    }
}

#[async_trait]
impl ForwardJobStore for Mutant {
    fn inner(&self) -> &dyn JobStore {
        &self.inner
    }

    async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        self.submit_with_bug(submission).await
    }

    async fn cancel(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        match (self.bug, selection) {
            (Bug::CancelTakesFinished, Selection::Job(_)) => match self.inner.cancel(selection, at).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(0),
                told => told,
            },
            (Bug::CancelIsLost, Selection::Job(id)) => match self.inner.get(id).await?.state {
                JobState::Running => Ok(1),
                _ => self.inner.cancel(selection, at).await,
            },
            (Bug::CancelSkipsTheBuild, Selection::Build(build)) => {
                let query = ListQuery::newest(limits::PAGE_ITEMS_MAX).of_build(build);
                let mut changed = self.inner.build(build).await.map(|_| 0)?;
                for job in self.inner.list(&query).await?.jobs.iter().rev() {
                    changed += self.inner.cancel(Selection::Job(job.id), at).await.unwrap_or(0);
                }
                Ok(changed)
            }
            _ => self.inner.cancel(selection, at).await,
        }
    }

    async fn retry(&self, selection: Selection, at: Timestamp) -> Result<usize> {
        match (self.bug, selection) {
            (Bug::RetryTakesSuccess | Bug::RetryIgnoresCauses, Selection::Job(id)) => {
                let state = self.inner.get(id).await?.state;
                let wrong = matches!(
                    (self.bug, state),
                    (Bug::RetryTakesSuccess, JobState::Success)
                        | (Bug::RetryIgnoresCauses, JobState::Skipped)
                );
                match self.inner.retry(selection, at).await {
                    Err(error) if wrong && error.kind() == ErrorKind::Conflict => Ok(1),
                    told => told,
                }
            }
            (Bug::RetryErases, Selection::Job(id)) => {
                let told = self.inner.retry(selection, at).await?;
                if told > 0 {
                    let erased = self.inner.attempts(id).await?.len();
                    self.notes().erased.insert(id, erased);
                }
                Ok(told)
            }
            (Bug::RetryForgetsSkipped, _) => {
                let skipped = self.in_state(JobState::Skipped).await;
                let told = self.inner.retry(selection, at).await?;
                let mut left = told;
                for job in skipped {
                    if self.inner.get(job.id).await?.state == JobState::Blocked {
                        self.notes().shown.insert(job.id, JobState::Skipped);
                        left -= 1;
                    }
                }
                Ok(left)
            }
            _ => self.inner.retry(selection, at).await,
        }
    }

    async fn set_priority(&self, selection: Selection, priority: Priority) -> Result<usize> {
        match (self.bug, selection) {
            (Bug::PriorityIsNotSet, Selection::Job(id)) => self.inner.get(id).await.map(|_| 1),
            _ => self.inner.set_priority(selection, priority).await,
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
                let of_job = notes.keys.iter().filter(|(_, told)| told.jobs.contains(&id));
                let keys: Vec<String> = of_job.map(|((_, key), _)| key.clone()).collect();
                notes.reserved.extend(keys);
                return Ok(());
            }
            Bug::RemoveKeepsBuild => {
                if let Some(build) = job.build {
                    let build = self.inner.build(build).await?;
                    self.inner.remove(id).await?;
                    self.notes().builds.insert(build.id, build);
                    return Ok(());
                }
            }
            Bug::RemoveDropsLogFirst if job.state.is_terminal() => {
                self.notes().halfway.insert(id);
                yield_now().await;
            }
            _ => {}
        }
        self.inner.remove(id).await
    }

    async fn demand(&self, now: Timestamp) -> Result<Vec<Demand>> {
        if matches!(self.bug, Bug::DemandSettles) {
            let limit = limits::SETTLED_PER_CALL_MAX;
            self.inner.expire(&ExpireRequest { now, patience: Patience::ENDLESS, limit }).await?;
        }
        let now = if matches!(self.bug, Bug::DemandIgnoresPause) { Timestamp::MAX } else { now };
        let mut demand = self.inner.demand(now).await?;
        match self.bug {
            Bug::DemandIsBackwards => demand.reverse(),
            Bug::DemandForgetsRunning => demand.iter_mut().for_each(|demand| demand.running = 0),
            Bug::DemandCountsOne => demand.iter_mut().for_each(|demand| demand.ready = 1),
            _ => {}
        }
        Ok(demand)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut claims = self.claim_with_bug(request).await?;
        match self.bug {
            Bug::ClaimIsBackwards => claims.reverse(),
            Bug::ClaimForgetsLog => claims.iter_mut().for_each(|claim| claim.log_bytes = 0),
            _ => {}
        }
        let mut notes = self.notes();
        for claim in &claims {
            notes.claims.insert(claim.job.id, claim.clone());
        }
        Ok(claims)
    }

    async fn renew(&self, server: &ServerId, fences: &[Fence], until: Timestamp) -> Result<Vec<Renewal>> {
        let mut answers = Vec::new();
        match self.bug {
            Bug::RenewIgnoresBound => {
                for part in fences.chunks(limits::LEASES_PER_CALL_MAX) {
                    answers.extend(self.inner.renew(server, part, until).await?);
                }
            }
            Bug::RenewDoesNothing => answers = self.inner.renew(server, fences, Timestamp::MIN).await?,
            Bug::RenewIgnoresServer => {
                for fence in fences {
                    let owner = self.inner.get(fence.job).await.ok().and_then(|job| job.server.clone());
                    let owner = owner.unwrap_or_else(|| server.clone());
                    answers.extend(self.inner.renew(&owner, &[*fence], until).await?);
                }
            }
            _ => answers = self.inner.renew(server, fences, until).await?,
        }
        for (fence, answer) in fences.iter().zip(&mut answers) {
            let state = self.inner.get(fence.job).await.map(|job| job.state);
            match (self.bug, state) {
                (Bug::RenewKeepsCancelToItself, _) if *answer != Renewal::Lost => {
                    *answer = Renewal::Kept { cancel_requested: false };
                }
                (Bug::RenewRevives, Ok(JobState::Pending))
                | (Bug::RenewIgnoresFence, Ok(JobState::Running)) => {
                    *answer = Renewal::Kept { cancel_requested: false };
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn cancel_requests(&self, server: &ServerId) -> Result<Vec<Fence>> {
        match self.bug {
            Bug::CancelIsKeptFromOwner => Ok(Vec::new()),
            Bug::CancelIsToldToAll => {
                let running = self.in_state(JobState::Running).await;
                let notes = self.notes();
                let asked = running.iter().filter(|job| job.cancel_requested);
                Ok(asked.filter_map(|job| notes.claims.get(&job.id)).map(|claim| claim.fence).collect())
            }
            _ => self.inner.cancel_requests(server).await,
        }
    }

    async fn release(&self, fence: Fence, release: &Release, at: Timestamp) -> Result<Arc<Job>> {
        let before = self.inner.get(fence.job).await?;
        let mut release = release.clone();
        let fence = if matches!(self.bug, Bug::ReleaseIgnoresFence) { self.latest(fence) } else { fence };
        match self.bug {
            Bug::ReleaseCounts => release.counts = true,
            Bug::ReleaseForgetsPause => release.not_before = None,
            Bug::ReleaseForgetsAvoid => release.avoid = false,
            Bug::ReleaseForgetsMemory => release.memory_bytes = None,
            Bug::ReleaseTakesNoRepeat if before.state != JobState::Running => {
                return Err(refused("the job does not run"));
            }
            _ => {}
        }
        let job = self.inner.release(fence, &release, at).await?;
        if matches!(self.bug, Bug::ReleaseRevivesCancelled) && job.state == JobState::Cancelled {
            self.inner.retry(Selection::Job(fence.job), at).await?;
            return self.inner.get(fence.job).await;
        }
        Ok(job)
    }

    async fn finish(&self, fence: Fence, outcome: &Outcome, at: Timestamp) -> Result<Finished> {
        let latest = self.latest(fence);
        let before = self.inner.get(fence.job).await?;
        let fence = match self.bug {
            Bug::FinishIgnoresFence => latest,
            Bug::FinishIgnoresAttempt => Fence { attempt: latest.attempt, ..fence },
            Bug::FinishIgnoresToken => Fence { token: latest.token, ..fence },
            _ => fence,
        };
        let outcome = &self.outcome_with_bug(outcome);
        match self.bug {
            Bug::FinishTakesNoRepeat if before.state.is_terminal() => {
                return Err(refused("the job has ended"));
            }
            Bug::FinishTakesOtherEnd if before.state.is_terminal() && fence == latest => {
                return Ok(Finished { job: before, unlocked: 0, skipped: 0 });
            }
            Bug::FailureUnlocks => {
                if let Outcome::Failed { .. } = outcome {
                    let unlock = Outcome::made(Vec::new());
                    let told = self.inner.finish(fence, &unlock, at).await?;
                    self.notes().shown.insert(fence.job, JobState::Failed);
                    return Ok(Finished { job: shown(&told.job, JobState::Failed), ..told });
                }
            }
            Bug::RepeatUnlocksAgain if before.state == JobState::Success => {
                for dependent in self.dependents(fence.job) {
                    if self.inner.get(dependent).await?.state == JobState::Blocked {
                        self.notes().shown.insert(dependent, JobState::Pending);
                    }
                }
            }
            _ => {}
        }
        let told = self.inner.finish(fence, outcome, at).await?;
        match self.bug {
            Bug::FinishUnlocksLater => self.halfway(self.dependents(fence.job)).await,
            Bug::FinishWritesArtifactsLater => self.halfway([fence.job]).await,
            _ => {}
        }
        Ok(told)
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<Vec<Arc<Job>>> {
        self.expire_with_bug(request).await
    }

    async fn note_waiting(&self, groups: &[GroupWaiting], at: Timestamp) -> Result<Vec<Timestamp>> {
        match self.bug {
            Bug::NoteForgets => Ok(vec![at; groups.len()]),
            Bug::NoteRestarts => self.inner.note_waiting(groups, at).await.map(|told| vec![at; told.len()]),
            _ => self.inner.note_waiting(groups, at).await,
        }
    }

    async fn give_up(&self, request: &GiveUp) -> Result<usize> {
        match self.bug {
            Bug::GiveUpNever => Ok(0),
            Bug::GiveUpTakesYoung => {
                self.inner.give_up(&GiveUp { ready_before: Timestamp::MAX, ..request.clone() }).await
            }
            _ => self.inner.give_up(request).await,
        }
    }

    async fn append(&self, fence: Fence, first: u64, rows: &[ProgressRow]) -> Result<u64> {
        self.append_with_bug(fence, first, rows).await
    }

    async fn append_log(&self, fence: Fence, offset: u64, bytes: Bytes) -> Result<u64> {
        self.append_log_with_bug(fence, offset, bytes).await
    }

    async fn archive_log(&self, id: JobId, attempt: u32, archive: &LogArchive) -> Result<()> {
        self.archive_with_bug(id, attempt, archive).await
    }

    async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        self.events_with_bug(query).await
    }

    async fn unarchived(&self, ended_by: Timestamp, limit: usize) -> Result<Vec<(JobId, u32)>> {
        self.unarchived_with_bug(ended_by, limit).await
    }

    async fn note_removed(&self, id: JobId, what: Holding, at: Timestamp) -> Result<()> {
        self.note_removed_with_bug(id, what, at).await
    }

    async fn ended(&self, query: &EndedQuery) -> Result<Vec<EndedJob>> {
        self.ended_with_bug(query).await
    }

    async fn is_needed(&self, id: JobId) -> Result<bool> {
        self.is_needed_with_bug(id).await
    }

    async fn needed_sources(&self, sources: &[SourceDigest]) -> Result<BTreeSet<SourceDigest>> {
        self.needed_sources_with_bug(sources).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.usage_with_bug().await
    }

    async fn queue(&self, now: Timestamp) -> Result<QueueSummary> {
        self.queue_with_bug(now).await
    }

    async fn get(&self, id: JobId) -> Result<Arc<Job>> {
        if self.notes().removed.contains(&id) {
            return Err(Error::new(ErrorKind::NotFound, "the job was removed"));
        }
        let job = self.inner.get(id).await?;
        Ok(if let Bug::GetLoses(loss) = self.bug { lost(&job, loss) } else { self.read(&job) })
    }

    async fn spec(&self, id: JobId) -> Result<Arc<JobSpec>> {
        let spec = self.inner.spec(id).await?;
        if matches!(self.bug, Bug::SpecLosesPipelines) {
            let mut parts = UncheckedSpec::from((*spec).clone());
            parts.pipelines.clear();
            return JobSpec::try_from(parts).map(Arc::new);
        }
        Ok(spec)
    }

    async fn blocked_by(&self, id: JobId, limit: usize) -> Result<Vec<JobId>> {
        match self.bug {
            Bug::BlockedByTellsAll => {
                self.inner.blocked_by(id, limit).await?;
                let mut needs = self.notes().waits_for.get(&id).cloned().unwrap_or_default();
                needs.sort();
                needs.dedup();
                needs.truncate(limit);
                Ok(needs)
            }
            Bug::BlockedByIgnoresLimit => self.inner.blocked_by(id, usize::MAX).await,
            _ => self.inner.blocked_by(id, limit).await,
        }
    }

    async fn ahead(&self, id: JobId) -> Result<Option<usize>> {
        let ahead = self.inner.ahead(id).await?;
        Ok(match self.bug {
            Bug::AheadIsNobody => ahead.map(|_| 0),
            Bug::AheadCountsItself => ahead.map(|ahead| ahead + 1),
            Bug::AheadOfAll => Some(ahead.unwrap_or(0)),
            _ => ahead,
        })
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<JobAttempt>> {
        let mut attempts = self.inner.attempts(id).await?;
        match self.bug {
            Bug::AttemptsLose(loss) => attempts.iter_mut().for_each(loss),
            Bug::AttemptsForget => _ = attempts.drain(..attempts.len().saturating_sub(1)),
            Bug::AttemptsAreBackwards => attempts.reverse(),
            Bug::RestartLosesAttempts if self.reopened => attempts.clear(),
            Bug::RetryErases => {
                let erased = self.notes().erased.get(&id).copied().unwrap_or_default();
                attempts.drain(..erased);
            }
            _ => {}
        }
        Ok(attempts)
    }

    async fn list(&self, query: &ListQuery) -> Result<JobPage> {
        self.list_with_bug(query).await
    }

    async fn build(&self, id: BuildId) -> Result<Build> {
        let mut build = match self.inner.build(id).await {
            Ok(build) => build,
            Err(error) => return self.notes().builds.get(&id).cloned().ok_or(error),
        };
        match self.bug {
            Bug::BuildLosesEnd => build.finished_at = None,
            Bug::BuildLosesCount(lost) => {
                let mut counts = StateCounts::default();
                for state in JobState::ALL.into_iter().filter(|state| *state != lost) {
                    (0..build.counts.get(state)).for_each(|_| counts.add(state));
                }
                build.counts = counts;
            }
            _ => {}
        }
        Ok(build)
    }

    async fn builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        self.builds_with_bug(query).await
    }

    async fn with_result(&self, project: &Project, result: ResultDigest) -> Result<Option<Arc<Job>>> {
        self.with_result_with_bug(project, result).await
    }

    async fn durations(&self, project: &Project, arch: Arch) -> Result<Vec<PackageDuration>> {
        self.durations_with_bug(project, arch).await
    }

    async fn read_log(&self, id: JobId, offset: u64, limit: usize) -> Result<LogChunk> {
        let kept = self.notes().logs.get(&id).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        if matches!(self.bug, Bug::RemoveDropsLogFirst) && self.notes().halfway.contains(&id) {
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
