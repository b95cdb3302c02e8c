//! Packages unpacked once, each in a folder of its own, which root filesystems have in common.
//!
//! A layer is never changed: guests see it below an overlay. It is named after the checksum of its package's control
//! section, which names the package's data too, so that repositories and environments share it.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::repository::verified;
use crate::apk::checksum::Sha1Bytes;
use crate::apk::index::IndexPackage;
use crate::apk::reader::ApkFile;
use crate::cache::{self, Shelf, StateCache};
use crate::error::{Error, ErrorKind, Result};
use crate::locks::{FOLDER_LOCK, NamedLocks, hold_folder, sweep};

mod unpack;

/// Changes when layers change, so that older ones are not used. No dots: names with a dot are of unfinished folders.
const FORMAT: &str = "1";
/// The tree, in a layer's folder.
const TREE: &str = "tree";
/// The entries of the tree with their checksums.
const LIST: &str = "entries.json";
/// Stands where the package cannot be a layer.
const NO_LAYER: &str = "no-layer";
/// The package up to its data section.
const HEAD: &str = "head.apk";
/// The start of the machine in which its tree was known to be whole.
const BOOT: &str = "boot";
/// What file systems give a file at least.
const BLOCK_BYTES: u64 = 4 << 10;
/// The longest list that is read: half a million entries of some hundred bytes.
const LIST_BYTES_MAX: u64 = 512 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LayerKind {
    Directory,
    File,
    Symlink,
    HardLink,
}

/// An entry of a layer's tree. Everything belongs to root, whatever the package says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerEntry {
    /// The path without a leading slash.
    pub(super) name: String,
    pub(super) kind: LayerKind,
    /// All twelve bits, as the package has them.
    pub(super) mode: u32,
    /// The owner, as the package has it.
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: u64,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) link: String,
    /// SHA-1 of a file's content, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) sha1: String,
    /// Whether the package has no entry of its own for this folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) implied: bool,
}

impl LayerEntry {
    /// The checksum of a file's content.
    pub(super) fn sum(&self) -> Option<Sha1Bytes> {
        let mut sum = Sha1Bytes::default();
        hex::decode_to_slice(&self.sha1, &mut sum).ok().map(|()| sum)
    }
}

/// What a layer holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerList {
    /// The size of the package's file.
    pub(super) package_bytes: u64,
    /// In the package's order; `None` for a package that cannot be a layer: its tree is not what its entries say.
    pub(super) entries: Option<Vec<LayerEntry>>,
}

/// An unpacked package, which stays as long as this does.
#[derive(Debug)]
pub(super) struct Layer {
    folder: PathBuf,
    name: String,
    _lock: File,
}

impl Layer {
    /// Whether it is a layer, and not the note that its package cannot be one.
    pub(super) fn is_whole(&self) -> bool {
        !self.folder.join(NO_LAYER).exists()
    }

    /// Whether its files have the sizes that were written. Nothing is forced to the disk when a layer is made, as that would
    /// take longer than making it; what was not there yet when the machine lost its power is found by this, at the first
    /// look behind the next start.
    fn survived(&self) -> Result<bool> {
        let (path, boot) = (self.folder.join(BOOT), boot_id());
        if std::fs::read(&path).is_ok_and(|known| known == boot) {
            return Ok(true);
        }
        let Ok(list) = self.list() else { return Ok(false) };
        let tree = self.tree();
        for entry in list.entries.iter().flatten() {
            let Ok(found) = tree.join(&entry.name).symlink_metadata() else { return Ok(false) };
            let fits = match entry.kind {
                LayerKind::File => found.is_file() && found.len() == entry.size,
                LayerKind::HardLink => found.is_file(),
                LayerKind::Directory => found.is_dir(),
                LayerKind::Symlink => found.is_symlink(),
            };
            if !fits {
                return Ok(false);
            }
        }
        std::fs::write(&path, boot).map_err(|e| Error::io("write", &path, e))?;
        Ok(true)
    }

    /// Takes it out of the way; who looks next finds none.
    fn discard(&self) -> Result<()> {
        let parent = self.folder.parent().unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new().prefix("damaged.").tempdir_in(parent);
        let aside = aside.map_err(|e| Error::io("create a folder in", parent, e))?.keep();
        std::fs::rename(&self.folder, aside.join("layer")).map_err(|e| Error::io("move", &self.folder, e))?;
        remove(&aside)
    }

