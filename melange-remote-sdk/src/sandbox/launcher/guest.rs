//! The life of one guest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use super::cgroup::Met;
use super::children::{self, Children};
use super::early::Early;
use super::network::Network;
use super::step::{Sources, Steps};
use super::watch::Measurer;
use super::wire::Wire;
use super::{Result, Stop, collect, failed, make_folder, mounts, tree, workspace};
use crate::sandbox::protocol::{GuestOrder, Lack, Message, OWN_ROOT, Root, SCRIPTS, TREE, UPPER};
use crate::sandbox::seccomp;

/// Bytes of scripts that count little against the smallest bound on memory.
const SMALL_SCRIPTS: usize = 1 << 20;
/// A file system with fewer free bytes is full: programs write in blocks, and stop a little before its end.
const FULL_BELOW: u64 = 1 << 20;

/// Names of an overlay's folders in its options; the rest of the page is for the other options.
const NAMES_BYTES_MAX: usize = 3_500;

/// Where the devices of the guest's networks are shown.
const VIEW_OFFLINE: &str = "sys-offline";
const VIEW_ONLINE: &str = "sys-online";

/// Runs a guest from its folder to its output. Whatever happens, nothing of it is left afterwards.
pub(super) fn run(
    mut order: GuestOrder,
    early: Early,
    measurer: &Arc<Measurer>,
    wire: &Arc<Wire>,
    children: &Arc<Children>,
) -> Result<()> {
    let scripts = std::mem::take(&mut order.scripts);
    let order = &order;
    // Held until the folder is gone, so that a later engine does not take it away from under a guest that runs.
    let _lock = match enter(&order.folder) {
        Ok(lock) => lock,
        Err(stop) => {
            early.end();
            return Err(stop);
        }
    };
    let mut networks = Networks { order, early, offline: None, online: None };
    let outcome = live(order, scripts, &mut networks, measurer, wire, children);
    // When bubblewrap has ended by itself, the kernel has ended every process of the step before.
    let is_quiet = matches!(outcome, Ok(Quiet(true)));
    if !is_quiet {
        networks.end();
        children::end_all();
    }
    wire.tell(&Message::Quiet);
    // Nobody waits for what is left: taking networks, groups, mounts and folders away costs more than many steps do.
    if outcome.is_ok() {
        wire.done();
    }
    networks.end();
    children::end_all();
    networks.early.groups.leave();
    let removed = remove(order);
    outcome.map(drop).and(removed)
}

/// Whether nothing of the guest runs any more, for certain.
struct Quiet(bool);

/// Takes all mounts away and removes the folder; a folder with a mount in it is left alone.
fn remove(order: &GuestOrder) -> Result<()> {
    mounts::end_reach(&order.folder)?;
    for place in [TREE, VIEW_OFFLINE, VIEW_ONLINE] {
        if mounts::is_mounted(place) {
            mounts::detach(place)?;
        }
    }
    tree::remove(&Children::default(), &order.folder)
}

fn enter(folder: &Path) -> Result<std::fs::File> {
    std::env::set_current_dir(folder).map_err(failed("enter the guest's folder"))?;
    let lock = std::fs::File::open(crate::locks::FOLDER_LOCK).map_err(failed("open the guest's lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared)
        .map_err(failed("hold the guest's lock"))?;
    children::adopt_orphans()?;
    Ok(lock)
}

/// Runs the steps in their tree and collects their output.
fn live(
    order: &GuestOrder,
    mut scripts: Vec<(String, String)>,
    networks: &mut Networks<'_>,
    measurer: &Arc<Measurer>,
    wire: &Arc<Wire>,
    children: &Arc<Children>,
) -> Result<Quiet> {
    if size_of(&scripts) > SMALL_SCRIPTS {
        // The bound is on the launcher too, which then needs their memory no longer.
        write_scripts(std::mem::take(&mut scripts))?;
    }
    networks.early.groups.bound(&order.bounds)?;
    if !order.steps.iter().any(|step| step.network) {
        networks.early.end_way_out();
    }
    std::thread::scope(|scope| {
        // The tree is prepared meanwhile.
        let preparing = scope.spawn(|| {
            write_scripts(scripts)?;
            prepare(order, children)
        });
        let filters = seccomp::programs(&order.capabilities).map_err(failed("make a filter"))?;
        let mut tree = Tree { preparing: Some(preparing), sources: order.sources.clone() };
        if order.uid != 0 || !order.root.is_overlay() {
            // Programs work on the tree, or it is yet to be put where others than root reach it.
            tree.wait()?;
            // After the views of the networks are mounted, which are taken along.
            if order.uid != 0 {
                if let Some(step) = order.steps.first() {
                    networks.get(step.network)?.enter(|_| Ok(()))?;
                }
                mounts::make_reachable()?;
            }
        }
        let steps = Steps {
            order,
            sources: tree.sources.clone(),
            filters,
            written: if order.root.is_overlay() { UPPER } else { TREE },
            measurer,
            wire,
            children,
        };
        for (index, step) in order.steps.iter().enumerate() {
            children.check()?;
            let before = networks.early.groups.counts();
            let network = networks.get(step.network)?;
            let mut end = steps.run(index, network, || tree.wait_for_step())?;
            if end.status != 0 && end.met.is_none() {
                match networks.early.groups.counts().met_since(before, &order.bounds) {
                    Some(Met::Memory(words)) => (end.met, end.out_of_memory) = (Some(words), true),
                    Some(Met::Processes(words)) => end.met = Some(words),
                    Some(Met::MachineMemory) => end.lacked = Some(Lack::Memory),
                    None if is_full(steps.written) => end.lacked = Some(Lack::Disk),
                    None => {}
                }
            }
            end.peak_bytes = networks.early.groups.peak_bytes();
            let (failed, lost) = (end.status != 0, end.lost);
            wire.tell(&Message::Ended(end));
            if failed {
                return Ok(Quiet(!lost));
            }
        }
        tree.wait()?;
        // The output may go to a place below `/tmp`.
        mounts::end_reach(&order.folder)?;
        collect::keep_license_files(&order.license_files)?;
        collect::collect(children, &order.output)?;
        Ok(Quiet(true))
    })
}

/// Whether the file system of a folder has no room for another file of a step.
fn is_full(folder: &str) -> bool {
    let stat = rustix::fs::statvfs(folder);
    // Some file systems count no files.
    stat.is_ok_and(|stat| {
        stat.f_bavail.saturating_mul(stat.f_frsize) < FULL_BELOW || (stat.f_files > 0 && stat.f_favail == 0)
    })
}

/// The guest's networks, each made when a step first needs it.
struct Networks<'a> {
    order: &'a GuestOrder,
    early: Early,
    offline: Option<Network>,
    online: Option<Network>,
}

impl Networks<'_> {
    /// Takes them away, used or not.
    fn end(&mut self) {
        (self.offline, self.online) = (None, None);
        self.early.end_networks();
    }

    /// The network of a step.
    fn get(&mut self, online: bool) -> Result<&Network> {
        let made = if online { &mut self.online } else { &mut self.offline };
        Ok(match made {
            Some(made) => made,
            None if online => {
                let way_out = self.early.way_out()?;
                made.insert(Network::online(way_out, VIEW_ONLINE, &self.order.host_ports)?)
            }
            None => made.insert(Network::offline(self.early.namespace()?, VIEW_OFFLINE)?),
        })
    }
}

