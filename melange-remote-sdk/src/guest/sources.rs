//! Sources that steps name by a checksum, from a cache that is filled before they run.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;

use super::Blob;
use crate::error::Result;
use crate::melange::fetches::Fetch;
use crate::pointers::hand_on;

/// Where a cached source came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceOrigin {
    /// It was there.
    Cache,
    /// It was downloaded just now, from this address.
    Download(String),
}

/// A source of a [`SourceCache`]; the file stays as long as this does.
pub struct CachedSource {
    /// The file.
    pub blob: Blob,
    /// Where it came from.
    pub origin: SourceOrigin,
    _hold: Box<dyn Any + Send + Sync>,
}

impl CachedSource {
    /// A file that stays while `hold` is not dropped.
    pub fn new(blob: Blob, origin: SourceOrigin, hold: impl Any + Send + Sync) -> Self {
        Self { blob, origin, _hold: Box::new(hold) }
    }
}

impl fmt::Debug for CachedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedSource").field("blob", &self.blob).field("origin", &self.origin).finish()
    }
}

/// Has the sources that definitions name by a checksum, or gets them.
///
/// # Contract
/// * What it gives has the checksum that was asked for; it was compared since the file was last read from anywhere.
/// * Callers that ask for one source at the same time cause one download.
/// * An error is no failure of a build: whoever asked may get the source otherwise. It says what was tried and why it
///   did not do.
/// * Dropping the future stops what it began, and leaves nothing half-written behind.
#[async_trait]
pub trait SourceCache: Send + Sync + fmt::Debug {
    /// The source as a file on this machine's disk.
    ///
    /// # Errors
    /// `Untrusted` for bytes with another checksum, and for addresses that must not be asked; `LimitExceeded` beyond
    /// the bytes that it may have; `NotFound`, `Unavailable`.
    async fn get(&self, fetch: &Fetch) -> Result<CachedSource>;
}

hand_on!(SourceCache; {
    async fn get(&self, fetch: &Fetch) -> Result<CachedSource>;
});
