//! Choosing packages from folders on disk.

use super::*;
use crate::apk::gzip::{MemberKind, member};
use crate::apk::index::Index;
use crate::apk::tar_writer::{EntryType, Header, TarWriter};
use crate::error::ErrorKind;
use crate::melange::plan::PlanPath;
use crate::rootfs::fetch::NoNetwork;

/// A record: name, version, `D:`, `p:`.
type Record<'a> = (&'a str, &'a str, &'a str, &'a str);

fn index(records: &[Record<'_>]) -> Index {
    let packages = records.iter().map(|(name, version, depends, provides)| IndexPackage {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        depends: (*depends).to_owned(),
        provides: (*provides).to_owned(),
        ..IndexPackage::default()
    });
    Index { description: Vec::new(), packages: packages.collect() }
}

struct Folders {
    root: tempfile::TempDir,
    lines: Vec<String>,
}

impl Folders {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), lines: Vec::new() }
    }

    fn add(&mut self, name: &str, tag: &str, records: &[Record<'_>]) {
        let folder = self.root.path().join(name);
        std::fs::create_dir_all(folder.join("x86_64")).unwrap();
        std::fs::write(folder.join("x86_64/APKINDEX.tar.gz"), index(records).write(None).unwrap()).unwrap();
        self.lines.push(format!("{tag}{}", folder.display()));
    }

    fn assembler(&self) -> Assembler {
        self.assembler_within(limits::CACHE_BYTES_DEFAULT)
    }

    fn assembler_within(&self, cache_bytes: u64) -> Assembler {
        let cache = StateCache::new(self.root.path(), cache_bytes);
        Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any).with_unsigned_repositories()
    }

    fn environment(&self, packages: &[&str]) -> PlanEnvironment {
        PlanEnvironment {
            repositories: self.lines.clone(),
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            ..PlanEnvironment::default()
        }
    }
}

fn names(resolution: &Resolution) -> Vec<String> {
    resolution.packages().map(|package| format!("{}-{}", package.name, package.version)).collect()
}

#[tokio::test]
async fn what_a_tagged_repository_brings_along_stays_found() {
    let mut folders = Folders::new();
    folders.add("main", "", &[("b", "1-r0", "", "")]);
    folders.add("new", "@new ", &[("b", "2-r0", "", ""), ("a", "2-r0", "b=2-r0", "")]);
    let (assembler, environment) = (folders.assembler(), folders.environment(&["a@new"]));
    let built = assembler.resolve(&environment, Arch::X86_64).await.unwrap();
    assert_eq!(names(&built), ["b-2-r0", "a-2-r0"]);
    assert_eq!(built.lock, ["a=2-r0@new", "b=2-r0@new"]);
    let tested = assembler.resolve_test(None, None, "", &environment, Arch::X86_64).await.unwrap();
    assert_eq!(names(&tested), ["b-2-r0", "a-2-r0"]);
}

#[tokio::test]
async fn a_test_never_sees_another_package_of_the_name() {
    let mut folders = Folders::new();
    folders.add(
        "main",
        "",
        &[("frd-3", "3.0-r0", "", "frd=3.0"), ("twin", "9", "", "frd=2.0-r0"), ("frd", "7-r0", "", "")],
    );
    let made = LoadedRepository::made(folders.root.path(), index(&[("frd", "2.0-r0", "", "")]));
    let environment = folders.environment(&["frd"]);
    let resolved = folders
        .assembler()
        .resolve_test(Some(Arc::new(made)), None, "frd", &environment, Arch::X86_64)
        .await
        .unwrap();
    assert_eq!(names(&resolved), ["frd-2.0-r0"]);
    // Without a build before it, the newest of the name, and still none that provides it.
    folders.add(
        "main",
        "",
        &[("frd-3", "3.0-r0", "", "frd=9"), ("frd", "7-r0", "", ""), ("frd", "8-r0", "", "")],
    );
    let assembler = folders.assembler();
    let resolved = assembler.resolve_test(None, None, "frd", &environment, Arch::X86_64).await.unwrap();
    assert_eq!(names(&resolved), ["frd-8-r0"]);
}

#[tokio::test]
async fn folders_that_do_not_exist_yet_are_passed_over() {
    let mut folders = Folders::new();
    folders.add("main", "", &[("b", "1-r0", "", "")]);
    folders.lines.push(folders.root.path().join("later/packages").display().to_string());
    let resolved = folders.assembler().resolve(&folders.environment(&["b"]), Arch::X86_64).await.unwrap();
    assert_eq!(names(&resolved), ["b-1-r0"]);
}

#[tokio::test]
async fn malformed_requests_say_what_is_wrong() {
    let mut folders = Folders::new();
    folders.add("main", "", &[("b", "1-r0", "", "")]);
    let error = folders.assembler().resolve(&folders.environment(&["b="]), Arch::X86_64).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("has an operator and no version"), "{error}");
}

