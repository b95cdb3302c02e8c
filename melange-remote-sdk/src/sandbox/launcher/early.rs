//! What guests need and no order decides: control groups, a network namespace, and one with a way out. A launcher that
//! waits for its order has them already.

use std::ffi::OsStr;
use std::thread::JoinHandle;

use super::Result;
use super::cgroup::Groups;
use super::network::{Namespace, WayOut, finished};

/// Being made, or made.
pub(super) struct Early {
    pub(super) groups: Groups,
    namespace: Option<JoinHandle<Result<Namespace>>>,
    way_out: Option<JoinHandle<Result<WayOut>>>,
    /// The end of a way out that is not needed.
    ending: Option<JoinHandle<()>>,
}

impl Early {
    /// Joins the groups of the guest of this name with the calling thread, and begins with a namespace, or with one
    /// that has a way out.
    pub(super) fn start(name: &OsStr, online: bool) -> Self {
        let groups = Groups::join(name);
        // The way out is a process, which belongs into the groups.
        let way_out = online.then(|| std::thread::spawn(WayOut::new));
        let namespace = (!online).then(|| std::thread::spawn(Namespace::of_this_thread));
        Self { groups, namespace, way_out, ending: None }
    }

    /// The namespace that was made, or a new one: why that could not be made may have passed.
    pub(super) fn namespace(&mut self) -> Result<Namespace> {
        let made = self.namespace.take().and_then(|made| finished(made.join()).ok());
        made.map_or_else(Namespace::new, Ok)
    }

    /// The same for the way out, whose helper may have been killed meanwhile.
    pub(super) fn way_out(&mut self) -> Result<WayOut> {
        if let Some(Ok(mut made)) = self.way_out.take().map(|made| finished(made.join()))
            && made.is_open()
        {
            return Ok(made);
        }
        WayOut::new()
    }

    /// Ends a way out that is not needed, while other things go on.
    pub(super) fn end_way_out(&mut self) {
        if let Some(way_out) = self.way_out.take() {
            self.ending = Some(std::thread::spawn(|| drop(way_out.join())));
        }
    }

    /// Ends what was not used.
    pub(super) fn end_networks(&mut self) {
        drop(self.namespace.take().map(JoinHandle::join));
        drop(self.way_out.take().map(JoinHandle::join));
        drop(self.ending.take().map(JoinHandle::join));
    }

    /// Ends all of it.
    pub(super) fn end(mut self) {
        self.end_networks();
        self.groups.leave();
    }
}
