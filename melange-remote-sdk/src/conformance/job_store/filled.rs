//! A store with jobs of every kind, for tests of what becomes of it: when it is opened anew, when a newer program brings
//! its database to another schema.

use super::*;
use crate::job::BuildState;
use crate::job::JobState::{Blocked, Cancelled, Failed, Pending, Running, Skipped, Success};
use crate::job_store::BuildQuery;
use crate::labels::Labels;

/// The job of a place; the same one in every store.
fn id(place: u32) -> JobId {
    format!("01a3185c-5000-7000-8000-{place:012}").parse().expect("it is one")
}

fn build() -> BuildId {
    BuildId::from_bytes(id(99).as_bytes()).expect("it is one")
}

fn job(place: u32, arch: Arch) -> NewJob {
    let job = new_job_for(&format!("package: {{name: n{place}}}\n"), arch);
    NewJob { id: id(place), ..job }
}

/// What submissions with these jobs were, and are when they come again.
fn submissions() -> Vec<Submission> {
    let x86 = |place| job(place, Arch::X86_64);
    let urgent = NewJob { priority: Priority::MAX, rank: 7, ..job(7, Arch::Aarch64) };
    let other: Project = "other".parse().expect("it is one");
    vec![
        Submission::new([x86(1), x86(2).waiting_for([id(1)]), x86(3).waiting_for([id(2)])], START)
            .as_build(build()),
        Submission::new([x86(4), x86(5).waiting_for([id(4)])], START),
        Submission::new([x86(6)], START),
        Submission::new([urgent], START).in_project(other).with_key("key"),
    ]
}

pub(crate) fn offer(slots: usize) -> Offer {
    let needs = Requirements::new(Arch::X86_64, LabelSelector::default());
    let group = Group::new(Project::default(), needs);
    let backend = JobBackend::new("tcp://one:1", Arch::X86_64, Labels::default());
    Offer::new(group, backend, slots, 10_000)
}

pub(crate) fn request(token: ClaimToken, offer: Offer, seconds: u64) -> ClaimRequest {
    ClaimRequest {
        token,
        server: ServerId::unique(),
        offers: vec![offer],
        now: at(seconds),
        until: at(seconds + 100),
    }
}

/// A job that is claimed again and again until it is this one's turn; the others are given back.
async fn claim(store: &dyn JobStore, avoid: &[&str], seconds: u64) -> Claim {
    let mut offer = offer(1);
    offer.group.avoid = avoid.iter().map(|addr| (*addr).to_owned()).collect();
    let mut claims = store.claim(&request(ClaimToken::new(), offer, seconds)).await.expect("claiming works");
    claims.pop().expect("a job waits")
}

fn group_of_the_urgent() -> Group {
    let needs = Requirements::new(Arch::Aarch64, LabelSelector::default());
    Group::new("other".parse().expect("it is one"), needs)
}

/// Fills an empty store.
pub async fn fill(store: &dyn JobStore) {
    for submission in submissions() {
        store.submit(&submission).await.expect("it is handed in");
    }
    // The first fails for reasons of the farm, pauses, and succeeds elsewhere.
    let first = claim(store, &[], 1).await;
    append(store, first.fence, "first attempt\n").await.expect("the owner writes");
    store.append(first.fence, 0, &[step("one"), step("two")]).await.expect("the owner tells");
    let release = Release { avoid: true, ..given_back(Some(5), true) };
    store.release(first.fence, &release, at(2)).await.expect("the owner gives it back");
    let again = claim(store, &["tcp://one:1"], 6).await;
    append(store, again.fence, "second attempt\n").await.expect("the owner writes");
    store.finish(again.fence, &succeeded(), at(7)).await.expect("the owner ends it");
    let stopped = store.cancel(Selection::Job(id(6)), at(3)).await;
    stopped.expect("it waits");
    let broken = loop {
        let claim = claim(store, &[], 8).await;
        if claim.job.id == id(4) {
            break claim;
        }
        // What the first unlocked runs on and is asked to stop.
        assert_eq!(claim.job.id, id(2));
        append(store, claim.fence, "running\n").await.expect("the owner writes");
        store.cancel(Selection::Job(id(2)), at(9)).await.expect("it runs");
    };
    store.finish(broken.fence, &failed(), at(10)).await.expect("the owner ends it");
    let reason = "no backend has the architecture aarch64".to_owned();
    let waiting = GroupWaiting { group: group_of_the_urgent(), reason, needs_other_backends: true };
    store.note_waiting(&[waiting], at(11)).await.expect("it is noted");
}

