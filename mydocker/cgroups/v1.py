# mypy: disallow-subclassing-any=False
"""The files of the cgroup v1 controllers (Documentation/admin-guide/cgroup-v1/)."""

from __future__ import annotations

from cgroupspy import controllers as spy
from cgroupspy.contenttypes import DeviceThrottle
from cgroupspy.interfaces import CommaDashSetFile, FlagFile, IntegerFile, TypedFile

from mydocker.cgroups.controllers import Controller, FlatKeyedFile, ValueOrMaxFile


class Other(Controller):
    """A v1 cgroup, seen by a controller of which no file is described here (perf_event, rdma)."""

    version = 1


class Memory(Other, spy.MemoryController):
    """memory. Limits are bytes; reading no limit gives 9223372036854771712; None sets none.

    ``oom_control`` reads as a dict: oom_kill_disable, under_oom, and since 4.13 oom_kill, the number of processes
    killed in this very cgroup (the count does not go up the tree on v1).
    """

    force_empty = FlagFile("memory.force_empty", writeonly=True)
    kmem_usage_in_bytes = IntegerFile("memory.kmem.usage_in_bytes", readonly=True)
    kmem_max_usage_in_bytes = IntegerFile("memory.kmem.max_usage_in_bytes")


class Cpu(Other, spy.CpuController):
    """cpu. Microseconds; ``cfs_quota_us`` is None for no quota."""

    cfs_burst_us = IntegerFile("cpu.cfs_burst_us")
    idle = FlagFile("cpu.idle")


class CpuAcct(Other, spy.CpuAcctController):
    """cpuacct. Nanoseconds, but ``acct_stat`` in ticks of USER_HZ."""

    usage_user = IntegerFile("cpuacct.usage_user", readonly=True)
    usage_sys = IntegerFile("cpuacct.usage_sys", readonly=True)


class CpuSet(Other, spy.CpuSetController):
    """cpuset. Sets of CPU and memory node numbers; the effective ones are what the kernel schedules on."""

    effective_cpus = CommaDashSetFile("cpuset.effective_cpus", readonly=True)
    effective_mems = CommaDashSetFile("cpuset.effective_mems", readonly=True)


class Pids(Other):
    """pids. Numbers of tasks, threads included."""

    max = ValueOrMaxFile("pids.max")
    current = IntegerFile("pids.current", readonly=True)
    events = FlatKeyedFile("pids.events")


class Freezer(Other):
    """freezer. ``state`` is THAWED, FREEZING or FROZEN; FROZEN and THAWED can be written."""

    state = spy.BaseFileInterface("freezer.state")
    self_freezing = FlagFile("freezer.self_freezing", readonly=True)
    parent_freezing = FlagFile("freezer.parent_freezing", readonly=True)


class HugeTlb(Other):
    """hugetlb. The files are named after the page sizes of the machine: ``limit("2MB")``."""

    def limit(self, size: str) -> int:
        """The limit in bytes on huge pages of ``size``."""
        return int(self.get_property(f"hugetlb.{size}.limit_in_bytes"))

    def set_limit(self, size: str, value: int) -> None:
        """Set the limit in bytes, a multiple of the page size, on huge pages of ``size``."""
        self.set_property(f"hugetlb.{size}.limit_in_bytes", value)


class BlkIo(Other, spy.BlkIOController):
    """blkio. cgroupspy has a trailing blank in the names of two throttles, and takes a write-only file for readable."""

    reset_stats = IntegerFile("blkio.reset_stats", writeonly=True)
    throttle_write_bps_device = TypedFile("blkio.throttle.write_bps_device", contenttype=DeviceThrottle, many=True)
    throttle_write_iops_device = TypedFile("blkio.throttle.write_iops_device", contenttype=DeviceThrottle, many=True)
    bfq_weight = IntegerFile("blkio.bfq.weight")


class Devices(Other, spy.DevicesController):
    """devices."""


class NetCls(Other, spy.NetClsController):
    """net_cls."""


class NetPrio(Other, spy.NetPrioController):
    """net_prio."""


CONTROLLERS: dict[str, type[Controller]] = {
    "memory": Memory,
    "cpu": Cpu,
    "cpuacct": CpuAcct,
    "cpuset": CpuSet,
    "pids": Pids,
    "freezer": Freezer,
    "hugetlb": HugeTlb,
    "blkio": BlkIo,
    "devices": Devices,
    "net_cls": NetCls,
    "net_prio": NetPrio,
}
