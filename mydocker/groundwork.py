"""What a child does before it has cgroups or a name, as calls of a `mydocker.linux.batch.Batch`.

The steps, and their order, are those of `mydocker.init` for a container that has nothing out of the ordinary. Where one
fails there is nobody to find a way around it, or the words for it: then the runtime has another child made, by the
interpreter, which has both.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from mydocker import cgroup_view, mounts
from mydocker.linux import empty_file, mount, network, paths, process, signals
from mydocker.linux.batch import ANY_ERROR
from mydocker.linux.libc import architecture_number
from mydocker.spec import Volume
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mydocker.linux.batch import Slot
    from mydocker.mounts import OnRoot
    from mydocker.plan import Plan
    from mydocker.spec import Spec, Tmpfs

_OPENAT, _MKDIRAT, _FSTAT, _SETSID, _UMASK, _KEYCTL, _PRCTL, _PPOLL = (
    architecture_number(*numbers)
    for numbers in ((257, 56), (258, 34), (5, 80), (112, 157), (95, 166), (250, 219), (157, 167), (271, 73))
)
CLOSE_RANGE = 436
EXIT_GROUP = architecture_number(231, 94)

#: struct stat (stat(2)) of x86-64: its size, and where in it are st_mode, of 4 bytes, and st_rdev, of 8.
STAT_SIZE = 144
_ST_MODE, _ST_RDEV = 24, 40
_S_IFMT = 0o170000


class Given(Value):
    """Slots and addresses for the calls.

    ``gaps``      slots for first and last of the descriptors to close.
    ``reserved``, ``places``  slots for what `mydocker.cgroup_view.CgroupView` has.
    ``is_blank``  slot for whether the process is `mydocker.init.become_blank`'s.
    ``nothing``   slot for the descriptor of an empty file (`mydocker.linux.empty_file`), if it is not.
    ``executable``, ``pollfd``, ``status``  addresses: of the description of that file, of a struct pollfd of the
                  runtime's pidfd, and of `STAT_SIZE` bytes.
    """

    gaps: Sequence[tuple[Slot, Slot]]
    reserved: tuple[Slot, Slot]
    places: list[Slot]
    is_blank: Slot
    nothing: Slot
    executable: int
    pollfd: int
    status: int


def add(calls: OnRoot, plan: Plan, given: Given) -> None:
    """Add the calls."""
    spec = plan.spec
    add_death_with_runtime(calls, given.pollfd, "set up the process")
    add_closing(calls, given.gaps, "set up the process")
    _add_becoming_blank(calls, given)
    calls.call(_SETSID)
    calls.call(_UMASK, 0)
    calls.call(_KEYCTL, process.KEYCTL_JOIN_SESSION_KEYRING, failing=errno.EPERM, name="leave the session keyring")
    if spec.network == "none":
        network.add_loopback_up(calls, "bring the loopback device up")
    calls.make_all_private(name="make the mounts private")
    # The volumes before there is a root, and after the protection of the host's: see `mydocker.mounts.build`.
    if spec.own_root:
        volumes = _add_volumes(calls, spec)
        _add_root(calls, spec)
        mounts.add_views(calls, spec)
    else:
        _add_root(calls, spec)
        mounts.add_views(calls, spec)
        _add_protection(calls, spec, given.status)
        volumes = _add_volumes(calls, spec)
    for entry in spec.mounts:
        _add_mount(calls, entry, volumes)
    if spec.cwd is not None and spec.rootfs is not None:
        name = f"make the working directory {spec.cwd}"
        flags = os.O_PATH | os.O_DIRECTORY
        calls.close(paths.open_in_batch(calls, calls.root, os.fsencode(spec.cwd), flags, name=name))
    if spec.own_root:
        _add_protection(calls, spec, given.status)
    for slot in given.reserved:
        calls.duplicate(calls.root, to=slot)
    first = len(calls)
    target = paths.open_in_batch(
        calls,
        calls.root,
        b"sys/fs/cgroup",
        os.O_PATH | os.O_DIRECTORY,
        name="make the place of the cgroup mounts",
    )
    cgroup_view.add_places(calls, plan.hierarchies, target, given.places)
    calls.go_on_from_here(first, ANY_ERROR)
    if spec.own_root:
        calls.pivot_to(calls.root, name="make it the root")
    calls.call(_UMASK, 0o022)


def add_death_with_runtime(calls: OnRoot, pollfd: int, name: str) -> None:
    """As `mydocker.init` has it. ``pollfd``: as `Given` has it."""
    calls.call(_PRCTL, process.PR_SET_PDEATHSIG, signals.SIGKILL, name=name)
    dead = calls.slot()
    calls.call(_PPOLL, pollfd, 1, struct.pack("=2q", 0, 0), None, signals.SIGSET_SIZE, to=dead)
    calls.expect(dead, 0, errno.EXDEV, failing=errno.EXDEV, over=1)
    calls.pass_over(1)
    calls.call(EXIT_GROUP, 125)  # and does not wait for questions: it may have all ends of its pipes itself


def add_closing(calls: OnRoot, gaps: Sequence[tuple[Slot, Slot]], name: str) -> None:
    """Close all descriptors between the first and the last of each gap."""
    for low, high in gaps:
        first = len(calls)
        calls.call(CLOSE_RANGE, low, high, 0, name=name)
        calls.optional(first)  # there is none: EINVAL


def _add_becoming_blank(calls: OnRoot, given: Given) -> None:
    """As `mydocker.init.become_blank`, in a process that is not."""
    is_not = len(calls)
    calls.expect(given.is_blank, 0, errno.EXDEV)
    signals.add_default_all(calls)
    calls.call(_PRCTL, empty_file.PR_SET_MM, empty_file.PR_SET_MM_MAP, given.executable, empty_file.DESCRIPTION_SIZE, 0)
    calls.close(given.nothing)
    calls.go_on_from_here(is_not, errno.EXDEV)


def _add_volumes(calls: OnRoot, spec: Spec) -> list[Slot]:
    """What the volumes show, detached, in their order."""
    volumes = [entry for entry in spec.mounts if isinstance(entry, Volume)]
    return [
        calls.clone_tree(mount.AT_FDCWD, os.fsencode(entry.source), follow=True, name=f"mount {entry.source}")
        for entry in volumes
    ]


def _add_root(calls: OnRoot, spec: Spec) -> None:
    """The container's root in the slot for it."""
    flags = os.O_PATH | os.O_DIRECTORY
    if spec.rootfs is None:
        calls.call(_OPENAT, mount.AT_FDCWD, b"/", flags | os.O_CLOEXEC, to=calls.root)
        return
    base = os.fsencode(spec.rootfs)
    tree = calls.clone_tree(mount.AT_FDCWD, base, follow=True, name=f"use {spec.rootfs} as the root")
    calls.root = tree
    place = calls.slot()
    calls.call(_OPENAT, mount.AT_FDCWD, base, flags | os.O_CLOEXEC, to=place)
    calls.attach(tree, place)
    calls.close(place)
    for name in (b"proc", b"sys", b"dev"):
        there = paths.open_in_batch(calls, tree, name, flags, failing=errno.ENOENT, over=2)
        calls.close(there)
        calls.pass_over(1)
        calls.call(_MKDIRAT, tree, name, 0o755)
    attributes = (0 if spec.privileged else mount.MOUNT_ATTR_NODEV) | (mount.MOUNT_ATTR_RDONLY if spec.readonly else 0)
    if attributes:
        calls.set_attributes(tree, set_=attributes, recursive=True)


