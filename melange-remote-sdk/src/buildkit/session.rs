//! One session: what a daemon may ask of us while it solves one plan. Ends when dropped.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::upload::v1::upload_server::UploadServer;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use super::export::{ExportService, Received};
use super::failure::status_error;
use super::probe::Control;
use super::tunnel::Tunnel;
use super::upload::UploadService;
use crate::builder::BuildSink;
use crate::error::{Error, ErrorKind, Result};
use crate::guest::GuestPlan;
use crate::limits;

/// Every method that we serve; a daemon takes one that is not listed for missing.
const METHODS: [&str; 3] =
    ["/grpc.health.v1.Health/Check", "/moby.upload.v1.Upload/Pull", "/moby.filesync.v1.FileSend/DiffCopy"];
/// Headers of requests that a daemon may send us.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// Flow control of the inner connection, as of the outer one.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    /// The name by which a solve refers to it.
    pub(super) id: String,
    /// What became of the output file.
    pub(super) received: Arc<Received>,
    /// The daemon's signs of life.
    pub(super) pulse: Arc<Pulse>,
    stop: DropGuard,
}

impl Session {
    /// Ends the session now: an upload that is under way breaks off, which a daemon waits for when a build is called
    /// off.
    pub(super) fn close(self) {
        drop(self.stop);
    }
}

/// A daemon asks every few seconds whether the session is still there. While it does, the connection lives; when it
/// stops, the connection is dead although nobody closed it.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits until a daemon that asked before has not asked for `silence`. One that never asks is left alone.
    pub(super) async fn stopped(&self, silence: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let due = last.unwrap_or(now) + silence;
            if due <= now {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Opens a session that offers the files of `plan` and takes the result into the file `output`.
pub(super) async fn open(
    mut control: Control,
    plan: &GuestPlan,
    output: PathBuf,
    sent_bytes: Arc<AtomicU64>,
    sink: Arc<dyn BuildSink>,
) -> Result<Session> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let (outgoing, messages) = mpsc::channel(limits::BUILDKIT_TUNNEL_QUEUE_MAX);
    let request = session_request(&id, &plan.name, messages)?;
    // The daemon answers once it has something to say in the tunnel: its connection preface.
    let opened = tokio::time::timeout(limits::BUILDKIT_SESSION_OPEN, control.session(request)).await;
    let incoming = opened
        .map_err(|elapsed| {
            Error::new(ErrorKind::Unavailable, "the BuildKit daemon does not open a session").source(elapsed)
        })?
        .map_err(|status| status_error(status, "the BuildKit daemon refused a session"))?
        .into_inner();
    let received = Arc::new(Received::default());
    let export =
        ExportService { path: output, bytes_max: limits::OUTPUT_BYTES_MAX, received: Arc::clone(&received) };
    let stop = CancellationToken::new();
    let tunnel = Tunnel::new(incoming, outgoing, stop.clone());
    let pulse = Arc::new(Pulse::default());
    let services =
        Services { upload: UploadService::new(plan, sent_bytes, sink), export, pulse: Arc::clone(&pulse) };
    tokio::spawn(serve(tunnel, services, stop.clone()));
    Ok(Session { id, received, pulse, stop: stop.drop_guard() })
}

fn session_request(
    id: &str,
    name: &str,
    messages: mpsc::Receiver<BytesMessage>,
) -> Result<Request<ReceiverStream<BytesMessage>>> {
    let invalid = |error| Error::invalid("the plan's name cannot stand in a header").source(error);
    let mut request = Request::new(ReceiverStream::new(messages));
    let metadata = request.metadata_mut();
    metadata.insert("x-docker-expose-session-uuid", id.parse().map_err(invalid)?);
    metadata.insert("x-docker-expose-session-name", name.parse().map_err(invalid)?);
    metadata.insert("x-docker-expose-session-sharedkey", id.parse().map_err(invalid)?);
    for method in METHODS {
        let method = tonic::metadata::MetadataValue::from_static(method);
        metadata.append("x-docker-expose-session-grpc-method", method);
    }
    Ok(request)
}

/// What the daemon may ask for.
struct Services {
    upload: UploadService,
    export: ExportService,
    pulse: Arc<Pulse>,
}

/// Serves the daemon until it closes the tunnel or the session is dropped.
async fn serve(tunnel: Tunnel, services: Services, stop: CancellationToken) {
    let Services { upload, export, pulse } = services;
    // One connection; the server would end with the list of connections.
    let connections = futures_util::stream::once(std::future::ready(Ok::<_, std::io::Error>(tunnel)))
        .chain(futures_util::stream::pending());
    let export = FileSendServer::new(export).max_decoding_message_size(limits::BUILDKIT_MESSAGE_BYTES_MAX);
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .add_service(HealthServer::new(AlwaysServing(pulse)))
        .add_service(UploadServer::new(upload))
        .add_service(export)
        .serve_with_incoming(connections);
    tokio::select! {
        () = stop.cancelled() => {}
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "a session ended with an error");
        }
    }
}

/// The daemon asks every few seconds, and drops a session that does not answer.
#[derive(Debug)]
struct AlwaysServing(Arc<Pulse>);

#[tonic::async_trait]
impl Health for AlwaysServing {
    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.beat();
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}
