//! One attempt: one job, one lease, one slot. The only place where the four contracts meet.
//!
//! Two things go on side by side. *Renewing* renews the lease and watches for reasons to stop; *working* builds,
//! stores and records the end. Renewing never ends the attempt itself: it cancels the token, and working comes to
//! the end that the reason asks for, or to none when the lease is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::artifacts::{LOG_NAME, artifact_key};
use super::events::{EventQueue, Item, step_failure};
use super::log::BoundedLog;
use super::{SchedulerOptions, SchedulerParts, failure_of};
use crate::artifact_storage::{ArtifactKey, ByteStream};
use crate::backend::pool::BackendLease;
use crate::backoff::{Backoff, spread};
use crate::builder::{BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, BuiltFile, Phase};
use crate::clock::{elapsed, later};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::job::{FailureClass, JobArtifact, JobBackend, JobError, JobEvent, JobId, JobSpec};
use crate::job_store::{Claim, Fence, Lease, Record, Renewal, Subject};
use crate::limits;

/// The least time between two renewals when hints come in a row.
const HINT_PAUSE: Duration = Duration::from_millis(100);

/// Why an attempt stops before its end; a later one outdoes an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// The scheduler stops.
    Shutdown,
    /// Somebody asked for it.
    Asked,
    /// The job is somebody else's.
    Lost,
}

/// The reason to stop, and the token that stops the builder.
#[derive(Debug, Default)]
struct StopSignal {
    reason: Mutex<Option<Stop>>,
    token: CancellationToken,
}

impl StopSignal {
    fn set(&self, stop: Stop) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *reason = (*reason).max(Some(stop));
        drop(reason);
        self.token.cancel();
    }

    fn reason(&self) -> Option<Stop> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why something was not stored.
enum NotStored {
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

/// A claimed job with the slot that it runs in.
pub(super) struct Attempt {
    parts: Arc<SchedulerParts>,
    options: SchedulerOptions,
    id: JobId,
    spec: Arc<JobSpec>,
    number: u32,
    /// The attempts that count, with this one.
    counted: u32,
    /// Where the attempt's part of the job's log begins.
    log_begin: u64,
    trouble_since: Option<Timestamp>,
    fence: Fence,
    slot: BackendLease,
    claimed_at: Instant,
    stop_signal: StopSignal,
    events: Arc<EventQueue>,
    stop: CancellationToken,
}

impl Attempt {
    /// An attempt that begins with [`Self::run`]; `stop` asks it to give the job back.
    pub(super) fn new(
        parts: &Arc<SchedulerParts>,
        options: SchedulerOptions,
        claim: &Claim,
        slot: BackendLease,
        claimed_at: Instant,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts: Arc::clone(parts),
            options,
            id: claim.job.id,
            spec: Arc::clone(&claim.job.spec),
            number: claim.job.attempt,
            counted: claim.job.counted_attempts,
            log_begin: claim.log_bytes,
            trouble_since: claim.job.trouble_since,
            fence: claim.fence,
            slot,
            claimed_at,
            stop_signal: StopSignal::default(),
            events: Arc::default(),
            stop,
        }
    }

    /// Runs to the end of the job or of the lease.
    pub(super) async fn run(self) {
        let addr = self.slot.backend().addr();
        tracing::info!(job = %self.id, attempt = self.number, backend = addr, "an attempt begins");
        let renewing = async {
            self.renew_lease().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.work() => {}
            () = renewing => {}
        }
    }

