"""A sealed, empty file in memory, for the kernel to take for what a process executes (prctl(2), PR_SET_MM_MAP)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PR_SET_MM, PR_SET_MM_MAP = 35, 14

NAME = "mydocker"

#: struct prctl_mm_map: eleven addresses, one of an auxiliary vector, or 0, with its size, and a descriptor.
_DESCRIPTION = struct.Struct("=12QIi")
DESCRIPTION_SIZE = _DESCRIPTION.size

_SEALS = 0xF  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE
_MFD_EXEC = 0x10


def made() -> int:
    """A descriptor, close-on-exec. OSError: EACCES if the sysctl vm.memfd_noexec allows none that can be executed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        empty = os.memfd_create(NAME, flags | _MFD_EXEC)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        empty = os.memfd_create(NAME, flags)  # before Linux 6.3 all can be
    try:
        os.fchmod(empty, 0o555)
        fcntl.fcntl(empty, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(empty)
        raise
    return empty


def description(addresses: Sequence[int], executable: int) -> bytes:
    """What the kernel is to be told: where the eleven parts of the memory are that struct prctl_mm_map names, in its
    order, and what is executed.
    """
    return _DESCRIPTION.pack(*addresses, 0, 0, executable)


def description_of_nothing(address: int, executable: int) -> bytes:
    """The same for a process that has no such parts. ``address``: any that there is."""
    parts = (address, address + 1)  # the code has to have a byte
    heap = address + 2  # until Linux 5.14 it has to be behind the data
    return description((*parts, *parts, heap, heap, address, *parts, *parts), executable)
