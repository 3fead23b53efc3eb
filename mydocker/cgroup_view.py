"""The cgroups as a container sees them: a place for each hierarchy below /sys/fs/cgroup, and what is mounted there.

As calls of `mydocker.linux.batch`, or one by one.
"""

from __future__ import annotations

import os

from mydocker.linux import libc, mount, paths
from mydocker.linux.batch import ANY_ERROR
from mydocker.mount_parts import SAFE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.linux.batch import Slot

_RDONLY = mount.MOUNT_ATTR_RDONLY

_OPENAT, _MKDIRAT, _SYMLINKAT = (libc.architecture_number(*numbers) for numbers in ((257, 56), (258, 34), (266, 36)))


class CgroupView:
    """The place of the cgroup mounts, made before the child is in its cgroups, filled when it is.

    The view must be rooted at the container's own cgroups, and a cgroup namespace takes as its root what the
    process is in when it makes it (cgroup_namespaces(7)).
    """

    def __init__(self, root: int, hierarchies: tuple[Hierarchy, ...], *, writable: bool) -> None:
        # Low numbers, free again for `fill`, which may run under a small RLIMIT_NOFILE.
        self.reserved = (os.dup(root), os.dup(root))
        self._parts = parts_of(hierarchies, writable=writable)
        self._slots: Any = None
        try:
            target = paths.open_in_root(root, b"sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return
        self._slots = self._parts.place.run({self._parts.target: target})

    def fill(self) -> None:
        """Mount each hierarchy, in the new cgroup namespace. One that cannot be mounted is left out: it is a view. The
        working directory is the root then, if there is a place for them.
        """
        for fd in self.reserved:
            os.close(fd)
        if self._slots is not None:
            self._parts.fill.run(dict(zip(self._parts.into, self.places, strict=True)))

    @property
    def places(self) -> list[int]:
        """The descriptors of the directories on which `add_filling` mounts the hierarchies, in its order."""
        if self._slots is None:
            return [-1] * len(self._parts.places)
        return [self._slots[place] for place in self._parts.places]


class _CgroupParts:
    """The calls that make the place of the cgroup mounts, and those that fill it."""

    def __init__(self, hierarchies: tuple[Hierarchy, ...], *, writable: bool) -> None:
        self.place = mount.MountBatch()
        self.target = self.place.slot()
        #: slots in the batch that makes them
        self.places = new_places(self.place, hierarchies)
        add_places(self.place, hierarchies, self.target, self.places)
        self.place.freeze()
        self.fill = mount.MountBatch()
        self.into = new_places(self.fill, hierarchies)
        add_filling(self.fill, hierarchies, self.into, writable=writable)
        self.fill.freeze()


def new_places(batch: mount.MountBatch, hierarchies: tuple[Hierarchy, ...]) -> list[Slot]:
    """Slots for `CgroupView.places`."""
    return [batch.slot() for _ in _shown(hierarchies)]


def add_places(batch: mount.MountBatch, hierarchies: tuple[Hierarchy, ...], target: Slot, places: list[Slot]) -> None:
    """The calls that make the place of the cgroup mounts at ``target``: a tmpfs with a directory for each hierarchy,
    named as on the host, and links where controllers share one. Alone, v2 has none of this.
    """
    if not hierarchies:
        return
    if _only_v2(hierarchies):
        batch.duplicate(target, to=places[0])
        batch.close(target)
        return
    tmpfs = batch.new_filesystem(b"tmpfs", ((b"mode", b"755"), (b"size", b"64k")), SAFE)
    for (_, name, links), place in zip(named_places(hierarchies), places, strict=True):
        batch.call(_MKDIRAT, tmpfs, name, 0o755)
        batch.call(_OPENAT, tmpfs, name, os.O_PATH | os.O_CLOEXEC, to=place)
        for link in links:
            batch.call(_SYMLINKAT, name, tmpfs, link)
    batch.attach(tmpfs, target)
    batch.set_attributes(tmpfs, set_=_RDONLY)
    batch.close(target, tmpfs)


def add_filling(
    batch: mount.MountBatch,
    hierarchies: tuple[Hierarchy, ...],
    places: list[Slot],
    *,
    writable: bool,
    only: Callable[[Hierarchy], bool] = lambda _: True,
) -> None:
    """The calls of `CgroupView.fill`, for its places in these slots. ``only``: for which hierarchies.

    By mount(2), which takes two thirds of the time. Where that is refused, by the mount API by descriptors: on what is
    cgroup2 already mount(2) mounts no other one (EBUSY), and a security module may know but the old call.
    """
    for hierarchy, into in zip(_shown(hierarchies), places, strict=True):
        if not only(hierarchy):
            continue
        fstype, options = _cgroup_filesystem(hierarchy)
        attributes = SAFE | (0 if writable else _RDONLY)
        first = len(batch)
        batch.mount_at(into, fstype, options, attributes)
        done = len(batch)
        batch.pass_over(0)
        for index in range(first, done):
            batch.go_on_from_here(index, ANY_ERROR)
        new = batch.new_filesystem(fstype, options, attributes)
        batch.attach(new, into)
        batch.close(new)
        batch.optional(done + 1)
        batch.set_pass_over(done, len(batch) - done - 1)
        first = len(batch)
        batch.close(into)
        batch.optional(first)
    batch.go_to_root()


def _shown(hierarchies: tuple[Hierarchy, ...]) -> list[Hierarchy]:
    """Those that have a place."""
    return list(hierarchies) if _only_v2(hierarchies) else [hierarchy for hierarchy, _, _ in named_places(hierarchies)]


_cgroups: dict[tuple[tuple[Hierarchy, ...], bool], _CgroupParts] = {}


def parts_of(hierarchies: tuple[Hierarchy, ...], *, writable: bool) -> _CgroupParts:
    """Worked out once in a process."""
    key = (hierarchies, writable)
    found = _cgroups.get(key)
    if found is None:
        found = _cgroups[key] = _CgroupParts(hierarchies, writable=writable)
    return found


def _only_v2(hierarchies: tuple[Hierarchy, ...]) -> bool:
    return len(hierarchies) == 1 and hierarchies[0].version == 2


def named_places(hierarchies: tuple[Hierarchy, ...]) -> list[tuple[Hierarchy, bytes, list[bytes]]]:
    """Each hierarchy, the directory for it, which is named as on the host, and the links that lead there."""
    places: list[tuple[Hierarchy, bytes, list[bytes]]] = []
    taken: set[bytes] = set()
    for hierarchy in hierarchies:
        name = os.fsencode(os.path.basename(hierarchy.mountpoint))
        if name in taken:
            continue
        taken.add(name)
        links = []
        for controller in hierarchy.controllers if hierarchy.version == 1 else ():
            link = os.fsencode(controller.partition("=")[2] or controller)
            if link not in taken:
                taken.add(link)
                links.append(link)
        places.append((hierarchy, name, links))
    return places


def places_of_hierarchies(tmpfs: int, hierarchies: tuple[Hierarchy, ...]) -> list[tuple[Hierarchy, int]]:
    """`named_places` made in a tmpfs: each hierarchy with the descriptor of its directory."""
    places = []
    for hierarchy, name, links in named_places(hierarchies):
        os.mkdir(name, 0o755, dir_fd=tmpfs)
        for link in links:
            os.symlink(name, link, dir_fd=tmpfs)
        places.append((hierarchy, os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=tmpfs)))
    return places


def new_view(hierarchy: Hierarchy, attributes: int) -> int:
    """The hierarchy as this process's cgroup namespace shows it, detached."""
    return mount.new_filesystem(*_cgroup_filesystem(hierarchy), attributes)


def _cgroup_filesystem(hierarchy: Hierarchy) -> tuple[bytes, list[tuple[bytes, bytes | None]]]:
    """Its type and the options that name it."""
    options: list[tuple[bytes, bytes | None]] = []
    if hierarchy.version == 1:
        for controller in hierarchy.controllers:
            key, _, value = os.fsencode(controller).partition(b"=")
            options += [(b"none", None), (key, value)] if value else [(key, None)]
    return b"cgroup2" if hierarchy.version == 2 else b"cgroup", options
