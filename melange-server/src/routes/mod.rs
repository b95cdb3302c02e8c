//! The routes: which path goes where, and what is the same for all of them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Query, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use melange_remote_sdk::api::v1::{self, ErrorDetail};
use melange_remote_sdk::api::v2;
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::{Job, JobId};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::problem::{Handled, Problem, tell_when_to_retry};

mod artifacts;
mod backends;
mod body;
mod builds;
mod events;
mod guard;
mod health;
mod jobs;
mod logs;
mod melange2;
pub(crate) mod openapi;
mod published;
mod queue;
mod ranges;
mod reports;
mod repository;
mod sources;
mod streaming;

pub(crate) fn router(app: App) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document = Arc::new(openapi::plain_paths(document));
    routes
        .route(
            openapi::PATH,
            get(move |original: OriginalUri, uri: Uri| async move {
                openapi::answer(&document, prefix(&original, &uri))
            }),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check))
        .layer(middleware::from_fn(survive_panics))
        .layer(middleware::map_response(tell_when_to_retry))
        .with_state(app)
}

/// The OpenAPI document of the service.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    openapi::plain_paths(documented().into_openapi())
}

/// The routes, each with its part of the document: a handler without one does not compile here.
fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::get, jobs::remove))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::attempts))
        .routes(routes!(builds::list, builds::create))
        .routes(routes!(builds::plan))
        .routes(routes!(builds::get))
        .routes(routes!(builds::packages))
        .routes(routes!(builds::package))
        .routes(routes!(builds::plan_of))
        .routes(routes!(builds::events_of))
        .routes(routes!(builds::cancel))
        .routes(routes!(builds::retry))
        .routes(routes!(reports::failures))
        .routes(routes!(reports::changes))
        .routes(routes!(reports::blockers))
        .routes(routes!(reports::history))
        .routes(routes!(melange2::list, melange2::create))
        .routes(routes!(melange2::active))
        .routes(routes!(melange2::get))
        .routes(routes!(melange2::package))
        .routes(routes!(queue::summary))
        .routes(routes!(events::read))
        .routes(routes!(events::of_job))
        .routes(routes!(logs::read))
        .routes(routes!(logs::outline))
        .routes(routes!(logs::search))
        .routes(routes!(logs::socket))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::get, artifacts::remove))
        .routes(routes!(repository::index))
        .routes(routes!(repository::package))
        .routes(routes!(repository::key))
        .routes(routes!(published::index))
        .routes(routes!(published::package))
        .routes(routes!(sources::get, sources::head, sources::put))
        .routes(routes!(backends::list, backends::add, backends::remove))
        .routes(routes!(backends::drain))
        .routes(routes!(backends::enable))
}

/// Where another program has put the service among its own routes; nothing where it is alone.
fn prefix<'u>(original: &'u OriginalUri, uri: &Uri) -> &'u str {
    original.path().strip_suffix(uri.path()).unwrap_or_default()
}

async fn unknown_path(original: OriginalUri, uri: Uri) -> Problem {
    let error = Error::new(ErrorKind::NotFound, format!("there is nothing at {}", original.path()));
    let prefix = prefix(&original, &uri);
    let (jobs, builds, backends) = (v1::JOBS, v2::BUILDS, v1::BACKENDS);
    let places =
        format!("jobs are at {prefix}{jobs}, builds at {prefix}{builds}, backends at {prefix}{backends}");
    error.hint(places).into()
}

/// The router adds the `Allow` header.
async fn wrong_method(method: Method, original: OriginalUri) -> Problem {
    let error = Error::invalid(format!("{} does not take {method}", original.path()));
    let error = error.hint("the Allow header names the methods that it takes");
    Problem::from(error).with_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// A handler that panics gives an error to its client and harms nobody else.
async fn survive_panics(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, "a handler panicked");
            Problem::from(Error::unexpected("the server failed on this request")).into_response()
        }
    }
}

/// The id of a path; what is no id names no job.
fn job_id(text: &str) -> Handled<JobId> {
    text.parse().map_err(|_| {
        let error = Error::new(ErrorKind::NotFound, "there is no such job").with("job", text);
        error.hint("list the jobs to see their ids").into()
    })
}

/// Refuses to remove what belongs to a job that has not finished.
fn require_finished(job: &Job) -> Handled<()> {
    if job.state.is_terminal() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Conflict, "the job has not finished").with("job", job.id);
    Err(error.hint("cancel it first").into())
}

/// The parameters behind the `?`, each of them known and given once.
struct Parameters(BTreeMap<String, String>);

impl Parameters {
    fn read(uri: &Uri, known: &[&str]) -> Handled<Self> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Error::invalid("the parameters could not be read").source(error))?;
        let mut details = Vec::new();
        let mut wrong = |name: &str, message: String, hint: Option<String>| {
            details.push(ErrorDetail { message, field: Some(name.to_owned()), hint, ..Default::default() });
        };
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let hint = format!("known parameters: {}", known.join(", "));
                wrong(&name, format!("unknown parameter `{name}`"), Some(hint));
            } else if values.insert(name.clone(), value).is_some() {
                wrong(&name, format!("the parameter `{name}` is given twice"), None);
            }
        }
        if details.is_empty() { Ok(Self(values)) } else { Err(Problem::mistakes(details)) }
    }

    /// A parameter's value, if it is there and not empty.
    fn get<T: std::str::FromStr>(&self, name: &str, wanted: &str) -> Handled<Option<T>> {
        let Some(text) = self.0.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let message = format!("`{name}` is {text:?}, not {wanted}");
            let field = Some(name.to_owned());
            Problem::mistakes(vec![ErrorDetail { message, field, ..Default::default() }])
        })
    }
}

/// The content type of a file by its name.
fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("apk") => "application/vnd.apk",
        Some("gz" | "tgz") => "application/gzip",
        Some("log" | "txt") => TEXT,
        Some("json") => "application/json",
        Some("pub") => "application/x-pem-file",
        _ => "application/octet-stream",
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
