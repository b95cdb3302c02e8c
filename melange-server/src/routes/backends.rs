//! Backends: list, add, remove.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{self, BackendView, BackendsResponse, ErrorDetail};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::{Backend, check_addr, check_max_jobs};
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;

use super::{Parameters, read_body};
use crate::app::App;
use crate::problem::{Handled, Problem};

pub(super) async fn list(State(app): State<App>, uri: Uri) -> Handled<Json<BackendsResponse>> {
    let parameters = Parameters::read(&uri, &["arch"])?;
    let arch: Option<Arch> = parameters.get("arch", "an architecture, such as x86_64")?;
    let backends = app.pool.backends();
    let wanted = backends.iter().filter(|backend| arch.is_none_or(|arch| backend.arch() == arch));
    Ok(Json(BackendsResponse {
        backends: wanted.map(|backend| BackendView::from(&**backend)).collect(),
        architectures: app.pool.arches().into_iter().map(|arch| arch.to_string()).collect(),
    }))
}

pub(super) async fn add(State(app): State<App>, body: Body) -> Handled<Response> {
    let body = read_body(body).await?;
    let request = v1::read_backend(&body).map_err(Problem::mistakes)?;
    let backend = app.pool.add(read_backend(request)?)?;
    tracing::info!(addr = backend.addr(), arch = %backend.arch(), "a backend was added");
    Ok((StatusCode::CREATED, Json(BackendView::from(&*backend))).into_response())
}

/// Checks the fields of a backend, all of them.
fn read_backend(request: BackendView) -> Handled<Backend> {
    let mut details = Vec::new();
    let mut wrong = |field: &str, error| details.push(ErrorDetail::field(field, &error));
    if let Err(error) = check_addr(&request.addr) {
        wrong("addr", error);
    }
    let arch = request.arch.parse::<Arch>().map_err(|error| wrong("arch", error));
    let labels = Labels::new(request.labels).map_err(|error| wrong("labels", error));
    let max_jobs = request.max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT);
    let max_jobs = check_max_jobs(max_jobs).map_err(|error| wrong("maxJobs", error));
    match (arch, labels, max_jobs) {
        (Ok(arch), Ok(labels), Ok(max_jobs)) if details.is_empty() => {
            Ok(Backend::new(request.addr, arch, labels)?.with_max_jobs(max_jobs)?)
        }
        _ => Err(Problem::mistakes(details)),
    }
}

pub(super) async fn remove(State(app): State<App>, uri: Uri, body: Body) -> Handled<StatusCode> {
    let parameters = Parameters::read(&uri, &["addr"])?;
    let addr = match parameters.get::<String>("addr", "an address")? {
        Some(addr) => addr,
        None => v1::read_backend_name(&read_body(body).await?).map_err(Problem::mistakes)?.addr,
    };
    app.pool.remove(&addr)?;
    tracing::info!(addr, "a backend was removed");
    Ok(StatusCode::NO_CONTENT)
}
