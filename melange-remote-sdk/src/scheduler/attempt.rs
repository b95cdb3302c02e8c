//! One attempt: one job, one lease, one slot. The only place where the four contracts meet.
//!
//! The lease is renewed elsewhere ([`super::leases`]), with those of all attempts. A reason to stop cancels the
//! attempt's token, and the attempt comes to the end that the reason asks for, or to none when the lease is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::diagnosis::{LastLines, Seen, diagnosis, known_cause};
use super::events::{EventQueue, Item, step_failure};
use super::leases::{HeldLease, Stop, StopSignal};
use super::log::{BoundedLog, notice};
use super::retry::job_error;
use super::reuse::lock_file;
use super::{Scheduler, SchedulerOptions, SchedulerParts, failure_of, in_time};
use crate::artifact_storage::layout::artifact_key;
use crate::artifact_storage::{ArtifactKey, ByteStream};
use crate::backend::pool::BackendLease;
use crate::backoff::Backoff;
use crate::builder::{BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, BuiltFile, Phase};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::failure::KnownCause;
use crate::job::{FailureClass, Job, JobArtifact, JobError, JobId, JobSpec, Outcome, ProgressRow};
use crate::job_log::{JobLogs, Lines, LogBlock, LogWriter};
use crate::job_store::{Claim, Fence, Release};
use crate::limits;

/// The pause before a call on the job store is made again; it doubles with every further one.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// What an attempt means for its job.
#[derive(Debug)]
pub(super) enum End {
    /// The job has come to its end.
    Finish(Outcome),
    /// The job is given back.
    Release(Release),
}

impl End {
    pub(super) fn failed(error: JobError) -> Self {
        Self::Finish(Outcome::Failed { error })
    }

    /// For logs.
    fn name(&self) -> &'static str {
        match self {
            Self::Finish(outcome) => outcome.state().name(),
            Self::Release(_) => "given_back",
        }
    }
}

/// Why something was not stored.
pub(super) enum NotStored {
    /// The files are not as the builder said, or cannot be read: another build may help.
    Files(Error),
    /// The storage does not take them: another build would not help.
    Storage(Error),
}

impl From<Error> for NotStored {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl NotStored {
    fn error(&self) -> &Error {
        match self {
            Self::Files(error) | Self::Storage(error) => error,
        }
    }

    /// How long storing is repeated.
    fn patience(&self) -> Duration {
        match self.error().kind() {
            ErrorKind::InvalidRequest => Duration::ZERO,
            kind if kind.is_retryable() => limits::STORE_TROUBLE,
            _ => limits::STORE_REFUSED,
        }
    }

    /// The same after several tries.
    fn after(self, tries: u32, took: Duration) -> Self {
        let tried = format!("{tries} in {} s", took.as_secs());
        match self {
            _ if tries == 1 => self,
            Self::Files(error) => Self::Files(error.with("tries", tried)),
            Self::Storage(error) => Self::Storage(error.with("tries", tried)),
        }
    }
}

/// The log of an attempt while it is written.
struct Record {
    writer: LogWriter,
    /// Lines that the store has no room for.
    refused_lines: u64,
    /// The last lines of the step that runs.
    last: LastLines,
}

impl Record {
    /// The store has taken a block, of which `step` may be the one that fails.
    fn wrote(&mut self, block: LogBlock, length: u64, step: Option<u32>) {
        if let Some(step) = step {
            self.last.take(&block, step);
        }
        self.writer.wrote(block, length);
    }
}

/// A claimed job with the slot that it runs in.
pub(super) struct Attempt {
    pub(super) parts: Arc<SchedulerParts>,
    logs: JobLogs,
    pub(super) options: SchedulerOptions,
    id: JobId,
    fence: Fence,
    /// The job as it was claimed.
    pub(super) job: Arc<Job>,
    pub(super) spec: Arc<JobSpec>,
    /// Where the attempt's part of the job's log begins.
    log_begin: u64,
    slot: BackendLease,
    lease: HeldLease,
    pub(super) events: Arc<EventQueue>,
    stop: CancellationToken,
}

impl Attempt {
    /// An attempt that begins with [`Self::run`]; `stop` asks it to give the job back.
    pub(super) fn new(
        scheduler: &Scheduler,
        claim: &Claim,
        slot: BackendLease,
        lease: HeldLease,
        stop: CancellationToken,
    ) -> Self {
        let parts = &scheduler.parts;
        Self {
            parts: Arc::clone(parts),
            logs: scheduler.logs.clone(),
            options: scheduler.options.clone(),
            id: claim.job.id,
            fence: claim.fence,
            job: Arc::clone(&claim.job),
            spec: Arc::clone(&claim.spec),
            log_begin: claim.log_bytes,
            slot,
            lease,
            events: Arc::new(EventQueue::new(Arc::clone(&parts.clock))),
            stop,
        }
    }

