//! The root filesystem: packages laid one over another in an empty tree, then written as one tar.
//!
//! Contents pass through a spool file; the tree itself is names and metadata. Rules of conflict, ownership and
//! links are apko's: everything belongs to root, parents may be symbolic links, scripts never run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::repository::verified;
use super::{Rootfs, database, finish};
use crate::apk::checksum::{self, HashingWriter, Sha1Bytes};
use crate::apk::index::IndexPackage;
use crate::apk::pkginfo::PkgInfo;
use crate::apk::reader::ApkFile;
use crate::apk::signature::Keyring;
use crate::apk::tar_reader::{RawEntry, TarReader};
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::apk::writer::AccountNames;
use crate::arch::Arch;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::Blob;
use crate::limits;
use crate::melange::plan::PlanEnvironment;

/// Everything that goes into a root filesystem.
pub(super) struct Input {
    pub(super) arch: Arch,
    /// Package files with their index records, in installation order.
    pub(super) packages: Vec<(PathBuf, IndexPackage)>,
    pub(super) repositories: Vec<String>,
    pub(super) world: Vec<String>,
    pub(super) keyring: Keyring,
    pub(super) environment: PlanEnvironment,
}

/// What stands beside a cached root filesystem.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) sha256: String,
    pub(super) size_bytes: u64,
    pub(super) passwd: String,
    pub(super) group: String,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    File { offset: u64, size: u64 },
    Symlink(String),
    HardLink(String),
}

/// A name of the tree.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) sha1: Option<Sha1Bytes>,
    /// The package that owns it, by position; `None` for what the assembly made.
    pub(super) owner: Option<usize>,
}

/// An installed package with the files that it still owns.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) info: PkgInfo,
    pub(super) size_bytes: u64,
    pub(super) control_sha1: Sha1Bytes,
    pub(super) scripts: BTreeMap<String, (u32, Vec<u8>)>,
    /// Path, kind, mode, owner and SHA-1 as the package lists them.
    pub(super) listed: Vec<Listed>,
    /// What another package took over.
    lost: BTreeSet<String>,
}

/// A file as its package lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) directory: bool,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) sha1: Option<Sha1Bytes>,
}

/// The tree under assembly.
pub(super) struct Assembly {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) installed: Vec<Installed>,
    spool: BufWriter<File>,
    spooled: u64,
    kept_bytes: usize,
}

/// Assembles and writes `path` with its description beside it.
pub(super) fn write(input: &Input, path: &Path) -> Result<Rootfs> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let spool = tempfile::tempfile_in(folder).map_err(|e| Error::io("create a spool in", folder, e))?;
    let mut assembly = Assembly {
        nodes: BTreeMap::new(),
        installed: Vec::new(),
        spool: BufWriter::with_capacity(1 << 20, spool),
        spooled: 0,
        kept_bytes: 0,
    };
    assembly.initial(input)?;
    for (path, package) in &input.packages {
        // The data is compared with its digest as it is installed.
        let apk = verified(ApkFile::open_control(path)?, package)?;
        assembly.install(&apk).map_err(|e| e.with("package", package.file_name()))?;
    }
    for installed in &mut assembly.installed {
        let lost = std::mem::take(&mut installed.lost);
        installed.listed.retain(|listed| !lost.contains(&listed.path));
    }
    database::write(&mut assembly, input)?;
    let (passwd, group) = finish::finish(&mut assembly, input)?;
    let (blob, names) = assembly.write_tar(path, &passwd, &group)?;
    Ok(Rootfs { blob, names, cached: false, _held: None })
}

