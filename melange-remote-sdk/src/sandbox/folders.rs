//! The sandbox's folders: unpacked root filesystems, and one for each guest that runs.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::launch::Starter;
use super::launcher::remove_groups;
use super::masks::{EMPTY_FILE, EMPTY_FOLDER};
use super::protocol::{OVERLAY_WORK, Order, SCRIPTS, TREE, UPPER};
use crate::cache::{self, Shelf, StateCache};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{Blob, GuestUser};
use crate::locks::{NamedLocks, hold_folder, sweep};

/// Folders below the state folder, readable by nobody else.
#[derive(Debug)]
pub(super) struct Folders {
    cache: Arc<StateCache>,
    roots: Arc<Roots>,
    guests: PathBuf,
    starter: Starter,
    /// By the name of a root filesystem, so that it is unpacked once.
    unpacking: NamedLocks,
}

/// The unpacked root filesystems, each in a folder named after the digests of its archives.
#[derive(Debug)]
struct Roots {
    folder: PathBuf,
    starter: Starter,
}

impl Shelf for Roots {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn remove(&self, folder: &Path) -> Result<()> {
        self.starter.run_blocking(&Order::Remove { folders: vec![folder.to_owned()] })
    }
}

/// An unpacked root filesystem, which stays as long as this does.
#[derive(Debug)]
pub(super) struct HeldRoot {
    folder: PathBuf,
    _lock: File,
}

impl HeldRoot {
    /// Its tree, which is never changed.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join(TREE)
    }
}

impl Folders {
    /// Makes the folders and removes the guests and unfinished root filesystems that killed engines left. Root
    /// filesystems count against the cache's bound.
    pub(super) fn open(cache: Arc<StateCache>, starter: Starter) -> Result<Self> {
        let state_dir = cache.folder();
        for name in ["roots", "guests"] {
            let path = state_dir.join(name);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
            // A setuid file that a step makes must not be within reach of this machine's other users.
            std::fs::set_permissions(&path, Permissions::from_mode(0o700))
                .map_err(|e| Error::io("protect", &path, e))?;
        }
        let state_dir = state_dir.canonicalize().map_err(|e| Error::io("open", state_dir, e))?;
        let roots = Arc::new(Roots { folder: state_dir.join("roots"), starter: starter.clone() });
        cache.add(Arc::downgrade(&roots) as Weak<dyn Shelf>);
        let guests = state_dir.join("guests");
        let folders = Self { cache, roots, guests, starter, unpacking: NamedLocks::default() };
        folders.sweep();
        Ok(folders)
    }

    /// Removes the guests and the unfinished root filesystems whose locks nobody holds.
    fn sweep(&self) {
        let remove = |starter: &Starter, left: Vec<(PathBuf, Option<File>)>| {
            let (folders, _held): (Vec<_>, Vec<_>) = left.into_iter().unzip();
            if let Err(error) = starter.run_blocking(&Order::Remove { folders }) {
                tracing::warn!(reason = %error.chain(), "folders of an earlier run could not be removed");
            }
        };
        let starter = self.starter.clone();
        sweep(
            self.guests.clone(),
            |_| true,
            move |left| {
                for (folder, _held) in &left {
                    // Nobody holds the lock: its launcher and its engine were killed.
                    remove_groups(folder.file_name().unwrap_or_default());
                }
                remove(&starter, left);
            },
        );
        let starter = self.starter.clone();
        let unfinished = |folder: &Path| !cache::is_whole(folder);
        sweep(self.roots.folder.clone(), unfinished, move |left| remove(&starter, left));
    }

    /// Removes what a launcher that died left of a guest: its processes, its control groups and its folder.
    pub(super) async fn remove(&self, folder: &Path) {
        if !folder.exists() {
            return;
        }
        let name = folder.file_name().unwrap_or_default().to_owned();
        // First, so that nothing is written any more.
        if let Err(error) = tokio::task::spawn_blocking(move || remove_groups(&name)).await {
            tracing::warn!(%error, "the removal of a guest's control groups died");
        }
        if let Err(error) = self.starter.run(&Order::Remove { folders: vec![folder.to_owned()] }).await {
            tracing::warn!(folder = %folder.display(), reason = %error.chain(), "a guest could not be removed");
        }
    }

