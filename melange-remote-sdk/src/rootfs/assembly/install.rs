//! Laying packages one over another: who owns a name, and what may replace what.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use super::{
    Assembly, Content, Installed, InstalledLayer, Listed, Node, NodeKind, conflict, directory, node,
};
use crate::apk::checksum::{self, Sha1Bytes};
use crate::apk::index::IndexPackage;
use crate::apk::reader::ApkFile;
use crate::apk::tar_reader::{RawEntry, TarReader};
use crate::apk::tar_writer::EntryType;
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;
use crate::rootfs::layers::{Layer, LayerEntry, LayerKind, LayerList};

/// Where the content of an entry comes from.
enum From<'a> {
    /// From the archive that is read.
    Archive(&'a mut dyn io::Read),
    /// From the package's layer, with this checksum.
    Layer(Option<Sha1Bytes>),
}

impl Installed {
    fn new(apk: &ApkFile) -> Self {
        Self {
            info: apk.info.clone(),
            size_bytes: apk.size_bytes,
            control_sha1: apk.control_sha1,
            scripts: apk.scripts.clone(),
            listed: Vec::new(),
            lost: BTreeSet::new(),
        }
    }
}

fn is_folder(node: &Node) -> bool {
    node.kind == NodeKind::Directory
}

/// An entry of a layer as its package had it.
fn raw_entry(entry: &LayerEntry) -> RawEntry {
    RawEntry {
        name: Vec::new(),
        kind: match entry.kind {
            LayerKind::Directory => EntryType::Directory,
            LayerKind::File => EntryType::File,
            LayerKind::Symlink => EntryType::Symlink,
            LayerKind::HardLink => EntryType::HardLink,
        },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: entry.mtime,
        uname: Vec::new(),
        gname: Vec::new(),
        link: entry.link.clone().into_bytes(),
        device: (0, 0),
        records: BTreeMap::new(),
        offset: 0,
    }
}

impl Assembly {
    pub(super) fn install(&mut self, apk: &ApkFile) -> Result<()> {
        let owner = self.installed.len();
        self.installed.push(Installed::new(apk));
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
            self.install_entry(&name, &entry, From::Archive(&mut reader.content()), owner)?;
            self.check_size()?;
        }
        self.keep_bytes(reader.kept_bytes())?;
        reader.finish().map_err(damaged)?.finish()
    }

    /// Installs a package whose files are unpacked, which lie below the archive where `below` says so and the tree lets
    /// them.
    pub(super) fn install_layer(
        &mut self,
        layer: &Arc<Layer>,
        record: &IndexPackage,
        below: bool,
    ) -> Result<()> {
        let apk = layer.control(record)?;
        let LayerList { package_bytes, entries } = layer.list()?;
        let Some(entries) = entries else {
            return Err(Error::unexpected("a package that cannot be a layer was taken for one"));
        };
        let owner = self.installed.len();
        self.installed.push(Installed { size_bytes: package_bytes, ..Installed::new(&apk) });
        self.layers.push(Some(InstalledLayer { layer: Arc::clone(layer), entries: None }));
        // A folder of a layer would hide a link of that name with all that is behind it.
        let mut folders = entries.iter().filter(|entry| entry.kind == LayerKind::Directory);
        let fits = below && folders.all(|folder| self.nodes.get(&folder.name).is_none_or(is_folder));
        let mut kept = 0;
        for entry in entries.iter().filter(|entry| !entry.implied) {
            kept += entry.name.len() + entry.link.len();
            let raw = raw_entry(entry);
            self.install_entry(&entry.name, &raw, From::Layer(entry.sum()), owner)?;
            self.check_size()?;
        }
        self.keep_bytes(kept)?;
        if let Some(Some(installed)) = self.layers.last_mut().filter(|_| fits) {
            installed.entries = Some(entries);
        }
        Ok(())
    }

    fn check_size(&self) -> Result<()> {
        if self.nodes.len() > limits::TREE_ENTRIES_MAX || self.bytes > limits::ROOTFS_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the root filesystem is too large"));
        }
        Ok(())
    }

    /// Counts names and attributes that are kept in memory.
    fn keep_bytes(&mut self, bytes: usize) -> Result<()> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        if self.kept_bytes > limits::ROOTFS_KEPT_BYTES_MAX {
            let bound = limits::ROOTFS_KEPT_BYTES_MAX;
            let message = format!("the packages have more than {bound} bytes of names and attributes");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        Ok(())
    }

    fn install_entry(&mut self, name: &str, entry: &RawEntry, from: From<'_>, owner: usize) -> Result<()> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|e| Error::new(ErrorKind::Unsupported, "a link's target is not UTF-8").source(e))
        };
        let mut sha1 = None;
        match entry.kind {
            EntryType::Directory => self.install_directory(name, entry, owner)?,
            EntryType::File => sha1 = Some(self.install_file(name, entry, from, owner)?),
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
                }
                sha1 = Some(sum);
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

    /// Has the content, then decides; returns the checksum.
    fn install_file(
        &mut self,
        name: &str,
        entry: &RawEntry,
        from: From<'_>,
        owner: usize,
    ) -> Result<Sha1Bytes> {
        let path = self.place(name, 0o755)?;
        self.bytes = self.bytes.saturating_add(entry.size);
        self.check_size()?;
        let (content, sum) = match from {
            From::Archive(content) => self.spool(name, entry, content)?,
            From::Layer(sum) => {
                let sum = sum.ok_or_else(|| Error::unexpected("a file of a layer has no checksum"))?;
                (Content::Layer(owner, name.to_owned()), sum)
            }
        };
        if !self.may_install(&path, &sum, owner)? {
            // The package lists it all the same.
            return Ok(sum);
        }
        let made = Node {
            mtime: entry.mtime,
            xattrs: entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            sha1: Some(sum),
            owner: Some(owner),
            ..node(NodeKind::File { content, size: entry.size }, entry.mode)
        };
        self.nodes.insert(path, made);
        Ok(sum)
    }

    /// Writes a file of an archive into the spool.
    fn spool(
        &mut self,
        name: &str,
        entry: &RawEntry,
        content: &mut dyn io::Read,
    ) -> Result<(Content, Sha1Bytes)> {
        let offset = self.spooled;
        let mut content = Tee { reader: content, sink: &mut self.spool, sink_failed: false };
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
        Ok((Content::Spool(offset), sum))
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
