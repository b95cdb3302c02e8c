//! Promises about lists of builds and their jobs, results that are known, and what packages took.

use super::*;
use crate::job::{Build, BuildFacts, BuildSource, BuildState, ResultDigest};
use crate::job_store::{BuildQuery, Finished};

use JobState::{Blocked, Pending, Running, Skipped, Success};

pub(super) async fn all(store: &dyn JobStore) {
    builds_are_listed(store).await;
    jobs_are_found_by_title_and_architecture(store).await;
    jobs_are_found_by_project(store).await;
    jobs_are_listed_oldest_first(store).await;
    known_results_are_found(store).await;
    durations_are_medians_of_the_last(store).await;
    a_build_stops_at_the_first_failure(store).await;
    a_build_goes_on_behind_a_failure(store).await;
}

fn facts(title: &str, fail_fast: bool) -> BuildFacts {
    let (url, reference, commit) = ("https://git.example/os".to_owned(), "main".to_owned(), "c0".to_owned());
    BuildFacts {
        trigger: "nightly".to_owned(),
        source: BuildSource::Git { url, reference, commit },
        title: title.to_owned(),
        architectures: vec![Arch::X86_64, Arch::Aarch64],
        is_planned: true,
        skipped: 1,
        cuts: 2,
        levels: 3,
        critical_path_ms: 4,
        fail_fast,
    }
}

/// Every build of a query, page by page.
async fn listed(store: &dyn JobStore, query: &BuildQuery) -> Vec<Build> {
    let (mut query, mut found) = (query.clone(), Vec::new());
    loop {
        let page = store.builds(&query).await.expect("it tells");
        assert!(page.builds.len() <= query.limit, "no more than were asked for");
        assert!(page.builds.is_sorted_by(|a, b| a.id > b.id), "newest first");
        query.before = page.builds.last().map(|build| build.id).or(query.before);
        found.extend(page.builds);
        if !page.more {
            return found;
        }
        assert!(found.len() < 10_000, "the pages come to an end");
    }
}

async fn builds_are_listed(store: &dyn JobStore) {
    let (lane, other) = (Lane::new(), Lane::new());
    let mut ids = Vec::new();
    for title in ["first", "second", "third"] {
        let id = BuildId::new(START);
        let submission = lane.submission([new_job("a")]).as_build(id).with_facts(facts(title, false));
        store.submit(&submission).await.expect("it is handed in");
        ids.push(id);
    }
    let elsewhere = BuildId::new(START);
    store.submit(&other.submission([new_job("a")]).as_build(elsewhere)).await.expect("it is handed in");
    let newest_first: Vec<BuildId> = ids.iter().rev().copied().collect();
    for limit in [1, 2, 3, 100] {
        let query = BuildQuery::newest(limit).of_project(lane.project.clone());
        let builds = listed(store, &query).await;
        assert_eq!(builds.iter().map(|build| build.id).collect::<Vec<_>>(), newest_first, "pages of {limit}");
        let titles: Vec<&str> = builds.iter().map(|build| build.facts.title.as_str()).collect();
        assert_eq!(titles, ["third", "second", "first"]);
        assert_eq!(*builds[0].facts, facts("third", false), "nothing of them is lost");
        assert_eq!(store.build(builds[0].id).await.expect("it is there"), builds[0]);
    }
    let all = listed(store, &BuildQuery::newest(limits::PAGE_ITEMS_MAX)).await;
    assert!(all.iter().any(|build| build.id == elsewhere), "without a project, those of all are told");
    let of = async |state| {
        let query = BuildQuery::newest(100).of_project(lane.project.clone()).in_state(state);
        listed(store, &query).await.into_iter().map(|build| build.id).collect::<Vec<_>>()
    };
    assert_eq!(of(BuildState::Pending).await.len(), 3);
    let fence = lane.claim_one(store, 0).await.fence;
    assert_eq!(of(BuildState::Running).await, [ids[0]], "the oldest job is the next one");
    store.finish(fence, &failed(), at(1)).await.expect("the owner ends it");
    store.cancel(Selection::Build(ids[1]), at(1)).await.expect("it waits");
    let fence = lane.claim_one(store, 2).await.fence;
    let outcome = with_result(fresh_digest(), Some(JobId::new(START)));
    store.finish(fence, &outcome, at(3)).await.expect("the owner ends it");
    let reused = async |id| store.build(id).await.expect("it is there").reused;
    assert_eq!((reused(ids[2]).await, reused(ids[0]).await), (1, 0));
    assert_eq!(of(BuildState::Failed).await, [ids[0]]);
    assert_eq!(of(BuildState::Cancelled).await, [ids[1]]);
    assert_eq!(of(BuildState::Success).await, [ids[2]]);
    assert!(of(BuildState::Pending).await.is_empty() && of(BuildState::Partial).await.is_empty());
}

