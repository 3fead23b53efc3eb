"""The file system of a container of config.json: planned by the runtime, assembled and finished by the child.

`prepare` reads the options and refuses what cannot be done. `assemble` makes the mounts, in the order of the config,
below the directory of the rootfs, where hooks of the runtime and of ``createContainer`` find them. `finish` hides and
protects paths and makes the rootfs ``/``. `fill_cgroups` comes between the two, when the child is in its cgroups.

The rootfs may have been made by somebody who wants to get out of it, and may be changed while this works, by another
container that shares it. So whatever is in it is opened once, with `mydocker.linux.paths`, and what was opened is
what is mounted on; what lies below /proc and /sys is looked up from the mount that was made there and not by name.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import mounts
from mydocker.cgroups.layout import Layout
from mydocker.errors import OciError
from mydocker.linux import mount, oldmount, paths, process, statfs
from mydocker.oci import copy_up, devices, mount_options
from mydocker.oci.mount_options import BIND_ATTRIBUTES, MountOptions
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.mounts import Step
    from mydocker.oci.devices import Device
    from mydocker.oci.idmaps import IdMaps

_PROPAGATIONS = {
    "private": mount.MS_PRIVATE,
    "slave": mount.MS_SLAVE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}

#: What lxcfs and its like may be bound over in /proc; all else there is the kernel's own to tell.
_ALLOWED_IN_PROC = frozenset(
    b"/proc/" + name
    for name in (
        b"cpuinfo",
        b"diskstats",
        b"loadavg",
        b"meminfo",
        b"net/dev",
        b"slabinfo",
        b"stat",
        b"swaps",
        b"sys/crypto/fips_enabled",
        b"sys/kernel/ns_last_pid",
        b"uptime",
    )
)

#: What a user namespace may not mount anew where it does not own the namespace that it shows: the host's is bound.
_BOUND_INSTEAD = {b"proc": b"/proc", b"sysfs": b"/sys", b"mqueue": b"/dev/mqueue"}

_TYPES_WITHOUT_LABEL = frozenset((b"proc", b"sysfs", b"mqueue", b"cgroup", b"cgroup2"))

#: Bits of mount(2) for those of the mount API.
_OLD_FLAGS = (
    (mount.MOUNT_ATTR_RDONLY, oldmount.MS_RDONLY),
    (mount.MOUNT_ATTR_NOSUID, oldmount.MS_NOSUID),
    (mount.MOUNT_ATTR_NODEV, oldmount.MS_NODEV),
    (mount.MOUNT_ATTR_NOEXEC, oldmount.MS_NOEXEC),
    (mount.MOUNT_ATTR_NOATIME, oldmount.MS_NOATIME),
    (mount.MOUNT_ATTR_STRICTATIME, oldmount.MS_STRICTATIME),
    (mount.MOUNT_ATTR_NODIRATIME, oldmount.MS_NODIRATIME),
    (mount.MOUNT_ATTR_NOSYMFOLLOW, oldmount.MS_NOSYMFOLLOW),
)
_OLD_SUPERBLOCK_FLAGS = {
    b"sync": oldmount.MS_SYNCHRONOUS,
    b"dirsync": oldmount.MS_DIRSYNC,
    b"mand": oldmount.MS_MANDLOCK,
    b"lazytime": oldmount.MS_LAZYTIME,
    b"ro": oldmount.MS_RDONLY,
}


class Entry(Value):
    """One mount of the config. ``tree``: descriptor of a bind that the runtime has made of the source, or -1."""

    destination: bytes
    source: bytes
    fstype: bytes
    options: MountOptions
    tree: int = -1

    @property
    def doing(self) -> str:
        what = os.fsdecode(self.source or self.fstype)
        return f'mount "{what}" to rootfs at "{os.fsdecode(self.destination)}"'


class MountPlan(Value):
    """What the child is to do.

    ``rootfs``        the directory, without links.
    ``tree``          descriptor of a bind of it that the runtime has made, or -1.
    ``pivot``         pivot_root(2), or else MS_MOVE and chroot(2).
    ``userns``        whether the child is in a user namespace that is not the first.
    ``propagation``   of the root: (type, whether recursive), or (0, False).
    ``own_cgroups``   whether the container has a cgroup namespace.
    ``own_dev``       whether /dev is made by the runtime: not where the config binds one.
    ``label``         the SELinux label of what is mounted, if any.
    """

    rootfs: str
    tree: int
    pivot: bool
    userns: bool
    readonly: bool
    propagation: tuple[int, bool]
    entries: tuple[Entry, ...]
    own_cgroups: bool
    own_dev: bool
    devices: tuple[Device, ...]
    masked: tuple[bytes, ...]
    protected: tuple[bytes, ...]
    label: bytes

    @property
    def descriptors(self) -> frozenset[int]:
        """What the child must still have open when it calls `assemble`."""
        return frozenset(fd for fd in (self.tree, *(entry.tree for entry in self.entries)) if fd >= 0)

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
    rootfs = _rootfs(config["root"]["path"], bundle)
    entries: list[Entry] = []
    tree = -1
    try:
        for number, entry in enumerate(config.get("mounts", ())):
            entries.append(_entry(entry, number, bundle))
        _add_trees(entries, config.get("mounts", ()), linux, namespaces, userns)
        if userns:
            tree = _host_tree(os.fsencode(rootfs), recursive=True)
    except BaseException:
        for each in entries:
            if each.tree >= 0:
                os.close(each.tree)
        raise
    return MountPlan(
        rootfs=rootfs,
        tree=tree,
        pivot=pivot,
        userns=userns,
        readonly=config["root"].get("readonly", False),
        propagation=propagation,
        entries=tuple(entries),
        own_cgroups="cgroup" in namespaces,
        own_dev=not any(entry.options.bind and entry.destination == b"/dev" for entry in entries),
        devices=devices.plan(linux),
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
    return tuple(_absolute(name) for name in names)


def _absolute(path: str) -> bytes:
    """The path from the container's root, tidied. One that is not absolute is taken from the root as well."""
    return os.path.normpath(b"/" + os.fsencode(path).lstrip(b"/"))


