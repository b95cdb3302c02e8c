//! The launcher's own child processes, so that a guest can be stopped at any moment.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal};

use super::{Result, Stop, failed};

/// Between two looks at children that are being killed.
const PAUSE: Duration = Duration::from_millis(1);

/// See [`alone`].
static STARTING: Mutex<()> = Mutex::new(());

/// Held while descriptors are open that one child is to find, and while any child is started: no other finds them.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the next child find a descriptor; the caller is [`alone`].
pub(super) fn hand_on(descriptor: impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).map_err(failed("hand on a descriptor"))
}

/// The child that works at the moment, and whether all work is to stop.
#[derive(Debug, Default)]
pub(super) struct Children {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// A handle instead of a number, which another process may have got meanwhile.
    current: Option<OwnedFd>,
}

impl Children {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the current child, and every later one before it works.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.kill();
    }

    /// Ends the current child.
    pub(super) fn kill(&self) {
        if let Some(current) = &self.state().current {
            // It may have ended by itself.
            let _ = pidfd_send_signal(current, Signal::KILL);
        }
    }

    /// `Err` once all work is to stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.state().stopped { Err(Stop::Stopped) } else { Ok(()) }
    }

    /// Starts a child that [`stop`](Self::stop) ends; the caller is [`alone`].
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut state = self.state();
        if state.stopped {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let child = command.spawn()?;
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        state.current = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
        Ok(child)
    }

    /// Waits for the end of a child that [`start`](Self::start) made.
    pub(super) fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let status = child.wait();
        self.state().current = None;
        status
    }

    /// Runs a helper program to its end.
    pub(super) fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let started = {
            let _alone = alone();
            self.start(command)
        };
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                self.check()?;
                return Err(failed(what)(error));
            }
        };
        let words = last_words(child.stderr.take());
        let status = self.wait(&mut child).map_err(failed(what))?;
        self.check()?;
        match status.signal() {
            _ if status.success() => Ok(()),
            Some(_) => Err(Stop::Killed(format!("cannot {what}"))),
            None => Err(Stop::Failed(format!("cannot {what}: {words}"))),
        }
    }
}

/// The end of what a program said; more is read, so that it does not wait, and not kept.
pub(super) fn last_words(pipe: Option<impl io::Read>) -> String {
    const KEPT_BYTES: usize = 2 << 10;
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    if let Some(mut pipe) = pipe {
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..surplus);
        }
    }
    String::from_utf8_lossy(&kept).trim().replace('\n', "; ")
}

/// Makes this process the parent of what its children leave behind.
pub(super) fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("adopt orphans"))
}

/// Kills this process's children, whoever started them.
pub(super) fn kill_all() {
    for process in children() {
        // One that ended meanwhile is not waited for yet, so that the number is nobody else's.
        let _ = kill_process(process, Signal::KILL);
    }
}

/// Ends every process below this one and waits until there is none: whose parents end become this one's children.
pub(super) fn end_all() {
    loop {
        kill_all();
        match rustix::process::wait(WaitOptions::NOHANG) {
            // The list is not taken at one moment, so one may have been missed.
            Ok(None) => std::thread::sleep(PAUSE),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// This process's children. Where the kernel was built without this list, they end by themselves.
fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let listed: Vec<String> = lists.collect();
    let numbers = listed.iter().flat_map(|list| list.split_whitespace());
    numbers.filter_map(|number| number.parse().ok().and_then(Pid::from_raw)).collect()
}
