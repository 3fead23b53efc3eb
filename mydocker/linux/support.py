"""What this kernel answers when it is asked for things that it may lack. Each call is made so that it does nothing."""

from __future__ import annotations

import os
import struct

from mydocker.linux.libc import addressof, c_long, c_size_t, c_void_p, create_string_buffer, system_call

#: System calls that a container is made with, by the kernel that brought them. All are numbered alike everywhere.
SYSTEM_CALLS = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}

_CLONE_INTO_CGROUP = 0x200000000
_NO_DESCRIPTOR = 0x7FFFFFFF


def call(name: str) -> None:
    """Call ``name`` with -1 for every argument, which none of them takes: an OSError, ENOSYS if the kernel lacks it."""
    system_call(SYSTEM_CALLS[name], c_long, c_long, c_long, c_long, c_long)(-1, -1, -1, -1, -1)


def clone_into_no_cgroup() -> None:
    """clone3(2) into a cgroup without a descriptor of one: an OSError, EBADF where CLONE_INTO_CGROUP is known."""
    args = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, 17, 0, 0, 0, 0, 0, _NO_DESCRIPTOR)
    data = create_string_buffer(args, len(args))
    if system_call(SYSTEM_CALLS["clone3"], c_void_p, c_size_t)(addressof(data), len(args)) == 0:
        os._exit(0)
