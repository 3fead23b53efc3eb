"""``--preserve-fds``: descriptors of the caller that go to the process."""

from __future__ import annotations

import fcntl

from mydocker.errors import OciError


def preserved(text: str | None) -> frozenset[int]:
    """The ``N`` descriptors from 3 on. OciError if the caller did not pass one of them.

    Called before anything else is opened: what the caller passed is known by its lack of close-on-exec, which all of
    our own descriptors have.
    """
    if not text:
        return frozenset()
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 20):
        raise OciError(f'--preserve-fds: "{text}" is not a number of descriptors')
    found = range(3, 3 + int(text))
    for fd in found:
        try:
            ours = fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            ours = 1
        if ours:
            raise OciError(f"--preserve-fds: descriptor {fd} was not passed: check that all {text} from 3 on are open")
    return frozenset(found)
