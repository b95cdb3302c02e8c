//! What builds have made, as `apk --repository` reads it: an index for each architecture, and the packages.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::ErrorResponse;
use melange_remote_sdk::apk::signature::SigningKey;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::builds::BuildIndexes;
use melange_remote_sdk::error::{Error, ErrorKind};

use super::builds::build_id;
use super::{artifacts, content_type, ranges};
use crate::app::App;
use crate::problem::Handled;

/// The name of an index.
pub(super) const INDEX: &str = "APKINDEX.tar.gz";

/// Get the index of what a build has made so far.
///
/// It is there from the beginning, when it lists nothing, and signed when the server has a key:
/// `apk add --repository http://…/apk/builds/<id>`.
#[utoipa::path(
    get,
    path = "/apk/builds/{id}/{arch}/APKINDEX.tar.gz",
    tag = "repositories",
    params(
        ("id" = String, Path, description = "The build"),
        ("arch" = String, Path, description = "The architecture as apk spells it, such as x86_64"),
        ("if-none-match" = Option<String>, Header, description = "The entity tag that the caller has")
    ),
    responses(
        (status = 200, description = "The index", content_type = "application/gzip", headers(("etag" = String, description = "Its SHA-256"))),
        (status = 304, description = "The caller has it already"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn index(
    State(app): State<App>,
    Path((id, arch)): Path<(String, String)>,
    headers: HeaderMap,
) -> Handled<Response> {
    let index = indexes(&app)?.index(build_id(&id)?, apk_arch(&arch)?).await?;
    let tag = format!("\"{}\"", index.sha256);
    // It changes with the next package: whoever keeps it asks again.
    let described = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if ranges::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, described).into_response());
    }
    Ok((described, plain(INDEX), index.bytes.clone()).into_response())
}

/// Get a package that a build has made, whole or in part.
#[utoipa::path(
    get,
    path = "/apk/builds/{id}/{arch}/{name}",
    tag = "repositories",
    params(
        ("id" = String, Path, description = "The build"),
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
    Path((id, arch, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Handled<Response> {
    let key = indexes(&app)?.package(build_id(&id)?, apk_arch(&arch)?, &name).await?;
    let artifact = app.artifact_storage.head(&key).await?;
    Ok(artifacts::answer(&app, &artifact, &headers).await?)
}

/// Get the public key of what the server signs.
///
/// apk looks for it under this name in `/etc/apk/keys`.
#[utoipa::path(
    get,
    path = "/apk/keys/{name}",
    tag = "repositories",
    params(
        ("name" = String, Path, description = "The name of the file, such as farm.rsa.pub")
    ),
    responses(
        (status = 200, description = "The key", content_type = "application/x-pem-file"),
        (status = "4XX", description = "The request is refused; `code` tells why", body = ErrorResponse),
        (status = "5XX", description = "The server is at fault or stops; the same request may succeed later", body = ErrorResponse)
    )
)]
pub(super) async fn key(State(app): State<App>, Path(name): Path<String>) -> Handled<Response> {
    let known = app.indexes.as_ref().and_then(BuildIndexes::signing_key);
    if let Some(key) = known.filter(|key| key.public_name() == name) {
        return Ok((plain(&name), key.public_pem()?).into_response());
    }
    let error = Error::new(ErrorKind::NotFound, format!("the server does not sign with {name:?}"));
    Err(match known.map(SigningKey::public_name) {
        Some(known) => error.hint(format!("its key is {known:?}")),
        None => error.hint("its packages are not signed; apk takes them with --allow-untrusted"),
    }
    .into())
}

fn indexes(app: &App) -> Handled<&BuildIndexes> {
    let missing = || Error::new(ErrorKind::Unsupported, "this server has no repositories of builds");
    Ok(app.indexes.as_ref().ok_or_else(|| missing().hint("get the artifacts of its jobs"))?)
}

/// An architecture as apk spells it; the other spellings name no folder.
pub(super) fn apk_arch(text: &str) -> Handled<Arch> {
    let error = || Error::new(ErrorKind::NotFound, format!("{text:?} is no architecture of apk"));
    match text.parse::<Arch>() {
        Ok(arch) if arch.apk_name() == text => Ok(arch),
        Ok(arch) => Err(error().hint(format!("apk calls it {arch}")).into()),
        Err(_) => Err(error().hint("such as x86_64 or aarch64").into()),
    }
}

/// Describes a file by its name.
pub(super) fn plain(name: &str) -> [(header::HeaderName, HeaderValue); 2] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(name))),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}