def _label(label: str) -> bytes:
    """The label, on a host with SELinux; elsewhere it means nothing."""
    return os.fsencode(label) if label and os.path.exists("/sys/fs/selinux/enforce") else b""


def _entry(entry: Mapping[str, Any], number: int, bundle: str) -> Entry:
    fstype = entry.get("type", "")
    source = entry.get("source", "")
    destination = entry["destination"]

    def refuse(reason: str) -> OciError:
        return OciError(f'mounts[{number}] at "{destination}": {reason}')

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
    return Entry(
        destination=_absolute(destination),
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
) -> None:
    """Make the binds that the child cannot make, and put their descriptors into ``entries``.

    A map of ids is for the owner of the file system to give, and from a user namespace not every source can be reached.
    """
    idmaps: IdMaps | None = None
    try:
        for number, entry in enumerate(wanted):
            planned = entries[number]
            mapped = planned.options.idmap or entry.get("uidMappings")
            if not planned.options.bind or planned.options.remount or not (mapped or userns):
                continue
            if not mapped:
                tree = _host_tree(planned.source, recursive=planned.options.recursive)
            else:
                if idmaps is None:
                    from mydocker.oci.idmaps import IdMaps

                    idmaps = IdMaps()
                try:
                    tree = _mapped_tree(planned, _id_map(entry, linux, namespaces, idmaps))
                except OSError as e:
                    where = f'mounts[{number}] at "{entry["destination"]}"'
                    raise OciError(f"{where}: {entry['source']} cannot be id-mapped: {e.strerror}") from None
            entries[number] = Entry(**{**planned.__dict__, "tree": tree})
    finally:
        if idmaps is not None:
            idmaps.close()


def _host_tree(source: bytes, *, recursive: bool) -> int:
    """A bind of the source made by the runtime, in case the child may not; -1 if the runtime may not either."""
    try:
        tree = mount.clone_tree(mount.AT_FDCWD, source, recursive=recursive, follow=True)
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


