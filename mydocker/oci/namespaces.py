"""The namespaces of a container: new ones, and those of others by path (config-linux.md, "Namespaces").

Those that are joined are joined by a helper process, which then clones the container's first process with the runtime
as its parent (CLONE_PARENT). Each path is opened once, before anything exists, and the kernel is asked of what kind it
is.

The order matters (user_namespaces(7), setns(2)). A namespace may be joined by who has CAP_SYS_ADMIN in the user
namespace that owns it. Root of the host has that everywhere, and loses it outside with the entry of a user namespace;
a plain user has it nowhere before. So all others are tried first, then the user namespace is joined, then what was
refused is tried again.
"""

from __future__ import annotations

import errno
import fcntl
import os

from mydocker.child import Child, clone_to_run
from mydocker.errors import OciError
from mydocker.linux import process, userns
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from mydocker.linux.userns import Range

#: The spec's name of each kind: (clone flag, name in /proc/PID/ns).
KINDS = {
    "user": (process.CLONE_NEWUSER, "user"),
    "ipc": (process.CLONE_NEWIPC, "ipc"),
    "uts": (process.CLONE_NEWUTS, "uts"),
    "network": (process.CLONE_NEWNET, "net"),
    "pid": (process.CLONE_NEWPID, "pid"),
    "mount": (process.CLONE_NEWNS, "mnt"),
    "cgroup": (process.CLONE_NEWCGROUP, "cgroup"),
    "time": (process.CLONE_NEWTIME, "time"),
}

_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_CLOCKS = ("monotonic", "boottime")


class Namespaces(Value):
    """What a container has of its own.

    ``new``      kinds that are made for it.
    ``joined``   kind to the descriptor of the one that it joins.
    ``uids``     the id maps of a new user namespace, and ``gids``; empty where there is none.
    ``offsets``  what is written to /proc/self/timens_offsets; empty for none.
    """

    new: frozenset[str] = frozenset()
    joined: Mapping[str, int] = {}
    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()
    offsets: bytes = b""

    def has(self, kind: str) -> bool:
        """Whether the container is in another one than the runtime."""
        return kind in self.new or kind in self.joined

    @property
    def flags(self) -> int:
        """What the clone is told to make. The cgroup namespace is made later, in the container's cgroup."""
        flags = 0
        for kind in self.new - {"cgroup"}:
            flags |= KINDS[kind][0]
        return flags

    def close(self) -> None:
        for fd in self.joined.values():
            os.close(fd)


def prepare(config: Mapping[str, Any]) -> Namespaces:
    """What ``linux.namespaces`` and the maps of a validated config ask for, with each path opened.

    OciError, naming the property, for what cannot be.
    """
    linux = config.get("linux") or {}
    new: set[str] = set()
    joined: dict[str, int] = {}
    try:
        for index, entry in enumerate(linux.get("namespaces") or ()):
            where, kind = f"linux.namespaces[{index}]", entry.get("type")
            if kind not in KINDS:
                raise OciError(f"{where}.type: invalid namespace type {kind!r}: there are {', '.join(KINDS)}")
            if kind in new or kind in joined:
                raise OciError(f"{where}.type: duplicated namespace type {kind!r}")
            if not os.path.exists(f"/proc/self/ns/{KINDS[kind][1]}"):
                raise OciError(f"{where}.type: this kernel has no {kind} namespaces")
            if entry.get("path"):
                fd = _open(f"{where}.path", kind, entry["path"])
                if fd >= 0:
                    joined[kind] = fd
            else:
                new.add(kind)
        uids, gids = _maps(linux, "user" in new, "user" in joined)
        offsets = _offsets(linux, "time" in new)
        return Namespaces(new=frozenset(new), joined=joined, uids=uids, gids=gids, offsets=offsets)
    except BaseException:
        for fd in joined.values():
            os.close(fd)
        raise


def _open(where: str, kind: str, path: str) -> int:
    """A descriptor of the namespace; -1 if it is the one that the runtime is in, which need not be joined."""
    flag, name = KINDS[kind]
    if not path.startswith("/"):
        raise OciError(f"{where}: {path} is not an absolute path")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        raise OciError(f"{where}: cannot open the {kind} namespace {path}: {(e.strerror or '').lower()}") from e
    try:
        try:
            found = fcntl.ioctl(fd, _NS_GET_NSTYPE)
        except OSError:
            raise OciError(f"{where}: {path} is not a namespace") from None
        if found != flag:
            actual = next((other for other, (number, _) in KINDS.items() if number == found), "unknown")
            raise OciError(f"{where}: {path} is a namespace of type {actual}, not {kind}")
        own = os.stat(f"/proc/self/ns/{name}")
        theirs = os.fstat(fd)
        if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino):
            os.close(fd)
            return -1
    except OciError:
        os.close(fd)
        raise
    return fd


def _maps(linux: Mapping[str, Any], new: bool, joined: bool) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    uids, gids = (_ranges(linux, f"{kind}Mappings") for kind in ("uid", "gid"))
    if joined:
        return (), ()  # it has its maps
    if not new:
        if uids or gids:
            raise OciError("linux.uidMappings: user namespace mappings specified, but there is no user namespace")
        return (), ()
    for name, ranges in (("uid", uids), ("gid", gids)):
        if not ranges:
            raise OciError(f"linux.{name}Mappings: user namespaces enabled, but no {name} mappings found")
    return uids, gids


def _ranges(linux: Mapping[str, Any], name: str) -> tuple[Range, ...]:
    return tuple((entry["containerID"], entry["hostID"], entry["size"]) for entry in linux.get(name) or ())


