//! Tests of packages: with a build and without one, by both builders.

use std::sync::Arc;

use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::builder::{BuildEvent, BuildOutcome, BuildSink, BuildStatus, LogStream, TestStatus};
use melange_remote_sdk::engine::package_tests::TestInput;
use melange_remote_sdk::error::{ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use crate::support::events::Collected;
use crate::support::farm::{Backend, Built, Farm, KEY_NAME, on_farm, run};

const GREET: &str = r#"
package: {name: greet, version: "1.0", epoch: 0}
environment:
  contents: {packages: [busybox]}
  environment: {GREETING: hello}
pipeline:
  - runs: |
      mkdir -p ${{targets.destdir}}/usr/bin ${{targets.destdir}}/usr/share/greet
      printf '#!/bin/sh\necho "$GREETING, world"\n' > ${{targets.destdir}}/usr/bin/greet
      chmod 755 ${{targets.destdir}}/usr/bin/greet
      echo text > ${{targets.destdir}}/usr/share/greet/doc
subpackages:
  - name: greet-doc
    pipeline:
      - runs: |
          mkdir -p ${{targets.contextdir}}/usr/share
          mv ${{targets.destdir}}/usr/share/greet ${{targets.contextdir}}/usr/share/
    test:
      environment: {contents: {packages: [busybox]}}
      pipeline:
        - name: alone
          runs: |
            test -f /usr/share/greet/doc
            ! command -v greet
            ! test -e /tmp/left
test:
  environment:
    contents: {packages: [busybox]}
    environment: {WHO: me}
  pipeline:
    - name: begin
      runs: |
        greet | grep -x 'hello, world'
        test "$WHO" = me
        test -z "$SOURCE_DATE_EPOCH"
        touch /tmp/left
        mkfifo /tmp/ask /tmp/answer
        (while read -r line < /tmp/ask; do echo "got $line" > /tmp/answer; done) &
        echo to stderr >&2
        printf 'no newline'
    - name: talk
      environment: {A: "it's", B: two words}
      working-directory: deep/er
      runs: |
        test "$PWD" = /home/build/deep/er
        test "$A-$B" = "it's-two words"
        echo hello > /tmp/ask
        read -r answer < /tmp/answer
        test "$answer" = 'got hello'
    - name: never
      if: ${{build.arch}} == "z80"
      runs: exit 1
    - name: end
      runs: rm -rf /home/build/melange-out
"#;

async fn with_tests(farm: &Farm, backend: Backend, name: &str, yaml: &str) -> Built {
    let mut input = Farm::input(backend, name, yaml);
    input.with_test = true;
    run(farm.engine(), input).await
}

#[test]
fn packages_are_tested_in_environments_of_their_own_and_background_processes_live_on() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let built = with_tests(farm, backend, "greet", GREET).await;
            built.assert_succeeded();
            let ended: Vec<(&str, &TestStatus)> =
                built.outcome.tests.iter().map(|test| (test.subject.as_str(), &test.status)).collect();
            assert_eq!(ended, [("greet", &TestStatus::Passed), ("greet-doc", &TestStatus::Passed)]);
            // Lines of the two streams have no order between them.
            let mut lines = built.events.lines_of("test greet: begin");
            lines.sort();
            assert_eq!(lines, ["hello, world", "no newline", "to stderr"]);
            let steps: Vec<String> = built.events.all().iter().filter_map(step_name).collect();
            assert_eq!(
                steps,
                [
                    "0 of 2 greet: runs",
                    "1 of 2 greet-doc: runs",
                    "2 of 6 test greet: begin",
                    "3 of 6 test greet: talk",
                    "4 of 6 test greet: end",
                    "5 of 6 test greet-doc: alone"
                ],
                "{backend:?}"
            );
        }
    });
}

fn step_name(event: &BuildEvent) -> Option<String> {
    match event {
        BuildEvent::StepStarted { index, total, name } => Some(format!("{index} of {total} {name}")),
        _ => None,
    }
}

#[test]
fn a_failing_test_fails_the_build_and_the_others_still_run() {
    on_farm(async |farm| {
        let yaml = GREET.replace("touch /tmp/left", "echo the reason; echo more >&2; exit 41");
        for backend in farm.backends() {
            let built = with_tests(farm, backend, "greet", &yaml).await;
            let BuildStatus::Failed { reason, failure: Some(failure) } = &built.outcome.status else {
                panic!("{built:?}")
            };
            let step = "the step `test greet: begin` failed with exit code 41";
            assert_eq!(*reason, format!("the test of greet failed: {step}"));
            assert_eq!((failure.step.as_str(), failure.exit_code), ("test greet: begin", 41));
            assert!(failure.tail.contains(&"the reason".to_owned()), "{backend:?}: {failure:?}");
            assert!(failure.tail.contains(&"more".to_owned()), "{backend:?}: {failure:?}");
            assert!(!failure.tail.iter().any(|line| line.contains("@@melange")), "{failure:?}");
            assert!(built.outcome.files.is_empty());
            assert_eq!(built.outcome.tests[1].status, TestStatus::Passed);
        }
    });
}

