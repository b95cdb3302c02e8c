//! Promises about jobs that wait for jobs, and about builds.

use super::*;

pub(super) async fn all(store: &dyn JobStore) {
    a_job_begins_when_all_that_it_waits_for_succeeded(store).await;
    a_bad_end_skips_what_waits_for_it(store).await;
    jobs_wait_for_jobs_of_earlier_submissions(store).await;
    circles_and_strangers_are_refused_whole(store).await;
    a_build_counts_its_jobs(store).await;
    a_build_is_cancelled_in_one_call(store).await;
    a_build_is_tried_again_in_one_call(store).await;
    a_job_tried_again_takes_what_was_skipped_along(store).await;
    removed_needs_are_what_they_were(store).await;
}

/// What came to a bad end and was removed will never succeed; what succeeded and was removed is in nobody's way.
async fn removed_needs_are_what_they_were(store: &dyn JobStore) {
    let lane = Lane::new();
    let (done, fence) = lane.running(store).await;
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    let (broken, fence) = lane.running(store).await;
    let waits = lane.submit(store, new_job("a").waiting_for([done, broken])).await;
    store.finish(fence, &failed(), at(1)).await.expect("the owner ends it");
    store.remove(done).await.expect("it has finished");
    store.remove(broken).await.expect("it has finished");
    conflicts(store.retry(Selection::Job(waits), at(2)).await, "what it waits for will never succeed");
    assert_eq!(state(store, waits).await, Skipped);
    let (done, fence) = lane.running(store).await;
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    let cancelled = lane.submit(store, new_job("a").waiting_for([done])).await;
    store.cancel(Selection::Job(cancelled), at(2)).await.expect("it waits");
    store.remove(done).await.expect("it has finished");
    assert_eq!(store.retry(Selection::Job(cancelled), at(3)).await.expect("nothing is in its way"), 1);
    assert_eq!(state(store, cancelled).await, Pending);
    // One that was removed is unlocked by nobody, also when its id comes again.
    let (first, fence) = lane.running_beside(store, cancelled).await;
    let again = new_job("a").waiting_for([first]);
    let id = lane.submit(store, again.clone()).await;
    store.cancel(Selection::Job(id), at(4)).await.expect("it waits");
    store.remove(id).await.expect("it has finished");
    let other = lane.insert(store).await;
    lane.submit(store, again.waiting_for([other])).await;
    store.finish(fence, &succeeded(), at(5)).await.expect("the owner ends it");
    assert_eq!((state(store, id).await, get(store, id).await.blocked_by), (Blocked, 1));
    store.cancel(Selection::Job(other), at(6)).await.expect("it waits");
}

/// What the chain of jobs shows: ids in the order of the submission.
struct Chain {
    lane: Lane,
    build: BuildId,
    ids: Vec<JobId>,
}

/// Jobs as a build; each waits for those whose places are named.
async fn chain(store: &dyn JobStore, waits: &[&[usize]]) -> Chain {
    let (lane, build) = (Lane::new(), BuildId::new(START));
    let mut jobs: Vec<NewJob> = waits.iter().map(|_| new_job("package: {}\n")).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    for (job, needs) in jobs.iter_mut().zip(waits) {
        job.waits_for = needs.iter().map(|place| ids[*place]).collect();
    }
    store.submit(&lane.submission(jobs).as_build(build)).await.expect("it is handed in");
    Chain { lane, build, ids }
}

impl Chain {
    async fn states(&self, store: &dyn JobStore) -> Vec<JobState> {
        let mut states = Vec::new();
        for id in &self.ids {
            states.push(state(store, *id).await);
        }
        let build = store.build(self.build).await.expect("it is there");
        for state in JobState::ALL {
            let count = states.iter().filter(|its| **its == state).count();
            assert_eq!(usize::try_from(build.counts.get(state)), Ok(count), "{state} jobs of the build");
        }
        states
    }

    /// Claims the job at a place, which must be the next one.
    async fn run(&self, store: &dyn JobStore, place: usize, seconds: u64) -> Fence {
        let claim = self.lane.claim_one(store, seconds).await;
        assert_eq!(claim.job.id, self.ids[place], "the job at {place} is the next one");
        claim.fence
    }

    async fn succeed(&self, store: &dyn JobStore, place: usize, seconds: u64) -> (usize, usize) {
        let fence = self.run(store, place, seconds).await;
        let told = store.finish(fence, &succeeded(), at(seconds)).await.expect("the owner ends it");
        (told.unlocked, told.skipped)
    }
}

