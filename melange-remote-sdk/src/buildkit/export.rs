//! Service of the session: the daemon pushes the result, one tar, into one file.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use futures_util::Stream;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status, Streaming};

use crate::error::{Blame, Error, ErrorKind};

/// What became of the file.
#[derive(Debug, Default)]
pub(super) struct Received {
    started: AtomicBool,
    complete: AtomicBool,
    bytes: AtomicU64,
    error: Mutex<Option<Error>>,
}

impl Received {
    /// Whether the daemon sent the file to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// How much came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why we refused the rest of it, if we did. Told once.
    pub(super) fn take_error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: Error) -> Status {
        let status = Status::aborted(error.to_string());
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        status
    }
}

/// Writes what the daemon sends to one file, once, up to a bound.
#[derive(Debug)]
pub(super) struct ExportService {
    pub(super) path: PathBuf,
    pub(super) bytes_max: u64,
    pub(super) received: Arc<Received>,
}

impl ExportService {
    async fn receive(&self, mut chunks: Streaming<BytesMessage>) -> Result<(), Status> {
        let io = |operation| move |error| self.received.fail(Error::io(operation, &self.path, error));
        let mut file = tokio::fs::File::create(&self.path).await.map_err(io("create"))?;
        while let Some(chunk) = chunks.message().await? {
            let bytes = self.received.bytes.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
            if bytes + chunk.data.len() as u64 > self.bytes_max {
                let error = Error::new(ErrorKind::LimitExceeded, "the output of the build is too large")
                    .blame(Blame::Definition)
                    .with("bytes_max", self.bytes_max);
                return Err(self.received.fail(error));
            }
            file.write_all(&chunk.data).await.map_err(io("write"))?;
        }
        file.flush().await.map_err(io("write"))
    }
}

#[tonic::async_trait]
impl FileSend for ExportService {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        if self.received.started.swap(true, Ordering::AcqRel) {
            return Err(Status::failed_precondition("the result was sent already"));
        }
        self.receive(request.into_inner()).await?;
        self.received.complete.store(true, Ordering::Release);
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }
}
