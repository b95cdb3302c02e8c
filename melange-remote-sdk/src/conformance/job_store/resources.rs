//! Promises about what jobs ask of backends.

use super::*;
use crate::backend_selector::Requirements;
use crate::job::{BackendCapacity, JobResources};

pub(super) async fn all(store: &dyn JobStore) {
    a_backend_gives_no_more_than_it_has(store).await;
    who_ran_out_of_memory_asks_for_more(store).await;
    demand_tells_the_rank_of_the_first(store).await;
}

const GIB: u64 = 1 << 30;

/// A job of a package that asks for so much.
fn asking(resources: JobResources) -> NewJob {
    let mut package = JobPackage::new("large", "1-r0");
    package.resources = resources;
    let job = new_job("package: {}\n");
    NewJob { spec: Arc::new(JobSpec::clone(&job.spec).with_package(package)), ..job }
}

fn offer_for(lane: &Lane, asked: JobResources, capacity: BackendCapacity) -> Offer {
    let needs = Requirements::new(Arch::X86_64, LabelSelector::default()).with_resources(asked);
    let group = Group { needs, ..lane.group() };
    Offer { group, capacity, ..lane.offer(9) }
}

/// Whichever servers ask, and whatever sizes they ask for.
async fn a_backend_gives_no_more_than_it_has(store: &dyn JobStore) {
    let lane = Lane::new();
    let (large, small) = (JobResources::new(4_000, 3 * GIB), JobResources::new(1_000, GIB));
    for asked in [large, large, large, small, small, small] {
        lane.submit(store, asking(asked)).await;
    }
    let has = BackendCapacity::new(Some(16_000), Some(8 * GIB));
    let claim = async |server: &ServerId, asked, capacity| {
        let request = lane.request(vec![offer_for(&lane, asked, capacity)], 0);
        let request = ClaimRequest { server: server.clone(), ..request };
        store.claim(&request).await.expect("claiming works")
    };
    let (one, two) = (ServerId::unique(), ServerId::unique());
    let first = claim(&one, large, has).await;
    assert_eq!(first.len(), 2, "the memory holds two");
    assert_eq!(claim(&two, large, has).await.len(), 0, "of which another server gets nothing");
    let second = claim(&two, small, has).await;
    assert_eq!(second.len(), 2, "small ones fill what is left");
    store.finish(first[0].fence, &succeeded(), at(2)).await.expect("the owner ends it");
    assert_eq!(claim(&two, large, has).await.len(), 1, "ends make room");
    let unbounded = claim(&one, small, BackendCapacity::default()).await;
    assert_eq!(unbounded.len(), 1, "nothing is counted where nobody said what there is");
}

/// Until somebody asks for the job again.
async fn who_ran_out_of_memory_asks_for_more(store: &dyn JobStore) {
    let lane = Lane::new();
    let asked = JobResources::new(1_000, GIB);
    let id = lane.submit(store, asking(asked)).await;
    let claim = async |asked: JobResources, seconds| {
        let offer = offer_for(&lane, asked, BackendCapacity::default());
        store.claim(&lane.request(vec![offer], seconds)).await.expect("claiming works")
    };
    let fence = claim(asked, 0).await.remove(0).fence;
    let back = Release { memory_bytes: Some(2 * GIB), ..given_back(None, true) };
    let job = store.release(fence, &back, at(1)).await.expect("the owner gives it back");
    let more = JobResources::new(1_000, 2 * GIB);
    assert_eq!(job.resources(), more);
    assert_eq!(store.get(id).await.expect("it is there").resources(), more);
    assert_eq!(claim(asked, 2).await.len(), 0, "it is of another group now");
    let fence = claim(more, 2).await.remove(0).fence;
    let error = JobError::new(FailureClass::Resources, "it took too much");
    store.finish(fence, &Outcome::Failed { error }, at(3)).await.expect("the owner ends it");
    store.retry(Selection::Job(id), at(4)).await.expect("it failed");
    assert_eq!(store.get(id).await.expect("it is there").resources(), asked, "a retry begins anew");
    store.cancel(Selection::Job(id), at(5)).await.expect("it waits");
}

async fn demand_tells_the_rank_of_the_first(store: &dyn JobStore) {
    let lane = Lane::new();
    let mut ids = Vec::new();
    for rank in [3, 70, -1] {
        ids.push(lane.submit(store, NewJob { rank, ..new_job("package: {}\n") }).await);
    }
    let demand = lane.demand(store, 1).await;
    assert_eq!((demand[0].rank, demand[0].first), (70, ids[1]));
    store.cancel(Selection::Job(ids[1]), at(2)).await.expect("it waits");
    assert_eq!(lane.demand(store, 3).await[0].rank, 3);
    for id in [ids[0], ids[2]] {
        store.cancel(Selection::Job(id), at(4)).await.expect("it waits");
    }
}
