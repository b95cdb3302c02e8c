//! `GET /healthz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use melange_remote_sdk::api::v1::HealthResponse;

use crate::app::App;

/// `ok`, or 503 once the server stops, so that nobody sends new work.
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
