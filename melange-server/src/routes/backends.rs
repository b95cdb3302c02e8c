//! Backends: list, add, remove.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{
    self, BackendName, BackendView, BackendsResponse, ErrorDetail, ErrorResponse,
};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::pool::BackendState;
use melange_remote_sdk::backend::{Backend, BackendAddress, check_max_jobs};
use melange_remote_sdk::job::BackendCapacity;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;

use super::Parameters;
use super::body::read_body;
use crate::app::App;
use crate::problem::{Handled, Problem};

/// List backends.
#[utoipa::path(
    get,
    path = "/api/v1/backends",
    tag = "backends",
    params(
        ("arch" = Option<String>, Query, description = "Only those of this architecture")
    ),
    responses(
        (status = 200, description = "The backends with what is known of them", body = BackendsResponse),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Handled<Json<BackendsResponse>> {
    let parameters = Parameters::read(&uri, &["arch"])?;
    let arch: Option<Arch> = parameters.get("arch", "an architecture, such as x86_64")?;
    let states = app.pool.states();
    let wanted = states.iter().filter(|state| arch.is_none_or(|arch| state.backend.arch() == arch));
    Ok(Json(BackendsResponse {
        backends: wanted.map(BackendView::from).collect(),
        architectures: app.pool.arches().into_iter().map(|arch| arch.to_string()).collect(),
    }))
}

/// Add a backend.
#[utoipa::path(
    post,
    path = "/api/v1/backends",
    tag = "backends",
    request_body = BackendView,
    responses(
        (status = 201, description = "The backend gets jobs", body = BackendView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn add(State(app): State<App>, body: Body) -> Handled<Response> {
    let body = read_body(&app, body).await?;
    let request = v1::read_backend(&body).map_err(Problem::mistakes)?;
    let backend = app.fleet.add(read_backend(request)?).await?.backend;
    tracing::info!(addr = backend.addr(), arch = %backend.arch(), "a backend was added");
    Ok((StatusCode::CREATED, Json(BackendView::from(&*backend))).into_response())
}

/// Checks the fields of a backend, all of them.
fn read_backend(request: BackendView) -> Handled<Backend> {
    let mut details = Vec::new();
    let mut wrong = |field: &str, error| details.push(ErrorDetail::field(field, &error));
    if let Err(error) = request.addr.parse::<BackendAddress>() {
        wrong("addr", error);
    }
    let arch = request.arch.parse::<Arch>().map_err(|error| wrong("arch", error));
    let labels = Labels::new(request.labels).map_err(|error| wrong("labels", error));
    let max_jobs = request.max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT);
    let max_jobs = check_max_jobs(max_jobs).map_err(|error| wrong("maxJobs", error));
    let capacity = BackendCapacity::read(request.cpus.as_deref(), request.memory.as_deref());
    let capacity =
        capacity.map_err(|mistakes| mistakes.into_iter().for_each(|(field, error)| wrong(field, error)));
    match (arch, labels, max_jobs, capacity) {
        (Ok(arch), Ok(labels), Ok(max_jobs), Ok(capacity)) if details.is_empty() => {
            let backend = Backend::new(request.addr, arch, labels)?.with_max_jobs(max_jobs)?;
            Ok(backend.with_capacity(capacity))
        }
        _ => Err(Problem::mistakes(details)),
    }
}

/// Give a backend no further jobs; those that run on it go on.
#[utoipa::path(
    post,
    path = "/api/v1/backends/drain",
    tag = "backends",
    request_body = BackendName,
    responses(
        (status = 200, description = "It gets no further jobs", body = BackendView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn drain(State(app): State<App>, body: Body) -> Handled<Json<BackendView>> {
    let BackendName { addr, machine } = named(&app, body).await?;
    told(&app.fleet.drain(&addr, machine.as_deref()).await?)
}

/// Give a drained backend jobs again.
#[utoipa::path(
    post,
    path = "/api/v1/backends/enable",
    tag = "backends",
    request_body = BackendName,
    responses(
        (status = 200, description = "It gets jobs again", body = BackendView),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn enable(State(app): State<App>, body: Body) -> Handled<Json<BackendView>> {
    let BackendName { addr, machine } = named(&app, body).await?;
    told(&app.fleet.enable(&addr, machine.as_deref()).await?)
}

/// The backend that a body names.
async fn named(app: &App, body: Body) -> Handled<BackendName> {
    let name = v1::read_backend_name(&read_body(app, body).await?).map_err(Problem::mistakes)?;
    Ok(BackendName { addr: canonical(&name.addr), machine: name.machine })
}

fn told(state: &BackendState) -> Handled<Json<BackendView>> {
    let (addr, status) = (state.backend.addr(), state.status.name());
    tracing::info!(addr, status, "a backend was drained or enabled");
    Ok(Json(BackendView::from(state)))
}

/// The form by which the pool knows an address; what is no address names nothing there.
fn canonical(addr: &str) -> String {
    addr.parse::<BackendAddress>().map_or_else(|_| addr.to_owned(), |address| address.to_string())
}

/// Remove a backend.
#[utoipa::path(
    delete,
    path = "/api/v1/backends",
    tag = "backends",
    params(
        ("addr" = Option<String>, Query, description = "The address, when there is no body"),
        ("machine" = Option<String>, Query, description = "The machine, when there is no body")
    ),
    request_body = Option<BackendName>,
    responses(
        (status = 204, description = "It gets no further jobs; those that run on it go on"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn remove(State(app): State<App>, uri: Uri, body: Body) -> Handled<StatusCode> {
    let parameters = Parameters::read(&uri, &["addr", "machine"])?;
    let BackendName { addr, machine } = match parameters.get::<String>("addr", "an address")? {
        Some(addr) => {
            let machine = parameters.get("machine", "the name of a machine")?;
            BackendName { addr: canonical(&addr), machine }
        }
        None => named(&app, body).await?,
    };
    app.fleet.remove(&addr, machine.as_deref()).await?;
    tracing::info!(addr, "a backend was removed");
    Ok(StatusCode::NO_CONTENT)
}
