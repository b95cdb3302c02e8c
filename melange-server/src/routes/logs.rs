//! The log of a job: what there is, or live.

use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use melange_remote_sdk::api::v1::ErrorResponse;
use melange_remote_sdk::artifact_storage::layout::LOG_NAME;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{JobId, JobTest};
use melange_remote_sdk::job_store::Subject;
use melange_remote_sdk::limits;

use super::{Parameters, job_id, text_stream};
use crate::app::App;
use crate::problem::Handled;

/// Read the log of a job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("offset" = Option<u64>, Query, description = "Bytes to skip"),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on until the job has finished"),
        ("attempt" = Option<u32>, Query, description = "Only the part of the attempt with this number"),
        ("test" = Option<String>, Query, description = "Only the part of the test of this package, of the last attempt")
    ),
    responses(
        (status = 200, description = "The log", body = String, content_type = "text/plain"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn read(State(app): State<App>, Path(id): Path<String>, uri: Uri) -> Handled<Response> {
    let id = job_id(&id)?;
    let parameters = Parameters::read(&uri, &["offset", "follow", "attempt", "test"])?;
    let mut offset = parameters.get("offset", "a whole number from 0")?.unwrap_or(0);
    let follow = parameters.get("follow", "true or false")?.unwrap_or(false);
    let test: Option<String> = parameters.get("test", "the name of a package")?;
    let attempt: Option<u32> = parameters.get("attempt", "the number of an attempt")?;
    let part = match (&test, attempt) {
        (None, None) => None,
        (Some(package), None) => Some(Part::Test(package.clone())),
        (None, Some(number)) => Some(Part::Attempt(number)),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("`attempt` and `test` name different parts of the log").into());
        }
    };
    let mut end = None;
    if let Some(part) = &part {
        let begin;
        (begin, end) = part.range(&app, id).await?;
        offset = begin.saturating_add(offset);
    }
    match app.job_store.read_log(id, offset, 1).await {
        Ok(_) => {
            let chunks = follow_log(app, Reader { id, offset, follow, part });
            Ok(text_stream(Body::from_stream(chunks.map_err(io::Error::other))))
        }
        // The job store may forget what the artifacts still have.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            stored(&app, id, offset..end.unwrap_or(u64::MAX), error).await
        }
        Err(error) => Err(error.into()),
    }
}

struct Reader {
    id: JobId,
    offset: u64,
    follow: bool,
    /// What the reader is interested in, and ends with.
    part: Option<Part>,
}

/// A part of a job's log.
enum Part {
    /// That of the test of this package.
    Test(String),
    /// That of the attempt with this number.
    Attempt(u32),
}

impl Part {
    /// Where it begins, and where it ends once it does.
    async fn range(&self, app: &App, id: JobId) -> Result<(u64, Option<u64>)> {
        match self {
            Self::Test(package) => {
                let test = test_of(app, id, package).await?;
                Ok((test.log_begin, test.log_end))
            }
            Self::Attempt(number) => {
                let attempt = app.job_store.attempt(id, *number).await?;
                Ok((attempt.log_begin, attempt.log_end))
            }
        }
    }
}

/// A test of a job.
async fn test_of(app: &App, id: JobId, package: &str) -> Result<JobTest> {
    let job = app.job_store.get(id).await?;
    let tests = match job.attempt {
        0 => Vec::new(),
        number => app.job_store.attempt(id, number).await?.tests,
    };
    tests.iter().rev().find(|test| test.package == package).cloned().ok_or_else(|| {
        let known: Vec<&str> = tests.iter().map(|test| test.package.as_str()).collect();
        let hint = if known.is_empty() {
            "the job has no tests, or they have not begun".to_owned()
        } else {
            format!("there are tests of {}", known.join(", "))
        };
        Error::new(ErrorKind::NotFound, format!("the job has no test of {package:?}")).hint(hint)
    })
}

/// The chunks of the log from the reader's offset on, until there is no more to come.
fn follow_log(app: App, reader: Reader) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold((app, reader), |(app, mut reader)| async move {
        let bytes = next_chunk(&app, &reader).await?;
        reader.offset = reader.offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok((!bytes.is_empty()).then_some((bytes, (app, reader))))
    })
}

/// The next chunk; empty at the end.
async fn next_chunk(app: &App, reader: &Reader) -> Result<Bytes> {
    loop {
        // Subscribed and looked at before the log is read: lines behind the last look are not missed.
        let mut hint = app.job_store.changed(Subject::Log(reader.id));
        let mut ended = app.job_store.get(reader.id).await?.state.is_terminal();
        let mut most = limits::LOG_READ_BYTES_MAX;
        if let Some(part) = &reader.part
            && let (_, Some(end)) = part.range(app, reader.id).await?
        {
            ended = true;
            most = most.min(usize::try_from(end.saturating_sub(reader.offset)).unwrap_or(most));
        }
        if most == 0 {
            return Ok(Bytes::new());
        }
        let chunk = app.job_store.read_log(reader.id, reader.offset, most).await?;
        if !chunk.bytes.is_empty() || ended || !reader.follow {
            return Ok(chunk.bytes);
        }
        tokio::select! {
            () = app.stopping.cancelled() => return Ok(Bytes::new()),
            () = tokio::time::sleep(limits::SCHEDULER_POLL) => {}
            changed = hint.changed() => if changed.is_err() {
                tokio::time::sleep(limits::SCHEDULER_POLL).await;
            },
        }
    }
}

/// The bytes of a range that the log among the artifacts has.
async fn stored(app: &App, id: JobId, wanted: Range<u64>, missing: Error) -> Handled<Response> {
    let Some(attempt) = super::artifacts::finished_attempt(app, id).await? else {
        return Err(missing.into());
    };
    let key = attempt.join(LOG_NAME)?;
    let log = match app.artifact_storage.head(&key).await {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing.into()),
        Err(error) => return Err(error.into()),
    };
    let range = wanted.start..wanted.end.min(log.size_bytes);
    if range.is_empty() {
        return Ok(text_stream(Body::empty()));
    }
    let body = app.artifact_storage.get(&key, Some(range)).await?;
    Ok(text_stream(Body::from_stream(body.bytes.map_err(io::Error::other).boxed())))
}
