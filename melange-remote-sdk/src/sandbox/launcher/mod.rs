//! The launcher: the process that owns one guest.
//!
//! Namespaces belong to processes, so what a guest needs of them is made in a process of its own, which the runner
//! starts from the program that it is part of: [`run_if_asked`] turns that program into the launcher. It mounts the
//! guest's tree once, runs the steps, collects the output and removes everything, and it stops when the runner
//! closes its standard input or dies.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;

use super::protocol::{
    ARGUMENT, FOR_A_GUEST, FOR_AN_ONLINE_GUEST, Message, OVERLAY_WORK, Order, TREE, UPPER, VERSION,
};

mod cgroup;
mod children;
mod collect;
mod early;
mod guest;
mod mounts;
mod network;
mod routes;
mod step;
mod tree;
mod watch;
mod wire;
mod workspace;

pub(super) use cgroup::Met;
use children::Children;
use early::Early;
use watch::Measurer;
use wire::Wire;

/// An order: paths, scripts, and the environments of all steps of a definition.
const ORDER_BYTES_MAX: u64 = 1 << 30;

/// Whether this program calls [`run_if_asked`].
static READY: AtomicBool = AtomicBool::new(false);

/// What stops a launcher's work.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// The guest left something that is not worked with.
    #[error("{0}")]
    Refused(String),
    /// This machine or the launcher failed.
    #[error("{0}")]
    Failed(String),
    /// A program that the launcher started was killed; another try may see it through.
    #[error("{0}: its process was killed")]
    Killed(String),
    /// The runner wants no more.
    #[error("the guest was stopped")]
    Stopped,
}

/// Removes the control groups that killed engines left.
pub(super) fn sweep_groups() {
    cgroup::sweep();
}

/// Whether the kernel killed a process of a guest, or its launcher, which is gone, for want of memory.
pub(super) fn memory_met(name: &OsStr) -> Option<Met> {
    cgroup::memory_met(name)
}

/// Ends what is left of a guest whose launcher was killed, and removes its control groups.
pub(super) fn remove_groups(name: &OsStr) {
    cgroup::remove(name);
}

type Result<T, E = Stop> = std::result::Result<T, E>;

/// Says what failed, with the system's reason.
fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Stop {
    move |error| Stop::Failed(format!("cannot {what}: {error}"))
}

/// Runs this process as the launcher of a guest when it was started as one, and ends it; returns at once otherwise.
///
/// A program that uses [`SandboxRunner`](super::SandboxRunner) calls it first in `main`, before it starts threads
/// and before it reads its arguments; or it names another program that does, in
/// [`SandboxOptions::launcher`](super::SandboxOptions::launcher).
pub fn run_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        READY.store(true, Ordering::Relaxed);
        return;
    }
    // Whatever this program inherited, the guest does not.
    close_fds::set_fds_cloexec(3, &[]);
    let wire = Arc::new(Wire::new());
    let outcome = if arguments.next().is_some_and(|version| version == VERSION) {
        work(&wire, arguments.next().as_deref(), &arguments.next().unwrap_or_default())
    } else {
        Err(Stop::Failed("this program was replaced by another version; start it anew".to_owned()))
    };
    let code = match outcome {
        Ok(()) => {
            wire.done();
            0
        }
        Err(Stop::Refused(why)) => {
            wire.tell(&Message::Refused(why));
            1
        }
        Err(Stop::Failed(why)) => {
            wire.tell(&Message::Failed(why));
            1
        }
        Err(killed @ Stop::Killed(_)) => {
            wire.tell(&Message::Killed(killed.to_string()));
            1
        }
        Err(Stop::Stopped) => 1,
    };
    std::process::exit(code);
}

/// Whether [`run_if_asked`] was called in this process.
pub(super) fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

fn work(wire: &Arc<Wire>, purpose: Option<&OsStr>, name: &OsStr) -> Result<()> {
    // What is created here does not depend on the umask of whoever started the program.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let children = Arc::new(Children::default());
    // Before the groups are joined, which a thread that stays in them could not be taken away from.
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let watched = Arc::clone(&children);
    std::thread::spawn(move || {
        // Nothing comes when there is no order.
        if begun.recv().is_ok() {
            // The runner writes nothing more: an end of any kind means that it wants no more, or is gone.
            let _ = std::io::stdin().lock().read(&mut [0]);
            watched.stop();
        }
    });
    let measurer = Arc::new(Measurer::start());
    // Made before there is an order, which may be a while.
    let online = purpose.is_some_and(|purpose| purpose == FOR_AN_ONLINE_GUEST);
    let for_a_guest = online || purpose.is_some_and(|purpose| purpose == FOR_A_GUEST);
    let early = for_a_guest.then(|| Early::start(name, online));
    let order = match read_order().and_then(|order| leave_the_machine().map(|()| order)) {
        Ok(order) => order,
        Err(stop) => {
            if let Some(early) = early {
                early.end();
            }
            return Err(stop);
        }
    };
    // It waits for nothing but this.
    let _ = begin.send(());
    match order {
        Order::Unpack { folder, archive, workspace, uid, gid } => {
            std::env::set_current_dir(&folder).map_err(failed("enter the folder"))?;
            let tree = Path::new(TREE);
            make_folder(tree)?;
            tree::unpack(&children, &archive, tree)?;
            tree::prepare_root(tree);
            if workspace.is_empty() { Ok(()) } else { workspace::prepare(&children, &workspace, uid, gid) }
        }
        Order::ProbeOverlay { folder } => probe_overlay(&children, &folder),
        Order::Guest(order) => {
            let early = early.ok_or_else(|| Stop::Failed("this launcher is for no guest".to_owned()))?;
            guest::run(*order, early, &measurer, wire, &children)
        }
        Order::Remove { folders } => {
            folders.iter().try_for_each(|folder| tree::remove(&Arc::new(Children::default()), folder))
        }
    }
}

/// Takes a copy of the machine's mounts of its own. Not before there is an order: a launcher that waits would keep file
/// systems from being unmounted.
fn leave_the_machine() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    mounts::make_private()
}

fn read_order() -> Result<Order> {
    let mut line = Vec::new();
    let input = std::io::stdin().lock().take(ORDER_BYTES_MAX);
    BufReader::with_capacity(64 << 10, input)
        .read_until(b'\n', &mut line)
        .map_err(failed("read the order"))?;
    serde_json::from_slice(&line).map_err(failed("understand the order"))
}

/// Makes a folder that every user can enter.
fn make_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(path).map_err(failed(format!("create {}", path.display())))
}

/// Tries what guests do to their trees: read below, write, and put a new folder in the place of an old one.
fn probe_overlay(children: &Children, folder: &Path) -> Result<()> {
    std::env::set_current_dir(folder).map_err(failed("enter the folder"))?;
    for name in ["lower", "lower/d", UPPER, OVERLAY_WORK, TREE] {
        make_folder(Path::new(name))?;
    }
    std::fs::write("lower/a", "").map_err(failed("write"))?;
    mounts::overlay("lower")?;
    let used = || -> std::io::Result<()> {
        std::fs::metadata("merged/a")?;
        std::fs::write("merged/b", "")?;
        std::fs::remove_dir("merged/d")?;
        std::fs::create_dir("merged/d")
    };
    let outcome = used().map_err(failed("use an overlay"));
    mounts::detach(TREE)?;
    // The kernel makes a folder in there that only root may enter.
    tree::remove(children, Path::new(OVERLAY_WORK))?;
    outcome
}

/// A program of this machine with nothing to read.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}
