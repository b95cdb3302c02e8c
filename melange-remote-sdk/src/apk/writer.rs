//! Emitting a package: data section, control section, signature, as melange writes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::block_gzip::BlockEncoder;
use super::checksum::{self, HashingWriter};
use super::gzip::{self, MemberKind};
use super::pkginfo::PkgInfo;
use super::signature::{Signed, SigningKey};
use super::tar_writer::{EntryType, Header, TarWriter};
use super::tree::{Content, EntryKind, Tree, TreeEntry};
use crate::error::{Error, Result};

/// Bytes that are read of a file at once.
const COPY_BYTES: usize = 256 << 10;

/// Extended attributes that packages never carry.
const XATTRS_DROPPED: [&str; 6] = [
    "com.apple.provenance",
    "security.csm",
    "security.selinux",
    "com.docker.grpcfuse.ownership",
    "trusted.SGI_ACL_FILE",
    "trusted.SGI_ACL_DEFAULT",
];

/// Names of accounts by id, from the guest's `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountNames {
    /// User names.
    pub users: BTreeMap<u32, String>,
    /// Group names.
    pub groups: BTreeMap<u32, String>,
}

impl AccountNames {
    /// Reads the two files; lines that do not parse are passed over, the first name of an id counts.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let read = |text: &str| {
            let mut names = BTreeMap::new();
            for line in text.lines() {
                let mut fields = line.split(':');
                if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
                    names.entry(id).or_insert_with(|| name.to_owned());
                }
            }
            names
        };
        let mut names = Self { users: read(passwd), groups: read(group) };
        names.users.insert(0, "root".to_owned());
        names.groups.insert(0, "root".to_owned());
        names
    }
}

/// What is the same for every package of a build.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmitOptions<'a> {
    /// Seconds since 1970 for every entry.
    pub epoch_seconds: u64,
    /// The account whose files become root's.
    pub build_account: u32,
    /// Names for owners.
    pub names: &'a AccountNames,
    /// The key that signs; `None` leaves the package unsigned.
    pub key: Option<&'a SigningKey>,
}

impl<'a> EmitOptions<'a> {
    /// Unsigned packages of files from 1970, whose owners have these names; the build's account is the one that builds
    /// have, 1000.
    pub fn new(names: &'a AccountNames) -> Self {
        Self { epoch_seconds: 0, build_account: 1000, names, key: None }
    }
}

/// The installed size as packages record it: files, link targets, and 4096 for each directory, the root's
/// included. (Upstream asks its file system for the latter; 4096 is what ext4 answers.)
pub fn installed_size(tree: &Tree) -> u64 {
    4096 + tree
        .iter()
        .map(|(_, entry)| match &entry.kind {
            EntryKind::Directory => 4096,
            EntryKind::File(content) => content.size(),
            EntryKind::Symlink(target) => target.len() as u64,
            EntryKind::CharDevice(..) | EntryKind::Fifo => 0,
        })
        .sum::<u64>()
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The size of the package.
    pub size_bytes: u64,
    /// The SHA-256 of the whole package in lower-case hex.
    pub sha256: String,
}

/// Writes the package for `tree` to `path`. `info` lacks only its `datahash`; `control` holds the files of the
/// control section besides `.PKGINFO`.
///
/// The file appears whole or not at all.
///
/// # Errors
/// The disk's; as [`SigningKey::sign`].
pub fn write_package(
    path: &Path,
    tree: &Tree,
    info: &mut PkgInfo,
    control: &BTreeMap<String, Vec<u8>>,
    options: &EmitOptions<'_>,
) -> Result<Written> {
    let failed = |e: io::Error| Error::io("write", path, e);
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut data = tempfile::tempfile_in(&folder).map_err(failed)?;
    info.datahash = write_data(&mut data, tree, options).map_err(failed)?;
    let control = control_section(info, control, options.epoch_seconds).map_err(failed)?;
    let signature = match options.key {
        Some(key) => key.signature_member(&control, Signed::Package { mtime: options.epoch_seconds })?,
        None => Vec::new(),
    };
    let file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    let mut whole = HashingWriter::new(file);
    let joined = io::Seek::rewind(&mut data)
        .and_then(|()| whole.write_all(&signature))
        .and_then(|()| whole.write_all(&control))
        .and_then(|()| io::copy(&mut BufReader::with_capacity(COPY_BYTES, data), &mut whole));
    joined.map_err(failed)?;
    let (file, sha256, size_bytes) = whole.finish();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(Written { size_bytes, sha256 })
}

/// Writes the compressed data section and returns the SHA-256 of its bytes.
fn write_data(file: &mut File, tree: &Tree, options: &EmitOptions<'_>) -> io::Result<String> {
    let sink = HashingWriter::new(BufWriter::with_capacity(1 << 20, file));
    let tar = TarWriter::new(BlockEncoder::new(MemberKind::Package, sink)?);
    let mut section = DataSection { tar, tree, options, room: vec![0; COPY_BYTES] };
    for (path, entry) in tree.iter() {
        section.append(&path.joined(), entry)?;
    }
    let (mut sink, digest, _) = section.tar.finish()?.finish()?.finish();
    sink.flush()?;
    Ok(digest)
}