use JobState::{Blocked, Cancelled, Failed, Pending, Running, Skipped, Success};

async fn a_job_begins_when_all_that_it_waits_for_succeeded(store: &dyn JobStore) {
    // The order of a submission is nobody's business; a wait that comes twice is one.
    let chain = chain(store, &[&[1, 2, 1], &[], &[1], &[0]]).await;
    assert_eq!(chain.states(store).await, [Blocked, Pending, Blocked, Blocked]);
    let job = get(store, chain.ids[0]).await;
    assert_eq!((job.blocked_by, job.ready_at, job.build), (2, None, Some(chain.build)));
    let needs = store.blocked_by(chain.ids[0], 10).await.expect("it tells");
    assert_eq!(needs, [chain.ids[1], chain.ids[2]]);
    assert_eq!(store.blocked_by(chain.ids[0], 1).await.expect("it tells"), [chain.ids[1]]);
    assert_eq!(chain.lane.ready(store, 0).await, 1, "blocked jobs cannot be claimed");
    let fence = chain.run(store, 1, 0).await;
    assert!(chain.lane.claim(store, 9, 0).await.is_empty());
    let told = store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    assert_eq!((told.unlocked, told.skipped), (1, 0));
    let again = store.finish(fence, &succeeded(), at(2)).await.expect("it is the same end");
    assert_eq!(again.job, told.job);
    assert_eq!(
        chain.states(store).await,
        [Blocked, Success, Pending, Blocked],
        "an end told twice unlocks once"
    );
    assert_eq!(get(store, chain.ids[2]).await.ready_at, Some(at(1)));
    assert_eq!(get(store, chain.ids[0]).await.blocked_by, 1);
    assert_eq!(store.blocked_by(chain.ids[0], 10).await.expect("it tells"), [chain.ids[2]]);
    // An attempt that is given back unlocks nobody.
    let fence = chain.run(store, 2, 2).await;
    store.release(fence, &given_back(None, true), at(3)).await.expect("the owner gives it back");
    assert_eq!(chain.states(store).await, [Blocked, Success, Pending, Blocked]);
    assert_eq!(chain.succeed(store, 2, 4).await, (1, 0));
    assert_eq!(chain.succeed(store, 0, 5).await, (1, 0));
    assert_eq!(chain.succeed(store, 3, 6).await, (0, 0));
    assert_eq!(chain.states(store).await, [Success; 4]);
}

async fn a_bad_end_skips_what_waits_for_it(store: &dyn JobStore) {
    for outcome in [failed(), Outcome::Cancelled] {
        let chain = chain(store, &[&[], &[], &[0, 1], &[2], &[1]]).await;
        assert_eq!(chain.succeed(store, 0, 0).await, (0, 0), "one of two is not enough");
        let fence = chain.run(store, 1, 1).await;
        let told = store.finish(fence, &outcome, at(2)).await.expect("the owner ends it");
        assert_eq!((told.unlocked, told.skipped), (0, 3));
        assert_eq!(chain.states(store).await, [Success, outcome.state(), Skipped, Skipped, Skipped]);
        for id in &chain.ids[2..] {
            let job = get(store, *id).await;
            assert_eq!(
                (job.skipped_for, job.finished_at),
                (Some(chain.ids[1]), Some(at(2))),
                "the first cause"
            );
            assert_eq!(job.error.as_ref().expect("it says why").class, FailureClass::Dependency);
            conflicts(store.cancel(Selection::Job(*id), at(3)).await, "it has come to its end");
        }
        assert!(chain.lane.claim(store, 9, 3).await.is_empty());
    }
    // Whoever settles it.
    let lost = chain(store, &[&[], &[0]]).await;
    lost.run(store, 0, 0).await;
    let request =
        ExpireRequest { now: at(10), patience: Patience { attempts: 1, time: Duration::ZERO }, limit: 1_000 };
    store.expire(&request).await.expect("it settles");
    assert_eq!(lost.states(store).await, [Failed, Skipped]);
    let stuck = chain(store, &[&[], &[0]]).await;
    let error = JobError::new(FailureClass::Unschedulable, "no such backend");
    let request = GiveUp { group: stuck.lane.group(), ready_before: at(40), error, at: at(50) };
    assert_eq!(store.give_up(&request).await.expect("it gives up"), 1);
    assert_eq!(stuck.states(store).await, [Failed, Skipped]);
    let waiting = chain(store, &[&[], &[0], &[1]]).await;
    store.cancel(Selection::Job(waiting.ids[1]), at(1)).await.expect("it waits");
    assert_eq!(waiting.states(store).await, [Pending, Cancelled, Skipped]);
    waiting.succeed(store, 0, 2).await;
    assert_eq!(waiting.states(store).await, [Success, Cancelled, Skipped]);
}

