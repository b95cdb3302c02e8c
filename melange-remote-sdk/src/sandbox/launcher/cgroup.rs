//! The bounds that the kernel's control groups keep: memory, processes, processor time.
//!
//! What a guest's steps run in is born in a group of its own. Both versions of the interface are used, where this user
//! may write to them; elsewhere resource limits stand in, which count each process by itself.
//!
//! A process that joins a group waits until the kernel has heard of all processors, some 10 ms. A single thread does
//! not, and its children are born where it is; only version 1 has groups of threads that bound memory, though. So
//! there the launcher's main thread joins, whose memory is all of the launcher's, and in version 2 the whole process.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use super::{Result, failed};
use crate::sandbox::protocol::Bounds;

/// How the names of all groups begin.
const PREFIX: &str = "melange-guest-";
/// The period over which processor time is shared out, in microseconds: the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// Tries of removing a group before the whole launcher leaves it, which makes every start of a process wait for a moment.
const REMOVALS_BEFORE: u32 = 10;
/// Tries of removing a group in all: processes with much memory take a moment to be gone.
const REMOVALS_MAX: u32 = 1_000;
/// Tries of making and joining a group, which an engine that starts may sweep away in between.
const JOINS_MAX: u32 = 3;
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
    made: Vec<Group>,
    memory: Option<MemoryFiles>,
    processes: Option<PathBuf>,
}

/// A group that this process, or its main thread, is in.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    hierarchy: Hierarchy,
}

/// The memory controller's files that count.
#[derive(Debug)]
struct MemoryFiles {
    /// What the kernel killed in the group, for want of memory anywhere.
    killed: PathBuf,
    /// What tells whether the group's own bound was reached: in version 1 the most bytes that it used at a time, which
    /// is a guess, because files that were read count too; in version 2 how often that ended in want of memory.
    most: PathBuf,
    /// The most bytes that it used at a time; kernels before 5.19 have no such file in version 2.
    peak: PathBuf,
    bytes_max: u64,
}

impl MemoryFiles {
    fn counts(&self) -> Counts {
        Counts {
            killed: count(&read(&self.killed), "oom_kill"),
            is_memory_used_up: is_used_up(&read(&self.most), self.bytes_max),
            processes: 0,
        }
    }
}

/// How often bounds were met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    killed: u64,
    /// Whether the guest's own bound was reached, ever: its files stay in memory from one step to the next.
    is_memory_used_up: bool,
    processes: u64,
}

/// What ended a step, or may have.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Met {
    /// Its bound of memory, in words.
    Memory(String),
    /// Its bound of processes, in words.
    Processes(String),
    /// The kernel killed one of its processes, and the guest had less than its bound.
    MachineMemory,
}

impl Counts {
    /// What was met since an earlier count.
    pub(super) fn met_since(self, before: Self, bounds: &Bounds) -> Option<Met> {
        let processes = || {
            let words = format!("it started more than {} processes and threads", bounds.processes);
            (self.processes > before.processes).then_some(Met::Processes(words))
        };
        self.memory_met_since(before, bounds.memory_bytes).or_else(processes)
    }

