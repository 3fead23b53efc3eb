"""Making a container's cgroup in one hierarchy, while other runs make and remove theirs beside it."""

from __future__ import annotations

import errno
import os

from mydocker.cgroups import files, removal
from mydocker.cgroups.places import MADE_FOR_CONTAINERS, common_parent, directories
from mydocker.errors import CgroupDenied, CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mydocker.cgroups.layout import Hierarchy

# What a user without the right to make cgroups hears, and everybody where they are mounted read-only.
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

# mkdir(2) below a cgroup that is being removed, or was.
_VANISHED = (errno.ENOENT, errno.ENODEV)


def remove_common_parents(hierarchies: Iterable[Hierarchy]) -> None:
    """Those that hold nothing."""
    for hierarchy in hierarchies:
        removal.remove_if_empty(common_parent(hierarchy))


def make(hierarchy: Hierarchy, path: str) -> str:
    """Make the cgroup ``path`` with the parents it lacks; its directory.

    `CgroupError` if it exists, or the kernel refuses. Another run removes a parent as soon as it finds it empty;
    once our directory is in it, it stays.
    """
    *parents, directory = directories(hierarchy, path)
    for _ in range(1000):
        try:
            files.make_directory(directory)
        except FileExistsError:
            raise CgroupError(
                f"the cgroup {directory} exists already: a container of that name runs, or has left it; "
                "if nothing runs in it, remove it by rmdir",
                errno.EEXIST,
            ) from None
        except OSError as e:
            if e.errno not in _VANISHED:
                raise mkdir_refused(directory, e) from e
            _make_parents(parents)
        else:
            return directory
    raise CgroupError(f"cannot make the cgroup {directory}: its parent keeps vanishing", errno.ENOENT)


def is_there(directory: str) -> bool:
    """Whether the cgroup exists. `CgroupError` if something runs in it, or in one below it."""
    if not os.path.isdir(directory):
        return False
    from mydocker.cgroups.contents import pids

    running = pids(directory)
    if running:
        raise CgroupError(
            f"container's cgroup is not empty: {len(running)} process(es) found in {directory}", errno.EBUSY
        )
    return True


def _make_parents(parents: list[str]) -> None:
    for parent in parents:
        try:
            files.make_directory(parent)
        except FileExistsError:
            continue
        except OSError as e:
            if e.errno in _VANISHED and parent is not parents[0]:
                return  # removed meanwhile: the caller starts again
            raise mkdir_refused(parent, e) from e
        _mark(parent)


def _mark(parent: str) -> None:
    """Note on the cgroup itself that a container needed it: the last one in it removes it, whichever made it."""
    for name in MADE_FOR_CONTAINERS:
        try:
            os.setxattr(parent, name, b"1")
        except OSError:
            continue  # not this kind of attribute, or not for this user
        return


def is_allowed(hierarchy: Hierarchy) -> bool:
    """Whether a cgroup that nobody asked for is to be tried in this hierarchy.

    Not by a plain user who may not write there, nor by the root of a plain user's namespace, who may as little. Root
    of the host is to be told what is wrong.
    """
    if os.access(hierarchy.base, os.W_OK):
        return True
    from mydocker.linux import process

    return os.geteuid() == 0 and process.in_initial_user_namespace()


def mkdir_refused(directory: str, error: OSError) -> CgroupError:
    """The error for a cgroup that the kernel did not make."""
    hints = {
        errno.EAGAIN: "cgroup.max.descendants or cgroup.max.depth of a cgroup above allow no more",
        errno.ENOSPC: "the kernel has no room for more cgroups of this kind",
        errno.ENOENT: "the hierarchy's base is gone",
    }
    hint = hints.get(error.errno or 0, "")
    if os.geteuid() != 0 and error.errno in (errno.EACCES, errno.EPERM):
        from mydocker.cgroups import delegation

        hint = delegation.how_to_get_it(directory)
    return _denied(files.refused("make the cgroup", directory, error, hint))


def _denied(refusal: CgroupError) -> CgroupError:
    """The same error, as one of its own kind if it says that no cgroup can be had: best-effort limits do without."""
    return CgroupDenied(str(refusal), refusal.errno) if refusal.errno in _DENIED else refusal


def require_movable(hierarchy: Hierarchy, path: str) -> None:
    """v2: `CgroupDenied` if the kernel will not let this plain user move a process of his into the cgroup ``path``.

    It asks for write access to cgroup.procs of the nearest cgroup above both (cgroup-v2.rst, "Delegation Containment").
    Where he may not even make a cgroup, `make` says so.
    """
    if not os.access(hierarchy.base, os.W_OK) or files.imitation_of(f"{hierarchy.base}/{path}"):
        return
    own = f"{hierarchy.mountpoint}{hierarchy.own}"
    common = os.path.commonpath([own, f"{hierarchy.base}/{path}"])
    if not hierarchy.own or not os.access(f"{common}/cgroup.procs", os.W_OK):
        from mydocker.cgroups import delegation

        raise CgroupDenied(delegation.why_not_moved(hierarchy), errno.EACCES)


def enable(hierarchy: Hierarchy, path: str, controller: str) -> None:
    """v2: enable ``controller`` from the base down to the parent of the cgroup ``path``, which exists.

    It exists first, so that no other run can remove a parent in between.
    """
    word = f"+{controller}"
    for directory in [hierarchy.base, *directories(hierarchy, path)[:-1]]:
        control = f"{directory}/cgroup.subtree_control"
        if controller in files.read(control).split():
            continue
        try:
            files.write(control, word)
        except CgroupError as e:
            if e.errno in _DENIED:
                raise _denied(e) from e
            if e.errno != errno.EBUSY:
                raise
            from mydocker.cgroups import moving

            moving.make_room(hierarchy, directory, e)
            files.write(control, word)


def enable_all(hierarchy: Hierarchy, path: str) -> None:
    """v2: enable for the cgroup ``path``, which exists, every controller that the base offers.

    As far as the kernel does so: who needs one that is missing hears why from `enable`.
    """
    for directory in [hierarchy.base, *directories(hierarchy, path)[:-1]]:
        control = f"{directory}/cgroup.subtree_control"
        enabled = files.read(control).split()
        missing = [f"+{name}" for name in hierarchy.controllers if name not in enabled]
        if not missing:
            continue
        try:
            files.write(control, " ".join(missing))
        except CgroupError:
            for word in missing:
                try:
                    files.write(control, word)
                except CgroupError:
                    continue


def inherit_cpuset(hierarchy: Hierarchy, path: str) -> None:
    """v1: give the cgroup ``path`` and its parents the CPUs and memory nodes of the nearest ancestor that has some.

    A new v1 cpuset has none, and refuses every process with ENOSPC until it has (cpusets.rst, 1.5). Two runs that
    do this at once write the same.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        above = files.read(f"{hierarchy.base}/{name}")
        for directory in directories(hierarchy, path):
            here = files.read(f"{directory}/{name}")
            if not here:
                files.write(f"{directory}/{name}", above)
            above = here or above
