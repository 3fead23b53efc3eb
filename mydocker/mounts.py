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

from mydocker.linux import mount, paths, process
from mydocker.spec import Tmpfs, Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.layout import Hierarchy
    from mydocker.spec import Spec

_NOSUID_NODEV = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
SAFE = _NOSUID_NODEV | mount.MOUNT_ATTR_NOEXEC

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

# The devices that the OCI runtime spec asks for (config-linux.md, "Default Devices").
NODES = ((b"null", 1, 3), (b"zero", 1, 5), (b"full", 1, 7), (b"random", 1, 8), (b"urandom", 1, 9), (b"tty", 5, 0))
LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
)

# Views of the kernel and not files: they are made anew or left out of a copy-on-write root.
_KERNEL_FILESYSTEMS = frozenset(
    "autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue nsfs "
    "proc pstore rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)


class Step:
    """What is being done, for the report of a failure: ``cannot <doing>: <the kernel's reason>``."""

    __slots__ = ("doing",)

    def __init__(self) -> None:
        self.doing = ""


class CgroupView:
    """The place of the cgroup mounts, made before the child is in its cgroups, filled when it is.

    The view must be rooted at the container's own cgroups, and a cgroup namespace takes as its root what the
    process is in when it makes it (cgroup_namespaces(7)).
    """

    def __init__(self, root: int, hierarchies: tuple[Hierarchy, ...], *, writable: bool) -> None:
        # Low numbers, free again for `fill`, which may run under a small RLIMIT_NOFILE.
        self._spare = [os.dup(root), os.dup(root)]
        self._attributes = SAFE | (0 if writable else mount.MOUNT_ATTR_RDONLY)
        self._places: list[tuple[Hierarchy, int]] = []
        try:
            target = paths.open_in_root(root, b"sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return
        if len(hierarchies) == 1 and hierarchies[0].version == 2:
            self._places.append((hierarchies[0], target))
            return
        if not hierarchies:
            return
        tmpfs = mount.new_filesystem(b"tmpfs", ((b"mode", b"755"), (b"size", b"64k")), SAFE)
        self._places += places_of_hierarchies(tmpfs, hierarchies)
        mount.attach(tmpfs, target)
        mount.set_attributes(tmpfs, set_=mount.MOUNT_ATTR_RDONLY)
        os.close(target)
        os.close(tmpfs)

    def fill(self) -> None:
        """Mount each hierarchy, in the new cgroup namespace. One that cannot be mounted is left out: it is a view."""
        for fd in self._spare:
            os.close(fd)
        for hierarchy, place in self._places:
            try:
                view = new_view(hierarchy, self._attributes)
                mount.attach(view, place)
                os.close(view)
            except OSError:
                pass
            os.close(place)


def places_of_hierarchies(tmpfs: int, hierarchies: tuple[Hierarchy, ...]) -> list[tuple[Hierarchy, int]]:
    """A directory for each hierarchy, named as on the host, and its descriptor; links where controllers share one."""
    places = []
    for hierarchy in hierarchies:
        name = os.fsencode(os.path.basename(hierarchy.mountpoint))
        try:
            os.mkdir(name, 0o755, dir_fd=tmpfs)
        except FileExistsError:
            continue
        for controller in hierarchy.controllers if hierarchy.version == 1 else ():
            link = controller.partition("=")[2] or controller
            if os.fsencode(link) != name:
                try:
                    os.symlink(name, os.fsencode(link), dir_fd=tmpfs)
                except FileExistsError:
                    pass
        places.append((hierarchy, os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=tmpfs)))
    return places


def new_view(hierarchy: Hierarchy, attributes: int) -> int:
    """The hierarchy as this process's cgroup namespace shows it, detached."""
    options: list[tuple[bytes, bytes | None]] = []
    if hierarchy.version == 1:
        for controller in hierarchy.controllers:
            key, _, value = os.fsencode(controller).partition(b"=")
            options += [(b"none", None), (key, value)] if value else [(key, None)]
    return mount.new_filesystem(b"cgroup2" if hierarchy.version == 2 else b"cgroup", options, attributes)


def build(spec: Spec, staging: str, step: Step, upper: int = -1) -> tuple[int, int]:
    """Assemble everything but the cgroup mounts: (descriptor of the root, descriptor of its devpts or -1).

    ``upper`` is the descriptor of a mount, attached nowhere, that keeps what is written with ``spec.overlay``.
    For an own root the caller then pivots to it.
    """
    step.doing = "make the mounts private"
    mount.make_all_private()
    root = _own_root(spec, staging, step, upper) if spec.own_root else _directory("/")
    devpts = _kernel_views(spec, root, step)
    for entry in spec.mounts:
        step.doing = f"mount {entry.source} on {entry.destination}" if isinstance(entry, Volume) else (
            f"mount a tmpfs on {entry.destination}"
        )
        _mount_entry(entry, root, make_target=spec.own_root)
    if spec.cwd is not None and (spec.rootfs is not None or spec.overlay):
        step.doing = f"make the working directory {spec.cwd}"
        os.close(paths.make_directory_in_root(root, os.fsencode(spec.cwd)))
    if not spec.privileged:
        step.doing = "protect /proc and /sys"
        _protect(root)
    return root, devpts


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


def unescape(path: bytes) -> bytes:
    """Undo the octal escapes of a path in mountinfo (proc(5)): blank, tab, newline, backslash."""
    for escape, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(escape, byte)
    return path


def _kernel_views(spec: Spec, root: int, step: Step) -> int:
    """Fresh /proc, /sys and /dev of this container's own namespaces; the descriptor of devpts, or -1."""
    step.doing = "mount /proc"
    _mount_at(root, b"proc", b"proc", (), SAFE)
    step.doing = "mount /sys"
    _mount_sysfs(root, 0 if spec.privileged else mount.MOUNT_ATTR_RDONLY)
    if spec.own_root:
        step.doing = "mount /dev"
        _make_dev(root)
    step.doing = "mount the file systems of /dev"
    shm = ((b"mode", b"1777"), (b"size", b"64m"))  # 64 MB is docker run's --shm-size
    asked_for = {os.fsencode(os.path.normpath(entry.destination)) for entry in spec.mounts}
    for path, fstype, options in ((b"dev/shm", b"tmpfs", shm), (b"dev/mqueue", b"mqueue", ())):
        if b"/" + path in asked_for:
            continue
        try:
            _mount_at(root, path, fstype, options, SAFE)
        except OSError as e:
            # a host without such a directory, or a kernel without POSIX message queues
            if e.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    try:
        target = paths.open_in_root(root, b"dev/pts", os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1
    devpts = _new_devpts()
    mount.attach(devpts, target)
    os.close(target)
    return devpts


def _mount_sysfs(root: int, readonly: int) -> None:
    try:
        _mount_at(root, b"sys", b"sysfs", (), SAFE | readonly)
    except PermissionError:
        # In a user namespace sysfs can be mounted by the owner of the network namespace only (--network host), and
        # where the one of the host is not covered in parts. With what is mounted below it: that is locked to it.
        target = paths.open_in_root(root, b"sys", os.O_PATH | os.O_DIRECTORY, links=False)
        view = mount.clone_tree(mount.AT_FDCWD, b"/sys")
        mount.set_attributes(view, set_=SAFE | readonly, recursive=True)
        mount.attach(view, target)
        os.close(view)
        os.close(target)


def _new_devpts() -> int:
    attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    options = ((b"ptmxmode", b"0666"), (b"mode", b"0620"))
    try:
        # gid 5 is the group tty, which pt_chown(3) and `mesg` count on
        return mount.new_filesystem(b"devpts", (*options, (b"gid", b"5")), attributes)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return mount.new_filesystem(b"devpts", options, attributes)  # a user namespace without such a group


def _mount_at(
    root: int, path: bytes, fstype: bytes, options: tuple[tuple[bytes, bytes | None], ...], attributes: int
) -> None:
    target = paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY, links=False)
    try:
        new = mount.new_filesystem(fstype, options, attributes)
        try:
            mount.attach(new, target)
        finally:
            os.close(new)
    finally:
        os.close(target)


def _make_dev(root: int) -> None:
    target = paths.open_in_root(root, b"dev", os.O_PATH | os.O_DIRECTORY, links=False)
    dev = mount.new_filesystem(
        b"tmpfs", ((b"mode", b"755"), (b"size", b"64k")), mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    )
    binds = []
    for name, major, minor in NODES:
        try:
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
            os.chmod(name, 0o666, dir_fd=dev)
        except PermissionError:  # no CAP_MKNOD, as in another container: take the node that is there
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=dev))
            binds.append(name)
    for name, link in LINKS:
        os.symlink(link, name, dir_fd=dev)
    for name in (b"pts", b"shm", b"mqueue"):
        os.mkdir(name, dir_fd=dev)
    os.close(os.open(b"console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dev))
    mount.attach(dev, target)
    for name in binds:
        node = mount.clone_tree(mount.AT_FDCWD, b"/dev/" + name, recursive=False)
        place = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=dev)
        mount.attach(node, place)
        os.close(place)
        os.close(node)
    os.close(dev)
    os.close(target)


def bind_console(root: int, devpts: int, number: int) -> None:
    """Show the command's terminal as /dev/console too, as the OCI runtime spec asks.

    What is bound is the peer by its number in the devpts that is open, and no link is followed to where it goes: both
    could be exchanged for something of the host (CVE-2025-52565).
    """
    slave = mount.clone_tree(devpts, b"%d" % number, recursive=False)
    target = paths.make_file_in_root(root, b"dev/console", 0o600, links=False)
    mount.attach(slave, target)
    os.close(target)
    os.close(slave)


def _target(entry: Volume | Tmpfs, root: int, *, make_target: bool) -> int:
    path = os.fsencode(entry.destination)
    if not make_target:
        return paths.open_in_root(root, path)
    if isinstance(entry, Volume) and not os.path.isdir(entry.source):
        return paths.make_file_in_root(root, path)
    return paths.make_directory_in_root(root, path)


def _mount_entry(entry: Volume | Tmpfs, root: int, *, make_target: bool) -> None:
    target = _target(entry, root, make_target=make_target)
    readonly = mount.MOUNT_ATTR_RDONLY if entry.readonly else 0
    if isinstance(entry, Volume):
        new = mount.clone_tree(mount.AT_FDCWD, os.fsencode(entry.source), follow=True)
        if readonly:
            mount.set_attributes(new, set_=readonly, recursive=True)
    else:
        options: list[tuple[bytes, bytes | None]] = [(b"mode", b"%o" % entry.mode)]
        if entry.size is not None:
            options.append((b"size", b"%d" % entry.size))
        noexec = 0 if entry.exec else mount.MOUNT_ATTR_NOEXEC
        new = mount.new_filesystem(b"tmpfs", options, _NOSUID_NODEV | noexec | readonly)
    mount.attach(new, target)
    os.close(new)
    os.close(target)


def heat_of_cpus(directory: str = "/sys/devices/system/cpu") -> list[bytes]:
    """What tells how hot each CPU is, and so what others compute on it (moby, GHSA-6fw5-f8r9-fgfm)."""
    if not os.path.exists(f"{directory}/cpu0/thermal_throttle"):
        return []
    cpus = [name for name in os.listdir(directory) if name.startswith("cpu") and name[3:].isdigit()]
    return [os.fsencode(f"{directory.lstrip('/')}/{name}/thermal_throttle") for name in cpus]


def _protect(root: int) -> None:
    """Cover what tells about the host; make read-only what steers it."""
    covers = Covers()
    for path in (*_MASKED, *heat_of_cpus()):
        try:
            target = paths.open_in_root(root, path)
        except OSError:
            continue  # this kernel does not have it
        covers.hide(target)
        os.close(target)
    for path in _READ_ONLY:
        try:
            target = paths.open_in_root(root, path)
        except OSError:
            continue
        make_read_only(target)
        os.close(target)
    covers.close()


class Covers:
    """What paths are hidden with: the host's null device over files, an empty read-only directory over directories."""

    def __init__(self) -> None:
        self._null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._empty = -1
        if not is_null_device(os.fstat(self._null)):
            # a cover that is not the null device would show something instead (CVE-2025-31133)
            raise OSError(errno.EINVAL, "/dev/null is not the null device")

    def hide(self, target: int) -> None:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            cover = mount.clone_tree(self._null, recursive=False)
            mount.attach(cover, target)
            os.close(cover)
        elif self._empty < 0:
            self._empty = mount.new_filesystem(b"tmpfs", (), SAFE | mount.MOUNT_ATTR_RDONLY)
            mount.attach(self._empty, target)
        else:  # one file system for all: each costs the kernel something to make, and more to take down
            cover = mount.clone_tree(self._empty, recursive=False)
            mount.attach(cover, target)
            os.close(cover)

    def close(self) -> None:
        os.close(self._null)
        if self._empty >= 0:
            os.close(self._empty)


def is_null_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def make_read_only(target: int) -> None:
    """Bind what the descriptor is open on, with all that is mounted below, over itself, read-only."""
    cover = mount.clone_tree(target)
    mount.set_attributes(cover, set_=mount.MOUNT_ATTR_RDONLY, recursive=True)
    mount.attach(cover, target)
    os.close(cover)