/// The data section of a package, on its way.
struct DataSection<'a, W> {
    tar: TarWriter<W>,
    tree: &'a Tree,
    options: &'a EmitOptions<'a>,
    room: Vec<u8>,
}

impl<W: Write> DataSection<'_, W> {
    fn append(&mut self, name: &str, entry: &TreeEntry) -> io::Result<()> {
        let options = self.options;
        let id = |id: u32| if id == options.build_account { 0 } else { id };
        let account = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_default();
        let (uid, gid) = match entry.kind {
            EntryKind::File(_) | EntryKind::CharDevice(..) | EntryKind::Fifo => {
                (id(entry.uid), id(entry.gid))
            }
            EntryKind::Directory | EntryKind::Symlink(_) => (0, 0),
        };
        let (uname, gname) = (account(&options.names.users, uid), account(&options.names.groups, gid));
        let records = entry
            .xattrs
            .iter()
            .filter(|(name, _)| !XATTRS_DROPPED.contains(&name.as_str()))
            .filter(|_| matches!(entry.kind, EntryKind::File(_)))
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone()))
            .collect();
        let mut header = Header {
            uid,
            gid,
            uname: &uname,
            gname: &gname,
            mtime: options.epoch_seconds,
            records,
            ..Header::new(name, EntryType::File, entry.mode)
        };
        match &entry.kind {
            EntryKind::Directory => {
                header.kind = EntryType::Directory;
                header.mode &= 0o777;
            }
            EntryKind::Symlink(target) => {
                header.kind = EntryType::Symlink;
                header.mode = 0o777;
                header.link = target;
                record_checksum(&mut header, checksum::sha1(target.as_bytes()));
            }
            EntryKind::CharDevice(major, minor) => {
                header.kind = EntryType::CharDevice;
                header.device = (*major, *minor);
            }
            EntryKind::Fifo => header.kind = EntryType::Fifo,
            EntryKind::File(content) => return self.append_file(header, content),
        }
        self.tar.append(&header, &mut io::empty())
    }

    /// Small files are read once; others twice, for their checksum stands before them.
    fn append_file(&mut self, mut header: Header<'_>, content: &Content) -> io::Result<()> {
        header.size = content.size();
        let mut reader = self.tree.open(content);
        match usize::try_from(header.size).ok().and_then(|size| self.room.get_mut(..size)) {
            Some(room) => {
                reader.read_exact(room)?;
                record_checksum(&mut header, checksum::sha1(room));
                self.tar.append(&header, &mut &room[..])
            }
            None => {
                let buffered = |reader| BufReader::with_capacity(COPY_BYTES, reader);
                record_checksum(&mut header, checksum::sha1_of(&mut buffered(reader))?);
                self.tar.append(&header, &mut buffered(self.tree.open(content)))
            }
        }
    }
}

fn record_checksum(header: &mut Header<'_>, sum: checksum::Sha1Bytes) {
    header.records.insert("APK-TOOLS.checksum.SHA1".to_owned(), hex::encode(sum).into_bytes());
}

/// The compressed control section: `.PKGINFO`, `.melange.yaml` and scriptlets in byte order.
fn control_section(
    info: &PkgInfo,
    control: &BTreeMap<String, Vec<u8>>,
    epoch_seconds: u64,
) -> io::Result<Vec<u8>> {
    let pkginfo = info.to_text().into_bytes();
    let mut files: BTreeMap<&str, (&[u8], u32)> =
        control.iter().map(|(name, content)| (name.as_str(), (content.as_slice(), 0o755))).collect();
    files.insert(".PKGINFO", (&pkginfo, 0o644));
    if let Some(definition) = files.get_mut(".melange.yaml") {
        definition.1 = 0o644;
    }
    let mut tar = TarWriter::new(Vec::new());
    for (name, (content, mode)) in files {
        let header = Header {
            size: content.len() as u64,
            mtime: epoch_seconds,
            uname: "root",
            gname: "root",
            ..Header::new(name, EntryType::File, mode)
        };
        tar.append(&header, &mut &content[..])?;
    }
    gzip::member(MemberKind::Package, &tar.finish_open())
}

/// The value of `security.capability` for capability lists and their flags, such as `cap_net_raw` and `+ep`.
pub fn capability_xattr(lists: &BTreeMap<String, String>) -> Vec<u8> {
    let (mut effective, mut permitted, mut inheritable) = (0u32, 0u32, 0u32);
    for (names, flags) in lists {
        let mask = names
            .split(',')
            .filter_map(|name| capability_bit(name.trim()))
            .fold(0, |mask, bit| mask | 1 << bit);
        if flags.contains('e') {
            effective = 1;
        }
        if flags.contains('p') {
            permitted |= mask;
        }
        if flags.contains('i') {
            inheritable |= mask;
        }
    }
    [0x0300_0000 | effective, permitted, inheritable, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn capability_bit(name: &str) -> Option<u32> {
    Some(match name {
        "cap_net_bind_service" => 10,
        "cap_net_admin" => 12,
        "cap_net_raw" => 13,
        "cap_ipc_lock" => 14,
        "cap_sys_admin" => 21,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
