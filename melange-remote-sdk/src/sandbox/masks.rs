//! What steps must not see or change of the kernel.

use std::path::Path;

/// An empty file and an empty folder in the guest's folder, which stand in for what is masked.
pub(super) const EMPTY_FILE: &str = "empty-file";
/// See [`EMPTY_FILE`].
pub(super) const EMPTY_FOLDER: &str = "empty-folder";

/// Masked in `/proc`: what container engines mask.
const MASKED: [&str; 11] = [
    "acpi",
    "asound",
    "dynamic_debug",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Read-only in `/proc`, whatever the modes in there say: what container engines keep read-only.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Masked in `/sys`.
const SYSTEM_MASKED: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];

/// What `/proc` and `/sys` must not give away or take, as bubblewrap's options.
///
/// The lists are those of container engines, and beyond them everything in `/proc` whose mode lets somebody write:
/// kernels differ in what they have there. Other files stay; root opens them for writing as it opens everything, and
/// the kernel has nothing that would take what is written. Each option costs a step some tenths of a millisecond.
pub(super) fn masks() -> Vec<String> {
    let mut options = Vec::new();
    let mut put = |words: [&str; 3]| options.extend(words.map(str::to_owned));
    for (path, name) in listed(Path::new("/proc")) {
        let Ok(found) = path.symlink_metadata() else { continue };
        // Processes see their own folders only, by the process namespace; links lead there.
        if found.is_symlink() || name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let writable = || {
            is_writable(&found) && !found.is_dir()
                || found.is_dir()
                    && listed(&path).iter().any(|(below, _)| below.metadata().is_ok_and(|m| is_writable(&m)))
        };
        let shown = path.display().to_string();
        match (MASKED.contains(&name.as_str()), found.is_dir()) {
            (true, true) => put(["--ro-bind", EMPTY_FOLDER, &shown]),
            (true, false) => put(["--ro-bind", EMPTY_FILE, &shown]),
            (false, _) if READ_ONLY.contains(&name.as_str()) || writable() => {
                put(["--ro-bind", &shown, &shown])
            }
            (false, _) => {}
        }
    }
    for path in SYSTEM_MASKED {
        if Path::new(path).is_dir() {
            put(["--ro-bind", EMPTY_FOLDER, path]);
        }
    }
    options
}

fn is_writable(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o222 != 0
}

/// What is in a folder, in the order of the names.
fn listed(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()));
    let mut found: Vec<_> = named.collect();
    found.sort();
    found
}
