//! The files of one APK package, gathered from Debian packages.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::sha1;
use crate::deb::{Deb, DebEntry, DebKind, read_files};
use crate::manifest::Spec;
use crate::paths::{is_dropped, map_link, map_path, matches_any, normalize, parent};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Symlink(String),
    /// A further name of another file of the package.
    Hardlink(String),
}

/// One path of a package.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970; nothing for what is made here.
    pub mtime: Option<u64>,
    /// What stands there.
    pub node: Node,
}

/// A package's files by path, without leading slashes.
#[derive(Debug, Clone, Default)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// Gathers the files of some Debian packages as the manifest asks for.
    pub fn from_debs(debs: &[Deb], spec: &Spec, python: &str) -> Result<Self> {
        let mut tree = Self::default();
        for deb in debs {
            let wanted = |path: &str| {
                !is_dropped(path)
                    && !matches_any(path, &spec.exclude_debian)
                    && chosen(&map_path(path, python), spec)
            };
            read_files(&deb.path, wanted, |entry| tree.take(entry, spec, python))
                .with_context(|| format!("Debian package {}", deb.name))?;
        }
        tree.check_hard_links()?;
        Ok(tree)
    }

    /// Adds a directory, unless the path is taken.
    pub fn add_directory(&mut self, path: &str, mode: u32) {
        self.0.entry(path.to_owned()).or_insert(Entry { mode, mtime: None, node: Node::Directory });
    }

    /// Sets a file.
    pub fn set_file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), Entry { mode, mtime: None, node: Node::File(data.into()) });
    }

    /// Sets a symbolic link.
    pub fn set_link(&mut self, path: &str, target: &str) {
        self.0.insert(
            path.to_owned(),
            Entry { mode: 0o777, mtime: None, node: Node::Symlink(target.to_owned()) },
        );
    }

    /// The content of a regular file.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match &self.0.get(path)?.node {
            Node::File(data) => Some(data),
            _ => None,
        }
    }

    /// The youngest time in the tree, or a fixed one where everything was made here.
    pub fn newest(&self) -> u64 {
        const MADE_HERE: u64 = 1_700_000_000;
        self.0.values().filter_map(|entry| entry.mtime).max().unwrap_or(MADE_HERE)
    }

    /// Adds the directories that paths stand in, and makes sure that they are directories.
    pub fn add_parents(&mut self) -> Result<()> {
        let paths: Vec<String> = self.0.keys().cloned().collect();
        for path in &paths {
            let mut directory = parent(path);
            while !directory.is_empty() {
                self.add_directory(directory, 0o755);
                let is_directory = self.0.get(directory).is_some_and(|entry| entry.node == Node::Directory);
                ensure!(is_directory, "{path} stands below {directory}, which is no directory");
                directory = parent(directory);
            }
        }
        Ok(())
    }

    /// The checksum APK tools want to see: of a file's content or a symbolic link's target.
    pub fn checksum(&self, node: &Node) -> Result<Option<[u8; 20]>> {
        Ok(match node {
            Node::Directory => None,
            Node::File(data) => Some(sha1(data)),
            Node::Symlink(target) => Some(sha1(target.as_bytes())),
            Node::Hardlink(target) => Some(sha1(
                self.file(target).with_context(|| format!("hard link to {target}, which is no file"))?,
            )),
        })
    }

    fn take(&mut self, entry: DebEntry, spec: &Spec, python: &str) -> Result<()> {
        let path = map_path(&entry.path, python);
        let node = match entry.kind {
            DebKind::Directory if spec.include.is_empty() => Node::Directory,
            DebKind::Directory => return Ok(()),
            DebKind::File(data) => Node::File(data),
            DebKind::Symlink(target) => {
                let target = map_link(&entry.path, &target, python);
                if leads_to(&path, &target) == path {
                    // Two places of Debian that are one here.
                    return Ok(());
                }
                Node::Symlink(target)
            }
            DebKind::Hardlink(target) => Node::Hardlink(map_path(&target, python)),
        };
        match self.0.get(&path) {
            Some(old) if old.node == Node::Directory && node == Node::Directory => return Ok(()),
            Some(old) if old.node != node => bail!("{path} is there twice, with different content"),
            _ => {}
        }
        let mode = if matches!(node, Node::Symlink(_)) { 0o777 } else { entry.mode };
        self.0.insert(path, Entry { mode, mtime: Some(entry.mtime), node });
        Ok(())
    }

    fn check_hard_links(&self) -> Result<()> {
        for (path, entry) in &self.0 {
            if let Node::Hardlink(target) = &entry.node {
                ensure!(
                    self.file(target).is_some(),
                    "{path} is a hard link to {target}, which is in another package"
                );
            }
        }
        Ok(())
    }
}

fn chosen(path: &str, spec: &Spec) -> bool {
    (spec.include.is_empty() || matches_any(path, &spec.include)) && !matches_any(path, &spec.exclude)
}

/// The path a symbolic link names, read in words only.
pub fn leads_to(path: &str, target: &str) -> String {
    match target.strip_prefix('/') {
        Some(absolute) => normalize(absolute),
        None => normalize(&format!("{}/{target}", parent(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: DebKind) -> DebEntry {
        DebEntry { path: path.to_owned(), mode: 0o644, mtime: 7, kind }
    }

    #[test]
    fn two_places_of_debian_become_one() {
        let (mut tree, spec) = (Tree::default(), Spec::default());
        let file = || DebKind::File(b"x".to_vec());
        tree.take(entry("lib/x86_64-linux-gnu/ld.so", file()), &spec, "3").unwrap();
        let link = DebKind::Symlink("/lib/x86_64-linux-gnu/ld.so".to_owned());
        tree.take(entry("lib64/ld.so", link), &spec, "3").unwrap();
        assert_eq!(tree.file("usr/lib/ld.so"), Some(&b"x"[..]));
        tree.take(entry("usr/lib/ld.so", file()), &spec, "3").unwrap();
        let other = DebKind::File(b"y".to_vec());
        assert!(tree.take(entry("usr/lib/ld.so", other), &spec, "3").is_err());
    }

    #[test]
    fn parents_are_added_and_must_be_directories() {
        let mut tree = Tree::default();
        tree.set_file("a/b/c", 0o644, "x");
        tree.add_parents().unwrap();
        assert_eq!(tree.0.keys().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        tree.set_link("l", "a");
        tree.set_file("l/d", 0o644, "x");
        assert!(tree.add_parents().is_err());
    }

    #[test]
    fn links_are_followed_in_words() {
        assert_eq!(leads_to("usr/bin/a", "../lib/b"), "usr/lib/b");
        assert_eq!(leads_to("usr/bin/a", "/etc/b"), "etc/b");
    }
}
