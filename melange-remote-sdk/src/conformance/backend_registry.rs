//! The promises of a [`BackendRegistry`].
//!
//! The suite runs on several handles of one registry and opens it anew in between: see [`RegistryUnderTest`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::job_store::{START, at};
use crate::arch::Arch;
use crate::backend::health::{BackendFailure, BackendStatus, Observation, Seen};
use crate::backend::registry::{BackendRegistry, BackendSpec, FleetChange, FleetState, RegisteredBackend};
use crate::error::ErrorKind;
use crate::job::{BackendPlace, JobId, ServerId};
use crate::job_store::hinted;
use crate::limits;

/// Changes that are made at once.
const AT_ONCE: usize = 24;

/// How long a hint may take.
const HINT: Duration = Duration::from_secs(20);

/// One registry, as the suite needs it.
#[async_trait]
pub trait RegistryUnderTest: Send + Sync {
    /// One more handle of the registry, as another server would hold it.
    async fn handle(&self) -> Arc<dyn BackendRegistry>;

    /// Closes the registry and opens it anew; the suite uses no handle from before afterwards.
    async fn reopen(&self) -> Arc<dyn BackendRegistry>;
}

/// A server, and backends that nobody else in the suite has.
struct Lane {
    server: ServerId,
    name: String,
}

impl Lane {
    fn new() -> Self {
        Self { server: ServerId::unique(), name: format!("lane-{}", JobId::new(START)) }
    }

    fn place(&self, name: &str) -> BackendPlace {
        BackendPlace { addr: format!("tcp://{}.{name}:1", self.name), machine: None }
    }

    fn add(&self, name: &str) -> FleetChange {
        FleetChange::Add { place: self.place(name), spec: spec() }
    }

    fn fails(&self, name: &str) -> FleetChange {
        let failure = BackendFailure { message: "refused".to_owned(), hint: None, at: START };
        let seen = Seen::Failed { failure, unreachable: false };
        let observation = Observation::new(seen, START, 0);
        FleetChange::Observe { place: self.place(name), by: self.server.clone(), observation }
    }

    async fn change(&self, registry: &dyn BackendRegistry, change: FleetChange) -> Vec<RegisteredBackend> {
        let told = registry.change_fleet(&self.server, &[change], at(1)).await;
        self.of(told.expect("it is a legal change"))
    }

    async fn read(&self, registry: &dyn BackendRegistry) -> Vec<RegisteredBackend> {
        self.of(registry.fleet(&self.server).await.expect("it tells"))
    }

    /// The lane's own backends.
    fn of(&self, fleet: FleetState) -> Vec<RegisteredBackend> {
        let own = |backend: &RegisteredBackend| backend.place.addr.contains(&self.name);
        fleet.backends.into_iter().filter(own).collect()
    }
}

fn spec() -> BackendSpec {
    BackendSpec::new(Arch::X86_64, crate::labels::Labels::default(), 4)
}

/// Every promise. The registry may hold other backends, also from an earlier run.
pub async fn all(registry: &dyn RegistryUnderTest) {
    let handle = registry.handle().await;
    changes_are_seen(&*handle, &*registry.handle().await).await;
    order_is_kept(&*handle).await;
    refused_changes_change_nothing(&*handle).await;
    changes_at_once_are_as_changes_in_a_row(registry).await;
    changes_give_hints(&*handle).await;
    drop(handle);
    changes_outlive_the_registry(registry).await;
}

/// What a call changed is in its answer, and all servers see it.
pub async fn changes_are_seen(one: &dyn BackendRegistry, other: &dyn BackendRegistry) {
    let lane = Lane::new();
    let told = lane.change(one, lane.add("a")).await;
    assert_eq!(told.len(), 1, "the answer tells of the change");
    assert_eq!(told[0].added.as_ref(), Some(&spec()));
    assert_eq!(lane.read(other).await, told, "another server sees it");
    let drain = FleetChange::Drain { place: lane.place("a"), draining: true };
    let told = lane.change(other, drain).await;
    assert_eq!(told[0].status(), BackendStatus::Draining, "the answer tells of the change");
    assert_eq!(lane.read(one).await, told, "another server sees it");
    lane.change(one, lane.add("b")).await;
    let told = lane.change(one, FleetChange::Remove { place: lane.place("a") }).await;
    let left =
        |backends: &[RegisteredBackend]| backends.iter().filter(|backend| backend.spec().is_some()).count();
    assert_eq!((left(&told), left(&lane.read(other).await)), (1, 1), "what was removed is gone for all");
}

