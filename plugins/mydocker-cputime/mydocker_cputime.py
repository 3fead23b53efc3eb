"""``--cpu-time``: a budget of CPU seconds for the container, all its processes and their children together.

RLIMIT_CPU counts each process by itself, and a fork begins a new count. The kernel's own account of a cgroup does
not forget a process that has ended: ``cpuacct.usage`` on v1 (Documentation/admin-guide/cgroup-v1/cpuacct.rst),
``usage_usec`` of ``cpu.stat`` on v2, which every v2 cgroup has, with the controller cpu or without (cgroup-v2.rst, "CPU
Interface Files").

Nothing polls. On N CPUs no container uses more than N seconds in one, so the rest of the budget lasts for at
least rest / N seconds, and that is when the watch looks again. With a container that uses all N it looks once.
"""

from __future__ import annotations

import os

from mydocker import LimitError, Probe, ResourceField, UnsupportedLimit, Verdict, Watch, hookimpl
from mydocker.linux.inotify import IN_ATTRIB, drain, watch_path
from mydocker.resources import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

MYDOCKER_API = 1
MYDOCKER_SHARED_WATCH = True

#: Seconds of CPU time that the container may have over its budget because nobody looked: the last waits would be
#: shorter and shorter otherwise.
SLACK = 0.002

#: Where ``mydocker update`` leaves another budget for the runtime that watches: on the cgroup, so that it goes with
#: it. The first kind of attribute is root's alone; the second is for who owns a delegated v2 cgroup.
ATTRIBUTES = ("trusted.mydocker.cpu_time", "user.mydocker.cpu_time")


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="cpu_time",
            flags=("--cpu-time", "-cputime"),
            parse=parse_duration,
            metavar="DURATION",
            help="CPU time, as in 10s or 500ms, after which the container is killed: all its processes together.",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    name = _accountant(layout)
    if not name:
        return Probe(controllers=("cpuacct",), problem=_ABSENT)
    version = layout.version(name)
    return Probe(controllers=(name,), version=version, files=("cpuacct.usage" if version == 1 else "cpu.stat",))


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    if not _accountant(layout):
        raise UnsupportedLimit("cpu_time", _ABSENT)


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    used_seconds(cgroup)  # a kernel that does not count is found out here, and not when the command runs


@hookimpl
def mydocker_apply(cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach(_accountant(cgroup.layout), pid)


@hookimpl
def mydocker_watch(config: ResourceConfig, cgroup: ContainerCgroup) -> tuple[Watch, ...]:
    cpus = usable_cpus(cgroup.layout)

    def check() -> Verdict | float:
        drain(changes)
        budget = budget_seconds(config, cgroup)
        used = used_seconds(cgroup)
        if not used < budget:  # so that no number of its own kind, nan, is no budget without an end
            return Verdict.stop("cpu-time", f"the container used {used:.3f} s of CPU time, its budget was {budget:g} s")
        return max(budget - used, SLACK) / cpus

    changes = watch_path(_account(cgroup).path, IN_ATTRIB)
    return (Watch(check=check, fd=changes, close=lambda: os.close(changes)),)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup) -> None:
    """Raise or lower the budget. One that is used up already ends the container at once."""
    if "cpu_time" not in previous:
        raise LimitError("cpu_time", "the container was started without it, so nobody watches its CPU time")
    path = _account(cgroup).path
    before = budget_seconds(previous, cgroup)
    _leave_budget(path, config["cpu_time"])
    cgroup.on_undo(lambda: _leave_budget(path, before))


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Any]:
    if "cpu_time" not in config or not cgroup.has(_accountant(cgroup.layout)):
        return {}
    used, budget = used_seconds(cgroup), budget_seconds(config, cgroup)
    number = budget if 0 <= budget < float("inf") else None  # whatever stands in the attribute, such as nan
    return {"cpu_seconds": used, "budget_seconds": number, "exceeded": not used < budget}


@hookimpl
def mydocker_explain(config: ResourceConfig, layout: Layout) -> tuple[str, ...]:
    file = "cpuacct.usage" if layout.version(_accountant(layout)) == 1 else "cpu.stat"
    return (f"watch {file} and kill the container when it has used {config['cpu_time']:g} s of CPU time",)


def used_seconds(cgroup: ContainerCgroup) -> float:
    """CPU seconds of all processes that are or were in the cgroup, and in those nested in it."""
    account = _account(cgroup)
    if account.version == 1:
        return int(account.get_property("cpuacct.usage")) / 1e9
    for line in account.get_property("cpu.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec":
            return int(value) / 1e6
    raise UnsupportedLimit("cpu_time", f"{account.path}/cpu.stat has no usage_usec in this kernel")


def budget_seconds(config: ResourceConfig, cgroup: ContainerCgroup) -> float:
    """The budget in force: that of the last update, or else the one with which the container was started."""
    path = _account(cgroup).path
    for name in ATTRIBUTES:
        try:
            return float(os.getxattr(path, name))
        except OSError:
            continue
    return float(config["cpu_time"])


def usable_cpus(layout: Layout) -> int:
    """How many CPUs a container may come to run on, as long as it runs.

    Not those of its own cpuset: an update may raise them while the watch sleeps.
    """
    cpus = os.cpu_count() or 1
    if layout.find("cpuset") is not None:
        offered = layout.root("cpuset").get_content("effective_cpus")
        if offered:
            cpus = min(cpus, len(offered))
    return cpus


_ABSENT = "no cgroup hierarchy here counts CPU time: it takes the v1 controller cpuacct or cgroup v2"


def _accountant(layout: Layout) -> str:
    """The name of the controller whose files have the account, empty if there is none."""
    return next((name for name in ("cpuacct", "cgroup") if layout.find(name) is not None), "")


def _account(cgroup: ContainerCgroup) -> Controller:
    return cgroup.controller(_accountant(cgroup.layout))


def _leave_budget(path: str, seconds: float) -> None:
    refusal = ""
    for name in ATTRIBUTES:
        try:
            os.setxattr(path, name, repr(seconds).encode())
        except OSError as e:  # not for this user, or not this kind of attribute here
            refusal = refusal or e.strerror or str(e)
        else:
            return
    raise LimitError("cpu_time", f"cannot leave the new budget on {path}: {refusal}")
