//! Slots, and what a server tells and takes over of the fleet.

use super::super::registry::Registry;
use super::*;
use crate::job::BackendCapacity;
use crate::labels::Labels;

const START: Timestamp = Timestamp::UNIX_EPOCH;
const NOTHING: JobResources = JobResources::NONE;

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
    let slot = farm.pool.lease("tcp://a:1", NOTHING).unwrap();
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_none());
    assert!(!hint.has_changed().unwrap());
    drop(slot);
    assert!(hint.has_changed().unwrap());
    let slot = farm.pool.lease("tcp://a:1", NOTHING).unwrap();
    farm.configure([backend("tcp://b:1")]);
    farm.configure([backend("tcp://a:1"), backend("tcp://b:1")]);
    // The slot belongs to the backend that was removed, not to the one that has its address now.
    let _new = farm.pool.lease("tcp://a:1", NOTHING).unwrap();
    drop(slot);
    assert_eq!(farm.pool.leased(), 1);
}

#[test]
fn a_new_set_keeps_what_did_not_change() {
    let mut farm = Followed::new([backend("tcp://a:1"), backend("tcp://b:1")]);
    let lease = farm.pool.lease("tcp://a:1", NOTHING).unwrap();
    let larger = backend("tcp://b:1").with_max_jobs(7).unwrap();
    let _running = farm.pool.lease("tcp://b:1", NOTHING).unwrap();
    farm.configure([backend("tcp://a:1"), larger, backend("tcp://c:1")]);
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_none(), "its slot is still taken");
    drop(lease);
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_some());
    assert_eq!(farm.addrs(), ["tcp://a:1", "tcp://b:1", "tcp://c:1"]);
    assert_eq!(farm.pool.backends()[1].max_jobs(), 7);
    assert_eq!(farm.pool.state("tcp://b:1", None).unwrap().running, 1, "what runs there is known");
}

#[test]
fn a_drained_backend_finishes_what_it_runs() {
    let mut farm = Followed::new([backend("tcp://a:1")]);
    let lease = farm.pool.lease("tcp://a:1", NOTHING).unwrap();
    farm.drain("tcp://a:1", true);
    assert_eq!(farm.pool.state("tcp://a:1", None).unwrap().status, BackendStatus::Draining);
    drop(lease);
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_none());
    assert_eq!(farm.pool.candidates()[0].closed, Some(Closed::Draining));
    farm.drain("tcp://a:1", false);
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_some());
}

#[test]
fn the_slots_that_other_servers_use_are_not_free() {
    let farm = Followed::new([backend("tcp://a:1")]);
    let mut fleet = FleetState::new(farm.registry.backends());
    fleet.elsewhere.insert("tcp://a:1".to_owned(), BackendLoad::new(1, NOTHING));
    let mut hint = farm.pool.changed();
    hint.mark_unchanged();
    farm.pool.adopt(&fleet, &farm.server, Some("one"));
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_none());
    assert_eq!(farm.pool.candidates()[0].running, 1);
    assert_eq!(farm.pool.leased(), 0);
    farm.adopt();
    assert!(hint.has_changed().unwrap());
    assert!(farm.pool.lease("tcp://a:1", NOTHING).is_some());
}

