//! Emitting a package: data section, control section, signature, as melange writes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::checksum::{self, HashingWriter};
use super::gzip::{self, MemberKind};
use super::pkginfo::PkgInfo;
use super::signature::{Signed, SigningKey};
use super::tar_writer::{EntryType, Header, TarWriter};
use super::tree::{EntryKind, Tree, TreeEntry};
use crate::error::{Error, Result};

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
            EntryKind::CharDevice(..) => 0,
        })
        .sum::<u64>()
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
) -> Result<()> {
    let failed = |e: io::Error| Error::io("write", path, e);
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut data = tempfile::tempfile_in(&folder).map_err(failed)?;
    info.datahash = write_data(&mut data, tree, options).map_err(failed)?;
    let control = control_section(info, control, options.epoch_seconds).map_err(failed)?;
    let signature = match options.key {
        Some(key) => key.signature_member(&control, Signed::Package { mtime: options.epoch_seconds })?,
        None => Vec::new(),
    };
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    io::Seek::rewind(&mut data)
        .and_then(|()| file.write_all(&signature))
        .and_then(|()| file.write_all(&control))
        .and_then(|()| io::copy(&mut data, &mut file))
        .and_then(|_| file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)))
        .map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Writes the compressed data section and returns the SHA-256 of its bytes.
fn write_data(file: &mut File, tree: &Tree, options: &EmitOptions<'_>) -> io::Result<String> {
    let sink = HashingWriter::new(BufWriter::with_capacity(1 << 20, file));
    let mut tar = TarWriter::new(gzip::encoder(MemberKind::Package, sink));
    for (path, entry) in tree.iter() {
        append(&mut tar, &path.joined(), tree, entry, options)?;
    }
    let (mut sink, digest, _) = tar.finish()?.finish()?.finish();
    sink.flush()?;
    Ok(digest)
}

fn append<W: Write>(
    tar: &mut TarWriter<W>,
    name: &str,
    tree: &Tree,
    entry: &TreeEntry,
    options: &EmitOptions<'_>,
) -> io::Result<()> {
    let id = |id: u32| if id == options.build_account { 0 } else { id };
    let account = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_default();
    let (uid, gid) = match entry.kind {
        EntryKind::File(_) | EntryKind::CharDevice(..) => (id(entry.uid), id(entry.gid)),
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
    let record_checksum = |header: &mut Header<'_>, sum: checksum::Sha1Bytes| {
        header.records.insert("APK-TOOLS.checksum.SHA1".to_owned(), hex::encode(sum).into_bytes());
    };
    match &entry.kind {
        EntryKind::Directory => {
            header.kind = EntryType::Directory;
            header.mode &= 0o777;
            tar.append(&header, &mut io::empty())
        }
        EntryKind::Symlink(target) => {
            header.kind = EntryType::Symlink;
            header.mode = 0o777;
            header.link = target;
            record_checksum(&mut header, checksum::sha1(target.as_bytes()));
            tar.append(&header, &mut io::empty())
        }
        EntryKind::CharDevice(major, minor) => {
            header.kind = EntryType::CharDevice;
            header.device = (*major, *minor);
            tar.append(&header, &mut io::empty())
        }
        EntryKind::File(content) => {
            header.size = content.size();
            record_checksum(&mut header, checksum::sha1_of(&mut tree.open(content))?);
            tar.append(&header, &mut tree.open(content))
        }
    }
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
mod tests {
    use super::*;
    use crate::apk::reader::ApkFile;

    #[test]
    fn a_package_reads_back_and_is_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        let long = format!("usr/share/{}/{}", "d".repeat(120), "é".repeat(90));
        tree.add_file("usr/bin/tool", 0o4755, b"#!/bin/sh\n").unwrap();
        tree.add_file(&long, 0o644, &[7; 3000]).unwrap();
        tree.get_mut("usr/bin/tool").unwrap().xattrs.insert("security.capability".into(), vec![0, 1, 10, 0]);
        tree.get_mut("usr/bin/tool").unwrap().uid = 1000;
        let names = AccountNames::parse("root:x:0:0\n", "root:x:0:\n");
        let options = EmitOptions { epoch_seconds: 5, build_account: 1000, names: &names, key: None };
        let control = BTreeMap::from([(".melange.yaml".to_owned(), b"package: {}\n".to_vec())]);
        let mut bytes = Vec::new();
        for name in ["a.apk", "b.apk"] {
            let path = folder.path().join(name);
            let mut info = PkgInfo { pkgname: "t".into(), pkgver: "1-r0".into(), ..PkgInfo::default() };
            write_package(&path, &tree, &mut info, &control, &options).unwrap();
            bytes.push(std::fs::read(&path).unwrap());
        }
        assert_eq!(bytes[0], bytes[1]);
        let apk = ApkFile::open(&folder.path().join("a.apk")).unwrap();
        let entries = apk.entries().unwrap();
        let tool = entries.iter().find(|entry| entry.path == "usr/bin/tool").unwrap();
        assert_eq!(
            (tool.mode.as_str(), tool.uid, tool.xattrs["security.capability"].as_str()),
            ("4755", 0, "00010a00")
        );
        assert!(entries.iter().any(|entry| entry.path == long));
        std::fs::write(folder.path().join("a.apk"), &bytes[0][..bytes[0].len() - 20]).unwrap();
        assert!(ApkFile::open(&folder.path().join("a.apk")).is_err());
    }

    #[test]
    fn file_capabilities_have_the_kernels_layout() {
        let lists = BTreeMap::from([("cap_net_raw".to_owned(), "+ep".to_owned())]);
        let bytes = capability_xattr(&lists);
        assert_eq!(bytes.len(), 24);
        assert_eq!(hex::encode(&bytes[..12]), "010000030020000000000000");
    }
}
