//! What a state folder keeps for later: downloaded packages, indexes, keys and sources, assembled root filesystems, and
//! folders such as the root filesystems that the sandbox unpacked. All of it is bounded together, what was not used for
//! longest leaves first, and what is in use stays, whichever process uses it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, utimensat};

use crate::error::{Error, Result};
use crate::locks::{FOLDER_LOCK, FolderUse, folder_use, hold_folder, wait_for};

/// The folders of cached files, below the folder of the state.
const FOLDERS: [&str; 5] = ["rootfs", "packages", "indexes", "keys", SOURCES];

/// The folder of sources that are named by a checksum.
pub(crate) const SOURCES: &str = "fetched";

/// Who begins to use something shares it, who removes something has it alone, so that nothing is removed between a look
/// at it and its lock.
const GATE: &str = "cache.lock";

/// Tells how many bytes a cached folder counts.
const SIZE: &str = "size";

type Uses = Arc<Mutex<HashMap<PathBuf, usize>>>;

/// A file that stays as long as this does.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    uses: Uses,
    /// Says so to other processes; a file that is not there yet has none.
    _lock: Option<File>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = uses.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                uses.remove(&self.path);
            }
        }
    }
}

/// A kind of cached folders, all in one folder. Only their owner knows how to remove them: their files may belong to
/// other users.
pub(crate) trait Shelf: Send + Sync + std::fmt::Debug {
    /// Where the folders lie. Names with a dot are not swept: they are being made or removed.
    fn folder(&self) -> &Path;

    /// Removes a folder that nobody uses or finds any more.
    ///
    /// # Errors
    /// When some of it is left.
    fn remove(&self, folder: &Path) -> Result<()>;
}

/// The caches of one state folder.
#[derive(Debug)]
pub struct StateCache {
    folder: PathBuf,
    bytes_max: u64,
    uses: Uses,
    shelves: Mutex<Vec<Weak<dyn Shelf>>>,
}

impl StateCache {
    /// The caches below `folder`, together at most `bytes_max` bytes besides what is in use. An unpacked root filesystem
    /// counts what its archive has.
    pub fn new(folder: &Path, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            bytes_max,
            uses: Uses::default(),
            shelves: Mutex::default(),
        })
    }

    /// Bytes as people write them: a number and a unit of 1024, `K`, `M`, `G` or `T`, also as `GB` and `GiB`.
    ///
    /// ```
    /// use melange_remote_sdk::cache::StateCache;
    /// assert_eq!(StateCache::parse_size("20G"), Some(20 << 30));
    /// assert_eq!(StateCache::parse_size("a lot"), None);
    /// ```
    pub fn parse_size(text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let unit = unit.trim().to_ascii_uppercase();
        let power = match unit.trim_end_matches('B').trim_end_matches('I') {
            "" => 0,
            "K" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(power))
    }

    /// What it may keep besides what is in use.
    #[cfg(feature = "http")]
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The folder of the state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sweeps the folders of `shelf` too, as long as it is there.
    pub(crate) fn add(&self, shelf: Weak<dyn Shelf>) {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).push(shelf);
    }

    /// Keeps a file from being swept, and marks it as used now. A file that is not there yet is kept from the sweeps of
    /// this process only: hold it again once it is there.
    pub(crate) fn hold(&self, path: &Path) -> Held {
        let gate = path.starts_with(&self.folder).then(|| self.gate(FlockOperation::LockShared));
        *self.uses.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        let mut lock = None;
        // What is no file of the cache is nobody's to sweep; without a state folder there is nothing in it.
        if let Some(Ok(_open)) = gate {
            mark_used(path);
            lock = File::open(path).ok().filter(|file| flock(file, FlockOperation::LockShared).is_ok());
        }
        Held { path: path.to_owned(), uses: Arc::clone(&self.uses), _lock: lock }
    }

    /// Keeps a folder of a [`Shelf`] from being swept until the file is closed, and marks it as used now; `None` when
    /// there is none.
    ///
    /// # Errors
    /// When it cannot be locked.
    pub(crate) fn hold_folder(&self, folder: &Path) -> Result<Option<File>> {
        let _open = self.gate(FlockOperation::LockShared)?;
        if !is_whole(folder) {
            return Ok(None);
        }
        let lock = hold_folder(folder)?;
        mark_used(&folder.join(FOLDER_LOCK));
        Ok(Some(lock))
    }

    /// Gives a folder of a [`Shelf`], which its maker holds, its name in the cache. Whether it was given: another process
    /// may have been faster.
    ///
    /// # Errors
    /// When it cannot be named.
    pub(crate) fn put_folder(&self, made: &Path, bytes: u64, folder: &Path) -> Result<bool> {
        let size = made.join(SIZE);
        std::fs::write(&size, bytes.to_string()).map_err(|e| Error::io("write", &size, e))?;
        match std::fs::rename(made, folder) {
            Ok(()) => Ok(true),
            Err(_) if is_whole(folder) => Ok(false),
            Err(error) => Err(Error::io("create", folder, error)),
        }
    }

    /// Removes what was not used for longest until the rest fits; what is in use stays. Returns the bytes left.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub(crate) fn sweep(&self) -> Result<u64> {
        let mut items = Vec::new();
        for name in FOLDERS {
            list_files(&self.folder.join(name), &mut items)?;
        }
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut listed: Vec<Arc<dyn Shelf>> = Vec::new();
        for shelf in shelves.iter().filter_map(Weak::upgrade) {
            // Two sandboxes may have one folder.
            if listed.iter().all(|other| other.folder() != shelf.folder()) {
                list_folders(&shelf, &mut items)?;
                listed.push(shelf);
            }
        }
        items.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let mut total: u64 = items.iter().map(|item| item.bytes).sum();
        for item in items {
            if total <= self.bytes_max {
                break;
            }
            let removed = match &item.shelf {
                None => self.remove_file(&item.path)?,
                Some(shelf) => self.remove_folder(&item.path, &**shelf)?,
            };
            if removed {
                total -= item.bytes;
            }
        }
        Ok(total)
    }

    fn gate(&self, operation: FlockOperation) -> Result<File> {
        wait_for(&self.folder.join(GATE), operation)
    }

    /// Removes a file unless it is in use; whether it did.
    fn remove_file(&self, path: &Path) -> Result<bool> {
        let _alone = self.gate(FlockOperation::LockExclusive)?;
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        // A root filesystem's description is used with it.
        let archive = path.with_extension("tar");
        let used = |path: &Path| {
            uses.contains_key(path)
                || File::open(path)
                    .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
        };
        Ok(!used(path) && !used(&archive) && std::fs::remove_file(path).is_ok())
    }

    /// Removes a folder unless it is in use; whether it did.
    fn remove_folder(&self, folder: &Path, shelf: &dyn Shelf) -> Result<bool> {
        let gone = shelf.folder().join(format!("removing.{}", uuid::Uuid::now_v7().simple()));
        // Others that look for what killed processes left see that this one is in hand.
        let _examined = {
            let _alone = self.gate(FlockOperation::LockExclusive)?;
            let FolderUse::Abandoned(lock) = folder_use(folder) else { return Ok(false) };
            if std::fs::rename(folder, &gone).is_err() {
                return Ok(false);
            }
            lock
        };
        if let Err(error) = shelf.remove(&gone) {
            // The next start tries again.
            tracing::warn!(folder = %gone.display(), reason = %error.chain(), "a cached folder is left over");
        }
        Ok(true)
    }
}

