//! The artifacts of a job: their list, and each of them, whole or in part.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use melange_remote_sdk::api::v1::{ArtifactView, ErrorResponse};
use melange_remote_sdk::artifact_storage::layout::{LOG_NAME, attempt_folder, job_folder};
use melange_remote_sdk::artifact_storage::{ArtifactKey, StoredArtifact};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::JobId;

use super::ranges::{self, Asked, not_satisfiable};
use super::{content_type, job_id, require_finished};
use crate::app::App;
use crate::problem::Handled;

/// List the artifacts of a job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/artifacts",
    tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 200, description = "The artifacts; none before the job has finished", body = Vec<ArtifactView>),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn list(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<Vec<ArtifactView>>> {
    let Some(attempt) = finished_attempt(&app, job_id(&id)?).await? else { return Ok(Json(Vec::new())) };
    let stored = app.artifact_storage.list(&attempt).await?;
    let view = |artifact: StoredArtifact| {
        let name = artifact.key.as_str().strip_prefix(&format!("{attempt}/"))?.to_owned();
        // It is read as a log, and comes a moment after the end.
        if name == LOG_NAME {
            return None;
        }
        Some(ArtifactView { name, size: artifact.size_bytes, sha256: artifact.sha256 })
    };
    Ok(Json(stored.into_iter().filter_map(view).collect()))
}

/// The folder of the attempt that a finished job ended with; `None` for a job that has not finished, whatever an
/// attempt may have stored so far, and for one that never began.
///
/// # Errors
/// `NotFound` when neither the job store nor the artifacts know the job; `Gone` when its artifacts were removed.
pub(super) async fn finished_attempt(app: &App, id: JobId) -> Result<Option<ArtifactKey>, Error> {
    let attempt = match app.job_store.get(id).await {
        Ok(job) if job.state.is_terminal() => match job.artifacts_removed_at {
            None => job.attempt,
            Some(at) => {
                let message = format!("the artifacts were removed at {at:.0}");
                let error = Error::new(ErrorKind::Gone, message).with("job", id);
                let hint = "the rules of the server say for how long artifacts are kept (--keep-artifacts)";
                return Err(error.hint(hint));
            }
        },
        Ok(_) => return Ok(None),
        // The job store may forget what the artifacts still have.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = job_folder(id)?;
            let number = |artifact: &StoredArtifact| {
                let inside = artifact.key.as_str().strip_prefix(&format!("{folder}/"))?;
                inside.split_once('/')?.0.parse().ok()
            };
            let stored = app.artifact_storage.list(&folder).await?;
            stored.iter().filter_map(number).max().ok_or(error)?
        }
        Err(error) => return Err(error),
    };
    Ok(Some(attempt_folder(id, attempt)?).filter(|_| attempt > 0))
}

/// The key of an artifact of a finished job.
async fn key_of(app: &App, id: JobId, name: &str) -> Result<ArtifactKey, Error> {
    let missing = || {
        let error = Error::new(ErrorKind::NotFound, format!("the job has no artifact {name:?}"));
        error.with("job", id).hint("list the artifacts of the job to see their names")
    };
    finished_attempt(app, id).await?.ok_or_else(missing)?.join(name)
}

/// Download an artifact, whole or in part.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/artifacts/{*name}",
    tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job"),
        ("name" = String, Path, description = "The name of the artifact, such as x86_64/hello-2.10-r0.apk"),
        ("range" = Option<String>, Header, description = "A range of bytes"),
        ("if-none-match" = Option<String>, Header, description = "The entity tag that the caller has")
    ),
    responses(
        (status = 200, description = "The artifact", content_type = "application/octet-stream", headers(("etag" = String, description = "Its SHA-256"))),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The caller has it already"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn get(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Handled<Response> {
    let id = job_id(&id)?;
    let key = key_of(&app, id, &name).await?;
    let artifact = match app.artifact_storage.head(&key).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let error = Error::new(ErrorKind::NotFound, format!("the job has no artifact {name:?}"));
            return Err(error
                .with("job", id)
                .hint("list the artifacts of the job to see their names")
                .into());
        }
        found => found?,
    };
    Ok(answer(&app, &artifact, &headers).await?)
}

/// An artifact, or the part of it that a request asks for, unless its sender has it already.
pub(super) async fn answer(
    app: &App,
    artifact: &StoredArtifact,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let tag = format!("\"{}\"", artifact.sha256);
    if ranges::is_known(headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let range = match ranges::asked(headers, &tag, artifact.size_bytes) {
        Asked::Everything => None,
        Asked::Part(range) => Some(range),
        Asked::Nothing => return Ok(not_satisfiable(artifact.key.as_str(), artifact.size_bytes)),
    };
    let body = app.artifact_storage.get(&artifact.key, range.clone()).await?;
    let sent = body.range;
    let mut response = Response::new(Body::from_stream(body.bytes.map_err(io::Error::other)));
    let mut set = |name: header::HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, content_type(artifact.key.as_str()));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::ETAG, &tag);
    ranges::tell(&mut response, sent, range.is_some(), artifact.size_bytes);
    Ok(response)
}

/// Remove one artifact of a finished job.
///
/// The job goes on telling what it made.
#[utoipa::path(
    delete,
    path = "/api/v1/jobs/{id}/artifacts/{*name}",
    tag = "artifacts",
    params(
        ("id" = String, Path, description = "The job"),
        ("name" = String, Path, description = "The name of the artifact, such as x86_64/hello-2.10-r0.apk")
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
) -> Handled<StatusCode> {
    let id = job_id(&id)?;
    match app.job_store.get(id).await {
        Ok(job) => require_finished(&job)?,
        // The job store may forget what the artifacts still have.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let key = key_of(&app, id, &name).await?;
    app.artifact_storage.head(&key).await?;
    app.artifact_storage.delete(&key).await?;
    tracing::info!(job = %id, name, "an artifact was removed");
    Ok(StatusCode::NO_CONTENT)
}
