//! Counters that move when their subjects change, for everybody in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Subject;
use super::working_set::Changes;

/// The counters that somebody looks at: what [`JobReading::changed`](super::JobReading::changed) gives.
///
/// Of what another process changes it knows nothing.
#[derive(Debug, Default)]
pub struct Hints {
    counters: Mutex<Counters>,
}

/// Waits for a hint of what [`JobReading::changed`](super::JobReading::changed) gives; for ever when nobody gives hints any
/// more. Hints may be missed: look now and then without one.
pub async fn hinted(hint: &mut watch::Receiver<u64>) {
    if hint.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[derive(Debug, Default)]
struct Counters {
    of: HashMap<Subject, watch::Sender<u64>>,
    /// At so many counters those that nobody looks at are dropped.
    sweep_at: usize,
}

impl Hints {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counter of a subject.
    pub fn subscribe(&self, subject: Subject) -> watch::Receiver<u64> {
        let mut counters = self.lock();
        if counters.of.len() >= counters.sweep_at {
            counters.of.retain(|_, counter| counter.receiver_count() > 0);
            counters.sweep_at = counters.of.len().saturating_mul(2).max(1_024);
        }
        counters.of.entry(subject).or_default().subscribe()
    }

    /// Moves the counters of what changed. Whoever follows a job that is gone is told by the end of its counter.
    pub fn tell(&self, changes: &Changes) {
        let mut counters = self.lock();
        let queue = changes.queue.then_some(Subject::Queue);
        let cancellations = changes.cancellations.then_some(Subject::Cancellations);
        // Events are about jobs and backends; those of other processes are told without them.
        let happened = !changes.events.is_empty()
            || !changes.jobs.is_empty()
            || !changes.forgotten.is_empty()
            || changes.backends;
        let events = happened.then_some(Subject::Events);
        let backends = changes.backends.then_some(Subject::Backends);
        let jobs = changes.jobs.iter().map(|id| Subject::Job(*id));
        let logs = changes.logs.iter().map(|id| Subject::Log(*id));
        let farm = queue.into_iter().chain(cancellations).chain(events).chain(backends);
        for subject in farm.chain(jobs).chain(logs) {
            if let Some(counter) = counters.of.get(&subject) {
                counter.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        for id in &changes.forgotten {
            counters.of.remove(&Subject::Job(*id));
            counters.of.remove(&Subject::Log(*id));
        }
    }

    /// Moves all counters: something may have changed.
    #[cfg(feature = "postgres")]
    pub(super) fn tell_all(&self) {
        let counters = self.lock();
        counters.of.values().for_each(|counter| counter.send_modify(|count| *count = count.wrapping_add(1)));
    }
}