/// The guest's tree.
struct Tree<'scope> {
    preparing: Option<ScopedJoinHandle<'scope, Result<Sources>>>,
    /// Where the files of the cache are: root's steps find them where they were, others are given copies.
    sources: Sources,
}

impl Tree<'_> {
    /// Waits until it is there.
    fn wait(&mut self) -> Result<()> {
        if let Some(preparing) = self.preparing.take() {
            self.sources = preparing.join().unwrap_or_else(|_| Err(died()))?;
        }
        Ok(())
    }

    /// The same for the next step, after which earlier steps may have taken the mount points away.
    fn wait_for_step(&mut self) -> Result<()> {
        if self.preparing.is_none() {
            tree::make_mount_points(&self.sources)?;
        }
        self.wait()
    }
}

fn size_of(scripts: &[(String, String)]) -> usize {
    scripts.iter().map(|(_, text)| text.len()).sum()
}

fn write_scripts(scripts: Vec<(String, String)>) -> Result<()> {
    scripts.into_iter().try_for_each(|(name, text)| {
        std::fs::write(Path::new(SCRIPTS).join(&name), text).map_err(failed(format!("write {name}")))
    })
}

/// Makes the tree; tells where the files of the cache are.
fn prepare(order: &GuestOrder, children: &Arc<Children>) -> Result<Sources> {
    match &order.root {
        Root::Overlay(lower) => mounts::overlay(&lower_names(&order.folder, lower)?)?,
        Root::ArchiveOver(archive, layers) => {
            let own = Path::new(OWN_ROOT);
            make_folder(own)?;
            tree::unpack(children, archive, own)?;
            mounts::overlay(&format!("{OWN_ROOT}:{}", lower_names(&order.folder, layers)?))?;
        }
        Root::Copy(from) => tree::copy(children, from)?,
        Root::Archive(archive) => tree::unpack(children, archive, Path::new(TREE))?,
    }
    workspace::prepare(children, &order.workspace, order.uid, order.gid)?;
    let sources = if order.uid == 0 { order.sources.clone() } else { tree::copy_sources(&order.sources)? };
    tree::make_mount_points(&sources)?;
    Ok(sources)
}

/// The names of folders for the options of a mount, from the guest's folder. The kernel takes a page of options: what is
/// many or has other characters is named by links.
fn lower_names(folder: &Path, lowers: &[PathBuf]) -> Result<String> {
    let state = folder.ancestors().nth(2);
    let is_plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./_".contains(&b));
    let names = lowers.iter().map(|lower| {
        let beside = state.and_then(|state| lower.strip_prefix(state).ok()?.to_str()).filter(is_plain);
        beside.map(|name| format!("../../{name}"))
    });
    if let Some(names) = names.collect::<Option<Vec<_>>>() {
        let names = names.join(":");
        if names.len() <= NAMES_BYTES_MAX {
            return Ok(names);
        }
    }
    let mut names = Vec::with_capacity(lowers.len());
    for (index, lower) in lowers.iter().enumerate() {
        let name = format!("l{index}");
        std::os::unix::fs::symlink(lower, &name).map_err(failed("name the root filesystem"))?;
        names.push(name);
    }
    Ok(names.join(":"))
}

fn died() -> Stop {
    Stop::Failed("a thread of the guest died".to_owned())
}
