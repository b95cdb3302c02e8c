//! The fleet as all servers of one job store see it: which backends there are, which of them are drained, and whether
//! they are fit for work. The contract, the rules, and a registry in memory.
//!
//! A server runs jobs on the backends of its own configuration and on those that were added at run time; the others it
//! knows and tells of. What was removed or drained at run time stays so when servers start again with the same
//! configuration. An address of one machine, such as `sandbox://local`, names another backend on another machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Backend;
use super::health::{BackendStatus, Health, Observation};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BackendCapacity, BackendLoad, BackendPlace, BackendStateEvent, Event, ServerId};
use crate::labels::Labels;
use crate::limits;
use crate::pointers::hand_on;

/// What a backend is, apart from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSpec {
    /// The architecture that it builds for.
    pub arch: Arch,
    /// Its labels.
    pub labels: Labels,
    /// How many jobs it runs at once.
    pub max_jobs: u32,
    /// What these share.
    #[serde(default, skip_serializing_if = "BackendCapacity::is_unknown")]
    pub capacity: BackendCapacity,
}

impl BackendSpec {
    /// A backend that runs so many jobs at once, and of which no more is counted.
    pub fn new(arch: Arch, labels: Labels, max_jobs: u32) -> Self {
        Self { arch, labels, max_jobs, capacity: BackendCapacity::default() }
    }
}

impl From<&Backend> for BackendSpec {
    fn from(backend: &Backend) -> Self {
        Self {
            arch: backend.arch(),
            labels: backend.labels().clone(),
            max_jobs: backend.max_jobs(),
            capacity: backend.capacity(),
        }
    }
}

/// A backend as a server configured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredBackend {
    /// What it is.
    pub spec: BackendSpec,
    /// Until when the server's word holds.
    pub until: Timestamp,
}

/// What is known of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RegisteredBackend {
    /// Where it is.
    pub place: BackendPlace,
    /// Its place in the order in which backends came.
    pub number: u64,
    /// What it is, when it was added at run time.
    pub added: Option<BackendSpec>,
    /// What it was configured as when it was removed at run time, the latest last: as that it is used no longer.
    pub removed: Vec<BackendSpec>,
    /// The servers that have it in their configuration.
    pub configured: BTreeMap<ServerId, ConfiguredBackend>,
    /// Whether it finishes what it runs and gets no more.
    pub draining: bool,
    /// Whether it is fit for work.
    pub health: Health,
}

impl RegisteredBackend {
    fn new(place: BackendPlace, number: u64) -> Self {
        Self {
            place,
            number,
            added: None,
            removed: Vec::new(),
            configured: BTreeMap::new(),
            draining: false,
            health: Health::default(),
        }
    }

    /// What it is for a server on a machine, which may run jobs on it: what its own configuration says, or what was added at
    /// run time, unless that is a backend of another machine.
    pub fn spec_for(&self, server: &ServerId, machine: Option<&str>) -> Option<&BackendSpec> {
        let own = self.configured.get(server).map(|configured| &configured.spec);
        let is_here = self.place.machine.is_none() || self.place.machine.as_deref() == machine;
        own.filter(|spec| !self.removed.contains(spec)).or(self.added.as_ref().filter(|_| is_here))
    }

    /// What it is for anybody; `None` for one that nobody has any more.
    pub fn spec(&self) -> Option<&BackendSpec> {
        let mut configured = self.configured.values().map(|configured| &configured.spec);
        self.added.as_ref().or_else(|| configured.find(|spec| !self.removed.contains(spec)))
    }

    /// What it is good for now.
    pub fn status(&self) -> BackendStatus {
        if self.draining { BackendStatus::Draining } else { self.health.status() }
    }

    /// Whether something is to be known of it.
    fn is_kept(&self) -> bool {
        self.added.is_some() || !self.configured.is_empty() || self.draining || !self.removed.is_empty()
    }

    fn forget_words_of_before(&mut self, now: Timestamp) {
        self.configured.retain(|_, configured| configured.until > now);
    }

