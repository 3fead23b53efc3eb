"""CPU limits: a weight (``--cpu-shares``, ``--cpu-idle``), a bandwidth (``--cpus``, ``--cpu-quota``, ``--cpu-period``,
``--cpu-burst``), and realtime (``--cpu-rt-runtime``, ``--cpu-rt-period``).

Kernel documentation: scheduler/sched-design-CFS.rst, scheduler/sched-bwc.rst and scheduler/sched-rt-group.rst (v1),
cgroup-v2.rst ("CPU"). What the flags mean together is Docker's ("Runtime constraints on resources", docs.docker.com).
"""

from __future__ import annotations

import errno
import os

from mydocker import CgroupError, LimitError, Probe, ResourceField, UnsupportedLimit, hookimpl
from mydocker.resources import parse_cpus, parse_flag, parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.controllers import Controller
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout

#: What cpu.shares takes (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
SHARES = range(2, 262144 + 1)
#: What cpu.weight takes (cgroup-v2.rst, "CPU Interface Files").
WEIGHT = range(1, 10000 + 1)
#: Microseconds, as the kernel takes them (sched-bwc.rst).
PERIOD = range(1000, 1000000 + 1)
MINIMUM_QUOTA = 1000
DEFAULT_PERIOD = 100000
#: `MINIMUM_QUOTA` of `DEFAULT_PERIOD`.
MINIMUM_CPUS = 0.01
UNLIMITED = -1
DEFAULT_SHARES = 1024
#: Microseconds (sched-rt-group.rst, 2.1).
DEFAULT_RT_PERIOD = 1000000

_FILES = {
    1: ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle", "cpu.rt_runtime_us"),
    2: ("cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle"),
}
_BANDWIDTH = ("cpus", "cpu_quota", "cpu_period")
_REALTIME = ("cpu_rt_runtime", "cpu_rt_period")
_FIELDS = ("cpu_shares", "cpu_weight", "cpu_idle", *_BANDWIDTH, "cpu_burst", *_REALTIME)
_NO_BURST = "it came with Linux 5.14"
_NO_IDLE = "it came with Linux 5.15"
_NO_REALTIME = "it has no CONFIG_RT_GROUP_SCHED"


def parse_shares(text: str) -> int:
    shares = parse_integer(text)
    if shares not in SHARES:
        raise ValueError(f"{shares} is not between {SHARES[0]} and {SHARES[-1]}; a container has 1024 by default")
    return shares


def parse_cpu_bandwidth(text: str) -> float:
    """A number of CPUs, as `parse_cpus` has it, that makes a quota which the kernel takes; -1 for ``unlimited``."""
    if text.strip() == "unlimited":
        return UNLIMITED
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


def parse_microseconds(text: str) -> int:
    microseconds = parse_integer(text)
    if not 0 <= microseconds < 1 << 31:
        raise ValueError(f"{microseconds} µs is not a time from 0 on that the kernel can count")
    return microseconds


def parse_rt_period(text: str) -> int:
    period = parse_microseconds(text)
    if period == 0:
        raise ValueError(f"a period has at least 1 µs; the default is {DEFAULT_RT_PERIOD}")
    return period


def parse_weight(text: str) -> int:
    weight = parse_integer(text)
    if weight not in WEIGHT:
        raise ValueError(f"{weight} is not between {WEIGHT[0]} and {WEIGHT[-1]}; a container has 100 by default")
    return weight


def shares_from_oci(shares: int | None, idle: int | None, unified_weight: str | None) -> str | None:
    """0 is not set. An idle container has no share, and the weight of ``unified`` wins, as runc has it."""
    return str(shares) if shares and idle != 1 and unified_weight is None else None


def period_from_oci(period: int | None, unified: str | None) -> str | None:
    """0 is not set. ``unified`` is cpu.max as v2 takes it: quota or max, and the period if it is not the default."""
    if unified is not None:
        return (unified.split()[1:] or [str(DEFAULT_PERIOD)])[0]
    return str(period) if period else None


def quota_from_oci(quota: int | None, unified: str | None) -> str | None:
    """0 is not set, below it is no bound."""
    if unified is not None:
        return unified.replace("max", str(UNLIMITED)).partition(" ")[0]
    return str(max(quota, UNLIMITED)) if quota else None


