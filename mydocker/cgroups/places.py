"""Where containers' cgroups are, and which of those above them were made for them."""

from __future__ import annotations

import os

from mydocker.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.layout import Hierarchy

#: The cgroup in which the containers' are made, unless ``--cgroup-parent`` names another.
DEFAULT_PARENT = "mydocker"

#: Extended attributes of a parent that was made for a container. The first is root's alone, the second for any owner.
MADE_FOR_CONTAINERS = ("trusted.mydocker", "user.mydocker")


def checked_path(path: str) -> str:
    """``path`` as names with ``/`` between; a `UsageError` if it is not a cgroup below the base."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not names or ".." in names or any(len(os.fsencode(name)) > 255 for name in names):
        raise UsageError(f'"{path}" cannot be a cgroup: write names with / between, without ..')
    # A newline would forge lines of /proc/PID/cgroup; the kernel refuses it too (cgroup_mkdir).
    if "\n" in path or "\0" in path:
        raise UsageError(f"{path!r} cannot be a cgroup: its name may not have a line break or a NUL")
    return "/".join(names)


def directories(hierarchy: Hierarchy, path: str) -> list[str]:
    """The directories from the base's child down to the cgroup ``path``."""
    found = [hierarchy.base]
    for name in path.split("/"):
        found.append(f"{found[-1]}/{name}")
    return found[1:]


_kept: list[int] = []


def common_parent(hierarchy: Hierarchy) -> str:
    """The directory of `DEFAULT_PARENT`."""
    return f"{hierarchy.base}/{DEFAULT_PARENT}"


def keep_common_parent(*, kept: bool) -> None:
    """Whether the last container of this process leaves the common parent to somebody who calls
    `remove_common_parents` later: a program that runs one after another would make it anew each time.
    """
    _kept[:] = [os.getpid()] if kept else []


def is_kept(hierarchy: Hierarchy, directory: str) -> bool:
    return bool(_kept) and _kept[0] == os.getpid() and directory == common_parent(hierarchy)


def is_marked(directory: str) -> bool:
    """Whether the cgroup was made because a container needed a parent."""
    for name in MADE_FOR_CONTAINERS:
        try:
            return os.getxattr(directory, name) == b"1"
        except OSError:
            continue
    return False


def is_own(hierarchy: Hierarchy, parent: str) -> bool:
    """Whether the cgroup above a container's is mydocker's own: the common one, or one that is marked."""
    return parent == common_parent(hierarchy) or is_marked(parent)
