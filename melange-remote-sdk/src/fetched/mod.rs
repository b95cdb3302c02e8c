//! The farm's cache of sources that definitions name by a checksum.
//!
//! A source is looked for on the disk of this machine, in the artifact storage that servers share, and at the addresses
//! that the definition names, in this order; wherever it was found, the places before have it then. It is compared with
//! its checksum each time it is read: what is wrong is removed, and the search goes on.
//!
//! On the disk it counts among the caches of the state folder. In the storage it lies in the folder of the month in which
//! it was used last ([`SourceMonth`]); the retention removes folders that are older than the month before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::io::ReaderStream;

use crate::artifact_storage::layout::{SourceMonth, fetched_key};
use crate::artifact_storage::{ArtifactKey, ArtifactStorage};
use crate::cache::{self, StateCache};
use crate::clock::Clock;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::{Blob, CachedSource, SourceCache, SourceOrigin};
use crate::limits;
use crate::melange::fetches::{Fetch, SourceChecksum};
use crate::scratch::ScratchFolder;

mod downloads;
mod intake;

pub use downloads::DownloadOptions;
use downloads::Downloads;
use intake::{Intake, Present, Taken, examine};

/// Who gets a source while others wait, and why the one before did not.
type Turn = tokio::sync::Mutex<Option<Failed>>;

/// Why a source did not come, for those who waited for it.
#[derive(Debug)]
struct Failed {
    uris: Vec<String>,
    kind: ErrorKind,
    text: String,
}

/// What becomes of a file that is not what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Left,
    Removed,
}

/// A cache of sources over an artifact storage.
#[derive(Debug)]
pub struct StoredSourceCache {
    cache: Arc<StateCache>,
    artifact_storage: Arc<dyn ArtifactStorage>,
    clock: Arc<dyn Clock>,
    downloads: Downloads,
    scratch: ScratchFolder,
    turns: Mutex<HashMap<SourceChecksum, Weak<Turn>>>,
}

impl StoredSourceCache {
    /// A cache whose files count among those of `cache`.
    ///
    /// # Errors
    /// `Unexpected` when TLS cannot be set up.
    pub fn new(
        cache: Arc<StateCache>,
        artifact_storage: Arc<dyn ArtifactStorage>,
        clock: Arc<dyn Clock>,
        options: DownloadOptions,
    ) -> Result<Self> {
        let scratch = ScratchFolder::new(&cache.folder().join("fetching"), "sources");
        let downloads = Downloads::new(options)?;
        Ok(Self { cache, artifact_storage, clock, downloads, scratch, turns: Mutex::default() })
    }

    fn path(&self, checksum: &SourceChecksum) -> PathBuf {
        self.cache.folder().join(cache::SOURCES).join(checksum.to_string())
    }