    /// Its state as an event.
    fn event(&self, status: &'static str, at: Timestamp) -> Event {
        let failure = self.health.last_failure().filter(|_| self.health.failing_since().is_some());
        Event::backend_state(
            BackendStateEvent {
                addr: self.place.addr.clone(),
                machine: self.place.machine.clone(),
                state: status.to_owned(),
                arch: self.spec().map(|spec| spec.arch.to_string()),
                max_jobs: self.spec().map(|spec| spec.max_jobs),
                error: failure.map(|failure| failure.message.clone()),
            },
            at,
        )
    }
}

/// A change of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FleetChange {
    /// A server has these backends in its configuration, and no others, until it says so again. One that was removed at
    /// run time stays so, unless it is another one for this server by now.
    Configure {
        /// The server.
        server: ServerId,
        /// The backends.
        backends: Vec<(BackendPlace, BackendSpec)>,
        /// Until when its word holds.
        until: Timestamp,
    },
    /// A server ends; what it configured is not its any more.
    Leave {
        /// The server.
        server: ServerId,
    },
    /// A backend is added at run time.
    Add {
        /// Where.
        place: BackendPlace,
        /// What.
        spec: BackendSpec,
    },
    /// A backend is removed at run time.
    Remove {
        /// Where.
        place: BackendPlace,
    },
    /// A backend gets no more jobs, or gets jobs again.
    Drain {
        /// Where.
        place: BackendPlace,
        /// Whether it gets no more.
        draining: bool,
    },
    /// A server saw how a backend is.
    Observe {
        /// Where.
        place: BackendPlace,
        /// The server.
        by: ServerId,
        /// What it saw.
        observation: Observation,
    },
}

/// The fleet at one moment, for one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetState {
    /// The backends, in the order in which they came; also those of which no more is known than that they are drained or
    /// were removed.
    pub backends: Vec<RegisteredBackend>,
    /// What jobs of other servers run on backends, by [`BackendPlace::key`].
    pub elsewhere: BTreeMap<String, BackendLoad>,
    /// What is kept of backends and could not be read, by [`BackendPlace::key`], with the cause. They count as unknown;
    /// whoever configures or adds one writes it anew.
    pub unreadable: BTreeMap<String, String>,
}

impl FleetState {
    /// These backends, on which no other server runs jobs.
    pub fn new(backends: Vec<RegisteredBackend>) -> Self {
        Self { backends, ..Self::default() }
    }
}

/// Keeps the fleet.
///
/// # Contract
/// * The changes of a call are made in order, and all of them or none; [`Registry`] has the rules.
/// * `Unavailable` means that they are made or not, and the same call again tells: what is as asked already is no mistake,
///   but for a removal, which is `NotFound` then.
/// * Changes of different servers at once are as changes in a row: none is lost.
/// * What a call changed, later calls of all servers see, also after the registry was closed and opened anew.
#[async_trait]
pub trait BackendRegistry: Send + Sync + fmt::Debug {
    /// The fleet as a server sees it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn fleet(&self, server: &ServerId) -> Result<FleetState>;

    /// Changes the fleet; how a server sees it then.
    ///
    /// # Errors
    /// `AlreadyExists` for an address that is taken; `NotFound` for one that nobody has; `InvalidRequest` for the removal
    /// of the last backend; `LimitExceeded` beyond [`limits::BACKENDS_MAX`]; `Unavailable`.
    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState>;

    /// A counter that moves when the fleet changes. It is a hint: changes by other processes may be missed, so that polling
    /// stays the truth.
    fn fleet_changed(&self) -> watch::Receiver<u64>;
}

hand_on!(BackendRegistry; {
    async fn fleet(&self, server: &ServerId) -> Result<FleetState>;
    async fn change_fleet(
        &self,
        server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState>;
    fn fleet_changed(&self) -> watch::Receiver<u64>;
});

/// The rules: a fleet, and what becomes of it. Reads no clock.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    backends: BTreeMap<BackendPlace, RegisteredBackend>,
    last_number: u64,
}

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetChanges {
    /// Backends that are not as they were.
    pub changed: Vec<RegisteredBackend>,
    /// Backends of which nothing is known any more.
    pub forgotten: Vec<BackendPlace>,
    /// What happened; the store gives the numbers.
    pub events: Vec<Event>,
}

