//! Trees as tars: what a guest starts with and what it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// One entry of a tar.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    fn new(name: &str, kind: tar::EntryType, mode: u32) -> Self {
        Self {
            name: name.to_owned(),
            kind: format!("{kind:?}"),
            mode,
            uid: 0,
            gid: 0,
            mtime: 1,
            link: String::new(),
            content: Vec::new(),
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self { content: content.to_vec(), ..Self::new(name, tar::EntryType::Regular, 0o644) }
    }

    pub(crate) fn folder(name: &str) -> Self {
        Self::new(&format!("{name}/"), tar::EntryType::Directory, 0o755)
    }

    pub(crate) fn symlink(name: &str, link: &str) -> Self {
        Self { link: link.to_owned(), ..Self::new(name, tar::EntryType::Symlink, 0o777) }
    }

    pub(crate) fn hard_link(name: &str, link: &str) -> Self {
        Self { link: link.to_owned(), ..Self::new(name, tar::EntryType::Link, 0o644) }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn xattr(mut self, key: &str, value: &[u8]) -> Self {
        self.xattrs.insert(key.to_owned(), value.to_vec());
        self
    }
}

pub(crate) fn write_tar(path: &Path, entries: &[Entry]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for entry in entries {
        let xattrs: Vec<(String, &[u8])> =
            entry.xattrs.iter().map(|(k, v)| (format!("SCHILY.xattr.{k}"), v.as_slice())).collect();
        if !xattrs.is_empty() {
            builder.append_pax_extensions(xattrs.iter().map(|(k, v)| (k.as_str(), *v))).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(match entry.kind.as_str() {
            "Directory" => tar::EntryType::Directory,
            "Symlink" => tar::EntryType::Symlink,
            "Link" => tar::EntryType::Link,
            _ => tar::EntryType::Regular,
        });
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        header.set_size(entry.content.len() as u64);
        let name = if entry.name == "/" { "./" } else { &entry.name };
        if entry.link.is_empty() {
            builder.append_data(&mut header, name, entry.content.as_slice()).unwrap();
        } else {
            builder.append_link(&mut header, name, &entry.link).unwrap();
        }
    }
    builder.into_inner().unwrap();
}

pub(crate) fn read_tar(path: &Path) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut read = Entry::new(&name, entry.header().entry_type(), entry.header().mode().unwrap());
        read.uid = entry.header().uid().unwrap();
        read.gid = entry.header().gid().unwrap();
        read.mtime = entry.header().mtime().unwrap();
        read.link =
            entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).unwrap()).unwrap_or_default();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if let Some(key) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                read.xattrs.insert(key.to_owned(), extension.value_bytes().to_vec());
            }
        }
        entry.read_to_end(&mut read.content).unwrap();
        assert!(entries.insert(name.clone(), read).is_none(), "{name} is there twice");
    }
    entries
}
