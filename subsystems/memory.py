"""Memory: ``--memory``, ``--memory-swap``, ``--memory-reservation`` and what v1 or v2 alone has.

Kernel documentation: cgroup-v1/memory.rst, cgroup-v2.rst ("Memory"). What the flags mean together is Docker's
("Runtime constraints on resources", docs.docker.com).
"""

from __future__ import annotations

import errno

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import format_size, parse_flag, parse_integer, parse_size, parse_size_or_unlimited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: Below this the kernel cannot even execute a command.
MINIMUM = 512 << 10
UNLIMITED = -1

#: v1 shows no limit as the most that its counter of pages takes, some 2^63 bytes (PAGE_COUNTER_MAX).
_V1_NO_LIMIT = 1 << 62

_V1_MEMORY = "memory.limit_in_bytes"
_V1_SWAP = "memory.memsw.limit_in_bytes"
_V2_SWAP = "memory.swap.max"
_SWAP_MISSING = "it does not account for swap; boot it with swapaccount=1"

#: field -> the one version of cgroups that has it, its file there, and the value that asks for nothing
_ONLY_ON: dict[str, tuple[int, str, int]] = {
    "memory_swappiness": (1, "memory.swappiness", -1),
    "oom_kill_disable": (1, "memory.oom_control", False),
    "memory_swap_max": (2, _V2_SWAP, UNLIMITED),
    "memory_min": (2, "memory.min", 0),
    "memory_low": (2, "memory.low", 0),
    "memory_high": (2, "memory.high", UNLIMITED),
    "memory_oom_group": (2, "memory.oom.group", False),
}
_FIELDS = ("memory", "memory_swap", "memory_reservation", *_ONLY_ON)
_ANY_VERSION = {
    1: ("memory.limit_in_bytes", _V1_SWAP, "memory.soft_limit_in_bytes"),
    2: ("memory.max", _V2_SWAP),
}

#: The kinds of memory by their names in v2's memory.stat, and the names under which v1's counts the same.
_KINDS = {
    "anon": "total_rss",
    "file": "total_cache",
    "shmem": "total_shmem",
    "inactive_file": "total_inactive_file",
    "file_mapped": "total_mapped_file",
    "file_dirty": "total_dirty",
    "file_writeback": "total_writeback",
    "kernel": "",
    "slab": "",
    "sock": "",
    "kernel_stack": "",
    "pagetables": "",
    "percpu": "",
    "vmalloc": "",
}


def parse_memory(text: str) -> int:
    """Bytes, at least `MINIMUM`, or -1 for no limit.

    A bare number is bytes, as Docker has it, and most often not what was meant.
    """
    size = parse_size_or_unlimited(text)
    if size != UNLIMITED and size < MINIMUM:
        meant = "; -1 is no limit" if not size else f"; did you mean {text.strip()}m?" if text.strip().isdigit() else ""
        unit = "byte" if size == 1 else "bytes"
        raise ValueError(f"{size} {unit} is less than the minimum, {format_size(MINIMUM)}{meant}")
    return size


def parse_protection(text: str) -> int:
    """Bytes; `UNLIMITED` for ``max``, all that the container has."""
    return UNLIMITED if text.strip() == "max" else parse_size(text)


def memory_from_oci(limit: int | None, unified: str | None) -> str | None:
    """What ``unified`` says of the same file wins, as runc has it. 0 is not set, below it is unlimited."""
    return bound_from_unified(unified) if unified is not None else _bound(limit)


def _bound(limit: int | None) -> str | None:
    if not limit:
        return None
    return "-1" if limit < 0 else f"{limit}b"


def bound_from_unified(text: str) -> str:
    """What a file of cgroup v2 takes."""
    return "-1" if text.strip() == "max" else text


