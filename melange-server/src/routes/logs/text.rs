//! A range of bytes of a log's text.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{TryStreamExt, stream};
use melange_remote_sdk::job::JobId;

use super::streamed;
use crate::app::App;
use crate::problem::Handled;
use crate::routes::TEXT;
use crate::routes::artifacts::{Asked, not_satisfiable, parse_range};

/// The bytes that a `Range` header asks for, of the text of an attempt or of all attempts.
pub(super) async fn range(app: &App, id: JobId, attempt: Option<u32>, asked: &str) -> Handled<Response> {
    let text = app.logs.text(id, attempt).await?;
    let length = text.length();
    let range = match parse_range(asked, length) {
        Asked::Everything => None,
        Asked::Part(range) => Some(range),
        Asked::Nothing => return Ok(not_satisfiable("the log", length)),
    };
    let wanted = range.clone().unwrap_or(0..length);
    let chunks = stream::try_unfold(text.only(wanted.clone()), |mut text| async move {
        Ok::<_, melange_remote_sdk::error::Error>(text.next().await?.map(|bytes| (bytes, text)))
    });
    let mut response = streamed(TEXT, Body::from_stream(chunks.map_err(io::Error::other))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(wanted.end.saturating_sub(wanted.start)));
    if let Some(range) = range {
        let told = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(header::CONTENT_RANGE, told);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}
