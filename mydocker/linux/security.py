"""The attributes by which a process asks a security module for a label: /proc/self/attr (proc_pid_attr(5)).

A procfs of the container's own making could lead such a write elsewhere, and then the command would run without its
profile (CVE-2019-16884, CVE-2025-52881). So they are opened below a descriptor that is checked to be of a procfs.
"""

from __future__ import annotations

import errno
import os
import struct

from mydocker.linux import statfs
from mydocker.linux.libc import c_char_p, c_int, c_size_t, c_ulong, function, system_call

_PROC_ROOT_INODE = 1
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08

_openat2 = system_call(437, c_int, c_char_p, c_char_p, c_size_t)


def is_procfs(fd: int) -> bool:
    """Whether the descriptor is of the root of a procfs."""
    return statfs.filesystem_type(fd) == statfs.PROC and os.fstat(fd).st_ino == _PROC_ROOT_INODE


def open_attribute(proc: int, path: str) -> int:
    """Open ``attr/<path>`` of this thread for writing, as `open_in_procfs` does."""
    return open_in_procfs(proc, f"thread-self/attr/{path}".encode())


def open_in_procfs(proc: int, path: bytes) -> int:
    """Open a file for writing below ``proc``, which must be the root of a procfs: else OSError EXDEV.

    Nothing that is mounted over a part of it is followed.
    """
    if not is_procfs(proc):
        raise OSError(errno.EXDEV, "it is not a procfs", "/proc")
    beneath = _RESOLVE_BENEATH | _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS
    how = struct.pack("=3Q", os.O_WRONLY | os.O_CLOEXEC, 0, beneath)
    return _openat2(proc, path, how, len(how))


_personality = function("personality", c_ulong)


def set_personality(persona: int) -> None:
    """The execution domain of this process and of what it executes (personality(2))."""
    _personality(persona)
