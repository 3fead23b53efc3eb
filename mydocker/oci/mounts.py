"""The file system of a container of config.json: planned by the runtime, assembled and finished by the child.

`prepare` reads what is asked for and refuses what cannot be done. `assemble` makes the mounts, in the order of the
config, below the directory of the rootfs, where hooks find them. `fill_cgroups` shows the container's own cgroups when
it is in them. `finish` hides and protects paths and makes the rootfs ``/``.

Whatever is in the rootfs is opened once, and what was opened is what is used; what lies below /proc and /sys is looked
up from the mount that was made there and not by its name.
"""

from __future__ import annotations

import errno
import os

from mydocker import mount_parts
from mydocker.errors import OciError
from mydocker.linux import mount, oldmount, paths, statfs
from mydocker.oci import cgroup_mounts, devices, mount_entry
from mydocker.oci.mount_entry import Root
from mydocker.oci.mount_plan import MountPlan, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.oci.mount_plan import Entry
    from mydocker.step import Step

__all__ = ["MountPlan", "Root", "assemble", "fill_cgroups", "finish", "prepare"]


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
        try:
            _mount(entry, plan, root, hierarchies)
        except OSError as e:
            about = f": {os.fsdecode(e.filename)}" if isinstance(e.filename, (str, bytes)) else ""
            # The words that engines and their users know, and look for, from runc.
            reason = e.strerror or str(e)
            raise OciError(f"error mounting {entry}: {reason[:1].lower()}{reason[1:]}{about}") from None
    if plan.asking >= 0:
        os.close(plan.asking)
    if plan.own_dev:
        devices.make(root.fd, plan.devices, step, bind=plan.userns, outside=plan.nodes)
        devices.make_links(root.fd, step)
    root.devpts = _devpts(root.fd)
    os.umask(umask)
    return root


def _separate(plan: MountPlan) -> None:
    """Let nothing that is mounted from here on reach the host, unless the config shares the mounts with it.

    Without a wish the mounts stay slaves: what the host mounts in a volume later is seen in the container.
    """
    kind = plan.propagation[0]
    if kind == mount.MS_SHARED or not plan.private:
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
        if plan.tree < 0 or not plan.pivot:
            raise
        # A directory above is closed to the user namespace. Covering ``/`` does as well, only hooks do not see it.
        place, tree = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), plan.tree
    if kind == mount.MS_SHARED:
        _make_mount_private(place)
    if below and kind in (mount.MS_SHARED, mount.MS_UNBINDABLE):
        mount.set_attributes(tree, propagation=kind, recursive=True)
    if kind in (mount.MS_SHARED, mount.MS_UNBINDABLE):
        mount.set_attributes(tree, propagation=mount.MS_PRIVATE)  # for now: pivot_root(2) takes no shared one
    mount.attach(tree, place)
    if not plan.private:
        mount.set_attributes(tree, propagation=mount.MS_PRIVATE, recursive=True)
    os.close(place)
    return tree


def _make_mount_private(fd: int) -> None:
    """Make the mount private that the descriptor is on, of which it need not be the root."""
    number = b"%d" % statfs.mount_id(fd)
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            fields = line.split(b" ")
            if fields[0] == number:
                path = mount_parts.unescape(fields[4])
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
        mount_entry.change(entry, root)
    elif entry.options.bind:
        mount_entry.bind(entry, root)
    elif entry.fstype in (b"cgroup", b"cgroup2"):
        cgroup_mounts.make_places(entry, root, hierarchies)
    else:
        mount_entry.mount_new(entry, plan, root)


def fill_cgroups(root: Root) -> None:
    """Mount the cgroups in the places that `assemble` has made for them.

    In the child, before `finish`, when it is in its cgroups and, if it is to have one, in its cgroup namespace.
    """
    cgroup_mounts.fill(root)


def finish(root: Root, plan: MountPlan, step: Step) -> None:
    """Hide and protect paths, and make the root ``/``. In the child; afterwards nothing of the host is in reach."""
    step.doing = "hide paths"
    _hide(root, plan, step)
    for path in plan.protected:
        step.doing = f"make {os.fsdecode(path)} read-only"
        _at(root, path, mount_parts.make_read_only)
    for entry, fd in root.late:
        step.doing = f'make the mount at "{os.fsdecode(entry.destination)}" read-only'
        mount.set_attributes(fd, set_=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)
    root.late = []
    step.doing = "make the rootfs the root"
    if not plan.private:  # the root of others is not to be exchanged
        _change_root(root.fd)
    elif plan.pivot:
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
    covers = mount_parts.Covers()
    for path in plan.masked:
        step.doing = f"hide {os.fsdecode(path)}"
        _at(root, path, covers.hide)
    covers.close()


def _at(root: Root, path: bytes, act: Callable[[int], None]) -> None:
    """Do something with what is at ``path``, if there is anything.

    Below /proc and /sys the way starts at the mount that was made there: in the meantime their names may have been
    given to something else, by a container that shares the root.
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
            path = mount_parts.unescape(fields[4])
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
    mount.attach(root, old)
    os.close(old)
    _change_root(root)


def _change_root(root: int) -> None:
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")


def _exchange_null(root: int) -> None:
    """Let standard streams that are the host's /dev/null be the container's: then nothing of the host is held open."""
    held = [fd for fd in (0, 1, 2) if _is_null(fd)]
    if not held:
        return
    probe = paths.open_in_root(root, b"dev/null")
    try:
        if not mount_parts.is_null_device(os.fstat(probe)):
            raise OSError(errno.EINVAL, "it is not the null device")
        null = paths.open_in_root(root, b"dev/null", os.O_RDWR)
    finally:
        os.close(probe)
    if not mount_parts.is_null_device(os.fstat(null)):
        raise OSError(errno.EINVAL, "it is not the null device")
    for fd in held:
        os.dup2(null, fd)
    os.close(null)


def _is_null(fd: int) -> bool:
    try:
        return mount_parts.is_null_device(os.fstat(fd))
    except OSError:
        return False
