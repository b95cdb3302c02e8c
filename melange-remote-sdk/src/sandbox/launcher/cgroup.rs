//! The bounds that the kernel's control groups keep: memory, processes, processor time.
//!
//! What a guest's steps run in is born in a group of its own. Both versions of the interface are used, where this user
//! may write to them; elsewhere resource limits stand in, which count each process by itself.
//!
//! A process that joins a group waits until the kernel has heard of all processors, some 10 ms. A single thread does
//! not, and its children are born where it is; only version 1 has groups of threads that bound memory, though. So
//! there the launcher's main thread joins, whose memory is all of the launcher's, and in version 2 the whole process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Result, failed};
use crate::sandbox::protocol::Bounds;

/// How the names of all groups begin.
const PREFIX: &str = "melange-guest-";
/// The period over which processor time is shared out, in microseconds: the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// Tries of removing a group before the launcher leaves it, which makes every start of a process wait for a moment.
const REMOVALS_MAX: u32 = 10;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);
/// The file that lists a group's threads and takes new ones, in version 1.
const THREADS: &str = "tasks";
/// The file that lists a group's processes and takes new ones.
const MEMBERS: &str = "cgroup.procs";

/// One hierarchy of groups.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Whether it is the unified one.
    unified: bool,
    /// The controllers that version 1 mounted here.
    controllers: Vec<String>,
    /// The group of this process.
    own: PathBuf,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
}

/// The groups of one guest.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The memory controller's folder and the file that counts what it killed.
    memory: Option<(PathBuf, &'static str)>,
    processes: Option<PathBuf>,
    /// Every folder made, with the group that this process came from.
    made: Vec<(PathBuf, PathBuf)>,
}

/// How often bounds were met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    memory: u64,
    processes: u64,
}

impl Counts {
    /// What was met since an earlier count, in words.
    pub(super) fn met_since(self, before: Self, bounds: &Bounds) -> Option<String> {
        if self.memory > before.memory {
            return Some(format!("killed: it used more than {} MiB of memory", bounds.memory_bytes >> 20));
        }
        (self.processes > before.processes)
            .then(|| format!("it started more than {} processes and threads", bounds.processes))
    }
}

/// The hierarchies that this process belongs to, from what the kernel lists.
fn hierarchies(mounts: &str, memberships: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let (front, back): (Vec<&str>, Vec<&str>) = (front.split(' ').collect(), back.split(' ').collect());
        let ([_, _, _, root, mount, ..], [kind, _, options, ..]) = (front.as_slice(), back.as_slice()) else {
            continue;
        };
        let unified = *kind == "cgroup2";
        if !unified && *kind != "cgroup" {
            continue;
        }
        let controllers: Vec<String> = options.split(',').map(str::to_owned).collect();
        let member = memberships.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            let same = if unified {
                names.is_empty()
            } else {
                !names.is_empty()
                    && names.split(',').all(|name| controllers.iter().any(|known| known == name))
            };
            same.then_some(path)
        });
        let Some(inside) = member.and_then(|path| Path::new(path).strip_prefix(root).ok()) else { continue };
        let mount = PathBuf::from(mount);
        found.push(Hierarchy { unified, controllers, own: mount.join(inside), mount });
    }
    found
}

impl Hierarchy {
    /// Where groups of guests are made. In the unified hierarchy a group with processes has no groups below it, so
    /// they stand beside this process's own.
    fn place(&self) -> &Path {
        let beside = self.unified && self.own != self.mount;
        if beside { self.own.parent().unwrap_or(&self.mount) } else { &self.own }
    }
}

