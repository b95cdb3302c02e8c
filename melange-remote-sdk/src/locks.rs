//! Locks by name between the tasks of this process, and locks on folders between processes.

#[cfg(feature = "apk")]
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
#[cfg(feature = "apk")]
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

#[cfg(feature = "apk")]
use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

/// What the lock in a folder is called.
pub(crate) const FOLDER_LOCK: &str = "lock";

/// One lock per name, for what is made once however many ask for it at the same time.
#[cfg(feature = "apk")]
#[derive(Debug, Default)]
pub(crate) struct NamedLocks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

#[cfg(feature = "apk")]
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
    // What is there is not written to: file systems would have to record that.
    let lock =
        File::open(&path).or_else(|_| File::create(&path)).map_err(|e| Error::io("create", &path, e))?;
    lock.try_lock_shared().map_err(|e| Error::io("lock", &path, e.into()))?;
    Ok(lock)
}

/// Locks a file, which is made when it is missing, and waits for those who hold it otherwise. It is free again when the
/// file is closed.
///
/// # Errors
/// When the file cannot be made or this file system has no locks.
#[cfg(feature = "apk")]
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
        Ok(lock) if lock.try_lock().is_ok() => FolderUse::Abandoned(lock),
        Ok(_) => FolderUse::InUse,
    }
}

/// What was left in a folder of folders.
#[derive(Debug, Default)]
pub(crate) struct LeftOver {
    /// Folders of processes that live no more, each with its lock where it has one.
    pub(crate) abandoned: Vec<(PathBuf, Option<File>)>,
    /// Folders that a process uses, or may be about to lock.
    pub(crate) in_doubt: Vec<PathBuf>,
}

/// Looks through the `candidates` in `parent`. Folders without a lock count as abandoned once they are old enough that
/// nobody is about to lock them.
pub(crate) fn left_over(parent: &Path, candidates: impl Fn(&Path) -> bool) -> LeftOver {
    let mut left = LeftOver::default();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !candidates(&folder) {
            continue;
        }
        match folder_use(&folder) {
            FolderUse::InUse => left.in_doubt.push(folder),
            FolderUse::NeverHeld if young(&folder) => left.in_doubt.push(folder),
            FolderUse::NeverHeld => left.abandoned.push((folder, None)),
            FolderUse::Abandoned(lock) => left.abandoned.push((folder, Some(lock))),
        }
    }
    left
}

/// Removes what is left of processes that live no more: now, and once more a few times by a thread if some of it is in
/// doubt. What a killed engine ran may take a moment to end, and an engine that takes its place comes at once.
pub(crate) fn sweep(
    parent: PathBuf,
    candidates: impl Fn(&Path) -> bool + Send + 'static,
    remove: impl Fn(Vec<(PathBuf, Option<File>)>) + Send + 'static,
) {
    let left = left_over(&parent, &candidates);
    if !left.abandoned.is_empty() {
        remove(left.abandoned);
    }
    let mut doubtful = left.in_doubt;
    if doubtful.is_empty() {
        return;
    }
    let again = move || {
        for pause in SWEEP_AGAIN {
            std::thread::sleep(pause);
            let left = left_over(&parent, |folder| doubtful.iter().any(|known| known == folder));
            if !left.abandoned.is_empty() {
                remove(left.abandoned);
            }
            doubtful = left.in_doubt;
            if doubtful.is_empty() {
                break;
            }
        }
    };
    // Without the thread the next start sweeps.
    if let Err(error) = std::thread::Builder::new().name("sweeper".to_owned()).spawn(again) {
        tracing::warn!(%error, "what a killed process left is swept at the next start");
    }
}

/// The pauses before one looks again.
const SWEEP_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(3), LOCKED_AFTER, Duration::from_secs(60)];

/// The time after which nobody is about to lock a folder that he made.
const LOCKED_AFTER: Duration = Duration::from_secs(10);

/// Whether a folder may be one that a process makes right now and has not locked yet.
fn young(folder: &Path) -> bool {
    let age =
        std::fs::metadata(folder).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age < LOCKED_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "apk")]
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

    #[test]
    fn what_is_in_use_is_swept_once_it_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = parent.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (dying, gone, living) = (folder("dying"), folder("gone"), folder("living"));
        let (dies, lives) = (hold_folder(&dying).unwrap(), hold_folder(&living).unwrap());
        drop(hold_folder(&gone).unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        sweep(
            parent.path().to_owned(),
            |_| true,
            move |left| {
                left.into_iter().for_each(|(folder, _)| tell.send(folder).unwrap());
            },
        );
        assert_eq!(told.recv().unwrap(), gone);
        drop(dies);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), dying);
        assert!(living.exists());
        drop(lives);
    }
}
