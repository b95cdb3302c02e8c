//! Archives of source files on this machine: while they are taken in, and unpacked while a build reads them.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{SourceSummary, unpack};
use crate::artifact_storage::layout::source_key;
use crate::artifact_storage::{ArtifactStorage, ByteStream};
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

impl SourceFolders {
    /// A place in a folder of state. What a process left there that lives no more is removed.
    pub fn below(state_dir: &Path) -> Self {
        Self(Some(Arc::new(ScratchFolder::new(&state_dir.join("sources"), "server"))))
    }

    /// A file without a name, gone when it is closed.
    ///
    /// # Errors
    /// The disk's.
    pub fn nameless_file(&self) -> Result<File> {
        let made = match &self.0 {
            Some(scratch) => tempfile::tempfile_in(scratch.path()?),
            None => tempfile::tempfile(),
        };
        made.map_err(|e| Error::unexpected("cannot make a temporary file").source(e).blame(Blame::Farm))
    }

    fn folder(&self) -> Result<tempfile::TempDir> {
        let made = match &self.0 {
            Some(scratch) => tempfile::tempdir_in(scratch.path()?),
            None => tempfile::tempdir(),
        };
        made.map_err(|e| Error::unexpected("cannot make a temporary folder").source(e).blame(Blame::Farm))
    }

    /// Fetches an archive from a storage and unpacks it. Its digest is compared before anything of it is read.
    ///
    /// # Errors
    /// `Gone` when it is not there; `Untrusted` when its bytes have another digest; the storage's and the disk's.
    pub async fn fetch(&self, storage: &dyn ArtifactStorage, digest: SourceDigest) -> Result<SourceFolder> {
        let at_farm = |error: Error| error.blame_if_unknown(Blame::Farm).with("source", digest);
        let body = storage.get(&source_key(&digest)?, None).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => gone(digest),
            _ => at_farm(error),
        })?;
        let place = self.clone();
        let file = aside(move || place.nameless_file()).await?;
        let archive = taken_in(body.bytes, file, digest).await.map_err(at_farm)?;
        let place = self.clone();
        let unpacked = aside(move || {
            let folder = place.folder()?;
            let summary = unpack(BufReader::new(archive), folder.path())?;
            Ok(SourceFolder { folder, summary })
        });
        // It was checked before it came into the storage, so nobody else is at fault.
        unpacked.await.map_err(at_farm)
    }
}

/// Writes what comes to a file and gives the file from its beginning, if the bytes are those of the digest.
async fn taken_in(mut bytes: ByteStream, file: File, digest: SourceDigest) -> Result<File> {
    let failed = |e| Error::unexpected("cannot write a temporary file").source(e);
    let (mut file, mut hasher, mut size) = (tokio::fs::File::from_std(file), Sha256::new(), 0u64);
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        size = size.saturating_add(chunk.len() as u64);
        if size > limits::SOURCE_ARCHIVE_BYTES_MAX {
            let bound = limits::SOURCE_ARCHIVE_BYTES_MAX;
            let message = format!("the storage has an archive of more than {bound} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let found = SourceDigest::new(hasher.finalize().into());
    if found != digest {
        let error = Error::new(ErrorKind::Untrusted, "the storage has other bytes than those that were sent");
        return Err(error.with("found", found).hint("remove the object and submit the definition again"));
    }
    let mut file = file.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
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
