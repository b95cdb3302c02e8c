//! Unpacking the workspace into the guest's tree, as root and without following a link of it.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::children::Children;
use super::tree::{inside, make_folders, set_mode};
use super::{Result, Stop, failed};
use crate::apk::tar_reader::{RawEntry, TarReader};
use crate::apk::tar_writer::EntryType;
use crate::guest;

/// Makes the workspace and the cache, which belong to who runs the steps, and unpacks the workspace.
pub(super) fn prepare(children: &Children, archives: &[PathBuf], uid: u32, gid: u32) -> Result<()> {
    for path in [guest::WORKSPACE, guest::CACHE] {
        let folder = make_folders(path)?;
        // What is as it should be is not copied into the guest's layer.
        let found = folder.symlink_metadata().map_err(failed(format!("look at {path}")))?;
        if found.mode() & 0o7777 != 0o755 {
            set_mode(&folder, 0o755)?;
        }
        if (found.uid(), found.gid()) != (uid, gid) {
            lchown(&folder, Some(uid), Some(gid)).map_err(failed(format!("hand over {path}")))?;
        }
    }
    archives.iter().try_for_each(|archive| unpack(children, archive))
}

/// Unpacks an archive of folders, files and links.
fn unpack(children: &Children, archive: &Path) -> Result<()> {
    let what = || failed("unpack the workspace");
    let mut reader = TarReader::new(io::BufReader::new(File::open(archive).map_err(what())?));
    // What is put into a folder changes its time, so times of folders come last.
    let mut folders = Vec::new();
    while let Some(entry) = reader.next().map_err(what())? {
        children.check()?;
        let Some(place) = place(Path::new(std::ffi::OsStr::from_bytes(&entry.name)))? else { continue };
        put(&entry, &mut reader, &place)?;
        if entry.kind == EntryType::Directory {
            folders.push((place, entry.mtime));
        } else {
            set_time(&place, entry.mtime)?;
        }
    }
    folders.iter().rev().try_for_each(|(place, time)| set_time(place, *time))
}

/// Where an entry goes; `None` for the workspace itself when the archive does not name it.
fn place(name: &Path) -> Result<Option<PathBuf>> {
    let mut path = PathBuf::from(guest::WORKSPACE);
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => {
                return Err(Stop::Failed(format!(
                    "the workspace has an entry outside of it: {}",
                    name.display()
                )));
            }
        }
    }
    let Some(parent) = path.parent().filter(|_| path != Path::new(guest::WORKSPACE)) else {
        return Ok(Some(inside(guest::WORKSPACE)));
    };
    let parent = make_folders(parent)?;
    Ok(path.file_name().map(|name| parent.join(name)))
}

fn put(entry: &RawEntry, reader: &mut TarReader<impl io::Read>, place: &Path) -> Result<()> {
    let what = || failed(format!("unpack {}", entry.name_lossy()));
    let link = || Path::new(std::ffi::OsStr::from_bytes(&entry.link));
    match entry.kind {
        EntryType::Directory => match std::fs::create_dir(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(place) => {}
            made => made.map_err(what())?,
        },
        EntryType::File => {
            clear(place).map_err(what())?;
            let mut file =
                File::options().write(true).create_new(true).mode(0o600).open(place).map_err(what())?;
            io::copy(&mut reader.content(), &mut file).map_err(what())?;
        }
        EntryType::Symlink => {
            clear(place).map_err(what())?;
            symlink(link(), place).map_err(what())?;
        }
        EntryType::HardLink => {
            let target = self::place(link())?.ok_or_else(|| Stop::Failed("a link to nothing".to_owned()))?;
            clear(place).map_err(what())?;
            return std::fs::hard_link(target, place).map_err(what());
        }
        _ => {
            let name = entry.name_lossy();
            return Err(Stop::Failed(format!("the workspace has a device or a pipe: {name}")));
        }
    }
    let id = |number: u64| {
        u32::try_from(number).map_err(|_| Stop::Failed(format!("{} has no owner", entry.name_lossy())))
    };
    lchown(place, Some(id(entry.uid)?), Some(id(entry.gid)?)).map_err(what())?;
    if entry.kind == EntryType::Symlink { Ok(()) } else { set_mode(place, entry.mode & 0o7777) }
}

/// The archive's entry takes the place of what the root filesystem has there.
fn clear(place: &Path) -> io::Result<()> {
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_folder(place: &Path) -> bool {
    place.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn set_time(place: &Path, seconds: u64) -> Result<()> {
    let tv_sec = i64::try_from(seconds).unwrap_or(i64::MAX);
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec, tv_nsec: 0 },
    };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed(format!("set the time of {}", place.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_goes_outside() {
        for name in ["/etc/passwd", "../x", "a/../../x"] {
            assert!(place(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(place(Path::new("./")).unwrap().unwrap(), Path::new("merged/home/build"));
    }
}
