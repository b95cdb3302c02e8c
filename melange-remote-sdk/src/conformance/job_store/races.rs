//! Promises about many calls at once, through several handles of one store.

use std::collections::BTreeSet;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;

/// Handles that call at once.
const HANDLES: usize = 2;

/// Calls at once.
const CALLS: usize = 8;

/// How often each race is run.
const ROUNDS: usize = 8;

pub(super) async fn all(store: &dyn StoreUnderTest) {
    every_job_has_one_claimer(store).await;
    a_backend_is_never_overrun(store).await;
    one_of_many_submissions_with_a_key_wins(store).await;
    ends_at_once_unlock_once(store).await;
    two_handles_are_one_store(store).await;
}

async fn handles(store: &dyn StoreUnderTest) -> Vec<Arc<dyn JobStore>> {
    let mut handles = Vec::new();
    for _ in 0..HANDLES {
        handles.push(store.handle().await);
    }
    handles
}

/// Runs calls at once, each on its handle, and gives what they come to.
async fn at_once<T, F>(handles: &[Arc<dyn JobStore>], call: impl Fn(usize, Arc<dyn JobStore>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (mut calls, start) = (JoinSet::new(), Arc::new(Barrier::new(CALLS)));
    for number in 0..CALLS {
        let (call, start) = (call(number, Arc::clone(&handles[number % handles.len()])), Arc::clone(&start));
        calls.spawn(async move {
            start.wait().await;
            call.await
        });
    }
    calls.join_all().await
}

/// Of many claimers at once each job goes to exactly one.
async fn every_job_has_one_claimer(store: &dyn StoreUnderTest) {
    let handles = handles(store).await;
    for _ in 0..ROUNDS {
        let lane = Arc::new(Lane::new());
        let mut jobs = BTreeSet::new();
        for _ in 0..CALLS {
            jobs.insert(lane.insert(&*handles[0]).await);
        }
        let claims = at_once(&handles, |_, store| {
            let lane = Arc::clone(&lane);
            async move { lane.claim(&*store, 3, 0).await }
        });
        let claims: Vec<Claim> = claims.await.into_iter().flatten().collect();
        assert_eq!(claims.len(), jobs.len(), "{} jobs were claimed {} times", jobs.len(), claims.len());
        assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<BTreeSet<_>>(), jobs);
        for claim in claims {
            assert_eq!(
                get(&*handles[1], claim.job.id).await,
                claim.job,
                "the job is as its claimer was told"
            );
            handles[1].finish(claim.fence, &succeeded(), at(1)).await.expect("the owner ends it");
        }
    }
}

/// Many claimers at once, each with free slots, never make a backend run more than it may.
async fn a_backend_is_never_overrun(store: &dyn StoreUnderTest) {
    let handles = handles(store).await;
    for _ in 0..ROUNDS {
        let lane = Arc::new(Lane::new());
        for _ in 0..CALLS * 2 {
            lane.insert(&*handles[0]).await;
        }
        let claims = at_once(&handles, |_, store| {
            let lane = Arc::clone(&lane);
            async move {
                let offer = Offer { max_jobs: 3, ..lane.offer(2) };
                store.claim(&lane.request(vec![offer], 0)).await.expect("claiming works")
            }
        });
        let claims: Vec<Claim> = claims.await.into_iter().flatten().collect();
        assert_eq!(claims.len(), 3, "a backend for three jobs got {}", claims.len());
        for claim in claims {
            handles[1].finish(claim.fence, &succeeded(), at(1)).await.expect("the owner ends it");
        }
        let rest = lane.claim(&*handles[0], CALLS * 2, 2).await;
        for claim in rest {
            handles[0].finish(claim.fence, &succeeded(), at(3)).await.expect("the owner ends it");
        }
    }
}

