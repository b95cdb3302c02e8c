//! `melange build` and `melange test` called as the Makefiles of distributions call melange.

use std::fs;
use std::path::Path;
use std::process::Output;

use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::apk::reader::ApkFile;

use crate::support::{command, distro, melange, refused, text};

/// Keeps something in the cache for the next build, and its workspace, variables and pipelines in the package.
const DEFINITION: &str = r#"package:
  name: hello
  version: "1.0"
  epoch: 2
  description: a greeting
  copyright:
    - license: MIT
pipeline:
  - uses: own/greet
    with:
      text: hello
  - runs: |
      d=${{targets.destdir}}/usr/share/hello
      ls -A > $d/workspace
      echo "$GREETING $GOMODCACHE" > $d/variables
      mkdir -p $GOMODCACHE
      cat $GOMODCACHE/before > $d/before 2>/dev/null || true
      echo built >> $GOMODCACHE/before
subpackages:
  - name: hello-doc
    pipeline:
      - runs: |
          mkdir -p ${{targets.subpkgdir}}/usr/share/doc
          echo hello > ${{targets.subpkgdir}}/usr/share/doc/hello
test:
  pipeline:
    - runs: grep -q hello /usr/share/hello/greeting
"#;

const PIPELINE: &str = "name: greet\ninputs:\n  text:\n    required: true\npipeline:\n  - runs: |\n      \
    mkdir -p ${{targets.destdir}}/usr/share/hello\n      echo ${{inputs.text}} > ${{targets.destdir}}/usr/share/hello/greeting\n";

