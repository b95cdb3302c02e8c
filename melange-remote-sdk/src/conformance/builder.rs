//! The promises of [`Builder`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::arch::Arch;
use crate::artifact_storage::ArtifactKey;
use crate::builder::{BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, LogStream};
use crate::limits;

/// Builders and inputs for them; the three builders may be one.
#[non_exhaustive]
pub struct Case {
    /// Builds [`Self::succeeding`].
    pub succeeds: Arc<dyn Builder>,
    /// Builds [`Self::failing`].
    pub fails: Arc<dyn Builder>,
    /// Builds [`Self::long`].
    pub runs_long: Arc<dyn Builder>,
    /// Makes at least one file and writes at least one line.
    pub succeeding: BuildInput,
    /// Fails by its own fault.
    pub failing: BuildInput,
    /// A step of it writes a line, then runs until it is stopped.
    pub long: BuildInput,
    /// How much of [`Self::long`] runs at this moment, as somebody sees it who does not ask the builder: processes of
    /// its step, for one. 0 when nothing runs.
    pub running: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Case {
    /// One builder for all three inputs; `running` tells how much of the long one runs.
    pub fn new(
        builder: &Arc<dyn Builder>,
        [succeeding, failing, long]: [BuildInput; 3],
        running: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        let [succeeds, fails, runs_long] = [(); 3].map(|()| Arc::clone(builder));
        Self { succeeds, fails, runs_long, succeeding, failing, long, running: Box::new(running) }
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("succeeds", &self.succeeds).finish_non_exhaustive()
    }
}

impl Case {
    /// Waits until at least so much runs: a step may tell its line before what it has started is to be seen.
    async fn run(&self, count: usize) {
        let seen = async {
            while (self.running)() < count {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("what runs is to be seen");
    }
}

/// How long a build may take to come to its first step: its environment is downloaded and unpacked.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing may come after the end of a build.
const SILENCE: Duration = Duration::from_millis(200);
/// The pause between two looks at what runs.
const LOOK: Duration = Duration::from_millis(20);

/// An input for the host's architecture.
pub fn input(config_yaml: &str) -> BuildInput {
    BuildInput {
        attempt: "conformance".to_owned(),
        config_name: "conformance.yaml".to_owned(),
        backend_addr: "sandbox://local".to_owned(),
        ..BuildInput::new(config_yaml, Arch::host().unwrap_or(Arch::X86_64))
    }
}

/// Keeps events and tells whoever waits of them.
#[derive(Debug, Default)]
struct Recorder {
    events: watch::Sender<Vec<BuildEvent>>,
}

impl Recorder {
    fn events(&self) -> Vec<BuildEvent> {
        self.events.borrow().clone()
    }

    /// Waits until a step runs: it has written a line. Lines of the builder itself do not count.
    async fn step_runs(&self) {
        let line = |event: &BuildEvent| {
            matches!(
                event,
                BuildEvent::Log { stream: LogStream::Stdout | LogStream::Stderr, step: Some(_), .. }
            )
        };
        let mut events = self.events.subscribe();
        let seen = events.wait_for(|events| events.iter().any(line));
        let seen = tokio::time::timeout(PATIENCE, seen).await.expect("a step writes a line in time");
        seen.expect("the recorder lives");
    }

    /// No event comes after the build returned, at once or later.
    async fn is_closed(&self, told: &[BuildEvent]) {
        let mut events = self.events.subscribe();
        let more = events.wait_for(|events| events.len() != told.len());
        let more = tokio::time::timeout(SILENCE, more).await;
        assert!(more.is_err(), "no event comes after the call returned: {:?}", self.events().last());
    }
}

#[async_trait::async_trait]
impl BuildSink for Recorder {
    fn emit(&self, event: BuildEvent) {
        self.events.send_modify(|events| events.push(event));
    }

    async fn ready(&self) {}
}

/// Every promise.
pub async fn all(case: &Case) {
    a_success_has_files_as_described(case).await;
    a_failure_is_an_outcome(case).await;
    a_cancelled_token_stops_a_running_step(case).await;
    a_token_cancelled_before_stops_it_too(case).await;
    a_dropped_build_stops(case).await;
    the_same_input_builds_twice_at_once(case).await;
    two_builds_run_at_the_same_time(case).await;
}

fn check_files(outcome: &BuildOutcome) {
    assert_eq!(outcome.status, BuildStatus::Succeeded);
    assert!(!outcome.files.is_empty(), "a success has files");
    let mut names = BTreeSet::new();
    for file in &outcome.files {
        let content = std::fs::read(&file.path).expect("the file is there while the outcome lives");
        assert_eq!(u64::try_from(content.len()).expect("it fits"), file.size_bytes, "{}", file.name);
        assert_eq!(hex::encode(Sha256::digest(&content)), file.sha256, "{}", file.name);
        assert!(names.insert(&file.name), "{} is there twice", file.name);
        let key = file.name.parse::<ArtifactKey>();
        assert!(key.is_ok(), "{} is no name relative to the job", file.name);
    }
}

fn check_stopped(case: &Case, outcome: &BuildOutcome) {
    assert_eq!(outcome.status, BuildStatus::Cancelled);
    assert!(outcome.files.is_empty(), "what was cancelled has no files");
    assert_eq!((case.running)(), 0, "nothing of it runs once the call returned");
}

/// Files have the told sizes and checksums, and events come before the call returns.
pub async fn a_success_has_files_as_described(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let cancel = CancellationToken::new();
    let outcome = case.succeeds.build(&case.succeeding, Arc::clone(&sink) as _, cancel).await;
    let before = sink.events();
    check_files(&outcome.expect("the build can be tried"));
    assert!(before.iter().any(|event| matches!(event, BuildEvent::Log { .. })), "a line was written");
    sink.is_closed(&before).await;
}

/// A definition or script at fault is no error.
pub async fn a_failure_is_an_outcome(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let outcome = case.fails.build(&case.failing, Arc::clone(&sink) as _, CancellationToken::new()).await;
    let before = sink.events();
    let outcome = outcome.expect("a failing build can be tried");
    assert!(matches!(outcome.status, BuildStatus::Failed { .. }), "{:?}", outcome.status);
    assert!(outcome.files.is_empty(), "a failure has no files");
    sink.is_closed(&before).await;
}

/// A build stops within [`limits::CANCEL_GRACE`] while a step runs, and then nothing of it runs.
pub async fn a_cancelled_token_stops_a_running_step(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let cancel = CancellationToken::new();
    let build = case.runs_long.build(&case.long, Arc::clone(&sink) as _, cancel.clone());
    let stop = async {
        sink.step_runs().await;
        case.run(1).await;
        cancel.cancel();
        tokio::time::sleep(limits::CANCEL_GRACE).await;
        panic!("the build did not stop in time");
    };
    let outcome = tokio::select! {
        outcome = build => outcome.expect("stopping is no error"),
        never = stop => never,
    };
    let before = sink.events();
    check_stopped(case, &outcome);
    sink.is_closed(&before).await;
}

/// A build whose token was cancelled before it began does not begin.
pub async fn a_token_cancelled_before_stops_it_too(case: &Case) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let sink = Arc::new(Recorder::default());
    let build = case.runs_long.build(&case.long, Arc::clone(&sink) as _, cancel);
    let outcome = tokio::time::timeout(limits::CANCEL_GRACE, build).await;
    let outcome = outcome.expect("the build stops in time").expect("stopping is no error");
    let before = sink.events();
    check_stopped(case, &outcome);
    let begun = before.iter().any(|event| matches!(event, BuildEvent::StepStarted { .. }));
    assert!(!begun, "no step begins");
    sink.is_closed(&before).await;
}

/// A build whose future is dropped while a step runs stops within [`limits::CANCEL_GRACE`].
pub async fn a_dropped_build_stops(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let build = case.runs_long.build(&case.long, Arc::clone(&sink) as _, CancellationToken::new());
    let begun = async {
        sink.step_runs().await;
        case.run(1).await;
    };
    tokio::select! {
        outcome = build => panic!("it runs until it is stopped: {outcome:?}"),
        () = begun => {}
    }
    let gone = async {
        while (case.running)() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(limits::CANCEL_GRACE, gone).await.expect("a dropped build stops in time");
    let before = sink.events();
    sink.is_closed(&before).await;
}

/// At least once: two builds of one input do not disturb each other, nor does the end of one outcome take the files of
/// the other.
pub async fn the_same_input_builds_twice_at_once(case: &Case) {
    let build = || {
        let sink = Arc::new(Recorder::default());
        case.succeeds.build(&case.succeeding, sink, CancellationToken::new())
    };
    let (first, second) = tokio::join!(build(), build());
    let (first, second) = (first.expect("the first can be tried"), second.expect("the second can be tried"));
    check_files(&first);
    check_files(&second);
    drop(first);
    check_files(&second);
}

/// Two builds run at the same time: each comes to its step while the other's runs. Cancelling one leaves the other.
pub async fn two_builds_run_at_the_same_time(case: &Case) {
    let sinks = [Arc::new(Recorder::default()), Arc::new(Recorder::default())];
    let cancel = [CancellationToken::new(), CancellationToken::new()];
    let build = |at: usize| case.runs_long.build(&case.long, Arc::clone(&sinks[at]) as _, cancel[at].clone());
    let (mut one, mut two) = (build(0), build(1));
    let both = async {
        tokio::join!(sinks[0].step_runs(), sinks[1].step_runs());
        case.run(2).await;
    };
    tokio::select! {
        outcome = &mut one => panic!("it runs until it is stopped: {outcome:?}"),
        outcome = &mut two => panic!("it runs until it is stopped: {outcome:?}"),
        () = both => {}
    }
    let before = (case.running)();
    cancel[0].cancel();
    let first = tokio::select! {
        outcome = &mut two => panic!("the other was not cancelled: {outcome:?}"),
        outcome = tokio::time::timeout(limits::CANCEL_GRACE, &mut one) => outcome,
    };
    let first = first.expect("it stops in time").expect("stopping is no error");
    assert_eq!(first.status, BuildStatus::Cancelled);
    let left = (case.running)();
    assert!(0 < left && left < before, "of two builds one runs on: {before} before, {left} after");
    cancel[1].cancel();
    let second = tokio::time::timeout(limits::CANCEL_GRACE, two).await;
    check_stopped(case, &second.expect("it stops in time").expect("stopping is no error"));
}
