//! Stations 4 and 13: gives waiting jobs to backends and sees every attempt through.
//!
//! ```text
//! queue ─▶ decide ─▶ lease a slot ─▶ claim ─▶ attempt: build ─▶ store artifacts ─▶ record the end
//!   ▲         (pure)      (pool)     (store)      │  renews the lease, watches for a cancellation
//!   └─────────────────────────────────────────────┘  given back: lost daemon, stopping server
//! ```
//!
//! Several schedulers may share one job store: claims are exclusive, and fences keep a stale attempt from
//! finishing a job that is somebody else's by now.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::arch::Arch;
use crate::artifact_storage::ArtifactStorage;
use crate::backend::BackendProbe;
use crate::backend::health::BackendFailure;
use crate::backend::pool::{BackendLease, BackendPool};
use crate::backend_selector::{BackendSelector, Candidate};
use crate::builder::Builder;
use crate::clock::{Clock, later};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{FailureClass, JobError, JobEvent, JobId};
use crate::job_store::{ClaimRequest, JobStore, QueueQuery, QueuedJob, Record, Subject};
use crate::limits;

pub mod artifacts;
mod attempt;
pub mod decide;
mod events;
mod log;
#[cfg(test)]
mod tests;

use attempt::Attempt;
use decide::{Decision, decide};

/// What a scheduler works with.
#[derive(Debug, Clone)]
pub struct SchedulerParts {
    /// Where jobs live.
    pub job_store: Arc<dyn JobStore>,
    /// Where artifacts go.
    pub artifact_storage: Arc<dyn ArtifactStorage>,
    /// Who chooses backends.
    pub backend_selector: Arc<dyn BackendSelector>,
    /// Who builds.
    pub builder: Arc<dyn Builder>,
    /// The backends.
    pub pool: BackendPool,
    /// Who asks backends whether they are there.
    pub probe: Arc<dyn BackendProbe>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// What a scheduler's owner may change; the defaults are those of [`limits`].
#[derive(Debug, Clone, Copy)]
pub struct SchedulerOptions {
    /// The length of a lease; it is renewed at a third of it.
    pub lease: Duration,
    /// How often the queue is read when no hint came.
    pub poll: Duration,
    /// Attempts of one job.
    pub attempts_max: u32,
    /// The pause before a second attempt; it doubles with every further one.
    pub retry_pause: Duration,
    /// How long running jobs may go on when the scheduler stops.
    pub shutdown_grace: Duration,
    /// The bytes of an attempt's log; of what is beyond, the beginning and the end are kept.
    pub log_bytes: u64,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            lease: limits::LEASE,
            poll: limits::SCHEDULER_POLL,
            attempts_max: limits::ATTEMPTS_MAX,
            retry_pause: limits::RETRY_PAUSE,
            shutdown_grace: limits::SHUTDOWN_GRACE,
            log_bytes: limits::JOB_LOG_BYTES,
        }
    }
}

/// Runs jobs until it is told to stop. Clones share parts, not runs.
#[derive(Debug, Clone)]
pub struct Scheduler {
    parts: Arc<SchedulerParts>,
    options: SchedulerOptions,
}

/// One run: the attempts and probes under way, and the place in the queue where reasons are told next.
struct Run {
    attempts: JoinSet<()>,
    probes: JoinSet<()>,
    stop: CancellationToken,
    reasons_after: Option<JobId>,
}

impl Scheduler {
    /// A scheduler; nothing runs until [`Self::run`].
    pub fn new(parts: SchedulerParts, options: SchedulerOptions) -> Self {
        Self { parts: Arc::new(parts), options }
    }

