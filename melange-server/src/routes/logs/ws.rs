//! The live log of a job over a WebSocket.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use bytes::Bytes;
use melange_remote_sdk::api::v1::{ErrorBody, ErrorResponse, LogMessage};
use melange_remote_sdk::error::Error;
use melange_remote_sdk::job::JobId;
use melange_remote_sdk::job_log::LogForm;
use melange_remote_sdk::limits;
use tokio::time::{Instant, MissedTickBehavior};

use super::{CHOICE, LINES, Parameters, Parts, choose, end_of, event_frames, job_id, place_and_data, room};
use crate::app::App;
use crate::problem::Handled;

/// Follow the log of a job over a WebSocket.
///
/// Each message is a `LogMessage`; those of lines name the place behind them, at which `since` goes on after a disconnect.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs/ws",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("attempt" = Option<u32>, Query, description = "Only lines of the attempt with this number"),
        ("since" = Option<String>, Query, description = "As for reading the log"),
        ("step" = Option<String>, Query, description = "As for reading the log"),
        ("stream" = Option<String>, Query, description = "As for reading the log"),
        ("tail" = Option<u64>, Query, description = "As for reading the log")
    ),
    responses(
        (status = 101, description = "Messages follow"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(in crate::routes) async fn socket(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Handled<Response> {
    let id = job_id(&id)?;
    let upgrade = upgrade.map_err(|error| {
        let error = Error::invalid(format!("this is the address of a WebSocket: {error}"));
        error.hint("GET of the log with `Accept: text/event-stream` gives the same over HTTP")
    })?;
    let parameters = Parameters::read(&uri, &CHOICE)?;
    let query = choose(&app, id, &parameters).await?.following();
    let room = room(&app)?;
    let reader = app.logs.read(id, query).await?;
    let parts = Parts { reader, app, _room: Some(room) };
    // Nothing is expected from the other side.
    let upgrade = upgrade.max_message_size(1 << 10).max_frame_size(1 << 10);
    Ok(upgrade.on_upgrade(move |socket| follow(socket, id, parts)))
}

async fn follow(mut socket: WebSocket, id: JobId, mut parts: Parts) {
    let mut pings = tokio::time::interval_at(Instant::now() + limits::STREAM_PING, limits::STREAM_PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let part = tokio::select! {
            part = parts.next() => part,
            _ = pings.tick() => match socket.send(Message::Ping(bytes::Bytes::new())).await {
                Ok(()) => continue,
                Err(_) => return,
            },
            received = socket.recv() => match received {
                // What it says does not matter, that it is there does.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let sent = match part {
            Ok(Some(part)) => {
                let mut sent = true;
                for frame in part.made(LogForm::Messages, event_frames).iter() {
                    sent = sent && send_lines(&mut socket, frame).await;
                }
                sent
            }
            Ok(None) => {
                // A server that stops says goodbye; the reader goes on elsewhere.
                let code = match end_of(&parts.app, id).await {
                    Some(state) => {
                        send(&mut socket, &LogMessage::End(state)).await;
                        close_code::NORMAL
                    }
                    None => close_code::RESTART,
                };
                close(&mut socket, code).await;
                return;
            }
            Err(error) => {
                tracing::warn!(job = %id, error = %error.chain(), "a followed log broke off");
                send(&mut socket, &LogMessage::Error(ErrorBody::new(&error, Vec::new()))).await;
                close(&mut socket, close_code::ERROR).await;
                return;
            }
        };
        if !sent {
            return;
        }
    }
}

/// Sends the lines of a frame as a [`LogMessage`]; whether the other side is there.
async fn send_lines(socket: &mut WebSocket, frame: &Bytes) -> bool {
    let Some((place, data)) = place_and_data(frame) else { return true };
    // The fields of the lines stand beside those of the message.
    let fields = data.strip_prefix('{').unwrap_or(data);
    let text = format!("{{\"event\":\"{LINES}\",\"position\":\"{place}\",{fields}");
    socket.send(Message::Text(text.into())).await.is_ok()
}

/// Sends a message; whether the other side is there.
async fn send(socket: &mut WebSocket, message: &LogMessage) -> bool {
    let Ok(text) = serde_json::to_string(message) else { return true };
    socket.send(Message::Text(text.into())).await.is_ok()
}

async fn close(socket: &mut WebSocket, code: u16) {
    let frame = CloseFrame { code, reason: "".into() };
    // It may be gone already.
    socket.send(Message::Close(Some(frame))).await.unwrap_or_default();
}
