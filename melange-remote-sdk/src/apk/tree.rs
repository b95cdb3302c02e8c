//! A file tree read from a tar: metadata in memory, contents left where they are.
//!
//! What a guest leaves behind arrives this way from both builders, so nothing is ever unpacked to the engine's
//! disk: owners need no privileges, and hostile names have nowhere to go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::tar_reader::{RawEntry, TarReader};
use super::tar_writer::EntryType;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device with major and minor number.
    CharDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the tar that the tree was read from.
    Stored {
        /// Where they begin.
        offset: u64,
        /// How many.
        size: u64,
    },
    /// In memory.
    Made(Arc<[u8]>),
}

impl Content {
    /// How many bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Stored { size, .. } => *size,
            Self::Made(bytes) => bytes.len() as u64,
        }
    }
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// What it is.
    pub kind: EntryKind,
    /// The 12 mode bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// A tree: entries by relative path, sorted bytewise part by part.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    file: Option<Arc<File>>,
    entries: BTreeMap<TreePath, TreeEntry>,
}

/// A relative path that sorts directories before their content and siblings by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<String>);

impl TreePath {
    /// Reads `a/b/c`; leading `/` and `./` are dropped.
    ///
    /// # Errors
    /// `InvalidRequest` for `..`, NUL, and paths or parts that are too long.
    pub fn parse(path: &str) -> Result<Self> {
        if path.len() > limits::TREE_PATH_BYTES_MAX || path.contains('\0') {
            return Err(Error::invalid(format!("the path {path:.60?}… is too long or holds a NUL")));
        }
        let parts: Vec<String> =
            path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect();
        if parts.iter().any(|part| part == "..") {
            return Err(Error::invalid(format!("the path {path:?} leaves its tree")));
        }
        Ok(Self(parts))
    }

    /// The path with `/` between its parts.
    pub fn joined(&self) -> String {
        self.0.join("/")
    }

    /// The parts.
    pub fn parts(&self) -> &[String] {
        &self.0
    }
}

impl Tree {
    /// Reads the tar file at `path`.
    ///
    /// # Errors
    /// `InvalidRequest` for hostile entries, `LimitExceeded` for too many, `Unexpected` for a broken archive.
    pub fn read_tar(path: &Path) -> Result<Self> {
        Self::from_tar(File::open(path).map_err(|e| Error::io("open", path, e))?, path)
    }

