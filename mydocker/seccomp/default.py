"""The filter that a container gets if nothing else is asked for: what Docker's default profile allows.

The facts are those of moby/profiles, seccomp/default.json: which system calls are allowed, to whom, and with which
arguments. Everything else fails with EPERM, and clone3 with ENOSYS, so that libc falls back to clone, whose flags a
filter can read. The profile is built in Docker's own form, with its conditions; `mydocker.seccomp.profile` resolves it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPERM, _ENOSYS = 1, 38

#: Allowed to everybody, whatever the arguments. A name that libseccomp or the architecture lacks is passed over.
_ALWAYS = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
munmap name_to_handle_at nanosleep _newselect newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat
rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area
set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
wait4 waitid waitpid write writev
"""

#: Not before this kernel, whose ptrace could be used to get past a filter (seccomp(2), "SECCOMP_RET_TRACE").
_SINCE = {"4.8": "process_vm_readv process_vm_writev ptrace"}

_ON = (
    ("ppc64le", "swapcontext sync_file_range2"),
    ("arm arm64", "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    ("amd64 x32", "arch_prctl"),
    ("amd64 x32 x86", "modify_ldt"),
    ("s390 s390x", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    ("riscv64", "riscv_flush_icache"),
)

_WITH = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
    "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
    "setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

#: PER_LINUX and PER_LINUX32, each with and without UNAME26, and the question which one is in force (personality(2)).
_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

#: Protocol families of socket(2): all below this one, and these. Not among them are AF_VSOCK, which leads to the
#: hypervisor, AF_ALG (CVE-2026-31431), and some whose code nobody looks after.
_FAMILIES_BELOW = 12
_FAMILIES = (13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45)

#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
_NEW_NAMESPACES = 0x7E020000

_SUB_ARCHITECTURES = {
    "X86_64": "X86 X32",
    "AARCH64": "ARM",
    "MIPS64": "MIPS MIPS64N32",
    "MIPS64N32": "MIPS MIPS64",
    "MIPSEL64": "MIPSEL MIPSEL64N32",
    "MIPSEL64N32": "MIPSEL MIPSEL64",
    "S390X": "S390",
    "RISCV64": "",
    "LOONGARCH64": "",
}


def profile() -> dict[str, Any]:
    """The profile as Docker would read it from a file."""
    rules = [_allow(_ALWAYS)]
    rules += [_allow(names, includes={"minKernel": kernel}) for kernel, names in _SINCE.items()]
    rules += [_allow("socket", _compare("LT", _FAMILIES_BELOW))]
    rules += [_allow("socket", _compare("EQ", family)) for family in _FAMILIES]
    rules += [_allow("personality", _compare("EQ", value)) for value in _PERSONALITIES]
    rules += [_allow(names, includes={"arches": machines.split()}) for machines, names in _ON]
    rules += [_allow(names, includes={"caps": [capability]}) for capability, names in _WITH.items()]
    # The first argument of clone, and on s390 the second, has the flags.
    s390 = ["s390", "s390x"]
    without = ["CAP_SYS_ADMIN"]
    threads = _compare("MASKED_EQ", _NEW_NAMESPACES)
    rules += [_allow("clone", threads, excludes={"caps": without, "arches": s390})]
    rules += [_allow("clone", {**threads, "index": 1}, includes={"arches": s390}, excludes={"caps": without})]
    refused = {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS, "excludes": {"caps": without}}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "archMap": [
            {"architecture": f"SCMP_ARCH_{name}", "subArchitectures": [f"SCMP_ARCH_{sub}" for sub in others.split()]}
            for name, others in _SUB_ARCHITECTURES.items()
        ],
        "syscalls": [*rules, refused],
    }


def _allow(names: str, *comparisons: dict[str, Any], **conditions: dict[str, Any]) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", "args": list(comparisons), **conditions}


def _compare(operator: str, value: int) -> dict[str, Any]:
    return {"index": 0, "value": value, "op": f"SCMP_CMP_{operator}"}
