//! The files beside definitions, as archives that are named by their digests.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt};
use melange_remote_sdk::api::v1::{self, ErrorDetail, ErrorResponse, SourceView};
use melange_remote_sdk::artifact_storage::StoredArtifact;
use melange_remote_sdk::artifact_storage::layout::source_key;
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::SourceDigest;
use melange_remote_sdk::limits;
use melange_remote_sdk::sources::{self, SourceSummary};
use tokio_util::io::ReaderStream;

use super::body::{BodyBounds, BodyReader};
use crate::app::App;
use crate::problem::{Handled, Problem};

/// Send the files beside a definition.
///
/// The body is a plain tar of files and folders. It gets its name once its digest and all of its entries were checked, and
/// sending it again changes nothing.
#[utoipa::path(
    put,
    path = "/api/v1/sources/{digest}",
    tag = "sources",
    params(
        ("digest" = String, Path, description = "The SHA-256 of the body: `sha256:` and 64 digits")
    ),
    request_body(content = String, content_type = "application/x-tar", description = "The archive"),
    responses(
        (status = 201, description = "It is stored", body = SourceView),
        (status = 200, description = "It was stored before", body = SourceView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn put(State(app): State<App>, Path(digest): Path<String>, body: Body) -> Handled<Response> {
    if app.stopping.is_cancelled() {
        return Err(Error::new(ErrorKind::Unavailable, "the server stops and takes no more files").into());
    }
    let digest: SourceDigest = digest.parse()?;
    let bounds = BodyBounds {
        bytes_max: limits::SOURCE_ARCHIVE_BYTES_MAX,
        time: limits::SOURCE_ARCHIVE_TIME,
        room: Arc::clone(&app.archives),
    };
    let mut reader = BodyReader::new(body, bounds)?;
    let mut intake = app.sources.intake().await?;
    while let Some(chunk) = reader.next().await? {
        intake.push(&chunk).await?;
    }
    let (archive, found) = intake.finish().await?;
    if found != digest {
        let error = Error::invalid(format!("the body has the digest {found}, and the path names {digest}"));
        return Err(error.hint("send the very bytes that the digest was made of").into());
    }
    let (archive, summary) = check(archive).await?;
    let (status, stored) = match known(&app, &digest).await? {
        Some(stored) => (StatusCode::OK, stored),
        // Missing, or something else of this name.
        None => {
            let bytes =
                ReaderStream::with_capacity(tokio::fs::File::from_std(archive), limits::SOURCE_CHUNK_BYTES);
            let failed = |e| Error::unexpected("a temporary file cannot be read").source(e);
            let key = source_key(&digest)?;
            let stored = app.artifact_storage.put(&key, bytes.map_err(failed).boxed()).await?;
            tracing::info!(source = %digest, bytes = stored.size_bytes, files = summary.files, "source files came");
            (StatusCode::CREATED, stored)
        }
    };
    let view = SourceView { digest: digest.to_string(), size: stored.size_bytes, files: summary.files };
    Ok((status, Json(view)).into_response())
}

/// Get an archive of source files.
#[utoipa::path(
    get,
    path = "/api/v1/sources/{digest}",
    tag = "sources",
    params(
        ("digest" = String, Path, description = "Its SHA-256: `sha256:` and 64 digits")
    ),
    responses(
        (status = 200, description = "The archive", content_type = "application/x-tar"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn get(State(app): State<App>, Path(digest): Path<String>) -> Handled<Response> {
    let digest: SourceDigest = digest.parse()?;
    let stored = known(&app, &digest).await?.ok_or_else(|| unknown(&digest))?;
    let body = app.artifact_storage.get(&stored.key, None).await?;
    Ok(described(Body::from_stream(body.bytes.map_err(io::Error::other)), &digest, &stored))
}

/// Ask whether source files are known.
#[utoipa::path(
    head,
    path = "/api/v1/sources/{digest}",
    tag = "sources",
    params(
        ("digest" = String, Path, description = "The SHA-256 of their archive: `sha256:` and 64 digits")
    ),
    responses(
        (status = 200, description = "They are known; `content-length` is the size of the archive"),
        (status = "4XX", description = "They are not"),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later")
    )
)]
pub(super) async fn head(State(app): State<App>, Path(digest): Path<String>) -> Handled<Response> {
    let digest: SourceDigest = digest.parse()?;
    let stored = known(&app, &digest).await?.ok_or_else(|| unknown(&digest))?;
    Ok(described(Body::empty(), &digest, &stored))
}

/// Refuses a submission whose files are not there.
pub(super) async fn require(app: &App, digest: &SourceDigest) -> Handled<()> {
    if known(app, digest).await?.is_some() {
        return Ok(());
    }
    Err(Problem::mistakes(vec![ErrorDetail::field("source", &unknown(digest))]))
}

async fn known(app: &App, digest: &SourceDigest) -> Result<Option<StoredArtifact>, Error> {
    sources::known(&*app.artifact_storage, digest, app.clock.now()).await
}

fn unknown(digest: &SourceDigest) -> Error {
    Error::new(ErrorKind::NotFound, format!("this server has no source files {digest}"))
        .hint(format!("send their archive first: PUT {}", v1::source(digest)))
}

fn described(body: Body, digest: &SourceDigest, stored: &StoredArtifact) -> Response {
    let mut response = Response::new(body);
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, v1::SOURCE_TYPE.to_owned());
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned());
    set(header::CONTENT_LENGTH, stored.size_bytes.to_string());
    set(header::ETAG, format!("\"{}\"", digest.hex()));
    response
}

/// Reads an archive to its end; the archive from its beginning, and what it holds.
async fn check(mut archive: File) -> Handled<(File, SourceSummary)> {
    let failed = |e| Error::unexpected("a temporary file cannot be read").source(e);
    let checked = move || {
        let summary = sources::check(BufReader::new(&archive))?;
        archive.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok((archive, summary))
    };
    let done = tokio::task::spawn_blocking(checked).await;
    let done = done.unwrap_or_else(|error| Err(Error::unexpected("reading an archive died").source(error)));
    done.map_err(|error: Error| match error.kind() {
        // It is this request that is too large, and the next one will be too.
        ErrorKind::LimitExceeded => {
            Problem::from(error).with_status(StatusCode::PAYLOAD_TOO_LARGE, "limit_exceeded")
        }
        _ => error.into(),
    })
}
