//! `melange bump` and `melange update-cache`, with sources on this machine.

use std::fs;

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
