//! A builder that plays a script: for tests and examples. It runs nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::{Barrier, Notify};
use tokio_util::sync::CancellationToken;

use super::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, BuiltFile, LogStream, Phase,
};
use crate::error::{Blame, Error, ErrorKind, Result};

/// One act of a script.
#[derive(Debug, Clone)]
pub enum Act {
    /// Tells the sink.
    Emit(BuildEvent),
    /// Writes a file of the outcome; `{arch}` in the name becomes the architecture.
    Write(String, Vec<u8>),
    /// Waits for a notification, or for the cancellation.
    Wait(Arc<Notify>),
    /// Waits for the others at a barrier, or for the cancellation.
    Meet(Arc<Barrier>),
    /// Lets time pass, or stops at the cancellation.
    Sleep(Duration),
    /// Waits like [`Self::Wait`], deaf to the cancellation, as a broken builder would.
    Hang(Arc<Notify>),
    /// Ends with this status; files are kept when it is a success.
    Finish(BuildStatus),
    /// Ends with an error of the farm's.
    Fail(ErrorKind, String),
    /// Ends with an error that somebody is blamed for.
    FailBy(Blame, ErrorKind, String),
    /// Panics.
    Panic(String),
}

impl Act {
    /// A line of a step's standard output.
    pub fn line(line: impl Into<String>) -> Self {
        Self::Emit(BuildEvent::Log { stream: LogStream::Stdout, step: None, line: line.into() })
    }
}

/// Plays scripts, one for each build.
///
/// ```
/// use std::sync::Arc;
/// use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
/// let builder = ScriptedBuilder::new([Act::line("hello"), Act::Write("{arch}/hello-1-r0.apk".into(), vec![1])]);
/// let builder: Arc<dyn melange_remote_sdk::builder::Builder> = Arc::new(builder);
/// ```
#[derive(Debug, Clone)]
pub struct ScriptedBuilder {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    first: VecDeque<Vec<Act>>,
    always: Vec<Act>,
    builds: Vec<BuildInput>,
}

impl ScriptedBuilder {
    /// Plays the same script for every build. A script without an ending succeeds.
    pub fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self::sequence(Vec::new(), script)
    }

    /// Plays `first` one after the other, then `always`.
    pub fn sequence(first: Vec<Vec<Act>>, always: impl IntoIterator<Item = Act>) -> Self {
        let always = always.into_iter().collect();
        let shared = Shared { first: first.into(), always, builds: Vec::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The inputs of the builds so far, in order.
    pub fn builds(&self) -> Vec<BuildInput> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).builds.clone()
    }

    fn next(&self, input: &BuildInput) -> Vec<Act> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.builds.push(input.clone());
        shared.first.pop_front().unwrap_or_else(|| shared.always.clone())
    }
}

/// The files of one build.
#[derive(Default)]
struct Scene {
    scratch: Option<Arc<tempfile::TempDir>>,
    files: Vec<BuiltFile>,
}

impl Scene {
    fn write(&mut self, name: String, content: &[u8]) -> Result<()> {
        let scratch = match &self.scratch {
            Some(scratch) => Arc::clone(scratch),
            None => {
                let made = tempfile::tempdir()
                    .map_err(|source| Error::unexpected("cannot make a scratch folder").source(source))?;
                Arc::clone(self.scratch.insert(Arc::new(made)))
            }
        };
        let path = scratch.path().join(self.files.len().to_string());
        std::fs::write(&path, content).map_err(|source| Error::io("write", &path, source))?;
        let size_bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let sha256 = hex::encode(Sha256::digest(content));
        self.files.push(BuiltFile::new(name, path, size_bytes, sha256));
        Ok(())
    }

    fn outcome(self, status: BuildStatus) -> BuildOutcome {
        if status != BuildStatus::Succeeded {
            return BuildOutcome::without_files(status);
        }
        let timings = [(Phase::Steps, Duration::from_millis(1))].into();
        BuildOutcome {
            files: self.files,
            timings,
            scratch: self.scratch,
            ..BuildOutcome::without_files(status)
        }
    }
}

#[async_trait]
impl Builder for ScriptedBuilder {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        let cancelled = || Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        let mut scene = Scene::default();
        for act in self.next(input) {
            if cancel.is_cancelled() && !matches!(act, Act::Hang(_)) {
                return cancelled();
            }
            let wait = async {
                match &act {
                    Act::Wait(notify) => notify.notified().await,
                    Act::Meet(barrier) => {
                        barrier.wait().await;
                    }
                    Act::Sleep(time) => tokio::time::sleep(*time).await,
                    _ => {}
                }
            };
            if cancel.run_until_cancelled(wait).await.is_none() && !matches!(act, Act::Hang(_)) {
                return cancelled();
            }
            match act {
                Act::Emit(event) => sink.emit(event),
                Act::Write(name, content) => {
                    scene.write(name.replace("{arch}", input.arch.apk_name()), &content)?;
                }
                Act::Hang(notify) => notify.notified().await,
                Act::Finish(status) => return Ok(scene.outcome(status)),
                Act::Fail(kind, message) => return Err(Error::new(kind, message).blame(Blame::Farm)),
                Act::FailBy(blame, kind, message) => return Err(Error::new(kind, message).blame(blame)),
                Act::Panic(message) => std::panic::panic_any(message),
                Act::Wait(_) | Act::Meet(_) | Act::Sleep(_) => {}
            }
        }
        Ok(scene.outcome(BuildStatus::Succeeded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    /// The builder under test, with a count of its builds that are under way.
    #[derive(Debug)]
    struct Counted(ScriptedBuilder, Arc<std::sync::atomic::AtomicUsize>);

    #[async_trait]
    impl Builder for Counted {
        async fn build(
            &self,
            input: &BuildInput,
            sink: Arc<dyn BuildSink>,
            cancel: CancellationToken,
        ) -> Result<BuildOutcome> {
            use std::sync::atomic::Ordering;

            struct Under<'a>(&'a Counted);
            impl Drop for Under<'_> {
                fn drop(&mut self) {
                    self.0.1.fetch_sub(1, Ordering::Relaxed);
                }
            }
            self.1.fetch_add(1, Ordering::Relaxed);
            let _under = Under(self);
            self.0.build(input, sink, cancel).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        let step_line = |line: &str| {
            let line = line.to_owned();
            Act::Emit(BuildEvent::Log { stream: LogStream::Stdout, step: Some(0), line })
        };
        let done = vec![Act::line("a"), Act::Write("{arch}/a.apk".to_owned(), vec![1, 2])];
        let long = vec![step_line("b"), Act::Wait(Arc::new(Notify::new()))];
        let failed = BuildStatus::Failed { reason: "no".to_owned(), failure: None };
        let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = Arc::clone(&running);
        let case = conformance::builder::Case {
            succeeds: Arc::new(ScriptedBuilder::new(done)),
            fails: Arc::new(ScriptedBuilder::new([Act::Finish(failed)])),
            runs_long: Arc::new(Counted(ScriptedBuilder::new(long), running)),
            succeeding: conformance::builder::input("package: {}\n"),
            failing: conformance::builder::input("package: {}\n"),
            long: conformance::builder::input("package: {}\n"),
            running: Box::new(move || seen.load(std::sync::atomic::Ordering::Relaxed)),
        };
        conformance::builder::all(&case).await;
    }
}
