//! One step: bubblewrap around a shell, and its output as frames.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::CapabilitySet;

use super::children::{Children, alone, hand_on, kill_all};
use super::network::{Network, RESOLVER};
use super::watch::{Ended, Measurer, Watch};
use super::wire::Wire;
use super::{Result, failed, mounts, program};
use crate::guest;
use crate::sandbox::masks::EMPTY_FOLDER;
use crate::sandbox::protocol::{
    FRAME_BYTES_MAX, GuestOrder, Message, SCRIPTS, STDERR, STDOUT, StepEnd, StepOrder, TREE,
};

/// The most that the kernel takes: these processes first.
const OFFERED: &str = "1000";

/// What bubblewrap tells of a step; it is some hundred bytes.
const STATUS_BYTES_MAX: u64 = 64 << 10;
/// Between two looks whether a step's output has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the files of the cache are, and their names there.
pub(super) type Sources = Vec<(PathBuf, String)>;

/// What is the same for all steps of a guest.
pub(super) struct Steps<'a> {
    pub(super) order: &'a GuestOrder,
    pub(super) sources: Sources,
    /// Both filters of system calls.
    pub(super) filters: [Vec<u8>; 2],
    /// Where what the guest writes ends up.
    pub(super) written: &'static str,
    pub(super) measurer: &'a Arc<Measurer>,
    pub(super) wire: &'a Arc<Wire>,
    pub(super) children: &'a Arc<Children>,
}

