"""Whether the mounts of this mount namespace have changed, without a look at each."""

from __future__ import annotations

import os
import select

#: Bytes of some five hundred lines.
_LARGEST = 1 << 16


def mountinfo() -> bytes | None:
    """The mounts of this mount namespace, as /proc/self/mountinfo has them (proc(5)); None if there are very many: to
    look at them all costs more than it is worth.
    """
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(fd, _LARGEST):
            text += part
            if len(text) > _LARGEST:
                return None
        return text
    finally:
        os.close(fd)


class MountWatch:
    """Tells of changes since it was last asked: by poll(2) on /proc/self/mountinfo (proc(5), since Linux 2.6.30), which
    takes no longer where an engine has made thousands of mounts.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._fd = -1
        self._poll = select.poll()

    def changed(self) -> bool:
        """Also the first time, and in a fork of the process, which shares what was seen with it."""
        if self._owner != os.getpid():
            self.close()
            self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._fd, select.POLLPRI)
            self._owner = os.getpid()
            return True
        return bool(self._poll.poll(0))

    def close(self) -> None:
        fd, self._fd, self._owner = self._fd, -1, 0
        if fd >= 0:
            self._poll.unregister(fd)
            os.close(fd)
