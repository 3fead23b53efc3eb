"""Clone, pidfds, prctl, descriptors: what concerns one process."""

from __future__ import annotations

import _thread
import os
import struct
import sys

from mydocker.linux.libc import (
    addressof,
    architecture_number,
    c_char_p,
    c_int,
    c_long,
    c_size_t,
    c_uint,
    c_ulong,
    create_string_buffer,
    function,
    system_call,
)

CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_NEWTIME = 0x00000080
_CLONE_INTO_CGROUP = 0x200000000

SIGCHLD = 17

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

KEYCTL_JOIN_SESSION_KEYRING = 1
_RT_SIGTIMEDWAIT = architecture_number(128, 137)

_clone3 = system_call(435, c_char_p, c_size_t)
_close_range = system_call(436, c_uint, c_uint, c_uint)
_pidfd_getfd = system_call(438, c_int, c_int, c_uint)
_keyctl = system_call(architecture_number(250, 219), c_int, c_long)
_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_unshare = function("unshare", c_int)
_setns = function("setns", c_int, c_int)
_sethostname = function("sethostname", c_char_p, c_size_t)
_setdomainname = function("setdomainname", c_char_p, c_size_t)

_filters = _thread.allocate_lock()


def clone(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """clone3(2): (PID, pidfd) of the child in the parent, (0, -1) in the child. As fork, nothing is shared.

    ``cgroup``: descriptor of the v2 cgroup in which the child begins; -1 for this process's own. Only for a process
    with one thread: libc's own locks are not made ready for it, as fork does.
    """
    pidfd = c_int(-1)
    args = _clone_args(flags, pidfd, cgroup)
    pid = _clone3(args, len(args))
    return (pid, pidfd.value) if pid else (0, -1)


def clone_to_work_off(flags: int, address: int, count: int, slots: int) -> tuple[int, int]:
    """`clone`, in the parent, of a child that does what `batch.clone_to_work_off` says."""
    from mydocker.linux import batch  # most have no use for it

    pidfd = c_int(-1)
    return batch.clone_to_work_off(_clone_args(flags, pidfd), address, count, slots), pidfd.value


def _clone_args(flags: int, pidfd: c_int, cgroup: int = -1) -> bytes:
    exit_signal = 0 if flags & CLONE_PARENT else SIGCHLD  # with CLONE_PARENT it is the caller's (clone(2))
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup
    place = 0
    if cgroup >= 0:
        flags |= _CLONE_INTO_CGROUP
        place = cgroup
    return struct.pack("=11Q", flags | CLONE_PIDFD, addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, place)


def fork() -> int:
    """fork(2) with the interpreter and libc made ready for it, from a process with threads.

    Not by libc's fork and the functions that surround it in ``os.fork``: between them the child would run
    bytecode, and there it waits for ever if another thread had asked for the interpreter's lock. Python 3.12 and
    later warn about any fork with threads; the child here only clones and exits.
    """
    if sys.version_info < (3, 12):
        return os.fork()
    import warnings

    # catch_warnings puts back the filters that it found: of two threads at once, the second would keep the first's.
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def single_threaded() -> bool:
    """Whether this process has one thread only, threads that Python does not know of included."""
    return len(os.listdir("/proc/self/task")) == 1


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace of ``kind`` that ``fd`` is of (setns(2))."""
    _setns(fd, kind)


def in_initial_user_namespace() -> bool:
    """Whether this process is in the user namespace that the kernel booted with, going by its map of ids."""
    with open("/proc/self/uid_map") as f:
        return f.read().split() == ["0", "0", "4294967295"]


def unshare(flags: int) -> None:
    _unshare(flags)


def sethostname(name: bytes) -> None:
    _sethostname(name, len(name))


def setdomainname(name: bytes) -> None:
    """The NIS domain name of this UTS namespace (uname(2))."""
    _setdomainname(name, len(name))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return _prctl(option, arg2, arg3, arg4, arg5)


def set_name(name: bytes) -> None:
    """The name that ``ps`` shows for this thread, 15 bytes at most (prctl(2))."""
    buffer = create_string_buffer(name)
    _prctl(_PR_SET_NAME, addressof(buffer), 0, 0, 0)


def join_new_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one (keyrings(7))."""
    _keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A duplicate of descriptor ``fd`` of the process behind ``pidfd``, close-on-exec (pidfd_getfd(2))."""
    return _pidfd_getfd(pidfd, fd, 0)


def close_all_except(keep: set[int] | frozenset[int]) -> None:
    """Close every descriptor from 3 up that is not in ``keep`` (close_range(2))."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        if fd > first:
            _close_range(first, fd - 1, 0)
        first = fd + 1
    _close_range(first, 0xFFFFFFFF, 0)


def close_standard() -> None:
    """Close 0, 1 and 2."""
    _close_range(0, 2, 0)


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the PID it names one process for good.

    Field 22 of /proc/PID/stat (proc(5)). ProcessLookupError if there is none.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    try:
        stat = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def pid_inside(pid: int) -> int:
    """The PID that a process has in its own PID namespace (proc(5), ``NSpid``). ProcessLookupError if there is none."""
    try:
        with open(f"/proc/{pid}/status", "rb") as f:
            status = f.read()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return int(status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()[-1])


def waits_for_signals(pid: int) -> bool:
    """Whether the process is in sigtimedwait(2), or sigwait(3) by it.

    For that time proc(5) shows what it waits for as not blocked, though it is and will not be lost.
    """
    try:
        with open(f"/proc/{pid}/syscall", "rb") as f:
            return f.read().split(b" ", 1)[0] == b"%d" % _RT_SIGTIMEDWAIT
    except OSError:
        return False