def _mapped_tree(entry: Entry, userns: int) -> int:
    tree = mount.clone_tree(mount.AT_FDCWD, entry.source, recursive=entry.options.recursive, follow=True)
    try:
        mount.set_attributes(tree, propagation=mount.MS_SLAVE, recursive=True)
        below = entry.options.idmap == "ridmap"
        mount.set_attributes(tree, set_=mount.MOUNT_ATTR_IDMAP, userns=userns, recursive=below)
    except OSError:
        os.close(tree)
        raise
    return tree


class Root:
    """The root while it is made, by descriptors.

    ``fd``      the root.
    ``devpts``  the root of the devpts at its /dev/pts, or -1.
    """

    def __init__(self, fd: int, plan: MountPlan, step: Step) -> None:
        self.fd = fd
        self.plan = plan
        self.step = step
        self.devpts = -1
        #: the mounts at /proc and /sys: what is said of paths below them holds for these and not for their names
        self.kernel: dict[bytes, int] = {}
        #: mounts that become read-only when all is in place
        self.late: list[tuple[Entry, int]] = []
        self.cgroups: list[_CgroupPlace] = []

    def close(self) -> None:
        """For the child, when it is done with them."""
        for fd in (self.fd, self.devpts):
            if fd >= 0:
                os.close(fd)
        self.fd = self.devpts = -1


class _CgroupPlace(Value):
    """Where a hierarchy goes. ``among``: (descriptor of the directory that it is in, its name), on v1."""

    entry: Entry
    hierarchy: Hierarchy | None
    place: int
    among: tuple[int, bytes] | None = None


def assemble(plan: MountPlan, step: Step, hierarchies: tuple[Hierarchy, ...]) -> Root:
    """Make the root and all mounts but those of cgroups; nothing is hidden yet, and ``/`` is still the host's.

    In the child, in its mount namespace. ``hierarchies``: the host's, for mounts of the type ``cgroup``.
    """
    umask = os.umask(0)  # what is made here has the mode that was asked for
    step.doing = "set the propagation of the mounts"
    _separate(plan)
    step.doing = f"use {plan.rootfs} as the root"
    root = Root(_attach_root(plan), plan, step)
    for entry in plan.entries:
        step.doing = entry.doing
        _mount(entry, plan, root, hierarchies)
    if plan.own_dev:
        devices.make(root.fd, plan.devices, step, bind=plan.userns)
        devices.make_links(root.fd, step)
    root.devpts = _devpts(root.fd)
    os.umask(umask)
    return root


def _separate(plan: MountPlan) -> None:
    """Let nothing that is mounted from here on reach the host, unless the config shares the mounts with it.

    Without a wish the mounts stay slaves: what the host mounts in a volume later is seen in the container.
    """
    kind = plan.propagation[0]
    if kind == mount.MS_SHARED:
        return
    mount.set_propagation_of_all(mount.MS_SLAVE if kind in (0, mount.MS_SLAVE) else mount.MS_PRIVATE)


def _attach_root(plan: MountPlan) -> int:
    """Bind the rootfs over itself: pivot_root(2) wants a mount, and hooks know it by its path."""
    kind, below = plan.propagation
    try:
        place = os.open(plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = mount.clone_tree(place)
        if plan.tree >= 0:
            os.close(plan.tree)
    except PermissionError:
        if plan.tree < 0:
            raise
        # A directory above is closed to the user namespace. Covering ``/`` does as well, only hooks do not see it.
        place, tree = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), plan.tree
    if kind == mount.MS_SHARED:
        _make_mount_private(place)
    if below and kind in (mount.MS_SHARED, mount.MS_UNBINDABLE):
        mount.set_attributes(tree, propagation=kind, recursive=True)
    if kind == mount.MS_SHARED or below:
        mount.set_attributes(tree, propagation=mount.MS_PRIVATE)  # pivot_root(2) takes no shared one
    mount.attach(tree, place)
    os.close(place)
    return tree


