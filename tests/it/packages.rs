//! Real software through both builders: configured, compiled, split, packed, signed, installed, run.

use std::fmt::Write;

use melange_remote_sdk::apk::index::Index;

use crate::support::farm::{Built, Farm, assert_same, distro_definition, on_farm};
use crate::support::package::{RawEntry, Sections, entries};

#[test]
fn hello_with_autoconf() {
    on_farm(async |farm| four_times(farm, "hello").await);
}

#[test]
fn libptytty_with_cmake() {
    on_farm(async |farm| four_times(farm, "libptytty").await);
}

#[test]
fn serd_with_meson() {
    on_farm(async |farm| four_times(farm, "serd").await);
}

/// Builds a definition twice through each builder: what comes out is the same every time, and what it must be.
async fn four_times(farm: &Farm, definition: &str) {
    let Some(&first) = farm.backends().first() else { return };
    let reference = farm.built(first, definition).await;
    for backend in farm.backends() {
        let once = farm.built(backend, definition).await;
        let again = farm.build(backend, definition, &distro_definition(definition)).await;
        println!("{definition} by {backend:?}, warm: {}", again.timings());
        assert_same(&format!("{definition} by {backend:?}"), &reference, &once);
        assert_same(&format!("{definition} by {backend:?} again"), &reference, &again);
    }
    check(farm, definition, &reference);
}

/// Signatures hold, the index lists exactly the packages, and the packages hold what people expect.
fn check(farm: &Farm, definition: &str, built: &Built) {
    let bytes = built.bytes();
    let index = Index::read(&bytes["x86_64/APKINDEX.tar.gz"], Some(&farm.keyring())).unwrap();
    let mut shown = String::new();
    let mut listed = Vec::new();
    for package in &index.packages {
        let apk = built.package(&format!("{}-{}", package.name, package.version));
        assert_eq!(apk.verify_signature(&farm.keyring()).unwrap(), "farm.rsa.pub");
        assert_eq!(Some(apk.control_sha1), package.control_sha1);
        assert_eq!(apk.size_bytes, package.size_bytes);
        assert!(!apk.entries().unwrap().is_empty());
        listed.push(format!("x86_64/{}", package.file_name()));
        let sections = Sections::of(&bytes[&listed[listed.len() - 1]]);
        let data = entries(&sections.data, true);
        data.iter().for_each(RawEntry::check);
        writeln!(shown, "==> {}\n{}", package.file_name(), sections.pkginfo()).unwrap();
        data.iter().for_each(|entry| writeln!(shown, "{}", entry.line()).unwrap());
        writeln!(shown).unwrap();
    }
    listed.push("x86_64/APKINDEX.tar.gz".to_owned());
    listed.sort();
    assert_eq!(listed, bytes.keys().cloned().collect::<Vec<_>>());
    insta::assert_snapshot!(definition.to_owned(), shown);
}

/// What was built is a repository: another definition takes `hello` from it and runs it.
#[test]
fn a_built_package_installs_and_runs() {
    on_farm(async |farm| {
        let Some(&first) = farm.backends().first() else { return };
        let hello = farm.built(first, "hello").await;
        let repository = farm.repository("repository", &hello);
        let distro = farm.places.distro.display();
        let yaml = include_str!("definitions/greeting.yaml")
            .replace("@distro@", &distro.to_string())
            .replace("@repository@", &repository.display().to_string());
        for backend in farm.backends() {
            let built = farm.build(backend, "greeting", &yaml).await;
            built.assert_succeeded();
            assert_eq!(built.events.lines_of("greeting: greet"), ["Hello, world!", "hello-2.10-r0"]);
        }
    });
}
