"""Moving processes that run from one cgroup to another."""

from __future__ import annotations

import errno
import os

from mydocker.cgroups import contents, files
from mydocker.cgroups.creation import mkdir_refused
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.layout import Hierarchy

#: The cgroup to which the processes at the top of a container, or of a delegated subtree, move.
HOST_LEAF = "mydocker-host"


def make_room(hierarchy: Hierarchy, directory: str, refusal: CgroupError) -> None:
    """Empty ``directory``, whose own processes are in the way of its controllers, where that is ours to do.

    "No internal process" (cgroup-v2.rst): a cgroup that gives controllers to its children holds no process itself.
    The top of a container's cgroup namespace and the top of a delegated subtree are ours to arrange; in any other
    cgroup somebody put the processes where they are.
    """
    if directory != hierarchy.base:
        raise CgroupError(
            f"the cgroup {directory} holds processes itself, so the kernel does not let it pass limits on to the "
            "cgroups below it: choose another --cgroup-parent",
            errno.EBUSY,
        ) from refusal
    leaf = f"{directory}/{HOST_LEAF}"
    try:
        files.make_directory(leaf)
    except FileExistsError:
        pass
    except OSError as e:
        raise mkdir_refused(leaf, e) from e
    # More than once: a process may have forked between the reading and the move.
    for _ in range(100):
        pids = files.read(f"{directory}/cgroup.procs").split()
        if not pids:
            return
        if "0" in pids:  # how a process of another PID namespace shows
            raise CgroupError(
                f"the cgroup {directory} holds processes that cannot be seen from this PID namespace, so they cannot "
                "be moved out of the way: run mydocker in a cgroup of its own",
                errno.EBUSY,
            ) from refusal
        for pid in pids:
            _move(pid, f"{leaf}/cgroup.procs")


def _move(pid: str, procs: str) -> None:
    try:
        files.write(procs, pid)
    except CgroupError as e:
        if e.errno != errno.ESRCH:  # it has ended: as good as moved
            raise


def move_tree(first: int, directory: str) -> None:
    """Move the process ``first`` and all its descendants into the cgroup ``directory``, while they run.

    In a container all processes descend from the first one, which the kernel makes the parent of orphans
    (pid_namespaces(7)). A child that is forked meanwhile is in its parent's cgroup or is found in the next round.
    """
    procs = f"{directory}/cgroup.procs"
    for _ in range(1000):
        outside = descendants(first) - set(contents.pids(directory))
        if not outside:
            return
        for pid in outside:
            _move(str(pid), procs)
    raise CgroupError(f"cannot move the container's processes to {directory}: they fork too fast", errno.EBUSY)


def descendants(first: int) -> set[int]:
    """The process ``first``, its children and theirs (/proc/PID/task/TID/children, proc(5)), but for zombies."""
    found: set[int] = set()
    waiting = [first]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                stat = f.read()
            if stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] not in (b"Z", b"X"):
                found.add(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", "rb") as f:
                    waiting += [int(child) for child in f.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
