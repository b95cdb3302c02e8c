//! The launcher that waits for the next guest.

use std::path::Path;

use melange_remote_sdk::sandbox::SandboxOptions;
use rustix::process::{Pid, Signal, kill_process};

use super::bounds::groups;
use super::{guest, lines, sandbox};
use crate::support::events::{PATIENCE, processes_with, wait_until};
use crate::support::farm::{launcher, on_farm, sandbox_options};

/// The processes of this launcher that have no guest: those with one are in its folder.
fn waiting(launcher: &Path) -> Vec<Pid> {
    let here = std::env::current_dir().unwrap();
    let mut found = processes_with(launcher.to_str().unwrap());
    found.retain(|process| {
        let folder = format!("/proc/{}/cwd", process.as_raw_nonzero());
        std::fs::read_link(folder).is_ok_and(|folder| folder == here)
    });
    found
}

/// The names of the guests' folders below a state folder.
fn folders(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("guests")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn one_launcher_waits_for_the_next_guest_and_may_be_killed() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        // Its name tells its processes from those of other tests.
        let own = folder.path().join("launcher");
        std::fs::copy(launcher(), &own).unwrap();
        let options = SandboxOptions { launcher: Some(own.clone()), ..sandbox_options(folder.path()) };
        let Some(runner) = sandbox(&options) else { return };
        let Some(guest) = guest("ready", 0, "descriptors").await else { return };
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || waiting(&own).len() == 1).await;
        let first = waiting(&own);
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || waiting(&own).len() == 1 && waiting(&own) != first).await;
        wait_until(PATIENCE, || folders(folder.path()).len() == 1).await;
        let killed = folders(folder.path());
        kill_process(waiting(&own)[0], Signal::KILL).unwrap();
        wait_until(PATIENCE, || waiting(&own).is_empty()).await;
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        for name in &killed {
            assert!(!folder.path().join("guests").join(name).exists());
            wait_until(PATIENCE, || groups(name).is_empty()).await;
        }
        wait_until(PATIENCE, || waiting(&own).len() == 1).await;
        drop(runner);
        wait_until(PATIENCE, || processes_with(own.to_str().unwrap()).is_empty()).await;
        assert_eq!(folders(folder.path()), [""; 0]);
    });
}
