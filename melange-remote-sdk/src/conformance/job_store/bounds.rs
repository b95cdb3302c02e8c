//! Promises about bounds: a store keeps them although its caller asks for more.

use super::*;

/// Pages of listings, claims of one call, keys, waits, reads of logs, leases of one renewal.
pub(super) async fn all(store: &dyn JobStore) {
    keys_are_bounded(store).await;
    waits_are_bounded(store).await;
    reads_of_logs_are_bounded(store).await;
    renewals_are_bounded(store).await;
    pages_and_claims_are_bounded(store).await;
}

async fn keys_are_bounded(store: &dyn JobStore) {
    let lane = Lane::new();
    let keyed = |key: &str| lane.submission([new_job("a")]).with_key(key);
    let longest = format!("{:k<width$}", fresh_key(), width = limits::IDEMPOTENCY_KEY_BYTES_MAX);
    assert!(store.submit(&keyed(&longest)).await.expect("the key is not too long").created);
    assert!(!store.submit(&keyed(&longest)).await.expect("the key is known").created);
    for too_long in [format!("{longest}k"), longest.repeat(100)] {
        let submission = keyed(&too_long);
        let refused = store.submit(&submission).await.expect_err("the key is too long");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
        let told = store.get(submission.jobs[0].id).await;
        assert_eq!(told.expect_err("it was refused").kind(), ErrorKind::NotFound);
    }
    lane.claim_one(store, 0).await;
}

async fn waits_are_bounded(store: &dyn JobStore) {
    let lane = Lane::new();
    let needs: Vec<NewJob> = (0..=limits::WAITS_FOR_MAX).map(|_| new_job("a")).collect();
    let last = new_job("a").waiting_for(needs.iter().map(|job| job.id));
    let submission = lane.submission(needs.into_iter().chain([last]));
    let refused = store.submit(&submission).await.expect_err("it waits for too many");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert_eq!(lane.ready(store, 0).await, 0, "none of it is there");
}

async fn reads_of_logs_are_bounded(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    let line = Bytes::from(vec![b'x'; limits::LOG_WRITE_BYTES]);
    let mut len = 0u64;
    while len <= u64::try_from(limits::LOG_READ_BYTES_MAX).expect("it fits") {
        len = store.append_log(fence, len, line.clone()).await.expect("the owner writes");
    }
    for limit in [limits::LOG_READ_BYTES_MAX + 1, usize::MAX] {
        let chunk = store.read_log(job, 0, limit).await.expect("it reads");
        assert_eq!(chunk.bytes.len(), limits::LOG_READ_BYTES_MAX, "a read gives what it may");
        assert_eq!(chunk.len, len);
    }
    assert_eq!(store.read_log(job, 0, 10).await.expect("it reads").bytes.len(), 10);
    assert_eq!(store.read_log(job, 0, 0).await.expect("it reads").bytes.len(), 0);
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
}

async fn renewals_are_bounded(store: &dyn JobStore) {
    let lane = Lane::new();
    let fence = Fence { job: JobId::new(START), attempt: 1, token: ClaimToken::new() };
    let most = vec![fence; limits::LEASES_PER_CALL_MAX];
    assert_eq!(store.renew(&lane.server, &most, at(1)).await.expect("it answers").len(), most.len());
    let more = vec![fence; limits::LEASES_PER_CALL_MAX + 1];
    let refused = store.renew(&lane.server, &more, at(1)).await.expect_err("too many leases");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
}

async fn pages_and_claims_are_bounded(store: &dyn JobStore) {
    let (page_max, round_max) = (limits::PAGE_ITEMS_MAX, limits::CLAIMS_PER_ROUND_MAX);
    let lane = Lane::new();
    let jobs: Vec<NewJob> = (0..=page_max.max(round_max)).map(|_| new_job("a")).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let build = BuildId::new(START);
    store.submit(&lane.submission(jobs).as_build(build)).await.expect("it is handed in");
    for limit in [page_max + 1, usize::MAX] {
        let page = store.list(&ListQuery::newest(limit).of_build(build)).await.expect("it lists");
        assert_eq!(page.jobs.len(), page_max, "a page has what it may");
        assert!(page.more, "it is not the last page");
    }
    assert_eq!(lane.ready(store, 0).await, limits::DEMAND_COUNT_MAX);
    let request = lane.request(vec![lane.offer(round_max - 1), lane.offer(usize::MAX)], 0);
    let claims = store.claim(&request).await.expect("claiming works");
    let claimed: Vec<JobId> = claims.iter().map(|claim| claim.job.id).collect();
    assert_eq!(claimed, ids[..round_max], "a call claims what it may, the first ones");
    let request = ExpireRequest {
        now: at(10),
        patience: Patience { attempts: 3, time: Duration::ZERO },
        limit: usize::MAX,
    };
    assert_eq!(store.expire(&request).await.expect("it settles").len(), limits::SETTLED_PER_CALL_MAX);
    while !expire(store, 10).await.is_empty() {}
    store.cancel(Selection::Build(build), at(11)).await.expect("it waits");
}

/// More than `pending_max` jobs cannot wait, blocked ones included; one that runs or has ended makes room. The store
/// holds nothing else.
pub async fn waiting_jobs_are_bounded(store: &dyn JobStore, pending_max: usize) {
    assert!(pending_max >= 3, "with less there is nothing to see");
    let (lane, key) = (Lane::new(), fresh_key());
    let keyed = || lane.submission([new_job("a")]).with_key(&key);
    let first = store.submit(&keyed()).await.expect("there is room").jobs[0];
    let second = lane.submit(store, new_job("a").waiting_for([first])).await;
    for _ in 2..pending_max {
        lane.insert(store).await;
    }
    let full = async || {
        let submission = lane.submission([new_job("a")]);
        let refused = store.submit(&submission).await.expect_err("as many wait as may");
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        let told = store.get(submission.jobs[0].id).await;
        assert_eq!(told.expect_err("it was refused").kind(), ErrorKind::NotFound);
    };
    full().await;
    let known = store.submit(&keyed()).await.expect("a repeated submission needs no room");
    assert_eq!((known.created, known.jobs[0]), (false, first));
    let claim = lane.claim_one(store, 0).await;
    lane.insert(store).await;
    full().await;
    store.cancel(Selection::Job(second), at(1)).await.expect("it waits");
    conflicts(
        store.cancel(Selection::Job(second), at(1)).await.map(|_| ()).and(store.remove(first).await),
        "it runs",
    );
    let two = lane.submission([new_job("a"), new_job("a")]);
    assert_eq!(store.submit(&two).await.expect_err("there is room for one").kind(), ErrorKind::LimitExceeded);
    assert_eq!(store.get(two.jobs[0].id).await.expect_err("none of it is there").kind(), ErrorKind::NotFound);
    lane.insert(store).await;
    full().await;
    let refused = store.retry(Selection::Job(second), at(2)).await.expect_err("there is no room");
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    store.finish(claim.fence, &failed(), at(2)).await.expect("the owner ends it");
    full().await;
}
