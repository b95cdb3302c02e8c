//! Promises about claims, leases and ends.

use super::*;

pub(super) async fn all(store: &dyn JobStore) {
    demand_tells_what_could_be_claimed(store).await;
    jobs_know_how_many_go_before_them(store).await;
    the_queue_is_told_as_a_whole(store).await;
    claims_are_ordered_and_exclusive(store).await;
    a_repeated_claim_gives_the_same_jobs(store).await;
    a_backend_runs_no_more_than_it_may(store).await;
    renewal_keeps_a_lease(store).await;
    a_settled_lease_is_nobodys(store).await;
    a_late_owner_may_finish_while_nobody_settled(store).await;
    lost_leases_are_bounded_by_attempts(store).await;
    lost_leases_are_bounded_by_time(store).await;
    ends_may_be_repeated_and_not_changed(store).await;
    a_job_given_back_waits_its_pause(store).await;
    backends_are_avoided_by_group(store).await;
    groups_say_why_they_wait(store).await;
    what_nobody_can_run_is_given_up(store).await;
    hints_move(store).await;
}

async fn the_queue_is_told_as_a_whole(store: &dyn JobStore) {
    let (older, lane) = (Lane::new(), Lane::new());
    let first = older.insert(store).await;
    let mut needs = new_job("package: {}\n");
    needs.waits_for = vec![first];
    let blocked = older.submit(store, needs).await;
    let (job, fence) = lane.running(store).await;
    let later = lane.insert(store).await;
    let pause = given_back(Some(100), true);
    store.release(fence, &pause, at(5)).await.expect("the owner gives it back");
    let ran = lane.claim_one(store, 6).await;
    assert_eq!(ran.job.id, later, "the other one pauses");
    let third = lane.insert(store).await;
    let told = store.queue(at(7)).await.expect("it tells");
    let own: Vec<_> = told
        .groups
        .iter()
        .filter(|told| [&older.project, &lane.project].contains(&&told.group.project))
        .map(|told| (&told.group.project, told.jobs, told.pausing, told.since))
        .collect();
    let mut expected = vec![(&older.project, 1, 0, START), (&lane.project, 2, 1, START)];
    // Of groups that wait equally long any may be first.
    expected.sort_by_key(|(project, ..)| own.iter().position(|told| told.0 == *project));
    assert_eq!(own, expected);
    assert!(told.groups.windows(2).all(|pair| pair[0].since <= pair[1].since), "the oldest are first");
    let counts = |name: &Project| {
        let project = told.projects.iter().find(|told| told.project == *name).expect("it has jobs");
        (project.blocked, project.pending, project.running)
    };
    assert_eq!((counts(&older.project), counts(&lane.project)), ((1, 1, 0), (0, 2, 1)));
    let oldest = told.oldest_blocked.expect("one is blocked");
    assert!(oldest <= blocked);
    // What has ended is told no longer, and what came back waits since then.
    store.finish(ran.fence, &succeeded(), at(8)).await.expect("the owner ends it");
    store.cancel(Selection::Job(third), at(8)).await.expect("it waits");
    store.cancel(Selection::Job(first), at(8)).await.expect("it waits");
    let told = store.queue(at(101)).await.expect("it tells");
    assert!(told.projects.iter().all(|told| told.project != older.project), "all of it has ended");
    let own: Vec<_> = told.groups.iter().filter(|told| told.group.project == lane.project).collect();
    assert_eq!((own.len(), own[0].jobs, own[0].pausing), (1, 1, 0), "its pause is over");
    assert!(own[0].since > START, "it was given back later");
    store.cancel(Selection::Job(job), at(102)).await.expect("it waits");
}

