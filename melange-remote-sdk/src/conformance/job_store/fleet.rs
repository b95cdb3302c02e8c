//! Promises of a store that keeps the fleet too: each knows of what is the other's.

use super::events::{now, read};
use super::*;
use crate::backend::registry::{BackendRegistry, BackendSpec, FleetChange};
use crate::job::{BackendLoad, BackendPlace, EventKind, JobResources};
use crate::job_store::EventQuery;

/// The registry of a store counts the jobs that other servers run, and its changes are events of the store, in order.
pub async fn jobs_and_fleet_are_of_one_store(store: &dyn JobStore, registry: &dyn BackendRegistry) {
    let lane = Lane::new();
    let (begun, place) = (now(store).await, BackendPlace { addr: lane.backend.addr.clone(), machine: None });
    let spec = BackendSpec::new(Arch::X86_64, Default::default(), 4);
    let change = async |change| {
        registry.change_fleet(&lane.server, &[change], at(1)).await.expect("it is a legal change")
    };
    change(FleetChange::Add { place: place.clone(), spec: spec.clone() }).await;
    let server = ServerId::unique();
    let backends = vec![(BackendPlace { addr: format!("{}1", place.addr), machine: None }, spec)];
    change(FleetChange::Configure { server, backends, until: Timestamp::MAX }).await;
    let (_, fence) = lane.running(store).await;
    let local = JobBackend {
        machine: Some("m".to_owned()),
        ..JobBackend::new("sandbox://local", Arch::X86_64, Default::default())
    };
    lane.insert(store).await;
    let offer = Offer { backend: local.clone(), ..lane.offer(1) };
    let on_machine =
        store.claim(&lane.request(vec![offer], 1)).await.expect("claiming works").remove(0).fence;
    let other = ServerId::unique();
    let fleet = registry.fleet(&other).await.expect("it tells");
    let counts = [place.key(), local.key()].map(|key| fleet.elsewhere.get(&key).copied());
    let one = BackendLoad::new(1, JobResources::NONE);
    assert_eq!(counts, [Some(one), Some(one)], "others see them");
    let drained = FleetChange::Drain { place: place.clone(), draining: true };
    let own = change(drained).await;
    assert_eq!(own.elsewhere.get(&place.key()), None, "they are its own");
    store.finish(fence, &succeeded(), at(2)).await.expect("the owner ends it");
    store.finish(on_machine, &succeeded(), at(2)).await.expect("the owner ends it");
    let fleet = registry.fleet(&other).await.expect("it tells");
    assert!(!fleet.elsewhere.contains_key(&place.key()), "jobs that ended do not count");
    change(FleetChange::Remove { place: place.clone() }).await;
    let events = read(store, &EventQuery::after(begun)).await.events;
    assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "numbers grow");
    let states = events.iter().filter_map(|event| match &event.kind {
        EventKind::BackendState(state) if state.addr == place.addr => Some(state.state.as_str()),
        _ => None,
    });
    assert_eq!(states.collect::<Vec<_>>(), ["unknown", "draining", "removed"]);
}
