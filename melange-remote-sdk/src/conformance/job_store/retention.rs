//! Promises about ended jobs, and what is removed of them.

use sha2::{Digest, Sha256};

use super::*;
use crate::job::LogArchive;

pub(super) async fn all(store: &dyn JobStore) {
    ended_jobs_are_told_in_the_order_of_their_ends(store).await;
    the_newest_success_is_told(store).await;
    what_is_needed_is_told(store).await;
    needed_sources_are_told(store).await;
    removed_artifacts_are_noted(store).await;
    removed_logs_are_noted_and_forgotten(store).await;
    a_job_that_is_tried_again_has_lost_nothing(store).await;
    ended_jobs_stay_as_they_are(store).await;
}

/// All ended jobs of a lane from a place on, page by page.
async fn ended_behind(store: &dyn JobStore, lane: &Lane, mut query: EndedQuery) -> Vec<EndedJob> {
    let mut found = Vec::new();
    loop {
        let page = store.ended(&query).await.expect("it tells");
        assert!(page.len() <= query.limit, "no more than were asked for");
        let Some(last) = page.last() else { break };
        assert!(page.is_sorted_by_key(EndedJob::place), "oldest end first");
        assert!(
            page.iter().all(|job| query.behind.is_none_or(|behind| job.place() > behind)),
            "behind the place"
        );
        query = query.behind(last.place());
        found.extend(page);
    }
    found.retain(|job| job.project == lane.project);
    found
}

async fn ended(store: &dyn JobStore, lane: &Lane, holding: Option<Holding>) -> Vec<EndedJob> {
    ended_behind(store, lane, EndedQuery::oldest(limits::PAGE_ITEMS_MAX).holding(holding)).await
}

