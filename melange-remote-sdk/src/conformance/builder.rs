//! The promises of [`Builder`].

use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::arch::Arch;
use crate::builder::{BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder};
use crate::limits;

/// Builders and inputs for them; the three builders may be one.
#[derive(Debug)]
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
    /// Writes a line, then runs until it is cancelled.
    pub long: BuildInput,
}

/// An input for the host's architecture.
pub fn input(config_yaml: &str) -> BuildInput {
    BuildInput {
        attempt: "conformance".to_owned(),
        config_name: "conformance.yaml".to_owned(),
        backend_addr: "sandbox://local".to_owned(),
        ..BuildInput::new(config_yaml, Arch::host().unwrap_or(Arch::X86_64))
    }
}

/// Keeps events and wakes whoever waits for the first one.
#[derive(Debug, Default)]
struct Recorder {
    events: Mutex<Vec<BuildEvent>>,
    first: tokio::sync::Notify,
}

impl Recorder {
    fn events(&self) -> Vec<BuildEvent> {
        self.events.lock().expect("no emitter panicked").clone()
    }
}

#[async_trait::async_trait]
impl BuildSink for Recorder {
    fn emit(&self, event: BuildEvent) {
        self.events.lock().expect("no emitter panicked").push(event);
        self.first.notify_one();
    }

    async fn ready(&self) {}
}

/// Every promise.
pub async fn all(case: &Case) {
    a_success_has_files_as_described(case).await;
    a_failure_is_an_outcome(case).await;
    a_cancelled_token_stops_a_build(case).await;
    a_token_cancelled_before_stops_it_too(case).await;
    the_same_input_builds_twice_at_once(case).await;
}

fn check_files(outcome: &BuildOutcome) {
    assert_eq!(outcome.status, BuildStatus::Succeeded);
    assert!(!outcome.files.is_empty(), "a success has files");
    for file in &outcome.files {
        let content = std::fs::read(&file.path).expect("the file is there while the outcome lives");
        assert_eq!(u64::try_from(content.len()).expect("it fits"), file.size_bytes, "{}", file.name);
        assert_eq!(hex::encode(Sha256::digest(&content)), file.sha256, "{}", file.name);
    }
}

/// Files have the told sizes and checksums, and events come before the call returns.
pub async fn a_success_has_files_as_described(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let cancel = CancellationToken::new();
    let outcome = case.succeeds.build(&case.succeeding, Arc::clone(&sink) as _, cancel).await;
    let before = sink.events();
    check_files(&outcome.expect("the build can be tried"));
    assert!(before.iter().any(|event| matches!(event, BuildEvent::Log { .. })), "a line was written");
    tokio::task::yield_now().await;
    assert_eq!(sink.events(), before, "no event comes after the call returned");
}

/// A definition or script at fault is no error.
pub async fn a_failure_is_an_outcome(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let outcome = case.fails.build(&case.failing, sink, CancellationToken::new()).await;
    let outcome = outcome.expect("a failing build can be tried");
    assert!(matches!(outcome.status, BuildStatus::Failed { .. }), "{:?}", outcome.status);
    assert!(outcome.files.is_empty(), "a failure has no files");
}

/// A running build stops within [`limits::CANCEL_GRACE`].
pub async fn a_cancelled_token_stops_a_build(case: &Case) {
    let sink = Arc::new(Recorder::default());
    let cancel = CancellationToken::new();
    let build = case.runs_long.build(&case.long, Arc::clone(&sink) as _, cancel.clone());
    let stop = async {
        sink.first.notified().await;
        cancel.cancel();
    };
    let both = async { tokio::join!(build, stop).0 };
    let outcome = tokio::time::timeout(limits::CANCEL_GRACE * 2, both).await;
    let outcome = outcome.expect("the build stops in time").expect("stopping is no error");
    assert_eq!(outcome.status, BuildStatus::Cancelled);
}

/// A build whose token was cancelled before it began does not begin.
pub async fn a_token_cancelled_before_stops_it_too(case: &Case) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let build = case.runs_long.build(&case.long, Arc::new(Recorder::default()), cancel);
    let outcome = tokio::time::timeout(limits::CANCEL_GRACE, build).await;
    let outcome = outcome.expect("the build stops in time").expect("stopping is no error");
    assert_eq!(outcome.status, BuildStatus::Cancelled);
}

/// At least once: two builds of one input do not disturb each other.
pub async fn the_same_input_builds_twice_at_once(case: &Case) {
    let build = || {
        let sink = Arc::new(Recorder::default());
        case.succeeds.build(&case.succeeding, sink, CancellationToken::new())
    };
    let (first, second) = tokio::join!(build(), build());
    check_files(&first.expect("the first build can be tried"));
    check_files(&second.expect("the second build can be tried"));
}
