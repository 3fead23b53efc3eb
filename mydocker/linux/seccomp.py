"""Seccomp filters as the kernel takes them: a BPF program and flags (seccomp(2)). No libseccomp is needed for it."""

from __future__ import annotations

import errno
import struct

from mydocker.linux.libc import (
    addressof,
    architecture_number,
    c_uint,
    c_void_p,
    create_string_buffer,
    system_call,
)

#: ``SECCOMP_FILTER_FLAG_*`` of include/uapi/linux/seccomp.h.
TSYNC, LOG, SPEC_ALLOW, NEW_LISTENER, TSYNC_ESRCH, WAIT_KILLABLE_RECV = 1, 2, 4, 8, 16, 32

#: ``SECCOMP_RET_*``: what a filter answers. ERRNO and TRACE carry a number in the low 16 bits.
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, NOTIFY = 0x80000000, 0, 0x00030000, 0x00050000, 0x7FC00000
TRACE, LOG_AND_ALLOW, ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
#: SECCOMP_RET_ACTION_FULL: an answer without its number.
ACTION = 0xFFFF0000

#: BPF_MAXINSNS, include/uapi/linux/bpf_common.h.
MOST_INSTRUCTIONS = 4096
#: sizeof(struct sock_filter), include/uapi/linux/filter.h.
INSTRUCTION = 8

SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2

NUMBER = architecture_number(317, 277)

_seccomp = system_call(NUMBER, c_uint, c_uint, c_void_p)


def load(program: bytes, flags: int = 0) -> int:
    """Filter every system call of this thread, and of what it starts, from now on.

    The descriptor of the listener, close-on-exec, with ``NEW_LISTENER``; else 0. OSError EACCES without no_new_privs
    and without CAP_SYS_ADMIN in this user namespace, EINVAL for a program or a flag that the kernel does not take.
    """
    code = create_string_buffer(program, len(program))
    argument = header(program, addressof(code))
    kept = create_string_buffer(argument, len(argument))
    return _seccomp(SET_MODE_FILTER, flags, addressof(kept))


def header(program: bytes, address: int) -> bytes:
    """struct sock_fprog for a program that is at ``address``."""
    return struct.pack("@HP", len(program) // INSTRUCTION, address)


def knows_flags(flags: int) -> bool:
    """Whether this kernel takes these flags together. It looks at them before it reads the program, of which there is
    none here."""
    try:
        _seccomp(SET_MODE_FILTER, flags, None)
    except OSError as e:
        return e.errno == errno.EFAULT
    return False  # it cannot have taken a filter from nowhere


def knows_action(action: int) -> bool:
    """Whether this kernel has an action, without the 16 bits of data that some carry. Linux 4.14."""
    argument = create_string_buffer(struct.pack("=I", action), 4)
    try:
        _seccomp(_GET_ACTION_AVAIL, 0, addressof(argument))
    except OSError:
        return False
    return True