/// Whether a cached folder has its name, and so all that belongs in it.
pub(crate) fn is_whole(folder: &Path) -> bool {
    let unfinished = folder.file_name().is_none_or(|name| name.to_string_lossy().contains('.'));
    !unfinished && folder.join(SIZE).exists()
}

/// A mark that is younger than this is not renewed: that costs the file system a record each time.
const MARK_AGAIN: Duration = Duration::from_secs(60);

/// The mark only orders what leaves first; what is not there yet gets its time when it is written.
pub(crate) fn mark_used(path: &Path) {
    let marked = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if marked.and_then(|at| at.elapsed().ok()).is_some_and(|age| age < MARK_AGAIN) {
        return;
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty());
}

struct Item {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
    /// Whose folder it is; `None` for a file.
    shelf: Option<Arc<dyn Shelf>>,
}

/// The entries of a folder, which need not be there.
fn entries(folder: &Path) -> Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect::<std::io::Result<_>>().map_err(|e| Error::io("list", folder, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", folder, e)),
    }
}

fn list_files(folder: &Path, items: &mut Vec<Item>) -> Result<()> {
    for entry in entries(folder)? {
        // Files that leave meanwhile need not be counted; those being written have names of their own.
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if meta.is_file() && !name.starts_with(".tmp") && !name.starts_with("unchecked-") {
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            items.push(Item { used, bytes: meta.len(), path: entry.path(), shelf: None });
        }
    }
    Ok(())
}

