//! From a folder to an archive.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::list;
use crate::apk::hashing::HashingWriter;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::job::SourceDigest;
use crate::limits;

/// The files of a folder in an archive, ready to be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct PackedSources {
    /// The digest of the archive.
    pub digest: SourceDigest,
    /// How many files it holds.
    pub files: usize,
    /// How many links were left out.
    pub links: usize,
    /// The size of the archive in bytes.
    pub size_bytes: u64,
    /// A file without a name, gone when it is closed.
    archive: Arc<File>,
}

impl PackedSources {
    /// The archive from its beginning, however often it is asked for.
    pub fn stream(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let archive = Arc::clone(&self.archive);
        let next = move |offset: u64| {
            let archive = Arc::clone(&archive);
            async move {
                let read = move || {
                    let mut chunk = vec![0; limits::SOURCE_CHUNK_BYTES];
                    // By its place: streams of one archive do not disturb each other.
                    let read = archive.read_at(&mut chunk, offset)?;
                    chunk.truncate(read);
                    Ok::<_, io::Error>(Bytes::from(chunk))
                };
                let chunk = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
                let behind = offset.saturating_add(chunk.len() as u64);
                Ok((!chunk.is_empty()).then_some((chunk, behind)))
            }
        };
        stream::try_unfold(0, next).boxed()
    }
}

/// Packs the files below a folder into an archive without a name; `None` when there are none.
///
/// # Errors
/// As [`list`]; `LimitExceeded` for more than [`limits::SOURCE_ARCHIVE_BYTES_MAX`]; `Conflict` when a file changes
/// meanwhile.
pub fn pack(folder: &Path) -> Result<Option<PackedSources>> {
    let list = list(folder)?;
    if list.files.is_empty() {
        return Ok(None);
    }
    // Before the first byte: archives hold their files and some more.
    check_size(folder, list.size_bytes())?;
    let temporary = |e| Error::unexpected("cannot make a temporary file").source(e);
    let archive = tempfile::tempfile().map_err(temporary)?;
    let mut tar = TarWriter::new(HashingWriter::new(BufWriter::new(archive)));
    for file in &list.files {
        let path = folder.join(&file.path);
        let mut content = file.open(folder)?;
        let size = content.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        if size != file.size_bytes {
            return Err(changed(&path));
        }
        let header = Header { size, ..Header::new(&file.path, EntryType::File, file.mode()) };
        tar.append(&header, &mut content).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => changed(&path),
            _ => Error::io("pack", &path, e),
        })?;
    }
    let (sink, sha256, size_bytes) = tar.finish().map_err(temporary)?.finish();
    check_size(folder, size_bytes)?;
    let mut archive = sink.into_inner().map_err(|e| temporary(e.into_error()))?;
    archive.flush().map_err(temporary)?;
    let digest = format!("sha256:{sha256}").parse()?;
    Ok(Some(PackedSources {
        digest,
        files: list.files.len(),
        links: list.links,
        size_bytes,
        archive: Arc::new(archive),
    }))
}

fn check_size(folder: &Path, size_bytes: u64) -> Result<()> {
    if size_bytes <= limits::SOURCE_ARCHIVE_BYTES_MAX {
        return Ok(());
    }
    let bound = limits::SOURCE_ARCHIVE_BYTES_MAX;
    let message = format!("the files in {} have {size_bytes} bytes, more than {bound}", folder.display());
    Err(Error::new(ErrorKind::LimitExceeded, message)
        .hint("keep only what the build needs there, and let the definition fetch the rest"))
}

fn changed(path: &Path) -> Error {
    let message = format!("{} changed while it was packed", path.display());
    Error::new(ErrorKind::Conflict, message).hint("try again when nothing writes there")
}
