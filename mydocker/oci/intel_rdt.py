"""Shares of the caches and of the memory's bandwidth (``linux.intelRdt``; config-linux.md, "IntelRdt").

A group is a directory of the resctrl file system (Documentation/filesystems/resctrl.rst): its ``schemata`` says what
its ``tasks`` get. It is named by ``closID``, and then it is the host's and may have further members; else by the
container's id, and then it goes with the container. Loaded only where a config has ``linux.intelRdt``.
"""

from __future__ import annotations

import errno
import os

from mydocker.errors import OciError
from mydocker.linux import paths, statfs
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

#: include/uapi/linux/magic.h, RDTGROUP_SUPER_MAGIC
MAGIC = 0x7655821

#: What each property of the config counts, as info/L3_MON/mon_features names it; one of them is enough.
_MONITORS = {
    "enableCMT": ("llc_occupancy",),
    "enableMBM": ("mbm_total_bytes", "mbm_local_bytes"),
    "enableMonitoring": ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"),
}
_ROOT_GROUP = "/"


class Group(Value):
    """What a container has of resctrl, as its record keeps it.

    ``name``     of the directory; ``/`` for the group of everybody.
    ``made``     whether it was made for this container alone, and is removed with it.
    ``monitor``  the name of its group for figures below that, or empty.
    """

    name: str
    made: bool
    monitor: str = ""


class Tree:
    """A mounted resctrl. Each file is opened below one descriptor, and its file system's type is looked at."""

    def __init__(self, path: str, magic: int = MAGIC) -> None:
        """OciError if there is none at the path. ``magic``: the type that is to be there."""
        self._path = path
        self._magic = magic
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise OciError(f"linux.intelRdt: cannot open {path}: {(e.strerror or '').lower()}") from e
        if statfs.filesystem_type(self._fd) != magic:
            self.close()
            raise OciError(f"linux.intelRdt: {path} is not a resctrl file system")

    @classmethod
    def of_host(cls) -> Tree:
        """OciError if none is mounted."""
        path = _mountpoint()
        if not path:
            raise OciError(
                "linux.intelRdt: no resctrl file system is mounted on this host. If its processor can divide its "
                "cache, mount one: mount -t resctrl resctrl /sys/fs/resctrl"
            )
        return cls(path)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, path: str) -> bool:
        try:
            os.close(self._open(path, os.O_PATH))
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> str:
        with open(self._open(path, os.O_RDONLY), "rb") as f:
            return os.fsdecode(f.read())

    def write(self, path: str, text: str) -> None:
        """One write(2), which the kernel takes as a whole."""
        fd = self._open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        except OSError as e:
            raise OSError(e.errno, self._reason(e), path) from None
        finally:
            os.close(fd)

    def make_group(self, path: str) -> None:
        parent = self._open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(os.path.basename(path), 0o755, dir_fd=parent)
        except OSError as e:
            raise OSError(e.errno, self._reason(e), path) from None
        finally:
            os.close(parent)

    def remove_group(self, path: str) -> None:
        """Its members are its parent's afterwards. It may be gone already."""
        try:
            parent = self._open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
            try:
                os.rmdir(os.path.basename(path), dir_fd=parent)
            finally:
                os.close(parent)
        except FileNotFoundError:
            pass

    def _open(self, path: str, flags: int) -> int:
        fd = paths.open_in_root(self._fd, os.fsencode(path or "."), flags, links=False)
        if statfs.filesystem_type(fd) != self._magic:
            os.close(fd)
            raise OSError(errno.EXDEV, "something else is mounted there", path)
        return fd

    def _reason(self, error: OSError) -> str:
        """The kernel's own words, where it has some (resctrl.rst, "last_cmd_status")."""
        number = error.errno or 0
        try:
            words = self.read("info/last_cmd_status").strip()
        except OSError:
            words = ""
        return os.strerror(number).lower() + (f" ({words})" if words not in ("", "ok") else "")


def _mountpoint() -> str:
    from mydocker.mount_parts import unescape

    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            place, _, kind = line.partition(b" - ")
            if kind.split()[0] == b"resctrl":
                return os.fsdecode(unescape(place.split()[4]))
    return ""


def check(wanted: Mapping[str, Any], tree: Tree) -> None:
    """Refuse what is known to be wrong before anything exists. OciError, by the property."""
    name = wanted.get("closID") or ""
    if name and not _lines(wanted) and not tree.has(_file(name)):
        raise OciError(f"linux.intelRdt.closID: there is no group {name}, and no schema to make one from")
    for key, features in _MONITORS.items():
        if wanted.get(key) and not _monitors(tree) & set(features):
            raise OciError(f"linux.intelRdt.{key}: this host's processor does not count {' or '.join(features)}")


