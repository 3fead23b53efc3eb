"""The id maps of a user namespace, which are files of a process in it (user_namespaces(7))."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    #: first id inside, first id outside, how many
    Range = tuple[int, int, int]


def write_map(pid: int, kind: Literal["uid", "gid"], ranges: Iterable[Range]) -> None:
    """Write ``/proc/PID/uid_map`` or ``gid_map``: once for each namespace, as one write(2)."""
    _write(f"/proc/{pid}/{kind}_map", "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges))


def read_map(pid: int, kind: Literal["uid", "gid"]) -> tuple[Range, ...]:
    """The ranges of the map, with the ids outside as this process's namespace knows them; empty if none is written."""
    with open(f"/proc/{pid}/{kind}_map") as f:
        rows = [line.split() for line in f]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


def deny_setgroups(pid: int) -> None:
    """Refuse setgroups(2) in the namespace for good.

    Without it the kernel takes no group map from a process that has no CAP_SETGID outside: a group may be what
    denies its members something, and nobody may leave it on his own (CVE-2014-8989).
    """
    _write(f"/proc/{pid}/setgroups", "deny")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from None
    finally:
        os.close(fd)
