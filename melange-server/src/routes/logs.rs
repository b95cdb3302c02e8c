//! The log of a job: what there is, or live; as text, lines of JSON, server-sent events.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use melange_remote_sdk::api::v1::{ErrorBody, ErrorResponse, LogLineView, LogLinesView, LogStateView};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{AttemptOutcome, JobAttempt, JobId, JobTest, LogPosition};
use melange_remote_sdk::job_log::{LogForm, LogLine, LogPart, LogQuery, LogReader};
use melange_remote_sdk::limits;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::streaming::{self, EVENTS, JSON_LINES, accepts, json_lines, last_event_id, room};
use super::{Parameters, TEXT, job_id};
use crate::app::App;
use crate::problem::Handled;

mod search;
mod text;
mod ws;

pub(super) use search::{__path_outline, __path_search, outline, search};
pub(super) use ws::{__path_socket, socket};

/// The parameters that choose lines.
const CHOICE: [&str; 8] = ["attempt", "since", "step", "stream", "tail", "test", "failed", "follow"];

/// Read the log of a job.
///
/// Lines are numbered from 1 in each attempt. A place in the log is written `ATTEMPT:LINE`; `since=2:120` goes on behind
/// line 120 of attempt 2, on any server, whatever happened meanwhile.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("attempt" = Option<u32>, Query, description = "Only lines of the attempt with this number; of all attempts otherwise, oldest first"),
        ("since" = Option<String>, Query, description = "Only lines behind a place (`2:120`, or `120` in the attempt that is asked for or the last one), or read at a time (RFC 3339) or within a duration (`10m`)"),
        ("step" = Option<String>, Query, description = "Only lines of the step with this index, from 0, or this name"),
        ("stream" = Option<String>, Query, description = "Only lines of `stdout`, `stderr`, or `engine`: what the farm itself says"),
        ("tail" = Option<u64>, Query, description = "Only so many of the last lines that there are"),
        ("test" = Option<String>, Query, description = "Only lines of the test of this package, of the last attempt"),
        ("failed" = Option<bool>, Query, description = "Only lines of the step that failed, of the last attempt that did"),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on until the job has finished"),
        ("format" = Option<String>, Query, description = "`text`, or `jsonl` for a `LogLineView` in each line; the Accept header may ask for application/x-ndjson or text/event-stream too"),
        ("last-event-id" = Option<String>, Header, description = "The place behind which events go on"),
        ("range" = Option<String>, Header, description = "A range of bytes of the text, when nothing but an attempt is chosen")
    ),
    responses(
        (status = 200, description = "The lines. Events are `lines` with a `LogLinesView`, whose ids are places in the log, and at last `end` with a `LogStateView`", body = String, content_type = "text/plain"),
        (status = 206, description = "The range of the text that was asked for"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn read(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Handled<Response> {
    let id = job_id(&id)?;
    let known: Vec<&str> = CHOICE.into_iter().chain(["format"]).collect();
    let parameters = Parameters::read(&uri, &known)?;
    let format = Format::of(&parameters, &headers)?;
    let mut query = choose(&app, id, &parameters).await?;
    if format == Format::Events {
        query.follow = true;
        if let Some(place) = last_event_id(&headers) {
            (query.behind, query.tail) = (Some(place.parse::<LogPosition>()?), None);
        }
    }
    if format == Format::Text
        && query.is_whole()
        && let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok())
    {
        return text::range(&app, id, query.attempt, range).await;
    }
    let room = if query.follow { Some(room(&app)?) } else { None };
    let reader = app.logs.read(id, query).await?;
    let parts = Parts { reader, app, _room: room };
    Ok(match format {
        Format::Text => {
            let chunks = parts.stream().map_ok(|part| part.text()).map_err(io::Error::other);
            streaming::body(TEXT, Body::from_stream(chunks))
        }
        Format::JsonLines => {
            let chunks = parts.stream().map_err(io::Error::other).map_ok(|part| {
                let made = part.made(LogForm::JsonLines, line_frames);
                stream::iter(frames(made)).map(Ok::<_, io::Error>)
            });
            streaming::body(JSON_LINES, Body::from_stream(chunks.try_flatten()))
        }
        Format::Events => events(id, parts),
    })
}

/// In which form lines go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
    Events,
}

impl Format {
    fn of(parameters: &Parameters, headers: &HeaderMap) -> Handled<Self> {
        let named: Option<String> = parameters.get("format", "text or jsonl")?;
        match named.as_deref() {
            Some("text") => return Ok(Self::Text),
            Some("jsonl") => return Ok(Self::JsonLines),
            Some(other) => {
                return Err(Error::invalid(format!("`format` is {other:?}, not text or jsonl")).into());
            }
            None => {}
        }
        Ok(match () {
            () if accepts(headers, EVENTS) => Self::Events,
            () if accepts(headers, JSON_LINES) => Self::JsonLines,
            () => Self::Text,
        })
    }
}

/// The lines that parameters choose.
async fn choose(app: &App, id: JobId, parameters: &Parameters) -> Handled<LogQuery> {
    let mut query = LogQuery::default();
    query.attempt = parameters.get("attempt", "the number of an attempt")?;
    query.follow = parameters.get("follow", "true or false")?.unwrap_or(false);
    query.stream = parameters.get("stream", "stdout, stderr or engine")?;
    query.tail = parameters.get("tail", "a number of lines")?;
    let step: Option<String> = parameters.get("step", "the index or the name of a step")?;
    let test: Option<String> = parameters.get("test", "the name of a package")?;
    let failed = parameters.get("failed", "true or false")?.unwrap_or(false);
    if usize::from(step.is_some()) + usize::from(test.is_some()) + usize::from(failed) > 1 {
        return Err(Error::invalid("`step`, `test` and `failed` name different lines of the log").into());
    }
    if let Some(since) = parameters.get::<String>("since", "a place, a time or a duration")? {
        since_of(app, id, &since, &mut query).await?;
    }
    if let Some(step) = step {
        query.step = Some(step_of(app, id, query.attempt, &step).await?);
    }
    if let Some(package) = test {
        if query.attempt.is_some() {
            return Err(Error::invalid("`attempt` and `test` name different lines of the log").into());
        }
        let (attempt, test) = test_of(app, id, &package).await?;
        query.attempt = Some(attempt);
        let begin = LogPosition { attempt, line: test.first_line.saturating_sub(1) };
        query.behind = Some(query.behind.map_or(begin, |behind| behind.max(begin)));
        query.last = test.last_line;
    }
    if failed {
        let attempt = failed_attempt(app, id, query.attempt).await?;
        let step = attempt.steps.iter().rev().find(|step| step.exit_code.is_some_and(|code| code != 0));
        query.attempt = Some(attempt.number);
        // Without a step, the whole log tells.
        query.step = step.map(|step| u32::try_from(step.index).unwrap_or(u32::MAX));
    }
    Ok(query)
}

async fn since_of(app: &App, id: JobId, text: &str, query: &mut LogQuery) -> Handled<()> {
    if let Ok(line) = text.parse::<u64>() {
        let attempt = number_of(app, id, query.attempt).await?;
        query.behind = Some(LogPosition { attempt, line });
    } else if let Ok(place) = text.parse::<LogPosition>() {
        query.behind = Some(place);
    } else if let Ok(at) = text.parse::<Timestamp>() {
        query.since = Some(at);
    } else if let Ok(age) = text.parse::<SignedDuration>() {
        query.since = app.clock.now().checked_sub(age.abs()).ok();
    } else {
        let error = Error::invalid(format!("`since` is {text:?}, no place, time or duration"));
        return Err(error.hint("such as 2:120, 120, 2026-11-26T10:00:00Z or 10m").into());
    }
    Ok(())
}

/// The number of the attempt that is asked for, or of the last one; 0 when there is none.
async fn number_of(app: &App, id: JobId, asked: Option<u32>) -> Result<u32> {
    Ok(match asked {
        Some(number) => number,
        None => app.job_store.get(id).await?.attempt,
    })
}

/// The attempt that is asked for, or the last one.
async fn attempt_of(app: &App, id: JobId, asked: Option<u32>) -> Result<JobAttempt> {
    let number = number_of(app, id, asked).await?;
    if number == 0 {
        return Err(Error::new(ErrorKind::NotFound, "the job has not begun").with("job", id));
    }
    app.job_store.attempt(id, number).await
}

/// The index of a step that is told by its index or its name.
async fn step_of(app: &App, id: JobId, attempt: Option<u32>, text: &str) -> Result<u32> {
    if let Ok(index) = text.parse() {
        return Ok(index);
    }
    let steps = attempt_of(app, id, attempt).await?.steps;
    let found = steps.iter().rev().find(|step| step.name == text);
    let index = found.map(|step| u32::try_from(step.index).unwrap_or(u32::MAX));
    index.ok_or_else(|| {
        let known: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let error = Error::new(ErrorKind::NotFound, format!("no step {text:?} has begun"));
        error.hint(if known.is_empty() {
            "none has".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        })
    })
}

/// A test of a job's last attempt, with the number of that.
async fn test_of(app: &App, id: JobId, package: &str) -> Result<(u32, JobTest)> {
    let job = app.job_store.get(id).await?;
    let tests = match job.attempt {
        0 => Vec::new(),
        number => app.job_store.attempt(id, number).await?.tests,
    };
    let found = tests.iter().rev().find(|test| test.package == package).cloned();
    found.map(|test| (job.attempt, test)).ok_or_else(|| {
        let known: Vec<&str> = tests.iter().map(|test| test.package.as_str()).collect();
        let hint = if known.is_empty() {
            "the job has no tests, or they have not begun".to_owned()
        } else {
            format!("there are tests of {}", known.join(", "))
        };
        Error::new(ErrorKind::NotFound, format!("the job has no test of {package:?}")).hint(hint)
    })
}

/// The last attempt that failed, or the one that is asked for if it did.
async fn failed_attempt(app: &App, id: JobId, asked: Option<u32>) -> Result<JobAttempt> {
    let attempts = match asked {
        Some(number) => vec![app.job_store.attempt(id, number).await?],
        None => app.job_store.attempts(id).await?,
    };
    let failed = |attempt: &JobAttempt| {
        use AttemptOutcome::{Cancelled, Failed, GivenBack, Lost};
        matches!(attempt.outcome, Failed | GivenBack | Lost | Cancelled)
    };
    // One that failed says more than one that was broken off.
    let by = |wanted: &dyn Fn(&JobAttempt) -> bool| attempts.iter().rev().find(|attempt| wanted(attempt));
    let found = by(&|attempt| attempt.outcome == AttemptOutcome::Failed).or_else(|| by(&failed));
    found
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "no attempt of the job has failed").with("job", id))
}

