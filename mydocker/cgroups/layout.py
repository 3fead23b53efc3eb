"""Where each cgroup controller lives on this host, read from /proc; nothing is guessed from directories' names.

Sources: proc(5) for /proc/PID/mountinfo, cgroups(7) for /proc/PID/cgroup, cgroup_namespaces(7) for what both
show inside a cgroup namespace, Documentation/admin-guide/cgroup-v2.rst ("Delegation", "Namespace").
"""

from __future__ import annotations

import os

from mydocker.errors import CgroupError, UnsupportedLimit
from mydocker.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal

    from mydocker.cgroups.controllers import Controller
    from mydocker.resources import ResourceConfig

    Kind = Literal["v1", "v2", "hybrid", "none"]

#: The name under which `Layout.find` knows the files that every v2 cgroup has (cgroup.freeze, cgroup.events, …).
CORE = "cgroup"

#: Bytes of a mountinfo, some hundred lines, from which on it is worth asking whether the rest is needed.
_MANY_MOUNTS = 16 << 10


class CgroupMount(Value):
    """One mount of a cgroup file system, a line of mountinfo.

    ``id`` and ``parent`` number the mount and the one that it is mounted on.
    ``root`` is the cgroup that is seen at the mount point, as a path in this process's cgroup namespace.
    ``device`` is its ``st_dev``. ``options`` are those of the superblock, where v1 names its controllers.
    """

    id: int
    parent: int
    version: int
    mountpoint: str
    root: str
    device: int
    options: tuple[str, ...]
    readonly: bool


class Membership(Value):
    """The cgroup of this process in one hierarchy, a line of /proc/self/cgroup. v2 has no ``controllers``."""

    controllers: tuple[str, ...]
    path: str


class Hierarchy(Value):
    """One cgroup hierarchy that this process can see.

    ``version``      1 or 2.
    ``mountpoint``   where it is mounted.
    ``controllers``  those it offers to containers (v2: cgroup.controllers of the base).
    ``own``          this process's cgroup, from the mount point: ``/`` at its top, empty if it is not seen.
    ``base``         the directory below which containers' cgroups are made: the mount point, or, where that cannot be
                     written, the top of the subtree that is delegated to this user, or what root prepared.
    """

    version: int
    mountpoint: str
    controllers: tuple[str, ...]
    own: str
    base: str

    @property
    def at_kernel_root(self) -> bool:
        """Whether the mount point shows the kernel's root cgroup, not that of a container or a namespace.

        The root alone lacks cgroup.type on v2, and alone has cgroup.sane_behavior on v1.
        """
        if self.version == 2:
            return not os.path.exists(f"{self.mountpoint}/cgroup.type")
        return os.path.exists(f"{self.mountpoint}/cgroup.sane_behavior")


class Layout(Value):
    """The cgroup hierarchies of this host: ``v1``, ``v2``, both (``hybrid``) or ``none``."""

    kind: Kind
    hierarchies: tuple[Hierarchy, ...]

    @classmethod
    def read(cls) -> Layout:
        """The layout as this process sees it."""
        memberships = parse_memberships(own_cgroups())
        pairs = read_matched("/proc/self/mountinfo", memberships)
        return cls.of(_hierarchy(mount, membership) for mount, membership in pairs)

    @classmethod
    def of(cls, hierarchies: Iterable[Hierarchy]) -> Layout:
        """The layout that consists of ``hierarchies``."""
        found = tuple(hierarchies)
        versions = {hierarchy.version for hierarchy in found}
        kind: Kind = "none" if not versions else "hybrid" if len(versions) == 2 else "v1" if 1 in versions else "v2"
        return cls(kind=kind, hierarchies=found)

    def find(self, controller: str) -> Hierarchy | None:
        """The hierarchy that offers ``controller``, or None. ``cgroup`` is the v2 hierarchy itself.

        The kernel binds a controller to one hierarchy, so at most one can offer it.
        """
        for hierarchy in self.hierarchies:
            if controller in hierarchy.controllers or (controller == CORE and hierarchy.version == 2):
                return hierarchy
        return None

    def version(self, controller: str) -> int | None:
        """The cgroup version, 1 or 2, on which ``controller`` is, or None."""
        hierarchy = self.find(controller)
        return hierarchy.version if hierarchy else None

    def require(self, controller: str) -> Hierarchy:
        """The hierarchy that offers ``controller``; a `CgroupError` that says what to do if none does."""
        hierarchy = self.find(controller)
        if hierarchy is None:
            from mydocker.cgroups.absence import explain

            raise CgroupError(explain(self, controller))
        return hierarchy

    def require_for(self, controller: str, config: ResourceConfig, *fields: str) -> Hierarchy | None:
        """The hierarchy that offers ``controller``, for those of ``fields`` that ``config`` sets; None if it sets none.

        Of use in ``mydocker_validate``: if no hierarchy offers it, an `UnsupportedLimit` for the first of the fields
        that is set. With ``--limits best-effort`` the core drops that one and asks again, so each is named.
        """
        for field in fields:
            if field in config:
                hierarchy = self.find(controller)
                if hierarchy is not None:
                    return hierarchy
                from mydocker.cgroups.absence import explain

                raise UnsupportedLimit(field, explain(self, controller))
        return None

    def root(self, controller: str) -> Controller:
        """The controller of the base directory, above all containers: what it offers bounds every container.

        For probing and validation: to write to it is a PermissionError. `CgroupError` if the host does not offer
        ``controller``.
        """
        from mydocker.cgroups.plain import ForeignDirectory, controller_at

        hierarchy = self.require(controller)
        return controller_at(controller, hierarchy.version, ForeignDirectory(hierarchy.base))

    @property
    def in_container(self) -> bool:
        """Whether only a part of a hierarchy is visible: we are in a container, or in a cgroup namespace."""
        return any(not hierarchy.at_kernel_root for hierarchy in self.hierarchies)


