"""What the container sees of the file system: built by the child, in its own mount namespace, by descriptor.

Two kinds of root:

- **The host's root** (no ``--rootfs``, ``--overlay`` or ``--read-only``): the namespace's copy of the host's
  mounts stays as it is; /proc, /sys, /dev/pts, /dev/shm and /dev/mqueue are replaced by fresh ones.
- **An own root**: a directory, or a copy-on-write or read-only view of one, is assembled at a staging
  directory, gets its own /proc, /sys and /dev, and becomes ``/`` by pivot_root(2).

Nothing here outlives the namespace: when its last process ends, the kernel drops every mount.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from mydocker import cgroup_view
from mydocker.linux import libc, mount, paths, process
from mydocker.linux.thermal import heat_of_cpus
from mydocker.mount_parts import LINKS, NODES, SAFE, open_null_device, unescape
from mydocker.spec import Tmpfs, Volume
from mydocker.step import Step as Step
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.cgroups.layout import Hierarchy
    from mydocker.linux.batch import Slot
    from mydocker.spec import Spec

_NOSUID_NODEV = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV

# Docker's lists (moby, oci/defaults.go): what tells about the host, and what steers it.
_MASKED = (
    b"proc/acpi",
    b"proc/asound",
    b"proc/interrupts",
    b"proc/kcore",
    b"proc/keys",
    b"proc/latency_stats",
    b"proc/sched_debug",
    b"proc/scsi",
    b"proc/timer_list",
    b"proc/timer_stats",
    b"sys/devices/virtual/powercap",
    b"sys/firmware",
)
_READ_ONLY = (b"proc/bus", b"proc/fs", b"proc/irq", b"proc/sys", b"proc/sysrq-trigger")

_OPENAT, _MKNODAT, _MKDIRAT, _SYMLINKAT = (
    libc.architecture_number(*numbers) for numbers in ((257, 56), (259, 33), (258, 34), (266, 36))
)

# Views of the kernel and not files: they are made anew or left out of a copy-on-write root.
_KERNEL_FILESYSTEMS = frozenset(
    "autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue nsfs "
    "proc pstore rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)


class TracedStep(Step):
    """Writes each change, with the time, to a pipe that does not block (`mydocker.tracing`)."""

    __slots__ = ("_now", "_pipe")

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        super().__init__()

    @property
    def doing(self) -> str:
        return self._now

    @doing.setter
    def doing(self, text: str) -> None:
        self._now = text
        line = b"%d %s\n" % (time.monotonic_ns(), os.fsencode(text.replace("\n", " "))[:1000])
        try:
            os.write(self._pipe, line)
        except OSError:
            pass  # a run does not fail for its trace


def step(trace: int) -> Step:
    """``trace``: the pipe of a trace, or -1."""
    return Step() if trace < 0 else TracedStep(trace)


def load(spec: Spec, hierarchies: tuple[Hierarchy, ...]) -> None:
    """Work out what `build` and `cgroup_view.CgroupView` need for a container like this: its child, and the next one,
    need not.
    """
    views_of(spec)
    cgroup_view.parts_of(hierarchies, writable=spec.privileged)
    if not spec.privileged:
        protection_()


def build(spec: Spec, staging: str, step: Step, upper: int = -1) -> tuple[int, int]:
    """Assemble everything but the cgroup mounts: (descriptor of the root, descriptor of its devpts or -1).

    ``upper`` is the descriptor of a mount, attached nowhere, that keeps what is written with ``spec.overlay``.
    For an own root the caller then pivots to it.

    A volume's source may hold the directory over which the root is put together, or be within the root: it is to show
    what the host has there, and not the container's /proc without its protection. So it is taken before there is a
    root, and where that is the host's, after its /proc is protected.
    """
    step.doing = "make the mounts private"
    mount.make_all_private()
    if spec.own_root:
        volumes = _volumes(spec, step)
        root = _own_root(spec, staging, step, upper)
        devpts = _kernel_views(spec, root, step)
    else:
        root = _directory("/")
        devpts = _kernel_views(spec, root, step)
        _protect(spec, root, step)
        volumes = _volumes(spec, step)
    for entry in spec.mounts:
        step.doing = _what_is_mounted(entry)
        _mount_entry(entry, root, volumes, make_target=spec.own_root)
    if spec.cwd is not None and (spec.rootfs is not None or spec.overlay):
        step.doing = f"make the working directory {spec.cwd}"
        os.close(paths.make_directory_in_root(root, os.fsencode(spec.cwd)))
    if spec.own_root:
        _protect(spec, root, step)
    return root, devpts


def _what_is_mounted(entry: Volume | Tmpfs) -> str:
    what = entry.source if isinstance(entry, Volume) else "a tmpfs"
    return f"mount {what} on {entry.destination}"


def _volumes(spec: Spec, step: Step) -> list[int]:
    """Descriptors of what the volumes show, detached, in their order."""
    trees = []
    for entry in spec.mounts:
        if isinstance(entry, Volume):
            step.doing = _what_is_mounted(entry)
            trees.append(mount.clone_tree(mount.AT_FDCWD, os.fsencode(entry.source), follow=True))
    return trees


def _directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _attach_at(new: int, path: str) -> None:
    target = _directory(path)
    mount.attach(new, target)
    os.close(target)


def _own_root(spec: Spec, staging: str, step: Step, upper: int) -> int:
    base = spec.rootfs or "/"
    step.doing = f"use {base} as the root"
    if spec.overlay:
        root = _copy_on_write_root(base, staging, upper)
    else:
        root = mount.clone_tree(mount.AT_FDCWD, os.fsencode(base), follow=True)
        _attach_at(root, staging)
    for path in (b"proc", b"sys", b"dev"):
        os.close(paths.make_directory_in_root(root, path))
    for entry in spec.mounts:
        if os.path.normpath(entry.destination).startswith("/dev/"):
            continue  # the container gets a /dev of its own: what is made here would only stay behind in the root
        step.doing = f"make the mount point {entry.destination}"
        os.close(_target(entry, root, make_target=True))
    step.doing = "set the attributes of the root"
    attributes = (0 if spec.privileged else mount.MOUNT_ATTR_NODEV) | (mount.MOUNT_ATTR_RDONLY if spec.readonly else 0)
    if attributes:
        mount.set_attributes(root, set_=attributes, recursive=True)
    return root


def _copy_on_write_root(base: str, staging: str, upper: int) -> int:
    """An overlay whose upper layer is on the mount ``upper``, or on a tmpfs of this namespace: gone with it.

    An overlay shows one file system only, so each mount below ``base`` gets one of its own; what cannot carry one
    is seen read-only. All are made before the first is attached: they name their layers by path, which the root
    then covers.
    """
    layers = upper if upper >= 0 else mount.new_filesystem(b"tmpfs", ((b"mode", b"700"),), _NOSUID_NODEV)
    if not process.in_initial_user_namespace():
        # For a plain user this is loaded already; root in a namespace of somebody else's loads it from the host's root.
        from mydocker.rootless import overlay

        return overlay.copy_on_write_root(base, staging, layers, *_all_mounts(base))
    lower = [_directory(base)]
    below = []
    for path in _mounts_below(base):
        try:
            lower.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        except OSError:
            continue  # hidden by a later mount, or gone
        below.append(os.path.relpath(path, base))
    _attach_at(layers, staging)
    mounts = [_overlay(fd, staging, number) for number, fd in enumerate(lower)]
    root = mounts[0]
    _attach_at(root, staging)
    for path, fd in zip(below, mounts[1:], strict=True):
        try:
            target = paths.open_in_root(root, os.fsencode(path))
        except OSError:
            os.close(fd)
            continue
        mount.attach(fd, target)
        os.close(target)
        os.close(fd)
    for fd in (layers, *lower):
        os.close(fd)
    return root


def _overlay(lower: int, staging: str, number: int) -> int:
    if stat.S_ISDIR(os.fstat(lower).st_mode):
        upper, work = f"{staging}/u{number}", f"{staging}/w{number}"
        os.mkdir(upper)
        os.mkdir(work)
        status = os.fstat(lower)
        os.chmod(upper, stat.S_IMODE(status.st_mode))  # the root directory of the view is the upper one's
        os.chown(upper, status.st_uid, status.st_gid)
        options = (
            (b"lowerdir", b"/proc/self/fd/%d" % lower),  # a path could hold the layers' separator
            (b"upperdir", os.fsencode(upper)),
            (b"workdir", os.fsencode(work)),
            (b"volatile", None),  # never written through to a disk: it is dropped at the end (overlayfs.rst)
        )
        try:
            return mount.new_filesystem(b"overlay", options, mount.MOUNT_ATTR_NODEV)
        except OSError:
            if number == 0:
                raise
    tree = mount.clone_tree(lower, recursive=False)
    mount.set_attributes(tree, set_=mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV)
    return tree


def _mounts_below(base: str) -> list[str]:
    """The mount points below ``base`` that hold files, in the order in which they were mounted."""
    prefix = base.rstrip("/") + "/"
    kernel = tuple(prefix + name for name in ("dev/", "proc/", "sys/"))
    found: dict[str, None] = {}
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            fields = line.split()
            path = os.fsdecode(unescape(fields[4]))
            fstype = fields[fields.index(b"-", 6) + 1].decode()
            if path.startswith(prefix) and len(path) > len(prefix):
                if fstype in _KERNEL_FILESYSTEMS or path.startswith(kernel):
                    found.pop(path, None)
                else:
                    found[path] = None
    return list(found)


def _all_mounts(base: str) -> tuple[set[str], set[str]]:
    """Every mount point, and the directories below ``base`` that show the kernel and no files."""
    hidden = {f"{base.rstrip('/')}/{name}" for name in ("dev", "proc", "sys")}
    found = set()
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            fields = line.split()
            path = os.fsdecode(unescape(fields[4]))
            found.add(path)
            if fields[fields.index(b"-", 6) + 1].decode() in _KERNEL_FILESYSTEMS:
                hidden.add(path)
    return found, hidden


class _Views:
    """The file systems that show a container its own namespaces, as batches of calls on the descriptor of a root."""

    def __init__(self, asked_for: _Asked) -> None:
        self.proc, self.sys, self.dev, self.pts = OnRoot(), OnRoot(), OnRoot(), OnRoot()
        _add_proc(self.proc)
        _add_sys(self.sys, asked_for)
        _add_dev(self.dev, asked_for)
        self.devpts = _add_pts(self.pts)
        for batch in (self.proc, self.sys, self.dev, self.pts):
            batch.freeze()


class _Asked(Value):
    """What the views depend on."""

    own_root: bool
    readonly: bool
    shm: bool
    mqueue: bool

    @classmethod
    def by(cls, spec: Spec) -> _Asked:
        mounted = {os.path.normpath(entry.destination) for entry in spec.mounts}
        shm, mqueue = "/dev/shm" not in mounted, "/dev/mqueue" not in mounted
        return cls(own_root=spec.own_root, readonly=not spec.privileged, shm=shm, mqueue=mqueue)


def add_views(batch: OnRoot, spec: Spec) -> None:
    """All that `build` makes of them, but for what it does where one of them cannot be made as it should be."""
    asked_for = _Asked.by(spec)
    _add_proc(batch)
    _add_sys(batch, asked_for)
    _add_dev(batch, asked_for)
    first = len(batch)
    batch.close(_add_pts(batch))
    batch.go_on_from_here(first, errno.ENOENT)


def _add_proc(batch: OnRoot) -> None:
    batch.name = "mount /proc"
    batch.mount(b"proc", b"proc")


def _add_sys(batch: OnRoot, asked_for: _Asked) -> None:
    batch.name = "mount /sys"
    batch.mount(b"sys", b"sysfs", attributes=SAFE | (mount.MOUNT_ATTR_RDONLY if asked_for.readonly else 0))


def _add_dev(batch: OnRoot, asked_for: _Asked) -> None:
    if asked_for.own_root:
        _add_own_dev(batch)
    batch.name = "mount the file systems of /dev"
    if asked_for.shm:
        options = ((b"mode", b"1777"), (b"size", b"64m"))  # 64 MB is docker run's --shm-size
        batch.mount(b"dev/shm", b"tmpfs", options, missing=True)
    if asked_for.mqueue:
        batch.mount(b"dev/mqueue", b"mqueue", missing=True)


def _add_pts(batch: OnRoot) -> Slot:
    batch.name = "mount the file systems of /dev"
    target = paths.open_in_batch(batch, batch.root, b"dev/pts", os.O_PATH | os.O_DIRECTORY, name=batch.name)
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    devpts = batch.new_filesystem(b"devpts", (*_PTS, _PTS_GROUP), attributes)
    batch.attach(devpts, target)
    batch.close(target)
    return devpts


class OnRoot(mount.MountBatch):
    """Calls on the descriptor of a root, which is in the slot ``root``. ``name``: what those that come next are for."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.slot()
        self.name = ""

    def mount(
        self,
        path: bytes,
        fstype: bytes,
        options: tuple[tuple[bytes, bytes | None], ...] = (),
        attributes: int = SAFE,
        *,
        missing: bool = False,
    ) -> None:
        """A new file system at ``path``. ``missing``: not where there is no such place, or no such file system."""
        flags = os.O_PATH | os.O_DIRECTORY
        failing = errno.ENOENT if missing else 0
        behind = 8 + len(options)  # so many calls are below
        target = paths.open_in_batch(
            self, self.root, path, flags, links=False, name=self.name, failing=failing, over=behind
        )
        failing = errno.ENODEV if missing else 0
        new = self.new_filesystem(fstype, options, attributes, name=self.name, failing=failing, over=2)
        self.attach(new, target)
        self.close(new, target)

    def make_on(self, root: int, step: Step) -> Any:
        """Make the calls on this root."""
        if len(self):
            step.doing = self.name_of(0)
        return self.make({self.root: root}, lambda name: setattr(step, "doing", name))