/// A reader that ends when the server stops, and gives its room back at its end.
struct Parts {
    reader: LogReader,
    app: App,
    _room: Option<OwnedSemaphorePermit>,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<LogPart>> {
        let stopping = self.app.stopping.clone();
        tokio::select! {
            biased;
            () = stopping.cancelled() => Ok(None),
            part = self.reader.next() => part,
        }
    }

    /// The parts until there is no more to come.
    fn stream(self) -> impl Stream<Item = Result<LogPart>> + Send + 'static {
        stream::try_unfold(self, |mut parts| async move { Ok(parts.next().await?.map(|part| (part, parts))) })
            .try_filter(|part| std::future::ready(part.lines().next().is_some()))
    }
}

fn line_view(attempt: u32, line: &LogLine<'_>) -> LogLineView {
    let origin = line.origin;
    let text = String::from_utf8_lossy(line.text);
    LogLineView::new(attempt, line.number, origin.at, origin.step, origin.stream, text)
}

/// The lines of a part in pieces of a good size, each with the place behind it.
fn pieces(part: &LogPart) -> Vec<(LogPosition, LogLinesView)> {
    let attempt = part.attempt();
    let mut pieces: Vec<(LogPosition, LogLinesView)> = Vec::new();
    let mut bytes = 0;
    for line in part.lines() {
        let full = |view: &LogLinesView| {
            view.lines.len() >= limits::LOG_MESSAGE_LINES || bytes >= limits::LOG_MESSAGE_BYTES
        };
        if pieces.last().is_none_or(|(_, view)| full(view)) {
            pieces.push((part.position(), LogLinesView { attempt, lines: Vec::new() }));
            bytes = 0;
        }
        bytes += line.text.len();
        if let Some((place, view)) = pieces.last_mut() {
            *place = LogPosition { attempt, line: line.number };
            view.lines.push(line_view(attempt, &line));
        }
    }
    // Lines behind the last one were looked at too.
    if let Some((place, _)) = pieces.last_mut() {
        *place = part.position();
    }
    pieces
}

