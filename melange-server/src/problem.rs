//! Errors on the wire: one match from kinds to statuses, and one JSON shape for all of them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{ErrorBody, ErrorDetail, ErrorResponse};
use melange_remote_sdk::error::{Error, ErrorKind};
use melange_remote_sdk::limits;

/// An error that becomes a response.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    error: Error,
    details: Vec<ErrorDetail>,
    retry_after: Option<Duration>,
}

/// The result of a handler.
pub type Handled<T> = Result<T, Problem>;

impl Problem {
    /// An error with the status of its kind and every single mistake.
    pub fn new(error: Error, details: Vec<ErrorDetail>) -> Self {
        Self { status: status(error.kind()), code: None, error, details, retry_after: None }
    }

    /// The same with another status, whose name becomes the code.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, code: &'static str) -> Self {
        self.status = status;
        self.code = Some(code);
        self
    }

    /// The same, and when the request may succeed; told in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// A request with mistakes; the first one is the message.
    pub fn mistakes(details: Vec<ErrorDetail>) -> Self {
        let first = details.first().cloned().unwrap_or_default();
        let error = Error::invalid(first.message);
        Self::new(if let Some(hint) = first.hint { error.hint(hint) } else { error }, details)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(error, Vec::new())
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::Cancelled => StatusCode::CONFLICT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Untrusted | ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whoever is refused for the time being is told when to come again, whatever part of the service refuses.
pub(crate) async fn tell_when_to_retry(mut response: Response) -> Response {
    if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().entry(header::RETRY_AFTER).or_insert_with(|| seconds(limits::RETRY_AFTER));
    }
    response
}

fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    HeaderValue::from(whole.max(1))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(error = %self.error.chain(), "a request failed");
        }
        let mut body = ErrorBody::new(&self.error, self.details);
        if let Some(code) = self.code {
            code.clone_into(&mut body.code);
        }
        let mut response = (self.status, Json(ErrorResponse { error: body })).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        response
    }
}
