//! A range of bytes of a log's text.

use std::io;

use axum::body::Body;
use axum::response::Response;
use futures_util::{TryStreamExt, stream};
use melange_remote_sdk::job::JobId;

use crate::app::App;
use crate::problem::Handled;
use crate::routes::ranges::{self, Asked, not_satisfiable, parse_range};
use crate::routes::{TEXT, streaming};

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
    let mut response = streaming::body(TEXT, Body::from_stream(chunks.map_err(io::Error::other)));
    ranges::tell(&mut response, wanted, range.is_some(), length);
    Ok(response)
}
