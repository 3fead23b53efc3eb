"""What config.json asks of the file system, read and refused by the runtime before anything exists.

The options are sorted, paths are tidied, and what only the runtime may do is done: binds whose ids are mapped, and
binds of sources that the container's user namespace may not reach.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker.errors import OciError
from mydocker.linux import mount, process
from mydocker.oci import devices, host_mounts, mount_options
from mydocker.oci.mount_options import MountOptions
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from mydocker.oci.devices import Device
    from mydocker.oci.idmaps import IdMaps

_PROPAGATIONS = {
    "private": mount.MS_PRIVATE,
    "slave": mount.MS_SLAVE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}


class Entry(Value):
    """One mount of the config.

    ``tree``    descriptor of a bind that the runtime has made of the source, or -1.
    ``mapped``  whether the ids of ``tree`` are mapped: then no other will do.
    ``id_map``  descriptor of a user namespace with the map that the child is to give the bind, or -1.
    ``asked``   whether the child is to ask for the bind (`mydocker.oci.outside`).
    """

    destination: bytes
    source: bytes
    fstype: bytes
    options: MountOptions
    tree: int = -1
    mapped: bool = False
    id_map: int = -1
    asked: bool = False

    @property
    def doing(self) -> str:
        return f"mount {self}"

    def __str__(self) -> str:
        what = os.fsdecode(self.source or self.fstype)
        return f'"{what}" to rootfs at "{os.fsdecode(self.destination)}"'


class MountPlan(Value):
    """What the child is to do.

    ``rootfs``        the directory, without links.
    ``tree``          descriptor of a bind of it that the runtime has made, or -1.
    ``asking``        descriptor on which the child asks for binds that only the runtime may make, or -1.
    ``pivot``         pivot_root(2), or else MS_MOVE and chroot(2).
    ``private``       whether the child is in a mount namespace that is not the runtime's.
    ``userns``        whether the child is in a user namespace that is not the first.
    ``propagation``   of the root: (type, whether recursive), or (0, False).
    ``own_cgroups``   whether the container has a cgroup namespace.
    ``own_dev``       whether /dev is made by the runtime: not where the config binds one.
    ``nodes``         what `devices.make_outside` has returned.
    ``label``         the SELinux label of what is mounted, if any.
    """

    rootfs: str
    tree: int
    asking: int
    pivot: bool
    private: bool
    userns: bool
    readonly: bool
    propagation: tuple[int, bool]
    entries: tuple[Entry, ...]
    own_cgroups: bool
    own_dev: bool
    devices: tuple[Device, ...]
    nodes: int
    masked: tuple[bytes, ...]
    protected: tuple[bytes, ...]
    label: bytes

    @property
    def descriptors(self) -> frozenset[int]:
        """What the child must still have open when it calls `assemble`."""
        own = (fd for entry in self.entries for fd in (entry.tree, entry.id_map))
        return frozenset(fd for fd in (self.tree, self.asking, self.nodes, *own) if fd >= 0)

    def close(self) -> None:
        """For the runtime, when the child has its copies."""
        for fd in self.descriptors:
            os.close(fd)


def prepare(config: Mapping[str, Any], bundle: str, *, pivot: bool = True) -> MountPlan:
    """Read what the config asks for. OciError for what cannot be done.

    In the runtime, in the mount namespace in which the sources of binds are to be looked up.
    """
    linux = config.get("linux", {})
    namespaces = {entry["type"]: entry.get("path", "") for entry in linux.get("namespaces", ())}
    userns = "user" in namespaces or not process.in_initial_user_namespace()
    propagation = _propagation(linux.get("rootfsPropagation", ""))
    if not pivot and propagation[0] == mount.MS_PRIVATE:
        raise OciError("rootfsPropagation of [r]private is not safe without pivot_root")
    private = host_mounts.are_private(config)
    if not private:
        host_mounts.check(config)
    rootfs = _rootfs(config["root"]["path"], bundle)
    entries: list[Entry] = []
    wanted = devices.plan(linux)
    tree = asking = nodes = -1
    try:
        for number, entry in enumerate(config.get("mounts", ())):
            entries.append(_entry(entry, number, bundle, rootfs))
        asking = _add_trees(entries, config.get("mounts", ()), linux, namespaces, userns, rootfs)
        if userns:
            tree = _bound(os.fsencode(rootfs), recursive=True, follow=True)
            if namespaces.get("mount") == "":
                nodes = devices.make_outside(wanted, linux)
    except BaseException:
        for fd in (tree, asking, *(fd for each in entries for fd in (each.tree, each.id_map))):
            if fd >= 0:
                os.close(fd)
        raise
    return MountPlan(
        rootfs=rootfs,
        tree=tree,
        asking=asking,
        pivot=pivot,
        private=private,
        userns=userns,
        readonly=config["root"].get("readonly", False),
        propagation=propagation,
        entries=tuple(entries),
        own_cgroups="cgroup" in namespaces,
        own_dev=not any(entry.options.bind and entry.destination == b"/dev" for entry in entries),
        devices=wanted,
        nodes=nodes,
        masked=_all_absolute(linux.get("maskedPaths", ())),
        protected=_all_absolute(linux.get("readonlyPaths", ())),
        label=_label(linux.get("mountLabel", "")),
    )


def _propagation(word: str) -> tuple[int, bool]:
    if not word:
        return 0, False
    kind = _PROPAGATIONS.get(word) or _PROPAGATIONS.get(word.removeprefix("r"))
    if kind is None:
        raise OciError(f"rootfsPropagation={word} is not supported")
    return kind, word.startswith("r")


def _rootfs(path: str, bundle: str) -> str:
    """The directory with links resolved, once: what is a link in the meantime is not followed again."""
    rootfs = os.path.realpath(os.path.join(bundle, path))
    try:
        if not stat.S_ISDIR(os.stat(rootfs).st_mode):
            raise OciError(f"invalid rootfs: {rootfs} is not a directory")
    except OSError as e:
        raise OciError(f"invalid rootfs: stat {rootfs}: {(e.strerror or '').lower()}") from None
    return rootfs


def _all_absolute(names: list[str]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(_absolute(name) for name in names))


def _absolute(path: str) -> bytes:
    """The path from the container's root, tidied. One that is not absolute is taken from the root as well."""
    return os.path.normpath(b"/" + os.fsencode(path).lstrip(b"/"))


