//! Promises about what attempts tell.

use super::*;
use crate::analysis::lint::{Finding, LintDetails, LintSeverity, Linter, PackageLint};
use crate::job::{LogArchive, StepLines};

pub(super) async fn all(store: &dyn JobStore) {
    logs_grow_and_read_by_offset(store).await;
    archived_logs_are_forgotten(store).await;
    other_logs_stay(store).await;
    rows_are_numbered_and_repeats_skipped(store).await;
    attempts_are_kept(store).await;
}

/// A log reads from any offset, in bounded chunks, and lives on after the job.
async fn logs_grow_and_read_by_offset(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 0);
    for (part, len) in [("one\n", 4), ("", 4), ("two\n", 8)] {
        assert_eq!(append(store, fence, part).await.expect("the owner writes"), len);
    }
    for (offset, limit, expected) in
        [(0, 100, "one\ntwo\n"), (4, 2, "tw"), (8, 100, ""), (99, 100, ""), (u64::MAX, 1, "")]
    {
        let chunk = store.read_log(job, offset, limit).await.expect("it reads");
        assert_eq!((&chunk.bytes[..], chunk.len), (expected.as_bytes(), 8));
    }
    for (offset, part) in [(4, "two\n"), (0, "one\ntwo\n"), (8, "")] {
        let told = store.append_log(fence, offset, Bytes::from_static(part.as_bytes())).await;
        assert_eq!(told.expect("the owner may repeat himself"), 8);
    }
    let told = store.append_log(fence, 6, Bytes::from_static(b"o\nthree\n")).await;
    assert_eq!(told.expect("the owner writes"), 14);
    assert_eq!(&store.read_log(job, 4, 100).await.expect("it reads").bytes[..], b"two\nthree\n");
    let gap = store.append_log(fence, 15, Bytes::from_static(b"x")).await;
    assert_eq!(gap.expect_err("bytes are missing").kind(), ErrorKind::InvalidRequest);
    store.finish(fence, &succeeded(), at(1)).await.expect("the owner ends it");
    conflicts(append(store, fence, "late\n").await, "the job is finished");
    assert_eq!(store.read_log(job, 0, 100).await.expect("it reads").len, 14);
}

/// What is noted as archived is told with the attempt, and its bytes are forgotten; all others stay.
async fn archived_logs_are_forgotten(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, first) = lane.running(store).await;
    append(store, first, "one\n").await.expect("the owner writes");
    let mut archive = LogArchive::new(1, 4, 30);
    archive.steps = vec![StepLines::new(0, 1, 1)];
    let unarchived = async |seconds: u64| {
        let told = store.unarchived(at(seconds), limits::PAGE_ITEMS_MAX).await.expect("it reads");
        told.into_iter().filter(|(id, _)| *id == job).map(|(_, number)| number).collect::<Vec<_>>()
    };
    conflicts(store.archive_log(job, 1, &archive).await, "the attempt runs");
    let missing = store.archive_log(job, 2, &archive).await.expect_err("there is one");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(unarchived(9).await, [0; 0], "it runs");
    store.release(first, &given_back(None, true), at(2)).await.expect("the owner gives it back");
    assert_eq!(unarchived(1).await, [0; 0], "it ended later");
    assert_eq!(unarchived(2).await, [1]);
    let second = lane.claim_one(store, 3).await.fence;
    append(store, second, "two\n").await.expect("the owner writes");
    assert_eq!(unarchived(9).await, [1], "also while the next one runs");
    for _ in 0..2 {
        store.archive_log(job, 1, &archive).await.expect("it ended, and the call may be repeated");
        assert_eq!(store.attempt(job, 1).await.expect("it is there").log.as_ref(), Some(&archive));
        let gone = store.read_log(job, 0, 100).await.expect_err("it is forgotten");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let gone = store.read_log(job, 3, 100).await.expect_err("all of it");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let chunk = store.read_log(job, 4, 100).await.expect("the other is there");
        assert_eq!((&chunk.bytes[..], chunk.len), (&b"two\n"[..], 8), "places in the log stay");
    }
    append(store, second, "three\n").await.expect("the owner goes on");
    assert_eq!(store.attempt(job, 2).await.expect("it is there").log, None);
    store.finish(second, &succeeded(), at(4)).await.expect("the owner ends it");
    assert_eq!(unarchived(9).await, [2]);
    let other = LogArchive::new(7, 7, 7);
    store.archive_log(job, 1, &other).await.expect("it was archived");
    assert_eq!(store.attempt(job, 1).await.expect("it is there").log, Some(archive), "the first word counts");
    store.archive_log(job, 2, &other).await.expect("it ended");
    assert_eq!(store.attempts(job).await.expect("they are there")[1].log, Some(other));
    assert_eq!(store.read_log(job, 14, 100).await.expect("nothing is behind the end").len, 14);
    assert_eq!(unarchived(9).await, [0; 0]);
    let (_, silent) = lane.running(store).await;
    store.finish(silent, &succeeded(), at(6)).await.expect("the owner ends it");
    let told = store.unarchived(at(9), limits::PAGE_ITEMS_MAX).await.expect("it reads");
    assert!(!told.contains(&(silent.job, 1)), "it wrote nothing");
}

