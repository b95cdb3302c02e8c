//! The fleet of a server: its own configuration and what all servers of its store know together, kept in step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{SchedulerParts, in_time};
use crate::backend::Backend;
use crate::backend::pool::{BackendPool, BackendState, check_backends};
use crate::backend::registry::{BackendRegistry, BackendSpec, FleetChange, no_backend};
use crate::clock::{Clock, later};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BackendPlace, ServerId};
use crate::limits;

/// Changes the fleet, and keeps a [`BackendPool`] as the registry says. Clones share it.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    pool: BackendPool,
    registry: Arc<dyn BackendRegistry>,
    clock: Arc<dyn Clock>,
    server: ServerId,
    machine: Option<String>,
    lease: Duration,
    own: Mutex<Own>,
    /// Held while the registry is asked and the pool follows, so that the pool never goes back to what was before.
    following: tokio::sync::Mutex<()>,
}

/// What the server has in its configuration, and what it has said of it.
#[derive(Debug)]
struct Own {
    backends: Vec<Backend>,
    /// Until when its word holds; `None` when it has to be given.
    said_until: Option<Timestamp>,
}

impl Fleet {
    /// The fleet of a server whose configuration has the backends of the pool. The registry has a third of a lease to answer.
    pub(super) fn new(parts: &SchedulerParts, lease: Duration) -> Self {
        let fleet = Parts {
            pool: parts.pool.clone(),
            registry: Arc::clone(&parts.registry),
            clock: Arc::clone(&parts.clock),
            server: parts.server.clone(),
            machine: parts.machine.clone(),
            lease,
            own: Mutex::new(Own { backends: Vec::new(), said_until: None }),
            following: tokio::sync::Mutex::default(),
        };
        let fleet = Self(Arc::new(fleet));
        let backends = parts.pool.backends();
        fleet.own().backends = backends.iter().map(|own| fleet.here(Backend::clone(own))).collect();
        fleet
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backends as this server sees them.
    pub fn pool(&self) -> &BackendPool {
        &self.0.pool
    }

    /// Moves when the fleet may have changed.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.0.registry.fleet_changed()
    }

    /// Whether the registry is to be told something.
    pub(super) fn has_news(&self) -> bool {
        self.0.pool.has_observations()
    }

    /// Gives the server's word, tells what it saw, and takes over what the registry says.
    ///
    /// # Errors
    /// Those of the registry; what was seen is told the next time.
    pub async fn follow(&self) -> Result<()> {
        let _following = self.0.following.lock().await;
        let seen = self.0.pool.take_observations(&self.0.server);
        let told = self.tell(&seen).await;
        if told.is_err() {
            self.0.pool.put_back(seen);
        }
        told
    }

    /// Tells the registry changes, behind the server's word when that is to be given: what they are about may be known by it
    /// alone. The pool takes over the answer. The caller holds `following`.
    async fn tell(&self, changes: &[FleetChange]) -> Result<()> {
        let now = self.0.clock.now();
        let word = self.word(now);
        let is_word = word.is_some();
        let changes: Vec<FleetChange> = word.into_iter().chain(changes.iter().cloned()).collect();
        let fleet = if changes.is_empty() {
            in_time(self.0.lease, self.0.registry.fleet(&self.0.server)).await?
        } else {
            let asked = self.0.registry.change_fleet(&self.0.server, &changes, now);
            in_time(self.0.lease, asked).await?
        };
        if is_word {
            self.own().said_until = Some(later(now, limits::BACKENDS_CONFIGURED));
        }
        self.0.pool.adopt(&fleet, &self.0.server, self.0.machine.as_deref());
        Ok(())
    }

    /// The server's word on its configuration, when it is to be given (again).
    fn word(&self, now: Timestamp) -> Option<FleetChange> {
        let half = limits::BACKENDS_CONFIGURED / 2;
        let is_due = |until: Timestamp| until <= later(now, half) || until > later(now, half * 2);
        let own = self.own();
        own.said_until.is_none_or(is_due).then(|| {
            let backends = own.backends.iter().map(|own| (own.place(), BackendSpec::from(own))).collect();
            let until = later(now, limits::BACKENDS_CONFIGURED);
            FleetChange::Configure { server: self.0.server.clone(), backends, until }
        })
    }

