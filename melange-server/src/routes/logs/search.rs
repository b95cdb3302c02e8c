//! What is in a log: its outline, and searches.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use melange_remote_sdk::api::v1::{
    ErrorResponse, LogHitView, LogHitsView, LogOutlineView, StepHitsView, StepLinesView,
};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job_log::{LogHit, LogSearch, PatternOptions};
use melange_remote_sdk::limits;

use super::{Parameters, attempt_of, job_id, step_of};
use crate::app::App;
use crate::problem::Handled;

/// Tell where the lines of the steps are in the log of an attempt.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs/index",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("attempt" = Option<u32>, Query, description = "The number of the attempt; the last one otherwise")
    ),
    responses(
        (status = 200, description = "How long the log is, and where its steps are", body = LogOutlineView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(in crate::routes) async fn outline(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Handled<Json<LogOutlineView>> {
    let id = job_id(&id)?;
    let parameters = Parameters::read(&uri, &["attempt"])?;
    let asked = parameters.get("attempt", "the number of an attempt")?;
    let attempt = attempt_of(&app, id, asked).await?;
    let index = app.logs.outline(id, attempt.number).await?;
    Ok(Json(LogOutlineView {
        attempt: attempt.number,
        lines: index.lines(),
        bytes: index.text_bytes(),
        complete: attempt.ended_at.is_some(),
        steps: index.steps().map(|lines| StepLinesView::new(&attempt, lines)).collect(),
    }))
}

/// Search in the log of an attempt.
///
/// Lines are compared without escape sequences. A search looks for two seconds; `next` tells where it goes on.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/logs/search",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("q" = String, Query, description = "What to look for"),
        ("regex" = Option<bool>, Query, description = "Whether that is a regular expression"),
        ("case" = Option<bool>, Query, description = "Whether upper and lower case are different"),
        ("attempt" = Option<u32>, Query, description = "The number of the attempt; the last one otherwise"),
        ("step" = Option<String>, Query, description = "Only lines of the step with this index, from 0, or this name"),
        ("behind" = Option<u64>, Query, description = "Only behind the line with this number"),
        ("limit" = Option<usize>, Query, description = "How many lines are told, at most 1000; 100 otherwise")
    ),
    responses(
        (status = 200, description = "The lines that were found", body = LogHitsView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(in crate::routes) async fn search(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Handled<Json<LogHitsView>> {
    let id = job_id(&id)?;
    let known = ["q", "regex", "case", "attempt", "step", "behind", "limit"];
    let parameters = Parameters::read(&uri, &known)?;
    let pattern: String = parameters.get("q", "a text")?.unwrap_or_default();
    let mut options = PatternOptions::default();
    options.regex = parameters.get("regex", "true or false")?.unwrap_or(false);
    options.case_sensitive = parameters.get("case", "true or false")?.unwrap_or(false);
    let mut search = LogSearch::new(&pattern, options)?;
    search.behind = parameters.get("behind", "the number of a line")?.unwrap_or(0);
    search.limit = parameters.get("limit", "a number of lines")?.unwrap_or(100);
    if !(1..=limits::LOG_HITS_MAX).contains(&search.limit) {
        return Err(Error::invalid(format!("`limit` goes from 1 to {}", limits::LOG_HITS_MAX)).into());
    }
    let asked = parameters.get("attempt", "the number of an attempt")?;
    if let Some(step) = parameters.get::<String>("step", "the index or the name of a step")? {
        search.step = Some(step_of(&app, id, asked, &step).await?);
    }
    let attempt = attempt_of(&app, id, asked).await?;
    let _turn = Arc::clone(&app.searches).try_acquire_owned().map_err(|_| {
        let error = Error::new(ErrorKind::Unavailable, "too many searches in logs at once");
        error.hint("try again in a moment")
    })?;
    let found = app.logs.search(id, attempt.number, &search).await?;
    let hit = |hit: LogHit| LogHitView { n: hit.line, step: hit.step, text: hit.text };
    Ok(Json(LogHitsView {
        attempt: attempt.number,
        total: found.total,
        per_step: found.per_step.into_iter().map(|(step, total)| StepHitsView { step, total }).collect(),
        hits: found.hits.into_iter().map(hit).collect(),
        searched: found.searched,
        next: (!found.complete).then_some(found.searched),
    }))
}
