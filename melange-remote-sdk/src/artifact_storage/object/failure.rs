//! What errors of object stores mean, and how they are told: in one line, with the answer's code and sentence instead of
//! the XML around them.
//!
//! The library keeps the types of its requests and answers to itself, so statuses are read off its words. The tests
//! take those words from real requests and fail when they change.

use std::error::Error as StdError;
use std::fmt;

use object_store::Error as StoreError;

use crate::error::{Blame, Error, ErrorKind, causes, chain};
use crate::limits;
use crate::redact::redact;
use crate::text::one_line;

/// What it means that something is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The artifact is not there.
    Artifact,
    /// The bucket or container is not there.
    Bucket,
}

/// An error of a store in one line.
#[derive(Debug)]
struct Told {
    line: String,
    /// For those who debug; the line has all of it that is worth reading.
    _error: StoreError,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl StdError for Told {}

/// Why a store did not do as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Missing,
    Denied,
    /// The endpoint is none that requests may go to.
    Endpoint,
    Region,
    NoAnswer,
    /// It answered with this status.
    Status(u16),
    Other,
}

/// The words of the library before a request, before an answer, and for requests without an answer.
const REQUEST: &str = "Error performing ";
const STATUS: &str = "Server returned non-2xx status code: ";
const ANSWER: &str = "Server returned error response: ";
const REDIRECT: &str = "Received redirect without LOCATION";
const HTTP: &str = "HTTP error: ";
const BAD_URL: &str = "builder error";

/// The error of an operation on a storage at `place`; `doing` says which, such as `store the artifact x`.
pub(super) fn failure(doing: &str, place: &str, missing: Missing, error: StoreError) -> Error {
    let (reason, line) = read(&error);
    let kind = kind(reason, missing, &error);
    let why = match reason {
        Reason::Missing if missing == Missing::Artifact => String::new(),
        Reason::Missing => format!(": the bucket or container may not exist: {place}"),
        Reason::Denied => format!(": access is denied: {place}"),
        Reason::Endpoint => format!(": the endpoint has no address that may be used: {place}"),
        Reason::Region => format!(": the region may be another one: {place}"),
        Reason::NoAnswer => format!(": there is no answer from {place}"),
        Reason::Status(status) => format!(": {place} answered with status {status}"),
        Reason::Other => String::new(),
    };
    let told = Error::new(kind, format!("cannot {doing}{why}")).source(Told { line, _error: error });
    let told = if kind == ErrorKind::NotFound { told } else { told.blame(Blame::Farm) };
    match hint(reason, place) {
        Some(hint) if kind != ErrorKind::NotFound => told.hint(hint),
        _ => told,
    }
}

/// As [`failure`], for a request that shows whether the storage can be used at all: what it refuses now it will refuse
/// again.
pub(super) fn refusal(doing: &str, place: &str, error: StoreError) -> Error {
    let (reason, _) = read(&error);
    let told = failure(doing, place, Missing::Bucket, error);
    match reason {
        // Timeouts, locks and limits pass.
        Reason::Status(408 | 409 | 423 | 425 | 429) => told,
        Reason::Status(400..500) => Error::unexpected(told.message().to_owned())
            .blame(Blame::Farm)
            .hint("check the options and credentials of the storage")
            .source(told),
        _ => told,
    }
}

/// What to do when a storage does not answer.
pub(super) const NO_ANSWER_HINT: &str =
    "it may be back later; otherwise check its endpoint and the network, and that credentials are given";

/// A store's error in one line.
pub(super) fn line(error: &StoreError) -> String {
    read(error).1
}

fn kind(reason: Reason, missing: Missing, error: &StoreError) -> ErrorKind {
    match (reason, error) {
        (Reason::Missing, _) if missing == Missing::Artifact => ErrorKind::NotFound,
        // The operator must act, so no caller's error and none that passes.
        (Reason::Missing | Reason::Denied | Reason::Endpoint | Reason::Region, _) => ErrorKind::Unexpected,
        (_, StoreError::Precondition { .. } | StoreError::NotModified { .. }) => ErrorKind::Conflict,
        (_, StoreError::NotSupported { .. } | StoreError::NotImplemented { .. }) => ErrorKind::Unsupported,
        (_, StoreError::InvalidPath { .. }) => ErrorKind::InvalidRequest,
        // The rest is the network's, the disk's, or that of others who do something at the same time; all may pass.
        _ => ErrorKind::Unavailable,
    }
}