def _make_mount_private(fd: int) -> None:
    """Make the mount private that the descriptor is on, of which it need not be the root."""
    number = b"%d" % statfs.mount_id(fd)
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            fields = line.split(b" ")
            if fields[0] == number:
                path = mounts.unescape(fields[4])
                mountpoint = os.open(path, os.O_PATH | os.O_CLOEXEC)
                mount.set_attributes(mountpoint, propagation=mount.MS_PRIVATE)
                os.close(mountpoint)
                return


def _devpts(root: int) -> int:
    try:
        fd = paths.open_in_root(root, b"dev/pts", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return -1
    if statfs.filesystem_type(fd) == statfs.DEVPTS:
        return fd
    os.close(fd)
    return -1


def _mount(entry: Entry, plan: MountPlan, root: Root, hierarchies: tuple[Hierarchy, ...]) -> None:
    if entry.options.remount:
        _change(entry, root)
    elif entry.options.bind:
        _bind(entry, plan, root)
    elif entry.fstype in (b"cgroup", b"cgroup2"):
        _place_cgroups(entry, plan, root, hierarchies)
    else:
        _mount_new(entry, plan, root)


def _attach(entry: Entry, root: Root, new: int, target: int) -> None:
    mount.attach(new, target)
    _settle(entry, root, new)


def _settle(entry: Entry, root: Root, new: int) -> None:
    """What can be done only when the mount is in its place: on a shared one it has become shared itself."""
    for kind, recursive in entry.options.propagation:
        mount.set_attributes(new, propagation=kind, recursive=recursive)
    if entry.destination == b"/":
        os.close(root.fd)
        root.fd = os.dup(new)
    elif entry.destination in (b"/proc", b"/sys"):
        before = root.kernel.pop(entry.destination, -1)
        if before >= 0:
            os.close(before)
        root.kernel[entry.destination] = os.dup(new)


def _check_target(entry: Entry, root: Root, target: int, source: int = -1) -> None:
    """Refuse to put something over the container's /proc that could pass for it (CVE-2019-16884, CVE-2019-19921).

    ``source``: the bind. The place is judged by what was opened, not by its name: a link in the root could lead there.
    """
    place = _path_in_root(root, target)
    if place == b"/proc":
        if source >= 0:
            if statfs.filesystem_type(source) == statfs.PROC:
                return
        elif entry.fstype == b"proc":
            return
        raise OSError(errno.EPERM, f'"{os.fsdecode(place)}" cannot be mounted because it is not of type proc')
    if place in _ALLOWED_IN_PROC:
        return
    if place.startswith(b"/proc/") or statfs.filesystem_type(target) == statfs.PROC:
        raise OSError(errno.EPERM, f'"{os.fsdecode(place)}" cannot be mounted because it is inside /proc')


def _path_in_root(root: Root, fd: int) -> bytes:
    """Where in the root the descriptor is, as the kernel tells it (proc(5), /proc/PID/fd)."""
    top = os.fsencode(os.readlink(f"/proc/self/fd/{root.fd}")).rstrip(b"/")
    return os.fsencode(os.readlink(f"/proc/self/fd/{fd}")).removeprefix(top) or b"/"


def _bind(entry: Entry, plan: MountPlan, root: Root) -> None:
    tree = _source_tree(entry)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        target = paths.make_directory_in_root(root.fd, entry.destination)
    else:
        target = paths.make_file_in_root(root.fd, entry.destination, 0o755)
    _check_target(entry, root, target, tree)
    if entry.options.changes:
        _state_attributes(tree, entry.options)
    _set_below(tree, entry.options)
    _attach(entry, root, tree, target)
    os.close(target)
    os.close(tree)


def _source_tree(entry: Entry) -> int:
    """The bind, made here if it can be: then the mounts that come before it count, and locked flags stay locked."""
    if entry.tree >= 0 and entry.options.idmap:
        return entry.tree
    try:
        tree = mount.clone_tree(mount.AT_FDCWD, entry.source, recursive=entry.options.recursive, follow=True)
    except OSError:
        if entry.tree < 0:
            raise
        return entry.tree
    if entry.tree >= 0:
        os.close(entry.tree)
    return tree


def _state_attributes(tree: int, options: MountOptions) -> None:
    """Give the bind the attributes that the options name, and no others; access times only if they speak of them.

    What a user namespace may not take off, it keeps, unless an option says explicitly that it is to go.
    """
    atime = mount.MOUNT_ATTR__ATIME | mount.MOUNT_ATTR_NODIRATIME if options.atime else 0
    wanted = options.attributes if options.atime else options.attributes & BIND_ATTRIBUTES
    try:
        mount.set_attributes(tree, set_=wanted, clear=BIND_ATTRIBUTES | atime)
    except PermissionError:
        mount.set_attributes(tree, set_=wanted, clear=options.cleared & BIND_ATTRIBUTES | atime)


def _set_below(tree: int, options: MountOptions) -> None:
    if options.set_below or options.clear_below:
        mount.set_attributes(tree, set_=options.set_below, clear=options.clear_below, recursive=True)


def _change(entry: Entry, root: Root) -> None:
    """``remount``: change what is mounted there; with ``bind`` only the attributes of the mount."""
    options = entry.options
    target = paths.open_in_root(root.fd, entry.destination)
    if not options.bind:
        oldmount.reconfigure(target, (*options.superblock, *options.data))
    if options.changes:
        _state_attributes(target, options)
    _set_below(target, options)
    _settle(entry, root, target)
    os.close(target)


def _mount_new(entry: Entry, plan: MountPlan, root: Root) -> None:
    target, existed = _directory_for(entry, root)
    _check_target(entry, root, target)
    options = entry.options
    # A tmpfs, and /dev, are still written to by this module.
    late = options.readonly and (entry.fstype == b"tmpfs" or entry.destination == b"/dev")
    attributes = options.attributes & ~(mount.MOUNT_ATTR_RDONLY if late else 0)
    superblock = tuple(pair for pair in options.superblock if not (late and pair[0] == b"ro"))
    data = options.data
    if entry.fstype == b"tmpfs" and existed:
        data = ((b"mode", b"%04o" % stat.S_IMODE(os.fstat(target).st_mode)), *data)
    if plan.label and entry.fstype not in _TYPES_WITHOUT_LABEL:
        data = (*data, (b"context", plan.label))
    values = (entry.source, *(value for _, value in data if value is not None))
    if any(len(value) > mount.MAX_OPTION_VALUE for value in values):
        new = _mount_with_long_options(entry, root, target, attributes, superblock, data)
    else:
        new = _new_filesystem(entry, plan, attributes, (*superblock, *data))
        _set_below(new, options)
        if options.copy_up:
            _copy_up(target, new)
        _attach(entry, root, new, target)
    if plan.label and entry.fstype == b"mqueue":
        os.setxattr(f"/proc/self/fd/{new}", "security.selinux", plan.label)
    os.close(target)
    if late:
        root.late.append((entry, new))
    else:
        os.close(new)


def _directory_for(entry: Entry, root: Root) -> tuple[int, bool]:
    """The directory to mount on, and whether it was there."""
    # /proc and /sys are made where their name says: with a link in their place, all that protects them would miss
    # (CVE-2023-27561).
    links = entry.fstype not in (b"proc", b"sysfs")
    try:
        try:
            return paths.open_in_root(root.fd, entry.destination, os.O_PATH | os.O_DIRECTORY, links=links), True
        except FileNotFoundError:
            return paths.make_directory_in_root(root.fd, entry.destination, links=links), False
    except OSError as e:
        if links or e.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        fstype = os.fsdecode(entry.fstype)
        raise OSError(e.errno, f'filesystem "{fstype}" must be mounted on ordinary directory') from None


def _new_filesystem(
    entry: Entry, plan: MountPlan, attributes: int, options: tuple[tuple[bytes, bytes | None], ...]
) -> int:
    try:
        return mount.new_filesystem(entry.fstype, options, attributes, source=entry.source)
    except PermissionError:
        if not plan.userns or entry.fstype not in _BOUND_INSTEAD:
            raise
        # With all that is mounted below it: that is locked to it.
        tree = mount.clone_tree(mount.AT_FDCWD, _BOUND_INSTEAD[entry.fstype])
        mount.set_attributes(tree, set_=attributes & BIND_ATTRIBUTES, recursive=True)
        return tree


def _mount_with_long_options(
    entry: Entry,
    root: Root,
    target: int,
    attributes: int,
    superblock: tuple[tuple[bytes, bytes | None], ...],
    data: tuple[tuple[bytes, bytes | None], ...],
) -> int:
    """Mount by mount(2), which takes a page of options, and open what is there then: it must be what was mounted."""
    if entry.options.copy_up:
        raise OSError(errno.E2BIG, "with tmpcopyup no option may be longer than 255 bytes")
    flags = 0
    for bit, old in _OLD_FLAGS:
        flags |= old if attributes & bit else 0
    for key, _ in superblock:
        flags |= _OLD_SUPERBLOCK_FLAGS.get(key, 0)
    text = b",".join(key if value is None else key + b"=" + value for key, value in data)
    oldmount.mount_on(target, entry.source or entry.fstype, entry.fstype, flags, text)
    new = paths.open_in_root(root.fd, entry.destination, os.O_PATH | os.O_DIRECTORY)
    if statfs.mount_id(new) == statfs.mount_id(target) or os.fstat(new).st_dev == os.fstat(target).st_dev:
        raise OSError(errno.EAGAIN, "the place was exchanged while it was mounted on")
    _set_below(new, entry.options)
    _settle(entry, root, new)
    return new


def _copy_up(target: int, new: int) -> None:
    """Fill the new tmpfs with what it is going to hide."""
    source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    into = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=new)
    try:
        copy_up.copy_content(source, into)
    finally:
        os.close(source)
        os.close(into)


