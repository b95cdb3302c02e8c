//! Choosing packages from folders on disk.

use super::*;
use crate::apk::index::Index;
use crate::rootfs::fetch::NoNetwork;

/// A record: name, version, `D:`, `p:`.
type Record<'a> = (&'a str, &'a str, &'a str, &'a str);

fn index(records: &[Record<'_>]) -> Index {
    let packages = records.iter().map(|(name, version, depends, provides)| IndexPackage {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        depends: (*depends).to_owned(),
        provides: (*provides).to_owned(),
        ..IndexPackage::empty()
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
        Assembler::new(self.root.path(), Arc::new(NoNetwork), LocalAccess::Any, false)
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
    let tested = assembler.resolve_test(None, &environment, Arch::X86_64).await.unwrap();
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
    let resolved =
        folders.assembler().resolve_test(Some(Arc::new(made)), &environment, Arch::X86_64).await.unwrap();
    assert_eq!(names(&resolved), ["frd-2.0-r0"]);
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
