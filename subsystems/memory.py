"""Memory limits: ``--memory``, ``--memory-swap``, ``--memory-reservation``.

Kernel documentation: cgroup-v1/memory.rst, cgroup-v2.rst ("Memory"). What the flags mean together is Docker's
("Runtime constraints on resources", docs.docker.com).
"""

from __future__ import annotations

from mydocker import CgroupError, LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import format_size, parse_size, parse_size_or_unlimited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: Below this the kernel cannot even execute a command.
MINIMUM = 512 << 10

_V1_SWAP = "memory.memsw.limit_in_bytes"
_V2_SWAP = "memory.swap.max"
_SWAP_MISSING = "this kernel does not account for swap; boot it with swapaccount=1"


def parse_memory(text: str) -> int:
    """Bytes, at least `MINIMUM`. A bare number is bytes, as Docker has it, and most often not what was meant."""
    size = parse_size(text)
    if size < MINIMUM:
        meant = f"; did you mean {text.strip()}m?" if text.strip().isdigit() else ""
        raise ValueError(f"{size} bytes is less than the minimum, {format_size(MINIMUM)}{meant}")
    return size


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="memory",
            flags=("-m", "--memory", "-mem"),
            parse=parse_memory,
            metavar="SIZE",
            help="The most memory that the container may use, in bytes or with a unit (b, k, m, g), as in 100m.",
            oci="linux.resources.memory.limit",
        ),
        ResourceField(
            name="memory_swap",
            flags=("--memory-swap",),
            parse=parse_size_or_unlimited,
            metavar="SIZE",
            help="The most memory and swap together (b, k, m, g); -1 for unlimited swap. Default: twice the memory.",
            oci="linux.resources.memory.swap",
        ),
        ResourceField(
            name="memory_reservation",
            flags=("--memory-reservation",),
            parse=parse_memory,
            metavar="SIZE",
            help="The memory that the kernel leaves to the container when the host runs short (b, k, m, g).",
            oci="linux.resources.memory.reservation",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    files = {
        1: ("memory.limit_in_bytes", _V1_SWAP, "memory.soft_limit_in_bytes"),
        2: ("memory.max", _V2_SWAP, "memory.low"),
    }
    try:
        version = layout.require("memory").version
    except CgroupError as e:
        return Probe(controllers=("memory",), problem=str(e))
    offered = layout.root("memory")
    # The root cgroup of v2 has none of these files; that of v1 has them all.
    there = tuple(name for name in files[version] if version == 2 or offered.has(name))
    return Probe(controllers=("memory",), version=version, files=there)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require("memory")
    memory, swap, reservation = (config.get(f"memory{part}") for part in ("", "_swap", "_reservation"))
    if swap is not None and memory is None:
        raise LimitError("memory_swap", "it needs --memory too, because it is the limit of memory and swap together")
    if swap is not None and swap != -1 and swap < memory:
        raise LimitError(
            "memory_swap",
            f"{format_size(swap)} is less than --memory {format_size(memory)}, which it includes",
        )
    # On v2 the root cgroup has no such file, and its absence shows when the container's is made.
    if swap is not None and layout.version("memory") == 1 and not layout.root("memory").has(_V1_SWAP):
        raise LimitError("memory_swap", _SWAP_MISSING)
    if reservation is not None and memory is not None and reservation > memory:
        reason = f"{format_size(reservation)} is more than --memory {format_size(memory)}"
        raise LimitError("memory_reservation", reason)


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("memory")
    if "memory" in config:
        set_limits = _set_limits_v1 if controller.version == 1 else _set_limits_v2
        set_limits(controller, config["memory"], config.get("memory_swap"))
    if "memory_reservation" in config:
        if controller.version == 1:
            controller.soft_limit_in_bytes = config["memory_reservation"]
        else:
            controller.low = config["memory_reservation"]


def _set_limits_v1(controller: Controller, memory: int, swap: int | None) -> None:
    """Set both limits, whether they grow or shrink.

    At each moment memory.limit_in_bytes <= memory.memsw.limit_in_bytes must hold (memory.rst, 2.4), or the
    kernel answers EINVAL: the order of the two writes follows from the present limit of both together.
    """
    # Before Linux 5.11 a cgroup that the container nests in its own escapes the limit unless this is set.
    if not controller.use_hierarchy:
        controller.use_hierarchy = True
    if not controller.has(_V1_SWAP):
        if swap is not None:
            raise LimitError("memory_swap", _SWAP_MISSING)
        controller.limit_in_bytes = memory
        return
    total = 2 * memory if swap is None else swap
    if memory <= controller.memsw_limit_in_bytes:
        controller.limit_in_bytes = memory
        controller.memsw_limit_in_bytes = total
    else:
        controller.memsw_limit_in_bytes = total
        controller.limit_in_bytes = memory


def _set_limits_v2(controller: Controller, memory: int, swap: int | None) -> None:
    """v2 limits swap by itself, so the order does not matter: total - memory."""
    if controller.has(_V2_SWAP):
        total = 2 * memory if swap is None else swap
        controller.swap_max = None if total == -1 else total - memory
    elif swap is not None:
        raise LimitError("memory_swap", _SWAP_MISSING)
    controller.max = memory


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("memory", pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """``peak_bytes`` (where the kernel knows it), ``oom_kills``, and how often the limit was hit (``limit_hits``)."""
    controller = cgroup.controller("memory")
    return _usage_v1(controller) if controller.version == 1 else _usage_v2(controller)


def _usage_v1(controller: Controller) -> dict[str, Any]:
    # Peak and hits take in what is nested; the count of kills is each cgroup's own on v1. Where the limit of both
    # together is no higher than memory's own, it is the one that is hit (and some kernels do not count that).
    everywhere = (controller, *controller.below())
    return {
        "peak_bytes": controller.max_usage_in_bytes,
        "oom_kills": sum(cgroup.oom_control.get("oom_kill", 0) for cgroup in everywhere),
        "limit_hits": controller.failcnt + (controller.memsw_failcnt if controller.has(_V1_SWAP) else 0),
    }


def _usage_v2(controller: Controller) -> dict[str, Any]:
    # Not memory.events.local: a process that the container moved to a cgroup of its own making counts too.
    events = controller.events
    usage = {"oom_kills": events["oom_kill"], "limit_hits": events["max"]}
    if controller.has("memory.peak"):  # Linux 5.19
        usage["peak_bytes"] = controller.peak
    return usage
