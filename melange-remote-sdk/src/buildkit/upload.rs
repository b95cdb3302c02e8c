//! Service of the session: the daemon pulls files of the plan by their SHA-256, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_server::Upload;
use futures_util::{Stream, StreamExt};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::guest::{Blob, GuestPlan};
use crate::limits;

/// The files that one session offers.
#[derive(Debug)]
pub(super) struct UploadService {
    files: BTreeMap<String, PathBuf>,
    sent_bytes: Arc<AtomicU64>,
}

impl UploadService {
    /// Offers the files of `plan`; every byte that goes out is added to `sent_bytes`.
    pub(super) fn new(plan: &GuestPlan, sent_bytes: Arc<AtomicU64>) -> Self {
        let blobs = blobs(plan).map(|blob| (blob.sha256.clone(), blob.path.clone()));
        Self { files: blobs.collect(), sent_bytes }
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
        let chunks = ReaderStream::with_capacity(file, limits::BUILDKIT_CHUNK_BYTES).map(move |chunk| {
            let chunk = chunk.map_err(|error| Status::internal(format!("cannot read the file: {error}")))?;
            sent_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Ok(BytesMessage { data: chunk.into() })
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}
