//! A root filesystem over layers shows what the same one as one archive has.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::apk::gzip::{MemberKind, member};
use crate::apk::tar_reader::TarReader;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::melange::plan::PlanPath;
use crate::rootfs::fetch::NoNetwork;

/// An entry of a package: name, kind, mode, time, content or target.
type Entry<'a> = (&'a str, EntryType, u32, u64, &'a str);

const D: EntryType = EntryType::Directory;
const F: EntryType = EntryType::File;
const S: EntryType = EntryType::Symlink;
const H: EntryType = EntryType::HardLink;

/// A state folder with a repository in it.
struct Farm {
    folder: tempfile::TempDir,
    records: Vec<IndexPackage>,
}

impl Farm {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("main/x86_64")).unwrap();
        Self { folder, records: Vec::new() }
    }

    /// Adds a package with further lines of its description.
    fn add(&mut self, name: &str, lines: &str, entries: &[Entry<'_>]) {
        let mut tar = TarWriter::new(Vec::new());
        for (name, kind, mode, mtime, text) in entries {
            let mut header = Header::new(name, *kind, *mode);
            header.mtime = *mtime;
            match kind {
                EntryType::File => header.size = text.len() as u64,
                _ => header.link = text,
            }
            if name.ends_with("capable") {
                header.records = BTreeMap::from([("SCHILY.xattr.user.cap".to_owned(), b"x".to_vec())]);
            }
            tar.append(&header, &mut text.as_bytes()).unwrap();
        }
        let data = member(MemberKind::Package, &tar.finish_open()).unwrap();
        let digest = checksum::sha256_hex(&data);
        let info = format!("pkgname = {name}\npkgver = 1-r0\narch = x86_64\n{lines}datahash = {digest}\n");
        let mut tar = TarWriter::new(Vec::new());
        let header = Header { size: info.len() as u64, ..Header::new(".PKGINFO", F, 0o644) };
        tar.append(&header, &mut info.as_bytes()).unwrap();
        let control = member(MemberKind::Package, &tar.finish_open()).unwrap();
        let file = self.folder.path().join(format!("main/x86_64/{name}-1-r0.apk"));
        std::fs::write(file, [&control[..], &data].concat()).unwrap();
        self.records.push(IndexPackage {
            name: name.to_owned(),
            version: "1-r0".to_owned(),
            control_sha1: Some(checksum::sha1(&control)),
            ..IndexPackage::default()
        });
        let index = Index { description: Vec::new(), packages: self.records.clone() };
        let place = self.folder.path().join("main/x86_64/APKINDEX.tar.gz");
        std::fs::write(place, index.write(None).unwrap()).unwrap();
    }

    fn assembler(&self) -> Assembler {
        let cache = StateCache::new(self.folder.path(), limits::CACHE_BYTES_DEFAULT);
        Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any).with_unsigned_repositories()
    }

    /// All packages, in the order of their names.
    fn environment(&self, paths: Vec<PlanPath>) -> PlanEnvironment {
        PlanEnvironment {
            repositories: vec![self.folder.path().join("main").display().to_string()],
            packages: self.records.iter().map(|record| record.name.clone()).collect(),
            paths,
            ..PlanEnvironment::default()
        }
    }

    async fn root(&self, form: RootForm, paths: Vec<PlanPath>) -> Result<Rootfs> {
        let (assembler, environment) = (self.assembler(), self.environment(paths));
        let resolution = assembler.resolve(&environment, Arch::X86_64).await?;
        assembler.assemble_as(form, &resolution, &environment, Arch::X86_64).await
    }

    /// Asserts that both forms are one tree, and tells the names that the upper archive has.
    async fn compare(&self, paths: Vec<PlanPath>) -> Vec<String> {
        let whole = self.root(RootForm::Archive, paths.clone()).await.unwrap();
        let over = self.root(RootForm::Layered, paths).await.unwrap();
        assert!(whole.layers.folders().is_empty());
        let mut tree = Tree::default();
        for layer in over.layers.folders().iter().rev() {
            tree.add_folder(layer);
        }
        let top = tree.add_archive(&over.blob.path);
        let mut expected = Tree::default();
        expected.add_archive(&whole.blob.path);
        assert_eq!(tree.0, expected.0);
        top
    }
}

/// Kind, mode, time, content or target, and the first of a file's names.
type Seen = (char, u32, u64, Vec<u8>, String);

/// A tree as an overlay shows it.
#[derive(Default)]
struct Tree(BTreeMap<String, Seen>);