fn hint(reason: Reason, place: &str) -> Option<String> {
    let store = match place.split_once("://") {
        Some(("s3", _)) => "aws",
        Some(("gs", _)) => "google",
        _ => "azure",
    };
    Some(match reason {
        Reason::Missing => "create it, or correct its name; it must exist before it is used".to_owned(),
        Reason::Denied => {
            "check the credentials, and that they may list, read, write and remove objects there".to_owned()
        }
        Reason::Endpoint => format!(
            "an endpoint begins with https://, or with http:// and the option {store}_allow_http=true"
        ),
        Reason::Region => format!("name the region of the bucket with the option {store}_region"),
        Reason::NoAnswer => NO_ANSWER_HINT.to_owned(),
        Reason::Status(500..) => "it may be back later".to_owned(),
        Reason::Status(_) | Reason::Other => return None,
    })
}

/// The reason and the line.
fn read(error: &StoreError) -> (Reason, String) {
    let (mut reason, said) = said(error);
    match error {
        StoreError::NotFound { .. } => reason = Reason::Missing,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => reason = Reason::Denied,
        _ => {}
    }
    let reason = match reason {
        Reason::Status(404) => Reason::Missing,
        Reason::Status(401 | 403) => Reason::Denied,
        other => other,
    };
    (reason, said.unwrap_or_else(|| clipped(&chain(error))))
}

/// What a store, or the network before it, has said.
fn said(error: &StoreError) -> (Reason, Option<String>) {
    let mut request = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if let Some(sent) = text.strip_prefix(REQUEST).and_then(request_of) {
            request = format!("{sent}: ");
        }
        if let Some(rest) = text.strip_prefix(STATUS) {
            let (status, body) = rest.split_once(": ").unwrap_or((rest, ""));
            let number = status.get(..3).and_then(|digits| digits.parse().ok());
            let reason = number.map_or(Reason::Other, Reason::Status);
            let status = status.trim_end_matches([':', ' ']);
            let line = match answer(body) {
                body if body.is_empty() => format!("{request}{status}"),
                body => format!("{request}{status}, {body}"),
            };
            return (reason, Some(line));
        }
        if let Some(body) = text.strip_prefix(ANSWER) {
            return (Reason::Other, Some(format!("{request}{}", answer(body))));
        }
        if text.starts_with(REDIRECT) {
            return (Reason::Region, Some(format!("{request}{}", clipped(&text))));
        }
        if text.starts_with(HTTP) {
            let told = chain(cause);
            let told = told.strip_prefix(HTTP).unwrap_or(&told);
            let reason = if told.starts_with(BAD_URL) { Reason::Endpoint } else { Reason::NoAnswer };
            return (reason, Some(format!("{request}{}", clipped(told))));
        }
    }
    (Reason::Other, None)
}

/// The method and the host of `GET http://host/path?query in 3ms - …`. The path is that of the artifact, and a query
/// may hold a signature.
fn request_of(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let (method, url) = (words.next()?, words.next()?);
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?']).next()?;
    Some(redact(&format!("{method} {scheme}://{host}")).into_owned())
}

/// The code and the sentence of an answer, or its beginning.
fn answer(body: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (inside, _) = rest.split_once(&format!("</{name}>"))?;
        // Azure adds lines with the number of the request and the time.
        inside.lines().map(str::trim).find(|line| !line.is_empty())
    };
    if let Some(code) = element("Code") {
        let sentence = element("Message").map(|sentence| format!(": {sentence}"));
        return clipped(&format!("{code}{}", sentence.unwrap_or_default()));
    }
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let sentence = json.as_ref().and_then(|json| {
        let places = ["/error/message", "/error_description", "/error", "/message"];
        places.iter().find_map(|place| json.pointer(place)?.as_str())
    });
    clipped(sentence.unwrap_or(body))
}

/// One line of bounded length.
fn clipped(text: &str) -> String {
    one_line(&redact(text), limits::STORE_ANSWER_BYTES_MAX)
}

#[cfg(test)]
#[cfg(all(feature = "local", feature = "gcs", feature = "s3", feature = "azure"))]
mod tests;