/// Of many submissions with one key exactly one makes jobs, and all of them tell of these.
async fn one_of_many_submissions_with_a_key_wins(store: &dyn StoreUnderTest) {
    let handles = handles(store).await;
    for _ in 0..ROUNDS {
        let (lane, key) = (Arc::new(Lane::new()), fresh_key());
        let told = at_once(&handles, |_, store| {
            let submission = lane.submission([new_job("a"), new_job("a")]).with_key(&key);
            async move { store.submit(&submission).await.expect("the key has this content") }
        });
        let told = told.await;
        assert_eq!(told.iter().filter(|told| told.created).count(), 1, "one key makes one submission");
        assert!(told.iter().all(|other| other.jobs == told[0].jobs), "all of them tell of the same jobs");
        assert_eq!(lane.ready(&*handles[1], 0).await, 2);
        for id in &told[0].jobs {
            handles[0].cancel(Selection::Job(*id), at(1)).await.expect("it waits");
        }
    }
}

/// Many needed jobs that end at once unlock what waits for all of them, once.
async fn ends_at_once_unlock_once(store: &dyn StoreUnderTest) {
    let handles = handles(store).await;
    for _ in 0..ROUNDS {
        let lane = Lane::new();
        let needs: Vec<NewJob> = (0..CALLS).map(|_| new_job("a")).collect();
        let last = new_job("a").waiting_for(needs.iter().map(|job| job.id));
        let id = last.id;
        let submission = lane.submission(needs.into_iter().chain([last]));
        handles[0].submit(&submission).await.expect("it is handed in");
        let fences: Vec<Fence> =
            lane.claim(&*handles[0], CALLS, 0).await.iter().map(|claim| claim.fence).collect();
        let told = at_once(&handles, |number, store| {
            let fence = fences[number];
            async move { store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it").unlocked }
        });
        assert_eq!(told.await.iter().sum::<usize>(), 1, "it is unlocked once");
        assert_eq!(get(&*handles[1], id).await.version, 2, "one event");
        let claim = lane.claim_one(&*handles[1], 2).await;
        assert_eq!(claim.job.id, id);
        handles[1].finish(claim.fence, &succeeded(), at(3)).await.expect("the owner ends it");
    }
}

/// What is done through one handle holds for the other at once.
async fn two_handles_are_one_store(store: &dyn StoreUnderTest) {
    let (one, two) = (store.handle().await, store.handle().await);
    let lane = Lane::new();
    let (job, fence) = lane.running(&*one).await;
    assert!(lane.claim(&*two, 1, 1).await.is_empty(), "the lease holds for every handle");
    assert_eq!(lane.renew(&*two, fence, 30).await, Renewal::Kept { cancel_requested: false });
    assert!(
        expire(&*one, 29).await.iter().all(|settled| settled.id != job),
        "a renewal through the other counts"
    );
    two.cancel(Selection::Job(job), at(2)).await.expect("a running job can be cancelled");
    assert_eq!(one.cancel_requests(&lane.server).await.expect("it tells"), [fence]);
    two.append(fence, 0, &[step("a")]).await.expect("the owner tells");
    assert_eq!(one.attempt(job, 1).await.expect("it is there").steps.len(), 1);
    append(&*one, fence, "one\n").await.expect("the owner writes");
    assert_eq!(append(&*two, fence, "two\n").await.expect("the owner writes"), 8);
    assert_eq!(&one.read_log(job, 0, 100).await.expect("it reads").bytes[..], b"one\ntwo\n");
    let done = one.finish(fence, &succeeded(), at(4)).await.expect("the owner ends it").job;
    assert_eq!(get(&*two, job).await, done);
    assert_eq!(two.finish(fence, &succeeded(), at(5)).await.expect("it is the same end").job, done);
    conflicts(two.finish(fence, &failed(), at(5)).await, "it is finished");
    let key = fresh_key();
    let keyed = || lane.submission([new_job("a")]).with_key(&key);
    let made = one.submit(&keyed()).await.expect("it is handed in");
    let known = two.submit(&keyed()).await.expect("it is known");
    assert_eq!((known.created, &known.jobs), (false, &made.jobs));
    assert_eq!(lane.demand(&*two, 0).await[0].first, made.jobs[0]);
    one.cancel(Selection::Job(made.jobs[0]), at(1)).await.expect("it waits");
    assert_eq!(lane.demand(&*two, 0).await, []);
    one.remove(job).await.expect("it has finished");
    assert_eq!(two.get(job).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}
