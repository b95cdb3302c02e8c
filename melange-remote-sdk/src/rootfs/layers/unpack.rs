//! Unpacking the data section of a package as a tree of its own.
//!
//! Nothing is written through a link: a package whose entries lie behind links of its own, or that has more than
//! folders, files and links, is no layer.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, futimens, utimensat};
use sha1::{Digest, Sha1};

use super::{LayerEntry, LayerKind};
use crate::apk::reader::ApkFile;
use crate::apk::tar_reader::{RawEntry, TarReader};
use crate::apk::tar_writer::EntryType;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Longer names may not fit into a path of the machine's behind that of the state folder.
const NAME_BYTES_MAX: usize = 1_024;
/// The longest name that file systems take.
const PART_BYTES_MAX: usize = 255;
/// What one read of a file takes; small files take one.
const BUFFER_BYTES: usize = 256 << 10;

/// Unpacks the data section into the empty folder `tree` and verifies it; `None` for a package that is no layer.
///
/// # Errors
/// `Untrusted` for damage, `LimitExceeded` beyond what a root filesystem may have, and the disk's.
pub(super) fn unpack(apk: &ApkFile, tree: &Path) -> Result<Option<Vec<LayerEntry>>> {
    let damaged = |e: io::Error| Error::new(ErrorKind::Untrusted, "the package's data is damaged").source(e);
    let mut reader = TarReader::new(apk.data()?);
    let mut unpacking = Unpacking {
        tree,
        entries: Vec::new(),
        kinds: HashMap::new(),
        bytes: 0,
        buffer: vec![0; BUFFER_BYTES],
        is_root: rustix::process::geteuid().is_root(),
    };
    let mut begun = false;
    while let Some(entry) = reader.next().map_err(damaged)? {
        let Ok(name) = std::str::from_utf8(&entry.name) else { return Ok(None) };
        let name = name.trim_start_matches("./").trim_matches('/');
        // Control files of old packages may lead the data.
        if !begun && name.starts_with('.') && !name.contains('/') {
            continue;
        }
        begun = true;
        if name.is_empty() {
            continue;
        }
        if !unpacking.put(name, &entry, &mut reader.content())? {
            return Ok(None);
        }
    }
    reader.finish().map_err(damaged)?.finish()?;
    unpacking.finish().map(Some)
}

struct Unpacking<'a> {
    tree: &'a Path,
    entries: Vec<LayerEntry>,
    kinds: HashMap<String, LayerKind>,
    bytes: u64,
    buffer: Vec<u8>,
    is_root: bool,
}

fn is_plain(name: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= PART_BYTES_MAX;
    name.len() <= NAME_BYTES_MAX && !name.contains('\0') && name.split('/').all(is_part)
}

/// Whether this process can read what it has unpacked, with the mode that the package gives it: an archive may need it.
fn may_be_read(entry: &RawEntry, is_root: bool) -> bool {
    let needed = match entry.kind {
        EntryType::Directory => 0o500,
        EntryType::File => 0o400,
        _ => 0,
    };
    is_root || entry.mode & needed == needed
}

