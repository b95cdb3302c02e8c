//! Stations 4 and 13: gives waiting jobs to backends and sees every attempt through.
//!
//! ```text
//! demand ─▶ place ─▶ lease slots ─▶ claim ─▶ attempt: build ─▶ store artifacts ─▶ finish
//!   ▲       (pure)     (pool)      (store)      │  leases are renewed, requests to stop passed on
//!   └───────────────────────────────────────────┘  released: lost daemon, stopping server
//! ```
//!
//! Several schedulers may share one job store: claims are exclusive, and fences keep a stale attempt from
//! finishing a job that is somebody else's by now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::artifact_storage::ArtifactStorage;
use crate::backend::health::BackendFailure;
use crate::backend::pool::{BackendLease, BackendPool};
use crate::backend::registry::{BackendRegistry, MemoryRegistry};
use crate::backend::{AlwaysReachable, BackendProbe};
use crate::backend_selector::round_robin::RoundRobin;
use crate::backend_selector::{BackendSelector, Candidate};
use crate::builder::{Builder, JobInputs, NoInputs};
use crate::clock::{Clock, SystemClock, earlier, later};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::{FailureInput, diagnose};
use crate::job::{ClaimToken, FailureClass, JobError, JobResources, ServerId};
use crate::job_log::JobLogs;
use crate::job_store::{
    ClaimRequest, Demand, ExpireRequest, GiveUp, GroupWaiting, JobStore, Offer, Patience, Release, Subject,
    hinted,
};
use crate::limits;
use crate::sources::SourceFolders;
use crate::text::one_line;

mod archiver;
mod attempt;
pub mod decide;
mod diagnosis;
pub mod estimate;
mod events;
mod fleet;
mod last_round;
mod leases;
mod log;
mod retry;
mod reuse;
mod sources;
#[cfg(test)]
mod tests;
mod weights;

use archiver::Archiver;
use attempt::Attempt;
use decide::{Placement, place};
pub use fleet::Fleet;
pub use last_round::LastRound;
use leases::Leases;
pub use weights::ProjectWeights;

/// What a scheduler works with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SchedulerParts {
    /// Where jobs live.
    pub job_store: Arc<dyn JobStore>,
    /// Where artifacts go.
    pub artifact_storage: Arc<dyn ArtifactStorage>,
    /// Who chooses backends.
    pub backend_selector: Arc<dyn BackendSelector>,
    /// Who builds.
    pub builder: Arc<dyn Builder>,
    /// What jobs see beyond their own requests.
    pub inputs: Arc<dyn JobInputs>,
    /// The backends of the server's configuration, and soon those of the fleet.
    pub pool: BackendPool,
    /// What keeps the fleet.
    pub registry: Arc<dyn BackendRegistry>,
    /// What this machine is called, when the servers of others share the registry: local addresses of backends are told
    /// apart by it.
    pub machine: Option<String>,
    /// Who asks backends whether they are there.
    pub probe: Arc<dyn BackendProbe>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// What this run of a server is called; no other run has its name.
    pub server: ServerId,
    /// When a scheduler of these parts last looked at the queue.
    pub last_round: LastRound,
    /// Where the files beside definitions lie while they are taken in and while builds read them.
    pub sources: SourceFolders,
}

impl SchedulerParts {
    /// Backends take turns and count as reachable until their builds break off; the clock is the machine's.
    pub fn new(
        job_store: Arc<dyn JobStore>,
        artifact_storage: Arc<dyn ArtifactStorage>,
        builder: Arc<dyn Builder>,
        pool: BackendPool,
    ) -> Self {
        Self {
            job_store,
            artifact_storage,
            backend_selector: Arc::new(RoundRobin),
            builder,
            inputs: Arc::new(NoInputs),
            pool,
            registry: Arc::new(MemoryRegistry::default()),
            machine: None,
            probe: Arc::new(AlwaysReachable),
            clock: Arc::new(SystemClock),
            server: ServerId::unique(),
            last_round: LastRound::default(),
            sources: SourceFolders::default(),
        }
    }

    /// The same parts with somebody who tells what jobs see beyond their own requests.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Arc<dyn JobInputs>) -> Self {
        self.inputs = inputs;
        self
    }

    /// The same parts with another way to choose backends.
    #[must_use]
    pub fn with_backend_selector(mut self, backend_selector: Arc<dyn BackendSelector>) -> Self {
        self.backend_selector = backend_selector;
        self
    }

    /// The same parts with somebody who asks backends whether they are there.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn BackendProbe>) -> Self {
        self.probe = probe;
        self
    }

    /// The same parts with a registry that keeps the fleet, which other servers may share.
    #[must_use]
    pub fn with_registry(mut self, registry: Arc<dyn BackendRegistry>) -> Self {
        self.registry = registry;
        self
    }

    /// The same parts on a machine of this name: local addresses of backends mean another backend on each.
    #[must_use]
    pub fn on_machine(mut self, machine: impl Into<Option<String>>) -> Self {
        self.machine = machine.into();
        self
    }

    /// The same parts with a place for the files beside definitions.
    #[must_use]
    pub fn with_sources(mut self, sources: SourceFolders) -> Self {
        self.sources = sources;
        self
    }

    /// The same parts with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

