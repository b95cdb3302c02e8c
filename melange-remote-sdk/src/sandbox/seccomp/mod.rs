//! The filter of system calls that every step runs under: what containers may do, and no more.
//!
//! Two programs are loaded one after the other. The first lets the calls of the table pass and refuses all others
//! with EPERM. The second answers ENOSYS to what must look as if the kernel did not have it: calls that are newer
//! than this program, and `clone3`, whose flags lie in memory where no filter can read them. When both refuse, the
//! one loaded last decides the error.

use std::collections::BTreeMap;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use syscalls::Sysno;

use crate::error::{Error, Result};

mod table;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Flags of `clone` that make namespaces: cgroup, uts, ipc, user, process, network, mount.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Personalities that only change what `uname` tells or how a process is laid out: Linux, 32-bit `uname`, both
/// with the 2.6 version, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Socket families with their kinds. Streams and datagrams only: a raw or packet socket would see and forge what
/// others on the wire send, whatever capabilities say. AF_NETLINK takes any kind; it needs raw ones.
const SOCKETS: [(u64, Option<u64>); 6] = [
    (AF_UNIX, None),
    (AF_NETLINK, None),
    (AF_INET, Some(SOCK_STREAM)),
    (AF_INET, Some(SOCK_DGRAM)),
    (AF_INET6, Some(SOCK_STREAM)),
    (AF_INET6, Some(SOCK_DGRAM)),
];
const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const SOCK_STREAM: u64 = 1;
const SOCK_DGRAM: u64 = 2;
/// The bits of a socket's type that say its kind; the others are flags.
const SOCK_KIND: u64 = 0xf;

/// Both programs, in the order in which they are loaded, in the form that the kernel reads.
///
/// # Errors
/// `Unsupported` where there is no table for this machine.
pub(super) fn programs(capabilities: &[String]) -> Result<[Vec<u8>; 2]> {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    Ok([bytes(&allowed(&has)?), bytes(&unknown(!has("CAP_SYS_ADMIN"))?)])
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}

fn arch() -> Result<TargetArch> {
    std::env::consts::ARCH.try_into().map_err(failed)
}

fn failed(error: seccompiler::BackendError) -> Error {
    Error::unexpected("cannot make the filter of system calls").source(error)
}

/// A condition on the lower half of an argument, which is all that the kernel reads of these.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(failed)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(failed)
}

/// What may be called: by number, the argument conditions one of which must hold; none means any arguments.
fn rules(has: &dyn Fn(&str) -> bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules = BTreeMap::new();
    let mut put = |name: &str, list: Vec<SeccompRule>| {
        // A name that this machine does not have needs no rule.
        if let Ok(call) = Sysno::from_str(name) {
            rules.insert(i64::from(call.id()), list);
        }
    };
    let eq = || SeccompCmpOp::Eq;
    let personalities = PERSONALITIES.iter().map(|value| rule(vec![condition(0, eq(), *value)?]));
    put("personality", personalities.collect::<Result<_>>()?);
    let sockets = SOCKETS.iter().map(|(family, kind)| {
        let mut conditions = vec![condition(0, eq(), *family)?];
        if let Some(kind) = kind {
            conditions.push(condition(1, SeccompCmpOp::MaskedEq(SOCK_KIND), *kind)?);
        }
        rule(conditions)
    });
    put("socket", sockets.collect::<Result<_>>()?);
    put("socketpair", vec![rule(vec![condition(0, eq(), AF_UNIX)?])?]);
    put("clone", vec![rule(vec![condition(0, SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS), 0)?])?]);
    table::ALWAYS.iter().for_each(|name| put(name, Vec::new()));
    // Decided by the second program, which answers ENOSYS.
    put("clone3", Vec::new());
    for (capability, names) in table::WITH_CAPABILITY {
        if has(capability) {
            names.iter().for_each(|name| put(name, Vec::new()));
        }
    }
    Ok(rules)
}

fn allowed(has: &dyn Fn(&str) -> bool) -> Result<BpfProgram> {
    let refuse = SeccompAction::Errno(EPERM);
    let filter = SeccompFilter::new(rules(has)?, refuse, SeccompAction::Allow, arch()?).map_err(failed)?;
    filter.try_into().map_err(failed)
}

/// The second program. Ranges of numbers are nothing that `seccompiler` can say, so the few instructions stand
/// here; programs of another architecture were ended by the first.
fn unknown(without_clone3: bool) -> Result<BpfProgram> {
    use instruction::{JUMP_EQUAL, JUMP_GREATER, LOAD_WORD, NUMBER_OFFSET, RETURN, bpf};
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let number =
        |call: Sysno| u32::try_from(call.id()).map_err(|_| Error::unexpected("a negative system call"));
    let mut program = vec![bpf(LOAD_WORD, 0, 0, NUMBER_OFFSET)];
    if without_clone3 {
        program.push(bpf(JUMP_EQUAL, 2, 0, number(Sysno::clone3)?));
    }
    program.push(bpf(JUMP_GREATER, 1, 0, number(Sysno::last())?));
    program.push(bpf(RETURN, 0, 0, ALLOW));
    program.push(bpf(RETURN, 0, 0, ERRNO | ENOSYS));
    Ok(program)
}