impl Unpacking<'_> {
    /// Puts an entry into the tree; whether it could.
    fn put(&mut self, name: &str, entry: &RawEntry, content: &mut dyn Read) -> Result<bool> {
        if !is_plain(name)
            || !may_be_read(entry, self.is_root)
            || self.kinds.contains_key(name)
            || entry.xattrs().next().is_some()
            || !self.make_parents(name)?
        {
            return Ok(false);
        }
        let Ok(link) = std::str::from_utf8(&entry.link) else { return Ok(false) };
        let mut made = LayerEntry {
            name: name.to_owned(),
            kind: LayerKind::Directory,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            size: 0,
            link: String::new(),
            sha1: String::new(),
            implied: false,
        };
        let path = self.tree.join(name);
        let failed = |e: io::Error| Error::io("unpack", &path, e);
        match entry.kind {
            EntryType::Directory => std::fs::create_dir(&path).map_err(failed)?,
            EntryType::File => {
                made.kind = LayerKind::File;
                made.size = entry.size;
                made.sha1 = self.write(&path, name, entry, content)?;
            }
            EntryType::Symlink => {
                if link.is_empty() || link.contains('\0') {
                    return Ok(false);
                }
                made.kind = LayerKind::Symlink;
                link.clone_into(&mut made.link);
                symlink(link, &path).map_err(failed)?;
                set_time(&path, entry.mtime).map_err(failed)?;
            }
            EntryType::HardLink => {
                let target = link.trim_start_matches("./");
                // Of a file's first name, so that nobody has to look where it leads.
                if self.kinds.get(target) != Some(&LayerKind::File) {
                    return Ok(false);
                }
                made.kind = LayerKind::HardLink;
                target.clone_into(&mut made.link);
                std::fs::hard_link(self.tree.join(target), &path).map_err(failed)?;
            }
            _ => return Ok(false),
        }
        self.keep(made)?;
        Ok(true)
    }

    fn keep(&mut self, made: LayerEntry) -> Result<()> {
        self.kinds.insert(made.name.clone(), made.kind);
        self.entries.push(made);
        if self.entries.len() > limits::TREE_ENTRIES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the root filesystem is too large"));
        }
        Ok(())
    }

    /// Makes the folders above a name; whether nothing else stands there.
    fn make_parents(&mut self, name: &str) -> Result<bool> {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        match self.kinds.get(parent) {
            Some(kind) => return Ok(*kind == LayerKind::Directory),
            None if parent.is_empty() => return Ok(true),
            None => {}
        }
        for end in parent.match_indices('/').map(|(at, _)| at).chain([parent.len()]) {
            let Some(folder) = parent.get(..end) else { return Ok(false) };
            match self.kinds.get(folder) {
                Some(LayerKind::Directory) => {}
                Some(_) => return Ok(false),
                None => {
                    let path = self.tree.join(folder);
                    std::fs::create_dir(&path).map_err(|e| Error::io("unpack", &path, e))?;
                    self.keep(LayerEntry {
                        name: folder.to_owned(),
                        kind: LayerKind::Directory,
                        mode: 0o755,
                        uid: 0,
                        gid: 0,
                        mtime: 0,
                        size: 0,
                        link: String::new(),
                        sha1: String::new(),
                        implied: true,
                    })?;
                }
            }
        }
        Ok(true)
    }

    /// Writes a file and returns the checksum of its content, which is compared with the one that the package records.
    fn write(&mut self, path: &Path, name: &str, entry: &RawEntry, content: &mut dyn Read) -> Result<String> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > limits::ROOTFS_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the root filesystem is too large"));
        }
        let failed = |e: io::Error| Error::io("unpack", path, e);
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let mut hasher = Sha1::new();
        loop {
            let read = content.read(&mut self.buffer).map_err(|e| {
                Error::new(ErrorKind::Untrusted, format!("{name} cannot be unpacked")).source(e)
            })?;
            let bytes = self.buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            file.write_all(bytes).map_err(failed)?;
        }
        let sum = hex::encode(hasher.finalize());
        if let Some(recorded) = entry.records.get("APK-TOOLS.checksum.SHA1")
            && recorded.as_slice() != sum.as_bytes()
        {
            let message = format!("{name} does not have its recorded checksum");
            return Err(Error::new(ErrorKind::Untrusted, message));
        }
        file.set_permissions(Permissions::from_mode(entry.mode & 0o7777)).map_err(failed)?;
        futimens(&file, &times(entry.mtime)).map_err(|e| failed(e.into()))?;
        Ok(sum)
    }

    /// Gives the folders their modes and times, which what is put into them would change.
    fn finish(self) -> Result<Vec<LayerEntry>> {
        let folders = self.entries.iter().rev().filter(|entry| entry.kind == LayerKind::Directory);
        for entry in folders {
            let path = self.tree.join(&entry.name);
            let failed = |e: io::Error| Error::io("unpack", &path, e);
            std::fs::set_permissions(&path, Permissions::from_mode(entry.mode & 0o777)).map_err(failed)?;
            set_time(&path, entry.mtime).map_err(failed)?;
        }
        Ok(self.entries)
    }
}

fn times(seconds: u64) -> Timestamps {
    let tv_sec = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec, tv_nsec: 0 },
    }
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    Ok(utimensat(CWD, path, &times(seconds), AtFlags::SYMLINK_NOFOLLOW)?)
}
