//! The network: a way out for steps that may have one, and none to this machine.

use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::Command;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use super::{assert_child_passes, can_mount, guest, lines, sandbox, sandbox_in};
use crate::support::farm::{on_farm, sandbox_options};
use crate::support::missing;

/// Set in the process whose machine has a name server on loopback.
const CHILD: &str = "MELANGE_TEST_NAME_SERVER";
/// That name server.
const NAME_SERVER: &str = "127.0.0.7";

/// The addresses of this machine, from the kernel's tables.
fn own_addresses() -> Vec<IpAddr> {
    let four = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let (mut found, mut last) = (Vec::new(), "");
    for line in four.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address;
        } else if line.starts_with("/32 host LOCAL") {
            found.push(IpAddr::V4(last.parse().unwrap()));
        }
    }
    let six = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let hex = six.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    found.extend(hex.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_step_with_network_does_not_reach_this_machine() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let closed = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        let _closed_six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).ok();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let allowed = open.local_addr().unwrap().port();
        let mut options = sandbox_options(folder.path());
        options.host_ports = vec![allowed];
        let Some(runner) = sandbox(&options) else { return };
        let mut addresses = own_addresses();
        assert!(addresses.contains(&"127.0.0.1".parse().unwrap()), "{addresses:?}");
        // The helper's names for this machine and its name server, and where clouds keep credentials.
        addresses
            .extend(["10.0.2.2", "10.0.2.3", "169.254.169.254"].map(|text| text.parse::<IpAddr>().unwrap()));
        addresses.push("fe80::2".parse::<IpAddr>().unwrap());
        let mut words = String::from("connect");
        addresses.iter().for_each(|address| words.push_str(&format!(" {address} {port}")));
        words.push_str(&format!(" 127.0.0.1 {allowed}"));
        for uid in [0, 1000] {
            let Some(mut guest) = guest("reach", uid, &words).await else { return };
            guest.plan.steps[0].network = true;
            let mut expected: Vec<String> = addresses.iter().map(|address| format!("{address} no")).collect();
            expected.push("127.0.0.1 answers".to_owned());
            assert_eq!(lines(&runner, &guest).await, expected, "as {uid}");
        }
        drop((closed, open));
    });
}

#[test]
fn a_step_with_network_has_a_way_out_and_a_name_server_and_one_without_has_none() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox(&sandbox_options(folder.path())) else { return };
        let Some(mut guest) = guest("devices", 0, "descriptors").await else { return };
        let look = "ls /sys/class/net; tail -n +2 /proc/net/route | cut -f 1-2; grep nameserver /etc/resolv.conf || :";
        guest.plan.steps = vec![guest.step("online", look), guest.step("offline", look)];
        guest.plan.steps[0].network = true;
        let done = crate::support::guest::run(&runner, &guest).await;
        let online = done.events.lines(0);
        assert!(online.contains(&"tap0\t00000000".to_owned()), "{online:?}");
        assert!(online.contains(&"nameserver 10.0.2.3".to_owned()), "{online:?}");
        assert!(!online.contains(&"eth0".to_owned()), "{online:?}");
        assert_eq!(done.events.lines(1), ["lo"]);
    });
}

/// This test starts its own binary again in a mount namespace where the machine's name server is on its loopback, as
/// it is on many machines; guests reach it by way of the helper.
#[test]
fn a_name_server_on_loopback_answers_guests() {
    on_farm(async |farm| {
        if farm.runners.sandbox.is_none() {
            return;
        }
        if UdpSocket::bind((NAME_SERVER, 53)).is_err() {
            missing("the right to listen at port 53 of loopback");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let resolver = folder.path().join("resolv.conf");
        std::fs::write(&resolver, format!("nameserver {NAME_SERVER}\n")).unwrap();
        let script = "mount --bind \"$2\" /etc/resolv.conf; \
                      exec \"$1\" --exact sandbox::network::child --nocapture --ignored";
        let mut namespace = Command::new("unshare");
        namespace
            .args(["--mount", "--propagation", "private", "--", "sh", "-ec", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .arg(&resolver);
        assert_child_passes(namespace.env(CHILD, "1"));
    });
}

#[test]
#[ignore = "run by a_name_server_on_loopback_answers_guests"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = UdpSocket::bind((NAME_SERVER, 53)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((_, asker)) = server.recv_from(&mut question) {
            server.send_to(b"answer", asker).unwrap();
        }
    });
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox(&sandbox_options(folder.path())) else { return };
        let Some(mut guest) = guest("ask", 0, "ask").await else { return };
        guest.plan.steps[0].network = true;
        assert_eq!(lines(&runner, &guest).await, ["answer"]);
    });
}

/// A folder on which others share what is mounted, as container engines have them, with something mounted in it.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount_bind(folder.path(), folder.path()).unwrap();
        mount_change(folder.path(), MountPropagationFlags::SHARED).unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        mount("inner", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(folder)
    }

    fn is_whole(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(&format!(" {} ", self.0.path().join("inner").display()))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for place in [self.0.path().join("inner"), self.0.path().to_owned()] {
            // What is not mounted any more has failed the test.
            let _ = unmount(&place, UnmountFlags::DETACH);
        }
    }
}

#[test]
fn mounts_of_this_machine_stay() {
    on_farm(async |_| {
        if !can_mount() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox_in(folder.path()) else { return };
        let Some(mut guest) = guest("mounts", 0, "descriptors").await else { return };
        guest.plan.steps[0].network = true;
        let shared = Shared::new();
        // The second one meets a launcher that waited, which was started when the mount was there.
        for _ in 0..2 {
            assert_eq!(lines(&runner, &guest).await, ["0", "1", "2"]);
            assert!(shared.is_whole());
        }
        drop(runner);
        assert!(shared.is_whole());
    });
}