/// Of several logs that are left only the one is forgotten that was archived.
async fn other_logs_stay(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, second) = lane.running_again(store).await;
    store.finish(second, &succeeded(), at(3)).await.expect("the owner ends it");
    store.archive_log(job, 2, &LogArchive::new(1, 4, 9)).await.expect("it ended");
    assert_eq!(&store.read_log(job, 0, 100).await.expect("it is there").bytes[..], b"one\n");
    assert_eq!(store.attempt(job, 1).await.expect("it is there").log, None);
    let told = store.unarchived(at(9), limits::PAGE_ITEMS_MAX).await.expect("it reads");
    assert!(told.contains(&(job, 1)) && !told.contains(&(job, 2)), "{told:?}");
}

async fn rows_are_numbered_and_repeats_skipped(store: &dyn JobStore) {
    let lane = Lane::new();
    let (job, fence) = lane.running(store).await;
    let steps = async || {
        let attempt = store.attempt(job, 1).await.expect("it is there");
        attempt.steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>()
    };
    let version = get(store, job).await.version;
    assert_eq!(store.append(fence, 0, &[step("a"), step("b")]).await.expect("the owner tells"), 2);
    assert_eq!(store.append(fence, 0, &[step("a"), step("b")]).await.expect("he may repeat himself"), 2);
    assert_eq!(store.append(fence, 1, &[step("b"), step("c")]).await.expect("also in part"), 3);
    assert_eq!(store.append(fence, 3, &[]).await.expect("nothing is no mistake"), 3);
    assert_eq!(steps().await, ["a", "b", "c"]);
    let gap = store.append(fence, 4, &[step("e")]).await.expect_err("a row is missing");
    assert_eq!(gap.kind(), ErrorKind::InvalidRequest);
    assert_eq!(steps().await, ["a", "b", "c"]);
    assert_eq!(get(store, job).await.version, version, "what attempts tell is not the job's");
    let many = vec![step("x"); limits::PROGRESS_ROWS_MAX + 1];
    let refused = store.append(fence, 3, &many).await.expect_err("too many rows");
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    store.release(fence, &given_back(None, true), at(2)).await.expect("the owner gives it back");
    let second = lane.claim_one(store, 2).await.fence;
    assert_eq!(store.append(second, 0, &[step("z")]).await.expect("each attempt counts from 0"), 1);
    store.finish(second, &succeeded(), at(3)).await.expect("the owner ends it");
    conflicts(store.append(second, 1, &[step("late")]).await, "the job is finished");
    assert_eq!(steps().await, ["a", "b", "c"]);
}

/// What linters found in a package: a finding with details, and some without.
fn linted(package: &str, plain: usize) -> Progress {
    let details = LintDetails::Paths { paths: vec!["dev/ü\u{1b}".to_owned()] };
    let mut found = vec![Finding::new(Linter::Dev, LintSeverity::Required, "x").with_details(details)];
    found[0].omitted = 3;
    found.extend((0..plain).map(|_| Finding::new(Linter::Empty, LintSeverity::Warning, "y")));
    Progress::Linted { report: PackageLint::new(package, "1-r0", found) }
}

/// Rows that leave traces in every field of an attempt.
fn rows() -> Vec<ProgressRow> {
    let phase = |name: &str, took_ms| JobPhase { name: name.to_owned(), took_ms };
    let failure = || JobStepFailure {
        step: "make".to_owned(),
        exit_code: 2,
        tail: vec!["a".to_owned(), "ü\u{1b}".to_owned()],
    };
    let ended = |index, error: Option<&str>| Progress::TestFinished {
        index,
        took_ms: 3,
        error: error.map(str::to_owned),
        step: error.map(|_| failure()),
        lines: 7,
    };
    let test = |index, package: &str| Progress::TestStarted { index, package: package.to_owned(), lines: 5 };
    let rows = [
        Progress::PhaseFinished { phase: phase("compile", 1) },
        Progress::PhaseFinished { phase: phase("steps", 2) },
        Progress::StepStarted { index: 0, name: "fetch".to_owned() },
        Progress::StepFinished { index: 0, took_ms: 12, cached: true },
        Progress::StepStarted { index: 1, name: "make".to_owned() },
        test(0, "a"),
        ended(0, None),
        test(1, "a-doc"),
        ended(1, Some("no such file")),
        Progress::StepFailed { exit_code: 2 },
        linted("a", 1),
        linted("a-doc", 2),
    ];
    rows.into_iter().map(row).collect()
}

