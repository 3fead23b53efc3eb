"""``--preserve-fds``: descriptors of the caller that go to the process."""

from __future__ import annotations

import fcntl
import os

from mydocker.errors import OciError


def count(text: str | None) -> int:
    """How many are asked for, at most. OciError if the text is no such number."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 20):
        raise OciError(f'--preserve-fds: "{text}" is not a number of descriptors')
    return int(text)


def passed(most: int) -> frozenset[int]:
    """Of the descriptors from 3 to 2 + ``most`` those that the caller has passed.

    Those are known by their lack of close-on-exec, which all of our own have.
    """
    if not most:
        return frozenset()
    found = (int(name) for name in os.listdir("/proc/self/fd"))
    return frozenset(fd for fd in found if 3 <= fd < 3 + most and _is_inherited(fd))


def _is_inherited(fd: int) -> bool:
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return False  # that of the listing itself
