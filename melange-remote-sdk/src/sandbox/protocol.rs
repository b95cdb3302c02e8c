//! What the runner and its launcher say to one another.
//!
//! The runner writes one [`Order`] as a line of JSON to the launcher's standard input and keeps the pipe open: when
//! it closes, the launcher ends the guest. The launcher answers on its standard output in frames: a letter, the
//! length as four bytes with the lowest first, and that many bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The first argument of a program that is to be the launcher.
pub(super) const ARGUMENT: &str = "melange-sandbox-launcher";
/// The second one: an upgraded program must not misread the orders of the one before.
pub(super) const VERSION: &str = "7";
/// The third argument of a launcher that will get the order of a guest: it makes what guests need before it has the
/// order. A fourth one names the guest.
pub(super) const FOR_A_GUEST: &str = "guest";
/// The same for a guest whose steps have a network.
pub(super) const FOR_AN_ONLINE_GUEST: &str = "online-guest";

/// The tree in its folder, of a guest or of what guests share.
pub(super) const TREE: &str = "merged";

/// The folder of scripts in a guest's folder.
pub(super) const SCRIPTS: &str = "scripts";
/// What an overlay keeps of the guest's writing, in its folder.
pub(super) const UPPER: &str = "upper";
/// Where a root filesystem is unpacked that only this guest has.
pub(super) const OWN_ROOT: &str = "root";
/// Where the kernel prepares that.
pub(super) const OVERLAY_WORK: &str = "work";

/// A frame with bytes of a step's standard output.
pub(super) const STDOUT: u8 = b'o';
/// A frame with bytes of a step's standard error.
pub(super) const STDERR: u8 = b'e';
/// A frame with a [`Message`].
pub(super) const MESSAGE: u8 = b'm';
/// The bytes before a frame's content.
pub(super) const HEADER_BYTES: usize = 5;
/// The content of one frame: what one read of a pipe takes; messages are smaller.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 10;

/// What the launcher is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Unpack a root filesystem, and what its guests have in common of their workspaces, as [`TREE`] in a folder.
    Unpack {
        /// The folder.
        folder: PathBuf,
        /// The root filesystem's tar archive.
        archive: PathBuf,
        /// The tar archives of the workspace, in order.
        workspace: Vec<PathBuf>,
        /// Who owns the workspace.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Mount an overlay below an empty folder and use it, to see whether that works.
    ProbeOverlay {
        /// The folder.
        folder: PathBuf,
    },
    /// Run a guest.
    Guest(Box<GuestOrder>),
    /// Remove folders whose files may belong to mapped ids.
    Remove {
        /// The folders.
        folders: Vec<PathBuf>,
    },
}

/// A guest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GuestOrder {
    /// The guest's folder with its empty folders; the launcher removes it in the end.
    pub(super) folder: PathBuf,
    /// Names and texts of all scripts.
    pub(super) scripts: Vec<(String, String)>,
    /// Where its tree comes from.
    pub(super) root: Root,
    /// The tar archives of the workspace that its tree does not have yet, in order.
    pub(super) workspace: Vec<PathBuf>,
    /// Where the tar archive of the output goes.
    pub(super) output: PathBuf,
    /// Files of the workspace that the output has too.
    pub(super) license_files: Vec<String>,
    /// The steps in order.
    pub(super) steps: Vec<StepOrder>,
    /// Files offered in the cache: where they lie, and their names there.
    pub(super) sources: Vec<(PathBuf, String)>,
    /// What is the cache in place of a folder of the guest's own.
    pub(super) shared_cache: Option<PathBuf>,
    /// Who runs the steps.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// Options of bubblewrap that mask what a step must not see or change of the kernel.
    pub(super) masks: Vec<String>,
    /// What the steps hold.
    pub(super) capabilities: Vec<String>,
    /// Ports of the machine's loopback that steps with network reach on their own.
    pub(super) host_ports: Vec<u16>,
    /// What the guest may use.
    pub(super) bounds: Bounds,
}

/// Where a guest's tree comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Root {
    /// An overlay over these folders, the topmost first.
    Overlay(Vec<PathBuf>),
    /// A copy of this folder.
    Copy(PathBuf),
    /// This tar archive.
    Archive(PathBuf),
    /// An overlay over this tar archive and the folders below it, the topmost first.
    ArchiveOver(PathBuf, Vec<PathBuf>),
}

impl Root {
    /// Whether the guest writes into an overlay, and not into a tree of its own.
    pub(super) fn is_overlay(&self) -> bool {
        matches!(self, Self::Overlay(_) | Self::ArchiveOver(..))
    }
}

/// One step.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StepOrder {
    /// The script's name in the folder of scripts.
    pub(super) script: String,
    /// The complete environment.
    pub(super) environment: Vec<(String, String)>,
    /// Whether it may use the network.
    pub(super) network: bool,
}

/// What a guest may use; each bound is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    /// Memory of all processes, in bytes.
    pub(super) memory_bytes: u64,
    /// Thousandths of a core; `None` for all cores.
    pub(super) cpu_millis: Option<u64>,
    /// Processes and threads.
    pub(super) processes: u64,
    /// What the guest writes, in bytes.
    pub(super) tree_bytes: u64,
    /// The size of `/dev/shm`, in bytes.
    pub(super) shm_bytes: u64,
}

/// What the launcher tells.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The step at this position begins.
    Started(usize),
    /// A step ended.
    Ended(StepEnd),
    /// Nothing of the guest runs any more; its networks, control groups and folder are left to be removed.
    Quiet,
    /// All was done.
    Done,
    /// The guest left something that the launcher will not work with.
    Refused(String),
    /// The launcher or this machine failed.
    Failed(String),
    /// A program of the launcher's was killed.
    Killed(String),
}

/// What a machine may have too little of for its guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Lack {
    /// The kernel ended a process because memory was short outside of the guest.
    Memory,
    /// The file system is full to which guests write.
    Disk,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepEnd {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub(super) status: i32,
    /// Whether the sandbox came as far as the step, all of its mounts made.
    pub(super) started: bool,
    /// Whether a signal ended bubblewrap itself: it tells of signals to its step by its exit code.
    pub(super) lost: bool,
    /// What the machine had too little of as it failed, through no fault of its own.
    pub(super) lacked: Option<Lack>,
    /// The bound that it met, in words.
    pub(super) met: Option<String>,
    /// Whether that is the one of memory.
    pub(super) out_of_memory: bool,
    /// The most bytes of memory that the guest used at a time so far, where that is known.
    pub(super) peak_bytes: Option<u64>,
}