/// An attempt beside its twin, which the rows are applied to.
pub(super) async fn tell_everything(store: &dyn JobStore, claim: &Claim) -> JobAttempt {
    let rows = rows();
    store.append(claim.fence, 0, &rows).await.expect("the owner tells");
    append(store, claim.fence, "one\n").await.expect("the owner writes");
    let job = &claim.job;
    let started_at = job.started_at.expect("it began");
    let mut twin = JobAttempt::begin(job.attempt, job.server.clone(), job.backend.clone(), started_at);
    twin.log_begin = claim.log_bytes;
    rows.into_iter().for_each(|row| twin.apply(row));
    let now = store.attempt(job.id, job.attempt).await.expect("it is there");
    assert_eq!(now, twin);
    twin
}

/// An attempt is kept with all that it showed, whatever follows.
async fn attempts_are_kept(store: &dyn JobStore) {
    let lane = Lane::new();
    let id = lane.insert(store).await;
    assert_eq!(store.attempts(id).await.expect("it is there"), []);
    assert_eq!(store.attempt(id, 1).await.expect_err("none began").kind(), ErrorKind::NotFound);
    let mut twins = Vec::new();
    let back = given_back(None, false);
    let broken = JobError {
        step: Some(JobStepFailure { step: "make".to_owned(), exit_code: 1, tail: vec!["no".to_owned()] }),
        ..JobError::new(FailureClass::Build, "make failed")
    };
    let untold = |error: &JobError| Some(JobError { failure: None, ..error.clone() });
    for number in 0..4 {
        let claim = lane.claim_one(store, number * 10).await;
        assert_eq!(claim.log_bytes, number * 4);
        let mut twin = tell_everything(store, &claim).await;
        let ended = number * 10 + 5;
        (twin.ended_at, twin.log_end) = (Some(at(ended)), Some(claim.log_bytes + 4));
        match number {
            0 => {
                let job =
                    store.release(claim.fence, &back, at(ended)).await.expect("the owner gives it back");
                assert_eq!(job.error, untold(&back.error), "what an attempt failed of is not the job's");
                store.release(claim.fence, &back, at(ended)).await.expect("it may be repeated");
                (twin.outcome, twin.counts) = (AttemptOutcome::GivenBack, false);
                (twin.error, twin.failure) = (job.error.clone(), back.error.failure.as_deref().cloned());
            }
            1 => {
                let outcome = Outcome::Failed { error: broken.clone().with_failure(failure()) };
                store.finish(claim.fence, &outcome, at(ended)).await.expect("the owner ends it");
                store.finish(claim.fence, &outcome, at(ended)).await.expect("it may be repeated");
                assert_eq!(get(store, id).await.error.as_ref(), Some(&broken), "it is not the job's");
                store.retry(Selection::Job(id), at(ended)).await.expect("it failed");
                (twin.outcome, twin.error) = (AttemptOutcome::Failed, Some(broken.clone()));
                twin.failure = Some(failure());
            }
            2 => {
                let settled = expire(store, 30).await;
                let error = settled.iter().find(|job| job.id == id).and_then(|job| job.error.clone());
                (twin.outcome, twin.error, twin.ended_at) = (AttemptOutcome::Lost, error, Some(at(30)));
                twin.failure = store.attempt(id, 3).await.expect("it is there").failure;
                let text = twin.failure.as_ref().and_then(|failure| failure.text.as_deref());
                assert!(text.is_some_and(|text| !text.is_empty()), "the store tells what it failed of");
            }
            _ => {
                store.finish(claim.fence, &succeeded(), at(ended)).await.expect("the owner ends it");
                twin.outcome = AttemptOutcome::Success;
            }
        }
        twins.push(twin);
        assert_eq!(store.attempts(id).await.expect("they are there"), twins, "oldest first, all of them");
    }
    for twin in &twins {
        assert_eq!(store.attempt(id, twin.number).await.expect("it is there"), *twin);
    }
    assert_eq!(store.attempt(id, 5).await.expect_err("there are four").kind(), ErrorKind::NotFound);
}
