//! `melange plan`.

use std::path::Path;

use melange_remote_sdk::apk::index::{Index, IndexPackage};

use crate::support::{melange, refused, text};

/// A distribution whose compiler needs itself, by way of its C library.
fn distribution() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let define = |path: &str, needs: &str, more: &str| {
        let name = Path::new(path).file_stem().unwrap().to_str().unwrap();
        let text = format!(
            "package:\n  name: {name}\n  version: \"1.2\"\n  epoch: 3\n{more}environment:\n  contents:\n    packages: \
             [{needs}]\npipeline:\n  - uses: own/make\nsubpackages:\n  - name: {name}-dev\n"
        );
        let file = folder.path().join("os").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    define("libc.yaml", "compiler", "");
    define("compiler.yaml", "libc-dev>=1", "");
    define("curl.yaml", "libc-dev, tls-dev", "");
    define("tls.yaml", "libc-dev, perl", "");
    define("far.yaml", "", "  target-architecture: [riscv64]\n");
    define("own/deep.yaml", "curl", "");
    std::fs::create_dir_all(folder.path().join("os/pipelines/own")).unwrap();
    let pipeline = "needs:\n  packages: [make]\npipeline:\n  - runs: make\n";
    std::fs::write(folder.path().join("os/pipelines/own/make.yaml"), pipeline).unwrap();
    folder
}

fn publish(folder: &Path, packages: &[(&str, &str)]) {
    let package = |(name, version): &(&str, &str)| IndexPackage {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        arch: "x86_64".to_owned(),
        ..IndexPackage::default()
    };
    let index = Index { packages: packages.iter().map(package).collect(), ..Index::default() };
    let at = folder.join("published/x86_64");
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(at.join("APKINDEX.tar.gz"), index.write(None).unwrap()).unwrap();
}

fn told(folder: &Path, args: &[&str]) -> String {
    let output = melange(folder, &[&["plan"], args, &["--arch", "x86_64"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_plan_tells_order_cuts_and_what_is_left_out() {
    let folder = distribution();
    publish(folder.path(), &[("libc-dev", "1.1-r0"), ("make", "4-r0"), ("tls", "1.2-r3")]);
    let at = folder.path();
    let all = ["os", "--repository", "published", "--rebuild", "all"];
    let parts: Vec<&str> =
        ["jobs", "cuts", "path", "skipped", "missing"].iter().flat_map(|part| ["--show", part]).collect();
    insta::assert_snapshot!("plan", told(at, &[&all[..], &parts].concat()));
    insta::assert_snapshot!("plan_dot", told(at, &[&all[..], &["--output", "dot"]].concat()));
    let json: serde_json::Value =
        serde_json::from_str(&told(at, &[&all[..], &["--output", "json"]].concat())).unwrap();
    insta::assert_snapshot!("plan_json", format!("{json:#}"));
    insta::assert_snapshot!("plan_cycles", told(at, &[&["cycles"], &all[..]].concat()));
    insta::assert_snapshot!("plan_why", told(at, &[&["why", "curl-dev", "compiler"], &all[..]].concat()));
    assert_eq!(told(at, &[&["why", "compiler", "curl"], &all[..]].concat()), "compiler does not need curl\n");
    // What is published is left out, and no more is cut than need be.
    let missing = told(at, &["os", "--repository", "published"]);
    assert!(missing.contains("1 definition skipped: published already"), "{missing}");
    let deep = told(at, &["os", "--repository", "published", "--glob", "own/*.yaml", "--show", "jobs"]);
    assert!(deep.contains("1 job on 1 level") && deep.contains("deep-1.2-r3"), "{deep}");
    let with = [
        "os",
        "--repository",
        "published",
        "--package",
        "curl",
        "--with-dependencies",
        "all",
        "--show",
        "jobs",
    ];
    let with = told(at, &with);
    assert!(with.contains("3 jobs on 3 levels"), "{with}");
}

#[test]
fn what_has_no_beginning_is_said_once_and_fails_the_command() {
    let folder = distribution();
    let output = melange(folder.path(), &["plan", "os", "--arch", "x86_64"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("plan_refused", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("x86_64: 0 jobs on 0 levels"), "{}", text(&output.stdout));
    let said = refused(folder.path(), &["plan", "os", "--package", "culr", "--arch", "x86_64"], 5);
    assert!(
        said.contains("no definition makes the package \"culr\"") && said.contains("did you mean `curl`?"),
        "{said}"
    );
    std::fs::write(folder.path().join("os/broken.yaml"), "package: [").unwrap();
    publish(folder.path(), &[("libc-dev", "1.1-r0")]);
    let output = melange(folder.path(), &["plan", "os", "--repository", "published", "--arch", "x86_64"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.yaml:2:1"), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("x86_64: 4 jobs"),
        "the others are planned: {}",
        text(&output.stdout)
    );
}