/// A package on disk whose control section says `name` and `version`, with a folder and a file in it; its record.
fn package(folders: &Folders, file: &str, name: &str, version: &str) -> IndexPackage {
    let section = |entries: &[(&str, EntryType, &[u8])]| {
        let mut tar = TarWriter::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new(name, *kind, 0o755);
            header.size = content.len() as u64;
            tar.append(&header, &mut &content[..]).unwrap();
        }
        member(MemberKind::Package, &tar.finish_open()).unwrap()
    };
    let data = section(&[("opt/d", EntryType::Directory, b""), ("opt/d/f", EntryType::File, b"x")]);
    let digest = checksum::sha256_hex(&data);
    let info =
        format!("pkgname = {name}\npkgver = {version}\narch = x86_64\nsize = 1\ndatahash = {digest}\n");
    let control = section(&[(".PKGINFO", EntryType::File, info.as_bytes())]);
    let folder = folders.root.path().join("main/x86_64");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(file), [&control[..], &data].concat()).unwrap();
    IndexPackage {
        name: "a".to_owned(),
        version: "1-r0".to_owned(),
        control_sha1: Some(checksum::sha1(&control)),
        ..IndexPackage::default()
    }
}

/// Assembles the package `a` with path changes.
async fn assembled(folders: &mut Folders, record: IndexPackage, paths: Vec<PlanPath>) -> Result<Rootfs> {
    let folder = folders.root.path().join("main");
    let index = Index { description: Vec::new(), packages: vec![record] };
    std::fs::write(folder.join("x86_64/APKINDEX.tar.gz"), index.write(None).unwrap()).unwrap();
    folders.lines = vec![folder.display().to_string()];
    let environment = PlanEnvironment { paths, ..folders.environment(&["a"]) };
    let assembler = folders.assembler();
    let resolution = assembler.resolve(&environment, Arch::X86_64).await?;
    assembler.assemble(&resolution, &environment, Arch::X86_64).await
}

fn change(kind: &str, path: &str, source: &str) -> PlanPath {
    PlanPath {
        kind: kind.to_owned(),
        path: path.to_owned(),
        source: source.to_owned(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    }
}

#[tokio::test]
async fn a_package_must_be_what_its_index_says() {
    for (name, version) in [("b", "1-r0"), ("a", "2-r0")] {
        let mut folders = Folders::new();
        let record = package(&folders, "a-1-r0.apk", name, version);
        let error = assembled(&mut folders, record, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains(&format!("says that it is {name}-{version}")), "{error}");
    }
    let mut folders = Folders::new();
    let record = package(&folders, "a-1-r0.apk", "a", "1-r0");
    assembled(&mut folders, record, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn path_changes_put_nothing_behind_links_and_files() {
    for changes in [
        vec![change("symlink", "/esc", "/outside"), change("hardlink", "/esc/c", "/opt/d/f")],
        vec![change("symlink", "/esc", "../../outside"), change("empty-file", "/esc/c", "")],
        vec![change("symlink", "/esc", "/outside"), change("directory", "/esc/c/d", "")],
        vec![change("hardlink", "/h", "/opt/d/f"), change("empty-file", "/h/c", "")],
        vec![change("hardlink", "/opt/d", "/etc/passwd")],
        vec![change("empty-file", "/opt/d", "")],
        vec![change("hardlink", "/h", "/opt/d")],
        vec![change("symlink", "/a", "/b"), change("symlink", "/b", "/a"), change("empty-file", "/a/c", "")],
    ] {
        let mut folders = Folders::new();
        let record = package(&folders, "a-1-r0.apk", "a", "1-r0");
        let error = assembled(&mut folders, record, changes.clone()).await.unwrap_err();
        let told = error.to_string();
        let known = ["lies behind the link", "lies below", "is a folder", "too many symbolic links"];
        assert!(known.iter().any(|part| told.contains(part)), "{changes:?}: {told}");
    }
    // A link that stays inside of the tree leads to where it says.
    let mut folders = Folders::new();
    let record = package(&folders, "a-1-r0.apk", "a", "1-r0");
    let fine = vec![change("symlink", "/in", "/opt/d"), change("hardlink", "/in/c", "/opt/d/f")];
    let rootfs = assembled(&mut folders, record, fine).await.unwrap();
    let tree = crate::apk::tree::Tree::read_tar(&rootfs.blob.path).unwrap();
    assert!(tree.get("opt/d/c").is_some() && tree.get("in/c").is_none());
}

#[tokio::test]
async fn one_environment_is_assembled_once_and_leaves_when_nobody_uses_it() {
    let mut folders = Folders::new();
    let record = package(&folders, "a-1-r0.apk", "a", "1-r0");
    drop(assembled(&mut folders, record, Vec::new()).await.unwrap());
    let assembler = folders.assembler_within(0);
    let assemble = async |path: &str| {
        let paths = vec![change("empty-file", path, "")];
        let environment = PlanEnvironment { paths, ..folders.environment(&["a"]) };
        let resolution = assembler.resolve(&environment, Arch::X86_64).await.unwrap();
        assembler.assemble(&resolution, &environment, Arch::X86_64).await.unwrap()
    };
    let (first, second) = tokio::join!(assemble("/one"), assemble("/one"));
    assert_eq!([first.cached, second.cached].iter().filter(|cached| **cached).count(), 1);
    // The bound holds for what nobody uses.
    assert!(first.blob.path.exists());
    drop(first);
    let other = assemble("/two").await;
    assert!(second.blob.path.exists() && other.blob.path.exists());
    let path = second.blob.path.clone();
    drop(second);
    assemble("/three").await;
    assert!(!path.exists() && other.blob.path.exists());
}
