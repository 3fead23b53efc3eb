"""CPU limits: ``--cpu-shares`` (a weight), ``--cpus``, ``--cpu-quota`` and ``--cpu-period`` (a bandwidth).

Kernel documentation: scheduler/sched-design-CFS.rst and scheduler/sched-bwc.rst (v1), cgroup-v2.rst ("CPU"). What
the flags mean together is Docker's ("Runtime constraints on resources", docs.docker.com).
"""

from __future__ import annotations

import os

from mydocker import CgroupError, LimitError, Probe, ResourceField, hookimpl
from mydocker.resources import parse_cpus, parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: What cpu.shares takes (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
SHARES = range(2, 262144 + 1)
#: Microseconds, as the kernel takes them (sched-bwc.rst).
PERIOD = range(1000, 1000000 + 1)
MINIMUM_QUOTA = 1000
DEFAULT_PERIOD = 100000
#: `MINIMUM_QUOTA` of `DEFAULT_PERIOD`.
MINIMUM_CPUS = 0.01

_FILES = {
    1: ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    2: ("cpu.weight", "cpu.max"),
}


def parse_shares(text: str) -> int:
    shares = parse_integer(text)
    if shares not in SHARES:
        raise ValueError(f"{shares} is not between {SHARES[0]} and {SHARES[-1]}; a container has 1024 by default")
    return shares


def parse_cpu_bandwidth(text: str) -> float:
    """A number of CPUs, as `parse_cpus` has it, that makes a quota which the kernel takes."""
    cpus = parse_cpus(text)
    if cpus < MINIMUM_CPUS:
        raise ValueError(f"{text.strip()} CPUs is less than the minimum, {MINIMUM_CPUS}")
    return cpus


def parse_period(text: str) -> int:
    period = parse_integer(text)
    if period not in PERIOD:
        raise ValueError(f"{period} µs is not between {PERIOD[0]} and {PERIOD[-1]} µs; the default is {DEFAULT_PERIOD}")
    return period


def parse_quota(text: str) -> int:
    quota = parse_integer(text)
    if quota != -1 and quota < MINIMUM_QUOTA:
        raise ValueError(f"{quota} µs is less than the minimum, {MINIMUM_QUOTA} µs; -1 is no quota")
    return quota


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="cpu_shares",
            flags=("-c", "--cpu-shares", "-cpushare"),
            parse=parse_shares,
            metavar="N",
            help="Share of the CPUs when others want them too, relative to their 1024: 2 to 262144.",
            oci="linux.resources.cpu.shares",
        ),
        ResourceField(
            name="cpus",
            flags=("--cpus",),
            parse=parse_cpu_bandwidth,
            metavar="N",
            help="The most CPUs' worth of time that the container gets, as in 0.5 or 2.",
        ),
        ResourceField(
            name="cpu_period",
            flags=("--cpu-period",),
            parse=parse_period,
            metavar="µs",
            help="The period in microseconds to which --cpu-quota applies: 1000 to 1000000, 100000 by default.",
            oci="linux.resources.cpu.period",
        ),
        ResourceField(
            name="cpu_quota",
            flags=("--cpu-quota",),
            parse=parse_quota,
            metavar="µs",
            help="The CPU time in microseconds that the container gets in each period; -1 for no bound.",
            oci="linux.resources.cpu.quota",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("cpu").version
    except CgroupError as e:
        return Probe(controllers=("cpu",), problem=str(e))
    offered = layout.root("cpu")
    # The root cgroup has no bandwidth files on either version; cpu.stat shows the throttling where the kernel has it.
    bandwidth = version == 2 or offered.has("cpu.cfs_quota_us")
    files = _FILES[version] if bandwidth else _FILES[version][:1]
    problem = "" if bandwidth else "--cpu-shares works; --cpus, --cpu-quota: this kernel has no CONFIG_CFS_BANDWIDTH"
    return Probe(controllers=("cpu",), version=version, files=files, problem=problem)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    layout.require("cpu")
    if "cpus" not in config:
        return
    for name in ("cpu_quota", "cpu_period"):
        if name in config:
            raise LimitError("cpus", f"it cannot be combined with {config.flag(name)}: both set the same bound")
    offered = os.cpu_count() or 1
    if config["cpus"] > offered:
        raise LimitError("cpus", f"{config['cpus']:g} is more than this host has, {offered}")


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    controller = cgroup.controller("cpu")
    if "cpu_shares" in config:
        if controller.version == 1:
            controller.shares = config["cpu_shares"]
        else:
            controller.weight = weight_of(config["cpu_shares"])
    bandwidth = _bandwidth(config)
    if bandwidth is not None:
        set_bandwidth = _set_bandwidth_v1 if controller.version == 1 else _set_bandwidth_v2
        set_bandwidth(controller, *bandwidth)


def weight_of(shares: int) -> int:
    """The v2 weight (1 to 10000, 100 by default) for v1 shares (2 to 262144, 1024 by default).

    The curve of runc and crun through these three points:
    ceil(10^((l² + 125·l)/612 - 7/34)), l = log2(shares).
    """
    from math import ceil, log2

    doublings = log2(shares)
    return ceil(10 ** ((doublings * doublings + 125 * doublings) / 612 - 7 / 34))


def _bandwidth(config: ResourceConfig) -> tuple[int | None, int] | None:
    """Quota (None: no bound) and period in microseconds, or None if no flag sets them."""
    if "cpus" in config:
        return round(config["cpus"] * DEFAULT_PERIOD), DEFAULT_PERIOD
    if "cpu_quota" not in config and "cpu_period" not in config:
        return None
    quota = config.get("cpu_quota", -1)
    return (None if quota == -1 else quota), config.get("cpu_period", DEFAULT_PERIOD)


def _set_bandwidth_v1(controller: Controller, quota: int | None, period: int) -> None:
    """The period first: a new cgroup has no quota, so no period can be too short for it."""
    controller.cfs_period_us = period
    try:
        controller.cfs_quota_us = quota
    except CgroupError as e:
        above = _bandwidth_above_v1(controller)
        if quota is None or above is None or quota / period <= above:
            raise
        # sched-bwc.rst, "Hierarchical considerations": sum and share of a child are bounded on v1, not clipped.
        raise CgroupError(
            f"a cgroup above {controller.path} allows {above:g} CPUs, and {quota / period:g} were asked for: "
            "on cgroup v1 a container may not have more than its parent",
            e.errno,
        ) from e


def _bandwidth_above_v1(controller: Controller) -> float | None:
    """How many CPUs the nearest quota above allows, None if there is none."""
    above = controller.parent()
    while above.has("cpu.cfs_quota_us"):
        if above.cfs_quota_us is not None:
            return float(above.cfs_quota_us / above.cfs_period_us)
        above = above.parent()
    return None


def _set_bandwidth_v2(controller: Controller, quota: int | None, period: int) -> None:
    """Both at once. A smaller quota of a cgroup above it bounds this one too."""
    controller.max = (quota, period)


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("cpu", pid)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """With a quota: how many periods there were, in how many it ran out, and for how long processes then waited."""
    controller = cgroup.controller("cpu")
    if _bandwidth(config) is None:
        return {}
    stat = controller.stat
    throttled = stat["throttled_time"] / 1e9 if controller.version == 1 else stat["throttled_usec"] / 1e6
    return {
        "periods": stat["nr_periods"],
        "throttled_periods": stat["nr_throttled"],
        "throttled_seconds": round(throttled, 6),
    }
