//! Getting files over http(s) into a cache on disk.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};

/// A downloaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// What names this version of it: an ETag or the time of download.
    pub version: String,
}

/// Downloads files.
///
/// # Contract
/// * The file appears whole or not at all; concurrent callers, also of other processes, may share the folder.
/// * `NotFound` for a missing resource, `Unavailable` for anything that may pass, after the tries of
///   [`crate::limits::DOWNLOAD_TRIES_MAX`]; `LimitExceeded` beyond `bytes_max`.
#[async_trait]
pub trait Fetcher: Send + Sync + std::fmt::Debug {
    /// Gets `url` to `path`. With `revalidate`, a file that is there is asked for again by its version; without,
    /// it is taken as it is.
    async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, revalidate: bool) -> Result<Fetched>;
}

/// A fetcher that refuses: for engines without network.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

#[async_trait]
impl Fetcher for NoNetwork {
    async fn fetch(&self, url: &str, _path: &Path, _bytes_max: u64, _revalidate: bool) -> Result<Fetched> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{url} cannot be fetched: the network is switched off"),
        ))
    }
}

#[cfg(feature = "http")]
pub use http::HttpFetcher;

#[cfg(feature = "http")]
mod http {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::limits;

    /// Fetches with `reqwest`; at most [`limits::DOWNLOADS_MAX`] downloads at once.
    #[derive(Debug)]
    pub struct HttpFetcher {
        client: reqwest::Client,
        permits: tokio::sync::Semaphore,
    }

    impl HttpFetcher {
        /// A fetcher with its own connections.
        ///
        /// # Errors
        /// `Unexpected` when TLS cannot be set up.
        pub fn new() -> Result<Self> {
            let client = reqwest::Client::builder()
                .user_agent(concat!("melange-remote/", env!("CARGO_PKG_VERSION")))
                .read_timeout(limits::DOWNLOAD_IDLE)
                .connect_timeout(Duration::from_secs(20))
                .redirect(reqwest::redirect::Policy::limited(5))
                .build()
                .map_err(|e| Error::unexpected("cannot set up the http client").source(e))?;
            Ok(Self { client, permits: tokio::sync::Semaphore::new(limits::DOWNLOADS_MAX) })
        }

        async fn try_once(
            &self,
            url: &str,
            path: &Path,
            bytes_max: u64,
            etag: Option<&str>,
        ) -> Result<Option<String>> {
            let transport = |e: reqwest::Error| {
                Error::new(ErrorKind::Unavailable, format!("cannot fetch {url}")).source(e.without_url())
            };
            let mut request = self.client.get(url);
            if let Some(etag) = etag {
                request = request.header("If-None-Match", etag);
            }
            let mut response = request.send().await.map_err(transport)?;
            let status = response.status();
            if status.as_u16() == 304 {
                return Ok(None);
            }
            if !status.is_success() {
                let kind = match status.as_u16() {
                    404 | 410 => ErrorKind::NotFound,
                    401 | 403 => ErrorKind::Untrusted,
                    429 | 500..=599 => ErrorKind::Unavailable,
                    _ => ErrorKind::Unexpected,
                };
                return Err(Error::new(kind, format!("{url} answered {status}")));
            }
            let version =
                response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let folder = path.parent().unwrap_or(Path::new("."));
            let failed = |e: std::io::Error| Error::io("write", path, e);
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
            let mut size = 0u64;
            while let Some(chunk) = response.chunk().await.map_err(transport)? {
                size += chunk.len() as u64;
                if size > bytes_max {
                    let message = format!("{url} has more than {bytes_max} bytes");
                    return Err(Error::new(ErrorKind::LimitExceeded, message));
                }
                file.write_all(&chunk).map_err(failed)?;
            }
            file.persist(path).map_err(|e| failed(e.error))?;
            Ok(Some(version.unwrap_or_default()))
        }
    }

    #[async_trait]
    impl Fetcher for HttpFetcher {
        async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, revalidate: bool) -> Result<Fetched> {
            let etag_path = path.with_extension("etag");
            let known = if tokio::fs::try_exists(path).await.unwrap_or(false) {
                Some(tokio::fs::read_to_string(&etag_path).await.unwrap_or_default())
            } else {
                None
            };
            if let (Some(version), false) = (&known, revalidate) {
                return Ok(Fetched { path: path.to_owned(), version: version.clone() });
            }
            let _permit =
                self.permits.acquire().await.map_err(|e| Error::unexpected("shutting down").source(e))?;
            let etag = known.filter(|etag| !etag.is_empty());
            let mut tried = 0;
            let fresh = loop {
                tried += 1;
                match self.try_once(url, path, bytes_max, etag.as_deref()).await {
                    Ok(fresh) => break fresh,
                    Err(error) if error.kind().is_retryable() && tried < limits::DOWNLOAD_TRIES_MAX => {
                        tracing::warn!(url, tried, error = %error.chain(), "download failed, trying again");
                        tokio::time::sleep(Duration::from_secs(1 << (tried - 1))).await;
                    }
                    Err(error) => return Err(error.with("tries", tried)),
                }
            };
            let version = match fresh {
                Some(version) => {
                    tokio::fs::write(&etag_path, &version)
                        .await
                        .map_err(|e| Error::io("write", &etag_path, e))?;
                    version
                }
                None => etag.unwrap_or_default(),
            };
            Ok(Fetched { path: path.to_owned(), version })
        }
    }
}
