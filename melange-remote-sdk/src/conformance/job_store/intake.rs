//! Promises about handing in, cancelling, retrying, listing and removing.

use super::*;

pub(super) async fn all(store: &dyn JobStore) {
    submissions_are_idempotent_by_key(store).await;
    submissions_are_idempotent_by_ids(store).await;
    keys_are_a_projects_own(store).await;
    equal_submissions_are_joined_within_their_time(store).await;
    listings_are_newest_first_and_paged(store).await;
    cancelling_works_in_every_state(store).await;
    a_failed_job_is_tried_again(store).await;
    priorities_change(store).await;
    a_finished_job_can_be_removed_and_no_other(store).await;
    missing_things_are_not_found(store).await;
    specs_and_facts_are_kept(store).await;
}

/// The same key and content give the same jobs; the same key with other content is refused.
async fn submissions_are_idempotent_by_key(store: &dyn JobStore) {
    let (lane, key) = (Lane::new(), fresh_key());
    let keyed = |text: &str| lane.submission([new_job(text)]).with_key(&key);
    let first = store.submit(&keyed("a")).await.expect("it is handed in");
    assert!(first.created);
    let job = get(store, first.jobs[0]).await;
    assert_eq!((job.state, job.version, job.attempt, job.created_at), (JobState::Pending, 1, 0, START));
    assert_eq!((&job.project, job.ready_at), (&lane.project, Some(START)));
    let again = store.submit(&keyed("a")).await.expect("it is known");
    assert_eq!(again, Submitted { created: false, ..first.clone() });
    conflicts(store.submit(&keyed("b")).await, "the key was used for another definition");
    let mut urgent = keyed("a");
    urgent.jobs[0].priority = Priority::MAX;
    conflicts(store.submit(&urgent).await, "the key was used with another priority");
    conflicts(store.submit(&keyed("a").as_build(BuildId::new(START))).await, "the first one was no build");
    let two = lane.submission([new_job("a"), new_job("a")]).with_key(&key);
    conflicts(store.submit(&two).await, "the first one was one job");
    assert_eq!(get(store, first.jobs[0]).await, job, "none of this changed it");
    let other =
        store.submit(&lane.submission([new_job("a")])).await.expect("without a key it is another one");
    assert!(other.created);
    let empty = lane.submission([new_job("a")]).with_key("");
    assert_eq!(
        store.submit(&empty).await.expect_err("an empty key names nothing").kind(),
        ErrorKind::InvalidRequest
    );
}

