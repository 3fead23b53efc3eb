"""Stopping every process of a container where it is, and letting them go on.

v2 has a freezer in every cgroup (cgroup-v2.rst, "cgroup.freeze"); what it has frozen can still be killed. v1 has a
controller for it (cgroup-v1/freezer-subsystem.rst); what that has frozen ends, killed or not, only when it is thawed.
So a host that has both gets v2's.
"""

from __future__ import annotations

import errno
import os
import time

from mydocker.cgroups import files
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: Seconds that the kernel gets to stop, or to let go on, all processes of a container.
PATIENCE = 5.0

#: Seconds after which the v1 freezer is asked again: what forked at the wrong moment has escaped the first request.
_ASK_AGAIN = 0.05

_GONE = (errno.ENOENT, errno.ENODEV)


def freeze(cgroup: ContainerCgroup, patience: float = PATIENCE) -> None:
    """Stop every process of the container, and return when all have stopped. Fine if they have already.

    A container without a cgroup that can freeze gets one, as `ContainerCgroup.controller` makes it. `CgroupError` if
    some process does not stop in ``patience`` seconds, as in uninterruptible sleep; then none is left stopped.
    """
    there = _controllers(cgroup)
    controller = cgroup.controller(there[0] if there else freezer_of(cgroup.layout))
    request(controller.path, controller.version, frozen=True)
    if not settle(controller.path, controller.version, frozen=True, patience=patience):
        request(controller.path, controller.version, frozen=False)
        raise CgroupError(
            f"the processes of the container do not all stop within {patience:g} s: one of them waits in the kernel, "
            "as for a disk or a file server that does not answer",
            errno.EBUSY,
        )


def thaw(cgroup: ContainerCgroup, patience: float = PATIENCE) -> None:
    """Let the processes of the container go on. Fine if it is not frozen.

    `CgroupError` if they do not, because a cgroup above the container's is frozen.
    """
    for name in _controllers(cgroup):
        controller = cgroup.controller(name)
        request(controller.path, controller.version, frozen=False)
        if not settle(controller.path, controller.version, frozen=False, patience=patience):
            raise CgroupError(
                f"the container stays frozen, because a cgroup above {controller.path} is: thaw that one", errno.EBUSY
            )


def is_frozen(cgroup: ContainerCgroup) -> bool:
    """Whether the processes of the container stand still, by whoever froze them: another process may have, and may
    have made the cgroup for it."""
    for name in ("cgroup", "freezer"):
        hierarchy = cgroup.layout.find(name)
        try:
            if hierarchy is not None and has_settled(f"{hierarchy.base}/{cgroup.path}", hierarchy.version, frozen=True):
                return True
        except CgroupError as e:
            if e.errno not in _GONE:
                raise
    return False


def can_freeze(cgroup: ContainerCgroup) -> bool:
    """Whether the container has a cgroup that can freeze; `freeze` makes one where it has not."""
    return bool(_controllers(cgroup))


def freezer_of(layout: Layout) -> str:
    """What `ContainerCgroup.controller` is to be asked for to freeze: ``cgroup`` (v2) or ``freezer`` (v1).

    A `CgroupError` if this host has neither.
    """
    for name in ("cgroup", "freezer"):
        if layout.find(name) is not None:
            return name
    raise CgroupError("nothing can freeze a container here: mount cgroup2, or v1 with -t cgroup -o freezer")


def _controllers(cgroup: ContainerCgroup) -> list[str]:
    """Those that can freeze and in whose hierarchy the container has a cgroup."""
    return [name for name in ("cgroup", "freezer") if cgroup.has(name)]


def request(directory: str, version: int, *, frozen: bool) -> None:
    """Ask the kernel to freeze, or to thaw, the cgroup and all below it; it does so in its own time."""
    if version == 2:
        files.write(f"{directory}/cgroup.freeze", "1" if frozen else "0")
    else:
        files.write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")


def request_if_there(directory: str, version: int, *, frozen: bool) -> bool:
    """As `request`; False if the cgroup, or its freezer, is not there."""
    try:
        request(directory, version, frozen=frozen)
    except CgroupError as e:
        if e.errno not in _GONE:
            raise
        return False
    return True


def has_settled(directory: str, version: int, *, frozen: bool) -> bool:
    """Whether all processes in the cgroup and below it are frozen, or thawed."""
    if version == 2:
        return f"frozen {int(frozen)}" in files.read(f"{directory}/cgroup.events").splitlines()
    return files.read(f"{directory}/freezer.state") == ("FROZEN" if frozen else "THAWED")


def settle(directory: str, version: int, *, frozen: bool, patience: float) -> bool:
    """Wait until it `has_settled`; False if it does not in ``patience`` seconds."""
    now = time.monotonic()
    deadline, ask_again, pause = now + patience, now + _ASK_AGAIN, 0.0002
    while not has_settled(directory, version, frozen=frozen):
        now = time.monotonic()
        if now > deadline:
            return False
        if version == 1 and now > ask_again:
            request(directory, version, frozen=frozen)
            ask_again = now + _ASK_AGAIN
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
    return True


def let_killed_end(layout: Layout, path: str) -> None:
    """Thaw the container's v1 cgroup, whichever process made it: what was killed there ends only then.

    One system call where there is none.
    """
    hierarchy = layout.find("freezer")
    if hierarchy is None or not os.path.exists(f"{hierarchy.base}/{path}/freezer.state"):
        return
    from mydocker.cgroups.contents import walk

    for directory in walk(f"{hierarchy.base}/{path}"):
        request_if_there(directory, 1, frozen=False)


def take_back(layout: Layout, path: str, pid: int) -> None:
    """Put a killed process into the container's v1 cgroup, out of one where somebody has frozen it.

    A process is thawed by being moved where nothing is (kernel/cgroup/legacy_freezer.c, ``freezer_attach``).
    """
    hierarchy = layout.find("freezer")
    if hierarchy is None:
        return
    own = f"{hierarchy.base}/{path}"
    try:
        files.write(f"{own if os.path.isdir(own) else hierarchy.base}/cgroup.procs", str(pid))
    except CgroupError as e:
        if e.errno != errno.ESRCH:  # it has ended meanwhile
            raise
