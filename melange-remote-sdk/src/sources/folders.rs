//! Archives of source files on this machine: while they are taken in, and unpacked while a build reads them.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{SourceSummary, unpack};
use crate::artifact_storage::ArtifactStorage;
use crate::artifact_storage::layout::source_key;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::job::SourceDigest;
use crate::limits;
use crate::scratch::ScratchFolder;

/// Where archives are taken in and unpacked. Clones share the place; the default is the system's for temporary files.
#[derive(Debug, Clone, Default)]
pub struct SourceFolders(Option<Arc<ScratchFolder>>);

/// The files beside a definition in a folder of their own, which is removed with the last owner.
#[derive(Debug)]
pub struct SourceFolder {
    folder: tempfile::TempDir,
    summary: SourceSummary,
    /// What it lies in, which goes with the last of these.
    _place: SourceFolders,
}

impl SourceFolder {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What is in it.
    pub fn summary(&self) -> SourceSummary {
        self.summary
    }

    /// Removes it on a thread that may wait for the disk. What cannot be removed now is, when a process starts on the
    /// same state.
    pub async fn remove(self) {
        let removed = aside(move || {
            let path = self.folder.path().to_owned();
            self.folder.close().map_err(|e| Error::io("remove", &path, e))
        });
        if let Err(error) = removed.await {
            tracing::warn!(error = %error.chain(), "a folder of source files is left over");
        }
    }
}

/// An archive while it comes, in a file without a name: it is gone when this is dropped or the process dies.
#[derive(Debug)]
pub struct SourceIntake {
    file: tokio::fs::File,
    hasher: Sha256,
    size_bytes: u64,
}

impl SourceIntake {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `LimitExceeded` beyond [`limits::SOURCE_ARCHIVE_BYTES_MAX`]; the disk's.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > limits::SOURCE_ARCHIVE_BYTES_MAX {
            let bound = limits::SOURCE_ARCHIVE_BYTES_MAX;
            let message = format!("the archive of source files has more than {bound} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).await.map_err(not_written)
    }

    /// The archive from its beginning, and its digest.
    ///
    /// # Errors
    /// The disk's.
    pub async fn finish(mut self) -> Result<(File, SourceDigest)> {
        self.file.flush().await.map_err(not_written)?;
        let mut file = self.file.into_std().await;
        file.seek(SeekFrom::Start(0)).map_err(not_written)?;
        Ok((file, SourceDigest::new(self.hasher.finalize().into())))
    }
}

fn not_written(error: std::io::Error) -> Error {
    Error::unexpected("cannot write a temporary file").source(error).blame(Blame::Farm)
}

impl SourceFolders {
    /// A place in a folder of state. What a process left there that lives no more is removed.
    pub fn below(state_dir: &Path) -> Self {
        Self(Some(Arc::new(ScratchFolder::new(&state_dir.join("sources"), "server"))))
    }

    /// A file without a name for an archive that comes.
    ///
    /// # Errors
    /// The disk's.
    pub async fn intake(&self) -> Result<SourceIntake> {
        let place = self.clone();
        let file = aside(move || {
            let made = match &place.0 {
                Some(scratch) => tempfile::tempfile_in(scratch.path()?),
                None => tempfile::tempfile(),
            };
            made.map_err(|e| Error::unexpected("cannot make a temporary file").source(e).blame(Blame::Farm))
        });
        let file = tokio::fs::File::from_std(file.await?);
        Ok(SourceIntake { file, hasher: Sha256::new(), size_bytes: 0 })
    }

    fn folder(&self) -> Result<tempfile::TempDir> {
        let made = match &self.0 {
            Some(scratch) => tempfile::tempdir_in(scratch.path()?),
            None => tempfile::tempdir(),
        };
        made.map_err(|e| Error::unexpected("cannot make a temporary folder").source(e).blame(Blame::Farm))
    }

    /// The archive as the storage has it, and its digest.
    async fn read(
        &self,
        storage: &dyn ArtifactStorage,
        digest: SourceDigest,
    ) -> Result<(File, SourceDigest)> {
        let at_farm = |error: Error| error.blame_if_unknown(Blame::Farm).with("source", digest);
        let mut body =
            storage.get(&source_key(&digest)?, None).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound => gone(digest),
                _ => at_farm(error),
            })?;
        let mut intake = self.intake().await?;
        while let Some(chunk) = body.bytes.next().await {
            intake.push(&chunk.map_err(at_farm)?).await.map_err(at_farm)?;
        }
        intake.finish().await.map_err(at_farm)
    }

    /// Fetches an archive from a storage and unpacks it. Its digest is compared before anything of it is read.
    ///
    /// # Errors
    /// `Gone` when it is not there; `Unavailable` when it does not come within [`limits::SOURCE_ARCHIVE_FETCH_TIME`];
    /// `Untrusted` when its bytes have another digest; the storage's and the disk's.
    pub async fn fetch(&self, storage: &dyn ArtifactStorage, digest: SourceDigest) -> Result<SourceFolder> {
        let at_farm = |error: Error| error.blame_if_unknown(Blame::Farm).with("source", digest);
        let most = limits::SOURCE_ARCHIVE_FETCH_TIME;
        let came = tokio::time::timeout(most, self.read(storage, digest)).await;
        let (archive, found) = came.unwrap_or_else(|_| Err(at_farm(too_slow(most))))?;
        if found != digest {
            let error =
                Error::new(ErrorKind::Untrusted, "the storage has other bytes than those that were sent");
            let hint = "remove the object and submit the definition again";
            return Err(at_farm(error.with("found", found).hint(hint)));
        }
        let place = self.clone();
        let unpacked = aside(move || {
            let folder = place.folder()?;
            let summary = unpack(BufReader::new(archive), folder.path())?;
            Ok(SourceFolder { folder, summary, _place: place })
        });
        // It was checked before it came into the storage, so nobody else is at fault.
        unpacked.await.map_err(at_farm)
    }
}

fn too_slow(most: Duration) -> Error {
    let message =
        format!("the files beside the definition did not come from the storage within {} s", most.as_secs());
    Error::new(ErrorKind::Unavailable, message).hint("is the storage reached, and does it answer?")
}

fn gone(digest: SourceDigest) -> Error {
    Error::new(ErrorKind::Gone, "the files beside the definition are no longer in the storage")
        .with("source", digest)
        .blame(Blame::Farm)
        .hint("submit the definition again, which sends its files too")
}

/// Runs what waits for the disk beside the tasks.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::unexpected("reading source files died").source(error)))
}
