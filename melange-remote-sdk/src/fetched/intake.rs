//! A source on its way to the disk: its digests are made as it comes, and it gets its name only when they hold.

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256, Sha512};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt;

use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::melange::fetches::{ChecksumAlgorithm, SourceChecksum};

/// The digests of a source: the one that names it, and the SHA-256 that runners know files by.
struct Digests {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Digests {
    fn new(algorithm: ChecksumAlgorithm) -> Self {
        let sha512 = (algorithm == ChecksumAlgorithm::Sha512).then(Sha512::new);
        Self { sha256: Sha256::new(), sha512 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The SHA-256, and the digest that names it.
    fn finish(self) -> (String, String) {
        let sha256 = hex::encode(self.sha256.finalize());
        let name = self.sha512.map_or_else(|| sha256.clone(), |sha512| hex::encode(sha512.finalize()));
        (sha256, name)
    }
}

/// A whole source whose checksum holds, under a name of its own that goes with this.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) path: TempPath,
    pub(super) sha256: String,
    pub(super) size_bytes: u64,
}

/// A source that comes.
pub(super) struct Intake<'c> {
    checksum: &'c SourceChecksum,
    bytes_max: u64,
    path: TempPath,
    file: tokio::fs::File,
    digests: Digests,
    size_bytes: u64,
}

impl<'c> Intake<'c> {
    /// A file below `folder` for a source that may have so many bytes.
    pub(super) fn new(folder: &Path, checksum: &'c SourceChecksum, bytes_max: u64) -> Result<Self> {
        let file = NamedTempFile::new_in(folder).map_err(|e| Error::io("create a file in", folder, e))?;
        let (file, path) = file.into_parts();
        let digests = Digests::new(checksum.algorithm());
        Ok(Self { checksum, bytes_max, path, file: tokio::fs::File::from_std(file), digests, size_bytes: 0 })
    }

    /// Takes the next bytes.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > self.bytes_max {
            let message = format!("it has more than the {} bytes that it may have", self.bytes_max);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        self.digests.update(bytes);
        self.file.write_all(bytes).await.map_err(|e| Error::io("write", &self.path, e))
    }

    /// The whole source.
    pub(super) async fn finish(mut self) -> Result<Taken> {
        let failed = |e| Error::io("write", &self.path, e);
        self.file.flush().await.map_err(failed)?;
        let (sha256, found) = self.digests.finish();
        if found != self.checksum.hex() {
            let kind = self.checksum.algorithm().name();
            let message = format!("its checksum is {kind}:{found}, expected was {}", self.checksum);
            return Err(Error::new(ErrorKind::Untrusted, message).with("bytes", self.size_bytes));
        }
        // Whoever a step runs as reads it, and nobody writes it.
        self.file.set_permissions(Permissions::from_mode(0o444)).await.map_err(failed)?;
        Ok(Taken { path: self.path, sha256, size_bytes: self.size_bytes })
    }
}

/// What a file on the disk is.
pub(super) enum Present {
    /// There is none.
    Missing,
    /// It has another checksum than its name says.
    Wrong,
    /// It is what its name says.
    Right { sha256: String, size_bytes: u64 },
}

/// Reads a file and compares its checksum.
pub(super) fn examine(path: &Path, checksum: &SourceChecksum) -> Result<Present> {
    let failed = |e| Error::io("read", path, e);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Present::Missing),
        Err(error) => return Err(failed(error)),
    };
    let mut digests = Digests::new(checksum.algorithm());
    let (mut buffer, mut size_bytes) = (vec![0; limits::SOURCE_CHUNK_BYTES], 0_u64);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        digests.update(buffer.get(..count).unwrap_or_default());
        size_bytes += count as u64;
    }
    let (sha256, found) = digests.finish();
    Ok(if found == checksum.hex() { Present::Right { sha256, size_bytes } } else { Present::Wrong })
}
