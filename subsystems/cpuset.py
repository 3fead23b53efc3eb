"""Which CPUs and memory nodes the container may use: ``--cpuset-cpus``, ``--cpuset-mems``, ``--cpuset-partition``.

Kernel documentation: cgroup-v1/cpusets.rst, cgroup-v2.rst ("Cpuset"), cpuset(7).
"""

from __future__ import annotations

import errno

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import format_cpu_list, parse_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

_KINDS = {"cpuset_cpus": ("cpus", "CPU"), "cpuset_mems": ("mems", "memory node")}
#: ``member`` is what every cgroup is that is no partition.
_PARTITIONS = ("root", "isolated", "member")
_PARTITION_FILE = "cpuset.cpus.partition"
_EXCLUSIVE_FILE = "cpuset.cpus.exclusive"


def parse_partition(text: str) -> str:
    kind = text.strip()
    if kind not in _PARTITIONS:
        raise ValueError(f'"{text}" is no kind of partition: write {", ".join(_PARTITIONS[:-1])} or {_PARTITIONS[-1]}')
    return kind


def list_from_oci(numbers: str | None, unified: str | None) -> str | None:
    """An empty list is not set. ``unified`` wins, as runc has it."""
    return (unified if unified is not None else numbers) or None


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="cpuset_cpus",
            flags=("--cpuset-cpus", "-cpuset"),
            parse=parse_cpu_list,
            metavar="LIST",
            help="The CPUs that the container may run on, by number, as in 0-2,4.",
            oci="linux.resources.cpu.cpus linux.resources.unified.cpuset.cpus",
            from_oci=list_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpuset_mems",
            flags=("--cpuset-mems",),
            parse=parse_cpu_list,
            metavar="LIST",
            help="The memory nodes (NUMA) that the container may allocate from, by number, as in 0,1.",
            oci="linux.resources.cpu.mems linux.resources.unified.cpuset.mems",
            from_oci=list_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpuset_partition",
            flags=("--cpuset-partition",),
            parse=parse_partition,
            metavar="KIND",
            help="Take the CPUs of --cpuset-cpus away from everybody else: root, or isolated, where the scheduler "
            "moves no task from one to another; member for neither. cgroup v2 only.",
            oci="linux.resources.unified.cpuset.cpus.partition",
            complete=" ".join(_PARTITIONS),
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("cpuset").version
    except CgroupError as e:
        return Probe(controllers=("cpuset",), problem=str(e))
    files = ("cpuset.cpus", "cpuset.mems", *((_PARTITION_FILE,) if version == 2 else ()))
    return Probe(controllers=("cpuset",), version=version, files=files)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    hierarchy = layout.require_for("cpuset", config, *_KINDS, "cpuset_partition")
    if hierarchy is None:
        return
    if config.get("cpuset_partition", "member") != "member":
        if hierarchy.version == 1:
            reason = f"{_PARTITION_FILE} exists on cgroup v2 only, and the cpuset controller here is on v1"
            raise UnsupportedLimit("cpuset_partition", reason)
        if "cpuset_cpus" not in config:
            raise LimitError("cpuset_partition", "it needs --cpuset-cpus too, which names the CPUs to take")
    above = layout.root("cpuset")
    for field in _KINDS:
        if field in config:
            offered = _effective(above, field)
            if hierarchy.version == 2 and field == "cpuset_cpus" and not offered.issuperset(config[field]):
                offered |= _in_partitions(above)
            _require_offered(field, config[field], offered, "this host offers")


def _in_partitions(above: Controller) -> set[int]:
    """The CPUs that partitions have taken away from ``above``: below one, as one itself, a container may have them."""
    partitions = [cgroup for cgroup in above.below() if cgroup.has(_PARTITION_FILE)]
    return {cpu for cgroup in partitions if cgroup.partition in _PARTITIONS[:2] for cpu in cgroup.effective_cpus}


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
    cgroup.controller("cpuset")  # also for a "member", which changes nothing: the container has the files
    _change(config, {}, cgroup)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    _change(config, previous, cgroup)


def _change(config: ResourceConfig, previous: ResourceConfig | dict[str, Any], cgroup: ContainerCgroup) -> None:
    """From ``previous`` to ``config``. A partition ends before its CPUs change, and is made anew after that."""
    former = previous.get("cpuset_partition", "member")
    if former != "member":
        cgroup.on_undo(lambda: _make_partition(cgroup, former, previous["cpuset_cpus"]))
        _end_partition(cgroup)
    for field in _KINDS:
        if config.get(field) != previous.get(field):
            _set(cgroup, field, config.get(field, ()))
    partition = config.get("cpuset_partition", "member")
    if partition != "member":
        cgroup.on_undo(lambda: _end_partition(cgroup))
        _make_partition(cgroup, partition, config["cpuset_cpus"])