impl Steps<'_> {
    /// Runs one step in a network and tells how it ended. The thread that starts bubblewrap lives as long as it
    /// does, which dies with that thread. Bubblewrap loads while the network is closed and `tree` waits for the tree.
    pub(super) fn run(
        &self,
        index: usize,
        network: &Network,
        tree: impl FnOnce() -> Result<()> + Send,
    ) -> Result<StepEnd> {
        network.enter(|view| {
            let ready = || {
                network.close()?;
                tree()
            };
            self.run_here(index, view, ready)
        })
    }

    fn run_here(
        &self,
        index: usize,
        view: Option<&str>,
        ready: impl FnOnce() -> Result<()>,
    ) -> Result<StepEnd> {
        let mut handed = Vec::new();
        let alone = alone();
        let filters = self.filters.iter().map(|filter| memory_file(filter)).collect::<Result<Vec<_>>>()?;
        handed.extend(filters.iter().map(AsRawFd::as_raw_fd));
        // No pipe: bubblewrap would die of writing to one whose reader is gone, and leave its child waiting for it.
        let told = memory_file(b"")?;
        handed.push(told.as_raw_fd());
        let (root, root_is_there) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        hand_on(&root)?;
        handed.push(root.as_raw_fd());
        let mut child = match self.children.start(&mut self.command(&self.order.steps[index], view, &handed))
        {
            Ok(child) => child,
            Err(error) => {
                self.children.check()?;
                return Err(failed("start bubblewrap")(error));
            }
        };
        drop((root, filters));
        // Everything that takes a thread comes before the step, which may leave none.
        let watched = self.order.folder.join(self.written);
        let watch = Watch::start(self.measurer, watched, self.order.bounds.tree_bytes, self.children);
        rustix::io::fcntl_setfd(&told, FdFlags::CLOEXEC).map_err(failed("keep a file"))?;
        drop(alone);
        offer_to_the_kernel(&child);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (outcome, status) = std::thread::scope(|scope| {
            let pumps =
                [scope.spawn(|| pump(out, STDOUT, self.wire)), scope.spawn(|| pump(err, STDERR, self.wire))];
            let outcome = ready();
            if outcome.is_ok() {
                self.wire.tell(&Message::Started(index));
                give_root(root_is_there);
            } else {
                // It did nothing yet, and without a root it can do nothing.
                let _ = child.kill();
            }
            let status = self.children.wait(&mut child);
            if !status.as_ref().is_ok_and(ExitStatus::success) {
                // This was the guest's last step. What it started ends with it, but for a moment at the beginning.
                while !pumps.iter().all(ScopedJoinHandle::is_finished) {
                    kill_all();
                    std::thread::sleep(PAUSE);
                }
            }
            (outcome, status)
        });
        let status = status.map_err(failed("wait for a step"))?;
        self.children.check()?;
        outcome?;
        let lost = status.signal().is_some();
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let met = watch.ended().map(|ended| match ended {
            Ended::TooMuch => {
                format!("killed: it wrote more than {} MiB", self.order.bounds.tree_bytes >> 20)
            }
            Ended::Unmeasured => {
                "killed: what it writes could not be measured beside its many processes".to_owned()
            }
        });
        let started = has_run(told.into());
        Ok(StepEnd { status, started, lost, lacked: None, met, out_of_memory: false, peak_bytes: None })
    }

    /// Bubblewrap around the step's shell. All that keeps the step in stands here, and only the tree, its first mount,
    /// comes by a pipe when it is there: whatever happens to the launcher meanwhile, without it there is no shell to
    /// run.
    fn command(&self, step: &StepOrder, view: Option<&str>, handed: &[i32]) -> Command {
        let as_root = self.order.uid == 0;
        let (uid, gid) = (self.order.uid.to_string(), self.order.gid.to_string());
        let mut command = if as_root {
            program("bwrap")
        } else {
            let mut command = program("setpriv");
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "bwrap"]);
            command
        };
        let options = ["--add-seccomp-fd", "--add-seccomp-fd", "--json-status-fd", "--args"];
        for (option, handle) in options.iter().zip(handed) {
            command.arg(option).arg(handle.to_string());
        }
        command.args(["--dev", "/dev", "--proc", "/proc"]);
        command.args(["--size", &self.order.bounds.shm_bytes.to_string(), "--tmpfs", "/dev/shm"]);
        system(&mut command, view);
        command.args(&self.order.masks).args(["--ro-bind", SCRIPTS, guest::SCRIPTS]);
        if step.network {
            command.args(["--ro-bind", RESOLVER, "/etc/resolv.conf"]);
        }
        if let Some(folder) = &self.order.shared_cache {
            command.arg("--bind").arg(folder).arg(guest::CACHE);
        }
        for (file, name) in &self.sources {
            command.arg("--ro-bind").arg(file).arg(format!("{}/{name}", guest::CACHE));
        }
        // The step is the first process of its namespace, as in a container: it has no parent to stop or to trace.
        command.args([
            "--unshare-pid",
            "--as-pid-1",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]);
        command.args(["--hostname", "melange", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        if as_root {
            for capability in &self.order.capabilities {
                command.args(["--cap-add", capability]);
            }
        } else {
            command.args(["--unshare-user", "--uid", &uid, "--gid", &gid]);
        }
        command.arg("--clearenv");
        for (name, value) in &step.environment {
            command.args(["--setenv", name, value]);
        }
        let script = format!("{}/{}", guest::SCRIPTS, step.script);
        command.args(["--chdir", guest::WORKSPACE, "--", "/bin/sh", &script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Has the kernel end the step, and not the launcher or this machine's programs, when memory is short: what bubblewrap
/// starts inherits it, and it starts nothing before it has its root.
fn offer_to_the_kernel(bubblewrap: &Child) {
    let has = |sets: rustix::thread::CapabilitySets| sets.effective.contains(CapabilitySet::SYS_RESOURCE);
    // Without this right of the machine's, a step could take it back, and guests that do not would die in its place.
    // Then the kernel chooses by size alone.
    if rustix::thread::capabilities(None).is_ok_and(has) && !mounts::is_mapped() {
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", bubblewrap.id()), OFFERED);
    }
}

/// Whether bubblewrap came as far as the step: only then it tells an exit code.
fn has_run(mut told: File) -> bool {
    let mut text = String::new();
    let read = told.rewind().and_then(|()| told.take(STATUS_BYTES_MAX).read_to_string(&mut text));
    read.is_ok() && text.contains("exit-code")
}

/// Gives bubblewrap its first mount, in one piece. One that ended already tells why by itself.
fn give_root(pipe: OwnedFd) {
    let options = format!("--bind\0{TREE}\0/\0");
    let _ = File::from(pipe).write_all(options.as_bytes());
}

/// Puts `/sys` in place: the view of the step's network, or the machine's without what is mounted in it.
fn system(command: &mut Command, view: Option<&str>) {
    if let Some(view) = view {
        command.args(["--ro-bind", view, "/sys"]);
        return;
    }
    command.args(["--ro-bind", "/sys", "/sys"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| place.starts_with("/sys/")) {
        command.args(["--ro-bind", EMPTY_FOLDER, place]);
    }
}

fn pump(pipe: Option<impl Read>, kind: u8, wire: &Wire) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while let Ok(count @ 1..) = pipe.read(&mut buffer) {
        wire.frame(kind, &buffer[..count]);
    }
}

/// A file in memory that a child finds open.
fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    let what = || failed("hand on a file");
    let file = memfd_create("handed", MemfdFlags::CLOEXEC).map_err(|error| what()(error.into()))?;
    let mut file = File::from(file);
    file.write_all(content).and_then(|()| file.rewind()).map_err(what())?;
    hand_on(&file)?;
    Ok(file.into())
}
