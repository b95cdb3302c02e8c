//! Builders with one mistake each. They run nothing, and count what would run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::Verdict;
use crate::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, BuiltFile, LogStream,
};
use crate::conformance::builder::{Case, all, input};
use crate::error::{Error, ErrorKind, Result};

/// The mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    DeafWhileAStepRuns,
    StopsLate,
    StopsInItsOwnTime,
    LeavesAChild,
    DropLeavesTheStep,
    DropLeavesTheStepEmitting,
    CancelledBeforeBegins,
    CancelIsAnError,
    CancelIsAFailure,
    CancelKeepsFiles,
    CancelStopsAll,
    FailureIsAnError,
    FailureKeepsFiles,
    FailureIsASuccess,
    EmitsAfterTheEnd,
    EmitsLongAfterTheEnd,
    EmitsAfterCancel,
    NeverTwoAtOnce,
    OneScratchForAll,
    ScratchGoesFirst,
    WrongSize,
    WrongChecksum,
    NoFiles,
    NameTwice,
    NameLeaves,
    TellsNoLine,
}

const BUGS: [(&str, Bug); 26] = [
    ("a running step ignores the cancellation", Bug::DeafWhileAStepRuns),
    ("a cancelled build stops too late", Bug::StopsLate),
    ("a cancelled build returns before its step ended", Bug::StopsInItsOwnTime),
    ("a cancelled build leaves a process", Bug::LeavesAChild),
    ("a dropped build runs on", Bug::DropLeavesTheStep),
    ("a dropped build goes on telling", Bug::DropLeavesTheStepEmitting),
    ("a build that was cancelled before begins", Bug::CancelledBeforeBegins),
    ("a cancellation is an error", Bug::CancelIsAnError),
    ("a cancellation is a failure", Bug::CancelIsAFailure),
    ("a cancelled build has files", Bug::CancelKeepsFiles),
    ("a cancellation stops every build", Bug::CancelStopsAll),
    ("a failure is an error", Bug::FailureIsAnError),
    ("a failure has files", Bug::FailureKeepsFiles),
    ("a failure is a success", Bug::FailureIsASuccess),
    ("an event comes after the end", Bug::EmitsAfterTheEnd),
    ("an event comes long after the end", Bug::EmitsLongAfterTheEnd),
    ("an event comes after a cancelled build returned", Bug::EmitsAfterCancel),
    ("two builds never overlap", Bug::NeverTwoAtOnce),
    ("all builds write to one folder", Bug::OneScratchForAll),
    ("the files are gone when the call returns", Bug::ScratchGoesFirst),
    ("a file has another size", Bug::WrongSize),
    ("a file has another checksum", Bug::WrongChecksum),
    ("a success has no files", Bug::NoFiles),
    ("two files have one name", Bug::NameTwice),
    ("the name of a file leaves the job", Bug::NameLeaves),
    ("no line is told", Bug::TellsNoLine),
];

/// Tries the suite on the sound builder, then on every mutant. Time should be paused.
pub async fn run() -> Verdict {
    all(&case(Bug::None)).await;
    let mut verdict = Verdict::new("Builder");
    for (name, bug) in BUGS {
        verdict.try_on(name, all(&case(bug))).await;
    }
    verdict
}

const FAILING: &str = "fails";
const LONG: &str = "runs long";

fn case(bug: Bug) -> Case {
    let mutant = Arc::new(Mutant {
        bug,
        running: Arc::default(),
        turn: tokio::sync::Mutex::new(()),
        stop: CancellationToken::new(),
        first: AtomicBool::new(true),
        folder: tempfile::tempdir().expect("a folder can be made"),
        builds: AtomicUsize::new(0),
    });
    let running = Arc::clone(&mutant.running);
    Case {
        succeeds: Arc::clone(&mutant) as _,
        fails: Arc::clone(&mutant) as _,
        runs_long: mutant,
        succeeding: input("succeeds"),
        failing: input(FAILING),
        long: input(LONG),
        running: Box::new(move || running.load(Ordering::Relaxed)),
    }
}

#[derive(Debug)]
struct Mutant {
    bug: Bug,
    running: Arc<AtomicUsize>,
    turn: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    first: AtomicBool,
    /// The folder that all builds share, where that is the mistake.
    folder: tempfile::TempDir,
    builds: AtomicUsize,
}

/// What runs as long as this lives.
struct Process(Arc<AtomicUsize>);

