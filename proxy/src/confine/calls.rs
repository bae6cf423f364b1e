//! seccomp: the system calls that a sidecar makes, and no others.
//!
//! Three filters, of which the strictest answer counts. What nobody but an attacker asks for ends the process; what is not on
//! the list fails with EPERM, so that a library that tries something new goes on without it; and `clone3`, whose flags no
//! filter can see, is answered as by a kernel that has none, so that threads are made by `clone`.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Leaves only these.
pub(super) fn restrict() -> Result<String, String> {
    let filters = filters().map_err(|error| error.to_string())?;
    for filter in &filters {
        seccompiler::apply_filter_all_threads(filter).map_err(|error| error.to_string())?;
    }
    Ok(format!("{} calls", allowed().count() + PARTLY))
}

fn filters() -> Result<[BpfProgram; 3], BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let always = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    let filter = |rules, otherwise, then| SeccompFilter::new(rules, otherwise, then, arch)?.try_into();
    let mut known: BTreeMap<c_long, Vec<SeccompRule>> = allowed().map(|call| (call, Vec::new())).collect();
    known.extend(partly()?);
    // The list comes last: another filter is not on it.
    Ok([
        filter(always(HOSTILE), SeccompAction::Allow, SeccompAction::KillProcess)?,
        filter(always(&[libc::SYS_clone3]), SeccompAction::Allow, absent)?,
        filter(known, refused, SeccompAction::Allow)?,
    ])
}

/// Calls that are made with some arguments only.
fn partly() -> Result<[(c_long, Vec<SeccompRule>); PARTLY], BackendError> {
    let dword = |argument, is, value: u64| SeccompCondition::new(argument, Length::Dword, is, value);
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let family = |family: libc::c_int| rule(vec![dword(0, Is::Eq, unsigned(family))?]);
    // The C library asks the kernel for this host's addresses before it sorts those of a name.
    let routes = rule(vec![dword(0, Is::Eq, unsigned(libc::AF_NETLINK))?, dword(2, Is::Eq, 0)?])?;
    let thread = unsigned(libc::CLONE_THREAD);
    let mut options = Vec::new();
    for option in OPTIONS {
        options.push(rule(vec![dword(0, Is::Eq, unsigned(*option))?])?);
    }
    Ok([
        (
            libc::SYS_socket,
            vec![family(libc::AF_UNIX)?, family(libc::AF_INET)?, family(libc::AF_INET6)?, routes],
        ),
        // A thread, and no process.
        (libc::SYS_clone, vec![rule(vec![dword(0, Is::MaskedEq(thread), thread)?])?]),
        // Whether a process is there.
        (libc::SYS_kill, vec![rule(vec![dword(1, Is::Eq, 0)?])?]),
        (libc::SYS_prlimit64, vec![rule(vec![dword(0, Is::Eq, 0)?])?]),
        (libc::SYS_prctl, options),
        // No memory is both written and run.
        (libc::SYS_mprotect, vec![rule(vec![dword(2, Is::MaskedEq(unsigned(libc::PROT_EXEC)), 0)?])?]),
    ])
}

fn allowed() -> impl Iterator<Item = c_long> {
    [FILES, EVENTS, NETWORK, MEMORY, THREADS, HERE].into_iter().flatten().copied()
}

/// The kernel has a number where the library has an integer with a sign.
fn unsigned(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// Calls that `partly` has a rule for.
const PARTLY: usize = 6;

/// The names of threads and of memory; what is read and given up already.
const OPTIONS: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
];

/// Which of these is possible Landlock decides.
const FILES: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_ioctl,
    libc::SYS_umask,
];

const EVENTS: &[c_long] = &[
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

const NETWORK: &[c_long] = &[
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
];

const MEMORY: &[c_long] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
];

const THREADS: &[c_long] = &[
    // Answered by a filter of its own.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_futex,
    SYS_FUTEX_WAKE,
    SYS_FUTEX_WAIT,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Of this process's own threads: what ends a program that fails.
    libc::SYS_tgkill,
];

/// What a process asks about itself and its host.
const HERE: &[c_long] = &[
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_times,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getrlimit,
];

/// Nothing in a sidecar asks for these: other programs, other processes, other namespaces, the kernel itself.
const HOSTILE: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// The same number everywhere since Linux 6.7; the C library names them not.
const SYS_FUTEX_WAKE: c_long = 454;
const SYS_FUTEX_WAIT: c_long = 455;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_for_this_machine_and_fit_into_the_kernel() {
        let filters = filters().unwrap();

        assert!(filters.iter().all(|filter| (1..=MOST).contains(&filter.len())), "{}", filters[2].len());
    }

    #[test]
    fn nothing_that_ends_the_process_is_on_the_list() {
        assert!(allowed().all(|call| !HOSTILE.contains(&call)));
        assert!(partly().unwrap().iter().all(|(call, _)| !HOSTILE.contains(call)));
    }

    #[test]
    fn what_is_looked_at_by_its_arguments_is_not_let_through_without() {
        assert!(partly().unwrap().iter().all(|(call, _)| allowed().all(|other| other != *call)));
    }

    #[test]
    fn no_new_program_process_or_socket_of_another_kind_is_on_the_list() {
        for call in
            [libc::SYS_execve, libc::SYS_clone, libc::SYS_socket, libc::SYS_io_uring_setup, libc::SYS_setuid]
        {
            assert!(allowed().all(|other| other != call), "{call}");
        }
    }

    /// Instructions that the kernel takes.
    const MOST: usize = 4096;
}
