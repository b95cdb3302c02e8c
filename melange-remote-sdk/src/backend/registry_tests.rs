//! The rules of the fleet.

use jiff::SignedDuration;

use super::super::health::{BackendFailure, Seen};
use super::*;
use crate::job::EventKind;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: i64) -> Timestamp {
    START + SignedDuration::from_secs(seconds)
}

fn spec(max_jobs: u32) -> BackendSpec {
    BackendSpec::new(Arch::X86_64, Labels::default(), max_jobs)
}

fn place(name: &str) -> BackendPlace {
    BackendPlace { addr: format!("tcp://{name}:1"), machine: None }
}

/// A registry that tells what happens to it.
#[derive(Default)]
struct Told {
    registry: Registry,
    events: Vec<String>,
}

impl Told {
    fn change(&mut self, change: FleetChange, seconds: i64) -> Result<()> {
        let told = self.registry.change(&[change], at(seconds))?;
        for event in told.events {
            let EventKind::BackendState(state) = event.kind else { panic!("{event:?}") };
            self.events.push(format!("{} {}", state.addr, state.state));
        }
        Ok(())
    }

    /// A server says for ten seconds what it has.
    fn configure(&mut self, server: &ServerId, backends: &[(&str, u32)], seconds: i64) {
        let backends = backends.iter().map(|(name, max_jobs)| (place(name), spec(*max_jobs))).collect();
        let (server, until) = (server.clone(), at(seconds + 10));
        self.change(FleetChange::Configure { server, backends, until }, seconds).unwrap();
    }

    fn add(&mut self, name: &str, max_jobs: u32) -> Result<()> {
        self.change(FleetChange::Add { place: place(name), spec: spec(max_jobs) }, 0)
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        self.change(FleetChange::Remove { place: place(name) }, 0)
    }

    fn drain(&mut self, name: &str, draining: bool) -> Result<()> {
        self.change(FleetChange::Drain { place: place(name), draining }, 0)
    }

    fn leave(&mut self, server: &ServerId) {
        self.change(FleetChange::Leave { server: server.clone() }, 0).unwrap();
    }

    fn observe(&mut self, name: &str, by: &ServerId, seen: Seen, seconds: i64) {
        let known = self.registry.backends().into_iter().find(|backend| backend.place == place(name));
        let opened = known.map_or(0, |backend| backend.health.opened());
        let observation = Observation::new(seen, at(seconds), opened);
        let change = FleetChange::Observe { place: place(name), by: by.clone(), observation };
        self.change(change, seconds).unwrap();
    }

    /// The backends that a server runs jobs on, with their jobs at once.
    fn used_by(&self, server: &ServerId) -> Vec<(String, u32)> {
        let used = |backend: RegisteredBackend| {
            let spec = backend.spec_for(server, None)?;
            Some((backend.place.addr[6..].trim_end_matches(":1").to_owned(), spec.max_jobs))
        };
        self.registry.backends().into_iter().filter_map(used).collect()
    }

    fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

fn used(backends: &[(&str, u32)]) -> Vec<(String, u32)> {
    backends.iter().map(|(name, max_jobs)| ((*name).to_owned(), *max_jobs)).collect()
}

#[test]
fn a_server_uses_its_own_configuration_and_what_was_added() {
    let (mut fleet, one, two) = (Told::default(), "one".parse().unwrap(), "two".parse().unwrap());
    fleet.configure(&one, &[("a", 1), ("b", 1)], 0);
    fleet.configure(&two, &[("b", 2), ("c", 1)], 0);
    fleet.add("d", 4).unwrap();
    assert_eq!(fleet.used_by(&one), used(&[("a", 1), ("b", 1), ("d", 4)]));
    assert_eq!(fleet.used_by(&two), used(&[("b", 2), ("c", 1), ("d", 4)]));
    assert_eq!(
        fleet.events(),
        ["tcp://a:1 unknown", "tcp://b:1 unknown", "tcp://c:1 unknown", "tcp://d:1 unknown"]
    );
    // Its word holds for a while, and is forgotten then.
    fleet.configure(&two, &[("b", 2), ("c", 1)], 9);
    fleet.configure(&two, &[("b", 2), ("c", 1)], 18);
    assert_eq!(fleet.used_by(&one), used(&[("d", 4)]));
    assert_eq!(
        fleet.events(),
        ["tcp://b:1 unknown", "tcp://a:1 removed"],
        "the other one is what two says now"
    );
    assert_eq!(fleet.registry.backends().len(), 3);
}

#[test]
fn what_was_removed_at_run_time_stays_so_until_it_is_another_one() {
    let (mut fleet, before, after) = (Told::default(), ServerId::unique(), ServerId::unique());
    fleet.configure(&before, &[("a", 1), ("b", 1)], 0);
    fleet.remove("a").unwrap();
    assert_eq!(fleet.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fleet.used_by(&before), used(&[("b", 1)]));
    assert_eq!(fleet.events().last().unwrap(), "tcp://a:1 removed");
    // The server starts again.
    fleet.leave(&before);
    assert_eq!(fleet.events(), ["tcp://b:1 removed"]);
    fleet.configure(&after, &[("a", 1), ("b", 1)], 0);
    assert_eq!(fleet.used_by(&after), used(&[("b", 1)]));
    // Another word of the configuration is a new one.
    fleet.configure(&after, &[("a", 2), ("b", 1)], 0);
    assert_eq!(fleet.used_by(&after), used(&[("a", 2), ("b", 1)]));
    fleet.remove("a").unwrap();
    fleet.add("a", 8).unwrap();
    assert_eq!(fleet.used_by(&after), used(&[("a", 8), ("b", 1)]), "so is a new addition");
    fleet.remove("a").unwrap();
    fleet.configure(&after, &[("b", 1)], 0);
    fleet.configure(&after, &[("a", 2), ("b", 1)], 0);
    assert_eq!(
        fleet.used_by(&after),
        used(&[("b", 1), ("a", 2)]),
        "and what comes back to the configuration"
    );
}

#[test]
fn servers_with_different_words_do_not_bring_back_what_was_removed() {
    let (mut fleet, one, two) = (Told::default(), ServerId::unique(), ServerId::unique());
    for _ in 0..2 {
        fleet.configure(&one, &[("a", 1), ("b", 1)], 0);
        fleet.configure(&two, &[("a", 2), ("b", 1)], 0);
        fleet.remove("a").map_or_else(|error| assert_eq!(error.kind(), ErrorKind::NotFound), |()| ());
        assert_eq!((fleet.used_by(&one), fleet.used_by(&two)), (used(&[("b", 1)]), used(&[("b", 1)])));
    }
}

#[test]
fn what_was_removed_comes_back_for_no_server_through_another_one() {
    let (mut fleet, one, away) = (Told::default(), ServerId::unique(), ServerId::unique());
    fleet.configure(&one, &[("a", 1), ("b", 1)], 0);
    fleet.remove("a").unwrap();
    // A server that was away had it as another one, and has it so.
    fleet.configure(&away, &[("a", 2), ("b", 1)], 0);
    assert_eq!((fleet.used_by(&one), fleet.used_by(&away)), (used(&[("b", 1)]), used(&[("a", 2), ("b", 1)])));
    fleet.remove("a").unwrap();
    fleet.leave(&one);
    fleet.configure(&away, &[("a", 2), ("b", 1)], 0);
    fleet.configure(&one, &[("a", 1), ("b", 1)], 0);
    assert_eq!((fleet.used_by(&one), fleet.used_by(&away)), (used(&[("b", 1)]), used(&[("b", 1)])));
    // What is kept of removals has a bound.
    for max_jobs in 3..100 {
        let again = ServerId::unique();
        fleet.configure(&again, &[("a", max_jobs), ("b", 1)], 0);
        fleet.remove("a").unwrap();
        fleet.leave(&again);
    }
    assert_eq!(fleet.registry.backends()[0].removed.len(), limits::REMOVED_SPECS_MAX);
}

#[test]
fn a_server_that_ends_gives_its_trial_back() {
    let (mut fleet, one, two) = (Told::default(), ServerId::unique(), ServerId::unique());
    fleet.add("a", 1).unwrap();
    let failure = BackendFailure { message: "it broke off".to_owned(), hint: None, at: START };
    for _ in 0..limits::BREAKER_FAILURES {
        fleet.observe("a", &one, Seen::Failed { failure: failure.clone(), unreachable: false }, 0);
    }
    fleet.observe("a", &one, Seen::Answered, 1);
    let admits = |fleet: &Told, server| {
        let health = fleet.registry.backends()[0].health.clone();
        health.seen_by(server, &Health::default()).admits()
    };
    fleet.observe("a", &two, Seen::Answered, 2);
    assert!(admits(&fleet, &one) && !admits(&fleet, &two));
    fleet.leave(&one);
    fleet.observe("a", &two, Seen::Answered, 3);
    assert!(admits(&fleet, &two));
}

#[test]
fn a_drained_backend_stays_so_when_its_server_starts_again() {
    let (mut fleet, before, after) = (Told::default(), ServerId::unique(), ServerId::unique());
    fleet.configure(&before, &[("a", 1)], 0);
    fleet.drain("a", true).unwrap();
    fleet.drain("a", true).unwrap();
    assert_eq!(fleet.events(), ["tcp://a:1 unknown", "tcp://a:1 draining"]);
    fleet.leave(&before);
    fleet.configure(&after, &[("a", 1)], 0);
    assert_eq!(fleet.registry.backends()[0].status(), BackendStatus::Draining);
    fleet.drain("a", false).unwrap();
    assert_eq!(fleet.registry.backends()[0].status(), BackendStatus::Unknown);
    assert_eq!(fleet.drain("x", true).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn additions_are_idempotent_and_the_last_backend_stays() {
    let mut fleet = Told::default();
    fleet.add("a", 1).unwrap();
    fleet.add("a", 1).unwrap();
    assert_eq!(fleet.add("a", 2).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fleet.remove("a").unwrap_err().kind(), ErrorKind::InvalidRequest);
    fleet.add("b", 1).unwrap();
    fleet.remove("a").unwrap();
    assert_eq!(fleet.registry.backends().len(), 1, "nothing is kept of what was added and removed");
    assert_eq!(fleet.events(), ["tcp://a:1 unknown", "tcp://b:1 unknown", "tcp://a:1 removed"]);
}

#[test]
fn all_changes_of_a_call_are_made_or_none() {
    let mut registry = Registry::default();
    let add = |name| FleetChange::Add { place: place(name), spec: spec(1) };
    let remove = FleetChange::Remove { place: place("x") };
    assert!(registry.change(&[add("a"), add("b"), remove], START).is_err());
    assert!(registry.backends().is_empty());
    let told = registry.change(&[add("a"), add("b")], START).unwrap();
    assert_eq!((told.changed.len(), told.events.len()), (2, 2));
    assert!(registry.change(&[add("a")], START).unwrap().is_empty());
}

#[test]
fn what_servers_see_adds_up() {
    let (mut fleet, one, two) = (Told::default(), ServerId::unique(), ServerId::unique());
    fleet.configure(&one, &[("a", 1)], 0);
    fleet.configure(&two, &[("a", 1)], 0);
    let failure = BackendFailure { message: "it broke off".to_owned(), hint: None, at: START };
    for by in [&one, &two, &one] {
        let seen = Seen::Failed { failure: failure.clone(), unreachable: false };
        fleet.observe("a", by, seen, 0);
    }
    assert_eq!(fleet.registry.backends()[0].status(), BackendStatus::Failing);
    fleet.observe("a", &two, Seen::Answered, 1);
    assert_eq!(fleet.events(), ["tcp://a:1 unknown", "tcp://a:1 failing", "tcp://a:1 trial"]);
    fleet.observe("b", &one, Seen::Answered, 1);
    assert_eq!(fleet.registry.backends().len(), 1);
}

#[test]
fn there_are_not_too_many_and_unused_ones_go_first() {
    let (mut fleet, server) = (Told::default(), ServerId::unique());
    fleet.configure(&server, &[("old", 1), ("older", 1)], 0);
    fleet.drain("old", true).unwrap();
    fleet.leave(&server);
    assert_eq!(fleet.registry.backends().len(), 1);
    let names: Vec<String> = (0..limits::BACKENDS_MAX).map(|number| format!("a{number}")).collect();
    let names: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    fleet.configure(&server, &names, 0);
    assert_eq!(fleet.registry.backends().len(), limits::BACKENDS_MAX);
    assert_eq!(fleet.add("one-more", 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(fleet.registry.backends().len(), limits::BACKENDS_MAX);
}

#[test]
fn a_backend_is_stored_as_it_is() {
    let (mut fleet, server) = (Told::default(), ServerId::unique());
    fleet.configure(&server, &[("a", 1), ("b", 1)], 0);
    fleet.drain("a", true).unwrap();
    fleet.remove("b").unwrap();
    let failure =
        BackendFailure { message: "refused".to_owned(), hint: Some("start it".to_owned()), at: START };
    fleet.observe("a", &server, Seen::Failed { failure, unreachable: true }, 0);
    let stored = serde_json::to_string(&fleet.registry.backends()).unwrap();
    let read: Vec<RegisteredBackend> = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, fleet.registry.backends());
}
