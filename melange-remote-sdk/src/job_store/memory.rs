//! The store in memory: for tests, examples and servers that may forget. Bounded; what finished first leaves first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::hints::Hints;
use super::working_set::{Bounds, WorkingSet};
use super::{
    Claim, ClaimRequest, Demand, EventLog, EventPage, EventQuery, ExpireRequest, Fence, Finished, GiveUp,
    GroupWaiting, JobIntake, JobPage, JobProgress, JobQueue, JobReading, ListQuery, LogChunk, Release,
    Renewal, Selection, Subject, Submission, Submitted,
};
use crate::backend::registry::Registry;
use crate::error::Result;
use crate::job::{Build, BuildId, Job, JobAttempt, JobId, JobSpec, Outcome, Priority, ProgressRow, ServerId};
use crate::limits;

mod calls;
mod fleet;
mod logs;

/// The bounds of a [`MemoryJobStore`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log_bytes_max: usize,
    state: Mutex<State>,
    hints: Hints,
}

#[derive(Debug)]
struct State {
    set: WorkingSet,
    fleet: Registry,
    events: EventLog,
    /// Logs by where the parts of their attempts begin.
    logs: HashMap<JobId, BTreeMap<u64, Vec<u8>>>,
}

impl Default for MemoryJobStore {
    fn default() -> Self {
        Self::new(MemoryBounds::default())
    }
}

impl MemoryJobStore {
    /// An empty store.
    pub fn new(bounds: MemoryBounds) -> Self {
        let MemoryBounds { jobs, pending, bytes, log_bytes } = bounds;
        let set = WorkingSet::new(Bounds { jobs, pending, bytes });
        let state = Mutex::new(State {
            set,
            fleet: Registry::default(),
            events: EventLog::default(),
            logs: HashMap::new(),
        });
        Self { shared: Arc::new(Shared { log_bytes_max: log_bytes, state, hints: Hints::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything that could panic.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store, and tells those who look.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let told = change(&mut state);
        let mut changes = state.set.take_changes();
        let happened = std::mem::take(&mut changes.events);
        state.events.add(happened);
        for id in &changes.forgotten {
            state.logs.remove(id);
        }
        drop(state);
        self.shared.hints.tell(&changes);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::registry::BackendRegistry;
    use crate::conformance::backend_registry as fleet_suite;
    use crate::conformance::job_store as suite;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        suite::all(&MemoryJobStore::default()).await;
        let bounds = MemoryBounds { pending: 5, ..MemoryBounds::default() };
        suite::waiting_jobs_are_bounded(&MemoryJobStore::new(bounds), 5).await;
    }

    #[async_trait]
    impl fleet_suite::RegistryUnderTest for MemoryJobStore {
        async fn handle(&self) -> Arc<dyn BackendRegistry> {
            Arc::new(self.clone())
        }

        async fn reopen(&self) -> Arc<dyn BackendRegistry> {
            Arc::new(self.clone())
        }
    }

    #[tokio::test]
    async fn keeps_the_fleet() {
        let store = MemoryJobStore::default();
        fleet_suite::all(&store).await;
        suite::jobs_and_fleet_are_of_one_store(&store, &store).await;
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
    async fn what_is_refused_takes_nothing_away() {
        let bounds = MemoryBounds { jobs: 3, ..MemoryBounds::default() };
        let store = MemoryJobStore::new(bounds);
        let mut finished = Vec::new();
        for _ in 0..3 {
            let id = insert(&store).await.unwrap();
            finish(&store, id).await;
            finished.push(id);
        }
        let job = || suite::new_job("package: {}\n");
        let strange = job().waiting_for([JobId::new(suite::START)]);
        let many = (0..4).map(|_| job()).collect::<Vec<_>>();
        for jobs in [vec![strange], many] {
            store.submit(&Submission::new(jobs, suite::START)).await.unwrap_err();
        }
        // The oldest two leave for two new jobs, but not the one that is waited for.
        let two = [job().waiting_for([finished[0]]), job()];
        store.submit(&Submission::new(two, suite::START)).await.unwrap();
        store.get(finished[0]).await.unwrap();
        for id in &finished[1..] {
            assert_eq!(store.get(*id).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn a_log_is_bounded_and_has_room_for_a_last_word() {
        let store = MemoryJobStore::new(MemoryBounds { log_bytes: 100_000, ..MemoryBounds::default() });
        suite::logs_are_bounded(&store, 100_000).await;
    }
}
