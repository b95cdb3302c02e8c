//! The backends as one server sees them: their slots are leased here, and what becomes of attempts and probes decides
//! which of them get jobs. What is true of the whole fleet comes from a [`super::registry`], by way of whoever adopts it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::health::{BackendFailure, BackendStatus, Health, Observation, Seen, Turn};
use super::registry::{BackendSpec, FleetChange, FleetState, RegisteredBackend, no_backend};
use super::{Backend, Candidate, Closed};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BackendLoad, BackendPlace, JobResources, ServerId};
use crate::limits;

/// Backends in the order in which they came. Clones share one set.
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
    last_lease: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    backend: Arc<Backend>,
    /// Whether this server may run jobs on it.
    is_ours: bool,
    is_added: bool,
    /// The jobs of this server.
    load: BackendLoad,
    /// Those of other servers.
    elsewhere: BackendLoad,
    last_chosen: u64,
    health: Health,
    draining: bool,
    /// When it was probed last.
    probed: Option<Timestamp>,
    /// How often its breaker had opened then.
    probed_opened: u64,
    latency: Option<Duration>,
    /// What was seen of it and not told yet.
    untold: VecDeque<Observation>,
}

/// A backend with what is known of it now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendState {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Whether this server runs jobs on it; else other servers do, which have it in their configuration.
    pub is_ours: bool,
    /// Whether it was added at run time.
    pub is_added: bool,
    /// The jobs that run on it, those of other servers included.
    pub running: u32,
    /// What these ask for together.
    pub used: JobResources,
    /// What it is good for.
    pub status: BackendStatus,
    /// The time that the last probe of this server took that was answered.
    pub latency: Option<Duration>,
    /// Its last failure, also when it works again.
    pub last_failure: Option<BackendFailure>,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
}

impl State {
    fn entry(&mut self, backend: Arc<Backend>) -> Entry {
        self.next_entry += 1;
        Entry {
            number: self.next_entry,
            backend,
            is_ours: true,
            is_added: false,
            load: BackendLoad::default(),
            elsewhere: BackendLoad::default(),
            last_chosen: 0,
            health: Health::default(),
            draining: false,
            probed: None,
            probed_opened: 0,
            latency: None,
            untold: VecDeque::new(),
        }
    }

    /// The backend at an address: on the machine that is named, else the one that this server uses, else the only one.
    fn find(&self, addr: &str, machine: Option<&str>) -> Result<&Entry> {
        let mut known: Vec<&Entry> =
            self.entries.iter().filter(|entry| entry.backend.addr() == addr).collect();
        match machine {
            Some(_) => known.retain(|entry| entry.backend.machine() == machine),
            None if known.iter().any(|entry| entry.is_ours) => known.retain(|entry| entry.is_ours),
            None => {}
        }
        match known[..] {
            [] => Err(no_backend(addr)),
            [only] => Ok(only),
            _ => {
                let machines = known.iter().filter_map(|entry| entry.backend.machine());
                let machines = machines.collect::<Vec<_>>().join(", ");
                let error = Error::invalid(format!("there is more than one backend {addr}: on {machines}"));
                Err(error.hint("name the machine too"))
            }
        }
    }
}

impl Entry {
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

    /// The jobs that run on it, whoever runs them.
    fn all_running(&self) -> u32 {
        self.load.jobs.saturating_add(self.elsewhere.jobs)
    }

