//! Bounds: what a guest uses too much of is told in its step's last words, and nothing stays behind.

use std::path::PathBuf;

use melange_remote_sdk::builder::{BuildStatus, Builder};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::guest::{GuestOutcome, GuestResources};
use melange_remote_sdk::sandbox::{SandboxBounds, SandboxOptions, SandboxRunner};
use tokio_util::sync::CancellationToken;

use super::{failed, guest, lines, sandbox};
use crate::support::events::{PATIENCE, wait_until};
use crate::support::farm::{Backend, Farm, launcher, on_farm, sandbox_options};
use crate::support::guest::run;
use crate::support::missing;
use crate::support::tree::Entry;

/// A sandbox with bounds that a test can meet.
fn bounded(folder: &std::path::Path, bounds: SandboxBounds) -> Option<SandboxRunner> {
    sandbox(&SandboxOptions { bounds, ..sandbox_options(folder) })
}

/// Folders of the control groups of guests of this name.
fn groups(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(&format!("melange-guest-{name}.")) {
                found.push(entry.path().display().to_string());
            }
            folders.push(entry.path());
        }
    }
    found
}

/// Whether this machine lets this user make control groups, which alone count all processes of a guest.
fn can_make_groups() -> bool {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = std::fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t");
    let works = root && text.lines().any(|line| line.contains(" - cgroup") && line.contains(" rw,"));
    if !works {
        missing("control groups that this user may write to");
    }
    works
}

#[test]
fn memory_is_bounded_by_the_definition_and_said_so() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = bounded(folder.path(), SandboxBounds::default()) else { return };
        if !can_make_groups() {
            return;
        }
        let Some(mut guest) = guest("bound-memory", 0, "eat 400").await else { return };
        guest.plan.resources = GuestResources { memory_bytes: Some(64 << 20), ..GuestResources::default() };
        let (code, tail) = failed(&run(&runner, &guest).await);
        assert!(code != 0 && tail.ends_with("killed: it used more than 64 MiB of memory"), "{code}: {tail}");
        guest.plan.resources.memory_bytes = Some(600 << 20);
        let done = run(&runner, &guest).await;
        assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded, "{}", done.events.text());
        wait_until(PATIENCE, || groups("bound-memory").is_empty()).await;
    });
}

#[test]
fn resources_of_a_definition_are_bounds_and_nonsense_is_refused() {
    on_farm(async |farm| {
        if farm.runners.sandbox.is_none() || !can_make_groups() {
            return;
        }
        let yaml = "package:\n  name: hungry\n  version: 1\n  epoch: 0\n  resources:\n    memory: 96Mi\n\
                    environment:\n  contents:\n    packages:\n      - busybox\npipeline:\n  - name: eat\n    \
                    runs: |\n      x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' 'x'); echo ${#x}\n";
        let built = farm.build(Backend::Sandbox, "bound-hungry", yaml).await;
        let BuildStatus::Failed { reason, failure: Some(failure) } = &built.outcome.status else {
            panic!("{built:?}")
        };
        assert!(reason.starts_with("the step `hungry: eat` failed"), "{reason}");
        assert_eq!(failure.tail.last().unwrap(), "killed: it used more than 96 MiB of memory");
        let input = Farm::input(Backend::Sandbox, "bound-odd", &yaml.replace("96Mi", "plenty"));
        let sink = std::sync::Arc::new(melange_remote_sdk::builder::NullSink);
        let error = farm.engine().build(&input, sink, CancellationToken::new()).await;
        let told = match error {
            Err(error) => error.chain(),
            Ok(outcome) => format!("{:?}", outcome.status),
        };
        assert!(told.contains("`resources.memory` is no quantity"), "{told}");
    });
}

#[test]
fn processes_are_bounded_and_said_so() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let bounds = SandboxBounds { processes: 40, ..SandboxBounds::default() };
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        if !can_make_groups() {
            return;
        }
        let Some(guest) = guest("bound-processes", 0, "fork 100").await else { return };
        let (code, tail) = failed(&run(&runner, &guest).await);
        assert_eq!(code, 1);
        assert!(tail.ends_with("it started more than 40 processes and threads"), "{tail}");
        wait_until(PATIENCE, || groups("bound-processes").is_empty()).await;
    });
}

#[test]
fn what_is_written_is_bounded_and_said_so() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let bounds = SandboxBounds { tree_bytes: 8 << 20, ..SandboxBounds::default() };
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        let Some(mut guest) = guest("bound-tree", 0, "descriptors").await else { return };
        // The step ends only when it is ended.
        guest.plan.steps[0].script =
            "dd if=/dev/zero of=/big bs=1M count=32 2>/dev/null; sleep 600".to_owned();
        let (code, tail) = failed(&run(&runner, &guest).await);
        assert_eq!((code, tail.as_str()), (137, "killed: it wrote more than 8 MiB"));
    });
}

#[test]
fn shared_memory_is_bounded() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let bounds = SandboxBounds { shm_bytes: 4 << 20, ..SandboxBounds::default() };
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        let Some(mut guest) = guest("bound-shm", 0, "descriptors").await else { return };
        guest.plan.steps[0].script =
            "dd if=/dev/zero of=/dev/shm/big bs=1M count=64 2>/dev/null || stat -c %s /dev/shm/big"
                .to_owned();
        assert_eq!(super::lines(&runner, &guest).await, [(4 << 20).to_string()]);
    });
}

/// The names of the unpacked root filesystems.
fn roots(state: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("roots")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn unpacked_root_filesystems_leave_when_nobody_uses_them() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        // No room for any that nobody uses.
        let cache = StateCache::new(folder.path(), 0);
        let options = SandboxOptions { launcher: Some(launcher()), ..SandboxOptions::with_cache(cache) };
        let Some(runner) = sandbox(&options) else { return };
        // What a killed engine left half unpacked.
        let half = folder.path().join("roots/unpacking.killed");
        std::fs::create_dir_all(half.join("tree")).unwrap();
        std::fs::write(half.join("lock"), "").unwrap();
        let Some(other) = sandbox(&options) else { return };
        assert!(!half.exists());
        let Some(mut first) = guest("root-first", 0, "eat 1").await else { return };
        first.add_to_root(Entry::file("first", b"1").mode(0o644));
        let root = first.ready().root.sha256;
        lines(&runner, &first).await;
        let lock = std::fs::File::open(folder.path().join("roots").join(&root).join("lock")).unwrap();
        // The guest's folder is cleared in the background; another process begins to use its root filesystem.
        wait_until(PATIENCE, || lock.try_lock().is_ok()).await;
        lock.lock_shared().unwrap();
        let Some(second) = guest("root-second", 0, "eat 1").await else { return };
        lines(&other, &second).await;
        assert!(roots(folder.path()).contains(&root), "in use elsewhere");
        drop(lock);
        let Some(mut third) = guest("root-third", 0, "eat 1").await else { return };
        third.add_to_root(Entry::file("third", b"3").mode(0o644));
        lines(&runner, &third).await;
        let left = roots(folder.path());
        assert!(!left.contains(&root) && left.contains(&third.ready().root.sha256), "{left:?}");
        // What left is unpacked anew.
        lines(&runner, &first).await;
    });
}
