//! From a folder to an archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::list;
use super::unpack::{Names, check_plain};
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
    let place = format!("in {}", folder.display());
    // Before the first byte: archives hold their files and some more.
    check_size(&place, list.size_bytes())?;
    let mut tar = begin()?;
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
    finish(tar, &place, list.files.len(), list.links).map(Some)
}

/// Packs texts by their paths, as a folder with these files is packed; `None` when there are none.
///
/// # Errors
/// `InvalidRequest` for what is no plain relative path; `LimitExceeded`.
pub fn pack_texts(texts: &BTreeMap<String, String>) -> Result<Option<PackedSources>> {
    check_texts(texts)?;
    if texts.is_empty() {
        return Ok(None);
    }
    let mut tar = begin()?;
    for (path, text) in texts {
        let header = Header { size: text.len() as u64, ..Header::new(path, EntryType::File, 0o644) };
        tar.append(&header, &mut text.as_bytes()).map_err(temporary)?;
    }
    finish(tar, "that were sent", texts.len(), 0).map(Some)
}

/// Whether [`pack_texts`] takes these texts.
///
/// # Errors
/// Its own.
pub fn check_texts(texts: &BTreeMap<String, String>) -> Result<()> {
    let mut names = Names::default();
    for path in texts.keys() {
        check_plain(path)?;
        names.file(path)?;
    }
    check_size("that were sent", texts.values().fold(0, |sum, text| sum.saturating_add(text.len() as u64)))
}

type Packing = TarWriter<HashingWriter<BufWriter<File>>>;

fn begin() -> Result<Packing> {
    let archive = tempfile::tempfile().map_err(temporary)?;
    Ok(TarWriter::new(HashingWriter::new(BufWriter::new(archive))))
}

fn finish(tar: Packing, place: &str, files: usize, links: usize) -> Result<PackedSources> {
    let (sink, sha256, size_bytes) = tar.finish().map_err(temporary)?.finish();
    check_size(place, size_bytes)?;
    let mut archive = sink.into_inner().map_err(|e| temporary(e.into_error()))?;
    archive.flush().map_err(temporary)?;
    let digest = format!("sha256:{sha256}").parse()?;
    Ok(PackedSources { digest, files, links, size_bytes, archive: Arc::new(archive) })
}

fn temporary(error: io::Error) -> Error {
    Error::unexpected("cannot make a temporary file").source(error)
}

fn check_size(place: &str, size_bytes: u64) -> Result<()> {
    if size_bytes <= limits::SOURCE_ARCHIVE_BYTES_MAX {
        return Ok(());
    }
    let bound = limits::SOURCE_ARCHIVE_BYTES_MAX;
    let message = format!("the files {place} have {size_bytes} bytes, more than {bound}");
    Err(Error::new(ErrorKind::LimitExceeded, message)
        .hint("keep only what the build needs there, and let the definition fetch the rest"))
}

fn changed(path: &Path) -> Error {
    let message = format!("{} changed while it was packed", path.display());
    Error::new(ErrorKind::Conflict, message).hint("try again when nothing writes there")
}
