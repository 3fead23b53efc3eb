"""Descriptors that go from one process to another by a socket (unix(7), SCM_RIGHTS).

``_socket`` is the C part of ``socket``, whose import builds enumerations at several milliseconds.
"""

from __future__ import annotations

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def pair(kind: int = _socket.SOCK_STREAM) -> tuple[int, int]:
    """The two ends of a connection, close-on-exec."""
    one, other = _socket.socketpair(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC, 0)
    return one.detach(), other.detach()


def send(connection: int, data: bytes, descriptors: Sequence[int]) -> None:
    """Send ``data``, at least one byte, all of it, with the descriptors. BrokenPipeError and no signal at its end."""
    end = _borrowed(connection)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"={len(descriptors)}i", *descriptors))]
    sent = end.sendmsg([data], rights if descriptors else [], _socket.MSG_NOSIGNAL)
    while sent < len(data):
        sent += end.send(data[sent:], _socket.MSG_NOSIGNAL)


def receive(connection: int, size: int, most: int, *, wait: bool = True) -> tuple[bytes, list[int]]:
    """At most ``size`` bytes with the descriptors, at most ``most``, that came with them, which are close-on-exec.

    No bytes at the end of the connection. Without ``wait`` BlockingIOError if there is nothing yet. OSError (EMFILE) if
    descriptors were lost, those that came being closed.
    """
    flags = _socket.MSG_CMSG_CLOEXEC | (0 if wait else _socket.MSG_DONTWAIT)
    data, found, flags, _ = _borrowed(connection).recvmsg(size, _socket.CMSG_SPACE(4 * most), flags)
    descriptors: list[int] = []
    for level, kind, content in found:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors += struct.unpack(f"={len(content) // 4}i", content[: len(content) // 4 * 4])
    if flags & _socket.MSG_CTRUNC:
        import errno

        for fd in descriptors:
            os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return data, descriptors


def end(connection: int) -> None:
    """Nothing more is sent: the other side reads the end, whoever else has a copy of ours."""
    try:
        _borrowed(connection).shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # there is no other side any more


class _Borrowed(_socket.socket):
    """A socket that is not closed with the object: the number is somebody else's, even after an interrupt in between.

    What takes the place of the base's finalizer runs no Python code, in which an interrupt would be lost.
    """

    __del__ = staticmethod(int)


#: By their numbers, whatever socket has that: the object knows nothing else of it.
_known: dict[int, _Borrowed] = {}
_MOST_KNOWN = 1024


def _borrowed(connection: int) -> _Borrowed:
    """With the family and the kind, it asks the kernel for neither; what kind of AF_UNIX does not matter here."""
    found = _known.get(connection)
    if found is None:
        found = _Borrowed(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, connection)
        if _socket.getdefaulttimeout() is not None:  # the program's, for its own
            found.settimeout(None)
        if len(_known) < _MOST_KNOWN:
            _known[connection] = found
    return found
