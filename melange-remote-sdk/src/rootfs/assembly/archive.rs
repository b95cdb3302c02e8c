//! The tree, or what of it no layer has, as one tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Assembly, Content, InstalledLayer, Meta, Node, NodeKind, conflict, split};
use crate::apk::checksum::HashingWriter;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::apk::writer::AccountNames;
use crate::error::{Error, Result};
use crate::guest::Blob;
use crate::rootfs::layers::Layer;

impl Assembly {
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

    /// Writes what is left of the tree, and what stands beside it. The folder of each name is a folder, here or in a
    /// layer.
    pub(super) fn write_tar(
        mut self,
        path: &Path,
        passwd: &str,
        group: &str,
        layers: &[Arc<Layer>],
    ) -> Result<(Blob, AccountNames)> {
        let failed = |e: io::Error| Error::io("write", path, e);
        self.spool.flush().map_err(failed)?;
        self.order_links();
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut tar = TarWriter::new(HashingWriter::new(BufWriter::with_capacity(1 << 20, &mut file)));
        for (name, node) in &self.nodes {
            let (folder, _) = split(name);
            if !self.is_directory(folder) {
                return Err(conflict(format!("{name} lies behind {folder}, which is a link or a file")));
            }
            let content = match &node.kind {
                NodeKind::File { content, size } => {
                    Some(ContentReader::new(self.spool.get_ref(), &self.layers, content, *size)?)
                }
                _ => None,
            };
            write_node(&mut tar, content, name, node).map_err(failed)?;
        }
        let (mut sink, sha256, size_bytes) = tar.finish().map_err(failed)?.finish();
        sink.flush().map_err(failed)?;
        drop(sink);
        let meta = Meta {
            sha256: sha256.clone(),
            size_bytes,
            passwd: passwd.to_owned(),
            group: group.to_owned(),
            layers: layers.iter().map(|layer| layer.name().to_owned()).collect(),
        };
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

fn write_node<W: Write>(
    tar: &mut TarWriter<W>,
    content: Option<ContentReader<'_>>,
    name: &str,
    node: &Node,
) -> io::Result<()> {
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
        NodeKind::File { size, .. } => {
            header.kind = EntryType::File;
            header.size = *size;
            match content {
                Some(mut content) => tar.append(&header, &mut content),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }
}

/// The content of a file of the tree.
#[derive(Debug)]
pub(in crate::rootfs) enum ContentReader<'a> {
    Spool(SpoolReader<'a>),
    Layer(File),
}

impl<'a> ContentReader<'a> {
    pub(super) fn new(
        spool: &'a File,
        layers: &[Option<InstalledLayer>],
        content: &Content,
        size: u64,
    ) -> Result<Self> {
        match content {
            Content::Spool(begin) => Ok(Self::Spool(SpoolReader { spool, begin: *begin, size, at: 0 })),
            Content::Layer(owner, name) => {
                let layer = layers.get(*owner).and_then(Option::as_ref);
                let layer = layer.ok_or_else(|| Error::unexpected("a file is in no layer"))?;
                // None of its folders is a link.
                let path = layer.layer.tree().join(name);
                File::open(&path).map(Self::Layer).map_err(|e| Error::io("read", &path, e))
            }
        }
    }
}

impl io::Seek for ContentReader<'_> {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        match self {
            Self::Spool(reader) => reader.seek(position),
            Self::Layer(file) => file.seek(position),
        }
    }
}

impl io::Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Spool(reader) => reader.read(buffer),
            Self::Layer(file) => file.read(buffer),
        }
    }
}

/// A file of the tree, read where it lies in the spool.
#[derive(Debug)]
pub(in crate::rootfs) struct SpoolReader<'a> {
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
