//! The files that assemblies leave for later: packages, indexes, root filesystems. They are bounded together, those not
//! used for longest leave first, and what is in use stays.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::locks::NamedLocks;

/// The folders that are swept, below the folder of the state.
const FOLDERS: [&str; 4] = ["rootfs", "packages", "indexes", "keys"];

type Uses = Arc<Mutex<HashMap<PathBuf, usize>>>;

/// A file that stays as long as this does.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    uses: Uses,
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

/// The cache of one state folder.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    bytes_max: u64,
    uses: Uses,
    making: NamedLocks,
}

impl DiskCache {
    pub(super) fn new(folder: &Path, bytes_max: u64) -> Self {
        Self { folder: folder.to_owned(), bytes_max, uses: Uses::default(), making: NamedLocks::default() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file from being swept, and marks it as used now.
    pub(super) fn hold(&self, path: &Path) -> Held {
        *self.uses.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        // The mark only orders what leaves first; a file that is not there yet gets its time when it is written.
        let now = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        };
        if path.starts_with(&self.folder) {
            let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &now, rustix::fs::AtFlags::empty());
        }
        Held { path: path.to_owned(), uses: Arc::clone(&self.uses) }
    }

    /// The lock of something that is made once, however many ask for it at the same time.
    pub(super) fn making(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.making.of(name)
    }

    /// Removes what was not used for longest until the rest fits; what is in use stays. Returns the bytes left.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub(super) fn sweep(&self) -> Result<u64> {
        let mut files = Vec::new();
        for name in FOLDERS {
            collect(&self.folder.join(name), &mut files)?;
        }
        files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if total <= self.bytes_max {
                break;
            }
            // Looked at under the lock, so that nobody takes the file meanwhile.
            let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            if uses.contains_key(&file.path) || uses.contains_key(&file.path.with_extension("tar")) {
                continue;
            }
            if std::fs::remove_file(&file.path).is_ok() {
                total -= file.bytes;
            }
        }
        Ok(total)
    }
}

struct CachedFile {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

fn collect(folder: &Path, files: &mut Vec<CachedFile>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", folder, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", folder, e))?;
        // Files that leave meanwhile need not be counted; those being written have names of their own.
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let unfinished =
            name.to_string_lossy().starts_with(".tmp") || name.to_string_lossy().starts_with("unchecked-");
        if meta.is_file() && !unfinished {
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            files.push(CachedFile { used, bytes: meta.len(), path: entry.path() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_least_recently_used_leave_first_and_what_is_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, age: u64| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, [0; 100]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let oldest = put("rootfs/a.tar", 50);
        let beside = put("rootfs/a.json", 50);
        let old = put("packages/b", 40);
        let young = put("packages/c", 30);
        let other = put("builds/d", 90);
        let unfinished = put("rootfs/.tmpx", 90);
        let cache = DiskCache::new(folder.path(), 250);
        let held = cache.hold(&oldest);
        assert_eq!(cache.sweep().unwrap(), 200);
        assert!(oldest.exists() && beside.exists(), "in use");
        assert!(!old.exists() && !young.exists() && other.exists() && unfinished.exists());
        drop(held);
        // Used just now, so that it outlives what was not.
        let newer = put("indexes/e", 20);
        assert_eq!(cache.sweep().unwrap(), 200);
        assert!(oldest.exists() && newer.exists() && !beside.exists());
        let same = cache.making("x");
        assert!(Arc::ptr_eq(&same, &cache.making("x")) && !Arc::ptr_eq(&same, &cache.making("y")));
    }
}