def _add_mount(calls: OnRoot, entry: Volume | Tmpfs, volumes: list[Slot]) -> None:
    """A mount on what is there already. ``volumes``: those that are left."""
    in_use = calls.slots_in_use
    directory = 0 if isinstance(entry, Volume) else os.O_DIRECTORY
    name = f"mount on {entry.destination}"
    target = paths.open_in_batch(
        calls, calls.root, os.fsencode(entry.destination), os.O_PATH | directory, name=name
    )
    if isinstance(entry, Volume):
        new = volumes.pop(0)
        if entry.readonly:
            calls.set_attributes(new, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
    else:
        new = calls.new_filesystem(b"tmpfs", *mounts.tmpfs_options(entry))
    calls.attach(new, target)
    calls.close(new, target)
    calls.free_slots(in_use)


def _add_protection(calls: OnRoot, spec: Spec, status: int) -> None:
    if not spec.privileged:
        null = _add_null_device(calls, status)
        mounts.add_protection(calls, null)
        calls.close(null)


def _add_null_device(calls: OnRoot, status: int) -> Slot:
    """As `mydocker.mount_parts.open_null_device`."""
    null, kind, number = calls.slot(), calls.slot(), calls.slot()
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    calls.call(_OPENAT, mount.AT_FDCWD, b"/dev/null", flags, to=null, name="protect /proc and /sys")
    calls.call(_FSTAT, null, status)
    calls.load(status + _ST_MODE, 4, kind, mask=_S_IFMT)
    calls.expect(kind, stat.S_IFCHR, errno.EINVAL)
    calls.load(status + _ST_RDEV, 8, number)
    calls.expect(number, os.makedev(1, 3), errno.EINVAL)
    return null