impl Tree {
    fn add_folder(&mut self, root: &Path) {
        let (mut pending, mut names) = (vec![root.to_owned()], BTreeMap::new());
        let mut found = Vec::new();
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    pending.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        for path in found {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let (kind, mode, content) = if meta.is_dir() {
                ('d', meta.permissions().mode() & 0o7777, Vec::new())
            } else if meta.is_symlink() {
                ('l', 0o777, std::fs::read_link(&path).unwrap().to_str().unwrap().as_bytes().to_vec())
            } else {
                ('f', meta.permissions().mode() & 0o7777, std::fs::read(&path).unwrap())
            };
            let first = match kind {
                'f' => names.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
                _ => String::new(),
            };
            self.put(name, (kind, mode, meta.mtime() as u64, content, first));
        }
    }

    fn add_archive(&mut self, path: &Path) -> Vec<String> {
        let mut reader = TarReader::new(std::fs::File::open(path).unwrap());
        let mut names = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let (name, link) = (entry.name_lossy(), String::from_utf8(entry.link.clone()).unwrap());
            let content = reader.read_content(1 << 20).unwrap();
            names.push(name.clone());
            let seen = match entry.kind {
                EntryType::Directory => ('d', entry.mode, entry.mtime, content, String::new()),
                EntryType::Symlink => ('l', 0o777, entry.mtime, link.into_bytes(), String::new()),
                EntryType::HardLink => {
                    let target = self.0[&link].clone();
                    assert_eq!((target.0, &target.4), ('f', &link), "the first name holds the content");
                    target
                }
                _ => ('f', entry.mode, entry.mtime, content, name.clone()),
            };
            self.put(name, seen);
        }
        names
    }

    fn put(&mut self, name: String, seen: Seen) {
        if let Some((folder, _)) = name.rsplit_once('/') {
            assert_eq!(self.0.get(folder).map(|folder| folder.0), Some('d'), "{name} lies in a folder");
        }
        if let Some(old) = self.0.get(&name) {
            assert_eq!(old.0 == 'd', seen.0 == 'd', "{name} hides nothing");
        }
        self.0.insert(name, seen);
    }
}

