//! Station 14: the client of the REST service.
//!
//! One method a request, the wire types of [`crate::api::v1`], errors with the server's words and hint.
//! Requests that change nothing are tried again when the server does not answer; a submission is repeated only
//! under its idempotency key, so that it never makes two jobs.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::v1::{
    self, ArtifactView, AttemptView, BackendName, BackendView, BackendsResponse, ErrorBody, ErrorResponse,
    JobView, QueueView, SubmitRequest, SubmitResponse,
};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobId, SourceDigest};
use crate::limits;
use crate::sources::PackedSources;

mod builds;
mod events;
mod lines;
mod logs;
mod wait;

pub use builds::PackagesQuery;
pub use events::EventFilter;
pub use logs::LogQuery;
pub use wait::{WaitEvent, WaitObserver};

/// What is percent-encoded in parts of a URL.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// What a submission came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmittedJob {
    /// The job.
    pub job: JobId,
    /// Whether it is new; otherwise it is an equal one that was handed in before.
    pub created: bool,
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client of the server at `base`, such as `http://localhost:8080`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but an http(s) URL.
    pub fn new(base: &str) -> Result<Self> {
        let base = base.trim_end_matches('/');
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Error::invalid(format!("{base:?} is not the URL of a server"))
                .hint("write it as http://host:port or https://host"));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("melange-remote-client/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits::CLIENT_CONNECT)
            .read_timeout(limits::CLIENT_IDLE)
            .build()
            .map_err(|e| Error::unexpected("cannot set up the http client").source(e))?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// The server's URL without a trailing slash.
    pub fn server(&self) -> &str {
        &self.base
    }

    /// Where people and programs find a job.
    pub fn job_url(&self, id: JobId) -> String {
        format!("{}{}", self.base, v1::job(id))
    }

    /// Submits a job.
    ///
    /// # Errors
    /// The server's; `Unavailable` when it does not answer after several tries.
    pub async fn submit(&self, request: &SubmitRequest) -> Result<JobId> {
        self.submit_or_join(request).await.map(|told| told.job)
    }

    /// As [`Self::submit`]; tells too whether the job is new, which the [`SubmitRequest::dedupe_seconds`] of the request
    /// decide.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_or_join(&self, request: &SubmitRequest) -> Result<SubmittedJob> {
        let response: SubmitResponse = self.hand_in(v1::JOBS, request, "hand in fewer pipelines").await?;
        Ok(SubmittedJob { job: response.id.parse()?, created: response.created })
    }

    /// Hands something in under a key of its own, so that it may be sent again; `smaller` says what to do when it is too
    /// large.
    async fn hand_in<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        smaller: &'static str,
    ) -> Result<T> {
        let key = uuid::Uuid::now_v7().to_string();
        let body = serde_json::to_vec(request)
            .map_err(|e| Error::unexpected("cannot write the request").source(e))?;
        if body.len() > limits::REQUEST_BODY_BYTES_MAX {
            let message =
                format!("the request has {} bytes, more than {}", body.len(), limits::REQUEST_BODY_BYTES_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message).hint(smaller));
        }
        let make = || {
            self.http
                .post(format!("{}{path}", self.base))
                .header(v1::IDEMPOTENCY_KEY, &key)
                .header("content-type", "application/json")
                .body(body.clone())
        };
        self.json(make).await
    }

    /// Whether the server has the files beside a definition.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn has_sources(&self, digest: &SourceDigest) -> Result<bool> {
        let path = v1::source(digest);
        match self.answer(|| self.http.head(format!("{}{path}", self.base))).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends the files beside a definition, unless the server has them; whether they were sent. A submission then names
    /// them as its [`SubmitRequest::source`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn send_sources(&self, packed: &PackedSources) -> Result<bool> {
        if self.has_sources(&packed.digest).await? {
            return Ok(false);
        }
        let url = format!("{}{}", self.base, v1::source(&packed.digest));
        let make = || {
            self.http
                .put(&url)
                .header("content-type", v1::SOURCE_TYPE)
                .header("content-length", packed.size_bytes)
                .body(reqwest::Body::wrap_stream(packed.stream()))
        };
        self.answer(make).await.map(|_| true)
    }

    /// One job.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`].
    pub async fn job(&self, id: JobId) -> Result<JobView> {
        self.json(|| self.get(&v1::job(id))).await
    }

    /// One page of jobs, newest first, and the cursor of the next one. `status` filters.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn jobs(
        &self,
        limit: usize,
        cursor: Option<&str>,
        status: Option<&str>,
    ) -> Result<(Vec<JobView>, Option<String>)> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        query.extend(status.map(|status| ("status", status.to_owned())));
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let path = format!("{}?{}", v1::JOBS, query.join("&"));
        let response = self.answer(|| self.get(&path)).await?;
        let next =
            response.headers().get(v1::NEXT_CURSOR).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((decode(response).await?, next))
    }

    /// Asks for a job to stop.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for a job that has finished, or as [`Self::submit`].
    pub async fn cancel(&self, id: JobId) -> Result<()> {
        self.answer(|| self.http.post(format!("{}{}", self.base, v1::job_cancel(id)))).await.map(drop)
    }

    /// Tries a failed or cancelled job again; tells it as it is then.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for a job that succeeded, or as [`Self::submit`].
    pub async fn retry(&self, id: JobId) -> Result<JobView> {
        decode(self.answer(|| self.http.post(format!("{}{}", self.base, v1::job_retry(id)))).await?).await
    }

    /// The attempts of a job, oldest first.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`].
    pub async fn attempts(&self, id: JobId) -> Result<Vec<AttemptView>> {
        decode(self.answer(|| self.get(&v1::job_attempts(id))).await?).await
    }

    /// The artifacts of a job.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::submit`].
    pub async fn artifacts(&self, id: JobId) -> Result<Vec<ArtifactView>> {
        self.json(|| self.get(&v1::job_artifacts(id))).await
    }

    /// Downloads an artifact to `path`, whole or not at all, and checks its SHA-256.
    ///
    /// # Errors
    /// `Untrusted` when the bytes are not those that the job lists, the disk's, or as [`Self::submit`].
    pub async fn download(&self, id: JobId, artifact: &ArtifactView, path: &Path) -> Result<()> {
        use std::io::Write;
        let name: Vec<String> = artifact.name.split('/').map(encode).collect();
        let mut response = self.answer(|| self.get(&v1::job_artifact(id, &name.join("/")))).await?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |e: std::io::Error| Error::io("write", path, e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut hasher = Sha256::new();
        let mut size = 0u64;
        while let Some(chunk) = response.chunk().await.map_err(|e| transport(&artifact.name, e))? {
            size += chunk.len() as u64;
            if size > artifact.size {
                break;
            }
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(failed)?;
        }
        let found = hex::encode(hasher.finalize());
        if size != artifact.size || found != artifact.sha256 {
            let message = format!("{} is not what the job lists", artifact.name);
            return Err(Error::new(ErrorKind::Untrusted, message)
                .with("listed", &artifact.sha256)
                .with("found", found));
        }
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Removes a finished job with its log and its artifacts.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it waits or runs.
    pub async fn remove(&self, id: JobId) -> Result<()> {
        self.once(self.http.delete(format!("{}{}", self.base, v1::job(id)))).await.map(drop)
    }

    /// What waits, and why.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn queue(&self) -> Result<QueueView> {
        self.json(|| self.get(v1::QUEUE)).await
    }

    /// The backends, of one architecture when `arch` says so.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn backends(&self, arch: Option<&str>) -> Result<BackendsResponse> {
        let query = arch.map(|arch| format!("?arch={}", encode(arch))).unwrap_or_default();
        self.json(|| self.get(&format!("{}{query}", v1::BACKENDS))).await
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// `AlreadyExists`, or as [`Self::submit`].
    pub async fn add_backend(&self, backend: &BackendView) -> Result<BackendView> {
        let response =
            self.once(self.http.post(format!("{}{}", self.base, v1::BACKENDS)).json(backend)).await?;
        decode(response).await
    }

    /// Lets a backend finish what it runs and gives it nothing more.
    ///
    /// # Errors
    /// `NotFound` when there is none at the address; `InvalidRequest` when there are several.
    pub async fn drain_backend(&self, name: &BackendName) -> Result<BackendView> {
        self.tell_backend(v1::BACKENDS_DRAIN, name).await
    }

    /// Gives a drained backend jobs again.
    ///
    /// # Errors
    /// As [`Self::drain_backend`].
    pub async fn enable_backend(&self, name: &BackendName) -> Result<BackendView> {
        self.tell_backend(v1::BACKENDS_ENABLE, name).await
    }

    async fn tell_backend(&self, path: &str, name: &BackendName) -> Result<BackendView> {
        let response = self.once(self.http.post(format!("{}{path}", self.base)).json(name)).await?;
        decode(response).await
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// `NotFound`, `InvalidRequest` for the last one, or as [`Self::submit`].
    pub async fn remove_backend(&self, name: &BackendName) -> Result<()> {
        self.once(self.http.delete(format!("{}{}", self.base, v1::BACKENDS)).json(name)).await.map(drop)
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    async fn json<T: DeserializeOwned>(&self, make: impl Fn() -> reqwest::RequestBuilder) -> Result<T> {
        decode(self.answer(make).await?).await
    }

    /// Sends a request that may be repeated: again when the server says after which time, and some times while it cannot
    /// be reached.
    async fn answer(&self, make: impl Fn() -> reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let (begun, mut tried) = (Instant::now(), 0);
        let mut backoff = Backoff::new(limits::CLIENT_PAUSE, limits::RETRY_PAUSE_MAX);
        loop {
            let response = self.send(make()).await;
            let asked = response.as_ref().ok().and_then(retry_after);
            let error = match response {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => refusal(response).await,
                Err(error) => error,
            };
            let pause = match asked {
                Some(asked) if begun.elapsed().saturating_add(asked) <= limits::CLIENT_PATIENCE => {
                    asked.max(limits::CLIENT_PAUSE)
                }
                None if error.kind().is_retryable() && tried + 1 < limits::CLIENT_TRIES_MAX => {
                    tried += 1;
                    backoff.pause()
                }
                _ => return Err(error),
            };
            tracing::debug!(?pause, error = %error.chain(), "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a request that is not repeated.
    async fn once(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        request.send().await.map_err(|e| {
            transport(&self.base, e).hint(format!("is a melange-server running at {}?", self.base))
        })
    }
}

/// After which time a server that is too busy wants to be asked again.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let is_busy = matches!(response.status().as_u16(), 429 | 503);
    let told = response.headers().get(reqwest::header::RETRY_AFTER).filter(|_| is_busy)?;
    // Proxies may tell a date; they are asked again as servers that say nothing.
    told.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn transport(what: &str, error: reqwest::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("no answer from {what}")).source(error.without_url())
}

async fn decode<T: DeserializeOwned>(response: reqwest::Response) -> Result<T> {
    let bytes = response.bytes().await.map_err(|e| transport("the server", e))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::unexpected("the server's answer cannot be read")
            .source(e)
            .hint("is it a melange-server of this version?")
    })
}

/// What a server said when it refused a request: the source of such an [`Error`], for callers that show more than
/// its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Code, message, hint and every single mistake, as they came.
    pub body: ErrorBody,
    /// The error's message: the server's, with each mistake once.
    message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The server's error as ours: kind by status, message, hint, and every single mistake.
async fn refusal(response: reqwest::Response) -> Error {
    let status = response.status();
    let kind = match status.as_u16() {
        400 | 405 | 422 => ErrorKind::InvalidRequest,
        401 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        410 => ErrorKind::Gone,
        409 => ErrorKind::Conflict,
        413 | 429 => ErrorKind::LimitExceeded,
        502..=504 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    };
    let bytes = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(ErrorResponse { error }) => refused(kind, status.as_u16(), error),
        Err(_) => Error::new(kind, format!("the server answered {status}")),
    }
}

/// The error of a server's answer.
fn refused(kind: ErrorKind, status: u16, body: ErrorBody) -> Error {
    let first = body.details.first();
    // The first mistake is the message of an answer about mistakes, and is not told twice.
    let repeated = first.is_some_and(|first| body.message.contains(&first.message));
    let hint = match (&body.hint, first) {
        (None, Some(first)) if repeated && body.details.len() == 1 => first.hint.clone(),
        (hint, _) => hint.clone(),
    };
    let mut message = match body.details.len() {
        0 | 1 => body.message.clone(),
        count if repeated => format!("the request has {count} mistakes"),
        _ => body.message.clone(),
    };
    let listed = if repeated && body.details.len() == 1 { &[] } else { &body.details[..] };
    for detail in listed {
        let place = match (&detail.file, detail.line, detail.column) {
            (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
            _ => detail.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default(),
        };
        message.push_str(&format!("\n  {place}{}", detail.message));
        if let Some(hint) = &detail.hint {
            message.push_str(&format!("\n    hint: {hint}"));
        }
    }
    // Each of several mistakes has its own hint beside it.
    let hint = hint.filter(|_| body.details.len() < 2 || !repeated);
    let error = Error::new(kind, message.clone()).source(Refusal { status, body, message });
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_of_an_answer_is_told_once() {
        let detail = |line: u32, message: &str| v1::ErrorDetail {
            message: message.to_owned(),
            file: Some("a.yaml".to_owned()),
            line: Some(line),
            column: Some(3),
            hint: Some(format!("mend {line}")),
            ..v1::ErrorDetail::default()
        };
        let body = |details: Vec<v1::ErrorDetail>| ErrorBody {
            code: "invalid_request".to_owned(),
            message: "a.yaml:2:3: no such thing".to_owned(),
            hint: Some("mend 2".to_owned()),
            details,
        };
        let (one, two) = (detail(2, "no such thing"), detail(7, "another"));
        let error = refused(ErrorKind::InvalidRequest, 400, body(vec![one.clone()]));
        assert_eq!(
            (error.chain(), error.hint_text()),
            ("a.yaml:2:3: no such thing".to_owned(), Some("mend 2"))
        );
        let error = refused(ErrorKind::InvalidRequest, 400, body(vec![one, two]));
        let expected = "the request has 2 mistakes\n  a.yaml:2:3: no such thing\n    hint: mend 2\n  \
                        a.yaml:7:3: another\n    hint: mend 7";
        assert_eq!((error.chain().as_str(), error.hint_text()), (expected, None));
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Refusal>());
        assert_eq!(source.map(|refusal| refusal.body.details.len()), Some(2));
    }

    #[test]
    fn urls_are_checked_and_parts_encoded() {
        assert_eq!(Client::new("http://x:1/").unwrap().server(), "http://x:1");
        assert!(Client::new("x:1").is_err());
        assert_eq!(encode("a b/é"), "a%20b%2F%C3%A9");
    }
}
