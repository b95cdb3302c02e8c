//! The backends of a server: they come and go while it runs, their slots are leased here, and what becomes of attempts
//! and probes decides which of them get jobs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::{BackendFailure, BackendStatus, Health};
use super::{Backend, Candidate, Closed};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Backends in the order in which they were added. Clones share one set.
#[derive(Debug, Clone)]
pub struct BackendPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Tells a backend from another one that later got the same address.
    next_entry: u64,
    last_choice: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    backend: Arc<Backend>,
    running: u32,
    last_chosen: u64,
    health: Health,
    draining: bool,
    /// When it was probed last.
    probed: Option<Instant>,
}

/// A backend with what is known of it now.
#[derive(Debug, Clone)]
pub struct BackendState {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The jobs that run on it.
    pub running: u32,
    /// What it is good for.
    pub status: BackendStatus,
    /// The time that its last answered probe took.
    pub latency: Option<Duration>,
    /// Its last failure, also when it works again.
    pub last_failure: Option<BackendFailure>,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
}

impl State {
    fn push(&mut self, backend: Arc<Backend>) {
        self.next_entry += 1;
        self.entries.push(Entry::new(self.next_entry, backend));
    }
}

impl Entry {
    fn new(number: u64, backend: Arc<Backend>) -> Self {
        let (health, probed) = (Health::default(), None);
        Self { number, backend, running: 0, last_chosen: 0, health, draining: false, probed }
    }

    fn closed(&self) -> Option<Closed> {
        if self.draining {
            return Some(Closed::Draining);
        }
        if self.health.admits() {
            return None;
        }
        Some(match (self.health.status(), self.health.last_failure()) {
            (BackendStatus::Failing, Some(failure)) => Closed::Failing { message: failure.message.clone() },
            _ => Closed::Trial,
        })
    }

    fn state(&self) -> BackendState {
        BackendState {
            backend: Arc::clone(&self.backend),
            running: self.running,
            status: if self.draining { BackendStatus::Draining } else { self.health.status() },
            latency: self.health.latency(),
            last_failure: self.health.last_failure().cloned(),
            failing_since: self.health.failing_since(),
        }
    }

    fn note_failure(&mut self, failure: BackendFailure, unreachable: bool) {
        let (message, hint) = (failure.message.clone(), failure.hint.clone().unwrap_or_default());
        if self.health.failed(failure, unreachable, Instant::now()) {
            let addr = self.backend.addr();
            tracing::warn!(addr, error = message, hint, "a backend fails and gets no jobs for now");
        }
    }

    fn note_recovery(&self, works_again: bool) {
        if works_again {
            tracing::info!(addr = self.backend.addr(), "a backend works again");
        }
    }
}

/// A slot of a backend. Dropping it frees the slot. What becomes of the job says something about the backend, unless
/// nobody tells.
#[derive(Debug)]
pub struct BackendLease {
    shared: Arc<Shared>,
    number: u64,
    backend: Arc<Backend>,
    told: std::sync::atomic::AtomicBool,
    /// Whether its end is news.
    quiet: bool,
}

impl BackendLease {
    /// Gives the slot back that nobody used. That is no news: whoever waits for a free slot has just tried this one.
    pub fn unused(mut self) {
        self.quiet = true;
    }

    /// The backend of the slot, as it was when the slot was leased.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The backend did what it should, whatever became of the job.
    pub fn worked(&self) {
        self.tell(|entry| {
            let works_again = entry.health.worked();
            entry.note_recovery(works_again);
        });
    }

    /// The backend is at fault for what it did.
    pub fn failed(&self, failure: BackendFailure) {
        self.tell(|entry| entry.note_failure(failure, false));
    }

    /// The backend did not answer at all.
    pub fn unreachable(&self, failure: BackendFailure) {
        self.tell(|entry| entry.note_failure(failure, true));
    }

    fn tell(&self, what: impl FnOnce(&mut Entry)) {
        self.told.store(true, std::sync::atomic::Ordering::Relaxed);
        self.shared.change(self.number, what);
    }
}

