"""How many tasks the container may have: ``--pids-limit``.

Kernel documentation: cgroup-v1/pids.rst, cgroup-v2.rst ("PID"). A task is a process or one of its threads.
"""

from __future__ import annotations

from mydocker import CgroupError, LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.spec import Spec

UNLIMITED = -1
#: What the kernel counts to (include/linux/threads.h, PID_MAX_LIMIT); a larger number is refused by pids.max.
LARGEST = 4 * 1024 * 1024


def parse_pids(text: str) -> int:
    """A number of tasks. 0 and -1 are no limit, as in Docker."""
    if text.strip() in ("0", "-1", "unlimited"):
        return UNLIMITED
    number = parse_integer(text)
    if not 1 <= number <= LARGEST:
        raise ValueError(f"{number} is not between 1 and {LARGEST}; 0 and -1 are no limit")
    return number


def pids_from_oci(limit: int | None, unified: str | None) -> str | None:
    """0 is not set, below it is no limit. ``unified`` wins, as runc has it."""
    if unified is not None:
        return str(UNLIMITED) if unified.strip() == "max" else unified
    return str(max(limit, UNLIMITED)) if limit else None


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="pids_limit",
            flags=("--pids-limit", "-pids"),
            parse=parse_pids,
            metavar="N",
            help="The most tasks, processes and their threads, that the container may have at once; -1 for no limit.",
            oci="linux.resources.pids.limit linux.resources.unified.pids.max",
            from_oci=pids_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("pids").version
    except CgroupError as e:
        return Probe(controllers=("pids",), problem=str(e))
    return Probe(controllers=("pids",), version=version, files=("pids.max",))


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require_for("pids", config, "pids_limit")


@hookimpl
def mydocker_amend(config: ResourceConfig, spec: Spec) -> None:
    """Amends nothing: the Spec tells whether the command could start at all."""
    if config.get("pids_limit") == 1 and spec.init:
        raise LimitError("pids_limit", "1 is too few: with --init there is a task beside the command's")


@hookimpl
def mydocker_explain() -> tuple[str, ...]:
    """There is nothing but the kernel's file."""
    return ()


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    _set(config, cgroup)


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    if cgroup.layout.find("pids"):
        cgroup.controller("pids")


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("pids", pid)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    """A limit below the tasks that there are ends none of them: it refuses new ones (cgroup-v2.rst, "PID")."""
    _set(config, cgroup)


def _set(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    limit = config.get("pids_limit", UNLIMITED)
    # By name, here and in the other limits that nearly every container has: the typed files take 2 ms to import.
    cgroup.controller("pids").set_property("pids.max", "max" if limit == UNLIMITED else limit)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """``current_pids``, ``peak_pids`` (Linux 6.1), ``limit_pids``, ``refused_forks``: how many were refused."""
    if not cgroup.has("pids"):
        return {}
    controller = cgroup.controller("pids")
    figures = {
        "current_pids": int(controller.get_property("pids.current")),
        "refused_forks": _refused_forks(controller),
    }
    if controller.has("pids.peak"):
        figures["peak_pids"] = int(controller.get_property("pids.peak"))
    limit = controller.get_property("pids.max")
    if limit != "max":
        figures["limit_pids"] = int(limit)
    return figures


def _refused_forks(controller: Controller) -> int:
    """``max`` of pids.events: since Linux 6.12 what this limit refused, on v2, in nested cgroups too. Before, and on
    v1, each cgroup counts what was refused to its own processes.
    """
    everywhere = (controller,) if controller.has("pids.events.local") else (controller, *controller.below())
    return sum(cgroup.get_keyed("pids.events")["max"] or 0 for cgroup in everywhere if cgroup.has("pids.events"))