def _label(label: str) -> bytes:
    """The label, on a host with SELinux; elsewhere it means nothing."""
    return os.fsencode(label) if label and os.path.exists("/sys/fs/selinux/enforce") else b""


def _entry(entry: Mapping[str, Any], number: int, bundle: str, rootfs: str) -> Entry:
    fstype = entry.get("type", "")
    source = entry.get("source", "")
    destination = entry["destination"]

    def refuse(reason: str) -> OciError:
        return OciError(f'invalid mount mounts[{number}] at "{destination}": {reason}')

    if "\0" in fstype + source + destination:
        raise refuse("a mount field contains a null byte")
    try:
        options = mount_options.parse(entry.get("options", ()), fstype)
    except ValueError as e:
        raise refuse(str(e)) from None
    if options.bind:
        fstype = "bind"
        if not options.remount and not source:
            raise refuse("a bind mount needs a source")
        source = os.path.join(bundle, source)
    elif not fstype and not options.remount:
        raise refuse("a mount needs a type, or the option bind")
    mapped = options.idmap or entry.get("uidMappings") or entry.get("gidMappings")
    if mapped and (not options.bind or options.remount):
        raise refuse("only a bind mount can be id-mapped")
    if options.copy_up and fstype != "tmpfs":
        raise refuse("tmpcopyup is an option of tmpfs")
    # As runc: a place below the rootfs may also be named as the host knows it.
    inside = destination.removeprefix(rootfs) if destination.startswith(f"{rootfs}/") else destination
    return Entry(
        destination=_absolute(inside),
        source=os.fsencode(source),
        fstype=os.fsencode(fstype),
        options=options,
    )


