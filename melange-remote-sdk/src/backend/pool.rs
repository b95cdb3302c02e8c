//! The backends of a server: they come and go while it runs, and their slots are leased here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Backend, Candidate};
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
}

/// A slot of a backend. Dropping it frees the slot.
#[derive(Debug)]
pub struct BackendLease {
    shared: Arc<Shared>,
    number: u64,
    backend: Arc<Backend>,
}

impl BackendLease {
    /// The backend of the slot, as it was when the slot was leased.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for BackendLease {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // The backend may have been removed meanwhile; then there is nothing to free.
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.running = entry.running.saturating_sub(1);
        }
        drop(state);
        self.shared.notify();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if it did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        state.next_entry += 1;
        let number = state.next_entry;
        state.entries.push(Entry { number, backend: Arc::clone(&backend), running: 0, last_chosen: 0 });
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
            let error = Error::new(ErrorKind::NotFound, format!("there is no backend {addr:?}"));
            return Err(error.hint("list the backends to see their addresses"));
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
        };
        state.entries.iter().map(candidate).collect()
    }

    /// Leases a slot; `None` when the backend is gone or has no free slot any more.
    pub fn lease(&self, addr: &str) -> Option<BackendLease> {
        let mut state = self.0.lock();
        let choice = state.last_choice + 1;
        let entry = state.entries.iter_mut().find(|entry| entry.backend.addr() == addr)?;
        if entry.running >= entry.backend.max_jobs() {
            return None;
        }
        entry.running += 1;
        entry.last_chosen = choice;
        let (number, backend) = (entry.number, Arc::clone(&entry.backend));
        state.last_choice = choice;
        Some(BackendLease { shared: Arc::clone(&self.0), number, backend })
    }

    /// The slots that are leased now.
    pub fn leased(&self) -> u64 {
        self.0.lock().entries.iter().map(|entry| u64::from(entry.running)).sum()
    }

    /// Changes whenever a backend comes or goes or a slot becomes free.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
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
}
