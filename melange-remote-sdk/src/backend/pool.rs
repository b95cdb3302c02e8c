//! The backends as one server sees them: their slots are leased here, and what becomes of attempts and probes decides
//! which of them get jobs. What is true of the whole fleet comes from a [`super::registry`], by way of whoever adopts it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::health::{BackendFailure, BackendStatus, Health, Observation, Turn};
use super::registry::{BackendSpec, FleetChange, FleetState, RegisteredBackend};
use super::{Backend, Candidate, Closed};
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BackendPlace, ServerId};
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
    last_choice: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    backend: Arc<Backend>,
    /// Whether this server may run jobs on it.
    is_ours: bool,
    is_added: bool,
    running: u32,
    /// The jobs of other servers.
    elsewhere: u32,
    last_chosen: u64,
    health: Health,
    draining: bool,
    /// When it was probed last.
    probed: Option<Timestamp>,
    latency: Option<Duration>,
    /// What was seen of it and not told yet.
    untold: VecDeque<(Observation, Timestamp)>,
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
            running: 0,
            elsewhere: 0,
            last_chosen: 0,
            health: Health::default(),
            draining: false,
            probed: None,
            latency: None,
            untold: VecDeque::new(),
        }
    }

    /// The backend at an address that this server uses, else one that others do.
    fn find(&self, addr: &str) -> Option<&Entry> {
        let mut known = self.entries.iter().filter(|entry| entry.backend.addr() == addr);
        let first = known.clone().next();
        known.find(|entry| entry.is_ours).or(first)
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
        self.running.saturating_add(self.elsewhere)
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            backend: Arc::clone(&self.backend),
            running: self.all_running(),
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
            status: if self.draining { BackendStatus::Draining } else { self.health.status() },
            latency: self.latency,
            last_failure: self.health.last_failure().cloned(),
            failing_since: self.health.failing_since(),
        }
    }

    /// Takes what this server saw, and keeps it for the others when it changes anything.
    fn see(&mut self, seen: Observation, at: Timestamp) {
        if !self.health.would_change(&seen, at) {
            return;
        }
        let (turn, addr) = (self.health.observe(&seen, None, at), self.backend.addr());
        match (turn, &seen) {
            (Turn::Fails, Observation::Failed { failure, .. }) => {
                let (error, hint) = (&failure.message, failure.hint.as_deref().unwrap_or_default());
                tracing::warn!(addr, error, hint, "a backend fails and gets no jobs for now");
            }
            (Turn::WorksAgain, _) => tracing::info!(addr, "a backend works again"),
            _ => {}
        }
        if self.untold.len() >= limits::OBSERVATIONS_MAX {
            self.untold.pop_front();
        }
        self.untold.push_back((seen, at));
    }
}

/// A slot of a backend. Dropping it frees the slot. What becomes of the job says something about the backend, unless
/// nobody tells.
#[derive(Debug)]
pub struct BackendLease {
    shared: Arc<Shared>,
    number: u64,
    backend: Arc<Backend>,
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
        self.tell(Observation::Worked, at);
    }

    /// The backend is at fault for what it did.
    pub fn failed(&self, failure: BackendFailure) {
        let at = failure.at;
        self.tell(Observation::Failed { failure, unreachable: false }, at);
    }

    /// The backend did not answer at all.
    pub fn unreachable(&self, failure: BackendFailure) {
        let at = failure.at;
        self.tell(Observation::Failed { failure, unreachable: true }, at);
    }

    fn tell(&self, seen: Observation, at: Timestamp) {
        self.told.store(true, Ordering::Relaxed);
        self.shared.change(self.number, |entry| entry.see(seen, at));
    }
}

