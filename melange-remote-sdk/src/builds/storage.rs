//! The files of builds in the artifact storage, and what was read of them of late.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::document::{BuildDocument, LoadedBuild};
use crate::apk::checksum::sha256_hex;
use crate::apk::index::{Index, IndexPackage};
use crate::artifact_storage::layout::{artifact_key, build_folder, source_key};
use crate::artifact_storage::{ArtifactKey, ArtifactStorage};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{BuildId, Job, JobId};
use crate::limits;
use crate::sources::{self, PackedSources};

/// The name of a build's document in its folder.
const DOCUMENT: &str = "build.json.zst";

/// The files of builds, read through caches that are bounded together by [`limits::BUILD_FILES_KEPT_BYTES_MAX`]. Clones
/// share them.
#[derive(Debug, Clone)]
pub struct BuildFiles {
    storage: Arc<dyn ArtifactStorage>,
    documents: moka::future::Cache<BuildId, Arc<LoadedBuild>>,
    indexes: moka::future::Cache<String, Bytes>,
    made: moka::future::Cache<JobId, Arc<Made>>,
}

/// What a job that succeeded has made; it never changes.
#[derive(Debug)]
pub(crate) struct Made {
    /// The attempt that made it.
    pub(crate) attempt: u32,
    /// Its packages, as an index lists them; none of a job that had nothing to do.
    pub(crate) packages: Vec<IndexPackage>,
}

/// What a job of a document takes in memory, about.
const PLANNED_JOB_BYTES: usize = 4 << 10;

impl BuildFiles {
    /// The files of builds in a storage.
    pub fn new(storage: Arc<dyn ArtifactStorage>) -> Self {
        let bytes = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let most = limits::BUILD_FILES_KEPT_BYTES_MAX / 3;
        Self {
            storage,
            documents: moka::future::Cache::builder()
                .weigher(move |_, build: &Arc<LoadedBuild>| {
                    bytes(build.len().saturating_add(1) * PLANNED_JOB_BYTES)
                })
                .max_capacity(most)
                .build(),
            indexes: moka::future::Cache::builder()
                .weigher(move |_, index: &Bytes| bytes(index.len()))
                .max_capacity(most)
                .build(),
            made: moka::future::Cache::builder()
                .weigher(move |_, made: &Arc<Made>| {
                    bytes(
                        made.packages.iter().map(IndexPackage::kept_bytes).sum::<usize>().saturating_add(256),
                    )
                })
                .max_capacity(most)
                .build(),
        }
    }

    fn index_key(build: BuildId, sha256: &str) -> Result<ArtifactKey> {
        build_folder(build)?.join(&format!("indexes/{sha256}.tar.gz"))
    }

    async fn put(&self, key: &ArtifactKey, bytes: Bytes) -> Result<()> {
        self.storage.put(key, stream::iter([Ok(bytes)]).boxed()).await.map(drop)
    }

    /// Writes a build: its indexes by their digests, then the document.
    ///
    /// # Errors
    /// The storage's; what was written before is left.
    pub(super) async fn write(&self, document: BuildDocument, indexes: &[(String, Bytes)]) -> Result<()> {
        let id = document.id;
        for (sha256, bytes) in indexes {
            self.put(&Self::index_key(id, sha256)?, bytes.clone()).await?;
            self.indexes.insert(sha256.clone(), bytes.clone()).await;
        }
        self.put(&build_folder(id)?.join(DOCUMENT)?, document.write()?.into()).await?;
        self.documents.insert(id, Arc::new(LoadedBuild::new(document))).await;
        Ok(())
    }

    /// Stores the archive of the files beside a definition under its digest, unless it is there; then it is kept for those who
    /// are about to name it, as [`known`](crate::sources::known) has it. `now` is the storage's time, or near it.
    ///
    /// # Errors
    /// The storage's; `Unexpected` when the archive cannot be read.
    pub async fn store_sources(&self, packed: &PackedSources, now: Timestamp) -> Result<()> {
        let key = source_key(&packed.digest)?;
        if sources::known(&*self.storage, &packed.digest, now).await?.is_some() {
            return Ok(());
        }
        let failed = |error| Error::unexpected("a temporary file cannot be read").source(error);
        self.storage.put(&key, packed.stream().map_err(failed).boxed()).await.map(drop)
    }