/// A submission that is repeated because its answer was lost makes nothing twice.
async fn submissions_are_idempotent_by_ids(store: &dyn JobStore) {
    let lane = Lane::new();
    let build = BuildId::new(START);
    let submission = lane.submission([new_job("a"), new_job("b")]).as_build(build);
    let first = store.submit(&submission).await.expect("it is handed in");
    assert_eq!(first.jobs, submission.jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    let again = store.submit(&submission).await.expect("it is the same one");
    assert_eq!(again, Submitted { created: false, ..first });
    let mut other = submission.clone();
    other.jobs[1] = NewJob { id: other.jobs[1].id, ..new_job("c") };
    conflicts(store.submit(&other).await, "the ids have other content");
    conflicts(store.submit(&lane.submission([submission.jobs[0].clone()])).await, "one of two jobs");
    let same_build = lane.submission([new_job("a")]).as_build(build);
    let id = same_build.jobs[0].id;
    conflicts(store.submit(&same_build).await, "the build is there");
    assert_eq!(store.get(id).await.expect_err("it was refused").kind(), ErrorKind::NotFound);
    let count = store.build(build).await.expect("it is there").counts.total();
    assert_eq!(count, 2, "nothing was made twice");
}

/// Two projects may use one key.
async fn keys_are_a_projects_own(store: &dyn JobStore) {
    let key = fresh_key();
    let (one, two) = (Lane::new(), Lane::new());
    for lane in [&one, &two] {
        let told = store.submit(&lane.submission([new_job("a")]).with_key(&key)).await;
        assert!(told.expect("the key is free in this project").created);
    }
    let other = two.submission([new_job("b")]).with_key(&key);
    conflicts(store.submit(&other).await, "it is used in this one");
}

/// Whoever asks for it gets the jobs of an equal submission that is young enough and did not go wrong.
async fn equal_submissions_are_joined_within_their_time(store: &dyn JobStore) {
    let lane = Lane::new();
    let submit = async |text: &str, since: Option<Timestamp>, seconds: u64| {
        let mut submission = lane.submission([new_job(text)]);
        submission.at = at(seconds);
        submission.joins_since = since;
        store.submit(&submission).await.expect("it is handed in or joined")
    };
    let first = submit("a", Some(START), 0).await;
    assert!(first.created, "there is nothing to join");
    let joined = submit("a", Some(START), 5).await;
    assert_eq!(joined, Submitted { created: false, ..first.clone() });
    assert!(submit("b", Some(START), 5).await.created, "other content");
    let elsewhere = Lane::new().submission([new_job("a")]).joining_within(Duration::ZERO);
    assert!(store.submit(&elsewhere).await.expect("it is handed in").created, "another project");
    let apart = submit("a", None, 6).await;
    assert!(apart.created, "it did not ask to join");
    assert_eq!(submit("a", Some(at(6)), 7).await.jobs, apart.jobs, "the newest one is joined");
    let late = submit("a", Some(at(7)), 8).await;
    assert!(late.created, "the newest one is too old");
    store.cancel(Selection::Job(late.jobs[0]), at(9)).await.expect("it waits");
    let anew = submit("a", Some(START), 9).await;
    assert!(anew.created, "the newest one was cancelled");
    for claim in lane.claim(store, limits::CLAIMS_PER_ROUND_MAX, 10).await {
        let outcome = if claim.job.id == anew.jobs[0] { succeeded() } else { failed() };
        store.finish(claim.fence, &outcome, at(11)).await.expect("the owner ends it");
    }
    let keyed = lane.submission([new_job("a")]).with_key(fresh_key()).joining_within(Duration::from_secs(1));
    let joined = store.submit(&keyed).await.expect("it is joined");
    assert_eq!(joined, Submitted { created: false, ..anew.clone() }, "what succeeded is joined");
    store.remove(anew.jobs[0]).await.expect("it has finished");
    let failed = submit("a", Some(START), 12).await;
    assert!(failed.created, "the newest one that is left was cancelled");
}

/// Takes a pending job of the lane into `state`.
async fn bring_to(store: &dyn JobStore, lane: &Lane, wanted: JobState) -> JobId {
    match wanted {
        JobState::Blocked => {
            let other = lane.insert(store).await;
            return lane.submit(store, new_job("a").waiting_for([other])).await;
        }
        JobState::Skipped => {
            let cancelled = lane.insert(store).await;
            store.cancel(Selection::Job(cancelled), at(1)).await.expect("it waits");
            return lane.submit(store, new_job("a").waiting_for([cancelled])).await;
        }
        JobState::Pending => return lane.insert(store).await,
        _ => {}
    }
    let own = Lane { project: lane.project.clone(), ..Lane::new() };
    let id = own.insert(store).await;
    // Others of the project may wait too; the youngest one is meant.
    let claims = own.claim(store, limits::CLAIMS_PER_ROUND_MAX, 0).await;
    for claim in claims {
        if claim.job.id != id {
            store
                .release(claim.fence, &given_back(None, false), at(0))
                .await
                .expect("the owner gives it back");
            continue;
        }
        let outcome = match wanted {
            JobState::Success => succeeded(),
            JobState::Failed => failed(),
            JobState::Cancelled => Outcome::Cancelled,
            _ => continue,
        };
        store.finish(claim.fence, &outcome, at(1)).await.expect("the owner ends it");
    }
    id
}

/// Pages neither overlap nor leave gaps, without a state and with each of them.
async fn listings_are_newest_first_and_paged(store: &dyn JobStore) {
    let lane = Lane::new();
    let oldest = lane.insert(store).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        for state in JobState::ALL {
            jobs.push((bring_to(store, &lane, state).await, state));
        }
    }
    jobs.reverse();
    for wanted in JobState::ALL.map(Some).into_iter().chain([None]) {
        let expected = jobs.iter().filter(|(_, its)| wanted.is_none_or(|state| state == *its));
        let expected: Vec<JobId> = expected.map(|(id, _)| *id).collect();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let query = ListQuery::newest(2).in_state(wanted).before(before);
            let page = store.list(&query).await.expect("it lists");
            assert!(page.jobs.len() <= 2, "a page of two holds {}", page.jobs.len());
            assert!(!page.more || page.jobs.len() == 2, "a page that is not full is the last");
            for job in &page.jobs {
                assert!(before.is_none_or(|before| job.id < before), "pages overlap");
                assert!(wanted.is_none_or(|state| state == job.state), "{wanted:?} gave a {} job", job.state);
                assert_eq!(get(store, job.id).await, *job, "listings tell what get tells");
            }
            found.extend(page.jobs.iter().map(|job| job.id).filter(|id| *id > oldest));
            before = page.jobs.last().map(|job| job.id);
            if !page.more || before.is_some_and(|before| before <= oldest) {
                break;
            }
        }
        // Some needed others to come into their state.
        found.retain(|id| jobs.iter().any(|(job, _)| job == id));
        assert_eq!(found, expected, "{wanted:?}");
    }
}

