"""The processes of a container that runs, for changes that are made to each of them.

A limit may import this module: see docs/plugins.md. What a process has before its first fork, its children inherit.
That is enough when a container starts; one that runs already has to be gone through.
"""

from __future__ import annotations

import errno
import os

from mydocker.cgroups.moving import descendants
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mydocker.cgroups.group import ContainerCgroup


def each_process(cgroup: ContainerCgroup, first: int, change: Callable[[int], object]) -> None:
    """Call ``change`` with the PID of every process of the container whose first process is ``first``.

    One that is forked meanwhile has inherited the change, or is found in the next round. One that ends meanwhile
    (ProcessLookupError, FileNotFoundError) is passed over; what else ``change`` raises, ends this.
    """
    _each(lambda: descendants(first).union(cgroup.pids()), change)


def each_thread(cgroup: ContainerCgroup, first: int, change: Callable[[int], object]) -> None:
    """As `each_process`, with every thread of them: the kernel schedules each by itself."""

    def threads() -> set[int]:
        found: set[int] = set()
        for pid in descendants(first).union(cgroup.pids()):
            try:
                found.update(int(name) for name in os.listdir(f"/proc/{pid}/task"))
            except FileNotFoundError:
                continue
        return found

    _each(threads, change)


def _each(there: Callable[[], set[int]], change: Callable[[int], object]) -> None:
    changed: set[int] = set()
    for _ in range(1000):
        new = there() - changed
        if not new:
            return
        for number in new:
            try:
                change(number)
            except (ProcessLookupError, FileNotFoundError):
                pass
        changed |= new
    raise CgroupError("cannot change all processes of the container: they fork too fast", errno.EBUSY)
