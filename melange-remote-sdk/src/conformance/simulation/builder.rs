//! Builds that print numbered lines and end in every way: they succeed, fail by whoever's fault, hang, do not hear that
//! they shall stop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::world::{Party, World, short};
use crate::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, Builder, BuiltFile, LogStream,
};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::job::JobId;

/// A build under way.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) job: JobId,
    pub(super) attempt: u32,
    pub(super) party: String,
    pub(super) token: CancellationToken,
    /// Whether it ends only when it is stopped.
    pub(super) hangs: bool,
}

/// What the builds did.
#[derive(Debug, Default)]
pub(super) struct Builds {
    pub(super) live: BTreeMap<u64, Live>,
    pub(super) begun: BTreeSet<(JobId, u32)>,
    /// How many lines each attempt printed.
    pub(super) lines: BTreeMap<(JobId, u32), u64>,
    count: u64,
}

impl Builds {
    /// The number of a build that begins, and whether it is the first one of its attempt.
    fn begin(&mut self, live: Live) -> (u64, bool) {
        self.count += 1;
        let first = self.begun.insert((live.job, live.attempt));
        self.live.insert(self.count, live);
        (self.count, first)
    }
}

/// What an attempt prints.
pub(super) fn line(job: JobId, attempt: u32, number: u64) -> String {
    format!("{}/{attempt} line {number}", short(job))
}

/// What an artifact holds.
pub(super) fn content(job: JobId, attempt: u32, name: &str) -> String {
    format!("{name} of {job} by attempt {attempt}\n")
}

/// How a build ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Success,
    NothingToDo,
    Failure,
    FarmError,
    BackendError,
    Hang,
}

/// The builder of one server.
#[derive(Debug)]
pub(super) struct SimulatedBuilder {
    pub(super) world: Arc<World>,
    pub(super) party: Arc<Party>,
}

/// Takes a build off the list, however it ends.
struct Under<'w>(&'w World, u64);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.builds().live.remove(&self.1);
    }
}

/// One build.
struct Running<'b> {
    world: &'b World,
    job: JobId,
    attempt: u32,
    number: u64,
    sink: Arc<dyn BuildSink>,
    cancel: CancellationToken,
    /// How long it goes on once it shall stop.
    deaf: Duration,
}

impl Running<'_> {
    fn print(&self) {
        let mut builds = self.world.builds();
        let count = builds.lines.entry((self.job, self.attempt)).or_default();
        *count += 1;
        let line = line(self.job, self.attempt, *count);
        drop(builds);
        self.sink.emit(BuildEvent::Log { stream: LogStream::Stdout, step: Some(0), line });
    }

    /// Lets time pass; whether it goes on.
    async fn work(&self, time: Duration) -> bool {
        if self.cancel.run_until_cancelled(tokio::time::sleep(time)).await.is_some() {
            return true;
        }
        if !self.deaf.is_zero() {
            tokio::time::sleep(self.deaf / 2).await;
            self.print();
            tokio::time::sleep(self.deaf / 2).await;
        }
        false
    }

    async fn step(&self, index: usize, total: usize) -> bool {
        let name = format!("step {index}");
        self.sink.emit(BuildEvent::StepStarted { index, total, name });
        let most = if self.world.chance(0.2) { 8_000 } else { 800 };
        for _ in 0..self.world.number(0, 5) {
            self.print();
            if !self.work(self.world.time(0, most)).await {
                return false;
            }
            self.sink.ready().await;
        }
        let took = Duration::from_millis(1);
        self.sink.emit(BuildEvent::StepFinished { index, took, cached: false });
        true
    }

    async fn play(&self, end: End, arch: &str) -> Result<BuildOutcome> {
        let cancelled = || Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        let steps = if end == End::NothingToDo { 0 } else { self.world.number(1, 3) };
        for index in 0..steps {
            if !self.step(index, steps).await {
                return cancelled();
            }
        }
        if end == End::Hang {
            if let Some(live) = self.world.builds().live.get_mut(&self.number) {
                live.hangs = true;
            }
            self.work(Duration::from_secs(1_000_000)).await;
            return cancelled();
        }
        let failed = |blame| {
            let error = Error::new(ErrorKind::Unavailable, "the simulated build broke off").blame(blame);
            Err(error)
        };
        match end {
            End::FarmError => failed(Blame::Farm),
            End::BackendError => failed(Blame::Backend),
            End::Failure => {
                let reason = "make failed".to_owned();
                Ok(BuildOutcome::without_files(BuildStatus::Failed { reason, failure: None }))
            }
            End::NothingToDo => {
                let reason = "nothing to do".to_owned();
                Ok(BuildOutcome::without_files(BuildStatus::Skipped { reason }))
            }
            _ => Ok(self.succeed(arch)),
        }
    }

    fn succeed(&self, arch: &str) -> BuildOutcome {
        let mut outcome = BuildOutcome::without_files(BuildStatus::Succeeded);
        for number in 0..self.world.number(1, 2) {
            let name = format!("{arch}/package-{number}.apk");
            let content = content(self.job, self.attempt, &name);
            let size_bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let sha256 = hex::encode(Sha256::digest(&content));
            let (path, in_memory) = (PathBuf::new(), Some(Bytes::from(content)));
            outcome.files.push(BuiltFile { name, path, in_memory, size_bytes, sha256 });
        }
        outcome
    }
}

impl SimulatedBuilder {
    fn draw_end(&self) -> End {
        if !self.world.fault(self.world.levels.builds) {
            return [End::Success, End::Success, End::Success, End::Success, End::NothingToDo, End::Failure]
                [self.world.number(0, 5)];
        }
        [End::FarmError, End::BackendError, End::Hang][self.world.number(0, 2)]
    }
}

#[async_trait]
impl Builder for SimulatedBuilder {
    async fn build(
        &self,
        input: &BuildInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        let named = input.attempt.rsplit_once('-');
        let named = named.and_then(|(job, attempt)| Some((job.parse().ok()?, attempt.parse().ok()?)));
        let Some((job, attempt)) = named else {
            return Err(Error::unexpected("the attempt has no legal name").with("attempt", &input.attempt));
        };
        let world = &*self.world;
        let (party, token) = (self.party.name.clone(), cancel.clone());
        let (number, first) = world.builds().begin(Live { job, attempt, party, token, hangs: false });
        let _under = Under(world, number);
        if !first {
            world.violate(&format!("attempt {attempt} of {} was begun twice", short(job)));
        }
        let end = self.draw_end();
        if end == End::BackendError && world.chance(0.5) {
            return Err(Error::new(ErrorKind::Unavailable, "connection refused").blame(Blame::Backend));
        }
        let deaf = if world.fault(0.1) { world.time(1, 20_000) } else { Duration::ZERO };
        let running = Running { world, job, attempt, number, sink, cancel, deaf };
        running.play(end, input.arch.apk_name()).await
    }
}
