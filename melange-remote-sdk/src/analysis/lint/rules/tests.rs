//! Every linter with trees that trip it and trees that do not.

use std::collections::BTreeSet;

use crate::analysis::lint::{LintInput, LintSeverity, Linter, LinterSets, TestSteps, lint};
use crate::apk::tree::{EntryKind, Tree};

/// A tree of files: `path`, `path/` for a folder, `path -> target` for a link, `path =1000` for one of so many bytes,
/// and an octal mode behind a blank.
fn tree(files: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for file in files {
        let mut words = file.split(' ');
        let path = words.next().unwrap();
        let (mut mode, mut size, mut link) = (0o644, 1, None);
        while let Some(word) = words.next() {
            match word {
                "->" => link = words.next(),
                word if word.starts_with('=') => size = word[1..].parse().unwrap(),
                word => mode = u32::from_str_radix(word, 8).unwrap(),
            }
        }
        tree.add_file(path, mode, &vec![b'x'; size]).unwrap();
        let entry = tree.get_mut(path).unwrap();
        if path.ends_with('/') {
            (entry.kind, entry.mode) = (EntryKind::Directory, if mode == 0o644 { 0o755 } else { mode });
        }
        if let Some(target) = link {
            (entry.kind, entry.mode) = (EntryKind::Symlink(target.to_owned()), 0o777);
        }
    }
    tree
}

/// What one linter says of a package called `package`: its message, and the lines of its details.
fn said(linter: Linter, package: &str, tree: &Tree, uses: &[&str]) -> Option<String> {
    let tests = TestSteps::Uses(uses.iter().map(|uses| (*uses).to_owned()).collect::<BTreeSet<_>>());
    let sets = LinterSets { required: vec![linter], warned: Vec::new() };
    let input = LintInput { package, version: "1-r0", tree, tests: &tests, sets: &sets };
    let found = lint(&input).unwrap().findings;
    assert!(found.len() < 2);
    let finding = found.into_iter().next()?;
    assert_eq!((finding.linter.as_str(), finding.severity), (linter.name(), LintSeverity::Required));
    let details = finding.details.map(|details| details.lines()).unwrap_or_default();
    Some(format!("{} [{}]", finding.message, details.join("; ")))
}

fn trips(linter: Linter, package: &str, files: &[&str], expected: &str) {
    assert_eq!(said(linter, package, &tree(files), &[]).as_deref(), Some(expected), "{files:?}");
}

fn passes(linter: Linter, package: &str, files: &[&str]) {
    assert_eq!(said(linter, package, &tree(files), &[]), None, "{linter} {files:?}");
}

#[test]
fn places_that_packages_leave_alone() {
    trips(Linter::Dev, "p", &["dev/", "dev/null", "dev/x/y"], "p writes to /dev [dev/null; dev/x/y]");
    passes(Linter::Dev, "p", &["dev/", "usr/dev/x", "device"]);
    trips(
        Linter::InfoDir,
        "p",
        &["usr/share/info/dir/x"],
        "p writes to /usr/share/info/dir/ [usr/share/info/dir/x]",
    );
    passes(Linter::InfoDir, "p", &["usr/share/info/dir", "usr/share/info/x"]);
    trips(Linter::Opt, "p", &["opt/x -> y"], "p writes to /opt [opt/x]");
    passes(Linter::Opt, "p-compat", &["opt/x"]);
    passes(Linter::Opt, "p", &["opt/", "usr/opt/x"]);
    trips(Linter::Srv, "p", &["srv/x"], "p writes to /srv [srv/x]");
    passes(Linter::Srv, "p-compat", &["srv/x"]);
    trips(
        Linter::UsrLocal,
        "p",
        &["usr/local/bin/x"],
        "p contains /usr/local path in non-compat package [usr/local/bin/x]",
    );
    passes(Linter::UsrLocal, "p-compat", &["usr/local/bin/x"]);
    passes(Linter::UsrLocal, "p", &["usr/local/", "usr/localx"]);
    trips(Linter::VarEmpty, "p", &["var/empty/x"], "p writes to /var/empty [var/empty/x]");
    passes(Linter::VarEmpty, "p", &["var/empty/"]);
    let sbom = ["var/lib/db/sbom/x.json", "var/lib/db/sbom/x.spdx.json", "var/lib/db/sbom/a/b"];
    trips(Linter::Sbom, "p", &sbom, "p writes to var/lib/db/sbom [var/lib/db/sbom/x.json]");
    passes(Linter::Sbom, "p", &["var/lib/db/sbom/x.spdx.json"]);
}