    /// What they ask for together.
    fn all_used(&self) -> JobResources {
        self.load.used.plus(self.elsewhere.used)
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            backend: Arc::clone(&self.backend),
            running: self.all_running(),
            used: self.all_used(),
            last_chosen: self.last_chosen,
            closed: self.closed(),
        }
    }

    fn state(&self) -> BackendState {
        BackendState {
            backend: Arc::clone(&self.backend),
            is_ours: self.is_ours,
            is_added: self.is_added,
            running: self.all_running(),
            used: self.all_used(),
            status: if self.draining { BackendStatus::Draining } else { self.health.status() },
            latency: self.latency,
            last_failure: self.health.last_failure().cloned(),
            failing_since: self.health.failing_since(),
        }
    }

    /// Takes what this server saw, and keeps it for the others when it changes anything.
    fn see(&mut self, observation: Observation) {
        if !self.health.would_change(&observation) {
            return;
        }
        let (turn, addr) = (self.health.observe(&observation, None), self.backend.addr());
        match (turn, &observation.seen) {
            (Turn::Fails, Seen::Failed { failure, .. }) => {
                let (error, hint) = (&failure.message, failure.hint.as_deref().unwrap_or_default());
                tracing::warn!(addr, error, hint, "a backend fails and gets no jobs for now");
            }
            (Turn::WorksAgain, _) => tracing::info!(addr, "a backend works again"),
            _ => {}
        }
        if self.untold.len() >= limits::OBSERVATIONS_MAX {
            self.untold.pop_front();
        }
        self.untold.push_back(observation);
    }
}

/// A slot of a backend. Dropping it frees the slot. What becomes of the job says something about the backend, unless
/// nobody tells.
#[derive(Debug)]
pub struct BackendLease {
    shared: Arc<Shared>,
    number: u64,
    /// The number of its backend.
    entry: u64,
    backend: Arc<Backend>,
    /// What its job asks for.
    asked: JobResources,
    /// How often the breaker of the backend had opened when the slot was leased.
    opened: u64,
    told: AtomicBool,
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
    pub fn worked(&self, at: Timestamp) {
        self.tell(Seen::Worked, at);
    }

    /// The backend is at fault for what it did.
    pub fn failed(&self, failure: BackendFailure) {
        let at = failure.at;
        self.tell(Seen::Failed { failure, unreachable: false }, at);
    }

    /// The backend did not answer at all.
    pub fn unreachable(&self, failure: BackendFailure) {
        let at = failure.at;
        self.tell(Seen::Failed { failure, unreachable: true }, at);
    }

    fn tell(&self, seen: Seen, at: Timestamp) {
        self.told.store(true, Ordering::Relaxed);
        self.shared.change(self.entry, |entry| entry.see(Observation::new(seen, at, self.opened)));
    }
}