fn here() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// Removes the groups that killed engines left; one that is in use stays.
pub(super) fn sweep() {
    for hierarchy in here() {
        for entry in fs::read_dir(hierarchy.place()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // The kernel refuses to remove a group with processes.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Groups {
    /// Joins groups with these bounds, with the calling thread at least: what it starts from now on is in them.
    /// Bounds that no group can keep become resource limits.
    pub(super) fn join(name: &str, bounds: &Bounds) -> Result<Self> {
        let mut groups = Self::default();
        for hierarchy in here() {
            let folder = hierarchy.place().join(format!("{PREFIX}{name}"));
            if hierarchy.unified {
                groups.join_unified(&hierarchy, folder, bounds);
            } else {
                groups.join_separate(&hierarchy, folder, bounds);
            }
        }
        if groups.memory.is_none() {
            limit(Resource::Data, bounds.memory_bytes)?;
        }
        if groups.processes.is_none() {
            limit(Resource::Nproc, bounds.processes)?;
        }
        Ok(groups)
    }

    fn enter(&mut self, hierarchy: &Hierarchy, folder: &Path) -> bool {
        let members = if hierarchy.unified { MEMBERS } else { THREADS };
        let entered = fs::write(folder.join(members), "0").is_ok();
        if entered {
            self.made.push((folder.to_owned(), hierarchy.own.clone()));
        } else {
            let _ = fs::remove_dir(folder);
        }
        entered
    }

    fn join_unified(&mut self, hierarchy: &Hierarchy, folder: PathBuf, bounds: &Bounds) {
        for controller in ["+memory", "+pids", "+cpu"] {
            // Already there, not built in, or not ours to switch on: the files below tell.
            let _ = fs::write(hierarchy.place().join("cgroup.subtree_control"), controller);
        }
        if fs::create_dir(&folder).is_err() {
            return;
        }
        let put = |file: &str, value: String| fs::write(folder.join(file), value).is_ok();
        let memory = put("memory.max", bounds.memory_bytes.to_string());
        // A bound on memory that may go to the disk is none; kernels without swap have no such file.
        put("memory.swap.max", "0".to_owned());
        let processes = put("pids.max", bounds.processes.to_string());
        if let Some(quota) = bounds.cpu_millis.map(quota_micros) {
            put("cpu.max", format!("{quota} {PERIOD_MICROS}"));
        }
        if !(memory || processes) {
            let _ = fs::remove_dir(&folder);
        } else if self.enter(hierarchy, &folder) {
            self.memory = memory.then(|| (folder.clone(), "memory.events")).or_else(|| self.memory.take());
            self.processes = processes.then_some(folder).or_else(|| self.processes.take());
        }
    }

    fn join_separate(&mut self, hierarchy: &Hierarchy, folder: PathBuf, bounds: &Bounds) {
        let has = |name: &str| hierarchy.controllers.iter().any(|known| known == name);
        let quota = bounds.cpu_millis.map(quota_micros).filter(|_| has("cpu"));
        if !(has("memory") || has("pids") || quota.is_some()) || fs::create_dir(&folder).is_err() {
            return;
        }
        let put = |file: &str, value: u64| fs::write(folder.join(file), value.to_string()).is_ok();
        let memory = has("memory") && put("memory.limit_in_bytes", bounds.memory_bytes);
        if memory {
            put("memory.memsw.limit_in_bytes", bounds.memory_bytes);
        }
        let processes = has("pids") && put("pids.max", bounds.processes);
        let shared = quota.is_some_and(|quota| put("cpu.cfs_quota_us", quota));
        if !(memory || processes || shared) {
            let _ = fs::remove_dir(&folder);
        } else if self.enter(hierarchy, &folder) {
            self.memory =
                memory.then(|| (folder.clone(), "memory.oom_control")).or_else(|| self.memory.take());
            self.processes = processes.then_some(folder).or_else(|| self.processes.take());
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |folder: &Path, file: &str, word: &str| {
            count(&fs::read_to_string(folder.join(file)).unwrap_or_default(), word)
        };
        Counts {
            memory: self.memory.as_ref().map_or(0, |(folder, file)| read(folder, file, "oom_kill")),
            processes: self.processes.as_ref().map_or(0, |folder| read(folder, "pids.events", "max")),
        }
    }

    /// Goes back to where the launcher came from and removes the groups, which no process of the guest is in any
    /// more.
    pub(super) fn leave(self) {
        for (folder, origin) in self.made {
            // Only version 1 has this file.
            let left = fs::write(origin.join(THREADS), "0").is_ok() && is_removed(&folder);
            if !left {
                // What cannot be removed now is swept when an engine starts.
                let _ = fs::write(origin.join(MEMBERS), "0");
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// Removes a group; threads that were in it may take a moment to be gone.
fn is_removed(folder: &Path) -> bool {
    (0..REMOVALS_MAX).any(|_| {
        let removed = fs::remove_dir(folder).is_ok();
        if !removed {
            std::thread::sleep(REMOVAL_PAUSE);
        }
        removed
    })
}

fn quota_micros(millis: u64) -> u64 {
    // The kernel takes no less than a millisecond a period.
    (millis.saturating_mul(PERIOD_MICROS) / 1_000).max(1_000)
}

/// The number behind a word that begins a line.
fn count(text: &str, word: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == word)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

fn limit(resource: Resource, value: u64) -> Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let value = maximum.map_or(value, |maximum| maximum.min(value));
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(failed("set a limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_both_versions() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "4:memory:/docker/a/job\n1:cpu,cpuacct:/x\n2:pids:/\n0::/system.slice/farm.service\n";
        let found = hierarchies(mounts, own);
        let places: Vec<&Path> = found.iter().map(Hierarchy::place).collect();
        assert_eq!(
            places,
            [
                Path::new("/sys/fs/cgroup/cpu/x"),
                Path::new("/sys/fs/cgroup/memory/job"),
                Path::new("/sys/fs/cgroup/unified/system.slice")
            ]
        );
    }

    #[test]
    fn counts_are_read_by_name_and_told_in_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!((count(text, "oom_kill"), count(text, "max")), (3, 0));
        let bounds =
            Bounds { memory_bytes: 256 << 20, cpu_millis: None, processes: 7, tree_bytes: 1, shm_bytes: 1 };
        let met = |memory, processes| Counts { memory, processes }.met_since(Counts::default(), &bounds);
        assert_eq!(met(1, 1).unwrap(), "killed: it used more than 256 MiB of memory");
        assert_eq!(met(0, 1).unwrap(), "it started more than 7 processes and threads");
        assert_eq!(met(0, 0), None);
        assert_eq!(quota_micros(2_500), 250_000);
        assert_eq!(quota_micros(1), 1_000);
    }
}
