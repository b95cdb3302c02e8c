//! Promises about bounds: a store keeps them although its caller asks for more.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{append, at, claim, claimed, fresh_key, insert, keyed, new_job, succeeded, versioned};
use crate::error::ErrorKind;
use crate::job::{JobEvent, JobId};
use crate::job_store::{ClaimRequest, JobStore, ListQuery, QueueQuery};
use crate::limits;

/// Pages of listings and of the queue, claims of one call, keys, reads of logs.
pub async fn pages_claims_keys_and_reads_are_bounded(store: &dyn JobStore) {
    keys_are_bounded(store).await;
    reads_of_logs_are_bounded(store).await;
    pages_and_claims_are_bounded(store).await;
}

async fn keys_are_bounded(store: &dyn JobStore) {
    let longest = format!("{:k<width$}", fresh_key(), width = limits::IDEMPOTENCY_KEY_BYTES_MAX);
    assert!(store.insert(keyed(&longest, "a")).await.expect("the key is not too long").created);
    assert!(!store.insert(keyed(&longest, "a")).await.expect("the key is known").created);
    for too_long in [format!("{longest}k"), longest.repeat(100)] {
        let new = keyed(&too_long, "a");
        let id = new.id;
        let refused = store.insert(new).await.expect_err("the key is too long");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
        assert_eq!(store.get(id).await.expect_err("it was refused").kind(), ErrorKind::NotFound);
    }
}

async fn reads_of_logs_are_bounded(store: &dyn JobStore) {
    let (job, fence) = claimed(store).await;
    let line = Bytes::from(vec![b'x'; limits::LOG_WRITE_BYTES]);
    let mut len = 0;
    while len <= limits::LOG_READ_BYTES_MAX {
        append(store, job, fence, line.clone()).await.expect("the owner writes");
        len += line.len();
    }
    for limit in [len, usize::MAX] {
        let chunk = store.read_log(job, 0, limit).await.expect("it reads");
        assert_eq!(chunk.bytes.len(), limits::LOG_READ_BYTES_MAX, "a read gives what it may");
        assert_eq!(chunk.len, u64::try_from(len).expect("it fits"));
    }
    assert_eq!(store.read_log(job, 0, 10).await.expect("it reads").bytes.len(), 10);
    assert_eq!(store.read_log(job, 0, 0).await.expect("it reads").bytes.len(), 0);
}

async fn pages_and_claims_are_bounded(store: &dyn JobStore) {
    let (page_max, round_max) = (limits::PAGE_ITEMS_MAX, limits::CLAIMS_PER_ROUND_MAX);
    let before = insert(store).await.id;
    let mut jobs = Vec::new();
    for _ in 0..=page_max.max(round_max) {
        jobs.push(insert(store).await.id);
    }
    for limit in [page_max + 1, usize::MAX] {
        let page = store.list(&ListQuery { limit, ..ListQuery::default() }).await.expect("it lists");
        assert_eq!(page.jobs.len(), page_max, "a page has what it may");
        assert!(page.more, "it is not the last page");
        let query = QueueQuery { now: at(0), arches: None, after: Some(before), limit };
        assert_eq!(store.queue(&query).await.expect("the queue reads").len(), round_max);
    }
    let request = ClaimRequest { jobs: jobs.clone(), now: at(0), until: at(10) };
    let claims = store.claim(&request).await.expect("claiming works");
    let claims: Vec<JobId> = claims.iter().map(|claim| claim.job.id).collect();
    assert_eq!(claims, jobs[..round_max], "a call claims what it may, the preferred jobs first");
    let left: BTreeSet<JobId> = jobs[round_max..].iter().copied().collect();
    let query = QueueQuery { now: at(0), arches: None, after: Some(before), limit: usize::MAX };
    let queue = store.queue(&query).await.expect("the queue reads");
    assert_eq!(queue.iter().map(|row| row.id).collect::<BTreeSet<_>>(), left, "the others still wait");
}

/// More than `pending_max` jobs cannot wait; one that runs or has ended makes room. The store holds nothing else.
pub async fn waiting_jobs_are_bounded(store: &dyn JobStore, pending_max: usize) {
    assert!(pending_max >= 3, "with less there is nothing to see");
    let key = fresh_key();
    let first = store.insert(keyed(&key, "a")).await.expect("there is room").job;
    let mut jobs = Vec::new();
    for _ in 1..pending_max {
        jobs.push(insert(store).await);
    }
    let full = async || {
        let new = new_job("a");
        let id = new.id;
        let refused = store.insert(new).await.expect_err("as many wait as may");
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        assert_eq!(store.get(id).await.expect_err("it was refused").kind(), ErrorKind::NotFound);
    };
    full().await;
    let known = store.insert(keyed(&key, "a")).await.expect("a repeated submission needs no room");
    assert_eq!((known.created, known.job.id), (false, first.id));
    let fence = claim(store, first.id, 0).await.expect("it is claimed").fence;
    insert(store).await;
    full().await;
    store.request_cancel(jobs[0].id, at(1)).await.expect("a pending job is cancelled");
    insert(store).await;
    full().await;
    store.record(versioned(&jobs[1], JobEvent::Cancelled)).await.expect("the version is right");
    store.record(super::fenced(first.id, fence, succeeded(), 1)).await.expect("the owner finishes");
    insert(store).await;
    full().await;
}
