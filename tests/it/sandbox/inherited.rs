//! What a step has from the program that started it: three descriptors, and nothing of its terminal.

use std::process::Command;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{assert_child_passes, guest, lines, sandbox_in};
use crate::support::events::{Collected, PATIENCE, processes_with, wait_until};
use crate::support::farm::on_farm;

/// Set in the process that has a descriptor too many.
const CHILD: &str = "MELANGE_TEST_DESCRIPTORS";

/// This test starts its own binary again with a descriptor that stays open over `exec`, as a service manager or a
/// careless parent leaves them.
#[test]
fn a_step_inherits_no_descriptors() {
    on_farm(async |farm| {
        if farm.runners.sandbox.is_none() {
            return;
        }
        let script = "exec 7</proc/self/maps 9</dev/null \"$1\" --exact sandbox::inherited::child --nocapture --ignored";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        assert_child_passes(shell.env(CHILD, "1"));
    });
}

#[test]
#[ignore = "run by a_step_inherits_no_descriptors"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    assert!(std::path::Path::new("/proc/self/fd/7").exists(), "the descriptor is there");
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox_in(folder.path()) else { return };
        for uid in [0, 1000] {
            for network in [false, true] {
                let Some(mut guest) = guest("descriptors", uid, "descriptors").await else { return };
                guest.plan.steps[0].network = network;
                assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"], "as {uid}");
            }
        }
    });
}

/// Parent, process group and session of a process.
fn relations(process: u32) -> Option<(u32, u32, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut words = stat.rsplit_once(") ")?.1.split(' ').skip(1).map(|word| word.parse().unwrap());
    Some((words.next()?, words.next()?, words.next()?))
}

#[test]
fn keys_pressed_at_the_terminal_of_a_server_do_not_reach_guests() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox_in(folder.path()).map(Arc::new) else { return };
        let Some(mut guest) = guest("terminal", 0, "descriptors").await else { return };
        let marker = guest.marker();
        guest.plan.steps[0].script = format!("echo begun; sleep {marker}\n");
        let (events, cancel) = (Arc::new(Collected::default()), CancellationToken::new());
        let task = guest.spawn(&runner, &events, &cancel);
        events.wait_for("begun").await;
        wait_until(PATIENCE, || !processes_with(&marker).is_empty()).await;
        let (_, own_group, own_session) = relations(std::process::id()).unwrap();
        let mut process = processes_with(&marker)[0].as_raw_nonzero().get().unsigned_abs();
        let (_, _, session) = relations(process).unwrap();
        assert_ne!(session, own_session, "a step has a session of its own");
        // From the step up to this process, nothing is in this process's group.
        while process != std::process::id() {
            let (parent, group, _) = relations(process).unwrap();
            assert_ne!(group, own_group, "{process}");
            process = parent;
        }
        cancel.cancel();
        task.await.unwrap().unwrap();
    });
}
