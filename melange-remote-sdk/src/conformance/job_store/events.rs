//! Promises about events: all of them, once, in order, and with what they tell of.

use super::*;
use crate::job::{Event, EventKind, StepState};
use crate::job_store::{EventPage, EventQuery};

pub(super) async fn all(store: &dyn JobStore) {
    the_life_of_a_job_is_told_once_and_in_order(store).await;
    builds_and_projects_have_streams_of_their_own(store).await;
    pages_are_bounded_and_go_on(store).await;
}

/// Where the stream is now.
pub(super) async fn now(store: &dyn JobStore) -> u64 {
    read(store, &EventQuery::after(u64::MAX)).await.last
}

pub(super) async fn read(store: &dyn JobStore, query: &EventQuery) -> EventPage {
    store.events(query).await.expect("it reads")
}

/// The events of a job, each as its name and what matters of it.
pub(super) async fn told(store: &dyn JobStore, query: &EventQuery) -> Vec<String> {
    let page = read(store, query).await;
    assert!(page.events.windows(2).all(|pair| pair[0].seq < pair[1].seq), "numbers grow");
    page.events.iter().map(summary).collect()
}

fn summary(event: &Event) -> String {
    match &event.kind {
        EventKind::JobState(state) => format!("{} {} {}", event.kind.name(), state.state, state.attempt),
        EventKind::JobAttempt(ended) => {
            format!("{} {} {}", event.kind.name(), ended.number, ended.outcome.name())
        }
        EventKind::JobStep(step) => {
            let state = match step.state {
                StepState::Running => "running",
                StepState::Success => "success",
                StepState::Failed => "failed",
            };
            format!("{} {} {state}", event.kind.name(), step.attempt)
        }
        EventKind::BuildState { state } => format!("{} {state}", event.kind.name()),
        kind => kind.name().to_owned(),
    }
}

async fn the_life_of_a_job_is_told_once_and_in_order(store: &dyn JobStore) {
    let lane = Lane::new();
    let begun = now(store).await;
    let (job, first) = lane.running(store).await;
    let of_job = EventQuery::after(begun).of_job(job);
    for _ in 0..2 {
        store.append(first, 0, &[step("make")]).await.expect("the owner tells");
    }
    for _ in 0..2 {
        store.release(first, &given_back(None, true), at(2)).await.expect("the owner gives it back");
    }
    let second = lane.claim_one(store, 3).await.fence;
    for _ in 0..2 {
        store.cancel(Selection::Job(job), at(4)).await.expect("it runs");
    }
    conflicts(store.finish(first, &succeeded(), at(5)).await, "it is somebody else's");
    for _ in 0..2 {
        store.finish(second, &Outcome::Cancelled, at(5)).await.expect("the owner ends it");
    }
    let expected = [
        "job.state pending 0",
        "job.state running 1",
        "job.step 1 running",
        "job.attempt 1 given_back",
        "job.state pending 1",
        "job.state running 2",
        "job.cancel_requested",
        "job.attempt 2 cancelled",
        "job.state cancelled 2",
    ];
    assert_eq!(told(store, &of_job).await, expected);
    let events = read(store, &of_job).await.events;
    assert!(events.iter().all(|event| event.job == Some(job) && event.version == crate::job::EVENT_VERSION));
    let times: Vec<Timestamp> = events.iter().map(|event| event.time).collect();
    assert_eq!((times[3], times[4], times[8]), (at(2), at(2), at(5)));
    let EventKind::JobAttempt(ended) = &events[3].kind else { panic!("{:?}", events[3]) };
    assert_eq!((ended.error.as_deref(), ended.counts), (Some("the daemon is gone"), true));
    assert!(ended.backend.is_some());
    assert!(events[8].is_end() && !events[4].is_end());
    // Whoever goes on behind an event sees the others.
    let rest = EventQuery { after: events[5].seq, ..of_job };
    assert_eq!(told(store, &rest).await, expected[6..]);
    // All changes are in the stream of the farm, where nothing is left out.
    let all = read(store, &EventQuery::after(begun)).await;
    let numbers: Vec<u64> = all.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (begun + 1..=all.last).collect::<Vec<_>>(), "there are no gaps");
    for event in &events {
        assert!(all.events.contains(event), "{event:?}");
    }
}

async fn builds_and_projects_have_streams_of_their_own(store: &dyn JobStore) {
    let lane = Lane::new();
    let begun = now(store).await;
    let build = BuildId::new(START);
    let project: Project = format!("build-{build}").parse().expect("the name is plain");
    let first = new_job("package: {}\n");
    let second = new_job("package: {}\n").waiting_for([first.id]);
    let ids = [first.id, second.id];
    let submission = Submission::new([first, second], START).as_build(build).in_project(project.clone());
    for _ in 0..2 {
        store.submit(&submission).await.expect("they are taken");
    }
    let other = lane.insert(store).await;
    store.cancel(Selection::Job(other), at(1)).await.expect("it waits");
    let mut offer = lane.offer(1);
    offer.group.project = project.clone();
    let claim = store.claim(&lane.request(vec![offer], 1)).await.expect("claiming works").remove(0);
    store.finish(claim.fence, &failed(), at(2)).await.expect("the owner ends it");
    let expected = [
        "job.state pending 0",
        "job.state blocked 0",
        "build.state pending",
        "job.state running 1",
        "build.state running",
        "job.attempt 1 failed",
        "job.state failed 1",
        "job.state skipped 0",
        "build.state failed",
    ];
    for query in
        [EventQuery::after(begun).of_build(build), EventQuery::after(begun).in_project(project.clone())]
    {
        let mut seen = Vec::new();
        let mut query = query;
        loop {
            let page = read(store, &query).await;
            seen.extend(page.events);
            if page.last == now(store).await {
                break;
            }
            query.after = page.last;
        }
        assert_eq!(seen.iter().map(summary).collect::<Vec<_>>(), expected);
        assert!(seen.iter().all(|event| event.build == Some(build) && event.project == project));
    }
    let skipped =
        read(store, &EventQuery::after(begun).of_job(ids[1])).await.events.pop().expect("it was told");
    let EventKind::JobState(state) = skipped.kind else { panic!("{skipped:?}") };
    assert_eq!(state.skipped_for, Some(ids[0]));
    assert!(state.error.is_some());
}

async fn pages_are_bounded_and_go_on(store: &dyn JobStore) {
    let lane = Lane::new();
    let begun = now(store).await;
    for _ in 0..5 {
        lane.insert(store).await;
    }
    let mut query = EventQuery { limit: 2, ..EventQuery::after(begun) };
    let mut sizes = Vec::new();
    loop {
        let page = read(store, &query).await;
        if page.events.is_empty() {
            assert_eq!(page.last, query.after);
            break;
        }
        assert_eq!(page.events.last().map(|event| event.seq), Some(page.last));
        assert!(page.oldest >= 1 && page.oldest <= begun + 1);
        sizes.push(page.events.len());
        query.after = page.last;
    }
    assert_eq!(sizes, [2, 2, 1]);
    let behind = read(store, &EventQuery::after(u64::MAX)).await;
    assert_eq!((behind.events.len(), behind.last), (0, query.after));
}
