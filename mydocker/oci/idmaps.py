"""User namespaces that are there for their id maps only: a mount that is idmapped names one (mount_setattr(2))."""

from __future__ import annotations

import os

from mydocker.linux import process, userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Mappings = Sequence[Mapping[str, int]]


def host_id(number: int, mappings: Mappings | None) -> int | None:
    """What a user, or a group, of the container is outside; None if nobody."""
    for mapping in mappings or ():
        offset = number - mapping["containerID"]
        if 0 <= offset < mapping["size"]:
            return mapping["hostID"] + offset
    return None


class IdMaps:
    """The descriptors of such namespaces, one for each pair of maps."""

    def __init__(self) -> None:
        self._open: dict[object, int] = {}

    def of(self, uids: Mappings, gids: Mappings) -> int:
        """The descriptor of a namespace with these maps. OSError if the kernel refuses them."""
        rows = tuple(
            tuple((row["containerID"], row["hostID"], row["size"]) for row in mappings) for mappings in (uids, gids)
        )
        if rows not in self._open:
            self._open[rows] = _namespace(*rows)
        return self._open[rows]

    def at(self, path: str) -> int:
        """The descriptor of the namespace at ``path``."""
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[path]

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def _namespace(uids: Sequence[userns.Range], gids: Sequence[userns.Range]) -> int:
    """A process makes it and waits, so that its maps can be written; the descriptor keeps it when that ends."""
    waits, lets_go = os.pipe()
    try:
        pid, pidfd = process.clone(process.CLONE_NEWUSER)
        if pid == 0:
            try:
                os.close(lets_go)
                os.read(waits, 1)
            finally:
                os._exit(0)
        try:
            userns.write_map(pid, "uid", uids)
            userns.write_map(pid, "gid", gids)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(lets_go)
            lets_go = -1
            os.waitpid(pid, 0)
            os.close(pidfd)
    finally:
        os.close(waits)
        if lets_go >= 0:
            os.close(lets_go)
