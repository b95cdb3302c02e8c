//! One solve: the graph goes out, progress and result come back.
//!
//! Solve and Status are two calls that run at the same time and tell each other nothing: the last lines come
//! after Solve has answered, and when Solve fails early Status may never end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, SolveRequest, StatusRequest, StatusResponse};
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::probe::Control;
use super::progress::Progress;
use super::session::Session;
use crate::limits;
use crate::llb::Definition;

/// How a solve ended.
#[derive(Debug)]
pub(super) enum Solved {
    /// The result was sent.
    Done,
    /// The daemon said no.
    Failed(Status),
    /// The token was used. The flag says whether the daemon confirmed that nothing runs any more.
    Cancelled {
        /// Its log stream ended, which it does once the build is gone.
        confirmed: bool,
    },
}

/// Solves `definition` with the help of the session `session`, telling `progress` what happens.
///
/// Dropping the future ends the build on the daemon: it takes the end of the call as a cancellation.
pub(super) async fn solve(
    control: &Control,
    definition: &Definition,
    session: Session,
    progress: &mut Progress,
    stall: Duration,
    cancel: &CancellationToken,
) -> Solved {
    let name = uuid::Uuid::now_v7().simple().to_string();
    let request = solve_request(&name, definition, &session.id);
    let mut solving = control.clone();
    let mut answer = Box::pin(async move { solving.solve(request).await });
    let pulse = Arc::clone(&session.pulse);
    let mut status = StatusReader::new(control.clone(), name);
    let (solved, quiet) = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                // The end of the call is what stops the build, and that of the session what it may wait for.
                drop(answer);
                session.close();
                return Solved::Cancelled { confirmed: watch_the_end(status, progress).await };
            }
            message = status.next(), if !status.ended => {
                progress.update(message);
                // The daemon keeps what a slow reader has not taken; the next turn sees a cancellation.
                let _ = cancel.run_until_cancelled(progress.ready()).await;
            }
            () = pulse.stopped(stall) => {
                let seconds = stall.as_secs();
                return Solved::Failed(Status::unavailable(format!(
                    "the connection is silent: the daemon has not asked for the session for {seconds} s"
                )));
            }
            answer = &mut answer => match answer {
                Ok(_) => break (Solved::Done, limits::BUILDKIT_STATUS_QUIET),
                Err(status) => break (Solved::Failed(status), limits::BUILDKIT_STATUS_QUIET_FAILED),
            },
        }
    };
    status.drain(progress, quiet).await;
    if let Some(error) = status.broken.filter(|_| progress.any_step_began()) {
        let message = error.message();
        progress.engine_line(None, format!("the daemon's log stream broke, lines may be missing: {message}"));
    }
    progress.finish(matches!(solved, Solved::Done));
    solved
}

/// Reads the progress of a build that was called off. The daemon ends it once the build is gone; a build that
/// it never told anything of had not begun.
async fn watch_the_end(mut status: StatusReader, progress: &mut Progress) -> bool {
    let known = status.messages > 0;
    let grace = if known { limits::BUILDKIT_CANCEL_GRACE } else { limits::BUILDKIT_STATUS_QUIET_FAILED };
    let drained = tokio::time::timeout(grace, status.drain(progress, grace)).await;
    progress.finish(false);
    !known || drained == Ok(true)
}

/// The fields for exporters are those that every daemon knows; new ones take them when `exporters` is empty.
fn solve_request(name: &str, definition: &Definition, session: &str) -> SolveRequest {
    SolveRequest {
        r#ref: name.to_owned(),
        definition: Some(definition.message().clone()),
        exporter_deprecated: "tar".to_owned(),
        session: session.to_owned(),
        cache: Some(CacheOptions::default()),
        ..SolveRequest::default()
    }
}

type StatusMessages = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

/// The daemon's progress.
struct StatusReader {
    messages_in: StatusMessages,
    /// How many came.
    messages: u64,
    /// How many of the last ones were empty.
    empty: u32,
    ended: bool,
    broken: Option<Status>,
}

