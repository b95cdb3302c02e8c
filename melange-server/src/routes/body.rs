//! Bodies of requests: each has a bound and a time, all of a kind have a room together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::app::App;
use crate::problem::{Handled, Problem};

/// What the bodies of a kind of requests may take.
pub(super) struct BodyBounds {
    /// Bytes of one.
    pub(super) bytes_max: u64,
    /// The time from its first byte to its last.
    pub(super) time: Duration,
    /// KiB of all of them together.
    pub(super) room: Arc<Semaphore>,
}

/// A body while it comes. Its room is free again when it is dropped.
pub(super) struct BodyReader {
    body: Body,
    bounds: BodyBounds,
    deadline: Instant,
    taken: u64,
    held: Vec<OwnedSemaphorePermit>,
}

impl BodyReader {
    pub(super) fn new(body: Body, bounds: BodyBounds) -> Handled<Self> {
        if body.size_hint().lower() > bounds.bytes_max {
            // Before the first byte: a client that asks whether it may send it need not.
            return Err(too_large(bounds.bytes_max));
        }
        let deadline = Instant::now() + bounds.time;
        Ok(Self { body, bounds, deadline, taken: 0, held: Vec::new() })
    }

    /// The next bytes, if there is room for them beside those of others and they come in time.
    pub(super) async fn next(&mut self) -> Handled<Option<Bytes>> {
        loop {
            let idle = (Instant::now() + limits::REQUEST_BODY_IDLE).min(self.deadline);
            let frame = match tokio::time::timeout_at(idle, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(Error::invalid("the body could not be read").source(error).into());
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    let error = Error::invalid("the body of the request did not come in time");
                    return Err(
                        Problem::from(error).with_status(StatusCode::REQUEST_TIMEOUT, "request_timeout")
                    );
                }
            };
            if let Ok(chunk) = frame.into_data() {
                self.make_room(chunk.len() as u64)?;
                return Ok(Some(chunk));
            }
        }
    }

    fn make_room(&mut self, bytes: u64) -> Handled<()> {
        let after = self.taken.saturating_add(bytes);
        if after > self.bounds.bytes_max {
            return Err(too_large(self.bounds.bytes_max));
        }
        let more = after.div_ceil(1 << 10) - self.taken.div_ceil(1 << 10);
        let permits = u32::try_from(more).unwrap_or(u32::MAX);
        self.taken = after;
        match Arc::clone(&self.bounds.room).try_acquire_many_owned(permits) {
            Ok(permit) => {
                self.held.push(permit);
                Ok(())
            }
            Err(_) => {
                tracing::warn!("the bodies of requests fill their room; one was refused");
                let error = Error::new(ErrorKind::Unavailable, "the server reads too many requests at once");
                Err(error.hint("send it again in a moment").into())
            }
        }
    }
}

/// The whole body of a request.
pub(super) async fn read_body(app: &App, body: Body) -> Handled<Bytes> {
    let bounds = BodyBounds {
        bytes_max: limits::REQUEST_BODY_BYTES_MAX as u64,
        time: limits::REQUEST_BODY_TIME,
        room: Arc::clone(&app.bodies),
    };
    let (mut reader, mut text) = (BodyReader::new(body, bounds)?, BytesMut::new());
    while let Some(chunk) = reader.next().await? {
        text.extend_from_slice(&chunk);
    }
    Ok(text.freeze())
}

fn too_large(bound: u64) -> Problem {
    let error = Error::new(ErrorKind::LimitExceeded, format!("the body has more than {bound} bytes"));
    Problem::from(error).with_status(StatusCode::PAYLOAD_TOO_LARGE, "limit_exceeded")
}
