//! The fleet of a server: its own configuration and what all servers of its store know together, kept in step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{MutexGuard, watch};

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
    /// What of the fleet could not be read when it was told last.
    unreadable: Mutex<BTreeMap<String, String>>,
    /// Held while the registry is asked and the pool follows, so that the pool never goes back to what was before.
    following: tokio::sync::Mutex<()>,
}

/// What the server has in its configuration, and what it has said of it.
#[derive(Debug)]
struct Own {
    backends: Vec<Backend>,
    /// Counts what it has had, so that a word that is under way is not taken for the one that is due since.
    version: u64,
    word: Word,
}

/// How it stands with the server's word on its configuration.
#[derive(Debug, Clone, Copy)]
enum Word {
    /// It is to be given.
    Due,
    /// It was given, and holds until then.
    Given(Timestamp),
    /// It was refused, and is given again then.
    Refused(Timestamp),
    /// The server ends, and says nothing more.
    TakenBack,
}

impl Word {
    fn is_due(self, now: Timestamp) -> bool {
        let half = limits::BACKENDS_CONFIGURED / 2;
        // Moments that lie too far ahead were set by a clock that has gone back since.
        match self {
            Self::Due => true,
            Self::Given(until) => until <= later(now, half) || until > later(now, half * 2),
            Self::Refused(again) => again <= now || again > later(now, half),
            Self::TakenBack => false,
        }
    }
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
            own: Mutex::new(Own { backends: Vec::new(), version: 0, word: Word::Due }),
            unreadable: Mutex::default(),
            following: tokio::sync::Mutex::default(),
        };
        let fleet = Self(Arc::new(fleet));
        if let Some(machine) = &parts.machine {
            parts.pool.set_machine(machine);
        }
        fleet.own().backends = parts.pool.backends().iter().map(|own| Backend::clone(own)).collect();
        fleet
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Own> {
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

    /// Gives the server's word, tells what it saw, and takes over what the registry says. A word that is refused is logged,
    /// and given again after a while.
    ///
    /// # Errors
    /// Those of the registry; what was seen is told the next time.
    pub async fn follow(&self) -> Result<()> {
        self.keep_step().await.map(drop)
    }

    /// Does what [`Self::follow`] says; why the registry refused the word, if it did.
    async fn keep_step(&self) -> Result<Option<Error>> {
        let _turn = self.turn().await?;
        let seen = self.0.pool.take_observations(&self.0.server);
        let mut refusal = None;
        let version = self.own().version;
        let mut told = self.tell(&seen).await;
        if let Err(error) = &told
            && !error.kind().is_retryable()
            && self.refused(error, version)
        {
            refusal = told.err();
            told = self.tell(&seen).await;
        }
        if told.is_err() {
            self.0.pool.put_back(seen);
        }
        told.map(|()| refusal)
    }

    /// The turn to ask the registry, for which the scheduler and requests wait in one row. The wait has a bound, so that
    /// many who ask a registry that hangs do not hold up the scheduler one after the other.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>> {
        in_time(self.0.lease, async { Ok(self.0.following.lock().await) }).await
    }

    /// Notes that the registry refused the word of a version; whether one was due. A later one is to be given at once.
    fn refused(&self, error: &Error, version: u64) -> bool {
        let (now, mut own) = (self.0.clock.now(), self.own());
        let was_due = own.word.is_due(now);
        if was_due && own.version == version {
            let hint = error.hint_text().unwrap_or_default();
            tracing::error!(error = %error.chain(), hint, "the fleet does not take this server's word");
            own.word = Word::Refused(later(now, limits::BACKENDS_CONFIGURED / 2));
        }
        was_due
    }

    /// Tells the registry changes, behind the server's word when that is to be given: what they are about may be known by it
    /// alone. The pool takes over the answer. The caller has its turn.
    async fn tell(&self, changes: &[FleetChange]) -> Result<()> {
        let now = self.0.clock.now();
        let (word, version) = self.word(now);
        let is_word = word.is_some();
        let changes: Vec<FleetChange> = word.into_iter().chain(changes.iter().cloned()).collect();
        let fleet = if changes.is_empty() {
            in_time(self.0.lease, self.0.registry.fleet(&self.0.server)).await?
        } else {
            let asked = self.0.registry.change_fleet(&self.0.server, &changes, now);
            in_time(self.0.lease, asked).await?
        };
        let mut own = self.own();
        if is_word && own.version == version {
            own.word = Word::Given(later(now, limits::BACKENDS_CONFIGURED));
        }
        let is_known = fleet.backends.iter().any(|known| known.configured.contains_key(&self.0.server));
        if !is_word && !is_known && !own.backends.is_empty() && matches!(own.word, Word::Given(_)) {
            // A server whose clock is ahead took it for one of long ago.
            own.word = Word::Due;
        }
        drop(own);
        self.note_unreadable(&fleet.unreadable);
        self.0.pool.adopt(&fleet, &self.0.server, self.0.machine.as_deref());
        Ok(())
    }

    /// Logs what could not be read, once.
    fn note_unreadable(&self, unreadable: &BTreeMap<String, String>) {
        let mut known = self.0.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *unreadable {
            for (backend, error) in unreadable {
                tracing::error!(
                    backend,
                    error,
                    "what is stored of a backend cannot be read; add it anew to use it"
                );
            }
            known.clone_from(unreadable);
        }
    }

    /// The server's word on its configuration, when it is to be given (again), and its version.
    fn word(&self, now: Timestamp) -> (Option<FleetChange>, u64) {
        let own = self.own();
        let word = own.word.is_due(now).then(|| {
            let backends = own.backends.iter().map(|own| (own.place(), BackendSpec::from(own))).collect();
            let until = later(now, limits::BACKENDS_CONFIGURED);
            FleetChange::Configure { server: self.0.server.clone(), backends, until }
        });
        (word, own.version)
    }

    /// Makes one change, and the pool follows.
    async fn change(&self, change: FleetChange) -> Result<()> {
        let _turn = self.turn().await?;
        self.tell(&[change]).await
    }

    /// Adds a backend for all servers; its address is its name. It stays when they start again.
    ///
    /// # Errors
    /// `AlreadyExists` when the address is taken; `LimitExceeded` beyond [`limits::BACKENDS_MAX`]; `Unavailable`.
    pub async fn add(&self, backend: Backend) -> Result<BackendState> {
        let backend = self.here(backend);
        let place = backend.place();
        if self.0.pool.state_at(&place).is_some() {
            let message = format!("there is a backend {} already", backend.addr());
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let spec = BackendSpec::from(&backend);
        self.change(FleetChange::Add { place: place.clone(), spec }).await?;
        self.state(&place)
    }

    /// Removes a backend for all servers, also when it is in their configuration and they start again. Jobs that run on it
    /// go on; no new ones start there. The machine names one of several with a local address.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `InvalidRequest` when there are several, or it is the last one;
    /// `Unavailable`.
    pub async fn remove(&self, addr: &str, machine: Option<&str>) -> Result<()> {
        let place = self.place(addr, machine)?;
        self.change(FleetChange::Remove { place }).await
    }

    /// Gives a backend no further jobs: those that run on it go on. The machine names one of several with a local address.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `InvalidRequest` when there are several; `Unavailable`.
    pub async fn drain(&self, addr: &str, machine: Option<&str>) -> Result<BackendState> {
        self.set_draining(addr, machine, true).await
    }

    /// Gives a drained backend jobs again.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub async fn enable(&self, addr: &str, machine: Option<&str>) -> Result<BackendState> {
        self.set_draining(addr, machine, false).await
    }

    async fn set_draining(&self, addr: &str, machine: Option<&str>, draining: bool) -> Result<BackendState> {
        let place = self.place(addr, machine)?;
        self.change(FleetChange::Drain { place: place.clone(), draining }).await?;
        self.state(&place)
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
            let mut own = self.own();
            let added = backends.iter().filter(|backend| !own.backends.contains(backend)).count();
            let removed = own.backends.iter().filter(|backend| !backends.contains(backend)).count();
            (own.backends, own.version) = (backends, own.version.wrapping_add(1));
            if !matches!(own.word, Word::TakenBack) {
                own.word = Word::Due;
            }
            (added, removed)
        };
        self.keep_step().await?.map_or(Ok((added, removed)), Err)
    }

    /// Takes the server's word back: it ends.
    ///
    /// # Errors
    /// Those of the registry; the word holds for a while then.
    pub(super) async fn leave(&self) -> Result<()> {
        let _turn = self.turn().await?;
        {
            let mut own = self.own();
            (own.word, own.version) = (Word::TakenBack, own.version.wrapping_add(1));
        }
        let mut changes = self.0.pool.take_observations(&self.0.server);
        changes.push(FleetChange::Leave { server: self.0.server.clone() });
        let asked = self.0.registry.change_fleet(&self.0.server, &changes, self.0.clock.now());
        in_time(self.0.lease, asked).await.map(drop)
    }

    /// A backend as one of this machine.
    fn here(&self, backend: Backend) -> Backend {
        self.0.machine.iter().fold(backend, |backend, machine| backend.on_machine(machine))
    }

    fn state(&self, place: &BackendPlace) -> Result<BackendState> {
        self.0.pool.state_at(place).ok_or_else(|| no_backend(&place.addr))
    }

    fn place(&self, addr: &str, machine: Option<&str>) -> Result<BackendPlace> {
        Ok(self.0.pool.state(addr, machine)?.backend.place())
    }
}