def _offsets(linux: Mapping[str, Any], new: bool) -> bytes:
    """The lines of time_namespaces(7)."""
    offsets = linux.get("timeOffsets") or {}
    if offsets and not new:
        raise OciError("linux.timeOffsets: time namespace offsets specified, but there is no new time namespace")
    lines = []
    for clock, offset in offsets.items():
        if clock not in _CLOCKS:
            raise OciError(
                f"linux.timeOffsets: {clock} is not a clock that has an offset: {' and '.join(_CLOCKS)} have"
            )
        lines.append(f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n")
    return "".join(lines).encode()


def clone(namespaces: Namespaces, run: Callable[[], NoReturn], child: Child, cgroup: int = -1) -> None:
    """Clone the child into its namespaces and write its id maps; it calls ``run``. ``cgroup``: as for `process.clone`.

    The child waits for the maps: the caller says so to it when this has returned. OSError for what the kernel refused.
    """
    early = bool(namespaces.offsets) and "user" in namespaces.new
    flags = namespaces.flags
    if namespaces.offsets:
        flags &= ~process.CLONE_NEWTIME  # its offsets can be set only before there is a process in it
    if early:
        flags &= ~process.CLONE_NEWUSER  # which is to own the time namespace
    if not namespaces.joined and not namespaces.offsets:
        clone_to_run(run, flags, child, cgroup=cgroup)
    else:
        asks, ask = os.pipe()
        mapped, tell = os.pipe()
        try:
            before = _Preparation(namespaces, ask, mapped, (asks, tell)).run
            serve = _Mapping(namespaces, asks, tell).serve if early else None
            clone_to_run(run, flags, child, before, serve, cgroup)
        finally:
            for fd in (asks, ask, mapped, tell):
                os.close(fd)
    if "user" in namespaces.new and not early:
        write_maps(child.pid, namespaces.uids, namespaces.gids)


class _Preparation:
    """What the helper does before it clones."""

    def __init__(self, namespaces: Namespaces, ask: int, mapped: int, not_ours: tuple[int, ...]) -> None:
        self._namespaces = namespaces
        self._ask = ask
        self._mapped = mapped
        self._not_ours = not_ours

    def run(self) -> None:
        namespaces = self._namespaces
        join(namespaces.joined)
        if namespaces.offsets:
            if "user" in namespaces.new:
                process.unshare(process.CLONE_NEWUSER)
                for fd in self._not_ours:  # so that the runtime's end is seen as the end of the pipe
                    os.close(fd)
                os.write(self._ask, b"m")
                if os.read(self._mapped, 1) != b"m":
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM), "linux.uidMappings")
            process.unshare(process.CLONE_NEWTIME)
            process.prctl(process.PR_SET_DUMPABLE, 1)  # else the file is not this process's own (proc(5))
            fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, namespaces.offsets)
            except OSError as e:
                raise OSError(e.errno, e.strerror, "linux.timeOffsets") from None
            finally:
                os.close(fd)
        if namespaces.joined:  # where somebody may be already, who is not to look into the child (CVE-2016-9962)
            process.prctl(process.PR_SET_DUMPABLE, 0)


class _Mapping:
    """The runtime's part: it writes the maps of the namespace that the helper has made for itself."""

    def __init__(self, namespaces: Namespaces, asks: int, tell: int) -> None:
        self._namespaces = namespaces
        self._asks = asks
        self._tell = tell

    def serve(self, helper: int) -> None:
        import select

        poll = select.poll()
        poll.register(self._asks, select.POLLIN)
        pidfd = os.pidfd_open(helper)
        answer = b"x"
        try:
            poll.register(pidfd, select.POLLIN)
            if any(fd == self._asks for fd, _ in poll.poll()):
                write_maps(helper, self._namespaces.uids, self._namespaces.gids)
                answer = b"m"
        finally:
            os.close(pidfd)
            os.write(self._tell, answer)


def join(joined: Mapping[str, int]) -> None:
    """Enter the namespaces of others, in the order of the module's text. OSError names the kind that was refused."""
    refused = []
    for kind, fd in joined.items():
        if kind != "user" and not _enter(kind, fd, final="user" not in joined):
            refused.append(kind)
    if "user" in joined:
        _enter("user", joined["user"], final=True)
    for kind in refused:
        _enter(kind, joined[kind], final=True)


def _enter(kind: str, fd: int, *, final: bool) -> bool:
    try:
        process.setns(fd, KINDS[kind][0])
    except OSError as e:
        if not final and e.errno == errno.EPERM:
            return False
        raise OSError(e.errno, e.strerror, f"{kind} namespace") from None
    return True


def write_maps(pid: int, uids: Sequence[Range], gids: Sequence[Range]) -> None:
    """Write the id maps of the user namespace that ``pid`` is in. OciError for what is refused."""
    try:
        if os.geteuid() == 0:
            userns.write_map(pid, "uid", uids)
            userns.write_map(pid, "gid", gids)
            return
        _write_as_plain_user(pid, tuple(uids), tuple(gids))
    except OSError as e:
        raise OciError(f"linux.uidMappings: cannot write the id maps: {(e.strerror or '').lower()}") from e


def _write_as_plain_user(pid: int, uids: tuple[Range, ...], gids: tuple[Range, ...]) -> None:
    """By newuidmap and newgidmap, unless it is the caller's own ids alone, which he may write himself."""
    from mydocker.rootless import ids

    own = all(count == 1 for _, _, count in (*uids, *gids)) and (uids[0][1], gids[0][1]) == (os.geteuid(), os.getegid())
    tools: tuple[str, ...] = ()
    if not (own and len(uids) == len(gids) == 1):
        tools = ids.find_tools()
        if len(tools) != 2:
            raise OciError("linux.uidMappings: newuidmap and newgidmap, of the package uidmap, are not installed")
    ids.IdMaps(uids=uids, gids=gids, tools=tools).write(pid)