async fn jobs_know_how_many_go_before_them(store: &dyn JobStore) {
    let lane = Lane::new();
    let ids = [lane.insert(store).await, lane.insert(store).await, lane.insert(store).await];
    let mut ranked = new_job("package: {}\n");
    ranked.rank = 1;
    let ranked = lane.submit(store, ranked).await;
    let other = Lane::new().insert(store).await;
    store.set_priority(Selection::Job(ids[2]), Priority::MAX).await.expect("it waits");
    let ahead = async |id| store.ahead(id).await.expect("it is there");
    let places = [ahead(ids[2]).await, ahead(ranked).await, ahead(ids[0]).await, ahead(ids[1]).await];
    assert_eq!(places, [0, 1, 2, 3].map(Some));
    assert_eq!(ahead(other).await, Some(0), "others have a queue of their own");
    let blocked = lane.submit(store, new_job("package: {}\n").waiting_for([ids[0]])).await;
    assert_eq!(ahead(blocked).await, None);
    assert_eq!(lane.claim_one(store, 1).await.job.id, ids[2]);
    assert_eq!((ahead(ids[2]).await, ahead(ids[1]).await), (None, Some(2)));
    let missing = store.ahead(JobId::new(START)).await.expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

async fn demand_tells_what_could_be_claimed(store: &dyn JobStore) {
    let (lane, other) = (Lane::new(), Lane::new());
    assert_eq!(lane.demand(store, 0).await, []);
    let first = lane.insert(store).await;
    let second = lane.insert(store).await;
    let arm = lane.submit(store, new_job_for("a", Arch::Aarch64)).await;
    let mut urgent = new_job("a");
    urgent.priority = Priority::MAX;
    let urgent = other.submit(store, urgent).await;
    let all = store.demand(at(0)).await.expect("it tells");
    let ours: Vec<(JobId, usize)> = all
        .iter()
        .filter(|demand| [&lane.project, &other.project].contains(&&demand.group.project))
        .map(|demand| (demand.first, demand.ready))
        .collect();
    assert_eq!(ours, [(urgent, 1), (first, 2), (arm, 1)], "urgent before old, old before young");
    assert_eq!(lane.demand(store, 0).await[0].group, lane.group());
    lane.claim_one(store, 0).await;
    let demand = lane.demand(store, 0).await;
    assert_eq!((demand[0].first, demand[0].ready), (second, 1), "a running job does not wait");
    assert_eq!(
        demand.iter().map(|demand| demand.running).collect::<Vec<_>>(),
        [1, 1],
        "one of the project runs"
    );
    assert_eq!(lane.ready(store, 1_000).await, 2, "leases are settled by expire alone");
    for id in [second, arm, urgent] {
        store.cancel(Selection::Job(id), at(1)).await.expect("it waits");
    }
    expire(store, 10).await;
    lane.claim_one(store, 10).await;
    store.cancel(Selection::Job(first), at(11)).await.expect("it runs");
    expire(store, 20).await;
}

async fn claims_are_ordered_and_exclusive(store: &dyn JobStore) {
    let lane = Lane::new();
    let job = |priority, rank| {
        let mut job = new_job("a");
        (job.priority, job.rank) = (Priority::new(priority).expect("it is legal"), rank);
        job
    };
    let jobs = [job(500, 0), job(500, 9), job(500, 9), job(501, -5), job(0, 1_000)];
    let ids = jobs.clone().map(|job| job.id);
    store.submit(&lane.submission(jobs)).await.expect("it is handed in");
    let order = [ids[3], ids[1], ids[2], ids[0], ids[4]];
    let claims = lane.claim(store, 3, 0).await;
    let claimed: Vec<JobId> = claims.iter().map(|claim| claim.job.id).collect();
    assert_eq!(claimed, order[..3]);
    let job = &claims[0].job;
    assert_eq!((job.state, job.attempt, job.counted_attempts, job.version), (JobState::Running, 1, 1, 2));
    assert_eq!(
        (job.started_at, job.server.as_ref(), job.backend.as_ref()),
        (Some(at(0)), Some(&lane.server), Some(&lane.backend))
    );
    assert_eq!(claims[0].fence.attempt, 1);
    assert_eq!(get(store, job.id).await, *job);
    let rest: Vec<JobId> = lane.claim(store, 9, 9).await.iter().map(|claim| claim.job.id).collect();
    assert_eq!(rest, order[3..], "of a job with a lease no other claim succeeds");
    assert!(lane.claim(store, 9, 1_000).await.is_empty(), "a lease that ended is settled first");
    let mut strange = lane.offer(1);
    strange.group.needs.arch = Arch::S390x;
    assert!(store.claim(&lane.request(vec![strange], 0)).await.expect("it answers").is_empty());
    for claim in claims {
        store.finish(claim.fence, &succeeded(), at(1)).await.expect("the owner ends it");
    }
    expire(store, 19).await;
    for id in rest {
        store.cancel(Selection::Job(id), at(20)).await.expect("it waits");
    }
}

/// A claim whose answer was lost is made again by the same token.
async fn a_repeated_claim_gives_the_same_jobs(store: &dyn JobStore) {
    let lane = Lane::new();
    for number in 0..4 {
        lane.submit(store, new_job(&format!("package: {{name: p{number}}}\n"))).await;
    }
    let request = lane.request(vec![lane.offer(2)], 0);
    let first = store.claim(&request).await.expect("claiming works");
    assert_eq!(first.len(), 2);
    for claim in &first {
        assert_eq!(
            claim.spec,
            store.spec(claim.job.id).await.expect("it is there"),
            "with what they ask for"
        );
    }
    let later = ClaimRequest { now: at(3), until: at(13), ..request.clone() };
    let again = store.claim(&later).await.expect("claiming works");
    assert_eq!(again, first, "the same token gives the same claims");
    assert!(expire(store, 12).await.iter().all(|job| job.project != lane.project), "with leases from now on");
    assert_eq!(lane.ready(store, 3).await, 2, "and takes no others");
    store.finish(first[0].fence, &succeeded(), at(4)).await.expect("the owner ends it");
    let again = store.claim(&later).await.expect("claiming works");
    assert_eq!(again, first[1..], "what it still owns");
    let second = lane.claim(store, 9, 5).await;
    assert_eq!(second.len(), 2, "another token gets others");
    assert_ne!(second[0].fence.token, first[0].fence.token);
    for claim in first[1..].iter().chain(&second) {
        store.finish(claim.fence, &succeeded(), at(6)).await.expect("the owner ends it");
    }
    let left = lane.insert(store).await;
    let again = store.claim(&later).await.expect("claiming works");
    assert_eq!(again, [], "a token whose claims have ended claims no others");
    let late = ClaimRequest { now: at(20), until: at(20), ..lane.request(vec![lane.offer(1)], 0) };
    assert_eq!(
        store.claim(&late).await.expect("claiming works"),
        [],
        "a lease that would have ended is not given"
    );
    store.cancel(Selection::Job(left), at(20)).await.expect("it waits");
}

/// Whichever servers ask.
async fn a_backend_runs_no_more_than_it_may(store: &dyn JobStore) {
    let lane = Lane::new();
    for _ in 0..6 {
        lane.insert(store).await;
    }
    let offer = |slots| Offer { max_jobs: 3, ..lane.offer(slots) };
    let first = store.claim(&lane.request(vec![offer(2)], 0)).await.expect("claiming works");
    assert_eq!(first.len(), 2);
    let other = Lane { server: ServerId::unique(), ..Lane::new() };
    let request = ClaimRequest { server: other.server.clone(), ..lane.request(vec![offer(2), offer(2)], 0) };
    let second = store.claim(&request).await.expect("claiming works");
    assert_eq!(second.len(), 1, "three at once, in all servers and offers together");
    assert!(store.claim(&lane.request(vec![offer(9)], 1)).await.expect("it answers").is_empty());
    store.finish(first[0].fence, &succeeded(), at(2)).await.expect("the owner ends it");
    store.release(first[1].fence, &given_back(None, false), at(2)).await.expect("the owner gives it back");
    let third = store.claim(&lane.request(vec![offer(9)], 3)).await.expect("claiming works");
    assert_eq!(third.len(), 2, "ends make room");
    let elsewhere = JobBackend { addr: format!("{}1", lane.backend.addr), ..lane.backend.clone() };
    let offer = Offer { backend: elsewhere, ..offer(9) };
    let fourth = store.claim(&lane.request(vec![offer], 3)).await.expect("claiming works");
    assert_eq!(fourth.len(), 2, "another backend has room of its own");
    let machine = JobBackend { machine: Some("other".to_owned()), ..lane.backend.clone() };
    for _ in 0..2 {
        lane.insert(store).await;
    }
    let offer = Offer { backend: machine, max_jobs: 3, ..lane.offer(2) };
    let fifth = store.claim(&lane.request(vec![offer], 3)).await.expect("claiming works");
    assert_eq!(fifth.len(), 2, "so has that of another machine");
    for claim in second.iter().chain(&third).chain(&fourth).chain(&fifth) {
        store.finish(claim.fence, &succeeded(), at(4)).await.expect("the owner ends it");
    }
}

/// A renewed lease holds longer and is never shortened.
async fn renewal_keeps_a_lease(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    let kept = Renewal::Kept { cancel_requested: false };
    assert_eq!(lane.renew(store, fence, 30).await, kept);
    assert_eq!(lane.renew(store, fence, 20).await, kept);
    assert!(expire(store, 29).await.iter().all(|settled| settled.id != job), "the lease holds");
    let (other, other_fence) = lane.running(store).await;
    let strange = Fence { job: JobId::new(START), ..fence };
    let wrong = Fence { attempt: 2, ..fence };
    let forged = Fence { token: ClaimToken::new(), ..fence };
    let fences = [other_fence, strange, fence, wrong, forged];
    let answers = store.renew(&lane.server, &fences, at(40)).await.expect("it answers");
    assert_eq!(answers, [kept, Renewal::Lost, kept, Renewal::Lost, Renewal::Lost]);
    assert_eq!(
        store.renew(&ServerId::unique(), &[fence], at(90)).await.expect("it answers"),
        [Renewal::Lost]
    );
    assert!(expire(store, 39).await.iter().all(|settled| ![job, other].contains(&settled.id)));
    let settled: Vec<JobId> = expire(store, 40).await.iter().map(|job| job.id).collect();
    assert!(settled.contains(&job) && settled.contains(&other));
    for claim in lane.claim(store, 2, 41).await {
        is_stale(store, &lane, forged, "nobody was given this fence").await;
        store.finish(claim.fence, &succeeded(), at(42)).await.expect("the owner ends it");
    }
}

async fn a_settled_lease_is_nobodys(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, first) = lane.running(store).await;
    append(store, first, "one\n").await.expect("the owner writes");
    let settled = expire(store, 10).await;
    let told = settled.iter().find(|settled| settled.id == job).expect("its lease ended");
    assert_eq!((told.state, told.ready_at), (JobState::Pending, Some(at(10))));
    assert_eq!(get(store, job).await, *told);
    assert_eq!(told.error.as_ref().expect("it says why").class, FailureClass::Infrastructure);
    assert!(expire(store, 10).await.iter().all(|settled| settled.id != job), "once");
    is_stale(store, &lane, first, "the lease is settled").await;
    let second = lane.claim_one(store, 11).await;
    assert_eq!((second.job.id, second.job.attempt, second.job.counted_attempts), (job, 2, 2));
    assert_eq!(second.log_bytes, 4, "the claim tells where the attempt's log begins");
    assert_ne!(second.fence, first);
    is_stale(store, &lane, first, "somebody else has it").await;
    is_stale(store, &lane, Fence { attempt: 2, ..first }, "the token is old").await;
    is_stale(store, &lane, Fence { attempt: 1, ..second.fence }, "the attempt is old").await;
    let done = store.finish(second.fence, &succeeded(), at(12)).await.expect("the owner finishes").job;
    assert_eq!((done.state, done.finished_at, done.artifacts.len()), (JobState::Success, Some(at(12)), 1));
    assert_eq!(get(store, job).await, done);
    let attempts = store.attempts(job).await.expect("they are there");
    let told: Vec<_> =
        attempts.iter().map(|attempt| (attempt.outcome, attempt.ended_at, attempt.counts)).collect();
    assert_eq!(
        told,
        [(AttemptOutcome::Lost, Some(at(10)), true), (AttemptOutcome::Success, Some(at(12)), true)]
    );
}