#[test]
fn temporary_folders() {
    let told = |path: &str| format!("p writes to a temp dir [{path}]");
    for path in ["tmp/x", "var/tmp/x -> y", "run/x"] {
        trips(Linter::TempDir, "p", &[path, "usr/lib/tmpfiles.d/x"], &told(path.split(' ').next().unwrap()));
    }
    trips(Linter::TempDir, "p", &["run/x/"], &told("run/x"));
    trips(Linter::TempDir, "p", &["var/run/x/", "usr/lib/tmpfiles.d/x"], &told("var/run/x"));
    passes(Linter::TempDir, "p", &["run/x/", "usr/lib/tmpfiles.d/x"]);
    passes(Linter::TempDir, "p", &["tmp/", "tmp/x/", "var/tmp/x/", "run/", "var/run/", "usr/tmp/x"]);
}

#[test]
fn merged_folders() {
    let told = |paths: &str| format!("Package contains paths in violation of usrmerge: [{paths}]");
    trips(Linter::UsrMerge, "p", &["bin/x"], &told("bin; bin/x"));
    trips(Linter::UsrMerge, "p", &["sbin"], &told("sbin"));
    trips(Linter::UsrMerge, "p", &["lib64 -> usr/lib"], &told("lib64"));
    trips(
        Linter::UsrMerge,
        "p",
        &["usr/sbin/x", "lib/a/b"],
        &told("lib; lib/a; lib/a/b; usr/sbin; usr/sbin/x"),
    );
    passes(
        Linter::UsrMerge,
        "p",
        &["usr/bin/x", "usr/lib/x", "usr/lib64/x", "etc/bin/x", "library/x", "usr/x/sbin"],
    );
    // The walk of melange ends at files beside.
    trips(Linter::UsrMerge, "p", &["bin/x", "file", "lib/x", "usr/sbin/x"], &told("bin; bin/x"));
    trips(Linter::UsrMerge, "p", &["sbin/x", "usr/a", "usr/sbin/x"], &told("sbin; sbin/x"));
    passes(Linter::UsrMerge, "p", &["usr/a -> b", "usr/sbin/x"]);
}

#[test]
fn modes() {
    trips(
        Linter::SetUidGid,
        "p",
        &["a 4755", "b 2755", "c 1644", "d 7777", "e/ 1777"],
        "p contains 4 files with special permissions (setuid/setgid) [a (mode: 4755, setuid); b (mode: 2755, \
         setgid); c (mode: 1644, sticky); d (mode: 7777, setuid+setgid+sticky)]",
    );
    passes(Linter::SetUidGid, "p", &["a 777", "b/ 7777"]);
    trips(
        Linter::WorldWrite,
        "p",
        &["a 666", "b 755"],
        "p contains 1 world-writeable file [a (mode: 666, world-writable)]",
    );
    trips(
        Linter::WorldWrite,
        "p",
        &["a 666", "b 4777"],
        "p contains 2 world-writeable files [a (mode: 666, world-writable); b (mode: 4777, \
         world-writable+executable)]",
    );
    passes(Linter::WorldWrite, "p", &["a 775", "b/ 1777", "c -> d"]);
}

