//! Bounds: what a guest uses too much of is told in its step's last words, and nothing stays behind.

use std::path::{Path, PathBuf};

use melange_remote_sdk::builder::{BuildStatus, Builder};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::error::Blame;
use melange_remote_sdk::guest::GuestOutcome;
use melange_remote_sdk::sandbox::{SandboxBounds, SandboxOptions, SandboxRunner};
use tokio_util::sync::CancellationToken;

use super::{assert_child_passes, failed, guest, lines, names_in, sandbox};
use crate::support::events::{PATIENCE, wait_until};
use crate::support::farm::{Backend, Farm, launcher, on_farm, sandbox_options};
use crate::support::guest::{Done, Guest, run};
use crate::support::missing;
use crate::support::tree::Entry;

/// A sandbox with bounds that a test can meet, in which no launcher waits.
fn bounded(folder: &Path, bounds: SandboxBounds) -> Option<SandboxRunner> {
    let mut options = sandbox_options(folder);
    (options.bounds, options.ready_launcher) = (bounds, false);
    sandbox(&options)
}

/// Folders of the control groups of the guest of this name.
pub(super) fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == format!("melange-guest-{name}") {
                found.push(entry.path());
            }
            folders.push(entry.path());
        }
    }
    found
}

/// Runs a guest, the only one of its sandbox, and waits until its control groups, which it must have had, are gone.
async fn run_and_see_no_groups(state: &Path, runner: &SandboxRunner, guest: &Guest) -> Done {
    let mut had = Vec::new();
    let mut running = std::pin::pin!(run(runner, guest));
    let done = loop {
        for entry in std::fs::read_dir(state.join("guests")).into_iter().flatten().flatten() {
            had.extend(groups(&entry.file_name().to_string_lossy()));
        }
        tokio::select! {
            biased;
            done = &mut running => break done,
            () = tokio::task::yield_now() => {}
        }
    };
    assert!(!had.is_empty(), "the guest has groups");
    wait_until(PATIENCE, || had.iter().all(|group| !group.exists())).await;
    done
}

/// Whether this machine lets this user make control groups, which alone count all processes of a guest.
pub(super) fn can_make_groups() -> bool {
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
        guest.plan.resources.memory_bytes = Some(64 << 20);
        let (code, tail) = failed(&run_and_see_no_groups(folder.path(), &runner, &guest).await);
        assert!(code != 0 && tail.ends_with("killed: it used more than 64 MiB of memory"), "{code}: {tail}");
        guest.plan.resources.memory_bytes = Some(600 << 20);
        let done = run(&runner, &guest).await;
        assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded, "{}", done.events.text());
    });
}

/// Set in the child, which is in a control group with little memory.
const SHORT: &str = "MELANGE_TEST_SHORT_OF_MEMORY";

/// A control group with little memory; tests of a machine that runs out of it take this one in its place.
struct SmallMachine {
    folder: PathBuf,
    /// Where processes go: guests' groups stand below it in version 1 and beside it in version 2.
    members: PathBuf,
}

impl SmallMachine {
    fn new(bytes: u64) -> Self {
        let name = format!("melange-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (folder, members, bound) = if first.exists() {
            (first.join(&name), first.join(&name), "memory.limit_in_bytes")
        } else {
            let folder = Path::new("/sys/fs/cgroup").join(&name);
            (folder.clone(), folder.join("own"), "memory.max")
        };
        std::fs::create_dir_all(&members).unwrap();
        std::fs::write(folder.join(bound), bytes.to_string()).unwrap();
        Self { folder, members }
    }
}