def burst_from_oci(burst: int | None, unified: str | None) -> str | None:
    return unified if unified is not None else str(burst)


def idle_from_oci(idle: int | None, unified: str | None) -> str | None:
    text = unified.strip() if unified is not None else str(idle)
    if text not in ("0", "1"):
        raise ValueError(f"{text} is neither 0 nor 1")
    return "true" if text == "1" else "false"


def realtime_from_oci(microseconds: int) -> str | None:
    """0 is not set."""
    return str(microseconds) if microseconds else None


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="cpu_shares",
            flags=("-c", "--cpu-shares", "-cpushare"),
            parse=parse_shares,
            metavar="N",
            help="Share of the CPUs when others want them too, relative to their 1024: 2 to 262144.",
            oci="linux.resources.cpu.shares linux.resources.cpu.idle linux.resources.unified.cpu.weight",
            from_oci=shares_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpu_weight",
            flags=("--cpu-weight",),
            parse=parse_weight,
            metavar="N",
            help="The same as cgroup v2 has it: 1 to 10000, relative to the others' 100. cgroup v2 only.",
            oci="linux.resources.unified.cpu.weight",
            traceless=True,
        ),
        ResourceField(
            name="cpus",
            flags=("--cpus",),
            parse=parse_cpu_bandwidth,
            metavar="N",
            help="The most CPUs' worth of time that the container gets, as in 0.5 or 2, or unlimited.",
            traceless=True,
        ),
        ResourceField(
            name="cpu_period",
            flags=("--cpu-period",),
            parse=parse_period,
            metavar="µs",
            help="The period in microseconds to which --cpu-quota applies: 1000 to 1000000, 100000 by default.",
            oci="linux.resources.cpu.period linux.resources.unified.cpu.max",
            from_oci=period_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpu_quota",
            flags=("--cpu-quota",),
            parse=parse_quota,
            metavar="µs",
            help="The CPU time in microseconds that the container gets in each period; -1 for no bound.",
            oci="linux.resources.cpu.quota linux.resources.unified.cpu.max",
            from_oci=quota_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpu_burst",
            flags=("--cpu-burst",),
            parse=parse_microseconds,
            metavar="µs",
            help="The unused CPU time in microseconds that the container may save up and use above its bound later.",
            oci="linux.resources.cpu.burst linux.resources.unified.cpu.max.burst",
            from_oci=burst_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpu_idle",
            flags=("--cpu-idle",),
            parse=parse_flag,
            metavar="",
            help="Run only while nobody else wants the CPU.",
            oci="linux.resources.cpu.idle linux.resources.unified.cpu.idle",
            kind="flag",
            from_oci=idle_from_oci,
            traceless=True,
        ),
        ResourceField(
            name="cpu_rt_runtime",
            flags=("--cpu-rt-runtime",),
            parse=parse_microseconds,
            metavar="µs",
            help="The CPU time in microseconds that realtime tasks of the container get in each period. "
            "cgroup v1 only.",
            oci="linux.resources.cpu.realtimeRuntime",
            from_oci=realtime_from_oci,
        ),
        ResourceField(
            name="cpu_rt_period",
            flags=("--cpu-rt-period",),
            parse=parse_rt_period,
            metavar="µs",
            help="The period in microseconds to which --cpu-rt-runtime applies, 1000000 by default. cgroup v1 only.",
            oci="linux.resources.cpu.realtimePeriod",
            from_oci=realtime_from_oci,
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    try:
        version = layout.require("cpu").version
    except CgroupError as e:
        return Probe(controllers=("cpu",), problem=str(e))
    offered = layout.root("cpu")
    # The root cgroup of v2 has none of the files; that of v1 has them all.
    files = tuple(name for name in _FILES[version] if version == 2 or offered.has(name))
    bandwidth = version == 2 or "cpu.cfs_quota_us" in files
    problem = "" if bandwidth else "--cpu-shares works; --cpus, --cpu-quota: this kernel has no CONFIG_CFS_BANDWIDTH"
    return Probe(controllers=("cpu",), version=version, files=files, problem=problem)


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    hierarchy = layout.require_for("cpu", config, *_FIELDS)
    if hierarchy is None:
        return
    _require_files(config, layout, hierarchy.version)
    _check_bandwidth(config)
    for field in ("cpu_shares", "cpu_weight"):
        # What it has from before counts again when it is idle no longer (`_set_weight`).
        if config.get("cpu_idle") and config.is_given(field):
            reason = f"it cannot be combined with {config.flag(field)}: an idle container has less than any share"
            raise LimitError("cpu_idle", reason)
    if "cpu_weight" in config and config.is_given("cpu_shares"):  # shares from before give way to a weight
        reason = f"it cannot be combined with {config.flag('cpu_shares')}: both set cpu.weight"
        raise LimitError("cpu_weight", reason)
    runtime, period = _realtime(config)
    if runtime > period:
        raise LimitError("cpu_rt_runtime", f"{runtime} µs is more than the period, {period} µs")


def _require_files(config: ResourceConfig, layout: Layout, version: int) -> None:
    """On v2 the root cgroup has none of the files: an old kernel that lacks one shows when the container's is made."""
    if version == 1:
        offered = layout.root("cpu")
        for fields, file, why in (
            (_BANDWIDTH, "cpu.cfs_quota_us", "it has no CONFIG_CFS_BANDWIDTH"),
            (("cpu_burst",), "cpu.cfs_burst_us", _NO_BURST),
            (("cpu_idle",), "cpu.idle", _NO_IDLE),
            (_REALTIME, "cpu.rt_runtime_us", _NO_REALTIME),
        ):
            for field in fields:
                if config.get(field, False) is not False:
                    offered.require_for(field, file, why=why)
        if "cpu_weight" in config:
            reason = "cpu.weight exists on cgroup v2 only, and the cpu controller here is on v1: use --cpu-shares"
            raise UnsupportedLimit("cpu_weight", reason)
        return
    for field in _REALTIME:
        if field in config:
            file = f"cpu.{field.removeprefix('cpu_')}_us"
            reason = f"{file} exists on cgroup v1 only, and the cpu controller here is on v2"
            raise UnsupportedLimit(field, reason)


def _check_bandwidth(config: ResourceConfig) -> None:
    """What the fields of the bandwidth mean together. One that an update took away leaves room for the others."""
    if config.get("cpus", UNLIMITED) != UNLIMITED:
        for name in ("cpu_quota", "cpu_period"):
            if name in config and config.get("cpu_quota") != UNLIMITED:
                raise LimitError("cpus", f"it cannot be combined with {config.flag(name)}: both set the same bound")
        offered = os.cpu_count() or 1
        if config["cpus"] > offered:
            raise LimitError("cpus", f"{config['cpus']:.12g} is more than this host has, {offered}")
    quota, _ = _bandwidth(config) or (None, 0)
    burst = config.get("cpu_burst", 0)
    if burst and quota is None:
        raise LimitError("cpu_burst", "it needs --cpus or --cpu-quota too: there is no bound to go above")
    if quota is not None and burst > quota:
        raise LimitError("cpu_burst", f"{burst} µs is more than the quota of each period, {quota} µs")


@hookimpl
def mydocker_prepare(config: ResourceConfig, cgroup: ContainerCgroup) -> None:
    _change(config, {}, cgroup)


@hookimpl
def mydocker_update(config: ResourceConfig, previous: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    _change(config, previous, cgroup)


def _change(config: ResourceConfig, previous: ResourceConfig | dict[str, Any], cgroup: ContainerCgroup) -> None:
    """From ``previous`` to ``config``. What is in neither is not touched: its file may be another plugin's to write."""
    controller = cgroup.controller("cpu")
    changed = {field for field in _FIELDS if config.get(field) != previous.get(field)}
    if not changed.isdisjoint(("cpu_shares", "cpu_weight", "cpu_idle")):
        _set_weight(cgroup, config, changed)
    if not changed.isdisjoint((*_BANDWIDTH, "cpu_burst")):
        _set_bandwidth(controller, config, changed)
    if not changed.isdisjoint(_REALTIME):
        _set_realtime(cgroup, *_realtime(config))


def _set_weight(cgroup: ContainerCgroup, config: ResourceConfig, changed: set[str]) -> None:
    """The kernel takes no shares for a cgroup that is idle, and gives it the default when it is so no longer."""
    controller = cgroup.controller("cpu")
    name = "shares" if controller.version == 1 else "weight"
    idle = config.get("cpu_idle", False)
    if "cpu_idle" in changed and (idle or controller.has("cpu.idle")):
        controller.require_for("cpu_idle", "cpu.idle", why=_NO_IDLE)
        if not controller.idle:
            former = getattr(controller, name)
            cgroup.on_undo(lambda: setattr(controller, name, former))
        controller.idle = idle
    if not idle and "cpu_weight" in config:
        controller.weight = config["cpu_weight"]
    elif not idle and (not changed.isdisjoint(("cpu_shares", "cpu_weight")) or "cpu_shares" in config):
        shares = config.get("cpu_shares", DEFAULT_SHARES)
        # By name, as the quota below: the typed files take 2 ms to import.
        controller.set_property(f"cpu.{name}", shares if controller.version == 1 else weight_of(shares))


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
    cpus = config.get("cpus", UNLIMITED)
    if cpus != UNLIMITED:
        return round(cpus * DEFAULT_PERIOD), DEFAULT_PERIOD
    if not any(field in config for field in _BANDWIDTH):
        return None
    quota = config.get("cpu_quota", UNLIMITED)
    return (None if quota == UNLIMITED else quota), config.get("cpu_period", DEFAULT_PERIOD)


def _set_bandwidth(controller: Controller, config: ResourceConfig, changed: set[str]) -> None:
    """The kernel takes no burst above the quota: it shrinks before that does, and grows after it."""
    quota, period = _bandwidth(config) or (None, DEFAULT_PERIOD)
    burst = config.get("cpu_burst", 0)
    name, file = ("cfs_burst_us", "cpu.cfs_burst_us") if controller.version == 1 else ("max_burst", "cpu.max.burst")
    if burst:
        controller.require_for("cpu_burst", file, why=_NO_BURST)
    shrinks = "cpu_burst" in changed and controller.has(file) and burst < getattr(controller, name)
    if shrinks:
        setattr(controller, name, burst)
    if not changed.isdisjoint(_BANDWIDTH):
        set_quota = _set_quota_v1 if controller.version == 1 else _set_quota_v2
        set_quota(controller, quota, period)
    if "cpu_burst" in changed and burst and not shrinks:
        setattr(controller, name, burst)


def _set_quota_v1(controller: Controller, quota: int | None, period: int) -> None:
    """Quota and period are two files, and the kernel checks their quotient at each write.

    It may not be more than that of the cgroups above, nor less than that of those below (sched-bwc.rst,
    "Hierarchical considerations"). So in between it is never more than the old and the new one. Where it is too
    small in between for a cgroup that the container nested in its own, the way leads over no quota for a moment.
    """
    former, wanted = int(controller.get_property("cpu.cfs_quota_us")), UNLIMITED if quota is None else quota
    steps = [("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", wanted)]
    if quota is None or (former != UNLIMITED and quota <= former):
        steps.reverse()
    try:
        try:
            _write(controller, steps)
        except CgroupError as e:
            if e.errno != errno.EINVAL or former == UNLIMITED or quota is None:
                raise
            unbounded = ("cpu.cfs_quota_us", UNLIMITED)
            _write(controller, [unbounded, ("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)])
    except CgroupError as e:
        if e.errno != errno.EINVAL or quota is None:
            raise
        raise _against_the_others_v1(controller, quota / period, e) from e


def _write(controller: Controller, steps: list[tuple[str, int]]) -> None:
    for name, value in steps:
        controller.set_property(name, value)


def _against_the_others_v1(controller: Controller, wanted: float, refusal: CgroupError) -> CgroupError:
    """Why the kernel refused so many CPUs."""
    above = _bandwidth_above_v1(controller)
    if above is not None and wanted > above:
        return CgroupError(
            f"a cgroup above {controller.path} allows {above:g} CPUs, and {wanted:g} were asked for: "
            "on cgroup v1 a container may not have more than its parent",
            refusal.errno,
        )
    for nested in controller.below():
        allowed = _cpus_v1(nested)
        if allowed is not None and allowed > wanted:
            return CgroupError(
                f"the container's own cgroup {nested.path} allows {allowed:g} CPUs, and {wanted:g} were asked for: "
                "on cgroup v1 a container may not have less than the cgroups in it",
                refusal.errno,
            )
    return refusal


def _cpus_v1(controller: Controller) -> float | None:
    """How many CPUs its quota allows, None if there is none."""
    quota = controller.cfs_quota_us
    return None if quota is None else quota / controller.cfs_period_us


def _bandwidth_above_v1(controller: Controller) -> float | None:
    """How many CPUs the nearest quota above allows, None if there is none."""
    above = controller.parent()
    while above.has("cpu.cfs_quota_us"):
        allowed = _cpus_v1(above)
        if allowed is not None:
            return allowed
        above = above.parent()
    return None


def _set_quota_v2(controller: Controller, quota: int | None, period: int) -> None:
    """Both at once. A smaller quota of a cgroup above it bounds this one too."""
    controller.set_property("cpu.max", f"{'max' if quota is None else quota} {period}")


def _realtime(config: ResourceConfig) -> tuple[int, int]:
    """Runtime and period in microseconds."""
    return config.get("cpu_rt_runtime", 0), config.get("cpu_rt_period", DEFAULT_RT_PERIOD)


def _set_realtime(cgroup: ContainerCgroup, runtime: int, period: int) -> None:
    """What the cgroups above have bounds what those below have together (sched-rt-group.rst, 2.2).

    More than once: another run may have counted what the parents need without this one.
    """
    cgroup.on_undo(lambda: _lower_parents(cgroup))
    for _ in range(10):
        _raise_parents(cgroup, runtime / period)
        try:
            _write_realtime(cgroup.controller("cpu"), runtime, period)
        except CgroupError as e:
            if e.errno == errno.EBUSY:
                raise LimitError("cpu_rt_runtime", "realtime tasks run in the container, which need some") from e
            if e.errno != errno.EINVAL:
                raise
        else:
            _lower_parents(cgroup)
            return
    raise LimitError(
        "cpu_rt_runtime",
        f"the cgroups above the container's do not have {runtime} µs in {period} µs left for it: "
        "give them more in their cpu.rt_runtime_us",
    )


def _write_realtime(controller: Controller, runtime: int, period: int) -> None:
    """In between, the quotient of both is never more than the old and the new one."""
    steps = [("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime)]
    if runtime <= (controller.rt_runtime_us or 0):
        steps.reverse()
    _write(controller, steps)


def _raise_parents(cgroup: ContainerCgroup, wanted: float) -> None:
    """Give the parents that are ours what the cgroups in them have together with ``wanted``, the container's part."""
    inner = cgroup.controller("cpu").path
    needs: list[tuple[Controller, float]] = []
    for parent in cgroup.parents("cpu"):
        others = sum(_part(child) for child in parent.children() if child.path != inner)
        wanted = max(wanted + others, _part(parent))
        needs.append((parent, wanted))
        inner = parent.path
    for parent, part in reversed(needs):
        _set_part(parent, part)


def _lower_parents(cgroup: ContainerCgroup) -> None:
    """Leave to the parents that are ours what the cgroups in them have together."""
    for parent in cgroup.parents("cpu"):
        _set_part(parent, sum(_part(child) for child in parent.children()))


def _part(controller: Controller) -> float:
    """The part of a CPU that realtime tasks may have."""
    try:
        return float((controller.rt_runtime_us or 0) / controller.rt_period_us)
    except CgroupError:  # it is being removed
        return 0


def _set_part(controller: Controller, part: float) -> None:
    """The kernel refuses what those above do not have, or those below have by now: whoever asks next is told."""
    runtime = -int(-round(part * controller.rt_period_us, 3) // 1)
    if runtime == controller.rt_runtime_us:
        return
    try:
        controller.rt_runtime_us = runtime
    except CgroupError as e:
        if e.errno not in (errno.EINVAL, errno.EBUSY):
            raise


@hookimpl
def mydocker_apply(config: ResourceConfig, cgroup: ContainerCgroup, pid: int) -> None:
    cgroup.attach("cpu", pid)


@hookimpl
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    """The parents no longer need this container's realtime."""
    # Looked for by name: the import of the controller's typed files would be for nothing, in most containers.
    has_realtime = any(os.path.exists(f"{path}/cpu.rt_runtime_us") for path in cgroup.dirs)
    if cgroup.layout.version("cpu") != 1 or not has_realtime:
        return
    controller = cgroup.controller("cpu")
    if controller.get_property("cpu.rt_runtime_us") not in ("0", "-1"):
        _set_part(controller, 0)
        _lower_parents(cgroup)


@hookimpl
def mydocker_account(cgroup: ContainerCgroup) -> None:
    """On v1, CPU time is counted by a controller of its own, and a cgroup more is made for it. v2 counts it anyway."""
    for name in ("cpu", "cpuacct"):
        if cgroup.layout.find(name):
            cgroup.controller(name)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> dict[str, Any]:
    """``user_seconds``, ``system_seconds``, ``periods``, ``throttled_periods``, ``throttled_seconds``, ``limit_cpus``,
    ``pressure``.

    Each where the kernel counts it for this container. The periods are those in which it had a quota, and was
    throttled because it had used it up; in the seconds, its processes waited for that.
    """
    from mydocker.cgroups.pressure import stall_seconds

    v2: dict[str, Any] = cgroup.controller("cgroup").get_keyed("cpu.stat") if cgroup.has("cgroup") else {}
    figures = _times_v1(cgroup.controller("cpuacct")) if cgroup.has("cpuacct") else _times_v2(v2)
    on_v1 = cgroup.has("cpu") and cgroup.layout.version("cpu") == 1
    stat: dict[str, Any] = cgroup.controller("cpu").get_keyed("cpu.stat") if on_v1 else v2
    if "nr_periods" in stat:  # CONFIG_CFS_BANDWIDTH
        throttled = stat["throttled_usec"] / 1e6 if stat is v2 else stat["throttled_time"] / 1e9
        figures["periods"] = stat["nr_periods"]
        figures["throttled_periods"] = stat["nr_throttled"]
        figures["throttled_seconds"] = round(throttled, 6)
    limit = _limit(cgroup.controller("cpu")) if cgroup.has("cpu") else None
    if limit is not None:
        figures["limit_cpus"] = limit
    pressure = stall_seconds(cgroup, "cpu")
    if pressure is not None:
        figures["pressure"] = pressure
    return figures


def _limit(controller: Controller) -> float | None:
    """The CPUs' worth of time that the container's quota allows."""
    if not controller.has("cpu.cfs_quota_us" if controller.version == 1 else "cpu.max"):
        return None
    if controller.version == 1:
        quota, period = (controller.get_property(f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    else:
        quota, period = controller.get_property("cpu.max").split()
    return None if quota in ("max", str(UNLIMITED)) else int(quota) / int(period)


def _times_v1(controller: Controller) -> dict[str, Any]:
    """The CPU seconds of all processes that were in the container's cgroup, in user and in kernel mode.

    Only the total is exact: v1 counts the modes by the timer's ticks, which a short command may never meet. The total
    is shared out as the ticks are, as the kernel does for v2 and for getrusage(2) (kernel/sched/cputime.c).
    """
    if controller.has("cpuacct.usage_user"):
        user, system = (int(controller.get_property(f"cpuacct.usage_{mode}")) for mode in ("user", "sys"))
    else:  # before Linux 4.7
        user, system = controller.acct_stat["user"], controller.acct_stat["system"]
    total = int(controller.get_property("cpuacct.usage")) / 1e9
    in_user_mode = total * user / (user + system) if user else 0.0
    return {"user_seconds": round(in_user_mode, 9), "system_seconds": round(total - in_user_mode, 9)}


def _times_v2(stat: dict[str, Any]) -> dict[str, Any]:
    if "user_usec" not in stat:
        return {}
    return {"user_seconds": stat["user_usec"] / 1e6, "system_seconds": stat["system_usec"] / 1e6}
