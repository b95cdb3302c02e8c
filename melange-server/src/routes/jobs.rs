//! Jobs: submit, list, get, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{self, AttemptView, ErrorResponse, JobView, SubmitRequest, SubmitResponse};
use melange_remote_sdk::artifact_storage::ArtifactKey;
use melange_remote_sdk::artifact_storage::layout::{LOG_NAME, attempt_folder, job_folder};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::{Job, JobId, JobState};
use melange_remote_sdk::job_store::{ListQuery, NewJob, Selection, Submission};
use melange_remote_sdk::limits;

use super::body::read_body;
use super::{Parameters, job_id, require_finished, sources};
use crate::app::App;
use crate::problem::{Handled, Problem};
use crate::submission::{self, Unmatched};

/// Hand in a definition.
///
/// The definition is compiled at once; all its mistakes are told together, with file, line and column.
#[utoipa::path(
    post,
    path = "/api/v1/jobs",
    tag = "jobs",
    params(
        ("idempotency-key" = Option<String>, Header, description = "Names the submission: a repeated one makes no second job")
    ),
    request_body = SubmitRequest,
    responses(
        (status = 201, description = "The job waits, was handed in before with the same key, or is an equal one", body = SubmitResponse, headers(("location" = String, description = "The path of the job"))),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn submit(
    State(app): State<App>,
    original: OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Handled<Response> {
    if app.stopping.is_cancelled() {
        return Err(Error::new(ErrorKind::Unavailable, "the server stops and takes no more jobs").into());
    }
    // Before the body: refusing must cost less than taking.
    if let Err(wait) = app.submit_rate.take() {
        let error = Error::new(ErrorKind::LimitExceeded, "more jobs are handed in than this server takes");
        return Err(Problem::from(error.hint("send it again when Retry-After says")).retry_after(wait));
    }
    let body = read_body(&app, body).await?;
    let request = v1::read_submit(&body).map_err(Problem::mistakes)?;
    let place = request.place().map_err(Problem::mistakes)?;
    let dedupe = request.dedupe_seconds;
    let spec = submission::check_aside(request, Arc::clone(&app.rules)).await?;
    if app.rules.unmatched == Unmatched::Refused {
        submission::check_backends(&spec, &*app.backend_selector, app.pool.candidates())?;
    }
    if let Some(source) = spec.source() {
        sources::require(&app, &source).await?;
    }
    let idempotency_key = headers
        .get(v1::IDEMPOTENCY_KEY)
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|error| Error::invalid("the idempotency key is not plain text").source(error))?;
    let at = app.clock.now();
    let mut job = NewJob::new(JobId::new(at), Arc::new(spec)).waiting_for(place.waits_for);
    job.priority = place.priority;
    let mut submission = Submission::new([job], at).in_project(place.project);
    submission.key = idempotency_key;
    if let Some(seconds) = dedupe {
        submission = submission.joining_within(Duration::from_secs(seconds.into()));
    }
    let submitted = app.job_store.submit(&submission).await?;
    let id = *submitted.jobs.first().ok_or_else(|| Error::unexpected("the job store tells no job"))?;
    tracing::info!(job = %id, created = submitted.created, "a job was handed in");
    let answer = Json(SubmitResponse { id: id.to_string(), created: submitted.created });
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("{}/{id}", original.path()))], answer)
        .into_response())
}

/// List jobs.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    tag = "jobs",
    params(
        ("limit" = Option<u32>, Query, description = "Jobs of a page, 1 to 1000"),
        ("cursor" = Option<String>, Query, description = "Where the page begins"),
        ("status" = Option<String>, Query, description = "Only jobs with this status")
    ),
    responses(
        (status = 200, description = "A page of jobs, newest first", body = Vec<JobView>, headers(("x-next-cursor" = String, description = "The cursor of the next page, when there is one"), ("link" = String, description = "The address of the next page"))),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn list(State(app): State<App>, original: OriginalUri, uri: Uri) -> Handled<Response> {
    let parameters = Parameters::read(&uri, &["limit", "cursor", "status"])?;
    let limit: Option<usize> = parameters.get("limit", "a whole number from 1")?;
    let limit = limit.unwrap_or(limits::PAGE_ITEMS_MAX);
    if !(1..=limits::PAGE_ITEMS_MAX).contains(&limit) {
        return Err(Error::invalid(format!("`limit` goes from 1 to {}", limits::PAGE_ITEMS_MAX)).into());
    }
    let before: Option<JobId> = parameters.get("cursor", "a cursor of this listing")?;
    let state: Option<JobState> = parameters.get("status", "the status of a job")?;
    let query = ListQuery::newest(limit).in_state(state).before(before);
    let page = app.job_store.list(&query).await?;
    let views: Vec<JobView> = page.jobs.iter().map(|job| view(&app, job)).collect();
    let next = views.last().map(|view| view.id.clone()).filter(|_| page.more);
    let mut response = Json(views).into_response();
    if let Some(cursor) = next {
        let status = state.map(|state| format!("&status={state}")).unwrap_or_default();
        let link = format!("<{}?limit={limit}&cursor={cursor}{status}>; rel=\"next\"", original.path());
        let mut set = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        };
        set(HeaderName::from_static(v1::NEXT_CURSOR), cursor);
        set(header::LINK, link);
    }
    Ok(response)
}