/// A checkout of a distribution: definitions, pipelines, variables, a key.
fn checkout(at: &Path) {
    fs::create_dir_all(at.join("pipelines/own")).unwrap();
    fs::create_dir_all(at.join("hello")).unwrap();
    fs::create_dir_all(at.join("cache")).unwrap();
    fs::write(at.join("pipelines/own/greet.yaml"), PIPELINE).unwrap();
    fs::write(at.join("hello.yaml"), DEFINITION).unwrap();
    fs::write(at.join("build-x86_64.env"), "GREETING=good morning\n").unwrap();
    fs::write(at.join("build-common.env"), "UNUSED=1\n").unwrap();
    fs::write(at.join("hello/beside"), "a file\n").unwrap();
    good(&melange(at, &["keygen", "local-melange.rsa", "--key-size", "2048"]));
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What a package holds, by path.
fn content(package: &Path, path: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let tar =
        std::process::Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(folder.path()).status();
    assert!(tar.unwrap().success());
    fs::read_to_string(folder.path().join(path)).unwrap()
}

#[test]
fn the_build_line_of_a_distribution_builds_and_its_test_line_tests() {
    let Some(distro) = distro() else { return };
    let distro = std::path::absolute(distro).unwrap().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    checkout(at);
    let line = format!(
        "build hello.yaml --runner=bubblewrap --apk-cache-dir=apks --arch=x86_64 --cache-dir=cache --cleanup \
         --env-file=build-x86_64.env --env-file=build-common.env --keyring-append=local-melange.rsa.pub \
         --namespace=wolfi --package-append=busybox --pipeline-dir=./pipelines/ \
         --repository-append={at}/packages --signing-key=local-melange.rsa \
         --keyring-append={distro}/keys/test-distro.rsa.pub --repository-append={distro} --source-dir=./hello/ \
         --create-build-log --dependency-log=deps --trace=trace.json --rm --license=Apache-2.0 \
         --git-repo-url=https://github.com/example/os",
        at = at.display()
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let build = || good(&command(at, &words).env("SOURCE_DATE_EPOCH", "1714564800").output().unwrap());
    build();
    let package = at.join("packages/x86_64/hello-1.0-r2.apk");
    let read = ApkFile::open_control(&package).unwrap();
    assert_eq!((read.info.builddate, read.info.maintainer.as_str()), (1_714_564_800, "wolfi"));
    assert_eq!(content(&package, "usr/share/hello/greeting"), "hello\n");
    assert_eq!(
        content(&package, "usr/share/hello/variables"),
        "good morning /var/cache/melange/gomodcache\n"
    );
    assert!(content(&package, "usr/share/hello/workspace").lines().any(|name| name == "beside"));
    assert_eq!(content(&package, "usr/share/hello/before"), "");
    assert_eq!(fs::read_to_string(at.join("cache/gomodcache/before")).unwrap(), "built\n");
    let log = "x86_64|hello|hello|1.0-r2\nx86_64|hello|hello-doc|1.0-r2\n";
    assert_eq!(fs::read_to_string(at.join("packages.log")).unwrap(), log);
    let trace = fs::read_to_string(at.join("trace.json")).unwrap();
    assert!(trace.contains(r#""cat":"step""#) && trace.contains(r#""pid":"hello.yaml (x86_64)""#), "{trace}");
    let dependencies = fs::read_to_string(at.join("deps.x86_64")).unwrap();
    assert!(
        dependencies.contains(r#"{"package":"hello-doc","provides":[],"runtime":[],"vendored":[]}"#),
        "{dependencies}"
    );
    let sbom = content(&package, "var/lib/db/sbom/hello-1.0-r2.spdx.json");
    assert!(sbom.contains("pkg:github/example/os@") && sbom.contains("Apache-2.0"), "{sbom}");
    assert!(at.join("apks").is_dir(), "downloads are kept where they were wanted");
    let index = Index::read(&fs::read(at.join("packages/x86_64/APKINDEX.tar.gz")).unwrap(), None).unwrap();
    assert_eq!(index.packages.len(), 2);
    // The next one finds what the first one kept.
    build();
    assert_eq!(content(&package, "usr/share/hello/before"), "built\n");
    assert_eq!(fs::read_to_string(at.join("packages.log")).unwrap(), log.repeat(2));

    let line = format!(
        "test hello.yaml --runner=bubblewrap --repository-append={at}/packages --repository-append={distro} \
         --keyring-append=local-melange.rsa.pub --keyring-append={distro}/keys/test-distro.rsa.pub --arch=x86_64 \
         --pipeline-dirs=./pipelines/ --test-package-append=busybox --debug --source-dir=./hello/",
        at = at.display()
    );
    good(&melange(at, &line.split_whitespace().collect::<Vec<_>>()));
}

#[test]
fn flags_of_melange_mean_what_they_mean_there() {
    let Some(distro) = distro() else { return };
    let distro = std::path::absolute(distro).unwrap().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    checkout(at);
    let keys = format!("{distro}/keys/test-distro.rsa.pub,local-melange.rsa.pub");
    let common = [
        "build",
        "hello.yaml",
        "--arch",
        "x86_64",
        "-r",
        &distro,
        "-k",
        &keys,
        "--pipeline-dir",
        "pipelines",
        "--package-append",
        "busybox",
    ];
    let run = |more: &[&str]| melange(at, &[&common[..], more].concat());
    // Nothing but the packages, each of its own origin, at a date, and not a word.
    let quiet = ["--generate-index=false", "--strip-origin-name", "--build-date", "2024-05-01T12:00:00Z"];
    let output = run(&[&quiet[..], &["--log-policy", "builtin:discard", "--empty-workspace"]].concat());
    assert_eq!(text(&output.stderr), "");
    good(&output);
    assert!(!at.join("packages/x86_64/APKINDEX.tar.gz").exists());
    let package = at.join("packages/x86_64/hello-doc-1.0-r2.apk");
    let read = ApkFile::open_control(&package).unwrap();
    assert_eq!((read.info.origin.as_str(), read.info.builddate), ("hello-doc", 1_714_564_800));
    assert_eq!(read.info.maintainer, "unknown");
    let workspace =
        |at: &Path| content(&at.join("packages/x86_64/hello-1.0-r2.apk"), "usr/share/hello/workspace");
    assert!(!workspace(at).lines().any(|name| name == "hello.yaml"));
    // A folder named after the definition has its files.
    good(&run(&[]));
    assert!(workspace(at).lines().any(|name| name == "beside"));
    // Else those of the folder in which it lies come; what is said can go to a file.
    fs::rename(at.join("hello"), at.join("other")).unwrap();
    let output = run(&[
        "--log-policy",
        "log",
        "--timeout",
        "1h",
        "--memory",
        "1Gi",
        "--cpu",
        "1",
        "-i",
        "--signing-key",
        "local-melange.rsa",
    ]);
    assert_eq!(text(&output.stderr), "");
    good(&output);
    let seen = workspace(at);
    assert!(seen.lines().any(|name| name == "hello.yaml"), "{seen}");
    for own in ["packages", ".cache", "local-melange.rsa"] {
        assert!(!seen.lines().any(|name| name == own), "steps see {own}");
    }
    let log = fs::read_to_string(at.join("log")).unwrap();
    assert!(log.contains("packed hello-1.0-r2.apk"), "{log}");
    assert!(log.contains("note: --interactive changes nothing"), "{log}");
    // A definition's own timeout goes before the flag's; this one says nothing.
    let slow = DEFINITION.replace("ls -A", "sleep 60; ls -A");
    fs::write(at.join("hello.yaml"), slow).unwrap();
    let output = run(&["--timeout", "1s", "--log-level", "error"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "failed: the build took longer than its timeout of 1 s\n");
}

#[test]
fn flags_that_cannot_be_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    checkout(at);
    for (args, expected) in [
        (&["--runner", "qemu"][..], "--runner bubblewrap"),
        (&["--cache-dir", "gs://bucket"], "takes folders"),
        (&["--memory", "much"], "`resources.memory` is no quantity"),
        (&["--timeout", "90"], "no time such as"),
        (&["--build-date", "yesterday"], "no time such as"),
        (&["--log-policy", "builtin:syslog"], "builtin:stderr"),
        (&["--log-policy", "missing/log"], "missing/log"),
    ] {
        let args = [&["build", "hello.yaml"], args].concat();
        let output = melange(at, &args);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{args:?}: {said}");
    }
    let said = refused(at, &["build", "hello.yaml", "--runner", "docker", "--buildkit-addr", "tcp://a:1"], 2);
    assert!(said.contains("--runner"), "{said}");
}