    /// Runs to the end of the job or of the lease.
    pub(super) async fn run(self) {
        let addr = self.slot.backend().addr();
        tracing::info!(job = %self.id, attempt = self.fence.attempt, backend = addr, "an attempt begins");
        let stopping = async {
            self.stop.cancelled().await;
            self.signal().set(Stop::Shutdown);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // The reason to stop is known before the work looks for one.
            biased;
            () = stopping => {}
            () = self.work() => {}
        }
    }

    pub(super) fn signal(&self) -> &StopSignal {
        &self.lease.signal
    }

    /// Builds, stores, and records the end unless the job is somebody else's.
    async fn work(&self) {
        let backend = self.slot.backend();
        self.events.line(format!("--- attempt {} on {}", self.fence.attempt, backend.addr()));
        let build = async {
            let result = self.build().await;
            self.events.tell_memory();
            self.tell_backend(&result);
            if let Ok(outcome) = &result {
                self.events.complete(&outcome.timings);
            }
            let end = self.end(result).await;
            self.events.line(ending_line(end.as_ref().map(|(end, _)| end)));
            self.events.close();
            end
        };
        let (end, lines) = tokio::join!(build, self.record_events());
        let Some((mut end, known)) = end else { return };
        self.diagnose(&mut end, known, &lines);
        let name = end.name();
        match self.record_end(&end).await {
            Ok(()) => {
                tracing::info!(job = %self.id, attempt = self.fence.attempt, end = name, "an attempt ends")
            }
            Err(error) => {
                tracing::error!(job = %self.id, end = name, error = %error.chain(), "an end was not recorded");
            }
        }
    }

    /// Adds what the attempt failed of to an end that is a failure.
    fn diagnose(&self, end: &mut End, known: Option<KnownCause<'static>>, lines: &LastLines) {
        let error = match end {
            End::Finish(Outcome::Failed { error }) | End::Release(Release { error, .. }) => error,
            End::Finish(_) => return,
        };
        let package = self.job.facts.package.as_ref();
        let seen = Seen {
            package: package.map_or("", |package| &package.name),
            running: self.events.running(),
            failed: self.events.telling(),
            lines,
        };
        error.failure = Some(Box::new(diagnosis(error, known, &seen)));
    }