/// The lines of a part as lines of JSON.
fn line_frames(part: &LogPart) -> Vec<Bytes> {
    pieces(part).into_iter().map(|(_, view)| json_lines(view.lines)).collect()
}

/// The lines of a part as server-sent events.
fn event_frames(part: &LogPart) -> Vec<Bytes> {
    pieces(part).into_iter().map(|(place, view)| frame(LINES, Some(place), &view)).collect()
}

/// The name of an event with lines.
const LINES: &str = "lines";

/// What stands before the place of an event, and before its data.
const PLACE: &str = "\nid: ";
const DATA: &str = "\ndata: ";

/// A server-sent event; JSON has no newlines of its own.
fn frame(event: &str, place: Option<LogPosition>, data: &impl Serialize) -> Bytes {
    let place = place.map(|place| format!("{PLACE}{place}")).unwrap_or_default();
    let mut frame = format!("event: {event}{place}{DATA}").into_bytes();
    // Views always have a form in JSON.
    serde_json::to_writer(&mut frame, data).unwrap_or_default();
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

/// The place and the data of a frame of [`event_frames`].
fn place_and_data(frame: &Bytes) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(frame).ok()?;
    text.split_once(PLACE)?.1.trim_end().split_once(DATA)
}

/// Frames one by one, without copying them.
fn frames(made: Arc<[Bytes]>) -> impl Iterator<Item = Bytes> {
    (0..made.len()).map_while(move |index| made.get(index).cloned())
}

/// What is told when no more lines come: none when the server stops.
async fn end_of(app: &App, id: JobId) -> Option<LogStateView> {
    if app.stopping.is_cancelled() {
        return None;
    }
    let job = app.job_store.get(id).await.ok();
    Some(LogStateView { status: job.map(|job| job.state.to_string()) })
}

/// The frames of a part, or of what broke the log off.
fn sent(part: Result<LogPart>) -> Arc<[Bytes]> {
    match part {
        Ok(part) => part.made(LogForm::Messages, event_frames),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "a followed log broke off");
            Arc::new([frame("error", None, &ErrorBody::new(&error, Vec::new()))])
        }
    }
}

fn events(id: JobId, parts: Parts) -> Response {
    let app = parts.app.clone();
    let lines = parts.stream().flat_map(|part| stream::iter(frames(sent(part))));
    let end = stream::once(async move {
        let state = end_of(&app, id).await;
        state.map(|state| frame("end", None, &state))
    });
    streaming::frames(lines.map(Some).chain(end).filter_map(std::future::ready))
}
