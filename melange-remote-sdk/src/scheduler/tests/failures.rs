//! What attempts failed of: told once, when they end, and kept with them.

use super::*;
use crate::builder::{LogStream, TestReport, TestStatus};
use crate::failure::{Failure, FailureKind};

fn begin(index: usize, name: &str) -> Act {
    Act::Emit(BuildEvent::StepStarted { index, total: 3, name: name.to_owned() })
}

fn end(index: usize) -> Act {
    Act::Emit(BuildEvent::StepFinished { index, took: Duration::ZERO, cached: false })
}

fn line(step: usize, line: impl Into<String>) -> Act {
    Act::Emit(BuildEvent::Log { stream: LogStream::Stderr, step: Some(step), line: line.into() })
}

/// The end of a build with a step that failed.
fn fail(failure: StepFailure) -> Act {
    let reason = format!("the step `{}` failed with exit code {}", failure.step, failure.exit_code);
    Act::Finish(BuildStatus::Failed { reason, failure: Some(failure) })
}

fn overdue(limit: BuildLimit) -> Act {
    Act::Finish(BuildStatus::LimitExceeded { reason: "it took longer than 7200 s".to_owned(), limit })
}

impl Farm {
    async fn failure(&self, id: JobId) -> Failure {
        self.end(id).await;
        self.attempt(id).await.failure.unwrap()
    }

    /// The line of the log of the last attempt with a number.
    async fn line(&self, id: JobId, number: u64) -> String {
        let log = self.log(id).await;
        log.lines().nth(usize::try_from(number).unwrap() - 1).unwrap().to_owned()
    }
}

/// What a single script failed of, with the job and its farm.
async fn failed(script: Vec<Act>) -> (Farm, JobId, Failure) {
    let farm = Farm::start(ScriptedBuilder::new(script));
    let id = farm.submit().await;
    let failure = farm.failure(id).await;
    (farm, id, failure)
}

#[tokio::test(start_paused = true)]
async fn the_error_is_found_among_the_last_lines_of_the_step_that_failed() {
    let mut script =
        vec![begin(0, "a: fetch"), line(0, "error: of another step"), end(0), begin(1, "a: autoconf/make")];
    script.extend((1..=5_000).map(|number| match number {
        20 => line(1, "error: too long ago"),
        4_950 => line(1, "\u{1b}[31msrc/a.c:1:2: error: unknown type name 'u8'\u{1b}[m"),
        _ => line(1, format!("cc -c {number}.c")),
    }));
    script.push(fail(StepFailure::new("a: autoconf/make", 2)));
    let (farm, id, failure) = failed(script).await;
    let text = "src/a.c:1:2: error: unknown type name 'u8'";
    assert_eq!((failure.kind, failure.text.as_deref()), (FailureKind::Compile, Some(text)));
    // Before it: the line of the attempt, two of steps that began, one of the other step.
    assert_eq!(failure.line, Some(4_954));
    assert!(farm.line(id, 4_954).await.contains(text), "the number is that of the log");
    let told: Vec<(u64, &str)> =
        failure.extract.iter().map(|line| (line.number, line.text.as_str())).collect();
    assert_eq!(told.first(), Some(&(4_952, "cc -c 4948.c")));
    assert_eq!(told.last(), Some(&(4_957, "cc -c 4953.c")));
    let job = farm.parts.job_store.get(id).await.unwrap();
    assert_eq!(job.error.as_ref().unwrap().failure, None, "it is the attempt's");
    farm.stop().await;
}