def _monitors(tree: Tree) -> set[str]:
    try:
        return set(tree.read("info/L3_MON/mon_features").split())
    except OSError:
        return set()


def group_of(wanted: Mapping[str, Any], id_: str) -> Group:
    """The group of a container, which need not exist yet. What is to be removed with it, is noted before it is made."""
    monitored = any(wanted.get(key) for key in _MONITORS)
    closid = wanted.get("closID") or ""
    return Group(name=closid or id_, made=not closid, monitor=id_ if monitored else "")


def put_into_force(wanted: Mapping[str, Any], group: Group, tree: Tree) -> None:
    """Make the group, or see to it that the one that is there is as wanted. OciError by the property."""
    lines = _lines(wanted)
    new = False
    try:
        if group.name == _ROOT_GROUP or (not group.made and tree.has(group.name)):
            _compare(lines, tree.read(_file(group.name, "schemata")), group.name)
        else:
            tree.make_group(group.name)
            new = True
            set_schemata(lines, group, tree)
        if group.monitor:
            tree.make_group(_file(group.name, "mon_groups", group.monitor))
    except BaseException as e:
        if new:
            tree.remove_group(group.name)
        if isinstance(e, OSError):
            raise _refused("make the group", e) from e
        raise


def set_schemata(lines: Sequence[str], group: Group, tree: Tree) -> None:
    """Write all lines, or OciError with the kernel's words."""
    if lines:
        try:
            tree.write(_file(group.name, "schemata"), "\n".join(lines) + "\n")
        except OSError as e:
            raise _refused(f"set the schemata {' and '.join(lines)}", e) from e


def enter(group: Group, pid: int, tree: Tree) -> None:
    """Make the process a member of the group."""
    try:
        tree.write(_file(group.name, "tasks"), str(pid))
        if group.monitor:
            tree.write(_file(group.name, "mon_groups", group.monitor, "tasks"), str(pid))
    except OSError as e:
        raise _refused("put the process into its group", e) from e


def as_recorded(values: Mapping[str, Any]) -> Group:
    return Group(name=values["name"], made=values["made"], monitor=values["monitor"])


def remove(group: Group, tree: Tree) -> None:
    """Remove what was made for the container alone."""
    try:
        if group.monitor:
            tree.remove_group(_file(group.name, "mon_groups", group.monitor))
        if group.made:
            tree.remove_group(group.name)
    except OSError as e:
        raise _refused("remove the group", e) from e


def _refused(doing: str, error: OSError) -> OciError:
    about = f": {error.filename}" if error.filename else ""
    return OciError(f"linux.intelRdt: cannot {doing}: {error.strerror}{about}")


def _file(group: str, *names: str) -> str:
    return "/".join((*(() if group == _ROOT_GROUP else (group,)), *names))


def _lines(wanted: Mapping[str, Any]) -> list[str]:
    """All that is to be in the schemata; ``schemata`` last, so that it wins.

    Of ``l3CacheSchema`` without the lines for the bandwidth, which have a property of their own (config-linux.md).
    """
    found = [line for line in _split(wanted.get("l3CacheSchema") or "") if not line.startswith("MB:")]
    found += _split(wanted.get("memBwSchema") or "")
    schemata = wanted.get("schemata") or ()
    for text in [schemata] if isinstance(schemata, str) else schemata:
        found += _split(text)
    return found


def _split(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())


def _compare(lines: Sequence[str], present: str, name: str) -> None:
    """OciError if the group that is there divides otherwise than the lines say. It may divide more than they do."""
    values = dict(_values(_split(present)))
    for place, value in dict(_values(lines)).items():
        if values.get(place) != value:
            raise OciError(
                f"linux.intelRdt.closID: the group {name} is there with another schema: "
                f"{':'.join(place)} has {values.get(place, 'nothing')}, not {value}"
            )


def _values(lines: Sequence[str] | Iterator[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """((resource, domain), value); bit masks without what the kernel adds in front of them."""
    for line in lines:
        resource, _, rest = line.partition(":")
        for part in rest.split(";"):
            domain, _, value = part.partition("=")
            yield (resource.strip(), domain.strip().lstrip("0") or "0"), value.strip().lower().lstrip("0") or "0"
