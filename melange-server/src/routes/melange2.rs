//! Builds as clients of melange2 hand them in and read them; see [`melange_remote_sdk::api::melange2`].

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::melange2::{
    self, Melange2Build, Melange2CreateRequest, Melange2CreateResponse, Melange2Package,
};
use melange_remote_sdk::api::v1::{ErrorDetail, ErrorResponse};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builds::LoadedBuild;
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::{Build, BuildState, Job};
use melange_remote_sdk::job_store::{BuildQuery, ListQuery, all_jobs};
use melange_remote_sdk::limits;

use super::Parameters;
use super::body::read_body;
use super::builds::{self, HandedIn, HandedInBuild, Named};
use super::jobs;
use crate::app::App;
use crate::builds::{Checked, check};
use crate::problem::{Handled, Problem};

/// Build packages, as clients of melange2 ask for it.
///
/// A thin translation to `POST /api/v2/builds`. Packages are built in the order of their needs whatever `mode` says, also
/// those whose version is published; `env` is refused.
#[utoipa::path(
    post,
    path = "/api/v1/builds",
    tag = "melange2",
    params(
        ("idempotency-key" = Option<String>, Header, description = "Names the build: a repeated one makes no second build")
    ),
    request_body = Melange2CreateRequest,
    responses(
        (status = 201, description = "The build waits", body = Melange2CreateResponse, headers(("location" = String, description = "The path of the build"))),
        (status = "4XX", description = "The request is refused, or there is nothing to build; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    original: OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Handled<Response> {
    let key = builds::key_of(&headers)?;
    let planner = builds::admitted(&app)?;
    let body = read_body(&app, body).await?;
    let request = melange2::read_create(&body).map_err(Problem::mistakes)?;
    drop(body);
    let planned = builds::planned(&app, planner, checked(&app, request).await?).await?;
    let HandedIn { build, skipped } = builds::hand_in(&app, planned, key).await?;
    let Some(HandedInBuild { id, loaded, .. }) = build else {
        let told = skipped.into_iter().take(limits::DIAGNOSTICS_MAX).map(|package| ErrorDetail {
            message: format!("{}: {}", package.name, package.reason.unwrap_or_default()),
            ..ErrorDetail::default()
        });
        let error = Error::invalid("there is nothing to build");
        return Err(Problem::new(error.hint("`details` says why each package is left out"), told.collect()));
    };
    let plans = || loaded.document().archs.iter().map(|arch| &arch.plan);
    let jobs = plans().flat_map(|plan| plan.jobs.iter().map(|job| job.name.clone()));
    let left_out = plans().flat_map(|plan| plan.skipped.iter().map(|skip| skip.name.clone()));
    let answer = Melange2CreateResponse::new(id, jobs.chain(left_out).collect());
    let location = [(header::LOCATION, format!("{}/{id}", original.path()))];
    Ok((StatusCode::CREATED, location, Json(answer)).into_response())
}

/// Translates a request, on a thread that may be busy for a while: definitions are read for their names.
async fn checked(app: &App, request: Melange2CreateRequest) -> Handled<Checked> {
    let app = app.clone();
    let translated = tokio::task::spawn_blocking(move || {
        let (request, files) = request.into_build()?;
        let wrong = |package: &String, error: &Error| {
            vec![ErrorDetail::field(format!("source_files.{package}"), error)]
        };
        for (package, texts) in &files {
            melange_remote_sdk::sources::check_texts(texts).map_err(|error| wrong(package, &error))?;
        }
        let renamed = |mut mistake: ErrorDetail| {
            mistake.field = mistake.field.as_deref().map(melange2::field_of);
            mistake
        };
        let checked = check(request, &app.rules);
        let checked = checked.map_err(|mistakes| mistakes.into_iter().map(renamed).collect::<Vec<_>>())?;
        Ok(Checked { files, ..checked })
    });
    let translated = translated.await;
    translated
        .map_err(|error| Error::unexpected("the request could not be translated").source(error))?
        .map_err(Problem::mistakes)
}

/// List builds, as clients of melange2 read them.
///
/// The newest 100 builds, of these the newest whose packages are 20,000 together, the oldest first; packages without what
/// they wait for. `GET /api/v2/builds` has pages.
#[utoipa::path(
    get,
    path = "/api/v1/builds",
    tag = "melange2",
    responses(
        (status = 200, description = "Builds, the oldest first", body = Vec<Melange2Build>),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Handled<Json<Vec<Melange2Build>>> {
    Parameters::read(&uri, &[])?;
    let query = BuildQuery::newest(limits::MELANGE2_BUILDS_MAX);
    listed(&app, app.job_store.builds(&query).await?.builds).await
}

/// List the builds that have not ended, as clients of melange2 read them.
///
/// As the list of all builds.
#[utoipa::path(
    get,
    path = "/api/v1/builds/active",
    tag = "melange2",
    responses(
        (status = 200, description = "Builds, the oldest first", body = Vec<Melange2Build>),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn active(State(app): State<App>, uri: Uri) -> Handled<Json<Vec<Melange2Build>>> {
    Parameters::read(&uri, &[])?;
    let mut builds = Vec::new();
    for state in [BuildState::Pending, BuildState::Running] {
        let query = BuildQuery::newest(limits::MELANGE2_BUILDS_MAX).in_state(state);
        builds.extend(app.job_store.builds(&query).await?.builds);
    }
    // One that began between the two questions is in both answers.
    builds.sort_by_key(|build| std::cmp::Reverse(build.id));
    builds.dedup_by_key(|build| build.id);
    builds.truncate(limits::MELANGE2_BUILDS_MAX);
    listed(&app, builds).await
}

/// Builds, the newest first, with their packages as far as there is room for them; told the oldest first.
async fn listed(app: &App, builds: Vec<Build>) -> Handled<Json<Vec<Melange2Build>>> {
    let (mut told, mut left) = (Vec::new(), limits::MELANGE2_PACKAGES_MAX);
    for build in &builds {
        let count = usize::try_from(build.counts.total()).unwrap_or(usize::MAX);
        if count > left && !told.is_empty() {
            break;
        }
        left = left.saturating_sub(count);
        told.push(Melange2Build::new(build, packages(app, build, None).await?));
    }
    told.reverse();
    Ok(Json(told))
}

/// Get a build with its packages, as clients of melange2 read it.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}",
    tag = "melange2",
    params(
        ("id" = String, Path, description = "The build")
    ),
    responses(
        (status = 200, description = "The build, without the texts of its definitions", body = Melange2Build),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn get(State(app): State<App>, Path(id): Path<String>) -> Handled<Json<Melange2Build>> {
    let id = builds::build_id(&id)?;
    // Before its packages: a client that waits for its end must see that of each then.
    let build = app.job_store.build(id).await?;
    let loaded = match app.planner.as_ref().filter(|_| build.facts.is_planned) {
        Some(planner) => match planner.files().document(id).await {
            Ok(loaded) => Some(loaded),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let mut told = packages(&app, &build, loaded.as_deref()).await?;
    let Some(loaded) = loaded else { return Ok(Json(Melange2Build::new(&build, told))) };
    let skips = loaded.document().archs.iter().flat_map(|arch| &arch.plan.skipped);
    told.extend(skips.map(|skip| Melange2Package::skipped(&skip.name, &skip.reason)));
    let mut view = Melange2Build::new(&build, told);
    let options = &loaded.document().options;
    view.spec.backend_selector = options.backend_selector.labels().as_map().clone();
    (view.spec.with_test, view.spec.debug) = (options.with_test, options.debug);
    Ok(Json(view))
}

/// The jobs of a build, at most as many as a submission may have.
async fn packages(app: &App, build: &Build, loaded: Option<&LoadedBuild>) -> Handled<Vec<Melange2Package>> {
    let jobs = all_jobs(&*app.job_store, &ListQuery::default().of_build(build.id)).await?;
    Ok(jobs.iter().map(|job| package_of(app, job, loaded)).collect())
}

fn package_of(app: &App, job: &Job, loaded: Option<&LoadedBuild>) -> Melange2Package {
    let mut package = Melange2Package::from(jobs::view(app, job));
    if let Some((arch, number)) = loaded.and_then(|loaded| loaded.place(job.id)) {
        let planned = &arch.plan.jobs;
        let needs = planned.get(number).into_iter().flat_map(|job| &job.waits_for);
        package.dependencies = needs.filter_map(|need| Some(planned.get(*need)?.name.clone())).collect();
    }
    package
}

/// Get a package of a build, as clients of melange2 read it.
#[utoipa::path(
    get,
    path = "/api/v1/builds/{id}/packages/{name}",
    tag = "melange2",
    params(
        ("id" = String, Path, description = "The build"),
        ("name" = String, Path, description = "The name of the package, or of a subpackage"),
        ("arch" = Option<String>, Query, description = "The architecture; needed when the build has several")
    ),
    responses(
        (status = 200, description = "The package, with its definition", body = Melange2Package),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn package(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    uri: Uri,
) -> Handled<Json<Melange2Package>> {
    let parameters = Parameters::read(&uri, &["arch"])?;
    let arch: Option<Arch> = parameters.get("arch", "an architecture")?;
    let (_, loaded) = builds::loaded(&app, &id).await?;
    let job = match builds::named(&loaded, &name, arch)? {
        Named::Job(job) => app.job_store.get(job).await?,
        Named::Skipped(view) => {
            return Ok(Json(Melange2Package::skipped(view.name, view.reason.unwrap_or_default())));
        }
    };
    let spec = app.job_store.spec(job.id).await?;
    let mut package = package_of(&app, &job, Some(&loaded));
    package.config_yaml = spec.config_yaml().to_owned();
    package.pipelines =
        spec.pipelines().iter().map(|(path, text)| (path.to_string(), text.clone())).collect();
    Ok(Json(package))
}
