//! The root filesystem: packages laid one over another in an empty tree, then written as one tar.
//!
//! Contents pass through a spool file; the tree itself is names and metadata. Rules of conflict, ownership and
//! links are apko's: everything belongs to root, parents may be symbolic links, scripts never run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layers::{Layer, LayerEntry};
use super::repository::verified;
use super::{database, finish};
use crate::apk::checksum::{self, Sha1Bytes};
use crate::apk::index::IndexPackage;
use crate::apk::pkginfo::PkgInfo;
use crate::apk::reader::ApkFile;
use crate::apk::signature::Keyring;
use crate::apk::writer::AccountNames;
use crate::arch::Arch;
use crate::error::{Error, ErrorKind, Result};
use crate::guest::Blob;
use crate::limits;
use crate::melange::plan::PlanEnvironment;

mod archive;
mod install;
mod over_layers;

pub(super) use archive::ContentReader;

/// Everything that goes into a root filesystem.
pub(super) struct Input {
    pub(super) arch: Arch,
    /// In installation order.
    pub(super) packages: Vec<InputPackage>,
    pub(super) repositories: Vec<String>,
    pub(super) world: Vec<String>,
    pub(super) keyring: Keyring,
    pub(super) environment: PlanEnvironment,
}

/// A package with its index record.
pub(super) struct InputPackage {
    pub(super) record: IndexPackage,
    pub(super) from: PackageFrom,
}

/// Where a package's files are.
pub(super) enum PackageFrom {
    /// In its file.
    File(PathBuf),
    /// Unpacked already.
    Layer(Arc<Layer>),
}

/// What stands beside a cached root filesystem.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) sha256: String,
    pub(super) size_bytes: u64,
    pub(super) passwd: String,
    pub(super) group: String,
    /// The names of the layers below the archive, the topmost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<String>,
}

/// A written root filesystem.
pub(super) struct Written {
    pub(super) blob: Blob,
    pub(super) names: AccountNames,
    /// What lies below the archive, the topmost first.
    pub(super) layers: Vec<Arc<Layer>>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    File { content: Content, size: u64 },
    Symlink(String),
    HardLink(String),
}

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// In the spool, from here on.
    Spool(u64),
    /// In the layer of this package, under this name.
    Layer(usize, String),
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
    /// The layers of packages that have one, by position.
    layers: Vec<Option<InstalledLayer>>,
    spool: BufWriter<File>,
    spooled: u64,
    /// Bytes of files, spooled or not.
    bytes: u64,
    kept_bytes: usize,
    /// A folder of plain folders, in which the last entry was put: most entries follow others of their folder.
    last_folder: String,
}

/// A package that was installed from its layer.
#[derive(Debug)]
struct InstalledLayer {
    layer: Arc<Layer>,
    /// Its entries when it lies below the archive; a layer that cannot is where files are read from.
    entries: Option<Vec<LayerEntry>>,
}

/// Assembles and writes `path` with its description beside it.
pub(super) fn write(input: &Input, path: &Path) -> Result<Written> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let spool = tempfile::tempfile_in(folder).map_err(|e| Error::io("create a spool in", folder, e))?;
    let mut assembly = Assembly {
        nodes: BTreeMap::new(),
        installed: Vec::new(),
        layers: Vec::new(),
        spool: BufWriter::with_capacity(1 << 20, spool),
        spooled: 0,
        bytes: 0,
        kept_bytes: 0,
        last_folder: String::new(),
    };
    assembly.initial(input)?;
    let below = over_layers::layers_below(&input.packages);
    for (position, package) in input.packages.iter().enumerate() {
        let record = &package.record;
        let installed = match &package.from {
            // The data is compared with its digest as it is installed.
            PackageFrom::File(path) => {
                let apk = verified(ApkFile::open_control(path)?, record)?;
                assembly.layers.push(None);
                assembly.install(&apk)
            }
            PackageFrom::Layer(layer) => assembly.install_layer(layer, record, below.contains(&position)),
        };
        installed.map_err(|e| e.with("package", record.file_name()))?;
    }
    for installed in &mut assembly.installed {
        let lost = std::mem::take(&mut installed.lost);
        installed.listed.retain(|listed| !lost.contains(&listed.path));
    }
    database::write(&mut assembly, input)?;
    let (passwd, group) = finish::finish(&mut assembly, input)?;
    let layers = assembly.leave_to_layers();
    let (blob, names) = assembly.write_tar(path, &passwd, &group, &layers)?;
    Ok(Written { blob, names, layers })
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
        let content = Content::Spool(self.spooled);
        self.spool.write_all(bytes).map_err(|e| Error::unexpected("cannot write the spool").source(e))?;
        self.spooled += bytes.len() as u64;
        let kind = NodeKind::File { content, size: bytes.len() as u64 };
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
        let Some(NodeKind::File { content, size }) = self.nodes.get(&real).map(|node| node.kind.clone())
        else {
            return Ok(None);
        };
        let failed = |e: io::Error| Error::unexpected("cannot read a file of the tree").source(e);
        let mut bytes =
            vec![0; usize::try_from(size).map_err(|e| Error::unexpected("a file is too large").source(e))?];
        self.content(&content, size)?.read_exact(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// A reader of a file of the tree.
    pub(super) fn content(&mut self, content: &Content, size: u64) -> Result<ContentReader<'_>> {
        self.spool.flush().map_err(|e| Error::unexpected("cannot write the spool").source(e))?;
        ContentReader::new(self.spool.get_ref(), &self.layers, content, size)
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
        if !folder.is_empty() && folder == self.last_folder {
            return Ok(path.to_owned());
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
        // Folders stay what they are; links on the way may change.
        if real == folder {
            self.last_folder.clone_from(&real);
        }
        Ok(if real.is_empty() { base.to_owned() } else { format!("{real}/{base}") })
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.nodes.get(path).is_some_and(|node| node.kind == NodeKind::Directory)
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
