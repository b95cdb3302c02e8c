//! The promise that nothing is lost: neither at once, nor by a restart.

use super::progress::tell_everything;
use super::*;
use crate::job_store::EventQuery;

/// What a store held before it was opened anew.
struct Before {
    jobs: Vec<Arc<Job>>,
    attempts: Vec<Vec<JobAttempt>>,
    specs: Vec<Arc<JobSpec>>,
    logs: Vec<Bytes>,
    submission: Submission,
    keyed: Submitted,
    leased: (Lane, Fence, Fence),
    paused: Lane,
    chain: (Lane, BuildId, Vec<JobId>),
    reason: Lane,
}

async fn play(store: &dyn JobStore) -> Before {
    let mut ids = Vec::new();
    let leased = Lane::new();
    let (job, old) = leased.running(store).await;
    expire(store, 10).await;
    let fence = leased.claim_one(store, 10).await.fence;
    ids.push(job);
    for ending in [succeeded(), failed(), Outcome::Cancelled] {
        let lane = Lane::new();
        let id = lane.insert(store).await;
        let claim = lane.claim_one(store, 0).await;
        tell_everything(store, &claim).await;
        let back = Release { avoid: true, ..given_back(Some(5), false) };
        store.release(claim.fence, &back, at(1)).await.expect("the owner gives it back");
        let group = Group { avoid: vec![lane.backend.addr.clone()], ..lane.group() };
        let request = lane.request(vec![Offer { group, ..lane.offer(1) }], 5);
        let claim = store.claim(&request).await.expect("claiming works").pop().expect("it waits");
        tell_everything(store, &claim).await;
        store.finish(claim.fence, &ending, at(6)).await.expect("the owner ends it");
        ids.push(id);
    }
    let paused = Lane::new();
    let (id, paused_fence) = paused.running(store).await;
    store.release(paused_fence, &given_back(Some(100), true), at(1)).await.expect("the owner gives it back");
    ids.push(id);
    let lane = Lane::new();
    let build = BuildId::new(START);
    let first = new_job("a");
    let second = new_job("b").waiting_for([first.id]);
    let third = new_job("c").waiting_for([second.id]);
    let chain = vec![first.id, second.id, third.id];
    store.submit(&lane.submission([first, second, third]).as_build(build)).await.expect("it is handed in");
    ids.extend(&chain);
    let reason = Lane::new();
    ids.push(reason.insert(store).await);
    let waiting =
        GroupWaiting { group: reason.group(), reason: "busy".to_owned(), needs_other_backends: true };
    store.note_waiting(&[waiting], at(3)).await.expect("it notes");
    let submission = Lane::new().submission([new_job("g"), new_job("h")]).with_key(fresh_key());
    let keyed = store.submit(&submission).await.expect("it is handed in");
    ids.extend(&keyed.jobs);
    let stopped = Lane::new();
    let (id, _) = stopped.running(store).await;
    store.cancel(Selection::Job(id), at(2)).await.expect("it runs");
    ids.push(id);
    let (id, owner) = Lane::new().running(store).await;
    store.finish(owner, &succeeded(), at(2)).await.expect("the owner ends it");
    for what in [Holding::Artifacts, Holding::Logs] {
        store.note_removed(id, what, at(3)).await.expect("it ended");
    }
    ids.push(id);
    let (mut jobs, mut attempts, mut specs, mut logs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for id in ids {
        jobs.push(get(store, id).await);
        attempts.push(store.attempts(id).await.expect("they are there"));
        specs.push(store.spec(id).await.expect("it is there"));
        logs.push(store.read_log(id, 0, 1_000).await.expect("it reads").bytes);
    }
    let leased = (leased, old, fence);
    let chain = (lane, build, chain);
    Before { jobs, attempts, specs, logs, submission, keyed, leased, paused, chain, reason }
}

/// Everything that is recorded is there after a restart: jobs, attempts, logs, keys, builds, waits, leases and fences.
pub(super) async fn all(store: &dyn StoreUnderTest) {
    let handle = store.handle().await;
    let begun = events::now(&*handle).await;
    let before = play(&*handle).await;
    let happened = events::read(&*handle, &EventQuery::after(begun)).await;
    assert!(happened.events.len() > before.jobs.len());
    drop(handle);
    let reopened = store.reopen().await;
    for handle in [reopened, store.handle().await] {
        assert_eq!(events::read(&*handle, &EventQuery::after(begun)).await, happened);
        for (place, job) in before.jobs.iter().enumerate() {
            assert_eq!(get(&*handle, job.id).await, *job);
            assert_eq!(handle.attempts(job.id).await.expect("they are there"), before.attempts[place]);
            assert_eq!(handle.spec(job.id).await.expect("it is there"), before.specs[place]);
            let log = handle.read_log(job.id, 0, 1_000).await.expect("its log is there");
            assert_eq!(log.bytes, before.logs[place]);
        }
        let known = handle.submit(&before.submission).await.expect("the key is known");
        assert_eq!(known, Submitted { created: false, ..before.keyed.clone() });
    }
    let handle = store.handle().await;
    let handle = &*handle;
    let (lane, old, fence) = &before.leased;
    assert!(lane.claim(handle, 1, 19).await.is_empty(), "the lease holds over the restart");
    is_stale(handle, lane, *old, "the lease before was lost").await;
    assert_eq!(lane.renew(handle, *fence, 30).await, Renewal::Kept { cancel_requested: false });
    handle.finish(*fence, &succeeded(), at(20)).await.expect("the fence holds over the restart");
    assert!(before.paused.claim(handle, 1, 99).await.is_empty(), "the pause holds over the restart");
    assert_eq!(before.paused.claim_one(handle, 100).await.job.attempt, 2, "it ends");
    let since = handle
        .note_waiting(
            &[GroupWaiting {
                group: before.reason.group(),
                reason: "busy".to_owned(),
                needs_other_backends: true,
            }],
            at(50),
        )
        .await
        .expect("it notes");
    assert_eq!(since, [at(3)], "reasons last over the restart");
    let (lane, build, ids) = &before.chain;
    for id in ids {
        let claim = lane.claim_one(handle, 20).await;
        assert_eq!(claim.job.id, *id, "waits hold over the restart");
        handle.finish(claim.fence, &succeeded(), at(21)).await.expect("the owner ends it");
    }
    assert_eq!(handle.build(*build).await.expect("it is there").state(), BuildState::Success);
}
