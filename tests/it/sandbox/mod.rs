//! The sandbox from within: a program in the guest tries what a step must not be able to do.
//!
//! Where a BuildKit daemon is there, the same program runs in a guest of it, and the sandbox must not be the weaker
//! of the two.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use melange_remote_sdk::guest::{GuestOutcome, GuestRunner, GuestUser};
use melange_remote_sdk::sandbox::{SandboxOptions, SandboxRunner};

use crate::support::farm::{launcher, sandbox_options};
use crate::support::guest::{Done, Guest, run};
use crate::support::missing;
use crate::support::tree::Entry;

mod bounds;
mod ends;
mod inherited;
mod kernel;
mod network;
mod ready;

/// The probe as a program without libraries; `None` after saying that there is no compiler.
fn probe() -> Option<&'static [u8]> {
    static PROBE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let compile = || {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("probe");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sandbox/probe.c");
        let compiler = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).output();
        match compiler {
            Ok(done) => {
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                Some(std::fs::read(program).unwrap())
            }
            Err(error) => {
                missing(&format!("a C compiler (gcc, libc6-dev): {error}"));
                None
            }
        }
    };
    PROBE.get_or_init(compile).as_deref()
}

/// The sandbox with these options; `None` after saying what is missing.
fn sandbox(options: &SandboxOptions) -> Option<SandboxRunner> {
    match SandboxRunner::new(options) {
        Ok(runner) => Some(runner),
        Err(error) => {
            missing(&error.to_string());
            None
        }
    }
}

/// Runs a command that runs one test of this binary in a process of its own.
fn assert_child_passes(command: &mut Command) {
    let output = command.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A sandbox with its state in a folder of the test's own.
fn sandbox_in(folder: &Path) -> Option<SandboxRunner> {
    sandbox(&sandbox_options(folder))
}

/// A sandbox with a launcher whose name tells its processes from those of other tests, and that name.
fn sandbox_with_own_launcher(folder: &Path, ready_launcher: bool) -> Option<(SandboxRunner, PathBuf)> {
    let own = folder.join("launcher");
    std::fs::copy(launcher(), &own).unwrap();
    let mut options = sandbox_options(folder);
    (options.launcher, options.ready_launcher) = (Some(own.clone()), ready_launcher);
    let runner = sandbox(&options)?;
    Some((runner, own))
}

/// The names of what is in a folder of a sandbox's state.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether this user may mount; said aloud when not.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        missing("the rights to mount");
    }
    can
}

/// A guest that has the probe and runs it once.
async fn guest(name: &str, uid: u32, words: &str) -> Option<Guest> {
    let mut guest = Guest::new(name).await;
    guest.add_to_root(Entry::file("bin/probe", probe()?).mode(0o755));
    guest.plan.user = GuestUser { uid, gid: uid };
    guest.plan.capabilities =
        melange_remote_sdk::guest::DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    let step = guest.step("probe", &format!("probe {words}"));
    guest.plan.steps.push(step);
    Some(guest)
}

/// The lines of a guest that must succeed.
async fn lines(runner: &dyn GuestRunner, guest: &Guest) -> Vec<String> {
    let done = run(runner, guest).await;
    assert_eq!(done.outcome.as_ref().unwrap(), &GuestOutcome::Succeeded, "{}", done.events.text());
    done.events.lines(0)
}

/// The last lines of a guest whose step must fail, and its exit code.
fn failed(done: &Done) -> (i32, String) {
    let Ok(GuestOutcome::StepFailed { failure, .. }) = &done.outcome else {
        panic!("{:?}\n{}", done.outcome, done.events.text())
    };
    (failure.exit_code, failure.tail.join("\n"))
}
