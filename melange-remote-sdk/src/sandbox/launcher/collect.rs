//! The output folder as one tar. No process of the guest runs meanwhile.
//!
//! A small output of folders, files and links is written here, which takes less time than starting a program. All
//! else goes to `tar`, a child whose memory the guest's group bounds and that can be stopped in the middle of a file.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, lgetxattr, llistxattr};

use super::children::Children;
use super::{Result, Stop, failed, program, tree};
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::sandbox::protocol::TREE;
use crate::{guest, limits};

/// Entries of an output that is written here.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of its contents.
const CONTENT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a path from the launcher's folder, and of a link's target: far below what the kernel takes.
const PATH_BYTES_MAX: usize = 1_024;
/// Bytes of an entry's list of extended attributes, and of one of them.
const ATTRIBUTE_BYTES_MAX: usize = 16 << 10;

/// Writes the output folder as one tar.
pub(super) fn collect(children: &Children, output: &Path) -> Result<()> {
    let folder = tree::output_folder()?;
    let mut plan = Plan::default();
    if plan.look(&folder, "").map_err(failed("look at the output"))? {
        children.check()?;
        return plan.write(&folder, output).map_err(failed("collect the output"));
    }
    let bound = Some(limits::OUTPUT_BYTES_MAX);
    let limit = rustix::process::Rlimit { current: bound, maximum: bound };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)
        .map_err(failed("bound the output"))?;
    let mut tar = program("tar");
    tar.args(["--format=posix", "--pax-option=delete=atime,delete=ctime", "--numeric-owner", "--sort=name"]);
    tar.args(["--xattrs", "--xattrs-include=*", "-cf"]).arg(output).arg("-C").arg(&folder).arg(".");
    children.run("collect the output", &mut tar)
}

/// Copies files of the workspace into the output folder, as if it had been a folder of its own there.
pub(super) fn keep_license_files(files: &[String]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let output = tree::output_folder()?;
    let kept = format!("{}/{}", guest::OUTPUT, guest::LICENSE_FILES);
    // Whatever a step has put in its place.
    match tree::look(&output.join(guest::LICENSE_FILES))? {
        Some(found) if found.is_dir() => std::fs::remove_dir_all(tree::inside(&kept)),
        Some(_) => std::fs::remove_file(tree::inside(&kept)),
        None => Ok(()),
    }
    .map_err(failed("make room for the texts of licences"))?;
    let root = open_folder(Path::new(TREE)).map_err(failed("open the guest's tree"))?;
    for path in files {
        let lacks = || Stop::Refused(guest::lacks_license_file(path));
        let place = format!("{kept}/{path}");
        let (folder, name) = place.rsplit_once('/').ok_or_else(lacks)?;
        let folder = tree::make_folders(folder)?;
        let mut from = open_within(&root, &format!("{}/{path}", guest::WORKSPACE)).ok_or_else(lacks)?;
        let mut to = File::create_new(folder.join(name)).map_err(failed(format!("keep {path}")))?;
        let text = io::Read::take(&mut from, limits::LICENSE_TEXT_BYTES_MAX + 1);
        io::copy(&mut { text }, &mut to).map_err(failed(format!("keep {path}")))?;
    }
    Ok(())
}

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file of the guest as the guest would, its links too; `None` when it is none.
fn open_within(root: &OwnedFd, path: &str) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), within).ok()?);
    file.metadata().is_ok_and(|found| found.is_file()).then_some(file)
}

/// What an output of few and small files holds.
#[derive(Default)]
struct Plan {
    entries: Vec<Entry>,
    content_bytes: u64,
    /// The first name of each file that has several.
    linked: HashMap<(u64, u64), String>,
}

