//! Mounts of the launcher's own namespace, and what a step finds mounted.

use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};

use super::{Result, failed};
use crate::sandbox::protocol::{OVERLAY_WORK, TREE, UPPER};

/// Keeps what is mounted here from the rest of the machine.
pub(super) fn make_private() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("keep mounts private"))
}

/// Mounts an overlay of the current folder over `lower` at [`TREE`]. Relative names need no escapes in the options.
pub(super) fn overlay(lower: &str) -> Result<()> {
    let base = format!("lowerdir={lower},upperdir={UPPER},workdir={OVERLAY_WORK}");
    // In a user namespace only this user's own attributes can mark what is hidden. Nobody reads a guest's tree after
    // a crash of the machine, so it need not be synchronised; older kernels do not know that.
    let attempts = if is_mapped() {
        [format!("{base},userxattr,volatile"), format!("{base},userxattr")]
    } else {
        [format!("{base},volatile"), base]
    };
    let mut outcome = Ok(());
    for options in attempts {
        let options = std::ffi::CString::new(options).map_err(failed("name the overlay's folders"))?;
        outcome = mount("overlay", TREE, "overlay", MountFlags::empty(), Some(options.as_c_str()));
        if outcome.is_ok() {
            return Ok(());
        }
    }
    outcome.map_err(failed("mount an overlay"))
}

/// Whether this process is root only in a user namespace of its own.
pub(super) fn is_mapped() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Takes a mount away from this namespace, whoever still uses it.
pub(super) fn detach(place: &str) -> Result<()> {
    unmount(place, UnmountFlags::DETACH).map_err(failed(format!("unmount {place}")))
}

/// Takes away what is mounted in folders of the calling thread's namespace, but for what has `kept` in it.
pub(super) fn detach_below(folders: &[&str], kept: &Path) {
    let kept = kept.canonicalize().unwrap_or_else(|_| kept.to_owned());
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let places = places.filter(|place| folders.iter().any(|folder| place.starts_with(folder)));
    for place in places.filter(|place| !kept.starts_with(place)) {
        // In a user namespace the kernel lets nobody see what the mounts of others hide; then this one stays.
        let _ = unmount(&place, UnmountFlags::DETACH);
    }
}

/// A path as the kernel lists it, where white space and backslashes are octal numbers.
fn unescaped(listed: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(listed.to_owned(), |path, (escape, character)| path.replace(escape, character))
}

/// Moves the guest's folder to a place that every user can reach, whatever lies above the state folder, and goes
/// there. The current folder is taken by its handle, because it may itself lie below `/tmp`.
pub(super) fn make_reachable() -> Result<()> {
    let what = || failed("make the guest's folder reachable");
    mount("guest", "/tmp", "tmpfs", MountFlags::empty(), Some(c"mode=755")).map_err(what())?;
    std::fs::create_dir("/tmp/guest").map_err(failed("make the guest's folder reachable"))?;
    mount_bind_recursive(".", "/tmp/guest").map_err(what())?;
    std::env::set_current_dir("/tmp/guest").map_err(failed("make the guest's folder reachable"))
}

/// Undoes [`make_reachable`]: `/tmp` is the machine's again, and the current folder is `folder`.
pub(super) fn end_reach(folder: &Path) -> Result<()> {
    if std::env::current_dir().is_ok_and(|now| now == Path::new("/tmp/guest")) {
        detach("/tmp")?;
    }
    std::env::set_current_dir(folder).map_err(failed("enter the guest's folder"))
}

/// Mounts a view of devices that shows the network of the calling thread, if the kernel lets it.
pub(super) fn system_view(place: &Path) -> bool {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("sysfs", place, "sysfs", flags, None).is_ok()
}

/// Whether something is mounted at a folder of the current one.
pub(super) fn is_mounted(place: &str) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).is_ok_and(|found| {
        found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}