/// The fence decides, not the clock.
async fn a_late_owner_may_finish_while_nobody_settled(store: &dyn JobStore) {
    let lane = Lane::new();
    let (_, fence) = lane.running(store).await;
    assert_eq!(lane.renew(store, fence, 60).await, Renewal::Kept { cancel_requested: false });
    append(store, fence, "late\n").await.expect("nobody else has it");
    let done = store.finish(fence, &succeeded(), at(1_000)).await.expect("nobody else has it");
    assert_eq!(done.job.state, JobState::Success);
}

/// A job whose leases end again and again is given up, visibly.
async fn lost_leases_are_bounded_by_attempts(store: &dyn JobStore) {
    let lane = Lane::new();
    let id = lane.insert(store).await;
    for attempt in 1..=3 {
        let claim = lane.claim_one(store, u64::from(attempt) * 10).await;
        assert_eq!(claim.job.attempt, attempt);
        expire(store, u64::from(attempt) * 10 + 10).await;
    }
    let job = get(store, id).await;
    assert_eq!((job.state, job.attempt, job.finished_at), (JobState::Failed, 3, Some(at(40))));
    assert_eq!(job.error.as_ref().expect("it says why").class, FailureClass::Infrastructure);
    let last = store.attempt(id, 3).await.expect("it is there");
    assert_eq!(last.outcome, AttemptOutcome::Failed);
}