impl StatusReader {
    fn new(control: Control, name: String) -> Self {
        Self {
            messages_in: status_messages(control, name),
            messages: 0,
            empty: 0,
            ended: false,
            broken: None,
        }
    }

    /// The next message, an empty one at the end. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> StatusResponse {
        match self.messages_in.next().await {
            Some(Ok(message)) => {
                self.messages += 1;
                self.empty = if message == StatusResponse::default() { self.empty + 1 } else { 0 };
                if self.empty < limits::BUILDKIT_STATUS_EMPTY_MAX {
                    return message;
                }
                // BuildKit before v0.9 does so without end once more than a MiB of log lines waited for its reader.
                // The call is given up, which ends the loop on the daemon too.
                self.messages_in = futures_util::stream::empty().boxed();
                self.broken = Some(Status::data_loss("the daemon sends nothing but empty messages"));
            }
            Some(Err(status)) => self.broken = Some(status),
            None => {}
        }
        self.ended = true;
        StatusResponse::default()
    }

    /// Reads to the end, or until it is silent for `quiet`. Says whether it ended as it should.
    async fn drain(&mut self, progress: &mut Progress, quiet: Duration) -> bool {
        while !self.ended {
            match tokio::time::timeout(quiet, self.next()).await {
                Ok(message) => {
                    progress.update(message);
                    progress.ready().await;
                }
                Err(_) => return false,
            }
        }
        self.broken.is_none()
    }
}

/// Opens the progress of the build `name`, again if the daemon does not know it yet. Once a message came it is
/// not opened again: the daemon would tell everything from the beginning.
fn status_messages(control: Control, name: String) -> StatusMessages {
    let opened = async move {
        let mut control = control;
        for _ in 1..limits::BUILDKIT_STATUS_TRIES_MAX {
            if let Ok(opened) = first_message(&mut control, &name).await {
                return Ok(opened);
            }
        }
        first_message(&mut control, &name).await
    };
    Box::pin(futures_util::stream::once(opened).flat_map(|opened| match opened {
        Ok(Some((first, rest))) => {
            futures_util::stream::once(std::future::ready(Ok(first))).chain(rest).boxed()
        }
        Ok(None) => futures_util::stream::empty().boxed(),
        Err(status) => futures_util::stream::once(std::future::ready(Err(status))).boxed(),
    }))
}

async fn first_message(
    control: &mut Control,
    name: &str,
) -> Result<Option<(StatusResponse, Streaming<StatusResponse>)>, Status> {
    let request = StatusRequest { r#ref: name.to_owned() };
    let mut stream = control.status(request).await?.into_inner();
    Ok(stream.message().await?.map(|first| (first, stream)))
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::moby::buildkit::v1::Vertex;

    use super::*;

    fn reader(messages: impl Stream<Item = StatusResponse> + Send + 'static) -> StatusReader {
        let messages_in: StatusMessages = Box::pin(messages.map(Ok));
        StatusReader { messages_in, messages: 0, empty: 0, ended: false, broken: None }
    }

    #[tokio::test]
    async fn empty_messages_without_end_are_given_up_and_single_ones_are_not() {
        let told = || StatusResponse { vertexes: vec![Vertex::default()], ..StatusResponse::default() };
        let mut endless = reader(
            futures_util::stream::iter([told()])
                .chain(futures_util::stream::repeat_with(StatusResponse::default)),
        );
        while !endless.ended {
            endless.next().await;
        }
        assert_eq!(endless.broken.unwrap().code(), tonic::Code::DataLoss);
        assert_eq!(endless.messages, 1 + u64::from(limits::BUILDKIT_STATUS_EMPTY_MAX));
        let pairs =
            (0..limits::BUILDKIT_STATUS_EMPTY_MAX).flat_map(move |_| [StatusResponse::default(), told()]);
        let mut sound = reader(futures_util::stream::iter(pairs));
        while !sound.ended {
            sound.next().await;
        }
        assert!(sound.broken.is_none());
    }
}