    /// Renews the lease until it is lost.
    async fn renew_lease(&self) {
        let mut hint = self.parts.job_store.changed(Subject::Job(self.id));
        let mut hints = true;
        let mut stopping = false;
        let mut renewed_at = self.claimed_at;
        let mut renew_at = renewed_at + self.options.lease / 3;
        // A cancellation may have come between the claim and the subscription.
        hint.mark_changed();
        loop {
            tokio::select! {
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.stop_signal.set(Stop::Shutdown);
                }
                changed = hint.changed(), if hints => {
                    hints = changed.is_ok();
                    renew_at = renew_at.min(renewed_at + HINT_PAUSE);
                }
                () = tokio::time::sleep_until(renew_at) => {
                    let asked_at = Instant::now();
                    match self.renew(renewed_at + self.options.lease).await {
                        Ok(Renewal::Kept { cancel_requested }) => {
                            renewed_at = asked_at;
                            renew_at = renewed_at + self.options.lease / 3;
                            if cancel_requested {
                                self.stop_signal.set(Stop::Asked);
                            }
                        }
                        Ok(Renewal::Lost) => return self.lose(),
                        Err(error) => {
                            tracing::warn!(job = %self.id, error = %error.chain(), "a lease was not renewed");
                            if Instant::now() >= renewed_at + self.options.lease {
                                return self.lose();
                            }
                            renew_at = Instant::now() + self.options.lease / 9;
                        }
                    }
                }
            }
        }
    }

    fn lose(&self) {
        tracing::warn!(job = %self.id, attempt = self.number, "the lease is lost; the attempt stops");
        self.stop_signal.set(Stop::Lost);
    }

    /// One renewal, which takes no longer than the lease itself lasts.
    async fn renew(&self, ends_at: Instant) -> Result<Renewal> {
        let until = later(self.parts.clock.now(), self.options.lease);
        let leases = [Lease { job: self.id, fence: self.fence }];
        let renewal = self.parts.job_store.renew(&leases, until);
        match tokio::time::timeout_at(ends_at, renewal).await {
            Ok(answers) => Ok(answers?.first().copied().unwrap_or(Renewal::Lost)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the job store did not answer in time")),
        }
    }

    /// Builds, stores, and records the end unless the job is somebody else's.
    async fn work(&self) {
        let backend = self.slot.backend();
        self.events.line(format!("--- attempt {} on {}", self.number, backend.addr()));
        let assigned = JobBackend {
            addr: backend.addr().to_owned(),
            arch: backend.arch(),
            labels: backend.labels().clone(),
        };
        self.record_quietly(JobEvent::Assigned { backend: assigned }).await;
        let build = async {
            let result = self.build().await;
            self.tell_backend(&result);
            if let Ok(outcome) = &result {
                self.events.complete(&outcome.timings);
            }
            let end = self.end(result).await;
            self.events.line(ending_line(end.as_ref()));
            self.events.close();
            end
        };
        let (end, ()) = tokio::join!(build, self.record_events());
        let Some(end) = self.with_log(end).await else { return };
        let name = end.name();
        match self.record(end).await {
            Ok(()) => tracing::info!(job = %self.id, attempt = self.number, end = name, "an attempt ends"),
            Err(error) => {
                tracing::error!(job = %self.id, end = name, error = %error.chain(), "an end was not recorded");
            }
        }
    }

    /// Runs the builder in a task of its own, so that neither its panics nor its pauses harm the lease.
    async fn build(&self) -> Result<BuildOutcome> {
        let input = BuildInput {
            attempt: format!("{}-{}", self.id, self.fence),
            pipelines: self.spec.pipelines().iter().map(|(p, text)| (p.to_string(), text.clone())).collect(),
            debug: self.spec.debug(),
            backend_addr: self.slot.backend().addr().to_owned(),
            with_test: self.spec.with_test(),
            config_name: self.spec.config_name().to_owned(),
            test_packages: self.spec.test_packages().to_vec(),
            ..BuildInput::new(self.spec.config_yaml(), self.spec.arch())
        };
        let builder = Arc::clone(&self.parts.builder);
        let sink: Arc<dyn BuildSink> = Arc::clone(&self.events) as _;
        let token = self.stop_signal.token.clone();
        let mut task =
            AbortOnDropHandle::new(tokio::spawn(async move { builder.build(&input, sink, token).await }));
        let too_late = async {
            self.stop_signal.token.cancelled().await;
            tokio::time::sleep(limits::CANCEL_GRACE).await;
        };
        tokio::select! {
            ended = &mut task => ended.unwrap_or_else(|error| {
                Err(Error::unexpected("the builder panicked").source(error))
            }),
            () = too_late => {
                tracing::error!(job = %self.id, "the builder did not stop in time and is dropped");
                Ok(BuildOutcome::without_files(BuildStatus::Cancelled))
            }
        }
    }

    /// Writes lines and events to the job store as they come.
    async fn record_events(&self) {
        // How long the log is.
        let mut length = self.log_begin;
        let mut log = BoundedLog::new(self.options.log_bytes);
        while let Some(item) = self.events.next().await {
            match item {
                Item::Event(event) => self.record_quietly(event.at_log_offset(length)).await,
                Item::Lines(lines) => {
                    for bytes in log.push(lines).await {
                        self.append_log(bytes, &mut length).await;
                    }
                }
            }
        }
        let mut rest = log.finish();
        while let Some(bytes) = rest.next().await {
            self.append_log(bytes, &mut length).await;
        }
    }

    async fn append_log(&self, bytes: Bytes, length: &mut u64) {
        let offset = *length;
        let append = || self.parts.job_store.append_log(self.id, self.fence, offset, bytes.clone());
        match self.persist(append).await {
            Ok(grown) => *length = grown,
            Err(error) => {
                tracing::warn!(job = %self.id, error = %error.chain(), "lines of a log are lost");
            }
        }
    }

    async fn record_quietly(&self, event: JobEvent) {
        let name = event.name();
        if let Err(error) = self.record(event).await {
            tracing::warn!(job = %self.id, event = name, error = %error.chain(), "an event is lost");
        }
    }

    async fn record(&self, event: JobEvent) -> Result<()> {
        let record = || {
            let (event, at) = (event.clone(), self.parts.clock.now());
            let fence = Some(self.fence);
            let record = Record { job: self.id, event, at, fence, expected_version: None };
            self.parts.job_store.record(record)
        };
        self.persist(record).await.map(drop)
    }

    /// Repeats a call on the job store while it is unavailable, for at most a lease. A lost fence stops all.
    async fn persist<'a, T>(&'a self, call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
        let give_up_at = Instant::now() + self.options.lease;
        let mut backoff = Backoff::new(HINT_PAUSE, self.options.lease / 3);
        loop {
            if self.stop_signal.reason() == Some(Stop::Lost) {
                return Err(Error::new(ErrorKind::Conflict, "the lease is lost"));
            }
            match call().await {
                Err(error) if error.kind().is_retryable() && Instant::now() < give_up_at => {
                    tokio::time::sleep_until((Instant::now() + backoff.pause()).min(give_up_at)).await;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.lose();
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
                self.slot.worked();
            }
            Err(error) if error.blamed() == Some(Blame::Backend) => {
                let unreachable = !self.events.step_began()
                    && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Untrusted);
                self.slot.failed(failure_of(error, self.parts.clock.now()), unreachable);
            }
            _ => {}
        }
    }

    /// What the end of the build means for the job; `None` when the job is somebody else's. The files of a success
    /// are stored.
    async fn end(&self, result: Result<BuildOutcome>) -> Option<JobEvent> {
        let event = match result {
            _ if self.stop_signal.reason() >= Some(Stop::Asked) => self.interrupted()?,
            Ok(outcome) => match outcome.status.clone() {
                BuildStatus::Succeeded => self.succeed(&outcome).await?,
                BuildStatus::Skipped { reason } => {
                    JobEvent::Succeeded { artifacts: Vec::new(), note: Some(reason) }
                }
                BuildStatus::Failed { reason, failure } => {
                    let step = failure.map(step_failure);
                    let error = JobError { class: FailureClass::Build, message: reason, step };
                    JobEvent::Failed { error }
                }
                BuildStatus::Cancelled => self.interrupted()?,
            },
            Err(_) if self.stop_signal.reason() == Some(Stop::Shutdown) => self.interrupted()?,
            Err(error) => self.retry_or_fail(&error),
        };
        Some(event)
    }

    /// The end, once the whole log is stored too, where it is.
    async fn with_log(&self, end: Option<JobEvent>) -> Option<JobEvent> {
        match end? {
            end @ (JobEvent::Failed { .. } | JobEvent::Cancelled) => {
                if let Err(error) = self.store_log().await {
                    tracing::warn!(job = %self.id, error = %error.chain(), "the log was not stored");
                }
                Some(end)
            }
            JobEvent::Succeeded { artifacts, note } => {
                let store_log = || -> BoxFuture<'_, Result<(), NotStored>> {
                    Box::pin(async { Ok(self.store_log().await?) })
                };
                let store = self.repeat("the log", store_log);
                match self.stop_signal.token.run_until_cancelled(store).await {
                    Some(Ok(())) => Some(JobEvent::Succeeded { artifacts, note }),
                    other => {
                        let keys = artifacts.iter().filter_map(|a| self.artifact_key(&a.name).ok());
                        self.give_up_stored(&keys.collect::<Vec<_>>(), other.and_then(Result::err)).await
                    }
                }
            }
            end => Some(end),
        }
    }

    fn interrupted(&self) -> Option<JobEvent> {
        match self.stop_signal.reason() {
            Some(Stop::Lost) => None,
            Some(Stop::Asked) => Some(JobEvent::Cancelled),
            Some(Stop::Shutdown) => {
                let message = "the server stopped while the job ran";
                let error = JobError::new(FailureClass::Infrastructure, message);
                Some(JobEvent::Requeued { error, not_before: None, refund: true })
            }
            None => {
                let message = "the builder stopped without being asked to";
                let error = JobError::new(FailureClass::Infrastructure, message);
                Some(JobEvent::Failed { error })
            }
        }
    }

    /// Another attempt for what may pass, the end for everything else. What the backend is at fault for before the
    /// first step costs no attempt: the job goes elsewhere, or waits until the backend is back.
    fn retry_or_fail(&self, error: &Error) -> JobEvent {
        let failure = job_error("", error);
        if failure.class != FailureClass::Infrastructure {
            return JobEvent::Failed { error: failure };
        }
        let now = self.parts.clock.now();
        if error.blamed() == Some(Blame::Backend) && !self.events.step_began() {
            let troubled = self.trouble_since.map_or(Duration::ZERO, |since| elapsed(since, now));
            if troubled >= limits::BACKEND_TROUBLE {
                return JobEvent::Failed { error: failure };
            }
            let pause = (troubled / 4).clamp(self.options.retry_pause, limits::RETRY_PAUSE_MAX);
            return JobEvent::Requeued {
                error: failure,
                not_before: Some(later(now, spread(pause))),
                refund: true,
            };
        }
        if self.counted >= self.options.attempts_max {
            return JobEvent::Failed { error: failure };
        }
        let doublings = self.counted.saturating_sub(1).min(16);
        let pause = self.options.retry_pause.saturating_mul(1 << doublings).min(limits::RETRY_PAUSE_MAX);
        JobEvent::Requeued { error: failure, not_before: Some(later(now, spread(pause))), refund: false }
    }

    /// Stores the files; the event of success, or of what came between. While the storage does not take them they are
    /// kept, and the storing is repeated: a build costs more than patience.
    async fn succeed(&self, outcome: &BuildOutcome) -> Option<JobEvent> {
        let started_at = Instant::now();
        let mut stored = Vec::new();
        let store = async {
            let mut artifacts = Vec::new();
            for file in &outcome.files {
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
            self.stop_signal.token.run_until_cancelled(store).await;
        match result {
            Some(Ok(artifacts)) => {
                let took = started_at.elapsed();
                self.events.emit(BuildEvent::PhaseFinished { phase: Phase::Store, took });
                Some(JobEvent::Succeeded { artifacts, note: None })
            }
            other => self.give_up_stored(&stored, other.and_then(Result::err)).await,
        }
    }

    /// Removes what was stored of an attempt that does not succeed after all.
    async fn give_up_stored(&self, stored: &[ArtifactKey], error: Option<NotStored>) -> Option<JobEvent> {
        self.remove(stored).await;
        match error {
            Some(error) if self.stop_signal.reason().is_none() => Some(match error {
                NotStored::Files(error) => self.retry_or_fail(&error.blame_if_unknown(Blame::Farm)),
                NotStored::Storage(error) => {
                    let error = error.blame_if_unknown(Blame::Farm);
                    JobEvent::Failed {
                        error: job_error("the packages were built and could not be stored: ", &error),
                    }
                }
            }),
            _ => self.interrupted(),
        }
    }

    /// Repeats a storing that fails, for as long as it may help: [`limits::STORE_TROUBLE`] when the storage is away,
    /// [`limits::STORE_REFUSED`] when it refuses. The log says so at growing distances.
    async fn repeat<'f, T>(
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

    async fn store_file(&self, key: &ArtifactKey, file: &BuiltFile) -> Result<JobArtifact, NotStored> {
        let content = tokio::fs::File::open(&file.path).await;
        let content = content.map_err(|source| NotStored::Files(Error::io("open", &file.path, source)))?;
        let (path, is_readable) = (file.path.clone(), Arc::new(AtomicBool::new(true)));
        let readable = Arc::clone(&is_readable);
        let bytes = ReaderStream::with_capacity(content, limits::LOG_WRITE_BYTES).map_err(move |source| {
            readable.store(false, Ordering::Relaxed);
            Error::io("read", &path, source)
        });
        let stored = self.parts.artifact_storage.put(key, bytes.boxed()).await.map_err(|error| {
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

    /// Copies the log from the job store to the artifacts, a chunk at a time.
    async fn store_log(&self) -> Result<()> {
        let (job_store, id) = (Arc::clone(&self.parts.job_store), self.id);
        let chunks = stream::try_unfold(0u64, move |offset| {
            let job_store = Arc::clone(&job_store);
            async move {
                let chunk = job_store.read_log(id, offset, limits::LOG_READ_BYTES_MAX).await?;
                let next = offset.saturating_add(u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX));
                Ok((!chunk.bytes.is_empty()).then_some((chunk.bytes, next)))
            }
        });
        let chunks: ByteStream = chunks.boxed();
        self.parts.artifact_storage.put(&self.artifact_key(LOG_NAME)?, chunks).await.map(drop)
    }

    /// The key of an artifact of this attempt, which no other attempt writes to.
    fn artifact_key(&self, name: &str) -> Result<ArtifactKey> {
        // Names of files follow from the definition.
        artifact_key(self.id, self.number, name).map_err(|error| error.blame_if_unknown(Blame::Definition))
    }

    async fn remove(&self, keys: &[ArtifactKey]) {
        for key in keys {
            if let Err(error) = self.parts.artifact_storage.delete(key).await {
                tracing::warn!(%key, error = %error.chain(), "an artifact of an attempt is left over");
            }
        }
    }
}

/// An error as the job tells it, with whose fault it is.
fn job_error(before: &str, error: &Error) -> JobError {
    let class = match error.blamed() {
        Some(Blame::Definition) => FailureClass::Build,
        Some(Blame::Policy) => FailureClass::Policy,
        Some(Blame::Farm | Blame::Backend) | None => FailureClass::Infrastructure,
    };
    let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
    JobError::new(class, format!("{before}{}{hint}", error.chain()))
}

/// The last line of an attempt's log.
fn ending_line(end: Option<&JobEvent>) -> String {
    match end {
        Some(JobEvent::Succeeded { note: None, .. }) => "--- the build succeeded".to_owned(),
        Some(JobEvent::Succeeded { note: Some(note), .. }) => format!("--- nothing to build: {note}"),
        Some(JobEvent::Failed { error }) if error.class == FailureClass::Build => {
            format!("--- the build failed: {}", error.message)
        }
        Some(JobEvent::Failed { error }) => {
            format!("--- the build could not be tried to its end: {}", error.message)
        }
        Some(JobEvent::Requeued { error, .. }) => {
            format!("--- the build is given back and tried again: {}", error.message)
        }
        _ => "--- the build was stopped".to_owned(),
    }
}