    fn memory_met_since(self, before: Self, bytes_max: u64) -> Option<Met> {
        let words = || format!("killed: it used more than {} MiB of memory", bytes_max >> 20);
        let met = || if self.is_memory_used_up { Met::Memory(words()) } else { Met::MachineMemory };
        (self.killed > before.killed).then(met)
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

    /// The group of the guest of this name.
    fn of_guest(&self, name: &OsStr) -> PathBuf {
        let mut folder = OsString::from(PREFIX);
        folder.push(name);
        self.place().join(folder)
    }
}

fn here() -> Vec<Hierarchy> {
    hierarchies(&read(Path::new("/proc/self/mountinfo")), &read(Path::new("/proc/self/cgroup")))
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

/// Removes the groups of this name, whose launcher is gone, and ends what is in them: bubblewrap outlives its launcher
/// when that is killed before it has begun.
pub(super) fn remove(name: &OsStr) {
    for hierarchy in here() {
        let folder = hierarchy.of_guest(name);
        // Where groups cannot be written to, the kernel does not tell of one to remove that it is not there.
        if !folder.exists() {
            continue;
        }
        for _ in 0..REMOVALS_MAX {
            for member in read(&folder.join(MEMBERS)).lines() {
                if let Some(process) = member.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            // One that stays is swept when an engine starts.
            if is_removed(&folder, 1) {
                break;
            }
        }
    }
}

/// Whether the kernel killed a process of the guest of this name, whose launcher is gone, for want of memory.
pub(super) fn memory_met(name: &OsStr) -> Option<Met> {
    here().into_iter().find_map(|hierarchy| {
        let group = Group { folder: hierarchy.of_guest(name), hierarchy };
        let bound = if group.hierarchy.unified { "memory.max" } else { "memory.limit_in_bytes" };
        let bound = fs::read_to_string(group.folder.join(bound)).ok()?;
        let memory = group.memory_files(bound.trim().parse().ok()?);
        memory.counts().memory_met_since(Counts::default(), memory.bytes_max)
    })
}

impl Groups {
    /// Joins new groups of this name, with the calling thread at least: what it starts from now on is in them.
    pub(super) fn join(name: &OsStr) -> Self {
        let mut groups = Self::default();
        for hierarchy in here() {
            if hierarchy.unified {
                for controller in ["+memory", "+pids", "+cpu"] {
                    // Already there, not built in, or not ours to switch on: the group's own list tells.
                    let _ = fs::write(hierarchy.place().join("cgroup.subtree_control"), controller);
                }
            }
            let group = Group { folder: hierarchy.of_guest(name), hierarchy };
            if !group.is_bounded_by_none() && group.is_joined() {
                groups.made.push(group);
            }
        }
        groups
    }

    /// Sets the bounds. What no group can keep becomes a resource limit.
    pub(super) fn bound(&mut self, bounds: &Bounds) -> Result<()> {
        for group in &self.made {
            let (memory, processes) = group.bound(bounds)?;
            if memory {
                self.memory = Some(group.memory_files(bounds.memory_bytes));
            }
            if processes {
                self.processes = Some(group.folder.clone());
            }
        }
        if self.memory.is_none() {
            limit(Resource::Data, bounds.memory_bytes)?;
        }
        if self.processes.is_none() {
            limit(Resource::Nproc, bounds.processes)?;
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.memory.as_ref().map(MemoryFiles::counts).unwrap_or_default();
        if let Some(folder) = &self.processes {
            counts.processes = count(&read(&folder.join("pids.events")), "max");
        }
        counts
    }

    /// The most bytes of memory that the guest used at a time so far, files that it read included; `None` where nobody
    /// counts.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        read(&self.memory.as_ref()?.peak).trim().parse().ok()
    }

    /// Goes back to where the launcher came from and removes the groups, which no process of the guest is in any
    /// more.
    pub(super) fn leave(self) {
        for Group { folder, hierarchy } in self.made {
            // Only version 1 has this file.
            let left = fs::write(hierarchy.own.join(THREADS), "0").is_ok();
            if !left || !is_removed(&folder, REMOVALS_BEFORE) {
                // What cannot be removed now is swept when an engine starts.
                let _ = fs::write(hierarchy.own.join(MEMBERS), "0");
                is_removed(&folder, REMOVALS_MAX);
            }
        }
    }
}

impl Group {
    /// Whether no controller of the hierarchy bounds anything.
    fn is_bounded_by_none(&self) -> bool {
        let of_group;
        let controllers: Vec<&str> = if self.hierarchy.unified {
            of_group = fs::read_to_string(self.hierarchy.place().join("cgroup.subtree_control"));
            of_group.as_deref().unwrap_or_default().split_whitespace().collect()
        } else {
            self.hierarchy.controllers.iter().map(String::as_str).collect()
        };
        !controllers.iter().any(|name| ["memory", "pids", "cpu"].contains(name))
    }

    /// Makes the group and puts the calling thread in it, if this user may.
    fn is_joined(&self) -> bool {
        let members = if self.hierarchy.unified { MEMBERS } else { THREADS };
        for _ in 0..JOINS_MAX {
            if fs::create_dir(&self.folder).is_err_and(|error| error.kind() != ErrorKind::AlreadyExists) {
                return false;
            }
            if self.write(members, "0").is_ok() {
                return true;
            }
        }
        let _ = fs::remove_dir(&self.folder);
        false
    }

    /// The files that count, of a group with this bound on memory.
    fn memory_files(&self, bytes_max: u64) -> MemoryFiles {
        let [killed, most, peak] = if self.hierarchy.unified {
            ["memory.events", "memory.events", "memory.peak"]
        } else {
            ["memory.oom_control", "memory.max_usage_in_bytes", "memory.max_usage_in_bytes"]
        };
        let [killed, most, peak] = [killed, most, peak].map(|name| self.folder.join(name));
        MemoryFiles { killed, most, peak, bytes_max }
    }

    /// Sets what its controllers bound; tells whether memory and processes are.
    fn bound(&self, bounds: &Bounds) -> Result<(bool, bool)> {
        let quota = bounds.cpu_millis.map(quota_micros);
        let memory = bounds.memory_bytes.to_string();
        let bound_processes = || self.put("pids.max", &bounds.processes.to_string());
        if self.hierarchy.unified {
            if let Some(quota) = quota {
                self.try_to_put("cpu.max", &format!("{quota} {PERIOD_MICROS}"));
            }
            // A bound on memory that may go to the disk is none; kernels without swap have no such file.
            self.try_to_put("memory.swap.max", "0");
            return Ok((self.put("memory.max", &memory)?, bound_processes()?));
        }
        if let Some(quota) = quota {
            // Refused where a group above has less, which then bounds the guest too.
            self.try_to_put("cpu.cfs_quota_us", &quota.to_string());
        }
        let has_memory = self.put("memory.limit_in_bytes", &memory)?;
        if has_memory {
            self.try_to_put("memory.memsw.limit_in_bytes", &memory);
        }
        Ok((has_memory, bound_processes()?))
    }

    /// Writes one of the group's files; `false` when there is none, because the group has not the controller.
    fn put(&self, file: &str, value: &str) -> Result<bool> {
        match self.write(file, value) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(format!("set the guest's {file} to {value}"))(error)),
        }
    }

    fn try_to_put(&self, file: &str, value: &str) {
        let _ = self.write(file, value);
    }

    /// Nothing is created: the kernel's answer to that does not tell whether the file is there.
    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        let mut file = fs::File::options().write(true).open(self.folder.join(file))?;
        file.write_all(value.as_bytes())
    }
}

