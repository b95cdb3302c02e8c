//! What is made for a guest before it is known: its folder, and a launcher that has loaded its program and made a network.
//! Together they take most of the time of a small guest.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::runtime::{Handle, Id};

use super::folders::Folders;
use super::launch::{Launched, Starter};
use crate::error::{Error, Result};

/// A launcher without an order, and a folder for its guest.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) launched: Launched,
    pub(super) folder: TempDir,
    /// Says that the folder is in use.
    pub(super) lock: File,
}

impl Prepared {
    async fn new(starter: &Starter, folders: &Arc<Folders>, online: bool) -> Result<Self> {
        // Of the folder and of the control groups.
        let name = format!("{:016x}", fastrand::u64(..));
        // The program loads while the folder is made.
        let launched = starter.start_for_a_guest(online, &name);
        let folders = Arc::clone(folders);
        let making = tokio::task::spawn_blocking(move || folders.guest(&name));
        let (folder, lock) =
            making.await.map_err(|e| Error::unexpected("the guest's preparation died").source(e))??;
        Ok(Self { launched: launched?, folder, lock })
    }
}

/// At most one that waits for the next guest.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// With the runtime that watches the launcher's pipes, which may be gone when the next guest comes.
    waiting: Mutex<Option<(Id, Prepared)>>,
}

impl Ready {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<(Id, Prepared)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, or else a new one, for a guest whose steps have a network or not.
    pub(super) async fn take(
        &self,
        starter: &Starter,
        folders: &Arc<Folders>,
        online: bool,
    ) -> Result<Prepared> {
        let waiting = self.waiting().take();
        if let Some((runtime, mut prepared)) = waiting {
            let is_running = prepared.launched.is_running();
            if is_running && runtime == Handle::current().id() {
                return Ok(prepared);
            }
            if !is_running {
                let (folders, folder) = (Arc::clone(folders), prepared.folder.keep());
                // In a task, which goes on when nobody waits for the guest any more.
                let removal = tokio::spawn(async move { folders.remove(&folder).await });
                if let Err(error) = removal.await {
                    tracing::warn!(%error, "the removal of a guest died");
                }
            }
        }
        Prepared::new(starter, folders, online).await
    }

    /// Has one wait for the next guest, which is taken to need what the last one needed; one that does not fit does too,
    /// later.
    pub(super) async fn refill(&self, starter: &Starter, folders: &Arc<Folders>, online: bool) {
        if self.waiting().is_some() {
            return;
        }
        // The next guest tells of a failure, when it makes its own.
        if let Ok(prepared) = Prepared::new(starter, folders, online).await {
            let surplus = self.waiting().replace((Handle::current().id(), prepared));
            if surplus.is_some() {
                // Its folder is removed from the disk.
                let _ = tokio::task::spawn_blocking(move || drop(surplus)).await;
            }
        }
    }
}