/// However many leases end, a job is tried again until its time is over, which begins with the first of them.
async fn lost_leases_are_bounded_by_time(store: &dyn JobStore) {
    let lane = Lane::new();
    let id = lane.insert(store).await;
    let patience = Patience { attempts: 1, time: Duration::from_secs(30) };
    for (claimed, expected) in [(0, JobState::Pending), (15, JobState::Pending), (30, JobState::Failed)] {
        lane.claim_one(store, claimed).await;
        expire_with(store, claimed + 10, patience).await;
        assert_eq!(state(store, id).await, expected, "claimed at {claimed}");
    }
    store.retry(Selection::Job(id), at(50)).await.expect("it has failed");
    lane.claim_one(store, 60).await;
    expire_with(store, 70, patience).await;
    assert_eq!(state(store, id).await, JobState::Pending, "its time begins anew");
    lane.claim_one(store, 70).await;
    expire_with(store, 100, patience).await;
    assert_eq!(state(store, id).await, JobState::Failed);
}

/// An end whose answer was lost may be told again, and only the same one.
async fn ends_may_be_repeated_and_not_changed(store: &dyn JobStore) {
    let lane = Lane::new();
    for outcome in [succeeded(), failed(), Outcome::Cancelled] {
        let (job, fence) = lane.running(store).await;
        let done = store.finish(fence, &outcome, at(1)).await.expect("the owner ends it").job;
        assert_eq!((done.state, done.version), (outcome.state(), 3));
        let again = store.finish(fence, &outcome, at(2)).await.expect("it is the same end");
        assert_eq!(again.job, done);
        assert_eq!(get(store, job).await, done);
        let others = [succeeded(), failed(), Outcome::Cancelled];
        for other in others.iter().filter(|other| **other != outcome) {
            conflicts(store.finish(fence, other, at(2)).await, "it came to another end");
        }
        let forged = Fence { token: ClaimToken::new(), ..fence };
        conflicts(store.finish(forged, &outcome, at(2)).await, "a stranger repeats nothing");
        conflicts(store.release(fence, &given_back(None, true), at(2)).await, "it has ended");
        conflicts(append(store, fence, "late\n").await, "it has ended");
        assert_eq!(lane.renew(store, fence, 60).await, Renewal::Lost);
    }
    let (job, fence) = lane.running(store).await;
    let back = given_back(Some(5), true);
    let told = store.release(fence, &back, at(1)).await.expect("the owner gives it back");
    assert_eq!((told.state, told.version), (JobState::Pending, 3));
    assert_eq!(store.release(fence, &back, at(2)).await.expect("it is the same"), told);
    conflicts(store.release(fence, &given_back(None, true), at(2)).await, "it was given back otherwise");
    is_stale(store, &lane, fence, "it was given back").await;
    let next = lane.claim_one(store, 5).await;
    conflicts(store.release(fence, &back, at(6)).await, "somebody else has it");
    store.finish(next.fence, &succeeded(), at(6)).await.expect("the owner ends it");
    assert_eq!(get(store, job).await.attempt, 2);
}