/// A job of a package for an architecture.
fn job_for(package: &str, arch: Arch) -> NewJob {
    let mut job = new_job_for("package: {}\n", arch);
    job.spec = Arc::new(JobSpec::clone(&job.spec).with_package(JobPackage::new(package, "1-r0")));
    job
}

async fn jobs_are_found_by_title_and_architecture(store: &dyn JobStore) {
    let (lane, build) = (Lane::new(), BuildId::new(START));
    let jobs: Vec<NewJob> = ["zlib", "zstd"]
        .into_iter()
        .flat_map(|package| [Arch::X86_64, Arch::Aarch64].map(|arch| job_for(package, arch)))
        .collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.submit(&lane.submission(jobs).as_build(build)).await.expect("it is handed in");
    let found = async |query: ListQuery| {
        let page = store.list(&query.of_build(build)).await.expect("it tells");
        page.jobs.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let query = || ListQuery::newest(10);
    assert_eq!(found(query().titled("zstd".to_owned())).await, [ids[3], ids[2]]);
    assert_eq!(found(query().for_arch(Arch::X86_64)).await, [ids[2], ids[0]]);
    assert_eq!(found(query().titled("zlib".to_owned()).for_arch(Arch::Aarch64)).await, [ids[1]]);
    assert!(found(query().titled("zlib-dev".to_owned())).await.is_empty());
    store.cancel(Selection::Build(build), at(1)).await.expect("they wait");
}

async fn jobs_are_found_by_project(store: &dyn JobStore) {
    let (lane, other) = (Lane::new(), Lane::new());
    let mut ids = Vec::new();
    for number in 0..6 {
        let (job, lane) = (new_job("a"), if number % 2 == 0 { &lane } else { &other });
        ids.push(job.id);
        store.submit(&lane.submission([job])).await.expect("it is handed in");
    }
    let found = async |query: ListQuery| {
        let page = store.list(&query.of_project(lane.project.clone())).await.expect("it tells");
        (page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), page.more)
    };
    let query = || ListQuery::newest(2);
    assert_eq!(found(query()).await, (vec![ids[4], ids[2]], true), "a page is full");
    assert_eq!(found(query().before(ids[2])).await, (vec![ids[0]], false));
    assert_eq!(found(query().oldest_after(None)).await, (vec![ids[0], ids[2]], true));
    assert_eq!(found(query().in_state(JobState::Running)).await, (vec![], false));
    assert_eq!(found(ListQuery::newest(3).in_state(JobState::Pending)).await.0.len(), 3);
    for id in ids {
        store.cancel(Selection::Job(id), at(1)).await.expect("it waits");
    }
}

