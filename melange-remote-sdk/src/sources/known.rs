//! Archives that are in a storage, for those who are about to name them.

use crate::artifact_storage::layout::source_key;
use crate::artifact_storage::{ArtifactStorage, StoredArtifact};
use crate::clock::earlier;
use crate::error::{Error, ErrorKind, Result};
use crate::job::SourceDigest;
use crate::limits;

/// An archive that a storage has. Whoever asks may name it in a submission: it is there for half of
/// [`limits::SOURCE_ARCHIVE_KEPT`] from now on at least, also when no job needs it. `now` is the storage's time, or near it.
///
/// # Errors
/// The storage's.
pub async fn known(
    storage: &dyn ArtifactStorage,
    digest: &SourceDigest,
    now: jiff::Timestamp,
) -> Result<Option<StoredArtifact>> {
    let key = source_key(digest)?;
    let is_missing = |error: &Error| error.kind() == ErrorKind::NotFound;
    let stored_at = match storage.stored_at(&key).await {
        Ok(stored_at) => stored_at,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = if stored_at > earlier(now, limits::SOURCE_ARCHIVE_KEPT / 2) {
        storage.head(&key).await
    } else {
        // Storages have no other way to say that it was used: its own bytes are put again.
        match storage.get(&key, None).await {
            Ok(body) if body.artifact.sha256 == digest.hex() => storage.put(&key, body.bytes).await,
            Ok(body) => Ok(body.artifact),
            Err(error) => Err(error),
        }
    };
    match found {
        // Something else of this name is what must be sent again.
        Ok(stored) => Ok(Some(stored).filter(|stored| stored.sha256 == digest.hex())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