    /// Runs the builder in a task of its own, so that neither its panics nor its pauses harm the lease.
    async fn build(&self) -> Result<BuildOutcome> {
        let spec = &self.spec;
        let Some(source) = self.source_folder().await? else {
            return Ok(BuildOutcome::without_files(BuildStatus::Cancelled));
        };
        let mut input = BuildInput {
            attempt: self.fence.to_string(),
            pipelines: spec.pipelines().iter().map(|(p, text)| (p.to_string(), text.clone())).collect(),
            debug: spec.debug(),
            backend_addr: self.slot.backend().addr().to_owned(),
            memory_bytes: self.job.memory_bytes,
            with_test: spec.with_test(),
            config_name: spec.config_name().to_owned(),
            test_packages: spec.test_packages().to_vec(),
            source_dir: source.path(),
            source_digest: spec.source().map(|digest| digest.to_string()),
            origin: spec.origin().clone(),
            ..BuildInput::new(spec.config_yaml(), spec.arch())
        };
        let complete = self.parts.inputs.complete(&self.job, &mut input);
        complete.await.map_err(|error| error.blame_if_unknown(Blame::Farm))?;
        let builder = Arc::clone(&self.parts.builder);
        let sink: Arc<dyn BuildSink> = Arc::clone(&self.events) as _;
        let token = self.signal().token.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(
            source.around(async move { builder.build(&input, sink, token).await }),
        ));
        let too_late = async {
            self.signal().token.cancelled().await;
            tokio::time::sleep(limits::CANCEL_GRACE).await;
        };
        tokio::select! {
            // An end that is there counts, also when it is late.
            biased;
            ended = &mut task => ended.unwrap_or_else(|error| {
                Err(Error::unexpected("the builder panicked").source(error))
            }),
            () = too_late => {
                tracing::error!(job = %self.id, "the builder did not stop in time and is dropped");
                Ok(BuildOutcome::without_files(BuildStatus::Cancelled))
            }
        }
    }

    /// Writes lines and events to the job store as they come; the last lines of the step that ran at the end.
    async fn record_events(&self) -> LastLines {
        let writer = self.logs.write(self.fence, self.log_begin);
        let mut record = Record { writer, refused_lines: 0, last: LastLines::default() };
        let mut told = 0;
        let mut log = BoundedLog::new(self.options.log_bytes, Arc::clone(&self.parts.clock));
        while let Some(item) = self.events.next().await {
            match item {
                Item::Progress(rows) => {
                    let lines = record.writer.lines();
                    let behind =
                        |row: ProgressRow| ProgressRow { progress: row.progress.behind_lines(lines), ..row };
                    self.append(rows.into_iter().map(behind).collect(), &mut told).await;
                }
                Item::Lines(lines) => {
                    for lines in log.push(lines).await {
                        self.append_log(lines, &mut record).await;
                    }
                }
            }
        }
        let mut rest = log.finish();
        while let Some(lines) = rest.next().await {
            self.append_log(lines, &mut record).await;
        }
        let refused = std::mem::take(&mut record.refused_lines);
        if refused > 0 {
            let text = format!("[{refused} lines are missing here: the job store has no room for them]");
            self.append_log(notice(&*self.parts.clock, &text), &mut record).await;
        }
        record.last
    }

