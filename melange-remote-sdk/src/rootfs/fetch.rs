//! Getting files over http(s) into a cache on disk.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::pointers::hand_on;

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

hand_on!(Fetcher; {
    async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, revalidate: bool) -> Result<Fetched>;
});

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
mod http;

#[cfg(feature = "http")]
pub use http::{FetchOptions, HttpFetcher};