    /// Those who ask for one source at the same time share a turn.
    fn turn(&self, checksum: &SourceChecksum) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(checksum).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(checksum.clone(), Arc::downgrade(&turn));
        turn
    }

    /// The source on this machine's disk.
    async fn local(&self, checksum: &SourceChecksum, wrong: Wrong) -> Result<Option<CachedSource>> {
        let (path, cache, checksum) = (self.path(checksum), Arc::clone(&self.cache), checksum.clone());
        aside(move || {
            // Held first, so that it is not swept between the look at it and its use.
            let held = cache.hold(&path);
            match examine(&path, &checksum)? {
                Present::Missing => Ok(None),
                Present::Right { sha256, size_bytes } => {
                    let blob = Blob { path, sha256, size_bytes };
                    Ok(Some(CachedSource::new(blob, SourceOrigin::Cache, held)))
                }
                Present::Wrong => {
                    if wrong == Wrong::Removed {
                        tracing::warn!(path = %path.display(), "a cached source is not what its name says; it is removed");
                        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
                    }
                    Ok(None)
                }
            }
        })
        .await
    }

    /// Gives a source its name on this machine's disk.
    async fn keep(
        &self,
        checksum: &SourceChecksum,
        taken: Taken,
        origin: SourceOrigin,
    ) -> Result<CachedSource> {
        let (path, cache) = (self.path(checksum), Arc::clone(&self.cache));
        aside(move || {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
            // Once before it is there, once more for its lock: no sweep finds it in between.
            let _coming = cache.hold(&path);
            taken.path.persist(&path).map_err(|e| Error::io("write", &path, e.error))?;
            let held = cache.hold(&path);
            if let Err(error) = cache.sweep() {
                tracing::warn!(error = %error.chain(), "the caches of the state folder could not be bounded");
            }
            let blob = Blob { path, sha256: taken.sha256, size_bytes: taken.size_bytes };
            Ok(CachedSource::new(blob, origin, held))
        })
        .await
    }

    /// Gets a source that is not on this machine's disk.
    async fn fill(&self, fetch: &Fetch) -> Result<CachedSource> {
        let cache = Arc::clone(&self.cache);
        let used = aside(move || cache.sweep()).await?;
        if used > self.cache.bytes_max() {
            let message = "the caches of the state folder are full of what running builds use";
            return Err(
                Error::new(ErrorKind::LimitExceeded, message).with("bytes_max", self.cache.bytes_max())
            );
        }
        let folder = self.scratch.path()?;
        let bytes_max = fetch.bytes_max.min(self.cache.bytes_max());
        let checksum = &fetch.checksum;
        let month = SourceMonth::of(self.clock.now());
        for of in [month, month.before()] {
            let Some(taken) = self.stored(&fetched_key(of, checksum)?, fetch, bytes_max).await else {
                continue;
            };
            let found = self.keep(checksum, taken, SourceOrigin::Cache).await?;
            if of != month {
                self.store(month, checksum, &found).await;
            }
            return Ok(found);
        }
        let (taken, url) = self.downloads.get(fetch, folder, bytes_max).await?;
        let found = self.keep(checksum, taken, SourceOrigin::Download(url)).await?;
        self.store(month, checksum, &found).await;
        Ok(found)
    }

    /// The source from the artifact storage. A storage that does not give it is no reason to stop.
    async fn stored(&self, key: &ArtifactKey, fetch: &Fetch, bytes_max: u64) -> Option<Taken> {
        let read = tokio::time::timeout(limits::FETCHED_STORAGE_TIME, self.read(key, fetch, bytes_max));
        let error = match read.await {
            Ok(Ok(taken)) => return Some(taken),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return None,
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Unavailable, "the storage took too long"),
        };
        tracing::warn!(%key, error = %error.chain(), "a source could not be taken from the storage");
        if error.kind() == ErrorKind::Untrusted
            && let Err(error) = self.artifact_storage.delete(key).await
        {
            tracing::warn!(%key, error = %error.chain(), "a stored source with another checksum is left over");
        }
        None
    }

    async fn read(&self, key: &ArtifactKey, fetch: &Fetch, bytes_max: u64) -> Result<Taken> {
        let mut body = self.artifact_storage.get(key, None).await?;
        let mut intake = Intake::new(self.scratch.path()?, &fetch.checksum, bytes_max)?;
        while let Some(chunk) = body.bytes.next().await {
            intake.push(&chunk?).await?;
        }
        intake.finish().await
    }

    /// Puts a source into the artifact storage for other servers, and for later. The build has it either way.
    async fn store(&self, month: SourceMonth, checksum: &SourceChecksum, found: &CachedSource) {
        let put = async {
            let key = fetched_key(month, checksum)?;
            let path = found.blob.path.clone();
            let file = tokio::fs::File::open(&path).await.map_err(|e| Error::io("open", &path, e))?;
            let bytes = ReaderStream::with_capacity(file, limits::SOURCE_CHUNK_BYTES)
                .map_err(move |e| Error::io("read", &path, e));
            self.artifact_storage.put(&key, bytes.boxed()).await
        };
        let error = match tokio::time::timeout(limits::FETCHED_STORAGE_TIME, put).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.chain(),
            Err(_) => "the storage took too long".to_owned(),
        };
        tracing::warn!(%checksum, error, "a source could not be stored for other servers");
    }
}

#[async_trait]
impl SourceCache for StoredSourceCache {
    async fn get(&self, fetch: &Fetch) -> Result<CachedSource> {
        // Without a turn: many may read what is there at the same time.
        if let Some(found) = self.local(&fetch.checksum, Wrong::Left).await? {
            return Ok(found);
        }
        let turn = self.turn(&fetch.checksum);
        let mut turn = turn.lock().await;
        if let Some(failed) = turn.as_ref().filter(|failed| failed.uris == fetch.uris) {
            return Err(Error::new(failed.kind, failed.text.clone()).blame(Blame::Farm));
        }
        if let Some(found) = self.local(&fetch.checksum, Wrong::Removed).await? {
            return Ok(found);
        }
        let got = self.fill(fetch).await;
        // How much a source may have is each one's own.
        *turn = got
            .as_ref()
            .err()
            .filter(|error| error.kind() != ErrorKind::LimitExceeded)
            .map(|error| Failed { uris: fetch.uris.clone(), kind: error.kind(), text: error.chain() });
        got
    }
}

/// Runs what waits for the disk beside the tasks.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::unexpected("reading a source died").source(error)))
}

#[cfg(test)]
mod tests;
