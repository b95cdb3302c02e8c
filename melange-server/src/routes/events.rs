//! The events of the farm: a page of them, or a stream.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use melange_remote_sdk::api::v1::{ErrorResponse, EventsResponse};
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{BuildId, Event, JobId, Project};
use melange_remote_sdk::job_store::{EventQuery, Subject, hinted};
use melange_remote_sdk::limits;
use tokio::sync::OwnedSemaphorePermit;

use super::streaming::{self, EVENTS, JSON_LINES, accepts, json_lines, last_event_id, room};
use super::{Parameters, job_id};
use crate::app::App;
use crate::problem::Handled;

/// Read the events of the farm.
///
/// Without `follow` the answer is a page. With it, or with an Accept header for text/event-stream, it goes on: until the
/// server stops, or until the job or the build that is asked for has ended. Each message of such a stream is an `Event`,
/// and its id the number of that; at last a message named `end` comes. `docs/event.schema.json` describes events.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Only events behind the one with this number; a stream without it begins now, a page with the oldest one that is kept"),
        ("job" = Option<String>, Query, description = "Only events of this job"),
        ("build" = Option<String>, Query, description = "Only events of this build and of its jobs"),
        ("project" = Option<String>, Query, description = "Only events of this project"),
        ("limit" = Option<usize>, Query, description = "Events of a page, at most 1000"),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on, with an event in each line"),
        ("last-event-id" = Option<String>, Header, description = "As `after`")
    ),
    responses(
        (status = 200, description = "A page of events, or a stream of them", body = EventsResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn read(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Handled<Response> {
    let known = ["after", "job", "build", "project", "limit", "follow"];
    let parameters = Parameters::read(&uri, &known)?;
    let job: Option<JobId> = parameters.get("job", "the id of a job")?;
    let build: Option<BuildId> = parameters.get("build", "the id of a build")?;
    let project: Option<Project> = parameters.get("project", "the name of a project")?;
    let query = EventQuery::after(0).of_job(job).of_build(build).in_project(project);
    answer(app, &parameters, &headers, query).await
}

/// Read the events of a job.
///
/// As the events of the farm with `job`; a stream begins with the first event of the job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/events",
    tag = "events",
    params(
        ("id" = String, Path, description = "The job"),
        ("after" = Option<u64>, Query, description = "Only events behind the one with this number"),
        ("limit" = Option<usize>, Query, description = "Events of a page, at most 1000"),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on until the job has ended, with an event in each line"),
        ("last-event-id" = Option<String>, Header, description = "As `after`")
    ),
    responses(
        (status = 200, description = "A page of events, or a stream of them", body = EventsResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn of_job(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Handled<Response> {
    let id = job_id(&id)?;
    let parameters = Parameters::read(&uri, &["after", "limit", "follow"])?;
    answer(app, &parameters, &headers, EventQuery::after(0).of_job(id)).await
}

pub(super) async fn answer(
    app: App,
    parameters: &Parameters,
    headers: &HeaderMap,
    mut query: EventQuery,
) -> Handled<Response> {
    if let Some(job) = query.job {
        app.job_store.get(job).await?;
    }
    if let Some(build) = query.build {
        app.job_store.build(build).await?;
    }
    let wants_events = accepts(headers, EVENTS);
    let follow = parameters.get("follow", "true or false")?.unwrap_or(false) || wants_events;
    let after = match last_event_id(headers) {
        Some(text) => Some(text.parse().map_err(|_| {
            Error::invalid(format!("the last event id is {text:?}, not the number of an event"))
        })?),
        None => parameters.get("after", "the number of an event")?,
    };
    query.limit = parameters.get("limit", "a number of events")?.unwrap_or(limits::EVENTS_PER_READ_MAX);
    if !(1..=limits::EVENTS_PER_READ_MAX).contains(&query.limit) {
        return Err(Error::invalid(format!("`limit` goes from 1 to {}", limits::EVENTS_PER_READ_MAX)).into());
    }
    let is_whole = query.job.is_none() && query.build.is_none();
    query.after = match after {
        Some(after) => after,
        None if follow && is_whole => app.job_store.events(&EventQuery::after(u64::MAX)).await?.last,
        None => 0,
    };
    if !follow {
        let page = app.job_store.events(&query).await?;
        let body = EventsResponse { events: page.events, oldest: page.oldest, last: page.last };
        return Ok(Json(body).into_response());
    }
    let room = room(&app)?;
    let follower = Follower { app, query, _room: room };
    Ok(if wants_events { as_messages(follower) } else { as_lines(follower) })
}

/// Somebody who reads events as they come.
struct Follower {
    app: App,
    query: EventQuery,
    _room: OwnedSemaphorePermit,
}

/// What a follower gets.
enum Told {
    Events(Vec<Event>),
    /// The job or the build has ended.
    End,
}

impl Follower {
    /// The next events; none when the server stops.
    async fn next(&mut self) -> Result<Option<Told>> {
        loop {
            // Taken before the look: what comes after it moves it.
            let mut hint = self.app.job_store.changed(Subject::Events);
            let ended = self.is_ended().await?;
            let page = self.app.events.read(&self.query).await?;
            let after = self.query.after;
            self.query.after = page.last;
            let mut events = page.events;
            // What was forgotten before it could be told, and numbers of another store.
            let is_missing = after > 0 && page.oldest > after.saturating_add(1);
            if is_missing || after > page.last {
                let to = page.oldest.saturating_sub(1);
                events.insert(0, Event::gap(after.saturating_add(1), to, self.app.clock.now()));
            }
            if !events.is_empty() {
                return Ok(Some(Told::Events(events)));
            }
            if page.last > after {
                // Others' events were looked at; there may be more.
                continue;
            }
            if ended {
                return Ok(Some(Told::End));
            }
            let stopping = self.app.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(limits::SCHEDULER_POLL) => {}
                () = hinted(&mut hint) => {}
            }
        }
    }

    /// Whether what is followed has ended.
    async fn is_ended(&self) -> Result<bool> {
        let gone = |error: Error| match error.kind() {
            // It was removed: nothing more comes.
            ErrorKind::NotFound => Ok(true),
            _ => Err(error),
        };
        if let Some(job) = self.query.job {
            return self.app.job_store.get(job).await.map(|job| job.state.is_terminal()).or_else(gone);
        }
        if let Some(build) = self.query.build {
            let build = self.app.job_store.build(build).await;
            return build.map(|build| build.is_finished()).or_else(gone);
        }
        Ok(false)
    }

    fn stream(self) -> impl Stream<Item = Result<Told>> + Send + 'static {
        stream::try_unfold(Some(self), |follower| async move {
            let Some(mut follower) = follower else { return Ok(None) };
            Ok(match follower.next().await? {
                Some(Told::End) => Some((Told::End, None)),
                Some(told) => Some((told, Some(follower))),
                None => None,
            })
        })
    }
}

fn as_lines(follower: Follower) -> Response {
    let lines = follower.stream().filter_map(|told| {
        let bytes = match told {
            Ok(Told::Events(events)) => Some(Ok(json_lines(events))),
            Ok(Told::End) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        };
        std::future::ready(bytes)
    });
    streaming::body(JSON_LINES, Body::from_stream(lines))
}

fn as_messages(follower: Follower) -> Response {
    let messages = follower.stream().map(|told| {
        let messages: Vec<SseEvent> = match told {
            Ok(Told::Events(events)) => events
                .iter()
                .filter_map(|event| SseEvent::default().id(event.seq.to_string()).json_data(event).ok())
                .collect(),
            Ok(Told::End) => vec![SseEvent::default().event("end").data("{}")],
            Err(error) => {
                tracing::warn!(error = %error.chain(), "a stream of events broke off");
                Vec::new()
            }
        };
        stream::iter(messages)
    });
    streaming::messages(messages.flatten())
}