    /// Removes all files of a build that belong to none of its jobs.
    ///
    /// # Errors
    /// The storage's; the others are removed by the next call.
    pub async fn remove(&self, build: BuildId) -> Result<()> {
        self.documents.invalidate(&build).await;
        for artifact in self.storage.list(&build_folder(build)?).await? {
            self.storage.delete(&artifact.key).await?;
        }
        Ok(())
    }

    /// The document of a build.
    ///
    /// # Errors
    /// `NotFound` when it has none, or no longer; the storage's.
    pub async fn document(&self, build: BuildId) -> Result<Arc<LoadedBuild>> {
        if let Some(known) = self.documents.get(&build).await {
            return Ok(known);
        }
        let key = build_folder(build)?.join(DOCUMENT)?;
        let bytes = self.read(&key, limits::BUILD_DOCUMENT_BYTES_MAX).await?;
        let read = tokio::task::spawn_blocking(move || BuildDocument::read(&bytes).map(LoadedBuild::new));
        let read = read.await.map_err(|error| Error::unexpected("the reader died").source(error))??;
        let loaded = Arc::new(read);
        self.documents.insert(build, Arc::clone(&loaded)).await;
        Ok(loaded)
    }

    /// An index that a build kept.
    ///
    /// # Errors
    /// `NotFound` when it was removed; `Untrusted` when it is not what it was; the storage's.
    pub(super) async fn index(&self, build: BuildId, sha256: &str) -> Result<Bytes> {
        if let Some(known) = self.indexes.get(sha256).await {
            return Ok(known);
        }
        let key = Self::index_key(build, sha256)?;
        let most = usize::try_from(limits::INDEX_COMPRESSED_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = self.read(&key, most).await?;
        if sha256_hex(&bytes) != sha256 {
            let error = Error::new(ErrorKind::Untrusted, "an index that a build kept has changed");
            return Err(error.with("key", &key));
        }
        self.indexes.insert(sha256.to_owned(), bytes.clone()).await;
        Ok(bytes)
    }

    /// What a job has made, when that was read of late.
    pub(super) async fn known(&self, job: JobId) -> Option<Arc<Made>> {
        self.made.get(&job).await
    }

    /// What a job that succeeded has made, read once in a while.
    ///
    /// # Errors
    /// `NotFound` when it was removed; the storage's.
    pub(crate) async fn made(&self, job: &Job) -> Result<Arc<Made>> {
        if let Some(known) = self.known(job.id).await {
            return Ok(known);
        }
        let name = format!("{}/APKINDEX.tar.gz", job.facts.arch);
        let packages = if job.artifacts.iter().any(|artifact| artifact.name == name) {
            self.packages(&artifact_key(job.id, job.attempt, &name)?).await?
        } else {
            Vec::new()
        };
        let made = Arc::new(Made { attempt: job.attempt, packages });
        self.made.insert(job.id, Arc::clone(&made)).await;
        Ok(made)
    }

    /// The packages of an index that a job has made.
    pub(crate) async fn packages(&self, key: &ArtifactKey) -> Result<Vec<IndexPackage>> {
        let most = usize::try_from(limits::INDEX_COMPRESSED_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = self.read(key, most).await?;
        let read = tokio::task::spawn_blocking(move || Index::read(&bytes, None));
        let index = read.await.map_err(|error| Error::unexpected("the reader died").source(error))??;
        Ok(index.packages)
    }

    /// The bytes of a small file.
    async fn read(&self, key: &ArtifactKey, most: usize) -> Result<Bytes> {
        let mut body = self.storage.get(key, None).await?;
        let mut read = Vec::new();
        while let Some(part) = body.bytes.try_next().await? {
            if read.len().saturating_add(part.len()) > most {
                let error = Error::new(ErrorKind::LimitExceeded, "a file of a build is too large");
                return Err(error.with("key", key));
            }
            read.extend_from_slice(&part);
        }
        Ok(read.into())
    }

    /// The storage.
    pub(crate) fn storage(&self) -> &Arc<dyn ArtifactStorage> {
        &self.storage
    }
}