#[test]
fn kinds_of_files() {
    trips(
        Linter::CudaRuntimeLib,
        "p",
        &["usr/lib/libcuda.so.1.2", "usr/lib/libnvidia-ml.so"],
        "p contains CUDA driver-specific libraries [usr/lib/libcuda.so.1.2; usr/lib/libnvidia-ml.so]",
    );
    passes(
        Linter::CudaRuntimeLib,
        "p",
        &["usr/lib/libcudart.so.1", "usr/lib64/libcuda.so", "usr/lib/libcuda.so.a"],
    );
    trips(Linter::Dll, "p", &["a.dll", "b.dll"], "p contains 2 DLL files [a.dll; b.dll]");
    passes(Linter::Dll, "p-dev", &["a.dll"]);
    passes(Linter::Dll, "p", &["a.dll/x", "a.DLL", "dll"]);
    trips(Linter::Dylib, "p", &["a.dylib"], "p contains 1 dylib file [a.dylib]");
    passes(Linter::Dylib, "p-dev", &["a.dylib"]);
    trips(
        Linter::Documentation,
        "p",
        &["README", "a.md", "b.1x", "c.1", "CREDITS", "usr/READ.ME"],
        "p contains 5 documentation files but is not a documentation package [CREDITS; README; a.md; b.1x; usr/READ.ME]",
    );
    passes(Linter::Documentation, "p-doc", &["README"]);
    passes(Linter::Documentation, "p", &["README.txt", "a.1"]);
    trips(
        Linter::Empty,
        "p",
        &["var/lib/db/sbom/x", "usr/"],
        "package is empty but no-provides is not set []",
    );
    passes(Linter::Empty, "p", &["usr/x -> y"]);
    trips(
        Linter::LaFiles,
        "p",
        &["usr/lib/a.la"],
        "p contains 1 libtool archive (.la) file. Remove them in the build pipeline; if this package legitimately \
         needs to ship .la files, disable this linter via checks.disabled [usr/lib/a.la]",
    );
    passes(Linter::LaFiles, "p-dev", &["a.lai", "a.la/x"]);
    trips(
        Linter::Object,
        "p",
        &["a.o"],
        "p contains 1 intermediate object file. This is usually wrong. In most cases they should be removed [a.o]",
    );
    passes(Linter::Object, "p", &["a.ko", "o"]);
    trips(
        Linter::StaticArchive,
        "p",
        &["a.a", "b.a"],
        "p contains 2 static archives. Static archives bloat packages and should typically be in -dev packages or \
         removed [a.a; b.a]",
    );
    passes(Linter::StaticArchive, "p-dev", &["a.a"]);
    passes(Linter::StaticArchive, "p-static", &["a.a"]);
}

#[test]
fn pages() {
    trips(
        Linter::ManInfo,
        "p",
        &[
            "usr/share/man/man1/a.1",
            "usr/share/info/dir",
            "usr/share/info/b.info-1.gz",
            "usr/man/man3p/c.3p.gz",
        ],
        "p contains 4 man/info files but is not a documentation package [usr/man/man3p/c.3p.gz; \
         usr/share/info/b.info-1.gz; usr/share/info/dir; usr/share/man/man1/a.1]",
    );
    passes(Linter::ManInfo, "p-doc", &["usr/share/man/man1/a.1"]);
    passes(
        Linter::ManInfo,
        "p",
        &["usr/share/man/de/man1/a.1", "usr/share/info/a.txt", "usr/share/man/man1/a"],
    );
}

#[test]
fn files_that_want_a_test() {
    let library = tree(&["usr/lib/a.so.1", "usr/lib/a.so", "usr/lib/a.so.1a"]);
    assert_eq!(
        said(Linter::LddCheck, "p", &library, &["test/pkgconf"]).unwrap(),
        "p contains shared objects but test/ldd-check is not configured [usr/lib/a.so; usr/lib/a.so.1]"
    );
    for test in ["test/ldd-check", "test/tw/ldd-check"] {
        assert_eq!(said(Linter::LddCheck, "p", &library, &[test]), None);
    }
    passes(Linter::LddCheck, "p", &["usr/lib/a.so.x"]);
    let pc = tree(&["usr/lib/pkgconfig/a.pc", "usr/share/pkgconfig/b", "usr/lib64/pkgconfig/c.pc"]);
    assert_eq!(
        said(Linter::PkgConf, "p", &pc, &["test/tw/pkgconf"]).unwrap(),
        "p contains pkgconfig files but test/pkgconf is not configured [usr/lib/pkgconfig/a.pc; usr/share/pkgconfig/b]"
    );
    assert_eq!(said(Linter::PkgConf, "p", &pc, &["test/pkgconf"]), None);
    let sets = LinterSets { required: vec![Linter::PkgConf], warned: Vec::new() };
    let input =
        LintInput { package: "p", version: "1-r0", tree: &pc, tests: &TestSteps::Unknown, sets: &sets };
    assert_eq!(
        lint(&input).unwrap().findings[0].message,
        "p contains pkgconfig files but missing .melange.yaml"
    );
}

