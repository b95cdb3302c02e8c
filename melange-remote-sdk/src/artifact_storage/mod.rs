//! Station 12: where artifacts lie. The contract and its keys; implementations: [`object`].

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::limits;
use crate::pointers::hand_on;

pub mod layout;
pub mod object;

/// Bytes of an artifact, in order; an error ends them.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The name of an artifact: parts joined by `/`, none of them empty, `.` or `..`, the first without a leading
/// dot, made of ASCII letters, digits and `. _ + ~ @ : = , -`.
///
/// ```
/// use melange_remote_sdk::artifact_storage::ArtifactKey;
/// assert!("0197/x86_64/hello-2.10-r0.apk".parse::<ArtifactKey>().is_ok());
/// for bad in ["", "/a", "a//b", "a/../b", ".a/b", "a b", "a%2e", "a/"] {
///     assert!(bad.parse::<ArtifactKey>().is_err(), "{bad}");
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactKey(String);

impl ArtifactKey {
    /// The key `<self>/<name>`.
    ///
    /// # Errors
    /// As parsing.
    pub fn join(&self, name: &str) -> Result<Self> {
        format!("{}/{name}", self.0).parse()
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ArtifactKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::invalid(format!("the artifact key {text:?} {why}")));
        if text.len() > limits::ARTIFACT_KEY_BYTES_MAX {
            return refuse("is too long");
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("holds an empty part, `.` or `..`");
        }
        if text.starts_with('.') {
            return refuse("begins with a dot");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "/._+~@:=,-".contains(c);
        if !text.chars().all(legal) {
            return refuse("holds a character that keys must not have");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An artifact that lies in a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredArtifact {
    /// Its key.
    pub key: ArtifactKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

impl StoredArtifact {
    /// An artifact with its size and its SHA-256 in lower-case hex.
    pub fn new(key: ArtifactKey, size_bytes: u64, sha256: impl Into<String>) -> Self {
        Self { key, size_bytes, sha256: sha256.into() }
    }
}

/// An artifact, or a part of it, on its way out.
#[non_exhaustive]
pub struct ArtifactBody {
    /// The whole artifact's description.
    pub artifact: StoredArtifact,
    /// Which bytes come.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: ByteStream,
}

impl ArtifactBody {
    /// The bytes of a range of an artifact.
    pub fn new(artifact: StoredArtifact, range: Range<u64>, bytes: ByteStream) -> Self {
        Self { artifact, range, bytes }
    }
}

impl fmt::Debug for ArtifactBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactBody").field("artifact", &self.artifact).field("range", &self.range).finish()
    }
}

/// Keeps artifacts as streams of bytes under keys. It knows nothing of jobs or builders.
///
/// # Contract
/// * **Put is atomic**: a reader sees the whole new artifact or what was there before, the whole old one or none. A put
///   that fails leaves what was there before; one that is dropped is done or not done.
/// * The last put of a key that completed wins.
/// * Sizes and checksums are those of the bytes that were put, also after a restart.
/// * After a put returned, get, head and list know the artifact.
/// * A put that fails or is dropped leaves nothing behind that nobody sees, as far as the storage can be reached.
/// * `NotFound` is for a missing key, `InvalidRequest` for a range outside the artifact, `Unavailable` for
///   what may succeed later; whatever else a put answers, it will answer again: no right to write, no such bucket.
#[async_trait]
pub trait ArtifactStorage: Send + Sync + fmt::Debug {
    /// Stores the bytes under `key`.
    ///
    /// # Errors
    /// The first error of `bytes`, as it is; `Unavailable`.
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact>;

    /// Gives the key `to` the bytes of `from`, unless it has some already; tells what `to` has then. Of several copies to
    /// one key at once one counts, and all tell that one. What becomes of `from` later is nothing to `to`. A copy may tell
    /// the time of its original.
    ///
    /// # Errors
    /// `NotFound` when `to` is free and there is no `from`; `Unavailable`.
    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact>;

    /// The artifact's bytes, or those of `range`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidRequest` for an empty range or one that ends behind the artifact; `Unavailable`.
    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody>;

    /// The artifact's description.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact>;

    /// When the artifact was put last, by the storage's clock, perhaps rounded down to a second.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`.
    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp>;

    /// The artifacts whose keys begin with `<prefix>/`, sorted by key.
    ///
    /// # Errors
    /// `LimitExceeded` for more than [`limits::ARTIFACTS_LISTED_MAX`]; `Unavailable`.
    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>>;

    /// The first parts of all keys, each once, sorted: those behind `behind`, which may be empty, at most `limit`. A storage may also tell one
    /// whose last artifact was removed.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>>;

    /// Removes an artifact; a missing one is no error.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn delete(&self, key: &ArtifactKey) -> Result<()>;

    /// Where a person finds the key: a path, or a URL such as `gs://bucket/key`. The key need not exist.
    fn url(&self, key: &ArtifactKey) -> String;
}

hand_on!(ArtifactStorage; {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact>;
    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact>;
    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody>;
    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact>;
    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp>;
    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>>;
    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>>;
    async fn delete(&self, key: &ArtifactKey) -> Result<()>;
    fn url(&self, key: &ArtifactKey) -> String;
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_key_leaves_its_folder(text in "[a-z./~]{0,20}") {
            if let Ok(key) = text.parse::<ArtifactKey>() {
                prop_assert!(!key.as_str().starts_with(['/', '.']));
                prop_assert!(key.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