impl Drop for BackendLease {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // The backend may have been removed meanwhile; then there is nothing to free.
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.running = entry.running.saturating_sub(1);
            if !self.told.load(Ordering::Relaxed) {
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

    /// Takes over what a registry says, for the server of this name on this machine. A backend that is what it was stays with its slots;
    /// of what was seen and not told yet the server's own knowledge holds.
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
            let entry =
                known.remove(&registered.place).filter(|known| BackendSpec::from(&*known.backend) == *spec);
            let mut entry = match entry {
                Some(entry) => entry,
                None => match backend_of(registered, spec) {
                    Ok(backend) => {
                        is_news = true;
                        state.entry(Arc::new(backend))
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
            taken.extend(entry.untold.drain(..).map(|(seen, at)| FleetChange::Observe {
                place: place.clone(),
                by: server.clone(),
                seen,
                at,
            }));
        }
        taken
    }

    /// Puts back what [`Self::take_observations`] gave and the registry did not take; other changes are left out.
    pub fn put_back(&self, observations: Vec<FleetChange>) {
        let mut state = self.0.lock();
        for change in observations.into_iter().rev() {
            let FleetChange::Observe { place, seen, at, .. } = change else { continue };
            let entry = state.entries.iter_mut().find(|entry| entry.backend.place() == place);
            if let Some(entry) = entry.filter(|entry| entry.untold.len() < limits::OBSERVATIONS_MAX) {
                entry.untold.push_front((seen, at));
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

    /// The backend at an address with what is known of it: the one that this server uses, else one of others.
    pub fn state(&self, addr: &str) -> Option<BackendState> {
        self.0.lock().find(addr).map(Entry::state)
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
            entry.probed = Some(now);
            (entry.number, Arc::clone(&entry.backend))
        };
        state.entries.iter_mut().filter(due).take(limits::PROBES_MAX).map(take).collect()
    }

    /// What a probe came to: the time it took, or the failure.
    pub fn probed(&self, number: u64, result: std::result::Result<Duration, BackendFailure>, at: Timestamp) {
        self.0.change(number, |entry| match result {
            Ok(latency) => {
                entry.latency = Some(latency);
                entry.see(Observation::Answered, at);
            }
            Err(failure) => entry.see(Observation::Failed { failure, unreachable: true }, at),
        });
    }

    /// Leases a slot; `None` when this server does not use the backend, it gets no jobs, or has no free slot any more.
    pub fn lease(&self, addr: &str) -> Option<BackendLease> {
        let mut state = self.0.lock();
        let choice = state.last_choice + 1;
        let mut entries = state.entries.iter_mut();
        let entry = entries.find(|entry| entry.is_ours && entry.backend.addr() == addr)?;
        if entry.all_running() >= entry.backend.max_jobs() || entry.closed().is_some() {
            return None;
        }
        entry.health.began();
        entry.running += 1;
        entry.last_chosen = choice;
        let (number, backend) = (entry.number, Arc::clone(&entry.backend));
        state.last_choice = choice;
        let told = AtomicBool::new(false);
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
        self.elsewhere = fleet.elsewhere.get(&registered.place.key()).copied().unwrap_or(0);
        if self.untold.is_empty() {
            self.health = registered.health.clone().seen_by(server, &self.health);
        }
        before != (self.is_ours, self.closed(), self.elsewhere)
    }
}

fn backend_of(registered: &RegisteredBackend, spec: &BackendSpec) -> Result<Backend> {
    let BackendPlace { addr, machine } = &registered.place;
    let backend = Backend::new(addr, spec.arch, spec.labels.clone())?.with_max_jobs(spec.max_jobs)?;
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
mod tests {
    use super::super::registry::Registry;
    use super::*;
    use crate::labels::Labels;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn backend(addr: &str) -> Backend {
        Backend::new(addr, Arch::X86_64, Labels::default()).unwrap().with_max_jobs(1).unwrap()
    }

    fn refused() -> BackendFailure {
        BackendFailure { message: "refused".to_owned(), hint: None, at: START }
    }

    /// A pool with the registry that it follows.
    struct Followed {
        pool: BackendPool,
        registry: Registry,
        server: ServerId,
    }

    impl Followed {
        fn new(backends: impl IntoIterator<Item = Backend> + Clone) -> Self {
            let pool = BackendPool::new(backends.clone()).unwrap();
            let mut followed = Self { pool, registry: Registry::default(), server: ServerId::unique() };
            followed.configure(backends);
            followed
        }

        fn configure(&mut self, backends: impl IntoIterator<Item = Backend>) {
            let backends = backends.into_iter().map(|backend| (backend.place(), BackendSpec::from(&backend)));
            let (server, backends) = (self.server.clone(), backends.collect());
            self.change([FleetChange::Configure { server, backends, until: Timestamp::MAX }]);
        }

        fn change(&mut self, changes: impl IntoIterator<Item = FleetChange>) {
            let changes: Vec<FleetChange> = changes.into_iter().collect();
            self.registry.change(&changes, START).unwrap();
            self.adopt();
        }

        fn adopt(&self) {
            self.pool.adopt(&FleetState::new(self.registry.backends()), &self.server, Some("one"));
        }

        fn drain(&mut self, addr: &str, draining: bool) {
            self.change([FleetChange::Drain { place: backend(addr).place(), draining }]);
        }

        fn addrs(&self) -> Vec<String> {
            self.pool.backends().iter().map(|backend| backend.addr().to_owned()).collect()
        }
    }

    #[test]
    fn addresses_are_unique_and_backends_not_too_many() {
        let twice = BackendPool::new([backend("tcp://a:1"), backend("tcp://a:1")]).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
        let many = (0..=limits::BACKENDS_MAX).map(|number| backend(&format!("tcp://a{number}:1")));
        assert_eq!(BackendPool::new(many).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn slots_are_bounded_and_come_back() {
        let mut farm = Followed::new([backend("tcp://a:1"), backend("tcp://b:1")]);
        let mut hint = farm.pool.changed();
        hint.mark_unchanged();
        let slot = farm.pool.lease("tcp://a:1").unwrap();
        assert!(farm.pool.lease("tcp://a:1").is_none());
        assert!(!hint.has_changed().unwrap());
        drop(slot);
        assert!(hint.has_changed().unwrap());
        let slot = farm.pool.lease("tcp://a:1").unwrap();
        farm.configure([backend("tcp://b:1")]);
        farm.configure([backend("tcp://a:1"), backend("tcp://b:1")]);
        // The slot belongs to the backend that was removed, not to the one that has its address now.
        let _new = farm.pool.lease("tcp://a:1").unwrap();
        drop(slot);
        assert_eq!(farm.pool.leased(), 1);
    }

    #[test]
    fn a_new_set_keeps_what_did_not_change() {
        let mut farm = Followed::new([backend("tcp://a:1"), backend("tcp://b:1")]);
        let lease = farm.pool.lease("tcp://a:1").unwrap();
        let larger = backend("tcp://b:1").with_max_jobs(7).unwrap();
        farm.configure([backend("tcp://a:1"), larger, backend("tcp://c:1")]);
        assert!(farm.pool.lease("tcp://a:1").is_none(), "its slot is still taken");
        drop(lease);
        assert!(farm.pool.lease("tcp://a:1").is_some());
        assert_eq!(farm.addrs(), ["tcp://a:1", "tcp://b:1", "tcp://c:1"]);
        assert_eq!(farm.pool.backends()[1].max_jobs(), 7);
    }

    #[test]
    fn a_drained_backend_finishes_what_it_runs() {
        let mut farm = Followed::new([backend("tcp://a:1")]);
        let lease = farm.pool.lease("tcp://a:1").unwrap();
        farm.drain("tcp://a:1", true);
        assert_eq!(farm.pool.state("tcp://a:1").unwrap().status, BackendStatus::Draining);
        drop(lease);
        assert!(farm.pool.lease("tcp://a:1").is_none());
        assert_eq!(farm.pool.candidates()[0].closed, Some(Closed::Draining));
        farm.drain("tcp://a:1", false);
        assert!(farm.pool.lease("tcp://a:1").is_some());
    }

    #[test]
    fn the_slots_that_other_servers_use_are_not_free() {
        let farm = Followed::new([backend("tcp://a:1")]);
        let mut fleet = FleetState::new(farm.registry.backends());
        fleet.elsewhere.insert("tcp://a:1".to_owned(), 1);
        let mut hint = farm.pool.changed();
        hint.mark_unchanged();
        farm.pool.adopt(&fleet, &farm.server, Some("one"));
        assert!(farm.pool.lease("tcp://a:1").is_none());
        assert_eq!(farm.pool.candidates()[0].running, 1);
        assert_eq!(farm.pool.leased(), 0);
        farm.adopt();
        assert!(hint.has_changed().unwrap());
        assert!(farm.pool.lease("tcp://a:1").is_some());
    }

    #[test]
    fn backends_of_other_servers_are_known_and_not_used() {
        let mut farm = Followed::new([backend("sandbox://local").on_machine("one")]);
        let sandbox = backend("sandbox://local").on_machine("two");
        let backends =
            [sandbox, backend("tcp://b:1")].map(|other| (other.place(), BackendSpec::from(&other)));
        let server = ServerId::unique();
        farm.change([FleetChange::Configure { server, backends: backends.into(), until: Timestamp::MAX }]);
        assert_eq!(farm.addrs(), ["sandbox://local"]);
        assert_eq!((farm.pool.candidates().len(), farm.pool.fleet_candidates().len()), (1, 3));
        assert_eq!(farm.pool.due_probes(START).len(), 1);
        assert!(farm.pool.lease("tcp://b:1").is_none());
        assert_eq!(farm.pool.state("sandbox://local").unwrap().backend.machine(), Some("one"));
        let ours: Vec<bool> = farm.pool.states().iter().map(|state| state.is_ours).collect();
        assert_eq!(ours, [true, false, false]);
        // What is added on another machine is a backend there.
        let unix = backend("unix:///socket").on_machine("two");
        farm.change([FleetChange::Add { place: unix.place(), spec: BackendSpec::from(&unix) }]);
        assert!(farm.pool.lease("unix:///socket").is_none());
        let unix = backend("unix:///socket").on_machine("one");
        farm.change([FleetChange::Add { place: unix.place(), spec: BackendSpec::from(&unix) }]);
        assert_eq!(farm.pool.lease("unix:///socket").unwrap().backend().machine(), Some("one"));
    }

    #[test]
    fn what_was_seen_is_told_once_and_not_undone_before() {
        let mut farm = Followed::new([backend("tcp://a:1")]);
        farm.pool.lease("tcp://a:1").unwrap().unreachable(refused());
        farm.adopt();
        assert_eq!(farm.pool.states()[0].status, BackendStatus::Failing, "the registry does not know it yet");
        let seen = farm.pool.take_observations(&farm.server);
        assert_eq!(seen.len(), 1);
        farm.pool.put_back(seen);
        assert!(farm.pool.has_observations());
        let seen = farm.pool.take_observations(&farm.server);
        farm.change(seen);
        assert!(!farm.pool.has_observations());
        assert_eq!(farm.pool.states()[0].status, BackendStatus::Failing);
        let place = backend("tcp://a:1").place();
        let (by, seen, at) = (ServerId::unique(), Observation::Answered, START);
        farm.change([FleetChange::Observe { place, by, seen, at }]);
        assert_eq!(farm.pool.states()[0].status, BackendStatus::Healthy, "another server found it");
        for _ in 0..limits::OBSERVATIONS_MAX * 2 {
            farm.pool.lease("tcp://a:1").unwrap().failed(refused());
            farm.pool.lease("tcp://a:1").unwrap().worked(START);
        }
        assert_eq!(farm.pool.take_observations(&farm.server).len(), limits::OBSERVATIONS_MAX);
    }

    #[test]
    fn a_backend_that_does_not_answer_gets_no_jobs_until_a_probe_is_answered() {
        let pool = BackendPool::new([backend("tcp://a:1")]).unwrap();
        let due = pool.due_probes(START);
        assert_eq!(due.len(), 1);
        assert!(pool.due_probes(START).is_empty(), "once an interval");
        pool.lease("tcp://a:1").unwrap().unreachable(refused());
        assert!(pool.lease("tcp://a:1").is_none());
        assert_eq!(pool.candidates()[0].closed, Some(Closed::Failing { message: "refused".to_owned() }));
        let later = START + SignedDuration::try_from(limits::BREAKER_PAUSE).unwrap();
        let due = pool.due_probes(later);
        let mut hint = pool.changed();
        hint.mark_unchanged();
        pool.probed(due[0].0, Ok(Duration::from_millis(2)), later);
        assert!(hint.has_changed().unwrap(), "jobs that wait are looked at");
        assert_eq!(pool.states()[0].status, BackendStatus::Healthy);
        pool.lease("tcp://a:1").unwrap().worked(later);
    }
}
