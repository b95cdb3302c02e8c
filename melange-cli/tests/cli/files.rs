//! Files that are read and written: standard input, several definitions, folders that cannot be used.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::support::{GOOD, command, distro, melange, refused, text};

/// Runs a call with something on standard input.
fn with_input(folder: &Path, args: &[&str], input: &str) -> std::process::Output {
    let mut child = command(folder, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_dash_is_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let bad = GOOD.replace("true", "${{x}}");
    for (args, expected) in [
        (&["compile", "-"][..], "name: good"),
        (&["query", "-", "{{.Package.Name}}"], "good"),
        (&["lint", "-"], ""),
    ] {
        let output = with_input(at, args, GOOD);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(expected), "{args:?}");
    }
    for args in [&["compile", "-"][..], &["lint", "-"], &["build", "-"], &["test", "-"]] {
        let output = with_input(at, args, &bad);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("--> <stdin>:8:12"), "{args:?}: {said}");
    }
}

#[test]
fn lint_needs_no_flag_and_every_definition_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, text) in [("a.yaml", GOOD), ("b.yaml", "x: 1\n"), ("c.yaml", "y: 1\n")] {
        std::fs::write(at.join(name), text).unwrap();
    }
    let lint = melange(at, &["lint", "a.yaml", "b.yaml", "c.yaml"]);
    assert_eq!(lint.status.code(), Some(1));
    assert!(text(&lint.stdout).contains("b.yaml:1:1") && text(&lint.stdout).contains("c.yaml:1:1"));
    let build = melange(at, &["build", "b.yaml", "nosuch.yaml", "c.yaml"]);
    let said = text(&build.stderr);
    assert_eq!(build.status.code(), Some(1), "that of the first");
    for part in ["b.yaml:1:1", "cannot read nosuch.yaml", "c.yaml:1:1", "3 of 3 definitions did not build"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn an_output_folder_that_cannot_be_used_is_found_before_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("good.yaml"), GOOD).unwrap();
    std::fs::write(at.join("file"), "").unwrap();
    std::fs::create_dir_all(at.join("broken/x86_64")).unwrap();
    std::fs::write(at.join("broken/x86_64/APKINDEX.tar.gz"), "nonsense").unwrap();
    for (out_dir, code) in [("file", 2), ("file/below", 2), ("/proc/nothing", 5), ("broken", 1)] {
        let args = ["build", "good.yaml", "--arch", "x86_64", "--out-dir", out_dir];
        let said = refused(at, &args, code);
        assert!(said.contains("hint: ") && said.contains("--out-dir"), "{out_dir}: {said}");
        // Nothing was resolved or run: not even the state folder is there.
        assert!(!at.join(".cache").exists(), "{out_dir}");
    }
}

#[test]
fn keys_are_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let keygen = ["keygen", "--key-size", "2048", "k.rsa"];
    // The other half of the pair is there already.
    std::fs::write(at.join("k.rsa.pub"), "mine").unwrap();
    assert!(refused(at, &keygen, 2).contains("k.rsa.pub exists"));
    assert!(!at.join("k.rsa").exists(), "no half of a pair");
    std::fs::remove_file(at.join("k.rsa.pub")).unwrap();
    // A bound on the size of files stands for a full disk: two blocks of 512 bytes are less than a private key has.
    let limited =
        format!("ulimit -f 2; trap '' XFSZ; exec {} {}", env!("CARGO_BIN_EXE_melange"), keygen.join(" "));
    let output = std::process::Command::new("sh").args(["-c", &limited]).current_dir(at).output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(at).unwrap().count(), 0, "nothing is left");
    assert!(melange(at, &keygen).status.success());
    let mode = |name: &str| std::fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("k.rsa"), mode("k.rsa.pub") | 0o044), (0o600, 0o644));
}

#[test]
fn packages_that_cannot_be_put_away_are_kept() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // The place of the package is taken by a folder, which only the move finds out.
    std::fs::create_dir_all(at.join("packages/x86_64/good-1-r0.apk/in-the-way")).unwrap();
    let busybox = "environment:\n  contents:\n    packages:\n      - busybox\npipeline:";
    std::fs::write(at.join("good.yaml"), GOOD.replace("pipeline:", busybox)).unwrap();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let args = ["build", "good.yaml", "-r", &distro, "-k", &key, "--arch", "x86_64", "--state-dir", "state"];
    let output = melange(at, &args);
    let said = text(&output.stderr);
    assert_ne!(output.status.code(), Some(0));
    let kept = said.split("the packages are kept in ").nth(1).expect(&said).trim();
    let kept = at.join(kept).join("x86_64");
    for name in ["good-1-r0.apk", "APKINDEX.tar.gz"] {
        assert!(kept.join(name).is_file(), "{name}: {said}");
    }
}