impl Drop for BackendLease {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // The backend may have been removed meanwhile; then there is nothing to free.
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.number == self.entry) {
            entry.load.take(self.asked);
            if !self.told.load(Ordering::Relaxed) {
                entry.health.ended_without_a_word(self.number);
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
    /// A pool of the backends that a server has in its configuration.
    ///
    /// # Errors
    /// `AlreadyExists` when two have one address; `LimitExceeded` beyond [`limits::BACKENDS_MAX`].
    pub fn new(backends: impl IntoIterator<Item = Backend>) -> Result<Self> {
        let mut state = State::default();
        for backend in check_backends(backends.into_iter().collect())? {
            let entry = state.entry(Arc::new(backend));
            state.entries.push(entry);
        }
        Ok(Self(Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0) })))
    }

    /// The same backends as those of a machine: what an address means that is another backend on each.
    pub fn set_machine(&self, machine: &str) {
        for entry in &mut self.0.lock().entries {
            entry.backend = Arc::new(Backend::clone(&entry.backend).on_machine(machine));
        }
    }

    /// Takes over what a registry says, for the server of this name on this machine. A backend that is what it was stays
    /// with its slots; of what was seen and not told yet the server's own knowledge holds.
    pub fn adopt(&self, fleet: &FleetState, server: &ServerId, machine: Option<&str>) {
        let mut state = self.0.lock();
        let mut known: BTreeMap<BackendPlace, Entry> = std::mem::take(&mut state.entries)
            .into_iter()
            .map(|entry| (entry.backend.place(), entry))
            .collect();
        let mut is_news = false;
        for registered in &fleet.backends {
            let own = registered.spec_for(server, machine);
            let Some(spec) = own.or_else(|| registered.spec()) else { continue };
            let known = known.remove(&registered.place);
            let mut entry = match known {
                Some(entry) if BackendSpec::from(&*entry.backend) == *spec => entry,
                known => match backend_of(registered, spec) {
                    Ok(backend) => {
                        is_news = true;
                        let backend = Arc::new(backend);
                        // It has another form now: what runs there and what was seen there stays true.
                        match known {
                            Some(entry) => Entry { backend, ..entry },
                            None => state.entry(backend),
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = error.chain(), "the registry holds what is no backend");
                        continue;
                    }
                },
            };
            is_news |= entry.update(registered, own.is_some(), fleet, server);
            state.entries.push(entry);
        }
        is_news |= !known.is_empty();
        drop(state);
        if is_news {
            self.0.notify();
        }
    }

    /// What was seen since this was last asked, for the registry, in the name of a server.
    pub fn take_observations(&self, server: &ServerId) -> Vec<FleetChange> {
        let mut taken = Vec::new();
        for entry in &mut self.0.lock().entries {
            let place = entry.backend.place();
            taken.extend(entry.untold.drain(..).map(|observation| FleetChange::Observe {
                place: place.clone(),
                by: server.clone(),
                observation,
            }));
        }
        taken
    }

    /// Puts back what [`Self::take_observations`] gave and the registry did not take; other changes are left out.
    pub fn put_back(&self, observations: Vec<FleetChange>) {
        let mut state = self.0.lock();
        for change in observations.into_iter().rev() {
            let FleetChange::Observe { place, observation, .. } = change else { continue };
            let entry = state.entries.iter_mut().find(|entry| entry.backend.place() == place);
            if let Some(entry) = entry.filter(|entry| entry.untold.len() < limits::OBSERVATIONS_MAX) {
                entry.untold.push_front(observation);
            }
        }
    }

    /// Whether something was seen that the registry does not know yet.
    pub fn has_observations(&self) -> bool {
        self.0.lock().entries.iter().any(|entry| !entry.untold.is_empty())
    }

    /// The backends that this server runs jobs on, in the order in which they came.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        let state = self.0.lock();
        let ours = state.entries.iter().filter(|entry| entry.is_ours);
        ours.map(|entry| Arc::clone(&entry.backend)).collect()
    }

    /// The architectures of all backends of the fleet.
    pub fn arches(&self) -> BTreeSet<Arch> {
        self.0.lock().entries.iter().map(|entry| entry.backend.arch()).collect()
    }

    /// The backends that this server runs jobs on, as a selector sees them now.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.0.lock().entries.iter().filter(|entry| entry.is_ours).map(Entry::candidate).collect()
    }

    /// All backends of the fleet, as a selector sees them now: what says why a job waits.
    pub fn fleet_candidates(&self) -> Vec<Candidate> {
        self.0.lock().entries.iter().map(Entry::candidate).collect()
    }

    /// All backends of the fleet with what is known of them, in the order in which they came.
    pub fn states(&self) -> Vec<BackendState> {
        self.0.lock().entries.iter().map(Entry::state).collect()
    }

    /// The backend at an address with what is known of it: the one on the machine that is named, else the one that this
    /// server uses, else the only one.
    ///
    /// # Errors
    /// `NotFound` when there is none; `InvalidRequest` when there are several.
    pub fn state(&self, addr: &str, machine: Option<&str>) -> Result<BackendState> {
        self.0.lock().find(addr, machine).map(Entry::state)
    }

    /// What is known of the backend at a place.
    pub fn state_at(&self, place: &BackendPlace) -> Option<BackendState> {
        self.0.lock().entries.iter().find(|entry| entry.backend.place() == *place).map(Entry::state)
    }

    /// The backends that shall be probed now, with the numbers by which [`Self::probed`] knows them; each is given out
    /// once an interval.
    pub fn due_probes(&self, now: Timestamp) -> Vec<(u64, Arc<Backend>)> {
        let mut state = self.0.lock();
        let due = |entry: &&mut Entry| {
            let interval = if entry.health.admits() { limits::PROBE_INTERVAL } else { limits::BREAKER_PAUSE };
            let interval = SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX);
            // A clock that went back says nothing of when that was.
            let is_over =
                |probed: Timestamp| !(SignedDuration::ZERO..interval).contains(&now.duration_since(probed));
            entry.is_ours && entry.health.is_probe_due(now) && entry.probed.is_none_or(is_over)
        };
        let take = |entry: &mut Entry| {
            (entry.probed, entry.probed_opened) = (Some(now), entry.health.opened());
            (entry.number, Arc::clone(&entry.backend))
        };
        state.entries.iter_mut().filter(due).take(limits::PROBES_MAX).map(take).collect()
    }

    /// What a probe came to: the time it took, or the failure.
    pub fn probed(&self, number: u64, result: std::result::Result<Duration, BackendFailure>, at: Timestamp) {
        self.0.change(number, |entry| {
            let seen = match result {
                Ok(latency) => {
                    entry.latency = Some(latency);
                    if entry.health.is_trying() { Seen::Tries } else { Seen::Answered }
                }
                Err(failure) => Seen::Failed { failure, unreachable: true },
            };
            entry.see(Observation::new(seen, at, entry.probed_opened));
        });
    }

    /// Leases a slot for a job that asks for so much; `None` when this server does not use the backend, it gets no jobs, or
    /// has no free slot or too little left.
    pub fn lease(&self, addr: &str, asked: JobResources) -> Option<BackendLease> {
        let mut state = self.0.lock();
        let number = state.last_lease + 1;
        let mut entries = state.entries.iter_mut();
        let entry = entries.find(|entry| entry.is_ours && entry.backend.addr() == addr)?;
        let room = entry.backend.capacity().room(entry.all_used(), asked);
        if entry.all_running() >= entry.backend.max_jobs() || room == 0 || entry.closed().is_some() {
            return None;
        }
        entry.health.began(number);
        entry.load.add(asked);
        entry.last_chosen = number;
        let lease = BackendLease {
            shared: Arc::clone(&self.0),
            number,
            entry: entry.number,
            backend: Arc::clone(&entry.backend),
            asked,
            opened: entry.health.opened(),
            told: AtomicBool::new(false),
            quiet: false,
        };
        state.last_lease = number;
        Some(lease)
    }

    /// The slots that are leased now.
    pub fn leased(&self) -> u64 {
        self.0.lock().entries.iter().map(|entry| u64::from(entry.load.jobs)).sum()
    }

    /// Changes whenever a backend comes or goes, a slot becomes free, or the health of a backend changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