def _add_trees(
    entries: list[Entry],
    wanted: list[Mapping[str, Any]],
    linux: Mapping[str, Any],
    namespaces: Mapping[str, str],
    userns: bool,
    rootfs: str,
) -> int:
    """Make the binds that the child cannot make, and put their descriptors into ``entries``.

    The descriptor on which the child asks for those that cannot be made yet, or -1.

    From a user namespace not every source can be reached, and a map of ids can be given only outside of it. Without one
    the child gives it, so that the mounts that it has made before are there.
    """
    idmaps: IdMaps | None = None
    later: list[Callable[[], int]] = []
    try:
        for number, entry in enumerate(wanted):
            planned = entries[number]
            mapped = planned.options.idmap or entry.get("uidMappings")
            if not planned.options.bind or planned.options.remount or not (mapped or userns):
                continue
            found: dict[str, Any]
            if not mapped:
                made_later = _shows_mounts_of(planned, entries[:number], rootfs)
                found = {"tree": -1 if made_later else _host_tree(planned)}
            else:
                if idmaps is None:
                    from mydocker.oci.idmaps import IdMaps

                    idmaps = IdMaps()
                try:
                    id_map = _id_map(entry, linux, namespaces, idmaps)
                    if not userns:
                        found = {"id_map": os.dup(id_map)}
                    elif _shows_mounts_of(planned, entries[:number], rootfs):
                        found = {"asked": True}
                        later.append(_mapped_later(planned, id_map))
                    else:
                        found = {"tree": _mapped_tree(planned, id_map), "mapped": True}
                except OSError as e:
                    where = f'invalid mount mounts[{number}] at "{entry["destination"]}"'
                    raise OciError(f"{where}: {entry['source']} cannot be id-mapped: {e.strerror}") from None
            entries[number] = Entry(**{**planned.__dict__, **found})
        if not later:
            return -1
        from mydocker.oci import outside

        return outside.start(later)
    finally:
        if idmaps is not None:
            idmaps.close()


def _shows_mounts_of(entry: Entry, earlier: list[Entry], rootfs: str) -> bool:
    """Whether the source is a place in the rootfs that earlier mounts make other than it is now."""
    prefix = os.fsencode(rootfs)
    source = os.path.realpath(entry.source) + b"/"
    if not source.startswith(prefix + b"/"):
        return False
    inside = source.removeprefix(prefix)
    places = [each.destination.rstrip(b"/") + b"/" for each in earlier]
    return any(inside.startswith(place) or place.startswith(inside) for place in places)


def _host_tree(entry: Entry) -> int:
    """A bind of the source made by the runtime, in case the child may not; -1 if the runtime may not either."""
    return _bound(entry.source, entry.options.recursive, entry.options.follow_source)


def _bound(source: bytes, recursive: bool, follow: bool) -> int:
    try:
        tree = mount.clone_tree(mount.AT_FDCWD, source, recursive=recursive, follow=follow)
    except OSError:
        return -1
    mount.set_attributes(tree, propagation=mount.MS_SLAVE, recursive=True)
    return tree


def _id_map(
    entry: Mapping[str, Any], linux: Mapping[str, Any], namespaces: Mapping[str, str], idmaps: IdMaps
) -> int:
    """The user namespace with the mount's maps; without any of its own they are the container's."""
    uids, gids = entry.get("uidMappings"), entry.get("gidMappings")
    if not uids or not gids:
        if namespaces.get("user"):
            return idmaps.at(namespaces["user"])
        uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
        if "user" not in namespaces or not uids or not gids:
            raise OSError(errno.EINVAL, "neither the mount has uidMappings and gidMappings nor the container")
    return idmaps.of(uids, gids)


def _mapped_later(entry: Entry, userns: int) -> Callable[[], int]:
    return lambda: _mapped_tree(entry, userns)


def _mapped_tree(entry: Entry, userns: int) -> int:
    tree = mount.clone_tree(mount.AT_FDCWD, entry.source, recursive=entry.options.recursive, follow=True)
    try:
        mount.set_attributes(tree, propagation=mount.MS_SLAVE, recursive=True)
        map_ids(tree, entry.options, userns)
    except OSError:
        os.close(tree)
        raise
    return tree


def map_ids(tree: int, options: MountOptions, userns: int) -> None:
    """Let the bind show ids by the map of a user namespace; with ``ridmap`` so do the mounts below it."""
    mount.set_attributes(tree, set_=mount.MOUNT_ATTR_IDMAP, userns=userns, recursive=options.idmap == "ridmap")