#[test]
fn what_was_just_made_comes_before_newer_packages_of_repositories() {
    // The distribution's zlib is far newer than 0.1, and holds another file.
    let yaml = r#"
package: {name: zlib, version: "0.1", epoch: 0}
environment: {contents: {packages: [busybox]}}
pipeline:
  - runs: mkdir -p ${{targets.destdir}}/usr/share && echo ours > ${{targets.destdir}}/usr/share/whose
test:
  environment: {contents: {packages: [busybox]}}
  pipeline:
    - runs: |
        grep -x ours /usr/share/whose
        ! test -e /usr/lib/libz.so.1
"#;
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        with_tests(farm, backend, "zlib", yaml).await.assert_succeeded();
    });
}

#[test]
fn a_test_whose_environment_cannot_be_made_fails_with_the_cause() {
    let yaml = GREET.replace(
        "test:\n  environment:\n    contents: {packages: [busybox]}",
        "test:\n  environment:\n    contents: {packages: [busybox, no-such-package]}",
    );
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let built = with_tests(farm, backend, "greet", &yaml).await;
        let complaint = built.complaint();
        assert!(complaint.starts_with("reason: the test of greet failed: "), "{complaint}");
        assert!(complaint.contains("no-such-package"), "{complaint}");
        assert_eq!(built.outcome.tests.len(), 2);
    });
}

/// Tests without a build, against a repository that holds what was built before.
async fn tested(farm: &Farm, folder: &std::path::Path, input: TestInput) -> (BuildOutcome, Arc<Collected>) {
    let (outcome, events) = tried(farm, folder, input).await;
    (outcome.unwrap(), events)
}

/// The same for tests that may be refused.
async fn tried(
    farm: &Farm,
    folder: &std::path::Path,
    input: TestInput,
) -> (Result<BuildOutcome>, Arc<Collected>) {
    let mut defaults = farm.defaults();
    defaults.repositories.push(folder.display().to_string());
    defaults.keyring.push(folder.join(format!("{KEY_NAME}.pub")).display().to_string());
    let events = Arc::new(Collected::default());
    let sink = Arc::clone(&events) as Arc<dyn BuildSink>;
    let engine = farm.engine_with(defaults);
    let outcome = engine.test(&input, sink, CancellationToken::new()).await;
    (outcome, events)
}

#[test]
fn tests_run_without_a_build_against_a_repository() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let built = farm.build(backend, "greet", GREET).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(format!("{KEY_NAME}.pub")), farm.public_key()).unwrap();
        for (name, bytes) in built.bytes() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let index = std::fs::read(folder.path().join("x86_64/APKINDEX.tar.gz")).unwrap();
        assert_eq!(Index::read(&index, None).unwrap().packages.len(), 2);
        let input = |package: &str, only: &[&str]| {
            let mut input = TestInput::new(Farm::input(backend, "greet", GREET));
            input.package = package.to_owned();
            input.only = only.iter().map(|name| (*name).to_owned()).collect();
            input
        };
        let (all, _) = tested(farm, folder.path(), input("", &[])).await;
        assert_eq!((all.status, all.tests.len()), (BuildStatus::Succeeded, 2));
        let (one, _) = tested(farm, folder.path(), input("", &["greet-doc"])).await;
        assert_eq!((one.status, one.tests.len()), (BuildStatus::Succeeded, 1));
        let (other, events) = tested(farm, folder.path(), input("greet=9.9-r0", &["greet"])).await;
        assert!(matches!(other.status, BuildStatus::Failed { .. }), "{}", events.text());
        let engine_lines = events.all().into_iter().filter_map(|event| match event {
            BuildEvent::Log { stream: LogStream::Engine, line, .. } => Some(line),
            _ => None,
        });
        assert!(engine_lines.collect::<String>().contains("greet=9.9-r0"), "{}", events.text());
        // The call names a test that there is not: the definition is not at fault.
        let (stranger, _) = tried(farm, folder.path(), input("", &["nobody"])).await;
        let stranger = stranger.unwrap_err();
        assert_eq!((stranger.kind(), stranger.blamed()), (ErrorKind::InvalidRequest, None));
        assert!(stranger.to_string().contains("no test of `nobody`"), "{stranger}");
    });
}
