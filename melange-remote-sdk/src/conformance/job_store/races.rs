//! Promises about calls at the same time, through one handle and through several.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{StoreUnderTest, append, at, claim, claimed, fenced, fresh_key, get, insert, keyed, succeeded};
use crate::error::ErrorKind;
use crate::job::{JobEvent, JobState};
use crate::job_store::{Lease, Renewal};

/// Rounds of a race: the order in which its calls come through differs from one to the next.
const ROUNDS: usize = 10;
/// Calls of one round.
const CALLS: usize = 16;
/// Handles that they go through.
const HANDLES: usize = 3;

/// Of many claims at once exactly one succeeds.
pub(super) async fn one_of_many_claimers_wins(store: &dyn StoreUnderTest) {
    let handles = [store.handle().await, store.handle().await, store.handle().await];
    for _ in 0..ROUNDS {
        let id = insert(&*handles[0]).await.id;
        let (mut claims, start) = (JoinSet::new(), Arc::new(Barrier::new(CALLS)));
        for number in 0..CALLS {
            let (store, start) = (Arc::clone(&handles[number % HANDLES]), Arc::clone(&start));
            claims.spawn(async move {
                start.wait().await;
                claim(&*store, id, 0).await
            });
        }
        let won: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "one job was claimed {} times", won.len());
        assert_eq!(get(&*handles[1], id).await, won[0].job, "the job is as the winner was told");
    }
}

/// Of many insertions with one key exactly one makes a job, and all of them tell of it.
pub async fn one_of_many_insertions_with_a_key_wins(store: &dyn StoreUnderTest) {
    let handles = [store.handle().await, store.handle().await, store.handle().await];
    for _ in 0..ROUNDS {
        let (mut insertions, start) = (JoinSet::new(), Arc::new(Barrier::new(CALLS)));
        let key = fresh_key();
        for number in 0..CALLS {
            let (store, start) = (Arc::clone(&handles[number % HANDLES]), Arc::clone(&start));
            let new = keyed(&key, "a");
            insertions.spawn(async move {
                start.wait().await;
                store.insert(new).await.expect("the key has this spec")
            });
        }
        let told = insertions.join_all().await;
        assert_eq!(told.iter().filter(|told| told.created).count(), 1, "one key makes one job");
        let id = told[0].job.id;
        assert!(told.iter().all(|told| told.job.id == id), "all of them tell of one job");
        assert_eq!(get(&*handles[2], id).await.state, JobState::Pending);
    }
}

/// What is done through one handle holds for the other at once.
pub async fn two_handles_are_one_store(store: &dyn StoreUnderTest) {
    let (one, two) = (store.handle().await, store.handle().await);
    let (job, fence) = claimed(&*one).await;
    assert!(claim(&*two, job, 9).await.is_none(), "the lease holds for every handle");
    assert!(claim(&*one, job, 9).await.is_none(), "also for the one that took it");
    let lease = [Lease { job, fence }];
    let renewed = two.renew(&lease, at(30)).await.expect("it renews");
    assert_eq!(renewed, [Renewal::Kept { cancel_requested: false }]);
    assert!(claim(&*one, job, 29).await.is_none(), "a renewal through the other handle counts");
    two.request_cancel(job, at(2)).await.expect("a running job can be cancelled");
    let told = one.renew(&lease, at(31)).await.expect("it renews");
    assert_eq!(told, [Renewal::Kept { cancel_requested: true }]);
    let step = JobEvent::StepStarted { index: 0, name: "a".to_owned() };
    let recorded = two.record(fenced(job, fence, step, 3)).await.expect("the fence is right");
    assert_eq!(get(&*one, job).await, recorded);
    append(&*one, job, fence, "one\n".into()).await.expect("the owner writes");
    let len = append(&*two, job, fence, "two\n".into()).await.expect("the owner writes");
    assert_eq!(len, 8);
    assert_eq!(&one.read_log(job, 0, 100).await.expect("it reads").bytes[..], b"one\ntwo\n");
    one.record(fenced(job, fence, succeeded(), 4)).await.expect("the owner finishes");
    let late = two.record(fenced(job, fence, succeeded(), 5)).await.expect_err("it is finished");
    assert_eq!(late.kind(), ErrorKind::Conflict);
    let key = fresh_key();
    let made = one.insert(keyed(&key, "a")).await.expect("it is inserted");
    let known = two.insert(keyed(&key, "a")).await.expect("it is known");
    assert_eq!((known.created, known.job.id), (false, made.job.id));
    one.remove(job).await.expect("it has finished");
    assert_eq!(two.get(job).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}
