//! What is found in small trees.

use super::*;

fn scan(package: &PlanPackage, files: &[(&str, u32, &[u8])]) -> Dependencies {
    let mut tree = Tree::default();
    for (path, mode, content) in files {
        tree.add_file(path, *mode, content).unwrap();
    }
    let siblings = [tree.clone()];
    dependencies(&ScanInput { package, tree: &tree, siblings: &siblings })
}

#[test]
fn commands_shebangs_and_pkg_config() {
    let package = PlanPackage { name: "t".into(), version: "1".into(), ..PlanPackage::default() };
    let found = scan(
        &package,
        &[
            ("usr/bin/a", 0o755, b"#!/usr/bin/env perl\n"),
            ("usr/bin/b", 0o644, b"#!/bin/sh\n"),
            ("usr/lib/pkgconfig/x.pc", 0o644, b"v=1\nName: x\nRequires: y >= 2, z\nRequires.private: w\n"),
            ("usr/lib/other/q.pc", 0o644, b"Name: q\n"),
        ],
    );
    assert_eq!(found.runtime, ["cmd:perl", "pc:w", "pc:y", "pc:z"]);
    assert_eq!(found.provides, ["cmd:a=1-r0", "pc:x=1-r0"]);
    assert_eq!(found.vendored, ["pc:q=1-r0"]);
}

#[test]
fn own_provides_are_not_needed_and_options_act_on_generated_lists_only() {
    let mut package = PlanPackage { name: "t".into(), version: "1".into(), ..PlanPackage::default() };
    package.runtime = vec!["cmd:a".into(), "b>1".into()];
    package.options.no_provides = true;
    let kept = scan(&package, &[("usr/bin/a", 0o755, b"")]);
    assert_eq!((kept.runtime, kept.provides), (vec!["b>1".to_owned(), "cmd:a".to_owned()], vec![]));
    package.options.no_provides = false;
    let dropped = scan(&package, &[("usr/bin/a", 0o755, b"")]);
    assert_eq!(dropped.runtime, ["b>1"]);
}

#[test]
fn versions_of_sonames() {
    for (soname, version) in
        [("libz.so.1", "1"), ("libx.so.1.2", "1.2"), ("liby.so", "0"), ("libq.so.a", "0")]
    {
        assert_eq!(library_version(soname), version);
    }
    assert!(
        is_host_provided("libcuda.so.1")
            && is_host_provided("libnvidia-ml.so.1")
            && !is_host_provided("libz.so.1")
    );
}

#[test]
fn kernels_are_provided_and_modules_need_theirs() {
    let package = PlanPackage { name: "t".into(), version: "1".into(), ..PlanPackage::default() };
    let image = b"\0\0Linux version 6.1.2-foo (a@b)\n";
    let module = b"\x7fELFvermagic=6.6.7-bar SMP \0";
    let found = scan(
        &package,
        &[
            ("boot/vmlinuz", 0o644, image),
            ("usr/lib/modules/6.6.7-bar/kernel/a.ko", 0o644, module),
            ("usr/share/boot/vmlinuz", 0o644, image),
            ("boot/a.ko", 0o644, module),
        ],
    );
    assert_eq!(
        (found.runtime, found.provides),
        (vec!["linux:6.6.7-bar".into()], vec!["linux:6.1.2-foo".into()])
    );
    // The same version of both: the package needs what it provides itself.
    let both =
        [("boot/vmlinuz", 0o644, &image[..]), ("lib/modules/x/a.ko", 0o644, b"vermagic=6.1.2-foo SMP")];
    assert!(scan(&package, &both).runtime.is_empty());
}

#[test]
fn folders_of_the_loader() {
    let mut tree = Tree::default();
    let lines = b"/opt/a/lib/\n/opt/b/lib \n/opt/c/lib\r\n# /opt/d\nopt/e\n/usr/lib/\n";
    tree.add_file("etc/ld.so.conf.d/x/y.conf", 0o644, lines).unwrap();
    tree.add_file("etc/ld.so.conf.d/x.txt", 0o644, b"/opt/f").unwrap();
    let package = PlanPackage::default();
    let siblings = [Tree::default(), tree.clone()];
    let folders = library_folders(&ScanInput { package: &package, tree: &siblings[0], siblings: &siblings });
    assert_eq!(folders[4..], ["opt/a/lib", "opt/b/lib ", "opt/c/lib"]);
}