def own_cgroups() -> bytes:
    """/proc/self/cgroup: with the mounts, all that the layout is read from."""
    return _contents("/proc/self/cgroup")


def parse_mountinfo(text: bytes) -> list[CgroupMount]:
    """The cgroup mounts among the lines of a mountinfo."""
    mounts = []
    for line in text.split(b"\n"):  # not splitlines(): a carriage return may be in a path
        # A cheap sieve first: a host with many containers has thousands of mounts.
        if b" - cgroup" not in line:
            continue
        before, _, after = line.partition(b" - ")
        number, parent, device, root, mountpoint, flags, *_optional = before.split(b" ")
        kind, _, options = (after + b"  ").split(b" ", 2)
        if kind not in (b"cgroup", b"cgroup2"):
            continue
        major, _, minor = device.partition(b":")
        mounts.append(
            CgroupMount(
                id=int(number),
                parent=int(parent),
                version=2 if kind == b"cgroup2" else 1,
                mountpoint=_unescape(mountpoint),
                root=_unescape(root),
                device=os.makedev(int(major), int(minor)),
                options=tuple(_unescape(options.strip()).split(",")),
                readonly=b"ro" in flags.split(b",") or b"ro" in options.strip().split(b","),
            )
        )
    return mounts


def _unescape(field: bytes) -> str:
    r"""Undo mountinfo's octal escapes of blank, tab, newline, backslash and # (``\040``)."""
    if b"\\" in field:
        first, *rest = field.split(b"\\")
        field = first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
    return os.fsdecode(field)


def parse_memberships(text: bytes) -> list[Membership]:
    """The lines of /proc/self/cgroup: ``4:memory:/a``, ``1:name=systemd:/``, ``0::/a`` (v2)."""
    memberships = []
    for line in filter(None, text.split(b"\n")):
        _, controllers, path = os.fsdecode(line).split(":", 2)
        memberships.append(
            Membership(
                controllers=tuple(name for name in controllers.split(",") if name),
                # The kernel marks the path of a cgroup that was removed under its last process.
                path=path.removesuffix(" (deleted)"),
            )
        )
    return memberships


def _is_visible(mount: CgroupMount) -> bool:
    """Whether looking up the mount point leads to this mount: a later mount may hide it."""
    try:
        return os.stat(mount.mountpoint).st_dev == mount.device
    except OSError:
        return False


def matched(
    mounts: Iterable[CgroupMount],
    memberships: Iterable[Membership],
    is_visible: Callable[[CgroupMount], bool] = _is_visible,
) -> list[tuple[CgroupMount, Membership]]:
    """For each hierarchy of ``memberships`` the mount to use. A hierarchy that is not mounted is left out.

    Of several mounts of one hierarchy, a writable one that shows our own cgroup and the most of the hierarchy is used.
    """
    mounts = _uncovered(list(mounts))
    pairs = []
    for membership in memberships:
        candidates = [mount for mount in mounts if _is_mount_of(mount, membership) and is_visible(mount)]
        if candidates:
            best = min(
                candidates,
                key=lambda mount: (mount.readonly, not path_in_mount(membership.path, mount.root), len(mount.root)),
            )
            pairs.append((best, membership))
    return pairs


