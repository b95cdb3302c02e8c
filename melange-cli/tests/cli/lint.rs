//! `melange lint` of packages, and the linters of `melange build`.

use std::collections::BTreeMap;
use std::path::Path;

use melange_remote_sdk::apk::pkginfo::PkgInfo;
use melange_remote_sdk::apk::tree::Tree;
use melange_remote_sdk::apk::writer::{AccountNames, EmitOptions, write_package};
use serde_json::Value;

use crate::support::{GOOD, Server, distro, job, melange, refused, text};

/// Writes an unsigned package with these files, and with a definition in it when there is one.
fn package(folder: &Path, name: &str, files: &[(&str, u32)], definition: Option<&str>) {
    let mut tree = Tree::default();
    for (path, mode) in files {
        tree.add_file(path, *mode, b"x").unwrap();
    }
    let mut info = PkgInfo {
        pkgname: name.to_owned(),
        pkgver: "1-r0".to_owned(),
        arch: "x86_64".to_owned(),
        ..PkgInfo::default()
    };
    let control: BTreeMap<String, Vec<u8>> =
        definition.map(|text| (".melange.yaml".to_owned(), text.as_bytes().to_vec())).into_iter().collect();
    let names = AccountNames::default();
    let path = folder.join(format!("{name}.apk"));
    write_package(&path, &tree, &mut info, &control, &EmitOptions::new(&names)).unwrap();
}

const ID: &str = "0197a3c2-1111-7aaa-8000-000000000001";

const OFF: &str = "package:\n  name: off\n  version: '1'\n  epoch: 0\n  checks:\n    disabled: [dev, ancient]\ntest:\n  \
                   pipeline:\n    - uses: test/ldd-check\n";

/// Three packages, one of each kind, and a definition.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    package(at, "bad", &[("dev/x", 0o644), ("dev/y\nz", 0o644), ("opt/w", 0o4755)], None);
    package(at, "fine", &[("usr/bin/x", 0o755)], None);
    package(at, "off", &[("dev/x", 0o644), ("usr/lib/liba.so.1", 0o644)], Some(OFF));
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    folder
}

#[test]
fn packages_and_definitions_are_told_apart_by_their_bytes() {
    let folder = folder();
    let at = folder.path();
    std::fs::rename(at.join("off.apk"), at.join("off.yaml")).unwrap();
    let lint = melange(at, &["lint", "bad.apk", "fine.apk", "off.yaml", "good.yaml"]);
    assert_eq!(lint.status.code(), Some(1), "{}", text(&lint.stderr));
    insta::assert_snapshot!(text(&lint.stdout) + &text(&lint.stderr));
    let lint = melange(at, &["lint", "fine.apk", "off.yaml"]);
    assert_eq!(lint.status.code(), Some(0), "warnings are none of those");
    assert_eq!(melange(at, &["lint", "--strict", "off.yaml"]).status.code(), Some(1));
    assert_eq!(melange(at, &["lint", "--definitions", "fine.apk"]).status.code(), Some(1));
}

#[test]
fn the_sets_are_those_of_the_call() {
    let folder = folder();
    let at = folder.path();
    let call = |more: &[&str]| {
        let lint = melange(at, &[&["lint", "bad.apk", "--output", "json"], more].concat());
        let read: Value = serde_json::from_slice(&lint.stdout).unwrap();
        let findings = read["findings"].as_array().unwrap().clone();
        let names = findings.iter().map(|found| format!("{} {}", found["linter"], found["severity"]));
        (lint.status.code().unwrap(), names.collect::<Vec<_>>().join(", ").replace('"', ""))
    };
    assert_eq!(call(&[]), (1, "opt warning, dev required, setuidgid required".to_owned()));
    assert_eq!(call(&["--lint-require", ""]), (0, "opt warning".to_owned()));
    assert_eq!(
        call(&["--lint-require", "opt", "--lint-warn", "dev,srv"]),
        (1, "dev warning, opt required".to_owned())
    );
    assert_eq!(call(&["--lint-require=", "--lint-warn="]), (0, String::new()));
    let said = refused(at, &["lint", "bad.apk", "--lint-warn", "setuid-gid"], 2);
    assert!(said.contains("unknown linter: \"setuid-gid\"; did you mean `setuidgid`?"), "{said}");
}

#[test]
fn findings_are_kept_where_melange_keeps_them() {
    let folder = folder();
    let at = folder.path();
    let args = ["lint", "bad.apk", "fine.apk", "--persist-lint-results", "--out-dir", "out"];
    assert_eq!(melange(at, &args).status.code(), Some(1));
    let kept = std::fs::read_to_string(at.join("out/x86_64/lint-bad-1-r0.json")).unwrap();
    let read: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(read["package_name"], "bad-1-r0");
    assert_eq!(read["findings"]["dev"][0]["details"]["paths"], serde_json::json!(["dev/x", "dev/y\nz"]));
    assert_eq!(read["findings"]["setuidgid"][0]["details"]["files"][0]["mode"], "4755");
    assert!(!at.join("out/x86_64/lint-fine-1-r0.json").exists(), "nothing was found");
    package(at, "..", &[("dev/x", 0o644)], None);
    let climbing = melange(at, &["lint", "...apk", "--persist-lint-results", "--out-dir", "out/x86_64"]);
    assert_eq!(climbing.status.code(), Some(1));
    assert!(!at.join("out/lint-..-1-r0.json").exists());
}