impl FleetChanges {
    /// Whether nothing did.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.forgotten.is_empty() && self.events.is_empty()
    }
}

impl Registry {
    /// A fleet as it was stored.
    pub fn new(backends: impl IntoIterator<Item = RegisteredBackend>) -> Self {
        let backends: BTreeMap<_, _> =
            backends.into_iter().map(|backend| (backend.place.clone(), backend)).collect();
        let last_number = backends.values().map(|backend| backend.number).max().unwrap_or(0);
        Self { backends, last_number }
    }

    /// The backends, in the order in which they came.
    pub fn backends(&self) -> Vec<RegisteredBackend> {
        let mut backends: Vec<_> = self.backends.values().cloned().collect();
        backends.sort_by_key(|backend| backend.number);
        backends
    }

    /// Makes changes, all of them or none.
    ///
    /// # Errors
    /// As [`BackendRegistry::change_fleet`].
    pub fn change(&mut self, changes: &[FleetChange], at: Timestamp) -> Result<FleetChanges> {
        let mut after = self.clone();
        for backend in after.backends.values_mut() {
            backend.forget_words_of_before(at);
        }
        for change in changes {
            after.make(change)?;
        }
        after.backends.retain(|_, backend| backend.is_kept());
        after.check_number()?;
        let told = after.told_since(self, at);
        *self = after;
        Ok(told)
    }