/// Jobs that wait stop at once, running ones are told, finished ones refuse.
async fn cancelling_works_in_every_state(store: &dyn JobStore) {
    let lane = Lane::new();
    let pending = lane.insert(store).await;
    for changed in [1, 0] {
        let told = store.cancel(Selection::Job(pending), at(1)).await;
        assert_eq!(told.expect("asking twice is no mistake"), changed);
        let job = get(store, pending).await;
        assert_eq!((job.state, job.finished_at), (JobState::Cancelled, Some(at(1))));
    }
    assert_eq!(lane.ready(store, 2).await, 0, "a cancelled job has left the queue");
    assert!(lane.claim(store, 1, 2).await.is_empty(), "a cancelled job is not claimed");
    let (running, fence) = lane.running(store).await;
    assert_eq!(store.cancel_requests(&lane.server).await.expect("it tells"), []);
    for changed in [1, 0] {
        let told = store.cancel(Selection::Job(running), at(1)).await;
        assert_eq!(told.expect("asking twice is no mistake"), changed);
        let job = get(store, running).await;
        assert_eq!((job.state, job.cancel_requested, job.version), (JobState::Running, true, 3));
    }
    assert_eq!(store.cancel_requests(&lane.server).await.expect("it tells"), [fence]);
    assert_eq!(store.cancel_requests(&ServerId::unique()).await.expect("it tells"), []);
    assert_eq!(lane.renew(store, fence, 20).await, Renewal::Kept { cancel_requested: true });
    let done = store.finish(fence, &succeeded(), at(2)).await.expect("it finished first");
    assert_eq!(done.job.state, JobState::Success);
    assert_eq!(store.cancel_requests(&lane.server).await.expect("it tells"), []);
    conflicts(store.cancel(Selection::Job(running), at(3)).await, "it is finished");
    let (broken, fence) = lane.running(store).await;
    store.finish(fence, &failed(), at(2)).await.expect("the owner ends it");
    conflicts(store.cancel(Selection::Job(broken), at(3)).await, "it is finished");
    // Neither a lost owner nor one that gives it back makes a cancelled job run again.
    let (orphan, _) = lane.running(store).await;
    store.cancel(Selection::Job(orphan), at(1)).await.expect("a running job can be cancelled");
    expire(store, 10).await;
    assert_eq!(state(store, orphan).await, JobState::Cancelled);
    let (returned, fence) = lane.running(store).await;
    store.cancel(Selection::Job(returned), at(1)).await.expect("a running job can be cancelled");
    let told = store.release(fence, &given_back(None, true), at(2)).await.expect("the owner gives it back");
    assert_eq!((told.state, state(store, returned).await), (JobState::Cancelled, JobState::Cancelled));
    assert!(lane.claim(store, 1, 30).await.is_empty(), "nobody wants them any more");
}