#[test]
fn repositories_and_keys_of_the_call_come_behind_those_of_the_definition() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    std::fs::create_dir_all(at.join("own/x86_64")).unwrap();
    assert!(melange(at, &["keygen", "--key-size", "2048", "k.rsa"]).status.success());
    // A definition with a repository of its own, which lacks what the step needs.
    let environment =
        |own: &str| format!("environment:\n  contents:\n{own}    packages:\n      - busybox\npipeline:");
    let one = GOOD.replace("pipeline:", &environment("")).replace("good", "first");
    std::fs::write(at.join("first.yaml"), one).unwrap();
    let given = ["-r", &distro, "-k", &key, "--arch", "x86_64", "--signing-key", "k.rsa"];
    let build = |file: &str, more: &[&str]| {
        melange(at, &[&["build", file][..], more, &["--arch", "x86_64", "--signing-key", "k.rsa"]].concat())
    };
    let output = build("first.yaml", &given[..4]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let own = "    repositories: [./packages]\n    keyring: [./k.rsa.pub]\n";
    let own = own.replace("./", &format!("{}/", at.display()));
    let two = GOOD.replace("pipeline:", &environment(&own)).replace("- busybox", "- busybox\n      - first");
    std::fs::write(at.join("second.yaml"), two.replace("good", "second")).unwrap();
    let without = build("second.yaml", &[]);
    assert_eq!(without.status.code(), Some(1), "busybox is in no repository of the definition");
    let with = build("second.yaml", &given[..4]);
    assert!(with.status.success(), "{}", text(&with.stderr));
}

#[test]
fn a_test_without_a_shell_is_explained_and_the_call_can_add_one() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let definition = GOOD
        .replace("pipeline:", "environment:\n  contents:\n    packages:\n      - busybox\npipeline:")
        + "test:\n  pipeline:\n    - runs: echo fine\n";
    std::fs::write(at.join("good.yaml"), definition).unwrap();
    let args = ["build", "good.yaml", "--test", "-r", &distro, "-k", &key, "--arch", "x86_64"];
    let output = melange(at, &args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("has no /bin/sh") && said.contains("test.environment.contents.packages"), "{said}");
    let output = melange(at, &[&args[..], &["--test-package-append", "busybox"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn several_architectures_are_built_in_one_call_and_what_does_not_exist_yet_is_no_error() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let busybox = "environment:\n  contents:\n    packages:\n      - busybox\npipeline:";
    let listed = "  epoch: 0\n  target-architecture:\n    - x86_64\n    - riscv64\n";
    let definition = GOOD.replace("pipeline:", busybox).replace("  epoch: 0\n", listed);
    std::fs::write(at.join("good.yaml"), definition).unwrap();
    let key = format!("{distro}/keys/test-distro.rsa.pub");
    let build = |more: &[&str]| {
        let given = ["build", "good.yaml", "-r", &distro, "-k", &key, "--state-dir", "state"];
        melange(at, &[&given[..], more].concat())
    };
    let lines = |output: &std::process::Output| -> Vec<(String, String)> {
        let read = |line: &str| -> (String, String) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            (value["arch"].as_str().unwrap().to_owned(), value["status"].as_str().unwrap().to_owned())
        };
        text(&output.stdout).lines().map(read).collect()
    };
    let done = |arch: &str, status: &str| (arch.to_owned(), status.to_owned());
    // Folders that the first call of a farm's `make` does not find.
    let later = ["--repository", "later/packages", "--source-dir", "nosuch", "--pipeline-dir", "nosuch"];
    let several = ["--arch", "amd64,aarch64", "--arch", "x86_64", "--output", "json"];
    let output = build(&[&later[..], &several].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(lines(&output), [done("x86_64", "success"), done("aarch64", "skipped")]);
    assert!(at.join("packages/x86_64/good-1-r0.apk").is_file() && !at.join("packages/aarch64").exists());
    // Without a choice, what the definition lists and the sandbox runs.
    let output = build(&["--output", "json", "--out-dir", "first", "--out-dir", "last"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(lines(&output), [done("x86_64", "success")]);
    assert!(at.join("last/x86_64/good-1-r0.apk").is_file() && !at.join("first").exists(), "the last counts");
    let bad = at.join("bad.yaml");
    std::fs::write(&bad, "x: 1\n").unwrap();
    let output = melange(at, &["build", "bad.yaml", "--arch", "x86_64,aarch64"]);
    let said = text(&output.stderr);
    assert!(said.contains("2 of 2 builds failed: bad.yaml (x86_64), bad.yaml (aarch64)"), "{said}");
}

#[test]
fn an_index_is_made_of_what_packages_say_and_of_whole_ones_when_asked_for() {
    let Some(distro) = distro() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut names: Vec<String> = std::fs::read_dir(format!("{distro}/x86_64"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bash-") || name.starts_with("acl-"))
        .collect();
    names.sort();
    for name in &names {
        let bytes = std::fs::read(format!("{distro}/x86_64/{name}")).unwrap();
        std::fs::write(at.join(name), &bytes[..bytes.len() - 1]).unwrap();
    }
    // Twice: what is there already keeps its place.
    let args: Vec<&str> =
        ["index"].into_iter().chain(names.iter().chain(&names).map(String::as_str)).collect();
    let output = melange(at, &args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let index = std::fs::read(at.join("APKINDEX.tar.gz")).unwrap();
    let listed = melange_remote_sdk::apk::index::Index::read(&index, None).unwrap().packages;
    let listed: Vec<String> = listed.iter().map(|package| package.file_name()).collect();
    assert_eq!(listed, names);
    let output = melange(at, &[&args[..], &["--verify"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{} is no intact package", names[0])), "{said}");
    assert_eq!(std::fs::read(at.join("APKINDEX.tar.gz")).unwrap(), index, "the one that is there stays");
}
