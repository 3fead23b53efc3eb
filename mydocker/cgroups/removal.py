"""Removing cgroups. What is still in one (`mydocker.cgroups.contents`) goes first."""

from __future__ import annotations

import errno
import os
import time

from mydocker.cgroups import files, places
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mydocker.cgroups.layout import Hierarchy, Layout

#: Seconds that the kernel gets to end killed processes. One in uninterruptible sleep (a hung disk) outlasts it.
PATIENCE = 5.0

#: What the kernel says of a cgroup that was removed.
GONE = (errno.ENOENT, errno.ENODEV)


def remove_stale(layout: Layout, path: str) -> None:
    """Remove the cgroup ``path`` wherever it exists, with what runs in it: what a killed runtime left behind.

    Its parents go too where it was killed before it had made more than them. Two system calls for each hierarchy
    where there is nothing. Raises as `remove_everywhere` does.

    A plain user's may have the name of one of root's, whose cgroup is in the same place: that he may not write.
    """
    path = places.checked_path(path)
    everywhere = [(hierarchy, f"{hierarchy.base}/{path}") for hierarchy in layout.hierarchies]
    found = [(hierarchy, directory) for hierarchy, directory in everywhere if os.access(directory, os.W_OK)]
    remove_everywhere(found, path, lambda hierarchy: None)
    for hierarchy, directory in everywhere:
        if (hierarchy, directory) not in found:
            remove_parents(hierarchy, path)


def remove_everywhere(
    made: Iterable[tuple[Hierarchy, str]], path: str, removed: Callable[[Hierarchy], object]
) -> None:
    """Kill what is left in the cgroup ``path``, remove it with all that is nested in it, then its parents if empty.

    ``made``: the hierarchies in which it is, each with its directory. ``removed`` is told of each that has lost it.
    `CgroupError` if something stays; the rest is removed all the same.
    """
    problem: CgroupError | None = None
    for hierarchy, directory in freezer_first(made):
        try:
            remove(directory, hierarchy.version)
        except CgroupError as e:
            problem = problem or e
        else:
            removed(hierarchy)
            remove_parents(hierarchy, path)
    if problem is not None:
        raise problem


def freezer_first(made: Iterable[tuple[Hierarchy, str]]) -> list[tuple[Hierarchy, str]]:
    """Where the kernel can stop processes first: what is frozen does not fork while it is killed."""
    return sorted(made, key=lambda place: "freezer" not in place[0].controllers)


def remove_parents(hierarchy: Hierarchy, path: str) -> None:
    """Those above the cgroup ``path`` that are empty now and were made for containers."""
    for parent in reversed(places.directories(hierarchy, path)[:-1]):
        if places.is_kept(hierarchy, parent):
            break
        if not places.is_own(hierarchy, parent) or not remove_if_empty(parent):
            break


def remove(directory: str, version: int, patience: float = PATIENCE) -> None:
    """Remove the cgroup, after killing what is in it and removing what is nested in it. Fine if it is gone.

    `CgroupError` if something stays after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    pause = 0.0002
    while not rmdir(directory):
        from mydocker.cgroups import contents  # mostly there is nothing in it

        if time.monotonic() > deadline:
            left = contents.pids(directory)
            what = f"{contents.processes(left)} in it do not end when killed" if left else "the kernel keeps it busy"
            raise CgroupError(f"cannot remove the cgroup {directory}: {what}", errno.EBUSY)
        contents.kill(directory, version)
        if not contents.remove_nested(directory):
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def remove_if_empty(directory: str) -> bool:
    """Remove the cgroup if it holds nothing. Whether it is gone."""
    try:
        return rmdir(directory)
    except CgroupError:
        return False


def rmdir(directory: str, parent: int | None = None) -> bool:
    """Whether the cgroup is gone; False if it holds processes or cgroups."""
    try:
        files.remove_directory(directory, parent)
    except OSError as e:
        if e.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        if e.errno not in GONE:
            raise files.refused("remove the cgroup", directory, e) from e
    return True
