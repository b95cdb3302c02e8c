//! Downloads of sources: from which addresses, how often, how many at once, and for how long.

use std::path::Path;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::intake::{Intake, Taken};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::melange::fetches::Fetch;
use crate::redact::redact;
use crate::rootfs::addresses::AddressPolicy;
use crate::rootfs::fetch::{FetchOptions, HttpFetcher};

/// What an operator decides about downloads of sources.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Where they may go; public addresses only unless something else is allowed.
    pub addresses: AddressPolicy,
    /// How many there are at once; 0 counts as 1.
    pub at_once: usize,
    /// How long one waits for its turn.
    pub turn: Duration,
    /// How often one is tried.
    pub tries: u32,
    /// The time that it may take, all tries together.
    pub time: Duration,
    /// Silence before a try counts as dead.
    pub idle: Duration,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            at_once: limits::FETCHED_AT_ONCE,
            turn: limits::FETCHED_TURN,
            tries: limits::DOWNLOAD_TRIES_MAX,
            time: limits::FETCHED_TIME,
            idle: limits::FETCHED_IDLE,
        }
    }
}

/// Downloads sources.
#[derive(Debug)]
pub(super) struct Downloads {
    fetcher: HttpFetcher,
    permits: Semaphore,
    options: DownloadOptions,
}

impl Downloads {
    pub(super) fn new(options: DownloadOptions) -> Result<Self> {
        // Without the logins of repositories: a definition of anybody could name what only they may read.
        let mut fetch = FetchOptions::default();
        fetch.addresses.clone_from(&options.addresses);
        fetch.idle = Some(options.idle);
        let fetcher = HttpFetcher::new(fetch)?;
        Ok(Self { fetcher, permits: Semaphore::new(options.at_once.max(1)), options })
    }

    /// A source and the address that it came from: the first one that has it.
    pub(super) async fn get(&self, fetch: &Fetch, folder: &Path, bytes_max: u64) -> Result<(Taken, String)> {
        let turn = tokio::time::timeout(self.options.turn, self.permits.acquire()).await;
        let _permit = turn
            .map_err(|_| {
                let count = self.options.at_once;
                Error::new(
                    ErrorKind::Unavailable,
                    format!("{count} other downloads of the farm are under way"),
                )
            })?
            .map_err(|e| Error::unexpected("shutting down").source(e))?;
        let time = self.options.time;
        tokio::time::timeout(time, self.first(fetch, folder, bytes_max)).await.unwrap_or_else(|_| {
            let message = format!("the download took longer than {} s", time.as_secs_f64());
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    async fn first(&self, fetch: &Fetch, folder: &Path, bytes_max: u64) -> Result<(Taken, String)> {
        let mut failed: Option<Error> = None;
        for uri in fetch.uris.iter().take(limits::FETCH_URIS_MAX) {
            match self.from(uri, fetch, folder, bytes_max).await {
                Ok(taken) => return Ok((taken, redact(uri).into_owned())),
                Err(error) => {
                    failed = Some(match failed {
                        None => error,
                        Some(before) => {
                            Error::new(error.kind(), format!("{}; {}", before.chain(), error.chain()))
                        }
                    });
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::invalid("no address is given")))
    }

    /// Tries one address until it answers for good.
    async fn from(&self, uri: &str, fetch: &Fetch, folder: &Path, bytes_max: u64) -> Result<Taken> {
        check_uri(uri)?;
        let mut backoff = Backoff::new(limits::RETRY_PAUSE, limits::RETRY_PAUSE_MAX);
        let mut tried = 0;
        loop {
            tried += 1;
            match self.once(uri, fetch, folder, bytes_max).await {
                Err(error) if error.kind().is_retryable() && tried < self.options.tries => {
                    let url = redact(uri);
                    tracing::debug!(%url, tried, error = %error.chain(), "a source did not come, trying again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) if tried > 1 => return Err(error.with("tries", tried)),
                done => return done,
            }
        }
    }

    async fn once(&self, uri: &str, fetch: &Fetch, folder: &Path, bytes_max: u64) -> Result<Taken> {
        let mut download = self.fetcher.open(uri).await?;
        let mut intake = Intake::new(folder, &fetch.checksum, bytes_max)?;
        let named = |error: Error| match error.kind() {
            ErrorKind::LimitExceeded | ErrorKind::Untrusted => {
                Error::new(error.kind(), format!("{uri} is not what is expected")).source(error)
            }
            _ => error,
        };
        while let Some(chunk) = download.chunk().await? {
            intake.push(&chunk).await.map_err(named)?;
        }
        intake.finish().await.map_err(named)
    }
}

/// Refuses what the farm does not ask for: other ways than http, and what needs a login, which is its owner's alone.
fn check_uri(uri: &str) -> Result<()> {
    if uri.len() > limits::FETCH_URI_BYTES_MAX {
        let bound = limits::FETCH_URI_BYTES_MAX;
        return Err(Error::new(ErrorKind::LimitExceeded, format!("its address has more than {bound} bytes")));
    }
    let url = reqwest::Url::parse(uri).map_err(|e| Error::invalid(format!("{uri:?} is no URL")).source(e))?;
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("{uri} is neither http nor https, which the farm fetches alone");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = format!("{uri} has a login, and what needs one is not shared");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_http_is_asked_for() {
        for good in ["http://h/x", "https://h:8443/x?y=z", "HTTPS://h/x"] {
            assert!(check_uri(good).is_ok(), "{good}");
        }
        let long = format!("https://h/{}", "x".repeat(limits::FETCH_URI_BYTES_MAX));
        for (bad, kind) in [
            ("", ErrorKind::InvalidRequest),
            ("x.tar.gz", ErrorKind::InvalidRequest),
            ("file:///etc/passwd", ErrorKind::Unsupported),
            ("ftp://h/x", ErrorKind::Unsupported),
            ("https://user@h/x", ErrorKind::Unsupported),
            ("https://:secret@h/x", ErrorKind::Unsupported),
            (&long, ErrorKind::LimitExceeded),
        ] {
            let error = check_uri(bad).unwrap_err();
            assert_eq!(error.kind(), kind, "{bad}");
            assert!(!error.chain().contains("secret"), "{error}");
        }
    }
}
