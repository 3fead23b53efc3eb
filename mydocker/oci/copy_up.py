"""The content of a directory copied into a new file system, for the option ``tmpcopyup`` of a tmpfs.

Both sides are descriptors, and no link is followed: the directory is in a root that is not trusted.
"""

from __future__ import annotations

import errno
import os
import stat

_CHUNK = 1 << 20


def copy_content(source: int, target: int) -> None:
    """Copy what is in the directory ``source`` into ``target``, with owners, modes, times and extended attributes.

    ``source`` is open for reading. Other file systems that are mounted below it are copied as they are seen.
    """
    for entry in os.listdir(source):
        name = os.fsencode(entry)
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind == stat.S_IFDIR:
            _copy_directory(name, source, target)
        elif kind == stat.S_IFREG:
            _copy_file(name, source, target)
        elif kind != stat.S_IFSOCK:  # a socket is of use only to who has bound it
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_directory(name: bytes, source: int, target: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    old = os.open(name, flags, dir_fd=source)
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        new = os.open(name, flags, dir_fd=target)
        try:
            copy_content(old, new)
            _copy_attributes(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_file(name: bytes, source: int, target: int) -> None:
    old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        if not stat.S_ISREG(os.fstat(old).st_mode):
            raise OSError(5, "it was exchanged while it was copied", os.fsdecode(name))
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _copy_data(old, new)
            _copy_attributes(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_data(old: int, new: int) -> None:
    """What is written of a file, and its holes as holes: they would be memory else, and a root can have many."""
    end = os.fstat(old).st_size
    os.ftruncate(new, end)
    offset = 0
    while offset < end:
        try:
            offset = os.lseek(old, offset, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:  # there are only holes from here on
                return
            raise
        hole = os.lseek(old, offset, os.SEEK_HOLE)
        while offset < hole:
            data = os.pread(old, min(_CHUNK, hole - offset), offset)
            if not data:
                return  # it was cut off meanwhile
            offset += os.pwrite(new, data, offset)


def _copy_attributes(old: int, new: int) -> None:
    status = os.fstat(old)
    os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(old):
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError:
            pass  # one that this file system does not have, or that the kernel alone sets
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
