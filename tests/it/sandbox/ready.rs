//! The launcher that waits for the next guest.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::bounds::{can_make_groups, groups};
use super::{can_mount, guest, lines, names_in, sandbox_with_own_launcher};
use crate::support::events::{PATIENCE, processes_with, wait_until};
use crate::support::farm::on_farm;

/// The processes of this launcher that are for a guest and have none: those with one are in its folder.
fn waiting(launcher: &Path) -> Vec<Pid> {
    let here = std::env::current_dir().unwrap();
    let for_guests = [processes_with("guest"), processes_with("online-guest")].concat();
    let mut found = processes_with(launcher.to_str().unwrap());
    found.retain(|process| {
        if !for_guests.contains(process) {
            return false;
        }
        let folder = format!("/proc/{}/cwd", process.as_raw_nonzero());
        std::fs::read_link(folder).is_ok_and(|folder| folder == here)
    });
    found
}

/// What the kernel lists in a file of each of the threads of a process.
fn of_threads(process: Pid, file: &str) -> String {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    let threads = threads.into_iter().flatten().flatten();
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join(file)).ok()).collect()
}

/// The helper of the network of the launcher that waits.
fn helper(launcher: &Path) -> Option<Pid> {
    let children = of_threads(*waiting(launcher).first()?, "children");
    let ids = children.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap());
    ids.into_iter().find(|id| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", id.as_raw_nonzero()));
        name.is_ok_and(|name| name.trim() == "slirp4netns")
    })
}

#[test]
fn one_launcher_waits_for_the_next_guest_and_may_be_killed() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_with_own_launcher(folder.path(), true) else { return };
        let Some(guest) = guest("ready", 0, "descriptors").await else { return };
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || waiting(&own).len() == 1).await;
        let first = waiting(&own);
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || waiting(&own).len() == 1 && waiting(&own) != first).await;
        let guests = folder.path().join("guests");
        wait_until(PATIENCE, || names_in(&guests).len() == 1).await;
        let killed = names_in(&guests);
        // They come a moment after the folder.
        let have_groups = || killed.iter().all(|name| !groups(name).is_empty());
        wait_until(PATIENCE, || !can_make_groups() || have_groups()).await;
        kill_process(waiting(&own)[0], Signal::KILL).unwrap();
        wait_until(PATIENCE, || waiting(&own).is_empty()).await;
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        for name in &killed {
            assert!(!guests.join(name).exists());
            wait_until(PATIENCE, || groups(name).is_empty()).await;
        }
        wait_until(PATIENCE, || waiting(&own).len() == 1).await;
        drop(runner);
        wait_until(PATIENCE, || processes_with(own.to_str().unwrap()).is_empty()).await;
        // Folders go after the processes that used them.
        wait_until(PATIENCE, || names_in(&guests).is_empty()).await;
    });
}

#[test]
fn the_helper_of_a_network_that_waits_may_be_killed_and_goes_with_its_launcher() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_with_own_launcher(folder.path(), true) else { return };
        let Some(mut guest) = guest("helper", 0, "descriptors").await else { return };
        guest.plan.steps[0].network = true;
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || helper(&own).is_some()).await;
        kill_process(helper(&own).unwrap(), Signal::KILL).unwrap();
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || helper(&own).is_some()).await;
        let left = helper(&own).unwrap();
        kill_process(waiting(&own)[0], Signal::KILL).unwrap();
        let folder = PathBuf::from(format!("/proc/{}", left.as_raw_nonzero()));
        wait_until(PATIENCE, || !folder.exists()).await;
    });
}

#[test]
fn a_launcher_that_waits_keeps_nothing_mounted() {
    on_farm(async |_| {
        if !can_mount() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_with_own_launcher(folder.path(), true) else { return };
        let Some(mut guest) = guest("pins", 0, "descriptors").await else { return };
        guest.plan.steps[0].network = true;
        // The helper keeps `/run` to itself.
        let below_run = tempfile::tempdir_in("/run").unwrap();
        let places = [folder.path().join("mounted"), below_run.path().join("mounted here")];
        for place in &places {
            std::fs::create_dir(place).unwrap();
            mount("disk", place, "tmpfs", MountFlags::empty(), None).unwrap();
        }
        assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
        wait_until(PATIENCE, || helper(&own).is_some()).await;
        let launcher = waiting(&own)[0];
        let named =
            places.each_ref().map(|place| format!(" {} ", place.display().to_string().replace(' ', "\\040")));
        let has = |process: Pid, name: &String| of_threads(process, "mountinfo").contains(name);
        assert!(named.iter().all(|name| has(launcher, name)), "it was mounted when the launcher started");
        for place in &places {
            unmount(place, UnmountFlags::empty()).unwrap();
        }
        let helper = helper(&own).unwrap();
        wait_until(PATIENCE, || named.iter().all(|name| !has(launcher, name) && !has(helper, name))).await;
    });
}
