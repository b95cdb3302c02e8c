//! One solve: the graph goes out, progress and result come back.
//!
//! Solve and Status are two calls that run at the same time and tell each other nothing: the last lines come
//! after Solve has answered, and when Solve fails early Status may never end.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, SolveRequest};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::connect::Connected;
use super::progress::Progress;
use super::session::Session;
use super::status::StatusReader;
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
    connected: &Connected,
    definition: &Definition,
    session: Session,
    progress: &mut Progress,
    stall: Duration,
    cancel: &CancellationToken,
) -> Solved {
    let name = uuid::Uuid::now_v7().simple().to_string();
    let request = solve_request(&name, definition, &session.id);
    let mut solving = connected.control.clone();
    let mut answer = Box::pin(async move { solving.solve(request).await });
    let pulse = Arc::clone(&session.pulse);
    let mut status = StatusReader::open(connected.control.clone(), connected.spare.clone(), &name);
    let (solved, quiet) = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                // The end of the call is what stops the build, and that of the session what it may wait for.
                drop(answer);
                session.close();
                return Solved::Cancelled { confirmed: watch_the_end(status, progress).await };
            }
            message = status.next(), if !status.ended() => {
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
    if let Some(why) = status.incomplete().filter(|_| progress.any_step_began()) {
        progress.engine_line(None, format!("the daemon's log stream broke, lines may be missing: {why}"));
    }
    progress.finish(matches!(solved, Solved::Done));
    solved
}

/// Reads the progress of a build that was called off. The daemon ends it once the build is gone; a build that
/// it never told anything of had not begun.
async fn watch_the_end(mut status: StatusReader, progress: &mut Progress) -> bool {
    let known = status.any_message();
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