    /// As [`Self::read_tar`] from an open file, which may have no name any more; `path` is what it is called.
    ///
    /// # Errors
    /// As [`Self::read_tar`].
    pub fn from_tar(file: File, path: &Path) -> Result<Self> {
        let broken = |e: io::Error| Error::io("read the archive", path, e);
        let file = Arc::new(file);
        let size = file.metadata().map_err(broken)?.len();
        // Whole, from its beginning, wherever the file's own position is.
        let whole =
            ContentReader { file: Some(Arc::clone(&file)), bytes: Arc::from([]), begin: 0, size, at: 0 };
        let mut tree = Self { file: Some(file), entries: BTreeMap::new() };
        let mut reader = TarReader::new(std::io::BufReader::with_capacity(1 << 20, whole));
        while let Some(entry) = reader.next().map_err(broken)? {
            tree.add_tar_entry(&entry)?;
            if tree.entries.len() > limits::TREE_ENTRIES_MAX {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!("more than {} files", limits::TREE_ENTRIES_MAX),
                ));
            }
        }
        Ok(tree)
    }

    fn add_tar_entry(&mut self, entry: &RawEntry) -> Result<()> {
        let name = utf8(&entry.name)?;
        let path = TreePath::parse(&name)?;
        let id = |id: u64| {
            u32::try_from(id).map_err(|_| Error::invalid("an owner's id is too large").with("entry", &name))
        };
        let kind = match entry.kind {
            EntryType::Directory => EntryKind::Directory,
            EntryType::File => EntryKind::File(Content::Stored { offset: entry.offset, size: entry.size }),
            EntryType::Symlink => EntryKind::Symlink(utf8(&entry.link)?),
            EntryType::CharDevice => EntryKind::CharDevice(entry.device.0, entry.device.1),
            EntryType::Fifo => EntryKind::Fifo,
            // Block devices become empty files, as upstream writes them.
            EntryType::BlockDevice => EntryKind::File(Content::Made(Arc::from([]))),
            EntryType::HardLink => {
                let target = utf8(&entry.link)?;
                let linked = self.entries.get(&TreePath::parse(&target)?).cloned().ok_or_else(|| {
                    Error::invalid(format!("the hard link {name} refers to {target}, which is not before it"))
                })?;
                self.entries.insert(path, linked);
                return Ok(());
            }
        };
        if !path.0.is_empty() {
            let xattrs = entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let (uid, gid) = (id(entry.uid)?, id(entry.gid)?);
            self.entries.insert(path, TreeEntry { kind, mode: entry.mode, uid, gid, xattrs });
        }
        Ok(())
    }

    /// The tree below `folder`, with paths relative to it.
    pub fn subtree(&self, folder: &str) -> Self {
        let entries = self
            .entries
            .iter()
            .filter(|(path, _)| path.0.len() > 1 && path.0[0] == folder)
            .map(|(path, entry)| (TreePath(path.0[1..].to_vec()), entry.clone()))
            .collect();
        Self { file: self.file.clone(), entries }
    }

    /// Adds a file with content of its own, and the directories above it.
    ///
    /// # Errors
    /// As [`TreePath::parse`].
    pub fn add_file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let path = TreePath::parse(path)?;
        let plain = |kind, mode| TreeEntry { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new() };
        for depth in 1..path.0.len() {
            let parent = TreePath(path.0[..depth].to_vec());
            self.entries.entry(parent).or_insert_with(|| plain(EntryKind::Directory, 0o755));
        }
        self.entries.insert(path, plain(EntryKind::File(Content::Made(Arc::from(bytes))), mode));
        Ok(())
    }

    /// Paths and entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &TreeEntry)> {
        self.entries.iter()
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.entries.get(&TreePath::parse(path).ok()?)
    }

    /// The entry at `path`, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut TreeEntry> {
        self.entries.get_mut(&TreePath::parse(path).ok()?)
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A reader of a file's bytes.
    pub fn open(&self, content: &Content) -> ContentReader {
        match content {
            Content::Stored { offset, size } => ContentReader {
                file: self.file.clone(),
                bytes: Arc::from([]),
                begin: *offset,
                size: *size,
                at: 0,
            },
            Content::Made(bytes) => {
                let size = bytes.len() as u64;
                ContentReader { file: None, bytes: Arc::clone(bytes), begin: 0, size, at: 0 }
            }
        }
    }

    /// All bytes of a file, at most `bytes_max` of them.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self, content: &Content, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(content).take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn utf8(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the file name {:?} is not UTF-8", String::from_utf8_lossy(bytes)),
        )
        .hint("rename the file in a step")
        .source(e)
    })
}

/// Reads the bytes of one file of a tree; independent of other readers.
#[derive(Debug)]
pub struct ContentReader {
    file: Option<Arc<File>>,
    bytes: Arc<[u8]>,
    /// Where the content begins in the file.
    begin: u64,
    size: u64,
    /// The position within the content.
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match &self.file {
            Some(file) => file.read_at(&mut buffer[..want], self.begin + self.at)?,
            None => {
                let at = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.bytes.len());
                (&self.bytes[at..]).read(&mut buffer[..want])?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for ContentReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_depth_first_with_siblings_by_bytes() {
        let mut tree = Tree::default();
        for path in ["b/x", "a.txt", "a/z", "a/b/c"] {
            tree.add_file(path, 0o644, b"").unwrap();
        }
        let paths: Vec<String> = tree.iter().map(|(path, _)| path.joined()).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/z", "a.txt", "b", "b/x"]);
        assert!(TreePath::parse("a/../b").is_err());
    }
}