/// A job that came to a bad end waits again, with all its attempts; others stay as they are.
async fn a_failed_job_is_tried_again(store: &dyn JobStore) {
    let lane = Lane::new();
    let (id, fence) = lane.running(store).await;
    assert_eq!(store.retry(Selection::Job(id), at(1)).await.expect("it runs"), 0);
    store.finish(fence, &failed(), at(1)).await.expect("the owner ends it");
    assert_eq!(store.retry(Selection::Job(id), at(2)).await.expect("it failed"), 1);
    let job = get(store, id).await;
    assert_eq!(
        (job.state, job.finished_at, &job.error, job.ready_at),
        (JobState::Pending, None, &None, Some(at(2)))
    );
    assert_eq!(store.retry(Selection::Job(id), at(3)).await.expect("it waits already"), 0);
    assert_eq!(get(store, id).await, job);
    let second = lane.claim_one(store, 4).await;
    assert_eq!((second.job.id, second.job.attempt, second.job.counted_attempts), (id, 2, 1));
    is_stale(store, &lane, fence, "the fence is of the attempt before").await;
    store.finish(second.fence, &succeeded(), at(5)).await.expect("the owner ends it");
    conflicts(store.retry(Selection::Job(id), at(6)).await, "it succeeded");
    let attempts = store.attempts(id).await.expect("they are there");
    let outcomes: Vec<_> = attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(outcomes, [(1, AttemptOutcome::Failed), (2, AttemptOutcome::Success)]);
    let cancelled = lane.insert(store).await;
    store.cancel(Selection::Job(cancelled), at(1)).await.expect("it waits");
    assert_eq!(store.retry(Selection::Job(cancelled), at(2)).await.expect("it was cancelled"), 1);
    let job = get(store, cancelled).await;
    assert_eq!((job.state, job.cancel_requested), (JobState::Pending, false));
    let claim = lane.claim_one(store, 3).await;
    assert_eq!(lane.renew(store, claim.fence, 20).await, Renewal::Kept { cancel_requested: false });
    store.finish(claim.fence, &succeeded(), at(4)).await.expect("the owner ends it");
}

/// The next claim goes by the new priority.
async fn priorities_change(store: &dyn JobStore) {
    let lane = Lane::new();
    let (first, second) = (lane.insert(store).await, lane.insert(store).await);
    let high = Priority::new(700).expect("it is legal");
    assert_eq!(store.set_priority(Selection::Job(second), high).await.expect("it waits"), 1);
    assert_eq!(store.set_priority(Selection::Job(second), high).await.expect("it has it"), 0);
    assert_eq!(get(store, second).await.priority, high);
    let waiting = GroupWaiting { group: lane.group(), reason: "busy".to_owned(), needs_other_backends: true };
    let since = async |at| store.note_waiting(std::slice::from_ref(&waiting), at).await.expect("it notes")[0];
    assert_eq!(since(at(1)).await, at(1));
    store.cancel(Selection::Job(first), at(1)).await.expect("it waits");
    let most = Priority::MAX;
    store.set_priority(Selection::Job(second), most).await.expect("it waits");
    store.set_priority(Selection::Job(second), high).await.expect("it waits");
    assert_eq!(since(at(2)).await, at(1), "a new priority is no new wait");
    store.retry(Selection::Job(first), at(2)).await.expect("it was cancelled");
    let demand = lane.demand(store, 0).await;
    assert_eq!((demand[0].first, demand[0].priority, demand[0].ready), (second, high, 2));
    let order: Vec<JobId> = lane.claim(store, 2, 0).await.iter().map(|claim| claim.job.id).collect();
    assert_eq!(order, [second, first]);
    for id in [first, second] {
        store.cancel(Selection::Job(id), at(1)).await.expect("it runs");
    }
    expire(store, 10).await;
}

