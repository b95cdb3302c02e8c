//! When the work can be left out: locks, stamps, and putting a finished repository in its place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The text of every module that has a say in what a repository contains: a change to one makes repositories anew.
const GENERATOR: &[&str] = &[
    include_str!("analyse.rs"),
    include_str!("apk.rs"),
    include_str!("apt.rs"),
    include_str!("archive.rs"),
    include_str!("deb.rs"),
    include_str!("elf.rs"),
    include_str!("make.rs"),
    include_str!("manifest.rs"),
    include_str!("paths.rs"),
    include_str!("plan.rs"),
    include_str!("resolve.rs"),
    include_str!("special.rs"),
    include_str!("tree.rs"),
    include_str!("version.rs"),
];

/// Where Debian packages and lists are kept when the caller does not say: below the user's cache directory.
pub fn default_directory() -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither --cache nor HOME is set")?.join("melange-remote-test-distro"))
}

const STAMP: &str = ".stamp.json";

/// What a repository was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Hash of what is known without asking the archive: manifest, generator, suite, profiles, key.
    pub request: String,
    /// Hash of that and of every Debian package with its version.
    pub content: String,
}

impl Stamp {
    /// The stamp beside a repository, if there is one.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(STAMP)).ok()?).ok()
    }

    /// Writes the stamp; the last step of making a repository.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let temporary = directory.join(".stamp.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        Ok(fs::rename(&temporary, directory.join(STAMP))?)
    }

    /// Removes the stamp; what is there is no longer whole.
    pub fn remove(directory: &Path) -> Result<()> {
        match fs::remove_file(directory.join(STAMP)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Hash of the generator's own text.
pub fn generator() -> String {
    digest(GENERATOR)
}

/// Hash of some texts; where one ends matters.
pub fn digest<T: AsRef<str>>(texts: &[T]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.as_ref().len() as u64).to_le_bytes());
        hash.update(text.as_ref());
    }
    hex::encode(hash.finalize())
}

/// Waits until no other run works in a directory; the lock lasts as long as the file is held.
pub fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let path = directory.join(".lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Puts a directory in the place of another.
pub fn replace_directory(new: &Path, place: &Path) -> Result<()> {
    let old = place.with_extension("old");
    remove_directory(&old)?;
    if place.exists() {
        fs::rename(place, &old).with_context(|| place.display().to_string())?;
    }
    fs::rename(new, place).with_context(|| new.display().to_string())?;
    remove_directory(&old)
}

/// Removes a directory, if there is one.
pub fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_where_texts_end() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["a"]), digest(&["a".to_owned()]));
    }

    #[test]
    fn stamps_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::read(directory.path()), None);
        let stamp = Stamp { request: "r".to_owned(), content: "c".to_owned() };
        stamp.write(directory.path()).unwrap();
        assert_eq!(Stamp::read(directory.path()), Some(stamp));
        Stamp::remove(directory.path()).unwrap();
        Stamp::remove(directory.path()).unwrap();
        assert_eq!(Stamp::read(directory.path()), None);
    }

    #[test]
    fn directories_are_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (new, place) = (directory.path().join("new"), directory.path().join("place"));
        for text in ["1", "2"] {
            fs::create_dir(&new).unwrap();
            fs::write(new.join("file"), text).unwrap();
            replace_directory(&new, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), text);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