    fn make(&mut self, change: &FleetChange) -> Result<()> {
        match change {
            FleetChange::Configure { server, backends, until } => self.configure(server, backends, *until),
            FleetChange::Leave { server } => {
                for backend in self.backends.values_mut() {
                    backend.configured.remove(server);
                    backend.health.left(server);
                }
            }
            FleetChange::Add { place, spec } => return self.add(place, spec),
            FleetChange::Remove { place } => return self.remove(place),
            FleetChange::Drain { place, draining } => self.used(place)?.draining = *draining,
            FleetChange::Observe { place, by, observation } => {
                // It may have been removed since.
                if let Some(backend) = self.backends.get_mut(place) {
                    backend.health.observe(observation, Some(by));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: &BackendPlace) -> &mut RegisteredBackend {
        let last_number = &mut self.last_number;
        self.backends.entry(place.clone()).or_insert_with(|| {
            *last_number += 1;
            RegisteredBackend::new(place.clone(), *last_number)
        })
    }

    /// A backend that somebody has.
    fn used(&mut self, place: &BackendPlace) -> Result<&mut RegisteredBackend> {
        let backend = self.backends.get_mut(place).filter(|backend| backend.spec().is_some());
        backend.ok_or_else(|| no_backend(&place.addr))
    }

    fn configure(&mut self, server: &ServerId, backends: &[(BackendPlace, BackendSpec)], until: Timestamp) {
        let places: BTreeSet<&BackendPlace> = backends.iter().map(|(place, _)| place).collect();
        for backend in self.backends.values_mut().filter(|backend| !places.contains(&backend.place)) {
            let had = backend.configured.remove(server).is_some();
            if had && backend.configured.is_empty() && backend.added.is_none() {
                // It was taken out of the configuration, by a server that goes on: nothing is to be remembered.
                (backend.draining, backend.removed) = (false, Vec::new());
            }
        }
        for (place, spec) in backends {
            let backend = self.entry(place);
            let configured = ConfiguredBackend { spec: spec.clone(), until };
            let before = backend.configured.insert(server.clone(), configured);
            if let Some(ConfiguredBackend { spec: before, .. }) = before
                && !backend.configured.values().any(|configured| configured.spec == before)
            {
                // The configuration was changed: should it be changed back, that is a new word.
                backend.removed.retain(|removed| *removed != before);
            }
        }
    }

    fn add(&mut self, place: &BackendPlace, spec: &BackendSpec) -> Result<()> {
        let backend = self.entry(place);
        if backend.spec().is_some() {
            if backend.added.as_ref() == Some(spec) {
                return Ok(());
            }
            let message = format!("there is a backend {} already", place.addr);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        // Whoever adds it wants it to get jobs, whatever was before. It is what was added, not what was removed.
        backend.added = Some(spec.clone());
        (backend.draining, backend.health) = (false, Health::default());
        Ok(())
    }

    fn remove(&mut self, place: &BackendPlace) -> Result<()> {
        let used = self.backends.values().filter(|backend| backend.spec().is_some()).count();
        let backend = self.used(place)?;
        if used == 1 {
            let error = Error::invalid("the last backend cannot be removed");
            return Err(error.hint("add another backend first"));
        }
        backend.added = None;
        for ConfiguredBackend { spec, .. } in backend.configured.values() {
            if !backend.removed.contains(spec) {
                backend.removed.push(spec.clone());
            }
        }
        let surplus = backend.removed.len().saturating_sub(limits::REMOVED_SPECS_MAX);
        backend.removed.drain(..surplus);
        backend.draining = false;
        Ok(())
    }

    /// That there are not too many. Of those that nobody has, the oldest are forgotten first.
    fn check_number(&mut self) -> Result<()> {
        let surplus = self.backends.len().saturating_sub(limits::BACKENDS_MAX);
        if surplus == 0 {
            return Ok(());
        }
        let unused = self.backends().into_iter().filter(|backend| backend.spec().is_none());
        let unused: Vec<_> = unused.take(surplus).map(|backend| backend.place).collect();
        unused.iter().for_each(|place| _ = self.backends.remove(place));
        if self.backends.len() > limits::BACKENDS_MAX {
            let message = format!("there are {} backends already", limits::BACKENDS_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        Ok(())
    }

    /// What changed since the fleet was `before`.
    fn told_since(&self, before: &Self, at: Timestamp) -> FleetChanges {
        let mut told = FleetChanges::default();
        let status = |backend: &RegisteredBackend| backend.spec().map(|_| backend.status().name());
        for backend in self.backends() {
            let known = before.backends.get(&backend.place);
            if known == Some(&backend) {
                continue;
            }
            let (was, is) = (known.and_then(status), status(&backend));
            if was != is || known.and_then(RegisteredBackend::spec) != backend.spec() {
                told.events.push(backend.event(is.unwrap_or(REMOVED), at));
            }
            told.changed.push(backend);
        }
        for (place, backend) in &before.backends {
            if !self.backends.contains_key(place) {
                if status(backend).is_some() {
                    told.events.push(backend.event(REMOVED, at));
                }
                told.forgotten.push(place.clone());
            }
        }
        told
    }
}

/// The state of a backend that nobody has any more, in events.
const REMOVED: &str = "removed";

/// That there is no backend at an address.
pub(crate) fn no_backend(addr: &str) -> Error {
    let error = Error::new(ErrorKind::NotFound, format!("there is no backend {addr:?}"));
    error.hint("list the backends to see their addresses")
}

/// A registry in memory, for one server that shares its fleet with none. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryRegistry(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    registry: Mutex<Registry>,
    changed: watch::Sender<u64>,
}

impl MemoryRegistry {
    fn state(registry: &Registry) -> FleetState {
        FleetState::new(registry.backends())
    }
}

#[async_trait]
impl BackendRegistry for MemoryRegistry {
    async fn fleet(&self, _server: &ServerId) -> Result<FleetState> {
        Ok(Self::state(&self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    async fn change_fleet(
        &self,
        _server: &ServerId,
        changes: &[FleetChange],
        at: Timestamp,
    ) -> Result<FleetState> {
        let mut registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let told = registry.change(changes, at)?;
        if !told.is_empty() {
            self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(Self::state(&registry))
    }

    fn fleet_changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