def swap_from_oci(
    swap: int | None, limit: int | None, unified_swap: str | None, unified_memory: str | None
) -> str | None:
    """The sum of memory and swap. Engines that want Docker's default, twice the memory, send it: without it, swap has
    no bound. ``unified_swap``, which is swap alone, is `memory_swap_max`.
    """
    if unified_swap is not None:
        return None
    if swap and swap < 0:
        return str(UNLIMITED)
    if swap:
        if unified_memory is None or not limit or limit < 0:
            return f"{swap}b"
        return "-1" if unified_memory.strip() == "max" else f"{parse_size(unified_memory) + swap - limit}b"
    has_limit = bool(limit and limit > 0) if unified_memory is None else unified_memory.strip() != "max"
    return "-1" if has_limit else None


def reservation_from_oci(reservation: int | None, unified_low: str | None) -> str | None:
    """Both are memory.low on v2, where ``unified`` wins."""
    return None if unified_low is not None else _bound(reservation)


def swappiness_from_oci(swappiness: int) -> str | None:
    """Docker sends -1, its "as the host has it", as an unsigned number."""
    return None if swappiness in (-1, (1 << 64) - 1) else str(swappiness)


def switch_from_unified(text: str) -> str:
    words = {"0": "false", "1": "true"}
    if text.strip() not in words:
        raise ValueError(f'"{text}" is neither 0 nor 1')
    return words[text.strip()]


