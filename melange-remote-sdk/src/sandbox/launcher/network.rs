//! The network of a guest: a namespace of its own, with nothing in it but loopback, or with a way out through
//! `slirp4netns`.
//!
//! The way out is an ordinary program that opens ordinary sockets for the guest, so it needs no rights, no
//! forwarding and no rules on this machine. It leads to the outside and to the machine's name servers. It does not
//! lead to this machine: loopback is switched off in the helper, and every address that the machine has is
//! unreachable in the guest, as are link-local addresses, where clouds keep their credentials.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, unshare};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::children::{alone, hand_on, last_words};
use super::routes::{Range, forbid, start_loopback};
use super::{Result, Stop, failed, make_folder, mounts, program};

/// The name server that the helper offers to guests.
const NAME_SERVER: &str = "10.0.2.3";
/// The file with it, in the guest's folder.
pub(super) const RESOLVER: &str = "resolv.conf";
/// Connections of one guest to the machine's allowed ports at one time.
const RELAYED_MAX: usize = 256;
/// Addresses of this machine that are made unreachable; a router may have very many.
const OWN_ADDRESSES_MAX: usize = 4_096;

/// A network namespace with loopback alone.
pub(super) struct Namespace(OwnedFd);

impl Namespace {
    /// A new one.
    pub(super) fn new() -> Result<Self> {
        on_a_thread(Self::of_this_thread)
    }

    /// A new one, in which the calling thread is from now on.
    pub(super) fn of_this_thread() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
        start_loopback()?;
        let handle = File::open("/proc/thread-self/ns/net").map_err(failed("open a network namespace"))?;
        Ok(Self(handle.into()))
    }

    /// Does something in it, on a thread of its own: who has rights in a user namespace alone could not come back.
    fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let go = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(failed("enter the network namespace"))?;
            work()
        };
        on_a_thread(go)
    }
}

/// A namespace with a way out: what reaches this machine is not yet forbidden.
pub(super) struct WayOut {
    namespace: Namespace,
    helper: Helper,
}

impl WayOut {
    /// A new one. The helper belongs to the groups of the calling thread.
    pub(super) fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        let helper = Helper::start(&namespace)?;
        Ok(Self { namespace, helper })
    }

    /// Whether it still leads out; somebody may have killed the helper while it waited.
    pub(super) fn is_open(&mut self) -> bool {
        self.helper.is_running()
    }
}

/// The network of a guest's steps.
pub(super) struct Network {
    namespace: Namespace,
    /// Where its devices are shown, once somebody has asked, if the kernel lets it.
    view: &'static str,
    shown: OnceLock<bool>,
    /// What is still reached and must not be.
    open: Mutex<Vec<Range>>,
    _helper: Option<Helper>,
}

impl Network {
    /// Nothing but loopback; its devices are shown at `view`.
    pub(super) fn offline(namespace: Namespace, view: &'static str) -> Result<Self> {
        make_folder(Path::new(view))?;
        Ok(Self { namespace, view, shown: OnceLock::new(), open: Mutex::default(), _helper: None })
    }

    /// A way out, and the machine's loopback `ports` on its own loopback. [`close`](Self::close) is yet to come.
    pub(super) fn online(way_out: WayOut, view: &'static str, ports: &[u16]) -> Result<Self> {
        let WayOut { namespace, helper } = way_out;
        let own = own_addresses()?;
        make_folder(Path::new(view))?;
        if !ports.is_empty() {
            for (port, listener) in namespace.enter(|| listen(ports))? {
                std::thread::spawn(move || relay(&listener, port));
            }
        }
        std::fs::write(RESOLVER, resolver(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()))
            .map_err(failed("write the name server"))?;
        Ok(Self { namespace, view, shown: OnceLock::new(), open: Mutex::new(own), _helper: Some(helper) })
    }

    /// Makes this machine unreachable, from a thread that entered; before that no step may run.
    pub(super) fn close(&self) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(range) = open.last().copied() {
            forbid(range)?;
            open.pop();
        }
        Ok(())
    }

    /// Does something in this network, on a thread of its own, given where its devices are shown.
    pub(super) fn enter<T: Send>(
        &self,
        work: impl FnOnce(Option<&'static str>) -> Result<T> + Send,
    ) -> Result<T> {
        self.namespace.enter(|| {
            let shown = *self.shown.get_or_init(|| mounts::system_view(Path::new(self.view)));
            work(shown.then_some(self.view))
        })
    }
}