def read_matched(
    path: str, memberships: list[Membership], mount_id: Callable[[str], int] | None = None
) -> list[tuple[CgroupMount, Membership]]:
    """`matched` of the mountinfo ``path``, of which no more is read than decides.

    An engine mounts two or three file systems for each of its containers, while those of cgroups were mounted when the
    host came up, and are among the first lines. ``mount_id``: the number of the mount that a path leads to.
    """
    text = b""
    asked = False
    for chunk in _chunks(path):
        text += chunk
        if asked or len(text) < _MANY_MOUNTS:
            continue
        asked = True
        pairs = matched(parse_mountinfo(text[: text.rfind(b"\n") + 1]), memberships)
        if len(pairs) == len(memberships) and all(
            _is_best(mount, membership, mount_id or _mount_id) for mount, membership in pairs
        ):
            return pairs
    return matched(parse_mountinfo(text), memberships)


def _is_best(mount: CgroupMount, membership: Membership, mount_id: Callable[[str], int]) -> bool:
    """Whether `matched` takes this one whatever other mounts there are: it shows all, and nothing is on top of it."""
    whole = mount.root == "/" and path_in_mount(membership.path, mount.root) != "" and not mount.readonly
    return whole and mount_id(mount.mountpoint) == mount.id


def _mount_id(path: str) -> int:
    """As mountinfo has it; -1 for a path that leads nowhere."""
    from mydocker.linux import statfs

    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return statfs.mount_id(fd)
    finally:
        os.close(fd)


def _uncovered(mounts: list[CgroupMount]) -> list[CgroupMount]:
    """Without those that have another of ``mounts`` on top, as when a container's own cgroup is bound over all."""
    covered = {(mount.parent, mount.mountpoint) for mount in mounts}
    return [mount for mount in mounts if (mount.id, mount.mountpoint) not in covered]


def _is_mount_of(mount: CgroupMount, membership: Membership) -> bool:
    if not membership.controllers:
        return mount.version == 2
    return mount.version == 1 and all(name in mount.options for name in membership.controllers)


def path_in_mount(path: str, root: str) -> str:
    """The cgroup ``path`` seen through a mount of the cgroup ``root``; empty if it is not below it.

    Both are paths in the reader's cgroup namespace. What is outside of the namespace shows as ``/..``
    (cgroup_namespaces(7)) and cannot be named from inside.
    """
    prefix = root.rstrip("/")
    if path == root:
        return "/"
    inner = path.removeprefix(prefix)
    if (inner == path and prefix) or not inner.startswith("/") or ".." in inner.split("/"):
        return ""
    return inner


def _hierarchy(mount: CgroupMount, membership: Membership) -> Hierarchy:
    own = path_in_mount(membership.path, mount.root)
    base = _base(mount.mountpoint, own)
    controllers = membership.controllers
    if mount.version == 2:
        controllers = tuple(os.fsdecode(_contents(f"{base}/cgroup.controllers")).split())
    return Hierarchy(version=mount.version, mountpoint=mount.mountpoint, controllers=controllers, own=own, base=base)


def _base(mountpoint: str, own: str) -> str:
    if _is_ours(mountpoint):
        return mountpoint
    return delegation_root(mountpoint, own) or _prepared(mountpoint) or mountpoint


def _prepared(mountpoint: str) -> str:
    """The cgroup that root has made for this plain user: ``mydocker-USER`` at the top, by name or number; or empty."""
    if os.geteuid() == 0:
        return ""
    from mydocker.cgroups import delegation

    return next(filter(_is_ours, delegation.prepared_places(mountpoint)), "")


def _is_ours(directory: str) -> bool:
    """Whether this user may make cgroups in ``directory`` and move processes there."""
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


def delegation_root(mountpoint: str, own: str) -> str:
    """The directory of the subtree with our own cgroup in it that is delegated to this user, or empty.

    That is the nearest cgroup upwards that systemd has marked as delegated (the attribute ``user.delegate``,
    systemd.resource-control(5)): what is above it is systemd's to change. Where nothing is marked, it is
    the topmost one that this user may write.
    """
    topmost = ""
    directory = mountpoint + own.rstrip("/")
    while own and len(directory) > len(mountpoint):
        if _is_ours(directory):
            topmost = directory
            if _is_marked_delegated(directory):
                break
        elif topmost:
            break
        directory = directory.rpartition("/")[0]
    return topmost


def _is_marked_delegated(directory: str) -> bool:
    try:
        return os.getxattr(directory, "user.delegate") == b"1"
    except OSError:
        return False


def _contents(path: str) -> bytes:
    """The whole file, or nothing if there is none: a kernel without cgroups has no /proc/self/cgroup."""
    return b"".join(_chunks(path))


def _chunks(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while chunk := os.read(fd, 1 << 16):
            yield chunk
    finally:
        os.close(fd)
