//! The leases of all attempts of a server: one call renews them, one asks which jobs shall stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{SchedulerParts, in_time};
use crate::clock::later;
use crate::error::Result;
use crate::job::JobId;
use crate::job_store::{Fence, Renewal, Subject};
use crate::limits;

/// Why an attempt stops before its end; a later one outdoes an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// The scheduler stops.
    Shutdown,
    /// Somebody asked for it.
    Asked,
    /// The job is somebody else's.
    Lost,
}

/// The reason to stop, and the token that stops the builder.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    reason: Mutex<Option<Stop>>,
    pub(super) token: CancellationToken,
}

impl StopSignal {
    pub(super) fn set(&self, stop: Stop) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *reason = (*reason).max(Some(stop));
        drop(reason);
        self.token.cancel();
    }

    /// The lease is lost.
    pub(super) fn lose(&self, fence: Fence) {
        if self.reason() != Some(Stop::Lost) {
            tracing::warn!(job = %fence.job, attempt = fence.attempt, "the lease is lost; the attempt stops");
            self.set(Stop::Lost);
        }
    }

    pub(super) fn reason(&self) -> Option<Stop> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease that is renewed.
#[derive(Debug)]
struct Held {
    fence: Fence,
    signal: Arc<StopSignal>,
    /// The lease lasts for its length from here on.
    renewed_at: Instant,
}

/// The leases that this server holds.
#[derive(Debug)]
pub(super) struct Leases {
    parts: Arc<SchedulerParts>,
    lease: Duration,
    /// In order, so that all that is done to them is done in the same order in every run.
    held: Mutex<BTreeMap<JobId, Held>>,
}

/// Keeps a lease renewed until it is dropped.
#[derive(Debug)]
pub(super) struct HeldLease {
    leases: Arc<Leases>,
    fence: Fence,
    pub(super) signal: Arc<StopSignal>,
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        if held.get(&self.fence.job).is_some_and(|held| held.fence == self.fence) {
            held.remove(&self.fence.job);
        }
    }
}

impl Leases {
    pub(super) fn new(parts: &Arc<SchedulerParts>, lease: Duration) -> Arc<Self> {
        Arc::new(Self { parts: Arc::clone(parts), lease, held: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews a lease that was taken at `claimed_at` from now on.
    pub(super) fn hold(self: &Arc<Self>, fence: Fence, claimed_at: Instant) -> HeldLease {
        let signal = Arc::new(StopSignal::default());
        let held = Held { fence, signal: Arc::clone(&signal), renewed_at: claimed_at };
        // An attempt whose lease was lost may still be ending when the same server claims the job again.
        if let Some(old) = self.lock().insert(fence.job, held) {
            old.signal.set(Stop::Lost);
        }
        HeldLease { leases: Arc::clone(self), fence, signal }
    }

    /// Renews at a third of the lease, and passes requests to stop on, for as long as it is polled. Neither waits for
    /// the other.
    pub(super) async fn run(&self) {
        tokio::join!(self.renew_for_ever(), self.ask_for_ever());
    }

    async fn renew_for_ever(&self) {
        loop {
            let pause = if self.renew().await { self.lease / 3 } else { self.lease / 9 };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_for_ever(&self) {
        let mut hint = self.parts.job_store.changed(Subject::Cancellations);
        loop {
            // Marked before the look: what comes during it starts another one.
            hint.mark_unchanged();
            self.ask().await;
            tokio::select! {
                () = tokio::time::sleep(limits::CANCEL_POLL) => {}
                () = super::hinted(&mut hint) => {}
            }
        }
    }

    /// One renewal of all leases; whether the store answered.
    async fn renew(&self) -> bool {
        let mut fences: Vec<(Instant, Fence)> =
            self.lock().values().map(|held| (held.renewed_at, held.fence)).collect();
        if fences.is_empty() {
            return true;
        }
        // The most urgent ones first.
        fences.sort_by_key(|(renewed_at, fence)| (*renewed_at, fence.job));
        let mut answered = true;
        for fences in fences.chunks(limits::LEASES_PER_CALL_MAX) {
            let fences: Vec<Fence> = fences.iter().map(|(_, fence)| *fence).collect();
            let asked_at = Instant::now();
            match self.renew_some(&fences).await {
                Ok(renewals) => self.note(&fences, &renewals, asked_at),
                Err(error) => {
                    tracing::warn!(leases = fences.len(), error = %error.chain(), "leases were not renewed");
                    answered = false;
                }
            }
        }
        self.lose_overdue();
        answered
    }

    async fn renew_some(&self, fences: &[Fence]) -> Result<Vec<Renewal>> {
        let until = later(self.parts.clock.now(), self.lease);
        in_time(self.lease, self.parts.job_store.renew(&self.parts.server, fences, until)).await
    }

    fn note(&self, fences: &[Fence], renewals: &[Renewal], asked_at: Instant) {
        let mut held = self.lock();
        for (place, fence) in fences.iter().enumerate() {
            let Some(held) = held.get_mut(&fence.job).filter(|held| held.fence == *fence) else { continue };
            match renewals.get(place) {
                Some(Renewal::Kept { cancel_requested }) => {
                    held.renewed_at = asked_at;
                    if *cancel_requested {
                        held.signal.set(Stop::Asked);
                    }
                }
                Some(Renewal::Lost) | None => held.signal.lose(held.fence),
            }
        }
    }

    /// Gives up the leases that ended while the store did not answer.
    fn lose_overdue(&self) {
        let now = Instant::now();
        let held = self.lock();
        let overdue = held.values().filter(|held| now >= held.renewed_at + self.lease);
        overdue.for_each(|held| held.signal.lose(held.fence));
    }

    /// Asks which jobs shall stop.
    async fn ask(&self) {
        if self.lock().is_empty() {
            return;
        }
        let requests = self.parts.job_store.cancel_requests(&self.parts.server);
        match in_time(self.lease, requests).await {
            Ok(fences) => {
                let held = self.lock();
                let asked = |fence: &Fence| held.get(&fence.job).filter(|held| held.fence == *fence);
                fences.iter().filter_map(asked).for_each(|held| held.signal.set(Stop::Asked));
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the job store did not say which jobs shall stop");
            }
        }
    }
}
