"""inotify(7): a descriptor that becomes readable when something happens to a file or directory."""

from __future__ import annotations

import os

from mydocker.linux.libc import c_char_p, c_int, c_uint, function

#: It was written; of a cgroup file: it would read differently now (cgroup-v2.rst, "Events").
IN_MODIFY = 0x2
#: Permissions, times, extended attributes and the like have changed.
IN_ATTRIB = 0x4

_inotify_init1 = function("inotify_init1", c_int)
_inotify_add_watch = function("inotify_add_watch", c_int, c_char_p, c_uint)


def watch_path(path: str, events: int) -> int:
    """A new descriptor, close-on-exec and non-blocking, readable after ``events`` on what is at ``path``."""
    fd = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _inotify_add_watch(fd, os.fsencode(path), events)
    except BaseException:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Forget the events that have come, so that the descriptor is not readable any more."""
    try:
        while os.read(fd, 1 << 16):
            pass
    except BlockingIOError:
        pass