#[test]
fn names_of_other_systems() {
    trips(
        Linter::NonLinux,
        "p",
        &["usr/lib/Darwin/a", "usr/lib/a-win32.txt", "usr/OS_X", "usr/x"],
        "p contains 3 non-Linux reference(s) [usr/OS_X (macos); usr/lib/Darwin/a (macos); usr/lib/a-win32.txt \
         (windows)]",
    );
    passes(Linter::NonLinux, "p", &["usr/darwin/", "usr/win/x"]);
    trips(
        Linter::UnsupportedArch,
        "p",
        &["usr/lib/i386-linux-gnu/a", "usr/lib/b.s390x.so"],
        "p contains 2 unsupported architecture reference(s) [usr/lib/b.s390x.so (s390x); usr/lib/i386-linux-gnu/a \
         (i386)]",
    );
    passes(Linter::UnsupportedArch, "p", &["usr/lib/i386/", "usr/lib/mips", "usr/lib/x86_64/b-mips"]);
}

#[test]
fn python_modules() {
    let site = "usr/lib/python3.12/site-packages";
    let at = |names: &[&str]| names.iter().map(|name| format!("{site}/{name}")).collect::<Vec<_>>();
    let check = |linter, names: &[&str]| {
        let paths = at(names);
        said(linter, "p", &tree(&paths.iter().map(String::as_str).collect::<Vec<_>>()), &[])
    };
    let told = "docs directory encountered in Python site-packages directory []";
    assert_eq!(check(Linter::PythonDocs, &["docs/x", "a.py"]).unwrap(), told);
    assert_eq!(check(Linter::PythonDocs, &["a/docs/x", "document/x"]), None);
    let told = "tests directory encountered in Python site-packages directory []";
    assert_eq!(check(Linter::PythonTest, &["test/x"]).unwrap(), told);
    assert_eq!(check(Linter::PythonTest, &["a/tests/x", "testing"]), None);
    let told = "multiple Python packages detected: 2 found (\"a\", \"b\") [\"a\"; \"b\"]";
    assert_eq!(
        check(Linter::PythonMultiple, &["a/x", "b/x", "tests/x", "_c/x", "a-1.dist-info/x"]).unwrap(),
        told
    );
    assert_eq!(check(Linter::PythonMultiple, &["a/x", "a/b/x", "x.pth", "docs/x"]), None);
    let two = ["usr/lib/python3.11/site-packages/a/x", "usr/lib/python3.12/x"];
    for linter in [Linter::PythonDocs, Linter::PythonMultiple, Linter::PythonTest] {
        trips(linter, "p", &two, "more than one Python version detected: 2 found []");
        passes(linter, "p", &["usr/lib/python2.7/site-packages/docs/x", "usr/lib/x"]);
    }
}

#[test]
fn equal_files() {
    trips(
        Linter::Duplicate,
        "p",
        &[
            "a/x =2000",
            "b/x =2000",
            "c/x =2000",
            "a/y =5000",
            "b/y =5000",
            "b/z =5000",
            "a/s =1023",
            "b/s =1023",
        ],
        "p contains 2 duplicate file(s) with same name in different directories (wasting 9.0 kB total): [y (2 copies, \
         5.0 kB wasted): a/y, b/y; x (3 copies, 4.0 kB wasted): a/x, b/x, c/x]",
    );
    passes(
        Linter::Duplicate,
        "p",
        &["a/LICENSE =2000", "b/LICENSE =2000", "a/x =2000", "b/x =2001", "c/x -> x"],
    );
    let mut other = tree(&["a/x =2000"]);
    other.add_file("b/x", 0o644, &[b'y'; 2_000]).unwrap();
    assert_eq!(said(Linter::Duplicate, "p", &other, &[]), None);
}

