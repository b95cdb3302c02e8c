//! The sandbox's folders: unpacked root filesystems, and one for each guest that runs.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::launch::Starter;
use super::protocol::Order;
use crate::error::{Error, Result};
use crate::guest::{self, Blob, GuestPlan};
use crate::locks::{FolderUse, NamedLocks, folder_use, hold_folder};

/// Folders below the state folder, readable by nobody else.
#[derive(Debug)]
pub(super) struct Folders {
    roots: PathBuf,
    guests: PathBuf,
    starter: Starter,
    /// By the digest of a root filesystem, so that it is unpacked once.
    unpacking: NamedLocks,
}

/// The name of a step's script in the guest's folder of scripts.
pub(super) fn step_script(index: usize) -> String {
    format!("step-{index:04}.sh")
}

impl Folders {
    /// Makes the folders and removes the guests that killed engines left.
    pub(super) fn open(state_dir: &Path, starter: Starter) -> Result<Self> {
        for name in ["roots", "guests"] {
            let path = state_dir.join(name);
            std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
            // A setuid file that a step makes must not be within reach of this machine's other users.
            std::fs::set_permissions(&path, Permissions::from_mode(0o700))
                .map_err(|e| Error::io("protect", &path, e))?;
        }
        let state_dir = state_dir.canonicalize().map_err(|e| Error::io("open", state_dir, e))?;
        let folders = Self {
            roots: state_dir.join("roots"),
            guests: state_dir.join("guests"),
            starter,
            unpacking: NamedLocks::default(),
        };
        folders.sweep();
        Ok(folders)
    }

    /// Removes the guests whose locks nobody holds.
    fn sweep(&self) {
        let mut held = Vec::new();
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.guests).into_iter().flatten().flatten() {
            if let FolderUse::Abandoned(lock) = folder_use(&entry.path()) {
                held.push(lock);
                folders.push(entry.path());
            }
        }
        if folders.is_empty() {
            return;
        }
        if let Err(error) = self.starter.run_blocking(&Order::Remove { folders }) {
            tracing::warn!(reason = %error.chain(), "guests of an earlier run could not be removed");
        }
    }

    /// Removes what a launcher that died left of a guest.
    pub(super) async fn remove(&self, folder: &Path) {
        if !folder.exists() {
            return;
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

    /// The unpacked root filesystem, shared by all guests that use it and never changed.
    pub(super) async fn root(&self, archive: &Blob) -> Result<PathBuf> {
        let path = self.roots.join(&archive.sha256);
        let lock = self.unpacking.of(&archive.sha256);
        let _guard = lock.lock().await;
        if path.exists() {
            return Ok(path);
        }
        let unfinished = tempfile::Builder::new()
            .prefix("unpacking.")
            .tempdir_in(&self.roots)
            .map_err(|e| Error::io("create a folder in", &self.roots, e))?;
        let unfinished = Unfinished { folder: Some(unfinished.keep()), starter: self.starter.clone() };
        let folder = unfinished.path();
        let order = Order::Unpack { archive: archive.path.clone(), folder: folder.clone() };
        self.starter.run(&order).await?;
        match std::fs::rename(&folder, &path) {
            Ok(()) => unfinished.keep(),
            // Another process was faster; ours is removed.
            Err(_) if path.exists() => {}
            Err(error) => return Err(Error::io("create", &path, error)),
        }
        Ok(path)
    }

    /// A folder for a guest with its scripts, and the lock that says that it is in use.
    pub(super) fn guest(&self, plan: &GuestPlan) -> Result<(tempfile::TempDir, File)> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}.", plan.name))
            .tempdir_in(&self.guests)
            .map_err(|e| Error::io("create a folder in", &self.guests, e))?;
        let lock = hold_folder(folder.path())?;
        let scripts = folder.path().join("scripts");
        DirBuilder::new().mode(0o755).create(&scripts).map_err(|e| Error::io("create", &scripts, e))?;
        // The umask of this program is its operator's choice and not the guest's.
        std::fs::set_permissions(&scripts, Permissions::from_mode(0o755))
            .map_err(|e| Error::io("share", &scripts, e))?;
        let steps = plan.steps.iter().enumerate().map(|(index, step)| (step_script(index), &step.script));
        let others = plan.scripts.iter().enumerate().map(|(index, text)| (guest::script_name(index), text));
        for (name, text) in steps.chain(others) {
            write_script(&scripts.join(name), text)?;
        }
        Ok((folder, lock))
    }
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(|e| Error::io("create", path, e))?;
    file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e))?;
    file.set_permissions(Permissions::from_mode(0o644)).map_err(|e| Error::io("share", path, e))
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