impl Drop for BackendLease {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // The backend may have been removed meanwhile; then there is nothing to free.
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.running = entry.running.saturating_sub(1);
            if !self.told.load(std::sync::atomic::Ordering::Relaxed) {
                entry.health.ended_without_a_word();
            }
        }
        drop(state);
        if !self.quiet {
            self.shared.notify();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the backend with a number, if it is still there.
    fn change(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().entries.iter_mut().find(|entry| entry.number == number) {
            change(entry);
        }
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl BackendPool {
    /// A pool of `backends`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Result<Self> {
        let shared = Shared { state: Mutex::default(), changed: watch::Sender::new(0) };
        let pool = Self(Arc::new(shared));
        for backend in backends {
            pool.add(backend)?;
        }
        Ok(pool)
    }

    /// Adds a backend; its address is its name.
    ///
    /// # Errors
    /// `AlreadyExists` when the address is taken; `LimitExceeded` beyond [`limits::BACKENDS_MAX`].
    pub fn add(&self, backend: Backend) -> Result<Arc<Backend>> {
        let backend = Arc::new(backend);
        let mut state = self.0.lock();
        if state.entries.iter().any(|entry| entry.backend.addr() == backend.addr()) {
            let message = format!("there is a backend {} already", backend.addr());
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        if state.entries.len() >= limits::BACKENDS_MAX {
            let message = format!("there are {} backends already", limits::BACKENDS_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        state.push(Arc::clone(&backend));
        drop(state);
        self.0.notify();
        Ok(backend)
    }

    /// Removes a backend. Jobs that run on it go on; no new ones start there.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `InvalidRequest` when it is the last one.
    pub fn remove(&self, addr: &str) -> Result<()> {
        let mut state = self.0.lock();
        let Some(index) = state.entries.iter().position(|entry| entry.backend.addr() == addr) else {
            return Err(no_backend(addr));
        };
        if state.entries.len() == 1 {
            let error = Error::invalid("the last backend cannot be removed");
            return Err(error.hint("add another backend first"));
        }
        state.entries.remove(index);
        drop(state);
        self.0.notify();
        Ok(())
    }

    /// Makes the set of backends the given one: those that are in both, as they are, stay with their jobs and their
    /// health; the others come or go. Returns how many came and went.
    pub fn replace(&self, backends: Vec<Backend>) -> (usize, usize) {
        let mut state = self.0.lock();
        let before = state.entries.len();
        state.entries.retain(|entry| backends.contains(&entry.backend));
        let removed = before - state.entries.len();
        let mut added = 0;
        for backend in backends.into_iter().take(limits::BACKENDS_MAX) {
            if state.entries.iter().any(|entry| entry.backend.addr() == backend.addr()) {
                continue;
            }
            state.push(Arc::new(backend));
            added += 1;
        }
        drop(state);
        self.0.notify();
        (added, removed)
    }

    /// The backends, in the order in which they were added.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.0.lock().entries.iter().map(|entry| Arc::clone(&entry.backend)).collect()
    }

    /// The architectures of the backends.
    pub fn arches(&self) -> BTreeSet<Arch> {
        self.0.lock().entries.iter().map(|entry| entry.backend.arch()).collect()
    }

    /// The backends as a selector sees them now.
    pub fn candidates(&self) -> Vec<Candidate> {
        let state = self.0.lock();
        let candidate = |entry: &Entry| Candidate {
            backend: Arc::clone(&entry.backend),
            running: entry.running,
            last_chosen: entry.last_chosen,
            closed: entry.closed(),
        };
        state.entries.iter().map(candidate).collect()
    }

    /// The backends with what is known of them, in the order in which they were added.
    pub fn states(&self) -> Vec<BackendState> {
        self.0.lock().entries.iter().map(Entry::state).collect()
    }

    /// Gives a backend no further jobs: those that run on it go on.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address.
    pub fn drain(&self, addr: &str) -> Result<BackendState> {
        self.set_draining(addr, true)
    }

    /// Gives a drained backend jobs again.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub fn enable(&self, addr: &str) -> Result<BackendState> {
        self.set_draining(addr, false)
    }

    fn set_draining(&self, addr: &str, draining: bool) -> Result<BackendState> {
        let mut state = self.0.lock();
        let entry = state.entries.iter_mut().find(|entry| entry.backend.addr() == addr);
        let entry = entry.ok_or_else(|| no_backend(addr))?;
        entry.draining = draining;
        let now = entry.state();
        drop(state);
        self.0.notify();
        Ok(now)
    }

    /// The backends that shall be probed now, with the numbers by which [`Self::probed`] knows them; each is given out
    /// once an interval.
    pub fn due_probes(&self, now: Instant) -> Vec<(u64, Arc<Backend>)> {
        let mut state = self.0.lock();
        let due = |entry: &&mut Entry| {
            let interval = if entry.health.admits() { limits::PROBE_INTERVAL } else { limits::BREAKER_PAUSE };
            entry.health.is_probe_due(now) && entry.probed.is_none_or(|probed| probed + interval <= now)
        };
        let take = |entry: &mut Entry| {
            entry.probed = Some(now);
            (entry.number, Arc::clone(&entry.backend))
        };
        state.entries.iter_mut().filter(due).take(limits::PROBES_MAX).map(take).collect()
    }

    /// What a probe came to: the time it took, or the failure.
    pub fn probed(&self, number: u64, result: std::result::Result<Duration, BackendFailure>) {
        self.0.change(number, |entry| match result {
            Ok(latency) => {
                let works_again = entry.health.answered(latency);
                entry.note_recovery(works_again);
            }
            Err(failure) => entry.note_failure(failure, true),
        });
    }

    /// Leases a slot; `None` when the backend is gone, gets no jobs, or has no free slot any more.
    pub fn lease(&self, addr: &str) -> Option<BackendLease> {
        let mut state = self.0.lock();
        let choice = state.last_choice + 1;
        let entry = state.entries.iter_mut().find(|entry| entry.backend.addr() == addr)?;
        if entry.running >= entry.backend.max_jobs() || entry.closed().is_some() {
            return None;
        }
        entry.health.began();
        entry.running += 1;
        entry.last_chosen = choice;
        let (number, backend) = (entry.number, Arc::clone(&entry.backend));
        state.last_choice = choice;
        let told = std::sync::atomic::AtomicBool::new(false);
        Some(BackendLease { shared: Arc::clone(&self.0), number, backend, told, quiet: false })
    }

    /// The slots that are leased now.
    pub fn leased(&self) -> u64 {
        self.0.lock().entries.iter().map(|entry| u64::from(entry.running)).sum()
    }

    /// Changes whenever a backend comes or goes, a slot becomes free, or the health of a backend changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

fn no_backend(addr: &str) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("there is no backend {addr:?}"));
    error.hint("list the backends to see their addresses")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;

    fn backend(addr: &str) -> Backend {
        Backend::new(addr, Arch::X86_64, Labels::default()).unwrap().with_max_jobs(1).unwrap()
    }

    #[test]
    fn addresses_are_unique_and_the_last_backend_stays() {
        let pool = BackendPool::new([backend("tcp://a:1")]).unwrap();
        assert_eq!(pool.add(backend("tcp://a:1")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(pool.remove("tcp://a:1").unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(pool.remove("tcp://b:1").unwrap_err().kind(), ErrorKind::NotFound);
        pool.add(backend("tcp://b:1")).unwrap();
        pool.remove("tcp://a:1").unwrap();
        assert_eq!(pool.backends()[0].addr(), "tcp://b:1");
    }

    #[test]
    fn slots_are_bounded_and_come_back() {
        let pool = BackendPool::new([backend("tcp://a:1"), backend("tcp://b:1")]).unwrap();
        let mut hint = pool.changed();
        hint.mark_unchanged();
        let slot = pool.lease("tcp://a:1").unwrap();
        assert!(pool.lease("tcp://a:1").is_none());
        assert!(!hint.has_changed().unwrap());
        drop(slot);
        assert!(hint.has_changed().unwrap());
        let slot = pool.lease("tcp://a:1").unwrap();
        pool.remove("tcp://a:1").unwrap();
        let again = pool.add(backend("tcp://a:1")).unwrap();
        assert!(!Arc::ptr_eq(&again, slot.backend()));
        // The slot belongs to the backend that was removed, not to the one that has its address now.
        let _new = pool.lease("tcp://a:1").unwrap();
        drop(slot);
        assert_eq!(pool.leased(), 1);
    }

    #[test]
    fn a_new_set_keeps_what_did_not_change() {
        let pool = BackendPool::new([backend("tcp://a:1"), backend("tcp://b:1")]).unwrap();
        let lease = pool.lease("tcp://a:1").unwrap();
        let larger = backend("tcp://b:1").with_max_jobs(7).unwrap();
        assert_eq!(pool.replace(vec![backend("tcp://a:1"), larger, backend("tcp://c:1")]), (2, 1));
        assert!(pool.lease("tcp://a:1").is_none(), "its slot is still taken");
        drop(lease);
        assert!(pool.lease("tcp://a:1").is_some());
        let addrs: Vec<String> = pool.backends().iter().map(|b| b.addr().to_owned()).collect();
        assert_eq!(addrs, ["tcp://a:1", "tcp://b:1", "tcp://c:1"]);
    }

    #[test]
    fn a_drained_backend_finishes_what_it_runs() {
        let pool = BackendPool::new([backend("tcp://a:1")]).unwrap();
        let lease = pool.lease("tcp://a:1").unwrap();
        assert_eq!(pool.set_draining("tcp://a:1", true).unwrap().status, BackendStatus::Draining);
        drop(lease);
        assert!(pool.lease("tcp://a:1").is_none());
        assert_eq!(pool.candidates()[0].closed, Some(Closed::Draining));
        pool.set_draining("tcp://a:1", false).unwrap();
        assert!(pool.lease("tcp://a:1").is_some());
        assert_eq!(pool.set_draining("tcp://b:1", true).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_does_not_answer_gets_no_jobs_until_a_probe_is_answered() {
        let pool = BackendPool::new([backend("tcp://a:1")]).unwrap();
        let due = pool.due_probes(Instant::now());
        assert_eq!(due.len(), 1);
        assert!(pool.due_probes(Instant::now()).is_empty(), "once an interval");
        let failure = BackendFailure { message: "refused".to_owned(), hint: None, at: Timestamp::UNIX_EPOCH };
        pool.lease("tcp://a:1").unwrap().unreachable(failure);
        assert!(pool.lease("tcp://a:1").is_none());
        assert_eq!(pool.candidates()[0].closed, Some(Closed::Failing { message: "refused".to_owned() }));
        tokio::time::advance(limits::BREAKER_PAUSE).await;
        let due = pool.due_probes(Instant::now());
        let mut hint = pool.changed();
        hint.mark_unchanged();
        pool.probed(due[0].0, Ok(Duration::from_millis(2)));
        assert!(hint.has_changed().unwrap(), "jobs that wait are looked at");
        assert_eq!(pool.states()[0].status, BackendStatus::Healthy);
        pool.lease("tcp://a:1").unwrap().worked();
    }
}
