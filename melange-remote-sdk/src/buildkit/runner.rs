//! Station 10: [`GuestRunner`] over a BuildKit daemon.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::connect::{Connected, connect};
use super::export::Received;
use super::failure::{SolveFailure, status_error};
use super::probe::{Control, DaemonInfo, list_workers};
use super::progress::Progress;
use super::session;
use super::solve::{Solved, solve};
use super::tls::TlsOptions;
use super::upload::blobs;
use crate::backend::BackendAddress;
use crate::builder::{BuildSink, StepFailure};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::{self, GuestOutcome, GuestPlan, GuestRunner, RootForm};
use crate::limits;
use crate::llb::{CacheMounts, LoweredPlan, PlanOptions, from_plan};

/// The exit code of a step that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// What a daemon says of a file that is not there.
const MISSING: [&str; 3] = ["no such file or directory", "not a directory", "not found"];

/// What a runner needs besides an address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildkitOptions {
    /// TLS; only for addresses that begin with `tcp://`.
    pub tls: Option<TlsOptions>,
    /// Folders of the guest's cache that outlive a build on the daemon; by default none do, because builds
    /// that share them can change what the others find.
    pub cache: Option<CacheMounts>,
    /// How long a daemon may be silent within a build before its connection counts as dead.
    pub stall: Duration,
}

impl Default for BuildkitOptions {
    fn default() -> Self {
        Self { tls: None, cache: None, stall: limits::BUILDKIT_STALL }
    }
}

/// Bytes that a runner has exchanged with its daemon, all runs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Of files that the daemon asked for: root filesystems, workspaces, sources.
    pub sent_bytes: u64,
    /// Of output trees.
    pub received_bytes: u64,
}

/// Runs guests on one BuildKit daemon, any number at once over one connection.
///
/// The connection is made by the first run or [`Self::ping`], and made anew when the daemon does not answer on
/// it any more.
#[derive(Debug)]
pub struct BuildkitRunner {
    address: BackendAddress,
    options: BuildkitOptions,
    connection: Mutex<Option<Connection>>,
    sent_bytes: Arc<AtomicU64>,
    received_bytes: AtomicU64,
}

/// A connection with a number that tells it from the ones before.
#[derive(Debug, Clone)]
struct Connection {
    number: u64,
    connected: Connected,
}