    /// Its name among the layers.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The folder with its tree.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join(TREE)
    }

    /// The control section, compared with the index.
    pub(super) fn control(&self, package: &IndexPackage) -> Result<ApkFile> {
        verified(ApkFile::open_control(&self.folder.join(HEAD))?, package)
    }

    /// What is in its tree.
    pub(super) fn list(&self) -> Result<LayerList> {
        let path = self.folder.join(LIST);
        let failed = |e: io::Error| Error::io("read", &path, e);
        let file = File::open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > LIST_BYTES_MAX {
            return Err(Error::unexpected("the list of an unpacked package is too long"));
        }
        let bytes = io::read_to_string(BufReader::new(file)).map_err(failed)?;
        serde_json::from_str(&bytes)
            .map_err(|e| Error::unexpected("the list of an unpacked package is damaged").source(e))
    }
}

/// All layers of a state folder.
#[derive(Debug)]
pub(super) struct LayerStore {
    cache: Arc<StateCache>,
    shelf: Arc<LayerShelf>,
    /// Those in use, so that each has one open lock however many guests use it.
    open: Mutex<HashMap<String, Weak<Layer>>>,
    /// By name, so that each is unpacked once.
    unpacking: NamedLocks,
    /// As many packages are unpacked at a time as this machine has cores.
    cores: tokio::sync::Semaphore,
    /// Whether the folder was prepared; it is when the first layer is made.
    prepared: Arc<Mutex<bool>>,
}

#[derive(Debug)]
struct LayerShelf(PathBuf);

impl Shelf for LayerShelf {
    fn folder(&self) -> &Path {
        &self.0
    }

    fn remove(&self, folder: &Path) -> Result<()> {
        remove(folder)
    }
}

impl LayerStore {
    pub(super) fn new(cache: &Arc<StateCache>) -> Self {
        let folder = cache.folder().join("layers");
        // Others than this process look for it too, from where they are.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let shelf = Arc::new(LayerShelf(folder));
        let weak = Arc::downgrade(&shelf);
        cache.add(weak as Weak<dyn Shelf>);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cache: Arc::clone(cache),
            shelf,
            open: Mutex::default(),
            unpacking: NamedLocks::default(),
            cores: tokio::sync::Semaphore::new(cores),
            prepared: Arc::default(),
        }
    }

    /// The layer of this name, if it is there.
    pub(super) fn held(&self, name: &str) -> Result<Option<Arc<Layer>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = open.get(name).and_then(Weak::upgrade) {
            cache::mark_used(&layer.folder.join(FOLDER_LOCK));
            return Ok(Some(layer));
        }
        let folder = self.shelf.0.join(name);
        let Some(lock) = self.cache.hold_folder(&folder)? else { return Ok(None) };
        let layer = Arc::new(Layer { folder, name: name.to_owned(), _lock: lock });
        if !layer.survived()? {
            tracing::warn!(layer = name, "an unpacked package is not whole and is unpacked again");
            layer.discard()?;
            return Ok(None);
        }
        open.retain(|_, layer| layer.strong_count() > 0);
        open.insert(name.to_owned(), Arc::downgrade(&layer));
        Ok(Some(layer))
    }

    /// The layer of a package, whose file `fetch` gets when there is none yet.
    ///
    /// # Errors
    /// `Untrusted` for a package that is not what the index says, those of `fetch`, and the disk's.
    pub(super) async fn layer<H: Send + 'static>(
        &self,
        package: &IndexPackage,
        fetch: impl Future<Output = Result<(PathBuf, H)>>,
    ) -> Result<Arc<Layer>> {
        let name = name_of(package)?;
        if let Some(layer) = self.held(&name)? {
            return Ok(layer);
        }
        let lock = self.unpacking.of(&name);
        let _alone = lock.lock().await;
        if let Some(layer) = self.held(&name)? {
            return Ok(layer);
        }
        let (path, held) = fetch.await?;
        let _core = self.cores.acquire().await.map_err(|e| Error::unexpected("no core is left").source(e))?;
        let (cache, package) = (Arc::clone(&self.cache), package.clone());
        let (shelf, prepared) = (Arc::clone(&self.shelf), Arc::clone(&self.prepared));
        let folder = self.shelf.0.join(&name);
        let making = tokio::task::spawn_blocking(move || {
            prepare(&shelf.0, &prepared)?;
            let made = make(&cache, &path, &package, &folder);
            drop(held);
            made
        });
        making.await.map_err(|e| Error::unexpected("the unpacking died").source(e))??;
        self.held(&name)?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "an unpacked package was removed by another process")
        })
    }
}