/// A job that is given back waits until its time, and an attempt that does not count does not count.
async fn a_job_given_back_waits_its_pause(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    store.release(fence, &given_back(Some(5), true), at(1)).await.expect("the owner gives it back");
    assert_eq!(lane.ready(store, 4).await, 0);
    assert!(lane.claim(store, 1, 4).await.is_empty(), "the pause is not over");
    let waiting = get(store, job).await.waiting.clone().expect("it says why it waits");
    assert_eq!((waiting.reason.as_str(), waiting.since), ("the daemon is gone", at(1)));
    assert_eq!(lane.ready(store, 5).await, 1);
    let second = lane.claim_one(store, 5).await;
    assert_eq!((second.job.attempt, second.job.counted_attempts), (2, 2));
    assert_eq!((second.job.waiting.as_ref(), second.job.not_before), (None, None));
    let told =
        store.release(second.fence, &given_back(None, false), at(6)).await.expect("the owner gives it back");
    assert_eq!((told.attempt, told.counted_attempts), (2, 1), "the number stays");
    let third = lane.claim_one(store, 6).await;
    assert_eq!((third.job.attempt, third.job.counted_attempts), (3, 2));
    is_stale(store, &lane, second.fence, "somebody else has it").await;
    store.finish(third.fence, &succeeded(), at(7)).await.expect("the owner ends it");
}

