//! What a folder of source files holds.

use std::fs::{File, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::ignore::Ignored;
use crate::builder::SourceRules;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// A regular file below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFile {
    /// Its path below the folder, its parts joined by `/`.
    pub path: String,
    /// Whether anybody may execute it.
    pub is_executable: bool,
    /// Its size in bytes when it was listed.
    pub size_bytes: u64,
}

impl SourceFile {
    /// The mode that it has in workspaces and archives.
    pub fn mode(&self) -> u32 {
        if self.is_executable { 0o755 } else { 0o644 }
    }

    /// Opens it, in the folder that was listed.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(&self, folder: &Path) -> Result<File> {
        let path = folder.join(&self.path);
        // Whoever owns the folder may have put something else there since: a link is not followed, and nothing waits for the
        // other end of a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, OFlags::RDONLY | flags, Mode::empty());
        let file = File::from(opened.map_err(|e| Error::io("open", &path, e.into()))?);
        if file.metadata().map_err(|e| Error::io("open", &path, e))?.is_file() {
            return Ok(file);
        }
        Err(Error::new(ErrorKind::Unsupported, format!("{} is no regular file any more", path.display())))
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceList {
    /// Its files, sorted by path.
    pub files: Vec<SourceFile>,
    /// How many links were left out, and what else the rules leave out like them.
    pub links: usize,
    /// How many files were left out as [`IGNORE_FILE`](super::IGNORE_FILE) says.
    pub ignored: usize,
}

impl SourceList {
    /// The size of all files together in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }
}

/// Lists the files below a folder, which may be a link; one that does not exist holds nothing.
///
/// # Errors
/// `InvalidRequest` for patterns of files to leave out that are none; `Unsupported` for what is no file, folder or link, and for names that are no UTF-8; `LimitExceeded` for more than
/// [`limits::SOURCE_FILES_MAX`] entries and paths longer than [`limits::SOURCE_PATH_BYTES_MAX`]; the disk's.
pub fn list(folder: &Path) -> Result<SourceList> {
    list_by(folder, &SourceRules::default())
}

/// The same by rules.
///
/// # Errors
/// As [`list`], less what the rules leave out.
pub fn list_by(folder: &Path, rules: &SourceRules) -> Result<SourceList> {
    let mut list = SourceList::default();
    if !folder.exists() {
        return Ok(list);
    }
    let ignored = Ignored::of(folder)?;
    // What does not exist is not there to be left out.
    let except: Vec<PathBuf> = rules.except.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let place = folder.canonicalize().map_err(|e| Error::io("find", folder, e))?;
    let (mut seen, mut bytes, mut waiting) = (0usize, 0usize, vec![PathBuf::new()]);
    while let Some(below) = waiting.pop() {
        let here = folder.join(&below);
        let entries = match std::fs::read_dir(&here) {
            Err(_) if rules.skip_special && !below.as_os_str().is_empty() => {
                list.links += 1;
                continue;
            }
            entries => entries.map_err(|e| Error::io("list", &here, e))?,
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", &here, e))?;
            let path = entry.path();
            seen += 1;
            bytes = bytes.saturating_add(path.as_os_str().len() - folder.as_os_str().len());
            if seen > limits::SOURCE_FILES_MAX {
                return Err(too_many(folder, &format!("{} files and folders", limits::SOURCE_FILES_MAX)));
            }
            if bytes > limits::SOURCE_PATHS_BYTES_MAX {
                return Err(too_many(folder, &format!("{} bytes of paths", limits::SOURCE_PATHS_BYTES_MAX)));
            }
            if !except.is_empty() && except.contains(&place.join(&below).join(entry.file_name())) {
                list.ignored += 1;
                continue;
            }
            // Of a link it is what the link is.
            let meta = entry.metadata().map_err(|e| Error::io("read", &path, e))?;
            let name = below.join(entry.file_name());
            let is_special = !meta.is_symlink() && !meta.is_dir() && !meta.is_file();
            if meta.is_symlink() || rules.skip_special && is_special {
                list.links += 1;
            } else if meta.is_dir() {
                waiting.push(name);
            } else if ignored.fits(&name.to_string_lossy()) {
                list.ignored += 1;
            } else if meta.is_file() {
                list.files.push(SourceFile {
                    path: path_text(&name, folder)?,
                    is_executable: meta.permissions().mode() & 0o111 != 0,
                    size_bytes: meta.len(),
                });
            } else {
                return Err(special(&path, meta.file_type()));
            }
        }
    }
    list.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(list)
}

/// A path as text, if archives and workspaces take it.
fn path_text(name: &Path, folder: &Path) -> Result<String> {
    let text = name.to_str().ok_or_else(|| {
        let message = format!("the name of {:?} is not UTF-8", folder.join(name));
        Error::new(ErrorKind::Unsupported, message).hint("rename it")
    })?;
    if text.len() > limits::SOURCE_PATH_BYTES_MAX {
        let bound = limits::SOURCE_PATH_BYTES_MAX;
        let message = format!("a path below {} has more than {bound} bytes: {text}", folder.display());
        return Err(Error::new(ErrorKind::LimitExceeded, message).hint("nest the folders less deeply"));
    }
    Ok(text.to_owned())
}

fn too_many(folder: &Path, what: &str) -> Error {
    let message = format!("{} holds more than {what}", folder.display());
    Error::new(ErrorKind::LimitExceeded, message)
        .hint("keep only what the build needs there, and let the definition fetch the rest")
}

fn special(path: &Path, kind: FileType) -> Error {
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "no file, folder or link",
    };
    let message = format!("{} is {what}, which has no content that a build could have", path.display());
    Error::new(ErrorKind::Unsupported, message).hint("remove it from the folder of source files")
}