def _place_cgroups(entry: Entry, plan: MountPlan, root: Root, hierarchies: tuple[Hierarchy, ...]) -> None:
    """Make the places; what is shown depends on the cgroups in which the child is when they are filled."""
    target, _ = _directory_for(entry, root)
    _check_target(entry, root, target)
    v1 = any(hierarchy.version == 1 for hierarchy in hierarchies)
    if entry.fstype == b"cgroup2" or not v1:
        v2 = next((hierarchy for hierarchy in hierarchies if hierarchy.version == 2), None)
        if v2 is None and entry.fstype == b"cgroup":
            raise OSError(errno.ENODEV, "no cgroup hierarchy is mounted on the host")
        root.cgroups.append(_CgroupPlace(entry=entry, hierarchy=v2, place=target))
        return
    tmpfs = mount.new_filesystem(b"tmpfs", ((b"mode", b"755"),), mounts.SAFE)
    for hierarchy, place in mounts.places_of_hierarchies(tmpfs, hierarchies):
        name = os.fsencode(os.path.basename(hierarchy.mountpoint))
        among = (os.dup(tmpfs), name)
        root.cgroups.append(_CgroupPlace(entry=entry, hierarchy=hierarchy, place=place, among=among))
    _attach(entry, root, tmpfs, target)
    if entry.options.readonly:
        mount.set_attributes(tmpfs, set_=mount.MOUNT_ATTR_RDONLY)
    os.close(tmpfs)
    os.close(target)