fn list_folders(shelf: &Arc<dyn Shelf>, items: &mut Vec<Item>) -> Result<()> {
    for entry in entries(shelf.folder())? {
        let path = entry.path();
        if !is_whole(&path) {
            continue;
        }
        let Ok(size) = std::fs::read_to_string(path.join(SIZE)) else { continue };
        let used = std::fs::metadata(path.join(FOLDER_LOCK)).and_then(|meta| meta.modified());
        items.push(Item {
            used: used.unwrap_or(SystemTime::UNIX_EPOCH),
            bytes: size.parse().unwrap_or_default(),
            path,
            shelf: Some(Arc::clone(shelf)),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_before(path: &Path, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - seconds);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn put(folder: &Path, name: &str, age: u64) -> PathBuf {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, [0; 100]).unwrap();
        used_before(&path, age);
        path
    }

    #[derive(Debug)]
    struct Plain(PathBuf);

    impl Shelf for Plain {
        fn folder(&self) -> &Path {
            &self.0
        }

        fn remove(&self, folder: &Path) -> Result<()> {
            std::fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, e))
        }
    }

    /// A cached folder of 100 bytes that nobody uses.
    fn put_folder(cache: &StateCache, shelf: &Plain, name: &str, age: u64) -> PathBuf {
        let made = shelf.0.join(format!("making.{name}"));
        std::fs::create_dir_all(&made).unwrap();
        let _maker = hold_folder(&made).unwrap();
        let folder = shelf.0.join(name);
        assert!(cache.put_folder(&made, 100, &folder).unwrap());
        used_before(&folder.join(FOLDER_LOCK), age);
        folder
    }

    #[test]
    fn the_least_recently_used_leave_first_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, age: u64| put(folder.path(), name, age);
        let oldest = put("rootfs/a.tar", 50);
        let beside = put("rootfs/a.json", 50);
        let old = put("packages/b", 40);
        let young = put("packages/c", 30);
        let other = put("builds/d", 90);
        let unfinished = put("rootfs/.tmpx", 90);
        let cache = StateCache::new(folder.path(), 250);
        let held = cache.hold(&oldest);
        assert_eq!(cache.sweep().unwrap(), 200);
        assert!(oldest.exists() && beside.exists(), "in use");
        assert!(!old.exists() && !young.exists() && other.exists() && unfinished.exists());
        drop(held);
        // Used just now, so that it outlives what was not.
        let newer = put("indexes/e", 20);
        assert_eq!(cache.sweep().unwrap(), 200);
        assert!(oldest.exists() && newer.exists() && !beside.exists());
    }

    #[test]
    fn files_and_folders_share_one_bound_and_one_order() {
        let folder = tempfile::tempdir().unwrap();
        let cache = StateCache::new(folder.path(), 300);
        let shelf = Arc::new(Plain(folder.path().join("roots")));
        cache.add(Arc::downgrade(&shelf) as Weak<dyn Shelf>);
        let root = put_folder(&cache, &shelf, "one", 50);
        let file = put(folder.path(), "rootfs/a.tar", 40);
        let other = put_folder(&cache, &shelf, "two", 30);
        let package = put(folder.path(), "packages/b", 20);
        // The oldest folder leaves before a younger file, and without a trace.
        assert_eq!(cache.sweep().unwrap(), 300);
        assert!(!root.exists() && file.exists() && other.exists() && package.exists());
        assert_eq!(std::fs::read_dir(&shelf.0).unwrap().count(), 1);
        assert!(cache.hold_folder(&root).unwrap().is_none());
        // A folder that was used just now outlives what was not.
        drop(cache.hold_folder(&other).unwrap().unwrap());
        put(folder.path(), "indexes/c", 10);
        put(folder.path(), "indexes/d", 10);
        assert_eq!(cache.sweep().unwrap(), 300);
        assert!(!file.exists() && !package.exists() && other.exists());
    }

    #[test]
    fn what_another_process_uses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = StateCache::new(folder.path(), 0);
        let shelf = Arc::new(Plain(folder.path().join("roots")));
        cache.add(Arc::downgrade(&shelf) as Weak<dyn Shelf>);
        let file = put(folder.path(), "rootfs/a.tar", 50);
        let root = put_folder(&cache, &shelf, "one", 50);
        // As another process has it: nothing in common but the folder.
        let elsewhere = StateCache::new(folder.path(), 0);
        let held = (elsewhere.hold(&file), elsewhere.hold_folder(&root).unwrap());
        assert_eq!(cache.sweep().unwrap(), 200);
        assert!(file.exists() && root.exists());
        drop(held);
        assert_eq!(cache.sweep().unwrap(), 0);
        assert!(!file.exists() && !root.exists());
    }

    #[test]
    fn of_two_that_make_a_folder_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = StateCache::new(folder.path(), 300);
        let shelf = Plain(folder.path().join("roots"));
        let first = put_folder(&cache, &shelf, "one", 50);
        let made = shelf.0.join("making.again");
        std::fs::create_dir_all(&made).unwrap();
        let _maker = hold_folder(&made).unwrap();
        assert!(!cache.put_folder(&made, 100, &first).unwrap());
        assert!(made.exists() && cache.hold_folder(&first).unwrap().is_some());
    }
}