impl Process {
    fn start(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(running))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn line(text: &str) -> BuildEvent {
    BuildEvent::Log { stream: LogStream::Stdout, step: Some(0), line: text.to_owned() }
}

impl Mutant {
    fn files(&self) -> Result<BuildOutcome> {
        let made = tempfile::tempdir().map_err(|source| Error::unexpected("no folder").source(source))?;
        let folder = match self.bug {
            Bug::OneScratchForAll => self.folder.path(),
            _ => made.path(),
        };
        // Packages of two builds may differ, by a time for one.
        let content = format!("package {:03}", self.builds.fetch_add(1, Ordering::Relaxed));
        let path = folder.join("a.apk");
        std::fs::write(&path, &content).map_err(|source| Error::io("write", &path, source))?;
        let mut file = BuiltFile {
            in_memory: None,
            name: "x86_64/a.apk".to_owned(),
            path,
            size_bytes: 11,
            sha256: hex::encode(Sha256::digest(content)),
        };
        match self.bug {
            Bug::WrongSize => file.size_bytes = 12,
            Bug::WrongChecksum => file.sha256 = "0".repeat(64),
            Bug::NameLeaves => file.name = "../a.apk".to_owned(),
            _ => {}
        }
        let mut outcome = BuildOutcome::without_files(BuildStatus::Succeeded);
        outcome.files = match self.bug {
            Bug::NoFiles => Vec::new(),
            Bug::NameTwice => vec![file.clone(), file],
            _ => vec![file],
        };
        outcome.scratch = Some(Arc::new(made)).filter(|_| self.bug != Bug::ScratchGoesFirst);
        Ok(outcome)
    }

    fn with_status(&self, status: BuildStatus, keeps_files: bool) -> Result<BuildOutcome> {
        if !keeps_files {
            return Ok(BuildOutcome::without_files(status));
        }
        Ok(BuildOutcome { status, ..self.files()? })
    }

    fn cancelled(&self) -> Result<BuildOutcome> {
        match self.bug {
            Bug::CancelIsAnError => Err(Error::new(ErrorKind::Cancelled, "it was cancelled")),
            Bug::CancelIsAFailure => {
                let reason = "it was cancelled".to_owned();
                self.with_status(BuildStatus::Failed { reason, failure: None }, false)
            }
            _ => self.with_status(BuildStatus::Cancelled, self.bug == Bug::CancelKeepsFiles),
        }
    }

    async fn run_long(&self, sink: Arc<dyn BuildSink>, cancel: CancellationToken) -> Result<BuildOutcome> {
        let process = Process::start(&self.running);
        sink.emit(line("it runs"));
        match self.bug {
            Bug::DeafWhileAStepRuns => std::future::pending().await,
            Bug::CancelStopsAll => {
                tokio::select! {
                    () = cancel.cancelled() => self.stop.cancel(),
                    () = self.stop.cancelled(), if !self.first.load(Ordering::Relaxed) => {}
                }
                self.first.store(false, Ordering::Relaxed);
            }
            Bug::DropLeavesTheStep | Bug::DropLeavesTheStepEmitting => {
                let (bug, ended) = (self.bug, cancel.clone());
                let (with_step, _with_build) = match bug {
                    Bug::DropLeavesTheStep => (Some(process), None),
                    _ => (None, Some(process)),
                };
                let step = tokio::spawn(async move {
                    let tick = Duration::from_millis(50);
                    while ended.run_until_cancelled(tokio::time::sleep(tick)).await.is_some() {
                        if bug == Bug::DropLeavesTheStepEmitting {
                            sink.emit(line("it still runs"));
                        }
                    }
                    drop(with_step);
                });
                cancel.cancelled().await;
                step.await.expect("the step does not panic");
                return self.cancelled();
            }
            _ => cancel.cancelled().await,
        }
        match self.bug {
            Bug::StopsLate => tokio::time::sleep(crate::limits::CANCEL_GRACE * 2).await,
            Bug::LeavesAChild => std::mem::forget(process),
            Bug::StopsInItsOwnTime => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    drop(process);
                });
            }
            Bug::EmitsAfterCancel => {
                tokio::spawn(async move {
                    yield_now().await;
                    sink.emit(line("late"));
                });
            }
            _ => {}
        }
        self.cancelled()
    }
}

#[async_trait]
impl Builder for Mutant {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        if cancel.is_cancelled() {
            if self.bug == Bug::CancelledBeforeBegins {
                sink.emit(BuildEvent::StepStarted { index: 0, total: 1, name: "a".to_owned() });
            }
            return self.cancelled();
        }
        let _turn = match self.bug {
            Bug::NeverTwoAtOnce => Some(self.turn.lock().await),
            _ => None,
        };
        if input.config_yaml == LONG {
            return self.run_long(sink, cancel).await;
        }
        if self.bug != Bug::TellsNoLine {
            sink.emit(line("it works"));
        }
        yield_now().await;
        if input.config_yaml == FAILING {
            let failed = BuildStatus::Failed { reason: "no".to_owned(), failure: None };
            return match self.bug {
                Bug::FailureIsAnError => Err(Error::invalid("it failed")),
                Bug::FailureIsASuccess => self.with_status(BuildStatus::Succeeded, true),
                _ => self.with_status(failed, self.bug == Bug::FailureKeepsFiles),
            };
        }
        let pause = match self.bug {
            Bug::EmitsAfterTheEnd => Some(Duration::ZERO),
            Bug::EmitsLongAfterTheEnd => Some(Duration::from_millis(100)),
            _ => None,
        };
        if let Some(pause) = pause {
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                sink.emit(line("late"));
            });
        }
        self.with_status(BuildStatus::Succeeded, true)
    }
}