    /// Runs jobs until `shutdown` is cancelled. Then it claims no more, lets running jobs finish for
    /// [`SchedulerOptions::shutdown_grace`], stops those that are left and gives them back to the queue.
    ///
    /// Errors of the job store are logged and tried again; they never end the run.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut run = Run {
            attempts: JoinSet::new(),
            probes: JoinSet::new(),
            stop: CancellationToken::new(),
            reasons_after: None,
        };
        let mut queue_hint = self.parts.job_store.changed(Subject::Queue);
        let mut pool_hint = self.parts.pool.changed();
        let mut reasons_at = Instant::now();
        while !shutdown.is_cancelled() {
            // Marked before the round: what changes during it starts another one.
            queue_hint.mark_unchanged();
            pool_hint.mark_unchanged();
            while let Some(ended) = run.attempts.try_join_next() {
                note_end(ended);
            }
            while run.probes.try_join_next().is_some() {}
            self.probe(&mut run);
            let mut result = self.dispatch(&mut run).await;
            if result.is_ok() && reasons_at <= Instant::now() {
                result = self.tell_reasons(&mut run).await;
                reasons_at = Instant::now() + self.options.poll;
            }
            let failed = result.is_err();
            if let Err(error) = result {
                tracing::warn!(error = %error.chain(), "the queue could not be read; trying again");
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.options.poll) => {}
                () = hinted(&mut queue_hint), if !failed => {}
                () = hinted(&mut pool_hint), if !failed => {}
            }
        }
        self.finish(run).await;
    }

    /// Asks the backends whose turn it is. Answers come by way of the pool's hint.
    fn probe(&self, run: &mut Run) {
        for (number, backend) in self.parts.pool.due_probes(Instant::now()) {
            let parts = Arc::clone(&self.parts);
            run.probes.spawn(async move {
                let begun = Instant::now();
                let asked = tokio::time::timeout(limits::PROBE, parts.probe.probe(backend.address())).await;
                let result = match asked {
                    Ok(Ok(())) => Ok(begun.elapsed()),
                    Ok(Err(error)) => Err(failure_of(&error, parts.clock.now())),
                    Err(_) => {
                        let seconds = limits::PROBE.as_secs();
                        let message = format!("it did not answer within {seconds} s");
                        Err(BackendFailure { message, hint: None, at: parts.clock.now() })
                    }
                };
                parts.pool.probed(number, result);
            });
        }
    }

    /// Starts what can start now.
    async fn dispatch(&self, run: &mut Run) -> Result<()> {
        let mut after = None;
        loop {
            let mut candidates = self.parts.pool.candidates();
            let free: Vec<&Candidate> = candidates.iter().filter(|c| c.has_free_slot()).collect();
            let arches: BTreeSet<Arch> = free.iter().map(|c| c.backend.arch()).collect();
            let slots: usize = free.iter().map(|c| slots_of(c)).sum();
            if slots == 0 {
                return Ok(());
            }
            // Twice the slots, so that a few jobs that only a busy backend can run do not need another page.
            let limit = slots.saturating_mul(2).clamp(64, limits::CLAIMS_PER_ROUND_MAX);
            let now = self.parts.clock.now();
            let arches = Some(arches.into_iter().collect());
            let jobs = self.parts.job_store.queue(&QueueQuery { now, arches, after, limit }).await?;
            let decisions = decide(&*self.parts.backend_selector, &jobs, &mut candidates, now);
            self.start(run, &decisions).await?;
            after = jobs.last().map(|job| job.id);
            if jobs.len() < limit {
                return Ok(());
            }
        }
    }

    /// Leases the slots, claims the jobs and begins their attempts.
    async fn start(&self, run: &mut Run, decisions: &[Decision]) -> Result<()> {
        let mut slots: HashMap<JobId, BackendLease> = HashMap::new();
        let mut jobs = Vec::new();
        for decision in decisions {
            let Decision::Start { job, backend } = decision else { continue };
            // The backend may have gone since the snapshot.
            if let Some(slot) = self.parts.pool.lease(backend.addr()) {
                slots.insert(*job, slot);
                jobs.push(*job);
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let claimed_at = Instant::now();
        let now = self.parts.clock.now();
        let request = ClaimRequest { jobs, now, until: later(now, self.options.lease) };
        for claim in self.parts.job_store.claim(&request).await? {
            let Some(slot) = slots.remove(&claim.job.id) else { continue };
            let stop = run.stop.clone();
            let attempt = Attempt::new(&self.parts, self.options, &claim, slot, claimed_at, stop);
            run.attempts.spawn(attempt.run());
        }
        Ok(())
    }

    /// Records why jobs wait, one page at a time, and gives up those that nobody could run for long.
    async fn tell_reasons(&self, run: &mut Run) -> Result<()> {
        let now = self.parts.clock.now();
        let limit = limits::CLAIMS_PER_ROUND_MAX;
        let query = QueueQuery { now, arches: None, after: run.reasons_after, limit };
        let jobs = self.parts.job_store.queue(&query).await?;
        run.reasons_after = jobs.last().map(|job| job.id).filter(|_| jobs.len() == limit);
        for record in self.reasons(&jobs) {
            match self.parts.job_store.record(record).await {
                Ok(_) => {}
                // Somebody claimed or cancelled it meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reasons(&self, jobs: &[QueuedJob]) -> Vec<Record> {
        let at = self.parts.clock.now();
        let mut candidates = self.parts.pool.candidates();
        let record = |decision| {
            let (job, version, event) = match decision {
                Decision::Start { .. } => return None,
                Decision::Wait { job, version, reason } => (job, version, JobEvent::Waiting { reason }),
                Decision::GiveUp { job, version, reason } => {
                    let error = JobError::new(FailureClass::Unschedulable, reason);
                    (job, version, JobEvent::Failed { error })
                }
            };
            Some(Record { job, event, at, fence: None, expected_version: Some(version) })
        };
        let decisions = decide(&*self.parts.backend_selector, jobs, &mut candidates, at);
        decisions.into_iter().filter_map(record).collect()
    }

    /// Sees the attempts under way to their ends.
    async fn finish(&self, mut run: Run) {
        tracing::info!(running = run.attempts.len(), "the scheduler stops");
        let ends = async |run: &mut Run| {
            while let Some(ended) = run.attempts.join_next().await {
                note_end(ended);
            }
        };
        if tokio::time::timeout(self.options.shutdown_grace, ends(&mut run)).await.is_ok() {
            return;
        }
        tracing::warn!(running = run.attempts.len(), "running jobs are stopped and given back");
        run.stop.cancel();
        let patience = limits::CANCEL_GRACE.saturating_add(self.options.lease);
        if tokio::time::timeout(patience, ends(&mut run)).await.is_err() {
            tracing::error!(running = run.attempts.len(), "attempts did not stop and are dropped");
            run.attempts.shutdown().await;
        }
    }
}

/// A backend's failure as it is shown.
fn failure_of(error: &Error, at: Timestamp) -> BackendFailure {
    BackendFailure { message: error.chain(), hint: error.hint_text().map(str::to_owned), at }
}

fn slots_of(candidate: &Candidate) -> usize {
    usize::try_from(candidate.backend.max_jobs().saturating_sub(candidate.running)).unwrap_or(usize::MAX)
}

/// Waits for a hint; for ever when nobody gives hints any more.
async fn hinted(hint: &mut watch::Receiver<u64>) {
    if hint.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// An attempt that panics loses its lease, and another attempt follows.
fn note_end(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "an attempt panicked; its lease will end");
    }
}