/// Removal takes a job, its attempts, its log and at last its key.
async fn a_finished_job_can_be_removed_and_no_other(store: &dyn JobStore) {
    let (lane, key) = (Lane::new(), fresh_key());
    let keyed = || lane.submission([new_job("a")]).with_key(&key);
    let id = store.submit(&keyed()).await.expect("it is handed in").jobs[0];
    conflicts(store.remove(id).await, "it waits");
    let fence = lane.claim_one(store, 0).await.fence;
    append(store, fence, "one\n").await.expect("the owner writes");
    conflicts(store.remove(id).await, "it runs");
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    store.remove(id).await.expect("it has finished");
    for told in [
        store.get(id).await.map(drop),
        store.spec(id).await.map(drop),
        store.attempts(id).await.map(drop),
        store.read_log(id, 0, 1).await.map(drop),
        store.remove(id).await,
    ] {
        assert_eq!(told.expect_err("it is gone").kind(), ErrorKind::NotFound);
    }
    let listed = store.list(&ListQuery::newest(100)).await.expect("it lists").jobs;
    assert!(listed.iter().all(|job| job.id != id), "it is listed no longer");
    assert!(store.submit(&keyed()).await.expect("the key is free again").created);
    for ending in [failed(), Outcome::Cancelled] {
        let lane = Lane::new();
        let (id, fence) = lane.running(store).await;
        store.finish(fence, &ending, at(1)).await.expect("the owner ends it");
        store.remove(id).await.expect("it has finished");
    }
    // A build goes with the last of its jobs.
    let lane = Lane::new();
    let build = BuildId::new(START);
    let submission = lane.submission([new_job("a"), new_job("b")]).as_build(build);
    store.submit(&submission).await.expect("it is handed in");
    store.cancel(Selection::Build(build), at(1)).await.expect("it waits");
    store.remove(submission.jobs[0].id).await.expect("it has finished");
    assert_eq!(store.build(build).await.expect("one job is left").counts.total(), 1);
    store.remove(submission.jobs[1].id).await.expect("it has finished");
    assert_eq!(store.build(build).await.expect_err("it is gone").kind(), ErrorKind::NotFound);
}

async fn missing_things_are_not_found(store: &dyn JobStore) {
    let (id, build, lane) = (JobId::new(START), BuildId::new(START), Lane::new());
    let fence = Fence { job: id, attempt: 1, token: ClaimToken::new() };
    for told in [
        store.get(id).await.map(drop),
        store.spec(id).await.map(drop),
        store.attempts(id).await.map(drop),
        store.attempt(id, 1).await.map(drop),
        store.blocked_by(id, 10).await.map(drop),
        store.read_log(id, 0, 1).await.map(drop),
        store.remove(id).await,
        store.build(build).await.map(drop),
        store.cancel(Selection::Job(id), at(1)).await.map(drop),
        store.cancel(Selection::Build(build), at(1)).await.map(drop),
        store.retry(Selection::Job(id), at(1)).await.map(drop),
        store.retry(Selection::Build(build), at(1)).await.map(drop),
        store.set_priority(Selection::Job(id), Priority::MAX).await.map(drop),
        store.finish(fence, &succeeded(), at(1)).await.map(drop),
        store.release(fence, &given_back(None, true), at(1)).await.map(drop),
        store.append(fence, 0, &[]).await.map(drop),
        store.append_log(fence, 0, Bytes::new()).await.map(drop),
    ] {
        assert_eq!(told.expect_err("it is not there").kind(), ErrorKind::NotFound);
    }
    assert_eq!(lane.renew(store, fence, 1).await, Renewal::Lost);
    let nothing = store.list(&ListQuery::newest(10).of_build(build)).await.expect("it lists");
    assert!(nothing.jobs.is_empty() && !nothing.more);
}

/// What was asked comes back as it was, and the facts follow from it.
async fn specs_and_facts_are_kept(store: &dyn JobStore) {
    let lane = Lane::new();
    let parts = UncheckedSpec {
        config_yaml: "package: {}\n# ü \u{1b}\n".to_owned(),
        config_name: "ü.yaml".to_owned(),
        arch: Arch::Aarch64.to_string(),
        pipelines: [("a/b.yaml".to_owned(), "pipeline: []\n".to_owned())].into(),
        backend_selector: [("tier".to_owned(), "high".to_owned())].into(),
        test_packages: vec!["busybox".to_owned()],
        with_test: true,
        debug: true,
        ..UncheckedSpec::default()
    };
    let package = crate::job::spec::JobPackage {
        resources: crate::job::JobResources::new(1_500, 3 << 30),
        name: "a".to_owned(),
        version: "1-r0".to_owned(),
        subpackages: vec!["a-doc".to_owned()],
    };
    let spec = Arc::new(JobSpec::validate(parts).expect("the spec is legal").with_package(package));
    let mut new = NewJob::new(JobId::new(START), Arc::clone(&spec));
    (new.priority, new.rank) = (Priority::MAX, -7);
    let id = lane.submit(store, new).await;
    assert_eq!(store.spec(id).await.expect("it is there"), spec);
    let mut expected = Job::new(id, &spec, START);
    expected.project = lane.project.clone();
    (expected.priority, expected.rank) = (Priority::MAX, -7);
    assert_eq!(*get(store, id).await, expected);
}
