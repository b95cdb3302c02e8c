//! The command as people and scripts meet it: what it prints where, and its exit codes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn melange(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_melange"))
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("MELANGE_SERVER")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a call that must fail and returns what it said.
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = melange(folder, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} printed a result: {}", text(&output.stdout));
    assert!(said.starts_with("error: "), "{args:?}: {said}");
    said
}

#[test]
fn versions_compare_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for (a, b, expected) in [("1.0", "1.0_rc1", ">\n"), ("1.0", "1.0", "=\n"), ("1.2", "1.10", "<\n")] {
        let output = melange(folder.path(), &["apk", "version", a, b]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected));
    }
}

#[test]
fn mistakes_have_an_exit_code_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(refused(at, &["apk", "version", "1.0", "foo"], 2).contains("hint: a version looks like"));
    assert!(refused(at, &["build", "nosuch.yaml"], 5).contains("cannot read nosuch.yaml"));
    assert!(refused(at, &["remote", "status", "123"], 2).contains("hint: an id looks like"));
    assert!(refused(at, &["remote", "list", "--server", "nonsense"], 2).contains("hint: write it as"));
    let unreachable = refused(at, &["remote", "list", "--server", "http://127.0.0.1:1"], 6);
    assert!(unreachable.contains("hint: is a melange-server running"), "{unreachable}");
    std::fs::write(at.join("x.apk"), b"nonsense").unwrap();
    assert!(refused(at, &["apk", "info", "x.apk"], 1).contains("is no intact package"));
    let usage = melange(at, &["remote", "submit", "x.yaml", "--backend-selector", "x"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("is not of the form KEY=VALUE"));
}

#[test]
fn a_broken_definition_is_shown_with_its_places_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let definition =
        "package:\n  name: a\n  version: \"1\"\npipeline:\n  - uses: autoconf/mak\n  - runs: echo ${{x}}\n";
    std::fs::write(folder.path().join("a.yaml"), definition).unwrap();
    let output = melange(folder.path(), &["build", "a.yaml", "--state-dir", "state"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["--> a.yaml:5:11", "hint: did you mean `autoconf/make`?", "--> a.yaml:6:16"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!folder.path().join("packages").exists());
}

#[test]
fn keys_are_made_once_and_sign_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(melange(at, &["keygen", "--key-size", "2048", "k.rsa"]).status.success());
    assert!(refused(at, &["keygen", "--key-size", "2048", "k.rsa"], 2).contains("never overwritten"));
    assert!(refused(at, &["keygen", "--key-size", "1024", "l.rsa"], 2).contains("2048"));
    assert!(!at.join("l.rsa").exists());
}

#[test]
fn every_verb_has_help_and_completions_name_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    for verb in [
        &["--help"][..],
        &["build", "--help"],
        &["remote", "submit", "--help"],
        &["remote", "backends", "add", "--help"],
        &["apk", "resolve", "--help"],
    ] {
        assert!(melange(folder.path(), verb).status.success(), "{verb:?}");
    }
    let completions = melange(folder.path(), &["completions", "bash"]);
    assert!(text(&completions.stdout).contains("remote"));
}
