//! Where files lie while something runs: a folder of each owner's, with a lock, so that one that starts can tell what a
//! killed one left from what another one uses.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::locks::{hold_folder, sweep};

/// The folder of one owner, such as an engine. Dropping it removes it, with what is left in it.
#[derive(Debug)]
pub(crate) struct ScratchFolder {
    parent: PathBuf,
    owner: &'static str,
    /// Made at first use, since making it may fail.
    made: std::sync::OnceLock<(tempfile::TempDir, File)>,
}

impl ScratchFolder {
    /// A folder below `parent`, which is named after its kind of owner. What owners left there that live no more is
    /// removed.
    pub(crate) fn new(parent: &Path, owner: &'static str) -> Self {
        sweep(
            parent.to_owned(),
            |_| true,
            |left| {
                for (folder, _examined) in left {
                    if let Err(error) = std::fs::remove_dir_all(&folder) {
                        tracing::warn!(folder = %folder.display(), %error, "a folder of a process that ended is left over");
                    }
                }
            },
        );
        Self { parent: parent.to_owned(), owner, made: std::sync::OnceLock::new() }
    }

    /// The folder.
    pub(crate) fn path(&self) -> Result<&Path> {
        if let Some((folder, _)) = self.made.get() {
            return Ok(folder.path());
        }
        std::fs::create_dir_all(&self.parent).map_err(|e| Error::io("create", &self.parent, e))?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}.", self.owner))
            .tempdir_in(&self.parent)
            .map_err(|e| Error::io("create a folder in", &self.parent, e))?;
        let lock = hold_folder(folder.path())?;
        // Of two that come here at once one wins, and the other's folder goes away again.
        Ok(self.made.get_or_init(|| (folder, lock)).0.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_engine_left_is_removed_and_what_a_living_one_uses_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = ScratchFolder::new(parent.path(), "engine");
        std::fs::write(living.path().unwrap().join("file"), "x").unwrap();
        let killed = parent.path().join("engine.killed");
        std::fs::create_dir_all(killed.join("job")).unwrap();
        std::fs::write(killed.join(crate::locks::FOLDER_LOCK), "").unwrap();
        let other = ScratchFolder::new(parent.path(), "engine");
        assert!(!killed.exists());
        assert!(living.path().unwrap().join("file").exists());
        assert_ne!(other.path().unwrap(), living.path().unwrap());
        drop(other);
        drop(living);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
