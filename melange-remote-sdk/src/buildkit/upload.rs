//! Service of the session: the daemon pulls files of the plan by their SHA-256, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_server::Upload;
use futures_util::{Stream, StreamExt};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::builder::{BuildEvent, BuildSink, LogStream, Phase};
use crate::guest::{Blob, GuestPlan};
use crate::limits;

/// The files that one session offers.
#[derive(Debug)]
pub(super) struct UploadService {
    files: BTreeMap<String, PathBuf>,
    sent_bytes: Arc<AtomicU64>,
    transfer: Arc<Transfer>,
}

/// The least time between two lines about an upload.
const TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// Tells how the upload of one build goes on. A phase of its own begins with the first file that the daemon asks for
/// and ends when it asks for no more.
struct Transfer {
    sink: Arc<dyn BuildSink>,
    state: Mutex<TransferState>,
}

#[derive(Default)]
struct TransferState {
    begun: Option<Instant>,
    told: Option<Instant>,
    files: u32,
    sent_bytes: u64,
}

/// One file on its way; dropping it says that it is over.
struct OneFile(Arc<Transfer>);

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").finish_non_exhaustive()
    }
}

impl Transfer {
    fn lock(&self) -> MutexGuard<'_, TransferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> OneFile {
        let mut state = self.lock();
        state.files += 1;
        if state.begun.is_none() {
            let now = Instant::now();
            (state.begun, state.told) = (Some(now), Some(now));
            self.sink.emit(BuildEvent::PhaseStarted { phase: Phase::Upload });
        }
        drop(state);
        OneFile(Arc::clone(self))
    }

    fn sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.sent_bytes += bytes as u64;
        let (Some(begun), Some(told)) = (state.begun, state.told) else { return };
        if told.elapsed() < TOLD_INTERVAL {
            return;
        }
        state.told = Some(Instant::now());
        let (seconds, mebibytes) = (begun.elapsed().as_secs().max(1), state.sent_bytes >> 20);
        drop(state);
        let rate = mebibytes / seconds;
        let line = format!("{mebibytes} MiB sent to the daemon in {seconds} s ({rate} MiB/s)");
        self.sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line });
    }
}

impl Drop for OneFile {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.files -= 1;
        if let (0, Some(begun)) = (state.files, state.begun) {
            let took = begun.elapsed();
            drop(state);
            self.0.sink.emit(BuildEvent::PhaseFinished { phase: Phase::Upload, took });
        }
    }
}

impl UploadService {
    /// Offers the files of `plan`; every byte that goes out is added to `sent_bytes`, and `sink` is told how it goes on.
    pub(super) fn new(plan: &GuestPlan, sent_bytes: Arc<AtomicU64>, sink: Arc<dyn BuildSink>) -> Self {
        let blobs = blobs(plan).map(|blob| (blob.sha256.clone(), blob.path.clone()));
        let transfer = Arc::new(Transfer { sink, state: Mutex::default() });
        Self { files: blobs.collect(), sent_bytes, transfer }
    }
}

/// Every file that a plan refers to.
pub(super) fn blobs(plan: &GuestPlan) -> impl Iterator<Item = &Blob> {
    let sources = plan.sources.iter().map(|source| &source.blob);
    std::iter::once(&plan.root).chain(&plan.workspace).chain(sources)
}

#[tonic::async_trait]
impl Upload for UploadService {
    type PullStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path =
            request.metadata().get("urlpath").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = path.trim_start_matches('/');
        let Some(path) = self.files.get(name) else {
            return Err(Status::not_found("this file is not part of the build"));
        };
        let file = tokio::fs::File::open(path).await.map_err(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot open a file that the daemon asked for");
            Status::internal(format!("cannot open the file {name}: {error}"))
        })?;
        tracing::debug!(name, "sending a file to the daemon");
        let sent_bytes = Arc::clone(&self.sent_bytes);
        let one = self.transfer.begin();
        let chunks = ReaderStream::with_capacity(file, limits::BUILDKIT_CHUNK_BYTES).map(move |chunk| {
            let chunk = chunk.map_err(|error| Status::internal(format!("cannot read the file: {error}")))?;
            sent_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            one.0.sent(chunk.len());
            Ok(BytesMessage { data: chunk.into() })
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}