#[test]
fn all_findings_are_one_sarif_document() {
    let folder = folder();
    let at = folder.path();
    std::fs::write(at.join("bad.yaml"), GOOD.replace("runs: \"true\"", "runs: ${{vars.x}}")).unwrap();
    let lint = melange(at, &["lint", "bad.apk", "bad.yaml", "fine.apk", "--output", "sarif"]);
    assert_eq!(lint.status.code(), Some(1), "{}", text(&lint.stderr));
    let read: Value = serde_json::from_slice(&lint.stdout).unwrap();
    assert_eq!(read["version"], "2.1.0");
    let results = read["runs"][0]["results"].as_array().unwrap();
    let rules: Vec<&str> = results.iter().map(|result| result["ruleId"].as_str().unwrap()).collect();
    assert_eq!(rules, ["opt", "dev", "setuidgid", "definition/doubtful", "definition/mistake"]);
    assert_eq!(results[1]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "dev/x");
    assert_eq!(results[3]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "bad.yaml");
    let known: Vec<&Value> = read["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().iter().collect();
    assert!(rules.iter().all(|rule| known.iter().any(|known| known["id"] == *rule)));
}

#[test]
fn damaged_packages_end_the_look_at_them_alone() {
    let folder = folder();
    let at = folder.path();
    let whole = std::fs::read(at.join("bad.apk")).unwrap();
    std::fs::write(at.join("cut.apk"), &whole[..whole.len() - 20]).unwrap();
    std::fs::write(at.join("three.apk"), b"ADB.").unwrap();
    let lint = melange(at, &["lint", "cut.apk", "three.apk", "off.apk"]);
    let said = text(&lint.stderr);
    assert!(lint.status.code() != Some(0) && said.contains("cut.apk is no intact package"), "{said}");
    assert!(said.contains("three.apk is a package in the format of apk 3"), "{said}");
    assert!(text(&lint.stdout).contains("[dev] off writes to /dev"), "{}", text(&lint.stdout));
}

#[test]
fn a_build_is_refused_and_what_was_found_is_kept() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "runs: mkdir ${{targets.destdir}}/dev; echo x > ${{targets.destdir}}/dev/x";
    let yaml = GOOD.replace("runs: \"true\"", script);
    let yaml = yaml + "environment:\n  contents:\n    packages: [busybox]\n";
    std::fs::write(at.join("good.yaml"), yaml).unwrap();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let call = |more: &[&str]| {
        let args = ["build", "good.yaml", "--arch", "x86_64", "-r", &distro, "-k", &key, "--output", "json"];
        melange(at, &[&args[..], more].concat())
    };
    let kept = at.join("packages/x86_64/lint-good-1-r0.json");
    let build = call(&["--persist-lint-results"]);
    assert_eq!(build.status.code(), Some(1), "{}", text(&build.stderr));
    let read: Value = serde_json::from_slice(&build.stdout).unwrap();
    assert_eq!(
        (&read["status"], &read["lint"][0]["findings"][0]["linter"]),
        (&"failed".into(), &"dev".into())
    );
    assert!(
        read["reason"].as_str().unwrap().starts_with("unable to lint package good: linter \"dev\" failed")
    );
    assert!(text(&build.stderr).contains("\"event\":\"linted\""), "{}", text(&build.stderr));
    assert!(kept.is_file() && !at.join("packages/x86_64/good-1-r0.apk").exists());
    std::fs::remove_file(&kept).unwrap();
    let build = call(&["--lint-require", "opt"]);
    assert_eq!(build.status.code(), Some(0), "{}", text(&build.stderr));
    assert!(!kept.exists() && at.join("packages/x86_64/good-1-r0.apk").is_file());
    let lint = melange(at, &["lint", "packages/x86_64/good-1-r0.apk"]);
    assert_eq!(lint.status.code(), Some(1), "the definition in it switches nothing off");
    assert!(!text(&lint.stderr).contains("is not read"), "{}", text(&lint.stderr));
}

/// A package's name and what a linter says of it are a stranger's words.
#[test]
fn a_job_shows_what_linters_found() {
    let found = serde_json::json!([{ "package": "hello", "version": "2.10-r0", "findings": [
        {
            "linter": "duplicate", "severity": "warning", "message": "hello contains duplicates:", "explain": "x",
        },
        {
            "linter": "dev", "severity": "required", "message": "hello writes to /dev", "explain": "x",
            "details": { "paths": ["dev/\u{1b}x", "dev/y"] }, "omitted": 8,
        },
    ] }]);
    let server = Server::start(move |line, _| {
        let mut told = job(ID, "failed");
        told["lint"] = found.clone();
        (200, if line.contains("/logs") { Vec::new() } else { told.to_string().into_bytes() })
    });
    let folder = tempfile::tempdir().unwrap();
    let status = server.melange(folder.path(), &["remote", "status", ID]);
    let said = text(&status.stdout);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("hello: ")).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "lint:     hello: warning [duplicate] hello contains duplicates",
            "lint:     hello: required [dev] hello writes to /dev: dev/\\u{1b}x and 9 more",
        ],
        "{said}"
    );
    let waited = server.melange(folder.path(), &["remote", "wait", ID]);
    let said = text(&waited.stdout) + &text(&waited.stderr);
    assert!(
        said.contains("lint of hello: required [dev] hello writes to /dev: dev/\\u{1b}x and 9 more"),
        "{said}"
    );
}