async fn jobs_are_listed_oldest_first(store: &dyn JobStore) {
    let (lane, build) = (Lane::new(), BuildId::new(START));
    let jobs: Vec<NewJob> = (0..5).map(|_| new_job("a")).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.submit(&lane.submission(jobs).as_build(build)).await.expect("it is handed in");
    for limit in [1, 2, 5, 9] {
        let (mut last, mut found) = (None, Vec::new());
        loop {
            let query = ListQuery::newest(limit).of_build(build).oldest_after(last);
            let page = store.list(&query).await.expect("it tells");
            last = page.jobs.last().map(|job| job.id);
            found.extend(page.jobs.iter().map(|job| job.id));
            assert!(found.len() <= ids.len(), "the pages come to an end");
            if !page.more {
                break;
            }
        }
        assert_eq!(found, ids, "pages of {limit}");
    }
    let between = ListQuery::newest(9).of_build(build).oldest_after(ids[0]).before(ids[3]);
    let page = store.list(&between).await.expect("it tells");
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[1], ids[2]]);
    let nothing = ListQuery::newest(9).of_build(build).oldest_after(ids[3]).before(ids[1]);
    assert!(store.list(&nothing).await.expect("it tells").jobs.is_empty());
    store.cancel(Selection::Build(build), at(1)).await.expect("they wait");
}

/// A digest that no other test has.
fn fresh_digest() -> ResultDigest {
    let mut bytes = [7; 32];
    bytes[..16].copy_from_slice(JobId::new(START).as_bytes());
    ResultDigest::from_bytes(bytes)
}

fn with_result(result: ResultDigest, from: Option<JobId>) -> Outcome {
    Outcome::Succeeded {
        artifacts: vec![artifact("x86_64/a.apk", 1)],
        note: None,
        result: Some(result),
        reused: from,
    }
}

async fn known_results_are_found(store: &dyn JobStore) {
    let (lane, other, result) = (Lane::new(), Lane::new(), fresh_digest());
    let known = async |lane: &Lane| {
        let job = store.with_result(&lane.project, result).await.expect("it tells");
        job.map(|job| job.id)
    };
    assert_eq!(known(&lane).await, None);
    let (first, fence) = lane.running(store).await;
    let outcome = with_result(result, None);
    store.finish(fence, &outcome, at(1)).await.expect("the owner ends it");
    store.finish(fence, &outcome, at(1)).await.expect("it is the same end");
    conflicts(store.finish(fence, &with_result(fresh_digest(), None), at(1)).await, "it is another end");
    assert_eq!(known(&lane).await, Some(first));
    assert_eq!(known(&other).await, None, "results of other projects are nobody's business");
    assert_eq!(store.with_result(&lane.project, fresh_digest()).await.expect("it tells"), None);
    let (second, fence) = lane.running(store).await;
    store.finish(fence, &with_result(result, Some(first)), at(2)).await.expect("the owner ends it");
    let job = get(store, second).await;
    assert_eq!((job.result, job.reused), (Some(result), Some(first)));
    assert_eq!(known(&lane).await, Some(second), "the newest is told");
    assert!(get(store, first).await.reused.is_none());
    store.note_removed(second, Holding::Artifacts, at(3)).await.expect("it has ended");
    assert_eq!(known(&lane).await, Some(first), "its artifacts are there");
    store.remove(first).await.expect("it has ended");
    assert_eq!(known(&lane).await, None);
    let (_, fence) = lane.running(store).await;
    store.finish(fence, &failed(), at(4)).await.expect("the owner ends it");
    assert_eq!(known(&lane).await, None);
}

