"""One mount of config.json, made in the root of a container.

The root may have been made by somebody who wants to get out of it, and may be changed while this works, by another
container that shares it. So the place is opened once, with `mydocker.linux.paths`, and what was opened is what is
mounted on.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker.linux import mount, oldmount, paths, statfs
from mydocker.oci import copy_up
from mydocker.oci.mount_options import BIND_ATTRIBUTES, MountOptions
from mydocker.oci.mount_plan import map_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.oci.cgroup_mounts import CgroupPlace
    from mydocker.oci.mount_plan import Entry, MountPlan
    from mydocker.step import Step

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
_BOUND_INSTEAD = {
    b"proc": (b"/proc", statfs.PROC),
    b"sysfs": (b"/sys", statfs.SYSFS),
    b"mqueue": (b"/dev/mqueue", statfs.MQUEUE),
}

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
        self.cgroups: list[CgroupPlace] = []


def attach(entry: Entry, root: Root, new: int, target: int) -> None:
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


def check_target(entry: Entry, root: Root, target: int, source: int = -1) -> None:
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


def bind(entry: Entry, root: Root) -> None:
    tree = _source_tree(entry, root)
    kind = stat.S_IFMT(os.fstat(tree).st_mode)
    if kind == stat.S_IFLNK and entry.options.copy_link:
        _copy_link(tree, entry, root)
        os.close(tree)
        return
    target = _target_of_bind(entry, root, kind == stat.S_IFDIR)
    check_target(entry, root, target, tree)
    if entry.options.changes:
        _state_attributes(tree, entry.options)
    _set_below(tree, entry.options)
    attach(entry, root, tree, target)
    os.close(target)
    os.close(tree)


def _target_of_bind(entry: Entry, root: Root, is_directory: bool) -> int:
    if not entry.options.follow_target:
        parent_path, name = os.path.split(entry.destination)
        parent = paths.make_directory_in_root(root.fd, parent_path)
        try:
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)
    if is_directory:
        return paths.make_directory_in_root(root.fd, entry.destination)
    target = paths.make_file_in_root(root.fd, entry.destination, 0o755)
    if stat.S_ISDIR(os.fstat(target).st_mode):  # the kernel's word for this would be EINVAL
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return target


def _copy_link(tree: int, entry: Entry, root: Root) -> None:
    parent_path, name = os.path.split(entry.destination)
    parent = paths.make_directory_in_root(root.fd, parent_path)
    try:
        os.symlink(os.readlink(b"", dir_fd=tree), name, dir_fd=parent)
    finally:
        os.close(parent)


def _source_tree(entry: Entry, root: Root) -> int:
    """The bind, made here if it can be: then the mounts that come before it count, and locked flags stay locked."""
    if entry.mapped:
        return entry.tree
    if entry.asked:
        from mydocker.oci import outside  # loaded when the plan was made

        return outside.ask(root.plan.asking)
    options = entry.options
    try:
        tree = mount.clone_tree(
            mount.AT_FDCWD, entry.source, recursive=options.recursive, follow=options.follow_source
        )
    except OSError:
        if entry.tree < 0:
            raise
        return entry.tree
    if entry.tree >= 0:
        os.close(entry.tree)
    if entry.id_map >= 0:
        map_ids(tree, options, entry.id_map)
        os.close(entry.id_map)
    return tree


def _state_attributes(tree: int, options: MountOptions) -> None:
    """Give the bind the attributes that the options name, and no others; access times only if they speak of them.

    What a user namespace may not take off, it keeps, unless an option says explicitly that it is to go. Not to follow
    links is nothing that a mount is held to (mount_namespaces(7), "Restrictions on mount namespaces").
    """
    atime = mount.MOUNT_ATTR__ATIME | mount.MOUNT_ATTR_NODIRATIME if options.atime else 0
    wanted = options.attributes if options.atime else options.attributes & BIND_ATTRIBUTES
    try:
        mount.set_attributes(tree, set_=wanted, clear=BIND_ATTRIBUTES | atime)
    except PermissionError:
        free = options.cleared & BIND_ATTRIBUTES | mount.MOUNT_ATTR_NOSYMFOLLOW
        mount.set_attributes(tree, set_=wanted, clear=free | atime)


def _set_below(tree: int, options: MountOptions) -> None:
    if options.set_below or options.clear_below:
        mount.set_attributes(tree, set_=options.set_below, clear=options.clear_below, recursive=True)


def change(entry: Entry, root: Root) -> None:
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


def mount_new(entry: Entry, plan: MountPlan, root: Root) -> None:
    target, existed = directory_for(entry, root)
    check_target(entry, root, target)
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
        attach(entry, root, new, target)
    if plan.label and entry.fstype == b"mqueue":
        os.setxattr(f"/proc/self/fd/{new}", "security.selinux", plan.label)
    os.close(target)
    if late:
        root.late.append((entry, new))
    else:
        os.close(new)


def directory_for(entry: Entry, root: Root) -> tuple[int, bool]:
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
    except PermissionError as e:
        if not plan.userns or entry.fstype not in _BOUND_INSTEAD:
            raise
        path, kind = _BOUND_INSTEAD[entry.fstype]
        try:
            tree = mount.clone_tree(mount.AT_FDCWD, path)  # with all that is mounted below it: that is locked to it
        except OSError:
            raise e from None
        if statfs.filesystem_type(tree) != kind:
            raise
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