/// Makes the folder, once, and removes what killed processes left in it.
fn prepare(folder: &Path, prepared: &Mutex<bool>) -> Result<()> {
    let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
    if *prepared {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    // Packages have setuid files, which must not be within reach of this machine's other users; and what is made
    // in it must not take its group from the folder above.
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(|e| Error::io("protect", folder, e))?;
    sweep(
        folder.to_owned(),
        |folder| !cache::is_whole(folder),
        |left| {
            for (folder, _held) in left {
                if let Err(error) = remove(&folder) {
                    tracing::warn!(reason = %error.chain(), "an unfinished folder could not be removed");
                }
            }
        },
    );
    *prepared = true;
    Ok(())
}

/// What names this start of the machine; empty where the kernel does not tell.
fn boot_id() -> &'static [u8] {
    static ID: LazyLock<Vec<u8>> =
        LazyLock::new(|| std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    &ID
}

/// The name of a package's layer.
fn name_of(package: &IndexPackage) -> Result<String> {
    match package.control_sha1 {
        Some(sum) => Ok(format!("{FORMAT}-{}", hex::encode(sum))),
        None => Err(Error::new(
            ErrorKind::Untrusted,
            format!("the index has no checksum that can be checked for {}", package.file_name()),
        )),
    }
}

/// Unpacks a package as `folder`. Another process may be faster.
fn make(cache: &StateCache, path: &Path, package: &IndexPackage, folder: &Path) -> Result<()> {
    let apk = verified(ApkFile::open_control(path)?, package)?;
    let parent = folder.parent().unwrap_or(Path::new("."));
    let made = Unfinished(
        tempfile::Builder::new()
            .prefix("unpacking.")
            .tempdir_in(parent)
            .map_err(|e| Error::io("create a folder in", parent, e))?
            .keep(),
    );
    let _lock = hold_folder(&made.0)?;
    let tree = made.0.join(TREE);
    std::fs::create_dir(&tree).map_err(|e| Error::io("create", &tree, e))?;
    let entries = unpack::unpack(&apk, &tree).map_err(|e| e.with("package", package.file_name()))?;
    if entries.is_none() {
        let note = made.0.join(NO_LAYER);
        File::create_new(&note).map_err(|e| Error::io("create", &note, e))?;
        remove(&tree)?;
        std::fs::create_dir(&tree).map_err(|e| Error::io("create", &tree, e))?;
    }
    std::fs::set_permissions(&tree, Permissions::from_mode(0o755))
        .map_err(|e| Error::io("share", &tree, e))?;
    // Blocks are what a disk has less of: those of contents, and one for each entry and each file beside the tree.
    let block = |size: u64| size.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
    let tree_bytes: u64 = entries.iter().flatten().map(|entry| block(entry.size)).sum();
    let head = made.0.join(HEAD);
    copy_head(&apk, &head).map_err(|e| Error::io("write", &head, e))?;
    let list = made.0.join(LIST);
    write_list(&list, &LayerList { package_bytes: apk.size_bytes, entries })
        .map_err(|e| Error::io("write", &list, e))?;
    let written = std::fs::metadata(&list).map_err(|e| Error::io("read", &list, e))?.len();
    let boot = made.0.join(BOOT);
    std::fs::write(&boot, boot_id()).map_err(|e| Error::io("write", &boot, e))?;
    let bytes = tree_bytes + block(written) + block(apk.data_offset) + 8 * BLOCK_BYTES;
    if cache.put_folder(&made.0, bytes, folder)? {
        made.keep();
    }
    Ok(())
}

/// Copies what stands before the data section, which is verified again by each that reads it.
fn copy_head(apk: &ApkFile, to: &Path) -> io::Result<()> {
    let from = File::open(&apk.path)?;
    io::copy(&mut io::Read::take(from, apk.data_offset), &mut File::create_new(to)?).map(drop)
}

fn write_list(path: &Path, list: &LayerList) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, File::create_new(path)?);
    serde_json::to_writer(&mut file, list)?;
    file.flush()
}

/// A folder that is removed unless it is kept.
struct Unfinished(PathBuf);

impl Unfinished {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = remove(&self.0)
        {
            tracing::warn!(reason = %error.chain(), "an unfinished folder could not be removed");
        }
    }
}

/// Removes a folder. A package may have folders in which its owner may not write.
fn remove(folder: &Path) -> Result<()> {
    if std::fs::remove_dir_all(folder).is_ok() {
        return Ok(());
    }
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let failed = |e| Error::io("remove", &folder, e);
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(failed)?;
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Links are not followed.
            if entry.file_type().map_err(failed)?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    std::fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, e))
}