/// The folder of a path, and its last part.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Assembly {
    fn initial(&mut self, input: &Input) -> Result<()> {
        for (path, mode) in [
            ("tmp", 0o1777),
            ("dev", 0o755),
            ("etc", 0o755),
            ("opt", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
            ("var", 0o755),
            ("usr", 0o755),
            ("etc/apk", 0o755),
            ("etc/apk/keys", 0o755),
            ("usr/lib", 0o755),
            ("usr/lib/apk", 0o755),
            ("usr/lib/apk/db", 0o755),
            ("usr/lib/apk/exec", 0o755),
            ("var/cache", 0o755),
            ("var/cache/apk", 0o755),
            ("var/cache/misc", 0o755),
        ] {
            self.nodes.insert(path.to_owned(), directory(mode));
        }
        for (name, pem) in input.keyring.iter() {
            self.put_file(&format!("etc/apk/keys/{name}"), 0o644, pem)?;
        }
        Ok(())
    }

    /// Adds a file that the assembly makes; parents are created, an existing file is replaced.
    pub(super) fn put_file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let path = self.place(path, 0o755)?;
        self.refuse_folder(&path)?;
        let offset = self.spooled;
        self.spool.write_all(bytes).map_err(|e| Error::unexpected("cannot write the spool").source(e))?;
        self.spooled += bytes.len() as u64;
        let kind = NodeKind::File { offset, size: bytes.len() as u64 };
        self.nodes.insert(path, Node { sha1: Some(checksum::sha1(bytes)), ..node(kind, mode) });
        Ok(())
    }

    /// Adds a second name of an existing one; what has the name already is replaced.
    pub(super) fn put_hard_link(&mut self, path: &str, target: &str) -> Result<()> {
        let missing =
            || Error::invalid(format!("the hard link {path} refers to {target}, which does not exist"));
        let real = self.follow(target)?.ok_or_else(missing)?;
        let linked = self.nodes.get(&real).cloned().ok_or_else(missing)?;
        let path = self.place(path, 0o755)?;
        self.refuse_folder(&path)?;
        if linked.kind == NodeKind::Directory {
            return Err(Error::invalid(format!(
                "the hard link {path} refers to {target}, which is a folder"
            )));
        }
        if path != real {
            self.nodes.insert(path, Node { kind: NodeKind::HardLink(real), ..linked });
        }
        Ok(())
    }

    /// What takes a folder's name would have the folder's content behind it.
    fn refuse_folder(&self, path: &str) -> Result<()> {
        match self.nodes.get(path).map(|node| &node.kind) {
            Some(NodeKind::Directory) => {
                Err(conflict(format!("{path} is a folder, and something else takes its name")))
            }
            _ => Ok(()),
        }
    }

    /// Adds a link that the assembly makes unless something is there.
    pub(super) fn put_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let path = self.place(path, 0o755)?;
        self.nodes.entry(path).or_insert_with(|| node(NodeKind::Symlink(target.to_owned()), 0o777));
        Ok(())
    }

    /// Adds a directory that the assembly makes; an existing one keeps its mode.
    pub(super) fn put_directory(&mut self, path: &str, mode: u32, uid: u32, gid: u32) -> Result<String> {
        let path = self.place(path, 0o755)?;
        let made = Node { uid, gid, ..directory(mode) };
        self.nodes.entry(path.clone()).or_insert(made);
        Ok(path)
    }

    /// All bytes of a file of the tree, links followed; `None` when there is none.
    pub(super) fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(real) = self.follow(path)? else { return Ok(None) };
        let Some(NodeKind::File { offset, size }) = self.nodes.get(&real).map(|node| node.kind.clone())
        else {
            return Ok(None);
        };
        self.read_range(offset, size).map(Some)
    }

    /// A reader of a file of the tree.
    pub(super) fn window(&mut self, begin: u64, size: u64) -> Result<SpoolReader<'_>> {
        self.spool.flush().map_err(|e| Error::unexpected("cannot write the spool").source(e))?;
        Ok(SpoolReader { spool: self.spool.get_ref(), begin, size, at: 0 })
    }

    pub(super) fn read_range(&mut self, offset: u64, size: u64) -> Result<Vec<u8>> {
        let failed = |e: io::Error| Error::unexpected("cannot read the spool").source(e);
        self.spool.flush().map_err(failed)?;
        let mut bytes =
            vec![0; usize::try_from(size).map_err(|e| Error::unexpected("a file is too large").source(e))?];
        self.spool.get_ref().read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    /// The real path of an existing name, every link followed; `None` when it does not exist.
    pub(super) fn follow(&self, path: &str) -> Result<Option<String>> {
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut real = String::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real = split(&real).0.to_owned();
                    continue;
                }
                _ => {}
            }
            let next = if real.is_empty() { part } else { format!("{real}/{part}") };
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(NodeKind::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(Error::invalid("too many symbolic links").with("path", path));
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(NodeKind::HardLink(target)) => real.clone_from(target),
                Some(_) => real = next,
                None => return Ok(None),
            }
        }
        Ok(Some(real))
    }

    /// Where a name goes: links in its folder followed, missing folders made with `mode`.
    fn place(&mut self, path: &str, mode: u32) -> Result<String> {
        let path = path.trim_start_matches('/');
        let (folder, base) = split(path);
        if base.is_empty() || matches!(base, "." | "..") || path.len() > limits::TREE_PATH_BYTES_MAX {
            return Err(Error::invalid(format!("the path {path:.80?} cannot be installed")));
        }
        let mut real = String::new();
        for part in folder.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                return Err(Error::invalid(format!("the path {path:.80?} leaves its tree")));
            }
            let next = if real.is_empty() { part.to_owned() } else { format!("{real}/{part}") };
            match self.nodes.get(&next).map(|node| &node.kind) {
                None => {
                    self.nodes.insert(next.clone(), directory(mode));
                    real = next;
                }
                Some(NodeKind::Directory) => real = next,
                Some(NodeKind::Symlink(_)) => match self.follow(&next)? {
                    Some(target) if self.is_directory(&target) => real = target,
                    _ => {
                        return Err(conflict(format!(
                            "{path} lies behind the link {next}, which leads nowhere"
                        )));
                    }
                },
                Some(_) => return Err(conflict(format!("{path} lies below {next}, which is a file"))),
            }
        }
        Ok(if real.is_empty() { base.to_owned() } else { format!("{real}/{base}") })
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.nodes.get(path).is_some_and(|node| node.kind == NodeKind::Directory)
    }

    fn install(&mut self, apk: &ApkFile) -> Result<()> {
        let owner = self.installed.len();
        self.installed.push(Installed {
            info: apk.info.clone(),
            size_bytes: apk.size_bytes,
            control_sha1: apk.control_sha1,
            scripts: apk.scripts.clone(),
            listed: Vec::new(),
            lost: BTreeSet::new(),
        });
        let damaged =
            |e: io::Error| Error::new(ErrorKind::Untrusted, "the package's data is damaged").source(e);
        let mut reader = TarReader::new(apk.data()?);
        let mut begun = false;
        while let Some(entry) = reader.next().map_err(damaged)? {
            let name = std::str::from_utf8(&entry.name)
                .map_err(|e| Error::new(ErrorKind::Unsupported, "a file name is not UTF-8").source(e))?
                .trim_start_matches("./")
                .trim_matches('/')
                .to_owned();
            // Control files of old packages may lead the data.
            if !begun && name.starts_with('.') && !name.contains('/') {
                continue;
            }
            begun = true;
            if name.is_empty() {
                continue;
            }
            self.install_entry(&name, &entry, &mut reader, owner)?;
            if self.nodes.len() > limits::TREE_ENTRIES_MAX || self.spooled > limits::ROOTFS_BYTES_MAX {
                return Err(Error::new(ErrorKind::LimitExceeded, "the root filesystem is too large"));
            }
        }
        self.kept_bytes += reader.kept_bytes();
        if self.kept_bytes > limits::ROOTFS_KEPT_BYTES_MAX {
            let bound = limits::ROOTFS_KEPT_BYTES_MAX;
            let message = format!("the packages have more than {bound} bytes of names and attributes");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        reader.finish().map_err(damaged)?.finish()
    }

    fn install_entry<R: io::Read>(
        &mut self,
        name: &str,
        entry: &RawEntry,
        reader: &mut TarReader<R>,
        owner: usize,
    ) -> Result<()> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|e| Error::new(ErrorKind::Unsupported, "a link's target is not UTF-8").source(e))
        };
        let mut sha1 = None;
        match entry.kind {
            EntryType::Directory => self.install_directory(name, entry, owner)?,
            EntryType::File => sha1 = self.install_file(name, entry, reader, owner)?,
            EntryType::Symlink => {
                let target = text(&entry.link)?;
                let sum = checksum::sha1(target.as_bytes());
                let path = self.place(name, 0o755)?;
                if self.may_install(&path, &sum, owner)? {
                    let made = Node {
                        mtime: entry.mtime,
                        sha1: Some(sum),
                        owner: Some(owner),
                        ..node(NodeKind::Symlink(target), 0o777)
                    };
                    self.nodes.insert(path, made);
                    sha1 = Some(sum);
                }
            }
            EntryType::HardLink => {
                let target = text(&entry.link)?;
                let Some(real) = self.follow(target.trim_start_matches("./"))? else {
                    return Err(conflict(format!(
                        "the hard link {name} refers to {target}, which does not exist"
                    )));
                };
                let path = self.place(name, 0o755)?;
                if self.nodes.contains_key(&path) {
                    return Err(conflict(format!("the hard link {name} exists already")));
                }
                let linked = self.nodes.get(&real).cloned().unwrap_or_else(|| directory(0o755));
                sha1 = linked.sha1;
                self.nodes
                    .insert(path, Node { kind: NodeKind::HardLink(real), owner: Some(owner), ..linked });
            }
            _ => return Err(Error::new(ErrorKind::Unsupported, format!("{name} is a device or a pipe"))),
        }
        let directory = entry.kind == EntryType::Directory;
        if directory || sha1.is_some() {
            self.installed[owner].listed.push(Listed {
                path: name.to_owned(),
                directory,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                sha1,
            });
        }
        Ok(())
    }

    fn install_directory(&mut self, name: &str, entry: &RawEntry, owner: usize) -> Result<()> {
        let path = self.place(name, entry.mode & 0o777)?;
        match self.nodes.get(&path).map(|node| &node.kind) {
            None => {
                let xattrs = entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                let made =
                    Node { mtime: entry.mtime, xattrs, owner: Some(owner), ..directory(entry.mode & 0o777) };
                self.nodes.insert(path, made);
                Ok(())
            }
            Some(NodeKind::Directory) => Ok(()),
            Some(NodeKind::Symlink(_))
                if self.follow(&path)?.is_some_and(|real| self.is_directory(&real)) =>
            {
                Ok(())
            }
            Some(_) => Err(conflict(format!("the directory {name} is a file already"))),
        }
    }

    /// Spools the content, then decides; returns the checksum when the file is this package's now.
    fn install_file<R: io::Read>(
        &mut self,
        name: &str,
        entry: &RawEntry,
        reader: &mut TarReader<R>,
        owner: usize,
    ) -> Result<Option<Sha1Bytes>> {
        let path = self.place(name, 0o755)?;
        if self.spooled.saturating_add(entry.size) > limits::ROOTFS_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the root filesystem is too large"));
        }
        let offset = self.spooled;
        let mut content = Tee { reader: reader.content(), sink: &mut self.spool, sink_failed: false };
        let sum = checksum::sha1_of(&mut content).map_err(|e| {
            let message = format!("{name} cannot be unpacked");
            // What cannot be written down is no fault of the package.
            match content.sink_failed {
                true => Error::unexpected(message).blame(Blame::Farm).source(e),
                false => Error::new(ErrorKind::Untrusted, message).source(e),
            }
        })?;
        self.spooled += entry.size;
        if let Some(recorded) = entry.records.get("APK-TOOLS.checksum.SHA1")
            && recorded.as_slice() != hex::encode(sum).as_bytes()
        {
            return Err(Error::new(
                ErrorKind::Untrusted,
                format!("{name} does not have its recorded checksum"),
            ));
        }
        if !self.may_install(&path, &sum, owner)? {
            return Ok(None);
        }
        let made = Node {
            mtime: entry.mtime,
            xattrs: entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            sha1: Some(sum),
            owner: Some(owner),
            ..node(NodeKind::File { offset, size: entry.size }, entry.mode)
        };
        self.nodes.insert(path, made);
        Ok(Some(sum))
    }

    /// Whether a file may take a name: it is free, or the owner's replaces or origin says so.
    fn may_install(&mut self, path: &str, sum: &Sha1Bytes, owner: usize) -> Result<bool> {
        let Some(existing) = self.nodes.get(path) else { return Ok(true) };
        if existing.sha1.as_ref() == Some(sum) {
            return Ok(false);
        }
        let new = &self.installed[owner].info;
        let Some(old) = existing.owner.map(|old| &self.installed[old].info) else {
            return Err(conflict(format!("{path} of {} exists already with another content", new.pkgname)));
        };
        if existing.kind == NodeKind::Directory {
            return Err(conflict(format!("{path} of {} is a directory of {}", new.pkgname, old.pkgname)));
        }
        if old.replaces.contains(&new.pkgname) {
            return Ok(false);
        }
        if new.replaces.contains(&old.pkgname) || old.origin == new.origin {
            let old = existing.owner;
            if let Some(old) = old {
                self.installed[old].lost.insert(path.to_owned());
            }
            return Ok(true);
        }
        Err(conflict(format!("{path} belongs to both {} and {}", old.pkgname, new.pkgname))
            .hint("one of them must list the other under `replaces`"))
    }

    /// A tar names a link's target before the link: the first name of each group holds the content.
    fn order_links(&mut self) {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            if let NodeKind::HardLink(target) = &node.kind {
                groups.entry(target.clone()).or_default().push(name.clone());
            }
        }
        for (target, names) in groups {
            let Some(first) = names.first().filter(|first| **first < target).cloned() else { continue };
            let Some(content) = self.nodes.get(&target).map(|node| node.kind.clone()) else { continue };
            for name in names.iter().chain([&target]) {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.kind = NodeKind::HardLink(first.clone());
                }
            }
            if let Some(node) = self.nodes.get_mut(&first) {
                node.kind = content;
            }
        }
    }

    fn write_tar(mut self, path: &Path, passwd: &str, group: &str) -> Result<(Blob, AccountNames)> {
        let failed = |e: io::Error| Error::io("write", path, e);
        self.spool.flush().map_err(failed)?;
        self.order_links();
        let spool = self.spool.get_ref();
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut tar = TarWriter::new(HashingWriter::new(BufWriter::with_capacity(1 << 20, &mut file)));
        for (name, node) in &self.nodes {
            let (folder, _) = split(name);
            if !self.is_directory(folder) {
                return Err(conflict(format!("{name} lies behind {folder}, which is a link or a file")));
            }
            write_node(&mut tar, spool, name, node).map_err(failed)?;
        }
        let (mut sink, sha256, size_bytes) = tar.finish().map_err(failed)?.finish();
        sink.flush().map_err(failed)?;
        drop(sink);
        let meta =
            Meta { sha256: sha256.clone(), size_bytes, passwd: passwd.to_owned(), group: group.to_owned() };
        let meta =
            serde_json::to_vec(&meta).map_err(|e| Error::unexpected("cannot describe the tree").source(e))?;
        let mut description = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        description.write_all(&meta).map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        description.persist(path.with_extension("json")).map_err(|e| failed(e.error))?;
        let names = AccountNames::parse(passwd, group);
        Ok((Blob { path: path.to_owned(), sha256, size_bytes }, names))
    }
}

fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

fn node(kind: NodeKind, mode: u32) -> Node {
    Node { kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new(), sha1: None, owner: None }
}

fn directory(mode: u32) -> Node {
    node(NodeKind::Directory, mode)
}

fn write_node<W: Write>(tar: &mut TarWriter<W>, spool: &File, name: &str, node: &Node) -> io::Result<()> {
    let mut header = Header::new(name, EntryType::Directory, node.mode);
    header.uid = node.uid;
    header.gid = node.gid;
    header.mtime = node.mtime;
    header.records =
        node.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())).collect();
    match &node.kind {
        NodeKind::Directory => tar.append(&header, &mut io::empty()),
        NodeKind::Symlink(target) => {
            header.kind = EntryType::Symlink;
            header.link = target;
            header.records.clear();
            tar.append(&header, &mut io::empty())
        }
        NodeKind::HardLink(target) => {
            header.kind = EntryType::HardLink;
            header.link = target;
            header.records.clear();
            tar.append(&header, &mut io::empty())
        }
        NodeKind::File { offset, size } => {
            header.kind = EntryType::File;
            header.size = *size;
            tar.append(&header, &mut SpoolReader { spool, begin: *offset, size: *size, at: 0 })
        }
    }
}

/// A file of the tree, read where it lies in the spool.
pub(super) struct SpoolReader<'a> {
    spool: &'a File,
    begin: u64,
    size: u64,
    at: u64,
}

impl io::Seek for SpoolReader<'_> {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        let at = match position {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
            io::SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl io::Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.spool.read_at(&mut buffer[..want], self.begin + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Copies what is read to a sink.
struct Tee<'a, R, W> {
    reader: R,
    sink: &'a mut W,
    /// Whether it was the sink that failed.
    sink_failed: bool,
}

impl<R: io::Read, W: Write> io::Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let written = self.sink.write_all(&buffer[..read]);
        self.sink_failed |= written.is_err();
        written.map(|()| read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full from the beginning.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_failed_is_known() {
        let mut full = Full;
        let mut tee = Tee { reader: &b"content"[..], sink: &mut full, sink_failed: false };
        assert!(io::read_to_string(&mut tee).is_err() && tee.sink_failed);
        let mut sink = Vec::new();
        let mut tee = Tee { reader: &b"\xff"[..], sink: &mut sink, sink_failed: false };
        assert!(io::read_to_string(&mut tee).is_err() && !tee.sink_failed);
    }
}
