//! The system calls that no build step has a use for: changing mounts and namespaces, the kernel, its keys and
//! its clock. They answer EPERM, as in a container.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::error::{Error, Result};

const REFUSED: [i64; 35] = [
    libc::SYS_fspick,
    libc::SYS_kexec_file_load,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_nfsservctl,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Writes the filter in the form that `bwrap --seccomp` reads; an empty file where there is none for this
/// machine.
pub(super) fn write(path: &Path) -> Result<()> {
    let program = program()?;
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in &program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    std::fs::write(path, bytes).map_err(|e| Error::io("write", path, e))
}

fn program() -> Result<BpfProgram> {
    let failed = |e: seccompiler::BackendError| Error::unexpected("cannot make the seccomp filter").source(e);
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let eperm = SeccompAction::Errno(1);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_whole_instructions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write(&path).unwrap();
        let size = std::fs::metadata(path).unwrap().len();
        assert!(size > 0 && size.is_multiple_of(8));
    }
}
