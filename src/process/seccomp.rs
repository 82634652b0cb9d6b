//! System calls, by seccomp: a worker keeps the few that computing needs, an executor loses those that it never needs.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use super::{ConfineError, Confinement, Role, Sockets};

/// System calls with conditions; without any, always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What an executor may make sockets of.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Namespaces: an executor starts processes, but none in a namespace of its own.
const NEW_NAMESPACES: libc::c_int =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;

/// What a worker keeps: its open socket, memory, signals to itself, time, its end. Anything else is answered EPERM.
const WORKER_KEEPS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_ppoll,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What an executor and the ssh that it starts never need: answered EPERM.
const EXECUTOR_LOSES: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// The same, where only some processors have them.
#[cfg(target_arch = "x86_64")]
const EXECUTOR_LOSES_HERE: &[libc::c_long] = &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const EXECUTOR_LOSES_HERE: &[libc::c_long] = &[];

/// On x86-64 every system call has a second number (the x32 one), which a list of what is denied must name too.
#[cfg(target_arch = "x86_64")]
const SECOND_NUMBER: Option<libc::c_long> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const SECOND_NUMBER: Option<libc::c_long> = None;

/// Restricts this process. Returns a sentence when this kernel or processor has no such filter.
///
/// # Errors
/// Seccomp is there, and refuses.
pub(super) fn restrict(confinement: &Confinement) -> Result<Option<String>, ConfineError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(Some("system calls of a confined process are not restricted: this processor is not supported".to_owned()));
    };
    let refused = |error: seccompiler::BackendError| ConfineError::Seccomp(error.to_string());
    for filter in filters(confinement, arch).map_err(refused)? {
        match seccompiler::apply_filter_all_threads(&filter) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error)) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                return Ok(Some("system calls of a confined process are not restricted: this kernel is built without seccomp filters".to_owned()));
            }
            Err(error) => return Err(ConfineError::Seccomp(error.to_string())),
        }
    }
    Ok(None)
}

type Filters = Result<Vec<BpfProgram>, seccompiler::BackendError>;

fn filters(confinement: &Confinement, arch: TargetArch) -> Filters {
    match confinement.role {
        Role::Worker => Ok(vec![keep(worker_rules()?, arch)?]),
        Role::Executor => Ok(vec![
            // clone3 takes its flags behind a pointer; told that it does not exist, the C library uses clone.
            deny([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS, arch)?,
            deny(socket_rules(confinement.sockets)?, libc::EAFNOSUPPORT, arch)?,
            deny(executor_rules()?, libc::EPERM, arch)?,
        ]),
    }
}

/// Only these calls.
fn keep(rules: Rules, arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM.cast_unsigned()), SeccompAction::Allow, arch)?.try_into()
}

/// All but these calls.
fn deny(mut rules: Rules, errno: libc::c_int, arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    if let Some(bit) = SECOND_NUMBER {
        let second: Rules = rules.iter().map(|(call, rules)| (call | bit, rules.clone())).collect();
        rules.extend(second);
    }
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()), arch)?.try_into()
}

fn worker_rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = WORKER_KEEPS.iter().map(|call| (*call, Vec::new())).collect();
    let executable = u64::from(libc::PROT_EXEC.cast_unsigned());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    // `abort` signals the own process; limits may be changed of no other.
    rules.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?]);
    rules.insert(libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Eq, 0)?]);
    Ok(rules)
}

fn executor_rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = EXECUTOR_LOSES.iter().chain(EXECUTOR_LOSES_HERE).map(|call| (*call, Vec::new())).collect();
    let flags = (0..libc::c_int::BITS).map(|bit| 1 << bit).filter(|flag| NEW_NAMESPACES & flag != 0);
    let flags = flags.map(|flag: libc::c_int| u64::from(flag.cast_unsigned()));
    rules.insert(libc::SYS_clone, flags.map(|flag| argument(0, SeccompCmpOp::MaskedEq(flag), flag)).collect::<Result<_, _>>()?);
    // Typing into the terminal that it was started from.
    rules.insert(libc::SYS_ioctl, vec![argument(1, SeccompCmpOp::Eq, libc::TIOCSTI)?]);
    Ok(rules)
}

fn socket_rules(sockets: Sockets) -> Result<Rules, seccompiler::BackendError> {
    let rules = match sockets {
        Sockets::None => Vec::new(),
        Sockets::Client => {
            let other = |family: &libc::c_int| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.cast_unsigned()));
            vec![SeccompRule::new(FAMILIES.iter().map(other).collect::<Result<_, _>>()?)?]
        }
    };
    Ok([(libc::SYS_socket, rules)].into())
}

/// A condition on one argument, of which the kernel uses the low 32 bits.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}