/// That a store holds what [`fill`] put there, and goes on with it.
pub async fn check_filled(store: &dyn JobStore) {
    let mut states = Vec::new();
    for place in 1..=7 {
        states.push(state(store, id(place)).await);
        let spec = store.spec(id(place)).await.expect("it is there");
        assert!(spec.config_yaml().contains(&format!("n{place}")));
    }
    assert_eq!(states, [Success, Running, Blocked, Failed, Skipped, Cancelled, Pending]);
    let first = get(store, id(1)).await;
    assert_eq!((first.attempt, first.counted_attempts, first.finished_at), (2, 2, Some(at(7))));
    assert_eq!(first.artifacts[0].name, "x86_64/a.apk");
    let attempts = store.attempts(id(1)).await.expect("they are there");
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::GivenBack, AttemptOutcome::Success]);
    assert_eq!(attempts[0].steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((attempts[1].log_begin, attempts[1].log_end), (14, Some(29)));
    let log = store.read_log(id(1), 0, 100).await.expect("it reads");
    assert_eq!(&log.bytes[..], b"first attempt\nsecond attempt\n");
    assert_eq!(get(store, id(5)).await.skipped_for, Some(id(4)));
    let urgent = get(store, id(7)).await;
    assert_eq!((urgent.priority, urgent.rank), (Priority::MAX, 7));
    assert_eq!(urgent.waiting.as_ref().map(|waiting| waiting.since), Some(at(11)));
    let counts = store.build(build()).await.expect("it is there").counts;
    for state in JobState::ALL {
        assert_eq!(counts.get(state), u32::from([Success, Running, Blocked].contains(&state)), "{state}");
    }
    for submission in submissions() {
        assert!(!store.submit(&submission).await.expect("it is known").created);
    }
    let page = store.list(&ListQuery::newest(10).of_build(build())).await.expect("it reads");
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [id(3), id(2), id(1)]);
    let running = BuildQuery::newest(9).in_state(BuildState::Running);
    let builds = store.builds(&running.of_project(Project::default())).await.expect("it tells").builds;
    assert_eq!(builds.iter().map(|build| build.id).collect::<Vec<_>>(), [build()]);
    let demand = store.demand(at(20)).await.expect("it tells");
    assert_eq!(demand.iter().map(|demand| (demand.first, demand.running)).collect::<Vec<_>>(), [(id(7), 0)]);
    // It goes on: the lease ends, the job that shall stop stops, the build is tried again to its good end.
    let settled = expire(store, 200).await;
    assert_eq!(settled.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(id(2), Cancelled)]);
    assert_eq!(state(store, id(3)).await, Skipped);
    assert_eq!(store.retry(Selection::Build(build()), at(201)).await.expect("it has ended"), 2);
    for place in [2, 3] {
        let claim = claim(store, &[], 202).await;
        assert_eq!(claim.job.id, id(place));
        store.finish(claim.fence, &succeeded(), at(203)).await.expect("the owner ends it");
    }
    assert_eq!(store.build(build()).await.expect("it is there").finished_at, Some(at(203)));
    store.remove(id(4)).await.expect("it has finished");
    let gone = store.retry(Selection::Job(id(5)), at(204)).await;
    conflicts(gone, "what it waits for will never succeed");
}
