//! `melange bump`, `melange update-cache` and `melange source get`, with sources on this machine.

use std::fs;
use std::path::Path;

use melange_remote_sdk::melange::bump::SourceDigests;

use crate::support::{Server, melange, refused, text};

fn sha256(bytes: &[u8]) -> String {
    SourceDigests::of(bytes).unwrap().sha256
}

/// A definition whose sources lie on a server of this machine.
fn definition(url: &str, sha256: &str) -> String {
    format!(
        "# ours\npackage:\n  name: a\n  version: \"1.0\"\n  epoch: 2 # raised\n  copyright:\n    - license: MIT\npipeline:\n  \
         - uses: fetch\n    with:\n      uri: {url}/a-${{{{package.version}}}}.tar\n      expected-sha256: {sha256}\n      \
         extract: \"false\"\n"
    )
}

#[test]
fn a_definition_gets_another_version_and_the_checksums_of_its_sources() {
    let server = Server::start(|line, _| match line {
        _ if line.contains("/a-1.1.tar") => (200, b"the new source".to_vec()),
        _ => (404, Vec::new()),
    });
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let before = definition(&server.url, &sha256(b"the old source"));
    fs::write(at.join("a.yaml"), &before).unwrap();
    let output = melange(at, &["bump", "a.yaml", "1.1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "a.yaml: 1.1-r0\n");
    let expected = before
        .replace("\"1.0\"", "\"1.1\"")
        .replace("epoch: 2 #", "epoch: 0 #")
        .replace(&sha256(b"the old source"), &sha256(b"the new source"));
    assert_eq!(fs::read_to_string(at.join("a.yaml")).unwrap(), expected);
    // What cannot be fetched changes nothing.
    let missing = melange(at, &["bump", "a.yaml", "1.2"]);
    assert_eq!(missing.status.code(), Some(5), "{}", text(&missing.stderr));
    assert_eq!(fs::read_to_string(at.join("a.yaml")).unwrap(), expected);
    assert!(refused(at, &["bump", "-", "1.2"], 2).contains("standard input"));
}

#[test]
fn a_cache_gets_what_it_lacks_and_nothing_else() {
    let server = Server::start(|_, _| (200, b"the source".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let good = format!("sha256:{}", sha256(b"the source"));
    fs::write(at.join("a.yaml"), definition(&server.url, &sha256(b"the source"))).unwrap();
    for told in ["fetched", "known"] {
        let output = melange(at, &["update-cache", "a.yaml", "--cache-dir", "cache"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), format!("cache/{good}: {told}, a-1.0.tar\n"));
    }
    assert_eq!(fs::read(at.join("cache").join(&good)).unwrap(), b"the source");
    assert_eq!(server.asked.lock().unwrap().len(), 1);
    // A file that is not what its name says is fetched anew, and what is served wrong comes nowhere.
    fs::write(at.join("cache").join(&good), "damaged").unwrap();
    assert!(melange(at, &["update-cache", "a.yaml", "--cache-dir", "cache"]).status.success());
    assert_eq!(fs::read(at.join("cache").join(&good)).unwrap(), b"the source");
    let other = SourceDigests::of(&b"another"[..]).unwrap().sha512;
    let wrong = definition(&server.url, &sha256(b"the source")).replace("expected-sha256", "expected-sha512");
    fs::write(at.join("b.yaml"), wrong.replace(&sha256(b"the source"), &other)).unwrap();
    assert!(
        refused(at, &["update-cache", "b.yaml", "--cache-dir", "cache"], 1).contains("gives something else")
    );
    let left: Vec<_> =
        fs::read_dir(at.join("cache")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [good.as_str()]);
}

/// Runs git in a folder.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "user.name=n", "-c", "user.email=a@b"]).args(arguments);
    let output = git.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).trim().to_owned()
}

#[test]
fn sources_come_into_a_folder_as_steps_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let unpacked = at.join("a-1.0");
    fs::create_dir(&unpacked).unwrap();
    fs::write(unpacked.join("text"), "before\n").unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../LICENSE"), unpacked.join("LICENSE")).unwrap();
    let mut tar = std::process::Command::new("tar");
    let made = tar.arg("-C").arg(at).args(["-czf", "-", "a-1.0"]).output().unwrap();
    assert!(made.status.success());
    fs::remove_dir_all(&unpacked).unwrap();
    let archive = made.stdout;
    let sum = sha256(&archive);
    let server = Server::start(move |_, _| (200, archive.clone()));
    let upstream = at.join("upstream");
    fs::create_dir(&upstream).unwrap();
    git(&upstream, &["init", "-q"]);
    fs::write(upstream.join("module"), "one\n").unwrap();
    git(&upstream, &["add", "."]);
    git(&upstream, &["commit", "-q", "-m", "one"]);
    git(&upstream, &["tag", "-a", "v1", "-m", "v1"]);
    let commit = git(&upstream, &["rev-parse", "HEAD"]);
    fs::create_dir(at.join("a")).unwrap();
    let patch = "--- a/text\n+++ b/text\n@@ -1 +1 @@\n-before\n+after\n";
    fs::write(at.join("a/fix.patch"), patch).unwrap();
    let write = |commit: &str, patches: &str| {
        let fetched = definition(&server.url, &sum).replace("extract: \"false\"", "delete: \"true\"");
        let more = format!(
            "  - uses: git-checkout\n    with:\n      repository: file://{}\n      destination: sub/module\n      \
             tag: v1\n      expected-commit: {commit}\n  - uses: patch\n    with:\n      patches: {patches}\n",
            upstream.display()
        );
        fs::write(at.join("a.yaml"), format!("{fetched}{more}")).unwrap();
    };
    write(&commit, "fix.patch");
    let get = ["source", "get", "a.yaml", "-o", "out"];
    let output = melange(at, &get);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "out/a\n");
    let read = |name: &str| fs::read_to_string(at.join("out/a").join(name)).unwrap();
    assert_eq!((read("text").as_str(), read("sub/module/module").as_str()), ("after\n", "one\n"));
    assert!(refused(at, &get, 1).contains("out/a is there already"));
    // What does not fit leaves nothing.
    for (commit, patches, told) in [
        ("0000000000000000000000000000000000000000", "fix.patch", "`git` could not check"),
        ("--help", "fix.patch", "must have 40 hex digits"),
        (&*commit, "../a.yaml", "is outside of the sources"),
        (&*commit, "missing.patch", "missing.patch"),
    ] {
        write(commit, patches);
        let output = melange(at, &["source", "get", "a.yaml", "-o", "other"]);
        assert_ne!(output.status.code(), Some(0), "{told}");
        assert!(text(&output.stderr).contains(told), "{told}: {}", text(&output.stderr));
        assert_eq!(fs::read_dir(at.join("other")).unwrap().count(), 0, "{told}");
    }
    // Licences are looked for in what the steps get.
    write(&commit, "fix.patch");
    let output = melange(at, &["license-check", "a.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("LICENSE: Apache-2.0 ("), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("LICENSE: Apache-2.0 is not declared"));
}
