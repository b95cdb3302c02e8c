//! What is told about a build and about a package: failures, changes, what holds others back, history.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use futures_util::{StreamExt, TryStreamExt, stream};
use melange_remote_sdk::api::v1::ErrorResponse;
use melange_remote_sdk::api::v2::{
    BuildBlockersResponse, BuildChangesResponse, BuildFailuresResponse, HistoryEntryView,
    PackageHistoryResponse,
};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builds::{BuildChanges, BuildStanding};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::{Build, BuildId, BuildSource, Job, JobId, Project};
use melange_remote_sdk::job_store::{BuildQuery, ListQuery};

use super::Parameters;
use super::builds::loaded;
use crate::app::App;
use crate::problem::Handled;

/// Builds among which the one before another one is looked for.
const BUILDS_SEARCHED: usize = 200;
/// Entries of a history unless the caller says otherwise.
const HISTORY: usize = 20;
/// The most entries of one.
const HISTORY_MAX: usize = 100;
/// Calls on the job store at a time.
const CALLS: usize = 8;

async fn standing(app: &App, id: &str) -> Handled<(BuildId, BuildStanding)> {
    let (id, loaded) = loaded(app, id).await?;
    Ok((id, BuildStanding::read(loaded, &*app.job_store).await?))
}

/// Get the failures of a build, grouped by what they failed of.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/failures",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The groups, the largest first", body = BuildFailuresResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn failures(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Handled<Json<BuildFailuresResponse>> {
    let (_, standing) = standing(&app, &id).await?;
    Ok(Json(BuildFailuresResponse::from(&standing.failures(&*app.job_store).await?[..])))
}

/// Get what holds other jobs of a build back.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/blockers",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "Jobs that others wait for, those that hold most back first", body = BuildBlockersResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn blockers(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Handled<Json<BuildBlockersResponse>> {
    let (_, standing) = standing(&app, &id).await?;
    Ok(Json(BuildBlockersResponse::from(&standing.blockers()[..])))
}

/// Compare a build with the one before.
///
/// That is the newest older build of the same project from the same git repository, or from definitions that came with
/// their request, as this one's did.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/changes",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build"),
        ("since" = Option<String>, Query, description = "The build to compare it with")
    ),
    responses(
        (status = 200, description = "What became worse, better, is new and gone", body = BuildChangesResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn changes(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Handled<Json<BuildChangesResponse>> {
    let parameters = Parameters::read(&uri, &["since"])?;
    let since: Option<BuildId> = parameters.get("since", "the name of a build")?;
    let (id, standing) = standing(&app, &id).await?;
    let build = app.job_store.build(id).await?;
    let before = match since {
        Some(since) => Some(since),
        None => before(&app, &build).await?,
    };
    let changes = match before {
        Some(before) => standing.changes_since(&self::standing(&app, &before.to_string()).await?.1),
        None => BuildChanges::default(),
    };
    Ok(Json(BuildChangesResponse::new(&build, before, &changes)))
}

/// The newest older build of the same project and source.
async fn before(app: &App, build: &Build) -> Handled<Option<BuildId>> {
    let query = BuildQuery::newest(BUILDS_SEARCHED).of_project(build.project.clone()).before(build.id);
    let is_alike = |other: &&Build| match (&build.facts.source, &other.facts.source) {
        (BuildSource::Git { url, .. }, BuildSource::Git { url: other, .. }) => url == other,
        (BuildSource::Inline { .. }, BuildSource::Inline { .. }) => true,
        _ => false,
    };
    let older = app.job_store.builds(&query).await?.builds;
    Ok(older.iter().filter(|other| other.facts.is_planned).find(is_alike).map(|other| other.id))
}

/// Get the last jobs of a package: what they came to, took and used.
#[utoipa::path(
    get,
    path = "/api/v2/packages/{name}/history",
    tag = "builds",
    params(
        ("name" = String, Path, description = "The name of the main package"),
        ("limit" = Option<u32>, Query, description = "Jobs of a page, 1 to 100; 20 when it is missing"),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next` of the one before"),
        ("arch" = Option<String>, Query, description = "Only jobs for this architecture"),
        ("project" = Option<String>, Query, description = "Only jobs of this project")
    ),
    responses(
        (status = 200, description = "The jobs, newest first", body = PackageHistoryResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn history(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Handled<Json<PackageHistoryResponse>> {
    let parameters = Parameters::read(&uri, &["limit", "cursor", "arch", "project"])?;
    let limit = parameters.get::<usize>("limit", "a number")?.unwrap_or(HISTORY);
    if !(1..=HISTORY_MAX).contains(&limit) {
        return Err(Error::invalid(format!("limit goes from 1 to {HISTORY_MAX}")).into());
    }
    let arch: Option<Arch> = parameters.get("arch", "an architecture")?;
    let project: Option<Project> = parameters.get("project", "the name of a project")?;
    let before: Option<JobId> = parameters.get("cursor", "a cursor of this listing")?;
    let query = ListQuery::newest(limit).of_project(project).titled(name).for_arch(arch).before(before);
    let page = app.job_store.list(&query).await?;
    let next = page.jobs.last().map(|job| job.id.to_string()).filter(|_| page.more);
    let jobs = stream::iter(page.jobs).map(|job| entry(&app, job)).buffered(CALLS).try_collect().await?;
    Ok(Json(PackageHistoryResponse::new(jobs, next)))
}

/// A job of a history, with what its last attempt showed.
async fn entry(app: &App, job: Arc<Job>) -> Handled<HistoryEntryView> {
    let mut view = HistoryEntryView::of_job(&job);
    if job.attempt == 0 || job.reused.is_some() {
        return Ok(view);
    }
    match app.job_store.attempt(job.id, job.attempt).await {
        Ok(attempt) => {
            view.peak_memory_bytes = attempt.peak_memory_bytes;
            view.signature = attempt.failure.map(|failure| failure.signature);
        }
        // Its attempts are not kept any more.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(view)
}
