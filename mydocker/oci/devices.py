"""The device nodes and links of a container's /dev (runtime-spec, config-linux.md, "Devices").

They are made in directories that were opened inside the root, and never through a link: the root's ``/dev`` may itself
be a link to somewhere else (CVE-2026-41579), which then is somewhere else in the root.
"""

from __future__ import annotations

import errno
import os
import stat

from mydocker import mount_parts
from mydocker.linux import mount, oldmount, paths
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mydocker.step import Step

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Device(Value):
    """One node: where it is, its kind (``S_IFCHR`` …), its numbers, mode and owner in the container."""

    path: bytes
    kind: int
    number: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


def plan(linux: Mapping[str, Any]) -> tuple[Device, ...]:
    """The default devices of the specification and those of the config, which win over them."""
    found = {}
    for name, major, minor in mount_parts.NODES:
        path = b"/dev/" + name
        found[path] = Device(path=path, kind=stat.S_IFCHR, number=os.makedev(major, minor))
    for entry in linux.get("devices", ()):
        path = os.path.normpath(b"/" + os.fsencode(entry["path"]).lstrip(b"/"))
        kind = _KINDS[entry["type"]]
        fifo = kind == stat.S_IFIFO
        found[path] = Device(
            path=path,
            kind=kind,
            number=0 if fifo else os.makedev(entry.get("major", 0), entry.get("minor", 0)),
            mode=entry.get("fileMode", 0o666) & 0o7777,
            uid=entry.get("uid", 0),
            gid=entry.get("gid", 0),
        )
    found.pop(b"/dev/ptmx", None)  # it is a link to that of the container's own devpts
    return tuple(found.values())


def make_outside(wanted: tuple[Device, ...], linux: Mapping[str, Any]) -> int:
    """For a user namespace, in which mknod(2) is refused: a tmpfs with the nodes that the host has not to show.

    In the runtime. The descriptor of its mount, which is nowhere; -1 where there is none to be made. A node's name is
    its number in ``wanted``. One whose owner is nobody outside is not made.
    """
    from mydocker.oci.idmaps import host_id

    nodes = -1
    for number, device in enumerate(wanted):
        uid, gid = host_id(device.uid, linux.get("uidMappings")), host_id(device.gid, linux.get("gidMappings"))
        if device.kind == stat.S_IFIFO or _is_on_host(device) or uid is None or gid is None:
            continue
        try:
            if nodes < 0:
                nodes = mount.new_filesystem(b"tmpfs", (), 0, source=b"devices")
            os.mknod(b"%d" % number, device.kind, device.number, dir_fd=nodes)
        except PermissionError:
            return nodes  # the runtime may not either
        os.chown(b"%d" % number, uid, gid, dir_fd=nodes)
        os.chmod(b"%d" % number, device.mode, dir_fd=nodes)
    return nodes


def _is_on_host(device: Device) -> bool:
    try:
        return _is(device, os.stat(device.path))
    except OSError:
        return False


def make(root: int, devices: tuple[Device, ...], step: Step, *, bind: bool, outside: int = -1) -> None:
    """Make the nodes. ``bind``: show those of the host instead, since in a user namespace mknod(2) is refused.

    ``outside``: what `make_outside` has returned.
    """
    made = _binds_of(outside, len(devices)) if outside >= 0 else {}
    for number, device in enumerate(devices):
        step.doing = f"make the device {os.fsdecode(device.path)}"
        directory, name = os.path.split(device.path)
        parent = paths.make_directory_in_root(root, directory)
        try:
            if bind and device.kind != stat.S_IFIFO:
                _bind(device, parent, name, made.get(number, -1))
            else:
                _make_node(device, parent, name)
        finally:
            os.close(parent)


def _binds_of(outside: int, count: int) -> dict[int, int]:
    """A bind of each node in the tmpfs, which has to be somewhere for that: for a moment it is over the host's /dev."""
    place = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mount.attach(outside, place)
    os.close(place)
    made = {}
    for number in range(count):
        try:
            made[number] = mount.clone_tree(outside, b"%d" % number, recursive=False)
        except FileNotFoundError:
            continue
    oldmount.detach(b"/dev")
    os.close(outside)
    return made


def make_links(root: int, step: Step) -> None:
    """The links of /dev. One that is there stays, but for ptmx: it must not be the host's device."""
    step.doing = "make the links of /dev"
    dev = paths.make_directory_in_root(root, b"dev")
    try:
        try:
            os.unlink(b"ptmx", dir_fd=dev)
        except FileNotFoundError:
            pass
        core = ((b"core", b"/proc/kcore"),) if os.path.exists("/proc/kcore") else ()
        for name, target in (*mount_parts.LINKS, *core):
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                pass
    finally:
        os.close(dev)


def _make_node(device: Device, parent: int, name: bytes) -> None:
    try:
        os.mknod(name, device.kind | device.mode, device.number, dir_fd=parent)
    except FileExistsError:
        if _is_there(device, parent, name):
            return
        os.unlink(name, dir_fd=parent)
        os.mknod(name, device.kind | device.mode, device.number, dir_fd=parent)
    except PermissionError:
        _bind(device, parent, name)
        return
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not _is(device, os.fstat(node)):
            raise OSError(errno.EEXIST, "it was exchanged while it was made")
        at = f"/proc/self/fd/{node}"
        if device.uid or device.gid:
            os.chown(at, device.uid, device.gid)
        os.chmod(at, device.mode)  # mknod(2) has taken the umask off, and a change of owner the set-user-ID bit
    finally:
        os.close(node)


def _is_there(device: Device, parent: int, name: bytes) -> bool:
    """Whether what has the name may stay: the same device, or a mount, which the config has put there."""
    there = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        status = os.fstat(there)
        return _is(device, status) or status.st_dev != os.fstat(parent).st_dev
    finally:
        os.close(there)


def _is(device: Device, status: os.stat_result) -> bool:
    same_kind = stat.S_IFMT(status.st_mode) == device.kind
    return same_kind and (device.kind == stat.S_IFIFO or status.st_rdev == device.number)


def _bind(device: Device, parent: int, name: bytes, node: int = -1) -> None:
    try:
        if node < 0:
            node = mount.clone_tree(mount.AT_FDCWD, device.path, recursive=False)
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "the host has none of this path to show in a user namespace") from None
    try:
        if not _is(device, os.fstat(node)):
            raise OSError(errno.ENODEV, "the host's device of this path is another, and a user namespace makes none")
        place = paths.make_file_in_root(parent, name, links=False)
        try:
            mount.attach(node, place)
        finally:
            os.close(place)
    finally:
        os.close(node)