/// A program of 64 bits with sections of these names.
fn elf(machine: u8, sections: &[&str]) -> Vec<u8> {
    let mut names = vec![0];
    let mut starts = Vec::new();
    for name in sections {
        starts.push(u32::try_from(names.len()).unwrap());
        names.extend(name.bytes().chain([0]));
    }
    let count = u16::try_from(sections.len() + 2).unwrap();
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([2, 0, machine, 0, 1, 0, 0, 0]);
    bytes.extend([0; 16]);
    bytes.extend((64 + u64::try_from(names.len()).unwrap()).to_le_bytes());
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0]);
    bytes.extend(count.to_le_bytes());
    // The names are those of the last section.
    bytes.extend((count - 1).to_le_bytes());
    bytes.extend(&names);
    let mut header = |name: u32, kind: u32, size: usize| {
        bytes.extend(name.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(64u64.to_le_bytes());
        bytes.extend(u64::try_from(size).unwrap().to_le_bytes());
        bytes.extend([0; 24]);
    };
    header(0, 0, 0);
    starts.into_iter().for_each(|start| header(start, 1, 0));
    header(0, 3, names.len());
    bytes
}

fn with_elf(path: &str, mode: u32, bytes: &[u8]) -> Tree {
    let mut tree = tree(&["usr/x"]);
    tree.add_file(path, mode, bytes).unwrap();
    tree
}

#[test]
fn programs() {
    let debug = elf(62, &[".text", ".debug"]);
    let stripped = elf(62, &[".text", ".debug_info"]);
    let told = "p contains 1 unstripped binary [usr/bin/a]";
    assert_eq!(said(Linter::Strip, "p", &with_elf("usr/bin/a", 0o755, &debug), &[]).unwrap(), told);
    for (path, mode, bytes) in [
        ("usr/bin/a", 0o755, &stripped),
        ("usr/bin/a", 0o644, &debug),
        ("var/lib/db/sbom/a", 0o755, &debug),
        ("usr/bin/a", 0o755, &b"#!/bin/sh\n".to_vec()),
    ] {
        assert_eq!(said(Linter::Strip, "p", &with_elf(path, mode, bytes), &[]), None, "{path}");
    }
    let library = with_elf("usr/lib/a.so", 0o644, &debug);
    assert_eq!(
        said(Linter::Strip, "p", &library, &[]).unwrap(),
        "p contains 1 unstripped binary [usr/lib/a.so]"
    );
    for (machine, name) in [(3, "i386"), (243, "riscv"), (2, "unknown (EM_SPARC)"), (200, "unknown (200)")] {
        let tree = with_elf("usr/bin/a", 0o755, &elf(machine, &[]));
        let told =
            format!("p contains 1 binary compiled for unsupported architecture(s) [usr/bin/a ({name})]");
        assert_eq!(said(Linter::BinaryArch, "p", &tree, &[]).unwrap(), told);
    }
    for machine in [62, 183] {
        let tree = with_elf("usr/bin/a", 0o755, &elf(machine, &[]));
        assert_eq!(said(Linter::BinaryArch, "p", &tree, &[]), None);
    }
}

#[test]
fn damaged_programs_are_told_and_harm_nobody() {
    let whole = elf(3, &[".text", ".debug"]);
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        for bytes in [&whole[..at], &damaged] {
            let tree = with_elf("usr/bin/a", 0o755, bytes);
            let said_of = said(Linter::Strip, "p", &tree, &[]);
            let is_refused = said_of
                .is_some_and(|said| said.starts_with("could not open file \"usr/bin/a\" as executable: "));
            refused += usize::from(is_refused);
            let arch = said(Linter::BinaryArch, "p", &tree, &[]);
            assert!(!is_refused || arch.is_none(), "{at}");
        }
    }
    assert!(refused > 50, "{refused}");
    // A table of sections that is said to be huge.
    let mut huge = elf(62, &[]);
    huge[60..62].copy_from_slice(&[0, 0]);
    let table = huge.len() - 2 * 64;
    huge[table + 32..table + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    let said = said(Linter::Strip, "p", &with_elf("usr/bin/a", 0o755, &huge), &[]).unwrap();
    assert!(said.starts_with("could not open file"), "{said}");
}

#[test]
fn every_linter_is_tried_here() {
    let text = include_str!("tests.rs");
    for linter in Linter::ALL {
        assert!(text.contains(&format!("Linter::{linter:?}")), "{linter}");
    }
}