fn ids(jobs: &[EndedJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

async fn end(store: &dyn JobStore, lane: &Lane, outcome: Outcome, seconds: u64) -> JobId {
    let (job, fence) = lane.running(store).await;
    store.finish(fence, &outcome, at(seconds)).await.expect("the owner ends it");
    job
}

/// A success with artifacts of these sizes.
fn made(sizes: &[u64]) -> Outcome {
    let made = |(place, size): (usize, &u64)| artifact(format!("x86_64/a{place}.apk"), *size);
    Outcome::made(sizes.iter().enumerate().map(made).collect())
}

async fn ended_jobs_are_told_in_the_order_of_their_ends(store: &dyn JobStore) {
    let lane = Lane::new();
    let before = store.usage().await.expect("it tells");
    let build = BuildId::new(START);
    let (late, early) = (new_job("a"), new_job("a"));
    let open = new_job("a");
    let told = [late.id, early.id, open.id];
    store.submit(&lane.submission([late, early, open]).as_build(build)).await.expect("it is handed in");
    let claims = lane.claim(store, 3, 0).await;
    for (claim, outcome, seconds) in [(&claims[0], made(&[5, 7]), 30), (&claims[1], failed(), 20)] {
        store.finish(claim.fence, &outcome, at(seconds)).await.expect("the owner ends it");
    }
    let jobs = ended(store, &lane, None).await;
    assert_eq!(ids(&jobs), [told[1], told[0]], "what runs has not ended");
    let [first, second] = &jobs[..] else { panic!("two have ended") };
    assert_eq!((first.finished_at, second.finished_at), (at(20), at(30)));
    assert_eq!((first.state, second.state), (JobState::Failed, JobState::Success));
    assert_eq!((first.artifact_bytes, second.artifact_bytes), (0, 12));
    assert_eq!((first.attempt, first.arch, first.build), (1, Arch::X86_64, Some(build)));
    assert!(jobs.iter().all(|job| job.build_is_open && job.log_bytes == 0), "one of the build runs");
    assert_eq!(ids(&ended(store, &lane, Some(Holding::Artifacts)).await), [told[0]]);
    assert_eq!(ids(&ended(store, &lane, Some(Holding::Logs)).await), []);
    // Page by page, from a place that no job need have.
    let place = EndedPlace { finished_at: at(19), job: told[2] };
    let page = ended_behind(store, &lane, EndedQuery::oldest(1).behind(place)).await;
    assert_eq!(ids(&page), [told[1], told[0]]);
    store.finish(claims[2].fence, &Outcome::Cancelled, at(40)).await.expect("the owner ends it");
    let jobs = ended(store, &lane, None).await;
    assert_eq!(ids(&jobs), [told[1], told[0], told[2]]);
    assert!(jobs.iter().all(|job| !job.build_is_open), "all of the build have ended");
    let usage = store.usage().await.expect("it tells");
    assert_eq!((usage.jobs - before.jobs, usage.artifact_bytes - before.artifact_bytes), (3, 12));
    let many = store.ended(&EndedQuery::oldest(usize::MAX)).await.expect("it tells");
    assert!(many.len() <= limits::PAGE_ITEMS_MAX, "pages are bounded");
}

async fn the_newest_success_is_told(store: &dyn JobStore) {
    let lane = Lane::new();
    let newest = async || {
        let jobs = ended(store, &lane, None).await;
        jobs.into_iter().filter(|job| job.is_newest).map(|job| job.id).collect::<Vec<_>>()
    };
    let first = end(store, &lane, succeeded(), 1).await;
    assert_eq!(newest().await, [first]);
    end(store, &lane, failed(), 2).await;
    assert_eq!(newest().await, [first], "a failure is no success");
    let other = lane.submit(store, new_job_of("other")).await;
    let fence = lane.claim_one(store, 0).await.fence;
    store.finish(fence, &succeeded(), at(3)).await.expect("the owner ends it");
    assert_eq!(newest().await, [first, other], "of each package");
    let second = end(store, &lane, succeeded(), 4).await;
    assert_eq!(newest().await, [other, second]);
    store.remove(second).await.expect("it has ended");
    assert_eq!(newest().await, [first, other], "the one that is there");
    let elsewhere = Lane::new();
    end(store, &elsewhere, succeeded(), 9).await;
    assert_eq!(newest().await, [first, other], "of each project");
}

async fn what_is_needed_is_told(store: &dyn JobStore) {
    let lane = Lane::new();
    let needed = async |id| store.is_needed(id).await.expect("it is there");
    let first = end(store, &lane, succeeded(), 1).await;
    assert!(!needed(first).await);
    let second = lane.submit(store, new_job("a").waiting_for([first])).await;
    assert!(needed(first).await, "a pending job waits for it");
    let fence = lane.claim_one(store, 2).await.fence;
    assert!(needed(first).await, "a running one");
    let third = lane.submit(store, new_job("a").waiting_for([second])).await;
    store.finish(fence, &succeeded(), at(3)).await.expect("the owner ends it");
    assert!(needed(second).await);
    assert!(needed(first).await, "by way of one that has ended");
    assert!(!needed(third).await);
    store.cancel(Selection::Job(third), at(4)).await.expect("it waits");
    assert!(!needed(first).await && !needed(second).await, "nothing waits any more");
    let unknown = store.is_needed(JobId::new(START)).await.expect_err("it was never there");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

/// Source files are needed by each job that has not succeeded: it runs, or may be tried again.
async fn needed_sources_are_told(store: &dyn JobStore) {
    let lane = Lane::new();
    let digest = |of: &str| SourceDigest::new(Sha256::digest(format!("{} {of}", lane.project)).into());
    let (one, other, unknown) = (digest("one"), digest("other"), digest("unknown"));
    let needed = async || store.needed_sources(&[one, unknown, other]).await.expect("it tells");
    assert_eq!(needed().await, [].into());
    let blocker = new_job("a");
    let (first, second) = (new_job_with(one), new_job_with(one));
    let blocked = new_job_with(other).waiting_for([blocker.id]);
    let (early, last) = (first.id, second.id);
    store.submit(&lane.submission([first, second, blocker, blocked])).await.expect("it is handed in");
    assert_eq!(needed().await, [one, other].into(), "of those that wait");
    let claims = lane.claim(store, 3, 0).await;
    assert_eq!(needed().await, [one, other].into(), "of one that runs");
    assert_eq!(
        store.needed_sources(&[other]).await.expect("it tells"),
        [other].into(),
        "only what is asked for"
    );
    for claim in &claims {
        let outcome = if claim.job.id == early { made(&[1]) } else { failed() };
        store.finish(claim.fence, &outcome, at(20)).await.expect("the owner ends it");
    }
    assert_eq!(needed().await, [one, other].into(), "of one that failed, and of one that was skipped");
    store.retry(Selection::Job(last), at(30)).await.expect("it is tried again");
    let claim = lane.claim(store, 1, 30).await;
    store.finish(claim[0].fence, &made(&[1]), at(40)).await.expect("the owner ends it");
    assert_eq!(needed().await, [other].into(), "those of successes are not");
    let many = vec![unknown; limits::PAGE_ITEMS_MAX + 1];
    assert_eq!(store.needed_sources(&many[1..]).await.expect("so many may be asked about"), [].into());
    let refused = store.needed_sources(&many).await.expect_err("one more may not");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    let skipped = store.list(&ListQuery::newest(limits::PAGE_ITEMS_MAX).in_state(JobState::Skipped)).await;
    for job in skipped.expect("it tells").jobs.iter().filter(|job| job.facts.source == Some(other)) {
        store.remove(job.id).await.expect("it has ended");
    }
    assert_eq!(needed().await, [].into(), "those of removed jobs are not");
}

async fn removed_artifacts_are_noted(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    conflicts(store.note_removed(job, Holding::Artifacts, at(1)).await, "it runs");
    store.finish(fence, &made(&[5]), at(2)).await.expect("the owner ends it");
    let before = store.usage().await.expect("it tells");
    let whole = get(store, job).await;
    for seconds in [10, 20] {
        store.note_removed(job, Holding::Artifacts, at(seconds)).await.expect("it ended");
        let noted = Job { artifacts_removed_at: Some(at(10)), ..Job::clone(&whole) };
        assert_eq!(*get(store, job).await, noted, "the first word counts, and nothing else changed");
        let told = ended(store, &lane, None).await.pop().expect("it is there");
        assert_eq!((told.artifact_bytes, told.artifacts_removed_at), (0, Some(at(10))));
        assert_eq!(ids(&ended(store, &lane, Some(Holding::Artifacts)).await), []);
        let usage = store.usage().await.expect("it tells");
        assert_eq!(usage.artifact_bytes, before.artifact_bytes - 5);
        assert_eq!(usage.jobs, before.jobs, "the job is there");
    }
    let unknown = store.note_removed(JobId::new(START), Holding::Logs, at(1)).await;
    assert_eq!(unknown.expect_err("it was never there").kind(), ErrorKind::NotFound);
    // The clock of whoever removes may be late.
    let job = end(store, &lane, succeeded(), 9).await;
    store.note_removed(job, Holding::Artifacts, at(3)).await.expect("it ended");
    assert_eq!(get(store, job).await.artifacts_removed_at, Some(at(9)));
}

async fn removed_logs_are_noted_and_forgotten(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, second) = lane.running_again(store).await;
    conflicts(store.note_removed(job, Holding::Logs, at(3)).await, "it runs");
    store.finish(second, &succeeded(), at(3)).await.expect("the owner ends it");
    // One is among the artifacts, the other is not yet.
    store.archive_log(job, 1, &LogArchive::new(1, 4, 30)).await.expect("it ended");
    let told = ended(store, &lane, Some(Holding::Logs)).await;
    assert_eq!(told.iter().map(|job| job.log_bytes).collect::<Vec<_>>(), [30]);
    let before = store.usage().await.expect("it tells");
    for seconds in [10, 20] {
        store.note_removed(job, Holding::Logs, at(seconds)).await.expect("it ended");
        assert_eq!(get(store, job).await.log_removed_at, Some(at(10)));
        for attempt in store.attempts(job).await.expect("they are there") {
            assert_eq!(attempt.log_removed_at, Some(at(10)), "attempt {}", attempt.number);
        }
        for offset in [0, 4] {
            let gone = store.read_log(job, offset, 100).await.expect_err("it is forgotten");
            assert_eq!(gone.kind(), ErrorKind::NotFound);
        }
        let left = store.unarchived(at(900), limits::PAGE_ITEMS_MAX).await.expect("it tells");
        assert!(!left.contains(&(job, 2)), "there is nothing to put anywhere");
        let late = store.archive_log(job, 2, &LogArchive::new(1, 4, 30)).await.expect_err("it came too late");
        assert_eq!(late.kind(), ErrorKind::NotFound);
        let told = ended(store, &lane, None).await.pop().expect("it is there");
        assert_eq!((told.log_bytes, told.log_removed_at), (0, Some(at(10))));
        assert_eq!(ids(&ended(store, &lane, Some(Holding::Logs)).await), []);
        let usage = store.usage().await.expect("it tells");
        assert_eq!(usage, Usage { log_bytes: before.log_bytes - 30, ..before });
    }
}

async fn a_job_that_is_tried_again_has_lost_nothing(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, first) = lane.running(store).await;
    append(store, first, "one\n").await.expect("the owner writes");
    store.finish(first, &failed(), at(1)).await.expect("the owner ends it");
    for what in [Holding::Logs, Holding::Artifacts] {
        store.note_removed(job, what, at(2)).await.expect("it ended");
    }
    let gone = store.read_log(job, 0, 100).await.expect_err("it is forgotten");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    store.retry(Selection::Job(job), at(3)).await.expect("it failed");
    let waiting = get(store, job).await;
    assert_eq!((waiting.log_removed_at, waiting.artifacts_removed_at), (None, None));
    assert_eq!(ids(&ended(store, &lane, None).await), [], "it has not ended");
    let second = lane.claim_one(store, 4).await.fence;
    append(store, second, "two\n").await.expect("the owner writes");
    store.finish(second, &made(&[3]), at(5)).await.expect("the owner ends it");
    store.archive_log(job, 2, &LogArchive::new(1, 4, 20)).await.expect("it ended");
    let attempts = store.attempts(job).await.expect("they are there");
    let removed: Vec<_> = attempts.iter().map(|attempt| attempt.log_removed_at).collect();
    assert_eq!(removed, [Some(at(2)), None]);
    let told = ended(store, &lane, None).await.pop().expect("it is there");
    assert_eq!((told.attempt, told.artifact_bytes, told.log_bytes), (2, 3, 20));
    store.note_removed(job, Holding::Logs, at(6)).await.expect("it ended");
    let attempts = store.attempts(job).await.expect("they are there");
    let removed: Vec<_> = attempts.iter().map(|attempt| attempt.log_removed_at).collect();
    assert_eq!(removed, [Some(at(2)), Some(at(6))], "what was gone was gone then");
}

/// Looking changes nothing.
async fn ended_jobs_stay_as_they_are(store: &dyn JobStore) {
    let lane = Lane::new();
    let job = end(store, &lane, succeeded(), 1).await;
    let before = get(store, job).await;
    for _ in 0..2 {
        assert_eq!(ids(&ended(store, &lane, None).await), [job]);
        store.is_needed(job).await.expect("it is there");
        store.usage().await.expect("it tells");
    }
    assert_eq!(get(store, job).await, before);
}