/// The words of classic BPF that the second program is made of.
mod instruction {
    use seccompiler::sock_filter;

    /// Load a word of the call's description: BPF_LD, BPF_W, BPF_ABS.
    pub(super) const LOAD_WORD: u16 = 0x20;
    /// Jump when equal: BPF_JMP, BPF_JEQ, BPF_K.
    pub(super) const JUMP_EQUAL: u16 = 0x15;
    /// Jump when greater, without sign: BPF_JMP, BPF_JGT, BPF_K.
    pub(super) const JUMP_GREATER: u16 = 0x25;
    /// Return a constant: BPF_RET, BPF_K.
    pub(super) const RETURN: u16 = 0x06;
    /// Where the number of the call stands in its description.
    pub(super) const NUMBER_OFFSET: u32 = 0;

    pub(super) fn bpf(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code, jt, jf, k }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_name_of_the_table_is_a_call_of_some_machine_and_stands_once() {
        let of_other_machines = ["riscv_flush_icache", "riscv_hwprobe"];
        for name in table::ALWAYS {
            let known = Sysno::from_str(name).is_ok() || of_other_machines.contains(name);
            assert!(known || !cfg!(target_arch = "x86_64"), "{name}");
        }
        let mut names: Vec<&str> = table::ALWAYS.to_vec();
        names.sort_unstable();
        assert_eq!(names, table::ALWAYS, "sorted");
        names.dedup();
        assert_eq!(names.len(), table::ALWAYS.len());
        for (capability, names) in table::WITH_CAPABILITY {
            assert!(capability.starts_with("CAP_"));
            for name in *names {
                assert!(!table::ALWAYS.contains(name), "{name} needs no {capability}");
                assert!(Sysno::from_str(name).is_ok() || !cfg!(target_arch = "x86_64"), "{name}");
            }
        }
    }

    #[test]
    fn what_is_dangerous_has_no_rule_until_its_capability_is_held() {
        let number = |name: &str| i64::from(Sysno::from_str(name).unwrap().id());
        let none = rules(&|_| false).unwrap();
        let admin = rules(&|name| name == "CAP_SYS_ADMIN").unwrap();
        for name in ["mount", "umount2", "unshare", "setns", "bpf", "fsopen", "move_mount", "sethostname"] {
            assert!(!none.contains_key(&number(name)), "{name}");
            assert!(admin[&number(name)].is_empty(), "{name}");
        }
        for name in ["io_uring_setup", "kexec_load", "add_key", "keyctl", "userfaultfd", "swapon", "kcmp"] {
            assert!(!none.contains_key(&number(name)) && !admin.contains_key(&number(name)), "{name}");
        }
        assert_eq!(none[&number("clone")].len(), 1);
        assert!(admin[&number("clone")].is_empty());
        assert_eq!(none[&number("socket")].len(), SOCKETS.len());
    }

    /// Runs a program as the kernel does, on the number of a call alone.
    fn verdict(program: &[seccompiler::sock_filter], number: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            let jump = |taken: bool| at + 1 + usize::from(if taken { step.jt } else { step.jf });
            at = match step.code {
                instruction::LOAD_WORD => {
                    word = number;
                    at + 1
                }
                instruction::JUMP_EQUAL => jump(word == step.k),
                instruction::JUMP_GREATER => jump(word > step.k),
                instruction::RETURN => return step.k,
                code => panic!("{code:#x}"),
            };
        }
    }

    #[test]
    fn what_is_newer_than_the_table_does_not_exist() {
        let (closed, open) = (unknown(true).unwrap(), unknown(false).unwrap());
        let last = u32::try_from(Sysno::last().id()).unwrap();
        let clone3 = u32::try_from(Sysno::clone3.id()).unwrap();
        for (program, number, expected) in [
            (&closed, 0, 0x7fff_0000),
            (&closed, last, 0x7fff_0000),
            (&closed, last + 1, 0x0005_0026),
            (&closed, 0x4000_0000, 0x0005_0026),
            (&closed, u32::MAX, 0x0005_0026),
            (&closed, clone3, 0x0005_0026),
            (&open, clone3, 0x7fff_0000),
            (&open, last + 1, 0x0005_0026),
        ] {
            assert_eq!(verdict(program, number), expected, "{number:#x}");
        }
    }

    #[test]
    fn both_programs_are_whole_instructions() {
        for program in programs(&caps(&["CAP_CHOWN"])).unwrap() {
            assert!(!program.is_empty() && program.len().is_multiple_of(8) && program.len() / 8 < 4_096);
        }
    }
}