/// Backends are told in the order in which they came.
pub async fn order_is_kept(registry: &dyn BackendRegistry) {
    let lane = Lane::new();
    for name in ["c", "a", "b"] {
        lane.change(registry, lane.add(name)).await;
    }
    lane.change(registry, FleetChange::Drain { place: lane.place("c"), draining: true }).await;
    let places: Vec<BackendPlace> = lane.read(registry).await.into_iter().map(|known| known.place).collect();
    assert_eq!(places, ["c", "a", "b"].map(|name| lane.place(name)));
}

/// All changes of a call are made, or none.
pub async fn refused_changes_change_nothing(registry: &dyn BackendRegistry) {
    let lane = Lane::new();
    let remove = FleetChange::Remove { place: lane.place("nobody") };
    let refused = registry.change_fleet(&lane.server, &[lane.add("a"), remove], at(1)).await;
    assert_eq!(refused.expect_err("there is none").kind(), ErrorKind::NotFound);
    assert!(lane.read(registry).await.is_empty(), "nothing of it was made");
    lane.change(registry, lane.add("a")).await;
    let other = BackendSpec { max_jobs: 5, ..spec() };
    let add = FleetChange::Add { place: lane.place("a"), spec: other };
    let refused = registry.change_fleet(&lane.server, &[add], at(1)).await;
    assert_eq!(refused.expect_err("the address is taken").kind(), ErrorKind::AlreadyExists);
    assert_eq!(lane.change(registry, lane.add("a")).await.len(), 1, "the same again is no mistake");
}

/// Of what several servers change at once nothing is lost.
pub async fn changes_at_once_are_as_changes_in_a_row(registry: &dyn RegistryUnderTest) {
    let lane = Arc::new(Lane::new());
    let mut handles = Vec::new();
    for _ in 0..4 {
        handles.push(registry.handle().await);
    }
    lane.change(&*handles[0], lane.add("shared")).await;
    let changes = (0..AT_ONCE).map(|number| {
        let (lane, handle) = (Arc::clone(&lane), Arc::clone(&handles[number % handles.len()]));
        tokio::spawn(async move {
            lane.change(&*handle, lane.add(&format!("b{number}"))).await;
            if number < limits::BREAKER_FAILURES {
                lane.change(&*handle, lane.fails("shared")).await;
            }
        })
    });
    for ended in futures_util::future::join_all(changes.collect::<Vec<_>>()).await {
        ended.expect("no change breaks off");
    }
    let backends = lane.read(&*handles[0]).await;
    assert_eq!(backends.len(), AT_ONCE + 1, "none was lost");
    let numbers: BTreeSet<u64> = backends.iter().map(|backend| backend.number).collect();
    assert_eq!(numbers.len(), backends.len(), "each has a number of its own");
    assert_eq!(backends[0].status(), BackendStatus::Failing, "what servers saw adds up");
}

/// Who looks is told that the fleet changed.
pub async fn changes_give_hints(registry: &dyn BackendRegistry) {
    let lane = Lane::new();
    let mut hint = registry.fleet_changed();
    hint.mark_unchanged();
    lane.change(registry, lane.add("a")).await;
    tokio::time::timeout(HINT, hinted(&mut hint)).await.expect("a hint comes");
}

/// What was changed is there after the registry was opened anew.
pub async fn changes_outlive_the_registry(registry: &dyn RegistryUnderTest) {
    let lane = Lane::new();
    let handle = registry.handle().await;
    lane.change(&*handle, lane.add("a")).await;
    let (server, until) = (lane.server.clone(), Timestamp::MAX);
    let backends = vec![(lane.place("b"), spec()), (lane.place("c"), spec())];
    lane.change(&*handle, FleetChange::Configure { server, backends, until }).await;
    lane.change(&*handle, FleetChange::Drain { place: lane.place("a"), draining: true }).await;
    lane.change(&*handle, FleetChange::Remove { place: lane.place("c") }).await;
    let known = lane.change(&*handle, lane.fails("b")).await;
    drop(handle);
    let handle = registry.reopen().await;
    assert_eq!(lane.read(&*handle).await, known, "nothing was forgotten");
    lane.change(&*handle, FleetChange::Leave { server: lane.server.clone() }).await;
    let server = ServerId::unique();
    let backends = vec![(lane.place("b"), spec()), (lane.place("c"), spec())];
    let told =
        lane.change(&*handle, FleetChange::Configure { server: server.clone(), backends, until }).await;
    let used: Vec<BackendPlace> = told
        .iter()
        .filter(|backend| backend.spec_for(&server, None).is_some())
        .map(|backend| backend.place.clone())
        .collect();
    assert_eq!(used, [lane.place("a"), lane.place("b")], "what was removed stays so");
    assert_eq!(told[0].status(), BackendStatus::Draining, "so does what was drained");
}