/// `slirp4netns`, which ends when this does, and when the launcher is killed.
struct Helper {
    process: Child,
    /// It ends when this closes.
    _open: OwnedFd,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Helper {
    /// Starts it where it takes nothing away from this machine: in its own sandbox it unmounts all that it sees, which
    /// would reach every place that shares a mount with the calling thread.
    fn start(namespace: &Namespace) -> Result<Self> {
        let (helper, words) = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
            mounts::make_private()?;
            // Its sandbox keeps these two folders with all that is mounted in them.
            mounts::detach_below(&["/run/", "/etc/"], Path::new("/etc/resolv.conf"));
            Self::start_here(namespace)
        })?;
        // Its pipe stays open for as long as it runs, and is read so that it never waits. Not on a thread of that
        // namespace, which would keep all file systems mounted.
        std::thread::spawn(move || last_words(words));
        Ok(helper)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    fn start_here(namespace: &Namespace) -> Result<(Self, Option<ChildStderr>)> {
        let alone = alone();
        let (ready, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let (end, open) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        hand_on(&report)?;
        hand_on(&end)?;
        let mut command = program("slirp4netns");
        command
            .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox"])
            .args(["--enable-seccomp", "--netns-type=path"])
            .arg(format!("--ready-fd={}", report.as_raw_fd()))
            .arg(format!("--exit-fd={}", end.as_raw_fd()))
            .arg(format!("/proc/{}/fd/{}", std::process::id(), namespace.0.as_raw_fd()))
            .arg("tap0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        File::options().read(true).write(true).open("/dev/net/tun").map_err(failed(
            "give the step a network: the user that the sandbox runs as must be able to open /dev/net/tun",
        ))?;
        let process = command.spawn().map_err(failed("start slirp4netns"))?;
        let mut helper = Self { process, _open: open };
        drop((report, end, alone));
        let told = File::from(ready).read(&mut [0]);
        let words = helper.process.stderr.take();
        if matches!(told, Ok(1)) {
            return Ok((helper, words));
        }
        Err(Stop::Failed(format!("cannot start the guest's network: {}", last_words(words))))
    }
}

/// Namespaces belong to threads: this one stays where it is.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    finished(std::thread::scope(|scope| scope.spawn(work).join()))
}

/// What a thread of the network made.
pub(super) fn finished<T>(outcome: std::thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|_| Err(Stop::Failed("a thread of the guest's network died".to_owned())))
}

/// What must not be reached: this machine's addresses, link-local ones, and the helper's name for this machine.
fn own_addresses() -> Result<Vec<Range>> {
    let mut ranges = vec![
        Range { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), bits: 16 },
        Range { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), bits: 10 },
    ];
    let interfaces = getifaddrs().map_err(failed("list this machine's addresses"))?;
    for address in interfaces.filter_map(|interface| interface.address) {
        let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let six = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        ranges.extend(four.or(six).filter(|address| !is_local(*address)).map(Range::of));
    }
    if ranges.len() > OWN_ADDRESSES_MAX {
        let count = ranges.len();
        return Err(Stop::Failed(format!(
            "this machine has too many addresses for a guest's network: {count}"
        )));
    }
    Ok(ranges)
}

/// Loopback is the guest's own, and link-local addresses are forbidden as a range.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

/// The guest's `resolv.conf`: the helper's name server, with the machine's search list and options.
fn resolver(of_machine: &str) -> String {
    let mut text = format!("nameserver {NAME_SERVER}\n");
    for line in of_machine.lines() {
        if line.split_whitespace().next().is_some_and(|word| ["search", "domain", "options"].contains(&word))
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn listen(ports: &[u16]) -> Result<Vec<(u16, TcpListener)>> {
    let mut listeners = Vec::new();
    for port in ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let listener =
            TcpListener::bind(address).map_err(failed(format!("offer port {port} to the guest")))?;
        listeners.push((*port, listener));
        // A machine without IPv6 has no such loopback.
        listeners
            .extend(TcpListener::bind((Ipv6Addr::LOCALHOST, *port)).ok().map(|listener| (*port, listener)));
    }
    Ok(listeners)
}

/// Passes connections on to the same port of the machine's loopback.
fn relay(listener: &TcpListener, port: u16) {
    let open = Arc::new(AtomicUsize::new(0));
    for inner in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= RELAYED_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let open = Arc::clone(&open);
        std::thread::spawn(move || {
            let outer = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .or_else(|_| TcpStream::connect((Ipv6Addr::LOCALHOST, port)));
            if let Ok(outer) = outer {
                // Either side may close at any time; that is the end of it.
                let _ = join(&inner, &outer);
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn join(inner: &TcpStream, outer: &TcpStream) -> std::io::Result<()> {
    let (mut from_inner, mut to_outer) = (inner.try_clone()?, outer.try_clone()?);
    let (mut from_outer, mut to_inner) = (outer.try_clone()?, inner.try_clone()?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = std::io::copy(&mut from_inner, &mut to_outer);
            to_outer.shutdown(Shutdown::Write)
        });
        let _ = std::io::copy(&mut from_outer, &mut to_inner);
        to_inner.shutdown(Shutdown::Write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_ask_the_helper_and_keep_the_search_list() {
        let machine = "# local\nnameserver 127.0.0.53\nsearch corp.example\noptions edns0\n";
        assert_eq!(resolver(machine), "nameserver 10.0.2.3\nsearch corp.example\noptions edns0\n");
    }

    #[test]
    fn link_local_addresses_and_the_machines_own_are_forbidden() {
        let ranges = own_addresses().unwrap();
        assert!(ranges.contains(&Range { address: "169.254.0.0".parse().unwrap(), bits: 16 }));
        assert!(ranges.iter().all(|range| !range.address.is_loopback()));
    }
}