async fn jobs_wait_for_jobs_of_earlier_submissions(store: &dyn JobStore) {
    let lane = Lane::new();
    let (done, fence) = lane.running(store).await;
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    let (open, fence) = lane.running(store).await;
    let ready = lane.submit(store, new_job("a").waiting_for([done])).await;
    assert_eq!(state(store, ready).await, Pending, "what it waits for has succeeded already");
    store.cancel(Selection::Job(ready), at(1)).await.expect("it waits");
    let blocked = lane.submit(store, new_job("a").waiting_for([done, open])).await;
    assert_eq!((state(store, blocked).await, get(store, blocked).await.blocked_by), (Blocked, 1));
    store.finish(fence, &failed(), at(2)).await.expect("the owner ends it");
    assert_eq!(state(store, blocked).await, Skipped);
    let late = lane.submit(store, new_job("a").waiting_for([done, blocked])).await;
    let job = get(store, late).await;
    assert_eq!((job.state, job.skipped_for), (Skipped, Some(open)), "the first cause, at once");
}

async fn circles_and_strangers_are_refused_whole(store: &dyn JobStore) {
    let lane = Lane::new();
    let other = Lane::new().insert(store).await;
    let known = lane.insert(store).await;
    let jobs = || [new_job("a"), new_job("a"), new_job("a")];
    let mut cases = Vec::new();
    let mut circle = jobs();
    circle[0].waits_for = vec![circle[1].id];
    circle[1].waits_for = vec![circle[2].id, known];
    circle[2].waits_for = vec![circle[0].id];
    cases.push(("a circle", circle.to_vec()));
    let mut itself = jobs();
    itself[1].waits_for = vec![itself[1].id];
    cases.push(("itself", itself.to_vec()));
    let mut unknown = jobs();
    unknown[2].waits_for = vec![JobId::new(START)];
    cases.push(("a job that is not there", unknown.to_vec()));
    let mut strange = jobs();
    strange[2].waits_for = vec![other];
    cases.push(("a job of another project", strange.to_vec()));
    let mut twice = jobs();
    twice[2].id = twice[0].id;
    cases.push(("an id that comes twice", twice.to_vec()));
    cases.push(("no job", Vec::new()));
    for (what, jobs) in cases {
        let (key, build) = (fresh_key(), BuildId::new(START));
        let submission = lane.submission(jobs.clone()).with_key(&key).as_build(build);
        let told = store.submit(&submission).await.expect_err(what);
        assert_eq!(told.kind(), ErrorKind::InvalidRequest, "{what}");
        for job in &jobs {
            assert_eq!(store.get(job.id).await.expect_err(what).kind(), ErrorKind::NotFound, "{what}");
        }
        assert_eq!(store.build(build).await.expect_err(what).kind(), ErrorKind::NotFound, "{what}");
        let free = lane.submission([new_job("a").waiting_for([known])]).with_key(&key);
        assert!(store.submit(&free).await.expect("the key is free").created, "{what}");
    }
    store.cancel(Selection::Job(known), at(1)).await.expect("it waits");
    store.cancel(Selection::Job(other), at(1)).await.expect("it waits");
}

async fn a_build_counts_its_jobs(store: &dyn JobStore) {
    let chain = chain(store, &[&[], &[0], &[]]).await;
    let build = async || store.build(chain.build).await.expect("it is there");
    let now = build().await;
    assert_eq!((now.state(), now.created_at, now.finished_at), (BuildState::Pending, START, None));
    assert_eq!(now.project, chain.lane.project);
    let mut listed = Vec::new();
    let mut before = None;
    loop {
        let query = ListQuery::newest(2).of_build(chain.build).before(before);
        let page = store.list(&query).await.expect("it lists");
        listed.extend(page.jobs.iter().map(|job| job.id));
        before = listed.last().copied();
        if !page.more {
            break;
        }
    }
    listed.reverse();
    assert_eq!(listed, chain.ids);
    let query = ListQuery::newest(9).of_build(chain.build).in_state(Blocked);
    let page = store.list(&query).await.expect("it lists");
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [chain.ids[1]]);
    let fence = chain.run(store, 0, 0).await;
    assert_eq!(
        (chain.states(store).await, build().await.state()),
        (vec![Running, Blocked, Pending], BuildState::Running)
    );
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    chain.succeed(store, 1, 2).await;
    assert_eq!(build().await.finished_at, None);
    let fence = chain.run(store, 2, 3).await;
    store.finish(fence, &failed(), at(4)).await.expect("the owner ends it");
    let now = build().await;
    assert_eq!((now.state(), now.finished_at), (BuildState::Partial, Some(at(4))));
}

