//! Guests whose end comes at any moment: stopped as they begin, or with their launcher killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use melange_remote_sdk::builder::BuildSink;
use melange_remote_sdk::error::{Blame, Error, Result};
use melange_remote_sdk::guest::{GuestOutcome, GuestRunner};
use melange_remote_sdk::sandbox::SandboxRunner;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bounds::can_make_groups;
use super::{guest, names_in, sandbox_with_own_launcher};
use crate::support::events::{Collected, PATIENCE, processes_with, wait_until};
use crate::support::farm::on_farm;
use crate::support::guest::Guest;

/// Moments of the life of a small guest, which is over after some tens of milliseconds.
const MOMENTS: u64 = 30;
/// A launcher that was stopped and goes on is killed after 10 s.
const STOPPED: Duration = Duration::from_secs(8);

/// A sandbox with a launcher of its own, in which none waits.
fn sandbox_where_none_waits(folder: &Path) -> Option<(Arc<SandboxRunner>, PathBuf)> {
    let (runner, own) = sandbox_with_own_launcher(folder, false)?;
    Some((Arc::new(runner), own))
}

/// A guest that sleeps as long as it may, and what is an argument of its bubblewrap and of its sleep.
async fn sleeper(name: &str) -> Option<(Guest, String)> {
    let mut guest = guest(name, 0, "descriptors").await?;
    let marker = guest.marker();
    let mut step = guest.step("sleep", &format!("sleep {marker}"));
    step.environment.push(("MARKER".to_owned(), marker.clone()));
    guest.plan.steps = vec![step];
    Some((guest, marker))
}

/// Kills the launchers of guests, and not those that remove what guests left.
fn kill_all(launcher: &Path) {
    let guests = processes_with("guest");
    for process in
        processes_with(launcher.to_str().unwrap()).iter().filter(|process| guests.contains(process))
    {
        // It may have ended by itself.
        let _ = kill_process(*process, Signal::KILL);
    }
}

/// Without pauses: what is tried comes in the first milliseconds.
async fn wait_for_bubblewrap(marker: &str) {
    let begun = Instant::now();
    while processes_with(marker).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no bubblewrap came");
        tokio::task::yield_now().await;
    }
}

/// Kills launchers until the guest is given up: one of which no step has begun is started again some times.
async fn kill_until_given_up(launcher: &Path, guest: JoinHandle<Result<GuestOutcome>>) -> Error {
    wait_until(PATIENCE, || {
        kill_all(launcher);
        guest.is_finished()
    })
    .await;
    guest.await.unwrap().unwrap_err()
}

fn is_empty(state: &Path) -> bool {
    names_in(&state.join("guests")).is_empty()
}

#[test]
fn a_guest_that_is_stopped_as_it_begins_ends_by_itself() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, _)) = sandbox_where_none_waits(folder.path()) else { return };
        for moment in 0..MOMENTS {
            let Some((mut guest, marker)) = sleeper("stopped").await else { return };
            let cancel = CancellationToken::new();
            let task = guest.spawn(&runner, &Arc::default(), &cancel);
            wait_for_bubblewrap(&marker).await;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let begun = Instant::now();
            cancel.cancel();
            assert_eq!(task.await.unwrap().unwrap(), GuestOutcome::Cancelled);
            assert!(begun.elapsed() < STOPPED, "{moment} ms after its start it took {:?}", begun.elapsed());
            assert_eq!(processes_with(&marker), [], "{moment} ms after its start");
            assert!(is_empty(folder.path()));
        }
    });
}

#[test]
fn a_launcher_that_is_killed_at_any_moment_leaves_nothing() {
    on_farm(async |_| {
        if !can_make_groups() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_where_none_waits(folder.path()) else { return };
        for moment in 0..MOMENTS {
            let Some((mut guest, marker)) = sleeper("killed").await else { return };
            let task = guest.spawn(&runner, &Arc::default(), &CancellationToken::new());
            wait_for_bubblewrap(&marker).await;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let error = kill_until_given_up(&own, task).await;
            assert_eq!(error.blamed(), Some(Blame::Farm), "{error}");
            wait_until(PATIENCE, || processes_with(&marker).is_empty() && is_empty(folder.path())).await;
        }
    });
}

/// A guest whose bubblewrap is there before its root: it waits for a tree that never comes, from a file in `folder`.
fn spawn_without_tree(
    guest: &Guest,
    runner: &Arc<SandboxRunner>,
    folder: &Path,
) -> (JoinHandle<Result<GuestOutcome>>, PathBuf, PathBuf) {
    let (mut plan, runner, output) = (guest.ready(), Arc::clone(runner), folder.join("out.tar"));
    let never = folder.join("never");
    mknodat(CWD, &never, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let workspace = std::mem::replace(&mut plan.workspace[0].path, never.clone());
    let running = tokio::spawn(async move {
        let sink = Arc::new(Collected::default()) as Arc<dyn BuildSink>;
        runner.run(&plan, &output, sink, CancellationToken::new()).await
    });
    (running, workspace, never)
}

#[test]
fn a_launcher_that_is_killed_before_its_tree_is_there_leaves_no_bubblewrap() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_where_none_waits(folder.path()) else { return };
        let Some((guest, marker)) = sleeper("early").await else { return };
        let (running, _, _) = spawn_without_tree(&guest, &runner, folder.path());
        wait_until(PATIENCE, || !processes_with(&marker).is_empty()).await;
        let error = kill_until_given_up(&own, running).await;
        assert_eq!(error.blamed(), Some(Blame::Farm), "{error}");
        wait_until(PATIENCE, || processes_with(&marker).is_empty() && is_empty(folder.path())).await;
    });
}

#[test]
fn a_guest_is_started_again_while_no_step_has_begun() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some((runner, own)) = sandbox_where_none_waits(folder.path()) else { return };
        let Some(mut guest) = guest("again", 0, "descriptors").await else { return };
        let marker = guest.marker();
        guest.plan.steps[0].environment.push(("MARKER".to_owned(), marker.clone()));
        let (running, workspace, never) = spawn_without_tree(&guest, &runner, folder.path());
        wait_until(PATIENCE, || !processes_with(&marker).is_empty()).await;
        std::fs::rename(workspace, never).unwrap();
        kill_all(&own);
        assert_eq!(running.await.unwrap().unwrap(), GuestOutcome::Succeeded);
        wait_until(PATIENCE, || is_empty(folder.path())).await;
    });
}