/// What a scheduler's owner may change; the defaults are those of [`limits`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// The length of a lease; it is renewed at a third of it.
    pub lease: Duration,
    /// How often the queue is read when no hint came.
    pub poll: Duration,
    /// For how long jobs are tried again.
    pub patience: Patience,
    /// The pause before a second attempt; it doubles with every further one.
    pub retry_pause: Duration,
    /// How long running jobs may go on when the scheduler stops.
    pub shutdown_grace: Duration,
    /// The bytes of an attempt's log; of what is beyond, the beginning and the end are kept.
    pub log_bytes: u64,
    /// How many of the slots each project gets while several wait.
    pub project_weights: ProjectWeights,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            lease: limits::LEASE,
            poll: limits::SCHEDULER_POLL,
            patience: Patience { attempts: limits::ATTEMPTS_MIN, time: limits::RETRIED_FOR_MIN },
            retry_pause: limits::RETRY_PAUSE,
            shutdown_grace: limits::SHUTDOWN_GRACE,
            log_bytes: limits::JOB_LOG_BYTES,
            project_weights: ProjectWeights::default(),
        }
    }
}

/// Runs jobs until it is told to stop. Clones share parts, not runs.
#[derive(Debug, Clone)]
pub struct Scheduler {
    parts: Arc<SchedulerParts>,
    fleet: Fleet,
    logs: JobLogs,
    options: SchedulerOptions,
}

/// One run: its leases, the attempts and probes under way.
struct Run {
    archiver: Archiver,
    leases: Arc<Leases>,
    attempts: JoinSet<()>,
    probes: JoinSet<()>,
    stop: CancellationToken,
    /// A claim whose answer did not come, with its slots: it is asked again by the same token.
    unanswered: Option<Claiming>,
}

/// A claim under way.
struct Claiming {
    request: ClaimRequest,
    slots: HashMap<(String, JobResources), Vec<BackendLease>>,
    asked_at: Instant,
    first_asked_at: Instant,
}

impl Claiming {
    /// Asks for leases that begin at `now`.
    fn lease_from(&mut self, now: Timestamp, lease: Duration) {
        (self.request.now, self.request.until) = (now, later(now, lease));
        self.asked_at = Instant::now();
    }
}

impl Scheduler {
    /// A scheduler; nothing runs until [`Self::run`].
    pub fn new(parts: SchedulerParts, options: SchedulerOptions) -> Self {
        let logs = JobLogs::new(Arc::clone(&parts.job_store), Arc::clone(&parts.artifact_storage));
        let fleet = Fleet::new(&parts, options.lease);
        Self { parts: Arc::new(parts), fleet, logs, options }
    }

    /// What it works with.
    pub fn parts(&self) -> &SchedulerParts {
        &self.parts
    }

    /// The fleet as this server sees and changes it.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The logs of the jobs: those who follow a job that runs here share what its attempt writes.
    pub fn logs(&self) -> &JobLogs {
        &self.logs
    }

