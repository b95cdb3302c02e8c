//! `GET /healthz` and `GET /readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{HealthResponse, ReadyResponse};

use crate::app::App;
use crate::readiness;

/// Ask whether the server lives.
///
/// `ok`, or 503 once the server stops, so that nobody sends new work.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses(
        (status = 200, description = "The server takes jobs", body = HealthResponse),
        (status = 503, description = "It stops, or a part of it has failed", body = HealthResponse)
    )
)]
pub(super) async fn health(State(app): State<App>) -> (StatusCode, Json<HealthResponse>) {
    let (status, text) = if let Some(failure) = app.failure.get() {
        (StatusCode::SERVICE_UNAVAILABLE, failure.as_str())
    } else if app.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ok")
    };
    (status, Json(HealthResponse { status: text.to_owned() }))
}

/// Ask whether the server can do its work.
///
/// The job store is read and written, the artifact storage is asked for a listing, and the scheduler must have looked at
/// the queue lately; each has two seconds to answer. What was found is told to others for a second.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "All parts work", body = ReadyResponse),
        (status = 503, description = "It stops, or a part of it does not work: `checks` tells which and why", body = ReadyResponse)
    )
)]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let found = readiness::look(&app).await;
    let status =
        if found.status == readiness::READY { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(&*found)).into_response()
}
