//! The guest's tree: unpacking, checking, removing. No process of the guest runs meanwhile.

use std::fs::Metadata;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::children::Children;
use super::{Result, Stop, failed, make_folder, program};
use crate::guest;
use crate::sandbox::protocol::TREE;

/// Tries of removing a folder: a process that was killed a moment ago may still add to it.
const REMOVALS_MAX: u32 = 3;

/// The folders in which something is mounted.
const MOUNT_POINTS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc", guest::SCRIPTS, guest::CACHE];

/// Unpacks a root filesystem with owners, modes and extended attributes.
pub(super) fn unpack(children: &Children, archive: &Path, folder: &Path) -> Result<()> {
    set_mode(folder, 0o755)?;
    let mut tar = program("tar");
    tar.args(["--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(archive);
    children.run("unpack the root filesystem", tar.arg("-C").arg(folder))
}

/// Makes in an unpacked root filesystem what each of its guests would have to make, which costs more in an overlay.
/// What cannot be made is told to the guest that needs it.
pub(super) fn prepare_root(folder: &Path) {
    for path in MOUNT_POINTS.into_iter().chain([guest::WORKSPACE]) {
        let _ = make_folders_in(folder, path);
    }
    if make_folders_in(folder, "/etc").is_ok() {
        let _ = make_file(&folder.join("etc/resolv.conf"));
    }
}

/// Copies a root filesystem.
pub(super) fn copy(children: &Children, from: &Path) -> Result<()> {
    let mut cp = program("cp");
    cp.args(["-a", "--reflink=auto"]).arg(from.join(".")).arg(TREE);
    children.run("copy the root filesystem", &mut cp)
}

/// Makes the places where things are mounted, as root and without following a link of the guest. What stands in
/// the way as a file is removed; a link where a folder must be is refused.
pub(super) fn make_mount_points(sources: &[(PathBuf, String)]) -> Result<()> {
    for path in MOUNT_POINTS {
        make_folders(path)?;
    }
    let names = sources.iter().map(|(_, name)| format!("{}/{name}", guest::CACHE));
    for path in std::iter::once("/etc/resolv.conf".to_owned()).chain(names) {
        make_file(&inside(&path))?;
    }
    Ok(())
}

/// The output folder, which is refused when it or one above it is a link.
pub(super) fn output_folder() -> Result<PathBuf> {
    let mut folder = PathBuf::from(TREE);
    for part in guest::OUTPUT.split('/').filter(|part| !part.is_empty()) {
        folder.push(part);
        if !look(&folder)?.is_some_and(|found| found.is_dir()) {
            return Err(refusal(&folder));
        }
    }
    Ok(folder)
}

/// Removes a folder with all that is in it.
pub(super) fn remove(children: &Children, folder: &Path) -> Result<()> {
    if std::fs::remove_dir_all(folder).is_ok() {
        return Ok(());
    }
    // A tree may be deeper than this process has descriptors; the program knows how to go about it.
    let mut outcome = Ok(());
    for _ in 0..REMOVALS_MAX {
        let mut rm = program("rm");
        outcome = children.run("remove the guest's folder", rm.args(["-rf", "--"]).arg(folder));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Where a path of the guest lies, from its folder.
pub(super) fn inside(path: &str) -> PathBuf {
    Path::new(TREE).join(path.trim_start_matches('/'))
}

/// What is at a place, links not followed.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(format!("look at {}", path.display()))(error)),
    }
}

fn refusal(path: &Path) -> Stop {
    let shown = path.strip_prefix(TREE).unwrap_or(path).display();
    Stop::Refused(format!("/{shown} is a link or a file where the guest must have a folder"))
}

/// Makes a folder of the guest and those above it.
pub(super) fn make_folders(path: impl AsRef<Path>) -> Result<PathBuf> {
    make_folders_in(Path::new(TREE), path)
}

/// Makes a folder of a tree and those above it, without following a link.
fn make_folders_in(tree: &Path, path: impl AsRef<Path>) -> Result<PathBuf> {
    let mut folder = tree.to_owned();
    for part in path.as_ref().components() {
        let std::path::Component::Normal(part) = part else { continue };
        folder.push(part);
        match look(&folder)? {
            Some(found) if found.is_dir() => {}
            Some(_) => return Err(refusal(&folder)),
            None => make_folder(&folder)?,
        }
    }
    Ok(folder)
}

/// Makes an empty file, if there is none.
fn make_file(path: &Path) -> Result<()> {
    let what = || failed(format!("make {}", path.display()));
    match look(path)? {
        Some(found) if found.is_file() => return Ok(()),
        Some(found) if found.is_dir() => std::fs::remove_dir_all(path).map_err(what())?,
        Some(_) => std::fs::remove_file(path).map_err(what())?,
        None => {}
    }
    std::fs::File::create_new(path).map(drop).map_err(what())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed(format!("set the mode of {}", path.display())))
}

/// Copies the files that another user than root can reach and read.
pub(super) fn copy_sources(sources: &[(PathBuf, String)]) -> Result<Vec<(PathBuf, String)>> {
    make_folder(Path::new("sources"))?;
    let mut copies = Vec::with_capacity(sources.len());
    for (index, (from, name)) in sources.iter().enumerate() {
        let copy = Path::new("sources").join(index.to_string());
        std::fs::copy(from, &copy).map_err(failed(format!("copy {}", from.display())))?;
        set_mode(&copy, 0o644)?;
        chown(&copy, Some(0), Some(0)).map_err(failed("own a source"))?;
        copies.push((copy, name.clone()));
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_filesystem_is_prepared_without_following_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir_all(root.join("var")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("var/cache")).unwrap();
        prepare_root(&root);
        assert!(root.join("proc").is_dir() && root.join("home/build").is_dir());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join("etc").is_symlink());
    }
}