    /// Runs jobs until `shutdown` is cancelled. Then it claims no more, lets running jobs finish for
    /// [`SchedulerOptions::shutdown_grace`], stops those that are left and gives them back to the queue.
    ///
    /// Errors of the job store are logged and tried again; they never end the run.
    pub async fn run(&self, shutdown: CancellationToken) {
        let (archiver, archiving) = Archiver::start(Arc::clone(&self.parts), self.logs.clone());
        let mut run = Run {
            archiver,
            leases: Leases::new(&self.parts, self.options.lease),
            attempts: JoinSet::new(),
            probes: JoinSet::new(),
            stop: CancellationToken::new(),
            unanswered: None,
        };
        let leases = Arc::clone(&run.leases);
        let renewing = AbortOnDropHandle::new(tokio::spawn(async move { leases.run().await }));
        let mut queue_hint = self.parts.job_store.changed(Subject::Queue);
        let mut pool_hint = self.parts.pool.changed();
        let mut fleet_hint = self.fleet.changed();
        fleet_hint.mark_changed();
        let (mut reasons_at, mut knows_fleet) = (Instant::now(), false);
        while !shutdown.is_cancelled() {
            if renewing.is_finished() {
                // Without renewals every attempt loses its lease: no farm at all is better than that one.
                tracing::error!("the leases are renewed no longer; the scheduler stops");
                break;
            }
            // Marked before the round: what changes during it starts another one.
            queue_hint.mark_unchanged();
            pool_hint.mark_unchanged();
            while let Some(ended) = run.attempts.try_join_next() {
                note_end(ended);
            }
            while run.probes.try_join_next().is_some() {}
            self.probe(&mut run);
            let (is_late, mut follows) = (reasons_at <= Instant::now(), true);
            let mut result = if is_late { self.expire().await } else { Ok(()) };
            if is_late || self.fleet.has_news() || fleet_hint.has_changed().unwrap_or(false) {
                fleet_hint.mark_unchanged();
                follows = self.follow_fleet().await;
                knows_fleet |= follows;
            }
            // No job starts before it is known what was drained or removed before the server began.
            if result.is_ok() && knows_fleet {
                result = self.dispatch(&mut run).await;
            }
            if result.is_ok() && knows_fleet && reasons_at <= Instant::now() {
                result = self.tell_reasons().await;
                reasons_at = Instant::now() + self.options.poll;
            }
            let failed = result.is_err() || !follows;
            if let Err(error) = result {
                tracing::warn!(error = %error.chain(), "the queue could not be read; trying again");
            }
            self.parts.last_round.note();
            let looked_at = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(self.options.poll) => {}
                () = hinted(&mut queue_hint), if !failed => {}
                () = hinted(&mut pool_hint), if !failed => {}
                () = hinted(&mut fleet_hint), if !failed => fleet_hint.mark_changed(),
            }
            // The first hint after a while is followed at once; of many together one round makes use.
            let gathered_at = looked_at + limits::SCHEDULER_GATHERS;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep_until(gathered_at) => {}
            }
        }
        self.finish(run).await;
        archiving.finish().await;
    }

    /// Keeps in step with the fleet; whether the registry told it. One that does not stops no job.
    async fn follow_fleet(&self) -> bool {
        let followed = self.fleet.follow().await;
        if let Err(error) = &followed {
            tracing::warn!(error = %error.chain(), "the fleet could not be read; trying again");
        }
        followed.is_ok()
    }

    /// Asks the backends whose turn it is. Answers come by way of the pool's hint.
    fn probe(&self, run: &mut Run) {
        for (number, backend) in self.parts.pool.due_probes(self.parts.clock.now()) {
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
                parts.pool.probed(number, result, parts.clock.now());
            });
        }
    }

    /// A call on the store, in its time.
    async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        in_time(self.options.lease, call).await
    }

    /// Settles the leases of servers that died.
    async fn expire(&self) -> Result<()> {
        let request = ExpireRequest::new(self.parts.clock.now(), self.options.patience);
        loop {
            let settled = self.within(self.parts.job_store.expire(&request)).await?;
            for job in &settled {
                tracing::warn!(job = %job.id, attempt = job.attempt, state = %job.state, "a lease ended without a word");
            }
            if settled.len() < request.limit {
                return Ok(());
            }
        }
    }

    /// Starts what can start now.
    async fn dispatch(&self, run: &mut Run) -> Result<()> {
        if let Some(mut claiming) = run.unanswered.take() {
            // With new times: by the old ones the leases may have ended.
            claiming.lease_from(self.parts.clock.now(), self.options.lease);
            self.claim(run, claiming).await?;
        }
        loop {
            let mut candidates = self.parts.pool.candidates();
            if !candidates.iter().any(Candidate::has_free_slot) {
                return Ok(());
            }
            let demand = self.within(self.parts.job_store.demand(self.parts.clock.now())).await?;
            let offers = self.place(&demand, &mut candidates).offers;
            if self.start(run, offers).await? == 0 {
                return Ok(());
            }
        }
    }

    fn place(&self, demand: &[Demand], candidates: &mut [Candidate]) -> Placement {
        place(&*self.parts.backend_selector, &self.options.project_weights, demand, candidates)
    }

    /// Leases the slots, claims jobs and begins their attempts; how many.
    async fn start(&self, run: &mut Run, mut offers: Vec<Offer>) -> Result<usize> {
        let mut slots: HashMap<(String, JobResources), Vec<BackendLease>> = HashMap::new();
        for offer in &mut offers {
            // The backend may have gone since the snapshot.
            let asked = offer.group.needs.resources;
            let lease = |_| self.parts.pool.lease(&offer.backend.addr, asked);
            let leased: Vec<BackendLease> = (0..offer.slots).map_while(lease).collect();
            offer.slots = leased.len();
            slots.entry((offer.backend.addr.clone(), asked)).or_default().extend(leased);
        }
        offers.retain(|offer| offer.slots > 0);
        if offers.is_empty() {
            return Ok(0);
        }
        let (token, server, now) = (ClaimToken::new(), self.parts.server.clone(), self.parts.clock.now());
        let request = ClaimRequest { token, server, offers, now, until: later(now, self.options.lease) };
        let asked_at = Instant::now();
        self.claim(run, Claiming { request, slots, asked_at, first_asked_at: asked_at }).await
    }

    /// Claims jobs and begins their attempts; how many. A claim that the store did not answer is kept, for as long as
    /// its leases would last, and made again.
    async fn claim(&self, run: &mut Run, mut claiming: Claiming) -> Result<usize> {
        let claims = match self.within(self.parts.job_store.claim(&claiming.request)).await {
            Ok(claims) => claims,
            Err(error) => {
                if claiming.first_asked_at.elapsed() < self.options.lease {
                    run.unanswered = Some(claiming);
                }
                return Err(error);
            }
        };
        let mut begun = 0;
        for claim in claims {
            let addr = claim.job.backend.as_ref().map(|backend| backend.addr.as_str()).unwrap_or_default();
            let slots = claiming.slots.get_mut(&(addr.to_owned(), claim.job.resources()));
            let Some(slot) = slots.and_then(Vec::pop) else {
                tracing::error!(job = %claim.job.id, addr, "the store gave a job without a slot; its lease will end");
                continue;
            };
            let lease = run.leases.hold(claim.fence, claiming.asked_at);
            let attempt = Attempt::new(self, &claim, slot, lease, run.stop.clone());
            let (archiver, fence) = (run.archiver.clone(), claim.fence);
            run.attempts.spawn(async move {
                attempt.run().await;
                archiver.ended(fence.job, fence.attempt);
            });
            begun += 1;
        }
        claiming.slots.into_values().flatten().for_each(BackendLease::unused);
        Ok(begun)
    }

    /// Gives back what a claim without an answer may have claimed.
    async fn give_back_unanswered(&self, mut claiming: Claiming) {
        claiming.lease_from(self.parts.clock.now(), self.options.lease);
        let Ok(claims) = self.within(self.parts.job_store.claim(&claiming.request)).await else { return };
        let (class, message) = (FailureClass::Infrastructure, "the server stopped before the job began");
        let failure = diagnose(&FailureInput::new(class, message));
        let release = Release::new(JobError::new(class, message).with_failure(failure));
        for claim in claims {
            let released = self.parts.job_store.release(claim.fence, &release, self.parts.clock.now());
            if let Err(error) = self.within(released).await {
                tracing::warn!(job = %claim.job.id, error = %error.chain(), "a job was not given back; its lease will end");
            }
        }
    }

    /// Notes why jobs wait, and gives up those that nobody could run for long.
    async fn tell_reasons(&self) -> Result<()> {
        let at = self.parts.clock.now();
        let demand = self.within(self.parts.job_store.demand(at)).await?;
        // What another server can run does not wait for other backends.
        let refusals = self.place(&demand, &mut self.parts.pool.fleet_candidates()).refusals;
        if refusals.is_empty() {
            return Ok(());
        }
        let waiting: Vec<GroupWaiting> = refusals
            .into_iter()
            .map(|(group, refusal)| GroupWaiting {
                group,
                reason: refusal.to_string(),
                needs_other_backends: refusal.needs_other_backends(),
            })
            .collect();
        let since = self.within(self.parts.job_store.note_waiting(&waiting, at)).await?;
        for (waiting, since) in waiting.into_iter().zip(since) {
            if waiting.needs_other_backends && later(since, limits::UNMATCHED_WAIT) <= at {
                let error = JobError::new(FailureClass::Unschedulable, waiting.reason);
                let ready_before = earlier(at, limits::UNMATCHED_WAIT);
                let request = GiveUp { group: waiting.group, ready_before, error, at };
                self.within(self.parts.job_store.give_up(&request)).await?;
            }
        }
        Ok(())
    }

    /// Sees the attempts under way to their ends, and takes leave of the fleet.
    async fn finish(&self, run: Run) {
        self.finish_attempts(run).await;
        if let Err(error) = self.fleet.leave().await {
            tracing::warn!(error = %error.chain(), "the fleet was not told that the server ends; it will see it");
        }
    }

    async fn finish_attempts(&self, mut run: Run) {
        if let Some(claiming) = run.unanswered.take() {
            self.give_back_unanswered(claiming).await;
        }
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

/// A call on the store, for at most a third of a lease.
async fn in_time<T>(lease: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(lease / 3, call).await {
        Ok(told) => told,
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "the job store did not answer in time")),
    }
}

/// A backend's failure as it is shown.
fn failure_of(error: &Error, at: Timestamp) -> BackendFailure {
    let line = |text: &str| one_line(text, limits::BACKEND_FAILURE_BYTES_MAX);
    BackendFailure { message: line(&error.chain()), hint: error.hint_text().map(line), at }
}

/// An attempt that panics loses its lease, and another attempt follows.
fn note_end(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "an attempt panicked; its lease will end");
    }
}
