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

/// What becomes of a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// It is taken as it is.
    Taken,
    /// It is asked for again, by its version.
    Renewed,
}

/// Downloads files.
///
/// # Contract
/// * The file appears whole or not at all; concurrent callers, also of other processes, may share the folder.
/// * `NotFound` for a missing resource, `Unavailable` for anything that may pass, after the tries of
///   [`crate::limits::DOWNLOAD_TRIES_MAX`]; `LimitExceeded` beyond `bytes_max`.
#[async_trait]
pub trait Fetcher: Send + Sync + std::fmt::Debug {
    /// Gets `url` to `path`, where a file may be already.
    async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, present: Present) -> Result<Fetched>;
}

hand_on!(Fetcher; {
    async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, present: Present) -> Result<Fetched>;
});

/// A fetcher that refuses: for engines without network.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

#[async_trait]
impl Fetcher for NoNetwork {
    async fn fetch(&self, url: &str, _path: &Path, _bytes_max: u64, _present: Present) -> Result<Fetched> {
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
