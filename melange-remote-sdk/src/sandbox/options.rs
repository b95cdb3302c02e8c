//! What an operator decides about the sandbox.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::protocol::Bounds;
use crate::cache::StateCache;
use crate::guest::GuestResources;
use crate::limits;

/// What an operator decides about the sandbox.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SandboxOptions {
    /// Unpacked root filesystems and running guests are kept below its folder, readable by nobody else; the former
    /// count against its bound.
    pub cache: Arc<StateCache>,
    /// Whether definitions may ask for capabilities beyond
    /// [`DEFAULT_CAPABILITIES`](crate::guest::DEFAULT_CAPABILITIES). As root these are the machine's own: only for
    /// definitions that are trusted with it.
    pub extra_capabilities: bool,
    /// The same for these capabilities alone, by their names, such as `CAP_SYS_ADMIN`.
    pub allowed_capabilities: Vec<String>,
    /// The program that calls [`run_if_asked`](super::run_if_asked) first in its `main`; `None` for this one.
    pub launcher: Option<PathBuf>,
    /// Whether a launcher waits for the next guest, which then starts tens of milliseconds earlier: for programs that
    /// run many. It is a process that does nothing, with one more for its network if the last guest had one.
    pub ready_launcher: bool,
    /// Ports of this machine's loopback that steps with network find on their own; otherwise they reach none.
    pub host_ports: Vec<u16>,
    /// A folder that all guests whose steps run as root find, and may write to, as `/var/cache/melange`; otherwise each
    /// has one of its own, which goes with it. What one build leaves there another one uses: only for definitions that are trusted with it.
    pub shared_cache: Option<PathBuf>,
    /// What one guest may use.
    pub bounds: SandboxBounds,
}

/// What one guest may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxBounds {
    /// Memory of all its processes, in bytes, and the most that a definition's `resources` can ask for; `None` for
    /// nine tenths of this machine's.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core, and the most that a definition's `resources` can ask for; `None` for all cores.
    pub cpu_millis: Option<u64>,
    /// Processes and threads at one time.
    pub processes: u64,
    /// What it writes to its tree, in bytes.
    pub tree_bytes: u64,
    /// The size of its `/dev/shm`, in bytes.
    pub shm_bytes: u64,
}

impl Default for SandboxBounds {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            cpu_millis: None,
            processes: limits::SANDBOX_PROCESSES,
            tree_bytes: limits::SANDBOX_TREE_BYTES,
            shm_bytes: limits::SANDBOX_SHM_BYTES,
        }
    }
}

impl SandboxOptions {
    /// A sandbox with its state below `state_dir`, bounded on its own: no further capabilities, no ports, default
    /// bounds.
    pub fn new(state_dir: impl AsRef<Path>) -> Self {
        Self::with_cache(StateCache::new(state_dir.as_ref(), limits::CACHE_BYTES_DEFAULT))
    }

    /// As [`Self::new`], with a cache that others use too, such as the
    /// [`Assembler`](crate::rootfs::Assembler) of the root filesystems.
    pub fn with_cache(cache: Arc<StateCache>) -> Self {
        Self {
            cache,
            extra_capabilities: false,
            allowed_capabilities: Vec::new(),
            launcher: None,
            ready_launcher: false,
            shared_cache: None,
            host_ports: Vec::new(),
            bounds: SandboxBounds::default(),
        }
    }
}

impl SandboxBounds {
    /// The bounds of a guest whose definition asks for `resources` and whose steps have so many bytes of environments,
    /// on a machine with that much memory.
    pub(super) fn of_guest(
        &self,
        resources: &GuestResources,
        environment_bytes: u64,
        machine_bytes: u64,
    ) -> Bounds {
        // The launcher has the environments in its memory, which counts too.
        let memory_min = environment_bytes.saturating_mul(2).saturating_add(limits::SANDBOX_MEMORY_BYTES_MIN);
        let memory_max = self.memory_bytes.unwrap_or(machine_bytes / 10 * 9);
        let cpu_millis = match (resources.cpu_millis, self.cpu_millis) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        };
        Bounds {
            memory_bytes: resources
                .memory_bytes
                .map_or(memory_max, |asked| asked.min(memory_max))
                .max(memory_min),
            cpu_millis,
            processes: self.processes,
            tree_bytes: resources.disk_bytes.map_or(self.tree_bytes, |asked| asked.min(self.tree_bytes)),
            shm_bytes: self.shm_bytes,
        }
    }
}

/// The machine's memory in bytes, from the text of `/proc/meminfo`.
pub(super) fn machine_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_lowers_bounds_and_never_raises_them() {
        let bounds = SandboxBounds { cpu_millis: Some(4_000), ..SandboxBounds::default() };
        let asked = |memory_bytes, cpu_millis| GuestResources { memory_bytes, cpu_millis, disk_bytes: None };
        let small = bounds.of_guest(&asked(Some(64 << 20), Some(500)), 0, 1_000 << 20);
        assert_eq!((small.memory_bytes, small.cpu_millis), (64 << 20, Some(500)));
        let tiny = bounds.of_guest(&asked(Some(8), None), 0, 1_000 << 20);
        assert_eq!(tiny.memory_bytes, limits::SANDBOX_MEMORY_BYTES_MIN);
        let large = bounds.of_guest(&asked(Some(1 << 40), Some(64_000)), 0, 1_000 << 20);
        assert_eq!((large.memory_bytes, large.cpu_millis), (900 << 20, Some(4_000)));
        let none = bounds.of_guest(&asked(None, None), 0, 1_000 << 20);
        assert_eq!((none.memory_bytes, none.tree_bytes), (900 << 20, limits::SANDBOX_TREE_BYTES));
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(machine_memory("MemTotal:       24683656 kB\nMemFree: 1 kB\n"), Some(24_683_656 << 10));
        assert_eq!(machine_memory("nothing"), None);
    }
}
