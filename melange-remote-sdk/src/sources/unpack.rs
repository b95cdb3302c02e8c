//! From an archive to a folder. Archives come from anybody: nothing of one is trusted.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::apk::tar_reader::{RawEntry, TarReader};
use crate::apk::tar_writer::EntryType;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceSummary {
    /// How many files.
    pub files: usize,
    /// Their size together, in bytes.
    pub size_bytes: u64,
}

/// Reads an archive to its end and keeps nothing of it.
///
/// # Errors
/// `InvalidRequest` for what is no archive of source files; `LimitExceeded`; the reader's.
pub fn check(archive: impl Read) -> Result<SourceSummary> {
    read(archive, &mut |_, _, _| Ok(()))
}

/// Unpacks an archive into a folder, which must be empty and nobody else's. When it fails, what was unpacked so far is
/// left there.
///
/// # Errors
/// As [`check`]; the disk's.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<SourceSummary> {
    read(archive, &mut |path, mode, content| {
        let to = folder.join(path);
        let failed = |e| Error::io("write", &to, e);
        if let Some(parent) = to.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
        }
        // Nothing that was there is written to or followed.
        let file = File::options().write(true).create_new(true).mode(mode).open(&to).map_err(failed)?;
        let mut file = BufWriter::new(file);
        copy(content, &mut file, path, &to)?;
        file.flush().map_err(failed)
    })
}

/// What becomes of one file: its path below the folder, its mode, its content.
type Take<'a> = &'a mut dyn FnMut(&str, u32, &mut dyn Read) -> Result<()>;

fn read(archive: impl Read, take: Take<'_>) -> Result<SourceSummary> {
    // One more than there may be, so that an archive that is too long is told from one that ends there.
    let mut tar = TarReader::new(archive.take(limits::SOURCE_ARCHIVE_BYTES_MAX + 1));
    let (mut names, mut summary) = (Names::default(), SourceSummary::default());
    while let Some(entry) = tar.next().map_err(broken)? {
        let name = entry.name_lossy();
        let path = plain_path(&entry)?;
        match entry.kind {
            EntryType::Directory if path.is_empty() => {}
            EntryType::Directory => names.folder(&path)?,
            EntryType::File if entry.records.keys().any(|key| key.starts_with("GNU.sparse")) => {
                return Err(refused(&name, "is a sparse file"));
            }
            EntryType::File => {
                names.file(&path)?;
                summary.files += 1;
                summary.size_bytes = summary.size_bytes.saturating_add(entry.size);
                if summary.size_bytes > limits::SOURCE_ARCHIVE_BYTES_MAX {
                    return Err(too_large());
                }
                let mode = if entry.mode & 0o111 != 0 { 0o755 } else { 0o644 };
                take(&path, mode, &mut tar.content())?;
            }
            EntryType::Symlink | EntryType::HardLink => return Err(refused(&name, "is a link")),
            EntryType::CharDevice | EntryType::BlockDevice => return Err(refused(&name, "is a device")),
            EntryType::Fifo => return Err(refused(&name, "is a named pipe")),
        }
    }
    let rest = tar.finish().map_err(broken)?;
    if rest.limit() == 0 { Err(too_large()) } else { Ok(summary) }
}

/// The names of an archive so far: each stands for one file or one folder.
#[derive(Default)]
pub(super) struct Names {
    is_folder: BTreeMap<String, bool>,
    bytes: usize,
}

impl Names {
    pub(super) fn file(&mut self, path: &str) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        if self.is_folder.contains_key(path) {
            return Err(refused(path, "is there twice"));
        }
        self.add(path, false)
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        let mut above = Some(path);
        while let Some(folder) = above {
            match self.is_folder.get(folder) {
                // What lies above it is known too.
                Some(true) => return Ok(()),
                Some(false) => return Err(refused(folder, "is a file and a folder")),
                None => self.add(folder, true)?,
            }
            above = folder.rsplit_once('/').map(|(parent, _)| parent);
        }
        Ok(())
    }

    fn add(&mut self, path: &str, is_folder: bool) -> Result<()> {
        self.bytes = self.bytes.saturating_add(path.len());
        self.is_folder.insert(path.to_owned(), is_folder);
        let too_many = |what: &str| {
            let message = format!("the archive has more than {what}");
            Err(Error::new(ErrorKind::LimitExceeded, message).hint("keep only what the build needs"))
        };
        if self.is_folder.len() > limits::SOURCE_FILES_MAX {
            return too_many(&format!("{} files and folders", limits::SOURCE_FILES_MAX));
        }
        if self.bytes > limits::SOURCE_PATHS_BYTES_MAX {
            return too_many(&format!("{} bytes of paths", limits::SOURCE_PATHS_BYTES_MAX));
        }
        Ok(())
    }
}

/// The path of an entry below the folder, without the `./` that some tools begin it with.
fn plain_path(entry: &RawEntry) -> Result<String> {
    let lossy = entry.name_lossy();
    let text = std::str::from_utf8(&entry.name).map_err(|_| refused(&lossy, "is not UTF-8"))?;
    if text.len() > limits::SOURCE_PATH_BYTES_MAX {
        let bound = limits::SOURCE_PATH_BYTES_MAX;
        let message = format!("a path of the archive has more than {bound} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    if text.starts_with('/') {
        return Err(refused(text, "begins with a slash"));
    }
    if text.contains('\0') {
        return Err(refused(text, "holds a zero byte"));
    }
    let mut parts = Vec::new();
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(refused(text, "leads out of its folder"));
        }
        if part.len() > limits::SOURCE_NAME_BYTES_MAX {
            let bound = limits::SOURCE_NAME_BYTES_MAX;
            let message = format!("a name in the archive has more than {bound} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        parts.push(part);
    }
    if parts.is_empty() && entry.kind != EntryType::Directory {
        return Err(refused(text, "is no name"));
    }
    Ok(parts.join("/"))
}

/// Refuses a path that would have another form in an archive, or lead out of its folder.
pub(super) fn check_plain(path: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!("{path:?} {why}")).hint("a path is relative, such as `patches/fix.patch`"))
    };
    if path.len() > limits::SOURCE_PATH_BYTES_MAX {
        return refuse("is too long for the path of a source file");
    }
    if path.contains('\0') {
        return refuse("holds a zero byte");
    }
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") {
            return refuse("is not a plain path: it holds an empty part, `.` or `..`");
        }
        if part.len() > limits::SOURCE_NAME_BYTES_MAX {
            return refuse("holds a name that is too long");
        }
    }
    Ok(())
}

/// Copies content, whose errors are the archive's, to a file, whose errors are the disk's.
fn copy(content: &mut dyn Read, file: &mut impl Write, path: &str, to: &Path) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = content.read(&mut buffer).map_err(|e| broken(e).with("file", format!("{path:?}")))?;
        if read == 0 {
            return Ok(());
        }
        let part = buffer.get(..read).unwrap_or_default();
        file.write_all(part).map_err(|e| Error::io("write", to, e))?;
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::invalid(format!("{name:?} in the archive {why}"))
        .hint("pack plain files with plain relative paths, each once")
}

fn too_large() -> Error {
    let bound = limits::SOURCE_ARCHIVE_BYTES_MAX;
    Error::new(ErrorKind::LimitExceeded, format!("the archive has more than {bound} bytes"))
        .hint("keep only what the build needs, and let the definition fetch the rest")
}

/// What was read is no archive, or cannot be read.
fn broken(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::InvalidData {
        Error::invalid("this is no archive of source files").source(error).hint("send a plain tar")
    } else {
        Error::unexpected("an archive of source files cannot be read").source(error)
    }
}
