//! Builds of many packages: plan, hand in, list, look at, cancel, try again.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::melange2::SourceFiles;
use melange_remote_sdk::api::v1::{self, ErrorResponse, EventsResponse};
use melange_remote_sdk::api::v2::{
    self, BuildPackageView, BuildPackagesResponse, BuildView, BuildsResponse, CreateBuildRequest,
    CreateBuildResponse, NoBackendView, PlanView,
};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builds::{BuildPlanner, BuildRequest, LoadedBuild, NewBuild, PlannedBuild};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::git::{GitCheckout, GitSource};
use melange_remote_sdk::job::{BuildId, BuildState, JobId, JobState, Project, SourceDigest};
use melange_remote_sdk::job_store::{BuildQuery, EventQuery, ListQuery, Selection};
use melange_remote_sdk::limits;
use melange_remote_sdk::planner::ArchPlan;
use melange_remote_sdk::text::diagnostics::nearest;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::body::read_body;
use super::{Parameters, events};
use crate::app::App;
use crate::builds::{self, Checked};
use crate::problem::{Handled, Problem};
use crate::submission::CancelOnDrop;

/// Archives of source files that are asked for at once.
const SOURCES_AT_ONCE: usize = 16;

/// Build packages.
///
/// The definitions are compiled and planned at once; all their mistakes are told together. A package waits for those that
/// its environment needs, and sees what they made. The answer has a page of the packages.
#[utoipa::path(
    post,
    path = "/api/v2/builds",
    tag = "builds",
    params(
        ("idempotency-key" = Option<String>, Header, description = "Names the build: a repeated one makes no second build")
    ),
    request_body = CreateBuildRequest,
    responses(
        (status = 201, description = "The build waits, or was handed in before with the same key", body = CreateBuildResponse, headers(("location" = String, description = "The path of the build"))),
        (status = 200, description = "There is nothing to build; the packages say why", body = CreateBuildResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    original: OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Handled<Response> {
    let key = key_of(&headers)?;
    let (planner, checked) = asked(&app, body).await?;
    let HandedIn { build, skipped } = hand_in(&app, planned(&app, planner, checked).await?, key).await?;
    let Some(HandedInBuild { id, created, loaded, no_backend }) = build else {
        let (total, mut packages) = (skipped.len(), skipped);
        packages.truncate(limits::PAGE_ITEMS_MAX);
        return Ok(Json(CreateBuildResponse::new(None, packages, total, false)).into_response());
    };
    let total = loaded.len().saturating_add(skipped.len());
    let mut packages = page(&app, id, &loaded, ListQuery::newest(limits::PAGE_ITEMS_MAX)).await?.0;
    packages.extend(skipped);
    packages.truncate(limits::PAGE_ITEMS_MAX);
    let mut answer = CreateBuildResponse::new(Some(id.to_string()), packages, total, created);
    answer.no_backend = no_backend;
    let location = [(header::LOCATION, format!("{}/{id}", original.path()))];
    Ok((StatusCode::CREATED, location, Json(answer)).into_response())
}

/// The name that a client gave to what it hands in.
pub(super) fn key_of(headers: &HeaderMap) -> Handled<Option<String>> {
    let key = headers.get(v1::IDEMPOTENCY_KEY).map(|value| value.to_str().map(str::to_owned));
    let not_plain = |error| Error::invalid("the idempotency key is not plain text").source(error);
    Ok(key.transpose().map_err(not_plain)?)
}

/// What a request came to.
pub(super) struct HandedIn {
    /// The build; `None` when there is nothing to build.
    pub(super) build: Option<HandedInBuild>,
    /// What was left out when it was planned.
    pub(super) skipped: Vec<BuildPackageView>,
}

/// A build that was handed in now or before.
pub(super) struct HandedInBuild {
    pub(super) id: BuildId,
    pub(super) created: bool,
    pub(super) loaded: Arc<LoadedBuild>,
    /// Jobs that no backend could run now.
    pub(super) no_backend: Vec<NoBackendView>,
}

/// Hands a planned request in: the files beside its definitions first.
pub(super) async fn hand_in(app: &App, planned: Planned, key: Option<String>) -> Handled<HandedIn> {
    let Planned { planner, project, request, planned, checkout, files } = planned;
    builds::refuse_circles(&planned.plans)?;
    let (mut request, now) = (Arc::unwrap_or_clone(request), app.clock.now());
    // What is stored here need not be asked for.
    let named: BTreeSet<SourceDigest> = request.sources.values().copied().collect();
    if let Some(checkout) = checkout {
        planner.files().store_checkout(&mut request, &checkout, &planned.plans, now).await?;
    }
    builds::store_texts(planner.files(), &mut request, files, &planned.plans, now).await?;
    let mut sources: BTreeSet<SourceDigest> = BTreeSet::new();
    for job in planned.plans.iter().flat_map(|plan| &plan.jobs) {
        sources.extend(request.source_of(&job.name, &job.file).filter(|digest| named.contains(digest)));
    }
    // Each may have to be put again, which takes a storage some round trips.
    let asked: Vec<BoxFuture<'_, Handled<()>>> =
        sources.iter().map(|digest| super::sources::require(app, digest).boxed()).collect();
    stream::iter(asked).buffer_unordered(SOURCES_AT_ONCE).try_collect::<Vec<()>>().await?;
    let skipped = skipped(&planned.plans);
    let no_backend = builds::without_backend(app, &request, &planned);
    let mut new = NewBuild::new(app.clock.now());
    (new.project, new.key) = (project, key);
    let Some(submitted) = planner.submit(&request, planned, &new).await? else {
        return Ok(HandedIn { build: None, skipped });
    };
    let (jobs, created) = (submitted.jobs.len(), submitted.created);
    let id = submitted.build.ok_or_else(|| Error::unexpected("the job store tells no build"))?;
    tracing::info!(build = %id, jobs, created, "a build was handed in");
    let loaded = planner.files().document(id).await?;
    Ok(HandedIn { build: Some(HandedInBuild { id, created, loaded, no_backend }), skipped })
}

/// What was left out when a build was planned.
fn skipped<'p>(plans: impl IntoIterator<Item = &'p ArchPlan>) -> Vec<BuildPackageView> {
    let skips = plans.into_iter().flat_map(|plan| plan.skipped.iter().map(|skip| (plan.arch, skip)));
    skips.map(|(arch, skip)| BuildPackageView::skipped(&skip.name, arch.apk_name(), &skip.reason)).collect()
}

/// Plan a build, and build nothing.
#[utoipa::path(
    post,
    path = "/api/v2/plans",
    tag = "builds",
    request_body = CreateBuildRequest,
    responses(
        (status = 200, description = "The plan; `refused` has what could not be built", body = PlanView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn plan(State(app): State<App>, body: Body) -> Handled<Json<PlanView>> {
    let (planner, checked) = asked(&app, body).await?;
    Ok(Json(PlanView::new(&planned(&app, planner, checked).await?.planned.plans)))
}

/// A request that was planned.
pub(super) struct Planned {
    planner: BuildPlanner,
    project: Project,
    request: Arc<BuildRequest>,
    planned: PlannedBuild,
    /// Where its definitions lie.
    checkout: Option<GitCheckout>,
    /// The files that came with it.
    files: SourceFiles,
}

/// Fetches the definitions of a repository into a request.
async fn fetched(app: &App, request: &mut BuildRequest, source: &GitSource) -> Handled<GitCheckout> {
    let unsupported = || {
        let error = Error::new(ErrorKind::Unsupported, "this server reads no git repositories");
        error.hint("send the definitions in `source.definitions`")
    };
    let fetcher = app.git.as_ref().ok_or_else(unsupported)?;
    let _room = app.fetches.try_acquire().map_err(|_| {
        let error = Error::new(ErrorKind::Unavailable, "the server reads too many git repositories at once");
        error.hint("send it again in a moment")
    })?;
    let checkout = fetcher.fetch(source, &app.stopping).await?;
    request.take_checkout(source, &checkout);
    Ok(checkout)
}

/// The planner, for one more request. Before its body is read: refusing must cost less than taking.
pub(super) fn admitted(app: &App) -> Handled<BuildPlanner> {
    if app.stopping.is_cancelled() {
        return Err(Error::new(ErrorKind::Unavailable, "the server stops and takes no more builds").into());
    }
    let planner = planner(app)?;
    if let Err(wait) = app.submit_rate.take() {
        let error = Error::new(ErrorKind::LimitExceeded, "more is handed in than this server takes");
        return Err(Problem::from(error.hint("send it again when Retry-After says")).retry_after(wait));
    }
    Ok(planner)
}

/// Reads and checks a request.
async fn asked(app: &App, body: Body) -> Handled<(BuildPlanner, Checked)> {
    let planner = admitted(app)?;
    let body = read_body(app, body).await?;
    let request: CreateBuildRequest = v2::read_build(&body).map_err(Problem::mistakes)?;
    Ok((planner, builds::check(request, &app.rules).map_err(Problem::mistakes)?))
}

/// Plans a request.
pub(super) async fn planned(app: &App, planner: BuildPlanner, checked: Checked) -> Handled<Planned> {
    let Checked { project, mut request, git, files } = checked;
    let checkout = match &git {
        Some(source) => Some(fetched(app, &mut request, source).await?),
        None => None,
    };
    let request = Arc::new(request);
    let cancel = CancelOnDrop(Arc::default());
    let planned = planner.plan(&project, &request, Arc::clone(&cancel.0)).await?;
    builds::refuse_mistakes(&request, &planned)?;
    Ok(Planned { planner, project, request, planned, checkout, files })
}

fn planner(app: &App) -> Handled<BuildPlanner> {
    let error = || Error::new(ErrorKind::Unsupported, "this server plans no builds");
    Ok(app.planner.clone().ok_or_else(|| error().hint("submit the definitions as single jobs"))?)
}

/// List builds.
#[utoipa::path(
    get,
    path = "/api/v2/builds",
    tag = "builds",
    params(
        ("limit" = Option<u32>, Query, description = "Builds of a page, 1 to 1000; 100 when it is missing"),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next` of the one before"),
        ("status" = Option<String>, Query, description = "Only builds with this status"),
        ("project" = Option<String>, Query, description = "Only builds of this project")
    ),
    responses(
        (status = 200, description = "A page of builds, newest first", body = BuildsResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Handled<Json<BuildsResponse>> {
    let parameters = Parameters::read(&uri, &["limit", "cursor", "status", "project"])?;
    let before: Option<BuildId> = parameters.get("cursor", "a cursor of this listing")?;
    let state: Option<BuildState> = parameters.get("status", "the status of a build")?;
    let project: Option<Project> = parameters.get("project", "the name of a project")?;
    let query = BuildQuery::newest(limit(&parameters)?).before(before).in_state(state).of_project(project);
    let page = app.job_store.builds(&query).await?;
    let next = page.builds.last().map(|build| build.id.to_string()).filter(|_| page.more);
    Ok(Json(BuildsResponse::new(page.builds.iter().map(BuildView::from).collect(), next)))
}

/// Get a build, without its packages.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The build", body = BuildView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<BuildView>> {
    let build = app.job_store.build(build_id(&id)?).await?;
    let mut view = BuildView::from(&build);
    view.expected_at = app.ends.of(&app, &build).await;
    Ok(Json(view))
}

/// List the packages of a build, in the order of its plan.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/packages",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build"),
        ("limit" = Option<u32>, Query, description = "Packages of a page, 1 to 1000; 100 when it is missing"),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next` of the one before"),
        ("status" = Option<String>, Query, description = "Only packages with this status"),
        ("arch" = Option<String>, Query, description = "Only packages for this architecture")
    ),
    responses(
        (status = 200, description = "A page of packages", body = BuildPackagesResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn packages(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Handled<Json<BuildPackagesResponse>> {
    let parameters = Parameters::read(&uri, &["limit", "cursor", "status", "arch"])?;
    let state: Option<JobState> = parameters.get("status", "the status of a package")?;
    let arch: Option<Arch> = parameters.get("arch", "an architecture")?;
    let after: Option<JobId> = parameters.get("cursor", "a cursor of this listing")?;
    let (id, loaded) = loaded(&app, &id).await?;
    let query = ListQuery::newest(limit(&parameters)?).in_state(state).for_arch(arch).oldest_after(after);
    let (packages, next) = page(&app, id, &loaded, query).await?;
    Ok(Json(BuildPackagesResponse::new(packages, next)))
}

/// Get a package of a build.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/packages/{name}",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build"),
        ("name" = String, Path, description = "The name of the package, or of a subpackage"),
        ("arch" = Option<String>, Query, description = "The architecture; needed when the build has several")
    ),
    responses(
        (status = 200, description = "The package", body = BuildPackageView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn package(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    uri: Uri,
) -> Handled<Json<BuildPackageView>> {
    let parameters = Parameters::read(&uri, &["arch"])?;
    let arch: Option<Arch> = parameters.get("arch", "an architecture")?;
    let (_, loaded) = loaded(&app, &id).await?;
    let job = named(&loaded, &name, arch)?;
    match job {
        Named::Job(job) => Ok(Json(builds::package(&app, &loaded, &app.job_store.get(job).await?).await?)),
        Named::Skipped(view) => Ok(Json(*view)),
    }
}

/// Get the plan of a build.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/plan",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The plan as it was made; it never changes", body = PlanView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn plan_of(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<PlanView>> {
    let (_, loaded) = loaded(&app, &id).await?;
    let plans: Vec<_> = loaded.document().archs.iter().map(|arch| arch.plan.clone()).collect();
    Ok(Json(PlanView::new(&plans)))
}

/// Read the events of a build and of its jobs.
///
/// As the events of the farm with `build`; a stream begins with the first event of the build.
#[utoipa::path(
    get,
    path = "/api/v2/builds/{id}/events",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build"),
        ("after" = Option<u64>, Query, description = "Only events behind the one with this number"),
        ("limit" = Option<usize>, Query, description = "Events of a page, at most 1000"),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on until the build has ended, with an event in each line"),
        ("last-event-id" = Option<String>, Header, description = "As `after`")
    ),
    responses(
        (status = 200, description = "A page of events, or a stream of them", body = EventsResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn events_of(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Handled<Response> {
    let parameters = Parameters::read(&uri, &["after", "limit", "follow"])?;
    events::answer(app, &parameters, &headers, EventQuery::after(0).of_build(build_id(&id)?)).await
}

/// Ask for all jobs of a build to stop.
///
/// Those that wait are cancelled at once, those that run stop soon. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/api/v2/builds/{id}/cancel",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The build", body = BuildView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<BuildView>> {
    let id = build_id(&id)?;
    let jobs = app.job_store.cancel(Selection::Build(id), app.clock.now()).await?;
    tracing::info!(build = %id, jobs, "a build is cancelled");
    Ok(Json(BuildView::from(&app.job_store.build(id).await?)))
}

/// Try again what failed or was cancelled of a build, and what was skipped because of it.
///
/// It happens in the same build, as new attempts. What waits or runs stays as it is.
#[utoipa::path(
    post,
    path = "/api/v2/builds/{id}/retry",
    tag = "builds",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The build", body = BuildView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<BuildView>> {
    let id = build_id(&id)?;
    let jobs = app.job_store.retry(Selection::Build(id), app.clock.now()).await?;
    tracing::info!(build = %id, jobs, "a build is tried again");
    Ok(Json(BuildView::from(&app.job_store.build(id).await?)))
}

/// Builds and packages of a page when nobody says how many.
const PAGE: usize = 100;

fn limit(parameters: &Parameters) -> Handled<usize> {
    let limit = parameters.get("limit", "a whole number from 1")?.unwrap_or(PAGE);
    if (1..=limits::PAGE_ITEMS_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::invalid(format!("`limit` goes from 1 to {}", limits::PAGE_ITEMS_MAX)).into())
}

/// The id of a path; what is no id names no build.
pub(super) fn build_id(text: &str) -> Handled<BuildId> {
    text.parse().map_err(|_| {
        let error = Error::new(ErrorKind::NotFound, "there is no such build").with("build", text);
        error.hint("list the builds to see their ids").into()
    })
}

/// A build with its document.
pub(super) async fn loaded(app: &App, id: &str) -> Handled<(BuildId, Arc<LoadedBuild>)> {
    let id = build_id(id)?;
    app.job_store.build(id).await?;
    let document = planner(app)?.files().document(id).await;
    let document = document.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "the build was not planned").with("build", id),
        _ => error,
    });
    Ok((id, document?))
}

/// Packages of a build in the order of its plan, and the cursor behind them.
async fn page(
    app: &App,
    id: BuildId,
    loaded: &LoadedBuild,
    query: ListQuery,
) -> Handled<(Vec<BuildPackageView>, Option<String>)> {
    let after = query.after;
    let page = app.job_store.list(&query.of_build(id).oldest_after(after)).await?;
    let mut packages = Vec::with_capacity(page.jobs.len());
    for job in &page.jobs {
        packages.push(builds::package(app, loaded, job).await?);
    }
    let next = page.jobs.last().map(|job| job.id.to_string()).filter(|_| page.more);
    Ok((packages, next))
}

/// What a name of a build means.
pub(super) enum Named {
    Job(JobId),
    /// It was left out when the build was planned.
    Skipped(Box<BuildPackageView>),
}

/// The job of a package or subpackage, on an architecture when there are several.
pub(super) fn named(loaded: &LoadedBuild, name: &str, arch: Option<Arch>) -> Handled<Named> {
    let archs = &loaded.document().archs;
    let mut found = Vec::new();
    for planned in archs.iter().filter(|planned| arch.is_none_or(|arch| planned.plan.arch == arch)) {
        let job = planned.plan.job_of(name).and_then(|number| planned.jobs.get(number));
        let skip = planned.plan.skipped.iter().find(|skip| skip.name == name);
        let arch = planned.plan.arch;
        match (job, skip) {
            (Some(job), _) => found.push((arch, Named::Job(*job))),
            (None, Some(skip)) => {
                let view = BuildPackageView::skipped(&skip.name, arch.apk_name(), &skip.reason);
                found.push((arch, Named::Skipped(Box::new(view))));
            }
            (None, None) => {}
        }
    }
    if found.len() > 1 {
        let known: Vec<&str> = found.iter().map(|(arch, _)| arch.apk_name()).collect();
        let error = Error::invalid(format!("the build has {name} for {}", known.join(" and ")));
        return Err(error.hint("say which with `?arch=`").into());
    }
    if let Some((_, found)) = found.pop() {
        return Ok(found);
    }
    let names = archs.iter().flat_map(|planned| &planned.plan.jobs).map(|job| job.name.as_str());
    let error = Error::new(ErrorKind::NotFound, format!("the build has no package {name:?}"));
    Err(match nearest(name, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("list its packages to see their names"),
    }
    .into())
}