#[test]
fn backends_of_other_servers_are_known_and_not_used() {
    let mut farm = Followed::new([backend("sandbox://local").on_machine("one")]);
    let sandbox = backend("sandbox://local").on_machine("two");
    let backends = [sandbox, backend("tcp://b:1")].map(|other| (other.place(), BackendSpec::from(&other)));
    let server = ServerId::unique();
    farm.change([FleetChange::Configure { server, backends: backends.into(), until: Timestamp::MAX }]);
    assert_eq!(farm.addrs(), ["sandbox://local"]);
    assert_eq!((farm.pool.candidates().len(), farm.pool.fleet_candidates().len()), (1, 3));
    assert_eq!(farm.pool.due_probes(START).len(), 1);
    assert!(farm.pool.lease("tcp://b:1", NOTHING).is_none());
    assert_eq!(farm.pool.state("sandbox://local", None).unwrap().backend.machine(), Some("one"));
    let ours: Vec<bool> = farm.pool.states().iter().map(|state| state.is_ours).collect();
    assert_eq!(ours, [true, false, false]);
    let named = |machine| {
        farm.pool
            .state("sandbox://local", Some(machine))
            .map(|state| state.is_ours)
            .map_err(|error| error.kind())
    };
    assert_eq!([named("one"), named("two")], [Ok(true), Ok(false)]);
    assert_eq!(named("three"), Err(ErrorKind::NotFound));
    // What is added on another machine is a backend there.
    let unix = backend("unix:///socket").on_machine("two");
    farm.change([FleetChange::Add { place: unix.place(), spec: BackendSpec::from(&unix) }]);
    assert!(farm.pool.lease("unix:///socket", NOTHING).is_none());
    let unix = backend("unix:///socket").on_machine("one");
    farm.change([FleetChange::Add { place: unix.place(), spec: BackendSpec::from(&unix) }]);
    assert_eq!(farm.pool.lease("unix:///socket", NOTHING).unwrap().backend().machine(), Some("one"));
    for machine in ["two", "three"] {
        let unix = backend("unix:///other").on_machine(machine);
        farm.change([FleetChange::Add { place: unix.place(), spec: BackendSpec::from(&unix) }]);
    }
    let unclear = farm.pool.state("unix:///other", None).unwrap_err();
    assert_eq!(unclear.to_string(), "there is more than one backend unix:///other: on two, three");
}

#[test]
fn what_was_seen_is_told_once_and_not_undone_before() {
    let mut farm = Followed::new([backend("tcp://a:1")]);
    farm.pool.lease("tcp://a:1", NOTHING).unwrap().unreachable(refused());
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
    let observation = Observation::new(Seen::Answered, START, 1);
    farm.change([FleetChange::Observe { place, by: ServerId::unique(), observation }]);
    assert_eq!(farm.pool.states()[0].status, BackendStatus::Healthy, "another server found it");
    for _ in 0..limits::OBSERVATIONS_MAX * 2 {
        farm.pool.lease("tcp://a:1", NOTHING).unwrap().failed(refused());
        farm.pool.lease("tcp://a:1", NOTHING).unwrap().worked(START);
    }
    assert_eq!(farm.pool.take_observations(&farm.server).len(), limits::OBSERVATIONS_MAX);
}

#[test]
fn a_backend_that_does_not_answer_gets_no_jobs_until_a_probe_is_answered() {
    let pool = BackendPool::new([backend("tcp://a:1")]).unwrap();
    let due = pool.due_probes(START);
    assert_eq!(due.len(), 1);
    assert!(pool.due_probes(START).is_empty(), "once an interval");
    pool.lease("tcp://a:1", NOTHING).unwrap().unreachable(refused());
    assert!(pool.lease("tcp://a:1", NOTHING).is_none());
    assert_eq!(pool.candidates()[0].closed, Some(Closed::Failing { message: "refused".to_owned() }));
    let later = START + SignedDuration::try_from(limits::BREAKER_PAUSE).unwrap();
    let due = pool.due_probes(later);
    let mut hint = pool.changed();
    hint.mark_unchanged();
    pool.probed(due[0].0, Ok(Duration::from_millis(2)), later);
    assert!(hint.has_changed().unwrap(), "jobs that wait are looked at");
    assert_eq!(pool.states()[0].status, BackendStatus::Healthy);
    pool.lease("tcp://a:1", NOTHING).unwrap().worked(later);
}

#[test]
fn a_slot_is_leased_where_there_is_room_too() {
    let capacity = BackendCapacity::new(Some(4_000), Some(8 << 30));
    let wide = backend("tcp://a:1").with_max_jobs(9).unwrap().with_capacity(capacity);
    let pool = BackendPool::new([wide]).unwrap();
    let three = JobResources::new(3_000, 1 << 30);
    let lease = pool.lease("tcp://a:1", three).unwrap();
    assert!(pool.lease("tcp://a:1", three).is_none(), "two cores are too little for it");
    let _small = pool.lease("tcp://a:1", JobResources::new(1_000, 7 << 30)).unwrap();
    let _none = pool.lease("tcp://a:1", NOTHING).unwrap();
    assert_eq!((pool.states()[0].running, pool.states()[0].used), (3, JobResources::new(4_000, 8 << 30)));
    drop(lease);
    assert_eq!(pool.candidates()[0].used, JobResources::new(1_000, 7 << 30));
}