async fn durations_are_medians_of_the_last(store: &dyn JobStore) {
    let lane = Lane::new();
    let other = Lane { project: Lane::new().project, ..Lane::new() };
    // Of the last five the median is 40; the first is older, the others made no packages.
    let mut now = 0;
    for (lane, package, outcome, seconds) in [
        (&lane, "zlib", succeeded(), 1_000),
        (&lane, "zlib", succeeded(), 50),
        (&lane, "zlib", succeeded(), 10),
        (&lane, "zlib", succeeded(), 40),
        (&lane, "zstd", succeeded(), 7),
        (&other, "zlib", succeeded(), 500),
        (&lane, "zlib", succeeded(), 60),
        (&lane, "zlib", succeeded(), 20),
        (&lane, "zlib", with_result(fresh_digest(), Some(JobId::new(START))), 1),
        (&lane, "zlib", Outcome::nothing_to_do("the definition is not for this architecture"), 1),
        (&lane, "zlib", failed(), 1),
    ] {
        lane.submit(store, new_job_of(package)).await;
        now += 2_000;
        let mut request = lane.request(vec![lane.offer(1)], now);
        request.until = at(now + 2_000);
        let claims = store.claim(&request).await.expect("claiming works");
        let fence = claims.first().expect("a job waits").fence;
        store.finish(fence, &outcome, at(now + seconds)).await.expect("the owner ends it");
    }
    let told = async |lane: &Lane, arch| {
        let told = store.durations(&lane.project, arch).await.expect("it tells");
        told.into_iter().map(|told| (told.package, told.took.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(told(&lane, Arch::X86_64).await, [("zlib".to_owned(), 40), ("zstd".to_owned(), 7)]);
    assert_eq!(told(&other, Arch::X86_64).await, [("zlib".to_owned(), 500)]);
    assert!(told(&lane, Arch::Aarch64).await.is_empty(), "one architecture tells nothing of another");
}

/// A build of five jobs of which the first three wait for nothing, the fourth for the first, the fifth for the third; and
/// one outside of it that waits for the second. The first two run.
async fn a_build_with_a_failure(
    store: &dyn JobStore,
    fail_fast: bool,
) -> (Lane, BuildId, Vec<JobId>, Finished) {
    let (lane, build) = (Lane::new(), BuildId::new(START));
    let mut jobs: Vec<NewJob> = (0..5).map(|_| new_job("a")).collect();
    let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    jobs[3].waits_for = vec![ids[0]];
    jobs[4].waits_for = vec![ids[2]];
    let submission = lane.submission(jobs).as_build(build).with_facts(facts("all", fail_fast));
    store.submit(&submission).await.expect("it is handed in");
    ids.push(lane.submit(store, new_job("a").waiting_for([ids[2]])).await);
    let claims = lane.claim(store, 2, 0).await;
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), ids[..2]);
    let finished = store.finish(claims[0].fence, &failed(), at(1)).await.expect("the owner ends it");
    (lane, build, ids, finished)
}

async fn states(store: &dyn JobStore, ids: &[JobId]) -> Vec<JobState> {
    let mut states = Vec::new();
    for id in ids {
        states.push(state(store, *id).await);
    }
    states
}

async fn a_build_stops_at_the_first_failure(store: &dyn JobStore) {
    let (lane, build, ids, finished) = a_build_with_a_failure(store, true).await;
    assert_eq!(finished.skipped, 4);
    let failed = JobState::Failed;
    assert_eq!(
        states(store, &ids).await,
        [failed, Running, Skipped, Skipped, Skipped, Skipped],
        "what runs goes on, what has not begun does not begin"
    );
    for id in &ids[2..] {
        let job = get(store, *id).await;
        assert_eq!((job.skipped_for, job.finished_at), (Some(ids[0]), Some(at(1))));
        assert!(job.error.is_some(), "it says why");
    }
    assert_eq!(lane.ready(store, 2).await, 0);
    // Together they may be tried again.
    let again = store.retry(Selection::Build(build), at(3)).await.expect("some came to a bad end");
    assert_eq!(again, 5, "with the one outside that was skipped because of it");
    assert_eq!(states(store, &ids).await, [Pending, Running, Pending, Blocked, Blocked, Blocked]);
    store.cancel(Selection::Build(build), at(4)).await.expect("they wait");
}

async fn a_build_goes_on_behind_a_failure(store: &dyn JobStore) {
    let (lane, _, ids, finished) = a_build_with_a_failure(store, false).await;
    assert_eq!(finished.skipped, 1);
    assert_eq!(states(store, &ids).await, [JobState::Failed, Running, Pending, Skipped, Blocked, Blocked]);
    let claim = lane.claim_one(store, 2).await;
    store.finish(claim.fence, &succeeded(), at(3)).await.expect("the owner ends it");
    assert_eq!(states(store, &ids).await, [JobState::Failed, Running, Success, Skipped, Pending, Pending]);
    for id in &ids[4..] {
        store.cancel(Selection::Job(*id), at(4)).await.expect("it waits");
    }
}