async fn a_build_is_cancelled_in_one_call(store: &dyn JobStore) {
    let chain = chain(store, &[&[], &[0], &[1], &[]]).await;
    let outside = chain.lane.submit(store, new_job("a").waiting_for([chain.ids[2]])).await;
    let fence = chain.run(store, 0, 0).await;
    let select = Selection::Build(chain.build);
    assert_eq!(store.cancel(select, at(1)).await.expect("it is there"), 4);
    assert_eq!(
        chain.states(store).await,
        [Running, Cancelled, Cancelled, Cancelled],
        "jobs of it are cancelled"
    );
    assert_eq!(state(store, outside).await, Skipped, "others that wait for them are skipped");
    assert_eq!(store.cancel(select, at(2)).await.expect("it is there"), 0);
    assert_eq!(store.cancel_requests(&chain.lane.server).await.expect("it tells"), [fence]);
    store.finish(fence, &Outcome::Cancelled, at(3)).await.expect("the owner ends it");
    let build = store.build(chain.build).await.expect("it is there");
    assert_eq!((build.state(), build.finished_at), (BuildState::Cancelled, Some(at(3))));
    assert_eq!(store.cancel(select, at(4)).await.expect("a build may have ended"), 0);
}

async fn a_build_is_tried_again_in_one_call(store: &dyn JobStore) {
    let chain = chain(store, &[&[], &[], &[1], &[0, 2], &[0]]).await;
    let select = Selection::Build(chain.build);
    chain.succeed(store, 0, 0).await;
    let fence = chain.run(store, 1, 1).await;
    store.finish(fence, &failed(), at(2)).await.expect("the owner ends it");
    assert_eq!(chain.states(store).await, [Success, Failed, Skipped, Skipped, Pending]);
    assert_eq!(store.retry(select, at(3)).await.expect("it is there"), 3);
    assert_eq!(chain.states(store).await, [Success, Pending, Blocked, Blocked, Pending]);
    let build = store.build(chain.build).await.expect("it is there");
    assert_eq!((build.state(), build.finished_at), (BuildState::Running, None));
    let job = get(store, chain.ids[3]).await;
    assert_eq!((job.blocked_by, job.skipped_for, &job.error, job.finished_at), (1, None, &None, None));
    assert_eq!(store.retry(select, at(4)).await.expect("it is there"), 0);
    chain.succeed(store, 1, 5).await;
    chain.succeed(store, 2, 6).await;
    chain.succeed(store, 3, 7).await;
    chain.succeed(store, 4, 8).await;
    assert_eq!(chain.states(store).await, [Success; 5]);
    assert_eq!(store.retry(select, at(9)).await.expect("it is there"), 0);
    assert_eq!(store.attempts(chain.ids[1]).await.expect("they are there").len(), 2);
}

async fn a_job_tried_again_takes_what_was_skipped_along(store: &dyn JobStore) {
    let chain = chain(store, &[&[], &[], &[0], &[0, 1], &[3]]).await;
    for place in [0, 1] {
        let fence = chain.run(store, place, 0).await;
        store.finish(fence, &failed(), at(1)).await.expect("the owner ends it");
    }
    assert_eq!(chain.states(store).await, [Failed, Failed, Skipped, Skipped, Skipped]);
    conflicts(store.retry(Selection::Job(chain.ids[4]), at(2)).await, "what it waits for has not succeeded");
    assert_eq!(chain.states(store).await, [Failed, Failed, Skipped, Skipped, Skipped]);
    assert_eq!(store.retry(Selection::Job(chain.ids[0]), at(2)).await.expect("it failed"), 2);
    assert_eq!(
        chain.states(store).await,
        [Pending, Failed, Blocked, Skipped, Skipped],
        "one of two causes is left"
    );
    assert_eq!(store.retry(Selection::Job(chain.ids[1]), at(3)).await.expect("it failed"), 3);
    assert_eq!(chain.states(store).await, [Pending, Pending, Blocked, Blocked, Blocked]);
    for (place, unlocked) in [(0, 1), (1, 1), (2, 0), (3, 1), (4, 0)] {
        assert_eq!(chain.succeed(store, place, 4).await, (unlocked, 0), "{place}");
    }
}