/// A job that failed for reasons of a backend asks for others first, and says so by its group.
async fn backends_are_avoided_by_group(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    let back = Release { avoid: true, ..given_back(None, false) };
    let told = store.release(fence, &back, at(1)).await.expect("the owner gives it back");
    assert_eq!(told.avoid, std::slice::from_ref(&lane.backend.addr));
    let demand = lane.demand(store, 1).await;
    let group = Group { avoid: vec![lane.backend.addr.clone()], ..lane.group() };
    assert_eq!((&demand[0].group, demand[0].first), (&group, job));
    assert!(lane.claim(store, 1, 1).await.is_empty(), "it is in another group now");
    let offer = Offer { group, ..lane.offer(1) };
    let claims = store.claim(&lane.request(vec![offer], 1)).await.expect("claiming works");
    assert_eq!(claims.len(), 1, "whether to avoid it is the caller's to say");
    store.finish(claims[0].fence, &succeeded(), at(2)).await.expect("the owner ends it");
}

async fn groups_say_why_they_wait(store: &dyn JobStore) {
    let lane = Lane::new();
    let job = lane.insert(store).await;
    let note = async |reason: &str, needs_other_backends, seconds| {
        let waiting = GroupWaiting { group: lane.group(), reason: reason.to_owned(), needs_other_backends };
        store.note_waiting(&[waiting], at(seconds)).await.expect("it notes")[0]
    };
    let told = async || get(store, job).await.waiting.clone().map(|waiting| (waiting.reason, waiting.since));
    assert_eq!(told().await, None);
    assert_eq!(note("busy", false, 1).await, at(1));
    assert_eq!(told().await, Some(("busy".to_owned(), at(1))));
    assert_eq!(note("busy", false, 5).await, at(1), "the same reason lasts");
    assert_eq!(told().await, Some(("busy".to_owned(), at(1))));
    assert_eq!(note("very busy", false, 6).await, at(1), "time is what helps all along");
    assert_eq!(told().await, Some(("very busy".to_owned(), at(6))));
    assert_eq!(note("none", true, 7).await, at(7), "other backends are needed since now");
    let young = lane.insert(store).await;
    assert_eq!(get(store, young).await.waiting.as_ref().map(|waiting| waiting.reason.as_str()), Some("none"));
    let version = get(store, job).await.version;
    assert_eq!(version, 1, "reasons are the group's, not the job's");
    for claim in lane.claim(store, 2, 8).await {
        assert_eq!(claim.job.waiting, None);
        store.finish(claim.fence, &succeeded(), at(9)).await.expect("the owner ends it");
    }
    assert_eq!(note("none", true, 10).await, at(10), "nothing waited in between");
}

