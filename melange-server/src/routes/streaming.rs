//! Answers that go on while something happens: what a client asks for, and the forms in which it comes.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::limits;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::problem::Handled;

/// Lines of JSON.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// The content type of server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";

/// Whether the client names a content type among those that it takes.
pub(super) fn accepts(headers: &HeaderMap, content_type: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|part| part.trim().starts_with(content_type))
}

/// The id of the last message that a client has seen.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let told = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    told.filter(|text| !text.is_empty())
}

/// Room for one more follower.
pub(super) fn room(app: &App) -> Handled<OwnedSemaphorePermit> {
    Arc::clone(&app.followers).try_acquire_owned().map_err(|_| {
        let error = Error::new(ErrorKind::Unavailable, "too many follow events and logs on this server");
        error.hint("try again in a moment, or read without follow").into()
    })
}

/// Objects, each in a line.
pub(super) fn json_lines<T: Serialize>(objects: impl IntoIterator<Item = T>) -> Bytes {
    let mut text = Vec::new();
    for object in objects {
        if serde_json::to_writer(&mut text, &object).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

/// Server-sent events, with a sign of life now and then.
pub(super) fn messages(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let pings = KeepAlive::new().interval(limits::STREAM_PING).text("ping");
    let mut response = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(pings).into_response();
    let cached = HeaderValue::from_static("no-cache, no-transform");
    response.headers_mut().insert(header::CACHE_CONTROL, cached);
    unbuffered(response)
}

/// Server-sent events that are written already, with a sign of life now and then.
pub(super) fn frames(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let alive = stream::unfold(Box::pin(frames), |mut frames| async move {
        let frame = match tokio::time::timeout(limits::STREAM_PING, frames.next()).await {
            Ok(frame) => frame?,
            Err(_) => Bytes::from_static(b": ping\n\n"),
        };
        Some((Ok::<_, Infallible>(frame), frames))
    });
    let headers = [(header::CONTENT_TYPE, EVENTS), (header::CACHE_CONTROL, "no-cache, no-transform")];
    unbuffered((headers, Body::from_stream(alive)).into_response())
}

/// A streamed body that no browser guesses about.
pub(super) fn body(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    unbuffered((headers, body).into_response())
}

/// Proxies must hand it on as it comes.
fn unbuffered(mut response: Response) -> Response {
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