def _set(cgroup: ContainerCgroup, field: str, wanted: tuple[int, ...]) -> None:
    """v1 refuses what a cgroup above does not offer; v2 takes it and quietly grants something else: so look.

    None at all is what the cgroup above has.
    """
    controller = cgroup.controller("cpuset")
    kind = _KINDS[field][0]
    if not getattr(controller, kind):  # an update that fails does not write back what a file did not hold
        cgroup.on_undo(lambda: _inherit(controller, kind))
    if not wanted:
        _inherit(controller, kind)
        return
    try:
        setattr(controller, kind, wanted)
    except CgroupError as e:
        parent = controller.parent()
        _require_offered(field, wanted, _effective(parent, field), f"the cgroup {parent.path} offers")
        if e.errno == errno.EBUSY:
            _refuse_below_nested(controller, field, wanted)
        raise
    _require_offered(field, wanted, _effective(controller, field), "the cgroup above the container's offers")


def _inherit(controller: Controller, kind: str) -> None:
    """What the cgroup above has. The kernel takes an empty list only where no process is (ENOSPC), and on v2."""
    if controller.version == 2:
        try:
            setattr(controller, kind, ())
            return
        except CgroupError as e:
            if e.errno != errno.ENOSPC:
                raise
    setattr(controller, kind, getattr(controller.parent(), f"effective_{kind}"))


def _refuse_below_nested(controller: Controller, field: str, wanted: tuple[int, ...]) -> None:
    """On v1 a cgroup has what those below have (cpusets.rst, 1.4), which the container may have made."""
    kind, noun = _KINDS[field]
    for nested in controller.below():
        used = set(getattr(nested, kind)) - set(wanted)
        if used:
            reason = f"the container's own cgroup {nested.path} has {noun} {format_cpu_list(used)}, which it would lose"
            raise LimitError(field, reason)


def _make_partition(cgroup: ContainerCgroup, kind: str, cpus: tuple[int, ...]) -> None:
    """The kernel takes any word, and says in the same file if it is not in force (cgroup-v2.rst, "Cpuset").

    Below a cgroup that is no partition itself, as the common parent is, each one on the way has to have the CPUs in
    cpuset.cpus.exclusive; Linux 6.7 has that.
    """
    controller = cgroup.controller("cpuset")
    controller.require_for("cpuset_partition", _PARTITION_FILE, why="it came with Linux 5.0")
    if _become(controller, kind):
        return
    if controller.has(_EXCLUSIVE_FILE):
        _reserve(cgroup, set(cpus))
        if _become(controller, kind):
            return
    state = controller.partition
    reason = state[state.find("(") + 1 :].rstrip(")") if "(" in state else state
    if not controller.has(_EXCLUSIVE_FILE):
        reason += (
            f"; this kernel has no {_EXCLUSIVE_FILE}, so the cgroup above has to be a partition: see --cgroup-parent"
        )
        raise UnsupportedLimit(
            "cpuset_partition", f"the kernel does not make CPUs {format_cpu_list(cpus)} one: {reason}"
        )
    raise LimitError("cpuset_partition", f"the kernel does not make CPUs {format_cpu_list(cpus)} one: {reason}")


def _become(controller: Controller, kind: str) -> bool:
    try:
        controller.partition = kind
    except CgroupError as e:
        if e.errno == errno.EINVAL and kind == "isolated":
            reason = f"this kernel knows no isolated partitions in {_PARTITION_FILE}: they came with Linux 6.1"
            raise UnsupportedLimit("cpuset_partition", reason) from e
        raise
    return bool(controller.partition == kind)


def _end_partition(cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("cpuset")
    controller.partition = "member"
    if controller.has(_EXCLUSIVE_FILE):
        _reserve(cgroup, set())


def _reserve(cgroup: ContainerCgroup, cpus: set[int]) -> None:
    """Make the CPUs exclusive to the container, and to the parents that are ours all that is so in them.

    No CPUs: give them back.
    """
    controller = cgroup.controller("cpuset")
    if not cpus:
        controller.exclusive_cpus = cpus
    reserved: list[tuple[Controller, set[int]]] = []
    inner, own = controller.path, cpus
    for parent in cgroup.parents("cpuset"):
        own = own.union(*(_exclusive(child) for child in parent.children() if child.path != inner))
        reserved.append((parent, own))
        inner = parent.path
    for parent, exclusive in reversed(reserved) if cpus else reserved:
        parent.exclusive_cpus = exclusive
    if cpus:
        controller.exclusive_cpus = cpus


def _exclusive(controller: Controller) -> set[int]:
    try:
        return set(controller.exclusive_cpus)
    except CgroupError:  # it is being removed
        return set()


@hookimpl
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    """The parents need not keep the container's CPUs exclusive any longer."""
    if cgroup.layout.version("cpuset") != 2 or not cgroup.has("cpuset"):
        return
    controller = cgroup.controller("cpuset")
    if controller.has(_EXCLUSIVE_FILE) and controller.exclusive_cpus:
        _end_partition(cgroup)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("cpuset", pid)