async fn what_nobody_can_run_is_given_up(store: &dyn JobStore) {
    let lane = Lane::new();
    let old = lane.insert(store).await;
    let young = new_job("a");
    let young_id = young.id;
    let mut late = lane.submission([young]);
    late.at = at(50);
    store.submit(&late).await.expect("it is handed in");
    let error = JobError::new(FailureClass::Unschedulable, "no such backend");
    let request = GiveUp { group: lane.group(), ready_before: at(40), error: error.clone(), at: at(100) };
    assert_eq!(store.give_up(&request).await.expect("it gives up"), 1);
    let job = get(store, old).await;
    assert_eq!(
        (job.state, job.finished_at, job.error.as_ref()),
        (JobState::Failed, Some(at(100)), Some(&error))
    );
    assert_eq!(state(store, young_id).await, JobState::Pending, "it has not waited so long");
    assert_eq!(store.give_up(&request).await.expect("it gives up"), 0);
    store.cancel(Selection::Job(young_id), at(101)).await.expect("it waits");
}

/// Counters move with their subjects.
async fn hints_move(store: &dyn JobStore) {
    let lane = Lane::new();
    let mut queue = store.changed(Subject::Queue);
    queue.mark_unchanged();
    let id = lane.insert(store).await;
    let moved = async |hint: &mut tokio::sync::watch::Receiver<u64>, what: &str| {
        let moved = tokio::time::timeout(Duration::from_secs(10), hint.changed()).await;
        moved.expect(what).expect("the store is there");
    };
    moved(&mut queue, "a job came").await;
    let (mut job, mut log) = (store.changed(Subject::Job(id)), store.changed(Subject::Log(id)));
    let mut stops = store.changed(Subject::Cancellations);
    for hint in [&mut job, &mut log, &mut stops] {
        hint.mark_unchanged();
    }
    let fence = lane.claim_one(store, 0).await.fence;
    moved(&mut job, "it was claimed").await;
    append(store, fence, "one\n").await.expect("the owner writes");
    moved(&mut log, "it grew").await;
    store.append(fence, 0, &[step("a")]).await.expect("the owner tells");
    moved(&mut job, "a step began").await;
    store.cancel(Selection::Job(id), at(1)).await.expect("it runs");
    moved(&mut stops, "it shall stop").await;
    job.mark_unchanged();
    log.mark_unchanged();
    store.finish(fence, &Outcome::Cancelled, at(2)).await.expect("the owner ends it");
    moved(&mut job, "it ended").await;
    moved(&mut log, "nothing will come").await;
}
