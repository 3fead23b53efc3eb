"""For how long a container's tasks waited for a resource (Documentation/accounting/psi.rst). For plugins' usage."""

from __future__ import annotations

from mydocker.cgroups.layout import CORE
from mydocker.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker.cgroups.group import ContainerCgroup


def stall_seconds(cgroup: ContainerCgroup, resource: str) -> dict[str, float] | None:
    """``some_seconds`` and ``full_seconds``: for how long some, or all, of the tasks waited for ``resource``.

    That is ``cpu``, ``memory`` or ``io``. The kernel counts it for each v2 cgroup, whichever controllers that has. None
    where the container has no v2 cgroup, or the kernel does not count (CONFIG_PSI, booted with psi=0).
    """
    if not cgroup.has(CORE):
        return None
    core = cgroup.controller(CORE)
    try:
        lines = core.get_property(f"{resource}.pressure").splitlines()
    except CgroupError:
        return None
    # Before Linux 5.13 there is no "full" for the CPU.
    return {f"{line.partition(' ')[0]}_seconds": int(line.rpartition("total=")[2]) / 1e6 for line in lines}