impl Entry {
    /// Takes over what the registry says; whether jobs may start that could not before, or the other way round.
    fn update(
        &mut self,
        registered: &RegisteredBackend,
        is_ours: bool,
        fleet: &FleetState,
        server: &ServerId,
    ) -> bool {
        let before = (self.is_ours, self.closed(), self.elsewhere);
        (self.is_ours, self.is_added) = (is_ours, registered.added.is_some());
        self.draining = registered.draining;
        self.elsewhere = fleet.elsewhere.get(&registered.place.key()).copied().unwrap_or_default();
        if self.untold.is_empty() {
            self.health = registered.health.clone().seen_by(server, &self.health);
        }
        before != (self.is_ours, self.closed(), self.elsewhere)
    }
}

fn backend_of(registered: &RegisteredBackend, spec: &BackendSpec) -> Result<Backend> {
    let BackendPlace { addr, machine } = &registered.place;
    let backend = Backend::new(addr, spec.arch, spec.labels.clone())?.with_max_jobs(spec.max_jobs)?;
    let backend = backend.with_capacity(spec.capacity);
    Ok(machine.iter().fold(backend, |backend, machine| backend.on_machine(machine)))
}

/// Backends that a server may have together.
///
/// # Errors
/// As [`BackendPool::new`].
pub fn check_backends(backends: Vec<Backend>) -> Result<Vec<Backend>> {
    if backends.len() > limits::BACKENDS_MAX {
        let message = format!("there are {} backends, at most {}", backends.len(), limits::BACKENDS_MAX);
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let mut addrs = BTreeSet::new();
    if let Some(twice) = backends.iter().find(|backend| !addrs.insert(backend.addr())) {
        let message = format!("there is a backend {} already", twice.addr());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    Ok(backends)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