struct Entry {
    name: String,
    kind: EntryType,
    /// The target of a link.
    link: String,
    found: Metadata,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Plan {
    /// Takes what is in a folder, in the order of the names; `false` for what is left to the program.
    fn look(&mut self, folder: &Path, above: &str) -> io::Result<bool> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            // A name that is no text is the program's.
            let Ok(name) = entry?.file_name().into_string() else { return Ok(false) };
            names.push(name);
            if self.entries.len() + names.len() > ENTRIES_MAX {
                return Ok(false);
            }
        }
        names.sort();
        for name in names {
            let path = folder.join(&name);
            if path.as_os_str().len() > PATH_BYTES_MAX {
                return Ok(false);
            }
            let name = if above.is_empty() { name } else { format!("{above}/{name}") };
            let Some(entry) = self.entry(&path, name)? else { return Ok(false) };
            let below = (entry.kind == EntryType::Directory).then(|| entry.name.clone());
            self.entries.push(entry);
            if let Some(name) = below
                && !self.look(&path, &name)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entry(&mut self, path: &Path, name: String) -> io::Result<Option<Entry>> {
        let found = path.symlink_metadata()?;
        let (mut kind, mut link) = (EntryType::File, String::new());
        if found.is_dir() {
            kind = EntryType::Directory;
        } else if found.is_symlink() {
            let Ok(target) = std::fs::read_link(path)?.into_os_string().into_string() else {
                return Ok(None);
            };
            (kind, link) = (EntryType::Symlink, target);
        } else if !found.is_file() {
            return Ok(None);
        }
        if kind != EntryType::Directory && found.nlink() > 1 {
            match self.linked.get(&(found.dev(), found.ino())) {
                Some(first) => (kind, link) = (EntryType::HardLink, first.clone()),
                None => drop(self.linked.insert((found.dev(), found.ino()), name.clone())),
            }
        }
        if kind == EntryType::File {
            self.content_bytes = self.content_bytes.saturating_add(found.len());
        }
        // A further name of a file has what the first one has.
        let found_attributes =
            if kind == EntryType::HardLink { Some(BTreeMap::new()) } else { attributes(path)? };
        let Some(attributes) = found_attributes else { return Ok(None) };
        let small = self.content_bytes <= CONTENT_BYTES_MAX && link.len() <= PATH_BYTES_MAX;
        // Times before 1970 are the program's.
        let plain = small && found.mtime() >= 0;
        Ok(plain.then_some(Entry { name, kind, link, found, attributes }))
    }

    fn write(&self, folder: &Path, output: &Path) -> io::Result<()> {
        let mut writer = TarWriter::new(BufWriter::with_capacity(64 << 10, File::create(output)?));
        for entry in &self.entries {
            let mut header = Header::new(&entry.name, entry.kind, entry.found.mode() & 0o7777);
            (header.uid, header.gid) = (entry.found.uid(), entry.found.gid());
            header.mtime = u64::try_from(entry.found.mtime()).unwrap_or_default();
            header.link = &entry.link;
            header.records.clone_from(&entry.attributes);
            if entry.kind == EntryType::File {
                header.size = entry.found.len();
                writer.append(&header, &mut open(&folder.join(&entry.name))?)?;
            } else {
                writer.append(&header, &mut io::empty())?;
            }
        }
        writer.finish()?.flush()
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

/// The extended attributes as records of a tar; `None` for what is left to the program.
fn attributes(path: &Path) -> io::Result<Option<BTreeMap<String, Vec<u8>>>> {
    use rustix::io::Errno;
    let mut attributes = BTreeMap::new();
    let mut list = vec![0; ATTRIBUTE_BYTES_MAX];
    match llistxattr(path, &mut list[..]) {
        Ok(length) => list.truncate(length),
        // A file system without them.
        Err(Errno::NOTSUP) => return Ok(Some(attributes)),
        Err(Errno::RANGE) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // A record's name ends at the first `=`.
        let Some(text) = std::str::from_utf8(name).ok().filter(|text| !text.contains('=')) else {
            return Ok(None);
        };
        let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
        match lgetxattr(path, text, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::RANGE) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        attributes.insert(format!("SCHILY.xattr.{text}"), value);
    }
    Ok(Some(attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unusual_is_left_to_the_program() {
        use std::os::unix::ffi::OsStrExt;
        let looked = |make: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            Plan::default().look(folder.path(), "").unwrap()
        };
        assert!(looked(&|_| {}));
        assert!(!looked(&|at| drop(File::create(at.join(std::ffi::OsStr::from_bytes(b"\xff"))).unwrap())));
        assert!(!looked(&|at| drop(std::os::unix::net::UnixListener::bind(at.join("s")).unwrap())));
        assert!(!looked(&|at| File::create(at.join("f")).unwrap().set_len(CONTENT_BYTES_MAX + 1).unwrap()));
        assert!(!looked(&|at| {
            (0..=ENTRIES_MAX).for_each(|n| drop(File::create(at.join(n.to_string())).unwrap()));
        }));
        assert!(!looked(&|at| {
            let past = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1);
            File::create(at.join("old")).unwrap().set_modified(past).unwrap();
        }));
    }

    #[test]
    fn both_ways_write_the_same() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (tree, ours, theirs) =
            (folder.path().join("tree"), folder.path().join("ours"), folder.path().join("theirs"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/one"), "1").unwrap();
        std::fs::set_permissions(tree.join("a/one"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        std::fs::hard_link(tree.join("a/one"), tree.join("z")).unwrap();
        std::fs::write(tree.join("a/b").join("n".repeat(200)), vec![7; 600]).unwrap();
        std::fs::write(tree.join("naïve ☃"), "").unwrap();
        symlink("../nowhere", tree.join("a/link")).unwrap();
        let value =
            rustix::fs::setxattr(tree.join("z"), "user.a", b"=\n\xff", rustix::fs::XattrFlags::empty());
        let mut plan = Plan::default();
        assert!(plan.look(&tree, "").unwrap());
        plan.write(&tree, &ours).unwrap();
        let mut tar = program("tar");
        tar.args(["--format=posix", "--numeric-owner", "--sort=name", "--xattrs", "-cf"]);
        assert!(tar.arg(&theirs).arg("-C").arg(&tree).arg(".").status().unwrap().success());
        let read = |path: &Path| {
            let mut reader = crate::apk::tar_reader::TarReader::new(File::open(path).unwrap());
            let mut entries = BTreeMap::new();
            while let Some(mut entry) = reader.next().unwrap() {
                let mut content = Vec::new();
                io::Read::read_to_end(&mut reader.content(), &mut content).unwrap();
                let trim = |name: &[u8]| {
                    String::from_utf8_lossy(name).trim_start_matches("./").trim_end_matches('/').to_owned()
                };
                entry.records.retain(|key, _| key.starts_with("SCHILY."));
                let facts = (entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, entry.records);
                entries.insert(trim(&entry.name), (facts, trim(&entry.link), content));
            }
            entries
        };
        let (ours, mut theirs) = (read(&ours), read(&theirs));
        // The folder itself, which readers do not take.
        theirs.remove("");
        assert_eq!(ours, theirs);
        assert_eq!(ours["a/one"].0.5.len(), usize::from(value.is_ok()));
        assert_eq!(ours["z"].0.0, EntryType::HardLink);
    }
}
