//! One step: bubblewrap around a shell, and its output as frames.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::children::{Children, alone};
use super::network::{Network, RESOLVER};
use super::watch::Watch;
use super::wire::Wire;
use super::{Result, Stop, failed, program};
use crate::guest;
use crate::sandbox::masks::EMPTY_FOLDER;
use crate::sandbox::protocol::{
    FRAME_BYTES_MAX, GuestOrder, Message, SCRIPTS, STDERR, STDOUT, StepEnd, StepOrder, TREE,
};

/// Where the files of the cache are, and their names there.
pub(super) type Sources = Vec<(PathBuf, String)>;

/// What is the same for all steps of a guest.
pub(super) struct Steps<'a> {
    pub(super) order: &'a GuestOrder,
    /// Both filters of system calls.
    pub(super) filters: [Vec<u8>; 2],
    /// Where what the guest writes ends up.
    pub(super) written: &'static str,
    pub(super) wire: &'a Arc<Wire>,
    pub(super) children: &'a Arc<Children>,
}

impl Steps<'_> {
    /// Runs one step in a network and tells how it ended. The thread that starts bubblewrap lives as long as it
    /// does, which dies with that thread. Bubblewrap loads while `tree` waits for the tree.
    pub(super) fn run<'t>(
        &self,
        index: usize,
        network: &Network,
        view: &str,
        tree: impl FnOnce() -> Result<&'t Sources> + Send,
    ) -> Result<StepEnd> {
        network.enter(|| self.run_here(index, network.shows_devices.then_some(view), tree))
    }

    fn run_here<'t>(
        &self,
        index: usize,
        view: Option<&str>,
        tree: impl FnOnce() -> Result<&'t Sources>,
    ) -> Result<StepEnd> {
        let step = &self.order.steps[index];
        let mut handed = Vec::new();
        let alone = alone();
        let filters = self.filters.iter().map(|filter| memory_file(filter)).collect::<Result<Vec<_>>>()?;
        handed.extend(filters.iter().map(AsRawFd::as_raw_fd));
        let (told, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let (options, told_options) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        for end in [&report, &options] {
            rustix::io::fcntl_setfd(end, FdFlags::empty()).map_err(failed("hand on a pipe"))?;
            handed.push(end.as_raw_fd());
        }
        let mut child = match self.children.start(&mut self.command(step, options.as_raw_fd())) {
            Ok(child) => child,
            Err(error) => {
                self.children.check()?;
                return Err(failed("start bubblewrap")(error));
            }
        };
        drop((report, options, filters, alone));
        let options = match tree().and_then(|sources| self.options(step, view, sources, &handed)) {
            Ok(options) => options,
            Err(stop) => {
                self.children.kill();
                // It did nothing yet.
                let _ = self.children.wait(&mut child);
                return Err(stop);
            }
        };
        self.wire.tell(&Message::Started(index));
        // When they cannot be written, bubblewrap is gone, and its end tells more.
        let _ = File::from(told_options).write_all(&options);
        let watch = Watch::start(self.written, self.order.bounds.tree_bytes, self.children);
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

    /// Bubblewrap around the step's shell. Its options come by a pipe, which the environments of definitions do not
    /// overflow.
    fn command(&self, step: &StepOrder, options: i32) -> Command {
        let mut command = if self.order.uid == 0 {
            program("bwrap")
        } else {
            let mut command = program("setpriv");
            let (uid, gid) = (self.order.uid.to_string(), self.order.gid.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "bwrap"]);
            command
        };
        let script = format!("{}/{}", guest::SCRIPTS, step.script);
        command.args(["--args", &options.to_string(), "--", "/bin/sh", &script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn options(
        &self,
        step: &StepOrder,
        view: Option<&str>,
        sources: &Sources,
        handed: &[i32],
    ) -> Result<Vec<u8>> {
        let mut options = Options::default();
        options.put(["--bind", TREE, "/", "--dev", "/dev", "--proc", "/proc"]);
        options.put(["--size", &self.order.bounds.shm_bytes.to_string(), "--tmpfs", "/dev/shm"]);
        system(&mut options, view);
        options.put(&self.order.masks).put(["--ro-bind", SCRIPTS, guest::SCRIPTS]);
        if step.network {
            options.put(["--ro-bind", RESOLVER, "/etc/resolv.conf"]);
        }
        for (file, name) in sources {
            let target = format!("{}/{name}", guest::CACHE);
            options.put([OsStr::new("--ro-bind"), file.as_os_str(), OsStr::new(&target)]);
        }
        // The step is the first process of its namespace, as in a container: it has no parent to stop or to trace.
        options.put([
            "--unshare-pid",
            "--as-pid-1",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]);
        options.put(["--hostname", "melange", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        if self.order.uid == 0 {
            for capability in &self.order.capabilities {
                options.put(["--cap-add", capability]);
            }
        } else {
            let (uid, gid) = (self.order.uid.to_string(), self.order.gid.to_string());
            options.put(["--unshare-user", "--uid", &uid, "--gid", &gid]);
        }
        for (option, handle) in ["--add-seccomp-fd", "--add-seccomp-fd", "--info-fd"].iter().zip(handed) {
            options.put([option, &*handle.to_string()]);
        }
        options.put(["--clearenv"]);
        for (name, value) in &step.environment {
            options.put(["--setenv", name, value]);
        }
        options.put(["--chdir", guest::WORKSPACE]);
        options.finish()
    }
}

/// Options as bubblewrap reads them from a file: each ends with a zero byte.
#[derive(Default)]
struct Options {
    bytes: Vec<u8>,
    /// Whether one of them has a zero byte, and would become two.
    is_broken: bool,
}

impl Options {
    fn put<T: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = T>) -> &mut Self {
        for word in words {
            let word = word.as_ref().as_bytes();
            self.is_broken |= word.contains(&0);
            self.bytes.extend_from_slice(word);
            self.bytes.push(0);
        }
        self
    }

    fn finish(self) -> Result<Vec<u8>> {
        if self.is_broken {
            return Err(Stop::Refused("the step's environment has a zero byte".to_owned()));
        }
        Ok(self.bytes)
    }
}

/// Puts `/sys` in place: the view of the step's network, or the machine's without what is mounted in it.
fn system(options: &mut Options, view: Option<&str>) {
    if let Some(view) = view {
        options.put(["--ro-bind", view, "/sys"]);
        return;
    }
    options.put(["--ro-bind", "/sys", "/sys"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| place.starts_with("/sys/")) {
        options.put(["--ro-bind", EMPTY_FOLDER, place]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_cannot_become_two() {
        let mut options = Options::default();
        options.put(["--setenv", "NAME", ""]).put(["--chdir", "/"]);
        assert_eq!(options.finish().unwrap(), b"--setenv\0NAME\0\0--chdir\0/\0");
        let mut options = Options::default();
        options.put(["--setenv", "NAME", "x\0--cap-add\0ALL"]);
        assert!(matches!(options.finish(), Err(Stop::Refused(_))));
    }
}