def bind_console(root: Root, number: int) -> None:
    """Show the pseudo-terminal of this number in the container's devpts as /dev/console. Before `finish`."""
    mounts.bind_console(root.fd, root.devpts, number)


def fill_cgroups(root: Root) -> None:
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
                view = mounts.new_view(place.hierarchy, attributes)
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.EBUSY):
                    raise
                own = own if own is not None else _own_cgroups()
                view = _own_cgroup(place.hierarchy, own, attributes)
        _attach(place.entry, root, view, place.place)
        os.close(view)
    for place in root.cgroups:
        os.close(place.place)
        if place.among is not None:
            os.close(place.among[0])
    root.cgroups = []


def _is_bare(place: _CgroupPlace, among: tuple[int, bytes]) -> bool:
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


def finish(root: Root, plan: MountPlan, step: Step) -> None:
    """Hide and protect paths, and make the root ``/``. In the child; afterwards nothing of the host is in reach."""
    step.doing = "hide paths"
    _hide(root, plan, step)
    for path in plan.protected:
        step.doing = f"make {os.fsdecode(path)} read-only"
        _at(root, path, mounts.make_read_only)
    for entry, fd in root.late:
        step.doing = f'make the mount at "{os.fsdecode(entry.destination)}" read-only'
        mount.set_attributes(fd, set_=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)
    root.late = []
    step.doing = "make the rootfs the root"
    if plan.pivot:
        _pivot(root.fd)
    else:
        _move(root.fd, plan.rootfs)
    for fd in root.kernel.values():
        os.close(fd)
    root.kernel = {}
    kind = plan.propagation[0]
    if kind in (mount.MS_SHARED, mount.MS_UNBINDABLE):
        step.doing = "set the propagation of the root"
        mount.set_attributes(root.fd, propagation=kind)
    if plan.own_dev:
        step.doing = "open the container's /dev/null"
        _exchange_null(root.fd)
    if plan.readonly:
        step.doing = "make the root read-only"
        mount.set_attributes(root.fd, set_=mount.MOUNT_ATTR_RDONLY)


