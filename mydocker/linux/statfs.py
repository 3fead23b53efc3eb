"""The type of the file system that a descriptor is on, and its mount, as fstatfs(2) and proc(5) know them.

A path says nothing about it: what is at ``/proc`` of a root that somebody else has made may be anything.
"""

from __future__ import annotations

import os
import struct

from mydocker.linux.libc import addressof, c_int, c_void_p, create_string_buffer, function

# include/uapi/linux/magic.h
PROC = 0x9FA0
SYSFS = 0x62656572
DEVPTS = 0x1CD1
MQUEUE = 0x19800202

_STATFS_SIZE = 256  # struct statfs has 120 bytes on 64-bit machines; f_type is its first word

_fstatfs = function("fstatfs", c_int, c_void_p)


def filesystem_type(fd: int) -> int:
    """The magic number of the file system of a descriptor, which may be one of O_PATH."""
    buffer = create_string_buffer(_STATFS_SIZE)
    _fstatfs(fd, addressof(buffer))
    kind: int = struct.unpack_from("@L", buffer)[0]
    return kind


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is on, as the first field of mountinfo has it."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as f:
        for line in f:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise OSError(2, os.strerror(2), "mnt_id")