/// Numbers are those of the log, also when what is beyond its bound waits on the disk for the end.
#[tokio::test(start_paused = true)]
async fn numbers_hold_in_a_log_beyond_its_bound() {
    let mut script = vec![begin(0, "a: make")];
    script.extend((1..=5_000).map(|number| match number {
        4_950 => line(0, "error: no"),
        _ => line(0, format!("{number:0100}")),
    }));
    script.push(fail(StepFailure::new("a: make", 2)));
    let builder = ScriptedBuilder::new(script);
    let parts = parts(&builder, 4);
    let options = SchedulerOptions { log_bytes: 100_000, ..SchedulerOptions::default() };
    let farm = Farm::start_as(builder, parts, options);
    let id = farm.submit().await;
    let failure = farm.failure(id).await;
    let number = failure.line.unwrap();
    assert!(number < 4_000, "most of the log is not kept: {number}");
    assert_eq!(farm.line(id, number).await, "error: no");
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn causes_that_are_known_need_no_words() {
    let before =
        |last: Act| vec![begin(0, "a: make"), line(0, "cc a.c"), line(0, "error: of no matter"), last];
    let starved = StepFailure { out_of_memory: true, ..StepFailure::new("a: make", 137) };
    for (last, kind, normalised) in [
        (fail(StepFailure::new("a: make", 137)), FailureKind::Signal, "ended by signal 9"),
        (fail(starved), FailureKind::Memory, "out of memory"),
        (overdue(BuildLimit::Time), FailureKind::Timeout, "took too long"),
        (overdue(BuildLimit::Silence), FailureKind::Timeout, "silent for too long"),
    ] {
        let (farm, _, failure) = failed(before(last)).await;
        assert_eq!((failure.kind, failure.normalised.as_str()), (kind, normalised));
        assert_eq!((failure.line, failure.extract.len()), (Some(4), 2), "the last that the step said");
        farm.stop().await;
    }
    // Between steps no step is at fault, and none of their lines tells why.
    let script = vec![begin(0, "a: make"), line(0, "cc a.c"), end(0), overdue(BuildLimit::Time)];
    let (farm, _, failure) = failed(script).await;
    assert_eq!((failure.kind, failure.line), (FailureKind::Timeout, None));
    assert_eq!(failure.text.as_deref(), Some("it took longer than 7200 s"));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_backend_is_one_whatever_it_did() {
    let gone = |why: &str| Act::FailBy(crate::error::Blame::Backend, ErrorKind::Unavailable, why.to_owned());
    let first = vec![begin(0, "a: make"), line(0, "cc a.c"), gone("the connection to tcp://a:1 broke")];
    let second = vec![begin(0, "a: test"), gone("no answer for 45 s")];
    let farm = Farm::start(ScriptedBuilder::sequence(vec![first, second], []));
    let id = farm.submit().await;
    assert_eq!(farm.end(id).await.state, JobState::Success);
    let attempts = farm.parts.job_store.attempts(id).await.unwrap();
    let told: Vec<&Failure> = attempts.iter().filter_map(|attempt| attempt.failure.as_ref()).collect();
    assert_eq!(told.iter().map(|failure| failure.kind).collect::<Vec<_>>(), [FailureKind::LostBackend; 2]);
    assert_eq!(told[0].signature, told[1].signature);
    assert_eq!((told[0].line, told[1].line), (Some(3), None), "a line of the step, or the message");
    assert_eq!(attempts.last().unwrap().failure, None, "the last one succeeded");
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn equal_errors_of_different_packages_have_one_signature() {
    let script = |package: &str| {
        let (make, text) = (format!("{package}-doc: make"), format!("{package}.c:7:1: error: no 'u8'"));
        vec![begin(0, &make), line(0, text), fail(StepFailure::new(make, 2))]
    };
    let farm = Farm::start(ScriptedBuilder::sequence(vec![script("ed"), script("bc")], []));
    let mut told = Vec::new();
    for package in ["ed", "bc"] {
        let id = farm.hand_in(new_job_of(package)).await;
        told.push(farm.failure(id).await);
    }
    assert_eq!(told[0].signature, told[1].signature);
    assert_ne!(told[0].text, told[1].text);
    farm.stop().await;
}

/// All tests run, and the build fails of the first that failed.
#[tokio::test(start_paused = true)]
async fn the_first_test_that_failed_is_shown_though_others_ran_behind_it() {
    let test = |index| Act::Emit(BuildEvent::TestStarted { index, total: 2, subject: format!("t{index}") });
    let tested = |index, status| {
        let report = TestReport::new(format!("t{index}"), status, Duration::ZERO);
        Act::Emit(BuildEvent::TestFinished { index, report })
    };
    let broken =
        |step: &str| TestStatus::Failed { reason: "no".to_owned(), failure: Some(StepFailure::new(step, 1)) };
    let (first, second) = ("test t0: run", "test t1: run");
    let script = vec![
        test(0),
        begin(0, first),
        line(0, "FAIL: first"),
        tested(0, broken(first)),
        test(1),
        begin(1, second),
        line(1, "FAIL: second"),
        tested(1, broken(second)),
        fail(StepFailure::new(first, 1)),
    ];
    let (farm, _, failure) = failed(script).await;
    assert_eq!((failure.kind, failure.text.as_deref()), (FailureKind::Test, Some("FAIL: first")));
    farm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_is_why_and_not_what_came_of_it() {
    let farm = Farm::start(ScriptedBuilder::new([begin(0, "a: make"), Act::Wait(Arc::new(Notify::new()))]));
    let id = farm.submit().await;
    farm.wait(id, |job| job.backend.is_some()).await;
    let job_store = Arc::clone(&farm.parts.job_store);
    farm.stop().await;
    let attempt = job_store.attempts(id).await.unwrap().pop().unwrap();
    let text = attempt.failure.unwrap().text;
    assert_eq!(text.as_deref(), Some("the server stopped while the job ran"));
}