def parse_swappiness(text: str) -> int:
    swappiness = parse_integer(text)
    if not -1 <= swappiness <= 100:
        raise ValueError(f"{swappiness} is not between 0 and 100; -1 is that of the cgroup above")
    return swappiness


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="memory",
            flags=("-m", "--memory", "-mem"),
            parse=parse_memory,
            metavar="SIZE",
            help="The most memory that the container may use, in bytes or with a unit (b, k, m, g), as in 100m; "
            "-1 for no limit.",
            oci="linux.resources.memory.limit linux.resources.unified.memory.max",
            from_oci=memory_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="memory_swap",
            flags=("--memory-swap",),
            parse=parse_size_or_unlimited,
            metavar="SIZE",
            help="The most memory and swap together (b, k, m, g); -1 for unlimited swap. Default: twice the memory.",
            oci="linux.resources.memory.swap linux.resources.memory.limit linux.resources.unified.memory.swap.max "
            "linux.resources.unified.memory.max",
            from_oci=swap_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="memory_swap_max",
            flags=("--memory-swap-max",),
            parse=parse_size_or_unlimited,
            metavar="SIZE",
            help="The most swap, without memory (b, k, m, g); -1 for unlimited swap. cgroup v2 only.",
            oci="linux.resources.unified.memory.swap.max",
            from_oci=bound_from_unified,
            traceless=True,
        ),
        ResourceField(
            name="memory_reservation",
            flags=("--memory-reservation",),
            parse=parse_memory,
            metavar="SIZE",
            help="The memory that the kernel leaves to the container when the host runs short (b, k, m, g); "
            "-1 for none.",
            oci="linux.resources.memory.reservation linux.resources.unified.memory.low",
            from_oci=reservation_from_oci,
        ),
        ResourceField(
            name="memory_swappiness",
            flags=("--memory-swappiness",),
            parse=parse_swappiness,
            metavar="N",
            help="How readily the kernel swaps the container out, 0 to 100; -1 for as the host does. cgroup v1 only.",
            oci="linux.resources.memory.swappiness",
            from_oci=swappiness_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="oom_kill_disable",
            flags=("--oom-kill-disable",),
            parse=parse_flag,
            metavar="",
            help="Stop the container's processes when its memory is used up, in place of killing one. cgroup v1 only.",
            oci="linux.resources.memory.disableOOMKiller",
            kind="flag",
            traceless=True,
        ),
        ResourceField(
            name="memory_min",
            flags=("--memory-min",),
            parse=parse_protection,
            metavar="SIZE",
            help="The memory that the kernel never takes from the container (b, k, m, g), or max; 0 for none. "
            "cgroup v2 only.",
            oci="linux.resources.unified.memory.min",
        ),
        ResourceField(
            name="memory_low",
            flags=("--memory-low",),
            parse=parse_protection,
            metavar="SIZE",
            help="The memory that the kernel takes from the container only when nobody else has any to give "
            "(b, k, m, g), or max; 0 for none. cgroup v2 only.",
            oci="linux.resources.unified.memory.low",
        ),
        ResourceField(
            name="memory_high",
            flags=("--memory-high",),
            parse=parse_memory,
            metavar="SIZE",
            help="The memory above which the container is slowed down and has to give memory back, but is not killed "
            "(b, k, m, g); -1 for no such bound. cgroup v2 only.",
            oci="linux.resources.unified.memory.high",
            from_oci=bound_from_unified,
            traceless=True,
        ),
        ResourceField(
            name="memory_oom_group",
            flags=("--memory-oom-group",),
            parse=parse_flag,
            metavar="",
            help="When the memory is used up, kill all of the container and not one process. cgroup v2 only.",
            oci="linux.resources.unified.memory.oom.group",
            kind="flag",
            from_oci=switch_from_unified,
            traceless=True,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("memory").version
    except CgroupError as e:
        return Probe(controllers=("memory",), problem=str(e))
    offered = layout.root("memory")
    files = (*_ANY_VERSION[version], *(name for only, name, _ in _ONLY_ON.values() if only == version))
    # The root cgroup of v2 has none of these files; that of v1 has them all.
    there = tuple(name for name in files if version == 2 or offered.has(name))
    return Probe(controllers=("memory",), version=version, files=there)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    hierarchy = layout.require_for("memory", config, *_FIELDS)
    if hierarchy is None:
        return
    _require_files(config, layout, hierarchy.version)
    _check_limits(config)
    if "memory_low" in config and "memory_reservation" in config:
        other = config.flag("memory_reservation")
        raise LimitError("memory_low", f"it cannot be combined with {other}: on cgroup v2 both set memory.low")
    if config.get("oom_kill_disable") and config.get("memory", UNLIMITED) == UNLIMITED:
        raise LimitError("oom_kill_disable", "it needs --memory too: without a limit all of the host could stand still")


def _require_files(config: ResourceConfig, layout: Layout, version: int) -> None:
    """On v2 the root cgroup has none of the files: an old kernel that lacks one shows when the container's is made."""
    for field, (only, name, nothing) in _ONLY_ON.items():
        if config.get(field, nothing) == nothing:
            continue
        if only != version:
            reason = f"{name} exists on cgroup v{only} only, and the memory controller here is on v{version}"
            raise UnsupportedLimit(field, reason)
        if version == 1:
            layout.root("memory").require_for(field, name)
    if config.get("memory_swap", UNLIMITED) != UNLIMITED and version == 1:
        layout.root("memory").require_for("memory_swap", _V1_SWAP, why=_SWAP_MISSING)


def _check_limits(config: ResourceConfig) -> None:
    """What the limits mean together."""
    memory, swap, reservation = (config.get(f"memory{part}") for part in ("", "_swap", "_reservation"))
    if swap not in (None, UNLIMITED) and memory is None:
        raise LimitError("memory_swap", "it needs --memory too, because it is the limit of memory and swap together")
    if swap is not None and swap != UNLIMITED and memory == UNLIMITED:
        raise LimitError("memory_swap", "it includes --memory, which has no limit; -1 takes the limit of both away")
    if swap is not None and swap != UNLIMITED and swap < memory:
        raise LimitError(
            "memory_swap",
            f"{format_size(swap)} is less than --memory {format_size(memory)}, which it includes: "
            "give as much or more, or -1 for unlimited swap",
        )
    if swap is not None and "memory_swap_max" in config:
        reason = f"it cannot be combined with {config.flag('memory_swap')}: both set how much swap there is"
        raise LimitError("memory_swap_max", reason)
    if reservation is not None and memory not in (None, UNLIMITED) and reservation > memory:
        reason = f"{format_size(reservation)} is more than --memory {format_size(memory)}"
        raise LimitError("memory_reservation", reason)


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    _change(config, {}, cgroup)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """Lowers a limit only as far as the kernel can free memory: an update kills nothing, on either version."""
    _change(config, previous, cgroup)


def _change(config: ResourceConfig, previous: ResourceConfig | dict[str, Any], cgroup: ContainerCgroup) -> None:
    """From ``previous`` to ``config``. What is in neither is not touched: its file may be another plugin's to write."""
    controller = cgroup.controller("memory")
    changed = {field for field in _FIELDS if config.get(field) != previous.get(field)}
    if not changed.isdisjoint(("memory", "memory_swap", "memory_swap_max")):
        memory, swap = config.get("memory", UNLIMITED), config.get("memory_swap")
        if controller.version == 1:
            _set_limits_v1(controller, memory, swap)
        else:
            _set_limits_v2(controller, memory, swap, config.get("memory_swap_max"))
    change_others = _change_v1 if controller.version == 1 else _change_v2
    change_others(config, changed, cgroup)


def _total(memory: int, swap: int | None) -> int:
    """The limit of memory and swap together: what was asked for, or Docker's default."""
    if memory == UNLIMITED:
        return UNLIMITED
    return 2 * memory if swap is None else swap


def _set_limits_v1(controller: Controller, memory: int, swap: int | None) -> None:
    """Set both limits, whether they grow or shrink.

    At each moment memory.limit_in_bytes <= memory.memsw.limit_in_bytes must hold (memory.rst, 2.4), or the
    kernel answers EINVAL: the order of the two writes follows from the present limit of both together.
    """
    # Before Linux 5.11 a cgroup that the container nests in its own escapes the limit unless this is set.
    if controller.get_property("memory.use_hierarchy") == "0":
        controller.set_property("memory.use_hierarchy", 1)
    if not controller.has(_V1_SWAP):
        if swap is not None and swap != UNLIMITED:
            controller.require_for("memory_swap", _V1_SWAP, why=_SWAP_MISSING)
        _set_limit_v1(controller, _V1_MEMORY, "memory", memory)
        return
    total = _total(memory, swap)
    writes = [(_V1_MEMORY, "memory", memory), (_V1_SWAP, "memory_swap", total)]
    if memory == UNLIMITED or memory > _number(controller, _V1_SWAP):
        writes.reverse()
    for name, field, value in writes:
        _set_limit_v1(controller, name, field if swap is not None else "memory", value)


def _set_limit_v1(controller: Controller, name: str, field: str, value: int) -> None:
    """Write one limit. If it shrinks, the kernel frees what it can, and answers EBUSY if that is not enough."""
    try:
        controller.set_property(name, value)
    except CgroupError as e:
        if e.errno != errno.EBUSY:
            raise
        used = controller.usage_in_bytes if name == _V1_MEMORY else controller.memsw_usage_in_bytes
        raise _in_use(field, used, value) from e


def _in_use(field: str, used: int, wanted: int) -> LimitError:
    what = "memory and swap" if field == "memory_swap" else "memory"
    return LimitError(
        field,
        f"the container has {used >> 20} MiB of {what} in use, and the kernel cannot free enough of it "
        f"for a limit of {format_size(wanted)}",
    )


def _set_limits_v2(controller: Controller, memory: int, swap: int | None, alone: int | None = None) -> None:
    """v2 limits swap by itself: total - memory. What grows is set first, so that what shrinks can be moved there.

    ``alone``: how much swap was asked for without memory.
    """
    if not controller.has(_V2_SWAP):
        for field, wanted in (("memory_swap", swap), ("memory_swap_max", alone)):
            if wanted is not None and wanted != UNLIMITED:
                controller.require_for(field, _V2_SWAP, why=_SWAP_MISSING)
        _set_memory_v2(controller, memory)
        return
    total = _total(memory, swap)
    room = None if total == UNLIMITED else total - memory
    if alone is not None:
        room = None if alone == UNLIMITED else alone
    present = controller.get_property(_V2_SWAP)
    if room is None or (present != "max" and room > int(present)):
        controller.set_property(_V2_SWAP, "max" if room is None else room)
        _set_memory_v2(controller, memory)
    else:
        _set_memory_v2(controller, memory)
        _shrink_swap_v2(controller, memory, room)


def _shrink_swap_v2(controller: Controller, memory: int, room: int | None) -> None:
    """The kernel takes a limit below what is in swap and does not shrink that (cgroup-v2.rst): so look."""
    if room is not None and _number(controller, "memory.swap.current") > room:
        used, total = controller.current + controller.swap_current, max(memory, 0) + room
        raise _in_use("memory_swap", used, total)
    controller.set_property(_V2_SWAP, "max" if room is None else room)


def _set_memory_v2(controller: Controller, memory: int) -> None:
    """A limit below what is in use makes the kernel kill (cgroup-v2.rst, "memory.max"), where v1 refuses it.

    memory.high makes it free what it can and kills nobody: if that is enough, the limit is set while it still holds.
    """
    if memory == UNLIMITED or _number(controller, "memory.current") <= memory:
        controller.set_property("memory.max", "max" if memory == UNLIMITED else memory)
        return
    high = controller.high
    try:
        for _ in range(5):  # the container may take some in the meantime
            controller.high = memory
            used = controller.current
            if used <= memory:
                controller.max = memory
                return
    finally:
        controller.high = high
    raise _in_use("memory", used, memory)


def _change_v1(config: ResourceConfig, changed: set[str], cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("memory")
    if "memory_reservation" in changed:
        controller.soft_limit_in_bytes = config.get("memory_reservation", UNLIMITED)
    if "memory_swappiness" in changed:
        wanted = config.get("memory_swappiness", -1)
        controller.swappiness = controller.parent().swappiness if wanted == -1 else wanted
    if "oom_kill_disable" in changed:
        # The file shows several lines, so an update that fails does not write back what it held.
        former = bool(controller.oom_control["oom_kill_disable"])
        cgroup.on_undo(lambda: setattr(controller, "oom_control", former))
        controller.oom_control = config.get("oom_kill_disable", False)


def _change_v2(config: ResourceConfig, changed: set[str], cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("memory")
    if "memory_min" in changed:
        controller.require_for("memory_min", "memory.min", why="it came with Linux 4.18")
        _protect(cgroup, "min", config.get("memory_min", 0))
    if not changed.isdisjoint(("memory_low", "memory_reservation")):
        _protect(cgroup, "low", config.get("memory_low", max(0, config.get("memory_reservation", 0))))
    if "memory_high" in changed:
        high = config.get("memory_high", UNLIMITED)
        controller.high = None if high == UNLIMITED else high
    if "memory_oom_group" in changed:
        controller.require_for("memory_oom_group", "memory.oom.group", why="it came with Linux 4.19")
        controller.oom_group = config.get("memory_oom_group", False)


def _protect(cgroup: ContainerCgroup, name: str, value: int) -> None:
    cgroup.on_undo(lambda: _protect_parents(cgroup, name))
    setattr(cgroup.controller("memory"), name, None if value == UNLIMITED else value)
    _protect_parents(cgroup, name)


def _protect_parents(cgroup: ContainerCgroup, name: str, leaving: str = "") -> None:
    """Give the parents that are ours as much protection as the cgroups in them have together, but for ``leaving``.

    A cgroup is protected only as far as those above it are (cgroup-v2.rst, "memory.low"). Another run may change
    its part in the meantime: whoever writes last looks again.
    """
    for parent in cgroup.parents("memory"):
        for _ in range(100):
            parts = [_protected(child, name) for child in parent.children() if child.path != leaving]
            wanted = None if None in parts else sum(part or 0 for part in parts)
            if getattr(parent, name) == wanted:
                break
            setattr(parent, name, wanted)
        leaving = ""


def _protected(cgroup: Controller, name: str) -> int | None:
    """How much of its memory is protected, None for all. Nothing if it is being removed or has no such controller."""
    try:
        found: int | None = getattr(cgroup, name)
    except CgroupError:
        return 0
    return found


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    if cgroup.layout.find("memory"):
        cgroup.controller("memory")


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("memory", pid)


@hookimpl
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    """The parents no longer need to protect this container's memory."""
    if cgroup.layout.version("memory") != 2 or not cgroup.has("memory"):
        return
    controller = cgroup.controller("memory")
    for name in ("min", "low"):
        if getattr(controller, name) != 0:
            _protect_parents(cgroup, name, leaving=controller.path)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """``current_bytes``, ``peak_bytes``, ``swap_bytes``, ``kinds``, ``oom_kills``, ``limit_hits``, ``limit_bytes``,
    ``pressure``.

    Each where the kernel knows it.
    """
    if not cgroup.has("memory"):
        return {}
    controller = cgroup.controller("memory")
    figures = _usage_v1(controller) if controller.version == 1 else _usage_v2(controller)
    from mydocker.cgroups.pressure import stall_seconds

    pressure = stall_seconds(cgroup, "memory")
    if pressure is not None:
        figures["pressure"] = pressure
    return figures


def _usage_v1(controller: Controller) -> dict[str, Any]:
    # Peak and hits take in what is nested; the count of kills is each cgroup's own on v1. Where the limit of both
    # together is no higher than memory's own, it is the one that is hit (and some kernels do not count that).
    everywhere = (controller, *controller.below())
    accounts_for_swap = controller.has(_V1_SWAP)
    stat = controller.get_keyed("memory.stat")
    kinds = {kind: stat[name] for kind, name in _KINDS.items() if name in stat}
    if controller.has("memory.kmem.usage_in_bytes"):
        kinds["kernel"] = _number(controller, "memory.kmem.usage_in_bytes")
    hits = _number(controller, "memory.failcnt")
    figures = {
        "current_bytes": _number(controller, "memory.usage_in_bytes"),
        "peak_bytes": _number(controller, "memory.max_usage_in_bytes"),
        "oom_kills": sum(cgroup.get_keyed("memory.oom_control").get("oom_kill") or 0 for cgroup in everywhere),
        "limit_hits": hits + (_number(controller, "memory.memsw.failcnt") if accounts_for_swap else 0),
        "kinds": kinds,
    }
    if accounts_for_swap:
        figures["swap_bytes"] = stat.get("total_swap", 0)
    limit = _number(controller, _V1_MEMORY)
    if limit < _V1_NO_LIMIT:
        figures["limit_bytes"] = limit
    return figures


def _number(controller: Controller, filename: str) -> int:
    return int(controller.get_property(filename))


def _usage_v2(controller: Controller) -> dict[str, Any]:
    # Not memory.events.local: a process that the container moved to a cgroup of its own making counts too.
    events = controller.get_keyed("memory.events")
    stat = controller.get_keyed("memory.stat")
    figures = {
        "current_bytes": _number(controller, "memory.current"),
        "oom_kills": events["oom_kill"],
        "limit_hits": events["max"],
        "kinds": {kind: stat[kind] for kind in _KINDS if kind in stat},
    }
    if controller.has("memory.peak"):  # Linux 5.19
        figures["peak_bytes"] = _number(controller, "memory.peak")
    if controller.has("memory.swap.current"):
        figures["swap_bytes"] = _number(controller, "memory.swap.current")
    limit = controller.get_property("memory.max")
    if limit != "max":
        figures["limit_bytes"] = int(limit)
    return figures
