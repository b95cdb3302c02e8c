//! The queue as a whole: how many jobs wait, why, and for how long.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use melange_remote_sdk::api::v1::{ErrorResponse, QueueView};

use super::Parameters;
use crate::app::App;
use crate::problem::Handled;
use crate::waiting;

/// Tell what waits, and why.
///
/// One answer for all jobs that have not ended: their numbers, the reasons of those that wait with what would help, the
/// oldest, and the projects.
#[utoipa::path(
    get,
    path = "/api/v1/queue",
    tag = "jobs",
    responses(
        (status = 200, description = "The queue as it was a moment ago", body = QueueView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn summary(State(app): State<App>, uri: Uri) -> Handled<Json<QueueView>> {
    Parameters::read(&uri, &[])?;
    Ok(Json(QueueView::clone(&*waiting::queue::of(&app).await?)))
}