    /// Makes one change, and the pool follows.
    async fn change(&self, change: FleetChange) -> Result<()> {
        let _following = self.0.following.lock().await;
        self.tell(&[change]).await
    }

    /// Adds a backend for all servers; its address is its name. It stays when they start again.
    ///
    /// # Errors
    /// `AlreadyExists` when the address is taken; `LimitExceeded` beyond [`limits::BACKENDS_MAX`]; `Unavailable`.
    pub async fn add(&self, backend: Backend) -> Result<BackendState> {
        let backend = self.here(backend);
        if self.0.pool.state(backend.addr()).is_some_and(|known| known.backend.place() == backend.place()) {
            let message = format!("there is a backend {} already", backend.addr());
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let (place, spec) = (backend.place(), BackendSpec::from(&backend));
        self.change(FleetChange::Add { place, spec }).await?;
        self.state(backend.addr())
    }

    /// Removes a backend for all servers, also when it is in their configuration and they start again. Jobs that run on it
    /// go on; no new ones start there.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `InvalidRequest` when it is the last one; `Unavailable`.
    pub async fn remove(&self, addr: &str) -> Result<()> {
        let place = self.place(addr)?;
        self.change(FleetChange::Remove { place }).await
    }

    /// Gives a backend no further jobs: those that run on it go on.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `Unavailable`.
    pub async fn drain(&self, addr: &str) -> Result<BackendState> {
        self.set_draining(addr, true).await
    }

    /// Gives a drained backend jobs again.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub async fn enable(&self, addr: &str) -> Result<BackendState> {
        self.set_draining(addr, false).await
    }

    async fn set_draining(&self, addr: &str, draining: bool) -> Result<BackendState> {
        let place = self.place(addr)?;
        self.change(FleetChange::Drain { place, draining }).await?;
        self.state(addr)
    }

    /// Makes these the backends of the server's configuration; how many came and went. When the registry does not answer,
    /// they are told it as soon as it does.
    ///
    /// # Errors
    /// Those of [`check_backends`], which change nothing, and those of the registry.
    pub async fn configure(&self, backends: Vec<Backend>) -> Result<(usize, usize)> {
        let backends: Vec<Backend> =
            check_backends(backends)?.into_iter().map(|backend| self.here(backend)).collect();
        let (added, removed) = {
            // A word that is being given is not taken for this one.
            let _following = self.0.following.lock().await;
            let mut own = self.own();
            let added = backends.iter().filter(|backend| !own.backends.contains(backend)).count();
            let removed = own.backends.iter().filter(|backend| !backends.contains(backend)).count();
            *own = Own { backends, said_until: None };
            (added, removed)
        };
        self.follow().await?;
        Ok((added, removed))
    }

    /// Takes the server's word back: it ends.
    ///
    /// # Errors
    /// Those of the registry; the word holds for a while then.
    pub(super) async fn leave(&self) -> Result<()> {
        let _following = self.0.following.lock().await;
        self.own().said_until = None;
        let mut changes = self.0.pool.take_observations(&self.0.server);
        changes.push(FleetChange::Leave { server: self.0.server.clone() });
        let asked = self.0.registry.change_fleet(&self.0.server, &changes, self.0.clock.now());
        in_time(self.0.lease, asked).await.map(drop)
    }

    /// A backend as one of this machine.
    fn here(&self, backend: Backend) -> Backend {
        self.0.machine.iter().fold(backend, |backend, machine| backend.on_machine(machine))
    }

    fn state(&self, addr: &str) -> Result<BackendState> {
        self.0.pool.state(addr).ok_or_else(|| no_backend(addr))
    }

    fn place(&self, addr: &str) -> Result<BackendPlace> {
        Ok(self.state(addr)?.backend.place())
    }
}