impl BuildkitRunner {
    /// A runner for the daemon at `address`. Nothing is connected yet.
    pub fn new(address: BackendAddress, options: BuildkitOptions) -> Self {
        Self {
            address,
            options,
            connection: Mutex::new(None),
            sent_bytes: Arc::default(),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// The daemon's address.
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// Whether the daemon answers, and what it runs.
    pub async fn ping(&self) -> Result<DaemonInfo> {
        Ok(self.connected().await?.1)
    }

    /// What was transferred so far.
    pub fn transferred(&self) -> TransferCounts {
        TransferCounts {
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    /// A connection on which the daemon has just answered.
    async fn connected(&self) -> Result<(Connected, DaemonInfo)> {
        let known = self.connection.lock().await.clone();
        let mut number = 0;
        if let Some(connection) = known {
            if let Some(info) = answers(&connection.connected.control).await {
                return Ok((connection.connected, info));
            }
            number = connection.number;
        }
        let mut slot = self.connection.lock().await;
        // Another run may have connected anew while this one waited.
        if let Some(connection) = slot.as_ref().filter(|connection| connection.number > number)
            && let Some(info) = answers(&connection.connected.control).await
        {
            return Ok((connection.connected.clone(), info));
        }
        let (connected, info) = connect(&self.address, self.options.tls.as_ref()).await?;
        tracing::debug!(address = %self.address, "connected to a BuildKit daemon");
        *slot = Some(Connection { number: number + 1, connected: connected.clone() });
        Ok((connected, info))
    }

    /// One try.
    async fn attempt(
        &self,
        plan: &GuestPlan,
        lowered: &LoweredPlan,
        output: &Path,
        progress: &mut Progress,
        cancel: &CancellationToken,
    ) -> Result<GuestOutcome> {
        let Some(connected) = cancel.run_until_cancelled(self.connected()).await else {
            return Ok(GuestOutcome::Cancelled);
        };
        let (connected, info) = connected?;
        if !info.runs(plan.arch) {
            let platforms: Vec<String> = info.platforms.into_iter().collect();
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the BuildKit daemon does not run this architecture",
            )
            .with("arch", plan.arch)
            .with("address", &self.address)
            .hint(format!("it runs {}", platforms.join(", "))));
        }
        let sent_bytes = Arc::clone(&self.sent_bytes);
        let control = connected.control.clone();
        let session = session::open(control, plan, output.to_owned(), sent_bytes, progress.sink());
        let Some(session) = cancel.run_until_cancelled(session).await else {
            return Ok(GuestOutcome::Cancelled);
        };
        let session = session?;
        let stall = self.options.stall;
        let received = Arc::clone(&session.received);
        let solved = solve(&connected, &lowered.definition, session, progress, stall, cancel).await;
        self.received_bytes.fetch_add(received.bytes(), Ordering::Relaxed);
        match solved {
            Solved::Done if received.is_complete() => Ok(GuestOutcome::Succeeded),
            Solved::Done => Err(self.lost("the BuildKit daemon did not send the output")),
            Solved::Cancelled { confirmed: true } => Ok(GuestOutcome::Cancelled),
            Solved::Cancelled { confirmed: false } => {
                Err(self.lost("the BuildKit daemon did not confirm the end of a cancelled build"))
            }
            Solved::Failed(status) => self.failed(plan, lowered, progress, &received, status),
        }
    }

    fn lost(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Unavailable, message).with("address", &self.address)
    }

    /// A solve that the daemon refused: a step's fault is an outcome, everything else an error.
    fn failed(
        &self,
        plan: &GuestPlan,
        lowered: &LoweredPlan,
        progress: &Progress,
        received: &Received,
        status: tonic::Status,
    ) -> Result<GuestOutcome> {
        if let Some(error) = received.take_error() {
            return Err(error);
        }
        let failure = SolveFailure::of(&status);
        let named = failure.vertex.as_ref().and_then(|digest| progress.step_of(digest));
        // A daemon whose progress broke off still tells the code, and only steps have one.
        let running = failure.exit_code.and(progress.last_begun());
        let step = named.or(progress.failed_step()).or(running);
        if let (Some(index), Some(exit_code), false) = (step, failure.exit_code, failure.stopped) {
            let step = plan.steps.get(index).map(|step| step.name.clone()).unwrap_or_default();
            // A daemon tells no more than the code; nobody but the kernel, when memory is short, kills steps.
            let out_of_memory = exit_code == KILLED;
            let tail = progress.tail();
            let failure = StepFailure { tail, out_of_memory, ..StepFailure::new(step, exit_code) };
            return Ok(GuestOutcome::StepFailed { index, failure });
        }
        if let Some((name, message)) = progress.other_failure()
            && let Some(path) = lowered.license_files.get(name)
            && MISSING.iter().any(|words| message.contains(words))
        {
            return Err(Error::invalid(guest::lacks_license_file(path)).blame(Blame::Definition));
        }
        let mut error = status_error(status, "the BuildKit daemon did not finish the build")
            .with("address", &self.address);
        if let Some(step) = step.and_then(|index| plan.steps.get(index)) {
            error = error.with("step", &step.name);
        } else if let Some((name, _)) = progress.other_failure() {
            error = error.with("operation", name);
        }
        Err(error)
    }
}

/// What the daemon answers on a connection that was made before.
async fn answers(control: &Control) -> Option<DaemonInfo> {
    let asked = tokio::time::timeout(limits::BUILDKIT_CONNECT, list_workers(control.clone())).await;
    asked.ok()?.ok()
}

/// Files that are not what the plan says would make the daemon wait or fail without a word of why.
async fn check_blobs(plan: &GuestPlan) -> Result<()> {
    for blob in blobs(plan) {
        let metadata = tokio::fs::metadata(&blob.path).await.map_err(|e| Error::io("read", &blob.path, e))?;
        if metadata.len() != blob.size_bytes {
            return Err(Error::unexpected("a file of the plan has changed")
                .blame(Blame::Farm)
                .with("path", blob.path.display())
                .with("bytes", metadata.len())
                .with("expected_bytes", blob.size_bytes));
        }
    }
    Ok(())
}

#[async_trait]
impl GuestRunner for BuildkitRunner {
    async fn root_form(&self) -> RootForm {
        RootForm::Archive
    }

    async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<GuestOutcome> {
        check_blobs(plan).await?;
        let attempt = uuid::Uuid::now_v7().simple().to_string();
        let options = PlanOptions { attempt: &attempt, cache: self.options.cache.as_ref() };
        let lowered = from_plan(plan, &options).map_err(|e| e.blame_if_unknown(Blame::Definition))?;
        let names: Vec<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
        let mut try_number = 0;
        loop {
            try_number += 1;
            let mut progress = Progress::new(&lowered.step_names, names.clone(), Arc::clone(&sink));
            let error = match self.attempt(plan, &lowered, output, &mut progress, &cancel).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let last = try_number >= limits::BUILDKIT_ENVIRONMENT_TRIES_MAX;
            let in_environment = progress.other_failure().is_some() && !progress.any_step_began();
            if last || !in_environment || !error.kind().is_retryable() {
                return Err(error);
            }
            // Builds of one environment share its upload: when the build whose session carried it ends early,
            // the others see the upload break. It is nobody's fault, and the next try gets its own.
            tracing::info!(%error, try_number, "the environment did not come through, trying again");
        }
    }
}
