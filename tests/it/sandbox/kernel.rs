//! The kernel: nothing of it is writable, and dangerous system calls are refused.

use std::collections::BTreeMap;

use melange_remote_sdk::guest::GuestRunner;

use super::{guest, lines, sandbox, sandbox_in};
use crate::support::farm::{on_farm, sandbox_options};
use crate::support::guest::{daemon, runner};

/// Root's steps, and those of another account.
const USERS: [u32; 2] = [0, 1000];

/// Tries every file of the kernel in a guest of `runner`. Root may open a file that nobody may write, where the
/// kernel takes nothing; not even those are more than in a container.
async fn nothing_is_writable(ours: &dyn GuestRunner, daemon: Option<&dyn GuestRunner>) {
    for uid in USERS {
        let Some(guest) = guest("writable", uid, "writable").await else { return };
        let (opened, said): (Vec<_>, Vec<_>) =
            lines(ours, &guest).await.into_iter().partition(|line| line.starts_with("opens "));
        assert_eq!(said, ["tried many", "walked"], "as {uid}");
        assert!(opened.iter().all(|line| line.starts_with("opens /proc/")));
        if let Some(daemon) = daemon {
            let theirs = lines(daemon, &guest).await;
            let more: Vec<_> = opened.iter().filter(|line| !theirs.contains(line)).collect();
            println!("as {uid}: {} open, {} in a container", opened.len(), theirs.len() - 2);
            assert_eq!(more, [""; 0], "as {uid}");
        } else if uid != 0 {
            assert_eq!(opened, [""; 0]);
        }
    }
}

#[test]
fn nothing_of_the_kernel_can_be_written() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox_in(folder.path()) else { return };
        let daemon = daemon().map(|socket| crate::support::guest::runner(&socket));
        nothing_is_writable(&runner, daemon.as_ref().map(|daemon| daemon as &dyn GuestRunner)).await;
    });
}

#[test]
fn what_container_engines_mask_is_empty() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(runner) = sandbox_in(folder.path()) else { return };
        let Some(mut guest) = guest("masked", 0, "descriptors").await else { return };
        guest.plan.steps[0].script = "\
            for file in kcore keys latency_stats timer_list timer_stats sched_debug; do\n  \
              if [ -e /proc/$file ]; then head -c 1 /proc/$file | tr -c x x; fi\n\
            done\n\
            for folder in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap \
              /sys/fs/cgroup /sys/kernel/security; do\n  [ ! -d $folder ] || ls $folder\ndone\n\
            ls /sys/class/net; awk '$5 ~ /^.sys/ && $6 ~ /^rw/' /proc/self/mountinfo | wc -l\n"
            .to_owned();
        // Root reads `/proc/keys` and the others on the machine itself.
        assert_eq!(lines(&runner, &guest).await, ["lo", "0"]);
    });
}

/// What the kernel said to each call in a guest of `runner`.
async fn verdicts(runner: &dyn GuestRunner, uid: u32) -> Option<BTreeMap<String, String>> {
    let guest = guest("calls", uid, "calls").await?;
    let lines = lines(runner, &guest).await;
    let split = |line: &String| line.rsplit_once(' ').map(|(name, said)| (name.to_owned(), said.to_owned()));
    Some(lines.iter().filter_map(split).collect())
}

/// Calls that every step needs.
const NEEDED: [&str; 6] =
    ["fork", "socket stream", "socket datagram", "socket unix", "socket netlink", "personality same"];

#[test]
fn forbidden_calls_are_refused_as_containers_refuse_them() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let Some(sandbox) = sandbox_in(folder.path()) else { return };
        let daemon = daemon().map(|socket| runner(&socket));
        for uid in USERS {
            let Some(ours) = verdicts(&sandbox, uid).await else { return };
            let theirs = match &daemon {
                Some(daemon) => verdicts(daemon, uid).await.unwrap_or_default(),
                None => BTreeMap::new(),
            };
            println!("{:24} {:10} buildkit, as {uid}", "call", "sandbox");
            let refused = |said: &str| ["EPERM", "ENOSYS"].contains(&said);
            let mut wrong = Vec::new();
            for (call, said) in &ours {
                let other = theirs.get(call).map_or("-", String::as_str);
                println!("{call:24} {said:10} {other}");
                let needed = NEEDED.contains(&call.as_str());
                let expected = match call.as_str() {
                    "chroot" if uid == 0 => said == "succeeds",
                    "clone3 user" | "newer than all" => said == "ENOSYS",
                    _ if needed => said == "succeeds",
                    _ => refused(said),
                };
                if !expected || (!needed && refused(other) && !refused(said)) {
                    wrong.push(call);
                }
            }
            assert!(ours.len() > 50 && wrong.is_empty(), "as {uid}: {wrong:?}");
        }
    });
}

#[test]
fn a_capability_opens_what_it_means_where_the_operator_allows_it() {
    on_farm(async |_| {
        let folder = tempfile::tempdir().unwrap();
        let mut options = sandbox_options(folder.path());
        options.extra_capabilities = true;
        let Some(runner) = sandbox(&options) else { return };
        let Some(mut guest) = guest("admin", 0, "descriptors").await else { return };
        guest.plan.capabilities.push("CAP_SYS_ADMIN".to_owned());
        guest.plan.steps[0].script = "\
            mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted\n\
            unshare -m true && echo unshared\nprobe calls | grep -e '^kcmp' -e '^socket packet '\n"
            .to_owned();
        let expected =
            ["mounted", "unshared", "kcmp EPERM", "socket packet EPERM", "socket packet datagram EPERM"];
        assert_eq!(lines(&runner, &guest).await, expected);
    });
}
