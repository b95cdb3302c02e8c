//! Errors on the wire: one match from kinds to statuses, and one JSON shape for all of them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1::{ErrorBody, ErrorDetail, ErrorResponse};
use melange_remote_sdk::error::{Error, ErrorKind};

/// An error that becomes a response.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    error: Error,
    details: Vec<ErrorDetail>,
}

/// The result of a handler.
pub type Handled<T> = Result<T, Problem>;

impl Problem {
    /// An error with the status of its kind and every single mistake.
    pub fn new(error: Error, details: Vec<ErrorDetail>) -> Self {
        Self { status: status(error.kind()), code: None, error, details }
    }

    /// The same with another status, whose name becomes the code.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode, code: &'static str) -> Self {
        self.status = status;
        self.code = Some(code);
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
        ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::Cancelled => StatusCode::CONFLICT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Untrusted => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
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
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