impl Drop for SmallMachine {
    fn drop(&mut self) {
        for folder in [&self.members, &self.folder] {
            // They are the same in version 1, and the last processes may take a moment to be gone.
            let begun = std::time::Instant::now();
            while folder.exists() && std::fs::remove_dir(folder).is_err() && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_machine_without_memory_is_the_farms_fault() {
    on_farm(async |_| {
        if !can_make_groups() {
            return;
        }
        let machine = SmallMachine::new(512 << 20);
        let mut child = std::process::Command::new("sh");
        child
            .args([
                "-ec",
                "echo $$ > \"$1/cgroup.procs\"; exec \"$2\" --exact \"$3\" --nocapture --ignored",
                "sh",
            ])
            .args([&*machine.members, &*std::env::current_exe().unwrap()])
            .arg("sandbox::bounds::short_of_memory");
        assert_child_passes(child.env(SHORT, "1"));
    });
}

#[test]
#[ignore = "run by a_machine_without_memory_is_the_farms_fault"]
fn short_of_memory() {
    if std::env::var_os(SHORT).is_none() {
        return;
    }
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = bounded(folder.path(), SandboxBounds::default()) else { return };
        let Some(guest) = guest("short", 0, "eat 1000").await else { return };
        let error = run(&runner, &guest).await.outcome.unwrap_err();
        assert_eq!(error.to_string(), "this machine ran out of memory");
        assert_eq!(error.blamed(), Some(Blame::Farm));
    });
}

/// A file system of its own with little room.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` after saying that this user mounts nothing.
    fn new(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "melange-test"]).arg(folder.path());
        let output = mount.output().unwrap();
        if !output.status.success() {
            missing(&format!("the right to mount: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a guest's folder may be on its way out still.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_the_farms_fault() {
    on_farm(async |_| {
        let Some(disk) = SmallDisk::new(64) else { return };
        let Some(runner) = bounded(disk.0.path(), SandboxBounds::default()) else { return };
        let Some(mut guest) = guest("disk", 0, "descriptors").await else { return };
        guest.plan.steps = vec![guest.step("fill", "dd if=/dev/zero of=/big bs=64k count=10000")];
        let error = run(&runner, &guest).await.outcome.unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("the disk of this machine was full when a step failed (step: fill"),
            "{told}"
        );
        assert_eq!(error.blamed(), Some(Blame::Farm));
        guest.plan.steps = vec![guest.step("fail", "exit 3")];
        assert_eq!(failed(&run(&runner, &guest).await).0, 3, "with room it is the step's own failure");
    });
}

/// The kernel takes the largest process, which then is the launcher.
#[test]
fn many_small_processes_that_use_too_much_memory_are_told_so_too() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = bounded(folder.path(), SandboxBounds::default()) else { return };
        if !can_make_groups() {
            return;
        }
        let script = "i=0\nwhile [ $i -lt 200 ]; do\n  (x=$(dd if=/dev/zero bs=1000 count=1000 2>/dev/null | \
                      tr '\\0' x); sleep 5) &\n  i=$((i + 1))\ndone\nwait\nexit 3";
        let Some(mut guest) = guest("many", 0, "descriptors").await else { return };
        guest.plan.steps = vec![guest.step("many", script)];
        guest.plan.resources.memory_bytes = Some(64 << 20);
        let (code, tail) = failed(&run_and_see_no_groups(folder.path(), &runner, &guest).await);
        assert!(code != 0 && tail.ends_with("killed: it used more than 64 MiB of memory"), "{code}: {tail}");
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

/// Measuring takes a process too.
#[test]
fn a_step_with_as_many_processes_as_it_may_have_writes_no_more_than_it_may() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let mut bounds = SandboxBounds::default();
        (bounds.processes, bounds.tree_bytes) = (60, 8 << 20);
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        if !can_make_groups() {
            return;
        }
        let script = "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null\n\
                      (while :; do sleep 600 & done) 2>/dev/null || true\nexec sleep 600";
        let Some(mut guest) = guest("full", 0, "descriptors").await else { return };
        guest.plan.steps = vec![guest.step("full", script)];
        let (code, tail) = failed(&run(&runner, &guest).await);
        assert!(code != 0 && tail.contains("killed: it wrote more than 8 MiB"), "{code}: {tail}");
    });
}

#[test]
fn large_environments_are_refused_and_others_run_in_the_least_memory() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = bounded(folder.path(), SandboxBounds::default()) else { return };
        let Some(mut guest) = guest("environment", 0, "descriptors").await else { return };
        guest.plan.resources.memory_bytes = Some(96 << 20);
        let mut step = guest.plan.steps[0].clone();
        step.environment.push(("LARGE".to_owned(), "x".repeat(100 << 10)));
        guest.plan.steps = vec![step.clone(); 400];
        assert_eq!(run(&runner, &guest).await.outcome.unwrap(), GuestOutcome::Succeeded);
        let mut refused = async |step: &melange_remote_sdk::guest::GuestStep| {
            guest.plan.steps = vec![step.clone()];
            let error = run(&runner, &guest).await.outcome.unwrap_err();
            assert_eq!(error.blamed(), Some(Blame::Definition));
            error.to_string()
        };
        step.environment[2].1.push_str(&"x".repeat(40 << 10));
        let told = refused(&step).await;
        assert_eq!(told, "the step `probe` has 143360 bytes in the variable LARGE, more than 122880");
        step.environment = (0..3_000).map(|number| (format!("V{number}"), String::new())).collect();
        assert_eq!(refused(&step).await, "the step `probe` has 3000 environment variables, more than 2500");
    });
}

#[test]
fn processes_are_bounded_and_said_so() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let mut bounds = SandboxBounds::default();
        bounds.processes = 40;
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        if !can_make_groups() {
            return;
        }
        let Some(guest) = guest("bound-processes", 0, "fork 100").await else { return };
        let (code, tail) = failed(&run_and_see_no_groups(folder.path(), &runner, &guest).await);
        assert_eq!(code, 1);
        assert!(tail.ends_with("it started more than 40 processes and threads"), "{tail}");
    });
}

#[test]
fn what_is_written_is_bounded_and_said_so() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let mut bounds = SandboxBounds::default();
        bounds.tree_bytes = 8 << 20;
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
        let mut bounds = SandboxBounds::default();
        bounds.shm_bytes = 4 << 20;
        let Some(runner) = bounded(folder.path(), bounds) else { return };
        let Some(mut guest) = guest("bound-shm", 0, "descriptors").await else { return };
        guest.plan.steps[0].script =
            "dd if=/dev/zero of=/dev/shm/big bs=1M count=64 2>/dev/null || stat -c %s /dev/shm/big"
                .to_owned();
        assert_eq!(super::lines(&runner, &guest).await, [(4 << 20).to_string()]);
    });
}

#[test]
fn unpacked_root_filesystems_leave_when_nobody_uses_them() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        // No room for any that nobody uses.
        let cache = StateCache::new(folder.path(), 0);
        let mut options = SandboxOptions::with_cache(cache);
        options.launcher = Some(launcher());
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
        assert!(names_in(&folder.path().join("roots")).contains(&root), "in use elsewhere");
        drop(lock);
        let Some(mut third) = guest("root-third", 0, "eat 1").await else { return };
        third.add_to_root(Entry::file("third", b"3").mode(0o644));
        lines(&runner, &third).await;
        let left = names_in(&folder.path().join("roots"));
        assert!(!left.contains(&root) && left.contains(&third.ready().root.sha256), "{left:?}");
        // What left is unpacked anew.
        lines(&runner, &first).await;
    });
}