_PTS = ((b"ptmxmode", b"0666"), (b"mode", b"0620"))
#: The group tty, which pt_chown(3) and ``mesg`` count on.
_PTS_GROUP = (b"gid", b"5")

_views: dict[_Asked, _Views] = {}


def views_of(spec: Spec) -> _Views:
    """The views for containers like this one: worked out once in a process."""
    asked_for = _Asked.by(spec)
    found = _views.get(asked_for)
    if found is None:
        found = _views[asked_for] = _Views(asked_for)
    return found


def _kernel_views(spec: Spec, root: int, step: Step) -> int:
    """Fresh /proc, /sys and /dev of this container's own namespaces; the descriptor of devpts, or -1."""
    views = views_of(spec)
    views.proc.make_on(root, step)
    try:
        views.sys.make_on(root, step)
    except PermissionError:
        _bind_sysfs(root, 0 if spec.privileged else mount.MOUNT_ATTR_RDONLY)
    views.dev.make_on(root, step)
    try:
        return int(views.pts.make_on(root, step)[views.devpts])
    except FileNotFoundError:
        return -1
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
    devpts = mount.new_filesystem(b"devpts", _PTS, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
    target = paths.open_in_root(root, b"dev/pts", os.O_PATH | os.O_DIRECTORY)  # a user namespace without such a group
    mount.attach(devpts, target)
    os.close(target)
    return devpts


def _bind_sysfs(root: int, readonly: int) -> None:
    """In a user namespace sysfs can be mounted by the owner of the network namespace only (--network host), and where
    the one of the host is not covered in parts. With what is mounted below it: that is locked to it.
    """
    target = paths.open_in_root(root, b"sys", os.O_PATH | os.O_DIRECTORY, links=False)
    view = mount.clone_tree(mount.AT_FDCWD, b"/sys")
    mount.set_attributes(view, set_=SAFE | readonly, recursive=True)
    mount.attach(view, target)
    os.close(view)
    os.close(target)


def _add_own_dev(batch: OnRoot) -> None:
    """A /dev of the container's own, with the nodes and links of `NODES` and `LINKS`."""
    target = paths.open_in_batch(
        batch, batch.root, b"dev", os.O_PATH | os.O_DIRECTORY, links=False, name="mount /dev"
    )
    options = ((b"mode", b"755"), (b"size", b"64k"))
    dev = batch.new_filesystem(b"tmpfs", options, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC, name="mount /dev")
    batch.attach(dev, target)
    batch.close(target)
    create = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for name, major, minor in NODES:
        # Without CAP_MKNOD, as in another container: the node that is there is bound over a file.
        mode = stat.S_IFCHR | 0o666
        batch.call(_MKNODAT, dev, name, mode, os.makedev(major, minor), name="mount /dev", failing=errno.EPERM, over=1)
        batch.pass_over(6)
        file, place = batch.slot(), batch.slot()
        batch.call(_OPENAT, dev, name, create, 0o666, to=file)
        batch.close(file)
        node = batch.clone_tree(mount.AT_FDCWD, b"/dev/" + name, recursive=False)
        batch.call(_OPENAT, dev, name, os.O_PATH | os.O_CLOEXEC, to=place)
        batch.attach(node, place)
        batch.close(node)  # the place closes with the process: it is a path
    for name, link in LINKS:
        batch.call(_SYMLINKAT, link, dev, name)
    for name in (b"pts", b"shm", b"mqueue"):
        batch.call(_MKDIRAT, dev, name, 0o777)
    console = batch.slot()
    batch.call(_OPENAT, dev, b"console", create, 0o600, to=console)
    batch.close(console, dev)


def _target(entry: Volume | Tmpfs, root: int, *, make_target: bool) -> int:
    path = os.fsencode(entry.destination)
    if not make_target:
        return paths.open_in_root(root, path)
    if isinstance(entry, Volume) and not os.path.isdir(entry.source):
        return paths.make_file_in_root(root, path)
    return paths.make_directory_in_root(root, path)


def _mount_entry(entry: Volume | Tmpfs, root: int, volumes: list[int], *, make_target: bool) -> None:
    """``volumes``: those of `_volumes` that are left."""
    target = _target(entry, root, make_target=make_target)
    if isinstance(entry, Volume):
        new = volumes.pop(0)
        if entry.readonly:
            mount.set_attributes(new, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
    else:
        new = mount.new_filesystem(b"tmpfs", *tmpfs_options(entry))
    mount.attach(new, target)
    os.close(new)
    os.close(target)


def tmpfs_options(entry: Tmpfs) -> tuple[list[tuple[bytes, bytes | None]], int]:
    """Those of the file system, and the attributes of its mount."""
    options: list[tuple[bytes, bytes | None]] = [(b"mode", b"%o" % entry.mode)]
    if entry.size is not None:
        options.append((b"size", b"%d" % entry.size))
    noexec = 0 if entry.exec else mount.MOUNT_ATTR_NOEXEC
    return options, _NOSUID_NODEV | noexec | (mount.MOUNT_ATTR_RDONLY if entry.readonly else 0)


def _protect(spec: Spec, root: int, step: Step) -> None:
    """Cover what tells about the host; make read-only what steers it."""
    if spec.privileged:
        return
    step.doing = "protect /proc and /sys"
    protection = protection_()
    null = open_null_device()
    protection.make({protection.root: root, protection.null: null}, lambda _: None)
    os.close(null)


class _Protection(OnRoot):
    """`add_protection`, on the descriptors of a root and of the host's null device."""

    def __init__(self) -> None:
        super().__init__()
        self.null = self.slot()
        add_protection(self, self.null)
        self.freeze()


def add_protection(batch: OnRoot, null: Slot) -> None:
    """Cover what is in `_MASKED` as `Covers` does, and make read-only what is in `_READ_ONLY`. ``null``: a descriptor
    of the host's null device. What this kernel does not have needs no cover.
    """
    empty = batch.new_filesystem(b"tmpfs", (), SAFE | mount.MOUNT_ATTR_RDONLY, name="protect /proc and /sys")
    in_use = batch.slots_in_use
    for path in (*_MASKED, *heat_of_cpus()):
        target = paths.open_in_batch(batch, batch.root, path, failing=errno.ENOENT, over=12)
        directory = paths.open_in_batch(
            batch, batch.root, path, os.O_PATH | os.O_DIRECTORY, failing=errno.ENOTDIR, over=7
        )
        # Before Linux 6.15 what is attached nowhere cannot be cloned: there the first place gets it itself.
        _add_cover(batch, empty, target, failing=errno.EINVAL, over=3)
        batch.pass_over(1)
        batch.attach(empty, target)
        batch.close(directory)
        batch.pass_over(3)
        _add_cover(batch, null, target)
        batch.close(target)
        batch.free_slots(in_use)
    for path in _READ_ONLY:
        target = paths.open_in_batch(batch, batch.root, path, failing=errno.ENOENT, over=5)
        cover = batch.clone_tree(target)
        batch.set_attributes(cover, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
        batch.attach(cover, target)
        batch.close(cover, target)
        batch.free_slots(in_use)
    batch.close(empty)


def _add_cover(batch: OnRoot, with_: Slot, target: Slot, *, failing: int = 0, over: int = 0) -> None:
    """Three calls."""
    cover = batch.clone_tree(with_, recursive=False, failing=failing, over=over)
    batch.attach(cover, target)
    batch.close(cover)


_protections: list[_Protection] = []


def protection_() -> _Protection:
    """Worked out once in a process."""
    if not _protections:
        _protections.append(_Protection())
    return _protections[0]