/// Look at a job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<JobView>> {
    whole_view(&app, job_id(&id)?).await
}

/// Ask for a job to stop.
///
/// One that waits is cancelled at once, and jobs that wait for it are skipped. Asking again changes nothing; a job that
/// has finished is a conflict.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/cancel",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 200, description = "The job; one that ran stops soon", body = JobView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<JobView>> {
    let id = job_id(&id)?;
    app.job_store.cancel(Selection::Job(id), app.clock.now()).await?;
    whole_view(&app, id).await
}

/// Try a failed or cancelled job again.
///
/// It goes back into the queue, and with it the jobs that were skipped because of it; what its attempts showed so far
/// stays. A job that waits or runs stays as it is; one that succeeded is a conflict.
#[utoipa::path(
    post,
    path = "/api/v1/jobs/{id}/retry",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 200, description = "The job, which waits", body = JobView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<JobView>> {
    let id = job_id(&id)?;
    let jobs = app.job_store.retry(Selection::Job(id), app.clock.now()).await?;
    tracing::info!(job = %id, jobs, "a job is tried again");
    whole_view(&app, id).await
}

/// List the attempts of a job, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/attempts",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 200, description = "The attempts; none before the first one began", body = Vec<AttemptView>),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn attempts(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Handled<Json<Vec<AttemptView>>> {
    let attempts = app.job_store.attempts(job_id(&id)?).await?;
    Ok(Json(attempts.iter().map(AttemptView::from).collect()))
}

/// Remove a finished job.
#[utoipa::path(
    delete,
    path = "/api/v1/jobs/{id}",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job")
    ),
    responses(
        (status = 204, description = "It is gone, with its log and its artifacts"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn remove(State(app): State<App>, Path(id): Path<String>) -> Handled<StatusCode> {
    let id = job_id(&id)?;
    let job = app.job_store.get(id).await?;
    require_finished(&job)?;
    for artifact in app.artifact_storage.list(&job_folder(id)?).await? {
        app.artifact_storage.delete(&artifact.key).await?;
    }
    app.job_store.remove(id).await?;
    if let (Some(build), Some(planner)) = (job.build, &app.planner)
        && let Err(error) = app.job_store.build(build).await
        && error.kind() == ErrorKind::NotFound
    {
        // It was the last job of its build.
        planner.files().remove(build).await?;
    }
    tracing::info!(job = %id, "a job was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// All that is known of a job.
async fn whole_view(app: &App, id: JobId) -> Handled<Json<JobView>> {
    let job = app.job_store.get(id).await?;
    let mut view = view(app, &job).with_spec(&*app.job_store.spec(id).await?);
    if job.attempt > 0 {
        view = view.with_attempt(&app.job_store.attempt(id, job.attempt).await?);
    }
    let needs = match job.state {
        JobState::Blocked => app.job_store.blocked_by(id, limits::PAGE_ITEMS_MAX).await?,
        _ => Vec::new(),
    };
    view.waiting = crate::waiting::of(app, &job, &needs).await?;
    view.published = super::published::of(app, &job).await;
    view = view.with_blocked_by(&needs);
    Ok(Json(view))
}

pub(super) fn view(app: &App, job: &Job) -> JobView {
    let folder = attempt_folder(job.id, job.attempt).ok().filter(|_| job.attempt > 0);
    let log = folder.as_ref().and_then(|folder| folder.join(LOG_NAME).ok());
    let url = |key: Option<ArtifactKey>| key.map(|key| app.artifact_storage.url(&key));
    JobView::new(job, url(log), url(folder))
}
