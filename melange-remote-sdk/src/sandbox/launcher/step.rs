//! One step: bubblewrap around a shell, and its output as frames.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::children::Children;
use super::network::{Network, RESOLVER};
use super::watch::Watch;
use super::wire::Wire;
use super::{Result, Stop, failed, program};
use crate::guest;
use crate::sandbox::masks::EMPTY_FOLDER;
use crate::sandbox::protocol::{FRAME_BYTES_MAX, GuestOrder, STDERR, STDOUT, StepEnd, StepOrder, TREE};

/// What is the same for all steps of a guest.
pub(super) struct Steps<'a> {
    pub(super) order: &'a GuestOrder,
    /// Where the files of the cache are, and their names there.
    pub(super) sources: Vec<(std::path::PathBuf, String)>,
    /// Both filters of system calls.
    pub(super) filters: [Vec<u8>; 2],
    /// Where what the guest writes ends up.
    pub(super) written: &'static str,
    pub(super) wire: &'a Arc<Wire>,
    pub(super) children: &'a Arc<Children>,
}

impl Steps<'_> {
    /// Runs one step in a network and tells how it ended. The thread that starts bubblewrap lives as long as it
    /// does, which dies with that thread.
    pub(super) fn run(&self, step: &StepOrder, network: &Network, view: &str) -> Result<StepEnd> {
        network.enter(|| self.run_here(step, network.shows_devices.then_some(view)))
    }

    fn run_here(&self, step: &StepOrder, view: Option<&str>) -> Result<StepEnd> {
        let mut handed = Vec::new();
        let filters = self.filters.iter().map(|filter| memory_file(filter)).collect::<Result<Vec<_>>>()?;
        handed.extend(filters.iter().map(AsRawFd::as_raw_fd));
        let (told, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        rustix::io::fcntl_setfd(&report, FdFlags::empty()).map_err(failed("hand on a pipe"))?;
        handed.push(report.as_raw_fd());
        let mut command = self.command(step, view, &handed);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match self.children.start(&mut command) {
            Ok(child) => child,
            Err(error) => {
                self.children.check()?;
                return Err(failed("start bubblewrap")(error));
            }
        };
        let watch = Watch::start(self.written, self.order.bounds.tree_bytes, self.children);
        drop((report, filters));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(|| pump(out, STDOUT, self.wire));
            pump(err, STDERR, self.wire);
        });
        let status = self.children.wait(&mut child).map_err(failed("wait for a step"))?;
        self.children.check()?;
        let lost = status.signal().is_some();
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let met = watch
            .exceeded()
            .then(|| format!("killed: it wrote more than {} MiB", self.order.bounds.tree_bytes >> 20));
        let started = matches!(File::from(told).read(&mut [0]), Ok(1));
        Ok(StepEnd { status, started, lost, met })
    }

    fn command(&self, step: &StepOrder, view: Option<&str>, handed: &[i32]) -> Command {
        let as_root = self.order.uid == 0;
        let mut command = if as_root {
            program("bwrap")
        } else {
            let mut command = program("setpriv");
            let (uid, gid) = (self.order.uid.to_string(), self.order.gid.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "bwrap"]);
            command
        };
        command.args(["--bind", TREE, "/", "--dev", "/dev", "--proc", "/proc"]);
        command.args(["--size", &self.order.bounds.shm_bytes.to_string(), "--tmpfs", "/dev/shm"]);
        self.system(&mut command, view);
        command.args(&self.order.masks).args(["--ro-bind", "scripts", guest::SCRIPTS]);
        if step.network {
            command.args(["--ro-bind", RESOLVER, "/etc/resolv.conf"]);
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
            let (uid, gid) = (self.order.uid.to_string(), self.order.gid.to_string());
            command.args(["--unshare-user", "--uid", &uid, "--gid", &gid]);
        }
        for (option, handle) in ["--add-seccomp-fd", "--add-seccomp-fd", "--info-fd"].iter().zip(handed) {
            command.arg(option).arg(handle.to_string());
        }
        command.arg("--clearenv");
        for (name, value) in &step.environment {
            command.args(["--setenv", name, value]);
        }
        let script = format!("{}/{}", guest::SCRIPTS, step.script);
        command.args(["--chdir", guest::WORKSPACE, "--", "/bin/sh", &script]);
        command
    }

    /// Puts `/sys` in place: the view of the step's network, or the machine's without what is mounted in it.
    fn system(&self, command: &mut Command, view: Option<&str>) {
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
    let what = || failed("hand on the filter of system calls");
    let file = memfd_create("filter", MemfdFlags::CLOEXEC).map_err(|error| what()(error.into()))?;
    let mut file = File::from(file);
    file.write_all(content).and_then(|()| file.rewind()).map_err(what())?;
    rustix::io::fcntl_setfd(&file, FdFlags::empty())
        .map_err(|error| Stop::Failed(format!("cannot hand on the filter of system calls: {error}")))?;
    Ok(file.into())
}