    /// An empty folder for a trial.
    pub(super) fn probe(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("probe.")
            .tempdir_in(&self.guests)
            .map_err(|e| Error::io("create a folder in", &self.guests, e))
    }

    /// The unpacked root filesystem with the workspace that guests have in common, which is never changed.
    pub(super) async fn root(&self, root: &Blob, workspace: &[Blob], user: GuestUser) -> Result<HeldRoot> {
        // The workspace's archives name its owners.
        let digests: Vec<&str> = std::iter::once(root).chain(workspace).map(|blob| &*blob.sha256).collect();
        let name = digests.join("-");
        let folder = self.roots.folder.join(&name);
        let lock = self.unpacking.of(&name);
        let _guard = lock.lock().await;
        if let Some(lock) = self.cache.hold_folder(&folder)? {
            return Ok(HeldRoot { folder, _lock: lock });
        }
        let lock = self.unpack(root, workspace, user, &folder).await?;
        let cache = Arc::clone(&self.cache);
        match tokio::task::spawn_blocking(move || cache.sweep()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the cache cannot be swept"),
            Err(error) => tracing::warn!(%error, "the sweep of the cache died"),
        }
        Ok(HeldRoot { folder, _lock: lock })
    }

    /// Unpacks a root filesystem as `folder` and holds it.
    async fn unpack(&self, root: &Blob, workspace: &[Blob], user: GuestUser, folder: &Path) -> Result<File> {
        let made = tempfile::Builder::new()
            .prefix("unpacking.")
            .tempdir_in(&self.roots.folder)
            .map_err(|e| Error::io("create a folder in", &self.roots.folder, e))?;
        let lock = hold_folder(made.path())?;
        let made = Unfinished { folder: Some(made.keep()), starter: self.starter.clone() };
        let absolute =
            |blob: &Blob| std::path::absolute(&blob.path).map_err(|e| Error::io("find", &blob.path, e));
        let order = Order::Unpack {
            folder: made.path(),
            archive: absolute(root)?,
            workspace: workspace.iter().map(absolute).collect::<Result<_>>()?,
            uid: user.uid,
            gid: user.gid,
        };
        self.starter.run(&order).await?;
        let bytes = std::iter::once(root).chain(workspace).map(|blob| blob.size_bytes).sum();
        if self.cache.put_folder(&made.path(), bytes, folder)? {
            made.keep();
            return Ok(lock);
        }
        // Another process was faster; ours is removed.
        self.cache.hold_folder(folder)?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the root filesystem was removed by another process")
                .with("folder", folder.display())
        })
    }

    /// A folder of this name for a guest with what every guest's has, and the lock that says that it is in use.
    pub(super) fn guest(&self, name: &str) -> Result<(tempfile::TempDir, File)> {
        let folder = tempfile::Builder::new()
            .prefix(name)
            .rand_bytes(0)
            .tempdir_in(&self.guests)
            .map_err(|e| Error::io("create a folder in", &self.guests, e))?;
        let lock = hold_folder(folder.path())?;
        // The umask of this program is its operator's choice and not the guest's.
        let share = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o755));
        share(folder.path()).map_err(|e| Error::io("share", folder.path(), e))?;
        for name in [TREE, UPPER, OVERLAY_WORK, SCRIPTS, EMPTY_FOLDER] {
            let path = folder.path().join(name);
            std::fs::create_dir(&path)
                .and_then(|()| share(&path))
                .map_err(|e| Error::io("create", &path, e))?;
        }
        let file = folder.path().join(EMPTY_FILE);
        File::create_new(&file)
            .and_then(|made| made.set_permissions(Permissions::from_mode(0o444)))
            .map_err(|e| Error::io("create", &file, e))?;
        Ok((folder, lock))
    }
}

/// A folder that is removed by a launcher unless it is kept: its files may belong to mapped ids.
struct Unfinished {
    folder: Option<PathBuf>,
    starter: Starter,
}

impl Unfinished {
    fn path(&self) -> PathBuf {
        self.folder.clone().unwrap_or_default()
    }

    fn keep(mut self) {
        self.folder = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let starter = self.starter.clone();
        // Not on the thread of whoever gave up waiting.
        std::thread::spawn(move || {
            if let Err(error) = starter.run_blocking(&Order::Remove { folders: vec![folder] }) {
                tracing::warn!(reason = %error.chain(), "an unfinished root filesystem could not be removed");
            }
        });
    }
}
