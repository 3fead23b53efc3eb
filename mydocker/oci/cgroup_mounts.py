"""What a container sees of cgroups: the mounts of the types ``cgroup`` and ``cgroup2`` in config.json.

Their places are made in the order of the config, and filled when the container is in its cgroups: what a mount shows is
fixed when it is made.
"""

from __future__ import annotations

import errno
import os

from mydocker import cgroup_view, mount_parts
from mydocker.cgroups.layout import Layout
from mydocker.linux import mount
from mydocker.oci.mount_entry import attach, check_target, directory_for
from mydocker.oci.mount_options import BIND_ATTRIBUTES
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.oci.mount_entry import Root
    from mydocker.oci.mount_plan import Entry


class CgroupPlace(Value):
    """Where a hierarchy goes. ``among``: (descriptor of the directory that it is in, its name), on v1."""

    entry: Entry
    hierarchy: Hierarchy | None
    place: int
    among: tuple[int, bytes] | None = None


def make_places(entry: Entry, root: Root, hierarchies: tuple[Hierarchy, ...]) -> None:
    """Make the places; what is shown depends on the cgroups in which the child is when they are filled."""
    target, _ = directory_for(entry, root)
    check_target(entry, root, target)
    v2 = next((hierarchy for hierarchy in hierarchies if hierarchy.version == 2), None)
    # Where v2 has the usual place to itself, somebody may still have mounted a v1 hierarchy elsewhere.
    unified = v2 is not None and v2.mountpoint == "/sys/fs/cgroup"
    if entry.fstype == b"cgroup2" or unified or not hierarchies:
        if v2 is None and entry.fstype == b"cgroup":
            raise OSError(errno.ENODEV, "no cgroup hierarchy is mounted on the host")
        root.cgroups.append(CgroupPlace(entry=entry, hierarchy=v2, place=target))
        return
    tmpfs = mount.new_filesystem(b"tmpfs", ((b"mode", b"755"),), mount_parts.SAFE)
    for hierarchy, place in cgroup_view.places_of_hierarchies(tmpfs, hierarchies):
        name = os.fsencode(os.path.basename(hierarchy.mountpoint))
        among = (os.dup(tmpfs), name)
        root.cgroups.append(CgroupPlace(entry=entry, hierarchy=hierarchy, place=place, among=among))
    attach(entry, root, tmpfs, target)
    if entry.options.readonly:
        mount.set_attributes(tmpfs, set_=mount.MOUNT_ATTR_RDONLY)
    os.close(tmpfs)
    os.close(target)


def fill(root: Root) -> None:
    """Mount the cgroup hierarchies in their places.

    In the child, between `assemble` and `finish`, when it is in its cgroups and, if it is to have one, in its cgroup
    namespace: the namespace's root is what is shown (cgroup_namespaces(7)). Without one its own cgroups are bound.
    """
    own: dict[str, str] | None = None
    for place in root.cgroups:
        root.step.doing = place.entry.doing
        if place.among is not None and not _is_bare(place, place.among):
            continue  # the config has put something of its own there
        attributes = place.entry.options.attributes
        if place.hierarchy is None:
            view = mount.new_filesystem(b"cgroup2", place.entry.options.data, attributes)
        else:
            try:
                if place.among is not None and not root.plan.own_cgroups:
                    raise PermissionError(errno.EPERM, "a new mount would show the cgroups of all")
                view = cgroup_view.new_view(place.hierarchy, attributes)
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.EBUSY):
                    raise
                own = own if own is not None else _own_cgroups()
                view = _own_cgroup(place.hierarchy, own, attributes)
        attach(place.entry, root, view, place.place)
        os.close(view)
    for place in root.cgroups:
        os.close(place.place)
        if place.among is not None:
            os.close(place.among[0])
    root.cgroups = []


def _is_bare(place: CgroupPlace, among: tuple[int, bytes]) -> bool:
    directory, name = among
    return os.stat(name, dir_fd=directory).st_dev == os.fstat(place.place).st_dev


def _own_cgroups() -> dict[str, str]:
    """Mount point to directory of this process's cgroup, for each hierarchy."""
    return {h.mountpoint: h.mountpoint + h.own.rstrip("/") for h in Layout.read().hierarchies if h.own}


def _own_cgroup(hierarchy: Hierarchy, own: Mapping[str, str], attributes: int) -> int:
    path = own.get(hierarchy.mountpoint)
    if path is None:
        raise OSError(errno.ENOENT, f"the container's cgroup is not seen at {hierarchy.mountpoint}")
    view = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path), recursive=False)
    mount.set_attributes(view, set_=attributes & BIND_ATTRIBUTES)
    return view