/// Removes a group; threads that were in it may take a moment to be gone.
fn is_removed(folder: &Path, tries: u32) -> bool {
    (0..tries).any(|_| {
        let removed =
            fs::remove_dir(folder).map_or_else(|error| error.kind() == ErrorKind::NotFound, |()| true);
        if !removed {
            std::thread::sleep(REMOVAL_PAUSE);
        }
        removed
    })
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn quota_micros(millis: u64) -> u64 {
    // The kernel takes no less than a millisecond a period.
    (millis.saturating_mul(PERIOD_MICROS) / 1_000).max(1_000)
}

/// Whether a group was at its bound on memory, from the most that it used or from its list of events.
fn is_used_up(most: &str, bytes_max: u64) -> bool {
    // The kernel takes memory in larger pieces than it accounts, so the last of them may be missing.
    let is_near = |bytes: u64| bytes >= bytes_max - bytes_max / 16;
    most.trim().parse().map_or_else(|_| count(most, "oom") > 0, is_near)
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
        let met = |killed, is_memory_used_up, processes| {
            Counts { killed, is_memory_used_up, processes }.met_since(Counts::default(), &bounds)
        };
        let words = "killed: it used more than 256 MiB of memory".to_owned();
        assert_eq!(met(1, true, 1), Some(Met::Memory(words)));
        assert_eq!(met(1, false, 1), Some(Met::MachineMemory));
        let words = "it started more than 7 processes and threads".to_owned();
        assert_eq!(met(0, true, 1), Some(Met::Processes(words)));
        assert_eq!(met(0, true, 0), None);
        assert!(
            is_used_up("4096\n", 4_096) && is_used_up("low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n", 4_096)
        );
        assert!(
            !is_used_up("1024\n", 4_096) && !is_used_up("low 0\nhigh 0\nmax 7\noom 0\noom_kill 1\n", 4_096)
        );
        assert_eq!(quota_micros(2_500), 250_000);
        assert_eq!(quota_micros(1), 1_000);
    }
}
