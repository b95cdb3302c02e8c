//! `GET /healthz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use melange_remote_sdk::api::v1::HealthResponse;

use crate::app::App;

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
