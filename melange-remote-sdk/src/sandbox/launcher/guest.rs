//! The life of one guest.

use std::path::Path;
use std::sync::Arc;

use super::cgroup::Groups;
use super::children::{self, Children};
use super::network::Network;
use super::step::Steps;
use super::wire::Wire;
use super::{Result, Stop, collect, failed, make_folder, mounts, tree, workspace};
use crate::sandbox::masks::{EMPTY_FILE, EMPTY_FOLDER};
use crate::sandbox::protocol::{GuestOrder, Message, Root, TREE};
use crate::sandbox::seccomp;

/// Where the devices of the guest's networks are shown.
const VIEW_OFFLINE: &str = "sys-offline";
const VIEW_ONLINE: &str = "sys-online";

/// Runs a guest from its folder to its output. Whatever happens, nothing of it is left afterwards.
pub(super) fn run(order: &GuestOrder, wire: &Arc<Wire>, children: &Arc<Children>) -> Result<()> {
    std::env::set_current_dir(&order.folder).map_err(failed("enter the guest's folder"))?;
    // Held until the folder is gone, so that a later engine does not take it away from under a guest that runs.
    let lock = std::fs::File::open(crate::locks::FOLDER_LOCK).map_err(failed("open the guest's lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared)
        .map_err(failed("hold the guest's lock"))?;
    children::adopt_orphans()?;
    let name = order.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut groups = Groups::default();
    let outcome = live(order, &name, &mut groups, wire, children);
    // The networks are gone with `live`; what is left are processes of a step that was stopped.
    children::wait_for_all();
    wire.tell(&Message::Quiet);
    // Nobody waits for what is left: taking groups, mounts and folders away costs more than many steps do.
    if outcome.is_ok() {
        wire.done();
    }
    groups.leave();
    let removed = remove(order);
    outcome.and(removed)
}

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

fn live(
    order: &GuestOrder,
    name: &str,
    groups: &mut Groups,
    wire: &Arc<Wire>,
    children: &Arc<Children>,
) -> Result<()> {
    let network = |online| {
        if online {
            Network::online(Path::new(VIEW_ONLINE), &order.host_ports)
        } else {
            Network::offline(Path::new(VIEW_OFFLINE))
        }
    };
    let first_online = order.steps.first().is_some_and(|step| step.network);
    // The tree is prepared meanwhile. The helper of a network is a process, and belongs into the groups.
    let (sources, joined, first, filters) = std::thread::scope(|scope| {
        let preparing = scope.spawn(|| prepare(order, children));
        let offline = (!first_online).then(|| scope.spawn(|| Network::offline_here(Path::new(VIEW_OFFLINE))));
        let joined = Groups::join(name, &order.bounds);
        let filters = seccomp::programs(&order.capabilities);
        let first = offline.map_or_else(|| Ok(network(true)), std::thread::ScopedJoinHandle::join);
        (preparing.join(), joined, first, filters)
    });
    *groups = joined?;
    let sources = sources.map_err(|_| died())??;
    let first = first.map_err(|_| died())??;
    // After the views of the networks are mounted, which are taken along.
    if order.uid != 0 {
        mounts::make_reachable()?;
    }
    let steps = Steps {
        order,
        sources,
        filters: filters.map_err(failed("make a filter"))?,
        written: if matches!(order.root, Root::Overlay(_)) { "upper" } else { TREE },
        wire,
        children,
    };
    let (mut offline, mut online) = if first_online { (None, Some(first)) } else { (Some(first), None) };
    for (index, step) in order.steps.iter().enumerate() {
        children.check()?;
        if index > 0 {
            tree::make_mount_points(&steps.sources)?;
        }
        wire.tell(&Message::Started(index));
        let (made, view) =
            if step.network { (&mut online, VIEW_ONLINE) } else { (&mut offline, VIEW_OFFLINE) };
        let network = match made {
            Some(made) => made,
            None => made.insert(network(step.network)?),
        };
        let before = groups.counts();
        let mut end = steps.run(step, network, view)?;
        if end.status != 0 {
            end.met = end.met.or_else(|| groups.counts().met_since(before, &order.bounds));
        }
        let failed = end.status != 0;
        wire.tell(&Message::Ended(end));
        if failed {
            return Ok(());
        }
    }
    // The output may go to a place below `/tmp`.
    mounts::end_reach(&order.folder)?;
    collect::collect(children, &order.output)
}

/// Makes everything that steps find; tells where the files of the cache are.
fn prepare(order: &GuestOrder, children: &Arc<Children>) -> Result<Vec<(std::path::PathBuf, String)>> {
    for folder in [TREE, EMPTY_FOLDER] {
        make_folder(Path::new(folder))?;
    }
    std::fs::File::create_new(EMPTY_FILE).map_err(failed("make an empty file"))?;
    tree::set_mode(Path::new(EMPTY_FILE), 0o444)?;
    tree::set_mode(Path::new("."), 0o755)?;
    match &order.root {
        Root::Overlay(lower) => {
            for folder in ["upper", "work"] {
                make_folder(Path::new(folder))?;
            }
            std::os::unix::fs::symlink(lower, "lower").map_err(failed("name the root filesystem"))?;
            mounts::overlay()?;
        }
        Root::Copy(from) => tree::copy(children, from)?,
        Root::Archive(archive) => tree::unpack(children, archive, Path::new(TREE))?,
    }
    workspace::prepare(children, &order.workspace, order.uid, order.gid)?;
    let sources = if order.uid == 0 { order.sources.clone() } else { tree::copy_sources(&order.sources)? };
    tree::make_mount_points(&sources)?;
    Ok(sources)
}

fn died() -> Stop {
    Stop::Failed("a thread of the guest died".to_owned())
}
