//! Locks by name between the tasks of this process, and locks on folders between processes.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

/// What the lock in a folder is called.
pub(crate) const FOLDER_LOCK: &str = "lock";

/// One lock per name, for what is made once however many ask for it at the same time.
#[derive(Debug, Default)]
pub(crate) struct NamedLocks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl NamedLocks {
    /// The lock of `name`. Those that nobody has any more are forgotten.
    pub(crate) fn of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Whether a process uses a folder.
#[derive(Debug)]
pub(crate) enum FolderUse {
    /// One holds its lock.
    InUse,
    /// The one that held its lock is gone; nobody else takes it while the file is open.
    Abandoned(File),
    /// It has no lock.
    NeverHeld,
}

/// Marks a folder as in use, until the file is closed: by a drop, or by the end of the process.
///
/// # Errors
/// When the lock cannot be made or another process examines the folder.
pub(crate) fn hold_folder(folder: &Path) -> Result<File> {
    let path = folder.join(FOLDER_LOCK);
    let lock = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|e| Error::io("lock", &path, e.into()))?;
    Ok(lock)
}

/// Locks a file, which is made when it is missing, and waits for those who hold it otherwise. It is free again when the
/// file is closed.
///
/// # Errors
/// When the file cannot be made or this file system has no locks.
pub(crate) fn wait_for(path: &Path, operation: FlockOperation) -> Result<File> {
    let mut options = File::options();
    let lock = options.create(true).append(true).open(path).map_err(|e| Error::io("create", path, e))?;
    flock(&lock, operation).map_err(|e| Error::io("lock", path, e.into()))?;
    Ok(lock)
}

/// Looks whether a folder is in use.
pub(crate) fn folder_use(folder: &Path) -> FolderUse {
    match File::open(folder.join(FOLDER_LOCK)) {
        Err(_) => FolderUse::NeverHeld,
        Ok(lock) if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() => {
            FolderUse::Abandoned(lock)
        }
        Ok(_) => FolderUse::InUse,
    }
}

/// Those of the `candidates` in `parent` that processes left which live no more, each with its lock where it has one.
/// Folders without a lock count once they are old enough that nobody is about to lock them.
pub(crate) fn abandoned(parent: &Path, candidates: impl Fn(&Path) -> bool) -> Vec<(PathBuf, Option<File>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !candidates(&folder) {
            continue;
        }
        match folder_use(&folder) {
            FolderUse::InUse => {}
            FolderUse::NeverHeld if young(&folder) => {}
            FolderUse::NeverHeld => found.push((folder, None)),
            FolderUse::Abandoned(lock) => found.push((folder, Some(lock))),
        }
    }
    found
}

/// Whether a folder may be one that a process makes right now and has not locked yet.
fn young(folder: &Path) -> bool {
    let age =
        std::fs::metadata(folder).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age.as_secs() < 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_lock_as_long_as_somebody_has_it() {
        let locks = NamedLocks::default();
        let same = locks.of("x");
        assert!(Arc::ptr_eq(&same, &locks.of("x")) && !Arc::ptr_eq(&same, &locks.of("y")));
        drop(same);
        locks.of("z");
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_folder_is_in_use_until_its_lock_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(folder_use(folder.path()), FolderUse::NeverHeld));
        let lock = hold_folder(folder.path()).unwrap();
        let other = hold_folder(folder.path()).unwrap();
        drop(lock);
        assert!(matches!(folder_use(folder.path()), FolderUse::InUse));
        drop(other);
        let FolderUse::Abandoned(_examined) = folder_use(folder.path()) else { panic!("still in use") };
        hold_folder(folder.path()).unwrap_err();
    }
}
