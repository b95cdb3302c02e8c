//! What the jobs of the farm have made, as `apk` reads it: one repository for all of them.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{ErrorResponse, PublicationView};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::job::Job;
use melange_remote_sdk::publishing::{Publication, PublishedRepository};

use super::artifacts;
use super::ranges::{self, Asked, not_satisfiable};
use super::repository::{INDEX, apk_arch, plain};
use crate::app::App;
use crate::problem::Handled;

/// Get the index of what is published for an architecture.
///
/// It is there from the beginning, when it lists nothing, and signed when the server has a key. A line
/// `http://…/apk` of `/etc/apk/repositories` reads it. What it lists is there, and stays as it is.
#[utoipa::path(
    get,
    path = "/apk/{arch}/APKINDEX.tar.gz",
    tag = "repositories",
    params(
        ("arch" = String, Path, description = "The architecture as apk spells it, such as x86_64"),
        ("range" = Option<String>, Header, description = "A range of bytes"),
        ("if-none-match" = Option<String>, Header, description = "The entity tag that the caller has")
    ),
    responses(
        (status = 200, description = "The index", content_type = "application/gzip", headers(("etag" = String, description = "Its SHA-256"))),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The caller has it already"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn index(
    State(app): State<App>,
    Path(arch): Path<String>,
    headers: HeaderMap,
) -> Handled<Response> {
    let generation = repository(&app)?.generation(apk_arch(&arch)?).await?;
    let tag = format!("\"{}\"", generation.sha256());
    // It changes with the next package: whoever keeps it asks again.
    let described = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if ranges::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, described).into_response());
    }
    let bytes = generation.bytes();
    let size = bytes.len();
    let told = u64::try_from(size).unwrap_or(u64::MAX);
    let (sent, is_part) = match ranges::asked(&headers, &tag, told) {
        Asked::Everything => (0..told, false),
        Asked::Part(range) => (range, true),
        Asked::Nothing => return Ok(not_satisfiable(INDEX, told)),
    };
    let place = |at: u64| usize::try_from(at).unwrap_or(size).min(size);
    let part = bytes.slice(place(sent.start)..place(sent.end));
    let mut response = (described, plain(INDEX), part).into_response();
    ranges::tell(&mut response, sent, is_part, told);
    Ok(response)
}

/// Get a published package, whole or in part.
#[utoipa::path(
    get,
    path = "/apk/{arch}/{name}",
    tag = "repositories",
    params(
        ("arch" = String, Path, description = "The architecture as apk spells it, such as x86_64"),
        ("name" = String, Path, description = "The name of the file, such as hello-2.10-r0.apk"),
        ("range" = Option<String>, Header, description = "A range of bytes"),
        ("if-none-match" = Option<String>, Header, description = "The entity tag that the caller has")
    ),
    responses(
        (status = 200, description = "The package", content_type = "application/vnd.apk", headers(("etag" = String, description = "Its SHA-256"))),
        (status = 206, description = "The range that was asked for"),
        (status = 304, description = "The caller has it already"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn package(
    State(app): State<App>,
    Path((arch, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Handled<Response> {
    let artifact = repository(&app)?.package(apk_arch(&arch)?, &name).await?;
    Ok(artifacts::answer(&app, &artifact, &headers).await?)
}

/// Whether the packages of a job are published. What the storage does not tell is left out: a job is worth a look
/// without it.
pub(super) async fn of(app: &App, job: &Job) -> Option<PublicationView> {
    let publication = app.published.as_ref()?.publication(job).await;
    Some(match publication.unwrap_or_else(|error| tell_failure(job, &error))? {
        Publication::Published => PublicationView::new("yes", None),
        Publication::Waits => PublicationView::new("soon", None),
        Publication::Refused { reason } => PublicationView::new("no", Some(reason)),
        _ => return None,
    })
}

fn tell_failure(job: &Job, error: &Error) -> Option<Publication> {
    tracing::warn!(job = %job.id, error = %error.chain(), "whether its packages are published is not known");
    None
}

fn repository(app: &App) -> Handled<&PublishedRepository> {
    let missing = || Error::new(ErrorKind::Unsupported, "this server publishes nothing");
    Ok(app.published.as_ref().ok_or_else(|| missing().hint("get the artifacts of its jobs"))?)
}
