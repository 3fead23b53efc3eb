"""Which ids the container of a plain user has, and whose they are on the host.

Two kinds of map (user_namespaces(7)):

- **many ids**: root in the container is the caller, and 1 and up are the caller's subordinate ids (subuid(5),
  subgid(5)). Only the set-uid programs newuidmap and newgidmap may write such maps.
- **one id**: whoever the command runs as is the caller. Any process may write that for itself. The namespace has no
  other ids, and setgroups(2) is refused in it.
"""

from __future__ import annotations

import os

from mydocker import logs
from mydocker.errors import SetupError, UsageError
from mydocker.linux import process, userns
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from mydocker.linux.userns import Range
    from mydocker.user import User

#: The kernel takes 340 lines (user_namespaces(7)); one is the caller's own.
_MAX_RANGES = 339


class IdMaps(Value):
    """The ids of the container's user namespace.

    ``uids``, ``gids``  (first id inside, first id on the host, how many).
    ``tools``           paths of newuidmap and newgidmap, which are to write the maps; empty for one id.
    """

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    tools: tuple[str, ...] = ()

    @property
    def setgroups(self) -> bool:
        """Whether the container may set its groups: newgidmap allows it, and with one id it is denied."""
        return bool(self.tools)

    def write(self, pid: int) -> None:
        """Write the maps of the namespace that ``pid`` is in. SetupError if newuidmap refuses, else OSError."""
        if self.tools:
            _write_by_tools(self, pid)
            return
        userns.deny_setgroups(pid)
        userns.write_map(pid, "uid", self.uids)
        userns.write_map(pid, "gid", self.gids)


def map_user(user: User) -> User:
    """``user`` with the ``maps`` of the container, and without the groups that cannot be had in it.

    `UsageError` if the subordinate ids do not reach to ``--user``.
    """
    uid, gid = os.geteuid(), os.getegid()
    maps, why = _many(uid, gid)
    if maps is None:
        logs.info("the container has one user id and one group id, because %s", why)
        maps = IdMaps(uids=((user.uid, uid, 1),), gids=((user.gid, gid, 1),))
    for kind, number, ranges in (("user", user.uid, maps.uids), ("group", user.gid, maps.gids)):
        if not _contains(ranges, number):
            raise UsageError(
                f"--user: the {kind} id {number} is not in the container of this user, whose subordinate ids end at "
                f"{_last(ranges)}: choose a smaller one, or have root add to /etc/sub{kind[0]}id"
            )
    groups = tuple(group for group in user.groups if _contains(maps.gids, group)) if maps.setgroups else ()
    return user.replace(groups=groups, maps=maps)


def why_one_id() -> str:
    """Why the containers of this user have one id only; empty if they have the subordinate ones."""
    return _many(os.geteuid(), os.getegid())[1]


def _contains(ranges: Sequence[Range], number: int) -> bool:
    return any(first <= number < first + count for first, _, count in ranges)


def _last(ranges: Sequence[Range]) -> int:
    return max(first + count - 1 for first, _, count in ranges)


def _many(uid: int, gid: int) -> tuple[IdMaps | None, str]:
    """The maps with the subordinate ids, or None and why there are none.

    The conditions are those of newuidmap(1), and are asked before: once the clone is made it is too late.
    """
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None, f"{uid} has no entry in /etc/passwd"
    if (os.getuid(), os.getgid(), entry.pw_gid) != (uid, gid, gid):
        return None, f"the group {gid} is not the one of {entry.pw_name} in /etc/passwd"
    names = (entry.pw_name, str(uid))
    uids, gids = _subordinate("/etc/subuid", names), _subordinate("/etc/subgid", names)
    for file, ranges in (("/etc/subuid", uids), ("/etc/subgid", gids)):
        if not ranges:
            return None, f"{file} has no ids for {entry.pw_name}"
    tools = find_tools()
    if len(tools) != 2:
        return None, "newuidmap and newgidmap, of the package uidmap, are not installed"
    if process.prctl(process.PR_GET_NO_NEW_PRIVS):
        return None, "no_new_privs is set, under which newuidmap gets no privileges"
    return IdMaps(uids=_laid_out(uid, uids), gids=_laid_out(gid, gids), tools=tools), ""


def find_tools() -> tuple[str, ...]:
    """The paths of newuidmap and newgidmap, as far as they are installed."""
    return tuple(filter(None, (_find("newuidmap"), _find("newgidmap"))))


def _subordinate(file: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """(first id, how many) of each line ``NAME:FIRST:COUNT`` for the user, by name or by number."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as f:
            rows = [line.strip().split(":") for line in f]
    except OSError:
        return []
    return [
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[0] in names and row[1].isdecimal() and row[2].isdecimal() and int(row[2])
    ][:_MAX_RANGES]


def _laid_out(own: int, subordinate: Sequence[tuple[int, int]]) -> tuple[Range, ...]:
    """0 is the caller; the subordinate ids follow without a gap."""
    ranges, inside = [(0, own, 1)], 1
    for first, count in subordinate:
        ranges.append((inside, first, count))
        inside += count
    return tuple(ranges)


def _find(program: str) -> str | None:
    for directory in (*os.get_exec_path(), "/usr/bin"):
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    return None


def _write_by_tools(maps: IdMaps, pid: int) -> None:
    """Both at once: each takes some 3 ms."""
    kinds: tuple[tuple[Literal["uid", "gid"], tuple[Range, ...]], ...] = (("uid", maps.uids), ("gid", maps.gids))
    started: list[_Tool] = []
    try:
        for path, (_, ranges) in zip(maps.tools, kinds, strict=True):
            started.append(_Tool(path, [str(pid), *(str(number) for line in ranges for number in line)]))
    finally:
        words = [tool.wait() for tool in started]
    for path, said, (kind, ranges) in zip(maps.tools, words, kinds, strict=True):
        # Asked of the kernel: where SIGCHLD is ignored there is no exit status.
        if userns.read_map(pid, kind) != ranges:
            raise SetupError(
                f"{os.path.basename(path)} did not map the {kind}s of the container: {said or 'it does not say why'}; "
                f"compare the user's line in /etc/sub{kind} (docs/rootless.md)"
            )


class _Tool:
    """newuidmap or newgidmap, running. ``subprocess`` would cost more than all the rest."""

    def __init__(self, path: str, arguments: list[str]) -> None:
        self._output, writer = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writer, 1),
            (os.POSIX_SPAWN_DUP2, writer, 2),
        ]
        try:
            self._pid = os.posix_spawn(path, [path, *arguments], {}, file_actions=actions)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(writer)

    def wait(self) -> str:
        """Until it has ended: the first line that it said."""
        with open(self._output, "rb") as f:
            words = f.read(4096)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # this process ignores SIGCHLD, and the kernel has reaped it
        return words.decode(errors="replace").strip().partition("\n")[0]
