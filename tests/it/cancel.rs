//! Cancelled means that nothing runs any more, and soon.

use std::time::{Duration, Instant};

use melange_remote_sdk::builder::BuildStatus;

use crate::support::events::{PATIENCE, marker, processes_with, wait_until};
use crate::support::farm::{Farm, on_farm};

/// Cancelling may take this long.
const SOON: Duration = Duration::from_secs(5);

/// A step that never ends, with a child of its own session that has let go of the step's output.
fn endless(marker: &str) -> String {
    format!(
        "package:\n  name: endless\n  version: 1\n  epoch: 0\nenvironment:\n  contents:\n    packages:\n      \
         - busybox\npipeline:\n  - name: wait\n    runs: |\n      \
         setsid sleep {marker} </dev/null >/dev/null 2>&1 &\n      echo begun\n      sleep {marker}\n"
    )
}

#[test]
fn a_cancelled_build_leaves_no_process() {
    let name = "cancelled";
    on_farm(async |farm| {
        for backend in farm.backends() {
            let marker = marker();
            let (events, cancel, task) = farm.start(backend, name, &endless(&marker));
            events.wait_for("begun").await;
            wait_until(PATIENCE, || processes_with(&marker).len() == 2).await;
            let asked = Instant::now();
            cancel.cancel();
            let outcome = task.await.unwrap().unwrap();
            assert_eq!(outcome.status, BuildStatus::Cancelled, "{backend:?}");
            assert_eq!(processes_with(&marker), [], "{backend:?}");
            println!("{backend:?}: cancelled in {:?}", asked.elapsed());
            assert!(asked.elapsed() < SOON, "{backend:?}: {:?}", asked.elapsed());
            assert!(outcome.files.is_empty());
            assert_eq!(left_over(farm, name), [""; 0], "{backend:?}");
        }
    });
}

#[test]
fn a_dropped_build_leaves_no_process() {
    let name = "dropped";
    on_farm(async |farm| {
        for backend in farm.backends() {
            let marker = marker();
            let (events, _cancel, task) = farm.start(backend, name, &endless(&marker));
            events.wait_for("begun").await;
            wait_until(PATIENCE, || processes_with(&marker).len() == 2).await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            wait_until(SOON, || processes_with(&marker).is_empty()).await;
            wait_until(SOON, || left_over(farm, name).is_empty()).await;
        }
    });
}

#[test]
fn a_build_that_takes_too_long_fails_and_leaves_no_process() {
    on_farm(async |farm| {
        for backend in farm.backends() {
            let marker = marker();
            let yaml = endless(&marker).replace("  epoch: 0\n", "  epoch: 0\n  timeout: 3s\n");
            let built = farm.build(backend, "endless", &yaml).await;
            assert!(matches!(built.outcome.status, BuildStatus::LimitExceeded { .. }), "{built:?}");
            assert!(built.complaint().contains("took longer than its timeout of 3 s"), "{built:?}");
            assert!(built.events.text().contains("begun"), "{backend:?} began");
            wait_until(SOON, || processes_with(&marker).is_empty()).await;
        }
    });
}

/// Scratch folders of builds and guests of this name.
fn left_over(farm: &Farm, name: &str) -> Vec<String> {
    let folders = [farm.places.state.join("builds"), farm.places.sandbox.join("guests")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|found| found.starts_with(name)).collect()
}