def _hide(root: Root, plan: MountPlan, step: Step) -> None:
    if not plan.masked:
        return
    covers = mounts.Covers()
    for path in plan.masked:
        step.doing = f"hide {os.fsdecode(path)}"
        _at(root, path, covers.hide)
    covers.close()


def _at(root: Root, path: bytes, act: Callable[[int], None]) -> None:
    """Do something with what is at ``path``, if there is anything.

    Below /proc and /sys the way starts at the mount that was made there: in the meantime their names may have been
    given to something else (CVE-2025-31133).
    """
    first, slash, rest = path[1:].partition(b"/")
    base = root.kernel.get(b"/" + first, -1)
    try:
        start, way = (root.fd, path) if base < 0 else (base, rest if slash else b"/")
        target = paths.open_in_root(start, way)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # this kernel or this root does not have it
        raise
    act(target)
    os.close(target)


def _pivot(root: int) -> None:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mount.stack_roots(root)
    # Mounts that are shared with the host would be unmounted there as well.
    mount.set_attributes(old, propagation=mount.MS_SLAVE, recursive=True)
    os.close(old)
    mount.drop_old_root()


def _move(root: int, rootfs: str) -> None:
    """``--no-pivot``: put the root over the old one, which stays below.

    The kernel lets a process mount a new /proc or /sys if the namespace has a full one, and those of the host still are
    in it. They are taken away first, or covered.
    """
    inside = os.fsencode(rootfs.rstrip("/")) + b"/"
    full = []
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            before, _, after = line.partition(b" - ")
            fields = before.split(b" ")
            path = mounts.unescape(fields[4])
            if fields[3] == b"/" and after.split(b" ")[0] in (b"proc", b"sysfs") and not path.startswith(inside):
                full.append(path)
    for path in reversed(full):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # it was below one that is gone
        mount.set_attributes(fd, propagation=mount.MS_SLAVE, recursive=True)
        try:
            oldmount.detach(path)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EPERM):
                raise
            cover = mount.new_filesystem(b"tmpfs")
            mount.attach(cover, fd)
            os.close(cover)
        os.close(fd)
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    mount.attach(root, old)
    os.close(old)
    os.chroot(".")
    os.chdir("/")


def _exchange_null(root: int) -> None:
    """Let standard streams that are the host's /dev/null be the container's: then nothing of the host is held open."""
    held = [fd for fd in (0, 1, 2) if _is_null(fd)]
    if not held:
        return
    probe = paths.open_in_root(root, b"dev/null", links=False)
    try:
        if not mounts.is_null_device(os.fstat(probe)):
            raise OSError(errno.EINVAL, "it is not the null device")
        null = paths.open_in_root(root, b"dev/null", os.O_RDWR, links=False)
    finally:
        os.close(probe)
    if not mounts.is_null_device(os.fstat(null)):
        raise OSError(errno.EINVAL, "it is not the null device")
    for fd in held:
        os.dup2(null, fd)
    os.close(null)


def _is_null(fd: int) -> bool:
    try:
        return mounts.is_null_device(os.fstat(fd))
    except OSError:
        return False
