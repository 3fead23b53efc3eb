"""Which CPUs and memory nodes the container may use: ``--cpuset-cpus``, ``--cpuset-mems``.

Kernel documentation: cgroup-v1/cpusets.rst, cgroup-v2.rst ("Cpuset"), cpuset(7).
"""

from __future__ import annotations

from mydocker import CgroupError, LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import format_cpu_list, parse_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

_KINDS = {"cpuset_cpus": ("cpus", "CPU"), "cpuset_mems": ("mems", "memory node")}


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="cpuset_cpus",
            flags=("--cpuset-cpus", "-cpuset"),
            parse=parse_cpu_list,
            metavar="LIST",
            help="The CPUs that the container may run on, by number, as in 0-2,4.",
            oci="linux.resources.cpu.cpus",
        ),
        ResourceField(
            name="cpuset_mems",
            flags=("--cpuset-mems",),
            parse=parse_cpu_list,
            metavar="LIST",
            help="The memory nodes (NUMA) that the container may allocate from, by number, as in 0,1.",
            oci="linux.resources.cpu.mems",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("cpuset").version
    except CgroupError as e:
        return Probe(controllers=("cpuset",), problem=str(e))
    return Probe(controllers=("cpuset",), version=version, files=("cpuset.cpus", "cpuset.mems"))


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    above = layout.root("cpuset")
    for field in _KINDS:
        if field in config:
            _require_offered(field, config[field], _effective(above, field), "this host offers")


def _require_offered(field: str, wanted: tuple[int, ...], offered: set[int], who: str) -> None:
    missing = set(wanted) - offered
    if missing:
        noun = _KINDS[field][1]
        are = f"{noun}s {format_cpu_list(missing)} are" if len(missing) > 1 else f"{noun} {format_cpu_list(missing)} is"
        raise LimitError(field, f"{are} not available: {who} {format_cpu_list(offered)}")


def _effective(controller: Controller, field: str) -> set[int]:
    """What the kernel really grants. Where v1 does not say (before Linux 4.x), what is configured."""
    kind = _KINDS[field][0]
    granted = controller.get_content(f"effective_{kind}") or controller.get_content(kind)
    return set(granted or ())


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("cpuset")
    for field, (kind, _) in _KINDS.items():
        if field in config:
            _set(controller, field, kind, config[field])


def _set(controller: Controller, field: str, kind: str, wanted: tuple[int, ...]) -> None:
    """v1 refuses what a cgroup above does not offer; v2 takes it and quietly grants something else: so look."""
    try:
        setattr(controller, kind, wanted)
    except CgroupError:
        parent = controller.parent()
        _require_offered(field, wanted, _effective(parent, field), f"the cgroup {parent.path} offers")
        raise
    _require_offered(field, wanted, _effective(controller, field), "the cgroup above the container's offers")


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("cpuset", pid)