fn change(kind: &str, path: &str, source: &str) -> PlanPath {
    PlanPath {
        kind: kind.to_owned(),
        path: path.to_owned(),
        source: source.to_owned(),
        mode: 0o600,
        uid: 0,
        gid: 0,
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

#[tokio::test]
async fn what_packages_have_stays_in_their_layers() {
    let mut farm = Farm::new();
    let shared = |time| [("usr", D, 0o755, time, ""), ("usr/bin", D, 0o755, time, "")];
    let own = [
        ("usr/bin/a", F, 0o4755, 7, "A"),
        ("usr/bin/a2", H, 0, 0, "usr/bin/a"),
        ("usr/share/d/x", F, 0o644, 7, "X"),
    ];
    farm.add("a", "", &[&shared(1)[..], &own].concat());
    let own = [
        ("usr/bin/b", S, 0o777, 9, "a"),
        ("usr/share/e", D, 0o555, 9, ""),
        ("usr/share/e/y", F, 0o400, 9, ""),
    ];
    farm.add("b", "", &[&shared(2)[..], &own].concat());
    let top = farm.compare(Vec::new()).await;
    for name in ["usr/bin/a", "usr/bin/a2", "usr/share/d", "usr/bin/b", "usr/share/e/y"] {
        assert!(!has(&top, name), "{name} is in its layer");
    }
    // The first package says what a folder is like, and the topmost layer would.
    assert!(has(&top, "usr/bin") && has(&top, "etc/apk/world"));
    let layers = farm.folder.path().join("layers");
    let mode = layers.metadata().unwrap().permissions().mode();
    assert_eq!((mode & 0o7777, std::fs::read_dir(layers).unwrap().count()), (0o700, 2));
}

#[tokio::test]
async fn one_owner_of_a_name_hides_the_other() {
    let file = |time| [("x", F, 0o644, time, "same"), ("y", F, 0o644, time, "y")];
    for lines in ["origin = o\n", "replaces = a\nreplaces = c\n"] {
        let mut farm = Farm::new();
        farm.add("a", lines, &[("x", F, 0o644, 1, "one"), ("z", H, 0, 0, "x"), ("y", F, 0o600, 1, "y")]);
        farm.add("b", lines, &[("x", F, 0o755, 2, "two")]);
        farm.add("c", lines, &file(3));
        let top = farm.compare(Vec::new()).await;
        // Of equal contents the first one counts, and names of one file stay together.
        assert!(has(&top, "y") && has(&top, "z") && has(&top, "x"), "{top:?}");
    }
    let mut farm = Farm::new();
    farm.add("a", "origin = a\nreplaces = b\n", &[("x", F, 0o644, 1, "one")]);
    farm.add("b", "origin = b\n", &[("x", F, 0o755, 2, "two"), ("w", F, 0o755, 2, "w")]);
    let top = farm.compare(Vec::new()).await;
    assert!(has(&top, "x") && !has(&top, "w"));
    let mut farm = Farm::new();
    farm.add("a", "origin = a\n", &[("x", F, 0o644, 1, "one")]);
    farm.add("b", "origin = b\n", &[("x", F, 0o644, 1, "two")]);
    let error = farm.root(RootForm::Layered, Vec::new()).await.unwrap_err();
    assert!(error.chain().contains("x belongs to both"), "{}", error.chain());
}

#[tokio::test]
async fn what_lies_behind_links_is_put_where_they_lead() {
    let mut farm = Farm::new();
    farm.add("a", "", &[("usr/lib", D, 0o755, 1, ""), ("lib", S, 0o777, 1, "usr/lib")]);
    farm.add("b", "", &[("lib", D, 0o755, 2, ""), ("lib/x", F, 0o644, 2, "x"), ("lib/x2", H, 0, 0, "lib/x")]);
    // Behind a link of its own: no layer.
    farm.add(
        "c",
        "",
        &[("opt/d", D, 0o755, 3, ""), ("opt/e", S, 0o777, 3, "d"), ("opt/e/f", F, 0o644, 3, "f")],
    );
    farm.add("d", "", &[("opt/capable", F, 0o755, 4, "x"), ("opt/z", F, 0o755, 4, "x")]);
    let top = farm.compare(Vec::new()).await;
    for name in ["usr/lib/x", "usr/lib/x2", "opt/d/f", "opt/capable", "opt/z"] {
        assert!(has(&top, name), "{name} is in the archive");
    }
    assert!(!has(&top, "lib"));
    let over = farm.root(RootForm::Layered, Vec::new()).await.unwrap();
    assert!(over.cached && over.layers.folders().len() == 1, "{:?}", over.layers);
    let outside = [("opt/d", S, 0o777, 3, "/etc"), ("opt/d/passwd", F, 0o644, 3, "f")];
    farm.add("e", "", &outside);
    let error = farm.root(RootForm::Layered, Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Conflict);
}

#[tokio::test]
async fn changes_of_paths_leave_layers_as_they_are() {
    let mut farm = Farm::new();
    let entries = [("opt/d", D, 0o755, 1, ""), ("opt/d/f", F, 0o644, 1, "f"), ("opt/d/g", F, 0o644, 1, "g")];
    farm.add("a", "", &entries);
    assert!(!has(&farm.compare(Vec::new()).await, "opt/d"));
    let changes = vec![
        change("permissions", "/opt/d/f", ""),
        change("hardlink", "/h", "/opt/d/g"),
        change("empty-file", "/home/build/x", ""),
    ];
    let top = farm.compare(changes).await;
    assert!(["opt/d/f", "opt/d/g", "h", "opt/d", "home/build/x"].iter().all(|name| has(&top, name)));
    assert!(!has(&farm.compare(Vec::new()).await, "opt/d/f"));
}

#[tokio::test]
async fn a_layer_that_left_is_made_again() {
    let mut farm = Farm::new();
    farm.add("a", "", &[("f", F, 0o644, 1, "f")]);
    let first = farm.root(RootForm::Layered, Vec::new()).await.unwrap();
    let tree = first.layers.folders()[0].clone();
    // Nobody takes it away while it is in use, whatever the bound.
    let other = StateCache::new(farm.folder.path(), 0);
    let store = LayerStore::new(&other);
    other.sweep().unwrap();
    assert!(tree.join("f").exists() && store.held("1-0").unwrap().is_none());
    drop(first);
    other.sweep().unwrap();
    assert!(!tree.exists());
    let again = farm.root(RootForm::Layered, Vec::new()).await.unwrap();
    assert!(!again.cached && tree.join("f").exists());
    assert!(farm.root(RootForm::Layered, Vec::new()).await.unwrap().cached);
}

#[tokio::test]
async fn a_layer_that_a_power_failure_cut_is_made_again() {
    let mut farm = Farm::new();
    farm.add("one", "", &[("usr", D, 0o755, 1, ""), ("usr/a", F, 0o644, 2, "whole")]);
    let layer = |over: &Rootfs| over.layers.folders()[0].parent().unwrap().to_owned();
    let made = layer(&farm.root(RootForm::Layered, Vec::new()).await.unwrap());
    std::fs::write(made.join("tree/usr/a"), "wh").unwrap();
    // As long as the machine runs nobody looks.
    let kept = farm.root(RootForm::Layered, Vec::new()).await.unwrap();
    assert_eq!(std::fs::read(layer(&kept).join("tree/usr/a")).unwrap(), b"wh");
    drop(kept);
    std::fs::write(made.join("boot"), "another start").unwrap();
    let again = layer(&farm.root(RootForm::Layered, Vec::new()).await.unwrap());
    assert_eq!((&again, std::fs::read(again.join("tree/usr/a")).unwrap()), (&made, b"whole".to_vec()));
    // What is whole is kept, and looked at once.
    std::fs::write(made.join("boot"), "another start").unwrap();
    let number = |path: &Path| path.join("tree").metadata().unwrap().ino();
    let before = number(&made);
    farm.root(RootForm::Layered, Vec::new()).await.unwrap();
    assert_eq!(number(&made), before);
    assert_ne!(std::fs::read(made.join("boot")).unwrap(), b"another start");
    let left: Vec<_> = std::fs::read_dir(made.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_damaged_package_leaves_no_layer() {
    let mut farm = Farm::new();
    farm.add("a", "", &[("f", F, 0o644, 1, "f")]);
    let file = farm.folder.path().join("main/x86_64/a-1-r0.apk");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = farm.root(RootForm::Layered, Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Untrusted);
    assert_eq!(std::fs::read_dir(farm.folder.path().join("layers")).unwrap().count(), 0);
}

/// The content of a file of an archive.
fn content(archive: &Path, wanted: &str) -> (u32, String) {
    let mut reader = TarReader::new(std::fs::File::open(archive).unwrap());
    while let Some(entry) = reader.next().unwrap() {
        if entry.name_lossy() == wanted {
            let text = reader.read_content(1 << 20).unwrap();
            return (entry.mode, String::from_utf8(text).unwrap());
        }
    }
    panic!("{wanted} is not there");
}

#[tokio::test]
async fn what_is_written_at_the_end_is_as_apko_writes_it() {
    let mut farm = Farm::new();
    let shadow = "root:*:19000:0:::::\n";
    let bundle = ("etc/ssl/certs/ca-certificates.crt", F, 0o644, 1, "PEM");
    // A file is listed where its folder is.
    let folder = |name| (name, D, 0o755, 1, "");
    let folders = [folder("etc"), folder("etc/ssl"), folder("etc/ssl/certs")];
    let files = [
        ("etc/shadow", F, 0o600, 1, shadow),
        bundle,
        ("etc/pki/tls/certs/ca-bundle.crt", F, 0o644, 1, "PEM"),
    ];
    farm.add("a", "origin = a\nprovider_priority = 7\n", &[&folders[..], &files].concat());
    farm.add("b", "origin = b\n", &[&folders[..], &[bundle]].concat());
    let mut environment = farm.environment(vec![change("permissions", "/etc/ssl", "")]);
    let user = |name: &str, shell: &str| crate::melange::plan::PlanUser {
        name: name.to_owned(),
        uid: 1000,
        gid: 1000,
        shell: shell.to_owned(),
        home: format!("/home/{name}"),
    };
    environment.users = vec![user("build", "/bin/sh"), user("other", "/bin/x")];
    let assembler = farm.assembler();
    let resolution = assembler.resolve(&environment, Arch::X86_64).await.unwrap();
    let root =
        assembler.assemble_as(RootForm::Layered, &resolution, &environment, Arch::X86_64).await.unwrap();
    let file = |name: &str| content(&root.blob.path, name);
    assert_eq!(file("etc/shadow"), (0o600, "root:*::0:::::\nbuild:!:::::::\nother:!:::::::\n".to_owned()));
    assert_eq!(file("etc/apk/world").1, "a=1-r0\nb=1-r0\n");
    let sum = checksum::sha256_hex(b"PEM");
    let beside = file("etc/ssl/certs/.ca-certificates.crt.sha256");
    assert_eq!(beside, (0o444, format!("{sum}  ca-certificates.crt\n")));
    let place = farm.folder.path().join("main");
    let expected = format!(
        "{}{}{}",
        format_args!(
            r#"{{"contents":{{"repositories":["{}"],"packages":["a=1-r0","b=1-r0"]}},"#,
            place.display()
        ),
        r#""entrypoint":{},"accounts":{"users":[{"username":"build","uid":1000,"gid":1000,"homedir":"/home/build"},{"username":"other","uid":1000,"gid":1000,"shell":"/bin/x","homedir":"/home/other"}]},"#,
        r#""archs":["amd64"],"paths":[{"path":"/etc/ssl","type":"permissions","uid":0,"gid":0,"permissions":384}]}"#,
    );
    assert_eq!(file("etc/apko.json"), (0o444, format!("{expected}\n")));
    let installed = file("usr/lib/apk/db/installed").1;
    // Both packages list the file that they have in common.
    assert_eq!(installed.matches("R:ca-certificates.crt\n").count(), 2, "{installed}");
    assert!(installed.contains("\ni:[]\n") && installed.contains("\nk:7\n") && installed.contains("\nk:0\n"));
    let names = std::fs::read(&root.blob.path).unwrap();
    assert!(!String::from_utf8_lossy(&names).contains(".ca-bundle.crt.sha256"));
}