    async fn append_log(&self, lines: Lines, record: &mut Record) {
        if record.refused_lines > 0 {
            record.refused_lines = record.refused_lines.saturating_add(lines.count());
            return;
        }
        let (offset, block) = (record.writer.offset(), record.writer.block(lines));
        let bytes = match block.encode() {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(job = %self.id, error = %error.chain(), "lines of a log are lost");
                return;
            }
        };
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let append = || self.parts.job_store.append_log(self.fence, offset, bytes.clone());
        match self.persist(append).await {
            Ok(length) => record.wrote(block, length, self.events.telling()),
            Err(error) if error.kind() == ErrorKind::LimitExceeded => {
                tracing::warn!(job = %self.id, error = %error.chain(), "the rest of a log is not kept");
                record.refused_lines = block.count();
            }
            Err(error) => {
                // They may be there although nobody said so.
                match self.within(self.parts.job_store.read_log(self.id, u64::MAX, 0)).await {
                    Ok(chunk) if chunk.len == end => record.wrote(block, end, self.events.telling()),
                    _ => {
                        tracing::warn!(job = %self.id, error = %error.chain(), "lines of a log are lost");
                    }
                }
            }
        }
    }

    /// Adds what the attempt tells; `told` is how much it told so far.
    async fn append(&self, rows: Vec<ProgressRow>, told: &mut u64) {
        let first = *told;
        match self.persist(|| self.parts.job_store.append(self.fence, first, &rows)).await {
            Ok(count) => *told = count,
            Err(error) => {
                tracing::warn!(job = %self.id, error = %error.chain(), "events are lost");
                if let Ok(count) = self.within(self.parts.job_store.append(self.fence, first, &[])).await {
                    *told = count;
                }
            }
        }
    }

    async fn record_end(&self, end: &End) -> Result<()> {
        let at = self.parts.clock.now();
        match end {
            End::Finish(outcome) => {
                let finished = self.persist(|| self.parts.job_store.finish(self.fence, outcome, at)).await?;
                if finished.unlocked + finished.skipped > 0 {
                    let (unlocked, skipped) = (finished.unlocked, finished.skipped);
                    tracing::info!(job = %self.id, unlocked, skipped, "jobs waited for this one");
                }
                Ok(())
            }
            End::Release(release) => {
                self.persist(|| self.parts.job_store.release(self.fence, release, at)).await.map(drop)
            }
        }
    }

    /// A call on the job store, in its time.
    async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        in_time(self.options.lease, call).await
    }

    /// Repeats a call on the job store while it is unavailable, for as long as the lease is kept: while renewals come
    /// through, lines and an end are worth more than patience. A lost lease stops all.
    async fn persist<'a, T>(&'a self, call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
        let give_up_at = Instant::now() + limits::STORE_TROUBLE;
        let mut backoff = Backoff::new(AGAIN_PAUSE, self.options.lease / 3);
        loop {
            if self.signal().reason() == Some(Stop::Lost) {
                return Err(Error::new(ErrorKind::Conflict, "the lease is lost"));
            }
            match self.within(call()).await {
                Err(error) if error.kind().is_retryable() && Instant::now() < give_up_at => {
                    tokio::time::sleep_until((Instant::now() + backoff.pause()).min(give_up_at)).await;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.signal().lose(self.fence);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// What the end of a build says about the backend it ran on.
    fn tell_backend(&self, result: &Result<BuildOutcome>) {
        match result {
            Ok(outcome) if outcome.status != BuildStatus::Cancelled && self.events.step_began() => {
                self.slot.worked(self.parts.clock.now());
            }
            Err(error) if error.blamed() == Some(Blame::Backend) => {
                let failure = failure_of(error, self.parts.clock.now());
                let answered = self.events.step_began()
                    || !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Untrusted);
                if answered {
                    self.slot.failed(failure);
                } else {
                    self.slot.unreachable(failure);
                }
            }
            _ => {}
        }
    }

    /// What the end of the build means for the job, and what is known of its cause; `None` when the job is somebody
    /// else's. The files of a success are stored.
    async fn end(&self, result: Result<BuildOutcome>) -> Option<(End, Option<KnownCause<'static>>)> {
        let known = known_cause(&result);
        let end = match result {
            _ if self.signal().reason() >= Some(Stop::Asked) => self.interrupted()?,
            Ok(outcome) => match outcome.status.clone() {
                BuildStatus::Succeeded => self.succeed(&outcome).await?,
                BuildStatus::Known { job } => self.reuse(job, &outcome).await?,
                BuildStatus::Skipped { reason } => End::Finish(Outcome::nothing_to_do(reason)),
                BuildStatus::Failed { reason, failure } => {
                    if let Some(failure) = &failure {
                        self.events.step_failed(failure.exit_code);
                    }
                    let is_starved = failure.as_ref().is_some_and(|failure| failure.out_of_memory);
                    let step = failure.map(step_failure);
                    if is_starved {
                        self.out_of_memory(JobError {
                            step,
                            ..JobError::new(FailureClass::Resources, reason)
                        })
                    } else {
                        End::failed(JobError { step, ..JobError::new(FailureClass::Build, reason) })
                    }
                }
                BuildStatus::LimitExceeded { reason, .. } => {
                    End::failed(JobError::new(FailureClass::Policy, reason))
                }
                BuildStatus::Cancelled => self.interrupted()?,
            },
            // What came of it as it was stopped is not why.
            Err(_) if self.signal().reason() == Some(Stop::Shutdown) => {
                return Some((self.interrupted()?, None));
            }
            Err(error) => self.retry_or_fail(&error),
        };
        Some((end, known))
    }

    fn interrupted(&self) -> Option<End> {
        match self.signal().reason() {
            Some(Stop::Lost) => None,
            Some(Stop::Asked) => Some(End::Finish(Outcome::Cancelled)),
            Some(Stop::Shutdown) => {
                let message = "the server stopped while the job ran";
                let error = JobError::new(FailureClass::Infrastructure, message);
                Some(End::Release(Release::new(error)))
            }
            None => {
                let message = "the builder stopped without being asked to";
                let error = JobError::new(FailureClass::Infrastructure, message);
                Some(End::failed(error))
            }
        }
    }

    /// Stores the files; the event of success, or of what came between. While the storage does not take them they are
    /// kept, and the storing is repeated: a build costs more than patience.
    async fn succeed(&self, outcome: &BuildOutcome) -> Option<End> {
        let started_at = Instant::now();
        let mut stored = Vec::new();
        let store = async {
            let mut artifacts = Vec::new();
            let lock = lock_file(outcome).map_err(NotStored::Files)?;
            for file in outcome.files.iter().chain(&lock) {
                let key = self.artifact_key(&file.name)?;
                stored.push(key.clone());
                let put = || -> BoxFuture<'_, Result<JobArtifact, NotStored>> {
                    Box::pin(self.store_file(&key, file))
                };
                artifacts.push(self.repeat(&file.name, put).await?);
            }
            Ok(artifacts)
        };
        let result: Option<Result<Vec<JobArtifact>, NotStored>> =
            self.signal().token.run_until_cancelled(store).await;
        let success = |artifacts| {
            let result = outcome.result;
            Outcome::Succeeded { artifacts, note: None, result, reused: None }
        };
        self.after_storing(started_at, result, &stored, success).await
    }

    /// The end that follows from what storing came to; `None` of a result when it was broken off.
    pub(super) async fn after_storing(
        &self,
        started_at: Instant,
        result: Option<Result<Vec<JobArtifact>, NotStored>>,
        stored: &[ArtifactKey],
        success: impl FnOnce(Vec<JobArtifact>) -> Outcome,
    ) -> Option<End> {
        match result {
            Some(Ok(artifacts)) => {
                let took = started_at.elapsed();
                self.events.emit(BuildEvent::PhaseFinished { phase: Phase::Store, took });
                Some(End::Finish(success(artifacts)))
            }
            other => self.give_up_stored(stored, other.and_then(Result::err)).await,
        }
    }

    /// Removes what was stored of an attempt that does not succeed after all.
    async fn give_up_stored(&self, stored: &[ArtifactKey], error: Option<NotStored>) -> Option<End> {
        self.remove(stored).await;
        match error {
            Some(error) if self.signal().reason().is_none() => Some(match error {
                NotStored::Files(error) => self.retry_or_fail(&error.blame_if_unknown(Blame::Farm)),
                NotStored::Storage(error) => {
                    let error = error.blame_if_unknown(Blame::Farm);
                    End::failed(job_error("the packages were built and could not be stored: ", &error))
                }
            }),
            _ => self.interrupted(),
        }
    }

    /// Repeats a storing that fails, for as long as it may help: [`limits::STORE_TROUBLE`] when the storage is away,
    /// [`limits::STORE_REFUSED`] when it refuses. The log says so at growing distances.
    pub(super) async fn repeat<'f, T>(
        &self,
        what: &str,
        call: impl Fn() -> BoxFuture<'f, Result<T, NotStored>>,
    ) -> Result<T, NotStored> {
        let begun = Instant::now();
        let backoff = Backoff::new(self.options.retry_pause, limits::RETRY_PAUSE_MAX);
        // A storage that comes back may refuse for a moment: its patience is counted from the first refusal in a row.
        let (mut since, mut patience, mut pauses) = (begun, limits::STORE_TROUBLE, backoff.clone());
        let mut tries = 0u32;
        loop {
            let failed = match call().await {
                Ok(stored) => {
                    if tries > 0 {
                        self.events.line(format!("--- {what} is stored, in try {}", tries.saturating_add(1)));
                    }
                    return Ok(stored);
                }
                Err(failed) => failed,
            };
            tries = tries.saturating_add(1);
            if failed.patience() < patience {
                (since, pauses) = (Instant::now(), backoff.clone());
            } else if failed.patience() > patience {
                since = begun;
            }
            patience = failed.patience();
            let pause = pauses.pause();
            if since.elapsed().saturating_add(pause) >= patience {
                return Err(failed.after(tries, begun.elapsed()));
            }
            if tries.is_power_of_two() {
                let cause = failed.error().chain();
                tracing::warn!(job = %self.id, what, tries, error = cause, "storing failed; it is tried again");
                let count = if tries > 1 { format!(" in {tries} tries") } else { String::new() };
                self.events.line(format!("--- {what} could not be stored{count}: {cause}; trying again"));
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn store_file(
        &self,
        key: &ArtifactKey,
        file: &BuiltFile,
    ) -> Result<JobArtifact, NotStored> {
        let is_readable = Arc::new(AtomicBool::new(true));
        let bytes = match &file.in_memory {
            Some(bytes) => stream::iter([Ok(bytes.clone())]).boxed(),
            None => read_file(file, Arc::clone(&is_readable)).await.map_err(NotStored::Files)?,
        };
        let stored = self.parts.artifact_storage.put(key, bytes).await.map_err(|error| {
            if is_readable.load(Ordering::Relaxed) {
                NotStored::Storage(error)
            } else {
                NotStored::Files(error)
            }
        })?;
        if stored.sha256 != file.sha256 || stored.size_bytes != file.size_bytes {
            let error = Error::unexpected("a file changed between the builder and the storage");
            return Err(NotStored::Files(error.with("file", &file.name)));
        }
        let name = file.name.clone();
        Ok(JobArtifact { name, size_bytes: stored.size_bytes, sha256: stored.sha256 })
    }

    /// The key of an artifact of this attempt, which no other attempt writes to.
    pub(super) fn artifact_key(&self, name: &str) -> Result<ArtifactKey> {
        // Names of files follow from the definition.
        artifact_key(self.id, self.fence.attempt, name)
            .map_err(|error| error.blame_if_unknown(Blame::Definition))
    }

    async fn remove(&self, keys: &[ArtifactKey]) {
        for key in keys {
            if let Err(error) = self.parts.artifact_storage.delete(key).await {
                tracing::warn!(%key, error = %error.chain(), "an artifact of an attempt is left over");
            }
        }
    }
}

/// The bytes of a file on the disk; `is_readable` becomes false when they cannot be read to their end.
async fn read_file(file: &BuiltFile, is_readable: Arc<AtomicBool>) -> Result<ByteStream> {
    let path = file.path.clone();
    let content = tokio::fs::File::open(&path).await.map_err(|source| Error::io("open", &path, source))?;
    let bytes = ReaderStream::with_capacity(content, limits::LOG_WRITE_BYTES).map_err(move |source| {
        is_readable.store(false, Ordering::Relaxed);
        Error::io("read", &path, source)
    });
    Ok(bytes.boxed())
}

/// The last line of an attempt's log.
fn ending_line(end: Option<&End>) -> String {
    match end {
        Some(End::Finish(Outcome::Succeeded { note: None, .. })) => "--- the build succeeded".to_owned(),
        Some(End::Finish(Outcome::Succeeded { note: Some(note), .. })) => {
            format!("--- nothing to build: {note}")
        }
        Some(End::Finish(Outcome::Failed { error })) if error.class == FailureClass::Build => {
            format!("--- the build failed: {}", error.message)
        }
        Some(End::Finish(Outcome::Failed { error })) => {
            format!("--- the build could not be tried to its end: {}", error.message)
        }
        Some(End::Release(Release { error, .. })) => {
            format!("--- the build is given back and tried again: {}", error.message)
        }
        _ => "--- the build was stopped".to_owned(),
    }
}
